//! Password hashing: argon2id with 19 MiB and two passes, on threads of its own, behind bounded queues, so
//! that a flood of logins costs its senders time and nobody else, and a flood of new accounts keeps nobody from
//! logging in.

mod hasher;

use crate::domain::Refused;
use crate::limits;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Params, PasswordHasher, PasswordVerifier};
use hasher::Hasher;
use mini_torrent_common::secret::Password;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// What is verified for a user that does not exist, so that both cases cost the same.
const NOBODY: &str = "nobody has this password, it only costs as much as a real one";
/// What one who finds the queue full is told to wait.
const QUEUE_WAIT: Duration = Duration::from_secs(5);

/// Hashes and verifies passwords.
#[derive(Clone)]
pub(crate) struct Passwords {
    hasher: Arc<Hasher>,
    dummy: Arc<str>,
    threads: Arc<Semaphore>,
    logins: Arc<Queue>,
    registrations: Arc<Queue>,
}

/// A bounded number of waiting hashes.
struct Queue {
    limit: usize,
    limit_per_address: usize,
    /// Who waits, by address block; `None` is the operator.
    waiting: Mutex<HashMap<Option<IpAddr>, usize>>,
}

impl Passwords {
    /// With the cost that accounts deserve: 19 MiB, two passes, one lane.
    ///
    /// # Errors
    /// When the library refuses its parameters.
    pub(crate) fn new() -> Result<Self, argon2::password_hash::Error> {
        Self::with_cost(19 * 1024, 2)
    }

    /// With another cost, in KiB and passes.
    ///
    /// # Errors
    /// When the library refuses the parameters.
    pub(crate) fn with_cost(memory_kib: u32, n_passes: u32) -> Result<Self, argon2::password_hash::Error> {
        let params = Params::new(memory_kib, n_passes, 1, None)?;
        // By another one, so that a tracker that nobody signs in to keeps no memory for it.
        let dummy = Hasher::new(params.clone()).hash_password(NOBODY.as_bytes())?.to_string().into();
        let hasher = Arc::new(Hasher::new(params));
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        // One core is left to everybody else.
        let n_threads = (n_cores - 1).clamp(1, limits::MAX_PASSWORD_THREADS);
        let threads = Arc::new(Semaphore::new(n_threads));
        let logins = Queue::new(limits::MAX_QUEUED_LOGINS, limits::MAX_QUEUED_LOGINS_PER_ADDRESS);
        let registrations = Queue::new(limits::MAX_QUEUED_REGISTRATIONS, limits::MAX_QUEUED_REGISTRATIONS_PER_ADDRESS);
        Ok(Self { hasher, dummy, threads, logins, registrations })
    }

    /// Makes the PHC string of a new account. `from` is the address block that asked; none for the operator.
    ///
    /// # Errors
    /// [`Refused::Busy`] when the queue is full.
    pub(crate) async fn hash(&self, password: Password, from: Option<IpAddr>) -> Result<String, Refused> {
        let hasher = Arc::clone(&self.hasher);
        let place = Place::take(&self.registrations, from);
        let hashed =
            self.queued(place, move || hasher.hash_password(password.expose().as_bytes()).map(|hash| hash.to_string()));
        hashed.await?.map_err(|_| Refused::Internal)
    }

    /// Whether the password is that of the stored PHC string; without one it is not, at the same cost.
    ///
    /// # Errors
    /// [`Refused::Busy`] when the queue is full.
    pub(crate) async fn verify(
        &self,
        password: Password,
        stored: Option<String>,
        from: Option<IpAddr>,
    ) -> Result<bool, Refused> {
        let (hasher, dummy) = (Arc::clone(&self.hasher), Arc::clone(&self.dummy));
        let verified = self.queued(Place::take(&self.logins, from), move || {
            let text = stored.as_deref().unwrap_or(&dummy);
            let matches = PasswordHash::new(text)
                .is_ok_and(|hash| hasher.verify_password(password.expose().as_bytes(), &hash).is_ok());
            matches && stored.is_some()
        });
        verified.await
    }

    async fn queued<T: Send + 'static>(
        &self,
        place: Option<Place>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let _place = place.ok_or(Refused::Busy { wait: QUEUE_WAIT })?;
        let permit = Arc::clone(&self.threads).acquire_owned().await.map_err(|_| Refused::Internal)?;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.map_err(|_| Refused::Internal)
    }
}

impl Queue {
    fn new(limit: usize, limit_per_address: usize) -> Arc<Self> {
        Arc::new(Self { limit, limit_per_address, waiting: Mutex::default() })
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Option<IpAddr>, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in a queue, given back when dropped.
struct Place {
    queue: Arc<Queue>,
    from: Option<IpAddr>,
}

impl Place {
    fn take(queue: &Arc<Queue>, from: Option<IpAddr>) -> Option<Self> {
        let mut places = queue.waiting();
        let n_waiting: usize = places.values().sum();
        let n_here = places.get(&from).copied().unwrap_or(0);
        if n_waiting >= queue.limit || n_here >= queue.limit_per_address {
            return None;
        }
        places.insert(from, n_here + 1);
        Some(Self { queue: Arc::clone(queue), from })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.queue.waiting();
        if let Some(n_here) = places.get_mut(&self.from) {
            *n_here -= 1;
            if *n_here == 0 {
                places.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> Passwords {
        Passwords::with_cost(8, 1).unwrap()
    }

    fn password(text: &str) -> Password {
        Password::new(text.into())
    }

    #[tokio::test]
    async fn a_password_matches_its_own_hash_only() {
        let passwords = cheap();
        let stored = passwords.hash(password("correct horse"), None).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{stored}");
        assert_eq!(passwords.verify(password("correct horse"), Some(stored.clone()), None).await, Ok(true));
        assert_eq!(passwords.verify(password("wrong horse"), Some(stored), None).await, Ok(false));
        assert_eq!(passwords.verify(password(NOBODY), None, None).await, Ok(false));
    }

    #[test]
    fn the_real_cost_is_19_mib_and_two_passes() {
        assert!(Passwords::new().unwrap().dummy.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    }

    #[tokio::test]
    async fn a_full_queue_refuses_its_address_and_leaves_room_for_others() {
        let passwords = cheap();
        let here: Option<IpAddr> = Some("10.0.0.1".parse().unwrap());
        let places: Vec<_> =
            (0..limits::MAX_QUEUED_LOGINS_PER_ADDRESS).map(|_| Place::take(&passwords.logins, here).unwrap()).collect();
        let verify = |from| passwords.verify(password("12345678"), None, from);
        assert_eq!(verify(here).await, Err(Refused::Busy { wait: QUEUE_WAIT }));
        assert_eq!(verify(Some("10.0.0.2".parse().unwrap())).await, Ok(false));
        drop(places);
        assert_eq!(verify(here).await, Ok(false));
        assert!(passwords.logins.waiting().is_empty());
    }

    #[tokio::test]
    async fn new_accounts_that_fill_their_queue_keep_nobody_from_logging_in() {
        let passwords = cheap();
        let flooding = (0..).map(|n: u32| Some(IpAddr::from((n / 200).to_be_bytes())));
        let places: Vec<_> = flooding.map_while(|from| Place::take(&passwords.registrations, from)).collect();
        assert_eq!(places.len(), limits::MAX_QUEUED_REGISTRATIONS);
        let here: Option<IpAddr> = Some("10.0.0.1".parse().unwrap());
        let refused = passwords.hash(password("12345678"), here).await;
        assert_eq!(refused, Err(Refused::Busy { wait: QUEUE_WAIT }));
        assert_eq!(passwords.verify(password("12345678"), None, here).await, Ok(false));
    }
}
