//! Waiting for a condition, never for a while.

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it. Far above every promise, so that a loaded
/// machine fails no test; promises with a time of their own are asserted apart.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// The pause between two looks at a condition that nobody signals.
const PAUSE: Duration = Duration::from_millis(3);

/// Looks until `look` finds something.
///
/// # Panics
/// When it found nothing within [`DEADLINE`]; `what` names it.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(DEADLINE, what, look)
}

/// As [`eventually`], with a promise of its own.
///
/// # Panics
/// When it found nothing within `limit`.
pub fn eventually_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Looks for `length` whether `look` holds every time: for things that must not happen.
///
/// # Panics
/// As soon as it does not hold.
pub fn holds_for(length: Duration, what: &str, mut look: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < length {
        assert!(look(), "does not hold: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Says that a test was skipped, past the test runner that hides the output of tests that pass.
pub fn skipped(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
