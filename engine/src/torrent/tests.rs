//! One torrent against scripted peers, and its invariants after any list of events.

use super::Torrent;
use crate::limits::{Config, Limits, PieceOrder};
use crate::{
    Action, Candidate, CloseReason, ConnectionId, Direction, Event, Message, Outgoing, PeerKey, PeerMisbehavior,
};
use mini_torrent_common::bitfield::Bitfield;
use mini_torrent_common::geometry::{Block, Geometry, PieceIndex};
use mini_torrent_common::hash::Sha1Hash;
use proptest::prelude::*;
use std::time::{Duration, Instant};

#[path = "../../tests/event_list/mod.rs"]
#[expect(unreachable_pub, reason = "shared with the integration tests and the fuzz target")]
mod event_list;
mod offers;

const PIECE_LENGTH: u64 = 64 * 1024;
const OWN_KEY: PeerKey = PeerKey([5; 32]);

/// A torrent, its clock, and what it wanted done last.
struct Bench {
    torrent: Torrent,
    now: Instant,
    actions: Vec<Action>,
}

impl Bench {
    fn new(n_pieces: u32, has_all: bool, limits: Limits) -> Self {
        let geometry = Geometry::new(u64::from(n_pieces) * PIECE_LENGTH, PIECE_LENGTH).unwrap();
        let have = if has_all { Bitfield::all(n_pieces) } else { Bitfield::none(n_pieces) };
        let piece_order = PieceOrder::Rarest;
        let now = start();
        let config = Config { geometry, have, own_key: OWN_KEY, piece_order, limits, seed: 1 };
        Self { torrent: Torrent::new(config, now), now, actions: Vec::new() }
    }

    fn handle(&mut self, event: Event) -> &[Action] {
        self.torrent.handle(self.now, event);
        self.drain()
    }

    fn wait(&mut self, time: Duration) -> &[Action] {
        let end = self.now + time;
        let mut actions = Vec::new();
        while let Some(at) = self.torrent.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.torrent.handle_timeout(self.now);
            actions.extend(self.drain());
        }
        self.now = end;
        self.actions = actions;
        &self.actions
    }

    fn drain(&mut self) -> &[Action] {
        self.actions = std::iter::from_fn(|| self.torrent.poll_action()).collect();
        check(&self.torrent);
        &self.actions
    }

    fn connect(&mut self, n: u8) -> &[Action] {
        let connection = ConnectionId(n.into());
        self.handle(Event::Connected { connection, key: key(n), direction: Direction::Accepted, fast: true })
    }

    fn receive(&mut self, n: u8, message: Message) -> &[Action] {
        self.handle(Event::Received { connection: ConnectionId(n.into()), message })
    }

    /// Connects a seeder that unchokes us; returns the requests made of it.
    fn seeder(&mut self, n: u8) -> Vec<Block> {
        self.connect(n);
        self.receive(n, Message::HaveAll);
        requests(self.receive(n, Message::Unchoke))
    }

    fn deliver(&mut self, n: u8, block: Block) -> &[Action] {
        self.receive(n, Message::Block { index: block.piece.get(), begin: block.begin, length: block.length })
    }

    fn piece(&self, index: u32) -> PieceIndex {
        self.torrent.geometry.piece(index).unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "an arbitrary origin")]
fn start() -> Instant {
    Instant::now()
}

fn key(n: u8) -> PeerKey {
    PeerKey([n; 32])
}

fn requests(actions: &[Action]) -> Vec<Block> {
    let request = |action: &Action| match action {
        Action::Send { message: Outgoing::Request(block), .. } => Some(*block),
        _ => None,
    };
    actions.iter().filter_map(request).collect()
}

fn sent(actions: &[Action], message: Outgoing) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Send { message: m, .. } if *m == message)).count()
}

fn close_reason(actions: &[Action]) -> Option<CloseReason> {
    actions.iter().find_map(|action| if let Action::Close { reason, .. } = action { Some(*reason) } else { None })
}

fn banned(actions: &[Action]) -> Vec<PeerKey> {
    actions.iter().filter_map(|action| if let Action::Ban { key, .. } = action { Some(*key) } else { None }).collect()
}

/// What must hold between the parts of a torrent, the slow way.
fn check(torrent: &Torrent) {
    torrent.picker.check();
    let mut requesters = torrent.picker.requesters();
    for (connection, peer) in &torrent.peers {
        assert_eq!(torrent.by_key.get(&peer.key), Some(connection));
        assert_eq!(peer.n_wanted, peer.held.n_outside(torrent.have()));
        assert_eq!(peer.are_we_interested, peer.n_wanted > 0);
        for request in peer.outstanding.iter() {
            let n = requesters.get_mut(&request.block).expect("the picker knows each request");
            *n = n.checked_sub(1).expect("no block is requested more often than the picker knows");
        }
    }
    assert!(requesters.values().all(|n| *n == 0), "a request that nobody was asked");
    for (piece, owner) in torrent.picker.owners() {
        assert_eq!(torrent.peers.get(&owner).and_then(|peer| peer.current), Some(piece));
    }
    assert_eq!(torrent.by_key.len(), torrent.peers.len());
    assert_eq!(torrent.picker.n_seeders(), torrent.peers.values().filter(|peer| peer.held.is_all()).count());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_event_list_keeps_the_invariants(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        event_list::run(start(), &bytes, check);
    }
}

/// B12: aria2 sends a bitfield where it is shorter than many `have`.
#[test]
fn what_a_peer_has_grows_with_each_announcement() {
    let mut bench = Bench::new(10, false, Limits::default());
    bench.connect(1);
    let held = |bench: &Bench| bench.torrent.peers(bench.now).next().unwrap().n_have;
    for (message, n_pieces) in [
        (Message::HaveNone, 0),
        (Message::Have(9), 1),
        (Message::Bitfield(vec![0b1100_0000, 0]), 3),
        (Message::Bitfield(vec![0b0010_0000, 0b0100_0000]), 4),
        (Message::HaveNone, 4),
        (Message::Bitfield(vec![0xff, 0b1000_0000]), 10),
        (Message::Bitfield(vec![0, 0]), 10),
        (Message::HaveAll, 10),
    ] {
        assert_eq!(close_reason(bench.receive(1, message.clone())), None, "{message:?}");
        assert_eq!(held(&bench), n_pieces, "{message:?}");
    }
    assert!(!requests(bench.receive(1, Message::Unchoke)).is_empty());
}

/// B8 among others: each misdeed ends the connection under its name.
#[test]
fn each_misdeed_closes_the_connection_under_its_name() {
    use PeerMisbehavior as M;
    let request = |index, begin, length| Message::Request { index, begin, length };
    let cases: Vec<(Vec<Message>, M)> = vec![
        (vec![Message::Bitfield(vec![0; 3])], M::BitfieldLength),
        (vec![Message::Bitfield(vec![0, 1])], M::BitfieldSpareBit),
        (vec![Message::Have(10)], M::HaveOutOfRange),
        (vec![request(10, 0, 1)], M::RequestOutOfRange),
        (vec![request(0, 65_000, 1000)], M::RequestOutOfRange),
        (vec![request(0, u32::MAX, 2)], M::RequestOutOfRange),
        (vec![request(0, 0, 0)], M::RequestOutOfRange),
        (vec![request(0, 0, 128 * 1024 + 1)], M::RequestTooLong),
        (vec![request(0, 0, 1); 2049], M::TooManyRequests),
        (vec![Message::Block { index: 10, begin: 0, length: 1 }], M::BlockOutOfRange),
        (vec![Message::Block { index: 1, begin: 0, length: 16_384 }; 257], M::UnrequestedBlocks),
    ];
    for (messages, misdeed) in cases {
        let mut bench = Bench::new(10, true, Limits::default());
        bench.connect(1);
        let (last, before) = messages.split_last().unwrap();
        for message in before {
            assert_eq!(close_reason(bench.receive(1, message.clone())), None, "{misdeed:?}");
        }
        let actions = bench.receive(1, last.clone());
        assert_eq!(close_reason(actions), Some(CloseReason::Misbehavior(misdeed)));
        assert!(banned(actions).is_empty(), "only lies ban");
    }
}

#[test]
fn fast_messages_need_the_fast_extension() {
    for message in [Message::HaveAll, Message::Suggest(0), Message::Reject { index: 0, begin: 0, length: 1 }] {
        let mut bench = Bench::new(10, false, Limits::default());
        let connection = ConnectionId(1);
        bench.handle(Event::Connected { connection, key: key(1), direction: Direction::Dialled, fast: false });
        let expected = CloseReason::Misbehavior(PeerMisbehavior::FastNotAgreed);
        assert_eq!(close_reason(bench.receive(1, message)), Some(expected));
    }
}

#[test]
fn unknown_messages_and_hints_are_tolerated() {
    let mut bench = Bench::new(10, false, Limits::default());
    bench.connect(1);
    for message in [Message::Unknown, Message::KeepAlive, Message::ExtendedHandshake { max_requests: None }] {
        assert!(bench.receive(1, message).is_empty());
    }
    assert_eq!(close_reason(bench.receive(1, Message::HaveAll)), None, "the announcement may follow those");
    assert!(bench.receive(1, Message::AllowedFast(99)).is_empty());
}

#[test]
fn choked_peer_request_is_rejected_and_no_misdeed() {
    let mut bench = Bench::new(10, true, Limits { upload_slots: 0, ..Limits::default() });
    bench.connect(1);
    let block = bench.torrent.geometry.nth_block(bench.piece(0), 0).unwrap();
    let actions = bench.receive(1, Message::Request { index: 0, begin: 0, length: 16_384 });
    assert_eq!(actions, [Action::Send { connection: ConnectionId(1), message: Outgoing::Reject(block) }]);
}

#[test]
fn a_request_for_a_missing_piece_is_rejected() {
    let mut bench = Bench::new(10, false, Limits::default());
    bench.connect(1);
    let actions = bench.receive(1, Message::Request { index: 0, begin: 0, length: 16_384 });
    assert!(matches!(actions, [Action::Send { message: Outgoing::Reject(_), .. }]), "{actions:?}");
}

#[test]
fn requests_are_passed_on_within_the_limit_and_taken_back_when_choked() {
    let limits = Limits { serving_bytes: 32_768, upload_slots: 1, ..Limits::default() };
    let mut bench = Bench::new(10, true, limits);
    bench.connect(1);
    let n_served: usize =
        (0..4).map(|n| bench.receive(1, Message::Request { index: 0, begin: n * 16_384, length: 16_384 }).len()).sum();
    assert_eq!(n_served, 2, "two of four fit");
    let block = bench.torrent.geometry.nth_block(bench.piece(0), 0).unwrap();
    let actions = bench.handle(Event::Served { connection: ConnectionId(1), block });
    assert!(matches!(actions, [Action::Serve { .. }]), "{actions:?}");
    bench.connect(2);
    bench.receive(2, Message::Interested);
    let actions = bench.wait(Duration::from_secs(11)).to_vec();
    assert_eq!(sent(&actions, Outgoing::Choke), 1);
    assert_eq!(sent(&actions, Outgoing::Unchoke), 1);
    let n_cancelled = actions.iter().filter(|action| matches!(action, Action::CancelServe { .. })).count();
    assert_eq!(n_cancelled, 2);
}

/// All are served for a while, so nobody waits, and still some have to go.
#[test]
fn slots_that_brought_nothing_are_taken_back() {
    let limits = Limits::default();
    let mut bench = Bench::new(4, true, limits.clone());
    let n_served = |bench: &Bench| bench.torrent.peers.values().filter(|peer| peer.is_unchoked).count();
    for n in 11..=18 {
        bench.connect(n);
        bench.receive(n, Message::Interested);
        bench.receive(n, Message::Request { index: 0, begin: 0, length: 16384 });
    }
    let n_few = n_served(&bench);
    assert!(n_few < 8, "{n_few}");
    bench.wait(Duration::from_secs(6));
    assert_eq!(n_served(&bench), 8, "more are tried, though nothing goes out");
    bench.wait(limits.choke_round * 2);
    assert_eq!(n_served(&bench), n_few);
}

#[test]
fn duplicates_of_a_connection_are_settled_alike_on_both_sides() {
    for (other, first, kept_is_new) in [
        (9, Direction::Accepted, true),
        (9, Direction::Dialled, false),
        (1, Direction::Accepted, false),
        (1, Direction::Dialled, true),
    ] {
        let second = if first == Direction::Dialled { Direction::Accepted } else { Direction::Dialled };
        let mut bench = Bench::new(10, false, Limits::default());
        let connected =
            |n, direction| Event::Connected { connection: ConnectionId(n), key: key(other), direction, fast: true };
        bench.handle(connected(1, first));
        let actions = bench.handle(connected(2, second)).to_vec();
        let closed = ConnectionId(if kept_is_new { 1 } else { 2 });
        assert!(actions.contains(&Action::Close { connection: closed, reason: CloseReason::Duplicate }), "{actions:?}");
        assert_eq!(bench.torrent.peers.len(), 1);
    }
}

#[test]
fn itself_and_strangers_beyond_the_limit_are_refused() {
    let mut bench = Bench::new(10, false, Limits { connections: 1, ..Limits::default() });
    assert_eq!(close_reason(bench.connect(5)), Some(CloseReason::SelfConnection));
    assert_eq!(close_reason(bench.connect(1)), None);
    assert_eq!(close_reason(bench.connect(2)), Some(CloseReason::TooManyConnections));
}

#[test]
fn with_enough_connections_nobody_is_dialled_but_others_may_come() {
    let mut bench = Bench::new(10, false, Limits { connections_dialling: 1, ..Limits::default() });
    assert_eq!(close_reason(bench.connect(1)), None);
    let candidate = Candidate { key: key(2), address: ([10, 0, 0, 2], 1).into(), dial_as_seeder: false };
    let found = bench.handle(Event::PeersFound(vec![candidate]));
    assert!(!found.iter().any(|action| matches!(action, Action::Dial(_))), "{found:?}");
    assert_eq!(close_reason(bench.connect(3)), None);
}

#[test]
fn who_is_not_admitted_any_more_is_dropped_and_not_dialled_before_it_is_named_again() {
    let mut bench = Bench::new(10, false, Limits::default());
    let candidate = Candidate { key: key(1), address: ([10, 0, 0, 1], 1).into(), dial_as_seeder: false };
    assert_eq!(bench.handle(Event::PeersFound(vec![candidate])), [Action::Dial(candidate)]);
    assert_eq!(close_reason(bench.connect(1)), None);
    let ended = bench.handle(Event::Forget(key(1)));
    assert!(!ended.iter().any(|action| matches!(action, Action::Dial(_))), "{ended:?}");
    assert_eq!(close_reason(ended), Some(CloseReason::Barred));
    assert_eq!(bench.handle(Event::PeersFound(vec![candidate])), [Action::Dial(candidate)]);
    assert_eq!(close_reason(bench.connect(1)), None, "whoever accepts it has judged it");
}

#[test]
fn a_complete_torrent_dials_nobody_and_parts_from_seeders() {
    let mut bench = Bench::new(10, true, Limits::default());
    let candidate = Candidate { key: key(1), address: ([10, 0, 0, 1], 1).into(), dial_as_seeder: false };
    assert!(bench.handle(Event::PeersFound(vec![candidate])).is_empty());
    bench.connect(1);
    assert_eq!(close_reason(bench.receive(1, Message::HaveAll)), Some(CloseReason::NothingToExchange));
}

#[test]
fn a_complete_torrent_dials_who_may_be_unable_to_dial_it_until_that_has_everything() {
    let mut bench = Bench::new(10, true, Limits::default());
    let candidate = Candidate { key: key(1), address: ([10, 0, 0, 1], 1).into(), dial_as_seeder: true };
    assert_eq!(bench.handle(Event::PeersFound(vec![candidate])), [Action::Dial(candidate)]);
    bench.connect(1);
    assert_eq!(close_reason(bench.receive(1, Message::HaveAll)), Some(CloseReason::NothingToExchange));
    assert!(!bench.wait(Duration::from_secs(300)).iter().any(|action| matches!(action, Action::Dial(_))));
}

#[test]
fn a_block_is_stored_once_and_a_late_one_is_no_misdeed() {
    let mut bench = Bench::new(10, false, Limits { unrequested_blocks: 0, ..Limits::default() });
    let asked = bench.seeder(1);
    assert_eq!(asked.len(), 8, "the queue starts small");
    let first = bench.deliver(1, asked[0])[0];
    assert_eq!(first, Action::Store { connection: ConnectionId(1), block: asked[0] });
    bench.receive(1, Message::Choke);
    let late = bench.deliver(1, asked[1])[0];
    assert_eq!(late, Action::Store { connection: ConnectionId(1), block: asked[1] }, "late, and still of use");
    let actions = bench.deliver(1, asked[1]).to_vec();
    assert!(!matches!(actions.first(), Some(Action::Store { .. })));
    assert!(close_reason(&actions).is_some(), "the same again was not asked for");
}

#[test]
fn a_verified_piece_is_announced_at_once_and_served() {
    let mut bench = Bench::new(1, false, Limits::default());
    bench.connect(2);
    bench.receive(2, Message::HaveNone);
    for block in bench.seeder(1) {
        bench.deliver(1, block);
    }
    let piece = bench.piece(0);
    assert!(bench.actions.contains(&Action::Verify { piece, with_block_digests: false }));
    let actions = bench.handle(Event::PieceVerified { piece, block_digests: None }).to_vec();
    assert_eq!(sent(&actions, Outgoing::Have(piece)), 2, "to who lacks it, and to who follows how it spreads");
    assert!(actions.contains(&Action::Completed));
    assert!(actions.contains(&Action::Close { connection: ConnectionId(1), reason: CloseReason::NothingToExchange }));
    let actions = bench.receive(2, Message::Request { index: 0, begin: 0, length: 16_384 });
    assert!(matches!(actions, [Action::Serve { .. }]), "{actions:?}");
}

#[test]
fn a_silent_peer_is_snubbed_after_four_seconds_and_others_take_over() {
    let mut bench = Bench::new(2, false, Limits::default());
    let asked = bench.seeder(1);
    assert!(bench.seeder(2).is_empty(), "all is asked for");
    let actions = bench.wait(Duration::from_millis(4300)).to_vec();
    assert!(asked.iter().all(|block| {
        actions.contains(&Action::Send { connection: ConnectionId(2), message: Outgoing::Request(*block) })
    }));
    assert!(bench.torrent.peers[&ConnectionId(1)].outstanding.len() <= 1);
    bench.wait(Duration::from_secs(60));
    assert!(bench.torrent.peers.is_empty(), "the dead are let go");
}

#[test]
fn the_only_holder_is_kept_though_it_stalls() {
    let mut bench = Bench::new(2, false, Limits::default());
    let asked = bench.seeder(1);
    let probes = requests(bench.wait(Duration::from_secs(5)));
    assert_eq!(probes.len(), 1);
    assert!(asked.contains(&probes[0]));
    assert!(requests(bench.deliver(1, probes[0])).len() > 1, "back at work");
}

#[test]
fn the_sole_sender_of_a_corrupt_piece_is_banned_for_good() {
    let mut bench = Bench::new(1, false, Limits::default());
    for block in bench.seeder(1) {
        bench.deliver(1, block);
    }
    let corrupt = Event::PieceCorrupt { piece: bench.piece(0), block_digests: vec![Sha1Hash::of(b""); 4] };
    assert_eq!(banned(bench.handle(corrupt)), [key(1)]);
    assert_eq!(bench.torrent.have().n_set(), 0);
    assert_eq!(close_reason(bench.connect(1)), Some(CloseReason::Barred));
    let candidate = Candidate { key: key(1), address: ([10, 0, 0, 1], 1).into(), dial_as_seeder: false };
    assert!(bench.handle(Event::PeersFound(vec![candidate])).is_empty());
}

#[test]
fn of_several_contributors_exactly_the_liar_is_banned() {
    let mut bench = Bench::new(1, false, Limits { requests_initial: 2, ..Limits::default() });
    let honest = bench.seeder(1);
    let lying = bench.seeder(2);
    let piece = bench.piece(0);
    assert_eq!((honest.len(), lying.len()), (2, 2), "the second helps");
    for (n, block) in [(1, honest[0]), (1, honest[1]), (2, lying[0]), (2, lying[1])] {
        bench.deliver(n, block);
    }
    let digest = |nth: u32, is_true: bool| Sha1Hash::of(format!("{nth} {is_true}").as_bytes());
    let is_lie = |nth: u32| bench.torrent.geometry.nth_block(piece, nth) == Some(lying[1]);
    let digests = (0..4).map(|nth| digest(nth, !is_lie(nth))).collect();
    let actions = bench.handle(Event::PieceCorrupt { piece, block_digests: digests }).to_vec();
    assert!(banned(&actions).is_empty(), "not known yet");
    let Action::Send { connection, .. } = *actions.iter().find(|a| !requests(&[**a]).is_empty()).unwrap() else {
        unreachable!()
    };
    let n = u8::try_from(connection.0).unwrap();
    let mut todo = requests(&actions);
    while let Some(block) = todo.pop() {
        todo.extend(requests(bench.deliver(n, block)));
    }
    assert!(bench.actions.contains(&Action::Verify { piece, with_block_digests: true }), "{:?}", bench.actions);
    let digests = Some((0..4).map(|nth| digest(nth, true)).collect());
    assert_eq!(banned(bench.handle(Event::PieceVerified { piece, block_digests: digests })), [key(2)]);
}

#[test]
fn nothing_new_is_requested_while_paused() {
    let mut bench = Bench::new(10, false, Limits::default());
    let asked = bench.seeder(1);
    bench.handle(Event::Paused);
    assert!(matches!(bench.deliver(1, asked[0]), [Action::Store { .. }]));
    assert!(!requests(bench.handle(Event::Resumed)).is_empty());
}

#[test]
fn a_lost_piece_is_missing_again() {
    let mut bench = Bench::new(1, false, Limits::default());
    for block in bench.seeder(1) {
        bench.deliver(1, block);
    }
    let piece = bench.piece(0);
    assert_eq!(requests(bench.handle(Event::PieceLost { piece })).len(), 4);
}

#[test]
fn never_more_than_the_peer_keeps_is_outstanding() {
    let mut bench = Bench::new(100, false, Limits::default());
    bench.connect(1);
    bench.receive(1, Message::ExtendedHandshake { max_requests: Some(3) });
    bench.receive(1, Message::HaveAll);
    assert_eq!(requests(bench.receive(1, Message::Unchoke)).len(), 3);
}

#[test]
fn keep_alives_are_sent_every_thirty_seconds() {
    let mut bench = Bench::new(1, true, Limits::default());
    bench.connect(1);
    assert_eq!(sent(bench.wait(Duration::from_secs(95)), Outgoing::KeepAlive), 3);
    assert_eq!(close_reason(bench.wait(Duration::from_secs(40))), Some(CloseReason::TimedOut));
}
