//! A few kill points of each kind, with the code that the torture run uses for hundreds (issue 2: kill -9
//! loses nothing acknowledged; B9, B10, D8, D10, A12).

use mini_torrent_tests::kill_points::{KillRun, kill_leecher, kill_one_of_two, kill_seeder, kill_tracker};
use mini_torrent_tests::programs;

/// `MINI_TORRENT_SEED` and `MINI_TORRENT_POINTS` try other and more moments; a failure prints its point.
fn run() -> KillRun {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let n_points = number("MINI_TORRENT_POINTS").and_then(|n| u32::try_from(n).ok());
    KillRun { programs: programs!(), seed: number("MINI_TORRENT_SEED").unwrap_or(2), n_points: n_points.unwrap_or(6) }
}

#[test]
fn a_killed_tracker_loses_nothing_acknowledged() {
    println!("{}", kill_tracker(&run()));
}

/// Issue 5: with two trackers, either of them.
#[test]
fn one_of_two_trackers_that_is_killed_loses_nothing_acknowledged() {
    println!("{}", kill_one_of_two(&run()));
}

#[test]
fn a_killed_seeder_loses_nothing_acknowledged() {
    println!("{}", kill_seeder(&run()));
}

#[test]
fn a_killed_leecher_loses_nothing_acknowledged() {
    println!("{}", kill_leecher(&run()));
}
