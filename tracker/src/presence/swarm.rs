//! One swarm as the tracker sees it: its peers by client key, and the connections that watch it.

use super::ConnectionId;
use crate::store::{TrackerNumber, UserId};
use mini_torrent_common::control::ListingId;
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::tls::PublicKey;
use std::collections::{HashMap, HashSet};

/// Where a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// Here, on this connection.
    Here(ConnectionId),
    /// With another tracker, as the client of this user.
    There(TrackerNumber, UserId),
}

impl At {
    /// The connection of a client that is here.
    pub(super) fn connection(self) -> Option<ConnectionId> {
        match self {
            Self::Here(id) => Some(id),
            Self::There(..) => None,
        }
    }
}

/// A client in a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SwarmPeer {
    /// Where it announced that.
    pub(super) at: At,
    /// Whether it has everything.
    pub(super) complete: bool,
}

/// The peers and watchers of one listing. One client counts once, however many connections it has had.
#[derive(Debug)]
pub(super) struct Swarm {
    pub(super) listing: ListingId,
    pub(super) group: GroupId,
    peers: HashMap<PublicKey, SwarmPeer>,
    n_complete: usize,
    pub(super) watchers: HashSet<ConnectionId>,
}

impl Swarm {
    pub(super) fn new(listing: ListingId, group: GroupId) -> Self {
        Self { listing, group, peers: HashMap::new(), n_complete: 0, watchers: HashSet::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.watchers.is_empty()
    }

    pub(super) fn peer(&self, key: &PublicKey) -> Option<SwarmPeer> {
        self.peers.get(key).copied()
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = (&PublicKey, &SwarmPeer)> {
        self.peers.iter()
    }

    /// Adds or changes a peer; `true` when that made a difference.
    pub(super) fn put(&mut self, key: PublicKey, peer: SwarmPeer) -> bool {
        let before = self.peers.insert(key, peer);
        self.n_complete += usize::from(peer.complete);
        self.n_complete -= usize::from(before.is_some_and(|before| before.complete));
        before != Some(peer)
    }

    /// Removes a peer if it announced itself there; `true` when it was there.
    pub(super) fn remove(&mut self, key: &PublicKey, at: At) -> bool {
        if self.peers.get(key).is_none_or(|peer| peer.at != at) {
            return false;
        }
        let removed = self.peers.remove(key);
        self.n_complete -= usize::from(removed.is_some_and(|peer| peer.complete));
        true
    }

    /// Seeders and leechers.
    pub(super) fn counts(&self) -> (u32, u32) {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (count(self.n_complete), count(self.peers.len() - self.n_complete))
    }
}
