//! Ordinary BitTorrent clients as processes: aria2, transmission, libtorrent. Each fetches a torrent into a directory of
//! its own, or finds the whole file there, and goes on seeding until it is dropped.

use crate::running::Running;
use crate::scene::Scene;
use crate::waiting::{eventually_within, found_within, skipped};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// How long an ordinary client may take for a small file: its timers are of seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// The programs that are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stock {
    /// aria2c.
    Aria2,
    /// transmission-cli.
    Transmission,
    /// libtorrent through its Python binding.
    Libtorrent,
}

/// Which of a torrent's trackers a client asks. Only libtorrent can choose; aria2 asks by UDP if it is told so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trackers {
    /// As the torrent says.
    All,
    /// Those of BEP 15 alone.
    Udp,
}

impl Stock {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Aria2, Self::Transmission, Self::Libtorrent];

    /// Whether the program is there; says so visibly when it is not.
    pub fn is_there(self) -> bool {
        let name = format!("{self:?}");
        match self {
            Self::Aria2 => is_installed(&name, "aria2c", &["--version"], ExitStatus::success),
            // It ends with 1 after it has said its version.
            Self::Transmission => is_installed(&name, "transmission-cli", &["--version"], |_| true),
            Self::Libtorrent => {
                is_installed(&name, "/usr/bin/python3", &["-c", "import libtorrent"], ExitStatus::success)
            }
        }
    }
}

/// Whether a program can be started and ends as it does where it is there; says so visibly when not.
fn is_installed(name: &str, program: &str, arguments: &[&str], ends_well: fn(&ExitStatus) -> bool) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let found = command.status().is_ok_and(|status| ends_well(&status));
    if !found {
        skipped(&format!("{name} is not installed"));
    }
    found
}

/// aria2 with a port and a place, and nothing that finds peers but the torrents' trackers.
fn aria2(port: u16, place: &Path) -> Command {
    let mut command = Command::new("aria2c");
    command.args(["--no-conf", "--enable-dht6=false", "--bt-enable-lpd=false", "--enable-peer-exchange=false"]);
    command.args(["--seed-ratio=0.0", "--summary-interval=0", "--allow-overwrite=true", "--disable-ipv6=true"]);
    command.arg(format!("--listen-port={port}")).arg(format!("--dir={}", place.display()));
    command
}

/// A running ordinary client.
#[derive(Debug)]
pub struct StockClient {
    running: Running,
    directory: PathBuf,
    port: u16,
}

impl StockClient {
    /// Starts one on a torrent; `directory` may hold the whole file already.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start(scene: &Scene, stock: Stock, torrent: &Path, name: &str, trackers: Trackers) -> Self {
        let directory = scene.make_dir(name);
        let port = free_port();
        let (port_text, torrent) = (port.to_string(), torrent.display().to_string());
        let place = directory.display().to_string();
        let mut command = match stock {
            Stock::Aria2 => {
                let mut command = aria2(port, &directory);
                if trackers == Trackers::Udp {
                    // It asks trackers by UDP through the socket of its DHT, which is led nowhere.
                    command.arg("--enable-dht=true").arg(format!("--dht-listen-port={port}"));
                    command.arg("--dht-entry-point=127.0.0.1:9").arg(format!("--dht-file-path={place}/dht.dat"));
                } else {
                    command.arg("--enable-dht=false");
                }
                command.args(["--check-integrity=true", "--bt-tracker-interval=1", "--bt-stop-timeout=0", &torrent]);
                command
            }
            Stock::Transmission => {
                let mut command = Command::new("transmission-cli");
                command.args(["--no-portmap", "--encryption-tolerated", "--download-dir", &place]);
                command.args(["--config-dir", &format!("{place}/.transmission"), "--port", &port_text, &torrent]);
                command
            }
            Stock::Libtorrent => {
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("stock/libtorrent_peer.py");
                let mut command = Command::new("/usr/bin/python3");
                command.arg(script).args([&torrent, &place, &port_text]);
                if trackers == Trackers::Udp {
                    command.arg("only-udp");
                }
                command
            }
        };
        command.env("HOME", scene.dir()).current_dir(scene.dir());
        Self { running: scene.start(name, &mut command), directory, port }
    }

    /// Where it accepts peers, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its files lie.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Waits until `file` is there whole.
    ///
    /// # Panics
    /// When it takes too long, or the program ends.
    pub fn wait_complete(&mut self, file: &str, original: &Path) -> PathBuf {
        let path = self.directory.join(file);
        let running = &mut self.running;
        eventually_within(PATIENCE, "an ordinary client completes", || {
            assert!(running.is_alive(), "the ordinary client has ended");
            (path.exists() && crate::files::same(&path, original)).then_some(())
        });
        path
    }
}

/// Ordinary clients as the benchmarks run them: many torrents each, plain text, and set up as fast as was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwarmProgram {
    /// aria2c, without preallocation and with a large cache.
    Aria2,
    /// libtorrent as it comes.
    Libtorrent,
    /// libtorrent with deep queues.
    LibtorrentTuned,
}

/// The Python whose libtorrent is measured.
const PYTHON: &str = "MINI_TORRENT_BENCH_PYTHON";
/// Gets a line for each torrent that aria2 has completed.
const COMPLETED: &str = "completed";

impl SwarmProgram {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Aria2, Self::Libtorrent, Self::LibtorrentTuned];

    /// As tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aria2 => "aria2",
            Self::Libtorrent => "libtorrent",
            Self::LibtorrentTuned => "libtorrent, tuned",
        }
    }

    /// Whether the program is there; says so visibly when it is not.
    pub fn is_there(self) -> bool {
        match self {
            Self::Aria2 => is_installed(self.name(), "aria2c", &["--version"], ExitStatus::success),
            Self::Libtorrent | Self::LibtorrentTuned => {
                is_installed(self.name(), &python(), &["-c", "import libtorrent"], ExitStatus::success)
            }
        }
    }

    /// Starts one whose files are all in `place`.
    pub fn start_seeder(self, scene: &Scene, place: &Path, listen: SocketAddr, torrents: &[PathBuf]) -> Running {
        let trusting = ["--bt-seed-unverified=true", "--check-integrity=false"];
        self.start(scene, place, listen, torrents, &trusting)
    }

    /// Starts one that fetches everything into `place`.
    pub fn start_leecher(self, scene: &Scene, place: &Path, listen: SocketAddr, torrents: &[PathBuf]) -> Running {
        let hook = place.join("hook");
        let script = format!("#!/bin/sh\necho >>'{}'\n", place.join(COMPLETED).display());
        std::fs::write(&hook, script).expect("a script can be written");
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o700)).expect("an own file");
        let option = format!("--on-bt-download-complete={}", hook.display());
        self.start(scene, place, listen, torrents, &[&option])
    }

    fn start(
        self,
        scene: &Scene,
        place: &Path,
        listen: SocketAddr,
        torrents: &[PathBuf],
        aria2_options: &[&str],
    ) -> Running {
        let profile = if self == Self::LibtorrentTuned { "tuned" } else { "default" };
        let mut command = match self {
            Self::Aria2 => {
                let mut command = aria2(listen.port(), place);
                command.args(["--enable-dht=false", "--bt-min-crypto-level=plain", "--console-log-level=warn"]);
                command.args(["--file-allocation=none", "--disk-cache=64M"]);
                command.args(["-j", &torrents.len().to_string(), &format!("--bt-max-open-files={}", torrents.len())]);
                command.args(aria2_options);
                command
            }
            Self::Libtorrent | Self::LibtorrentTuned => {
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("stock/libtorrent_swarm.py");
                let mut command = Command::new(python());
                command.arg(script).args([profile, &listen.to_string()]).arg(place);
                command
            }
        };
        command.args(torrents).env("HOME", scene.dir()).current_dir(scene.dir());
        scene.start(self.name(), &mut command)
    }

    /// Waits until a leecher says that it has all of so many torrents; whether it did within `limit`.
    pub fn completes(self, leecher: &Running, place: &Path, n_torrents: usize, limit: Duration) -> bool {
        if self == Self::Aria2 {
            let n_lines = || std::fs::metadata(place.join(COMPLETED)).map_or(0, |metadata| metadata.len());
            return found_within(limit, || (n_lines() >= n_torrents as u64).then_some(())).is_some();
        }
        (0..).map_while(|nth| leecher.stdout().wait_nth(nth, limit)).any(|line| line == "complete")
    }
}

fn python() -> String {
    std::env::var(PYTHON).unwrap_or_else(|_| "/usr/bin/python3".into())
}

/// A port that was free a moment ago; these programs cannot choose one themselves and say it.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
