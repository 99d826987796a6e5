//! Names of users, groups and files, and the rules that make them safe to store, compare and show.

use serde::{Deserialize, Serialize};
use std::fmt;
use unicode_normalization::UnicodeNormalization;

/// Longest user or group name in bytes.
pub const MAX_NAME_LENGTH: usize = 64;
/// Longest file name in bytes.
pub const MAX_FILE_NAME_LENGTH: usize = 255;
/// The name of the built-in group, reserved for ever.
pub const PUBLIC_GROUP: &str = "public";

/// Names that Windows gives to devices, in any directory and with any ending.
const DEVICE_NAMES: [&str; 4] = ["con", "prn", "aux", "nul"];

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
    #[error("a name has 1 to 64 letters, digits, '.', '_' or '-' and begins with a letter or digit")]
    Pattern,
    /// A file name is empty or longer than 255 bytes.
    #[error("a file name has 1 to 255 bytes")]
    FileNameLength,
    /// A file name would mean another place than its directory.
    #[error("a file name has no '/' or '\\' and is not '.' or '..'")]
    FileNamePath,
    /// A file name has a control character.
    #[error("a file name has no control character")]
    FileNameControl,
    /// A file name means a device on Windows.
    #[error("the file name means a device on Windows")]
    FileNameDevice,
}

fn check_name(text: &str) -> Result<(), NameError> {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if first && rest && text.len() <= MAX_NAME_LENGTH { Ok(()) } else { Err(NameError::Pattern) }
}

fn check_file_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() || text.len() > MAX_FILE_NAME_LENGTH {
        return Err(NameError::FileNameLength);
    }
    if text == "." || text == ".." || text.contains(['/', '\\']) {
        return Err(NameError::FileNamePath);
    }
    if text.chars().any(char::is_control) {
        return Err(NameError::FileNameControl);
    }
    let stem = text.split('.').next().unwrap_or(text).trim_end().to_ascii_lowercase();
    let numbered =
        |prefix: &str| stem.strip_prefix(prefix).is_some_and(|rest| matches!(rest.as_bytes(), [b'1'..=b'9']));
    if DEVICE_NAMES.contains(&stem.as_str()) || numbered("com") || numbered("lpt") {
        return Err(NameError::FileNameDevice);
    }
    Ok(())
}

/// Defines a checked name: parsing is the only way to make one, on the wire too.
macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as its creator wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                $check(&text).map(|()| Self(text))
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&crate::escape::Escaped(&self.0), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

checked_name!(
    /// The name of an account.
    UserName,
    check_name
);
checked_name!(
    /// The name of a group.
    GroupName,
    check_name
);
checked_name!(
    /// The name of a file in a group. Hostile until checked: it decides where bytes land on a disk.
    FileName,
    check_file_name
);

impl UserName {
    /// What makes two user names the same: ASCII letters fold.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl GroupName {
    /// What makes two group names the same: ASCII letters fold.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// Whether this is the built-in group.
    pub fn is_public(&self) -> bool {
        self.0.eq_ignore_ascii_case(PUBLIC_GROUP)
    }
}

impl FileName {
    /// What makes two file names the same: composed form (NFC) and case fold. Upper-casing first
    /// folds the letters that have no single lower-case partner (`ß`, `SS`).
    pub fn key(&self) -> String {
        let folded: String = self.0.nfc().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect();
        folded.nfc().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn user_names_follow_the_pattern() {
        for good in ["a", "Zoë".trim_end_matches('ë'), "0-9._x", &"a".repeat(64)] {
            assert!(good.parse::<UserName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "Zoë", "a/b", &"a".repeat(65), "a\n"] {
            assert_eq!(bad.parse::<UserName>(), Err(NameError::Pattern), "{bad:?}");
        }
    }

    #[test]
    fn hostile_file_names_are_refused() {
        let long = "x".repeat(256);
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "/etc/passwd",
            "..\\x",
            "a\0b",
            "a\x1bb",
            "a\u{9b}",
            "NUL",
            "con.txt",
            "Com1",
            "lpt9.x",
            "aux .c",
            &long,
        ] {
            assert!(bad.parse::<FileName>().is_err(), "{bad:?}");
        }
        for good in ["a", "...", "#1.iso", "com0", "com10", "console", "Grüße 日本.txt", " a "] {
            assert!(good.parse::<FileName>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn names_that_look_alike_have_one_key() {
        let key = |text: &str| text.parse::<FileName>().unwrap().key();
        assert_eq!(key("Caf\u{e9}.TXT"), key("cafe\u{301}.txt"));
        assert_eq!(key("straße"), key("STRASSE"));
        assert_ne!(key("a"), key("b"));
        assert_eq!("Bob".parse::<UserName>().unwrap().key(), "bob");
        assert!("PUBLIC".parse::<GroupName>().unwrap().is_public());
    }

    proptest! {
        #[test]
        fn any_accepted_file_name_stays_in_its_directory(text in "\\PC{0,40}") {
            if let Ok(name) = text.parse::<FileName>() {
                let path = std::path::Path::new("base").join(name.as_str());
                prop_assert_eq!(path.parent(), Some(std::path::Path::new("base")));
            }
        }
    }
}
