//! How close swarms come to what their links allow, in virtual time: `cargo run --release --example swarm_efficiency
//! [CASE] [N_SEEDS]`. The tests hold the smaller cases to bounds.

#![expect(clippy::print_stdout, reason = "a report")]

#[path = "../tests/sim/mod.rs"]
mod sim;

use sim::fluid::{Outcome, linked, swarm, swarm_on, swarm_with};
use sim::{MIB, Plan, Swarm};
use std::time::{Duration, Instant};

const CASES: [&str; 12] =
    ["pair", "far_pair", "lan", "far", "eight", "stock", "unaware", "slow", "late", "leaves", "hundred", "thousand"];

fn case(name: &str, seed: u64) -> Option<Swarm> {
    let seconds = Duration::from_secs;
    let length = 128 * MIB;
    let same = |_, plan| plan;
    Some(match name {
        "eight" => swarm(length, seed, 8, same),
        "stock" => swarm(length, seed, 8, |_, plan| Plan { fast: false, ..plan }),
        "slow" => swarm(length, seed, 8, |n, plan| match n {
            0 | 1 => Plan { upload_bytes_per_s: 1_000_000, ..plan },
            _ => plan,
        }),
        "late" => swarm(length, seed, 8, |n, plan| Plan { joins_at: seconds(if n < 4 { 0 } else { 3 }), ..plan }),
        "leaves" => {
            let seeder = Plan { leaves_after_bytes: Some(length + length / 10), ..linked(Plan::seeder()) };
            swarm_with(seeder, length, seed, 40, same)
        }
        "lan" => swarm_on(length * 4, seed, 8, 500_000_000, Duration::from_micros(50)),
        "far" => swarm_on(length * 4, seed, 8, 125_000_000, Duration::from_millis(25)),
        "pair" => swarm_on(length * 4, seed, 1, 1_000_000_000, Duration::from_micros(50)),
        "far_pair" => swarm_on(length * 2, seed, 1, 40_000_000, Duration::from_millis(10)),
        "unaware" => swarm_with(Plan { fast: false, ..linked(Plan::seeder()) }, length, seed, 8, same),
        "hundred" => swarm(length, seed, 100, same),
        "thousand" => {
            let mut swarm = swarm(length, seed, 1000, same);
            swarm.max_named = 40;
            swarm
        }
        _ => return None,
    })
}

#[expect(clippy::disallowed_methods, reason = "a measurement of the processor's time")]
fn main() {
    let mut arguments = std::env::args().skip(1);
    let only = arguments.next();
    let n_seeds = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(3);
    for name in CASES {
        if only.as_ref().is_some_and(|only| only != name && only != "all") {
            continue;
        }
        for seed in 0..n_seeds {
            let Some(mut swarm) = case(name, seed) else { continue };
            let started = Instant::now();
            let is_complete = swarm.run(Duration::from_secs(300));
            let cost = started.elapsed().as_secs_f64();
            println!("{name} seed {seed}: {} {is_complete}, computed in {cost:.1} s", Outcome::of(&swarm));
            let mut ends: Vec<_> = swarm.nodes.iter().filter_map(|node| node.completed_at).collect();
            ends.sort();
            println!("   first {:?} median {:?}", ends.first(), ends.get(ends.len() / 2));
        }
    }
}
