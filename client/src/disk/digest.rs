//! Hashing a file: SHA-1 of every piece, SHA-1 and SHA-256 of the whole, in one pass over the bytes.
//!
//! One thread reads and hashes the pieces, while their bytes are warm in its cache; the two digests of the whole
//! have threads of their own. So the slowest of the three and not their sum decides how long it takes, as far as
//! there are processors.

use mini_torrent_common::geometry::{Geometry, PIECE_LENGTH};
use mini_torrent_common::hash::{Sha1Hash, Sha256Hash};
use mini_torrent_common::metainfo::PieceHashes;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, ScopedJoinHandle};

use super::content::{FileStamp, open_regular};
use crate::error::CommandError;
use mini_torrent_common::error_code::ErrorCode;

/// Bytes read at once: one piece, which stays in the processor's cache while it is hashed three times.
const READ_LENGTH: usize = PIECE_LENGTH as usize;
/// Reads that wait for each digest: more than a processor hashes in one time slice, so that a digest that waits
/// for its turn does not hold up the others. 12 MiB.
const QUEUED_READS: usize = 24;

/// How far a file is hashed, and the switch to stop it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    done_bytes: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress {
    /// Bytes hashed so far.
    pub(crate) fn done_bytes(&self) -> u64 {
        self.done_bytes.load(Ordering::Relaxed)
    }

    /// Whether it was told to stop.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Stops the hashing soon.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// Everything that is said of a file's content.
#[derive(Debug, Clone)]
pub(crate) struct FileDigest {
    pub(crate) stamp: FileStamp,
    pub(crate) geometry: Geometry,
    pub(crate) pieces: PieceHashes,
    pub(crate) sha1: Sha1Hash,
    pub(crate) sha256: Sha256Hash,
}

/// Hashes a file in pieces of the usual length.
///
/// # Errors
/// When it is no regular file, cannot be read, changes meanwhile, or `progress` is cancelled.
pub(crate) fn digest_file(path: &Path, progress: &Progress) -> Result<FileDigest, CommandError> {
    let mut file = open_regular(path)?;
    let io_error = |error| CommandError::io(path, &error);
    let stamp = FileStamp::of(&file.metadata().map_err(io_error)?);
    let geometry = Geometry::new(stamp.size, u64::from(PIECE_LENGTH))
        .map_err(|error| CommandError::new(ErrorCode::InvalidMetainfo, error.to_string()))?;
    let changed = || CommandError::new(ErrorCode::FileChanged, format!("{} changed while it was read", path.display()));
    let (n_read, pieces, sha1, sha256) = thread::scope(|scope| {
        let (to_sha1, sha1) = spawn_digest(scope, digest_whole::<Sha1>);
        let (to_sha256, sha256) = spawn_digest(scope, digest_whole::<Sha256>);
        let (n_read, pieces) = read_all(&mut file, [to_sha1, to_sha256], progress).map_err(io_error)?;
        let joined = (|| Some((sha1.join().ok()?, sha256.join().ok()?)))();
        let (sha1, sha256) = joined.ok_or_else(CommandError::shutting_down)?;
        Ok::<_, CommandError>((n_read, pieces, sha1, sha256))
    })?;
    if progress.is_cancelled() {
        return Err(CommandError::new(ErrorCode::Io, format!("hashing of {} was cancelled", path.display())));
    }
    if n_read != stamp.size || FileStamp::of(&file.metadata().map_err(io_error)?) != stamp {
        return Err(changed());
    }
    let pieces = PieceHashes::new(pieces).ok_or_else(changed)?;
    Ok(FileDigest { stamp, geometry, pieces, sha1: Sha1Hash(sha1.into()), sha256: Sha256Hash(sha256.into()) })
}

type Reads = Receiver<Arc<Vec<u8>>>;

fn spawn_digest<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    digest: fn(Reads) -> T,
) -> (SyncSender<Arc<Vec<u8>>>, ScopedJoinHandle<'scope, T>) {
    let (sender, receiver) = sync_channel(QUEUED_READS);
    (sender, scope.spawn(move || digest(receiver)))
}

fn digest_whole<D: Digest>(reads: Reads) -> sha1::digest::Output<D> {
    let mut digest = D::new();
    reads.iter().for_each(|bytes| digest.update(&bytes[..]));
    digest.finalize()
}

/// Reads to the end, gives every piece to both digests, and hashes it. Returns the number of bytes read and the
/// pieces' digests.
fn read_all(
    file: &mut impl Read,
    digests: [SyncSender<Arc<Vec<u8>>>; 2],
    progress: &Progress,
) -> std::io::Result<(u64, Vec<u8>)> {
    let (mut n_read, mut pieces) = (0, Vec::new());
    let mut buffers = BufferRing::default();
    while !progress.is_cancelled() {
        let mut buffer = buffers.take();
        file.by_ref().take(READ_LENGTH as u64).read_to_end(Arc::make_mut(&mut buffer))?;
        if buffer.is_empty() {
            break;
        }
        n_read += buffer.len() as u64;
        for digest in &digests {
            // A digest thread ends early only by a panic, which its join reports.
            let _ = digest.send(buffer.clone());
        }
        pieces.extend_from_slice(Sha1Hash::of(&buffer).as_bytes());
        progress.done_bytes.store(n_read, Ordering::Relaxed);
        buffers.give_back(buffer);
    }
    Ok((n_read, pieces))
}

/// Whether a file has this length and each of its pieces the right hash: how it looks, if so.
///
/// # Errors
/// When it is no regular file or cannot be read.
pub(crate) fn check_pieces(
    path: &Path,
    geometry: Geometry,
    fits: impl Fn(usize, Sha1Hash) -> bool,
) -> Result<Option<FileStamp>, CommandError> {
    let mut file = open_regular(path)?;
    let io_error = |error| CommandError::io(path, &error);
    let stamp = FileStamp::of(&file.metadata().map_err(io_error)?);
    if stamp.size != geometry.length() {
        return Ok(None);
    }
    let mut buffer = Vec::new();
    for piece in geometry.pieces() {
        buffer.resize(geometry.length_of(piece) as usize, 0);
        file.read_exact(&mut buffer).map_err(io_error)?;
        if !fits(piece.as_usize(), Sha1Hash::of(&buffer)) {
            return Ok(None);
        }
    }
    let unchanged = FileStamp::of(&file.metadata().map_err(io_error)?) == stamp;
    Ok(unchanged.then_some(stamp))
}

/// Buffers in turn, each used again once all digests have let go of it.
#[derive(Default)]
struct BufferRing(std::collections::VecDeque<Arc<Vec<u8>>>);

impl BufferRing {
    fn take(&mut self) -> Arc<Vec<u8>> {
        let free = self.0.front_mut().is_some_and(|oldest| Arc::get_mut(oldest).is_some());
        let mut buffer = if free { self.0.pop_front().unwrap_or_default() } else { Arc::default() };
        if let Some(bytes) = Arc::get_mut(&mut buffer) {
            bytes.clear();
            bytes.reserve_exact(READ_LENGTH);
        }
        buffer
    }

    fn give_back(&mut self, buffer: Arc<Vec<u8>>) {
        // One more than can be queued or worked on; any surplus is freed by its last user.
        if self.0.len() < QUEUED_READS + 3 {
            self.0.push_back(buffer);
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // Small numbers of the tests' own.
mod tests {
    use super::*;

    fn digest_of(bytes: &[u8]) -> FileDigest {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, bytes).unwrap();
        digest_file(&path, &Progress::default()).unwrap()
    }

    /// A3, A4: pieces are the SHA-1 of each 512 KiB, the last covers the remainder.
    #[test]
    fn a3_pieces_equal_an_independent_sha1_of_the_parts() {
        let piece = PIECE_LENGTH as usize;
        for length in [0, 1, piece - 1, piece, piece + 1, 2 * piece, 30 * piece + 7] {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 7 % 251) as u8).collect();
            let digest = digest_of(&bytes);
            let expected: Vec<u8> = bytes.chunks(piece).flat_map(|part| Sha1Hash::of(part).0).collect();
            assert_eq!(digest.pieces.as_bytes(), expected, "length {length}");
            assert_eq!(digest.sha1, Sha1Hash::of(&bytes));
            assert_eq!(digest.sha256, Sha256Hash::of(&bytes));
            assert_eq!(digest.geometry.n_pieces() as usize, digest.pieces.len());
        }
    }

    #[test]
    fn a_file_is_checked_in_pieces_of_any_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"0123456789").unwrap();
        let geometry = Geometry::new(10, 4).unwrap();
        let hashes = [&b"0123"[..], b"4567", b"89"].map(Sha1Hash::of);
        let check = |geometry| check_pieces(&path, geometry, |index, hash| hashes[index] == hash).unwrap();
        assert!(check(geometry).is_some());
        assert!(check(Geometry::new(11, 4).unwrap()).is_none(), "of another length");
        std::fs::write(&path, b"012345678x").unwrap();
        assert!(check(geometry).is_none());
    }

    #[test]
    fn cancelled_hashing_gives_no_digest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, [0; 10]).unwrap();
        let progress = Progress::default();
        progress.cancel();
        assert!(digest_file(&path, &progress).unwrap_err().message.contains("cancelled"));
    }
}
