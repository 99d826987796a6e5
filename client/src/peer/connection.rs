//! One open connection: a reader that turns bytes into messages and a writer that turns commands into bytes.
//!
//! The two are joined futures of one task. They must not be arms of one `select!`: with both directions' TCP
//! windows full, each side would wait for the other to read.

use bytes::BytesMut;
use mini_torrent_common::geometry::{Block, Geometry};
use mini_torrent_common::peer_wire::{self, BlockRange, Message, PIECE_HEADER_LENGTH};
use mini_torrent_engine::ConnectionId;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

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

/// A run of neighbouring blocks on its way from disk to socket.
struct Run {
    blocks: Vec<Block>,
    /// The blocks' bytes, one after the other, in the front of a buffer.
    bytes: JoinHandle<Result<Vec<u8>, ReadError>>,
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
    /// The buffer of the run before, for the next one.
    spare: Vec<u8>,
}

impl Writer {
    /// Writes until the torrent lets go of the connection. While one run is written the next is read.
    async fn run(&mut self) -> Result<(), ConnectionEnd> {
        let mut reading: Option<Run> = None;
        loop {
            if reading.is_none() && self.serves.is_empty() && self.messages.is_empty() {
                // One who waits needs no room.
                self.spare = Vec::new();
                let batch = self.commands.recv().await.ok_or(ConnectionEnd::Ours)?;
                self.apply(batch);
            }
            while let Ok(batch) = self.commands.try_recv() {
                self.apply(batch);
            }
            let run = match reading.take().or_else(|| self.begin_run()) {
                None => None,
                Some(run) => Some((run.blocks, run.bytes.await.map_err(io::Error::other)??)),
            };
            reading = self.begin_run();
            let started = Instant::now();
            self.write(run.as_ref()).await?;
            if let Some((blocks, buffer)) = run {
                self.spare = buffer;
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

    /// Takes neighbouring blocks off the queue and begins to read them.
    fn begin_run(&mut self) -> Option<Run> {
        let first = self.serves.pop_front()?;
        let (mut blocks, mut length) = (vec![first], first.length);
        while let Some(next) = self.serves.front().copied() {
            let follows = next.piece == first.piece && next.begin == first.begin + length;
            if !follows || length + next.length > self.run_length {
                break;
            }
            length += next.length;
            blocks.push(next);
            self.serves.pop_front();
        }
        let (content, offset) = (self.content.clone(), self.geometry.offset_of(first));
        let (mut buffer, length) = (std::mem::take(&mut self.spare), length as usize);
        let bytes = tokio::task::spawn_blocking(move || {
            if buffer.len() < length {
                buffer.resize(length, 0);
            }
            content.read(offset, &mut buffer[..length]).map(|()| buffer)
        });
        Some(Run { blocks, bytes })
    }

    /// Writes the waiting messages and a run in as few system calls as the socket allows.
    async fn write(&mut self, run: Option<&(Vec<Block>, Vec<u8>)>) -> Result<(), ConnectionEnd> {
        let messages = self.messages.split();
        let (blocks, mut bytes) = run.map_or((&[][..], &[][..]), |(blocks, bytes)| (&blocks[..], &bytes[..]));
        let headers: Vec<[u8; PIECE_HEADER_LENGTH]> = blocks.iter().map(|block| header_of(*block)).collect();
        let mut slices = Vec::with_capacity(1 + 2 * blocks.len());
        slices.push(IoSlice::new(&messages));
        for (block, header) in blocks.iter().zip(&headers) {
            let (block_bytes, rest) = bytes.split_at((block.length as usize).min(bytes.len()));
            slices.extend([IoSlice::new(header), IoSlice::new(block_bytes)]);
            bytes = rest;
        }
        let mut rest = &mut slices[..];
        // Passes over leading empty slices.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let written = timeout(WRITE_TIMEOUT, self.writer.write_vectored(rest)).await;
            let n_written = written.map_err(|_| ConnectionEnd::Stalled)??;
            if n_written == 0 {
                return Err(ConnectionEnd::Theirs);
            }
            IoSlice::advance_slices(&mut rest, n_written);
        }
        timeout(WRITE_TIMEOUT, self.writer.flush()).await.map_err(|_| ConnectionEnd::Stalled)??;
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

fn header_of(block: Block) -> [u8; PIECE_HEADER_LENGTH] {
    peer_wire::piece_header(BlockRange { index: block.piece.get(), begin: block.begin, length: block.length })
}
