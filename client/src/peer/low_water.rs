//! Reading from a socket without being woken for less than is of use.
//!
//! Of a record that has come in part nothing can be opened. On a slow way each of its packets would wake the reader, which
//! costs more than opening the record; so the system is told how much is missing (`SO_RCVLOWAT`, socket(7)).

use nix::sys::socket::setsockopt;
use nix::{libc, setsockopt_impl, sockopt_impl};
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
    SetOnly,
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
