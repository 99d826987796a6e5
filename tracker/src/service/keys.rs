//! Announce keys: given, shown, revoked, suspended, and kept in step with the store.

use super::{Caller, Result, Service, no_such_file, no_such_group, or};
use crate::domain::{self, Operation, Refused};
use crate::keys::Ended;
use crate::limits;
use crate::store::{Admitted, KeyUse, NewKey, Rule, StoreError};
use mini_torrent_common::control::{Event, GrantedKey, KeyId, KeyRow, ListingId};
use mini_torrent_common::names::GroupName;
use rand::RngExt;
use std::net::SocketAddr;
use std::time::Duration;
use zeroize::Zeroizing;

impl Service {
    /// Admits ordinary clients with a member's key to a group's files, or turns them away and ends the keys.
    ///
    /// # Errors
    /// `no_such_group`, `not_a_member`, `not_the_owner`.
    pub(crate) async fn set_stock_clients(&self, caller: &Caller, group: GroupName, on: bool) -> Result<()> {
        let rule = self.rule(Operation::SetStockClients);
        let group = self.store.set_stock_clients(caller.actor(), group, on, rule).await.map_err(no_such_group)?;
        self.refresh_keys().await;
        tracing::info!(by = %caller.name, %group, on, "stock clients");
        Ok(())
    }

    /// A key of the caller for one file, of its next generation.
    ///
    /// # Errors
    /// `no_such_file`, also for who is no member; `stock_clients_off`, `quota_exceeded`.
    pub(crate) async fn create_key(&self, caller: &Caller, listing: ListingId) -> Result<GrantedKey> {
        let secret = Zeroizing::new(rand::rng().random());
        let new = NewKey { listing, secret, at_ms: self.clock.wall_ms() };
        // Numbers can be guessed, so to a stranger there is no such file.
        let rule = self.rule(Operation::ReadFiles);
        let rule: Rule = Box::new(move |standing| {
            rule(standing).map_err(|refused| match refused {
                Refused::NotAMember => Refused::NoSuchFile,
                refused => refused,
            })
        });
        let created = self.store.create_key(caller.actor(), new, rule, domain::check_quota).await;
        let key = created.map_err(no_such_file)?;
        self.refresh_keys().await;
        tracing::info!(user = %caller.name, listing = listing.0, key = key.id.0, "announce key created");
        Ok(key)
    }

    /// The caller's keys, oldest first.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub(crate) async fn list_keys(&self, caller: &Caller) -> Result<Vec<KeyRow>> {
        self.store_key_use().await;
        Ok(self.store.keys(caller.user).await?)
    }

    /// Ends a key of the caller; its clients leave the swarm at once.
    ///
    /// # Errors
    /// `no_such_key`.
    pub(crate) async fn revoke_key(&self, caller: &Caller, id: KeyId) -> Result<()> {
        let revoked = self.store.revoke_key(caller.actor(), id).await;
        revoked.map_err(|error| or(error, Refused::NoSuchKey, Refused::Internal))?;
        self.refresh_keys().await;
        tracing::info!(user = %caller.name, key = id.0, "announce key revoked");
        Ok(())
    }

    /// Reads who is admitted if that has changed, and ends the clients of what has ended. It comes after each write
    /// that may end keys, and now and then for what other trackers on the store have written.
    pub(crate) async fn refresh_keys(&self) {
        if let Err(error) = self.read_keys().await {
            tracing::warn!(%error, "who is admitted cannot be read");
        }
    }

    /// As [`Self::refresh_keys`].
    ///
    /// # Errors
    /// `Unavailable`; then everything is as it was.
    pub(super) async fn read_keys(&self) -> std::result::Result<(), StoreError> {
        let mut last_change = self.ordinary.last_change.lock().await;
        let Some(admitted) = self.store.admitted(*last_change).await? else { return Ok(()) };
        *last_change = admitted.change;
        let Admitted { change, mut keys, mut open } = admitted;
        if !self.policy.public_group {
            keys.retain(|key| !key.built_in);
        }
        if !(self.policy.public_group && self.policy.open_public) {
            open.clear();
        }
        let mut left: Vec<(ListingId, Vec<SocketAddr>)> = Vec::new();
        self.ordinary.keys.replace(Admitted { change, keys, open }, |Ended { info_hash, listing, key }| {
            let mut addresses = Vec::new();
            match key {
                Some(key) => self.ordinary.announces.end_key(info_hash, key, |address| addresses.push(address)),
                None => self.ordinary.announces.end_swarm(info_hash, |address| addresses.push(address)),
            }
            self.ordinary.elsewhere.end(info_hash, key, |address| addresses.push(address));
            left.push((listing, addresses));
        });
        for (listing, addresses) in left {
            self.stock_changed(listing, &addresses);
        }
        Ok(())
    }

    /// Writes what keys were used last, in one batch.
    async fn store_key_use(&self) {
        let (now_s, now_ms) = (self.ordinary.now_s(), self.clock.wall_ms());
        let used = |id, used: crate::keys::Used| {
            let age_ms = Duration::from_secs(now_s.saturating_sub(used.at_s)).as_millis();
            let used_ms = now_ms.saturating_sub(u64::try_from(age_ms).unwrap_or(u64::MAX));
            KeyUse { id, address: used.address, used_ms }
        };
        let uses: Vec<_> = {
            let held = self.ordinary.keys.hold();
            held.keys().filter_map(|key| Some(used(key.id, key.usage().take_last()?))).collect()
        };
        if !uses.is_empty()
            && let Err(error) = self.store.note_key_use(uses).await
        {
            tracing::warn!(%error, "the use of keys could not be stored");
        }
    }

    async fn suspend_key(&self, id: KeyId) {
        match self.store.suspend_key(id).await {
            Ok(Some(suspended)) => {
                self.refresh_keys().await;
                tracing::warn!(key = id.0, file = %suspended.file, "an announce key is used from too many places");
                let event = Event::KeySuspended { id, group: suspended.group, file: suspended.file };
                self.notify(&[suspended.user], &event);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, key = id.0, "an announce key could not be suspended");
                let held = self.ordinary.keys.hold();
                held.keys().filter(|key| key.id == id).for_each(|key| key.usage().take_back_suspension());
            }
        }
    }

    /// Suspends keys that are used from too many places, for ever.
    pub(crate) async fn suspend_keys(&self) {
        let Some(mut suspensions) = self.take_suspensions() else { return };
        while let Some(id) = suspensions.recv().await {
            self.suspend_key(id).await;
        }
    }

    /// Follows what other trackers on the store change about who is admitted, for ever.
    pub(crate) async fn follow_keys(&self) {
        loop {
            self.refresh_keys().await;
            self.clock.sleep(limits::ADMITTED_POLL).await;
        }
    }

    /// Writes the use of keys now and then, for ever.
    pub(crate) async fn keep_key_use(&self) {
        loop {
            self.clock.sleep(limits::KEY_USE_INTERVAL).await;
            self.store_key_use().await;
        }
    }
}
