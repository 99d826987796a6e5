//! Connections to other peers: opening them to those who are admitted, and moving messages between the wire and a torrent.

mod congestion;
mod connection;
mod frame;
mod listener;
mod low_water;
mod opening;
mod read_buffers;
mod secret;
mod send_window;
mod transport;

pub(crate) use connection::{Closer, Connection, ConnectionEnd, PeerCommand, Wire};
pub(crate) use listener::{Listener, WantedTorrent};
pub(crate) use opening::{Credential, OpenPeer, Opener, PeerError, TorrentName, Wish, WishedBy, key_at};
pub(crate) use transport::{PeerWriter, Security, Transport, connect};

use std::time::Duration;

/// How long a peer has, from the connection on, to say which torrent it wants.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to open.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that have not said what they want, at most; the oldest of the most greedy address goes first.
pub(crate) const MAX_UNDECIDED: usize = 256;
/// Batches of commands that wait for one connection's writer. A peer that lets more pile up is dropped.
pub(crate) const QUEUED_BATCHES: usize = 4096;
/// Requests that we queue for a peer; told in the extension handshake (`reqq`).
pub(crate) const MAX_QUEUED_REQUESTS: u32 = 2048;
