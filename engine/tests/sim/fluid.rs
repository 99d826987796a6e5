//! How close a swarm comes to what its links allow.

use super::{Have, Plan, Swarm};
use std::fmt;
use std::time::Duration;

/// What the product divides files into.
const PIECE_LENGTH: u64 = 512 * 1024;

/// A link of 20 MB/s up and 40 MB/s down.
pub(crate) fn linked(plan: Plan) -> Plan {
    Plan { upload_bytes_per_s: 20_000_000, download_bytes_per_s: 40_000_000, ..plan }
}

/// One seeder and some leechers, on such links if `leecher` does not say otherwise, 10 ms from each other.
pub(crate) fn swarm(length: u64, seed: u64, n_leechers: usize, leecher: impl Fn(usize, Plan) -> Plan) -> Swarm {
    swarm_with(linked(Plan::seeder()), length, seed, n_leechers, leecher)
}

/// The same with another seeder.
pub(crate) fn swarm_with(
    seeder: Plan,
    length: u64,
    seed: u64,
    n_leechers: usize,
    leecher: impl Fn(usize, Plan) -> Plan,
) -> Swarm {
    let mut plans = vec![seeder];
    plans.extend((0..n_leechers).map(|n| leecher(n, linked(Plan::leecher()))));
    let mut swarm = Swarm::new(length, PIECE_LENGTH, seed, plans);
    swarm.count_headers();
    swarm
}

/// Everybody on links of one rate in both directions, with this latency to the middle of the network.
pub(crate) fn swarm_on(length: u64, seed: u64, n_leechers: usize, bytes_per_s: u64, latency: Duration) -> Swarm {
    let linked =
        move |plan| Plan { upload_bytes_per_s: bytes_per_s, download_bytes_per_s: bytes_per_s, latency, ..plan };
    swarm_with(linked(Plan::seeder()), length, seed, n_leechers, move |_, plan| linked(plan))
}

/// What a run was worth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// When the last leecher was complete.
    pub(crate) took: Duration,
    /// What no way of sharing can beat.
    pub(crate) bound: Duration,
    /// What the first node sent, in lengths of the file.
    pub(crate) copies: f64,
    /// Bytes of blocks that arrived and were there already, as a part of those kept.
    pub(crate) duplicates: f64,
}

impl Outcome {
    /// Of a swarm that has run, whose first node is the seeder.
    pub(crate) fn of(swarm: &Swarm) -> Self {
        let length = swarm.geometry.length() as f64;
        let leechers = || swarm.nodes.iter().filter(|node| matches!(node.plan.have, Have::Nothing));
        let received: u64 = leechers().map(|node| node.received_bytes).sum();
        let kept: u64 = leechers().flat_map(|node| node.received_from.values()).sum();
        Self {
            took: leechers().filter_map(|node| node.completed_at).max().unwrap_or_default(),
            bound: bound(swarm),
            copies: swarm.nodes[0].sent_bytes as f64 / length,
            duplicates: (received - kept) as f64 / kept as f64,
        }
    }

    /// The part of the bound that was reached; 1 is perfect.
    pub(crate) fn efficiency(&self) -> f64 {
        self.bound.as_secs_f64() / self.took.as_secs_f64()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (took, bound) = (self.took.as_secs_f64(), self.bound.as_secs_f64());
        let (efficiency, duplicates) = (self.efficiency(), self.duplicates * 100.0);
        let copies = self.copies;
        write!(f, "{efficiency:.3} of the bound ({took:.2} s, {bound:.2} s), {copies:.3} copies by the seeder, ")?;
        write!(f, "{duplicates:.2} % received twice")
    }
}

/// The fluid bound: the file leaves the seeder once, enters each leecher once, and all uploads together carry it to all
/// leechers. Until the last has joined, the others cannot have more than has left the seeder. Of links without headers.
fn bound(swarm: &Swarm) -> Duration {
    let length = swarm.geometry.length() as f64;
    let is_leecher = |node: &&super::Node| matches!(node.plan.have, Have::Nothing);
    let n_leechers = swarm.nodes.iter().filter(is_leecher).count() as f64;
    let upload = |node: &super::Node| node.plan.upload_bytes_per_s as f64;
    let seeders = swarm.nodes.iter().filter(|node| !is_leecher(node)).map(upload).sum::<f64>();
    let all = swarm.nodes.iter().map(upload).sum::<f64>();
    let joined = swarm.nodes.iter().map(|node| node.plan.joins_at).max().unwrap_or_default();
    let n_early = swarm.nodes.iter().filter(is_leecher).filter(|node| node.plan.joins_at < joined).count() as f64;
    let joined = joined.as_secs_f64();
    let early_bytes = n_early * (seeders * joined).min(length);
    let downloads = swarm.nodes.iter().filter(is_leecher).map(|node| node.plan.download_bytes_per_s as f64);
    let slowest_download = downloads.fold(f64::INFINITY, f64::min);
    let after = (length / slowest_download).max((n_leechers * length - early_bytes) / all);
    Duration::from_secs_f64((length / seeders).max(joined + after))
}
