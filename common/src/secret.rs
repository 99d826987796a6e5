//! Secrets that cross the control connection. They are wiped when dropped and never printed.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

use crate::hash::Sha256Hash;

/// Shortest password in characters.
pub const MIN_PASSWORD_CHARS: usize = 8;
/// Longest password in bytes.
pub const MAX_PASSWORD_LENGTH: usize = 1024;

/// A password as the user typed it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Password(zeroize::Zeroizing<String>);

impl Password {
    /// Wraps a text. Whether it is strong enough is decided by the tracker.
    pub fn new(text: String) -> Self {
        Self(zeroize::Zeroizing::new(text))
    }

    /// The text, for hashing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// The random 256-bit token of a session, bound to the client's key (design §4).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionToken(#[serde(with = "serde_bytes")] [u8; 32]);

impl SessionToken {
    /// Wraps 32 bytes that the caller drew at random.
    pub fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// What the store keeps in the token's place.
    pub fn digest(&self) -> Sha256Hash {
        Sha256Hash(Sha256::digest(self.0).into())
    }
}

impl Drop for SessionToken {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_secret() {
        let shown = format!("{:?} {:?}", Password::new("hunter2hunter2".into()), SessionToken::new([65; 32]));
        assert_eq!(shown, "Password(…) SessionToken(…)");
    }
}
