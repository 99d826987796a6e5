//! Announce keys: what every store must keep of them, and what ends them.

use super::*;
use mini_torrent_common::control::{GrantedKey, KeyId};
use zeroize::Zeroizing;

fn new_key(listing: ListingId, secret: u8) -> NewKey {
    NewKey { listing, secret: Zeroizing::new([secret; 32]), at_ms: 9 }
}

async fn create(store: &Store, actor: Actor, listing: ListingId) -> Result<GrantedKey> {
    // Each user has a secret of its own.
    let secret = u8::try_from(actor.user.0).unwrap();
    store.create_key(actor, new_key(listing, secret), any(), plenty).await
}

/// The keys that admit, and the number of the last change.
async fn admitted(store: &Store) -> (Vec<KeyId>, u64) {
    let admitted = store.admitted(0).await.unwrap().unwrap();
    (admitted.keys.iter().map(|key| key.id).collect(), admitted.change)
}

pub(super) async fn a_key_is_made_of_a_lasting_secret_and_a_new_generation(on: Place) {
    let opened = on.open().await;
    let [olga] = members(&opened.store, ["olga"]).await;
    let file = list(&opened.store, olga, "a").await.unwrap();
    let off = create(&opened.store, olga, file).await;
    assert_eq!(off.unwrap_err(), StoreError::Refused(Refused::StockClientsOff));
    opened.store.set_stock_clients(olga, lab(), true, any()).await.unwrap();
    let refused = opened.store.create_key(olga, new_key(file, 1), no(), plenty).await;
    assert_eq!(refused.unwrap_err(), StoreError::Refused(Refused::NotAMember));
    assert!(opened.store.create_key(olga, new_key(file, 1), any(), none).await.is_err());
    assert_eq!(create(&opened.store, olga, ListingId(99)).await.unwrap_err(), StoreError::NotFound);
    let first = create(&opened.store, olga, file).await.unwrap();

    let opened = opened.reopen().await;
    let store = &opened.store;
    let second = store.create_key(olga, new_key(file, 2), any(), plenty).await.unwrap();
    let info_hash = store.listing_named(LAB, "a".parse().unwrap()).await.unwrap().unwrap().draft.info_hash;
    use mini_torrent_common::announce_key::AnnounceKey;
    let expected = [1, 2].map(|generation| AnnounceKey::derive(&[1; 32], info_hash, generation));
    assert_eq!([&first.key, &second.key], [&expected[0], &expected[1]], "the first secret stays");
    let known = store.admitted(0).await.unwrap().unwrap();
    let keys: Vec<_> = known.keys.iter().map(|key| (key.id, key.digest, key.user.as_str(), key.built_in)).collect();
    assert_eq!(keys, [first, second].map(|key| (key.id, key.key.digest(), "olga", false)));
    assert_eq!(store.admitted(known.change).await, Ok(None), "nothing has changed");
    let export = store.export().await.unwrap().to_string();
    assert!(export.contains("announce_keys") && !export.contains("secret"), "{export}");
}

pub(super) async fn the_use_of_a_key_is_no_change_of_who_is_admitted_and_its_suspension_is_one(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let [olga, bob] = members(&store, ["olga", "bob"]).await;
    let file = list(&store, olga, "a").await.unwrap();
    store.set_stock_clients(olga, lab(), true, any()).await.unwrap();
    let (id, other) = (create(&store, olga, file).await.unwrap().id, create(&store, bob, file).await.unwrap().id);
    let (_, change) = admitted(&store).await;
    let address = "10.0.0.1:5".parse().unwrap();
    store
        .note_key_use(vec![KeyUse { id, address, used_ms: 77 }, KeyUse { id: KeyId(99), address, used_ms: 1 }])
        .await
        .unwrap();
    assert_eq!(store.admitted(change).await, Ok(None));
    let suspended = store.suspend_key(id).await.unwrap().unwrap();
    assert_eq!((suspended.user, suspended.group, suspended.file.as_str()), (olga.user, lab(), "a"));
    assert_eq!(store.suspend_key(id).await, Ok(None), "once");
    assert_eq!(admitted(&store).await.0, [other]);
    let rows = store.keys(olga.user).await.unwrap();
    assert_eq!((rows.len(), rows[0].suspended, rows[0].used_ms), (1, true, Some(77)));
    assert_eq!(rows[0].address.as_deref(), Some("10.0.0.1:5"));
    assert_eq!(store.revoke_key(bob, id).await, Err(StoreError::NotFound), "another user's");
    assert_eq!(store.revoke_key(olga, id).await, Ok(()));
    assert_eq!(store.keys(olga.user).await, Ok(vec![]));
}

pub(super) async fn a_key_goes_with_what_it_hangs_on(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let [olga, bob] = members(&store, ["olga", "bob"]).await;
    store.set_stock_clients(olga, lab(), true, any()).await.unwrap();
    let (one, two) = (list(&store, olga, "a").await.unwrap(), list(&store, olga, "b").await.unwrap());
    create(&store, bob, one).await.unwrap();
    let kept = create(&store, olga, two).await.unwrap().id;
    create(&store, olga, one).await.unwrap();
    let before = admitted(&store).await.1;
    store.leave_group(lab(), bob, 9, any(), domain::successor).await.unwrap();
    store.end_share(one, olga, any()).await.unwrap();
    let (keys, after) = admitted(&store).await;
    assert!(keys == [kept] && after > before, "{keys:?}");
    store.set_stock_clients(olga, lab(), false, any()).await.unwrap();
    assert!(admitted(&store).await.0.is_empty());
    assert!(store.set_stock_clients(olga, lab(), true, no()).await.is_err());
    store.set_stock_clients(olga, lab(), true, any()).await.unwrap();
    create(&store, olga, two).await.unwrap();
    store.end_everywhere(olga, 9).await.unwrap();
    assert!(admitted(&store).await.0.is_empty());
}

pub(super) async fn files_of_the_built_in_group_are_open_while_they_are_listed(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let [olga] = members(&store, ["olga"]).await;
    list(&store, olga, "private").await.unwrap();
    let before = admitted(&store).await.1;
    let new = NewListing { group: GroupId([0; 16]), ..new_listing("open", vec![1]) };
    let listing = store.list_file(olga, new, any(), plenty).await.unwrap();
    let known = store.admitted(before).await.unwrap().unwrap();
    assert_eq!(known.open.iter().map(|file| file.listing).collect::<Vec<_>>(), [listing]);
    assert!(create(&store, olga, listing).await.is_ok(), "keys without any switch");
    assert!(store.admitted(0).await.unwrap().unwrap().keys[0].built_in);
    store.end_share(listing, olga, any()).await.unwrap();
    let known = store.admitted(known.change).await.unwrap().unwrap();
    assert!(known.open.is_empty() && known.keys.is_empty());
}
