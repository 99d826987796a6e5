//! Numbers about a torrent and its peers, for display.

use crate::event::{ConnectionId, Direction, PeerKey};

/// Where a torrent stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Verified pieces.
    pub n_have: u32,
    /// Verified bytes.
    pub have_bytes: u64,
    /// Pieces begun and not yet verified, those under verification included.
    pub n_in_progress: usize,
    /// Bytes reserved for those pieces.
    pub buffered_bytes: u64,
    /// Open connections.
    pub n_connections: usize,
    /// Connected peers that have every piece.
    pub n_seeders: usize,
    /// Peers that may be dialled, connected ones included.
    pub n_candidates: usize,
    /// Peers that we serve.
    pub n_unchoked: usize,
    /// Bytes of blocks received and kept since the start.
    pub downloaded_bytes: u64,
    /// Bytes of blocks received and not wanted since the start.
    pub wasted_bytes: u64,
    /// Bytes of blocks served since the start.
    pub uploaded_bytes: u64,
    /// Pieces whose hash did not match since the start.
    pub n_corrupt: u64,
    /// Download rate over the last seconds.
    pub download_bytes_per_s: u64,
    /// Upload rate over the last seconds.
    pub upload_bytes_per_s: u64,
}

/// Where one connection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStats {
    /// Its number.
    pub connection: ConnectionId,
    /// Who is at the other end.
    pub key: PeerKey,
    /// Who opened it.
    pub direction: Direction,
    /// Pieces that the peer has.
    pub n_have: u32,
    /// Outstanding requests to it.
    pub n_requested: usize,
    /// Bytes of blocks received from it and kept.
    pub downloaded_bytes: u64,
    /// Bytes of blocks served to it.
    pub uploaded_bytes: u64,
    /// Download rate over the last seconds.
    pub download_bytes_per_s: u64,
    /// Upload rate over the last seconds.
    pub upload_bytes_per_s: u64,
    /// It owes blocks and is silent.
    pub is_snubbed: bool,
}
