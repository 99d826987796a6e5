//! What a peer says. Its numbers are checked here, before anything is decided by them.

use super::Torrent;
use crate::event::{CloseReason, ConnectionId, Message, Outgoing};
use crate::misbehavior::PeerMisbehavior;
use crate::peer::Held;
use mini_torrent_common::bitfield::{Bitfield, BitfieldError};
use std::time::Instant;

impl Torrent {
    pub(super) fn on_message(&mut self, now: Instant, connection: ConnectionId, message: Message) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.last_received = now;
        let is_fast_only = matches!(
            message,
            Message::HaveAll
                | Message::HaveNone
                | Message::Reject { .. }
                | Message::Suggest(_)
                | Message::AllowedFast(_)
        );
        let outcome = if is_fast_only && !peer.fast {
            Err(PeerMisbehavior::FastNotAgreed)
        } else {
            self.dispatch(now, connection, message)
        };
        if let Err(misdeed) = outcome {
            self.punish(now, connection, misdeed);
        }
    }

    fn dispatch(&mut self, now: Instant, connection: ConnectionId, message: Message) -> Result<(), PeerMisbehavior> {
        match message {
            Message::Block { index, begin, length } => return self.on_block(now, connection, index, begin, length),
            Message::Request { index, begin, length } => return self.on_request(now, connection, index, begin, length),
            Message::Bitfield(bytes) => {
                let n_pieces = self.geometry.n_pieces();
                let pieces = Bitfield::from_bytes(&bytes, n_pieces).map_err(|error| match error {
                    BitfieldError::Length => PeerMisbehavior::BitfieldLength,
                    BitfieldError::SpareBit => PeerMisbehavior::BitfieldSpareBit,
                })?;
                self.on_pieces_held(now, connection, held_of(pieces));
            }
            Message::HaveAll => self.on_pieces_held(now, connection, Held::All),
            Message::Have(index) => return self.on_have(now, connection, index),
            Message::ExtendedHandshake { max_requests } => {
                if let (Some(peer), Some(max)) = (self.peers.get_mut(&connection), max_requests) {
                    peer.depth.max_of_peer = max.max(1);
                }
            }
            Message::KeepAlive | Message::Unknown | Message::HaveNone | Message::AllowedFast(_) => {}
            Message::Suggest(index) => self.on_suggest(now, connection, index),
            Message::Choke => self.on_choke(now, connection),
            Message::Unchoke => self.on_unchoke(now, connection),
            Message::Interested => self.on_interest(now, connection, true),
            Message::NotInterested => self.on_interest(now, connection, false),
            Message::Cancel { index, begin, length } => self.on_cancel(now, connection, index, begin, length),
            Message::Reject { index, begin, length } => self.on_reject(now, connection, index, begin, length),
        }
        Ok(())
    }

    /// What a peer has only grows. Clients send a bitfield later, too, where it is shorter than many `have` (aria2 does).
    fn on_pieces_held(&mut self, now: Instant, connection: ConnectionId, held: Held) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        match (&mut peer.held, held) {
            (Held::All, _) | (_, Held::Nothing) => return,
            (Held::Some(before), Held::Some(pieces)) => {
                for piece in self.geometry.pieces().filter(|piece| pieces.contains(*piece)) {
                    if before.insert(piece) {
                        self.picker.add_holder_of(piece);
                    }
                }
            }
            (before, held) => {
                self.picker.remove_holder(before);
                self.picker.add_holder(&held);
                peer.held = held;
            }
        }
        peer.n_wanted = peer.held.n_outside(self.picker.have());
        peer.exhausted = None;
        self.note_seeder(connection);
        self.on_gained_many(now, connection);
        self.review(now, connection);
    }

    fn on_have(&mut self, now: Instant, connection: ConnectionId, index: u32) -> Result<(), PeerMisbehavior> {
        let piece = self.geometry.piece(index).ok_or(PeerMisbehavior::HaveOutOfRange)?;
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        if peer.held.contains(piece) {
            return Ok(());
        }
        if let Held::Nothing = peer.held {
            peer.held = Held::Some(Bitfield::none(self.geometry.n_pieces()));
        }
        if let Held::Some(pieces) = &mut peer.held {
            pieces.insert(piece);
            self.picker.add_holder_of(piece);
        }
        self.on_gained(now, connection, piece);
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        if !self.picker.have().contains(piece) {
            peer.n_wanted += 1;
            peer.exhausted = None;
        }
        self.note_seeder(connection);
        self.review(now, connection);
        Ok(())
    }

    /// A peer that has got every piece counts as a seeder, not as a holder of each.
    fn note_seeder(&mut self, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        if matches!(&peer.held, Held::Some(pieces) if pieces.is_all()) {
            self.picker.remove_holder(&peer.held);
            peer.held = Held::All;
            self.picker.add_holder(&peer.held);
        }
    }

    /// What the peer has, or what we have, changed: is there still something to exchange, and do we want it?
    pub(super) fn review(&mut self, now: Instant, connection: ConnectionId) {
        let is_complete = self.is_complete();
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        if is_complete && peer.held.is_all() {
            // Neither will ever need the other.
            let key = peer.key;
            self.candidates.remove(key);
            self.close(now, connection, CloseReason::NothingToExchange);
            return;
        }
        let wants = peer.n_wanted > 0;
        if wants != peer.are_we_interested {
            peer.are_we_interested = wants;
            let message = if wants { Outgoing::Interested } else { Outgoing::NotInterested };
            self.send(now, connection, message);
        }
        if wants {
            self.fill(now, connection);
        }
    }
}

fn held_of(pieces: Bitfield) -> Held {
    if pieces.is_all() {
        Held::All
    } else if pieces.is_none() {
        Held::Nothing
    } else {
        Held::Some(pieces)
    }
}
