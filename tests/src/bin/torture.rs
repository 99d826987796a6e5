//! `make torture`: hundreds of seeded kill points for each of tracker, seeder and leecher, and what takes too
//! long for every test run: a file above 4 GiB, 5,000 silent connections, clients that stand still beyond
//! their lease.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it reports to a person")]

use clap::Parser;
use mini_torrent_tests::client::password_of;
use mini_torrent_tests::crowd::{Crowd, raise_file_limit};
use mini_torrent_tests::files::{random_file, same, sparse_file};
use mini_torrent_tests::kill_points::{KillRun, kill_leecher, kill_one_of_two, kill_seeder, kill_tracker};
use mini_torrent_tests::{Client, Deployment, GROUP, Programs, eventually, eventually_within};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Runs what breaks programs, and looks whether it does.
#[derive(Debug, Parser)]
struct Options {
    /// What the kill points are drawn from; printed, so that a failure can be run again
    #[arg(long)]
    seed: Option<u64>,
    /// Kill points for each of tracker, two trackers, seeder and leecher
    #[arg(long, default_value_t = 200)]
    points: u32,
    /// Only these cases [default: all]
    cases: Vec<String>,
}

type Case = (&'static str, fn(&KillRun) -> String);

const CASES: [Case; 8] = [
    ("kill-tracker", |run| kill_tracker(run).to_string()),
    ("kill-one-of-two", |run| kill_one_of_two(run).to_string()),
    ("kill-seeder", |run| kill_seeder(run).to_string()),
    ("kill-leecher", |run| kill_leecher(run).to_string()),
    ("above-4-gib", above_4_gib),
    ("silent-crowd", silent_crowd),
    ("suspended", suspended),
    ("silent-session", silent_session),
];

fn main() -> ExitCode {
    let options = Options::parse();
    let programs = match Programs::beside_this_one() {
        Ok(programs) => programs,
        Err(error) => {
            eprintln!("torture: {error}");
            return ExitCode::FAILURE;
        }
    };
    raise_file_limit();
    let seed = options.seed.unwrap_or_else(rand::random);
    println!("seed {seed}, {} kill points each", options.points);
    let run = KillRun { programs, seed, n_points: options.points };
    let mut failed = Vec::new();
    for (name, case) in
        CASES.iter().filter(|(name, _)| options.cases.is_empty() || options.cases.iter().any(|c| c == name))
    {
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| case(&run)));
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        let said = outcome.as_deref().unwrap_or_default();
        println!("{name:<14} {verdict:<7} {:>5.1} s  {said}", start.elapsed().as_secs_f64());
        if outcome.is_err() {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}; again with --seed {seed}", failed.join(", "));
    ExitCode::FAILURE
}

/// A file above 4 GiB, mostly holes, arrives exact; neither side's memory grows with it.
fn above_4_gib(run: &KillRun) -> String {
    let mut deployment = Deployment::of(run.programs.clone(), 2);
    let (ann, bob) = deployment.pair();
    let length = (4 << 30) + 12_345;
    let marks = [(0, &b"first"[..]), ((1 << 32) - 2, b"across"), (length - 4, b"last")];
    let file = sparse_file(ann.path("large"), length, &marks);
    ann.send(&format!("upload_file {} {GROUP}", file.display()));
    let answer = ann.answer_within(Duration::from_secs(300)).expect("the upload ends");
    assert_eq!(answer["ok"], true, "{answer}");
    bob.begin_download(GROUP, "large");
    eventually_within(Duration::from_secs(300), "it completes", || {
        (bob.shown(GROUP, "large")["state"] == "C").then_some(())
    });
    assert!(same(&file, bob.path("large")), "the copy differs");
    for client in [ann, bob] {
        let peak = client.running().peak_memory();
        assert!(peak < 150 << 20, "{} MiB resident", peak >> 20);
    }
    format!("{length} bytes")
}

/// 5,000 silent connections at each port keep no member out, and memory stays bounded.
fn silent_crowd(run: &KillRun) -> String {
    let mut deployment = Deployment::of(run.programs.clone(), 2);
    let tracker_port = deployment.tracker.address();
    let (ann, bob) = deployment.pair();
    let file = random_file(ann.path("file"), 20_000_000, run.seed);
    ann.upload(&file, GROUP);
    let ports = [tracker_port, ann.address()];
    let crowd = Crowd::at(&ports, 5000);
    bob.download(GROUP, "file");
    assert!(same(&file, bob.path("file")), "the copy differs");
    let mut late = Client::start(&deployment.scene, &deployment.tracker, "late");
    late.sign_up("late");
    for running in [deployment.tracker.running(), deployment.clients[0].running()] {
        let peak = running.peak_memory();
        assert!(peak < 400 << 20, "{} MiB resident", peak >> 20);
    }
    format!("{} silent connections", crowd.size())
}

/// D13: a client that stood still longer than its lease is off the lists, and back on them by itself.
fn suspended(run: &KillRun) -> String {
    let mut deployment = Deployment::of(run.programs.clone(), 2);
    let (ann, bob) = deployment.pair();
    let file = random_file(ann.path("file"), 1_000_000, run.seed);
    ann.upload(&file, GROUP);
    bob.wait_seeders(GROUP, "file", 1);
    let stopped = Instant::now();
    ann.running().suspend();
    eventually_within(Duration::from_secs(30), "it is off the list", || {
        (bob.listed(GROUP, "file")["seeders"] == 0).then_some(())
    });
    eventually("a while beyond the lease", || (stopped.elapsed() > Duration::from_secs(40)).then_some(()));
    ann.running().resume();
    bob.wait_seeders(GROUP, "file", 1);
    bob.download(GROUP, "file");
    ann.expect_ok("list_groups");
    format!("stood still for {:.0} s", stopped.elapsed().as_secs_f64())
}

/// The session of a client that says nothing any more frees itself in 30 s for a login from elsewhere.
fn silent_session(run: &KillRun) -> String {
    let mut deployment = Deployment::empty(run.programs.clone());
    deployment.add_stranger();
    let mut elsewhere = Client::start(&deployment.scene, &deployment.tracker, "elsewhere");
    let silent = Instant::now();
    deployment.clients[0].running().suspend();
    let login = format!("login ann {}", password_of("ann"));
    // 30 s, and the time that it takes to look.
    eventually_within(Duration::from_secs(32), "the silent session ends", || {
        (elsewhere.run(&login)["ok"] == true).then_some(())
    });
    format!("free after {:.0} s", silent.elapsed().as_secs_f64())
}
