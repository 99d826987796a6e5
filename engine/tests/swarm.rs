//! Whole swarms under a virtual clock: what every honest peer may count on, whatever the others do.

mod sim;

use mini_torrent_engine::{CloseReason, Limits, PieceOrder};
use sim::{Have, MIB, Plan, Swarm};
use std::collections::BTreeSet;
use std::time::Duration;

const PIECE: u64 = 512 * 1024;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn wasted_share(swarm: &Swarm) -> f64 {
    let stats: Vec<_> = swarm.nodes.iter().map(|node| node.torrent.stats(origin())).collect();
    let kept: u64 = stats.iter().map(|stats| stats.downloaded_bytes).sum();
    let wasted: u64 = stats.iter().map(|stats| stats.wasted_bytes).sum();
    wasted as f64 / kept.max(1) as f64
}

#[expect(clippy::disallowed_methods, reason = "only totals are read, which do not depend on the time")]
fn origin() -> std::time::Instant {
    std::time::Instant::now()
}

/// B10: all pieces arrive, and each was verified.
#[test]
fn one_leecher_completes_from_one_seeder_and_both_part() {
    let mut swarm = Swarm::new(64 * MIB + 1, PIECE, 1, vec![Plan::seeder(), Plan::leecher()]);
    assert!(swarm.run(seconds(60)));
    let took = swarm.nodes[1].completed_at.unwrap();
    assert!(took < seconds(4), "64 MiB at 20 MB/s took {took:?}");
    assert_eq!(wasted_share(&swarm), 0.0);
    swarm.run_for(seconds(70));
    assert!(swarm.nodes[1].closes.contains(&CloseReason::NothingToExchange));
    assert_eq!(swarm.nodes[0].torrent.stats(origin()).n_connections, 0);
}

/// A10, C6, E15: several holders are all used, each piece by chance, and at the same time.
#[test]
fn every_holder_is_used_and_chosen_at_random() {
    let mut plans = vec![Plan::leecher()];
    plans.extend((0..4).map(|_| Plan::seeder()));
    let mut swarm = Swarm::new(256 * MIB, PIECE, 2, plans);
    assert!(swarm.run(seconds(60)));
    let took = swarm.nodes[0].completed_at.unwrap();
    assert!(took < seconds(5), "256 MiB at 4 x 20 MB/s took {took:?}");
    let received = &swarm.nodes[0].received_from;
    assert_eq!(received.len(), 4);
    let expected = (256 * MIB / 4) as f64;
    for (holder, bytes) in received {
        let share = *bytes as f64 / expected;
        assert!((0.7..1.3).contains(&share), "seed 2: holder {holder} sent {share:.2} of its share");
    }
    assert!(wasted_share(&swarm) < 0.01, "{}", wasted_share(&swarm));
}

/// A10: even a small file comes from both seeders, on a network as fast as loopback.
#[test]
fn a_small_file_comes_from_two_seeders() {
    for seed in 0..10 {
        let fast = |plan: Plan| Plan { upload_bytes_per_s: 500_000_000, latency: Duration::from_micros(100), ..plan };
        let late = Plan { joins_at: Duration::from_millis(2), ..fast(Plan::seeder()) };
        let plans = vec![fast(Plan::leecher()), fast(Plan::seeder()), late];
        let mut swarm = Swarm::new(16 * MIB, PIECE, seed, plans);
        assert!(swarm.run(seconds(10)), "seed {seed}");
        let received = &swarm.nodes[0].received_from;
        println_stat("two seeders, 16 MiB", &format!("seed {seed}: {received:?}"));
        assert!(received.len() == 2 && received.values().all(|bytes| *bytes >= MIB), "seed {seed}: {received:?}");
        assert!(wasted_share(&swarm) < 0.02, "seed {seed}: {}", wasted_share(&swarm));
    }
}

/// E16: the order of pieces is not the order of the file, unless asked for.
#[test]
fn pieces_come_in_random_order_unless_sequential_is_asked_for() {
    let order = |piece_order| {
        let leecher = Plan { piece_order, ..Plan::leecher() };
        let mut swarm = Swarm::new(64 * MIB, PIECE, 3, vec![Plan::seeder(), leecher]);
        assert!(swarm.run(seconds(60)));
        let pieces: Vec<u32> = swarm.nodes[1].verified.iter().map(|(piece, _)| *piece).collect();
        pieces.windows(2).filter(|pair| pair[1] == pair[0] + 1).count()
    };
    assert!(order(PieceOrder::Rarest) < 10);
    assert!(order(PieceOrder::Random) < 10);
    assert!(order(PieceOrder::Sequential) >= 120);
}

/// A11, B11: one seeder serves two at once, and they serve each other meanwhile.
#[test]
fn two_downloaders_are_served_at_the_same_time_and_serve_each_other() {
    let mut swarm = Swarm::new(128 * MIB, PIECE, 4, vec![Plan::seeder(), Plan::leecher(), Plan::leecher()]);
    assert!(swarm.run(seconds(60)));
    let ends: Vec<_> = swarm.nodes[1..].iter().map(|node| node.completed_at.unwrap()).collect();
    assert!(ends[0].abs_diff(ends[1]) < seconds(2), "{ends:?}");
    for (node, other) in [(1, 2), (2, 1)] {
        assert!(swarm.nodes[node].received_from[&other] > 16 * MIB, "{:?}", swarm.nodes[node].received_from);
    }
    let took = ends[0].max(ends[1]);
    let copies = swarm.nodes[0].torrent.stats(origin()).uploaded_bytes as f64 / (128 * MIB) as f64;
    println_stat("two leechers", &format!("took {took:?}, seeder sent {copies:.2} copies"));
    assert!(copies < 1.5, "the seeder sent {copies} copies");
}

/// A14, E17: what a downloader has it serves, with the first seeder gone.
#[test]
fn a_downloader_serves_a_third_with_the_seeder_gone() {
    let seeder = Plan { leaves_at: Some(seconds(10)), ..Plan::seeder() };
    let third = Plan { joins_at: seconds(11), ..Plan::leecher() };
    let mut swarm = Swarm::new(32 * MIB, PIECE, 5, vec![seeder, Plan::leecher(), third]);
    assert!(swarm.run(seconds(60)));
    assert_eq!(swarm.nodes[2].received_from.keys().copied().collect::<Vec<_>>(), [1]);
}

/// C7: availability counts every connected holder.
#[test]
fn peers_with_parts_make_a_whole_and_are_counted_truly() {
    let part =
        |n: u32| Plan { have: Have::Pieces((0..64).filter(|piece| piece % 4 == n).collect()), ..Plan::leecher() };
    let mut swarm = Swarm::new(32 * MIB, PIECE, 6, (0..4).map(part).collect());
    assert!(swarm.run(seconds(60)), "seed 6");
    let mut late = Swarm::new(
        32 * MIB,
        PIECE,
        6,
        vec![
            Plan { stalls_at: Some(Duration::ZERO), ..part(0) },
            Plan { stalls_at: Some(Duration::ZERO), ..part(0) },
            Plan { stalls_at: Some(Duration::ZERO), ..part(1) },
        ],
    );
    late.run_for(seconds(2));
    let availability: Vec<_> = late.geometry.pieces().map(|piece| late.nodes[2].torrent.availability(piece)).collect();
    assert!(availability.iter().zip(0..).all(|(n, index)| *n == if index % 4 == 0 { 2 } else { 0 }));
}

/// A stalled peer costs less than ten seconds.
#[test]
fn a_stall_is_healed_within_ten_seconds() {
    for seed in 0..5 {
        let staller = Plan { stalls_at: Some(seconds(1)), ..Plan::seeder() };
        let mut swarm = Swarm::new(96 * MIB, PIECE, seed, vec![Plan::leecher(), staller, Plan::seeder()]);
        assert!(swarm.run(seconds(100)), "seed {seed}");
        let took = swarm.nodes[0].completed_at.unwrap();
        println_stat("stall", &format!("seed {seed}: took {took:?}, wasted {:.4}", wasted_share(&swarm)));
        assert!(took < seconds(12), "seed {seed}: took {took:?}");
        assert!(wasted_share(&swarm) < 0.02, "seed {seed}: {}", wasted_share(&swarm));
    }
}

/// A peer that stalls at the very end is overtaken as soon as others have nothing to do.
#[test]
fn a_stall_of_the_last_blocks_is_healed_too() {
    for stall_ms in [100, 300, 500, 700] {
        let staller = Plan { stalls_at: Some(Duration::from_millis(stall_ms)), ..Plan::seeder() };
        let mut swarm = Swarm::new(32 * MIB, PIECE, stall_ms, vec![Plan::leecher(), staller, Plan::seeder()]);
        assert!(swarm.run(seconds(100)), "{stall_ms}");
        let took = swarm.nodes[0].completed_at.unwrap();
        assert!(took < seconds(6), "stall at {stall_ms} ms: took {took:?}");
    }
}

/// B9: wrong bytes never count, the piece comes from elsewhere, and the liar is out.
#[test]
fn liars_are_banned_and_honest_peers_never() {
    for seed in 0..20 {
        let lies = [1.0, 0.3, 0.02][usize::try_from(seed % 3).unwrap()];
        let liar = Plan { lies, ..Plan::seeder() };
        let mut plans = vec![liar.clone(), liar, Plan::seeder(), Plan::seeder()];
        plans.extend(
            (0..4).map(|_| Plan { limits: Limits { requests_max: 16, ..Limits::default() }, ..Plan::leecher() }),
        );
        let mut swarm = Swarm::new(32 * MIB, PIECE, seed, plans);
        assert!(swarm.run(seconds(300)), "seed {seed}");
        for node in &swarm.nodes[4..] {
            let n_corrupt = node.torrent.stats(origin()).n_corrupt;
            assert!(lies < 0.3 || n_corrupt == 0 || !node.banned.is_empty(), "seed {seed}: {n_corrupt} corrupt");
            assert!(n_corrupt <= 80, "seed {seed}: {n_corrupt} corrupt");
        }
    }
}

/// Liars whose blocks are mixed with those of honest peers within one piece are told apart.
#[test]
fn a_liar_among_the_contributors_of_a_piece_is_found() {
    let mut n_found = 0;
    for seed in 0..10 {
        // One large piece, so that all must contribute to it.
        let liar = Plan { lies: 0.5, ..Plan::seeder() };
        let plans = vec![Plan::leecher(), liar, Plan::seeder(), Plan::seeder()];
        let mut swarm = Swarm::new(32 * MIB, 16 * MIB, seed, plans);
        assert!(swarm.run(seconds(300)), "seed {seed}");
        let stats = swarm.nodes[0].torrent.stats(origin());
        if stats.n_corrupt > 0 {
            assert!(swarm.nodes[0].banned.contains_key(&Swarm::key_of(1)), "seed {seed}: {stats:?}");
            n_found += 1;
        }
    }
    assert!(n_found >= 8, "{n_found}");
}

#[test]
fn cuts_partitions_leavers_and_joiners_do_not_stop_the_others() {
    for seed in 0..12 {
        let n_leechers = 2 + usize::try_from(seed).unwrap() * 2;
        let mut plans = vec![Plan::seeder(), Plan { fast: false, ..Plan::seeder() }];
        plans.extend((0..n_leechers).map(|n| Plan {
            joins_at: Duration::from_millis(n as u64 * 300),
            leaves_at: (n % 5 == 4).then(|| seconds(3)),
            leaves_complete: n % 7 == 3,
            fast: n % 3 != 0,
            latency: Duration::from_millis(1 + (n as u64 * 13) % 60),
            upload_bytes_per_s: 2_000_000 + (n as u64 * 7_000_000) % 30_000_000,
            ..Plan::leecher()
        }));
        let mut swarm = Swarm::new(24 * MIB + 12_345, PIECE, seed, plans);
        swarm.cut_all_at(Duration::from_millis(900));
        swarm.partition(Duration::from_millis(1500), seconds(6));
        assert!(swarm.run(seconds(300)), "seed {seed}");
        let wasted = wasted_share(&swarm);
        println_stat("cuts", &format!("seed {seed}: {n_leechers} leechers, wasted {wasted:.4}"));
        assert!(wasted < 0.02, "seed {seed}: wasted {wasted}");
    }
}

/// Fifty peers, one seeder of the same speed: everyone exchanges with everyone.
#[test]
fn fifty_peers_exchange_among_themselves() {
    let mut plans = vec![Plan::seeder()];
    plans.extend((0..49).map(|_| Plan::leecher()));
    let mut swarm = Swarm::new(16 * MIB, PIECE / 4, 7, plans);
    assert!(swarm.run(seconds(300)), "seed 7");
    let took = swarm.nodes.iter().filter_map(|node| node.completed_at).max().unwrap();
    let copies = swarm.nodes[0].torrent.stats(origin()).uploaded_bytes as f64 / (16 * MIB) as f64;
    println_stat(
        "fifty",
        &format!("took {took:?}, seeder sent {copies:.2} copies, wasted {:.4}", wasted_share(&swarm)),
    );
    assert!(took < seconds(10), "{took:?}");
    assert!(wasted_share(&swarm) < 0.02, "{}", wasted_share(&swarm));
    let n_sources: Vec<_> = swarm.nodes[1..].iter().map(|node| node.received_from.len()).collect();
    assert!(n_sources.iter().all(|n| *n >= 10), "{n_sources:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut swarm = Swarm::new(8 * MIB, PIECE, 8, vec![Plan::seeder(), Plan::leecher(), Plan::leecher()]);
        assert!(swarm.run(seconds(60)));
        swarm.nodes.iter().map(|node| (node.completed_at, node.verified.clone())).collect::<BTreeSet<_>>()
    };
    assert_eq!(run(), run());
}

#[expect(clippy::print_stdout, reason = "measurements, shown with --nocapture")]
fn println_stat(name: &str, text: &str) {
    println!("{name}: {text}");
}
