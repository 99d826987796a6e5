//! The frames of a connection, whose bound rises when its client has signed in.

use bytes::BytesMut;
use mini_torrent_common::control::{
    ClientMessage, ControlCodec, FrameError, MAX_FRAME_LENGTH, MAX_FRAME_LENGTH_BEFORE_SIGN_IN, TrackerMessage,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::codec::{Decoder, Encoder};

/// Short frames until the gate is open, long ones from then on.
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
        if self.gate.load(Ordering::Acquire) {
            self.frames.set_max_length(MAX_FRAME_LENGTH);
        }
        self.frames.decode(buffer)
    }
}

impl Encoder<TrackerMessage> for GatedCodec {
    type Error = FrameError;

    fn encode(&mut self, message: TrackerMessage, buffer: &mut BytesMut) -> Result<(), FrameError> {
        self.frames.encode(message, buffer)
    }
}
