//! Percent-encoding (RFC 3986) of bytes in URLs. A `+` stands for itself: forms are not used here.

use std::fmt;

/// The bytes that a part of a URL stands for.
///
/// Gives `None` in the place of a `%` that two hexadecimal digits do not follow; nothing comes after it.
pub fn decode(text: &[u8]) -> impl Iterator<Item = Option<u8>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (first, tail) = rest.split_first()?;
        rest = tail;
        if *first != b'%' {
            return Some(Some(*first));
        }
        let Some(([high, low], tail)) = tail.split_first_chunk::<2>() else {
            rest = &[];
            return Some(None);
        };
        let byte = nibble(*high).zip(nibble(*low)).map(|(high, low)| high << 4 | low);
        rest = if byte.is_some() { tail } else { &[] };
        Some(byte)
    })
}

/// Decodes exactly `N` bytes without allocating; `None` for fewer, more, or a broken escape.
pub fn decode_array<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    let mut decoded = decode(text);
    for byte in &mut out {
        *byte = decoded.next()??;
    }
    decoded.next().is_none().then_some(out)
}

/// Decodes at most `max_length` bytes of UTF-8; `None` for more, a broken escape, or other bytes.
pub fn decode_text(text: &str, max_length: usize) -> Option<String> {
    let bytes: Vec<u8> = decode(text.as_bytes()).take(max_length.saturating_add(1)).collect::<Option<_>>()?;
    String::from_utf8(bytes).ok().filter(|text| text.len() <= max_length)
}

fn nibble(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).and_then(|n| u8::try_from(n).ok())
}

/// Shows bytes with all but the unreserved characters of RFC 3986 escaped.
#[derive(Clone, Copy)]
pub struct Encoded<'a>(pub &'a [u8]);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => write!(f, "{}", *byte as char),
            _ => write!(f, "%{byte:02X}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_are_read_and_a_plus_is_a_plus() {
        assert_eq!(decode_text("a%20b+c%C3%bc", 99).as_deref(), Some("a b+cü"));
        assert_eq!(decode_array(b"%00%fFx"), Some([0, 255, b'x']));
        for broken in ["%", "%4", "%zz", "a%4", "%+1", "%%41"] {
            assert_eq!(decode_text(broken, 99), None, "{broken}");
        }
        assert_eq!(decode_text("%ff", 9), None, "not UTF-8");
        assert_eq!((decode_text("abc", 3).as_deref(), decode_text("abcd", 3)), (Some("abc"), None));
        assert_eq!((decode_array::<2>(b"a"), decode_array::<2>(b"abc")), (None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_round_trip(bytes in any::<[u8; 20]>()) {
            let text = Encoded(&bytes).to_string();
            prop_assert_eq!(decode_array(text.as_bytes()), Some(bytes));
        }

        #[test]
        fn decoding_never_gives_more_bytes_than_came(text in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(decode(&text).count() <= text.len());
        }
    }
}
