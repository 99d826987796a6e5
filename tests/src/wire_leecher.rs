//! A downloader that speaks the peer wire protocol by itself: it asks a client for blocks one by one.

use crate::deployment::{Deployment, GROUP};
use crate::wire_member::WireMember;
use bytes::{Bytes, BytesMut};
use mini_torrent_common::control::{ListingId, PeerContact, Presence, Request, Response};
use mini_torrent_common::geometry::{BLOCK_LENGTH, Geometry, PIECE_LENGTH};
use mini_torrent_common::peer_wire::{self, BlockRange, HANDSHAKE_LENGTH, Handshake, Message};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(10);

/// A member connected to one seeder of a file.
#[derive(Debug)]
pub struct WireLeecher {
    member: WireMember,
    peer: SocketAddr,
    handshake: Handshake,
    socket: TcpStream,
    incoming: BytesMut,
    geometry: Geometry,
    is_choked: bool,
}

impl WireLeecher {
    /// Makes a new member that connects to a seeder of `file` and waits until it may ask.
    ///
    /// # Panics
    /// When there is none, or it does not let us ask.
    pub fn join(deployment: &mut Deployment, user: &str, file: &str) -> Self {
        let mut member = deployment.add_wire_member(user, 1);
        let (group, name) = (GROUP.parse().expect("a group name"), file.parse().expect("a file name"));
        let Response::File(listing) = member.ask(Request::FindFile { group, file: name }) else {
            panic!("{file} is not listed")
        };
        member.announce(listing.id, Presence::Leeching);
        let peer = seeder_of(&mut member, listing.id).address;
        let geometry = Geometry::new(listing.draft.size, u64::from(PIECE_LENGTH)).expect("a size");
        let info_hash = listing.draft.info_hash;
        let handshake = Handshake { info_hash, peer_id: member.peer_id(), fast: true, extended: true };
        let socket = shake_hands(peer, &handshake);
        let mut leecher =
            Self { member, peer, handshake, socket, incoming: BytesMut::new(), geometry, is_choked: true };
        leecher.begin();
        leecher
    }

    /// Connects anew, as itself, after the connection ended.
    ///
    /// # Panics
    /// When the peer does not let us ask.
    pub fn come_again(&mut self) {
        self.socket = shake_hands(self.peer, &self.handshake);
        self.incoming.clear();
        self.is_choked = true;
        self.begin();
    }

    fn begin(&mut self) {
        self.send(&[Message::HaveNone, Message::Interested]).expect("the peer listens");
        while self.is_choked {
            self.read().expect("the peer lets us ask");
        }
    }

    /// Sends bytes that need not be a message.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Waits until the peer has closed the connection; whether it did.
    pub fn is_closed(&mut self) -> bool {
        loop {
            match self.read() {
                Ok(_) => {}
                Err(error) => return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            }
        }
    }

    /// Its connection to the tracker.
    pub fn member(&mut self) -> &mut WireMember {
        &mut self.member
    }

    /// Sends messages.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn send(&mut self, messages: &[Message]) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        messages.iter().for_each(|message| message.encode(&mut bytes));
        self.socket.write_all(&bytes)
    }

    /// The next message.
    ///
    /// # Errors
    /// When the connection fails, ends, or stays silent.
    pub fn read(&mut self) -> io::Result<Message> {
        loop {
            let decoded = peer_wire::decode(&mut self.incoming, self.geometry.n_pieces()).map_err(io::Error::other)?;
            if let Some(message) = decoded {
                match message {
                    Message::Choke => self.is_choked = true,
                    Message::Unchoke => self.is_choked = false,
                    _ => {}
                }
                return Ok(message);
            }
            let mut buffer = [0; 32 * 1024];
            let n = self.socket.read(&mut buffer)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.incoming.extend_from_slice(&buffer[..n]);
        }
    }

    /// Fetches the first block of a piece.
    ///
    /// # Errors
    /// When it is not served.
    ///
    /// # Panics
    /// When there is no such piece.
    pub fn fetch_block(&mut self, piece_index: u32) -> io::Result<Bytes> {
        let piece = self.geometry.piece(piece_index).expect("a piece");
        let length = self.geometry.length_of(piece).min(BLOCK_LENGTH);
        self.send(&[Message::Request(BlockRange { index: piece_index, begin: 0, length })])?;
        loop {
            match self.read()? {
                Message::Piece { block, .. } => return Ok(block),
                Message::Reject(_) | Message::Choke => return Err(io::ErrorKind::ConnectionRefused.into()),
                _ => {}
            }
        }
    }

    /// Waits until nothing is served any more.
    ///
    /// # Panics
    /// When something is served after `limit`.
    pub fn wait_refused(&mut self, limit: Duration) {
        let start = Instant::now();
        while self.fetch_block(1).is_ok() {
            assert!(start.elapsed() < limit, "still served after {limit:?}");
        }
    }
}

fn shake_hands(peer: SocketAddr, handshake: &Handshake) -> TcpStream {
    let mut socket = TcpStream::connect(peer).expect("the peer accepts");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    socket.write_all(&handshake.encode()).expect("the peer listens");
    let mut bytes = [0; HANDSHAKE_LENGTH];
    socket.read_exact(&mut bytes).expect("the peer shakes hands");
    assert_eq!(Handshake::decode(&bytes).map(|theirs| theirs.info_hash), Some(handshake.info_hash));
    socket
}

fn seeder_of(member: &mut WireMember, listing: ListingId) -> PeerContact {
    crate::waiting::eventually("there is a seeder", || match member.ask(Request::Watch { listing }) {
        Response::Peers(peers) => peers.into_iter().find(|peer| peer.complete),
        other => panic!("no peers: {other:?}"),
    })
}
