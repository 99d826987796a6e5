//! How a node of the simulation behaves.

use mini_torrent_common::bitfield::Bitfield;
use mini_torrent_common::geometry::Geometry;
use mini_torrent_engine::{Limits, PieceOrder};
use std::time::Duration;

/// A link that takes no time.
pub(crate) const UNLIMITED: u64 = u64::MAX;

/// How a node behaves.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) have: Have,
    pub(crate) upload_bytes_per_s: u64,
    /// [`UNLIMITED`]: what arrives is there at once.
    pub(crate) download_bytes_per_s: u64,
    /// One way, to the middle of the network.
    pub(crate) latency: Duration,
    pub(crate) joins_at: Duration,
    pub(crate) leaves_at: Option<Duration>,
    /// Leaves when it has sent so many bytes of blocks.
    pub(crate) leaves_after_bytes: Option<u64>,
    /// Leaves when it is complete.
    pub(crate) leaves_complete: bool,
    /// Sends no block any more, but everything else.
    pub(crate) stalls_at: Option<Duration>,
    /// Probability that a block it sends is wrong.
    pub(crate) lies: f64,
    pub(crate) fast: bool,
    pub(crate) piece_order: PieceOrder,
    pub(crate) limits: Limits,
}

#[derive(Debug, Clone)]
pub(crate) enum Have {
    Nothing,
    All,
    Pieces(Vec<u32>),
}

impl Plan {
    pub(crate) fn leecher() -> Self {
        Self {
            have: Have::Nothing,
            upload_bytes_per_s: 20_000_000,
            download_bytes_per_s: UNLIMITED,
            latency: Duration::from_millis(5),
            joins_at: Duration::ZERO,
            leaves_at: None,
            leaves_after_bytes: None,
            leaves_complete: false,
            stalls_at: None,
            lies: 0.0,
            fast: true,
            piece_order: PieceOrder::Rarest,
            limits: Limits::default(),
        }
    }

    pub(crate) fn seeder() -> Self {
        Self { have: Have::All, ..Self::leecher() }
    }
}

impl Plan {
    pub(crate) fn pieces(&self, geometry: &Geometry) -> Bitfield {
        match &self.have {
            Have::Nothing => Bitfield::none(geometry.n_pieces()),
            Have::All => Bitfield::all(geometry.n_pieces()),
            Have::Pieces(pieces) => {
                let mut have = Bitfield::none(geometry.n_pieces());
                pieces.iter().filter_map(|piece| geometry.piece(*piece)).for_each(|piece| _ = have.insert(piece));
                have
            }
        }
    }
}
