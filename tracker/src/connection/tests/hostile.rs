//! Bytes from strangers: whatever comes, the connection closes, others are served.

use super::client::*;
use crate::connection::{GatedCodec, write_messages};
use crate::limits;
use futures_util::{SinkExt, StreamExt};
use mini_torrent_common::control::*;
use mini_torrent_common::error_code::ErrorCode;
use rand::{RngExt, SeedableRng};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, FramedWrite};

async fn is_closed_after(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The tracker may have closed before everything was written.
    let _ = stream.write_all(bytes).await;
    let mut rest = Vec::new();
    let _ = patiently(stream.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn plain_bytes_close_at_once_and_others_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (mut member, _) = TestClient::signed_in(tracker.address, 1, "bob").await;
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let mut noise = [0; 4096];
    for _ in 0..50 {
        random.fill(&mut noise[..]);
        // A TLS record that is none: the handshake fails on it, or waits for more until the deadline.
        if noise[0] == 0x16 {
            noise[0] = 0;
        }
        is_closed_after(tracker.address, &noise).await;
    }
    is_closed_after(tracker.address, b"GET / HTTP/1.1\r\n\r\n").await;
    is_closed_after(tracker.address, &[0x16, 3, 1, 0, 4, 1, 0, 0, 9]).await_or_deadline(&tracker).await;
    member.done(Request::Ping).await;
    tracker.stop().await;
}

trait AwaitOrDeadline: Future<Output = ()> + Sized {
    /// Lets the deadline for the greeting pass while waiting.
    async fn await_or_deadline(self, tracker: &TestTracker) {
        let ticking = async {
            loop {
                tokio::task::yield_now().await;
                tracker.clock.advance(limits::HELLO_DEADLINE / 1000);
            }
        };
        tokio::select! { () = self => {}, () = ticking => {} }
    }
}

impl<F: Future<Output = ()>> AwaitOrDeadline for F {}

/// Slow-loris and half-closed: nobody stays beyond the deadline without a Hello.
#[tokio::test]
async fn a_connection_without_a_hello_ends_with_its_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let idle = async {
        let mut stream = TcpStream::connect(tracker.address).await.unwrap();
        let mut byte = [0];
        assert_eq!(patiently(stream.read(&mut byte)).await.unwrap_or(0), 0);
    };
    idle.await_or_deadline(&tracker).await;
    let after_tls = async {
        let mut wire = connect_wire(tracker.address, 1).await;
        wire.get_mut().write_all(&[0, 0]).await.unwrap();
        assert!(!matches!(patiently(wire.next()).await, Some(Ok(_))));
    };
    after_tls.await_or_deadline(&tracker).await;
    let half_closed = async {
        let mut stream = TcpStream::connect(tracker.address).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = patiently(stream.read_to_end(&mut rest)).await;
    };
    half_closed.await;
    TestClient::connect(tracker.address, 2).await.done(Request::Ping).await;
    tracker.stop().await;
}

#[tokio::test]
async fn frames_that_are_too_long_or_no_message_end_the_connection_with_a_word() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let long = u32::try_from(MAX_FRAME_LENGTH_BEFORE_SIGN_IN + 1).unwrap();
    for frame in [
        [&u32::MAX.to_be_bytes()[..], &[0; 8]].concat(),
        [&long.to_be_bytes()[..], &[0; 8]].concat(),
        vec![0, 0, 0, 2, 0xff, 0xff],
        vec![0, 0, 0, 0],
        // A ping with a byte too many.
        vec![0, 0, 0, 5, 1, 7, 0, 0, 0],
    ] {
        let mut client = TestClient::connect(tracker.address, 1).await;
        client.wire.get_mut().write_all(&frame).await.unwrap();
        client.wire.get_mut().flush().await.unwrap();
        let word = patiently(client.wire.next()).await;
        assert!(matches!(word, Some(Ok(TrackerMessage::Goodbye(_)))), "{frame:?}: {word:?}");
        client.closed().await;
    }
    let mut twice = TestClient::connect(tracker.address, 1).await;
    twice.wire.send(ClientMessage::Hello(hello())).await.unwrap();
    assert!(matches!(patiently(twice.wire.next()).await, Some(Ok(TrackerMessage::Goodbye(_)))));
    TestClient::connect(tracker.address, 2).await.done(Request::Ping).await;
    tracker.stop().await;
}

/// The room for long frames goes with the session.
#[tokio::test]
async fn who_has_logged_out_sends_short_frames_again() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (mut client, _) = TestClient::signed_in(tracker.address, 1, "bob").await;
    let gone = Announcement { listing: ListingId(u64::MAX), presence: Presence::Gone };
    let long = Request::Announce { announcements: vec![gone; MAX_FRAME_LENGTH_BEFORE_SIGN_IN / 8] };
    assert_eq!(client.call(long.clone()).await, Ok(Response::Announced(vec![])));
    client.done(Request::Logout).await;
    let told = async {
        loop {
            tracker.clock.advance(limits::LEASE_TICK);
            client.send(long.clone()).await;
            match client.wire.next().await {
                Some(Ok(TrackerMessage::Response { result: Err(refusal), .. })) => {
                    assert_eq!(refusal.code, ErrorCode::NotLoggedIn);
                }
                other => return other,
            }
        }
    };
    let word = patiently(told).await;
    assert!(matches!(word, Some(Ok(TrackerMessage::Goodbye(_)))), "{word:?}");
    tracker.stop().await;
}

/// Who is turned away for a long frame that came too late learns first that its session has ended.
#[tokio::test]
async fn what_waits_for_a_client_goes_before_the_goodbye() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let writer = FramedWrite::new(tokio::io::split(ours).1, GatedCodec::new(Arc::default()));
    let (responses, responses_out) = mpsc::channel(1);
    let (events, events_out) = mpsc::channel(1);
    let (_gathered, gathered_out) = mpsc::channel(1);
    let event = Event::SessionEnded { reason: "taken over".into() };
    events.send(event.clone()).await.unwrap();
    responses.send(TrackerMessage::Goodbye(Refusal::new(ErrorCode::Usage, "too long"))).await.unwrap();
    write_messages(writer, responses_out, events_out, gathered_out).await;
    let codec = ControlCodec::<TrackerMessage, ClientMessage>::new(MAX_FRAME_LENGTH);
    let read: Vec<_> = FramedRead::new(theirs, codec).take(2).map(Result::unwrap).collect().await;
    assert_eq!(read[0], TrackerMessage::Event(event));
    assert!(matches!(read[1], TrackerMessage::Goodbye(_)));
}

#[tokio::test]
async fn random_frames_of_a_signed_in_client_harm_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (mut member, _) = TestClient::signed_in(tracker.address, 1, "bob").await;
    let mut random = rand::rngs::StdRng::seed_from_u64(11);
    for _ in 0..30 {
        let mut client = TestClient::connect(tracker.address, 2).await;
        let mut body = vec![0; random.random_range(1..200)];
        random.fill(&mut body[..]);
        // Some begin as requests do.
        if random.random() {
            body[0] = 1;
        }
        let length = u32::try_from(body.len()).unwrap();
        client.wire.get_mut().write_all(&[&length.to_be_bytes()[..], &body].concat()).await.unwrap();
        client.wire.get_mut().shutdown().await.unwrap();
        client.closed().await;
    }
    member.done(Request::Ping).await;
    tracker.stop().await;
}

#[tokio::test]
async fn a_hello_of_another_version_or_without_a_port_is_turned_away() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let newer = Hello { min_version: MAX_VERSION + 1, max_version: MAX_VERSION + 3, ..hello() };
    let portless = Hello { listen_port: 0, ..hello() };
    let wordy = Hello { agent: "x".repeat(MAX_AGENT_LENGTH + 1), ..hello() };
    let cases = [
        (ClientMessage::Hello(newer), ErrorCode::IncompatibleVersion),
        (ClientMessage::Hello(portless), ErrorCode::Usage),
        (ClientMessage::Hello(wordy), ErrorCode::Usage),
        (ClientMessage::Request { id: 1, once: None, body: Request::Ping }, ErrorCode::IncompatibleVersion),
    ];
    for (first, code) in cases {
        let mut wire = connect_wire(tracker.address, 1).await;
        wire.send(first).await.unwrap();
        match patiently(wire.next()).await {
            Some(Ok(TrackerMessage::Goodbye(refusal))) => assert_eq!(refusal.code, code),
            other => panic!("{other:?}"),
        }
    }
    let reaching = Hello { min_version: MIN_VERSION, max_version: u16::MAX, ..hello() };
    let mut wire = connect_wire(tracker.address, 1).await;
    wire.send(ClientMessage::Hello(reaching)).await.unwrap();
    match patiently(wire.next()).await {
        Some(Ok(TrackerMessage::Welcome(welcome))) => assert_eq!(welcome.version, MAX_VERSION),
        other => panic!("{other:?}"),
    }
    tracker.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped_and_its_requests_stay_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (mut greedy, _) = TestClient::signed_in(tracker.address, 1, "greedy").await;
    let listing = greedy.list("public", "big", 1 << 36).await.unwrap();
    // Asks for pages without end and reads none, until it cannot even write.
    let asking = async {
        loop {
            greedy.send(Request::ReadInfo { listing, offset: 0 }).await;
        }
    };
    assert!(tokio::time::timeout(std::time::Duration::from_secs(1), asking).await.is_err(), "it is not read any more");
    let (mut other, _) = TestClient::signed_in(tracker.address, 2, "other").await;
    for _ in 0..=limits::LEASE_TICKS + 1 {
        other.done(Request::Ping).await;
        tracker.clock.advance(limits::LEASE_TICK);
    }
    greedy.closed().await;
    other.done(Request::Ping).await;
    tracker.stop().await;
}
