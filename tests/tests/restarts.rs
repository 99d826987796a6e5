//! kill -9, restarts and outages of each process: D8, D10, D13, E2, E25 and the corners of behaviour §3
//! about them.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_common::torrent::Torrent;
use mini_torrent_tests::files::{assert_same, random_bytes, random_file};
use mini_torrent_tests::{Client, Conduct, Content, Deployment, GROUP, P, WireSeeder, eventually, eventually_within};
use mini_torrent_tests::{Tracker, UNREACHABLE, holds_for, in_time, programs};
use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

/// A member whose download of 12 pieces was killed in the middle: at least two pieces were verified.
fn killed_in_the_middle() -> (Deployment, WireSeeder, Content, PathBuf, u64) {
    let mut deployment = Deployment::of(programs!(), 1);
    let content = Content::new("file", random_bytes(12 * usize::try_from(P).unwrap(), 1));
    let seeder = deployment.add_wire_seeder("zed", &content, Conduct::HELD);
    let ann = &mut deployment.clients[0];
    let copy = ann.begin_download(GROUP, "file");
    seeder.wait_requested();
    seeder.allow(Some(7 * P));
    let done = eventually("some pieces are verified", || {
        let done = ann.shown(GROUP, "file")["done_bytes"].as_u64().unwrap();
        (done >= 2 * P).then_some(done)
    });
    ann.kill();
    seeder.wait_seen("it is gone", |seen| (seen.n_open == 0).then_some(()));
    (deployment, seeder, content, copy, done)
}

/// A killed leecher goes on by itself after login, and fetches only what was not verified on its disk.
#[test]
fn a_killed_leecher_fetches_only_what_is_missing() {
    let (mut deployment, seeder, content, copy, done) = killed_in_the_middle();
    let ann = &mut deployment.clients[0];
    seeder.forget();
    ann.start_again();
    ann.sign_in();
    seeder.wait_requested();
    let kept: BTreeSet<u32> = seeder.seen().all_haves();
    assert!(kept.len() as u64 * P >= done, "{} pieces are kept of {done} bytes", kept.len());
    eventually("it is shown", || (ann.shown(GROUP, "file")["done_bytes"].as_u64() >= Some(done)).then_some(()));
    seeder.allow(None);
    ann.wait_completed(GROUP, "file");
    let fetched: BTreeSet<u32> = seeder.seen().pieces_requested().into_iter().collect();
    assert!(fetched.is_disjoint(&kept), "fetched again: {:?}", fetched.intersection(&kept).collect::<Vec<_>>());
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
}

/// Damage to the partial file while the client was down is found.
#[test]
fn damage_to_the_partial_file_is_found() {
    let (mut deployment, seeder, content, copy, _) = killed_in_the_middle();
    let ann = &mut deployment.clients[0];
    let partial = std::fs::File::options().write(true).open(ann.path(".file.part")).unwrap();
    for piece in 0..12 {
        partial.write_all_at(b"damage", piece * P + 100).unwrap();
    }
    drop(partial);
    seeder.allow(None);
    ann.start_again();
    ann.sign_in();
    ann.wait_completed(GROUP, "file");
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
    ann.expect_ok("verify lab file");
}

/// A partial file that is gone costs a new start, not the download.
#[test]
fn a_partial_file_that_is_gone_is_fetched_anew() {
    let (mut deployment, seeder, content, copy, _) = killed_in_the_middle();
    let ann = &mut deployment.clients[0];
    std::fs::remove_file(ann.path(".file.part")).unwrap();
    seeder.allow(None);
    ann.start_again();
    ann.sign_in();
    ann.wait_completed(GROUP, "file");
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
}

/// A killed seeder that comes back is used again by a download that waited for it.
#[test]
fn a_killed_seeder_comes_back() {
    let mut deployment = Deployment::of(programs!(), 2);
    let (ann, bob) = deployment.pair();
    let file = random_file(ann.path("file"), 5 * P, 2);
    ann.upload(&file, GROUP);
    ann.kill();
    let copy = bob.begin_download(GROUP, "file");
    ann.start_again();
    assert_eq!(ann.sign_in()["shares"], 1);
    bob.wait_completed(GROUP, "file");
    assert_same(file, copy);
}

/// D10, D8: everything acknowledged survives kill -9 of the tracker; clients resume their sessions and are
/// announced again within 15 s.
#[test]
fn d10_a_killed_tracker_remembers_everything() {
    let mut deployment = Deployment::of(programs!(), 2);
    deployment.add_stranger();
    let [ann, bob, cid] = deployment.some();
    let file = random_file(ann.path("file"), 2 * P, 3);
    ann.upload(&file, GROUP);
    bob.expect_ok("create_group other");
    cid.expect_ok("join_group lab");
    deployment.tracker.kill();
    deployment.tracker.start_again();
    let [ann, bob, cid] = deployment.some();
    eventually_within(Duration::from_secs(15), "the session goes on and the share is announced", || {
        let answer = ann.run("list_files lab");
        (answer["files"][0]["seeders"] == 1).then_some(())
    });
    assert_eq!(ann.expect_ok("list_requests lab")["requests"][0]["user"], "cid");
    bob.wait_event_kind("tracker_connected");
    assert_same(&file, bob.download(GROUP, "file"));
    ann.expect_ok("accept_request lab cid");
    cid.wait_seeders(GROUP, "file", 2);
    cid.expect_ok("logout");
    cid.sign_in();
}

/// D10: the console's `export` is JSON that a person can read. After a restart it says the same of accounts, groups, files
/// and keys, and it never has a secret.
#[test]
fn d10_the_export_is_readable_and_the_same_after_a_restart() {
    let mut deployment = Deployment::of(programs!(), 2);
    let ann = &mut deployment.clients[0];
    let file = random_file(ann.path("file"), P + 1, 6);
    ann.upload(&file, GROUP);
    ann.expect_ok("set_group lab stock-clients on");
    let personal = ann.path("file.torrent");
    ann.expect_ok(&format!("export_torrent lab file {}", personal.display()));
    let before = exported(&mut deployment);
    deployment.tracker.kill();
    deployment.tracker.start_again();
    eventually("both clients are there again", || {
        (exported(&mut deployment)["peers"].as_array().unwrap().len() == 2).then_some(())
    });
    let after = exported(&mut deployment);
    let names = |part: &str| -> Vec<String> {
        let rows = after[part].as_array().unwrap_or_else(|| panic!("no {part}: {after}"));
        rows.iter().map(|row| row["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names("users"), ["ann", "bob"]);
    assert!(names("groups").contains(&GROUP.to_owned()) && names("listings").contains(&"file".to_owned()), "{after}");
    for part in ["users", "groups", "listings", "announce_keys"] {
        assert_eq!(after[part], before[part], "{part}");
    }
    let text = after.to_string();
    let urls = Torrent::decode(&std::fs::read(personal).unwrap()).unwrap().tiers().concat();
    let key = urls.iter().find_map(|url| url.split('/').find(|part| part.len() == 32)).unwrap();
    for secret in ["password", "argon2", "token", "secret", "digest", key] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
}

fn exported(deployment: &mut Deployment) -> serde_json::Value {
    let lines = deployment.tracker.console("export");
    assert!(lines.len() > 10, "a line each for a person to read: {lines:?}");
    serde_json::from_str(&lines.join("\n")).unwrap()
}

/// While the tracker is gone commands fail within 5 s, the client stays, and reconnects within 5 s.
#[test]
fn a_tracker_that_is_gone_is_reported_and_found_again() {
    let mut deployment = Deployment::of(programs!(), 1);
    deployment.tracker.kill();
    let ann = &mut deployment.clients[0];
    ann.wait_event_kind("tracker_lost");
    in_time(UNREACHABLE, "unreachable", || ann.expect_error("list_groups", "tracker_unreachable"));
    ann.expect_ok("show_downloads");
    deployment.tracker.start_again();
    let ann = &mut deployment.clients[0];
    in_time(UNREACHABLE, "found again", || ann.wait_event_kind("tracker_connected"));
    ann.expect_ok("create_group afterwards");
}

/// A tracker that hangs is as good as gone: `tracker_unreachable` within 5 s.
#[test]
fn a_tracker_that_hangs_is_unreachable() {
    let mut deployment = Deployment::of(programs!(), 1);
    deployment.tracker.running().suspend();
    let ann = &mut deployment.clients[0];
    in_time(UNREACHABLE, "unreachable", || ann.expect_error("list_groups", "tracker_unreachable"));
    deployment.tracker.running().resume();
    let ann = &mut deployment.clients[0];
    eventually("it goes on", || (ann.run("list_groups")["ok"] == true).then_some(()));
}

/// A client may be started and signed in when the tracker comes later.
#[test]
fn a_client_started_before_its_tracker_connects_by_itself() {
    let mut deployment = Deployment::of(programs!(), 1);
    deployment.tracker.kill();
    let ann = &mut deployment.clients[0];
    ann.kill();
    ann.start_again();
    ann.expect_error("login ann password-of-ann", "tracker_unreachable");
    deployment.tracker.start_again();
    let ann = &mut deployment.clients[0];
    eventually("it can sign in", || (ann.run("login ann password-of-ann")["ok"] == true).then_some(()));
}

/// D8: a killed client is off the lists within 30 s; the live one stays.
#[test]
fn d8_a_killed_client_leaves_the_lists_and_live_ones_stay() {
    let mut deployment = Deployment::of(programs!(), 3);
    let [ann, bob, cid] = deployment.some();
    let file = random_file(ann.path("file"), 1000, 4);
    ann.upload(&file, GROUP);
    bob.download(GROUP, "file");
    cid.wait_seeders(GROUP, "file", 2);
    ann.kill();
    eventually_within(Duration::from_secs(30), "the killed one is off the list", || {
        (cid.listed(GROUP, "file")["seeders"] == 1).then_some(())
    });
    holds_for(Duration::from_secs(1), "the live one stays", || cid.listed(GROUP, "file")["seeders"] == 1);
}

/// D13 in short: a client that stood still for a moment goes on as if nothing had been. The torture run has
/// the pause that outlasts the lease.
#[test]
fn d13_a_client_that_stood_still_goes_on() {
    let mut deployment = Deployment::of(programs!(), 2);
    let (ann, bob) = deployment.pair();
    let file = random_file(ann.path("file"), 3 * P, 5);
    ann.upload(&file, GROUP);
    ann.running().suspend();
    let copy = bob.begin_download(GROUP, "file");
    eventually("the download waits", || (bob.shown(GROUP, "file")["state"] == "D").then_some(()));
    ann.running().resume();
    bob.wait_completed(GROUP, "file");
    assert_same(file, copy);
    ann.expect_ok("list_groups");
}

/// E2, D10: the console's `quit` ends the tracker with status 0; its state is kept.
#[test]
fn e2_console_quit_keeps_the_state() {
    let mut deployment = Deployment::of(programs!(), 1);
    deployment.tracker.running_mut().type_line("quit");
    let status = deployment.tracker.running_mut().wait_exit(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0));
    deployment.tracker.start_again();
    let ann: &mut Client = &mut deployment.clients[0];
    eventually("the session goes on", || (ann.run("list_files lab")["ok"] == true).then_some(()));
}

/// SIGTERM ends the tracker cleanly.
#[test]
fn sigterm_ends_the_tracker_cleanly() {
    let mut deployment = Deployment::of(programs!(), 1);
    let status = in_time(Duration::from_secs(5), "it ends", || deployment.tracker.terminate());
    assert_eq!(status.code(), Some(0));
    deployment.tracker.start_again();
    let ann = &mut deployment.clients[0];
    eventually("the session goes on", || (ann.run("list_files lab")["ok"] == true).then_some(()));
}

/// A tracker that comes back with another key is not trusted: no credential is sent.
#[test]
fn a_tracker_with_another_key_is_refused() {
    let mut deployment = Deployment::of(programs!(), 1);
    let ann = &mut deployment.clients[0];
    ann.quit();
    let address = deployment.tracker.address();
    deployment.tracker.terminate();
    let impostor = eventually("the port is free", || Tracker::start_at(&deployment.scene, "impostor", address, &[]));
    assert_ne!(impostor.key(), deployment.tracker.key());
    let ann = &mut deployment.clients[0];
    ann.start_again();
    ann.expect_error("login ann password-of-ann", "tracker_key_changed");
}
