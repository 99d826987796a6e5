//! The picker: which block is requested next, and where each piece stands.

use crate::availability::Availability;
use crate::event::{ConnectionId, PeerKey};
use crate::limits::{Limits, PieceOrder};
use crate::partial::{Arrival, Partial, ordinal};
use crate::peer::Held;
use mini_torrent_common::bitfield::Bitfield;
use mini_torrent_common::geometry::{Block, Geometry, PieceIndex};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Where each piece stands.
///
/// Invariant: each piece is in exactly one state. *Missing*: open in `availability`. *In progress*: in `partials`.
/// *Verifying*: in `partials` and marked so. *Have*: in `have`. Of the pieces in progress, those with free blocks are
/// in `owned` when a connection goes through them and in `orphans` when none does; the others are in neither.
#[derive(Debug)]
pub(crate) struct Picker {
    geometry: Geometry,
    have: Bitfield,
    availability: Availability,
    partials: BTreeMap<PieceIndex, Partial>,
    orphans: BTreeSet<PieceIndex>,
    owned: BTreeSet<PieceIndex>,
    /// Pieces that were corrupt with several contributors.
    suspects: BTreeSet<PieceIndex>,
    order: PieceOrder,
    reserved_bytes: u64,
    buffered_limit_bytes: u64,
    requesters_per_block: u8,
    n_verifying: usize,
    n_seeders: usize,
    /// Pieces given up whose bytes the driver still holds.
    dropped: Vec<PieceIndex>,
    /// Raised when a piece becomes missing again, so that peers known to have nothing for us are asked anew.
    epoch: u64,
}

/// The peer for which a block is picked.
pub(crate) struct Taker<'a> {
    pub(crate) connection: ConnectionId,
    pub(crate) held: &'a Held,
    /// The piece that the peer owns.
    pub(crate) current: &'a mut Option<PieceIndex>,
    /// The epoch in which the peer was found to have no missing piece.
    pub(crate) exhausted: &'a mut Option<u64>,
    /// The peer is on probation: it owns nothing, so that others go on with what it began.
    pub(crate) is_snubbed: bool,
    /// What the peer suggested, oldest first.
    pub(crate) suggested: &'a mut VecDeque<PieceIndex>,
    /// The peer will suggest more: of its own choice the taker begins nothing.
    pub(crate) waits: bool,
}

impl Picker {
    pub(crate) fn new(geometry: Geometry, have: Bitfield, order: PieceOrder, limits: &Limits) -> Self {
        let max_holders = u16::try_from(limits.connections.min(10_000)).unwrap_or(u16::MAX);
        Self {
            availability: Availability::new(geometry, &have, max_holders),
            geometry,
            have,
            partials: BTreeMap::new(),
            orphans: BTreeSet::new(),
            owned: BTreeSet::new(),
            suspects: BTreeSet::new(),
            order,
            reserved_bytes: 0,
            buffered_limit_bytes: limits.buffered_bytes,
            requesters_per_block: limits.requesters_per_block.max(1),
            n_verifying: 0,
            n_seeders: 0,
            dropped: Vec::new(),
            epoch: 0,
        }
    }

    pub(crate) fn have(&self) -> &Bitfield {
        &self.have
    }

    pub(crate) fn n_seeders(&self) -> usize {
        self.n_seeders
    }

    pub(crate) fn n_partials(&self) -> usize {
        self.partials.len()
    }

    pub(crate) fn limit_buffer(&mut self, bytes: u64) {
        self.buffered_limit_bytes = bytes;
    }

    /// Bytes of the pieces begun and not yet verified, counted whole.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    /// Connected peers that have the piece.
    pub(crate) fn n_holders(&self, piece: PieceIndex) -> u32 {
        self.availability.n_holders(piece).saturating_add(u32::try_from(self.n_seeders).unwrap_or(u32::MAX))
    }

    /// Roughly how many blocks nobody was asked for.
    pub(crate) fn n_blocks_open(&self) -> u64 {
        let per_piece = self.geometry.piece_length().div_ceil(mini_torrent_common::geometry::BLOCK_LENGTH);
        u64::from(self.availability.n_open()) * u64::from(per_piece)
    }

    // What peers have.

    pub(crate) fn add_holder(&mut self, held: &Held) {
        match held {
            Held::Nothing => {}
            Held::All => self.n_seeders += 1,
            Held::Some(pieces) => {
                for piece in self.geometry.pieces().filter(|piece| pieces.contains(*piece)) {
                    self.availability.add_holder(piece);
                }
            }
        }
    }

    pub(crate) fn remove_holder(&mut self, held: &Held) {
        match held {
            Held::Nothing => {}
            Held::All => self.n_seeders = self.n_seeders.saturating_sub(1),
            Held::Some(pieces) => {
                for piece in self.geometry.pieces().filter(|piece| pieces.contains(*piece)) {
                    self.availability.remove_holder(piece);
                }
            }
        }
    }

    pub(crate) fn add_holder_of(&mut self, piece: PieceIndex) {
        self.availability.add_holder(piece);
    }

    // What to request.

    /// The next block for a peer: of the piece it owns, of one that nobody goes on with, of a new one, or, when no
    /// new one may be begun, of one that another peer owns.
    pub(crate) fn next_block(&mut self, mut taker: Taker<'_>, rng: &mut StdRng) -> Option<Block> {
        if let Some(block) = taker.current.and_then(|piece| self.take_first(piece, &mut taker)) {
            return Some(block);
        }
        *taker.current = None;
        let piece = self.adoptable(&taker).or_else(|| self.begin_suggested(&mut taker));
        if let Some(piece) = piece.or_else(|| self.begin(&mut taker, rng)) {
            *taker.current = Some(piece);
            return self.take_first(piece, &mut taker);
        }
        if let Some(block) = self.join_suggested(&mut taker) {
            return Some(block);
        }
        if taker.waits { None } else { self.join(&taker) }
    }

    /// Whether what peers suggest decides over what is begun.
    pub(crate) fn heeds_suggestions(&self) -> bool {
        self.order == PieceOrder::Rarest
    }

    /// Whether a further peer may be asked for this requested block; counts it if so.
    pub(crate) fn duplicate(&mut self, block: Block, owner_is_stalled: bool) -> bool {
        let Some(nth) = ordinal(&self.geometry, block) else { return false };
        let max = self.requesters_per_block;
        self.partials
            .get_mut(&block.piece)
            .is_some_and(|partial| (owner_is_stalled || !partial.is_suspect) && partial.duplicate(nth, max))
    }

    /// The connection is no longer asked for the block.
    pub(crate) fn release(&mut self, connection: ConnectionId, block: Block) {
        let Some(nth) = ordinal(&self.geometry, block) else { return };
        let Some(partial) = self.partials.get_mut(&block.piece) else { return };
        let is_free_now = partial.release(nth);
        if partial.owner == Some(connection) {
            partial.owner = None;
        } else if !is_free_now {
            return;
        }
        if partial.is_untouched() && partial.owner.is_none() {
            self.put_back(block.piece);
        } else {
            self.file(block.piece);
        }
    }

    /// The connection no longer goes through the piece.
    pub(crate) fn disown(&mut self, connection: ConnectionId, piece: PieceIndex) {
        let Some(partial) = self.partials.get_mut(&piece).filter(|partial| partial.owner == Some(connection)) else {
            return;
        };
        partial.owner = None;
        if partial.is_untouched() {
            self.put_back(piece);
        } else {
            self.file(piece);
        }
    }

    /// Makes room when the buffer is full of pieces that nobody brings: the one with the least loss is missing again.
    pub(crate) fn abandon_one(&mut self) -> bool {
        if self.availability.n_open() == 0 || self.has_room(self.geometry.piece_length()) {
            return false;
        }
        let partial_of = |piece: &PieceIndex| Some((*piece, self.partials.get(piece)?));
        let idle = self.orphans.iter().filter_map(partial_of).filter(|(_, partial)| partial.is_idle());
        let least = idle.min_by_key(|(_, partial)| partial.n_stored()).map(|(piece, _)| piece);
        least.inspect(|piece| self.put_back(*piece)).is_some()
    }

    /// A piece given up whose bytes the driver still holds; each is named once.
    pub(crate) fn take_dropped(&mut self) -> Option<PieceIndex> {
        self.dropped.pop()
    }

    fn take_first(&mut self, piece: PieceIndex, taker: &mut Taker<'_>) -> Option<Block> {
        let partial = self.partials.get_mut(&piece).filter(|partial| !partial.is_verifying)?;
        if partial.owner.is_some_and(|owner| owner != taker.connection) {
            return None;
        }
        let nth = partial.take_first()?;
        let owner = (partial.has_free() && !taker.is_snubbed).then_some(taker.connection);
        if owner.is_none() {
            *taker.current = None;
        }
        let is_new_owner = std::mem::replace(&mut partial.owner, owner) != owner;
        if is_new_owner || owner.is_none() {
            self.file(piece);
        }
        self.geometry.nth_block(piece, nth)
    }

    fn adoptable(&mut self, taker: &Taker<'_>) -> Option<PieceIndex> {
        let piece = self.orphans.iter().copied().find(|piece| taker.held.contains(*piece))?;
        self.partials.get_mut(&piece)?.owner = Some(taker.connection);
        self.file(piece);
        Some(piece)
    }

    fn begin(&mut self, taker: &mut Taker<'_>, rng: &mut StdRng) -> Option<PieceIndex> {
        if taker.waits
            || *taker.exhausted == Some(self.epoch)
            || self.availability.n_open() == 0
            || !self.has_room(self.geometry.piece_length())
        {
            return None;
        }
        let held = match taker.held {
            Held::Nothing => return None,
            Held::Some(pieces) => Some(pieces),
            Held::All => None,
        };
        let picked = match self.order {
            PieceOrder::Rarest => self.availability.rarest(held, rng),
            PieceOrder::Random => self.availability.random(held, rng),
            PieceOrder::Sequential => self.availability.lowest(held),
        };
        let Some(piece) = picked else {
            *taker.exhausted = Some(self.epoch);
            return None;
        };
        self.open_partial(piece, taker.connection);
        Some(piece)
    }

    /// Begins the first of the suggested pieces that is still missing.
    fn begin_suggested(&mut self, taker: &mut Taker<'_>) -> Option<PieceIndex> {
        if taker.suggested.is_empty() || !self.has_room(self.geometry.piece_length()) {
            return None;
        }
        let is_open = |piece: &PieceIndex| self.availability.is_open(*piece) && taker.held.contains(*piece);
        let position = taker.suggested.iter().position(is_open)?;
        let piece = taker.suggested.remove(position)?;
        self.open_partial(piece, taker.connection);
        Some(piece)
    }

    /// Helps with a suggested piece that another peer is slow with.
    fn join_suggested(&mut self, taker: &mut Taker<'_>) -> Option<Block> {
        while let Some(piece) = taker.suggested.front().copied() {
            if self.availability.is_open(piece) {
                // There is no room to begin it; later there will be.
                return None;
            }
            let partial =
                self.partials.get_mut(&piece).filter(|partial| !partial.is_suspect && taker.held.contains(piece));
            if let Some(nth) = partial.and_then(Partial::take_last) {
                self.file(piece);
                return self.geometry.nth_block(piece, nth);
            }
            taker.suggested.pop_front();
        }
        None
    }

    fn open_partial(&mut self, piece: PieceIndex, owner: ConnectionId) {
        self.availability.close(piece);
        let partial = Partial::new(&self.geometry, piece, owner, self.suspects.contains(&piece));
        self.partials.insert(piece, partial);
        self.reserved_bytes += u64::from(self.geometry.length_of(piece));
        self.file(piece);
    }

    /// Helps the peer that has most of its piece before it. A suspect piece is left to its one peer.
    fn join(&mut self, taker: &Taker<'_>) -> Option<Block> {
        let partial_of = |piece: &PieceIndex| Some((*piece, self.partials.get(piece)?));
        let joinable = self.owned.iter().filter(|piece| taker.held.contains(**piece)).filter_map(partial_of);
        let (piece, _) =
            joinable.filter(|(_, partial)| !partial.is_suspect).max_by_key(|(_, partial)| partial.n_free())?;
        let nth = self.partials.get_mut(&piece)?.take_last()?;
        self.file(piece);
        self.geometry.nth_block(piece, nth)
    }

    fn has_room(&self, length: u32) -> bool {
        (self.partials.len() == self.n_verifying && self.n_verifying <= 1)
            || self.reserved_bytes + u64::from(length) <= self.buffered_limit_bytes
    }

    // What arrived.

    pub(crate) fn store(&mut self, block: Block, key: PeerKey) -> Arrival {
        let Some(nth) = ordinal(&self.geometry, block) else { return Arrival::Unwanted };
        let Some(partial) = self.partials.get_mut(&block.piece) else { return Arrival::Unwanted };
        let arrival = partial.store(nth, key);
        match arrival {
            Arrival::Stored { is_last: true, .. } => {
                partial.is_verifying = true;
                partial.owner = None;
                self.n_verifying += 1;
                self.file(block.piece);
            }
            Arrival::Stored { n_requesters: 0, .. } => self.file(block.piece),
            _ => {}
        }
        arrival
    }

    pub(crate) fn is_suspect(&self, piece: PieceIndex) -> bool {
        self.suspects.contains(&piece)
    }

    /// Marks or clears the piece as one that one peer shall bring alone.
    pub(crate) fn set_suspect(&mut self, piece: PieceIndex, is_suspect: bool) {
        if is_suspect {
            self.suspects.insert(piece);
        } else {
            self.suspects.remove(&piece);
        }
    }

    /// Verifying to have; returns false when the piece is in another state.
    pub(crate) fn verified(&mut self, piece: PieceIndex) -> bool {
        let is_verifying = self.is_verifying(piece);
        if is_verifying {
            self.remove_partial(piece);
            self.have.insert(piece);
        }
        is_verifying
    }

    /// Verifying to missing; returns who sent each block, or `None` when the piece is in another state.
    pub(crate) fn corrupt(&mut self, piece: PieceIndex) -> Option<Vec<Option<PeerKey>>> {
        let senders = self.partials.get(&piece).filter(|partial| partial.is_verifying)?.senders();
        self.put_back(piece);
        Some(senders)
    }

    /// Any state to missing; returns whether that changed anything.
    pub(crate) fn lost(&mut self, piece: PieceIndex) -> bool {
        let was_had = self.have.remove(piece);
        if was_had {
            self.availability.reopen(piece);
            self.epoch += 1;
        }
        let is_verifying = self.is_verifying(piece);
        if is_verifying {
            self.put_back(piece);
        }
        was_had || is_verifying
    }

    /// Frees what a liar sent of the pieces in progress.
    pub(crate) fn discard(&mut self, key: PeerKey) {
        let in_progress = self.partials.iter_mut().filter(|(_, partial)| !partial.is_verifying);
        let touched: Vec<_> =
            in_progress.filter_map(|(piece, partial)| partial.discard(key).then_some(*piece)).collect();
        for piece in touched {
            if self.partials.get(&piece).is_some_and(|partial| partial.is_untouched() && partial.owner.is_none()) {
                self.put_back(piece);
            } else {
                self.file(piece);
            }
        }
    }

    fn is_verifying(&self, piece: PieceIndex) -> bool {
        self.partials.get(&piece).is_some_and(|partial| partial.is_verifying)
    }

    fn put_back(&mut self, piece: PieceIndex) {
        self.remove_partial(piece);
        self.availability.reopen(piece);
        self.epoch += 1;
    }

    fn remove_partial(&mut self, piece: PieceIndex) {
        if let Some(partial) = self.partials.remove(&piece) {
            self.reserved_bytes -= u64::from(self.geometry.length_of(piece));
            self.n_verifying -= usize::from(partial.is_verifying);
            // What is under verification the driver lets go by itself.
            if partial.is_buffered && !partial.is_verifying {
                self.dropped.push(piece);
            }
        }
        self.file(piece);
    }

    /// Puts the piece into `orphans` or `owned`, or neither, as its blocks and owner are now. Without free blocks it
    /// has no owner: one that becomes free later is anybody's.
    fn file(&mut self, piece: PieceIndex) {
        if let Some(partial) = self.partials.get_mut(&piece).filter(|partial| !partial.has_free()) {
            partial.owner = None;
        }
        let partial = self.partials.get(&piece).filter(|partial| partial.has_free() && !partial.is_verifying);
        let (is_orphan, is_owned) = partial.map_or((false, false), |p| (p.owner.is_none(), p.owner.is_some()));
        for (set, belongs) in [(&mut self.orphans, is_orphan), (&mut self.owned, is_owned)] {
            if belongs {
                set.insert(piece);
            } else {
                set.remove(&piece);
            }
        }
    }

    /// A random number below `n`, for the order in which equals are served.
    pub(crate) fn draw(rng: &mut StdRng, n: usize) -> usize {
        if n == 0 { 0 } else { rng.random_range(0..n) }
    }

    /// Checks the type's invariant the slow way.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.availability.check();
        let mut reserved_bytes = 0;
        for piece in self.geometry.pieces() {
            let partial = self.partials.get(&piece);
            let states = [self.have.contains(piece), self.availability.is_open(piece), partial.is_some()];
            assert_eq!(states.iter().filter(|state| **state).count(), 1, "{piece:?} {states:?}");
            let is_free = partial.is_some_and(|partial| partial.has_free() && !partial.is_verifying);
            let is_owned = partial.is_some_and(|partial| partial.owner.is_some());
            assert_eq!(self.orphans.contains(&piece), is_free && !is_owned, "{piece:?}");
            assert_eq!(self.owned.contains(&piece), is_free && is_owned, "{piece:?}");
            if let Some(partial) = partial {
                partial.check();
                reserved_bytes += u64::from(self.geometry.length_of(piece));
            }
        }
        assert_eq!(reserved_bytes, self.reserved_bytes);
        assert_eq!(self.partials.values().filter(|partial| partial.is_verifying).count(), self.n_verifying);
    }

    /// Who goes through the piece.
    #[cfg(test)]
    pub(crate) fn owners(&self) -> Vec<(PieceIndex, ConnectionId)> {
        self.partials.iter().filter_map(|(piece, partial)| Some((*piece, partial.owner?))).collect()
    }

    /// How many peers each block of a piece in progress is requested from.
    #[cfg(test)]
    pub(crate) fn requesters(&self) -> BTreeMap<Block, u8> {
        let mut requesters = BTreeMap::new();
        for (piece, partial) in &self.partials {
            for (nth, n) in (0u32..).zip(partial.requesters()).filter(|(_, n)| *n > 0) {
                requesters.extend(self.geometry.nth_block(*piece, nth).map(|block| (block, n)));
            }
        }
        requesters
    }
}
