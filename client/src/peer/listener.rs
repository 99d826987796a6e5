//! Accepts peers. Who has not said what it wants within ten seconds is let go, and so is the oldest undecided
//! connection of the address that holds most, when there are too many.

use mini_torrent_common::address;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::opening::Wish;
use super::{HANDSHAKE_TIMEOUT, MAX_UNDECIDED, OpenPeer, Opener, PeerError};

/// Pause after the system refused to accept, for lack of file descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Refused connections that are named in the log in one minute.
const MAX_LOGGED_REFUSALS: u32 = 600;

/// Asks who serves a torrent.
#[derive(Debug)]
pub(crate) struct WantedTorrent {
    pub(crate) wish: Wish,
    pub(crate) answer: oneshot::Sender<Result<mpsc::Sender<OpenPeer>, PeerError>>,
}

/// The listening socket and whom to ask about torrents.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) opener: Opener,
    pub(crate) torrents: mpsc::Sender<WantedTorrent>,
    pub(crate) shutdown: CancellationToken,
}

impl Listener {
    /// Accepts until the client shuts down.
    pub(crate) async fn run(self) {
        let mut undecided = Undecided::default();
        let mut refusals = RefusalLog::new(Instant::now());
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, remote)) => {
                        undecided.make_room();
                        let task = tasks.spawn(decide(stream, remote, self.opener.clone(), self.torrents.clone()));
                        undecided.insert(address::block_of(remote.ip()), task);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(done) = tasks.join_next_with_id() => {
                    let (id, refused) = match done {
                        Ok((id, refused)) => (id, refused),
                        // Made room for another, or panicked.
                        Err(error) => (error.id(), None),
                    };
                    undecided.remove(id);
                    if let Some((remote, error)) = refused {
                        refusals.log(remote, &error, Instant::now());
                    }
                }
            }
        }
    }
}

/// Finds out what a connection wants and hands it to the torrent. All refusals look alike: it closes.
async fn decide(
    stream: TcpStream,
    remote: SocketAddr,
    opener: Opener,
    torrents: mpsc::Sender<WantedTorrent>,
) -> Option<(SocketAddr, PeerError)> {
    let decided = timeout(HANDSHAKE_TIMEOUT, decide_now(stream, remote, opener, torrents)).await;
    Some((remote, decided.unwrap_or(Err(PeerError::TimedOut)).err()?))
}

async fn decide_now(
    stream: TcpStream,
    remote: SocketAddr,
    mut opener: Opener,
    torrents: mpsc::Sender<WantedTorrent>,
) -> Result<(), PeerError> {
    let caller = opener.admit(stream, remote).await?;
    let (answer, answered) = oneshot::channel();
    let wanted = WantedTorrent { wish: caller.wants(), answer };
    torrents.send(wanted).await.map_err(|_| PeerError::OtherTorrent)?;
    let torrent = answered.await.map_err(|_| PeerError::OtherTorrent)??;
    // A torrent that ended meanwhile drops the connection.
    let _ = torrent.send(opener.answer(caller).await?).await;
    Ok(())
}

/// Names the reasons of refusals, a bounded number a minute, so that a flood does not fill the disk.
struct RefusalLog {
    minute: Instant,
    n_refused: u32,
}

impl RefusalLog {
    fn new(now: Instant) -> Self {
        Self { minute: now, n_refused: 0 }
    }

    /// Whether another refusal is to be named.
    fn counts(&mut self, now: Instant) -> bool {
        if now.duration_since(self.minute) >= Duration::from_secs(60) {
            *self = Self::new(now);
        }
        self.n_refused += 1;
        self.n_refused <= MAX_LOGGED_REFUSALS
    }

    fn log(&mut self, remote: SocketAddr, error: &PeerError, now: Instant) {
        if self.counts(now) {
            tracing::info!(%remote, %error, "refused a connection");
        } else if self.n_refused == MAX_LOGGED_REFUSALS + 1 {
            tracing::warn!("more connections are refused in this minute than are named here");
        }
    }
}

/// The connections that have not said what they want, oldest first.
#[derive(Default)]
struct Undecided(Vec<(IpAddr, AbortHandle)>);

impl Undecided {
    fn insert(&mut self, group: IpAddr, task: AbortHandle) {
        self.0.push((group, task));
    }

    fn remove(&mut self, id: tokio::task::Id) {
        self.0.retain(|(_, task)| task.id() != id);
    }

    fn make_room(&mut self) {
        if self.0.len() < MAX_UNDECIDED {
            return;
        }
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for (group, _) in &self.0 {
            *counts.entry(*group).or_default() += 1;
        }
        let greediest = counts.into_iter().max_by_key(|(_, count)| *count).map(|(group, _)| group);
        if let Some(at) = self.0.iter().position(|(group, _)| Some(*group) == greediest) {
            self.0.remove(at).1.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_named_in_part_and_again_a_minute_later() {
        let now = Instant::now();
        let mut log = RefusalLog::new(now);
        let n_named = (0..2 * MAX_LOGGED_REFUSALS).filter(|_| log.counts(now)).count();
        assert_eq!(n_named, MAX_LOGGED_REFUSALS as usize);
        assert!(log.counts(now + Duration::from_secs(60)));
    }

    #[tokio::test]
    async fn the_oldest_of_the_greediest_address_makes_room() {
        let mut undecided = Undecided::default();
        let mut tasks = JoinSet::new();
        let modest: IpAddr = "10.0.0.1".parse().unwrap();
        let greedy: IpAddr = "10.0.0.2".parse().unwrap();
        undecided.insert(modest, tasks.spawn(std::future::pending::<()>()));
        for _ in 1..MAX_UNDECIDED {
            undecided.insert(greedy, tasks.spawn(std::future::pending::<()>()));
        }
        let oldest = undecided.0[1].1.clone();
        undecided.make_room();
        assert_eq!(undecided.0.len(), MAX_UNDECIDED - 1);
        assert!(undecided.0.iter().any(|(group, _)| *group == modest));
        while !oldest.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}
