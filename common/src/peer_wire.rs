//! The peer wire protocol: handshake and messages (BEP 3, BEP 6, BEP 10).
//!
//! Reading never copies the bytes of a block: a [`Message::Piece`] shares the buffer that the socket was read
//! into. Each kind of message has its own bound on its length.

#![deny(clippy::indexing_slicing)]

use crate::hash::{InfoHash, PeerId};
pub use crate::peer_extension::ExtendedHandshake;
use crate::peer_extension::{UT_METADATA, UT_PEX};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The ALPN protocol name of connections between members, which carry this protocol behind two tickets.
pub const ALPN: &[u8] = b"mini-torrent-peer/1";
/// Length of a handshake in bytes.
pub const HANDSHAKE_LENGTH: usize = 68;
/// Longest block in bytes that may be asked for or sent: 128 KiB.
pub const MAX_BLOCK_LENGTH: u32 = 128 * 1024;
/// Longest extension message, and longest message of an unknown kind, in bytes: 64 KiB.
pub const MAX_OTHER_LENGTH: u32 = 64 * 1024;
/// Length in bytes of a `piece` message before its block, the length prefix included.
pub const PIECE_HEADER_LENGTH: usize = 13;

const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";
const EXTENSION_BIT: (usize, u8) = (5, 0x10);
const FAST_BIT: (usize, u8) = (7, 0x04);
/// The extension message that is the extension handshake (BEP 10).
const EXTENDED_HANDSHAKE: u8 = 0;

/// The first 68 bytes of each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The sender's name in swarms.
    pub peer_id: PeerId,
    /// Whether the sender speaks the fast extension (BEP 6).
    pub fast: bool,
    /// Whether the sender speaks the extension protocol (BEP 10).
    pub extended: bool,
}

impl Handshake {
    /// The bytes as sent.
    pub fn encode(&self) -> [u8; HANDSHAKE_LENGTH] {
        let mut reserved = [0u8; 8];
        for (on, (at, bit)) in [(self.fast, FAST_BIT), (self.extended, EXTENSION_BIT)] {
            if let Some(byte) = reserved.get_mut(at).filter(|_| on) {
                *byte |= bit;
            }
        }
        let mut bytes = [0; HANDSHAKE_LENGTH];
        let mut out = &mut bytes[..];
        out.put_slice(PROTOCOL);
        out.put_slice(&reserved);
        out.put_slice(self.info_hash.as_bytes());
        out.put_slice(self.peer_id.as_bytes());
        bytes
    }

    /// Reads a handshake; `None` when the bytes are another protocol.
    pub fn decode(bytes: &[u8; HANDSHAKE_LENGTH]) -> Option<Self> {
        let rest = bytes.strip_prefix(PROTOCOL)?;
        let (reserved, rest) = rest.split_first_chunk::<8>()?;
        let (info_hash, peer_id) = rest.split_first_chunk::<20>()?;
        let has = |(at, bit): (usize, u8)| reserved.get(at).is_some_and(|byte| byte & bit != 0);
        Some(Self {
            info_hash: InfoHash(*info_hash),
            peer_id: PeerId::from_slice(peer_id)?,
            fast: has(FAST_BIT),
            extended: has(EXTENSION_BIT),
        })
    }
}

/// A message after the handshake. Numbers are as the peer sent them: nothing is in range yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Nothing; keeps the connection open.
    KeepAlive,
    /// The sender will not serve requests.
    Choke,
    /// The sender will serve requests.
    Unchoke,
    /// The sender wants something that the receiver has.
    Interested,
    /// The sender wants nothing.
    NotInterested,
    /// The sender has this piece now.
    Have(u32),
    /// What the sender has, one bit a piece.
    Bitfield(Bytes),
    /// Asks for a block.
    Request(BlockRange),
    /// A block.
    Piece {
        /// Index of the piece.
        index: u32,
        /// Offset in bytes within the piece.
        begin: u32,
        /// The bytes.
        block: Bytes,
    },
    /// Takes a request back.
    Cancel(BlockRange),
    /// Recommends a piece (BEP 6).
    Suggest(u32),
    /// The sender has everything (BEP 6).
    HaveAll,
    /// The sender has nothing (BEP 6).
    HaveNone,
    /// The sender will not answer this request (BEP 6).
    Reject(BlockRange),
    /// This piece is served even while choked (BEP 6).
    AllowedFast(u32),
    /// What the sender can (BEP 10).
    ExtendedHandshake(ExtendedHandshake),
    /// A message of an extension that we speak (BEP 10); the module `peer_extension` reads its body.
    Extended {
        /// The receiver's number for the extension: ours in what is read, the peer's in what is sent.
        number: u8,
        /// What the extension says.
        body: Bytes,
    },
    /// A message of an extension or version that we do not speak.
    Unknown(u8),
}

/// A block as a peer names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRange {
    /// Index of the piece.
    pub index: u32,
    /// Offset in bytes within the piece.
    pub begin: u32,
    /// Length in bytes.
    pub length: u32,
}

/// Why bytes are not a message. The sender is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The announced length does not fit the kind of message.
    #[error("message {id} of {length} bytes")]
    Length {
        /// The kind.
        id: u8,
        /// Announced length in bytes, the kind included.
        length: u32,
    },
    /// The extension handshake is not a bencoded dictionary.
    #[error("the extension handshake is malformed")]
    ExtendedHandshake,
}

/// Takes the next whole message out of `buffer`; `None` while it is not all there.
///
/// # Errors
/// As soon as the header announces a length that its kind may not have, `n_pieces` bounding the bitfield.
pub fn decode(buffer: &mut BytesMut, n_pieces: u32) -> Result<Option<Message>, DecodeError> {
    let Some(prefix) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*prefix);
    if length == 0 {
        buffer.advance(4);
        return Ok(Some(Message::KeepAlive));
    }
    let Some(id) = buffer.get(4).copied() else { return Ok(None) };
    if !length_fits(id, length, n_pieces) {
        return Err(DecodeError::Length { id, length });
    }
    if (buffer.len() - 4) < length as usize {
        return Ok(None);
    }
    buffer.advance(5);
    let body = buffer.split_to(length as usize - 1).freeze();
    decode_body(id, body).map(Some)
}

fn length_fits(id: u8, length: u32, n_pieces: u32) -> bool {
    match id {
        0..=3 | 14 | 15 => length == 1,
        4 | 13 | 17 => length == 5,
        5 => length <= 1 + n_pieces.div_ceil(8),
        6 | 8 | 16 => length == 13,
        7 => (10..=9 + MAX_BLOCK_LENGTH).contains(&length),
        _ => length <= MAX_OTHER_LENGTH,
    }
}

/// The length was checked against the kind, so the fixed parts are there.
fn decode_body(id: u8, mut body: Bytes) -> Result<Message, DecodeError> {
    let mut number = || body.try_get_u32().unwrap_or_default();
    Ok(match id {
        0 => Message::Choke,
        1 => Message::Unchoke,
        2 => Message::Interested,
        3 => Message::NotInterested,
        4 => Message::Have(number()),
        5 => Message::Bitfield(body),
        6 | 8 | 16 => {
            let range = BlockRange { index: number(), begin: number(), length: number() };
            match id {
                6 => Message::Request(range),
                8 => Message::Cancel(range),
                _ => Message::Reject(range),
            }
        }
        7 => {
            let (index, begin) = (number(), number());
            Message::Piece { index, begin, block: body }
        }
        13 => Message::Suggest(number()),
        14 => Message::HaveAll,
        15 => Message::HaveNone,
        17 => Message::AllowedFast(number()),
        20 if body.first() == Some(&EXTENDED_HANDSHAKE) => {
            Message::ExtendedHandshake(ExtendedHandshake::decode(body.get(1..).unwrap_or_default())?)
        }
        20 if matches!(body.first(), Some(&UT_METADATA | &UT_PEX)) => Message::Extended { number: body.get_u8(), body },
        other => Message::Unknown(other),
    })
}

impl Message {
    /// Appends the bytes as sent.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::KeepAlive => out.put_u32(0),
            Self::Choke => put_header(out, 0, 0),
            Self::Unchoke => put_header(out, 1, 0),
            Self::Interested => put_header(out, 2, 0),
            Self::NotInterested => put_header(out, 3, 0),
            Self::Have(index) => put_index(out, 4, *index),
            Self::Bitfield(bytes) => put_bytes(out, 5, bytes),
            Self::Request(range) => put_range(out, 6, *range),
            Self::Piece { index, begin, block } => {
                put_header(out, 7, 8 + block.len());
                out.put_u32(*index);
                out.put_u32(*begin);
                out.put_slice(block);
            }
            Self::Cancel(range) => put_range(out, 8, *range),
            Self::Suggest(index) => put_index(out, 13, *index),
            Self::HaveAll => put_header(out, 14, 0),
            Self::HaveNone => put_header(out, 15, 0),
            Self::Reject(range) => put_range(out, 16, *range),
            Self::AllowedFast(index) => put_index(out, 17, *index),
            Self::ExtendedHandshake(handshake) => {
                let body = [&[EXTENDED_HANDSHAKE][..], &handshake.encode()].concat();
                put_bytes(out, 20, &body);
            }
            Self::Extended { number, body } => {
                put_header(out, 20, 1 + body.len());
                out.put_u8(*number);
                out.put_slice(body);
            }
            Self::Unknown(id) => put_header(out, *id, 0),
        }
    }
}

/// The bytes of a `piece` message that stand before its block, for a writer that has the block elsewhere.
pub fn piece_header(range: BlockRange) -> [u8; PIECE_HEADER_LENGTH] {
    let mut header = [0; PIECE_HEADER_LENGTH];
    let mut out = &mut header[..];
    out.put_u32(range.length.saturating_add(9));
    out.put_u8(7);
    out.put_u32(range.index);
    out.put_u32(range.begin);
    header
}

fn put_header(out: &mut BytesMut, id: u8, body_length: usize) {
    out.put_u32(u32::try_from(body_length + 1).unwrap_or(u32::MAX));
    out.put_u8(id);
}

fn put_index(out: &mut BytesMut, id: u8, index: u32) {
    put_header(out, id, 4);
    out.put_u32(index);
}

fn put_range(out: &mut BytesMut, id: u8, range: BlockRange) {
    put_header(out, id, 12);
    out.put_u32(range.index);
    out.put_u32(range.begin);
    out.put_u32(range.length);
}

fn put_bytes(out: &mut BytesMut, id: u8, bytes: &[u8]) {
    put_header(out, id, bytes.len());
    out.put_slice(bytes);
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)] // Bytes of the tests' own.
mod tests {
    use super::*;
    use proptest::prelude::*;

    const N_PIECES: u32 = 20;

    fn range() -> BlockRange {
        BlockRange { index: 1, begin: 0x4000, length: 0x4000 }
    }

    /// One of each kind, with its bytes as BEP 3, 6 and 10 give them.
    fn golden() -> Vec<(Message, &'static [u8])> {
        let handshake = ExtendedHandshake { client: Some("x".into()), max_requests: Some(250), ..Default::default() };
        vec![
            (Message::KeepAlive, b"\0\0\0\0"),
            (Message::Choke, b"\0\0\0\x01\0"),
            (Message::Unchoke, b"\0\0\0\x01\x01"),
            (Message::Interested, b"\0\0\0\x01\x02"),
            (Message::NotInterested, b"\0\0\0\x01\x03"),
            (Message::Have(7), b"\0\0\0\x05\x04\0\0\0\x07"),
            (Message::Bitfield(Bytes::from_static(b"\xff\xff\xf0")), b"\0\0\0\x04\x05\xff\xff\xf0"),
            (Message::Request(range()), b"\0\0\0\x0d\x06\0\0\0\x01\0\0\x40\0\0\0\x40\0"),
            (
                Message::Piece { index: 1, begin: 2, block: Bytes::from_static(b"abc") },
                b"\0\0\0\x0c\x07\0\0\0\x01\0\0\0\x02abc",
            ),
            (Message::Cancel(range()), b"\0\0\0\x0d\x08\0\0\0\x01\0\0\x40\0\0\0\x40\0"),
            (Message::Suggest(3), b"\0\0\0\x05\x0d\0\0\0\x03"),
            (Message::HaveAll, b"\0\0\0\x01\x0e"),
            (Message::HaveNone, b"\0\0\0\x01\x0f"),
            (Message::Reject(range()), b"\0\0\0\x0d\x10\0\0\0\x01\0\0\x40\0\0\0\x40\0"),
            (Message::AllowedFast(3), b"\0\0\0\x05\x11\0\0\0\x03"),
            (Message::ExtendedHandshake(handshake), b"\0\0\0\x1a\x14\0d1:mde4:reqqi250e1:v1:xe"),
            (Message::Extended { number: UT_PEX, body: Bytes::from_static(b"de") }, b"\0\0\0\x04\x14\x02de"),
        ]
    }

    #[test]
    fn messages_have_their_published_bytes() {
        for (message, bytes) in golden() {
            let mut out = BytesMut::new();
            message.encode(&mut out);
            assert_eq!(out, bytes, "{message:?}");
            assert_eq!(decode(&mut out, N_PIECES), Ok(Some(message)));
            assert!(out.is_empty());
        }
    }

    #[test]
    fn piece_header_is_the_start_of_a_piece_message() {
        let block = Bytes::from(vec![1; 0x4000]);
        let mut out = BytesMut::new();
        Message::Piece { index: 1, begin: 0x4000, block }.encode(&mut out);
        assert_eq!(out[..PIECE_HEADER_LENGTH], piece_header(range()));
    }

    /// B5: the handshake has 68 bytes, and another protocol is not one.
    #[test]
    fn b5_handshake_round_trips() {
        let handshake =
            Handshake { info_hash: InfoHash([1; 20]), peer_id: PeerId([2; 20]), fast: true, extended: true };
        let bytes = handshake.encode();
        assert_eq!(bytes[..28], *b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x04");
        assert_eq!(Handshake::decode(&bytes), Some(handshake));
        let mut other = bytes;
        other[1] = b'b';
        assert_eq!(Handshake::decode(&other), None);
    }

    /// B8: a length that its kind may not have is refused at the header.
    #[test]
    fn b8_wrong_lengths_are_refused_at_the_header() {
        for (header, id) in [
            (&b"\0\0\0\x02\0"[..], 0),
            (b"\0\0\0\x04\x04", 4),
            (b"\0\0\0\x05\x05", 5),
            (b"\0\0\0\x0e\x06", 6),
            (b"\0\0\0\x09\x07", 7),
            (b"\0\x02\0\x0a\x07", 7),
            (b"\xff\xff\xff\xff\x14", 20),
            (b"\0\x01\0\x01\x63", 0x63),
        ] {
            let result = decode(&mut BytesMut::from(header), N_PIECES);
            assert!(
                matches!(result, Err(DecodeError::Length { id: seen, .. }) if seen == id),
                "{header:?}: {result:?}"
            );
        }
    }

    /// B12: messages of unknown kinds are passed over.
    #[test]
    fn b12_unknown_messages_are_passed_over() {
        let mut buffer = BytesMut::from(&b"\0\0\0\x03\x63ab\0\0\0\x03\x14\x05x\0\0\0\x01\x01"[..]);
        assert_eq!(decode(&mut buffer, N_PIECES), Ok(Some(Message::Unknown(0x63))));
        assert_eq!(decode(&mut buffer, N_PIECES), Ok(Some(Message::Unknown(20))));
        assert_eq!(decode(&mut buffer, N_PIECES), Ok(Some(Message::Unchoke)));
        assert_eq!(decode(&mut buffer, N_PIECES), Ok(None));
    }

    #[test]
    fn a_block_shares_the_buffer_it_was_read_into() {
        let mut buffer = BytesMut::new();
        Message::Piece { index: 0, begin: 0, block: Bytes::from(vec![5; 0x4000]) }.encode(&mut buffer);
        let start = buffer.as_ptr() as usize + PIECE_HEADER_LENGTH;
        let Ok(Some(Message::Piece { block, .. })) = decode(&mut buffer, N_PIECES) else { panic!("no block") };
        assert_eq!(block.as_ptr() as usize, start);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer, N_PIECES) {}
        }

        #[test]
        fn messages_decode_alike_however_they_are_cut(which in 0usize..17, cut in 0usize..40) {
            let (message, bytes) = golden().swap_remove(which);
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            let mut buffer = BytesMut::from(head);
            let early = decode(&mut buffer, N_PIECES).unwrap();
            buffer.extend_from_slice(tail);
            prop_assert_eq!(early.or(decode(&mut buffer, N_PIECES).unwrap()), Some(message));
        }
    }
}
