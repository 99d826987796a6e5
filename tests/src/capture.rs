//! What crosses the loopback, for tests that nothing readable does: a packet socket in a network namespace where
//! nobody else speaks.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::{
    Timeout, set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_timeout,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, eth, recv, send, socket};
use std::io;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::files::contains;
use crate::waiting::eventually;

/// Set in the environment of a test that runs in a namespace of its own.
const INSIDE: &str = "MINI_TORRENT_TEST_NAMESPACE";
/// What the kernel keeps for us between two reads, in bytes.
const KERNEL_BUFFER_LENGTH: usize = 64 * 1024 * 1024;
/// Longest packet on the loopback, in bytes, with room for its link header.
const MAX_PACKET_LENGTH: usize = 66 * 1024;
/// How often the reader looks whether it shall end.
const READ_TIMEOUT: Duration = Duration::from_millis(50);

/// Where a test finds itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// In a network namespace of its own, with its loopback up: go on.
    Inside,
    /// Outside; the test ran inside meanwhile, and passed.
    RanInside,
    /// Outside, and there is no way in, for this reason.
    Unavailable(String),
}

/// Runs the test of this name again in a network namespace of its own.
///
/// # Panics
/// When it fails there; its output is shown.
pub fn enter_namespace(test: &str) -> Place {
    if std::env::var_os(INSIDE).is_some() {
        raise_loopback().expect("the loopback of a namespace of its own can be raised");
        return Place::Inside;
    }
    match Command::new("unshare").args(["-rn", "true"]).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => return Place::Unavailable(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => return Place::Unavailable(format!("unshare: {error}")),
    }
    let own = std::env::current_exe().expect("a test knows its program");
    let mut inside = Command::new("unshare");
    inside.arg("-rn").arg(own).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let output = inside.output().expect("unshare was there a moment ago");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "in a namespace of its own:\n{text}");
    Place::RanInside
}

/// Sets the loopback up, which is down in a new namespace (rtnetlink(7)).
fn raise_loopback() -> io::Result<()> {
    const NEW_LINK: u16 = 16;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
    const LOOPBACK: u32 = 1;
    const UP: u32 = 1;
    let mut message = Vec::new();
    message.extend(32u32.to_ne_bytes());
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    // Number and sender of the message; family and type of the link: none of them matters.
    message.extend([0; 12]);
    for word in [LOOPBACK, UP, UP] {
        message.extend(word.to_ne_bytes());
    }
    // Its protocol 0 is rtnetlink.
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 4096];
    let (_, n) = recv(&socket, &mut answer, RecvFlags::empty())?;
    let error = answer.get(16..20).filter(|_| n >= 20).and_then(|bytes| bytes.try_into().ok());
    match error.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Everything that crosses the interfaces of this network namespace from its beginning on.
#[derive(Debug)]
pub struct Capture {
    bytes: Arc<Mutex<Vec<u8>>>,
    ended: Arc<()>,
    reader: JoinHandle<()>,
}

impl Capture {
    /// Begins.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn begin() -> io::Result<Self> {
        let socket = socket(AddressFamily::PACKET, SocketType::RAW, Some(eth::ALL))?;
        // Only the system's own root gets all of it.
        set_socket_recv_buffer_size_force(&socket, KERNEL_BUFFER_LENGTH)
            .or_else(|_| set_socket_recv_buffer_size(&socket, KERNEL_BUFFER_LENGTH))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(READ_TIMEOUT))?;
        let (bytes, ended) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::new(()));
        let reader = {
            let (bytes, running) = (Arc::clone(&bytes), Arc::downgrade(&ended));
            std::thread::spawn(move || {
                while running.strong_count() > 0 {
                    read_packet(&socket, &bytes);
                }
            })
        };
        Ok(Self { bytes, ended, reader })
    }

    /// Sends a text in the clear until it was captured: then what came before it was captured too, but for packets
    /// that the kernel had no room for.
    ///
    /// # Panics
    /// When it does not come by.
    pub fn wait_for_own(&self, text: &str) {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = receiver.local_addr().expect("a bound socket");
        eventually("the capture sees what is sent in the clear", || {
            receiver.send_to(text.as_bytes(), address).expect("the loopback is up");
            self.has(text.as_bytes()).then_some(())
        });
    }

    /// Whether these bytes crossed in one packet.
    pub fn has(&self, needle: &[u8]) -> bool {
        contains(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner), needle)
    }

    /// Ends; everything that crossed, packet after packet.
    pub fn end(self) -> Vec<u8> {
        drop(self.ended);
        let _ = self.reader.join();
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read_packet(socket: &OwnedFd, bytes: &Mutex<Vec<u8>>) {
    let mut packet = vec![0; MAX_PACKET_LENGTH];
    match recv(socket, &mut packet, RecvFlags::empty()) {
        Ok((_, n)) => bytes.lock().unwrap_or_else(PoisonError::into_inner).extend(&packet[..n.min(MAX_PACKET_LENGTH)]),
        Err(Errno::AGAIN | Errno::INTR) => {}
        Err(error) => panic!("the capture ends: {error}"),
    }
}
