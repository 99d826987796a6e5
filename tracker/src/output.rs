//! The only place that prints. What cannot be printed is dropped: a closed terminal must not end a service.

use std::io::{self, Write};

/// A line on standard output.
pub(crate) fn line(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A prompt, without an end of line.
pub(crate) fn prompt(text: &str) {
    let mut out = io::stdout().lock();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// An error on standard error, as `error[code]: text`.
pub(crate) fn error(code: impl std::fmt::Display, text: &str) {
    let _ = writeln!(io::stderr().lock(), "error[{code}]: {text}");
}
