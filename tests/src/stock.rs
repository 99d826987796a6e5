//! Ordinary BitTorrent clients as processes: aria2, transmission, libtorrent. Each fetches a torrent into a directory of
//! its own, or finds the whole file there, and goes on seeding until it is dropped.

use crate::running::Running;
use crate::scene::Scene;
use crate::waiting::{eventually_within, skipped};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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
        let mut command = match self {
            Self::Aria2 => with_arguments("aria2c", &["--version"]),
            Self::Transmission => with_arguments("transmission-cli", &["--version"]),
            Self::Libtorrent => with_arguments("/usr/bin/python3", &["-c", "import libtorrent"]),
        };
        let found =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| {
                // transmission-cli ends with 1 after it has said its version.
                status.success() || self == Self::Transmission
            });
        if !found {
            skipped(&format!("{self:?} is not installed"));
        }
        found
    }
}

fn with_arguments(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
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
                let mut command = Command::new("aria2c");
                command.args(["--no-conf", "--enable-dht6=false", "--bt-enable-lpd=false"]);
                if trackers == Trackers::Udp {
                    // It asks trackers by UDP through the socket of its DHT, which is led nowhere.
                    command.arg("--enable-dht=true").arg(format!("--dht-listen-port={port}"));
                    command.arg("--dht-entry-point=127.0.0.1:9").arg(format!("--dht-file-path={place}/dht.dat"));
                } else {
                    command.arg("--enable-dht=false");
                }
                command.args(["--enable-peer-exchange=false", "--seed-ratio=0.0", "--summary-interval=0"]);
                command.args(["--check-integrity=true", "--bt-tracker-interval=1", "--allow-overwrite=true"]);
                command.args(["--disable-ipv6=true", "--bt-stop-timeout=0"]);
                command.arg(format!("--listen-port={port}")).arg(format!("--dir={place}")).arg(&torrent);
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

/// A port that was free a moment ago; these programs cannot choose one themselves and say it.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
