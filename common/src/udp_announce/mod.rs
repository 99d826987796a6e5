//! Announces and scrapes over UDP (BEP 15) with URL data (BEP 41), both sides.
//!
//! A tracker decodes requests and encodes responses without allocating. Until a connection id was checked, nothing is
//! known of where a packet came from: no response may be longer than its request. A declared address is ignored.

mod options;
mod request;
mod response;

pub use options::{MAX_URL_DATA_LENGTH, Options, OptionsError};
pub use request::{AnnounceRequest, Request, RequestError};
pub use response::{Peers, Response, ResponseError, encode_announce, encode_connect, encode_error, encode_scrape};

/// What a connect request carries in the place of a connection id.
pub const PROTOCOL_ID: u64 = 0x0417_2710_1980;
/// Most torrents of one scrape.
pub const MAX_SCRAPE_HASHES: usize = crate::announce::MAX_SCRAPE_HASHES;
/// Length in bytes of a connect request and of its response.
pub const CONNECT_LENGTH: usize = 16;
/// Length in bytes of an announce request without options.
pub const ANNOUNCE_LENGTH: usize = 98;
/// Longest packet in bytes that is sent: what passes everywhere without fragments (IPv6's 1280 less headers).
pub const MAX_PACKET_LENGTH: usize = 1232;

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

/// The family of the addresses of an announce's response: that of the packet which carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// 6 bytes a peer.
    V4,
    /// 18 bytes a peer.
    V6,
}

/// Takes fixed parts off the front of a packet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(first)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().copied().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().copied().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().copied().map(u64::from_be_bytes)
    }
}
