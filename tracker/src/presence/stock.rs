//! Members and ordinary BitTorrent clients of one swarm: who hears of whom.

use super::{ConnectionId, Presence, State};
use crate::limits;
use mini_torrent_common::control::ListingId;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

/// What a connection has to be told of ordinary clients.
#[derive(Default)]
pub(super) struct StockNews {
    of: HashMap<ListingId, StockChanges>,
    n_addresses: usize,
}

/// What changed in one swarm since its member was last told. What became of an address is looked up when it is told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct StockChanges {
    /// Whether all are to be named, for the member has just announced or watches it.
    pub all: bool,
    /// Clients that came, left or completed.
    pub changed: HashSet<SocketAddr>,
}

/// Which members an ordinary client wants to hear of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WantedMembers {
    /// How many at most.
    pub n: usize,
    /// Only those with its own kind of address.
    pub family_of: Option<SocketAddr>,
    /// Whether it has everything and needs no seeder.
    pub for_seeder: bool,
    /// A random number, that not everybody is told of the same ones.
    pub random: usize,
}

impl Presence {
    /// Names some of the members of a swarm to `take`; returns the seeders and leechers.
    pub(crate) fn members_of(
        &self,
        listing: ListingId,
        wanted: WantedMembers,
        mut take: impl FnMut(SocketAddr),
    ) -> (u32, u32) {
        let state = self.state();
        let Some(swarm) = state.swarms.get(&listing) else { return (0, 0) };
        let (n_seeders, n_leechers) = swarm.counts();
        let n_members = n_seeders as usize + n_leechers as usize;
        // An answer takes the same time in every swarm, and begins at another member each time.
        let n_skipped = wanted.random % n_members.saturating_sub(wanted.n).clamp(1, limits::MAX_MEMBERS_SKIPPED);
        let mut n_left = wanted.n;
        for (_, peer) in swarm.peers().skip(n_skipped).take(wanted.n.saturating_mul(2)) {
            let Some(member) = state.client_at(peer.at) else { continue };
            let address = member.address;
            let is_wanted = wanted.family_of.is_none_or(|asker| asker.is_ipv4() == address.is_ipv4());
            if n_left > 0 && is_wanted && !(wanted.for_seeder && peer.complete) {
                take(address);
                n_left -= 1;
            }
        }
        (n_seeders, n_leechers)
    }

    /// Ordinary clients came to a swarm, left it or completed: everybody who announced or watches it is told soon.
    pub(crate) fn stock_peers_changed(&self, listing: ListingId, addresses: &[SocketAddr]) {
        if addresses.is_empty() {
            return;
        }
        let mut state = self.state();
        let State { connections, swarms, .. } = &mut *state;
        let Some(swarm) = swarms.get(&listing) else { return };
        let concerned =
            swarm.peers().filter_map(|(_, peer)| peer.at.connection()).chain(swarm.watchers.iter().copied());
        for id in concerned {
            let Some(connected) = connections.get_mut(&id) else { continue };
            let news = &mut connected.stock_news;
            let changed = &mut news.of.entry(listing).or_default().changed;
            news.n_addresses += addresses.iter().filter(|address| changed.insert(**address)).count();
            // What ended must be told: a client that does not keep up comes back and asks anew.
            if news.n_addresses > limits::MAX_PENDING_STOCK_PEERS {
                connected.line.close.cancel();
            }
            connected.line.changed.notify_one();
        }
    }

    /// What the connection's client has not been told of ordinary clients yet, by swarm.
    pub(crate) fn take_stock_news(&self, id: ConnectionId) -> Vec<(ListingId, StockChanges)> {
        let mut state = self.state();
        let Some(connected) = state.connections.get_mut(&id) else { return Vec::new() };
        let news = std::mem::take(&mut connected.stock_news).of;
        let is_in = |listing: &ListingId| connected.announced.contains(listing) || connected.watched.contains(listing);
        news.into_iter().filter(|(listing, _)| is_in(listing)).collect()
    }
}

impl State {
    /// The connection's client is told of all ordinary clients in a swarm soon.
    pub(super) fn tell_all_stock_peers(&mut self, id: ConnectionId, listing: ListingId) {
        let Some(connected) = self.connections.get_mut(&id) else { return };
        connected.stock_news.of.entry(listing).or_default().all = true;
        connected.line.changed.notify_one();
    }
}
