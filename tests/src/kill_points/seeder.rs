//! kill -9 of a sharing client: acknowledged uploads revive, ended shares do not.

use super::{KillRun, Tally, random_moment};
use crate::client::Client;
use crate::deployment::{Deployment, GROUP};
use crate::files::{assert_same, random_file};
use crate::waiting::eventually;
use mini_torrent_common::geometry::PIECE_LENGTH;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Most operations between two kills.
const MAX_OPERATIONS: u32 = 5;
/// More shares than this are not kept.
const MAX_SHARES: usize = 8;

/// Kills a sharer at every point and compares its shares with what it acknowledged; a downloader fetches
/// one of them each time.
///
/// # Panics
/// When an acknowledged upload is not shared again, or an ended share is.
pub fn kill_seeder(run: &KillRun) -> Tally {
    let mut tally = Tally::default();
    let mut deployment = Deployment::of(run.programs.clone(), 2);
    let (fetcher, seeder) = deployment.pair();
    let mut random = StdRng::seed_from_u64(run.seed);
    let mut shares = Shares::default();
    for point in 0..run.n_points {
        for _ in 0..random.random_range(0..MAX_OPERATIONS) {
            let operation = shares.draw(seeder, &mut random);
            seeder.expect_ok(&operation.command());
            shares.apply(&operation);
        }
        let in_doubt = shares.draw(seeder, &mut random);
        seeder.send(&in_doubt.command());
        random_moment(&mut random, Duration::from_millis(40));
        seeder.kill();
        seeder.start_again();
        let revived = seeder.sign_in()["shares"].clone();
        shares.settle(fetcher, seeder, in_doubt, &revived, &mut tally);
        shares.compare(point, fetcher);
        shares.fetch_one(point, fetcher, &mut random);
    }
    tally
}

#[derive(Debug)]
enum Operation {
    Upload { name: String, path: PathBuf },
    Stop { name: String, path: PathBuf },
}

impl Operation {
    fn command(&self) -> String {
        match self {
            Self::Upload { path, .. } => format!("upload_file {} {GROUP}", path.display()),
            Self::Stop { name, .. } => format!("stop_share {GROUP} {name}"),
        }
    }
}

/// What the sharer acknowledged to share, by name.
#[derive(Debug, Default)]
struct Shares {
    paths: BTreeMap<String, PathBuf>,
    n_drawn: u32,
}

impl Shares {
    fn draw(&mut self, seeder: &Client, random: &mut StdRng) -> Operation {
        let names: Vec<&String> = self.paths.keys().collect();
        let full = names.len() >= MAX_SHARES;
        if full || (!names.is_empty() && random.random_ratio(1, 3)) {
            let name = names[random.random_range(0..names.len())].clone();
            let path = self.paths[&name].clone();
            return Operation::Stop { name, path };
        }
        self.n_drawn += 1;
        let name = format!("f{}", self.n_drawn);
        let length = random.random_range(0..3 * u64::from(PIECE_LENGTH));
        let path = random_file(seeder.path(&name), length, random.random());
        Operation::Upload { name, path }
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Upload { name, path } => {
                self.paths.insert(name.clone(), path.clone());
            }
            Operation::Stop { name, .. } => {
                self.paths.remove(name);
            }
        }
    }

    fn undo(&mut self, operation: &Operation) {
        let (Operation::Upload { name, path } | Operation::Stop { name, path }) = operation;
        match operation {
            Operation::Upload { .. } => self.paths.remove(name),
            Operation::Stop { .. } => self.paths.insert(name.clone(), path.clone()),
        };
    }

    /// Finds out whether the operation in doubt happened: everything else must be as acknowledged.
    ///
    /// It may have come as far as the tracker and not to the client's own state, or the other way round; the
    /// same command again completes it then.
    fn settle(
        &mut self,
        observer: &mut Client,
        seeder: &mut Client,
        in_doubt: Operation,
        revived: &Value,
        tally: &mut Tally,
    ) {
        let (Operation::Upload { name, .. } | Operation::Stop { name, .. }) = &in_doubt;
        let before = self.paths.len();
        self.apply(&in_doubt);
        let after = self.paths.len();
        let is_listed = observer.listed(GROUP, name).is_object();
        let happened_at_tracker = is_listed == matches!(in_doubt, Operation::Upload { .. });
        match (happened_at_tracker, *revived == after) {
            (true, true) => tally.happened += 1,
            (false, false) if *revived == before => {
                tally.not += 1;
                self.undo(&in_doubt);
            }
            _ => {
                tally.in_part += 1;
                seeder.expect_ok(&in_doubt.command());
            }
        }
    }

    /// Looks whether exactly the acknowledged shares are listed, and all of them online.
    fn compare(&self, point: u32, observer: &mut Client) {
        let mut listed = BTreeMap::new();
        eventually(&format!("point {point}: {:?} are seeded", self.paths.keys()), || {
            listed = observer.expect_ok(&format!("list_files {GROUP}"))["files"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|row| (row["name"].as_str().unwrap_or_default().to_owned(), row["seeders"].as_u64()))
                .collect();
            let is_seeded = |name: &String| listed.get(name).copied().flatten() >= Some(1);
            self.paths.keys().all(is_seeded).then_some(())
        });
        let names: Vec<&String> = self.paths.keys().collect();
        assert_eq!(listed.keys().collect::<Vec<_>>(), names, "point {point}: only these are listed");
    }

    /// A revived share gives the right bytes. What was fetched is not kept, so that the sharer stays the only one.
    fn fetch_one(&self, point: u32, fetcher: &mut Client, random: &mut StdRng) {
        let Some(nth) = (!self.paths.is_empty()).then(|| random.random_range(0..self.paths.len())) else { return };
        let (name, path) = self.paths.iter().nth(nth).expect("in range");
        let destination = fetcher.path(&format!("{point}-{name}"));
        fetcher.expect_ok(&format!("download_file {GROUP} {name} {}", destination.display()));
        fetcher.wait_completed(GROUP, name);
        assert_same(path, &destination);
        fetcher.expect_ok(&format!("stop_share {GROUP} {name}"));
    }
}
