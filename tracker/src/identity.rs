//! The deployment's key: 32 secret bytes in a file of their own, never in the database.

use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::tls::{Fingerprint, Identity, SEED_LENGTH};
use rand::RngExt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const FILE_NAME: &str = "identity.key";

/// Why there is no key to serve with.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is not 32 bytes long.
    #[error("{}: not a key file of 32 bytes", .0.display())]
    Malformed(PathBuf),
    /// Others may read the file.
    #[error("{}: others may read this secret; do: chmod 600 {}", .0.display(), .0.display())]
    Exposed(PathBuf),
    /// The store was founded with another key.
    #[error(
        "{}: this is the key {found}, but the database belongs to the deployment {expected}; \
         copy that deployment's identity.key here", path.display()
    )]
    Another {
        /// The file.
        path: PathBuf,
        /// Its key.
        found: Fingerprint,
        /// The store's key.
        expected: Fingerprint,
    },
    /// The store was founded with a key that is not here.
    #[error(
        "{}: missing, but the database belongs to the deployment {expected}; \
         copy that deployment's identity.key here", path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// The store's key.
        expected: Fingerprint,
    },
}

impl IdentityError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Another { .. } | Self::Missing { .. } => ErrorCode::TrackerKeyChanged,
            _ => ErrorCode::Io,
        }
    }
}

/// Reads the key file. A deployment without a key yet gets a new one; the caller sees to it that no other
/// tracker does the same now.
///
/// # Errors
/// When the file cannot be used or is not the key that the store knows.
pub(crate) fn load_or_create(directory: &Path, known: Option<Fingerprint>) -> Result<Identity, IdentityError> {
    let path = directory.join(FILE_NAME);
    let failed = |error| IdentityError::Io { path: path.clone(), error };
    let seed = match (File::open(&path), known) {
        (Ok(file), _) => read_seed(file, &path)?,
        (Err(error), None) if error.kind() == io::ErrorKind::NotFound => create(directory, &path).map_err(failed)?,
        (Err(error), Some(expected)) if error.kind() == io::ErrorKind::NotFound => {
            return Err(IdentityError::Missing { path, expected });
        }
        (Err(error), _) => return Err(failed(error)),
    };
    let identity = Identity::from_seed(&seed).map_err(|_| IdentityError::Malformed(path.clone()))?;
    check(directory, identity.public().fingerprint(), known)?;
    Ok(identity)
}

/// Whether our key is the one that the store knows, if it knows one.
///
/// # Errors
/// When it is another one.
pub(crate) fn check(directory: &Path, found: Fingerprint, known: Option<Fingerprint>) -> Result<(), IdentityError> {
    match known {
        Some(expected) if expected != found => {
            Err(IdentityError::Another { path: directory.join(FILE_NAME), found, expected })
        }
        _ => Ok(()),
    }
}

fn read_seed(mut file: File, path: &Path) -> Result<Zeroizing<[u8; SEED_LENGTH]>, IdentityError> {
    let failed = |error| IdentityError::Io { path: path.into(), error };
    let metadata = file.metadata().map_err(failed)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(IdentityError::Exposed(path.into()));
    }
    if metadata.len() != SEED_LENGTH as u64 {
        return Err(IdentityError::Malformed(path.into()));
    }
    let mut seed = Zeroizing::new([0; SEED_LENGTH]);
    file.read_exact(seed.as_mut()).map_err(failed)?;
    Ok(seed)
}

/// Written whole under another name first, so that a crash leaves no half key. A hard link does not replace.
fn create(directory: &Path, path: &Path) -> io::Result<Zeroizing<[u8; SEED_LENGTH]>> {
    let seed: Zeroizing<[u8; SEED_LENGTH]> = Zeroizing::new(rand::rng().random());
    let draft = directory.join(format!("{FILE_NAME}.{}", std::process::id()));
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(seed.as_ref())?;
    file.sync_all()?;
    fs::hard_link(&draft, path)?;
    fs::remove_file(&draft)?;
    File::open(directory)?.sync_all()?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_private_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let first = load_or_create(directory.path(), None).unwrap().public();
        let mode = fs::metadata(directory.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(load_or_create(directory.path(), Some(first.fingerprint())).unwrap().public(), first);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_store_of_another_key_is_refused_and_so_is_a_lost_one() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let known = load_or_create(one.path(), None).unwrap().public().fingerprint();
        let lost = load_or_create(other.path(), Some(known)).unwrap_err();
        assert!(matches!(lost, IdentityError::Missing { .. }) && lost.code() == ErrorCode::TrackerKeyChanged);
        load_or_create(other.path(), None).unwrap();
        assert!(matches!(load_or_create(other.path(), Some(known)), Err(IdentityError::Another { .. })));
    }

    #[test]
    fn an_exposed_or_short_key_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        load_or_create(directory.path(), None).unwrap();
        let path = directory.path().join(FILE_NAME);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(load_or_create(directory.path(), None), Err(IdentityError::Exposed(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"short").unwrap();
        assert!(matches!(load_or_create(directory.path(), None), Err(IdentityError::Malformed(_))));
    }
}
