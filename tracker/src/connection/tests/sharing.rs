//! Listings and swarms from outside.

use super::client::*;
use crate::limits;
use mini_torrent_common::control::*;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::tls::Identity;
use std::time::{Duration, Instant};

fn announce(listing: ListingId, presence: Presence) -> Request {
    Request::Announce { announcements: vec![Announcement { listing, presence }] }
}

fn find(file: &str) -> Request {
    Request::FindFile { group: "lab".parse().unwrap(), file: file.parse().unwrap() }
}

#[tokio::test]
async fn the_same_content_joins_and_another_content_conflicts() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let [ref mut olga, ref mut bob] = lab(&tracker, &["olga", "bob"]).await[..] else { panic!() };
    let listing = olga.list("lab", "Grüße.bin", 5).await.unwrap();
    let (_, draft) = made_up(olga.group_id("lab").await, "Grüße.bin", 5);
    let offer = |draft: ListingDraft| Request::OfferListing { group: "lab".parse().unwrap(), draft };
    let composed = ListingDraft { name: "GRU\u{308}SSE.bin".parse().unwrap(), ..draft.clone() };
    assert_eq!(bob.call(offer(composed)).await, Ok(Response::Offered(Offer::Joined(listing))));
    assert_eq!(bob.call(offer(draft.clone())).await, Ok(Response::Offered(Offer::AlreadySharing(listing))));
    let refusal = bob.ask(offer(ListingDraft { size: 6, ..draft })).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::NameConflict);
    assert!(refusal.message.contains("5 bytes") && refusal.message.contains("02020202"), "{}", refusal.message);
    olga.done(Request::StopShare { listing }).await;
    assert_eq!(olga.call(Request::StopShare { listing }).await, refused(ErrorCode::NotSharing));
    assert!(bob.call(find("Grüße.bin")).await.is_ok(), "another sharer is left");
    bob.done(Request::StopShare { listing }).await;
    assert_eq!(bob.call(find("Grüße.bin")).await, refused(ErrorCode::NoSuchFile));
    tracker.stop().await;
}

#[tokio::test]
async fn an_info_that_does_not_keep_its_promise_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let [ref mut olga] = lab(&tracker, &["olga"]).await[..] else { panic!() };
    let group = olga.group_id("lab").await;
    let begin = async |olga: &mut TestClient, draft: ListingDraft| {
        let offer = Request::OfferListing { group: "lab".parse().unwrap(), draft };
        match olga.call(offer).await {
            Ok(Response::Offered(Offer::SendInfo(upload))) => upload,
            other => panic!("{other:?}"),
        }
    };
    // Another group's id, no private flag, garbage, and bytes that are not those of the info-hash.
    let (good, draft) = made_up(group, "a", 5);
    let (foreign, foreign_draft) = made_up(Some(mini_torrent_common::hash::GroupId([3; 16])), "a", 5);
    let (open, open_draft) = made_up(None, "a", 5);
    let garbage = vec![b'x'; good.len()];
    for (raw, draft) in [(foreign, foreign_draft), (open, open_draft), (garbage, draft.clone())] {
        let upload = begin(olga, draft).await;
        olga.done(Request::PutInfo { upload, offset: 0, bytes: raw }).await;
        assert_eq!(olga.call(Request::CommitListing { upload }).await, refused(ErrorCode::InvalidMetainfo));
    }
    let upload = begin(olga, draft.clone()).await;
    let page = |offset, bytes: &[u8]| Request::PutInfo { upload, offset, bytes: bytes.to_vec() };
    olga.done(page(0, &good[..10])).await;
    assert_eq!(olga.call(page(11, &good[11..])).await, refused(ErrorCode::Usage), "out of order");
    assert_eq!(olga.call(page(10, &good[10..])).await, refused(ErrorCode::Usage), "the upload is over");
    let upload = begin(olga, draft.clone()).await;
    assert_eq!(olga.call(Request::CommitListing { upload }).await, refused(ErrorCode::InvalidMetainfo), "too short");
    let upload = begin(olga, draft).await;
    let long = Request::PutInfo { upload, offset: 0, bytes: [&good[..], b"e"].concat() };
    assert_eq!(olga.call(long).await, refused(ErrorCode::InvalidMetainfo), "too long");
    assert_eq!(olga.call(find("a")).await, refused(ErrorCode::NoSuchFile));
    tracker.stop().await;
}

/// Numbers can be guessed; what they stand for is nobody's business but the members'.
#[tokio::test]
async fn a_strangers_guess_at_a_number_tells_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let [ref mut olga, ref mut bob] = lab(&tracker, &["olga", "bob"]).await[..] else { panic!() };
    let listed = olga.list("lab", "a.bin", 5).await.unwrap();
    let (mut eve, _) = TestClient::signed_in(tracker.address, 9, "eve").await;
    bob.call(Request::LeaveGroup { group: "lab".parse().unwrap() }).await.unwrap();
    let by_number = |listing| {
        [
            Request::ReadInfo { listing, offset: 0 },
            Request::Watch { listing },
            Request::Leech { listing },
            Request::Share { listing },
            Request::Seed { listing },
            Request::StopShare { listing },
        ]
    };
    for listing in [listed, ListingId(1 << 40)] {
        for request in by_number(listing) {
            let refusal = eve.ask(request.clone()).await.unwrap_err();
            assert_eq!(refusal.code, ErrorCode::NoSuchFile, "{request:?}: {}", refusal.message);
        }
        let refusal = RefusedAnnouncement { listing, code: ErrorCode::NoSuchFile };
        assert_eq!(eve.call(announce(listing, Presence::Leeching)).await, Ok(Response::Announced(vec![refusal])));
    }
    // Who was a member knows the number, and is told what has changed.
    for request in by_number(listed) {
        assert_eq!(bob.call(request.clone()).await, refused(ErrorCode::NotAMember), "{request:?}");
    }
    let refusal = RefusedAnnouncement { listing: listed, code: ErrorCode::NotAMember };
    assert_eq!(bob.call(announce(listed, Presence::Leeching)).await, Ok(Response::Announced(vec![refusal])));
    tracker.stop().await;
}

/// The metadata of a 1 TiB file goes in and comes out in pages, and is there after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metadata_of_one_tib_is_paged_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let [ref mut olga] = lab(&tracker, &["olga"]).await[..] else { panic!() };
    let listing = olga.list("lab", "disk.img", 1 << 40).await.unwrap();
    let (raw, draft) = made_up(olga.group_id("lab").await, "disk.img", 1 << 40);
    assert!(raw.len() > 40_000_000);
    tracker.stop().await;
    let tracker = TestTracker::start(directory.path()).await;
    let mut olga = TestClient::connect(tracker.address, 1).await;
    olga.login("olga").await.unwrap();
    let Ok(Response::File(found)) = olga.call(find("disk.img")).await else { panic!() };
    assert_eq!((found.id, &found.draft), (listing, &draft));
    let mut read: Vec<u8> = Vec::new();
    loop {
        let offset = read.len() as u64;
        match olga.call(Request::ReadInfo { listing, offset }).await {
            Ok(Response::InfoPage(page)) if page.is_empty() => break,
            Ok(Response::InfoPage(page)) => read.extend(page),
            other => panic!("{other:?}"),
        }
    }
    assert!(read == raw, "every byte as it was sent");
    tracker.stop().await;
}

#[tokio::test]
async fn a_swarm_is_told_to_its_watchers_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let [ref mut olga, ref mut bob, ref mut cleo] = lab(&tracker, &["olga", "bob", "cleo"]).await[..] else { panic!() };
    let listing = olga.list("lab", "a.bin", 5).await.unwrap();
    let refusal = |code| Ok(Response::Announced(vec![RefusedAnnouncement { listing, code }]));
    assert_eq!(bob.call(announce(listing, Presence::Seeding)).await, refusal(ErrorCode::NotSharing));
    assert_eq!(bob.call(Request::Watch { listing }).await, Ok(Response::Peers(vec![])));
    let accepted = Ok(Response::Announced(vec![]));
    assert_eq!(olga.call(announce(listing, Presence::Seeding)).await, accepted);
    let key = |byte| Identity::from_seed(&[byte; 32]).unwrap().public();
    match bob.peers_event().await {
        Event::Peers { listing: of, came, left } => {
            assert_eq!((of, came.len(), left.len()), (listing, 1, 0));
            assert_eq!((came[0].key, came[0].user.as_str(), came[0].complete), (key(1), "olga", true));
            assert_eq!(came[0].address, "127.0.0.1:4000".parse().unwrap());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bob.call(announce(listing, Presence::Leeching)).await, accepted);
    let Ok(Response::File(found)) = cleo.call(find("a.bin")).await else { panic!() };
    assert_eq!((found.n_seeders, found.n_leechers), (1, 1));
    let Ok(Response::Peers(peers)) = cleo.call(Request::Watch { listing }).await else { panic!() };
    assert_eq!(peers.len(), 2);
    olga.done(Request::Logout).await;
    assert_eq!(bob.peers_event().await, Event::Peers { listing, came: vec![], left: vec![key(1)] });
    assert_eq!(olga.call(announce(listing, Presence::Leeching)).await, refused(ErrorCode::NotLoggedIn));
    tracker.stop().await;
}

/// What a download asks: three requests instead of seven, and the same comes of them.
#[tokio::test]
async fn a_download_is_three_requests() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let [ref mut olga, ref mut bob] = lab(&tracker, &["olga", "bob"]).await[..] else { panic!() };
    let listing = olga.list("lab", "a.bin", 5).await.unwrap();
    olga.call(announce(listing, Presence::Seeding)).await.unwrap();
    let (group, file) = ("lab".parse().unwrap(), "a.bin".parse().unwrap());
    let Ok(Response::Opened(opened)) = bob.call(Request::OpenFile { group, file }).await else { panic!() };
    let page = bob.call(Request::ReadInfo { listing, offset: 0 }).await;
    assert_eq!((opened.listing.id, Ok(Response::InfoPage(opened.info))), (listing, page));

    let Ok(Response::Peers(peers)) = bob.call(Request::Leech { listing }).await else { panic!() };
    assert_eq!(peers.iter().map(|peer| (peer.user.as_str(), peer.complete)).collect::<Vec<_>>(), [("olga", true)]);
    let Ok(Response::File(found)) = olga.call(find("a.bin")).await else { panic!() };
    assert_eq!((found.n_seeders, found.n_leechers), (1, 1));
    olga.call(announce(listing, Presence::Gone)).await.unwrap();
    assert!(matches!(bob.peers_event().await, Event::Peers { left, .. } if left.len() == 1), "the swarm is watched");

    bob.done(Request::Seed { listing }).await;
    let other = olga.list("lab", "b.bin", 5).await.unwrap();
    bob.call(Request::Watch { listing: other }).await.unwrap();
    for listing in [listing, other] {
        olga.call(announce(listing, Presence::Seeding)).await.unwrap();
    }
    let event = bob.peers_event().await;
    assert!(
        matches!(event, Event::Peers { listing, .. } if listing == other),
        "what is fetched is not watched: {event:?}"
    );
    olga.call(announce(listing, Presence::Gone)).await.unwrap();
    let Ok(Response::File(found)) = olga.call(find("a.bin")).await else { panic!() };
    assert_eq!((found.n_seeders, found.n_leechers), (1, 0));
    bob.done(Request::Seed { listing }).await;
    olga.done(Request::StopShare { listing }).await;
    assert!(olga.call(find("a.bin")).await.is_ok(), "bob is a lasting sharer");
    tracker.stop().await;
}

/// D8: a silent client's presence ends with its lease, a live one's does not.
#[tokio::test]
async fn d8_a_silent_client_is_closed_and_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let [ref mut olga, ref mut bob] = lab(&tracker, &["olga", "bob"]).await[..] else { panic!() };
    let listing = olga.list("lab", "a.bin", 5).await.unwrap();
    olga.call(announce(listing, Presence::Seeding)).await.unwrap();
    let Ok(Response::Peers(peers)) = bob.call(Request::Watch { listing }).await else { panic!() };
    assert_eq!(peers.len(), 1);
    let (watching, mut n_ticks) = (Instant::now(), 0);
    loop {
        tracker.clock.advance(limits::LEASE_TICK);
        n_ticks += 1;
        bob.done(Request::Ping).await;
        let Ok(Response::File(found)) = bob.call(find("a.bin")).await else { panic!() };
        if found.n_seeders == 0 {
            break;
        }
        assert!(watching.elapsed() < Duration::from_secs(20), "still there after {n_ticks} ticks");
    }
    assert!(n_ticks > limits::LEASE_TICKS);
    olga.closed().await;
    tracker.stop().await;
}

/// 10,000 shares revive in well under a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_announcements_are_taken_in_a_second() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let [ref mut olga] = lab(&tracker, &["olga"]).await[..] else { panic!() };
    let group = olga.group_id("lab").await.unwrap();
    fill(directory.path(), group, 10_000).await;
    let all: Vec<_> =
        (1..=10_000).map(|id| Announcement { listing: ListingId(id), presence: Presence::Seeding }).collect();
    let start = Instant::now();
    for batch in all.chunks(ANNOUNCE_PAGE) {
        let request = Request::Announce { announcements: batch.to_vec() };
        assert_eq!(olga.call(request).await, Ok(Response::Announced(vec![])));
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    let too_many = Request::Announce { announcements: all[..ANNOUNCE_PAGE + 1].to_vec() };
    assert_eq!(olga.call(too_many).await, refused(ErrorCode::Usage));
    tracker.stop().await;
}

/// Lists files through a second store on the same directory, many at a time.
async fn fill(directory: &std::path::Path, group: mini_torrent_common::hash::GroupId, n_files: u64) {
    use crate::store::{Actor, NewListing, Store};
    let store = Store::within(directory).await;
    let user = store.account("olga".parse().unwrap()).await.unwrap().unwrap().id;
    let olga = Actor::new(user, store.sessions(user).await.unwrap()[0].id);
    let listed = (0..n_files).map(|n| {
        let (raw, draft) = made_up(Some(group), &format!("file{n}"), 5);
        let new = NewListing { group, draft, info: raw.into(), at_ms: n };
        store.list_file(olga, new, Box::new(|_| Ok(())), |_, _| Ok(()))
    });
    for listing in futures_util::future::join_all(listed).await {
        listing.unwrap();
    }
    store.close().await;
}
