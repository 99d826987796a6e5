//! An encrypted byte stream over TCP, in two halves that share nothing.
//!
//! rustls shakes hands; then [`mini_torrent_common::tls::records`] takes over. The reader decrypts what one system call
//! brought into the buffer that its taker offers; the writer seals frames where they lie.

use mini_torrent_common::peer_wire;
use mini_torrent_common::tls::records::{self, HEADER_LENGTH, MAX_PLAIN_LENGTH, MAX_RECORD_LENGTH, TRAILER_LENGTH};
use mini_torrent_common::tls::records::{Opened, RecordError, RecordOpener, RecordSealer};
use mini_torrent_common::tls::{self, PublicKey};
use rustls::Connection;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::PeerWriter;
use super::congestion::WriteHalf;
use super::frame::{Framing, lay_out};
use super::low_water::ReadHalf;

/// Encrypted bytes that are read from the socket at once, at most.
const READ_AHEAD: usize = 256 * 1024;
/// Plain bytes that are sealed and wait for the socket, at most.
const WRITE_AHEAD: usize = 256 * 1024;

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
    Ok((
        SecretReader::new(ReadHalf::new(read_half), opener),
        SecretWriter::new(WriteHalf::new(write_half), sealer),
        proven,
    ))
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
            return Err(io::Error::other(RecordError::BadLength(length)));
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
    socket: ReadHalf,
    opener: RecordOpener,
    /// What was read from the socket, and where in it the bytes are that are still to be opened.
    buffer: Vec<u8>,
    encrypted: Range<usize>,
    /// The plain bytes of a record for which its taker had no room, and where in it the rest is.
    kept: Vec<u8>,
    rest: Range<usize>,
    is_over: bool,
}

impl SecretReader {
    fn new(socket: ReadHalf, opener: RecordOpener) -> Self {
        // One record has room at least; a connection that carries more gets more.
        let buffer = vec![0; MAX_RECORD_LENGTH];
        Self { socket, opener, buffer, encrypted: 0..0, kept: Vec::new(), rest: 0..0, is_over: false }
    }

    /// Opens the next record, if it is all there, into `taker` if that has room for it; whether it did.
    fn open(&mut self, taker: &mut ReadBuf<'_>) -> Result<bool, RecordError> {
        let encrypted = &self.buffer[self.encrypted.clone()];
        let Some(record) = records::record_length(encrypted)?.and_then(|length| encrypted.get(..length)) else {
            return Ok(false);
        };
        self.encrypted.start += record.len();
        let room = records::room_for(record);
        if taker.remaining() >= room {
            match self.opener.open(record, taker.initialize_unfilled_to(room))? {
                Opened::Data(n) => taker.advance(n),
                Opened::End => self.is_over = true,
            }
            return Ok(true);
        }
        self.kept.resize(room, 0);
        match self.opener.open(record, &mut self.kept)? {
            Opened::Data(n) => self.rest = 0..n,
            Opened::End => self.is_over = true,
        }
        Ok(true)
    }

    /// Hands out what was kept.
    fn hand_out(&mut self, taker: &mut ReadBuf<'_>) {
        let taken = self.rest.start..self.rest.end.min(self.rest.start + taker.remaining());
        taker.put_slice(&self.kept[taken.clone()]);
        self.rest.start = taken.end;
        if self.rest.is_empty() {
            (self.kept, self.rest) = (Vec::new(), 0..0);
        }
    }

    /// Reads more encrypted bytes, behind those that are there; `false` when no more will come.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.buffer.copy_within(self.encrypted.clone(), 0);
        self.encrypted = 0..self.encrypted.len();
        // What is missing of the record that has come in part.
        let begun = records::record_length(&self.buffer[self.encrypted.clone()]);
        let n_of_use = begun.ok().flatten().map_or(1, |length| length.saturating_sub(self.encrypted.len()));
        let mut room = ReadBuf::new(&mut self.buffer[self.encrypted.end..]);
        ready!(self.socket.poll_read(context, &mut room, n_of_use))?;
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
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, taker: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let n_before = taker.filled().len();
        loop {
            self.hand_out(taker);
            let has_read = taker.filled().len() > n_before;
            let is_short = has_read && taker.remaining() < MAX_PLAIN_LENGTH;
            if taker.remaining() == 0 || self.is_over || is_short {
                return Poll::Ready(Ok(()));
            }
            if self.open(taker).map_err(io::Error::other)? {
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
    socket: WriteHalf,
    sealer: RecordSealer,
    /// Sealed records that wait for the socket, and where in it the rest is.
    sealed: Vec<u8>,
    rest: Range<usize>,
}

impl SecretWriter {
    fn new(socket: WriteHalf, sealer: RecordSealer) -> Self {
        Self { socket, sealer, sealed: Vec::new(), rest: 0..0 }
    }

    /// Writes what waits.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            let n = ready!(Pin::new(&mut self.socket).poll_write(context, &self.sealed[self.rest.clone()]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.rest.start += n;
        }
        self.sealed = Vec::new();
        Poll::Ready(Ok(()))
    }
}

impl PeerWriter for SecretWriter {
    fn reset_at_close(&self) {
        self.socket.reset_at_close();
    }

    fn framing(&self) -> Framing {
        Framing::Records
    }

    fn seal(&mut self, wire: &mut [u8]) -> io::Result<()> {
        let records = wire.chunks_mut(HEADER_LENGTH + MAX_PLAIN_LENGTH + TRAILER_LENGTH);
        records.into_iter().try_for_each(|record| self.sealer.seal(record)).map_err(io::Error::other)
    }

    fn poll_write_sealed(&mut self, context: &mut Context<'_>, wire: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.socket).poll_write(context, wire)
    }
}

impl AsyncWrite for SecretWriter {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(context))?;
        let taken = &bytes[..bytes.len().min(WRITE_AHEAD)];
        let mut sealed = lay_out(Framing::Records, taken);
        self.seal(&mut sealed)?;
        (self.rest, self.sealed) = (0..sealed.len(), sealed);
        // What the socket does not take now waits for the next call.
        match self.poll_drain(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken.len())),
        }
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

    /// A frame between small writes, read by takers with little room.
    #[tokio::test]
    async fn frames_and_small_writes_become_one_stream() {
        let ((_, mut writer, _), (mut reader, ..)) = pair().await;
        let bytes: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let sending = async {
            writer.write_all(b"before").await.unwrap();
            let mut wire = lay_out(writer.framing(), &bytes);
            writer.seal(&mut wire).unwrap();
            let mut rest = &wire[..];
            while !rest.is_empty() {
                let n = std::future::poll_fn(|context| writer.poll_write_sealed(context, rest)).await.unwrap();
                rest = &rest[n..];
            }
            writer.write_all(b"behind").await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let receiving = async {
            let (mut received, mut taken) = (Vec::<u8>::new(), vec![0; 5000]);
            loop {
                match reader.read(&mut taken).await.unwrap() {
                    0 => return received,
                    n => received.extend(&taken[..n]),
                }
            }
        };
        let ((), received) = tokio::join!(sending, receiving);
        assert!(received == [b"before", &bytes[..], b"behind"].concat());
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
        assert!(!writer.rest.is_empty() && writer.sealed.len() <= Framing::Records.wire_length(WRITE_AHEAD));
    }
}
