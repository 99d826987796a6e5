//! The log of revocations. It is written in the transactions that end what it revokes.

use super::{Result, limit, sessions};
use crate::domain::Refused;
use crate::limits;
use crate::store::sql::{Row, Tx, params};
use crate::store::{Remaining, Revoked, StoreError, UserId};
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::revocation::{REVOCATION_LIFE_MS, Revocation};
use mini_torrent_common::ticket::AccountId;

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
pub(super) fn take_place(tx: Tx<'_>) -> Result<Place> {
    let sql = "UPDATE revocation_counter SET last_number = last_number + 1 WHERE id = 1 RETURNING last_number";
    tx.query_one(sql, params![], |row| row.get(0)).map(Place)
}

/// The number of the last place that was taken.
pub(in crate::store) fn last_number(tx: Tx<'_>) -> Result<u64> {
    tx.query_one("SELECT last_number FROM revocation_counter WHERE id = 1", params![], |row| row.get(0))
}

/// Revokes the tickets of a membership, or without a group those of the account, of this epoch and older. The
/// entry takes the place of an older one.
pub(super) fn write(
    tx: Tx<'_>,
    place: &Place,
    group: Option<GroupId>,
    user: UserId,
    epoch: u64,
    at_ms: u64,
) -> Result<()> {
    let group = group.as_ref().map(GroupId::as_bytes);
    let sql = "DELETE FROM revocations WHERE account_id = ?1 AND group_id IS NOT DISTINCT FROM ?2";
    tx.execute(sql, params![user.0, group])?;
    let sql = "INSERT INTO revocations (number, group_id, account_id, epoch, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
    tx.execute(sql, params![place.0, group, user.0, epoch, at_ms])?;
    Ok(())
}

/// Revokes everything that an account has, by raising its epoch.
pub(super) fn revoke_account(tx: Tx<'_>, place: &Place, user: UserId, at_ms: u64) -> Result<()> {
    let sql = "UPDATE users SET epoch = epoch + 1 WHERE id = ?1 RETURNING epoch - 1";
    let epoch = tx.query_one(sql, params![user.0], |row| row.get(0))?;
    write(tx, place, None, user, epoch, at_ms)
}

/// Drops what revokes only tickets that have expired by themselves.
pub(super) fn forget_old(tx: Tx<'_>, now_ms: u64) -> Result<()> {
    let oldest_ms = now_ms.saturating_sub(REVOCATION_LIFE_MS);
    tx.execute("DELETE FROM revocations WHERE at_ms <= ?1", params![oldest_ms])?;
    Ok(())
}

fn read(row: Row<'_>) -> Result<Revocation> {
    let group = row.get::<Option<_>>(1)?.map(GroupId);
    let (account, epoch, at_ms) = (AccountId(row.get(2)?), row.get(3)?, row.get(4)?);
    Ok(Revocation { number: row.get(0)?, group, account, epoch, at_ms })
}

/// Numbers above the greatest that the database can count to are behind every entry.
fn behind(after: u64) -> i64 {
    i64::try_from(after).unwrap_or(i64::MAX)
}

/// Every entry behind `after`, in order.
pub(in crate::store) fn all(tx: Tx<'_>, after: u64, n: usize) -> Result<Vec<Revocation>> {
    tx.query(
        "SELECT number, group_id, account_id, epoch, at_ms FROM revocations
         WHERE number > ?1 ORDER BY number LIMIT ?2",
        params![behind(after), limit(n)],
        read,
    )
}

/// The entries behind `after` that a member of the group has to know of, in order.
pub(super) fn for_members_of(tx: Tx<'_>, group: GroupId, after: u64, now_ms: u64) -> Result<Vec<Revocation>> {
    let oldest_ms = now_ms.saturating_sub(REVOCATION_LIFE_MS);
    tx.query(
        "SELECT number, group_id, account_id, epoch, at_ms FROM revocations
         WHERE group_id = ?1 AND number > ?2 AND at_ms > ?3
         UNION ALL
         SELECT number, group_id, account_id, epoch, at_ms FROM revocations
         WHERE group_id IS NULL AND number > ?2 AND at_ms > ?3
         ORDER BY number LIMIT ?4",
        params![group.as_bytes(), behind(after), oldest_ms, limit(limits::REVOCATION_PAGE)],
        read,
    )
}

/// What is left of each of these.
pub(in crate::store) fn remaining(tx: Tx<'_>, revoked: &[Revoked]) -> Result<Vec<Remaining>> {
    let membership = "SELECT g.name, m.epoch FROM groups g
             LEFT JOIN members m ON m.group_id = g.id AND m.user_id = ?2
         WHERE g.id = ?1";
    let locked = "SELECT locked FROM users WHERE id = ?1";
    let left = revoked.iter().map(|revoked| match *revoked {
        Revoked::Membership { user, group, epoch } => {
            let found = tx.query_optional(membership, params![group.as_bytes(), user.0], |row| {
                Ok((row.name(0)?, row.get::<Option<u64>>(1)?))
            });
            Ok(match found? {
                Some((_, Some(now))) if now > epoch => Remaining::Alive,
                found => Remaining::NoMembership(found.map(|(name, _)| name)),
            })
        }
        Revoked::Account(actor) => match sessions::check(tx, actor) {
            Err(StoreError::Refused(Refused::SessionEnded)) => {
                Ok(Remaining::NoSession { locked: tx.query_one(locked, params![actor.user.0], |row| row.get(0))? })
            }
            checked => checked.map(|()| Remaining::Alive),
        },
    });
    left.collect()
}
