//! One control connection, from the finished TLS handshake to its end.
//!
//! The socket's reader and writer are two joined futures. What only reads is answered concurrently; what
//! changes something is answered in order of arrival, on a task of its own that finishes what it has begun
//! even when the client is gone, so that the memory follows the store.

mod codec;
mod requests;

use crate::admission::Ticket;
use crate::clock::Clock;
use crate::limits;
use crate::presence::{Client, ConnectionId, Line};
use crate::service::{Service, Uploads, Visitor};
use codec::GatedCodec;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use mini_torrent_common::control::{
    ClientMessage, Event, FrameError, Hello, MAX_AGENT_LENGTH, MAX_VERSION, MIN_VERSION, Refusal, Request, Response,
    TrackerMessage, Welcome,
};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::escape::Escaped;
use mini_torrent_common::hash::OperationId;
use mini_torrent_common::tls::PublicKey;
use requests::Lane;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio_util::codec::{FramedRead, FramedWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

type Reader<S> = FramedRead<ReadHalf<S>, GatedCodec>;
type Writer<S> = FramedWrite<WriteHalf<S>, GatedCodec>;

/// What a connection is given by the server.
pub(crate) struct Surroundings {
    /// The use cases.
    pub service: Arc<Service>,
    /// Where tasks run that a shutdown waits for.
    pub tasks: TaskTracker,
    /// Ends this connection.
    pub close: CancellationToken,
    /// The place among all connections.
    pub ticket: Ticket,
    /// The connection's number.
    pub id: ConnectionId,
}

/// A connection whose client has said `Hello`.
pub(crate) struct Greeted<S> {
    reader: Reader<S>,
    writer: Writer<S>,
    gate: Arc<AtomicBool>,
    visitor: Visitor,
}

/// Waits for `Hello` and answers it. `None` when the connection cannot go on.
///
/// # Errors
/// When the socket fails or the first frame is no message.
pub(crate) async fn greet<S: AsyncRead + AsyncWrite>(
    stream: S,
    id: ConnectionId,
    key: PublicKey,
    source: IpAddr,
    service: &Service,
) -> Result<Option<Greeted<S>>, FrameError> {
    let gate = Arc::new(AtomicBool::new(false));
    let (read, write) = tokio::io::split(stream);
    let mut reader = FramedRead::new(read, GatedCodec::new(Arc::clone(&gate)));
    let mut writer = FramedWrite::new(write, GatedCodec::new(Arc::clone(&gate)));
    let hello = match reader.next().await.transpose() {
        Ok(Some(ClientMessage::Hello(hello))) => check_hello(hello),
        Ok(Some(ClientMessage::Request { .. })) | Err(FrameError::Malformed(_)) => {
            Err(Refusal::new(ErrorCode::IncompatibleVersion, "the first message is not a Hello of this protocol"))
        }
        Ok(None) => return Ok(None),
        Err(error) => return Err(error),
    };
    let hello = match hello {
        Ok(hello) => hello,
        Err(refusal) => {
            writer.send(TrackerMessage::Goodbye(refusal)).await?;
            writer.close().await?;
            return Ok(None);
        }
    };
    let address = SocketAddr::new(source, hello.listen_port);
    let version = hello.max_version.min(MAX_VERSION);
    let (time_ms, up_s) = (service.clock().wall_ms(), service.uptime_s());
    writer.send(TrackerMessage::Welcome(Welcome { version, time_ms, up_s, address })).await?;
    let client = Client { key, address, peer_id: hello.peer_id, agent: hello.agent };
    Ok(Some(Greeted { reader, writer, gate, visitor: Visitor { connection: id, client, source } }))
}

fn check_hello(hello: Hello) -> Result<Hello, Refusal> {
    if hello.min_version > MAX_VERSION || hello.max_version < MIN_VERSION || hello.min_version > hello.max_version {
        let text = format!("this tracker speaks versions {MIN_VERSION} to {MAX_VERSION} of the protocol");
        return Err(Refusal::new(ErrorCode::IncompatibleVersion, text));
    }
    if hello.agent.len() > MAX_AGENT_LENGTH {
        return Err(Refusal::new(ErrorCode::Usage, "the client's name is too long"));
    }
    if hello.listen_port == 0 {
        return Err(Refusal::new(ErrorCode::Usage, "the listening port cannot be 0"));
    }
    Ok(hello)
}

/// Serves a client until it goes, falls silent, misbehaves or is told to go.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Send + 'static>(greeted: Greeted<S>, surroundings: Surroundings) {
    let Greeted { reader, writer, gate, visitor } = greeted;
    let Surroundings { service, tasks, close, ticket, id } = surroundings;
    let (events, events_out) = mpsc::channel(limits::MAX_QUEUED_EVENTS);
    let (responses, responses_out) = mpsc::channel(limits::MAX_QUEUED_RESPONSES);
    let (ordered, ordered_out) = mpsc::channel(limits::MAX_QUEUED_REQUESTS);
    let (reads, reads_out) = mpsc::channel(limits::MAX_QUEUED_REQUESTS);
    let (gathered, gathered_out) = mpsc::channel(limits::MAX_QUEUED_GATHERED_EVENTS);
    let place = Arc::new(ticket);
    let line = Line {
        events,
        changed: Arc::new(Notify::new()),
        silence: Arc::new(AtomicU32::new(0)),
        close: close.clone(),
        gate,
        place: Arc::clone(&place),
    };
    let (silence, changed) = (Arc::clone(&line.silence), Arc::clone(&line.changed));
    service.presence().connect(id, visitor.client.clone(), line);
    let _registered = Registered { service: Arc::clone(&service), id, close: close.clone() };
    tracing::debug!(address = %visitor.client.address, agent = %Escaped(&visitor.client.agent), "connected");

    let in_order = InOrder { service: Arc::clone(&service), visitor, close: close.clone(), _place: place };
    tasks.spawn(in_order.run(ordered_out, responses.clone()));
    let queues = Queues { ordered, reads, responses: responses.clone() };
    tokio::select! {
        () = close.cancelled() => {}
        () = read_messages(reader, queues, silence, service.clock()) => {}
        () = write_messages(writer, responses_out, events_out, gathered_out) => {}
        () = answer_reads(&service, id, reads_out, responses) => {}
        () = gather_events(&service, id, &changed, gathered) => {}
    }
}

/// Takes the connection out of the memory, however its task ends.
struct Registered {
    service: Arc<Service>,
    id: ConnectionId,
    close: CancellationToken,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.close.cancel();
        self.service.presence().disconnect(self.id);
    }
}

/// A request's number, its name if it has one, and itself.
type Asked = (u32, Option<OperationId>, Request);

struct Queues {
    ordered: mpsc::Sender<Asked>,
    reads: mpsc::Sender<Asked>,
    responses: mpsc::Sender<TrackerMessage>,
}

/// Sorts requests into their lanes. Returns when the client has gone.
async fn read_messages<S: AsyncRead>(mut reader: Reader<S>, queues: Queues, silence: Arc<AtomicU32>, clock: &Clock)
where
    ReadHalf<S>: AsyncRead + Unpin,
{
    loop {
        let message = reader.next().await;
        silence.store(0, Ordering::Relaxed);
        let sent = match message {
            None | Some(Err(FrameError::Io(_))) => return,
            Some(Ok(ClientMessage::Request { id, once, body })) => match requests::lane(&body) {
                Lane::Immediate => {
                    let pong = TrackerMessage::Response { id, result: Ok(Response::Time(clock.wall_ms())) };
                    queues.responses.send(pong).await.is_ok()
                }
                Lane::Concurrent => queues.reads.send((id, once, body)).await.is_ok(),
                Lane::Ordered => queues.ordered.send((id, once, body)).await.is_ok(),
            },
            Some(Ok(ClientMessage::Hello(_))) => return say_goodbye(&queues, "a second Hello").await,
            Some(Err(error)) => return say_goodbye(&queues, &error.to_string()).await,
        };
        if !sent {
            return;
        }
    }
}

/// Leaves the end to the writer, which closes after a goodbye; the lease ends a client that does not read it.
async fn say_goodbye(queues: &Queues, problem: &str) {
    tracing::debug!(problem, "a client broke the protocol");
    let goodbye = TrackerMessage::Goodbye(Refusal::new(ErrorCode::Usage, problem));
    if queues.responses.send(goodbye).await.is_ok() {
        std::future::pending().await
    }
}

/// Writes what the others queue; answers go before events, so that a watch is answered before its changes.
async fn write_messages<S: AsyncWrite>(
    mut writer: Writer<S>,
    mut responses: mpsc::Receiver<TrackerMessage>,
    mut events: mpsc::Receiver<Event>,
    mut gathered: mpsc::Receiver<Event>,
) where
    WriteHalf<S>: AsyncWrite + Unpin,
{
    loop {
        let message = tokio::select! {
            biased;
            Some(response) = responses.recv() => response,
            Some(event) = events.recv() => TrackerMessage::Event(event),
            Some(event) = gathered.recv() => TrackerMessage::Event(event),
            else => return,
        };
        let is_last = matches!(message, TrackerMessage::Goodbye(_));
        if is_last {
            // A session may just have ended: the client hears why.
            while let Ok(event) = events.try_recv() {
                if writer.feed(TrackerMessage::Event(event)).await.is_err() {
                    return;
                }
            }
        }
        // Several small messages share a TLS record; the last one of a batch flushes.
        let flush = is_last || (responses.is_empty() && events.is_empty() && gathered.is_empty());
        let written = if flush { writer.send(message).await } else { writer.feed(message).await };
        if let Err(error) = written {
            tracing::debug!(%error, "a client cannot be written to");
            return;
        }
        if is_last {
            let _ = writer.close().await;
            return;
        }
    }
}

/// Answers what only reads, several at a time.
async fn answer_reads(
    service: &Service,
    id: ConnectionId,
    mut asked: mpsc::Receiver<Asked>,
    responses: mpsc::Sender<TrackerMessage>,
) {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some((request, _, body)) = asked.recv(), if running.len() < limits::MAX_CONCURRENT_READS => {
                let responses = &responses;
                running.push(async move {
                    let result = requests::read(service, id, body).await.map_err(Refusal::from);
                    responses.send(TrackerMessage::Response { id: request, result }).await
                });
            }
            Some(answered) = running.next() => {
                if answered.is_err() {
                    return;
                }
            }
            else => return,
        }
    }
}

/// Revocations and swarm changes are gathered for a moment. They go out as one event, and one event a swarm.
async fn gather_events(service: &Service, id: ConnectionId, changed: &Notify, out: mpsc::Sender<Event>) {
    loop {
        changed.notified().await;
        tokio::time::sleep(limits::GATHERING_DELAY).await;
        // Not taken together: while a slow client's queue is full, what matters more may come in.
        if let Some(event) = service.presence().take_revocations(id)
            && out.send(event).await.is_err()
        {
            return;
        }
        let stock_events = service.take_stock_events(id);
        for event in service.presence().take_peer_events(id).into_iter().chain(stock_events) {
            if out.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// What changes something, one after the other.
struct InOrder {
    service: Arc<Service>,
    visitor: Visitor,
    close: CancellationToken,
    /// Held until what was begun is finished.
    _place: Arc<Ticket>,
}

impl InOrder {
    async fn run(self, mut asked: mpsc::Receiver<Asked>, responses: mpsc::Sender<TrackerMessage>) {
        let mut uploads = Uploads::default();
        while let Some((id, once, body)) = asked.recv().await {
            if self.close.is_cancelled() {
                return;
            }
            let result = requests::change(&self.service, &self.visitor, &mut uploads, once, body).await;
            let answer = TrackerMessage::Response { id, result: result.map_err(Refusal::from) };
            if responses.send(answer).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
