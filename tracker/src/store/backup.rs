//! A copy of a store in one file of SQLite, whatever database the store is in.

use super::copying::{CopyError, copy};
use super::database::blocking;
use super::location::Location;
use super::sqlite;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// The store cannot be read, or not be copied.
    #[error("{0}")]
    Copy(#[from] CopyError),
    /// The file cannot be written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Writes a consistent copy of a store, which may be in use, into a new file. It appears under its name when it is
/// complete and on the disk.
///
/// # Errors
/// When the store cannot be read or the file not be written, or is there already.
pub(crate) async fn back_up(from: &Location, into: &Path) -> Result<(), BackupError> {
    let failed = |error| BackupError::Io { path: into.into(), error };
    let draft = Draft::beside(into).map_err(failed)?;
    match from {
        Location::Sqlite(path) => {
            let (path, file) = (path.clone(), draft.file());
            let made = blocking(move || sqlite::back_up(&path, &file)).await;
            made.map_err(|error| CopyError::Open { location: from.clone(), error })?;
        }
        Location::Postgres(_) => {
            copy(from, &Location::Sqlite(draft.file())).await?;
        }
    }
    draft.publish(into).map_err(failed)
}

/// What the names of drafts begin with; the number of their process follows.
const DRAFT: &str = ".mini-tracker-backup.";

/// A directory of its own for what is not complete yet, and for what SQLite puts beside a file.
struct Draft {
    path: PathBuf,
    /// Locked as long as it is in use, also for who cannot see its process.
    _lock: File,
}

impl Draft {
    fn beside(path: &Path) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        remove_left_drafts(parent(path))?;
        let path = parent(path).join(format!("{DRAFT}{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = File::open(&path)?;
        // Where there are no locks, the number of the process is all that protects it.
        let _ = lock.try_lock();
        Ok(Self { path, _lock: lock })
    }

    fn file(&self) -> PathBuf {
        self.path.join("tracker.db")
    }

    /// A hard link does not replace what has come there meanwhile.
    fn publish(&self, path: &Path) -> io::Result<()> {
        File::open(self.file())?.sync_all()?;
        fs::hard_link(self.file(), path)?;
        File::open(parent(path))?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // What stays behind has a name that says what it was, and the next backup removes it.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the drafts of processes that were killed: all password hashes are in them.
fn remove_left_drafts(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let process = entry.file_name().to_str().and_then(|name| name.strip_prefix(DRAFT)?.parse().ok());
        let Some(process) = process.filter(|process| !is_other_process(*process)) else { continue };
        // A process of another host, or of another container, holds the lock.
        let is_unused = File::open(entry.path()).is_ok_and(|draft| draft.try_lock().is_ok());
        if is_unused && entry.file_type()?.is_dir() {
            tracing::warn!(process, path = %entry.path().display(), "what a killed backup left is removed");
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// Whether another process of this number is running here.
fn is_other_process(number: u32) -> bool {
    let process = i32::try_from(number).ok().and_then(Pid::from_raw);
    number != std::process::id() && process.is_some_and(|process| test_kill_process(process) != Err(Errno::SRCH))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
