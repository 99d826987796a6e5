//! A transfer rate over the last few seconds, at constant cost.

use std::time::{Duration, Instant};

const N_SLOTS: usize = 8;
const SLOT: Duration = Duration::from_millis(500);

/// Counts bytes in slots of half a second and averages over four seconds, or over its age when that is less.
#[derive(Debug, Clone)]
pub(crate) struct Rate {
    slots: [u64; N_SLOTS],
    newest: usize,
    newest_start: Instant,
    started: Instant,
    total_bytes: u64,
}

impl Rate {
    pub(crate) fn new(now: Instant) -> Self {
        Self { slots: [0; N_SLOTS], newest: 0, newest_start: now, started: now, total_bytes: 0 }
    }

    /// Adds `bytes` that passed just now.
    pub(crate) fn record(&mut self, now: Instant, bytes: u32) {
        self.advance(now);
        if let Some(slot) = self.slots.get_mut(self.newest) {
            *slot += u64::from(bytes);
        }
        self.total_bytes += u64::from(bytes);
    }

    /// All bytes since the start.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The average over the window.
    pub(crate) fn bytes_per_s(&self, now: Instant) -> u64 {
        let mut current = self.clone();
        current.advance(now);
        let age = now.saturating_duration_since(self.started);
        let window = SLOT * 7 + now.saturating_duration_since(current.newest_start).min(SLOT);
        let millis = window.min(age).as_millis().max(100);
        let bytes: u64 = current.slots.iter().sum();
        u64::try_from(u128::from(bytes) * 1000 / millis).unwrap_or(u64::MAX)
    }

    fn advance(&mut self, now: Instant) {
        let mut elapsed = now.saturating_duration_since(self.newest_start);
        if elapsed >= SLOT * 8 {
            self.slots = [0; N_SLOTS];
            self.newest_start = now;
            return;
        }
        while elapsed >= SLOT {
            elapsed -= SLOT;
            self.newest_start += SLOT;
            self.newest = (self.newest + 1) % N_SLOTS;
            if let Some(slot) = self.slots.get_mut(self.newest) {
                *slot = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin")]
    fn a_steady_flow_is_measured_and_a_stopped_one_decays_to_nothing() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        for tick in 1..=1000 {
            rate.record(start + Duration::from_millis(10) * tick, 1000);
        }
        let end = start + Duration::from_secs(10);
        let measured = rate.bytes_per_s(end);
        assert!((90_000..=110_000).contains(&measured), "{measured}");
        assert!(rate.bytes_per_s(end + Duration::from_secs(2)) < measured);
        assert_eq!(rate.bytes_per_s(end + Duration::from_secs(5)), 0);
        assert_eq!(rate.total_bytes(), 1_000_000);
    }
}
