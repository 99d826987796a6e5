//! What we offer as a seeder: pieces that no peer has, each to one peer, by hints (BEP 6).
//!
//! Left to themselves, leechers choose by chance among the pieces that none of them has, and so they ask for many that
//! another is being sent. Who hears what is offered to it takes that; who does not, or must not, still gets
//! everything that it asks for.

use super::Torrent;
use crate::event::{ConnectionId, Outgoing};
use mini_torrent_common::geometry::PieceIndex;
use std::time::Instant;

/// Offers to a peer that it has not taken up: enough for it to have the next at hand.
const OFFERS_AHEAD: usize = 2;
/// Pieces that a peer is given before another peer has any of them; one more for each that another has got from it.
const UNSPREAD_INITIAL: usize = 4;
/// The most of these. A peer with a slow uplink would keep what it alone has from the others.
const UNSPREAD_MAX: usize = 8;
/// Pieces asked for in spite of offers, one after the other, until a peer is taken not to hear them.
const IGNORED_MAX: u32 = 4;

/// The offers to one peer.
#[derive(Debug)]
pub(crate) struct Offers {
    /// Not taken up yet.
    pieces: Vec<PieceIndex>,
    n_unspread_max: usize,
    last_asked: Option<PieceIndex>,
    n_ignored: u32,
}

impl Default for Offers {
    fn default() -> Self {
        Self { pieces: Vec::new(), n_unspread_max: UNSPREAD_INITIAL, last_asked: None, n_ignored: 0 }
    }
}

impl Torrent {
    /// Tops up what the peer is offered. A sole leecher needs no hints.
    pub(super) fn offer(&mut self, now: Instant, connection: ConnectionId) {
        if !self.is_complete() || self.peers.len() - self.picker.n_seeders() < 2 {
            return;
        }
        while let Some(peer) = self.peers.get_mut(&connection)
            && peer.fast
            && peer.is_unchoked
            && !peer.held.is_all()
            && peer.offers.n_ignored < IGNORED_MAX
            && peer.offers.pieces.len() < OFFERS_AHEAD
            && self.spread.n_given_to(connection) < peer.offers.n_unspread_max
        {
            let picker = &self.picker;
            let Some(piece) = self.spread.give_next(now, connection, |piece| picker.n_holders(piece)) else { return };
            peer.offers.pieces.push(piece);
            self.send(now, connection, Outgoing::Suggest(piece));
        }
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
            && let Some(giver) = self.spread.has_spread(piece)
        {
            if let Some(peer) = self.peers.get_mut(&giver) {
                peer.offers.n_unspread_max = (peer.offers.n_unspread_max + 1).min(UNSPREAD_MAX);
            }
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

    /// What the peer was given goes to others.
    pub(super) fn withdraw_offers(&mut self, now: Instant, connection: ConnectionId) {
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.offers.pieces.clear();
        }
        self.spread.take_back(connection);
        self.offer_all(now);
    }
}
