//! Fetching by what somebody handed over: a .mtorrent of ours, or a .torrent or magnet link of any tracker.

use bytes::Bytes;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::InfoHash;
use mini_torrent_common::magnet::Magnet;
use mini_torrent_common::metainfo::Info;
use mini_torrent_common::names::FileName;
use mini_torrent_common::torrent::{MAX_LENGTH, Torrent};
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use tokio::task::spawn_blocking;

use super::Context;
use super::public::is_mtorrent;
use crate::announce::check_urls;
use crate::disk::{Destination, FileStamp, check_pieces, open_regular};
use crate::error::CommandError;
use crate::node::check_foreign;
use crate::output::{Outcome, Reply, show_path};
use crate::state::{DownloadState, ForeignDownload};

/// How a magnet link begins.
const MAGNET: &str = "magnet:";

impl Context {
    pub(super) async fn get(&self, source: &str, destination: &Path, force: bool) -> Outcome {
        let path = Path::new(source);
        if source.get(..MAGNET.len()).is_some_and(|start| start.eq_ignore_ascii_case(MAGNET)) {
            self.get_by_magnet(source, destination, force).await
        } else if is_mtorrent(path) {
            self.get_by_mtorrent(path, destination, force).await
        } else {
            self.get_by_torrent(path, destination, force).await
        }
    }

    async fn get_by_torrent(&self, path: &Path, destination: &Path, force: bool) -> Outcome {
        let bytes = read_bounded(path, MAX_LENGTH)?;
        let torrent = Torrent::decode(&bytes).map_err(|error| invalid(&format!("{error} ({})", path.display())))?;
        let info = torrent.info();
        check_foreign(info)?;
        check_urls(torrent.tiers()).map_err(|error| invalid(&format!("{} ({})", error.message, path.display())))?;
        let resolved = Destination::resolve(destination, &info.name)?;
        let stamp = look_at(&resolved, info, force).await?;
        let download = ForeignDownload {
            size: info.geometry.length(),
            raw_info: Some(Bytes::copy_from_slice(torrent.raw_info())),
            tiers: torrent.tiers().to_vec(),
            ..begun(torrent.info_hash(), info.name.clone(), resolved.path().to_owned(), force)
        };
        let state = if stamp.is_some() { DownloadState::Complete } else { DownloadState::Downloading };
        self.node.start_foreign(ForeignDownload { stamp, state, ..download }).await?;
        let text = match stamp {
            Some(_) => format!("{} is complete: {} has the same content", info.name, show_path(resolved.path())),
            None => format!("downloading {}", info.name),
        };
        Ok(reply(text, &info.name, resolved.path()))
    }

    async fn get_by_magnet(&self, link: &str, destination: &Path, force: bool) -> Outcome {
        let magnet: Magnet = link.parse().map_err(|error| invalid(&format!("{error}")))?;
        if magnet.peers.is_empty() {
            check_urls(std::slice::from_ref(&magnet.trackers))?;
        }
        let suggested = magnet.name.as_deref().and_then(|name| name.parse().ok());
        let by_hash = || magnet.info_hash.to_string().parse::<FileName>();
        let name = suggested.map_or_else(by_hash, Ok).map_err(|error| invalid(&error.to_string()))?;
        // Fails now rather than when the metadata is there.
        Destination::resolve(destination, &name)?;
        let typed = std::path::absolute(destination).map_err(|error| CommandError::io(destination, &error))?;
        // Links do not tell which tracker comes first: each is a tier of its own.
        let tiers = magnet.trackers.into_iter().map(|url| vec![url]).collect();
        let begun = begun(magnet.info_hash, name.clone(), typed.clone(), force);
        let download = ForeignDownload { tiers, peers: magnet.peers, ..begun };
        self.node.start_foreign(download).await?;
        Ok(reply(format!("downloading {name}; first its metadata is fetched"), &name, &typed))
    }
}

fn reply(text: String, name: &FileName, destination: &Path) -> Reply {
    // How many seeders a foreign tracker knows is not known yet.
    let fields = json!({
        "group": Value::Null, "file": name.as_str(), "destination": destination.to_string_lossy(),
        "seeders": Value::Null,
    });
    Reply::line(text, fields)
}

fn invalid(text: &str) -> CommandError {
    CommandError::new(ErrorCode::InvalidMetainfo, text)
}

/// A download of which only this is known.
fn begun(info_hash: InfoHash, name: FileName, destination: PathBuf, replace: bool) -> ForeignDownload {
    ForeignDownload {
        info_hash,
        name,
        size: 0,
        raw_info: None,
        tiers: Vec::new(),
        peers: Vec::new(),
        destination,
        replace,
        state: DownloadState::Downloading,
        reason: None,
        verified: Vec::new(),
        part_inode: None,
        stamp: None,
        started_ms: 0,
    }
}

/// What stands at the destination: nothing, the same content (how it looks), or something else.
async fn look_at(destination: &Destination, info: &Info, force: bool) -> Result<Option<FileStamp>, CommandError> {
    if !destination.exists() {
        return Ok(None);
    }
    let (path, geometry, pieces) = (destination.path().to_owned(), info.geometry, info.pieces.clone());
    let is_file = path.is_file() && !path.is_symlink();
    if is_file {
        let checking =
            spawn_blocking(move || check_pieces(&path, geometry, |index, hash| pieces.get(index) == Some(hash)));
        if let Ok(Ok(Some(stamp))) = checking.await {
            return Ok(Some(stamp));
        }
    }
    if force && is_file {
        return Ok(None);
    }
    let path = destination.path().display();
    let text = match is_file {
        true => format!("{path} exists with other content; --force replaces it"),
        false => format!("{path} exists and is no regular file"),
    };
    Err(CommandError::new(ErrorCode::DestinationExists, text))
}

/// A whole regular file that is not longer than this.
pub(super) fn read_bounded(path: &Path, max_length: usize) -> Result<Vec<u8>, CommandError> {
    let mut bytes = Vec::new();
    let file = open_regular(path)?;
    let read = file.take(max_length as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| CommandError::io(path, &error))?;
    if bytes.len() > max_length {
        return Err(invalid(&format!("{} is longer than {max_length} bytes", path.display())));
    }
    Ok(bytes)
}
