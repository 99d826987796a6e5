//! How messages get from one node to another: connections, uplinks and downlinks in virtual time.

use super::link::{Letter, Packet, Stream};
use super::{Happening, Node, Swarm};
use mini_torrent_common::geometry::Block;
use mini_torrent_engine::{ConnectionId, Event, Message};
use rand::RngExt;
use std::time::Duration;

impl Swarm {
    pub(super) fn delay(&mut self, a: usize, b: usize) -> Duration {
        let base = self.nodes[a].plan.latency + self.nodes[b].plan.latency;
        base.mul_f64(self.rng.random_range(1.0..1.1))
    }

    pub(super) fn connect(&mut self, from: usize, to: usize) {
        if !self.nodes[from].is_alive {
            return;
        }
        let is_reachable = self.nodes[to].is_alive && !(self.is_partitioned && from % 2 != to % 2);
        let delay = self.delay(from, to);
        if !is_reachable {
            self.plan(self.now + delay, Happening::DialFailed { from, to });
            return;
        }
        self.n_connections += 2;
        let (ours, theirs) = (ConnectionId(self.n_connections), ConnectionId(self.n_connections + 1));
        let fast = self.nodes[from].plan.fast && self.nodes[to].plan.fast;
        let arrives_at = self.now + delay;
        self.nodes[from].streams.insert(ours, Stream::new(to, theirs, arrives_at));
        self.nodes[to].streams.insert(theirs, Stream::new(from, ours, arrives_at));
        self.plan(self.now, Happening::Open { node: to, connection: theirs, other: from, direction: false, fast });
        self.plan(arrives_at, Happening::Open { node: from, connection: ours, other: to, direction: true, fast });
    }

    pub(super) fn post(&mut self, node: usize, connection: ConnectionId, message: Message, is_true: bool) {
        let Some(stream) = self.nodes[node].streams.get_mut(&connection) else { return };
        stream.commit(Letter { message, is_true });
        self.queue_up(node, connection);
    }

    /// A stream that has something to send takes its turn at the uplink.
    fn queue_up(&mut self, node: usize, connection: ConnectionId) {
        let Node { streams, access, .. } = &mut self.nodes[node];
        if streams.get_mut(&connection).is_some_and(Stream::takes_turn) {
            access.turns.push_back(connection);
            self.send_next(node);
        }
    }

    fn send_next(&mut self, node: usize) {
        let Node { streams, access, .. } = &mut self.nodes[node];
        if access.is_sending {
            return;
        }
        while let Some(connection) = access.turns.pop_front() {
            let Some(stream) = streams.get_mut(&connection) else { continue };
            let packet = stream.next_packet();
            access.is_sending = true;
            let at = self.now + access.sending_time(&packet);
            self.plan(at, Happening::Sent { node, connection, packet });
            return;
        }
    }

    /// The uplink is through with a packet: it is on its way, and there is room for what waits.
    pub(super) fn sent(&mut self, node: usize, connection: ConnectionId, packet: Packet) {
        self.nodes[node].access.is_sending = false;
        if let Some(to) = self.nodes[node].streams.get(&connection).map(|stream| stream.node) {
            let at = self.now + self.delay(node, to);
            if let Some(stream) = self.nodes[node].streams.get_mut(&connection) {
                stream.arrives_at = stream.arrives_at.max(at);
                let (at, connection) = (stream.arrives_at, stream.remote);
                self.plan(at, Happening::Arrived { node: to, connection, packet });
            }
            self.commit(node, connection);
            self.queue_up(node, connection);
        }
        self.send_next(node);
    }

    pub(super) fn arrived(&mut self, node: usize, connection: ConnectionId, packet: Packet) {
        let at = self.nodes[node].access.receive(self.now, &packet);
        if at > self.now {
            self.plan(at, Happening::Delivered { node, connection, packet });
        } else {
            self.delivered(node, connection, packet);
        }
    }

    pub(super) fn delivered(&mut self, node: usize, connection: ConnectionId, packet: Packet) {
        let ends = self.nodes[node].streams.get(&connection).map(|stream| (stream.node, stream.remote));
        let Some((from, remote)) = ends else { return };
        if let Some(stream) = self.nodes[from].streams.get_mut(&remote) {
            stream.arrived(&packet);
            self.queue_up(from, remote);
        }
        for Letter { message, is_true } in packet.letters {
            if !self.nodes[node].is_alive {
                return;
            }
            if let Message::Block { length, .. } = &message {
                self.nodes[node].received_bytes += u64::from(*length);
            }
            let now = self.origin + self.now;
            self.nodes[node].torrent.handle(now, Event::Received { connection, message });
            self.act(node, Some((from, is_true)));
        }
    }

    /// Hands waiting blocks to the socket, as many as it takes.
    pub(super) fn commit(&mut self, index: usize, connection: ConnectionId) {
        loop {
            let node = &mut self.nodes[index];
            if node.plan.stalls_at.is_some_and(|at| at <= self.now) {
                return;
            }
            let send_buffer_bytes = node.access.send_buffer_bytes();
            let Some(stream) = node.streams.get_mut(&connection) else { return };
            if !stream.has_room(send_buffer_bytes) {
                return;
            }
            let Some(block) = stream.waiting.pop_front() else { return };
            node.sent_bytes += u64::from(block.length);
            let is_true = !self.rng.random_bool(node.plan.lies);
            if node.plan.leaves_after_bytes.is_some_and(|bytes| node.sent_bytes >= bytes) {
                node.plan.leaves_after_bytes = None;
                self.plan(self.now, Happening::Leave(index));
            }
            let Block { piece, begin, length } = block;
            self.plan(self.now, Happening::Served { node: index, connection, block });
            self.post(index, connection, Message::Block { index: piece.get(), begin, length }, is_true);
        }
    }
}
