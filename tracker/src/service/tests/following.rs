//! Two trackers on one data directory: what one of them ends, the other one ends, too.

use super::*;
use crate::store::NewListing;
use mini_torrent_common::control::{Announcement, ListingDraft, ListingId, Presence as Has};
use mini_torrent_common::hash::{InfoHash, Sha1Hash, Sha256Hash};

/// Makes a user a member of `lab`, wherever it is connected.
pub(super) async fn join(stage: &Stage, caller: &Caller, owner_at: &Stage, owner: &Caller) {
    stage.service.join_group(caller, group()).await.unwrap();
    owner_at.service.decide_request(owner, group(), caller.name.clone(), true).await.unwrap();
}

pub(super) async fn list(stage: &Stage, caller: &Caller) -> ListingId {
    let draft = ListingDraft {
        name: "a.bin".parse().unwrap(),
        size: 5,
        sha1: Sha1Hash([1; 20]),
        sha256: Sha256Hash([2; 32]),
        info_hash: InfoHash([3; 20]),
        info_length: 1,
    };
    let id = stage.service.describe_group(caller, group()).await.unwrap().id;
    let new = NewListing { group: id, draft, info: Arc::new(vec![1]), at_ms: 1 };
    stage.service.store.list_file(caller.actor(), new, Box::new(|_| Ok(())), |_, _| Ok(())).await.unwrap()
}

pub(super) async fn announce(stage: &Stage, caller: &Caller, listing: ListingId, presence: Has) {
    let refused = stage.service.announce(caller, &[Announcement { listing, presence }]).await.unwrap();
    assert_eq!(refused, []);
}

fn removed(id: GroupId) -> Event {
    Event::RemovedFromGroup { id, group: group() }
}

pub(super) fn ended(events: &mut mpsc::Receiver<Event>) -> String {
    match events.try_recv() {
        Ok(Event::SessionEnded { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn who_was_removed_at_another_tracker_hears_of_it_and_of_nothing_more() {
    let one = Stage::new().await;
    let two = one.beside().await;
    let (olga, _events) = one.member(1, "olga").await;
    one.service.create_group(&olga, group()).await.unwrap();
    let ((bob, mut bobs), (cleo, mut cleos)) = (two.member(2, "bob").await, two.member(3, "cleo").await);
    for caller in [&bob, &cleo] {
        join(&two, caller, &one, &olga).await;
    }
    let listing = list(&two, &cleo).await;
    announce(&two, &bob, listing, Has::Leeching).await;
    assert!(two.service.watch(&bob, listing).await.is_ok());
    one.service.remove_member(&olga, group(), bob.name.clone()).await.unwrap();

    let last = two.service.tell_revocations(0).await.unwrap();
    let id = two.service.describe_group(&cleo, group()).await.unwrap().id;
    assert_eq!(bobs.try_recv(), Ok(removed(id)));
    assert_eq!(two.service.presence.counts([listing]), [(0, 0)]);
    announce(&two, &cleo, listing, Has::Seeding).await;
    assert_eq!(two.service.presence.take_peer_events(bob.connection), []);
    assert_eq!(two.service.tell_revocations(last).await, Ok(last));
    assert!(bobs.try_recv().is_err() && cleos.try_recv().is_err());
}

/// The log is read late: who is a member again by then stays one.
#[tokio::test]
async fn who_has_rejoined_meanwhile_stays() {
    let one = Stage::new().await;
    let two = one.beside().await;
    let (olga, _events) = one.member(1, "olga").await;
    one.service.create_group(&olga, group()).await.unwrap();
    let listing = list(&one, &olga).await;
    let (bob, mut bobs) = two.member(2, "bob").await;
    join(&two, &bob, &one, &olga).await;
    announce(&two, &bob, listing, Has::Leeching).await;
    one.service.remove_member(&olga, group(), bob.name.clone()).await.unwrap();
    join(&two, &bob, &one, &olga).await;
    two.service.tell_revocations(0).await.unwrap();
    assert!(bobs.try_recv().is_err());
    assert_eq!(two.service.presence.counts([listing]), [(0, 1)]);
}

#[tokio::test]
async fn who_was_locked_at_another_tracker_is_signed_out() {
    let one = Stage::new().await;
    let two = one.beside().await;
    let (bob, mut bobs) = two.member(1, "bob").await;
    let (eve, mut eves) = two.member(2, "eve").await;
    one.service.lock_user(bob.name.clone()).await.unwrap();
    two.service.tell_revocations(0).await.unwrap();
    assert!(ended(&mut bobs).contains("operator"));
    assert!(two.service.caller(bob.connection).is_err());
    assert!(two.service.caller(eve.connection).is_ok() && eves.try_recv().is_err());
}

/// The log cannot end a session that the memory does not know yet.
#[tokio::test]
async fn a_session_that_ended_elsewhere_while_it_began_signs_nobody_in() {
    let one = Stage::new().await;
    let two = one.beside().await;
    let (visitor, _events) = two.connect(1);
    two.service.register(&visitor, "bob".parse().unwrap(), password(), None).await.unwrap();
    two.service.login(&visitor, "bob".parse().unwrap(), password(), false).await.unwrap();
    let Caller { user: id, name, session, connection, .. } = two.service.caller(visitor.connection).unwrap();
    one.service.lock_user(name.clone()).await.unwrap();
    two.service.presence.claim(connection, id, false).unwrap();
    let confirmed = two.service.confirm(&visitor, SignedInUser { id, name, session }, SignIn(99)).await;
    assert_eq!(confirmed, Err(Refused::SessionEnded));
    assert!(two.service.caller(connection).is_err());
}

#[tokio::test]
async fn a_takeover_at_another_tracker_ends_the_session_here_and_not_the_new_one() {
    let one = Stage::new().await;
    let two = one.beside().await;
    let (bob, mut bobs) = two.member(1, "bob").await;
    let (elsewhere, mut others) = one.connect(2);
    one.service.login(&elsewhere, bob.name.clone(), password(), true).await.unwrap();
    for stage in [&one, &two] {
        stage.service.tell_revocations(0).await.unwrap();
    }
    assert!(ended(&mut bobs).contains("another client"));
    assert!(two.service.caller(bob.connection).is_err());
    assert!(one.service.caller(elsewhere.connection).is_ok() && others.try_recv().is_err());
}

#[tokio::test]
async fn what_this_tracker_ended_itself_is_told_once() {
    let stage = Stage::new().await;
    let (olga, _events) = stage.member(1, "olga").await;
    stage.service.create_group(&olga, group()).await.unwrap();
    let ((bob, mut bobs), (cleo, mut cleos)) = (stage.member(2, "bob").await, stage.member(3, "cleo").await);
    for (caller, events) in [(&bob, &mut bobs), (&cleo, &mut cleos)] {
        join(&stage, caller, &stage, &olga).await;
        assert!(matches!(events.try_recv(), Ok(Event::RequestAccepted { .. })));
    }
    let id = stage.service.describe_group(&olga, group()).await.unwrap().id;
    stage.service.remove_member(&olga, group(), bob.name.clone()).await.unwrap();
    stage.service.leave_group(&cleo, group()).await.unwrap();
    stage.service.logout_everywhere(&olga).await.unwrap();
    assert_eq!(stage.service.tell_revocations(0).await, Ok(3));
    assert_eq!(bobs.try_recv(), Ok(removed(id)));
    assert!(bobs.try_recv().is_err() && cleos.try_recv().is_err(), "who leaves knows it");
}

/// The log may be read between a removal's commit and its effect in memory.
#[tokio::test]
async fn the_log_waits_for_what_this_tracker_is_about_to_do() {
    let stage = Stage::new().await;
    let (olga, _events) = stage.member(1, "olga").await;
    stage.service.create_group(&olga, group()).await.unwrap();
    let (bob, mut bobs) = stage.member(2, "bob").await;
    join(&stage, &bob, &stage, &olga).await;
    assert!(bobs.try_recv().is_ok());
    let ours = stage.service.revocations.ours().await;
    let (store, rule) = (&stage.service.store, stage.service.member_rule(MemberOperation::Remove));
    let number = store.remove_member(olga.actor(), group(), bob.name.clone(), 1, rule).await.unwrap().revocation;
    let mut reading = Box::pin(stage.service.tell_revocations(0));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut reading).await.is_err());
    ours.done(number);
    drop(ours);
    assert_eq!(reading.await, Ok(number));
    assert!(bobs.try_recv().is_err());
}
