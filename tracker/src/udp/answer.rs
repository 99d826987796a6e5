//! From a packet to its answer. Nothing is remembered of who sends packets, and nothing is said to who shows no valid
//! connection id, but the answer to a connect, which is as long as the question.

use super::connection_id::ConnectionIds;
use crate::limits;
use crate::service::{Credential, OrdinaryAnnounce, Service, TurnedAway};
use mini_torrent_common::announce::{Counts, Event};
use mini_torrent_common::hash::InfoHash;
use mini_torrent_common::udp_announce::{
    AnnounceRequest, Family, MAX_URL_DATA_LENGTH, Request, RequestError, encode_announce, encode_connect, encode_error,
    encode_scrape,
};
use std::net::SocketAddr;
use std::sync::Arc;

/// Answers packets.
pub(super) struct Answerer {
    service: Arc<Service>,
    ids: ConnectionIds,
    peers: Vec<SocketAddr>,
}

impl Answerer {
    pub(super) fn new(service: Arc<Service>) -> Self {
        Self { service, ids: ConnectionIds::new(), peers: Vec::new() }
    }

    /// Writes the answer to a packet into `out` and returns its length in bytes; `None` for no answer.
    pub(super) fn answer(&mut self, packet: &[u8], source: SocketAddr, out: &mut [u8]) -> Option<usize> {
        let answered = self.answer_one(packet, source, out);
        if answered.is_none() {
            self.service.metrics().udp_dropped.add();
        }
        answered
    }

    fn answer_one(&mut self, packet: &[u8], source: SocketAddr, out: &mut [u8]) -> Option<usize> {
        let now_s = self.service.uptime_s();
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        match Request::decode(packet) {
            Ok(Request::Connect { transaction_id }) => {
                self.service.metrics().udp_connects.add();
                encode_connect(out, transaction_id, self.ids.issue(source.ip(), now_s))
            }
            Ok(Request::Announce(announce)) => {
                self.check(announce.connection_id, source, now_s)?;
                self.service.metrics().udp_announces.add();
                self.announce(&announce, source, out)
            }
            Ok(Request::Scrape { connection_id, transaction_id, hashes }) => {
                self.check(connection_id, source, now_s)?;
                self.service.metrics().udp_scrapes.add();
                self.scrape(transaction_id, hashes, out)
            }
            Err(RequestError::Foreign) => None,
            Err(RequestError::Invalid { connection_id, transaction_id, reason }) => {
                self.check(connection_id, source, now_s)?;
                encode_error(out, transaction_id, reason)
            }
        }
    }

    fn check(&self, connection_id: u64, source: SocketAddr, now_s: u64) -> Option<()> {
        self.ids.is_valid(connection_id, source.ip(), now_s).then_some(())
    }

    fn announce(&mut self, request: &AnnounceRequest<'_>, source: SocketAddr, out: &mut [u8]) -> Option<usize> {
        let transaction_id = request.transaction_id;
        let mut scratch = [0; MAX_URL_DATA_LENGTH];
        let credential = match request.options.url_data(&mut scratch) {
            Ok(url_data) => credential_of(url_data),
            Err(error) => return encode_error(out, transaction_id, &error.to_string()),
        };
        let asked = OrdinaryAnnounce {
            info_hash: request.info_hash,
            address: SocketAddr::new(source.ip(), request.port),
            left: request.left,
            event: request.event,
            numwant: request.numwant,
            own_family_only: true,
        };
        let announced = self.service.announce_ordinary(&credential, &asked, &mut self.peers);
        // Whoever takes no part may stop. Transmission sends no key by UDP and begins with a stop: were that refused, it
        // would repeat it by HTTP and never start.
        let announced = match announced {
            Err(TurnedAway::NotAdmitted) if request.event == Event::Stopped => Ok(Counts::default()),
            announced => announced,
        };
        match announced {
            Ok(counts) => {
                let family = if source.is_ipv4() { Family::V4 } else { Family::V6 };
                let interval_s = u32::try_from(limits::ANNOUNCE_INTERVAL.as_secs()).unwrap_or(u32::MAX);
                encode_announce(out, family, transaction_id, interval_s, counts, self.peers.iter().copied())
            }
            Err(turned_away) => {
                self.service.metrics().turned_away.add();
                encode_error(out, transaction_id, &turned_away.to_string())
            }
        }
    }

    /// A scrape carries no key, so it tells of files that need none. The answer goes by the order of the question, so
    /// the others have zeros in it.
    fn scrape(&self, transaction_id: u32, hashes: &[[u8; InfoHash::LENGTH]], out: &mut [u8]) -> Option<usize> {
        let scrape = |hash: &[u8; InfoHash::LENGTH]| self.service.scrape_ordinary(&Credential::None, InfoHash(*hash));
        let mut refusal = None;
        let counts: Vec<_> = hashes.iter().map(|hash| scrape(hash).map_err(|why| refusal = Some(why)).ok()).collect();
        match refusal.filter(|_| counts.iter().all(Option::is_none)) {
            Some(turned_away) => {
                self.service.metrics().turned_away.add();
                encode_error(out, transaction_id, &turned_away.to_string())
            }
            None => encode_scrape(out, transaction_id, counts.into_iter().map(Option::unwrap_or_default)),
        }
    }
}

/// What the path of an announce URL shows: `/<key>/announce`, also without its end, or nothing.
fn credential_of(url_data: &[u8]) -> Credential {
    let path = url_data.split(|b| *b == b'?').next().unwrap_or_default();
    let path = path.strip_suffix(b"/announce").unwrap_or(path);
    Credential::of_path(path.strip_suffix(b"/").unwrap_or(path)).unwrap_or(Credential::Malformed)
}
