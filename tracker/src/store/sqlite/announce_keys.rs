//! Announce keys, and the groups that admit ordinary clients with them.

use super::{Result, groups, row, sessions};
use crate::domain::{Quota, Refused, Standing};
use crate::store::{
    Actor, Admitted, AdmittedKey, KeyUse, NewKey, OpenFile, QuotaRule, Rule, StoreError, SuspendedKey, UserId,
};
use mini_torrent_common::announce_key::AnnounceKey;
use mini_torrent_common::control::{GrantedKey, KeyId, KeyRow, ListingId};
use mini_torrent_common::hash::{GroupId, InfoHash, Sha256Hash};
use mini_torrent_common::names::GroupName;
use rusqlite::{Connection, OptionalExtension, params};

/// Admits ordinary clients to a group or turns them away; then the group's keys end.
pub(in crate::store) fn set_stock_clients(
    tx: &Connection,
    actor: Actor,
    group: &GroupName,
    on: bool,
    rule: &Rule,
) -> Result<GroupName> {
    sessions::check(tx, actor)?;
    let found = groups::standing(tx, group, actor.user)?;
    rule(found.standing)?;
    tx.prepare_cached("UPDATE groups SET stock_clients = ?2 WHERE id = ?1")?
        .execute(params![found.id.as_bytes(), on])?;
    if !on {
        tx.prepare_cached("DELETE FROM announce_keys WHERE group_id = ?1")?.execute([found.id.as_bytes()])?;
    }
    Ok(found.name)
}

/// The listing's group, its info-hash, and whether the group admits ordinary clients.
fn listing_facts(tx: &Connection, listing: ListingId) -> Result<(GroupId, InfoHash, bool)> {
    let mut query = tx.prepare_cached(
        "SELECT l.group_id, l.info_hash, g.stock_clients FROM listings l JOIN groups g ON g.id = l.group_id
         WHERE l.id = ?1",
    )?;
    let facts = query.query_row([listing.0.cast_signed()], |row| {
        Ok((GroupId(row::bytes(row, 0)?), InfoHash(row::bytes(row, 1)?), row.get(2)?))
    });
    facts.optional()?.ok_or(StoreError::NotFound)
}

/// Makes a key of the next generation, with `new.secret` as the user's secret unless it has one.
pub(in crate::store) fn create(
    tx: &Connection,
    actor: Actor,
    new: &NewKey,
    rule: &Rule,
    quota: QuotaRule,
) -> Result<GrantedKey> {
    sessions::check(tx, actor)?;
    let user = actor.user.0;
    let (group, info_hash, admits) = listing_facts(tx, new.listing)?;
    let standing: Standing = groups::standing_in(tx, group, actor.user)?;
    rule(standing)?;
    if !admits && !standing.built_in {
        return Err(StoreError::Refused(Refused::StockClientsOff));
    }
    let n_keys = tx
        .prepare_cached("SELECT COUNT(*) FROM announce_keys WHERE user_id = ?1")?
        .query_row([user], |row| row::unsigned(row, 0))?;
    quota(Quota::Keys, n_keys + 1)?;
    let (secret, generation): ([u8; 32], u32) = tx
        .prepare_cached(
            "UPDATE users SET secret = COALESCE(secret, ?2), last_key_generation = last_key_generation + 1
             WHERE id = ?1 RETURNING secret, last_key_generation",
        )?
        .query_row(params![user, new.secret.as_slice()], |row| Ok((row::bytes(row, 0)?, row.get(1)?)))?;
    let secret = zeroize::Zeroizing::new(secret);
    let key = AnnounceKey::derive(&secret, info_hash, generation);
    let of_group = (!standing.built_in).then_some(group);
    tx.prepare_cached(
        "INSERT INTO announce_keys (user_id, group_id, listing_id, generation, digest, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        user,
        of_group.as_ref().map(GroupId::as_bytes),
        new.listing.0.cast_signed(),
        generation,
        key.digest().as_bytes(),
        new.at_ms.cast_signed(),
    ])?;
    Ok(GrantedKey { id: KeyId(tx.last_insert_rowid().cast_unsigned()), key })
}

pub(in crate::store) fn of_user(tx: &Connection, user: UserId) -> Result<Vec<KeyRow>> {
    let mut query = tx.prepare_cached(
        "SELECT k.id, g.name, l.name, k.last_address, k.used_ms, k.suspended
         FROM announce_keys k JOIN listings l ON l.id = k.listing_id JOIN groups g ON g.id = l.group_id
         WHERE k.user_id = ?1 ORDER BY k.id",
    )?;
    let rows = query.query_map([user.0], |row| {
        Ok(KeyRow {
            id: KeyId(row::unsigned(row, 0)?),
            group: row::name(row, 1)?,
            file: row::name(row, 2)?,
            address: row.get(3)?,
            used_ms: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
            suspended: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Ends a key of the actor.
pub(in crate::store) fn revoke(tx: &Connection, actor: Actor, id: KeyId) -> Result<()> {
    sessions::check(tx, actor)?;
    let n = tx
        .prepare_cached("DELETE FROM announce_keys WHERE id = ?1 AND user_id = ?2")?
        .execute([id.0.cast_signed(), actor.user.0])?;
    if n == 0 { Err(StoreError::NotFound) } else { Ok(()) }
}

/// Ends every key of a user.
pub(super) fn end_all(tx: &Connection, user: UserId) -> Result<()> {
    tx.prepare_cached("DELETE FROM announce_keys WHERE user_id = ?1")?.execute([user.0])?;
    Ok(())
}

/// Suspends a key; `None` when it has ended or is suspended already.
pub(in crate::store) fn suspend(tx: &Connection, id: KeyId) -> Result<Option<SuspendedKey>> {
    let n = tx
        .prepare_cached("UPDATE announce_keys SET suspended = 1 WHERE id = ?1 AND suspended = 0")?
        .execute([id.0.cast_signed()])?;
    if n == 0 {
        return Ok(None);
    }
    let mut query = tx.prepare_cached(
        "SELECT k.user_id, g.name, l.name FROM announce_keys k JOIN listings l ON l.id = k.listing_id
             JOIN groups g ON g.id = l.group_id WHERE k.id = ?1",
    )?;
    let suspended = query.query_row([id.0.cast_signed()], |row| {
        Ok(SuspendedKey { user: UserId(row.get(0)?), group: row::name(row, 1)?, file: row::name(row, 2)? })
    });
    Ok(Some(suspended?))
}

pub(in crate::store) fn note_use(tx: &Connection, uses: &[KeyUse]) -> Result<()> {
    let mut update = tx.prepare_cached("UPDATE announce_keys SET last_address = ?2, used_ms = ?3 WHERE id = ?1")?;
    for KeyUse { id, address, used_ms } in uses {
        update.execute(params![id.0.cast_signed(), address.to_string(), used_ms.cast_signed()])?;
    }
    Ok(())
}

/// Who is admitted, unless nothing has changed since `known`.
pub(in crate::store) fn admitted(tx: &Connection, known: u64) -> Result<Option<Admitted>> {
    let change = tx
        .prepare_cached("SELECT number FROM admitted_changes WHERE id = 1")?
        .query_row([], |row| row::unsigned(row, 0))?;
    if change == known {
        return Ok(None);
    }
    let mut query = tx.prepare_cached(
        "SELECT k.id, k.user_id, u.name, k.listing_id, l.info_hash, k.digest, k.group_id IS NULL
         FROM announce_keys k JOIN users u ON u.id = k.user_id JOIN listings l ON l.id = k.listing_id
         WHERE k.suspended = 0",
    )?;
    let keys = query.query_map([], |row| {
        Ok(AdmittedKey {
            id: KeyId(row::unsigned(row, 0)?),
            user: row::name(row, 2)?,
            listing: ListingId(row::unsigned(row, 3)?),
            info_hash: InfoHash(row::bytes(row, 4)?),
            digest: Sha256Hash(row::bytes(row, 5)?),
            built_in: row.get(6)?,
        })
    })?;
    let keys = keys.collect::<rusqlite::Result<_>>()?;
    let mut query = tx.prepare_cached(
        "SELECT l.id, l.info_hash FROM listings l JOIN groups g ON g.id = l.group_id WHERE g.owner_id IS NULL",
    )?;
    let open = query.query_map([], |row| {
        Ok(OpenFile { listing: ListingId(row::unsigned(row, 0)?), info_hash: InfoHash(row::bytes(row, 1)?) })
    })?;
    Ok(Some(Admitted { change, keys, open: open.collect::<rusqlite::Result<_>>()? }))
}
