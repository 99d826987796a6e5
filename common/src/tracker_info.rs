//! `tracker_info.txt`: the addresses of a deployment's trackers, in order.
//!
//! The classic form has the address on one line and the port on the next. A line may also hold both
//! (`IP port`, `IP:port`, `[v6]:port`, `host:port`), with the tracker's number before and the pinned key
//! (`sha256:…`) behind. `#` begins a comment.

use crate::address::{parse_host, parse_joined, parse_port};
use crate::tls::Fingerprint;
use std::fmt;

/// Most trackers in one file.
pub const MAX_TRACKERS: usize = 64;
/// Longest file in bytes.
pub const MAX_LENGTH: usize = 64 * 1024;

/// One tracker of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackerAddress {
    /// An IP address or a host name.
    pub host: String,
    /// The port of everything.
    pub port: u16,
    /// The key that the file pins, if it does.
    pub pin: Option<Fingerprint>,
}

impl fmt::Display for TrackerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Why a file is not a list of trackers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrackerInfoError {
    /// A line is in none of the forms.
    #[error("line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// There is no tracker in it.
    #[error("it names no tracker")]
    Empty,
    /// It is longer than [`MAX_LENGTH`].
    #[error("it is longer than {MAX_LENGTH} bytes")]
    TooLong,
}

/// Reads the file's text.
///
/// # Errors
/// The first line that is in none of the forms, by number.
pub fn parse(text: &str) -> Result<Vec<TrackerAddress>, TrackerInfoError> {
    if text.len() > MAX_LENGTH {
        return Err(TrackerInfoError::TooLong);
    }
    let mut trackers: Vec<TrackerAddress> = Vec::new();
    let mut half: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let error = |problem| TrackerInfoError::Line { line: line_number, problem };
        let mut words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        let pin = match words.last() {
            Some(last) if is_pin(last) => {
                let pin =
                    last.to_ascii_lowercase().parse().map_err(|_| error("sha256: needs 64 hexadecimal digits"))?;
                words.pop();
                Some(pin)
            }
            _ => None,
        };
        let (host, port) = match (half.take(), words.as_slice()) {
            (None, []) if pin.is_none() => continue,
            (waiting @ Some(_), []) if pin.is_none() => {
                half = waiting;
                continue;
            }
            (Some((_, host)), [port]) => (host, parse_port(port).ok_or(error("expected the port of the line above"))?),
            (None, [word]) => match parse_joined(word) {
                Some(joined) => joined,
                None if pin.is_none() => {
                    half = Some((line_number, parse_host(word).ok_or(error("expected an address"))?));
                    continue;
                }
                None => return Err(error("expected an address and a port")),
            },
            (None, [host, port]) if parse_joined(port).is_none() => parse_pair(host, port).map_err(error)?,
            (None, [number, joined]) => {
                check_number(number, trackers.len()).map_err(error)?;
                parse_joined(joined).ok_or(error("expected an address and a port"))?
            }
            (None, [number, host, port]) => {
                check_number(number, trackers.len()).map_err(error)?;
                parse_pair(host, port).map_err(error)?
            }
            _ => return Err(error("expected an address and a port")),
        };
        if trackers.iter().any(|other| other.host == host && other.port == port) {
            return Err(error("this address is listed twice"));
        }
        if trackers.len() == MAX_TRACKERS {
            return Err(error("there are too many trackers"));
        }
        trackers.push(TrackerAddress { host, port, pin });
    }
    match half {
        Some((line, _)) => Err(TrackerInfoError::Line { line, problem: "the port is missing" }),
        None if trackers.is_empty() => Err(TrackerInfoError::Empty),
        None => Ok(trackers),
    }
}

fn parse_pair(host: &str, port: &str) -> Result<(String, u16), &'static str> {
    let host = parse_host(host).ok_or("expected an address")?;
    Ok((host, parse_port(port).ok_or("expected a port from 1 to 65535")?))
}

fn check_number(word: &str, n_before: usize) -> Result<(), &'static str> {
    match word.parse::<usize>() {
        Ok(number) if number == n_before + 1 => Ok(()),
        Ok(_) => Err("the number is not the tracker's place in the file"),
        Err(_) => Err("expected the tracker's number"),
    }
}

/// Whether a word is a pin, or means to be one; no host may have a name that reads like it.
fn is_pin(word: &str) -> bool {
    word.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("sha256:"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Vec<String> {
        parse(text).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!(shown("127.0.0.1\n18000\n127.0.0.1\n18001\n"), ["127.0.0.1:18000", "127.0.0.1:18001"]);
        assert_eq!(shown("# two\n\n10.0.0.1 5 # first\n10.0.0.1:6\n"), ["10.0.0.1:5", "10.0.0.1:6"]);
        assert_eq!(shown("[::1]:7\n::1\n8\nTracker.example:9"), ["[::1]:7", "[::1]:8", "tracker.example:9"]);
        assert_eq!(shown("1 127.0.0.1 5\n2 [::1]:6"), ["127.0.0.1:5", "[::1]:6"]);
        let pin = format!("sha256:{}", "ab".repeat(32));
        let pinned = parse(&format!("127.0.0.1:5 {pin}\n127.0.0.1\n6 {}", pin.to_uppercase())).unwrap();
        assert!(pinned.iter().all(|tracker| tracker.pin == Some(pin.parse().unwrap())));
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, line) in [
            ("127.0.0.1\n", 1),
            ("127.0.0.1 5\n127.0.0.1 70000\n", 2),
            ("127.0.0.1\n0\n", 2),
            ("1.2.3.400:5", 1),
            ("a b c d", 1),
            ("127.0.0.1:5 sha256:00", 1),
            ("127.0.0.1:5 SHA256:00", 1),
            ("sha256\n1", 1),
            ("1 sHa256:1", 1),
            ("2 127.0.0.1 5", 1),
            ("127.0.0.1:5\n\n127.0.0.1 5", 3),
            ("exa_mple:5", 1),
        ] {
            assert!(
                matches!(parse(text), Err(TrackerInfoError::Line { line: l, .. }) if l == line),
                "{text:?}: {:?}",
                parse(text)
            );
        }
        assert_eq!(parse("# nothing\n"), Err(TrackerInfoError::Empty));
        assert_eq!(parse(&"#".repeat(MAX_LENGTH + 1)), Err(TrackerInfoError::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_is_survived_and_what_is_shown_reads_alike(text in "[0-9a-z:.\\[\\] \n#]{0,80}") {
            if let Ok(trackers) = parse(&text) {
                let again: String = trackers.iter().map(|tracker| format!("{tracker}\n")).collect();
                prop_assert_eq!(parse(&again), Ok(trackers));
            }
        }
    }
}
