//! Announce keys: what they open, and everything that ends them.

use super::ordinary::File;
use super::*;
use mini_torrent_common::announce_key::AnnounceKey;
use mini_torrent_common::control::KeyId;
use mini_torrent_common::hash::InfoHash;

const NOT_ADMITTED: std::result::Result<(), TurnedAway> = Err(TurnedAway::NotAdmitted);

impl Stage {
    fn try_key(&self, key: &AnnounceKey, info_hash: InfoHash) -> std::result::Result<(), TurnedAway> {
        self.announce(key, info_hash, "10.0.9.1:1", 5).map(|_| ())
    }

    /// Bob joins `lab`.
    async fn bob(&self, olga: &Caller) -> Caller {
        let (bob, _events) = self.member(2, "bob").await;
        self.join(olga, &bob).await;
        bob
    }

    async fn join(&self, olga: &Caller, bob: &Caller) {
        self.service.join_group(bob, group()).await.unwrap();
        self.service.decide_request(olga, group(), bob.name.clone(), true).await.unwrap();
    }

    /// A key of this caller that a client at 10.0.9.1:1 has used.
    async fn used_key(&self, caller: &Caller, file: File) -> (KeyId, AnnounceKey) {
        let granted = self.service.create_key(caller, file.listing).await.unwrap();
        assert_eq!(self.try_key(&granted.key, file.info_hash), Ok(()));
        (granted.id, granted.key)
    }
}

/// One text for a wrong, a revoked and a foreign key, and no peer.
#[tokio::test]
async fn a_key_opens_its_file_and_no_other() {
    let stage = Stage::new().await;
    let (olga, _events, file, key) = stage.open_lab().await;
    let other = stage.list(&olga, "lab", 8).await;
    assert_eq!(stage.try_key(&key, file.info_hash), Ok(()));
    assert_eq!(stage.try_key(&key, other.info_hash), NOT_ADMITTED, "another file of the group");
    let wrong = AnnounceKey::derive(&[0; 32], file.info_hash, 1);
    assert_eq!(stage.try_key(&wrong, file.info_hash), NOT_ADMITTED);
    for credential in [Credential::None, Credential::Malformed] {
        let asked = ordinary::asked(file.info_hash, "10.0.9.1:1", 5);
        assert_eq!(stage.announce_with(&credential, &asked).map(|_| ()), NOT_ADMITTED);
    }
    assert_eq!(stage.service.announces().n_peers(), 1);
}

#[tokio::test]
async fn a_group_admits_ordinary_clients_when_its_owner_says_so() {
    let stage = Stage::new().await;
    let (olga, _events) = stage.member(1, "olga").await;
    stage.service.create_group(&olga, group()).await.unwrap();
    let bob = stage.bob(&olga).await;
    let file = stage.list(&olga, "lab", 7).await;
    assert_eq!(stage.service.create_key(&bob, file.listing).await, Err(Refused::StockClientsOff));
    assert_eq!(stage.service.set_stock_clients(&bob, group(), true).await, Err(Refused::OwnerOnly));
    stage.service.set_stock_clients(&olga, group(), true).await.unwrap();
    assert!(stage.service.describe_group(&bob, group()).await.unwrap().stock_clients);
    let (eve, _eves) = stage.member(3, "eve").await;
    assert_eq!(stage.service.create_key(&eve, file.listing).await, Err(Refused::NoSuchFile), "numbers are guessed");
    let nothing = mini_torrent_common::control::ListingId(99);
    assert_eq!(stage.service.create_key(&bob, nothing).await, Err(Refused::NoSuchFile));
    let (_, key) = stage.used_key(&bob, file).await;
    stage.service.set_stock_clients(&olga, group(), false).await.unwrap();
    assert_eq!(stage.try_key(&key, file.info_hash), NOT_ADMITTED);
    // On again does not bring the old keys back.
    stage.service.set_stock_clients(&olga, group(), true).await.unwrap();
    assert_eq!(stage.try_key(&key, file.info_hash), NOT_ADMITTED);
    let public: GroupName = "public".parse().unwrap();
    assert!(stage.service.describe_group(&bob, public.clone()).await.unwrap().stock_clients);
    assert_eq!(stage.service.set_stock_clients(&olga, public, false).await, Err(Refused::OwnerOnly));
}

#[tokio::test]
async fn a_key_is_listed_with_its_last_use_and_revoked_alone() {
    let stage = Stage::new().await;
    let (olga, _events, file, first) = stage.open_lab().await;
    stage.announce_member(&olga, file, true);
    stage.stock_news(&olga);
    let (second_id, second) = stage.used_key(&olga, file).await;
    assert_ne!(first, second, "each generation has another");
    let rows = stage.service.list_keys(&olga).await.unwrap();
    let shown: Vec<_> = rows.iter().map(|row| (row.file.as_str(), row.address.as_deref(), row.used_ms)).collect();
    assert_eq!(shown, [("file7", None, None), ("file7", Some("10.0.9.1:1"), Some(1_000_000))]);
    let bob = stage.bob(&olga).await;
    assert_eq!(stage.service.revoke_key(&bob, second_id).await, Err(Refused::NoSuchKey), "another member's");
    stage.service.revoke_key(&olga, second_id).await.unwrap();
    assert_eq!(stage.try_key(&second, file.info_hash), NOT_ADMITTED);
    assert_eq!(stage.try_key(&first, file.info_hash), Ok(()));
    assert_eq!(stage.service.revoke_key(&olga, second_id).await, Err(Refused::NoSuchKey));
    let third = stage.service.create_key(&olga, file.listing).await.unwrap();
    assert!(third.key != second && third.id > second_id);
}

/// The peers leave at once, and members' clients are told so that they drop them.
#[tokio::test]
async fn a_revoked_key_takes_its_peers_along() {
    let stage = Stage::new().await;
    let (olga, _events, file, key) = stage.open_lab().await;
    stage.announce_member(&olga, file, true);
    let (id, leaked) = stage.used_key(&olga, file).await;
    stage.announce(&leaked, file.info_hash, "10.0.9.2:2", 0).unwrap();
    stage.announce(&key, file.info_hash, "10.0.9.3:3", 0).unwrap();
    stage.stock_news(&olga);
    stage.service.revoke_key(&olga, id).await.unwrap();
    assert_eq!(stage.stock_news(&olga), (vec![], vec!["10.0.9.1:1".into(), "10.0.9.2:2".into()]));
    let peers = stage.announce(&key, file.info_hash, "10.0.9.4:4", 5).unwrap().1;
    assert_eq!(peers, ["10.0.0.1:4000".parse().unwrap(), "10.0.9.3:3".parse().unwrap()]);
}

#[tokio::test]
async fn leaving_or_being_removed_ends_the_keys_for_ever() {
    let stage = Stage::new().await;
    let (olga, _events, file, owners) = stage.open_lab().await;
    let bob = stage.bob(&olga).await;
    for removed in [false, true] {
        let (_, key) = stage.used_key(&bob, file).await;
        match removed {
            true => stage.service.remove_member(&olga, group(), bob.name.clone()).await.unwrap(),
            false => drop(stage.service.leave_group(&bob, group()).await.unwrap()),
        }
        assert_eq!(stage.try_key(&key, file.info_hash), NOT_ADMITTED);
        assert_eq!(stage.service.announces().n_peers(), 0);
        stage.join(&olga, &bob).await;
        assert_eq!(stage.try_key(&key, file.info_hash), NOT_ADMITTED, "not by coming back");
        let again = stage.service.create_key(&bob, file.listing).await.unwrap();
        assert_ne!(again.key, key, "no generation comes again");
        assert_eq!(stage.try_key(&owners, file.info_hash), Ok(()), "others' keys go on");
        let stop = OrdinaryAnnounce {
            event: mini_torrent_common::announce::Event::Stopped,
            ..ordinary::asked(file.info_hash, "10.0.9.1:1", 5)
        };
        stage.announce_with(&Credential::Key(owners.clone()), &stop).unwrap();
    }
}

#[tokio::test]
async fn the_end_of_a_file_a_group_or_an_account_ends_the_keys() {
    let stage = Stage::new().await;
    let (olga, _events, file, _) = stage.open_lab().await;
    let bob = stage.bob(&olga).await;
    let (_, key) = stage.used_key(&bob, file).await;
    stage.service.lock_user(bob.name.clone()).await.unwrap();
    assert_eq!(stage.try_key(&key, file.info_hash), NOT_ADMITTED, "locked");
    let (_, key) = stage.used_key(&olga, file).await;
    stage.service.stop_share(&olga, file.listing).await.unwrap();
    assert_eq!(stage.try_key(&key, file.info_hash), NOT_ADMITTED, "the last sharer stopped");
    let file = stage.list(&olga, "lab", 7).await;
    assert_eq!(stage.try_key(&key, file.info_hash), NOT_ADMITTED, "the same file listed again");
    let (_, key) = stage.used_key(&olga, file).await;
    stage.service.remove_file(&olga, group(), "file7".parse().unwrap()).await.unwrap();
    assert_eq!(stage.try_key(&key, file.info_hash), NOT_ADMITTED, "removed");
    let file = stage.list(&olga, "lab", 7).await;
    let (_, key) = stage.used_key(&olga, file).await;
    stage.service.remove_member(&olga, group(), bob.name.clone()).await.unwrap();
    stage.service.leave_group(&olga, group()).await.unwrap();
    assert_eq!(stage.try_key(&key, file.info_hash), NOT_ADMITTED, "the group is gone");
    let public = stage.list(&olga, "public", 8).await;
    let (_, key) = stage.used_key(&olga, public).await;
    stage.service.logout_everywhere(&olga).await.unwrap();
    assert_eq!(stage.try_key(&key, public.info_hash), NOT_ADMITTED, "logged out everywhere");
    assert_eq!(stage.service.announces().n_peers(), 0);
}

/// Use from more than 8 addresses within an hour suspends a key, and its member is told.
#[tokio::test]
async fn a_leaked_key_is_suspended_and_its_member_told() {
    let stage = Stage::new().await;
    let (olga, mut events, file, key) = stage.open_lab().await;
    let suspending = tokio::spawn({
        let service = Arc::clone(&stage.service);
        async move { service.suspend_keys().await }
    });
    let announce = |n: u8| stage.announce(&key, file.info_hash, &format!("10.0.8.{n}:1"), 5);
    for n in 1..=8 {
        assert!(announce(n).is_ok(), "{n}");
    }
    assert_eq!(announce(9).map(|_| ()), NOT_ADMITTED);
    assert_eq!(announce(1).map(|_| ()), NOT_ADMITTED, "suspended for all");
    let id = stage.service.list_keys(&olga).await.unwrap()[0].id;
    let told = Event::KeySuspended { id, group: group(), file: "file7".parse().unwrap() };
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), events.recv()).await, Ok(Some(told)));
    assert_eq!(stage.service.announces().n_peers(), 0, "its clients have left");
    assert!(stage.service.list_keys(&olga).await.unwrap()[0].suspended);
    assert_eq!(announce(1).map(|_| ()), NOT_ADMITTED);
    stage.service.revoke_key(&olga, id).await.unwrap();
    assert!(stage.service.list_keys(&olga).await.unwrap().is_empty());
    suspending.abort();
}
