//! A `.torrent` file: where the trackers are (BEP 3, BEP 12), and the raw `info` dictionary.
//!
//! The info-hash is that of the raw bytes of `info`, which are kept and written again as they stood. What else
//! stands in the file (creation date, comment, DHT nodes, web seeds) is passed over.

use crate::bencode::{self, Dictionary, Value, Writer};
use crate::control::MAX_INFO_LENGTH;
use crate::geometry::MAX_PIECES;
use crate::hash::InfoHash;
use crate::metainfo::{Info, InfoError};
use std::fmt;

/// Longest file in bytes: the longest `info` dictionary, and 1 MiB for the rest.
pub const MAX_LENGTH: usize = MAX_PIECES as usize * 20 + 64 * 1024 + 1024 * 1024;
/// Most tracker URLs of one file; those after them are left out.
pub const MAX_URLS: usize = 64;
/// Longest tracker URL in bytes; longer ones are left out.
pub const MAX_URL_LENGTH: usize = 2048;

/// What a `.torrent` file says.
#[derive(Clone, PartialEq, Eq)]
pub struct Torrent {
    tiers: Vec<Vec<String>>,
    raw_info: Vec<u8>,
    info_hash: InfoHash,
    info: Info,
}

/// Why a file is not a metainfo file that we can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TorrentError {
    /// It is longer than [`MAX_LENGTH`].
    #[error("longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// Not bencode.
    #[error("not bencode: {0}")]
    Bencode(#[from] bencode::DecodeError),
    /// A key is missing or has a value of another kind.
    #[error("'{0}' is missing or malformed")]
    Key(&'static str),
    /// The `info` dictionary cannot be used; a file of several files reads `multi-file`.
    #[error(transparent)]
    Info(#[from] InfoError),
}

impl Torrent {
    /// Puts a file together from tracker URLs and an `info` dictionary. URLs beyond the bounds are left out, and tiers
    /// that have none.
    ///
    /// # Errors
    /// When the dictionary cannot be used.
    pub fn new(tiers: Vec<Vec<String>>, raw_info: Vec<u8>) -> Result<Self, TorrentError> {
        if raw_info.len() as u64 > MAX_INFO_LENGTH {
            return Err(TorrentError::TooLong);
        }
        let info = Info::decode(&raw_info)?;
        Ok(Self { tiers: within_bounds(tiers), info_hash: InfoHash::of(&raw_info), raw_info, info })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it is too long, malformed, or describes what we cannot share.
    pub fn decode(file: &[u8]) -> Result<Self, TorrentError> {
        if file.len() > MAX_LENGTH {
            return Err(TorrentError::TooLong);
        }
        let value = bencode::decode(file)?;
        let dictionary = value.as_dictionary().ok_or(TorrentError::Key("info"))?;
        let raw_info = dictionary.raw(b"info").ok_or(TorrentError::Key("info"))?;
        Self::new(read_tiers(dictionary)?, raw_info.to_vec())
    }

    /// Writes the file: `announce`, `announce-list` when there is more than one URL, and `info` as it was read.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.begin_dictionary();
        if let Some(first) = self.urls().next() {
            writer.bytes(b"announce").bytes(first.as_bytes());
        }
        if self.urls().nth(1).is_some() {
            writer.bytes(b"announce-list").begin_list();
            for tier in &self.tiers {
                writer.begin_list();
                for url in tier {
                    writer.bytes(url.as_bytes());
                }
                writer.end();
            }
            writer.end();
        }
        writer.bytes(b"info").raw(&self.raw_info).end();
        writer.finish()
    }

    /// The tracker URLs in tiers (BEP 12), each tier to be tried before the next. No tier is empty.
    pub fn tiers(&self) -> &[Vec<String>] {
        &self.tiers
    }

    /// All tracker URLs in the order of their tiers.
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        self.tiers.iter().flatten().map(String::as_str)
    }

    /// The `info` dictionary, byte for byte.
    pub fn raw_info(&self) -> &[u8] {
        &self.raw_info
    }

    /// SHA-1 of [`Self::raw_info`].
    pub fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// What the `info` dictionary says.
    pub fn info(&self) -> &Info {
        &self.info
    }
}

impl fmt::Debug for Torrent {
    /// Without the URLs: they may carry a member's announce key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Torrent({}, {:?}, {} trackers)", self.info_hash, self.info.name, self.urls().count())
    }
}

/// `announce-list` when it names a tracker, else `announce` (BEP 12).
fn read_tiers(dictionary: &Dictionary<'_>) -> Result<Vec<Vec<String>>, TorrentError> {
    let text = |value: &Value<'_>| value.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    if let Some(list) = dictionary.get(b"announce-list") {
        let malformed = TorrentError::Key("announce-list");
        let mut tiers = Vec::new();
        for tier in list.as_list().ok_or(malformed)? {
            let urls: Option<Vec<String>> = tier.as_list().ok_or(malformed)?.iter().map(text).collect();
            tiers.push(urls.ok_or(malformed)?);
        }
        let tiers = within_bounds(tiers);
        if !tiers.is_empty() {
            return Ok(tiers);
        }
    }
    match dictionary.get(b"announce") {
        None => Ok(Vec::new()),
        Some(url) => Ok(vec![vec![text(url).ok_or(TorrentError::Key("announce"))?]]),
    }
}

/// Leaves out what is not a URL of ours to use: empty, too long, or with anything but visible ASCII.
fn within_bounds(mut tiers: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let mut n_left = MAX_URLS;
    for tier in &mut tiers {
        tier.retain(|url| is_url_text(url));
        tier.truncate(n_left);
        n_left -= tier.len();
    }
    tiers.retain(|tier| !tier.is_empty());
    tiers
}

/// Whether a text can be a tracker's URL: visible ASCII of at most [`MAX_URL_LENGTH`].
pub(crate) fn is_url_text(text: &str) -> bool {
    (1..=MAX_URL_LENGTH).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bendy::decoding::{Decoder, FromBencode};
    use bendy::encoding::Encoder;
    use bendy::value::Value as Oracle;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A dictionary for the independent writer.
    fn dictionary(entries: &[(&'static str, Oracle<'static>)]) -> Oracle<'static> {
        let entry = |(key, value): &(&'static str, Oracle<'static>)| (key.as_bytes().into(), value.clone());
        Oracle::Dict(entries.iter().map(entry).collect::<BTreeMap<_, _>>())
    }

    fn text(text: &str) -> Oracle<'static> {
        Oracle::Bytes(text.as_bytes().to_vec().into())
    }

    fn oracle_info(name: &str, length: i64, piece_length: i64) -> Oracle<'static> {
        let n_pieces = usize::try_from((length + piece_length - 1) / piece_length).unwrap();
        dictionary(&[
            ("length", Oracle::Integer(length)),
            ("name", text(name)),
            ("piece length", Oracle::Integer(piece_length)),
            ("pieces", Oracle::Bytes(vec![7; 20 * n_pieces].into())),
            ("x-unknown", Oracle::List(vec![Oracle::Integer(-1)])),
        ])
    }

    fn bytes_of(value: &Oracle<'_>) -> Vec<u8> {
        let mut encoder = Encoder::new().with_max_depth(32);
        encoder.emit(value).unwrap();
        encoder.get_output().unwrap()
    }

    /// B1: every part is right, and the info-hash is that of the bytes that another program wrote.
    #[test]
    fn b1_a_torrent_of_another_program_is_read() {
        let info = oracle_info("ubuntu.iso", 100_000, 30_000);
        let list = |urls: &[&str]| Oracle::List(urls.iter().map(|url| text(url)).collect());
        let file = bytes_of(&dictionary(&[
            ("announce", text("http://a/announce")),
            ("announce-list", Oracle::List(vec![list(&["http://a/announce", "udp://b:1"]), list(&["http://c/x"])])),
            ("creation date", Oracle::Integer(1)),
            ("info", info.clone()),
            ("nodes", Oracle::List(vec![])),
        ]));
        let torrent = Torrent::decode(&file).unwrap();
        assert_eq!(torrent.tiers(), [vec!["http://a/announce", "udp://b:1"], vec!["http://c/x"]]);
        assert_eq!(torrent.info().name.as_str(), "ubuntu.iso");
        let geometry = torrent.info().geometry;
        assert_eq!((geometry.length(), geometry.piece_length(), geometry.n_pieces()), (100_000, 30_000, 4));
        assert_eq!(torrent.info().pieces.as_bytes(), [7; 80]);
        assert_eq!(torrent.raw_info(), bytes_of(&info));
        assert_eq!(torrent.info_hash(), InfoHash::of(&bytes_of(&info)));
        assert_eq!(Torrent::decode(&torrent.encode()), Ok(torrent));
    }

    /// B1: what another program hashed is what we hash, in whatever order its keys stand.
    #[test]
    fn b1_the_info_hash_covers_the_raw_bytes_in_their_order() {
        // Keys out of order and one that we do not know: encoding it again would change it.
        let info = b"d4:name1:a6:lengthi1e1:zi9e12:piece lengthi16e6:pieces20:aaaaaaaaaaaaaaaaaaaae";
        let file = [&b"d4:info"[..], info, b"e"].concat();
        let torrent = Torrent::decode(&file).unwrap();
        assert_eq!(torrent.info_hash(), InfoHash::of(info));
        assert_ne!(torrent.info_hash(), InfoHash::of(&torrent.info().encode()));
        assert_eq!(torrent.encode(), file);
        assert!(torrent.tiers().is_empty());
    }

    #[test]
    fn golden_bytes_of_a_file() {
        let info = b"d6:lengthi0e4:name1:a12:piece lengthi16e6:pieces0:e".to_vec();
        let one = Torrent::new(vec![vec![], vec!["http://t/k/announce".into()]], info.clone()).unwrap();
        let golden = [&b"d8:announce19:http://t/k/announce4:info"[..], &info, b"e"].concat();
        assert_eq!(one.encode(), golden);
        let two = Torrent::new(vec![vec!["a:1".into()], vec!["b:2".into()]], info.clone()).unwrap();
        let golden = [&b"d8:announce3:a:113:announce-listll3:a:1el3:b:2ee4:info"[..], &info, b"e"].concat();
        assert_eq!(two.encode(), golden);
        assert!(!format!("{one:?}").contains("/k/"), "a key of a URL is not shown");
    }

    /// B2: what cannot be used is named.
    #[test]
    fn b2_unusable_files_are_refused_with_a_reason() {
        let shown = |file: &[u8]| Torrent::decode(file).unwrap_err().to_string();
        let files = dictionary(&[
            (
                "files",
                Oracle::List(vec![dictionary(&[
                    ("length", Oracle::Integer(1)),
                    ("path", Oracle::List(vec![text("a")])),
                ])]),
            ),
            ("name", text("d")),
            ("piece length", Oracle::Integer(16)),
            ("pieces", Oracle::Bytes(vec![1; 20].into())),
        ]);
        assert_eq!(shown(&bytes_of(&dictionary(&[("info", files)]))), "multi-file");
        let v2 = dictionary(&[
            ("file tree", dictionary(&[])),
            ("meta version", Oracle::Integer(2)),
            ("name", text("d")),
            ("piece length", Oracle::Integer(16384)),
        ]);
        assert_eq!(shown(&bytes_of(&dictionary(&[("info", v2)]))), "v2-only");
        assert_eq!(shown(b"de"), "'info' is missing or malformed");
        assert_eq!(shown(b"le"), "'info' is missing or malformed");
        assert_eq!(shown(b"d13:announce-listl1:ae4:infodee"), "'announce-list' is missing or malformed");
        assert_eq!(shown(b"d8:announcei1e4:infodee"), "'announce' is missing or malformed");
        assert_eq!(shown(b"d4:infod"), "not bencode: the input ends too early");
        assert!(shown(&bytes_of(&dictionary(&[("info", oracle_info("../x", 1, 1))]))).starts_with("bad name"));
        assert_eq!(shown(&vec![b' '; MAX_LENGTH + 1]), format!("longer than {MAX_LENGTH} bytes"));
    }

    #[test]
    fn a_hybrid_file_is_read_as_version_1() {
        let Oracle::Dict(mut info) = oracle_info("a", 5, 16384) else { panic!("a dictionary") };
        info.insert(b"meta version"[..].into(), Oracle::Integer(2));
        info.insert(b"file tree"[..].into(), dictionary(&[]));
        let file = bytes_of(&dictionary(&[("info", Oracle::Dict(info))]));
        assert_eq!(Torrent::decode(&file).unwrap().info().geometry.length(), 5);
    }

    #[test]
    fn trackers_are_bounded_and_junk_among_them_is_left_out() {
        let info = bytes_of(&oracle_info("a", 1, 1));
        let many = (0..MAX_URLS + 9).map(|n| vec![format!("udp://t:{n}")]).collect();
        assert_eq!(Torrent::new(many, info.clone()).unwrap().tiers().len(), MAX_URLS);
        let junk =
            vec![vec![String::new(), "a b".into(), "x".repeat(MAX_URL_LENGTH + 1), "é".into()], vec!["ok".into()]];
        assert_eq!(Torrent::new(junk, info).unwrap().tiers(), [vec!["ok"]]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_alike_and_by_an_independent_reader(
            tiers in prop::collection::vec(prop::collection::vec("[!-~]{1,12}", 1..4), 0..4),
            length in 0i64..1000, piece_length in 1i64..300,
        ) {
            let torrent = Torrent::new(tiers, bytes_of(&oracle_info("a", length, piece_length))).unwrap();
            let file = torrent.encode();
            let mut decoder = Decoder::new(&file).with_max_depth(32);
            let object = decoder.next_object().unwrap().unwrap();
            let Ok(Oracle::Dict(read)) = Oracle::decode_bencode_object(object) else { panic!("not bencode") };
            prop_assert_eq!(bytes_of(&read[&b"info"[..]]), torrent.raw_info());
            prop_assert_eq!(Torrent::decode(&file), Ok(torrent));
        }

        #[test]
        fn files_cut_or_changed_anywhere_are_survived(cut in 0usize..200, at in 0usize..200, byte in any::<u8>()) {
            let mut file = Torrent::new(vec![vec!["a".into()]], bytes_of(&oracle_info("a", 3, 2))).unwrap().encode();
            let at = at % file.len();
            file[at] = byte;
            let _ = Torrent::decode(&file);
            prop_assert!(Torrent::decode(&file[..cut.min(file.len() - 1)]).is_err());
        }
    }
}
