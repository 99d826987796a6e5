//! What the queries are written against: statements in SQL that every database takes, values, rows.
//!
//! Parameters are `?1`, `?2`, …; no other question mark stands in a statement. Whole numbers, also those without a
//! sign and truth values, are signed 64-bit integers.

use super::{Result, StoreError};
use std::str::FromStr;

/// A parameter of a statement, or a column of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

/// A statement's parameters.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::store::sql::Value::from($value)),*] };
}
pub(super) use params;

/// A transaction of a database. After a statement has failed, no other one can succeed: nothing is committed.
pub(super) trait Statements {
    /// Runs a statement; returns how many rows it changed.
    fn execute(&self, sql: &str, parameters: &[Value<'_>]) -> Result<u64>;

    /// Runs a statement and hands over each of its rows, until one cannot be used.
    fn query(&self, sql: &str, parameters: &[Value<'_>], each: &mut dyn FnMut(Row<'_>) -> Result<()>) -> Result<()>;

    /// The last number that the database gave to a row of a table that it numbers; 0 for none yet.
    fn last_number(&self, table: &str) -> Result<i64>;

    /// The database goes on behind this number.
    fn set_last_number(&self, table: &str, number: i64) -> Result<()>;
}

/// The columns of a row.
pub(super) trait Columns {
    fn value(&self, column: usize) -> Result<Value<'_>>;
    fn names(&self) -> Vec<&str>;
}

/// The transaction that a store's method is.
#[derive(Clone, Copy)]
pub(super) struct Tx<'a>(pub(super) &'a dyn Statements);

impl Tx<'_> {
    /// Runs a statement; returns how many rows it changed.
    pub(super) fn execute(&self, sql: &str, parameters: &[Value<'_>]) -> Result<u64> {
        self.0.execute(sql, parameters)
    }

    /// Runs a statement and hands over each of its rows.
    pub(super) fn for_each(
        &self,
        sql: &str,
        parameters: &[Value<'_>],
        mut each: impl FnMut(Row<'_>) -> Result<()>,
    ) -> Result<()> {
        self.0.query(sql, parameters, &mut each)
    }

    /// The rows of a statement.
    pub(super) fn query<T>(
        &self,
        sql: &str,
        parameters: &[Value<'_>],
        mut read: impl FnMut(Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut rows = Vec::new();
        self.for_each(sql, parameters, |row| {
            rows.push(read(row)?);
            Ok(())
        })?;
        Ok(rows)
    }

    /// The only row of a statement, if there is one.
    pub(super) fn query_optional<T>(
        &self,
        sql: &str,
        parameters: &[Value<'_>],
        read: impl FnMut(Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        Ok(self.query(sql, parameters, read)?.pop())
    }

    /// The only row of a statement that always has one.
    pub(super) fn query_one<T>(
        &self,
        sql: &str,
        parameters: &[Value<'_>],
        read: impl FnMut(Row<'_>) -> Result<T>,
    ) -> Result<T> {
        self.query_optional(sql, parameters, read)?.ok_or_else(|| damaged(format_args!("no row for {sql}")))
    }
}

/// A row. What stands in the database was checked when it was written; what no longer passes is an error of the
/// database.
#[derive(Clone, Copy)]
pub(super) struct Row<'a>(pub(super) &'a dyn Columns);

impl<'a> Row<'a> {
    /// A column as whatever is asked for.
    pub(super) fn get<T: FromValue<'a>>(&self, column: usize) -> Result<T> {
        T::from_value(self.0.value(column)?).ok_or_else(|| damaged(format_args!("column {column} is of another type")))
    }

    /// A name.
    pub(super) fn name<T: FromStr<Err: std::fmt::Display>>(&self, column: usize) -> Result<T> {
        let text: &str = self.get(column)?;
        text.parse().map_err(|error| damaged(format_args!("column {column}: {error}")))
    }

    /// What the columns are called.
    pub(super) fn names(&self) -> Vec<&'a str> {
        self.0.names()
    }
}

/// The database holds what nobody wrote.
pub(super) fn damaged(what: std::fmt::Arguments<'_>) -> StoreError {
    tracing::error!("the store is damaged: {what}");
    StoreError::Unavailable
}

/// What a column can be read as.
pub(super) trait FromValue<'a>: Sized {
    /// `None` when it is of another type.
    fn from_value(value: Value<'a>) -> Option<Self>;
}

impl<'a> FromValue<'a> for Value<'a> {
    fn from_value(value: Self) -> Option<Self> {
        Some(value)
    }
}

impl<'a, T: FromValue<'a>> FromValue<'a> for Option<T> {
    fn from_value(value: Value<'a>) -> Option<Self> {
        if value == Value::Null { Some(None) } else { T::from_value(value).map(Some) }
    }
}

impl FromValue<'_> for i64 {
    fn from_value(value: Value<'_>) -> Option<Self> {
        if let Value::Int(number) = value { Some(number) } else { None }
    }
}

/// Kept as the signed number of the same bits.
impl FromValue<'_> for u64 {
    fn from_value(value: Value<'_>) -> Option<Self> {
        i64::from_value(value).map(i64::cast_unsigned)
    }
}

impl FromValue<'_> for u32 {
    fn from_value(value: Value<'_>) -> Option<Self> {
        i64::from_value(value)?.try_into().ok()
    }
}

impl FromValue<'_> for bool {
    fn from_value(value: Value<'_>) -> Option<Self> {
        i64::from_value(value).map(|number| number != 0)
    }
}

impl<'a> FromValue<'a> for &'a str {
    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::Text(text) = value { Some(text) } else { None }
    }
}

impl FromValue<'_> for String {
    fn from_value(value: Value<'_>) -> Option<Self> {
        <&str>::from_value(value).map(str::to_owned)
    }
}

impl<'a> FromValue<'a> for &'a [u8] {
    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::Blob(bytes) = value { Some(bytes) } else { None }
    }
}

impl FromValue<'_> for Vec<u8> {
    fn from_value(value: Value<'_>) -> Option<Self> {
        <&[u8]>::from_value(value).map(<[u8]>::to_vec)
    }
}

/// A digest, key or id of fixed length.
impl<const N: usize> FromValue<'_> for [u8; N] {
    fn from_value(value: Value<'_>) -> Option<Self> {
        <&[u8]>::from_value(value)?.try_into().ok()
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// Kept as the signed number of the same bits.
impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Int(number.cast_signed())
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Self::Int(truth.into())
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Blob(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Value<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Blob(bytes)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
