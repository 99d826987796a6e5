//! How many peers we serve at once: few at first, and more as long as that brings more.
//!
//! Served all at once, the peers of a slow uplink wait for their pieces together, and until then none of them can pass
//! anything on; what we ourselves ask for waits behind what each of them has in its socket; and each packet is small, for
//! the kernel paces every connection by its own rate. Nobody tells us the rate of the uplink. Where what goes out is much
//! for each that is served, there is room for others. Else it is tried now and then whether more are brought more.

use super::Torrent;
use std::time::{Duration, Instant};

/// Peers that are served at once until it is known that more are of use.
const SLOTS_FEW: usize = 6;
/// With so many bytes a second for each that is served, there is room for others.
const PLENTY_BYTES_PER_S: u64 = 5_000_000;
/// How often the number is looked at while somebody asks.
const REVIEW_INTERVAL: Duration = Duration::from_millis(100);
/// How long the number stands until it is tried whether more slots bring more.
const TRIAL_INTERVAL: Duration = Duration::from_secs(5);
/// The same after a trial that brought nothing.
const TRIAL_PAUSE: Duration = Duration::from_secs(60);
/// How long a trial takes.
const TRIAL_TIME: Duration = Duration::from_secs(3);
/// The beginning of a trial, in which new connections get up to speed, does not count.
const SETTLING_TIME: Duration = Duration::from_millis(500);

/// The upload slots in use, and what their number is judged by.
#[derive(Debug)]
pub(crate) struct Slots {
    n: usize,
    max: usize,
    /// How many there was room for at the last review.
    n_plenty: usize,
    pub(super) next_review: Option<Instant>,
    last_look: Option<Mark>,
    /// From when on it is measured what this number of slots brings.
    counted_from: Option<Mark>,
    trial: Option<Trial>,
    next_trial: Option<Instant>,
}

/// How much had been uploaded at a time.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    sent_bytes: u64,
}

impl Mark {
    /// What was uploaded in a second, on average, from here to there.
    fn bytes_per_s_until(self, later: Self) -> u64 {
        let millis = later.at.saturating_duration_since(self.at).as_millis().max(1);
        let bytes = later.sent_bytes.saturating_sub(self.sent_bytes);
        u64::try_from(u128::from(bytes) * 1000 / millis).unwrap_or(u64::MAX)
    }
}

/// More slots than before, to see what they bring.
#[derive(Debug)]
struct Trial {
    n_before: usize,
    bytes_per_s_before: u64,
    began: Instant,
}

impl Slots {
    pub(super) fn new(max: usize) -> Self {
        let n = SLOTS_FEW.min(max);
        Self {
            n,
            max,
            n_plenty: 0,
            next_review: None,
            last_look: None,
            counted_from: None,
            trial: None,
            next_trial: None,
        }
    }

    /// Peers that may be served at once.
    pub(super) fn n(&self) -> usize {
        self.n
    }

    /// Of these, those that go round among all.
    pub(super) fn n_optimistic(&self, most: usize) -> usize {
        most.min(self.n.div_ceil(2))
    }

    /// Sets the number of slots by what was uploaded until now; others may be waiting for one.
    fn review(&mut self, now: Mark, is_wanted: bool) {
        let bytes_per_s = self.last_look.replace(now).map_or(0, |last| last.bytes_per_s_until(now));
        let n_plenty = usize::try_from(bytes_per_s / PLENTY_BYTES_PER_S).unwrap_or(usize::MAX);
        // Twice in a row, for at first the sockets take more than the uplink.
        let n_sure = n_plenty.min(std::mem::replace(&mut self.n_plenty, n_plenty));
        if n_sure > self.n {
            self.n = n_sure.min(self.max);
            self.trial = None;
            self.count_from(now, TRIAL_INTERVAL);
        }
        let counted_from = *self.counted_from.get_or_insert(now);
        let next_trial = *self.next_trial.get_or_insert(now.at + TRIAL_INTERVAL);
        match self.trial.take() {
            Some(trial) if now.at < trial.began + TRIAL_TIME => {
                if now.at <= trial.began + SETTLING_TIME {
                    self.counted_from = Some(now);
                }
                self.trial = Some(trial);
            }
            Some(trial) => {
                let brought_more = counted_from.bytes_per_s_until(now) > trial.bytes_per_s_before / 8 * 9;
                if !brought_more {
                    self.n = trial.n_before;
                }
                self.count_from(now, if brought_more { TRIAL_INTERVAL } else { TRIAL_PAUSE });
            }
            None if is_wanted && now.at >= next_trial && self.n < self.max => {
                let bytes_per_s_before = counted_from.bytes_per_s_until(now);
                self.trial = Some(Trial { n_before: self.n, bytes_per_s_before, began: now.at });
                self.n = (self.n * 3).div_ceil(2).min(self.max);
            }
            None => {}
        }
    }

    /// Measures anew; the next trial comes so much later.
    fn count_from(&mut self, now: Mark, until_trial: Duration) {
        self.counted_from = Some(now);
        self.next_trial = Some(now.at + until_trial);
    }

    /// Nobody asks for anything any more: what a trial has raised is taken back, and what was measured is over.
    fn rest(&mut self) {
        let n = self.trial.take().map_or(self.n, |trial| trial.n_before);
        *self = Self { n, ..Self::new(self.max) };
    }
}

impl Torrent {
    /// Somebody asks for something.
    pub(super) fn see_to_slots(&mut self, now: Instant) {
        if self.slots.next_review.is_none() {
            let at = now + REVIEW_INTERVAL;
            self.slots.next_review = Some(at);
            self.slots.last_look.get_or_insert(Mark { at: now, sent_bytes: self.upload.total_bytes() });
            self.wake_by(at);
        }
    }

    /// Sets the number of slots by what went out since the last look.
    pub(super) fn review_slots(&mut self, now: Instant) {
        let is_busy = self.peers.values().any(|peer| peer.uploads.len() > 0);
        let mark = Mark { at: now, sent_bytes: self.upload.total_bytes() };
        self.slots.next_review = None;
        if is_busy || self.slots.last_look.is_some_and(|last| mark.sent_bytes > last.sent_bytes) {
            let is_wanted = self.peers.values().any(|peer| peer.is_interested && !peer.is_unchoked);
            self.slots.review(mark, is_wanted);
            self.see_to_slots(now);
        } else {
            self.slots.rest();
        }
        // With fewer, those that are served stay until the next round: what they asked for is on its way.
        self.deal_free_slots(now);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "an arbitrary origin")]
mod tests {
    use super::*;

    const MAX: usize = 16;

    /// An uplink over time.
    struct Uplink {
        slots: Slots,
        now: Mark,
        n_reviews: u64,
    }

    impl Uplink {
        fn new() -> Self {
            Self { slots: Slots::new(MAX), now: Mark { at: Instant::now(), sent_bytes: 0 }, n_reviews: 0 }
        }

        /// Reviews for so long, with a rate that follows the number of slots. It goes out in bursts: all of half a second
        /// in one of five reviews.
        fn review_for(&mut self, seconds: u64, rate: impl Fn(usize) -> u64) -> usize {
            for _ in 0..seconds * 10 {
                self.n_reviews += 1;
                self.now.at += REVIEW_INTERVAL;
                if self.n_reviews.is_multiple_of(5) {
                    self.now.sent_bytes += rate(self.slots.n()) / 2;
                }
                self.slots.review(self.now, true);
            }
            self.slots.n()
        }
    }

    #[test]
    fn a_fast_uplink_has_room_for_many_at_once() {
        let (mut slots, at) = (Slots::new(MAX), Instant::now());
        assert_eq!(slots.n(), SLOTS_FEW);
        let mut look = |n: u32| {
            slots.review(Mark { at: at + REVIEW_INTERVAL * n, sent_bytes: 10_000_000 * u64::from(n) }, true);
            slots.n()
        };
        assert_eq!((look(0), look(1)), (SLOTS_FEW, SLOTS_FEW), "once may be what the sockets took");
        assert_eq!(look(2), MAX);
    }

    #[test]
    fn a_slow_uplink_serves_few_but_for_a_trial_now_and_then() {
        let mut uplink = Uplink::new();
        let rate = |_| 10_000_000;
        assert_eq!(uplink.review_for(5, rate), SLOTS_FEW);
        assert_eq!(uplink.review_for(1, rate), 9, "it is tried");
        assert_eq!(uplink.review_for(54, rate), SLOTS_FEW, "which brought nothing, so it is not tried again soon");
    }

    #[test]
    fn slow_peers_are_all_served_in_the_end() {
        assert_eq!(Uplink::new().review_for(40, |n| 100_000 * n as u64), MAX);
    }

    #[test]
    fn a_trial_ends_with_the_uploads() {
        let mut uplink = Uplink::new();
        assert_eq!(uplink.review_for(6, |_| 10_000_000), 9, "it is tried");
        uplink.slots.rest();
        assert_eq!(uplink.slots.n(), SLOTS_FEW);
        uplink.now.at += Duration::from_secs(100);
        assert_eq!(uplink.review_for(4, |_| 10_000_000), SLOTS_FEW, "first it is measured again");
    }

    #[test]
    fn without_room_there_is_none() {
        let mut uplink = Uplink { slots: Slots::new(0), ..Uplink::new() };
        assert_eq!(uplink.review_for(10, |_| 100_000_000), 0);
    }
}
