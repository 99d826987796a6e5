//! Copies of a whole store, from any database into any other: one snapshot becomes one transaction, and what was
//! written is read again and compared before it is committed.

use super::database::Database;
use super::location::Location;
use super::sql::{Row, Tx, Value, params};
use super::{OpenError, Result, StoreError};
use crate::limits;
use mini_torrent_common::hash::Sha256Hash;
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// A table, after those that it refers to.
struct Table {
    name: &'static str,
    /// The first ones are its key.
    columns: &'static [&'static str],
    n_keys: usize,
    /// Whether the database numbers its rows, each number once for all time.
    is_numbered: bool,
}

const fn table(name: &'static str, n_keys: usize, columns: &'static [&'static str]) -> Table {
    Table { name, columns, n_keys, is_numbered: false }
}

const fn numbered(name: &'static str, columns: &'static [&'static str]) -> Table {
    Table { name, columns, n_keys: 1, is_numbered: true }
}

const TABLES: [Table; 16] = [
    table("meta", 1, &["name", "value"]),
    numbered(
        "users",
        &[
            "id",
            "name",
            "name_key",
            "password_hash",
            "created_ms",
            "locked",
            "epoch",
            "client_key",
            "secret",
            "last_key_generation",
        ],
    ),
    numbered("sessions", &["id", "user_id", "client_key", "address", "agent", "since_ms", "expires_ms"]),
    numbered("session_tokens", &["id", "token_digest", "session_id", "state"]),
    table("groups", 1, &["id", "name", "name_key", "owner_id", "created_ms", "last_epoch", "stock_clients"]),
    table("members", 2, &["group_id", "user_id", "role", "since_ms", "epoch"]),
    numbered("join_requests", &["id", "group_id", "user_id", "at_ms"]),
    numbered(
        "listings",
        &[
            "id",
            "group_id",
            "name",
            "name_key",
            "size",
            "sha1",
            "sha256",
            "info_hash",
            "info_length",
            "uploader_id",
            "at_ms",
        ],
    ),
    table(INFO_CHUNKS, 2, &["listing_id", "chunk_index", "bytes"]),
    table("shares", 2, &["listing_id", "user_id", "at_ms"]),
    table("ticket_keys", 1, &["public_key", "seed", "from_ms", "use_until_ms", "until_ms", "endorsement"]),
    table("revocation_counter", 1, &["id", "last_number"]),
    table("revocations", 1, &["number", "group_id", "account_id", "epoch", "at_ms"]),
    numbered(
        "announce_keys",
        &[
            "id",
            "user_id",
            "group_id",
            "listing_id",
            "generation",
            "digest",
            "created_ms",
            "suspended",
            "last_address",
            "used_ms",
        ],
    ),
    table("done_operations", 2, &["owner", "operation", "kind", "outcome", "at_ms"]),
    table("admitted_changes", 1, &["id", "number"]),
];

const INFO_CHUNKS: &str = "info_chunks";

/// These have a row in a new database, too.
const NEVER_EMPTY: [&str; 2] = ["revocation_counter", "admitted_changes"];

/// These hold what is true for a moment only, and are made anew.
#[cfg(test)]
const NOT_COPIED: [&str; 5] = ["trackers", "sessions_online", "peers_online", "stock_online", "news"];

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// One of the databases cannot be used.
    #[error("{location}: {error}")]
    Open {
        /// Which.
        location: Location,
        /// What is wrong with it.
        error: OpenError,
    },
    /// The target is in use.
    #[error("{0}: there is something in it already; a copy needs an empty database")]
    NotEmpty(Location),
    /// What was written is not what was read.
    #[error("table {0} was not copied as it is; nothing was written")]
    Differs(&'static str),
    /// A database failed; the log says why.
    #[error("{0}; nothing was written")]
    Store(#[from] StoreError),
}

/// A table that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Its name.
    pub table: &'static str,
    /// How many rows it has.
    pub n_rows: u64,
    /// SHA-256 over all of them.
    pub digest: Sha256Hash,
    /// The last number that the database gave to a row.
    last_number: i64,
}

/// A value that outlives its row.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

/// From the reading to the writing side.
enum Step {
    Rows(&'static Table, Vec<Vec<Owned>>),
    Over(Vec<Copied>),
}

/// Copies a store. The source is left as it is; the target has to be empty, and gets its schema first.
///
/// # Errors
/// When one of them cannot be used, or the copy is not like the original. The target is empty then.
pub(crate) async fn copy(from: &Location, to: &Location) -> std::result::Result<Vec<Copied>, CopyError> {
    let failed = |location: &Location| {
        let location = location.clone();
        |error| CopyError::Open { location, error }
    };
    let source = Database::existing(from).await.map_err(failed(from))?;
    let (target, _lock) = Database::open_for_copy(to).await.map_err(failed(to))?;
    if !target.read(is_empty).await? {
        return Err(CopyError::NotEmpty(to.clone()));
    }
    let (sender, receiver) = sync_channel(limits::MAX_COPIED_PAGES);
    let (once, receiver) = (AtomicBool::new(true), Mutex::new(receiver));
    let differs = Arc::new(Mutex::new(None));
    let told = Arc::clone(&differs);
    let reading = source.read(move |tx| send_all(tx, &sender, &once));
    let writing = target.write(move |tx| write_all(tx, &receiver, &told));
    let (read, written) = tokio::join!(reading, writing);
    source.close().await;
    target.close().await;
    if let Some(table) = *differs.lock().unwrap_or_else(PoisonError::into_inner) {
        return Err(CopyError::Differs(table));
    }
    read?;
    Ok(written?)
}

fn is_empty(tx: Tx<'_>) -> Result<bool> {
    for table in TABLES.iter().filter(|table| !NEVER_EMPTY.contains(&table.name)) {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", table.name);
        if tx.query_one(&sql, params![], |row| row.get(0))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads every table and sends it. A second attempt would send all of it twice, so there is none.
fn send_all(tx: Tx<'_>, sender: &SyncSender<Step>, once: &AtomicBool) -> Result<()> {
    if !once.swap(false, Ordering::Relaxed) {
        return Err(StoreError::Unavailable);
    }
    // Who no longer receives has failed, and says why.
    let send = |step| sender.send(step).map_err(|_| StoreError::Unavailable);
    let tables = TABLES.iter().map(|table| read_table(tx, table, |rows| send(Step::Rows(table, rows))));
    let copied = tables.collect::<Result<_>>()?;
    send(Step::Over(copied))
}

fn write_all(
    tx: Tx<'_>,
    receiver: &Mutex<Receiver<Step>>,
    differs: &Mutex<Option<&'static str>>,
) -> Result<Vec<Copied>> {
    for name in NEVER_EMPTY {
        tx.execute(&format!("DELETE FROM {name}"), params![])?;
    }
    let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
    let expected = loop {
        match receiver.recv().map_err(|_| StoreError::Unavailable)? {
            Step::Rows(table, rows) => insert(tx, table, &rows)?,
            Step::Over(copied) => break copied,
        }
    };
    for (table, expected) in TABLES.iter().zip(&expected) {
        if table.is_numbered {
            tx.0.set_last_number(table.name, expected.last_number)?;
        }
        if read_table(tx, table, |_| Ok(()))? != *expected {
            *differs.lock().unwrap_or_else(PoisonError::into_inner) = Some(table.name);
            return Err(StoreError::Conflict);
        }
    }
    Ok(expected)
}

/// Hands over a table in pages, in the order of its key.
fn read_table(
    tx: Tx<'_>,
    table: &'static Table,
    mut each: impl FnMut(Vec<Vec<Owned>>) -> Result<()>,
) -> Result<Copied> {
    let limit = if table.name == INFO_CHUNKS { limits::COPIED_CHUNKS } else { limits::COPIED_ROWS };
    let keys = &table.columns[..table.n_keys];
    let (columns, keys, marks) = (table.columns.join(", "), keys.join(", "), marks(1, table.n_keys));
    let (mut digest, mut n_rows, mut last): (_, _, Option<Vec<Owned>>) = (Sha256::new(), 0, None);
    loop {
        let behind = if last.is_some() { format!("WHERE ({keys}) > {marks}") } else { String::new() };
        let sql = format!("SELECT {columns} FROM {} {behind} ORDER BY {keys} LIMIT {limit}", table.name);
        let key: Vec<_> = last.iter().flatten().take(table.n_keys).map(Owned::value).collect();
        let rows = tx.query(&sql, &key, |row| read_row(row, table.columns.len()))?;
        rows.iter().flatten().for_each(|value| value.digest(&mut digest));
        n_rows += rows.len() as u64;
        let is_last = rows.len() < limit;
        last = rows.last().cloned();
        each(rows)?;
        if is_last {
            break;
        }
    }
    let last_number = if table.is_numbered { tx.0.last_number(table.name)? } else { 0 };
    Ok(Copied { table: table.name, n_rows, digest: Sha256Hash(digest.finalize().into()), last_number })
}

fn read_row(row: Row<'_>, n_columns: usize) -> Result<Vec<Owned>> {
    (0..n_columns).map(|column| row.get(column).map(Owned::of)).collect()
}

fn insert(tx: Tx<'_>, table: &Table, rows: &[Vec<Owned>]) -> Result<()> {
    let n_columns = table.columns.len();
    // Two different statements a table, for each of them is kept prepared.
    let (many, rest) = rows.as_chunks::<{ limits::ROWS_PER_INSERT }>();
    let groups = many.iter().map(|rows| &rows[..]).chain(rest.chunks(1));
    for rows in groups {
        let marks: Vec<_> = (0..rows.len()).map(|nth| marks(1 + nth * n_columns, n_columns)).collect();
        let sql = format!("INSERT INTO {} ({}) VALUES {}", table.name, table.columns.join(", "), marks.join(", "));
        let values: Vec<_> = rows.iter().flatten().map(Owned::value).collect();
        tx.execute(&sql, &values)?;
    }
    Ok(())
}

/// `(?3, ?4)` for two from the third on.
fn marks(first: usize, n: usize) -> String {
    let marks: Vec<_> = (first..first + n).map(|number| format!("?{number}")).collect();
    format!("({})", marks.join(", "))
}

impl Owned {
    /// Without NUL in texts, which not every database can hold; see `store::postgres`.
    fn of(value: Value<'_>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Int(number) => Self::Int(number),
            Value::Text(text) => Self::Text(text.replace('\0', "")),
            Value::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }

    fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Int(number) => Value::Int(*number),
            Self::Text(text) => Value::Text(text),
            Self::Blob(bytes) => Value::Blob(bytes),
        }
    }

    fn digest(&self, digest: &mut Sha256) {
        let (kind, bytes): (u8, &[u8]) = match self {
            Self::Null => (0, &[]),
            Self::Int(number) => (1, &number.to_be_bytes()),
            Self::Text(text) => (2, text.as_bytes()),
            Self::Blob(bytes) => (3, bytes),
        };
        digest.update([kind]);
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    }
}

#[cfg(test)]
mod tests;
