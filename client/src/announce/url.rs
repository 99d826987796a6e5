//! The URL of a tracker that a metainfo file names.

use mini_torrent_common::address::Endpoint;

/// How a tracker is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// BEP 3.
    Http,
    /// BEP 15.
    Udp,
}

/// A tracker of a metainfo file. Its path may carry a member's key: it is not shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct TrackerUrl {
    pub(super) scheme: Scheme,
    pub(super) endpoint: Endpoint,
    /// Path and query, as they stand; empty for a bare UDP address.
    pub(super) target: String,
}

/// Why a tracker cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum UrlError {
    /// There are no trusted roots to check it by.
    #[error("https trackers are not supported")]
    Https,
    /// Another scheme.
    #[error("trackers are asked by http or udp alone")]
    Scheme,
    /// No host and port, a user's name in it, or bytes that belong in no URL.
    #[error("a tracker's URL is malformed")]
    Malformed,
}

impl TrackerUrl {
    pub(super) fn parse(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::Malformed)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "udp" => Scheme::Udp,
            "https" => return Err(UrlError::Https),
            _ => return Err(UrlError::Scheme),
        };
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UrlError::Malformed);
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(at);
        let is_without_port = authority.ends_with(']') || !authority.contains(':');
        let endpoint = match scheme {
            Scheme::Http if is_without_port => format!("{authority}:80").parse(),
            _ => authority.parse(),
        };
        let target = if target.starts_with('?') { format!("/{target}") } else { target.to_owned() };
        Ok(Self { scheme, endpoint: endpoint.map_err(|_| UrlError::Malformed)?, target })
    }

    /// Whether the last part of the path is an announce's, as in nearly all trackers: what a file points at in our own
    /// network must at least look like a tracker.
    pub(super) fn is_announce_path(&self) -> bool {
        let path = self.target.split('?').next().unwrap_or_default();
        path.rsplit('/').next().is_some_and(|last| last.starts_with("announce"))
    }

    /// Path and query with a query added (BEP 3).
    pub(super) fn with_query(&self, query: &str) -> String {
        let path = if self.target.is_empty() { "/" } else { &self.target };
        let joint = if path.contains('?') { '&' } else { '?' };
        format!("{path}{joint}{query}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_both_kinds_are_read() {
        for (url, scheme, endpoint, target) in [
            ("http://t.example/announce", Scheme::Http, "t.example:80", "/announce"),
            ("HTTP://T.example:8080/k/announce?x=1#f", Scheme::Http, "t.example:8080", "/k/announce?x=1"),
            ("http://[::1]:5/announce", Scheme::Http, "[::1]:5", "/announce"),
            ("http://[::1]?a", Scheme::Http, "[::1]:80", "/?a"),
            ("udp://t.example:6969", Scheme::Udp, "t.example:6969", ""),
            ("udp://10.0.0.1:6969/key/announce", Scheme::Udp, "10.0.0.1:6969", "/key/announce"),
        ] {
            let read = TrackerUrl::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(
                (read.scheme, read.endpoint.to_string().as_str(), read.target.as_str()),
                (scheme, endpoint, target)
            );
        }
    }

    #[test]
    fn others_are_refused_with_a_reason() {
        for (url, error) in [
            ("https://t/announce", UrlError::Https),
            ("wss://t/announce", UrlError::Scheme),
            ("file:///etc/passwd", UrlError::Scheme),
            ("t/announce", UrlError::Malformed),
            ("udp://t.example", UrlError::Malformed),
            ("http:///announce", UrlError::Malformed),
            ("http://user:secret@t/announce", UrlError::Malformed),
            ("http://t/a b", UrlError::Malformed),
            ("http://t/a\r\nHost: x", UrlError::Malformed),
            ("http://t:0/", UrlError::Malformed),
        ] {
            assert_eq!(TrackerUrl::parse(url).err(), Some(error), "{url}");
        }
    }

    #[test]
    fn queries_are_joined() {
        let with = |url: &str| TrackerUrl::parse(url).unwrap().with_query("q=1");
        assert_eq!(with("http://t/announce"), "/announce?q=1");
        assert_eq!(with("http://t/announce?k=2"), "/announce?k=2&q=1");
        assert_eq!(with("http://t"), "/?q=1");
    }
}
