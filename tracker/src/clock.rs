//! The one source of time: a monotonic clock for leases and waits, a wall clock for what people read.

use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// A point on the monotonic clock, counted from the clock's making.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// The time from `earlier` to this moment; zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment less `duration`.
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }

    /// This moment and `duration`.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// Tells the time; a copy tells the same.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System { start: Duration },
    Manual { start_ms: u64, elapsed: Arc<watch::Sender<Duration>> },
}

impl Clock {
    /// The clock of the machine.
    pub fn system() -> Self {
        Self(Source::System { start: since_boot() })
    }

    /// A clock that stands at `wall_ms` until [`Clock::advance`] moves it.
    pub fn manual(wall_ms: u64) -> Self {
        Self(Source::Manual { start_ms: wall_ms, elapsed: Arc::new(watch::Sender::new(Duration::ZERO)) })
    }

    /// Moves a manual clock; the machine's clock does not care.
    pub fn advance(&self, duration: Duration) {
        if let Source::Manual { elapsed, .. } = &self.0 {
            elapsed.send_modify(|at| *at += duration);
        }
    }

    /// Now, for durations. It goes on by itself alone, whatever happens to the wall clock, also while the machine
    /// sleeps.
    pub fn now(&self) -> Moment {
        match &self.0 {
            Source::System { start } => Moment(since_boot().saturating_sub(*start)),
            Source::Manual { elapsed, .. } => Moment(*elapsed.borrow()),
        }
    }

    /// Now, in milliseconds since the Unix epoch.
    pub fn wall_ms(&self) -> u64 {
        match &self.0 {
            Source::System { .. } => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
            }
            Source::Manual { start_ms, elapsed } => {
                start_ms + u64::try_from(elapsed.borrow().as_millis()).unwrap_or(u64::MAX - start_ms)
            }
        }
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Source::System { .. } => tokio::time::sleep(duration).await,
            Source::Manual { elapsed, .. } => {
                let mut changes = elapsed.subscribe();
                let until = changes.borrow().saturating_add(duration);
                // The sender lives in this clock, so the wait can only end well.
                let _ = changes.wait_for(|now| *now >= until).await;
            }
        }
    }

    /// How many wait for a manual clock.
    #[cfg(test)]
    pub(crate) fn n_waiting(&self) -> usize {
        match &self.0 {
            Source::System { .. } => 0,
            Source::Manual { elapsed, .. } => elapsed.receiver_count(),
        }
    }

    /// Waits for `work`, but not longer than `limit`; `None` when it took longer.
    pub async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.sleep(limit) => None,
        }
    }
}

/// The monotonic clock that counts the machine's sleep, too.
fn since_boot() -> Duration {
    // It has neither negative parts nor more nanoseconds than a second has.
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(1000);
        let start = clock.now();
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(5)).await }
        });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(4));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        sleeper.await.unwrap();
        assert_eq!((clock.wall_ms(), clock.now().since(start)), (6000, Duration::from_secs(5)));
    }
}
