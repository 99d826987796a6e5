//! Transactions of two trackers that cross: what each found still holds when it commits.

use super::*;

/// Two stores, each with half of what is done.
fn either<'s>(one: &'s Store, other: &'s Store, n: usize) -> &'s Store {
    if n.is_multiple_of(2) { one } else { other }
}

pub(super) async fn a_quota_holds_for_all_that_is_asked_at_once(on: Place) {
    fn three(_: Quota, n: u64) -> std::result::Result<(), Refused> {
        if n > 3 { Err(Refused::QuotaExceeded { what: "groups", limit: 3 }) } else { Ok(()) }
    }
    let one = on.open().await;
    let other = one.beside().await;
    let [olga] = users(&one.store, ["olga"]).await;
    let created = (0..12_u8).map(|n| {
        let name = format!("g{n}").parse().unwrap();
        either(&one.store, &other, n.into()).create_group(GroupId([100 + n; 16]), name, olga, 6, three)
    });
    let outcomes = futures_util::future::join_all(created).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 3, "{outcomes:?}");
    let refused = |outcome: &&Result<()>| matches!(outcome, Err(StoreError::Refused(_)));
    assert_eq!(outcomes.iter().filter(refused).count(), 9, "{outcomes:?}");
    other.close().await;
}

/// The last sharer leaves while somebody begins to share: either the listing stays with the new one, or there was
/// nothing left to share.
pub(super) async fn a_listing_is_never_without_a_sharer(on: Place) {
    let one = on.open().await;
    let other = one.beside().await;
    let [olga, bob] = members(&one.store, ["olga", "bob"]).await;
    for round in 0..20 {
        let listing = list(&one.store, olga, &format!("f{round}")).await.unwrap();
        let (ended, added) =
            tokio::join!(one.store.end_share(listing, olga, any()), other.add_share(listing, bob, 9, any(), plenty),);
        let facts = one.store.sharing(bob.user, vec![listing]).await.unwrap();
        match (ended.unwrap(), added) {
            (EndedShare::Ended, Ok(true)) => assert!(facts[0].shares),
            (EndedShare::ListingEnded, Err(StoreError::NotFound)) => assert_eq!(facts, []),
            outcome => panic!("{outcome:?} {facts:?}"),
        }
    }
    other.close().await;
}

/// Whoever reads the log up to a number never misses an entry before it that is committed later.
pub(super) async fn the_log_of_revocations_skips_nobody(on: Place) {
    let one = on.open().await;
    let other = one.beside().await;
    let names: Vec<_> = (0..40).map(|n| format!("u{n}")).collect();
    for name in &names {
        one.store.create_user(user_name(name), "hash".into(), 5).await.unwrap();
    }
    let locked = names.iter().enumerate().map(|(n, name)| either(&one.store, &other, n).lock_user(user_name(name), 9));
    let read = async {
        let mut seen = Vec::new();
        while seen.len() < names.len() {
            let last = seen.last().copied().unwrap_or(0);
            seen.extend(other.revocations(last, 100).await.unwrap().iter().map(|entry| entry.number));
        }
        seen
    };
    let (locked, seen) = tokio::join!(futures_util::future::join_all(locked), read);
    assert!(locked.iter().all(|outcome| outcome.is_ok()), "{locked:?}");
    let all: Vec<_> = one.store.revocations(0, 100).await.unwrap().iter().map(|entry| entry.number).collect();
    assert_eq!(seen, all);
    other.close().await;
}
