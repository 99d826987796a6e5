//! Groups, members and join requests.

use super::{Result, announce_keys, governing, limit, revocations, roles};
use crate::domain::{Candidate, Quota, Refused, Standing};
use crate::store::sql::{Row, Tx, params};
use crate::store::{
    Actor, Decided, Departure, GroupStanding, QuotaRule, Requested, Rule, StoreError, Succession, UserId,
};
use mini_torrent_common::control::{GroupRow, JoinRequest, Left, Role};
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::names::{GroupName, UserName};

pub(in crate::store) fn create(
    tx: Tx<'_>,
    id: GroupId,
    name: &GroupName,
    owner: UserId,
    at_ms: u64,
    quota: QuotaRule,
) -> Result<()> {
    let n_owned = n_owned(tx, owner)?;
    tx.execute(
        "INSERT INTO groups (id, name, name_key, owner_id, created_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![id.as_bytes(), name.as_str(), &*name.key(), owner.0, at_ms],
    )?;
    quota(Quota::Groups, n_owned + 1)?;
    add_member(tx, id, owner, roles::OWNER, at_ms)
}

/// How many groups a user owns.
pub(super) fn n_owned(tx: Tx<'_>, owner: UserId) -> Result<u64> {
    tx.query_one("SELECT COUNT(*) FROM groups WHERE owner_id = ?1", params![owner.0], |row| row.get(0))
}

/// The epoch comes from a counter of the group that only grows, so one who comes back has a greater one.
fn add_member(tx: Tx<'_>, group: GroupId, user: UserId, role: i64, at_ms: u64) -> Result<()> {
    let sql = "UPDATE groups SET last_epoch = last_epoch + 1 WHERE id = ?1 RETURNING last_epoch";
    let epoch: u64 = tx.query_one(sql, params![group.as_bytes()], |row| row.get(0))?;
    let sql = "INSERT INTO members (group_id, user_id, role, since_ms, epoch) VALUES (?1, ?2, ?3, ?4, ?5)";
    tx.execute(sql, params![group.as_bytes(), user.0, role, at_ms, epoch])?;
    Ok(())
}

/// Columns: owner, member's role, whether a request is pending. The built-in group is the one without an owner.
fn read_standing(row: Row<'_>, first: usize) -> Result<Standing> {
    let built_in = row.get::<Option<i64>>(first)?.is_none();
    let pending = row.get::<bool>(first + 2)?.then_some(Role::Pending);
    let role = if built_in { Some(Role::Member) } else { roles::read(row, first + 1)?.or(pending) };
    Ok(Standing { role, built_in })
}

pub(in crate::store) fn standing(tx: Tx<'_>, group: &GroupName, user: UserId) -> Result<GroupStanding> {
    let standing = tx.query_optional(
        "SELECT g.id, g.name, g.owner_id, m.role,
             EXISTS (SELECT 1 FROM join_requests r WHERE r.group_id = g.id AND r.user_id = ?2),
             g.stock_clients
         FROM groups g LEFT JOIN members m ON m.group_id = g.id AND m.user_id = ?2 WHERE g.name_key = ?1",
        params![&*group.key(), user.0],
        |row| {
            let standing = read_standing(row, 2)?;
            Ok(GroupStanding {
                id: GroupId(row.get(0)?),
                name: row.name(1)?,
                standing,
                stock_clients: standing.built_in || row.get(5)?,
            })
        },
    )?;
    standing.ok_or(StoreError::NotFound)
}

/// The same by the group's number.
pub(super) fn standing_in(tx: Tx<'_>, group: GroupId, user: UserId) -> Result<Standing> {
    let standing = tx.query_optional(
        "SELECT g.owner_id, m.role,
             EXISTS (SELECT 1 FROM join_requests r WHERE r.group_id = g.id AND r.user_id = ?2)
         FROM groups g LEFT JOIN members m ON m.group_id = g.id AND m.user_id = ?2 WHERE g.id = ?1",
        params![group.as_bytes(), user.0],
        |row| read_standing(row, 0),
    )?;
    standing.ok_or(StoreError::NotFound)
}

pub(in crate::store) fn page(tx: Tx<'_>, after: Option<&GroupName>, n: usize, user: UserId) -> Result<Vec<GroupRow>> {
    tx.query(
        "SELECT g.name, o.name, g.owner_id, m.role,
             EXISTS (SELECT 1 FROM join_requests r WHERE r.group_id = g.id AND r.user_id = ?3),
             CASE WHEN g.owner_id IS NULL THEN (SELECT COUNT(*) FROM users)
                 ELSE (SELECT COUNT(*) FROM members n WHERE n.group_id = g.id) END
         FROM groups g LEFT JOIN users o ON o.id = g.owner_id
             LEFT JOIN members m ON m.group_id = g.id AND m.user_id = ?3
         WHERE g.name > ?1 ORDER BY g.name LIMIT ?2",
        params![after.map_or("", GroupName::as_str), limit(n), user.0],
        |row| {
            let standing = read_standing(row, 2)?;
            let owner = if standing.built_in { None } else { Some(row.name(1)?) };
            Ok(GroupRow { name: row.name(0)?, owner, n_members: row.get(5)?, role: standing.role })
        },
    )
}

pub(in crate::store) fn request(
    tx: Tx<'_>,
    group: &GroupName,
    actor: Actor,
    at_ms: u64,
    rule: &Rule,
    quota: QuotaRule,
) -> Result<Requested> {
    let user = actor.user;
    let found = standing(tx, group, user)?;
    rule(found.standing)?;
    let sql = "SELECT COUNT(*) FROM join_requests WHERE user_id = ?1";
    let n_pending: u64 = tx.query_one(sql, params![user.0], |row| row.get(0))?;
    quota(Quota::Requests, n_pending + 1)?;
    let sql = "INSERT INTO join_requests (group_id, user_id, at_ms) VALUES (?1, ?2, ?3)";
    tx.execute(sql, params![found.id.as_bytes(), user.0, at_ms])?;
    let sql = "SELECT user_id FROM members WHERE group_id = ?1 AND role >= ?2";
    let deciders = tx.query(sql, params![found.id.as_bytes(), roles::ADMIN], |row| row.get(0).map(UserId))?;
    Ok(Requested { id: found.id, group: found.name, deciders })
}

pub(in crate::store) fn requests(
    tx: Tx<'_>,
    group: GroupId,
    after: Option<u64>,
    n: usize,
) -> Result<(Vec<JoinRequest>, Option<u64>)> {
    // A number above the greatest that the database can count to is behind every request.
    let after = i64::try_from(after.unwrap_or(0)).unwrap_or(i64::MAX);
    let rows = tx.query(
        "SELECT r.id, u.name, r.at_ms FROM join_requests r JOIN users u ON u.id = r.user_id
         WHERE r.group_id = ?1 AND r.id > ?2 ORDER BY r.id LIMIT ?3",
        params![group.as_bytes(), after, limit(n)],
        |row| Ok((row.get(0)?, JoinRequest { user: row.name(1)?, at_ms: row.get(2)? })),
    )?;
    let next = rows.last().filter(|_| rows.len() == n).map(|(id, _)| *id);
    Ok((rows.into_iter().map(|(_, request)| request).collect(), next))
}

pub(in crate::store) fn decide(
    tx: Tx<'_>,
    group: &GroupName,
    actor: Actor,
    subject: &UserName,
    accept: bool,
    at_ms: u64,
    rule: &Rule,
) -> Result<Decided> {
    let found = standing(tx, group, actor.user)?;
    rule(found.standing)?;
    let request: Option<(i64, i64)> = tx.query_optional(
        "SELECT r.id, u.id FROM join_requests r JOIN users u ON u.id = r.user_id
         WHERE r.group_id = ?1 AND u.name_key = ?2",
        params![found.id.as_bytes(), &*subject.key()],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let (request, user) = request.ok_or(StoreError::Refused(Refused::NoSuchRequest))?;
    tx.execute("DELETE FROM join_requests WHERE id = ?1", params![request])?;
    if accept {
        add_member(tx, found.id, UserId(user), roles::MEMBER, at_ms)?;
    }
    Ok(Decided { group: found.name, user: UserId(user) })
}

pub(in crate::store) fn leave(
    tx: Tx<'_>,
    group: &GroupName,
    actor: Actor,
    at_ms: u64,
    rule: &Rule,
    succession: Succession,
) -> Result<Departure> {
    let place = revocations::take_place(tx)?;
    let user = actor.user;
    let found = standing(tx, group, user)?;
    rule(found.standing)?;
    if found.standing.role == Some(Role::Pending) {
        let sql = "DELETE FROM join_requests WHERE group_id = ?1 AND user_id = ?2";
        tx.execute(sql, params![found.id.as_bytes(), user.0])?;
        return Ok(Departure { group: found.id, left: Left::RequestWithdrawn, revocation: None, ended: Vec::new() });
    }
    let ended = governing::end_membership(tx, &place, found.id, user, at_ms)?;
    let left = match found.standing.role {
        Some(Role::Owner) => succeed(tx, found.id, succession)?,
        _ => Left::Member,
    };
    Ok(Departure { group: found.id, left, revocation: Some(place.number()), ended })
}

/// Gives a group without an owner to its next one, or removes it. Its listings are gone with its last member.
fn succeed(tx: Tx<'_>, group: GroupId, succession: Succession) -> Result<Left> {
    let sql = "SELECT user_id, role, epoch FROM members WHERE group_id = ?1";
    let others = tx.query(sql, params![group.as_bytes()], |row| {
        let role = roles::read(row, 1)?.unwrap_or(Role::Member);
        Ok(Candidate { user: UserId(row.get(0)?), role, epoch: row.get(2)? })
    })?;
    let Some(heir) = succession(&others) else {
        announce_keys::end_in_group(tx, group)?;
        for statement in [
            "DELETE FROM join_requests WHERE group_id = ?1",
            "DELETE FROM listings WHERE group_id = ?1",
            "DELETE FROM groups WHERE id = ?1",
        ] {
            tx.execute(statement, params![group.as_bytes()])?;
        }
        return Ok(Left::GroupRemoved);
    };
    governing::put_owner(tx, group, heir)?;
    tx.query_one("SELECT name FROM users WHERE id = ?1", params![heir.0], |row| row.name(0)).map(Left::OwnerIsNow)
}
