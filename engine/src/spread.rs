//! What a seeder has given out, so that each piece leaves it once before any leaves it twice.

use crate::event::ConnectionId;
use mini_torrent_common::geometry::{Geometry, PieceIndex};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Most pieces on their way into the swarm; with more, nothing is offered.
const GIVEN_MAX: usize = 4096;

/// A piece is stuck when no other peer has got it from the one that has it in so many times the usual time.
const STUCK_AFTER_USUAL: u32 = 3;
/// It is not stuck before this.
const STUCK_AFTER_MIN: Duration = Duration::from_millis(750);

/// The pieces on their way into the swarm, and the order in which the others follow.
///
/// The order is a walk through all pieces in steps of `stride`, which shares no factor with their number. A piece that
/// is passed over is given or held; it matters again only when somebody leaves, and then the walk begins another round.
#[derive(Debug)]
pub(crate) struct Spread {
    geometry: Geometry,
    /// Pieces that a peer was offered or asks for, until another has got them from it: whom, and since when it has them.
    given: BTreeMap<PieceIndex, (ConnectionId, Option<Instant>)>,
    next: u32,
    stride: u32,
    /// Pieces passed over one after the other; all of them, and there is nothing to give.
    n_passed: u32,
    /// How long pieces take from one peer to the next, on the average of late.
    usual: Duration,
}

impl Spread {
    pub(crate) fn new(geometry: Geometry, rng: &mut StdRng) -> Self {
        let n_pieces = geometry.n_pieces().max(1);
        let mut stride = rng.random_range(1..=n_pieces);
        while greatest_common_divisor(stride, n_pieces) != 1 {
            stride = stride % n_pieces + 1;
        }
        Self {
            geometry,
            given: BTreeMap::new(),
            next: rng.random_range(0..n_pieces),
            stride,
            n_passed: 0,
            usual: Duration::ZERO,
        }
    }

    /// Gives out the next piece that was not given before and that nobody has; when there is none, one that has not
    /// spread from another peer for too long.
    pub(crate) fn give_next(
        &mut self,
        now: Instant,
        to: ConnectionId,
        n_holders: impl Fn(PieceIndex) -> u32,
    ) -> Option<PieceIndex> {
        let n_pieces = self.geometry.n_pieces();
        while self.n_passed < n_pieces && self.given.len() < GIVEN_MAX {
            let piece = self.geometry.piece(self.next)?;
            self.next = u32::try_from((u64::from(self.next) + u64::from(self.stride)) % u64::from(n_pieces)).ok()?;
            if n_holders(piece) == 0 && !self.given.contains_key(&piece) {
                self.n_passed = 0;
                self.given.insert(piece, (to, None));
                return Some(piece);
            }
            self.n_passed += 1;
        }
        let stuck_since = self.stuck_since(now);
        let is_stuck = |since: &Option<Instant>| since.is_some_and(|since| Some(since) <= stuck_since);
        let (piece, given) = self.given.iter_mut().find(|(_, (from, since))| *from != to && is_stuck(since))?;
        *given = (to, None);
        Some(*piece)
    }

    /// The peer asks for the piece, be it offered or not.
    pub(crate) fn give(&mut self, piece: PieceIndex, to: ConnectionId) {
        if self.given.len() < GIVEN_MAX {
            self.given.entry(piece).or_insert((to, None));
        }
    }

    /// The peer has got the piece, and no other has.
    pub(crate) fn has_arrived(&mut self, now: Instant, piece: PieceIndex, at: ConnectionId) {
        if let Some((to, since)) = self.given.get_mut(&piece)
            && *to == at
        {
            *since = Some(now);
        }
    }

    /// Two peers have the piece: returns who had it from us.
    pub(crate) fn has_spread(&mut self, now: Instant, piece: PieceIndex) -> Option<ConnectionId> {
        let (to, since) = self.given.remove(&piece)?;
        if let Some(since) = since {
            self.usual = self.usual / 8 * 7 + now.saturating_duration_since(since) / 8;
        }
        Some(to)
    }

    /// The peers that have had a piece for too long without another's getting it.
    pub(crate) fn stuck_at(&self, now: Instant) -> BTreeSet<ConnectionId> {
        let stuck_since = self.stuck_since(now);
        let is_stuck = |since: &Option<Instant>| since.is_some_and(|since| Some(since) <= stuck_since);
        self.given.values().filter(|(_, since)| is_stuck(since)).map(|(to, _)| *to).collect()
    }

    /// Whoever has had a piece since then, or for longer, is stuck with it.
    fn stuck_since(&self, now: Instant) -> Option<Instant> {
        now.checked_sub((self.usual * STUCK_AFTER_USUAL).max(STUCK_AFTER_MIN))
    }

    /// The piece may be given to others.
    pub(crate) fn take_back(&mut self, piece: PieceIndex, connection: ConnectionId) {
        if self.given.get(&piece).is_some_and(|(to, _)| *to == connection) {
            self.given.remove(&piece);
            self.n_passed = 0;
        }
    }

    /// What the peer was given may be given to others; so may what only it had.
    pub(crate) fn take_back_all(&mut self, connection: ConnectionId) {
        self.given.retain(|_, (to, _)| *to != connection);
        self.n_passed = 0;
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "an arbitrary origin")]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const PEER: ConnectionId = ConnectionId(1);

    #[test]
    fn each_piece_is_given_once_in_an_order_of_chance() {
        let now = Instant::now();
        for (n_pieces, seed) in [(1, 0), (2, 1), (64, 2), (97, 3), (360, 4)] {
            let geometry = Geometry::new(n_pieces, 1).unwrap();
            let mut spread = Spread::new(geometry, &mut StdRng::seed_from_u64(seed));
            let given: Vec<_> = std::iter::from_fn(|| spread.give_next(now, PEER, |_| 0)).collect();
            assert_eq!(given.iter().collect::<BTreeSet<_>>().len() as u64, n_pieces);
            assert_eq!(given.len() as u64, n_pieces);
        }
    }

    #[test]
    fn what_somebody_has_or_asks_for_is_passed_over_and_what_is_taken_back_comes_again() {
        let now = Instant::now();
        let geometry = Geometry::new(4, 1).unwrap();
        let mut spread = Spread::new(geometry, &mut StdRng::seed_from_u64(1));
        let [held, asked] = [0, 1].map(|index| geometry.piece(index).unwrap());
        spread.give(asked, ConnectionId(2));
        let n_holders = |piece| u32::from(piece == held);
        let given: BTreeSet<_> = std::iter::from_fn(|| spread.give_next(now, PEER, n_holders)).collect();
        assert_eq!(given, [2, 3].map(|index| geometry.piece(index).unwrap()).into());
        spread.take_back_all(ConnectionId(2));
        assert_eq!(spread.give_next(now, PEER, n_holders), Some(asked));
        assert_eq!(spread.has_spread(now, asked), Some(PEER));
    }
}
