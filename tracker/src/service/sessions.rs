//! Signing in, resuming, signing out.

use super::{Caller, Result, Service, Visitor};
use crate::domain::Refused;
use crate::limits;
use crate::presence::{ConnectionId, News, NotClaimed, SignedInUser};
use crate::store::{Account, Actor, NewSession, Resumption, ShownToken, SignIn, UserId};
use mini_torrent_common::address;
use mini_torrent_common::control::{SessionRow, SignedIn};
use mini_torrent_common::names::UserName;
use mini_torrent_common::secret::{Password, SessionToken};
use rand::RngExt;

impl Service {
    /// Signs a user in; with `takeover` the session of another client ends at once.
    ///
    /// # Errors
    /// `already_logged_in`, `wrong_credentials`, `rate_limited`.
    pub(crate) async fn login(
        &self,
        visitor: &Visitor,
        user: UserName,
        password: Password,
        takeover: bool,
    ) -> Result<SignedIn> {
        if self.presence.user_of(visitor.connection).is_some() {
            return Err(Refused::AlreadyLoggedIn);
        }
        let account = self.authenticate(visitor, user, password).await?;
        // Only who knows the password learns this.
        if account.locked {
            tracing::info!(user = %account.name, address = %visitor.source, "login to a locked account refused");
            return Err(Refused::AccountLocked);
        }
        let claimed = self.presence.claim(visitor.connection, account.id, takeover);
        claimed.map_err(|not_claimed| match not_claimed {
            NotClaimed::Elsewhere { address, age } => Refused::LoggedInElsewhere { address: address.to_string(), age },
            NotClaimed::Disconnected => Refused::SessionEnded,
        })?;
        let token = SessionToken::new(rand::rng().random());
        let begun = match self.store.begin_session(self.new_session(visitor, account.id, &token)).await {
            Ok(begun) => begun,
            Err(error) => {
                self.presence.sign_out(visitor.connection);
                return Err(error.into());
            }
        };
        if begun.revoked {
            self.revocations.written();
        }
        let user = SignedInUser { id: account.id, name: account.name.clone(), session: begun.id };
        self.confirm(visitor, user, begun.sign_in).await?;
        let (address, revoked) = (visitor.client.address, begun.revoked);
        tracing::info!(user = %account.name, %address, takeover, new_client = revoked, "logged in");
        Ok(SignedIn { user: account.name, token })
    }

    fn new_session(&self, visitor: &Visitor, user: UserId, token: &SessionToken) -> NewSession {
        let now_ms = self.clock.wall_ms();
        NewSession {
            user,
            token: token.digest(),
            client_key: visitor.client.key,
            address: visitor.client.address.to_string(),
            agent: visitor.client.agent.clone(),
            since_ms: now_ms,
            expires_ms: now_ms + limits::SESSION_LIFE_MS,
        }
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

    /// Takes up a session on another connection of the same client; its token gets a successor.
    ///
    /// # Errors
    /// `already_logged_in`; `session_ended` for a token that is unknown, expired, used up, or another client's.
    pub(crate) async fn resume(&self, visitor: &Visitor, token: SessionToken) -> Result<SignedIn> {
        if self.presence.user_of(visitor.connection).is_some() {
            return Err(Refused::AlreadyLoggedIn);
        }
        // Its client has given up waiting and may have its session elsewhere: nobody would receive the successor.
        if !self.presence.is_connected(visitor.connection) {
            return Err(Refused::SessionEnded);
        }
        let successor = SessionToken::new(rand::rng().random());
        let now_ms = self.clock.wall_ms();
        let shown = ShownToken {
            token: token.digest(),
            successor: successor.digest(),
            client_key: visitor.client.key,
            address: visitor.client.address.to_string(),
            now_ms,
            expires_ms: now_ms + limits::SESSION_LIFE_MS,
        };
        let (actor, name, sign_in) = match self.store.resume_session(shown).await? {
            Resumption::Resumed(actor, name, sign_in) => (actor, name, sign_in),
            Resumption::Unknown => return Err(Refused::SessionEnded),
            Resumption::OfAnotherClient(user) => {
                tracing::warn!(%user, address = %visitor.source, "a session token came from another client's key");
                return Err(Refused::SessionEnded);
            }
            Resumption::UsedUp(actor, user) => {
                tracing::warn!(%user, address = %visitor.source, "a used-up session token was shown; session ended");
                let reason = "somebody else may have a copy of this session; log in again";
                self.presence.end_session(actor.user, Some(actor.session), reason);
                let (user, session, reason) = (actor.user, actor.session, reason.into());
                self.presence.tell_elsewhere(News::SessionEnded { user, session, reason });
                return Err(Refused::SessionEnded);
            }
        };
        // The store has decided whose the session is, whomever the memory has: what it knows may be older, and a later
        // sign-in that it knows bars the confirmation. Who has gone meanwhile shows the old token again.
        self.presence.claim(visitor.connection, actor.user, true).map_err(|_| Refused::SessionEnded)?;
        let user = SignedInUser { id: actor.user, name: name.clone(), session: actor.session };
        self.confirm(visitor, user, sign_in).await?;
        tracing::info!(user = %name, address = %visitor.client.address, "session resumed");
        Ok(SignedIn { user: name, token: successor })
    }

    /// The claimed session is stored: the connection is signed in, unless the session has ended meanwhile.
    pub(super) async fn confirm(&self, visitor: &Visitor, user: SignedInUser, sign_in: SignIn) -> Result<()> {
        let actor = Actor::new(user.id, user.session);
        if !self.presence.confirm(visitor.connection, user, sign_in) {
            return Err(Refused::SessionEnded);
        }
        // What ended the session before the connection was known to have it could not tell the connection.
        if let Err(error) = self.store.last_sign_in(actor).await {
            self.presence.sign_out(visitor.connection);
            return Err(error.into());
        }
        // Or another tracker has it by now.
        self.caller(visitor.connection).map(|_| ()).map_err(|_| Refused::SessionEnded)
    }

    /// Ends the session of a connection, with everything that it announced.
    ///
    /// # Errors
    /// `not_logged_in`.
    pub(crate) async fn logout(&self, connection: ConnectionId) -> Result<()> {
        let caller = self.caller(connection)?;
        self.presence.sign_out(connection);
        self.store.end_session(caller.actor()).await?;
        tracing::info!(user = %caller.name, "logged out");
        Ok(())
    }

    /// Ends every session of the caller's account, and takes its tickets back.
    ///
    /// # Errors
    /// `session_ended`.
    pub(crate) async fn logout_everywhere(&self, caller: &Caller) -> Result<()> {
        let _ours = self.revocations.ours().await;
        self.store.end_everywhere(caller.actor(), self.clock.wall_ms()).await?;
        self.presence.sign_out(caller.connection);
        // Another connection may have taken the session up meanwhile.
        self.presence.end_session(caller.user, None, "logged out everywhere");
        self.revocations.written();
        self.refresh_keys().await;
        tracing::info!(user = %caller.name, "logged out everywhere");
        Ok(())
    }

    /// The caller's sessions, oldest first.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub(crate) async fn list_sessions(&self, caller: &Caller) -> Result<Vec<SessionRow>> {
        let sessions = self.store.sessions(caller.user).await?.into_iter().map(|session| SessionRow {
            current: session.id == caller.session,
            address: session.address,
            agent: session.agent,
            since_ms: session.since_ms,
        });
        Ok(sessions.collect())
    }

    /// The store knows the caller's session no more, for it was ended by another tracker or a moment ago: the
    /// connection is signed out.
    pub(crate) fn forget_session(&self, caller: &Caller) {
        self.presence.end_session(caller.user, Some(caller.session), &Refused::SessionEnded.to_string());
    }

    /// Prolongs the sessions of connected clients and drops what has expired.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub(crate) async fn keep_sessions(&self) -> Result<()> {
        let now_ms = self.clock.wall_ms();
        let live = self.presence.live_sessions();
        Ok(self.store.keep_sessions(live, now_ms, now_ms + limits::SESSION_LIFE_MS).await?)
    }
}
