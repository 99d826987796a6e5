//! A member that fetches all of a file but one piece from one seeder, one of many that a thread drives.

use mini_torrent_common::geometry::{Block, Geometry};
use mini_torrent_common::hash::PeerId;
use mini_torrent_common::peer_wire::{BlockRange, Handshake, Message};
use mini_torrent_common::tls::PublicKey;
use mini_torrent_tests::wire_link::{Pass, WireLink};
use mini_torrent_tests::wire_member::Torrent;
use mini_torrent_tests::{Content, DEADLINE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Blocks that are asked for and not answered yet: a piece ahead of the one that comes.
const WINDOW: usize = 64;

/// Whom the members connect to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seeder {
    pub(super) address: SocketAddr,
    pub(super) key: PublicKey,
}

/// A connected member.
pub(super) struct Fetcher {
    link: WireLink,
    geometry: Geometry,
    original: Arc<Vec<u8>>,
    /// Blocks that it wants and has not asked for, in order.
    unasked: VecDeque<Block>,
    n_asked: usize,
    /// Blocks that each piece lacks.
    missing: Vec<u32>,
    /// Blocks that it wants and has not got.
    n_wanted: usize,
    is_choked: bool,
    is_connected: bool,
    begun: Option<Instant>,
    first_wait: Option<Duration>,
}

impl Fetcher {
    /// Connects and waits until it hears what the seeder has; `None` when that closes the connection instead.
    pub(super) fn connect(
        pass: &Pass,
        peer_id: PeerId,
        seeder: Seeder,
        torrent: &Torrent,
        content: &Content,
        nth: usize,
    ) -> Option<Self> {
        let link = pass.dial(seeder.address, seeder.key).expect("the seeder admits a member");
        let ours = Handshake { info_hash: torrent.info_hash, peer_id, fast: true, extended: true };
        link.send(&ours.encode()).expect("the seeder listens");
        link.read_handshake().expect("the seeder answers");
        let geometry = torrent.geometry;
        let mut is_choked = true;
        loop {
            match link.read_message(geometry.n_pieces()).ok()? {
                Message::HaveAll => break,
                Message::Unchoke => is_choked = false,
                _ => {}
            }
        }
        link.send_messages(&[Message::HaveNone]).ok()?;
        link.never_wait().expect("a socket need not wait");
        let unasked = blocks_behind(geometry, nth);
        Some(Self {
            link,
            geometry,
            original: Arc::clone(&content.bytes),
            n_asked: 0,
            missing: geometry.pieces().map(|piece| geometry.n_blocks_of(piece)).collect(),
            n_wanted: unasked.len(),
            unasked,
            is_choked,
            is_connected: true,
            begun: None,
            first_wait: None,
        })
    }

    /// How long it waited for its first block.
    pub(super) fn first_wait(&self) -> Option<Duration> {
        self.first_wait
    }

    /// Whether it has all that it wants and the seeder has not let go of it.
    pub(super) fn is_done_and_connected(&mut self) -> bool {
        self.listen();
        self.is_connected && self.n_wanted == 0
    }

    fn is_fetching(&self) -> bool {
        self.is_connected && self.n_wanted > 0
    }

    /// Says that it wants something.
    fn begin(&mut self) {
        self.begun = Some(Instant::now());
        self.link.send_messages(&[Message::Interested]).expect("the seeder listens");
        self.listen();
    }

    /// Takes in all that is there, and asks for more.
    fn listen(&mut self) {
        let (mut answer, n_pieces) = (Vec::new(), self.geometry.n_pieces());
        loop {
            match self.link.message_at_hand(n_pieces) {
                Ok(Some(message)) => self.take(message, &mut answer),
                Ok(None) => break,
                Err(_) => return self.is_connected = false,
            }
        }
        self.ask(&mut answer);
        if !answer.is_empty() && self.link.send_messages(&answer).is_err() {
            self.is_connected = false;
        }
    }

    fn take(&mut self, message: Message, answer: &mut Vec<Message>) {
        match message {
            Message::Choke => self.is_choked = true,
            Message::Unchoke => self.is_choked = false,
            Message::Reject(BlockRange { index, begin, length }) => {
                self.n_asked -= 1;
                self.unasked.push_front(self.geometry.block(index, begin, length).expect("a block"));
            }
            Message::Piece { index, begin, block } => {
                self.first_wait = self.first_wait.or(self.begun.map(|begun| begun.elapsed()));
                self.n_asked -= 1;
                self.check(index, begin, &block);
                self.n_wanted -= 1;
                let missing = &mut self.missing[index as usize];
                *missing -= 1;
                if *missing == 0 {
                    answer.push(Message::Have(index));
                }
                if self.n_wanted == 0 {
                    answer.push(Message::NotInterested);
                }
            }
            _ => {}
        }
    }

    /// Compares a block with the original.
    fn check(&self, index: u32, begin: u32, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("a block");
        let block = self.geometry.block(index, begin, length).expect("a block that was asked for");
        let start = usize::try_from(self.geometry.offset_of(block)).expect("a file in memory");
        assert!(self.original[start..start + bytes.len()] == *bytes, "a block differs from the original");
    }

    fn ask(&mut self, answer: &mut Vec<Message>) {
        if self.begun.is_none() || self.is_choked {
            return;
        }
        let n = (WINDOW - self.n_asked).min(self.unasked.len());
        self.n_asked += n;
        answer.extend(self.unasked.drain(..n).map(|block| {
            Message::Request(BlockRange { index: block.piece.get(), begin: block.begin, length: block.length })
        }));
    }
}

/// All blocks but those of one piece, from the next piece on: members begin at different ones.
fn blocks_behind(geometry: Geometry, nth: usize) -> VecDeque<Block> {
    let mut pieces: Vec<_> = geometry.pieces().collect();
    let left_out = nth % pieces.len();
    pieces.rotate_left(left_out);
    pieces.remove(0);
    let blocks_of = |piece| (0..geometry.n_blocks_of(piece)).filter_map(move |nth| geometry.nth_block(piece, nth));
    pieces.into_iter().flat_map(blocks_of).collect()
}

/// Lets all of them fetch, until each has all that it wants or has lost its connection.
///
/// # Panics
/// When nobody hears anything within [`DEADLINE`].
pub(super) fn fetch_all(fetchers: &mut [Fetcher]) {
    fetchers.iter_mut().for_each(Fetcher::begin);
    while fetchers.iter().any(Fetcher::is_fetching) {
        for nth in wait_ready(fetchers).expect("the system tells who can read") {
            fetchers[nth].listen();
        }
    }
}

/// Those that have something to read.
fn wait_ready(fetchers: &[Fetcher]) -> io::Result<Vec<usize>> {
    let connected: Vec<usize> = (0..fetchers.len()).filter(|nth| fetchers[*nth].is_connected).collect();
    let watched = connected.iter().map(|nth| PollFd::new(&fetchers[*nth].link, PollFlags::IN));
    let mut watched: Vec<PollFd<'_>> = watched.collect();
    let patience = Timespec::try_from(DEADLINE).map_err(io::Error::other)?;
    let n_ready = poll(&mut watched, Some(&patience))?;
    assert!(n_ready > 0, "nobody hears anything");
    let ready = connected.iter().zip(&watched).filter(|(_, fd)| !fd.revents().is_empty());
    Ok(ready.map(|(nth, _)| *nth).collect())
}
