//! The task that keeps the link up: finds a tracker, uses it, and goes on to the next one.

use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::secret::SessionToken;
use mini_torrent_common::tls::Fingerprint;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::asked::{ConnectionNumber, LinkRequest, Nature, Open, Waiting};
use super::conversation::Ended;
use super::search::{Found, first_that_answers, order};
use super::{BACKOFF, LOSS_SPREAD, LinkEvent, LinkPlan, REQUEST_PATIENCE, SETTLED_AFTER};
use crate::error::CommandError;

/// The task's state between connections.
pub(super) struct Keeper {
    pub(super) plan: LinkPlan,
    pub(super) requests: mpsc::Receiver<LinkRequest>,
    events: mpsc::Sender<LinkEvent>,
    pub(super) token: Option<SessionToken>,
    pub(super) pin: Option<Fingerprint>,
    pub(super) waiting: Waiting,
    /// Sent on the present connection and not answered.
    pub(super) open: HashMap<u32, Open>,
    n_connections: u64,
}

/// Where to look for a tracker, and when.
#[derive(Debug, Clone, Copy, Default)]
struct Resolve {
    /// How long to wait before.
    delay: Duration,
    /// The latest wait between two rounds through the list.
    backoff: Duration,
    /// The place of a tracker that has just failed us.
    shunned: Option<usize>,
}

impl Resolve {
    /// A random part of a growing wait, so that a thousand clients do not come back in one instant.
    fn retry(self) -> Self {
        let backoff = (self.backoff * 2).clamp(BACKOFF.0, BACKOFF.1);
        Self { delay: backoff.mul_f64(rand::random_range(0.5..1.0)), backoff, shunned: None }
    }

    /// After a connection to the tracker at `index` that ended.
    fn after(self, index: usize, settled: bool, silent: bool) -> Self {
        if settled {
            let delay = LOSS_SPREAD.mul_f64(rand::random_range(0.0..1.0));
            return Self { delay, backoff: Duration::ZERO, shunned: silent.then_some(index) };
        }
        // One that lets go at once is not asked again at once, nor before the others.
        Self { shunned: Some(index), ..self.retry() }
    }
}

impl Keeper {
    pub(super) fn new(plan: LinkPlan, requests: mpsc::Receiver<LinkRequest>, events: mpsc::Sender<LinkEvent>) -> Self {
        Self {
            pin: plan.pin,
            plan,
            requests,
            events,
            token: None,
            waiting: Waiting::default(),
            open: HashMap::new(),
            n_connections: 0,
        }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let stopped = shutdown.clone();
        stopped.run_until_cancelled(self.keep_up()).await;
    }

    async fn keep_up(&mut self) {
        let mut resolve = Resolve::default();
        loop {
            resolve = match self.find_tracker(resolve).await {
                Ok(found) => self.use_while_possible(found, resolve).await,
                Err(error) => {
                    tracing::debug!(%error, "no tracker");
                    if error.code == ErrorCode::TrackerKeyChanged || error.code == ErrorCode::IncompatibleVersion {
                        self.waiting.refuse_until(Instant::now() + REQUEST_PATIENCE, &error);
                    }
                    resolve.retry()
                }
            };
        }
    }

    /// Uses a tracker, and those that it is left for, until a connection is lost.
    async fn use_while_possible(&mut self, mut found: Found, resolve: Resolve) -> Resolve {
        loop {
            let since = Instant::now();
            let index = found.index;
            let number = self.connected(&found).await;
            let (ended, last_word) = self.serve(number, found).await;
            self.waiting.take_back(self.open.drain().collect(), last_word);
            self.waiting.drop_bound();
            let (next, silent) = match ended {
                Ended::Returned(next) => {
                    found = next;
                    continue;
                }
                Ended::Replaced(next) => (Some(next), true),
                Ended::Silent => (None, true),
                Ended::Lost => (None, false),
            };
            let tracker = self.name_of(index);
            tracing::info!(%tracker, silent, "the tracker is lost");
            self.tell(LinkEvent::Lost { tracker }).await;
            match next {
                Some(next) => found = next,
                None => return resolve.after(index, since.elapsed() > SETTLED_AFTER, silent),
            }
        }
    }

    /// Waits, then tries the trackers in order; meanwhile requests queue up and are refused in time.
    async fn find_tracker(&mut self, resolve: Resolve) -> Result<Found, CommandError> {
        let (plan, pin) = (self.plan.clone(), self.pin);
        let order = order(plan.trackers.len(), resolve.shunned);
        let mut attempt = std::pin::pin!(async move {
            sleep(resolve.delay).await;
            first_that_answers(plan, pin, order).await
        });
        let unreachable = CommandError::new(ErrorCode::TrackerUnreachable, "no tracker answers");
        loop {
            let expiry = self.waiting.next_expiry();
            tokio::select! {
                found = &mut attempt => return found,
                Some(request) = self.requests.recv() => {
                    self.note(Nature::of(&request.body));
                    match request.belongs_to(None) {
                        true => self.waiting.push(request),
                        false => request.connection_gone(),
                    }
                }
                () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => {
                    self.waiting.refuse_until(Instant::now(), &unreachable);
                }
            }
        }
    }

    /// Tells of a new connection, and numbers it.
    async fn connected(&mut self, found: &Found) -> ConnectionNumber {
        let (tracker, connection) = (self.name_of(found.index), &found.connection);
        tracing::info!(%tracker, key = %connection.deployment.fingerprint(), "connected");
        let event = LinkEvent::Connected {
            tracker,
            remote: connection.remote,
            deployment: connection.deployment,
            time_ms: connection.time_ms,
            heard: connection.heard,
            up: connection.up,
            first_use: self.pin.is_none(),
        };
        self.pin = Some(connection.deployment.fingerprint());
        self.tell(event).await;
        self.n_connections += 1;
        ConnectionNumber(self.n_connections)
    }

    fn name_of(&self, index: usize) -> String {
        self.plan.trackers.get(index).map(ToString::to_string).unwrap_or_default()
    }

    pub(super) async fn tell(&self, event: LinkEvent) {
        // Without a node the client is shutting down.
        let _ = self.events.send(event).await;
    }

    /// Who logs out does not come back, whether or not the tracker hears of it.
    pub(super) fn note(&mut self, nature: Nature) {
        if nature == Nature::SignOut {
            self.token = None;
        }
    }
}
