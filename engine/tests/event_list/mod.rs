//! Any bytes read as a list of events: a driver and peers that do whatever the bytes say, with the engine's promises
//! checked after each. Used by `tests/hostile.rs`, by the unit tests, and by the fuzz target.

use mini_torrent_common::bitfield::Bitfield;
use mini_torrent_common::geometry::{Block, Geometry, PieceIndex};
use mini_torrent_common::hash::Sha1Hash;
use mini_torrent_engine::{
    Action, Candidate, Config, ConnectionId, Direction, Event, Limits, Message, Outgoing, PeerKey, PieceOrder, Torrent,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const N_PIECES: u32 = 11;
const PIECE_LENGTH: u32 = 40_000;

/// Feeds the events that `bytes` spell to a small torrent, and calls `check` after each. Panics when a promise is broken.
pub fn run(origin: Instant, bytes: &[u8], check: impl Fn(&Torrent)) {
    let mut driver = Driver::new(origin, bytes);
    while !driver.rest.is_empty() {
        driver.step();
        driver.drain();
        check(&driver.torrent);
    }
}

struct Driver<'a> {
    rest: &'a [u8],
    torrent: Torrent,
    geometry: Geometry,
    limits: Limits,
    now: Instant,
    open: BTreeSet<ConnectionId>,
    n_connections: u64,
    /// What the engine asked of each connection and was not answered.
    requested: BTreeMap<ConnectionId, Vec<Block>>,
    serving: Vec<(ConnectionId, Block)>,
    verifying: Vec<PieceIndex>,
    stored: BTreeMap<PieceIndex, BTreeSet<u32>>,
}

impl<'a> Driver<'a> {
    fn new(origin: Instant, bytes: &'a [u8]) -> Self {
        let mut driver_bytes = bytes;
        let geometry = Geometry::new(u64::from(N_PIECES - 1) * u64::from(PIECE_LENGTH) + 777, PIECE_LENGTH.into());
        let geometry = geometry.expect("a valid constant");
        let choice = take(&mut driver_bytes);
        let limits = Limits {
            connections: 5,
            dials: 2,
            candidates: 6,
            upload_slots: 2,
            optimistic_slots: 1,
            requests_initial: 3,
            requests_max: 6,
            requesters_per_block: 2,
            queued_requests: 5,
            serving_bytes: 40_000,
            buffered_bytes: 3 * u64::from(PIECE_LENGTH),
            unrequested_blocks: 5,
            suspect_pieces: 2,
            barred_keys: 3,
            ..Limits::default()
        };
        let piece_order = [PieceOrder::Rarest, PieceOrder::Random, PieceOrder::Sequential][usize::from(choice % 3)];
        let mut have = Bitfield::none(N_PIECES);
        geometry
            .pieces()
            .filter(|piece| choice & 16 != 0 || (choice & 8 != 0 && piece.get() % 2 == 0))
            .for_each(|piece| _ = have.insert(piece));
        let config =
            Config { geometry, have, own_key: key(3), piece_order, limits: limits.clone(), seed: choice.into() };
        Self {
            rest: driver_bytes,
            torrent: Torrent::new(config, origin),
            geometry,
            limits,
            now: origin,
            open: BTreeSet::new(),
            n_connections: 0,
            requested: BTreeMap::new(),
            serving: Vec::new(),
            verifying: Vec::new(),
            stored: BTreeMap::new(),
        }
    }

    fn byte(&mut self) -> u8 {
        take(&mut self.rest)
    }

    fn step(&mut self) {
        let op = self.byte();
        let Some(event) = self.event(op) else {
            let wait = [1, 20, 300, 4000, 11_000, 70_000][usize::from(self.byte()) % 6];
            self.now += Duration::from_millis(wait);
            self.torrent.handle_timeout(self.now);
            return;
        };
        let is_block = matches!(event, Event::Received { message: Message::Block { .. }, .. });
        self.torrent.handle(self.now, event);
        if !is_block {
            return;
        }
        // Only the first action after a block may store.
        if let Some(action) = self.torrent.poll_action() {
            if let Action::Store { block, .. } = action {
                self.stored.entry(block.piece).or_default().insert(block.begin);
            } else {
                self.obey(action);
            }
        }
    }

    fn event(&mut self, op: u8) -> Option<Event> {
        Some(match op % 16 {
            0 => {
                let n = self.byte();
                Event::PeersFound((0..n % 9).map(|i| candidate(i.wrapping_mul(n) % 12)).collect())
            }
            1 => Event::PeerGone(key(self.byte() % 12)),
            2 => Event::DialFailed(key(self.byte() % 12)),
            3 => {
                let choice = self.byte();
                self.n_connections += 1;
                let connection = ConnectionId(self.n_connections);
                self.open.insert(connection);
                let direction = if choice & 16 == 0 { Direction::Dialled } else { Direction::Accepted };
                Event::Connected { connection, key: key(choice % 12), direction, fast: choice & 32 == 0 }
            }
            4 if op >= 128 => {
                let connection = self.connection();
                self.forget(connection);
                Event::Disconnected(connection)
            }
            4 | 5 => Event::Received { connection: self.connection(), message: Message::Unchoke },
            6..=9 => self.answer(),
            10 => {
                let n = usize::from(self.byte());
                let (connection, block) = *self.serving.get(n % self.serving.len().max(1))?;
                self.serving.retain(|served| *served != (connection, block));
                Event::Served { connection, block }
            }
            11 | 12 => self.verdict()?,
            13 => match self.byte() % 16 {
                0 => Event::Paused,
                1..8 => Event::Resumed,
                8 => Event::Forget(key(self.byte() % 12)),
                9 => {
                    let index = u32::from(self.byte()) % N_PIECES;
                    let piece = self.geometry.piece(index)?;
                    if self.verifying.contains(&piece) {
                        self.verifying.retain(|other| *other != piece);
                        self.stored.remove(&piece);
                    }
                    Event::PieceLost { piece }
                }
                _ => return None,
            },
            14 => return None,
            _ => {
                let connection = self.connection();
                Event::Received { connection, message: self.message() }
            }
        })
    }

    fn connection(&mut self) -> ConnectionId {
        let n = usize::from(self.byte());
        self.open.iter().nth(n % self.open.len().max(1)).copied().unwrap_or(ConnectionId(999))
    }

    /// A block that was asked for.
    fn answer(&mut self) -> Event {
        let connection = self.connection();
        let asked = self.requested.entry(connection).or_default();
        let message = match asked.is_empty() {
            true => Message::HaveAll,
            false => {
                let Block { piece, begin, length } = asked.remove(0);
                Message::Block { index: piece.get(), begin, length }
            }
        };
        Event::Received { connection, message }
    }

    fn verdict(&mut self) -> Option<Event> {
        let choice = self.byte();
        let at = usize::from(choice >> 4) % self.verifying.len().max(1);
        self.verifying.get(at)?;
        let piece = self.verifying.remove(at);
        self.stored.remove(&piece);
        let n_blocks = self.geometry.n_blocks_of(piece);
        let digests = (0..n_blocks).map(|nth| Sha1Hash::of(&[u8::try_from(nth).unwrap_or(0), choice & 4])).collect();
        Some(match choice % 4 {
            0 | 1 => Event::PieceVerified { piece, block_digests: Some(digests) },
            2 => Event::PieceCorrupt { piece, block_digests: digests },
            _ => Event::PieceLost { piece },
        })
    }

    fn message(&mut self) -> Message {
        let op = self.byte();
        let n = u32::from(self.byte());
        let index = if n == 255 { u32::MAX } else { n % (N_PIECES + 1) };
        let begin = [0, 16_384, 32_768, 5, u32::MAX][usize::from(op >> 4) % 5];
        let length = [16_384, 7232, 777, 200_000, 0, 1][usize::from(op >> 5) % 6];
        match op % 16 {
            0 => Message::KeepAlive,
            1 => Message::Choke,
            2 => Message::Unchoke,
            3 => Message::Interested,
            4 => Message::NotInterested,
            5 => Message::Have(index),
            6 => Message::Bitfield(vec![self.byte(); 1 + usize::from(op >> 4) % 3]),
            7 => Message::HaveAll,
            8 => Message::HaveNone,
            9 => Message::Request { index, begin, length },
            10 => Message::Cancel { index, begin, length },
            11 => Message::Reject { index, begin, length },
            12 => Message::Block { index, begin, length },
            13 => Message::ExtendedHandshake { max_requests: (op & 16 != 0).then_some(n) },
            14 => Message::Suggest(index),
            _ => Message::Unknown,
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.torrent.poll_action() {
            assert!(!matches!(action, Action::Store { .. }), "a block is stored first or not at all");
            self.obey(action);
        }
        let stats = self.torrent.stats(self.now);
        assert!(stats.n_connections <= self.limits.connections);
        assert!(stats.n_candidates <= self.limits.candidates);
        assert!(stats.buffered_bytes <= self.limits.buffered_bytes.max(2 * u64::from(PIECE_LENGTH)));
        assert!(self.torrent.peers(self.now).all(|peer| peer.n_requested <= self.limits.requests_max as usize));
        assert!(self.stored.len() <= stats.n_in_progress, "the driver is told what to let go");
        assert!(self.torrent.peers(self.now).all(|peer| self.open.contains(&peer.connection)));
    }

    fn obey(&mut self, action: Action) {
        match action {
            Action::Close { connection, .. } => {
                assert!(self.open.contains(&connection), "closed twice");
                self.forget(connection);
            }
            Action::Send { connection, message } => {
                assert!(self.open.contains(&connection), "sent to a closed connection");
                let asked = self.requested.entry(connection).or_default();
                match message {
                    Outgoing::Request(block) => {
                        assert!(!self.torrent.have().contains(block.piece), "asked for what we have");
                        asked.push(block);
                    }
                    Outgoing::Suggest(piece) => {
                        assert!(self.torrent.have().contains(piece), "suggests what it has");
                    }
                    Outgoing::Cancel(block) => asked.retain(|other| *other != block),
                    _ => {}
                }
            }
            Action::Serve { connection, block } => {
                assert!(self.torrent.have().contains(block.piece) && self.open.contains(&connection));
                self.serving.push((connection, block));
            }
            Action::CancelServe { connection, block } => {
                self.serving.retain(|served| *served != (connection, block));
            }
            Action::Verify { piece, .. } => {
                let n_stored = self.stored.get(&piece).map_or(0, BTreeSet::len);
                assert_eq!(n_stored, self.geometry.n_blocks_of(piece) as usize, "all blocks are stored");
                assert!(!self.verifying.contains(&piece));
                self.verifying.push(piece);
            }
            Action::Drop { piece } => _ = self.stored.remove(&piece),
            Action::Completed => assert!(self.torrent.is_complete()),
            Action::Dial(candidate) => assert_ne!(candidate.key, key(3), "never dials itself"),
            Action::Store { .. } | Action::Ban { .. } => {}
        }
    }

    fn forget(&mut self, connection: ConnectionId) {
        self.open.remove(&connection);
        self.requested.remove(&connection);
        self.serving.retain(|(served, _)| *served != connection);
    }
}

fn take(rest: &mut &[u8]) -> u8 {
    rest.split_off_first().copied().unwrap_or(0)
}

fn key(n: u8) -> PeerKey {
    PeerKey([n; 32])
}

fn candidate(n: u8) -> Candidate {
    Candidate { key: key(n), address: SocketAddr::from(([10, 0, 0, n], 1)), dial_as_seeder: n.is_multiple_of(2) }
}
