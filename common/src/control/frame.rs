//! Frames of the control connection: a length of four bytes, most significant first, and a postcard body.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::marker::PhantomData;
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec};

/// Longest body in bytes before a client has signed in: 4 KiB.
pub const MAX_FRAME_LENGTH_BEFORE_SIGN_IN: usize = 4 * 1024;
/// Longest body in bytes: 1 MiB.
pub const MAX_FRAME_LENGTH: usize = 1024 * 1024;

const HEADER_LENGTH: usize = 4;

/// Why a frame was not accepted. The sender is dropped.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The announced length is above the limit.
    #[error("a frame of {length} bytes is above the limit of {limit}")]
    TooLong {
        /// Announced length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The body is no message.
    #[error("a frame is not a message: {0}")]
    Malformed(postcard::Error),
    /// The body goes on after the message.
    #[error("a frame has {0} trailing bytes")]
    TrailingBytes(usize),
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads messages of type `In` and writes messages of type `Out`.
#[derive(Debug)]
pub struct ControlCodec<In, Out> {
    frames: LengthDelimitedCodec,
    types: PhantomData<fn(Out) -> In>,
}

impl<In, Out> ControlCodec<In, Out> {
    /// A codec that accepts bodies of up to `max_length` bytes.
    pub fn new(max_length: usize) -> Self {
        Self { frames: LengthDelimitedCodec::builder().max_frame_length(max_length).new_codec(), types: PhantomData }
    }

    /// Changes the longest accepted body, in bytes; frames already begun count too.
    pub fn set_max_length(&mut self, max_length: usize) {
        self.frames.set_max_frame_length(max_length);
    }
}

impl<In: DeserializeOwned, Out> Decoder for ControlCodec<In, Out> {
    type Item = In;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<In>, FrameError> {
        // The inner codec reserves the announced length at once; it sees only whole frames, so that the
        // buffer grows with the bytes that came.
        let Some(header) = buffer.first_chunk::<HEADER_LENGTH>() else { return Ok(None) };
        let length = u32::from_be_bytes(*header) as usize;
        let limit = self.frames.max_frame_length();
        if length > limit {
            return Err(FrameError::TooLong { length, limit });
        }
        if buffer.len() < HEADER_LENGTH + length {
            return Ok(None);
        }
        self.frames.decode(buffer)?.map(|body| decode_body(&body)).transpose()
    }
}

impl<In, Out: Serialize> Encoder<Out> for ControlCodec<In, Out> {
    type Error = FrameError;

    fn encode(&mut self, message: Out, buffer: &mut BytesMut) -> Result<(), FrameError> {
        let body = postcard::to_stdvec(&message).map_err(FrameError::Malformed)?;
        if body.len() > MAX_FRAME_LENGTH {
            return Err(FrameError::TooLong { length: body.len(), limit: MAX_FRAME_LENGTH });
        }
        let limit = self.frames.max_frame_length();
        // What we may send does not depend on what we accept.
        self.frames.set_max_frame_length(MAX_FRAME_LENGTH);
        let written = self.frames.encode(Bytes::from(body), buffer);
        self.frames.set_max_frame_length(limit);
        Ok(written?)
    }
}

fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let (message, rest) = postcard::take_from_bytes(body).map_err(FrameError::Malformed)?;
    if rest.is_empty() { Ok(message) } else { Err(FrameError::TrailingBytes(rest.len())) }
}

#[cfg(test)]
mod tests;
