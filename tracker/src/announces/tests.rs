//! The swarm memory alone: no socket, no store.

#![allow(clippy::cast_possible_truncation, reason = "small numbers of the tests' own")]

use super::*;
use std::collections::{BTreeMap, BTreeSet};

const LEASE_S: u64 = crate::limits::ANNOUNCE_LEASE.as_secs();
const TICK_S: u64 = Tick::SECONDS;
const KEY: KeyIndex = KeyIndex(7);
const ALL: Wanted = Wanted { v4: 200, v6: 200 };

fn empty() -> Announces {
    Announces::new([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210])
}

fn hash(n: u32) -> InfoHash {
    let digest = mini_torrent_common::hash::Sha1Hash::of(&n.to_be_bytes());
    InfoHash(digest.0)
}

fn v4(n: u32) -> SocketAddr {
    SocketAddr::new((0x0a00_0000 + n).to_be_bytes().into(), 6881)
}

fn v6(n: u16) -> SocketAddr {
    SocketAddr::new([0x2001, 0xdb8, 0, 0, 0, 0, 0, n].into(), 6881)
}

fn announce(info_hash: InfoHash, address: SocketAddr, seeder: bool, event: Event) -> Announce {
    Announce { info_hash, address, key: KEY, seeder, event }
}

fn put(announces: &Announces, address: SocketAddr, seeder: bool, now_s: u64) -> (Announced, BTreeSet<SocketAddr>) {
    let mut peers = BTreeSet::new();
    let announce = announce(hash(1), address, seeder, Event::Periodic);
    let announced = announces.announce(&announce, ALL, now_s, |peer| assert!(peers.insert(peer), "named twice"));
    (announced.unwrap(), peers)
}

fn sweep_all(announces: &Announces, n_slots: usize, now_s: u64) -> BTreeSet<SocketAddr> {
    let mut ended = BTreeSet::new();
    for shard in 0..N_SHARDS {
        while !announces.sweep(shard, n_slots, now_s, |_, address| assert!(ended.insert(address))) {}
    }
    ended
}

fn counts(complete: u32, downloaded: u32, incomplete: u32) -> Counts {
    Counts { complete, downloaded, incomplete }
}

/// D6: a leecher that completes has become a seeder, and is counted once.
#[test]
fn d6_counters_follow_the_peers() {
    let announces = empty();
    assert_eq!(announces.counts(hash(1)), None);
    assert_eq!(put(&announces, v4(1), true, 0).0, Announced { counts: counts(1, 0, 0), change: Change::Came });
    assert_eq!(put(&announces, v4(2), false, 0).0, Announced { counts: counts(1, 0, 1), change: Change::Came });
    assert_eq!(put(&announces, v6(3), false, 0).0.counts, counts(1, 0, 2));
    assert_eq!(put(&announces, v4(2), true, 9).0, Announced { counts: counts(2, 1, 1), change: Change::Completed });
    assert_eq!(put(&announces, v4(2), true, 9).0, Announced { counts: counts(2, 1, 1), change: Change::Stayed });
    assert_eq!(announces.counts(hash(1)), Some(counts(2, 1, 1)));
}

/// D7: who leaves is gone at once.
#[test]
fn d7_a_peer_that_stops_is_gone() {
    let announces = empty();
    put(&announces, v4(1), false, 0);
    put(&announces, v4(2), false, 0);
    let stop = announce(hash(1), v4(1), false, Event::Stopped);
    let left = announces.announce(&stop, ALL, 0, |_| panic!("who leaves needs no peers")).unwrap();
    assert_eq!(left, Announced { counts: counts(0, 0, 1), change: Change::Left });
    assert_eq!(announces.announce(&stop, ALL, 0, |_| ()).unwrap().change, Change::Absent);
    assert!(put(&announces, v4(3), false, 0).1.eq(&[v4(2)].into()));
}

/// D8: who is killed is gone when the lease ends; who announces stays.
#[test]
fn d8_leases_end_and_live_peers_stay() {
    let announces = empty();
    for n in 0..1000 {
        put(&announces, v4(n), false, 0);
        put(&announces, v6(n as u16), true, 0);
    }
    for n in 0..500 {
        put(&announces, v4(n), false, LEASE_S);
    }
    assert!(sweep_all(&announces, 7, LEASE_S).is_empty());
    let later = LEASE_S + 2 * TICK_S;
    let (_, named) = put(&announces, v4(0), false, later);
    assert!(named.iter().all(|peer| (1..500).any(|n| v4(n) == *peer)), "an ended lease is not named before the sweep");
    let ended = sweep_all(&announces, 7, later);
    let expected = (500..1000).map(v4).chain((0..1000).map(v6)).collect::<BTreeSet<_>>();
    assert_eq!(ended, expected);
    assert_eq!(announces.counts(hash(1)), Some(counts(0, 0, 500)));
    assert_eq!(sweep_all(&announces, 1, 3 * LEASE_S).len(), 500);
    assert_eq!(announces.counts(hash(1)), None, "an empty swarm is forgotten");
}

#[test]
fn a_revoked_key_ends_its_peers_and_no_others() {
    let announces = empty();
    let with =
        |n: u32| Announce { key: KeyIndex(n % 3), ..announce(hash(1), v4(n), n.is_multiple_of(2), Event::Started) };
    for n in 0..300 {
        announces.announce(&with(n), ALL, 0, |_| ()).unwrap();
    }
    let mut ended = BTreeSet::new();
    announces.end_key(hash(1), KeyIndex(1), |address| assert!(ended.insert(address)));
    assert_eq!(ended, (0..300).filter(|n| n % 3 == 1).map(v4).collect());
    let mut left = BTreeMap::new();
    announces.peers(hash(1), 0, |peer| assert!(left.insert(peer.address, peer.key).is_none()));
    assert_eq!(left, (0..300).filter(|n| n % 3 != 1).map(|n| (v4(n), KeyIndex(n % 3))).collect());
    announces.end_key(hash(2), KeyIndex(0), |_| panic!("another file"));
    announces.end_swarm(hash(1), |address| assert!(left.remove(&address).is_some()));
    assert!(left.is_empty());
}

#[test]
fn samples_are_bounded_varied_and_of_use() {
    let announces = empty();
    (0..1000).for_each(|n| drop(put(&announces, v4(n), true, 0)));
    (0..100).for_each(|n| drop(put(&announces, v6(n), false, 0)));
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        let (mut n_v4, mut n_v6) = (0, 0);
        let asker = announce(hash(1), v4(2000), false, Event::Periodic);
        let named = announces.announce(&asker, Wanted { v4: 50, v6: 5 }, 0, |peer| {
            assert_ne!(peer, v4(2000), "the asker is not named to himself");
            if peer.is_ipv4() {
                n_v4 += 1
            } else {
                n_v6 += 1
            }
            seen.insert(peer);
        });
        assert!(named.is_ok() && n_v4 == 50 && n_v6 == 5, "{n_v4} {n_v6}");
    }
    assert!(seen.len() > 1050, "{} peers were ever named", seen.len());
    assert!(
        put(&announces, v4(1), true, 0).1.iter().all(|peer| peer.is_ipv6() || *peer == v4(2000)),
        "a seeder to a seeder"
    );
}

/// The table against a map, with peers coming, staying and going in a small range of addresses.
#[test]
fn any_course_of_events_ends_as_in_a_plain_map() {
    let mut random = Shard::new(Seed([5, 6]), 1, Room { n_peers: Arc::default(), max_peers: 0, max_swarms: 0 });
    for round in 0..20 {
        let (announces, mut model) = (empty(), BTreeMap::new());
        let mut now_s = 1_000_000 * round;
        for _ in 0..3000 {
            let dice = random.next_random();
            let n = (dice >> 8) as u32 % 150;
            let address = if dice & 1 == 0 { v4(n) } else { v6(n as u16) };
            match dice >> 4 & 0xf {
                0..=3 => {
                    let stop = announce(hash(1), address, false, Event::Stopped);
                    let change = announces.announce(&stop, ALL, now_s, |_| ()).unwrap().change;
                    let there = model.remove(&address).is_some();
                    assert_eq!(change, if there { Change::Left } else { Change::Absent });
                }
                4 => {
                    now_s += 100 * TICK_S;
                    sweep_all(&announces, 5, now_s);
                    model.retain(|_, (_, at)| (now_s - *at) / TICK_S <= LEASE_S.div_ceil(TICK_S));
                }
                _ => {
                    let seeder = dice & 2 == 0;
                    put(&announces, address, seeder, now_s);
                    model.insert(address, (seeder, now_s));
                }
            }
        }
        let mut peers = BTreeMap::new();
        announces.peers(hash(1), now_s, |peer| assert!(peers.insert(peer.address, peer.seeder).is_none()));
        assert_eq!(peers, model.iter().map(|(address, (seeder, _))| (*address, *seeder)).collect());
        let n_seeders = model.values().filter(|(seeder, _)| *seeder).count() as u32;
        let now = announces.counts(hash(1)).unwrap_or_default();
        assert_eq!((now.complete, now.incomplete), (n_seeders, model.len() as u32 - n_seeders));
    }
}

/// 1,000,000 peers in 10,000 swarms, of equal sizes and of very unequal ones.
#[test]
fn a_million_peers_take_less_than_40_mib() {
    let hashes: Vec<InfoHash> = (0..10_000).map(hash).collect();
    for unequal in [false, true] {
        let announces = empty();
        for n in 0..1_000_000u32 {
            // Half the peers in the first tenth of the swarms, a quarter in the next, and so on.
            let tenth = if unequal { n.trailing_ones().min(9) } else { n % 10 };
            let swarm = hashes[(tenth * 1000 + n / 10 % 1000) as usize];
            let announce = announce(swarm, v4(n), n.is_multiple_of(4), Event::Started);
            announces.announce(&announce, Wanted { v4: 0, v6: 0 }, 0, |_| ()).unwrap();
        }
        let n_mib = announces.n_bytes() / (1024 * 1024);
        assert!(n_mib < 40, "{n_mib} MiB, unequal: {unequal}");
    }
}

/// What an announce touches is as little in a swarm of a million as in one of a thousand, whatever pattern the
/// addresses have: a range, one host with many ports, a network of IPv6.
#[test]
fn an_announce_costs_the_same_in_every_swarm() {
    let seed = Seed([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);
    let ports = |n: u32| SocketAddr::new([10, 0, 0, (n >> 16) as u8].into(), (n & 0xffff) as u16 | 1);
    let network = |n: u32| SocketAddr::new((0x2001_0db8u128 << 96 | u128::from(n)).to_be_bytes().into(), 6881);
    let patterns: [fn(u32) -> SocketAddr; 3] = [v4, ports, network];
    for (n_peers, pattern) in [1000, 100_000, 1_000_000].into_iter().flat_map(|n| patterns.map(|pattern| (n, pattern)))
    {
        let mut swarm = Swarm::new(hash(1));
        for n in 0..n_peers {
            swarm.put(pattern(n), false, KEY, Tick::at(0), seed);
        }
        let probes = swarm.probes_per_100_peers(seed);
        assert!(probes < 400, "{n_peers} peers such as {}: {probes} slots for 100 announces", pattern(1));
    }
}

#[test]
fn several_threads_serve_at_once() {
    let announces = empty();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let announces = &announces;
            scope.spawn(move || {
                for n in (0..8000).filter(|n| n % 4 == thread) {
                    let announce = announce(hash(n / 4 % 20), v4(n), false, Event::Started);
                    announces.announce(&announce, ALL, 0, |_| ()).unwrap();
                }
            });
        }
    });
    assert!((0..20).all(|n| announces.counts(hash(n)) == Some(counts(0, 0, 400))));
}

#[test]
fn a_full_tracker_keeps_those_that_it_has() {
    let announces = Announces::with_room([1, 2], 10, N_SHARDS);
    (0..10).for_each(|n| assert_eq!(put(&announces, v4(n), false, 0).0.change, Change::Came));
    let one_more = announce(hash(1), v4(10), false, Event::Started);
    assert_eq!(announces.announce(&one_more, ALL, 0, |_| ()), Err(Full));
    assert_eq!(put(&announces, v4(1), true, 0).0.change, Change::Completed);
    announces.announce(&announce(hash(1), v4(2), false, Event::Stopped), ALL, 0, |_| ()).unwrap();
    assert_eq!(announces.announce(&one_more, ALL, 0, |_| ()).unwrap().change, Change::Came);
    announces.end_swarm(hash(1), |_| ());
    let swarms = (2..1000).filter(|n| {
        let announce = announce(hash(*n), v4(1), false, Event::Started);
        let taken = announces.announce(&announce, ALL, 0, |_| ()).is_ok();
        announces.end_swarm(hash(*n), |_| ());
        taken
    });
    assert!((1..N_SHARDS).contains(&swarms.count()), "one swarm in each shard, and those of before");
}

#[test]
fn the_packed_slots_are_as_small_as_promised() {
    let one = |address| {
        let mut swarm = Swarm::new(hash(1));
        swarm.put(address, false, KEY, Tick::at(0), Seed([1, 2]));
        swarm.n_bytes()
    };
    assert_eq!(one(v4(1)), 4 * 12);
    assert_eq!(one(v6(1)) - size_of::<table::Table<[u8; 16]>>(), 4 * 24);
}

#[test]
fn memory_comes_back_when_peers_leave() {
    let announces = empty();
    (0..10_000).for_each(|n| drop(put(&announces, v4(n), false, 0)));
    let n_most = announces.n_bytes();
    (0..100).for_each(|n| drop(put(&announces, v4(n), false, LEASE_S)));
    sweep_all(&announces, 100, LEASE_S + 2 * TICK_S);
    assert!(announces.n_bytes() < n_most / 4, "{} of {n_most}", announces.n_bytes());
}
