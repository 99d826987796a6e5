//! Values that both sides of Mini-Torrent share: names, hashes, geometry, metainfo, wire formats.
//!
//! Nothing in this crate opens a socket or a file, reads a clock or draws randomness. Every decoder here
//! takes bytes from strangers: it returns an error for whatever it does not accept, allocates no more than
//! a named bound, and never panics.

pub mod address;
pub mod announce;
pub mod announce_key;
pub mod bencode;
pub mod bitfield;
pub mod control;
pub mod error_code;
pub mod escape;
pub mod geometry;
pub mod hash;
pub mod magnet;
pub mod metainfo;
pub mod mtorrent;
pub mod names;
pub mod peer_extension;
pub mod peer_wire;
pub mod percent;
pub mod revocation;
pub mod secret;
pub mod ticket;
pub mod tls;
pub mod torrent;
pub mod tracker_info;
pub mod udp_announce;
