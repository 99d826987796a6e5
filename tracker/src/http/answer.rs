//! From a request to the bytes of its answer, in buffers that are used again and again.

use super::request::{Request, Status, Target};
use crate::limits;
use crate::metrics::Metrics;
use crate::service::{Credential, OrdinaryAnnounce, Service, TurnedAway};
use mini_torrent_common::announce::{
    AnnounceRequest, Contact, Counts, QueryError, Reply, scrape_hashes, write_failure, write_scrape,
};
use mini_torrent_common::hash::InfoHash;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

/// Answers the requests of one connection.
pub(super) struct Answerer<'a> {
    service: &'a Service,
    source: IpAddr,
    body: Vec<u8>,
    peers: Vec<SocketAddr>,
    contacts: Vec<Contact>,
}

impl<'a> Answerer<'a> {
    pub(super) fn new(service: &'a Service, source: IpAddr) -> Self {
        Self { service, source, body: Vec::new(), peers: Vec::new(), contacts: Vec::new() }
    }

    /// Appends the answer to `out`; whether the connection goes on.
    pub(super) fn answer(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> bool {
        self.body.clear();
        let metrics = self.service.metrics();
        let status = match &request.target {
            Target::Announce(credential, query) => {
                metrics.http_announces.add();
                if let Err(reason) = self.announce(credential, query) {
                    metrics.turned_away.add();
                    self.write_reason(&reason);
                }
                Status::Ok
            }
            Target::Scrape(credential, query) => {
                metrics.http_scrapes.add();
                if let Err(reason) = self.scrape(credential, query) {
                    metrics.turned_away.add();
                    self.write_reason(&reason);
                }
                Status::Ok
            }
            // To all others it is not there.
            Target::Metrics if self.source.is_loopback() => {
                metrics.http_others.add();
                self.body.extend_from_slice(Metrics::text(self.service).as_bytes());
                Status::Ok
            }
            Target::Health | Target::Metrics | Target::Unknown => {
                metrics.http_others.add();
                Status::NotFound
            }
        };
        self.write(request, status, out)
    }

    /// Appends the answer to who asks whether the tracker is well; whether the connection goes on.
    pub(super) fn health(&mut self, request: &Request<'_>, is_well: bool, out: &mut Vec<u8>) -> bool {
        self.service.metrics().http_others.add();
        self.body.clear();
        self.body.extend_from_slice(if is_well { b"ok\n" } else { b"the store does not answer\n" });
        self.write(request, if is_well { Status::Ok } else { Status::Unavailable }, out)
    }

    /// Appends the last answer to a client with which nobody can go on.
    pub(super) fn refuse(&mut self, status: Status, out: &mut Vec<u8>) {
        self.service.metrics().http_others.add();
        self.body.clear();
        write_head(out, status, 0, "Connection: close\r\n");
    }

    fn announce(&mut self, credential: &Credential, query: &[u8]) -> Result<(), Reason> {
        let request = AnnounceRequest::from_query(query)?;
        let asked = OrdinaryAnnounce {
            info_hash: request.info_hash,
            address: SocketAddr::new(self.source, request.port),
            left: request.left,
            event: request.event,
            numwant: request.numwant,
            own_family_only: false,
        };
        let counts = self.service.announce_ordinary(credential, &asked, &mut self.peers)?;
        self.contacts.clear();
        self.contacts.extend(self.peers.iter().map(|address| Contact { address: *address, peer_id: None }));
        let reply = Reply {
            interval_s: seconds(limits::ANNOUNCE_INTERVAL),
            min_interval_s: Some(seconds(limits::MIN_ANNOUNCE_INTERVAL)),
            counts,
            warning: None,
            peers: &self.contacts,
        };
        match request.compact {
            Some(false) => reply.write_dictionaries(&mut self.body),
            _ => reply.write_compact(&mut self.body),
        }
        Ok(())
    }

    /// Of several torrents those are answered that the credential opens; of none, that is said.
    fn scrape(&mut self, credential: &Credential, query: &[u8]) -> Result<(), Reason> {
        let mut hashes = scrape_hashes(query)?;
        hashes.sort_unstable();
        hashes.dedup();
        let mut refusal = TurnedAway::NotAdmitted;
        let counts =
            |hash| Some((hash, self.service.scrape_ordinary(credential, hash).map_err(|why| refusal = why).ok()?));
        let files: Vec<(InfoHash, Counts)> = hashes.into_iter().filter_map(counts).collect();
        if files.is_empty() {
            return Err(refusal.into());
        }
        write_scrape(&mut self.body, &files);
        Ok(())
    }

    fn write_reason(&mut self, reason: &Reason) {
        self.body.clear();
        match reason {
            Reason::Query(error) => write_failure(&mut self.body, &error.to_string()),
            Reason::TurnedAway(turned_away) => write_failure(&mut self.body, &turned_away.to_string()),
        }
    }

    /// Who asks for something that is not there has nothing more to ask.
    fn write(&mut self, request: &Request<'_>, status: Status, out: &mut Vec<u8>) -> bool {
        let keep_alive = request.keep_alive && status != Status::NotFound;
        let connection = match (keep_alive, request.is_old) {
            (false, _) => "Connection: close\r\n",
            (true, true) => "Connection: keep-alive\r\n",
            (true, false) => "",
        };
        write_head(out, status, self.body.len(), connection);
        if !request.head_only {
            out.extend_from_slice(&self.body);
        }
        // Who once asked for much does not keep the room for it.
        self.body.shrink_to(limits::HTTP_KEPT_LENGTH);
        self.peers.shrink_to(limits::HTTP_KEPT_PEERS);
        self.contacts.shrink_to(limits::HTTP_KEPT_PEERS);
        keep_alive
    }
}

fn write_head(out: &mut Vec<u8>, status: Status, length: usize, connection: &str) {
    let allow = if status == Status::MethodNotAllowed { "Allow: GET, HEAD\r\n" } else { "" };
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n{allow}{connection}\r\n",
        status.line()
    );
}

fn seconds(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// Why an announce or a scrape comes to nothing.
enum Reason {
    Query(QueryError),
    TurnedAway(TurnedAway),
}

impl From<QueryError> for Reason {
    fn from(error: QueryError) -> Self {
        Self::Query(error)
    }
}

impl From<TurnedAway> for Reason {
    fn from(turned_away: TurnedAway) -> Self {
        Self::TurnedAway(turned_away)
    }
}
