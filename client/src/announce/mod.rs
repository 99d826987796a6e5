//! Announcing a foreign torrent to the trackers that its metainfo names, one tier after the other (BEP 3, 12, 15).
//!
//! What a tracker answers is a stranger's word: its name is resolved once, no redirect is followed, and peers of a
//! narrower scope than its own are passed over (design §3). No credential of ours is ever sent here.

mod http;
mod udp;
mod url;

use mini_torrent_common::address::{Scope, may_dial, may_dial_named_by, scope_of};
use mini_torrent_common::announce::{self, Answer, Event};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::{InfoHash, PeerId};
use mini_torrent_common::udp_announce;
use rand::seq::SliceRandom;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::url::{Scheme, TrackerUrl, UrlError};
use crate::error::CommandError;
use crate::torrent::{Control, TorrentStatus};

/// Bounds of the time between announces, whatever the tracker asks for.
const INTERVAL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(2 * 3600));
/// First and longest wait before all trackers are tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));
/// How long the trackers have to hear that we leave.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);
/// How long the torrent has to say what it has, before the first announce.
const STATUS_PATIENCE: Duration = Duration::from_millis(500);
/// How long a name may take to be resolved.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(10);
/// Addresses of one tracker that are tried.
const MAX_ADDRESSES: usize = 4;
/// Peers that are asked for.
const NUMWANT: u16 = 80;
/// What is said to be missing while the file's length is not known: not nothing.
const UNKNOWN_LEFT: u64 = 16 * 1024;

/// Refuses trackers of which none can be asked.
///
/// # Errors
/// `io` when they are asked by https alone, else `invalid_metainfo`.
pub(crate) fn check_urls(tiers: &[Vec<String>]) -> Result<(), CommandError> {
    let mut refused = CommandError::new(ErrorCode::InvalidMetainfo, "it names no tracker");
    for url in tiers.iter().flatten() {
        match TrackerUrl::parse(url) {
            Ok(_) => return Ok(()),
            Err(UrlError::Https) => refused = CommandError::new(ErrorCode::Io, UrlError::Https.to_string()),
            Err(error) => refused.message = error.to_string(),
        }
    }
    Err(refused)
}

/// What is announced.
pub(crate) struct AnnouncePlan {
    pub(crate) info_hash: InfoHash,
    pub(crate) peer_id: PeerId,
    /// Where we accept peers.
    pub(crate) port: u16,
    /// The address that trackers are asked from, if it is a particular one.
    pub(crate) own_ip: IpAddr,
    pub(crate) tiers: Vec<Vec<String>>,
    /// Length of the file in bytes, if it is known.
    pub(crate) size: Option<u64>,
    /// Where the torrent stands.
    pub(crate) status: watch::Receiver<TorrentStatus>,
    /// Who wants to hear of peers.
    pub(crate) found: mpsc::Sender<Control>,
    /// What has to end first: its goodbye must not come after our first word.
    pub(crate) before: Vec<JoinHandle<()>>,
}

/// A torrent that is being announced.
pub(crate) struct Announcing {
    trouble: watch::Receiver<Option<String>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Announcing {
    /// Announces until it is stopped.
    pub(crate) fn start(plan: AnnouncePlan) -> Self {
        let (trouble_sender, trouble) = watch::channel(None);
        let stop = CancellationToken::new();
        let tiers = Tiers::new(&plan.tiers);
        let task = tokio::spawn(Announcer { plan, tiers, trouble: trouble_sender }.run(stop.clone()));
        Self { trouble, stop, task }
    }

    /// Why no tracker could be had at the last try.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// Tells the tracker that we leave; what comes back ends soon.
    pub(crate) fn stop(self) -> JoinHandle<()> {
        self.stop.cancel();
        self.task
    }
}

/// A tracker, and where it is once its name was resolved.
#[derive(Clone)]
struct Tracker {
    url: TrackerUrl,
    addresses: Option<Vec<SocketAddr>>,
}

/// The trackers in the order in which they are tried (BEP 12): tier after tier, at random within each, but first the
/// one that answered last.
struct Tiers {
    tiers: Vec<Vec<Tracker>>,
    /// Why some tracker cannot be asked at all.
    refused: Option<String>,
}

impl Tiers {
    fn new(urls: &[Vec<String>]) -> Self {
        let (mut tiers, mut refused) = (Vec::new(), None);
        for tier in urls {
            let mut trackers = Vec::new();
            for url in tier {
                match TrackerUrl::parse(url) {
                    Ok(url) => trackers.push(Tracker { url, addresses: None }),
                    Err(error) => refused = Some(error.to_string()),
                }
            }
            trackers.shuffle(&mut rand::rng());
            tiers.push(trackers);
        }
        Self { tiers, refused }
    }

    fn places(&self) -> Vec<(usize, usize)> {
        let places = self.tiers.iter().enumerate();
        places.flat_map(|(tier, trackers)| (0..trackers.len()).map(move |index| (tier, index))).collect()
    }

    fn answered(&mut self, tier: usize, index: usize) {
        if let Some(trackers) = self.tiers.get_mut(tier) {
            let found = trackers.remove(index);
            trackers.insert(0, found);
        }
    }
}

/// What a tracker answered, with the peers that may be dialled.
struct Found {
    interval: Duration,
    peers: Vec<SocketAddr>,
}

struct Announcer {
    plan: AnnouncePlan,
    tiers: Tiers,
    trouble: watch::Sender<Option<String>>,
}

impl Announcer {
    async fn run(mut self, stop: CancellationToken) {
        for task in std::mem::take(&mut self.plan.before) {
            // One that panicked has ended, too.
            let _ = stop.run_until_cancelled(task).await;
        }
        let mut event = Event::Started;
        let (mut is_known, mut retry) = (false, RETRY.0);
        if self.plan.size.is_some() {
            // What is on disk already is not missing.
            let _ = timeout(STATUS_PATIENCE, self.plan.status.changed()).await;
        }
        // Who had everything from the start completes nothing.
        let mut is_complete = self.left() == 0;
        loop {
            let asked = stop.run_until_cancelled(self.announce(event)).await;
            let wait = match asked {
                None => break,
                Some(Some(found)) => {
                    (is_known, retry, event) = (true, RETRY.0, Event::Periodic);
                    if !found.peers.is_empty() {
                        // A torrent that is too busy to hear of peers has enough of them.
                        let _ = self.plan.found.try_send(Control::AddressesCame(found.peers));
                    }
                    found.interval
                }
                Some(None) => {
                    let wait = retry;
                    retry = (retry * 2).min(RETRY.1);
                    wait
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(wait) => {}
                () = completion(&mut self.plan), if !is_complete => {
                    is_complete = true;
                    if is_known {
                        event = Event::Completed;
                    }
                }
            }
        }
        if is_known {
            let _ = timeout(GOODBYE_PATIENCE, self.announce(Event::Stopped)).await;
        }
    }

    fn left(&self) -> u64 {
        let done_bytes = self.plan.status.borrow().done_bytes;
        self.plan.size.map_or(UNKNOWN_LEFT, |size| size.saturating_sub(done_bytes))
    }

    /// Asks one tracker after the other until one answers.
    async fn announce(&mut self, event: Event) -> Option<Found> {
        let mut trouble = self.tiers.refused.clone();
        for (tier, index) in self.tiers.places() {
            let Some(tracker) = self.tiers.tiers.get(tier).and_then(|trackers| trackers.get(index)).cloned() else {
                continue;
            };
            let (tracker, answer) = self.ask(tracker, event).await;
            let endpoint = tracker.url.endpoint.to_string();
            if let Some(place) = self.tiers.tiers.get_mut(tier).and_then(|trackers| trackers.get_mut(index)) {
                *place = tracker;
            }
            match answer {
                Ok(found) => {
                    tracing::debug!(tracker = %endpoint, n_peers = found.peers.len(), ?event, "announced");
                    self.tiers.answered(tier, index);
                    self.trouble.send_replace(None);
                    return Some(found);
                }
                Err(error) => {
                    tracing::info!(tracker = %endpoint, %error, "a tracker does not serve a torrent");
                    trouble = Some(format!("tracker {endpoint}: {error}"));
                }
            }
        }
        self.trouble.send_replace(trouble);
        None
    }

    /// Asks one tracker at each of its addresses in turn.
    async fn ask(&self, mut tracker: Tracker, event: Event) -> (Tracker, Result<Found, String>) {
        let addresses = match tracker.addresses.clone() {
            Some(addresses) => addresses,
            None => match resolve(&tracker.url).await {
                Ok(addresses) => tracker.addresses.insert(addresses).clone(),
                Err(error) => return (tracker, Err(error)),
            },
        };
        let mut last = Err("it has no address".to_owned());
        for address in addresses {
            last = self.ask_at(&tracker.url, address, event).await;
            if last.is_ok() {
                break;
            }
        }
        (tracker, last)
    }

    async fn ask_at(&self, url: &TrackerUrl, address: SocketAddr, event: Event) -> Result<Found, String> {
        if !may_dial(address, true) {
            return Err("its address is no machine's".to_owned());
        }
        if scope_of(address.ip()) < Scope::Global && !url.target.is_empty() && !url.is_announce_path() {
            return Err("it is in this network, and its path is not that of a tracker".to_owned());
        }
        let (interval_s, peers) = match url.scheme {
            Scheme::Http => self.ask_http(url, address, event).await?,
            Scheme::Udp => self.ask_udp(url, address, event).await?,
        };
        let interval = Duration::from_secs(u64::from(interval_s)).clamp(INTERVAL.0, INTERVAL.1);
        let peers = peers.into_iter().filter(|peer| may_dial_named_by(*peer, address.ip())).collect();
        Ok(Found { interval, peers })
    }

    async fn ask_http(
        &self,
        url: &TrackerUrl,
        address: SocketAddr,
        event: Event,
    ) -> Result<(u32, Vec<SocketAddr>), String> {
        let status = self.plan.status.borrow().clone();
        let request = announce::AnnounceRequest {
            info_hash: self.plan.info_hash,
            peer_id: self.plan.peer_id,
            port: self.plan.port,
            uploaded: status.uploaded_bytes,
            downloaded: status.downloaded_bytes,
            left: self.left(),
            event,
            numwant: Some(if event == Event::Stopped { 0 } else { NUMWANT }),
            compact: Some(true),
            no_peer_id: true,
            declared_ip: None,
        };
        let target = url.with_query(&request.to_query());
        let body = http::get(address, self.plan.own_ip, &url.endpoint.to_string(), &target).await;
        let body = body.map_err(|error| error.to_string())?;
        match Answer::decode(&body).map_err(|error| format!("its answer is {error}"))? {
            Answer::Failure(reason) => Err(reason),
            Answer::Peers { interval_s, min_interval_s, warning, peers, .. } => {
                if let Some(warning) = warning {
                    tracing::info!(tracker = %url.endpoint, %warning, "a tracker warns");
                }
                let peers = peers.into_iter().map(|peer| peer.address).collect();
                Ok((interval_s.max(min_interval_s.unwrap_or_default()), peers))
            }
        }
    }

    async fn ask_udp(
        &self,
        url: &TrackerUrl,
        address: SocketAddr,
        event: Event,
    ) -> Result<(u32, Vec<SocketAddr>), String> {
        let status = self.plan.status.borrow().clone();
        let request = udp_announce::AnnounceRequest {
            info_hash: self.plan.info_hash,
            peer_id: self.plan.peer_id,
            downloaded: status.downloaded_bytes,
            left: self.left(),
            uploaded: status.uploaded_bytes,
            event,
            key: rand::random(),
            numwant: Some(if event == Event::Stopped { 0 } else { NUMWANT }),
            port: self.plan.port,
            ..udp_announce::AnnounceRequest::default()
        };
        let url_data = url.target.as_bytes();
        let answer = udp::announce(address, self.plan.own_ip, request, url_data, udp::FIRST_WAIT).await;
        answer.map(|announced| (announced.interval_s, announced.peers)).map_err(|error| error.to_string())
    }
}

/// Waits until nothing is missing any more.
async fn completion(plan: &mut AnnouncePlan) {
    let Some(size) = plan.size else { return std::future::pending().await };
    if plan.status.wait_for(|status| status.done_bytes >= size).await.is_err() {
        // The torrent is gone; whoever ended it ends this.
        std::future::pending().await
    }
}

async fn resolve(url: &TrackerUrl) -> Result<Vec<SocketAddr>, String> {
    let looked_up = tokio::net::lookup_host((url.endpoint.host.as_str(), url.endpoint.port));
    let found =
        timeout(RESOLVE_PATIENCE, looked_up).await.map_err(|_| "its name is not resolved in time".to_owned())?;
    let found: Vec<_> = found.map_err(|error| error.to_string())?.take(MAX_ADDRESSES).collect();
    if found.is_empty() { Err("its name has no address".to_owned()) } else { Ok(found) }
}

#[cfg(test)]
mod tests;
