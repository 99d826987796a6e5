//! Looks for another tracker while one is in use: for one that stands earlier in the list, to return to it, and for any
//! other when the one in use is silent.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mini_torrent_common::tls::Fingerprint;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

use super::search::{Found, first_that_answers, order};
use super::{LOOKS_BEFORE_RETURN, LinkPlan, STANDBY_LIFE};
use crate::error::CommandError;

type Search = BoxFuture<'static, Result<Found, CommandError>>;

pub(super) struct Lookout {
    plan: LinkPlan,
    pin: Option<Fingerprint>,
    /// The place of the tracker in use.
    here: usize,
    next_look: Instant,
    /// Looks in a row at which an earlier tracker answered.
    n_good_looks: u32,
    earlier: Option<Search>,
    /// An earlier tracker to return to, and until when it is kept.
    standby: Option<(Instant, Found)>,
    any_other: Option<Search>,
}

impl Lookout {
    pub(super) fn new(plan: LinkPlan, pin: Option<Fingerprint>, here: usize) -> Self {
        let next_look = Instant::now() + spread(plan.return_interval);
        Self { plan, pin, here, next_look, n_good_looks: 0, earlier: None, standby: None, any_other: None }
    }

    /// Whether there is any other tracker.
    pub(super) fn has_others(&self) -> bool {
        self.plan.trackers.len() > 1
    }

    /// An earlier tracker to return to, once it is sure to be back.
    pub(super) fn take_standby(&mut self) -> Option<Found> {
        self.standby.take().map(|(_, found)| found)
    }

    /// The tracker in use is silent: any other would do.
    pub(super) fn suspect(&mut self) {
        let others = order(self.plan.trackers.len(), Some(self.here)).into_iter().filter(|index| *index != self.here);
        self.any_other = Some(first_that_answers(self.plan.clone(), self.pin, others.collect()).boxed());
    }

    /// The tracker in use has spoken.
    pub(super) fn trust(&mut self) {
        self.any_other = None;
    }

    /// Looks until another tracker answers while the one in use is silent, or until there is one to return to (`None`).
    /// Cancelling loses nothing.
    pub(super) async fn watch(&mut self) -> Option<Found> {
        loop {
            let standby_until = self.standby.as_ref().map(|(until, _)| *until);
            tokio::select! {
                found = poll(&mut self.any_other) => {
                    self.any_other = None;
                    if let Ok(found) = found {
                        return Some(found);
                    }
                }
                found = poll(&mut self.earlier) => {
                    self.earlier = None;
                    self.looked(found);
                    if self.standby.is_some() {
                        return None;
                    }
                }
                () = sleep_until(standby_until.unwrap_or(self.next_look)), if standby_until.is_some() => {
                    self.standby = None;
                }
                () = sleep_until(self.next_look), if self.may_look() => {
                    let earlier = (0..self.here).collect();
                    self.earlier = Some(first_that_answers(self.plan.clone(), self.pin, earlier).boxed());
                }
            }
        }
    }

    fn may_look(&self) -> bool {
        self.here > 0 && self.earlier.is_none() && self.standby.is_none()
    }

    /// One answer may come from a tracker that is about to go again; who moves at it would move to and fro.
    fn looked(&mut self, found: Result<Found, CommandError>) {
        self.next_look = Instant::now() + spread(self.plan.return_interval);
        match found {
            Ok(found) => {
                self.n_good_looks += 1;
                if self.n_good_looks >= LOOKS_BEFORE_RETURN {
                    self.standby = Some((Instant::now() + STANDBY_LIFE, found));
                }
            }
            Err(_) => self.n_good_looks = 0,
        }
    }
}

async fn poll(search: &mut Option<Search>) -> Result<Found, CommandError> {
    match search {
        Some(search) => search.await,
        None => std::future::pending().await,
    }
}

/// Around `interval`, so that a thousand clients do not come in one instant.
fn spread(interval: Duration) -> Duration {
    interval.mul_f64(rand::random_range(0.75..1.25))
}
