//! Announces of ordinary clients: what one costs the tracker, by UDP and by HTTP, in small and in great company.
//!
//! The tracker has one core and the load another, so figures count per second of the tracker's CPU, kernel included.
//! Swarms have as many peers at each scale and so answers are alike; what grows is their number.

mod http_load;
mod population;
mod udp_load;

use crate::Bench;
use crate::figures::{Figures, Goal};
use crate::pinning::Cores;
use http_load::HttpLoad;
use mini_torrent_tests::{Running, Scene, Tracker};
use population::Population;
use std::sync::Arc;
use std::time::{Duration, Instant};
use udp_load::UdpLoad;

/// How long each load lasts.
const LOAD: Duration = Duration::from_secs(4);
const MAX_RESIDENT_MIB: f64 = 86.0;
const UDP_PER_CPU_S: Goal = Goal::AtLeast(220_000.0);
const HTTP_PER_CPU_S: Goal = Goal::AtLeast(45_000.0);
/// Of the speed with the fewest peers so much is there with the most.
const FLAT: Goal = Goal::AtLeast(0.9);

/// So many peers, and the names of what is measured with them.
struct Scale {
    n_peers: u32,
    udp: &'static str,
    http: &'static str,
}

const SCALES: [Scale; 3] = [
    Scale {
        n_peers: 1_000,
        udp: "UDP announces per CPU s, 1,000 peers",
        http: "HTTP announces per CPU s, 1,000 peers",
    },
    Scale {
        n_peers: 100_000,
        udp: "UDP announces per CPU s, 100,000 peers",
        http: "HTTP announces per CPU s, 100,000 peers",
    },
    Scale {
        n_peers: population::MAX_PEERS,
        udp: "UDP announces per CPU s, 1,000,000 peers",
        http: "HTTP announces per CPU s, 1,000,000 peers",
    },
];

/// What came of a load.
#[derive(Debug, Default)]
struct Tally {
    /// Answers of every kind.
    n_answered: u64,
    /// Those of them that turn an announce away.
    n_refused: u64,
    /// Announces with a wrong key.
    n_wrong: u64,
    /// Peers named in all answers.
    n_named: u64,
    /// Announces without an answer.
    n_lost: u64,
}

impl Tally {
    /// Exactly the wrong keys are turned away, and next to nothing is lost.
    fn check(&self) {
        // What was lost may have had a wrong key.
        let all_wrong = self.n_refused..=self.n_refused + self.n_lost;
        assert!(all_wrong.contains(&self.n_wrong) && self.n_lost * 1000 <= self.n_answered, "{self:?}");
    }
}

/// What a load cost the tracker.
struct Cost {
    answered_per_cpu_s: f64,
    share_of_core: f64,
}

/// One tracker that gets more and more peers.
pub(crate) fn announces(bench: &Bench, figures: &mut Figures) {
    let cores = Cores::of_this_machine();
    let scene = bench.scene();
    let mut population = Population::new();
    let tracker = cores.of_tracker(|| tracker_with(&scene, &population));
    let resident = || tracker.running().memory() as f64 / f64::from(1 << 20);
    let generating = cores.for_load();
    let mut udp = UdpLoad::new(tracker.address());
    figures.add("tracker with 10,000 keys, resident", "MiB", Goal::None, resident());
    let mut costs = Vec::new();
    for Scale { n_peers, udp: udp_name, http: http_name } in SCALES {
        udp.fill(&mut population, n_peers);
        if n_peers == population::MAX_PEERS {
            figures.add("and 1,000,000 peers, resident", "MiB", Goal::AtMost(MAX_RESIDENT_MIB), resident());
        }
        let by_udp = cost(udp_name, tracker.running(), || udp.run(&population, LOAD));
        figures.add(udp_name, "per s", UDP_PER_CPU_S, by_udp.answered_per_cpu_s);
        let mut http = HttpLoad::new(tracker.address());
        let by_http = cost(http_name, tracker.running(), || http.run(&population, LOAD));
        figures.add(http_name, "per s", HTTP_PER_CPU_S, by_http.answered_per_cpu_s);
        costs.push((by_udp, by_http));
    }
    drop(generating);
    if let [(udp_least, http_least), .., (udp_most, http_most)] = costs.as_slice() {
        let ratio = |most: &Cost, least: &Cost| most.answered_per_cpu_s / least.answered_per_cpu_s;
        figures.add("UDP, speed with 1,000,000 peers to 1,000", "", FLAT, ratio(udp_most, udp_least));
        figures.add("HTTP, speed with 1,000,000 peers to 1,000", "", FLAT, ratio(http_most, http_least));
        figures.add("UDP, the tracker's share of its core", "", Goal::None, udp_most.share_of_core);
        figures.add("HTTP, the tracker's share of its core", "", Goal::None, http_most.share_of_core);
    }
}

/// A tracker that knows the files and keys.
fn tracker_with(scene: &Arc<Scene>, population: &Population) -> Tracker {
    let mut tracker = Tracker::start(scene);
    population.enrol(&mut tracker);
    tracker
}

/// Runs a load, checks its answers, and says what it cost.
fn cost(what: &str, tracker: &Running, load: impl FnOnce() -> Tally) -> Cost {
    let (cpu_before, start) = (tracker.cpu_time(), Instant::now());
    let tally = load();
    let (elapsed_s, cpu_s) = (start.elapsed().as_secs_f64(), (tracker.cpu_time() - cpu_before).as_secs_f64());
    let n_answered = tally.n_answered as f64;
    eprintln!(
        "  {what}: {:.0} per CPU s, {:.0} per s, {:.1} peers each, {} refused, {} lost",
        n_answered / cpu_s,
        n_answered / elapsed_s,
        tally.n_named as f64 / n_answered,
        tally.n_refused,
        tally.n_lost,
    );
    tally.check();
    Cost { answered_per_cpu_s: n_answered / cpu_s, share_of_core: cpu_s / elapsed_s }
}
