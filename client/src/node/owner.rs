//! The node's task: its state and what it does with each word that comes in.

use mini_torrent_common::control::{Event, ListingId};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::{GroupId, InfoHash};
use mini_torrent_common::tls::Fingerprint;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet, block_in_place};
use tokio::time::{interval, timeout};

use super::announcer::{self, Announce};
use super::foreign::ForeignEntry;
use super::groups::Participation;
use super::{
    Answer, BUFFER_BYTES, Finding, HOUSEKEEPING, MAILBOX, NodeInlets, NodePlan, NodeRequest, Reports,
    SHUTDOWN_PATIENCE, is_running,
};
use crate::admission::Admissions;
use crate::disk::Progress;
use crate::error::CommandError;
use crate::link::{Link, LinkEvent};
use crate::output::{Notice, Output};
use crate::peer::TorrentName;
use crate::state::{AccountKey, Download, Share, StateError};
use crate::torrent::{Control, Report, TorrentHandle};

/// A share and whether its file is still what it was.
pub(super) struct ShareEntry {
    pub(super) share: Share,
    pub(super) stale: bool,
    /// The user is ending it.
    pub(super) ending: bool,
}

/// Which session, and which connection to a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Era {
    pub(super) session: u64,
    pub(super) connection: u64,
}

pub(super) struct Owner {
    pub(super) plan: NodePlan,
    pub(super) output: Output,
    changed: watch::Sender<u64>,
    /// The deployment's key, once a tracker proved it.
    deployment: Option<Fingerprint>,
    /// Whether the tracker is on loopback, so that members may be, too.
    pub(super) loopback: bool,
    /// Who is signed in.
    pub(super) account: Option<AccountKey>,
    pub(super) shares: BTreeMap<ListingId, ShareEntry>,
    pub(super) downloads: BTreeMap<i64, Download>,
    /// The groups that the user takes part in here.
    pub(super) groups: BTreeMap<GroupId, Participation>,
    /// Torrents of finished files that somebody asked for lately.
    pub(super) seeding: HashMap<InfoHash, TorrentHandle>,
    /// Torrents of running downloads.
    pub(super) fetching: HashMap<InfoHash, TorrentHandle>,
    /// Downloads from foreign trackers, whoever is signed in.
    pub(super) foreign: BTreeMap<InfoHash, ForeignEntry>,
    /// What each download may hold in memory.
    pub(super) buffer_bytes: u64,
    /// Downloads whose progress is not kept yet.
    pub(super) unkept: BTreeSet<i64>,
    /// Shares that the tracker has acknowledged, which is not kept yet.
    pub(super) unkept_shares: BTreeSet<ListingId>,
    /// Stops reading changed shares again.
    pub(super) rechecking: Arc<Progress>,
    /// Torrents that were told to end.
    pub(super) ending: Vec<JoinHandle<()>>,
    pub(super) tasks: JoinSet<()>,
    announcer: mpsc::Sender<(Era, Announce)>,
    /// What is announced and found out belongs to one; of another it is of no use.
    era: watch::Sender<Era>,
    /// An announcement did not fit into the queue: tell everything again.
    must_announce: bool,
    pub(super) findings: mpsc::Sender<Finding>,
    findings_receiver: mpsc::Receiver<Finding>,
    pub(super) reports: mpsc::Sender<(TorrentName, Report)>,
    reports_receiver: Reports,
}

impl Owner {
    pub(super) fn new(plan: NodePlan, link: Link, output: Output, changed: watch::Sender<u64>) -> Self {
        let (findings, findings_receiver) = mpsc::channel(MAILBOX);
        let (reports, reports_receiver) = mpsc::channel(MAILBOX);
        let (announcer, queue) = mpsc::channel(MAILBOX);
        let mut tasks = JoinSet::new();
        let (era, eras) = watch::channel(Era::default());
        tasks.spawn(announcer::run(link, queue, eras, findings.clone()));
        Self {
            plan,
            output,
            changed,
            deployment: None,
            loopback: false,
            account: None,
            shares: BTreeMap::new(),
            downloads: BTreeMap::new(),
            groups: BTreeMap::new(),
            seeding: HashMap::new(),
            fetching: HashMap::new(),
            foreign: BTreeMap::new(),
            buffer_bytes: BUFFER_BYTES,
            unkept: BTreeSet::new(),
            unkept_shares: BTreeSet::new(),
            rechecking: Arc::default(),
            ending: Vec::new(),
            tasks,
            announcer,
            era,
            must_announce: false,
            findings,
            findings_receiver,
            reports,
            reports_receiver,
        }
    }

    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<NodeRequest>, mut inlets: NodeInlets) {
        let mut housekeeping = interval(HOUSEKEEPING);
        self.revive_foreign();
        loop {
            tokio::select! {
                // The link's events come first: a sign-in builds on what the link told before.
                biased;
                Some(event) = inlets.link_events.recv() => self.link_event(event),
                request = requests.recv() => match request {
                    None => break,
                    Some(NodeRequest::Shutdown { answer }) => {
                        let n_paused = self.shutdown().await;
                        let _ = answer.send(Ok(n_paused));
                        break;
                    }
                    Some(request) => self.request(request),
                },
                Some(finding) = self.findings_receiver.recv() => self.finding(finding),
                Some(wanted) = inlets.wanted.recv() => {
                    let _ = wanted.answer.send(self.torrent_for(wanted.wish));
                }
                Some((torrent, report)) = self.reports_receiver.recv() => self.report(torrent, report),
                Some(_) = self.tasks.join_next() => {}
                _ = housekeeping.tick() => self.clear_away(),
            }
        }
    }

    fn request(&mut self, request: NodeRequest) {
        match request {
            NodeRequest::SignIn { user, answer } => {
                self.end_session();
                let era = *self.era.borrow();
                self.when_ended(move || Finding::Ready(era.session, user, answer));
            }
            NodeRequest::SignOut { answer } => {
                self.end_session();
                let ending = std::mem::take(&mut self.ending);
                self.tasks.spawn(async move {
                    join_all(ending).await;
                    reply(answer, ());
                });
            }
            NodeRequest::AddShare { user, share, raw_info, answer } => {
                let _ = answer.send(self.add_share(&user, *share, &raw_info));
            }
            NodeRequest::BeginStop { group, file, answer } => reply(answer, self.begin_stop(&group, &file)),
            NodeRequest::StopShare { listing, answer } => self.announce(Announce::Stop { listing, answer }),
            NodeRequest::AbortStop { listing, answer } => {
                self.abort_stop(listing);
                reply(answer, ());
            }
            NodeRequest::FindFinished { group, file, answer } => {
                reply(answer, self.find_share(&group, &file).or_else(|| self.find_fetched(&group, &file)));
            }
            NodeRequest::FindInfo { info_hash, answer } => {
                let found = block_in_place(|| self.plan.state.info(info_hash));
                let _ = answer.send(found.map_err(state_error));
            }
            NodeRequest::RemoveShare { listing, answer } => {
                self.remove_share(listing);
                reply(answer, ());
            }
            NodeRequest::StartDownload { order, answer } => {
                let _ = answer.send(self.start_download(*order));
            }
            NodeRequest::CheckDownload { listing, destination, answer } => {
                let _ = answer.send(self.check_download(listing, &destination));
            }
            NodeRequest::CancelDownload { group, file, answer } => self.cancel_download(&group, &file, answer),
            NodeRequest::StartForeign { download, answer } => {
                let _ = answer.send(self.start_foreign(*download));
            }
            NodeRequest::CancelForeign { file, answer } => self.cancel_foreign(&file, answer),
            NodeRequest::Downloads { answer } => reply(answer, self.view_downloads()),
            NodeRequest::LeaveGroup { group, answer } => {
                self.left_group(&group);
                reply(answer, ());
            }
            NodeRequest::Shutdown { .. } => {}
        }
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Connected { tracker, remote, deployment: key, time_ms, heard, up, first_use } => {
                self.era.send_modify(|era| era.connection += 1);
                self.plan.admissions.send_modify(|admissions| {
                    admissions.connected(key, (heard, time_ms), up);
                    admissions.fell_behind();
                });
                let deployment = key.fingerprint();
                self.deployment = Some(deployment);
                self.loopback = remote.ip().to_canonical().is_loopback();
                let trackers = self.plan.trackers.clone();
                let pinned = block_in_place(|| self.plan.state.set_pin(&trackers, deployment));
                self.kept("the tracker's key", pinned);
                if first_use {
                    self.output.notice(Notice::KeyTrusted { deployment });
                }
                self.output.notice(Notice::TrackerConnected { tracker });
                let own_ip = self.plan.opener.own_ip;
                if own_ip.is_loopback() && !self.loopback {
                    self.output.notice(Notice::LoopbackOnly { address: own_ip });
                }
            }
            LinkEvent::Time { time_ms, heard } => {
                // Only a clock that was put right is news to those who watch.
                self.plan.admissions.send_if_modified(|admissions| admissions.set_time(heard, time_ms));
            }
            LinkEvent::Resumed => {
                self.enter_all();
                self.announce_all(None);
                self.watch_all();
            }
            LinkEvent::Lost { tracker } => {
                self.plan.admissions.send_modify(Admissions::cut_off);
                self.output.notice(Notice::TrackerLost { tracker });
            }
            LinkEvent::SessionEnded { reason } => {
                self.end_session();
                self.output.notice(Notice::SessionEnded { reason });
            }
            LinkEvent::Event(event) => self.tracker_event(event),
        }
    }

    fn tracker_event(&mut self, event: Event) {
        match event {
            Event::JoinRequested { group, user } => self.output.notice(Notice::JoinRequested { group, user }),
            Event::RequestAccepted { group } => self.output.notice(Notice::RequestAccepted { group }),
            Event::RemovedFromGroup { id, group } => {
                self.membership_ended(id);
                self.output.notice(Notice::RemovedFromGroup { group });
            }
            Event::Peers { listing, came, left } => {
                if let Some(torrent) = self.torrent_of_download(listing) {
                    torrent.tell(Control::PeersLeft(left));
                    torrent.tell(Control::PeersCame(came));
                }
            }
            Event::ListingEnded { listing } => {
                let code = ErrorCode::NoSuchFile;
                self.finding(Finding::Refused(vec![mini_torrent_common::control::RefusedAnnouncement {
                    listing,
                    code,
                }]));
            }
            Event::Revoked(revocations) => {
                self.plan.admissions.send_modify(|admissions| admissions.revoke(&revocations));
                self.enter_outdated();
            }
            Event::StockPeers { listing, came, left } => self.stock_peers(listing, &came, &left),
            Event::KeySuspended { id, group, file } => self.output.notice(Notice::KeySuspended { id, group, file }),
            // The link keeps the session and tells of its end itself.
            Event::SessionEnded { .. } => {}
        }
    }

    fn finding(&mut self, finding: Finding) {
        match finding {
            Finding::Refused(refused) => {
                for refusal in refused {
                    self.share_refused(refusal);
                    self.download_refused(refusal);
                }
            }
            Finding::Admitted(era, group, admission) if era == *self.era.borrow() => self.admitted(group, admission),
            // An answer from before the connection was lost says nothing of what happened since.
            Finding::Admitted(..) => {}
            Finding::Registered(listing) => self.registered(listing),
            Finding::Watched(listing, Ok(peers)) => {
                if let Some(torrent) = self.torrent_of_download(listing) {
                    torrent.tell(Control::PeersCame(peers));
                }
                self.tell_of_stock_peers(listing);
            }
            Finding::Metadata(info_hash, raw_info) => self.metadata_came(info_hash, raw_info),
            Finding::Watched(listing, Err(error)) => self.watch_failed(listing, &error),
            Finding::Rechecked(listing, stamp) => self.rechecked(listing, stamp),
            Finding::Unheard => self.must_announce = true,
            Finding::Ready(session, user, answer) if session == self.era.borrow().session => {
                self.sign_in(&user, answer);
            }
            Finding::Ready(_, _, answer) => {
                let _ = answer.send(Err(CommandError::session_ended()));
            }
        }
    }

    /// Queues announcements; when the queue is full, everything is announced again later.
    pub(super) fn announce(&mut self, announce: Announce) {
        if !self.try_announce(announce) {
            self.must_announce = true;
        }
    }

    /// Queues an announcement, if there is room.
    pub(super) fn try_announce(&self, announce: Announce) -> bool {
        self.announcer.try_send((*self.era.borrow(), announce)).is_ok()
    }

    /// Ends everything of the user who is signed in, and keeps where it stands.
    pub(super) fn end_session(&mut self) {
        self.keep_progress();
        self.rechecking.cancel();
        self.account = None;
        self.era.send_modify(|era| era.session += 1);
        self.plan.user.send_replace(None);
        self.shares.clear();
        self.downloads.clear();
        self.groups.clear();
        self.plan.admissions.send_modify(Admissions::leave_all);
        self.stop_torrents();
        self.change();
    }

    fn stop_torrents(&mut self) {
        let torrents = self.seeding.drain().chain(self.fetching.drain());
        self.ending.extend(torrents.map(|(_, torrent)| torrent.stop()));
    }

    /// Brings a finding when every torrent that was told to end has let go of its file.
    fn when_ended(&mut self, finding: impl FnOnce() -> Finding + Send + 'static) {
        let (ending, findings) = (std::mem::take(&mut self.ending), self.findings.clone());
        self.tasks.spawn(async move {
            join_all(ending).await;
            let _ = findings.send(finding()).await;
        });
    }

    /// Tells those who wait that some download changed its state.
    pub(super) fn change(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Logs when something could not be kept; what is in memory goes on.
    pub(super) fn kept(&self, what: &'static str, result: Result<(), StateError>) {
        if let Err(error) = result {
            tracing::error!(%error, "cannot keep {what}");
            self.output.notice(Notice::NotKept { what, reason: error.to_string() });
        }
    }

    fn keep_progress(&mut self) {
        let (downloads, shares) = (std::mem::take(&mut self.unkept), std::mem::take(&mut self.unkept_shares));
        if !downloads.is_empty() || !shares.is_empty() {
            let downloads = downloads.iter().filter_map(|id| self.downloads.get(id));
            let shares = shares.iter().filter_map(|listing| self.shares.get(listing)).map(|entry| &entry.share);
            let account = self.account.as_ref();
            let kept = block_in_place(|| self.plan.state.update_all(downloads, account, shares));
            self.kept("the downloads' progress", kept);
        }
    }

    fn clear_away(&mut self) {
        self.keep_progress();
        self.seeding.retain(|_, torrent| !torrent.is_finished());
        self.ending.retain(|task| !task.is_finished());
        self.renew_tickets();
        self.forget_unconfirmed();
        self.seed_finished();
        if std::mem::take(&mut self.must_announce) {
            self.announce_all(None);
            self.watch_all();
        }
    }

    /// Stops every torrent, waits until their files are flushed, and keeps what they report at last.
    async fn shutdown(&mut self) -> usize {
        let n_running = self.downloads.values().filter(|download| is_running(download)).count();
        self.rechecking.cancel();
        let n_running = n_running + self.stop_foreign();
        self.stop_torrents();
        let ending = std::mem::take(&mut self.ending);
        if timeout(SHUTDOWN_PATIENCE, join_all(ending)).await.is_err() {
            tracing::warn!("some torrents take too long to end");
        }
        while let Ok((torrent, report)) = self.reports_receiver.try_recv() {
            self.report(torrent, report);
        }
        self.keep_progress();
        let dropped = block_in_place(|| self.plan.state.drop_unused_infos());
        self.kept("the metadata", dropped);
        n_running
    }

    /// The deployment that users sign in to.
    pub(super) fn deployment(&self) -> Result<Fingerprint, CommandError> {
        let unknown = || CommandError::new(ErrorCode::TrackerUnreachable, "no tracker has answered yet");
        self.deployment.ok_or_else(unknown)
    }
}

async fn join_all(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        // One that panicked has ended, too.
        let _ = task.await;
    }
}

/// Milliseconds since the Unix epoch, for display and the order of things a person started.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn state_error(error: StateError) -> CommandError {
    CommandError::new(ErrorCode::Io, error.to_string())
}

fn reply<T>(answer: Answer<T>, value: T) {
    // Who asked may have gone.
    let _ = answer.send(Ok(value));
}
