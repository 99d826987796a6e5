//! A pretend network: many torrents in one thread, under a virtual clock, with everything drawn from one seed.

#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod fluid;
mod link;
mod network;
mod plan;

pub(crate) use plan::{Have, Plan, UNLIMITED};

use link::{Access, Packet, Stream};

use mini_torrent_common::geometry::{BLOCK_LENGTH, Block, Geometry, PieceIndex};
use mini_torrent_common::hash::Sha1Hash;
use mini_torrent_engine::{
    Action, Candidate, CloseReason, Config, ConnectionId, Direction, Event, Message, Outgoing, PeerKey,
    PeerMisbehavior, Torrent,
};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(crate) const MIB: u64 = 1024 * 1024;

/// One client.
pub(crate) struct Node {
    pub(crate) plan: Plan,
    pub(crate) key: PeerKey,
    pub(crate) torrent: Torrent,
    pub(crate) is_alive: bool,
    pub(crate) completed_at: Option<Duration>,
    pub(crate) banned: BTreeMap<PeerKey, PeerMisbehavior>,
    /// Verified pieces in order, with those who sent their blocks.
    pub(crate) verified: Vec<(u32, BTreeSet<usize>)>,
    pub(crate) received_from: BTreeMap<usize, u64>,
    pub(crate) last_store_at: Duration,
    pub(crate) longest_gap: Duration,
    pub(crate) closes: Vec<CloseReason>,
    pub(crate) max_buffered_bytes: u64,
    /// Bytes of blocks that arrived, wanted or not.
    pub(crate) received_bytes: u64,
    /// Bytes of blocks that went to the socket.
    pub(crate) sent_bytes: u64,
    streams: BTreeMap<ConnectionId, Stream>,
    stored: BTreeMap<PieceIndex, BTreeMap<u32, (usize, bool)>>,
    access: Access,
    /// When its clock is looked at, as the agenda has it.
    wakes_at: Option<Duration>,
}

#[derive(Debug)]
enum Happening {
    Join(usize),
    Leave(usize),
    Dialled { from: usize, to: usize },
    DialFailed { from: usize, to: usize },
    Open { node: usize, connection: ConnectionId, other: usize, direction: bool, fast: bool },
    Ended { node: usize, connection: ConnectionId },
    Sent { node: usize, connection: ConnectionId, packet: Packet },
    Arrived { node: usize, connection: ConnectionId, packet: Packet },
    Delivered { node: usize, connection: ConnectionId, packet: Packet },
    Served { node: usize, connection: ConnectionId, block: Block },
    Wake(usize),
    Hashed { node: usize, piece: PieceIndex, with_block_digests: bool },
    CutAll,
    Partition(bool),
}

/// A happening in its place: by time, and in the order of planning at one time.
#[derive(Debug)]
struct Planned {
    place: (Duration, u64),
    happening: Happening,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place.cmp(&other.place)
    }
}

/// The whole swarm.
pub(crate) struct Swarm {
    pub(crate) geometry: Geometry,
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Duration,
    pub(crate) n_cut: usize,
    pub(crate) n_connections: u64,
    /// Peers that a newcomer is told of at most. Above, who is there already does not hear of the newcomer.
    pub(crate) max_named: usize,
    origin: Instant,
    rng: StdRng,
    agenda: BinaryHeap<Reverse<Planned>>,
    n_happenings: u64,
    is_partitioned: bool,
    /// Somebody completed since all were last looked at.
    has_news: bool,
    seed: u64,
}

impl Swarm {
    pub(crate) fn new(length: u64, piece_length: u64, seed: u64, plans: Vec<Plan>) -> Self {
        let geometry = Geometry::new(length, piece_length).expect("a valid geometry");
        #[expect(clippy::disallowed_methods, reason = "an arbitrary origin of the virtual clock")]
        let origin = Instant::now();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut swarm = Self {
            geometry,
            nodes: Vec::new(),
            now: Duration::ZERO,
            n_cut: 0,
            n_connections: 0,
            max_named: usize::MAX,
            origin,
            agenda: BinaryHeap::new(),
            n_happenings: 0,
            is_partitioned: false,
            has_news: true,
            seed,
            rng: StdRng::seed_from_u64(rng.random()),
        };
        for (index, plan) in plans.into_iter().enumerate() {
            let node = Node::new(plan, index, geometry, origin, rng.random());
            let (joins_at, leaves_at) = (node.plan.joins_at, node.plan.leaves_at);
            swarm.nodes.push(node);
            swarm.plan(joins_at, Happening::Join(index));
            leaves_at.into_iter().for_each(|at| swarm.plan(at, Happening::Leave(index)));
        }
        swarm
    }

    /// Every connection breaks at this time.
    pub(crate) fn cut_all_at(&mut self, at: Duration) {
        self.plan(at, Happening::CutAll);
    }

    /// From now on packets weigh with the headers of IP and TCP.
    pub(crate) fn count_headers(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.access.counts_headers = true);
    }

    /// Between these times nothing passes between odd and even nodes.
    pub(crate) fn partition(&mut self, from: Duration, to: Duration) {
        self.plan(from, Happening::Partition(true));
        self.plan(to, Happening::Partition(false));
    }

    /// Runs until everyone present who can be complete is, or the time is over. Returns whether all are.
    pub(crate) fn run(&mut self, limit: Duration) -> bool {
        while self.now < limit && !(self.has_news && self.all_complete()) {
            self.has_news = false;
            if !self.step() {
                break;
            }
        }
        self.check();
        self.all_complete()
    }

    pub(crate) fn run_for(&mut self, limit: Duration) {
        while self.now < limit && self.step() {}
        self.check();
    }

    pub(crate) fn all_complete(&self) -> bool {
        let waited_for = self.nodes.iter().filter(|node| node.plan.leaves_at.is_none() && node.plan.lies == 0.0);
        waited_for.into_iter().all(|node| node.torrent.is_complete())
    }

    pub(crate) fn key_of(index: usize) -> PeerKey {
        let mut key = [0; 32];
        // Spread so that the order of keys is not the order of nodes.
        key[..8].copy_from_slice(&(index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        PeerKey(key)
    }

    /// What must hold at any time.
    pub(crate) fn check(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            let verified: BTreeSet<u32> = node.verified.iter().map(|(piece, _)| *piece).collect();
            let initial = node.plan.pieces(&self.geometry);
            let have: Vec<_> = self.geometry.pieces().filter(|piece| node.torrent.have().contains(*piece)).collect();
            for piece in have {
                let is_known = verified.contains(&piece.get()) || initial.contains(piece);
                assert!(is_known, "seed {}: node {index} has {piece:?} unverified", self.seed);
            }
            for key in node.banned.keys() {
                let liar = self.nodes.iter().find(|other| other.key == *key);
                let lied = liar.is_some_and(|liar| liar.plan.lies > 0.0);
                assert!(lied, "seed {}: node {index} banned an honest peer", self.seed);
            }
            let bound = node.plan.limits.buffered_bytes.max(2 * u64::from(self.geometry.piece_length()));
            assert!(node.max_buffered_bytes <= bound, "seed {}: {} buffered", self.seed, node.max_buffered_bytes);
        }
    }

    pub(crate) fn address_of(index: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], u16::try_from(index + 1).expect("few nodes")))
    }

    fn plan(&mut self, at: Duration, happening: Happening) {
        self.n_happenings += 1;
        self.agenda.push(Reverse(Planned { place: (at, self.n_happenings), happening }));
    }

    fn step(&mut self) -> bool {
        let Some(Reverse(Planned { place: (at, _), happening })) = self.agenda.pop() else { return false };
        self.now = self.now.max(at);
        self.happen(happening);
        true
    }

    /// Sees that the node's clock is looked at when it wants to be.
    fn plan_wake(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some(at) = node.torrent.poll_timeout().filter(|_| node.is_alive) else { return };
        let at = at.saturating_duration_since(self.origin).max(self.now);
        if node.wakes_at.is_none_or(|planned| at < planned) {
            node.wakes_at = Some(at);
            self.plan(at, Happening::Wake(index));
        }
    }

    fn wake(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.wakes_at == Some(self.now) {
            node.wakes_at = None;
        }
        if node.is_alive {
            node.torrent.handle_timeout(self.origin + self.now);
            self.act(index, None);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Join(index) => self.join(index),
            Happening::Leave(index) => self.leave(index),
            Happening::Dialled { from, to } => self.connect(from, to),
            Happening::DialFailed { from, to } => {
                let key = self.nodes[to].key;
                self.tell(from, Event::DialFailed(key));
            }
            Happening::Open { node, connection, other, direction, fast } => {
                let direction = if direction { Direction::Dialled } else { Direction::Accepted };
                let key = self.nodes[other].key;
                self.tell(node, Event::Connected { connection, key, direction, fast });
            }
            Happening::Ended { node, connection } => {
                if self.nodes[node].streams.remove(&connection).is_some() {
                    self.tell(node, Event::Disconnected(connection));
                }
            }
            Happening::Sent { node, connection, packet } => self.sent(node, connection, packet),
            Happening::Arrived { node, connection, packet } => self.arrived(node, connection, packet),
            Happening::Delivered { node, connection, packet } => self.delivered(node, connection, packet),
            Happening::Served { node, connection, block } => self.tell(node, Event::Served { connection, block }),
            Happening::Wake(node) => self.wake(node),
            Happening::Hashed { node, piece, with_block_digests } => self.hashed(node, piece, with_block_digests),
            Happening::CutAll => self.cut(|_, _| true),
            Happening::Partition(on) => {
                self.is_partitioned = on;
                if on {
                    self.cut(|a, b| a % 2 != b % 2);
                }
            }
        }
    }

    fn tell(&mut self, index: usize, event: Event) {
        if self.nodes[index].is_alive {
            let now = self.origin + self.now;
            self.nodes[index].torrent.handle(now, event);
            self.act(index, None);
        }
    }

    fn candidate(&self, index: usize) -> Candidate {
        Candidate { key: self.nodes[index].key, address: Self::address_of(index), dial_as_seeder: false }
    }

    fn join(&mut self, index: usize) {
        self.nodes[index].is_alive = true;
        let newcomer = self.candidate(index);
        let mut present: Vec<_> = (0..self.nodes.len()).filter(|n| *n != index && self.nodes[*n].is_alive).collect();
        let are_all_told = present.len() <= self.max_named;
        if !are_all_told {
            present.shuffle(&mut self.rng);
            present.truncate(self.max_named);
        }
        let candidates = present.iter().map(|n| self.candidate(*n)).collect();
        self.tell(index, Event::PeersFound(candidates));
        for other in present.into_iter().filter(|_| are_all_told) {
            self.tell(other, Event::PeersFound(vec![newcomer]));
        }
    }

    fn leave(&mut self, index: usize) {
        let streams = std::mem::take(&mut self.nodes[index].streams);
        self.nodes[index].is_alive = false;
        for stream in streams.into_values() {
            self.plan(self.now, Happening::Ended { node: stream.node, connection: stream.remote });
        }
        let key = self.nodes[index].key;
        for other in 0..self.nodes.len() {
            self.tell(other, Event::PeerGone(key));
        }
    }

    fn cut(&mut self, hits: impl Fn(usize, usize) -> bool) {
        for node in 0..self.nodes.len() {
            let streams = self.nodes[node].streams.iter();
            let streams: Vec<_> = streams.map(|(id, stream)| (*id, stream.node)).collect();
            for (connection, _) in streams.into_iter().filter(|(_, other)| hits(node, *other)) {
                self.n_cut += 1;
                self.plan(self.now, Happening::Ended { node, connection });
            }
        }
    }

    fn act(&mut self, index: usize, block: Option<(usize, bool)>) {
        let mut is_first = true;
        while let Some(action) = self.nodes[index].torrent.poll_action() {
            assert!(is_first || !matches!(action, Action::Store { .. }), "seed {}: late store", self.seed);
            is_first = false;
            self.act_on(index, action, block);
        }
        self.plan_wake(index);
        let node = &self.nodes[index];
        if node.plan.leaves_complete && node.is_alive && node.torrent.is_complete() {
            self.leave(index);
        }
    }

    fn act_on(&mut self, index: usize, action: Action, block: Option<(usize, bool)>) {
        match action {
            Action::Dial(candidate) => {
                let to = usize::from(candidate.address.port()) - 1;
                let delay = self.delay(index, to);
                self.plan(self.now + delay, Happening::Dialled { from: index, to });
            }
            Action::Close { connection, reason } => {
                self.nodes[index].closes.push(reason);
                if let Some(stream) = self.nodes[index].streams.remove(&connection) {
                    let delay = self.delay(index, stream.node);
                    let at = stream.arrives_at.max(self.now + delay);
                    self.plan(at, Happening::Ended { node: stream.node, connection: stream.remote });
                }
            }
            Action::Send { connection, message } => {
                let message = self.encode(index, connection, message);
                self.post(index, connection, message, true);
            }
            Action::Serve { connection, block } => {
                assert!(self.nodes[index].torrent.have().contains(block.piece), "serves what it has");
                if let Some(stream) = self.nodes[index].streams.get_mut(&connection) {
                    stream.waiting.push_back(block);
                    self.commit(index, connection);
                }
            }
            Action::CancelServe { connection, block } => {
                if let Some(stream) = self.nodes[index].streams.get_mut(&connection)
                    && let Some(position) = stream.waiting.iter().position(|waiting| *waiting == block)
                {
                    stream.waiting.remove(position);
                }
            }
            Action::Store { block: stored, .. } => {
                let (from, is_true) = block.expect("a block was just handled");
                let now = self.now;
                let node = &mut self.nodes[index];
                node.stored.entry(stored.piece).or_default().insert(stored.begin / BLOCK_LENGTH, (from, is_true));
                *node.received_from.entry(from).or_default() += u64::from(stored.length);
                node.longest_gap = node.longest_gap.max(now.saturating_sub(node.last_store_at));
                node.last_store_at = now;
            }
            Action::Drop { piece } => _ = self.nodes[index].stored.remove(&piece),
            Action::Verify { piece, with_block_digests } => {
                let buffered_bytes = self.nodes[index].torrent.stats(self.origin + self.now).buffered_bytes;
                let node = &mut self.nodes[index];
                node.max_buffered_bytes = node.max_buffered_bytes.max(buffered_bytes);
                let at = self.now + Duration::from_millis(1);
                self.plan(at, Happening::Hashed { node: index, piece, with_block_digests });
            }
            Action::Ban { key, reason } => _ = self.nodes[index].banned.insert(key, reason),
            Action::Completed => {
                self.nodes[index].completed_at = Some(self.now);
                self.has_news = true;
            }
        }
    }

    fn encode(&self, index: usize, connection: ConnectionId, message: Outgoing) -> Message {
        let have = self.nodes[index].torrent.have();
        let stream = self.nodes[index].streams.get(&connection);
        let fast = self.nodes[index].plan.fast && stream.is_some_and(|stream| self.nodes[stream.node].plan.fast);
        match message {
            Outgoing::KeepAlive => Message::KeepAlive,
            Outgoing::Choke => Message::Choke,
            Outgoing::Unchoke => Message::Unchoke,
            Outgoing::Interested => Message::Interested,
            Outgoing::NotInterested => Message::NotInterested,
            Outgoing::Have(piece) => Message::Have(piece.get()),
            Outgoing::Suggest(piece) => Message::Suggest(piece.get()),
            Outgoing::Pieces if fast && have.is_all() => Message::HaveAll,
            Outgoing::Pieces if fast && have.is_none() => Message::HaveNone,
            Outgoing::Pieces => Message::Bitfield(have.as_bytes().to_vec()),
            Outgoing::Request(Block { piece, begin, length }) => Message::Request { index: piece.get(), begin, length },
            Outgoing::Cancel(Block { piece, begin, length }) => Message::Cancel { index: piece.get(), begin, length },
            Outgoing::Reject(Block { piece, begin, length }) => Message::Reject { index: piece.get(), begin, length },
        }
    }

    fn hashed(&mut self, index: usize, piece: PieceIndex, with_block_digests: bool) {
        let Some(blocks) = self.nodes[index].stored.remove(&piece) else { panic!("verified nothing") };
        assert_eq!(blocks.len(), self.geometry.n_blocks_of(piece) as usize, "seed {}: all stored", self.seed);
        let digest = |(nth, (from, is_true)): (&u32, &(usize, bool))| {
            let text = if *is_true { format!("{piece:?} {nth}") } else { format!("{piece:?} {nth} lie {from}") };
            Sha1Hash::of(text.as_bytes())
        };
        let digests: Vec<_> = blocks.iter().map(digest).collect();
        if blocks.values().all(|(_, is_true)| *is_true) {
            let senders = blocks.values().map(|(from, _)| *from).collect();
            self.nodes[index].verified.push((piece.get(), senders));
            self.tell(index, Event::PieceVerified { piece, block_digests: with_block_digests.then_some(digests) });
        } else {
            self.tell(index, Event::PieceCorrupt { piece, block_digests: digests });
        }
    }
}

impl Node {
    fn new(plan: Plan, index: usize, geometry: Geometry, origin: Instant, seed: u64) -> Self {
        let key = Swarm::key_of(index);
        let config = Config {
            geometry,
            have: plan.pieces(&geometry),
            own_key: key,
            piece_order: plan.piece_order,
            limits: plan.limits.clone(),
            seed,
        };
        let access = Access::new(plan.upload_bytes_per_s, plan.download_bytes_per_s);
        Self {
            torrent: Torrent::new(config, origin),
            plan,
            key,
            is_alive: false,
            completed_at: None,
            banned: BTreeMap::new(),
            verified: Vec::new(),
            received_from: BTreeMap::new(),
            last_store_at: Duration::ZERO,
            longest_gap: Duration::ZERO,
            closes: Vec::new(),
            max_buffered_bytes: 0,
            received_bytes: 0,
            sent_bytes: 0,
            streams: BTreeMap::new(),
            stored: BTreeMap::new(),
            access,
            wakes_at: None,
        }
    }
}
