//! What every store must do, against its method list alone; each test runs on every database.

use super::*;
use crate::domain::{self, Quota, Refused, Standing};
use crate::postgres_server;
use mini_torrent_common::control::{INFO_PAGE_LENGTH, Left, ListingDraft, Role};
use mini_torrent_common::hash::{InfoHash, Sha1Hash, Sha256Hash};
use mini_torrent_common::tls::PublicKey;
use std::sync::Arc;

mod admission;
mod announce_keys;
mod crossing;
mod governing;
mod online;
mod operations;
mod sessions;

/// Which database a test is about.
#[derive(Clone, Copy)]
enum Place {
    Sqlite,
    Postgres(&'static postgres_server::Server),
}

/// What holds a store's data, and goes with the test.
enum Held {
    Directory(tempfile::TempDir),
    Database(postgres_server::Database),
}

struct Opened {
    store: Store,
    database: Held,
}

const KEY: Fingerprint = Fingerprint(Sha256Hash([1; 32]));

impl Place {
    async fn open(self) -> Opened {
        let database = match self {
            Self::Sqlite => Held::Directory(tempfile::tempdir().unwrap()),
            Self::Postgres(server) => Held::Database(server.database()),
        };
        let store = database.open().await;
        store.found(KEY, GroupId([0; 16]), 1).await.unwrap();
        Opened { store, database }
    }
}

impl Held {
    fn location(&self) -> Location {
        match self {
            Self::Directory(directory) => Location::within(directory.path()),
            Self::Database(database) => Location::parse(&database.url).unwrap(),
        }
    }

    async fn open(&self) -> Store {
        Store::open(&self.location()).await.unwrap().0
    }
}

impl Opened {
    /// As after a restart.
    async fn reopen(self) -> Self {
        self.store.close().await;
        Self { store: self.database.open().await, database: self.database }
    }

    /// The store of a second tracker.
    async fn beside(&self) -> Store {
        self.database.open().await
    }
}

/// Each of these is a test of every database. One that is missing here is an error: nobody calls it.
macro_rules! contract {
    ($($($file:ident)? :: $test:ident,)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$($file::)?$test(super::Place::Sqlite).await;
            })*
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(server) = crate::postgres_server::shared() {
                    super::$($file::)?$test(super::Place::Postgres(server)).await;
                }
            })*
        }
    };
}

contract! {
    ::a_deployment_is_founded_once,
    ::user_names_are_unique_by_their_key_and_kept_as_written,
    ::a_request_is_pending_once_and_then_a_membership,
    ::the_last_one_out_removes_the_group_and_its_number_is_gone,
    ::a_withdrawn_request_is_no_departure,
    ::a_file_is_listed_with_its_info_and_first_share_or_not_at_all,
    ::a_listing_goes_with_its_last_share_and_its_number_stays_unused,
    ::files_are_paged_in_the_order_of_their_names,
    ::many_writes_at_once_are_each_their_own,
    ::two_stores_on_one_database_agree,
    ::a_closed_store_is_unavailable,
    admission::who_rejoins_has_a_greater_epoch_than_was_revoked,
    admission::the_end_of_a_group_is_in_the_log_and_a_withdrawn_request_is_not,
    admission::what_is_left_of_something_revoked_is_said,
    admission::another_client_lock_and_logout_everywhere_raise_the_accounts_epoch,
    admission::the_log_is_read_in_pages_by_group_and_forgotten_when_it_is_old,
    admission::ticket_keys_are_shared_used_for_their_time_and_dropped_with_their_endorsement,
    announce_keys::a_key_is_made_of_a_lasting_secret_and_a_new_generation,
    announce_keys::the_use_of_a_key_is_no_change_of_who_is_admitted_and_its_suspension_is_one,
    announce_keys::a_key_goes_with_what_it_hangs_on,
    announce_keys::files_of_the_built_in_group_are_open_while_they_are_listed,
    announce_keys::each_change_of_who_is_admitted_is_seen_by_its_number,
    crossing::a_quota_holds_for_all_that_is_asked_at_once,
    crossing::a_listing_is_never_without_a_sharer,
    crossing::the_log_of_revocations_skips_nobody,
    governing::rules_are_asked_with_what_the_transaction_finds,
    governing::a_removed_member_leaves_nothing_behind_but_a_revocation,
    governing::roles_and_ownership_change_hands,
    governing::a_file_is_removed_with_its_shares_as_the_rule_says,
    online::what_a_tracker_wrote_is_read_once_and_only_after_its_heart_has_beaten,
    online::a_sessions_peers_go_with_it,
    online::who_is_behind_the_floor_reads_anew_and_nobody_else,
    online::a_new_life_ends_the_old_one_with_its_rows,
    online::pages_end_between_changes,
    online::later_sign_ins_have_greater_numbers_and_gone_listings_are_named,
    operations::every_write_is_done_once_and_answers_the_same_again,
    operations::files_shares_and_keys_are_made_and_ended_once,
    operations::the_secret_of_a_key_is_not_recorded,
    operations::a_name_is_worth_nothing_without_its_session_its_kind_and_its_user,
    operations::what_was_refused_is_decided_anew,
    operations::an_account_is_created_once_by_one_client,
    operations::names_are_forgotten_in_time_and_before_there_are_many,
    sessions::a_user_has_one_session_and_its_number_is_never_used_again,
    sessions::a_session_expires_unless_it_is_used_or_its_client_is_connected,
    sessions::a_used_token_has_a_successor_and_stays_good_until_that_is_used,
    sessions::a_token_that_was_used_up_ends_its_session,
    sessions::a_token_that_is_shown_late_takes_no_successor_away,
    sessions::so_many_successors_of_a_token_are_good_and_no_more,
    sessions::later_resumptions_are_later_sign_ins,
    sessions::another_clients_key_changes_nothing_with_any_token,
    sessions::so_many_retired_tokens_are_known_and_no_more,
    sessions::no_write_outlives_its_session,
}

fn user_name(name: &str) -> UserName {
    name.parse().unwrap()
}

fn lab() -> GroupName {
    "Lab".parse().unwrap()
}

pub(super) const LAB: GroupId = GroupId([7; 16]);

fn any() -> Rule {
    Box::new(|_| Ok(()))
}

fn no() -> Rule {
    Box::new(|_| Err(Refused::NotAMember))
}

fn plenty(_: Quota, _: u64) -> std::result::Result<(), Refused> {
    Ok(())
}

fn none(quota: Quota, n: u64) -> std::result::Result<(), Refused> {
    Err(Refused::QuotaExceeded { what: "things", limit: u64::from(quota == Quota::Groups) + n })
}

/// A session of this user with a client whose key is made of this byte.
fn session(user: UserId, key: u8, token: Sha256Hash) -> NewSession {
    NewSession {
        user,
        token,
        client_key: PublicKey([key; 32]),
        address: "10.0.0.1:5".into(),
        agent: "test".into(),
        since_ms: 10,
        expires_ms: 100,
    }
}

/// New accounts, each signed in.
async fn users<const N: usize>(store: &Store, names: [&str; N]) -> [Actor; N] {
    let mut actors = [Actor::new(UserId(0), SessionId(0)); N];
    for (actor, name) in actors.iter_mut().zip(names) {
        let user = store.create_user(user_name(name), "hash".into(), 5).await.unwrap();
        let begun = store.begin_session(session(user, 1, Sha256Hash::of(name.as_bytes()))).await.unwrap();
        *actor = Actor::new(user, begun.id);
    }
    actors
}

/// A group `Lab` of the first with the others as members.
async fn members<const N: usize>(store: &Store, names: [&str; N]) -> [Actor; N] {
    let actors = users(store, names).await;
    store.create_group(LAB, lab(), actors[0], 6, plenty).await.unwrap();
    for (actor, name) in actors.iter().zip(names).skip(1) {
        join(store, *actor, actors[0], name).await;
    }
    actors
}

async fn join(store: &Store, actor: Actor, owner: Actor, name: &str) {
    store.request_to_join(lab(), actor, 7, any(), plenty).await.unwrap();
    store.decide_request(lab(), owner, user_name(name), true, 8, any()).await.unwrap();
}

pub(super) fn new_listing(name: &str, info: Vec<u8>) -> NewListing {
    let draft = ListingDraft {
        name: name.parse().unwrap(),
        size: u64::MAX >> 1,
        sha1: Sha1Hash([1; 20]),
        sha256: Sha256Hash([2; 32]),
        info_hash: InfoHash::of(&info),
        info_length: info.len() as u64,
    };
    NewListing { group: LAB, draft, info: Arc::new(info), at_ms: 9 }
}

async fn list(store: &Store, uploader: Actor, name: &str) -> Result<ListingId> {
    store.list_file(uploader, new_listing(name, vec![5; 10]), any(), plenty).await
}

async fn role(store: &Store, actor: Actor) -> Option<Role> {
    store.standing(lab(), actor.user).await.unwrap().standing.role
}

async fn a_deployment_is_founded_once(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    store.found(Fingerprint(Sha256Hash([2; 32])), GroupId([9; 16]), 2).await.unwrap();
    assert_eq!(store.deployment().await, Ok(Some(KEY)));
    let [bob] = users(&store, ["bob"]).await;
    let public = store.standing("PUBLIC".parse().unwrap(), bob.user).await.unwrap();
    assert_eq!((public.id, public.standing), (GroupId([0; 16]), Standing { role: Some(Role::Member), built_in: true }));
}

async fn user_names_are_unique_by_their_key_and_kept_as_written(on: Place) {
    let opened = on.open().await;
    let [Actor { user: bob, .. }] = users(&opened.store, ["Bob"]).await;
    assert_eq!(opened.store.create_user(user_name("bOB"), "x".into(), 5).await, Err(StoreError::Conflict));
    let opened = opened.reopen().await;
    let account = opened.store.account(user_name("BOB")).await.unwrap().unwrap();
    assert_eq!((account.id, account.name.as_str(), account.password_hash.as_str()), (bob, "Bob", "hash"));
    assert!(opened.store.account(user_name("eve")).await.unwrap().is_none());
}

async fn a_request_is_pending_once_and_then_a_membership(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let [olga, bob, eve] = users(&store, ["olga", "bob", "eve"]).await;
    store.create_group(LAB, lab(), olga, 6, plenty).await.unwrap();
    let again = store.create_group(GroupId([8; 16]), "lab".parse().unwrap(), bob, 6, plenty).await;
    assert_eq!(again, Err(StoreError::Conflict));
    assert!(matches!(
        store.create_group(GroupId([8; 16]), "art".parse().unwrap(), bob, 6, none).await,
        Err(StoreError::Refused(Refused::QuotaExceeded { .. }))
    ));
    assert_eq!(
        store.standing("art".parse().unwrap(), bob.user).await,
        Err(StoreError::NotFound),
        "nothing was written"
    );
    let requested = store.request_to_join(lab(), bob, 7, any(), plenty).await.unwrap();
    assert_eq!((requested.group, requested.deciders), (lab(), vec![olga.user]));
    assert_eq!(store.request_to_join(lab(), bob, 7, any(), plenty).await, Err(StoreError::Conflict));
    assert_eq!(role(&store, bob).await, Some(Role::Pending));
    store.request_to_join(lab(), eve, 8, any(), plenty).await.unwrap();
    let (page, next) = store.join_requests(LAB, None, 1).await.unwrap();
    assert_eq!((page[0].user.as_str(), page.len(), next.is_some()), ("bob", 1, true));
    let (page, next) = store.join_requests(LAB, next, 5).await.unwrap();
    assert_eq!((page[0].user.as_str(), page[0].at_ms, next), ("eve", 8, None));

    let refused = store.decide_request(lab(), bob, user_name("bob"), true, 9, no()).await;
    assert_eq!(refused, Err(StoreError::Refused(Refused::NotAMember)));
    assert_eq!(role(&store, bob).await, Some(Role::Pending));
    let decided = store.decide_request(lab(), olga, user_name("BOB"), true, 9, any()).await;
    assert_eq!(decided, Ok(Decided { group: lab(), user: bob.user }));
    assert_eq!(
        store.decide_request(lab(), olga, user_name("bob"), true, 9, any()).await,
        Err(Refused::NoSuchRequest.into())
    );
    store.decide_request(lab(), olga, user_name("eve"), false, 9, any()).await.unwrap();
    assert_eq!((role(&store, bob).await, role(&store, eve).await), (Some(Role::Member), None));
    let rows = store.groups(None, 10, bob.user).await.unwrap();
    let shown: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.n_members, row.role)).collect();
    assert_eq!(shown, [("Lab", 2, Some(Role::Member)), ("public", 3, Some(Role::Member))]);
    assert_eq!(store.groups(Some(lab()), 1, bob.user).await.unwrap()[0].name.as_str(), "public");
}

async fn the_last_one_out_removes_the_group_and_its_number_is_gone(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let [olga, bob, eve] = members(&store, ["olga", "bob", "eve"]).await;
    let listing = list(&store, bob, "a").await.unwrap();
    store.add_share(listing, eve, 9, any(), plenty).await.unwrap();
    let leave = |actor| store.leave_group(lab(), actor, 9, any(), domain::successor);
    let departure = leave(olga).await.unwrap();
    assert_eq!((departure.left, departure.ended), (Left::OwnerIsNow(user_name("bob")), vec![]));
    let departure = leave(bob).await.unwrap();
    assert_eq!((departure.left, departure.ended), (Left::OwnerIsNow(user_name("eve")), vec![]), "eve shares it still");
    assert_eq!(role(&store, eve).await, Some(Role::Owner));
    store.request_to_join(lab(), bob, 7, any(), plenty).await.unwrap();
    let departure = leave(eve).await.unwrap();
    assert_eq!((departure.left, departure.ended), (Left::GroupRemoved, vec![listing]));
    assert_eq!(store.standing(lab(), bob.user).await, Err(StoreError::NotFound));
    store.create_group(GroupId([8; 16]), lab(), bob, 9, plenty).await.unwrap();
    assert_eq!(store.listings(GroupId([8; 16]), None, 10).await, Ok(vec![]));
}

async fn a_withdrawn_request_is_no_departure(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let [_olga] = members(&store, ["olga"]).await;
    let [bob] = users(&store, ["bob"]).await;
    store.request_to_join(lab(), bob, 7, any(), plenty).await.unwrap();
    let departure = store.leave_group(lab(), bob, 9, any(), domain::successor).await.unwrap();
    assert_eq!(departure.left, Left::RequestWithdrawn);
    assert_eq!(role(&store, bob).await, None);
}

async fn a_file_is_listed_with_its_info_and_first_share_or_not_at_all(on: Place) {
    let opened = on.open().await;
    let [olga, bob] = members(&opened.store, ["olga", "bob"]).await;
    let info: Vec<u8> = (0..INFO_PAGE_LENGTH * 2 + 3).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let refused = opened.store.list_file(olga, new_listing("a", info.clone()), no(), plenty).await;
    assert_eq!(refused, Err(StoreError::Refused(Refused::NotAMember)));
    assert!(opened.store.list_file(olga, new_listing("a", info.clone()), any(), none).await.is_err());
    let listing = opened.store.list_file(olga, new_listing("a", info.clone()), any(), plenty).await.unwrap();
    assert_eq!(list(&opened.store, bob, "A").await, Err(StoreError::Conflict));

    let opened = opened.reopen().await;
    let store = &opened.store;
    let found = store.listing_named(LAB, "A".parse().unwrap()).await.unwrap().unwrap();
    let expected = new_listing("a", info.clone()).draft;
    assert_eq!((found.id, found.draft, found.uploader.as_str(), found.at_ms), (listing, expected, "olga", 9));
    for (offset, length) in [
        (0, INFO_PAGE_LENGTH),
        (10, INFO_PAGE_LENGTH - 10),
        (INFO_PAGE_LENGTH, INFO_PAGE_LENGTH),
        (INFO_PAGE_LENGTH * 2 + 1, 2),
        (info.len(), 0),
        (info.len() * 9, 0),
    ] {
        let page = store.info_page(listing, offset as u64).await.unwrap();
        assert_eq!(page.len(), length, "at {offset}");
        assert!(page == info[offset.min(info.len())..][..length]);
    }
    assert_eq!(store.info_page(listing, u64::MAX).await, Ok(vec![]));
    let facts = store.sharing(olga.user, vec![listing, ListingId(999)]).await.unwrap();
    assert_eq!((facts.len(), facts[0].shares, facts[0].standing.role), (1, true, Some(Role::Owner)));
    assert!(!store.sharing(bob.user, vec![listing]).await.unwrap()[0].shares);
}

async fn a_listing_goes_with_its_last_share_and_its_number_stays_unused(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let [olga, bob] = members(&store, ["olga", "bob"]).await;
    let first = list(&store, olga, "a").await.unwrap();
    assert_eq!(store.add_share(first, bob, 9, any(), plenty).await, Ok(true));
    assert_eq!(store.add_share(first, bob, 9, any(), plenty).await, Ok(false));
    assert_eq!(store.end_share(first, olga, any()).await, Ok(EndedShare::Ended));
    assert_eq!(store.end_share(first, olga, any()).await, Err(Refused::NotSharing.into()));
    assert_eq!(store.end_share(first, bob, no()).await, Err(StoreError::Refused(Refused::NotAMember)));
    assert_eq!(store.end_share(first, bob, any()).await, Ok(EndedShare::ListingEnded));
    assert_eq!(store.end_share(first, bob, any()).await, Err(StoreError::NotFound));
    assert_eq!(store.add_share(first, bob, 9, any(), plenty).await, Err(StoreError::NotFound));
    assert_eq!(store.info_page(first, 0).await, Ok(vec![]));
    assert!(list(&store, olga, "a").await.unwrap() > first);
}

async fn files_are_paged_in_the_order_of_their_names(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let [olga] = members(&store, ["olga"]).await;
    for name in ["b", "Z", "a", "é"] {
        list(&store, olga, name).await.unwrap();
    }
    let names = |page: Vec<Listing>| page.into_iter().map(|row| row.draft.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(store.listings(LAB, None, 3).await.unwrap()), ["Z", "a", "b"]);
    assert_eq!(names(store.listings(LAB, Some("b".parse().unwrap()), 3).await.unwrap()), ["é"]);
    let everywhere = store.listings_everywhere("B".parse().unwrap()).await.unwrap();
    assert_eq!((everywhere.len(), &everywhere[0].0), (1, &lab()));
    assert_eq!(store.all_listings(None, 10).await.unwrap().len(), 4);
    let export = store.export().await.unwrap().to_string();
    assert!(export.contains("\"é\"") && export.contains("owner") && !export.contains("hash\":\"hash"), "{export}");
}

/// Writes at the same time share commits, and one that is refused takes nothing with it.
async fn many_writes_at_once_are_each_their_own(on: Place) {
    let opened = on.open().await;
    let store = &opened.store;
    let created = (0..500).map(|n| store.create_user(user_name(&format!("u{}", n / 2)), "hash".into(), 1));
    let outcomes = futures_util::future::join_all(created).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 250);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Err(StoreError::Conflict)).count(), 250);
    let opened = opened.reopen().await;
    for n in 0..250 {
        assert!(opened.store.account(user_name(&format!("u{n}"))).await.unwrap().is_some());
    }
}

/// Two trackers share one database: each sees what the other wrote, and their writes do not get lost.
async fn two_stores_on_one_database_agree(on: Place) {
    let one = on.open().await;
    let other = one.beside().await;
    let written = (0..200).map(|n| {
        let store = if n % 2 == 0 { &one.store } else { &other };
        store.create_user(user_name(&format!("u{n}")), "hash".into(), 1)
    });
    assert!(futures_util::future::join_all(written).await.iter().all(|outcome| outcome.is_ok()));
    for n in 0..200 {
        let store = if n % 2 == 0 { &other } else { &one.store };
        assert!(store.account(user_name(&format!("u{n}"))).await.unwrap().is_some(), "u{n}");
    }
    other.close().await;
}

async fn a_closed_store_is_unavailable(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    store.close().await;
    assert_eq!(store.create_user(user_name("bob"), String::new(), 1).await, Err(StoreError::Unavailable));
}
