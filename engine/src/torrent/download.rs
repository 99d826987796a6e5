//! What we ask of peers, and what becomes of the blocks that arrive.

use super::Torrent;
use crate::event::{Action, ConnectionId, Outgoing};
use crate::misbehavior::PeerMisbehavior;
use crate::partial::Arrival;
use crate::picker::Taker;
use mini_torrent_common::geometry::Block;
use std::time::{Duration, Instant};

/// A block is asked of a second peer only when that is expected to win at least this much.
const DUPLICATE_MARGIN: Duration = Duration::from_millis(200);
/// How soon a peer without work looks again for late blocks of others.
const DUPLICATE_RETRY: Duration = Duration::from_millis(100);
/// Suggestions of one peer that are remembered.
const SUGGESTIONS_MAX: usize = 64;
/// So long after its last suggestion or block a peer is expected to suggest more, and nothing else is asked of it.
const SUGGESTION_PATIENCE: Duration = Duration::from_millis(500);
/// Requests go out when this part of the queue is free: each message of its own is a packet and wakes both sides.
const TOP_UP_PART: usize = 8;
/// The most requests that are waited for.
const TOP_UP_MAX: usize = 16;
/// Late blocks that one peer takes over at a time.
const DUPLICATES_AT_ONCE: usize = 32;

impl Torrent {
    /// Tops up the requests of every peer.
    pub(super) fn fill_all(&mut self, now: Instant) {
        if self.is_complete() {
            return;
        }
        for connection in self.connections_in_random_order() {
            self.fill(now, connection);
        }
    }

    /// Tops up the requests of a peer that brings blocks, several at a time.
    fn top_up(&mut self, now: Instant, connection: ConnectionId) {
        let Some(peer) = self.peers.get(&connection) else { return };
        let target = peer.depth.target(&self.limits);
        if peer.outstanding.len() + (target / TOP_UP_PART).clamp(1, TOP_UP_MAX) <= target {
            self.fill(now, connection);
        }
    }

    /// Tops up the requests of one peer.
    pub(super) fn fill(&mut self, now: Instant, connection: ConnectionId) {
        let Some(target) = self.request_target(now, connection) else { return };
        let has_rivals = self.peers.len() > self.picker.n_seeders();
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        let was_idle = peer.outstanding.is_empty();
        let has_rivals = has_rivals && !peer.is_snubbed;
        while peer.outstanding.len() < target {
            let taker = Taker {
                connection,
                held: &peer.held,
                current: &mut peer.current,
                exhausted: &mut peer.exhausted,
                is_snubbed: peer.is_snubbed,
                waits: has_rivals && peer.hears_more_by.is_some(),
                suggested: &mut peer.suggested,
            };
            let Some(block) = self.picker.next_block(taker, &mut self.rng) else { break };
            peer.ask(now, block);
            peer.last_sent = now;
            self.actions.push_back(Action::Send { connection, message: Outgoing::Request(block) });
        }
        let n_outstanding = peer.outstanding.len();
        let waits_until = peer.hears_more_by.filter(|_| has_rivals);
        if was_idle && n_outstanding > 0 {
            self.wake_by(now + self.limits.snub_after);
        }
        if let Some(until) = waits_until {
            self.wake_by(until);
        } else if n_outstanding * 4 <= target {
            self.help_out(now, connection, target);
        }
    }

    /// The peer names a piece that it wants to give us (BEP 6). With others of its kind it is the one who knows best.
    pub(super) fn on_suggest(&mut self, now: Instant, connection: ConnectionId, index: u32) {
        let (Some(piece), Some(peer)) = (self.geometry.piece(index), self.peers.get_mut(&connection)) else { return };
        let is_wanted = peer.held.contains(piece) && !self.picker.have().contains(piece);
        if !is_wanted || !self.picker.heeds_suggestions() {
            return;
        }
        if peer.suggested.len() >= SUGGESTIONS_MAX {
            peer.suggested.pop_front();
        }
        peer.suggested.push_back(piece);
        peer.hears_more_by = Some(now + SUGGESTION_PATIENCE);
        self.fill(now, connection);
    }

    /// How many requests the peer shall have outstanding; `None` when none may be made.
    fn request_target(&self, now: Instant, connection: ConnectionId) -> Option<usize> {
        let peer = self.peers.get(&connection)?;
        if self.is_paused || peer.is_choking_us || peer.n_wanted == 0 || peer.paused_until.is_some_and(|at| now < at) {
            return None;
        }
        if peer.is_snubbed {
            return Some(1);
        }
        let target = peer.depth.target(&self.limits);
        if self.peers.len() <= 1 && self.candidates.n_dials() == 0 {
            return Some(target);
        }
        // Near the end nobody is given more than a share of the rest, so that all holders stay at work.
        let n_sharers = (self.peers.len() + self.candidates.n_dials()).max(2) * 2;
        let share = usize::try_from(self.picker.n_blocks_open()).unwrap_or(usize::MAX) / n_sharers;
        Some(target.min(share.max(peer.depth.floor(&self.limits))))
    }

    /// A peer has nothing to do: it may make room in a full buffer, or take over what others are late with.
    fn help_out(&mut self, now: Instant, connection: ConnectionId, target: usize) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        if now < peer.next_duplicates_at || peer.is_snubbed {
            return;
        }
        peer.next_duplicates_at = now + DUPLICATE_RETRY;
        let is_idle = peer.outstanding.is_empty();
        if is_idle && self.picker.abandon_one() {
            self.fill(now, connection);
            return;
        }
        let late = self.late_blocks(now, connection, target);
        if late.len() >= DUPLICATES_AT_ONCE
            && let Some(peer) = self.peers.get_mut(&connection)
        {
            peer.next_duplicates_at = now;
        }
        for (block, is_stalled) in late {
            if !self.picker.duplicate(block, is_stalled) {
                continue;
            }
            let Some(peer) = self.peers.get_mut(&connection) else { return };
            peer.ask(now, block);
            self.send(now, connection, Outgoing::Request(block));
        }
        if self.picker.n_partials() > 0 {
            self.wake_by(now + DUPLICATE_RETRY);
        }
    }

    /// Blocks outstanding to others that this peer would bring much sooner, those of the slowest first, each with
    /// whether the other is snubbed.
    fn late_blocks(&self, now: Instant, connection: ConnectionId, target: usize) -> Vec<(Block, bool)> {
        let Some(peer) = self.peers.get(&connection) else { return Vec::new() };
        let n_wanted = target.saturating_sub(peer.outstanding.len()).min(DUPLICATES_AT_ONCE);
        let own_wait = peer.promised_wait(now, peer.outstanding.len() + n_wanted);
        let bound = own_wait * 2 + DUPLICATE_MARGIN;
        let mut others: Vec<_> = self
            .peers
            .iter()
            .filter(|(other, _)| **other != connection)
            .map(|(_, other)| (other.expected_wait(now, other.outstanding.len()), other))
            .filter(|(wait, other)| *wait > bound && !other.outstanding.is_empty())
            .collect();
        others.sort_by_key(|(wait, _)| std::cmp::Reverse(*wait));
        let mut late = Vec::new();
        for (_, other) in others {
            // The last in the queue come last, so they gain most.
            for (ahead, request) in other.outstanding.iter().enumerate().rev() {
                if late.len() >= n_wanted || other.expected_wait(now, ahead + 1) <= bound {
                    break;
                }
                let block = request.block;
                let is_new = !late.iter().any(|(known, _)| *known == block) && !peer.outstanding.contains(block);
                if is_new && peer.held.contains(block.piece) {
                    late.push((block, other.is_snubbed));
                }
            }
        }
        late
    }

    /// A block came. If its bytes are wanted, `Store` is the first action.
    pub(super) fn on_block(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        index: u32,
        begin: u32,
        length: u32,
    ) -> Result<(), PeerMisbehavior> {
        let block = self.geometry.block(index, begin, length).ok_or(PeerMisbehavior::BlockOutOfRange)?;
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        let request = peer.outstanding.take(block);
        if request.is_none() && !peer.outstanding.take_released(block) {
            peer.n_unrequested += 1;
            self.wasted_bytes += u64::from(length);
            let is_flood = peer.n_unrequested > self.limits.unrequested_blocks;
            return if is_flood { Err(PeerMisbehavior::UnrequestedBlocks) } else { Ok(()) };
        }
        let key = peer.key;
        peer.last_progress = now;
        peer.is_snubbed = false;
        peer.hears_more_by = peer.hears_more_by.map(|_| now + SUGGESTION_PATIENCE);
        if let Some(request) = request {
            let latency = now.saturating_duration_since(request.sent_at);
            peer.depth.on_block(now, length, latency, &self.limits);
        }
        match self.picker.store(block, key) {
            Arrival::Unwanted => self.wasted_bytes += u64::from(length),
            Arrival::Stored { n_requesters, is_last } => {
                peer.download.record(now, length);
                self.download.record(now, length);
                self.actions.push_back(Action::Store { connection, block });
                if n_requesters > u8::from(request.is_some()) {
                    self.cancel_at_others(now, connection, block);
                }
                if is_last {
                    let with_block_digests = self.picker.is_suspect(block.piece);
                    self.actions.push_back(Action::Verify { piece: block.piece, with_block_digests });
                }
            }
        }
        self.top_up(now, connection);
        Ok(())
    }

    fn cancel_at_others(&mut self, now: Instant, connection: ConnectionId, block: Block) {
        let mut relieved = Vec::new();
        for (other, peer) in self.peers.iter_mut().filter(|(other, _)| **other != connection) {
            if peer.outstanding.take(block).is_some() {
                peer.outstanding.remember(block);
                relieved.push(*other);
            }
        }
        for other in relieved {
            self.send(now, other, Outgoing::Cancel(block));
            self.fill(now, other);
        }
    }

    pub(super) fn on_choke(&mut self, now: Instant, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.is_choking_us = true;
        self.release_requests(connection, None);
        self.fill_all(now);
    }

    pub(super) fn on_unchoke(&mut self, now: Instant, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.is_choking_us = false;
        peer.paused_until = None;
        self.fill(now, connection);
    }

    pub(super) fn on_reject(&mut self, now: Instant, connection: ConnectionId, index: u32, begin: u32, length: u32) {
        let Some(block) = self.geometry.block(index, begin, length) else { return };
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        // After a cancel and a new request of one block, the first rejection answers the cancelled request.
        if peer.outstanding.take_released(block) || peer.outstanding.take(block).is_none() {
            return;
        }
        self.picker.release(connection, block);
        // Asking again at once would turn two machines into a loop.
        let until = now + self.limits.reject_pause;
        peer.paused_until = Some(until);
        if let Some(piece) = peer.current.take() {
            self.picker.disown(connection, piece);
        }
        self.wake_by(until);
        self.fill_all(now);
    }

    /// The peer owes blocks and is silent: others are asked instead, and it is asked for one block at most.
    pub(super) fn snub(&mut self, now: Instant, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.is_snubbed = true;
        peer.depth.on_snub(&self.limits);
        self.release_requests(connection, Some(now));
        for other in self.connections_in_random_order() {
            if other != connection {
                self.fill(now, other);
            }
        }
        self.fill(now, connection);
    }

    /// Gives back what the peer was asked for; with a time, tells it so.
    fn release_requests(&mut self, connection: ConnectionId, cancel_at: Option<Instant>) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        let current = peer.current.take();
        for block in peer.outstanding.release_all() {
            self.picker.release(connection, block);
            if let Some(now) = cancel_at {
                self.send(now, connection, Outgoing::Cancel(block));
            }
        }
        if let Some(piece) = current {
            self.picker.disown(connection, piece);
        }
    }
}
