//! Statements, values and rows as PostgreSQL has them. The store's closures are synchronous and run on threads of
//! their own; each statement is waited for, but never for long.

use super::Mode;
use super::failure::Failure;
use crate::store::sql::{Columns, Row, Statements, Tx, Value, damaged, params};
use crate::store::{Result, StoreError};
use deadpool_postgres::ClientWrapper;
use std::cell::Cell;
use std::error::Error;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// A transaction that is open on a connection, or has failed.
pub(super) struct Transaction<'a> {
    client: &'a ClientWrapper,
    runtime: &'a Handle,
    deadline: Duration,
    mode: Mode,
    n_statements: Cell<u32>,
    failure: Cell<Option<Failure>>,
}

impl<'a> Transaction<'a> {
    /// Begins a transaction. Each statement may take as long as the deadline says.
    pub(super) fn begin(client: &'a ClientWrapper, runtime: &'a Handle, deadline: Duration, mode: Mode) -> Self {
        let (n_statements, failure) = (Cell::new(0), Cell::new(None));
        let transaction = Self { client, runtime, deadline, mode, n_statements, failure };
        // Its failure shows in the first statement of the transaction.
        let _ = mode.begin().map(|statement| transaction.run(statement));
        transaction
    }

    /// Why a statement failed, if one did.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.get()
    }

    /// Ends the transaction; whether that worked.
    pub(super) fn end(&self, statement: &str) -> std::result::Result<(), Failure> {
        self.failure.set(None);
        if self.mode == Mode::Look {
            // The server began and ended one around the statement.
            return Ok(());
        }
        match self.run(statement) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure.get().unwrap_or(Failure::Lost)),
        }
    }

    /// Two statements would see two snapshots where no transaction holds them together.
    fn count(&self, sql: &str) -> Result<()> {
        self.n_statements.set(self.n_statements.get() + 1);
        if self.mode == Mode::Look && self.n_statements.get() > 1 {
            return Err(damaged(format_args!("a second statement outside of a transaction: {sql}")));
        }
        Ok(())
    }

    fn run(&self, statement: &str) -> Result<()> {
        self.wait(self.client.batch_execute(statement))
    }

    fn wait<T>(&self, answer: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>) -> Result<T> {
        if self.failure.get().is_some() {
            return Err(StoreError::Unavailable);
        }
        // The future is made in the runtime, for its timer.
        let limited = async { tokio::time::timeout(self.deadline, answer).await };
        let failure = match self.runtime.block_on(limited) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Failure::of(&error),
            Err(_) => {
                tracing::error!("the database does not answer");
                Failure::Lost
            }
        };
        self.failure.set(Some(failure));
        Err(failure.told())
    }
}

/// PostgreSQL writes `$1` where we write `?1`.
fn dialect(sql: &str) -> String {
    sql.replace('?', "$")
}

fn by_reference<'v>(parameters: &'v [Value<'_>]) -> Vec<&'v (dyn ToSql + Sync)> {
    parameters.iter().map(|parameter| parameter as &(dyn ToSql + Sync)).collect()
}

impl Statements for Transaction<'_> {
    fn execute(&self, sql: &str, parameters: &[Value<'_>]) -> Result<u64> {
        self.count(sql)?;
        self.wait(async {
            let statement = self.client.prepare_cached(&dialect(sql)).await?;
            self.client.execute(&statement, &by_reference(parameters)).await
        })
    }

    fn query(&self, sql: &str, parameters: &[Value<'_>], each: &mut dyn FnMut(Row<'_>) -> Result<()>) -> Result<()> {
        self.count(sql)?;
        let rows = self.wait(async {
            let statement = self.client.prepare_cached(&dialect(sql)).await?;
            self.client.query(&statement, &by_reference(parameters)).await
        })?;
        rows.iter().try_for_each(|row| each(Row(row)))
    }

    fn last_number(&self, table: &str) -> Result<i64> {
        let sql = format!("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {table}_id_seq");
        Tx(self).query_one(&sql, params![], |row| row.get(0))
    }

    fn set_last_number(&self, table: &str, number: i64) -> Result<()> {
        // A sequence begins with 1; the last argument says whether that was given away.
        let sql = format!("SELECT setval('{table}_id_seq', ?1, ?2)");
        let set = |number, is_used| Tx(self).query_one(&sql, params![number, is_used], |_| Ok(()));
        if number == 0 { set(1, false) } else { set(number, true) }
    }
}

impl Columns for tokio_postgres::Row {
    fn value(&self, column: usize) -> Result<Value<'_>> {
        let Some(of) = self.columns().get(column) else { return Err(damaged(format_args!("no column {column}"))) };
        let value = match *of.type_() {
            Type::INT8 => self.try_get::<_, Option<i64>>(column).map(Value::from),
            Type::INT4 => self.try_get::<_, Option<i32>>(column).map(|number| number.map(i64::from).into()),
            Type::BOOL => self.try_get::<_, Option<bool>>(column).map(Value::from),
            Type::BYTEA => self.try_get::<_, Option<&[u8]>>(column).map(Value::from),
            Type::TEXT | Type::VARCHAR | Type::NAME => self.try_get::<_, Option<&str>>(column).map(Value::from),
            ref other => return Err(damaged(format_args!("column {column} is of type {other}"))),
        };
        value.map_err(|error| damaged(format_args!("column {column}: {error}")))
    }

    fn names(&self) -> Vec<&str> {
        self.columns().iter().map(tokio_postgres::Column::name).collect()
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> std::result::Result<IsNull, Box<dyn Error + Sync + Send>> {
        match *self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) if *of == Type::INT4 => i32::try_from(number)?.to_sql(of, out),
            Self::Int(number) if *of == Type::BOOL => (number != 0).to_sql(of, out),
            Self::Int(number) => number.to_sql(of, out),
            // A text of PostgreSQL has no NUL. None of ours does, except what a client calls its program.
            Self::Text(text) if text.contains('\0') => text.replace('\0', "").to_sql(of, out),
            Self::Text(text) => text.to_sql(of, out),
            Self::Blob(bytes) => bytes.to_sql(of, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
