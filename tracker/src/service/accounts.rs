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
}
