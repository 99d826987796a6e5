//! Mini-Torrent, in TLS and with admission, beside ordinary BitTorrent clients in plain text and a bare program that only
//! moves bytes. One runs after the other; the time runs from the start of the leechers' processes until the last one
//! says that everything is there, verified.

use crate::Bench;
use crate::figures::{Figures, Goal};
use crate::transfers::mib;
use mini_torrent_common::announce::Event;
use mini_torrent_common::torrent::Torrent;
use mini_torrent_tests::client::ClientSettings;
use mini_torrent_tests::deployment::user_name;
use mini_torrent_tests::files::{assert_same, random_bytes};
use mini_torrent_tests::foreign_tracker::{Answers, ForeignTracker};
use mini_torrent_tests::stock::{SwarmProgram, free_port};
use mini_torrent_tests::{Content, Deployment, GROUP, Running, Scene, eventually_within};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long one transfer may take at all.
const LIMIT: Duration = Duration::from_secs(300);
/// How long other clients may take; some never complete a thousand torrents.
const OTHERS_LIMIT: Duration = Duration::from_secs(60);
/// Most resident memory of a process in MiB, where one file of a GiB goes to one leecher.
const MAX_MIB: f64 = 48.0;

/// Who fetches what from whom.
struct Scenario {
    name: &'static str,
    n_seeders: usize,
    n_leechers: usize,
    n_files: usize,
    /// Of each file, in bytes.
    length: u64,
    /// How much faster than the fastest other client, at least.
    lead: f64,
}

/// What one transfer took.
struct Outcome {
    wall: Duration,
    /// CPU time of both sides since the leechers' start.
    cpu: Duration,
    /// Most resident memory of any seeder and any leecher, in MiB.
    peaks: (f64, f64),
}

/// One to one.
pub(crate) fn s1(bench: &Bench, figures: &mut Figures) {
    let scenario = Scenario { name: "S1", n_seeders: 1, n_leechers: 1, n_files: 1, length: bench.length(), lead: 1.05 };
    scenario.measure(bench, figures);
}

/// Four seeders, one leecher.
pub(crate) fn s2(bench: &Bench, figures: &mut Figures) {
    let scenario = Scenario { name: "S2", n_seeders: 4, n_leechers: 1, n_files: 1, length: bench.length(), lead: 1.15 };
    scenario.measure(bench, figures);
}

/// One seeder, eight leechers on one machine.
pub(crate) fn s3(bench: &Bench, figures: &mut Figures) {
    let length = bench.length() / 4;
    Scenario { name: "S3", n_seeders: 1, n_leechers: 8, n_files: 1, length, lead: 1.2 }.measure(bench, figures);
}

/// A thousand small files.
pub(crate) fn s6(bench: &Bench, figures: &mut Figures) {
    let length = 64 * 1024;
    Scenario { name: "S6", n_seeders: 1, n_leechers: 1, n_files: 1000, length, lead: 1.0 / 1.5 }
        .measure(bench, figures);
}

impl Scenario {
    fn measure(&self, bench: &Bench, figures: &mut Figures) {
        let files = self.files();
        let ours = self.told(figures, "Mini-Torrent", &self.ours(&bench.scene(), &files));
        let mut fastest_other: f64 = 0.0;
        for program in SwarmProgram::ALL.into_iter().filter(|program| program.is_there()) {
            match self.others(&bench.scene(), program, &files) {
                Some(outcome) => {
                    fastest_other = fastest_other.max(self.told(figures, program.name(), &outcome).speed);
                }
                None => figures.add(
                    &format!("{} {}: not complete within", self.name, program.name()),
                    "s",
                    Goal::None,
                    OTHERS_LIMIT.as_secs_f64(),
                ),
            }
        }
        if fastest_other > 0.0 {
            let name = format!("{}: ours to the fastest other client", self.name);
            figures.add(&name, "", Goal::AtLeast(self.lead), ours.speed / fastest_other);
        }
        // It has no swarm and no files but one.
        if self.n_seeders == 1 && self.n_files == 1 {
            let bare = self.told(figures, "bare program", &self.bare(&bench.scene(), &files));
            let is_s1 = self.n_leechers == 1;
            let (least, most) = if is_s1 { (Goal::AtLeast(0.9), Goal::AtMost(1.15)) } else { (Goal::None, Goal::None) };
            figures.add(&format!("{}: ours to the bare program", self.name), "", least, ours.speed / bare.speed);
            figures.add(&format!("{}: CPU time, ours to the bare program", self.name), "", most, ours.cpu / bare.cpu);
        }
    }

    fn files(&self) -> Vec<Content> {
        let length = usize::try_from(self.length).expect("a file fits into memory");
        (0..self.n_files).map(|nth| Content::new(&format!("f{nth}"), random_bytes(length, nth as u64))).collect()
    }

    fn told(&self, figures: &mut Figures, program: &str, outcome: &Outcome) -> Told {
        let n_bytes = self.length * (self.n_files * self.n_leechers) as u64;
        let speed = n_bytes as f64 / 1e6 / outcome.wall.as_secs_f64();
        let cpu = outcome.cpu.as_secs_f64() * f64::from(1 << 30) / n_bytes as f64;
        let row = |what: &str| format!("{} {program}{what}", self.name);
        if self.n_files > 1 {
            figures.add(&row(""), "s", Goal::None, outcome.wall.as_secs_f64());
        } else {
            figures.add(&row(""), "MB/s", Goal::None, speed);
        }
        figures.add(&row(", CPU of both sides"), "s per GiB", Goal::None, cpu);
        let is_ours = self.name == "S1" && program == "Mini-Torrent";
        let goal = if is_ours { Goal::AtMost(MAX_MIB) } else { Goal::None };
        figures.add(&row(", seeder, peak resident"), "MiB", goal, outcome.peaks.0);
        figures.add(&row(", leecher, peak resident"), "MiB", goal, outcome.peaks.1);
        Told { speed, cpu }
    }

    /// Our clients. The sign-in and what they ask of the tracker are part of the time.
    fn ours(&self, scene: &Arc<Scene>, files: &[Content]) -> Outcome {
        let mut deployment = Deployment::on(Arc::clone(scene));
        for nth in 0..self.n_seeders + self.n_leechers {
            deployment.add_member_with(ClientSettings::new(&user_name(nth)));
        }
        let (seeders, leechers) = deployment.clients.split_at_mut(self.n_seeders);
        let originals: Vec<PathBuf> = files.iter().map(|file| scene.write(&file.name, &*file.bytes)).collect();
        for seeder in &mut *seeders {
            originals.iter().for_each(|file| seeder.send(&format!("upload_file {} {GROUP}", file.display())));
            for _ in &originals {
                let answer = seeder.answer_within(LIMIT).expect("the upload ends");
                assert_eq!(answer["ok"], true, "{answer}");
            }
        }
        let last = &files[files.len() - 1].name;
        seeders[0].wait_seeders(GROUP, last, self.n_seeders as u64);
        for leecher in &mut *leechers {
            leecher.quit();
        }
        let cpu = |clients: &[mini_torrent_tests::Client]| -> Duration {
            clients.iter().map(|client| client.running().cpu_time()).sum()
        };
        let (before, start) = (cpu(seeders), Instant::now());
        thread::scope(|scope| {
            for leecher in &mut *leechers {
                scope.spawn(move || {
                    leecher.start_again();
                    leecher.sign_in();
                    for file in files {
                        let place = leecher.path(&file.name);
                        leecher.send(&format!("download_file {GROUP} {} {}", file.name, place.display()));
                    }
                    for _ in files {
                        let done = leecher.event_within(LIMIT, |event| event["event"] == "download_completed");
                        assert!(done.is_some(), "a download does not complete");
                    }
                });
            }
        });
        let outcome = Outcome {
            wall: start.elapsed(),
            cpu: cpu(seeders) + cpu(leechers) - before,
            peaks: (
                peak(seeders.iter().map(mini_torrent_tests::Client::running)),
                peak(leechers.iter().map(mini_torrent_tests::Client::running)),
            ),
        };
        for leecher in leechers {
            files.iter().zip(&originals).for_each(|(file, original)| assert_same(original, leecher.path(&file.name)));
        }
        outcome
    }

    /// Ordinary clients, which find each other by a plain HTTP tracker; `None` when they do not complete.
    fn others(&self, scene: &Arc<Scene>, program: SwarmProgram, files: &[Content]) -> Option<Outcome> {
        let tracker = ForeignTracker::start(Answers::Compact);
        let torrents: Vec<PathBuf> = files
            .iter()
            .map(|file| {
                let torrent = Torrent::new(vec![vec![tracker.url()]], file.foreign_info()).expect("a torrent");
                scene.write(&format!("{}.torrent", file.name), torrent.encode())
            })
            .collect();
        let seeders: Vec<Running> = (0..self.n_seeders)
            .map(|nth| {
                let (place, port) = (scene.make_dir(&format!("seeder{nth}")), free_port());
                for file in files {
                    std::fs::write(place.join(&file.name), &*file.bytes).expect("room for a file");
                }
                let running = program.start_seeder(scene, &place, port, &torrents);
                eventually_within(LIMIT, "the seeder has announced everything", || {
                    let asked = tracker.asked();
                    let n = asked.iter().filter(|asked| (asked.port, asked.event) == (port, Event::Started)).count();
                    (n >= files.len()).then_some(())
                });
                running
            })
            .collect();
        let cpu = |processes: &[Running]| -> Duration { processes.iter().map(Running::cpu_time).sum() };
        let (before, start) = (cpu(&seeders), Instant::now());
        let places: Vec<PathBuf> = (0..self.n_leechers).map(|nth| scene.make_dir(&format!("leecher{nth}"))).collect();
        let leechers: Vec<Running> =
            places.iter().map(|place| program.start_leecher(scene, place, free_port(), &torrents)).collect();
        for (leecher, place) in leechers.iter().zip(&places) {
            if !program.completes(leecher, place, files.len(), OTHERS_LIMIT) {
                return None;
            }
        }
        let outcome = Outcome {
            wall: start.elapsed(),
            cpu: cpu(&seeders) + cpu(&leechers) - before,
            peaks: (peak(seeders.iter()), peak(leechers.iter())),
        };
        for place in &places {
            for file in files {
                let copy = std::fs::read(place.join(&file.name)).expect("the file is there");
                assert!(copy == *file.bytes, "{} differs", file.name);
            }
        }
        Some(outcome)
    }

    /// The bare program.
    fn bare(&self, scene: &Arc<Scene>, files: &[Content]) -> Outcome {
        let program = std::env::current_exe().expect("this program has a path").with_file_name("bare");
        let original = scene.write("original", &*files[0].bytes);
        let server = scene.start("bare serve", Command::new(&program).arg("serve").arg(&original));
        let address = server.stdout().wait_nth(0, LIMIT).expect("it listens");
        let (before, start) = (server.cpu_time(), Instant::now());
        let copies: Vec<PathBuf> = (0..self.n_leechers).map(|nth| scene.path(&format!("copy{nth}"))).collect();
        let fetch =
            |copy: &PathBuf| scene.start("bare fetch", Command::new(&program).arg("fetch").arg(&address).arg(copy));
        let leechers: Vec<Running> = copies.iter().map(fetch).collect();
        leechers.iter().for_each(|leecher| drop(leecher.stdout().wait_nth(0, LIMIT).expect("it completes")));
        let wall = start.elapsed();
        let cpu = leechers.iter().map(Running::cpu_time).sum::<Duration>() + server.cpu_time() - before;
        let peaks = (peak([&server].into_iter()), peak(leechers.iter()));
        copies.iter().for_each(|copy| assert_same(&original, copy));
        Outcome { wall, cpu, peaks }
    }
}

/// A program's speed in MB/s and its CPU time in seconds per GiB.
struct Told {
    speed: f64,
    cpu: f64,
}

fn peak<'a>(processes: impl Iterator<Item = &'a Running>) -> f64 {
    mib(processes.map(Running::peak_memory).max().unwrap_or(0))
}
