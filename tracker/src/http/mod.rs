//! Plain HTTP/1.1 for ordinary BitTorrent clients (BEP 3, 7, 23, 48), and for who watches over the tracker.
//!
//! A loop of its own over httparse: requests may come pipelined, and what was answered goes out in one write. Nothing
//! but announce and scrape is worth a framework here, and nothing here reads a body.

mod answer;
mod request;

use crate::limits;
use crate::service::Service;
use answer::Answerer;
use bytes::{Buf, BytesMut};
use request::Parsed;
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Room for the head of a usual announce; it grows when that is not enough.
const FIRST_READ_LENGTH: usize = 1024;

/// Whether a connection that begins with this byte may be HTTP: the first letter of a method (RFC 9110).
pub(crate) fn may_begin_with(first_byte: u8) -> bool {
    matches!(first_byte, b'G' | b'H' | b'P' | b'D' | b'O' | b'C' | b'T')
}

/// Serves a client until it goes, falls silent or misbehaves.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, source: IpAddr, service: &Service) {
    let input = BytesMut::with_capacity(FIRST_READ_LENGTH);
    let mut connection =
        Connection { stream, input, out: Vec::new(), answerer: Answerer::new(service, source), service };
    if connection.run().await.is_some() {
        connection.linger().await;
    }
}

struct Connection<'a, S> {
    stream: S,
    input: BytesMut,
    /// Answers that are not written yet.
    out: Vec<u8>,
    answerer: Answerer<'a>,
    service: &'a Service,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    /// `Some` when we end the connection and the client may still be sending, `None` when it is gone.
    async fn run(&mut self) -> Option<()> {
        let clock = self.service.clock();
        let mut began = clock.now();
        loop {
            let n_before = self.input.len();
            let closes = self.answer_all().await?;
            self.flush().await?;
            if closes {
                return Some(());
            }
            let now = clock.now();
            if self.input.is_empty() || self.input.len() < n_before {
                began = now;
            }
            let limit = match self.input.is_empty() {
                true => limits::HTTP_IDLE,
                false => limits::HTTP_HEAD_DEADLINE.saturating_sub(now.since(began)),
            };
            let was_empty = self.input.is_empty();
            self.read(limit).await?;
            if was_empty {
                began = clock.now();
            }
        }
    }

    async fn read(&mut self, limit: Duration) -> Option<()> {
        if self.input.len() == self.input.capacity() {
            self.input.reserve(FIRST_READ_LENGTH);
        }
        let read = self.service.clock().within(limit, self.stream.read_buf(&mut self.input)).await;
        read?.ok().filter(|n| *n > 0).map(|_| ())
    }

    /// Answers the requests that have arrived whole; whether the connection ends with the last one.
    async fn answer_all(&mut self) -> Option<bool> {
        loop {
            // As soon as so much waits: who sends many requests has to read the answers.
            if self.out.len() >= limits::MAX_HTTP_BATCH {
                self.flush().await?;
            }
            let length = match request::parse(&self.input) {
                Parsed::Partial => return Some(false),
                Parsed::Bad(status) => {
                    self.answerer.refuse(status, &mut self.out);
                    return Some(true);
                }
                Parsed::Whole(request, length) => {
                    let is_kept = match request.target.is_health() {
                        true => {
                            let is_well = self.service.is_well().await;
                            self.answerer.health(&request, is_well, &mut self.out)
                        }
                        false => {
                            self.service.catch_up().await;
                            self.answerer.answer(&request, &mut self.out)
                        }
                    };
                    if !is_kept {
                        return Some(true);
                    }
                    length
                }
            };
            self.input.advance(length);
        }
    }

    async fn flush(&mut self) -> Option<()> {
        if self.out.is_empty() {
            return Some(());
        }
        let written = self.service.clock().within(limits::HTTP_WRITE_DEADLINE, self.stream.write_all(&self.out)).await;
        self.out.clear();
        self.out.shrink_to(limits::MAX_HTTP_BATCH);
        written?.ok()
    }

    /// Reads on for a moment after the last answer. Bytes that nobody has read would make the system reset the
    /// connection, and the client would lose the answer.
    async fn linger(&mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let rest = async {
            let mut n_left = limits::MAX_HTTP_LINGER_LENGTH;
            self.input.clear();
            self.input.reserve(FIRST_READ_LENGTH);
            while let Ok(n @ 1..) = self.stream.read_buf(&mut self.input).await
                && n_left > n
            {
                n_left -= n;
                self.input.clear();
            }
        };
        self.service.clock().within(limits::HTTP_LINGER, rest).await;
    }
}

#[cfg(test)]
mod tests;
