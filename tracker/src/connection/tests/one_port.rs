//! One port for control connections, HTTP and UDP: members and ordinary clients of one tracker, over real sockets.

use super::client::*;
use crate::limits;
use crate::start::Config;
use mini_torrent_common::announce::{AnnounceRequest, Answer, Event as Happened};
use mini_torrent_common::announce_key::AnnounceKey;
use mini_torrent_common::control::*;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::{InfoHash, PeerId};
use mini_torrent_common::udp_announce;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// Sends one HTTP request and reads until the end of the connection; the body.
async fn get(tracker: SocketAddr, url: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(tracker).await.unwrap();
    stream.write_all(format!("GET {url} HTTP/1.1\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    patiently(stream.read_to_end(&mut answer)).await.unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    answer.split_off(end + 4)
}

async fn announce(
    tracker: SocketAddr,
    key: &AnnounceKey,
    info_hash: InfoHash,
    port: u16,
    event: Happened,
) -> Result<Vec<SocketAddr>, String> {
    announce_at(tracker, &format!("/{}/announce", key.expose()), info_hash, port, event).await
}

async fn announce_at(
    tracker: SocketAddr,
    path: &str,
    info_hash: InfoHash,
    port: u16,
    event: Happened,
) -> Result<Vec<SocketAddr>, String> {
    let request = AnnounceRequest {
        info_hash,
        peer_id: PeerId([b'x'; 20]),
        port,
        uploaded: 0,
        downloaded: 0,
        left: 5,
        event,
        numwant: None,
        compact: None,
        no_peer_id: false,
        declared_ip: None,
    };
    let body = get(tracker, &format!("{path}?{}", request.to_query())).await;
    match Answer::decode(&body).unwrap() {
        Answer::Peers { peers, .. } => Ok(peers.iter().map(|peer| peer.address).collect()),
        Answer::Failure(reason) => Err(reason),
    }
}

async fn key_of(client: &mut TestClient, listing: ListingId) -> GrantedKey {
    match client.call(Request::CreateKey { listing }).await.unwrap() {
        Response::Key(key) => key,
        other => panic!("unexpected {other:?}"),
    }
}

async fn info_hash_of(client: &mut TestClient, group: &str, file: &str) -> InfoHash {
    let find = Request::FindFile { group: group.parse().unwrap(), file: file.parse().unwrap() };
    match client.call(find).await.unwrap() {
        Response::File(listing) => listing.draft.info_hash,
        other => panic!("unexpected {other:?}"),
    }
}

async fn stock_peers(client: &mut TestClient) -> (Vec<StockPeer>, Vec<SocketAddr>) {
    match client.event_that(|event| matches!(event, Event::StockPeers { .. })).await {
        Event::StockPeers { came, left, .. } => (came, left),
        other => panic!("unexpected {other:?}"),
    }
}

fn stock_clients(on: bool) -> Request {
    Request::SetStockClients { group: "lab".parse().unwrap(), on }
}

/// A group `lab` with two members, a file, and the tracker's address with the info-hash.
async fn lab_with_file(tracker: &TestTracker) -> (TestClient, TestClient, ListingId, InfoHash) {
    let mut clients = lab(tracker, &["olga", "bob"]).await;
    let (mut bob, mut olga) = (clients.pop().unwrap(), clients.pop().unwrap());
    let listing = olga.list("lab", "a.iso", 5).await.unwrap();
    let info_hash = info_hash_of(&mut bob, "lab", "a.iso").await;
    (olga, bob, listing, info_hash)
}

/// D9 and design §7 from end to end: the owner's switch, a member's key, HTTP and UDP, what members hear, the console.
#[tokio::test]
async fn members_and_stock_clients_meet_on_one_port() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (mut olga, mut bob, listing, info_hash) = lab_with_file(&tracker).await;
    let off = bob.call(Request::CreateKey { listing }).await;
    assert_eq!(off, refused(ErrorCode::StockClientsOff));
    assert_eq!(bob.call(stock_clients(true)).await, refused(ErrorCode::NotTheOwner));
    olga.done(stock_clients(true)).await;
    let GrantedKey { id, key } = key_of(&mut bob, listing).await;
    let seeding = Announcement { listing, presence: Presence::Seeding };
    olga.call(Request::Announce { announcements: vec![seeding] }).await.unwrap();
    let member = SocketAddr::new(olga.welcome.address.ip(), 4000);
    let peers = announce(tracker.address, &key, info_hash, 6881, Happened::Started).await;
    assert_eq!(peers, Ok(vec![member]));
    let stock: SocketAddr = "127.0.0.1:6881".parse().unwrap();
    assert_eq!(stock_peers(&mut olga).await, (vec![StockPeer { address: stock, complete: false }], vec![]));

    // By UDP on the same number.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(tracker.address).await.unwrap();
    let mut packet = Vec::new();
    udp_announce::Request::Connect { transaction_id: 1 }.encode(&mut packet);
    socket.send(&packet).await.unwrap();
    let mut buffer = [0; 2048];
    let length = patiently(socket.recv(&mut buffer)).await.unwrap();
    let connected = udp_announce::Response::decode(&buffer[..length], udp_announce::Family::V4).unwrap();
    let udp_announce::Response::Connect { connection_id, .. } = connected else { panic!() };
    let request = udp_announce::AnnounceRequest { connection_id, info_hash, port: 7000, ..Default::default() };
    packet.clear();
    request.encode_with_url_data(format!("/{}", key.expose()).as_bytes(), &mut packet);
    socket.send(&packet).await.unwrap();
    let length = patiently(socket.recv(&mut buffer)).await.unwrap();
    let answer = udp_announce::Response::decode(&buffer[..length], udp_announce::Family::V4).unwrap();
    let udp_announce::Response::Announce { peers, seeders: 2, leechers: 1, .. } = answer else { panic!("{answer:?}") };
    // A seeder is told of the leecher alone.
    assert_eq!(peers.addresses().collect::<Vec<_>>(), [stock]);
    let udp: SocketAddr = "127.0.0.1:7000".parse().unwrap();
    assert_eq!(stock_peers(&mut olga).await, (vec![StockPeer { address: udp, complete: true }], vec![]));
    // Who watches now hears of both.
    bob.call(Request::Watch { listing }).await.unwrap();
    assert_eq!(stock_peers(&mut bob).await.0.len(), 2);

    let mut console = crate::console::Console::new(tracker.service.clone(), tokio_util::sync::CancellationToken::new());
    assert_eq!(console.answer("list").await, "[lab] a.iso: 5 bytes, 2 seeders, 1 leechers");
    let shown = console.answer("fileinfo a.iso").await;
    for row in [
        format!("  seeder olga {member}"),
        "  seeder stock client of bob 127.0.0.1:7000".into(),
        "  leecher stock client of bob 127.0.0.1:6881".into(),
    ] {
        assert!(shown.lines().any(|line| line == row), "{row} is not in\n{shown}");
    }
    let shown = console.answer("peerinfo").await;
    assert!(shown.contains("127.0.0.1:7000 stock client of bob seeding 1 leeching 0"), "{shown}");
    assert_eq!(shown.lines().count(), 4, "each once\n{shown}");
    let export: serde_json::Value = serde_json::from_str(&console.answer("export").await).unwrap();
    assert_eq!(export["announce_keys"][0]["user"], "bob");
    assert!(export["groups"].as_array().unwrap().iter().all(|group| group["stock_clients"] == 1), "{export}");
    assert_eq!(export["peers"].as_array().unwrap().len(), 4);
    let text = export.to_string();
    assert!(!text.contains(&key.expose()) && !text.contains("digest") && !text.contains("secret"), "{text}");

    // Revoked: both are gone, and the members know.
    bob.done(Request::RevokeKey { id }).await;
    let mut left = stock_peers(&mut olga).await.1;
    left.sort();
    assert_eq!(left, [stock, udp]);
    assert_eq!(bob.call(Request::RevokeKey { id }).await, refused(ErrorCode::NoSuchKey));
    let again = announce(tracker.address, &key, info_hash, 6881, Happened::Periodic).await;
    assert_eq!(again, Err("unknown key or file".into()));
    assert_eq!(bob.call(Request::ListKeys).await, Ok(Response::Keys(vec![])));
    tracker.stop().await;
}

/// D11: without a key only where the operator says so, only for files of `public`, and as soon as they are shared.
#[tokio::test]
async fn d11_open_public_needs_no_key() {
    for open_public in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let config = Config { open_public, ..Config::new(directory.path()) };
        let tracker = TestTracker::start_with(config).await;
        let (mut olga, _bob, _, private) = lab_with_file(&tracker).await;
        let listing = olga.list("public", "b.iso", 5).await.unwrap();
        let public = info_hash_of(&mut olga, "public", "b.iso").await;
        let announce = |info_hash| announce_at(tracker.address, "/announce", info_hash, 6881, Happened::Started);
        assert_eq!(announce(public).await.is_ok(), open_public);
        assert_eq!(announce(private).await, Err("unknown key or file".into()));
        olga.done(Request::StopShare { listing }).await;
        assert_eq!(announce(public).await, Err("unknown key or file".into()));
        tracker.stop().await;
    }
}

/// D10: keys are there after a restart; ordinary clients announce again.
#[tokio::test]
async fn d10_keys_outlive_the_tracker() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (mut olga, _bob, listing, info_hash) = lab_with_file(&tracker).await;
    olga.done(stock_clients(true)).await;
    let GrantedKey { key, .. } = key_of(&mut olga, listing).await;
    tracker.stop().await;
    let tracker = TestTracker::start(directory.path()).await;
    assert_eq!(announce(tracker.address, &key, info_hash, 6881, Happened::Started).await, Ok(vec![]));
    tracker.stop().await;
}

/// A tracker on the same data directory knows soon what another one has admitted and what has ended there.
#[tokio::test]
async fn trackers_on_one_store_admit_alike() {
    let directory = tempfile::tempdir().unwrap();
    let system = |number| Config { number, ..Config::new(directory.path()) };
    let (one, other) = (TestTracker::start_with(system(1)).await, TestTracker::start_with(system(2)).await);
    let (mut olga, _bob, listing, info_hash) = lab_with_file(&one).await;
    olga.done(stock_clients(true)).await;
    let GrantedKey { id, key } = key_of(&mut olga, listing).await;
    let until = async |admitted: bool| {
        let tried = async {
            while announce(other.address, &key, info_hash, 1, Happened::Periodic).await.is_ok() != admitted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        patiently(tried).await;
    };
    until(true).await;
    olga.done(Request::RevokeKey { id }).await;
    until(false).await;
    one.stop().await;
    other.stop().await;
}

/// 10 s to say what it wants, for every protocol; what begins like none is closed at once.
#[tokio::test]
async fn an_undecided_connection_has_ten_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    for first in [0u8, 0x13, b'A', b'g', 0x80] {
        let mut stream = TcpStream::connect(tracker.address).await.unwrap();
        stream.write_all(&[first]).await.unwrap();
        let mut rest = Vec::new();
        let _ = patiently(stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty());
    }
    let start = tracker.clock.now();
    for bytes in [&b""[..], b"\x16", b"G", b"GET /health HTTP/1.1\r\n"] {
        let mut stream = TcpStream::connect(tracker.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let ticking = async {
            loop {
                tokio::task::yield_now().await;
                tracker.clock.advance(limits::HELLO_DEADLINE / 1000);
            }
        };
        let mut rest = Vec::new();
        tokio::select! { _ = stream.read_to_end(&mut rest) => {}, () = ticking => {} }
        assert!(rest.is_empty());
    }
    assert!(tracker.clock.now().since(start) >= limits::HELLO_DEADLINE);
    assert_eq!(get(tracker.address, "/health").await, b"ok\n");
    tracker.stop().await;
}

/// A shutdown does not wait for idle HTTP connections, and a flood of them bars no member.
#[tokio::test]
async fn many_http_connections_keep_nobody_out() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = TestTracker::start(directory.path()).await;
    let (mut olga, _) = TestClient::signed_in(tracker.address, 1, "olga").await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(tracker.address).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\n\r\n").await.unwrap();
        idle.push(stream);
    }
    olga.call(Request::Ping).await.unwrap();
    let (mut bob, _) = TestClient::signed_in(tracker.address, 2, "bob").await;
    bob.call(Request::Ping).await.unwrap();
    let metrics = String::from_utf8(get(tracker.address, "/metrics").await).unwrap();
    assert!(metrics.contains("mini_tracker_connections_open 203\n"), "{metrics}");
    tracker.stop().await;
}
