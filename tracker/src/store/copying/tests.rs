//! What a copy holds, and what it refuses.

use super::*;
use crate::postgres_server;
use crate::store::contract::{LAB, new_listing};
use crate::store::{
    Actor, NewKey, NewSession, Once, OnlineChanges, Run, RunId, SessionId, Store, StoredTicketKey, UserId,
};
use mini_torrent_common::control::{INFO_PAGE_LENGTH, ListingId};
use mini_torrent_common::hash::{GroupId, OperationId};
use mini_torrent_common::tls::{Fingerprint, PublicKey};
use std::collections::BTreeSet;
use std::path::Path;
use zeroize::Zeroizing;

async fn open(location: &Location) -> Store {
    Store::open(location).await.unwrap().0
}

async fn signed_in(store: &Store, name: &str) -> Actor {
    let user = store.create_user(name.parse().unwrap(), format!("hash of {name}"), 5).await.unwrap();
    let session = NewSession {
        user,
        token: Sha256Hash::of(name.as_bytes()),
        client_key: PublicKey([1; 32]),
        address: "10.0.0.1:5".into(),
        agent: "odd\0name".into(),
        since_ms: 10,
        expires_ms: 100,
    };
    Actor::new(user, store.begin_session(session).await.unwrap().id)
}

async fn list(store: &Store, actor: Actor, name: &str, n_bytes: usize) -> ListingId {
    let new = new_listing(name, vec![5; n_bytes]);
    store.list_file(actor, new, Box::new(|_| Ok(())), |_, _| Ok(())).await.unwrap()
}

/// Something in every table, and numbers that were given away and are not there any more.
async fn fill(store: &Store) -> ListingId {
    store.found(Fingerprint(Sha256Hash([1; 32])), GroupId([0; 16]), 1).await.unwrap();
    let [olga, bob, eve] =
        [signed_in(store, "olga").await, signed_in(store, "Bob").await, signed_in(store, "eve").await];
    let lab = || "Lab".parse().unwrap();
    let named = Actor { once: Some(Once { id: OperationId([6; 16]), at_ms: 6 }), ..olga };
    store.create_group(LAB, lab(), named, 6, |_, _| Ok(())).await.unwrap();
    for actor in [bob, eve] {
        store.request_to_join(lab(), actor, 7, Box::new(|_| Ok(())), |_, _| Ok(())).await.unwrap();
    }
    store.decide_request(lab(), olga, "bob".parse().unwrap(), true, 8, Box::new(|_| Ok(()))).await.unwrap();
    store.set_stock_clients(olga, lab(), true, Box::new(|_| Ok(()))).await.unwrap();
    let long = list(store, bob, "é long", INFO_PAGE_LENGTH + 5).await;
    for n in 0..60 {
        list(store, olga, &format!("f{n}"), 10).await;
    }
    let new = NewKey { listing: long, secret: Zeroizing::new([9; 32]), at_ms: 3 };
    store.create_key(olga, new, Box::new(|_| Ok(())), |_, _| Ok(())).await.unwrap();
    store.lock_user("bob".parse().unwrap(), 20).await.unwrap();
    let key = StoredTicketKey {
        key: PublicKey([4; 32]),
        seed: Zeroizing::new([5; 32]),
        from_ms: 1,
        use_until_ms: 100,
        until_ms: 200,
        endorsement: vec![1, 2, 3],
    };
    store.ticket_key(key, 5).await.unwrap();
    let last = list(store, olga, "gone", 10).await;
    store.end_share(last, olga, Box::new(|_| Ok(()))).await.unwrap();
    last
}

/// The store goes on where the other one was.
async fn goes_on(location: &Location, last: ListingId) {
    let store = open(location).await;
    let olga = store.account("OLGA".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((olga.name.as_str(), olga.password_hash.as_str()), ("olga", "hash of olga"));
    let session = store.sessions(olga.id).await.unwrap()[0].id;
    let listing = list(&store, Actor::new(olga.id, session), "new", 10).await;
    assert!(listing > last, "{listing:?} is not used twice");
    assert_eq!(store.last_revocation().await, Ok(1));
    store.lock_user("eve".parse().unwrap(), 20).await.unwrap();
    assert_eq!(store.last_revocation().await, Ok(2));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_moves_to_a_server_and_back_and_stays_what_it_was() {
    let Some(server) = postgres_server::shared() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| Location::Sqlite(directory.path().join(name));
    let database = server.database();
    let (from, to) = (file("tracker.db"), Location::parse(&database.url).unwrap());
    // It is copied while it is open and used.
    let store = open(&from).await;
    let last = fill(&store).await;
    let there = copy(&from, &to).await.unwrap();
    store.close().await;
    assert!(there.iter().all(|copied| copied.n_rows > 0), "{there:?}");
    assert_eq!(copy(&to, &file("back.db")).await.unwrap(), there);
    assert_eq!(copy(&file("back.db"), &file("again.db")).await.unwrap(), there);
    goes_on(&to, last).await;
    goes_on(&file("back.db"), last).await;
}

#[tokio::test]
async fn what_is_in_use_is_not_overwritten_and_what_is_not_there_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| Location::Sqlite(directory.path().join(name));
    let store = open(&file("a.db")).await;
    store.create_user("bob".parse().unwrap(), "x".into(), 1).await.unwrap();
    let other = open(&file("b.db")).await;
    other.create_user("eve".parse().unwrap(), "x".into(), 1).await.unwrap();
    let refused = copy(&file("a.db"), &file("b.db")).await;
    assert!(matches!(refused, Err(CopyError::NotEmpty(_))), "{refused:?}");
    let missing = copy(&file("c.db"), &file("d.db")).await.unwrap_err();
    assert!(missing.to_string().contains("c.db") && !directory.path().join("c.db").exists(), "{missing}");
    std::fs::write(directory.path().join("empty.db"), b"").unwrap();
    let older = copy(&file("empty.db"), &file("d.db")).await.unwrap_err();
    assert!(older.to_string().contains("has schema 0"), "{older}");
}

/// A tracker that was killed has left its row, and only its heart tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_moved_only_when_no_trackers_heart_beats() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| Location::Sqlite(directory.path().join(name));
    let (from, to) = (file("a.db"), file("b.db"));
    let store = open(&from).await;
    fill(&store).await;
    let run = Run { tracker: TrackerNumber(3), id: RunId([1; 16]) };
    store.begin_run(run).await.unwrap();
    let beats = async {
        loop {
            store.write_online(run, OnlineChanges::default()).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let refused = tokio::select! {
        moved = move_to(&from, &to) => moved.unwrap_err(),
        () = beats => unreachable!(),
    };
    assert!(matches!(refused, CopyError::InUse { tracker: 3, .. }), "{refused}");
    assert!(!directory.path().join("b.db").exists());
    // Behind the one that was under way.
    store.write_online(run, OnlineChanges::default()).await.unwrap();
    assert!(!move_to(&from, &to).await.unwrap().is_empty(), "its heart stands still");
    store.end_run(run).await.unwrap();
    assert!(!move_to(&from, &file("c.db")).await.unwrap().is_empty(), "it has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_one_private_file_of_a_live_store() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let mut sources = vec![Location::within(directory.path())];
    let database = postgres_server::shared().map(postgres_server::Server::database);
    sources.extend(database.iter().map(|database| Location::parse(&database.url).unwrap()));
    for from in sources {
        let store = open(&from).await;
        let last = fill(&store).await;
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("backup.db");
        crate::store::back_up(&from, &path).await.unwrap();
        list(&store, Actor::new(UserId(1), SessionId(1)), "later", 10).await;
        let names: Vec<_> = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["backup.db"]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
        let again = crate::store::back_up(&from, &path).await.unwrap_err();
        assert!(again.to_string().contains("backup.db"), "{again}");
        goes_on(&Location::Sqlite(path), last).await;
        store.close().await;
    }
}

/// What was killed in the middle cannot remove what it has written so far, with all the password hashes.
#[tokio::test]
async fn a_backup_removes_what_killed_ones_left_and_nothing_of_others() {
    let directory = tempfile::tempdir().unwrap();
    let from = Location::within(directory.path());
    open(&from).await.close().await;
    let place = tempfile::tempdir().unwrap();
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let left = |name: String| {
        let left = place.path().join(name);
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("tracker.db"), "hashes").unwrap();
        left
    };
    let [killed, namesake] = [gone.id(), std::process::id()].map(|id| left(format!(".mini-tracker-backup.{id}")));
    let (lives, other) = (left(".mini-tracker-backup.1".into()), left(".mini-tracker-backup.x".into()));
    let elsewhere = left(format!(".mini-tracker-backup.{}", u32::MAX >> 2));
    let lock = std::fs::File::open(&elsewhere).unwrap();
    lock.lock().unwrap();
    let path = place.path().join("backup.db");
    crate::store::back_up(&from, &path).await.unwrap();
    assert!(path.exists() && !killed.exists() && !namesake.exists());
    assert!(lives.exists() && other.exists() && elsewhere.exists());
}

/// What a later migration adds is copied, too.
#[test]
fn every_column_of_every_table_is_copied() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(Store::within(directory.path()));
    let connection = rusqlite::Connection::open(directory.path().join("tracker.db")).unwrap();
    let mut query = connection
        .prepare(
            "SELECT t.name, c.name FROM sqlite_master t JOIN pragma_table_info(t.name) c
             WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND t.name NOT LIKE 'refinery_%'",
        )
        .unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let there: BTreeSet<(String, String)> = rows.map(|row| row.unwrap()).collect();
    let of = |table: &Table| table.columns.iter().map(|column| (table.name.to_owned(), (*column).to_owned()));
    let copied: BTreeSet<_> = TABLES.iter().flat_map(of).collect();
    let uncopied: Vec<_> = there.difference(&copied).filter(|(table, _)| !NOT_COPIED.contains(&&**table)).collect();
    assert!(uncopied.is_empty(), "{uncopied:?}");
    assert_eq!(copied.difference(&there).count(), 0);
    assert!(Path::new("../migrations/postgres").exists(), "a test sees to it that both have the same tables");
}
