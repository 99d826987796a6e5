//! The partial file of a download. A piece gets into it only after its hash matched.

use bytes::Bytes;
use mini_torrent_common::bitfield::Bitfield;
use mini_torrent_common::geometry::{BLOCK_LENGTH, Geometry, PieceIndex};
use mini_torrent_common::hash::Sha1Hash;
use mini_torrent_common::metainfo::PieceHashes;
use rustix::fs::SeekFrom;
use std::fs::{File, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use tokio_util::sync::CancellationToken;

/// Threads that read a partial file again after a restart.
const RECHECK_THREADS: usize = 2;
/// Most buffers that one system call writes (IOV_MAX is 1024 on Linux).
const MAX_SLICES: usize = 1024;

/// An open partial file.
#[derive(Debug, Clone)]
pub(crate) struct PartFile {
    file: Arc<File>,
    geometry: Geometry,
    hashes: PieceHashes,
}

/// What became of a piece.
#[derive(Debug)]
pub(crate) enum PieceOutcome {
    /// Its hash matched and it is written.
    Verified(Option<Vec<Sha1Hash>>),
    /// Its hash did not match; the digests of its blocks.
    Corrupt(Vec<Sha1Hash>),
    /// Its hash matched, but it could not be written.
    Unwritten(io::Error),
}

impl PartFile {
    /// Takes an open file for this download alone, and gives it the length of the finished one; the holes cost
    /// no room.
    ///
    /// # Errors
    /// `WouldBlock` while another download writes the same file.
    pub(crate) fn new(file: File, geometry: Geometry, hashes: PieceHashes) -> io::Result<Self> {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            // A file system without locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        if file.metadata()?.len() != geometry.length() {
            file.set_len(geometry.length())?;
        }
        Ok(Self { file: Arc::new(file), geometry, hashes })
    }

    /// The file itself, for serving what is verified.
    pub(crate) fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Hashes the blocks of a piece and writes them if they match.
    pub(crate) fn verify_and_write(&self, piece: PieceIndex, blocks: &[Bytes], with_digests: bool) -> PieceOutcome {
        let digest = Sha1Hash::of_parts(blocks.iter().map(|block| &block[..]));
        if self.hashes.get(piece.as_usize()) != Some(digest) {
            return PieceOutcome::Corrupt(digests_of(blocks));
        }
        match self.write(self.geometry.range_of(piece).start, blocks) {
            Ok(()) => PieceOutcome::Verified(with_digests.then(|| digests_of(blocks))),
            Err(error) => PieceOutcome::Unwritten(error),
        }
    }

    fn write(&self, mut offset: u64, blocks: &[Bytes]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = blocks.iter().map(|block| IoSlice::new(block)).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            let batch = rest.len().min(MAX_SLICES);
            let n_written = match rustix::io::pwritev(&self.file, &rest[..batch], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => n,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            offset += n_written as u64;
            IoSlice::advance_slices(&mut rest, n_written);
        }
        Ok(())
    }

    /// The file's number in its file system.
    pub(crate) fn inode(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.file)?.st_ino)
    }

    /// Reads again what is in the file, and says which pieces are intact. Holes are not read; what is not read
    /// when `stop` is cancelled counts as missing.
    pub(crate) fn recheck(&self, stop: &CancellationToken) -> io::Result<Bitfield> {
        let candidates = self.written_pieces()?;
        let next = AtomicU32::new(0);
        let mut intact = Bitfield::none(self.geometry.n_pieces());
        let found = thread::scope(|scope| {
            // This thread is one of them.
            let n_others = RECHECK_THREADS.min(candidates.len()).saturating_sub(1);
            let others: Vec<_> =
                (0..n_others).map(|_| scope.spawn(|| self.recheck_some(&candidates, &next, stop))).collect();
            let mut found = self.recheck_some(&candidates, &next, stop);
            others.into_iter().for_each(|other| found.extend(other.join().unwrap_or_default()));
            found
        });
        found.into_iter().for_each(|piece| {
            intact.insert(piece);
        });
        Ok(intact)
    }

    /// Takes candidates in turn with the other workers; returns the intact ones.
    fn recheck_some(&self, candidates: &[PieceIndex], next: &AtomicU32, stop: &CancellationToken) -> Vec<PieceIndex> {
        let mut intact = Vec::new();
        let mut buffer = Vec::new();
        while let Some(piece) = candidates.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            if stop.is_cancelled() {
                break;
            }
            buffer.resize(self.geometry.length_of(*piece) as usize, 0);
            let read = self.file.read_exact_at(&mut buffer, self.geometry.range_of(*piece).start);
            if read.is_ok() && self.hashes.get(piece.as_usize()) == Some(Sha1Hash::of(&buffer)) {
                intact.push(*piece);
            }
        }
        intact
    }

    /// The pieces that have some byte outside of holes.
    fn written_pieces(&self) -> io::Result<Vec<PieceIndex>> {
        let piece_length = u64::from(self.geometry.piece_length());
        let mut pieces: Vec<PieceIndex> = Vec::new();
        let mut at = 0;
        while at < self.geometry.length() {
            let start = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(rustix::io::Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            at = rustix::fs::seek(&self.file, SeekFrom::Hole(start))?;
            let first = u32::try_from(start / piece_length).unwrap_or(u32::MAX);
            let end = u32::try_from(at.div_ceil(piece_length)).unwrap_or(u32::MAX);
            let after_last = pieces.last().map_or(0, |piece| piece.get() + 1);
            pieces.extend((first.max(after_last)..end).map_while(|index| self.geometry.piece(index)));
        }
        Ok(pieces)
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// SHA-1 of each 16 KiB of a piece. Blocks come in units of that length but for the last.
fn digests_of(blocks: &[Bytes]) -> Vec<Sha1Hash> {
    blocks.iter().flat_map(|block| block.chunks(BLOCK_LENGTH as usize)).map(Sha1Hash::of).collect()
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // Small numbers of the tests' own.
mod tests {
    use super::*;

    const PIECE: usize = 64 * 1024;

    fn part(dir: &tempfile::TempDir, content: &[u8]) -> PartFile {
        let geometry = Geometry::new(content.len() as u64, PIECE as u64).unwrap();
        let hashes: Vec<u8> = content.chunks(PIECE).flat_map(|piece| Sha1Hash::of(piece).0).collect();
        let file = File::options().read(true).write(true).create(true).truncate(false).open(dir.path().join("p"));
        PartFile::new(file.unwrap(), geometry, PieceHashes::new(hashes).unwrap()).unwrap()
    }

    fn blocks(piece: &[u8]) -> Vec<Bytes> {
        piece.chunks(BLOCK_LENGTH as usize).map(Bytes::copy_from_slice).collect()
    }

    /// B9, B10: a wrong piece is not written; right ones land at their offsets.
    #[test]
    fn b9_a_piece_is_written_only_if_its_hash_matches() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..3 * PIECE + 5).map(|i| (i % 251) as u8).collect();
        let part = part(&dir, &content);
        let pieces: Vec<_> = part.geometry.pieces().zip(content.chunks(PIECE)).collect();
        for (piece, bytes) in pieces.iter().rev() {
            let mut wrong = blocks(bytes);
            wrong[0] = Bytes::from(vec![9; wrong[0].len()]);
            let PieceOutcome::Corrupt(digests) = part.verify_and_write(*piece, &wrong, false) else {
                panic!("accepted")
            };
            assert_eq!(digests.len(), wrong.len());
            let before = std::fs::read(dir.path().join("p")).unwrap();
            assert!(before[part.geometry.range_of(*piece).start as usize..].iter().take(bytes.len()).all(|b| *b == 0));
            assert!(matches!(part.verify_and_write(*piece, &blocks(bytes), true), PieceOutcome::Verified(Some(_))));
        }
        assert_eq!(std::fs::read(dir.path().join("p")).unwrap(), content);
    }

    #[test]
    fn a_partial_file_has_one_download() {
        let dir = tempfile::tempdir().unwrap();
        let content = vec![1; PIECE];
        let first = part(&dir, &content);
        let again = File::options().read(true).write(true).open(dir.path().join("p")).unwrap();
        let second = PartFile::new(again, first.geometry, first.hashes.clone());
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn recheck_finds_what_is_intact_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..20 * PIECE + 5).map(|i| (i % 251) as u8).collect();
        let part = part(&dir, &content);
        let written = [0usize, 3, 4, 19, 20];
        for index in written {
            let piece = part.geometry.piece(index as u32).unwrap();
            let bytes = content.chunks(PIECE).nth(index).unwrap();
            assert!(matches!(part.verify_and_write(piece, &blocks(bytes), false), PieceOutcome::Verified(None)));
        }
        part.file.write_at(b"damage", 4 * PIECE as u64 + 100).unwrap();
        let intact = part.recheck(&CancellationToken::new()).unwrap();
        let found: Vec<_> =
            part.geometry.pieces().filter(|piece| intact.contains(*piece)).map(|p| p.as_usize()).collect();
        assert_eq!(found, [0, 3, 19, 20]);
    }
}
