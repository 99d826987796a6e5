//! The use of one connection: matches answers to requests, and finds out when the tracker is gone or a better one is there.

use futures_util::SinkExt;
use mini_torrent_common::control::{ClientMessage, Event, Request, Response, TrackerMessage};
use mini_torrent_common::error_code::ErrorCode;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::asked::{ConnectionNumber, LinkRequest, Nature, Waiting};
use super::connection::{ControlConnection, Frames, next};
use super::keeper::Keeper;
use super::lookout::{Lookout, Other};
use super::resumption::{UNASKED_ID, unasked};
use super::search::Found;
use super::{LinkEvent, MAX_OPEN_REQUESTS, PING_INTERVAL, PROBE_AFTER, PROBE_TIMEOUT, SUSPECT_AFTER};
use crate::admission::Moment;

/// Why a connection is not used any more.
pub(super) enum Ended {
    /// It broke.
    Lost,
    /// The tracker says nothing.
    Silent,
    /// The session has moved to another tracker.
    Moved(Box<Other>),
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
        let lookout = Lookout::new(self.plan.clone(), self.pin, index, self.failed.clone());
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
        let mut next_id = UNASKED_ID + 1;
        let mut session_ended = None;
        loop {
            if self.open.is_empty() && self.waiting.is_empty() && self.requests.is_empty() {
                lookout.try_standby(self.token.as_ref());
            }
            if !lookout.is_trying()
                && let Some(reason) = session_ended.take()
            {
                self.event(Event::SessionEnded { reason }).await;
            }
            let (doubt_at, doubt) = pulse.next_doubt(!self.open.is_empty(), lookout.has_others());
            let may_send = self.open.len() < MAX_OPEN_REQUESTS;
            tokio::select! {
                received = next(&mut frames) => {
                    let Ok(message) = received else { return Ended::Lost };
                    pulse.heard();
                    lookout.trust();
                    match message {
                        // Perhaps because it is about to go on with the other tracker.
                        TrackerMessage::Event(Event::SessionEnded { reason }) if lookout.is_trying() => {
                            session_ended = Some(reason);
                        }
                        message => {
                            if is_unable(&message) {
                                lookout.distrust(self.token.is_some());
                            }
                            self.received(message, number).await;
                        }
                    }
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
                    next_id = next_id.wrapping_add(1).max(UNASKED_ID + 1);
                }
                other = lookout.watch(self.token.as_ref()) => if let Some(other) = other {
                    return Ended::Moved(Box::new(other));
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

    async fn received(&mut self, message: TrackerMessage, number: ConnectionNumber) {
        match message {
            TrackerMessage::Response { id, result } => {
                if let (UNASKED_ID, Ok(Response::Time(time_ms))) = (id, &result) {
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

    pub(super) async fn event(&mut self, event: Event) {
        match event {
            Event::SessionEnded { reason } => {
                self.token = None;
                self.tell(LinkEvent::SessionEnded { reason }).await;
            }
            other => self.tell(LinkEvent::Event(other)).await,
        }
    }
}

/// Whether the tracker says that it cannot do its work.
fn is_unable(message: &TrackerMessage) -> bool {
    matches!(message, TrackerMessage::Response { result: Err(refusal), .. } if refusal.code == ErrorCode::StoreUnavailable)
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
