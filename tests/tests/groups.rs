//! Groups, members and join requests: E6 to E11, E26 and the corners of behaviour §3 about them.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_tests::files::{assert_same, random_file};
use mini_torrent_tests::{Client, Deployment, GROUP, eventually_within, programs};
use serde_json::{Value, json};
use std::time::Duration;

/// Three users, signed in, in no group.
fn three_strangers() -> Deployment {
    let mut deployment = Deployment::empty(programs!());
    for _ in 0..3 {
        deployment.add_stranger();
    }
    deployment
}

/// The row of a group in `list_groups`.
fn group_row(client: &mut Client, group: &str) -> Value {
    let answer = client.expect_ok("list_groups");
    let rows = answer["groups"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == group).cloned().unwrap_or(Value::Null)
}

/// The users of the pending requests, in order.
fn requests(client: &mut Client, group: &str) -> Vec<String> {
    let answer = client.expect_ok(&format!("list_requests {group}"));
    let rows = answer["requests"].as_array().unwrap();
    rows.iter().map(|row| row["user"].as_str().unwrap().to_owned()).collect()
}

/// E6: the creator is owner and member.
#[test]
fn e6_the_creator_owns_the_group() {
    let mut deployment = three_strangers();
    let [ann, bob, _] = deployment.some();
    assert_eq!(ann.expect_ok("create_group lab")["group"], "lab");
    assert_eq!(group_row(ann, "lab"), json!({"name": "lab", "owner": "ann", "members": 1, "role": "owner"}));
    assert_eq!(ann.expect_ok("list_files lab")["files"], json!([]));
    bob.expect_error("create_group lab", "group_exists");
    bob.expect_error("create_group LAB", "group_exists");
    bob.expect_error("create_group -lab", "invalid_name");
}

/// E7: everybody's groups, sorted.
#[test]
fn e7_everybody_sees_all_groups_sorted() {
    let mut deployment = three_strangers();
    let [ann, bob, cid] = deployment.some();
    ann.expect_ok("create_group zoo");
    bob.expect_ok("create_group ark");
    cid.expect_ok("create_group lab");
    let answer = cid.expect_ok("list_groups");
    let names: Vec<&str> =
        answer["groups"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    let own: Vec<&str> = names.iter().copied().filter(|name| *name != "public").collect();
    assert_eq!(own, ["ark", "lab", "zoo"]);
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(group_row(cid, "zoo"), json!({"name": "zoo", "owner": "ann", "members": 1, "role": null}));
}

/// E8, E9, E10: pending is not a member; the owner sees and decides; others may not.
#[test]
fn e8_e9_e10_a_request_is_decided_by_the_owner() {
    let mut deployment = three_strangers();
    let [ann, bob, cid] = deployment.some();
    ann.expect_ok("create_group lab");
    assert_eq!(bob.expect_ok("join_group lab")["group"], "lab");
    assert_eq!(group_row(bob, "lab")["role"], "pending");
    bob.expect_error("list_files lab", "not_a_member");
    bob.expect_error("join_group lab", "already_requested");
    let asked = ann.wait_event_kind("join_requested");
    assert_eq!((asked["group"].clone(), asked["user"].clone()), ("lab".into(), "bob".into()));
    cid.expect_ok("join_group lab");
    let answer = ann.expect_ok("list_requests lab");
    assert_eq!(answer["group"], "lab");
    assert_time(&answer["requests"][0]["at"]);
    assert_eq!(requests(ann, "lab"), ["bob", "cid"], "in order of arrival, one entry each");
    for command in ["list_requests lab", "accept_request lab bob", "reject_request lab bob"] {
        let refused = cid.run(command)["error"]["code"].clone();
        assert!(refused == "not_the_owner" || refused == "not_a_member", "{command}: {refused}");
    }
    let accepted = ann.expect_ok("accept_request lab bob");
    assert_eq!((accepted["group"].clone(), accepted["user"].clone()), ("lab".into(), "bob".into()));
    assert_eq!(bob.wait_event_kind("request_accepted")["group"], "lab");
    assert_eq!(group_row(bob, "lab"), json!({"name": "lab", "owner": "ann", "members": 2, "role": "member"}));
    bob.expect_ok("list_files lab");
    bob.expect_error("join_group lab", "already_member");
    bob.expect_error("list_requests lab", "not_the_owner");
    bob.expect_error("accept_request lab cid", "not_the_owner");
    ann.expect_ok("reject_request lab cid");
    assert_eq!(group_row(cid, "lab")["role"], Value::Null);
    assert!(requests(ann, "lab").is_empty());
    // Who was turned away may ask again.
    cid.expect_ok("join_group lab");
}

/// A time as RFC 3339 writes it.
fn assert_time(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).take(19).collect();
    assert_eq!(shape, "0000-00-00T00:00:00", "{text}");
}

/// E6 to E11: every reply as text.
#[test]
fn e6_to_e11_replies_as_text() {
    let deployment = Deployment::empty(programs!());
    let info = deployment.tracker.info();
    let ann = "create_user ann password-1\nlogin ann password-1\n\
        create_group lab\nlist_requests lab\nlist_files lab\nshow_downloads\n";
    let finished = deployment.scene.run_client(&["127.0.0.1:0", info, "--data-dir", "ann"], ann);
    assert!(
        finished.stdout.ends_with("group lab created\nno pending requests\nno files\nno downloads\n"),
        "{}",
        finished.stdout
    );
    for user in ["bob", "cid"] {
        let script = format!("create_user {user} password-1\nlogin {user} password-1\njoin_group lab\n");
        let finished = deployment.scene.run_client(&["127.0.0.1:0", info, "--data-dir", user], &script);
        assert!(finished.stdout.ends_with("join request sent to the owner of lab\n"), "{}", finished.stdout);
    }
    let ann = "login ann password-1\nrequests list_requests lab\naccept_request lab bob\nreject_request lab cid\n\
        leave_group lab\n";
    let finished = deployment.scene.run_client(&["127.0.0.1:0", info, "--data-dir", "ann"], ann);
    let expected = "logged in as ann; sharing 0 files\nbob\ncid\nbob is a member of lab now\n\
        request of cid rejected\nleft lab; bob is the owner now\n";
    assert_eq!(finished.stdout, expected);
    let bob = "login bob password-1\nlist_groups\nleave_group lab\n";
    let finished = deployment.scene.run_client(&["127.0.0.1:0", info, "--data-dir", "bob"], bob);
    assert!(finished.stdout.contains("\nlab\n"), "{}", finished.stdout);
    assert!(finished.stdout.ends_with("left lab; it had no other member and is gone\n"), "{}", finished.stdout);
}

#[test]
fn accepting_somebody_who_did_not_ask_changes_nothing() {
    let mut deployment = three_strangers();
    let [ann, bob, _] = deployment.some();
    ann.expect_ok("create_group lab");
    ann.expect_error("accept_request lab bob", "no_such_request");
    ann.expect_error("reject_request lab bob", "no_such_request");
    bob.expect_error("list_files lab", "not_a_member");
    assert_eq!(group_row(ann, "lab")["members"], 1);
}

#[test]
fn a_pending_user_who_leaves_takes_the_request_back() {
    let mut deployment = three_strangers();
    let [ann, bob, _] = deployment.some();
    ann.expect_ok("create_group lab");
    bob.expect_ok("join_group lab");
    bob.expect_ok("leave_group lab");
    assert!(requests(ann, "lab").is_empty());
    bob.expect_error("leave_group lab", "not_a_member");
}

#[test]
fn unknown_groups_have_a_code() {
    let mut deployment = three_strangers();
    let ann = &mut deployment.clients[0];
    for command in ["join_group no", "leave_group no", "list_requests no", "accept_request no bob", "list_files no"] {
        ann.expect_error(command, "no_such_group");
    }
}

#[test]
fn public_is_reserved() {
    let mut deployment = three_strangers();
    let ann = &mut deployment.clients[0];
    ann.expect_error("create_group public", "invalid_name");
    ann.expect_error("create_group Public", "invalid_name");
    for command in ["join_group public", "leave_group public"] {
        let code = ann.run(command)["error"]["code"].clone();
        assert!(code == "invalid_name" || code == "already_member", "{command}: {code}");
    }
}

/// The longest-standing member inherits; the last one out removes the group and its listings.
#[test]
fn the_owner_leaves_and_the_longest_standing_member_inherits() {
    let mut deployment = Deployment::of(programs!(), 3);
    let [ann, bob, cid] = deployment.some();
    let file = random_file(cid.path("file"), 1000, 1);
    cid.upload(&file, GROUP);
    assert_eq!(ann.expect_ok("leave_group lab")["owner"], "bob");
    assert_eq!(group_row(ann, GROUP)["owner"], "bob");
    bob.expect_ok("list_requests lab");
    bob.expect_ok("leave_group lab");
    let last = cid.expect_ok("leave_group lab");
    assert_eq!(last["removed"], true);
    assert_eq!(group_row(ann, GROUP), Value::Null);
    // A group of that name is a new one: nothing of the old one is in it.
    ann.expect_ok("create_group lab");
    assert_eq!(ann.expect_ok("list_files lab")["files"], json!([]));
    cid.expect_error("list_files lab", "not_a_member");
}

/// E11: who leaves has no access: shares end, downloads fail, files on the disk stay.
#[test]
fn e11_leaving_ends_access() {
    let mut deployment = Deployment::of(programs!(), 3);
    let [ann, bob, cid] = deployment.some();
    let kept = random_file(ann.path("kept"), 200_000, 2);
    let left = random_file(bob.path("left"), 200_000, 3);
    ann.upload(&kept, GROUP);
    bob.upload(&left, GROUP);
    let copy = bob.download(GROUP, "kept");
    ann.wait_seeders(GROUP, "kept", 2);
    bob.expect_ok("leave_group lab");
    eventually_within(Duration::from_secs(2), "the shares of who left are gone", || {
        (ann.listed(GROUP, "kept")["seeders"] == 1 && ann.listed(GROUP, "left").is_null()).then_some(())
    });
    for command in ["list_files lab", "download_file lab kept again", "upload_file left lab", "stop_share lab kept"] {
        let code = bob.run(command)["error"]["code"].clone();
        assert!(
            code == "not_a_member" || (command.starts_with("stop_share") && code == "not_sharing"),
            "{command}: {code}"
        );
    }
    assert_same(&kept, &copy);
    cid.download(GROUP, "kept");
}

/// E11: downloads of who leaves fail for good with `not_a_member`.
#[test]
fn e11_leaving_fails_the_downloads_of_the_group() {
    use mini_torrent_tests::{Conduct, Content};
    let mut deployment = Deployment::of(programs!(), 2);
    let content = Content::new("file", mini_torrent_tests::files::random_bytes(2_000_000, 4));
    let _seeder = deployment.add_wire_seeder("zed", &content, Conduct::HELD);
    let bob = &mut deployment.clients[1];
    bob.begin_download(GROUP, "file");
    bob.expect_ok("leave_group lab");
    let failed = bob.wait_event_kind("download_failed");
    assert_eq!(failed["file"], "file");
    assert!(failed["reason"].as_str().unwrap().contains("not_a_member"), "{failed}");
    assert_eq!(bob.shown(GROUP, "file")["state"], "F");
    let waited = bob.run("wait lab file --timeout 5");
    assert_eq!(waited["error"]["code"], "download_failed", "{waited}");
}

/// E26: nothing leaks from one group to another.
#[test]
fn e26_groups_are_apart() {
    let mut deployment = Deployment::of(programs!(), 2);
    let [ann, bob] = deployment.some();
    ann.expect_ok("create_group other");
    let file = random_file(ann.path("file"), 300_000, 5);
    let here = ann.upload(&file, GROUP);
    let there = ann.upload(&file, "other");
    assert_ne!(here["info_hash"], there["info_hash"], "the same content in two groups is two swarms");
    assert_eq!(here["sha256"], there["sha256"]);
    bob.expect_error("list_files other", "not_a_member");
    bob.expect_error("download_file other file copy", "not_a_member");
    bob.download(GROUP, "file");
    ann.wait_seeders(GROUP, "file", 2);
    assert_eq!(ann.listed("other", "file")["seeders"], 1, "a downloader here is no seeder there");
    ann.expect_ok("stop_share other file");
    assert_eq!(ann.listed(GROUP, "file")["seeders"], 2);
    ann.expect_error("download_file other file copy", "no_such_file");
}

/// Every account is a member of `public`; with `--no-public` there is none.
#[test]
fn everybody_shares_in_public() {
    let mut deployment = three_strangers();
    let [ann, bob, _] = deployment.some();
    let file = random_file(ann.path("file"), 100_000, 6);
    ann.upload(&file, "public");
    assert_same(&file, bob.download("public", "file"));
    let row = group_row(bob, "public");
    assert_eq!((row["owner"].clone(), row["role"].clone()), (Value::Null, "member".into()));
}

/// Without the built-in group a new tracker has none: `no groups`.
#[test]
fn without_public_there_are_no_groups() {
    use mini_torrent_tests::{Scene, Tracker};
    let scene = Scene::new(programs!());
    let tracker = Tracker::start_with(&scene, "tracker", &["--no-public"]);
    let script = "create_user ann password-1\nlogin ann password-1\nlist_groups\n";
    let finished = scene.run_client(&["127.0.0.1:0", tracker.info()], script);
    assert!(finished.stdout.ends_with("\nno groups\n"), "{}", finished.stdout);
}
