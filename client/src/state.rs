//! What the client keeps between runs: shares, downloads and the deployment's key, in SQLite.
//!
//! The session's token is not among it. Rows are keyed by deployment and user, so one data directory serves
//! several of each. Calls block for as long as the disk does; the node makes them off the network's threads.

use mini_torrent_common::control::ListingId;
use mini_torrent_common::hash::{GroupId, InfoHash, Sha1Hash, Sha256Hash};
use mini_torrent_common::names::{FileName, GroupName};
use mini_torrent_common::tls::Fingerprint;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::disk::FileStamp;

mod foreign;

pub(crate) use foreign::ForeignDownload;

mod migrations {
    refinery::embed_migrations!("migrations");
}

/// A file that this client serves to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) file: SharedFile,
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// How it looked when it was hashed.
    pub(crate) stamp: FileStamp,
    /// Whether the tracker has acknowledged it.
    pub(crate) registered: bool,
}

/// A listed file, as far as a client remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedFile {
    pub(crate) listing: ListingId,
    pub(crate) group_id: GroupId,
    pub(crate) group: GroupName,
    pub(crate) name: FileName,
    pub(crate) info_hash: InfoHash,
    /// Length in bytes.
    pub(crate) size: u64,
    pub(crate) sha1: Sha1Hash,
    pub(crate) sha256: Sha256Hash,
}

impl SharedFile {
    /// Whether the file has this name in a group of this name.
    pub(crate) fn is_named(&self, group: &GroupName, name: &FileName) -> bool {
        self.group.key() == group.key() && self.name.key() == name.key()
    }
}

/// A file that this client fetches or fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Download {
    /// Its place in the order of starting.
    pub(crate) id: i64,
    pub(crate) file: SharedFile,
    pub(crate) destination: PathBuf,
    /// Whether a file at the destination may be replaced.
    pub(crate) replace: bool,
    pub(crate) state: DownloadState,
    /// Why it failed.
    pub(crate) reason: Option<String>,
    /// The bitfield of pieces that are on disk, as last told.
    pub(crate) verified: Vec<u8>,
    /// Which partial file this download made.
    pub(crate) part_inode: Option<u64>,
    /// When it was started, in milliseconds since the Unix epoch.
    pub(crate) started_ms: u64,
}

/// Where a download stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DownloadState {
    /// It runs, or waits for a seeder or a login.
    Downloading,
    /// It is complete.
    Complete,
    /// It failed for good.
    Failed,
}

impl DownloadState {
    /// The letter that users see.
    pub(crate) fn letter(self) -> &'static str {
        match self {
            Self::Downloading => "D",
            Self::Complete => "C",
            Self::Failed => "F",
        }
    }

    fn from_letter(letter: &str) -> Self {
        match letter {
            "C" => Self::Complete,
            "F" => Self::Failed,
            _ => Self::Downloading,
        }
    }
}

/// Whose rows: a user of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccountKey {
    pub(crate) deployment: Fingerprint,
    /// The account's name in the form that makes names the same.
    pub(crate) user: String,
}

/// The open database.
#[derive(Debug)]
pub(crate) struct State {
    connection: Connection,
}

/// What went wrong with the database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// SQLite refused.
    #[error("the local state: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The schema is not ours or newer than this program.
    #[error("the local state: {0}")]
    Migration(#[from] refinery::Error),
}

const SHARED_FILE: &str = "listing, group_id, group_name, file_name, info_hash, size, sha1, sha256";

impl State {
    /// Opens or creates the database of a data directory that the caller has locked.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, StateError> {
        let mut connection = Connection::open(data_dir.join("state.db"))?;
        connection.busy_timeout(Duration::from_secs(5))?;
        // Nobody else has the directory; so nothing is locked and unlocked for each transaction.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        migrations::migrations::runner().run(&mut connection)?;
        Ok(Self { connection })
    }

    /// The key that was pinned for any of these addresses.
    pub(crate) fn pin(&self, addresses: &[String]) -> Result<Option<Fingerprint>, StateError> {
        let mut query = self.connection.prepare_cached("SELECT deployment FROM pins WHERE address = ?1")?;
        for address in addresses {
            let pin = query.query_row([address], |row| row.get::<_, [u8; 32]>(0)).optional()?;
            if let Some(pin) = pin {
                return Ok(Some(Fingerprint(Sha256Hash(pin))));
            }
        }
        Ok(None)
    }

    /// Pins the deployment's key for all these addresses.
    pub(crate) fn set_pin(&mut self, addresses: &[String], pin: Fingerprint) -> Result<(), StateError> {
        let statement = "INSERT INTO pins (address, deployment) VALUES (?1, ?2)
             ON CONFLICT (address) DO UPDATE SET deployment = excluded.deployment";
        self.in_transaction(|state| {
            addresses.iter().try_for_each(|address| state.change(statement, params![address, pin.0.as_bytes()]))
        })
    }

    /// Keeps a raw `info` dictionary.
    fn put_info(&self, info_hash: InfoHash, raw: &[u8]) -> Result<(), StateError> {
        self.change(
            "INSERT INTO infos (info_hash, raw) VALUES (?1, ?2) ON CONFLICT (info_hash) DO NOTHING",
            params![info_hash.as_bytes(), raw],
        )
    }

    /// Runs a statement that is run often.
    fn change(&self, statement: &str, values: impl rusqlite::Params) -> Result<(), StateError> {
        self.connection.prepare_cached(statement)?.execute(values)?;
        Ok(())
    }

    /// A raw `info` dictionary that was kept.
    pub(crate) fn info(&self, info_hash: InfoHash) -> Result<Option<Vec<u8>>, StateError> {
        let mut query = self.connection.prepare_cached("SELECT raw FROM infos WHERE info_hash = ?1")?;
        Ok(query.query_row([info_hash.as_bytes()], |row| row.get(0)).optional()?)
    }

    /// Drops the dictionaries that nothing refers to any more.
    pub(crate) fn drop_unused_infos(&mut self) -> Result<(), StateError> {
        self.connection.execute(
            "DELETE FROM infos WHERE info_hash NOT IN (SELECT info_hash FROM shares)
             AND info_hash NOT IN (SELECT info_hash FROM downloads)",
            [],
        )?;
        Ok(())
    }

    /// All shares of a user.
    pub(crate) fn shares(&self, account: &AccountKey) -> Result<Vec<Share>, StateError> {
        let query = format!(
            "SELECT {SHARED_FILE}, path, modified_ns, inode, registered FROM shares
             WHERE deployment = ?1 AND user = ?2 ORDER BY listing"
        );
        let mut query = self.connection.prepare(&query)?;
        let rows = query.query_map(params![account.deployment.0.as_bytes(), account.user], |row| {
            let file = shared_file(row)?;
            let stamp = FileStamp { size: file.size, modified_ns: row.get(9)?, inode: to_u64(row.get(10)?) };
            Ok(Share { file, path: path_of(row.get(8)?), stamp, registered: row.get(11)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Adds a share with its raw `info` dictionary, or replaces the one of the same listing.
    pub(crate) fn add_share(&mut self, account: &AccountKey, share: &Share, raw_info: &[u8]) -> Result<(), StateError> {
        self.in_transaction(|state| {
            state.put_info(share.file.info_hash, raw_info)?;
            state.put_share(account, share)
        })
    }

    /// Writes a share that is there anew.
    pub(crate) fn put_share(&self, account: &AccountKey, share: &Share) -> Result<(), StateError> {
        let file = &share.file;
        self.change(
            &format!(
                "INSERT OR REPLACE INTO shares (deployment, user, {SHARED_FILE}, path, modified_ns, inode, registered)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"
            ),
            params![
                account.deployment.0.as_bytes(),
                account.user,
                to_i64(file.listing.0),
                file.group_id.as_bytes(),
                file.group.as_str(),
                file.name.as_str(),
                file.info_hash.as_bytes(),
                to_i64(file.size),
                file.sha1.as_bytes(),
                file.sha256.as_bytes(),
                share.path.as_os_str().as_bytes(),
                share.stamp.modified_ns,
                to_i64(share.stamp.inode),
                share.registered,
            ],
        )
    }

    /// Removes a share.
    pub(crate) fn remove_share(&mut self, account: &AccountKey, listing: ListingId) -> Result<(), StateError> {
        let statement = "DELETE FROM shares WHERE deployment = ?1 AND user = ?2 AND listing = ?3";
        let values = params![account.deployment.0.as_bytes(), account.user, to_i64(listing.0)];
        self.connection.execute(statement, values)?;
        Ok(())
    }

    /// All downloads of a user in the order of starting.
    pub(crate) fn downloads(&self, account: &AccountKey) -> Result<Vec<Download>, StateError> {
        let query = format!(
            "SELECT {SHARED_FILE}, id, destination, replace, state, reason, verified, started_ms, part_inode
             FROM downloads
             WHERE deployment = ?1 AND user = ?2 ORDER BY id"
        );
        let mut query = self.connection.prepare(&query)?;
        let rows = query.query_map(params![account.deployment.0.as_bytes(), account.user], |row| {
            Ok(Download {
                file: shared_file(row)?,
                id: row.get(8)?,
                destination: path_of(row.get(9)?),
                replace: row.get(10)?,
                state: DownloadState::from_letter(&row.get::<_, String>(11)?),
                reason: row.get(12)?,
                verified: row.get(13)?,
                started_ms: to_u64(row.get(14)?),
                part_inode: row.get::<_, Option<i64>>(15)?.map(to_u64),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Adds a download with its raw `info` dictionary, in the place of an earlier one of the same listing; returns its
    /// number.
    pub(crate) fn add_download(
        &mut self,
        account: &AccountKey,
        download: &Download,
        raw_info: &[u8],
    ) -> Result<i64, StateError> {
        self.in_transaction(|state| {
            state.put_info(download.file.info_hash, raw_info)?;
            state.put_download(account, download)?;
            Ok(state.connection.last_insert_rowid())
        })
    }

    fn put_download(&self, account: &AccountKey, download: &Download) -> Result<(), StateError> {
        let file = &download.file;
        self.change(
            "DELETE FROM downloads WHERE deployment = ?1 AND user = ?2 AND listing = ?3",
            params![account.deployment.0.as_bytes(), account.user, to_i64(file.listing.0)],
        )?;
        self.change(
            &format!(
                "INSERT INTO downloads (deployment, user, {SHARED_FILE}, destination, replace, state, reason, verified,
                 started_ms, part_inode)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)"
            ),
            params![
                account.deployment.0.as_bytes(),
                account.user,
                to_i64(file.listing.0),
                file.group_id.as_bytes(),
                file.group.as_str(),
                file.name.as_str(),
                file.info_hash.as_bytes(),
                to_i64(file.size),
                file.sha1.as_bytes(),
                file.sha256.as_bytes(),
                download.destination.as_os_str().as_bytes(),
                download.replace,
                download.state.letter(),
                download.reason,
                download.verified,
                to_i64(download.started_ms),
                download.part_inode.map(to_i64),
            ],
        )
    }

    /// Writes where a download stands.
    pub(crate) fn update_download(&self, download: &Download) -> Result<(), StateError> {
        self.change(
            "UPDATE downloads SET state = ?2, reason = ?3, verified = ?4, part_inode = ?5 WHERE id = ?1",
            params![
                download.id,
                download.state.letter(),
                download.reason,
                download.verified,
                download.part_inode.map(to_i64)
            ],
        )
    }

    /// Writes where downloads stand and shares that are there anew, in one transaction.
    pub(crate) fn update_all<'a>(
        &mut self,
        downloads: impl IntoIterator<Item = &'a Download>,
        account: Option<&AccountKey>,
        shares: impl IntoIterator<Item = &'a Share>,
    ) -> Result<(), StateError> {
        self.in_transaction(|state| {
            downloads.into_iter().try_for_each(|download| state.update_download(download))?;
            let Some(account) = account else { return Ok(()) };
            shares.into_iter().try_for_each(|share| state.put_share(account, share))
        })
    }

    fn in_transaction<T>(&mut self, write: impl FnOnce(&Self) -> Result<T, StateError>) -> Result<T, StateError> {
        self.change("BEGIN IMMEDIATE", [])?;
        let done = write(self).and_then(|value| self.change("COMMIT", []).map(|()| value));
        if done.is_err() {
            // A failed statement may have ended the transaction already.
            let _ = self.change("ROLLBACK", []);
        }
        done
    }

    /// A download is complete and shared from now on: both in one transaction.
    pub(crate) fn complete_download(
        &mut self,
        account: &AccountKey,
        download: &Download,
        share: &Share,
    ) -> Result<(), StateError> {
        self.in_transaction(|state| {
            state.update_download(download)?;
            state.put_share(account, share)
        })
    }

    /// Removes a download.
    pub(crate) fn remove_download(&mut self, id: i64) -> Result<(), StateError> {
        self.connection.execute("DELETE FROM downloads WHERE id = ?1", [id])?;
        Ok(())
    }
}

/// The columns of [`SHARED_FILE`], which come first in every row.
fn shared_file(row: &Row<'_>) -> rusqlite::Result<SharedFile> {
    let name = |index: usize| row.get::<_, String>(index);
    let bad = |index: usize| rusqlite::Error::InvalidColumnType(index, "name".into(), rusqlite::types::Type::Text);
    Ok(SharedFile {
        listing: ListingId(to_u64(row.get(0)?)),
        group_id: GroupId(row.get(1)?),
        group: name(2)?.parse().map_err(|_| bad(2))?,
        name: name(3)?.parse().map_err(|_| bad(3))?,
        info_hash: InfoHash(row.get(4)?),
        size: to_u64(row.get(5)?),
        sha1: Sha1Hash(row.get(6)?),
        sha256: Sha256Hash(row.get(7)?),
    })
}

fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&bytes))
}

/// SQLite has only signed integers; the bits are kept.
fn to_i64(n: u64) -> i64 {
    n.cast_signed()
}

fn to_u64(n: i64) -> u64 {
    n.cast_unsigned()
}

#[cfg(test)]
mod tests;
