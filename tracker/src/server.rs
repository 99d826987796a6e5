//! The listening port: accepts, tells protocols apart, and hands connections over.

use crate::admission::{Admission, Ticket};
use crate::connection::{self, Greeted, Surroundings};
use crate::http;
use crate::limits;
use crate::port::Port;
use crate::presence::ConnectionId;
use crate::service::Service;
use crate::udp;
use mini_torrent_common::address;
use mini_torrent_common::control;
use mini_torrent_common::tls;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The first byte of a TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long accepting pauses when it failed, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Everything that accepted connections share.
struct Server {
    service: Arc<Service>,
    tls: TlsAcceptor,
    tasks: TaskTracker,
}

/// Another process has begun as this tracker.
#[derive(Debug)]
pub(crate) struct Replaced;

/// Serves until `shutdown`, telling of the revocations behind `last_revocation`; then closes every connection
/// and waits for what was begun.
///
/// # Errors
/// [`Replaced`], which cancels `shutdown`.
pub(crate) async fn serve(
    service: Arc<Service>,
    tls: Arc<rustls::ServerConfig>,
    last_revocation: u64,
    port: Port,
    shutdown: CancellationToken,
) -> Result<(), Replaced> {
    let admission = Admission::new(connection_limit());
    let tasks = TaskTracker::new();
    tasks.spawn(keep_leases(Arc::clone(&service), shutdown.clone()));
    tasks.spawn(keep_sessions(Arc::clone(&service), shutdown.clone()));
    let (following, until) = (Arc::clone(&service), shutdown.clone());
    tasks.spawn(async move { until.run_until_cancelled(following.follow_revocations(last_revocation)).await });
    tasks.spawn(keep_ordinary_clients(Arc::clone(&service), shutdown.clone()));
    let company = tasks.spawn(keep_company(Arc::clone(&service), shutdown.clone()));
    let Port { tcp: listener, udp: socket } = port;
    let (answering, until) = (Arc::clone(&service), shutdown.clone());
    tasks.spawn_blocking(move || udp::serve(answering, &socket, &until));
    let server = Arc::new(Server { service, tls: TlsAcceptor::from(tls), tasks: tasks.clone() });
    let mut n_accepted = 0;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, source) = match accepted {
            Ok((stream, source)) => (stream, source.ip().to_canonical()),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        n_accepted += 1;
        let (id, close) = (ConnectionId(n_accepted), shutdown.child_token());
        if let Some(ticket) = admission.admit(id, address::block_of(source), close.clone()) {
            tasks.spawn(Arc::clone(&server).attend(stream, source, id, close, ticket));
        }
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(limits::SHUTDOWN_GRACE, tasks.wait()).await.is_err() {
        tracing::warn!("some requests were still running at the end");
    }
    if company.is_finished() { company.await.unwrap_or(Ok(())) } else { Ok(()) }
}

/// What the first byte of a connection announces.
enum Protocol {
    /// TLS, with its ALPN to choose between the control connection and whatever else comes.
    Tls,
    /// Plain HTTP.
    Http,
}

impl Protocol {
    fn of(first_byte: u8) -> Option<Self> {
        match first_byte {
            TLS_HANDSHAKE => Some(Self::Tls),
            first if http::may_begin_with(first) => Some(Self::Http),
            _ => None,
        }
    }
}

/// A connection that has shown what it wants.
enum Arrived {
    Control(Box<Greeted<TlsStream<TcpStream>>>),
    Http(TcpStream),
}

impl Server {
    async fn attend(
        self: Arc<Self>,
        stream: TcpStream,
        source: IpAddr,
        id: ConnectionId,
        close: CancellationToken,
        ticket: Ticket,
    ) {
        let _open = Open::new(&self.service);
        let clock = self.service.clock();
        let arriving = clock.within(limits::HELLO_DEADLINE, self.arrive(stream, source, id));
        let arrived = tokio::select! {
            () = close.cancelled() => None,
            arrived = arriving => arrived.flatten(),
        };
        match arrived {
            None => {}
            // Without a user, it is the first to make room for others; its place is given back at its end.
            Some(Arrived::Http(stream)) => {
                close.run_until_cancelled(Box::pin(http::serve(stream, source, &self.service))).await;
                drop(ticket);
            }
            Some(Arrived::Control(greeted)) => {
                let (service, tasks) = (Arc::clone(&self.service), self.tasks.clone());
                // Boxed, so that a connection which never gets here does not have the room for it.
                Box::pin(connection::serve(*greeted, Surroundings { service, tasks, close, ticket, id })).await;
            }
        }
    }

    async fn arrive(&self, stream: TcpStream, source: IpAddr, id: ConnectionId) -> Option<Arrived> {
        // Small answers should not wait for more to come.
        let _ = stream.set_nodelay(true);
        let mut first = [0];
        if stream.peek(&mut first).await.ok()? == 0 {
            return None;
        }
        match Protocol::of(first[0])? {
            Protocol::Tls => Some(Arrived::Control(Box::new(self.greet(stream, source, id).await?))),
            Protocol::Http => Some(Arrived::Http(stream)),
        }
    }

    async fn greet(
        &self,
        stream: TcpStream,
        source: IpAddr,
        id: ConnectionId,
    ) -> Option<Greeted<TlsStream<TcpStream>>> {
        let stream = match self.tls.accept(stream).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%source, %error, "no TLS came about");
                return None;
            }
        };
        let session = stream.get_ref().1;
        // Without ALPN rustls lets a client through; here it has to say what it wants.
        if session.alpn_protocol() != Some(control::ALPN) {
            return None;
        }
        let key = tls::peer_key(session)?;
        let greeted = connection::greet(stream, id, key, source, &self.service).await;
        greeted.inspect_err(|error| tracing::debug!(%source, %error, "no Hello came")).ok()?
    }
}

/// Counts a connection while it is open.
struct Open<'a>(&'a Service);

impl<'a> Open<'a> {
    fn new(service: &'a Service) -> Self {
        service.metrics().connections.add();
        service.metrics().connections_open.add();
        Self(service)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.metrics().connections_open.take_away();
    }
}

/// Everything about ordinary clients that happens by itself.
async fn keep_ordinary_clients(service: Arc<Service>, shutdown: CancellationToken) {
    let sweeping = async {
        loop {
            service.clock().sleep(limits::LEASE_TICK).await;
            service.sweep_announces();
        }
    };
    let all = async { tokio::join!(sweeping, service.suspend_keys(), service.follow_keys(), service.keep_key_use()) };
    shutdown.run_until_cancelled(all).await;
}

/// Keeps step with the other trackers. When another process has taken this one's number, this one ends.
async fn keep_company(service: Arc<Service>, shutdown: CancellationToken) -> Result<(), Replaced> {
    if shutdown.run_until_cancelled(service.follow_other_trackers()).await.is_none() {
        return Ok(());
    }
    tracing::error!("another mini-tracker with the same number has been started on this store; this one ends");
    shutdown.cancel();
    Err(Replaced)
}

async fn keep_leases(service: Arc<Service>, shutdown: CancellationToken) {
    let ticks = async {
        loop {
            service.clock().sleep(limits::LEASE_TICK).await;
            service.presence().tick();
        }
    };
    shutdown.run_until_cancelled(ticks).await;
}

async fn keep_sessions(service: Arc<Service>, shutdown: CancellationToken) {
    let upkeep = async {
        loop {
            if let Err(error) = service.keep_sessions().await {
                tracing::warn!(%error, "sessions could not be looked after");
            }
            service.clock().sleep(limits::SESSION_UPKEEP).await;
        }
    };
    shutdown.run_until_cancelled(upkeep).await;
}

/// Raises the soft file limit to the hard one and keeps the connections below it.
fn connection_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let n_files = if raised.is_ok() { maximum } else { current };
    let n_files = n_files.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    n_files.saturating_sub(limits::RESERVED_FILES).clamp(1, limits::MAX_CONNECTIONS)
}
