//! Transfers: how fast from the command to `[C]`, and how much memory it takes.

use crate::Bench;
use crate::figures::{Figures, Goal};
use mini_torrent_tests::client::ClientSettings;
use mini_torrent_tests::deployment::user_name;
use mini_torrent_tests::files::{assert_same, random_file, sparse_file};
use mini_torrent_tests::{Client, Deployment, GROUP, eventually_within};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const FILE: &str = "file";
/// How long a transfer or an upload may take at all.
const LIMIT: Duration = Duration::from_secs(600);
/// Most resident memory of a process in MiB.
const MAX_MIB: f64 = 100.0;

/// Seeders and leechers of one file, all online and nothing fetched yet.
pub(crate) struct Swarm {
    deployment: Deployment,
    n_seeders: usize,
    original: PathBuf,
}

impl Swarm {
    fn new(bench: &Bench, n_seeders: usize, n_leechers: usize, make: impl FnOnce(&Path)) -> Self {
        Self::with_options(bench, (n_seeders, n_leechers), &[], make)
    }

    /// Clients that are started with these options.
    pub(crate) fn with_options(
        bench: &Bench,
        (n_seeders, n_leechers): (usize, usize),
        options: &[&str],
        make: impl FnOnce(&Path),
    ) -> Self {
        let mut deployment = Deployment::on(bench.scene());
        for nth in 0..n_seeders + n_leechers {
            let settings = ClientSettings::new(&user_name(nth));
            deployment.add_member_with(options.iter().fold(settings, |settings, option| settings.option(option)));
        }
        let original = deployment.scene.path("original");
        make(&original);
        for client in &mut deployment.clients[..n_seeders] {
            client.send(&format!("upload_file {} {GROUP} --as {FILE}", original.display()));
            let answer = client.answer_within(LIMIT).expect("the upload ends");
            assert_eq!(answer["ok"], true, "{answer}");
        }
        deployment.clients[0].wait_seeders(GROUP, FILE, n_seeders as u64);
        Self { deployment, n_seeders, original }
    }

    fn leechers(&mut self) -> &mut [Client] {
        &mut self.deployment.clients[self.n_seeders..]
    }

    /// From the first command to the last `[C]`.
    pub(crate) fn fetch(&mut self) -> Duration {
        let start = Instant::now();
        for client in self.leechers() {
            let destination = client.path(FILE);
            client.send(&format!("download_file {GROUP} {FILE} {}", destination.display()));
        }
        for client in self.leechers() {
            let done = client.event_within(LIMIT, |event| event["event"] == "download_completed");
            assert!(done.is_some(), "a download does not complete");
        }
        start.elapsed()
    }

    pub(crate) fn compare(&mut self) {
        let original = self.original.clone();
        for client in self.leechers() {
            assert_eq!(client.answer()["ok"], true);
            assert_same(&original, client.path(FILE));
        }
    }

    /// CPU time of all clients, from their start on.
    pub(crate) fn cpu_time(&self) -> Duration {
        self.deployment.clients.iter().map(|client| client.running().cpu_time()).sum()
    }

    /// The most memory of any seeder and of any leecher, in MiB.
    fn peaks(&self) -> (f64, f64) {
        let (seeders, leechers) = self.deployment.clients.split_at(self.n_seeders);
        let most = |clients: &[Client]| clients.iter().map(|client| client.running().peak_memory()).max().unwrap_or(0);
        (mib(most(seeders)), mib(most(leechers)))
    }
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Goodput of all leechers together in MB/s.
pub(crate) fn goodput(bench_length: u64, n_leechers: u32, elapsed: Duration) -> f64 {
    bench_length as f64 * f64::from(n_leechers) / 1e6 / elapsed.as_secs_f64()
}

/// One seeder, one leecher.
pub(crate) fn one_to_one(bench: &Bench, figures: &mut Figures) {
    let length = bench.length();
    let mut swarm = Swarm::new(bench, 1, 1, |path| drop(random_file(path, length, 1)));
    let elapsed = swarm.fetch();
    let (seeder, leecher) = swarm.peaks();
    swarm.compare();
    figures.add("1:1", "MB/s", Goal::AtLeast(700.0), goodput(length, 1, elapsed));
    figures.add("1:1 seeder, peak resident", "MiB", Goal::AtMost(MAX_MIB), seeder);
    figures.add("1:1 leecher, peak resident", "MiB", Goal::AtMost(MAX_MIB), leecher);
}

/// Four seeders, one leecher.
pub(crate) fn four_to_one(bench: &Bench, figures: &mut Figures) {
    let length = bench.length();
    let mut swarm = Swarm::new(bench, 4, 1, |path| drop(random_file(path, length, 2)));
    let elapsed = swarm.fetch();
    let (_, leecher) = swarm.peaks();
    swarm.compare();
    figures.add("4:1", "MB/s", Goal::NoWorseThan("1:1"), goodput(length, 1, elapsed));
    figures.add("4:1 leecher, peak resident", "MiB", Goal::AtMost(MAX_MIB), leecher);
}

/// One seeder, eight leechers at once.
pub(crate) fn one_to_eight(bench: &Bench, figures: &mut Figures) {
    let length = bench.length() / 4;
    let mut swarm = Swarm::new(bench, 1, 8, |path| drop(random_file(path, length, 3)));
    let elapsed = swarm.fetch();
    let (seeder, leecher) = swarm.peaks();
    swarm.compare();
    figures.add("1:8, all together", "MB/s", Goal::NoWorseThan("1:1"), goodput(length, 8, elapsed));
    figures.add("1:8 seeder, peak resident", "MiB", Goal::AtMost(MAX_MIB), seeder);
    figures.add("1:8 largest leecher, peak resident", "MiB", Goal::AtMost(MAX_MIB), leecher);
}

/// A file five times as large, of holes: memory does not grow with it.
pub(crate) fn sparse(bench: &Bench, figures: &mut Figures) {
    let length = 5 * bench.length();
    let marks = [(length / 2, &b"middle"[..]), (length - 4, b"last")];
    let mut swarm = Swarm::new(bench, 1, 1, |path| drop(sparse_file(path, length, &marks)));
    let elapsed = swarm.fetch();
    let (seeder, leecher) = swarm.peaks();
    swarm.compare();
    figures.add("1:1 sparse, five times as long", "MB/s", Goal::None, goodput(length, 1, elapsed));
    figures.add("1:1 sparse seeder, peak resident", "MiB", Goal::AtMost(MAX_MIB), seeder);
    figures.add("1:1 sparse leecher, peak resident", "MiB", Goal::AtMost(MAX_MIB), leecher);
}

/// A client of its own on a scene, signed in and a member of a new group.
pub(crate) fn sharer(deployment: &mut Deployment) -> &mut Client {
    deployment.add_member_with(ClientSettings::new("sharer"))
}

/// Waits long for the answer to the oldest command without one.
pub(crate) fn long_answer(client: &mut Client) -> serde_json::Value {
    let mut found = None;
    eventually_within(LIMIT, "an answer", || {
        found = client.answer_within(Duration::from_secs(1));
        found.is_some().then_some(())
    });
    found.unwrap_or_default()
}
