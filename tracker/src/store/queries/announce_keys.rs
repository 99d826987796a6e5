//! Announce keys, and the groups that admit ordinary clients with them.
//!
//! Each change of who is admitted raises a number, so that a tracker sees with one row whether it has to read again. No
//! trigger does that, for not every database that speaks PostgreSQL's protocol has them: keys come and go by the
//! functions of this file alone, before the database would let them go with what they hang on.

use super::{Result, groups};
use crate::domain::{Quota, Refused, Standing};
use crate::store::sql::{Tx, Value, params};
use crate::store::{
    Actor, Admitted, AdmittedKey, KeyUse, NewKey, OpenFile, QuotaRule, Rule, StoreError, SuspendedKey, UserId,
};
use mini_torrent_common::announce_key::AnnounceKey;
use mini_torrent_common::control::{GrantedKey, KeyId, KeyRow, ListingId};
use mini_torrent_common::hash::{GroupId, InfoHash, Sha256Hash};
use mini_torrent_common::names::GroupName;
use zeroize::Zeroizing;

/// Admits ordinary clients to a group or turns them away; then the group's keys end.
pub(in crate::store) fn set_stock_clients(
    tx: Tx<'_>,
    actor: Actor,
    group: &GroupName,
    on: bool,
    rule: &Rule,
) -> Result<GroupName> {
    let found = groups::standing(tx, group, actor.user)?;
    rule(found.standing)?;
    tx.execute("UPDATE groups SET stock_clients = ?2 WHERE id = ?1", params![found.id.as_bytes(), on])?;
    if !on {
        end_in_group(tx, found.id)?;
    }
    Ok(found.name)
}

/// Who is admitted has changed: a key came, went or was suspended, or a file of the built-in group came or went.
pub(super) fn raise_admitted_changes(tx: Tx<'_>) -> Result<()> {
    tx.execute("UPDATE admitted_changes SET number = number + 1 WHERE id = 1", params![])?;
    Ok(())
}

/// Ends keys by a statement; how many.
fn end(tx: Tx<'_>, sql: &str, parameters: &[Value<'_>]) -> Result<u64> {
    let n_ended = tx.execute(sql, parameters)?;
    if n_ended > 0 {
        raise_admitted_changes(tx)?;
    }
    Ok(n_ended)
}

/// Ends every key for a group's files.
pub(super) fn end_in_group(tx: Tx<'_>, group: GroupId) -> Result<()> {
    end(tx, "DELETE FROM announce_keys WHERE group_id = ?1", params![group.as_bytes()])?;
    Ok(())
}

/// Ends every key of a member for a group's files.
pub(super) fn end_of_member(tx: Tx<'_>, group: GroupId, user: UserId) -> Result<()> {
    let sql = "DELETE FROM announce_keys WHERE group_id = ?1 AND user_id = ?2";
    end(tx, sql, params![group.as_bytes(), user.0])?;
    Ok(())
}

/// Ends every key for a file.
pub(super) fn end_for(tx: Tx<'_>, listing: ListingId) -> Result<()> {
    end(tx, "DELETE FROM announce_keys WHERE listing_id = ?1", params![listing.0])?;
    Ok(())
}

/// The listing's group, its info-hash, and whether the group admits ordinary clients.
fn listing_facts(tx: Tx<'_>, listing: ListingId) -> Result<(GroupId, InfoHash, bool)> {
    let facts = tx.query_optional(
        "SELECT l.group_id, l.info_hash, g.stock_clients FROM listings l JOIN groups g ON g.id = l.group_id
         WHERE l.id = ?1",
        params![listing.0],
        |row| Ok((GroupId(row.get(0)?), InfoHash(row.get(1)?), row.get(2)?)),
    )?;
    facts.ok_or(StoreError::NotFound)
}

/// Makes a key of the next generation, with `new.secret` as the user's secret unless it has one; returns its number.
pub(in crate::store) fn create(tx: Tx<'_>, actor: Actor, new: &NewKey, rule: &Rule, quota: QuotaRule) -> Result<KeyId> {
    let user = actor.user.0;
    let (group, info_hash, admits) = listing_facts(tx, new.listing)?;
    let standing: Standing = groups::standing_in(tx, group, actor.user)?;
    rule(standing)?;
    if !admits && !standing.built_in {
        return Err(StoreError::Refused(Refused::StockClientsOff));
    }
    let sql = "SELECT COUNT(*) FROM announce_keys WHERE user_id = ?1";
    let n_keys: u64 = tx.query_one(sql, params![user], |row| row.get(0))?;
    quota(Quota::Keys, n_keys + 1)?;
    let (secret, generation): (Zeroizing<[u8; 32]>, u32) = tx.query_one(
        "UPDATE users SET secret = COALESCE(secret, ?2), last_key_generation = last_key_generation + 1
         WHERE id = ?1 RETURNING secret, last_key_generation",
        params![user, new.secret.as_slice()],
        |row| Ok((Zeroizing::new(row.get(0)?), row.get(1)?)),
    )?;
    let key = AnnounceKey::derive(&secret, info_hash, generation);
    let of_group = (!standing.built_in).then_some(group);
    raise_admitted_changes(tx)?;
    tx.query_one(
        "INSERT INTO announce_keys (user_id, group_id, listing_id, generation, digest, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING id",
        params![
            user,
            of_group.as_ref().map(GroupId::as_bytes),
            new.listing.0,
            generation,
            key.digest().as_bytes(),
            new.at_ms,
        ],
        |row| row.get(0).map(KeyId),
    )
}

/// A key of the user, derived again.
pub(in crate::store) fn granted(tx: Tx<'_>, user: UserId, id: KeyId) -> Result<GrantedKey> {
    let found = tx.query_optional(
        "SELECT u.secret, l.info_hash, k.generation FROM announce_keys k JOIN users u ON u.id = k.user_id
             JOIN listings l ON l.id = k.listing_id WHERE k.id = ?1 AND k.user_id = ?2",
        params![id.0, user.0],
        |row| Ok((Zeroizing::new(row.get(0)?), InfoHash(row.get(1)?), row.get(2)?)),
    )?;
    // One that was made and has ended since.
    let (secret, info_hash, generation) = found.ok_or(StoreError::Refused(Refused::NoSuchKey))?;
    Ok(GrantedKey { id, key: AnnounceKey::derive(&secret, info_hash, generation) })
}

pub(in crate::store) fn of_user(tx: Tx<'_>, user: UserId) -> Result<Vec<KeyRow>> {
    tx.query(
        "SELECT k.id, g.name, l.name, k.last_address, k.used_ms, k.suspended
         FROM announce_keys k JOIN listings l ON l.id = k.listing_id JOIN groups g ON g.id = l.group_id
         WHERE k.user_id = ?1 ORDER BY k.id",
        params![user.0],
        |row| {
            Ok(KeyRow {
                id: KeyId(row.get(0)?),
                group: row.name(1)?,
                file: row.name(2)?,
                address: row.get(3)?,
                used_ms: row.get(4)?,
                suspended: row.get(5)?,
            })
        },
    )
}

/// Ends a key of the actor.
pub(in crate::store) fn revoke(tx: Tx<'_>, actor: Actor, id: KeyId) -> Result<()> {
    let sql = "DELETE FROM announce_keys WHERE id = ?1 AND user_id = ?2";
    let n = end(tx, sql, params![id.0, actor.user.0])?;
    if n == 0 { Err(StoreError::NotFound) } else { Ok(()) }
}

/// Ends every key of a user.
pub(super) fn end_all(tx: Tx<'_>, user: UserId) -> Result<()> {
    end(tx, "DELETE FROM announce_keys WHERE user_id = ?1", params![user.0])?;
    Ok(())
}

/// Suspends a key; `None` when it has ended or is suspended already.
pub(in crate::store) fn suspend(tx: Tx<'_>, id: KeyId) -> Result<Option<SuspendedKey>> {
    let n = tx.execute("UPDATE announce_keys SET suspended = 1 WHERE id = ?1 AND suspended = 0", params![id.0])?;
    if n == 0 {
        return Ok(None);
    }
    raise_admitted_changes(tx)?;
    tx.query_optional(
        "SELECT k.user_id, g.name, l.name FROM announce_keys k JOIN listings l ON l.id = k.listing_id
             JOIN groups g ON g.id = l.group_id WHERE k.id = ?1",
        params![id.0],
        |row| Ok(SuspendedKey { user: UserId(row.get(0)?), group: row.name(1)?, file: row.name(2)? }),
    )
}

pub(in crate::store) fn note_use(tx: Tx<'_>, uses: &[KeyUse]) -> Result<()> {
    for KeyUse { id, address, used_ms } in uses {
        let sql = "UPDATE announce_keys SET last_address = ?2, used_ms = ?3 WHERE id = ?1";
        tx.execute(sql, params![id.0, &*address.to_string(), *used_ms])?;
    }
    Ok(())
}

/// Who is admitted, unless nothing has changed since `known`.
pub(in crate::store) fn admitted(tx: Tx<'_>, known: u64) -> Result<Option<Admitted>> {
    let sql = "SELECT number FROM admitted_changes WHERE id = 1";
    let change = tx.query_one(sql, params![], |row| row.get(0))?;
    if change == known {
        return Ok(None);
    }
    let keys = tx.query(
        "SELECT k.id, k.user_id, u.name, k.listing_id, l.info_hash, k.digest, k.group_id IS NULL
         FROM announce_keys k JOIN users u ON u.id = k.user_id JOIN listings l ON l.id = k.listing_id
         WHERE k.suspended = 0",
        params![],
        |row| {
            Ok(AdmittedKey {
                id: KeyId(row.get(0)?),
                user: row.name(2)?,
                listing: ListingId(row.get(3)?),
                info_hash: InfoHash(row.get(4)?),
                digest: Sha256Hash(row.get(5)?),
                built_in: row.get(6)?,
            })
        },
    )?;
    let open = tx.query(
        "SELECT l.id, l.info_hash FROM listings l JOIN groups g ON g.id = l.group_id WHERE g.owner_id IS NULL",
        params![],
        |row| Ok(OpenFile { listing: ListingId(row.get(0)?), info_hash: InfoHash(row.get(1)?) }),
    )?;
    Ok(Some(Admitted { change, keys, open }))
}
