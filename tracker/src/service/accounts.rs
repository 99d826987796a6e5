//! Accounts.

use super::{Result, Service, Visitor, or};
use crate::domain::{self, Refused};
use crate::store::{NewUser, Once, StoreError, UserId};
use mini_torrent_common::address;
use mini_torrent_common::names::UserName;
use mini_torrent_common::secret::Password;
use std::net::IpAddr;

/// What the client of a locked account is told.
pub(super) const ACCOUNT_LOCKED: &str = "the operator of the tracker has locked this account";

impl Service {
    /// Creates an account for a stranger at this address, from which so many come in a row and then ever more
    /// slowly. Who is on the tracker's own machine does not wait: what goes on there is the operator's affair.
    ///
    /// # Errors
    /// `registration_closed`, `weak_password`, `user_exists`, `rate_limited`.
    pub(crate) async fn register(
        &self,
        visitor: &Visitor,
        user: UserName,
        password: Password,
        once: Option<Once>,
    ) -> Result<()> {
        if !self.policy.registration_open {
            return Err(Refused::RegistrationClosed);
        }
        // Asked again: the account is there, and the client's own.
        if let Some(once) = once
            && self.store.registered(visitor.client.key, once).await?.is_some()
        {
            return Ok(());
        }
        if visitor.source.to_canonical().is_loopback() {
            return self.create_for(visitor, user, password, once).await;
        }
        let begun = self.backoff.begin_registration(address::block_of(visitor.source));
        let attempt = begun.map_err(|wait| Refused::TooManyAccounts { wait })?;
        let created = self.create_for(visitor, user, password, once).await;
        if created.is_err() {
            self.backoff.withdrawn(attempt);
        }
        created
    }

    async fn create_for(
        &self,
        visitor: &Visitor,
        name: UserName,
        password: Password,
        once: Option<Once>,
    ) -> Result<()> {
        let password_hash = self.check_new(&name, password, Some(visitor.source)).await?;
        let (user, at_ms) = (name.clone(), self.clock.wall_ms());
        let new = NewUser { name, password_hash, at_ms, client_key: visitor.client.key, once };
        created(&user, self.store.register(new).await)
    }

    /// Creates an account for the operator.
    ///
    /// # Errors
    /// `weak_password`, `user_exists`, `rate_limited`.
    pub(crate) async fn create_user(&self, user: UserName, password: Password) -> Result<()> {
        let hash = self.check_new(&user, password, None).await?;
        created(&user, self.store.create_user(user.clone(), hash, self.clock.wall_ms()).await)
    }

    /// The hash of a new account's password, if there may be such an account.
    async fn check_new(&self, user: &UserName, password: Password, source: Option<IpAddr>) -> Result<String> {
        domain::check_password(&password)?;
        // Asked first only to save the hashing; the store decides again.
        if self.store.account(user.clone()).await?.is_some() {
            return Err(Refused::UserExists);
        }
        self.passwords.hash(password, source.map(address::block_of)).await
    }

    /// Locks an account for the operator: it is signed out, its tickets are taken back, nobody signs in to it.
    /// Returns the name as its creator wrote it.
    ///
    /// # Errors
    /// `no_such_user`.
    pub(crate) async fn lock_user(&self, user: UserName) -> Result<UserName> {
        let _ours = self.revocations.ours().await;
        let locked = self.store.lock_user(user, self.clock.wall_ms()).await;
        let (id, user) = locked.map_err(|error| or(error, Refused::NoSuchUser, Refused::Internal))?;
        self.presence.end_session(id, None, ACCOUNT_LOCKED);
        self.revocations.written();
        self.refresh_keys().await;
        tracing::info!(%user, "account locked");
        Ok(user)
    }

    /// Lets a locked account sign in again. Returns the name as its creator wrote it.
    ///
    /// # Errors
    /// `no_such_user`.
    pub(crate) async fn unlock_user(&self, user: UserName) -> Result<UserName> {
        let unlocked = self.store.unlock_user(user).await;
        let (_, user) = unlocked.map_err(|error| or(error, Refused::NoSuchUser, Refused::Internal))?;
        tracing::info!(%user, "account unlocked");
        Ok(user)
    }
}

fn created(user: &UserName, created: std::result::Result<UserId, StoreError>) -> Result<()> {
    created.map_err(|error| or(error, Refused::Internal, Refused::UserExists))?;
    tracing::info!(%user, "account created");
    Ok(())
}
