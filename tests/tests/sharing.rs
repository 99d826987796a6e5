//! Uploading, listing, verifying and ending shares: E12, E13, E18, E20, E21, E23, A3, A4, A5, A12 and the
//! corners of behaviour §3 about them.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_tests::files::{assert_same, digests, random_bytes, random_file};
use mini_torrent_tests::{Client, Deployment, GROUP, P, eventually, eventually_within, programs};
use serde_json::{Value, json};
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// E12: a member's upload is listed with its hashes.
#[test]
fn e12_an_upload_is_listed_with_its_hashes() {
    let mut deployment = Deployment::of(programs!(), 2);
    let [ann, bob] = deployment.some();
    let file = random_file(ann.path("file.bin"), 3 * P + 5, 1);
    let hashes = digests(&file);
    let answer = ann.upload(&file, GROUP);
    assert_eq!((answer["group"].clone(), answer["name"].clone()), (GROUP.into(), "file.bin".into()));
    assert_eq!((answer["size"].clone(), answer["pieces"].clone()), ((3 * P + 5).into(), 4.into()));
    assert_eq!(
        (answer["sha1"].clone(), answer["sha256"].clone()),
        (hashes.sha1.to_string().into(), hashes.sha256.to_string().into())
    );
    assert_eq!(answer["already_sharing"], false);
    ann.wait_seeders(GROUP, "file.bin", 1);
    let row = bob.listed(GROUP, "file.bin");
    let expected = json!({
        "name": "file.bin", "size": 3 * P + 5, "sha1": hashes.sha1.to_string(), "sha256": hashes.sha256.to_string(),
        "info_hash": answer["info_hash"], "uploader": "ann", "seeders": 1, "leechers": 0,
    });
    assert_eq!(row, expected);
}

/// E12: the tracker holds hashes, never data.
#[test]
fn e12_the_tracker_never_sees_content() {
    let mut deployment = Deployment::of(programs!(), 2);
    let marker = random_bytes(32, 2);
    let [ann, bob] = deployment.some();
    let file = deployment_file(ann, "file", &marker.repeat(2000));
    ann.upload(&file, GROUP);
    bob.download(GROUP, "file");
    deployment.tracker.terminate();
    for entry in std::fs::read_dir(deployment.tracker.data_dir()).unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        assert!(!bytes.windows(marker.len()).any(|part| part == marker), "{} has content", entry.path().display());
    }
}

fn deployment_file(client: &Client, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = client.path(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// E12, E13: replies as text, names sorted, one a line.
#[test]
fn e12_e13_replies_as_text() {
    let mut deployment = Deployment::of(programs!(), 1);
    deployment.clients[0].quit();
    for (name, length) in [("b #1.iso", P + 1), ("a", 0)] {
        random_file(deployment.clients[0].path(name), length, 3);
    }
    let script = format!(
        "login ann {}\nupload_file 'b #1.iso' lab\nupload_file a lab\nlist_files lab\nverify lab a\nstop_share lab a\n",
        mini_torrent_tests::client::password_of("ann")
    );
    let scene = &deployment.scene;
    let mut command = scene.client_command(&["127.0.0.1:0", deployment.tracker.info(), "--data-dir", "data"]);
    let mut running = scene.start("ann in text", command.current_dir(scene.path("ann")));
    script.lines().for_each(|line| running.type_line(line));
    let finished = running.finish();
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(lines[0], "logged in as ann; sharing 0 files");
    assert!(lines[1].starts_with("sharing b #1.iso in lab (") && lines[1].ends_with(", 2 pieces)"), "{}", lines[1]);
    assert!(lines[2].starts_with("sharing a in lab (") && lines[2].ends_with(", 0 pieces)"), "{}", lines[2]);
    assert_eq!(lines[3..], ["a", "b #1.iso", "a is intact", "stopped sharing a in lab"]);
    assert_eq!(finished.code, Some(0));
}

/// E13: a member sees all files, sorted; a stranger none.
#[test]
fn e13_members_see_all_files() {
    let mut deployment = Deployment::of(programs!(), 2);
    deployment.add_stranger();
    let [ann, bob, cid] = deployment.some();
    let upload = |client: &mut Client, name| {
        let file = random_file(client.path(name), 1000, 4);
        client.upload(&file, GROUP);
    };
    upload(ann, "m");
    upload(bob, "z");
    upload(ann, "a");
    let answer = bob.expect_ok("list_files lab");
    let names: Vec<&Value> = answer["files"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["a", "m", "z"]);
    cid.expect_error("list_files lab", "not_a_member");
    let file = random_file(cid.path("c"), 1000, 5);
    cid.expect_error(&format!("upload_file {} lab", file.display()), "not_a_member");
}

/// A3, A4: piece counts at the edges; 1024 KiB are two pieces.
#[test]
fn a3_a4_piece_counts_at_the_edges() {
    let mut deployment = Deployment::of(programs!(), 1);
    let ann = &mut deployment.clients[0];
    for (length, n_pieces) in [(0, 0), (1, 1), (P - 1, 1), (P, 1), (P + 1, 2), (1024 * 1024, 2), (3 * P, 3)] {
        let file = random_file(ann.path(&format!("file{length}")), length, length);
        let answer = ann.upload(&file, GROUP);
        assert_eq!((answer["size"].clone(), answer["pieces"].clone()), (length.into(), n_pieces.into()));
    }
}

/// The same name and content: another seeder, or `already_sharing`; other content: a conflict, and `--as`.
#[test]
fn names_conflict_only_with_other_content() {
    let mut deployment = Deployment::of(programs!(), 2);
    let [ann, bob] = deployment.some();
    let original = random_file(ann.path("file"), 10_000, 6);
    let answer = ann.upload(&original, GROUP);
    assert_eq!(ann.upload(&original, GROUP)["already_sharing"], true);
    let same = deployment_file(bob, "file", &std::fs::read(&original).unwrap());
    let joined = bob.upload(&same, GROUP);
    assert_eq!(
        (joined["info_hash"].clone(), joined["already_sharing"].clone()),
        (answer["info_hash"].clone(), false.into())
    );
    ann.wait_seeders(GROUP, "file", 2);
    let other = random_file(bob.path("file2"), 5_000, 7);
    let conflict = bob.expect_error(&format!("upload_file {} lab --as file", other.display()), "name_conflict");
    let sha1 = answer["sha1"].as_str().unwrap();
    let sha256 = answer["sha256"].as_str().unwrap();
    assert!(conflict.contains(&sha1[..6]) || conflict.contains(&sha256[..6]), "the short hash: {conflict}");
    assert!(conflict.contains("10") || conflict.contains("9.8"), "the size: {conflict}");
    // Names that only look different are the same name.
    bob.expect_error(&format!("upload_file {} lab --as FILE", other.display()), "name_conflict");
    assert_eq!(bob.expect_ok(&format!("upload_file {} lab --as file-2", other.display()))["name"], "file-2");
    assert_eq!(ann.listed(GROUP, "file-2")["uploader"], "bob");
}

/// Two names for one content are two listings.
#[test]
fn the_same_content_under_two_names_is_two_listings() {
    let mut deployment = Deployment::of(programs!(), 1);
    let ann = &mut deployment.clients[0];
    let file = random_file(ann.path("file"), 10_000, 8);
    let one = ann.upload(&file, GROUP);
    let two = ann.expect_ok(&format!("upload_file {} lab --as two", file.display()));
    assert_ne!(one["info_hash"], two["info_hash"]);
    ann.expect_ok("stop_share lab file");
    ann.wait_seeders(GROUP, "two", 1);
    assert!(ann.listed(GROUP, "file").is_null());
}

/// Directories, FIFOs, devices, missing and unreadable files: an error at once, never a hang.
#[test]
fn only_regular_files_are_uploaded() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let mut deployment = Deployment::of(programs!(), 1);
    let ann = &mut deployment.clients[0];
    std::fs::create_dir(ann.path("dir")).unwrap();
    mknodat(CWD, ann.path("fifo"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
    ann.expect_error("upload_file dir lab", "not_a_regular_file");
    ann.expect_error("upload_file fifo lab", "not_a_regular_file");
    ann.expect_error("upload_file /dev/zero lab", "not_a_regular_file");
    ann.expect_error("upload_file missing lab", "io");
    std::os::unix::fs::symlink("loop", ann.path("loop")).unwrap();
    ann.expect_error("upload_file loop lab", "io");
    if !rustix::process::geteuid().is_root() {
        use std::os::unix::fs::PermissionsExt;
        let secret = deployment_file(ann, "secret", b"x");
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o000)).unwrap();
        ann.expect_error("upload_file secret lab", "io");
    }
    assert_eq!(ann.expect_ok("list_files lab")["files"], json!([]));
}

/// A5: names that would leave the destination, steer a terminal or mean a device are refused at upload.
#[test]
fn a5_hostile_names_are_refused_at_upload() {
    let mut deployment = Deployment::of(programs!(), 1);
    let ann = &mut deployment.clients[0];
    let file = random_file(ann.path("file"), 100, 9);
    for name in ["..", "../x", "/etc/x", "a/b", "'a\\b'", "'x\u{1b}[2J'", "'a\u{9b}b'", "con.txt", "NUL", "''"] {
        ann.expect_error(&format!("upload_file {} lab --as {name}", file.display()), "invalid_name");
    }
    deployment_file(ann, "x\u{1b}[31m", b"x");
    ann.expect_error("upload_file 'x\u{1b}[31m' lab", "invalid_name");
    assert_eq!(ann.expect_ok("list_files lab")["files"], json!([]));
}

/// E23: absolute, relative and `~/` paths.
#[test]
fn e23_paths_may_be_absolute_relative_or_from_home() {
    let mut deployment = Deployment::of(programs!(), 2);
    let home_file = random_file(deployment.scene.path("from home"), 1000, 10);
    let [ann, bob] = deployment.some();
    std::fs::create_dir(ann.path("sub")).unwrap();
    let file = random_file(ann.path("sub/file"), 1000, 11);
    ann.expect_ok("upload_file sub/file lab");
    ann.expect_ok(&format!("upload_file {} lab --as absolute", file.display()));
    ann.expect_ok("upload_file ./sub/../sub/file lab --as dotted");
    ann.expect_ok("upload_file ~/'from home' lab");
    std::fs::create_dir(bob.path("got")).unwrap();
    bob.expect_ok("download_file lab file got");
    bob.expect_ok("download_file lab absolute got/renamed");
    bob.expect_ok("download_file lab 'from home' ~/arrived");
    for (name, path) in [("file", "got/file"), ("absolute", "got/renamed"), ("from home", "../arrived")] {
        bob.wait_completed(GROUP, name);
        let original = if name == "from home" { &home_file } else { &file };
        assert_same(original, bob.path(path));
    }
}

/// E18: the verdict is right in both directions, for binary, text and empty files.
#[test]
fn e18_verify_is_right_in_both_directions() {
    let mut deployment = Deployment::of(programs!(), 2);
    let [ann, bob] = deployment.some();
    random_file(ann.path("binary"), 2 * P + 77, 12);
    deployment_file(ann, "text", "Grüße\n".repeat(1000).as_bytes());
    deployment_file(ann, "empty", b"");
    for name in ["binary", "text", "empty"] {
        let path = ann.path(name);
        ann.upload(&path, GROUP);
        let copy = bob.download(GROUP, name);
        assert_same(&path, &copy);
        let intact = bob.expect_ok(&format!("verify lab {name}"));
        assert_eq!((intact["group"].clone(), intact["file"].clone()), (GROUP.into(), name.into()));
    }
    let binary = std::fs::File::options().write(true).open(bob.path("binary")).unwrap();
    binary.write_all_at(&[0, 1, 2, 3], P + 9).unwrap();
    let text = bob.expect_error("verify lab binary", "verification_failed");
    assert!(text.contains('1'), "names the first bad piece: {text}");
    std::fs::write(bob.path("empty"), b"x").unwrap();
    bob.expect_error("verify lab empty", "verification_failed");
    ann.expect_ok("verify lab binary");
}

/// E20: whoever stops gives nothing more; other sharers go on; the last one takes the listing along.
#[test]
fn e20_stop_share_ends_one_share() {
    let mut deployment = Deployment::of(programs!(), 3);
    let [ann, bob, cid] = deployment.some();
    let file = random_file(ann.path("file"), 3 * P, 13);
    ann.upload(&file, GROUP);
    bob.download(GROUP, "file");
    ann.wait_seeders(GROUP, "file", 2);
    let stopped = ann.expect_ok("stop_share lab file");
    assert_eq!((stopped["group"].clone(), stopped["file"].clone()), (GROUP.into(), "file".into()));
    ann.expect_error("stop_share lab file", "not_sharing");
    cid.wait_seeders(GROUP, "file", 1);
    let read = ann.running().bytes_read();
    cid.download(GROUP, "file");
    assert!(ann.running().has_read_less(P, read), "who stopped reads the file no more");
    // It is not revived by the next login.
    ann.expect_ok("logout");
    assert_eq!(ann.sign_in()["shares"], 0);
    cid.expect_ok("stop_share lab file");
    bob.expect_ok("stop_share lab file");
    assert!(bob.listed(GROUP, "file").is_null());
    ann.expect_error("stop_share lab file", "no_such_file");
    assert!(file.exists() && bob.path("file").exists(), "files stay");
}

/// E21: logout ends everything; the next login brings everything back without a command.
#[test]
fn e21_logout_and_login_end_and_revive_shares() {
    let mut deployment = Deployment::of(programs!(), 2);
    let [ann, bob] = deployment.some();
    for name in ["one", "two"] {
        let file = random_file(ann.path(name), 1000, 14);
        ann.upload(&file, GROUP);
    }
    bob.wait_seeders(GROUP, "one", 1);
    ann.expect_ok("logout");
    eventually_within(Duration::from_secs(2), "the shares are withdrawn", || {
        (bob.listed(GROUP, "one")["seeders"] == 0 && bob.listed(GROUP, "two")["seeders"] == 0).then_some(())
    });
    assert_eq!(ann.sign_in()["shares"], 2);
    bob.wait_seeders(GROUP, "one", 1);
    bob.wait_seeders(GROUP, "two", 1);
    bob.download(GROUP, "two");
}

/// E21: a paused download goes on after the next login.
#[test]
fn e21_logout_pauses_downloads_and_login_resumes_them() {
    use mini_torrent_tests::{Conduct, Content};
    let mut deployment = Deployment::of(programs!(), 2);
    let content = Content::new("file", random_bytes(3_000_000, 15));
    let seeder = deployment.add_wire_seeder("zed", &content, Conduct::HELD);
    let bob = &mut deployment.clients[1];
    let copy = bob.begin_download(GROUP, "file");
    seeder.wait_requested();
    bob.expect_ok("logout");
    seeder.wait_seen("the leecher leaves", |seen| (seen.n_open == 0).then_some(()));
    seeder.allow(None);
    bob.sign_in();
    bob.wait_completed(GROUP, "file");
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
}

/// A12: after a restart the mapping of paths is intact and everything is announced again.
#[test]
fn a12_shares_survive_a_restart_of_the_client() {
    let mut deployment = Deployment::of(programs!(), 2);
    let [ann, bob] = deployment.some();
    let file = random_file(ann.path("file"), 2 * P, 16);
    ann.upload(&file, GROUP);
    ann.quit();
    ann.start_again();
    ann.expect_error("list_groups", "not_logged_in");
    let read = ann.running().bytes_read();
    assert_eq!(ann.sign_in()["shares"], 1);
    bob.wait_seeders(GROUP, "file", 1);
    assert!(ann.running().has_read_less(P, read), "an unchanged file is not hashed again");
    assert_same(file, bob.download(GROUP, "file"));
}

/// A file that changed after it was shared is withdrawn, its owner told, and nobody gets a mixed file.
#[test]
fn a_changed_file_is_withdrawn() {
    let mut deployment = Deployment::of(programs!(), 2);
    let [ann, bob] = deployment.some();
    let file = random_file(ann.path("file"), 4 * P, 17);
    ann.upload(&file, GROUP);
    bob.wait_seeders(GROUP, "file", 1);
    std::fs::File::options().write(true).open(&file).unwrap().write_all_at(b"changed", 2 * P).unwrap();
    let copy = bob.begin_download(GROUP, "file");
    let stale = ann.wait_event_kind("share_stale");
    assert_eq!((stale["group"].clone(), stale["file"].clone()), (GROUP.into(), "file".into()));
    assert!(stale["reason"].is_string());
    bob.wait_seeders(GROUP, "file", 0);
    assert_eq!(bob.shown(GROUP, "file")["state"], "D");
    assert!(!copy.exists(), "an unfinished file does not bear the name");
}

/// A file that is gone or shorter when its owner signs in is not shared any more; the others are.
#[test]
fn files_gone_before_login_are_stale() {
    let mut deployment = Deployment::of(programs!(), 2);
    let [ann, bob] = deployment.some();
    for name in ["gone", "short", "kept"] {
        let file = random_file(ann.path(name), P, 18);
        ann.upload(&file, GROUP);
    }
    ann.quit();
    std::fs::remove_file(ann.path("gone")).unwrap();
    std::fs::File::options().write(true).open(ann.path("short")).unwrap().set_len(5).unwrap();
    ann.start_again();
    ann.sign_in();
    let mut stale: Vec<String> =
        (0..2).map(|_| ann.wait_event_kind("share_stale")["file"].as_str().unwrap().to_owned()).collect();
    stale.sort();
    assert_eq!(stale, ["gone", "short"]);
    bob.wait_seeders(GROUP, "kept", 1);
    eventually("the others have no seeder", || {
        let n = |row: Value| row["seeders"].as_u64().unwrap_or_default();
        (n(bob.listed(GROUP, "gone")) + n(bob.listed(GROUP, "short")) == 0).then_some(())
    });
}
