//! What peers ask of us, and whom we serve.

use super::Torrent;
use crate::choker::{self, Contender};
use crate::event::{Action, ConnectionId, Outgoing};
use crate::misbehavior::PeerMisbehavior;
use mini_torrent_common::geometry::Block;
use std::time::Instant;

impl Torrent {
    pub(super) fn on_request(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        index: u32,
        begin: u32,
        length: u32,
    ) -> Result<(), PeerMisbehavior> {
        if length > self.limits.request_length {
            return Err(PeerMisbehavior::RequestTooLong);
        }
        let block = self.geometry.block(index, begin, length).ok_or(PeerMisbehavior::RequestOutOfRange)?;
        let has_piece = self.have().contains(block.piece);
        let Some(peer) = self.peers.get(&connection) else { return Ok(()) };
        if peer.is_unchoked && !peer.is_interested {
            // Asking is wanting.
            self.on_interest(now, connection, true);
        }
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        if !peer.is_unchoked || !has_piece {
            self.reject(now, connection, block);
            return Ok(());
        }
        if peer.uploads.len() >= self.limits.queued_requests {
            return Err(PeerMisbehavior::TooManyRequests);
        }
        peer.uploads.queued.push_back(block);
        self.see_to_slots(now);
        self.serve(now, connection);
        self.on_asked(now, connection, block.piece);
        Ok(())
    }

    pub(super) fn on_cancel(&mut self, now: Instant, connection: ConnectionId, index: u32, begin: u32, length: u32) {
        let Some(block) = self.geometry.block(index, begin, length) else { return };
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        if let Some(position) = peer.uploads.queued.iter().position(|queued| *queued == block) {
            peer.uploads.queued.remove(position);
            self.reject(now, connection, block);
        } else if peer.uploads.finish(block) {
            self.actions.push_back(Action::CancelServe { connection, block });
            self.reject(now, connection, block);
            self.serve(now, connection);
        }
    }

    pub(super) fn on_served(&mut self, now: Instant, connection: ConnectionId, block: Block) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.last_sent = now;
        peer.upload.record(now, block.length);
        self.upload.record(now, block.length);
        peer.uploads.finish(block);
        self.serve(now, connection);
    }

    pub(super) fn on_interest(&mut self, now: Instant, connection: ConnectionId, is_interested: bool) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        if peer.is_interested == is_interested {
            return;
        }
        peer.is_interested = is_interested;
        if is_interested && peer.is_unchoked {
            let n_served = self.peers.values().filter(|peer| peer.is_unchoked && peer.is_interested).count();
            if n_served > self.slots.n() {
                self.set_unchoked(now, connection, false);
            }
        }
        self.deal_free_slots(now);
    }

    /// Gives free upload slots to those who wait; when more want than there are, sees that rounds take place.
    pub(super) fn deal_free_slots(&mut self, now: Instant) {
        let contenders = self.contenders(now);
        let n_served = contenders.iter().filter(|contender| contender.is_unchoked).count();
        let mut n_free = self.slots.n().saturating_sub(n_served);
        // More may be served than there are slots by now.
        let is_enough = contenders.len() <= self.slots.n();
        let mut waiting = contenders;
        while n_free > 0
            && let Some(connection) = choker::next_in_line(&waiting)
        {
            self.set_unchoked(now, connection, true);
            waiting.retain(|contender| contender.connection != connection);
            n_free -= 1;
        }
        if is_enough {
            self.next_choke_round = None;
        } else {
            let at = *self.next_choke_round.get_or_insert(now + self.limits.choke_round);
            self.wake_by(at);
        }
    }

    /// Deals the upload slots anew.
    pub(super) fn choke_round(&mut self, now: Instant) {
        self.next_choke_round = None;
        let contenders = self.contenders(now);
        let n_optimistic = self.slots.n_optimistic(self.limits.optimistic_slots);
        let chosen = choker::choose(contenders.clone(), self.slots.n(), n_optimistic);
        for contender in contenders {
            self.set_unchoked(now, contender.connection, chosen.contains(&contender.connection));
        }
        self.deal_free_slots(now);
    }

    pub(super) fn set_unchoked(&mut self, now: Instant, connection: ConnectionId, is_unchoked: bool) {
        let Some(peer) = self.peers.get_mut(&connection).filter(|peer| peer.is_unchoked != is_unchoked) else { return };
        peer.is_unchoked = is_unchoked;
        peer.choke_changed_at = now;
        if is_unchoked {
            // Offered before it may ask, so that it asks for that first.
            self.offer(now, connection);
            self.send(now, connection, Outgoing::Unchoke);
            return;
        }
        let uploads = std::mem::take(&mut peer.uploads);
        self.send(now, connection, Outgoing::Choke);
        for block in uploads.serving {
            self.actions.push_back(Action::CancelServe { connection, block });
            self.reject(now, connection, block);
        }
        for block in uploads.queued {
            self.reject(now, connection, block);
        }
        self.withdraw_all(now, connection);
    }

    fn contenders(&self, now: Instant) -> Vec<Contender> {
        let is_complete = self.is_complete();
        let interested = self.peers.iter().filter(|(_, peer)| peer.is_interested);
        let contender = interested.map(|(connection, peer)| Contender {
            connection: *connection,
            is_unchoked: peer.is_unchoked,
            merit_bytes_per_s: if is_complete { peer.upload.bytes_per_s(now) } else { peer.download.bytes_per_s(now) },
            since: peer.choke_changed_at,
        });
        contender.collect()
    }

    /// Passes requests on to the driver, as far as it may read ahead of the socket.
    fn serve(&mut self, now: Instant, connection: ConnectionId) {
        while let Some(peer) = self.peers.get_mut(&connection)
            && let Some(block) = peer.uploads.next(self.limits.serving_bytes)
        {
            // It may have been lost since it was asked for.
            if self.picker.have().contains(block.piece) {
                self.actions.push_back(Action::Serve { connection, block });
            } else {
                peer.uploads.finish(block);
                self.reject(now, connection, block);
            }
        }
    }

    /// Says that a request will not be answered, where the peer understands it (BEP 6).
    fn reject(&mut self, now: Instant, connection: ConnectionId, block: Block) {
        if self.peers.get(&connection).is_some_and(|peer| peer.fast) {
            self.send(now, connection, Outgoing::Reject(block));
        }
    }
}
