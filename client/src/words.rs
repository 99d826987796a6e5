//! Splits a line into words as a POSIX shell does: `'…'`, `"…"` and `\`, and `~/` at the start of a word.
//!
//! Unlike in a shell, `#` is an ordinary character: files are called `#1.iso`.

/// Why a line cannot be split. Nothing of it is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SplitError {
    /// A quote is opened and not closed.
    #[error("unbalanced quotes")]
    Unbalanced,
    /// The line ends in a backslash.
    #[error("nothing follows the last backslash")]
    Dangling,
}

/// The words of a line. `home` replaces `~` at the start of a word that goes on with `/` or ends there.
pub(crate) fn split(line: &str, home: Option<&str>) -> Result<Vec<String>, SplitError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            c if c.is_whitespace() => words.extend(word.take()),
            '~' if word.is_none() && letters.peek().is_none_or(|next| *next == '/' || next.is_whitespace()) => {
                word = Some(home.unwrap_or("~").to_owned());
            }
            '\'' => literal(&mut letters, word.get_or_insert_default())?,
            '"' => quoted(&mut letters, word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().push(letters.next().ok_or(SplitError::Dangling)?),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

/// The rest of a `'…'`, in which nothing has a meaning but the closing quote.
fn literal(letters: &mut impl Iterator<Item = char>, word: &mut String) -> Result<(), SplitError> {
    loop {
        match letters.next().ok_or(SplitError::Unbalanced)? {
            '\'' => return Ok(()),
            other => word.push(other),
        }
    }
}

/// The rest of a `"…"`: a backslash takes the meaning of `"`, `\`, `$` and `` ` ``, and stands for itself before
/// anything else.
fn quoted(letters: &mut impl Iterator<Item = char>, word: &mut String) -> Result<(), SplitError> {
    loop {
        match letters.next().ok_or(SplitError::Unbalanced)? {
            '"' => return Ok(()),
            '\\' => match letters.next().ok_or(SplitError::Unbalanced)? {
                meant @ ('"' | '\\' | '$' | '`') => word.push(meant),
                other => word.extend(['\\', other]),
            },
            other => word.push(other),
        }
    }
}

/// Writes a word so that [`split`] reads it back as one.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%#=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &str) -> Vec<String> {
        split(line, Some("/home/me")).unwrap()
    }

    #[test]
    fn quotes_and_backslashes_are_those_of_a_shell() {
        assert_eq!(words(r#"  a 'b c'  "d 'e' \" \x" f\ g '' "#), ["a", "b c", r#"d 'e' " \x"#, "f g", ""]);
        assert_eq!(words("get '#1.iso' #2.iso a#b"), ["get", "#1.iso", "#2.iso", "a#b"]);
        assert_eq!(words("~/x ~ ~x a~/b '~/y'"), ["/home/me/x", "/home/me", "~x", "a~/b", "~/y"]);
        assert_eq!(words(" \t "), Vec::<String>::new());
    }

    #[test]
    fn unbalanced_lines_give_no_words() {
        for line in ["'a", "\"a", "a 'b c\" d", "\"a\\"] {
            assert_eq!(split(line, None), Err(SplitError::Unbalanced), "{line}");
        }
        assert_eq!(split("a\\", None), Err(SplitError::Dangling));
    }

    proptest! {
        #[test]
        fn a_quoted_word_is_read_back(word in "\\PC{0,20}", next in "\\PC{0,20}") {
            prop_assert_eq!(split(&format!("{} {}", quote(&word), quote(&next)), Some("/h")), Ok(vec![word, next]));
        }
    }
}
