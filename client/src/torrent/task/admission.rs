//! Whom a torrent deals with: dialling those that the tracker named, and letting go of those who are not admitted any
//! more.

use mini_torrent_common::tls::PublicKey;
use mini_torrent_engine::{self as engine, Candidate, Event, PeerKey};
use std::time::Instant;

use super::{Peer, Task};
use crate::admission::{Moment, NotAdmitted};
use crate::peer::{OpenPeer, PeerError};

impl Task {
    /// Lets go of peers whose tickets are not good any more.
    pub(super) fn check_tickets(&mut self) {
        let (now, moment) = (Instant::now(), Moment::now());
        let admissions = self.plan.opener.admissions.borrow_and_update();
        let refused = |peer: &Peer| admissions.check_again(&peer.ticket, moment).err();
        let refused: Vec<_> = self.peers.iter().filter_map(|(id, peer)| Some((*id, refused(peer)?))).collect();
        drop(admissions);
        for (id, reason) in refused {
            let Some(peer) = self.peers.get(&id) else { continue };
            tracing::info!(user = %peer.ticket.user, remote = %peer.remote, %reason, "a connection is ended");
            peer.closing.cancel();
            // One whose ticket has only expired comes back with another.
            if reason == NotAdmitted::Revoked {
                self.engine.handle(now, Event::Forget(PeerKey(peer.ticket.holder.0)));
            }
        }
    }

    pub(super) fn dial(&mut self, Candidate { key, address }: Candidate) {
        let (opener, torrent) = (self.plan.opener.clone(), self.plan.name());
        self.dials.spawn(async move { (key, opener.dial(address, PublicKey(key.0), torrent).await) });
    }

    pub(super) fn dialled(&mut self, key: PeerKey, dialled: Result<OpenPeer, PeerError>) {
        match dialled {
            Ok(open) => {
                self.refusal = None;
                self.connected(open);
            }
            Err(error) => {
                if error.is_refusal() {
                    let user = self.contacts.get(&PublicKey(key.0)).map(|contact| contact.user.to_string());
                    tracing::info!(user, %error, "a peer is not dealt with");
                } else {
                    tracing::debug!(%error, "a peer cannot be reached");
                }
                self.refusal = Some(error.to_string());
                self.engine.handle(Instant::now(), Event::DialFailed(key));
            }
        }
    }

    pub(super) fn banned(&self, key: PeerKey, reason: engine::PeerMisbehavior) {
        let contact = self.contacts.get(&PublicKey(key.0));
        let peer = self.peers.values().find(|peer| peer.ticket.holder.0 == key.0);
        let user = peer.map(|peer| &peer.ticket.user).or(contact.map(|contact| &contact.user));
        let user = user.map_or_else(|| "unknown".to_owned(), ToString::to_string);
        let address = peer.map(|peer| peer.remote).or(contact.map(|contact| contact.address));
        tracing::warn!(%user, ?address, ?reason, torrent = %self.plan.info_hash, "a peer is banned");
    }
}
