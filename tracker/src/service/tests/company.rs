//! Several trackers on one store: each answers for the clients of all, whoever of them dies.

use super::following::{announce, ended, join, list};
use super::*;
use mini_torrent_common::control::{ListingId, PeerContact, Presence as Has, SignedIn};

/// Each tracker in its turn looks what the others wrote and writes what changed at it, once or oftener.
pub(super) async fn rounds(n: usize, stages: &[&Stage]) {
    for _ in 0..n {
        for stage in stages {
            stage.clock.advance(limits::FOLLOW_INTERVAL);
            stage.service.keep_step().await.unwrap();
        }
    }
}

/// So many seconds pass at trackers that keep step.
pub(super) async fn seconds(n: usize, stages: &[&Stage]) {
    rounds(4 * n, stages).await;
}

/// Two trackers that know each other, with a group and its owner at the first and a member at the second.
struct Company {
    one: Stage,
    two: Stage,
    olga: Caller,
    bob: Caller,
    olgas: mpsc::Receiver<Event>,
    bobs: mpsc::Receiver<Event>,
    listing: ListingId,
}

async fn company() -> Company {
    let one = Stage::new().await;
    let two = one.beside().await;
    rounds(4, &[&one, &two]).await;
    let (olga, mut olgas) = one.member(1, "olga").await;
    let (bob, mut bobs) = two.member(2, "bob").await;
    one.service.create_group(&olga, group()).await.unwrap();
    join(&two, &bob, &one, &olga).await;
    let listing = list(&one, &olga).await;
    rounds(2, &[&one, &two]).await;
    while bobs.try_recv().is_ok() || olgas.try_recv().is_ok() {}
    Company { one, two, olga, bob, olgas, bobs, listing }
}

impl Stage {
    fn counts(&self, listing: ListingId) -> (u32, u32) {
        self.service.presence.counts([listing])[0]
    }

    fn peers(&self, listing: ListingId) -> Vec<PeerContact> {
        self.service.presence.peers_of(listing)
    }

    /// The client with this number comes to this tracker with its session.
    async fn resume(&self, id: u64, token: SignedIn) -> (Caller, SignedIn, mpsc::Receiver<Event>) {
        let (visitor, events) = self.connect(id);
        let signed_in = self.service.resume(&visitor, token.token).await.unwrap();
        (self.service.caller(visitor.connection).unwrap(), signed_in, events)
    }

    /// A new account whose session can move.
    async fn sign_up(&self, id: u64, user: &str) -> (Caller, SignedIn, mpsc::Receiver<Event>) {
        let (visitor, events) = self.connect(id);
        let name: UserName = user.parse().unwrap();
        self.service.register(&visitor, name.clone(), password(), None).await.unwrap();
        let signed_in = self.service.login(&visitor, name, password(), false).await.unwrap();
        (self.service.caller(visitor.connection).unwrap(), signed_in, events)
    }
}

fn leave(stage: &Stage, caller: &Caller) {
    stage.service.presence.disconnect(caller.connection);
}

#[tokio::test]
async fn what_comes_completes_and_leaves_is_seen_at_the_other_tracker_one_round_later() {
    let Company { one, two, olga, bob, listing, .. } = company().await;
    assert_eq!(two.service.watch(&bob, listing).await.unwrap(), []);
    announce(&one, &olga, listing, Has::Leeching).await;
    one.service.keep_step().await.unwrap();
    two.service.keep_step().await.unwrap();
    let peer = &two.peers(listing)[0];
    assert_eq!((peer.key, peer.user.as_str(), peer.complete), (PublicKey([1; 32]), "olga", false));
    assert_eq!(peer.address, "10.0.0.1:4000".parse().unwrap());
    let events = two.service.presence.take_peer_events(bob.connection);
    assert_eq!(events, [Event::Peers { listing, came: vec![peer.clone()], left: vec![] }]);

    announce(&one, &olga, listing, Has::Seeding).await;
    rounds(1, &[&one, &two]).await;
    assert_eq!((two.counts(listing), two.service.watch(&bob, listing).await.unwrap().len()), ((1, 0), 1));
    let found = two.service.find_file(&bob, group(), "a.bin".parse().unwrap()).await.unwrap();
    assert_eq!((found.n_seeders, found.n_leechers), (1, 0));

    leave(&one, &olga);
    rounds(1, &[&one, &two]).await;
    assert_eq!(two.counts(listing), (0, 0));
    let left = vec![PublicKey([1; 32])];
    assert_eq!(two.service.presence.take_peer_events(bob.connection), [Event::Peers { listing, came: vec![], left }]);
}

#[tokio::test]
async fn announces_that_only_renew_write_nothing() {
    let Company { one, two, olga, listing, .. } = company().await;
    announce(&one, &olga, listing, Has::Seeding).await;
    rounds(2, &[&one, &two]).await;
    let before = one.service.others.last_change().await;
    for _ in 0..8 {
        announce(&one, &olga, listing, Has::Seeding).await;
        rounds(1, &[&one, &two]).await;
    }
    assert_eq!(one.service.others.last_change().await, before);
}

#[tokio::test]
async fn a_dead_trackers_clients_vanish_after_ten_seconds_and_not_before() {
    let Company { one, two, olga, listing, .. } = company().await;
    announce(&one, &olga, listing, Has::Seeding).await;
    seconds(1, &[&one, &two]).await;
    // The last beat was seen up to a second ago.
    seconds(8, &[&two]).await;
    assert_eq!(two.counts(listing), (1, 0));
    seconds(2, &[&two]).await;
    assert_eq!(two.counts(listing), (0, 0));
    // It was not dead at all.
    rounds(8, &[&one, &two]).await;
    assert_eq!(two.counts(listing), (1, 0));
}

#[tokio::test]
async fn a_tracker_that_ends_takes_its_clients_with_it_at_once() {
    let Company { one, two, olga, listing, .. } = company().await;
    announce(&one, &olga, listing, Has::Seeding).await;
    rounds(2, &[&one, &two]).await;
    one.service.end_run().await;
    rounds(1, &[&two]).await;
    assert_eq!(two.counts(listing), (0, 0));
}

/// Its rows are in the store still, but nobody knows whether it lives.
#[tokio::test]
async fn what_a_tracker_wrote_that_died_before_is_never_believed() {
    let Company { one, two, olga, listing, .. } = company().await;
    announce(&one, &olga, listing, Has::Seeding).await;
    rounds(4, &[&one, &two]).await;
    let three = one.beside_as(3).await;
    rounds(1, &[&three]).await;
    for _ in 0..60 {
        rounds(1, &[&three]).await;
        assert_eq!(three.counts(listing), (0, 0));
    }
    rounds(8, &[&one, &three]).await;
    assert_eq!(three.counts(listing), (1, 0), "now it has beaten");
}

/// C5: a tracker that starts later has the same picture within a second.
#[tokio::test]
async fn c5_a_tracker_that_starts_later_knows_everybody() {
    let one = Stage::new().await;
    let (olga, _events) = one.member(1, "olga").await;
    one.service.create_group(&olga, group()).await.unwrap();
    let listing = list(&one, &olga).await;
    announce(&one, &olga, listing, Has::Seeding).await;
    seconds(30, &[&one]).await;
    let two = one.beside().await;
    rounds(3, &[&one, &two]).await;
    assert_eq!(two.counts(listing), (1, 0));
}

#[tokio::test]
async fn a_client_that_moved_is_counted_once_and_outlives_its_old_tracker() {
    let one = Stage::new().await;
    let (two, three) = (one.beside().await, one.beside_as(3).await);
    rounds(4, &[&one, &two, &three]).await;
    let (olga, token, _events) = one.sign_up(1, "olga").await;
    one.service.create_group(&olga, group()).await.unwrap();
    let listing = list(&one, &olga).await;
    announce(&one, &olga, listing, Has::Leeching).await;
    rounds(2, &[&one, &two, &three]).await;
    assert_eq!((two.counts(listing), three.counts(listing)), ((0, 1), (0, 1)));

    // The first tracker dies, the client goes to the second one.
    let (moved, _token, _events) = two.resume(1, token).await;
    rounds(2, &[&two, &three]).await;
    assert_eq!((two.counts(listing), three.counts(listing)), ((0, 1), (0, 1)), "it has not left in between");
    announce(&two, &moved, listing, Has::Seeding).await;
    for _ in 0..15 {
        seconds(1, &[&two, &three]).await;
        assert_eq!((two.counts(listing), three.counts(listing)), ((1, 0), (1, 0)));
    }
    assert_eq!(three.service.presence.online().len(), 1);
}

#[tokio::test]
async fn a_client_that_moved_while_its_old_tracker_lives_leaves_that_one() {
    let Company { one, two, olga, listing, .. } = company().await;
    let (eve, token, mut eves) = one.sign_up(5, "eve").await;
    join(&one, &eve, &one, &olga).await;
    announce(&one, &eve, listing, Has::Leeching).await;
    rounds(2, &[&one, &two]).await;
    while eves.try_recv().is_ok() {}
    let (moved, _token, _events) = two.resume(5, token).await;
    announce(&two, &moved, listing, Has::Leeching).await;
    for _ in 0..4 {
        rounds(1, &[&two, &one]).await;
        assert_eq!((one.counts(listing), two.counts(listing)), ((0, 1), (0, 1)));
    }
    assert_eq!(ended(&mut eves), "this client has signed in on a new connection");
    assert!(one.service.caller(eve.connection).is_err());
    // What it has left is not brought back by its old place.
    two.service.presence.sign_out(moved.connection);
    rounds(2, &[&two, &one]).await;
    assert_eq!((one.counts(listing), two.counts(listing)), ((0, 0), (0, 0)));
}

/// SIGSTOP for 40 s: its clients have gone elsewhere; when it wakes, its rows bring nobody back.
#[tokio::test]
async fn a_tracker_that_was_stopped_serves_nothing_stale_when_it_wakes() {
    let Company { one, two, olga, bob, listing, .. } = company().await;
    let (eve, token, mut eves) = one.sign_up(5, "eve").await;
    join(&one, &eve, &one, &olga).await;
    announce(&one, &eve, listing, Has::Leeching).await;
    announce(&one, &olga, listing, Has::Seeding).await;
    announce(&two, &bob, listing, Has::Leeching).await;
    rounds(2, &[&one, &two]).await;
    while eves.try_recv().is_ok() {}
    seconds(20, &[&two]).await;
    assert_eq!(two.counts(listing), (0, 1), "bob alone");
    let (moved, _token, _events) = two.resume(5, token).await;
    announce(&two, &moved, listing, Has::Leeching).await;
    leave(&two, &bob);
    seconds(20, &[&two]).await;

    one.clock.advance(Duration::from_secs(40));
    one.service.keep_step().await.unwrap();
    assert!(!one.peers(listing).iter().any(|peer| peer.user.as_str() == "bob"), "he left meanwhile");
    // Olga's connection was lost, too.
    leave(&one, &olga);
    for _ in 0..8 {
        rounds(1, &[&one, &two]).await;
        assert_eq!(two.counts(listing), (0, 1), "eve alone, at her new place");
    }
    assert_eq!((one.counts(listing), one.service.caller(eve.connection).is_err()), ((0, 1), true));
    assert!(!ended(&mut eves).is_empty());
}

#[tokio::test]
async fn a_second_login_is_refused_wherever_the_first_client_is() {
    let Company { one, two, mut olgas, .. } = company().await;
    let login = async |id: u64, takeover: bool| {
        let (visitor, _events) = two.connect(id);
        two.service.login(&visitor, "olga".parse().unwrap(), password(), takeover).await.map(drop)
    };
    let refused = login(7, false).await;
    assert!(
        matches!(&refused, Err(Refused::LoggedInElsewhere { address, .. }) if address == "10.0.0.1:4000"),
        "{refused:?}"
    );
    assert_eq!(login(8, true).await, Ok(()), "a takeover");
    rounds(1, &[&two, &one]).await;
    assert_eq!(ended(&mut olgas), "taken over from 10.0.0.8:4000");
}

/// The second tracker dies before it could say that somebody took the account over there. Whose session it is, the store
/// says: the other one's token is nobody's any more.
#[tokio::test]
async fn who_took_over_at_a_tracker_that_died_is_the_one_who_goes_on() {
    let Company { one, two, olga, mut olgas, .. } = company().await;
    let (visitor, _events) = two.connect(8);
    let taken = two.service.login(&visitor, olga.name.clone(), password(), true).await.unwrap();
    drop(two);
    assert!(one.service.caller(olga.connection).is_ok(), "nobody has told");
    let (caller, _token, _events) = one.resume(8, taken).await;
    assert_eq!(ended(&mut olgas), "taken over from 10.0.0.8:4000");
    assert!(one.service.caller(olga.connection).is_err());
    assert_eq!(one.service.presence.live_sessions(), [caller.session]);
    assert_eq!(one.service.list_sessions(&caller).await.unwrap().len(), 1);
}

/// As on one tracker, a lost connection bars other clients for half a minute, and the same one never.
#[tokio::test]
async fn a_lost_session_bars_other_clients_for_a_while() {
    let Company { one, two, olga, .. } = company().await;
    let login = async |id: u64| {
        let (visitor, _events) = two.connect(id);
        let signed_in = two.service.login(&visitor, "olga".parse().unwrap(), password(), false).await;
        two.service.presence.sign_out(visitor.connection);
        signed_in.map(drop)
    };
    leave(&one, &olga);
    rounds(1, &[&one, &two]).await;
    assert!(matches!(login(7).await, Err(Refused::LoggedInElsewhere { .. })));
    seconds(30, &[&one, &two]).await;
    one.service.presence.tick();
    rounds(1, &[&one, &two]).await;
    assert_eq!(login(7).await, Ok(()));
}

#[tokio::test]
async fn the_same_client_may_always_sign_in_and_a_logout_frees_the_account() {
    let Company { one, two, olga, mut olgas, .. } = company().await;
    let (visitor, _events) = two.connect(1);
    two.service.login(&visitor, "olga".parse().unwrap(), password(), false).await.unwrap();
    rounds(1, &[&two, &one]).await;
    assert_eq!(ended(&mut olgas), "this client has signed in on a new connection");
    assert!(one.service.caller(olga.connection).is_err());
    two.service.logout(visitor.connection).await.unwrap();
    rounds(1, &[&two, &one]).await;
    let (other, _events) = one.connect(9);
    assert!(one.service.login(&other, "olga".parse().unwrap(), password(), false).await.is_ok());
}

#[tokio::test]
async fn events_reach_users_at_other_trackers() {
    let Company { one, two, olga, mut olgas, .. } = company().await;
    let (eve, mut eves) = two.member(3, "eve").await;
    while olgas.try_recv().is_ok() {}
    two.service.join_group(&eve, group()).await.unwrap();
    rounds(1, &[&two, &one]).await;
    assert_eq!(olgas.try_recv(), Ok(Event::JoinRequested { group: group(), user: eve.name.clone() }));
    one.service.decide_request(&olga, group(), eve.name.clone(), true).await.unwrap();
    rounds(1, &[&one, &two]).await;
    assert_eq!(eves.try_recv(), Ok(Event::RequestAccepted { group: group() }));
    one.service.remove_member(&olga, group(), eve.name.clone()).await.unwrap();
    two.service.tell_revocations(0).await.unwrap();
    rounds(2, &[&one, &two]).await;
    assert!(matches!(eves.try_recv(), Ok(Event::RemovedFromGroup { .. })));
    assert!(eves.try_recv().is_err() && olgas.try_recv().is_err(), "once each");
}

#[tokio::test]
async fn a_listing_that_ends_at_one_tracker_ends_at_all() {
    let Company { one, two, olga, bob, mut bobs, listing, .. } = company().await;
    announce(&one, &olga, listing, Has::Seeding).await;
    announce(&two, &bob, listing, Has::Leeching).await;
    rounds(2, &[&one, &two]).await;
    assert_eq!((one.counts(listing), two.counts(listing)), ((1, 1), (1, 1)));
    one.service.remove_file(&olga, group(), "a.bin".parse().unwrap()).await.unwrap();
    rounds(1, &[&one, &two]).await;
    assert_eq!(bobs.try_recv(), Ok(Event::ListingEnded { listing }));
    rounds(2, &[&one, &two]).await;
    assert_eq!((one.counts(listing), two.counts(listing)), ((0, 0), (0, 0)));
}

/// The tracker that ended the listing died before it could tell.
#[tokio::test]
async fn a_listing_whose_end_was_never_told_ends_with_the_tracker_that_ended_it() {
    let Company { one, two, olga, bob, mut bobs, listing, .. } = company().await;
    announce(&two, &bob, listing, Has::Leeching).await;
    rounds(2, &[&one, &two]).await;
    one.service.remove_file(&olga, group(), "a.bin".parse().unwrap()).await.unwrap();
    seconds(12, &[&two]).await;
    assert_eq!(bobs.try_recv(), Ok(Event::ListingEnded { listing }));
}

#[tokio::test]
async fn who_is_behind_the_floor_reads_everything_anew() {
    let Company { one, two, olga, bob, listing, .. } = company().await;
    announce(&one, &olga, listing, Has::Seeding).await;
    rounds(2, &[&one, &two]).await;
    let three = one.beside_as(3).await;
    rounds(4, &[&one, &three, &two]).await;
    assert_eq!(three.counts(listing), (1, 0));
    // The third one looks away for so long that the row of her leaving is gone.
    leave(&one, &olga);
    announce(&two, &bob, listing, Has::Leeching).await;
    seconds(150, &[&one, &two]).await;
    three.service.keep_step().await.unwrap();
    assert_eq!(three.counts(listing), (0, 1));
}

#[tokio::test]
async fn a_restarted_tracker_begins_with_nobody_and_its_predecessor_notices() {
    let Company { one, two, olga, listing, .. } = company().await;
    announce(&one, &olga, listing, Has::Seeding).await;
    rounds(2, &[&one, &two]).await;
    let again = two.beside_as(1).await;
    rounds(1, &[&two]).await;
    assert_eq!(two.counts(listing), (0, 0));
    one.clock.advance(limits::HEARTBEAT);
    assert_eq!(one.service.keep_step().await, Err(StoreError::NotFound));
    one.service.end_run().await;
    rounds(1, &[&again, &two]).await;
    let (again_olga, _events) = (again.connect(9).0, ());
    again.service.login(&again_olga, "olga".parse().unwrap(), password(), true).await.unwrap();
    let caller = again.service.caller(again_olga.connection).unwrap();
    announce(&again, &caller, listing, Has::Seeding).await;
    rounds(3, &[&again, &two]).await;
    assert_eq!(two.counts(listing), (1, 0), "the end of the old life took nothing from the new one");
}

/// Wall clocks an hour apart, and monotonic clocks that began at different times.
#[tokio::test]
async fn clocks_that_differ_make_no_difference() {
    let Company { one, two, olga, listing, .. } = company().await;
    two.clock.advance(Duration::from_secs(3600));
    two.service.keep_step().await.unwrap();
    rounds(8, &[&one, &two]).await;
    announce(&one, &olga, listing, Has::Seeding).await;
    for _ in 0..30 {
        seconds(1, &[&one, &two]).await;
        assert_eq!(two.counts(listing), (1, 0));
    }
    let (visitor, _events) = two.connect(7);
    match two.service.login(&visitor, "olga".parse().unwrap(), password(), false).await {
        Err(Refused::LoggedInElsewhere { age, .. }) => assert!(age < Duration::from_secs(60), "{age:?}"),
        other => panic!("{other:?}"),
    }
}

/// A client with 10,000 files revives within a few batches.
#[tokio::test]
async fn ten_thousand_files_of_a_client_are_written_in_a_few_batches() {
    use crate::presence::Announced;
    let Company { one, two, olga, listing, .. } = company().await;
    let group = one.service.describe_group(&olga, group()).await.unwrap().id;
    let batch: Vec<_> = (1..=10_000).map(|n| Announced::In { listing: ListingId(n), group, complete: true }).collect();
    let presence = &one.service.presence;
    presence.announce(olga.connection, olga.user, presence.generation(), &batch).unwrap();
    let before = one.service.others.last_change().await;
    rounds(4, &[&one, &two]).await;
    assert_eq!(one.service.others.last_change().await, before + 3);
    assert_eq!(two.counts(listing), (1, 0), "the one that is listed");
}

/// What is acknowledged is told elsewhere even if its tracker dies a moment later.
#[tokio::test]
async fn news_is_written_at_once_and_not_with_the_next_batch() {
    let Company { one, two, bob, mut bobs, .. } = company().await;
    let (eve, _eves) = one.member(3, "eve").await;
    one.service.create_group(&eve, "other".parse().unwrap()).await.unwrap();
    two.service.join_group(&bob, "other".parse().unwrap()).await.unwrap();
    let service = Arc::clone(&one.service);
    let following = tokio::spawn(async move { service.follow_other_trackers().await });
    // The follower has done its first round and waits out the least time between two.
    let following_waits = async {
        while one.clock.n_waiting() < 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), following_waits).await.unwrap();
    one.service.decide_request(&eve, "other".parse().unwrap(), bob.name.clone(), true).await.unwrap();
    one.clock.advance(limits::NEWS_INTERVAL);
    let told = async {
        loop {
            two.service.keep_step().await.unwrap();
            match bobs.try_recv() {
                Ok(event) => return event,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(20), told).await.unwrap();
    assert!(matches!(told, Event::RequestAccepted { .. }), "{told:?}");
    following.abort();
}
