//! Two trackers on one data directory, and clients that know both: C1, C12, A7, E24, and what issue 5 says of
//! failover in the client.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_tests::client::ClientSettings;
use mini_torrent_tests::files::{assert_same, random_bytes, random_file};
use mini_torrent_tests::tracker::info_file;
use mini_torrent_tests::{Client, Conduct, Content, Deployment, GROUP, P, Tracker, eventually, in_time, programs};
use std::net::SocketAddr;
use std::time::Duration;

/// Within what time a client goes on with another tracker, at the latest.
const PROMPT: Duration = Duration::from_secs(5);
/// Makes a client look every moment whether an earlier tracker is back.
const LOOK_OFTEN: &str = "--return-interval-ms=100";

/// A deployment whose clients know both of its trackers, this one first, and the other one.
fn two_trackers() -> (Deployment, Tracker) {
    let deployment = Deployment::empty(programs!());
    let second = deployment.tracker.start_beside(2);
    list(&deployment, &[deployment.tracker.address(), second.address()]);
    (deployment, second)
}

/// Has clients that start from now on know these trackers, in this order.
fn list(deployment: &Deployment, trackers: &[SocketAddr]) {
    assert_eq!(info_file(&deployment.scene, "tracker", trackers), deployment.tracker.info_file());
}

/// The next event of a client that tells of a tracker's connection: which tracker it is.
fn connected(client: &mut Client) -> String {
    let event = client.wait_event_kind("tracker_connected");
    event["tracker"].as_str().unwrap_or_else(|| panic!("{event}")).to_owned()
}

/// Two new members do everything that there is to do.
fn everything_works(deployment: &mut Deployment) {
    deployment.add_members(2);
    let (ann, bob) = deployment.pair();
    let file = random_file(ann.path("file"), 3 * P + 5, 1);
    ann.upload(&file, GROUP);
    assert_same(&file, bob.download(GROUP, "file"));
    bob.wait_seeders(GROUP, "file", 2);
    ann.expect_ok("set_role lab bob admin");
    ann.expect_ok("stop_share lab file");
    bob.expect_ok("remove_file lab file");
    ann.expect_ok("logout");
    ann.sign_in();
    bob.expect_ok("leave_group lab");
    ann.expect_ok("list_groups");
    assert_eq!(ann.expect_ok("list_files lab")["files"].as_array().unwrap().len(), 0);
}

/// C1, E24: the first tracker is dead; the second one serves everything without user action.
#[test]
fn c1_e24_with_one_tracker_dead_everything_works_by_the_other() {
    let (mut deployment, second) = two_trackers();
    deployment.tracker.kill();
    everything_works(&mut deployment);
    assert_eq!(connected(&mut deployment.clients[0]), second.address().to_string());
}

/// C12: the same in the other order, with both up and with the one dead that stands first.
#[test]
fn c12_the_order_of_the_trackers_makes_no_difference() {
    let (mut deployment, second) = two_trackers();
    list(&deployment, &[second.address(), deployment.tracker.address()]);
    everything_works(&mut deployment);
    assert_eq!(connected(&mut deployment.clients[0]), second.address().to_string());

    let (mut deployment, mut second) = two_trackers();
    list(&deployment, &[second.address(), deployment.tracker.address()]);
    second.kill();
    everything_works(&mut deployment);
    assert_eq!(connected(&mut deployment.clients[0]), deployment.tracker.address().to_string());
}

/// Who is signed in goes on at the second tracker: the session, shares and groups, without a command.
#[test]
fn clients_of_a_killed_tracker_go_on_with_the_next_one() {
    let (mut deployment, second) = two_trackers();
    deployment.add_members(2);
    let (ann, _) = deployment.pair();
    let file = random_file(ann.path("file"), 3 * P, 2);
    ann.upload(&file, GROUP);
    deployment.tracker.kill();
    let (ann, bob) = deployment.pair();
    in_time(PROMPT, "the next one answers", || bob.expect_ok("list_groups"));
    bob.wait_event_kind("tracker_lost");
    eventually("it is at the second", || (connected(bob) == second.address().to_string()).then_some(()));
    bob.wait_seeders(GROUP, "file", 1);
    assert_same(&file, bob.download(GROUP, "file"));
    ann.expect_ok("sessions");
}

/// Commands that run while their tracker is killed are carried out, each once.
#[test]
fn commands_go_on_when_their_tracker_is_killed() {
    const N: usize = 60;
    let (mut deployment, _second) = two_trackers();
    deployment.add_members(1);
    (0..N).for_each(|nth| deployment.clients[0].send(&format!("create_group g{nth}")));
    for nth in 0..N {
        if nth == N / 4 {
            deployment.tracker.kill();
        }
        let answer = deployment.clients[0].answer();
        assert_eq!(answer["ok"], true, "{nth}: {answer}");
    }
    let groups = deployment.clients[0].expect_ok("list_groups");
    // With the group of the members and the built-in one.
    assert_eq!(groups["groups"].as_array().unwrap().len(), N + 2);
}

/// An upload whose tracker is killed on the way ends with the next one.
#[test]
fn uploads_go_on_when_their_tracker_is_killed() {
    let (mut deployment, _second) = two_trackers();
    deployment.add_members(2);
    let ann = &mut deployment.clients[0];
    let files: Vec<_> = (0..12).map(|nth| random_file(ann.path(&format!("file{nth}")), P + nth, nth)).collect();
    files.iter().for_each(|file| ann.send(&format!("upload_file '{}' {GROUP}", file.display())));
    for nth in 0..files.len() {
        if nth == 2 {
            deployment.tracker.kill();
        }
        let answer = deployment.clients[0].answer();
        assert_eq!((&answer["ok"], &answer["already_sharing"]), (&true.into(), &false.into()), "{nth}: {answer}");
    }
    assert_eq!(deployment.clients[1].expect_ok("list_files lab")["files"].as_array().unwrap().len(), files.len());
    assert_same(&files[11], deployment.clients[1].download(GROUP, "file11"));
}

/// A7: both trackers stop during a download; it completes byte-exact.
#[test]
fn a7_a_running_download_needs_neither_tracker() {
    let (mut deployment, mut second) = two_trackers();
    deployment.add_members(1);
    let content = Content::new("file", random_bytes(6 * usize::try_from(P).unwrap(), 3));
    let seeder = deployment.add_wire_seeder("zed", &content, Conduct::HELD);
    let copy = deployment.clients[0].begin_download(GROUP, "file");
    seeder.wait_requested();
    deployment.tracker.kill();
    second.terminate();
    let ann = &mut deployment.clients[0];
    ann.expect_error("list_groups", "tracker_unreachable");
    seeder.allow(None);
    ann.wait_completed(GROUP, "file");
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
}

/// A tracker that hangs: whoever waits for an answer has it from the next one, as does who comes new.
#[test]
fn a_tracker_that_hangs_is_left_for_the_next_one() {
    let (mut deployment, second) = two_trackers();
    deployment.add_members(1);
    deployment.tracker.running().suspend();
    in_time(PROMPT, "the next one answers", || deployment.clients[0].expect_ok("create_group other"));
    let newcomer = in_time(PROMPT, "the next one is found", || deployment.add_stranger());
    assert_eq!(connected(newcomer), second.address().to_string());
    deployment.tracker.running().resume();
    deployment.clients[0].expect_ok("create_group third");
}

/// The first tracker comes back: clients return to it, still signed in, and what they share is there.
#[test]
fn clients_return_to_the_first_tracker() {
    let (mut deployment, second) = two_trackers();
    deployment.add_member_with(ClientSettings::new("ann").option(LOOK_OFTEN));
    let ann = &mut deployment.clients[0];
    let file = random_file(ann.path("file"), P, 4);
    ann.upload(&file, GROUP);
    let first = deployment.tracker.address().to_string();
    assert_eq!(connected(ann), first);
    deployment.tracker.kill();
    let ann = &mut deployment.clients[0];
    assert_eq!(connected(ann), second.address().to_string());
    deployment.tracker.start_again();
    let ann = &mut deployment.clients[0];
    assert_eq!(connected(ann), first);
    ann.wait_seeders(GROUP, "file", 1);
    drop(second);
    deployment.clients[0].expect_ok("create_group still-here");
}

/// One address twice is no list of trackers.
#[test]
fn a_tracker_listed_twice_is_a_usage_error() {
    let deployment = Deployment::empty(programs!());
    let address = deployment.tracker.address();
    let twice = info_file(&deployment.scene, "twice", &[address, address]);
    let finished = deployment.scene.run_client(&["127.0.0.1:0", twice.to_str().unwrap()], "");
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("usage") && finished.stderr.contains("listed twice"), "{}", finished.stderr);
}
