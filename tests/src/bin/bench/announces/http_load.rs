//! Announces by HTTP over connections that are kept: one question is under way on each.

use super::Tally;
use super::population::{Announcement, N_SOURCES, NUMWANT, Population, source_address};
use mini_torrent_common::announce::{AnnounceRequest, Event};
use mini_torrent_common::hash::PeerId;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

const MAX_ANSWER_LENGTH: usize = 16 * 1024;
const PEER_LENGTH: u64 = 6;

/// A connection from each address.
pub(super) struct HttpLoad {
    connections: Vec<TcpStream>,
    question: Vec<u8>,
    answer: Vec<u8>,
}

impl HttpLoad {
    /// Connects.
    pub(super) fn new(tracker: SocketAddr) -> Self {
        let connections = (0..N_SOURCES).map(|source| {
            let stream = dial(source, tracker).expect("the tracker accepts");
            stream.set_nodelay(true).expect("a TCP socket");
            stream
        });
        Self { connections: connections.collect(), question: Vec::new(), answer: vec![0; MAX_ANSWER_LENGTH] }
    }

    /// Announces peers at random for so long. Connections take turns: the answer to the last question is read, then
    /// the next one asked, so that all others are under way meanwhile.
    pub(super) fn run(&mut self, population: &Population, duration: Duration) -> Tally {
        let mut tally = Tally::default();
        let until = Instant::now() + duration;
        let mut waiting = vec![false; self.connections.len()];
        loop {
            let goes_on = Instant::now() < until;
            for (source, is_waiting) in (0..N_SOURCES).zip(&mut waiting) {
                if std::mem::take(is_waiting) {
                    self.hear(source, &mut tally);
                }
                let next = population.any_announcement(source).filter(|_| goes_on);
                if let Some(announcement) = next {
                    tally.n_wrong += u64::from(announcement.is_wrong);
                    self.ask(source, announcement);
                    *is_waiting = true;
                }
            }
            if !goes_on {
                return tally;
            }
        }
    }

    fn ask(&mut self, source: u32, announcement: Announcement<'_>) {
        let Announcement { info_hash, path, port, left, .. } = announcement;
        let query = AnnounceRequest {
            info_hash,
            peer_id: PeerId(*b"-MT0100-abcdefghijkl"),
            port,
            uploaded: 0,
            downloaded: 0,
            left,
            event: Event::Periodic,
            numwant: Some(NUMWANT),
            compact: Some(true),
            no_peer_id: false,
            declared_ip: None,
        };
        let query = query.to_query();
        self.question.clear();
        write!(self.question, "GET {path}?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").expect("a vector takes all");
        let mut connection = &self.connections[source as usize];
        connection.write_all(&self.question).expect("the tracker reads");
    }

    fn hear(&mut self, source: u32, tally: &mut Tally) {
        let mut connection = &self.connections[source as usize];
        let mut length = 0;
        let body = loop {
            let n = connection.read(&mut self.answer[length..]).expect("the tracker answers");
            assert!(n > 0, "the tracker closed a connection");
            length += n;
            if let Some(body) = body_of(&self.answer[..length]) {
                break body;
            }
        };
        tally.n_answered += 1;
        match peers_length(body) {
            Some(n) => tally.n_named += n / PEER_LENGTH,
            None => tally.n_refused += 1,
        }
    }
}

/// A connection whose near end has this address.
fn dial(source: u32, tracker: SocketAddr) -> rustix::io::Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddrV4::new(source_address(source), 0))?;
    connect(&socket, &tracker)?;
    Ok(socket.into())
}

/// The body of an answer, once it has arrived whole.
fn body_of(answer: &[u8]) -> Option<&[u8]> {
    let (head, body) = split_at(answer, b"\r\n\r\n")?;
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", head.escape_ascii());
    let (_, length) = split_at(head, b"Content-Length: ")?;
    (leading_number(length) == body.len() as u64).then_some(body)
}

/// Bytes of the peers in the body; `None` of a refusal.
fn peers_length(body: &[u8]) -> Option<u64> {
    if body.starts_with(b"d14:failure reason") {
        return None;
    }
    let (_, peers) = split_at(body, b"5:peers").expect("an answer to an announce");
    Some(leading_number(peers))
}

/// What stands before and behind a mark.
fn split_at<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)?;
    Some((&bytes[..at], &bytes[at + mark.len()..]))
}

fn leading_number(text: &[u8]) -> u64 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}
