//! The first words between peers: tickets, then which torrent, then messages (design §5).
//!
//! The dialler compares the key and shows its ticket; the acceptor sends nothing before it has accepted that,
//! and answers with its own. Only then does the BitTorrent handshake follow. Whatever is not as it should be
//! closes the connection without a word, so all refusals look alike from outside. An ordinary client has neither key
//! nor ticket: it begins with the BitTorrent handshake, and the address that it comes from admits it (design §7).

use mini_torrent_common::hash::{GroupId, InfoHash, PeerId, Sha256Hash};
use mini_torrent_common::peer_wire::{HANDSHAKE_LENGTH, Handshake};
use mini_torrent_common::ticket::{MAX_TICKET_LENGTH, SignedTicket, Ticket, TicketError};
use mini_torrent_common::tls::PublicKey;
use mini_torrent_engine::{Direction, PeerKey};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::transport::unproven;
use super::{CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, Security, Transport, connect};
use crate::admission::{Admissions, Moment, NotAdmitted};

/// How a BitTorrent handshake begins; sent in the place of a ticket's length it is none.
const HANDSHAKE_START: [u8; 2] = [19, b'B'];

/// Keeps the keys that stand for ordinary clients apart from each other, and from all that are proved.
const DIALLED_DOMAIN: &[u8] = b"mini-torrent plain peer by address 1\0";
const CALLER_DOMAIN: &[u8] = b"mini-torrent plain peer by name 1\0";

/// What a peer was admitted with.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// A member's ticket, over a connection that proved its key.
    Ticket(Box<Ticket>),
    /// The address that it comes from: an ordinary client.
    Address(IpAddr),
}

/// What stands for the key of an ordinary client of which only the address is known.
pub(crate) fn key_at(address: SocketAddr) -> PeerKey {
    let address = SocketAddr::new(address.ip().to_canonical(), address.port()).to_string();
    PeerKey(Sha256Hash::of(&[DIALLED_DOMAIN, address.as_bytes()].concat()).0)
}

/// What stands for the key of an ordinary client that dialled us: where it listens is not known.
fn key_of_caller(from: IpAddr, peer_id: PeerId) -> PeerKey {
    let from = from.to_canonical().to_string();
    PeerKey(Sha256Hash::of(&[CALLER_DOMAIN, peer_id.as_bytes(), from.as_bytes()].concat()).0)
}

/// A connection on which everything is said that comes before messages.
pub(crate) struct OpenPeer {
    pub(crate) transport: Transport,
    /// The peer's key, or what stands for it.
    pub(crate) key: PeerKey,
    pub(crate) credential: Credential,
    /// Its name in swarms, as it says.
    pub(crate) peer_id: PeerId,
    pub(crate) direction: Direction,
    /// Both sides speak the fast extension.
    pub(crate) fast: bool,
    /// Both sides speak the extension protocol.
    pub(crate) extended: bool,
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// The network or TLS refused.
    #[error(transparent)]
    Io(io::Error),
    /// The other side closed the connection without a word, as it does with those whom it does not admit.
    #[error("it closed the connection; perhaps it does not admit this client")]
    Closed,
    /// This client has as many connections as it can.
    #[error("there are too many connections")]
    TooMany,
    /// The peer took too long.
    #[error("it took too long")]
    TimedOut,
    /// The peer speaks another protocol.
    #[error("it does not speak BitTorrent")]
    OtherProtocol,
    /// TLS came about without the protocol's name.
    #[error("it did not name the protocol between members (ALPN)")]
    NoAlpn,
    /// Somebody else answered than the tracker named.
    #[error("another key answered than the tracker named")]
    OtherPeer,
    /// The peer sent something else where its ticket belongs.
    #[error("protocol bytes came before the ticket")]
    NoTicket,
    /// The peer is not admitted.
    #[error("{0}")]
    NotAdmitted(#[from] NotAdmitted),
    /// Both ends of the connection are this client.
    #[error("it is this client itself")]
    Own,
    /// The ticket opens another group than the torrent's.
    #[error("the ticket is of another group than the file")]
    OtherGroup,
    /// The peer answered for another torrent, or wants one that we do not have.
    #[error("no such torrent")]
    OtherTorrent,
}

impl PeerError {
    /// Whether one side turned the other away, which a person may want to know of.
    pub(crate) fn is_refusal(&self) -> bool {
        !matches!(self, Self::Io(_) | Self::TimedOut | Self::TooMany)
    }
}

impl From<io::Error> for PeerError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

impl From<tokio::time::error::Elapsed> for PeerError {
    fn from(_: tokio::time::error::Elapsed) -> Self {
        Self::TimedOut
    }
}

impl From<TicketError> for PeerError {
    fn from(error: TicketError) -> Self {
        NotAdmitted::Ticket(error).into()
    }
}

/// What this client needs to open connections. Clones are the same client.
#[derive(Clone)]
pub(crate) struct Opener {
    pub(crate) security: Security,
    /// The address that connections are opened from, if it is a particular one.
    pub(crate) own_ip: IpAddr,
    pub(crate) peer_id: PeerId,
    pub(crate) admissions: watch::Receiver<Admissions>,
    /// One for each connection that may be open, for each needs a file descriptor.
    pub(crate) places: Arc<Semaphore>,
}

/// A torrent, as connections name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TorrentName {
    pub(crate) info_hash: InfoHash,
    /// The group whose members take part; nothing where no ticket says one.
    pub(crate) group: Option<GroupId>,
}

/// A peer that dialled us, is admitted, and has said which torrent it wants.
pub(crate) struct Caller {
    transport: Transport,
    credential: Credential,
    handshake: Handshake,
}

/// A torrent that a caller wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) info_hash: InfoHash,
    pub(crate) by: WishedBy,
}

/// Who wants a torrent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WishedBy {
    /// Somebody with a ticket of this group.
    MemberOf(GroupId),
    /// An ordinary client at this address.
    Ordinary(IpAddr),
}

impl Caller {
    /// What it wants, and what it shows for that.
    pub(crate) fn wants(&self) -> Wish {
        let by = match &self.credential {
            Credential::Ticket(ticket) => WishedBy::MemberOf(ticket.group),
            Credential::Address(from) => WishedBy::Ordinary(*from),
        };
        Wish { info_hash: self.handshake.info_hash, by }
    }
}

impl Opener {
    /// Connects to a member that the tracker named with its key.
    ///
    /// # Errors
    /// When it cannot be reached, is somebody else, or is not admitted.
    pub(crate) async fn dial(
        mut self,
        address: SocketAddr,
        key: PublicKey,
        info_hash: InfoHash,
        group: GroupId,
    ) -> Result<OpenPeer, PeerError> {
        let place = self.place()?;
        let own_ticket = timeout(HANDSHAKE_TIMEOUT, self.own_ticket(group)).await??;
        let stream = timeout(CONNECT_TIMEOUT, connect(address, self.own_ip)).await??;
        let opening = async {
            let mut transport = self.security.connect(stream, address, place).await?;
            if transport.key != Some(key) {
                return Err(PeerError::OtherPeer);
            }
            send_ticket(&mut transport, &own_ticket).await?;
            let signed = read_ticket(&mut transport).await?;
            let ticket = self.judge(&signed, key)?;
            if ticket.group != group {
                return Err(PeerError::OtherGroup);
            }
            let theirs = self.shake_hands(&mut transport, info_hash).await?;
            Ok(open(transport, Credential::Ticket(Box::new(ticket)), theirs, Direction::Dialled))
        };
        timeout(HANDSHAKE_TIMEOUT, opening).await?
    }

    /// Connects to an ordinary client of which only the address is known.
    ///
    /// # Errors
    /// When it cannot be reached, is not admitted any more, or has another torrent.
    pub(crate) async fn dial_plain(self, address: SocketAddr, torrent: TorrentName) -> Result<OpenPeer, PeerError> {
        let place = self.place()?;
        self.admissions.borrow().judge_plain(torrent, address.ip())?;
        let stream = timeout(CONNECT_TIMEOUT, connect(address, self.own_ip)).await??;
        stream.set_nodelay(true)?;
        let mut transport = unproven(stream, address, place);
        let theirs = timeout(HANDSHAKE_TIMEOUT, self.shake_hands(&mut transport, torrent.info_hash)).await??;
        if theirs.peer_id == self.peer_id {
            return Err(PeerError::Own);
        }
        Ok(open(transport, Credential::Address(address.ip()), theirs, Direction::Dialled))
    }

    /// Says which torrent is wanted, and has the other side confirm it.
    async fn shake_hands(&self, transport: &mut Transport, info_hash: InfoHash) -> Result<Handshake, PeerError> {
        transport.writer.write_all(&self.own_handshake(info_hash).encode()).await?;
        transport.writer.flush().await?;
        let theirs = read_handshake(transport).await?;
        if theirs.info_hash == info_hash { Ok(theirs) } else { Err(PeerError::OtherTorrent) }
    }

    /// Admits a peer that dialled us and reads which torrent it wants.
    ///
    /// # Errors
    /// When it does not say so, or is not admitted.
    pub(crate) async fn admit(&mut self, stream: TcpStream, remote: SocketAddr) -> Result<Caller, PeerError> {
        let transport = self.security.accept(stream, remote, self.place()?).await?;
        match transport.key {
            Some(key) => self.admit_member(transport, key).await,
            None => self.admit_plain(transport).await,
        }
    }

    async fn admit_member(&mut self, mut transport: Transport, key: PublicKey) -> Result<Caller, PeerError> {
        let signed = read_ticket(&mut transport).await?;
        let ticket = self.judge(&signed, key)?;
        let own_ticket = self.own_ticket(ticket.group).await?;
        // That may have waited, and brought news.
        self.admissions.borrow().check_again(&ticket, Moment::now())?;
        send_ticket(&mut transport, &own_ticket).await?;
        let handshake = read_handshake(&mut transport).await?;
        Ok(Caller { transport, credential: Credential::Ticket(Box::new(ticket)), handshake })
    }

    async fn admit_plain(&self, mut transport: Transport) -> Result<Caller, PeerError> {
        let handshake = read_handshake(&mut transport).await?;
        if handshake.peer_id == self.peer_id {
            return Err(PeerError::Own);
        }
        let from = transport.remote.ip();
        self.judge_plain_caller(handshake.info_hash, from)?;
        Ok(Caller { transport, credential: Credential::Address(from), handshake })
    }

    /// Answers a caller whose torrent is there.
    ///
    /// # Errors
    /// When the network fails.
    pub(crate) async fn answer(&self, caller: Caller) -> Result<OpenPeer, PeerError> {
        let Caller { mut transport, credential, handshake } = caller;
        transport.writer.write_all(&self.own_handshake(handshake.info_hash).encode()).await?;
        transport.writer.flush().await?;
        Ok(open(transport, credential, handshake, Direction::Accepted))
    }

    /// Our ticket for a group. Waits for one that is being asked for, and until all revocations are known: a tracker
    /// that has just come back may know of memberships that ended meanwhile.
    async fn own_ticket(&mut self, group: GroupId) -> Result<SignedTicket, NotAdmitted> {
        let current = self.admissions.wait_for(|admissions| admissions.is_current(group)).await;
        let ticket = current.ok().and_then(|admissions| admissions.own_ticket(group, Moment::now()));
        ticket.ok_or(NotAdmitted::OtherGroup)
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, PeerError> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| PeerError::TooMany)
    }

    fn judge(&self, signed: &SignedTicket, key: PublicKey) -> Result<Ticket, NotAdmitted> {
        self.admissions.borrow().judge(signed, key, Moment::now())
    }

    /// Whether a caller could be admitted to some torrent of this info-hash. Which one it gets is judged with that.
    fn judge_plain_caller(&self, info_hash: InfoHash, from: IpAddr) -> Result<(), NotAdmitted> {
        let stock = &self.admissions.borrow().stock;
        Ok(stock.judge_foreign(info_hash).or_else(|_| stock.judge_announced(info_hash, from))?)
    }

    fn own_handshake(&self, info_hash: InfoHash) -> Handshake {
        Handshake { info_hash, peer_id: self.peer_id, fast: true, extended: true }
    }
}

async fn send_ticket(transport: &mut Transport, ticket: &SignedTicket) -> Result<(), PeerError> {
    let bytes = ticket.as_bytes();
    let length = u16::try_from(bytes.len()).map_err(|_| TicketError::Oversized)?;
    transport.writer.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await?;
    Ok(transport.writer.flush().await?)
}

/// A ticket on the wire: its length in two bytes, most significant first, and its bytes.
async fn read_ticket(transport: &mut Transport) -> Result<SignedTicket, PeerError> {
    let mut length = [0; 2];
    transport.reader.read_exact(&mut length).await?;
    if length == HANDSHAKE_START {
        return Err(PeerError::NoTicket);
    }
    let length = usize::from(u16::from_be_bytes(length));
    if length > MAX_TICKET_LENGTH {
        return Err(TicketError::Oversized.into());
    }
    let mut bytes = vec![0; length];
    transport.reader.read_exact(&mut bytes).await?;
    Ok(SignedTicket::new(bytes)?)
}

async fn read_handshake(transport: &mut Transport) -> Result<Handshake, PeerError> {
    let mut bytes = [0; HANDSHAKE_LENGTH];
    transport.reader.read_exact(&mut bytes).await?;
    Handshake::decode(&bytes).ok_or(PeerError::OtherProtocol)
}

fn open(transport: Transport, credential: Credential, theirs: Handshake, direction: Direction) -> OpenPeer {
    let key = match (&credential, direction) {
        (Credential::Ticket(ticket), _) => PeerKey(ticket.holder.0),
        (Credential::Address(_), Direction::Dialled) => key_at(transport.remote),
        (Credential::Address(from), Direction::Accepted) => key_of_caller(*from, theirs.peer_id),
    };
    let Handshake { peer_id, fast, extended, .. } = theirs;
    OpenPeer { transport, key, credential, peer_id, direction, fast, extended }
}

#[cfg(test)]
mod tests;
