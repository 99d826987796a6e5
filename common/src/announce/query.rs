//! The query string of an announce and of a scrape. Parsing an announce allocates nothing.

#![deny(clippy::indexing_slicing)]

use super::{MAX_NUMWANT, MAX_QUERY_LENGTH, MAX_SCRAPE_HASHES};
use crate::hash::{InfoHash, PeerId};
use crate::percent::{self, Encoded};
use std::fmt::Write;
use std::net::IpAddr;

/// What a client tells a tracker (BEP 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnounceRequest {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The client's name in swarms.
    pub peer_id: PeerId,
    /// Where it listens; never 0.
    pub port: u16,
    /// Bytes sent since it started.
    pub uploaded: u64,
    /// Bytes received since it started.
    pub downloaded: u64,
    /// Bytes that it still needs; 0 for a seeder.
    pub left: u64,
    /// Why it announces.
    pub event: Event,
    /// How many peers it wants, at most [`MAX_NUMWANT`]; `None` leaves it to the tracker.
    pub numwant: Option<u16>,
    /// Whether it takes the compact form (BEP 23); `None` leaves it to the tracker.
    pub compact: Option<bool>,
    /// Whether the dictionary form may leave out peer ids.
    pub no_peer_id: bool,
    /// The address that it claims, if that is one. Never used: anybody can claim any.
    pub declared_ip: Option<IpAddr>,
}

/// Why a client announces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Event {
    /// The time has come; also `paused` (BEP 21).
    #[default]
    Periodic,
    /// It began.
    Started,
    /// It has everything now.
    Completed,
    /// It leaves.
    Stopped,
}

/// Why a query is not a request. The text is the `failure reason` that the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Longer than [`MAX_QUERY_LENGTH`].
    #[error("query too long")]
    TooLong,
    /// This key must stand in it.
    #[error("missing {0}")]
    Missing(&'static str),
    /// This key stands in it twice.
    #[error("duplicate {0}")]
    Duplicate(&'static str),
    /// This key has no such value.
    #[error("invalid {0}")]
    Invalid(&'static str),
    /// More than [`MAX_SCRAPE_HASHES`].
    #[error("too many info_hash")]
    TooMany,
}

/// One key of a query: absent until it is read, and read once.
struct Field<T> {
    name: &'static str,
    value: Option<T>,
}

impl<T> Field<T> {
    fn new(name: &'static str) -> Self {
        Self { name, value: None }
    }

    fn read(&mut self, value: Option<T>) -> Result<(), QueryError> {
        let value = value.ok_or(QueryError::Invalid(self.name))?;
        match self.value.replace(value) {
            None => Ok(()),
            Some(_) => Err(QueryError::Duplicate(self.name)),
        }
    }

    fn required(self) -> Result<T, QueryError> {
        self.value.ok_or(QueryError::Missing(self.name))
    }
}

impl AnnounceRequest {
    /// Reads a raw query string, without its `?`. Keys that are not ours are ignored, those that no tracker needs
    /// (`key`, `trackerid`) among them.
    ///
    /// # Errors
    /// When a key is missing, stands twice or has no such value.
    pub fn from_query(query: &[u8]) -> Result<Self, QueryError> {
        let (mut info_hash, mut peer_id) = (Field::new("info_hash"), Field::new("peer_id"));
        let (mut port, mut left) = (Field::new("port"), Field::new("left"));
        let (mut uploaded, mut downloaded) = (Field::new("uploaded"), Field::new("downloaded"));
        let (mut event, mut numwant) = (Field::new("event"), Field::new("numwant"));
        let (mut compact, mut no_peer_id) = (Field::new("compact"), Field::new("no_peer_id"));
        let mut ip = Field::new("ip");
        for (key, value) in pairs(query)? {
            match key {
                b"info_hash" => info_hash.read(percent::decode_array(value).map(InfoHash))?,
                b"peer_id" => peer_id.read(percent::decode_array(value).map(PeerId))?,
                b"port" => port.read(number(value).and_then(|n| u16::try_from(n).ok()).filter(|port| *port != 0))?,
                b"left" => left.read(number(value))?,
                b"uploaded" => uploaded.read(number(value))?,
                b"downloaded" => downloaded.read(number(value))?,
                b"event" => event.read(Event::from_name(value))?,
                b"numwant" => numwant.read(read_numwant(value))?,
                b"compact" => compact.read(flag(value))?,
                b"no_peer_id" => no_peer_id.read(flag(value))?,
                b"ip" => ip.read(Some(std::str::from_utf8(value).ok().and_then(|text| text.parse().ok())))?,
                _ => {}
            }
        }
        Ok(Self {
            info_hash: info_hash.required()?,
            peer_id: peer_id.required()?,
            port: port.required()?,
            uploaded: uploaded.required()?,
            downloaded: downloaded.required()?,
            left: left.required()?,
            event: event.value.unwrap_or_default(),
            numwant: numwant.value.flatten(),
            compact: compact.value,
            no_peer_id: no_peer_id.value.unwrap_or_default(),
            declared_ip: ip.value.flatten(),
        })
    }

    /// The query string, without a `?` and without the declared address.
    pub fn to_query(&self) -> String {
        let mut query = String::with_capacity(256);
        let (info_hash, peer_id) = (Encoded(self.info_hash.as_bytes()), Encoded(self.peer_id.as_bytes()));
        // Writing to a string cannot fail.
        let _ = write!(
            query,
            "info_hash={info_hash}&peer_id={peer_id}&port={}&uploaded={}&downloaded={}&left={}",
            self.port, self.uploaded, self.downloaded, self.left
        );
        let mut add = |key: &str, value: &dyn std::fmt::Display| {
            let _ = write!(query, "&{key}={value}");
        };
        if let Some(compact) = self.compact {
            add("compact", &u8::from(compact));
        }
        if self.no_peer_id {
            add("no_peer_id", &1);
        }
        if let Some(numwant) = self.numwant {
            add("numwant", &numwant);
        }
        if let Some(name) = self.event.name() {
            add("event", &name);
        }
        query
    }
}

impl Event {
    fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            b"" | b"empty" | b"paused" => Some(Self::Periodic),
            b"started" => Some(Self::Started),
            b"completed" => Some(Self::Completed),
            b"stopped" => Some(Self::Stopped),
            _ => None,
        }
    }

    fn name(self) -> Option<&'static str> {
        match self {
            Self::Periodic => None,
            Self::Started => Some("started"),
            Self::Completed => Some("completed"),
            Self::Stopped => Some("stopped"),
        }
    }
}

/// The torrents of a scrape's raw query string, in its order.
///
/// # Errors
/// When there is none, too many of them, or one is not an info-hash.
pub fn scrape_hashes(query: &[u8]) -> Result<Vec<InfoHash>, QueryError> {
    let mut hashes = Vec::new();
    for (key, value) in pairs(query)? {
        if key == b"info_hash" {
            if hashes.len() == MAX_SCRAPE_HASHES {
                return Err(QueryError::TooMany);
            }
            hashes.push(percent::decode_array(value).map(InfoHash).ok_or(QueryError::Invalid("info_hash"))?);
        }
    }
    if hashes.is_empty() { Err(QueryError::Missing("info_hash")) } else { Ok(hashes) }
}

/// The query string of a scrape; torrents beyond [`MAX_SCRAPE_HASHES`] are left out.
pub fn scrape_query(hashes: &[InfoHash]) -> String {
    let pairs = hashes.iter().take(MAX_SCRAPE_HASHES).map(|hash| format!("info_hash={}", Encoded(hash.as_bytes())));
    pairs.collect::<Vec<_>>().join("&")
}

/// Keys and values as they stand; a part without `=` is a key without value.
fn pairs(query: &[u8]) -> Result<impl Iterator<Item = (&[u8], &[u8])>, QueryError> {
    if query.len() > MAX_QUERY_LENGTH {
        return Err(QueryError::TooLong);
    }
    Ok(query.split(|b| *b == b'&').map(|part| {
        let mut halves = part.splitn(2, |b| *b == b'=');
        (halves.next().unwrap_or_default(), halves.next().unwrap_or_default())
    }))
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |n, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

/// Some programs write -1 for as many as the tracker likes.
fn read_numwant(text: &[u8]) -> Option<Option<u16>> {
    match text {
        b"-1" => Some(None),
        _ => number(text).map(|n| Some(u16::try_from(n).unwrap_or(MAX_NUMWANT).min(MAX_NUMWANT))),
    }
}

fn flag(text: &[u8]) -> Option<bool> {
    match text {
        b"1" => Some(true),
        b"0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: &str = "info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A&peer_id=-MT0100-++abcdefghij\
                        &port=6881&uploaded=1&downloaded=2&left=3";

    fn read(query: &str) -> Result<AnnounceRequest, QueryError> {
        AnnounceRequest::from_query(query.as_bytes())
    }

    /// B3: all keys of BEP 3 are read, binary ones byte for byte; a `+` is a plus.
    #[test]
    fn b3_a_query_is_read_byte_for_byte() {
        let request =
            read(&format!("{BASE}&compact=1&no_peer_id=1&event=started&numwant=50&key=aa&ip=10.0.0.1&x")).unwrap();
        assert_eq!(request.info_hash.to_string(), "123456789abcdef123456789abcdef123456789a");
        assert_eq!(request.peer_id.as_bytes(), b"-MT0100-++abcdefghij");
        assert_eq!((request.port, request.uploaded, request.downloaded, request.left), (6881, 1, 2, 3));
        assert_eq!((request.event, request.numwant), (Event::Started, Some(50)));
        assert_eq!((request.compact, request.no_peer_id), (Some(true), true));
        assert_eq!(request.declared_ip, Some([10, 0, 0, 1].into()));
    }

    #[test]
    fn absent_keys_have_defaults_and_numwant_a_bound() {
        let request = read(BASE).unwrap();
        assert_eq!((request.event, request.numwant, request.compact), (Event::Periodic, None, None));
        for (text, expected) in
            [("0", Some(0)), ("-1", None), ("201", Some(MAX_NUMWANT)), ("99999999", Some(MAX_NUMWANT))]
        {
            assert_eq!(read(&format!("{BASE}&numwant={text}")).unwrap().numwant, expected);
        }
        assert_eq!(read(&format!("{BASE}&ip=host.example")).unwrap().declared_ip, None);
        assert_eq!(read(&format!("{BASE}&event=paused&ipv6=::1&ipv6=::2")).unwrap().event, Event::Periodic);
        let most = BASE.replace("left=3", "left=18446744073709551615");
        assert_eq!(read(&most).unwrap().left, u64::MAX);
    }

    #[test]
    fn bad_queries_are_refused_with_a_short_reason() {
        let shown = |query: &str| read(query).unwrap_err().to_string();
        for key in ["info_hash", "peer_id", "port", "uploaded", "downloaded", "left"] {
            let without: Vec<&str> = BASE.split('&').filter(|pair| !pair.starts_with(key)).collect();
            assert_eq!(shown(&without.join("&")), format!("missing {key}"));
            let pair = BASE.split('&').find(|pair| pair.starts_with(key)).unwrap();
            assert_eq!(shown(&format!("{BASE}&{pair}")), format!("duplicate {key}"));
            assert_eq!(shown(&BASE.replace(pair, &format!("{key}="))), format!("invalid {key}"));
        }
        for bad in
            ["port=0", "port=65536", "port=-1", "left=1.5", "left=+1", "left=18446744073709551616", "info_hash=abc"]
        {
            let key = bad.split('=').next().unwrap();
            let pair = BASE.split('&').find(|pair| pair.starts_with(key)).unwrap();
            assert_eq!(shown(&BASE.replace(pair, bad)), format!("invalid {key}"), "{bad}");
        }
        for bad in ["event=gone", "compact=2", "compact", "no_peer_id=x", "numwant=-2", "numwant="] {
            assert_eq!(shown(&format!("{BASE}&{bad}")), format!("invalid {}", bad.split('=').next().unwrap()));
        }
        assert_eq!(shown(&"&".repeat(MAX_QUERY_LENGTH + 1)), "query too long");
        assert_eq!(shown(""), "missing info_hash");
    }

    /// D5: a scrape of one torrent or several.
    #[test]
    fn d5_scrapes_name_their_torrents() {
        let hashes: Vec<InfoHash> = (0x80..).take(MAX_SCRAPE_HASHES).map(|byte| InfoHash([byte; 20])).collect();
        let query = scrape_query(&hashes);
        assert!(query.len() <= MAX_QUERY_LENGTH);
        assert_eq!(scrape_hashes(query.as_bytes()), Ok(hashes.clone()));
        assert_eq!(scrape_hashes(b"x=1"), Err(QueryError::Missing("info_hash")));
        assert_eq!(scrape_hashes(b"info_hash=%zz"), Err(QueryError::Invalid("info_hash")));
        let one_more = format!("{query}&info_hash={}", "a".repeat(20));
        assert_eq!(scrape_hashes(one_more.as_bytes()), Err(QueryError::TooMany));
    }

    prop_compose! {
        fn requests()(
            info_hash in any::<[u8; 20]>(), peer_id in any::<[u8; 20]>(), port in 1u16.., counts in any::<[u64; 3]>(),
            event in 0usize..4, numwant in prop::option::of(0..=MAX_NUMWANT), compact: Option<bool>, no_peer_id: bool,
        ) -> AnnounceRequest {
            let [uploaded, downloaded, left] = counts;
            let event = *[Event::Periodic, Event::Started, Event::Completed, Event::Stopped].get(event).unwrap();
            AnnounceRequest {
                info_hash: InfoHash(info_hash), peer_id: PeerId(peer_id), port, uploaded, downloaded, left, event, numwant,
                compact, no_peer_id, declared_ip: None,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_alike(request in requests()) {
            prop_assert_eq!(read(&request.to_query()), Ok(request));
        }

        #[test]
        fn any_bytes_are_survived(query in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = AnnounceRequest::from_query(&query);
            let _ = scrape_hashes(&query);
        }

        #[test]
        fn keys_in_any_mix_are_survived(
            query in "(&?(info_hash|peer_id|port|left|event|numwant|compact|ip)=[%0-9a-f+-]{0,6}){0,9}",
        ) {
            let _ = AnnounceRequest::from_query(query.as_bytes());
        }
    }
}
