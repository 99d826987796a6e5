//! The task that keeps the link up: finds a tracker, uses it, and goes on to the next one.

use mini_torrent_common::control::Event;
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
use super::lookout::{Other, Reason};
use super::resumption::{Session, TakenUp, take_up};
use super::search::{Found, first_that_answers, none_answers, note_failed, order};
use super::{BACKOFF, LOSS_SPREAD, LinkEvent, LinkPlan, REQUEST_PATIENCE, RESUME_PATIENCE, SETTLED_AFTER};
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
    /// The places of trackers that failed us and were not used since, the latest last.
    pub(super) failed: Vec<usize>,
    /// Why no tracker can be used.
    refusal: CommandError,
    n_connections: u64,
}

/// When to look for a tracker.
#[derive(Debug, Clone, Copy, Default)]
struct Resolve {
    /// How long to wait before.
    delay: Duration,
    /// The latest wait between two rounds through the list.
    backoff: Duration,
}

impl Resolve {
    /// A random part of a growing wait, so that a thousand clients do not come back in one instant.
    fn retry(self) -> Self {
        let backoff = (self.backoff * 2).clamp(BACKOFF.0, BACKOFF.1);
        Self { delay: backoff.mul_f64(rand::random_range(0.5..1.0)), backoff }
    }

    /// After a connection that was lost. A tracker that lets go at once is not asked again at once.
    fn after_loss(self, settled: bool) -> Self {
        if !settled {
            return self.retry();
        }
        Self { delay: LOSS_SPREAD.mul_f64(rand::random_range(0.0..1.0)), backoff: Duration::ZERO }
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
            failed: Vec::new(),
            refusal: none_answers(),
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
                Ok(taken_up) => self.use_while_possible(taken_up, resolve).await,
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
    async fn use_while_possible(&mut self, mut taken_up: TakenUp, resolve: Resolve) -> Resolve {
        loop {
            let since = Instant::now();
            let index = taken_up.found.index;
            let (number, found) = self.connected(taken_up).await;
            let (ended, last_word) = self.serve(number, found).await;
            self.waiting.take_back(self.open.drain().collect(), last_word);
            self.waiting.drop_bound();
            let settled = since.elapsed() > SETTLED_AFTER;
            let (next, silent, has_failed) = match ended {
                Ended::Moved(other) => {
                    let Other { taken_up, reason } = *other;
                    (Some(taken_up), reason == Reason::Silent, reason != Reason::Earlier)
                }
                Ended::Silent => (None, true, true),
                Ended::Lost => (None, false, !settled),
            };
            if has_failed {
                note_failed(&mut self.failed, index);
            }
            if silent || next.is_none() {
                let tracker = self.name_of(index);
                tracing::info!(%tracker, silent, "the tracker is lost");
                self.tell(LinkEvent::Lost { tracker }).await;
            }
            match next {
                Some(next) => taken_up = next,
                None => return resolve.after_loss(settled),
            }
        }
    }

    /// Waits, then tries the trackers in order and takes the session up with the first that answers.
    async fn find_tracker(&mut self, resolve: Resolve) -> Result<TakenUp, CommandError> {
        let (plan, pin) = (self.plan.clone(), self.pin);
        let order = order(plan.trackers.len(), &self.failed);
        let searching = async move {
            sleep(resolve.delay).await;
            first_that_answers(plan, pin, order).await
        };
        let found = self.meanwhile(searching).await.inspect_err(|error| {
            // Of several reasons one that a tracker gave says more.
            self.refusal = if error.code == ErrorCode::TrackerUnreachable { none_answers() } else { error.clone() };
            self.failed.clear();
        })?;
        let index = found.index;
        // Who logs out while this goes on does so there: it takes less time than that request waits.
        const { assert!(RESUME_PATIENCE.as_millis() < REQUEST_PATIENCE.as_millis()) };
        let taking_up = take_up(found, self.token.clone(), RESUME_PATIENCE);
        self.meanwhile(taking_up).await.inspect_err(|error| {
            tracing::info!(tracker = %self.name_of(index), %error, "the session cannot be taken up");
            note_failed(&mut self.failed, index);
            if error.code != ErrorCode::TrackerUnreachable {
                self.refusal = error.clone();
            }
        })
    }

    /// Waits for `what`; meanwhile requests queue up and are refused in time.
    async fn meanwhile<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = std::pin::pin!(what);
        loop {
            let expiry = self.waiting.next_expiry();
            tokio::select! {
                done = &mut what => return done,
                Some(request) = self.requests.recv() => {
                    self.note(Nature::of(&request.body));
                    match request.belongs_to(None) {
                        true => self.waiting.push(request),
                        false => request.connection_gone(),
                    }
                }
                () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => {
                    self.waiting.refuse_until(Instant::now(), &self.refusal);
                }
            }
        }
    }

    /// Tells of a new connection and of the session, and numbers it.
    async fn connected(&mut self, taken_up: TakenUp) -> (ConnectionNumber, Found) {
        let TakenUp { found, session, events } = taken_up;
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
        self.failed.retain(|failed| *failed != found.index);
        self.refusal = none_answers();
        self.tell(event).await;
        for event in events {
            self.event(event).await;
        }
        match session {
            Session::None => {}
            Session::GoesOn(token) => {
                // Who has logged out meanwhile is about to say so there.
                self.token = self.token.take().map(|_| token);
                self.tell(LinkEvent::Resumed).await;
            }
            Session::Over(reason) => self.event(Event::SessionEnded { reason }).await,
        }
        self.n_connections += 1;
        (ConnectionNumber(self.n_connections), found)
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
