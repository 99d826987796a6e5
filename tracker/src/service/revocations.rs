//! The log of revocations as this tracker follows it: members hear of its entries, and what other trackers on the
//! same store have ended ends here too.

use super::{Service, accounts};
use crate::limits;
use crate::store::{Actor, Remaining, Revoked, StoreError, UserId};
use mini_torrent_common::control::Event;
use mini_torrent_common::revocation::Revocation;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, RwLock, RwLockReadGuard};

/// What a client is told whose session another tracker has ended.
const ENDED_ELSEWHERE: &str = "another client has signed in, or all sessions were ended";

/// Keeps what this tracker revokes itself from being acted upon a second time.
#[derive(Default)]
pub(super) struct Following {
    /// Rung when this tracker has written into the log.
    written: Notify,
    /// Shared by what revokes something, from before it writes until the memory has followed. An entry that was
    /// read before nobody shared this was either written elsewhere, or the memory has followed it.
    in_progress: RwLock<()>,
    /// Entries of this tracker's own that it has not read in the log yet.
    done: Mutex<BTreeSet<u64>>,
}

/// An act of this tracker that revokes something.
pub(super) struct Ours<'a> {
    following: &'a Following,
    _in_progress: RwLockReadGuard<'a, ()>,
}

impl Following {
    /// Before something is revoked; to be kept until the memory has followed.
    pub(super) async fn ours(&self) -> Ours<'_> {
        Ours { following: self, _in_progress: self.in_progress.read().await }
    }

    /// The log has grown: those concerned hear of it at once.
    pub(super) fn written(&self) {
        self.written.notify_one();
    }

    fn done(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of the entries that the memory has not followed yet.
    async fn others<'a>(&self, page: &'a [Revocation]) -> Vec<&'a Revocation> {
        drop(self.in_progress.write().await);
        let done = self.done();
        page.iter().filter(|entry| !done.contains(&entry.number)).collect()
    }

    /// The log was read up to here. An own entry may be missing in it, for a later one may have taken its place.
    fn forget_until(&self, last: u64) {
        let mut done = self.done();
        *done = done.split_off(&last.saturating_add(1));
    }
}

impl Ours<'_> {
    /// The memory has followed the entry of this number.
    pub(super) fn done(&self, number: u64) {
        self.following.done().insert(number);
    }
}

impl Service {
    /// Acts on a page of the log's entries behind `after` and tells those concerned; returns the number of the
    /// last one. The log is read in its own order, so no client hears of a number before it has heard of the
    /// smaller ones.
    ///
    /// # Errors
    /// When the store cannot be read. Nothing was told then.
    pub(super) async fn tell_revocations(&self, after: u64) -> Result<u64, StoreError> {
        let page = self.store.revocations(after, limits::REVOCATION_PAGE).await?;
        let Some(last) = page.last().map(|last| last.number) else { return Ok(after) };
        self.follow(&page).await?;
        self.presence.tell_revocations(&page);
        self.revocations.forget_until(last);
        Ok(last)
    }

    /// Ends here what is over. The store is asked first and once, so that a failure leaves nothing half done.
    async fn follow(&self, page: &[Revocation]) -> Result<(), StoreError> {
        let others = self.revocations.others(page).await;
        let signed_in = self.presence.sessions_of(others.iter().map(|entry| UserId::of(entry.account)));
        let concerned = others.into_iter().filter_map(|entry| {
            let user = UserId::of(entry.account);
            let session = *signed_in.get(&user)?;
            Some(match entry.group {
                Some(group) => Revoked::Membership { user, group, epoch: entry.epoch },
                None => Revoked::Account(Actor::new(user, session)),
            })
        });
        let concerned: Vec<_> = concerned.collect();
        if concerned.is_empty() {
            return Ok(());
        }
        let remaining = self.store.remaining(concerned.clone()).await?;
        for (revoked, remaining) in concerned.into_iter().zip(remaining) {
            self.end_revoked(revoked, remaining);
        }
        Ok(())
    }

    fn end_revoked(&self, revoked: Revoked, remaining: Remaining) {
        match (revoked, remaining) {
            (Revoked::Membership { user, group: id, .. }, Remaining::NoMembership(name)) => {
                self.presence.end_membership(user, id);
                // Without a name the group is gone, which its last member brought about itself.
                if let Some(group) = name {
                    self.presence.notify(&[user], &Event::RemovedFromGroup { id, group });
                }
            }
            (Revoked::Account(Actor { user, session, .. }), Remaining::NoSession { locked }) => {
                let reason = if locked { accounts::ACCOUNT_LOCKED } else { ENDED_ELSEWHERE };
                self.presence.end_session(user, Some(session), reason);
            }
            _ => {}
        }
    }

    /// Follows the log from behind `after` on, for ever: at once what this tracker writes, soon what others on the
    /// same store do.
    pub(crate) async fn follow_revocations(&self, mut after: u64) {
        loop {
            match self.tell_revocations(after).await {
                Ok(last) if last > after => {
                    after = last;
                    continue;
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the log of revocations cannot be read"),
            }
            tokio::select! {
                () = self.revocations.written.notified() => {}
                () = self.clock.sleep(limits::REVOCATION_POLL) => {}
            }
        }
    }
}
