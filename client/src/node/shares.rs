//! The node's shares: reviving them at sign-in, serving them, ending them.

use mini_torrent_common::control::{Announcement, ListingId, Presence, RefusedAnnouncement};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::geometry::{Geometry, PIECE_LENGTH};
use mini_torrent_common::hash::InfoHash;
use mini_torrent_common::names::{FileName, GroupName, UserName};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{block_in_place, spawn_blocking};

use super::announcer::Announce;
use super::owner::{Owner, ShareEntry, state_error};
use super::{Answer, Finding, is_running};
use crate::disk::{FileStamp, Progress, digest_file};
use crate::error::CommandError;
use crate::output::Notice;
use crate::peer::{OpenPeer, PeerError, TorrentName, Wish, WishedBy};
use crate::state::{AccountKey, Share};
use crate::torrent::{Purpose, Report, TorrentHandle, TorrentPlan};

impl Owner {
    /// Loads a user's shares and downloads, starts what runs, and announces it all. Nothing of another session is
    /// left.
    pub(super) fn sign_in(&mut self, user: &UserName, answer: Answer<usize>) {
        let loaded = self.deployment().and_then(|deployment| {
            let account = AccountKey { deployment, user: user.key() };
            let state = &self.plan.state;
            let rows = block_in_place(|| Ok((state.shares(&account)?, state.downloads(&account)?)));
            rows.map(|(shares, downloads)| (account, shares, downloads)).map_err(state_error)
        });
        let (account, shares, downloads) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => return drop(answer.send(Err(error))),
        };
        self.account = Some(account);
        self.plan.user.send_replace(Some(user.clone()));
        block_in_place(|| self.revive(shares));
        self.downloads = downloads.into_iter().map(|download| (download.id, download)).collect();
        let running = self.downloads.values().filter(|download| is_running(download)).map(|download| &download.file);
        let files = self.shares.values().map(|entry| &entry.share.file).chain(running);
        let groups: BTreeMap<_, _> = files.map(|file| (file.group_id, file.clone())).collect();
        groups.values().for_each(|file| self.enter(file));
        let (accepted, n_accepted) = oneshot::channel();
        self.announce_all(Some(accepted));
        let running: Vec<_> = self.downloads.values().filter(|download| is_running(download)).cloned().collect();
        running.iter().for_each(|download| self.resume_download(download));
        self.watch_all();
        self.tasks.spawn(async move {
            let _ = answer.send(Ok(n_accepted.await.unwrap_or_default()));
        });
    }

    /// Takes up shares whose files look as they did; the others are read again in the background.
    fn revive(&mut self, shares: Vec<Share>) {
        let mut changed = Vec::new();
        for share in shares {
            let stale = FileStamp::at(&share.path).ok() != Some(share.stamp);
            if stale {
                changed.push(share.clone());
            }
            self.shares.insert(share.file.listing, ShareEntry { share, stale, ending: false });
        }
        self.rechecking = Arc::default();
        self.tasks.spawn(recheck(changed, self.rechecking.clone(), self.findings.clone()));
    }

    pub(super) fn rechecked(&mut self, listing: ListingId, stamp: Option<FileStamp>) {
        let (Some(account), Some(entry)) = (&self.account, self.shares.get_mut(&listing)) else { return };
        let Some(stamp) = stamp else {
            let (group, file) = (Some(entry.share.file.group.clone()), entry.share.file.name.clone());
            let reason = format!("{} was changed or removed", entry.share.path.display());
            return self.output.notice(Notice::ShareStale { group, file, reason });
        };
        entry.share.stamp = stamp;
        entry.stale = false;
        let kept = block_in_place(|| self.plan.state.put_share(account, &entry.share));
        self.kept("a share", kept);
        let announcements = vec![Announcement { listing, presence: Presence::Seeding }];
        self.announce(Announce::Presence { announcements, accepted: None });
    }

    /// Tells the tracker everything that this client has.
    pub(super) fn announce_all(&mut self, accepted: Option<oneshot::Sender<usize>>) {
        let intact = || self.shares.values().filter(|entry| !entry.stale).map(|entry| &entry.share);
        let seeding = |listing| Announcement { listing, presence: Presence::Seeding };
        let leeching = |listing| Announcement { listing, presence: Presence::Leeching };
        let seeds = intact().map(|share| seeding(share.file.listing)).collect();
        let kept = self.shares.values().filter(|entry| !entry.stale && !entry.ending).map(|entry| &entry.share);
        let unregistered: Vec<_> = kept.filter(|share| !share.registered).map(|share| share.file.listing).collect();
        let running = self.downloads.values().filter(|download| is_running(download));
        let running = running.map(|download| download.file.listing);
        let leeches = running.filter(|listing| !self.is_seeding(*listing)).map(leeching).collect();
        // A finished download whose registration was cut short is registered first, and counts with the others.
        unregistered.into_iter().for_each(|listing| self.announce(Announce::Seed(listing)));
        self.announce(Announce::Presence { announcements: seeds, accepted });
        self.announce(Announce::Presence { announcements: leeches, accepted: None });
    }

    pub(super) fn find_share(&self, group: &GroupName, file: &FileName) -> Option<Share> {
        let mut shares = self.shares.values().map(|entry| &entry.share);
        shares.find(|share| share.file.is_named(group, file)).cloned()
    }

    pub(super) fn begin_stop(&mut self, group: &GroupName, file: &FileName) -> Option<ListingId> {
        let entry = self.shares.values_mut().find(|entry| entry.share.file.is_named(group, file))?;
        entry.ending = true;
        Some(entry.share.file.listing)
    }

    pub(super) fn abort_stop(&mut self, listing: ListingId) {
        if let Some(entry) = self.shares.get_mut(&listing) {
            entry.ending = false;
        }
    }

    /// Serves a file from now on.
    pub(super) fn add_share(&mut self, user: &UserName, share: Share, raw_info: &[u8]) -> Result<(), CommandError> {
        let account = self.account.as_ref().filter(|account| account.user == user.key());
        let account = account.ok_or_else(CommandError::session_ended)?;
        let kept = block_in_place(|| self.plan.state.add_share(account, &share, raw_info));
        kept.map_err(state_error)?;
        let (listing, info_hash) = (share.file.listing, share.file.info_hash);
        let moved = |earlier: &ShareEntry| (&earlier.share.path, earlier.share.stamp) != (&share.path, share.stamp);
        if self.shares.get(&listing).is_some_and(moved) {
            self.stop_seeding(info_hash);
        }
        self.enter(&share.file);
        self.shares.insert(listing, ShareEntry { share, stale: false, ending: false });
        let announcements = vec![Announcement { listing, presence: Presence::Seeding }];
        self.announce(Announce::Presence { announcements, accepted: None });
        Ok(())
    }

    /// Whether this client has the whole file and serves it.
    pub(super) fn is_seeding(&self, listing: ListingId) -> bool {
        self.shares.get(&listing).is_some_and(|entry| !entry.stale)
    }

    pub(super) fn stop_seeding(&mut self, info_hash: InfoHash) {
        self.ending.extend(self.seeding.remove(&info_hash).map(TorrentHandle::stop));
    }

    /// Serves a file no more.
    pub(super) fn remove_share(&mut self, listing: ListingId) {
        let (Some(account), Some(entry)) = (&self.account, self.shares.remove(&listing)) else { return };
        let kept = block_in_place(|| self.plan.state.remove_share(account, listing));
        self.kept("the end of a share", kept);
        self.stop_seeding(entry.share.file.info_hash);
        self.forget_stock_peers(listing, entry.share.file.info_hash);
        let fetching = self.downloads.values().any(|d| is_running(d) && d.file.listing == listing);
        let presence = if fetching { Presence::Leeching } else { Presence::Gone };
        let announcements = vec![Announcement { listing, presence }];
        self.announce(Announce::Presence { announcements, accepted: None });
    }

    /// The tracker knows a share now.
    pub(super) fn registered(&mut self, listing: ListingId) {
        let Some(entry) = self.shares.get_mut(&listing) else { return };
        entry.share.registered = true;
        // Forgotten in a crash, it is told again, which does no harm.
        self.unkept_shares.insert(listing);
    }

    /// The tracker does not accept a share.
    pub(super) fn share_refused(&mut self, RefusedAnnouncement { listing, code }: RefusedAnnouncement) {
        let Some(entry) = self.shares.get(&listing) else { return };
        if code == ErrorCode::NotSharing && !entry.share.registered && !entry.ending {
            return self.announce(Announce::Seed(listing));
        }
        let (group, file, expected) = (entry.share.file.group.clone(), entry.share.file.name.clone(), entry.ending);
        self.remove_share(listing);
        if !expected {
            self.output.notice(Notice::ShareEnded { group, file });
        }
    }

    /// A served file turned out to be not what it was: it is withdrawn until it is again.
    pub(super) fn share_stale(&mut self, info_hash: InfoHash, stamp: FileStamp, reason: String) {
        // A share that was renewed meanwhile is not meant.
        let meant = |entry: &&mut ShareEntry| entry.share.file.info_hash == info_hash && entry.share.stamp == stamp;
        let Some(entry) = self.shares.values_mut().find(meant) else { return };
        self.seeding.remove(&info_hash);
        entry.stale = true;
        let file = &entry.share.file;
        let (group, name) = (Some(file.group.clone()), file.name.clone());
        self.output.notice(Notice::ShareStale { group, file: name, reason });
        let announcements = vec![Announcement { listing: file.listing, presence: Presence::Gone }];
        self.announce(Announce::Presence { announcements, accepted: None });
    }

    /// Where a connection goes that asks for a torrent. A member asks for one of its ticket's group, an ordinary client
    /// for a foreign one, or for a group's that admits its address. A share that nobody asked for lately is opened now.
    ///
    /// # Errors
    /// When there is no such torrent, or it is not for this caller.
    pub(super) fn torrent_for(&mut self, Wish { info_hash, by }: Wish) -> Result<mpsc::Sender<OpenPeer>, PeerError> {
        if let WishedBy::Ordinary(_) = by
            && let Some(torrent) = self.foreign_torrent(info_hash)
        {
            return Ok(torrent.incoming());
        }
        let mut shares = self.shares.values().filter(|entry| !entry.stale).map(|entry| &entry.share);
        let share = shares.find(|share| share.file.info_hash == info_hash);
        let mut running = self.downloads.values().filter(|download| is_running(download));
        let fetched = running.find(|download| download.file.info_hash == info_hash);
        let file = share.map(|share| &share.file).or(fetched.map(|download| &download.file));
        let group = file.ok_or(PeerError::OtherTorrent)?.group_id;
        match by {
            WishedBy::MemberOf(own) if own != group => return Err(PeerError::OtherGroup),
            WishedBy::MemberOf(_) => {}
            WishedBy::Ordinary(from) => {
                let torrent = TorrentName { info_hash, group: Some(group) };
                self.plan.admissions.borrow().judge_plain(torrent, from)?;
            }
        }
        if let Some(torrent) = self.seeding_torrent(info_hash) {
            return Ok(torrent.incoming());
        }
        self.fetching.get(&info_hash).map(TorrentHandle::incoming).ok_or(PeerError::OtherTorrent)
    }

    /// The torrent of a share; one that nobody needed lately is opened now.
    pub(super) fn seeding_torrent(&mut self, info_hash: InfoHash) -> Option<&TorrentHandle> {
        if self.seeding.get(&info_hash).is_none_or(TorrentHandle::is_finished) {
            let mut shares = self.shares.values().filter(|entry| !entry.stale).map(|entry| &entry.share);
            let share = shares.find(|share| share.file.info_hash == info_hash)?;
            let geometry = Geometry::new(share.file.size, u64::from(PIECE_LENGTH)).ok()?;
            let purpose = Purpose::Seed { path: share.path.clone(), stamp: share.stamp };
            let name = TorrentName { info_hash, group: Some(share.file.group_id) };
            let torrent = TorrentHandle::start(self.torrent_plan(name, geometry, purpose), self.reports.clone());
            self.seeding.insert(info_hash, torrent);
        }
        self.seeding.get(&info_hash)
    }

    pub(super) fn torrent_plan(&self, name: TorrentName, geometry: Geometry, purpose: Purpose) -> TorrentPlan {
        let (own_key, opener, loopback) = (self.plan.own_key, self.plan.opener.clone(), self.loopback);
        let buffer_bytes = self.buffer_bytes;
        TorrentPlan { name, geometry, own_key, opener, loopback, buffer_bytes, foreign: None, purpose }
    }

    /// What a torrent has to say.
    pub(super) fn report(&mut self, torrent: TorrentName, report: Report) {
        let info_hash = torrent.info_hash;
        if torrent.group.is_none() {
            return self.foreign_report(info_hash, report);
        }
        match report {
            Report::Opened(inode) => self.part_opened(info_hash, inode),
            Report::Verified(have) => self.download_progress(info_hash, have.as_bytes()),
            Report::Completed(stamp) => self.download_completed(info_hash, stamp),
            Report::Failed(code, reason) => {
                self.fail_download(info_hash, &CommandError::new(code, reason));
            }
            Report::Stale(stamp, reason) => self.share_stale(info_hash, stamp, reason),
        }
    }
}

/// Reads files again that look changed, one after the other, until the session ends.
async fn recheck(changed: Vec<Share>, progress: Arc<Progress>, findings: mpsc::Sender<Finding>) {
    for share in changed {
        let (path, hashing) = (share.path, progress.clone());
        let digest = spawn_blocking(move || digest_file(&path, &hashing)).await;
        if progress.is_cancelled() {
            return;
        }
        let same = digest.ok().and_then(Result::ok).filter(|digest| digest.sha256 == share.file.sha256);
        let finding = Finding::Rechecked(share.file.listing, same.map(|digest| digest.stamp));
        if findings.send(finding).await.is_err() {
            return;
        }
    }
}
