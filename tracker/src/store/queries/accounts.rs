//! The deployment and its accounts.

use super::{Result, announce_keys, revocations, sessions};
use crate::store::sql::{Tx, params};
use crate::store::{Account, StoreError, UserId};
use mini_torrent_common::hash::{GroupId, Sha256Hash};
use mini_torrent_common::names::{PUBLIC_GROUP, UserName};
use mini_torrent_common::tls::Fingerprint;

pub(in crate::store) fn deployment(tx: Tx<'_>) -> Result<Option<Fingerprint>> {
    tx.query_optional("SELECT value FROM meta WHERE name = 'deployment'", params![], |row| {
        Ok(Fingerprint(Sha256Hash(row.get(0)?)))
    })
}

pub(in crate::store) fn found(tx: Tx<'_>, key: Fingerprint, public: GroupId, at_ms: u64) -> Result<()> {
    tx.execute(
        "INSERT INTO meta (name, value) VALUES ('deployment', ?1) ON CONFLICT DO NOTHING",
        params![key.0.as_bytes()],
    )?;
    tx.execute(
        "INSERT INTO groups (id, name, name_key, owner_id, created_ms) VALUES (?1, ?2, ?2, NULL, ?3)
         ON CONFLICT DO NOTHING",
        params![public.as_bytes(), PUBLIC_GROUP, at_ms],
    )?;
    Ok(())
}

pub(in crate::store) fn create_user(tx: Tx<'_>, name: &UserName, password_hash: &str, at_ms: u64) -> Result<UserId> {
    tx.query_one(
        "INSERT INTO users (name, name_key, password_hash, created_ms) VALUES (?1, ?2, ?3, ?4) RETURNING id",
        params![name.as_str(), &*name.key(), password_hash, at_ms],
        |row| row.get(0).map(UserId),
    )
}

pub(in crate::store) fn account(tx: Tx<'_>, name: &UserName) -> Result<Option<Account>> {
    let sql = "SELECT id, name, password_hash, locked FROM users WHERE name_key = ?1";
    tx.query_optional(sql, params![&*name.key()], |row| {
        let (id, name) = (UserId(row.get(0)?), row.name(1)?);
        Ok(Account { id, name, password_hash: row.get(2)?, locked: row.get(3)? })
    })
}

/// Locks an account: its sessions and tickets end. One that is locked already stays as it is.
pub(in crate::store) fn lock(tx: Tx<'_>, name: &UserName, at_ms: u64) -> Result<(UserId, UserName)> {
    let place = revocations::take_place(tx)?;
    let (user, name, was_locked) = set_locked(tx, name, true)?;
    if !was_locked {
        revocations::revoke_account(tx, &place, user, at_ms)?;
        sessions::end_all(tx, user)?;
        announce_keys::end_all(tx, user)?;
    }
    Ok((user, name))
}

pub(in crate::store) fn unlock(tx: Tx<'_>, name: &UserName) -> Result<(UserId, UserName)> {
    let (user, name, _) = set_locked(tx, name, false)?;
    Ok((user, name))
}

/// The account, its name as it is stored, and whether it was locked before.
fn set_locked(tx: Tx<'_>, name: &UserName, locked: bool) -> Result<(UserId, UserName, bool)> {
    let sql = "SELECT id, name, locked FROM users WHERE name_key = ?1";
    let found =
        tx.query_optional(sql, params![&*name.key()], |row| Ok((UserId(row.get(0)?), row.name(1)?, row.get(2)?)))?;
    let (user, name, was_locked) = found.ok_or(StoreError::NotFound)?;
    tx.execute("UPDATE users SET locked = ?2 WHERE id = ?1", params![user.0, locked])?;
    Ok((user, name, was_locked))
}
