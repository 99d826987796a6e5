//! The seam between peers and the network: what carries their bytes, and whose key is at the other end.

use mini_torrent_common::peer_wire;
use mini_torrent_common::tls::{self, Identity, PublicKey};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, split};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::PeerError;

/// The first byte of a TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// The first byte of a plain BitTorrent handshake: the length of its protocol's name.
const PLAIN_HANDSHAKE: u8 = 19;
/// Encrypted bytes that are read from the socket at once; rustls itself asks for 4 KiB at a time.
const READ_AHEAD: usize = 128 * 1024;
/// Encrypted bytes that wait for the socket at most: some runs of blocks.
const WRITE_AHEAD: usize = 256 * 1024;

/// An open byte stream to a peer that has proved its key.
pub(crate) struct Transport {
    pub(crate) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// The other end.
    pub(crate) remote: SocketAddr,
    /// Its key.
    pub(crate) key: PublicKey,
}

/// How connections are made secret and keys are proved.
#[derive(Clone)]
pub(crate) enum Security {
    /// TLS 1.3 with raw public keys on both sides.
    Tls { connector: TlsConnector, acceptor: TlsAcceptor },
    /// Nothing is secret or proved: for measuring on loopback what TLS costs. Each side says its key.
    Plain { own_key: PublicKey },
}

impl Security {
    /// What members use.
    ///
    /// # Errors
    /// When the cryptographic library refuses.
    pub(crate) fn tls(identity: &Identity) -> Result<Self, rustls::Error> {
        Ok(Self::Tls {
            connector: TlsConnector::from(Arc::new(tls::peer_client_config(identity)?)),
            acceptor: TlsAcceptor::from(Arc::new(tls::peer_server_config(identity)?)),
        })
    }

    /// Makes a connection that we opened a transport.
    ///
    /// # Errors
    /// When the network fails, or the other side does not speak between members.
    pub(crate) async fn connect(&self, mut stream: TcpStream, remote: SocketAddr) -> Result<Transport, PeerError> {
        // Requests are small and must not wait for more.
        stream.set_nodelay(true)?;
        match self {
            Self::Plain { own_key } => {
                stream.write_all(&own_key.0).await?;
                plain(stream, remote).await
            }
            Self::Tls { connector, .. } => {
                let stream = BufReader::with_capacity(READ_AHEAD, stream);
                let stream = connector.connect(tls::unnamed_server(), stream).await?;
                secret(stream.into(), remote)
            }
        }
    }

    /// Makes a connection that the listener accepted a transport.
    ///
    /// # Errors
    /// When the network fails, or the other side does not speak between members.
    pub(crate) async fn accept(&self, mut stream: TcpStream, remote: SocketAddr) -> Result<Transport, PeerError> {
        stream.set_nodelay(true)?;
        match self {
            Self::Plain { own_key } => {
                stream.write_all(&own_key.0).await?;
                plain(stream, remote).await
            }
            Self::Tls { acceptor, .. } => {
                let mut first = [0];
                if stream.peek(&mut first).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                match first[0] {
                    TLS_HANDSHAKE => {
                        let stream = BufReader::with_capacity(READ_AHEAD, stream);
                        secret(acceptor.accept(stream).await?.into(), remote)
                    }
                    PLAIN_HANDSHAKE => Err(PeerError::PlainHandshake),
                    _ => Err(PeerError::OtherProtocol),
                }
            }
        }
    }
}

async fn plain(mut stream: TcpStream, remote: SocketAddr) -> Result<Transport, PeerError> {
    let mut key = [0; 32];
    stream.read_exact(&mut key).await?;
    let (reader, writer) = stream.into_split();
    Ok(Transport { reader: Box::new(reader), writer: Box::new(writer), remote, key: PublicKey(key) })
}

fn secret(mut stream: TlsStream<BufReader<TcpStream>>, remote: SocketAddr) -> Result<Transport, PeerError> {
    match &mut stream {
        TlsStream::Client(stream) => stream.get_mut().1.set_buffer_limit(Some(WRITE_AHEAD)),
        TlsStream::Server(stream) => stream.get_mut().1.set_buffer_limit(Some(WRITE_AHEAD)),
    }
    let session = stream.get_ref().1;
    // Without ALPN rustls lets the other side through; between members it is mandatory.
    if session.alpn_protocol() != Some(peer_wire::ALPN) {
        return Err(PeerError::NoAlpn);
    }
    let key = tls::peer_key(session).ok_or(PeerError::OtherPeer)?;
    let (reader, writer) = split(stream);
    Ok(Transport { reader: Box::new(reader), writer: Box::new(writer), remote, key })
}

/// Opens a TCP connection, from `own` where that is a particular address of the same family.
pub(crate) async fn connect(remote: SocketAddr, own: IpAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !own.is_unspecified() && own.is_ipv4() == remote.is_ipv4() {
        socket.bind(SocketAddr::new(own, 0))?;
    }
    socket.connect(remote).await
}
