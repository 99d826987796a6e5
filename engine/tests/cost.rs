//! What deciding costs: large torrents start at once and a block is handled in well under a microsecond.
//! The times are printed (`--nocapture`); the asserted bounds are loose, for unoptimised builds on busy machines.

use mini_torrent_common::bitfield::Bitfield;
use mini_torrent_common::geometry::Geometry;
use mini_torrent_engine::{
    Action, Config, ConnectionId, Direction, Event, Limits, Message, Outgoing, PeerKey, PieceOrder, Torrent,
};
use std::time::{Duration, Instant};

fn torrent(n_pieces: u32, piece_length: u64, now: Instant) -> Torrent {
    let geometry = Geometry::new(u64::from(n_pieces) * piece_length, piece_length).expect("a valid geometry");
    let (have, own_key) = (Bitfield::none(n_pieces), PeerKey([0; 32]));
    let config =
        Config { geometry, have, own_key, piece_order: PieceOrder::Rarest, limits: Limits::default(), seed: 1 };
    Torrent::new(config, now)
}

fn connect(torrent: &mut Torrent, now: Instant, n: u8, pieces: Message) {
    let connection = ConnectionId(n.into());
    let key = PeerKey([n; 32]);
    torrent.handle(now, Event::Connected { connection, key, direction: Direction::Accepted, fast: true });
    torrent
        .handle(now, Event::Received { connection, message: Message::ExtendedHandshake { max_requests: Some(2048) } });
    torrent.handle(now, Event::Received { connection, message: pieces });
}

#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn measured<T>(name: &str, work: impl FnOnce(Instant) -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work(start);
    let took = start.elapsed();
    report(name, took);
    (result, took)
}

#[expect(clippy::print_stdout, reason = "measurements, shown with --nocapture")]
fn report(name: &str, took: Duration) {
    println!("{name}: {took:?}");
}

#[test]
fn two_million_pieces_start_at_once() {
    let n_pieces = 2_000_000;
    let (mut torrent, took) = measured("new, 2 M pieces", |now| torrent(n_pieces, 512 * 1024, now));
    assert!(took < Duration::from_secs(2), "{took:?}");
    let (_, took) = measured("100 seeders", |now| {
        (1..=100).for_each(|n| connect(&mut torrent, now, n, Message::HaveAll));
    });
    assert!(took < Duration::from_millis(100), "{took:?}");
    let (_, took) = measured("one bitfield of every third piece", |now| {
        let bytes = (0..n_pieces / 8).map(|n| [0b1001_0010, 0b0100_1001, 0b0010_0100][n as usize % 3]).collect();
        connect(&mut torrent, now, 101, Message::Bitfield(bytes));
    });
    assert!(took < Duration::from_secs(2), "{took:?}");
    let (_, took) = measured("unchoked by that peer", |now| {
        torrent.handle(now, Event::Received { connection: ConnectionId(101), message: Message::Unchoke });
    });
    assert!(took < Duration::from_millis(100), "{took:?}");
}

#[test]
fn a_block_costs_well_under_a_microsecond() {
    for n_peers in [1u8, 50, 199] {
        let now = measured("start", |now| now).0;
        let mut torrent = torrent(2048, 512 * 1024, now);
        (1..=n_peers).for_each(|n| connect(&mut torrent, now, n, Message::HaveAll));
        (1..=n_peers).for_each(|n| {
            torrent.handle(now, Event::Received { connection: ConnectionId(n.into()), message: Message::Unchoke });
        });
        let mut requests = std::collections::VecDeque::new();
        let (mut n_blocks, mut verify) = (0u32, Vec::new());
        let (_, took) = measured(&format!("1 GiB from {n_peers} seeders"), |_| {
            let mut clock = now;
            loop {
                while let Some(action) = torrent.poll_action() {
                    match action {
                        Action::Send { connection, message: Outgoing::Request(block) } => {
                            requests.push_back((connection, block));
                        }
                        Action::Verify { piece, .. } => verify.push(piece),
                        _ => {}
                    }
                }
                if let Some(piece) = verify.pop() {
                    torrent.handle(clock, Event::PieceVerified { piece, block_digests: None });
                    continue;
                }
                let Some((connection, block)) = requests.pop_front() else { break };
                clock += Duration::from_micros(16);
                let message = Message::Block { index: block.piece.get(), begin: block.begin, length: block.length };
                torrent.handle(clock, Event::Received { connection, message });
                n_blocks += 1;
            }
        });
        assert!(torrent.is_complete());
        report(&format!("  {n_blocks} blocks, each"), took / n_blocks);
        assert!(took / n_blocks < Duration::from_micros(20), "{took:?}");
    }
}
