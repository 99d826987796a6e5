//! What tickets are made from: the keys that sign them, and the facts that they state.

use super::{Result, groups, revocations, row, sessions};
use crate::domain::Refused;
use crate::store::{Actor, AdmissionFacts, StoreError, StoredTicketKey};
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::ticket::CLOCK_TOLERANCE_MS;
use mini_torrent_common::tls::PublicKey;
use rusqlite::{Connection, OptionalExtension, Row, params};
use zeroize::Zeroizing;

fn read_key(row: &Row<'_>) -> rusqlite::Result<StoredTicketKey> {
    Ok(StoredTicketKey {
        key: PublicKey(row::bytes(row, 0)?),
        seed: Zeroizing::new(row::bytes(row, 1)?),
        from_ms: row::unsigned(row, 2)?,
        use_until_ms: row::unsigned(row, 3)?,
        until_ms: row::unsigned(row, 4)?,
        endorsement: row.get(5)?,
    })
}

/// The key to sign with: the newest one that is in use, or else `draft`, which is kept then. Keys whose tickets
/// have all expired go.
pub(in crate::store) fn ticket_key(tx: &Connection, draft: StoredTicketKey, now_ms: u64) -> Result<StoredTicketKey> {
    tx.prepare_cached("DELETE FROM ticket_keys WHERE until_ms <= ?1")?.execute([now_ms.cast_signed()])?;
    // A key from the future was made by a tracker whose clock was wrong; members would refuse its tickets.
    let latest_ms = now_ms.saturating_add(CLOCK_TOLERANCE_MS);
    let in_use = tx
        .prepare_cached(
            "SELECT public_key, seed, from_ms, use_until_ms, until_ms, endorsement FROM ticket_keys
             WHERE use_until_ms > ?1 AND from_ms <= ?2 ORDER BY use_until_ms DESC LIMIT 1",
        )?
        .query_row([now_ms.cast_signed(), latest_ms.cast_signed()], read_key)
        .optional()?;
    if let Some(key) = in_use {
        return Ok(key);
    }
    tx.prepare_cached(
        "INSERT INTO ticket_keys (public_key, seed, from_ms, use_until_ms, until_ms, endorsement)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        draft.key.0,
        &draft.seed[..],
        draft.from_ms.cast_signed(),
        draft.use_until_ms.cast_signed(),
        draft.until_ms.cast_signed(),
        draft.endorsement,
    ])?;
    Ok(draft)
}

/// All from one snapshot: a membership that it shows is revoked by a number that is behind those it shows.
pub(in crate::store) fn admission(
    tx: &Connection,
    actor: Actor,
    group: GroupId,
    after: u64,
    now_ms: u64,
) -> Result<AdmissionFacts> {
    sessions::check(tx, actor)?;
    let (account_epoch, locked): (u64, bool) = tx
        .prepare_cached("SELECT epoch, locked FROM users WHERE id = ?1")?
        .query_row([actor.user.0], |row| Ok((row::unsigned(row, 0)?, row.get(1)?)))?;
    if locked {
        return Err(StoreError::Refused(Refused::SessionEnded));
    }
    let standing = groups::standing_in(tx, group, actor.user)?;
    let member_epoch = tx
        .prepare_cached("SELECT epoch FROM members WHERE group_id = ?1 AND user_id = ?2")?
        .query_row(params![group.as_bytes(), actor.user.0], |row| row::unsigned(row, 0))
        .optional()?;
    let revocations = revocations::for_members_of(tx, group, after, now_ms)?;
    Ok(AdmissionFacts { standing, member_epoch: member_epoch.unwrap_or(0), account_epoch, revocations })
}
