//! How a file is divided into pieces and blocks. This is the one place that divides by the piece length.

use std::ops::Range;

/// Piece length in bytes of everything that is shared here: 512 KiB.
pub const PIECE_LENGTH: u32 = 512 * 1024;
/// Length in bytes of a block, the unit of request (BEP 3): 16 KiB.
pub const BLOCK_LENGTH: u32 = 16 * 1024;
/// Largest piece length in bytes that is accepted from a foreign metainfo: 64 MiB.
pub const MAX_PIECE_LENGTH: u32 = 64 * 1024 * 1024;
/// Largest number of pieces of one torrent: enough for 4 TiB in pieces of 512 KiB.
pub const MAX_PIECES: u32 = 8 * 1024 * 1024;

/// The index of a piece that exists. Only [`Geometry`] makes one, so an index in hand is in range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(u32);

impl PieceIndex {
    /// The index as it stands on the wire.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The index for addressing a slice with one entry a piece.
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }
}

/// A block that exists: a range inside one piece, at most [`Geometry::piece_length`] long and never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// The piece that the block lies in.
    pub piece: PieceIndex,
    /// Offset in bytes within the piece.
    pub begin: u32,
    /// Length in bytes.
    pub length: u32,
}

/// Length of a file and of its pieces, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    length: u64,
    piece_length: u32,
    n_pieces: u32,
}

/// Why a file cannot be divided this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// The piece length is zero or above [`MAX_PIECE_LENGTH`].
    #[error("a piece length of {0} bytes is not supported")]
    PieceLength(u64),
    /// There would be more than [`MAX_PIECES`] pieces.
    #[error("{0} bytes would need more than {MAX_PIECES} pieces")]
    TooManyPieces(u64),
}

impl Geometry {
    /// Divides `length` bytes into pieces of `piece_length`. An empty file has no piece.
    ///
    /// # Errors
    /// When the piece length or the number of pieces is out of bounds.
    pub fn new(length: u64, piece_length: u64) -> Result<Self, GeometryError> {
        let piece_length = u32::try_from(piece_length)
            .ok()
            .filter(|n| (1..=MAX_PIECE_LENGTH).contains(n))
            .ok_or(GeometryError::PieceLength(piece_length))?;
        let n_pieces = u32::try_from(length.div_ceil(u64::from(piece_length)))
            .ok()
            .filter(|n| *n <= MAX_PIECES)
            .ok_or(GeometryError::TooManyPieces(length))?;
        Ok(Self { length, piece_length, n_pieces })
    }

    /// Length of the whole file in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Length in bytes of every piece but the last.
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// Number of pieces.
    pub fn n_pieces(&self) -> u32 {
        self.n_pieces
    }

    /// The piece with this index, if there is one.
    pub fn piece(&self, index: u32) -> Option<PieceIndex> {
        (index < self.n_pieces).then_some(PieceIndex(index))
    }

    /// All pieces in order.
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = PieceIndex> + DoubleEndedIterator + use<> {
        (0..self.n_pieces).map(PieceIndex)
    }

    /// Where a piece lies in the file, in bytes.
    pub fn range_of(&self, piece: PieceIndex) -> Range<u64> {
        let start = u64::from(piece.0) * u64::from(self.piece_length);
        start..(start + u64::from(self.piece_length)).min(self.length)
    }

    /// Length of this piece in bytes; the last one may be shorter.
    pub fn length_of(&self, piece: PieceIndex) -> u32 {
        let range = self.range_of(piece);
        u32::try_from(range.end - range.start).unwrap_or(self.piece_length)
    }

    /// Offset of a block in the file, in bytes.
    pub fn offset_of(&self, block: Block) -> u64 {
        self.range_of(block.piece).start + u64::from(block.begin)
    }

    /// Number of blocks of [`BLOCK_LENGTH`] in this piece.
    pub fn n_blocks_of(&self, piece: PieceIndex) -> u32 {
        self.length_of(piece).div_ceil(BLOCK_LENGTH)
    }

    /// The block with this ordinal in the piece, if there is one.
    pub fn nth_block(&self, piece: PieceIndex, nth: u32) -> Option<Block> {
        let begin = nth.checked_mul(BLOCK_LENGTH)?;
        let rest = self.length_of(piece).checked_sub(begin).filter(|rest| *rest > 0)?;
        Some(Block { piece, begin, length: rest.min(BLOCK_LENGTH) })
    }

    /// A range named by a peer, if it lies within one piece and is not empty.
    pub fn block(&self, index: u32, begin: u32, length: u32) -> Option<Block> {
        let piece = self.piece(index)?;
        let end = begin.checked_add(length)?;
        (length > 0 && end <= self.length_of(piece)).then_some(Block { piece, begin, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const P: u64 = PIECE_LENGTH as u64;

    /// A4: the last piece covers the remainder; a multiple of P has no empty piece.
    #[test]
    fn a4_piece_counts_at_the_edges() {
        for (length, n_pieces, last) in
            [(0, 0, 0), (1, 1, 1), (P - 1, 1, P - 1), (P, 1, P), (P + 1, 2, 1), (2 * P, 2, P)]
        {
            let geometry = Geometry::new(length, P).unwrap();
            assert_eq!(geometry.n_pieces(), n_pieces, "length {length}");
            let measured = geometry.pieces().last().map_or(0, |piece| geometry.length_of(piece));
            assert_eq!(u64::from(measured), last, "length {length}");
        }
    }

    #[test]
    fn unsupported_geometries_are_refused() {
        assert_eq!(Geometry::new(1, 0), Err(GeometryError::PieceLength(0)));
        assert!(matches!(Geometry::new(1, u64::MAX), Err(GeometryError::PieceLength(_))));
        assert!(matches!(Geometry::new(u64::MAX, 1), Err(GeometryError::TooManyPieces(_))));
        assert!(Geometry::new(1 << 40, P).is_ok(), "1 TiB");
    }

    #[test]
    fn ranges_from_peers_are_checked() {
        let geometry = Geometry::new(P + 10, P).unwrap();
        assert!(geometry.block(1, 0, 10).is_some());
        for (index, begin, length) in [(2, 0, 1), (1, 0, 11), (1, 10, 1), (0, 0, 0), (0, u32::MAX, 2), (0, 1, u32::MAX)]
        {
            assert_eq!(geometry.block(index, begin, length), None, "{index} {begin} {length}");
        }
    }

    proptest! {
        #[test]
        fn blocks_tile_the_file_exactly(length in 0u64..5_000_000, piece_length in 1u64..400_000) {
            let geometry = Geometry::new(length, piece_length).unwrap();
            let mut at = 0;
            for piece in geometry.pieces() {
                for nth in 0..geometry.n_blocks_of(piece) {
                    let block = geometry.nth_block(piece, nth).unwrap();
                    prop_assert_eq!(geometry.offset_of(block), at);
                    prop_assert_eq!(geometry.block(piece.get(), block.begin, block.length), Some(block));
                    at += u64::from(block.length);
                }
                prop_assert_eq!(geometry.nth_block(piece, geometry.n_blocks_of(piece)), None);
            }
            prop_assert_eq!(at, length);
        }
    }
}
