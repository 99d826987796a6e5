//! PostgreSQL, and what speaks its protocol: a few connections, each running one transaction at a time.
//!
//! Writes are SERIALIZABLE: they take effect as if one came after the other, as they do in SQLite, so that the rules
//! they ask hold whatever another tracker writes meanwhile. What crosses is run again, a bounded number of times.
//! Reads see one snapshot; a read of one statement is that statement and nothing else. A transaction whose connection
//! breaks before its COMMIT was sent is run again over another connection; one that breaks later may have been
//! committed or not, and is answered as unavailable.

mod connecting;
mod failure;
mod statements;

pub(super) use failure::told;

use super::location::Server;
use super::sql::Tx;
use super::{OpenError, Result, StoreError};
use crate::limits;
use connecting::Connector;
use deadpool_postgres::{Object, Pool, PoolError};
use failure::Failure;
use rand::RngExt;
use statements::Transaction;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout_at};

const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// Whole-table reads would make a transaction cross every other one; tables that are small now tempt the planner.
const WRITE: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL enable_seqscan = off";

/// What a piece of work does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Reads by one statement.
    Look,
    Read,
    Write,
}

impl Mode {
    /// What begins its transaction, if it needs one of several statements.
    fn begin(self) -> Option<&'static str> {
        match self {
            Self::Look => None,
            Self::Read => Some(READ),
            Self::Write => Some(WRITE),
        }
    }
}

/// An open database.
pub(super) struct Database {
    pool: Pool,
    /// How long a statement may take.
    deadline: Duration,
}

/// While it is there, no other tracker starts on this database.
pub(crate) struct Lock {
    _client: tokio_postgres::Client,
}

/// What became of an attempt at a transaction.
enum Attempt<T> {
    Over(Result<T>),
    /// Nothing was committed.
    Again(Failure),
}

impl Database {
    pub(super) async fn open(server: &Server, deadline: Duration) -> std::result::Result<(Self, Lock), OpenError> {
        let connector = Connector::new(server)?;
        let mut client = connector.one().await?;
        connecting::take_start_lock(&client).await?;
        connecting::migrate(&mut client).await?;
        Ok((Self::over(&connector, deadline)?, Lock { _client: client }))
    }

    /// Opens a database that has our schema, and changes nothing.
    pub(super) async fn existing(server: &Server) -> std::result::Result<Self, OpenError> {
        let connector = Connector::new(server)?;
        let found = connecting::schema(&connector.one().await?).await?;
        OpenError::check(found, connecting::known_schema())?;
        Self::over(&connector, limits::COPY_DEADLINE)
    }

    fn over(connector: &Connector, deadline: Duration) -> std::result::Result<Self, OpenError> {
        Ok(Self { pool: connector.pool(deadline)?, deadline })
    }

    /// Runs `work` on a snapshot.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(Mode::Read, work).await
    }

    /// Runs `work`, which is one statement. A second one fails.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        work: impl Fn(Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(Mode::Look, work).await
    }

    /// Runs `work` in a transaction, perhaps several times; the answer comes after the commit.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(Mode::Write, work).await
    }

    pub(super) async fn close(&self) {
        self.pool.close();
    }

    async fn run<T, F>(&self, mode: Mode, mut work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(Tx<'_>) -> Result<T> + Send + 'static,
    {
        let give_up = Instant::now() + limits::DATABASE_PATIENCE;
        let mut n_attempts = 0;
        loop {
            let client = self.connect(give_up).await?;
            let (runtime, deadline) = (Handle::current(), self.deadline);
            let ran = tokio::task::spawn_blocking(move || (attempt(client, &runtime, deadline, mode, &work), work));
            let (attempt, returned) = ran.await.map_err(|_| StoreError::Unavailable)?;
            work = returned;
            let failure = match attempt {
                Attempt::Over(outcome) => return outcome,
                Attempt::Again(failure) => failure,
            };
            n_attempts += 1;
            if n_attempts >= limits::MAX_TRANSACTION_ATTEMPTS || Instant::now() >= give_up {
                tracing::error!(?failure, n_attempts, "a transaction was given up");
                return Err(StoreError::Unavailable);
            }
            sleep(backoff(n_attempts)).await;
        }
    }

    /// A connection, as soon as there is one: the server may be starting, or another one taking its place.
    async fn connect(&self, give_up: Instant) -> Result<Object> {
        let mut n_attempts = 0;
        let connected = timeout_at(give_up, async {
            loop {
                match self.pool.get().await {
                    Ok(client) => return Ok(client),
                    Err(PoolError::Closed) => return Err(StoreError::Unavailable),
                    Err(PoolError::Backend(error)) if Failure::of(&error) != Failure::Lost => {
                        return Err(StoreError::Unavailable);
                    }
                    Err(_) => {}
                }
                n_attempts += 1;
                sleep(backoff(n_attempts)).await;
            }
        });
        connected.await.unwrap_or_else(|_| {
            tracing::error!("the database cannot be reached");
            Err(StoreError::Unavailable)
        })
    }
}

/// A random wait that grows, so that what crossed once does not cross again.
fn backoff(n_attempts: u32) -> Duration {
    let longest = limits::MAX_TRANSACTION_BACKOFF.min(Duration::from_millis(1 << n_attempts.min(10)));
    longest.mul_f64(rand::rng().random_range(0.25..1.0))
}

/// Runs a transaction on a connection, which goes back to the others only in good order.
fn attempt<T>(
    client: Object,
    runtime: &Handle,
    deadline: Duration,
    mode: Mode,
    work: impl Fn(Tx<'_>) -> Result<T>,
) -> Attempt<T> {
    let transaction = Transaction::begin(&client, runtime, deadline, mode);
    let ran = catch_unwind(AssertUnwindSafe(|| work(Tx(&transaction))));
    let (attempt, is_in_order) = match (ran, transaction.failure()) {
        (_, Some(failure @ Failure::Lost)) => (Attempt::Again(failure), false),
        (_, Some(failure @ Failure::Crossed)) => (Attempt::Again(failure), transaction.end("ROLLBACK").is_ok()),
        (_, Some(failure)) => (Attempt::Over(Err(failure.told())), transaction.end("ROLLBACK").is_ok()),
        (Err(_), None) => (Attempt::Over(Err(StoreError::Unavailable)), false),
        (Ok(Err(error)), None) => (Attempt::Over(Err(error)), transaction.end("ROLLBACK").is_ok()),
        (Ok(Ok(value)), None) => match transaction.end("COMMIT") {
            Ok(()) => (Attempt::Over(Ok(value)), true),
            Err(_) if mode != Mode::Write => (Attempt::Over(Ok(value)), false),
            Err(failure @ Failure::Crossed) => (Attempt::Again(failure), true),
            Err(_) => {
                tracing::error!("a commit was not answered: it may have taken place");
                (Attempt::Over(Err(StoreError::Unavailable)), false)
            }
        },
    };
    if !is_in_order {
        // Closed instead of being used again; its server then ends what is left of the transaction.
        drop(Object::take(client));
    }
    attempt
}

#[cfg(test)]
mod tests;
