//! The one escaper that all text from others passes on its way to a terminal, a log or the console.

use std::fmt::{self, Write};

/// Shows a text with everything that could steer a terminal or hide letters written as `\u{…}`.
#[derive(Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            c if is_treacherous(c) => write!(f, "\\u{{{:x}}}", u32::from(c)),
            c => f.write_char(c),
        })
    }
}

/// Whether a character could steer a terminal, reorder text or hide in it: C0, C1, line and paragraph
/// separators, bidirectional controls and zero-width characters.
pub fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_treacherous_characters_are_rewritten() {
        assert_eq!(Escaped("Grüße 日本 #1.iso").to_string(), "Grüße 日本 #1.iso");
        assert_eq!(Escaped("a\x1b[2J\u{202e}b\u{9b}\n").to_string(), "a\\u{1b}[2J\\u{202e}b\\u{9b}\\u{a}");
    }
}
