//! Digests and identifiers of fixed length, each its own type so that they cannot be mixed up.

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use std::fmt;
use std::str::FromStr;

/// Defines a fixed-length byte string with hexadecimal `Display`, `Debug` and `FromStr`.
macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(#[serde(with = "serde_bytes")] pub [u8; $length]);

        impl $name {
            /// Length in bytes.
            pub const LENGTH: usize = $length;

            /// The bytes as a slice.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// Takes exactly [`Self::LENGTH`] bytes; `None` for any other length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = HexError;

            fn from_str(text: &str) -> Result<Self, HexError> {
                let mut bytes = [0; $length];
                decode_hex(text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }
    };
}

fixed_bytes!(
    /// SHA-1 of the raw bencoded `info` dictionary (BEP 3): the name of a torrent on the wire.
    InfoHash,
    20
);
fixed_bytes!(
    /// A SHA-1 digest: of one piece, or of a whole file.
    Sha1Hash,
    20
);
fixed_bytes!(
    /// A SHA-256 digest: of a whole file, or of a public key.
    Sha256Hash,
    32
);
fixed_bytes!(
    /// A peer's name for one run of a client (BEP 3, BEP 20).
    PeerId,
    20
);
fixed_bytes!(
    /// The random identifier of a group; never reused.
    GroupId,
    16
);
fixed_bytes!(
    /// The random name that a client gives to one thing that it asks for. Asked again by the same name, it is not done again.
    OperationId,
    16
);

/// Why a text is not the hexadecimal form of a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits")]
pub struct HexError {
    /// How many digits the type has.
    pub expected: usize,
}

fn decode_hex(text: &str, out: &mut [u8]) -> Result<(), HexError> {
    let error = HexError { expected: out.len() * 2 };
    if text.len() != out.len() * 2 {
        return Err(error);
    }
    let nibble = |digit: u8| (digit as char).to_digit(16).and_then(|n| u8::try_from(n).ok());
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
        let [high, low] = *pair;
        *byte = nibble(high).ok_or(error)? << 4 | nibble(low).ok_or(error)?;
    }
    Ok(())
}

impl InfoHash {
    /// The info-hash of a raw `info` dictionary.
    pub fn of(raw_info: &[u8]) -> Self {
        Self(Sha1::digest(raw_info).into())
    }
}

impl Sha1Hash {
    /// SHA-1 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha1::digest(bytes).into())
    }

    /// SHA-1 of the concatenation of `parts`, without joining them.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut digest = Sha1::new();
        parts.into_iter().for_each(|part| digest.update(part));
        Self(digest.finalize().into())
    }
}

impl Sha256Hash {
    /// SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_match_the_published_vectors() {
        assert_eq!(Sha1Hash::of(b"abc").to_string(), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(Sha1Hash::of_parts([b"a".as_slice(), b"bc"]), Sha1Hash::of(b"abc"));
        assert_eq!(
            Sha256Hash::of(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn hexadecimal_round_trips_and_refuses_anything_else() {
        let hash = InfoHash::of(b"x");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.to_string().to_uppercase().parse(), Ok(hash));
        for bad in ["", "00", "zz993e364706816aba3e25717850c26c9cd0d89d", "é9993e364706816aba3e25717850c26c9cd0d89"] {
            assert!(bad.parse::<InfoHash>().is_err(), "{bad}");
        }
    }
}
