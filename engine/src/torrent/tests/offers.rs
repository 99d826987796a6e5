//! What a seeder suggests, and what a leecher makes of it.

use super::{Bench, requests};
use crate::limits::Limits;
use crate::{Action, ConnectionId, Event, Message, Outgoing};
use mini_torrent_common::geometry::PieceIndex;
use std::collections::BTreeSet;
use std::time::Duration;

fn suggested(actions: &[Action]) -> Vec<PieceIndex> {
    let suggestion = |action: &Action| match action {
        Action::Send { message: Outgoing::Suggest(piece), .. } => Some(*piece),
        _ => None,
    };
    actions.iter().filter_map(suggestion).collect()
}

#[test]
fn a_seeder_suggests_each_piece_to_one_leecher_and_the_next_when_one_is_asked_for() {
    let mut bench = Bench::new(10, true, Limits::default());
    assert!(suggested(bench.connect(1)).is_empty(), "a sole leecher needs no hints");
    let second = bench.connect(2).to_vec();
    let offered = suggested(&second);
    assert_eq!(offered.len(), 2);
    assert_eq!(second.last(), Some(&Action::Send { connection: ConnectionId(2), message: Outgoing::Unchoke }));
    let request = |piece: PieceIndex, begin| Message::Request { index: piece.get(), begin, length: 16_384 };
    let free = (0..10).map(|index| bench.piece(index)).find(|piece| !offered.contains(piece)).unwrap();
    let first = suggested(bench.receive(1, request(free, 0)));
    assert!(!first.is_empty() && !first.contains(&free), "what is asked for counts as given");
    assert!(first.iter().all(|piece| !offered.contains(piece)));
    let next = suggested(bench.receive(2, request(offered[0], 0)));
    assert!(!next.is_empty() && next.iter().all(|piece| !first.contains(piece) && !offered.contains(piece)));
    assert!(suggested(bench.receive(2, request(offered[0], 16_384))).is_empty(), "a block of the same piece");
}

#[test]
fn what_was_given_to_a_peer_that_leaves_is_given_to_others() {
    let mut bench = Bench::new(4, true, Limits::default());
    bench.connect(1);
    bench.connect(2);
    let given = suggested(bench.connect(3));
    assert_eq!(given.len(), 2, "with those of the second these are all");
    let again: BTreeSet<_> = suggested(bench.handle(Event::Disconnected(ConnectionId(3)))).into_iter().collect();
    assert_eq!(again, given.into_iter().collect());
}

#[test]
fn a_leecher_asks_for_what_is_suggested_and_for_other_pieces_when_nothing_more_is() {
    let mut bench = Bench::new(20, false, Limits::default());
    bench.connect(2);
    bench.connect(1);
    bench.receive(1, Message::HaveAll);
    bench.receive(1, Message::Suggest(7));
    bench.receive(1, Message::Suggest(99));
    let asked = requests(bench.receive(1, Message::Unchoke));
    assert_eq!(asked.len(), 4, "one piece, though more requests are open");
    assert!(asked.iter().all(|block| block.piece.get() == 7));
    let next = requests(bench.receive(1, Message::Suggest(3)));
    assert!(next.len() == 4 && next.iter().all(|block| block.piece.get() == 3), "{next:?}");
    for block in asked.into_iter().chain(next) {
        assert!(requests(bench.deliver(1, block)).is_empty());
    }
    assert!(requests(bench.wait(Duration::from_secs(1))).len() > 4, "the patience has an end");
}
