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
const TRIAL_TIME: Duration = Duration::from_secs(2);

/// The upload slots in use, and what their number is judged by.
#[derive(Debug)]
pub(crate) struct Slots {
    n: usize,
    max: usize,
    /// How many there was room for at the last review.
    n_plenty: usize,
    pub(super) next_review: Option<Instant>,
    /// When requests were first waiting, or at the last look, and the bytes uploaded until then.
    last_look: Option<(Instant, u64)>,
    trial: Option<Trial>,
    next_trial: Option<Instant>,
}

/// More slots than before, to see what they bring.
#[derive(Debug)]
struct Trial {
    n_before: usize,
    bytes_per_s_before: u64,
    until: Instant,
}

impl Slots {
    pub(super) fn new(max: usize) -> Self {
        let n = SLOTS_FEW.min(max);
        Self { n, max, n_plenty: 0, next_review: None, last_look: None, trial: None, next_trial: None }
    }

    /// Peers that may be served at once.
    pub(super) fn n(&self) -> usize {
        self.n
    }

    /// Of these, those that go round among all.
    pub(super) fn n_optimistic(&self, most: usize) -> usize {
        most.min(self.n.div_ceil(2))
    }

    /// The number of slots for an uplink that brings so much; others may be waiting for one.
    fn review(&mut self, now: Instant, bytes_per_s: u64, is_wanted: bool) {
        let n_plenty = usize::try_from(bytes_per_s / PLENTY_BYTES_PER_S).unwrap_or(usize::MAX);
        // Twice in a row, for at first the sockets take more than the uplink.
        let n_sure = n_plenty.min(std::mem::replace(&mut self.n_plenty, n_plenty));
        if n_sure > self.n {
            self.n = n_sure.min(self.max);
            self.trial = None;
        }
        let next_trial = *self.next_trial.get_or_insert(now + TRIAL_INTERVAL);
        match self.trial.take() {
            Some(trial) if now < trial.until => self.trial = Some(trial),
            Some(trial) => {
                let brought_more = bytes_per_s >= trial.bytes_per_s_before / 8 * 9;
                self.next_trial = Some(now + if brought_more { TRIAL_INTERVAL } else { TRIAL_PAUSE });
                if !brought_more {
                    self.n = trial.n_before;
                }
            }
            None if is_wanted && now >= next_trial && self.n < self.max => {
                let until = now + TRIAL_TIME;
                self.trial = Some(Trial { n_before: self.n, bytes_per_s_before: bytes_per_s, until });
                self.n = (self.n * 3).div_ceil(2).min(self.max);
            }
            None => {}
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
        let is_busy = self.peers.values().any(|peer| peer.uploads.len() > 0);
        let sent_bytes = self.upload.total_bytes();
        self.slots.next_review = None;
        if let Some((since, sent_before)) = self.slots.last_look.take()
            && (is_busy || sent_bytes > sent_before)
        {
            self.see_to_slots(now);
            let elapsed = now.saturating_duration_since(since).as_millis().max(1);
            let bytes_per_s = u128::from(sent_bytes - sent_before) * 1000 / elapsed;
            let is_wanted = self.peers.values().any(|peer| peer.is_interested && !peer.is_unchoked);
            let bytes_per_s = u64::try_from(bytes_per_s).unwrap_or(u64::MAX);
            self.slots.review(now, bytes_per_s, is_wanted);
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

    /// Reviews every half second from one time to another, with a rate that follows the number of slots.
    fn review(slots: &mut Slots, seconds: std::ops::Range<u64>, origin: Instant, rate: impl Fn(usize) -> u64) {
        for half in seconds.start * 2..seconds.end * 2 {
            let rate = rate(slots.n());
            slots.review(origin + Duration::from_millis(half * 500), rate, true);
        }
    }

    #[test]
    fn a_fast_uplink_has_room_for_many_at_once() {
        let mut slots = Slots::new(MAX);
        assert_eq!(slots.n(), SLOTS_FEW);
        slots.review(Instant::now(), 100_000_000, true);
        assert_eq!(slots.n(), SLOTS_FEW, "once may be what the sockets took");
        slots.review(Instant::now(), 100_000_000, true);
        assert_eq!(slots.n(), MAX);
    }

    #[test]
    fn a_slow_uplink_serves_few_but_for_a_trial_now_and_then() {
        let (mut slots, origin) = (Slots::new(MAX), Instant::now());
        review(&mut slots, 0..5, origin, |_| 10_000_000);
        assert_eq!(slots.n(), SLOTS_FEW);
        review(&mut slots, 5..6, origin, |_| 10_000_000);
        assert_eq!(slots.n(), 9, "it is tried");
        review(&mut slots, 6..60, origin, |_| 10_000_000);
        assert_eq!(slots.n(), SLOTS_FEW, "which brought nothing, so it is not tried again soon");
    }

    #[test]
    fn slow_peers_are_all_served_in_the_end() {
        let (mut slots, origin) = (Slots::new(MAX), Instant::now());
        review(&mut slots, 0..40, origin, |n| 100_000 * n as u64);
        assert_eq!(slots.n(), MAX);
    }

    #[test]
    fn without_room_there_is_none() {
        let mut slots = Slots::new(0);
        review(&mut slots, 0..10, Instant::now(), |_| 100_000_000);
        assert_eq!(slots.n(), 0);
    }
}
