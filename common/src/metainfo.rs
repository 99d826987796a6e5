//! The `info` dictionary of a file (BEP 3, BEP 27), with the group that it belongs to.
//!
//! The group's id stands in the dictionary, so the same content in two groups has two info-hashes.

use crate::bencode::{self, Value, Writer};
use crate::geometry::{Geometry, GeometryError};
use crate::hash::{GroupId, InfoHash, Sha1Hash};
use crate::names::{FileName, NameError};
use std::fmt;
use std::sync::Arc;

/// The key of our group id; other programs ignore it.
const GROUP_KEY: &[u8] = b"group";

/// What an `info` dictionary says of a single file.
#[derive(Clone, PartialEq, Eq)]
pub struct Info {
    /// The suggested file name.
    pub name: FileName,
    /// How the file is divided.
    pub geometry: Geometry,
    /// SHA-1 of every piece, in order.
    pub pieces: PieceHashes,
    /// Whether peers come from the tracker alone (BEP 27).
    pub private: bool,
    /// The group that the file is shared in; `None` for the built-in group and foreign files.
    pub group: Option<GroupId>,
}

/// The SHA-1 of every piece, shared and not copied: 40 MB for 1 TiB.
#[derive(Clone, PartialEq, Eq)]
pub struct PieceHashes(Arc<[u8]>);

impl PieceHashes {
    /// Takes the concatenated digests; `None` unless the length is a multiple of 20.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Option<Self> {
        let bytes = bytes.into();
        bytes.len().is_multiple_of(Sha1Hash::LENGTH).then_some(Self(bytes))
    }

    /// Number of pieces.
    pub fn len(&self) -> usize {
        self.0.len() / Sha1Hash::LENGTH
    }

    /// Whether there is no piece.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The digest of the piece with this index.
    pub fn get(&self, index: usize) -> Option<Sha1Hash> {
        let start = index.checked_mul(Sha1Hash::LENGTH)?;
        Sha1Hash::from_slice(self.0.get(start..start.checked_add(Sha1Hash::LENGTH)?)?)
    }

    /// The concatenated digests.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PieceHashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PieceHashes({})", self.len())
    }
}

/// Why bytes are not an `info` dictionary that we can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InfoError {
    /// Not bencode.
    #[error("not bencode: {0}")]
    Bencode(#[from] bencode::DecodeError),
    /// A key is missing or has a value of another kind.
    #[error("'{0}' is missing or malformed")]
    Key(&'static str),
    /// More than one file.
    #[error("multi-file")]
    MultiFile,
    /// Only version 2 of the protocol (BEP 52) can read it.
    #[error("v2-only")]
    V2Only,
    /// The name is not a safe file name.
    #[error("bad name: {0}")]
    Name(#[from] NameError),
    /// Length or piece length is out of bounds.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// `pieces` does not have 20 bytes for each piece.
    #[error("'pieces' has the wrong length")]
    Pieces,
}

impl Info {
    /// Reads a raw `info` dictionary.
    ///
    /// # Errors
    /// When it is malformed, describes several files, has an unsafe name, or is of version 2 alone (BEP 52). One
    /// that serves both versions is read as version 1.
    pub fn decode(raw: &[u8]) -> Result<Self, InfoError> {
        let value = bencode::decode(raw)?;
        let dictionary = value.as_dictionary().ok_or(InfoError::Key("info"))?;
        let unsigned = |key: &'static str| {
            let number = dictionary.get(key.as_bytes()).and_then(Value::as_integer);
            number.and_then(|n| u64::try_from(n).ok()).ok_or(InfoError::Key(key))
        };
        let bytes =
            |key: &'static str| dictionary.get(key.as_bytes()).and_then(Value::as_bytes).ok_or(InfoError::Key(key));
        if dictionary.get(b"pieces").is_none() && dictionary.get(b"meta version").is_some() {
            return Err(InfoError::V2Only);
        }
        if dictionary.get(b"files").is_some() {
            return Err(InfoError::MultiFile);
        }
        let name = std::str::from_utf8(bytes("name")?).map_err(|_| InfoError::Key("name"))?;
        let geometry = Geometry::new(unsigned("length")?, unsigned("piece length")?)?;
        let pieces = PieceHashes::new(bytes("pieces")?).ok_or(InfoError::Pieces)?;
        if pieces.len() != geometry.n_pieces() as usize {
            return Err(InfoError::Pieces);
        }
        let private = match dictionary.get(b"private") {
            None => false,
            Some(value) => value.as_integer().ok_or(InfoError::Key("private"))? == 1,
        };
        let group = match dictionary.get(GROUP_KEY) {
            None => None,
            Some(value) => Some(value.as_bytes().and_then(GroupId::from_slice).ok_or(InfoError::Key("group"))?),
        };
        Ok(Self { name: name.parse()?, geometry, pieces, private, group })
    }

    /// Writes the dictionary. Its info-hash is that of exactly these bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.begin_dictionary();
        if let Some(group) = self.group {
            writer.bytes(GROUP_KEY).bytes(group.as_bytes());
        }
        writer.bytes(b"length").integer(self.geometry.length());
        writer.bytes(b"name").bytes(self.name.as_str().as_bytes());
        writer.bytes(b"piece length").integer(u64::from(self.geometry.piece_length()));
        writer.bytes(b"pieces").bytes(self.pieces.as_bytes());
        if self.private {
            writer.bytes(b"private").integer(1);
        }
        writer.end();
        writer.finish()
    }
}

impl fmt::Debug for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Info({:?}, {} bytes, {})", self.name, self.geometry.length(), InfoHash::of(&self.encode()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(group: Option<GroupId>) -> Info {
        Info {
            name: "a.bin".parse().unwrap(),
            geometry: Geometry::new(5, 4).unwrap(),
            pieces: PieceHashes::new(vec![7; 40]).unwrap(),
            private: group.is_some(),
            group,
        }
    }

    #[test]
    fn golden_bytes_of_a_private_info() {
        let expected = [
            &b"d5:group16:0123456789abcdef6:lengthi5e4:name5:a.bin12:piece lengthi4e6:pieces40:"[..],
            &[7; 40],
            b"7:privatei1ee",
        ]
        .concat();
        assert_eq!(info(Some(GroupId(*b"0123456789abcdef"))).encode(), expected);
    }

    #[test]
    fn info_round_trips() {
        for info in [info(None), info(Some(GroupId([9; 16])))] {
            assert_eq!(Info::decode(&info.encode()), Ok(info));
        }
    }

    #[test]
    fn the_group_changes_the_info_hash() {
        let hash = |group| InfoHash::of(&info(Some(GroupId([group; 16]))).encode());
        assert_ne!(hash(1), hash(2));
    }

    #[test]
    fn unusable_dictionaries_are_refused_with_a_reason() {
        let with = |from: &str, to: &str| {
            let text = String::from_utf8(info(None).encode()).unwrap().replacen(from, to, 1);
            Info::decode(text.as_bytes()).unwrap_err()
        };
        assert_eq!(with("6:lengthi5e", "6:lengthi-5e"), InfoError::Key("length"));
        assert_eq!(with("6:lengthi5e", "5:filesle"), InfoError::MultiFile);
        assert_eq!(with("6:lengthi5e", "6:lengthi9e"), InfoError::Pieces);
        assert_eq!(with("pieces40:\u{7}", "pieces39:"), InfoError::Pieces);
        assert_eq!(with("pieces40:", &format!("pieces60:{}", "7".repeat(20))), InfoError::Pieces);
        assert_eq!(with("pieces40:", "pieces0:1:x40:"), InfoError::Pieces);
        assert_eq!(with("lengthi4e", "lengthi0e"), InfoError::Geometry(GeometryError::PieceLength(0)));
        assert_eq!(with("5:a.bin", "5:../ab"), InfoError::Name(NameError::FileNamePath));
        assert_eq!(with("4:name5:a.bin", ""), InfoError::Key("name"));
        assert!(matches!(with("d6", "x6"), InfoError::Bencode(_)));
    }
}
