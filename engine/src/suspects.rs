//! Corrupt pieces with several contributors: what each sent is remembered until the true bytes are known.

use crate::event::PeerKey;
use mini_torrent_common::geometry::PieceIndex;
use mini_torrent_common::hash::Sha1Hash;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Failed attempts that are remembered of one piece.
const MAX_ATTEMPTS: usize = 8;

/// For each block of a corrupt piece, who sent it and what its digest was.
pub(crate) type Attempt = Vec<(PeerKey, Sha1Hash)>;

/// The corrupt pieces whose liars are not known yet. Bounded: the oldest are let go.
#[derive(Debug)]
pub(crate) struct Suspects {
    attempts: BTreeMap<PieceIndex, VecDeque<Attempt>>,
    by_age: VecDeque<PieceIndex>,
    capacity: usize,
}

impl Suspects {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { attempts: BTreeMap::new(), by_age: VecDeque::new(), capacity }
    }

    /// Remembers a failed attempt; returns a piece that is let go for it.
    pub(crate) fn remember(&mut self, piece: PieceIndex, attempt: Attempt) -> Option<PieceIndex> {
        if self.capacity == 0 {
            return Some(piece);
        }
        let attempts = self.attempts.entry(piece).or_default();
        if attempts.is_empty() {
            self.by_age.push_back(piece);
        }
        if attempts.len() >= MAX_ATTEMPTS {
            attempts.pop_front();
        }
        attempts.push_back(attempt);
        let evicted = if self.by_age.len() > self.capacity { self.by_age.pop_front() } else { None };
        evicted.inspect(|oldest| _ = self.attempts.remove(oldest))
    }

    /// The true digests are known: returns exactly those who sent something else.
    pub(crate) fn judge(&mut self, piece: PieceIndex, digests: Option<&[Sha1Hash]>) -> BTreeSet<PeerKey> {
        let attempts = self.attempts.remove(&piece).unwrap_or_default();
        self.by_age.retain(|other| *other != piece);
        let digests = digests.unwrap_or_default();
        let sent = attempts.iter().flat_map(|attempt| attempt.iter().zip(digests));
        sent.filter(|((_, sent), truth)| sent != *truth).map(|((key, _), _)| *key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mini_torrent_common::geometry::Geometry;

    #[test]
    fn exactly_the_senders_of_wrong_blocks_are_named_over_several_attempts() {
        let piece = Geometry::new(9, 1).unwrap().piece(0).unwrap();
        let [honest, liar, other_liar] = [1, 2, 3].map(|n| PeerKey([n; 32]));
        let [a, b, wrong] = [b"a", b"b", b"x"].map(|bytes| Sha1Hash::of(bytes));
        let mut suspects = Suspects::new(2);
        suspects.remember(piece, vec![(honest, a), (liar, wrong)]);
        suspects.remember(piece, vec![(other_liar, wrong), (honest, b)]);
        assert_eq!(suspects.judge(piece, Some(&[a, b])), [liar, other_liar].into());
        assert!(suspects.judge(piece, Some(&[a, b])).is_empty(), "judged once");
    }

    #[test]
    fn the_oldest_is_let_go() {
        let geometry = Geometry::new(9, 1).unwrap();
        let mut suspects = Suspects::new(2);
        let evicted: Vec<_> = geometry.pieces().take(4).map(|piece| suspects.remember(piece, Vec::new())).collect();
        assert_eq!(evicted, [None, None, geometry.piece(0), geometry.piece(1)]);
        assert_eq!(suspects.attempts.len(), 2);
    }
}
