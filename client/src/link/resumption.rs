//! Taking the session up with a tracker that has said welcome, before anything else is asked of it.

use futures_util::SinkExt;
use mini_torrent_common::control::{ClientMessage, Event, Refusal, Request, Response, TrackerMessage};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::secret::SessionToken;
use std::time::Duration;
use tokio::time::timeout;

use super::connection::{ControlConnection, next};
use super::search::Found;
use crate::error::CommandError;

/// The number of requests that nobody waits for: probes, and the session's resumption.
pub(super) const UNASKED_ID: u32 = 0;
/// What a tracker may tell before it answers.
const MAX_EARLY_EVENTS: usize = 256;

/// A tracker that can be used.
pub(super) struct TakenUp {
    pub(super) found: Found,
    pub(super) session: Session,
    /// What it told before its answer.
    pub(super) events: Vec<Event>,
}

/// What has become of the session.
pub(super) enum Session {
    /// There was none.
    None,
    /// It goes on, by this token.
    GoesOn(SessionToken),
    /// It is over, for this reason.
    Over(String),
}

/// Takes the session up, if there is one.
///
/// # Errors
/// Why the tracker cannot tell what has become of it: it may later, and another one may now.
pub(super) async fn take_up(
    mut found: Found,
    token: Option<SessionToken>,
    patience: Duration,
) -> Result<TakenUp, CommandError> {
    let Some(token) = token else { return Ok(TakenUp { found, session: Session::None, events: Vec::new() }) };
    let resumed = timeout(patience, resume(&mut found.connection, token)).await;
    let (session, events) = resumed.unwrap_or_else(|_| Err(says_nothing()))?;
    Ok(TakenUp { found, session, events })
}

async fn resume(
    connection: &mut ControlConnection,
    token: SessionToken,
) -> Result<(Session, Vec<Event>), CommandError> {
    let mut events = Vec::new();
    connection.sink.send(unasked(Request::Resume { token })).await.map_err(|_| says_nothing())?;
    loop {
        match next(&mut connection.frames).await.map_err(|_| says_nothing())? {
            TrackerMessage::Response { id: UNASKED_ID, result: Ok(Response::SignedIn(session)) } => {
                return Ok((Session::GoesOn(session.token), events));
            }
            TrackerMessage::Response { id: UNASKED_ID, result: Err(refusal) } => {
                return if ends_session(&refusal) {
                    Ok((Session::Over(refusal.message), events))
                } else {
                    Err(refusal.into())
                };
            }
            TrackerMessage::Event(event) if events.len() < MAX_EARLY_EVENTS => events.push(event),
            _ => return Err(says_nothing()),
        }
    }
}

pub(super) fn unasked(body: Request) -> ClientMessage {
    ClientMessage::Request { id: UNASKED_ID, once: None, body }
}

fn says_nothing() -> CommandError {
    CommandError::new(ErrorCode::TrackerUnreachable, "the tracker does not take the session up")
}

/// Whether a refused resumption is final.
fn ends_session(refusal: &Refusal) -> bool {
    use ErrorCode::{AlreadyLoggedIn, NotLoggedIn, SessionEnded, WrongCredentials};
    matches!(refusal.code, SessionEnded | WrongCredentials | NotLoggedIn | AlreadyLoggedIn)
}
