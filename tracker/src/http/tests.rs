//! HTTP over a pipe, with the clock of the test.

use super::*;
use crate::service::tests::Stage;
use mini_torrent_common::announce::{AnnounceRequest, Answer, Event, ScrapeAnswer};
use mini_torrent_common::announce_key::AnnounceKey;
use mini_torrent_common::hash::{InfoHash, PeerId};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);

struct Client {
    stream: DuplexStream,
    serving: JoinHandle<()>,
    input: Vec<u8>,
}

impl Client {
    fn connect(stage: &Stage, source: &str) -> Self {
        let (stream, served) = tokio::io::duplex(16 * 1024);
        let (service, source) = (Arc::clone(&stage.service), source.parse().unwrap());
        let serving = tokio::spawn(async move { serve(served, source, &service).await });
        Self { stream, serving, input: Vec::new() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next answer: its head and its body.
    async fn answer(&mut self) -> (String, Vec<u8>) {
        self.answer_to(false).await
    }

    async fn answer_to(&mut self, head_only: bool) -> (String, Vec<u8>) {
        loop {
            if let Some(end) = self.input.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = String::from_utf8(self.input[..end].to_vec()).unwrap();
                let line = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                let length = if head_only { 0 } else { line.unwrap().parse().unwrap() };
                if self.input.len() >= end + 4 + length {
                    let rest = self.input.split_off(end + 4 + length);
                    let body = std::mem::replace(&mut self.input, rest)[end + 4..].to_vec();
                    return (head, body);
                }
            }
            let mut bytes = [0; 4096];
            let n = tokio::time::timeout(PATIENCE, self.stream.read(&mut bytes)).await.unwrap().unwrap();
            assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&self.input));
            self.input.extend_from_slice(&bytes[..n]);
        }
    }

    async fn get(&mut self, url: &str) -> (String, Vec<u8>) {
        self.send(format!("GET {url} HTTP/1.1\r\nHost: tracker\r\n\r\n").as_bytes()).await;
        self.answer().await
    }

    /// Waits until the other side has closed, with nothing more to say.
    async fn closed(mut self) {
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.unwrap();
        assert!(self.input.is_empty() && rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
        drop(self.stream);
        tokio::time::timeout(PATIENCE, self.serving).await.unwrap().unwrap();
    }
}

fn announce(info_hash: InfoHash, port: u16) -> AnnounceRequest {
    AnnounceRequest {
        info_hash,
        peer_id: PeerId([b'x'; 20]),
        port,
        uploaded: 0,
        downloaded: 0,
        left: 5,
        event: Event::Started,
        numwant: None,
        compact: Some(true),
        no_peer_id: false,
        declared_ip: None,
    }
}

fn url(key: &AnnounceKey, request: &AnnounceRequest) -> String {
    format!("/{}/announce?{}", key.expose(), request.to_query())
}

fn peers(body: &[u8]) -> Vec<SocketAddr> {
    match Answer::decode(body).unwrap() {
        Answer::Peers { peers, interval_s: 1800, min_interval_s: Some(60), .. } => {
            peers.iter().map(|peer| peer.address).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// B3: an announce with a key, in both forms; the claimed address is not believed.
#[tokio::test]
async fn b3_a_stock_client_announces_with_its_key() {
    let stage = Stage::new().await;
    let (_olga, _events, file, key) = stage.open_lab().await;
    let mut one = Client::connect(&stage, "10.0.9.1");
    let spoofed = format!("{}&ip=8.8.8.8&ipv6=::1", url(&key, &announce(file.info_hash, 6881)));
    let (head, body) = one.get(&spoofed).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: "), "{head}");
    assert_eq!(peers(&body), []);
    let mut other = Client::connect(&stage, "2001:db8::2");
    let request = AnnounceRequest { compact: Some(false), ..announce(file.info_hash, 7) };
    let (_, body) = other.get(&url(&key, &request)).await;
    assert!(body.windows(4).any(|bytes| bytes == b"2:ip"), "{}", body.escape_ascii());
    assert_eq!(peers(&body), ["10.0.9.1:6881".parse().unwrap()]);
    let (_, body) = one.get(&url(&key, &announce(file.info_hash, 6881))).await;
    assert_eq!(peers(&body), ["[2001:db8::2]:7".parse().unwrap()]);
    let (_, body) = one.get(&format!("/{}/scrape?info_hash={}", key.expose(), "%07".repeat(20))).await;
    let Ok(ScrapeAnswer::Files(files)) = ScrapeAnswer::decode(&body) else { panic!() };
    assert_eq!((files[0].0, files[0].1.incomplete), (file.info_hash, 2));
}

/// One text for all who are not admitted; malformed queries are told what is wrong with them.
#[tokio::test]
async fn who_is_not_admitted_gets_a_reason_and_no_peers() {
    let stage = Stage::new().await;
    let (_olga, _events, file, key) = stage.open_lab().await;
    let query = announce(file.info_hash, 6881).to_query();
    let foreign = announce(InfoHash([9; 20]), 6881).to_query();
    let refused = b"d14:failure reason19:unknown key or filee";
    let mut client = Client::connect(&stage, "10.0.9.1");
    let (scrape, key) = (format!("info_hash={}", "%07".repeat(20)), key.expose());
    for url in [
        format!("/announce?{query}"),
        format!("/{}/announce?{query}", "0".repeat(32)),
        format!("/nonsense/announce?{query}"),
        format!("/{}/announce?{query}", key.to_uppercase()),
        format!("/{key}/announce?{foreign}"),
        format!("/scrape?{scrape}"),
        format!("/{}/scrape?{scrape}", "0".repeat(32)),
        format!("/{key}/scrape?info_hash={}", "%09".repeat(20)),
    ] {
        let (head, body) = client.get(&url).await;
        assert!(head.starts_with("HTTP/1.1 200") && body == refused, "{url}: {}", body.escape_ascii());
    }
    for (query, reason) in [("", "missing info_hash"), ("info_hash=%0", "invalid info_hash")] {
        let (_, body) = client.get(&format!("/{key}/announce?{query}")).await;
        assert_eq!(Answer::decode(&body), Ok(Answer::Failure(reason.into())));
    }
    assert_eq!(stage.service.announces().n_peers(), 0);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_so_are_single_bytes() {
    let stage = Stage::new().await;
    let (_olga, _events, file, key) = stage.open_lab().await;
    let mut client = Client::connect(&stage, "10.0.9.1");
    let request = |port| format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", url(&key, &announce(file.info_hash, port)));
    let many: String = (1..=40).map(request).collect();
    client.send(many.as_bytes()).await;
    for n in 0..40 {
        assert_eq!(peers(&client.answer().await.1).len(), n, "each knows those before it");
    }
    for byte in request(41).as_bytes() {
        client.send(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(peers(&client.answer().await.1).len(), 40);
}

#[tokio::test]
async fn old_clients_and_those_that_say_close_are_closed_after_the_answer() {
    let stage = Stage::new().await;
    for (request, connection) in [
        ("GET /health HTTP/1.0\r\n\r\n", "close"),
        ("GET /health HTTP/1.1\r\nConnection: Upgrade, Close\r\n\r\n", "close"),
        ("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive"),
    ] {
        let mut client = Client::connect(&stage, "10.0.9.1");
        client.send(request.as_bytes()).await;
        let (head, body) = client.answer().await;
        assert!(head.ends_with(&format!("Connection: {connection}")) && body == b"ok\n", "{head}");
        match connection {
            "close" => client.closed().await,
            _ => assert_eq!(client.get("http://any.host:1/health").await.1, b"ok\n"),
        }
    }
}

#[tokio::test]
async fn what_is_no_request_of_ours_gets_its_status_and_the_end() {
    let stage = Stage::new().await;
    let long_url = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(64 * 1024));
    let long_header = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(9000));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(65));
    for (request, status) in [
        ("POST /announce HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "405 Method Not Allowed"),
        ("DELETE / HTTP/1.1\r\n\r\n", "405 "),
        ("GET / HTTP/1.1\r\n\r\n", "404 "),
        ("GET /a/b/announce HTTP/1.1\r\n\r\n", "404 "),
        ("GET /health HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "400 "),
        ("GET /health HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "400 "),
        ("GET nothing\r\n\r\n", "400 "),
        ("GET / HTTP/2.0\r\n\r\n", "400 "),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", "400 "),
        (&long_url, "414 URI Too Long"),
        (&long_header, "431 "),
        (&many_headers, "431 "),
    ] {
        let mut client = Client::connect(&stage, "10.0.9.1");
        client.send(request.as_bytes()).await;
        let (head, body) = client.answer().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{request:.40}: {head}");
        assert!(head.contains("Connection: close") && body.is_empty(), "{head}");
        client.closed().await;
    }
}

#[tokio::test]
async fn a_head_request_gets_the_head_alone() {
    let stage = Stage::new().await;
    let mut client = Client::connect(&stage, "10.0.9.1");
    client.send(b"HEAD /health HTTP/1.1\r\n\r\nGET /health HTTP/1.1\r\n\r\n").await;
    let (head, _) = client.answer_to(true).await;
    assert!(head.contains("Content-Length: 3"), "{head}");
    assert_eq!(client.answer().await.1, b"ok\n");
}

/// Lets the clock of the test run while a client waits for its end.
async fn closed_after(stage: &Stage, client: Client) -> Duration {
    let start = stage.clock.now();
    let ticking = async {
        loop {
            tokio::task::yield_now().await;
            stage.clock.advance(Duration::from_millis(10));
        }
    };
    tokio::select! { () = client.closed() => {}, () = ticking => {} }
    stage.clock.now().since(start)
}

/// A head has 10 s from its first byte on, however slowly it drips; a silent connection has a minute.
#[tokio::test]
async fn slow_and_silent_clients_are_closed() {
    let stage = Stage::new().await;
    let mut slow = Client::connect(&stage, "10.0.9.1");
    slow.send(b"GET /health HTTP/1.1\r\n\r\nG").await;
    assert_eq!(slow.answer().await.1, b"ok\n");
    for byte in b"ET /h" {
        stage.clock.advance(Duration::from_millis(1900));
        slow.send(&[*byte]).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    assert!(closed_after(&stage, slow).await < Duration::from_secs(2));
    let mut silent = Client::connect(&stage, "10.0.9.1");
    assert_eq!(silent.get("/health").await.1, b"ok\n");
    let took = closed_after(&stage, silent).await;
    assert!((Duration::from_secs(55)..Duration::from_secs(70)).contains(&took), "{took:?}");
}

/// A client that sends and never reads is dropped, and does not make the answers pile up.
#[tokio::test]
async fn who_does_not_read_is_dropped() {
    let stage = Stage::new().await;
    let mut client = Client::connect(&stage, "10.0.9.1");
    let requests = "GET /health HTTP/1.1\r\n\r\n".repeat(1000);
    let flood = async { while client.stream.write_all(requests.as_bytes()).await.is_ok() {} };
    let ticking = async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            stage.clock.advance(Duration::from_millis(100));
        }
    };
    let ended = async {
        tokio::select! { () = flood => {}, () = ticking => {} }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
}

#[tokio::test]
async fn metrics_are_for_this_machine_and_name_nobody() {
    let stage = Stage::new().await;
    let (_olga, _events, file, key) = stage.open_lab().await;
    let mut client = Client::connect(&stage, "10.0.9.1");
    client.get(&url(&key, &announce(file.info_hash, 1))).await;
    client.get("/announce").await;
    assert!(client.get("/metrics").await.0.starts_with("HTTP/1.1 404"));
    for loopback in ["127.0.0.1", "::1"] {
        let mut local = Client::connect(&stage, loopback);
        let (_, body) = local.get("/metrics").await;
        let text = String::from_utf8(body).unwrap();
        for line in [
            "mini_tracker_requests_total{protocol=\"http\",kind=\"announce\"} 2",
            "mini_tracker_requests_refused_total 1",
            "mini_tracker_peers{kind=\"member\"} 1",
            "mini_tracker_peers{kind=\"stock\"} 1",
            "mini_tracker_stock_swarms 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in:\n{text}");
        }
        assert!(!text.contains("olga") && !text.contains("lab") && !text.contains("file7"), "{text}");
    }
}

/// Requests with bytes changed at random, and pure noise.
#[test]
fn any_bytes_are_survived() {
    use rand::{RngExt, SeedableRng};
    let mut random = rand::rngs::StdRng::seed_from_u64(4);
    let good = b"GET /0123/announce?info_hash=%01&left=0 HTTP/1.1\r\nConnection: keep-alive\r\nA: b\r\n\r\n";
    for _ in 0..20_000 {
        let mut bytes = good.to_vec();
        for _ in 0..random.random_range(0..6) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        bytes.truncate(random.random_range(0..=bytes.len()));
        if let Parsed::Whole(_, length) = request::parse(&bytes) {
            assert!(length <= bytes.len());
        }
        let noise: [u8; 40] = random.random();
        let _ = request::parse(&noise);
    }
}

#[tokio::test]
async fn health_says_whether_the_store_answers() {
    let stage = Stage::new().await;
    let mut client = Client::connect(&stage, "10.0.9.1");
    let (head, body) = client.get("/health").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && body == b"ok\n", "{head}");
    stage.service.store().close().await;
    assert_eq!(client.get("/health").await.1, b"ok\n", "known from a moment ago");
    stage.clock.advance(Duration::from_secs(limits::HEALTH_LIFE_S));
    assert!(stage.service.is_well().await, "a closed store may still be read");
}

/// A tracker that was stopped looks at what happened meanwhile before it names anybody.
#[tokio::test]
async fn who_was_stopped_looks_before_it_answers() {
    let stage = Stage::new().await;
    let (_olga, _events, file, key) = stage.open_lab().await;
    let mut client = Client::connect(&stage, "10.0.0.9");
    stage.clock.advance(limits::STOPPED_AFTER);
    let url = url(&key, &announce(file.info_hash, 7));
    let mut asking = std::pin::pin!(client.get(&url));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut asking).await;
    assert!(early.is_err(), "answered by what it knew");
    stage.service.keep_step().await.unwrap();
    assert_eq!(asking.await.0.lines().next(), Some("HTTP/1.1 200 OK"));
}
