//! A downloader that speaks the peer wire protocol by itself: it asks a client for blocks one by one.

use crate::deployment::{Deployment, GROUP};
use crate::waiting::{eventually_within, in_time};
use crate::wire_link::{Pass, WireLink};
use crate::wire_member::WireMember;
use bytes::Bytes;
use mini_torrent_common::control::{ListingId, PeerContact, Presence, Request, Response};
use mini_torrent_common::geometry::{BLOCK_LENGTH, Geometry, PIECE_LENGTH};
use mini_torrent_common::peer_wire::{BlockRange, Handshake, Message};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(10);

/// A member connected to one seeder of a file.
#[derive(Debug)]
pub struct WireLeecher {
    member: WireMember,
    peer: PeerContact,
    pass: Pass,
    handshake: Handshake,
    link: WireLink,
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
        let peer = seeder_of(&mut member, listing.id);
        let pass = member.pass(listing.group);
        let geometry = Geometry::new(listing.draft.size, u64::from(PIECE_LENGTH)).expect("a size");
        let info_hash = listing.draft.info_hash;
        let handshake = Handshake { info_hash, peer_id: member.peer_id(), fast: true, extended: true };
        let link = shake_hands(&pass, &peer, &handshake);
        let mut leecher = Self { member, peer, pass, handshake, link, geometry, is_choked: true };
        leecher.begin();
        leecher
    }

    /// Connects to a client at this address with the ticket that it has, and no further.
    ///
    /// # Errors
    /// When it is not admitted.
    pub fn knock_at(&self, address: SocketAddr) -> io::Result<()> {
        self.pass.dial(address, self.peer.key).map(drop)
    }

    /// As [`Self::knock_at`], where it was connected before.
    ///
    /// # Errors
    /// When it is not admitted.
    pub fn knock(&self) -> io::Result<()> {
        self.knock_at(self.peer.address)
    }

    /// Looks for the same peer at another address from now on.
    pub fn move_to(&mut self, address: SocketAddr) {
        self.peer.address = address;
    }

    /// Gets a new ticket.
    ///
    /// # Panics
    /// When the tracker refuses.
    pub fn renew_ticket(&mut self) {
        self.pass = self.member.pass(self.pass.group);
    }

    /// Waits until the peer has closed the connection.
    ///
    /// # Panics
    /// When it is not closed in time.
    pub fn wait_closed(&mut self, promise: Duration) {
        assert!(in_time(promise, "the connection is closed", || self.is_closed()));
    }

    /// Connects anew, as itself, after the connection ended. The peer may need a moment to notice that it did.
    ///
    /// # Panics
    /// When the peer does not let us ask.
    pub fn come_again(&mut self) {
        self.link.shut_down();
        eventually_within(PATIENCE, "the peer lets us ask", || {
            self.link = shake_hands(&self.pass, &self.peer, &self.handshake);
            self.is_choked = true;
            self.try_begin().ok()
        });
    }

    fn begin(&mut self) {
        self.try_begin().expect("the peer lets us ask");
    }

    fn try_begin(&mut self) -> io::Result<()> {
        self.send(&[Message::HaveNone, Message::Interested])?;
        while self.is_choked {
            self.read()?;
        }
        Ok(())
    }

    /// Sends bytes that need not be a message.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.link.send(bytes)
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
        self.link.send_messages(messages)
    }

    /// The next message.
    ///
    /// # Errors
    /// When the connection fails, ends, or stays silent.
    pub fn read(&mut self) -> io::Result<Message> {
        let message = self.link.read_message(self.geometry.n_pieces())?;
        match message {
            Message::Choke => self.is_choked = true,
            Message::Unchoke => self.is_choked = false,
            _ => {}
        }
        Ok(message)
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
    /// When something is still served then.
    pub fn wait_refused(&mut self, promise: Duration) {
        eventually_within(promise, "nothing is served any more", || self.fetch_block(1).is_err().then_some(()));
    }
}

fn shake_hands(pass: &Pass, peer: &PeerContact, handshake: &Handshake) -> WireLink {
    let link = pass.dial(peer.address, peer.key).expect("the peer admits us");
    link.set_patience(Some(PATIENCE)).expect("a socket takes a timeout");
    link.send(&handshake.encode()).expect("the peer listens");
    let theirs = link.read_handshake().expect("the peer shakes hands");
    assert_eq!(theirs.info_hash, handshake.info_hash);
    link
}

fn seeder_of(member: &mut WireMember, listing: ListingId) -> PeerContact {
    crate::waiting::eventually("there is a seeder", || match member.ask(Request::Watch { listing }) {
        Response::Peers(peers) => peers.into_iter().find(|peer| peer.complete),
        other => panic!("no peers: {other:?}"),
    })
}
