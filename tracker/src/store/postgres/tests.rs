//! What only a server can do to us: stop, start, vanish, be newer, or be an impostor.

use crate::postgres_server::{self, Certificates, NO_CERTIFICATES, Server, Stop};
use crate::store::sql::{Tx, params};
use crate::store::{Location, OpenError, Result, Store, StoreError};
use std::time::{Duration, Instant};

fn location(url: &str) -> Location {
    Location::parse(url).unwrap()
}

async fn create(store: &Store, name: &str) -> Result<()> {
    store.create_user(name.parse().unwrap(), "hash".into(), 1).await.map(drop)
}

async fn is_there(store: &Store, name: &str) -> Result<bool> {
    store.account(name.parse().unwrap()).await.map(|account| account.is_some())
}

// On other threads, for what waits for the server goes on meanwhile.

async fn stop(server: &'static Server, how: Stop) {
    tokio::task::spawn_blocking(move || server.stop(how)).await.unwrap();
}

async fn start_again(server: &'static Server) {
    tokio::task::spawn_blocking(move || server.start_again()).await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_named() {
    let Some(server) = postgres_server::shared() else { return };
    let database = server.database();
    let (store, lock) = Store::open(&location(&database.url)).await.unwrap();
    store.close().await;
    drop(lock);
    database.run("INSERT INTO refinery_schema_history VALUES (9999, 'later', '2027-01-01T00:00:00Z', '1')");
    let error = Store::open(&location(&database.url)).await.err().unwrap();
    assert!(matches!(error, OpenError::Newer { found: 9999, .. }) && error.to_string().contains("9999"), "{error}");
}

fn n_users(tx: Tx<'_>) -> Result<u64> {
    tx.query_one("SELECT COUNT(*) FROM users", params![], |row| row.get(0))
}

/// Two statements would see two states where no transaction holds them together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_is_one_statement() {
    let Some(server) = postgres_server::shared() else { return };
    let database = server.database();
    let (store, _lock) = Store::open(&location(&database.url)).await.unwrap();
    let twice = |tx: Tx<'_>| Ok((n_users(tx)?, n_users(tx)?));
    assert_eq!(store.database.look(n_users).await, Ok(0));
    assert_eq!(store.database.look(twice).await, Err(StoreError::Unavailable));
    assert_eq!(store.database.read(twice).await, Ok((0, 0)));
}

#[tokio::test]
async fn trackers_that_start_together_start_one_after_the_other() {
    let Some(server) = postgres_server::shared() else { return };
    let database = server.database();
    let location = location(&database.url);
    let (one, other) = tokio::join!(
        async {
            let (store, lock) = Store::open(&location).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            drop(lock);
            store
        },
        async { Store::open(&location).await.unwrap().0 },
    );
    assert!(is_there(&one, "bob").await == Ok(false) && is_there(&other, "bob").await == Ok(false));
}

#[tokio::test]
async fn an_unreachable_server_is_an_error_without_the_password() {
    let error = Store::open(&location("postgres://u:s3cret@127.0.0.1:1/d")).await.err().unwrap();
    assert!(error.to_string().contains("refused") && !error.to_string().contains("s3cret"), "{error}");
}

/// What was acknowledged is there after the server came back; a short absence is only a wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_and_starts_is_waited_for_or_missed_clearly() {
    let Some(server) = postgres_server::own() else { return };
    let database = server.database();
    let (store, _lock) = Store::open(&location(&database.url)).await.unwrap();
    for (n, how) in [Stop::Fast, Stop::Immediate].into_iter().enumerate() {
        let name = |which: &str| format!("{which}{n}");
        create(&store, &name("before")).await.unwrap();
        stop(server, how).await;
        let began = Instant::now();
        assert_eq!(create(&store, &name("without")).await, Err(StoreError::Unavailable));
        assert_eq!(is_there(&store, &name("before")).await, Err(StoreError::Unavailable));
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        let waiting = name("waiting");
        let (created, ()) = tokio::join!(create(&store, &waiting), start_again(server));
        assert_eq!(created, Ok(()), "it was waited for");
        for (which, expected) in [("before", true), ("without", false), ("waiting", true)] {
            assert_eq!(is_there(&store, &name(which)).await, Ok(expected), "{which}");
        }
    }
}

/// Under a stream of writes, no acknowledged one is lost by a server that dies and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_server_dies_meanwhile() {
    let Some(server) = postgres_server::own() else { return };
    let database = server.database();
    let (store, _lock) = Store::open(&location(&database.url)).await.unwrap();
    let writers = (0..4).map(|writer| {
        let store = &store;
        async move {
            let mut acknowledged = Vec::new();
            for n in 0..100 {
                let name = format!("w{writer}n{n}");
                if create(store, &name).await.is_ok() {
                    acknowledged.push(name);
                }
            }
            acknowledged
        }
    });
    let (acknowledged, ()) = tokio::join!(futures_util::future::join_all(writers), async {
        for _ in 0..2 {
            stop(server, Stop::Immediate).await;
            start_again(server).await;
            assert!(is_there(&store, "nobody").await.is_ok());
        }
    });
    let acknowledged: Vec<_> = acknowledged.into_iter().flatten().collect();
    assert!(acknowledged.len() > 300, "{}", acknowledged.len());
    for name in acknowledged {
        assert_eq!(is_there(&store, &name).await, Ok(true), "{name}");
    }
}

/// A tracker that stops in the middle of a transaction does not keep the others waiting for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_transaction_loses_its_locks() {
    let Some(server) = postgres_server::shared() else { return };
    let database = server.database();
    let (store, lock) = Store::open(&location(&database.url)).await.unwrap();
    drop(lock);
    let (other, _lock) = Store::open(&location(&database.url)).await.unwrap();
    create(&store, "bob").await.unwrap();
    let (stall, stalled) = std::sync::mpsc::sync_channel(1);
    let (go_on, wait) = std::sync::mpsc::sync_channel::<()>(1);
    let wait = std::sync::Mutex::new(wait);
    let stalling = store.database.write(move |tx| {
        crate::store::queries::accounts::lock(tx, &"bob".parse().unwrap(), 5)?;
        stall.send(()).unwrap();
        wait.lock().unwrap().recv().map_err(|_| StoreError::NotFound)
    });
    let blocked = async {
        tokio::task::spawn_blocking(move || stalled.recv().unwrap()).await.unwrap();
        let began = Instant::now();
        let mut locked = other.lock_user("bob".parse().unwrap(), 6).await;
        while locked.is_err() && began.elapsed() < Duration::from_secs(20) {
            locked = other.lock_user("bob".parse().unwrap(), 6).await;
        }
        drop(go_on);
        locked
    };
    let (_, locked) = tokio::join!(stalling, blocked);
    assert!(locked.is_ok(), "{locked:?}");
}

/// Only a server whose certificate is signed by whom we trust, and names the host, is spoken to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_impostor_is_not_spoken_to() {
    let Some(server) = postgres_server::own() else { return };
    let certificates = || Certificates::of([127, 0, 0, 1].into());
    let Some(Certificates { authority, certificate, key }) = certificates() else {
        postgres_server::skipped(NO_CERTIFICATES);
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let database = server.database();
    let with = |options: &str| location(&format!("{}?{options}", database.url));
    let plain = Store::open(&with("sslmode=require")).await.err().unwrap();
    assert!(plain.to_string().contains("TLS"), "a server without it: {plain}");
    server.put("server.crt", certificate.as_bytes());
    server.put("server.key", key.as_bytes());
    server.run("postgres", "ALTER SYSTEM SET ssl = on");
    stop(server, Stop::Fast).await;
    start_again(server).await;
    let path = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let good = path("good.pem", &authority);
    let (store, _lock) = Store::open(&with(&format!("sslmode=verify-full&sslrootcert={good}"))).await.unwrap();
    assert_eq!(create(&store, "bob").await, Ok(()));
    let other_name = with(&format!("sslrootcert={good}")).to_string().replace("127.0.0.1", "localhost");
    let other_name = location(&format!("{other_name}?sslmode=require&sslrootcert={good}"));
    let another = path("another.pem", &certificates().unwrap().authority);
    for refused in [with("sslmode=require"), with(&format!("sslmode=require&sslrootcert={another}")), other_name] {
        let error = Store::open(&refused).await.err().unwrap().to_string();
        assert!(error.contains("certificate"), "{error}");
    }
    for (root, part) in [(path("empty.pem", ""), "no certificate"), ("/nowhere.pem".into(), "/nowhere.pem")] {
        let error = Store::open(&with(&format!("sslmode=require&sslrootcert={root}"))).await.err().unwrap();
        assert!(error.to_string().contains(part), "{error}");
    }
}
