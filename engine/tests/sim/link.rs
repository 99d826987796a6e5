//! What stands between two nodes: the uplink and the downlink of each, shared by its connections.
//!
//! A connection is a stream. A block that was handed to its socket is committed: it goes out in order, and what is said
//! after it arrives after it. An uplink sends the streams that have something in turns of one packet, which is how TCP
//! flows share a bottleneck. A stream whose receiver has not got [`WINDOW_BYTES`] waits, and the others have its turns. A
//! downlink is a queue in order of arrival.

use mini_torrent_common::geometry::Block;
use mini_torrent_engine::{ConnectionId, Message};
use std::collections::VecDeque;
use std::time::Duration;

use super::UNLIMITED;

/// Bytes of blocks that a socket takes before the writer has to wait, at least: the writer's own and the system's.
const SEND_BUFFER_BYTES: u64 = 64 * 1024;
/// Systems fit the buffer to the flow: beyond that it takes what the flow sends in a tenth of a second.
const SEND_BUFFERS_PER_S: u64 = 10;
const SEND_BUFFER_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of one stream between the two ends.
const WINDOW_BYTES: u64 = 1024 * 1024;
/// Bytes that one stream sends in its turn: a block. One message always goes.
const TURN_BYTES: u64 = 17 * 1024;
/// Headers of IP and TCP on each full packet, and once for what does not fill one.
const HEADER_BYTES: u64 = 52;
const PACKET_BYTES: u64 = 1448;

/// A message under way, and whether the block in it is true.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) message: Message,
    pub(crate) is_true: bool,
}

impl Letter {
    /// Length on the wire (BEP 3).
    fn bytes(&self) -> u64 {
        match &self.message {
            Message::KeepAlive => 4,
            Message::Have(_) | Message::Suggest(_) | Message::AllowedFast(_) => 9,
            Message::Bitfield(bytes) => 5 + bytes.len() as u64,
            Message::Request { .. } | Message::Cancel { .. } | Message::Reject { .. } => 17,
            Message::Block { length, .. } => 13 + u64::from(*length),
            _ => 5,
        }
    }
}

/// What one turn of an uplink carries.
#[derive(Debug, Default)]
pub(crate) struct Packet {
    pub(crate) letters: Vec<Letter>,
    bytes: u64,
}

/// One node's end of a connection.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Who is at the other end, and its number for the connection.
    pub(crate) node: usize,
    pub(crate) remote: ConnectionId,
    /// When the last packet arrives: nothing overtakes it.
    pub(crate) arrives_at: Duration,
    /// Blocks that wait for room in the socket.
    pub(crate) waiting: VecDeque<Block>,
    committed: VecDeque<Letter>,
    committed_bytes: u64,
    in_flight_bytes: u64,
    has_turn: bool,
}

impl Stream {
    pub(crate) fn new(node: usize, remote: ConnectionId, arrives_at: Duration) -> Self {
        Self {
            node,
            remote,
            arrives_at,
            waiting: VecDeque::new(),
            committed: VecDeque::new(),
            committed_bytes: 0,
            in_flight_bytes: 0,
            has_turn: false,
        }
    }

    pub(crate) fn has_room(&self, send_buffer_bytes: u64) -> bool {
        self.committed_bytes < send_buffer_bytes
    }

    pub(crate) fn commit(&mut self, letter: Letter) {
        self.committed_bytes += letter.bytes();
        self.committed.push_back(letter);
    }

    /// Whether it joins the turns now.
    pub(crate) fn takes_turn(&mut self) -> bool {
        let joins = !self.has_turn && !self.committed.is_empty() && self.in_flight_bytes < WINDOW_BYTES;
        self.has_turn |= joins;
        joins
    }

    /// What goes out in its turn, which is over with that.
    pub(crate) fn next_packet(&mut self) -> Packet {
        self.has_turn = false;
        let mut packet = Packet::default();
        while let Some(letter) = self.committed.front() {
            if !packet.letters.is_empty() && packet.bytes + letter.bytes() > TURN_BYTES {
                break;
            }
            packet.bytes += letter.bytes();
            packet.letters.extend(self.committed.pop_front());
        }
        self.committed_bytes -= packet.bytes;
        self.in_flight_bytes += packet.bytes;
        packet
    }

    pub(crate) fn arrived(&mut self, packet: &Packet) {
        self.in_flight_bytes -= packet.bytes;
    }
}

/// The two directions of a node's link.
#[derive(Debug)]
pub(crate) struct Access {
    upload_bytes_per_s: u64,
    download_bytes_per_s: u64,
    pub(crate) counts_headers: bool,
    pub(crate) is_sending: bool,
    /// The connections that have something to send, in the order of their turns.
    pub(crate) turns: VecDeque<ConnectionId>,
    receives_until: Duration,
}

impl Access {
    pub(crate) fn new(upload_bytes_per_s: u64, download_bytes_per_s: u64) -> Self {
        Self {
            upload_bytes_per_s,
            download_bytes_per_s,
            counts_headers: false,
            is_sending: false,
            turns: VecDeque::new(),
            receives_until: Duration::ZERO,
        }
    }

    /// Bytes that the socket of each connection takes, as the uplink is shared now.
    pub(crate) fn send_buffer_bytes(&self) -> u64 {
        let n_sharing = self.turns.len() as u64 + 1;
        SEND_BUFFER_BYTES + (self.upload_bytes_per_s / SEND_BUFFERS_PER_S / n_sharing).min(SEND_BUFFER_MAX_BYTES)
    }

    /// How long the uplink is busy with a packet.
    pub(crate) fn sending_time(&self, packet: &Packet) -> Duration {
        time_of(self.wire_bytes(packet), self.upload_bytes_per_s)
    }

    /// When a packet that arrives now is through the downlink.
    pub(crate) fn receive(&mut self, now: Duration, packet: &Packet) -> Duration {
        let time = time_of(self.wire_bytes(packet), self.download_bytes_per_s);
        self.receives_until = self.receives_until.max(now) + time;
        self.receives_until
    }

    fn wire_bytes(&self, packet: &Packet) -> u64 {
        let n_headers = if self.counts_headers { packet.bytes.div_ceil(PACKET_BYTES) } else { 0 };
        packet.bytes + n_headers * HEADER_BYTES
    }
}

fn time_of(bytes: u64, bytes_per_s: u64) -> Duration {
    if bytes_per_s == UNLIMITED { Duration::ZERO } else { Duration::from_nanos(bytes * 1_000_000_000 / bytes_per_s) }
}
