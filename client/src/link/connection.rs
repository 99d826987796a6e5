//! One control connection from the first packet to the tracker's welcome.

use futures_util::{SinkExt, StreamExt};
use mini_torrent_common::control::{
    ClientMessage, ControlCodec, FrameError, Hello, MAX_FRAME_LENGTH, MAX_VERSION, MIN_VERSION, TrackerMessage, Welcome,
};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::tls::{self, Fingerprint, PublicKey};
use mini_torrent_common::tracker_info::TrackerAddress;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::codec::{FramedRead, FramedWrite};

use super::LinkPlan;
use crate::admission::Moment;
use crate::error::CommandError;
use crate::peer;

type Codec = ControlCodec<TrackerMessage, ClientMessage>;
pub(super) type Frames = FramedRead<ReadHalf<TlsStream<TcpStream>>, Codec>;
pub(super) type Sink = FramedWrite<WriteHalf<TlsStream<TcpStream>>, Codec>;

/// A connection whose tracker has proved the deployment's key and said welcome.
pub(super) struct ControlConnection {
    pub(super) frames: Frames,
    pub(super) sink: Sink,
    pub(super) remote: SocketAddr,
    pub(super) deployment: PublicKey,
    /// The tracker's clock when it said welcome, in milliseconds since the Unix epoch.
    pub(super) time_ms: u64,
    pub(super) heard: Moment,
    /// How long the tracker had been up then.
    pub(super) up: Duration,
}

/// Connects to one tracker. Nothing but the TLS handshake is sent before its key matches `pin`.
pub(super) async fn connect(
    plan: &LinkPlan,
    tracker: &TrackerAddress,
    pin: Option<Fingerprint>,
) -> Result<ControlConnection, CommandError> {
    let unreachable = |error: &dyn std::fmt::Display| {
        CommandError::new(ErrorCode::TrackerUnreachable, format!("tracker {tracker} does not answer: {error}"))
    };
    let remote = resolve(tracker).await.map_err(|error| unreachable(&error))?;
    let stream = peer::connect(remote, plan.own_ip).await.map_err(|error| unreachable(&error))?;
    stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
    let config = tls::control_client_config(&plan.identity, pin).map_err(|error| unreachable(&error))?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(tls::unnamed_server(), stream).await;
    let stream = handshake.map_err(|error| match is_key_mismatch(&error) {
        true => key_changed(tracker, pin),
        false => unreachable(&error),
    })?;
    let key = tls::peer_key(stream.get_ref().1).ok_or_else(|| unreachable(&"it proved no key"))?;
    let (read_half, write_half) = tokio::io::split(stream);
    let mut frames = FramedRead::new(read_half, Codec::new(MAX_FRAME_LENGTH));
    let mut sink = FramedWrite::new(write_half, Codec::new(MAX_FRAME_LENGTH));
    let hello = Hello {
        min_version: MIN_VERSION,
        max_version: MAX_VERSION,
        agent: crate::AGENT.to_owned(),
        peer_id: plan.peer_id,
        listen_port: plan.listen_port,
    };
    sink.send(ClientMessage::Hello(hello)).await.map_err(|error| unreachable(&error))?;
    match next(&mut frames).await.map_err(|error| unreachable(&error))? {
        TrackerMessage::Welcome(Welcome { time_ms, up_s, .. }) => {
            let (up, heard) = (Duration::from_secs(up_s), Moment::now());
            Ok(ControlConnection { frames, sink, remote, deployment: key, time_ms, up, heard })
        }
        TrackerMessage::Goodbye(refusal) => Err(refusal.into()),
        _ => Err(unreachable(&"it does not say welcome")),
    }
}

/// The next message; the end of the stream is an error.
pub(super) async fn next(frames: &mut Frames) -> Result<TrackerMessage, FrameError> {
    frames.next().await.unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()))
}

async fn resolve(tracker: &TrackerAddress) -> io::Result<SocketAddr> {
    let mut found = tokio::net::lookup_host((tracker.host.as_str(), tracker.port)).await?;
    found.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
}

fn is_key_mismatch(error: &io::Error) -> bool {
    let tls_error = error.get_ref().and_then(|inner| inner.downcast_ref());
    tls_error.is_some_and(tls::is_key_mismatch)
}

fn key_changed(tracker: &TrackerAddress, pin: Option<Fingerprint>) -> CommandError {
    let expected = pin.map_or_else(String::new, |pin| format!(" ({pin})"));
    let text = format!(
        "tracker {tracker} has another key than the one that was trusted{expected}; if its operator says that the key \
         was changed, put the new one behind the address in tracker_info.txt as sha256:…"
    );
    CommandError::new(ErrorCode::TrackerKeyChanged, text)
}
