//! `make bench`: what the product promises of speed, measured with the real programs on this machine, as a table.
//!
//! Repetitions rotate over the cases, so that a slow minute of the machine hits all of them alike; compare
//! only figures of one run. Files lie on tmpfs. Each case cleans up behind itself.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it reports to a person")]

mod accounts;
mod announces;
mod connections;
mod failover;
mod figures;
mod ground;
mod hashing;
mod links;
mod members;
mod metadata;
mod pinning;
mod rivals;
mod trackers;
mod transfers;

use clap::Parser;
use figures::Figures;
use mini_torrent_tests::{Programs, Scene};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Measures transfers, hashing, sign-in, great numbers, and what it costs that only members are served.
#[derive(Debug, Parser)]
struct Options {
    /// Repetitions of each case
    #[arg(short = 'n', long, default_value_t = 3)]
    repetitions: u32,
    /// Where the files lie
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// Length in MiB of the file of the 1:1, 4:1 and hashing cases; 1:8 has a quarter of it
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Shares that revive at login
    #[arg(long, default_value_t = 10_000)]
    shares: u32,
    /// Members that sign in at once
    #[arg(long, default_value_t = 200)]
    logins: u32,
    /// Members online, and members removed, in the case of revocations
    #[arg(long, default_value_t = 1000)]
    members: usize,
    /// Client processes whose tracker is killed
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Members that are connected to one seeder at once
    #[arg(long, default_value_t = 500)]
    connections: usize,
    /// Files that these members are spread over, each a swarm of its own
    #[arg(long, default_value_t = 1)]
    swarms: usize,
    /// Peers with a bitfield that connect to who fetches a file of 1 TiB
    #[arg(long, default_value_t = 50)]
    peers: usize,
    /// Only these cases [default: all]: 1:1 4:1 1:8 sparse hashing revive logins encryption handshakes connections
    /// metadata revocations login-timing flood announces trackers failover; by name alone: S1 S2 S3 S4 S5 S5c S6 herd
    cases: Vec<String>,
}

/// What a case needs.
struct Bench {
    options: Options,
    programs: Programs,
}

impl Bench {
    fn scene(&self) -> Arc<Scene> {
        Scene::within(self.programs.clone(), &self.options.dir)
    }

    fn length(&self) -> u64 {
        self.options.mib << 20
    }
}

struct Case {
    name: &'static str,
    run: fn(&Bench, &mut Figures),
    /// Whether once is enough.
    once: bool,
    /// Whether it is too large for every machine, and runs only when it is named.
    only_named: bool,
}

const CASES: [Case; 25] = [
    Case { name: "1:1", run: transfers::one_to_one, once: false, only_named: false },
    Case { name: "4:1", run: transfers::four_to_one, once: false, only_named: false },
    Case { name: "1:8", run: transfers::one_to_eight, once: false, only_named: false },
    Case { name: "sparse", run: transfers::sparse, once: true, only_named: false },
    Case { name: "hashing", run: hashing::upload, once: false, only_named: false },
    Case { name: "revive", run: accounts::revive, once: true, only_named: false },
    Case { name: "logins", run: accounts::logins, once: false, only_named: false },
    Case { name: "encryption", run: members::encryption, once: false, only_named: false },
    Case { name: "handshakes", run: members::handshakes, once: false, only_named: false },
    Case { name: "connections", run: connections::connections, once: false, only_named: false },
    Case { name: "metadata", run: metadata::metadata, once: false, only_named: false },
    Case { name: "revocations", run: members::revocations, once: true, only_named: false },
    Case { name: "login-timing", run: members::login_timing, once: false, only_named: false },
    Case { name: "flood", run: members::flood, once: false, only_named: false },
    Case { name: "announces", run: announces::announces, once: false, only_named: false },
    Case { name: "trackers", run: trackers::trackers, once: false, only_named: false },
    Case { name: "failover", run: failover::failover, once: true, only_named: false },
    Case { name: "S1", run: rivals::s1, once: false, only_named: true },
    Case { name: "S2", run: rivals::s2, once: false, only_named: true },
    Case { name: "S3", run: rivals::s3, once: false, only_named: true },
    Case { name: "S4", run: links::s4, once: false, only_named: true },
    Case { name: "S5", run: links::s5, once: false, only_named: true },
    Case { name: "S5c", run: links::s5c, once: false, only_named: true },
    Case { name: "S6", run: rivals::s6, once: false, only_named: true },
    Case { name: "herd", run: failover::herd, once: true, only_named: true },
];

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(unknown) = options.cases.iter().find(|name| CASES.iter().all(|case| case.name != name.as_str())) {
        eprintln!("bench: no case is named {unknown}");
        return ExitCode::from(2);
    }
    let programs = match Programs::beside_this_one() {
        Ok(programs) => programs,
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    let bench = Bench { options, programs };
    let mut figures = Figures::default();
    let mut failed = false;
    touch_memory(&bench);
    for nth in 0..bench.options.repetitions {
        for case in &CASES {
            let is_named = bench.options.cases.iter().any(|name| name == case.name);
            let wanted = is_named || (bench.options.cases.is_empty() && !case.only_named);
            if !wanted || (case.once && nth > 0) {
                continue;
            }
            eprintln!("{} ({} of {})", case.name, nth + 1, if case.once { 1 } else { bench.options.repetitions });
            failed |= catch_unwind(AssertUnwindSafe(|| (case.run)(&bench, &mut figures))).is_err();
        }
    }
    print!("{figures}");
    if failed {
        eprintln!("bench: some runs failed");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Fills as much memory as the cases need, once: a virtual machine gets it from its host at the first touch,
/// and that is slower than what is measured.
fn touch_memory(bench: &Bench) {
    let scene = bench.scene();
    let buffer = vec![1; 1 << 20];
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(scene.path("touched"))?;
        (0..6 * bench.options.mib).try_for_each(|_| file.write_all(&buffer))
    };
    if let Err(error) = write() {
        eprintln!("bench: {} has no room for 6 x {} MiB: {error}", bench.options.dir.display(), bench.options.mib);
    }
}
