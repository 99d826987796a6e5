//! Who is online with what: live sessions, swarms, and who watches them. All in memory; it goes with the
//! process, and clients announce again. Clients of other trackers on the same store are in it as these wrote it
//! (`elsewhere`), and what changes among the own clients is gathered for them (`outbox`).
//!
//! One lock holds it all and is never held across an await. What a caller read from the store may be outdated
//! when it gets here, so every removal raises a generation, and announcements and watches that rest on facts
//! from before are turned back, to be read again.

mod elsewhere;
mod entering;
mod outbox;
mod stock;
mod swarm;
mod swarming;

use crate::admission::Ticket;
use crate::clock::{Clock, Moment};
use crate::limits;
use crate::store::{SessionId, SignIn, UserId};
use elsewhere::Elsewhere;
use mini_torrent_common::control::{Event, ListingId};
use mini_torrent_common::hash::{GroupId, PeerId};
use mini_torrent_common::names::UserName;
use mini_torrent_common::revocation::Revocation;
use mini_torrent_common::tls::PublicKey;
use outbox::Outbox;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use stock::StockNews;
use swarm::{At, Swarm};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

pub(crate) use outbox::{Changes, News};
pub(crate) use stock::WantedMembers;
pub(crate) use swarming::{Announced, Generation, NotTaken};

/// What a client is told whose session goes on on another connection of the same client.
const SAME_CLIENT: &str = "this client has signed in on a new connection";

/// The number of a connection in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(pub u64);

/// A connected client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    /// The key that it proved.
    pub key: PublicKey,
    /// Where it accepts peers.
    pub address: SocketAddr,
    /// Its name in swarms.
    pub peer_id: PeerId,
    /// Its program.
    pub agent: String,
}

/// A connection as presence speaks to it.
pub(crate) struct Line {
    /// Events that wait for the socket.
    pub events: mpsc::Sender<Event>,
    /// Rung when revocations or swarm changes wait.
    pub changed: Arc<Notify>,
    /// Lease ticks since the client was last heard.
    pub silence: Arc<AtomicU32>,
    /// Ends the connection.
    pub close: CancellationToken,
    /// Whether long frames are taken.
    pub gate: Arc<AtomicBool>,
    /// The place among all connections.
    pub place: Arc<Ticket>,
}

impl Line {
    /// A client that lets its events gather is dropped; it comes back and asks anew.
    fn send(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.close.cancel();
        }
    }
}

/// Why a session cannot be claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotClaimed {
    /// Another client has it.
    Elsewhere {
        /// Where that client is.
        address: SocketAddr,
        /// How long it has been signed in.
        age: Duration,
    },
    /// The connection has gone meanwhile.
    Disconnected,
}

/// A connected client as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OnlineClient {
    /// The client.
    pub client: Client,
    /// Its user, when signed in.
    pub user: Option<UserName>,
    /// Files that it has.
    pub n_seeding: usize,
    /// Files that it is fetching.
    pub n_leeching: usize,
}

/// The memory of one tracker.
pub(crate) struct Presence {
    clock: Clock,
    state: Mutex<State>,
    /// Rung when there is news for other trackers.
    has_news: Notify,
}

#[derive(Default)]
struct State {
    generation: u64,
    connections: HashMap<ConnectionId, Connected>,
    sessions: HashMap<UserId, LiveSession>,
    /// Who is about to have a user's session, while the store is asked.
    claims: HashMap<UserId, Claim>,
    swarms: HashMap<ListingId, Swarm>,
    /// The connections that have entered each group.
    entered: HashMap<GroupId, HashSet<ConnectionId>>,
    elsewhere: Elsewhere,
    outbox: Outbox,
}

struct Connected {
    client: Client,
    line: Line,
    /// Whose session this connection has, or has claimed until the store has decided.
    claim: Option<UserId>,
    user: Option<SignedInUser>,
    announced: HashSet<ListingId>,
    watched: HashSet<ListingId>,
    /// Peers that changed in watched swarms since the client was last told.
    pending: HashMap<ListingId, HashSet<PublicKey>>,
    n_pending: usize,
    stock_news: StockNews,
    /// The groups whose revocations are gathered, and whether the user was found to be a member.
    entered: HashMap<GroupId, bool>,
    /// Revocations that the client has not been told of, in the order of their numbers.
    revocations: Vec<Revocation>,
}

/// Who is signed in on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignedInUser {
    /// The account.
    pub id: UserId,
    /// Its name.
    pub name: UserName,
    /// Its session.
    pub session: SessionId,
}

struct LiveSession {
    key: PublicKey,
    address: SocketAddr,
    connection: ConnectionId,
    sign_in: SignIn,
    since: Moment,
    lost: Option<Moment>,
}

struct Claim {
    connection: ConnectionId,
    since: Moment,
}

impl Presence {
    /// Nobody is online.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, state: Mutex::default(), has_news: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client has introduced itself.
    pub(crate) fn connect(&self, id: ConnectionId, client: Client, line: Line) {
        let connected = Connected {
            client,
            line,
            claim: None,
            user: None,
            announced: HashSet::new(),
            watched: HashSet::new(),
            pending: HashMap::new(),
            n_pending: 0,
            stock_news: StockNews::default(),
            entered: HashMap::new(),
            revocations: Vec::new(),
        };
        self.state().connections.insert(id, connected);
    }

    /// A connection is gone. What it announced goes at once; its session can be resumed.
    pub(crate) fn disconnect(&self, id: ConnectionId) {
        let now = self.clock.now();
        let mut state = self.state();
        state.leave_everything(id);
        state.give_up_claim(id);
        let Some(connected) = state.connections.remove(&id) else { return };
        if let Some(session) = connected.claim.and_then(|user| state.sessions.get_mut(&user))
            && session.connection == id
        {
            // The lease was part of the time that the session had to show itself.
            session.lost = Some(now.before(limits::LEASE_TICK * connected.line.silence.load(Ordering::Relaxed)));
            connected.claim.into_iter().for_each(|user| state.outbox.session(user));
        }
    }

    /// Whether a connection is there still.
    pub(crate) fn is_connected(&self, id: ConnectionId) -> bool {
        self.state().connections.contains_key(&id)
    }

    /// Reserves the user's one session for this connection, which has it when the store has decided and the claim is
    /// confirmed. An older claim is void then; who has the session so far keeps it until then.
    ///
    /// # Errors
    /// Without `takeover`, when another client is signed in or about to be, or was until a moment ago.
    pub(crate) fn claim(&self, id: ConnectionId, user: UserId, takeover: bool) -> Result<(), NotClaimed> {
        let now = self.clock.now();
        let mut state = self.state();
        let state = &mut *state;
        let connected = state.connections.get(&id).ok_or(NotClaimed::Disconnected)?;
        let key = connected.client.key;
        if let Some(session) = state.sessions.get(&user) {
            let is_live = session.lost.is_none_or(|lost| now.since(lost) < limits::LOST_SESSION_GRACE);
            if is_live && session.key != key && !takeover {
                return Err(NotClaimed::Elsewhere { address: session.address, age: now.since(session.since) });
            }
        }
        let claim = state.claims.get(&user).filter(|_| !takeover);
        if let Some((claim, other)) = claim.and_then(|claim| Some((claim, state.connections.get(&claim.connection)?)))
            && other.client.key != key
        {
            return Err(NotClaimed::Elsewhere { address: other.client.address, age: now.since(claim.since) });
        }
        if let Some((address, since)) = state.other_client_elsewhere(user, key).filter(|_| !takeover) {
            return Err(NotClaimed::Elsewhere { address, age: now.since(since) });
        }
        if let Some(connected) = state.connections.get_mut(&id) {
            connected.claim = Some(user);
        }
        state.claims.insert(user, Claim { connection: id, since: now });
        Ok(())
    }

    /// The claimed session is stored with this sign-in: the connection is signed in. Who had the session loses it, with
    /// the reason as its last word. `false` when the claim was lost meanwhile, or a later sign-in is known.
    pub(crate) fn confirm(&self, id: ConnectionId, user: SignedInUser, sign_in: SignIn) -> bool {
        let mut state = self.state();
        let state = &mut *state;
        let user_id = user.id;
        let Some(Claim { since, .. }) = state.give_up_claim(id) else { return false };
        let is_over = state.latest_sign_in(user_id).is_some_and(|latest| latest > sign_in);
        let Some(connected) = state.connections.get_mut(&id) else { return false };
        if is_over {
            connected.claim = None;
            return false;
        }
        let Client { key, address, .. } = connected.client;
        connected.user = Some(user);
        connected.line.place.set_signed_in(true);
        // Before the answer, for a client may send a long frame as soon as it has it.
        connected.line.gate.store(true, Ordering::Release);
        let session = LiveSession { key, address, connection: id, sign_in, since, lost: None };
        if let Some(old) = state.sessions.insert(user_id, session)
            && old.connection != id
        {
            let reason = match old.key == key {
                true => SAME_CLIENT.into(),
                false => format!("taken over from {address}"),
            };
            state.sign_out(old.connection, Some(reason));
        }
        state.outbox.session(user_id);
        state.settle(user_id, sign_in, None);
        true
    }

    /// Ends this connection's session or claim.
    pub(crate) fn sign_out(&self, id: ConnectionId) {
        let mut state = self.state();
        let claim = state.connections.get(&id).and_then(|connected| connected.claim);
        if let Some(user) = claim
            && state.sessions.get(&user).is_some_and(|session| session.connection == id)
        {
            state.sessions.remove(&user);
            state.outbox.session(user);
        }
        state.sign_out(id, None);
    }

    /// The session is over in the store: its connection is told so and forgets it. Without a number this holds
    /// for whatever session of the user is live or just beginning.
    pub(crate) fn end_session(&self, user: UserId, only: Option<SessionId>, reason: &str) {
        let mut state = self.state();
        if only.is_none() {
            state.claims.remove(&user);
        }
        let Some(live) = state.sessions.get(&user) else { return };
        let id = live.connection;
        let session = state.connections.get(&id).and_then(|connected| Some(connected.user.as_ref()?.session));
        if only.is_none() || only == session {
            state.sessions.remove(&user);
            state.outbox.session(user);
            state.sign_out(id, Some(reason.into()));
        }
    }

    /// Who is signed in on a connection.
    pub(crate) fn user_of(&self, id: ConnectionId) -> Option<SignedInUser> {
        self.state().connections.get(&id)?.user.clone()
    }

    /// The sessions of those of these users who are signed in here.
    pub(crate) fn sessions_of(&self, users: impl IntoIterator<Item = UserId>) -> HashMap<UserId, SessionId> {
        let state = self.state();
        let signed_in = users.into_iter().filter_map(|user| {
            let live = state.sessions.get(&user)?;
            let signed_in = state.connections.get(&live.connection)?.user.as_ref()?;
            Some((user, signed_in.session))
        });
        signed_in.collect()
    }

    /// All sessions that are live here.
    pub(crate) fn live_sessions(&self) -> Vec<SessionId> {
        self.state().connections.values().filter_map(|connected| Some(connected.user.as_ref()?.session)).collect()
    }

    /// Tells those of these users who are online here; returns the others.
    pub(crate) fn notify(&self, users: &[UserId], event: &Event) -> Vec<UserId> {
        let state = self.state();
        let is_missed = |user: &UserId| {
            let connection = state.sessions.get(user).and_then(|live| state.connections.get(&live.connection));
            let connected = connection.filter(|connected| connected.user.is_some());
            connected.inspect(|connected| connected.line.send(event.clone())).is_none()
        };
        users.iter().copied().filter(is_missed).collect()
    }

    /// One tick of the lease clock. Leases count ticks and not time, so a tracker that stood still itself
    /// closes nobody for it.
    pub(crate) fn tick(&self) {
        let now = self.clock.now();
        let mut state = self.state();
        for connected in state.connections.values() {
            if connected.line.silence.fetch_add(1, Ordering::Relaxed) >= limits::LEASE_TICKS {
                connected.line.close.cancel();
            }
            // Not at the sign-out itself: a long frame may be on its way, from before the client heard of that.
            if connected.user.is_none() {
                connected.line.gate.store(false, Ordering::Release);
            }
        }
        let is_over = |lost: Moment| now.since(lost) >= limits::LOST_SESSION_GRACE;
        let State { sessions, outbox, .. } = &mut *state;
        sessions.retain(|user, session| {
            let is_over = session.lost.is_some_and(is_over);
            if is_over {
                outbox.session(*user);
            }
            !is_over
        });
    }

    /// Every connected client, once.
    pub(crate) fn online(&self) -> Vec<OnlineClient> {
        let state = self.state();
        let here = state.connections.iter().map(|(id, connected)| {
            let user = connected.user.as_ref().map(|user| user.name.clone());
            state.online_client(&connected.client, At::Here(*id), user, &connected.announced)
        });
        let elsewhere = state.elsewhere.iter().flat_map(|(tracker, sessions)| {
            let online = sessions.iter().filter(|(_, session)| session.is_online());
            online.map(|(user, session)| {
                let at = At::There(*tracker, *user);
                state.online_client(&session.client, at, Some(session.name.clone()), &session.announced)
            })
        });
        here.chain(elsewhere).collect()
    }
}

impl State {
    fn online_client(
        &self,
        client: &Client,
        at: At,
        user: Option<UserName>,
        announced: &HashSet<ListingId>,
    ) -> OnlineClient {
        let mut n = [0, 0];
        for listing in announced {
            let peer = self.swarms.get(listing).and_then(|swarm| swarm.peer(&client.key));
            if let Some(peer) = peer.filter(|peer| peer.at == at) {
                n[usize::from(peer.complete)] += 1;
            }
        }
        OnlineClient { client: client.clone(), user, n_seeding: n[1], n_leeching: n[0] }
    }

    fn leave_everything(&mut self, id: ConnectionId) {
        self.leave_swarms(id);
        self.leave_groups(id);
    }

    /// Takes back a connection's claim; `None` when it has none, or a later one has made it void.
    fn give_up_claim(&mut self, id: ConnectionId) -> Option<Claim> {
        let user = self.connections.get(&id)?.claim?;
        let is_its = self.claims.get(&user).is_some_and(|claim| claim.connection == id);
        if is_its { self.claims.remove(&user) } else { None }
    }

    /// Forgets a connection's user with everything that hung on it.
    fn sign_out(&mut self, id: ConnectionId, reason: Option<String>) {
        self.leave_everything(id);
        self.give_up_claim(id);
        let Some(connected) = self.connections.get_mut(&id) else { return };
        connected.claim = None;
        if connected.user.take().is_none() {
            return;
        }
        connected.line.place.set_signed_in(false);
        if let Some(reason) = reason {
            connected.line.send(Event::SessionEnded { reason });
        }
    }
}

#[cfg(test)]
mod tests;
