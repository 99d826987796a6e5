//! Bencode (BEP 3), read strictly and without copying, and written.
//!
//! Unsorted keys are accepted because they are common in the wild; duplicate keys, leading zeros, trailing
//! bytes and nesting deeper than [`MAX_DEPTH`] are not. Hashes are taken over the raw bytes that stood in the
//! input, never over something encoded again.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Deepest nesting of lists and dictionaries.
pub const MAX_DEPTH: usize = 32;
/// Most values in one input; bounds the memory that a small hostile input can ask for.
pub const MAX_VALUES: usize = 200_000;
/// Longest run of digits: that of `i64::MIN` without its sign.
const MAX_DIGITS: usize = 19;

/// A value, borrowing its strings from the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// `i…e`
    Integer(i64),
    /// `<length>:<bytes>`
    Bytes(&'a [u8]),
    /// `l…e`
    List(Vec<Value<'a>>),
    /// `d…e`
    Dictionary(Dictionary<'a>),
}

/// A dictionary in the order of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dictionary<'a> {
    entries: Vec<Entry<'a>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry<'a> {
    key: &'a [u8],
    value: Value<'a>,
    raw: &'a [u8],
}

/// Why an input is not bencode. The sender is dropped, or the file refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ends within a value.
    #[error("the input ends too early")]
    Truncated,
    /// A byte stands where none of its kind may.
    #[error("unexpected byte at {0}")]
    Unexpected(usize),
    /// A number is out of range or has leading zeros.
    #[error("bad number at {0}")]
    Number(usize),
    /// A dictionary has a key twice.
    #[error("duplicate key at {0}")]
    DuplicateKey(usize),
    /// Deeper than [`MAX_DEPTH`].
    #[error("nested too deep")]
    Depth,
    /// More than [`MAX_VALUES`].
    #[error("too many values")]
    TooMany,
    /// Bytes follow the value.
    #[error("{0} trailing bytes")]
    TrailingBytes(usize),
}

/// Reads one value that fills the input.
///
/// # Errors
/// For everything that is not exactly one well-formed value within the bounds.
pub fn decode(input: &[u8]) -> Result<Value<'_>, DecodeError> {
    let (value, rest) = decode_prefix(input)?;
    if rest.is_empty() { Ok(value) } else { Err(DecodeError::TrailingBytes(rest.len())) }
}

/// Reads one value and returns what follows it.
///
/// # Errors
/// As [`decode`], but for trailing bytes.
pub fn decode_prefix(input: &[u8]) -> Result<(Value<'_>, &[u8]), DecodeError> {
    let mut parser = Parser { input, at: 0, n_values: 0 };
    let value = parser.value(0)?;
    Ok((value, input.get(parser.at..).unwrap_or_default()))
}

impl<'a> Value<'a> {
    /// The integer, if it is one.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(n) => Some(*n),
            _ => None,
        }
    }

    /// The bytes, if it is a string.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The values of the list, if it is one.
    pub fn as_list(&self) -> Option<&[Value<'a>]> {
        match self {
            Self::List(values) => Some(values),
            _ => None,
        }
    }

    /// The dictionary, if it is one.
    pub fn as_dictionary(&self) -> Option<&Dictionary<'a>> {
        match self {
            Self::Dictionary(dictionary) => Some(dictionary),
            _ => None,
        }
    }
}

impl<'a> Dictionary<'a> {
    /// The keys and their values, in the order of the input.
    pub fn entries(&self) -> impl Iterator<Item = (&'a [u8], &Value<'a>)> {
        self.entries.iter().map(|entry| (entry.key, &entry.value))
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&Value<'a>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The bytes of a key's value exactly as they stood in the input.
    pub fn raw(&self, key: &[u8]) -> Option<&'a [u8]> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.raw)
    }
}

struct Parser<'a> {
    input: &'a [u8],
    at: usize,
    n_values: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Result<u8, DecodeError> {
        self.input.get(self.at).copied().ok_or(DecodeError::Truncated)
    }

    fn skip(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, DecodeError> {
        self.n_values = self.n_values.saturating_add(1);
        if self.n_values > MAX_VALUES {
            return Err(DecodeError::TooMany);
        }
        match self.peek()? {
            b'i' => {
                self.skip();
                self.integer().map(Value::Integer)
            }
            b'0'..=b'9' => self.bytes().map(Value::Bytes),
            b'l' | b'd' if depth == MAX_DEPTH => Err(DecodeError::Depth),
            b'l' => {
                self.skip();
                self.list(depth.saturating_add(1))
            }
            b'd' => {
                self.skip();
                self.dictionary(depth.saturating_add(1))
            }
            _ => Err(DecodeError::Unexpected(self.at)),
        }
    }

    /// Digits up to `end`, which is passed over; no leading zeros.
    fn digits(&mut self, end: u8) -> Result<u64, DecodeError> {
        let start = self.at;
        let tail = self.input.get(start..).unwrap_or_default();
        let window = tail.get(..tail.len().min(MAX_DIGITS.saturating_add(1))).unwrap_or_default();
        let n_digits = window.iter().position(|b| !b.is_ascii_digit()).unwrap_or(window.len());
        let digits = window.get(..n_digits).unwrap_or_default();
        let text = std::str::from_utf8(digits).map_err(|_| DecodeError::Number(start))?;
        if n_digits > MAX_DIGITS || (n_digits > 1 && text.starts_with('0')) {
            return Err(DecodeError::Number(start));
        }
        self.at = start.saturating_add(n_digits);
        if self.peek()? != end {
            return Err(DecodeError::Unexpected(self.at));
        }
        self.skip();
        text.parse().map_err(|_| DecodeError::Number(start))
    }

    fn integer(&mut self) -> Result<i64, DecodeError> {
        let start = self.at;
        let negative = self.peek()? == b'-';
        if negative {
            self.skip();
        }
        let magnitude = self.digits(b'e')?;
        let error = DecodeError::Number(start);
        match (negative, magnitude) {
            (true, 0) => Err(error),
            (true, _) => 0i64.checked_sub_unsigned(magnitude).ok_or(error),
            (false, _) => i64::try_from(magnitude).map_err(|_| error),
        }
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let start = self.at;
        let length = self.digits(b':')?;
        let length = usize::try_from(length).map_err(|_| DecodeError::Number(start))?;
        let end = self.at.checked_add(length).ok_or(DecodeError::Number(start))?;
        let bytes = self.input.get(self.at..end).ok_or(DecodeError::Truncated)?;
        self.at = end;
        Ok(bytes)
    }

    fn list(&mut self, depth: usize) -> Result<Value<'a>, DecodeError> {
        let mut values = Vec::new();
        while self.peek()? != b'e' {
            values.push(self.value(depth)?);
        }
        self.skip();
        Ok(Value::List(values))
    }

    fn dictionary(&mut self, depth: usize) -> Result<Value<'a>, DecodeError> {
        let mut entries: Vec<Entry<'a>> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        while self.peek()? != b'e' {
            let key_at = self.at;
            if !self.peek()?.is_ascii_digit() {
                return Err(DecodeError::Unexpected(key_at));
            }
            let key = self.bytes()?;
            if !seen.insert(key) {
                return Err(DecodeError::DuplicateKey(key_at));
            }
            let value_at = self.at;
            let value = self.value(depth)?;
            let raw = self.input.get(value_at..self.at).unwrap_or_default();
            entries.push(Entry { key, value, raw });
        }
        self.skip();
        Ok(Value::Dictionary(Dictionary { entries }))
    }
}

/// Writes bencode. Keys of a dictionary are given in sorted order, as BEP 3 asks.
#[derive(Debug, Default)]
pub struct Writer {
    output: Vec<u8>,
}

impl Writer {
    /// Writes an integer.
    pub fn integer(&mut self, n: u64) -> &mut Self {
        self.output.extend_from_slice(format!("i{n}e").as_bytes());
        self
    }

    /// Writes a string.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.output.extend_from_slice(format!("{}:", bytes.len()).as_bytes());
        self.output.extend_from_slice(bytes);
        self
    }

    /// Begins a dictionary; keys and values follow in turn.
    pub fn begin_dictionary(&mut self) -> &mut Self {
        self.output.push(b'd');
        self
    }

    /// Begins a list; its values follow.
    pub fn begin_list(&mut self) -> &mut Self {
        self.output.push(b'l');
        self
    }

    /// Writes a value that is bencode already, as it stands.
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.output.extend_from_slice(value);
        self
    }

    /// Ends a dictionary or a list.
    pub fn end(&mut self) -> &mut Self {
        self.output.push(b'e');
        self
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.output
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)] // Bytes of the tests' own.
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_of_bep_3_are_read() {
        assert_eq!(decode(b"4:spam"), Ok(Value::Bytes(b"spam")));
        assert_eq!(decode(b"i-3e"), Ok(Value::Integer(-3)));
        assert_eq!(decode(b"i-9223372036854775808e"), Ok(Value::Integer(i64::MIN)));
        assert_eq!(decode(b"l4:spami0ee"), Ok(Value::List(vec![Value::Bytes(b"spam"), Value::Integer(0)])));
        let input = b"d4:spaml1:ae3:cow3:mooe";
        let value = decode(input).unwrap();
        let dictionary = value.as_dictionary().unwrap();
        assert_eq!(dictionary.get(b"cow"), Some(&Value::Bytes(b"moo")));
        assert_eq!(dictionary.raw(b"spam"), Some(&b"l1:ae"[..]));
    }

    /// B2: a clear error, no panic, no unbounded memory.
    #[test]
    fn b2_hostile_input_is_refused() {
        for (input, error) in [
            (&b""[..], DecodeError::Truncated),
            (b"i12", DecodeError::Truncated),
            (b"5:spam", DecodeError::Truncated),
            (b"i03e", DecodeError::Number(1)),
            (b"i-0e", DecodeError::Number(1)),
            (b"-1:a", DecodeError::Unexpected(0)),
            (b"i9223372036854775808e", DecodeError::Number(1)),
            (b"99999999999999999999:", DecodeError::Number(0)),
            (b"9223372036854775807:", DecodeError::Truncated),
            (b"d1:a1:b1:a1:ce", DecodeError::DuplicateKey(7)),
            (b"di1e1:ae", DecodeError::Unexpected(1)),
            (b"x", DecodeError::Unexpected(0)),
            (b"i1ei2e", DecodeError::TrailingBytes(3)),
            (b"ie", DecodeError::Number(1)),
        ] {
            assert_eq!(decode(input), Err(error), "{}", String::from_utf8_lossy(input));
        }
        assert_eq!(decode(&b"l".repeat(200_000)), Err(DecodeError::Depth));
        assert_eq!(decode(&[b"l", &b"le".repeat(MAX_VALUES)[..], b"e"].concat()), Err(DecodeError::TooMany));
    }

    #[test]
    fn all_inputs_of_up_to_three_bytes_are_survived() {
        for bytes in (0..1u32 << 24).map(u32::to_be_bytes) {
            let [_, a, b, c] = bytes;
            // Only the letters of the grammar lead anywhere; the others end at the first byte.
            if b"ilde0123456789:-".contains(&a) || b == 0 && c == 0 {
                let _ = decode(&[a, b, c]);
                let _ = decode(&[a, b]);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_alike(n in 0..i64::MAX, bytes in prop::collection::vec(any::<u8>(), 0..50)) {
            let mut writer = Writer::default();
            writer.begin_dictionary().bytes(b"a").integer(n.unsigned_abs()).bytes(b"b").bytes(&bytes).end();
            let written = writer.finish();
            let value = decode(&written).unwrap();
            let dictionary = value.as_dictionary().unwrap();
            prop_assert_eq!(dictionary.get(b"a").and_then(Value::as_integer), Some(n));
            prop_assert_eq!(dictionary.get(b"b").and_then(Value::as_bytes), Some(&bytes[..]));
        }

        /// Whatever the oracle accepts as a canonical value, this parser accepts, and the other way round
        /// for sorted dictionaries.
        #[test]
        fn verdicts_agree_with_an_independent_parser(input in "[ilde0-9:a-c-]{0,24}") {
            let ours = decode(input.as_bytes());
            let mut oracle = bendy::decoding::Decoder::new(input.as_bytes()).with_max_depth(MAX_DEPTH);
            let theirs = match oracle.next_object() {
                Ok(Some(object)) => drain(object),
                _ => false,
            } && matches!(oracle.next_object(), Ok(None));
            if theirs {
                prop_assert!(ours.is_ok(), "{:?}", ours);
            }
        }
    }

    fn drain(object: bendy::decoding::Object<'_, '_>) -> bool {
        use bendy::decoding::Object;
        match object {
            Object::Integer(text) => text.parse::<i64>().is_ok(),
            Object::Bytes(_) => true,
            Object::List(mut list) => loop {
                match list.next_object() {
                    Ok(Some(item)) => {
                        if !drain(item) {
                            return false;
                        }
                    }
                    Ok(None) => return true,
                    Err(_) => return false,
                }
            },
            Object::Dict(mut dict) => loop {
                match dict.next_pair() {
                    Ok(Some((_, item))) => {
                        if !drain(item) {
                            return false;
                        }
                    }
                    Ok(None) => return true,
                    Err(_) => return false,
                }
            },
        }
    }
}
