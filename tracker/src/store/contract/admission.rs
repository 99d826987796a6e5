//! Ticket keys, what tickets say, and the log of revocations.

use super::*;
use mini_torrent_common::revocation::REVOCATION_LIFE_MS;
use mini_torrent_common::tls::Identity;
use zeroize::Zeroizing;

fn everywhere(log: &[Revocation]) -> Vec<(u64, Option<GroupId>, u64, u64)> {
    log.iter().map(|one| (one.number, one.group, one.account.0, one.epoch)).collect()
}

fn any_member() -> MemberRule {
    Box::new(|_, _| Ok(()))
}

pub(super) async fn who_rejoins_has_a_greater_epoch_than_was_revoked(on: Place) {
    let opened = on.open().await;
    let store = &opened.store;
    let [olga, bob] = members(store, ["olga", "bob"]).await;
    let facts = store.admission(bob, LAB, 0, 100).await.unwrap();
    assert_eq!((facts.standing.role, facts.account_epoch, facts.revocations), (Some(Role::Member), 1, vec![]));
    let first = facts.member_epoch;
    store.leave_group(lab(), bob, 100, any(), domain::successor).await.unwrap();
    let log = store.admission(bob, LAB, 0, 100).await.unwrap().revocations;
    assert_eq!((log[0].group, log[0].epoch, log[0].at_ms), (Some(LAB), first, 100));
    join(store, bob, olga, "bob").await;
    let second = store.admission(bob, LAB, 0, 100).await.unwrap();
    assert!(second.member_epoch > first && second.revocations == log);
    store.remove_member(olga, lab(), user_name("bob"), 101, any_member()).await.unwrap();
    let opened = opened.reopen().await;
    let after = opened.store.admission(olga, LAB, log[0].number, 101).await.unwrap().revocations;
    assert_eq!((after.len(), after[0].epoch), (1, second.member_epoch));
    assert!(after[0].number > log[0].number);
    assert_eq!(opened.store.revocations(0, 10).await, Ok(after), "it took the older one's place");
    assert_eq!(opened.store.last_revocation().await, Ok(2));
    assert_eq!(opened.store.admission(olga, GroupId([9; 16]), 0, 1).await, Err(StoreError::NotFound));
}

pub(super) async fn the_end_of_a_group_is_in_the_log_and_a_withdrawn_request_is_not(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let [olga] = members(&store, ["olga"]).await;
    let [bob] = users(&store, ["bob"]).await;
    store.request_to_join(lab(), bob, 7, any(), plenty).await.unwrap();
    store.leave_group(lab(), bob, 9, any(), domain::successor).await.unwrap();
    assert_eq!(store.revocations(0, 10).await, Ok(vec![]));
    store.leave_group(lab(), olga, 9, any(), domain::successor).await.unwrap();
    let log = store.revocations(0, 10).await.unwrap();
    assert_eq!((log[0].group, log[0].account), (Some(LAB), olga.user.account()));
}

pub(super) async fn what_is_left_of_something_revoked_is_said(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let [olga, bob, eve] = members(&store, ["olga", "bob", "eve"]).await;
    let epoch = store.admission(bob, LAB, 0, 1).await.unwrap().member_epoch;
    let membership = Revoked::Membership { user: bob.user, group: LAB, epoch };
    let over = Remaining::NoMembership(Some(lab()));
    let remaining = async |revoked| store.remaining(vec![revoked]).await.unwrap().remove(0);
    store.remove_member(olga, lab(), user_name("bob"), 9, any_member()).await.unwrap();
    assert_eq!(remaining(membership).await, over);
    join(&store, bob, olga, "bob").await;
    assert_eq!(remaining(membership).await, Remaining::Alive, "of a later epoch");
    let unknown = Revoked::Membership { user: bob.user, group: GroupId([9; 16]), epoch };
    assert_eq!(remaining(unknown).await, Remaining::NoMembership(None));
    store.lock_user(user_name("bob"), 10).await.unwrap();
    store.end_session(eve).await.unwrap();
    let accounts = [olga, bob, eve].map(Revoked::Account).to_vec();
    let expected = [Remaining::Alive, Remaining::NoSession { locked: true }, Remaining::NoSession { locked: false }];
    assert_eq!(store.remaining(accounts).await.unwrap(), expected);
}

pub(super) async fn another_client_lock_and_logout_everywhere_raise_the_accounts_epoch(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let [olga, bob] = members(&store, ["olga", "bob"]).await;
    let user = bob.user;
    let begin = |key, token| store.begin_session(session(user, key, Sha256Hash([token; 32])));
    let same = begin(1, 1).await.unwrap();
    assert!(!same.revoked && store.revocations(0, 10).await.unwrap().is_empty(), "the same client");
    let other = begin(2, 2).await.unwrap();
    assert!(other.revoked);
    let bob = Actor::new(user, other.id);
    assert_eq!(store.admission(bob, LAB, 0, 20).await.unwrap().account_epoch, 2);
    assert_eq!(everywhere(&store.revocations(0, 10).await.unwrap()), [(1, None, user.account().0, 1)]);
    store.end_everywhere(bob, 20).await.unwrap();
    assert_eq!(store.sessions(user).await, Ok(vec![]));
    assert_eq!(everywhere(&store.revocations(0, 10).await.unwrap()), [(2, None, user.account().0, 2)]);
    begin(2, 3).await.unwrap();
    assert_eq!(store.lock_user(user_name("BOB"), 21).await, Ok((user, user_name("bob"))));
    assert_eq!(store.lock_user(user_name("bob"), 22).await, Ok((user, user_name("bob"))), "no second time");
    assert_eq!(store.sessions(user).await, Ok(vec![]));
    assert!(store.account(user_name("bob")).await.unwrap().unwrap().locked);
    assert_eq!(begin(2, 4).await, Err(StoreError::Refused(Refused::AccountLocked)));
    let log = store.admission(olga, LAB, 0, 22).await.unwrap().revocations;
    assert_eq!(everywhere(&log), [(3, None, user.account().0, 3)], "every group hears of it");
    assert_eq!(store.unlock_user(user_name("Bob")).await, Ok((user, user_name("bob"))));
    assert!(!begin(2, 4).await.unwrap().revoked);
    assert_eq!(store.unlock_user(user_name("nix")).await, Err(StoreError::NotFound));
    assert_eq!(store.lock_user(user_name("nix"), 1).await, Err(StoreError::NotFound));
}

pub(super) async fn the_log_is_read_in_pages_by_group_and_forgotten_when_it_is_old(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let [olga, bob, eve] = members(&store, ["olga", "bob", "eve"]).await;
    let art: GroupName = "art".parse().unwrap();
    store.create_group(GroupId([8; 16]), art.clone(), eve, 6, plenty).await.unwrap();
    store.remove_member(olga, lab(), user_name("bob"), 1000, any_member()).await.unwrap();
    store.leave_group(art, eve, 1001, any(), domain::successor).await.unwrap();
    store.lock_user(user_name("eve"), 1002).await.unwrap();
    let numbers = |log: Vec<Revocation>| log.iter().map(|one| one.number).collect::<Vec<_>>();
    assert_eq!(numbers(store.revocations(0, 2).await.unwrap()), [1, 2]);
    assert_eq!(numbers(store.revocations(2, 2).await.unwrap()), [3]);
    let of_lab = async |after, now_ms| numbers(store.admission(olga, LAB, after, now_ms).await.unwrap().revocations);
    assert_eq!(of_lab(0, 1002).await, [1, 3]);
    assert_eq!(of_lab(1, 1002).await, [3]);
    assert_eq!(of_lab(u64::MAX, 1002).await, [] as [u64; 0]);
    assert_eq!(of_lab(0, 1000 + REVOCATION_LIFE_MS).await, [3], "its tickets have expired");
    store.keep_sessions(vec![olga.session], 1001 + REVOCATION_LIFE_MS, u64::MAX >> 1).await.unwrap();
    assert_eq!(numbers(store.revocations(0, 9).await.unwrap()), [3]);
    store.unlock_user(user_name("eve")).await.unwrap();
    store.lock_user(user_name("eve"), 1003).await.unwrap();
    assert_eq!(numbers(store.revocations(0, 9).await.unwrap()), [4], "no number comes twice");
    assert_eq!(role(&store, bob).await, None);
}

pub(super) async fn ticket_keys_are_shared_used_for_their_time_and_dropped_with_their_endorsement(on: Place) {
    let one = on.open().await;
    let other = one.beside().await;
    let draft = |byte: u8, from_ms: u64| StoredTicketKey {
        key: Identity::from_seed(&[byte; 32]).unwrap().public(),
        seed: Zeroizing::new([byte; 32]),
        from_ms,
        use_until_ms: from_ms + 100,
        until_ms: from_ms + 300,
        endorsement: vec![byte],
    };
    let key = async |store: &Store, byte, now_ms| store.ticket_key(draft(byte, now_ms), now_ms).await.unwrap().seed[0];
    assert_eq!(key(&one.store, 1, 1_000_000).await, 1);
    assert_eq!(key(&other, 2, 1_000_099).await, 1, "the first tracker's");
    assert_eq!(key(&other, 3, 1_000_100).await, 3);
    assert_eq!(key(&one.store, 4, 1_000_100).await, 3);
    assert_eq!(one.store.ticket_key(draft(3, 0), 1_000_150).await.unwrap().endorsement, [3]);
    // Of both keys the endorsements have ended: the same secret may be put in again.
    assert_eq!(key(&one.store, 1, 1_000_400).await, 1);
    assert_eq!(key(&one.store, 5, 900_000).await, 5, "a key from the future is of no use now");
    let export = one.store.export().await.unwrap().to_string();
    assert!(!export.contains("seed") && !export.contains("token") && !export.contains("endorsement"), "{export}");
    other.close().await;
}
