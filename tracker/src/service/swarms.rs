//! Announcing and watching. The facts come from the store and take effect in memory; when something was
//! removed in between, they are read again, so nobody stays in a swarm that it was just taken out of.

use super::{Caller, Result, Service, permit_by_number};
use crate::domain::{Operation, Refused};
use crate::limits;
use crate::presence::{Announced, Generation, NotTaken};
use crate::store::SharingFacts;
use mini_torrent_common::control::{
    ANNOUNCE_PAGE, Announcement, ListingId, PeerContact, Presence as Has, RefusedAnnouncement,
};
use mini_torrent_common::hash::GroupId;
use std::collections::HashMap;

/// How often facts are read again before the store counts as too busy.
const MAX_ATTEMPTS: usize = 64;

impl Service {
    /// Takes what a client has; answers with what was refused.
    ///
    /// # Errors
    /// `usage` for a batch above the limit, `not_logged_in`, `quota_exceeded`.
    pub(crate) async fn announce(&self, caller: &Caller, batch: &[Announcement]) -> Result<Vec<RefusedAnnouncement>> {
        if batch.len() > ANNOUNCE_PAGE {
            return Err(Refused::Usage("too many announcements in one message"));
        }
        let named: Vec<_> = batch.iter().filter(|one| one.presence != Has::Gone).map(|one| one.listing).collect();
        let named = &named;
        self.until_taken(|generation| async move {
            let facts = match named.is_empty() {
                true => Vec::new(),
                false => self.store.sharing(caller.user, named.clone()).await?,
            };
            let facts = facts.into_iter().map(|facts| (facts.listing, facts)).collect();
            let (accepted, refused) = self.judge(batch, &facts);
            let taken = self.presence.announce(caller.connection, caller.user, generation, &accepted);
            Ok(taken.map(|()| refused))
        })
        .await
    }

    /// Reads facts and lets them take effect, until nothing was removed in between.
    async fn until_taken<T, A>(&self, attempt: impl Fn(Generation) -> A) -> Result<T>
    where
        A: Future<Output = Result<std::result::Result<T, NotTaken>>>,
    {
        for _ in 0..MAX_ATTEMPTS {
            match attempt(self.presence.generation()).await? {
                Ok(value) => return Ok(value),
                Err(NotTaken::Outdated) => {}
                Err(not_taken) => return Err(refusal(not_taken)),
            }
        }
        Err(Refused::StoreUnavailable)
    }

    fn judge(
        &self,
        batch: &[Announcement],
        facts: &HashMap<ListingId, SharingFacts>,
    ) -> (Vec<Announced>, Vec<RefusedAnnouncement>) {
        let (mut accepted, mut refused) = (Vec::with_capacity(batch.len()), Vec::new());
        for one in batch {
            let verdict = match one.presence {
                Has::Gone => Ok(Announced::Gone(one.listing)),
                Has::Seeding => self.judge_one(facts.get(&one.listing), true),
                Has::Leeching => self.judge_one(facts.get(&one.listing), false),
            };
            match verdict {
                Ok(announced) => accepted.push(announced),
                Err(why) => refused.push(RefusedAnnouncement { listing: one.listing, code: why.code() }),
            }
        }
        (accepted, refused)
    }

    fn judge_one(&self, facts: Option<&SharingFacts>, complete: bool) -> Result<Announced> {
        let facts = facts.ok_or(Refused::NoSuchFile)?;
        permit_by_number(self.policy.public_group, Operation::ShareFiles, facts)?;
        match complete && !facts.shares {
            true => Err(Refused::NotSharing),
            false => Ok(Announced::In { listing: facts.listing, group: facts.group, complete }),
        }
    }

    /// The peers of a swarm, whose changes this connection hears from now on.
    ///
    /// # Errors
    /// `no_such_file`, `not_a_member`, `not_logged_in`, `quota_exceeded`.
    pub(crate) async fn watch(&self, caller: &Caller, listing: ListingId) -> Result<Vec<PeerContact>> {
        self.until_taken(|generation| async move {
            let facts = self.listing_for(Operation::ReadFiles, caller, listing).await?;
            Ok(self.presence.watch(caller.connection, caller.user, generation, listing, facts.group))
        })
        .await
    }

    /// Begins to fetch a file: takes part in its swarm and hears of its peers from now on.
    ///
    /// # Errors
    /// `no_such_file`, `not_a_member`, `not_logged_in`, `quota_exceeded`.
    pub(crate) async fn leech(&self, caller: &Caller, listing: ListingId) -> Result<Vec<PeerContact>> {
        self.take_part(caller, listing, false, |generation, group| {
            self.presence.watch(caller.connection, caller.user, generation, listing, group)
        })
        .await
    }

    /// Has fetched a file: shares it for good, has all of it online, and hears of its peers no more.
    ///
    /// # Errors
    /// Those of [`Self::share`] and [`Self::announce`].
    pub(crate) async fn seed(&self, caller: &Caller, listing: ListingId) -> Result<()> {
        self.share(caller, listing).await?;
        self.take_part(caller, listing, true, |_, _| Ok(())).await?;
        self.unwatch(caller, listing);
        Ok(())
    }

    /// Takes a client into one swarm, and does what else rests on the same facts.
    async fn take_part<T>(
        &self,
        caller: &Caller,
        listing: ListingId,
        complete: bool,
        also: impl Fn(Generation, GroupId) -> std::result::Result<T, NotTaken>,
    ) -> Result<T> {
        let also = &also;
        self.until_taken(|generation| async move {
            let facts = self.store.sharing(caller.user, vec![listing]).await?.pop().ok_or(Refused::NoSuchFile)?;
            let announced = self.judge_one(Some(&facts), complete)?;
            let taken = self.presence.announce(caller.connection, caller.user, generation, &[announced]);
            Ok(taken.and_then(|()| also(generation, facts.group)))
        })
        .await
    }

    /// No more changes of this swarm.
    pub(crate) fn unwatch(&self, caller: &Caller, listing: ListingId) {
        self.presence.unwatch(caller.connection, listing);
    }
}

fn refusal(not_taken: NotTaken) -> Refused {
    match not_taken {
        NotTaken::SignedOut => Refused::NotLoggedIn,
        NotTaken::Outdated => Refused::StoreUnavailable,
        NotTaken::TooMany => Refused::QuotaExceeded { what: "files online", limit: limits::MAX_ANNOUNCED as u64 },
    }
}
