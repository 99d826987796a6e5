//! The frames of a connection, whose bound is high while its client is signed in.

use bytes::BytesMut;
use mini_torrent_common::control::{
    ClientMessage, ControlCodec, FrameError, MAX_FRAME_LENGTH, MAX_FRAME_LENGTH_BEFORE_SIGN_IN, TrackerMessage,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::codec::{Decoder, Encoder};

/// Long frames while the gate is open, short ones else.
pub(super) struct GatedCodec {
    frames: ControlCodec<ClientMessage, TrackerMessage>,
    gate: Arc<AtomicBool>,
}

impl GatedCodec {
    pub(super) fn new(gate: Arc<AtomicBool>) -> Self {
        Self { frames: ControlCodec::new(MAX_FRAME_LENGTH_BEFORE_SIGN_IN), gate }
    }
}

impl Decoder for GatedCodec {
    type Item = ClientMessage;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<ClientMessage>, FrameError> {
        let is_open = self.gate.load(Ordering::Acquire);
        self.frames.set_max_length(if is_open { MAX_FRAME_LENGTH } else { MAX_FRAME_LENGTH_BEFORE_SIGN_IN });
        self.frames.decode(buffer)
    }
}

impl Encoder<TrackerMessage> for GatedCodec {
    type Error = FrameError;

    fn encode(&mut self, message: TrackerMessage, buffer: &mut BytesMut) -> Result<(), FrameError> {
        self.frames.encode(message, buffer)
    }
}
