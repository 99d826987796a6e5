//! Where the peers of a transfer run: all of them on loopback, or each on a host of its own behind a link.

use mini_torrent_tests::hosts::Host;
use mini_torrent_tests::links::{Meter, Network, Shape};
use mini_torrent_tests::stock::free_port;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where the peers of a transfer run.
pub(crate) enum Ground {
    /// On this machine's own loopback.
    Loopback,
    /// On hosts with links between them.
    Links(Network),
}

impl Ground {
    /// For so many peers and a tracker.
    ///
    /// # Errors
    /// When this machine lets nobody make it; the text says why.
    pub(crate) fn new(n_peers: usize, shape: Option<&Shape>) -> Result<Self, String> {
        let Some(shape) = shape else { return Ok(Self::Loopback) };
        let n_peers = u8::try_from(n_peers).map_err(|_| "too many hosts".to_owned())?;
        Network::new(n_peers, shape).map(Self::Links)
    }

    /// Where the peer with this number listens, on a port that the system chooses.
    pub(crate) fn any_port(&self, nth: usize) -> SocketAddr {
        SocketAddr::new(address(self.host(nth)), 0)
    }

    /// The same for programs that cannot choose one; to be asked where the peer is.
    pub(crate) fn free_port(&self, nth: usize) -> SocketAddr {
        SocketAddr::new(address(self.host(nth)), free_port())
    }

    /// The tracker's address.
    pub(crate) fn tracker_address(&self) -> IpAddr {
        address(self.tracker_host())
    }

    /// Does something where the peer with this number is.
    pub(crate) fn at_peer<T: Send>(&self, nth: usize, act: impl FnOnce() -> T + Send) -> T {
        on(self.host(nth), act)
    }

    /// Does something where the tracker is.
    pub(crate) fn at_tracker<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        on(self.tracker_host(), act)
    }

    /// Counts from here on.
    pub(crate) fn restart_meters(&self) {
        if let Self::Links(network) = self {
            network.restart_meters();
        }
    }

    /// What passed each peer's link since then; nobody counts on loopback.
    pub(crate) fn meters(&self) -> Vec<Meter> {
        match self {
            Self::Loopback => Vec::new(),
            Self::Links(network) => network.meters(),
        }
    }

    fn host(&self, nth: usize) -> Option<&Host> {
        match self {
            Self::Loopback => None,
            Self::Links(network) => Some(network.host(nth)),
        }
    }

    fn tracker_host(&self) -> Option<&Host> {
        match self {
            Self::Loopback => None,
            Self::Links(network) => Some(network.tracker_host()),
        }
    }
}

fn address(host: Option<&Host>) -> IpAddr {
    host.map_or(Ipv4Addr::LOCALHOST.into(), Host::address)
}

fn on<T: Send>(host: Option<&Host>, act: impl FnOnce() -> T + Send) -> T {
    match host {
        Some(host) => host.run(act),
        None => act(),
    }
}
