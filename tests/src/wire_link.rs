//! A connection between members, spoken by hand: TLS with keys, tickets, then the peer wire protocol; and the
//! parts of every wrong way to begin one (design §5).

use bytes::BytesMut;
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::peer_wire::{self, HANDSHAKE_LENGTH, Handshake, Message};
use mini_torrent_common::ticket::{SignedTicket, Ticket};
use mini_torrent_common::tls::{self, Identity, PublicKey};
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection, SignatureScheme};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::waiting::DEADLINE;

/// How many bytes are read at once.
const BUFFER_LENGTH: usize = 16 * 1024;

/// One end of a TLS connection. One thread reads and one writes, at the same time.
#[derive(Debug)]
pub struct WireLink {
    socket: TcpStream,
    tls: Mutex<Connection>,
    /// What was read and not taken yet.
    incoming: Mutex<BytesMut>,
    /// Held while records go out, so that they go out in order.
    sending: Mutex<()>,
}

impl WireLink {
    /// Connects and finishes the TLS handshake. A refusal of our key shows later, when we read.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn dial(address: SocketAddr, config: ClientConfig) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&address, DEADLINE)?;
        let tls = ClientConnection::new(Arc::new(config), tls::unnamed_server()).map_err(io::Error::other)?;
        Self::shake_hands(socket, tls.into())
    }

    /// Takes a connection that a listener accepted and finishes the TLS handshake.
    ///
    /// # Errors
    /// When the connection fails or the other side does not speak TLS with a key.
    pub fn accept(socket: TcpStream, config: ServerConfig) -> io::Result<Self> {
        let tls = ServerConnection::new(Arc::new(config)).map_err(io::Error::other)?;
        Self::shake_hands(socket, tls.into())
    }

    fn shake_hands(mut socket: TcpStream, mut tls: Connection) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        tls.set_buffer_limit(None);
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(Self { socket, tls: Mutex::new(tls), incoming: Mutex::default(), sending: Mutex::default() })
    }

    /// Says how long a read may take; [`DEADLINE`] without it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(patience)
    }

    /// The key that the other side proved.
    pub fn key(&self) -> Option<PublicKey> {
        tls::peer_key(&lock(&self.tls))
    }

    /// Whether both sides named the protocol between members.
    pub fn is_between_members(&self) -> bool {
        lock(&self.tls).alpn_protocol() == Some(peer_wire::ALPN)
    }

    /// Sends bytes that need not mean anything.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let _turn = lock(&self.sending);
        let mut records = Vec::new();
        {
            let mut tls = lock(&self.tls);
            tls.writer().write_all(bytes)?;
            while tls.wants_write() {
                tls.write_tls(&mut records)?;
            }
        }
        (&self.socket).write_all(&records)
    }

    /// Sends messages.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn send_messages(&self, messages: &[Message]) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        messages.iter().for_each(|message| message.encode(&mut bytes));
        self.send(&bytes)
    }

    /// Waits for more bytes; [`io::ErrorKind::UnexpectedEof`] when no more come.
    fn receive(&self, incoming: &mut BytesMut) -> io::Result<()> {
        if drain(&mut lock(&self.tls), incoming)? > 0 {
            return Ok(());
        }
        let mut buffer = [0; BUFFER_LENGTH];
        loop {
            let n = (&self.socket).read(&mut buffer)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (mut rest, mut n_drained) = (&buffer[..n], 0);
            let mut tls = lock(&self.tls);
            while !rest.is_empty() {
                tls.read_tls(&mut rest)?;
                tls.process_new_packets().map_err(io::Error::other)?;
                n_drained += drain(&mut tls, incoming)?;
            }
            if n_drained > 0 {
                return Ok(());
            }
        }
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// When the connection fails or ends before.
    pub fn read_exact(&self, length: usize) -> io::Result<BytesMut> {
        let mut incoming = lock(&self.incoming);
        while incoming.len() < length {
            self.receive(&mut incoming)?;
        }
        Ok(incoming.split_to(length))
    }

    /// The next message.
    ///
    /// # Errors
    /// When the connection fails or ends, or something else comes.
    pub fn read_message(&self, n_pieces: u32) -> io::Result<Message> {
        let mut incoming = lock(&self.incoming);
        loop {
            if let Some(message) = peer_wire::decode(&mut incoming, n_pieces).map_err(io::Error::other)? {
                return Ok(message);
            }
            self.receive(&mut incoming)?;
        }
    }

    /// Says that a read which finds nothing is not to wait: for [`Self::message_at_hand`].
    ///
    /// # Errors
    /// When the system refuses.
    pub fn never_wait(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    /// The next message, if it is there, of a connection that does not wait.
    ///
    /// # Errors
    /// When the connection fails or ends, or something else comes.
    pub fn message_at_hand(&self, n_pieces: u32) -> io::Result<Option<Message>> {
        match self.read_message(n_pieces) {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The other side's BitTorrent handshake.
    ///
    /// # Errors
    /// When the connection fails or ends, or something else comes.
    pub fn read_handshake(&self) -> io::Result<Handshake> {
        let bytes = self.read_exact(HANDSHAKE_LENGTH)?;
        bytes.first_chunk().and_then(Handshake::decode).ok_or(io::ErrorKind::InvalidData.into())
    }

    /// The other side's ticket, unopened.
    ///
    /// # Errors
    /// When the connection fails or ends before, or something longer is announced.
    pub fn read_ticket(&self) -> io::Result<SignedTicket> {
        let length = self.read_exact(2)?;
        let length = usize::from(length[0]) << 8 | usize::from(length[1]);
        SignedTicket::new(self.read_exact(length)?.to_vec()).map_err(io::Error::other)
    }

    /// Waits until the other side has closed the connection; what it said before, if anything.
    ///
    /// # Panics
    /// When it stays open for longer than the patience.
    pub fn wait_closed(&self) -> Vec<u8> {
        let mut incoming = lock(&self.incoming);
        loop {
            match self.receive(&mut incoming) {
                Ok(()) => {}
                Err(error) => {
                    let stalls = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                    assert!(!stalls, "the connection is still open");
                    return incoming.to_vec();
                }
            }
        }
    }

    /// Ends the connection in both directions.
    pub fn shut_down(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Its socket, to wait for several at once.
impl AsFd for WireLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Takes the plain bytes that are there; how many.
fn drain(tls: &mut Connection, incoming: &mut BytesMut) -> io::Result<usize> {
    let mut buffer = [0; BUFFER_LENGTH];
    let mut n_drained = 0;
    loop {
        match tls.reader().read(&mut buffer) {
            // The other side said that it ends; the socket will tell.
            Ok(0) => return Ok(n_drained),
            Ok(n) => {
                incoming.extend_from_slice(&buffer[..n]);
                n_drained += n;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(n_drained),
            Err(error) => return Err(error),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A ticket as it travels between members: its length in two bytes, most significant first, and its bytes.
pub fn framed(ticket: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ticket.len()).expect("a length of two bytes");
    [&length.to_be_bytes()[..], ticket].concat()
}

/// The wall clock, in milliseconds since the Unix epoch: the trackers' time where all run on one machine.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
    u64::try_from(since.as_millis()).expect("milliseconds fit")
}

/// What a member shows another one of its group.
#[derive(Debug, Clone)]
pub struct Pass {
    /// The key that it proves.
    pub identity: Identity,
    /// The ticket that it shows: any bytes.
    pub ticket: Vec<u8>,
    /// The deployment whose tickets it takes.
    pub deployment: PublicKey,
    /// The group whose tickets it takes.
    pub group: GroupId,
}

impl Pass {
    /// Connects to a member of the same group, up to the BitTorrent handshake.
    ///
    /// # Errors
    /// When somebody else than `key` answers, or one side turns the other away.
    pub fn dial(&self, address: SocketAddr, key: PublicKey) -> io::Result<WireLink> {
        let link = WireLink::dial(address, self.client_config()?)?;
        if link.key() != Some(key) || !link.is_between_members() {
            return Err(io::Error::other("somebody else answered"));
        }
        link.send(&framed(&self.ticket))?;
        self.admit(&link)?;
        Ok(link)
    }

    /// Takes a connection of a member of the same group, up to the BitTorrent handshake; with what it was admitted.
    ///
    /// # Errors
    /// When it is no member, or turns us away.
    pub fn accept(&self, socket: TcpStream) -> io::Result<(WireLink, Ticket)> {
        let config = tls::peer_server_config(&self.identity).map_err(io::Error::other)?;
        let link = WireLink::accept(socket, config)?;
        let ticket = self.admit(&link)?;
        link.send(&framed(&self.ticket))?;
        Ok((link, ticket))
    }

    /// The TLS configuration of its dialling side.
    ///
    /// # Errors
    /// When the cryptographic library refuses.
    pub fn client_config(&self) -> io::Result<ClientConfig> {
        tls::peer_client_config(&self.identity).map_err(io::Error::other)
    }

    fn admit(&self, link: &WireLink) -> io::Result<Ticket> {
        let key = link.key().filter(|_| link.is_between_members()).ok_or(io::ErrorKind::InvalidData)?;
        let ticket = link.read_ticket()?.open(self.deployment, key, now_ms()).map_err(io::Error::other)?;
        if ticket.group == self.group { Ok(ticket) } else { Err(io::Error::other("a ticket of another group")) }
    }
}

/// As `config`, with no key of our own to prove.
pub fn without_key(mut config: ClientConfig) -> ClientConfig {
    config.client_auth_cert_resolver = Arc::new(NoKey);
    config
}

/// As `config`, without naming a protocol.
pub fn without_alpn(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols.clear();
    config
}

#[derive(Debug)]
struct NoKey;

impl ResolvesClientCert for NoKey {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        false
    }
}
