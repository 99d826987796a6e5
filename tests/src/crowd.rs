//! Many connections that say nothing.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Raises this process's own limit of open files as far as the system lets it.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Connections that stay open, or are closed by the other side as it likes, until this is dropped.
#[derive(Debug)]
pub struct Crowd {
    sockets: Vec<TcpStream>,
}

impl Crowd {
    /// `n` connections to each address. One that the other side does not accept in time is left out.
    pub fn at(addresses: &[SocketAddr], n: usize) -> Self {
        let one_each = || addresses.iter().filter_map(|at| TcpStream::connect_timeout(at, Duration::from_secs(2)).ok());
        Self { sockets: (0..n).flat_map(|_| one_each()).collect() }
    }

    /// How many were made.
    pub fn size(&self) -> usize {
        self.sockets.len()
    }
}
