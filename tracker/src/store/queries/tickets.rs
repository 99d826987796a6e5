//! What tickets are made from: the keys that sign them, and the facts that they state.

use super::{Result, groups, revocations, sessions};
use crate::domain::Refused;
use crate::store::sql::{Row, Tx, params};
use crate::store::{Actor, AdmissionFacts, StoreError, StoredTicketKey};
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::ticket::CLOCK_TOLERANCE_MS;
use mini_torrent_common::tls::PublicKey;
use zeroize::Zeroizing;

fn read_key(row: Row<'_>) -> Result<StoredTicketKey> {
    Ok(StoredTicketKey {
        key: PublicKey(row.get(0)?),
        seed: Zeroizing::new(row.get(1)?),
        from_ms: row.get(2)?,
        use_until_ms: row.get(3)?,
        until_ms: row.get(4)?,
        endorsement: row.get(5)?,
    })
}

/// The key to sign with: the newest one that is in use, or else `draft`, which is kept then. Keys whose tickets
/// have all expired go.
pub(in crate::store) fn ticket_key(tx: Tx<'_>, draft: &StoredTicketKey, now_ms: u64) -> Result<StoredTicketKey> {
    tx.execute("DELETE FROM ticket_keys WHERE until_ms <= ?1", params![now_ms])?;
    // A key from the future was made by a tracker whose clock was wrong; members would refuse its tickets.
    let latest_ms = now_ms.saturating_add(CLOCK_TOLERANCE_MS);
    let in_use = tx.query_optional(
        "SELECT public_key, seed, from_ms, use_until_ms, until_ms, endorsement FROM ticket_keys
         WHERE use_until_ms > ?1 AND from_ms <= ?2 ORDER BY use_until_ms DESC LIMIT 1",
        params![now_ms, latest_ms],
        read_key,
    )?;
    if let Some(key) = in_use {
        return Ok(key);
    }
    tx.execute(
        "INSERT INTO ticket_keys (public_key, seed, from_ms, use_until_ms, until_ms, endorsement)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            &draft.key.0,
            &draft.seed[..],
            draft.from_ms,
            draft.use_until_ms,
            draft.until_ms,
            &draft.endorsement[..],
        ],
    )?;
    Ok(draft.clone())
}

/// All from one snapshot: a membership that it shows is revoked by a number that is behind those it shows.
pub(in crate::store) fn admission(
    tx: Tx<'_>,
    actor: Actor,
    group: GroupId,
    after: u64,
    now_ms: u64,
) -> Result<AdmissionFacts> {
    sessions::check(tx, actor)?;
    let sql = "SELECT epoch, locked FROM users WHERE id = ?1";
    let (account_epoch, locked) = tx.query_one(sql, params![actor.user.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if locked {
        return Err(StoreError::Refused(Refused::SessionEnded));
    }
    let standing = groups::standing_in(tx, group, actor.user)?;
    let sql = "SELECT epoch FROM members WHERE group_id = ?1 AND user_id = ?2";
    let member_epoch = tx.query_optional(sql, params![group.as_bytes(), actor.user.0], |row| row.get(0))?;
    let revocations = revocations::for_members_of(tx, group, after, now_ms)?;
    Ok(AdmissionFacts { standing, member_epoch: member_epoch.unwrap_or(0), account_epoch, revocations })
}
