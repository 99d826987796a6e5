//! Peers that the tracker named: whom to dial, and when again.

use crate::event::{Candidate, PeerKey};
use crate::limits::Limits;
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The candidates of one torrent.
///
/// Invariant: each candidate is waiting, being dialled, or connected; `queue` holds exactly the waiting ones by time,
/// `dials` exactly those being dialled. Their number never passes [`Limits::candidates`].
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    by_key: BTreeMap<PeerKey, Entry>,
    /// When to dial, a random number among equals, whom.
    queue: BTreeSet<(Instant, u32, PeerKey)>,
    /// Since when.
    dials: BTreeMap<PeerKey, Instant>,
}

#[derive(Debug)]
struct Entry {
    address: SocketAddr,
    dial_as_seeder: bool,
    n_failures: u32,
    /// Its place in the queue while it waits.
    place: Option<(Instant, u32)>,
}

impl Candidates {
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn n_dials(&self) -> usize {
        self.dials.len()
    }

    /// The tracker named it. A new address is tried at once, a known one when its turn comes.
    pub(crate) fn found(
        &mut self,
        candidate: Candidate,
        is_connected: bool,
        now: Instant,
        limits: &Limits,
        rng: &mut StdRng,
    ) {
        let Candidate { key, address, dial_as_seeder } = candidate;
        if let Some(entry) = self.by_key.get_mut(&key) {
            let is_new_address = entry.address != address;
            entry.address = address;
            entry.dial_as_seeder = dial_as_seeder;
            if is_new_address && let Some((at, tie)) = entry.place {
                self.queue.remove(&(at, tie, key));
                entry.n_failures = 0;
                entry.place = Some((now, tie));
                self.queue.insert((now, tie, key));
            }
            return;
        }
        if self.by_key.len() >= limits.candidates && !self.evict() {
            return;
        }
        self.by_key.insert(key, Entry { address, dial_as_seeder, n_failures: 0, place: None });
        if !is_connected {
            self.enqueue(key, now, rng);
        }
    }

    /// The tracker says that it left.
    pub(crate) fn remove(&mut self, key: PeerKey) {
        if let Some(Entry { place: Some((at, tie)), .. }) = self.by_key.remove(&key) {
            self.queue.remove(&(at, tie, key));
        }
        self.dials.remove(&key);
    }

    /// A connection to it is open, whoever opened it.
    pub(crate) fn connected(&mut self, key: PeerKey) {
        self.dials.remove(&key);
        if let Some(place) = self.by_key.get_mut(&key).and_then(|entry| entry.place.take()) {
            self.queue.remove(&(place.0, place.1, key));
        }
    }

    /// The dial, or the connection, ended. `was_useful`: it does not count as a failure.
    pub(crate) fn ended(&mut self, key: PeerKey, was_useful: bool, now: Instant, limits: &Limits, rng: &mut StdRng) {
        self.dials.remove(&key);
        let Some(entry) = self.by_key.get_mut(&key).filter(|entry| entry.place.is_none()) else { return };
        let delay = backoff(limits, if was_useful { 0 } else { entry.n_failures });
        entry.n_failures = if was_useful { 1 } else { entry.n_failures.saturating_add(1) };
        // A little spread, so that two peers that lost each other do not redial in step for ever.
        let spread = delay.mul_f64(rng.random_range(0.0..0.25));
        self.enqueue(key, now + delay + spread, rng);
    }

    /// The next one whose time has come; it counts as being dialled. `seeding`: we have everything.
    pub(crate) fn take_due(&mut self, now: Instant, seeding: bool) -> Option<Candidate> {
        let (at, tie, key) = self.first(seeding).filter(|(at, ..)| *at <= now)?;
        self.queue.remove(&(at, tie, key));
        let entry = self.by_key.get_mut(&key)?;
        entry.place = None;
        self.dials.insert(key, now);
        Some(Candidate { key, address: entry.address, dial_as_seeder: entry.dial_as_seeder })
    }

    /// Takes dials without an answer as failed.
    pub(crate) fn expire_dials(&mut self, now: Instant, limits: &Limits, rng: &mut StdRng) {
        let is_over = |since: &Instant| now.saturating_duration_since(*since) >= limits.dial_timeout;
        let over: Vec<_> = self.dials.iter().filter(|(_, since)| is_over(since)).map(|(key, _)| *key).collect();
        for key in over {
            self.ended(key, false, now, limits, rng);
        }
    }

    /// When the next dial is due, and when the oldest dial runs out.
    pub(crate) fn deadlines(&self, limits: &Limits, seeding: bool) -> (Option<Instant>, Option<Instant>) {
        let due = self.first(seeding).map(|(at, ..)| at);
        (due, self.dials.values().min().map(|since| *since + limits.dial_timeout))
    }

    /// The first in the queue, of all or of those that a seeder dials.
    fn first(&self, seeding: bool) -> Option<(Instant, u32, PeerKey)> {
        let is_dialled = |key| !seeding || self.by_key.get(key).is_some_and(|entry| entry.dial_as_seeder);
        self.queue.iter().find(|(_, _, key)| is_dialled(key)).copied()
    }

    fn enqueue(&mut self, key: PeerKey, at: Instant, rng: &mut StdRng) {
        let tie = rng.random();
        if let Some(entry) = self.by_key.get_mut(&key) {
            entry.place = Some((at, tie));
            self.queue.insert((at, tie, key));
        }
    }

    /// Lets go of the candidate that is dialled last of all, if it failed before.
    fn evict(&mut self) -> bool {
        let Some((_, _, key)) = self.queue.last().copied() else { return false };
        let has_failed = self.by_key.get(&key).is_some_and(|entry| entry.n_failures > 0);
        if has_failed {
            self.remove(key);
        }
        has_failed
    }
}

/// Doubles from `redial_min` to `redial_max`.
fn backoff(limits: &Limits, n_failures: u32) -> Duration {
    limits.redial_min.saturating_mul(2u32.saturating_pow(n_failures)).min(limits.redial_max)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "an arbitrary origin")]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn candidate(n: u8) -> Candidate {
        Candidate { key: PeerKey([n; 32]), address: SocketAddr::from(([10, 0, 0, n], 1)), dial_as_seeder: n == 2 }
    }

    #[test]
    fn redials_back_off_from_one_second_to_a_minute() {
        let (limits, mut rng, mut now) = (Limits::default(), StdRng::seed_from_u64(1), Instant::now());
        let mut candidates = Candidates::default();
        candidates.found(candidate(1), false, now, &limits, &mut rng);
        let mut delays = Vec::new();
        for _ in 0..9 {
            assert!(candidates.take_due(now, false).is_some());
            assert!(candidates.take_due(now, false).is_none(), "one dial at a time");
            candidates.ended(candidate(1).key, false, now, &limits, &mut rng);
            let due = candidates.deadlines(&limits, false).0.unwrap();
            delays.push((due - now).as_secs_f64());
            now = due;
        }
        for (delay, base) in delays.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]) {
            assert!((base..base * 1.25).contains(delay), "{delays:?}");
        }
    }

    #[test]
    fn the_list_is_bounded_and_prefers_those_that_never_failed() {
        let limits = Limits { candidates: 3, ..Limits::default() };
        let (mut rng, now) = (StdRng::seed_from_u64(1), Instant::now());
        let mut candidates = Candidates::default();
        (0..9).for_each(|n| candidates.found(candidate(n), false, now, &limits, &mut rng));
        assert_eq!(candidates.len(), 3);
        let failed = candidates.take_due(now, false).unwrap();
        candidates.ended(failed.key, false, now, &limits, &mut rng);
        candidates.found(candidate(9), false, now, &limits, &mut rng);
        assert_eq!(candidates.len(), 3);
        let left: Vec<_> = std::iter::from_fn(|| candidates.take_due(now, false)).collect();
        assert!(left.contains(&candidate(9)) && !left.contains(&failed));
    }

    #[test]
    fn a_seeder_passes_over_those_who_can_dial_it() {
        let (limits, mut rng, now) = (Limits::default(), StdRng::seed_from_u64(1), Instant::now());
        let mut candidates = Candidates::default();
        candidates.found(candidate(1), false, now, &limits, &mut rng);
        assert_eq!(candidates.take_due(now, true), None);
        assert_eq!(candidates.deadlines(&limits, true).0, None);
        candidates.found(candidate(2), false, now, &limits, &mut rng);
        assert_eq!(candidates.take_due(now, true), Some(candidate(2)));
        candidates.ended(candidate(2).key, false, now, &limits, &mut rng);
        assert!(candidates.deadlines(&limits, true).0.is_some_and(|at| at > now));
        assert_eq!(candidates.take_due(now, false), Some(candidate(1)), "with something missing all are of use");
    }

    #[test]
    fn a_dial_without_an_answer_expires() {
        let (limits, mut rng, now) = (Limits::default(), StdRng::seed_from_u64(1), Instant::now());
        let mut candidates = Candidates::default();
        candidates.found(candidate(1), false, now, &limits, &mut rng);
        candidates.take_due(now, false);
        candidates.expire_dials(now + limits.dial_timeout, &limits, &mut rng);
        assert_eq!(candidates.n_dials(), 0);
        assert!(candidates.deadlines(&limits, false).0.is_some());
    }
}
