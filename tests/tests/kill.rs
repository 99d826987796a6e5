//! A few kill points of each kind, with the code that the torture run uses for hundreds (issue 2: kill -9
//! loses nothing acknowledged; B9, B10, D8, D10, A12).

use mini_torrent_tests::kill_points::{KillRun, kill_leecher, kill_seeder, kill_tracker};
use mini_torrent_tests::programs;

/// `MINI_TORRENT_SEED` tries other moments; a failure prints the point, and the seed is here.
fn run() -> KillRun {
    let seed = std::env::var("MINI_TORRENT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    KillRun { programs: programs!(), seed, n_points: 6 }
}

#[test]
fn a_killed_tracker_loses_nothing_acknowledged() {
    kill_tracker(&run());
}

#[test]
fn a_killed_seeder_loses_nothing_acknowledged() {
    kill_seeder(&run());
}

#[test]
fn a_killed_leecher_loses_nothing_acknowledged() {
    kill_leecher(&run());
}
