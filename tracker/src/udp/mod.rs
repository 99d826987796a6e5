//! Announces and scrapes over UDP (BEP 15, 41), on a thread of their own that waits in the system for whole batches of
//! packets: one call receives up to 64, one sends their answers.

mod answer;
mod batch;
mod connection_id;

use crate::limits;
use crate::service::Service;
use answer::Answerer;
use batch::Batch;
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Answers packets until `shutdown`. It blocks, so it belongs on a thread of the runtime that may.
pub(crate) fn serve(service: Arc<Service>, socket: &UdpSocket, shutdown: &CancellationToken) {
    // The system may grant less; then more is lost when many come at once.
    let _ = setsockopt(socket, sockopt::RcvBuf, &limits::UDP_BUFFER_LENGTH);
    let _ = setsockopt(socket, sockopt::SndBuf, &limits::UDP_BUFFER_LENGTH);
    let is_ready = socket.set_nonblocking(false).and_then(|()| socket.set_read_timeout(Some(limits::UDP_WAIT)));
    if let Err(error) = is_ready {
        return tracing::error!(%error, "there is no UDP");
    }
    let runtime = Handle::current();
    let (mut answerer, mut batch) = (Answerer::new(Arc::clone(&service)), Batch::new());
    while !shutdown.is_cancelled() {
        let catch_up = || runtime.block_on(service.catch_up());
        match batch.turn(socket, catch_up, |packet, source, out| answerer.answer(packet, source, out)) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            // A client that is gone may be reported here; it is nobody else's trouble.
            Err(error) => tracing::debug!(%error, "UDP packets could not be received"),
        }
    }
}

#[cfg(test)]
mod tests;
