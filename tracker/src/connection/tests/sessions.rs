//! Accounts and sessions from outside.

use super::client::*;
use crate::clock::Clock;
use crate::limits;
use crate::start::Config;
use mini_torrent_common::control::*;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::secret::Password;

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
        Request::CreateGroup { group: group() },
        Request::JoinGroup { group: group() },
        Request::LeaveGroup { group: group() },
        Request::ListRequests { group: group(), after: None },
        Request::AcceptRequest { group: group(), user: "bob".parse().unwrap() },
        Request::RejectRequest { group: group(), user: "bob".parse().unwrap() },
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
    ] {
        assert_eq!(client.call(request.clone()).await, refused(ErrorCode::NotLoggedIn), "{request:?}");
    }
    client.done(Request::Ping).await;
    client.done(create_user("bob")).await;
    assert_eq!(client.call(create_user("BOB")).await, refused(ErrorCode::UserExists));
    let weak = Request::CreateUser { user: "eve".parse().unwrap(), password: Password::new("1234567".into()) };
    assert_eq!(client.call(weak).await, refused(ErrorCode::WeakPassword));
    let wrong = |user: &str| Request::Login { user: user.parse().unwrap(), password: password("nobody") };
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
    let login = || Request::Login { user: "bob".parse().unwrap(), password: password("bob") };
    let refusal = second.ask(login()).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::AlreadyLoggedIn);
    assert!(refusal.message.contains("127.0.0.1:4000") && refusal.message.contains("0 s"), "{}", refusal.message);

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
    let resume = |token: &mini_torrent_common::secret::SessionToken| Request::Resume { token: token.clone() };
    let mut thief = TestClient::connect(tracker.address, 2).await;
    assert_eq!(thief.call(resume(&token)).await, refused(ErrorCode::SessionEnded));
    tracker.stop().await;

    let tracker = TestTracker::start(directory.path()).await;
    let mut thief = TestClient::connect(tracker.address, 2).await;
    assert_eq!(thief.call(resume(&token)).await, refused(ErrorCode::SessionEnded));
    let mut client = TestClient::connect(tracker.address, 1).await;
    let resumed = client.call(resume(&token)).await.unwrap();
    assert_eq!(resumed, Response::SignedIn(SignedIn { user: "bob".parse().unwrap(), token: token.clone() }));
    client.done(Request::Logout).await;
    assert_eq!(client.call(resume(&token)).await, refused(ErrorCode::SessionEnded));
    tracker.stop().await;
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
    let clients: Vec<_> = (0..60_u8)
        .map(|n| tokio::spawn(async move { TestClient::signed_in(address, n + 2, &format!("user{n}")).await }))
        .collect();
    let mut other = TestClient::connect(address, 1).await;
    let start = std::time::Instant::now();
    other.done(Request::Ping).await;
    assert!(start.elapsed() < std::time::Duration::from_secs(1));
    for client in clients {
        client.await.unwrap();
    }
    tracker.stop().await;
}

#[tokio::test]
async fn guessing_is_slowed_down_and_the_wait_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let mut client = TestClient::connect(tracker.address, 1).await;
    client.done(create_user("bob")).await;
    let wrong = || Request::Login { user: "bob".parse().unwrap(), password: password("nobody") };
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
