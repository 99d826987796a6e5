//! Buffers for reading from sockets, used again. Asking the system for 256 KiB thousands of times a second costs more
//! than the reading: every page of it is mapped, cleared and unmapped anew.

use bytes::BytesMut;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Room for one read from the socket. Blocks share it until they are written to disk.
pub(super) const READ_LENGTH: usize = 256 * 1024;
/// Buffers that are kept for later, of all connections together: 16 MiB.
const MAX_KEPT: usize = 64;
/// Kept buffers that are looked at for one that no block lies in any more.
const MAX_TRIES: usize = 4;

/// The buffers of this process.
pub(super) static READ_BUFFERS: ReadBuffers = ReadBuffers { kept: Mutex::new(VecDeque::new()) };

/// A cache of buffers, the longest kept first.
pub(super) struct ReadBuffers {
    kept: Mutex<VecDeque<BytesMut>>,
}

impl ReadBuffers {
    /// An empty buffer with room for [`READ_LENGTH`] bytes.
    pub(super) fn take(&self) -> BytesMut {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..MAX_TRIES.min(kept.len()) {
            let Some(mut buffer) = kept.pop_front() else { break };
            if buffer.try_reclaim(READ_LENGTH) {
                return buffer;
            }
            kept.push_back(buffer);
        }
        drop(kept);
        BytesMut::with_capacity(READ_LENGTH)
    }

    /// Keeps a buffer that is full, although its blocks may still be in use.
    pub(super) fn give_back(&self, buffer: BytesMut) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MAX_KEPT {
            kept.push_back(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_blocks_are_gone_and_not_before() {
        let buffers = ReadBuffers { kept: Mutex::default() };
        let mut buffer = buffers.take();
        let place = buffer.as_ptr();
        buffer.resize(READ_LENGTH, 7);
        let block = buffer.split().freeze();
        buffers.give_back(buffer);
        assert_ne!(buffers.take().as_ptr(), place);
        assert!(block.iter().all(|byte| *byte == 7));
        drop(block);
        let again = buffers.take();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        assert!(again.capacity() >= READ_LENGTH);
    }

    #[test]
    fn no_more_are_kept_than_the_bound() {
        let buffers = ReadBuffers { kept: Mutex::default() };
        (0..2 * MAX_KEPT).for_each(|_| buffers.give_back(BytesMut::with_capacity(READ_LENGTH)));
        assert_eq!(buffers.kept.lock().unwrap().len(), MAX_KEPT);
    }
}
