//! The seam between peers and the network: what carries their bytes, and whose key, if any, is at the other end.

use mini_torrent_common::tls::{self, Identity, PublicKey};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use super::PeerError;
use super::frame::Framing;
use super::secret::establish;

/// The first byte of a TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// What keeps a connection fast on a way that loses packets, where the system has it.
const CONGESTION_CONTROL: &str = "bbr";
/// The first byte of a plain BitTorrent handshake: the length of its protocol's name.
const PLAIN_HANDSHAKE: u8 = 19;

/// The outgoing half of a stream to a peer.
pub(crate) trait PeerWriter: AsyncWrite + Send + Unpin {
    /// Once both halves are dropped, what was written and not yet taken by the peer is thrown away.
    fn reset_at_close(&self);

    /// How bytes have to lie for [`Self::seal`].
    fn framing(&self) -> Framing {
        Framing::Bare
    }

    /// Makes bytes that lie so ready for the wire. They have to be written next, and whole.
    ///
    /// # Errors
    /// When the cipher refuses.
    fn seal(&mut self, _wire: &mut [u8]) -> io::Result<()> {
        Ok(())
    }

    /// Writes sealed bytes; how many.
    fn poll_write_sealed(&mut self, context: &mut Context<'_>, wire: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(context, wire)
    }
}

impl PeerWriter for OwnedWriteHalf {
    fn reset_at_close(&self) {
        // A socket that refuses is gone already.
        let _ = self.as_ref().set_zero_linger();
    }
}

/// An open byte stream to a peer.
pub(crate) struct Transport {
    pub(crate) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) writer: Box<dyn PeerWriter>,
    /// The other end.
    pub(crate) remote: SocketAddr,
    /// The key that it has proved; an ordinary client has none.
    pub(crate) key: Option<PublicKey>,
    /// Its place among all connections.
    pub(crate) place: OwnedSemaphorePermit,
}

/// How connections are made secret and keys are proved.
#[derive(Clone)]
pub(crate) enum Security {
    /// TLS 1.3 with raw public keys on both sides.
    Tls { dialling: Arc<ClientConfig>, accepting: Arc<ServerConfig> },
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
            dialling: Arc::new(tls::peer_client_config(identity)?),
            accepting: Arc::new(tls::peer_server_config(identity)?),
        })
    }

    /// Makes a connection that we opened a transport.
    ///
    /// # Errors
    /// When the network fails, or the other side does not speak between members.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        place: OwnedSemaphorePermit,
    ) -> Result<Transport, PeerError> {
        prepare(&stream)?;
        match self {
            Self::Plain { own_key } => plain(stream, *own_key, remote, place).await,
            Self::Tls { dialling, .. } => {
                let connection = ClientConnection::new(Arc::clone(dialling), tls::unnamed_server());
                secret(stream, connection.map_err(io::Error::other)?.into(), remote, place).await
            }
        }
    }

    /// Makes a connection that the listener accepted a transport.
    ///
    /// # Errors
    /// When the network fails, or the other side speaks something else.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        place: OwnedSemaphorePermit,
    ) -> Result<Transport, PeerError> {
        prepare(&stream)?;
        match self {
            Self::Plain { own_key } => plain(stream, *own_key, remote, place).await,
            Self::Tls { accepting, .. } => {
                let mut first = [0];
                if stream.peek(&mut first).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                match first[0] {
                    TLS_HANDSHAKE => {
                        let connection = ServerConnection::new(Arc::clone(accepting)).map_err(io::Error::other)?;
                        secret(stream, connection.into(), remote, place).await
                    }
                    PLAIN_HANDSHAKE => Ok(unproven(stream, remote, place)),
                    _ => Err(PeerError::OtherProtocol),
                }
            }
        }
    }
}

/// Sets a connection up for peers.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    // Requests are small and must not wait for more.
    stream.set_nodelay(true)?;
    // A lossy way costs it little, where the usual control takes each loss for congestion. Without it the usual one serves;
    // who may not choose, or has none, is told so by the system, and that is all right.
    let _ = rustix::net::sockopt::set_tcp_congestion(stream, CONGESTION_CONTROL);
    Ok(())
}

/// Each side says its key, and neither proves it.
async fn plain(
    mut stream: TcpStream,
    own_key: PublicKey,
    remote: SocketAddr,
    place: OwnedSemaphorePermit,
) -> Result<Transport, PeerError> {
    stream.write_all(&own_key.0).await?;
    let mut key = [0; 32];
    stream.read_exact(&mut key).await?;
    Ok(Transport { key: Some(PublicKey(key)), ..unproven(stream, remote, place) })
}

/// What ordinary clients speak: the bare stream.
pub(super) fn unproven(stream: TcpStream, remote: SocketAddr, place: OwnedSemaphorePermit) -> Transport {
    let (reader, writer) = stream.into_split();
    Transport { reader: Box::new(reader), writer: Box::new(writer), remote, key: None, place }
}

async fn secret(
    stream: TcpStream,
    connection: Connection,
    remote: SocketAddr,
    place: OwnedSemaphorePermit,
) -> Result<Transport, PeerError> {
    let (reader, writer, proven) = establish(stream, connection).await?;
    // Without ALPN rustls lets the other side through; between members it is mandatory.
    if !proven.is_between_members {
        return Err(PeerError::NoAlpn);
    }
    let key = Some(proven.key.ok_or(PeerError::OtherPeer)?);
    Ok(Transport { reader: Box::new(reader), writer: Box::new(writer), remote, key, place })
}

/// Opens a TCP connection, from `own` where that is a particular address of the same family.
pub(crate) async fn connect(remote: SocketAddr, own: IpAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !own.is_unspecified() && own.is_ipv4() == remote.is_ipv4() {
        socket.bind(SocketAddr::new(own, 0))?;
    }
    socket.connect(remote).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// The system says which ones anybody may choose.
    #[tokio::test]
    async fn a_way_that_loses_packets_is_prepared_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let usual = rustix::net::sockopt::tcp_congestion(&stream).unwrap();
        prepare(&stream).unwrap();
        let allowed = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_allowed_congestion_control").unwrap_or_default();
        let chosen = rustix::net::sockopt::tcp_congestion(&stream).unwrap();
        let is_allowed = allowed.split_whitespace().any(|name| name == CONGESTION_CONTROL);
        assert!(chosen == CONGESTION_CONTROL || (chosen == usual && !is_allowed), "{chosen} of {allowed}");
        assert!(stream.nodelay().unwrap());
    }
}
