//! What members do to each other: removal, roles, ownership.

use super::{Result, announce_keys, groups, listings, revocations, roles};
use crate::domain::{Quota, Target};
use crate::store::sql::{Tx, params};
use crate::store::{Actor, Governed, GroupStanding, MemberRule, QuotaRule, Removed, StoreError, UserId};
use mini_torrent_common::control::{ListingId, Role};
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::names::{GroupName, UserName};

/// The group and the member that an actor may do something to, as the rule says.
fn permitted(
    tx: Tx<'_>,
    actor: Actor,
    group: &GroupName,
    subject: &UserName,
    rule: &MemberRule,
) -> Result<(GroupStanding, UserId)> {
    let found = groups::standing(tx, group, actor.user)?;
    let account = tx.query_optional(
        "SELECT u.id, m.role FROM users u LEFT JOIN members m ON m.user_id = u.id AND m.group_id = ?1
         WHERE u.name_key = ?2",
        params![found.id.as_bytes(), &*subject.key()],
        |row| Ok((UserId(row.get(0)?), roles::read(row, 1)?)),
    )?;
    let target = match account {
        None => Target::NoAccount,
        Some((user, _)) if user == actor.user => Target::Actor,
        Some((_, role)) => Target::Other(role),
    };
    rule(found.standing, target)?;
    let (user, _) = account.ok_or(StoreError::NotFound)?;
    Ok((found, user))
}

/// Ends a membership with its keys and shares and revokes its tickets; returns the listings that went with their last
/// sharer.
pub(super) fn end_membership(
    tx: Tx<'_>,
    place: &revocations::Place,
    group: GroupId,
    user: UserId,
    at_ms: u64,
) -> Result<Vec<ListingId>> {
    announce_keys::end_of_member(tx, group, user)?;
    let sql = "DELETE FROM members WHERE group_id = ?1 AND user_id = ?2 RETURNING epoch";
    let epoch = tx.query_one(sql, params![group.as_bytes(), user.0], |row| row.get(0))?;
    revocations::write(tx, place, Some(group), user, epoch, at_ms)?;
    listings::end_shares_in(tx, group, user)
}

pub(in crate::store) fn remove_member(
    tx: Tx<'_>,
    actor: Actor,
    group: &GroupName,
    subject: &UserName,
    at_ms: u64,
    rule: &MemberRule,
) -> Result<Removed> {
    let place = revocations::take_place(tx)?;
    let (found, user) = permitted(tx, actor, group, subject, rule)?;
    let ended = end_membership(tx, &place, found.id, user, at_ms)?;
    let member = Governed { group: found.id, group_name: found.name, user };
    Ok(Removed { member, ended, revocation: place.number() })
}

fn put_role(tx: Tx<'_>, group: GroupId, user: UserId, role: i64) -> Result<()> {
    let sql = "UPDATE members SET role = ?3 WHERE group_id = ?1 AND user_id = ?2";
    tx.execute(sql, params![group.as_bytes(), user.0, role])?;
    Ok(())
}

/// Makes a member the owner, whose role the owner before gives up first.
pub(super) fn put_owner(tx: Tx<'_>, group: GroupId, owner: UserId) -> Result<()> {
    tx.execute("UPDATE groups SET owner_id = ?2 WHERE id = ?1", params![group.as_bytes(), owner.0])?;
    put_role(tx, group, owner, roles::OWNER)
}

pub(in crate::store) fn set_role(
    tx: Tx<'_>,
    actor: Actor,
    group: &GroupName,
    subject: &UserName,
    role: Role,
    rule: &MemberRule,
) -> Result<Governed> {
    let (found, user) = permitted(tx, actor, group, subject, rule)?;
    put_role(tx, found.id, user, if role == Role::Admin { roles::ADMIN } else { roles::MEMBER })?;
    Ok(Governed { group: found.id, group_name: found.name, user })
}

pub(in crate::store) fn transfer_owner(
    tx: Tx<'_>,
    actor: Actor,
    group: &GroupName,
    subject: &UserName,
    rule: &MemberRule,
    quota: QuotaRule,
) -> Result<Governed> {
    let (found, user) = permitted(tx, actor, group, subject, rule)?;
    quota(Quota::Groups, groups::n_owned(tx, user)? + 1)?;
    put_role(tx, found.id, actor.user, roles::ADMIN)?;
    put_owner(tx, found.id, user)?;
    Ok(Governed { group: found.id, group_name: found.name, user })
}
