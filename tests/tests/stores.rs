//! Trackers whose store is in PostgreSQL, as members meet them.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_tests::client::ClientSettings;
use mini_torrent_tests::files::random_bytes;
use mini_torrent_tests::postgres::{self, Stop};
use mini_torrent_tests::{Client, GROUP, Scene, Tracker, eventually, programs};

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
