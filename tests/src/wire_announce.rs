//! What an ordinary client says to a tracker, by HTTP and by UDP.

use crate::waiting::DEADLINE;
use mini_torrent_common::announce::{Counts, ScrapeAnswer, scrape_query};
use mini_torrent_common::hash::InfoHash;
use mini_torrent_common::udp_announce::{Family, MAX_PACKET_LENGTH, Request, Response};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};

/// The body of the answer to one HTTP request.
///
/// # Panics
/// When there is none.
pub fn get(tracker: SocketAddr, target: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(tracker).expect("the tracker accepts");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
    let request = format!("GET {target} HTTP/1.1\r\nHost: {tracker}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the tracker reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the tracker answers");
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    answer.split_off(end + 4)
}

/// The numbers of a torrent by HTTP, without a key.
///
/// # Errors
/// The tracker's reason for giving none.
///
/// # Panics
/// When there is no answer.
pub fn scrape_by_http(tracker: SocketAddr, info_hash: InfoHash) -> Result<Counts, String> {
    let body = get(tracker, &format!("/scrape?{}", scrape_query(&[info_hash])));
    match ScrapeAnswer::decode(&body).expect("an answer to a scrape") {
        ScrapeAnswer::Failure(reason) => Err(reason),
        ScrapeAnswer::Files(files) => {
            let [(hash, counts)] = files[..] else { panic!("not one torrent: {files:?}") };
            assert_eq!(hash, info_hash);
            Ok(counts)
        }
    }
}

/// The numbers of a torrent by UDP, without a key.
///
/// # Errors
/// The tracker's reason for giving none.
///
/// # Panics
/// When there is no answer.
pub fn scrape_by_udp(tracker: SocketAddr, info_hash: InfoHash) -> Result<Counts, String> {
    let socket = UdpSocket::bind((tracker.ip(), 0)).expect("a free port");
    socket.connect(tracker).expect("an address");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
    let mut buffer = [0; MAX_PACKET_LENGTH];
    let mut ask = |request: Request<'_>| {
        let mut packet = Vec::new();
        request.encode(&mut packet);
        socket.send(&packet).expect("the tracker is there");
        let length = socket.recv(&mut buffer).expect("the tracker answers");
        buffer[..length].to_vec()
    };
    let connected = ask(Request::Connect { transaction_id: 1 });
    let Ok(Response::Connect { connection_id, .. }) = Response::decode(&connected, Family::V4) else {
        panic!("not connected: {connected:?}")
    };
    let answer = ask(Request::Scrape { connection_id, transaction_id: 2, hashes: &[info_hash.0] });
    match Response::decode(&answer, Family::V4) {
        Ok(Response::Error { reason, .. }) => Err(String::from_utf8_lossy(reason).into_owned()),
        Ok(response @ Response::Scrape { .. }) => Ok(response.counts().next().expect("one torrent's numbers")),
        other => panic!("no answer to a scrape: {other:?}"),
    }
}
