//! The node: the one owner of shares, downloads and local state. Commands and the link talk to it through its
//! mailbox; it never waits for a torrent or the link, so that no circle of waiting can form.

mod announcer;
mod downloads;
mod foreign;
mod groups;
mod owner;
mod shares;
mod stock;

use bytes::Bytes;
use mini_torrent_common::control::{Admission, ListingId, PeerContact, RefusedAnnouncement};
use mini_torrent_common::geometry::PIECE_LENGTH;
use mini_torrent_common::hash::{GroupId, InfoHash};
use mini_torrent_common::names::{FileName, GroupName, UserName};
use mini_torrent_common::tls::PublicKey;
use mini_torrent_engine::PieceOrder;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use self::foreign::check_foreign;
use self::owner::Era;
use crate::admission::Admissions;
use crate::disk::FileStamp;
use crate::error::CommandError;
use crate::link::{Link, LinkEvent};
use crate::output::Output;
use crate::peer::{Opener, TorrentName, WantedTorrent};
use crate::state::{Download, DownloadState, ForeignDownload, Share, SharedFile, State};
use crate::torrent::{Report, TorrentStatus};

/// Words that wait for the node, of each kind.
const MAILBOX: usize = 1024;
/// How long the torrents have to end when the client shuts down.
const SHUTDOWN_PATIENCE: Duration = Duration::from_millis(2500);
/// How often progress is kept, and torrents that ended by themselves are cleared away.
const HOUSEKEEPING: Duration = Duration::from_secs(2);
/// Bytes of unverified pieces that all downloads together may hold.
const BUFFER_BYTES: u64 = 32 * 1024 * 1024;
/// Fewest bytes that one download may hold: two pieces.
const MIN_BUFFER_BYTES: u64 = 2 * PIECE_LENGTH as u64;

/// What the node needs.
pub(crate) struct NodePlan {
    pub(crate) state: State,
    /// As tracker_info.txt names them; the deployment's key is pinned for all.
    pub(crate) trackers: Vec<String>,
    pub(crate) own_key: PublicKey,
    pub(crate) opener: Opener,
    /// Where we accept peers.
    pub(crate) listen_port: u16,
    /// What the opener goes by.
    pub(crate) admissions: watch::Sender<Admissions>,
    /// Tells who is signed in.
    pub(crate) user: watch::Sender<Option<UserName>>,
    pub(crate) piece_order: PieceOrder,
}

/// A download as the user sees it.
#[derive(Debug, Clone)]
pub(crate) struct DownloadView {
    /// The group; nothing for a foreign one.
    pub(crate) group: Option<GroupName>,
    pub(crate) file: FileName,
    /// Length in bytes; 0 while the metadata is not known.
    pub(crate) size: u64,
    pub(crate) state: DownloadState,
    pub(crate) destination: PathBuf,
    /// When it was started, in milliseconds since the Unix epoch.
    pub(crate) started_ms: u64,
    pub(crate) status: TorrentStatus,
}

/// A download to start.
#[derive(Debug)]
pub(crate) struct DownloadOrder {
    pub(crate) file: SharedFile,
    pub(crate) raw_info: Vec<u8>,
    pub(crate) destination: PathBuf,
    pub(crate) replace: bool,
    /// Seeders online, as the tracker just said.
    pub(crate) n_seeders: u32,
    /// The destination holds the content already, verified just now.
    pub(crate) complete: Option<FileStamp>,
}

type Answer<T> = oneshot::Sender<Result<T, CommandError>>;

/// What commands ask of the node.
enum NodeRequest {
    SignIn { user: UserName, answer: Answer<usize> },
    SignOut { answer: Answer<()> },
    AddShare { user: UserName, share: Box<Share>, raw_info: Vec<u8>, answer: Answer<()> },
    BeginStop { group: GroupName, file: FileName, answer: Answer<Option<ListingId>> },
    StopShare { listing: ListingId, answer: Answer<()> },
    AbortStop { listing: ListingId, answer: Answer<()> },
    FindFinished { group: GroupName, file: FileName, answer: Answer<Option<Share>> },
    FindInfo { info_hash: InfoHash, answer: Answer<Option<Vec<u8>>> },
    RemoveShare { listing: ListingId, answer: Answer<()> },
    StartDownload { order: Box<DownloadOrder>, answer: Answer<()> },
    CheckDownload { listing: ListingId, destination: PathBuf, answer: Answer<()> },
    CancelDownload { group: GroupName, file: FileName, answer: Answer<()> },
    StartForeign { download: Box<ForeignDownload>, answer: Answer<()> },
    CancelForeign { file: FileName, answer: Answer<()> },
    Downloads { answer: Answer<Vec<DownloadView>> },
    LeaveGroup { group: GroupName, answer: Answer<()> },
    Shutdown { answer: Answer<usize> },
}

/// What the node's own tasks bring back.
enum Finding {
    /// The tracker did not accept these announcements.
    Refused(Vec<RefusedAnnouncement>),
    /// A ticket for a group and a page of revocations, or why not.
    Admitted(Era, GroupId, Result<Admission, CommandError>),
    /// The tracker has acknowledged a share.
    Registered(ListingId),
    /// Peers of a swarm that is watched now, or why not.
    Watched(ListingId, Result<Vec<PeerContact>, CommandError>),
    /// The `info` dictionary of a magnet link came from a peer, checked against the info-hash.
    Metadata(InfoHash, Bytes),
    /// A share whose file looked different was read again: how it looks, if its content is the same.
    Rechecked(ListingId, Option<FileStamp>),
    /// The tracker could not do what it was told; it has to be told again.
    Unheard,
    /// Everything of the session before has ended, and this user may take up theirs, unless it has ended, too.
    Ready(u64, UserName, Answer<usize>),
}

/// Talks to the node. Clones share the one node.
#[derive(Clone)]
pub(crate) struct Node {
    requests: mpsc::Sender<NodeRequest>,
    changes: watch::Receiver<u64>,
}

/// The ends of the node's mailboxes that others hold.
pub(crate) struct NodeInlets {
    pub(crate) link_events: mpsc::Receiver<LinkEvent>,
    pub(crate) wanted: mpsc::Receiver<WantedTorrent>,
}

impl Node {
    /// Starts the node.
    pub(crate) fn start(
        plan: NodePlan,
        inlets: NodeInlets,
        link: Link,
        output: Output,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (requests, receiver) = mpsc::channel(MAILBOX);
        let (changed, changes) = watch::channel(0);
        let task = tokio::spawn(owner::Owner::new(plan, link, output, changed).run(receiver, inlets));
        (Self { requests, changes }, task)
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> NodeRequest) -> Result<T, CommandError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| CommandError::shutting_down())?;
        answered.await.map_err(|_| CommandError::shutting_down())?
    }

    /// Takes up everything of a user who has just signed in; returns how many files are shared again.
    pub(crate) async fn sign_in(&self, user: UserName) -> Result<usize, CommandError> {
        self.ask(|answer| NodeRequest::SignIn { user, answer }).await
    }

    /// Stops everything of the user.
    pub(crate) async fn sign_out(&self) -> Result<(), CommandError> {
        self.ask(|answer| NodeRequest::SignOut { answer }).await
    }

    /// Serves a file that the tracker lists for this user; durable when this returns.
    pub(crate) async fn add_share(&self, user: UserName, share: Share, raw_info: Vec<u8>) -> Result<(), CommandError> {
        self.ask(|answer| NodeRequest::AddShare { user, share: Box::new(share), raw_info, answer }).await
    }

    /// The share of this name, if this data directory has it, is about to end by the user's will: its end is no
    /// news from now on.
    pub(crate) async fn begin_stop(&self, group: GroupName, file: FileName) -> Result<Option<ListingId>, CommandError> {
        self.ask(|answer| NodeRequest::BeginStop { group, file, answer }).await
    }

    /// Ends a share at the tracker, after everything that was announced before.
    pub(crate) async fn stop_share(&self, listing: ListingId) -> Result<(), CommandError> {
        self.ask(|answer| NodeRequest::StopShare { listing, answer }).await
    }

    /// The share does not end after all.
    pub(crate) async fn abort_stop(&self, listing: ListingId) -> Result<(), CommandError> {
        self.ask(|answer| NodeRequest::AbortStop { listing, answer }).await
    }

    /// The finished file of this name, shared or only fetched.
    pub(crate) async fn find_finished(&self, group: GroupName, file: FileName) -> Result<Option<Share>, CommandError> {
        self.ask(|answer| NodeRequest::FindFinished { group, file, answer }).await
    }

    /// The raw `info` dictionary, if this data directory has it.
    pub(crate) async fn find_info(&self, info_hash: InfoHash) -> Result<Option<Vec<u8>>, CommandError> {
        self.ask(|answer| NodeRequest::FindInfo { info_hash, answer }).await
    }

    /// Serves a file no more; its connections are closed when this returns.
    pub(crate) async fn remove_share(&self, listing: ListingId) -> Result<(), CommandError> {
        self.ask(|answer| NodeRequest::RemoveShare { listing, answer }).await
    }

    /// Starts a download, durably.
    pub(crate) async fn start_download(&self, order: DownloadOrder) -> Result<(), CommandError> {
        self.ask(|answer| NodeRequest::StartDownload { order: Box::new(order), answer }).await
    }

    /// Refuses when this listing is being downloaded already, or something else to the same place.
    pub(crate) async fn check_download(&self, listing: ListingId, destination: PathBuf) -> Result<(), CommandError> {
        self.ask(|answer| NodeRequest::CheckDownload { listing, destination, answer }).await
    }

    /// Stops a download and removes its partial file.
    pub(crate) async fn cancel_download(&self, group: GroupName, file: FileName) -> Result<(), CommandError> {
        self.ask(|answer| NodeRequest::CancelDownload { group, file, answer }).await
    }

    /// Starts a download from foreign trackers, durably; one that is complete is seeded.
    pub(crate) async fn start_foreign(&self, download: ForeignDownload) -> Result<(), CommandError> {
        self.ask(|answer| NodeRequest::StartForeign { download: Box::new(download), answer }).await
    }

    /// Ends a foreign download: a partial file is removed, a finished one is seeded no more.
    pub(crate) async fn cancel_foreign(&self, file: FileName) -> Result<(), CommandError> {
        self.ask(|answer| NodeRequest::CancelForeign { file, answer }).await
    }

    /// All downloads in the order of starting, foreign ones among them.
    pub(crate) async fn downloads(&self) -> Result<Vec<DownloadView>, CommandError> {
        self.ask(|answer| NodeRequest::Downloads { answer }).await
    }

    /// Ends everything in a group that the user has left.
    pub(crate) async fn leave_group(&self, group: GroupName) -> Result<(), CommandError> {
        self.ask(|answer| NodeRequest::LeaveGroup { group, answer }).await
    }

    /// Ends everything, keeps its state, and returns how many downloads are paused by it.
    pub(crate) async fn shutdown(&self) -> Result<usize, CommandError> {
        self.ask(|answer| NodeRequest::Shutdown { answer }).await
    }

    /// Changes whenever a download changes its state.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

/// What torrents report, under their name.
type Reports = mpsc::Receiver<(TorrentName, Report)>;

/// Whether a download still wants something.
fn is_running(download: &Download) -> bool {
    download.state == DownloadState::Downloading
}
