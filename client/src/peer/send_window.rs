//! How much of what a connection sends may be on its way, so that all that share our uplink get alike.
//!
//! Left to itself, TCP fills the queue before a slow uplink until packets are dropped. Everything waits in that queue, and
//! whoever connects while it is full loses packets at once and gets little for seconds: one of eight leechers got half of
//! what a seeder sent, two next to nothing. So a connection has little on its way at first, more for as long as that is
//! not delayed, and less while it is, as LEDBAT has it (RFC 6817). It never has so little that the others could starve it.

/// What may be unacknowledged at first, in bytes.
const FIRST: u64 = 256 * 1024;
/// The least that delay brings it down to: eight such connections keep an uplink of 20 MB/s busy behind a delay of 50 ms.
const LEAST: u64 = 128 * 1024;
/// From here on there is no limit; the system has its own.
const MOST: u64 = 4 << 20;
/// What waits for longer waits in a long queue, in microseconds.
const LONG_QUEUE_US: u32 = 40_000;
/// What waits for less than this does not wait, in microseconds.
const SHORT_QUEUE_US: u32 = 10_000;

/// The limit of what is on its way on one connection.
#[derive(Debug)]
pub(super) struct SendWindow {
    /// In bytes; none where nothing was seen to wait.
    limit: Option<u64>,
    /// Whether more would have been sent since the last judgement.
    was_full: bool,
}

impl SendWindow {
    pub(super) fn new() -> Self {
        Self { limit: Some(FIRST), was_full: false }
    }

    /// How many bytes may follow those that are not acknowledged yet; none until a quarter of the window is free, for
    /// every write is work.
    pub(super) fn room(&mut self, unacked: u64) -> Option<usize> {
        let Some(limit) = self.limit else { return Some(usize::MAX) };
        let room = limit.saturating_sub(unacked);
        let is_worth_it = room >= limit / 4;
        self.was_full |= !is_worth_it;
        is_worth_it.then(|| usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// Sets the limit by the delay of late and the least one that was seen, in microseconds.
    pub(super) fn judge(&mut self, rtt_us: u32, least_rtt_us: u32, unacked: u64) {
        let queue_us = rtt_us.saturating_sub(least_rtt_us);
        self.limit = match self.limit {
            // As much as would wait half as long.
            None if queue_us > LONG_QUEUE_US => {
                let wanted_us = u64::from(least_rtt_us) + u64::from(LONG_QUEUE_US / 2);
                Some((unacked.saturating_mul(wanted_us) / u64::from(rtt_us)).max(LEAST))
            }
            Some(limit) if queue_us > LONG_QUEUE_US => Some((limit - limit / 8).max(LEAST)),
            Some(limit) if queue_us < SHORT_QUEUE_US && self.was_full => {
                Some(limit + limit / 4).filter(|limit| *limit < MOST)
            }
            unchanged => unchanged,
        };
        self.was_full = false;
    }

    /// The connection is judged by something else from now on.
    pub(super) fn lift(&mut self) {
        self.limit = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR_US: u32 = 20_000;
    const DELAYED_US: u32 = 120_000;

    /// Fills the window and judges it, so many times.
    fn judged(window: &mut SendWindow, rtt_us: u32, n: usize) {
        for _ in 0..n {
            let full = window.limit.unwrap_or(MOST);
            let _ = window.room(full);
            window.judge(rtt_us, NEAR_US, full);
        }
    }

    #[test]
    fn the_window_opens_where_nothing_waits_and_only_if_it_is_used() {
        let mut window = SendWindow::new();
        assert_eq!(window.room(0), Some(256 * 1024));
        window.judge(NEAR_US, NEAR_US, 0);
        assert_eq!(window.limit, Some(FIRST), "nobody wanted more");
        judged(&mut window, NEAR_US, 13);
        assert_eq!(window.room(u64::MAX), Some(usize::MAX), "on a free way there is no limit soon");
    }

    #[test]
    fn a_queue_closes_the_window_but_not_entirely() {
        let mut window = SendWindow::new();
        judged(&mut window, DELAYED_US, 100);
        assert_eq!(window.limit, Some(LEAST));
        judged(&mut window, NEAR_US + LONG_QUEUE_US / 2, 100);
        assert_eq!(window.limit, Some(LEAST), "neither long nor short");
        judged(&mut window, NEAR_US, 100);
        assert_eq!(window.limit, None);
        window.judge(DELAYED_US, NEAR_US, 3 << 20);
        assert_eq!(window.limit, Some(1 << 20), "2 MiB of the three wait; half of the longest queue may");
    }

    #[test]
    fn room_is_told_once_it_is_worth_a_write() {
        let mut window = SendWindow::new();
        assert_eq!(window.room(FIRST - FIRST / 4), Some(64 * 1024));
        assert_eq!(window.room(FIRST - FIRST / 4 + 1), None);
        assert_eq!(window.room(u64::MAX), None);
        window.lift();
        assert_eq!(window.room(u64::MAX), Some(usize::MAX));
    }

    #[test]
    fn any_numbers_are_survived() {
        for (rtt_us, least_us) in [(0, 0), (0, u32::MAX), (u32::MAX, 0), (u32::MAX, u32::MAX)] {
            let mut window = SendWindow { limit: None, was_full: true };
            window.judge(rtt_us, least_us, u64::MAX);
            assert!(window.room(0).is_some());
        }
    }
}
