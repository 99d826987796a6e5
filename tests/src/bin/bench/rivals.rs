//! Mini-Torrent, in TLS and with admission, beside ordinary BitTorrent clients in plain text and a bare program that only
//! moves bytes. One runs after the other; the time runs from the start of the leechers' processes until the last one
//! says that everything is there, verified.

use crate::Bench;
use crate::figures::{Figures, Goal};
use crate::ground::Ground;
use crate::transfers::mib;
use mini_torrent_common::announce::Event;
use mini_torrent_common::torrent::Torrent;
use mini_torrent_tests::client::ClientSettings;
use mini_torrent_tests::deployment::user_name;
use mini_torrent_tests::files::{assert_same, random_bytes};
use mini_torrent_tests::foreign_tracker::{Answers, ForeignTracker};
use mini_torrent_tests::links::{Meter, Shape};
use mini_torrent_tests::stock::SwarmProgram;
use mini_torrent_tests::{Client, Content, Deployment, GROUP, Running, Scene, Tracker, eventually_within};
use std::net::SocketAddr;
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
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) n_seeders: usize,
    pub(crate) n_leechers: usize,
    pub(crate) n_files: usize,
    /// Of each file, in bytes.
    pub(crate) length: u64,
    /// How much faster than the fastest other client, at least.
    pub(crate) lead: f64,
    /// The links between the hosts; on loopback without.
    pub(crate) shape: Option<Shape>,
}

/// What one transfer took.
pub(crate) struct Outcome {
    pub(crate) wall: Duration,
    /// When the last leecher had everything.
    pub(crate) end: Instant,
    /// CPU time of both sides since the leechers' start.
    cpu: Duration,
    /// Most resident memory of any seeder and any leecher, in MiB.
    peaks: (f64, f64),
    /// What passed each peer's link, the seeders' first; nothing on loopback.
    pub(crate) meters: Vec<Meter>,
}

/// One to one.
pub(crate) fn s1(bench: &Bench, figures: &mut Figures) {
    on_loopback("S1", (1, 1), 1, bench.length(), 1.05).measure(bench, figures);
}

/// Four seeders, one leecher.
pub(crate) fn s2(bench: &Bench, figures: &mut Figures) {
    on_loopback("S2", (4, 1), 1, bench.length(), 1.15).measure(bench, figures);
}

/// One seeder, eight leechers on one machine.
pub(crate) fn s3(bench: &Bench, figures: &mut Figures) {
    on_loopback("S3", (1, 8), 1, bench.length() / 4, 1.2).measure(bench, figures);
}

/// A thousand small files.
pub(crate) fn s6(bench: &Bench, figures: &mut Figures) {
    on_loopback("S6", (1, 1), 1000, 64 * 1024, 1.0 / 1.5).measure(bench, figures);
}

fn on_loopback(
    name: &'static str,
    (n_seeders, n_leechers): (usize, usize),
    n_files: usize,
    length: u64,
    lead: f64,
) -> Scenario {
    Scenario { name, n_seeders, n_leechers, n_files, length, lead, shape: None }
}

impl Scenario {
    fn measure(&self, bench: &Bench, figures: &mut Figures) {
        let ours = self.compare(bench, figures, |figures, program, outcome| self.tell(figures, program, outcome));
        // It has no swarm and no files but one.
        if self.n_seeders == 1 && self.n_files == 1 {
            let bare = self.bare(&bench.scene(), &self.files());
            self.tell(figures, "bare program", &bare);
            let is_s1 = self.n_leechers == 1;
            let (least, most) = if is_s1 { (Goal::AtLeast(0.9), Goal::AtMost(1.15)) } else { (Goal::None, Goal::None) };
            let (speed, cpu) = (bare.wall.div_duration_f64(ours.wall), ours.cpu.div_duration_f64(bare.cpu));
            figures.add(&format!("{}: ours to the bare program", self.name), "", least, speed);
            figures.add(&format!("{}: CPU time, ours to the bare program", self.name), "", most, cpu);
        }
    }

    /// Ours and each of the others in turn, and how much faster ours is than the fastest other; what ours took.
    pub(crate) fn compare(
        &self,
        bench: &Bench,
        figures: &mut Figures,
        tell: impl Fn(&mut Figures, &str, &Outcome),
    ) -> Outcome {
        let files = self.files();
        let ours = self.ours(&self.ground(), &bench.scene(), &files);
        tell(figures, "Mini-Torrent", &ours);
        let mut fastest_other: Option<Duration> = None;
        for program in SwarmProgram::ALL.into_iter().filter(|program| program.is_there()) {
            match self.others(&self.ground(), &bench.scene(), program, &files) {
                Some(outcome) => {
                    tell(figures, program.name(), &outcome);
                    fastest_other = Some(fastest_other.map_or(outcome.wall, |wall| wall.min(outcome.wall)));
                }
                None => figures.add(
                    &format!("{} {}: not complete within", self.name, program.name()),
                    "s",
                    Goal::None,
                    OTHERS_LIMIT.as_secs_f64(),
                ),
            }
        }
        if let Some(other) = fastest_other {
            let name = format!("{}: ours to the fastest other client", self.name);
            figures.add(&name, "", Goal::AtLeast(self.lead), other.div_duration_f64(ours.wall));
        }
        ours
    }

    /// Made anew for each program: a system remembers how its connections did.
    fn ground(&self) -> Ground {
        let ground = Ground::new(self.n_seeders + self.n_leechers, self.shape.as_ref());
        ground.unwrap_or_else(|why| panic!("{}: no links: {why}", self.name))
    }

    fn files(&self) -> Vec<Content> {
        let length = usize::try_from(self.length).expect("a file fits into memory");
        (0..self.n_files).map(|nth| Content::new(&format!("f{nth}"), random_bytes(length, nth as u64))).collect()
    }

    fn tell(&self, figures: &mut Figures, program: &str, outcome: &Outcome) {
        let n_bytes = self.length * (self.n_files * self.n_leechers) as u64;
        let row = |what: &str| format!("{} {program}{what}", self.name);
        if self.n_files > 1 {
            figures.add(&row(""), "s", Goal::None, outcome.wall.as_secs_f64());
        } else {
            figures.add(&row(""), "MB/s", Goal::None, n_bytes as f64 / 1e6 / outcome.wall.as_secs_f64());
        }
        let cpu = outcome.cpu.as_secs_f64() * f64::from(1 << 30) / n_bytes as f64;
        figures.add(&row(", CPU of both sides"), "s per GiB", Goal::None, cpu);
        let is_ours = self.name == "S1" && program == "Mini-Torrent";
        let goal = if is_ours { Goal::AtMost(MAX_MIB) } else { Goal::None };
        figures.add(&row(", seeder, peak resident"), "MiB", goal, outcome.peaks.0);
        figures.add(&row(", leecher, peak resident"), "MiB", goal, outcome.peaks.1);
    }

    /// Our clients. The sign-in and what they ask of the tracker are part of the time.
    fn ours(&self, ground: &Ground, scene: &Arc<Scene>, files: &[Content]) -> Outcome {
        let mut deployment = self.deployment(ground, scene);
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
        let cpu = |clients: &[Client]| clients.iter().map(|client| client.running().cpu_time()).sum::<Duration>();
        ground.restart_meters();
        let (before, start) = (cpu(seeders), Instant::now());
        thread::scope(|scope| {
            for (nth, leecher) in (self.n_seeders..).zip(&mut *leechers) {
                scope.spawn(move || ground.at_peer(nth, || fetch_all(leecher, files)));
            }
        });
        let outcome = Outcome {
            wall: start.elapsed(),
            end: Instant::now(),
            cpu: cpu(seeders) + cpu(leechers) - before,
            peaks: (peak(seeders.iter().map(Client::running)), peak(leechers.iter().map(Client::running))),
            meters: ground.meters(),
        };
        for leecher in leechers {
            files.iter().zip(&originals).for_each(|(file, original)| assert_same(original, leecher.path(&file.name)));
        }
        outcome
    }

    /// A tracker and the peers, each in its place and signed in.
    fn deployment(&self, ground: &Ground, scene: &Arc<Scene>) -> Deployment {
        let address = SocketAddr::new(ground.tracker_address(), 0);
        let tracker = ground.at_tracker(|| Tracker::start_at(scene, "tracker", address, &[]));
        let tracker = tracker.expect("the tracker starts");
        let mut deployment = Deployment { clients: Vec::new(), tracker, scene: Arc::clone(scene) };
        for nth in 0..self.n_seeders + self.n_leechers {
            let settings = ClientSettings::new(&user_name(nth)).listen(&ground.any_port(nth).to_string());
            ground.at_peer(nth, || {
                deployment.add_member_with(settings);
            });
        }
        deployment
    }

    /// Ordinary clients, which find each other by a plain HTTP tracker; `None` when they do not complete.
    fn others(&self, ground: &Ground, scene: &Arc<Scene>, program: SwarmProgram, files: &[Content]) -> Option<Outcome> {
        let address = ground.tracker_address();
        let tracker = ground.at_tracker(|| ForeignTracker::start_at(address, Answers::Compact));
        let torrents: Vec<PathBuf> = files
            .iter()
            .map(|file| {
                let torrent = Torrent::new(vec![vec![tracker.url()]], file.foreign_info()).expect("a torrent");
                scene.write(&format!("{}.torrent", file.name), torrent.encode())
            })
            .collect();
        let seeders = self.other_seeders(ground, scene, program, files, &torrents, &tracker);
        let cpu = |processes: &[Running]| -> Duration { processes.iter().map(Running::cpu_time).sum() };
        ground.restart_meters();
        let (before, start) = (cpu(&seeders), Instant::now());
        let places: Vec<PathBuf> = (0..self.n_leechers).map(|nth| scene.make_dir(&format!("leecher{nth}"))).collect();
        let leechers: Vec<Running> = (self.n_seeders..)
            .zip(&places)
            .map(|(nth, place)| {
                ground.at_peer(nth, || program.start_leecher(scene, place, ground.free_port(nth), &torrents))
            })
            .collect();
        for (leecher, place) in leechers.iter().zip(&places) {
            if !program.completes(leecher, place, files.len(), OTHERS_LIMIT) {
                return None;
            }
        }
        let outcome = Outcome {
            wall: start.elapsed(),
            end: Instant::now(),
            cpu: cpu(&seeders) + cpu(&leechers) - before,
            peaks: (peak(seeders.iter()), peak(leechers.iter())),
            meters: ground.meters(),
        };
        for place in &places {
            for file in files {
                let copy = std::fs::read(place.join(&file.name)).expect("the file is there");
                assert!(copy == *file.bytes, "{} differs", file.name);
            }
        }
        Some(outcome)
    }

    /// Seeders that have told the tracker of every file.
    fn other_seeders(
        &self,
        ground: &Ground,
        scene: &Scene,
        program: SwarmProgram,
        files: &[Content],
        torrents: &[PathBuf],
        tracker: &ForeignTracker,
    ) -> Vec<Running> {
        let start = |nth: usize| {
            let place = scene.make_dir(&format!("seeder{nth}"));
            for file in files {
                std::fs::write(place.join(&file.name), &*file.bytes).expect("room for a file");
            }
            let n_before = tracker.asked().len();
            let seeder = ground.at_peer(nth, || program.start_seeder(scene, &place, ground.free_port(nth), torrents));
            eventually_within(LIMIT, "the seeder has announced everything", || {
                let asked = tracker.asked();
                let n_started = asked[n_before..].iter().filter(|asked| asked.event == Event::Started).count();
                (n_started >= files.len()).then_some(())
            });
            seeder
        };
        (0..self.n_seeders).map(start).collect()
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
        let (wall, end) = (start.elapsed(), Instant::now());
        let cpu = leechers.iter().map(Running::cpu_time).sum::<Duration>() + server.cpu_time() - before;
        let peaks = (peak([&server].into_iter()), peak(leechers.iter()));
        copies.iter().for_each(|copy| assert_same(&original, copy));
        Outcome { wall, end, cpu, peaks, meters: Vec::new() }
    }
}

/// Starts a leecher again, signs it in, and has it fetch everything.
fn fetch_all(leecher: &mut Client, files: &[Content]) {
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
}

fn peak<'a>(processes: impl Iterator<Item = &'a Running>) -> f64 {
    mib(processes.map(Running::peak_memory).max().unwrap_or(0))
}
