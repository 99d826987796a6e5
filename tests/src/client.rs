//! A client as a process in script mode with `--json`, its input kept open: commands, answers, events.

use crate::running::Running;
use crate::scene::{Scene, identity_in, log_text};
use crate::tracker::Tracker;
use crate::waiting::{DEADLINE, eventually};
use mini_torrent_common::tls::PublicKey;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The listening address of clients that do not care.
pub const ANY_PORT: &str = "127.0.0.1:0";

/// How a client is started.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Its name in reports, and the name of its directory.
    pub name: String,
    /// `<IP>:<PORT>`.
    pub listen: String,
    /// More options.
    pub options: Vec<String>,
    /// What stands in its environment besides ours.
    pub environment: Vec<(String, String)>,
}

impl ClientSettings {
    /// A client on a free port.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), listen: ANY_PORT.into(), options: Vec::new(), environment: Vec::new() }
    }

    /// Listens there instead.
    pub fn listen(mut self, listen: &str) -> Self {
        self.listen = listen.into();
        self
    }

    /// Adds an option.
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.into());
        self
    }

    /// Logs what the client did about other peers too.
    pub fn with_debug_log(mut self) -> Self {
        self.environment.push(("MINI_TORRENT_LOG".into(), "debug".into()));
        self
    }
}

/// A running client.
#[derive(Debug)]
pub struct Client {
    scene: Arc<Scene>,
    settings: ClientSettings,
    info_file: PathBuf,
    running: Running,
    address: SocketAddr,
    user: Option<String>,
    inbox: Inbox,
}

/// What came out of the client and was not asked for yet.
#[derive(Debug, Default)]
struct Inbox {
    n_read: usize,
    answers: VecDeque<Value>,
    events: Vec<Value>,
}

/// The password of every test account.
pub fn password_of(user: &str) -> String {
    format!("password-of-{user}")
}

impl Client {
    /// Starts a client on a free port.
    pub fn start(scene: &Arc<Scene>, tracker: &Tracker, name: &str) -> Self {
        Self::start_with(scene, tracker.info_file(), ClientSettings::new(name))
    }

    /// Starts a client.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_with(scene: &Arc<Scene>, info_file: &Path, settings: ClientSettings) -> Self {
        scene.make_dir(&settings.name);
        let running = launch(scene, info_file, &settings);
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let (scene, info_file) = (Arc::clone(scene), info_file.to_owned());
        let mut client = Self { scene, settings, info_file, running, address, user: None, inbox: Inbox::default() };
        client.learn_address();
        client
    }

    /// Starts it again on the same data, after whatever ended it; nobody is signed in then.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_again(&mut self) {
        self.running.kill();
        self.running = launch(&self.scene, &self.info_file, &self.settings);
        self.inbox = Inbox::default();
        self.learn_address();
    }

    /// As [`Self::start_again`], listening elsewhere.
    pub fn start_again_at(&mut self, listen: &str) {
        self.settings.listen = listen.into();
        self.start_again();
    }

    fn learn_address(&mut self) {
        let event = self.wait_event("the client listens", |event| event["event"] == "listening");
        let address = event["address"].as_str().unwrap_or_default();
        self.address = address.parse().unwrap_or_else(|error| panic!("{event}: {error}"));
    }

    /// Where it accepts peers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The account that [`Self::sign_up`] made.
    ///
    /// # Panics
    /// When there is none.
    pub fn user(&self) -> &str {
        self.user.as_deref().expect("an account")
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(&self.scene, &self.settings.name)
    }

    /// A path beside its data directory: for its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scene.path(&self.settings.name).join(name)
    }

    /// Everything in its log files.
    pub fn log(&self) -> String {
        log_text(&self.data_dir())
    }

    /// Waits until its log has this text behind the first `from` bytes.
    ///
    /// # Panics
    /// When it does not within [`DEADLINE`].
    pub fn wait_logged(&self, from: usize, text: &str) {
        eventually(&format!("{} logs: {text}", self.settings.name), || {
            self.log().get(from..).is_some_and(|new| new.contains(text)).then_some(())
        });
    }

    /// The key that it proves to others.
    ///
    /// # Panics
    /// When its key file is not there.
    pub fn key(&self) -> PublicKey {
        identity_in(&self.data_dir()).public()
    }

    /// The process.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// The process, to end its input.
    pub fn running_mut(&mut self) -> &mut Running {
        &mut self.running
    }

    /// Types a command without waiting for its answer.
    pub fn send(&mut self, command: &str) {
        self.running.type_line(command);
    }

    /// The answer to the oldest command without one, waiting for it.
    ///
    /// # Panics
    /// When there is none within [`DEADLINE`].
    pub fn answer(&mut self) -> Value {
        self.answer_within(DEADLINE).unwrap_or_else(|| panic!("{} does not answer", self.settings.name))
    }

    /// The answer to the oldest command without one, if it comes within `limit`.
    pub fn answer_within(&mut self, limit: Duration) -> Option<Value> {
        let deadline = Instant::now() + limit;
        while self.inbox.answers.is_empty() {
            self.read_line(deadline)?;
        }
        self.inbox.answers.pop_front()
    }

    /// Types a command and waits for its answer.
    ///
    /// # Panics
    /// When there is none within [`DEADLINE`], or it is another command's.
    pub fn run(&mut self, command: &str) -> Value {
        self.send(command);
        let answer = self.answer();
        let name = command.split_whitespace().next().unwrap_or_default();
        assert!(answer["command"] == name || answer["ok"] == false, "{command}: {answer}");
        answer
    }

    /// Runs a command that must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn expect_ok(&mut self, command: &str) -> Value {
        let answer = self.run(command);
        assert_eq!(answer["ok"], true, "{}: {command}: {answer}", self.settings.name);
        answer
    }

    /// Runs a command that must fail with this code; the error's text.
    ///
    /// # Panics
    /// When it does otherwise.
    pub fn expect_error(&mut self, command: &str, code: &str) -> String {
        let answer = self.run(command);
        assert_eq!(answer["ok"], false, "{}: {command}: {answer}", self.settings.name);
        assert_eq!(answer["error"]["code"], code, "{}: {command}: {answer}", self.settings.name);
        answer["error"]["message"].as_str().unwrap_or_else(|| panic!("no text: {answer}")).to_owned()
    }

    /// Takes the oldest event for which `look` holds, waiting for it.
    ///
    /// # Panics
    /// When there is none within [`DEADLINE`].
    pub fn wait_event(&mut self, what: &str, look: impl Fn(&Value) -> bool) -> Value {
        self.event_within(DEADLINE, look).unwrap_or_else(|| panic!("{}: no event: {what}", self.settings.name))
    }

    /// Takes the oldest event of this kind, waiting for it.
    ///
    /// # Panics
    /// When there is none within [`DEADLINE`].
    pub fn wait_event_kind(&mut self, kind: &str) -> Value {
        self.wait_event(kind, |event| event["event"] == kind)
    }

    /// Takes the oldest event for which `look` holds, if it comes within `limit`.
    pub fn event_within(&mut self, limit: Duration, look: impl Fn(&Value) -> bool) -> Option<Value> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(at) = self.inbox.events.iter().position(&look) {
                return Some(self.inbox.events.remove(at));
            }
            self.read_line(deadline)?;
        }
    }

    /// Reads one line of its output into the inbox.
    fn read_line(&mut self, deadline: Instant) -> Option<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = self.running.stdout().wait_nth(self.inbox.n_read, left)?;
        self.inbox.n_read += 1;
        let value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON: {line}: {error}"));
        match value["event"].is_null() {
            true => self.inbox.answers.push_back(value),
            false => self.inbox.events.push(value),
        }
        Some(())
    }

    /// Creates an account and signs in.
    pub fn sign_up(&mut self, user: &str) {
        self.expect_ok(&format!("create_user {user} {}", password_of(user)));
        self.sign_in_as(user);
    }

    /// Signs in to the account of [`Self::sign_up`]; the answer.
    pub fn sign_in(&mut self) -> Value {
        let user = self.user().to_owned();
        self.sign_in_as(&user)
    }

    /// Signs in; the answer.
    pub fn sign_in_as(&mut self, user: &str) -> Value {
        self.user = Some(user.into());
        self.expect_ok(&format!("login {user} {}", password_of(user)))
    }

    /// Uploads a file; the answer.
    pub fn upload(&mut self, path: &Path, group: &str) -> Value {
        self.expect_ok(&format!("upload_file '{}' {group}", path.display()))
    }

    /// Starts a download into the client's own directory; where the file will be.
    pub fn begin_download(&mut self, group: &str, file: &str) -> PathBuf {
        let destination = self.path(file);
        self.expect_ok(&format!("download_file {group} '{file}' '{}'", destination.display()));
        destination
    }

    /// Downloads a file to its end; where it is.
    pub fn download(&mut self, group: &str, file: &str) -> PathBuf {
        let destination = self.begin_download(group, file);
        self.wait_completed(group, file);
        destination
    }

    /// Waits until a download is complete; the event.
    ///
    /// # Panics
    /// When it fails for good.
    pub fn wait_completed(&mut self, group: &str, file: &str) -> Value {
        let event = self.wait_event(&format!("{file} completes"), |event| {
            let ended = event["event"] == "download_completed" || event["event"] == "download_failed";
            ended && event["group"] == group && event["file"] == file
        });
        assert_eq!(event["event"], "download_completed", "{event}");
        event
    }

    /// The row of one file in `list_files`; null when it is not listed.
    pub fn listed(&mut self, group: &str, file: &str) -> Value {
        row(&self.expect_ok(&format!("list_files {group}"))["files"], |row| row["name"] == file)
    }

    /// Waits until a file has so many seeders.
    pub fn wait_seeders(&mut self, group: &str, file: &str, n: u64) {
        eventually(&format!("{file} has {n} seeders"), || (self.listed(group, file)["seeders"] == n).then_some(()));
    }

    /// The row of one file in `show_downloads`; null when there is none.
    pub fn shown(&mut self, group: &str, file: &str) -> Value {
        row(&self.expect_ok("show_downloads")["downloads"], |row| row["group"] == group && row["file"] == file)
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

    /// `quit`, and its exit status.
    pub fn quit(&mut self) -> ExitStatus {
        self.send("quit");
        self.running.wait_exit(DEADLINE)
    }
}

fn data_dir(scene: &Scene, name: &str) -> PathBuf {
    scene.path(name).join("data")
}

fn launch(scene: &Scene, info_file: &Path, settings: &ClientSettings) -> Running {
    let mut command = scene.client_command(&[&settings.listen]);
    command.arg(info_file).arg("--json").arg("--data-dir").arg(data_dir(scene, &settings.name));
    command.args(&settings.options).current_dir(scene.path(&settings.name));
    command.envs(settings.environment.iter().map(|(key, value)| (key, value)));
    scene.start(&settings.name, &mut command)
}

fn row(rows: &Value, look: impl Fn(&Value) -> bool) -> Value {
    let rows = rows.as_array().unwrap_or_else(|| panic!("not a list: {rows}"));
    rows.iter().find(|row| look(row)).cloned().unwrap_or(Value::Null)
}
