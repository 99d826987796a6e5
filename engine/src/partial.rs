//! A piece that was begun: where each of its blocks stands.

use crate::event::{ConnectionId, PeerKey};
use mini_torrent_common::geometry::{BLOCK_LENGTH, Block, Geometry, PieceIndex};

/// The blocks of one piece in progress or under verification.
///
/// Invariant: each block is free, requested from one or more peers, or stored; `n_free` and `n_stored` count them.
#[derive(Debug)]
pub(crate) struct Partial {
    blocks: Vec<BlockState>,
    /// Those who sent the stored blocks, each once.
    contributors: Vec<PeerKey>,
    n_free: u32,
    n_stored: u32,
    /// No block before this one is free.
    first_free: u32,
    /// The connection that goes through the free blocks; others leave them to it.
    pub(crate) owner: Option<ConnectionId>,
    /// The piece was corrupt before: one peer shall bring all of it, so that it can be judged.
    pub(crate) is_suspect: bool,
    pub(crate) is_verifying: bool,
    /// The driver holds bytes of it, be they wanted or not.
    pub(crate) is_buffered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockState {
    Free,
    /// From so many peers.
    Requested(u8),
    /// From this contributor.
    Stored(u16),
}

/// What became of a block that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It was there already.
    Unwanted,
    /// It is stored; so many peers were asked for it.
    Stored { n_requesters: u8, is_last: bool },
}

impl Partial {
    pub(crate) fn new(geometry: &Geometry, piece: PieceIndex, owner: ConnectionId, is_suspect: bool) -> Self {
        let n_blocks = geometry.n_blocks_of(piece);
        Self {
            blocks: vec![BlockState::Free; n_blocks as usize],
            contributors: Vec::new(),
            n_free: n_blocks,
            n_stored: 0,
            first_free: 0,
            owner: Some(owner),
            is_suspect,
            is_verifying: false,
            is_buffered: false,
        }
    }

    pub(crate) fn has_free(&self) -> bool {
        self.n_free > 0
    }

    pub(crate) fn n_free(&self) -> u32 {
        self.n_free
    }

    pub(crate) fn n_stored(&self) -> u32 {
        self.n_stored
    }

    /// Nothing is requested or stored.
    pub(crate) fn is_untouched(&self) -> bool {
        self.n_free as usize == self.blocks.len()
    }

    /// Nothing is requested.
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_verifying && (self.n_free + self.n_stored) as usize == self.blocks.len()
    }

    /// Takes the first free block as requested; returns its ordinal.
    pub(crate) fn take_first(&mut self) -> Option<u32> {
        let rest = self.blocks.get(self.first_free as usize..)?;
        let ahead = rest.iter().position(|block| *block == BlockState::Free)?;
        let nth = self.first_free + u32::try_from(ahead).ok()?;
        self.first_free = nth + 1;
        self.take(nth)
    }

    /// Takes the last free block as requested; returns its ordinal.
    pub(crate) fn take_last(&mut self) -> Option<u32> {
        let nth = self.blocks.iter().rposition(|block| *block == BlockState::Free)?;
        self.take(u32::try_from(nth).ok()?)
    }

    fn take(&mut self, nth: u32) -> Option<u32> {
        *self.blocks.get_mut(nth as usize)? = BlockState::Requested(1);
        self.n_free -= 1;
        Some(nth)
    }

    /// One more peer is asked for a requested block, unless `max` are.
    pub(crate) fn duplicate(&mut self, nth: u32, max: u8) -> bool {
        match self.blocks.get_mut(nth as usize) {
            Some(BlockState::Requested(n)) if *n < max => {
                *n += 1;
                true
            }
            _ => false,
        }
    }

    /// One peer less is asked for the block; returns whether that made it free.
    pub(crate) fn release(&mut self, nth: u32) -> bool {
        match self.blocks.get_mut(nth as usize) {
            Some(BlockState::Requested(n)) if *n > 1 => *n -= 1,
            Some(state @ BlockState::Requested(_)) => {
                *state = BlockState::Free;
                self.n_free += 1;
                self.first_free = self.first_free.min(nth);
                return true;
            }
            _ => {}
        }
        false
    }

    /// The block arrived from `key`.
    pub(crate) fn store(&mut self, nth: u32, key: PeerKey) -> Arrival {
        let n_requesters = match self.blocks.get(nth as usize) {
            None | Some(BlockState::Stored(_)) => return Arrival::Unwanted,
            Some(BlockState::Requested(n)) => *n,
            Some(BlockState::Free) => {
                self.n_free -= 1;
                0
            }
        };
        let contributor = self.contributor(key);
        if let Some(state) = self.blocks.get_mut(nth as usize) {
            *state = BlockState::Stored(contributor);
        }
        self.n_stored += 1;
        self.is_buffered = true;
        Arrival::Stored { n_requesters, is_last: self.n_stored as usize == self.blocks.len() }
    }

    /// Who sent each block, in order; `None` for those not stored.
    pub(crate) fn senders(&self) -> Vec<Option<PeerKey>> {
        let sender = |block: &BlockState| match block {
            BlockState::Stored(contributor) => self.contributors.get(usize::from(*contributor)).copied(),
            _ => None,
        };
        self.blocks.iter().map(sender).collect()
    }

    /// Frees the blocks that `key` sent; returns whether there were any.
    pub(crate) fn discard(&mut self, key: PeerKey) -> bool {
        let Some(position) = self.contributors.iter().position(|contributor| *contributor == key) else { return false };
        let n_before = self.n_free;
        for state in &mut self.blocks {
            if matches!(state, BlockState::Stored(contributor) if usize::from(*contributor) == position) {
                *state = BlockState::Free;
                self.n_free += 1;
                self.n_stored -= 1;
            }
        }
        self.first_free = 0;
        self.n_free > n_before
    }

    fn contributor(&mut self, key: PeerKey) -> u16 {
        let position = self.contributors.iter().position(|contributor| *contributor == key);
        let position = position.unwrap_or_else(|| {
            self.contributors.push(key);
            self.contributors.len() - 1
        });
        u16::try_from(position).unwrap_or(u16::MAX)
    }

    /// Checks the type's invariant the slow way.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let count = |wanted: fn(&BlockState) -> bool| self.blocks.iter().filter(|block| wanted(block)).count();
        assert_eq!(count(|block| *block == BlockState::Free), self.n_free as usize);
        assert_eq!(count(|block| matches!(block, BlockState::Stored(_))), self.n_stored as usize);
        assert!(!self.blocks.contains(&BlockState::Requested(0)));
        assert!(!self.blocks[..self.first_free as usize].contains(&BlockState::Free));
    }

    /// How many peers each block is requested from.
    #[cfg(test)]
    pub(crate) fn requesters(&self) -> Vec<u8> {
        self.blocks.iter().map(|block| if let BlockState::Requested(n) = block { *n } else { 0 }).collect()
    }
}

/// The ordinal of a block of the common size in its piece, if it is one.
pub(crate) fn ordinal(geometry: &Geometry, block: Block) -> Option<u32> {
    let nth = block.begin / BLOCK_LENGTH;
    (geometry.nth_block(block.piece, nth) == Some(block)).then_some(nth)
}
