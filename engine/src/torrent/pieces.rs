//! What became of whole pieces: verified, corrupt, lost.

use super::Torrent;
use crate::event::{Action, ConnectionId, Outgoing};
use crate::misbehavior::PeerMisbehavior;
use mini_torrent_common::geometry::PieceIndex;
use mini_torrent_common::hash::Sha1Hash;
use std::time::Instant;

impl Torrent {
    pub(super) fn on_piece_verified(&mut self, now: Instant, piece: PieceIndex, digests: Option<&[Sha1Hash]>) {
        if !self.picker.verified(piece) {
            return;
        }
        let connections: Vec<ConnectionId> = self.peers.keys().copied().collect();
        for connection in &connections {
            let Some(peer) = self.peers.get_mut(connection) else { continue };
            if peer.held.contains(piece) {
                peer.n_wanted = peer.n_wanted.saturating_sub(1);
            }
            // Who has it wants to know, too: a seeder follows how what it gave out spreads.
            self.send(now, *connection, Outgoing::Have(piece));
        }
        if self.is_complete() {
            self.actions.push_back(Action::Completed);
        }
        if self.picker.is_suspect(piece) {
            self.picker.set_suspect(piece, false);
            for liar in self.suspects.judge(piece, digests) {
                self.ban(now, liar, PeerMisbehavior::CorruptBlock);
            }
        }
        // The piece no longer takes room in the buffer, so every peer may have something new to do.
        for connection in connections {
            self.review(now, connection);
        }
    }

    pub(super) fn on_piece_corrupt(&mut self, now: Instant, piece: PieceIndex, digests: &[Sha1Hash]) {
        let Some(senders) = self.picker.corrupt(piece) else { return };
        self.n_corrupt += 1;
        let attempt: Vec<_> = senders.into_iter().flatten().zip(digests.iter().copied()).collect();
        let Some((first, _)) = attempt.first().copied() else { return self.fill_all(now) };
        if attempt.iter().all(|(sender, _)| *sender == first) {
            self.ban(now, first, PeerMisbehavior::CorruptBlock);
        } else {
            self.picker.set_suspect(piece, true);
            if let Some(let_go) = self.suspects.remember(piece, attempt) {
                self.picker.set_suspect(let_go, false);
            }
        }
        self.fill_all(now);
    }

    pub(super) fn on_piece_lost(&mut self, now: Instant, piece: PieceIndex) {
        let was_had = self.have().contains(piece);
        if !self.picker.lost(piece) {
            return;
        }
        let connections: Vec<ConnectionId> = self.peers.keys().copied().collect();
        for connection in connections {
            if let Some(peer) = self.peers.get_mut(&connection)
                && was_had
                && peer.held.contains(piece)
            {
                peer.n_wanted += 1;
            }
            self.review(now, connection);
        }
        self.dial(now);
    }
}
