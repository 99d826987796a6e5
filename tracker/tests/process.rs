//! The program as a process: how it starts, what it says, how it ends.

#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

#[path = "../../tests/src/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "it belongs to the end-to-end tests, which use all of it")]
mod postgres;

struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    address: String,
    key: String,
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    command_of("1", directory, arguments)
}

/// The tracker of this number.
fn command_of(number: &str, directory: &Path, arguments: &[&str]) -> Command {
    let info = directory.join("tracker_info.txt");
    // Others may be reading it.
    if !info.exists() {
        let lines = (18000..18004).map(|port| format!("127.0.0.1\n{port}\n"));
        std::fs::write(&info, lines.collect::<String>()).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_mini-tracker"));
    command.arg(info).arg(number).args(arguments);
    command
}

impl Running {
    fn start(directory: &Path) -> Self {
        Self::start_with(directory, &[])
    }

    fn start_with(directory: &Path, arguments: &[&str]) -> Self {
        Self::start_number("1", directory, arguments)
    }

    fn start_number(number: &str, directory: &Path, arguments: &[&str]) -> Self {
        let mut command = command_of(number, directory, &[&["--listen", "127.0.0.1:0"], arguments].concat());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut running = Self { child, stdin, stdout, address: String::new(), key: String::new() };
        running.address = running.line().strip_prefix("listening on ").unwrap().into();
        running.key = running.line().strip_prefix("key ").unwrap().into();
        running
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().into()
    }

    fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The exit status, and how long it took to get it.
    fn end(mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        (self.child.wait().unwrap().code(), start.elapsed())
    }
}

fn refused(directory: &Path, arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = command(directory, arguments).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), text.lines().count()), (Some(2), 1), "{text}");
    text
}

/// E2: `quit` ends with 0 and keeps the state; D10: it is there after a restart.
#[test]
fn e2_quit_ends_with_zero_and_keeps_everything() {
    let directory = tempfile::tempdir().unwrap();
    let mut tracker = Running::start(directory.path());
    let key = tracker.key.clone();
    tracker.say("create_user bob 12345678");
    assert_eq!(tracker.line(), "user bob created");
    tracker.say("quit");
    assert_eq!(tracker.end().0, Some(0));
    let mut tracker = Running::start(directory.path());
    assert_eq!(tracker.key, key);
    tracker.say("create_user bob 12345678");
    assert!(tracker.line().starts_with("error[user_exists]"));
    // Killed without a word; what was acknowledged stays.
    tracker.say("create_user eve 12345678");
    assert_eq!(tracker.line(), "user eve created");
    tracker.signal(Signal::KILL);
    tracker.end();
    let mut tracker = Running::start(directory.path());
    tracker.say("create_user eve 12345678");
    assert!(tracker.line().starts_with("error[user_exists]"));
    tracker.signal(Signal::TERM);
    assert_eq!(tracker.end().0, Some(0));
}

#[test]
fn the_end_of_its_input_is_not_the_end_and_signals_are() {
    let directory = tempfile::tempdir().unwrap();
    for (signal, status) in [(Signal::TERM, 0), (Signal::INT, 130)] {
        let mut tracker = Running::start(directory.path());
        drop(tracker.stdin.take());
        // A connection that idles does not hold the end up.
        let idle = std::net::TcpStream::connect(&tracker.address).unwrap();
        assert!(tracker.child.try_wait().unwrap().is_none());
        tracker.signal(signal);
        let (code, took) = tracker.end();
        assert!(code == Some(status) && took < Duration::from_secs(3), "{code:?} {took:?}");
        drop(idle);
    }
}

#[test]
fn a_taken_port_is_said_and_the_first_tracker_unharmed() {
    let directory = tempfile::tempdir().unwrap();
    let mut tracker = Running::start(directory.path());
    let address = tracker.address.clone();
    assert!(refused(directory.path(), &["--listen", &address]).starts_with("error[address_in_use]: "));
    tracker.say("list");
    assert_eq!(tracker.line(), "no files");
    tracker.signal(Signal::TERM);
    tracker.end();
}

/// The port is one for TCP and UDP: with the one half taken there is no tracker.
#[test]
fn a_taken_udp_port_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let text = refused(directory.path(), &["--listen", &taken.local_addr().unwrap().to_string()]);
    assert!(text.starts_with("error[address_in_use]: ") && text.contains("UDP"), "{text}");
}

#[test]
fn two_trackers_share_a_data_directory_and_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let (mut one, mut other) = (Running::start(directory.path()), Running::start_number("2", directory.path(), &[]));
    assert!(one.key == other.key && one.address != other.address);
    one.say("create_user bob 12345678");
    assert_eq!(one.line(), "user bob created");
    other.say("create_user bob 12345678");
    assert!(other.line().starts_with("error[user_exists]"));
    for tracker in [one, other] {
        tracker.signal(Signal::TERM);
        assert_eq!(tracker.end().0, Some(0));
    }
    std::fs::write(directory.path().join("mini-tracker.data/identity.key"), [1; 32]).unwrap();
    let text = refused(directory.path(), &["--listen", "127.0.0.1:0"]);
    assert!(text.starts_with("error[tracker_key_changed]: ") && text.contains("sha256:"), "{text}");
}

#[test]
fn bad_usage_is_one_line_and_help_is_help() {
    let directory = tempfile::tempdir().unwrap();
    assert!(refused(directory.path(), &["--colour"]).starts_with("error[usage]: "));
    assert!(refused(directory.path(), &["--log-format", "xml"]).contains("xml"));
    let output = Command::new(env!("CARGO_BIN_EXE_mini-tracker")).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("TRACKER_INFO_FILE") && !text.contains("--listen"));
    let mut bad = command(directory.path(), &[]);
    let output = bad.env("MINI_TRACKER_LGO", "1").output().unwrap();
    assert!(output.status.code() == Some(2) && String::from_utf8_lossy(&output.stderr).contains("MINI_TRACKER_LGO"));
}

/// C11, D12: events are in the log, secrets and the console's noise are not.
#[test]
fn c11_the_log_has_events_and_no_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let mut tracker = Running::start(directory.path());
    tracker.say("create_user bob correct-horse-battery");
    tracker.line();
    tracker.signal(Signal::TERM);
    tracker.end();
    let files = std::fs::read_dir(directory.path().join("mini-tracker.data")).unwrap().map(|file| file.unwrap());
    let logs: Vec<_> = files.filter(|file| file.path().extension().is_some_and(|ending| ending == "log")).collect();
    let name = logs[0].file_name().into_string().unwrap();
    assert!(logs.len() == 1 && name.starts_with("tracker.2"), "a file a day: {name}");
    assert_eq!(logs[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let log = std::fs::read_to_string(logs[0].path()).unwrap();
    assert!(log.contains("serving") && log.contains("account created") && log.contains("ended"), "{log}");
    assert!(!log.contains("correct-horse-battery") && !log.contains('\u{1b}'));
}

/// What is in the memory of the process stays there.
#[test]
fn no_core_is_dumped_and_the_memory_is_nobodys() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path());
    let proc = format!("/proc/{}", tracker.child.id());
    let limits = std::fs::read_to_string(format!("{proc}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    // The files of a process that may not be dumped belong to the system's user.
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("{proc}/environ")).unwrap());
    assert_eq!(owner, 0);
    tracker.signal(Signal::TERM);
    assert_eq!(tracker.end().0, Some(0));
}

impl Running {
    /// The answer to a command of the console.
    fn answer(&mut self, line: &str) -> String {
        self.say(line);
        self.line()
    }

    fn terminate(self) {
        self.signal(Signal::TERM);
        assert_eq!(self.end().0, Some(0));
    }
}

const CREATE_BOB: &str = "create_user bob 12345678";

/// What a task of the program says; it succeeds.
fn task(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_mini-tracker")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// However many start at once on a directory that is not there yet, they are one deployment.
#[test]
fn trackers_that_start_together_on_nothing_share_one_key() {
    let directory = &tempfile::tempdir().unwrap();
    drop(command(directory.path(), &[]));
    std::thread::scope(|scope| {
        let start = |number| scope.spawn(move || Running::start_number(number, directory.path(), &[]));
        let started: Vec<_> = ["1", "2", "3", "4"].map(start).into_iter().collect();
        let mut trackers: Vec<_> = started.into_iter().map(|started| started.join().unwrap()).collect();
        assert!(trackers.iter().all(|tracker| tracker.key == trackers[0].key));
        assert_eq!(trackers[0].answer(CREATE_BOB), "user bob created");
        assert!(trackers[3].answer(CREATE_BOB).starts_with("error[user_exists]"));
        trackers.into_iter().for_each(Running::terminate);
    });
}

/// A number is used once on a database, through whatever data directory: the newcomer is refused, not the one that runs.
#[test]
fn a_number_is_used_once_on_a_database_whatever_the_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let database = format!("sqlite:{}", path("mini-tracker.data/tracker.db"));
    let named = ["--data-dir", &path("other"), "--database", &database];
    let start = |options: &[&str]| refused(directory.path(), &[&["--listen", "127.0.0.1:0"], options].concat());
    let mut first = Running::start(directory.path());
    assert_eq!(first.answer(CREATE_BOB), "user bob created");
    std::fs::create_dir(path("other")).unwrap();
    std::fs::copy(path("mini-tracker.data/identity.key"), path("other/identity.key")).unwrap();
    let error = start(&named);
    assert!(error.starts_with("error[data_dir_in_use]: tracker 1 runs already"), "{error}");
    assert!(first.answer(CREATE_BOB).starts_with("error[user_exists]"), "it goes on");
    Running::start_number("2", directory.path(), &named).terminate();
    first.terminate();
    let mut other = Running::start_with(directory.path(), &named);
    let error = start(&[]);
    assert!(error.starts_with("error[data_dir_in_use]: tracker 1 runs already"), "{error}");
    assert!(other.answer(CREATE_BOB).starts_with("error[user_exists]"), "it goes on");
    other.terminate();
}

/// C12: a second host joins with a copy of the deployment's key, and with no other one.
#[test]
fn trackers_of_several_hosts_share_a_database_and_the_deployments_key() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let options = ["--database", &database.url];
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut one = Running::start_with(here.path(), &options);
    assert_eq!(one.answer(CREATE_BOB), "user bob created");
    let start = [&["--listen", "127.0.0.1:0"], &options[..]].concat();
    let missing = refused(there.path(), &start);
    assert!(missing.starts_with("error[tracker_key_changed]: ") && missing.contains("identity.key"), "{missing}");
    let key = |directory: &tempfile::TempDir| directory.path().join("mini-tracker.data/identity.key");
    assert!(!key(&there).exists(), "none is made up");
    assert!(!here.path().join("mini-tracker.data/tracker.db").exists());
    std::fs::write(key(&there), [1; 32]).unwrap();
    std::fs::set_permissions(key(&there), PermissionsExt::from_mode(0o600)).unwrap();
    let another = refused(there.path(), &start);
    assert!(another.starts_with("error[tracker_key_changed]: "), "{another}");
    std::fs::copy(key(&here), key(&there)).unwrap();
    let mut other = Running::start_number("2", there.path(), &options);
    assert_eq!(other.key, one.key);
    assert!(other.answer(CREATE_BOB).starts_with("error[user_exists]"));
    one.terminate();
    other.terminate();
}

/// A database that is away is an answer, and its return needs nobody.
#[test]
fn a_tracker_outlives_its_database() {
    let Some(server) = postgres::own() else { return };
    let database = server.database();
    let directory = tempfile::tempdir().unwrap();
    let mut tracker = Running::start_with(directory.path(), &["--database", &database.url]);
    assert_eq!(tracker.answer(CREATE_BOB), "user bob created");
    server.stop(postgres::Stop::Immediate);
    let away = tracker.answer("create_user eve 12345678");
    assert!(away.starts_with("error[store_unavailable]"), "{away}");
    server.start_again();
    assert_eq!(tracker.answer("create_user eve 12345678"), "user eve created");
    assert!(tracker.answer(CREATE_BOB).starts_with("error[user_exists]"));
    tracker.terminate();
}

#[test]
fn a_database_that_cannot_be_used_is_said_without_its_password() {
    let directory = tempfile::tempdir().unwrap();
    let start = |url: &str| refused(directory.path(), &["--listen", "127.0.0.1:0", "--database", url]);
    let away = start("postgres://tracker:s3cret@127.0.0.1:1/mini");
    assert!(away.starts_with("error[store_unavailable]: postgres://tracker@127.0.0.1:1/mini: "), "{away}");
    let plain = start("postgres://tracker:s3cret@192.0.2.1/mini?sslmode=disable");
    assert!(plain.starts_with("error[usage]: ") && plain.contains("TLS"), "{plain}");
    for text in [away, plain] {
        assert!(!text.contains("s3cret"), "{text}");
    }
    let mut help = Command::new(env!("CARGO_BIN_EXE_mini-tracker"));
    let help = help.arg("--help").env("MINI_TRACKER_DATABASE", "postgres://u:s3cret@h/d").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("--database-file") && help.contains("migrate-store") && !help.contains("s3cret"), "{help}");
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    Running::start_with(directory.path(), &["--database", &database.url]).terminate();
    database.run("INSERT INTO refinery_schema_history VALUES (9999, 'later', '2027-01-01T00:00:00Z', '1')");
    let newer = start(&database.url);
    assert!(newer.starts_with("error[store_unavailable]: ") && newer.contains("9999"), "{newer}");
}

/// From one file to a server and back into one file, with the program's own commands.
#[test]
fn a_deployment_moves_up_and_is_backed_up() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let mut tracker = Running::start(directory.path());
    assert_eq!(tracker.answer(CREATE_BOB), "user bob created");
    let said = task(&["backup", &path("one.db"), "--data-dir", &path("mini-tracker.data")]);
    assert!(said.contains("one.db is a copy of") && said.contains("identity.key"), "{said}");
    let file = format!("sqlite:{}", path("mini-tracker.data/tracker.db"));
    let move_up = ["migrate-store", "--from", &file, "--to", &database.url];
    let early = Command::new(env!("CARGO_BIN_EXE_mini-tracker")).args(move_up).output().unwrap();
    let problem = String::from_utf8_lossy(&early.stderr);
    assert!(early.status.code() == Some(2) && problem.contains("tracker 1 is running on it"), "{problem}");
    tracker.terminate();
    let said = task(&move_up);
    assert!(said.contains("users                      1 rows  sha256:") && said.contains("found equal"), "{said}");
    let again = Command::new(env!("CARGO_BIN_EXE_mini-tracker")).args(move_up).output().unwrap();
    assert!(again.status.code() == Some(2) && String::from_utf8_lossy(&again.stderr).contains("something in it"));
    let mut tracker = Running::start_with(directory.path(), &["--database", &database.url]);
    assert!(tracker.answer(CREATE_BOB).starts_with("error[user_exists]"));
    assert_eq!(tracker.answer("create_user eve 12345678"), "user eve created");
    task(&["backup", &path("two.db"), "--database", &database.url]);
    tracker.terminate();
    for (name, has_eve) in [("one.db", false), ("two.db", true)] {
        let mut tracker = Running::start_with(directory.path(), &["--database", &format!("sqlite:{}", path(name))]);
        assert!(tracker.answer(CREATE_BOB).starts_with("error[user_exists]"));
        assert_eq!(tracker.answer("create_user eve 12345678").starts_with("error[user_exists]"), has_eve, "{name}");
        tracker.terminate();
    }
}
