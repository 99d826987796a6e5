//! Keys that are not welcome, in bounded number.

use crate::event::PeerKey;
use std::collections::{BTreeSet, VecDeque};

/// A set of keys that lets go of the oldest when it is full.
#[derive(Debug)]
pub(crate) struct Barred {
    keys: BTreeSet<PeerKey>,
    by_age: VecDeque<PeerKey>,
    capacity: usize,
}

impl Barred {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { keys: BTreeSet::new(), by_age: VecDeque::new(), capacity: capacity.max(1) }
    }

    pub(crate) fn contains(&self, key: PeerKey) -> bool {
        self.keys.contains(&key)
    }

    pub(crate) fn insert(&mut self, key: PeerKey) {
        if !self.keys.insert(key) {
            return;
        }
        self.by_age.push_back(key);
        if self.by_age.len() > self.capacity
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_set_lets_go_of_the_oldest() {
        let mut barred = Barred::new(2);
        let [a, b, c] = [1, 2, 3].map(|n| PeerKey([n; 32]));
        [a, a, b, c].into_iter().for_each(|key| barred.insert(key));
        assert!(!barred.contains(a) && barred.contains(b) && barred.contains(c));
    }
}
