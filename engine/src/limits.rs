//! Every bound of the engine, named, and what a torrent is made of.

use crate::event::PeerKey;
use mini_torrent_common::bitfield::Bitfield;
use mini_torrent_common::geometry::Geometry;
use std::time::Duration;

/// What a [`crate::Torrent`] starts from.
#[derive(Debug, Clone)]
pub struct Config {
    /// How the file is divided.
    pub geometry: Geometry,
    /// The pieces that are verified already; of the geometry's size, or taken as empty.
    pub have: Bitfield,
    /// This client's own key: it never connects to itself.
    pub own_key: PeerKey,
    /// Which piece comes next.
    pub piece_order: PieceOrder,
    /// The bounds.
    pub limits: Limits,
    /// The source of every random choice.
    pub seed: u64,
}

/// Which of the missing pieces that a peer has is begun next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PieceOrder {
    /// A random one among those that the fewest connected peers have.
    #[default]
    Rarest,
    /// A random one.
    Random,
    /// The one with the lowest index.
    Sequential,
}

/// The bounds of one torrent. Counts are of one torrent, not of the whole client.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections. At most 10,000 are honoured.
    pub connections: usize,
    /// With so many, dials under way included, nobody else is dialled: others may still come, as to a seeder that all
    /// members of a large group want something of.
    pub connections_dialling: usize,
    /// Dials under way at once.
    pub dials: usize,
    /// A dial without an answer for so long is taken as failed.
    pub dial_timeout: Duration,
    /// Peers that the tracker named and that are remembered.
    pub candidates: usize,
    /// Wait before the first redial; doubles with each failure.
    pub redial_min: Duration,
    /// Longest wait before a redial.
    pub redial_max: Duration,
    /// Peers that are served at once at most, optimistic ones included; fewer where the uplink is slow.
    pub upload_slots: usize,
    /// Of the upload slots, those that go round among all interested peers.
    pub optimistic_slots: usize,
    /// How long the choice of peers to serve stands while more want than slots are free.
    pub choke_round: Duration,
    /// Outstanding requests to a peer of which nothing is known yet, in blocks.
    pub requests_initial: u32,
    /// Fewest outstanding requests to a peer that delivers, in blocks.
    pub requests_min: u32,
    /// Most outstanding requests to a peer, in blocks; its `reqq` may lower it.
    pub requests_max: u32,
    /// How much time's worth of blocks is requested beyond what the latency needs.
    pub request_slack: Duration,
    /// Peers that one block is requested from at once (endgame).
    pub requesters_per_block: u8,
    /// Requests of one peer that wait for an answer; announce it as `reqq` (BEP 10).
    pub queued_requests: usize,
    /// Longest request that is served, in bytes.
    pub request_length: u32,
    /// Bytes of one peer's requests that the driver is asked to serve ahead of the socket.
    pub serving_bytes: u64,
    /// Bytes of pieces begun and not yet verified, counted whole. No piece is begun that would pass it, except that
    /// one is always in progress: the bound is the larger of this and two pieces.
    pub buffered_bytes: u64,
    /// A peer that owes blocks and sends none for so long is snubbed: others are asked instead.
    pub snub_after: Duration,
    /// A peer that owes blocks and sends nothing at all for so long is dead.
    pub silence_timeout: Duration,
    /// A peer that owes nothing and sends nothing at all for so long is dead. Stock clients keep alive every
    /// 2 minutes (BEP 3).
    pub idle_timeout: Duration,
    /// A keep-alive is sent after so long without another message.
    pub keep_alive: Duration,
    /// How long nothing is requested of a peer that rejected a request.
    pub reject_pause: Duration,
    /// Blocks that a peer may send unasked before the connection ends.
    pub unrequested_blocks: u32,
    /// Corrupt pieces with several contributors whose digests are remembered.
    pub suspect_pieces: usize,
    /// Banned keys that are remembered.
    pub barred_keys: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1000,
            connections_dialling: 200,
            dials: 16,
            dial_timeout: Duration::from_secs(30),
            candidates: 2000,
            redial_min: Duration::from_secs(1),
            redial_max: Duration::from_secs(60),
            upload_slots: 16,
            optimistic_slots: 4,
            choke_round: Duration::from_secs(10),
            requests_initial: 8,
            requests_min: 2,
            requests_max: 1024,
            request_slack: Duration::from_millis(150),
            requesters_per_block: 3,
            queued_requests: 2048,
            request_length: 128 * 1024,
            serving_bytes: 4 * 1024 * 1024,
            buffered_bytes: 32 * 1024 * 1024,
            snub_after: Duration::from_secs(4),
            silence_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(130),
            keep_alive: Duration::from_secs(30),
            reject_pause: Duration::from_secs(1),
            unrequested_blocks: 256,
            suspect_pieces: 32,
            barred_keys: 4096,
        }
    }
}
