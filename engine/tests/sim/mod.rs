//! A pretend network: many torrents in one thread, under a virtual clock, with everything drawn from one seed.

#![allow(dead_code, reason = "each test file uses a part")]

mod plan;

pub(crate) use plan::{Have, Plan};

use mini_torrent_common::geometry::{BLOCK_LENGTH, Block, Geometry, PieceIndex};
use mini_torrent_common::hash::Sha1Hash;
use mini_torrent_engine::{
    Action, Candidate, CloseReason, Config, ConnectionId, Direction, Event, Message, Outgoing, PeerKey,
    PeerMisbehavior, Torrent,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
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
    links: BTreeMap<ConnectionId, Link>,
    stored: BTreeMap<PieceIndex, BTreeMap<u32, (usize, bool)>>,
    serving: VecDeque<(ConnectionId, Block)>,
    is_sending: bool,
}

#[derive(Debug, Clone)]
struct Link {
    node: usize,
    remote: ConnectionId,
    /// When the last message arrives: nothing overtakes it.
    arrives_at: Duration,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Join(usize),
    Leave(usize),
    Dialled { from: usize, to: usize },
    DialFailed { from: usize, to: usize },
    Open { node: usize, connection: ConnectionId, other: usize, direction: bool, fast: bool },
    Ended { node: usize, connection: ConnectionId },
    Deliver { node: usize, connection: ConnectionId, letter: usize },
    Sent { node: usize, connection: ConnectionId, block: Block },
    Hashed { node: usize, piece: PieceIndex, with_block_digests: bool },
    CutAll,
    Partition(bool),
}

/// The whole swarm.
pub(crate) struct Swarm {
    pub(crate) geometry: Geometry,
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Duration,
    pub(crate) n_cut: usize,
    pub(crate) n_connections: u64,
    origin: Instant,
    rng: StdRng,
    agenda: BinaryHeap<Reverse<(Duration, u64, Happening)>>,
    letters: BTreeMap<usize, (Message, bool)>,
    n_letters: usize,
    n_happenings: u64,
    is_partitioned: bool,
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
            origin,
            agenda: BinaryHeap::new(),
            letters: BTreeMap::new(),
            n_letters: 0,
            n_happenings: 0,
            is_partitioned: false,
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

    /// Between these times nothing passes between odd and even nodes.
    pub(crate) fn partition(&mut self, from: Duration, to: Duration) {
        self.plan(from, Happening::Partition(true));
        self.plan(to, Happening::Partition(false));
    }

    /// Runs until everyone present who can be complete is, or the time is over. Returns whether all are.
    pub(crate) fn run(&mut self, limit: Duration) -> bool {
        while self.now < limit && !self.all_complete() {
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
        self.agenda.push(Reverse((at, self.n_happenings, happening)));
    }

    fn step(&mut self) -> bool {
        let timeouts = self.nodes.iter().enumerate().filter(|(_, node)| node.is_alive);
        let timeouts = timeouts.filter_map(|(index, node)| Some((node.torrent.poll_timeout()?, index)));
        let timeout = timeouts.min().map(|(at, index)| (at.saturating_duration_since(self.origin), index));
        let next = self.agenda.peek().map(|Reverse((at, _, _))| *at);
        match (timeout, next) {
            (Some((at, index)), next) if next.is_none_or(|next| at < next) => {
                self.now = self.now.max(at);
                let now = self.origin + self.now;
                self.nodes[index].torrent.handle_timeout(now);
                self.act(index, None);
            }
            (_, Some(_)) => {
                if let Some(Reverse((at, _, happening))) = self.agenda.pop() {
                    self.now = self.now.max(at);
                    self.happen(happening);
                }
            }
            _ => return false,
        }
        true
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
                if self.nodes[node].links.remove(&connection).is_some() {
                    self.tell(node, Event::Disconnected(connection));
                }
            }
            Happening::Deliver { node, connection, letter } => self.deliver(node, connection, letter),
            Happening::Sent { node, connection, block } => self.sent(node, connection, block),
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
        let present: Vec<_> = (0..self.nodes.len()).filter(|n| *n != index && self.nodes[*n].is_alive).collect();
        let candidates = present.iter().map(|n| self.candidate(*n)).collect();
        self.tell(index, Event::PeersFound(candidates));
        for other in present {
            self.tell(other, Event::PeersFound(vec![newcomer]));
        }
    }

    fn leave(&mut self, index: usize) {
        let links = std::mem::take(&mut self.nodes[index].links);
        self.nodes[index].is_alive = false;
        for link in links.into_values() {
            self.plan(self.now, Happening::Ended { node: link.node, connection: link.remote });
        }
        let key = self.nodes[index].key;
        for other in 0..self.nodes.len() {
            self.tell(other, Event::PeerGone(key));
        }
    }

    fn cut(&mut self, hits: impl Fn(usize, usize) -> bool) {
        for node in 0..self.nodes.len() {
            let links: Vec<_> = self.nodes[node].links.iter().map(|(id, link)| (*id, link.node)).collect();
            for (connection, _) in links.into_iter().filter(|(_, other)| hits(node, *other)) {
                self.n_cut += 1;
                self.plan(self.now, Happening::Ended { node, connection });
            }
        }
    }

    fn delay(&mut self, a: usize, b: usize) -> Duration {
        let base = self.nodes[a].plan.latency + self.nodes[b].plan.latency;
        base.mul_f64(self.rng.random_range(1.0..1.1))
    }

    fn connect(&mut self, from: usize, to: usize) {
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
        self.nodes[from].links.insert(ours, Link { node: to, remote: theirs, arrives_at });
        self.nodes[to].links.insert(theirs, Link { node: from, remote: ours, arrives_at });
        self.plan(self.now, Happening::Open { node: to, connection: theirs, other: from, direction: false, fast });
        self.plan(arrives_at, Happening::Open { node: from, connection: ours, other: to, direction: true, fast });
    }

    fn post(&mut self, node: usize, connection: ConnectionId, message: Message, is_true: bool) {
        let Some(link) = self.nodes[node].links.get(&connection).cloned() else { return };
        let arrives_at = (self.now + self.delay(node, link.node)).max(link.arrives_at);
        if let Some(link) = self.nodes[node].links.get_mut(&connection) {
            link.arrives_at = arrives_at;
        }
        self.n_letters += 1;
        self.letters.insert(self.n_letters, (message, is_true));
        let letter = self.n_letters;
        self.plan(arrives_at, Happening::Deliver { node: link.node, connection: link.remote, letter });
    }

    fn deliver(&mut self, node: usize, connection: ConnectionId, letter: usize) {
        let Some((message, is_true)) = self.letters.remove(&letter) else { return };
        let Some(from) = self.nodes[node].links.get(&connection).map(|link| link.node) else { return };
        if self.nodes[node].is_alive {
            let now = self.origin + self.now;
            self.nodes[node].torrent.handle(now, Event::Received { connection, message });
            self.act(node, Some((from, is_true)));
        }
    }

    /// Does what a torrent asks for. `block` is who sent the block just handled, and whether it is true.
    fn act(&mut self, index: usize, block: Option<(usize, bool)>) {
        let mut is_first = true;
        while let Some(action) = self.nodes[index].torrent.poll_action() {
            assert!(is_first || !matches!(action, Action::Store { .. }), "seed {}: late store", self.seed);
            is_first = false;
            self.act_on(index, action, block);
        }
        let now = self.origin + self.now;
        let node = &mut self.nodes[index];
        node.max_buffered_bytes = node.max_buffered_bytes.max(node.torrent.stats(now).buffered_bytes);
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
                if let Some(link) = self.nodes[index].links.remove(&connection) {
                    let delay = self.delay(index, link.node);
                    let at = link.arrives_at.max(self.now + delay);
                    self.plan(at, Happening::Ended { node: link.node, connection: link.remote });
                }
            }
            Action::Send { connection, message } => {
                let message = self.encode(index, connection, message);
                self.post(index, connection, message, true);
            }
            Action::Serve { connection, block } => {
                assert!(self.nodes[index].torrent.have().contains(block.piece), "serves what it has");
                self.nodes[index].serving.push_back((connection, block));
                self.send_next(index);
            }
            Action::CancelServe { connection, block } => {
                let serving = &mut self.nodes[index].serving;
                if let Some(position) = serving.iter().position(|queued| *queued == (connection, block)) {
                    serving.remove(position);
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
                let at = self.now + Duration::from_millis(1);
                self.plan(at, Happening::Hashed { node: index, piece, with_block_digests });
            }
            Action::Ban { key, reason } => _ = self.nodes[index].banned.insert(key, reason),
            Action::Completed => self.nodes[index].completed_at = Some(self.now),
        }
    }

    fn encode(&self, index: usize, connection: ConnectionId, message: Outgoing) -> Message {
        let have = self.nodes[index].torrent.have();
        let link = self.nodes[index].links.get(&connection);
        let fast = self.nodes[index].plan.fast && link.is_some_and(|link| self.nodes[link.node].plan.fast);
        match message {
            Outgoing::KeepAlive => Message::KeepAlive,
            Outgoing::Choke => Message::Choke,
            Outgoing::Unchoke => Message::Unchoke,
            Outgoing::Interested => Message::Interested,
            Outgoing::NotInterested => Message::NotInterested,
            Outgoing::Have(piece) => Message::Have(piece.get()),
            Outgoing::Pieces if fast && have.is_all() => Message::HaveAll,
            Outgoing::Pieces if fast && have.is_none() => Message::HaveNone,
            Outgoing::Pieces => Message::Bitfield(have.as_bytes().to_vec()),
            Outgoing::Request(Block { piece, begin, length }) => Message::Request { index: piece.get(), begin, length },
            Outgoing::Cancel(Block { piece, begin, length }) => Message::Cancel { index: piece.get(), begin, length },
            Outgoing::Reject(Block { piece, begin, length }) => Message::Reject { index: piece.get(), begin, length },
        }
    }

    fn send_next(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.is_sending || node.plan.stalls_at.is_some_and(|at| at <= self.now) {
            return;
        }
        let Some((connection, block)) = node.serving.pop_front() else { return };
        node.is_sending = true;
        let time = Duration::from_secs_f64(f64::from(block.length) / node.plan.upload_bytes_per_s as f64);
        self.plan(self.now + time, Happening::Sent { node: index, connection, block });
    }

    fn sent(&mut self, index: usize, connection: ConnectionId, block: Block) {
        self.nodes[index].is_sending = false;
        let is_true = !self.rng.random_bool(self.nodes[index].plan.lies);
        let Block { piece, begin, length } = block;
        self.post(index, connection, Message::Block { index: piece.get(), begin, length }, is_true);
        self.tell(index, Event::Served { connection, block });
        self.send_next(index);
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
            links: BTreeMap::new(),
            stored: BTreeMap::new(),
            serving: VecDeque::new(),
            is_sending: false,
        }
    }
}
