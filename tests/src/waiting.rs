//! Waiting for a condition, never for a while.

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it. Far above every promise, so that a loaded
/// machine fails no test; promises with a time of their own are asserted apart.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Within what time who asks hears that no tracker answers, and comes back to one that is there again.
pub const UNREACHABLE: Duration = Duration::from_secs(5);
/// By what factor a promise of seconds may be missed here: who shares two cores with all other tests is late by chance.
/// What a test rules out is a wait of another order; how long things take is measured in the benchmarks.
const UNDER_LOAD: u32 = 3;
/// The pause between two looks at a condition that nobody signals.
const PAUSE: Duration = Duration::from_millis(3);

/// Looks until `look` finds something.
///
/// # Panics
/// When it found nothing within [`DEADLINE`]; `what` names it.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(DEADLINE, what, look)
}

/// As [`eventually`], with a promise of its own, which a loaded machine may miss by a factor.
///
/// # Panics
/// When it found nothing in time.
pub fn eventually_within<T>(promise: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    found_within(promise * UNDER_LOAD, look).unwrap_or_else(|| panic!("promised within {promise:?}: {what}"))
}

/// Does something that is promised to take no longer than that; a loaded machine may miss it by a factor.
///
/// # Panics
/// When it took longer.
pub fn in_time<T>(promise: Duration, what: &str, act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = act();
    assert!(start.elapsed() < promise * UNDER_LOAD, "promised within {promise:?}, took {:?}: {what}", start.elapsed());
    done
}

/// Looks until `look` finds something, or until `limit` is over.
pub fn found_within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let found = look();
        if found.is_some() || start.elapsed() >= limit {
            return found;
        }
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
