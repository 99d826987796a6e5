//! The deployment, accounts and sessions.

use super::{Result, row};
use crate::store::{Account, Session, StoreError, UserId};
use mini_torrent_common::hash::{GroupId, Sha256Hash};
use mini_torrent_common::names::{PUBLIC_GROUP, UserName};
use mini_torrent_common::tls::{Fingerprint, PublicKey};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

pub(in crate::store) fn deployment(tx: &Transaction<'_>) -> Result<Option<Fingerprint>> {
    let mut query = tx.prepare_cached("SELECT value FROM meta WHERE name = 'deployment'")?;
    Ok(query.query_row([], |row| row::bytes(row, 0)).optional()?.map(|bytes| Fingerprint(Sha256Hash(bytes))))
}

pub(in crate::store) fn found(tx: &Connection, key: Fingerprint, public: GroupId, at_ms: u64) -> Result<()> {
    tx.execute("INSERT INTO meta (name, value) VALUES ('deployment', ?1) ON CONFLICT DO NOTHING", [key.0.as_bytes()])?;
    tx.execute(
        "INSERT INTO groups (id, name, name_key, owner_id, created_ms) VALUES (?1, ?2, ?2, NULL, ?3)
         ON CONFLICT DO NOTHING",
        params![public.as_bytes(), PUBLIC_GROUP, at_ms.cast_signed()],
    )?;
    Ok(())
}

pub(in crate::store) fn create_user(
    tx: &Connection,
    name: &UserName,
    password_hash: &str,
    at_ms: u64,
) -> Result<UserId> {
    tx.prepare_cached("INSERT INTO users (name, name_key, password_hash, created_ms) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![name.as_str(), name.key(), password_hash, at_ms.cast_signed()])?;
    Ok(UserId(tx.last_insert_rowid()))
}

pub(in crate::store) fn account(tx: &Transaction<'_>, name: &UserName) -> Result<Option<Account>> {
    let mut query = tx.prepare_cached("SELECT id, name, password_hash FROM users WHERE name_key = ?1")?;
    let account = query.query_row([name.key()], |row| {
        Ok(Account { id: UserId(row.get(0)?), name: row::name(row, 1)?, password_hash: row.get(2)? })
    });
    Ok(account.optional()?)
}

pub(in crate::store) fn open_session(tx: &Connection, session: &Session) -> Result<()> {
    tx.prepare_cached("DELETE FROM sessions WHERE user_id = ?1")?.execute([session.user.0])?;
    tx.prepare_cached(
        "INSERT INTO sessions (token_digest, user_id, client_key, address, agent, since_ms, expires_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        session.digest.as_bytes(),
        session.user.0,
        session.client_key.0,
        session.address,
        session.agent,
        session.since_ms.cast_signed(),
        session.expires_ms.cast_signed(),
    ])?;
    Ok(())
}

pub(in crate::store) fn session(tx: &Transaction<'_>, digest: Sha256Hash) -> Result<Option<(Session, UserName)>> {
    let mut query = tx.prepare_cached(
        "SELECT s.user_id, s.client_key, s.address, s.agent, s.since_ms, s.expires_ms, u.name
         FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.token_digest = ?1",
    )?;
    let session = query.query_row([digest.as_bytes()], |row| {
        let session = Session {
            digest,
            user: UserId(row.get(0)?),
            client_key: PublicKey(row::bytes(row, 1)?),
            address: row.get(2)?,
            agent: row.get(3)?,
            since_ms: row::unsigned(row, 4)?,
            expires_ms: row::unsigned(row, 5)?,
        };
        Ok((session, row::name(row, 6)?))
    });
    Ok(session.optional()?)
}

pub(in crate::store) fn renew_session(
    tx: &Connection,
    digest: Sha256Hash,
    address: &str,
    expires_ms: u64,
) -> Result<()> {
    let n = tx
        .prepare_cached("UPDATE sessions SET address = ?2, expires_ms = ?3 WHERE token_digest = ?1")?
        .execute(params![digest.as_bytes(), address, expires_ms.cast_signed()])?;
    if n == 0 { Err(StoreError::NotFound) } else { Ok(()) }
}

pub(in crate::store) fn close_session(tx: &Connection, digest: Sha256Hash) -> Result<()> {
    tx.prepare_cached("DELETE FROM sessions WHERE token_digest = ?1")?.execute([digest.as_bytes()])?;
    Ok(())
}

pub(in crate::store) fn keep_sessions(
    tx: &Connection,
    live: &[Sha256Hash],
    now_ms: u64,
    expires_ms: u64,
) -> Result<()> {
    let mut renew = tx.prepare_cached("UPDATE sessions SET expires_ms = ?2 WHERE token_digest = ?1")?;
    for digest in live {
        renew.execute(params![digest.as_bytes(), expires_ms.cast_signed()])?;
    }
    tx.prepare_cached("DELETE FROM sessions WHERE expires_ms <= ?1")?.execute([now_ms.cast_signed()])?;
    Ok(())
}
