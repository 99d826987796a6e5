//! The one port of a tracker: TCP for control connections and HTTP, UDP on the same number.

use crate::limits;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use tokio::net::{TcpListener, TcpSocket};

/// How many free TCP ports are tried until UDP is free on the same number.
const MAX_TRIES: usize = 64;

/// A port that is listened on.
#[derive(Debug)]
pub struct Port {
    pub(crate) tcp: TcpListener,
    pub(crate) udp: UdpSocket,
}

impl Port {
    /// The address, with the port that was found when 0 was asked for.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Listens on an address, with room for many clients that come at once; with the usual 128 places some of
/// them would be kept waiting for seconds. Port 0 takes one that is free for TCP and UDP.
///
/// # Errors
/// As the system says: the address is taken, not ours, or not allowed.
pub fn listen(address: SocketAddr) -> io::Result<Port> {
    for _ in 1..MAX_TRIES {
        let tcp = listen_tcp(address)?;
        match UdpSocket::bind(tcp.local_addr()?) {
            Ok(udp) => return Ok(Port { tcp, udp }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && address.port() == 0 => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(io::Error::new(error.kind(), "its UDP port is taken by another program"));
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free for TCP and UDP"))
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted tracker does not wait for the last connections of its predecessor to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(limits::ACCEPT_BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_protocols_have_one_number() {
        let port = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_eq!(port.local_addr().unwrap(), port.udp.local_addr().unwrap());
        let again = listen(port.local_addr().unwrap()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn a_taken_udp_port_is_said_to_be_that() {
        // No other test listens at this address by TCP.
        let udp = UdpSocket::bind("127.0.0.77:0").unwrap();
        let taken = listen(udp.local_addr().unwrap()).unwrap_err();
        assert!(taken.kind() == io::ErrorKind::AddrInUse && taken.to_string().contains("UDP"), "{taken}");
    }
}
