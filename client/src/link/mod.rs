//! The link to the trackers: one control connection, kept up. Requests go in, answers and events come out.
//!
//! `search` finds a tracker that answers, `resumption` takes the session up there, `conversation` uses it, `keeper` does the
//! one after the other for ever; `lookout` looks for a better tracker meanwhile. The session's token lives here, in memory
//! only. A tracker with which the session cannot be taken up is one that failed: it is not told of as connected, and the
//! others are tried before it. What was asked and not answered when a connection goes is asked again on the next one, as far as
//! that is safe (`asked`).

mod asked;
mod connection;
mod conversation;
mod keeper;
mod lookout;
mod resumption;
mod search;

pub(crate) use asked::{ConnectionNumber, NoAnswer};

use asked::{LinkRequest, Nature};
use mini_torrent_common::control::{Event, Request, Response};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::OperationId;
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
/// How long it may take to resume the session while no other tracker is in use. Behind the wait after a loss it leaves time
/// for the next one.
const RESUME_PATIENCE: Duration = Duration::from_millis(2500);
/// How long it may take while another one is in use; a tracker waits for its database for five seconds.
const MOVE_PATIENCE: Duration = Duration::from_secs(8);
/// About how long a tracker that cannot do its work is used before another one is looked for once more.
const MOVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long a tracker may be silent at first before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(400);
/// First and longest wait before trying all trackers again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// A connection that lived for so long was a good one: when it is lost, the trackers are tried soon.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Within what time that is: the clients of a tracker that died come to the next one at random moments.
const LOSS_SPREAD: Duration = Duration::from_secs(1);
/// About how often an earlier tracker is looked at while a later one is in use.
pub(crate) const RETURN_INTERVAL: Duration = Duration::from_secs(60);
/// At how many looks in a row an earlier tracker must have answered before it is returned to.
const LOOKS_BEFORE_RETURN: u32 = 2;
/// How long a connection to an earlier tracker waits until no answer is expected from the one in use.
const STANDBY_LIFE: Duration = Duration::from_secs(10);
/// Keeps the lease of the presence alive, and finds out within seconds when a tracker hangs: meanwhile no news of
/// ended memberships comes.
const PING_INTERVAL: Duration = Duration::from_secs(4);
/// An open request without any word from the tracker for so long makes us ask whether it is there.
const PROBE_AFTER: Duration = Duration::from_secs(1);
/// How long it may take to answer that before the others are tried beside it.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);
/// How long it may take to answer that at all.
const PROBE_TIMEOUT: Duration = Duration::from_millis(3300);
/// How often one request is sent; who asks for something that brings down each tracker hears of it in the end.
const MAX_TIMES_SENT: u32 = 4;
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
    /// About how often an earlier tracker is looked at: [`RETURN_INTERVAL`].
    pub(crate) return_interval: Duration,
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

    /// Asks, and waits for the answer. When it is lost with the connection, the next tracker is asked again, if that is safe.
    ///
    /// # Errors
    /// What the tracker refused, or `tracker_unreachable` within five seconds when none answers.
    pub(crate) async fn request(&self, body: Request) -> Result<Response, CommandError> {
        let once = (Nature::of(&body) == Nature::Writing).then(Self::new_operation);
        match self.request_once(body, once, None).await {
            Ok((response, _)) => Ok(response),
            Err(NoAnswer::Refused(error)) => Err(error),
            Err(NoAnswer::ConnectionGone) => Err(Self::connections_lost()),
        }
    }

    /// As [`Self::request`], under a name of the caller's, or on one connection alone; says which connection answered.
    ///
    /// # Errors
    /// As [`Self::request`]; [`NoAnswer::ConnectionGone`] when the connection is not there any more.
    pub(crate) async fn request_once(
        &self,
        body: Request,
        once: Option<OperationId>,
        only_on: Option<ConnectionNumber>,
    ) -> Result<(Response, ConnectionNumber), NoAnswer> {
        let shutting_down = || NoAnswer::Refused(CommandError::shutting_down());
        let (answer, answered) = oneshot::channel();
        let request = LinkRequest::new(body, once, only_on, answer);
        self.requests.send(request).await.map_err(|_| shutting_down())?;
        answered.await.map_err(|_| shutting_down())?
    }

    /// A name for something that is to be done once.
    pub(crate) fn new_operation() -> OperationId {
        OperationId(rand::random())
    }

    /// What to tell when each connection was lost before its answer.
    pub(crate) fn connections_lost() -> CommandError {
        CommandError::new(ErrorCode::TrackerUnreachable, "the connection to the tracker was lost again and again")
    }
}

#[cfg(test)]
mod tests;
