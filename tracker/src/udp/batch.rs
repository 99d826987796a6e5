//! Many packets in one call to the system.

use mini_torrent_common::udp_announce::MAX_PACKET_LENGTH;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// Packets in one batch.
const N_PACKETS: usize = 64;
/// Longest request in bytes; what is longer is cut. A scrape of 74 torrents has 1496. No power of two, or the fronts of
/// all buffers would share a few places of the processor's cache.
const MAX_REQUEST_LENGTH: usize = 1600;

/// The buffers of a batch.
pub(super) struct Batch {
    requests: Vec<[u8; MAX_REQUEST_LENGTH]>,
    answers: Vec<[u8; MAX_PACKET_LENGTH]>,
    received: MultiHeaders<SockaddrStorage>,
    sent: MultiHeaders<SockaddrStorage>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            requests: vec![[0; MAX_REQUEST_LENGTH]; N_PACKETS],
            answers: vec![[0; MAX_PACKET_LENGTH]; N_PACKETS],
            received: MultiHeaders::preallocate(N_PACKETS, None),
            sent: MultiHeaders::preallocate(N_PACKETS, None),
        }
    }

    /// Waits for packets, does what is to be done before any answer, has each answered and sends the answers. What the
    /// system does not take is lost, as packets are.
    ///
    /// # Errors
    /// When nothing came within the socket's timeout, or it failed.
    pub(super) fn turn(
        &mut self,
        socket: &UdpSocket,
        before: impl FnOnce(),
        mut answer: impl FnMut(&[u8], SocketAddr, &mut [u8]) -> Option<usize>,
    ) -> io::Result<()> {
        let received = self.receive(socket)?;
        before();
        let mut lengths = Vec::with_capacity(N_PACKETS);
        let mut addresses = Vec::with_capacity(N_PACKETS);
        for (request, (length, address)) in self.requests.iter().zip(received) {
            let source = address.as_ref().and_then(socket_address);
            let Some((source, out)) = source.zip(self.answers.get_mut(lengths.len())) else { continue };
            if let Some(length) = answer(request.get(..length).unwrap_or_default(), source, out) {
                lengths.push(length);
                addresses.push(address);
            }
        }
        if !lengths.is_empty() {
            let answers = self.answers.iter().zip(&lengths);
            let slices: Vec<_> =
                answers.map(|(answer, length)| [IoSlice::new(answer.get(..*length).unwrap_or_default())]).collect();
            let _ = sendmmsg(socket.as_raw_fd(), &mut self.sent, &slices, &addresses, [], MsgFlags::empty());
        }
        Ok(())
    }

    /// Waits for the first packet and takes those that are there then.
    fn receive(&mut self, socket: &UdpSocket) -> io::Result<Vec<(usize, Option<SockaddrStorage>)>> {
        let mut slices: Vec<_> = self.requests.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_WAITFORONE);
        let received = recvmmsg(fd, &mut self.received, slices.iter_mut(), flags, None)?;
        Ok(received.map(|message| (message.bytes, message.address)).collect())
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::new(v4.ip().into(), v4.port()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::new(v6.ip().into(), v6.port())))
}
