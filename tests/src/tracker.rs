//! A tracker as a process: started on a free port, stopped in every way there is, started again on the same.

use crate::running::Running;
use crate::scene::{Scene, identity_in, log_text};
use crate::waiting::{DEADLINE, eventually};
use mini_torrent_common::tls::Identity;
use rustix::process::Signal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;

/// A running tracker.
#[derive(Debug)]
pub struct Tracker {
    scene: Arc<Scene>,
    running: Running,
    name: String,
    /// Which of its deployment it is.
    number: u8,
    data_dir: PathBuf,
    options: Vec<String>,
    address: SocketAddr,
    key: String,
    info_file: PathBuf,
}

impl Tracker {
    /// Starts a tracker on a free port.
    pub fn start(scene: &Arc<Scene>) -> Self {
        Self::start_with(scene, "tracker", &[])
    }

    /// Starts a tracker under a name of its own, with options.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_with(scene: &Arc<Scene>, name: &str, options: &[&str]) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_at(scene, name, any, options).unwrap_or_else(|| panic!("{name} does not start"))
    }

    /// Starts a tracker at this address; `None` when it ends at once.
    pub fn start_at(scene: &Arc<Scene>, name: &str, listen: SocketAddr, options: &[&str]) -> Option<Self> {
        let data_dir = scene.path(&format!("{name}.data"));
        Self::start_on(scene, name, 1, data_dir, listen, options)
    }

    /// Starts another tracker of this deployment, on the same data directory.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_beside(&self, number: u8) -> Self {
        let name = format!("{}-{number}", self.name);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        let started = Self::start_on(&self.scene, &name, number, self.data_dir.clone(), any, &options);
        started.unwrap_or_else(|| panic!("{name} does not start"))
    }

    /// Starts another tracker of this deployment on another host: with a data directory of its own, to which an operator
    /// has copied the deployment's key.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_elsewhere(&self, scene: &Arc<Scene>, number: u8, listen: SocketAddr) -> Self {
        const KEY: &str = "identity.key";
        let name = format!("{}-{number}", self.name);
        let data_dir = scene.make_dir(&format!("{name}.data"));
        std::fs::copy(self.data_dir.join(KEY), data_dir.join(KEY)).expect("the key can be copied");
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        let started = Self::start_on(scene, &name, number, data_dir, listen, &options);
        started.unwrap_or_else(|| panic!("{name} does not start"))
    }

    fn start_on(
        scene: &Arc<Scene>,
        name: &str,
        number: u8,
        data_dir: PathBuf,
        listen: SocketAddr,
        options: &[&str],
    ) -> Option<Self> {
        // Its own file names addresses that are never used, since `--listen` stands above them.
        let unused: String = (1..=number).map(|port| format!("127.0.0.1\n{port}\n")).collect();
        scene.write(&format!("{name}.own.txt"), unused);
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let mut running = launch(scene, name, number, &data_dir, &options, listen);
        let (address, key) = first_lines(&mut running)?;
        let info_file = info_file(scene, name, &[address]);
        let (scene, name) = (Arc::clone(scene), name.to_owned());
        Some(Self { scene, running, name, number, data_dir, options, address, key, info_file })
    }

    /// Starts it again on the same data and port, after whatever ended it.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_again(&mut self) {
        self.running.kill();
        // Another process may hold the port for a moment as its own end of a connection.
        let (running, (address, key)) = eventually("the tracker has its port again", || {
            let mut running = launch(&self.scene, &self.name, self.number, &self.data_dir, &self.options, self.address);
            first_lines(&mut running).map(|lines| (running, lines))
        });
        assert_eq!((address, &key), (self.address, &self.key), "port or identity changed");
        self.running = running;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The fingerprint that it printed: `sha256:…`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The `tracker_info.txt` for its clients.
    pub fn info_file(&self) -> &Path {
        &self.info_file
    }

    /// The same as text, for command lines.
    pub fn info(&self) -> &str {
        self.info_file.to_str().expect("temporary paths are UTF-8")
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    /// The deployment's identity, for what only a thief of its key could do.
    pub fn identity(&self) -> Identity {
        identity_in(&self.data_dir())
    }

    /// Everything in its log files.
    pub fn log(&self) -> String {
        log_text(&self.data_dir())
    }

    /// The process.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// The process, to type at it.
    pub fn running_mut(&mut self) -> &mut Running {
        &mut self.running
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.running.kill();
    }

    /// SIGTERM, and its exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        self.running.signal(Signal::TERM);
        self.running.wait_exit(DEADLINE)
    }

    /// Types a console command; the lines that it answers.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn console(&mut self, command: &str) -> Vec<String> {
        // Whatever is answered to a command that nobody knows comes behind the answer.
        const END: &str = "end-of-answer";
        let from = self.running.stdout().count();
        self.running.type_line(command);
        self.running.type_line(END);
        self.running.stdout().wait_line(from, "the answer of the console", |line| line.contains(END));
        let lines = self.running.stdout().since(from);
        lines.into_iter().take_while(|line| !line.contains(END)).collect()
    }
}

/// Writes a `tracker_info.txt` that names these trackers, in this order.
pub fn info_file(scene: &Scene, name: &str, trackers: &[SocketAddr]) -> PathBuf {
    let lines = trackers.iter().map(|tracker| format!("{}\n{}\n", tracker.ip(), tracker.port()));
    scene.write(&format!("{name}.info.txt"), lines.collect::<String>())
}

fn launch(scene: &Scene, name: &str, number: u8, data_dir: &Path, options: &[String], listen: SocketAddr) -> Running {
    let mut command = Command::new(&scene.programs().tracker);
    command.arg(scene.path(&format!("{name}.own.txt"))).arg(number.to_string());
    command.arg("--data-dir").arg(data_dir);
    command.arg("--listen").arg(listen.to_string()).args(options).current_dir(scene.dir());
    scene.start(name, &mut command)
}

/// The address and the key; `None` when it ended instead.
fn first_lines(running: &mut Running) -> Option<(SocketAddr, String)> {
    let word = |nth: usize, prefix: &str| {
        let line = running.stdout().wait_nth(nth, DEADLINE)?;
        Some(line.strip_prefix(prefix).unwrap_or_else(|| panic!("line {nth}: {line}")).to_owned())
    };
    let address = word(0, "listening on ")?;
    let key = word(1, "key ")?;
    Some((address.parse().expect("an address"), key))
}
