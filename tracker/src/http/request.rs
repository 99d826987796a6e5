//! The head of a request: which of our few questions it asks.

use crate::limits;
use crate::service::Credential;
use httparse::Status as Progress;
use std::mem::MaybeUninit;

/// Most headers of a request.
const MAX_HEADERS: usize = 64;

/// What bytes from a client are.
#[derive(Debug)]
pub(super) enum Parsed<'a> {
    /// Not a whole head yet.
    Partial,
    /// A request, and the length of its head.
    Whole(Request<'a>, usize),
    /// Nothing that could be gone on with.
    Bad(Status),
}

/// A request without a body.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// What it asks for.
    pub target: Target<'a>,
    /// Whether it wants the head of the answer alone.
    pub head_only: bool,
    /// Whether it comes from HTTP/1.0.
    pub is_old: bool,
    /// Whether the connection goes on after it.
    pub keep_alive: bool,
}

/// What can be asked for.
#[derive(Debug, Clone)]
pub(super) enum Target<'a> {
    /// An announce, with its raw query.
    Announce(Credential, &'a [u8]),
    /// A scrape, with its raw query.
    Scrape(Credential, &'a [u8]),
    /// Whether the tracker is well.
    Health,
    /// The numbers.
    Metrics,
    /// Something else.
    Unknown,
}

/// The statuses that we send (RFC 9110, RFC 6585).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    UriTooLong,
    HeadTooLong,
    Unavailable,
}

impl Status {
    /// Code and reason.
    pub(super) fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::UriTooLong => "414 URI Too Long",
            Self::HeadTooLong => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

impl Target<'_> {
    /// Whether the store has to be asked.
    pub(super) fn is_health(&self) -> bool {
        matches!(self, Self::Health)
    }
}

/// Reads the first request of these bytes.
pub(super) fn parse(bytes: &[u8]) -> Parsed<'_> {
    if bytes.is_empty() {
        return Parsed::Partial;
    }
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(Progress::Complete(length)) if length <= limits::MAX_HTTP_HEAD => match read(&request) {
            Ok(request) => Parsed::Whole(request, length),
            Err(status) => Parsed::Bad(status),
        },
        Ok(Progress::Partial) if bytes.len() < limits::MAX_HTTP_HEAD => Parsed::Partial,
        // Too long: in its first line, or behind it?
        Ok(_) if request.version.is_none() => Parsed::Bad(Status::UriTooLong),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Parsed::Bad(Status::HeadTooLong),
        Err(_) => Parsed::Bad(Status::BadRequest),
    }
}

fn read<'a>(request: &httparse::Request<'_, 'a>) -> Result<Request<'a>, Status> {
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Status::MethodNotAllowed),
    };
    let is_old = request.version == Some(0);
    let mut keep_alive = !is_old;
    for header in request.headers.iter() {
        let value = header.value.trim_ascii();
        if header.name.eq_ignore_ascii_case("connection") {
            let says = |word: &[u8]| value.split(|b| *b == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(word));
            keep_alive = !says(b"close") && (keep_alive || says(b"keep-alive"));
        } else if header.name.eq_ignore_ascii_case("transfer-encoding")
            || (header.name.eq_ignore_ascii_case("content-length") && value != b"0")
        {
            // A body that is not read would be taken for the next request.
            return Err(Status::BadRequest);
        }
    }
    Ok(Request { target: target(request.path.unwrap_or_default().as_bytes()), head_only, is_old, keep_alive })
}

/// The path and query of a target in the absolute form, which a server has to accept (RFC 9112, 3.2.2).
fn without_authority(target: &[u8]) -> &[u8] {
    let Some(rest) = target.strip_prefix(b"http://") else { return target };
    rest.iter().position(|b| *b == b'/').map_or(b"/", |path| rest.get(path..).unwrap_or_default())
}

fn target(url: &[u8]) -> Target<'_> {
    let url = without_authority(url);
    let end = url.iter().position(|b| *b == b'?');
    let (path, query) = match end {
        Some(end) => (url.get(..end).unwrap_or_default(), url.get(end + 1..).unwrap_or_default()),
        None => (url, &[][..]),
    };
    if let Some(credential) = path.strip_suffix(b"/announce").and_then(Credential::of_path) {
        return Target::Announce(credential, query);
    }
    if let Some(credential) = path.strip_suffix(b"/scrape").and_then(Credential::of_path) {
        return Target::Scrape(credential, query);
    }
    match path {
        b"/health" => Target::Health,
        b"/metrics" => Target::Metrics,
        _ => Target::Unknown,
    }
}
