//! A tracker in this process and a client that speaks raw messages.

use crate::clock::Clock;
use crate::service::Service;
use crate::start::{Config, Tracker};
use futures_util::{SinkExt, StreamExt};
use mini_torrent_common::control::*;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::geometry::{Geometry, PIECE_LENGTH};
use mini_torrent_common::hash::{GroupId, InfoHash, PeerId, Sha1Hash, Sha256Hash};
use mini_torrent_common::metainfo::{Info, PieceHashes};
use mini_torrent_common::revocation::Revocation;
use mini_torrent_common::secret::{Password, SessionToken};
use mini_torrent_common::tls::{self, Identity};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::codec::Framed;
use tokio_util::sync::CancellationToken;

/// Nothing here takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct TestTracker {
    pub(super) address: SocketAddr,
    pub(super) clock: Clock,
    pub(super) service: Arc<Service>,
    shutdown: CancellationToken,
    server: JoinHandle<Result<(), crate::StartError>>,
}

impl TestTracker {
    pub(super) async fn start(directory: &Path) -> Self {
        Self::start_with(Config { clock: Clock::manual(1_000_000), ..Config::new(directory) }).await
    }

    /// The second tracker of the same data directory.
    pub(super) async fn start_second(directory: &Path) -> Self {
        Self::start_with(Config { number: 2, clock: Clock::manual(1_000_000), ..Config::new(directory) }).await
    }

    pub(super) async fn start_with(config: Config) -> Self {
        let listener = crate::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let (address, clock) = (listener.local_addr().unwrap(), config.clock.clone());
        let shutdown = CancellationToken::new();
        let tracker = Tracker::open(config).await.unwrap();
        let service = tracker.service();
        let server = tokio::spawn(tracker.serve(listener, shutdown.clone()));
        Self { address, clock, service, shutdown, server }
    }

    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        patiently(self.server).await.unwrap().unwrap();
    }
}

/// Clients of these users, with keys made of 1, 2 and so on, in a group `lab` of the first.
pub(super) async fn lab(tracker: &TestTracker, members: &[&str]) -> Vec<TestClient> {
    let mut clients: Vec<TestClient> = Vec::new();
    for (key, user) in (1..).zip(members) {
        let (mut client, _) = TestClient::signed_in(tracker.address, key, user).await;
        match clients.first_mut() {
            None => client.done(Request::CreateGroup { group: "lab".parse().unwrap() }).await,
            Some(owner) => join(&mut client, owner, user).await,
        }
        clients.push(client);
    }
    clients
}

/// Makes a user a member of `lab`.
pub(super) async fn join(client: &mut TestClient, owner: &mut TestClient, user: &str) {
    let group = || "lab".parse().unwrap();
    client.done(Request::JoinGroup { group: group() }).await;
    owner.done(Request::AcceptRequest { group: group(), user: user.parse().unwrap() }).await;
}

pub(super) async fn patiently<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("took too long")
}

pub(super) type Wire = Framed<TlsStream<TcpStream>, ControlCodec<TrackerMessage, ClientMessage>>;

pub(super) struct TestClient {
    pub(super) wire: Wire,
    pub(super) welcome: Welcome,
    events: VecDeque<Event>,
    n_requests: u32,
}

pub(super) fn hello() -> Hello {
    Hello { min_version: 1, max_version: 1, agent: "test/1".into(), peer_id: PeerId([9; 20]), listen_port: 4000 }
}

/// TLS as the client whose key is made of this byte.
pub(super) async fn connect_wire(address: SocketAddr, key: u8) -> Wire {
    let config = tls::control_client_config(&Identity::from_seed(&[key; 32]).unwrap(), None).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let tls = TlsConnector::from(Arc::new(config)).connect(tls::unnamed_server(), stream);
    Framed::new(patiently(tls).await.unwrap(), ControlCodec::new(MAX_FRAME_LENGTH))
}

impl TestClient {
    pub(super) async fn connect(address: SocketAddr, key: u8) -> Self {
        let mut wire = connect_wire(address, key).await;
        wire.send(ClientMessage::Hello(hello())).await.unwrap();
        match patiently(wire.next()).await {
            Some(Ok(TrackerMessage::Welcome(welcome))) => {
                Self { wire, welcome, events: VecDeque::new(), n_requests: 0 }
            }
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// Creates the account if need be and signs in.
    pub(super) async fn signed_in(address: SocketAddr, key: u8, user: &str) -> (Self, SessionToken) {
        let mut client = Self::connect(address, key).await;
        let created = client.call(create_user(user)).await;
        assert!(created.is_ok() || created == refused(ErrorCode::UserExists), "{created:?}");
        let token = client.login(user).await.unwrap();
        (client, token)
    }

    pub(super) async fn login(&mut self, user: &str) -> Result<SessionToken, ErrorCode> {
        self.sign_in(login(user)).await
    }

    /// Takes a session up; what comes back is its next token.
    pub(super) async fn resume(&mut self, token: &SessionToken) -> Result<SessionToken, ErrorCode> {
        self.sign_in(Request::Resume { token: token.clone() }).await
    }

    async fn sign_in(&mut self, request: Request) -> Result<SessionToken, ErrorCode> {
        match self.call(request).await? {
            Response::SignedIn(session) => Ok(session.token),
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Enters a group.
    pub(super) async fn enter(&mut self, group: GroupId, after: u64) -> Result<Admission, ErrorCode> {
        match self.call(Request::EnterGroup { group, after }).await? {
            Response::Admission(admission) => Ok(admission),
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Revocations that were pushed, until there are so many.
    pub(super) async fn revoked(&mut self, n: usize) -> Vec<Revocation> {
        let mut all = Vec::new();
        while all.len() < n {
            match self.event_that(|event| matches!(event, Event::Revoked(_))).await {
                Event::Revoked(some) => all.extend(some),
                other => panic!("unexpected {other:?}"),
            }
        }
        all
    }

    pub(super) async fn send(&mut self, body: Request) -> u32 {
        self.n_requests += 1;
        let id = self.n_requests;
        self.wire.send(ClientMessage::Request { id, once: None, body }).await.unwrap();
        id
    }

    pub(super) async fn ask(&mut self, body: Request) -> Result<Response, Refusal> {
        let asked = self.send(body).await;
        loop {
            match patiently(self.wire.next()).await {
                Some(Ok(TrackerMessage::Response { id, result })) if id == asked => return result,
                Some(Ok(TrackerMessage::Event(event))) => self.events.push_back(event),
                other => panic!("no answer: {other:?}"),
            }
        }
    }

    /// As [`Self::ask`], keeping of a refusal only its code.
    pub(super) async fn call(&mut self, body: Request) -> Result<Response, ErrorCode> {
        self.ask(body).await.map_err(|refusal| refusal.code)
    }

    pub(super) async fn done(&mut self, body: Request) {
        let answer = self.call(body.clone()).await;
        assert!(matches!(answer, Ok(Response::Done | Response::Time(_))), "{body:?}: {answer:?}");
    }

    /// The next event, other than those of swarms.
    pub(super) async fn event(&mut self) -> Event {
        self.event_that(|event| !matches!(event, Event::Peers { .. })).await
    }

    /// The next event of a swarm.
    pub(super) async fn peers_event(&mut self) -> Event {
        self.event_that(|event| matches!(event, Event::Peers { .. })).await
    }

    /// Revocations among the events that came with earlier answers.
    pub(super) fn revoked_already(&mut self) -> Option<Vec<Revocation>> {
        self.events.iter().find_map(|event| match event {
            Event::Revoked(log) => Some(log.clone()),
            _ => None,
        })
    }

    /// The next event of a kind; those before it are forgotten.
    pub(super) async fn event_that(&mut self, is_wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => match patiently(self.wire.next()).await {
                    Some(Ok(TrackerMessage::Event(event))) => event,
                    other => panic!("no event: {other:?}"),
                },
            };
            if is_wanted(&event) {
                return event;
            }
        }
    }

    /// Waits until the tracker has closed the connection.
    pub(super) async fn closed(&mut self) {
        while let Some(Ok(_)) = patiently(self.wire.next()).await {}
    }

    /// Lists a file of this size with invented pieces, and says its number.
    pub(super) async fn list(&mut self, group: &str, name: &str, size: u64) -> Result<ListingId, ErrorCode> {
        let (raw, draft) = made_up(self.group_id(group).await, name, size);
        let offer = Request::OfferListing { group: group.parse().unwrap(), draft };
        let upload = match self.call(offer).await? {
            Response::Offered(Offer::SendInfo(upload)) => upload,
            Response::Offered(Offer::Joined(listing) | Offer::AlreadySharing(listing)) => return Ok(listing),
            other => panic!("unexpected {other:?}"),
        };
        for (index, page) in raw.chunks(INFO_PAGE_LENGTH).enumerate() {
            let offset = (index * INFO_PAGE_LENGTH) as u64;
            self.call(Request::PutInfo { upload, offset, bytes: page.to_vec() }).await?;
        }
        match self.call(Request::CommitListing { upload }).await? {
            Response::Listed(listing) => Ok(listing),
            other => panic!("unexpected {other:?}"),
        }
    }

    pub(super) async fn group_id(&mut self, group: &str) -> Option<GroupId> {
        match self.call(Request::DescribeGroup { group: group.parse().unwrap() }).await {
            Ok(Response::Group(found)) => (group != "public").then_some(found.id),
            _ => Some(GroupId([0; 16])),
        }
    }
}

pub(super) fn refused<T>(code: ErrorCode) -> Result<T, ErrorCode> {
    Err(code)
}

pub(super) fn password(user: &str) -> Password {
    Password::new(format!("password of {user}"))
}

pub(super) fn login(user: &str) -> Request {
    Request::Login { user: user.parse().unwrap(), password: password(user), takeover: false }
}

pub(super) fn create_user(user: &str) -> Request {
    Request::CreateUser { user: user.parse().unwrap(), password: password(user) }
}

/// An `info` dictionary with invented hashes, and its draft.
pub(super) fn made_up(group: Option<GroupId>, name: &str, size: u64) -> (Vec<u8>, ListingDraft) {
    let geometry = Geometry::new(size, u64::from(PIECE_LENGTH)).unwrap();
    let pieces = PieceHashes::new(vec![7; geometry.n_pieces() as usize * 20]).unwrap();
    let info = Info { name: name.parse().unwrap(), geometry, pieces, private: group.is_some(), group };
    let raw = info.encode();
    let draft = ListingDraft {
        name: info.name,
        size,
        sha1: Sha1Hash([1; 20]),
        sha256: Sha256Hash([2; 32]),
        info_hash: InfoHash::of(&raw),
        info_length: raw.len() as u64,
    };
    (raw, draft)
}
