//! What was done under a client's name for it, so that it is done once however often it is asked for.

use super::{Result, limit, sessions};
use crate::domain::Refused;
use crate::limits;
use crate::store::sql::{Tx, damaged, params};
use crate::store::{Actor, Once, OperationKind, Owner, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Does `work` for an actor whose session still is, unless it was done before under the same name.
pub(in crate::store) fn as_actor<T: Serialize + DeserializeOwned>(
    tx: Tx<'_>,
    actor: Actor,
    kind: OperationKind,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    sessions::check(tx, actor)?;
    once(tx, Owner::User(actor.user), actor.once, kind, work)
}

/// Does `work`, unless it was done before under the same name: then its outcome is what it was. What is refused
/// leaves no trace.
pub(in crate::store) fn once<T: Serialize + DeserializeOwned>(
    tx: Tx<'_>,
    owner: Owner,
    once: Option<Once>,
    kind: OperationKind,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let Some(once) = once else { return work() };
    if let Some(outcome) = outcome(tx, owner, once, kind)? {
        return Ok(outcome);
    }
    let outcome = work()?;
    note(tx, &owner.bytes(), once, kind, &outcome)?;
    Ok(outcome)
}

/// What came of it, if it was done before.
pub(in crate::store) fn outcome<T: DeserializeOwned>(
    tx: Tx<'_>,
    owner: Owner,
    once: Once,
    kind: OperationKind,
) -> Result<Option<T>> {
    let sql = "SELECT kind, outcome FROM done_operations WHERE owner = ?1 AND operation = ?2";
    let (owner, id) = (owner.bytes(), once.id);
    tx.query_optional(sql, params![&*owner, id.as_bytes()], |row| {
        if row.get::<i64>(0)? != kind as i64 {
            return Err(StoreError::Refused(Refused::Usage("something else was done under this name")));
        }
        postcard::from_bytes(row.get(1)?).map_err(|error| damaged(format_args!("an outcome: {error}")))
    })
}

fn note(tx: Tx<'_>, owner: &[u8], once: Once, kind: OperationKind, outcome: &impl Serialize) -> Result<()> {
    let outcome = postcard::to_stdvec(outcome).map_err(|error| {
        tracing::error!(%error, "an outcome cannot be recorded");
        StoreError::Unavailable
    })?;
    tx.execute(
        "INSERT INTO done_operations (owner, operation, kind, outcome, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![owner, once.id.as_bytes(), kind as i64, &*outcome, once.at_ms],
    )?;
    tx.execute(
        "DELETE FROM done_operations WHERE owner = ?1 AND at_ms <
             (SELECT d.at_ms FROM done_operations d WHERE d.owner = ?1 ORDER BY d.at_ms DESC LIMIT 1 OFFSET ?2)",
        params![owner, limit(limits::MAX_OPERATIONS_KEPT - 1)],
    )?;
    Ok(())
}

/// Drops what nobody will ask for again.
pub(super) fn forget_old(tx: Tx<'_>, now_ms: u64) -> Result<()> {
    let oldest_ms = now_ms.saturating_sub(limits::OPERATION_LIFE_MS);
    tx.execute("DELETE FROM done_operations WHERE at_ms <= ?1", params![oldest_ms])?;
    Ok(())
}
