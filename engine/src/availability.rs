//! How many connected peers have each piece, kept so that a random piece among the rarest is found at once.

use mini_torrent_common::bitfield::Bitfield;
use mini_torrent_common::geometry::{Geometry, PieceIndex};
use rand::RngExt;
use rand::rngs::StdRng;

/// A bucket up to this size is searched whole, a larger one by [`N_SAMPLES`] random probes.
const SMALL_BUCKET: usize = 256;
const N_SAMPLES: usize = 24;

/// Holder counts of all pieces, and the *open* pieces (those that may be begun) sorted by them.
///
/// Invariant: `order` is a permutation of all pieces and `position` its inverse; the pieces in
/// `order[starts[k]..starts[k + 1]]` are the open ones with exactly `k` holders, and those from the last start on
/// are not open. So a holder more or less, an opening or a closing is a few swaps at bucket borders.
///
/// Peers that have every piece are not counted here: they change no order. The caller counts them apart.
#[derive(Debug)]
pub(crate) struct Availability {
    geometry: Geometry,
    counts: Vec<u16>,
    order: Vec<u32>,
    position: Vec<u32>,
    /// One start for each possible count, then the start of the pieces that are not open.
    starts: Vec<u32>,
    open: Bitfield,
    /// No open piece lies in a byte of `open` before this one.
    first_open_byte: usize,
}

impl Availability {
    /// All pieces outside `have` are open. At most `max_holders` peers will ever be counted at once.
    pub(crate) fn new(geometry: Geometry, have: &Bitfield, max_holders: u16) -> Self {
        let n_pieces = geometry.n_pieces();
        let (mut order, closed): (Vec<u32>, Vec<u32>) =
            (0..n_pieces).partition(|index| geometry.piece(*index).is_some_and(|piece| !have.contains(piece)));
        let n_open = n_pieces - have.n_set();
        order.extend(closed);
        let mut position = vec![0; n_pieces as usize];
        for (place, index) in (0u32..).zip(&order) {
            if let Some(slot) = position.get_mut(*index as usize) {
                *slot = place;
            }
        }
        let mut open = Bitfield::all(n_pieces);
        geometry.pieces().filter(|piece| have.contains(*piece)).for_each(|piece| _ = open.remove(piece));
        let mut starts = vec![n_open; usize::from(max_holders) + 2];
        if let Some(first) = starts.first_mut() {
            *first = 0;
        }
        Self { geometry, counts: vec![0; n_pieces as usize], order, position, starts, open, first_open_byte: 0 }
    }

    /// Number of pieces that may be begun.
    pub(crate) fn n_open(&self) -> u32 {
        self.open.n_set()
    }

    pub(crate) fn is_open(&self, piece: PieceIndex) -> bool {
        self.open.contains(piece)
    }

    /// Peers that have this piece, those that have every piece not counted.
    pub(crate) fn n_holders(&self, piece: PieceIndex) -> u32 {
        self.counts.get(piece.as_usize()).copied().unwrap_or(0).into()
    }

    /// One more peer has the piece.
    pub(crate) fn add_holder(&mut self, piece: PieceIndex) {
        let bucket = self.count(piece);
        if bucket + 2 >= self.starts.len() {
            return;
        }
        if self.is_open(piece) {
            self.move_up(piece, bucket);
        }
        self.set_count(piece, bucket + 1);
    }

    /// One peer less has the piece.
    pub(crate) fn remove_holder(&mut self, piece: PieceIndex) {
        let bucket = self.count(piece);
        if bucket == 0 {
            return;
        }
        if self.is_open(piece) {
            self.move_down(piece, bucket);
        }
        self.set_count(piece, bucket - 1);
    }

    /// The piece may no longer be begun.
    pub(crate) fn close(&mut self, piece: PieceIndex) {
        if self.open.remove(piece) {
            for bucket in self.count(piece)..self.starts.len() - 1 {
                self.move_up(piece, bucket);
            }
        }
    }

    /// The piece may be begun again.
    pub(crate) fn reopen(&mut self, piece: PieceIndex) {
        if self.open.insert(piece) {
            for bucket in (self.count(piece) + 1..self.starts.len()).rev() {
                self.move_down(piece, bucket);
            }
            self.first_open_byte = self.first_open_byte.min(piece.as_usize() / 8);
        }
    }

    /// A random piece among the open ones with the fewest holders, of those in `held` (`None`: all). A bucket of
    /// more than [`SMALL_BUCKET`] pieces is passed over when [`N_SAMPLES`] draws from it are not held.
    pub(crate) fn rarest(&self, held: Option<&Bitfield>, rng: &mut StdRng) -> Option<PieceIndex> {
        if self.open.is_none() {
            return None;
        }
        // Who has some pieces is counted, so its pieces are in no bucket before the second.
        let first_bucket = usize::from(held.is_some());
        let mut is_certain = true;
        for pair in self.starts.windows(2).skip(first_bucket) {
            let [start, end] = *pair else { continue };
            let bucket = self.order.get(start as usize..end as usize).unwrap_or_default();
            match self.probe(bucket, held, rng) {
                Probe::Found(piece) => return Some(piece),
                Probe::Absent => {}
                Probe::Unknown => is_certain = false,
            }
        }
        if is_certain { None } else { self.search(held?, rng, |piece| self.n_holders(piece)) }
    }

    /// A random open piece of those in `held` (`None`: all).
    pub(crate) fn random(&self, held: Option<&Bitfield>, rng: &mut StdRng) -> Option<PieceIndex> {
        let open = self.order.get(..self.open.n_set() as usize).unwrap_or_default();
        match self.probe(open, held, rng) {
            Probe::Found(piece) => Some(piece),
            Probe::Absent => None,
            Probe::Unknown => self.search(held?, rng, |_| 0),
        }
    }

    /// The open piece with the lowest index, of those in `held` (`None`: all).
    pub(crate) fn lowest(&mut self, held: Option<&Bitfield>) -> Option<PieceIndex> {
        let bytes = self.open.as_bytes();
        while bytes.get(self.first_open_byte) == Some(&0) {
            self.first_open_byte += 1;
        }
        let found = common_pieces(&self.open, held, self.first_open_byte).next();
        found.and_then(|index| self.geometry.piece(index))
    }

    fn probe(&self, bucket: &[u32], held: Option<&Bitfield>, rng: &mut StdRng) -> Probe {
        if bucket.is_empty() {
            return Probe::Absent;
        }
        let from = rng.random_range(0..bucket.len());
        let wanted = |index: u32| {
            let piece = self.geometry.piece(index)?;
            held.is_none_or(|held| held.contains(piece)).then_some(piece)
        };
        if bucket.len() <= SMALL_BUCKET {
            let (before, after) = bucket.split_at(from);
            let found = after.iter().chain(before).find_map(|index| wanted(*index));
            return found.map_or(Probe::Absent, Probe::Found);
        }
        for _ in 0..N_SAMPLES {
            let drawn = bucket.get(rng.random_range(0..bucket.len())).copied();
            if let Some(piece) = drawn.and_then(wanted) {
                return Probe::Found(piece);
            }
        }
        Probe::Unknown
    }

    /// Goes through all that is both open and held, for a peer that has few of the pieces we need.
    fn search(&self, held: &Bitfield, rng: &mut StdRng, cost: impl Fn(PieceIndex) -> u32) -> Option<PieceIndex> {
        let mut best: Option<(u32, PieceIndex)> = None;
        let mut n_equal = 0u32;
        for piece in common_pieces(&self.open, Some(held), 0).filter_map(|index| self.geometry.piece(index)) {
            let cost = cost(piece);
            match best {
                Some((lowest, _)) if cost > lowest => continue,
                Some((lowest, _)) if cost == lowest => n_equal += 1,
                _ => n_equal = 1,
            }
            if n_equal == 1 || rng.random_range(0..n_equal) == 0 {
                best = Some((cost, piece));
            }
        }
        best.map(|(_, piece)| piece)
    }

    fn count(&self, piece: PieceIndex) -> usize {
        self.counts.get(piece.as_usize()).copied().unwrap_or(0).into()
    }

    fn set_count(&mut self, piece: PieceIndex, count: usize) {
        if let (Some(slot), Ok(count)) = (self.counts.get_mut(piece.as_usize()), u16::try_from(count)) {
            *slot = count;
        }
    }

    /// From `bucket` to the next: swap with the bucket's last, then move the border before it.
    fn move_up(&mut self, piece: PieceIndex, bucket: usize) {
        let Some(border) = self.starts.get_mut(bucket + 1) else { return };
        *border -= 1;
        let last = *border;
        self.swap_to(piece, last);
    }

    /// From `bucket` to the one before: swap with the bucket's first, then move the border behind it.
    fn move_down(&mut self, piece: PieceIndex, bucket: usize) {
        let Some(border) = self.starts.get_mut(bucket) else { return };
        let first = *border;
        *border += 1;
        self.swap_to(piece, first);
    }

    fn swap_to(&mut self, piece: PieceIndex, target: u32) {
        let from = self.position.get(piece.as_usize()).copied().unwrap_or(target);
        self.order.swap(from as usize, target as usize);
        for place in [from, target] {
            if let Some(index) = self.order.get(place as usize)
                && let Some(position) = self.position.get_mut(*index as usize)
            {
                *position = place;
            }
        }
    }

    /// Checks the type's invariant the slow way.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        for (place, index) in self.order.iter().enumerate() {
            assert_eq!(self.position[*index as usize] as usize, place);
        }
        assert!(self.starts.is_sorted());
        for piece in self.geometry.pieces() {
            let place = self.position[piece.as_usize()];
            let bucket = self.starts.partition_point(|start| *start <= place) - 1;
            let expected = if self.is_open(piece) { self.count(piece) } else { self.starts.len() - 1 };
            assert_eq!(bucket, expected, "{piece:?}");
        }
    }
}

/// What a quick look into a bucket told.
enum Probe {
    Found(PieceIndex),
    Absent,
    Unknown,
}

/// The indices set in both, in order, from byte `from` on.
fn common_pieces<'a>(open: &'a Bitfield, held: Option<&'a Bitfield>, from: usize) -> impl Iterator<Item = u32> + 'a {
    let bytes = open.as_bytes().iter().enumerate().skip(from);
    let common = bytes.map(move |(at, open)| {
        let held = held.map_or(0xff, |held| held.as_bytes().get(at).copied().unwrap_or(0));
        (at, open & held)
    });
    common.filter(|(_, byte)| *byte != 0).flat_map(|(at, byte)| {
        let first = u32::try_from(at * 8).unwrap_or(u32::MAX);
        (0..8).filter(move |bit| byte & (0x80 >> bit) != 0).map(move |bit| first + bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;

    fn availability(n_pieces: u32) -> Availability {
        let geometry = Geometry::new(n_pieces.into(), 1).unwrap();
        Availability::new(geometry, &Bitfield::none(n_pieces), 20)
    }

    #[test]
    fn the_rarest_piece_held_is_picked_and_ties_are_broken_at_random() {
        let mut availability = availability(300);
        let geometry = availability.geometry;
        let mut rng = StdRng::seed_from_u64(1);
        for piece in geometry.pieces().filter(|piece| piece.get() % 3 != 0) {
            availability.add_holder(piece);
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..2000 {
            let piece = availability.rarest(None, &mut rng).unwrap();
            assert_eq!(piece.get() % 3, 0);
            seen.insert(piece);
        }
        assert!(seen.len() > 95, "{} of 100", seen.len());
        let mut held = Bitfield::none(300);
        held.insert(geometry.piece(7).unwrap());
        assert!(availability.n_holders(geometry.piece(7).unwrap()) > 0);
        assert_eq!(availability.rarest(Some(&held), &mut rng), geometry.piece(7));
        assert_eq!(availability.random(Some(&held), &mut rng), geometry.piece(7));
        assert_eq!(availability.lowest(Some(&held)), geometry.piece(7));
        availability.close(geometry.piece(7).unwrap());
        assert_eq!(availability.rarest(Some(&held), &mut rng), None);
        assert_eq!(availability.lowest(None), geometry.piece(0));
    }

    proptest! {
        #[test]
        fn buckets_agree_with_a_plain_count(ops in prop::collection::vec((0u8..4, 0u32..40), 0..400), seed: u64) {
            let mut availability = availability(40);
            let geometry = availability.geometry;
            let mut rng = StdRng::seed_from_u64(seed);
            let mut counts = [0u32; 40];
            for (op, index) in ops {
                let piece = geometry.piece(index).unwrap();
                let count = &mut counts[index as usize];
                match op {
                    0 => { availability.add_holder(piece); *count = (*count + 1).min(20); }
                    1 => { availability.remove_holder(piece); *count = count.saturating_sub(1); }
                    2 => availability.close(piece),
                    _ => availability.reopen(piece),
                }
            }
            availability.check();
            let open: Vec<_> = geometry.pieces().filter(|piece| availability.is_open(*piece)).collect();
            let rarest = open.iter().map(|piece| counts[piece.as_usize()]).min();
            let picked = availability.rarest(None, &mut rng).map(|piece| counts[piece.as_usize()]);
            prop_assert_eq!(picked, rarest);
            prop_assert_eq!(availability.lowest(None), open.first().copied());
        }
    }
}
