//! Sessions, swarms and leases, without sockets.

use super::*;
use crate::admission::Admission;
use std::sync::atomic::AtomicU64;

mod entering;

const GROUP: GroupId = GroupId([1; 16]);
const FILE: ListingId = ListingId(1);

struct Online {
    id: ConnectionId,
    events: mpsc::Receiver<Event>,
    silence: Arc<AtomicU32>,
    close: CancellationToken,
    gate: Arc<AtomicBool>,
}

fn presence() -> (Presence, Clock) {
    let clock = Clock::manual(0);
    (Presence::new(clock.clone()), clock)
}

fn connect(presence: &Presence, id: u64, key: u8) -> Online {
    connect_at(&Admission::new(1), presence, id, key)
}

/// Connects on a place of its own.
fn connect_at(admission: &Admission, presence: &Presence, id: u64, key: u8) -> Online {
    let (sender, events) = mpsc::channel(4);
    let (silence, close) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
    let address = SocketAddr::from(([10, 0, 0, key], 4000));
    let gate = Arc::new(AtomicBool::new(false));
    let place = Arc::new(admission.admit(ConnectionId(id), address.ip(), close.clone()).unwrap());
    let (changed, silence_too) = (Arc::new(Notify::new()), Arc::clone(&silence));
    let line = Line { events: sender, changed, silence: silence_too, close: close.clone(), gate: gate.clone(), place };
    let client = Client { key: PublicKey([key; 32]), address, peer_id: PeerId([key; 20]), agent: "test".into() };
    presence.connect(ConnectionId(id), client, line);
    Online { id: ConnectionId(id), events, silence, close, gate }
}

fn sign_in(presence: &Presence, client: &Online, user: i64) -> Result<(), NotClaimed> {
    presence.claim(client.id, UserId(user), false)?;
    assert!(confirm(presence, client, user));
    Ok(())
}

/// Each is a later sign-in than those before.
fn confirm(presence: &Presence, client: &Online, user: i64) -> bool {
    static LAST: AtomicU64 = AtomicU64::new(1);
    presence.confirm(client.id, named(user), SignIn(LAST.fetch_add(1, Ordering::Relaxed)))
}

/// A user whose session has its own number.
fn named(user: i64) -> SignedInUser {
    SignedInUser { id: UserId(user), name: format!("u{user}").parse().unwrap(), session: SessionId(user) }
}

fn announce(presence: &Presence, client: &Online, user: i64, complete: bool) -> Result<(), NotTaken> {
    let batch = [Announced::In { listing: FILE, group: GROUP, complete }];
    presence.announce(client.id, UserId(user), presence.generation(), &batch)
}

fn watch(presence: &Presence, client: &Online, user: i64) -> usize {
    presence.watch(client.id, UserId(user), presence.generation(), FILE, GROUP).unwrap().len()
}

fn counts(presence: &Presence) -> (u32, u32) {
    presence.counts([FILE])[0]
}

#[test]
fn a_session_bars_other_clients_while_live_and_for_thirty_seconds_more() {
    let (presence, clock) = presence();
    let (first, second) = (connect(&presence, 1, 1), connect(&presence, 2, 2));
    sign_in(&presence, &first, 7).unwrap();
    clock.advance(Duration::from_secs(90));
    let address = "10.0.0.1:4000".parse().unwrap();
    let age = Duration::from_secs(90);
    assert_eq!(presence.claim(second.id, UserId(7), false), Err(NotClaimed::Elsewhere { address, age }));
    presence.disconnect(first.id);
    clock.advance(limits::LOST_SESSION_GRACE - Duration::from_millis(1));
    assert!(sign_in(&presence, &second, 7).is_err());
    let again = connect(&presence, 3, 1);
    assert!(sign_in(&presence, &again, 7).is_ok(), "the same client at once");
    presence.disconnect(again.id);
    clock.advance(limits::LOST_SESSION_GRACE);
    assert!(sign_in(&presence, &second, 7).is_ok());
}

#[test]
fn a_takeover_ends_the_other_clients_session_with_a_reason() {
    let (presence, _clock) = presence();
    let (mut first, second) = (connect(&presence, 1, 1), connect(&presence, 2, 2));
    sign_in(&presence, &first, 7).unwrap();
    announce(&presence, &first, 7, true).unwrap();
    presence.claim(second.id, UserId(7), true).unwrap();
    assert!(first.events.try_recv().is_err() && presence.user_of(first.id).is_some(), "the store has not decided");
    assert!(confirm(&presence, &second, 7));
    let reason = "taken over from 10.0.0.2:4000".into();
    assert_eq!(first.events.try_recv(), Ok(Event::SessionEnded { reason }));
    assert_eq!((counts(&presence), presence.user_of(first.id)), ((0, 0), None));
}

/// However a session ends, its connection's place is a stranger's again: it makes room for others.
#[test]
fn the_place_of_a_connection_follows_its_session() {
    let ends: [fn(&Presence, &Online, &Online); 4] = [
        |presence, _, newer| {
            presence.sign_out(newer.id);
            presence.claim(newer.id, UserId(7), true).unwrap();
            assert!(confirm(presence, newer, 7));
        },
        |presence, _, _| presence.end_session(UserId(7), None, "locked"),
        |presence, _, _| presence.end_session(UserId(7), Some(SessionId(7)), "ended elsewhere"),
        |presence, old, _| presence.sign_out(old.id),
    ];
    for end in ends {
        let ((presence, _clock), admission) = (presence(), Admission::new(2));
        let [old, newer] = [1, 2].map(|n| connect_at(&admission, &presence, n.into(), n));
        for (client, user) in [(&old, 7), (&newer, 8)] {
            sign_in(&presence, client, user).unwrap();
        }
        let admit = |id| admission.admit(ConnectionId(id), "10.0.0.9".parse().unwrap(), CancellationToken::new());
        assert!(admit(3).is_none(), "all places are members'");
        end(&presence, &old, &newer);
        assert!(admit(4).is_some() && old.close.is_cancelled() && !newer.close.is_cancelled());
    }
}

/// Long frames that were sent before the client heard of the end still come; later ones do not.
#[test]
fn the_gate_for_long_frames_closes_a_tick_after_a_session() {
    let (presence, _clock) = presence();
    let client = connect(&presence, 1, 1);
    let is_open = || client.gate.load(Ordering::Relaxed);
    presence.claim(client.id, UserId(7), false).unwrap();
    assert!(!is_open(), "the session is not stored yet");
    assert!(confirm(&presence, &client, 7));
    presence.tick();
    assert!(is_open());
    presence.end_session(UserId(7), None, "locked");
    assert!(is_open());
    presence.tick();
    assert!(!is_open());
}

#[test]
fn a_session_that_ended_in_the_store_ends_here_and_no_other_does() {
    let (presence, _clock) = presence();
    let mut client = connect(&presence, 1, 1);
    sign_in(&presence, &client, 7).unwrap();
    presence.end_session(UserId(7), Some(SessionId(6)), "an older one");
    presence.end_session(UserId(8), None, "another user's");
    assert_eq!(presence.live_sessions(), [SessionId(7)]);
    presence.end_session(UserId(7), Some(SessionId(7)), "why");
    assert_eq!(client.events.try_recv(), Ok(Event::SessionEnded { reason: "why".into() }));
    assert!(presence.user_of(client.id).is_none() && presence.live_sessions().is_empty());
    // A session that is just beginning is ended, too.
    presence.claim(client.id, UserId(7), false).unwrap();
    presence.end_session(UserId(7), None, "locked");
    assert!(!confirm(&presence, &client, 7));
}

#[test]
fn a_logout_frees_the_session_at_once() {
    let (presence, _clock) = presence();
    let (first, second) = (connect(&presence, 1, 1), connect(&presence, 2, 2));
    sign_in(&presence, &first, 7).unwrap();
    announce(&presence, &first, 7, true).unwrap();
    presence.sign_out(first.id);
    assert_eq!((counts(&presence), presence.user_of(first.id)), ((0, 0), None));
    assert!(sign_in(&presence, &second, 7).is_ok());
}

#[test]
fn a_claim_that_was_overtaken_or_disconnected_signs_nobody_in() {
    let (presence, _clock) = presence();
    let (old, new) = (connect(&presence, 1, 1), connect(&presence, 2, 1));
    presence.claim(old.id, UserId(7), false).unwrap();
    presence.claim(new.id, UserId(7), false).unwrap();
    assert!(!confirm(&presence, &old, 7) && confirm(&presence, &new, 7));
    presence.disconnect(old.id);
    assert_eq!(presence.claim(old.id, UserId(7), false), Err(NotClaimed::Disconnected));
    assert!(presence.user_of(new.id).is_some());
}

/// The store refused, or could not be asked: everybody keeps what they had.
#[test]
fn a_claim_that_is_given_up_takes_nothing_from_anybody() {
    let gives_up: [fn(&Presence, &Online); 2] =
        [|presence, new| presence.sign_out(new.id), |presence, new| presence.disconnect(new.id)];
    for give_up in gives_up {
        let (presence, _clock) = presence();
        let [mut old, new, other] = [1, 2, 3].map(|n| connect(&presence, n.into(), n));
        sign_in(&presence, &old, 7).unwrap();
        announce(&presence, &old, 7, true).unwrap();
        presence.claim(new.id, UserId(7), true).unwrap();
        give_up(&presence, &new);
        assert!(!confirm(&presence, &new, 7) && old.events.try_recv().is_err());
        assert_eq!((presence.live_sessions(), counts(&presence)), (vec![SessionId(7)], (1, 0)));
        presence.sign_out(old.id);
        assert!(sign_in(&presence, &other, 7).is_ok(), "nobody claims it any more");
    }
}

#[test]
fn who_is_about_to_sign_in_bars_other_clients() {
    let (presence, clock) = presence();
    let (first, second) = (connect(&presence, 1, 1), connect(&presence, 2, 2));
    presence.claim(first.id, UserId(7), false).unwrap();
    clock.advance(Duration::from_secs(1));
    let (address, age) = ("10.0.0.1:4000".parse().unwrap(), Duration::from_secs(1));
    assert_eq!(presence.claim(second.id, UserId(7), false), Err(NotClaimed::Elsewhere { address, age }));
    assert!(confirm(&presence, &first, 7));
}

/// The store let one resume, then the other sign in; here they arrive the other way round.
#[test]
fn an_earlier_sign_in_that_is_confirmed_late_takes_nothing_from_the_later_one() {
    let (presence, _clock) = presence();
    let (earlier, mut later) = (connect(&presence, 1, 1), connect(&presence, 2, 2));
    sign_in(&presence, &later, 7).unwrap();
    presence.claim(earlier.id, UserId(7), true).unwrap();
    assert!(!presence.confirm(earlier.id, named(7), SignIn(0)));
    assert!(later.events.try_recv().is_err() && presence.user_of(later.id).is_some());
    assert!(presence.user_of(earlier.id).is_none());
}

#[test]
fn one_client_counts_once_and_its_old_connection_takes_nothing_with_it() {
    let (presence, _clock) = presence();
    let old = connect(&presence, 1, 1);
    sign_in(&presence, &old, 7).unwrap();
    announce(&presence, &old, 7, false).unwrap();
    let mut old = old;
    let new = connect(&presence, 2, 1);
    sign_in(&presence, &new, 7).unwrap();
    assert!(matches!(old.events.try_recv(), Ok(Event::SessionEnded { .. })));
    announce(&presence, &new, 7, true).unwrap();
    presence.disconnect(old.id);
    assert_eq!(counts(&presence), (1, 0));
    presence.disconnect(new.id);
    assert_eq!(counts(&presence), (0, 0));
    assert!(presence.state().swarms.is_empty(), "nothing is left behind");
}

#[test]
fn watchers_hear_of_others_once_and_of_the_latest_state() {
    let (presence, _clock) = presence();
    let (seeder, watcher) = (connect(&presence, 1, 1), connect(&presence, 2, 2));
    sign_in(&presence, &seeder, 7).unwrap();
    sign_in(&presence, &watcher, 8).unwrap();
    assert_eq!(watch(&presence, &watcher, 8), 0);
    announce(&presence, &watcher, 8, false).unwrap();
    assert!(presence.take_peer_events(watcher.id).is_empty(), "nobody hears of itself");
    announce(&presence, &seeder, 7, false).unwrap();
    announce(&presence, &seeder, 7, true).unwrap();
    match &presence.take_peer_events(watcher.id)[..] {
        [Event::Peers { listing: FILE, came, left }] => {
            assert_eq!((came.len(), came[0].complete, came[0].user.as_str(), left.len()), (1, true, "u7", 0));
        }
        other => panic!("{other:?}"),
    }
    announce(&presence, &seeder, 7, true).unwrap();
    assert!(presence.take_peer_events(watcher.id).is_empty(), "nothing changed");
    presence.disconnect(seeder.id);
    let left = vec![PublicKey([1; 32])];
    assert_eq!(presence.take_peer_events(watcher.id), [Event::Peers { listing: FILE, came: vec![], left }]);
    presence.unwatch(watcher.id, FILE);
    announce(&presence, &watcher, 8, true).unwrap();
    assert!(presence.take_peer_events(watcher.id).is_empty());
}

#[test]
fn facts_from_before_a_removal_are_turned_back() {
    let (presence, _clock) = presence();
    let client = connect(&presence, 1, 1);
    sign_in(&presence, &client, 7).unwrap();
    let before = presence.generation();
    presence.end_membership(UserId(7), GROUP);
    let batch = [Announced::In { listing: FILE, group: GROUP, complete: true }];
    assert_eq!(presence.announce(client.id, UserId(7), before, &batch), Err(NotTaken::Outdated));
    assert_eq!(presence.watch(client.id, UserId(7), before, FILE, GROUP), Err(NotTaken::Outdated));
    assert_eq!(announce(&presence, &client, 8, true), Err(NotTaken::SignedOut), "another user");
    assert_eq!(counts(&presence), (0, 0));
}

#[test]
fn the_end_of_a_membership_ends_presence_in_that_group_alone() {
    let (presence, _clock) = presence();
    let client = connect(&presence, 1, 1);
    sign_in(&presence, &client, 7).unwrap();
    announce(&presence, &client, 7, true).unwrap();
    watch(&presence, &client, 7);
    let elsewhere = Announced::In { listing: ListingId(2), group: GroupId([2; 16]), complete: true };
    presence.announce(client.id, UserId(7), presence.generation(), &[elsewhere]).unwrap();
    presence.end_membership(UserId(7), GROUP);
    assert_eq!(presence.counts([FILE, ListingId(2)]), [(0, 0), (1, 0)]);
    assert!(!presence.state().swarms.contains_key(&FILE));
}

#[test]
fn the_end_of_a_listing_is_told_to_whom_it_concerns() {
    let (presence, _clock) = presence();
    let (mut seeder, mut watcher, mut other) =
        (connect(&presence, 1, 1), connect(&presence, 2, 2), connect(&presence, 3, 3));
    for (client, user) in [(&seeder, 7), (&watcher, 8), (&other, 9)] {
        sign_in(&presence, client, user).unwrap();
    }
    announce(&presence, &seeder, 7, true).unwrap();
    watch(&presence, &watcher, 8);
    presence.end_listings(&[FILE]);
    assert_eq!(seeder.events.try_recv(), Ok(Event::ListingEnded { listing: FILE }));
    assert_eq!(watcher.events.try_recv(), Ok(Event::ListingEnded { listing: FILE }));
    assert!(other.events.try_recv().is_err() && presence.state().swarms.is_empty());
}

#[test]
fn a_user_who_stops_sharing_is_no_seeder_but_may_go_on_leeching() {
    let (presence, _clock) = presence();
    let client = connect(&presence, 1, 1);
    sign_in(&presence, &client, 7).unwrap();
    announce(&presence, &client, 7, false).unwrap();
    presence.end_seeding(UserId(7), FILE);
    assert_eq!(counts(&presence), (0, 1));
    announce(&presence, &client, 7, true).unwrap();
    presence.end_seeding(UserId(7), FILE);
    assert_eq!(counts(&presence), (0, 0));
}

#[test]
fn silent_clients_are_closed_by_ticks_and_talking_ones_are_not() {
    let (presence, clock) = presence();
    let (silent, talking) = (connect(&presence, 1, 1), connect(&presence, 2, 2));
    // The tracker itself stood still for an hour: that closes nobody.
    clock.advance(Duration::from_secs(3600));
    for _ in 0..limits::LEASE_TICKS {
        presence.tick();
        talking.silence.store(0, Ordering::Relaxed);
    }
    assert!(!silent.close.is_cancelled());
    presence.tick();
    assert!(silent.close.is_cancelled() && !talking.close.is_cancelled());
}

#[test]
fn a_client_that_lets_its_events_gather_is_dropped() {
    let (presence, _clock) = presence();
    let client = connect(&presence, 1, 1);
    sign_in(&presence, &client, 7).unwrap();
    for _ in 0..5 {
        presence.notify(&[UserId(7), UserId(99)], &Event::RequestAccepted { group: "g".parse().unwrap() });
    }
    assert!(client.close.is_cancelled());
}

#[test]
fn a_large_swarm_is_sampled_and_its_changes_are_bounded() {
    use mini_torrent_common::control::MAX_PEERS;
    let (presence, _clock) = presence();
    let watcher = connect(&presence, 0, 0);
    sign_in(&presence, &watcher, 1).unwrap();
    watch(&presence, &watcher, 1);
    let clients: Vec<_> = (1..=250).map(|n| connect(&presence, u64::from(n), n)).collect();
    for (user, client) in (10..).zip(&clients) {
        sign_in(&presence, client, user).unwrap();
        announce(&presence, client, user, false).unwrap();
    }
    match &presence.take_peer_events(watcher.id)[..] {
        [Event::Peers { came, .. }] => assert_eq!(came.len(), MAX_PEERS),
        other => panic!("{other:?}"),
    }
    assert_eq!(watch(&presence, &watcher, 1), MAX_PEERS);
    assert_eq!(counts(&presence), (0, 250));
}

#[test]
fn every_client_is_online_once_with_what_it_has() {
    let (presence, _clock) = presence();
    let (member, _stranger) = (connect(&presence, 1, 1), connect(&presence, 2, 2));
    sign_in(&presence, &member, 7).unwrap();
    announce(&presence, &member, 7, true).unwrap();
    let mut online = presence.online();
    online.sort_by_key(|client| client.client.address);
    let shown: Vec<_> = online.iter().map(|one| (one.user.as_ref().map(UserName::as_str), one.n_seeding)).collect();
    assert_eq!(shown, [(Some("u7"), 1), (None, 0)]);
}
