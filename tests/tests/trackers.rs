//! Several trackers of one deployment on one data directory: C2 to C5, C12, and the corners of design §8.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_tests::client::{ClientSettings, password_of};
use mini_torrent_tests::files::random_file;
use mini_torrent_tests::tracker::info_file;
use mini_torrent_tests::{Client, Deployment, GROUP, Tracker, eventually, eventually_within, holds_for, programs};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Duration;

/// How soon what happened at one tracker is seen at the others.
const PROMISE: Duration = Duration::from_secs(1);
/// How soon events reach who is connected to another tracker.
const EVENT_PROMISE: Duration = Duration::from_secs(2);

/// Two trackers, and a member of the group at each: ann, who owns it, at the first, bob at the second.
struct Two {
    deployment: Deployment,
    second: Tracker,
    bob: Client,
}

fn two() -> Two {
    let mut deployment = Deployment::of(programs!(), 1);
    let mut second = deployment.tracker.start_beside(2);
    let ann = deployment.clients[0].address().to_string();
    eventually("the second tracker knows who is at the first", || {
        second.console("peerinfo").iter().any(|line| line.contains(&ann)).then_some(())
    });
    let bob = member_at(&mut deployment, &second, "bob");
    Two { deployment, second, bob }
}

fn member_at(deployment: &mut Deployment, tracker: &Tracker, user: &str) -> Client {
    let mut client = Client::start_with(&deployment.scene, tracker.info_file(), ClientSettings::new(user));
    client.sign_up(user);
    client.expect_ok(&format!("join_group {GROUP}"));
    deployment.clients[0].expect_ok(&format!("accept_request {GROUP} {user}"));
    client
}

/// The seeders and leechers of a file; null when it is not listed.
fn counts(client: &mut Client, file: &str) -> Value {
    let row = client.listed(GROUP, file);
    if row.is_null() { row } else { json!([row["seeders"], row["leechers"]]) }
}

fn soon(client: &mut Client, file: &str, expected: &Value) {
    let what = format!("{} sees {file} at {expected}", client.user());
    eventually_within(PROMISE, &what, || (counts(client, file) == *expected).then_some(()));
}

/// C2, C3, C4: within a second.
#[test]
fn c2_c3_c4_sharing_completing_and_removing_are_seen_at_both() {
    let Two { mut deployment, mut second, mut bob } = two();
    let ann = &mut deployment.clients[0];
    let file = random_file(ann.path("file"), 3_000_000, 1);
    ann.upload(&file, GROUP);
    ann.wait_seeders(GROUP, "file", 1);
    soon(&mut bob, "file", &json!([1, 0]));
    let lines = second.console("fileinfo file").join("\n");
    assert!(lines.contains("seeder ann"), "{lines}");
    let lines = second.console("peerinfo");
    assert_eq!(lines.iter().filter(|line| line.contains(&ann.address().to_string())).count(), 1, "{lines:?}");

    bob.download(GROUP, "file");
    bob.wait_seeders(GROUP, "file", 2);
    soon(ann, "file", &json!([2, 0]));

    ann.expect_ok(&format!("remove_file {GROUP} file"));
    soon(ann, "file", &Value::Null);
    soon(&mut bob, "file", &Value::Null);
}

#[test]
fn c5_a_tracker_that_was_down_has_the_same_lists_when_it_starts() {
    let Two { mut deployment, mut second, mut bob } = two();
    bob.quit();
    second.kill();
    let ann = &mut deployment.clients[0];
    for name in ["one", "two"] {
        let file = random_file(ann.path(name), 1000, 2);
        ann.upload(&file, GROUP);
        ann.wait_seeders(GROUP, name, 1);
    }
    second.start_again();
    let mut bob = Client::start_with(&deployment.scene, second.info_file(), ClientSettings::new("bob2"));
    bob.sign_up("bob2");
    bob.expect_ok(&format!("join_group {GROUP}"));
    deployment.clients[0].expect_ok(&format!("accept_request {GROUP} bob2"));
    let at_first = deployment.clients[0].expect_ok(&format!("list_files {GROUP}"))["files"].clone();
    eventually("the lists are equal", || {
        (bob.expect_ok(&format!("list_files {GROUP}"))["files"] == at_first).then_some(())
    });
}

/// The trackers of tracker_info.txt in either order.
#[test]
fn c12_the_order_of_the_trackers_makes_no_difference() {
    let mut deployment = Deployment::of(programs!(), 1);
    let second = deployment.tracker.start_beside(2);
    let addresses = [deployment.tracker.address(), second.address()];
    let swapped = [addresses[1], addresses[0]];
    let mut lists: Vec<Value> = Vec::new();
    for (user, trackers) in [("bob", addresses), ("cid", swapped)] {
        let info = info_file(&deployment.scene, user, &trackers);
        let mut client = Client::start_with(&deployment.scene, &info, ClientSettings::new(user));
        client.sign_up(user);
        client.expect_ok(&format!("join_group {GROUP}"));
        deployment.clients[0].expect_ok(&format!("accept_request {GROUP} {user}"));
        deployment.clients.push(client);
    }
    let [ann, bob, cid] = deployment.some();
    let file = random_file(ann.path("file"), 1000, 3);
    ann.upload(&file, GROUP);
    ann.wait_seeders(GROUP, "file", 1);
    for client in [&mut *bob, &mut *cid] {
        soon(client, "file", &json!([1, 0]));
        lists.push(client.expect_ok("list_groups"));
    }
    for client in [bob, cid] {
        client.download(GROUP, "file");
    }
    assert_eq!(lists[0], lists[1]);
    let [ann, ..] = deployment.some::<3>();
    soon(ann, "file", &json!([3, 0]));
}

/// Who is signed in at one tracker is so at all; events find their way.
#[test]
fn sessions_and_events_are_those_of_the_whole_deployment() {
    let Two { mut deployment, second, mut bob } = two();
    let settings = ClientSettings::new("intruder");
    let mut other = Client::start_with(&deployment.scene, second.info_file(), settings);
    let login = format!("login ann {}", password_of("ann"));
    other.expect_error(&login, "already_logged_in");
    other.sign_up("cid");
    other.expect_ok(&format!("join_group {GROUP}"));
    let ann = &mut deployment.clients[0];
    let asked = ann.event_within(EVENT_PROMISE, |event| event["event"] == "join_requested" && event["user"] == "cid");
    assert!(asked.is_some(), "ann hears that cid asks");
    ann.expect_ok(&format!("accept_request {GROUP} cid"));
    let accepted = other.event_within(EVENT_PROMISE, |event| event["event"] == "request_accepted");
    assert!(accepted.is_some(), "cid hears of it");
    ann.expect_ok(&format!("remove_member {GROUP} bob"));
    let removed = bob.event_within(EVENT_PROMISE, |event| event["event"] == "removed_from_group");
    assert!(removed.is_some(), "bob hears of it");
}

/// A killed tracker's clients are seen for ten seconds, as long as their lease might run, and then no more.
#[test]
fn a_killed_trackers_clients_vanish() {
    let Two { mut deployment, mut second, mut bob } = two();
    let ann = &mut deployment.clients[0];
    let file = random_file(bob.path("file"), 1000, 4);
    bob.upload(&file, GROUP);
    bob.wait_seeders(GROUP, "file", 1);
    soon(ann, "file", &json!([1, 0]));
    second.kill();
    bob.kill();
    eventually_within(Duration::from_secs(13), "bob is gone", || (counts(ann, "file") == json!([0, 0])).then_some(()));
}

/// Two trackers with one number are never there at the same time.
#[test]
fn a_number_is_used_once() {
    let mut deployment = Deployment::of(programs!(), 1);
    deployment.scene.write("twin.txt", "127.0.0.1\n1\n");
    let data_dir = deployment.tracker.data_dir();
    let arguments = ["twin.txt", "1", "--listen", "127.0.0.1:0", "--data-dir", data_dir.to_str().unwrap()];
    let twin = deployment.scene.run_tracker(&arguments);
    assert_eq!(twin.code, Some(2), "{}", twin.stdout);
    assert!(twin.stderr.contains("error[data_dir_in_use]: tracker 1 runs already"), "{}", twin.stderr);
    deployment.clients[0].expect_ok("list_groups");
    // However it ended, it may start again at once.
    deployment.tracker.kill();
    deployment.tracker.start_again();
}

/// A tracker that stood still is dead to the other one; when it goes on, it brings nobody back.
#[test]
fn a_stopped_tracker_serves_nothing_stale_when_it_goes_on() {
    let Two { mut deployment, mut second, mut bob } = two();
    let ann = &mut deployment.clients[0];
    let file = random_file(bob.path("file"), 1000, 5);
    bob.upload(&file, GROUP);
    bob.wait_seeders(GROUP, "file", 1);
    soon(ann, "file", &json!([1, 0]));
    ann.download(GROUP, "file");
    soon(ann, "file", &json!([2, 0]));
    second.running_mut().signal(Signal::STOP);
    bob.kill();
    eventually_within(Duration::from_secs(13), "bob is gone", || (counts(ann, "file") == json!([1, 0])).then_some(()));
    ann.expect_ok(&format!("stop_share {GROUP} file"));
    // So that nothing but its own look tells the second tracker what happened.
    ann.kill();
    eventually("ann's connection is lost", || {
        (deployment.tracker.console("fileinfo file").iter().all(|line| !line.starts_with("  "))).then_some(())
    });
    second.running_mut().signal(Signal::CONT);
    let lines = second.console("peerinfo").join("\n");
    assert!(!lines.contains("ann"), "{lines}");
    holds_for(Duration::from_secs(3), "nobody is back", || {
        deployment.tracker.console("peerinfo").iter().all(|line| !line.contains("bob"))
    });
}
