//! Tickets for members.

use super::{Caller, Result, Service, no_such_group, permit};
use crate::domain::{Operation, Refused};
use crate::limits;
use crate::presence::NotTaken;
use mini_torrent_common::control::Admission;
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::ticket::{TICKET_LIFE_MS, Ticket};
use mini_torrent_common::tls::PublicKey;

impl Service {
    /// A ticket for a group, bound to the connection's `key`, with the revocations behind `after`. The connection
    /// hears of the group's revocations from before they are read, so that none falls in between.
    ///
    /// # Errors
    /// `no_such_group`, `not_a_member`, `session_ended`, `quota_exceeded`.
    pub(crate) async fn enter_group(
        &self,
        caller: &Caller,
        key: PublicKey,
        group: GroupId,
        after: u64,
    ) -> Result<Admission> {
        self.presence.enter_group(caller.connection, caller.user, group).map_err(|not_taken| match not_taken {
            NotTaken::TooMany => Refused::QuotaExceeded { what: "groups entered", limit: limits::MAX_ENTERED as u64 },
            NotTaken::SignedOut | NotTaken::Outdated => Refused::NotLoggedIn,
        })?;
        let admission = self.admission(caller, key, group, after).await;
        match admission {
            Ok(_) => self.presence.admit(caller.connection, group),
            // A member must go on hearing while the store is out of reach.
            Err(Refused::StoreUnavailable | Refused::Internal) => {
                self.presence.give_up_entering(caller.connection, group);
            }
            Err(_) => self.presence.leave_group(caller.connection, group),
        }
        admission
    }

    async fn admission(&self, caller: &Caller, key: PublicKey, group: GroupId, after: u64) -> Result<Admission> {
        let issued_ms = self.clock.wall_ms();
        let facts = self.store.admission(caller.actor(), group, after, issued_ms).await.map_err(no_such_group)?;
        permit(self.policy.public_group, Operation::Enter, facts.standing)?;
        let ticket = Ticket {
            deployment: self.tickets.deployment(),
            group,
            member_epoch: facts.member_epoch,
            account: caller.user.account(),
            account_epoch: facts.account_epoch,
            user: caller.name.clone(),
            holder: key,
            issued_ms,
            expires_ms: issued_ms + TICKET_LIFE_MS,
        };
        let ticket = self.tickets.sign(&self.store, &ticket).await?;
        Ok(Admission { ticket, revocations: facts.revocations })
    }
}
