//! The packets that a tracker sends.

#![deny(clippy::indexing_slicing)]

use super::{ANNOUNCE, CONNECT, ERROR, Family, MAX_SCRAPE_HASHES, Reader, SCRAPE};
use crate::announce::{Counts, MAX_ANSWER_PEERS, MAX_REASON_LENGTH};
use crate::announce::{compact_v4, compact_v6, from_compact_v4, from_compact_v6};
use std::net::SocketAddr;

/// A response, borrowing from its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response<'a> {
    /// To a connect.
    Connect {
        /// What the client chose.
        transaction_id: u32,
        /// To be shown with each request, for at least a minute.
        connection_id: u64,
    },
    /// To an announce.
    Announce {
        /// What the client chose.
        transaction_id: u32,
        /// Seconds until the next announce.
        interval_s: u32,
        /// Number of leechers.
        leechers: u32,
        /// Number of seeders.
        seeders: u32,
        /// The peers.
        peers: Peers<'a>,
    },
    /// To a scrape: 12 bytes for each torrent asked for, in that order.
    Scrape {
        /// What the client chose.
        transaction_id: u32,
        /// Seeders, completed, leechers; [`Response::counts`] reads them.
        counts: &'a [[u8; 12]],
    },
    /// A refusal.
    Error {
        /// What the client chose.
        transaction_id: u32,
        /// The reason, cut at [`MAX_REASON_LENGTH`].
        reason: &'a [u8],
    },
}

/// The peers of a response, at most [`MAX_ANSWER_PEERS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peers<'a> {
    family: Family,
    bytes: &'a [u8],
}

/// A packet is not a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a response")]
pub struct ResponseError;

impl<'a> Peers<'a> {
    /// Their addresses, IPv4-mapped ones as IPv4; those with port 0 are left out.
    pub fn addresses(self) -> impl Iterator<Item = SocketAddr> + use<'a> {
        let (v4, v6): (&[[u8; 6]], &[[u8; 18]]) = match self.family {
            Family::V4 => (self.bytes.as_chunks().0, &[]),
            Family::V6 => (&[], self.bytes.as_chunks().0),
        };
        let v4 = v4.iter().copied().filter_map(from_compact_v4);
        v4.chain(v6.iter().filter_map(from_compact_v6)).take(MAX_ANSWER_PEERS)
    }
}

impl<'a> Response<'a> {
    /// Reads a packet without allocating; `family` is that of the socket that it came to.
    ///
    /// # Errors
    /// When it is cut, or not of this protocol.
    pub fn decode(packet: &'a [u8], family: Family) -> Result<Self, ResponseError> {
        Self::read(Reader(packet), family).ok_or(ResponseError)
    }

    fn read(mut reader: Reader<'a>, family: Family) -> Option<Self> {
        let (action, transaction_id) = (reader.u32()?, reader.u32()?);
        match action {
            CONNECT => Some(Self::Connect { transaction_id, connection_id: reader.u64()? }),
            ANNOUNCE => Some(Self::Announce {
                transaction_id,
                interval_s: reader.u32()?,
                leechers: reader.u32()?,
                seeders: reader.u32()?,
                peers: Peers { family, bytes: reader.0 },
            }),
            SCRAPE => {
                let counts = reader.0.as_chunks().0;
                let counts = counts.get(..counts.len().min(MAX_SCRAPE_HASHES))?;
                Some(Self::Scrape { transaction_id, counts })
            }
            ERROR => {
                let reason = reader.0.get(..reader.0.len().min(MAX_REASON_LENGTH))?;
                Some(Self::Error { transaction_id, reason })
            }
            _ => None,
        }
    }

    /// What the client chose for the request that this answers.
    pub fn transaction_id(&self) -> u32 {
        match self {
            Self::Connect { transaction_id, .. }
            | Self::Announce { transaction_id, .. }
            | Self::Scrape { transaction_id, .. }
            | Self::Error { transaction_id, .. } => *transaction_id,
        }
    }

    /// The numbers of a scrape, in the order of the torrents asked for; nothing of other responses.
    pub fn counts(&self) -> impl Iterator<Item = Counts> + use<'a> {
        let counts: &'a [[u8; 12]] = match self {
            Self::Scrape { counts, .. } => counts,
            _ => &[],
        };
        counts.iter().filter_map(|bytes| {
            let mut reader = Reader(bytes);
            Some(Counts { complete: reader.u32()?, downloaded: reader.u32()?, incomplete: reader.u32()? })
        })
    }
}

/// Writes into a buffer of the caller's; `None` as soon as it is full.
struct Packet<'a> {
    out: &'a mut [u8],
    length: usize,
}

impl Packet<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length.checked_add(bytes.len())?;
        self.out.get_mut(self.length..end)?.copy_from_slice(bytes);
        self.length = end;
        Some(())
    }

    fn numbers<const N: usize>(&mut self, numbers: [u32; N]) -> Option<()> {
        numbers.iter().try_for_each(|number| self.put(&number.to_be_bytes()))
    }
}

/// Writes the response to a connect and returns its length in bytes; `None` when `out` is too short.
pub fn encode_connect(out: &mut [u8], transaction_id: u32, connection_id: u64) -> Option<usize> {
    let mut packet = Packet { out, length: 0 };
    packet.numbers([CONNECT, transaction_id])?;
    packet.put(&connection_id.to_be_bytes())?;
    Some(packet.length)
}

/// Writes the response to an announce and returns its length in bytes; `None` when `out` is too short for the head.
/// Peers of another family are left out, and those that `out` has no room for.
pub fn encode_announce(
    out: &mut [u8],
    family: Family,
    transaction_id: u32,
    interval_s: u32,
    counts: Counts,
    peers: impl IntoIterator<Item = SocketAddr>,
) -> Option<usize> {
    let mut packet = Packet { out, length: 0 };
    packet.numbers([ANNOUNCE, transaction_id, interval_s, counts.incomplete, counts.complete])?;
    for peer in peers {
        let put = match family {
            Family::V4 => compact_v4(peer).map(|bytes| packet.put(&bytes)),
            Family::V6 => compact_v6(peer).map(|bytes| packet.put(&bytes)),
        };
        if put == Some(None) {
            break;
        }
    }
    Some(packet.length)
}

/// Writes the response to a scrape, in the order of the torrents asked for, and returns its length in bytes; `None`
/// when `out` is too short.
pub fn encode_scrape(out: &mut [u8], transaction_id: u32, counts: impl IntoIterator<Item = Counts>) -> Option<usize> {
    let mut packet = Packet { out, length: 0 };
    packet.numbers([SCRAPE, transaction_id])?;
    for Counts { complete, downloaded, incomplete } in counts {
        packet.numbers([complete, downloaded, incomplete])?;
    }
    Some(packet.length)
}

/// Writes a refusal and returns its length in bytes; the reason is cut where `out` ends. `None` when not even 8 bytes
/// fit.
pub fn encode_error(out: &mut [u8], transaction_id: u32, reason: &str) -> Option<usize> {
    let mut packet = Packet { out, length: 0 };
    packet.numbers([ERROR, transaction_id])?;
    let room = packet.out.len().saturating_sub(packet.length);
    let cut = reason.floor_char_boundary(room);
    packet.put(reason.get(..cut).unwrap_or_default().as_bytes())?;
    Some(packet.length)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)] // Bytes of the tests' own.
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COUNTS: Counts = Counts { complete: 1, downloaded: 2, incomplete: 3 };

    fn written(room: usize, encode: impl FnOnce(&mut [u8]) -> Option<usize>) -> Option<Vec<u8>> {
        let mut out = vec![0xee; room];
        encode(&mut out).map(|length| out[..length].to_vec())
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// D15: the bytes of BEP 15, to IPv4 and to IPv6.
    #[test]
    fn d15_golden_responses() {
        let connect = written(16, |out| encode_connect(out, 7, 0x0102_0304_0506_0708)).unwrap();
        assert_eq!(connect, b"\0\0\0\0\0\0\0\x07\x01\x02\x03\x04\x05\x06\x07\x08");
        let peers = addresses(&["1.2.3.4:258", "[::1]:772", "[::ffff:5.6.7.8]:1"]);
        let announce =
            |family| written(99, |out| encode_announce(out, family, 9, 1800, COUNTS, peers.clone())).unwrap();
        let head = b"\0\0\0\x01\0\0\0\x09\0\0\x07\x08\0\0\0\x03\0\0\0\x01";
        let v4 = [&head[..], b"\x01\x02\x03\x04\x01\x02\x05\x06\x07\x08\0\x01"].concat();
        assert_eq!(announce(Family::V4), v4);
        let v6 = [&head[..], b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x03\x04"].concat();
        assert_eq!(announce(Family::V6), v6);
        for (packet, family, expected) in
            [(v4, Family::V4, &["1.2.3.4:258", "5.6.7.8:1"][..]), (v6, Family::V6, &["[::1]:772"])]
        {
            let Ok(Response::Announce { peers, seeders: 1, leechers: 3, .. }) = Response::decode(&packet, family)
            else {
                panic!("an announce")
            };
            assert_eq!(peers.addresses().collect::<Vec<_>>(), addresses(expected));
        }
        let scrape = written(99, |out| encode_scrape(out, 4, [COUNTS])).unwrap();
        assert_eq!(scrape, b"\0\0\0\x02\0\0\0\x04\0\0\0\x01\0\0\0\x02\0\0\0\x03");
        let read = Response::decode(&scrape, Family::V4).unwrap();
        assert_eq!(read.counts().collect::<Vec<_>>(), [COUNTS]);
        let error = written(99, |out| encode_error(out, 5, "no")).unwrap();
        assert_eq!(error, b"\0\0\0\x03\0\0\0\x05no");
        assert_eq!(Response::decode(&error, Family::V6), Ok(Response::Error { transaction_id: 5, reason: b"no" }));
    }

    #[test]
    fn nothing_is_written_beyond_the_buffer() {
        assert_eq!(written(15, |out| encode_connect(out, 1, 2)), None);
        assert_eq!(written(19, |out| encode_announce(out, Family::V4, 1, 2, COUNTS, [])), None);
        assert_eq!(written(19, |out| encode_scrape(out, 1, [COUNTS])), None);
        assert_eq!(written(7, |out| encode_error(out, 1, "x")), None);
        assert_eq!(written(10, |out| encode_error(out, 1, "aé")).unwrap()[8..], *b"a", "cut between letters");
        let peers = addresses(&["1.2.3.4:5", "1.2.3.4:6"]);
        let cut = written(20 + 11, |out| encode_announce(out, Family::V4, 1, 2, COUNTS, peers)).unwrap();
        assert_eq!(cut.len(), 26, "one whole peer fits");
    }

    #[test]
    fn cut_and_foreign_packets_are_refused() {
        for bad in [
            &b""[..],
            b"\0\0\0\x01",
            b"\0\0\0\0\0\0\0\x01\0\0\0",
            b"\0\0\0\x01\0\0\0\x01\0\0\0",
            b"\0\0\0\x04\0\0\0\x01",
        ] {
            assert_eq!(Response::decode(bad, Family::V4), Err(ResponseError), "{}", bad.escape_ascii());
        }
        let long = [&b"\0\0\0\x03\0\0\0\x05"[..], &[b'x'; 9999]].concat();
        let Ok(Response::Error { reason, .. }) = Response::decode(&long, Family::V4) else { panic!("an error") };
        assert_eq!(reason.len(), MAX_REASON_LENGTH);
    }

    proptest! {
        #[test]
        fn announces_round_trip(
            peers in prop::collection::vec((any::<[u8; 4]>(), 1u16..), 0..50), counts in any::<[u32; 3]>(),
        ) {
            let peers: Vec<SocketAddr> = peers.into_iter().map(SocketAddr::from).collect();
            let counts = Counts { complete: counts[0], downloaded: 0, incomplete: counts[2] };
            let packet = written(1232, |out| encode_announce(out, Family::V4, 1, 2, counts, peers.clone())).unwrap();
            let Ok(Response::Announce { seeders, leechers, peers: read, .. }) = Response::decode(&packet, Family::V4) else {
                panic!("an announce")
            };
            prop_assert_eq!((seeders, leechers), (counts.complete, counts.incomplete));
            prop_assert_eq!(read.addresses().collect::<Vec<_>>(), peers);
        }

        #[test]
        fn any_packet_is_survived(packet in prop::collection::vec(any::<u8>(), 0..100), action in 0u8..5, v6: bool) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let packet = [&[0, 0, 0, action][..], &packet].concat();
            if let Ok(response) = Response::decode(&packet, family) {
                prop_assert!(response.counts().count() <= MAX_SCRAPE_HASHES);
                if let Response::Announce { peers, .. } = response {
                    prop_assert!(peers.addresses().all(|address| address.port() != 0));
                }
            }
        }
    }
}
