//! A file that is read for others, and what tells that it was changed meanwhile.

use mini_torrent_common::error_code::ErrorCode;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};
use std::fs::{File, Metadata};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::error::CommandError;

/// What tells a changed file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStamp {
    /// Length in bytes.
    pub(crate) size: u64,
    /// Time of the last change in nanoseconds since the Unix epoch.
    pub(crate) modified_ns: i64,
    /// The file's number in its file system.
    pub(crate) inode: u64,
}

impl FileStamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            modified_ns: metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()),
            inode: metadata.ino(),
        }
    }

    /// The stamp of whatever the path names now.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::of(&metadata))
    }
}

/// Opens a regular file for reading. Never blocks, not even on a FIFO.
pub(crate) fn open_regular(path: &Path) -> Result<File, CommandError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty());
    let file = File::from(file.map_err(|error| CommandError::io(path, &error.into()))?);
    let metadata = file.metadata().map_err(|error| CommandError::io(path, &error))?;
    if metadata.is_file() {
        return Ok(file);
    }
    Err(CommandError::new(ErrorCode::NotARegularFile, format!("{} is not a regular file", path.display())))
}

/// What statfs(2) says of tmpfs.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// A file that others are served from.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    file: Arc<File>,
    /// Whether its file system lies in memory: nothing has to be waited for there, and Linux does not say so itself.
    is_in_memory: bool,
    /// The path and how the file looked when it was hashed. Not set while it is being fetched, because then
    /// every piece is ours and was just verified. All clones see it being set.
    shared: Arc<OnceLock<(PathBuf, FileStamp)>>,
}

/// Why bytes cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The file is not what it was when it was hashed.
    #[error("it was changed or removed")]
    Stale,
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Content {
    /// A finished file, served as long as it stays what it was.
    pub(crate) fn open_shared(path: &Path, stamp: FileStamp) -> Result<Self, ReadError> {
        let file = open_regular(path).map_err(|_| ReadError::Stale)?;
        let content = Self::partial(Arc::new(file));
        content.finished(path, stamp);
        content.check()?;
        Ok(content)
    }

    /// A file that is being fetched.
    pub(crate) fn partial(file: Arc<File>) -> Self {
        let is_in_memory = rustix::fs::fstatfs(&file).is_ok_and(|system| system.f_type == TMPFS_MAGIC);
        Self { file, is_in_memory, shared: Arc::default() }
    }

    /// A file that was being fetched has its final name: from now on it must stay what it is.
    pub(crate) fn finished(&self, path: &Path, stamp: FileStamp) {
        // A file is finished once.
        let _ = self.shared.set((path.to_owned(), stamp));
    }

    /// Fills the buffer from `offset` on, and makes sure afterwards that it was read from the file that was hashed.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let read = self.file.read_exact_at(buffer, offset);
        self.check()?;
        Ok(read?)
    }

    /// Reads from `offset` on, waiting for the disk, as [`Self::read`]; how many bytes, none at the end of the file.
    pub(crate) fn read_some(&self, offset: u64, slices: &mut [IoSliceMut<'_>]) -> Result<usize, ReadError> {
        let n_read = retry_on_intr(|| rustix::io::preadv(&self.file, slices, offset));
        self.check()?;
        Ok(n_read.map_err(io::Error::from)?)
    }

    /// As [`Self::read_some`], but no more than the system has in memory, without waiting for the disk.
    pub(crate) fn read_at_hand(&self, offset: u64, slices: &mut [IoSliceMut<'_>]) -> Result<usize, ReadError> {
        let flags = if self.is_in_memory { ReadWriteFlags::empty() } else { ReadWriteFlags::NOWAIT };
        let n_read = retry_on_intr(|| rustix::io::preadv2(&self.file, slices, offset, flags));
        self.check()?;
        match n_read {
            Ok(n_read) => Ok(n_read),
            // What would have to be waited for, or a file system that does not say.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(0),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    fn check(&self) -> Result<(), ReadError> {
        let Some((path, stamp)) = self.shared.get() else { return Ok(()) };
        let open = FileStamp::of(&self.file.metadata()?);
        let named = FileStamp::at(path).map_err(|_| ReadError::Stale)?;
        if open == *stamp && named == *stamp { Ok(()) } else { Err(ReadError::Stale) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(dir: &tempfile::TempDir) -> (PathBuf, Content) {
        let path = dir.path().join("f");
        std::fs::write(&path, b"0123456789").unwrap();
        let stamp = FileStamp::at(&path).unwrap();
        let content = Content::open_shared(&path, stamp).unwrap();
        (path, content)
    }

    #[test]
    fn a_range_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (mut front, mut back) = ([0; 2], [0; 20]);
        let mut slices = [IoSliceMut::new(&mut front), IoSliceMut::new(&mut back)];
        let content = shared(&dir).1;
        assert_eq!(content.read_some(5, &mut slices).unwrap(), 5);
        assert!([0, 5].contains(&content.read_at_hand(5, &mut slices).unwrap()), "all or nothing of so little");
        assert_eq!((&front, &back[..3]), (b"56", &b"789"[..]));
        assert_eq!(content.read_some(10, &mut [IoSliceMut::new(&mut front)]).unwrap(), 0);
    }

    #[test]
    fn a_changed_replaced_or_removed_file_is_stale() {
        for change in [
            |path: &Path| std::fs::write(path, b"other").unwrap(),
            |path: &Path| std::fs::remove_file(path).unwrap(),
            |path: &Path| {
                let twin = path.with_extension("twin");
                std::fs::copy(path, &twin).unwrap();
                std::fs::rename(twin, path).unwrap();
            },
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (path, content) = shared(&dir);
            change(&path);
            let mut byte = [0];
            assert!(matches!(content.read_some(0, &mut [IoSliceMut::new(&mut byte)]), Err(ReadError::Stale)));
            assert!(matches!(content.read_at_hand(0, &mut [IoSliceMut::new(&mut byte)]), Err(ReadError::Stale)));
        }
    }

    #[test]
    fn only_regular_files_are_opened_and_a_fifo_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        for path in [dir.path(), &fifo, Path::new("/dev/null")] {
            assert_eq!(open_regular(path).unwrap_err().code, ErrorCode::NotARegularFile, "{}", path.display());
        }
        assert_eq!(open_regular(&dir.path().join("none")).unwrap_err().code, ErrorCode::Io);
    }
}
