//! Trackers whose store is in PostgreSQL, as members meet them.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_tests::client::ClientSettings;
use mini_torrent_tests::files::{assert_same, random_bytes, random_file};
use mini_torrent_tests::postgres::{self, Stop};
use mini_torrent_tests::{Client, DEADLINE, GROUP, P, Scene, Tracker, eventually, programs};

/// Accounts, groups, files and downloads work as with the store in a file, and go on after its server was away.
#[test]
fn members_notice_no_more_of_a_database_server_than_its_absence() {
    let Some(server) = postgres::own() else { return };
    let database = server.database();
    let scene = Scene::new(programs!());
    let tracker = Tracker::start_with(&scene, "tracker", &["--database", &database.url]);
    let mut ann = Client::start_with(&scene, tracker.info_file(), ClientSettings::new("ann"));
    ann.sign_up("ann");
    ann.expect_ok(&format!("create_group {GROUP}"));
    std::fs::write(ann.path("file"), random_bytes(100_000, 1)).unwrap();
    ann.expect_ok(&format!("upload_file file {GROUP}"));
    server.stop(Stop::Immediate);
    ann.expect_error("create_group other", "store_unavailable");
    server.start_again();
    eventually("it works again", || (ann.run("create_group other")["ok"] == true).then_some(()));
    let listed = ann.expect_ok(&format!("list_files {GROUP}"));
    assert!(listed.to_string().contains("\"file\""), "{listed}");
}

/// Two processes with one number on two hosts: the second is refused while the first lives. One that stood still
/// gives way to the next, and ends when it goes on.
#[test]
fn a_number_is_used_once_in_a_database() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let scene = Scene::new(programs!());
    let options = ["--database", &database.url];
    let mut first = Tracker::start_with(&scene, "tracker", &options);
    let elsewhere = scene.make_dir("elsewhere.data");
    std::fs::copy(first.data_dir().join("identity.key"), elsewhere.join("identity.key")).unwrap();
    scene.write("twin.txt", "127.0.0.1\n1\n");
    let twin = ["twin.txt", "1", "--listen", "127.0.0.1:0", "--data-dir", "elsewhere.data", options[0], options[1]];
    let refused = scene.run_tracker(&twin);
    assert_eq!(refused.code, Some(2), "{}", refused.stdout);
    assert!(refused.stderr.contains("error[data_dir_in_use]: tracker 1 runs already"), "{}", refused.stderr);
    let mut ann = Client::start_with(&scene, first.info_file(), ClientSettings::new("ann"));
    ann.sign_up("ann");

    first.running().suspend();
    let second = Tracker::start_with(&scene, "elsewhere", &options);
    first.running().resume();
    assert_eq!(first.running_mut().wait_exit(DEADLINE).code(), Some(2));
    let told = first.running().stderr().text();
    assert!(told.contains("error[data_dir_in_use]"), "{told}");
    let mut bob = Client::start_with(&scene, second.info_file(), ClientSettings::new("bob"));
    bob.sign_up("bob");
}

/// Both trackers of a deployment lose their database and have it again: files listed before are there at both, and
/// what one tracker is told the other one tells.
#[test]
fn two_trackers_outlive_their_database_server() {
    let Some(server) = postgres::own() else { return };
    let database = server.database();
    let scene = Scene::new(programs!());
    let first = Tracker::start_with(&scene, "tracker", &["--database", &database.url]);
    let second = first.start_beside(2);
    let mut ann = Client::start_with(&scene, first.info_file(), ClientSettings::new("ann"));
    let mut bob = Client::start_with(&scene, second.info_file(), ClientSettings::new("bob"));
    ann.sign_up("ann");
    bob.sign_up("bob");
    ann.expect_ok(&format!("create_group {GROUP}"));
    bob.expect_ok(&format!("join_group {GROUP}"));
    eventually("the owner is asked", || (ann.run(&format!("accept_request {GROUP} bob"))["ok"] == true).then_some(()));
    let before = random_file(ann.path("before"), 3 * P, 1);
    ann.upload(&before, GROUP);
    for stop in [Stop::Fast, Stop::Immediate] {
        server.stop(stop);
        bob.expect_error("create_group other", "store_unavailable");
        server.start_again();
        eventually("it works again", || (ann.run(&format!("list_files {GROUP}"))["ok"] == true).then_some(()));
    }
    bob.wait_seeders(GROUP, "before", 1);
    assert_same(&before, bob.download(GROUP, "before"));
    let after = random_file(bob.path("after"), P, 2);
    bob.upload(&after, GROUP);
    ann.wait_seeders(GROUP, "after", 1);
    assert_same(&after, ann.download(GROUP, "after"));
}
