//! What members do to each other: removal, roles, ownership.

use super::{Result, groups, listings, revocations, row, sessions};
use crate::domain::{Quota, Target};
use crate::store::{Actor, Governed, GroupStanding, MemberRule, QuotaRule, Removed, StoreError, UserId};
use mini_torrent_common::control::{ListingId, Role};
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::names::{GroupName, UserName};
use rusqlite::{Connection, OptionalExtension, params};

/// The group and the member that an actor may do something to, as the rule says.
fn permitted(
    tx: &Connection,
    actor: Actor,
    group: &GroupName,
    subject: &UserName,
    rule: &MemberRule,
) -> Result<(GroupStanding, UserId)> {
    sessions::check(tx, actor)?;
    let found = groups::standing(tx, group, actor.user)?;
    let account = tx
        .prepare_cached(
            "SELECT u.id, m.role FROM users u LEFT JOIN members m ON m.user_id = u.id AND m.group_id = ?1
             WHERE u.name_key = ?2",
        )?
        .query_row(params![found.id.as_bytes(), subject.key()], |row| Ok((UserId(row.get(0)?), row::role(row, 1)?)))
        .optional()?;
    let target = match account {
        None => Target::NoAccount,
        Some((user, _)) if user == actor.user => Target::Actor,
        Some((_, role)) => Target::Other(role),
    };
    rule(found.standing, target)?;
    let (user, _) = account.ok_or(StoreError::NotFound)?;
    Ok((found, user))
}

/// Ends a membership with its shares and revokes its tickets; returns the listings that went with their last
/// sharer.
pub(super) fn end_membership(
    tx: &Connection,
    place: &revocations::Place,
    group: GroupId,
    user: UserId,
    at_ms: u64,
) -> Result<Vec<ListingId>> {
    let epoch = tx
        .prepare_cached("DELETE FROM members WHERE group_id = ?1 AND user_id = ?2 RETURNING epoch")?
        .query_row(params![group.as_bytes(), user.0], |row| row::unsigned(row, 0))?;
    revocations::write(tx, place, Some(group), user, epoch, at_ms)?;
    listings::end_shares_in(tx, group, user)
}

pub(in crate::store) fn remove_member(
    tx: &Connection,
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

fn put_role(tx: &Connection, group: GroupId, user: UserId, role: i64) -> Result<()> {
    tx.prepare_cached("UPDATE members SET role = ?3 WHERE group_id = ?1 AND user_id = ?2")?.execute(params![
        group.as_bytes(),
        user.0,
        role
    ])?;
    Ok(())
}

/// Makes a member the owner, whose role the owner before gives up first.
pub(super) fn put_owner(tx: &Connection, group: GroupId, owner: UserId) -> Result<()> {
    tx.prepare_cached("UPDATE groups SET owner_id = ?2 WHERE id = ?1")?.execute(params![group.as_bytes(), owner.0])?;
    put_role(tx, group, owner, row::OWNER)
}

pub(in crate::store) fn set_role(
    tx: &Connection,
    actor: Actor,
    group: &GroupName,
    subject: &UserName,
    role: Role,
    rule: &MemberRule,
) -> Result<Governed> {
    let (found, user) = permitted(tx, actor, group, subject, rule)?;
    put_role(tx, found.id, user, if role == Role::Admin { row::ADMIN } else { row::MEMBER })?;
    Ok(Governed { group: found.id, group_name: found.name, user })
}

pub(in crate::store) fn transfer_owner(
    tx: &Connection,
    actor: Actor,
    group: &GroupName,
    subject: &UserName,
    rule: &MemberRule,
    quota: QuotaRule,
) -> Result<Governed> {
    let (found, user) = permitted(tx, actor, group, subject, rule)?;
    quota(Quota::Groups, groups::n_owned(tx, user)? + 1)?;
    put_role(tx, found.id, actor.user, row::ADMIN)?;
    put_owner(tx, found.id, user)?;
    Ok(Governed { group: found.id, group_name: found.name, user })
}
