//! Our client where no tracker of ours is: files of foreign .torrent files and magnet links, and what a foreign file may
//! not bring about (acceptance B3, B4, B12; issue 4, "What bad input gets").

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_common::announce::Event;
use mini_torrent_common::torrent::Torrent;
use mini_torrent_tests::files::{assert_same, random_bytes};
use mini_torrent_tests::foreign_tracker::{Answers, ForeignTracker};
use mini_torrent_tests::{Client, Content, Deployment, P, eventually, programs};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

const FILE: &str = "film.mkv";

fn content() -> Content {
    Content::new(FILE, random_bytes(usize::try_from(3 * P + 77).unwrap(), 21))
}

/// Two clients that nobody is signed in at.
fn two() -> Deployment {
    let mut deployment = Deployment::empty(programs!());
    for name in ["ann", "bob"] {
        let client = Client::start(&deployment.scene, &deployment.tracker, name);
        deployment.clients.push(client);
    }
    deployment
}

fn torrent_of(content: &Content, url: String) -> Torrent {
    Torrent::new(vec![vec![url]], content.foreign_info()).unwrap()
}

/// Has a client seed what it has already: `get` finds the file at its place. The file.
fn seed(client: &mut Client, torrent: &Path, content: &Content) -> PathBuf {
    let file = client.path(FILE);
    std::fs::write(&file, &*content.bytes).unwrap();
    client.expect_ok(&format!("get {} {}", torrent.display(), file.display()));
    client.wait_event_kind("download_completed");
    file
}

/// B3, B4, B12: with compact and with dictionary replies a file is fetched and then seeded, and the tracker hears of it
/// all: what is asked for, who asks, how much is missing, and each event.
#[test]
fn b3_b4_b12_a_foreign_torrent_is_fetched_and_announced() {
    let content = content();
    let length = content.bytes.len() as u64;
    for answers in [Answers::Compact, Answers::Dictionaries] {
        let mut deployment = two();
        let tracker = ForeignTracker::start(answers);
        let torrent = torrent_of(&content, tracker.url());
        let path = deployment.scene.write("foreign.torrent", torrent.encode());
        let [ann, bob] = deployment.some();
        let original = seed(ann, &path, &content);
        let seeding = tracker.wait_asked(ann.address().port(), Event::Started);
        assert_eq!((seeding.left, seeding.info_hash), (0, torrent.info_hash()));
        let copy = bob.path("got.mkv");
        bob.expect_ok(&format!("get {} {}", path.display(), copy.display()));
        bob.wait_event_kind("download_completed");
        assert_same(&original, &copy);
        let port = bob.address().port();
        let started = tracker.wait_asked(port, Event::Started);
        assert_eq!((started.left, started.downloaded, started.info_hash), (length, 0, torrent.info_hash()));
        assert_ne!(started.peer_id, seeding.peer_id);
        assert_eq!(started.compact, Some(true));
        let completed = tracker.wait_asked(port, Event::Completed);
        assert_eq!((completed.left, completed.peer_id), (0, started.peer_id));
        assert!(completed.downloaded >= length, "{completed:?}");
        bob.quit();
        tracker.wait_asked(port, Event::Stopped);
    }
}

/// A magnet link brings the same file: what describes it comes from the peers.
#[test]
fn a_magnet_link_is_fetched_with_its_metadata() {
    let (mut deployment, content) = (two(), content());
    let tracker = ForeignTracker::start(Answers::Compact);
    let torrent = torrent_of(&content, tracker.url());
    let path = deployment.scene.write("foreign.torrent", torrent.encode());
    let [ann, bob] = deployment.some();
    let original = seed(ann, &path, &content);
    tracker.wait_asked(ann.address().port(), Event::Started);
    let copy = bob.path("got.mkv");
    let link = format!("magnet:?xt=urn:btih:{}&tr={}", torrent.info_hash(), tracker.url());
    bob.expect_ok(&format!("get '{link}' {}", copy.display()));
    bob.wait_event_kind("download_completed");
    assert_same(&original, &copy);
}

/// A socket that a foreign file would like us to connect to.
struct Bait(TcpListener);

impl Bait {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    fn assert_untouched(&self) {
        let connected = self.0.accept().map(drop).map_err(|error| error.kind());
        assert_eq!(connected, Err(ErrorKind::WouldBlock), "somebody connected");
    }
}

/// Where a tracker redirects to nobody connects; whatever it says instead of peers is shown (B3).
#[test]
fn a_redirect_is_not_followed_and_a_refusal_is_shown() {
    let bait = Bait::new();
    let redirect =
        format!("HTTP/1.1 302 Found\r\nLocation: http://{}/announce\r\nContent-Length: 0\r\n\r\n", bait.address());
    let refusal = "HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\nd14:failure reason14:not registerede";
    for (answer, reason) in [(redirect.as_str(), "redirects"), (refusal, "not registered")] {
        let mut deployment = two();
        let tracker = ForeignTracker::start(Answers::Fixed(answer.as_bytes().to_vec()));
        let torrent = torrent_of(&content(), tracker.url());
        let path = deployment.scene.write("foreign.torrent", torrent.encode());
        let bob = &mut deployment.clients[1];
        bob.expect_ok(&format!("get {} {}", path.display(), bob.path("got.mkv").display()));
        eventually(&format!("the reason is shown: {reason}"), || {
            let shown = bob.expect_ok("show_downloads")["downloads"][0]["reason"].clone();
            shown.as_str().is_some_and(|shown| shown.contains(reason)).then_some(())
        });
        bait.assert_untouched();
    }
}

/// A tracker of our own network is asked for announces and nothing else.
#[test]
fn a_url_that_is_no_trackers_is_not_asked_in_our_own_network() {
    let (mut deployment, bait) = (two(), Bait::new());
    let torrent = torrent_of(&content(), format!("http://{}/admin/delete?all=1", bait.address()));
    let path = deployment.scene.write("foreign.torrent", torrent.encode());
    let bob = &mut deployment.clients[1];
    bob.expect_ok(&format!("get {} {}", path.display(), bob.path("got.mkv").display()));
    eventually("the reason is shown", || {
        let shown = bob.expect_ok("show_downloads")["downloads"][0]["reason"].clone();
        shown.as_str().is_some_and(|shown| shown.contains("path")).then_some(())
    });
    bait.assert_untouched();
}

/// A .mtorrent of a tracker that is not in our tracker_info.txt gets no credential: nobody even connects to it.
#[test]
fn a_foreign_tracker_of_an_mtorrent_is_not_connected_to() {
    let (mut deployment, bait) = (two(), Bait::new());
    let text = format!("{0}\n{0}\n{FILE}\n3\n{1}\n", bait.address(), "a".repeat(20));
    let path = deployment.scene.write("foreign.mtorrent", text);
    let bob = &mut deployment.clients[1];
    bob.sign_up("bob");
    for command in ["get", "scrape", "remove"] {
        let destination = if command == "get" { "." } else { "" };
        let refused = bob.expect_error(&format!("{command} {} {destination}", path.display()), "invalid_metainfo");
        assert!(refused.contains(&bait.address()), "{refused}");
    }
    bob.quit();
    bait.assert_untouched();
}
