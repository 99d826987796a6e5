//! Looks for another tracker while one is in use: for one that stands earlier in the list, to return to it, and for any
//! other when the one in use is silent or cannot do its work. The one in use is left only when the session has been taken
//! up with the other one.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mini_torrent_common::secret::SessionToken;
use mini_torrent_common::tls::Fingerprint;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

use super::resumption::{Session, TakenUp, take_up};
use super::search::{Found, first_that_answers, note_failed, order};
use super::{LOOKS_BEFORE_RETURN, LinkPlan, MOVE_INTERVAL, MOVE_PATIENCE, STANDBY_LIFE};
use crate::error::CommandError;

type Search = BoxFuture<'static, Result<Found, CommandError>>;
type Trial = BoxFuture<'static, Result<TakenUp, CommandError>>;

/// Another tracker, with which the session goes on, and why it is the better one.
pub(super) struct Other {
    pub(super) taken_up: TakenUp,
    pub(super) reason: Reason,
}

/// Why another tracker is better than the one in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// It stands earlier in the list; nothing is wrong with the one in use.
    Earlier,
    /// The one in use says nothing.
    Silent,
    /// The one in use cannot do its work.
    Unable,
}

pub(super) struct Lookout {
    plan: LinkPlan,
    pin: Option<Fingerprint>,
    /// The place of the tracker in use.
    here: usize,
    /// The places of those that failed, the latest last.
    failed: Vec<usize>,
    next_look: Instant,
    /// Looks in a row at which an earlier tracker answered.
    n_good_looks: u32,
    earlier: Option<Search>,
    /// An earlier tracker to return to, and until when it is kept.
    standby: Option<(Instant, Found)>,
    any_other: Option<Search>,
    /// Before that nobody asks whether another one can do more.
    next_move: Instant,
    /// Why `any_other` is searched for or `trial` is made.
    reason: Reason,
    trial: Option<Trial>,
    /// Where the trial is made, and by which token.
    tried: (usize, Option<SessionToken>),
}

impl Lookout {
    pub(super) fn new(plan: LinkPlan, pin: Option<Fingerprint>, here: usize, failed: Vec<usize>) -> Self {
        let now = Instant::now();
        Self {
            next_look: now + spread(plan.return_interval),
            plan,
            pin,
            here,
            failed,
            n_good_looks: 0,
            earlier: None,
            standby: None,
            any_other: None,
            next_move: now,
            reason: Reason::Earlier,
            trial: None,
            tried: (here, None),
        }
    }

    /// Whether there is any other tracker.
    pub(super) fn has_others(&self) -> bool {
        self.plan.trackers.len() > 1
    }

    /// Whether the session may be on its way to another tracker.
    pub(super) fn is_trying(&self) -> bool {
        self.trial.is_some()
    }

    /// Returns to an earlier tracker, once it is sure to be back.
    pub(super) fn try_standby(&mut self, token: Option<&SessionToken>) {
        if self.any_other.is_none()
            && self.trial.is_none()
            && let Some((_, found)) = self.standby.take()
        {
            self.reason = Reason::Earlier;
            self.try_at(found, token);
        }
    }

    /// The tracker in use is silent: any other would do.
    pub(super) fn suspect(&mut self) {
        if self.trial.is_none() {
            self.search(Reason::Silent, |_| true);
        }
    }

    /// The tracker in use has spoken.
    pub(super) fn trust(&mut self) {
        if self.reason == Reason::Silent {
            self.any_other = None;
        }
    }

    /// The tracker in use cannot do its work: any other would do that can resume the session. Without one there is nothing
    /// to see that by, so those that have failed are left out.
    pub(super) fn distrust(&mut self, has_session: bool) {
        if self.any_other.is_none() && self.trial.is_none() && Instant::now() >= self.next_move {
            let failed = self.failed.clone();
            self.search(Reason::Unable, |index| has_session || !failed.contains(&index));
        }
    }

    fn search(&mut self, reason: Reason, may_be: impl Fn(usize) -> bool) {
        let order = order(self.plan.trackers.len(), &self.failed);
        let others: Vec<_> = order.into_iter().filter(|index| *index != self.here && may_be(*index)).collect();
        if !others.is_empty() {
            self.reason = reason;
            self.any_other = Some(first_that_answers(self.plan.clone(), self.pin, others).boxed());
        }
    }

    fn try_at(&mut self, found: Found, token: Option<&SessionToken>) {
        self.tried = (found.index, token.cloned());
        self.trial = Some(take_up(found, token.cloned(), MOVE_PATIENCE).boxed());
    }

    /// Looks until the session has been taken up with a better tracker, or until there is something to be looked at
    /// (`None`). Cancelling loses nothing.
    pub(super) async fn watch(&mut self, token: Option<&SessionToken>) -> Option<Other> {
        loop {
            let standby_until = self.standby.as_ref().map(|(until, _)| *until);
            tokio::select! {
                found = poll(&mut self.any_other) => {
                    self.any_other = None;
                    match found {
                        Ok(found) => self.try_at(found, token),
                        Err(_) => self.next_move = Instant::now() + spread(MOVE_INTERVAL),
                    }
                }
                tried = poll(&mut self.trial) => {
                    self.trial = None;
                    let other = self.tried(tried, token);
                    return other.map(|taken_up| Other { taken_up, reason: self.reason });
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
                    let earlier = order(self.here, &self.failed);
                    self.earlier = Some(first_that_answers(self.plan.clone(), self.pin, earlier).boxed());
                }
            }
        }
    }

    /// What came of a trial. Whether the session is over the tracker in use says; what has begun since is only there.
    fn tried(&mut self, tried: Result<TakenUp, CommandError>, token: Option<&SessionToken>) -> Option<TakenUp> {
        let taken_up = tried.ok().filter(|taken_up| !matches!(taken_up.session, Session::Over(_)));
        let taken_up = taken_up.filter(|_| self.tried.1.as_ref() == token);
        if taken_up.is_none() {
            note_failed(&mut self.failed, self.tried.0);
            self.n_good_looks = 0;
            self.next_move = Instant::now() + spread(MOVE_INTERVAL);
        }
        taken_up
    }

    fn may_look(&self) -> bool {
        self.here > 0 && self.earlier.is_none() && self.standby.is_none() && self.trial.is_none()
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

async fn poll<T>(running: &mut Option<BoxFuture<'static, T>>) -> T {
    match running {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
}

/// Around `interval`, so that a thousand clients do not come in one instant.
fn spread(interval: Duration) -> Duration {
    interval.mul_f64(rand::random_range(0.75..1.25))
}
