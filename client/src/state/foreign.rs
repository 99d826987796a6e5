//! Downloads from foreign trackers, as they are kept.

use bytes::Bytes;
use mini_torrent_common::address::Endpoint;
use mini_torrent_common::hash::InfoHash;
use mini_torrent_common::names::FileName;
use rusqlite::{Row, params};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{DownloadState, State, StateError, path_of, to_i64, to_u64};
use crate::disk::FileStamp;

/// A file that this client fetches, or fetched and now seeds, by a `.torrent` or a magnet link.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ForeignDownload {
    pub(crate) info_hash: InfoHash,
    /// Until the metadata is known: what the link suggests.
    pub(crate) name: FileName,
    /// Length in bytes; 0 until the metadata is known.
    pub(crate) size: u64,
    /// The raw `info` dictionary; not yet known of a magnet link.
    pub(crate) raw_info: Option<Bytes>,
    /// Tracker URLs in tiers (BEP 12).
    pub(crate) tiers: Vec<Vec<String>>,
    /// Peers that a magnet link names.
    pub(crate) peers: Vec<Endpoint>,
    /// The finished file, or what was typed while the metadata is not known.
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
    /// How the finished file looked.
    pub(crate) stamp: Option<FileStamp>,
    /// When it was started, in milliseconds since the Unix epoch.
    pub(crate) started_ms: u64,
}

impl fmt::Debug for ForeignDownload {
    /// Without the URLs: they may carry a member's announce key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ForeignDownload({}, {:?}, {:?})", self.info_hash, self.name, self.state)
    }
}

const COLUMNS: &str = "info_hash, file_name, size, raw_info, tiers, peers, destination, replace, state, reason, \
                       verified, part_inode, modified_ns, inode, started_ms";

impl State {
    /// All foreign downloads in the order of starting.
    pub(crate) fn foreign_downloads(&self) -> Result<Vec<ForeignDownload>, StateError> {
        let query = format!("SELECT {COLUMNS} FROM foreign_downloads ORDER BY started_ms, rowid");
        let mut query = self.connection.prepare(&query)?;
        let rows = query.query_map([], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Adds a foreign download, or replaces the one of the same info-hash.
    pub(crate) fn put_foreign(&mut self, download: &ForeignDownload) -> Result<(), StateError> {
        let stamp = download.stamp;
        self.connection.execute(
            &format!(
                "INSERT OR REPLACE INTO foreign_downloads ({COLUMNS})
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)"
            ),
            params![
                download.info_hash.as_bytes(),
                download.name.as_str(),
                to_i64(download.size),
                download.raw_info.as_deref(),
                write_tiers(&download.tiers),
                download.peers.iter().map(|peer| format!("{peer}\n")).collect::<String>(),
                download.destination.as_os_str().as_bytes(),
                download.replace,
                download.state.letter(),
                download.reason,
                download.verified,
                download.part_inode.map(to_i64),
                stamp.map(|stamp| stamp.modified_ns),
                stamp.map(|stamp| to_i64(stamp.inode)),
                to_i64(download.started_ms),
            ],
        )?;
        Ok(())
    }

    /// Writes where a foreign download stands; its metadata stays.
    pub(crate) fn update_foreign(&mut self, download: &ForeignDownload) -> Result<(), StateError> {
        let stamp = download.stamp;
        self.connection.execute(
            "UPDATE foreign_downloads SET state = ?2, reason = ?3, verified = ?4, part_inode = ?5, modified_ns = ?6,
             inode = ?7 WHERE info_hash = ?1",
            params![
                download.info_hash.as_bytes(),
                download.state.letter(),
                download.reason,
                download.verified,
                download.part_inode.map(to_i64),
                stamp.map(|stamp| stamp.modified_ns),
                stamp.map(|stamp| to_i64(stamp.inode)),
            ],
        )?;
        Ok(())
    }

    /// Removes a foreign download.
    pub(crate) fn remove_foreign(&mut self, info_hash: InfoHash) -> Result<(), StateError> {
        self.connection.execute("DELETE FROM foreign_downloads WHERE info_hash = ?1", [info_hash.as_bytes()])?;
        Ok(())
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<ForeignDownload> {
    let bad = |_| rusqlite::Error::InvalidColumnType(1, "file_name".into(), rusqlite::types::Type::Text);
    let size = to_u64(row.get(2)?);
    let stamp = match (row.get::<_, Option<i64>>(12)?, row.get::<_, Option<i64>>(13)?) {
        (Some(modified_ns), Some(inode)) => Some(FileStamp { size, modified_ns, inode: to_u64(inode) }),
        _ => None,
    };
    Ok(ForeignDownload {
        info_hash: InfoHash(row.get(0)?),
        name: row.get::<_, String>(1)?.parse().map_err(bad)?,
        size,
        raw_info: row.get::<_, Option<Vec<u8>>>(3)?.map(Bytes::from),
        tiers: read_tiers(&row.get::<_, String>(4)?),
        peers: row.get::<_, String>(5)?.lines().filter_map(|line| line.parse().ok()).collect(),
        destination: path_of(row.get(6)?),
        replace: row.get(7)?,
        state: DownloadState::from_letter(&row.get::<_, String>(8)?),
        reason: row.get(9)?,
        verified: row.get(10)?,
        part_inode: row.get::<_, Option<i64>>(11)?.map(to_u64),
        stamp,
        started_ms: to_u64(row.get(14)?),
    })
}

/// URLs are visible ASCII, so that lines divide them.
fn write_tiers(tiers: &[Vec<String>]) -> String {
    tiers.iter().map(|tier| tier.join("\n")).collect::<Vec<_>>().join("\n\n")
}

fn read_tiers(text: &str) -> Vec<Vec<String>> {
    let tiers = text.split("\n\n").filter(|tier| !tier.is_empty());
    tiers.map(|tier| tier.lines().map(str::to_owned).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn download(byte: u8) -> ForeignDownload {
        ForeignDownload {
            info_hash: InfoHash([byte; 20]),
            name: "Grüße #1.iso".parse().unwrap(),
            size: u64::MAX,
            raw_info: Some(Bytes::from_static(b"d1:ae")),
            tiers: vec![vec!["http://a/x".into(), "udp://b:1".into()], vec!["http://c/".into()]],
            peers: vec!["[::1]:5".parse().unwrap(), "h.example:6".parse().unwrap()],
            destination: PathBuf::from("/d/f"),
            replace: true,
            state: DownloadState::Downloading,
            reason: None,
            verified: vec![0x80],
            part_inode: Some(u64::MAX),
            stamp: None,
            started_ms: 7,
        }
    }

    #[test]
    fn foreign_downloads_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open(dir.path()).unwrap();
        let magnet =
            ForeignDownload { raw_info: None, tiers: vec![], peers: vec![], size: 0, started_ms: 3, ..download(2) };
        state.put_foreign(&download(1)).unwrap();
        state.put_foreign(&magnet).unwrap();
        drop(state);
        let mut state = State::open(dir.path()).unwrap();
        assert_eq!(state.foreign_downloads().unwrap(), [magnet, download(1)]);
        let stamp = FileStamp { size: u64::MAX, modified_ns: -5, inode: u64::MAX };
        let complete = ForeignDownload { state: DownloadState::Complete, stamp: Some(stamp), ..download(1) };
        state.update_foreign(&complete).unwrap();
        state.remove_foreign(InfoHash([2; 20])).unwrap();
        assert_eq!(state.foreign_downloads().unwrap(), [complete]);
    }

    #[test]
    fn a_key_in_a_url_is_not_shown() {
        assert!(!format!("{:?}", download(1)).contains("http"));
    }
}
