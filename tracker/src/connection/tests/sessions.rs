//! Accounts and sessions from outside.

use super::client::*;
use crate::clock::Clock;
use crate::limits;
use crate::start::Config;
use mini_torrent_common::control::*;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::secret::Password;

fn wrong_login(user: &str) -> Request {
    Request::Login { user: user.parse().unwrap(), password: password("nobody"), takeover: false }
}

/// E4, E5: accounts are made once, passwords count, everything else needs a session.
#[tokio::test]
async fn e5_everything_but_accounts_needs_a_session() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let mut client = TestClient::connect(tracker.address, 1).await;
    assert_eq!(client.welcome.address, "127.0.0.1:4000".parse().unwrap());
    let group = || "g".parse().unwrap();
    let listing = ListingId(1);
    let (_, draft) = made_up(None, "a", 1);
    for request in [
        Request::Logout,
        Request::LogoutEverywhere,
        Request::ListSessions,
        Request::CreateGroup { group: group() },
        Request::JoinGroup { group: group() },
        Request::LeaveGroup { group: group() },
        Request::ListRequests { group: group(), after: None },
        Request::AcceptRequest { group: group(), user: "bob".parse().unwrap() },
        Request::RejectRequest { group: group(), user: "bob".parse().unwrap() },
        Request::RemoveMember { group: group(), user: "bob".parse().unwrap() },
        Request::SetRole { group: group(), user: "bob".parse().unwrap(), role: Role::Admin },
        Request::TransferOwner { group: group(), user: "bob".parse().unwrap() },
        Request::RemoveFile { group: group(), file: "a".parse().unwrap() },
        Request::EnterGroup { group: GroupId([1; 16]), after: 0 },
        Request::ListGroups { after: None },
        Request::DescribeGroup { group: group() },
        Request::ListFiles { group: group(), after: None },
        Request::FindFile { group: group(), file: "a".parse().unwrap() },
        Request::ReadInfo { listing, offset: 0 },
        Request::OfferListing { group: group(), draft },
        Request::PutInfo { upload: UploadId(1), offset: 0, bytes: vec![1] },
        Request::CommitListing { upload: UploadId(1) },
        Request::Share { listing },
        Request::StopShare { listing },
        Request::Announce { announcements: vec![] },
        Request::Watch { listing },
        Request::Unwatch { listing },
        Request::OpenFile { group: group(), file: "a".parse().unwrap() },
        Request::Leech { listing },
        Request::Seed { listing },
    ] {
        assert_eq!(client.call(request.clone()).await, refused(ErrorCode::NotLoggedIn), "{request:?}");
    }
    client.done(Request::Ping).await;
    client.done(create_user("bob")).await;
    assert_eq!(client.call(create_user("BOB")).await, refused(ErrorCode::UserExists));
    let weak = Request::CreateUser { user: "eve".parse().unwrap(), password: Password::new("1234567".into()) };
    assert_eq!(client.call(weak).await, refused(ErrorCode::WeakPassword));
    let wrong = wrong_login;
    let (known, unknown) = (client.ask(wrong("bob")).await.unwrap_err(), client.ask(wrong("nix")).await.unwrap_err());
    assert_eq!((known.code, known.message), (ErrorCode::WrongCredentials, unknown.message), "one text for both");
    assert!(client.login("Bob").await.is_err(), "another password");
    assert!(client.login("bob").await.is_ok());
    assert_eq!(client.login("bob").await.unwrap_err(), ErrorCode::AlreadyLoggedIn);
    client.done(Request::Logout).await;
    assert_eq!(client.call(Request::ListGroups { after: None }).await, refused(ErrorCode::NotLoggedIn));
    tracker.stop().await;
}

#[tokio::test]
async fn a_second_place_is_refused_and_the_same_client_takes_over() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (mut first, _) = TestClient::signed_in(tracker.address, 1, "bob").await;
    let mut second = TestClient::connect(tracker.address, 2).await;
    let refusal = second.ask(login("bob")).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::AlreadyLoggedIn);
    assert!(refusal.message.contains("from 127.0.0.1:4000, for 0 s; "), "{}", refusal.message);
    assert!(refusal.message.contains("login with --takeover"), "{}", refusal.message);

    let mut same = TestClient::connect(tracker.address, 1).await;
    assert!(same.login("bob").await.is_ok(), "the same client's key");
    assert!(matches!(first.event().await, Event::SessionEnded { .. }));
    assert_eq!(first.call(Request::ListGroups { after: None }).await, refused(ErrorCode::NotLoggedIn));

    drop(same);
    // The tracker has noticed when the session bars no more, which the clock decides alone.
    assert_eq!(second.login("bob").await.unwrap_err(), ErrorCode::AlreadyLoggedIn);
    while second.login("bob").await.is_err() {
        second.done(Request::Ping).await;
        tracker.clock.advance(limits::LOST_SESSION_GRACE / 4);
    }
    tracker.stop().await;
}

#[tokio::test]
async fn a_token_resumes_for_its_own_key_alone_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (client, token) = TestClient::signed_in(tracker.address, 1, "bob").await;
    drop(client);
    let mut thief = TestClient::connect(tracker.address, 2).await;
    assert_eq!(thief.resume(&token).await.unwrap_err(), ErrorCode::SessionEnded);
    tracker.stop().await;

    let tracker = TestTracker::start(directory.path()).await;
    let mut thief = TestClient::connect(tracker.address, 2).await;
    assert_eq!(thief.resume(&token).await.unwrap_err(), ErrorCode::SessionEnded);
    let mut client = TestClient::connect(tracker.address, 1).await;
    let successor = client.resume(&token).await.unwrap();
    assert_ne!(successor, token);
    client.done(Request::Logout).await;
    for old in [token, successor] {
        assert_eq!(client.resume(&old).await.unwrap_err(), ErrorCode::SessionEnded);
    }
    tracker.stop().await;
}

/// The answer of a resumption may be lost; a token that was used up is a thief's.
#[tokio::test]
async fn a_lost_answer_is_no_theft_and_a_used_up_token_ends_the_session() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (_, first) = TestClient::signed_in(tracker.address, 1, "bob").await;
    let mut tokens = vec![first];
    for shown in [0, 0, 2] {
        let mut client = TestClient::connect(tracker.address, 1).await;
        tokens.push(client.resume(&tokens[shown]).await.unwrap());
    }
    // The first was shown twice, so its second successor is the one that counts; the fourth follows that.
    let mut live = TestClient::connect(tracker.address, 1).await;
    let last = live.resume(&tokens[3]).await.unwrap();
    let mut other = TestClient::connect(tracker.address, 1).await;
    assert_eq!(other.resume(&tokens[0]).await.unwrap_err(), ErrorCode::SessionEnded);
    assert!(matches!(live.event().await, Event::SessionEnded { .. }));
    assert_eq!(live.call(Request::ListSessions).await, refused(ErrorCode::NotLoggedIn));
    assert_eq!(other.resume(&last).await.unwrap_err(), ErrorCode::SessionEnded, "the whole family");
    assert!(other.login("bob").await.is_ok());
    tracker.stop().await;
}

#[tokio::test]
async fn a_takeover_ends_the_other_clients_session_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (mut first, token) = TestClient::signed_in(tracker.address, 1, "bob").await;
    let mut second = TestClient::connect(tracker.address, 2).await;
    let mut takeover = login("bob");
    if let Request::Login { takeover, .. } = &mut takeover {
        *takeover = true;
    }
    assert!(matches!(second.call(takeover).await, Ok(Response::SignedIn(_))));
    let reason = "taken over from 127.0.0.1:4000".into();
    assert_eq!(first.event().await, Event::SessionEnded { reason });
    assert_eq!(first.call(Request::ListSessions).await, refused(ErrorCode::NotLoggedIn));
    assert_eq!(first.resume(&token).await.unwrap_err(), ErrorCode::SessionEnded);
    tracker.stop().await;
}

#[tokio::test]
async fn own_sessions_are_listed_and_all_are_ended_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (mut client, token) = TestClient::signed_in(tracker.address, 1, "bob").await;
    let _eve = TestClient::signed_in(tracker.address, 2, "eve").await;
    let (address, agent, since_ms) = ("127.0.0.1:4000".into(), "test/1".into(), tracker.clock.wall_ms());
    let row = SessionRow { address, agent, since_ms, current: true };
    assert_eq!(client.call(Request::ListSessions).await, Ok(Response::Sessions(vec![row])));
    client.done(Request::LogoutEverywhere).await;
    assert_eq!(client.call(Request::ListSessions).await, refused(ErrorCode::NotLoggedIn));
    assert_eq!(client.resume(&token).await.unwrap_err(), ErrorCode::SessionEnded);
    assert!(client.login("bob").await.is_ok());
    tracker.stop().await;
}

#[tokio::test]
async fn a_locked_account_is_signed_out_and_its_owner_told_by_the_right_password_alone() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (mut client, token) = TestClient::signed_in(tracker.address, 1, "bob").await;
    let listing = client.list("public", "a.bin", 5).await.unwrap();
    tracker.service.lock_user("bob".parse().unwrap()).await.unwrap();
    match client.event().await {
        Event::SessionEnded { reason } => assert!(reason.contains("operator"), "{reason}"),
        other => panic!("{other:?}"),
    }
    for request in [
        Request::ListSessions,
        Request::ListFiles { group: "public".parse().unwrap(), after: None },
        Request::ReadInfo { listing, offset: 0 },
        Request::Watch { listing },
        Request::Announce { announcements: vec![Announcement { listing, presence: Presence::Leeching }] },
    ] {
        assert_eq!(client.call(request.clone()).await, refused(ErrorCode::NotLoggedIn), "{request:?}");
    }
    assert_eq!(client.resume(&token).await.unwrap_err(), ErrorCode::SessionEnded);
    let (locked, wrong) =
        (client.ask(login("bob")).await.unwrap_err(), client.ask(wrong_login("bob")).await.unwrap_err());
    let unknown = client.ask(wrong_login("nix")).await.unwrap_err();
    assert_eq!((locked.code, wrong.code), (ErrorCode::WrongCredentials, ErrorCode::WrongCredentials));
    assert!(locked.message.contains("locked") && locked.message.contains("operator"), "{}", locked.message);
    assert_eq!(wrong, unknown);
    tracker.service.unlock_user("bob".parse().unwrap()).await.unwrap();
    assert!(client.login("bob").await.is_ok());
    tracker.stop().await;
}

/// A second tracker on the same store has ended the session; the first one notices at the next write.
#[tokio::test]
async fn a_session_that_another_tracker_ended_writes_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (TestTracker::start(directory.path()).await, TestTracker::start_second(directory.path()).await);
    let (mut client, _) = TestClient::signed_in(one.address, 1, "bob").await;
    other.service.lock_user("bob".parse().unwrap()).await.unwrap();
    let create = || Request::CreateGroup { group: "lab".parse().unwrap() };
    assert_eq!(client.call(create()).await, refused(ErrorCode::SessionEnded));
    assert!(matches!(client.event().await, Event::SessionEnded { .. }));
    assert_eq!(client.call(create()).await, refused(ErrorCode::NotLoggedIn));
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn closed_registration_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { registration_open: false, ..Config::new(directory.path()) };
    let tracker = TestTracker::start_with(config).await;
    let mut client = TestClient::connect(tracker.address, 1).await;
    assert_eq!(client.call(create_user("bob")).await, refused(ErrorCode::RegistrationClosed));
    tracker.stop().await;
}

/// A flood of passwords costs its sender time; others are answered meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_logins_at_once_all_succeed_and_block_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start_with(Config { clock: Clock::system(), ..Config::new(directory.path()) }).await;
    let address = tracker.address;
    let mut other = TestClient::connect(address, 1).await;
    let clients: Vec<_> = (0..60_u8)
        .map(|n| tokio::spawn(async move { TestClient::signed_in(address, n + 2, &format!("user{n}")).await }))
        .collect();
    other.done(Request::Ping).await;
    assert!(clients.iter().any(|client| !client.is_finished()), "it was answered in the middle of the flood");
    for client in clients {
        client.await.unwrap();
    }
    tracker.stop().await;
}

/// 200 passwords at once from one place; who is signed in is answered meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_logins_does_not_starve_announces() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start_with(Config { clock: Clock::system(), ..Config::new(directory.path()) }).await;
    let (mut member, _) = TestClient::signed_in(tracker.address, 1, "bob").await;
    let listing = member.list("public", "a.bin", 5).await.unwrap();
    let mut flood = Vec::new();
    for _ in 0..200 {
        let mut client = TestClient::connect(tracker.address, 2).await;
        client.send(wrong_login(&format!("user{}", flood.len()))).await;
        flood.push(client);
    }
    let announcements = vec![Announcement { listing, presence: Presence::Seeding }];
    assert_eq!(member.call(Request::Announce { announcements }).await, Ok(Response::Announced(vec![])));
    member.done(Request::Ping).await;
    // The flood moves on, too.
    let answer = patiently(futures_util::StreamExt::next(&mut flood[0].wire)).await;
    assert!(matches!(answer, Some(Ok(TrackerMessage::Response { result: Err(_), .. }))), "{answer:?}");
    tracker.stop().await;
}

#[tokio::test]
async fn guessing_is_slowed_down_and_the_wait_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let mut client = TestClient::connect(tracker.address, 1).await;
    client.done(create_user("bob")).await;
    let wrong = || wrong_login("bob");
    for _ in 0..limits::FREE_FAILURES {
        assert_eq!(client.call(wrong()).await, refused(ErrorCode::WrongCredentials));
    }
    let refusal = client.ask(wrong()).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::RateLimited);
    assert!(refusal.message.contains("1 s"), "{}", refusal.message);
    tracker.clock.advance(std::time::Duration::from_secs(1));
    assert!(client.login("bob").await.is_ok());
    tracker.stop().await;
}
