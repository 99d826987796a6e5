//! Sessions and their tokens. A user has one session; a token that is shown has a successor, and so on.

use super::{Result, announce_keys, limit, operations, revocations};
use crate::domain::Refused;
use crate::limits;
use crate::store::sql::{Row, Tx, params};
use crate::store::{
    Actor, BegunSession, NewSession, Resumption, Session, SessionId, ShownToken, SignIn, StoreError, UserId,
};
use mini_torrent_common::hash::Sha256Hash;
use mini_torrent_common::names::UserName;
use mini_torrent_common::tls::PublicKey;

/// A successor of the token that was shown last, or a session's first one. There are several when that was shown
/// again: because the answer was lost, or because it had been held up on its way and the client was given another one
/// meanwhile. They are all good until one of them is shown, for only the client knows which has reached it.
const CURRENT: i64 = 1;
/// The token that was shown last; it is valid until a successor is.
const PREDECESSOR: i64 = 2;
/// A token that nobody has a use for any more, except a thief.
const RETIRED: i64 = 3;

/// Whether the actor's session still is. Every write on behalf of a client asks this in its transaction.
pub(in crate::store) fn check(tx: Tx<'_>, actor: Actor) -> Result<()> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sessions WHERE id = ?1 AND user_id = ?2)";
    match tx.query_one(sql, params![actor.session.0, actor.user.0], |row| row.get(0))? {
        true => Ok(()),
        false => Err(StoreError::Refused(Refused::SessionEnded)),
    }
}

pub(in crate::store) fn begin(tx: Tx<'_>, session: &NewSession) -> Result<BegunSession> {
    let sql = "SELECT locked, client_key FROM users WHERE id = ?1";
    let (locked, last_key): (bool, Option<[u8; 32]>) =
        tx.query_one(sql, params![session.user.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // Asked here again, for the operator may have locked it while the password was being checked.
    if locked {
        return Err(StoreError::Refused(Refused::AccountLocked));
    }
    let revoked = last_key.is_some_and(|key| key != session.client_key.0);
    if revoked {
        let place = revocations::take_place(tx)?;
        revocations::revoke_account(tx, &place, session.user, session.since_ms)?;
    }
    let sql = "UPDATE users SET client_key = ?2 WHERE id = ?1";
    tx.execute(sql, params![session.user.0, &session.client_key.0])?;
    end_all(tx, session.user)?;
    let id = tx.query_one(
        "INSERT INTO sessions (user_id, client_key, address, agent, since_ms, expires_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING id",
        params![
            session.user.0,
            &session.client_key.0,
            &*session.address,
            &*session.agent,
            session.since_ms,
            session.expires_ms,
        ],
        |row| row.get(0).map(SessionId),
    )?;
    let sign_in = issue(tx, id, session.token)?;
    Ok(BegunSession { id, revoked, sign_in })
}

/// Its number is the sign-in's. Who issues holds a row of the user's or the session's until the commit, so that later
/// ones have greater numbers.
fn issue(tx: Tx<'_>, session: SessionId, token: Sha256Hash) -> Result<SignIn> {
    let sql = "INSERT INTO session_tokens (token_digest, session_id, state) VALUES (?1, ?2, ?3) RETURNING id";
    tx.query_one(sql, params![token.as_bytes(), session.0, CURRENT], |row| row.get(0).map(SignIn))
}

/// A session as a token finds it.
struct Found {
    state: i64,
    actor: Actor,
    name: UserName,
    key: PublicKey,
    expires_ms: u64,
}

fn read_found(row: Row<'_>) -> Result<Found> {
    Ok(Found {
        state: row.get(0)?,
        actor: Actor::new(UserId(row.get(2)?), SessionId(row.get(1)?)),
        name: row.name(3)?,
        key: PublicKey(row.get(4)?),
        expires_ms: row.get(5)?,
    })
}

pub(in crate::store) fn resume(tx: Tx<'_>, shown: &ShownToken) -> Result<Resumption> {
    let found = tx.query_optional(
        "SELECT t.state, s.id, s.user_id, u.name, s.client_key, s.expires_ms
         FROM session_tokens t JOIN sessions s ON s.id = t.session_id JOIN users u ON u.id = s.user_id
         WHERE t.token_digest = ?1",
        params![shown.token.as_bytes()],
        read_found,
    )?;
    let Some(Found { state, actor, name, key, expires_ms }) = found else { return Ok(Resumption::Unknown) };
    // The key comes first: who merely copied a token can neither use it nor end anything with it.
    if key != shown.client_key {
        return Ok(Resumption::OfAnotherClient(name));
    }
    if expires_ms <= shown.now_ms {
        return Ok(Resumption::Unknown);
    }
    if state != CURRENT && state != PREDECESSOR {
        end(tx, actor)?;
        return Ok(Resumption::UsedUp(actor, name));
    }
    let sql = "UPDATE sessions SET address = ?2, expires_ms = ?3 WHERE id = ?1";
    tx.execute(sql, params![actor.session.0, &*shown.address, shown.expires_ms])?;
    if state == CURRENT {
        // It has reached the client: the one before it is useless now, and so are its siblings, which have not.
        let sql = "UPDATE session_tokens SET state = ?2 WHERE session_id = ?1 AND state <> ?2";
        tx.execute(sql, params![actor.session.0, RETIRED])?;
        let sql = "UPDATE session_tokens SET state = ?2 WHERE token_digest = ?1";
        tx.execute(sql, params![shown.token.as_bytes(), PREDECESSOR])?;
    }
    let sign_in = issue(tx, actor.session, shown.successor)?;
    retire_oldest(tx, actor.session)?;
    forget_retired(tx, actor.session)?;
    Ok(Resumption::Resumed(actor, name, sign_in))
}

/// Keeps the newest of the successors.
fn retire_oldest(tx: Tx<'_>, session: SessionId) -> Result<()> {
    tx.execute(
        "UPDATE session_tokens SET state = ?3 WHERE session_id = ?1 AND state = ?2 AND id <=
             (SELECT t.id FROM session_tokens t WHERE t.session_id = ?1 AND t.state = ?2
              ORDER BY t.id DESC LIMIT 1 OFFSET ?4)",
        params![session.0, CURRENT, RETIRED, limit(limits::MAX_SUCCESSORS)],
    )?;
    Ok(())
}

/// Keeps the newest of the retired tokens.
fn forget_retired(tx: Tx<'_>, session: SessionId) -> Result<()> {
    tx.execute(
        "DELETE FROM session_tokens WHERE session_id = ?1 AND state = ?2 AND id <=
             (SELECT t.id FROM session_tokens t WHERE t.session_id = ?1 AND t.state = ?2
              ORDER BY t.id DESC LIMIT 1 OFFSET ?3)",
        params![session.0, RETIRED, limit(limits::MAX_RETIRED_TOKENS)],
    )?;
    Ok(())
}

pub(in crate::store) fn all(tx: Tx<'_>, user: UserId) -> Result<Vec<Session>> {
    let sql = "SELECT id, address, agent, since_ms FROM sessions WHERE user_id = ?1 ORDER BY id";
    tx.query(sql, params![user.0], |row| {
        let since_ms = row.get(3)?;
        Ok(Session { id: SessionId(row.get(0)?), address: row.get(1)?, agent: row.get(2)?, since_ms })
    })
}

pub(in crate::store) fn end(tx: Tx<'_>, actor: Actor) -> Result<()> {
    tx.execute("DELETE FROM sessions WHERE id = ?1 AND user_id = ?2", params![actor.session.0, actor.user.0])?;
    Ok(())
}

/// Ends every session of a user.
pub(super) fn end_all(tx: Tx<'_>, user: UserId) -> Result<()> {
    tx.execute("DELETE FROM sessions WHERE user_id = ?1", params![user.0])?;
    Ok(())
}

pub(in crate::store) fn end_everywhere(tx: Tx<'_>, actor: Actor, at_ms: u64) -> Result<()> {
    let place = revocations::take_place(tx)?;
    check(tx, actor)?;
    revocations::revoke_account(tx, &place, actor.user, at_ms)?;
    announce_keys::end_all(tx, actor.user)?;
    end_all(tx, actor.user)
}

pub(in crate::store) fn keep(tx: Tx<'_>, live: &[SessionId], now_ms: u64, expires_ms: u64) -> Result<()> {
    for session in live {
        tx.execute("UPDATE sessions SET expires_ms = ?2 WHERE id = ?1", params![session.0, expires_ms])?;
    }
    tx.execute("DELETE FROM sessions WHERE expires_ms <= ?1", params![now_ms])?;
    operations::forget_old(tx, now_ms)?;
    revocations::forget_old(tx, now_ms)
}
