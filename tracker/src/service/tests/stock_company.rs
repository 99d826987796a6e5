//! Ordinary clients of several trackers on one store.

use super::company::{rounds, seconds};
use super::following::join;
use super::ordinary::{Counts, File, asked};
use super::*;
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

#[tokio::test]
async fn ordinary_clients_of_a_dead_tracker_vanish_with_it() {
    let company = company().await;
    let Company { one, two, bob, .. } = &company;
    company.announce(one, CLIENT, 5);
    seconds(1, &[one, two]).await;
    two.stock_news(bob);
    seconds(8, &[two]).await;
    assert_eq!(company.counts(two), (0, 1));
    seconds(2, &[two]).await;
    assert_eq!((company.counts(two), two.stock_news(bob)), ((0, 0), (vec![], vec![CLIENT.into()])));
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
