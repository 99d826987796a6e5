//! Columns to values and back. What stands in the database was checked when it was written; what no longer
//! passes is an error of the database.

use mini_torrent_common::control::Role;
use rusqlite::types::Type;
use rusqlite::{Error, Row};
use std::str::FromStr;

/// A name.
pub(super) fn name<T: FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|error| Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// A digest, key or id of fixed length.
pub(super) fn bytes<const N: usize>(row: &Row<'_>, column: usize) -> rusqlite::Result<[u8; N]> {
    let bytes = row.get_ref(column)?.as_blob()?;
    bytes.try_into().map_err(|error| Error::FromSqlConversionFailure(column, Type::Blob, Box::new(error)))
}

/// A number that is stored as the signed one of the same bits.
pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

/// A role of a member; none for NULL.
pub(super) fn role(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Role>> {
    Ok(match row.get::<_, Option<i64>>(column)? {
        None => None,
        Some(ADMIN) => Some(Role::Admin),
        Some(OWNER) => Some(Role::Owner),
        Some(_) => Some(Role::Member),
    })
}

pub(super) const MEMBER: i64 = 1;
pub(super) const ADMIN: i64 = 2;
pub(super) const OWNER: i64 = 3;

/// A page's length as SQL takes it.
pub(super) fn limit(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
