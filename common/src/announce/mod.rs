//! Announces and scrapes over HTTP (BEP 3, 7, 23, 48): the query of a request and the bencoded answer, both sides.
//!
//! A declared address is read and never used: a peer is where its request came from (design §7).

mod answer;
mod query;
mod reply;

pub use answer::{Answer, AnswerError, ScrapeAnswer};
pub use query::{AnnounceRequest, Event, QueryError, scrape_hashes, scrape_query};
pub use reply::{Reply, write_failure, write_scrape};
pub(crate) use reply::{compact_v4, compact_v6, from_compact_v4, from_compact_v6};

use crate::hash::PeerId;
use std::net::SocketAddr;

/// Longest query of a request in bytes: enough for [`MAX_SCRAPE_HASHES`] escaped info-hashes.
pub const MAX_QUERY_LENGTH: usize = 8 * 1024;
/// Most peers that a client may ask for; a greater number means this one.
pub const MAX_NUMWANT: u16 = 200;
/// Most torrents of one scrape: what BEP 15 allows.
pub const MAX_SCRAPE_HASHES: usize = 74;
/// Longest answer in bytes that a client reads: 1 MiB.
pub const MAX_ANSWER_LENGTH: usize = 1024 * 1024;
/// Most peers that a client takes from one answer; those after them are left out.
pub const MAX_ANSWER_PEERS: usize = 2000;
/// Longest reason or warning in bytes that a client keeps of an answer.
pub const MAX_REASON_LENGTH: usize = 512;

/// A peer as an answer names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// Where it is; IPv4-mapped addresses are IPv4, the port is not 0.
    pub address: SocketAddr,
    /// Its name in swarms, in the dictionary form only.
    pub peer_id: Option<PeerId>,
}

/// The numbers of one torrent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Seeders.
    pub complete: u32,
    /// How many peers ever completed it.
    pub downloaded: u32,
    /// Leechers.
    pub incomplete: u32,
}
