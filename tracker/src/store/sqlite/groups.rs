//! Groups, members and join requests.

use super::{Result, governing, revocations, row, sessions};
use crate::domain::{Candidate, Quota, Standing};
use crate::store::{
    Actor, Decided, Departure, GroupStanding, QuotaRule, Requested, Rule, StoreError, Succession, UserId,
};
use mini_torrent_common::control::{GroupRow, JoinRequest, Left, Role};
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::names::{GroupName, UserName};
use rusqlite::{Connection, OptionalExtension, Row, params};

pub(in crate::store) fn create(
    tx: &Connection,
    id: GroupId,
    name: &GroupName,
    owner: Actor,
    at_ms: u64,
    quota: QuotaRule,
) -> Result<()> {
    sessions::check(tx, owner)?;
    let owner = owner.user;
    let n_owned = n_owned(tx, owner)?;
    tx.prepare_cached("INSERT INTO groups (id, name, name_key, owner_id, created_ms) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![id.as_bytes(), name.as_str(), name.key(), owner.0, at_ms.cast_signed()])?;
    quota(Quota::Groups, n_owned + 1)?;
    add_member(tx, id, owner, row::OWNER, at_ms)
}

/// How many groups a user owns.
pub(super) fn n_owned(tx: &Connection, owner: UserId) -> Result<u64> {
    let mut query = tx.prepare_cached("SELECT COUNT(*) FROM groups WHERE owner_id = ?1")?;
    Ok(query.query_row([owner.0], |row| row::unsigned(row, 0))?)
}

/// The epoch comes from a counter of the group that only grows, so one who comes back has a greater one.
fn add_member(tx: &Connection, group: GroupId, user: UserId, role: i64, at_ms: u64) -> Result<()> {
    let epoch: i64 = tx
        .prepare_cached("UPDATE groups SET last_epoch = last_epoch + 1 WHERE id = ?1 RETURNING last_epoch")?
        .query_row([group.as_bytes()], |row| row.get(0))?;
    tx.prepare_cached("INSERT INTO members (group_id, user_id, role, since_ms, epoch) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![group.as_bytes(), user.0, role, at_ms.cast_signed(), epoch])?;
    Ok(())
}

/// Columns: owner, member's role, whether a request is pending. The built-in group is the one without an owner.
fn read_standing(row: &Row<'_>, first: usize) -> rusqlite::Result<Standing> {
    let built_in = row.get::<_, Option<i64>>(first)?.is_none();
    let pending = row.get::<_, bool>(first + 2)?.then_some(Role::Pending);
    let role = if built_in { Some(Role::Member) } else { row::role(row, first + 1)?.or(pending) };
    Ok(Standing { role, built_in })
}

pub(in crate::store) fn standing(tx: &Connection, group: &GroupName, user: UserId) -> Result<GroupStanding> {
    let mut query = tx.prepare_cached(
        "SELECT g.id, g.name, g.owner_id, m.role,
             EXISTS (SELECT 1 FROM join_requests r WHERE r.group_id = g.id AND r.user_id = ?2),
             g.stock_clients
         FROM groups g LEFT JOIN members m ON m.group_id = g.id AND m.user_id = ?2 WHERE g.name_key = ?1",
    )?;
    let standing = query.query_row(params![group.key(), user.0], |row| {
        let standing = read_standing(row, 2)?;
        Ok(GroupStanding {
            id: GroupId(row::bytes(row, 0)?),
            name: row::name(row, 1)?,
            standing,
            stock_clients: standing.built_in || row.get(5)?,
        })
    });
    standing.optional()?.ok_or(StoreError::NotFound)
}

/// The same by the group's number.
pub(super) fn standing_in(tx: &Connection, group: GroupId, user: UserId) -> Result<Standing> {
    let mut query = tx.prepare_cached(
        "SELECT g.owner_id, m.role,
             EXISTS (SELECT 1 FROM join_requests r WHERE r.group_id = g.id AND r.user_id = ?2)
         FROM groups g LEFT JOIN members m ON m.group_id = g.id AND m.user_id = ?2 WHERE g.id = ?1",
    )?;
    let standing = query.query_row(params![group.as_bytes(), user.0], |row| read_standing(row, 0));
    standing.optional()?.ok_or(StoreError::NotFound)
}

pub(in crate::store) fn page(
    tx: &Connection,
    after: Option<&GroupName>,
    limit: usize,
    user: UserId,
) -> Result<Vec<GroupRow>> {
    let mut query = tx.prepare_cached(
        "SELECT g.name, o.name, g.owner_id, m.role,
             EXISTS (SELECT 1 FROM join_requests r WHERE r.group_id = g.id AND r.user_id = ?3),
             CASE WHEN g.owner_id IS NULL THEN (SELECT COUNT(*) FROM users)
                 ELSE (SELECT COUNT(*) FROM members n WHERE n.group_id = g.id) END
         FROM groups g LEFT JOIN users o ON o.id = g.owner_id
             LEFT JOIN members m ON m.group_id = g.id AND m.user_id = ?3
         WHERE g.name > ?1 ORDER BY g.name LIMIT ?2",
    )?;
    let after = after.map_or("", GroupName::as_str);
    let rows = query.query_map(params![after, row::limit(limit), user.0], |row| {
        let standing = read_standing(row, 2)?;
        let owner = if standing.built_in { None } else { Some(row::name(row, 1)?) };
        Ok(GroupRow { name: row::name(row, 0)?, owner, n_members: row::unsigned(row, 5)?, role: standing.role })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(in crate::store) fn request(
    tx: &Connection,
    group: &GroupName,
    actor: Actor,
    at_ms: u64,
    rule: &Rule,
    quota: QuotaRule,
) -> Result<Requested> {
    sessions::check(tx, actor)?;
    let user = actor.user;
    let found = standing(tx, group, user)?;
    rule(found.standing)?;
    let n_pending: i64 = tx
        .prepare_cached("SELECT COUNT(*) FROM join_requests WHERE user_id = ?1")?
        .query_row([user.0], |row| row.get(0))?;
    quota(Quota::Requests, n_pending.cast_unsigned() + 1)?;
    tx.prepare_cached("INSERT INTO join_requests (group_id, user_id, at_ms) VALUES (?1, ?2, ?3)")?.execute(params![
        found.id.as_bytes(),
        user.0,
        at_ms.cast_signed()
    ])?;
    let mut query = tx.prepare_cached("SELECT user_id FROM members WHERE group_id = ?1 AND role >= ?2")?;
    let deciders = query.query_map(params![found.id.as_bytes(), row::ADMIN], |row| row.get(0).map(UserId))?;
    Ok(Requested { id: found.id, group: found.name, deciders: deciders.collect::<rusqlite::Result<_>>()? })
}

pub(in crate::store) fn requests(
    tx: &Connection,
    group: GroupId,
    after: Option<u64>,
    limit: usize,
) -> Result<(Vec<JoinRequest>, Option<u64>)> {
    let mut query = tx.prepare_cached(
        "SELECT r.id, u.name, r.at_ms FROM join_requests r JOIN users u ON u.id = r.user_id
         WHERE r.group_id = ?1 AND r.id > ?2 ORDER BY r.id LIMIT ?3",
    )?;
    // A number above the greatest that SQLite can count to is behind every request.
    let after = i64::try_from(after.unwrap_or(0)).unwrap_or(i64::MAX);
    let rows = query.query_map(params![group.as_bytes(), after, row::limit(limit)], |row| {
        Ok((row::unsigned(row, 0)?, JoinRequest { user: row::name(row, 1)?, at_ms: row::unsigned(row, 2)? }))
    })?;
    let rows: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|(id, _)| *id);
    Ok((rows.into_iter().map(|(_, request)| request).collect(), next))
}

pub(in crate::store) fn decide(
    tx: &Connection,
    group: &GroupName,
    actor: Actor,
    subject: &UserName,
    accept: bool,
    at_ms: u64,
    rule: &Rule,
) -> Result<Option<Decided>> {
    sessions::check(tx, actor)?;
    let found = standing(tx, group, actor.user)?;
    rule(found.standing)?;
    let request: Option<(i64, i64)> = tx
        .prepare_cached(
            "SELECT r.id, u.id FROM join_requests r JOIN users u ON u.id = r.user_id
             WHERE r.group_id = ?1 AND u.name_key = ?2",
        )?
        .query_row(params![found.id.as_bytes(), subject.key()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((request, user)) = request else { return Ok(None) };
    tx.prepare_cached("DELETE FROM join_requests WHERE id = ?1")?.execute([request])?;
    if accept {
        add_member(tx, found.id, UserId(user), row::MEMBER, at_ms)?;
    }
    Ok(Some(Decided { group: found.name, user: UserId(user) }))
}

pub(in crate::store) fn leave(
    tx: &Connection,
    group: &GroupName,
    actor: Actor,
    at_ms: u64,
    rule: &Rule,
    succession: Succession,
) -> Result<Departure> {
    let place = revocations::take_place(tx)?;
    sessions::check(tx, actor)?;
    let user = actor.user;
    let found = standing(tx, group, user)?;
    rule(found.standing)?;
    if found.standing.role == Some(Role::Pending) {
        tx.prepare_cached("DELETE FROM join_requests WHERE group_id = ?1 AND user_id = ?2")?
            .execute(params![found.id.as_bytes(), user.0])?;
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
fn succeed(tx: &Connection, group: GroupId, succession: Succession) -> Result<Left> {
    let mut query = tx.prepare_cached("SELECT user_id, role, epoch FROM members WHERE group_id = ?1")?;
    let others = query.query_map([group.as_bytes()], |row| {
        let role = row::role(row, 1)?.unwrap_or(Role::Member);
        Ok(Candidate { user: UserId(row.get(0)?), role, epoch: row::unsigned(row, 2)? })
    })?;
    let others: Vec<_> = others.collect::<rusqlite::Result<_>>()?;
    let Some(heir) = succession(&others) else {
        for statement in [
            "DELETE FROM join_requests WHERE group_id = ?1",
            "DELETE FROM listings WHERE group_id = ?1",
            "DELETE FROM groups WHERE id = ?1",
        ] {
            tx.prepare_cached(statement)?.execute([group.as_bytes()])?;
        }
        return Ok(Left::GroupRemoved);
    };
    governing::put_owner(tx, group, heir)?;
    let mut query = tx.prepare_cached("SELECT name FROM users WHERE id = ?1")?;
    Ok(Left::OwnerIsNow(query.query_row([heir.0], |row| row::name(row, 0))?))
}
