//! Announcing to scripted trackers: tiers, events, scopes, and what a foreign URL may not do.

use super::*;
use mini_torrent_common::announce::AnnounceRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// An HTTP tracker that answers every announce with the same body, and hands on what it was asked.
async fn tracker(body: &'static [u8]) -> (String, mpsc::Receiver<AnnounceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let (asked, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let n = stream.read(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request[..n]).into_owned();
            let query = text.split_once('?').unwrap().1.split(' ').next().unwrap();
            let _ = asked.send(AnnounceRequest::from_query(query.as_bytes()).unwrap()).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
        }
    });
    (url, receiver)
}

struct Stage {
    announcing: Announcing,
    status: watch::Sender<TorrentStatus>,
    found: mpsc::Receiver<Control>,
}

fn announce_to(tiers: Vec<Vec<String>>, size: Option<u64>) -> Stage {
    let (status, status_receiver) = watch::channel(TorrentStatus::default());
    let (found_sender, found) = mpsc::channel(16);
    let announcing = Announcing::start(AnnouncePlan {
        info_hash: InfoHash([1; 20]),
        peer_id: PeerId([2; 20]),
        port: 6881,
        own_ip: LOOPBACK,
        tiers,
        size,
        status: status_receiver,
        found: found_sender,
        before: Vec::new(),
    });
    Stage { announcing, status, found }
}

async fn addresses(found: &mut mpsc::Receiver<Control>) -> Vec<String> {
    match found.recv().await {
        Some(Control::AddressesCame(addresses)) => addresses.iter().map(ToString::to_string).collect(),
        _ => panic!("no addresses"),
    }
}

const TWO_PEERS: &[u8] = b"d8:intervali7200e5:peers12:\x7f\0\0\x01\0\x05\x0a\0\0\x01\0\x06e";

/// B3: started, completed and stopped, each with what is missing then.
#[tokio::test]
async fn b3_the_events_of_a_download_are_told_in_order() {
    let (url, mut asked) = tracker(TWO_PEERS).await;
    let Stage { announcing, status, mut found } = announce_to(vec![vec![url]], Some(100));
    let started = asked.recv().await.unwrap();
    assert_eq!((started.event, started.left, started.port), (Event::Started, 100, 6881));
    assert_eq!((started.info_hash, started.peer_id), (InfoHash([1; 20]), PeerId([2; 20])));
    assert_eq!(addresses(&mut found).await, ["127.0.0.1:5", "10.0.0.1:6"]);
    let done = TorrentStatus { done_bytes: 100, downloaded_bytes: 90, uploaded_bytes: 7, ..TorrentStatus::default() };
    status.send_replace(done);
    let completed = asked.recv().await.unwrap();
    assert_eq!((completed.event, completed.left), (Event::Completed, 0));
    assert_eq!((completed.downloaded, completed.uploaded), (90, 7));
    addresses(&mut found).await;
    announcing.stop().await.unwrap();
    let stopped = asked.recv().await.unwrap();
    assert_eq!((stopped.event, stopped.numwant), (Event::Stopped, Some(0)));
}

/// BEP 12: the next tier is asked when none of the first answers.
#[tokio::test]
async fn the_next_tier_is_asked_when_one_fails() {
    let (refusing, mut refused) = tracker(b"d14:failure reason2:noe").await;
    let (answering, mut asked) = tracker(TWO_PEERS).await;
    let stage = announce_to(vec![vec!["https://x/announce".into(), refusing], vec![answering]], Some(100));
    assert_eq!(refused.recv().await.unwrap().event, Event::Started);
    assert_eq!(asked.recv().await.unwrap().event, Event::Started);
    assert_eq!(stage.announcing.trouble(), None);
    stage.announcing.stop().await.unwrap();
}

/// B3: a refusal reaches the user with the tracker's words.
#[tokio::test]
async fn b3_a_failure_reason_is_shown() {
    let (url, mut asked) = tracker(b"d14:failure reason11:unknown keye").await;
    let mut stage = announce_to(vec![vec![url]], Some(100));
    asked.recv().await.unwrap();
    stage.announcing.trouble.changed().await.unwrap();
    assert!(stage.announcing.trouble().unwrap().ends_with(": unknown key"));
    // A tracker that never heard of us is not told that we leave.
    stage.announcing.stop().await.unwrap();
    assert!(asked.try_recv().is_err());
}

/// Design §3: a path in our own network has to look like a tracker's.
#[tokio::test]
async fn a_foreign_file_cannot_aim_us_at_any_path_of_this_network() {
    let (url, mut asked) = tracker(TWO_PEERS).await;
    let mut stage = announce_to(vec![vec![url.replace("/announce", "/admin/delete")]], None);
    stage.announcing.trouble.changed().await.unwrap();
    assert!(stage.announcing.trouble().unwrap().contains("path"));
    assert!(asked.try_recv().is_err(), "nothing was asked");
}

#[test]
fn files_whose_trackers_cannot_be_asked_are_refused_at_once() {
    let check = |url: &str| check_urls(&[vec![url.to_owned()]]).map_err(|error| error.code);
    assert_eq!(check("https://t/announce"), Err(ErrorCode::Io));
    assert_eq!(check("wss://t/announce"), Err(ErrorCode::InvalidMetainfo));
    assert_eq!(check("udp://t:1"), Ok(()));
    assert_eq!(check_urls(&[]).map_err(|error| error.code), Err(ErrorCode::InvalidMetainfo));
}
