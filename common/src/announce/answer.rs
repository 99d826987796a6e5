//! What a client reads of a tracker's answer. Nothing in it is trusted: whether a peer may be dialled is decided later.

use super::reply::{from_compact_v4, from_compact_v6};
use super::{Contact, Counts, MAX_ANSWER_LENGTH, MAX_ANSWER_PEERS, MAX_REASON_LENGTH};
use crate::bencode::{self, Dictionary, Value};
use crate::hash::{InfoHash, PeerId};
use std::net::{IpAddr, SocketAddr};

/// The answer to an announce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The tracker refused, with this reason (BEP 3).
    Failure(String),
    /// The tracker answered.
    Peers {
        /// Seconds until the next announce.
        interval_s: u32,
        /// Seconds before which it takes no other.
        min_interval_s: Option<u32>,
        /// The swarm's numbers, 0 where the tracker tells none.
        counts: Counts,
        /// A text for the user.
        warning: Option<String>,
        /// The peers, at most [`MAX_ANSWER_PEERS`].
        peers: Vec<Contact>,
    },
}

/// The answer to a scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScrapeAnswer {
    /// The tracker refused, with this reason.
    Failure(String),
    /// The numbers of the torrents that it knows.
    Files(Vec<(InfoHash, Counts)>),
}

/// Why bytes are not an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Longer than [`MAX_ANSWER_LENGTH`].
    #[error("longer than {MAX_ANSWER_LENGTH} bytes")]
    TooLong,
    /// Not bencode.
    #[error("not bencode: {0}")]
    Bencode(#[from] bencode::DecodeError),
    /// A key is missing or has a value of another kind.
    #[error("'{0}' is missing or malformed")]
    Key(&'static str),
}

impl Answer {
    /// Reads the answer to an announce: compact peers (BEP 23), compact IPv6 peers (BEP 7), or a list of dictionaries.
    ///
    /// # Errors
    /// When it is too long or malformed. Peers with host names, without port or beyond the bound are left out.
    pub fn decode(body: &[u8]) -> Result<Self, AnswerError> {
        let value = decode(body)?;
        let dictionary = value.as_dictionary().ok_or(AnswerError::Key("interval"))?;
        if let Some(reason) = text(dictionary, "failure reason")? {
            return Ok(Self::Failure(reason));
        }
        let mut peers = match dictionary.get(b"peers") {
            None => Vec::new(),
            Some(Value::Bytes(bytes)) => {
                let (peers, []) = bytes.as_chunks::<6>() else { return Err(AnswerError::Key("peers")) };
                contacts(peers.iter().copied().filter_map(from_compact_v4))
            }
            Some(value) => {
                let list = value.as_list().ok_or(AnswerError::Key("peers"))?;
                list.iter().filter_map(Value::as_dictionary).filter_map(read_peer).take(MAX_ANSWER_PEERS).collect()
            }
        };
        if let Some(value) = dictionary.get(b"peers6") {
            let chunks = value.as_bytes().map(<[u8]>::as_chunks::<18>);
            let Some((more, [])) = chunks else { return Err(AnswerError::Key("peers6")) };
            peers.extend(contacts(more.iter().filter_map(from_compact_v6)));
            peers.truncate(MAX_ANSWER_PEERS);
        }
        let min_interval_s = dictionary.get(b"min interval").and_then(|_| count(dictionary, "min interval"));
        Ok(Self::Peers {
            interval_s: count(dictionary, "interval").ok_or(AnswerError::Key("interval"))?,
            min_interval_s,
            counts: counts(dictionary),
            warning: text(dictionary, "warning message")?,
            peers,
        })
    }
}

impl ScrapeAnswer {
    /// Reads the answer to a scrape (BEP 48).
    ///
    /// # Errors
    /// When it is too long or malformed.
    pub fn decode(body: &[u8]) -> Result<Self, AnswerError> {
        let value = decode(body)?;
        let dictionary = value.as_dictionary().ok_or(AnswerError::Key("files"))?;
        if let Some(reason) = text(dictionary, "failure reason")? {
            return Ok(Self::Failure(reason));
        }
        let files = dictionary.get(b"files").and_then(Value::as_dictionary).ok_or(AnswerError::Key("files"))?;
        let file =
            |(key, value): (&[u8], &Value<'_>)| Some((InfoHash::from_slice(key)?, counts(value.as_dictionary()?)));
        let files: Option<Vec<_>> = files.entries().map(file).collect();
        files.map(Self::Files).ok_or(AnswerError::Key("files"))
    }
}

fn decode(body: &[u8]) -> Result<Value<'_>, AnswerError> {
    if body.len() > MAX_ANSWER_LENGTH {
        return Err(AnswerError::TooLong);
    }
    Ok(bencode::decode(body)?)
}

fn contacts(addresses: impl Iterator<Item = SocketAddr>) -> Vec<Contact> {
    addresses.take(MAX_ANSWER_PEERS).map(|address| Contact { address, peer_id: None }).collect()
}

/// One peer of the dictionary form; `None` for one that we cannot dial.
fn read_peer(peer: &Dictionary<'_>) -> Option<Contact> {
    let ip: IpAddr = std::str::from_utf8(peer.get(b"ip")?.as_bytes()?).ok()?.parse().ok()?;
    let port = u16::try_from(peer.get(b"port")?.as_integer()?).ok().filter(|port| *port != 0)?;
    let peer_id = peer.get(b"peer id").and_then(Value::as_bytes).and_then(PeerId::from_slice);
    Some(Contact { address: SocketAddr::new(ip.to_canonical(), port), peer_id })
}

fn count(dictionary: &Dictionary<'_>, key: &str) -> Option<u32> {
    dictionary.get(key.as_bytes())?.as_integer().and_then(|n| u32::try_from(n).ok())
}

fn counts(dictionary: &Dictionary<'_>) -> Counts {
    let count = |key| count(dictionary, key).unwrap_or_default();
    Counts { complete: count("complete"), downloaded: count("downloaded"), incomplete: count("incomplete") }
}

/// A text from a stranger, cut at [`MAX_REASON_LENGTH`].
fn text(dictionary: &Dictionary<'_>, key: &'static str) -> Result<Option<String>, AnswerError> {
    let Some(value) = dictionary.get(key.as_bytes()) else { return Ok(None) };
    let bytes = value.as_bytes().ok_or(AnswerError::Key(key))?;
    let bytes = bytes.get(..bytes.len().min(MAX_REASON_LENGTH)).unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::{Reply, write_failure, write_scrape};
    use super::*;
    use proptest::prelude::*;

    const COUNTS: Counts = Counts { complete: 1, downloaded: 2, incomplete: 3 };

    fn contact(address: &str) -> Contact {
        Contact { address: address.parse().unwrap(), peer_id: None }
    }

    fn reply(peers: &[Contact]) -> Reply<'_> {
        Reply { interval_s: 1800, min_interval_s: Some(60), counts: COUNTS, warning: Some("slow"), peers }
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    fn peers_of(body: &[u8]) -> Vec<Contact> {
        match Answer::decode(body).unwrap() {
            Answer::Peers { peers, .. } => peers,
            Answer::Failure(reason) => panic!("{reason}"),
        }
    }

    /// B3: the compact form, with IPv6 apart.
    #[test]
    fn b3_golden_compact_reply() {
        let peers = [contact("[::1]:258"), contact("1.2.3.4:258"), contact("[::ffff:5.6.7.8]:1")];
        let body = written(|out| reply(&peers).write_compact(out));
        let golden = b"d8:completei1e10:downloadedi2e10:incompletei3e8:intervali1800e12:min intervali60e\
            5:peers12:\x01\x02\x03\x04\x01\x02\x05\x06\x07\x08\0\x01\
            6:peers618:\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x01\x0215:warning message4:slowe";
        assert_eq!(body, golden);
        let expected = Answer::Peers {
            interval_s: 1800,
            min_interval_s: Some(60),
            counts: COUNTS,
            warning: Some("slow".into()),
            peers: vec![contact("1.2.3.4:258"), contact("5.6.7.8:1"), contact("[::1]:258")],
        };
        assert_eq!(Answer::decode(&body), Ok(expected));
    }

    /// B3: the dictionary form.
    #[test]
    fn b3_golden_dictionary_reply() {
        let known = Contact { peer_id: Some(PeerId(*b"-MT0100-abcdefghijkl")), ..contact("1.2.3.4:5") };
        let peers = [known, contact("[2001:db8::1]:6")];
        let body = written(|out| Reply { interval_s: 9, peers: &peers, ..Reply::default() }.write_dictionaries(out));
        let golden = b"d8:completei0e10:downloadedi0e10:incompletei0e8:intervali9e5:peersl\
            d2:ip7:1.2.3.47:peer id20:-MT0100-abcdefghijkl4:porti5eed2:ip11:2001:db8::14:porti6eeee";
        assert_eq!(body, golden);
        assert_eq!(peers_of(&body), peers);
    }

    /// B3: a refusal is understood, whatever stands beside it.
    #[test]
    fn b3_a_failure_reason_is_read() {
        let body = written(|out| write_failure(out, "unknown key"));
        assert_eq!(body, b"d14:failure reason11:unknown keye");
        assert_eq!(Answer::decode(&body), Ok(Answer::Failure("unknown key".into())));
        assert_eq!(ScrapeAnswer::decode(&body), Ok(ScrapeAnswer::Failure("unknown key".into())));
        let long = written(|out| write_failure(out, &"x".repeat(9999)));
        assert_eq!(Answer::decode(&long), Ok(Answer::Failure("x".repeat(MAX_REASON_LENGTH))));
    }

    #[test]
    fn what_nobody_can_dial_is_left_out() {
        let body = b"d8:intervali1e5:peersld2:ip4:host4:porti1eed2:ip7:1.2.3.44:porti0eed2:ip7:1.2.3.4e\
            d2:ip7:1.2.3.44:porti65536eei7ed2:ip7:1.2.3.44:porti9eeee";
        assert_eq!(peers_of(body), [contact("1.2.3.4:9")]);
        assert_eq!(peers_of(b"d8:intervali1e5:peers6:\x01\x02\x03\x04\0\0e"), []);
        assert_eq!(peers_of(b"d8:intervali1ee"), []);
    }

    #[test]
    fn answers_are_bounded_and_malformed_ones_refused() {
        let many = [b"d8:intervali1e5:peers18000:".as_slice(), &[1; 18_000], b"6:peers618:", &[1; 18], b"e"].concat();
        assert_eq!(peers_of(&many).len(), MAX_ANSWER_PEERS);
        for (body, key) in [
            (&b"d8:intervali1e5:peers5:12345e"[..], "peers"),
            (b"d8:intervali1e5:peersi5ee", "peers"),
            (b"d8:intervali1e6:peers617:12345678901234567e", "peers6"),
            (b"d8:intervali-1ee", "interval"),
            (b"d8:interval1:1e", "interval"),
            (b"le", "interval"),
            (b"de", "interval"),
            (b"d14:failure reasoni1ee", "failure reason"),
        ] {
            assert_eq!(Answer::decode(body), Err(AnswerError::Key(key)), "{}", body.escape_ascii());
        }
        assert_eq!(Answer::decode(&vec![b'l'; MAX_ANSWER_LENGTH + 1]), Err(AnswerError::TooLong));
        assert!(matches!(Answer::decode(b"<html>"), Err(AnswerError::Bencode(_))));
        assert_eq!(ScrapeAnswer::decode(b"d5:filesd2:abdeee"), Err(AnswerError::Key("files")));
    }

    /// D5: the numbers of a scrape.
    #[test]
    fn d5_golden_scrape() {
        let files = vec![(InfoHash([b'a'; 20]), COUNTS), (InfoHash([b'b'; 20]), Counts::default())];
        let body = written(|out| write_scrape(out, &files));
        let golden = b"d5:filesd20:aaaaaaaaaaaaaaaaaaaad8:completei1e10:downloadedi2e10:incompletei3ee\
            20:bbbbbbbbbbbbbbbbbbbbd8:completei0e10:downloadedi0e10:incompletei0eeee";
        assert_eq!(body, golden);
        assert_eq!(ScrapeAnswer::decode(&body), Ok(ScrapeAnswer::Files(files)));
    }

    proptest! {
        #[test]
        fn both_forms_read_alike(
            peers in prop::collection::vec((any::<IpAddr>(), 1u16..), 0..20), counts in any::<[u32; 3]>(),
        ) {
            let address = |(ip, port): (IpAddr, u16)| SocketAddr::new(ip.to_canonical(), port);
            let peers: Vec<_> = peers.into_iter().map(|peer| Contact { address: address(peer), peer_id: None }).collect();
            let counts = Counts { complete: counts[0], downloaded: counts[1], incomplete: counts[2] };
            let reply = Reply { counts, ..reply(&peers) };
            let dictionaries = written(|out| reply.write_dictionaries(out));
            let compact = written(|out| reply.write_compact(out));
            prop_assert_eq!(peers_of(&dictionaries), peers.clone());
            let (v4, v6): (Vec<_>, Vec<_>) = peers.into_iter().partition(|peer| peer.address.is_ipv4());
            prop_assert_eq!(peers_of(&compact), [v4, v6].concat());
            prop_assert!(bencode::decode(&compact).is_ok());
        }

        #[test]
        fn any_bytes_are_survived(body in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = (Answer::decode(&body), ScrapeAnswer::decode(&body));
        }
    }
}
