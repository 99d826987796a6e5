//! Whom a torrent deals with: dialling those that the tracker named, and letting go of those who are not admitted any
//! more.

use mini_torrent_common::tls::PublicKey;
use mini_torrent_engine::{self as engine, Candidate, Direction, Event, PeerKey};
use std::net::SocketAddr;
use std::time::Instant;

use super::{Peer, Task};
use crate::admission::{Moment, NotAdmitted};
use crate::peer::{Credential, OpenPeer, PeerError, TorrentName, key_at};

/// Connections of ordinary clients at one address: several may share it, none needs many.
const MAX_OF_ADDRESS: usize = 8;
/// Connections of ordinary clients to a group's torrent: the others are left to members.
const MAX_ORDINARY_IN_GROUP: usize = 100;

impl Task {
    /// Lets go of peers that are not admitted any more: their tickets are not good, or they are announced no more.
    pub(super) fn check_admissions(&mut self) {
        let (now, moment) = (Instant::now(), Moment::now());
        let torrent = self.plan.name;
        let admissions = self.plan.opener.admissions.borrow_and_update();
        let refused = |peer: &Peer| match &peer.credential {
            Credential::Ticket(ticket) => admissions.check_again(ticket, moment).err(),
            Credential::Address(from) => admissions.judge_plain(torrent, *from).err(),
        };
        let refused: Vec<_> = self.peers.iter().filter_map(|(id, peer)| Some((*id, refused(peer)?))).collect();
        drop(admissions);
        for (id, reason) in refused {
            let Some(peer) = self.peers.get(&id) else { continue };
            tracing::info!(user = user_of(peer), remote = %peer.remote, %reason, "a connection is ended");
            peer.closer.reset();
            // One whose ticket has only expired comes back with another.
            if matches!(reason, NotAdmitted::Revoked | NotAdmitted::NotAnnounced(_)) {
                self.engine.handle(now, Event::Forget(peer.key));
            }
        }
    }

    /// Ordinary clients that may be dialled. Who is listed with a key is never dialled without it.
    pub(super) fn addresses_came(&mut self, addresses: &[SocketAddr]) {
        let is_member = |address: &SocketAddr| self.contacts.values().any(|contact| contact.address == *address);
        let plain = addresses.iter().filter(|address| !is_member(address));
        let candidate =
            |address: &SocketAddr| Candidate { key: key_at(*address), address: *address, dial_as_seeder: true };
        let candidates = plain.map(candidate).collect();
        self.engine.handle(Instant::now(), Event::PeersFound(candidates));
    }

    pub(super) fn addresses_left(&mut self, addresses: &[SocketAddr]) {
        let now = Instant::now();
        addresses.iter().for_each(|address| self.engine.handle(now, Event::PeerGone(key_at(*address))));
        self.check_admissions();
    }

    /// Whether an ordinary client is one too many: connected already, for it may be known by the address that was dialled
    /// and by the name that it came with, which the engine takes for two; or one that would take the members' places.
    pub(super) fn is_surplus(&mut self, open: &OpenPeer) -> bool {
        let Credential::Address(own) = open.credential else { return false };
        let (mut is_second, mut n_of_address, mut n_ordinary) = (false, 0, 0);
        for peer in self.peers.values() {
            let Credential::Address(from) = peer.credential else { continue };
            is_second |= peer.peer_id == open.peer_id && peer.key != open.key;
            n_of_address += usize::from(from == own);
            n_ordinary += 1;
        }
        let leaves_no_room = self.plan.name.group.is_some() && n_ordinary >= MAX_ORDINARY_IN_GROUP;
        let is_surplus = is_second || n_of_address >= MAX_OF_ADDRESS || leaves_no_room;
        if is_surplus && open.direction == Direction::Dialled {
            self.engine.handle(Instant::now(), Event::PeerGone(open.key));
        }
        is_surplus
    }

    /// A candidate whose key stands for its address is an ordinary client; all others have to prove theirs.
    pub(super) fn dial(&mut self, Candidate { key, address, .. }: Candidate) {
        let (opener, name) = (self.plan.opener.clone(), self.plan.name);
        let TorrentName { info_hash, group } = name;
        self.dials.spawn(async move {
            let dialled = match group {
                _ if key == key_at(address) => opener.dial_plain(address, name).await,
                Some(group) => opener.dial(address, PublicKey(key.0), info_hash, group).await,
                None => Err(PeerError::OtherPeer),
            };
            (key, dialled)
        });
    }

    pub(super) fn dialled(&mut self, key: PeerKey, dialled: Result<OpenPeer, PeerError>) {
        let error = match dialled {
            Ok(open) => {
                self.refusal = None;
                return self.connected(open);
            }
            Err(error) => error,
        };
        let now = Instant::now();
        if let PeerError::Own = error {
            return self.engine.handle(now, Event::PeerGone(key));
        }
        if error.is_refusal() && self.plan.foreign.is_none() {
            let user = self.contacts.get(&PublicKey(key.0)).map(|contact| contact.user.to_string());
            tracing::info!(user, %error, "a peer is not dealt with");
        } else {
            tracing::debug!(%error, "a peer cannot be reached");
        }
        self.refusal = Some(error.to_string());
        self.engine.handle(now, Event::DialFailed(key));
    }

    pub(super) fn banned(&self, key: PeerKey, reason: engine::PeerMisbehavior) {
        let contact = self.contacts.get(&PublicKey(key.0));
        let peer = self.peers.values().find(|peer| peer.key == key);
        let user = peer.and_then(user_of).or(contact.map(|contact| contact.user.to_string()));
        let user = user.unwrap_or_else(|| "unknown".to_owned());
        let address = peer.map(|peer| peer.remote).or(contact.map(|contact| contact.address));
        tracing::warn!(%user, ?address, ?reason, torrent = %self.plan.name.info_hash, "a peer is banned");
    }
}

/// The user of a member's client.
fn user_of(peer: &Peer) -> Option<String> {
    match &peer.credential {
        Credential::Ticket(ticket) => Some(ticket.user.to_string()),
        Credential::Address(_) => None,
    }
}
