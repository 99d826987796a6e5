//! What owners and admins do, and what members cannot.

use super::client::*;
use mini_torrent_common::control::*;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::names::UserName;

fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

fn remove(name: &str) -> Request {
    Request::RemoveMember { group: "lab".parse().unwrap(), user: user(name) }
}

fn set_role(name: &str, role: Role) -> Request {
    Request::SetRole { group: "lab".parse().unwrap(), user: user(name), role }
}

fn transfer(name: &str) -> Request {
    Request::TransferOwner { group: "lab".parse().unwrap(), user: user(name) }
}

fn remove_file(group: &str, file: &str) -> Request {
    Request::RemoveFile { group: group.parse().unwrap(), file: file.parse().unwrap() }
}

#[tokio::test]
async fn a_plain_member_and_a_stranger_govern_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let members = ["olga", "bob", "cleo"];
    let [ref mut olga, ref mut bob, _] = lab(&tracker, &members).await[..] else { panic!() };
    let (mut eve, _) = TestClient::signed_in(tracker.address, 9, "eve").await;
    olga.list("lab", "a.bin", 5).await.unwrap();
    for request in [remove("cleo"), set_role("bob", Role::Admin), transfer("bob"), remove_file("lab", "a.bin")] {
        assert_eq!(bob.call(request.clone()).await, refused(ErrorCode::NotTheOwner), "{request:?}");
        assert_eq!(eve.call(request.clone()).await, refused(ErrorCode::NotAMember), "{request:?}");
    }
    let unknown = remove_file("nix", "a.bin");
    assert_eq!(bob.call(unknown).await, refused(ErrorCode::NoSuchGroup));
    assert_eq!(bob.call(remove("bob")).await, refused(ErrorCode::Usage), "leave_group does it");
    tracker.stop().await;
}

#[tokio::test]
async fn an_owner_makes_admins_who_remove_members_and_gives_the_group_away() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let members = ["olga", "bob", "cleo", "dan"];
    let [ref mut olga, ref mut bob, ref mut cleo, _] = lab(&tracker, &members).await[..] else { panic!() };
    olga.done(set_role("bob", Role::Admin)).await;
    olga.done(set_role("cleo", Role::Admin)).await;
    assert_eq!(olga.call(set_role("bob", Role::Owner)).await, refused(ErrorCode::Usage));
    assert_eq!(olga.call(set_role("olga", Role::Member)).await, refused(ErrorCode::Usage));
    assert_eq!(olga.call(set_role("nix", Role::Admin)).await, refused(ErrorCode::NoSuchUser));
    bob.done(remove("dan")).await;
    let refusal = bob.ask(remove("dan")).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::NotAMember);
    assert!(refusal.message.contains("the user"), "{}", refusal.message);
    assert_eq!(bob.call(remove("cleo")).await, refused(ErrorCode::NotTheOwner));
    assert_eq!(bob.call(remove("olga")).await, refused(ErrorCode::NotTheOwner));
    assert_eq!(olga.call(transfer("dan")).await, refused(ErrorCode::NotAMember));
    olga.done(transfer("bob")).await;
    let groups = Request::ListGroups { after: None };
    let Ok(Response::Groups(rows)) = olga.call(groups).await else { panic!() };
    assert_eq!((rows[0].owner.clone(), rows[0].role), (Some(user("bob")), Some(Role::Admin)));
    bob.done(remove("olga")).await;
    bob.done(set_role("cleo", Role::Member)).await;
    assert_eq!(cleo.call(transfer("cleo")).await, refused(ErrorCode::NotTheOwner));
    tracker.stop().await;
}

/// E11 for somebody who did not go by itself.
#[tokio::test]
async fn a_removed_member_loses_shares_presence_and_access() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let [ref mut olga, ref mut bob] = lab(&tracker, &["olga", "bob"]).await[..] else { panic!() };
    let (alone, shared) = (bob.list("lab", "alone", 5).await.unwrap(), bob.list("lab", "shared", 5).await.unwrap());
    olga.done(Request::Share { listing: shared }).await;
    let seeding = |listing| Announcement { listing, presence: Presence::Seeding };
    let announcements = vec![seeding(alone), seeding(shared)];
    assert_eq!(bob.call(Request::Announce { announcements }).await, Ok(Response::Announced(vec![])));
    for listing in [alone, shared] {
        assert!(olga.call(Request::Watch { listing }).await.is_ok());
    }
    olga.done(remove("bob")).await;
    olga.event_that(|event| *event == Event::ListingEnded { listing: alone }).await;
    match olga.peers_event().await {
        Event::Peers { listing, left, .. } => assert_eq!((listing, left.len()), (shared, 1)),
        other => panic!("{other:?}"),
    }
    let again = Request::Announce { announcements: vec![seeding(shared)] };
    let refusal = RefusedAnnouncement { listing: shared, code: ErrorCode::NotAMember };
    assert_eq!(bob.call(again).await, Ok(Response::Announced(vec![refusal])));
    assert_eq!(bob.call(Request::ReadInfo { listing: shared, offset: 0 }).await, refused(ErrorCode::NotAMember));
    tracker.stop().await;
}

#[tokio::test]
async fn a_file_is_removed_by_its_uploader_until_others_share_it_and_by_who_governs() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let [ref mut olga, ref mut bob] = lab(&tracker, &["olga", "bob"]).await[..] else { panic!() };
    bob.list("lab", "own", 5).await.unwrap();
    let shared = bob.list("lab", "shared", 5).await.unwrap();
    olga.done(Request::Share { listing: shared }).await;
    bob.done(remove_file("lab", "OWN")).await;
    assert_eq!(bob.call(remove_file("lab", "own")).await, refused(ErrorCode::NoSuchFile));
    assert_eq!(bob.call(remove_file("lab", "shared")).await, refused(ErrorCode::NotTheOwner));
    assert!(bob.call(Request::Watch { listing: shared }).await.is_ok());
    olga.done(remove_file("lab", "shared")).await;
    bob.event_that(|event| *event == Event::ListingEnded { listing: shared }).await;

    bob.list("public", "everybodys", 5).await.unwrap();
    assert_eq!(olga.call(remove_file("public", "everybodys")).await, refused(ErrorCode::NotTheOwner));
    bob.done(remove_file("public", "everybodys")).await;
    let governed = Request::SetRole { group: "public".parse().unwrap(), user: user("bob"), role: Role::Admin };
    assert_eq!(olga.call(governed).await, refused(ErrorCode::NotTheOwner));
    tracker.stop().await;
}
