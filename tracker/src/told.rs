//! What was told lately and is not told again.

use crate::clock::{Clock, Moment};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Remembers a bounded number of things for a while.
pub(crate) struct Told<K> {
    clock: Clock,
    memory: Duration,
    limit: usize,
    told: Mutex<HashMap<K, Moment>>,
}

impl<K: Eq + Hash> Told<K> {
    /// With room for `limit` things, each of them for as long as `memory`.
    pub(crate) fn new(clock: Clock, memory: Duration, limit: usize) -> Self {
        Self { clock, memory, limit, told: Mutex::default() }
    }

    /// Whether this is to be told, which counts as done then. Nothing is while there is no more room.
    pub(crate) fn is_new(&self, what: K) -> bool {
        let now = self.clock.now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: &Moment| now.since(*at) < self.memory;
        if told.get(&what).is_some_and(is_recent) {
            return false;
        }
        if told.len() >= self.limit {
            told.retain(|_, at| is_recent(at));
        }
        let has_room = told.len() < self.limit;
        if has_room {
            told.insert(what, now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_told_once_in_a_while_and_so_many_are_remembered() {
        let clock = Clock::manual(0);
        let told = Told::new(clock.clone(), Duration::from_secs(60), 2);
        assert!(told.is_new(1) && !told.is_new(1));
        clock.advance(Duration::from_secs(59));
        assert!(!told.is_new(1) && told.is_new(2) && !told.is_new(3), "there is no room for a third");
        clock.advance(Duration::from_secs(1));
        assert!(told.is_new(3) && !told.is_new(1) && !told.is_new(4));
    }
}
