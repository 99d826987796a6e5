//! Clients that are connected to other trackers of the deployment, as these wrote it: they are in the swarms like those
//! that are connected here.
//!
//! A client that has moved is in two places for a while, until the tracker that it left has noticed or is dead. Of a
//! user's sessions the one with the latest sign-in counts: an earlier one takes no place in a swarm any more and bars no
//! login, and here it ends. What it has in a swarm stays until the client has announced that at its new place, so that
//! nobody sees it leave.

use super::swarm::{At, Swarm, SwarmPeer};
use super::{Client, Presence, State};
use crate::clock::Moment;
use crate::store::{OnlinePage, OnlinePeer, OnlineSession, SessionChange, SignIn, TrackerNumber, UserId};
use mini_torrent_common::control::ListingId;
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::names::UserName;
use mini_torrent_common::tls::PublicKey;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

/// The sessions with each other tracker.
pub(super) type Elsewhere = HashMap<TrackerNumber, HashMap<UserId, SessionElsewhere>>;

/// A session with another tracker.
pub(super) struct SessionElsewhere {
    pub(super) client: Client,
    pub(super) name: UserName,
    sign_in: SignIn,
    since: Moment,
    lost: bool,
    /// Whether a later sign-in of the user is known.
    superseded: bool,
    pub(super) announced: HashSet<ListingId>,
}

impl SessionElsewhere {
    /// Whether its client is there as far as is known.
    pub(super) fn is_online(&self) -> bool {
        !self.lost && !self.superseded
    }
}

impl Presence {
    /// Takes what another tracker wrote about its clients.
    pub(crate) fn follow(&self, tracker: TrackerNumber, page: &OnlinePage) {
        let now = self.clock.now();
        let mut state = self.state();
        if page.anew {
            state.forget_tracker(tracker);
        }
        for (name, change) in &page.sessions {
            state.follow_session(tracker, name, change, now);
        }
        for (group, peer) in &page.peers {
            state.follow_peer(tracker, *group, peer);
        }
        // Behind the peers, so that who has moved is at its new place before it leaves the old one.
        for (_, change) in &page.sessions {
            let (user, sign_in, client) = match change {
                SessionChange::There(session) => (session.user, session.sign_in, Some((session.key, session.address))),
                SessionChange::Gone { user, sign_in } => (*user, *sign_in, None),
            };
            state.settle(user, sign_in, client);
        }
    }

    /// Another tracker is dead or has ended: its clients are not there any more, unless they have come elsewhere.
    pub(crate) fn forget_tracker(&self, tracker: TrackerNumber) {
        self.state().forget_tracker(tracker);
    }
}

impl State {
    fn follow_session(&mut self, tracker: TrackerNumber, name: &UserName, change: &SessionChange, now: Moment) {
        let session = match change {
            SessionChange::There(session) => session,
            SessionChange::Gone { user, .. } => return self.end_elsewhere(tracker, *user),
        };
        let OnlineSession { user, sign_in, key, address, peer_id, ref agent, age_ms, lost } = *session;
        let known = self.elsewhere.get(&tracker).and_then(|sessions| sessions.get(&user));
        if known.is_some_and(|known| known.sign_in != sign_in || lost) {
            self.end_elsewhere(tracker, user);
        }
        let known = self.elsewhere.entry(tracker).or_default().entry(user);
        known.or_insert_with(|| SessionElsewhere {
            client: Client { key, address, peer_id, agent: agent.clone() },
            name: name.clone(),
            sign_in,
            since: now.before(Duration::from_millis(age_ms)),
            lost,
            superseded: false,
            announced: HashSet::new(),
        });
        let latest = self.latest_sign_in(user).max(Some(sign_in));
        if let Some(session) = self.elsewhere.get_mut(&tracker).and_then(|sessions| sessions.get_mut(&user)) {
            session.superseded |= latest > Some(sign_in);
        }
    }

    fn follow_peer(&mut self, tracker: TrackerNumber, group: GroupId, peer: &OnlinePeer) {
        let OnlinePeer { user, listing, complete } = *peer;
        let Some(complete) = complete else { return self.leave_elsewhere(tracker, user, listing) };
        let session = self.elsewhere.get_mut(&tracker).and_then(|sessions| sessions.get_mut(&user));
        let Some(session) = session.filter(|session| !session.lost) else { return };
        session.announced.insert(listing);
        let (key, sign_in, superseded) = (session.client.key, session.sign_in, session.superseded);
        let at = At::There(tracker, user);
        let before = self.swarms.get(&listing).and_then(|swarm| swarm.peer(&key));
        let takes_place = match before {
            Some(before) if before.at == at => true,
            _ if superseded => false,
            Some(before) => self.sign_in_at(before.at).is_some_and(|before| before < sign_in),
            None => true,
        };
        let enter = || Swarm::new(listing, group);
        if takes_place && self.swarms.entry(listing).or_insert_with(enter).put(key, SwarmPeer { at, complete }) {
            self.tell_watchers(listing, key);
        }
    }

    fn leave_elsewhere(&mut self, tracker: TrackerNumber, user: UserId, listing: ListingId) {
        let session = self.elsewhere.get_mut(&tracker).and_then(|sessions| sessions.get_mut(&user));
        let Some(session) = session else { return };
        session.announced.remove(&listing);
        let key = session.client.key;
        self.leave_place(listing, key, At::There(tracker, user));
    }

    fn end_elsewhere(&mut self, tracker: TrackerNumber, user: UserId) {
        let Some(session) = self.elsewhere.get_mut(&tracker).and_then(|sessions| sessions.remove(&user)) else {
            return;
        };
        for listing in session.announced {
            self.leave_place(listing, session.client.key, At::There(tracker, user));
        }
    }

    fn forget_tracker(&mut self, tracker: TrackerNumber) {
        for (user, session) in self.elsewhere.remove(&tracker).unwrap_or_default() {
            for listing in session.announced {
                self.leave_place(listing, session.client.key, At::There(tracker, user));
            }
        }
    }

    /// A listing is gone, so nobody has it.
    pub(super) fn forget_announced(&mut self, tracker: TrackerNumber, user: UserId, listing: ListingId) {
        if let Some(session) = self.elsewhere.get_mut(&tracker).and_then(|sessions| sessions.get_mut(&user)) {
            session.announced.remove(&listing);
        }
    }

    /// Whoever of the key's client is in a swarm elsewhere leaves it: it has said so here.
    pub(super) fn leave_everywhere(&mut self, listing: ListingId, key: PublicKey) {
        let peer = self.swarms.get(&listing).and_then(|swarm| swarm.peer(&key));
        if let Some(SwarmPeer { at: At::There(tracker, user), .. }) = peer {
            self.leave_elsewhere(tracker, user, listing);
        }
    }

    /// What a user's clients elsewhere have, with their keys.
    pub(super) fn announced_elsewhere(&self, user: UserId) -> Vec<(TrackerNumber, PublicKey, ListingId)> {
        let sessions = self.elsewhere.iter().filter_map(|(tracker, of)| Some((*tracker, of.get(&user)?)));
        let announced = sessions.flat_map(|(tracker, session)| {
            session.announced.iter().map(move |listing| (tracker, session.client.key, *listing))
        });
        announced.collect()
    }

    /// Takes what a user's clients elsewhere have out of the swarms that `ends` chooses.
    pub(super) fn leave_elsewhere_if(&mut self, user: UserId, ends: impl Fn(&Swarm, Option<SwarmPeer>) -> bool) {
        for (tracker, key, listing) in self.announced_elsewhere(user) {
            if self.swarms.get(&listing).is_some_and(|swarm| ends(swarm, swarm.peer(&key))) {
                self.leave_elsewhere(tracker, user, listing);
            }
        }
    }

    /// The sign-in of whoever holds a place in a swarm; `None` for one who has just signed in here.
    fn sign_in_at(&self, at: At) -> Option<SignIn> {
        match at {
            At::Here(id) => {
                let user = self.connections.get(&id)?.claim?;
                Some(self.sessions.get(&user).filter(|live| live.connection == id)?.sign_in)
            }
            // Whose session is not there any more makes room for everybody.
            At::There(tracker, user) => {
                let session = self.elsewhere.get(&tracker).and_then(|sessions| sessions.get(&user));
                Some(session.map_or(SignIn(0), |session| session.sign_in))
            }
        }
    }

    pub(super) fn latest_sign_in(&self, user: UserId) -> Option<SignIn> {
        let elsewhere = self.elsewhere.values().filter_map(|sessions| Some(sessions.get(&user)?.sign_in));
        elsewhere.chain(self.sessions.get(&user).map(|live| live.sign_in)).max()
    }

    /// A user has signed in somewhere; earlier sign-ins count no more. `client` is who has, unless that is over, too.
    pub(super) fn settle(&mut self, user: UserId, latest: SignIn, client: Option<(PublicKey, SocketAddr)>) {
        for sessions in self.elsewhere.values_mut() {
            if let Some(session) = sessions.get_mut(&user) {
                session.superseded |= session.sign_in < latest;
            }
        }
        let Some(live) = self.sessions.get(&user) else { return };
        if live.sign_in >= latest {
            return;
        }
        let reason = match client {
            Some((key, _)) if key == live.key => super::SAME_CLIENT.into(),
            Some((_, address)) => format!("taken over from {address}"),
            None => "this session has been taken up elsewhere".into(),
        };
        let id = live.connection;
        self.sessions.remove(&user);
        self.outbox.session(user);
        self.sign_out(id, Some(reason));
    }

    /// Whether another client than this one is signed in elsewhere, where it is and since when.
    pub(super) fn other_client_elsewhere(&self, user: UserId, key: PublicKey) -> Option<(SocketAddr, Moment)> {
        let sessions = self.elsewhere.values().filter_map(|sessions| sessions.get(&user));
        let mut bars = sessions.filter(|session| !session.superseded && session.client.key != key);
        bars.next().map(|session| (session.client.address, session.since))
    }
}
