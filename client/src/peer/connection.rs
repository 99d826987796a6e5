//! One open connection: a reader that turns bytes into messages and a writer that turns commands into bytes.
//!
//! The two are joined futures of one task. They must not be arms of one `select!`: with both directions' TCP
//! windows full, each side would wait for the other to read.

use bytes::BytesMut;
use mini_torrent_common::geometry::{Block, Geometry};
use mini_torrent_common::peer_wire::{self, Message};
use mini_torrent_engine::ConnectionId;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::frame::Frame;
use super::read_buffers::READ_BUFFERS;
use super::{PeerWriter, Transport};
use crate::disk::{Content, ReadError};

/// Least room before a new buffer is taken; less would make for small reads.
const MIN_READ_LENGTH: usize = 32 * 1024;
/// Most bytes that are read from disk and written to the socket at once: a usual piece.
const MAX_RUN_LENGTH: u32 = 512 * 1024;
/// Fewest bytes that are written at once.
const MIN_RUN_LENGTH: u32 = 16 * 1024;
/// Writes that take longer than this are made smaller, so that requests do not wait behind them.
const SLOW_WRITE: Duration = Duration::from_millis(50);
/// A peer that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a torrent wants of a connection's writer.
#[derive(Debug)]
pub(crate) enum PeerCommand {
    /// Send a message.
    Send(Message),
    /// Read this block and send it.
    Serve(Block),
    /// Do not send this block, if it is still waiting.
    CancelServe(Block),
}

/// What a connection tells its torrent.
#[derive(Debug)]
pub(crate) enum Wire {
    /// Messages in the order of arrival.
    Received(Vec<Message>),
    /// Blocks that were handed to the socket.
    Served(Vec<Block>),
    /// The connection ended. Always the last word.
    Closed(ConnectionEnd),
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionEnd {
    /// We closed it.
    #[error("closed by us")]
    Ours,
    /// The peer closed it.
    #[error("closed by the peer")]
    Theirs,
    /// The peer broke the protocol.
    #[error("protocol error: {0}")]
    Protocol(#[from] peer_wire::DecodeError),
    /// The network failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer took nothing for too long.
    #[error("the peer takes nothing")]
    Stalled,
    /// Our own file cannot be served.
    #[error("the file cannot be read: {0}")]
    Unreadable(#[from] ReadError),
}

/// Ends a connection from outside.
#[derive(Debug, Clone, Default)]
pub(crate) struct Closer {
    closing: CancellationToken,
    resets: Arc<AtomicBool>,
}

impl Closer {
    /// Ends it; what the system has taken of us still goes out.
    pub(crate) fn close(&self) {
        self.closing.cancel();
    }

    /// Ends it at once: nothing that is under way is for this peer any more.
    pub(crate) fn reset(&self) {
        self.resets.store(true, Ordering::Release);
        self.closing.cancel();
    }
}

/// What a connection needs to run.
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) transport: Transport,
    pub(crate) geometry: Geometry,
    pub(crate) content: Content,
    pub(crate) commands: mpsc::Receiver<Vec<PeerCommand>>,
    pub(crate) torrent: mpsc::Sender<(ConnectionId, Wire)>,
    pub(crate) closer: Closer,
}

impl Connection {
    /// Moves messages until either side ends it.
    pub(crate) async fn run(self) {
        let Self { id, transport, geometry, content, commands, torrent, closer } = self;
        let Transport { reader, writer, place: _place, .. } = transport;
        let reading = read(id, reader, geometry.n_pieces(), &torrent);
        let mut writer = Writer {
            id,
            writer,
            geometry,
            content,
            commands,
            torrent: torrent.clone(),
            messages: BytesMut::new(),
            serves: VecDeque::new(),
            run_length: 4 * MIN_RUN_LENGTH,
            spare: Vec::new(),
        };
        let both = async { tokio::try_join!(reading, writer.run()) };
        let end = closer.closing.run_until_cancelled(both).await;
        if closer.resets.load(Ordering::Acquire) {
            writer.writer.reset_at_close();
        }
        drop(writer);
        let end = end.and_then(Result::err).unwrap_or(ConnectionEnd::Ours);
        // The torrent may be gone already; then nobody needs to know.
        let _ = torrent.send((id, Wire::Closed(end))).await;
    }
}

/// Reads until the connection ends; the torrent's full mailbox holds it up, and so, through TCP, the peer.
async fn read(
    id: ConnectionId,
    mut reader: Box<dyn AsyncRead + Send + Unpin>,
    n_pieces: u32,
    torrent: &mpsc::Sender<(ConnectionId, Wire)>,
) -> Result<(), ConnectionEnd> {
    let mut buffer = READ_BUFFERS.take();
    loop {
        if buffer.capacity() - buffer.len() < MIN_READ_LENGTH {
            let mut next = READ_BUFFERS.take();
            // The beginning of a message whose rest is still to come.
            next.extend_from_slice(&buffer.split());
            READ_BUFFERS.give_back(std::mem::replace(&mut buffer, next));
        }
        if read_available(&mut reader, &mut buffer).await? == 0 {
            return Err(ConnectionEnd::Theirs);
        }
        let mut messages = Vec::new();
        while let Some(message) = peer_wire::decode(&mut buffer, n_pieces)? {
            messages.push(message);
        }
        if !messages.is_empty() && torrent.send((id, Wire::Received(messages))).await.is_err() {
            return Err(ConnectionEnd::Ours);
        }
    }
}

/// Waits for bytes and takes all that are there, up to the room in the buffer; how many. A reader that decrypts
/// gives one record at a time, and the torrent is better woken once for many.
async fn read_available(reader: &mut (dyn AsyncRead + Send + Unpin), buffer: &mut BytesMut) -> io::Result<usize> {
    let n_first = reader.read_buf(buffer).await?;
    let mut n_read = n_first;
    let mut is_more = n_first > 0;
    while is_more && buffer.len() < buffer.capacity() {
        // What comes to an end here is noticed by the next call.
        is_more = poll_fn(|context| {
            Poll::Ready(match pin!(reader.read_buf(buffer)).poll(context) {
                Poll::Ready(Ok(n)) => {
                    n_read += n;
                    n > 0
                }
                Poll::Ready(Err(_)) | Poll::Pending => false,
            })
        })
        .await;
    }
    Ok(n_read)
}

struct Writer {
    id: ConnectionId,
    writer: Box<dyn PeerWriter>,
    geometry: Geometry,
    content: Content,
    commands: mpsc::Receiver<Vec<PeerCommand>>,
    torrent: mpsc::Sender<(ConnectionId, Wire)>,
    /// Messages that wait, already encoded.
    messages: BytesMut,
    /// Blocks to serve, in order.
    serves: VecDeque<Block>,
    run_length: u32,
    /// The buffer of the frame before, for the next one.
    spare: Vec<u8>,
}

impl Writer {
    /// Writes until the torrent lets go of the connection.
    async fn run(&mut self) -> Result<(), ConnectionEnd> {
        loop {
            if self.serves.is_empty() && self.messages.is_empty() {
                // One who waits needs no room.
                self.spare = Vec::new();
                let batch = self.commands.recv().await.ok_or(ConnectionEnd::Ours)?;
                self.apply(batch);
            }
            while let Ok(batch) = self.commands.try_recv() {
                self.apply(batch);
            }
            let frame = self.next_frame();
            let mut frame = read_blocks(frame, &self.content).await?;
            let started = Instant::now();
            self.write(frame.wire()).await?;
            let (blocks, spare) = frame.into_parts();
            self.spare = spare;
            if !blocks.is_empty() {
                self.adapt(started.elapsed());
                if self.torrent.send((self.id, Wire::Served(blocks))).await.is_err() {
                    return Err(ConnectionEnd::Ours);
                }
            }
        }
    }

    fn apply(&mut self, batch: Vec<PeerCommand>) {
        for command in batch {
            match command {
                PeerCommand::Send(message) => message.encode(&mut self.messages),
                PeerCommand::Serve(block) => self.serves.push_back(block),
                PeerCommand::CancelServe(block) => self.serves.retain(|waiting| *waiting != block),
            }
        }
    }

    /// The waiting messages and, off the queue, a run of neighbouring blocks.
    fn next_frame(&mut self) -> Frame {
        let mut blocks: Vec<Block> = Vec::new();
        let mut length = 0;
        while let Some(next) = self.serves.front().copied() {
            let follows = blocks.first().is_none_or(|first| {
                next.piece == first.piece
                    && next.begin == first.begin + length
                    && length + next.length <= self.run_length
            });
            if !follows {
                break;
            }
            length += next.length;
            blocks.push(next);
            self.serves.pop_front();
        }
        let offset = blocks.first().map_or(0, |first| self.geometry.offset_of(*first));
        let wire = std::mem::take(&mut self.spare);
        Frame::new(self.writer.framing(), self.messages.split(), blocks, offset, wire)
    }

    /// Seals a frame and writes it.
    async fn write(&mut self, wire: &mut [u8]) -> Result<(), ConnectionEnd> {
        self.writer.seal(wire)?;
        let mut rest = &wire[..];
        while !rest.is_empty() {
            let writing = poll_fn(|context| self.writer.poll_write_sealed(context, rest));
            let n_written = timeout(WRITE_TIMEOUT, writing).await.map_err(|_| ConnectionEnd::Stalled)??;
            if n_written == 0 {
                return Err(ConnectionEnd::Theirs);
            }
            rest = &rest[n_written..];
        }
        Ok(())
    }

    fn adapt(&mut self, elapsed: Duration) {
        self.run_length = match elapsed {
            slow if slow > SLOW_WRITE => self.run_length / 2,
            fast if fast < SLOW_WRITE / 4 => self.run_length * 2,
            _ => self.run_length,
        }
        .clamp(MIN_RUN_LENGTH, MAX_RUN_LENGTH);
    }
}

/// Reads a frame's blocks: here what the system has in memory, and what the disk has to be waited for elsewhere. The
/// socket's own buffer keeps the wire busy meanwhile.
async fn read_blocks(mut frame: Frame, content: &Content) -> Result<Frame, ConnectionEnd> {
    if frame.read_at_hand(content)? {
        return Ok(frame);
    }
    let content = content.clone();
    let reading = tokio::task::spawn_blocking(move || frame.read_rest(&content).map(|()| frame));
    Ok(reading.await.map_err(io::Error::other)??)
}
