//! How much of what a connection sends may be on its way, so that all that share our uplink get alike.
//!
//! Left to itself, TCP fills the queue before a slow uplink until packets are dropped. Everything waits in that queue, and
//! whoever connects while it is full loses packets at once and gets little for seconds: one of eight leechers got half of
//! what a seeder sent, two next to nothing. So a connection has little on its way at first, more for as long as that is
//! not delayed, and less while it is (the idea of LEDBAT, RFC 6817). Once in a round trip is enough for each, for only
//! then is seen what it brought. Where even the least waits very long, the queue is somebody else's, the peer's own uplink
//! perhaps, and there is no limit for a while.

/// What may be unacknowledged at first, and the least that delay brings it down to, in bytes. Six such connections keep an
/// uplink of 20 MB/s busy with a round trip of 110 ms, of which much is waiting in the uplinks of those whom we serve.
const LEAST: u64 = 384 * 1024;
/// From here on there is no limit; the system has its own.
const MOST: u64 = 4 << 20;
/// What waits for longer waits in a long queue, in microseconds.
const LONG_QUEUE_US: u32 = 40_000;
/// What waits for less than this does not wait, in microseconds.
const SHORT_QUEUE_US: u32 = 10_000;
/// After so many round trips with the least on its way and a delay of so many microseconds all the same, the queue is not
/// ours. Shorter ones may well be: acknowledgments wait in the uplinks of those whom we serve.
const FUTILE_ROUNDS: u32 = 4;
const FUTILE_QUEUE_US: u32 = 250_000;
/// After that there is no limit for so many bytes.
const FREE_BYTES: u64 = 64 << 20;

/// What was found out about a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    /// Bytes that were written since it began.
    pub(super) written: u64,
    /// Of these, those that are acknowledged.
    pub(super) acked: u64,
    /// The delay of late, in microseconds.
    pub(super) rtt_us: u32,
    /// The least delay of the last minutes.
    pub(super) least_rtt_us: u32,
}

/// The limit of what is on its way on one connection.
#[derive(Debug)]
pub(super) struct SendWindow {
    /// In bytes; none where nothing was seen to wait.
    limit: Option<u64>,
    /// Whether more would have been sent since the last judgement.
    was_full: bool,
    /// Whether there was a long queue since it began: from then on it opens slowly.
    had_queue: bool,
    /// The limit stays until so much is acknowledged.
    stands_until: u64,
    n_futile: u32,
}

impl SendWindow {
    pub(super) fn new() -> Self {
        Self { limit: Some(LEAST), was_full: false, had_queue: false, stands_until: 0, n_futile: 0 }
    }

    /// How many bytes may follow those that are not acknowledged yet; none until a quarter of the window is free, for
    /// every write is work.
    pub(super) fn room(&self, unacked: u64) -> Option<usize> {
        let Some(limit) = self.limit else { return Some(usize::MAX) };
        let room = limit.saturating_sub(unacked);
        (room >= limit / 4).then(|| usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// There was no room, by what the system says just now.
    pub(super) fn was_full(&mut self) {
        self.was_full = true;
    }

    /// Sets the limit by what is known; at most once in a round trip.
    pub(super) fn judge(&mut self, progress: Progress) {
        let Progress { written, acked, rtt_us, least_rtt_us } = progress;
        if acked < self.stands_until {
            return;
        }
        let queue_us = rtt_us.saturating_sub(least_rtt_us);
        let limit = match self.limit {
            // As much as would wait half as long.
            None if queue_us > LONG_QUEUE_US => {
                let wanted_us = u64::from(least_rtt_us) + u64::from(LONG_QUEUE_US / 2);
                let unacked = written.saturating_sub(acked);
                Some((unacked.saturating_mul(wanted_us) / u64::from(rtt_us)).max(LEAST))
            }
            Some(LEAST) if queue_us > FUTILE_QUEUE_US => {
                self.n_futile += 1;
                if self.n_futile >= FUTILE_ROUNDS {
                    *self = Self { limit: None, stands_until: acked.saturating_add(FREE_BYTES), ..Self::new() };
                    return;
                }
                self.limit
            }
            Some(limit) if queue_us > LONG_QUEUE_US => Some((limit - limit / 4).max(LEAST)),
            Some(limit) if queue_us < SHORT_QUEUE_US && self.was_full => {
                let more = if self.had_queue { limit / 8 } else { limit / 2 };
                Some(limit + more).filter(|limit| *limit < MOST)
            }
            unchanged => unchanged,
        };
        self.had_queue |= queue_us > LONG_QUEUE_US;
        if queue_us <= FUTILE_QUEUE_US {
            self.n_futile = 0;
        }
        if limit != self.limit || self.n_futile > 0 {
            self.stands_until = written;
        }
        self.limit = limit;
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
    const HELD_UP_US: u32 = 2_000_000;

    /// A connection that always has more to send.
    struct Sender {
        window: SendWindow,
        written: u64,
    }

    impl Sender {
        fn new() -> Self {
            Self { window: SendWindow::new(), written: 0 }
        }

        /// So many round trips, in each of which the window is filled, acknowledged and judged.
        fn go_round(&mut self, rtt_us: u32, n: usize) {
            for _ in 0..n {
                let acked = self.written;
                self.written += self.window.limit.unwrap_or(MOST);
                self.window.was_full();
                self.window.judge(Progress { written: self.written, acked, rtt_us, least_rtt_us: NEAR_US });
            }
        }
    }

    #[test]
    fn the_window_opens_where_nothing_waits_and_only_if_it_is_used() {
        let mut sender = Sender::new();
        assert_eq!(sender.window.room(0), Some(384 * 1024));
        sender.window.judge(Progress { written: 1, acked: 1, rtt_us: NEAR_US, least_rtt_us: NEAR_US });
        assert_eq!(sender.window.limit, Some(LEAST), "nobody wanted more");
        sender.go_round(NEAR_US, 7);
        assert_eq!(sender.window.room(u64::MAX), Some(usize::MAX), "on a free way there is no limit soon");
    }

    #[test]
    fn a_queue_closes_the_window_but_not_entirely() {
        let mut sender = Sender::new();
        sender.go_round(NEAR_US, 3);
        assert!(sender.window.limit > Some(3 * LEAST));
        sender.go_round(DELAYED_US, 5);
        assert_eq!(sender.window.limit, Some(LEAST));
        sender.go_round(NEAR_US + LONG_QUEUE_US / 2, 100);
        assert_eq!(sender.window.limit, Some(LEAST), "neither long nor short");
        sender.go_round(NEAR_US, 100);
        assert_eq!(sender.window.limit, None);
        let acked = sender.written;
        let written = acked + (3 << 20);
        sender.window.judge(Progress { written, acked, rtt_us: DELAYED_US, least_rtt_us: NEAR_US });
        assert_eq!(sender.window.limit, Some(1 << 20), "2 MiB of the three wait; half of the longest queue may");
    }

    /// What is seen within a round trip is what was done before it.
    #[test]
    fn many_looks_in_one_round_trip_count_once() {
        let mut window = SendWindow { limit: Some(3 << 20), ..SendWindow::new() };
        for acked in 0..20 {
            window.judge(Progress { written: 1 << 20, acked, rtt_us: DELAYED_US, least_rtt_us: NEAR_US });
        }
        assert_eq!(window.limit, Some((3 << 20) / 4 * 3));
    }

    /// As where a peer's own slow uplink holds up its acknowledgments.
    #[test]
    fn a_queue_that_the_least_does_not_shorten_is_not_ours() {
        let mut sender = Sender::new();
        while sender.window.limit.is_some() {
            sender.go_round(HELD_UP_US, 1);
        }
        assert!(sender.written < 2 << 20, "soon found out: {}", sender.written);
        let free_from = sender.written;
        sender.go_round(HELD_UP_US, 10);
        assert_eq!(sender.window.limit, None, "for a while");
        while sender.window.limit.is_none() {
            sender.go_round(HELD_UP_US, 1);
        }
        assert!(sender.written - free_from < 2 * FREE_BYTES, "and not for ever");
    }

    #[test]
    fn room_is_told_once_it_is_worth_a_write() {
        let mut window = SendWindow::new();
        assert_eq!(window.room(LEAST - LEAST / 4), Some(96 * 1024));
        assert_eq!(window.room(LEAST - LEAST / 4 + 1), None);
        assert_eq!(window.room(u64::MAX), None);
        window.lift();
        assert_eq!(window.room(u64::MAX), Some(usize::MAX));
    }

    #[test]
    fn any_numbers_are_survived() {
        for (rtt_us, least_rtt_us) in [(0, 0), (0, u32::MAX), (u32::MAX, 0), (u32::MAX, u32::MAX)] {
            for (written, acked) in [(u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX)] {
                let mut window = SendWindow { limit: None, was_full: true, ..SendWindow::new() };
                window.judge(Progress { written, acked, rtt_us, least_rtt_us });
                assert!(window.room(0).is_some());
            }
        }
    }
}
