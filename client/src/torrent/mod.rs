//! One torrent: a task that drives one [`mini_torrent_engine::Torrent`] with connections, files and time.

mod blocks;
mod life;
mod metadata;
mod preparation;
mod task;
mod wire;

pub(crate) use metadata::fetch_metadata;

use bytes::Bytes;
use mini_torrent_common::bitfield::Bitfield;
use mini_torrent_common::control::PeerContact;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::geometry::Geometry;
use mini_torrent_common::hash::Sha256Hash;
use mini_torrent_common::metainfo::PieceHashes;
use mini_torrent_common::tls::PublicKey;
use mini_torrent_engine::PieceOrder;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::disk::FileStamp;
use crate::peer::{OpenPeer, Opener, TorrentName};

/// Messages from connections that wait for a torrent; each holds at most one read from a socket.
const MAILBOX: usize = 64;
/// Words from the node that wait for a torrent.
const CONTROL_MAILBOX: usize = 1024;
/// Connections handed over by the listener that wait for a torrent.
const INCOMING_MAILBOX: usize = 64;
/// A torrent that only seeds ends when nobody was connected for so long; the next peer starts it again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often progress is published.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);
/// How often the verified pieces are told for keeping.
const KEEP_INTERVAL: Duration = Duration::from_secs(2);
/// How long to wait before a file that could not be opened is tried again.
const OPEN_RETRY: Duration = Duration::from_secs(1);
/// How long to wait before a disk that refused is tried again.
const DISK_RETRY: Duration = Duration::from_secs(5);

/// What a torrent is and what for.
#[derive(Clone)]
pub(crate) struct TorrentPlan {
    /// Its info-hash, and the group whose members take part; a foreign torrent has none.
    pub(crate) name: TorrentName,
    pub(crate) geometry: Geometry,
    pub(crate) own_key: PublicKey,
    pub(crate) opener: Opener,
    /// Whether peers on loopback may be dialled: only where the tracker itself is there.
    pub(crate) loopback: bool,
    /// What it may hold in memory until [`Control::BufferBytes`] says otherwise.
    pub(crate) buffer_bytes: u64,
    /// What a foreign torrent gives to everybody. A group's torrent gives nothing of it: its metadata comes from the
    /// tracker, and so do its peers.
    pub(crate) foreign: Option<Foreign>,
    pub(crate) purpose: Purpose,
}

/// What peers of a foreign torrent may ask for besides the file.
#[derive(Debug, Clone)]
pub(crate) struct Foreign {
    /// The raw `info` dictionary (BEP 9).
    pub(crate) raw_info: Bytes,
    /// Whether peers come from the trackers alone (BEP 27).
    pub(crate) private: bool,
}

/// What a torrent is for.
#[derive(Debug, Clone)]
pub(crate) enum Purpose {
    /// Serve a finished file.
    Seed {
        /// Where it lies.
        path: PathBuf,
        /// How it looked when it was hashed.
        stamp: FileStamp,
    },
    /// Fetch a file, and serve what is there meanwhile and afterwards.
    Fetch(Fetch),
}

/// A download.
#[derive(Debug, Clone)]
pub(crate) struct Fetch {
    pub(crate) hashes: PieceHashes,
    /// Of the whole file, where it is known; the pieces' hashes say enough without.
    pub(crate) sha256: Option<Sha256Hash>,
    /// The finished file's path, resolved before.
    pub(crate) destination: PathBuf,
    /// Whether a file that is there may be replaced.
    pub(crate) replace: bool,
    /// Whether this download was begun before, so that a partial file may be there.
    pub(crate) resumed: bool,
    /// The same content elsewhere on this machine.
    pub(crate) twin: Option<(PathBuf, FileStamp)>,
    pub(crate) piece_order: PieceOrder,
}

/// What the node tells a torrent.
#[derive(Debug)]
pub(crate) enum Control {
    /// The tracker named peers.
    PeersCame(Vec<PeerContact>),
    /// The tracker says that peers left.
    PeersLeft(Vec<PublicKey>),
    /// A tracker or a peer named ordinary clients, which may be dialled.
    AddressesCame(Vec<SocketAddr>),
    /// The tracker says that ordinary clients left.
    AddressesLeft(Vec<SocketAddr>),
    /// How many bytes of unverified pieces this torrent may hold.
    BufferBytes(u64),
}

/// What a torrent tells the node.
#[derive(Debug)]
pub(crate) enum Report {
    /// The partial file is open; its inode tells it from others.
    Opened(u64),
    /// Pieces that are verified and written; told now and then.
    Verified(Bitfield),
    /// The file is complete, durable and under its final name.
    Completed(FileStamp),
    /// The download cannot go on.
    Failed(ErrorCode, String),
    /// The shared file is not what it was when it looked like this.
    Stale(FileStamp, String),
}

/// Where a torrent stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct TorrentStatus {
    pub(crate) done_bytes: u64,
    pub(crate) download_bytes_per_s: u64,
    pub(crate) upload_bytes_per_s: u64,
    /// Bytes of blocks since it was started.
    pub(crate) downloaded_bytes: u64,
    pub(crate) uploaded_bytes: u64,
    pub(crate) n_peers: usize,
    /// Why it does not go on just now.
    pub(crate) reason: Option<String>,
}

/// A running torrent.
#[derive(Debug)]
pub(crate) struct TorrentHandle {
    control: mpsc::Sender<Control>,
    incoming: mpsc::Sender<OpenPeer>,
    status: watch::Receiver<TorrentStatus>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl TorrentHandle {
    /// Starts a torrent; `reports` hears of it under its name.
    pub(crate) fn start(plan: TorrentPlan, reports: mpsc::Sender<(TorrentName, Report)>) -> Self {
        let (control, control_receiver) = mpsc::channel(CONTROL_MAILBOX);
        let (incoming, incoming_receiver) = mpsc::channel(INCOMING_MAILBOX);
        let (status_sender, status) = watch::channel(TorrentStatus::default());
        let stop = CancellationToken::new();
        let mailboxes =
            task::Mailboxes { control: control_receiver, incoming: incoming_receiver, reports, status: status_sender };
        let task = tokio::spawn(life::run(plan, mailboxes, stop.clone()));
        Self { control, incoming, status, stop, task }
    }

    /// Tells the torrent something. Never waits: a torrent that is too busy to hear of peers has enough of them.
    pub(crate) fn tell(&self, control: Control) {
        if let Err(error) = self.control.try_send(control) {
            tracing::debug!(%error, "a torrent did not hear");
        }
    }

    /// Where the listener hands its connections to.
    pub(crate) fn incoming(&self) -> mpsc::Sender<OpenPeer> {
        self.incoming.clone()
    }

    /// Where others tell it of peers.
    pub(crate) fn control(&self) -> mpsc::Sender<Control> {
        self.control.clone()
    }

    /// Where it stands, as it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<TorrentStatus> {
        self.status.clone()
    }

    /// Where it stands.
    pub(crate) fn status(&self) -> TorrentStatus {
        self.status.borrow().clone()
    }

    /// Whether it ended by itself.
    pub(crate) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Lets it end; what comes back ends with it, its files flushed.
    pub(crate) fn stop(self) -> JoinHandle<()> {
        self.stop.cancel();
        self.task
    }
}

#[cfg(test)]
mod tests;
