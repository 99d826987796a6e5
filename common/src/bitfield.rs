//! A set of pieces in the form of the wire's bitfield: one bit a piece, the highest bit first (BEP 3).

use crate::geometry::PieceIndex;

/// A set of pieces of one torrent, with its size kept at hand.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitfield {
    bytes: Vec<u8>,
    n_pieces: u32,
    n_set: u32,
}

/// Why bytes are not a bitfield of this torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BitfieldError {
    /// The number of bytes does not fit the number of pieces.
    #[error("the bitfield has the wrong length")]
    Length,
    /// A bit beyond the last piece is set.
    #[error("a spare bit of the bitfield is set")]
    SpareBit,
}

impl Bitfield {
    /// The empty set for a torrent of `n_pieces`.
    pub fn none(n_pieces: u32) -> Self {
        Self { bytes: vec![0; n_pieces.div_ceil(8) as usize], n_pieces, n_set: 0 }
    }

    /// The set of all pieces.
    pub fn all(n_pieces: u32) -> Self {
        let mut bytes = vec![0xff; n_pieces.div_ceil(8) as usize];
        if let Some(last) = bytes.last_mut() {
            *last &= !spare_mask(n_pieces);
        }
        Self { bytes, n_pieces, n_set: n_pieces }
    }

    /// Reads the wire's form.
    ///
    /// # Errors
    /// When the length is wrong or a spare bit is set.
    pub fn from_bytes(bytes: &[u8], n_pieces: u32) -> Result<Self, BitfieldError> {
        if bytes.len() != n_pieces.div_ceil(8) as usize {
            return Err(BitfieldError::Length);
        }
        if bytes.last().is_some_and(|last| last & spare_mask(n_pieces) != 0) {
            return Err(BitfieldError::SpareBit);
        }
        let n_set = bytes.iter().map(|byte| byte.count_ones()).sum();
        Ok(Self { bytes: bytes.to_vec(), n_pieces, n_set })
    }

    /// The wire's form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of pieces of the torrent, in the set or not.
    pub fn n_pieces(&self) -> u32 {
        self.n_pieces
    }

    /// Number of pieces in the set.
    pub fn n_set(&self) -> u32 {
        self.n_set
    }

    /// Whether every piece is in the set. True for a torrent without pieces.
    pub fn is_all(&self) -> bool {
        self.n_set == self.n_pieces
    }

    /// Whether no piece is in the set.
    pub fn is_none(&self) -> bool {
        self.n_set == 0
    }

    /// Whether the piece is in the set.
    pub fn contains(&self, piece: PieceIndex) -> bool {
        self.bytes.get(piece.as_usize() / 8).is_some_and(|byte| byte & mask(piece) != 0)
    }

    /// Adds the piece; returns whether it was absent.
    pub fn insert(&mut self, piece: PieceIndex) -> bool {
        let Some(byte) = self.bytes.get_mut(piece.as_usize() / 8) else { return false };
        let absent = *byte & mask(piece) == 0;
        *byte |= mask(piece);
        self.n_set += u32::from(absent);
        absent
    }

    /// Takes the piece out; returns whether it was there.
    pub fn remove(&mut self, piece: PieceIndex) -> bool {
        let Some(byte) = self.bytes.get_mut(piece.as_usize() / 8) else { return false };
        let present = *byte & mask(piece) != 0;
        *byte &= !mask(piece);
        self.n_set -= u32::from(present);
        present
    }
}

impl std::fmt::Debug for Bitfield {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bitfield({} of {})", self.n_set, self.n_pieces)
    }
}

fn mask(piece: PieceIndex) -> u8 {
    0x80 >> (piece.get() % 8)
}

/// The bits of the last byte that stand for no piece.
fn spare_mask(n_pieces: u32) -> u8 {
    match n_pieces % 8 {
        0 => 0,
        used => 0xff >> used,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;
    use proptest::prelude::*;

    #[test]
    fn the_first_piece_is_the_highest_bit() {
        let geometry = Geometry::new(10, 1).unwrap();
        let mut bitfield = Bitfield::none(10);
        bitfield.insert(geometry.piece(0).unwrap());
        bitfield.insert(geometry.piece(9).unwrap());
        assert_eq!(bitfield.as_bytes(), [0x80, 0x40]);
    }

    #[test]
    fn wrong_lengths_and_spare_bits_are_refused() {
        assert_eq!(Bitfield::from_bytes(&[0xff], 9), Err(BitfieldError::Length));
        assert_eq!(Bitfield::from_bytes(&[0xff, 0x40], 9), Err(BitfieldError::SpareBit));
        assert_eq!(Bitfield::from_bytes(&[0xff, 0x80], 9), Ok(Bitfield::all(9)));
        assert!(Bitfield::from_bytes(&[], 0).unwrap().is_all());
    }

    proptest! {
        #[test]
        fn counts_agree_with_a_plain_set(n_pieces in 1u32..200, ops in prop::collection::vec((any::<bool>(), 0u32..200), 0..300)) {
            let geometry = Geometry::new(u64::from(n_pieces), 1).unwrap();
            let mut bitfield = Bitfield::none(n_pieces);
            let mut model = std::collections::BTreeSet::new();
            for (add, index) in ops {
                let Some(piece) = geometry.piece(index % n_pieces) else { continue };
                let changed = if add { bitfield.insert(piece) } else { bitfield.remove(piece) };
                prop_assert_eq!(changed, if add { model.insert(piece) } else { model.remove(&piece) });
            }
            prop_assert_eq!(bitfield.n_set() as usize, model.len());
            prop_assert!(geometry.pieces().all(|piece| bitfield.contains(piece) == model.contains(&piece)));
            prop_assert_eq!(Bitfield::from_bytes(bitfield.as_bytes(), n_pieces), Ok(bitfield));
        }
    }
}
