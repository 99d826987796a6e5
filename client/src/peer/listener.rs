//! Accepts peers. Who has not said what it wants within ten seconds is let go, and so is the oldest undecided
//! connection of the address that holds most, when there are too many.

use mini_torrent_common::address;
use mini_torrent_common::hash::{InfoHash, PeerId};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::opening::{answer, read_handshake};
use super::{HANDSHAKE_TIMEOUT, MAX_UNDECIDED, OpenPeer, PeerError, Transport};

/// Pause after the system refused to accept, for lack of file descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Asks who serves a torrent; answered with nothing when nobody does.
#[derive(Debug)]
pub(crate) struct WantedTorrent {
    pub(crate) info_hash: InfoHash,
    pub(crate) answer: oneshot::Sender<Option<mpsc::Sender<OpenPeer>>>,
}

/// The listening socket and whom to ask about torrents.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) peer_id: PeerId,
    pub(crate) torrents: mpsc::Sender<WantedTorrent>,
    pub(crate) shutdown: CancellationToken,
}

impl Listener {
    /// Accepts until the client shuts down.
    pub(crate) async fn run(self) {
        let mut undecided = Undecided::default();
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, remote)) => {
                        undecided.make_room();
                        let task = tasks.spawn(decide(stream, remote, self.peer_id, self.torrents.clone()));
                        undecided.insert(address::block_of(remote.ip()), task);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(done) = tasks.join_next_with_id() => {
                    undecided.remove(done.map_or_else(|error| error.id(), |(id, ())| id));
                }
            }
        }
    }
}

/// Finds out what a connection wants and hands it to the torrent. All refusals look alike: it closes.
async fn decide(stream: TcpStream, remote: SocketAddr, peer_id: PeerId, torrents: mpsc::Sender<WantedTorrent>) {
    match timeout(HANDSHAKE_TIMEOUT, decide_now(stream, remote, peer_id, torrents)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%remote, %error, "refused a connection"),
        Err(_) => tracing::debug!(%remote, "refused a connection that did not say what it wants"),
    }
}

async fn decide_now(
    stream: TcpStream,
    remote: SocketAddr,
    peer_id: PeerId,
    torrents: mpsc::Sender<WantedTorrent>,
) -> Result<(), PeerError> {
    let mut transport = Transport::accepted(stream, remote)?;
    let handshake = read_handshake(&mut transport).await?;
    let (answer_sender, answered) = oneshot::channel();
    let wanted = WantedTorrent { info_hash: handshake.info_hash, answer: answer_sender };
    torrents.send(wanted).await.map_err(|_| PeerError::OtherTorrent)?;
    let torrent = answered.await.ok().flatten().ok_or(PeerError::OtherTorrent)?;
    let peer = answer(transport, handshake, peer_id).await?;
    // A torrent that ended meanwhile drops the connection.
    let _ = torrent.send(peer).await;
    Ok(())
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
