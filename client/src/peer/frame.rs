//! What goes out in one piece: messages, and blocks that come straight from the file, laid out so that they can be
//! sealed where they lie.

use bytes::BytesMut;
use mini_torrent_common::geometry::Block;
use mini_torrent_common::peer_wire::{self, BlockRange, PIECE_HEADER_LENGTH};
use mini_torrent_common::tls::records::{HEADER_LENGTH, MAX_PLAIN_LENGTH, TRAILER_LENGTH};
use std::io::{self, IoSliceMut};

use crate::disk::{Content, ReadError};

/// How a stream's bytes lie on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As they are.
    Bare,
    /// In TLS records, each but the last one full.
    Records,
}

impl Framing {
    /// Most plain bytes that stand together, and how many bytes stand before and behind them.
    const fn shape(self) -> (usize, usize, usize) {
        match self {
            Self::Bare => (usize::MAX, 0, 0),
            Self::Records => (MAX_PLAIN_LENGTH, HEADER_LENGTH, TRAILER_LENGTH),
        }
    }

    /// Length in bytes on the wire.
    pub(crate) fn wire_length(self, n_plain: usize) -> usize {
        let (most, before, behind) = self.shape();
        n_plain + n_plain.div_ceil(most) * (before + behind)
    }

    /// The places of the plain bytes, in order.
    fn plain_places(self, wire: &mut [u8]) -> impl Iterator<Item = &mut [u8]> {
        let (most, before, behind) = self.shape();
        wire.chunks_mut(most.saturating_add(before + behind)).filter_map(move |record| {
            let end = record.len().checked_sub(behind)?;
            record.get_mut(before..end)
        })
    }
}

/// Lays bytes out, to be sealed.
pub(super) fn lay_out(framing: Framing, bytes: &[u8]) -> Vec<u8> {
    let mut wire = vec![0; framing.wire_length(bytes.len())];
    Places::new(framing, &mut wire).put(bytes);
    wire
}

/// Buffers only grow: what was zeroed once need not be again.
fn make_room(wire: &mut Vec<u8>, length: usize) {
    if wire.len() < length {
        wire.resize(length, 0);
    }
}

/// Where plain bytes belong, in order.
struct Places<'a, I> {
    places: I,
    rest: &'a mut [u8],
}

impl<'a> Places<'a, ()> {
    fn new(framing: Framing, wire: &'a mut [u8]) -> Places<'a, impl Iterator<Item = &'a mut [u8]>> {
        Places { places: framing.plain_places(wire), rest: &mut [] }
    }
}

impl<'a, I: Iterator<Item = &'a mut [u8]>> Places<'a, I> {
    /// The next place of at most `length` bytes; an empty one at the end.
    fn next(&mut self, length: usize) -> &'a mut [u8] {
        if self.rest.is_empty() {
            self.rest = self.places.next().unwrap_or_default();
        }
        let rest = std::mem::take(&mut self.rest);
        let (place, rest) = rest.split_at_mut(length.min(rest.len()));
        self.rest = rest;
        place
    }

    /// Copies bytes to the next places, as many as there is room for.
    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let place = self.next(bytes.len());
            if place.is_empty() {
                return;
            }
            let (now, later) = bytes.split_at(place.len());
            place.copy_from_slice(now);
            bytes = later;
        }
    }

    /// The next places of `length` bytes together.
    fn leave(&mut self, mut length: usize, left: &mut Vec<IoSliceMut<'a>>) {
        while length > 0 {
            let place = self.next(length);
            if place.is_empty() {
                return;
            }
            length -= place.len();
            left.push(IoSliceMut::new(place));
        }
    }
}

/// Messages and a run of neighbouring blocks, which may be empty.
#[derive(Debug)]
pub(super) struct Frame {
    framing: Framing,
    messages: BytesMut,
    blocks: Vec<Block>,
    /// Where the run begins in the file.
    offset: u64,
    /// Bytes of the run that have been read.
    n_read: usize,
    wire: Vec<u8>,
}

impl Frame {
    /// `wire` is a buffer to use again.
    pub(super) fn new(framing: Framing, messages: BytesMut, blocks: Vec<Block>, offset: u64, wire: Vec<u8>) -> Self {
        Self { framing, messages, blocks, offset, n_read: 0, wire }
    }

    fn run_length(&self) -> usize {
        self.blocks.iter().map(|block| block.length as usize).sum()
    }

    fn wire_length(&self) -> usize {
        let n_headers = self.blocks.len() * PIECE_HEADER_LENGTH;
        self.framing.wire_length(self.messages.len() + n_headers + self.run_length())
    }

    /// Lays everything out, and reads what of the run the system has at hand; whether that is all.
    ///
    /// # Errors
    /// When the file cannot be read, or is another one by now.
    pub(super) fn read_at_hand(&mut self, content: &Content) -> Result<bool, ReadError> {
        self.read(|offset, slices| content.read_at_hand(offset, slices))?;
        Ok(self.n_read == self.run_length())
    }

    /// Reads the rest of the run, however long that takes. It blocks.
    ///
    /// # Errors
    /// As [`Self::read_at_hand`].
    pub(super) fn read_rest(&mut self, content: &Content) -> Result<(), ReadError> {
        while self.n_read < self.run_length() {
            let n_before = self.n_read;
            self.read(|offset, slices| content.read_some(offset, slices))?;
            if self.n_read == n_before {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(())
    }

    /// Lays everything but the blocks out, and has what is missing of them read to where it belongs.
    fn read(
        &mut self,
        read: impl FnOnce(u64, &mut [IoSliceMut<'_>]) -> Result<usize, ReadError>,
    ) -> Result<(), ReadError> {
        let length = self.wire_length();
        make_room(&mut self.wire, length);
        let mut places = Places::new(self.framing, &mut self.wire[..length]);
        let mut left = Vec::new();
        places.put(&self.messages);
        for block in &self.blocks {
            places.put(&header_of(*block));
            places.leave(block.length as usize, &mut left);
        }
        let mut rest = &mut left[..];
        IoSliceMut::advance_slices(&mut rest, self.n_read);
        if !rest.is_empty() {
            self.n_read += read(self.offset + self.n_read as u64, rest)?;
        }
        Ok(())
    }

    /// The bytes for the wire, to be sealed and sent.
    pub(super) fn wire(&mut self) -> &mut [u8] {
        let length = self.wire_length();
        &mut self.wire[..length]
    }

    /// The blocks, and the buffer to be used again.
    pub(super) fn into_parts(self) -> (Vec<Block>, Vec<u8>) {
        (self.blocks, self.wire)
    }
}

fn header_of(block: Block) -> [u8; PIECE_HEADER_LENGTH] {
    peer_wire::piece_header(BlockRange { index: block.piece.get(), begin: block.begin, length: block.length })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mini_torrent_common::geometry::{BLOCK_LENGTH, Geometry};
    use proptest::prelude::*;
    use std::sync::Arc;

    /// The plain bytes of a whole frame on the wire.
    fn plain(framing: Framing, wire: &mut [u8]) -> Vec<u8> {
        framing.plain_places(wire).flat_map(|place| place.to_vec()).collect()
    }

    #[test]
    fn records_are_full_but_for_the_last_one() {
        let bytes = vec![7; 2 * MAX_PLAIN_LENGTH + 1];
        let mut wire = lay_out(Framing::Records, &bytes);
        assert_eq!(wire.len(), bytes.len() + 3 * (HEADER_LENGTH + TRAILER_LENGTH));
        let lengths: Vec<_> = Framing::Records.plain_places(&mut wire).map(|place| place.len()).collect();
        assert_eq!(lengths, [MAX_PLAIN_LENGTH, MAX_PLAIN_LENGTH, 1]);
        assert_eq!(lay_out(Framing::Bare, &bytes), bytes);
        assert!(lay_out(Framing::Records, &[]).is_empty());
    }

    /// A run of blocks is read to where it belongs, also in parts, and behind messages of any length.
    #[test]
    fn a_frame_is_messages_headers_and_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..5 * BLOCK_LENGTH + 100).map(|n| (n % 251) as u8).collect();
        std::fs::write(dir.path().join("f"), &bytes).unwrap();
        let content = Content::partial(Arc::new(std::fs::File::open(dir.path().join("f")).unwrap()));
        let geometry = Geometry::new(bytes.len() as u64, 8 * u64::from(BLOCK_LENGTH)).unwrap();
        let piece = geometry.piece(0).unwrap();
        let blocks: Vec<Block> = (1..8).filter_map(|nth| geometry.nth_block(piece, nth)).collect();
        for framing in [Framing::Bare, Framing::Records] {
            for n_messages in [0, 1, 5000, 40_000] {
                let messages = vec![3; n_messages];
                let offset = u64::from(BLOCK_LENGTH);
                let mut frame = Frame::new(framing, messages.as_slice().into(), blocks.clone(), offset, vec![1; 10]);
                let _ = frame.read_at_hand(&content).unwrap();
                // As if the system had had less at hand.
                frame.n_read = frame.n_read.min(20_000);
                frame.read_rest(&content).unwrap();
                let mut expected = messages;
                for block in &blocks {
                    let start = block.begin as usize;
                    expected.extend(header_of(*block));
                    expected.extend(&bytes[start..start + block.length as usize]);
                }
                assert!(plain(framing, frame.wire()) == expected, "{framing:?} behind {n_messages}");
            }
        }
        let mut beyond = Frame::new(Framing::Records, BytesMut::new(), blocks, bytes.len() as u64, Vec::new());
        assert!(!beyond.read_at_hand(&content).unwrap());
        assert!(matches!(beyond.read_rest(&content), Err(ReadError::Io(_))));
    }

    proptest! {
        #[test]
        fn what_is_laid_out_is_there(bytes in prop::collection::vec(any::<u8>(), 0..60_000)) {
            for framing in [Framing::Bare, Framing::Records] {
                prop_assert!(plain(framing, &mut lay_out(framing, &bytes)) == bytes);
            }
        }
    }
}
