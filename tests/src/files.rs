//! Files of known random content, and comparing them.

use mini_torrent_common::hash::{Sha1Hash, Sha256Hash};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha1::Digest;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

const BUFFER_LENGTH: usize = 1024 * 1024;

/// Writes `length` bytes drawn from `seed`.
///
/// # Panics
/// When the file cannot be written.
pub fn random_file(path: impl Into<PathBuf>, length: u64, seed: u64) -> PathBuf {
    let path = path.into();
    let mut file = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut random = StdRng::seed_from_u64(seed);
    let mut buffer = vec![0; BUFFER_LENGTH];
    let mut left = length;
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        random.fill_bytes(&mut buffer[..n]);
        file.write_all(&buffer[..n]).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        left -= n as u64;
    }
    path
}

/// `length` bytes drawn from `seed`.
pub fn random_bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Makes a file of `length` bytes that takes no room, with `marks` written at the given offsets.
///
/// # Panics
/// When the file cannot be written.
pub fn sparse_file(path: impl Into<PathBuf>, length: u64, marks: &[(u64, &[u8])]) -> PathBuf {
    use std::os::unix::fs::FileExt;
    let path = path.into();
    let file = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.set_len(length).expect("a sparse file can be made");
    for (offset, bytes) in marks {
        file.write_all_at(bytes, *offset).expect("a sparse file can be written");
    }
    path
}

/// Whole-file digests, by libraries that the product's own hashing does not choose for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// SHA-1.
    pub sha1: Sha1Hash,
    /// SHA-256.
    pub sha256: Sha256Hash,
}

/// Digests a file.
///
/// # Panics
/// When it cannot be read.
pub fn digests(path: impl AsRef<Path>) -> Digests {
    let path = path.as_ref();
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut sha1, mut sha256) = (sha1::Sha1::new(), sha2::Sha256::new());
    let mut buffer = vec![0; BUFFER_LENGTH];
    loop {
        let n = file.read(&mut buffer).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if n == 0 {
            break;
        }
        sha1.update(&buffer[..n]);
        sha256.update(&buffer[..n]);
    }
    Digests { sha1: Sha1Hash(sha1.finalize().into()), sha256: Sha256Hash(sha256.finalize().into()) }
}

/// Whether two files have the same bytes.
///
/// # Panics
/// When one cannot be read.
pub fn same(a: impl AsRef<Path>, b: impl AsRef<Path>) -> bool {
    let (a, b) = (a.as_ref(), b.as_ref());
    let length =
        |path: &Path| std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).len();
    length(a) == length(b) && digests(a) == digests(b)
}

/// Asserts that two files have the same bytes.
///
/// # Panics
/// When they differ or one cannot be read.
pub fn assert_same(a: impl AsRef<Path>, b: impl AsRef<Path>) {
    assert!(same(&a, &b), "{} differs from {}", a.as_ref().display(), b.as_ref().display());
}

/// Whether `needle` stands anywhere in `bytes`.
pub fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|part| part == needle)
}

/// The files below a directory that hold `needle`.
///
/// # Panics
/// When the directory cannot be read.
pub fn files_with(dir: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_with(&path, needle)),
            Ok(kind) if kind.is_file() && std::fs::read(&path).is_ok_and(|bytes| contains(&bytes, needle)) => {
                found.push(path);
            }
            _ => {}
        }
    }
    found
}
