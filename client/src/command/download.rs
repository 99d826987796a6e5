//! Fetching: download_file, show_downloads, cancel_download, wait.

use mini_torrent_common::control::{Listing, OpenedFile, Request, Response};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::InfoHash;
use mini_torrent_common::metainfo::Info;
use mini_torrent_common::names::{FileName, GroupName};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{Context, known_file, known_group};
use crate::disk::{Destination, FileStamp, Progress, digest_file, is_same_file};
use crate::error::CommandError;
use crate::node::{DownloadOrder, DownloadView};
use crate::output::{Outcome, Reply, group_json, show_group, show_path, show_size};
use crate::state::{DownloadState, SharedFile};

/// A download by its names, as typed.
type Named = (String, String);
/// A download by the keys of its names; a foreign one is of no group.
type NameKeys = (Option<String>, String);

impl Context {
    pub(super) async fn download_file(&self, group: &str, file: &str, destination: &Path, force: bool) -> Outcome {
        self.signed_in()?;
        let (group, file) = (known_group(group)?, known_file(file)?);
        let OpenedFile { listing, info } = self.open_file(&group, &file).await?;
        self.fetch(&group, listing, info, destination, force, |_| Ok(())).await
    }

    /// Starts the download of a listed file whose metadata passes the check; `info` is how that begins, as far as it is
    /// known.
    pub(super) async fn fetch(
        &self,
        group: &GroupName,
        listing: Listing,
        info: Vec<u8>,
        destination: &Path,
        force: bool,
        check: impl FnOnce(&Info) -> Result<(), CommandError>,
    ) -> Outcome {
        let resolved = Destination::resolve(destination, &listing.draft.name)?;
        self.node.check_download(listing.id, resolved.path().to_owned()).await?;
        let raw_info = self.fetch_checked_info(group, &listing, info, check).await?;
        let complete = self.look_at(&resolved, &listing, force).await?;
        let destination = resolved.path().to_owned();
        let name = listing.draft.name.clone();
        let n_seeders = listing.n_seeders;
        let order = DownloadOrder {
            file: remembered(group, listing),
            raw_info,
            destination: destination.clone(),
            replace: force,
            n_seeders,
            complete,
        };
        self.node.start_download(order).await?;
        let text = match (complete, n_seeders) {
            (Some(_), _) => format!("{name} is complete: {} has the same content", show_path(&destination)),
            (None, 0) => format!("no seeder online, waiting for {name}"),
            (None, 1) => format!("downloading {name} from 1 seeder"),
            (None, n) => format!("downloading {name} from {n} seeders"),
        };
        let fields = json!({
            "group": group.as_str(), "file": name.as_str(), "destination": destination.to_string_lossy(),
            "seeders": n_seeders,
        });
        Ok(Reply::line(text, fields))
    }

    /// The listing's raw `info` dictionary alone: read, the one of a large file is as long again.
    async fn fetch_checked_info(
        &self,
        group: &GroupName,
        listing: &Listing,
        begun: Vec<u8>,
        check: impl FnOnce(&Info) -> Result<(), CommandError>,
    ) -> Result<Vec<u8>, CommandError> {
        let (raw_info, info) = self.fetch_info(group, listing, begun).await?;
        check(&info).map(|()| raw_info)
    }

    /// A listed file.
    pub(super) async fn find_file(&self, group: &GroupName, file: &FileName) -> Result<Listing, CommandError> {
        match self.link.request(Request::FindFile { group: group.clone(), file: file.clone() }).await? {
            Response::File(listing) => Ok(listing),
            other => Err(CommandError::unexpected(other)),
        }
    }

    /// A listed file with the beginning of its metadata.
    async fn open_file(&self, group: &GroupName, file: &FileName) -> Result<OpenedFile, CommandError> {
        match self.link.request(Request::OpenFile { group: group.clone(), file: file.clone() }).await? {
            Response::Opened(opened) => Ok(opened),
            other => Err(CommandError::unexpected(other)),
        }
    }

    /// What stands at the destination: nothing, the same content (how it looks), or something else.
    async fn look_at(
        &self,
        destination: &Destination,
        listing: &Listing,
        force: bool,
    ) -> Result<Option<FileStamp>, CommandError> {
        if !destination.exists() {
            return Ok(None);
        }
        let path = destination.path().to_owned();
        let same_size = FileStamp::at(&path).is_ok_and(|stamp| stamp.size == listing.draft.size);
        let is_file = is_same_file(&path, &path) && path.is_file() && !path.is_symlink();
        if is_file && same_size {
            let digest = spawn_blocking(move || digest_file(&path, &Progress::default())).await;
            if let Ok(Ok(digest)) = digest
                && digest.sha256 == listing.draft.sha256
            {
                return Ok(Some(digest.stamp));
            }
        }
        if force && is_file {
            return Ok(None);
        }
        let text = format!("{} exists with other content; --force replaces it", destination.path().display());
        Err(CommandError::new(ErrorCode::DestinationExists, text))
    }

    /// The listing's raw `info` dictionary, checked against its info-hash and what the listing says; `begun` is how it
    /// begins, as far as that is known.
    pub(super) async fn fetch_info(
        &self,
        group: &GroupName,
        listing: &Listing,
        begun: Vec<u8>,
    ) -> Result<(Vec<u8>, Info), CommandError> {
        let draft = &listing.draft;
        let invalid = |what: &str| CommandError::new(ErrorCode::InvalidMetainfo, format!("{}: {what}", draft.name));
        let raw_info = if begun.len() as u64 == draft.info_length {
            begun
        } else if let Some(kept) = self.node.find_info(draft.info_hash).await? {
            kept
        } else {
            self.read_info(listing, begun).await?
        };
        if InfoHash::of(&raw_info) != draft.info_hash {
            return Err(invalid("the metadata does not match the info-hash"));
        }
        let info = Info::decode(&raw_info).map_err(|error| invalid(&error.to_string()))?;
        let group_fits = info.group == (!group.is_public()).then_some(listing.group);
        if info.name != draft.name || info.geometry.length() != draft.size || !group_fits {
            return Err(invalid("the metadata does not match the listing"));
        }
        Ok((raw_info, info))
    }

    async fn read_info(&self, listing: &Listing, mut raw_info: Vec<u8>) -> Result<Vec<u8>, CommandError> {
        while (raw_info.len() as u64) < listing.draft.info_length {
            let request = Request::ReadInfo { listing: listing.id, offset: raw_info.len() as u64 };
            match self.link.request(request).await? {
                Response::InfoPage(page) if !page.is_empty() => raw_info.extend(page),
                other => return Err(CommandError::unexpected(other)),
            }
        }
        Ok(raw_info)
    }

    pub(super) async fn show_downloads(&self, verbose: bool) -> Outcome {
        self.signed_in_or_downloading().await?;
        let downloads = self.node.downloads().await?;
        let mut text: Vec<String> = downloads.iter().map(|view| show(view, verbose)).collect();
        if verbose {
            text.extend(self.hashings.running().iter().map(|hashing| {
                let done = percent(hashing.progress.done_bytes(), hashing.size);
                format!("[U] [{}] {}  hashing {done} of {}", hashing.group, hashing.name, show_size(hashing.size))
            }));
        }
        if text.is_empty() {
            text.push("no downloads".to_owned());
        }
        let rows: Vec<Value> = downloads.iter().map(row).collect();
        Ok(Reply::lines(text, json!({ "downloads": rows })))
    }

    pub(super) async fn cancel_download(&self, group: &str, file: &str) -> Outcome {
        let file = known_file(file)?;
        let Some(group) = known_group_or_none(group)? else { return self.cancel_foreign(file).await };
        self.signed_in()?;
        let mut hashings = self.hashings.running().into_iter();
        match hashings.find(|h| h.group.key() == group.key() && h.name.key() == file.key()) {
            Some(hashing) => hashing.progress.cancel(),
            None => self.node.cancel_download(group.clone(), file.clone()).await?,
        }
        let fields = json!({ "group": group.as_str(), "file": file.as_str() });
        Ok(Reply::line(format!("cancelled {file} of {group}"), fields))
    }

    async fn cancel_foreign(&self, file: FileName) -> Outcome {
        self.node.cancel_foreign(file.clone()).await?;
        let fields = json!({ "group": null, "file": file.as_str() });
        Ok(Reply::line(format!("cancelled {file}"), fields))
    }

    /// Downloads of a group belong to a session; foreign ones are anybody's who uses this client.
    async fn signed_in_or_downloading(&self) -> Result<(), CommandError> {
        let signed_in = self.signed_in();
        if signed_in.is_ok() || !self.node.downloads().await?.is_empty() { Ok(()) } else { signed_in.map(|_| ()) }
    }

    /// Waits until downloads have ended: all that run now, or the named one.
    pub(super) async fn wait(&self, named: Option<Named>, patience: Option<Duration>) -> Outcome {
        let user = self.user.borrow().clone();
        if user.is_none() {
            self.signed_in_or_downloading().await?;
        }
        let mut changes = self.node.changes();
        let waited: Vec<NameKeys> = match named {
            Some((group, file)) => {
                let group = known_group_or_none(&group)?;
                vec![(group.as_ref().map(GroupName::key), known_file(&file)?.key())]
            }
            None => self.node.downloads().await?.iter().filter(|view| is_running(view)).map(names_of).collect(),
        };
        if waited.is_empty() {
            return Ok(Reply::line("no downloads are running", lists(&[])));
        }
        let running = self.node.downloads().await?;
        let running: Vec<_> =
            running.iter().filter(|v| is_running(v) && waited.contains(&names_of(v))).map(label).collect();
        if !running.is_empty() && !self.json {
            self.output.remark(format!("waiting for {}", running.join(", "))).await;
        }
        let ended = async {
            loop {
                if *self.user.borrow() != user {
                    let text = "the session ended while waiting; its downloads pause until the next login";
                    return Err(CommandError::new(ErrorCode::SessionEnded, text));
                }
                let views = self.node.downloads().await?;
                let views: Vec<_> = views.into_iter().filter(|view| waited.contains(&names_of(view))).collect();
                if !views.iter().any(is_running) {
                    return Ok(views);
                }
                // Ends only with the node.
                changes.changed().await.map_err(|_| CommandError::shutting_down())?;
            }
        };
        match timeout(patience.unwrap_or(Duration::MAX), ended).await {
            Ok(views) => judge(&views?),
            Err(_) => {
                let views = self.node.downloads().await?;
                let views: Vec<_> = views.into_iter().filter(|view| waited.contains(&names_of(view))).collect();
                let pending: Vec<_> = views.iter().filter(|view| is_running(view)).map(label).collect();
                let text = format!("still waiting for {}", pending.join(", "));
                Err(with_lists(CommandError::new(ErrorCode::TimedOut, text), &views))
            }
        }
    }
}

/// `-` stands in the place of a foreign download's group.
fn known_group_or_none(text: &str) -> Result<Option<GroupName>, CommandError> {
    if text == "-" { Ok(None) } else { known_group(text).map(Some) }
}

fn judge(views: &[DownloadView]) -> Outcome {
    if views.is_empty() {
        return Err(CommandError::new(ErrorCode::NoSuchDownload, "there is no such download"));
    }
    let failed: Vec<_> = views.iter().filter(|view| view.state == DownloadState::Failed).collect();
    if failed.is_empty() {
        let text = views.iter().map(|view| format!("{} is complete", label(view))).collect();
        return Ok(Reply::lines(text, lists(views)));
    }
    let reasons: Vec<_> = failed
        .iter()
        .map(|view| format!("{}: {}", label(view), view.status.reason.as_deref().unwrap_or("failed")))
        .collect();
    Err(with_lists(CommandError::new(ErrorCode::DownloadFailed, reasons.join("; ")), views))
}

fn with_lists(mut error: CommandError, views: &[DownloadView]) -> CommandError {
    if let Value::Object(fields) = lists(views) {
        error.fields = fields;
    }
    error
}

fn lists(views: &[DownloadView]) -> Value {
    let in_state = |state: DownloadState| {
        let these = views.iter().filter(|view| view.state == state);
        let rows = these.map(|view| json!({ "group": group_json(view.group.as_ref()), "file": view.file.as_str() }));
        rows.collect::<Vec<_>>()
    };
    json!({
        "completed": in_state(DownloadState::Complete), "failed": in_state(DownloadState::Failed),
        "pending": in_state(DownloadState::Downloading),
    })
}

fn is_running(view: &DownloadView) -> bool {
    view.state == DownloadState::Downloading
}

fn names_of(view: &DownloadView) -> NameKeys {
    (view.group.as_ref().map(GroupName::key), view.file.key())
}

fn label(view: &DownloadView) -> String {
    format!("[{}] {}", show_group(view.group.as_ref()), view.file)
}

fn remembered(group: &GroupName, listing: Listing) -> SharedFile {
    SharedFile {
        listing: listing.id,
        group_id: listing.group,
        group: group.clone(),
        name: listing.draft.name,
        info_hash: listing.draft.info_hash,
        size: listing.draft.size,
        sha1: listing.draft.sha1,
        sha256: listing.draft.sha256,
    }
}

fn show(view: &DownloadView, verbose: bool) -> String {
    let status = &view.status;
    let mut line = format!("[{}] {}", view.state.letter(), label(view));
    if !verbose {
        return line;
    }
    let size = view.size;
    match view.state {
        DownloadState::Complete => line += &format!("  {}, {}", show_size(size), show_path(&view.destination)),
        DownloadState::Downloading => {
            let (down, up) = (show_size(status.download_bytes_per_s), show_size(status.upload_bytes_per_s));
            let done = percent(status.done_bytes, size);
            line += &format!("  {done} of {}, {down}/s down, {up}/s up, {} peers", show_size(size), status.n_peers);
        }
        DownloadState::Failed => {}
    }
    if let Some(reason) = &status.reason {
        line += &format!("  ({})", mini_torrent_common::escape::Escaped(reason));
    }
    line
}

fn percent(part: u64, whole: u64) -> String {
    // A hundredth of a percent is all that is shown.
    format!("{:.1}%", part as f64 * 100.0 / whole.max(1) as f64)
}

fn row(view: &DownloadView) -> Value {
    let status = &view.status;
    json!({
        "group": group_json(view.group.as_ref()), "file": view.file.as_str(), "state": view.state.letter(),
        "size": view.size, "done_bytes": status.done_bytes, "rate_bytes_per_s": status.download_bytes_per_s,
        "peers": status.n_peers, "destination": view.destination.to_string_lossy(), "reason": status.reason,
    })
}
