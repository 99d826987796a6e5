//! What owners and admins do to members.

use super::{Caller, Result, Service, no_such_group};
use crate::domain::{self, MemberOperation};
use crate::store::Removed;
use mini_torrent_common::control::{Event, Role};
use mini_torrent_common::names::{GroupName, UserName};

impl Service {
    /// Ends a membership: its shares, its presence in the group's swarms, and its tickets.
    ///
    /// # Errors
    /// `no_such_group`, `not_a_member`, `not_the_owner`, `no_such_user`, `usage` for the caller itself.
    pub(crate) async fn remove_member(&self, caller: &Caller, group: GroupName, user: UserName) -> Result<()> {
        let (rule, at_ms) = (self.member_rule(MemberOperation::Remove), self.clock.wall_ms());
        let ours = self.revocations.ours().await;
        let removed = self.store.remove_member(caller.actor(), group, user.clone(), at_ms, rule).await;
        let Removed { member, ended, revocation } = removed.map_err(no_such_group)?;
        self.end_listings(&ended);
        self.presence.end_membership(member.user, member.group);
        ours.done(revocation);
        self.revocations.written();
        self.refresh_keys().await;
        tracing::info!(by = %caller.name, group = %member.group_name, %user, "member removed");
        let event = Event::RemovedFromGroup { id: member.group, group: member.group_name };
        // Who is connected to another tracker hears of it from that one, which follows the log.
        self.presence.notify(&[member.user], &event);
        Ok(())
    }

    /// Makes a member an admin, or an admin a member.
    ///
    /// # Errors
    /// `no_such_group`, `not_a_member`, `not_the_owner`, `no_such_user`, `usage` for another role or the owner.
    pub(crate) async fn set_role(&self, caller: &Caller, group: GroupName, user: UserName, role: Role) -> Result<()> {
        let rule = self.member_rule(MemberOperation::SetRole(role));
        let set = self.store.set_role(caller.actor(), group, user.clone(), role, rule).await;
        let group = set.map_err(no_such_group)?.group_name;
        tracing::info!(by = %caller.name, %group, %user, role = role.as_str(), "role set");
        Ok(())
    }

    /// Makes a member the owner; the caller becomes an admin.
    ///
    /// # Errors
    /// `no_such_group`, `not_a_member`, `not_the_owner`, `no_such_user`, `quota_exceeded`, `usage` for the caller.
    pub(crate) async fn transfer_owner(&self, caller: &Caller, group: GroupName, user: UserName) -> Result<()> {
        let rule = self.member_rule(MemberOperation::MakeOwner);
        let transferred =
            self.store.transfer_owner(caller.actor(), group, user.clone(), rule, domain::check_quota).await;
        let group = transferred.map_err(no_such_group)?.group_name;
        tracing::info!(by = %caller.name, %group, %user, "ownership transferred");
        Ok(())
    }
}
