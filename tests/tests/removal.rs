//! Removal is fast, and outages are survived (issue 3; design §5, "Removal is fast"): live connections of who is no
//! member any more drop within two seconds, later ones are refused, and everybody else goes on.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_common::control::Request;
use mini_torrent_tests::client::password_of;
use mini_torrent_tests::files::{assert_same, random_bytes, random_file};
use mini_torrent_tests::wire_leecher::WireLeecher;
use mini_torrent_tests::{Client, Conduct, Content, Deployment, GROUP, P, WireMember, WireSeeder};
use mini_torrent_tests::{eventually, eventually_within, programs};
use std::time::Duration;

/// Within what time a membership's end must be felt (behaviour §3).
const PROMPT: Duration = Duration::from_secs(2);
/// What a client says of a membership that has ended.
const REVOKED: &str = "the ticket is revoked";

/// `n` members, the first sharing `file` of 4 pieces.
fn sharing(n: usize) -> Deployment {
    let mut deployment = Deployment::of(programs!(), n);
    let ann = &mut deployment.clients[0];
    let file = random_file(ann.path("file"), 4 * P, 1);
    ann.upload(&file, GROUP);
    deployment
}

/// Three members, and zed who serves `big` at the pace of the test; bob and cid have begun to download it and some
/// pieces have arrived.
fn two_downloads_running() -> (Deployment, WireSeeder, Content) {
    let mut deployment = Deployment::of(programs!(), 3);
    let content = Content::new("big", random_bytes(usize::try_from(48 * P).unwrap(), 2));
    let zed = deployment.add_wire_seeder("zed", &content, Conduct::HELD);
    for nth in [1, 2] {
        deployment.clients[nth].begin_download(GROUP, "big");
    }
    zed.wait_seen("both ask", |seen| (seen.n_open == 2).then_some(()));
    zed.allow(Some(16 * P));
    for nth in [1, 2] {
        let client = &mut deployment.clients[nth];
        eventually("pieces arrive", || (client.shown(GROUP, "big")["done_bytes"].as_u64() >= Some(P)).then_some(()));
    }
    (deployment, zed, content)
}

fn wait_failed(client: &mut Client, limit: Duration) {
    let failed = client.event_within(limit, |event| event["event"] == "download_failed");
    let failed = failed.unwrap_or_else(|| panic!("the download runs on after {limit:?}"));
    assert!(failed["reason"].as_str().unwrap().contains("not_a_member"), "{failed}");
    assert_eq!(client.shown(GROUP, "big")["state"], "F");
}

/// The line of issue 3: a removed member's running download stops within 2 s, the others' go on; who rejoins can
/// download again.
#[test]
fn a_removed_members_download_stops_while_the_others_go_on() {
    let (mut deployment, zed, content) = two_downloads_running();
    let [ann, bob, cid] = deployment.some();
    ann.expect_ok("remove_member lab bob");
    wait_failed(bob, PROMPT);
    assert_eq!(bob.wait_event_kind("removed_from_group")["group"], GROUP);
    bob.expect_error("list_files lab", "not_a_member");
    bob.expect_error("download_file lab big again", "not_a_member");
    assert_eq!(cid.shown(GROUP, "big")["state"], "D");
    zed.allow(None);
    cid.wait_completed(GROUP, "big");
    assert!(std::fs::read(cid.path("big")).unwrap() == *content.bytes);

    bob.expect_ok("join_group lab");
    ann.expect_ok("accept_request lab bob");
    let copy = bob.download(GROUP, "big");
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
}

/// Who leaves stops at once as well, and the others go on.
#[test]
fn a_leaving_members_download_stops_while_the_others_go_on() {
    let (mut deployment, zed, content) = two_downloads_running();
    let [_, bob, cid] = deployment.some();
    bob.expect_ok("leave_group lab");
    wait_failed(bob, PROMPT);
    zed.allow(None);
    cid.wait_completed(GROUP, "big");
    assert!(std::fs::read(cid.path("big")).unwrap() == *content.bytes);
}

/// What a removed member shared is gone from the group, and nobody finds it there.
#[test]
fn a_removed_members_shares_end() {
    let mut deployment = sharing(3);
    let [ann, bob, cid] = deployment.some();
    let own = random_file(bob.path("own"), 200_000, 3);
    bob.upload(&own, GROUP);
    bob.download(GROUP, "file");
    ann.wait_seeders(GROUP, "file", 2);
    ann.expect_ok("remove_member lab bob");
    eventually_within(PROMPT, "the removed one's shares are gone", || {
        (ann.listed(GROUP, "file")["seeders"] == 1 && ann.listed(GROUP, "own").is_null()).then_some(())
    });
    cid.download(GROUP, "file");
    assert!(own.exists() && bob.path("file").exists(), "files on the disk stay");
}

/// A way to end what a member was admitted with.
type Ending = fn(&mut Deployment, &mut WireLeecher, &str);

const ENDINGS: [(&str, Ending); 5] = [
    ("removed", |deployment, _, user| {
        deployment.clients[0].expect_ok(&format!("remove_member {GROUP} {user}"));
    }),
    ("left", |_, leecher, _| {
        leecher.member().ask(Request::LeaveGroup { group: GROUP.parse().unwrap() });
    }),
    ("locked", |deployment, _, user| {
        assert_eq!(deployment.tracker.console(&format!("lock_user {user}")), [format!("user {user} locked")]);
    }),
    ("logged-out", |_, leecher, _| {
        leecher.member().ask(Request::LogoutEverywhere);
    }),
    ("taken-over", |deployment, _, user| {
        let mut elsewhere = WireMember::connect(deployment.tracker.address(), 1).unwrap();
        elsewhere.sign_in_taking_over(user, &password_of(user));
    }),
];

/// Removal, leaving, the account's lock, logout everywhere and a change of key: each drops the live connection
/// within 2 s and closes the door to the old ticket, and touches nobody else.
#[test]
fn every_end_of_an_admission_drops_live_connections() {
    let mut deployment = sharing(2);
    let mut leechers: Vec<(WireLeecher, &str, Ending)> = ENDINGS
        .into_iter()
        .map(|(user, ending)| (WireLeecher::join(&mut deployment, user, "file"), user, ending))
        .collect();
    let mut steady = WireLeecher::join(&mut deployment, "steady", "file");
    for (leecher, user, ending) in &mut leechers {
        leecher.fetch_block(0).unwrap_or_else(|error| panic!("{user} before: {error}"));
        let from = deployment.clients[0].log().len();
        ending(&mut deployment, leecher, user);
        leecher.wait_closed(PROMPT);
        assert!(leecher.knock().is_err(), "{user} is let in again");
        deployment.clients[0].wait_logged(from, REVOKED);
        steady.fetch_block(1).unwrap_or_else(|error| panic!("{user} takes others along: {error}"));
    }
    let (ann, bob) = deployment.pair();
    assert_same(ann.path("file"), bob.download(GROUP, "file"));
}

/// Who comes back is let in with a new ticket, not with the old one.
#[test]
fn who_comes_back_is_let_in_with_a_new_ticket() {
    let mut deployment = sharing(1);
    let comers = ["removed", "locked", "logged-out"].map(|name| {
        let (user, ending) = ENDINGS.into_iter().find(|(user, _)| *user == name).unwrap();
        (WireLeecher::join(&mut deployment, user, "file"), user, ending)
    });
    for (mut leecher, user, ending) in comers {
        ending(&mut deployment, &mut leecher, user);
        leecher.wait_closed(PROMPT);
        match user {
            "removed" => {
                leecher.member().join_group(GROUP);
                deployment.clients[0].expect_ok(&format!("accept_request {GROUP} {user}"));
            }
            _ => {
                deployment.tracker.console(&format!("unlock_user {user}"));
                leecher.member().sign_in(user, &password_of(user));
            }
        }
        assert!(leecher.knock().is_err(), "{user}: the old ticket opens");
        leecher.renew_ticket();
        leecher.come_again();
        leecher.fetch_block(0).unwrap();
    }
}

/// Who leaves and comes back while having no file in the group is a member like any other: served, serving, and told
/// of the next removal.
#[test]
fn who_leaves_without_a_file_and_comes_back_is_a_member_like_any_other() {
    let mut deployment = sharing(2);
    let [ann, bob] = deployment.some();
    let file = random_file(bob.path("other"), 4 * P, 2);
    bob.upload(&file, GROUP);
    bob.expect_ok("stop_share lab other");
    bob.expect_ok("leave_group lab");
    bob.expect_ok("join_group lab");
    ann.expect_ok("accept_request lab bob");
    bob.upload(&file, GROUP);
    bob.download(GROUP, "file");
    let mut zed = WireLeecher::join(&mut deployment, "zed", "other");
    zed.fetch_block(0).unwrap();
    deployment.clients[0].expect_ok("remove_member lab zed");
    zed.wait_closed(PROMPT);
    deployment.clients[1].wait_logged(0, REVOKED);
    deployment.clients[0].download(GROUP, "other");
}

/// A client that stood still while somebody was removed drops that one when it goes on.
#[test]
fn a_suspended_client_catches_up() {
    let mut deployment = Deployment::of(programs!(), 2);
    let bob = &mut deployment.clients[1];
    let file = random_file(bob.path("file"), 4 * P, 1);
    bob.upload(&file, GROUP);
    let mut zed = WireLeecher::join(&mut deployment, "zed", "file");
    zed.fetch_block(0).unwrap();
    deployment.clients[1].running().suspend();
    deployment.clients[0].expect_ok("remove_member lab zed");
    deployment.clients[1].running().resume();
    zed.wait_closed(PROMPT);
    assert!(zed.knock().is_err());
    deployment.clients[1].wait_logged(0, REVOKED);
    assert!(deployment.clients[1].running_mut().is_alive());
}

/// A client that was down while somebody was removed never lets that one in again: not before it is signed in, not
/// while it catches up, and not afterwards.
#[test]
fn a_client_that_was_down_refuses_who_was_removed_meanwhile() {
    let mut deployment = Deployment::of(programs!(), 2);
    let bob = &mut deployment.clients[1];
    let file = random_file(bob.path("file"), 4 * P, 1);
    bob.upload(&file, GROUP);
    let zed = WireLeecher::join(&mut deployment, "zed", "file");
    let mut good = WireLeecher::join(&mut deployment, "good", "file");
    deployment.clients[1].kill();
    deployment.clients[0].expect_ok("remove_member lab zed");
    let bob = &mut deployment.clients[1];
    bob.start_again();
    let (address, from) = (bob.address(), bob.log().len());
    assert!(zed.knock_at(address).is_err(), "nobody is signed in");
    bob.send(&format!("login bob {}", password_of("bob")));
    eventually("the client has caught up", || {
        assert!(zed.knock_at(address).is_err(), "a removed member is let in");
        bob.log().get(from..).unwrap_or_default().contains(REVOKED).then_some(())
    });
    assert_eq!(bob.answer()["ok"], true);
    good.move_to(address);
    good.come_again();
    good.fetch_block(0).unwrap();
}

/// A removal that a client could not hear of, for its tracker had died and come back, is made up for.
#[test]
fn removals_missed_in_an_outage_are_made_up_for() {
    let mut deployment = Deployment::of(programs!(), 2);
    let bob = &mut deployment.clients[1];
    let file = random_file(bob.path("file"), 4 * P, 1);
    bob.upload(&file, GROUP);
    let mut zed = WireLeecher::join(&mut deployment, "zed", "file");
    deployment.clients[1].running().suspend();
    deployment.tracker.kill();
    deployment.tracker.start_again();
    eventually("ann is back", || (deployment.clients[0].run("remove_member lab zed")["ok"] == true).then_some(()));
    deployment.clients[1].running().resume();
    assert!(zed.is_closed(), "the live connection goes on");
    assert!(zed.knock().is_err());
    deployment.clients[1].wait_logged(0, REVOKED);
}

/// With the tracker dead, who has a ticket opens connections still, and a running download completes (A7).
#[test]
fn tickets_outlive_their_tracker() {
    let mut deployment = sharing(2);
    let mut zed = WireLeecher::join(&mut deployment, "zed", "file");
    let content = Content::new("held", random_bytes(usize::try_from(16 * P).unwrap(), 5));
    let held = deployment.add_wire_seeder("held", &content, Conduct::HELD);
    deployment.clients[1].begin_download(GROUP, "held");
    held.wait_requested();
    deployment.tracker.kill();
    deployment.clients[0].wait_event_kind("tracker_lost");
    deployment.clients[1].wait_event_kind("tracker_lost");
    zed.come_again();
    zed.fetch_block(3).unwrap();
    held.allow(None);
    deployment.clients[1].wait_completed(GROUP, "held");
    assert!(std::fs::read(deployment.clients[1].path("held")).unwrap() == *content.bytes);
}

/// A removal that was acknowledged survives kill -9 of the tracker: the old ticket stays closed.
#[test]
fn removals_survive_the_trackers_death() {
    let mut deployment = sharing(1);
    let zed = WireLeecher::join(&mut deployment, "zed", "file");
    deployment.clients[0].expect_ok("remove_member lab zed");
    deployment.tracker.kill();
    deployment.tracker.start_again();
    let ann = &mut deployment.clients[0];
    ann.kill();
    ann.start_again();
    ann.sign_in();
    let (address, from) = (ann.address(), ann.log().len());
    eventually("the file is shared again", || {
        assert!(zed.knock_at(address).is_err(), "a removed member is let in");
        ann.log().get(from..).unwrap_or_default().contains(REVOKED).then_some(())
    });
}
