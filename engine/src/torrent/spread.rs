//! What we offer as a seeder: pieces that no peer has, each to one peer, by hints (BEP 6).
//!
//! Left to themselves, leechers choose by chance among the pieces that none of them has, and so they ask for many that
//! another is being sent. Who hears what is offered to it takes that; who does not, or must not, still gets
//! everything that it asks for.

use super::Torrent;
use crate::event::{ConnectionId, Outgoing};
use crate::peer::Peer;
use mini_torrent_common::geometry::PieceIndex;
use std::time::{Duration, Instant};

/// Offers to a peer that it has not taken up, at least: enough for it to have the next at hand.
const OFFERS_MIN: usize = 2;
/// The most of these.
const OFFERS_MAX: usize = 16;
/// As many more than the least as it took up in so long: on its way an offer is of no use.
const OFFERS_AHEAD: Duration = Duration::from_millis(200);
/// Pieces asked for in spite of offers, one after the other, until a peer is taken not to hear them.
const IGNORED_MAX: u32 = 4;

/// The offers to one peer.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    /// Not taken up yet.
    pieces: Vec<PieceIndex>,
    last_asked: Option<PieceIndex>,
    n_ignored: u32,
    /// Pieces that it has asked for in this window and the one before.
    n_asked: usize,
    n_asked_before: usize,
    window_start: Option<Instant>,
}

impl Offers {
    fn count_asked(&mut self, now: Instant) {
        let age = self.window_start.map(|start| now.saturating_duration_since(start));
        if age.is_none_or(|age| age >= OFFERS_AHEAD) {
            self.n_asked_before = if age.is_some_and(|age| age < OFFERS_AHEAD * 2) { self.n_asked } else { 0 };
            self.n_asked = 0;
            self.window_start = Some(now);
        }
        self.n_asked += 1;
    }

    /// How many pieces it shall have to choose from.
    fn n_ahead(&self) -> usize {
        (OFFERS_MIN + self.n_asked.max(self.n_asked_before)).min(OFFERS_MAX)
    }
}

impl Torrent {
    /// Tops up what the peer is offered. A sole leecher needs no hints.
    pub(super) fn offer(&mut self, now: Instant, connection: ConnectionId) {
        if !self.wants_offers(connection) {
            return;
        }
        // A peer with a slow uplink would keep what it alone has from the others. Where all are slow, that is the pace.
        let stuck = self.spread.stuck_at(now);
        if stuck.contains(&connection) && stuck.len() * 2 <= self.peers.len() {
            return;
        }
        while self.wants_offers(connection) {
            let picker = &self.picker;
            let Some(piece) = self.spread.give_next(now, connection, |piece| picker.n_holders(piece)) else { return };
            let Some(peer) = self.peers.get_mut(&connection) else { return };
            peer.offers.pieces.push(piece);
            self.send(now, connection, Outgoing::Suggest(piece));
        }
    }

    fn wants_offers(&self, connection: ConnectionId) -> bool {
        let n_leechers = self.peers.len().saturating_sub(self.picker.n_seeders());
        let wants_more = |peer: &Peer| {
            let has_room = peer.offers.pieces.len() < peer.offers.n_ahead();
            let may_ask = peer.fast && peer.is_unchoked && !peer.held.is_all();
            may_ask && has_room && peer.offers.n_ignored < IGNORED_MAX
        };
        self.is_complete() && n_leechers >= 2 && self.peers.get(&connection).is_some_and(wants_more)
    }

    pub(super) fn offer_all(&mut self, now: Instant) {
        if self.is_complete() {
            let connections: Vec<_> = self.peers.keys().copied().collect();
            connections.into_iter().for_each(|connection| self.offer(now, connection));
        }
    }

    /// The peer asks for a block of the piece.
    pub(super) fn on_asked(&mut self, now: Instant, connection: ConnectionId, piece: PieceIndex) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        let offers = &mut peer.offers;
        if !self.picker.have().is_all() || offers.last_asked.replace(piece) == Some(piece) {
            return;
        }
        offers.count_asked(now);
        if let Some(position) = offers.pieces.iter().position(|offered| *offered == piece) {
            offers.pieces.swap_remove(position);
            offers.n_ignored = 0;
        } else if !offers.pieces.is_empty() {
            offers.n_ignored += 1;
            if offers.n_ignored == IGNORED_MAX {
                return self.withdraw_offers(now, connection);
            }
        }
        if self.picker.n_holders(piece) == 0 {
            self.spread.give(piece, connection);
        }
        self.offer(now, connection);
    }

    /// A peer has got the piece, from whomever.
    pub(super) fn on_gained(&mut self, now: Instant, connection: ConnectionId, piece: PieceIndex) {
        if !self.is_complete() {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.offers.pieces.retain(|offered| *offered != piece);
        }
        self.spread.has_arrived(now, piece, connection);
        if self.picker.n_holders(piece) >= 2
            && let Some(giver) = self.spread.has_spread(now, piece)
        {
            self.offer(now, giver);
        }
        self.offer(now, connection);
    }

    /// What the peer has turns out to be more than was known.
    pub(super) fn on_gained_many(&mut self, now: Instant, connection: ConnectionId) {
        let Some(peer) = self.peers.get(&connection) else { return };
        if peer.offers.pieces.iter().any(|offered| peer.held.contains(*offered)) {
            self.withdraw_offers(now, connection);
        }
    }

    /// What the peer was offered and has not taken up goes to others.
    fn withdraw_offers(&mut self, now: Instant, connection: ConnectionId) {
        let offers = self.peers.get_mut(&connection).map(|peer| std::mem::take(&mut peer.offers.pieces));
        offers.unwrap_or_default().into_iter().for_each(|piece| self.spread.take_back(piece, connection));
        self.offer_all(now);
    }

    /// Whatever the peer was to get goes to others.
    pub(super) fn withdraw_all(&mut self, now: Instant, connection: ConnectionId) {
        self.spread.take_back_all(connection);
        self.withdraw_offers(now, connection);
    }
}
