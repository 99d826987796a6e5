//! Announce keys: what admits an ordinary client to one file as one member (design §7).

use crate::hash::{InfoHash, Sha256Hash};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// Length of a key in a URL: hexadecimal digits.
pub const TEXT_LENGTH: usize = 32;

const LENGTH: usize = TEXT_LENGTH / 2;
/// Keeps these digests apart from all others.
const DOMAIN: &[u8; 28] = b"mini-torrent announce key 1\0";

/// The key of a member's personal `.torrent` file, which stands in the path of its announce URLs.
///
/// It is the first 128 bits of SHA-256 over a domain and `secret || info-hash || generation`. All inputs have a
/// fixed length, so that no two of them make one text, and the digest is cut, so that it cannot be continued: no
/// HMAC is needed. Who knows one key learns nothing of the secret nor of the keys of other files or generations.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnounceKey(#[serde(with = "serde_bytes")] [u8; LENGTH]);

/// A text is not a key: it has not exactly [`TEXT_LENGTH`] lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an announce key")]
pub struct AnnounceKeyError;

impl AnnounceKey {
    /// The key of a member, who has this secret of 256 random bits, for a file. Each generation has another.
    pub fn derive(secret: &[u8; 32], info_hash: InfoHash, generation: u32) -> Self {
        let digest = Sha256::new()
            .chain_update(DOMAIN)
            .chain_update(secret)
            .chain_update(info_hash.as_bytes())
            .chain_update(generation.to_be_bytes())
            .finalize();
        let mut key = [0; LENGTH];
        key.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(key)
    }

    /// What is stored in the key's place, and looked up: its SHA-256.
    pub fn digest(&self) -> Sha256Hash {
        Sha256Hash::of(&self.0)
    }

    /// The text for a URL. It is a secret: it belongs in a `.torrent` and nowhere else.
    pub fn expose(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads the text of a URL without allocating.
    ///
    /// # Errors
    /// For anything but [`TEXT_LENGTH`] lower-case hexadecimal digits.
    pub fn from_text(text: &[u8]) -> Result<Self, AnnounceKeyError> {
        let digits: &[u8; TEXT_LENGTH] = text.try_into().map_err(|_| AnnounceKeyError)?;
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(AnnounceKeyError),
        };
        let mut key = [0; LENGTH];
        for (byte, [high, low]) in key.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        Ok(Self(key))
    }
}

impl FromStr for AnnounceKey {
    type Err = AnnounceKeyError;

    fn from_str(text: &str) -> Result<Self, AnnounceKeyError> {
        Self::from_text(text.as_bytes())
    }
}

impl Drop for AnnounceKey {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl fmt::Debug for AnnounceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnnounceKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: [u8; 32] = [1; 32];
    const FILE: InfoHash = InfoHash([2; 20]);

    /// The same by hand: `printf … | sha256sum`.
    #[test]
    fn golden_key() {
        let text = AnnounceKey::derive(&SECRET, FILE, 3).expose();
        let input = [&b"mini-torrent announce key 1\0"[..], &[1; 32], &[2; 20], &[0, 0, 0, 3]].concat();
        assert_eq!(text, Sha256Hash::of(&input).to_string()[..TEXT_LENGTH]);
        assert_eq!(text, "1fe81708bdbd64b411f804eb44c2343c");
    }

    #[test]
    fn every_input_changes_the_key() {
        let key = AnnounceKey::derive(&SECRET, FILE, 0);
        assert_ne!(key, AnnounceKey::derive(&[0; 32], FILE, 0));
        assert_ne!(key, AnnounceKey::derive(&SECRET, InfoHash([0; 20]), 0));
        assert_ne!(key, AnnounceKey::derive(&SECRET, FILE, 1));
    }

    #[test]
    fn only_the_one_text_of_a_key_is_read() {
        let key = AnnounceKey::derive(&SECRET, FILE, 0);
        let text = key.expose();
        assert_eq!(text.parse(), Ok(key.clone()));
        assert_eq!(key.digest(), text.parse::<AnnounceKey>().unwrap().digest());
        for bad in ["", &text[1..], &format!("{text}0"), &text.to_uppercase(), &text.replace(&text[..1], "g")] {
            assert_eq!(bad.parse::<AnnounceKey>(), Err(AnnounceKeyError), "{bad}");
        }
        assert_eq!(format!("{key:?}"), "AnnounceKey(…)");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(key) = AnnounceKey::from_text(&text) {
                prop_assert_eq!(key.expose().into_bytes(), text);
            }
        }
    }
}
