//! `make demo`: the main job on this machine, played by a tracker and three clients as real processes. What
//! is typed and what comes back is printed as it happens.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "showing is what it is for")]

use mini_torrent_tests::files::{digests, random_file};
use mini_torrent_tests::{DEADLINE, Programs, Running, Scene, Tracker, eventually};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Length of the file that is shared: 128 MiB.
const LENGTH: u64 = 128 << 20;
const FILE: &str = "holiday film.mkv";
const TRANSFER_LIMIT: Duration = DEADLINE;

fn main() -> ExitCode {
    let programs = match Programs::beside_this_one() {
        Ok(programs) => programs,
        Err(error) => {
            eprintln!("demo: {error}");
            return ExitCode::FAILURE;
        }
    };
    let start = Instant::now();
    // A failed step panics; the processes and files are gone either way.
    match catch_unwind(AssertUnwindSafe(|| play(programs))) {
        Ok(()) => {
            println!("\nDone in {:.1} s; all processes and files are gone.", start.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(_) => {
            eprintln!("\nThe demo failed.");
            ExitCode::FAILURE
        }
    }
}

fn play(programs: Programs) {
    let scene = Scene::new(programs);
    title("A tracker");
    let tracker = Tracker::start(&scene);
    println!("  $ mini-tracker tracker_info.txt 1\n  listening on {}\n  key {}", tracker.address(), tracker.key());

    title("Three people, each with a client of their own");
    let mut people = ["alice", "bob", "carol"].map(|name| Person::arrive(&scene, &tracker, name));
    people.iter_mut().for_each(Person::sign_up);
    let [alice, bob, carol] = &mut people;

    title("Alice opens a group; the others ask to join, and she lets them in");
    alice.says("create_group friends");
    bob.says("join_group friends");
    carol.says("join_group friends");
    alice.says("list_requests friends");
    alice.says("accept_request friends bob");
    alice.says("accept_request friends carol");

    title("Alice shares a file of 128 MiB of random bytes");
    let original = random_file(alice.path(FILE), LENGTH, rand::random());
    alice.says(&format!("upload_file '{FILE}' friends"));
    bob.says("list_files friends");

    title("Bob and Carol fetch it at the same time, from Alice and from each other");
    let begun = Instant::now();
    let mut arriving = [bob, carol];
    for person in &mut arriving {
        person.says(&format!("download_file friends '{FILE}' ."));
    }
    for person in &mut arriving {
        person.waits_for_its_file();
    }
    let seconds = begun.elapsed().as_secs_f64();
    for person in &mut arriving {
        person.says("show_downloads");
    }
    println!(
        "\n  {:.0} MB/s: two copies of {} MB in {seconds:.2} s",
        2.0 * megabytes(LENGTH) / seconds,
        LENGTH / 1_000_000
    );

    title("The copies are the original, bit for bit (SHA-256)");
    let expected = digests(&original).sha256;
    println!("  {expected}  alice/{FILE}");
    for person in &mut arriving {
        let found = digests(person.path(FILE)).sha256;
        println!("  {found}  {}/{FILE}", person.name);
        assert_eq!(found, expected, "{}'s copy differs", person.name);
    }

    title("Alice leaves; the group still has the file");
    alice.leaves();
    let [bob, _] = arriving;
    bob.says("list_files friends");
    people.iter_mut().skip(1).for_each(Person::leaves);
}

fn title(text: &str) {
    println!("\n\u{2500}\u{2500} {text}");
}

fn megabytes(bytes: u64) -> f64 {
    // A length in megabytes needs no more digits than a float has.
    bytes as f64 / 1e6
}

/// Somebody at a client.
struct Person {
    name: &'static str,
    client: Running,
    scene: Arc<Scene>,
    /// What `help quit` answers: typed behind each command, it shows where the reply ends.
    end_mark: Vec<String>,
}

impl Person {
    fn arrive(scene: &Arc<Scene>, tracker: &Tracker, name: &'static str) -> Self {
        let dir = scene.make_dir(name);
        let mut command = scene.client_command(&["127.0.0.1:0", tracker.info(), "--data-dir", "state"]);
        let mut client = scene.start(name, command.current_dir(dir));
        let line = client.stderr().wait_line(0, "the address", |line| line.starts_with("listening on "));
        println!("  $ mini-torrent 127.0.0.1:0 tracker_info.txt   # {name}: {line}");
        let end_mark = learn_end_mark(&mut client);
        Self { name, client, scene: Arc::clone(scene), end_mark }
    }

    fn path(&self, file: &str) -> std::path::PathBuf {
        self.scene.path(&Path::new(self.name).join(file).to_string_lossy())
    }

    fn sign_up(&mut self) {
        self.says(&format!("create_user {} 'correct horse'", self.name));
        self.says(&format!("login {} 'correct horse'", self.name));
    }

    /// Types a command and prints its reply. An error ends the demo.
    fn says(&mut self, command: &str) {
        println!("\n  {}> {command}", self.name);
        let (from, errors_from) = (self.client.stdout().count(), self.client.stderr().count());
        self.client.type_line(command);
        self.client.type_line("help quit");
        let reply = eventually("a reply", || {
            let lines = self.client.stdout().since(from);
            lines.strip_suffix(self.end_mark.as_slice()).map(<[String]>::to_vec)
        });
        reply.iter().for_each(|line| println!("  {line}"));
        let errors = self.client.stderr().since(errors_from);
        let error = errors.iter().find(|line| line.starts_with("error["));
        assert!(error.is_none(), "{command}: {error:?}");
    }

    fn waits_for_its_file(&mut self) {
        let done = |line: &str| line.starts_with("[C] ");
        let line = self.client.stderr().wait_line(0, "the file is complete", done);
        println!("\n  {} is told: {line}", self.name);
    }

    fn leaves(&mut self) {
        println!("\n  {}> quit", self.name);
        self.client.type_line("quit");
        let status = self.client.wait_exit(TRANSFER_LIMIT);
        assert!(status.success(), "{}: {status}", self.name);
    }
}

fn learn_end_mark(client: &mut Running) -> Vec<String> {
    // Typed twice, the reply to the first ends where the second one begins.
    client.type_line("help quit");
    let first = client.stdout().wait_line(0, "help", |_| true);
    client.type_line("help quit");
    client.stdout().wait_line(1, "help again", |line| line == first);
    let lines = client.stdout().since(0);
    let length = lines.iter().skip(1).position(|line| *line == first).map_or(lines.len(), |at| at + 1);
    client.stdout().wait_nth(2 * length - 1, DEADLINE).expect("all of the second one");
    lines.into_iter().take(length).collect()
}
