//! All packets that are on their way: each passes its sender's uplink, half of the delay, its receiver's downlink and the
//! other half. No clock and no device: it is told the time, which counts from the network's start.

use super::Shape;
use super::link::{Link, receiver, wire_length};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::time::Duration;

/// What losses are drawn from: the same packets at the same moments lose the same ones.
const SEED: u64 = 1;

/// All packets that are on their way.
#[derive(Debug)]
pub(crate) struct Paths {
    links: Vec<Ends>,
    half_delay: Duration,
    loss: f64,
    random: StdRng,
    /// By the moment of their next change, and the order in which they were sent.
    travelling: BTreeMap<(Duration, u64), Travelling>,
    n_sent: u64,
}

/// A host's two links.
#[derive(Debug)]
struct Ends {
    up: Link,
    down: Link,
}

#[derive(Debug)]
struct Travelling {
    to: usize,
    has_passed_downlink: bool,
    packet: Vec<u8>,
}

impl Paths {
    /// Between so many hosts of this shape, and one more whose links have no rate.
    pub(crate) fn new(n_shaped: usize, shape: &Shape) -> Self {
        let shaped = || Ends { up: Link::new(Some(shape.up)), down: Link::new(Some(shape.down)) };
        let mut links: Vec<Ends> = (0..n_shaped).map(|_| shaped()).collect();
        links.push(Ends { up: Link::new(None), down: Link::new(None) });
        Self {
            links,
            half_delay: shape.delay / 2,
            loss: shape.loss,
            random: StdRng::seed_from_u64(SEED),
            travelling: BTreeMap::new(),
            n_sent: 0,
        }
    }

    /// A host sends a packet.
    pub(crate) fn send(&mut self, now: Duration, from: usize, packet: Vec<u8>) {
        let Some(to) = receiver(&packet).filter(|to| *to < self.links.len()) else { return };
        if self.random.random_bool(self.loss) {
            return;
        }
        if let Some(left_at) = self.links[from].up.pass(now, wire_length(&packet)) {
            self.n_sent += 1;
            let travelling = Travelling { to, has_passed_downlink: false, packet };
            self.travelling.insert((left_at + self.half_delay, self.n_sent), travelling);
        }
    }

    /// The next packet that has arrived by now, and at which host.
    pub(crate) fn arrived(&mut self, now: Duration) -> Option<(usize, Vec<u8>)> {
        while let Some(first) = self.travelling.first_entry()
            && first.key().0 <= now
        {
            let ((at, nth), mut first) = first.remove_entry();
            if first.has_passed_downlink {
                return Some((first.to, first.packet));
            }
            if let Some(left_at) = self.links[first.to].down.pass(at, wire_length(&first.packet)) {
                first.has_passed_downlink = true;
                self.travelling.insert((left_at + self.half_delay, nth), first);
            }
        }
        None
    }

    /// When there is something to do next, unless a packet is sent before.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.travelling.first_key_value().map(|((at, _), _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::packet;
    use super::*;
    use crate::links::Congestion;

    const SHAPE: Shape = Shape {
        up: 1_000_000,
        down: 2_000_000,
        delay: Duration::from_millis(10),
        loss: 0.0,
        passes_whole: true,
        congestion: Congestion::Cubic,
    };

    /// Everything that arrives, with the moment at which it does.
    fn all(paths: &mut Paths) -> Vec<(Duration, usize, usize)> {
        let mut found = Vec::new();
        while let Some(at) = paths.next_at() {
            while let Some((to, packet)) = paths.arrived(at) {
                found.push((at, to, packet.len()));
            }
        }
        found
    }

    #[test]
    fn a_packet_takes_its_time_on_both_links_and_the_delay() {
        let mut paths = Paths::new(2, &SHAPE);
        paths.send(Duration::ZERO, 0, packet(1, 1000, None));
        let arrivals = all(&mut paths);
        assert_eq!(arrivals.len(), 1);
        assert_eq!((arrivals[0].0, arrivals[0].1), (Duration::from_micros(1000 + 500 + 10_000), 1));
    }

    #[test]
    fn the_last_host_has_no_rate_and_the_delay_alone() {
        let mut paths = Paths::new(0, &SHAPE);
        paths.send(Duration::ZERO, 0, packet(0, 1000, None));
        assert_eq!(all(&mut paths)[0].0, SHAPE.delay);
    }

    #[test]
    fn packets_of_one_sender_arrive_in_their_order() {
        let mut paths = Paths::new(2, &SHAPE);
        let lengths = 20..60;
        lengths.clone().for_each(|length| paths.send(Duration::ZERO, 0, packet(1, length, None)));
        let arrived: Vec<usize> = all(&mut paths).iter().map(|(_, _, length)| *length).collect();
        assert_eq!(arrived, lengths.map(|length| packet(1, length, None).len()).collect::<Vec<_>>());
    }

    #[test]
    fn two_uplinks_overflow_one_downlink() {
        let mut paths = Paths::new(3, &Shape { down: 1_000_000, ..SHAPE });
        for at in (0..1000).map(Duration::from_millis) {
            paths.send(at, 0, packet(2, 1000, None));
            paths.send(at, 1, packet(2, 1000, None));
        }
        let n_arrived = all(&mut paths).len();
        // A second's worth, and what the queue holds.
        assert!((1095..=1105).contains(&n_arrived), "{n_arrived}");
    }

    #[test]
    fn as_many_packets_are_lost_as_the_shape_says_and_the_same_each_time() {
        let lossy = Shape { up: u64::MAX, down: u64::MAX, loss: 0.01, ..SHAPE };
        let arrived = || {
            let mut paths = Paths::new(2, &lossy);
            (20..20_020).for_each(|length| paths.send(Duration::ZERO, 0, packet(1, length, None)));
            all(&mut paths)
        };
        let n_lost = 20_000 - arrived().len();
        assert!((150..=250).contains(&n_lost), "{n_lost}");
        assert_eq!(arrived(), arrived());
    }

    #[test]
    fn what_is_for_nobody_is_dropped() {
        let mut paths = Paths::new(2, &SHAPE);
        paths.send(Duration::ZERO, 0, packet(3, 1000, None));
        assert_eq!(paths.next_at(), None);
    }
}
