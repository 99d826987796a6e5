//! How close swarms come to what their links allow, in virtual time, so that no busy machine can spoil it.
//!
//! Larger ones, and all with their numbers: `cargo run --release -p mini-torrent-engine --example swarm_efficiency`.

mod sim;

use sim::fluid::{Outcome, linked, swarm, swarm_on, swarm_with};
use sim::{MIB, Plan, Swarm};
use std::time::Duration;

/// Runs the swarm until everybody is complete.
fn outcome(name: &str, seed: u64, mut swarm: Swarm) -> Outcome {
    assert!(swarm.run(Duration::from_secs(120)), "{name}, seed {seed}: not everybody completes");
    let outcome = Outcome::of(&swarm);
    report(&format!("{name}, seed {seed}: {outcome}"));
    assert!(outcome.duplicates < 0.01, "{name}, seed {seed}: {outcome}");
    outcome
}

#[expect(clippy::print_stdout, reason = "measurements, shown with --nocapture")]
fn report(text: &str) {
    println!("{text}");
}

/// The case that the benchmark calls S4.
#[test]
fn eight_leechers_finish_close_to_the_bound_and_the_seeder_sends_one_copy() {
    for seed in 0..5 {
        let outcome = outcome("eight", seed, swarm(128 * MIB, seed, 8, |_, plan| plan));
        assert!(outcome.efficiency() >= 0.9, "seed {seed}: {outcome}");
        assert!(outcome.copies <= 1.05, "seed {seed}: {outcome}");
    }
}

/// Stock clients need not know Suggest Piece, be they leechers or the seeder.
#[test]
fn without_suggestions_swarms_are_not_far_behind() {
    for seed in 0..2 {
        let without = |plan| Plan { fast: false, ..plan };
        let stock = outcome("stock leechers", seed, swarm(128 * MIB, seed, 8, |_, plan| without(plan)));
        assert!(stock.efficiency() >= 0.75 && stock.copies <= 1.25, "seed {seed}: {stock}");
        let half = |n, plan| if n % 2 == 0 { without(plan) } else { plan };
        let mixed = outcome("half stock", seed, swarm(128 * MIB, seed, 8, half));
        assert!(mixed.efficiency() >= 0.75 && mixed.copies <= 1.25, "seed {seed}: {mixed}");
        let unaware = without(linked(Plan::seeder()));
        let unaware = outcome("stock seeder", seed, swarm_with(unaware, 128 * MIB, seed, 8, |_, plan| plan));
        assert!(unaware.efficiency() >= 0.75 && unaware.copies <= 1.25, "seed {seed}: {unaware}");
    }
}

/// Where a piece takes no time, and where the links hold many of them.
#[test]
fn near_and_far_swarms_finish_close_to_the_bound_too() {
    let near = outcome("near", 0, swarm_on(256 * MIB, 0, 8, 500_000_000, Duration::from_micros(50)));
    assert!(near.efficiency() >= 0.8 && near.copies <= 1.1, "{near}");
    let far = outcome("far", 0, swarm_on(256 * MIB, 0, 8, 125_000_000, Duration::from_millis(25)));
    assert!(far.efficiency() >= 0.55 && far.copies <= 1.1, "{far}");
}

/// One to one: a queue as deep as a loopback or a long link needs it.
#[test]
fn a_pair_keeps_its_link_busy() {
    let near = outcome("near pair", 0, swarm_on(512 * MIB, 0, 1, 1_000_000_000, Duration::from_micros(50)));
    assert!(near.efficiency() >= 0.9, "{near}");
    let far = outcome("far pair", 0, swarm_on(256 * MIB, 0, 1, 40_000_000, Duration::from_millis(10)));
    assert!(far.efficiency() >= 0.9, "{far}");
}

#[test]
fn slow_peers_do_not_hold_the_others_up() {
    for seed in 0..3 {
        let slow = |n, plan| if n < 2 { Plan { upload_bytes_per_s: 1_000_000, ..plan } } else { plan };
        let outcome = outcome("two slow of eight", seed, swarm(128 * MIB, seed, 8, slow));
        assert!(outcome.efficiency() >= 0.75, "seed {seed}: {outcome}");
    }
}

#[test]
fn late_joiners_are_taken_in() {
    for seed in 0..3 {
        let late = |n, plan| Plan { joins_at: Duration::from_secs(if n < 4 { 0 } else { 3 }), ..plan };
        let outcome = outcome("four late of eight", seed, swarm(128 * MIB, seed, 8, late));
        assert!(outcome.efficiency() >= 0.85, "seed {seed}: {outcome}");
    }
}

#[test]
fn a_seeder_may_leave_after_little_more_than_one_copy() {
    for seed in 0..3 {
        let seeder = Plan { leaves_after_bytes: Some(64 * MIB / 10 * 11), ..linked(Plan::seeder()) };
        let outcome = outcome("seeder leaves", seed, swarm_with(seeder, 64 * MIB, seed, 24, |_, plan| plan));
        assert!(outcome.copies <= 1.11, "seed {seed}: {outcome}");
        assert!(outcome.efficiency() >= 0.7, "seed {seed}: {outcome}");
    }
}

#[test]
fn a_hundred_leechers_exchange_all_they_can() {
    let outcome = outcome("a hundred", 0, swarm(32 * MIB, 0, 100, |_, plan| plan));
    assert!(outcome.efficiency() >= 0.5, "{outcome}");
}

/// Of a small file, which is mostly the time that the first pieces take to get around.
#[test]
fn a_thousand_leechers_complete() {
    let mut swarm = swarm(4 * MIB, 0, 1000, |_, plan| plan);
    swarm.max_named = 20;
    let outcome = outcome("a thousand", 0, swarm);
    assert!(outcome.took < Duration::from_secs(10), "{outcome}");
}
