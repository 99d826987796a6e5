//! Magnet links (BEP 9): an info-hash, and where to ask for the rest.

use crate::address::Endpoint;
use crate::hash::InfoHash;
use crate::percent::{self, Encoded};
use crate::torrent::{MAX_URL_LENGTH, MAX_URLS, is_url_text};
use std::fmt;
use std::str::FromStr;

/// Longest link in bytes.
pub const MAX_LENGTH: usize = 16 * 1024;
/// Most peers of one link.
pub const MAX_PEERS: usize = 64;
/// Longest suggested name in bytes.
pub const MAX_NAME_LENGTH: usize = 1024;

/// Longest `host:port`.
const MAX_PEER_LENGTH: usize = 300;
const SCHEME: &str = "magnet:?";
const TOPIC: &str = "urn:btih:";
const TOPIC_V2: &str = "urn:btmh:";

/// What a link says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Magnet {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The name to show until the `info` dictionary is there. It names no file: it was not checked.
    pub name: Option<String>,
    /// URLs of trackers.
    pub trackers: Vec<String>,
    /// Addresses of peers.
    pub peers: Vec<Endpoint>,
}

/// Why a text is not a magnet link that we can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MagnetError {
    /// It does not begin with `magnet:?`.
    #[error("not a magnet link")]
    Scheme,
    /// It is longer than [`MAX_LENGTH`].
    #[error("longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// No `xt` names an info-hash.
    #[error("it names no info-hash")]
    NoInfoHash,
    /// Only version 2 of the protocol (BEP 52) can read it.
    #[error("v2-only")]
    V2Only,
    /// A parameter is malformed, or stands twice and may not.
    #[error("bad '{0}'")]
    Parameter(&'static str),
    /// More trackers than [`MAX_URLS`] or more peers than [`MAX_PEERS`].
    #[error("too many '{0}'")]
    TooMany(&'static str),
}

impl FromStr for Magnet {
    type Err = MagnetError;

    fn from_str(text: &str) -> Result<Self, MagnetError> {
        if text.len() > MAX_LENGTH {
            return Err(MagnetError::TooLong);
        }
        let scheme = text.get(..SCHEME.len()).filter(|scheme| scheme.eq_ignore_ascii_case(SCHEME));
        let query = scheme.and_then(|scheme| text.get(scheme.len()..)).ok_or(MagnetError::Scheme)?;
        let (mut info_hash, mut name, mut trackers, mut peers) = (None, None, Vec::new(), Vec::new());
        let mut v2 = false;
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match unnumbered(key) {
                "xt" => {
                    let topic = percent::decode_text(value, MAX_URL_LENGTH).ok_or(MagnetError::Parameter("xt"))?;
                    v2 |= strip_prefix_ignoring_case(&topic, TOPIC_V2).is_some();
                    let Some(digits) = strip_prefix_ignoring_case(&topic, TOPIC) else { continue };
                    let hash = read_info_hash(digits).ok_or(MagnetError::Parameter("xt"))?;
                    if info_hash.replace(hash).is_some_and(|other| other != hash) {
                        return Err(MagnetError::Parameter("xt"));
                    }
                }
                "dn" => {
                    // Here, and only here, programs write a space as `+`.
                    let text = percent::decode_text(&value.replace('+', "%20"), MAX_NAME_LENGTH);
                    if name.replace(text.ok_or(MagnetError::Parameter("dn"))?).is_some() {
                        return Err(MagnetError::Parameter("dn"));
                    }
                }
                "tr" => {
                    let url = percent::decode_text(value, MAX_URL_LENGTH).filter(|url| is_url_text(url));
                    trackers.push(url.ok_or(MagnetError::Parameter("tr"))?);
                }
                "x.pe" => {
                    let peer = percent::decode_text(value, MAX_PEER_LENGTH).and_then(|peer| peer.parse().ok());
                    peers.push(peer.ok_or(MagnetError::Parameter("x.pe"))?);
                }
                _ => {}
            }
            if trackers.len() > MAX_URLS || peers.len() > MAX_PEERS {
                return Err(MagnetError::TooMany(if peers.len() > MAX_PEERS { "x.pe" } else { "tr" }));
            }
        }
        let missing = if v2 { MagnetError::V2Only } else { MagnetError::NoInfoHash };
        Ok(Self { info_hash: info_hash.ok_or(missing)?, name, trackers, peers })
    }
}

/// `tr.1` and `tr.2` are two of `tr`.
fn unnumbered(key: &str) -> &str {
    match key.rsplit_once('.') {
        Some((base, number)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => base,
        _ => key,
    }
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let start = text.get(..prefix.len()).filter(|start| start.eq_ignore_ascii_case(prefix))?;
    text.get(start.len()..)
}

/// 40 hexadecimal digits, or 32 of base 32 (RFC 4648).
fn read_info_hash(text: &str) -> Option<InfoHash> {
    if text.len() != 32 {
        return text.parse().ok();
    }
    let mut bytes = [0; InfoHash::LENGTH];
    for (out, digits) in bytes.as_chunks_mut::<5>().0.iter_mut().zip(text.as_bytes().as_chunks::<8>().0) {
        let mut bits = 0u64;
        for digit in digits {
            let value = match digit.to_ascii_uppercase() {
                letter @ b'A'..=b'Z' => letter - b'A',
                number @ b'2'..=b'7' => number - b'2' + 26,
                _ => return None,
            };
            bits = bits << 5 | u64::from(value);
        }
        let [_, _, _, group @ ..] = bits.to_be_bytes();
        *out = group;
    }
    Some(InfoHash(bytes))
}

impl fmt::Display for Magnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}xt={TOPIC}{}", self.info_hash)?;
        if let Some(name) = &self.name {
            write!(f, "&dn={}", Encoded(name.as_bytes()))?;
        }
        self.trackers.iter().try_for_each(|url| write!(f, "&tr={}", Encoded(url.as_bytes())))?;
        self.peers.iter().try_for_each(|peer| write!(f, "&x.pe={}", Encoded(peer.to_string().as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_link_with_everything_is_read_and_written() {
        let link = format!(
            "magnet:?xt=urn:btih:{HASH}&dn=a%20%2Bb+c&xl=5&tr=http%3A%2F%2Ft%2Fannounce%3Fk%3D1&tr.1=udp://u:1&\
             x.pe=10.0.0.1:5&x.pe=%5B%3A%3A1%5D%3A6&x.pe=Host.example:7"
        );
        let magnet: Magnet = link.parse().unwrap();
        assert_eq!(magnet.info_hash.to_string(), HASH);
        assert_eq!(magnet.name.as_deref(), Some("a +b c"));
        assert_eq!(magnet.trackers, ["http://t/announce?k=1", "udp://u:1"]);
        let peers: Vec<String> = magnet.peers.iter().map(ToString::to_string).collect();
        assert_eq!(peers, ["10.0.0.1:5", "[::1]:6", "host.example:7"]);
        let written = format!(
            "magnet:?xt=urn:btih:{HASH}&dn=a%20%2Bb%20c&tr=http%3A%2F%2Ft%2Fannounce%3Fk%3D1&tr=udp%3A%2F%2Fu%3A1&\
             x.pe=10.0.0.1%3A5&x.pe=%5B%3A%3A1%5D%3A6&x.pe=host.example%3A7"
        );
        assert_eq!(magnet.to_string(), written);
        assert_eq!(written.parse(), Ok(magnet));
    }

    /// The digits of base 32 are those of `base32` over the same bytes.
    #[test]
    fn base_32_means_the_same_hash() {
        let hash = |text: &str| text.parse::<Magnet>().unwrap().info_hash.to_string();
        assert_eq!(hash("MAGNET:?xt=urn:btih:AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH"), HASH);
        assert_eq!(hash(&"magnet:?xt=URN:BTIH:AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH".to_lowercase()), HASH);
    }

    #[test]
    fn unusable_links_are_refused_with_a_reason() {
        let link = |rest: &str| format!("magnet:?xt=urn:btih:{HASH}{rest}").parse::<Magnet>();
        for (text, error) in [
            ("", MagnetError::Scheme),
            ("http://x/?xt=urn:btih:", MagnetError::Scheme),
            ("magnet:?", MagnetError::NoInfoHash),
            ("magnet:?xt=urn:sha1:ABC", MagnetError::NoInfoHash),
            ("magnet:?xt=urn:btmh:1220abcd", MagnetError::V2Only),
            ("magnet:?xt=urn:btih:abc", MagnetError::Parameter("xt")),
            ("magnet:?xt=urn:btih:11111111111111111111111111111111", MagnetError::Parameter("xt")),
            ("magnet:?xt=%", MagnetError::Parameter("xt")),
        ] {
            assert_eq!(text.parse::<Magnet>(), Err(error), "{text}");
        }
        assert_eq!(link(&format!("&xt=urn:btih:{}", "0".repeat(40))), Err(MagnetError::Parameter("xt")));
        assert!(link(&format!("&xt=urn:btmh:1220&xt.1=urn:btih:{HASH}")).is_ok(), "a hybrid is read as version 1");
        for (rest, key) in
            [("&dn=a&dn=b", "dn"), ("&dn=%ff", "dn"), ("&tr=", "tr"), ("&tr=a%20b", "tr"), ("&x.pe=a", "x.pe")]
        {
            assert_eq!(link(rest), Err(MagnetError::Parameter(key)), "{rest}");
        }
        assert_eq!(link(&"&tr=a".repeat(MAX_URLS + 1)), Err(MagnetError::TooMany("tr")));
        assert_eq!(link(&"&x.pe=a:1".repeat(MAX_PEERS + 1)), Err(MagnetError::TooMany("x.pe")));
        assert_eq!(link(&"&".repeat(MAX_LENGTH)), Err(MagnetError::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,60}") {
            let _ = text.parse::<Magnet>();
            let _ = format!("magnet:?{text}").parse::<Magnet>();
        }

        #[test]
        fn what_is_written_reads_alike(
            hash in any::<[u8; 20]>(), name in prop::option::of("\\PC{0,20}"),
            trackers in prop::collection::vec("[!-~]{1,20}", 0..5),
        ) {
            let magnet = Magnet { info_hash: InfoHash(hash), name, trackers, peers: vec!["[::1]:5".parse().unwrap()] };
            prop_assert_eq!(magnet.to_string().parse(), Ok(magnet));
        }
    }
}
