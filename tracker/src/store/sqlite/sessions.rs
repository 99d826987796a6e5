//! Sessions and their tokens. A user has one session; a token has one successor, and so on.

use super::{Result, announce_keys, revocations, row};
use crate::domain::Refused;
use crate::limits;
use crate::store::{Actor, BegunSession, NewSession, Resumption, Session, SessionId, ShownToken, StoreError, UserId};
use mini_torrent_common::hash::Sha256Hash;
use mini_torrent_common::names::UserName;
use mini_torrent_common::tls::PublicKey;
use rusqlite::{Connection, OptionalExtension, params};

/// The session's token that was issued last.
const CURRENT: i64 = 1;
/// The token before; it is valid until the current one is used, for the answer that brought that may be lost.
const PREDECESSOR: i64 = 2;
/// A token that nobody has a use for any more, except a thief.
const RETIRED: i64 = 3;

/// Whether the actor's session still is. Every write on behalf of a client asks this in its transaction.
pub(in crate::store) fn check(tx: &Connection, actor: Actor) -> Result<()> {
    let mut query = tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM sessions WHERE id = ?1 AND user_id = ?2)")?;
    match query.query_row([actor.session.0, actor.user.0], |row| row.get(0))? {
        true => Ok(()),
        false => Err(StoreError::Refused(Refused::SessionEnded)),
    }
}

pub(in crate::store) fn begin(tx: &Connection, session: &NewSession) -> Result<BegunSession> {
    let (locked, last_key): (bool, Option<[u8; 32]>) = tx
        .prepare_cached("SELECT locked, client_key FROM users WHERE id = ?1")?
        .query_row([session.user.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // Asked here again, for the operator may have locked it while the password was being checked.
    if locked {
        return Err(StoreError::Refused(Refused::AccountLocked));
    }
    let revoked = last_key.is_some_and(|key| key != session.client_key.0);
    if revoked {
        let place = revocations::take_place(tx)?;
        revocations::revoke_account(tx, &place, session.user, session.since_ms)?;
    }
    tx.prepare_cached("UPDATE users SET client_key = ?2 WHERE id = ?1")?
        .execute(params![session.user.0, session.client_key.0])?;
    end_all(tx, session.user)?;
    tx.prepare_cached(
        "INSERT INTO sessions (user_id, client_key, address, agent, since_ms, expires_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        session.user.0,
        session.client_key.0,
        session.address,
        session.agent,
        session.since_ms.cast_signed(),
        session.expires_ms.cast_signed(),
    ])?;
    let id = SessionId(tx.last_insert_rowid());
    issue(tx, id, session.token)?;
    Ok(BegunSession { id, revoked })
}

fn issue(tx: &Connection, session: SessionId, token: Sha256Hash) -> Result<()> {
    tx.prepare_cached("INSERT INTO session_tokens (token_digest, session_id, state) VALUES (?1, ?2, ?3)")?
        .execute(params![token.as_bytes(), session.0, CURRENT])?;
    Ok(())
}

pub(in crate::store) fn resume(tx: &Connection, shown: &ShownToken) -> Result<Resumption> {
    let found = tx
        .prepare_cached(
            "SELECT t.state, s.id, s.user_id, u.name, s.client_key, s.expires_ms
             FROM session_tokens t JOIN sessions s ON s.id = t.session_id JOIN users u ON u.id = s.user_id
             WHERE t.token_digest = ?1",
        )?
        .query_row([shown.token.as_bytes()], |row| {
            let actor = Actor { session: SessionId(row.get(1)?), user: UserId(row.get(2)?) };
            let (name, key): (UserName, _) = (row::name(row, 3)?, PublicKey(row::bytes(row, 4)?));
            Ok((row.get(0)?, actor, name, key, row::unsigned(row, 5)?))
        })
        .optional()?;
    let Some((state, actor, name, key, expires_ms)) = found else { return Ok(Resumption::Unknown) };
    // The key comes first: who merely copied a token can neither use it nor end anything with it.
    if key != shown.client_key {
        return Ok(Resumption::OfAnotherClient(name));
    }
    if expires_ms <= shown.now_ms {
        return Ok(Resumption::Unknown);
    }
    // What retires is the token that this one makes useless: the one before it, or its successor that never
    // reached the client.
    let useless = match state {
        CURRENT => PREDECESSOR,
        PREDECESSOR => CURRENT,
        _ => {
            end(tx, actor)?;
            return Ok(Resumption::UsedUp(actor, name));
        }
    };
    let mut change = tx.prepare_cached("UPDATE session_tokens SET state = ?3 WHERE session_id = ?1 AND state = ?2")?;
    change.execute([actor.session.0, useless, RETIRED])?;
    change.execute([actor.session.0, CURRENT, PREDECESSOR])?;
    issue(tx, actor.session, shown.successor)?;
    forget_retired(tx, actor.session)?;
    tx.prepare_cached("UPDATE sessions SET address = ?2, expires_ms = ?3 WHERE id = ?1")?.execute(params![
        actor.session.0,
        shown.address,
        shown.expires_ms.cast_signed()
    ])?;
    Ok(Resumption::Resumed(actor, name))
}

/// Keeps the newest of the retired tokens.
fn forget_retired(tx: &Connection, session: SessionId) -> Result<()> {
    tx.prepare_cached(
        "DELETE FROM session_tokens WHERE id IN
             (SELECT id FROM session_tokens WHERE session_id = ?1 AND state = ?2 ORDER BY id DESC LIMIT -1 OFFSET ?3)",
    )?
    .execute([session.0, RETIRED, row::limit(limits::MAX_RETIRED_TOKENS)])?;
    Ok(())
}

pub(in crate::store) fn all(tx: &Connection, user: UserId) -> Result<Vec<Session>> {
    let mut query =
        tx.prepare_cached("SELECT id, address, agent, since_ms FROM sessions WHERE user_id = ?1 ORDER BY id")?;
    let rows = query.query_map([user.0], |row| {
        let since_ms = row::unsigned(row, 3)?;
        Ok(Session { id: SessionId(row.get(0)?), address: row.get(1)?, agent: row.get(2)?, since_ms })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(in crate::store) fn end(tx: &Connection, actor: Actor) -> Result<()> {
    tx.prepare_cached("DELETE FROM sessions WHERE id = ?1 AND user_id = ?2")?
        .execute([actor.session.0, actor.user.0])?;
    Ok(())
}

/// Ends every session of a user.
pub(super) fn end_all(tx: &Connection, user: UserId) -> Result<()> {
    tx.prepare_cached("DELETE FROM sessions WHERE user_id = ?1")?.execute([user.0])?;
    Ok(())
}

pub(in crate::store) fn end_everywhere(tx: &Connection, actor: Actor, at_ms: u64) -> Result<()> {
    let place = revocations::take_place(tx)?;
    check(tx, actor)?;
    revocations::revoke_account(tx, &place, actor.user, at_ms)?;
    announce_keys::end_all(tx, actor.user)?;
    end_all(tx, actor.user)
}

pub(in crate::store) fn keep(tx: &Connection, live: &[SessionId], now_ms: u64, expires_ms: u64) -> Result<()> {
    let mut renew = tx.prepare_cached("UPDATE sessions SET expires_ms = ?2 WHERE id = ?1")?;
    for session in live {
        renew.execute([session.0, expires_ms.cast_signed()])?;
    }
    tx.prepare_cached("DELETE FROM sessions WHERE expires_ms <= ?1")?.execute([now_ms.cast_signed()])?;
    revocations::forget_old(tx, now_ms)
}
