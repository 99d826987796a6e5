//! Downloads from foreign trackers: by a `.torrent` or a magnet link, of no group and no user. A finished one goes on
//! being seeded and announced until it is cancelled.

use bytes::Bytes;
use mini_torrent_common::address::may_dial;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::InfoHash;
use mini_torrent_common::metainfo::Info;
use mini_torrent_common::names::FileName;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, block_in_place, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::owner::{Owner, now_ms, state_error};
use super::{Answer, DownloadView, Finding, MAILBOX};
use crate::announce::{AnnouncePlan, Announcing};
use crate::disk::{Destination, FileStamp};
use crate::error::CommandError;
use crate::output::Notice;
use crate::peer::TorrentName;
use crate::state::{DownloadState, ForeignDownload};
use crate::torrent::{
    Control, Fetch, Foreign, Purpose, Report, TorrentHandle, TorrentPlan, TorrentStatus, fetch_metadata,
};

/// Foreign downloads of one data directory, at most.
const MAX_FOREIGN: usize = 1000;

/// A foreign download and what runs for it.
pub(super) struct ForeignEntry {
    pub(super) download: ForeignDownload,
    running: Option<Running>,
}

/// What runs for a foreign download.
struct Running {
    announcing: Announcing,
    /// Once the metadata is known.
    torrent: Option<TorrentHandle>,
    /// Ends what asks peers for the metadata.
    stop: CancellationToken,
}

impl ForeignEntry {
    /// Its torrent, while something is to be fetched.
    pub(super) fn fetching(&self) -> Option<&TorrentHandle> {
        let is_fetching = self.download.state == DownloadState::Downloading;
        self.running.as_ref()?.torrent.as_ref().filter(|_| is_fetching)
    }

    fn stop(&mut self) -> Vec<JoinHandle<()>> {
        let Some(running) = self.running.take() else { return Vec::new() };
        running.stop.cancel();
        let announcing = running.announcing.stop();
        running.torrent.map(TorrentHandle::stop).into_iter().chain([announcing]).collect()
    }
}

impl Owner {
    /// Takes up all foreign downloads of this data directory.
    pub(super) fn revive_foreign(&mut self) {
        let downloads = match block_in_place(|| self.plan.state.foreign_downloads()) {
            Ok(downloads) => downloads,
            Err(error) => return tracing::error!(%error, "the foreign downloads cannot be read"),
        };
        for download in downloads {
            let info_hash = download.info_hash;
            self.foreign.insert(info_hash, ForeignEntry { download, running: None });
            self.run_foreign(info_hash, true, Vec::new());
        }
    }

    /// Notes a foreign download durably and starts it.
    pub(super) fn start_foreign(&mut self, mut download: ForeignDownload) -> Result<(), CommandError> {
        // Before its metadata came, a magnet link's destination may be the directory.
        let is_file = |download: &ForeignDownload| download.raw_info.is_some();
        let same = |other: &ForeignDownload| {
            let same_file = is_file(other) && is_file(&download) && other.destination == download.destination;
            other.info_hash == download.info_hash || same_file
        };
        let mut others = self.foreign.values().map(|entry| &entry.download);
        let is_busy = |other: &&ForeignDownload| other.state == DownloadState::Downloading && same(other);
        if let Some(other) = others.find(is_busy) {
            let text = format!("{} is being downloaded to {} already", other.name, other.destination.display());
            return Err(CommandError::new(ErrorCode::AlreadyDownloading, text));
        }
        if self.foreign.len() >= MAX_FOREIGN {
            let text = format!("there are {MAX_FOREIGN} foreign downloads; cancel_download - <file> ends one");
            return Err(CommandError::new(ErrorCode::QuotaExceeded, text));
        }
        let info_hash = download.info_hash;
        let earlier = self.foreign.remove(&info_hash).map(|mut entry| (entry.stop(), entry.download));
        let (stopped, earlier) = earlier.map_or_else(Default::default, |(stopped, download)| (stopped, Some(download)));
        // What a failed try has fetched is used, after it was checked.
        let unfinished = earlier.filter(|d| d.stamp.is_none() && d.destination == download.destination);
        download.part_inode = unfinished.and_then(|earlier| earlier.part_inode);
        download.started_ms = now_ms();
        let found = download.stamp;
        block_in_place(|| self.plan.state.put_foreign(&download)).map_err(state_error)?;
        let resumed = download.part_inode.is_some();
        self.foreign.insert(info_hash, ForeignEntry { download, running: None });
        self.run_foreign(info_hash, resumed, stopped);
        if let Some(stamp) = found {
            self.foreign_completed(info_hash, stamp);
        }
        self.change();
        Ok(())
    }

    /// Starts what a download needs: its metadata, or its torrent; and the announcing, once what ran before has told
    /// the trackers that it stops.
    fn run_foreign(&mut self, info_hash: InfoHash, resumed: bool, before: Vec<JoinHandle<()>>) {
        let Some(entry) = self.foreign.get(&info_hash) else { return };
        if entry.download.state == DownloadState::Failed {
            return;
        }
        let download = entry.download.clone();
        self.plan.admissions.send_modify(|admissions| admissions.stock.open(info_hash));
        let stop = CancellationToken::new();
        let (torrent, status, found) = match &download.raw_info {
            None => {
                let (found, status) = self.begin_metadata(&download, stop.clone());
                (None, status, found)
            }
            Some(raw_info) => match self.start_foreign_torrent(&download, raw_info, resumed) {
                Ok(torrent) => {
                    let (status, found) = (torrent.watch(), torrent.control());
                    (Some(torrent), status, found)
                }
                Err(error) => return self.fail_foreign(info_hash, &error),
            },
        };
        let announcing = Announcing::start(AnnouncePlan {
            info_hash,
            peer_id: self.plan.opener.peer_id,
            port: self.plan.listen_port,
            own_ip: self.plan.opener.own_ip,
            tiers: download.tiers.clone(),
            size: download.raw_info.as_ref().map(|_| download.size),
            status,
            found: found.clone(),
            before,
        });
        self.name_linked_peers(&download, found);
        if let Some(entry) = self.foreign.get_mut(&info_hash) {
            entry.running = Some(Running { announcing, torrent, stop });
        }
        self.share_buffer();
    }

    /// Asks peers for the metadata of a magnet link.
    fn begin_metadata(
        &mut self,
        download: &ForeignDownload,
        stop: CancellationToken,
    ) -> (mpsc::Sender<Control>, watch::Receiver<TorrentStatus>) {
        let (found, peers) = mpsc::channel(MAILBOX);
        let (_, status) = watch::channel(TorrentStatus::default());
        let (info_hash, opener, findings) = (download.info_hash, self.plan.opener.clone(), self.findings.clone());
        self.tasks.spawn(async move {
            if let Some(raw_info) = stop.run_until_cancelled(fetch_metadata(info_hash, opener, peers)).await {
                let _ = findings.send(Finding::Metadata(info_hash, raw_info)).await;
            }
        });
        (found, status)
    }

    fn start_foreign_torrent(
        &self,
        download: &ForeignDownload,
        raw_info: &Bytes,
        resumed: bool,
    ) -> Result<TorrentHandle, CommandError> {
        let invalid = |error| CommandError::new(ErrorCode::InvalidMetainfo, format!("{error}"));
        let info = Info::decode(raw_info).map_err(invalid)?;
        let purpose = match download.stamp {
            Some(stamp) => Purpose::Seed { path: download.destination.clone(), stamp },
            None => Purpose::Fetch(Fetch {
                hashes: info.pieces,
                sha256: None,
                destination: download.destination.clone(),
                replace: download.replace,
                resumed,
                twin: None,
                piece_order: self.plan.piece_order,
            }),
        };
        let name = TorrentName { info_hash: download.info_hash, group: None };
        let foreign = Some(Foreign { raw_info: raw_info.clone(), private: info.private });
        let plan = TorrentPlan { foreign, ..self.torrent_plan(name, info.geometry, purpose) };
        Ok(TorrentHandle::start(plan, self.reports.clone()))
    }

    /// Peers that stand in a magnet link. It may come from anybody, so they are not on our own machine, unless we are
    /// reachable from there alone.
    fn name_linked_peers(&mut self, download: &ForeignDownload, found: mpsc::Sender<Control>) {
        let loopback = self.plan.opener.own_ip.is_loopback();
        for peer in download.peers.clone() {
            let found = found.clone();
            self.tasks.spawn(async move {
                let Ok(addresses) = tokio::net::lookup_host((peer.host.as_str(), peer.port)).await else { return };
                let addresses: Vec<_> = addresses.filter(|address| may_dial(*address, loopback)).collect();
                // A torrent that is gone needs no peers.
                let _ = found.send(Control::AddressesCame(addresses)).await;
            });
        }
    }

    /// The metadata of a magnet link is there: now it is known what is fetched, and where it goes.
    pub(super) fn metadata_came(&mut self, info_hash: InfoHash, raw_info: Bytes) {
        let Some(entry) = self.foreign.get_mut(&info_hash) else { return };
        if entry.download.raw_info.is_some() {
            return;
        }
        let stopped = entry.stop();
        let download = &mut entry.download;
        let described = describe(download, raw_info);
        if let Err(error) = described {
            self.ending.extend(stopped);
            return self.fail_foreign(info_hash, &error);
        }
        let download = download.clone();
        let kept = block_in_place(|| self.plan.state.put_foreign(&download));
        self.kept("a download's metadata", kept);
        self.run_foreign(info_hash, false, stopped);
        self.change();
    }

    /// What a foreign torrent has to say.
    pub(super) fn foreign_report(&mut self, info_hash: InfoHash, report: Report) {
        let Some(entry) = self.foreign.get_mut(&info_hash) else { return };
        let download = &mut entry.download;
        match report {
            Report::Opened(inode) => download.part_inode = Some(inode),
            Report::Verified(have) => download.verified = have.as_bytes().to_vec(),
            Report::Completed(stamp) => return self.foreign_completed(info_hash, stamp),
            Report::Failed(code, reason) => return self.fail_foreign(info_hash, &CommandError::new(code, reason)),
            Report::Stale(_, reason) => {
                let file = download.name.clone();
                self.output.notice(Notice::ShareStale { group: None, file, reason: reason.clone() });
                return self.fail_foreign(info_hash, &CommandError::new(ErrorCode::FileChanged, reason));
            }
        }
        self.keep_foreign(info_hash);
    }

    fn foreign_completed(&mut self, info_hash: InfoHash, stamp: FileStamp) {
        let Some(ForeignEntry { download, .. }) = self.foreign.get_mut(&info_hash) else { return };
        (download.state, download.stamp, download.reason) = (DownloadState::Complete, Some(stamp), None);
        let notice = Notice::DownloadCompleted {
            group: None,
            file: download.name.clone(),
            destination: download.destination.clone(),
            sha1: None,
            seconds: now_ms().saturating_sub(download.started_ms) as f64 / 1000.0,
        };
        self.output.notice(notice);
        self.keep_foreign(info_hash);
        self.share_buffer();
        self.change();
    }

    /// Seeds files whose torrent has ended by itself: after a crash it only found that the file is finished.
    pub(super) fn seed_finished(&mut self) {
        let is_over = |entry: &ForeignEntry| {
            let torrent = entry.running.as_ref().and_then(|running| running.torrent.as_ref());
            entry.download.state == DownloadState::Complete && torrent.is_some_and(TorrentHandle::is_finished)
        };
        let over: Vec<_> = self.foreign.iter().filter(|(_, entry)| is_over(entry)).map(|(hash, _)| *hash).collect();
        for info_hash in over {
            let stopped = self.foreign.get_mut(&info_hash).map(ForeignEntry::stop).unwrap_or_default();
            self.run_foreign(info_hash, true, stopped);
        }
    }

    fn fail_foreign(&mut self, info_hash: InfoHash, error: &CommandError) {
        let Some(entry) = self.foreign.get_mut(&info_hash) else { return };
        entry.download.state = DownloadState::Failed;
        entry.download.reason = Some(error.message.clone());
        let (file, stopped) = (entry.download.name.clone(), entry.stop());
        self.ending.extend(stopped);
        self.plan.admissions.send_modify(|admissions| admissions.stock.close(info_hash));
        self.keep_foreign(info_hash);
        self.output.notice(Notice::DownloadFailed { group: None, file, reason: error.message.clone() });
        self.share_buffer();
        self.change();
    }

    fn keep_foreign(&mut self, info_hash: InfoHash) {
        let Some(entry) = self.foreign.get(&info_hash) else { return };
        let kept = block_in_place(|| self.plan.state.update_foreign(&entry.download));
        self.kept("a foreign download", kept);
    }

    /// Forgets a foreign download, once its partial file is gone. A finished file stays.
    pub(super) fn cancel_foreign(&mut self, file: &FileName, answer: Answer<()>) {
        let found = self.foreign.values().find(|entry| entry.download.name.key() == file.key());
        let Some(info_hash) = found.map(|entry| entry.download.info_hash) else {
            let text = format!("there is no foreign download of {file}");
            let _ = answer.send(Err(CommandError::new(ErrorCode::NoSuchDownload, text)));
            return;
        };
        let Some(mut entry) = self.foreign.remove(&info_hash) else { return };
        let kept = block_in_place(|| self.plan.state.remove_foreign(info_hash));
        self.kept("the end of a download", kept);
        self.plan.admissions.send_modify(|admissions| admissions.stock.close(info_hash));
        let stopped = entry.stop();
        self.share_buffer();
        self.change();
        self.tasks.spawn(async move {
            for task in stopped {
                let _ = task.await;
            }
            let download = entry.download;
            let removed = spawn_blocking(move || match download.part_inode.filter(|_| download.stamp.is_none()) {
                None => Ok(()),
                Some(inode) => {
                    let destination = Destination::reopen(&download.destination)?;
                    let removed = destination.remove_part(inode);
                    removed.map_err(|error| CommandError::io(&destination.part_path(), &error))
                }
            });
            let _ = answer.send(removed.await.unwrap_or_else(|_| Err(CommandError::shutting_down())));
        });
    }

    /// The torrent that ordinary peers of this info-hash belong to.
    pub(super) fn foreign_torrent(&self, info_hash: InfoHash) -> Option<&TorrentHandle> {
        let torrent = self.foreign.get(&info_hash)?.running.as_ref()?.torrent.as_ref();
        torrent.filter(|torrent| !torrent.is_finished())
    }

    /// Stops them all, which the trackers are told; how many were not complete.
    pub(super) fn stop_foreign(&mut self) -> usize {
        let is_running = |entry: &&mut ForeignEntry| entry.download.state == DownloadState::Downloading;
        let n_running = self.foreign.values_mut().filter(is_running).count();
        let stopped: Vec<_> = self.foreign.values_mut().flat_map(ForeignEntry::stop).collect();
        self.ending.extend(stopped);
        n_running
    }

    pub(super) fn view_foreign(&self) -> impl Iterator<Item = DownloadView> {
        self.foreign.values().map(view)
    }
}

/// Whether a file is of no group: a foreign torrent is open to everybody, which a group's file is not.
///
/// # Errors
/// What members do instead.
pub(crate) fn check_foreign(info: &Info) -> Result<(), CommandError> {
    match info.group {
        None => Ok(()),
        Some(_) => {
            let text = format!("{} belongs to a group; its members fetch it with download_file", info.name);
            Err(CommandError::new(ErrorCode::InvalidMetainfo, text))
        }
    }
}

/// Notes what a magnet link's dictionary says.
fn describe(download: &mut ForeignDownload, raw_info: Bytes) -> Result<(), CommandError> {
    let invalid = |error| CommandError::new(ErrorCode::InvalidMetainfo, format!("{error}"));
    let info = Info::decode(&raw_info).map_err(invalid)?;
    check_foreign(&info)?;
    let destination = block_in_place(|| Destination::resolve(&download.destination, &info.name))?;
    if destination.exists() && !download.replace {
        let text = format!("{} exists; --force replaces it", destination.path().display());
        return Err(CommandError::new(ErrorCode::DestinationExists, text));
    }
    download.destination = destination.path().to_owned();
    download.size = info.geometry.length();
    download.name = info.name;
    download.raw_info = Some(raw_info);
    Ok(())
}

fn view(ForeignEntry { download, running }: &ForeignEntry) -> DownloadView {
    let torrent = running.as_ref().and_then(|running| running.torrent.as_ref());
    let mut status = torrent.map(TorrentHandle::status).unwrap_or_default();
    if download.state == DownloadState::Complete {
        status.done_bytes = download.size;
    }
    let trouble = running.as_ref().filter(|_| status.n_peers == 0).and_then(|running| running.announcing.trouble());
    let waiting = download.raw_info.is_none().then(|| "waiting for the metadata".to_owned());
    status.reason = download.reason.clone().or(trouble).or(status.reason).or(waiting);
    DownloadView {
        group: None,
        file: download.name.clone(),
        size: download.size,
        state: download.state,
        destination: download.destination.clone(),
        started_ms: download.started_ms,
        status,
    }
}
