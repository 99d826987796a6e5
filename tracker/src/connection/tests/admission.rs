//! Tickets, and the word that they are good no longer.

use super::client::*;
use mini_torrent_common::control::*;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::revocation::{Revocation, Revocations};
use mini_torrent_common::ticket::{TICKET_LIFE_MS, Ticket, TicketError};
use mini_torrent_common::tls::{Identity, PublicKey};
use std::path::Path;

/// What the client whose key is made of this byte proves with a ticket.
fn open(directory: &Path, admission: &Admission, holder: u8, now_ms: u64) -> Result<Ticket, TicketError> {
    let seed = std::fs::read(directory.join("identity.key")).unwrap();
    let deployment = Identity::from_seed(&seed.try_into().unwrap()).unwrap().public();
    admission.ticket.open(deployment, key(holder), now_ms)
}

fn key(byte: u8) -> PublicKey {
    Identity::from_seed(&[byte; 32]).unwrap().public()
}

fn remove(user: &str) -> Request {
    Request::RemoveMember { group: "lab".parse().unwrap(), user: user.parse().unwrap() }
}

fn leave() -> Request {
    Request::LeaveGroup { group: "lab".parse().unwrap() }
}

#[tokio::test]
async fn a_members_ticket_is_bound_to_its_key_and_others_get_none() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let [_, ref mut bob] = lab(&tracker, &["olga", "bob"]).await[..] else { panic!() };
    let group = bob.group_id("lab").await.unwrap();
    let admission = bob.enter(group, 0).await.unwrap();
    let now_ms = tracker.clock.wall_ms();
    let ticket = open(directory.path(), &admission, 2, now_ms).unwrap();
    assert_eq!((ticket.group, ticket.user.as_str(), ticket.holder), (group, "bob", key(2)));
    assert_eq!((ticket.issued_ms, ticket.expires_ms), (now_ms, now_ms + TICKET_LIFE_MS));
    assert_eq!(open(directory.path(), &admission, 1, now_ms), Err(TicketError::OtherHolder));
    assert_eq!(admission.revocations, []);
    let (mut eve, _) = TestClient::signed_in(tracker.address, 3, "eve").await;
    assert_eq!(eve.enter(group, 0).await, refused(ErrorCode::NotAMember));
    eve.done(Request::JoinGroup { group: "lab".parse().unwrap() }).await;
    assert_eq!(eve.enter(group, 0).await, refused(ErrorCode::NotAMember), "asking is not enough");
    assert_eq!(eve.enter(GroupId([9; 16]), 0).await, refused(ErrorCode::NoSuchGroup));
    tracker.stop().await;
}

#[tokio::test]
async fn everybody_enters_the_built_in_group() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (mut bob, _) = TestClient::signed_in(tracker.address, 1, "bob").await;
    let public = Request::DescribeGroup { group: "public".parse().unwrap() };
    let Ok(Response::Group(public)) = bob.call(public).await else { panic!() };
    let admission = bob.enter(public.id, 0).await.unwrap();
    assert_eq!(open(directory.path(), &admission, 1, tracker.clock.wall_ms()).unwrap().member_epoch, 0);
    tracker.stop().await;
}

#[tokio::test]
async fn peers_hear_of_a_removed_member_whose_ticket_is_covered_until_it_rejoins() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let [ref mut olga, ref mut bob, ref mut cleo] = lab(&tracker, &["olga", "bob", "cleo"]).await[..] else { panic!() };
    let group = olga.group_id("lab").await.unwrap();
    olga.enter(group, 0).await.unwrap();
    let ticket = |admission: &Admission| open(directory.path(), admission, 2, tracker.clock.wall_ms()).unwrap();
    let before = ticket(&bob.enter(group, 0).await.unwrap());
    olga.done(remove("bob")).await;
    let removed = Event::RemovedFromGroup { id: group, group: "lab".parse().unwrap() };
    bob.event_that(|event| *event == removed).await;
    assert_eq!(bob.enter(group, 0).await, refused(ErrorCode::NotAMember));
    let mut known = Revocations::default();
    olga.revoked(1).await.iter().for_each(|one| known.apply(one));
    assert!(known.cover(&before));
    join(bob, olga, "bob").await;
    assert!(!known.cover(&ticket(&bob.enter(group, 0).await.unwrap())));
    // Leaving is told, too.
    assert_eq!(cleo.call(leave()).await, Ok(Response::Left(Left::Member)));
    let (of_olga, of_bob) = (olga.revoked(1).await, bob.revoked(1).await);
    assert_eq!(of_olga, of_bob);
    tracker.stop().await;
}

#[tokio::test]
async fn who_was_away_gets_what_was_missed_and_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let members = ["olga", "bob", "cleo", "dan"];
    let [ref mut olga, ref mut bob, ref mut cleo, ref mut dan] = lab(&tracker, &members).await[..] else { panic!() };
    let group = olga.group_id("lab").await.unwrap();
    olga.done(remove("cleo")).await;
    let first = bob.enter(group, 0).await.unwrap().revocations;
    assert_eq!(first.len(), 1);
    let after = first[0].number;
    bob.done(Request::Logout).await;
    olga.done(remove("dan")).await;
    // Of all groups, and of another one.
    cleo.done(Request::LogoutEverywhere).await;
    dan.done(Request::CreateGroup { group: "art".parse().unwrap() }).await;
    assert!(dan.call(Request::LeaveGroup { group: "art".parse().unwrap() }).await.is_ok());
    bob.login("bob").await.unwrap();
    let missed = bob.enter(group, after).await.unwrap().revocations;
    let shown = |log: &[Revocation]| log.iter().map(|one| one.group).collect::<Vec<_>>();
    assert_eq!(shown(&missed), [Some(group), None]);
    assert!(missed[0].number > after && missed[1].number > missed[0].number);
    assert_eq!(bob.enter(group, missed[1].number).await.unwrap().revocations, []);
    assert_eq!(bob.enter(group, 0).await.unwrap().revocations.len(), 3);
    tracker.stop().await;
}

/// Everything that takes tickets back reaches whoever is inside any group.
#[tokio::test]
async fn another_client_a_lock_and_a_logout_everywhere_revoke_the_account() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let [ref mut olga, ref mut bob] = lab(&tracker, &["olga", "bob"]).await[..] else { panic!() };
    let group = olga.group_id("lab").await.unwrap();
    olga.enter(group, 0).await.unwrap();
    let ticket = async |bob: &mut TestClient, holder| {
        let admission = bob.enter(group, 0).await.unwrap();
        open(directory.path(), &admission, holder, tracker.clock.wall_ms()).unwrap()
    };
    let mut known = Revocations::default();
    let first = ticket(bob, 2).await;
    let mut elsewhere = TestClient::connect(tracker.address, 5).await;
    let takeover = Request::Login { user: "bob".parse().unwrap(), password: password("bob"), takeover: true };
    assert!(elsewhere.call(takeover).await.is_ok());
    let log = olga.revoked(1).await;
    assert_eq!((log[0].group, log[0].account), (None, first.account));
    known.apply(&log[0]);
    let second = ticket(&mut elsewhere, 5).await;
    assert!(known.cover(&first) && !known.cover(&second));
    elsewhere.done(Request::LogoutEverywhere).await;
    known.apply(&olga.revoked(1).await[0]);
    elsewhere.login("bob").await.unwrap();
    let third = ticket(&mut elsewhere, 5).await;
    assert!(known.cover(&second) && !known.cover(&third));
    tracker.service.lock_user("bob".parse().unwrap()).await.unwrap();
    known.apply(&olga.revoked(1).await[0]);
    assert!(known.cover(&third));
    tracker.stop().await;
}

/// A tracker on the same store tells its own clients of what the other one's removed.
#[tokio::test]
async fn a_removal_at_one_tracker_is_heard_at_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (TestTracker::start(directory.path()).await, TestTracker::start_second(directory.path()).await);
    let [ref mut olga, _] = lab(&one, &["olga", "bob"]).await[..] else { panic!() };
    let group = olga.group_id("lab").await.unwrap();
    let (mut cleo, _) = TestClient::signed_in(other.address, 3, "cleo").await;
    join(&mut cleo, olga, "cleo").await;
    cleo.enter(group, 0).await.unwrap();
    olga.done(remove("bob")).await;
    let heard = async {
        loop {
            other.clock.advance(crate::limits::REVOCATION_POLL);
            cleo.done(Request::Ping).await;
            if let Some(log) = cleo.revoked_already() {
                return log;
            }
        }
    };
    assert_eq!(patiently(heard).await[0].group, Some(group));
    one.stop().await;
    other.stop().await;
}
