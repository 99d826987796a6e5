//! Waits after failed logins, per (account, address) and per address, and between new accounts from one address.
//! Failures from one address never lock an account for another.

use crate::clock::{Clock, Moment};
use crate::limits;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What is counted of an address block.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Counted {
    /// Failed logins to the account of this key.
    Account(String),
    /// Failed logins to any account.
    Logins,
    /// New accounts.
    Registrations,
}

type Entry = (Counted, IpAddr);

/// Remembers failures and new accounts for a while.
pub(crate) struct Backoff {
    clock: Clock,
    failures: Mutex<HashMap<Entry, Failures>>,
}

#[derive(Clone, Copy)]
struct Failures {
    n: u32,
    last: Moment,
}

/// A try that counts as failed until it is known to have succeeded, so that many at once gain nothing.
#[must_use]
pub(crate) struct Try {
    counted: Entry,
}

impl Backoff {
    /// Nobody has failed yet.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, failures: Mutex::default() }
    }

    /// Begins a try.
    ///
    /// # Errors
    /// How long to wait before the next one.
    pub(crate) fn begin(&self, account: String, address: IpAddr) -> Result<Try, Duration> {
        let now = self.clock.now();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = (Counted::Account(account), address);
        let all = wait(&failures, &(Counted::Logins, address), now, limits::FREE_FAILURES_PER_ADDRESS);
        let wait = all.max(wait(&failures, &counted, now, limits::FREE_FAILURES));
        if !wait.is_zero() {
            return Err(wait);
        }
        count(&mut failures, counted.clone(), now);
        Ok(Try { counted })
    }

    /// Begins to make an account, which counts unless it is withdrawn.
    ///
    /// # Errors
    /// How long to wait before the next one.
    pub(crate) fn begin_registration(&self, address: IpAddr) -> Result<Try, Duration> {
        let now = self.clock.now();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = (Counted::Registrations, address);
        let wait = wait(&failures, &counted, now, limits::FREE_REGISTRATIONS);
        if !wait.is_zero() {
            return Err(wait);
        }
        count(&mut failures, counted.clone(), now);
        Ok(Try { counted })
    }

    /// The password was right.
    pub(crate) fn succeeded(&self, attempt: Try) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&attempt.counted);
    }

    /// The try came to nothing for a reason of ours; it does not count.
    pub(crate) fn withdrawn(&self, attempt: Try) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failed) = failures.get_mut(&attempt.counted) {
            failed.n = failed.n.saturating_sub(1);
        }
    }

    /// The password was wrong.
    pub(crate) fn failed(&self, attempt: Try) {
        let now = self.clock.now();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        count(&mut failures, (Counted::Logins, attempt.counted.1), now);
    }
}

fn wait(failures: &HashMap<Entry, Failures>, entry: &Entry, now: Moment, n_free: u32) -> Duration {
    failures.get(entry).map_or(Duration::ZERO, |failed| failed.wait(now, n_free))
}

fn count(failures: &mut HashMap<Entry, Failures>, entry: Entry, now: Moment) {
    if failures.len() >= limits::MAX_BACKOFF_ENTRIES && !failures.contains_key(&entry) {
        failures.retain(|_, failed| now.since(failed.last) < limits::MAX_BACKOFF);
        // Still full: the flood comes from very many addresses, and the queue for passwords has to bound it.
        if failures.len() >= limits::MAX_BACKOFF_ENTRIES {
            return;
        }
    }
    let failed = failures.entry(entry).or_insert(Failures { n: 0, last: now });
    if now.since(failed.last) >= limits::BACKOFF_MEMORY {
        failed.n = 0;
    }
    *failed = Failures { n: failed.n.saturating_add(1), last: now };
}

impl Failures {
    /// What is left of the wait after the last failure: 1 s after the free ones, doubling to a minute.
    fn wait(self, now: Moment, n_free: u32) -> Duration {
        let Some(n_over) = self.n.checked_sub(n_free) else { return Duration::ZERO };
        let whole = Duration::from_secs(1 << n_over.min(6)).min(limits::MAX_BACKOFF);
        whole.saturating_sub(now.since(self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(backoff: &Backoff, account: &str, address: &str) -> Result<(), Duration> {
        let attempt = backoff.begin(account.into(), address.parse().unwrap())?;
        backoff.failed(attempt);
        Ok(())
    }

    #[test]
    fn waits_grow_after_five_failures_and_only_for_that_address() {
        let clock = Clock::manual(0);
        let backoff = Backoff::new(clock.clone());
        for _ in 0..limits::FREE_FAILURES {
            assert_eq!(fail(&backoff, "bob", "10.0.0.1"), Ok(()));
        }
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = fail(&backoff, "bob", "10.0.0.1").unwrap_err();
            waits.push(wait.as_secs());
            assert_eq!(fail(&backoff, "bob", "10.0.0.2"), Ok(()), "the owner's own address is not barred");
            backoff.succeeded(backoff.begin("bob".into(), "10.0.0.2".parse().unwrap()).unwrap_or_else(|_| panic!()));
            clock.advance(wait);
            assert_eq!(fail(&backoff, "bob", "10.0.0.1"), Ok(()));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_success_clears_the_account_and_the_address_is_counted_over_accounts() {
        let clock = Clock::manual(0);
        let backoff = Backoff::new(clock.clone());
        for n in 0..limits::FREE_FAILURES_PER_ADDRESS {
            assert_eq!(fail(&backoff, &format!("user{n}"), "10.0.0.1"), Ok(()));
        }
        assert!(fail(&backoff, "another", "10.0.0.1").is_err());
        clock.advance(limits::BACKOFF_MEMORY);
        assert_eq!(fail(&backoff, "another", "10.0.0.1"), Ok(()));
    }

    #[test]
    fn waits_between_new_accounts_grow_to_a_minute_and_logins_do_not_wait_for_them() {
        let clock = Clock::manual(0);
        let backoff = Backoff::new(clock.clone());
        let [here, there]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let mut waits = Vec::new();
        for n in 0..limits::FREE_REGISTRATIONS + 8 {
            if let Err(wait) = backoff.begin_registration(here).map(drop) {
                waits.push((n, wait.as_secs()));
                clock.advance(wait);
                assert!(backoff.begin_registration(here).is_ok());
            }
        }
        let first = limits::FREE_REGISTRATIONS;
        assert_eq!(
            waits,
            [1, 2, 4, 8, 16, 32, 60, 60].into_iter().zip(first..).map(|(s, n)| (n, s)).collect::<Vec<_>>()
        );
        assert!(backoff.begin_registration(there).is_ok() && fail(&backoff, "bob", "10.0.0.1").is_ok());
        clock.advance(limits::BACKOFF_MEMORY);
        assert!((0..limits::FREE_REGISTRATIONS).all(|_| backoff.begin_registration(here).is_ok()), "it is forgotten");
    }

    #[test]
    fn a_registration_that_was_withdrawn_does_not_count() {
        let backoff = Backoff::new(Clock::manual(0));
        let here = "10.0.0.1".parse().unwrap();
        for _ in 0..2 * limits::FREE_REGISTRATIONS {
            backoff.withdrawn(backoff.begin_registration(here).unwrap_or_else(|_| panic!()));
        }
    }

    #[test]
    fn tries_at_once_count_before_they_are_judged() {
        let backoff = Backoff::new(Clock::manual(0));
        let address = "10.0.0.1".parse().unwrap();
        let tries: Vec<_> = (0..limits::FREE_FAILURES).map(|_| backoff.begin("bob".into(), address).is_ok()).collect();
        assert!(tries.into_iter().all(|began| began) && backoff.begin("bob".into(), address).is_err());
    }
}
