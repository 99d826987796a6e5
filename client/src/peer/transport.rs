//! The seam between peers and the network: what carries their bytes, and whose key, if any, is at the other end.

use futures_util::future::{Either, select};
use mini_torrent_common::tls::{self, Identity, PublicKey};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::PeerError;
use super::congestion::WriteHalf;
use super::frame::Framing;
use super::secret::establish;

/// The first byte of a TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long the first packet of a connection may stay without an answer. The system sends it again only after a second
/// (RFC 6298); to try another connection so soon is what RFC 8305 recommends between addresses.
const SECOND_ATTEMPT_AFTER: Duration = Duration::from_millis(250);
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
        // Requests are small and must not wait for more.
        stream.set_nodelay(true)?;
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
        // Requests are small and must not wait for more.
        stream.set_nodelay(true)?;
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
    Transport { reader: Box::new(reader), writer: Box::new(WriteHalf::new(writer)), remote, key: None, place }
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

/// Opens a TCP connection, from `own` where that is a particular address of the same family. When its first packet stays
/// without an answer, a second connection is tried beside it.
pub(crate) async fn connect(remote: SocketAddr, own: IpAddr) -> io::Result<TcpStream> {
    in_two_attempts(|| attempt(remote, own)).await
}

async fn in_two_attempts<T, F: Future<Output = io::Result<T>>>(attempt: impl Fn() -> F) -> io::Result<T> {
    let mut first = pin!(attempt());
    if let Ok(opened) = timeout(SECOND_ATTEMPT_AFTER, &mut first).await {
        return opened;
    }
    let mut second = pin!(attempt());
    match select(&mut first, &mut second).await {
        Either::Left((Ok(opened), _)) | Either::Right((Ok(opened), _)) => Ok(opened),
        Either::Left((Err(_), second)) => second.await,
        Either::Right((Err(_), first)) => first.await,
    }
}

async fn attempt(remote: SocketAddr, own: IpAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !own.is_unspecified() && own.is_ipv4() == remote.is_ipv4() {
        socket.bind(SocketAddr::new(own, 0))?;
    }
    socket.connect(remote).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::pending;

    /// Attempts that come to these ends, each after so many milliseconds, or never; which of them it was, and how many
    /// there were.
    async fn outcome(ends: [Option<(u64, bool)>; 2]) -> (io::Result<usize>, usize) {
        let n_begun = Cell::new(0);
        let opened = in_two_attempts(|| {
            let n = n_begun.replace(n_begun.get() + 1);
            async move {
                let Some((after_ms, is_open)) = ends[n] else { return pending().await };
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                is_open.then_some(n).ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
            }
        });
        (opened.await, n_begun.get())
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_without_an_answer_gets_another_one_beside_it() {
        assert!(matches!(outcome([Some((100, true)), None]).await, (Ok(0), 1)));
        assert!(matches!(outcome([Some((100, false)), None]).await, (Err(_), 1)), "an answer, if not the best");
        assert!(matches!(outcome([None, Some((40, true))]).await, (Ok(1), 2)));
        assert!(matches!(outcome([Some((400, true)), None]).await, (Ok(0), 2)), "slow is not lost");
        assert!(matches!(outcome([Some((400, true)), Some((10, false))]).await, (Ok(0), 2)));
        assert!(matches!(outcome([Some((300, false)), Some((200, true))]).await, (Ok(1), 2)));
        assert!(matches!(outcome([Some((300, false)), Some((200, false))]).await, (Err(_), 2)));
    }
}
