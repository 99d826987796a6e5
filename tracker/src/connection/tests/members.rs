//! Groups from outside: acceptance E6 to E11.

use super::client::*;
use mini_torrent_common::control::*;
use mini_torrent_common::error_code::ErrorCode;

fn create(group: &str) -> Request {
    Request::CreateGroup { group: group.parse().unwrap() }
}

fn join(group: &str) -> Request {
    Request::JoinGroup { group: group.parse().unwrap() }
}

fn leave(group: &str) -> Request {
    Request::LeaveGroup { group: group.parse().unwrap() }
}

fn accept(group: &str, user: &str) -> Request {
    Request::AcceptRequest { group: group.parse().unwrap(), user: user.parse().unwrap() }
}

#[tokio::test]
async fn e8_e9_e10_a_request_is_seen_by_the_owner_and_decided_by_the_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (mut owner, _) = TestClient::signed_in(tracker.address, 1, "olga").await;
    let (mut bob, _) = TestClient::signed_in(tracker.address, 2, "bob").await;
    let (mut eve, _) = TestClient::signed_in(tracker.address, 3, "eve").await;
    owner.done(create("Lab")).await;
    assert_eq!(bob.call(create("lab")).await, refused(ErrorCode::GroupExists));
    bob.done(join("lab")).await;
    assert_eq!(bob.call(join("lab")).await, refused(ErrorCode::AlreadyRequested));
    let event = Event::JoinRequested { group: "Lab".parse().unwrap(), user: "bob".parse().unwrap() };
    assert_eq!(owner.event().await, event);
    let requests = |group: &str| Request::ListRequests { group: group.parse().unwrap(), after: None };
    match owner.call(requests("lab")).await.unwrap() {
        Response::JoinRequests { requests, next: None } => assert_eq!(requests[0].user.as_str(), "bob"),
        other => panic!("{other:?}"),
    }
    // A pending requester is no member, and cannot accept itself.
    assert_eq!(bob.call(requests("lab")).await, refused(ErrorCode::NotAMember));
    assert_eq!(bob.call(accept("lab", "bob")).await, refused(ErrorCode::NotAMember));
    assert_eq!(owner.call(accept("lab", "eve")).await, refused(ErrorCode::NoSuchRequest));
    assert_eq!(owner.call(accept("nix", "bob")).await, refused(ErrorCode::NoSuchGroup));
    owner.done(accept("lab", "BOB")).await;
    assert_eq!(bob.event().await, Event::RequestAccepted { group: "Lab".parse().unwrap() });
    assert_eq!(bob.call(join("lab")).await, refused(ErrorCode::AlreadyMember));
    eve.done(join("lab")).await;
    assert_eq!(bob.call(accept("lab", "eve")).await, refused(ErrorCode::NotTheOwner));
    assert_eq!(eve.call(leave("lab")).await, Ok(Response::Left(Left::RequestWithdrawn)));
    assert_eq!(owner.call(leave("lab")).await, Ok(Response::Left(Left::OwnerIsNow("bob".parse().unwrap()))));
    assert_eq!(owner.call(leave("lab")).await, refused(ErrorCode::NotAMember));
    assert_eq!(bob.call(leave("lab")).await, Ok(Response::Left(Left::GroupRemoved)));
    assert_eq!(bob.call(leave("lab")).await, refused(ErrorCode::NoSuchGroup));
    tracker.stop().await;
}

#[tokio::test]
async fn the_built_in_group_is_everybodys_and_nobodys() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (mut bob, _) = TestClient::signed_in(tracker.address, 1, "bob").await;
    assert_eq!(bob.call(create("Public")).await, refused(ErrorCode::InvalidName));
    assert_eq!(bob.call(join("public")).await, refused(ErrorCode::AlreadyMember));
    assert_eq!(bob.call(leave("public")).await, refused(ErrorCode::InvalidName));
    assert_eq!(bob.call(accept("public", "bob")).await, refused(ErrorCode::NotTheOwner));
    let public = GroupRow { name: "public".parse().unwrap(), owner: None, n_members: 1, role: Some(Role::Member) };
    assert_eq!(bob.call(Request::ListGroups { after: None }).await, Ok(Response::Groups(vec![public])));
    let listing = bob.list("public", "a.bin", 5).await.unwrap();
    let (mut eve, _) = TestClient::signed_in(tracker.address, 2, "eve").await;
    assert!(eve.call(Request::Watch { listing }).await.is_ok());
    tracker.stop().await;
}

/// E7: every page of everybody's groups.
#[tokio::test]
async fn e7_groups_are_listed_sorted_with_the_callers_role() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (mut bob, _) = TestClient::signed_in(tracker.address, 1, "bob").await;
    let (mut eve, _) = TestClient::signed_in(tracker.address, 2, "eve").await;
    for group in ["zoo", "art", "lab"] {
        bob.done(create(group)).await;
    }
    eve.done(join("lab")).await;
    let Ok(Response::Groups(rows)) = eve.call(Request::ListGroups { after: None }).await else { panic!() };
    let shown: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.role)).collect();
    let expected = [("art", None), ("lab", Some(Role::Pending)), ("public", Some(Role::Member)), ("zoo", None)];
    assert_eq!(shown, expected);
    let after = Some("lab".parse().unwrap());
    let Ok(Response::Groups(rows)) = eve.call(Request::ListGroups { after }).await else { panic!() };
    assert_eq!(rows.len(), 2);
    tracker.stop().await;
}

/// E11: who leaves is out of the swarms at once, and a file without sharers is gone.
#[tokio::test]
async fn e11_who_leaves_loses_access_shares_and_presence() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (mut owner, _) = TestClient::signed_in(tracker.address, 1, "olga").await;
    let (mut bob, _) = TestClient::signed_in(tracker.address, 2, "bob").await;
    owner.done(create("lab")).await;
    bob.done(join("lab")).await;
    owner.done(accept("lab", "bob")).await;
    let listing = bob.list("lab", "a.bin", 5).await.unwrap();
    let announcements = vec![Announcement { listing, presence: Presence::Seeding }];
    assert_eq!(bob.call(Request::Announce { announcements }).await, Ok(Response::Announced(vec![])));
    let Ok(Response::Peers(peers)) = owner.call(Request::Watch { listing }).await else { panic!() };
    assert_eq!(peers[0].user.as_str(), "bob");
    assert_eq!(bob.call(leave("lab")).await, Ok(Response::Left(Left::Member)));
    owner.event_that(|event| *event == Event::ListingEnded { listing }).await;
    assert_eq!(bob.call(Request::Watch { listing }).await, refused(ErrorCode::NoSuchFile));
    let files = Request::ListFiles { group: "lab".parse().unwrap(), after: None };
    assert_eq!(bob.call(files.clone()).await, refused(ErrorCode::NotAMember));
    assert_eq!(owner.call(files).await, Ok(Response::Files(vec![])));
    tracker.stop().await;
}
