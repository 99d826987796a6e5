//! Statements, values and rows as SQLite has them.

use crate::store::sql::{Columns, Row, Statements, Tx, Value, damaged, params};
use crate::store::{Result, StoreError};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql, params_from_iter};

impl Statements for Connection {
    fn execute(&self, sql: &str, parameters: &[Value<'_>]) -> Result<u64> {
        Ok(self.prepare_cached(sql)?.execute(params_from_iter(parameters))? as u64)
    }

    fn query(&self, sql: &str, parameters: &[Value<'_>], each: &mut dyn FnMut(Row<'_>) -> Result<()>) -> Result<()> {
        let mut statement = self.prepare_cached(sql)?;
        let mut rows = statement.query(params_from_iter(parameters))?;
        while let Some(row) = rows.next()? {
            each(Row(row))?;
        }
        Ok(())
    }

    fn last_number(&self, table: &str) -> Result<i64> {
        let sql = "SELECT seq FROM sqlite_sequence WHERE name = ?1";
        Ok(Tx(self).query_optional(sql, params![table], |row| row.get(0))?.unwrap_or(0))
    }

    fn set_last_number(&self, table: &str, number: i64) -> Result<()> {
        // SQLite makes the row with a table's first row, and keeps no other order in this table than we do.
        Tx(self).execute("DELETE FROM sqlite_sequence WHERE name = ?1", params![table])?;
        Tx(self).execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)", params![table, number])?;
        Ok(())
    }
}

impl Columns for rusqlite::Row<'_> {
    fn value(&self, column: usize) -> Result<Value<'_>> {
        Ok(match self.get_ref(column)? {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => Value::Int(number),
            ValueRef::Text(_) => Value::Text(self.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?),
            ValueRef::Blob(bytes) => Value::Blob(bytes),
            ValueRef::Real(_) => return Err(damaged(format_args!("column {column} is a fraction"))),
        })
    }

    fn names(&self) -> Vec<&str> {
        self.as_ref().column_names().collect()
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => Self::Conflict,
            _ => {
                tracing::error!(%error, "the store failed");
                Self::Unavailable
            }
        }
    }
}
