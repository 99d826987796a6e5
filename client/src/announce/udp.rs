//! One announce to a tracker over UDP (BEP 15), with the URL's path and query behind it (BEP 41).

use mini_torrent_common::udp_announce::{AnnounceRequest, Family, MAX_PACKET_LENGTH, Request, Response};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// The wait for the first answer; doubles with each packet. BEP 15 begins with 15 s, which keeps a person waiting.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(3);
/// How often one packet is sent.
const MAX_SENDS: u32 = 4;
/// Longest packet that is read: what IPv6 carries without jumbograms.
const MAX_RECEIVED_LENGTH: usize = 64 * 1024;

/// Why a tracker gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum UdpError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it does not answer")]
    TimedOut,
    #[error("its URL is too long")]
    TooLong,
    /// The tracker's own words.
    #[error("{0}")]
    Refused(String),
}

/// What a tracker answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) interval_s: u32,
    pub(super) peers: Vec<SocketAddr>,
}

/// Announces; ids are filled in here.
pub(super) async fn announce(
    remote: SocketAddr,
    own_ip: IpAddr,
    request: AnnounceRequest<'_>,
    url_data: &[u8],
    first_wait: Duration,
) -> Result<Announced, UdpError> {
    let tracker = Tracker::connect(remote, own_ip, first_wait).await?;
    let transaction_id = rand::random();
    let mut packet = Vec::new();
    Request::Connect { transaction_id }.encode(&mut packet);
    let connection_id = tracker
        .ask(&packet, transaction_id, |response| match response {
            Response::Connect { connection_id, .. } => Some(*connection_id),
            _ => None,
        })
        .await?;
    let transaction_id = rand::random();
    packet.clear();
    AnnounceRequest { connection_id, transaction_id, ..request }.encode_with_url_data(url_data, &mut packet);
    if packet.len() > MAX_PACKET_LENGTH {
        return Err(UdpError::TooLong);
    }
    tracker
        .ask(&packet, transaction_id, |response| match response {
            Response::Announce { interval_s, peers, .. } => {
                Some(Announced { interval_s: *interval_s, peers: peers.addresses().collect() })
            }
            _ => None,
        })
        .await
}

/// A socket that hears one tracker alone.
struct Tracker {
    socket: UdpSocket,
    family: Family,
    first_wait: Duration,
}

impl Tracker {
    async fn connect(remote: SocketAddr, own_ip: IpAddr, first_wait: Duration) -> io::Result<Self> {
        let (any, family) = match remote.is_ipv4() {
            true => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), Family::V4),
            false => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), Family::V6),
        };
        let from = if own_ip.is_ipv4() == remote.is_ipv4() { own_ip } else { any };
        let socket = UdpSocket::bind(SocketAddr::new(from, 0)).await?;
        socket.connect(remote).await?;
        Ok(Self { socket, family, first_wait })
    }

    /// Sends a packet until its answer comes. Packets that answer something else are passed over.
    async fn ask<T>(
        &self,
        packet: &[u8],
        transaction_id: u32,
        read: impl Fn(&Response<'_>) -> Option<T>,
    ) -> Result<T, UdpError> {
        let mut buffer = vec![0; MAX_RECEIVED_LENGTH];
        let mut wait = self.first_wait;
        for _ in 0..MAX_SENDS {
            self.socket.send(packet).await?;
            let until = Instant::now() + wait;
            while let Ok(received) = timeout_at(until, self.socket.recv(&mut buffer)).await {
                let Ok(response) = Response::decode(&buffer[..received?], self.family) else { continue };
                if response.transaction_id() != transaction_id {
                    continue;
                }
                if let Response::Error { reason, .. } = response {
                    return Err(UdpError::Refused(String::from_utf8_lossy(reason).into_owned()));
                }
                if let Some(answer) = read(&response) {
                    return Ok(answer);
                }
            }
            wait *= 2;
        }
        Err(UdpError::TimedOut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mini_torrent_common::announce::Counts;
    use mini_torrent_common::hash::{InfoHash, PeerId};
    use mini_torrent_common::udp_announce::{MAX_URL_DATA_LENGTH, encode_announce, encode_connect, encode_error};

    const WAIT: Duration = Duration::from_millis(30);
    const CONNECTION_ID: u64 = 77;

    fn request() -> AnnounceRequest<'static> {
        AnnounceRequest {
            info_hash: InfoHash([1; 20]),
            peer_id: PeerId([2; 20]),
            port: 5,
            left: 9,
            ..Default::default()
        }
    }

    /// A tracker that loses the first packets of each kind and sends junk before each answer.
    async fn run(socket: UdpSocket, n_lost: usize, refuse: bool) {
        let (mut n_connects, mut n_announces) = (0, 0);
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let mut out = [0; 2048];
            let answer = match Request::decode(&buffer[..length]).unwrap() {
                Request::Connect { transaction_id } => {
                    n_connects += 1;
                    (n_connects > n_lost).then(|| encode_connect(&mut out, transaction_id, CONNECTION_ID).unwrap())
                }
                Request::Announce(announce) => {
                    n_announces += 1;
                    assert_eq!((announce.connection_id, announce.left, announce.port), (CONNECTION_ID, 9, 5));
                    let mut scratch = [0; MAX_URL_DATA_LENGTH];
                    assert_eq!(announce.options.url_data(&mut scratch), Ok(&b"/key/announce"[..]));
                    let id = announce.transaction_id;
                    let peers = ["10.0.0.1:6".parse().unwrap()];
                    (n_announces > n_lost).then(|| match refuse {
                        true => encode_error(&mut out, id, "unknown key").unwrap(),
                        false => encode_announce(&mut out, Family::V4, id, 60, Counts::default(), peers).unwrap(),
                    })
                }
                Request::Scrape { .. } => None,
            };
            if let Some(length) = answer {
                socket.send_to(b"junk", from).await.unwrap();
                let mut other = out;
                other[4] ^= 1;
                socket.send_to(&other[..length], from).await.unwrap();
                socket.send_to(&out[..length], from).await.unwrap();
            }
        }
    }

    async fn announced(n_lost: usize, refuse: bool) -> Result<Announced, UdpError> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let remote = socket.local_addr().unwrap();
        let tracker = tokio::spawn(run(socket, n_lost, refuse));
        let answer = announce(remote, [127, 0, 0, 1].into(), request(), b"/key/announce", WAIT).await;
        tracker.abort();
        assert!(tracker.await.unwrap_err().is_cancelled(), "the tracker got what it should");
        answer
    }

    #[tokio::test]
    async fn lost_packets_are_sent_again_and_foreign_ones_passed_over() {
        for n_lost in [0, 2] {
            let peers = vec!["10.0.0.1:6".parse().unwrap()];
            assert_eq!(announced(n_lost, false).await.unwrap(), Announced { interval_s: 60, peers });
        }
    }

    #[tokio::test]
    async fn a_silent_tracker_is_given_up_and_a_refusal_has_its_reason() {
        assert!(matches!(announced(99, false).await, Err(UdpError::TimedOut)));
        assert_eq!(announced(0, true).await.unwrap_err().to_string(), "unknown key");
    }
}
