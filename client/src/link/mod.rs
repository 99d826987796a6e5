//! The link to the trackers: one control connection, kept up. Requests go in, answers and events come out.
//!
//! The session's token lives here, in memory only, and resumes the session on the next connection.

mod connection;
mod keeper;

use mini_torrent_common::control::{Event, Request, Response};
use mini_torrent_common::tls::{Fingerprint, Identity, PublicKey};
use mini_torrent_common::tracker_info::TrackerAddress;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::admission::Moment;
use crate::error::CommandError;
use mini_torrent_common::hash::PeerId;

/// How long a request waits for a tracker before it is refused.
const REQUEST_PATIENCE: Duration = Duration::from_millis(4500);
/// How long one tracker may take to answer a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// First and longest wait before trying all trackers again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// A connection that lived for so long was a good one: when it is lost, the trackers are tried at once.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Keeps the lease of the presence alive, and finds out within seconds when a tracker hangs: meanwhile no news of
/// ended memberships comes.
const PING_INTERVAL: Duration = Duration::from_secs(4);
/// An open request without any word from the tracker for so long makes us ask whether it is there.
const PROBE_AFTER: Duration = Duration::from_secs(1);
/// How long it may take to answer that.
const PROBE_TIMEOUT: Duration = Duration::from_millis(3300);
/// Requests that wait to be sent.
const REQUEST_QUEUE: usize = 256;
/// Requests that are sent and not answered.
const MAX_OPEN_REQUESTS: usize = 256;

/// What the link needs.
#[derive(Debug, Clone)]
pub(crate) struct LinkPlan {
    pub(crate) trackers: Vec<TrackerAddress>,
    pub(crate) identity: Identity,
    /// The deployment's key, if it is known; else the first one seen is trusted.
    pub(crate) pin: Option<Fingerprint>,
    pub(crate) peer_id: PeerId,
    pub(crate) listen_port: u16,
    /// The address that the connection is opened from, if it is a particular one.
    pub(crate) own_ip: IpAddr,
}

/// What the link tells.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A tracker answered and proved the deployment's key.
    Connected {
        /// As tracker_info.txt names it.
        tracker: String,
        /// Where it is.
        remote: SocketAddr,
        /// The deployment's key, which it proved.
        deployment: PublicKey,
        /// Its clock, in milliseconds since the Unix epoch, and when we heard of it.
        time_ms: u64,
        heard: Moment,
        /// How long it had been up then.
        up: Duration,
        /// Whether the key was trusted just now, on first use.
        first_use: bool,
    },
    /// The tracker's clock, in milliseconds since the Unix epoch, and when we heard of it.
    Time { time_ms: u64, heard: Moment },
    /// The session goes on, on a new connection.
    Resumed,
    /// The connection is lost.
    Lost {
        /// As tracker_info.txt names it.
        tracker: String,
    },
    /// The session is over.
    SessionEnded {
        /// Why.
        reason: String,
    },
    /// The tracker told something.
    Event(Event),
}

#[derive(Debug)]
struct LinkRequest {
    body: Request,
    answer: oneshot::Sender<Result<Response, CommandError>>,
}

/// Asks the trackers. Clones share the one link.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    requests: mpsc::Sender<LinkRequest>,
}

impl Link {
    /// Starts the link; it connects at once.
    pub(crate) fn start(
        plan: LinkPlan,
        events: mpsc::Sender<LinkEvent>,
        shutdown: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (requests, receiver) = mpsc::channel(REQUEST_QUEUE);
        let task = tokio::spawn(keeper::Keeper::new(plan, receiver, events).run(shutdown));
        (Self { requests }, task)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// What the tracker refused, or `tracker_unreachable` within five seconds when none answers.
    pub(crate) async fn request(&self, body: Request) -> Result<Response, CommandError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(LinkRequest { body, answer }).await.map_err(|_| CommandError::shutting_down())?;
        answered.await.map_err(|_| CommandError::shutting_down())?
    }
}
