//! Groups, members and join requests.

use super::{Caller, Result, Service, no_such_group, or};
use crate::domain::{self, Operation, Refused};
use mini_torrent_common::control::{Event, GroupDescription, GroupRow, JoinRequest, Left, PAGE_ROWS, Role};
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::names::{GroupName, UserName};
use rand::RngExt;

impl Service {
    /// Creates a group owned by the caller.
    ///
    /// # Errors
    /// `invalid_name` for the built-in group, `group_exists`, `quota_exceeded`.
    pub(crate) async fn create_group(&self, caller: &Caller, group: GroupName) -> Result<()> {
        if group.is_public() {
            return Err(Refused::BuiltInGroup);
        }
        let id = GroupId(rand::rng().random());
        let created =
            self.store.create_group(id, group.clone(), caller.actor(), self.clock.wall_ms(), domain::check_quota).await;
        created.map_err(|error| or(error, Refused::Internal, Refused::GroupExists))?;
        tracing::info!(user = %caller.name, %group, "group created");
        Ok(())
    }

    /// Asks to join; the owner and the admins are told, of one user once in a while.
    ///
    /// # Errors
    /// `no_such_group`, `already_member`, `already_requested`, `quota_exceeded`.
    pub(crate) async fn join_group(&self, caller: &Caller, group: GroupName) -> Result<()> {
        let rule = self.rule(Operation::Join);
        let at_ms = self.clock.wall_ms();
        let requested = self.store.request_to_join(group, caller.actor(), at_ms, rule, domain::check_quota).await;
        let requested = requested.map_err(|error| or(error, Refused::NoSuchGroup, Refused::AlreadyRequested))?;
        // Who asks and withdraws in turns fills neither the log nor the terminals of those who decide.
        if !self.join_requests.is_new((requested.id, caller.user)) {
            tracing::debug!(user = %caller.name, group = %requested.group, "asked to join again");
            return Ok(());
        }
        tracing::info!(user = %caller.name, group = %requested.group, "asked to join");
        let event = Event::JoinRequested { group: requested.group, user: caller.name.clone() };
        self.notify(&requested.deciders, &event);
        Ok(())
    }

    /// Leaves a group, or withdraws a request.
    ///
    /// # Errors
    /// `no_such_group`, `not_a_member`, `invalid_name` for the built-in group.
    pub(crate) async fn leave_group(&self, caller: &Caller, group: GroupName) -> Result<Left> {
        let rule = self.rule(Operation::Leave);
        let at_ms = self.clock.wall_ms();
        let ours = self.revocations.ours().await;
        let departure = self.store.leave_group(group.clone(), caller.actor(), at_ms, rule, domain::successor).await;
        let departure = departure.map_err(no_such_group)?;
        let Some(revocation) = departure.revocation else {
            tracing::debug!(user = %caller.name, %group, "join request withdrawn");
            return Ok(departure.left);
        };
        self.end_listings(&departure.ended);
        self.presence.end_membership(caller.user, departure.group);
        ours.done(revocation);
        self.revocations.written();
        self.refresh_keys().await;
        tracing::info!(user = %caller.name, %group, left = ?departure.left, "left");
        Ok(departure.left)
    }

    /// A page of the pending requests, and where the next one begins.
    ///
    /// # Errors
    /// `no_such_group`, `not_a_member`, `not_the_owner`.
    pub(crate) async fn list_requests(
        &self,
        caller: &Caller,
        group: GroupName,
        after: Option<u64>,
    ) -> Result<(Vec<JoinRequest>, Option<u64>)> {
        let found = self.group_for(Operation::DecideRequests, group, caller.user).await?;
        Ok(self.store.join_requests(found.id, after, PAGE_ROWS).await?)
    }

    /// Makes a requester a member, or turns it away.
    ///
    /// # Errors
    /// `no_such_group`, `not_a_member`, `not_the_owner`, `no_such_request`.
    pub(crate) async fn decide_request(
        &self,
        caller: &Caller,
        group: GroupName,
        user: UserName,
        accept: bool,
    ) -> Result<()> {
        let rule = self.rule(Operation::DecideRequests);
        let at_ms = self.clock.wall_ms();
        let decided = self.store.decide_request(group, caller.actor(), user.clone(), accept, at_ms, rule).await;
        let decided = decided.map_err(no_such_group)?;
        tracing::info!(by = %caller.name, group = %decided.group, %user, accept, "join request decided");
        if accept {
            self.notify(&[decided.user], &Event::RequestAccepted { group: decided.group });
        }
        Ok(())
    }

    /// A page of everybody's groups.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub(crate) async fn list_groups(&self, caller: &Caller, after: Option<GroupName>) -> Result<Vec<GroupRow>> {
        // One more than a page, so that a hidden built-in group does not make the page look like the last.
        let mut rows = self.store.groups(after, PAGE_ROWS + 1, caller.user).await?;
        rows.retain(|row| self.policy.public_group || !row.name.is_public());
        rows.truncate(PAGE_ROWS);
        Ok(rows)
    }

    /// What a member must know of a group to share in it.
    ///
    /// # Errors
    /// `no_such_group`, `not_a_member`.
    pub(crate) async fn describe_group(&self, caller: &Caller, group: GroupName) -> Result<GroupDescription> {
        let found = self.group_for(Operation::Describe, group, caller.user).await?;
        let role = found.standing.role.unwrap_or(Role::Member);
        Ok(GroupDescription { id: found.id, name: found.name, role, stock_clients: found.stock_clients })
    }
}
