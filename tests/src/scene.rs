//! Where a test plays: a temporary directory, the programs under test, and a record of all their output
//! that is printed when the test fails.

use crate::running::{Finished, Lines, Running};
use mini_torrent_common::tls::Identity;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use tempfile::TempDir;

/// How much of each log file a failed test shows, in lines.
const SHOWN_LOG_LINES: usize = 60;
/// How much of each stream a failed test shows, in lines.
const SHOWN_OUTPUT_LINES: usize = 80;

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The client.
    pub client: PathBuf,
    /// The tracker.
    pub tracker: PathBuf,
}

impl Programs {
    /// Names both programs.
    pub fn new(client: impl Into<PathBuf>, tracker: impl Into<PathBuf>) -> Self {
        Self { client: client.into(), tracker: tracker.into() }
    }

    /// The real programs, which lie beside the running one.
    ///
    /// # Errors
    /// When they are not there.
    pub fn beside_this_one() -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| format!("where am I: {error}"))?;
        let programs = Self::new(own.with_file_name("mini-torrent"), own.with_file_name("mini-tracker"));
        for program in [&programs.client, &programs.tracker] {
            if !program.exists() {
                return Err(format!("{} is missing: cargo build --release --workspace", program.display()));
            }
        }
        Ok(programs)
    }
}

/// A temporary directory with programs running in it.
#[derive(Debug)]
pub struct Scene {
    programs: Programs,
    record: Mutex<Vec<Recorded>>,
    dir: TempDir,
}

#[derive(Debug)]
struct Recorded {
    name: String,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
}

impl Scene {
    /// A scene in the system's temporary directory.
    ///
    /// # Panics
    /// When no directory can be made.
    pub fn new(programs: Programs) -> Arc<Self> {
        Self::within(programs, &std::env::temp_dir())
    }

    /// A scene below `parent`.
    ///
    /// # Panics
    /// When no directory can be made.
    pub fn within(programs: Programs, parent: &Path) -> Arc<Self> {
        let dir = tempfile::Builder::new().prefix("mini-torrent-").tempdir_in(parent);
        let dir = dir.unwrap_or_else(|error| panic!("no directory below {}: {error}", parent.display()));
        Arc::new(Self { programs, record: Mutex::default(), dir })
    }

    /// The programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Makes a directory in the directory, with its parents; one that is there already is fine.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("a directory can be made in the scene");
        path
    }

    /// Writes a small file into the directory.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("a file can be written in the scene");
        path
    }

    /// Starts a program and keeps a record of its output under `name`.
    pub fn start(&self, name: &str, command: &mut Command) -> Running {
        let running = Running::start(command);
        let recorded =
            Recorded { name: name.into(), stdout: running.stdout().clone(), stderr: running.stderr().clone() };
        self.record.lock().unwrap_or_else(PoisonError::into_inner).push(recorded);
        running
    }

    /// Runs a client to its end with `script` as its input.
    pub fn run_client(&self, arguments: &[&str], script: &str) -> Finished {
        let mut running = self.start(&format!("client {}", arguments.join(" ")), &mut self.client_command(arguments));
        for line in script.lines() {
            running.type_line(line);
        }
        running.finish()
    }

    /// Runs a tracker to its end without input: for starts that fail.
    pub fn run_tracker(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(&self.programs.tracker);
        command.args(arguments).current_dir(self.dir());
        self.start(&format!("tracker {}", arguments.join(" ")), &mut command).finish()
    }

    /// The command that starts a client in this directory, away from the user's own files and settings.
    pub fn client_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.programs.client);
        command.args(arguments).current_dir(self.dir());
        command.env("HOME", self.dir()).env_remove("XDG_STATE_HOME").env_remove("XDG_CONFIG_HOME");
        command
    }

    /// All output and the ends of all log files.
    pub fn report(&self) -> String {
        let mut report = String::new();
        for recorded in self.record.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            for (stream, lines) in [("stdout", &recorded.stdout), ("stderr", &recorded.stderr)] {
                let tail = tail(&lines.text(), SHOWN_OUTPUT_LINES);
                if !tail.is_empty() {
                    let _ = writeln!(report, "--- {} of {}\n{tail}", stream, recorded.name);
                }
            }
        }
        for path in log_files(self.dir()) {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
            let _ = writeln!(report, "--- {}\n{}", path.display(), tail(&text, SHOWN_LOG_LINES));
        }
        report
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "the test runner shows it with the failed test")]
            {
                eprintln!("{}", self.report());
            }
        }
    }
}

/// The log files below a directory.
pub fn log_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_log = entry.file_name().to_string_lossy().contains("log");
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(log_files(&path)),
            Ok(kind) if kind.is_file() && is_log => found.push(path),
            _ => {}
        }
    }
    found.sort();
    found
}

/// The text of all log files below a directory.
pub fn log_text(dir: &Path) -> String {
    let texts = log_files(dir).into_iter().filter_map(|path| std::fs::read(path).ok());
    texts.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
}

/// The identity whose key file lies in a data directory.
///
/// # Panics
/// When there is none.
pub fn identity_in(data_dir: &Path) -> Identity {
    let path = data_dir.join("identity.key");
    let seed = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let seed = seed.as_slice().try_into().expect("a key file of 32 bytes");
    Identity::from_seed(seed).expect("any seed makes a key")
}

fn tail(text: &str, n_lines: usize) -> String {
    let skipped = text.lines().count().saturating_sub(n_lines);
    text.lines().skip(skipped).flat_map(|line| [line, "\n"]).collect()
}
