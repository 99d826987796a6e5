//! Signing in, resuming, signing out.

use super::{Result, Service, Visitor, or};
use crate::domain::Refused;
use crate::limits;
use crate::presence::{ConnectionId, NotClaimed};
use crate::store::{Account, Session};
use mini_torrent_common::address;
use mini_torrent_common::control::SignedIn;
use mini_torrent_common::names::UserName;
use mini_torrent_common::secret::{Password, SessionToken};
use rand::RngExt;

impl Service {
    /// Signs a user in.
    ///
    /// # Errors
    /// `already_logged_in`, `wrong_credentials`, `rate_limited`.
    pub(crate) async fn login(&self, visitor: &Visitor, user: UserName, password: Password) -> Result<SignedIn> {
        if self.presence.user_of(visitor.connection).is_some() {
            return Err(Refused::AlreadyLoggedIn);
        }
        let account = self.authenticate(visitor, user, password).await?;
        self.presence.claim(visitor.connection, account.id).map_err(|not_claimed| match not_claimed {
            NotClaimed::Elsewhere { address, age } => Refused::LoggedInElsewhere { address: address.to_string(), age },
            NotClaimed::Disconnected => Refused::SessionEnded,
        })?;
        let token = SessionToken::new(rand::rng().random());
        let now_ms = self.clock.wall_ms();
        let session = Session {
            digest: token.digest(),
            user: account.id,
            client_key: visitor.client.key,
            address: visitor.client.address.to_string(),
            agent: visitor.client.agent.clone(),
            since_ms: now_ms,
            expires_ms: now_ms + limits::SESSION_LIFE_MS,
        };
        let opened = self.store.open_session(session).await;
        if let Err(error) = opened {
            self.presence.sign_out(visitor.connection);
            return Err(error.into());
        }
        if !self.presence.confirm(visitor.connection, account.id, account.name.clone(), token.digest()) {
            return Err(Refused::SessionEnded);
        }
        tracing::info!(user = %account.name, address = %visitor.client.address, "logged in");
        Ok(SignedIn { user: account.name, token })
    }

    /// One answer and one cost for an unknown user and a wrong password.
    async fn authenticate(&self, visitor: &Visitor, user: UserName, password: Password) -> Result<Account> {
        let block = address::block_of(visitor.source);
        let attempt = self.backoff.begin(user.key(), block).map_err(|wait| Refused::TooManyFailures { wait })?;
        let account = match self.store.account(user.clone()).await {
            Ok(account) => account,
            Err(error) => {
                self.backoff.withdrawn(attempt);
                return Err(error.into());
            }
        };
        let stored = account.as_ref().map(|account| account.password_hash.clone());
        match (self.passwords.verify(password, stored, Some(block)).await, account) {
            (Ok(true), Some(account)) => {
                self.backoff.succeeded(attempt);
                Ok(account)
            }
            (Ok(_), _) => {
                self.backoff.failed(attempt);
                tracing::warn!(%user, address = %visitor.source, "login failed");
                Err(Refused::WrongCredentials)
            }
            (Err(refused), _) => {
                self.backoff.withdrawn(attempt);
                Err(refused)
            }
        }
    }

    /// Takes up a session on another connection of the same client.
    ///
    /// # Errors
    /// `already_logged_in`; `session_ended` for a token that is unknown, expired, or another client's.
    pub(crate) async fn resume(&self, visitor: &Visitor, token: SessionToken) -> Result<SignedIn> {
        if self.presence.user_of(visitor.connection).is_some() {
            return Err(Refused::AlreadyLoggedIn);
        }
        let digest = token.digest();
        let now_ms = self.clock.wall_ms();
        let (session, name) = self.store.session(digest).await?.ok_or(Refused::SessionEnded)?;
        if session.client_key != visitor.client.key {
            tracing::warn!(user = %name, address = %visitor.source, "a session token came from another client's key");
            return Err(Refused::SessionEnded);
        }
        if session.expires_ms <= now_ms {
            return Err(Refused::SessionEnded);
        }
        self.presence.claim(visitor.connection, session.user).map_err(|_| Refused::SessionEnded)?;
        let address = visitor.client.address.to_string();
        let renewed = self.store.renew_session(digest, address, now_ms + limits::SESSION_LIFE_MS).await;
        if let Err(error) = renewed {
            self.presence.sign_out(visitor.connection);
            return Err(or(error, Refused::SessionEnded, Refused::Internal));
        }
        if !self.presence.confirm(visitor.connection, session.user, name.clone(), digest) {
            return Err(Refused::SessionEnded);
        }
        tracing::info!(user = %name, address = %visitor.client.address, "session resumed");
        Ok(SignedIn { user: name, token })
    }

    /// Ends the session of a connection, with everything that it announced.
    ///
    /// # Errors
    /// `not_logged_in`.
    pub(crate) async fn logout(&self, connection: ConnectionId) -> Result<()> {
        let caller = self.caller(connection)?;
        let digest = self.presence.session_of(connection).ok_or(Refused::NotLoggedIn)?;
        self.presence.sign_out(connection);
        self.store.close_session(digest).await?;
        tracing::info!(user = %caller.name, "logged out");
        Ok(())
    }

    /// Prolongs the sessions of connected clients and drops those that have expired.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub(crate) async fn keep_sessions(&self) -> Result<()> {
        let now_ms = self.clock.wall_ms();
        let live = self.presence.live_sessions();
        Ok(self.store.keep_sessions(live, now_ms, now_ms + limits::SESSION_LIFE_MS).await?)
    }
}
