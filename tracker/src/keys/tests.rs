//! The table alone.

use super::*;
use crate::limits;
use mini_torrent_common::announce_key::AnnounceKey;
use std::net::SocketAddr;

fn key(n: u32) -> AnnounceKey {
    AnnounceKey::derive(&[1; 32], hash(n), n)
}

fn hash(n: u32) -> InfoHash {
    InfoHash([u8::try_from(n).unwrap(); 20])
}

fn admitted(n: u32) -> AdmittedKey {
    AdmittedKey {
        id: KeyId(n.into()),
        user: "bob".parse().unwrap(),
        listing: ListingId(n.into()),
        info_hash: hash(n),
        digest: key(n).digest(),
        built_in: false,
    }
}

fn replace(table: &KeyTable, keys: &[u32], open: &[u32]) -> Vec<(InfoHash, Option<KeyIndex>)> {
    let open = open.iter().map(|n| crate::store::OpenFile { listing: ListingId((*n).into()), info_hash: hash(*n) });
    let admitted = Admitted { change: 1, keys: keys.iter().map(|n| admitted(*n)).collect(), open: open.collect() };
    let mut ended = Vec::new();
    table.replace(admitted, |one| ended.push((one.info_hash, one.key)));
    ended
}

fn index(table: &KeyTable, n: u32) -> Option<KeyIndex> {
    table.hold().find(&key(n)).map(|(index, _)| index)
}

#[test]
fn a_key_keeps_its_place_and_an_ended_one_gives_it_back() {
    let table = KeyTable::default();
    assert!(replace(&table, &[1, 2, 3], &[]).is_empty());
    let places = [1, 2, 3].map(|n| index(&table, n).unwrap());
    assert_eq!(replace(&table, &[1, 3], &[]), [(hash(2), None)]);
    assert_eq!((index(&table, 1), index(&table, 2)), (Some(places[0]), None));
    assert!(replace(&table, &[1, 3, 4], &[]).is_empty());
    assert_eq!(index(&table, 4), Some(places[1]));
    assert_eq!((table.hold().file(hash(2)), table.hold().keys().count()), (None, 3));
    let second = AdmittedKey { id: KeyId(9), digest: key(9).digest(), ..admitted(1) };
    let both = vec![admitted(1), second];
    table.replace(Admitted { change: 2, keys: both, open: vec![] }, |_| ());
    assert_eq!(replace(&table, &[1], &[]), [(hash(1), Some(places[2]))], "the file stays, one of its keys goes");
}

#[test]
fn an_open_file_that_closes_ends_those_without_a_key() {
    let table = KeyTable::default();
    assert!(replace(&table, &[1], &[1, 2]).is_empty());
    assert!(table.hold().file(hash(1)).unwrap().open);
    assert_eq!(replace(&table, &[1], &[2]), [(hash(1), Some(KeyIndex::OPEN))]);
    assert!(!table.hold().file(hash(1)).unwrap().open);
}

#[test]
fn the_ninth_address_within_an_hour_is_one_too_many() {
    let used = |n: u8, at_s| Used { address: SocketAddr::from(([10, 0, 0, n], 5)), at_s };
    let mut usage = Usage::default();
    for n in 1..=8 {
        assert_eq!(usage.note(used(n, u64::from(n))), Ok(()));
    }
    assert_eq!(usage.note(used(8, 100)), Ok(()), "a known place");
    // The first place is forgotten after its hour.
    let hour_s = limits::KEY_PLACES_WINDOW.as_secs();
    assert_eq!(usage.note(used(9, hour_s + 1)), Ok(()));
    assert_eq!(usage.note(used(10, hour_s + 1)), Err(TooManyPlaces::Now));
    assert_eq!(usage.note(used(9, hour_s + 1)), Err(TooManyPlaces::Before));
    assert_eq!(usage.take_last(), Some(used(9, hour_s + 1)));
    assert_eq!(usage.take_last(), None);
}

#[test]
fn an_ipv6_network_is_one_place() {
    let mut usage = Usage::default();
    for n in 0..100 {
        let address = format!("[2001:db8::{n:x}]:5").parse().unwrap();
        assert_eq!(usage.note(Used { address, at_s: 0 }), Ok(()));
    }
}
