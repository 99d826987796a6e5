//! One torrent: the entry points that the driver calls, and the state they share.

mod clock;
mod connections;
mod download;
mod messages;
mod pieces;
mod slots;
mod spread;
mod upload;

#[cfg(test)]
mod tests;

use crate::barred::Barred;
use crate::candidates::Candidates;
use crate::event::{Action, CloseReason, ConnectionId, Event, Outgoing, PeerKey};
use crate::limits::{Config, Limits};
use crate::misbehavior::PeerMisbehavior;
use crate::peer::Peer;
use crate::picker::Picker;
use crate::rate::Rate;
use crate::spread::Spread;
use crate::stats::{PeerStats, Stats};
use crate::suspects::Suspects;
use slots::Slots;
pub(crate) use spread::Offers;

use mini_torrent_common::bitfield::Bitfield;
use mini_torrent_common::geometry::{Geometry, PieceIndex};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// One swarm seen from one client.
///
/// Four kinds of call: tell it what happened ([`handle`](Self::handle), [`handle_timeout`](Self::handle_timeout)),
/// then drain what it wants done ([`poll_action`](Self::poll_action)), then ask when it wants to be woken
/// ([`poll_timeout`](Self::poll_timeout)), and look at it whenever you like (all that takes `&self`).
#[derive(Debug)]
pub struct Torrent {
    geometry: Geometry,
    own_key: PeerKey,
    limits: Limits,
    rng: StdRng,
    picker: Picker,
    peers: BTreeMap<ConnectionId, Peer>,
    by_key: BTreeMap<PeerKey, ConnectionId>,
    candidates: Candidates,
    banned: Barred,
    suspects: Suspects,
    spread: Spread,
    slots: Slots,
    is_paused: bool,
    /// When the upload slots are dealt anew, while more peers want than there are.
    next_choke_round: Option<Instant>,
    /// When the clock is looked at next; never later than the earliest deadline.
    wake_at: Option<Instant>,
    actions: VecDeque<Action>,
    download: Rate,
    upload: Rate,
    wasted_bytes: u64,
    n_corrupt: u64,
}

impl Torrent {
    /// Starts with what the configuration says we have, and no peer.
    pub fn new(config: Config, now: Instant) -> Self {
        let Config { geometry, have, own_key, piece_order, limits, seed } = config;
        let have = if have.n_pieces() == geometry.n_pieces() { have } else { Bitfield::none(geometry.n_pieces()) };
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            geometry,
            own_key,
            spread: Spread::new(geometry, &mut rng),
            slots: Slots::new(limits.upload_slots),
            rng,
            picker: Picker::new(geometry, have, piece_order, &limits),
            peers: BTreeMap::new(),
            by_key: BTreeMap::new(),
            candidates: Candidates::default(),
            banned: Barred::new(limits.barred_keys),
            suspects: Suspects::new(limits.suspect_pieces),
            is_paused: false,
            next_choke_round: None,
            wake_at: None,
            actions: VecDeque::new(),
            download: Rate::new(now),
            upload: Rate::new(now),
            wasted_bytes: 0,
            n_corrupt: 0,
            limits,
        }
    }

    /// Takes in what happened. Afterwards drain [`Self::poll_action`], before the next event.
    pub fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::PeersFound(candidates) => self.on_peers_found(now, candidates),
            Event::PeerGone(key) => self.candidates.remove(key),
            Event::DialFailed(key) => self.on_dial_failed(now, key),
            Event::Connected { connection, key, direction, fast } => {
                self.on_connected(now, connection, key, direction, fast);
            }
            Event::Disconnected(connection) => self.remove_peer(now, connection),
            Event::Received { connection, message } => self.on_message(now, connection, message),
            Event::Served { connection, block } => self.on_served(now, connection, block),
            Event::PieceVerified { piece, block_digests } => {
                self.on_piece_verified(now, piece, block_digests.as_deref());
            }
            Event::PieceCorrupt { piece, block_digests } => self.on_piece_corrupt(now, piece, &block_digests),
            Event::PieceLost { piece } => self.on_piece_lost(now, piece),
            Event::Paused => self.is_paused = true,
            Event::Resumed => self.on_resumed(now),
            Event::Forget(key) => self.on_forget(now, key),
        }
        self.drop_given_up();
    }

    /// To be called at or after [`Self::poll_timeout`]; earlier or later calls do no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.wake_at.is_some_and(|at| at <= now) {
            self.on_wake(now);
        }
        self.drop_given_up();
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called; `None` when only events can change anything.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wake_at
    }

    /// The verified pieces.
    pub fn have(&self) -> &Bitfield {
        self.picker.have()
    }

    /// Changes [`Limits::buffered_bytes`](crate::Limits::buffered_bytes). What is in progress goes on; no piece is
    /// begun above it.
    pub fn limit_buffer(&mut self, bytes: u64) {
        self.picker.limit_buffer(bytes);
    }

    /// Whether every piece is verified.
    pub fn is_complete(&self) -> bool {
        self.have().is_all()
    }

    /// How many connected peers have this piece.
    pub fn availability(&self, piece: PieceIndex) -> u32 {
        self.picker.n_holders(piece)
    }

    /// Where the torrent stands.
    pub fn stats(&self, now: Instant) -> Stats {
        let have = self.have();
        let last = self.geometry.n_pieces().checked_sub(1).and_then(|index| self.geometry.piece(index));
        let missing_in_last = last
            .filter(|last| have.contains(*last))
            .map_or(0, |last| u64::from(self.geometry.piece_length()) - u64::from(self.geometry.length_of(last)));
        Stats {
            n_have: have.n_set(),
            have_bytes: u64::from(have.n_set()) * u64::from(self.geometry.piece_length()) - missing_in_last,
            n_in_progress: self.picker.n_partials(),
            buffered_bytes: self.picker.reserved_bytes(),
            n_connections: self.peers.len(),
            n_seeders: self.picker.n_seeders(),
            n_candidates: self.candidates.len(),
            n_unchoked: self.peers.values().filter(|peer| peer.is_unchoked).count(),
            downloaded_bytes: self.download.total_bytes(),
            wasted_bytes: self.wasted_bytes,
            uploaded_bytes: self.upload.total_bytes(),
            n_corrupt: self.n_corrupt,
            download_bytes_per_s: self.download.bytes_per_s(now),
            upload_bytes_per_s: self.upload.bytes_per_s(now),
        }
    }

    /// Where each connection stands, by number.
    pub fn peers(&self, now: Instant) -> impl Iterator<Item = PeerStats> {
        let n_pieces = self.geometry.n_pieces();
        self.peers.iter().map(move |(connection, peer)| peer.stats(*connection, now, n_pieces))
    }

    /// Last of all actions, so that nothing stored before is taken for something stored after.
    fn drop_given_up(&mut self) {
        while let Some(piece) = self.picker.take_dropped() {
            self.actions.push_back(Action::Drop { piece });
        }
    }

    fn send(&mut self, now: Instant, connection: ConnectionId, message: Outgoing) {
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.last_sent = now;
            self.actions.push_back(Action::Send { connection, message });
        }
    }

    fn close(&mut self, now: Instant, connection: ConnectionId, reason: CloseReason) {
        self.actions.push_back(Action::Close { connection, reason });
        self.remove_peer(now, connection);
    }

    /// Ends the connection for a misdeed, and the acquaintance for a lie.
    fn punish(&mut self, now: Instant, connection: ConnectionId, misdeed: PeerMisbehavior) {
        match self.peers.get(&connection).map(|peer| peer.key) {
            Some(key) if misdeed.is_lie() => self.ban(now, key, misdeed),
            _ => self.close(now, connection, CloseReason::Misbehavior(misdeed)),
        }
    }

    fn wake_by(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// The connections, from a random one on, so that no number is favoured.
    fn connections_in_random_order(&mut self) -> Vec<ConnectionId> {
        let mut connections: Vec<_> = self.peers.keys().copied().collect();
        let first = Picker::draw(&mut self.rng, connections.len());
        connections.rotate_left(first);
        connections
    }
}
