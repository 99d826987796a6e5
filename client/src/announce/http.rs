//! One GET request to a tracker over HTTP/1.1. It follows no redirect, takes no compressed answer, and reads a bounded
//! number of bytes in a bounded time.

use mini_torrent_common::announce::MAX_ANSWER_LENGTH;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::peer::connect;

/// How long the whole exchange may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest head of an answer in bytes.
const MAX_HEAD_LENGTH: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// Longest line that begins a chunk.
const MAX_CHUNK_LINE_LENGTH: usize = 256;

/// Why a tracker gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it takes too long")]
    TimedOut,
    #[error("it does not speak HTTP")]
    NotHttp,
    #[error("it redirects, which is not followed")]
    Redirect,
    #[error("it answers with HTTP status {0}")]
    Status(u16),
    #[error("its answer is too long")]
    TooLong,
    #[error("its answer is encoded in a way that was not asked for")]
    Encoding,
}

/// What the head of an answer says of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Known(usize),
    Chunked,
    UntilEnd,
}

/// Asks, and returns the body of the answer. A status of an error counts only without a body that says why.
pub(super) async fn get(remote: SocketAddr, own_ip: IpAddr, host: &str, target: &str) -> Result<Vec<u8>, HttpError> {
    let exchange = async {
        let mut stream = connect(remote, own_ip).await?;
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {}\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n",
            crate::AGENT.replace(' ', "/")
        );
        stream.write_all(request.as_bytes()).await?;
        read_answer(&mut stream).await
    };
    timeout(PATIENCE, exchange).await.map_err(|_| HttpError::TimedOut)?
}

async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, HttpError> {
    let mut buffer = Vec::new();
    let (status, length, head_length) = loop {
        if let Some(head) = parse_head(&buffer)? {
            break head;
        }
        if buffer.len() >= MAX_HEAD_LENGTH {
            return Err(HttpError::TooLong);
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(HttpError::NotHttp);
        }
    };
    if (300..400).contains(&status) {
        return Err(HttpError::Redirect);
    }
    let begun = buffer.split_off(head_length);
    let body = match length {
        Length::Known(length) if length > MAX_ANSWER_LENGTH => return Err(HttpError::TooLong),
        Length::Known(length) => read_known(stream, begun, length).await?,
        Length::UntilEnd => read_until_end(stream, begun).await?,
        Length::Chunked => read_chunks(stream, begun).await?,
    };
    let says_why = body.first() == Some(&b'd');
    if status == 200 || says_why { Ok(body) } else { Err(HttpError::Status(status)) }
}

/// Status, the body's length, and the head's own length; nothing while it is not all there.
fn parse_head(bytes: &[u8]) -> Result<Option<(u16, Length, usize)>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let head_length = match response.parse(bytes).map_err(|_| HttpError::NotHttp)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.ok_or(HttpError::NotHttp)?;
    let mut length = Length::UntilEnd;
    for header in response.headers.iter() {
        let value = std::str::from_utf8(header.value).map_err(|_| HttpError::NotHttp)?.trim();
        if header.name.eq_ignore_ascii_case("content-encoding") && !value.eq_ignore_ascii_case("identity") {
            return Err(HttpError::Encoding);
        }
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            let chunked = value.eq_ignore_ascii_case("chunked");
            length = if chunked { Length::Chunked } else { return Err(HttpError::Encoding) };
        }
        if header.name.eq_ignore_ascii_case("content-length") && length != Length::Chunked {
            length = Length::Known(value.parse().map_err(|_| HttpError::NotHttp)?);
        }
    }
    Ok(Some((status, length, head_length)))
}

async fn read_known(
    stream: &mut (impl AsyncRead + Unpin),
    mut body: Vec<u8>,
    length: usize,
) -> Result<Vec<u8>, HttpError> {
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Err(HttpError::NotHttp);
        }
    }
    body.truncate(length);
    Ok(body)
}

async fn read_until_end(stream: &mut (impl AsyncRead + Unpin), mut body: Vec<u8>) -> Result<Vec<u8>, HttpError> {
    while stream.read_buf(&mut body).await? > 0 {
        if body.len() > MAX_ANSWER_LENGTH {
            return Err(HttpError::TooLong);
        }
    }
    if body.len() > MAX_ANSWER_LENGTH { Err(HttpError::TooLong) } else { Ok(body) }
}

/// What follows the last chunk is left unread: the connection closes.
async fn read_chunks(stream: &mut (impl AsyncRead + Unpin), mut rest: Vec<u8>) -> Result<Vec<u8>, HttpError> {
    let mut body = Vec::new();
    loop {
        let (line_length, length) = loop {
            match httparse::parse_chunk_size(&rest).map_err(|_| HttpError::NotHttp)? {
                httparse::Status::Complete(found) => break found,
                httparse::Status::Partial if rest.len() > MAX_CHUNK_LINE_LENGTH => return Err(HttpError::NotHttp),
                httparse::Status::Partial => {}
            }
            if stream.read_buf(&mut rest).await? == 0 {
                return Err(HttpError::NotHttp);
            }
        };
        if length == 0 {
            return Ok(body);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_ANSWER_LENGTH - body.len() {
            return Err(HttpError::TooLong);
        }
        rest.drain(..line_length);
        // Two bytes end each chunk.
        while rest.len() < length + 2 {
            if stream.read_buf(&mut rest).await? == 0 {
                return Err(HttpError::NotHttp);
            }
        }
        body.extend(rest.drain(..length));
        if rest.drain(..2).ne(*b"\r\n") {
            return Err(HttpError::NotHttp);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// The answer to one request, whose bytes are returned, too. What is written is cut where nobody reads any more.
    async fn answered(answer: Vec<u8>) -> (Result<Vec<u8>, HttpError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let n = stream.read(&mut request).await.unwrap();
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
            String::from_utf8_lossy(&request[..n]).into_owned()
        });
        let answer = get(remote, [127, 0, 0, 1].into(), "t.example:8", "/k/announce?x=1").await;
        (answer, server.await.unwrap())
    }

    async fn body_of(answer: &[u8]) -> Result<Vec<u8>, HttpError> {
        answered(answer.to_vec()).await.0
    }

    #[tokio::test]
    async fn the_request_names_host_and_path_and_closes() {
        let (body, request) = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nde and more".to_vec()).await;
        assert_eq!(body.unwrap(), b"de");
        assert!(request.starts_with("GET /k/announce?x=1 HTTP/1.1\r\nHost: t.example:8\r\n"), "{request}");
        assert!(request.contains("Connection: close\r\n") && request.ends_with("\r\n\r\n"));
    }

    #[tokio::test]
    async fn bodies_of_all_forms_are_read() {
        assert_eq!(body_of(b"HTTP/1.0 200 OK\r\n\r\nd1:ae").await.unwrap(), b"d1:ae");
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nd1:\r\n2;x=y\r\nae\r\n0\r\n\r\n";
        assert_eq!(body_of(chunked).await.unwrap(), b"d1:ae");
        let refused = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nde";
        assert_eq!(body_of(refused).await.unwrap(), b"de", "it says why");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_refused() {
        let refused = async |answer: &[u8]| body_of(answer).await.unwrap_err();
        let redirect = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        assert!(matches!(refused(redirect).await, HttpError::Redirect));
        assert!(matches!(refused(b"HTTP/1.1 404 Not Found\r\n\r\n<html>").await, HttpError::Status(404)));
        assert!(matches!(refused(b"garbage\r\n\r\n").await, HttpError::NotHttp));
        assert!(matches!(refused(b"").await, HttpError::NotHttp));
        assert!(matches!(refused(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nde").await, HttpError::NotHttp));
        let gzip = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nx";
        assert!(matches!(refused(gzip).await, HttpError::Encoding));
        let bad_chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n";
        assert!(matches!(refused(bad_chunk).await, HttpError::NotHttp));
    }

    #[tokio::test]
    async fn nothing_is_read_beyond_the_bounds() {
        let long = vec![b'x'; MAX_ANSWER_LENGTH + 1];
        let endless = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &long].concat();
        assert!(matches!(body_of(&endless).await, Err(HttpError::TooLong)));
        let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", u64::MAX);
        assert!(matches!(body_of(announced.as_bytes()).await, Err(HttpError::TooLong)));
        let chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n";
        assert!(matches!(body_of(chunk).await, Err(HttpError::TooLong)));
        let head = [&b"HTTP/1.1 200 OK\r\nX: "[..], &long[..MAX_HEAD_LENGTH]].concat();
        assert!(matches!(body_of(&head).await, Err(HttpError::TooLong)));
    }
}
