//! What clients and services do to swarms.

use super::swarm::{At, Swarm, SwarmPeer};
use super::{Client, Connected, ConnectionId, Presence, State};
use crate::limits;
use crate::store::UserId;
use mini_torrent_common::control::{Event, ListingId, MAX_PEERS, PeerContact};
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::tls::PublicKey;
use rand::seq::IteratorRandom;
use std::collections::HashSet;

/// How many removals there have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(u64);

/// An announcement that the rules allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announced {
    /// The client takes part in the swarm of a listing.
    In {
        /// The listing.
        listing: ListingId,
        /// Its group.
        group: GroupId,
        /// Whether the client has everything.
        complete: bool,
    },
    /// The client takes no part any more.
    Gone(ListingId),
}

impl Announced {
    fn listing(&self) -> ListingId {
        match self {
            Self::In { listing, .. } | Self::Gone(listing) => *listing,
        }
    }
}

/// Why an announcement or a watch was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// Something was removed since the facts were read: read them again.
    Outdated,
    /// The connection is not this user's any more.
    SignedOut,
    /// The connection has too many already.
    TooMany,
}

impl Presence {
    /// To be taken before the facts are read that an announcement or a watch rests on.
    pub(crate) fn generation(&self) -> Generation {
        Generation(self.state().generation)
    }

    /// Takes a batch of announcements, all or none.
    ///
    /// # Errors
    /// As [`NotTaken`] says.
    pub(crate) fn announce(
        &self,
        id: ConnectionId,
        user: UserId,
        facts: Generation,
        batch: &[Announced],
    ) -> Result<(), NotTaken> {
        let mut state = self.state();
        let connected = state.check(id, user, facts)?;
        let key = connected.client.key;
        let n_new = batch.iter().filter(|one| !connected.announced.contains(&one.listing())).count();
        if connected.announced.len() + n_new > limits::MAX_ANNOUNCED {
            return Err(NotTaken::TooMany);
        }
        for one in batch {
            match *one {
                Announced::In { listing, group, complete } => {
                    state.enter(id, listing, group, complete);
                    state.tell_all_stock_peers(id, listing);
                }
                Announced::Gone(listing) => {
                    state.leave(id, listing);
                    state.leave_everywhere(listing, key);
                }
            }
        }
        Ok(())
    }

    /// The peers of a swarm, a random sample of a large one; from now on its changes are gathered for this
    /// connection.
    ///
    /// # Errors
    /// As [`NotTaken`] says.
    pub(crate) fn watch(
        &self,
        id: ConnectionId,
        user: UserId,
        facts: Generation,
        listing: ListingId,
        group: GroupId,
    ) -> Result<Vec<PeerContact>, NotTaken> {
        let mut state = self.state();
        let connected = state.check(id, user, facts)?;
        if connected.watched.len() >= limits::MAX_WATCHED && !connected.watched.contains(&listing) {
            return Err(NotTaken::TooMany);
        }
        let key = connected.client.key;
        if let Some(connected) = state.connections.get_mut(&id) {
            connected.watched.insert(listing);
        }
        let swarm = state.swarms.entry(listing).or_insert_with(|| Swarm::new(listing, group));
        swarm.watchers.insert(id);
        let others = swarm.peers().filter(|(other, _)| **other != key).map(|(key, peer)| (*key, *peer));
        let sample = others.sample(&mut rand::rng(), MAX_PEERS);
        state.tell_all_stock_peers(id, listing);
        Ok(sample.into_iter().filter_map(|(key, peer)| state.contact(key, peer)).collect())
    }

    /// No more changes of this swarm for this connection.
    pub(crate) fn unwatch(&self, id: ConnectionId, listing: ListingId) {
        self.state().unwatch(id, listing);
    }

    /// What the connection's client has not been told of yet, one event a swarm.
    pub(crate) fn take_peer_events(&self, id: ConnectionId) -> Vec<Event> {
        let mut state = self.state();
        let Some(connected) = state.connections.get_mut(&id) else { return Vec::new() };
        connected.n_pending = 0;
        let pending = std::mem::take(&mut connected.pending);
        let events = pending.into_iter().map(|(listing, keys)| {
            let (mut came, mut left) = (Vec::new(), Vec::new());
            for key in keys {
                let peer = state.swarms.get(&listing).and_then(|swarm| swarm.peer(&key));
                match peer.and_then(|peer| state.contact(key, peer)) {
                    Some(contact) => came.push(contact),
                    None => left.push(key),
                }
            }
            Event::Peers { listing, came, left }
        });
        events.collect()
    }

    /// Seeders and leechers of each listing.
    pub(crate) fn counts(&self, of: impl IntoIterator<Item = ListingId>) -> Vec<(u32, u32)> {
        let state = self.state();
        of.into_iter().map(|listing| state.swarms.get(&listing).map_or((0, 0), Swarm::counts)).collect()
    }

    /// Every listing that somebody has or watches.
    pub(crate) fn listings(&self) -> Vec<ListingId> {
        self.state().swarms.keys().copied().collect()
    }

    /// Every peer of a swarm.
    pub(crate) fn peers_of(&self, listing: ListingId) -> Vec<PeerContact> {
        let state = self.state();
        let Some(swarm) = state.swarms.get(&listing) else { return Vec::new() };
        swarm.peers().filter_map(|(key, peer)| state.contact(*key, *peer)).collect()
    }

    /// A user is no member of a group any more: it takes no part in the group's swarms and hears nothing of them.
    pub(crate) fn end_membership(&self, user: UserId, group: GroupId) {
        let mut state = self.state();
        state.generation += 1;
        for id in state.connections_of(user) {
            let Some(connected) = state.connections.get(&id) else { continue };
            let of_group = |listing: &&ListingId| state.swarms.get(listing).is_some_and(|swarm| swarm.group == group);
            let listings: HashSet<_> =
                connected.announced.union(&connected.watched).filter(of_group).copied().collect();
            for listing in listings {
                state.leave(id, listing);
                state.unwatch(id, listing);
            }
            state.leave_group(id, group);
        }
        state.leave_elsewhere_if(user, |swarm, _| swarm.group == group);
    }

    /// A user shares a listing no more: it is no seeder of it. A leecher may go on.
    pub(crate) fn end_seeding(&self, user: UserId, listing: ListingId) {
        let mut state = self.state();
        state.generation += 1;
        for id in state.connections_of(user) {
            let Some(key) = state.connections.get(&id).map(|connected| connected.client.key) else { continue };
            let peer = state.swarms.get(&listing).and_then(|swarm| swarm.peer(&key));
            if peer.is_some_and(|peer| peer.complete) {
                state.leave(id, listing);
            }
        }
        state
            .leave_elsewhere_if(user, |swarm, peer| swarm.listing == listing && peer.is_some_and(|peer| peer.complete));
    }

    /// Listings are gone; everybody who announced or watches them is told.
    pub(crate) fn end_listings(&self, listings: &[ListingId]) {
        let mut state = self.state();
        state.generation += 1;
        for listing in listings {
            let Some(swarm) = state.swarms.remove(listing) else { continue };
            let mut concerned = swarm.watchers.clone();
            for (_, peer) in swarm.peers() {
                match peer.at {
                    At::Here(id) => drop(concerned.insert(id)),
                    At::There(tracker, user) => state.forget_announced(tracker, user, *listing),
                }
            }
            let state = &mut *state;
            for id in concerned {
                let Some(connected) = state.connections.get_mut(&id) else { continue };
                if connected.announced.remove(listing)
                    && let Some(user) = connected.claim
                {
                    state.outbox.peer(user, *listing);
                }
                connected.watched.remove(listing);
                if let Some(keys) = connected.pending.remove(listing) {
                    connected.n_pending -= keys.len();
                }
                connected.line.send(Event::ListingEnded { listing: *listing });
            }
        }
    }
}

impl State {
    fn check(&self, id: ConnectionId, user: UserId, facts: Generation) -> Result<&Connected, NotTaken> {
        let connected = self.signed_in(id, user)?;
        if facts.0 == self.generation { Ok(connected) } else { Err(NotTaken::Outdated) }
    }

    /// A connection, if it is this user's.
    pub(super) fn signed_in(&self, id: ConnectionId, user: UserId) -> Result<&Connected, NotTaken> {
        let connected = self.connections.get(&id).ok_or(NotTaken::SignedOut)?;
        let is_its = connected.user.as_ref().is_some_and(|signed_in| signed_in.id == user);
        if is_its { Ok(connected) } else { Err(NotTaken::SignedOut) }
    }

    fn connections_of(&self, user: UserId) -> Vec<ConnectionId> {
        // A user has one session; its connection is where it is.
        self.sessions.get(&user).map(|session| session.connection).into_iter().collect()
    }

    fn contact(&self, key: PublicKey, peer: SwarmPeer) -> Option<PeerContact> {
        let Client { address, peer_id, .. } = *self.client_at(peer.at)?;
        let user = match peer.at {
            At::Here(id) => &self.connections.get(&id)?.user.as_ref()?.name,
            At::There(tracker, user) => &self.elsewhere.get(&tracker)?.get(&user)?.name,
        };
        Some(PeerContact { key, address, peer_id, user: user.clone(), complete: peer.complete })
    }

    /// The client that is connected there.
    pub(super) fn client_at(&self, at: At) -> Option<&Client> {
        match at {
            At::Here(id) => Some(&self.connections.get(&id)?.client),
            At::There(tracker, user) => Some(&self.elsewhere.get(&tracker)?.get(&user)?.client),
        }
    }

    fn enter(&mut self, id: ConnectionId, listing: ListingId, group: GroupId, complete: bool) {
        let Some(connected) = self.connections.get_mut(&id) else { return };
        connected.announced.insert(listing);
        let key = connected.client.key;
        let user = connected.claim;
        let swarm = self.swarms.entry(listing).or_insert_with(|| Swarm::new(listing, group));
        if swarm.put(key, SwarmPeer { at: At::Here(id), complete }) {
            self.tell_watchers(listing, key);
            user.into_iter().for_each(|user| self.outbox.peer(user, listing));
        }
    }

    fn leave(&mut self, id: ConnectionId, listing: ListingId) {
        let Some(connected) = self.connections.get_mut(&id) else { return };
        connected.announced.remove(&listing);
        let (key, user) = (connected.client.key, connected.claim);
        if self.leave_place(listing, key, At::Here(id)) {
            user.into_iter().for_each(|user| self.outbox.peer(user, listing));
        }
    }

    /// Takes a client out of a swarm, if it announced itself there; `true` when it did.
    pub(super) fn leave_place(&mut self, listing: ListingId, key: PublicKey, at: At) -> bool {
        let left = self.swarms.get_mut(&listing).is_some_and(|swarm| swarm.remove(&key, at));
        if left {
            self.tell_watchers(listing, key);
        }
        self.drop_if_empty(listing);
        left
    }

    fn unwatch(&mut self, id: ConnectionId, listing: ListingId) {
        if let Some(connected) = self.connections.get_mut(&id) {
            connected.watched.remove(&listing);
            if let Some(keys) = connected.pending.remove(&listing) {
                connected.n_pending -= keys.len();
            }
        }
        if let Some(swarm) = self.swarms.get_mut(&listing) {
            swarm.watchers.remove(&id);
        }
        self.drop_if_empty(listing);
    }

    fn drop_if_empty(&mut self, listing: ListingId) {
        if self.swarms.get(&listing).is_some_and(Swarm::is_empty) {
            self.swarms.remove(&listing);
        }
    }

    /// Takes a connection out of every swarm, as peer and as watcher.
    pub(super) fn leave_swarms(&mut self, id: ConnectionId) {
        let Some(connected) = self.connections.get_mut(&id) else { return };
        let (announced, watched) = (std::mem::take(&mut connected.announced), std::mem::take(&mut connected.watched));
        for listing in watched {
            self.unwatch(id, listing);
        }
        for listing in announced {
            self.leave(id, listing);
        }
    }

    pub(super) fn tell_watchers(&mut self, listing: ListingId, key: PublicKey) {
        let Some(swarm) = self.swarms.get(&listing) else { return };
        for watcher in &swarm.watchers {
            let Some(connected) = self.connections.get_mut(watcher) else { continue };
            if connected.client.key == key || connected.n_pending >= limits::MAX_PENDING_PEERS {
                continue;
            }
            let keys = connected.pending.entry(listing).or_default();
            // A swarm that changes more than this at once is a sample to its watchers anyway.
            if keys.len() < MAX_PEERS && keys.insert(key) {
                connected.n_pending += 1;
            }
            connected.line.changed.notify_one();
        }
    }
}
