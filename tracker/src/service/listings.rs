//! Reading listings, and sharing listed files.

use super::{Caller, Result, Service, no_such_file, no_such_group, permit_by_number};
use crate::domain::{self, Operation, Refused};
use crate::store::{EndedShare, SharingFacts, StoreError};
use mini_torrent_common::control::{Listing, ListingId, OpenedFile, PAGE_ROWS};
use mini_torrent_common::names::{FileName, GroupName};

impl Service {
    /// A page of a group's files.
    ///
    /// # Errors
    /// `no_such_group`, `not_a_member`.
    pub(crate) async fn list_files(
        &self,
        caller: &Caller,
        group: GroupName,
        after: Option<FileName>,
    ) -> Result<Vec<Listing>> {
        let found = self.group_for(Operation::ReadFiles, group, caller.user).await?;
        let mut files = self.store.listings(found.id, after, PAGE_ROWS).await?;
        self.fill_counts(files.iter_mut());
        Ok(files)
    }

    /// One file of a group.
    ///
    /// # Errors
    /// `no_such_group`, `not_a_member`, `no_such_file`.
    pub(crate) async fn find_file(&self, caller: &Caller, group: GroupName, file: FileName) -> Result<Listing> {
        let found = self.group_for(Operation::ReadFiles, group, caller.user).await?;
        let mut listing = self.store.listing_named(found.id, file).await?.ok_or(Refused::NoSuchFile)?;
        self.fill_counts(std::iter::once(&mut listing));
        Ok(listing)
    }

    /// One file of a group, and how its `info` dictionary begins.
    ///
    /// # Errors
    /// `no_such_group`, `not_a_member`, `no_such_file`.
    pub(crate) async fn open_file(&self, caller: &Caller, group: GroupName, file: FileName) -> Result<OpenedFile> {
        let listing = self.find_file(caller, group, file).await?;
        let info = self.store.info_page(listing.id, 0).await?;
        Ok(OpenedFile { listing, info })
    }

    /// Adds to listings how many clients have them online.
    pub(crate) fn fill_counts<'a>(&self, listings: impl Iterator<Item = &'a mut Listing>) {
        let mut listings: Vec<_> = listings.collect();
        let counts = self.presence.counts(listings.iter().map(|listing| listing.id));
        for (listing, (n_seeders, n_leechers)) in listings.iter_mut().zip(counts) {
            let (n_stock_seeders, n_stock_leechers) = self.stock_counts(listing.draft.info_hash);
            listing.n_seeders = n_seeders.saturating_add(n_stock_seeders);
            listing.n_leechers = n_leechers.saturating_add(n_stock_leechers);
        }
    }

    /// Bytes of a listing's `info` dictionary from `offset` on; none at its end.
    ///
    /// # Errors
    /// `no_such_file`, `not_a_member`.
    pub(crate) async fn read_info(&self, caller: &Caller, listing: ListingId, offset: u64) -> Result<Vec<u8>> {
        self.listing_for(Operation::ReadFiles, caller, listing).await?;
        Ok(self.store.info_page(listing, offset).await?)
    }

    /// What the caller is to a listing, if it may do this with it.
    pub(super) async fn listing_for(
        &self,
        operation: Operation,
        caller: &Caller,
        listing: ListingId,
    ) -> Result<SharingFacts> {
        let facts = self.store.sharing(caller.user, vec![listing]).await?.pop().ok_or(Refused::NoSuchFile)?;
        permit_by_number(self.policy.public_group, operation, &facts)?;
        Ok(facts)
    }

    /// What the store answered about sharing a listing. What it refused is put as to somebody who names the listing by its
    /// number: numbers can be guessed. Asked only then, for what was done before has its answer whatever came after.
    async fn or_refused_by_number<T>(
        &self,
        caller: &Caller,
        listing: ListingId,
        answered: std::result::Result<T, StoreError>,
    ) -> Result<T> {
        match answered {
            Ok(outcome) => Ok(outcome),
            Err(StoreError::Refused(Refused::SessionEnded)) => Err(Refused::SessionEnded),
            Err(error) => {
                self.listing_for(Operation::ShareFiles, caller, listing).await?;
                Err(no_such_file(error))
            }
        }
    }

    /// Becomes a lasting sharer of a listed file; `false` for one that was it.
    ///
    /// # Errors
    /// `no_such_file`, `not_a_member`, `quota_exceeded`.
    pub(crate) async fn share(&self, caller: &Caller, listing: ListingId) -> Result<bool> {
        let rule = self.rule(Operation::ShareFiles);
        let at_ms = self.clock.wall_ms();
        let added = self.store.add_share(listing, caller.actor(), at_ms, rule, domain::check_quota).await;
        let added = self.or_refused_by_number(caller, listing, added).await?;
        tracing::info!(user = %caller.name, listing = listing.0, added, "shares");
        Ok(added)
    }

    /// Stops being a sharer; the listing goes with its last one.
    ///
    /// # Errors
    /// `no_such_file`, `not_a_member`, `not_sharing`.
    pub(crate) async fn stop_share(&self, caller: &Caller, listing: ListingId) -> Result<()> {
        let ended = self.store.end_share(listing, caller.actor(), self.rule(Operation::ShareFiles)).await;
        let ended = self.or_refused_by_number(caller, listing, ended).await?;
        match ended {
            EndedShare::Ended => self.presence.end_seeding(caller.user, listing),
            EndedShare::ListingEnded => {
                self.end_listings(&[listing]);
                self.refresh_keys().await;
            }
        }
        tracing::info!(user = %caller.name, listing = listing.0, ?ended, "stopped sharing");
        Ok(())
    }

    /// Ends a listing for everybody, with all its shares.
    ///
    /// # Errors
    /// `no_such_group`, `not_a_member`, `no_such_file`, `not_the_owner`.
    pub(crate) async fn remove_file(&self, caller: &Caller, group: GroupName, file: FileName) -> Result<()> {
        let removed = self.store.remove_file(caller.actor(), group.clone(), file.clone(), self.file_rule()).await;
        let listing = removed.map_err(no_such_group)?;
        self.end_listings(&[listing]);
        self.refresh_keys().await;
        tracing::info!(by = %caller.name, %group, %file, listing = listing.0, "file removed");
        Ok(())
    }
}
