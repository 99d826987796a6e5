//! Secrets stay where they belong (issue 3; design §4): passwords and tokens are in no file, log, argument or packet;
//! content and names are in no packet; the memory that holds secrets is closed to others. C11, D14.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_common::control::Request;
use mini_torrent_common::secret::{Password, SessionToken};
use mini_torrent_tests::capture::{Capture, Place, enter_namespace};
use mini_torrent_tests::client::ClientSettings;
use mini_torrent_tests::files::{contains, files_with};
use mini_torrent_tests::scene::log_text;
use mini_torrent_tests::waiting::skipped;
use mini_torrent_tests::{Client, Running, Scene, Tracker, WireMember, eventually, programs};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const USERS: [&str; 2] = ["quetzalcoatl", "rumpelstilzchen"];
const PASSWORD: &str = "Zyzzyva-horse-battery-7";
const WRONG_PASSWORD: &str = "Wolpertinger-guess-8";
const GROUP: &str = "xylophone-group";
const FILE: &str = "kaleidoscope-report.txt";
/// The file's content is this line over and over, so that every packet of it would show.
const LINE: &str = "the-secret-recipe-of-the-lebkuchen\n";
const N_LINES: usize = 60_000;

/// What a password, or a token, may look like in a file or a packet.
fn forms(secret: &[u8]) -> [Vec<u8>; 3] {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    [secret.to_vec(), hex.clone().into_bytes(), hex.to_uppercase().into_bytes()]
}

fn token_bytes(token: &SessionToken) -> Vec<u8> {
    let encoded = postcard::to_stdvec(token).unwrap();
    encoded.split_first().unwrap().1.to_vec()
}

/// A tracker and two clients, all of them logging as much as they can, after a transfer between the two.
struct Play {
    scene: Arc<Scene>,
    tracker: Tracker,
    clients: Vec<Client>,
    tokens: Vec<Vec<u8>>,
}

impl Play {
    fn new() -> Self {
        Self::with(&[])
    }

    /// With these options for the clients.
    fn with(options: &[&str]) -> Self {
        let scene = Scene::new(programs!());
        let tracker = Tracker::start_with(&scene, "tracker", &["--log", "trace"]);
        let clients = USERS.map(|user| {
            let mut settings = ClientSettings::new(user);
            settings.options.extend(options.iter().map(|option| (*option).to_owned()));
            settings.environment.push(("MINI_TORRENT_LOG".into(), "trace".into()));
            let mut client = Client::start_with(&scene, tracker.info_file(), settings);
            client.expect_ok(&format!("create_user {user} {PASSWORD}"));
            client.expect_error(&format!("login {user} {WRONG_PASSWORD}"), "wrong_credentials");
            client.expect_ok(&format!("login {user} {PASSWORD}"));
            client
        });
        let mut play = Self { scene, tracker, clients: clients.into(), tokens: Vec::new() };
        play.transfer();
        play.resume_by_hand();
        play
    }

    fn transfer(&mut self) {
        let [from, to] = &mut self.clients[..] else { unreachable!() };
        from.expect_ok(&format!("create_group {GROUP}"));
        to.expect_ok(&format!("join_group {GROUP}"));
        from.expect_ok(&format!("accept_request {GROUP} {}", USERS[1]));
        std::fs::write(from.path(FILE), LINE.repeat(N_LINES)).unwrap();
        from.upload(&from.path(FILE), GROUP);
        to.download(GROUP, FILE);
    }

    /// A client's token is in its memory alone; here we know one, and its successor.
    fn resume_by_hand(&mut self) {
        let seed = mini_torrent_tests::wire_member::Seed::random();
        let connect = || WireMember::connect_as(self.tracker.address(), seed, 1).unwrap();
        let mut member = connect();
        member.sign_up("zed", PASSWORD);
        let first = member.token();
        drop(member);
        let mut member = connect();
        member.resume(first.clone());
        self.tokens = [first, member.token()].iter().map(token_bytes).collect();
        // A request that fails is logged with what it was.
        let (user, password) = ("zed".parse().unwrap(), Password::new(PASSWORD.into()));
        member.request(Request::CreateUser { user, password }).unwrap().unwrap_err();
        member.request(Request::Resume { token: member.token() }).unwrap().unwrap_err();
    }

    /// Ends everything, so that all logs are written.
    fn end(&mut self) {
        for client in &mut self.clients {
            client.quit();
        }
        self.tracker.terminate();
    }

    fn processes(&self) -> Vec<&Running> {
        self.clients.iter().map(Client::running).chain([self.tracker.running()]).collect()
    }
}

/// No data directory, log or history holds a password or a token; no log and nothing of the tracker's holds content.
#[test]
fn c11_files_hold_no_secret() {
    let mut play = Play::new();
    play.end();
    for secret in
        [PASSWORD.as_bytes(), WRONG_PASSWORD.as_bytes()].into_iter().chain(play.tokens.iter().map(Vec::as_slice))
    {
        for form in forms(secret) {
            let files = files_with(play.scene.dir(), &form);
            assert!(files.is_empty(), "{} is in {files:?}", String::from_utf8_lossy(&form));
        }
    }
    // The search finds what is there.
    assert_eq!(files_with(play.scene.dir(), LINE.as_bytes()).len(), 2, "the file and its copy alone hold the content");
    assert!(files_with(&play.tracker.data_dir(), LINE.as_bytes()).is_empty());
    let logs = log_text(play.scene.dir());
    assert!(logs.contains(USERS[0]) && !logs.contains(LINE.trim_end()), "logs tell who, not what");
}

/// D14: whoever listens on the wire reads neither secrets nor content nor names.
#[test]
fn d14_packets_show_nothing() {
    match enter_namespace("d14_packets_show_nothing") {
        Place::Inside => {}
        Place::RanInside => return,
        Place::Unavailable(why) => return skipped(&format!("capturing the loopback: {why}")),
    }
    let capture = Capture::begin().unwrap();
    capture.wait_for_own("the capture has begun");
    let play = Play::new();
    capture.wait_for_own("the capture ends");
    let packets = capture.end();
    assert!(packets.len() > LINE.len() * N_LINES, "the transfer was captured: {} bytes", packets.len());
    for text in [PASSWORD, WRONG_PASSWORD, GROUP, FILE, LINE.trim_end(), USERS[0], USERS[1]] {
        assert!(!contains(&packets, text.as_bytes()), "{text} crossed the wire");
    }
    for form in play.tokens.iter().flat_map(|token| forms(token)) {
        assert!(!contains(&packets, &form), "a token crossed the wire");
    }
}

/// The test above can fail: without TLS between members, as only measurements have it, it would.
#[test]
fn packets_without_tls_show_content() {
    match enter_namespace("packets_without_tls_show_content") {
        Place::Inside => {}
        Place::RanInside => return,
        Place::Unavailable(why) => return skipped(&format!("capturing the loopback: {why}")),
    }
    let capture = Capture::begin().unwrap();
    capture.wait_for_own("the capture has begun");
    let _play = Play::with(&["--plain-peers"]);
    capture.wait_for_own("the capture ends");
    assert!(contains(&capture.end(), LINE.as_bytes()));
}

/// Arguments and environments are readable to others: they hold no secret, nor do those of child processes.
#[test]
fn arguments_and_environments_hold_no_secret() {
    let play = Play::new();
    for process in play.processes() {
        for file in ["cmdline", "environ"] {
            let path = format!("/proc/{}/{file}", process.pid());
            // Where the system refuses, nobody reads anything.
            let bytes = std::fs::read(&path).unwrap_or_default();
            assert!(!contains(&bytes, PASSWORD.as_bytes()), "{path}");
        }
        let children = format!("/proc/{0}/task/{0}/children", process.pid());
        assert_eq!(std::fs::read_to_string(children).unwrap_or_default(), "", "there is no child process");
    }
}

/// A crash leaves no core with secrets in it.
#[test]
fn processes_leave_no_core() {
    let play = Play::new();
    for process in play.processes() {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let words: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
        assert_eq!(words, ["0", "0"], "{core}");
    }
}

/// The user that a test's programs run as so that /proc tells whether their memory is closed: root's always is.
const NOBODY: u32 = 65534;

/// Another process of the same user cannot read the memory: the kernel gives its files in /proc to root.
#[test]
fn memory_is_closed_to_other_processes_of_the_user() {
    let scene = Scene::new(programs!());
    let is_root = rustix::process::geteuid().is_root();
    let dir = scene.make_dir("closed");
    if is_root {
        for dir in [scene.dir(), &dir] {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let info = dir.join("info.txt");
    std::fs::write(&info, "127.0.0.1\n1\n").unwrap();
    let start = |name: &str, program: &Path, arguments: &[&str]| {
        // A copy, for the user may have no way to where the program was built.
        let copy = dir.join(name);
        std::fs::copy(program, &copy).unwrap();
        let mut command = Command::new(copy);
        command.args(arguments).current_dir(&dir).env("HOME", &dir);
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        scene.start(name, &mut command)
    };
    let programs = scene.programs().clone();
    let info = info.to_str().unwrap();
    let tracker = start("tracker-copy", &programs.tracker, &[info, "1", "--listen", "127.0.0.1:0"]);
    let client = start("client-copy", &programs.client, &["127.0.0.1:0", info, "--json", "--data-dir", "client"]);
    // Something that does not close its memory.
    let open = start("open", Path::new("/bin/cat"), &[]);
    for process in [&tracker, &client] {
        process.stdout().wait_line(0, "it has started", |line| line.contains("listening"));
        assert_eq!(memory_owner(process), Some(0));
    }
    eventually("other programs' memory is open", || (memory_owner(&open) != Some(0)).then_some(()));
}

/// Who owns the files in /proc that lead to a process's memory (proc(5), PR_SET_DUMPABLE).
fn memory_owner(process: &Running) -> Option<u32> {
    std::fs::metadata(format!("/proc/{}/mem", process.pid())).ok().map(|metadata| metadata.uid())
}
