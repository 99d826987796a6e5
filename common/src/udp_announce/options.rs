//! The options behind an announce request (BEP 41).

#![deny(clippy::indexing_slicing)]

/// Longest URL data of one request in bytes, over all its options.
pub const MAX_URL_DATA_LENGTH: usize = 512;

const END: u8 = 0;
const NOP: u8 = 1;
const URL_DATA: u8 = 2;

/// The raw options of a request, read when they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options<'a>(pub(super) &'a [u8]);

/// Why options cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// An option ends behind the packet.
    #[error("truncated option")]
    Truncated,
    /// More than [`MAX_URL_DATA_LENGTH`].
    #[error("url data too long")]
    TooLong,
}

impl<'a> Options<'a> {
    /// The path and query of the tracker's URL, joined from all its options in `scratch` if there are several; empty
    /// when there is none. Unknown options are passed over.
    ///
    /// # Errors
    /// When an option is cut, or the data too long.
    pub fn url_data<'b>(&self, scratch: &'b mut [u8; MAX_URL_DATA_LENGTH]) -> Result<&'b [u8], OptionsError>
    where
        'a: 'b,
    {
        let mut length = 0usize;
        let mut only: Option<&'a [u8]> = None;
        for part in self.url_parts() {
            let part = part?;
            let end = length.saturating_add(part.len());
            scratch.get_mut(length..end).ok_or(OptionsError::TooLong)?.copy_from_slice(part);
            only = if length == 0 { Some(part) } else { None };
            length = end;
        }
        match only {
            Some(part) if part.len() == length => Ok(part),
            _ => Ok(scratch.get(..length).unwrap_or_default()),
        }
    }

    fn url_parts(&self) -> impl Iterator<Item = Result<&'a [u8], OptionsError>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            loop {
                let (kind, tail) = rest.split_first()?;
                rest = match *kind {
                    END => &[],
                    NOP => tail,
                    kind => {
                        let body = tail.split_first().and_then(|(n, tail)| tail.split_at_checked(usize::from(*n)));
                        let Some((body, tail)) = body else {
                            rest = &[];
                            return Some(Err(OptionsError::Truncated));
                        };
                        rest = tail;
                        if kind == URL_DATA {
                            return Some(Ok(body));
                        }
                        tail
                    }
                };
            }
        })
    }
}

/// Appends URL data as options and their end; nothing for empty data. Data beyond [`MAX_URL_DATA_LENGTH`] is left out.
pub(super) fn put_url_data(out: &mut Vec<u8>, data: &[u8]) {
    let data = data.get(..data.len().min(MAX_URL_DATA_LENGTH)).unwrap_or_default();
    for part in data.chunks(usize::from(u8::MAX)) {
        out.push(URL_DATA);
        out.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(part);
    }
    if !data.is_empty() {
        out.push(END);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(options: &[u8]) -> Result<Vec<u8>, OptionsError> {
        Options(options).url_data(&mut [0; MAX_URL_DATA_LENGTH]).map(<[u8]>::to_vec)
    }

    /// The examples of BEP 41, and what hostile clients make of them.
    #[test]
    fn url_data_is_joined_and_other_options_passed_over() {
        for (options, expected) in [
            (&b""[..], &b""[..]),
            (b"\x00\x02\x01x", b""),
            (b"\x02\x0c/dir?a=b&c=d", b"/dir?a=b&c=d"),
            (b"\x01\x01\x02\x02/a\x01\x02\x00\x02\x02bc\x00rubbish", b"/abc"),
            (b"\x07\x03xyz\x02\x01/", b"/"),
            (b"\x02\x00\x02\x01/", b"/"),
            (b"\x02\x01/\x02\x00", b"/"),
        ] {
            assert_eq!(url(options), Ok(expected.to_vec()), "{}", options.escape_ascii());
        }
        for cut in [&b"\x02"[..], b"\x02\x05/dir", b"\x09", b"\x09\x01"] {
            assert_eq!(url(cut), Err(OptionsError::Truncated), "{}", cut.escape_ascii());
        }
        let part = [&[URL_DATA, 255][..], &[b'x'; 255]].concat();
        assert_eq!(url(&part.repeat(2)).map(|data| data.len()), Ok(510));
        assert_eq!(url(&part.repeat(3)), Err(OptionsError::TooLong));
    }

    proptest! {
        #[test]
        fn any_options_are_survived(options in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = url(&options);
        }

        #[test]
        fn url_data_round_trips(data in prop::collection::vec(any::<u8>(), 0..=MAX_URL_DATA_LENGTH)) {
            let mut out = Vec::new();
            put_url_data(&mut out, &data);
            prop_assert_eq!(url(&out), Ok(data));
        }
    }
}
