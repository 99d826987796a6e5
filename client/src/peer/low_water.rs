//! Reading from a socket without being woken for less than is of use.
//!
//! Of a record that has come in part nothing can be opened. On a slow way each of its packets would wake the reader, which
//! costs more than opening the record; so the system is told how much is missing (`SO_RCVLOWAT`, socket(7)).

use nix::sys::socket::setsockopt;
use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;

/// Less than this is one packet or two, for which telling the system costs as much as it saves.
const WORTH_TELLING: usize = 4 * 1024;

sockopt_impl!(
    /// How many bytes have to be there until a reader is woken.
    ReceiveLowWater,
    Both,
    libc::SOL_SOCKET,
    libc::SO_RCVLOWAT,
    usize
);

/// The reading half of a connection.
pub(super) struct ReadHalf {
    socket: OwnedReadHalf,
    /// What the system was told.
    low_water: usize,
}

impl ReadHalf {
    pub(super) fn new(socket: OwnedReadHalf) -> Self {
        Self { socket, low_water: 1 }
    }

    /// Reads what is there. When that is nothing, the task is woken as soon as `n_of_use` bytes are, or the end; it may be
    /// woken before.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
        n_of_use: usize,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.socket).poll_read(context, room);
        if read.is_pending() {
            self.tell(if n_of_use < WORTH_TELLING { 1 } else { n_of_use });
        }
        read
    }

    /// Tells the system, where what it was told before makes it wake too late, or much too early.
    fn tell(&mut self, low_water: usize) {
        let fits = (low_water.div_ceil(2)..=low_water).contains(&self.low_water);
        if !fits && setsockopt(&self.socket.as_ref(), ReceiveLowWater, &low_water).is_ok() {
            self.low_water = low_water;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::getsockopt;
    use std::future::poll_fn;
    use std::task::ready;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    /// How many bytes came.
    fn poll(half: &mut ReadHalf, context: &mut Context<'_>, n_of_use: usize) -> Poll<usize> {
        let mut buffer = [0; 20_000];
        let mut room = ReadBuf::new(&mut buffer);
        ready!(half.poll_read(context, &mut room, n_of_use)).unwrap();
        Poll::Ready(room.filled().len())
    }

    async fn read(half: &mut ReadHalf, n_of_use: usize) -> usize {
        poll_fn(|context| poll(half, context, n_of_use)).await
    }

    /// Whether a reader has to wait.
    async fn has_to_wait(half: &mut ReadHalf, n_of_use: usize) -> bool {
        poll_fn(|context| Poll::Ready(poll(half, context, n_of_use).is_pending())).await
    }

    #[tokio::test]
    async fn the_system_is_told_what_is_of_use_and_the_reader_never_waits_for_more() {
        const LONG: usize = 10_000;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut writer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let (read_half, _write_half) = accepted.into_split();
        let mut half = ReadHalf::new(read_half);
        let told = |half: &ReadHalf| getsockopt(&half.socket.as_ref(), ReceiveLowWater).unwrap();

        assert!(has_to_wait(&mut half, LONG).await);
        assert_eq!(told(&half), LONG);
        let mut n_read = 0;
        writer.write_all(&[1; LONG]).await.unwrap();
        while n_read < LONG {
            n_read += read(&mut half, LONG - n_read).await;
        }

        assert!(has_to_wait(&mut half, 5).await);
        assert_eq!(told(&half), 1, "the header of the next record is short");
        writer.write_all(&[2]).await.unwrap();
        assert_eq!(read(&mut half, 5).await, 1);

        assert!(has_to_wait(&mut half, LONG).await);
        assert_eq!(told(&half), LONG);
        drop(writer);
        assert_eq!(read(&mut half, LONG).await, 0, "the end comes without the rest");
    }
}
