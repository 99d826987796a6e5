//! How keys are looked up: every announce does it, and memory is what it waits for.

use mini_torrent_common::hash::Sha256Hash;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// The front of a key's digest: as many bits as a key has, so that no two keys share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DigestFront([u8; 16]);

impl DigestFront {
    pub(super) fn of(digest: &Sha256Hash) -> Self {
        Self(digest.0.first_chunk().copied().unwrap_or_default())
    }
}

impl Hash for DigestFront {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.first_chunk().copied().map_or(0, u64::from_le_bytes));
    }
}

/// A digest is a hash already. Nobody can aim the digests of the keys in a table: they are made of secrets.
pub(super) type AsItIs = BuildHasherDefault<FirstWord>;

#[derive(Default)]
pub(super) struct FirstWord(u64);

impl Hasher for FirstWord {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0 << 8 ^ u64::from(*byte));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
