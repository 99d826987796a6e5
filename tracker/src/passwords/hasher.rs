//! argon2id as the library has it, in memory that is used again.
//!
//! The library asks the system for 19 MiB for each hash and gives them back. They are aligned, and glibc before 2.38 does
//! not find such a block again once something small lies behind it: a tracker grew by 2 to 4 MiB with every login, for good.

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::password_hash::{CustomizedPasswordHasher, Error, PasswordHasher, Result};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Hashes with parameters of its own, and verifies with those of the hash.
pub(super) struct Hasher {
    params: Params,
    /// The memory of hashes that are done: as many as were under way at once.
    idle: Mutex<Vec<Vec<Block>>>,
}

impl Hasher {
    pub(super) fn new(params: Params) -> Self {
        Self { params, idle: Mutex::default() }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Vec<Block>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something in so many blocks of memory, which are empty before and afterwards.
    fn with_blocks<T>(&self, n_blocks: usize, work: impl FnOnce(&mut [Block]) -> T) -> T {
        let kept = self.idle().pop();
        let mut blocks = kept.unwrap_or_default();
        blocks.resize(n_blocks, Block::new());
        let done = work(&mut blocks);
        // They were filled from a password.
        blocks.fill(Block::new());
        self.idle().push(blocks);
        done
    }
}

impl PasswordHasher<PasswordHash> for Hasher {
    fn hash_password_with_salt(&self, password: &[u8], salt: &[u8]) -> Result<PasswordHash> {
        self.hash_password_customized(password, salt, None, None, self.params.clone())
    }
}

/// From this follows how the library verifies: it hashes as the stored hash says, and compares in constant time.
impl CustomizedPasswordHasher<PasswordHash> for Hasher {
    type Params = Params;

    fn hash_password_customized(
        &self,
        password: &[u8],
        salt: &[u8],
        algorithm: Option<&str>,
        version: Option<u32>,
        params: Params,
    ) -> Result<PasswordHash> {
        let algorithm = algorithm.map(Algorithm::try_from).transpose()?.unwrap_or(Algorithm::Argon2id);
        let version = version.map(Version::try_from).transpose()?.unwrap_or(Version::V0x13);
        let salt = Salt::new(salt)?;
        let mut output = [0; Output::MAX_LENGTH];
        let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
        let output = output.get_mut(..length).ok_or(Error::OutputSize)?;
        let argon2 = Argon2::new(algorithm, version, params.clone());
        self.with_blocks(params.block_count(), |blocks| {
            argon2.hash_password_into_with_memory(password, &salt, output, blocks)
        })?;
        Ok(PasswordHash {
            algorithm: algorithm.ident(),
            version: Some(version.into()),
            params: ParamsString::try_from(&params)?,
            salt: Some(salt),
            hash: Some(Output::new(output)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::PasswordVerifier;

    const SALT: &[u8] = b"a salt of 16 b.";

    fn params(memory_kib: u32) -> Params {
        Params::new(memory_kib, 2, 1, None).unwrap()
    }

    #[test]
    fn hashes_are_those_of_the_library() {
        for memory_kib in [8, 64, 1000] {
            let library = Argon2::new(Algorithm::Argon2id, Version::V0x13, params(memory_kib));
            let ours = Hasher::new(params(memory_kib)).hash_password_with_salt(b"password", SALT).unwrap();
            assert_eq!(ours.to_string(), library.hash_password_with_salt(b"password", SALT).unwrap().to_string());
        }
    }

    #[test]
    fn a_hash_of_other_parameters_is_verified_with_these() {
        let stored = Hasher::new(params(64)).hash_password(b"password").unwrap();
        let hasher = Hasher::new(params(8));
        assert!(hasher.verify_password(b"password", &stored).is_ok());
        assert!(hasher.verify_password(b"passwords", &stored).is_err());
    }

    #[test]
    fn memory_is_used_again_and_holds_nothing_of_a_password() {
        let hasher = Hasher::new(params(64));
        let place = |hasher: &Hasher| {
            let idle = hasher.idle();
            assert!(idle.len() == 1 && idle[0].iter().all(|block| block.as_ref().iter().all(|word| *word == 0)));
            idle[0].as_ptr()
        };
        let first = hasher.hash_password_with_salt(b"password", SALT).unwrap();
        let before = place(&hasher);
        let second = hasher.hash_password_with_salt(b"password", SALT).unwrap();
        assert_eq!((first.to_string(), before), (second.to_string(), place(&hasher)));
    }
}
