//! The seam between peers and the network: what carries their bytes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

/// An open byte stream to a peer.
pub(crate) struct Transport {
    pub(crate) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// The other end.
    pub(crate) remote: SocketAddr,
}

impl Transport {
    /// Connects from our own listening address, where that is a particular one.
    pub(crate) async fn connect(remote: SocketAddr, own: IpAddr) -> io::Result<Self> {
        Self::accepted(connect(remote, own).await?, remote)
    }

    /// Takes a connection that the listener accepted.
    pub(crate) fn accepted(stream: TcpStream, remote: SocketAddr) -> io::Result<Self> {
        // Requests are small and must not wait for more.
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self { reader: Box::new(reader), writer: Box::new(writer), remote })
    }
}

/// Opens a TCP connection, from `own` where that is a particular address of the same family.
pub(crate) async fn connect(remote: SocketAddr, own: IpAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !own.is_unspecified() && own.is_ipv4() == remote.is_ipv4() {
        socket.bind(SocketAddr::new(own, 0))?;
    }
    socket.connect(remote).await
}
