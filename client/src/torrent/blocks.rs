//! The bytes of pieces that are not complete yet.

use bytes::Bytes;
use mini_torrent_common::geometry::{BLOCK_LENGTH, Block, Geometry, PieceIndex};
use std::collections::HashMap;

/// Blocks that were received, by piece. The engine bounds how many pieces are in here.
#[derive(Debug, Default)]
pub(crate) struct Blocks(HashMap<PieceIndex, Vec<Bytes>>);

impl Blocks {
    /// Keeps the bytes of a block; later bytes replace earlier ones.
    pub(crate) fn store(&mut self, geometry: &Geometry, block: Block, bytes: Bytes) {
        let n_blocks = geometry.n_blocks_of(block.piece) as usize;
        let piece = self.0.entry(block.piece).or_insert_with(|| vec![Bytes::new(); n_blocks]);
        if let Some(slot) = piece.get_mut((block.begin / BLOCK_LENGTH) as usize) {
            *slot = bytes;
        }
    }

    /// Takes a piece's blocks, in order.
    pub(crate) fn take(&mut self, piece: PieceIndex) -> Vec<Bytes> {
        self.0.remove(&piece).unwrap_or_default()
    }
}
