//! Ordinary clients of several trackers on one store.

use super::company::{rounds, seconds};
use super::following::join;
use super::ordinary::{Counts, File, asked};
use super::*;
use futures_util::FutureExt;
use mini_torrent_common::announce::Event as Happened;
use mini_torrent_common::announce_key::AnnounceKey;

/// Two trackers that know each other, a group that admits ordinary clients, and a member at the second one.
struct Company {
    one: Stage,
    two: Stage,
    olga: Caller,
    bob: Caller,
    file: File,
    key: AnnounceKey,
}

async fn company() -> Company {
    let one = Stage::new().await;
    let two = one.beside().await;
    rounds(4, &[&one, &two]).await;
    let (olga, _events, file, key) = one.open_lab().await;
    let (bob, _events) = two.member(2, "bob").await;
    join(&two, &bob, &one, &olga).await;
    rounds(2, &[&one, &two]).await;
    two.service.watch(&bob, file.listing).await.unwrap();
    two.service.refresh_keys().await;
    two.stock_news(&bob);
    Company { one, two, olga, bob, file, key }
}

impl Company {
    fn counts(&self, stage: &Stage) -> (u32, u32) {
        let scraped = stage.service.scrape_ordinary(&Credential::Key(self.key.clone()), self.file.info_hash);
        let Counts { complete, incomplete, .. } = scraped.unwrap();
        (complete, incomplete)
    }

    fn announce(&self, stage: &Stage, address: &str, left: u64) -> Vec<SocketAddr> {
        stage.announce(&self.key, self.file.info_hash, address, left).unwrap().1
    }

    fn stop(&self, stage: &Stage, address: &str) {
        let asked = OrdinaryAnnounce { event: Happened::Stopped, ..asked(self.file.info_hash, address, 0) };
        stage.announce_with(&Credential::Key(self.key.clone()), &asked).unwrap();
    }
}

const CLIENT: &str = "10.0.9.1:6881";

#[tokio::test]
async fn ordinary_clients_are_in_the_swarm_at_every_tracker() {
    let company = company().await;
    let Company { one, two, bob, .. } = &company;
    company.announce(one, CLIENT, 5);
    rounds(1, &[one, two]).await;
    assert_eq!((company.counts(one), company.counts(two)), ((0, 1), (0, 1)));
    assert_eq!(two.stock_news(bob), (vec![(CLIENT.into(), false)], vec![]));
    let shown = two.service.stock_peers_of(company.file.info_hash);
    assert_eq!(shown[0].user.as_deref(), Some("olga"), "the console knows whose it is");
    assert!(company.announce(two, "10.0.9.2:6881", 5).contains(&CLIENT.parse().unwrap()));
    rounds(1, &[two, one]).await;
    assert_eq!((company.counts(one), company.counts(two)), ((0, 2), (0, 2)));
    two.stock_news(bob);

    company.announce(one, CLIENT, 0);
    rounds(1, &[one, two]).await;
    assert_eq!((company.counts(two), two.stock_news(bob)), ((1, 1), (vec![(CLIENT.into(), true)], vec![])));
    company.stop(one, CLIENT);
    rounds(1, &[one, two]).await;
    assert_eq!((company.counts(two), two.stock_news(bob)), ((0, 1), (vec![], vec![CLIENT.into()])));
}

/// They have not heard of its death, and their next announce comes half an hour later.
#[tokio::test]
async fn ordinary_clients_of_a_dead_tracker_stay_until_they_would_have_gone_to_another_one() {
    let company = company().await;
    let Company { one, two, bob, .. } = &company;
    company.announce(one, CLIENT, 5);
    company.announce(one, "10.0.9.2:6881", 5);
    seconds(1, &[one, two]).await;
    two.stock_news(bob);
    seconds(12, &[two]).await;
    assert_eq!((company.counts(two), two.stock_news(bob)), ((0, 2), (vec![], vec![])));
    // Who comes is there once, and stops when it says so.
    assert_eq!(company.announce(two, CLIENT, 5), ["10.0.9.2:6881".parse().unwrap()]);
    assert_eq!(company.counts(two), (0, 2));
    company.stop(two, CLIENT);
    assert_eq!(company.counts(two), (0, 1));
    two.stock_news(bob);
    two.clock.advance(limits::ANNOUNCE_LEASE);
    seconds(1, &[two]).await;
    assert_eq!((company.counts(two), two.stock_news(bob)), ((0, 0), (vec![], vec!["10.0.9.2:6881".into()])));
}

#[tokio::test]
async fn ordinary_clients_outlive_a_tracker_that_is_started_again() {
    let company = company().await;
    let Company { one, two, .. } = &company;
    company.announce(one, CLIENT, 5);
    company.announce(one, "10.0.9.2:6881", 5);
    rounds(2, &[one, two]).await;
    // At once, so that nobody saw it dead.
    let again = one.beside_as(1).await;
    again.service.refresh_keys().await;
    rounds(4, &[&again, two]).await;
    assert_eq!(company.counts(two), (0, 2));
    company.announce(&again, CLIENT, 5);
    rounds(2, &[&again, two]).await;
    assert_eq!(company.counts(two), (0, 2), "who came back is there once");
    again.service.end_run().await;
    rounds(1, &[two]).await;
    assert_eq!(company.counts(two), (0, 1), "an orderly end takes its own clients with it");
}

#[tokio::test]
async fn a_key_that_ends_takes_a_dead_trackers_clients_with_it() {
    let company = company().await;
    let Company { one, two, olga, file, .. } = &company;
    company.announce(one, CLIENT, 5);
    seconds(1, &[one, two]).await;
    seconds(12, &[two]).await;
    let id = two.service.list_keys(olga).await.unwrap()[0].id;
    two.service.revoke_key(olga, id).await.unwrap();
    assert_eq!(two.service.stock_peers_of(file.info_hash), []);
}

/// Takes from the store what trackers look at to see each other, or puts it back.
fn store_shows_trackers(stage: &Stage, shown: bool) {
    let store = rusqlite::Connection::open(stage.directory.path().join("tracker.db")).unwrap();
    let rename = match shown {
        true => "ALTER TABLE trackers_away RENAME TO trackers",
        false => "ALTER TABLE trackers RENAME TO trackers_away",
    };
    store.execute_batch(rename).unwrap();
}

/// Keys may have ended elsewhere; so long as it may not be dead to the others, it goes on.
#[tokio::test]
async fn a_tracker_that_cannot_look_tells_ordinary_clients_nothing_after_ten_seconds() {
    let company = company().await;
    let Company { one, two, olga, file, key, .. } = &company;
    company.announce(one, CLIENT, 5);
    let credential = Credential::Key(key.clone());
    let announced = || one.announce(key, file.info_hash, CLIENT, 5).map(|_| ());
    let id = two.service.list_keys(olga).await.unwrap()[0].id;
    store_shows_trackers(one, false);
    for _ in 0..9 {
        one.clock.advance(Duration::from_secs(1));
        assert!(one.service.keep_step().await.is_err());
        assert_eq!(announced(), Ok(()));
    }
    // What waits for a look that fails would wait for ever.
    assert!(one.service.catch_up().now_or_never().is_some());
    for _ in 0..5 {
        one.clock.advance(Duration::from_secs(1));
        assert!(one.service.keep_step().await.is_err());
    }
    assert_eq!(announced(), Err(TurnedAway::Blind));
    assert_eq!(one.service.scrape_ordinary(&credential, file.info_hash), Err(TurnedAway::Blind));
    let stopped = OrdinaryAnnounce { event: Happened::Stopped, ..asked(file.info_hash, CLIENT, 5) };
    assert_eq!(one.announce_with(&credential, &stopped).unwrap().1, []);

    two.service.revoke_key(olga, id).await.unwrap();
    store_shows_trackers(one, true);
    assert_eq!(announced(), Err(TurnedAway::Blind), "it has not looked yet");
    one.service.keep_step().await.unwrap();
    assert_eq!(announced(), Err(TurnedAway::NotAdmitted), "the key's end is known with the first look");
}

/// Some announce to every tracker that a torrent names, and some go to the next one and return.
#[tokio::test]
async fn an_ordinary_client_of_two_trackers_is_counted_once() {
    let company = company().await;
    let Company { one, two, .. } = &company;
    company.announce(one, CLIENT, 5);
    company.announce(two, CLIENT, 5);
    rounds(3, &[one, two]).await;
    assert_eq!((company.counts(one), company.counts(two)), ((0, 1), (0, 1)));
    company.stop(one, CLIENT);
    company.stop(two, CLIENT);
    rounds(3, &[one, two]).await;
    assert_eq!((company.counts(one), company.counts(two)), ((0, 0), (0, 0)));
    // From the second to the first.
    company.announce(two, CLIENT, 5);
    rounds(2, &[two, one]).await;
    company.announce(one, CLIENT, 5);
    rounds(3, &[one, two]).await;
    assert_eq!((company.counts(one), company.counts(two)), ((0, 1), (0, 1)));
    company.stop(one, CLIENT);
    rounds(2, &[one, two]).await;
    assert_eq!((company.counts(one), company.counts(two)), ((0, 0), (0, 0)));
}

/// It stops at one of the two trackers that it announced to, whichever has it.
#[tokio::test]
async fn an_ordinary_client_that_stops_at_one_tracker_is_gone_from_all() {
    let company = company().await;
    let Company { one, two, .. } = &company;
    for stops_at in [one, two] {
        company.announce(one, CLIENT, 5);
        company.announce(two, CLIENT, 5);
        rounds(3, &[one, two]).await;
        assert_eq!((company.counts(one), company.counts(two)), ((0, 1), (0, 1)));
        company.stop(stops_at, CLIENT);
        rounds(3, &[one, two]).await;
        assert_eq!((company.counts(one), company.counts(two)), ((0, 0), (0, 0)));
    }
}

#[tokio::test]
async fn a_key_that_ends_at_one_tracker_ends_its_clients_at_all() {
    let company = company().await;
    let Company { one, two, olga, bob, file, key } = &company;
    company.announce(two, CLIENT, 5);
    company.announce(one, "10.0.9.2:6881", 5);
    rounds(2, &[two, one]).await;
    rounds(1, &[two]).await;
    let id = one.service.list_keys(olga).await.unwrap()[0].id;
    two.stock_news(bob);
    one.service.revoke_key(olga, id).await.unwrap();
    two.service.refresh_keys().await;
    let (_, mut left) = two.stock_news(bob);
    left.sort();
    assert_eq!(left, [CLIENT, "10.0.9.2:6881"]);
    assert_eq!(two.announce(key, file.info_hash, CLIENT, 5), Err(TurnedAway::NotAdmitted));
    rounds(2, &[one, two]).await;
    assert_eq!(
        (one.service.stock_peers_of(file.info_hash), two.service.stock_peers_of(file.info_hash)),
        (vec![], vec![])
    );
}
