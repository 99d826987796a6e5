//! The extensions of the peer wire protocol that we speak (BEP 10): the `info` dictionary from peers (BEP 9) and peers
//! from peers (BEP 11).
//!
//! Each side numbers the extensions for what it receives, and says so in its extension handshake. A message is thus
//! decoded by [`UT_METADATA`] and [`UT_PEX`], our own numbers, and sent with the number that the peer gave.

#![deny(clippy::indexing_slicing)]

use crate::announce::{compact_v4, compact_v6, from_compact_v4, from_compact_v6};
use crate::bencode::{self, Dictionary, Value, Writer};
use crate::control::MAX_INFO_LENGTH;
use crate::peer_wire::{DecodeError, Message};
use bytes::Bytes;
use std::net::SocketAddr;

/// Our number for messages about the `info` dictionary.
pub const UT_METADATA: u8 = 1;
/// Our number for messages that name peers.
pub const UT_PEX: u8 = 2;
/// Length in bytes of every part of an `info` dictionary but the last (BEP 9): 16 KiB.
pub const METADATA_PIECE_LENGTH: u32 = 16 * 1024;
/// Most peers added, and most dropped, that are taken from one message; those after them are left out. BEP 11 allows
/// 50 of each family.
pub const MAX_PEX_PEERS: usize = 100;

/// The parts of the extension handshake (BEP 10) that we use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtendedHandshake {
    /// Name and version of the program (`v`).
    pub client: Option<String>,
    /// How many requests the sender queues (`reqq`).
    pub max_requests: Option<u32>,
    /// The sender's number for messages about the `info` dictionary; never 0.
    pub ut_metadata: Option<u8>,
    /// The sender's number for messages that name peers; never 0.
    pub ut_pex: Option<u8>,
    /// Length in bytes of the `info` dictionary, if the sender has it: 1 to [`MAX_INFO_LENGTH`].
    pub metadata_length: Option<u32>,
}

impl ExtendedHandshake {
    /// Numbers, lengths and texts that are out of range count as absent.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        // Some programs append bytes after the dictionary; only the dictionary counts.
        let (value, _) = bencode::decode_prefix(body).map_err(|_| DecodeError::ExtendedHandshake)?;
        let dictionary = value.as_dictionary().ok_or(DecodeError::ExtendedHandshake)?;
        let client = dictionary.get(b"v").and_then(Value::as_bytes);
        let numbers = dictionary.get(b"m").and_then(Value::as_dictionary);
        let number = |key| u8::try_from(numbers?.get(key)?.as_integer()?).ok().filter(|id| *id != 0);
        let metadata_length = unsigned(dictionary, b"metadata_size").filter(|n| is_info_length(*n));
        Ok(Self {
            client: client.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
            max_requests: unsigned(dictionary, b"reqq"),
            ut_metadata: number(b"ut_metadata"),
            ut_pex: number(b"ut_pex"),
            metadata_length,
        })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.begin_dictionary().bytes(b"m").begin_dictionary();
        for (key, number) in [(&b"ut_metadata"[..], self.ut_metadata), (b"ut_pex", self.ut_pex)] {
            if let Some(number) = number {
                writer.bytes(key).integer(u64::from(number));
            }
        }
        writer.end();
        for (key, number) in [(&b"metadata_size"[..], self.metadata_length), (b"reqq", self.max_requests)] {
            if let Some(number) = number {
                writer.bytes(key).integer(u64::from(number));
            }
        }
        if let Some(client) = &self.client {
            writer.bytes(b"v").bytes(client.as_bytes());
        }
        writer.end();
        writer.finish()
    }
}

/// A message about the `info` dictionary (BEP 9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Metadata {
    /// Asks for a part.
    Request {
        /// Index of the part, as the peer sent it.
        piece: u32,
    },
    /// A part.
    Data {
        /// Index of the part.
        piece: u32,
        /// Length in bytes of the whole dictionary: 1 to [`MAX_INFO_LENGTH`].
        total_length: u32,
        /// The bytes: exactly those that this part of such a dictionary has.
        block: Bytes,
    },
    /// The sender does not give this part.
    Reject {
        /// Index of the part, as the peer sent it.
        piece: u32,
    },
    /// A kind that we do not know, to be passed over.
    Unknown,
}

/// Why the body of an extension's message is malformed. The sender is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// Not bencode.
    #[error("not bencode: {0}")]
    Bencode(#[from] bencode::DecodeError),
    /// A key is missing or has a value of another kind or length.
    #[error("'{0}' is missing or malformed")]
    Key(&'static str),
    /// The bytes are not as many as that part has.
    #[error("a part of the wrong length")]
    Length,
}

impl Metadata {
    /// Reads the body of a message with our number [`UT_METADATA`]. The bytes of a part are shared, not copied.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn decode(body: &Bytes) -> Result<Self, ExtensionError> {
        let (value, rest) = bencode::decode_prefix(body)?;
        let dictionary = value.as_dictionary().ok_or(ExtensionError::Key("msg_type"))?;
        let kind = dictionary.get(b"msg_type").and_then(Value::as_integer).ok_or(ExtensionError::Key("msg_type"))?;
        let piece = unsigned(dictionary, b"piece").ok_or(ExtensionError::Key("piece"));
        match kind {
            0 => Ok(Self::Request { piece: piece? }),
            1 => {
                let total_length = unsigned(dictionary, b"total_size").filter(|n| is_info_length(*n));
                let (piece, total_length) = (piece?, total_length.ok_or(ExtensionError::Key("total_size"))?);
                if metadata_piece_length(total_length, piece).map(|n| n as usize) != Some(rest.len()) {
                    return Err(ExtensionError::Length);
                }
                Ok(Self::Data { piece, total_length, block: body.slice(body.len() - rest.len()..) })
            }
            2 => Ok(Self::Reject { piece: piece? }),
            _ => Ok(Self::Unknown),
        }
    }

    /// The message to a peer that has this number for it.
    pub fn to_message(&self, number: u8) -> Message {
        let mut writer = Writer::default();
        writer.begin_dictionary().bytes(b"msg_type");
        let block = match self {
            Self::Request { piece } => {
                writer.integer(0).bytes(b"piece").integer(u64::from(*piece));
                &[][..]
            }
            Self::Data { piece, total_length, block } => {
                writer.integer(1).bytes(b"piece").integer(u64::from(*piece));
                writer.bytes(b"total_size").integer(u64::from(*total_length));
                block
            }
            Self::Reject { piece } => {
                writer.integer(2).bytes(b"piece").integer(u64::from(*piece));
                &[]
            }
            // No kind that exists.
            Self::Unknown => {
                writer.integer(u64::from(u8::MAX));
                &[]
            }
        };
        writer.end().raw(block);
        Message::Extended { number, body: writer.finish().into() }
    }
}

/// Number of parts of an `info` dictionary of this length in bytes.
pub fn n_metadata_pieces(total_length: u32) -> u32 {
    total_length.div_ceil(METADATA_PIECE_LENGTH)
}

/// Length in bytes of a part, if there is such a part.
pub fn metadata_piece_length(total_length: u32, piece: u32) -> Option<u32> {
    let rest = total_length.checked_sub(piece.checked_mul(METADATA_PIECE_LENGTH)?)?;
    (rest > 0).then_some(rest.min(METADATA_PIECE_LENGTH))
}

fn is_info_length(length: u32) -> bool {
    (1..=MAX_INFO_LENGTH).contains(&u64::from(length))
}

fn unsigned(dictionary: &Dictionary<'_>, key: &[u8]) -> Option<u32> {
    dictionary.get(key).and_then(Value::as_integer).and_then(|n| u32::try_from(n).ok())
}

/// Peers that came and went at the sender (BEP 11). Whether one may be dialled is decided elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pex {
    /// Peers that the sender is connected to now.
    pub added: Vec<PexPeer>,
    /// Peers that it is connected to no more.
    pub dropped: Vec<SocketAddr>,
}

/// A peer of another peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PexPeer {
    /// Where it listens; IPv4-mapped addresses are IPv4, the port is not 0.
    pub address: SocketAddr,
    /// The bits of BEP 11, [`PexPeer::SEEDER`] among them.
    pub flags: u8,
}

impl PexPeer {
    /// It has everything and uploads only.
    pub const SEEDER: u8 = 0x02;
    /// The sender could connect to it.
    pub const REACHABLE: u8 = 0x10;
}

impl Pex {
    /// Reads the body of a message with our number [`UT_PEX`].
    ///
    /// # Errors
    /// When it is malformed. Peers beyond [`MAX_PEX_PEERS`] are left out.
    pub fn decode(body: &[u8]) -> Result<Self, ExtensionError> {
        let (value, _) = bencode::decode_prefix(body)?;
        let dictionary = value.as_dictionary().ok_or(ExtensionError::Key("added"))?;
        let v4 = |key| chunks::<6>(dictionary, key).map(|peers| peers.iter().copied().map(from_compact_v4));
        let v6 = |key| chunks::<18>(dictionary, key).map(|peers| peers.iter().map(from_compact_v6));
        let flags = |key: &str| {
            let flags = dictionary.get(key.as_bytes()).and_then(Value::as_bytes).unwrap_or_default();
            flags.iter().copied().chain(std::iter::repeat(0))
        };
        let added = v4("added")?.zip(flags("added.f")).chain(v6("added6")?.zip(flags("added6.f")));
        let added = added.filter_map(|(address, flags)| Some(PexPeer { address: address?, flags }));
        let dropped = v4("dropped")?.chain(v6("dropped6")?).flatten();
        Ok(Self { added: added.take(MAX_PEX_PEERS).collect(), dropped: dropped.take(MAX_PEX_PEERS).collect() })
    }

    /// The message to a peer that has this number for it.
    pub fn to_message(&self, number: u8) -> Message {
        let (mut added, mut added_flags, mut added6, mut added6_flags) = (vec![], vec![], vec![], vec![]);
        for peer in self.added.iter().take(MAX_PEX_PEERS) {
            if let Some(bytes) = compact_v4(peer.address) {
                added.extend(bytes);
                added_flags.push(peer.flags);
            } else if let Some(bytes) = compact_v6(peer.address) {
                added6.extend(bytes);
                added6_flags.push(peer.flags);
            }
        }
        let dropped = self.dropped.iter().take(MAX_PEX_PEERS);
        let dropped6: Vec<u8> = dropped.clone().filter_map(|peer| compact_v6(*peer)).flatten().collect();
        let dropped: Vec<u8> = dropped.filter_map(|peer| compact_v4(*peer)).flatten().collect();
        let mut writer = Writer::default();
        writer.begin_dictionary();
        for (key, bytes) in [
            ("added", added),
            ("added.f", added_flags),
            ("added6", added6),
            ("added6.f", added6_flags),
            ("dropped", dropped),
            ("dropped6", dropped6),
        ] {
            if !bytes.is_empty() {
                writer.bytes(key.as_bytes()).bytes(&bytes);
            }
        }
        writer.end();
        Message::Extended { number, body: writer.finish().into() }
    }
}

/// The entries of fixed length under a key; none when it is absent.
fn chunks<'a, const N: usize>(dictionary: &Dictionary<'a>, key: &'static str) -> Result<&'a [[u8; N]], ExtensionError> {
    let Some(value) = dictionary.get(key.as_bytes()) else { return Ok(&[]) };
    match value.as_bytes().map(<[u8]>::as_chunks::<N>) {
        Some((entries, [])) => Ok(entries),
        _ => Err(ExtensionError::Key(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(message: Message) -> Bytes {
        match message {
            Message::Extended { body, .. } => body,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn golden_extension_handshake() {
        let handshake = ExtendedHandshake {
            client: Some("x".into()),
            max_requests: Some(250),
            ut_metadata: Some(UT_METADATA),
            ut_pex: Some(UT_PEX),
            metadata_length: Some(31235),
        };
        let golden = b"d1:md11:ut_metadatai1e6:ut_pexi2ee13:metadata_sizei31235e4:reqqi250e1:v1:xe";
        assert_eq!(handshake.encode(), golden);
        assert_eq!(ExtendedHandshake::decode(golden), Ok(handshake));
    }

    #[test]
    fn what_is_out_of_range_in_a_handshake_counts_as_absent() {
        for body in [
            &b"d1:md11:ut_metadatai0e6:ut_pexi256ee13:metadata_sizei0ee"[..],
            b"d1:md11:ut_metadatai-1e6:ut_pex1:aee",
            b"d1:mi1e13:metadata_sizei168000000ee",
            b"d13:metadata_sizei4294967297e4:reqqi4294967296ee",
            b"dexyz",
        ] {
            assert_eq!(ExtendedHandshake::decode(body), Ok(ExtendedHandshake::default()), "{}", body.escape_ascii());
        }
        let most = format!("d13:metadata_sizei{MAX_INFO_LENGTH}ee");
        assert!(ExtendedHandshake::decode(most.as_bytes()).unwrap().metadata_length.is_some());
    }

    #[test]
    fn golden_metadata_messages() {
        let block = Bytes::from_static(b"abc");
        let data = Metadata::Data { piece: 1, total_length: METADATA_PIECE_LENGTH + 3, block };
        for (message, golden) in [
            (Metadata::Request { piece: 0 }, &b"d8:msg_typei0e5:piecei0ee"[..]),
            (data, b"d8:msg_typei1e5:piecei1e10:total_sizei16387eeabc"),
            (Metadata::Reject { piece: 9 }, b"d8:msg_typei2e5:piecei9ee"),
        ] {
            let sent = message.to_message(3);
            assert_eq!(sent, Message::Extended { number: 3, body: Bytes::from_static(golden) });
            assert_eq!(Metadata::decode(&body(sent)), Ok(message));
        }
        assert_eq!(Metadata::decode(&Bytes::from_static(b"d8:msg_typei7ee")), Ok(Metadata::Unknown));
    }

    #[test]
    fn malformed_metadata_messages_are_refused() {
        let error = |bytes: &'static [u8]| Metadata::decode(&Bytes::from_static(bytes)).unwrap_err();
        for (bytes, expected) in [
            (&b"de"[..], ExtensionError::Key("msg_type")),
            (b"le", ExtensionError::Key("msg_type")),
            (b"d8:msg_typei0ee", ExtensionError::Key("piece")),
            (b"d8:msg_typei0e5:piecei-1ee", ExtensionError::Key("piece")),
            (b"d8:msg_typei1e5:piecei0eeabc", ExtensionError::Key("total_size")),
            (b"d8:msg_typei1e5:piecei0e10:total_sizei200000000eeabc", ExtensionError::Key("total_size")),
            (b"d8:msg_typei1e5:piecei0e10:total_sizei4eeabc", ExtensionError::Length),
            (b"d8:msg_typei1e5:piecei0e10:total_sizei2eeabc", ExtensionError::Length),
            (b"d8:msg_typei1e5:piecei1e10:total_sizei3eeabc", ExtensionError::Length),
            (b"d8:msg_typei1e5:piecei4294967295e10:total_sizei3eeabc", ExtensionError::Length),
        ] {
            assert_eq!(error(bytes), expected, "{}", bytes.escape_ascii());
        }
        assert!(matches!(error(b"x"), ExtensionError::Bencode(_)));
    }

    #[test]
    fn parts_cover_the_dictionary() {
        let part = METADATA_PIECE_LENGTH;
        for (total, lengths) in [(1, vec![1]), (part, vec![part]), (part + 1, vec![part, 1])] {
            let n_pieces = n_metadata_pieces(total);
            assert_eq!((0..n_pieces).filter_map(|n| metadata_piece_length(total, n)).collect::<Vec<_>>(), lengths);
            assert_eq!(metadata_piece_length(total, n_pieces), None);
        }
    }

    #[test]
    fn golden_pex() {
        let peer = |address: &str, flags| PexPeer { address: address.parse().unwrap(), flags };
        let pex = Pex {
            added: vec![peer("1.2.3.4:258", PexPeer::SEEDER), peer("[::1]:772", 0)],
            dropped: vec!["5.6.7.8:1".parse().unwrap()],
        };
        let golden = b"d5:added6:\x01\x02\x03\x04\x01\x027:added.f1:\x02\
            6:added618:\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x03\x048:added6.f1:\0\
            7:dropped6:\x05\x06\x07\x08\0\x01e";
        assert_eq!(pex.to_message(7), Message::Extended { number: 7, body: Bytes::from_static(golden) });
        assert_eq!(Pex::decode(golden), Ok(pex));
    }

    #[test]
    fn pex_is_bounded_and_malformed_lists_refused() {
        assert_eq!(Pex::decode(b"de"), Ok(Pex::default()));
        let many = [&b"d5:added6000:"[..], &[1; 6000], b"7:dropped6000:", &[1; 6000], b"e"].concat();
        let pex = Pex::decode(&many).unwrap();
        assert_eq!((pex.added.len(), pex.dropped.len()), (MAX_PEX_PEERS, MAX_PEX_PEERS));
        let no_port =
            Pex::decode(b"d5:added12:\x01\x02\x03\x04\0\0\x01\x02\x03\x04\0\x017:added.f2:\x01\x02e").unwrap();
        assert_eq!(no_port.added, [PexPeer { address: "1.2.3.4:1".parse().unwrap(), flags: 2 }]);
        for (bytes, key) in [(&b"d5:added5:12345e"[..], "added"), (b"d8:dropped6i1ee", "dropped6"), (b"i1e", "added")] {
            assert_eq!(Pex::decode(bytes), Err(ExtensionError::Key(key)));
        }
    }

    proptest! {
        #[test]
        fn any_body_is_survived_and_what_is_sent_reads_alike(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let bytes = Bytes::from(bytes);
            let _ = (Metadata::decode(&bytes), ExtendedHandshake::decode(&bytes), Pex::decode(&bytes));
            if !bytes.is_empty() {
                let total_length = u32::try_from(bytes.len()).unwrap();
                let data = Metadata::Data { piece: 0, total_length, block: bytes };
                prop_assert_eq!(Metadata::decode(&body(data.to_message(1))), Ok(data));
            }
        }

        #[test]
        fn peers_round_trip(added in prop::collection::vec((any::<[u8; 4]>(), 1u16.., any::<u8>()), 0..20)) {
            let peer = |(ip, port, flags): ([u8; 4], u16, u8)| PexPeer { address: (ip, port).into(), flags };
            let added: Vec<PexPeer> = added.into_iter().map(peer).collect();
            let pex = Pex { dropped: added.iter().map(|peer| peer.address).collect(), added };
            prop_assert_eq!(Pex::decode(&body(pex.to_message(1))), Ok(pex));
        }
    }
}
