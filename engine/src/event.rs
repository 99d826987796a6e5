//! What the driver tells the engine and what the engine asks of the driver.

use crate::misbehavior::PeerMisbehavior;
use mini_torrent_common::geometry::{Block, PieceIndex};
use mini_torrent_common::hash::Sha1Hash;
use std::fmt;
use std::net::SocketAddr;

/// One connection to a peer. The driver never reuses a number within a torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A peer's stable identity: its public key, or a digest of what stands for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub [u8; 32]);

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "PeerKey({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

/// A peer that the tracker named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Who must answer at the address.
    pub key: PeerKey,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it is dialled also when we have everything, for it may be unable to dial us.
    pub dial_as_seeder: bool,
}

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// This client did.
    Dialled,
    /// The peer did.
    Accepted,
}

/// What happened outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The tracker named peers. A known key takes the new address.
    PeersFound(Vec<Candidate>),
    /// The tracker says that the peer left: it is no longer dialled. An open connection stays until it ends.
    PeerGone(PeerKey),
    /// A [`Action::Dial`] came to nothing. One that succeeded is answered by [`Event::Connected`] instead.
    DialFailed(PeerKey),
    /// A connection is open, authenticated, and both handshakes are done.
    Connected {
        /// Its number from now on.
        connection: ConnectionId,
        /// Who is at the other end.
        key: PeerKey,
        /// Who opened it.
        direction: Direction,
        /// Both sides announced the fast extension (BEP 6).
        fast: bool,
    },
    /// The connection ended, for whatever reason, [`Action::Close`] included (then it may be left out).
    Disconnected(ConnectionId),
    /// The peer sent a message. After a [`Message::Block`] the first action tells what to do with its bytes.
    Received {
        /// From where.
        connection: ConnectionId,
        /// What.
        message: Message,
    },
    /// The block of an [`Action::Serve`] was handed to the socket. Not sent for one that was cancelled in time.
    Served {
        /// To whom.
        connection: ConnectionId,
        /// Which.
        block: Block,
    },
    /// The hash of a piece under [`Action::Verify`] matched and its bytes are written.
    PieceVerified {
        /// Which.
        piece: PieceIndex,
        /// SHA-1 of each 16 KiB block in order, if the action asked for them.
        block_digests: Option<Vec<Sha1Hash>>,
    },
    /// The hash of a piece under [`Action::Verify`] did not match.
    PieceCorrupt {
        /// Which.
        piece: PieceIndex,
        /// SHA-1 of each 16 KiB block in order.
        block_digests: Vec<Sha1Hash>,
    },
    /// The piece could not be written (disk full), or was found damaged: it is missing again.
    PieceLost {
        /// Which.
        piece: PieceIndex,
    },
    /// Request nothing new and dial nobody, but go on serving (disk full, user logged out).
    Paused,
    /// Ends [`Event::Paused`].
    Resumed,
    /// The peer is not admitted any more: close, and do not dial it until the tracker names it again. Whoever accepts
    /// connections judges whether it may come back.
    Forget(PeerKey),
}

/// A message of the peer wire protocol as it came: its numbers are not checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Nothing, to keep the connection (BEP 3).
    KeepAlive,
    /// The peer will not answer requests (BEP 3).
    Choke,
    /// The peer will answer requests (BEP 3).
    Unchoke,
    /// The peer wants pieces that we have (BEP 3).
    Interested,
    /// The peer wants nothing of ours (BEP 3).
    NotInterested,
    /// The peer has one more piece (BEP 3).
    Have(u32),
    /// The pieces that the peer has, as on the wire (BEP 3).
    Bitfield(Vec<u8>),
    /// The peer has every piece (BEP 6).
    HaveAll,
    /// The peer has no piece (BEP 6).
    HaveNone,
    /// The peer asks for a range of a piece (BEP 3).
    Request {
        /// Piece.
        index: u32,
        /// Offset in bytes.
        begin: u32,
        /// Length in bytes.
        length: u32,
    },
    /// The peer takes a request back (BEP 3).
    Cancel {
        /// Piece.
        index: u32,
        /// Offset in bytes.
        begin: u32,
        /// Length in bytes.
        length: u32,
    },
    /// The peer will not answer this request (BEP 6).
    Reject {
        /// Piece.
        index: u32,
        /// Offset in bytes.
        begin: u32,
        /// Length in bytes.
        length: u32,
    },
    /// A hint to ask for this piece (BEP 6). A seeder of ours offers each piece to one peer only.
    Suggest(u32),
    /// The piece may be asked for while choked (BEP 6). Ignored.
    AllowedFast(u32),
    /// A `piece` message (BEP 3); its bytes stay with the driver.
    Block {
        /// Piece.
        index: u32,
        /// Offset in bytes.
        begin: u32,
        /// Length in bytes.
        length: u32,
    },
    /// The extension handshake (BEP 10).
    ExtendedHandshake {
        /// `reqq`: how many outstanding requests the peer keeps.
        max_requests: Option<u32>,
    },
    /// Anything else; tolerated.
    Unknown,
}

/// A message to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outgoing {
    /// Nothing, to keep the connection (BEP 3).
    KeepAlive,
    /// Requests will not be answered (BEP 3).
    Choke,
    /// Requests will be answered (BEP 3).
    Unchoke,
    /// We want pieces of the peer (BEP 3).
    Interested,
    /// We want nothing of the peer (BEP 3).
    NotInterested,
    /// We have one more piece (BEP 3).
    Have(PieceIndex),
    /// What [`crate::Torrent::have`] holds, first of all messages: have-all or have-none where the connection is
    /// fast (BEP 6), otherwise a bitfield, which may be left out when empty (BEP 3).
    Pieces,
    /// Asks for a block (BEP 3).
    Request(Block),
    /// Takes a request back (BEP 3).
    Cancel(Block),
    /// Refuses a request (BEP 6); only for fast connections.
    Reject(Block),
    /// Hints at a piece to ask for (BEP 6); only for fast connections.
    Suggest(PieceIndex),
}

/// What the driver shall do, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Connect; answered by [`Event::Connected`] or [`Event::DialFailed`].
    Dial(Candidate),
    /// End the connection. The engine has forgotten it already.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
    /// Send a message.
    Send {
        /// To whom.
        connection: ConnectionId,
        /// What.
        message: Outgoing,
    },
    /// Read this block and send it; answered by [`Event::Served`].
    Serve {
        /// To whom.
        connection: ConnectionId,
        /// Which.
        block: Block,
    },
    /// Do not send this block after all, if it is not yet on its way. Where the connection is fast and the peer
    /// must know, a [`Outgoing::Reject`] follows.
    CancelServe {
        /// To whom.
        connection: ConnectionId,
        /// Which.
        block: Block,
    },
    /// Keep the bytes of the [`Message::Block`] just handled. Always the first action after it; when it is absent
    /// the bytes are not wanted. A block stored before may be stored again (its first sender turned out to be a
    /// liar): the later bytes count.
    Store {
        /// From whom.
        connection: ConnectionId,
        /// Which.
        block: Block,
    },
    /// Forget the stored blocks of this piece; it is missing again.
    Drop {
        /// Which.
        piece: PieceIndex,
    },
    /// All blocks of the piece are stored: hash it and, if it matches, write it. Answered by
    /// [`Event::PieceVerified`], [`Event::PieceCorrupt`] or [`Event::PieceLost`].
    Verify {
        /// Which.
        piece: PieceIndex,
        /// Whether a match shall come with the digest of each block. A mismatch always does.
        with_block_digests: bool,
    },
    /// Have nothing to do with this peer in this torrent any more. [`Action::Close`] stands beside it when it is connected.
    Ban {
        /// Whom.
        key: PeerKey,
        /// Why.
        reason: PeerMisbehavior,
    },
    /// The last piece is verified.
    Completed,
}

/// Why the engine ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer is this client.
    SelfConnection,
    /// Another connection to the same peer is kept.
    Duplicate,
    /// [`crate::Limits::connections`] is reached.
    TooManyConnections,
    /// Both sides have every piece.
    NothingToExchange,
    /// The peer was silent for too long.
    TimedOut,
    /// The peer was banned before, or is not admitted any more.
    Barred,
    /// The peer broke the protocol or lied.
    Misbehavior(PeerMisbehavior),
}
