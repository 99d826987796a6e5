//! A sharer that speaks the peer wire protocol by itself: it serves at the pace and with the honesty that a
//! test asks for, and remembers what was asked of it.
//!
//! Each connection has two threads: one reads and notes requests, one serves those that the allowance covers.

use crate::waiting::DEADLINE;
use crate::wire_link::{Pass, WireLink};
use crate::wire_member::{Content, Torrent, WireMember};
use bytes::Bytes;
use mini_torrent_common::control::Presence;
use mini_torrent_common::geometry::Geometry;
use mini_torrent_common::hash::PeerId;
use mini_torrent_common::peer_wire::{BlockRange, Handshake, Message};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How a sharer behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conduct {
    /// Every block that it sends has a wrong byte.
    pub lies: bool,
    /// How many bytes it serves until [`WireSeeder::allow`] says more; `None`: all.
    pub allowance: Option<u64>,
    /// Whether it turns away every peer but the first.
    pub first_peer_only: bool,
}

impl Conduct {
    /// It serves whatever is asked.
    pub const HONEST: Self = Self { lies: false, allowance: None, first_peer_only: false };
    /// It serves rubbish.
    pub const LIAR: Self = Self { lies: true, allowance: None, first_peer_only: false };
    /// It takes requests and serves nothing until it is allowed to.
    pub const HELD: Self = Self { lies: false, allowance: Some(0), first_peer_only: false };
}

/// What a sharer saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The peers that came, in order; one that came twice stands twice.
    pub peers: Vec<PeerId>,
    /// Connections that came to nothing before the peer named the file, each with what went wrong.
    pub failed_openings: Vec<String>,
    /// Every request in the order of arrival.
    pub requests: Vec<(PeerId, BlockRange)>,
    /// What each peer said it has.
    pub haves: BTreeMap<PeerId, BTreeSet<u32>>,
    /// How many bytes of blocks were served.
    pub bytes_served: u64,
    /// How many connections are open.
    pub n_open: usize,
}

impl Seen {
    /// The pieces asked for, each once, in the order of the first request.
    pub fn pieces_requested(&self) -> Vec<u32> {
        let mut known = BTreeSet::new();
        self.requests.iter().map(|(_, range)| range.index).filter(|index| known.insert(*index)).collect()
    }

    /// What any peer said it has.
    pub fn all_haves(&self) -> BTreeSet<u32> {
        self.haves.values().flatten().copied().collect()
    }
}

#[derive(Debug)]
struct Shared {
    conduct: Conduct,
    pass: Pass,
    handshake: Handshake,
    geometry: Geometry,
    content: Content,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    seen: Seen,
    allowance: Option<u64>,
    sockets: Vec<TcpStream>,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn wait<'a>(&self, guard: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(guard, DEADLINE).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A sharer of one file, online as long as it lives; dropped, it is gone without a word.
#[derive(Debug)]
pub struct WireSeeder {
    /// Its connection to the tracker.
    pub member: WireMember,
    /// What it shares.
    pub torrent: Torrent,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl WireSeeder {
    /// Takes a free port.
    ///
    /// # Panics
    /// When there is none.
    pub fn bind() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").expect("a free port")
    }

    /// The port of a listener.
    ///
    /// # Panics
    /// Never, for a listener that is bound.
    pub fn port_of(listener: &TcpListener) -> u16 {
        listener.local_addr().expect("a bound listener").port()
    }

    /// Serves `content` to members who come, proving and showing what `pass` has, and says so to the tracker.
    pub fn serve(
        listener: TcpListener,
        member: WireMember,
        torrent: &Torrent,
        content: Content,
        conduct: Conduct,
        pass: Pass,
    ) -> Self {
        let handshake =
            Handshake { info_hash: torrent.info_hash, peer_id: member.peer_id(), fast: true, extended: false };
        let state = State { allowance: conduct.allowance, ..State::default() };
        let shared = Shared {
            conduct,
            pass,
            handshake,
            geometry: torrent.geometry,
            content,
            state: Mutex::new(state),
            changed: Condvar::new(),
        };
        let address = listener.local_addr().expect("a bound listener");
        let mut seeder = Self { member, torrent: torrent.clone(), address, shared: Arc::new(shared) };
        seeder.member.announce(torrent.listing, Presence::Seeding);
        let shared = Arc::clone(&seeder.shared);
        std::thread::spawn(move || accept_all(&listener, &shared));
        seeder
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets it serve so many bytes more; `None`: whatever is asked.
    pub fn allow(&self, more: Option<u64>) {
        self.shared.change(|state| {
            state.allowance = match (state.allowance, more) {
                (Some(allowance), Some(more)) => Some(allowance + more),
                _ => None,
            };
        });
    }

    /// What it saw so far.
    pub fn seen(&self) -> Seen {
        self.shared.lock().seen.clone()
    }

    /// Forgets what it saw.
    pub fn forget(&self) {
        self.shared.change(|state| {
            state.seen = Seen { n_open: state.seen.n_open, ..Seen::default() };
        });
    }

    /// Waits until it saw something.
    ///
    /// # Panics
    /// When it did not within [`DEADLINE`].
    pub fn wait_seen<T>(&self, what: &str, mut look: impl FnMut(&Seen) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        let mut state = self.shared.lock();
        loop {
            if let Some(found) = look(&state.seen) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the seeder did not see: {what}");
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until it was asked for something.
    pub fn wait_requested(&self) {
        self.wait_seen("a request", |seen| (!seen.requests.is_empty()).then_some(()));
    }
}

impl Drop for WireSeeder {
    fn drop(&mut self) {
        self.shared.change(|state| {
            state.ended = true;
            for socket in state.sockets.drain(..) {
                let _ = socket.shutdown(Shutdown::Both);
            }
        });
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((socket, _)) = listener.accept() {
        if shared.lock().ended {
            return;
        }
        if let Ok(socket) = socket.try_clone() {
            shared.change(|state| state.sockets.push(socket));
        }
        let shared = Arc::clone(shared);
        std::thread::spawn(move || match open(socket, &shared) {
            Ok((link, peer)) => _ = serve_peer(&Arc::new(link), peer, &shared),
            Err(error) => shared.change(|state| state.seen.failed_openings.push(error.to_string())),
        });
    }
}

/// Requests that are not served yet, of one connection.
type Pending = Mutex<Option<VecDeque<BlockRange>>>;

/// Up to the peer's handshake.
fn open(socket: TcpStream, shared: &Shared) -> io::Result<(WireLink, PeerId)> {
    let (link, _) = shared.pass.accept(socket)?;
    let theirs = link.read_handshake()?;
    if theirs.info_hash != shared.handshake.info_hash {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((link, theirs.peer_id))
}

fn serve_peer(link: &Arc<WireLink>, peer: PeerId, shared: &Arc<Shared>) -> io::Result<()> {
    if !admit(shared, peer) {
        link.shut_down();
        return Ok(());
    }
    let pending: Arc<Pending> = Arc::new(Mutex::new(Some(VecDeque::new())));
    let writer = {
        let (link, shared, pending) = (Arc::clone(link), Arc::clone(shared), Arc::clone(&pending));
        std::thread::spawn(move || write_blocks(&link, &shared, &pending))
    };
    let result = greet(link, shared).and_then(|()| read_requests(link, shared, peer, &pending));
    *lock(&pending) = None;
    shared.change(|state| state.seen.n_open -= 1);
    let _ = writer.join();
    result
}

fn greet(link: &WireLink, shared: &Shared) -> io::Result<()> {
    link.set_patience(None)?;
    link.send(&shared.handshake.encode())?;
    link.send_messages(&[Message::HaveAll, Message::Unchoke])
}

fn admit(shared: &Shared, peer: PeerId) -> bool {
    let mut admitted = false;
    shared.change(|state| {
        admitted = !shared.conduct.first_peer_only || state.seen.peers.iter().all(|known| *known == peer);
        if admitted {
            state.seen.peers.push(peer);
            state.seen.n_open += 1;
        }
    });
    admitted
}

fn lock(pending: &Pending) -> MutexGuard<'_, Option<VecDeque<BlockRange>>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes what the peer wants and has, until it leaves.
fn read_requests(link: &WireLink, shared: &Shared, peer: PeerId, pending: &Pending) -> io::Result<()> {
    loop {
        note(&link.read_message(shared.geometry.n_pieces())?, shared, peer, pending);
    }
}

fn note(message: &Message, shared: &Shared, peer: PeerId, pending: &Pending) {
    match message {
        Message::Request(range) => {
            lock(pending).iter_mut().for_each(|queue| queue.push_back(*range));
            shared.change(|state| state.seen.requests.push((peer, *range)));
        }
        Message::Cancel(range) => lock(pending).iter_mut().for_each(|queue| queue.retain(|other| other != range)),
        Message::Have(index) => shared.change(|state| {
            state.seen.haves.entry(peer).or_default().insert(*index);
        }),
        Message::Bitfield(bits) => shared.change(|state| {
            state.seen.haves.entry(peer).or_default().extend(set_bits(bits));
        }),
        Message::HaveAll => shared.change(|state| {
            state.seen.haves.entry(peer).or_default().extend(0..shared.geometry.n_pieces());
        }),
        _ => {}
    }
}

fn set_bits(bits: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let all = bits.iter().flat_map(|byte| (0..8).map(move |bit| byte & (0x80 >> bit) != 0));
    (0u32..).zip(all).filter(|(_, set)| *set).map(|(index, _)| index)
}

/// Serves what the allowance covers, until the reader ends.
fn write_blocks(link: &WireLink, shared: &Shared, pending: &Pending) {
    while let Some(range) = next_block(shared, pending) {
        let Some(message) = block_of(shared, range) else { return };
        if link.send_messages(&[message]).is_err() {
            return;
        }
        shared.change(|state| state.seen.bytes_served += u64::from(range.length));
    }
}

/// Waits for a request that the allowance covers; `None` when the connection ends.
fn next_block(shared: &Shared, pending: &Pending) -> Option<BlockRange> {
    let mut state = shared.lock();
    loop {
        if state.ended {
            return None;
        }
        let covered = |range: &BlockRange| state.allowance.is_none_or(|left| left >= u64::from(range.length));
        let range = match lock(pending).as_mut()? {
            queue if queue.front().is_some_and(covered) => queue.pop_front(),
            _ => None,
        };
        if let Some(range) = range {
            state.allowance = state.allowance.map(|left| left - u64::from(range.length));
            return Some(range);
        }
        state = shared.wait(state);
    }
}

/// The block as this sharer serves it; `None` when it does not exist.
fn block_of(shared: &Shared, range: BlockRange) -> Option<Message> {
    let block = shared.geometry.block(range.index, range.begin, range.length)?;
    let start = usize::try_from(shared.geometry.offset_of(block)).ok()?;
    let mut bytes = shared.content.bytes.get(start..start + range.length as usize)?.to_vec();
    if shared.conduct.lies {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
    }
    Some(Message::Piece { index: range.index, begin: range.begin, block: Bytes::from(bytes) })
}
