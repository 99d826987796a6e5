//! Use cases against a real store, with a clock that the test sets and no sockets.

use super::*;
use crate::admission::Admission;
use crate::presence::Line;
use crate::store::{Actor, NewSession, SignIn};
use mini_torrent_common::control::Event;
use mini_torrent_common::hash::{GroupId, PeerId};
use mini_torrent_common::secret::{Password, SessionToken};
use mini_torrent_common::tls::{Identity, PublicKey};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

mod company;
mod following;
mod keys;
mod once;
pub(crate) mod ordinary;
mod stock_company;

pub(crate) struct Stage {
    pub(crate) service: Arc<Service>,
    pub(crate) clock: Clock,
    directory: Arc<tempfile::TempDir>,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(|policy| policy).await
    }

    pub(crate) async fn with(change: impl FnOnce(Policy) -> Policy) -> Self {
        Self::on(Arc::new(tempfile::tempdir().unwrap()), 1, change).await
    }

    /// A second tracker on the same data directory.
    pub(crate) async fn beside(&self) -> Self {
        self.beside_as(2).await
    }

    /// Another tracker with this number.
    pub(crate) async fn beside_as(&self, number: u32) -> Self {
        Self::on(Arc::clone(&self.directory), number, |policy| policy).await
    }

    async fn on(directory: Arc<tempfile::TempDir>, number: u32, change: impl FnOnce(Policy) -> Policy) -> Self {
        let store = Store::within(directory.path()).await;
        let identity = Identity::from_seed(&[1; 32]).unwrap();
        store.found(identity.public().fingerprint(), GroupId([0; 16]), 1).await.unwrap();
        let clock = Clock::manual(1_000_000);
        let spool_directory = directory.path().into();
        let number = TrackerNumber(number);
        let policy =
            Policy { number, registration_open: true, public_group: true, open_public: false, spool_directory };
        let policy = change(policy);
        let passwords = Passwords::with_cost(8, 1).unwrap();
        let service = Arc::new(Service::new(store, clock.clone(), passwords, Tickets::new(identity), policy));
        service.begin_run().await.unwrap();
        Self { service, clock, directory }
    }

    pub(crate) fn connect(&self, id: u64) -> (Visitor, mpsc::Receiver<Event>) {
        let (sender, events) = mpsc::channel(16);
        let byte = u8::try_from(id).unwrap();
        let address = SocketAddr::from(([10, 0, 0, byte], 4000));
        let client =
            Client { key: PublicKey([byte; 32]), address, peer_id: PeerId([byte; 20]), agent: "t\u{1b}".into() };
        let close = CancellationToken::new();
        let place = Admission::new(1).admit(ConnectionId(id), address.ip(), close.clone()).unwrap();
        let line = Line {
            events: sender,
            changed: Arc::new(Notify::new()),
            silence: Arc::new(AtomicU32::new(0)),
            close,
            gate: Arc::new(AtomicBool::new(false)),
            place: Arc::new(place),
        };
        self.service.presence.connect(ConnectionId(id), client.clone(), line);
        (Visitor { connection: ConnectionId(id), client, source: address.ip() }, events)
    }

    /// A new account, signed in on a new connection.
    pub(crate) async fn member(&self, id: u64, user: &str) -> (Caller, mpsc::Receiver<Event>) {
        let (visitor, events) = self.connect(id);
        let name: UserName = user.parse().unwrap();
        self.service.register(&visitor, name.clone(), password(), None).await.unwrap();
        self.service.login(&visitor, name, password(), false).await.unwrap();
        (self.service.caller(visitor.connection).unwrap(), events)
    }
}

fn password() -> Password {
    Password::new("12345678".into())
}

fn group() -> GroupName {
    "lab".parse().unwrap()
}

#[tokio::test]
async fn a_session_is_renewed_by_its_use_and_lives_seven_days_after_it() {
    let stage = Stage::new().await;
    let (visitor, _events) = stage.connect(1);
    stage.service.register(&visitor, "bob".parse().unwrap(), password(), None).await.unwrap();
    let mut signed_in = stage.service.login(&visitor, "bob".parse().unwrap(), password(), false).await.unwrap();
    let almost = Duration::from_millis(limits::SESSION_LIFE_MS - 1);
    for _ in 0..2 {
        stage.service.presence.disconnect(visitor.connection);
        stage.clock.advance(almost);
        let (visitor, _events) = stage.connect(1);
        signed_in = stage.service.resume(&visitor, signed_in.token).await.unwrap();
    }
    // A client that stays connected keeps its session without resuming it.
    stage.clock.advance(almost);
    stage.service.keep_sessions().await.unwrap();
    stage.service.presence.disconnect(visitor.connection);
    stage.clock.advance(Duration::from_millis(limits::SESSION_LIFE_MS));
    stage.service.keep_sessions().await.unwrap();
    let (visitor, _events) = stage.connect(1);
    assert_eq!(stage.service.resume(&visitor, signed_in.token).await, Err(Refused::SessionEnded));
}

#[tokio::test]
async fn a_later_login_ends_the_tokens_of_before() {
    let stage = Stage::new().await;
    let (first, _events) = stage.connect(1);
    stage.service.register(&first, "bob".parse().unwrap(), password(), None).await.unwrap();
    let old = stage.service.login(&first, "bob".parse().unwrap(), password(), false).await.unwrap();
    stage.service.presence.disconnect(first.connection);
    stage.clock.advance(limits::LOST_SESSION_GRACE);
    let (second, _events) = stage.connect(2);
    stage.service.login(&second, "bob".parse().unwrap(), password(), false).await.unwrap();
    let (first, _events) = stage.connect(1);
    assert_eq!(stage.service.resume(&first, old.token).await, Err(Refused::SessionEnded));
}

/// A request that was held up, for instance in a tracker that was stopped: its client has its session elsewhere.
#[tokio::test]
async fn a_resumption_whose_client_has_gone_is_not_begun() {
    let stage = Stage::new().await;
    let (bob, _events) = stage.member(1, "bob").await;
    let token = SessionToken::new([9; 32]);
    let session = NewSession {
        user: bob.user,
        token: token.digest(),
        client_key: PublicKey([1; 32]),
        address: "10.0.0.1:4000".into(),
        agent: "t".into(),
        since_ms: 1,
        expires_ms: u64::MAX >> 1,
    };
    let session = stage.service.store.begin_session(session).await.unwrap();
    let (gone, _events) = stage.connect(1);
    stage.service.presence.disconnect(gone.connection);
    assert_eq!(stage.service.resume(&gone, token).await, Err(Refused::SessionEnded));
    let last = stage.service.store.last_sign_in(Actor::new(bob.user, session.id)).await;
    assert_eq!(last, Ok(session.sign_in), "no successor was issued");
}

#[tokio::test]
async fn a_takeover_that_fails_in_the_store_leaves_the_other_client_signed_in() {
    let stage = Stage::new().await;
    let (bob, mut bobs) = stage.member(1, "bob").await;
    let database = rusqlite::Connection::open(stage.directory.path().join("tracker.db")).unwrap();
    let refuse = "CREATE TRIGGER full BEFORE INSERT ON sessions BEGIN SELECT RAISE(ABORT, 'full'); END";
    database.execute_batch(refuse).unwrap();
    let (other, _events) = stage.connect(2);
    let login = || stage.service.login(&other, bob.name.clone(), password(), true);
    assert!(login().await.is_err());
    assert!(bobs.try_recv().is_err() && stage.service.caller(bob.connection).is_ok());
    assert_eq!(stage.service.list_sessions(&bob).await.unwrap().len(), 1);
    database.execute_batch("DROP TRIGGER full").unwrap();
    assert!(login().await.is_ok());
    assert_eq!(following::ended(&mut bobs), "taken over from 10.0.0.2:4000");
}

/// Who is told of a request: the owner, and nobody else.
#[tokio::test]
async fn a_join_request_is_told_to_those_who_decide() {
    let stage = Stage::new().await;
    let (olga, mut olgas) = stage.member(1, "olga").await;
    let (bob, mut bobs) = stage.member(2, "bob").await;
    let (eve, _eves) = stage.member(3, "eve").await;
    stage.service.create_group(&olga, group()).await.unwrap();
    stage.service.join_group(&bob, group()).await.unwrap();
    stage.service.decide_request(&olga, group(), bob.name.clone(), true).await.unwrap();
    stage.service.join_group(&eve, group()).await.unwrap();
    let told = |user: &Caller| Event::JoinRequested { group: group(), user: user.name.clone() };
    assert_eq!((olgas.try_recv(), olgas.try_recv()), (Ok(told(&bob)), Ok(told(&eve))));
    assert_eq!(bobs.try_recv(), Ok(Event::RequestAccepted { group: group() }));
    assert!(bobs.try_recv().is_err(), "a plain member decides nothing");
}

/// Who asks and withdraws without end is heard of once a minute.
#[tokio::test]
async fn a_repeated_join_request_is_told_once_in_a_while() {
    let stage = Stage::new().await;
    let (olga, mut olgas) = stage.member(1, "olga").await;
    let (eve, _eves) = stage.member(2, "eve").await;
    stage.service.create_group(&olga, group()).await.unwrap();
    let ask = async || {
        for _ in 0..10 {
            stage.service.join_group(&eve, group()).await.unwrap();
            stage.service.leave_group(&eve, group()).await.unwrap();
        }
    };
    for _ in 0..2 {
        ask().await;
        assert!(matches!(olgas.try_recv(), Ok(Event::JoinRequested { .. })));
        assert!(olgas.try_recv().is_err());
        stage.clock.advance(limits::JOIN_REQUEST_REMINDER);
    }
}

#[tokio::test]
async fn accounts_from_one_address_come_ever_more_slowly() {
    let stage = Stage::new().await;
    let (visitor, _events) = stage.connect(1);
    let here: IpAddr = "10.0.0.1".parse().unwrap();
    let register = async |name: String, source: IpAddr| {
        let visitor = Visitor { source, ..visitor.clone() };
        stage.service.register(&visitor, name.parse().unwrap(), password(), None).await
    };
    for n in 0..limits::FREE_REGISTRATIONS {
        assert_eq!(register(format!("u{n}"), here).await, Ok(()));
        if n < limits::FREE_REGISTRATIONS - 1 {
            assert_eq!(register("U0".into(), here).await, Err(Refused::UserExists), "this counts for nothing");
        }
    }
    let waits = Err(Refused::TooManyAccounts { wait: Duration::from_secs(1) });
    assert_eq!(register("more".into(), here).await, waits);
    assert_eq!(register("more".into(), "10.0.0.2".parse().unwrap()).await, Ok(()));
    for n in 0..=limits::FREE_REGISTRATIONS {
        for (name, loopback) in [("v4", "::ffff:127.0.0.1"), ("v6", "::1")] {
            assert_eq!(register(format!("{name}-{n}"), loopback.parse().unwrap()).await, Ok(()));
        }
    }
    stage.clock.advance(Duration::from_secs(1));
    assert_eq!(register("again".into(), here).await, Ok(()));
}

#[tokio::test]
async fn a_user_owns_so_many_groups_and_no_more() {
    let stage = Stage::new().await;
    let (olga, _events) = stage.member(1, "olga").await;
    for n in 0..limits::MAX_GROUPS_OWNED {
        stage.service.create_group(&olga, format!("g{n}").parse().unwrap()).await.unwrap();
    }
    let one_more = stage.service.create_group(&olga, "more".parse().unwrap()).await;
    assert!(matches!(one_more, Err(Refused::QuotaExceeded { limit: limits::MAX_GROUPS_OWNED, .. })), "{one_more:?}");
    let taken = stage.service.create_group(&olga, "G0".parse().unwrap()).await;
    assert_eq!(taken, Err(Refused::GroupExists), "the name is answered first");
}

#[tokio::test]
async fn an_operator_can_take_the_built_in_group_away() {
    let stage = Stage::with(|policy| Policy { public_group: false, ..policy }).await;
    let (bob, _events) = stage.member(1, "bob").await;
    let public: GroupName = "public".parse().unwrap();
    assert_eq!(stage.service.list_groups(&bob, None).await, Ok(vec![]));
    assert_eq!(stage.service.describe_group(&bob, public.clone()).await, Err(Refused::NoSuchGroup));
    assert_eq!(stage.service.list_files(&bob, public.clone(), None).await, Err(Refused::NoSuchGroup));
    assert_eq!(stage.service.create_group(&bob, public).await, Err(Refused::BuiltInGroup), "reserved for ever");
}

#[tokio::test]
async fn an_address_that_fails_does_not_lock_the_owner_out_from_another() {
    let stage = Stage::new().await;
    let (owner, _events) = stage.connect(1);
    let (guesser, _events) = stage.connect(2);
    let bob: UserName = "bob".parse().unwrap();
    stage.service.register(&owner, bob.clone(), password(), None).await.unwrap();
    for _ in 0..limits::FREE_FAILURES {
        let guess = stage.service.login(&guesser, bob.clone(), Password::new("guess".into()), false).await;
        assert_eq!(guess, Err(Refused::WrongCredentials));
    }
    let right = stage.service.login(&guesser, bob.clone(), password(), false).await;
    assert_eq!(right, Err(Refused::TooManyFailures { wait: Duration::from_secs(1) }));
    assert!(stage.service.login(&owner, bob, password(), false).await.is_ok());
}

/// A customer of IPv6 has a whole /64 to guess from.
#[tokio::test]
async fn an_ipv6_network_is_slowed_down_as_one() {
    let stage = Stage::new().await;
    let (visitor, _events) = stage.connect(1);
    let guess = |address: &str| {
        let visitor = Visitor { source: address.parse().unwrap(), ..visitor.clone() };
        let service = Arc::clone(&stage.service);
        async move { service.login(&visitor, "bob".parse().unwrap(), Password::new("guess".into()), false).await }
    };
    for n in 0..limits::FREE_FAILURES {
        assert_eq!(guess(&format!("2001:db8:0:1::{n}")).await, Err(Refused::WrongCredentials));
    }
    let waits = Err(Refused::TooManyFailures { wait: Duration::from_secs(1) });
    assert_eq!(guess("2001:db8:0:1:ffff::9").await, waits);
    assert_eq!(guess("2001:db8:0:2::9").await, Err(Refused::WrongCredentials));
}

#[tokio::test]
async fn who_owns_enough_groups_is_given_no_more() {
    let stage = Stage::new().await;
    let (olga, _events) = stage.member(1, "olga").await;
    let (bob, _events) = stage.member(2, "bob").await;
    for n in 0..limits::MAX_GROUPS_OWNED {
        stage.service.create_group(&bob, format!("g{n}").parse().unwrap()).await.unwrap();
    }
    stage.service.create_group(&olga, group()).await.unwrap();
    stage.service.join_group(&bob, group()).await.unwrap();
    stage.service.decide_request(&olga, group(), bob.name.clone(), true).await.unwrap();
    let given = stage.service.transfer_owner(&olga, group(), bob.name.clone()).await;
    assert!(matches!(given, Err(Refused::QuotaExceeded { limit: limits::MAX_GROUPS_OWNED, .. })), "{given:?}");
}

/// The log is followed in its order, however late, and once.
#[tokio::test]
async fn members_hear_of_each_revocation_once_and_in_order() {
    let stage = Stage::new().await;
    let (olga, _events) = stage.member(1, "olga").await;
    stage.service.create_group(&olga, group()).await.unwrap();
    let id = stage.service.describe_group(&olga, group()).await.unwrap().id;
    for (n, user) in (2..).zip(["bob", "eve"]) {
        let (caller, _events) = stage.member(n, user).await;
        stage.service.join_group(&caller, group()).await.unwrap();
        stage.service.decide_request(&olga, group(), caller.name.clone(), true).await.unwrap();
    }
    let admission = stage.service.enter_group(&olga, PublicKey([1; 32]), id, 0).await.unwrap();
    assert!(admission.revocations.is_empty());
    for user in ["eve", "bob"] {
        stage.service.remove_member(&olga, group(), user.parse().unwrap()).await.unwrap();
    }
    let last = stage.service.tell_revocations(0).await.unwrap();
    let Some(Event::Revoked(log)) = stage.service.presence.take_revocations(olga.connection) else { panic!() };
    assert_eq!(log.iter().map(|one| one.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(stage.service.tell_revocations(last).await, Ok(last));
    assert_eq!(stage.service.presence.take_revocations(olga.connection), None);
}
