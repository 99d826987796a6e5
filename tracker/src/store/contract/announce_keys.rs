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

/// Whether a write raised the number by which trackers see who is admitted.
async fn raises<T: std::fmt::Debug>(store: &Store, what: &str, write: impl Future<Output = Result<T>>) -> T {
    let before = admitted(store).await.1;
    let done = write.await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert!(store.admitted(before).await.unwrap().is_some_and(|now| now.change > before), "{what}");
    done
}

/// The same for a write that changes nothing of it.
async fn leaves<T: std::fmt::Debug>(store: &Store, what: &str, write: impl Future<Output = Result<T>>) -> T {
    let before = admitted(store).await.1;
    let done = write.await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!(store.admitted(before).await, Ok(None), "{what}");
    done
}

async fn sign_in_again(store: &Store, Actor { user, .. }: Actor) -> Actor {
    let token = Sha256Hash([u8::try_from(user.0).unwrap(); 32]);
    Actor::new(user, store.begin_session(session(user, 1, token)).await.unwrap().id)
}

/// Every way in which a key comes or ends, by itself or with what it hangs on, and a file of the built-in group.
pub(super) async fn each_change_of_who_is_admitted_is_seen_by_its_number(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let [olga, bob, eve] = members(&store, ["olga", "bob", "eve"]).await;
    let store = &store;
    let file = async |actor: Actor, name: &str| leaves(store, "a private listing", list(store, actor, name)).await;
    let key =
        async |actor: Actor, listing: ListingId| raises(store, "a new key", create(store, actor, listing)).await.id;
    leaves(store, "no keys to end", store.set_stock_clients(olga, lab(), false, any())).await;
    leaves(store, "the switch alone", store.set_stock_clients(olga, lab(), true, any())).await;

    let (a, b) = (file(olga, "a").await, file(olga, "b").await);
    let one = key(bob, a).await;
    raises(store, "suspended", store.suspend_key(one)).await;
    leaves(store, "suspended already", store.suspend_key(one)).await;
    raises(store, "revoked", store.revoke_key(bob, one)).await;
    key(bob, a).await;
    raises(store, "stock clients off", store.set_stock_clients(olga, lab(), false, any())).await;
    leaves(store, "on again", store.set_stock_clients(olga, lab(), true, any())).await;
    key(bob, a).await;
    raises(store, "ended everywhere", store.end_everywhere(bob, 9)).await;
    key(eve, a).await;
    raises(store, "locked", store.lock_user(user_name("eve"), 9)).await;
    leaves(store, "unlocked", store.unlock_user(user_name("eve"))).await;

    let (bob, eve) = (sign_in_again(store, bob).await, sign_in_again(store, eve).await);
    key(bob, a).await;
    leaves(store, "one of two sharers", async {
        store.add_share(a, bob, 9, any(), plenty).await?;
        store.end_share(a, bob, any()).await
    })
    .await;
    raises(store, "the last share", store.end_share(a, olga, any())).await;
    key(bob, b).await;
    raises(store, "a removed file", store.remove_file(olga, lab(), "b".parse().unwrap(), Box::new(|_, _| Ok(()))))
        .await;
    let c = file(olga, "c").await;
    key(bob, c).await;
    raises(store, "a removed member", store.remove_member(olga, lab(), user_name("bob"), 9, Box::new(|_, _| Ok(()))))
        .await;
    let d = file(eve, "d").await;
    key(olga, d).await;
    raises(store, "a listing whose last sharer left", store.leave_group(lab(), eve, 9, any(), domain::successor)).await;
    key(olga, c).await;
    let left = raises(store, "the last member", store.leave_group(lab(), olga, 9, any(), domain::successor)).await;
    assert_eq!(left.left, Left::GroupRemoved);
    assert!(admitted(store).await.0.is_empty());

    let open = |name| NewListing { group: GroupId([0; 16]), ..new_listing(name, vec![1]) };
    let e = raises(store, "an open file", store.list_file(olga, open("e"), any(), plenty)).await;
    key(bob, e).await;
    raises(store, "its last share", store.end_share(e, olga, any())).await;
    raises(store, "another one", store.list_file(olga, open("f"), any(), plenty)).await;
    let public = "public".parse().unwrap();
    raises(store, "its removal", store.remove_file(olga, public, "f".parse().unwrap(), Box::new(|_, _| Ok(())))).await;
}
