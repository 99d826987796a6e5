//! The store's methods about who is online at which tracker, and what goes in and out of them.

use super::queries::online;
use super::{Actor, Result, Store, UserId};
use mini_torrent_common::control::{KeyId, ListingId};
use mini_torrent_common::hash::{GroupId, InfoHash, PeerId};
use mini_torrent_common::names::UserName;
use mini_torrent_common::tls::PublicKey;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Which tracker of its deployment, as `tracker_info.txt` counts them, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TrackerNumber(pub u32);

/// One life of a tracker's process; random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunId(pub [u8; 16]);

/// A tracker in one of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// The tracker.
    pub tracker: TrackerNumber,
    /// The life.
    pub id: RunId,
}

/// Which of a user's sign-ins; later ones have greater numbers, at whatever tracker they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SignIn(pub u64);

/// The session of a client with one tracker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OnlineSession {
    /// Whose it is.
    pub user: UserId,
    /// Its sign-in.
    pub sign_in: SignIn,
    /// The client's key.
    pub key: PublicKey,
    /// Where it accepts peers.
    pub address: SocketAddr,
    /// Its name in swarms.
    pub peer_id: PeerId,
    /// Its program.
    pub agent: String,
    /// How long it had lasted when it was written, in milliseconds.
    pub age_ms: u64,
    /// Whether its connection was lost a moment ago; then it has no peers.
    pub lost: bool,
}

/// What became of a user's session with one tracker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionChange {
    /// It is there.
    There(OnlineSession),
    /// It is over, with everything that its client had.
    Gone {
        /// Whose it was.
        user: UserId,
        /// Its sign-in.
        sign_in: SignIn,
    },
}

/// What became of a client's part in a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OnlinePeer {
    /// Whose client it is.
    pub user: UserId,
    /// The swarm.
    pub listing: ListingId,
    /// Whether it has everything; `None` when it left.
    pub complete: Option<bool>,
}

/// What became of an ordinary client's part in a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OnlineStockClient {
    /// The swarm.
    pub listing: ListingId,
    /// Where it is.
    pub address: SocketAddr,
    /// The key that admitted it; `None` for an open file.
    pub key: Option<KeyId>,
    /// Whether it has everything; `None` when it left.
    pub complete: Option<bool>,
}

/// What changed among a tracker's own clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OnlineChanges {
    /// Whether this replaces everything that the tracker wrote before.
    pub anew: bool,
    /// What is gone since this change or longer is forgotten.
    pub forget_until: u64,
    /// Sessions, each user once.
    pub sessions: Vec<SessionChange>,
    /// Peers, each once; of users whose sessions were written.
    pub peers: Vec<OnlinePeer>,
    /// Ordinary clients, each once in a swarm.
    pub stock: Vec<OnlineStockClient>,
    /// What is to be told to clients elsewhere.
    pub news: Vec<String>,
}

impl OnlineChanges {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        !self.has_rows() && self.forget_until == 0
    }

    /// Whether there is something to read for others.
    pub(crate) fn has_rows(&self) -> bool {
        let Self { anew, sessions, peers, stock, news, .. } = self;
        *anew || !(sessions.is_empty() && peers.is_empty() && stock.is_empty() && news.is_empty())
    }
}

/// How far another tracker's rows were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadSoFar {
    /// The life that wrote them.
    pub run: RunId,
    /// The counter of its life.
    pub heartbeat: u64,
    /// The last change that was read.
    pub change: u64,
    /// Where its rows began when they were read anew.
    pub floor: u64,
    /// Whether there was more than one page.
    pub more: bool,
    /// Whether everything is to be read anew.
    pub anew: bool,
}

/// Another tracker as its rows show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OtherTracker {
    /// Which one.
    pub tracker: TrackerNumber,
    /// How far it is read now.
    pub read: ReadSoFar,
    /// What it wrote since; `None` when its heart has not beaten since, or it was not known before.
    pub page: Option<OnlinePage>,
}

/// Rows of another tracker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OnlinePage {
    /// Whether everything that was read before is void.
    pub anew: bool,
    /// Sessions, with the users' names.
    pub sessions: Vec<(UserName, SessionChange)>,
    /// Peers, with the groups of their swarms.
    pub peers: Vec<(GroupId, OnlinePeer)>,
    /// Ordinary clients, with their swarms' names on the wire.
    pub stock: Vec<(InfoHash, OnlineStockClient)>,
    /// What is to be told here, in its order.
    pub news: Vec<String>,
}

impl Store {
    /// Begins a tracker's life; what an earlier one wrote is gone.
    pub(crate) async fn begin_run(&self, run: Run) -> Result<()> {
        self.database.write(move |tx| online::begin_run(tx, run)).await
    }

    /// Ends a tracker's life with everything that it wrote.
    pub(crate) async fn end_run(&self, run: Run) -> Result<()> {
        self.database.write(move |tx| online::end_run(tx, run)).await
    }

    /// Raises the tracker's heartbeat and writes what changed; returns the number of its last change. Another
    /// life of the same tracker has begun: `NotFound`.
    pub(crate) async fn write_online(&self, run: Run, changes: OnlineChanges) -> Result<u64> {
        self.database.write(move |tx| online::write(tx, run, &changes)).await
    }

    /// All other trackers, each with a page of what it wrote since it was read last.
    pub(crate) async fn other_trackers(
        &self,
        but: TrackerNumber,
        read: BTreeMap<TrackerNumber, ReadSoFar>,
    ) -> Result<Vec<OtherTracker>> {
        self.database.read(move |tx| online::others(tx, but, &read)).await
    }

    /// The last sign-in of a session. Over: refused.
    pub(crate) async fn last_sign_in(&self, actor: Actor) -> Result<SignIn> {
        self.database.read(move |tx| online::last_sign_in(tx, actor)).await
    }

    /// Those of these listings that are gone.
    pub(crate) async fn gone_listings(&self, of: Vec<ListingId>) -> Result<Vec<ListingId>> {
        self.database.read(move |tx| online::gone_listings(tx, &of)).await
    }
}
