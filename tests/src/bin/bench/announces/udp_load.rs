//! Announces by UDP (BEP 15, 41), many at a time, from many addresses through one socket: each batch names the address
//! that it comes from.

use super::Tally;
use super::population::{Announcement, N_SOURCES, NUMWANT, Population, source_address};
use mini_torrent_common::announce::Event;
use mini_torrent_common::udp_announce::{AnnounceRequest, Family, MAX_PACKET_LENGTH, Request, Response};
use mini_torrent_tests::eventually;
use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt};
use std::io::{IoSlice, IoSliceMut};
use std::iter;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Announces that wait for their answer at most.
const WINDOW: usize = 160;
/// Packets of one call to the system.
const BATCH: usize = 40;
/// After so long without any answer, what was sent is lost.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// Bytes that the system keeps for us: the answers to a whole window, each with what the system needs for itself.
const BUFFER_LENGTH: usize = 4 << 20;
/// Bytes that an answer to an announce has in front of its peers.
const ANSWER_HEAD: usize = 20;
const PEER_LENGTH: usize = 6;

/// A socket and its buffers.
pub(super) struct UdpLoad {
    socket: UdpSocket,
    tracker: SockaddrIn,
    /// The connection id of each address.
    connection_ids: Vec<u64>,
    requests: Vec<Vec<u8>>,
    answers: Vec<[u8; MAX_PACKET_LENGTH]>,
    sent: MultiHeaders<SockaddrIn>,
    received: MultiHeaders<SockaddrIn>,
}

impl UdpLoad {
    /// Takes a port.
    pub(super) fn new(tracker: SocketAddr) -> Self {
        let SocketAddr::V4(tracker) = tracker else { panic!("the tracker listens on {tracker}") };
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER_LENGTH).expect("a UDP socket");
        Self {
            socket,
            tracker: tracker.into(),
            connection_ids: vec![0; N_SOURCES as usize],
            requests: vec![Vec::new(); BATCH],
            answers: vec![[0; MAX_PACKET_LENGTH]; BATCH],
            sent: MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(in_pktinfo))),
            received: MultiHeaders::preallocate(BATCH, None),
        }
    }

    /// Announces new peers, each once, until there are `n_peers`.
    pub(super) fn fill(&mut self, population: &mut Population, n_peers: u32) {
        let new = population.grow(n_peers);
        let population = &*population;
        let mut batches = new.iter().flat_map(|(source, peers)| peers.chunks(BATCH).map(move |some| (*source, some)));
        self.connect();
        let tally = self.exchange(Event::Started, || {
            let (source, peers) = batches.next()?;
            Some((source, peers.iter().map(|peer| population.announcement(*peer)).collect()))
        });
        tally.check();
    }

    /// Announces peers at random for so long.
    pub(super) fn run(&mut self, population: &Population, duration: Duration) -> Tally {
        self.connect();
        let until = Instant::now() + duration;
        let mut sources = (0..N_SOURCES).cycle();
        self.exchange(Event::Periodic, || {
            let source = sources.next().filter(|_| Instant::now() < until)?;
            Some((source, iter::from_fn(|| population.any_announcement(source)).take(BATCH).collect()))
        })
    }

    /// Sends batches as they come and counts their answers.
    fn exchange<'a>(&mut self, event: Event, mut next: impl FnMut() -> Option<(u32, Vec<Announcement<'a>>)>) -> Tally {
        let mut tally = Tally::default();
        let (mut n_waiting, mut last_answer, mut is_over) = (0, Instant::now(), false);
        while !is_over || n_waiting > 0 {
            if !is_over && n_waiting + BATCH <= WINDOW {
                match next() {
                    Some((source, announcements)) => {
                        self.write(source, &announcements, event);
                        self.send(source, announcements.len());
                        n_waiting += announcements.len();
                        tally.n_wrong +=
                            announcements.iter().filter(|announcement| announcement.is_wrong).count() as u64;
                    }
                    None => is_over = true,
                }
            }
            let n_received = self.receive(|answer| tally.count(answer));
            n_waiting = n_waiting.saturating_sub(n_received);
            if n_received > 0 || n_waiting == 0 {
                last_answer = Instant::now();
            } else if last_answer.elapsed() > LOST_AFTER {
                tally.n_lost += n_waiting as u64;
                n_waiting = 0;
            }
        }
        tally
    }

    /// Gets a connection id for each address.
    fn connect(&mut self) {
        let mut missing: Vec<u32> = (0..N_SOURCES).collect();
        eventually("the tracker hands out connection ids", || {
            for source in &missing {
                self.requests[0].clear();
                Request::Connect { transaction_id: *source }.encode(&mut self.requests[0]);
                self.send(*source, 1);
            }
            let mut ids = Vec::new();
            while self.receive(|answer| ids.extend(connected(answer))) > 0 {}
            for (source, id) in ids {
                self.connection_ids[source as usize] = id;
                missing.retain(|one| *one != source);
            }
            missing.is_empty().then_some(())
        });
    }

    fn write(&mut self, source: u32, announcements: &[Announcement<'_>], event: Event) {
        let connection_id = self.connection_ids[source as usize];
        for (out, announcement) in self.requests.iter_mut().zip(announcements) {
            let Announcement { info_hash, path, port, left, .. } = *announcement;
            let numwant = Some(NUMWANT);
            let request =
                AnnounceRequest { connection_id, info_hash, port, left, event, numwant, ..AnnounceRequest::default() };
            out.clear();
            request.encode_with_url_data(path.as_bytes(), out);
        }
    }

    /// Sends the first `n` requests from an address.
    fn send(&mut self, source: u32, n: usize) {
        let address = in_addr { s_addr: u32::from_ne_bytes(source_address(source).octets()) };
        let from = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: in_addr { s_addr: 0 } };
        let slices: Vec<_> = self.requests.iter().take(n).map(|request| [IoSlice::new(request)]).collect();
        let to = vec![Some(self.tracker); n];
        let from = [ControlMessage::Ipv4PacketInfo(&from)];
        let sent = sendmmsg(self.socket.as_raw_fd(), &mut self.sent, &slices, to, from, MsgFlags::empty());
        sent.map(drop).expect("the system sends packets");
    }

    /// Takes what has arrived, without waiting; returns how many packets.
    fn receive(&mut self, mut take: impl FnMut(&[u8])) -> usize {
        let mut slices: Vec<_> = self.answers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let Ok(received) = recvmmsg(fd, &mut self.received, slices.iter_mut(), flags, None) else { return 0 };
        let lengths: Vec<usize> = received.map(|message| message.bytes).collect();
        for (answer, length) in self.answers.iter().zip(&lengths) {
            take(&answer[..*length]);
        }
        lengths.len()
    }
}

/// The address that asked for a connection id, and the id.
fn connected(answer: &[u8]) -> Option<(u32, u64)> {
    match Response::decode(answer, Family::V4) {
        Ok(Response::Connect { transaction_id, connection_id }) => Some((transaction_id, connection_id)),
        _ => None,
    }
}

impl Tally {
    fn count(&mut self, answer: &[u8]) {
        match Response::decode(answer, Family::V4) {
            Ok(Response::Announce { .. }) => self.n_named += ((answer.len() - ANSWER_HEAD) / PEER_LENGTH) as u64,
            Ok(Response::Error { .. }) => self.n_refused += 1,
            other => panic!("no answer to an announce: {other:?}"),
        }
        self.n_answered += 1;
    }
}
