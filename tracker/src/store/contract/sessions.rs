//! Sessions: one a user, tokens that follow each other, and writes that belong to a session.

use super::*;

fn token(byte: u8) -> Sha256Hash {
    Sha256Hash([byte; 32])
}

/// The client with key 1 shows a token and is given the next.
fn show(shown: u8, successor: u8) -> ShownToken {
    ShownToken {
        token: token(shown),
        successor: token(successor),
        client_key: PublicKey([1; 32]),
        address: "10.0.0.2:5".into(),
        now_ms: 50,
        expires_ms: 200,
    }
}

async fn bob(store: &Store) -> UserId {
    store.create_user(user_name("bob"), "hash".into(), 5).await.unwrap()
}

/// Bob with a session whose token is 1.
async fn signed_in(store: &Store) -> Actor {
    let user = bob(store).await;
    Actor::new(user, store.begin_session(session(user, 1, token(1))).await.unwrap().id)
}

async fn resume(store: &Store, shown: u8, successor: u8) -> Resumption {
    match store.resume_session(show(shown, successor)).await.unwrap() {
        Resumption::Resumed(actor, name, _) => Resumption::Resumed(actor, name, SignIn(0)),
        other => other,
    }
}

/// With whatever sign-in.
fn goes_on(actor: Actor) -> Resumption {
    Resumption::Resumed(actor, user_name("bob"), SignIn(0))
}

pub(super) async fn a_user_has_one_session_and_its_number_is_never_used_again(on: Place) {
    let opened = on.open().await;
    let user = bob(&opened.store).await;
    let first = opened.store.begin_session(session(user, 1, token(1))).await.unwrap();
    let second = opened.store.begin_session(session(user, 1, token(2))).await.unwrap();
    let actor = Actor::new(user, second.id);
    opened.store.end_session(Actor::new(UserId(99), second.id)).await.unwrap();
    let opened = opened.reopen().await;
    let expected = Session { id: second.id, address: "10.0.0.1:5".into(), agent: "test".into(), since_ms: 10 };
    assert_eq!(opened.store.sessions(user).await, Ok(vec![expected]), "the later one replaces it");
    assert_eq!(resume(&opened.store, 1, 9).await, Resumption::Unknown);
    opened.store.end_session(actor).await.unwrap();
    assert_eq!(opened.store.sessions(user).await, Ok(vec![]));
    let third = opened.store.begin_session(session(user, 1, token(3))).await.unwrap();
    assert!(first.id < second.id && second.id < third.id);
}

pub(super) async fn a_session_expires_unless_it_is_used_or_its_client_is_connected(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let actor = signed_in(&store).await;
    assert_eq!(store.resume_session(ShownToken { now_ms: 100, ..show(1, 2) }).await, Ok(Resumption::Unknown));
    assert_eq!(resume(&store, 1, 2).await, goes_on(actor));
    store.keep_sessions(vec![], 199, 0).await.unwrap();
    store.keep_sessions(vec![actor.session], 300, 400).await.unwrap();
    assert_eq!(store.sessions(actor.user).await.unwrap().len(), 1, "live ones are kept");
    store.keep_sessions(vec![], 400, 0).await.unwrap();
    assert_eq!(store.sessions(actor.user).await, Ok(vec![]));
}

pub(super) async fn a_used_token_has_a_successor_and_stays_good_until_that_is_used(on: Place) {
    let opened = on.open().await;
    let actor = signed_in(&opened.store).await;
    assert_eq!(resume(&opened.store, 1, 2).await, goes_on(actor));
    // The answer was lost, twice.
    assert_eq!(resume(&opened.store, 1, 3).await, goes_on(actor));
    let opened = opened.reopen().await;
    assert_eq!(resume(&opened.store, 1, 4).await, goes_on(actor));
    assert_eq!(resume(&opened.store, 4, 5).await, goes_on(actor));
    assert_eq!(resume(&opened.store, 4, 6).await, goes_on(actor));
    assert_eq!(opened.store.sessions(actor.user).await.unwrap()[0].address, "10.0.0.2:5");
}

pub(super) async fn a_token_that_was_used_up_ends_its_session(on: Place) {
    for used_up in [1, 3] {
        let Opened { store, database: _database } = on.open().await;
        let actor = signed_in(&store).await;
        for (shown, successor) in [(1, 2), (2, 3), (2, 4), (4, 5)] {
            assert_eq!(resume(&store, shown, successor).await, goes_on(actor));
        }
        assert_eq!(resume(&store, used_up, 9).await, Resumption::UsedUp(actor, user_name("bob")), "{used_up}");
        assert_eq!(store.sessions(actor.user).await, Ok(vec![]));
        assert_eq!(resume(&store, 5, 9).await, Resumption::Unknown, "the whole family is gone");
    }
}

/// A request with the same token was held up on its way: the client has a successor by then, and uses that.
pub(super) async fn a_token_that_is_shown_late_takes_no_successor_away(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let actor = signed_in(&store).await;
    assert_eq!(resume(&store, 1, 2).await, goes_on(actor));
    let late = u8::try_from(crate::limits::MAX_SUCCESSORS).unwrap() - 1;
    for nobodys in 0..late {
        assert_eq!(resume(&store, 1, 100 + nobodys).await, goes_on(actor));
    }
    assert_eq!(resume(&store, 2, 3).await, goes_on(actor), "the one that the client has");
    assert_eq!(resume(&store, 2, 4).await, goes_on(actor));
    assert_eq!(resume(&store, 100, 9).await, Resumption::UsedUp(actor, user_name("bob")), "its siblings are not");
}

pub(super) async fn so_many_successors_of_a_token_are_good_and_no_more(on: Place) {
    let n = u8::try_from(crate::limits::MAX_SUCCESSORS).unwrap();
    for (shown, is_good) in [(2, false), (3, true), (2 + n, true)] {
        let Opened { store, database: _database } = on.open().await;
        let actor = signed_in(&store).await;
        for successor in 2..=2 + n {
            assert_eq!(resume(&store, 1, successor).await, goes_on(actor));
        }
        let used_up = Resumption::UsedUp(actor, user_name("bob"));
        assert_eq!(resume(&store, shown, 99).await, if is_good { goes_on(actor) } else { used_up }, "{shown}");
    }
}

pub(super) async fn later_resumptions_are_later_sign_ins(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let user = bob(&store).await;
    let mut last = store.begin_session(session(user, 1, token(1))).await.unwrap().sign_in;
    for (shown, successor) in [(1, 2), (1, 3), (3, 4)] {
        let resumed = store.resume_session(show(shown, successor)).await.unwrap();
        let Resumption::Resumed(_, _, sign_in) = resumed else { panic!("{resumed:?}") };
        assert!(sign_in > std::mem::replace(&mut last, sign_in));
    }
    assert!(store.begin_session(session(user, 1, token(5))).await.unwrap().sign_in > last);
}

pub(super) async fn another_clients_key_changes_nothing_with_any_token(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let actor = signed_in(&store).await;
    resume(&store, 1, 2).await;
    resume(&store, 2, 3).await;
    for stolen in [1, 2, 3] {
        let shown = ShownToken { client_key: PublicKey([2; 32]), ..show(stolen, 9) };
        assert_eq!(store.resume_session(shown).await, Ok(Resumption::OfAnotherClient(user_name("bob"))));
    }
    assert_eq!(resume(&store, 3, 4).await, goes_on(actor));
}

pub(super) async fn so_many_retired_tokens_are_known_and_no_more(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let actor = signed_in(&store).await;
    let n_shown = u8::try_from(crate::limits::MAX_RETIRED_TOKENS).unwrap() + 3;
    for shown in 1..=n_shown {
        assert_eq!(resume(&store, shown, shown + 1).await, goes_on(actor));
    }
    // The last one shown is the predecessor; before it lie the retired ones.
    assert_eq!(resume(&store, 2, 200).await, Resumption::Unknown, "forgotten");
    assert_eq!(resume(&store, 3, 200).await, Resumption::UsedUp(actor, user_name("bob")));
}

/// Every write of a client, each with a session that is not.
pub(super) async fn no_write_outlives_its_session(on: Place) {
    let Opened { store, database: _database } = on.open().await;
    let [olga, bob] = members(&store, ["olga", "bob"]).await;
    let listing = list(&store, olga, "a").await.unwrap();
    let foreign = Actor::new(olga.user, bob.session);
    store.end_session(olga).await.unwrap();
    let ended = StoreError::Refused(Refused::SessionEnded);
    for actor in [olga, foreign] {
        let create = store.create_group(GroupId([8; 16]), "art".parse().unwrap(), actor, 1, plenty).await;
        assert_eq!(create.unwrap_err(), ended);
        assert_eq!(store.request_to_join(lab(), actor, 1, any(), plenty).await.unwrap_err(), ended);
        let decide = store.decide_request(lab(), actor, user_name("bob"), true, 1, any()).await;
        assert_eq!(decide.unwrap_err(), ended);
        assert_eq!(store.leave_group(lab(), actor, 1, any(), domain::successor).await.unwrap_err(), ended);
        let (anyone, anything): (fn() -> MemberRule, FileRule) = (|| Box::new(|_, _| Ok(())), Box::new(|_, _| Ok(())));
        let bob = || user_name("bob");
        assert_eq!(store.remove_member(actor, lab(), bob(), 1, anyone()).await.unwrap_err(), ended);
        assert_eq!(store.set_role(actor, lab(), bob(), Role::Admin, anyone()).await.unwrap_err(), ended);
        assert_eq!(store.transfer_owner(actor, lab(), bob(), anyone(), plenty).await.unwrap_err(), ended);
        assert_eq!(list(&store, actor, "b").await.unwrap_err(), ended);
        assert_eq!(store.add_share(listing, actor, 1, any(), plenty).await.unwrap_err(), ended);
        assert_eq!(store.end_share(listing, actor, any()).await.unwrap_err(), ended);
        let remove = store.remove_file(actor, lab(), "a".parse().unwrap(), anything).await;
        assert_eq!(remove.unwrap_err(), ended);
        assert_eq!(store.end_everywhere(actor, 1).await.unwrap_err(), ended);
        assert_eq!(store.last_sign_in(actor).await.unwrap_err(), ended);
        assert_eq!(store.admission(actor, LAB, 0, 1).await.unwrap_err(), ended);
    }
    assert!(store.last_sign_in(bob).await.is_ok());
    assert_eq!(role(&store, olga).await, Some(Role::Owner));
    assert_eq!(store.revocations(0, 10).await, Ok(vec![]));
}
