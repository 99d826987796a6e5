//! UDP over real sockets on loopback, and packets with made-up sources.

use super::*;
use crate::service::tests::Stage;
use mini_torrent_common::announce::Event;
use mini_torrent_common::announce_key::AnnounceKey;
use mini_torrent_common::hash::InfoHash;
use mini_torrent_common::udp_announce::{
    ANNOUNCE_LENGTH, AnnounceRequest, Family, MAX_PACKET_LENGTH, Request, Response,
};
use std::net::SocketAddr;
use std::time::Duration;

/// Answers the test's packets without a socket, from any source.
struct Pretend(Answerer);

impl Pretend {
    fn new(stage: &Stage) -> Self {
        Self(Answerer::new(Arc::clone(&stage.service)))
    }

    fn answer(&mut self, packet: &[u8], source: &str) -> Option<Vec<u8>> {
        let mut out = [0; MAX_PACKET_LENGTH];
        let length = self.0.answer(packet, source.parse().unwrap(), &mut out)?;
        Some(out[..length].to_vec())
    }

    fn connect(&mut self, source: &str) -> u64 {
        let answer = self.answer(&packet(Request::Connect { transaction_id: 3 }), source).unwrap();
        match Response::decode(&answer, Family::V4) {
            Ok(Response::Connect { transaction_id: 3, connection_id }) => connection_id,
            other => panic!("{other:?}"),
        }
    }
}

fn packet(request: Request<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    request.encode(&mut out);
    out
}

fn announce(connection_id: u64, info_hash: InfoHash, port: u16, url_data: &str) -> Vec<u8> {
    let request = AnnounceRequest { connection_id, transaction_id: 5, info_hash, port, left: 5, ..Default::default() };
    let mut out = Vec::new();
    request.encode_with_url_data(url_data.as_bytes(), &mut out);
    out
}

/// Peers, or the reason why there are none.
fn read(answer: &[u8], family: Family) -> Result<Vec<SocketAddr>, String> {
    match Response::decode(answer, family).unwrap() {
        Response::Announce { transaction_id: 5, interval_s: 1800, peers, .. } => Ok(peers.addresses().collect()),
        Response::Error { transaction_id: 5, reason } => Err(String::from_utf8(reason.to_vec()).unwrap()),
        other => panic!("{other:?}"),
    }
}

fn url(key: &AnnounceKey) -> String {
    format!("/{}/announce", key.expose())
}

/// D15: a stock client announces and scrapes over UDP, through the socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d15_announce_and_scrape_over_a_socket() {
    let stage = Stage::with(|policy| crate::service::Policy { open_public: true, ..policy }).await;
    let (olga, _events, file, key) = stage.open_lab().await;
    let public = stage.list(&olga, "public", 8).await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (address, shutdown) = (socket.local_addr().unwrap(), CancellationToken::new());
    let serving = tokio::task::spawn_blocking({
        let (service, shutdown) = (Arc::clone(&stage.service), shutdown.clone());
        move || serve(service, &socket, &shutdown)
    });
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.connect(address).unwrap();
    let ask = |packet: &[u8]| {
        client.send(packet).unwrap();
        let mut buffer = [0; 2048];
        let length = client.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    };
    let connected = ask(&packet(Request::Connect { transaction_id: 1 }));
    let Ok(Response::Connect { connection_id, .. }) = Response::decode(&connected, Family::V4) else { panic!() };
    assert_eq!(read(&ask(&announce(connection_id, file.info_hash, 1, &url(&key))), Family::V4), Ok(vec![]));
    let other = read(&ask(&announce(connection_id, file.info_hash, 2, &url(&key))), Family::V4);
    assert_eq!(other, Ok(vec!["127.0.0.1:1".parse().unwrap()]));
    assert_eq!(read(&ask(&announce(connection_id, public.info_hash, 2, "")), Family::V4), Ok(vec![]));
    // Many packets that come at once are each answered.
    let mut buffer = [0; 2048];
    for first in [1, 51, 101, 151] {
        for port in first..first + 50 {
            client.send(&announce(connection_id, public.info_hash, port, "/announce")).unwrap();
        }
        (0..50).for_each(|_| assert!(client.recv(&mut buffer).unwrap() >= 20));
    }
    let hashes = [public.info_hash.0, file.info_hash.0];
    let scraped = ask(&packet(Request::Scrape { connection_id, transaction_id: 5, hashes: &hashes }));
    let response = Response::decode(&scraped, Family::V4).unwrap();
    assert_eq!(response.counts().map(|counts| counts.incomplete).collect::<Vec<_>>(), [200, 0], "private: nothing");
    let private = packet(Request::Scrape { connection_id, transaction_id: 5, hashes: &hashes[1..] });
    assert_eq!(read(&ask(&private), Family::V4), Err("unknown key or file".into()));
    // A tracker that was stopped looks at what happened meanwhile before it tells anything.
    stage.clock.advance(limits::STOPPED_AFTER);
    client.send(&announce(connection_id, public.info_hash, 7, "")).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(client.recv(&mut buffer).is_err(), "answered by what it knew");
    stage.service.keep_step().await.unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(client.recv(&mut buffer).is_ok());
    shutdown.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn the_key_comes_in_url_data_however_it_is_split() {
    let stage = Stage::new().await;
    let (_olga, _events, file, key) = stage.open_lab().await;
    let mut tracker = Pretend::new(&stage);
    let id = tracker.connect("10.0.9.1:1");
    let key = key.expose();
    let mut ask = |options: &[u8]| {
        let packet = [&announce(id, file.info_hash, 6881, "")[..ANNOUNCE_LENGTH], options].concat();
        read(&tracker.answer(&packet, "10.0.9.1:1").unwrap(), Family::V4)
    };
    let option = |data: &str| [&[2, u8::try_from(data.len()).unwrap()], data.as_bytes()].concat();
    for good in [format!("/{key}/announce"), format!("/{key}"), format!("/{key}/"), format!("/{key}/announce?a=b")] {
        assert_eq!(ask(&option(&good)), Ok(vec![]), "{good}");
        let (front, back) = good.split_at(7);
        assert_eq!(ask(&[&[1, 1], &option(front)[..], &[1], &option(back), &[0, 9, 9]].concat()), Ok(vec![]), "{good}");
    }
    for bad in ["", "/", "/announce", "/x/announce", &key, &format!("/{key}/scrape"), &format!("//{key}")] {
        assert_eq!(ask(&option(bad)), Err("unknown key or file".into()), "{bad}");
    }
    assert_eq!(ask(&[2, 9, b'/']), Err("truncated option".into()));
    assert_eq!(ask(&option(&"x".repeat(255)).repeat(3)), Err("url data too long".into()));
}

/// Transmission begins with a stop, which carries no key by UDP, and repeats a refused one by HTTP in the place of its
/// start.
#[tokio::test]
async fn who_takes_no_part_may_stop_and_learns_nothing() {
    let stage = Stage::new().await;
    let (_olga, _events, file, _) = stage.open_lab().await;
    let mut tracker = Pretend::new(&stage);
    let connection_id = tracker.connect("10.0.9.1:1");
    for (info_hash, event, answer) in [
        (file.info_hash, Event::Stopped, Ok(vec![])),
        (InfoHash([9; 20]), Event::Stopped, Ok(vec![])),
        (file.info_hash, Event::Started, Err("unknown key or file".to_owned())),
    ] {
        let request =
            AnnounceRequest { connection_id, transaction_id: 5, info_hash, port: 1, event, ..Default::default() };
        let packet = packet(Request::Announce(request));
        assert_eq!(read(&tracker.answer(&packet, "10.0.9.1:1").unwrap(), Family::V4), answer, "{event:?}");
    }
}

#[tokio::test]
async fn a_tracker_that_has_not_seen_its_store_for_long_says_so() {
    let stage = Stage::new().await;
    let (_olga, _events, file, key) = stage.open_lab().await;
    let mut tracker = Pretend::new(&stage);
    stage.clock.advance(limits::DEAD_AFTER);
    let connection_id = tracker.connect("10.0.9.1:1");
    let mut answer = |packet: &[u8]| read(&tracker.answer(packet, "10.0.9.1:1").unwrap(), Family::V4);
    let blind = Err("the tracker cannot reach its database; try again later".to_owned());
    assert_eq!(answer(&announce(connection_id, file.info_hash, 1, &url(&key))), blind);
    let hashes = [file.info_hash.0];
    assert_eq!(answer(&packet(Request::Scrape { connection_id, transaction_id: 5, hashes: &hashes })), blind);
}

/// Nothing is sent back that is longer than its request before the connection id is valid, and to most nothing at all.
#[tokio::test]
async fn who_shows_no_valid_id_learns_nothing() {
    let stage = Stage::new().await;
    let (_olga, _events, file, key) = stage.open_lab().await;
    let mut tracker = Pretend::new(&stage);
    let connect = packet(Request::Connect { transaction_id: 3 });
    for length in 0..connect.len() {
        assert_eq!(tracker.answer(&connect[..length], "10.0.9.1:1"), None, "short");
    }
    assert_eq!(tracker.answer(&connect, "10.0.9.1:1").unwrap().len(), connect.len());
    let id = tracker.connect("10.0.9.1:1");
    let good = announce(id, file.info_hash, 6881, &url(&key));
    assert_eq!(tracker.answer(&good, "10.0.9.2:1"), None, "another address");
    assert_eq!(tracker.answer(&announce(id ^ 1, file.info_hash, 1, &url(&key)), "10.0.9.1:1"), None);
    assert_eq!(tracker.answer(&announce(0, file.info_hash, 1, &url(&key)), "10.0.9.1:1"), None);
    let scrape = Request::Scrape { connection_id: 7, transaction_id: 5, hashes: &[file.info_hash.0] };
    assert_eq!(tracker.answer(&packet(scrape), "10.0.9.1:1"), None);
    let unknown = [&7u64.to_be_bytes()[..], &[0, 0, 0, 9], &[0; 4]].concat();
    assert_eq!(tracker.answer(&unknown, "10.0.9.1:1"), None);
    assert!(tracker.answer(&[&id.to_be_bytes()[..], &[0, 0, 0, 9], &[0; 4]].concat(), "10.0.9.1:1").is_some());
    // Short announces with a valid id are told so; nothing is noted.
    for length in 16..ANNOUNCE_LENGTH {
        let reason = read(&tracker.answer(&good[..length], "10.0.9.1:1").unwrap(), Family::V4);
        assert_eq!(reason, Err("announce too short".into()));
    }
    assert_eq!(stage.service.announces().n_peers(), 0);
    // An id is good for 2 to 4 minutes.
    stage.clock.advance(Duration::from_secs(119));
    assert!(tracker.answer(&good, "10.0.9.1:9").is_some(), "from another port");
    stage.clock.advance(Duration::from_secs(240));
    assert_eq!(tracker.answer(&good, "10.0.9.1:1"), None, "expired");
}

/// A peer is where its packets come from, whatever it declares.
#[tokio::test]
async fn the_declared_address_is_ignored() {
    let stage = Stage::new().await;
    let (_olga, _events, file, key) = stage.open_lab().await;
    let mut tracker = Pretend::new(&stage);
    let id = tracker.connect("[::ffff:10.0.9.1]:1");
    let mut spoofed = announce(id, file.info_hash, 6881, &url(&key));
    spoofed[84..88].copy_from_slice(&[8, 8, 8, 8]);
    tracker.answer(&spoofed, "[::ffff:10.0.9.1]:1").unwrap();
    let peers = stage.announce(&key, file.info_hash, "10.0.9.2:1", 5).unwrap().1;
    assert_eq!(peers, ["10.0.9.1:6881".parse().unwrap()]);
    let id = tracker.connect("[2001:db8::1]:1");
    let answer = tracker.answer(&announce(id, file.info_hash, 1, &url(&key)), "[2001:db8::1]:1").unwrap();
    assert_eq!(read(&answer, Family::V6), Ok(vec![]), "no peer of the other family");
}

#[tokio::test]
async fn a_full_answer_fits_into_one_packet() {
    let stage = Stage::new().await;
    let (_olga, _events, file, key) = stage.open_lab().await;
    (1..=300).for_each(|port| drop(stage.announce(&key, file.info_hash, &format!("10.0.9.2:{port}"), 5)));
    (1..=300).for_each(|port| drop(stage.announce(&key, file.info_hash, &format!("[2001:db8::2]:{port}"), 5)));
    let mut tracker = Pretend::new(&stage);
    for (source, family, expected) in [("10.0.9.1:1", Family::V4, 200), ("[2001:db8::2]:1", Family::V6, 67)] {
        let id = tracker.connect(source);
        let request = AnnounceRequest {
            connection_id: id,
            transaction_id: 5,
            info_hash: file.info_hash,
            numwant: Some(200),
            port: 1,
            left: 1,
            ..Default::default()
        };
        let mut packet = Vec::new();
        request.encode_with_url_data(url(&key).as_bytes(), &mut packet);
        let answer = tracker.answer(&packet, source).unwrap();
        assert!(answer.len() <= MAX_PACKET_LENGTH);
        assert_eq!(read(&answer, family).unwrap().len(), expected, "{source}");
    }
}
