//! What a foreign torrent tells its peers besides the file: its `info` dictionary (BEP 9) and, unless it is private,
//! each other (BEP 11). A group's torrent takes no part in this.

use mini_torrent_common::address::may_dial_named_by;
use mini_torrent_common::peer_extension::{
    METADATA_PIECE_LENGTH, Metadata, Pex, PexPeer, UT_METADATA, UT_PEX, metadata_piece_length, n_metadata_pieces,
};
use mini_torrent_common::peer_wire::Message;
use mini_torrent_engine::ConnectionId;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Peer, Task};
use crate::peer::PeerCommand;
use crate::torrent::Foreign;

/// How often peers tell each other of peers, at most (BEP 11).
const EXCHANGE_INTERVAL: Duration = Duration::from_secs(60);
/// A peer that tells of peers more often than this is not heard.
const MIN_EXCHANGE_INTERVAL: Duration = Duration::from_secs(30);
/// Peers that one peer is told of.
const MAX_TOLD: usize = 50;
/// How often one peer gets the whole dictionary.
const MAX_METADATA_ROUNDS: u32 = 2;

/// What a peer can, and what it was told.
#[derive(Debug, Default)]
pub(super) struct PeerExtensions {
    ut_metadata: Option<u8>,
    ut_pex: Option<u8>,
    n_metadata_served: u32,
    told: BTreeSet<SocketAddr>,
    heard_at: Option<Instant>,
}

impl Task {
    /// Takes in what a peer says by an extension of ours.
    pub(super) fn extended(&mut self, connection: ConnectionId, message: &Message) {
        let Some(foreign) = self.plan.foreign.as_ref() else { return };
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        match message {
            Message::ExtendedHandshake(theirs) => {
                peer.extensions.ut_metadata = theirs.ut_metadata;
                peer.extensions.ut_pex = theirs.ut_pex.filter(|_| !foreign.private);
            }
            Message::Extended { number: UT_METADATA, body } => match Metadata::decode(body) {
                Ok(Metadata::Request { piece }) => give_metadata(foreign, peer, piece),
                Ok(_) => {}
                Err(error) => malformed(peer, &error),
            },
            Message::Extended { number: UT_PEX, body } if !foreign.private => match Pex::decode(body) {
                Ok(pex) => self.heard_of_peers(connection, &pex),
                Err(error) => malformed(peer, &error),
            },
            _ => {}
        }
    }

    /// Peers that a peer named: none of a narrower scope than its own, so that it cannot aim us at our own network.
    fn heard_of_peers(&mut self, connection: ConnectionId, pex: &Pex) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        let now = Instant::now();
        let is_early = |at: Instant| now.saturating_duration_since(at) < MIN_EXCHANGE_INTERVAL;
        if peer.extensions.heard_at.is_some_and(is_early) {
            return;
        }
        peer.extensions.heard_at = Some(now);
        let named_by = peer.remote.ip();
        let added = pex.added.iter().map(|added| added.address);
        let added: Vec<_> = added.filter(|address| may_dial_named_by(*address, named_by)).collect();
        self.addresses_came(&added);
    }

    /// Tells peers of those that came and went since they were told last. Only addresses that we dialled are known to
    /// be of use to others.
    pub(super) fn tell_of_peers(&mut self, now: Instant) {
        let is_exchanging = self.plan.foreign.as_ref().is_some_and(|foreign| !foreign.private);
        if !is_exchanging || now.saturating_duration_since(self.exchanged_at) < EXCHANGE_INTERVAL {
            return;
        }
        self.exchanged_at = now;
        let dialled = self.peers.values().filter(|peer| peer.is_dialled).map(|peer| peer.remote);
        let current: BTreeSet<SocketAddr> = dialled.take(MAX_TOLD).collect();
        for peer in self.peers.values_mut() {
            let Some(number) = peer.extensions.ut_pex else { continue };
            let told = &mut peer.extensions.told;
            let added = current.difference(told).filter(|address| **address != peer.remote);
            let added =
                added.map(|address| PexPeer { address: *address, flags: PexPeer::REACHABLE }).collect::<Vec<_>>();
            let dropped = told.difference(&current).copied().collect::<Vec<_>>();
            if added.is_empty() && dropped.is_empty() {
                continue;
            }
            told.clone_from(&current);
            peer.batch.push(PeerCommand::Send(Pex { added, dropped }.to_message(number)));
        }
    }
}

/// Answers a request for a part of the dictionary; whoever asks too often is refused.
fn give_metadata(foreign: &Foreign, peer: &mut Peer, piece: u32) {
    let Some(number) = peer.extensions.ut_metadata else { return };
    let total_length = u32::try_from(foreign.raw_info.len()).unwrap_or_default();
    let length = metadata_piece_length(total_length, piece);
    let is_granted = peer.extensions.n_metadata_served < MAX_METADATA_ROUNDS * n_metadata_pieces(total_length);
    let answer = match length.filter(|_| is_granted) {
        None => Metadata::Reject { piece },
        Some(length) => {
            peer.extensions.n_metadata_served += 1;
            let start = piece as usize * METADATA_PIECE_LENGTH as usize;
            Metadata::Data { piece, total_length, block: foreign.raw_info.slice(start..start + length as usize) }
        }
    };
    peer.batch.push(PeerCommand::Send(answer.to_message(number)));
}

fn malformed(peer: &Peer, error: &dyn std::fmt::Display) {
    tracing::info!(remote = %peer.remote, %error, "a peer's extension message is malformed");
    peer.closer.close();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Content;
    use crate::peer::Closer;
    use crate::peer::Credential;
    use crate::torrent::TorrentStatus;
    use crate::torrent::task::Mailboxes;
    use crate::torrent::tests::{fetching, info, patiently, plan};
    use crate::torrent::wire::own_extended_handshake;
    use bytes::Bytes;
    use mini_torrent_common::bitfield::Bitfield;
    use mini_torrent_common::hash::PeerId;
    use mini_torrent_common::peer_wire::ExtendedHandshake;
    use mini_torrent_engine::PeerKey;
    use std::sync::Arc;
    use tokio::net::TcpListener;
    use tokio::sync::{mpsc, watch};

    const THEIR_NUMBER: u8 = 9;
    /// The connection to the other one of two that exchange.
    const OTHER: ConnectionId = ConnectionId(0);
    /// The connection to a third.
    const THIRD: ConnectionId = ConnectionId(1);

    fn peer() -> Peer {
        Peer {
            commands: mpsc::channel(1).0,
            batch: Vec::new(),
            closer: Closer::default(),
            key: PeerKey([1; 32]),
            credential: Credential::Address([10, 0, 0, 1].into()),
            peer_id: PeerId([2; 20]),
            remote: "10.0.0.1:5".parse().unwrap(),
            is_dialled: false,
            fast: true,
            extensions: PeerExtensions { ut_metadata: Some(THEIR_NUMBER), ..PeerExtensions::default() },
        }
    }

    fn answer(foreign: &Foreign, peer: &mut Peer, piece: u32) -> Option<Metadata> {
        give_metadata(foreign, peer, piece);
        match peer.batch.pop()? {
            PeerCommand::Send(Message::Extended { number: THEIR_NUMBER, body }) => {
                Some(Metadata::decode(&body).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_dictionary_is_given_in_parts_a_bounded_number_of_times() {
        let raw_info: Vec<u8> = (0..40_000u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let foreign = Foreign { raw_info: Bytes::from(raw_info.clone()), private: false };
        let mut peer = peer();
        for _ in 0..MAX_METADATA_ROUNDS {
            let parts = (0..3).map(|piece| match answer(&foreign, &mut peer, piece) {
                Some(Metadata::Data { piece: index, total_length: 40_000, block }) if index == piece => block,
                other => panic!("{other:?}"),
            });
            assert_eq!(parts.collect::<Vec<_>>().concat(), raw_info);
        }
        assert_eq!(answer(&foreign, &mut peer, 0), Some(Metadata::Reject { piece: 0 }), "it has had it twice");
    }

    #[test]
    fn parts_that_are_none_are_refused_and_who_named_no_number_gets_nothing() {
        let foreign = Foreign { raw_info: Bytes::from_static(b"d1:ae"), private: true };
        for piece in [1, u32::MAX] {
            assert_eq!(answer(&foreign, &mut peer(), piece), Some(Metadata::Reject { piece }));
        }
        let mut silent = Peer { extensions: PeerExtensions::default(), ..peer() };
        assert_eq!(answer(&foreign, &mut silent, 0), None);
    }

    /// A client that lacks a foreign torrent's file, and is connected to another one that has said what it can.
    fn exchanging(private: bool) -> Task {
        let directory = tempfile::tempdir().unwrap();
        let info = info(private);
        let plan = plan(&info, fetching(&info, directory.path()));
        let (_, control) = mpsc::channel(1);
        let (_, incoming) = mpsc::channel(1);
        let (reports, _) = mpsc::channel(1);
        let mailboxes = Mailboxes { control, incoming, reports, status: watch::channel(TorrentStatus::default()).0 };
        let content = Content::partial(Arc::new(tempfile::tempfile().unwrap()));
        let have = Bitfield::none(plan.geometry.n_pieces());
        let mut task = Task::new(plan, mailboxes, content, None, have);
        task.peers.insert(OTHER, Peer { remote: "127.0.0.1:5".parse().unwrap(), ..peer() });
        task.extended(OTHER, &own_extended_handshake(task.plan.foreign.clone().as_ref()));
        task
    }

    /// What it tells the other one when the time has come.
    fn told(task: &mut Task) -> Vec<Message> {
        task.tell_of_peers(task.exchanged_at + EXCHANGE_INTERVAL);
        let commands = task.peers.get_mut(&OTHER).unwrap().batch.drain(..);
        commands.map(|command| if let PeerCommand::Send(message) = command { message } else { panic!() }).collect()
    }

    #[tokio::test]
    async fn two_of_ours_tell_each_other_of_peers_and_dial_them() {
        let (mut teller, mut hearer) = (exchanging(false), exchanging(false));
        for _ in 0..2 {
            assert_eq!(told(&mut teller), [], "nobody to tell of");
            let third = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let remote = third.local_addr().unwrap();
            teller.peers.insert(THIRD, Peer { remote, is_dialled: true, ..peer() });
            let messages = told(&mut teller);
            assert_eq!(messages.len(), 1);
            messages.iter().for_each(|message| hearer.extended(OTHER, message));
            hearer.act();
            patiently(third.accept()).await.unwrap();
            assert_eq!(told(&mut teller), [], "known already");
            // Who says it again at once is not heard.
            let other =
                Pex { added: vec![PexPeer { address: "127.0.0.1:9".parse().unwrap(), flags: 0 }], dropped: vec![] };
            hearer.extended(OTHER, &other.to_message(UT_PEX));
            hearer.act();
            assert_eq!(hearer.dials.len(), 1);
            teller.peers.remove(&THIRD);
            let left = Pex { added: vec![], dropped: vec![remote] };
            assert_eq!(told(&mut teller), [left.to_message(UT_PEX)]);
            // And the other way round.
            std::mem::swap(&mut teller, &mut hearer);
        }
    }

    /// Design §3: a peer that is reached from everywhere does not aim us at our own network or machine.
    #[tokio::test]
    async fn a_peer_names_none_of_a_narrower_scope() {
        let mut task = exchanging(false);
        task.peers.get_mut(&OTHER).unwrap().remote = "198.51.100.1:5".parse().unwrap();
        let named = ["127.0.0.1:9", "10.0.0.9:9", "[::1]:9", "[::ffff:192.168.0.1]:9"];
        let added = named.map(|address| PexPeer { address: address.parse().unwrap(), flags: 0 }).to_vec();
        task.extended(OTHER, &Pex { added, dropped: vec![] }.to_message(UT_PEX));
        task.act();
        assert_eq!(task.dials.len(), 0);
    }

    /// BEP 27: the peers of a private torrent come from its trackers alone.
    #[tokio::test]
    async fn in_a_private_torrent_nobody_is_told_of_and_nobody_heard() {
        let mut task = exchanging(true);
        let Message::ExtendedHandshake(own) = own_extended_handshake(task.plan.foreign.as_ref()) else { panic!() };
        assert_eq!(own.ut_pex, None, "not offered");
        // Somebody who offers it nevertheless.
        let theirs = ExtendedHandshake { ut_pex: Some(UT_PEX), ..ExtendedHandshake::default() };
        task.extended(OTHER, &Message::ExtendedHandshake(theirs));
        let remote = "127.0.0.1:9".parse().unwrap();
        task.peers.insert(THIRD, Peer { remote, is_dialled: true, ..peer() });
        assert_eq!(told(&mut task), []);
        let pex = Pex { added: vec![PexPeer { address: remote, flags: 0 }], dropped: vec![] };
        task.extended(OTHER, &pex.to_message(UT_PEX));
        task.act();
        assert_eq!(task.dials.len(), 0);
    }
}
