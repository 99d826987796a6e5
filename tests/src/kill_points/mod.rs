//! kill -9 at seeded moments: what was acknowledged before must be there afterwards (design §1, promise 3).
//!
//! Each of `tracker`, `seeder` and `leecher` runs operations against a model. An operation that was
//! answered has happened; the one that was under way at the kill may or may not have.

mod leecher;
mod seeder;
mod tracker;
mod tracker_model;

pub use leecher::kill_leecher;
pub use seeder::kill_seeder;
pub use tracker::{kill_one_of_two, kill_tracker};

use crate::scene::Programs;
use rand::RngExt;
use rand::rngs::StdRng;
use std::fmt;
use std::time::{Duration, Instant};

/// A run of kill points; the seed decides all of them.
#[derive(Debug, Clone)]
pub struct KillRun {
    /// What is killed.
    pub programs: Programs,
    /// What the moments are drawn from.
    pub seed: u64,
    /// How many there are.
    pub n_points: u32,
}

/// How the operations under way at the kills came out: a run in which all came out alike hit no moments.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// They had happened.
    pub happened: u32,
    /// They had not.
    pub not: u32,
    /// They had in part; the same command again completed them.
    pub in_part: u32,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "under way at the kills: {} happened, {} not, {} in part", self.happened, self.not, self.in_part)
    }
}

/// Lets a random moment of up to `most` pass: the one wait that is not for a condition, since the point is
/// to hit any moment.
fn random_moment(random: &mut StdRng, most: Duration) {
    let length = most.mul_f64(random.random::<f64>());
    let start = Instant::now();
    while start.elapsed() < length {
        std::thread::sleep(Duration::from_micros(50));
    }
}
