//! Which congestion control a connection to a peer uses, so that a way that loses packets stays fast.
//!
//! At first it is the system's own. The usual one takes each loss for congestion and halves the rate; that is right where
//! packets are lost because a queue is full, which shows in the delay. Where packets are lost again and again while the
//! delay is near the least that was seen, it is the way that loses them, or a queue too short to wait in, and the system is
//! asked for BBR. That costs more for each packet, for it paces them, and so is not asked for before it is of use. Until
//! then the delay also tells how much may be on its way ([`SendWindow`]).

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};
use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::mem::offset_of;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::{Sleep, sleep};

use super::PeerWriter;
use super::send_window::{Progress, SendWindow};

/// What keeps a connection fast on a way that loses packets, where the system has it and lets us choose it.
const FOR_LOSSES: &str = "bbr";
/// What every system has (tcp(7)).
const PLAIN: &str = "reno";
/// How much may be sent and not yet acknowledged on a way that loses packets, where the system allows that: what comes
/// behind a lost packet stays unacknowledged until that was sent again. The system itself takes this twice.
const SEND_BUFFER: usize = 4 << 20;
/// How much of it may be waiting to be sent for the first time. More would delay what is said between the blocks.
const UNSENT: u32 = 512 * 1024;
/// How much is written from one look at the connection to the next.
const LOOK_INTERVAL_BYTES: usize = 128 * 1024;
/// So many looks have to find losses without a queue: one alone may be chance.
const SURE_LOOKS: u32 = 2;
/// After so many looks in a row without a loss, those before do not count: a few in many megabytes cost little.
const CLEAN_LOOKS: u32 = 32;
/// A delay up to so much over the least one is none that a full queue makes, in microseconds.
const JITTER_US: u32 = 2_000;
/// How long to wait for acknowledgments at least and at most.
const PAUSES_US: (u32, u32) = (1_000, 50_000);

/// The longest send buffer that may be asked for (socket(7)), and the longest that the system chooses (tcp(7)).
const MAX_ASKED: &str = "/proc/sys/net/core/wmem_max";
const MAX_TUNED: &str = "/proc/sys/net/ipv4/tcp_wmem";
/// Which controls anybody may choose.
const ALLOWED_CONTROLS: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

/// `struct tcp_info` of Linux up to `tcpi_min_rtt`, which every kernel has that has what else we need (4.6), in words
/// (tcp(7)).
type InfoWords = [u32; 38];
/// The smoothed round trip, in microseconds.
const RTT_WORD: usize = offset_of!(libc::tcp_info, tcpi_rtt) / size_of::<u32>();
/// Segments that were sent again.
const RETRANSMITTED_WORD: usize = offset_of!(libc::tcp_info, tcpi_total_retrans) / size_of::<u32>();
/// How many bytes were acknowledged, in two words; the library does not name it. Two numbers of 64 bits come before.
const ACKED_WORD: usize = RETRANSMITTED_WORD + 5;
/// The least round trip of the last five minutes, in microseconds (`tcp_min_rtt_wlen`): the last word.
const LEAST_RTT_WORD: usize = RETRANSMITTED_WORD + 12;

sockopt_impl!(
    /// The state of a TCP connection.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    InfoWords
);
sockopt_impl!(
    /// With how many unsent bytes a socket takes more.
    UnsentLowWater,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_NOTSENT_LOWAT,
    u32
);

/// What a look at a connection finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    rtt_us: u32,
    n_retransmitted: u32,
    /// Bytes that were acknowledged.
    acked: u64,
    /// The least delay of the last minutes.
    least_rtt_us: u32,
}

/// What the looks at a connection have found.
#[derive(Debug, Default)]
struct Losses {
    last: Option<Look>,
    least_rtt_us: u32,
    /// Looks that found losses without a queue.
    n_sure: u32,
    /// Looks in a row that found none.
    n_clean: u32,
}

impl Losses {
    /// Takes a look in; whether it is the way that loses packets.
    fn is_the_way(&mut self, look: Look) -> bool {
        let Some(last) = self.last.replace(look) else {
            self.least_rtt_us = look.rtt_us;
            return false;
        };
        self.least_rtt_us = self.least_rtt_us.min(look.rtt_us);
        let near = (self.least_rtt_us / 4).saturating_mul(5).saturating_add(JITTER_US);
        let has_queue = look.rtt_us.max(last.rtt_us) > near;
        let has_lost = look.n_retransmitted != last.n_retransmitted;
        self.n_clean = if has_lost { 0 } else { self.n_clean + 1 };
        if has_lost && !has_queue {
            self.n_sure += 1;
        } else if has_lost || self.n_clean >= CLEAN_LOOKS {
            self.n_sure = 0;
        }
        self.n_sure >= SURE_LOOKS
    }
}

/// The writing half of a connection to a peer, with an eye on its losses and its delay.
pub(super) struct WriteHalf {
    socket: OwnedWriteHalf,
    /// Until it is known that the way loses packets.
    losses: Option<Losses>,
    window: SendWindow,
    written: u64,
    /// As far as the last look knows.
    acked: u64,
    rtt_us: u32,
    written_since_look: usize,
    /// Until more may be acknowledged.
    pause: Option<Pin<Box<Sleep>>>,
    /// Pauses in a row in which nothing was.
    n_vain: u32,
}

impl WriteHalf {
    pub(super) fn new(socket: OwnedWriteHalf) -> Self {
        let mut losses = Losses::default();
        // What the handshake found, if it found anything: the shortest delay, as a rule.
        let look = look_at(&socket);
        if let Some(look) = look {
            losses.is_the_way(look);
        }
        // Of what the handshake wrote, as much as is acknowledged counts as written; the rest is not worth the counting.
        let (acked, rtt_us) = look.map_or((0, 0), |look| (look.acked, look.rtt_us));
        Self {
            socket,
            losses: Some(losses),
            window: SendWindow::new(),
            written: acked,
            acked,
            rtt_us,
            written_since_look: 0,
            pause: None,
            n_vain: 0,
        }
    }

    fn unacked(&self) -> u64 {
        self.written.saturating_sub(self.acked)
    }

    fn wrote(&mut self, n: usize) {
        self.written += n as u64;
        self.written_since_look += n;
        if self.written_since_look < LOOK_INTERVAL_BYTES {
            return;
        }
        self.written_since_look = 0;
        let Some(look) = self.look() else { return };
        let Some(losses) = &mut self.losses else { return };
        if losses.is_the_way(look) {
            prepare_for_losses(&self.socket);
            self.losses = None;
            self.window.lift();
        } else {
            let Look { rtt_us, least_rtt_us, acked, .. } = look;
            self.window.judge(Progress { written: self.written, acked, rtt_us, least_rtt_us });
        }
    }

    /// Looks at the connection, while there is something to find out.
    fn look(&mut self) -> Option<Look> {
        self.losses.as_ref()?;
        let look = look_at(&self.socket);
        match look {
            Some(look) if look.acked > 0 => {
                self.n_vain = if look.acked == self.acked { self.n_vain + 1 } else { 0 };
                (self.acked, self.rtt_us) = (look.acked, look.rtt_us);
            }
            // What the system does not count is no reason to wait.
            _ => self.window.lift(),
        }
        look
    }

    /// Waits until something may be sent; how much that is.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            if let Some(room) = self.window.room(self.unacked()) {
                return Poll::Ready(room);
            }
            self.look();
            if let Some(room) = self.window.room(self.unacked()) {
                return Poll::Ready(room);
            }
            self.window.was_full();
            let (least, most) = PAUSES_US;
            let pause_us = (self.rtt_us / 4).max(least).saturating_mul(1 << self.n_vain.min(6)).min(most);
            self.pause = Some(Box::pin(sleep(Duration::from_micros(pause_us.into()))));
        }
    }
}

/// Sets what helps where packets are lost. What the system has not or does not allow stays as it is.
fn prepare_for_losses(socket: &OwnedWriteHalf) {
    let socket = &socket.as_ref();
    let allowed = std::fs::read_to_string(ALLOWED_CONTROLS).unwrap_or_default();
    if allowed.split_whitespace().any(|name| name == FOR_LOSSES) {
        // Where it is in use already it starts over, for it takes losses among the first packets for the limit of the way.
        let _ = setsockopt(socket, sockopt::TcpCongestion, &OsString::from(PLAIN));
        let _ = setsockopt(socket, sockopt::TcpCongestion, &OsString::from(FOR_LOSSES));
    }
    if let Some(length) = send_buffer(number_in(MAX_ASKED), number_in(MAX_TUNED)) {
        let _ = setsockopt(socket, sockopt::SndBuf, &length);
        let _ = setsockopt(socket, UnsentLowWater, &UNSENT);
    }
}

/// What to ask for, by what may be asked for and what the system itself goes up to. Asking ends its own tuning, so it has
/// to bring more.
fn send_buffer(max_asked: Option<usize>, max_tuned: Option<usize>) -> Option<usize> {
    let length = SEND_BUFFER.min(max_asked?);
    (length.saturating_mul(2) > max_tuned?).then_some(length)
}

/// The last number in a file of the system's settings.
fn number_in(path: &str) -> Option<usize> {
    std::fs::read_to_string(path).ok()?.split_whitespace().last()?.parse().ok()
}

/// The state of a connection, if the system tells it and knows its delay.
fn look_at(socket: &OwnedWriteHalf) -> Option<Look> {
    let words = getsockopt(&socket.as_ref(), TcpInfo).ok()?;
    let look = Look {
        rtt_us: words[RTT_WORD],
        n_retransmitted: words[RETRANSMITTED_WORD],
        acked: number_at(&words, ACKED_WORD),
        least_rtt_us: words[LEAST_RTT_WORD],
    };
    (look.rtt_us > 0).then_some(look)
}

/// A number of 64 bits in words of 32.
fn number_at(words: &InfoWords, index: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&words[index].to_ne_bytes());
    bytes[4..].copy_from_slice(&words[index + 1].to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

impl AsyncWrite for WriteHalf {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(context));
        let bytes = bytes.get(..room).unwrap_or(bytes);
        let n = ready!(Pin::new(&mut self.socket).poll_write(context, bytes))?;
        self.wrote(n);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

impl PeerWriter for WriteHalf {
    fn reset_at_close(&self) {
        // A socket that refuses is gone already.
        let _ = self.socket.as_ref().set_zero_linger();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// Takes in looks of (delay in milliseconds, segments sent again so far) until the way is held to lose packets.
    fn judge(looks: &[(u32, u32)]) -> bool {
        let look =
            |&(rtt_ms, n_retransmitted)| Look { rtt_us: rtt_ms * 1000, n_retransmitted, acked: 0, least_rtt_us: 0 };
        let mut looks = looks.iter().map(look);
        let mut losses = Losses::default();
        looks.any(|look| losses.is_the_way(look))
    }

    #[test]
    fn losses_without_delay_are_the_ways() {
        assert!(judge(&[(40, 0), (40, 2), (41, 3)]));
        assert!(judge(&[(40, 0), (40, 2), (40, 2), (42, 4)]), "a look without losses says nothing");
        assert!(!judge(&[(40, 0), (40, 1), (41, 1)]), "once may be chance");
        let stray = [vec![(40, 0), (40, 1)], vec![(40, 1); CLEAN_LOOKS as usize], vec![(40, 2), (40, 2)]].concat();
        assert!(!judge(&stray), "so is another one megabytes later");
        assert!(!judge(&[(u32::MAX / 1000, 0), (u32::MAX / 1000, 1)]), "any number is survived");
    }

    #[test]
    fn losses_behind_a_queue_are_congestion() {
        assert!(!judge(&[(20, 0), (90, 4), (80, 9), (70, 12), (60, 13)]));
        assert!(!judge(&[(20, 0), (90, 4), (20, 5), (80, 9), (20, 12)]), "the queue was there a look before");
        assert!(!judge(&[(20, 0), (20, 4), (60, 9), (20, 9), (20, 10)]), "congestion between is no proof");
    }

    #[test]
    fn a_send_buffer_is_asked_for_only_where_that_makes_it_longer() {
        assert_eq!(send_buffer(Some(8 << 20), Some(4 << 20)), Some(SEND_BUFFER));
        assert_eq!(send_buffer(Some(3 << 20), Some(4 << 20)), Some(3 << 20));
        assert_eq!(send_buffer(Some(212_992), Some(4 << 20)), None, "the usual setting of many systems");
        assert_eq!(send_buffer(None, Some(4 << 20)), None);
        assert_eq!(number_in("/proc/sys/net/no_such"), None);
    }

    /// The system says which ones anybody may choose.
    #[tokio::test]
    async fn what_helps_is_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_reader, writer) = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap().into_split();
        let chosen = || getsockopt(&writer.as_ref(), sockopt::TcpCongestion).unwrap();
        let (usual, length) = (chosen(), getsockopt(&writer.as_ref(), sockopt::SndBuf).unwrap());
        prepare_for_losses(&writer);
        let allowed = std::fs::read_to_string(ALLOWED_CONTROLS).unwrap_or_default();
        let is_allowed = allowed.split_whitespace().any(|name| name == FOR_LOSSES);
        assert!(chosen() == FOR_LOSSES || (chosen() == usual && !is_allowed), "{:?} of {allowed}", chosen());
        assert!(getsockopt(&writer.as_ref(), sockopt::SndBuf).unwrap() >= length);
    }

    /// The state comes from the system as its manual says: after a transfer there is a delay.
    #[tokio::test]
    async fn the_system_tells_the_state_of_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        let taking = tokio::spawn(async move { tokio::io::copy(&mut accepted, &mut tokio::io::sink()).await.unwrap() });
        let (mut reader, writer) = stream.into_split();
        let mut writer = WriteHalf::new(writer);
        let before = writer.acked;
        writer.write_all(&vec![0; 40 * LOOK_INTERVAL_BYTES]).await.unwrap();
        assert!(writer.written_since_look < LOOK_INTERVAL_BYTES && writer.losses.is_some());
        assert_eq!(writer.written, before + 40 * LOOK_INTERVAL_BYTES as u64);
        writer.shutdown().await.unwrap();
        assert_eq!(reader.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(taking.await.unwrap(), 40 * LOOK_INTERVAL_BYTES as u64);
        let look = look_at(&writer.socket).unwrap();
        assert!((1..10_000_000).contains(&look.rtt_us), "{look:?}");
        // The end counts as one.
        assert_eq!(look.acked, writer.written + 1);
        assert!((1..=look.rtt_us.max(10_000)).contains(&look.least_rtt_us), "{look:?}");
    }
}
