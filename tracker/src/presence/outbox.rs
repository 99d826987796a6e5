//! What changed among this tracker's own clients since it was written for the other trackers.
//!
//! Only what changed is noted, and what became of it is looked up when a batch is taken, so that a batch has each thing
//! once and in its latest state. While no other tracker is there, nothing is noted.

use super::swarm::At;
use super::{Presence, State};
use crate::clock::Moment;
use crate::limits;
use crate::store::{OnlinePeer, OnlineSession, SessionChange, SessionId, SignIn, UserId};
use mini_torrent_common::control::{Event, ListingId};
use mini_torrent_common::hash::PeerId;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

/// What clients of other trackers have to hear of. Append-only: trackers of different versions may share a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum News {
    /// To those of these users who are signed in.
    Tell {
        /// Their numbers.
        users: Vec<UserId>,
        /// What they are told.
        event: Event,
    },
    /// Listings are gone.
    ListingsEnded(Vec<ListingId>),
    /// A session is over.
    SessionEnded {
        /// Whose it was.
        user: UserId,
        /// Its number.
        session: SessionId,
        /// Why.
        reason: String,
    },
    /// An ordinary client that announced at several trackers has stopped.
    StockStopped {
        /// The swarm.
        listing: ListingId,
        /// Where it was.
        address: SocketAddr,
    },
}

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    open: bool,
    sessions: HashSet<UserId>,
    peers: HashSet<(UserId, ListingId)>,
    news: Vec<News>,
    /// The sessions that the others know of.
    written: HashMap<UserId, SignIn>,
}

impl Outbox {
    /// A user's session has changed.
    pub(super) fn session(&mut self, user: UserId) {
        if self.open {
            self.sessions.insert(user);
        }
    }

    /// A client's part in a swarm has changed.
    pub(super) fn peer(&mut self, user: UserId, listing: ListingId) {
        if self.open {
            self.peers.insert((user, listing));
        }
    }

    /// Whether there is anybody to be told, and room.
    fn news(&mut self, news: News) -> bool {
        if !self.open {
            return false;
        }
        if self.news.len() >= limits::MAX_QUEUED_NEWS {
            tracing::warn!("too much news for other trackers; some is not told there");
            return false;
        }
        self.news.push(news);
        true
    }
}

/// A batch of what changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Sessions, each user once.
    pub sessions: Vec<SessionChange>,
    /// Peers, each once.
    pub peers: Vec<OnlinePeer>,
    /// News, in its order.
    pub news: Vec<News>,
}

impl Presence {
    /// There is another tracker, which knows nothing: everything is to be written.
    pub(crate) fn open_outbox(&self) {
        let mut state = self.state();
        let state = &mut *state;
        state.outbox.open = true;
        state.outbox.written.clear();
        for (user, live) in &state.sessions {
            state.outbox.sessions.insert(*user);
            let connected = state.connections.get(&live.connection);
            let announced = connected.into_iter().flat_map(|connected| &connected.announced);
            state.outbox.peers.extend(announced.map(|listing| (*user, *listing)));
        }
    }

    /// There is no other tracker any more.
    pub(crate) fn close_outbox(&self) {
        self.state().outbox = Outbox::default();
    }

    /// Has clients of other trackers told.
    pub(crate) fn tell_elsewhere(&self, news: News) {
        if self.state().outbox.news(news) {
            self.has_news.notify_one();
        }
    }

    /// Waits until there is news for other trackers, or was since the last time.
    pub(crate) async fn has_news(&self) {
        self.has_news.notified().await;
    }

    /// The next batch of what changed.
    pub(crate) fn take_changes(&self) -> Changes {
        let now = self.clock.now();
        let mut state = self.state();
        let users: Vec<_> = state.outbox.sessions.iter().take(limits::ONLINE_BATCH).copied().collect();
        let sessions = users.into_iter().filter_map(|user| state.take_session(user, now)).collect();
        let Outbox { sessions: waiting, peers, .. } = &state.outbox;
        // A peer belongs to a session that the others know.
        let ready = peers.iter().filter(|(user, _)| !waiting.contains(user));
        let ready: Vec<_> = ready.take(limits::ONLINE_BATCH).copied().collect();
        let peers = ready.into_iter().filter_map(|(user, listing)| state.take_peer(user, listing)).collect();
        Changes { sessions, peers, news: std::mem::take(&mut state.outbox.news) }
    }

    /// A batch could not be written: it comes again.
    pub(crate) fn put_back(&self, changes: Changes) {
        let outbox = &mut self.state().outbox;
        for change in changes.sessions {
            let (SessionChange::There(OnlineSession { user, sign_in, .. }) | SessionChange::Gone { user, sign_in }) =
                change;
            outbox.written.entry(user).or_insert(sign_in);
            outbox.sessions.insert(user);
        }
        outbox.peers.extend(changes.peers.iter().map(|peer| (peer.user, peer.listing)));
        outbox.news.splice(..0, changes.news);
    }
}

impl State {
    fn take_session(&mut self, user: UserId, now: Moment) -> Option<SessionChange> {
        self.outbox.sessions.remove(&user);
        let live = self.sessions.get(&user);
        let signed_in = live.and_then(|live| {
            let connected = self.connections.get(&live.connection).filter(|connected| connected.claim == Some(user));
            let client = connected.map(|connected| &connected.client);
            let (lost, age) = (live.lost.is_some(), now.since(live.since));
            (client.is_some() || lost).then_some(())?;
            Some(OnlineSession {
                user,
                sign_in: live.sign_in,
                key: live.key,
                address: live.address,
                peer_id: client.map_or(PeerId([0; 20]), |client| client.peer_id),
                agent: client.map_or_else(String::new, |client| client.agent.clone()),
                age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
                lost,
            })
        });
        match signed_in {
            Some(session) => {
                self.outbox.written.insert(user, session.sign_in);
                Some(SessionChange::There(session))
            }
            None => self.outbox.written.remove(&user).map(|sign_in| SessionChange::Gone { user, sign_in }),
        }
    }

    /// Of a session that is over there is nothing to say: its peers go with it.
    fn take_peer(&mut self, user: UserId, listing: ListingId) -> Option<OnlinePeer> {
        self.outbox.peers.remove(&(user, listing));
        let live = self.sessions.get(&user).filter(|live| live.lost.is_none())?;
        let connected = self.connections.get(&live.connection)?;
        let peer = self.swarms.get(&listing).and_then(|swarm| swarm.peer(&connected.client.key));
        let peer = peer.filter(|peer| peer.at == At::Here(live.connection));
        Some(OnlinePeer { user, listing, complete: peer.map(|peer| peer.complete) })
    }
}
