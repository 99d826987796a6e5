//! The link before trackers that answer, hang up or fall silent as a test likes.

use super::*;
use futures_util::{SinkExt, StreamExt};
use mini_torrent_common::control::{
    ClientMessage, ControlCodec, ListingId, MAX_FRAME_LENGTH, Refusal, SignedIn, TrackerMessage, UploadId, Welcome,
};
use mini_torrent_common::secret::{Password, SessionToken};
use mini_torrent_common::tls;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::codec::{FramedRead, FramedWrite};
use tokio_util::sync::DropGuard;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a fake tracker does with a request.
enum Reaction {
    Answer(Result<Response, Refusal>),
    /// Takes it, and answers it when everything may be answered.
    Hold,
    HangUp,
    /// Neither reads nor says anything any more.
    FallSilent,
    /// As that, and as a process that hangs it takes up no conversation any more.
    Hang,
}

type React = fn(&Request) -> Reaction;
/// What was asked under which name, in order.
type Asked = Arc<Mutex<Vec<(Option<OperationId>, Request)>>>;

/// A tracker of this process; it ends when it is dropped.
struct FakeTracker {
    address: SocketAddr,
    asked: Asked,
    released: watch::Sender<bool>,
    _end: DropGuard,
}

fn deployment() -> Identity {
    Identity::from_seed(&[1; tls::SEED_LENGTH]).unwrap()
}

async fn any_port() -> TcpListener {
    TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

impl FakeTracker {
    async fn start(react: React) -> Self {
        Self::on(any_port().await, react)
    }

    fn on(listener: TcpListener, react: React) -> Self {
        let end = CancellationToken::new();
        let (released, release) = watch::channel(false);
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (ended, heard) = (end.clone(), Arc::clone(&asked));
        tokio::spawn(end.clone().run_until_cancelled_owned(async move {
            let hung = CancellationToken::new();
            while let Some(accepted) = hung.run_until_cancelled(listener.accept()).await {
                let serving = serve(accepted.unwrap().0, react, Arc::clone(&heard), release.clone(), hung.clone());
                tokio::spawn(ended.clone().run_until_cancelled_owned(serving));
            }
            // The system goes on taking connections for it.
            std::future::pending::<()>().await;
        }));
        Self { address, asked, released, _end: end.drop_guard() }
    }

    fn asked(&self) -> Vec<(Option<OperationId>, Request)> {
        self.asked.lock().unwrap().clone()
    }

    fn n_resumes(&self) -> usize {
        self.asked().iter().filter(|(_, request)| matches!(request, Request::Resume { .. })).count()
    }

    fn release(&self) {
        self.released.send_replace(true);
    }
}

async fn serve(
    socket: TcpStream,
    react: React,
    asked: Asked,
    mut release: watch::Receiver<bool>,
    hung: CancellationToken,
) {
    let config = tls::control_server_config(&deployment()).unwrap();
    let Ok(stream) = TlsAcceptor::from(Arc::new(config)).accept(socket).await else { return };
    let (read, write) = tokio::io::split(stream);
    let codec = || ControlCodec::<ClientMessage, TrackerMessage>::new(MAX_FRAME_LENGTH);
    let (mut frames, mut sink) = (FramedRead::new(read, codec()), FramedWrite::new(write, codec()));
    while let Some(Ok(message)) = frames.next().await {
        let ClientMessage::Request { id, once, body } = message else {
            let welcome = Welcome { version: 1, time_ms: 1, up_s: 1, address: "127.0.0.1:9".parse().unwrap() };
            sink.send(TrackerMessage::Welcome(welcome)).await.unwrap();
            continue;
        };
        if body == Request::Ping {
            sink.send(TrackerMessage::Response { id, result: Ok(Response::Time(1)) }).await.unwrap();
            continue;
        }
        asked.lock().unwrap().push((once, body.clone()));
        let result = match react(&body) {
            Reaction::Answer(result) => result,
            Reaction::Hold => {
                release.wait_for(|released| *released).await.unwrap();
                Ok(Response::Done)
            }
            Reaction::HangUp => return,
            Reaction::FallSilent => std::future::pending().await,
            Reaction::Hang => {
                hung.cancel();
                std::future::pending().await
            }
        };
        sink.send(TrackerMessage::Response { id, result }).await.unwrap();
    }
}

/// A link that ends when it is dropped, and what it tells.
struct Linked {
    link: Link,
    events: mpsc::Receiver<LinkEvent>,
    _end: DropGuard,
}

fn link_to(addresses: &[SocketAddr], return_interval: Duration) -> Linked {
    let trackers = addresses.iter().map(|address| TrackerAddress {
        host: address.ip().to_string(),
        port: address.port(),
        pin: None,
    });
    let plan = LinkPlan {
        trackers: trackers.collect(),
        identity: Identity::from_seed(&[2; tls::SEED_LENGTH]).unwrap(),
        pin: None,
        peer_id: PeerId([3; 20]),
        listen_port: 9,
        own_ip: std::net::Ipv4Addr::LOCALHOST.into(),
        return_interval,
    };
    let (sender, events) = mpsc::channel(64);
    let end = CancellationToken::new();
    let (link, _) = Link::start(plan, sender, end.clone());
    Linked { link, events, _end: end.drop_guard() }
}

impl Linked {
    async fn event<T>(&mut self, mut look: impl FnMut(LinkEvent) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = look(self.events.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.unwrap()
    }

    async fn wait_connected(&mut self, to: SocketAddr) {
        let to = to.to_string();
        self.event(|event| match event {
            LinkEvent::Connected { tracker, .. } if tracker == to => Some(()),
            _ => None,
        })
        .await;
    }

    /// The trackers that were connected and lost by now, in order.
    fn told(&mut self) -> Vec<(bool, String)> {
        let told = std::iter::from_fn(|| self.events.try_recv().ok()).filter_map(|event| match event {
            LinkEvent::Connected { tracker, .. } => Some((true, tracker)),
            LinkEvent::Lost { tracker } => Some((false, tracker)),
            _ => None,
        });
        told.collect()
    }

    async fn ask(&self, request: Request) -> Result<Response, CommandError> {
        timeout(PATIENCE, self.link.request(request)).await.unwrap()
    }
}

async fn wait_until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap();
}

fn done(_: &Request) -> Reaction {
    Reaction::Answer(Ok(Response::Done))
}

fn hang_up(_: &Request) -> Reaction {
    Reaction::HangUp
}

fn fall_silent(_: &Request) -> Reaction {
    Reaction::FallSilent
}

fn hang(_: &Request) -> Reaction {
    Reaction::Hang
}

fn hold(_: &Request) -> Reaction {
    Reaction::Hold
}

fn signed_in(byte: u8) -> Reaction {
    let (user, token) = ("ann".parse().unwrap(), SessionToken::new([byte; 32]));
    Reaction::Answer(Ok(Response::SignedIn(SignedIn { user, token })))
}

fn without_store() -> Reaction {
    Reaction::Answer(Err(Refusal { code: ErrorCode::StoreUnavailable, message: "no store".into() }))
}

/// Signs in, resumes and does everything.
fn able(request: &Request) -> Reaction {
    match request {
        Request::Login { .. } => signed_in(4),
        Request::Resume { .. } => signed_in(5),
        _ => done(request),
    }
}

/// Has lost its store, but for logins, by which tests begin.
fn unable(request: &Request) -> Reaction {
    match request {
        Request::Login { .. } => signed_in(4),
        _ => without_store(),
    }
}

/// Hangs up at everything but logins.
fn fragile(request: &Request) -> Reaction {
    match request {
        Request::Login { .. } => signed_in(4),
        _ => Reaction::HangUp,
    }
}

fn login() -> Request {
    Request::Login { user: "ann".parse().unwrap(), password: Password::new("12345678".into()), takeover: false }
}

fn create_group() -> Request {
    Request::CreateGroup { group: "g".parse().unwrap() }
}

/// A port whose connections nobody takes: the system says yes, and then nothing comes.
async fn mute() -> (TcpListener, SocketAddr) {
    let listener = any_port().await;
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A port where nobody is, and nobody else comes to be, while the socket is kept.
fn nobody() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn who_has_just_failed_comes_last() {
    assert_eq!(search::order(3, &[]), [0, 1, 2]);
    assert_eq!(search::order(3, &[0]), [1, 2, 0]);
    assert_eq!(search::order(3, &[1, 0]), [2, 1, 0]);
    assert_eq!(search::order(1, &[0]), [0]);
    assert_eq!(search::order(2, &[7]), [0, 1]);
    let mut failed = vec![0, 1];
    search::note_failed(&mut failed, 0);
    assert_eq!(failed, [1, 0]);
}

#[tokio::test]
async fn the_first_tracker_that_answers_is_used() {
    let (first, second) = (FakeTracker::start(done).await, FakeTracker::start(done).await);
    let (_place, absent) = nobody();
    let mut linked = link_to(&[absent, first.address, second.address], RETURN_INTERVAL);
    linked.ask(create_group()).await.unwrap();
    assert_eq!((first.asked().len(), second.asked().len()), (1, 0));
    linked.wait_connected(first.address).await;
}

#[tokio::test]
async fn trackers_that_say_nothing_cost_a_head_start_each() {
    let (mutes, second) = ([mute().await, mute().await], FakeTracker::start(done).await);
    const { assert!(CONNECT_TIMEOUT.as_millis() * 2 > REQUEST_PATIENCE.as_millis(), "both in turn would be too long") };
    let linked = link_to(&[mutes[0].1, mutes[1].1, second.address], RETURN_INTERVAL);
    linked.ask(create_group()).await.unwrap();
}

/// A write whose answer was lost is asked again by the same name, and others have names of their own.
#[tokio::test]
async fn what_was_not_answered_is_asked_of_the_next_tracker() {
    let (first, second) = (FakeTracker::start(hang_up).await, FakeTracker::start(done).await);
    let linked = link_to(&[first.address, second.address], RETURN_INTERVAL);
    let reading = Request::ListGroups { after: None };
    let (written, read) = tokio::join!(linked.ask(create_group()), linked.ask(reading.clone()));
    assert!(written.is_ok() && read.is_ok(), "{written:?} {read:?}");
    let named = first.asked().remove(0);
    assert!(named.0.is_some(), "{named:?}");
    assert!(second.asked().contains(&named), "{:?}", second.asked());
    assert!(second.asked().contains(&(None, reading)), "{:?}", second.asked());
    linked.ask(create_group()).await.unwrap();
    assert_ne!(second.asked().last().unwrap().0, named.0);
}

/// What belongs to the connection is told anew by who knows what is true then.
#[tokio::test]
async fn what_belongs_to_a_connection_ends_with_it() {
    let (first, second) = (FakeTracker::start(hang_up).await, FakeTracker::start(done).await);
    let linked = link_to(&[first.address, second.address], RETURN_INTERVAL);
    let watching = linked.ask(Request::Watch { listing: ListingId(1) }).await;
    assert_eq!(watching.unwrap_err().code, ErrorCode::TrackerUnreachable);
    let (_, connection) = linked.link.request_once(create_group(), None, None).await.unwrap();
    let commit = || Request::CommitListing { upload: UploadId(1) };
    linked.link.request_once(commit(), None, Some(connection)).await.unwrap();
    let other = ConnectionNumber(connection.0 + 1);
    let answer = linked.link.request_once(commit(), None, Some(other)).await;
    assert!(matches!(answer, Err(NoAnswer::ConnectionGone)), "{answer:?}");
    assert_eq!(second.asked().len(), 2);
}

#[tokio::test]
async fn who_brings_down_every_tracker_hears_of_it() {
    let (first, second) = (FakeTracker::start(hang_up).await, FakeTracker::start(hang_up).await);
    let linked = link_to(&[first.address, second.address], RETURN_INTERVAL);
    let answer = linked.ask(create_group()).await;
    assert_eq!(answer.unwrap_err().code, ErrorCode::TrackerUnreachable);
    assert!(first.asked().len() + second.asked().len() <= MAX_TIMES_SENT as usize);
    assert!(!second.asked().is_empty());
}

#[tokio::test]
async fn a_silent_tracker_is_left_while_an_answer_is_due() {
    let (first, second) = (FakeTracker::start(fall_silent).await, FakeTracker::start(done).await);
    let mut linked = link_to(&[first.address, second.address], RETURN_INTERVAL);
    linked.wait_connected(first.address).await;
    linked.ask(create_group()).await.unwrap();
    assert_eq!(first.asked(), second.asked());
}

/// With no other tracker the silent one has its time, and then the asker hears of it: within five seconds in all.
#[tokio::test]
async fn silence_of_all_is_told_in_time() {
    const SILENCE: u128 = PROBE_AFTER.as_millis() + PROBE_TIMEOUT.as_millis();
    const { assert!(SILENCE < REQUEST_PATIENCE.as_millis() && REQUEST_PATIENCE.as_millis() < 5000) };
    let only = FakeTracker::start(hang).await;
    let (_place, absent) = nobody();
    let mut linked = link_to(&[only.address, absent], RETURN_INTERVAL);
    linked.wait_connected(only.address).await;
    let answer = linked.ask(create_group()).await;
    assert_eq!(answer.unwrap_err().code, ErrorCode::TrackerUnreachable);
    assert_eq!(only.asked().len(), 1, "nobody was there to be asked again");
}

/// A tracker that takes up every conversation and then says nothing is not asked for ever.
#[tokio::test]
async fn who_welcomes_and_then_says_nothing_is_left_in_the_end() {
    let only = FakeTracker::start(fall_silent).await;
    let linked = link_to(&[only.address], RETURN_INTERVAL);
    let answer = linked.ask(create_group()).await;
    assert_eq!(answer.unwrap_err().code, ErrorCode::TrackerUnreachable);
    assert!(only.asked().len() <= MAX_TIMES_SENT as usize);
}

#[tokio::test]
async fn the_session_is_taken_up_by_its_newest_token() {
    fn react(request: &Request) -> Reaction {
        match request {
            Request::CreateGroup { .. } => Reaction::HangUp,
            _ => able(request),
        }
    }
    let (first, second) = (FakeTracker::start(react).await, FakeTracker::start(react).await);
    let linked = link_to(&[first.address, second.address], RETURN_INTERVAL);
    linked.ask(login()).await.unwrap();
    // Brings down one connection after the other; each begins with the token that the one before gave.
    assert!(linked.ask(create_group()).await.is_err());
    let asked = [first.asked(), second.asked()].concat();
    let shown = |byte| asked.iter().any(|(_, body)| *body == Request::Resume { token: SessionToken::new([byte; 32]) });
    assert!(shown(4) && shown(5), "{asked:?}");
}

/// The first tracker comes back: it is used again, after several looks, and not while an answer is due.
#[tokio::test]
async fn clients_return_to_the_first_tracker_when_they_are_idle() {
    let ((place, address), second) = (nobody(), FakeTracker::start(hold).await);
    let mut linked = link_to(&[address, second.address], Duration::from_millis(20));
    linked.wait_connected(second.address).await;
    let asking = tokio::spawn({
        let link = linked.link.clone();
        async move { link.request(create_group()).await }
    });
    let first = FakeTracker::on(place.listen(16).unwrap(), done);
    wait_until(|| !second.asked().is_empty()).await;
    // Many looks long nothing happens.
    let moved = timeout(Duration::from_millis(500), linked.wait_connected(address)).await;
    assert!(moved.is_err(), "it moved while an answer was due");
    second.release();
    asking.await.unwrap().unwrap();
    let lost = linked.event(|event| match event {
        LinkEvent::Connected { .. } => Some(false),
        LinkEvent::Lost { .. } => Some(true),
        _ => None,
    });
    assert!(!lost.await, "a return is no loss");
    linked.ask(create_group()).await.unwrap();
    assert_eq!((first.asked().len(), second.asked().len()), (1, 1));
}

/// It is not told of as connected either, and what waits is asked of the tracker behind it in time.
#[tokio::test]
async fn a_tracker_that_does_not_take_the_session_up_is_left_for_the_next_one() {
    let silent = FakeTracker::start(fall_silent).await;
    let [first, refusing, last] =
        [FakeTracker::start(fragile).await, FakeTracker::start(unable).await, FakeTracker::start(able).await];
    let addresses = [first.address, silent.address, refusing.address, last.address];
    let mut linked = link_to(&addresses, RETURN_INTERVAL);
    linked.ask(login()).await.unwrap();
    linked.ask(create_group()).await.unwrap();
    let [first_name, last_name] = [first.address, last.address].map(|address| address.to_string());
    assert_eq!(linked.told(), [(true, first_name.clone()), (false, first_name), (true, last_name)]);
    assert_eq!((silent.asked().len(), refusing.asked().len()), (1, 1));
}

#[tokio::test]
async fn who_waits_hears_what_the_trackers_say_of_themselves() {
    fn react(request: &Request) -> Reaction {
        if matches!(request, Request::CreateGroup { .. }) { Reaction::HangUp } else { unable(request) }
    }
    let (first, second) = (FakeTracker::start(react).await, FakeTracker::start(react).await);
    let linked = link_to(&[first.address, second.address], RETURN_INTERVAL);
    linked.ask(login()).await.unwrap();
    assert_eq!(linked.ask(create_group()).await.unwrap_err().code, ErrorCode::StoreUnavailable);
    assert!(first.n_resumes() > 0 && second.n_resumes() > 0);
    drop((first, second));
    let answer = linked.ask(create_group()).await;
    assert_eq!(answer.unwrap_err().code, ErrorCode::TrackerUnreachable);
}

#[tokio::test]
async fn a_tracker_that_cannot_do_its_work_is_left_for_one_that_takes_the_session_up() {
    let [first, second, third] =
        [FakeTracker::start(unable).await, FakeTracker::start(unable).await, FakeTracker::start(able).await];
    let mut linked = link_to(&[first.address, second.address, third.address], RETURN_INTERVAL);
    linked.ask(login()).await.unwrap();
    let moved = async {
        while third.n_resumes() == 0 {
            let answer = linked.ask(create_group()).await;
            assert!(answer.is_ok() || answer.unwrap_err().code == ErrorCode::StoreUnavailable);
        }
    };
    timeout(PATIENCE, moved).await.unwrap();
    linked.wait_connected(third.address).await;
    linked.ask(create_group()).await.unwrap();
    assert_eq!(linked.told(), []);
    assert_eq!(second.n_resumes(), 1);
}

#[tokio::test]
async fn nobody_moves_while_no_tracker_can_do_its_work() {
    let (first, second) = (FakeTracker::start(unable).await, FakeTracker::start(unable).await);
    let mut linked = link_to(&[first.address, second.address], RETURN_INTERVAL);
    linked.ask(login()).await.unwrap();
    assert_eq!(linked.ask(create_group()).await.unwrap_err().code, ErrorCode::StoreUnavailable);
    wait_until(|| second.n_resumes() == 1).await;
    assert_eq!(linked.ask(create_group()).await.unwrap_err().code, ErrorCode::StoreUnavailable);
    assert_eq!(linked.told(), [(true, first.address.to_string())]);
    assert_eq!((first.asked().len(), second.asked().len()), (3, 1));
}

#[tokio::test]
async fn nobody_returns_to_a_tracker_that_does_not_take_the_session_up() {
    let ((place, address), second) = (nobody(), FakeTracker::start(able).await);
    let mut linked = link_to(&[address, second.address], Duration::from_millis(20));
    linked.ask(login()).await.unwrap();
    let first = FakeTracker::on(place.listen(16).unwrap(), unable);
    wait_until(|| first.n_resumes() >= 2).await;
    linked.ask(create_group()).await.unwrap();
    assert_eq!(linked.told(), [(true, second.address.to_string())]);
    assert_eq!(second.asked().len(), 2);
}
