//! Accounts.

use super::{Result, Service, or};
use crate::domain::{self, Refused};
use mini_torrent_common::address;
use mini_torrent_common::names::UserName;
use mini_torrent_common::secret::Password;
use std::net::IpAddr;

impl Service {
    /// Creates an account for a stranger at this address.
    ///
    /// # Errors
    /// `registration_closed`, `weak_password`, `user_exists`, `rate_limited`.
    pub(crate) async fn register(&self, user: UserName, password: Password, source: IpAddr) -> Result<()> {
        if !self.policy.registration_open {
            return Err(Refused::RegistrationClosed);
        }
        self.create_user(user, password, Some(source)).await
    }

    /// Creates an account; without an address for the operator.
    ///
    /// # Errors
    /// `weak_password`, `user_exists`, `rate_limited`.
    pub(crate) async fn create_user(&self, user: UserName, password: Password, source: Option<IpAddr>) -> Result<()> {
        domain::check_password(&password)?;
        // Asked first only to save the hashing; the store decides again.
        if self.store.account(user.clone()).await?.is_some() {
            return Err(Refused::UserExists);
        }
        let hash = self.passwords.hash(password, source.map(address::block_of)).await?;
        let created = self.store.create_user(user.clone(), hash, self.clock.wall_ms()).await;
        created.map_err(|error| or(error, Refused::Internal, Refused::UserExists))?;
        tracing::info!(%user, "account created");
        Ok(())
    }

    /// Locks an account for the operator: it is signed out, its tickets are taken back, nobody signs in to it.
    ///
    /// # Errors
    /// `no_such_user`.
    pub(crate) async fn lock_user(&self, user: UserName) -> Result<()> {
        let locked = self.store.lock_user(user.clone(), self.clock.wall_ms()).await;
        let id = locked.map_err(|error| or(error, Refused::NoSuchUser, Refused::Internal))?;
        self.presence.end_session(id, None, "the operator of the tracker has locked this account");
        self.revoked.notify_one();
        self.refresh_keys().await;
        tracing::info!(%user, "account locked");
        Ok(())
    }

    /// Lets a locked account sign in again.
    ///
    /// # Errors
    /// `no_such_user`.
    pub(crate) async fn unlock_user(&self, user: UserName) -> Result<()> {
        let unlocked = self.store.unlock_user(user.clone()).await;
        unlocked.map_err(|error| or(error, Refused::NoSuchUser, Refused::Internal))?;
        tracing::info!(%user, "account unlocked");
        Ok(())
    }
}
