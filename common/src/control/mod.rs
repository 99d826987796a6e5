//! The control connection between client and tracker: its messages and their frames (design §4).
//!
//! Bodies are postcard. Enums are append-only and structs are frozen: a new need gets a new variant. The
//! identity of a speaker never stands in a message: the key comes from TLS, the user from the sign-in.

mod frame;
mod messages;

pub use frame::{ControlCodec, FrameError, MAX_FRAME_LENGTH, MAX_FRAME_LENGTH_BEFORE_SIGN_IN};
pub use messages::*;

/// The ALPN protocol name of the control connection.
pub const ALPN: &[u8] = b"mini-torrent/1";
/// The oldest version of the messages that this build speaks.
pub const MIN_VERSION: u16 = 1;
/// The newest version of the messages that this build speaks.
pub const MAX_VERSION: u16 = 1;
/// Most rows in one page of a listing.
pub const PAGE_ROWS: usize = 1000;
/// Most bytes of an `info` dictionary in one message: 512 KiB.
pub const INFO_PAGE_LENGTH: usize = 512 * 1024;
/// Most announcements in one message.
pub const ANNOUNCE_PAGE: usize = 4096;
/// Most peers that one answer names; a larger swarm is sampled at random.
pub const MAX_PEERS: usize = 200;
/// Longest `info` dictionary in bytes: 8 Mi pieces of 20 bytes and the rest of the dictionary.
pub const MAX_INFO_LENGTH: u64 = crate::geometry::MAX_PIECES as u64 * 20 + 64 * 1024;
/// Longest name of a client program in bytes.
pub const MAX_AGENT_LENGTH: usize = 64;
