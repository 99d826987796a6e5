//! Requests on their way: those that wait for a tracker, those that wait for an answer, and what becomes of them when
//! the connection goes.

use mini_torrent_common::control::{ClientMessage, Refusal, Request, Response};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::OperationId;
use std::collections::VecDeque;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{MAX_TIMES_SENT, REQUEST_PATIENCE};
use crate::error::CommandError;

/// The number of a connection of this link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionNumber(pub(super) u64);

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// A tracker refused, or none could be asked.
    Refused(CommandError),
    /// The connection that the request belonged to is gone; another one may be there.
    ConnectionGone,
}

pub(super) type Answered = Result<(Response, ConnectionNumber), NoAnswer>;

/// What a request does, as far as the link has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// It only reads.
    Reading,
    /// It changes what is durable. It carries a name, by which a tracker that has done it already answers the same again.
    Writing,
    SignIn,
    SignOut,
    SignOutEverywhere,
    /// It is about one connection, or about what the node tells anew by itself when the session is taken up.
    OfConnection,
}

impl Nature {
    pub(super) fn of(request: &Request) -> Self {
        use Request as R;
        match request {
            R::ListSessions
            | R::ListRequests { .. }
            | R::ListKeys
            | R::ListGroups { .. }
            | R::DescribeGroup { .. }
            | R::ListFiles { .. }
            | R::FindFile { .. }
            | R::OpenFile { .. }
            | R::ReadInfo { .. } => Self::Reading,
            R::CreateUser { .. }
            | R::CreateGroup { .. }
            | R::JoinGroup { .. }
            | R::LeaveGroup { .. }
            | R::AcceptRequest { .. }
            | R::RejectRequest { .. }
            | R::RemoveMember { .. }
            | R::SetRole { .. }
            | R::TransferOwner { .. }
            | R::RemoveFile { .. }
            | R::SetStockClients { .. }
            | R::CreateKey { .. }
            | R::RevokeKey { .. }
            | R::OfferListing { .. }
            | R::CommitListing { .. }
            | R::Share { .. }
            | R::Seed { .. }
            | R::StopShare { .. } => Self::Writing,
            R::Login { .. } => Self::SignIn,
            R::Logout => Self::SignOut,
            R::LogoutEverywhere => Self::SignOutEverywhere,
            R::Ping
            | R::Resume { .. }
            | R::EnterGroup { .. }
            | R::PutInfo { .. }
            | R::Announce { .. }
            | R::Leech { .. }
            | R::Watch { .. }
            | R::Unwatch { .. } => Self::OfConnection,
        }
    }

    /// Whether another tracker may be asked when the answer is lost. A login may: it proves the password again and ends
    /// the session that the lost one may have begun, of which nobody has the token. The end of a session may not,
    /// for if it was done, nobody is there any more who may ask.
    fn may_be_repeated(self) -> bool {
        matches!(self, Self::Reading | Self::Writing | Self::SignIn)
    }
}

/// Something to be asked.
#[derive(Debug)]
pub(super) struct LinkRequest {
    pub(super) body: Request,
    pub(super) asker: Asker,
}

/// Everything about a request but its text.
#[derive(Debug)]
pub(super) struct Asker {
    once: Option<OperationId>,
    /// The only connection on which it means anything.
    only_on: Option<ConnectionNumber>,
    asked: Instant,
    n_sent: u32,
    answer: oneshot::Sender<Answered>,
}

/// A request that was sent.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) nature: Nature,
    /// What to ask again when the answer is lost.
    again: Option<Request>,
    asker: Asker,
}

impl LinkRequest {
    pub(super) fn new(
        body: Request,
        once: Option<OperationId>,
        only_on: Option<ConnectionNumber>,
        answer: oneshot::Sender<Answered>,
    ) -> Self {
        Self { body, asker: Asker { once, only_on, asked: Instant::now(), n_sent: 0, answer } }
    }

    pub(super) fn belongs_to(&self, connection: Option<ConnectionNumber>) -> bool {
        self.asker.only_on.is_none_or(|only_on| Some(only_on) == connection)
    }

    /// The message that asks, and what remains here until it is answered.
    pub(super) fn send(self, id: u32) -> (ClientMessage, Open) {
        let Self { body, mut asker } = self;
        let nature = Nature::of(&body);
        asker.n_sent += 1;
        let repeat = nature.may_be_repeated() && asker.only_on.is_none() && asker.n_sent < MAX_TIMES_SENT;
        let again = repeat.then(|| body.clone());
        (ClientMessage::Request { id, once: asker.once, body }, Open { nature, again, asker })
    }

    pub(super) fn refuse(self, error: &CommandError) {
        let _ = self.asker.answer.send(Err(NoAnswer::Refused(error.clone())));
    }

    pub(super) fn connection_gone(self) {
        let _ = self.asker.answer.send(Err(NoAnswer::ConnectionGone));
    }
}

impl Open {
    pub(super) fn answer(self, result: Result<Response, Refusal>, connection: ConnectionNumber) {
        let answered = result.map(|response| (response, connection));
        let _ = self.asker.answer.send(answered.map_err(|refusal| NoAnswer::Refused(refusal.into())));
    }

    /// The connection is lost, on which the tracker was heard last at `last_word`. Returns what is to be asked of the next
    /// tracker; what cannot be is answered.
    fn lost(self, last_word: Instant) -> Option<(Instant, LinkRequest)> {
        let Self { again, asker, .. } = self;
        if let Some(body) = again {
            // A tracker's silence before the loss was waiting, too.
            return Some((asker.asked.max(last_word) + REQUEST_PATIENCE, LinkRequest { body, asker }));
        }
        let text = "the connection to the tracker was lost before its answer";
        let _ = asker.answer.send(Err(match asker.only_on {
            Some(_) => NoAnswer::ConnectionGone,
            None => NoAnswer::Refused(CommandError::new(ErrorCode::TrackerUnreachable, text)),
        }));
        None
    }
}

/// Requests that no tracker has got, or whose answer was lost, in order, with the time until which they wait.
#[derive(Debug, Default)]
pub(super) struct Waiting(VecDeque<(Instant, LinkRequest)>);

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, request: LinkRequest) {
        self.0.push_back((Instant::now() + REQUEST_PATIENCE, request));
    }

    /// Puts what was sent on a connection that is lost before everything else, in the order in which it was sent.
    pub(super) fn take_back(&mut self, mut open: Vec<(u32, Open)>, last_word: Instant) {
        open.sort_unstable_by_key(|(id, _)| *id);
        let again: Vec<_> = open.into_iter().filter_map(|(_, open)| open.lost(last_word)).collect();
        again.into_iter().rev().for_each(|request| self.0.push_front(request));
    }

    pub(super) fn pop(&mut self) -> Option<LinkRequest> {
        self.0.pop_front().map(|(_, request)| request)
    }

    /// When the first of them has waited long enough.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.0.iter().map(|(until, _)| *until).min()
    }

    /// Refuses those that wait until `time` at the latest.
    pub(super) fn refuse_until(&mut self, time: Instant, error: &CommandError) {
        for (until, request) in std::mem::take(&mut self.0) {
            match until <= time {
                true => request.refuse(error),
                false => self.0.push_back((until, request)),
            }
        }
    }

    /// Answers those that belong to a connection that is gone.
    pub(super) fn drop_bound(&mut self) {
        for (until, request) in std::mem::take(&mut self.0) {
            match request.belongs_to(None) {
                true => self.0.push_back((until, request)),
                false => request.connection_gone(),
            }
        }
    }
}
