//! Finds the tracker to use: the first of the list that answers, without waiting long for those that do not.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::tls::Fingerprint;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::{ControlConnection, connect};
use super::{CONNECT_TIMEOUT, HEAD_START, LinkPlan};
use crate::error::CommandError;

/// A tracker that answered.
pub(super) struct Found {
    /// Its place in the list.
    pub(super) index: usize,
    pub(super) connection: ControlConnection,
}

type Attempt = BoxFuture<'static, (usize, Result<ControlConnection, CommandError>)>;

/// Tries the trackers at these places in this order. Each is given a short head start before the next one is tried beside
/// it: one that takes connections and says nothing does not cost its whole timeout. The first that answers is
/// it; of several at one time, the first in order.
///
/// # Errors
/// When none answers: why, of the one whose reason matters most.
pub(super) async fn first_that_answers(
    plan: LinkPlan,
    pin: Option<Fingerprint>,
    order: Vec<usize>,
) -> Result<Found, CommandError> {
    let mut worst = none_answers();
    let mut attempts: FuturesUnordered<Attempt> = FuturesUnordered::new();
    let mut left = order.iter().copied();
    let mut next_start = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(next_start), if left.len() > 0 => {
                attempts.extend(left.next().map(|index| attempt(plan.clone(), index, pin)));
                next_start = Instant::now() + HEAD_START;
            }
            Some((index, outcome)) = attempts.next() => match outcome {
                Ok(connection) => return Ok(first_of(Found { index, connection }, &order, attempts)),
                Err(error) => {
                    // A wrong key matters more to the user than another tracker's silence.
                    if worst.code == ErrorCode::TrackerUnreachable {
                        worst = error;
                    }
                    next_start = Instant::now();
                }
            },
            else => return Err(worst),
        }
    }
}

fn attempt(plan: LinkPlan, index: usize, pin: Option<Fingerprint>) -> Attempt {
    async move {
        let Some(tracker) = plan.trackers.get(index) else { return (index, Err(none_answers())) };
        let connected = timeout(CONNECT_TIMEOUT, connect(&plan, tracker, tracker.pin.or(pin))).await;
        (index, connected.unwrap_or_else(|_| Err(none_answers())))
    }
    .boxed()
}

/// The first in order of the one that answered and those that have answered at the same time.
fn first_of(found: Found, order: &[usize], mut attempts: FuturesUnordered<Attempt>) -> Found {
    let place = |index: usize| order.iter().position(|other| *other == index);
    let mut first = found;
    while let Some(Some((index, outcome))) = attempts.next().now_or_never() {
        if let Ok(connection) = outcome
            && place(index) < place(first.index)
        {
            first = Found { index, connection };
        }
    }
    first
}

pub(super) fn none_answers() -> CommandError {
    CommandError::new(ErrorCode::TrackerUnreachable, "no tracker answers")
}

/// All places of a list, in order but for those that have failed, which come last, in the order of their failing.
pub(super) fn order(n_trackers: usize, failed: &[usize]) -> Vec<usize> {
    let others = (0..n_trackers).filter(|index| !failed.contains(index));
    others.chain(failed.iter().copied().filter(|index| *index < n_trackers)).collect()
}

/// Notes that the tracker at this place has failed just now.
pub(super) fn note_failed(failed: &mut Vec<usize>, index: usize) {
    failed.retain(|other| *other != index);
    failed.push(index);
}
