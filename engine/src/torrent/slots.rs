//! How many peers we serve at once: on a slow uplink few, so that pieces get through one after the other.
//!
//! Served all at once, the peers of a slow uplink wait for their pieces together, and until then none of them can pass
//! anything on; and what we ourselves ask for waits behind what each of them has in its socket. Nobody tells us the
//! rate of the uplink. What goes out while peers wait is its rate, or it is what they can take: with fewer served, each
//! of them gets more in the first case only.

use super::Torrent;
use std::time::{Duration, Instant};

/// How often the number is looked at while somebody asks.
const REVIEW_INTERVAL: Duration = Duration::from_secs(1);
/// In this time each of the peers that are served shall get a piece.
const PIECE_TIME: Duration = Duration::from_secs(1);
/// Fewest peers that are served at once.
const SLOTS_MIN: usize = 2;
/// Reviews until a cut is judged: in the first interval those that are served change.
const TRIAL_REVIEWS: u32 = 2;
/// How long all slots stay open after it turned out that it was not the uplink that was slow.
const CUT_PAUSE: Duration = Duration::from_secs(60);

/// The upload slots in use, and what their number is judged by.
#[derive(Debug)]
pub(crate) struct Slots {
    n: usize,
    pub(super) next_review: Option<Instant>,
    /// When requests were first waiting, or at the last look, and the bytes uploaded until then.
    last_look: Option<(Instant, u64)>,
    /// Of a cut on trial: the bytes that each peer got before it, and the reviews since.
    trial: Option<(u64, u32)>,
    no_cut_before: Option<Instant>,
}

impl Slots {
    pub(super) fn new(n: usize) -> Self {
        Self { n, next_review: None, last_look: None, trial: None, no_cut_before: None }
    }

    /// Peers that may be served at once.
    pub(super) fn n(&self) -> usize {
        self.n
    }

    /// Of these, those that go round among all.
    pub(super) fn n_optimistic(&self, most: usize) -> usize {
        most.min(self.n.div_ceil(2))
    }

    /// The number of slots for an uplink that brings so many pieces in [`PIECE_TIME`] to so many peers.
    fn review(&mut self, now: Instant, n_pieces: usize, bytes: u64, n_served: usize, max: usize) {
        let each = bytes / u64::try_from(n_served.max(1)).unwrap_or(u64::MAX);
        if let Some((each_before, n_reviews)) = self.trial.take() {
            if n_reviews < TRIAL_REVIEWS {
                self.trial = Some((each_before, n_reviews + 1));
            } else if each < each_before / 4 * 5 {
                self.n = max;
                self.no_cut_before = Some(now + CUT_PAUSE);
            }
            return;
        }
        let n = n_pieces.max(SLOTS_MIN).min(max);
        let is_cut = n < self.n && n * 3 / 2 <= n_served;
        if is_cut && self.no_cut_before.is_none_or(|at| at <= now) {
            self.trial = Some((each, 1));
            self.n = n;
        } else if n > self.n {
            self.n = n;
        }
    }
}

impl Torrent {
    /// Somebody asks for something.
    pub(super) fn see_to_slots(&mut self, now: Instant) {
        if self.slots.next_review.is_none() {
            let at = now + REVIEW_INTERVAL;
            self.slots.next_review = Some(at);
            self.slots.last_look = Some((now, self.upload.total_bytes()));
            self.wake_by(at);
        }
    }

    /// Sets the number of slots by what went out since the last look.
    pub(super) fn review_slots(&mut self, now: Instant) {
        let max = self.limits.upload_slots;
        let n_served = self.peers.values().filter(|peer| peer.is_unchoked && peer.is_interested).count();
        let is_busy = self.peers.values().any(|peer| peer.uploads.len() > 0);
        let sent_bytes = self.upload.total_bytes();
        self.slots.next_review = None;
        let n_before = self.slots.n;
        match self.slots.last_look.take() {
            Some((since, sent_before)) if is_busy => {
                self.see_to_slots(now);
                let elapsed = now.saturating_duration_since(since).as_millis().max(1);
                let bytes = u128::from(sent_bytes - sent_before) * PIECE_TIME.as_millis() / elapsed;
                let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
                let n_pieces = bytes.div_ceil(self.geometry.piece_length().into());
                let n_pieces = usize::try_from(n_pieces).unwrap_or(usize::MAX);
                self.slots.review(now, n_pieces, bytes, n_served, max);
            }
            // Nobody waits: there is room for everybody.
            _ => self.slots.n = max,
        }
        if self.slots.n < n_before {
            self.choke_round(now);
        } else {
            self.deal_free_slots(now);
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "an arbitrary origin")]
mod tests {
    use super::*;

    #[test]
    fn a_slow_uplink_serves_few_and_slow_peers_are_all_served() {
        let start = Instant::now();
        let second = |n| start + Duration::from_secs(n);
        let mut slots = Slots::new(16);
        slots.review(second(1), 2, 1_000_000, 7, 16);
        assert_eq!(slots.n(), 2);
        slots.review(second(2), 1, 200_000, 2, 16);
        assert_eq!(slots.n(), 2, "too early to judge");
        slots.review(second(3), 2, 1_000_000, 2, 16);
        assert_eq!(slots.n(), 2, "each gets more than before");
        slots.review(second(4), 10, 5_000_000, 2, 16);
        assert_eq!(slots.n(), 10);
        slots.review(second(5), 2, 1_000_000, 10, 16);
        slots.review(second(6), 1, 200_000, 2, 16);
        assert_eq!(slots.n(), 2);
        slots.review(second(7), 1, 200_000, 2, 16);
        assert_eq!(slots.n(), 16, "they get no more than before: they cannot take more");
        slots.review(second(8), 2, 1_000_000, 10, 16);
        assert_eq!(slots.n(), 16, "which is not tried again soon");
    }
}
