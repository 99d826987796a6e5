//! Removal, roles, ownership, and files that are removed.

use super::*;

fn any_member() -> MemberRule {
    Box::new(|_, _| Ok(()))
}

/// A rule that refuses and checks what it was asked with.
fn asked_with(standing: Option<Role>, target: domain::Target) -> MemberRule {
    Box::new(move |actor, found| {
        assert_eq!((actor.role, found), (standing, target));
        Err(Refused::NotTheOwner)
    })
}

const NO: StoreError = StoreError::Refused(Refused::NotTheOwner);

pub(super) async fn rules_are_asked_with_what_the_transaction_finds(on: Place) {
    use domain::Target;
    let Opened { store, database: _database } = on.open().await;
    let [olga, bob] = members(&store, ["olga", "bob"]).await;
    let [eve] = users(&store, ["eve"]).await;
    for (actor, subject, standing, target) in [
        (olga, "BOB", Some(Role::Owner), Target::Other(Some(Role::Member))),
        (bob, "olga", Some(Role::Member), Target::Other(Some(Role::Owner))),
        (bob, "bob", Some(Role::Member), Target::Actor),
        (eve, "nix", None, Target::NoAccount),
        (olga, "eve", Some(Role::Owner), Target::Other(None)),
    ] {
        let rule = || asked_with(standing, target);
        let subject = || user_name(subject);
        assert_eq!(store.remove_member(actor, lab(), subject(), 9, rule()).await, Err(NO));
        assert_eq!(store.set_role(actor, lab(), subject(), Role::Admin, rule()).await, Err(NO));
        assert_eq!(store.transfer_owner(actor, lab(), subject(), rule(), plenty).await, Err(NO));
    }
    let nowhere = store.remove_member(olga, "art".parse().unwrap(), user_name("bob"), 9, any_member()).await;
    assert_eq!(nowhere, Err(StoreError::NotFound));
    assert_eq!(role(&store, bob).await, Some(Role::Member));
}

pub(super) async fn a_removed_member_leaves_nothing_behind_but_a_revocation(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let [olga, bob, eve] = members(&store, ["olga", "bob", "eve"]).await;
    let (alone, shared) = (list(&store, bob, "alone").await.unwrap(), list(&store, bob, "shared").await.unwrap());
    store.add_share(shared, eve, 9, any(), plenty).await.unwrap();
    let removed = store.remove_member(olga, lab(), user_name("bob"), 9, any_member()).await.unwrap();
    let member = Governed { group: LAB, group_name: lab(), user: bob.user };
    let expected = Removed { member, ended: vec![alone], revocation: 1 };
    assert_eq!((removed, role(&store, bob).await), (expected, None));
    let [facts_of_bob, facts_of_eve] = [bob, eve].map(|actor| store.sharing(actor.user, vec![shared]));
    let facts = facts_of_bob.await.unwrap()[0];
    assert!(!facts.shares && facts.was_member);
    assert!(!facts_of_eve.await.unwrap()[0].was_member, "it is one");
    let log = store.revocations(0, 10).await.unwrap();
    assert_eq!((log.len(), log[0].group, log[0].account), (1, Some(LAB), bob.user.account()));
}

pub(super) async fn roles_and_ownership_change_hands(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let [olga, bob] = members(&store, ["olga", "bob"]).await;
    for expected in [Role::Admin, Role::Member] {
        store.set_role(olga, lab(), user_name("bob"), expected, any_member()).await.unwrap();
        assert_eq!(role(&store, bob).await, Some(expected));
    }
    let refused = store.transfer_owner(olga, lab(), user_name("bob"), any_member(), none).await;
    assert!(matches!(refused, Err(StoreError::Refused(Refused::QuotaExceeded { limit: 2, .. }))), "{refused:?}");
    assert_eq!(role(&store, olga).await, Some(Role::Owner), "nothing was written");
    store.transfer_owner(olga, lab(), user_name("bob"), any_member(), plenty).await.unwrap();
    assert_eq!((role(&store, olga).await, role(&store, bob).await), (Some(Role::Admin), Some(Role::Owner)));
    let rows = store.groups(None, 1, olga.user).await.unwrap();
    assert_eq!(rows[0].owner.as_ref().map(UserName::as_str), Some("bob"));
}

pub(super) async fn a_file_is_removed_with_its_shares_as_the_rule_says(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let [olga, bob] = members(&store, ["olga", "bob"]).await;
    let listing = list(&store, olga, "a").await.unwrap();
    let asked_with = |expected: Option<(bool, bool)>| -> FileRule {
        Box::new(move |_, file| {
            assert_eq!(file.map(|file| (file.is_uploader, file.has_other_sharers)), expected);
            Err(Refused::NotTheOwner)
        })
    };
    let remove = |actor, name: &str, rule| store.remove_file(actor, lab(), name.parse().unwrap(), rule);
    assert_eq!(remove(olga, "A", asked_with(Some((true, false)))).await, Err(NO));
    assert_eq!(remove(bob, "a", asked_with(Some((false, true)))).await, Err(NO));
    assert_eq!(remove(bob, "b", asked_with(None)).await, Err(NO));
    store.add_share(listing, bob, 9, any(), plenty).await.unwrap();
    assert_eq!(remove(olga, "a", asked_with(Some((true, true)))).await, Err(NO));
    assert_eq!(remove(bob, "a", Box::new(|_, _| Ok(()))).await, Ok(listing));
    assert_eq!(store.listings(LAB, None, 10).await, Ok(vec![]));
    assert_eq!(store.sharing(bob.user, vec![listing]).await, Ok(vec![]));
}
