//! What has a name is done once: the same answer, no second effect, and only for whose it is.

use super::*;
use crate::limits;
use mini_torrent_common::control::KeyId;
use mini_torrent_common::hash::OperationId;
use serde::de::DeserializeOwned;
use std::ops::Range;

const OTHER: GroupId = GroupId([8; 16]);

/// The actor, doing something by a name that is made of this byte.
fn named(actor: Actor, name: u8) -> Actor {
    Actor { once: Some(once(name, 10)), ..actor }
}

fn once(name: u8, at_ms: u64) -> Once {
    Once { id: OperationId([name; 16]), at_ms }
}

impl Store {
    /// What is recorded under a user's name for something.
    async fn recorded<T: DeserializeOwned + Send + 'static>(
        &self,
        user: UserId,
        once: Once,
        kind: OperationKind,
    ) -> Option<T> {
        let read = self.database.read(move |tx| queries::operations::outcome(tx, Owner::User(user), once, kind));
        read.await.unwrap()
    }
}

fn usage<T>(result: &Result<T>) -> bool {
    matches!(result, Err(StoreError::Refused(Refused::Usage(_))))
}

pub(super) async fn every_write_is_done_once_and_answers_the_same_again(place: Place) {
    let opened = place.open().await;
    let store = &opened.store;
    let [olga, bob] = users(store, ["olga", "bob"]).await;
    for _ in 0..2 {
        store.create_group(LAB, lab(), named(olga, 1), 6, plenty).await.unwrap();
    }
    let mut answers = Vec::new();
    for _ in 0..2 {
        answers.push(store.request_to_join(lab(), named(bob, 1), 7, any(), plenty).await.unwrap());
    }
    assert_eq!((&answers[0], &answers[0].deciders), (&answers[1], &vec![olga.user]));
    for _ in 0..2 {
        let decided = store.decide_request(lab(), named(olga, 2), user_name("bob"), true, 8, any()).await;
        assert_eq!(decided, Ok(Decided { group: lab(), user: bob.user }));
    }
    let allow = || -> MemberRule { Box::new(|_, _| Ok(())) };
    for _ in 0..2 {
        let set = store.set_role(named(olga, 3), lab(), user_name("bob"), Role::Admin, allow()).await;
        assert_eq!(set.unwrap().user, bob.user);
    }
    for _ in 0..2 {
        let given = store.transfer_owner(named(olga, 4), lab(), user_name("bob"), allow(), plenty).await;
        assert_eq!(given.unwrap().user, bob.user);
    }
    let mut removed = Vec::new();
    for _ in 0..2 {
        removed.push(store.remove_member(named(bob, 5), lab(), user_name("olga"), 9, allow()).await.unwrap());
    }
    assert_eq!(removed[0], removed[1]);
    for _ in 0..2 {
        let left = store.leave_group(lab(), named(bob, 6), 10, any(), domain::successor).await.unwrap();
        assert_eq!((left.group, left.left), (LAB, Left::GroupRemoved));
    }
    assert_eq!(store.last_revocation().await.unwrap(), removed[0].revocation + 1, "no place was taken twice");
}

pub(super) async fn files_shares_and_keys_are_made_and_ended_once(place: Place) {
    let opened = place.open().await;
    let store = &opened.store;
    let [olga, bob] = members(store, ["olga", "bob"]).await;
    for _ in 0..2 {
        assert_eq!(store.set_stock_clients(named(olga, 1), lab(), true, any()).await, Ok(lab()));
    }
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(list(store, named(olga, 2), "file").await.unwrap());
    }
    assert_eq!(ids[0], ids[1]);
    for _ in 0..2 {
        assert_eq!(store.add_share(ids[0], named(bob, 1), 9, any(), plenty).await, Ok(true));
    }
    let mut keys = Vec::new();
    for secret in [3, 4] {
        let new = NewKey { listing: ids[0], secret: zeroize::Zeroizing::new([secret; 32]), at_ms: 9 };
        keys.push(store.create_key(named(bob, 2), new, any(), plenty).await.unwrap());
    }
    assert_eq!((keys[0].id, keys[0].key.digest()), (keys[1].id, keys[1].key.digest()));
    assert_eq!(store.keys(bob.user).await.unwrap().len(), 1);
    for _ in 0..2 {
        assert_eq!(store.revoke_key(named(bob, 3), keys[0].id).await, Ok(()));
    }
    let new = NewKey { listing: ids[0], secret: zeroize::Zeroizing::new([5; 32]), at_ms: 9 };
    let ended = store.create_key(named(bob, 2), new, any(), plenty).await;
    assert_eq!(ended.map(|key| key.id), Err(Refused::NoSuchKey.into()), "it is not made anew");
    for _ in 0..2 {
        assert_eq!(store.end_share(ids[0], named(bob, 4), any()).await, Ok(EndedShare::Ended));
        assert_eq!(store.end_share(ids[0], named(olga, 3), any()).await, Ok(EndedShare::ListingEnded));
    }
    let id = list(store, olga, "other").await.unwrap();
    for _ in 0..2 {
        let removed = store.remove_file(named(olga, 4), lab(), "other".parse().unwrap(), Box::new(|_, _| Ok(()))).await;
        assert_eq!(removed, Ok(id));
    }
}

pub(super) async fn the_secret_of_a_key_is_not_recorded(place: Place) {
    let opened = place.open().await;
    let [olga] = members(&opened.store, ["olga"]).await;
    opened.store.set_stock_clients(olga, lab(), true, any()).await.unwrap();
    let listing = list(&opened.store, olga, "file").await.unwrap();
    let new = NewKey { listing, secret: zeroize::Zeroizing::new([3; 32]), at_ms: 9 };
    let granted = opened.store.create_key(named(olga, 1), new, any(), plenty).await.unwrap();
    let recorded: KeyId = opened.store.recorded(olga.user, once(1, 10), OperationKind::CreateKey).await.unwrap();
    assert_eq!(recorded, granted.id);
}

pub(super) async fn a_name_is_worth_nothing_without_its_session_its_kind_and_its_user(place: Place) {
    let Opened { store, database: _database } = place.open().await;
    let [olga, bob] = users(&store, ["olga", "bob"]).await;
    store.create_group(LAB, lab(), named(olga, 1), 6, plenty).await.unwrap();
    let other_kind = store.request_to_join(lab(), named(olga, 1), 7, any(), plenty).await;
    assert!(usage(&other_kind), "{other_kind:?}");
    let of_bob = store.create_group(OTHER, lab(), named(bob, 1), 6, plenty).await;
    assert_eq!(of_bob, Err(StoreError::Conflict), "the name is olga's: for bob it is new");
    store.end_session(olga).await.unwrap();
    let replayed = store.create_group(LAB, lab(), named(olga, 1), 6, plenty).await;
    assert_eq!(replayed, Err(Refused::SessionEnded.into()));
}

pub(super) async fn what_was_refused_is_decided_anew(place: Place) {
    let Opened { store, database: _database } = place.open().await;
    let [olga, bob] = users(&store, ["olga", "bob"]).await;
    let join = || store.request_to_join(lab(), named(bob, 1), 7, any(), plenty);
    assert_eq!(join().await, Err(StoreError::NotFound));
    store.create_group(LAB, lab(), olga, 6, plenty).await.unwrap();
    assert_eq!(store.request_to_join(lab(), named(bob, 1), 7, no(), plenty).await, Err(Refused::NotAMember.into()));
    join().await.unwrap();
    let unnamed = store.request_to_join(lab(), bob, 7, any(), plenty).await;
    assert_eq!(unnamed, Err(StoreError::Conflict), "without a name it is done again");
}

pub(super) async fn an_account_is_created_once_by_one_client(place: Place) {
    let Opened { store, database: _database } = place.open().await;
    let [olga] = users(&store, ["olga"]).await;
    let new = |key, name| NewUser {
        name: user_name("bob"),
        password_hash: "hash".into(),
        at_ms: 5,
        client_key: PublicKey([key; 32]),
        once: Some(once(name, 10)),
    };
    let bob = store.register(new(1, 1)).await.unwrap();
    assert_eq!(store.register(new(1, 1)).await, Ok(bob));
    assert_eq!(store.registered(PublicKey([1; 32]), once(1, 11)).await, Ok(Some(bob)));
    for (key, name) in [(1, 2), (2, 1)] {
        assert_eq!(store.registered(PublicKey([key; 32]), once(name, 11)).await, Ok(None));
        assert_eq!(store.register(new(key, name)).await, Err(StoreError::Conflict));
    }
    // A user's name for something is not a client's.
    store.create_group(LAB, lab(), named(olga, 1), 6, plenty).await.unwrap();
    assert_eq!(store.registered(PublicKey([1; 32]), once(1, 11)).await, Ok(Some(bob)));
}

/// Makes and ends a share under names of its own, at these times.
async fn share_often(store: &Store, actor: Actor, listing: ListingId, times_ms: Range<u64>) {
    for at_ms in times_ms {
        let once = Some(Once { id: OperationId(u128::from(at_ms).to_be_bytes()), at_ms });
        store.add_share(listing, Actor { once, ..actor }, at_ms, any(), plenty).await.unwrap();
    }
}

pub(super) async fn names_are_forgotten_in_time_and_before_there_are_many(place: Place) {
    let Opened { store, database: _database } = place.open().await;
    let [olga, bob] = members(&store, ["olga", "bob"]).await;
    let listing = list(&store, olga, "file").await.unwrap();
    let knows = async |user, at_ms: u64| {
        let once = Once { id: OperationId(u128::from(at_ms).to_be_bytes()), at_ms };
        store.recorded::<bool>(user, once, OperationKind::AddShare).await.is_some()
    };
    share_often(&store, olga, listing, 1..2).await;
    let n = limits::MAX_OPERATIONS_KEPT as u64;
    share_often(&store, bob, listing, 1..n + 2).await;
    assert!(!knows(bob.user, 1).await && knows(bob.user, 2).await && knows(bob.user, n + 1).await);
    assert!(knows(olga.user, 1).await, "another's many names are no reason");
    store.keep_sessions(vec![], 2 + limits::OPERATION_LIFE_MS, u64::MAX >> 1).await.unwrap();
    assert!(!knows(olga.user, 1).await && !knows(bob.user, 2).await && knows(bob.user, 3).await);
}
