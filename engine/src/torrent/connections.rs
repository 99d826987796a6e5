//! Whom we are connected to: dialling, accepting, one connection a peer, and those who are not welcome.

use super::Torrent;
use crate::event::{Action, Candidate, CloseReason, ConnectionId, Direction, Outgoing, PeerKey};
use crate::misbehavior::PeerMisbehavior;
use crate::peer::Peer;
use std::time::Instant;

impl Torrent {
    pub(super) fn on_peers_found(&mut self, now: Instant, candidates: Vec<Candidate>) {
        for candidate in candidates {
            if candidate.key != self.own_key && !self.banned.contains(candidate.key) {
                let is_connected = self.by_key.contains_key(&candidate.key);
                self.candidates.found(candidate, is_connected, now, &self.limits, &mut self.rng);
            }
        }
        self.dial(now);
    }

    pub(super) fn on_dial_failed(&mut self, now: Instant, key: PeerKey) {
        if !self.by_key.contains_key(&key) {
            self.candidates.ended(key, false, now, &self.limits, &mut self.rng);
        }
        self.dial(now);
    }

    pub(super) fn on_connected(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        key: PeerKey,
        direction: Direction,
        fast: bool,
    ) {
        if self.peers.contains_key(&connection) {
            return;
        }
        if let Some(reason) = self.refusal(now, key, direction) {
            self.candidates_settle(now, key);
            self.actions.push_back(Action::Close { connection, reason });
            return;
        }
        if let Some(other) = self.by_key.get(&key).copied() {
            self.close(now, other, CloseReason::Duplicate);
        }
        self.candidates.connected(key);
        self.by_key.insert(key, connection);
        self.peers.insert(connection, Peer::new(key, direction, fast, now, &self.limits));
        self.send(now, connection, Outgoing::Pieces);
        // Unchoked before it asks, a peer saves a round trip.
        if self.peers.values().filter(|peer| peer.is_unchoked).count() < self.slots.n() {
            self.set_unchoked(now, connection, true);
        }
        self.wake_by(now + self.limits.keep_alive);
    }

    /// Why a new connection is not taken, if it is not.
    fn refusal(&self, now: Instant, key: PeerKey, direction: Direction) -> Option<CloseReason> {
        if key == self.own_key {
            return Some(CloseReason::SelfConnection);
        }
        if self.banned.contains(key) {
            return Some(CloseReason::Barred);
        }
        let existing = self.by_key.get(&key).and_then(|connection| self.peers.get(connection));
        match existing {
            Some(existing) if !self.supersedes(now, direction, existing) => Some(CloseReason::Duplicate),
            None if self.peers.len() >= self.limits.connections.min(10_000) => Some(CloseReason::TooManyConnections),
            _ => None,
        }
    }

    /// Of two connections to one peer, the one that the side with the lower key dialled is kept: both sides say the
    /// same. Of two that the same side dialled the first is kept, unless it is silent: then the peer has likely lost it.
    fn supersedes(&self, now: Instant, direction: Direction, existing: &Peer) -> bool {
        if direction == existing.direction {
            return now.saturating_duration_since(existing.last_received) >= self.limits.snub_after;
        }
        let kept = if self.own_key < existing.key { Direction::Dialled } else { Direction::Accepted };
        direction == kept
    }

    /// A refused connection may be the answer to a dial.
    fn candidates_settle(&mut self, now: Instant, key: PeerKey) {
        if self.by_key.contains_key(&key) {
            self.candidates.connected(key);
        } else {
            self.candidates.ended(key, false, now, &self.limits, &mut self.rng);
        }
    }

    /// Forgets the connection; others take over what it was asked for.
    pub(super) fn remove_peer(&mut self, now: Instant, connection: ConnectionId) {
        let Some(mut peer) = self.peers.remove(&connection) else { return };
        self.by_key.remove(&peer.key);
        self.picker.remove_holder(&peer.held);
        for block in peer.outstanding.release_all() {
            self.picker.release(connection, block);
        }
        if let Some(piece) = peer.current {
            self.picker.disown(connection, piece);
        }
        self.spread.take_back_all(connection);
        let was_useful = peer.download.total_bytes() > 0 || peer.upload.total_bytes() > 0;
        self.candidates.ended(peer.key, was_useful, now, &self.limits, &mut self.rng);
        self.deal_free_slots(now);
        self.offer_all(now);
        self.fill_all(now);
        self.dial(now);
    }

    /// Dials whose turn it is, while there is room.
    pub(super) fn dial(&mut self, now: Instant) {
        if self.is_paused {
            return;
        }
        let seeding = self.is_complete();
        while self.candidates.n_dials() < self.limits.dials
            && self.peers.len() + self.candidates.n_dials()
                < self.limits.connections.min(self.limits.connections_dialling)
        {
            let Some(candidate) = self.candidates.take_due(now, seeding) else { break };
            self.actions.push_back(Action::Dial(candidate));
        }
        let (due, expiry) = self.candidates.deadlines(&self.limits, seeding);
        for at in [due.filter(|at| *at > now), expiry].into_iter().flatten() {
            self.wake_by(at);
        }
    }

    pub(super) fn ban(&mut self, now: Instant, key: PeerKey, reason: PeerMisbehavior) {
        if self.banned.contains(key) {
            return;
        }
        self.banned.insert(key);
        self.candidates.remove(key);
        self.picker.discard(key);
        self.actions.push_back(Action::Ban { key, reason });
        if let Some(connection) = self.by_key.get(&key).copied() {
            self.close(now, connection, CloseReason::Misbehavior(reason));
        }
        self.fill_all(now);
    }

    pub(super) fn on_forget(&mut self, now: Instant, key: PeerKey) {
        self.candidates.remove(key);
        if let Some(connection) = self.by_key.get(&key).copied() {
            self.close(now, connection, CloseReason::Barred);
        }
    }

    pub(super) fn on_resumed(&mut self, now: Instant) {
        self.is_paused = false;
        self.fill_all(now);
        self.dial(now);
    }
}
