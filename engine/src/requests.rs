//! The requests outstanding to one peer, and how many there should be.

use crate::limits::Limits;
use mini_torrent_common::geometry::{BLOCK_LENGTH, Block};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long the rate is measured, at least, before the depth follows it.
const WINDOW: Duration = Duration::from_millis(100);
/// Windows without any block in the time that the depth is meant for, until the base latency is measured anew.
const LATE_WINDOWS: u32 = 3;
/// Most that the base latency is raised to: more than that is not distance.
const BASE_LATENCY_MAX: Duration = Duration::from_secs(1);
/// What a peer takes that does not say how many requests it keeps (BEP 10 speaks of 250).
const ASSUMED_REQQ: u32 = 250;

/// One block asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) block: Block,
    pub(crate) sent_at: Instant,
}

/// The requests that a peer owes an answer to, oldest first, and those it owed before.
#[derive(Debug, Default)]
pub(crate) struct Outstanding {
    requests: VecDeque<Request>,
    /// Taken back, so that a late answer is no misdeed and may still be of use. Bounded.
    released: VecDeque<Block>,
}

impl Outstanding {
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(crate) fn contains(&self, block: Block) -> bool {
        self.requests.iter().any(|request| request.block == block)
    }

    /// Oldest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Request> + ExactSizeIterator {
        self.requests.iter()
    }

    pub(crate) fn push(&mut self, block: Block, now: Instant) {
        self.requests.push_back(Request { block, sent_at: now });
    }

    /// Takes the request out that an arrived block answers; at once when the peer answers in order.
    pub(crate) fn take(&mut self, block: Block) -> Option<Request> {
        if self.requests.front().is_some_and(|request| request.block == block) {
            return self.requests.pop_front();
        }
        let position = self.requests.iter().position(|request| request.block == block)?;
        self.requests.remove(position)
    }

    /// Takes all requests out, and remembers them as released.
    pub(crate) fn release_all(&mut self) -> Vec<Block> {
        let blocks: Vec<_> = self.requests.drain(..).map(|request| request.block).collect();
        blocks.iter().for_each(|block| self.remember(*block));
        blocks
    }

    /// Remembers a block that an answer may still come for.
    pub(crate) fn remember(&mut self, block: Block) {
        const REMEMBERED: usize = 2048;
        if self.released.len() >= REMEMBERED {
            self.released.pop_front();
        }
        self.released.push_back(block);
    }

    /// Forgets a released block; returns whether it was one.
    pub(crate) fn take_released(&mut self, block: Block) -> bool {
        let position = self.released.iter().position(|released| *released == block);
        position.and_then(|position| self.released.remove(position)).is_some()
    }
}

/// How many blocks should be outstanding to one peer.
///
/// It starts small and grows by one with each block (slow start) until blocks wait in line for longer than
/// [`Limits::request_slack`]; then it is what the peer delivers in its base latency plus that slack. While the queue
/// is what limits the peer, that value exceeds the queue, so it still grows.
#[derive(Debug)]
pub(crate) struct QueueDepth {
    depth: u32,
    is_slow_start: bool,
    /// The first block after owing nothing; it is not counted itself.
    window_start: Option<Instant>,
    window_bytes: u64,
    rate_bytes_per_s: u64,
    base_latency: Option<Duration>,
    /// The shortest latency in the window, and in the late windows before it.
    window_latency: Option<Duration>,
    late_latency: Option<Duration>,
    n_late_windows: u32,
    /// The peer's `reqq`.
    pub(crate) max_of_peer: u32,
}

impl QueueDepth {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            depth: limits.requests_initial,
            is_slow_start: true,
            window_start: None,
            window_bytes: 0,
            rate_bytes_per_s: 0,
            base_latency: None,
            window_latency: None,
            late_latency: None,
            n_late_windows: 0,
            max_of_peer: ASSUMED_REQQ,
        }
    }

    /// Blocks that should be outstanding.
    pub(crate) fn target(&self, limits: &Limits) -> usize {
        let max = limits.requests_max.min(self.max_of_peer).max(1);
        self.depth.clamp(limits.requests_min.min(max), max) as usize
    }

    /// The part of the target that latency alone demands: less would leave the link idle.
    pub(crate) fn floor(&self, limits: &Limits) -> usize {
        let floor = blocks_in(self.rate_bytes_per_s, self.base_latency.unwrap_or_default() * 2);
        floor.max(limits.requests_initial) as usize
    }

    /// What the peer delivered lately; 0 when nothing was measured yet.
    pub(crate) fn rate_bytes_per_s(&self) -> u64 {
        self.rate_bytes_per_s
    }

    /// The shortest time from request to block that was seen.
    pub(crate) fn base_latency(&self) -> Option<Duration> {
        self.base_latency
    }

    /// Requests go out to a peer that owed nothing: the idle time before does not count.
    pub(crate) fn on_first_request(&mut self) {
        self.window_start = None;
        self.window_bytes = 0;
    }

    /// A block arrived, so long after its request.
    pub(crate) fn on_block(&mut self, now: Instant, length: u32, latency: Duration, limits: &Limits) {
        let base_latency = self.base_latency.map_or(latency, |base| base.min(latency));
        self.base_latency = Some(base_latency);
        self.window_latency = Some(self.window_latency.map_or(latency, |least| least.min(latency)));
        self.is_slow_start &= latency <= base_latency + limits.request_slack;
        if self.is_slow_start {
            self.depth = self.depth.saturating_add(1).min(limits.requests_max);
        }
        let Some(window_start) = self.window_start else {
            self.window_start = Some(now);
            return;
        };
        self.window_bytes += u64::from(length);
        let elapsed = now.saturating_duration_since(window_start);
        // A window shorter than the latency would see the bursts and the gaps between them.
        if elapsed >= WINDOW.max(base_latency) {
            self.close_window(now, elapsed, base_latency, limits);
        }
    }

    /// The peer fell silent: begin small again.
    pub(crate) fn on_snub(&mut self, limits: &Limits) {
        self.depth = limits.requests_initial;
        self.is_slow_start = true;
        self.rate_bytes_per_s = 0;
    }

    /// The base latency, raised when the peer is further away than it was.
    ///
    /// The queue holds what passes in the base latency and the slack. When window after window not even the first block
    /// comes in that time, then it is not the queue that they wait in: our requests wait behind what we send on our own
    /// link. Without this the depth would follow the rate down, and the rate the depth.
    fn reviewed_base(&mut self, base: Duration, limits: &Limits) -> Duration {
        let Some(latency) = self.window_latency.take() else { return base };
        if self.is_slow_start || latency <= base + limits.request_slack * 5 / 4 {
            (self.n_late_windows, self.late_latency) = (0, None);
            return base;
        }
        self.n_late_windows += 1;
        let late = self.late_latency.map_or(latency, |least| least.min(latency));
        self.late_latency = Some(late);
        if self.n_late_windows < LATE_WINDOWS {
            return base;
        }
        (self.n_late_windows, self.late_latency) = (0, None);
        let base = late.min(BASE_LATENCY_MAX);
        self.base_latency = Some(base);
        base
    }

    fn close_window(&mut self, now: Instant, elapsed: Duration, base_latency: Duration, limits: &Limits) {
        let measured = u128::from(self.window_bytes) * 1_000_000 / elapsed.as_micros().max(1);
        let measured = u64::try_from(measured).unwrap_or(u64::MAX);
        // Up at once, so that a queue that is the limit grows by the same factor in each window; down with care.
        self.rate_bytes_per_s = measured.max(self.rate_bytes_per_s / 2 + measured / 2);
        self.window_start = Some(now);
        self.window_bytes = 0;
        let base_latency = self.reviewed_base(base_latency, limits);
        if !self.is_slow_start {
            let useful = blocks_in(self.rate_bytes_per_s, base_latency + limits.request_slack);
            self.depth = useful.clamp(limits.requests_min, limits.requests_max.max(limits.requests_min));
        }
    }
}

/// How many blocks pass in `time`, rounded up.
fn blocks_in(rate_bytes_per_s: u64, time: Duration) -> u32 {
    let bytes = u128::from(rate_bytes_per_s) * time.as_micros() / 1_000_000;
    u32::try_from(bytes.div_ceil(BLOCK_LENGTH.into())).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "an arbitrary origin")]
mod tests {
    use super::*;

    /// Lets a link of this rate and latency answer the queue for `seconds`, and returns the depth reached.
    fn depth_after(rate_bytes_per_s: f64, latency_s: f64, seconds: f64) -> usize {
        let limits = Limits::default();
        let start = Instant::now();
        let mut depth = QueueDepth::new(&limits);
        depth.max_of_peer = 2048;
        let mut in_flight = VecDeque::new();
        let (mut now, mut link_free) = (0.0_f64, 0.0_f64);
        while now < seconds {
            while in_flight.len() < depth.target(&limits) {
                link_free = link_free.max(now + latency_s) + f64::from(BLOCK_LENGTH) / rate_bytes_per_s;
                in_flight.push_back((now, link_free));
            }
            let Some((sent, arrival)) = in_flight.pop_front() else { break };
            now = arrival;
            let at = start + Duration::from_secs_f64(now);
            depth.on_block(at, BLOCK_LENGTH, Duration::from_secs_f64(now - sent), &limits);
        }
        depth.target(&limits)
    }

    #[test]
    fn depth_fits_the_link_it_feeds() {
        assert!(depth_after(1e9, 0.0002, 0.5) >= 1000, "loopback fills the largest queue");
        assert!((200..=1024).contains(&depth_after(40e6, 0.040, 2.0)), "40 MB/s at 40 ms");
        assert!(depth_after(40e6, 0.300, 3.0) >= 750, "40 MB/s at 300 ms");
        assert!(depth_after(100e3, 0.050, 10.0) <= 4, "a slow peer holds little");
    }

    #[test]
    fn late_answers_are_known_once() {
        let geometry = mini_torrent_common::geometry::Geometry::new(1 << 20, 1 << 20).unwrap();
        let block = geometry.nth_block(geometry.piece(0).unwrap(), 3).unwrap();
        let mut outstanding = Outstanding::default();
        outstanding.push(block, Instant::now());
        assert_eq!(outstanding.release_all(), [block]);
        assert!(outstanding.take(block).is_none());
        assert!(outstanding.take_released(block));
        assert!(!outstanding.take_released(block));
    }
}
