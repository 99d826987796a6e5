//! The node's downloads: starting, watching, completing and ending them.

use mini_torrent_common::control::{Announcement, ListingId, Presence, RefusedAnnouncement};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::InfoHash;
use mini_torrent_common::metainfo::Info;
use mini_torrent_common::names::{FileName, GroupName};
use std::path::{Path, PathBuf};
use tokio::task::{block_in_place, spawn_blocking};

use super::announcer::Announce;
use super::foreign::ForeignEntry;
use super::owner::{Owner, ShareEntry, now_ms, state_error};
use super::{Answer, BUFFER_BYTES, DownloadOrder, DownloadView, MIN_BUFFER_BYTES, is_running};
use crate::disk::{Destination, FileStamp};
use crate::error::CommandError;
use crate::output::Notice;
use crate::peer::TorrentName;
use crate::state::{Download, DownloadState, Share};
use crate::torrent::{Control, Fetch, Purpose, TorrentHandle};

impl Owner {
    /// Refuses a second download of one listing, or to one place.
    pub(super) fn check_download(&self, listing: ListingId, destination: &Path) -> Result<(), CommandError> {
        let mut running = self.downloads.values().filter(|download| is_running(download));
        match running.find(|download| download.file.listing == listing || download.destination == destination) {
            None => Ok(()),
            Some(download) => Err(CommandError::new(
                ErrorCode::AlreadyDownloading,
                format!("{} is being downloaded to {} already", download.file.name, download.destination.display()),
            )),
        }
    }

    /// Notes a download durably and starts it.
    pub(super) fn start_download(&mut self, order: DownloadOrder) -> Result<(), CommandError> {
        self.check_download(order.file.listing, &order.destination)?;
        let account = self.account.clone().ok_or_else(CommandError::shutting_down)?;
        let mut download = Download {
            id: 0,
            file: order.file,
            destination: order.destination,
            replace: order.replace,
            state: DownloadState::Downloading,
            reason: None,
            verified: Vec::new(),
            part_inode: None,
            started_ms: now_ms(),
        };
        let same = |d: &&Download| d.file.info_hash == download.file.info_hash && d.destination == download.destination;
        let unfinished = |d: &&Download| d.state == DownloadState::Failed && d.part_inode.is_some();
        // What a failed try has fetched is used, after it was checked.
        download.part_inode = self.downloads.values().filter(unfinished).find(same).and_then(|d| d.part_inode);
        let added = block_in_place(|| self.plan.state.add_download(&account, &download, &order.raw_info));
        download.id = added.map_err(state_error)?;
        self.downloads.retain(|_, earlier| earlier.file.listing != download.file.listing);
        self.downloads.insert(download.id, download.clone());
        if let Some(stamp) = order.complete {
            self.download_completed(download.file.info_hash, stamp);
            return Ok(());
        }
        if order.n_seeders == 0 {
            let (group, file) = (Some(download.file.group.clone()), download.file.name.clone());
            self.output.notice(Notice::DownloadWaiting { group, file });
        }
        let twin = self.shares.get(&download.file.listing).filter(|entry| !entry.stale);
        let twin = twin.map(|entry| (entry.share.path.clone(), entry.share.stamp));
        self.enter(&download.file);
        self.start_torrent(&download, &order.raw_info, download.part_inode.is_some(), twin);
        let listing = download.file.listing;
        match self.is_seeding(listing) {
            true => self.announce(Announce::Watch(vec![listing])),
            false => self.announce(Announce::Leech(listing)),
        }
        self.change();
        Ok(())
    }

    /// Takes up a download of an earlier session.
    pub(super) fn resume_download(&mut self, download: &Download) {
        let raw_info = block_in_place(|| self.plan.state.info(download.file.info_hash));
        match raw_info {
            Ok(raw_info) => self.start_torrent(download, &raw_info.unwrap_or_default(), true, None),
            Err(error) => self.fail_download(download.file.info_hash, &state_error(error)),
        }
    }

    /// Starts the torrent of a download. One that seeds the same content goes on beside it.
    fn start_torrent(
        &mut self,
        download: &Download,
        raw_info: &[u8],
        resumed: bool,
        twin: Option<(PathBuf, FileStamp)>,
    ) {
        let info_hash = download.file.info_hash;
        let info = match Info::decode(raw_info) {
            Ok(info) => info,
            Err(error) => {
                let error = CommandError::new(ErrorCode::InvalidMetainfo, error.to_string());
                return self.fail_download(info_hash, &error);
            }
        };
        let purpose = Purpose::Fetch(Fetch {
            hashes: info.pieces,
            sha256: Some(download.file.sha256),
            destination: download.destination.clone(),
            replace: download.replace,
            resumed,
            twin,
            piece_order: self.plan.piece_order,
        });
        let name = TorrentName { info_hash, group: Some(download.file.group_id) };
        let plan = self.torrent_plan(name, info.geometry, purpose);
        let torrent = TorrentHandle::start(plan, self.reports.clone());
        self.ending.extend(self.fetching.insert(info_hash, torrent).map(TorrentHandle::stop));
        self.share_buffer();
    }

    /// Divides what may be held in memory among the downloads, and tells them when their part changes.
    pub(super) fn share_buffer(&mut self) {
        let foreign = self.foreign.values().filter_map(ForeignEntry::fetching);
        let fetching: Vec<_> = self.fetching.values().chain(foreign).collect();
        let bytes = (BUFFER_BYTES / fetching.len().max(1) as u64).max(MIN_BUFFER_BYTES);
        if bytes != self.buffer_bytes {
            fetching.iter().for_each(|torrent| torrent.tell(Control::BufferBytes(bytes)));
            self.buffer_bytes = bytes;
        }
    }

    /// Asks for the peers of every swarm in which something is wanted.
    pub(super) fn watch_all(&mut self) {
        let running = self.downloads.values().filter(|download| is_running(download));
        let listings: Vec<_> = running.map(|download| download.file.listing).collect();
        self.announce(Announce::Watch(listings));
    }

    /// A swarm cannot be watched: for good when the file or the membership is gone.
    pub(super) fn watch_failed(&mut self, listing: ListingId, error: &CommandError) {
        if matches!(error.code, ErrorCode::NoSuchFile | ErrorCode::NotAMember | ErrorCode::NoSuchGroup) {
            self.download_refused(RefusedAnnouncement { listing, code: error.code });
        }
    }

    /// The running torrent of a download that is not complete.
    pub(super) fn torrent_of_download(&self, listing: ListingId) -> Option<&TorrentHandle> {
        let mut running = self.downloads.values().filter(|download| is_running(download));
        let download = running.find(|download| download.file.listing == listing)?;
        self.fetching.get(&download.file.info_hash)
    }

    /// The partial file of a download is open: it is the download's own.
    pub(super) fn part_opened(&mut self, info_hash: InfoHash, inode: u64) {
        let Some(download) = running_mut(&mut self.downloads, info_hash) else { return };
        download.part_inode = Some(inode);
        // Who comes back after a crash looks for it by its name.
        self.unkept.insert(download.id);
    }

    pub(super) fn download_progress(&mut self, info_hash: InfoHash, verified: &[u8]) {
        let Some(download) = running_mut(&mut self.downloads, info_hash) else { return };
        download.verified = verified.to_vec();
        self.unkept.insert(download.id);
    }

    /// A file is complete and durable: it is shared from now on.
    pub(super) fn download_completed(&mut self, info_hash: InfoHash, stamp: FileStamp) {
        let Some(account) = self.account.clone() else { return };
        let Some(download) = running_mut(&mut self.downloads, info_hash) else { return };
        download.state = DownloadState::Complete;
        download.reason = None;
        let share = Share { file: download.file.clone(), path: download.destination.clone(), stamp, registered: false };
        let download = download.clone();
        self.unkept.remove(&download.id);
        let kept = block_in_place(|| self.plan.state.complete_download(&account, &download, &share));
        self.kept("a finished download", kept);
        let listing = download.file.listing;
        self.stop_seeding(info_hash);
        // The torrent that fetched the file goes on with serving it.
        self.seeding.extend(self.fetching.remove(&info_hash).map(|torrent| (info_hash, torrent)));
        self.share_buffer();
        self.shares.insert(listing, ShareEntry { share, stale: false, ending: false });
        self.announce(Announce::Seed(listing));
        let milliseconds = now_ms().saturating_sub(download.started_ms);
        self.output.notice(Notice::DownloadCompleted {
            group: Some(download.file.group),
            file: download.file.name,
            destination: download.destination,
            sha1: Some(download.file.sha1),
            seconds: milliseconds as f64 / 1000.0,
        });
        self.change();
    }

    /// The tracker does not let a download go on.
    pub(super) fn download_refused(&mut self, RefusedAnnouncement { listing, code }: RefusedAnnouncement) {
        let mut running = self.downloads.values().filter(|download| is_running(download));
        let Some(download) = running.find(|download| download.file.listing == listing) else { return };
        let reason = match code {
            ErrorCode::NotSharing => return,
            ErrorCode::NotAMember => "not_a_member: you are not a member of the group any more",
            _ => "no_such_file: the group does not list it any more",
        };
        self.fail_download(download.file.info_hash, &CommandError::new(code, reason));
    }

    pub(super) fn fail_download(&mut self, info_hash: InfoHash, error: &CommandError) {
        let Some(download) = running_mut(&mut self.downloads, info_hash) else { return };
        download.state = DownloadState::Failed;
        download.reason = Some(error.message.clone());
        let kept = block_in_place(|| self.plan.state.update_download(download));
        let (group, file) = (Some(download.file.group.clone()), download.file.name.clone());
        let listing = download.file.listing;
        self.kept("a failed download", kept);
        self.output.notice(Notice::DownloadFailed { group, file, reason: error.message.clone() });
        self.ending.extend(self.fetching.remove(&info_hash).map(TorrentHandle::stop));
        self.share_buffer();
        self.leave_swarm(listing);
        self.forget_stock_peers(listing, info_hash);
        self.change();
    }

    /// Wants nothing of a swarm any more.
    fn leave_swarm(&mut self, listing: ListingId) {
        let presence = if self.is_seeding(listing) { Presence::Seeding } else { Presence::Gone };
        let announcements = vec![Announcement { listing, presence }];
        self.announce(Announce::Presence { announcements, accepted: None });
        self.announce(Announce::Unwatch(listing));
    }

    /// A finished download of this name, in the form of a share.
    pub(super) fn find_fetched(&self, group: &GroupName, file: &FileName) -> Option<Share> {
        let mut complete = self.downloads.values().filter(|download| download.state == DownloadState::Complete);
        let download = complete.find(|download| download.file.is_named(group, file))?;
        let stamp = FileStamp::at(&download.destination).ok()?;
        let (file, path) = (download.file.clone(), download.destination.clone());
        Some(Share { file, path, stamp, registered: false })
    }

    /// Forgets a download that is not complete, once its partial file is gone.
    pub(super) fn cancel_download(&mut self, group: &GroupName, file: &FileName, answer: Answer<()>) {
        let mut unfinished = self.downloads.values().filter(|d| d.state != DownloadState::Complete);
        let Some(download) = unfinished.find(|download| download.file.is_named(group, file)).cloned() else {
            let text = format!("there is no unfinished download of {file} in {group}");
            let _ = answer.send(Err(CommandError::new(ErrorCode::NoSuchDownload, text)));
            return;
        };
        self.downloads.remove(&download.id);
        let kept = block_in_place(|| self.plan.state.remove_download(download.id));
        self.kept("the end of a download", kept);
        let torrent = self.fetching.remove(&download.file.info_hash).map(TorrentHandle::stop);
        self.share_buffer();
        self.leave_swarm(download.file.listing);
        self.forget_stock_peers(download.file.listing, download.file.info_hash);
        self.change();
        self.tasks.spawn(async move {
            if let Some(task) = torrent {
                let _ = task.await;
            }
            let removed = spawn_blocking(move || {
                // A download that never opened a partial file has none to remove.
                let Some(inode) = download.part_inode else { return Ok(()) };
                let destination = Destination::reopen(&download.destination)?;
                destination.remove_part(inode).map_err(|error| CommandError::io(&destination.part_path(), &error))
            });
            let _ = answer.send(removed.await.unwrap_or_else(|_| Err(CommandError::shutting_down())));
        });
    }

    pub(super) fn view_downloads(&self) -> Vec<DownloadView> {
        let view = |download: &Download| {
            let torrent = self.fetching.get(&download.file.info_hash);
            let torrent = torrent.or_else(|| self.seeding.get(&download.file.info_hash));
            let mut status = torrent.map(TorrentHandle::status).unwrap_or_default();
            match download.state {
                DownloadState::Complete => status.done_bytes = download.file.size,
                DownloadState::Downloading | DownloadState::Failed => {
                    status.done_bytes = status.done_bytes.max(verified_bytes(download));
                }
            }
            status.reason = download.reason.clone().or(status.reason);
            DownloadView {
                group: Some(download.file.group.clone()),
                file: download.file.name.clone(),
                size: download.file.size,
                state: download.state,
                destination: download.destination.clone(),
                started_ms: download.started_ms,
                status,
            }
        };
        let mut views: Vec<_> = self.downloads.values().map(view).chain(self.view_foreign()).collect();
        views.sort_by_key(|view| view.started_ms);
        views
    }
}

/// Bytes of the pieces that were last told to be on disk; the last piece may be shorter, which shows only
/// until the torrent runs.
fn verified_bytes(download: &Download) -> u64 {
    let n_pieces: u64 = download.verified.iter().map(|byte| u64::from(byte.count_ones())).sum();
    (n_pieces * u64::from(mini_torrent_common::geometry::PIECE_LENGTH)).min(download.file.size)
}

fn running_mut(
    downloads: &mut std::collections::BTreeMap<i64, Download>,
    info_hash: InfoHash,
) -> Option<&mut Download> {
    downloads.values_mut().find(|download| is_running(download) && download.file.info_hash == info_hash)
}
