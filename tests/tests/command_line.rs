//! The command line of both programs: starting, words, exit statuses, settings: D11, E3 and behaviour §1, §2.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_tests::client::ClientSettings;
use mini_torrent_tests::{
    Client, DEADLINE, Deployment, Finished, GROUP, Scene, Tracker, eventually, in_time, programs,
};
use serde_json::Value;
use std::time::Duration;

/// Runs a client with these options and this input in a directory of its own.
fn run(deployment: &Deployment, options: &[&str], script: &str) -> Finished {
    let mut arguments = vec!["127.0.0.1:0", deployment.tracker.info()];
    arguments.extend(options);
    deployment.scene.run_client(&arguments, script)
}

/// E3: without a terminal it runs its input as a script; the listening address is a notice.
#[test]
fn e3_a_script_is_run_line_by_line() {
    let deployment = Deployment::empty(programs!());
    let script =
        "create_user ann password-1\n\n   \nlogin ann password-1\ncreate_group lab\nquit\ncreate_group never\n";
    let finished = run(&deployment, &[], script);
    assert_eq!(finished.stdout, "user ann created\nlogged in as ann; sharing 0 files\ngroup lab created\n");
    assert!(finished.stderr.contains("listening on 127.0.0.1:"), "{}", finished.stderr);
    assert!(finished.stderr.contains(deployment.tracker.key()), "the new key is shown: {}", finished.stderr);
    assert!(!finished.stderr.contains('\u{1b}') && !finished.stdout.contains('\u{1b}'), "no ANSI");
    assert_eq!(finished.code, Some(0));
}

/// `--script FILE` is the same.
#[test]
fn a_script_may_be_a_file() {
    let deployment = Deployment::empty(programs!());
    deployment.scene.write("script", "create_user ann password-1\nlogin ann password-1\n");
    let finished = run(&deployment, &["--script", "script"], "");
    assert_eq!(finished.stdout, "user ann created\nlogged in as ann; sharing 0 files\n");
    let missing = run(&deployment, &["--script", "no-such-script"], "");
    assert_eq!(missing.code, Some(2), "{}", missing.stderr);
}

/// A script goes on after a failure and ends with 1; `--fail-fast` stops there.
#[test]
fn failures_are_counted_and_fail_fast_stops() {
    let deployment = Deployment::empty(programs!());
    let script = "list_groups\ncreate_user ann password-1\n";
    let finished = run(&deployment, &[], script);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), "user ann created\n"));
    let line = finished.stderr.lines().find(|line| line.starts_with("error[")).unwrap();
    assert!(line.starts_with("error[not_logged_in]: "), "{line}");
    let finished = run(&deployment, &["--fail-fast"], "list_groups\ncreate_user bob password-1\n");
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""));
}

/// Words are split as a POSIX shell does, but `#` is an ordinary character.
#[test]
fn words_are_split_as_a_shell_does() {
    let mut deployment = Deployment::of(programs!(), 1);
    let ann = &mut deployment.clients[0];
    let cases = [
        ("'single quoted'", "single quoted"),
        ("\"double \\\"quoted\\\"\"", "double \"quoted\""),
        ("back\\ slash", "back slash"),
        ("#1.iso", "#1.iso"),
        ("a#b", "a#b"),
        ("'it'\\''s'", "it's"),
        ("pre'mid dle'post", "premid dlepost"),
        ("'$HOME'", "$HOME"),
        ("'*'", "*"),
    ];
    std::fs::write(ann.path("content"), "x").unwrap();
    for (typed, name) in cases {
        let answer = ann.expect_ok(&format!("upload_file content lab --as {typed}"));
        assert_eq!(answer["name"], name, "{typed}");
    }
}

/// Unbalanced quotes: nothing is executed.
#[test]
fn unbalanced_quotes_execute_nothing() {
    let mut deployment = Deployment::of(programs!(), 1);
    let ann = &mut deployment.clients[0];
    for command in ["create_group 'other", "create_group \"other", "create_group other\\"] {
        ann.expect_error(command, "usage");
    }
    let answer = ann.expect_ok("list_groups");
    assert!(!answer.to_string().contains("other"), "{answer}");
}

/// An unknown command names the nearest one; wrong arity shows the form.
#[test]
fn usage_errors_help() {
    let mut deployment = Deployment::of(programs!(), 1);
    let ann = &mut deployment.clients[0];
    let text = ann.expect_error("list_group", "usage");
    assert!(text.contains("list_groups"), "{text}");
    let text = ann.expect_error("create_group", "usage");
    assert!(text.to_lowercase().contains("<group>"), "{text}");
    ann.expect_error("create_group a b c", "usage");
    ann.expect_error("show_downloads --no-such-flag", "usage");
    let help = ann.expect_ok("help")["text"].as_str().unwrap().to_owned();
    for command in ["create_user", "upload_file", "download_file", "show_downloads", "stop_share", "verify", "wait"] {
        assert!(help.contains(command), "{command} is missing in: {help}");
    }
    let help = ann.expect_ok("help upload_file")["text"].as_str().unwrap().to_owned();
    assert!(help.contains("upload_file") && help.contains("--as"), "{help}");
    ann.expect_error("help no_such_command", "usage");
}

/// Every answer is one object with `command` and `ok`, in order.
#[test]
fn json_answers_come_one_a_command_in_order() {
    let deployment = Deployment::empty(programs!());
    let script = "create_user ann password-1\nnonsense\nlogin ann password-1\nlist_groups\nlist_files lab\nhelp\n";
    let finished = run(&deployment, &["--json"], script);
    let lines: Vec<Value> = finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["event"], "listening");
    let answers: Vec<&Value> = lines.iter().filter(|line| line["event"].is_null()).collect();
    let commands: Vec<(&str, bool)> =
        answers.iter().map(|answer| (answer["command"].as_str().unwrap(), answer["ok"].as_bool().unwrap())).collect();
    let expected = [
        ("create_user", true),
        ("nonsense", false),
        ("login", true),
        ("list_groups", true),
        ("list_files", false),
        ("help", true),
    ];
    assert_eq!(commands, expected);
    assert_eq!(answers[4]["error"]["code"], "no_such_group");
    assert!(answers[4]["error"]["message"].is_string());
    assert_eq!(finished.code, Some(1));
    assert!(!finished.stderr.contains("error["), "errors are in the JSON: {}", finished.stderr);
}

/// Bad usage and failed starts end with 2.
#[test]
fn bad_starts_end_with_two() {
    let deployment = Deployment::empty(programs!());
    let scene = &deployment.scene;
    scene.write("bad.txt", "127.0.0.1\n18000\n127.0.0.1\nno-port\n");
    let cases: [(&[&str], &str); 7] = [
        (&[], ""),
        (&["127.0.0.1:0"], ""),
        (&["nonsense", deployment.tracker.info()], ""),
        (&["127.0.0.1:70000", deployment.tracker.info()], ""),
        (&["127.0.0.1:0", "no-such-file.txt"], "no-such-file.txt"),
        (&["127.0.0.1:0", "bad.txt"], "line 4"),
        (&["127.0.0.1:0", deployment.tracker.info(), "--no-such-flag"], "--no-such-flag"),
    ];
    for (arguments, named) in cases {
        let finished = scene.run_client(arguments, "");
        assert_eq!(finished.code, Some(2), "{arguments:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(named), "{arguments:?}: {}", finished.stderr);
        assert_eq!(finished.stdout, "", "{arguments:?}");
    }
    for (arguments, named) in [
        (&["bad.txt", "1"][..], "line 4"),
        (&["no-such-file.txt", "1"], "no-such-file.txt"),
        (&[deployment.tracker.info(), "2"], "2"),
        (&[deployment.tracker.info(), "0"], "0"),
        (&[deployment.tracker.info(), "x"], "x"),
        (&[deployment.tracker.info()], ""),
    ] {
        let finished = scene.run_tracker(arguments);
        assert_eq!(finished.code, Some(2), "{arguments:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(named), "{arguments:?}: {}", finished.stderr);
    }
}

#[test]
fn version_and_help_are_answered() {
    let scene = Scene::new(programs!());
    for (arguments, client_says, tracker_says) in
        [(&["--version"][..], "mini-torrent ", "mini-tracker "), (&["--help"], "TRACKER_INFO_FILE", "TRACKER_NUMBER")]
    {
        let client = scene.run_client(arguments, "");
        assert_eq!(client.code, Some(0));
        assert!(client.stdout.contains(client_says), "{}", client.stdout);
        let tracker = scene.run_tracker(arguments);
        assert_eq!(tracker.code, Some(0));
        assert!(tracker.stdout.contains(tracker_says), "{}", tracker.stdout);
    }
}

/// A taken port: `address_in_use`, status 2, within 2 s; the first process is unharmed.
#[test]
fn a_taken_port_is_said_at_once() {
    let mut deployment = Deployment::of(programs!(), 1);
    let address = deployment.clients[0].address().to_string();
    let arguments = [address.as_str(), deployment.tracker.info(), "--data-dir", "second"];
    let second = in_time(Duration::from_secs(2), "it ends", || deployment.scene.run_client(&arguments, ""));
    assert_eq!(second.code, Some(2));
    assert!(second.stderr.contains("error[address_in_use]"), "{}", second.stderr);
    assert!(second.stderr.contains("your own listening address"), "{}", second.stderr);
    deployment.clients[0].expect_ok("list_groups");
}

/// One data directory, one client.
#[test]
fn a_second_client_on_one_data_directory_is_refused() {
    let mut deployment = Deployment::of(programs!(), 1);
    let data_dir = deployment.clients[0].data_dir();
    let second = run(&deployment, &["--data-dir", data_dir.to_str().unwrap()], "");
    assert_eq!(second.code, Some(2));
    assert!(second.stderr.contains("error[data_dir_in_use]"), "{}", second.stderr);
    deployment.clients[0].expect_ok("list_groups");
}

/// Without `--data-dir` the state lies in the XDG state directory, a folder for each port as given, for
/// nobody else to read.
#[test]
fn the_default_data_directory_is_private_and_named_after_the_port() {
    use std::os::unix::fs::PermissionsExt;
    let deployment = Deployment::empty(programs!());
    run(&deployment, &[], "create_user ann password-1\n");
    let state = deployment.scene.path(".local/state");
    let found = find_dir(&state, "0").unwrap_or_else(|| panic!("no folder '0' below {}", state.display()));
    assert_eq!(std::fs::metadata(found).unwrap().permissions().mode() & 0o777, 0o700);
}

fn find_dir(below: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
    std::fs::read_dir(below)
        .ok()?
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .find_map(|entry| if entry.file_name() == name { Some(entry.path()) } else { find_dir(&entry.path(), name) })
}

/// D11: flag over environment over file; unknown keys are refused by name.
#[test]
fn d11_settings_come_from_flag_environment_and_file() {
    let deployment = Deployment::empty(programs!());
    let scene = &deployment.scene;
    scene.write("good.toml", "data_dir = \"from-file\"\n");
    scene.write("bad.toml", "no_such_setting = 1\n");
    run(&deployment, &["--config", "good.toml"], "create_user ann password-1\n");
    assert!(scene.path("from-file").is_dir(), "the file's setting takes effect");
    let mut command = scene.client_command(&["127.0.0.1:0", deployment.tracker.info(), "--config", "good.toml"]);
    scene.start("environment", command.env("MINI_TORRENT_DATA_DIR", "from-environment")).finish();
    assert!(scene.path("from-environment").is_dir(), "the environment stands above the file");
    let arguments = ["127.0.0.1:0", deployment.tracker.info(), "--data-dir", "from-flag"];
    scene.start("flag", scene.client_command(&arguments).env("MINI_TORRENT_DATA_DIR", "unused")).finish();
    assert!(scene.path("from-flag").is_dir() && !scene.path("unused").exists(), "the flag stands above both");
    let refused = run(&deployment, &["--config", "bad.toml"], "");
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("no_such_setting"), "{}", refused.stderr);
}

/// D11: the same for the tracker.
#[test]
fn d11_the_trackers_settings() {
    let scene = Scene::new(programs!());
    scene.write("trackers.txt", "127.0.0.1\n1\n");
    scene.write("bad.toml", "no_such_setting = 1\n");
    let refused = scene.run_tracker(&["trackers.txt", "1", "--config", "bad.toml"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("no_such_setting"), "{}", refused.stderr);
    let refused = scene.run_tracker(&["trackers.txt", "1", "--registration", "perhaps"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("perhaps"), "{}", refused.stderr);
}

/// Listening on loopback while the tracker is elsewhere earns a warning.
#[test]
fn loopback_with_a_tracker_elsewhere_is_warned_of() {
    let scene = Scene::new(programs!());
    let Some(tracker) = own_address().and_then(|at| Tracker::start_at(&scene, "tracker", at, &[])) else {
        mini_torrent_tests::waiting::skipped("this machine has no address but loopback");
        return;
    };
    let mut running = scene.start("client", &mut scene.client_command(&["127.0.0.1:0", tracker.info()]));
    running.stderr().wait_line(0, "a warning", |line| line.starts_with("warning: ") && line.contains("127.0.0.1"));
    running.type_line("quit");
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0));
}

/// An address of this machine that is not loopback, with port 0. Nothing is sent to find it.
fn own_address() -> Option<std::net::SocketAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then(|| (address, 0).into())
}

/// Ctrl-C ends with 130, SIGTERM too in time.
#[test]
fn ctrl_c_ends_with_130() {
    let mut deployment = Deployment::of(programs!(), 1);
    let ann = &mut deployment.clients[0];
    ann.running().signal(rustix::process::Signal::INT);
    let status = ann.running_mut().wait_exit(Duration::from_secs(3));
    assert_eq!(status.code(), Some(130));
}

/// `quit` and `exit` are the same; the status tells of failures before.
#[test]
fn quit_and_exit_end_with_the_status_of_the_commands() {
    let deployment = Deployment::empty(programs!());
    assert_eq!(run(&deployment, &[], "quit\n").code, Some(0));
    assert_eq!(run(&deployment, &[], "exit\n").code, Some(0));
    assert_eq!(run(&deployment, &[], "nonsense\nexit\n").code, Some(1));
    assert_eq!(run(&deployment, &[], "nonsense").code, Some(1));
}

/// A key pinned in `tracker_info.txt` is required.
#[test]
fn a_pinned_key_is_required() {
    let deployment = Deployment::empty(programs!());
    let (address, key) = (deployment.tracker.address(), deployment.tracker.key());
    let pinned = deployment.scene.write("pinned.txt", format!("{} {} {key}\n", address.ip(), address.port()));
    let wrong = deployment.scene.write("wrong.txt", format!("{address} sha256:{}\n", "ab".repeat(32)));
    let mut ann = Client::start_with(&deployment.scene, &pinned, ClientSettings::new("ann"));
    ann.sign_up("ann");
    let mut bob = Client::start_with(&deployment.scene, &wrong, ClientSettings::new("bob"));
    bob.expect_error("create_user bob password-1", "tracker_key_changed");
}

/// Lines that are hostile: very long, not UTF-8, control characters. The client goes on.
#[test]
fn hostile_lines_are_survived() {
    let deployment = Deployment::empty(programs!());
    let scene = &deployment.scene;
    let mut script = b"create_group \xff\xfe\n".to_vec();
    script.extend([b'x'; 300_000]);
    script.extend(b"\ncreate_user ann\x1b[2J password-1\n\0\0\ncreate_user ann password-1\n");
    scene.write("script", script);
    let finished = run(&deployment, &["--script", "script"], "");
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert_eq!(finished.stdout, "user ann created\n");
    assert!(!finished.stderr.contains('\u{1b}'), "escaped: {:?}", finished.stderr);
}

/// In a script an upload is answered when the file is listed.
#[test]
fn upload_in_a_script_blocks_until_it_is_listed() {
    let mut deployment = Deployment::of(programs!(), 1);
    let ann = &mut deployment.clients[0];
    let file = mini_torrent_tests::files::random_file(ann.path("file"), 20_000_000, 1);
    ann.send(&format!("upload_file {} lab", file.display()));
    ann.send("list_files lab");
    assert_eq!(ann.answer()["command"], "upload_file");
    assert_eq!(ann.answer()["files"][0]["name"], "file", "listed when the next command runs");
    eventually("it is seeded", || (ann.listed(GROUP, "file")["seeders"] == 1).then_some(()));
}
