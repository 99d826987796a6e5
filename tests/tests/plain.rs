//! Plain handshakes of ordinary clients at a member's port: who gets in, how many, and how they are put out (design §7).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use bytes::BytesMut;
use mini_torrent_common::hash::{InfoHash, PeerId};
use mini_torrent_common::peer_wire::{BlockRange, HANDSHAKE_LENGTH, Handshake, Message};
use mini_torrent_common::torrent::Torrent;
use mini_torrent_tests::files::{assert_same, random_file};
use mini_torrent_tests::{
    Client, DEADLINE, Deployment, GROUP, P, eventually, eventually_within, programs, wire_announce,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

const FILE: &str = "film.mkv";
const BLOCK: u32 = 16 * 1024;

/// A group of two with a file of `n_pieces`, which ann shares.
fn group_with_file(n_pieces: u64) -> (Deployment, PathBuf, InfoHash) {
    let mut deployment = Deployment::of(programs!(), 2);
    let ann = &mut deployment.clients[0];
    let file = random_file(ann.path(FILE), n_pieces * P, 11);
    let listed = ann.upload(&file, GROUP);
    let info_hash = listed["info_hash"].as_str().unwrap().parse().unwrap();
    (deployment, file, info_hash)
}

/// A member's personal .torrent, and the path of its announce URL without its end.
fn export(client: &mut Client) -> (PathBuf, String) {
    let path = client.path("personal.torrent");
    client.expect_ok(&format!("export_torrent {GROUP} {FILE} {}", path.display()));
    let torrent = Torrent::decode(&std::fs::read(&path).unwrap()).unwrap();
    let url = torrent.urls().find(|url| url.starts_with("http://")).unwrap().to_owned();
    let (_, path_of_url) = url.trim_start_matches("http://").split_once('/').unwrap();
    (path, format!("/{}", path_of_url.trim_end_matches("/announce")))
}

fn announce(tracker: SocketAddr, key_path: &str, info_hash: InfoHash) {
    let hash: String = info_hash.0.iter().map(|byte| format!("%{byte:02x}")).collect();
    let query =
        format!("info_hash={hash}&peer_id=-XX0000-123456789012&port=9&uploaded=0&downloaded=0&left=5&compact=1");
    let answer = wire_announce::get(tracker, &format!("{key_path}/announce?{query}&event=started"));
    assert!(answer.starts_with(b"d8:complete"), "{}", String::from_utf8_lossy(&answer));
}

/// A plain handshake; `None` when the other side closes instead of answering it.
fn shake_hands(address: SocketAddr, info_hash: InfoHash, nth: u8) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let handshake = Handshake { info_hash, peer_id: PeerId([nth; 20]), fast: false, extended: false };
    stream.write_all(&handshake.encode()).ok()?;
    stream.read_exact(&mut [0; HANDSHAKE_LENGTH]).ok()?;
    Some(stream)
}

/// Once the member has heard of the announce.
fn come_in(address: SocketAddr, info_hash: InfoHash) -> TcpStream {
    eventually("an announced address is admitted", || shake_hands(address, info_hash, 1))
}

/// A foreign torrent is open to everybody, but nothing of a group is, whatever somebody makes of its info-hash.
#[test]
fn a_magnet_link_opens_nothing_of_a_group() {
    let (mut deployment, _, info_hash) = group_with_file(2);
    let ann = &mut deployment.clients[0];
    ann.expect_ok(&format!("get magnet:?xt=urn:btih:{info_hash}&tr=http://127.0.0.1:1/announce got.mkv"));
    assert!(shake_hands(ann.address(), info_hash, 1).is_none());
    ann.expect_ok(&format!("set_group {GROUP} stock-clients on"));
    let (torrent, _) = export(ann);
    let text = ann.expect_error(&format!("get {} elsewhere.mkv", torrent.display()), "invalid_metainfo");
    assert!(text.contains("download_file"), "{text}");
}

/// Two magnet links may go into one directory.
#[test]
fn magnet_links_share_a_directory() {
    let mut deployment = Deployment::of(programs!(), 1);
    let ann = &mut deployment.clients[0];
    for hash in ["aa".repeat(20), "bb".repeat(20)] {
        ann.expect_ok(&format!("get magnet:?xt=urn:btih:{hash}&tr=http://127.0.0.1:1/announce ."));
    }
}

/// Within 2 s of the revocation nothing more comes, not even what was written before and not yet taken.
#[test]
fn a_revoked_client_is_reset_with_what_it_has_not_taken() {
    let (mut deployment, _, info_hash) = group_with_file(32);
    let tracker = deployment.tracker.address();
    let [ann, bob] = deployment.some();
    ann.expect_ok(&format!("set_group {GROUP} stock-clients on"));
    let (_, key_path) = export(bob);
    announce(tracker, &key_path, info_hash);
    let mut stream = come_in(ann.address(), info_hash);
    rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 64 * 1024).unwrap();
    let mut requests = BytesMut::new();
    Message::Interested.encode(&mut requests);
    for index in 0..16 {
        for begin in (0..512 * 1024).step_by(BLOCK as usize) {
            Message::Request(BlockRange { index, begin, length: BLOCK }).encode(&mut requests);
        }
    }
    stream.write_all(&requests).unwrap();
    // It is being served.
    stream.read_exact(&mut [0; 100_000]).unwrap();
    bob.expect_ok("revoke_key 1");
    let (mut n_read, mut buffer) = (0, vec![0; 4096]);
    stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    eventually_within(Duration::from_secs(2), "the connection is reset", || match stream.read(&mut buffer) {
        Ok(n) => {
            n_read += n;
            assert!(n > 0, "an orderly end delivers everything that was written");
            None
        }
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(()),
        Err(_) => None,
    });
    assert!(n_read < 2 << 20, "{n_read} bytes came after the revocation");
}

/// However many connections an admitted address opens, members find room.
#[test]
fn an_ordinary_client_leaves_room_for_members() {
    let (mut deployment, file, info_hash) = group_with_file(2);
    let tracker = deployment.tracker.address();
    let [ann, bob] = deployment.some();
    ann.expect_ok(&format!("set_group {GROUP} stock-clients on"));
    let (_, key_path) = export(bob);
    announce(tracker, &key_path, info_hash);
    let mut held = vec![come_in(ann.address(), info_hash)];
    held.extend((2..250).filter_map(|nth| shake_hands(ann.address(), info_hash, nth)));
    let is_open = |stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        loop {
            match (&*stream).read(&mut buffer) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    };
    eventually("most are closed", || (held.iter().filter(|stream| is_open(stream)).count() <= 8).then_some(()));
    assert_same(&file, bob.download(GROUP, FILE));
}
