//! One swarm seen from one client: which piece, from whom, for whom, and when to give up on a peer.
//!
//! [`Torrent`] is a value that decides; it never acts. The driver tells it what happened
//! ([`Torrent::handle`], [`Torrent::handle_timeout`]) and does what it answers ([`Torrent::poll_action`],
//! [`Torrent::poll_timeout`]). No socket, file, clock or entropy lives here, and the bytes of a block never
//! pass through: only indices and lengths do. The same seed and the same events give the same actions.
//!
//! Sources: BEP 3 (peer wire protocol), BEP 6 (fast extension), BEP 10 (`reqq`).

// The event lists of `tests/` are also run from within, where the invariants can be seen.
#[cfg(test)]
extern crate self as mini_torrent_engine;

mod availability;
mod barred;
mod candidates;
mod choker;
mod event;
mod limits;
mod misbehavior;
mod partial;
mod peer;
mod picker;
mod rate;
mod requests;
mod spread;
mod stats;
mod suspects;
mod torrent;

pub use event::{Action, Candidate, CloseReason, ConnectionId, Direction, Event, Message, Outgoing, PeerKey};
pub use limits::{Config, Limits, PieceOrder};
pub use misbehavior::PeerMisbehavior;
pub use stats::{PeerStats, Stats};
pub use torrent::Torrent;
