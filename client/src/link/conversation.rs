//! The use of one connection: resumes the session, matches answers to requests, and finds out when the tracker is gone or
//! a better one is there.

use futures_util::SinkExt;
use mini_torrent_common::control::{ClientMessage, Event, Refusal, Request, Response, TrackerMessage};
use mini_torrent_common::error_code::ErrorCode;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::asked::{ConnectionNumber, LinkRequest, Nature, Waiting};
use super::connection::{ControlConnection, Frames, next};
use super::keeper::Keeper;
use super::lookout::Lookout;
use super::search::Found;
use super::{CONNECT_TIMEOUT, LinkEvent, MAX_OPEN_REQUESTS, PING_INTERVAL, PROBE_AFTER, PROBE_TIMEOUT, SUSPECT_AFTER};
use crate::admission::Moment;

/// The number of requests that nobody waits for: probes, and the session's resumption.
const PROBE_ID: u32 = 0;

/// Why a connection is not used any more.
pub(super) enum Ended {
    /// It broke.
    Lost,
    /// The tracker says nothing.
    Silent,
    /// The tracker says nothing, and this one does.
    Replaced(Found),
    /// Nothing is wrong, but this one stands earlier in the list.
    Returned(Found),
}

/// When the tracker was heard, and what was done about its silence.
struct Pulse {
    last_word: Instant,
    probe: Option<Instant>,
    suspected: bool,
}

/// What to do about a tracker's silence.
enum Doubt {
    Probe,
    Suspect,
    GiveUp,
}

impl Pulse {
    fn heard(&mut self) {
        *self = Self { last_word: Instant::now(), probe: None, suspected: false };
    }

    /// What is to be done next about the silence, and when.
    fn next_doubt(&self, is_asked: bool, has_others: bool) -> (Instant, Doubt) {
        match self.probe {
            None => (self.last_word + if is_asked { PROBE_AFTER } else { PING_INTERVAL }, Doubt::Probe),
            Some(sent) if has_others && !self.suspected => (sent + SUSPECT_AFTER, Doubt::Suspect),
            Some(sent) => (sent + PROBE_TIMEOUT, Doubt::GiveUp),
        }
    }
}

impl Keeper {
    /// Uses a connection until it is lost or left; returns why, and when the tracker was heard last. Writing is a
    /// future of its own, so that neither direction can hold up the other.
    pub(super) async fn serve(&mut self, number: ConnectionNumber, found: Found) -> (Ended, Instant) {
        let Found { index, connection: ControlConnection { frames, mut sink, .. } } = found;
        let (outgoing, mut queue) = mpsc::channel::<ClientMessage>(1);
        let writing = async move {
            while let Some(message) = queue.recv().await {
                if sink.send(message).await.is_err() {
                    return;
                }
            }
            let _ = sink.close().await;
        };
        let mut pulse = Pulse { last_word: Instant::now(), probe: None, suspected: false };
        let lookout = Lookout::new(self.plan.clone(), self.pin, index);
        let ended = tokio::select! {
            () = writing => Ended::Lost,
            ended = self.converse(number, frames, outgoing, lookout, &mut pulse) => ended,
        };
        (ended, pulse.last_word)
    }

    async fn converse(
        &mut self,
        number: ConnectionNumber,
        mut frames: Frames,
        outgoing: mpsc::Sender<ClientMessage>,
        mut lookout: Lookout,
        pulse: &mut Pulse,
    ) -> Ended {
        if self.resume(&mut frames, &outgoing).await.is_err() {
            return Ended::Lost;
        }
        pulse.heard();
        let mut next_id = PROBE_ID + 1;
        loop {
            let is_idle = self.open.is_empty() && self.waiting.is_empty() && self.requests.is_empty();
            if is_idle && let Some(earlier) = lookout.take_standby() {
                return Ended::Returned(earlier);
            }
            let (doubt_at, doubt) = pulse.next_doubt(!self.open.is_empty(), lookout.has_others());
            let may_send = self.open.len() < MAX_OPEN_REQUESTS;
            tokio::select! {
                received = next(&mut frames) => {
                    let Ok(message) = received else { return Ended::Lost };
                    pulse.heard();
                    lookout.trust();
                    self.received(message, number).await;
                }
                Some((permit, request)) = next_request(&outgoing, &mut self.waiting, &mut self.requests), if may_send => {
                    if !request.belongs_to(Some(number)) {
                        request.connection_gone();
                        continue;
                    }
                    self.note(Nature::of(&request.body));
                    let (message, open) = request.send(next_id);
                    permit.send(message);
                    self.open.insert(next_id, open);
                    next_id = next_id.wrapping_add(1).max(PROBE_ID + 1);
                }
                other = lookout.watch() => if let Some(other) = other {
                    return Ended::Replaced(other);
                },
                () = sleep_until(doubt_at) => match doubt {
                    Doubt::Probe => {
                        pulse.probe = Some(Instant::now());
                        // A full queue means that the tracker takes nothing, which the probe's end will tell.
                        let _ = outgoing.try_send(unasked(Request::Ping));
                    }
                    Doubt::Suspect => {
                        pulse.suspected = true;
                        lookout.suspect();
                    }
                    Doubt::GiveUp => return Ended::Silent,
                },
            }
        }
    }

    /// Takes the session up again before anything else is asked.
    async fn resume(&mut self, frames: &mut Frames, outgoing: &mpsc::Sender<ClientMessage>) -> Result<(), ()> {
        let Some(token) = self.token.clone() else { return Ok(()) };
        outgoing.send(unasked(Request::Resume { token })).await.map_err(|_| ())?;
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

    async fn received(&mut self, message: TrackerMessage, number: ConnectionNumber) {
        match message {
            TrackerMessage::Response { id, result } => {
                if let (PROBE_ID, Ok(Response::Time(time_ms))) = (id, &result) {
                    return self.tell(LinkEvent::Time { time_ms: *time_ms, heard: Moment::now() }).await;
                }
                let Some(open) = self.open.remove(&id) else { return };
                match (&result, open.nature) {
                    (Ok(Response::SignedIn(session)), Nature::SignIn) => self.token = Some(session.token.clone()),
                    (Ok(_), Nature::SignOutEverywhere) => self.token = None,
                    _ => {}
                }
                open.answer(result, number);
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

fn unasked(body: Request) -> ClientMessage {
    ClientMessage::Request { id: PROBE_ID, once: None, body }
}

/// A request and room to send it. Cancelling loses neither.
async fn next_request<'a>(
    outgoing: &'a mpsc::Sender<ClientMessage>,
    waiting: &mut Waiting,
    requests: &mut mpsc::Receiver<LinkRequest>,
) -> Option<(mpsc::Permit<'a, ClientMessage>, LinkRequest)> {
    let permit = outgoing.reserve().await.ok()?;
    match waiting.pop() {
        Some(request) => Some((permit, request)),
        None => requests.recv().await.map(|request| (permit, request)),
    }
}

/// Whether a refused resumption is final.
fn ends_session(refusal: &Refusal) -> bool {
    use ErrorCode::{AlreadyLoggedIn, NotLoggedIn, SessionEnded, WrongCredentials};
    matches!(refusal.code, SessionEnded | WrongCredentials | NotLoggedIn | AlreadyLoggedIn)
}
