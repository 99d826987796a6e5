//! The task that keeps the link up: connects, resumes the session, matches answers to requests.

use futures_util::SinkExt;
use mini_torrent_common::control::{ClientMessage, Event, Refusal, Request, Response, TrackerMessage};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::secret::SessionToken;
use mini_torrent_common::tls::Fingerprint;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{ControlConnection, Frames, connect, next};
use super::{
    BACKOFF, CONNECT_TIMEOUT, LinkEvent, LinkPlan, LinkRequest, MAX_OPEN_REQUESTS, PING_INTERVAL, PROBE_AFTER,
    PROBE_TIMEOUT, REQUEST_PATIENCE, SETTLED_AFTER,
};
use crate::admission::Moment;
use crate::error::CommandError;

/// The number of requests that nobody waits for: probes, and the session's resumption.
const PROBE_ID: u32 = 0;

/// The task's state between connections.
pub(super) struct Keeper {
    plan: LinkPlan,
    requests: mpsc::Receiver<LinkRequest>,
    events: mpsc::Sender<LinkEvent>,
    token: Option<SessionToken>,
    pin: Option<Fingerprint>,
    /// Requests that no tracker has got yet, with the time until which they wait.
    waiting: VecDeque<(Instant, LinkRequest)>,
}

/// What a request does to the session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    SignIn,
    SignOut,
    SignOutEverywhere,
    Other,
}

/// A request that was sent.
struct Open {
    kind: Kind,
    answer: oneshot::Sender<Result<Response, CommandError>>,
}

impl Keeper {
    pub(super) fn new(plan: LinkPlan, requests: mpsc::Receiver<LinkRequest>, events: mpsc::Sender<LinkEvent>) -> Self {
        Self { pin: plan.pin, plan, requests, events, token: None, waiting: VecDeque::new() }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let stopped = shutdown.clone();
        stopped.run_until_cancelled(self.keep_up()).await;
    }

    async fn keep_up(&mut self) {
        let mut backoff = Duration::ZERO;
        loop {
            match self.find_tracker(backoff).await {
                Ok((tracker, connection)) => {
                    let since = Instant::now();
                    self.pin = Some(connection.deployment.fingerprint());
                    self.serve(connection).await;
                    // A tracker that lets go at once is not asked again at once.
                    backoff = if since.elapsed() > SETTLED_AFTER { Duration::ZERO } else { next_backoff(backoff) };
                    tracing::info!(%tracker, "the tracker is lost");
                    self.tell(LinkEvent::Lost { tracker }).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "no tracker");
                    if error.code == ErrorCode::TrackerKeyChanged || error.code == ErrorCode::IncompatibleVersion {
                        self.refuse_waiting(Instant::now() + REQUEST_PATIENCE, &error);
                    }
                    backoff = next_backoff(backoff);
                }
            }
        }
    }

    /// Waits, then tries the trackers in order; meanwhile requests queue up and are refused in time.
    async fn find_tracker(&mut self, backoff: Duration) -> Result<(String, ControlConnection), CommandError> {
        let (plan, pin) = (self.plan.clone(), self.pin);
        let mut attempt = std::pin::pin!(async move {
            // A random part, so that a thousand clients do not come back in one instant.
            sleep(backoff.mul_f64(rand::random_range(0.5..1.0))).await;
            first_that_answers(&plan, pin).await
        });
        let unreachable = CommandError::new(ErrorCode::TrackerUnreachable, "no tracker answers");
        loop {
            let expiry = self.waiting.front().map_or_else(far_future, |(until, _)| *until);
            tokio::select! {
                found = &mut attempt => {
                    let (tracker, connection) = found?;
                    self.tell_connected(&tracker, &connection).await;
                    return Ok((tracker, connection));
                }
                Some(request) = self.requests.recv() => {
                    self.note(kind_of(&request.body));
                    self.waiting.push_back((Instant::now() + REQUEST_PATIENCE, request));
                }
                () = sleep_until(expiry) => self.refuse_waiting(expiry, &unreachable),
            }
        }
    }

    async fn tell_connected(&self, tracker: &str, connection: &ControlConnection) {
        tracing::info!(%tracker, key = %connection.deployment.fingerprint(), "connected");
        let event = LinkEvent::Connected {
            tracker: tracker.to_owned(),
            remote: connection.remote,
            deployment: connection.deployment,
            time_ms: connection.time_ms,
            heard: connection.heard,
            up: connection.up,
            first_use: self.pin.is_none(),
        };
        self.tell(event).await;
    }

    async fn tell(&self, event: LinkEvent) {
        // Without a node the client is shutting down.
        let _ = self.events.send(event).await;
    }

    fn refuse_waiting(&mut self, until: Instant, error: &CommandError) {
        while self.waiting.front().is_some_and(|(deadline, _)| *deadline <= until) {
            if let Some((_, request)) = self.waiting.pop_front() {
                let _ = request.answer.send(Err(error.clone()));
            }
        }
    }

    /// Uses a connection until it is lost. Writing is a future of its own, so that neither direction can hold
    /// up the other.
    async fn serve(&mut self, connection: ControlConnection) {
        let ControlConnection { frames, mut sink, .. } = connection;
        let (outgoing, mut queue) = mpsc::channel::<ClientMessage>(1);
        let writing = async move {
            while let Some(message) = queue.recv().await {
                if sink.send(message).await.is_err() {
                    return;
                }
            }
            let _ = sink.close().await;
        };
        tokio::select! {
            () = writing => {}
            () = self.converse(frames, outgoing) => {}
        }
    }

    async fn converse(&mut self, mut frames: Frames, outgoing: mpsc::Sender<ClientMessage>) {
        let mut open: HashMap<u32, Open> = HashMap::new();
        if self.resume(&mut frames, &outgoing).await.is_err() {
            return;
        }
        let mut next_id = 1u32;
        let mut last_word = Instant::now();
        let mut probe: Option<Instant> = None;
        loop {
            let silence = if open.is_empty() { PING_INTERVAL } else { PROBE_AFTER };
            let check_at = probe.map_or(last_word + silence, |sent| sent + PROBE_TIMEOUT);
            let may_send = open.len() < MAX_OPEN_REQUESTS;
            tokio::select! {
                received = next(&mut frames) => {
                    let Ok(message) = received else { break };
                    (last_word, probe) = (Instant::now(), None);
                    self.received(message, &mut open).await;
                }
                Some((permit, request)) = next_request(&outgoing, &mut self.waiting, &mut self.requests), if may_send => {
                    let kind = kind_of(&request.body);
                    self.note(kind);
                    permit.send(ClientMessage::Request { id: next_id, body: request.body });
                    open.insert(next_id, Open { kind, answer: request.answer });
                    next_id = next_id.wrapping_add(1);
                }
                () = sleep_until(check_at) => {
                    if probe.is_some() {
                        tracing::info!("the tracker is silent");
                        break;
                    }
                    probe = Some(Instant::now());
                    // A full queue means that the tracker takes nothing, which the probe's end will tell.
                    let _ = outgoing.try_send(ClientMessage::Request { id: PROBE_ID, body: Request::Ping });
                }
            }
        }
        for (_, Open { answer, .. }) in open {
            let text = "the connection to the tracker was lost before its answer";
            let _ = answer.send(Err(CommandError::new(ErrorCode::TrackerUnreachable, text)));
        }
    }

    /// Who logs out does not come back, whether or not the tracker hears of it.
    fn note(&mut self, kind: Kind) {
        if kind == Kind::SignOut {
            self.token = None;
        }
    }

    /// Takes the session up again before anything else is asked.
    async fn resume(&mut self, frames: &mut Frames, outgoing: &mpsc::Sender<ClientMessage>) -> Result<(), ()> {
        let Some(token) = self.token.clone() else { return Ok(()) };
        let message = ClientMessage::Request { id: PROBE_ID, body: Request::Resume { token } };
        outgoing.send(message).await.map_err(|_| ())?;
        loop {
            let received = timeout(CONNECT_TIMEOUT, next(frames)).await.map_err(|_| ())?.map_err(|_| ())?;
            match received {
                TrackerMessage::Response { id: PROBE_ID, result: Ok(Response::SignedIn(session)) } => {
                    self.token = Some(session.token);
                    self.tell(LinkEvent::Resumed).await;
                    return Ok(());
                }
                TrackerMessage::Response { id: PROBE_ID, result: Err(refusal) } if ends_session(&refusal) => {
                    self.token = None;
                    self.tell(LinkEvent::SessionEnded { reason: refusal.message }).await;
                    return Ok(());
                }
                // The tracker cannot tell just now: later, perhaps, or another one.
                TrackerMessage::Response { id: PROBE_ID, .. } => return Err(()),
                TrackerMessage::Event(event) => self.event(event).await,
                _ => return Err(()),
            }
        }
    }

    async fn received(&mut self, message: TrackerMessage, open: &mut HashMap<u32, Open>) {
        match message {
            TrackerMessage::Response { id, result } => {
                if let (PROBE_ID, Ok(Response::Time(time_ms))) = (id, &result) {
                    return self.tell(LinkEvent::Time { time_ms: *time_ms, heard: Moment::now() }).await;
                }
                let Some(Open { kind, answer }) = open.remove(&id) else { return };
                match (&result, kind) {
                    (Ok(Response::SignedIn(session)), Kind::SignIn) => self.token = Some(session.token.clone()),
                    (Ok(_), Kind::SignOutEverywhere) => self.token = None,
                    _ => {}
                }
                let _ = answer.send(result.map_err(CommandError::from));
            }
            TrackerMessage::Event(event) => self.event(event).await,
            TrackerMessage::Welcome(_) | TrackerMessage::Goodbye(_) => {}
        }
    }

    async fn event(&mut self, event: Event) {
        match event {
            Event::SessionEnded { reason } => {
                self.token = None;
                self.tell(LinkEvent::SessionEnded { reason }).await;
            }
            other => self.tell(LinkEvent::Event(other)).await,
        }
    }
}

/// A request and room to send it. Cancelling loses neither.
async fn next_request<'a>(
    outgoing: &'a mpsc::Sender<ClientMessage>,
    waiting: &mut VecDeque<(Instant, LinkRequest)>,
    requests: &mut mpsc::Receiver<LinkRequest>,
) -> Option<(mpsc::Permit<'a, ClientMessage>, LinkRequest)> {
    let permit = outgoing.reserve().await.ok()?;
    match waiting.pop_front() {
        Some((_, request)) => Some((permit, request)),
        None => requests.recv().await.map(|request| (permit, request)),
    }
}

async fn first_that_answers(
    plan: &LinkPlan,
    pin: Option<Fingerprint>,
) -> Result<(String, ControlConnection), CommandError> {
    let mut worst = CommandError::new(ErrorCode::TrackerUnreachable, "no tracker answers");
    for tracker in &plan.trackers {
        match timeout(CONNECT_TIMEOUT, connect(plan, tracker, tracker.pin.or(pin))).await {
            Ok(Ok(connection)) => return Ok((tracker.to_string(), connection)),
            // A wrong key matters more to the user than another tracker's silence.
            Ok(Err(error)) if worst.code == ErrorCode::TrackerUnreachable => worst = error,
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Err(worst)
}

/// Whether a refused resumption is final.
fn ends_session(refusal: &Refusal) -> bool {
    use ErrorCode::{AlreadyLoggedIn, NotLoggedIn, SessionEnded, WrongCredentials};
    matches!(refusal.code, SessionEnded | WrongCredentials | NotLoggedIn | AlreadyLoggedIn)
}

fn next_backoff(backoff: Duration) -> Duration {
    (backoff * 2).clamp(BACKOFF.0, BACKOFF.1)
}

fn kind_of(request: &Request) -> Kind {
    match request {
        Request::Login { .. } => Kind::SignIn,
        Request::Logout => Kind::SignOut,
        Request::LogoutEverywhere => Kind::SignOutEverywhere,
        _ => Kind::Other,
    }
}

fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}
