//! The packets that a client sends.

#![deny(clippy::indexing_slicing)]

use super::options::{Options, put_url_data};
use super::{ANNOUNCE, CONNECT, MAX_SCRAPE_HASHES, PROTOCOL_ID, Reader, SCRAPE};
use crate::announce::{Event, MAX_NUMWANT};
use crate::hash::{InfoHash, PeerId};

/// A request, borrowing from its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Asks for a connection id.
    Connect {
        /// Chosen by the client, and repeated in the response.
        transaction_id: u32,
    },
    /// Announces a peer.
    Announce(AnnounceRequest<'a>),
    /// Asks for the numbers of torrents.
    Scrape {
        /// From the tracker's connect response.
        connection_id: u64,
        /// Chosen by the client, and repeated in the response.
        transaction_id: u32,
        /// The torrents, 1 to [`MAX_SCRAPE_HASHES`].
        hashes: &'a [[u8; InfoHash::LENGTH]],
    },
}

/// What a client tells a tracker. The address field is ignored: anybody can claim any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnounceRequest<'a> {
    /// From the tracker's connect response.
    pub connection_id: u64,
    /// Chosen by the client, and repeated in the response.
    pub transaction_id: u32,
    /// The torrent.
    pub info_hash: InfoHash,
    /// The client's name in swarms.
    pub peer_id: PeerId,
    /// Bytes received since it started.
    pub downloaded: u64,
    /// Bytes that it still needs; 0 for a seeder.
    pub left: u64,
    /// Bytes sent since it started.
    pub uploaded: u64,
    /// Why it announces.
    pub event: Event,
    /// Random, chosen by the client for its run.
    pub key: u32,
    /// How many peers it wants, at most [`MAX_NUMWANT`]; `None` leaves it to the tracker.
    pub numwant: Option<u16>,
    /// Where it listens; never 0.
    pub port: u16,
    /// The options behind it (BEP 41).
    pub options: Options<'a>,
}

/// Why a packet is not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is of another protocol, or cut. It gets no answer.
    #[error("not a request")]
    Foreign,
    /// It may be answered with this reason once its connection id was checked.
    #[error("{reason}")]
    Invalid {
        /// As the packet has it, not checked yet.
        connection_id: u64,
        /// To be repeated in the answer.
        transaction_id: u32,
        /// What is wrong.
        reason: &'static str,
    },
}

impl<'a> Request<'a> {
    /// Reads a packet without allocating.
    ///
    /// # Errors
    /// Says whether the packet may be answered.
    pub fn decode(packet: &'a [u8]) -> Result<Self, RequestError> {
        let mut reader = Reader(packet);
        let header = (|| Some((reader.u64()?, reader.u32()?, reader.u32()?)))();
        let (connection_id, action, transaction_id) = header.ok_or(RequestError::Foreign)?;
        let invalid = |reason| RequestError::Invalid { connection_id, transaction_id, reason };
        match action {
            CONNECT if connection_id == PROTOCOL_ID => Ok(Self::Connect { transaction_id }),
            CONNECT => Err(RequestError::Foreign),
            ANNOUNCE => {
                let announce = AnnounceRequest::decode(connection_id, transaction_id, reader);
                announce.map_err(invalid).map(Self::Announce)
            }
            // Some clients append to a packet; a rest shorter than a hash is passed over.
            SCRAPE => match reader.0.as_chunks() {
                ([], _) => Err(invalid("missing info_hash")),
                (hashes, _) if hashes.len() > MAX_SCRAPE_HASHES => Err(invalid("too many info_hash")),
                (hashes, _) => Ok(Self::Scrape { connection_id, transaction_id, hashes }),
            },
            _ => Err(invalid("unknown action")),
        }
    }

    /// Appends the packet, with the options as they stand.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Connect { transaction_id } => put_header(out, PROTOCOL_ID, CONNECT, *transaction_id),
            Self::Scrape { connection_id, transaction_id, hashes } => {
                put_header(out, *connection_id, SCRAPE, *transaction_id);
                hashes.iter().take(MAX_SCRAPE_HASHES).for_each(|hash| out.extend_from_slice(hash));
            }
            Self::Announce(announce) => {
                announce.encode_fixed(out);
                out.extend_from_slice(announce.options.0);
            }
        }
    }
}

impl<'a> AnnounceRequest<'a> {
    fn decode(connection_id: u64, transaction_id: u32, mut reader: Reader<'a>) -> Result<Self, &'static str> {
        const CUT: &str = "announce too short";
        let info_hash = InfoHash(*reader.array().ok_or(CUT)?);
        let peer_id = PeerId(*reader.array().ok_or(CUT)?);
        let mut number = || reader.u64().ok_or(CUT);
        let (downloaded, left, uploaded) = (number()?, number()?, number()?);
        let mut number = || reader.u32().ok_or(CUT);
        let (event, _declared_ip, key, numwant) = (number()?, number()?, number()?, number()?);
        let port = reader.u16().ok_or(CUT)?;
        Ok(Self {
            connection_id,
            transaction_id,
            info_hash,
            peer_id,
            downloaded,
            left,
            uploaded,
            event: match event {
                // 4 is `paused` (BEP 21) as some clients send it.
                0 | 4 => Event::Periodic,
                1 => Event::Completed,
                2 => Event::Started,
                3 => Event::Stopped,
                _ => return Err("invalid event"),
            },
            key,
            numwant: i32::try_from(numwant).ok().map(|n| u16::try_from(n).unwrap_or(MAX_NUMWANT).min(MAX_NUMWANT)),
            port: if port == 0 { return Err("invalid port") } else { port },
            options: Options(reader.0),
        })
    }

    /// Appends the packet with this URL data (path and query) in the place of the options.
    pub fn encode_with_url_data(&self, url_data: &[u8], out: &mut Vec<u8>) {
        self.encode_fixed(out);
        put_url_data(out, url_data);
    }

    fn encode_fixed(&self, out: &mut Vec<u8>) {
        put_header(out, self.connection_id, ANNOUNCE, self.transaction_id);
        out.extend_from_slice(self.info_hash.as_bytes());
        out.extend_from_slice(self.peer_id.as_bytes());
        for number in [self.downloaded, self.left, self.uploaded] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        let event = match self.event {
            Event::Periodic => 0,
            Event::Completed => 1,
            Event::Started => 2,
            Event::Stopped => 3,
        };
        for number in [event, 0, self.key, self.numwant.map_or(u32::MAX, u32::from)] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.port.to_be_bytes());
    }
}

impl Default for AnnounceRequest<'_> {
    fn default() -> Self {
        Self {
            connection_id: 0,
            transaction_id: 0,
            info_hash: InfoHash([0; 20]),
            peer_id: PeerId([0; 20]),
            downloaded: 0,
            left: 0,
            uploaded: 0,
            event: Event::Periodic,
            key: 0,
            numwant: None,
            port: 1,
            options: Options(&[]),
        }
    }
}

fn put_header(out: &mut Vec<u8>, connection_id: u64, action: u32, transaction_id: u32) {
    out.extend_from_slice(&connection_id.to_be_bytes());
    out.extend_from_slice(&action.to_be_bytes());
    out.extend_from_slice(&transaction_id.to_be_bytes());
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)] // Bytes of the tests' own.
mod tests {
    use super::super::{ANNOUNCE_LENGTH, CONNECT_LENGTH, MAX_URL_DATA_LENGTH};
    use super::*;
    use proptest::prelude::*;

    fn announce() -> AnnounceRequest<'static> {
        AnnounceRequest {
            connection_id: 0x0102_0304_0506_0708,
            transaction_id: 9,
            info_hash: InfoHash([0xaa; 20]),
            peer_id: PeerId([0xbb; 20]),
            downloaded: 1,
            left: 2,
            uploaded: 3,
            event: Event::Started,
            key: 4,
            numwant: None,
            port: 0x1234,
            options: Options(&[]),
        }
    }

    fn packet(request: Request<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        request.encode(&mut out);
        out
    }

    /// D15: the bytes of BEP 15.
    #[test]
    fn d15_golden_requests() {
        let connect = packet(Request::Connect { transaction_id: 7 });
        assert_eq!(connect, b"\0\0\x04\x17\x27\x10\x19\x80\0\0\0\0\0\0\0\x07");
        assert_eq!(connect.len(), CONNECT_LENGTH);
        let golden = [
            &b"\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x01\0\0\0\x09"[..],
            &[0xaa; 20],
            &[0xbb; 20],
            b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03",
            b"\0\0\0\x02\0\0\0\0\0\0\0\x04\xff\xff\xff\xff\x12\x34",
        ]
        .concat();
        assert_eq!(golden.len(), ANNOUNCE_LENGTH);
        assert_eq!(packet(Request::Announce(announce())), golden);
        assert_eq!(Request::decode(&golden), Ok(Request::Announce(announce())));
        let hashes = &[[1; 20], [2; 20]];
        let scrape = packet(Request::Scrape { connection_id: 1, transaction_id: 2, hashes });
        assert_eq!(scrape[..16], *b"\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\x02");
        assert_eq!(scrape[16..], [[1; 20], [2; 20]].concat());
    }

    #[test]
    fn url_data_of_several_options_comes_back() {
        let url = "/".repeat(300);
        let mut out = Vec::new();
        announce().encode_with_url_data(url.as_bytes(), &mut out);
        let Ok(Request::Announce(read)) = Request::decode(&out) else { panic!("an announce") };
        assert_eq!(read.options.url_data(&mut [0; MAX_URL_DATA_LENGTH]), Ok(url.as_bytes()));
        assert_eq!(packet(Request::Announce(read)), out);
    }

    #[test]
    fn errors_say_whether_they_may_be_answered() {
        let golden = packet(Request::Announce(announce()));
        let changed = |at: usize, bytes: &[u8]| {
            let mut packet = golden.clone();
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            match Request::decode(&packet) {
                Err(RequestError::Invalid { connection_id: 0x0102_0304_0506_0708, transaction_id: 9, reason }) => {
                    reason
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(changed(96, &[0, 0]), "invalid port");
        assert_eq!(changed(80, &[0, 0, 0, 5]), "invalid event");
        assert_eq!(changed(8, &[0, 0, 0, 3]), "unknown action");
        for cut in 0..16 {
            assert_eq!(Request::decode(&golden[..cut]), Err(RequestError::Foreign));
        }
        for cut in 16..ANNOUNCE_LENGTH {
            let error = Request::decode(&golden[..cut]);
            assert!(matches!(error, Err(RequestError::Invalid { reason: "announce too short", .. })), "{cut}");
        }
        assert_eq!(Request::decode(&[0; 16]), Err(RequestError::Foreign), "a connect without the protocol's id");
        let scrape = |n| packet(Request::Scrape { connection_id: 1, transaction_id: 2, hashes: &vec![[0; 20]; n] });
        assert!(Request::decode(&scrape(MAX_SCRAPE_HASHES)).is_ok());
        assert!(matches!(Request::decode(&scrape(0)), Err(RequestError::Invalid { reason: "missing info_hash", .. })));
        let too_many = [scrape(MAX_SCRAPE_HASHES), vec![0; 20]].concat();
        assert!(matches!(Request::decode(&too_many), Err(RequestError::Invalid { reason: "too many info_hash", .. })));
    }

    #[test]
    fn numwant_is_bounded() {
        for (sent, read) in
            [(u32::MAX, None), (0x8000_0000, None), (0, Some(0)), (7, Some(7)), (0x7fff_ffff, Some(MAX_NUMWANT))]
        {
            let mut packet = packet(Request::Announce(announce()));
            packet[92..96].copy_from_slice(&sent.to_be_bytes());
            assert!(matches!(Request::decode(&packet), Ok(Request::Announce(a)) if a.numwant == read), "{sent}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_alike(mut bytes in prop::collection::vec(any::<u8>(), 0..200), action in 0u8..4) {
            if let Some(at) = bytes.get_mut(8..12) {
                at.copy_from_slice(&[0, 0, 0, action]);
            }
            if let Ok(request) = Request::decode(&bytes) {
                let written = packet(request);
                prop_assert_eq!(Request::decode(&written), Ok(request));
            }
        }
    }
}
