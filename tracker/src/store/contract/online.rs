//! Who is online at which tracker: rows that only their tracker writes, and readers that miss none.

use super::*;
use crate::limits;
use mini_torrent_common::hash::PeerId;
use std::collections::BTreeMap;

const ONE: TrackerNumber = TrackerNumber(1);
const TWO: TrackerNumber = TrackerNumber(2);

fn run(tracker: TrackerNumber, life: u8) -> Run {
    Run { tracker, id: RunId([life; 16]) }
}

fn online(user: UserId, sign_in: u64) -> SessionChange {
    SessionChange::There(OnlineSession {
        user,
        sign_in: SignIn(sign_in),
        key: PublicKey([1; 32]),
        address: "10.0.0.1:5".parse().unwrap(),
        peer_id: PeerId([2; 20]),
        agent: "test".into(),
        age_ms: 7,
        lost: false,
    })
}

fn peer(user: UserId, listing: ListingId, complete: Option<bool>) -> OnlinePeer {
    OnlinePeer { user, listing, complete }
}

/// Reads as tracker 2, from where it stopped last time.
#[derive(Default)]
struct Reader(BTreeMap<TrackerNumber, ReadSoFar>);

impl Reader {
    async fn read(&mut self, store: &Store) -> Option<OnlinePage> {
        let mut page = None;
        for other in store.other_trackers(TWO, self.0.clone()).await.unwrap() {
            self.0.insert(other.tracker, other.read);
            page = other.page;
        }
        page
    }
}

async fn write(store: &Store, changes: OnlineChanges) -> u64 {
    store.write_online(run(ONE, 1), changes).await.unwrap()
}

pub(super) async fn what_a_tracker_wrote_is_read_once_and_only_after_its_heart_has_beaten(place: Place) {
    let Opened { store, database: _database } = place.open().await;
    let [olga] = members(&store, ["olga"]).await;
    let listing = list(&store, olga, "a").await.unwrap();
    let mut reader = Reader::default();
    store.begin_run(run(ONE, 1)).await.unwrap();
    assert_eq!(reader.read(&store).await, None, "it is seen for the first time");
    assert_eq!(reader.read(&store).await, None, "its heart stands still");
    let stock = OnlineStockClient {
        listing,
        address: "[::1]:6881".parse().unwrap(),
        key: Some(mini_torrent_common::control::KeyId(3)),
        complete: Some(false),
    };
    let changes = OnlineChanges {
        sessions: vec![online(olga.user, 9)],
        peers: vec![peer(olga.user, listing, Some(true))],
        stock: vec![stock],
        news: vec!["b".into(), "a".into()],
        ..OnlineChanges::default()
    };
    write(&store, changes).await;
    let info_hash = store.listing_named(LAB, "a".parse().unwrap()).await.unwrap().unwrap().draft.info_hash;
    let expected = OnlinePage {
        anew: true,
        sessions: vec![(user_name("olga"), online(olga.user, 9))],
        peers: vec![(LAB, peer(olga.user, listing, Some(true)))],
        stock: vec![(info_hash, stock)],
        news: vec!["b".into(), "a".into()],
    };
    assert_eq!(reader.read(&store).await, Some(expected));
    write(&store, OnlineChanges::default()).await;
    assert_eq!(reader.read(&store).await, Some(OnlinePage::default()), "a beat alone");
    let gone = OnlineChanges { peers: vec![peer(olga.user, listing, None)], ..OnlineChanges::default() };
    write(&store, gone).await;
    let page = reader.read(&store).await.unwrap();
    assert_eq!((page.anew, page.peers), (false, vec![(LAB, peer(olga.user, listing, None))]));
}

/// The rows of a session go with it, and with its successor.
pub(super) async fn a_sessions_peers_go_with_it(place: Place) {
    let Opened { store, database: _database } = place.open().await;
    let [olga] = members(&store, ["olga"]).await;
    let listing = list(&store, olga, "a").await.unwrap();
    store.begin_run(run(ONE, 1)).await.unwrap();
    let all = async || {
        let mut reader = Reader::default();
        reader.read(&store).await;
        write(&store, OnlineChanges::default()).await;
        let page = reader.read(&store).await.unwrap();
        (page.sessions.len(), page.peers.len())
    };
    let there = |sign_in| OnlineChanges {
        sessions: vec![online(olga.user, sign_in)],
        peers: vec![peer(olga.user, listing, Some(true))],
        ..OnlineChanges::default()
    };
    write(&store, there(1)).await;
    let again = OnlineChanges { peers: vec![], ..there(1) };
    write(&store, again).await;
    assert_eq!(all().await, (1, 1), "the same sign-in");
    write(&store, OnlineChanges { peers: vec![], ..there(2) }).await;
    assert_eq!(all().await, (1, 0), "another one");
    write(&store, there(2)).await;
    let gone = SessionChange::Gone { user: olga.user, sign_in: SignIn(2) };
    write(&store, OnlineChanges { sessions: vec![gone], ..OnlineChanges::default() }).await;
    assert_eq!(all().await, (1, 0), "its end is a row");
    write(&store, OnlineChanges { anew: true, ..OnlineChanges::default() }).await;
    assert_eq!(all().await, (0, 0));
}

pub(super) async fn who_is_behind_the_floor_reads_anew_and_nobody_else(place: Place) {
    let Opened { store, database: _database } = place.open().await;
    let [olga] = members(&store, ["olga"]).await;
    let listings = [list(&store, olga, "a").await.unwrap(), list(&store, olga, "b").await.unwrap()];
    let (mut late, mut early) = (Reader::default(), Reader::default());
    store.begin_run(run(ONE, 1)).await.unwrap();
    late.read(&store).await;
    early.read(&store).await;
    let peers = listings.map(|listing| peer(olga.user, listing, Some(true))).to_vec();
    write(&store, OnlineChanges { sessions: vec![online(olga.user, 1)], peers, ..OnlineChanges::default() }).await;
    for reader in [&mut late, &mut early] {
        assert_eq!(reader.read(&store).await.unwrap().peers.len(), 2);
    }
    let gone = peer(olga.user, listings[0], None);
    let change = write(&store, OnlineChanges { peers: vec![gone], ..OnlineChanges::default() }).await;
    early.read(&store).await;
    write(&store, OnlineChanges { forget_until: change, ..OnlineChanges::default() }).await;
    let page = late.read(&store).await.unwrap();
    assert_eq!((page.anew, page.peers), (true, vec![(LAB, peer(olga.user, listings[1], Some(true)))]));
    assert!(!early.read(&store).await.unwrap().anew);
    write(&store, OnlineChanges::default()).await;
    assert!(!late.read(&store).await.unwrap().anew, "once");
}

pub(super) async fn a_new_life_ends_the_old_one_with_its_rows(place: Place) {
    let Opened { store, database: _database } = place.open().await;
    let [olga] = members(&store, ["olga"]).await;
    let mut reader = Reader::default();
    store.begin_run(run(ONE, 1)).await.unwrap();
    reader.read(&store).await;
    write(&store, OnlineChanges { sessions: vec![online(olga.user, 1)], ..OnlineChanges::default() }).await;
    assert_eq!(reader.read(&store).await.unwrap().sessions.len(), 1);
    store.begin_run(run(ONE, 2)).await.unwrap();
    let page = reader.read(&store).await.unwrap();
    assert!(page.anew && page.sessions.is_empty());
    assert_eq!(store.write_online(run(ONE, 1), OnlineChanges::default()).await, Err(StoreError::NotFound));
    store.end_run(run(ONE, 1)).await.unwrap();
    assert!(store.write_online(run(ONE, 2), OnlineChanges::default()).await.is_ok());
    store.end_run(run(ONE, 2)).await.unwrap();
    assert_eq!(store.other_trackers(TWO, BTreeMap::new()).await, Ok(vec![]));
}

/// More rows than one page has, in many changes: none is missed and each is read once.
pub(super) async fn pages_end_between_changes(place: Place) {
    let Opened { store, database: _database } = place.open().await;
    let [olga] = members(&store, ["olga"]).await;
    let listing = list(&store, olga, "a").await.unwrap();
    store.begin_run(run(ONE, 1)).await.unwrap();
    let mut reader = Reader::default();
    reader.read(&store).await;
    let n_batches = u64::try_from(limits::ONLINE_PAGE / limits::ONLINE_BATCH).unwrap() + 2;
    for batch in 0..n_batches {
        let addresses = (0..limits::ONLINE_BATCH).map(|n| {
            let ip = std::net::Ipv4Addr::from(u32::try_from(batch << 16).unwrap() + u32::try_from(n).unwrap());
            OnlineStockClient { listing, address: (ip, 1).into(), key: None, complete: Some(true) }
        });
        write(&store, OnlineChanges { stock: addresses.collect(), ..OnlineChanges::default() }).await;
    }
    let mut n_read = Vec::new();
    while let Some(page) = reader.read(&store).await {
        n_read.push(page.stock.len());
    }
    assert_eq!(n_read, [limits::ONLINE_PAGE, 2 * limits::ONLINE_BATCH]);
}

pub(super) async fn later_sign_ins_have_greater_numbers_and_gone_listings_are_named(place: Place) {
    let Opened { store, database: _database } = place.open().await;
    let [olga, bob] = members(&store, ["olga", "bob"]).await;
    let before = store.last_sign_in(olga).await.unwrap();
    let begun = store.begin_session(session(olga.user, 1, Sha256Hash([9; 32]))).await.unwrap();
    let olga = Actor { session: begun.id, ..olga };
    assert!(store.last_sign_in(olga).await.unwrap() > before);
    assert!(store.last_sign_in(bob).await.is_ok());
    let listing = list(&store, olga, "a").await.unwrap();
    let asked: Vec<_> = (0..100).map(ListingId).collect();
    let gone = store.gone_listings(asked).await.unwrap();
    assert!(gone.len() == 99 && !gone.contains(&listing));
}
