//! A copy of a store in one file of SQLite, whatever database the store is in.

use super::copying::{CopyError, copy};
use super::database::blocking;
use super::location::Location;
use super::sqlite;
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

/// A directory of its own for what is not complete yet, and for what SQLite puts beside a file.
struct Draft(PathBuf);

impl Draft {
    fn beside(path: &Path) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let directory = parent(path).join(format!(".mini-tracker-backup.{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&directory)?;
        Ok(Self(directory))
    }

    fn file(&self) -> PathBuf {
        self.0.join("tracker.db")
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
        // What stays behind has a name that says what it was.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
