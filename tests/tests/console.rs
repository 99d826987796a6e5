//! The tracker's console and its life as a service: D1, D9, D12, E1, E2.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_tests::files::{random_bytes, random_file};
use mini_torrent_tests::{
    Client, Conduct, Content, Deployment, GROUP, Scene, Tracker, eventually, holds_for, programs,
};
use std::time::Duration;

/// D1, D9: all files; a file's seeders and leechers with user, address and status; every peer once.
#[test]
fn d1_d9_the_console_shows_files_and_peers() {
    let mut deployment = Deployment::of(programs!(), 2);
    let content = Content::new("held", random_bytes(2_000_000, 1));
    let _seeder = deployment.add_wire_seeder("zed", &content, Conduct::HELD);
    let (ann, bob) = deployment.pair();
    for name in ["one", "two"] {
        let file = random_file(ann.path(name), 1000, 2);
        ann.upload(&file, GROUP);
        bob.download(GROUP, name);
    }
    bob.begin_download(GROUP, "held");
    ann.wait_seeders(GROUP, "two", 2);
    eventually("the leecher is listed", || (ann.listed(GROUP, "held")["leechers"] == 1).then_some(()));
    let addresses = [ann.address().to_string(), bob.address().to_string()];
    let files = deployment.tracker.console("list").join("\n");
    for name in ["one", "two", "held"] {
        assert!(files.contains(name), "list: {files}");
    }
    let lines = deployment.tracker.console("fileinfo two");
    for (user, address) in [("ann", &addresses[0]), ("bob", &addresses[1])] {
        let line = lines.iter().find(|line| line.contains(address.as_str())).unwrap_or_else(|| panic!("{lines:?}"));
        assert!(line.contains(user) && line.to_lowercase().contains("seed"), "{line}");
    }
    let lines = deployment.tracker.console("fileinfo held");
    let line = lines.iter().find(|line| line.contains(&addresses[1])).unwrap_or_else(|| panic!("{lines:?}"));
    assert!(line.contains("bob") && line.to_lowercase().contains("leech"), "{line}");
    let lines = deployment.tracker.console("peerinfo");
    for address in &addresses {
        let n = lines.iter().filter(|line| line.contains(address.as_str())).count();
        assert_eq!(n, 1, "{address} once: {lines:?}");
    }
}

/// The console survives nonsense and unknown files, and helps.
#[test]
fn the_console_survives_nonsense() {
    let mut deployment = Deployment::of(programs!(), 1);
    for line in ["", "   ", "nonsense", "fileinfo", "fileinfo no-such-file", "list too many words", "'unbalanced"] {
        deployment.tracker.console(line);
    }
    let help = { deployment.tracker.console("").len() };
    assert_eq!(help, 0, "a blank line is nothing");
    deployment.clients[0].expect_ok("list_groups");
}

/// Without a terminal, and with its input ended, it goes on serving.
#[test]
fn the_end_of_its_input_does_not_end_the_tracker() {
    let mut deployment = Deployment::of(programs!(), 1);
    deployment.tracker.running_mut().close_stdin();
    let ann = &mut deployment.clients[0];
    holds_for(Duration::from_millis(500), "it serves", || ann.run("list_groups")["ok"] == true);
    assert!(deployment.tracker.running_mut().is_alive());
}

/// D12: both have a log in their data directory, and it does not spoil what they print.
#[test]
fn d12_logs_are_files_and_do_not_spoil_the_output() {
    let mut deployment = Deployment::of(programs!(), 2);
    let (ann, bob) = deployment.pair();
    let file = random_file(ann.path("file"), 1000, 3);
    ann.upload(&file, GROUP);
    bob.download(GROUP, "file");
    ann.quit();
    bob.quit();
    assert!(!deployment.clients[0].log().is_empty(), "the client has a log");
    deployment.tracker.terminate();
    assert!(!deployment.tracker.log().is_empty(), "the tracker has a log");
    assert_eq!(deployment.tracker.running().stdout().text().lines().count(), 2, "address and key, nothing else");
}

/// E1: the number picks the line of the file that the tracker listens on.
#[test]
fn e1_the_number_picks_the_address() {
    let scene = Scene::new(programs!());
    let ports = [free_port(), free_port()];
    scene.write("trackers.txt", format!("127.0.0.1\n{}\n127.0.0.1\n{}\n", ports[0], ports[1]));
    for (number, port) in [("1", ports[0]), ("2", ports[1])] {
        let mut command = std::process::Command::new(&scene.programs().tracker);
        command.args(["trackers.txt", number, "--data-dir", &format!("data{number}")]).current_dir(scene.dir());
        let running = scene.start(&format!("tracker {number}"), &mut command);
        let line = running.stdout().wait_nth(0, mini_torrent_tests::DEADLINE).expect("it starts");
        assert_eq!(line, format!("listening on 127.0.0.1:{port}"));
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The data directory defaults to `mini-tracker.data` beside the info file.
#[test]
fn the_data_directory_lies_beside_the_info_file() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new(programs!());
    scene.make_dir("conf");
    scene.write("conf/trackers.txt", "127.0.0.1\n1\n");
    let mut command = std::process::Command::new(&scene.programs().tracker);
    command.args(["conf/trackers.txt", "1", "--listen", "127.0.0.1:0"]).current_dir(scene.dir());
    let running = scene.start("tracker", &mut command);
    running.stdout().wait_nth(1, mini_torrent_tests::DEADLINE).expect("it starts");
    let mode = std::fs::metadata(scene.path("conf/mini-tracker.data")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

/// Control characters in what clients say of themselves do not reach the console raw.
#[test]
fn text_from_others_is_escaped_on_the_console() {
    use mini_torrent_common::control::{ClientMessage, Hello, Request, TrackerMessage};
    use mini_torrent_tests::{WireMember, wire_member::Seed};
    let mut deployment = Deployment::empty(programs!());
    let mut member = WireMember::connect_silently(deployment.tracker.address(), Seed::random()).unwrap();
    let (peer_id, agent) = (member.peer_id(), "x\u{1b}[2J\u{202e}y".to_owned());
    member
        .write(ClientMessage::Hello(Hello { min_version: 1, max_version: 1, agent, peer_id, listen_port: 1 }))
        .unwrap();
    if matches!(member.read(), Ok(TrackerMessage::Welcome(_))) {
        member.ask(Request::Ping);
        member.sign_up("zed", "password-1");
    }
    let shown = deployment.tracker.console("peerinfo").join("\n");
    deployment.tracker.terminate();
    for text in [shown, deployment.tracker.log()] {
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
    }
}

/// E1, E3: a second tracker on the same address ends with `address_in_use`; the first is unharmed.
#[test]
fn a_taken_port_ends_the_second_tracker() {
    let scene = Scene::new(programs!());
    let first = Tracker::start(&scene);
    scene.write("same.txt", format!("127.0.0.1\n{}\n", first.address().port()));
    let second = scene.run_tracker(&["same.txt", "1", "--data-dir", "other"]);
    assert_eq!(second.code, Some(2));
    assert!(second.stderr.contains("error[address_in_use]"), "{}", second.stderr);
    let mut client = Client::start(&scene, &first, "ann");
    client.sign_up("ann");
}

/// The operator makes accounts where strangers may not.
#[test]
fn the_console_creates_accounts() {
    let scene = Scene::new(programs!());
    let mut tracker = Tracker::start_with(&scene, "tracker", &["--registration", "closed"]);
    assert_eq!(tracker.console("create_user ann password-1"), ["user ann created"]);
    assert!(tracker.console("create_user ann password-2")[0].contains("user_exists"));
    assert!(tracker.console("create_user bob short")[0].contains("weak_password"));
    let mut client = Client::start(&scene, &tracker, "ann");
    client.expect_ok("login ann password-1");
}

/// D12: `--log-format json` writes one object a line.
#[test]
fn d12_the_log_may_be_json() {
    let scene = Scene::new(programs!());
    let mut tracker = Tracker::start_with(&scene, "tracker", &["--log-format", "json"]);
    let mut client = Client::start(&scene, &tracker, "ann");
    client.sign_up("ann");
    tracker.terminate();
    let log = tracker.log();
    assert!(log.lines().count() > 1);
    for line in log.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value.is_object());
    }
}
