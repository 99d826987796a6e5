//! One member's downloads: destinations, the list, cancelling, waiting, a full disk: E19 and the corners of
//! behaviour §3 about them.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_tests::client::ClientSettings;
use mini_torrent_tests::disks::scene_with_disk;
use mini_torrent_tests::files::{assert_same, random_bytes, random_file};
use mini_torrent_tests::{Client, Conduct, Content, Deployment, GROUP, P, WireSeeder, eventually, programs};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Two members; the first shares `file`.
fn shared(length: u64) -> (Deployment, PathBuf) {
    let mut deployment = Deployment::of(programs!(), 2);
    let ann = &mut deployment.clients[0];
    let file = random_file(ann.path("file"), length, 1);
    ann.upload(&file, GROUP);
    (deployment, file)
}

/// Two members and a seeder that takes requests and serves nothing yet.
fn held(n_pieces: usize) -> (Deployment, WireSeeder, Content) {
    let mut deployment = Deployment::of(programs!(), 2);
    let content = Content::new("file", random_bytes(n_pieces * usize::try_from(P).unwrap(), 2));
    let seeder = deployment.add_wire_seeder("zed", &content, Conduct::HELD);
    (deployment, seeder, content)
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// E19: `[D]`, `[C]` and `[F]`, in the order of their start, kept across a restart.
#[test]
fn e19_show_downloads_lists_states_in_start_order() {
    let (mut deployment, seeder, _) = held(4);
    let (ann, bob) = deployment.pair();
    let file = random_file(ann.path("a-small-one"), 1000, 3);
    ann.upload(&file, GROUP);
    bob.begin_download(GROUP, "file");
    bob.download(GROUP, "a-small-one");
    let answer = bob.expect_ok("show_downloads");
    let rows = answer["downloads"].as_array().unwrap();
    let expected = json!({
        "group": GROUP, "file": "a-small-one", "state": "C", "size": 1000, "done_bytes": 1000,
        "destination": bob.path("a-small-one"), "reason": null,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(rows[1][key], *value, "{key}");
    }
    assert!(rows[1]["rate_bytes_per_s"].is_number() && rows[1]["peers"].is_number(), "{}", rows[1]);
    assert_eq!((rows[0]["file"].clone(), rows[0]["state"].clone()), ("file".into(), "D".into()));
    seeder.wait_requested();
    bob.kill();
    bob.start_again();
    bob.sign_in();
    let order = bob.expect_ok("show_downloads")["downloads"].clone();
    assert_eq!((order[0]["file"].clone(), order[1]["file"].clone()), ("file".into(), "a-small-one".into()));
}

/// E14, E19: the replies as text.
#[test]
fn e14_e19_replies_as_text() {
    let (mut deployment, _) = shared(P + 1);
    let bob = &mut deployment.clients[1];
    bob.quit();
    let script = format!(
        "login bob {}\ndownload_file lab file got\nwait lab file --timeout 60\nshow_downloads\nverify lab file\n",
        mini_torrent_tests::client::password_of("bob")
    );
    let finished = deployment.scene.run_client(&["127.0.0.1:0", deployment.tracker.info()], &script);
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(lines[..2], ["logged in as bob; sharing 0 files", "downloading file from 1 seeder"]);
    assert!(lines.ends_with(&["[C] [lab] file", "file is intact"]), "{}", finished.stdout);
    assert_eq!(finished.code, Some(0));
}

/// An existing directory takes the file under its own name; a missing parent is an error.
#[test]
fn destinations_are_directories_or_new_names() {
    let (mut deployment, file) = shared(5000);
    let bob = &mut deployment.clients[1];
    std::fs::create_dir(bob.path("dir")).unwrap();
    let answer = bob.expect_ok("download_file lab file dir");
    assert_eq!(answer["destination"], bob.path("dir/file").to_str().unwrap());
    bob.wait_completed(GROUP, "file");
    assert_same(&file, bob.path("dir/file"));
    assert_eq!(names_in(&bob.path("dir")), ["file"], "the partial file is gone");
    bob.expect_error("download_file lab file missing/dir/name", "io");
    assert!(!bob.path("missing").exists());
}

/// Data goes to `.<name>.part` beside the destination, readable by nobody else, renamed when complete.
#[test]
fn partial_files_are_hidden_private_and_renamed() {
    use std::os::unix::fs::MetadataExt;
    let (mut deployment, seeder, content) = held(4);
    let bob = &mut deployment.clients[1];
    let copy = bob.begin_download(GROUP, "file");
    seeder.wait_requested();
    seeder.allow(Some(3 * P));
    let partial = bob.path(".file.part");
    let metadata = eventually("the partial file", || std::fs::metadata(&partial).ok());
    assert_eq!(metadata.mode() & 0o777, 0o600);
    assert!(!copy.exists());
    seeder.allow(None);
    bob.wait_completed(GROUP, "file");
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
    assert!(!partial.exists());
}

/// Another file at the destination is not touched, unless `--force`.
#[test]
fn other_content_at_the_destination_is_not_touched() {
    let (mut deployment, file) = shared(5000);
    let bob = &mut deployment.clients[1];
    std::fs::write(bob.path("mine"), "mine").unwrap();
    bob.expect_error("download_file lab file mine", "destination_exists");
    assert_eq!(std::fs::read(bob.path("mine")).unwrap(), b"mine");
    bob.expect_ok("download_file lab file mine --force");
    bob.wait_completed(GROUP, "file");
    assert_same(&file, bob.path("mine"));
}

/// The same content at the destination is verified and complete, without a seeder.
#[test]
fn identical_content_at_the_destination_is_complete() {
    let (mut deployment, file) = shared(2 * P + 7);
    let (ann, bob) = deployment.pair();
    std::fs::copy(&file, bob.path("have")).unwrap();
    ann.quit();
    bob.wait_seeders(GROUP, "file", 0);
    bob.expect_ok("download_file lab file have");
    bob.wait_completed(GROUP, "file");
    assert_eq!(bob.shown(GROUP, "file")["state"], "C");
    // It is a share now.
    bob.wait_seeders(GROUP, "file", 1);
}

/// The path that is already shared is verified and complete; elsewhere is a new download.
#[test]
fn downloading_an_own_file() {
    let (mut deployment, file) = shared(2 * P);
    let (ann, bob) = deployment.pair();
    ann.expect_ok(&format!("download_file lab file {}", file.display()));
    ann.wait_completed(GROUP, "file");
    bob.download(GROUP, "file");
    ann.expect_ok("download_file lab file elsewhere");
    ann.wait_completed(GROUP, "file");
    assert_same(&file, ann.path("elsewhere"));
    let shown = ann.expect_ok("show_downloads");
    assert_eq!(shown["downloads"].as_array().unwrap().len(), 1, "the new one replaces the row: {shown}");
}

#[test]
fn a_running_download_is_not_started_twice() {
    let (mut deployment, seeder, _) = held(2);
    let bob = &mut deployment.clients[1];
    bob.begin_download(GROUP, "file");
    seeder.wait_requested();
    bob.expect_error("download_file lab file elsewhere", "already_downloading");
    bob.expect_error("download_file lab unknown x", "no_such_file");
    bob.expect_error("download_file unknown file x", "no_such_group");
}

/// Cancelling stops it and removes the partial file; it does not come back.
#[test]
fn cancelled_downloads_are_gone() {
    let (mut deployment, seeder, content) = held(4);
    let bob = &mut deployment.clients[1];
    bob.begin_download(GROUP, "file");
    seeder.wait_requested();
    seeder.allow(Some(2 * P));
    eventually("some of it is there", || (bob.shown(GROUP, "file")["done_bytes"] != 0).then_some(()));
    let cancelled = bob.expect_ok("cancel_download lab file");
    assert_eq!((cancelled["group"].clone(), cancelled["file"].clone()), (GROUP.into(), "file".into()));
    assert!(!bob.path(".file.part").exists());
    seeder.wait_seen("it leaves", |seen| (seen.n_open == 0).then_some(()));
    assert!(bob.shown(GROUP, "file").is_null());
    bob.expect_error("cancel_download lab file", "no_such_download");
    bob.kill();
    bob.start_again();
    bob.sign_in();
    assert!(bob.shown(GROUP, "file").is_null());
    seeder.allow(None);
    let copy = bob.download(GROUP, "file");
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
}

/// `wait`: none running is a success; too long is `timed_out`; both name what they are about.
#[test]
fn wait_says_what_completed_and_what_did_not() {
    let (mut deployment, seeder, _) = held(2);
    let (ann, bob) = deployment.pair();
    let file = random_file(ann.path("small"), 1000, 5);
    ann.upload(&file, GROUP);
    let none = bob.expect_ok("wait");
    assert_eq!(
        (none["completed"].clone(), none["failed"].clone(), none["pending"].clone()),
        (json!([]), json!([]), json!([]))
    );
    bob.begin_download(GROUP, "small");
    let done = bob.expect_ok("wait lab small");
    assert_eq!(done["completed"], json!([{"group": GROUP, "file": "small"}]));
    bob.begin_download(GROUP, "file");
    let late = bob.run("wait --timeout 1");
    assert_eq!(late["error"]["code"], "timed_out", "{late}");
    assert_eq!(late["pending"], json!([{"group": GROUP, "file": "file"}]));
    seeder.allow(None);
    bob.expect_ok("wait lab file");
    bob.expect_error("wait lab unknown", "no_such_download");
}

/// EOF means quit: what runs is kept and said; the next start goes on.
#[test]
fn eof_pauses_downloads_and_says_so() {
    let (mut deployment, seeder, content) = held(3);
    let bob = &mut deployment.clients[1];
    let copy = bob.begin_download(GROUP, "file");
    seeder.wait_requested();
    bob.running_mut().close_stdin();
    let status = bob.running_mut().wait_exit(std::time::Duration::from_secs(10));
    assert_eq!(status.code(), Some(0));
    let said = bob.running().stderr().text();
    assert!(said.contains("1 download paused; use wait") || said.contains("1 downloads paused; use wait"), "{said}");
    seeder.allow(None);
    bob.start_again();
    bob.sign_in();
    bob.wait_completed(GROUP, "file");
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
}

/// SIGTERM in mid-transfer: gone within 3 s, state saved.
#[test]
fn sigterm_in_mid_transfer_ends_it_within_three_seconds() {
    let (mut deployment, seeder, content) = held(3);
    let bob = &mut deployment.clients[1];
    let copy = bob.begin_download(GROUP, "file");
    seeder.wait_requested();
    seeder.allow(Some(P));
    bob.running().signal(rustix::process::Signal::TERM);
    bob.running_mut().wait_exit(std::time::Duration::from_secs(3));
    seeder.wait_seen("it leaves", |seen| (seen.n_open == 0).then_some(()));
    seeder.allow(None);
    bob.start_again();
    bob.sign_in();
    bob.wait_completed(GROUP, "file");
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
}

/// `-v` adds progress and the reason to wait; without it the list is as short as ever.
#[test]
fn show_downloads_tells_more_with_v() {
    let (mut deployment, file) = shared(2 * P);
    let (ann, bob) = deployment.pair();
    ann.quit();
    bob.wait_seeders(GROUP, "file", 0);
    bob.begin_download(GROUP, "file");
    bob.quit();
    let script = format!(
        "login bob {}\nshow_downloads\nshow_downloads -v\nlist_files lab\nlist_files lab -v\n",
        mini_torrent_tests::client::password_of("bob")
    );
    let data_dir = bob.data_dir();
    let arguments = ["127.0.0.1:0", deployment.tracker.info(), "--data-dir", data_dir.to_str().unwrap()];
    let finished = deployment.scene.run_client(&arguments, &script);
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(lines[1], "[D] [lab] file");
    assert!(lines[2].starts_with("[D] [lab] file") && lines[2].len() > lines[1].len(), "{}", lines[2]);
    assert_eq!(lines[3], "file");
    assert!(lines[5].contains("ann") && lines[5].contains("1.0 MiB"), "{}", lines[5]);
    assert!(finished.stderr.contains("paused; use wait"), "{}", finished.stderr);
    assert_eq!(finished.code, Some(0));
    drop(file);
}

/// A symbolic link where the partial file goes is not followed.
#[test]
fn links_in_place_of_the_partial_file_are_not_followed() {
    let (mut deployment, _) = shared(P);
    let bob: &mut Client = &mut deployment.clients[1];
    std::fs::write(bob.path("victim"), "untouched").unwrap();
    std::os::unix::fs::symlink(bob.path("victim"), bob.path(".file.part")).unwrap();
    let answer = bob.run(&format!("download_file lab file {}", bob.path("file").display()));
    if answer["ok"] == true {
        eventually("it ends or waits with a reason", || {
            let row = bob.shown(GROUP, "file");
            (row["state"] != "D" || !row["reason"].is_null()).then_some(())
        });
    }
    assert_eq!(std::fs::read(bob.path("victim")).unwrap(), b"untouched");
}

/// A FIFO or a directory where the partial file goes does not hang the client; the destination may be neither.
#[test]
fn odd_things_in_the_way_do_not_hang() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let (mut deployment, _) = shared(P);
    let bob = &mut deployment.clients[1];
    mknodat(CWD, bob.path(".fifo.part"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
    std::fs::create_dir(bob.path(".dir.part")).unwrap();
    mknodat(CWD, bob.path("existing-fifo"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
    bob.expect_error("download_file lab file existing-fifo", "destination_exists");
    bob.expect_error("download_file lab file /dev/null", "destination_exists");
    for name in ["fifo", "dir"] {
        let answer = bob.run(&format!("download_file lab file {name}"));
        if answer["ok"] == true {
            let failed = bob.wait_event_kind("download_failed");
            assert!(failed["reason"].as_str().unwrap().contains("in the way"), "{failed}");
        }
    }
    bob.expect_ok("download_file lab file free");
    bob.wait_completed(GROUP, "file");
    assert!(bob.path(".dir.part").is_dir());
}

/// A link at the destination is not followed either: the target keeps its content.
#[test]
fn links_at_the_destination_are_not_written_through() {
    let (mut deployment, file) = shared(P);
    let bob = &mut deployment.clients[1];
    std::fs::write(bob.path("victim"), "untouched").unwrap();
    std::os::unix::fs::symlink(bob.path("victim"), bob.path("link")).unwrap();
    bob.expect_error("download_file lab file link", "destination_exists");
    let answer = bob.run("download_file lab file link --force");
    if answer["ok"] == true {
        bob.wait_completed(GROUP, "file");
        assert_same(&file, bob.path("link"));
    }
    assert_eq!(std::fs::read(bob.path("victim")).unwrap(), b"untouched");
}

/// A full disk: `[D]` with the reason, other downloads go on, and it goes on when there is room.
#[test]
fn a_full_disk_holds_one_download_up_until_there_is_room() {
    let mut deployment = Deployment::of(programs!(), 1);
    let disk = deployment.scene.make_dir("disk");
    let Some(scene) = scene_with_disk(&deployment.scene, &disk, 8 * P) else { return };
    let ann = &mut deployment.clients[0];
    let file = random_file(ann.path("file"), 6 * P, 6);
    let small = random_file(ann.path("small"), 1000, 7);
    ann.upload(&file, GROUP);
    ann.upload(&small, GROUP);
    let mut bob = Client::start_with(&scene, deployment.tracker.info_file(), ClientSettings::new("bob"));
    bob.sign_up("bob");
    bob.expect_ok("join_group lab");
    deployment.clients[0].expect_ok("accept_request lab bob");
    let inside = PathBuf::from(format!("/proc/{}/root{}", bob.running().pid(), disk.display()));
    random_file(inside.join("filler"), 6 * P, 8);
    bob.expect_ok(&format!("download_file lab file {}", disk.display()));
    let reason = eventually("it waits with a reason", || {
        let row = bob.shown(GROUP, "file");
        assert_ne!(row["state"], "F", "{row}");
        row["reason"].as_str().map(str::to_owned)
    });
    assert!(reason.contains("full") || reason.contains("space") || reason.contains("room"), "{reason}");
    bob.download(GROUP, "small");
    std::fs::remove_file(inside.join("filler")).unwrap();
    bob.wait_completed(GROUP, "file");
    assert_same(&file, inside.join("file"));
}

/// More than fits is known before the start: the download waits with a reason and takes no room.
#[test]
fn more_than_the_disk_holds_is_known_before_the_start() {
    use mini_torrent_common::control::ListingDraft;
    let mut deployment = Deployment::of(programs!(), 1);
    let mut zed = deployment.add_wire_member("zed", 1);
    // 64 TiB would do; more than 4 TiB no listing may have.
    let statvfs = rustix::fs::statvfs(deployment.scene.dir()).unwrap();
    if statvfs.f_bavail * statvfs.f_frsize > 1 << 40 {
        mini_torrent_tests::waiting::skipped("this disk holds a TiB");
        return;
    }
    let (draft, raw): (ListingDraft, Vec<u8>) =
        mini_torrent_tests::wire_member::vast_draft(zed.group_id(GROUP), 1 << 40);
    zed.offer(GROUP, draft, &raw).unwrap();
    let ann = &mut deployment.clients[0];
    let answer = ann.run(&format!("download_file lab vast {}", ann.path("vast").display()));
    if answer["ok"] == true {
        let row = eventually("it says why it waits", || {
            Some(ann.shown(GROUP, "vast")).filter(|row| !row["reason"].is_null())
        });
        assert_eq!(row["state"], "D", "{row}");
    } else {
        assert_eq!(answer["error"]["code"], "disk_full", "{answer}");
    }
}

/// C10: of two downloads at once, one that fails does not touch the other.
#[test]
fn c10_a_failing_download_leaves_the_others_alone() {
    let mut deployment = Deployment::of(programs!(), 2);
    let contents = ["doomed", "kept"].map(|name| Content::new(name, random_bytes(4_000_000, name.len() as u64)));
    let seeders = contents
        .each_ref()
        .map(|content| deployment.add_wire_seeder(&format!("zed-{}", content.name), content, Conduct::HELD));
    let (ann, bob) = deployment.pair();
    bob.begin_download(GROUP, "doomed");
    let copy = bob.begin_download(GROUP, "kept");
    seeders.iter().for_each(WireSeeder::wait_requested);
    ann.expect_ok("remove_file lab doomed");
    bob.wait_event_kind("download_failed");
    seeders[1].allow(None);
    bob.wait_completed(GROUP, "kept");
    assert!(std::fs::read(copy).unwrap() == *contents[1].bytes);
}
