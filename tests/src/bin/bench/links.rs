//! Mini-Torrent beside ordinary clients where links are slow, long or lossy: how near each comes to what the links allow.

use crate::Bench;
use crate::figures::{Figures, Goal};
use crate::ground::Ground;
use crate::rivals::{Outcome, Scenario};
use mini_torrent_tests::links::{Congestion, FIRST_BYTES, Shape};
use mini_torrent_tests::waiting::skipped;
use std::time::Duration;

/// One seeder and eight leechers whose links could carry more than the seeder's.
const SWARM: Shape = Shape {
    up: 20_000_000,
    down: 40_000_000,
    delay: Duration::from_millis(10),
    loss: 0.0,
    passes_whole: true,
    congestion: Congestion::Cubic,
};
/// A long way that loses one packet in a hundred.
const LOSSY: Shape = Shape {
    up: 40_000_000,
    down: 40_000_000,
    delay: Duration::from_millis(20),
    loss: 0.01,
    passes_whole: false,
    congestion: Congestion::Bbr,
};

/// What is wished of ours.
struct Goals {
    /// The part of the fluid bound, from the start of the leechers' processes on.
    bound: Goal,
    /// The same from the first bytes on.
    transfer: Goal,
    /// Copies that the seeder sends.
    copies: Goal,
}

/// One seeder, eight leechers.
pub(crate) fn s4(bench: &Bench, figures: &mut Figures) {
    let scenario = one_seeder("S4", 8, 128, 2.0, SWARM);
    let goals = Goals { bound: Goal::AtLeast(0.85), transfer: Goal::None, copies: Goal::AtMost(1.1) };
    measure(bench, figures, &scenario, &SWARM, &goals);
}

/// One to one, a long and lossy way.
pub(crate) fn s5(bench: &Bench, figures: &mut Figures) {
    let scenario = one_seeder("S5", 1, 256, 1.0, LOSSY);
    let goals = Goals { bound: Goal::None, transfer: Goal::AtLeast(0.8), copies: Goal::None };
    measure(bench, figures, &scenario, &LOSSY, &goals);
}

/// The same where whoever does not choose gets the usual congestion control.
pub(crate) fn s5c(bench: &Bench, figures: &mut Figures) {
    let shape = Shape { congestion: Congestion::Cubic, ..LOSSY };
    let goals = Goals { bound: Goal::None, transfer: Goal::None, copies: Goal::None };
    measure(bench, figures, &one_seeder("S5c", 1, 16, 10.0, shape), &shape, &goals);
}

fn one_seeder(name: &'static str, n_leechers: usize, mib: u64, lead: f64, shape: Shape) -> Scenario {
    Scenario { name, n_seeders: 1, n_leechers, n_files: 1, length: mib << 20, lead, shape: Some(shape) }
}

fn measure(bench: &Bench, figures: &mut Figures, scenario: &Scenario, shape: &Shape, goals: &Goals) {
    if let Err(why) = Ground::new(1, Some(shape)) {
        skipped(&format!("{}: this machine gives no such links: {why}", scenario.name));
        return;
    }
    scenario.compare(bench, figures, |figures, program, outcome| {
        let none = Goals { bound: Goal::None, transfer: Goal::None, copies: Goal::None };
        let goals = if program == "Mini-Torrent" { goals } else { &none };
        tell(figures, scenario, shape, goals, program, outcome);
    });
}

fn tell(figures: &mut Figures, scenario: &Scenario, shape: &Shape, goals: &Goals, program: &str, outcome: &Outcome) {
    let bound = fluid_bound(scenario, shape);
    let row = |what: &str| format!("{} {program}{what}", scenario.name);
    let wall = outcome.wall.as_secs_f64();
    figures.add(&row(""), "s", Goal::None, wall);
    figures.add(&row(", part of the bound"), "", goals.bound, bound / wall);
    let copies = |bytes: u64| bytes as f64 / scenario.length as f64;
    let sent = copies(outcome.meters[0].sent_bytes);
    figures.add(&row(", copies that the seeder sends, headers included"), "", goals.copies, sent);
    let leechers = &outcome.meters[1..=scenario.n_leechers];
    let received = copies(leechers.iter().map(|meter| meter.received_bytes).sum()) / scenario.n_leechers as f64;
    figures.add(&row(", copies that a leecher gets, headers included"), "", Goal::None, received);
    if let ([_], Some(first)) = (leechers, leechers[0].first_received_at) {
        let transfer = outcome.end.saturating_duration_since(first).as_secs_f64();
        let rest = (scenario.length - FIRST_BYTES) as f64 / scenario.length as f64;
        figures.add(&row(", part of the bound behind the first MiB"), "", goals.transfer, bound * rest / transfer);
    }
}

/// The shortest time in seconds in which anything could bring the file to all leechers, if bytes flowed like a fluid and
/// needed no headers: the seeder has to send each byte once, each leecher to receive all, and all uplinks together to
/// send as many copies as there are leechers.
fn fluid_bound(scenario: &Scenario, shape: &Shape) -> f64 {
    let (length, n_leechers) = (scenario.length as f64, scenario.n_leechers as f64);
    let (up, down) = (shape.up as f64, shape.down as f64);
    (length / up).max(length / down).max(n_leechers * length / (up + n_leechers * up))
}
