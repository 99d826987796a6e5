//! An encrypted byte stream over TCP, in two halves that share nothing.
//!
//! rustls shakes hands; then [`mini_torrent_common::tls::records`] takes over. The reader decrypts in place what one
//! system call brought; the writer hands on what it sealed without another copy.

use mini_torrent_common::peer_wire;
use mini_torrent_common::tls::records::{self, HEADER_LENGTH, MAX_PLAIN_LENGTH, MAX_RECORD_LENGTH};
use mini_torrent_common::tls::records::{Opened, RecordError, RecordOpener, RecordSealer};
use mini_torrent_common::tls::{self, PublicKey};
use rustls::Connection;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::PeerWriter;

/// Encrypted bytes that are read from the socket at once, at most.
const READ_AHEAD: usize = 256 * 1024;
/// Encrypted bytes that wait for the socket before more are taken.
const WRITE_AHEAD: usize = 256 * 1024;
/// Records that go into one system call.
const MAX_SLICES: usize = 64;

/// Shakes hands and takes the connection over from rustls. The key and the protocol that the other side proved are
/// asked of the second value.
///
/// # Errors
/// When the network fails, or either side refuses the other.
pub(super) async fn establish(
    mut socket: TcpStream,
    mut connection: Connection,
) -> io::Result<(SecretReader, SecretWriter, Proven)> {
    let shaken = shake_hands(&mut socket, &mut connection).await;
    // When it failed, this says why.
    let sent = send_pending(&mut socket, &mut connection).await;
    shaken.and(sent)?;
    let proven = Proven {
        key: tls::peer_key(&connection),
        is_between_members: connection.alpn_protocol() == Some(peer_wire::ALPN),
    };
    let secrets = connection.dangerous_extract_secrets().map_err(io::Error::other)?;
    let (sealer, opener) = records::halves(secrets).map_err(io::Error::other)?;
    let (read_half, write_half) = socket.into_split();
    Ok((SecretReader::new(read_half, opener), SecretWriter::new(write_half, sealer), proven))
}

/// What the other side has proved in the handshake.
pub(super) struct Proven {
    pub(super) key: Option<PublicKey>,
    /// Whether it named the protocol between members.
    pub(super) is_between_members: bool,
}

/// Reads one record at a time, so that nothing behind the handshake gets into rustls.
async fn shake_hands(socket: &mut TcpStream, connection: &mut Connection) -> io::Result<()> {
    let mut record = Vec::new();
    loop {
        send_pending(socket, connection).await?;
        if !connection.is_handshaking() {
            return Ok(());
        }
        record.resize(HEADER_LENGTH, 0);
        socket.read_exact(&mut record).await?;
        let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
        if length > MAX_RECORD_LENGTH - HEADER_LENGTH {
            return Err(io::Error::other(RecordError::TooLong(length)));
        }
        record.resize(HEADER_LENGTH + length, 0);
        socket.read_exact(&mut record[HEADER_LENGTH..]).await?;
        let mut rest = record.as_slice();
        while !rest.is_empty() {
            connection.read_tls(&mut rest)?;
            connection.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

async fn send_pending(socket: &mut TcpStream, connection: &mut Connection) -> io::Result<()> {
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes)?;
    }
    socket.write_all(&bytes).await
}

/// The reading half: plain bytes of the records that have come.
pub(super) struct SecretReader {
    socket: OwnedReadHalf,
    opener: RecordOpener,
    /// Plain bytes of the record that is being taken, then encrypted bytes.
    buffer: Vec<u8>,
    plain: Range<usize>,
    encrypted: Range<usize>,
    is_over: bool,
}

impl SecretReader {
    fn new(socket: OwnedReadHalf, opener: RecordOpener) -> Self {
        // One record has room at least; a connection that carries more gets more.
        Self { socket, opener, buffer: vec![0; MAX_RECORD_LENGTH], plain: 0..0, encrypted: 0..0, is_over: false }
    }

    /// Opens the next record, if it is all there.
    fn open(&mut self) -> Result<bool, RecordError> {
        let Some((length, opened)) = self.opener.open(&mut self.buffer[self.encrypted.clone()])? else {
            return Ok(false);
        };
        let start = self.encrypted.start;
        self.encrypted.start += length;
        match opened {
            Opened::Data(range) => self.plain = start + range.start..start + range.end,
            Opened::End => self.is_over = true,
        }
        Ok(true)
    }

    /// Reads more encrypted bytes, behind those that are there; `false` when no more will come.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.buffer.copy_within(self.encrypted.clone(), 0);
        self.encrypted = 0..self.encrypted.len();
        let mut room = ReadBuf::new(&mut self.buffer[self.encrypted.end..]);
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut room))?;
        let (n_read, is_full) = (room.filled().len(), room.remaining() == 0);
        self.encrypted.end += n_read;
        if is_full && self.buffer.len() < READ_AHEAD {
            self.buffer.resize(READ_AHEAD, 0);
        }
        Poll::Ready(Ok(n_read > 0))
    }
}

impl AsyncRead for SecretReader {
    /// Fills the buffer with all that is there, for one call costs more than one record.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let n_before = buffer.filled().len();
        loop {
            let taken = self.plain.start..self.plain.end.min(self.plain.start + buffer.remaining());
            buffer.put_slice(&self.buffer[taken.clone()]);
            self.plain.start = taken.end;
            let has_read = buffer.filled().len() > n_before;
            if buffer.remaining() == 0 || self.is_over {
                return Poll::Ready(Ok(()));
            }
            if self.open().map_err(io::Error::other)? {
                continue;
            }
            if has_read {
                return Poll::Ready(Ok(()));
            }
            if !ready!(self.poll_fill(context))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// The writing half: seals what it takes at once.
pub(super) struct SecretWriter {
    socket: OwnedWriteHalf,
    sealer: RecordSealer,
    records: VecDeque<Vec<u8>>,
    /// Bytes of the first record that are written already.
    n_written: usize,
    /// Bytes of all records, those already written included.
    n_queued: usize,
}

impl SecretWriter {
    fn new(socket: OwnedWriteHalf, sealer: RecordSealer) -> Self {
        Self { socket, sealer, records: VecDeque::new(), n_written: 0, n_queued: 0 }
    }

    /// Seals as many of these bytes as may wait; how many.
    fn seal(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, RecordError> {
        let mut n_taken = 0;
        let mut rest = slices.iter().map(|slice| &slice[..]).filter(|slice| !slice.is_empty());
        let mut slice = rest.next();
        while self.n_queued < WRITE_AHEAD && slice.is_some() {
            let (mut plain, mut room) = (Vec::new(), MAX_PLAIN_LENGTH);
            while let Some(bytes) = slice.filter(|_| room > 0) {
                let (now, later) = bytes.split_at(bytes.len().min(room));
                plain.push(now);
                room -= now.len();
                slice = if later.is_empty() { rest.next() } else { Some(later) };
            }
            let record = self.sealer.seal(&plain)?;
            n_taken += MAX_PLAIN_LENGTH - room;
            self.n_queued += record.len();
            self.records.push_back(record);
        }
        Ok(n_taken)
    }

    /// Writes what waits.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.records.is_empty() {
            let first = self.n_written;
            let slices = self.records.iter().take(MAX_SLICES).enumerate();
            let slices: Vec<_> =
                slices.map(|(nth, record)| IoSlice::new(&record[if nth == 0 { first } else { 0 }..])).collect();
            let n = ready!(Pin::new(&mut self.socket).poll_write_vectored(context, &slices))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.n_written += n;
            while let Some(record) = self.records.front().filter(|record| record.len() <= self.n_written) {
                self.n_written -= record.len();
                self.n_queued -= record.len();
                self.records.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl PeerWriter for SecretWriter {
    fn reset_at_close(&self) {
        self.socket.reset_at_close();
    }
}

impl AsyncWrite for SecretWriter {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.n_queued >= WRITE_AHEAD {
            ready!(self.poll_drain(context))?;
        }
        let n_taken = self.seal(slices).map_err(io::Error::other)?;
        // What the socket does not take now waits for the next call.
        match self.poll_drain(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(n_taken)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mini_torrent_common::tls::Identity;
    use rustls::{ClientConnection, ServerConnection};
    use std::sync::Arc;
    use tokio::net::TcpListener;

    type Halves = (SecretReader, SecretWriter, Proven);

    async fn pair() -> (Halves, Halves) {
        let identity = |byte| Identity::from_seed(&[byte; 32]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::new(tls::peer_server_config(&identity(1)).unwrap());
        let accepting = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            establish(socket, ServerConnection::new(config).unwrap().into()).await.unwrap()
        });
        let socket = TcpStream::connect(address).await.unwrap();
        let config = Arc::new(tls::peer_client_config(&identity(2)).unwrap());
        let connection = ClientConnection::new(config, tls::unnamed_server()).unwrap();
        let mut halves = establish(socket, connection.into()).await.unwrap();
        assert_eq!(halves.2.key, Some(identity(1).public()));
        // At once behind the handshake, before the other side knows that it is over.
        halves.1.write_all(b"first").await.unwrap();
        halves.1.flush().await.unwrap();
        let mut accepted = accepting.await.unwrap();
        let mut first = [0; 5];
        accepted.0.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"first");
        assert!(accepted.2.key == Some(identity(2).public()) && accepted.2.is_between_members);
        (halves, accepted)
    }

    #[tokio::test]
    async fn megabytes_cross_in_both_directions_at_once_and_the_end_is_seen() {
        let ((mut read_a, mut write_a, _), (mut read_b, mut write_b, _)) = pair().await;
        let bytes: Vec<u8> = (0..5_000_003u32).map(|n| (n % 251) as u8).collect();
        let send = async |writer: &mut SecretWriter| {
            for chunk in bytes.chunks(70_001) {
                writer.write_all(chunk).await.unwrap();
            }
            writer.shutdown().await.unwrap();
        };
        let receive = async |reader: &mut SecretReader| {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).await.unwrap();
            assert!(received == bytes);
        };
        tokio::join!(send(&mut write_a), send(&mut write_b), receive(&mut read_a), receive(&mut read_b));
    }

    #[tokio::test]
    async fn slices_become_one_stream_whatever_their_lengths() {
        let ((_, mut writer, _), (mut reader, ..)) = pair().await;
        let parts = [vec![1; 13], vec![2; 16_384], Vec::new(), vec![3; 40_000], vec![4; 1]];
        let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        assert_eq!(writer.write_vectored(&slices).await.unwrap(), 56_398);
        writer.flush().await.unwrap();
        let mut received = vec![0; 56_398];
        reader.read_exact(&mut received).await.unwrap();
        assert!(received == parts.concat());
    }

    #[tokio::test]
    async fn who_does_not_read_holds_the_writer_up() {
        let ((_, mut writer, _), (_reader, ..)) = pair().await;
        let chunk = vec![0; 1 << 20];
        let forever = async {
            loop {
                writer.write_all(&chunk).await.unwrap();
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_millis(500), forever).await;
        assert!(waited.is_err());
        assert!(writer.n_queued < WRITE_AHEAD + MAX_RECORD_LENGTH);
    }
}
