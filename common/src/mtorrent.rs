//! `.mtorrent`, the plain text that a member carries to another (design §7).
//!
//! One a line: tracker 1, tracker 2 (with one tracker, line 2 repeats line 1), file name, size in bytes, and the hash
//! string of 20 hexadecimal digits a piece, the first 20 of its SHA-1. Then come `key: value` lines of ours, of which
//! readers ignore those that they do not know. Pieces are of 512 KiB. When reading, a tracker may also stand on two
//! lines, address and port, and a piece may have all its 40 digits. The trackers are hints from whoever wrote the
//! file: no credential is ever sent there.

use crate::address::{Endpoint, parse_host, parse_port};
use crate::geometry::{Geometry, GeometryError, MAX_PIECES, PIECE_LENGTH};
use crate::hash::{GroupId, InfoHash, Sha1Hash};
use crate::metainfo::PieceHashes;
use crate::names::{FileName, NameError};
use std::fmt;

/// Longest file in bytes: 40 digits for each of the most pieces, and 64 KiB for the rest.
pub const MAX_LENGTH: usize = MAX_PIECES as usize * FULL_DIGITS + 64 * 1024;
/// Digits of a piece as we write it.
const PREFIX_DIGITS: usize = 20;
/// Digits of a whole SHA-1.
const FULL_DIGITS: usize = 40;

/// What a `.mtorrent` file says.
#[derive(Clone, PartialEq, Eq)]
pub struct Mtorrent {
    /// The two trackers; with only one, the same twice.
    pub trackers: [Endpoint; 2],
    /// The name to save the file under.
    pub name: FileName,
    /// Length in bytes and its pieces.
    pub geometry: Geometry,
    /// What is known of every piece's SHA-1.
    pub pieces: PieceDigits,
    /// The info-hash, if the file has our lines.
    pub info_hash: Option<InfoHash>,
    /// The group, if the file has our lines and is not of the built-in group.
    pub group: Option<GroupId>,
}

/// The beginning of the SHA-1 of every piece, in order: half of it, or all.
#[derive(Clone, PartialEq, Eq)]
pub struct PieceDigits {
    bytes: Vec<u8>,
    bytes_per_piece: usize,
}

/// Why a text is not a `.mtorrent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MtorrentError {
    /// It is longer than [`MAX_LENGTH`].
    #[error("longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// It ends before this line.
    #[error("the {0} is missing")]
    Missing(&'static str),
    /// A line is not what its place asks for.
    #[error("line {line}: expected {expected}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// The name is not a safe file name.
    #[error("bad name: {0}")]
    Name(#[from] NameError),
    /// The size is out of bounds.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
}

impl PieceDigits {
    /// All 40 digits, as an `info` dictionary has them.
    pub fn full(pieces: &PieceHashes) -> Self {
        Self { bytes: pieces.as_bytes().to_vec(), bytes_per_piece: FULL_DIGITS / 2 }
    }

    /// Number of pieces.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.bytes_per_piece
    }

    /// Whether there is no piece.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether the piece with this index may have this SHA-1, as far as is known.
    pub fn fits(&self, index: usize, hash: Sha1Hash) -> bool {
        let piece = self.bytes.chunks_exact(self.bytes_per_piece).nth(index);
        piece.is_some_and(|known| hash.as_bytes().starts_with(known))
    }

    /// Whether these may be the pieces of that dictionary: as many, and each fits.
    pub fn fit(&self, pieces: &PieceHashes) -> bool {
        let theirs = pieces.as_bytes().chunks_exact(Sha1Hash::LENGTH);
        let ours = self.bytes.chunks_exact(self.bytes_per_piece);
        pieces.len() == self.len() && theirs.zip(ours).all(|(hash, known)| hash.starts_with(known))
    }

    /// The whole hashes, if they are known.
    pub fn hashes(&self) -> Option<PieceHashes> {
        (self.bytes_per_piece == Sha1Hash::LENGTH).then(|| PieceHashes::new(self.bytes.clone())).flatten()
    }

    fn read(text: &str, n_pieces: usize) -> Option<Self> {
        let bytes_per_piece = if text.len() == n_pieces * PREFIX_DIGITS { PREFIX_DIGITS / 2 } else { FULL_DIGITS / 2 };
        if text.len() != n_pieces * bytes_per_piece * 2 {
            return None;
        }
        let nibble = |digit: u8| (digit as char).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let pairs = text.as_bytes().as_chunks::<2>().0;
        let bytes: Option<Vec<u8>> =
            pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?)).collect();
        Some(Self { bytes: bytes?, bytes_per_piece })
    }
}

impl fmt::Debug for PieceDigits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PieceDigits({} of {} digits)", self.len(), self.bytes_per_piece * 2)
    }
}

/// Lines with their numbers.
struct Lines<'a> {
    lines: std::str::Lines<'a>,
    n_read: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self, what: &'static str) -> Result<&'a str, MtorrentError> {
        self.n_read += 1;
        self.lines.next().ok_or(MtorrentError::Missing(what))
    }

    fn expected(&self, expected: &'static str) -> MtorrentError {
        MtorrentError::Line { line: self.n_read, expected }
    }

    /// `address:port`, or the address and the port on two lines.
    fn tracker(&mut self) -> Result<Endpoint, MtorrentError> {
        let line = self.next("tracker")?.trim();
        if let Ok(joined) = line.parse() {
            return Ok(joined);
        }
        let host = parse_host(line).ok_or(self.expected("the address of a tracker"))?;
        let port = parse_port(self.next("port of a tracker")?.trim()).ok_or(self.expected("the port of a tracker"))?;
        Ok(Endpoint { host, port })
    }
}

impl Mtorrent {
    /// Reads a file's text.
    ///
    /// # Errors
    /// The first line that is not what its place asks for, by number; a hostile name; a size out of bounds.
    pub fn parse(text: &str) -> Result<Self, MtorrentError> {
        if text.len() > MAX_LENGTH {
            return Err(MtorrentError::TooLong);
        }
        let mut lines = Lines { lines: text.lines(), n_read: 0 };
        let trackers = [lines.tracker()?, lines.tracker()?];
        let name = lines.next("file name")?.parse()?;
        let size = lines.next("size")?.trim();
        let digits = size.bytes().all(|b| b.is_ascii_digit());
        let size = size.parse().ok().filter(|_| digits).ok_or(lines.expected("a size in bytes"))?;
        let geometry = Geometry::new(size, u64::from(PIECE_LENGTH))?;
        let hashes = match lines.next("hash string") {
            Err(_) if geometry.n_pieces() == 0 => "",
            line => line?.trim(),
        };
        let pieces = PieceDigits::read(hashes, geometry.n_pieces() as usize)
            .ok_or(lines.expected("20 hexadecimal digits for each piece"))?;
        let (mut info_hash, mut group) = (None, None);
        while let Ok(line) = lines.next("") {
            if line.trim().is_empty() {
                continue;
            }
            let (key, value) = line.split_once(':').ok_or(lines.expected("a key and a value"))?;
            let value = value.trim();
            match key.trim() {
                "info-hash" if info_hash.is_none() => {
                    info_hash = Some(value.parse().map_err(|_| lines.expected("an info-hash"))?);
                }
                "group" if group.is_none() => group = Some(value.parse().map_err(|_| lines.expected("a group's id"))?),
                "info-hash" | "group" => return Err(lines.expected("each key once")),
                _ => {}
            }
        }
        Ok(Self { trackers, name, geometry, pieces, info_hash, group })
    }
}

impl fmt::Display for Mtorrent {
    /// The file's text, with 20 digits a piece.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = &self.trackers;
        writeln!(f, "{first}\n{second}\n{}\n{}", self.name.as_str(), self.geometry.length())?;
        for piece in self.pieces.bytes.chunks_exact(self.pieces.bytes_per_piece) {
            piece.iter().take(PREFIX_DIGITS / 2).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        writeln!(f)?;
        if let Some(info_hash) = self.info_hash {
            writeln!(f, "info-hash: {info_hash}")?;
        }
        self.group.map_or(Ok(()), |group| writeln!(f, "group: {group}"))
    }
}

impl fmt::Debug for Mtorrent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mtorrent({:?}, {} bytes, {:?})", self.name, self.geometry.length(), self.pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha1::{Digest, Sha1};

    const P: usize = PIECE_LENGTH as usize;

    fn of(content: &[u8], trackers: [&str; 2]) -> Mtorrent {
        let hashes: Vec<u8> = content.chunks(P).flat_map(|piece| Sha1::digest(piece).to_vec()).collect();
        Mtorrent {
            trackers: trackers.map(|tracker| tracker.parse().unwrap()),
            name: "a b.bin".parse().unwrap(),
            geometry: Geometry::new(content.len() as u64, P as u64).unwrap(),
            pieces: PieceDigits::full(&PieceHashes::new(hashes).unwrap()),
            info_hash: None,
            group: None,
        }
    }

    /// A1: tracker 1, tracker 2, name, size, hash string, in this order.
    #[test]
    fn a1_golden_text() {
        let mut file = of(b"abc", ["10.0.0.1:18000", "[::1]:18001"]);
        let plain = "10.0.0.1:18000\n[::1]:18001\na b.bin\n3\na9993e364706816aba3e\n";
        assert_eq!(file.to_string(), plain);
        file.info_hash = Some(InfoHash([0xab; 20]));
        file.group = Some(GroupId([1; 16]));
        let ours = format!("{plain}info-hash: {}\ngroup: {}\n", "ab".repeat(20), "01".repeat(16));
        assert_eq!(file.to_string(), ours);
        let read = Mtorrent::parse(&ours).unwrap();
        assert_eq!((read.to_string(), read.info_hash, read.group), (ours, file.info_hash, file.group));
    }

    /// A1: with one tracker, line 2 repeats line 1.
    #[test]
    fn a1_one_tracker_stands_twice() {
        let file = of(b"abc", ["10.0.0.1:1"; 2]).to_string();
        let lines: Vec<&str> = file.lines().take(2).collect();
        assert_eq!(lines, ["10.0.0.1:1"; 2]);
    }

    /// A2: 20 characters a piece, each part the first 20 digits of the piece's SHA-1.
    #[test]
    fn a2_the_hash_string_has_20_digits_a_piece() {
        let content: Vec<u8> = (0..251).cycle().take(5 * P / 2).collect();
        let text = of(&content, ["10.0.0.1:1"; 2]).to_string();
        let string = text.lines().nth(4).unwrap();
        assert_eq!(string.len(), 60);
        for (digits, piece) in string.as_bytes().chunks(20).zip(content.chunks(P)) {
            assert_eq!(digits, &Sha1Hash::of(piece).to_string().as_bytes()[..20]);
        }
    }

    /// A3: 1024 KiB make two pieces and 40 characters; the digits are those of `sha1sum` over 512 KiB of zeros.
    #[test]
    fn a3_a_mebibyte_has_two_pieces() {
        let text = of(&vec![0; 2 * P], ["10.0.0.1:1"; 2]).to_string();
        assert_eq!(text.lines().nth(4).unwrap(), "6a521e1d2a632c26e53b6a521e1d2a632c26e53b");
    }

    /// A4: the last piece covers the remainder, and a multiple of P has no empty piece.
    #[test]
    fn a4_the_number_of_pieces_is_that_of_the_size() {
        for (length, n_pieces) in [(0, 0), (1, 1), (P, 1), (P + 1, 2), (2 * P, 2)] {
            let text = of(&vec![1; length], ["10.0.0.1:1"; 2]).to_string();
            assert_eq!(text.lines().nth(4).unwrap().len(), 20 * n_pieces);
            assert_eq!(Mtorrent::parse(&text).unwrap().pieces.len(), n_pieces);
            let one_more = text.replacen(&format!("\n{length}\n"), &format!("\n{length}\n{}", "0".repeat(10)), 1);
            assert!(Mtorrent::parse(&one_more).is_err(), "half a piece too many for {length}");
        }
    }

    /// A5: the name and the size are the file's; a hostile name is refused.
    #[test]
    fn a5_a_hostile_name_is_refused() {
        let text = |name: &str| format!("10.0.0.1:1\n10.0.0.1:1\n{name}\n3\n{}\n", "a".repeat(20));
        let read = Mtorrent::parse(&text(" x.bin")).unwrap();
        assert_eq!((read.name.as_str(), read.geometry.length()), (" x.bin", 3));
        for hostile in ["", "..", "../x", "/etc/passwd", "a\\b", "a\0", "a\u{1b}[2J", "NUL"] {
            assert!(matches!(Mtorrent::parse(&text(hostile)), Err(MtorrentError::Name(_))), "{hostile:?}");
        }
    }

    #[test]
    fn the_classic_form_and_40_digits_are_read() {
        let hash = Sha1Hash::of(b"abc");
        let classic = format!("10.0.0.1\r\n1\r\n::1\r\n2\r\na\r\n3\r\n{}", hash.to_string().to_uppercase());
        let read = Mtorrent::parse(&classic).unwrap();
        assert_eq!(read.trackers.each_ref().map(ToString::to_string), ["10.0.0.1:1", "[::1]:2"]);
        assert_eq!(read.pieces.hashes().unwrap().get(0), Some(hash));
        assert!(read.pieces.fits(0, hash) && !read.pieces.fits(1, hash));
        let short = Mtorrent::parse(&read.to_string()).unwrap();
        assert!(short.pieces.hashes().is_none() && short.pieces.fits(0, hash));
        assert!(!short.pieces.fits(0, Sha1Hash::of(b"abd")));
        let whole = PieceHashes::new(hash.as_bytes().to_vec()).unwrap();
        assert!(short.pieces.fit(&whole) && !short.pieces.fit(&PieceHashes::new(vec![0; 20]).unwrap()));
        assert!(Mtorrent::parse("t.example\n1\nt.example:2\na\n0").unwrap().pieces.is_empty(), "an empty file");
    }

    #[test]
    fn a_bad_line_is_named() {
        let good = format!("10.0.0.1:1\n10.0.0.1:1\na\n3\n{}\nx-new: 1\n", "a".repeat(20));
        assert!(Mtorrent::parse(&good).is_ok(), "an unknown key is ignored");
        for (from, to, line) in [
            ("10.0.0.1:1\n1", "10.0.0.1:0\n1", 1),
            ("10.0.0.1:1\na", "10.0.0.1\na", 3),
            ("\n3\n", "\n-3\n", 4),
            ("\n3\n", "\n+3\n", 4),
            ("\n3\n", "\n\n", 4),
            ("aaaaa", "aaaag", 5),
            ("aaaaa", "aaaa", 5),
            ("\n3\n", "\n600000\n", 5),
            ("x-new: 1", "x-new", 6),
            ("x-new: 1", "info-hash: 1", 6),
            ("x-new: 1", "group: x", 6),
        ] {
            let error = Mtorrent::parse(&good.replacen(from, to, 1));
            assert!(matches!(error, Err(MtorrentError::Line { line: l, .. }) if l == line), "{to:?}: {error:?}");
        }
        let twice = format!("{good}group: {0}\ngroup: {0}\n", "0".repeat(32));
        assert_eq!(Mtorrent::parse(&twice), Err(MtorrentError::Line { line: 8, expected: "each key once" }));
        assert_eq!(Mtorrent::parse("10.0.0.1:1\n"), Err(MtorrentError::Missing("tracker")));
        let huge = good.replacen("\n3\n", &format!("\n{}\n", u64::MAX), 1);
        assert!(matches!(Mtorrent::parse(&huge), Err(MtorrentError::Geometry(_))));
        assert_eq!(Mtorrent::parse(&"a".repeat(MAX_LENGTH + 1)), Err(MtorrentError::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_is_survived_and_what_is_written_reads_alike(text in "([0-9a-f:.]{1,12}\n){3,8}") {
            if let Ok(file) = Mtorrent::parse(&text) {
                let written = file.to_string();
                prop_assert_eq!(Mtorrent::parse(&written).map(|again| again.to_string()), Ok(written));
            }
        }
    }
}
