//! The log of revocations. It is written in the transactions that end what it revokes.

use super::{Result, row, sessions};
use crate::domain::Refused;
use crate::limits;
use crate::store::{Remaining, Revoked, StoreError, UserId};
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::revocation::{REVOCATION_LIFE_MS, Revocation};
use mini_torrent_common::ticket::AccountId;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// A place in the log that nobody else gets. Whoever takes one keeps the others waiting until its commit, so it
/// is taken before anything else is written. A place that stays empty does no harm.
pub(super) struct Place(u64);

impl Place {
    /// Its number in the log.
    pub(super) fn number(&self) -> u64 {
        self.0
    }
}

/// Takes the next place.
pub(super) fn take_place(tx: &Connection) -> Result<Place> {
    let mut query = tx.prepare_cached(
        "UPDATE revocation_counter SET last_number = last_number + 1 WHERE id = 1 RETURNING last_number",
    )?;
    Ok(Place(query.query_row([], |row| row::unsigned(row, 0))?))
}

/// The number of the last place that was taken.
pub(in crate::store) fn last_number(tx: &Connection) -> Result<u64> {
    let mut query = tx.prepare_cached("SELECT last_number FROM revocation_counter WHERE id = 1")?;
    Ok(query.query_row([], |row| row::unsigned(row, 0))?)
}

/// Revokes the tickets of a membership, or without a group those of the account, of this epoch and older. The
/// entry takes the place of an older one.
pub(super) fn write(
    tx: &Connection,
    place: &Place,
    group: Option<GroupId>,
    user: UserId,
    epoch: u64,
    at_ms: u64,
) -> Result<()> {
    let group = group.as_ref().map(GroupId::as_bytes);
    tx.prepare_cached("DELETE FROM revocations WHERE account_id = ?1 AND group_id IS ?2")?
        .execute(params![user.0, group])?;
    tx.prepare_cached(
        "INSERT INTO revocations (number, group_id, account_id, epoch, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![place.0.cast_signed(), group, user.0, epoch.cast_signed(), at_ms.cast_signed()])?;
    Ok(())
}

/// Revokes everything that an account has, by raising its epoch.
pub(super) fn revoke_account(tx: &Connection, place: &Place, user: UserId, at_ms: u64) -> Result<()> {
    let epoch = tx
        .prepare_cached("UPDATE users SET epoch = epoch + 1 WHERE id = ?1 RETURNING epoch - 1")?
        .query_row([user.0], |row| row::unsigned(row, 0))?;
    write(tx, place, None, user, epoch, at_ms)
}

/// Drops what revokes only tickets that have expired by themselves.
pub(super) fn forget_old(tx: &Connection, now_ms: u64) -> Result<()> {
    let oldest_ms = now_ms.saturating_sub(REVOCATION_LIFE_MS);
    tx.prepare_cached("DELETE FROM revocations WHERE at_ms <= ?1")?.execute([oldest_ms.cast_signed()])?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Revocation> {
    let group = match row.get_ref(1)? {
        rusqlite::types::ValueRef::Null => None,
        _ => Some(GroupId(row::bytes(row, 1)?)),
    };
    let (account, epoch, at_ms) = (row::unsigned(row, 2)?, row::unsigned(row, 3)?, row::unsigned(row, 4)?);
    Ok(Revocation { number: row::unsigned(row, 0)?, group, account: AccountId(account), epoch, at_ms })
}

/// Numbers above the greatest that SQLite can count to are behind every entry.
fn behind(after: u64) -> i64 {
    i64::try_from(after).unwrap_or(i64::MAX)
}

/// Every entry behind `after`, in order.
pub(in crate::store) fn all(tx: &Connection, after: u64, limit: usize) -> Result<Vec<Revocation>> {
    let mut query = tx.prepare_cached(
        "SELECT number, group_id, account_id, epoch, at_ms FROM revocations
         WHERE number > ?1 ORDER BY number LIMIT ?2",
    )?;
    let rows = query.query_map(params![behind(after), row::limit(limit)], read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The entries behind `after` that a member of the group has to know of, in order.
pub(super) fn for_members_of(tx: &Connection, group: GroupId, after: u64, now_ms: u64) -> Result<Vec<Revocation>> {
    let mut query = tx.prepare_cached(
        "SELECT number, group_id, account_id, epoch, at_ms FROM revocations
         WHERE group_id = ?1 AND number > ?2 AND at_ms > ?3
         UNION ALL
         SELECT number, group_id, account_id, epoch, at_ms FROM revocations
         WHERE group_id IS NULL AND number > ?2 AND at_ms > ?3
         ORDER BY number LIMIT ?4",
    )?;
    let oldest_ms = now_ms.saturating_sub(REVOCATION_LIFE_MS).cast_signed();
    let limit = row::limit(limits::REVOCATION_PAGE);
    let rows = query.query_map(params![group.as_bytes(), behind(after), oldest_ms, limit], read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// What is left of each of these.
pub(in crate::store) fn remaining(tx: &Connection, revoked: &[Revoked]) -> Result<Vec<Remaining>> {
    let mut membership = tx.prepare_cached(
        "SELECT g.name, m.epoch FROM groups g LEFT JOIN members m ON m.group_id = g.id AND m.user_id = ?2
         WHERE g.id = ?1",
    )?;
    let mut locked = tx.prepare_cached("SELECT locked FROM users WHERE id = ?1")?;
    let left = revoked.iter().map(|revoked| match *revoked {
        Revoked::Membership { user, group, epoch } => {
            let found = membership.query_row(params![group.as_bytes(), user.0], |row| {
                Ok((row::name(row, 0)?, row.get::<_, Option<i64>>(1)?.map(i64::cast_unsigned)))
            });
            Ok(match found.optional()? {
                Some((_, Some(now))) if now > epoch => Remaining::Alive,
                found => Remaining::NoMembership(found.map(|(name, _)| name)),
            })
        }
        Revoked::Account(actor) => match sessions::check(tx, actor) {
            Err(StoreError::Refused(Refused::SessionEnded)) => {
                Ok(Remaining::NoSession { locked: locked.query_row([actor.user.0], |row| row.get(0))? })
            }
            checked => checked.map(|()| Remaining::Alive),
        },
    });
    left.collect()
}
