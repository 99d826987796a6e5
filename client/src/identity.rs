//! The client's key: drawn once, kept in a file that only its user can read.

use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::PeerId;
use mini_torrent_common::tls::{Identity, SEED_LENGTH};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use zeroize::Zeroizing;

use crate::settings::StartError;

/// How our peer ids begin (BEP 20): program and version.
const PEER_ID_PREFIX: &[u8; 8] = b"-MT0100-";

/// A data directory that no other client uses.
#[derive(Debug)]
pub(crate) struct LockedDir {
    /// The lock ends when the file is closed.
    _lock: File,
}

/// Creates the data directory, readable by its user alone, and takes its lock.
pub(crate) fn lock_data_dir(path: &Path) -> Result<LockedDir, StartError> {
    let io_error = |error| StartError::io(path, &error);
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error)?;
    make_private(path)?;
    let lock = File::options().write(true).create(true).truncate(false).mode(0o600).open(path.join("lock"));
    let lock = lock.map_err(io_error)?;
    match lock.try_lock() {
        Ok(()) => Ok(LockedDir { _lock: lock }),
        Err(std::fs::TryLockError::WouldBlock) => {
            let text = format!("another client uses {}; choose another with --data-dir", path.display());
            Err(StartError::new(ErrorCode::DataDirInUse, text))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(io_error(error)),
    }
}

/// Keys, state and log are nobody else's business, even in a directory that was there before.
fn make_private(path: &Path) -> Result<(), StartError> {
    let metadata = std::fs::metadata(path).map_err(|error| StartError::io(path, &error))?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        let text = format!("{} belongs to another user; choose another with --data-dir", path.display());
        return Err(StartError::new(ErrorCode::Io, text));
    }
    if metadata.mode() & 0o077 != 0 {
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(path, private).map_err(|error| StartError::io(path, &error))?;
    }
    Ok(())
}

/// Reads the key of a data directory, or draws one at the first start.
pub(crate) fn load_identity(data_dir: &Path) -> Result<Identity, StartError> {
    let path = data_dir.join("identity.key");
    let seed = read_or_draw(&path).map_err(|error| StartError::io(&path, &error))?;
    Identity::from_seed(&seed).map_err(|error| StartError::new(ErrorCode::Internal, error.to_string()))
}

fn read_or_draw(path: &Path) -> io::Result<Zeroizing<[u8; SEED_LENGTH]>> {
    let mut seed = Zeroizing::new([0; SEED_LENGTH]);
    match File::open(path) {
        Ok(mut file) => file.read_exact(&mut seed[..])?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            *seed = rand::random();
            // Under its final name it is always whole, wherever a crash comes.
            let draft = path.with_extension("new");
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(&seed[..])?;
            file.sync_all()?;
            std::fs::rename(draft, path)?;
        }
        Err(error) => return Err(error),
    }
    Ok(seed)
}

/// A name in swarms for this run.
pub(crate) fn draw_peer_id() -> PeerId {
    let mut id: [u8; PeerId::LENGTH] = rand::random();
    id[..PEER_ID_PREFIX.len()].copy_from_slice(PEER_ID_PREFIX);
    PeerId(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stays_and_is_readable_by_its_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("new/data");
        let lock = lock_data_dir(&data_dir).unwrap();
        let first = load_identity(&data_dir).unwrap();
        assert_eq!(load_identity(&data_dir).unwrap().public(), first.public());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data_dir.join("identity.key")), 0o600);
        assert_eq!(mode(&data_dir), 0o700);
        assert_eq!(lock_data_dir(&data_dir).unwrap_err().code, ErrorCode::DataDirInUse);
        drop(lock);
        std::fs::set_permissions(&data_dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(lock_data_dir(&data_dir).is_ok());
        assert_eq!(mode(&data_dir), 0o700, "open to others before");
    }
}
