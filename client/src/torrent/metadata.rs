//! The `info` dictionary of a magnet link, from peers (BEP 9): bounded, and checked against the info-hash.

use bytes::{Bytes, BytesMut};
use mini_torrent_common::geometry::MAX_PIECES;
use mini_torrent_common::hash::InfoHash;
use mini_torrent_common::peer_extension::{Metadata, UT_METADATA, n_metadata_pieces};
use mini_torrent_common::peer_wire::{self, ExtendedHandshake, Message};
use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Control;
use crate::peer::{Opener, PeerError, TorrentName, Transport};

/// Longest dictionary that is fetched: 800,000 pieces. A greater one has to come as a file.
const MAX_LENGTH: u32 = 16 * 1024 * 1024;
/// Peers that are asked at the same time.
const MAX_ASKED: usize = 4;
/// Peers that wait to be asked.
const MAX_WAITING: usize = 500;
/// Parts that are asked of one peer at once.
const WINDOW: u32 = 8;
/// How long one peer may take for all of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait before a peer that had nothing is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(15);

/// Why a peer did not give the dictionary.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it took too long")]
    TimedOut,
    #[error("protocol error: {0}")]
    Protocol(#[from] peer_wire::DecodeError),
    #[error("it does not give the metadata")]
    Refused,
    #[error("the metadata is longer than {MAX_LENGTH} bytes")]
    TooLong,
    #[error("the metadata does not match the info-hash")]
    Mismatch,
}

/// Asks peers as they are named, until one has given the right dictionary.
pub(crate) async fn fetch_metadata(info_hash: InfoHash, opener: Opener, mut peers: mpsc::Receiver<Control>) -> Bytes {
    let mut waiting: VecDeque<SocketAddr> = VecDeque::new();
    let mut known = HashSet::new();
    let mut asked = JoinSet::new();
    loop {
        while asked.len() < MAX_ASKED
            && let Some(address) = waiting.pop_front()
        {
            let opener = opener.clone();
            asked.spawn(async move { (address, timeout(PATIENCE, ask(address, info_hash, opener)).await) });
        }
        tokio::select! {
            Some(control) = peers.recv() => {
                let Control::AddressesCame(addresses) = control else { continue };
                for address in addresses {
                    if waiting.len() < MAX_WAITING && known.len() < 2 * MAX_WAITING && known.insert(address) {
                        waiting.push_back(address);
                    }
                }
            }
            Some(Ok((address, answer))) = asked.join_next() => {
                let error = match answer {
                    Ok(Ok(raw_info)) => return raw_info,
                    Ok(Err(error)) => error,
                    Err(_) => MetadataError::TimedOut,
                };
                tracing::debug!(%address, %error, "a peer gives no metadata");
            }
            () = sleep(ASK_AGAIN), if asked.is_empty() && !known.is_empty() => waiting.extend(&known),
            else => return std::future::pending().await,
        }
    }
}

async fn ask(address: SocketAddr, info_hash: InfoHash, opener: Opener) -> Result<Bytes, MetadataError> {
    let open = opener.dial_plain(address, TorrentName { info_hash, group: None }).await?;
    if !open.extended {
        return Err(MetadataError::Refused);
    }
    exchange(open.transport, info_hash).await
}

/// Asks for all parts in order, a few ahead.
async fn exchange(transport: Transport, info_hash: InfoHash) -> Result<Bytes, MetadataError> {
    let Transport { mut reader, mut writer, .. } = transport;
    let own = ExtendedHandshake {
        client: Some(crate::AGENT.to_owned()),
        ut_metadata: Some(UT_METADATA),
        ..ExtendedHandshake::default()
    };
    let mut out = BytesMut::new();
    Message::ExtendedHandshake(own).encode(&mut out);
    let (mut buffer, mut parts) = (BytesMut::new(), None);
    loop {
        writer.write_all(&out.split()).await?;
        writer.flush().await?;
        if reader.read_buf(&mut buffer).await? == 0 {
            return Err(MetadataError::Refused);
        }
        while let Some(message) = peer_wire::decode(&mut buffer, MAX_PIECES)? {
            match (message, &mut parts) {
                (Message::ExtendedHandshake(theirs), None) => {
                    let number = theirs.ut_metadata.ok_or(MetadataError::Refused)?;
                    let length = theirs.metadata_length.ok_or(MetadataError::Refused)?;
                    if length > MAX_LENGTH {
                        return Err(MetadataError::TooLong);
                    }
                    parts = Some(Parts { number, length, n_asked: 0, bytes: Vec::new() });
                }
                (Message::Extended { number: UT_METADATA, body }, Some(parts)) => {
                    let message = Metadata::decode(&body).map_err(|_| MetadataError::Refused)?;
                    if parts.take(&message)? {
                        let is_right = InfoHash::of(&parts.bytes) == info_hash;
                        let bytes = std::mem::take(&mut parts.bytes);
                        return if is_right { Ok(bytes.into()) } else { Err(MetadataError::Mismatch) };
                    }
                }
                _ => {}
            }
        }
        if let Some(parts) = &mut parts {
            parts.ask_ahead(&mut out);
        }
    }
}

/// The parts that one peer has given so far, in order.
struct Parts {
    /// The peer's number for the extension.
    number: u8,
    /// Length in bytes of all of them.
    length: u32,
    n_asked: u32,
    bytes: Vec<u8>,
}

impl Parts {
    fn n_taken(&self) -> u32 {
        n_metadata_pieces(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX))
    }

    fn ask_ahead(&mut self, out: &mut BytesMut) {
        let end = n_metadata_pieces(self.length).min(self.n_taken() + WINDOW);
        (self.n_asked..end).for_each(|piece| Metadata::Request { piece }.to_message(self.number).encode(out));
        self.n_asked = self.n_asked.max(end);
    }

    /// Takes a part; says whether it was the last one. Peers answer in the order in which they were asked.
    fn take(&mut self, message: &Metadata) -> Result<bool, MetadataError> {
        match message {
            Metadata::Data { piece, total_length, block } => {
                if *total_length != self.length || *piece != self.n_taken() || *piece >= self.n_asked {
                    return Err(MetadataError::Refused);
                }
                self.bytes.extend_from_slice(block);
                Ok(self.bytes.len() == self.length as usize)
            }
            Metadata::Reject { .. } => Err(MetadataError::Refused),
            // A peer may ask, too: it has been told that we have nothing.
            Metadata::Request { .. } | Metadata::Unknown => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{PeerWriter, Transport};
    use mini_torrent_common::peer_extension::{METADATA_PIECE_LENGTH, metadata_piece_length};
    use std::sync::Arc;
    use tokio::io::{DuplexStream, WriteHalf, duplex, split};
    use tokio::sync::Semaphore;

    const THEIR_NUMBER: u8 = 9;

    impl PeerWriter for WriteHalf<DuplexStream> {
        fn reset_at_close(&self) {}
    }

    fn transport(stream: DuplexStream) -> Transport {
        let (reader, writer) = split(stream);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let remote = "10.0.0.1:1".parse().unwrap();
        Transport { reader: Box::new(reader), writer: Box::new(writer), remote, key: None, place }
    }

    /// A peer that has these bytes and says that they are so long; it refuses from one part on.
    async fn peer(mut stream: DuplexStream, raw_info: Vec<u8>, claimed: u32, refused_from: u32) {
        let handshake = ExtendedHandshake {
            ut_metadata: Some(THEIR_NUMBER),
            metadata_length: Some(claimed),
            ..ExtendedHandshake::default()
        };
        let (mut out, mut buffer) = (BytesMut::new(), BytesMut::new());
        Message::Bitfield(Bytes::from_static(&[0xff; 9])).encode(&mut out);
        Message::ExtendedHandshake(handshake).encode(&mut out);
        loop {
            if stream.write_all(&out.split()).await.is_err() || stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
            // What is sent to this peer bears its number, which the decoder does not know.
            while buffer.len() >= 4 {
                let length = 4 + u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
                if buffer.len() < length {
                    break;
                }
                let message = buffer.split_to(length).freeze();
                if message[5] != THEIR_NUMBER {
                    continue;
                }
                let Ok(Metadata::Request { piece }) = Metadata::decode(&message.slice(6..)) else {
                    panic!("a request")
                };
                let start = (piece * METADATA_PIECE_LENGTH) as usize;
                let part = metadata_piece_length(claimed, piece).filter(|_| piece < refused_from);
                let answer = match part.and_then(|length| raw_info.get(start..start + length as usize)) {
                    None => Metadata::Reject { piece },
                    Some(block) => {
                        let block = Bytes::copy_from_slice(block);
                        Metadata::Data { piece, total_length: claimed, block }
                    }
                };
                answer.to_message(UT_METADATA).encode(&mut out);
            }
        }
    }

    async fn fetched(
        raw_info: &[u8],
        claimed: u32,
        refused_from: u32,
        wanted: InfoHash,
    ) -> Result<Bytes, MetadataError> {
        let (ours, theirs) = duplex(1 << 20);
        let peer = tokio::spawn(peer(theirs, raw_info.to_vec(), claimed, refused_from));
        let fetched = exchange(transport(ours), wanted).await;
        peer.await.unwrap();
        fetched
    }

    #[tokio::test]
    async fn the_dictionary_comes_in_parts_and_is_checked() {
        for length in [1u32, 16_384, 16_385, 500_000] {
            let raw: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
            assert_eq!(fetched(&raw, length, 999, InfoHash::of(&raw)).await.unwrap(), raw, "{length}");
            let other = fetched(&raw, length, 999, InfoHash([0; 20])).await;
            assert!(matches!(other, Err(MetadataError::Mismatch)));
        }
    }

    #[tokio::test]
    async fn who_refuses_or_has_too_much_is_left() {
        let raw = vec![7; 100_000];
        let hash = InfoHash::of(&raw);
        assert!(matches!(fetched(&raw, 100_000, 3, hash).await, Err(MetadataError::Refused)));
        assert!(matches!(fetched(&raw, MAX_LENGTH + 1, 999, hash).await, Err(MetadataError::TooLong)));
        assert!(matches!(fetched(&raw, 99_999, 999, hash).await, Err(MetadataError::Mismatch)));
    }
}
