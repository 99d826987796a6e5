//! The database behind the store, whichever it is.

use super::location::Location;
use super::sql::Tx;
use super::{Result, postgres, sqlite};
use crate::limits;
use std::cmp::Ordering;
use std::path::PathBuf;
use std::time::Duration;

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite refused.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The server cannot be reached, or refused.
    #[error("{}", postgres::told(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The server takes no part in a conversation.
    #[error("the database server does not answer")]
    Silent,
    /// The server cannot be proved to be the right one.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// The file with who signs the server's certificate cannot be used.
    #[error("{}: {problem}", path.display())]
    RootCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Another tracker starts, and does not come to an end.
    #[error("another mini-tracker has been starting on this database for too long")]
    Busy,
    /// A migration failed.
    #[error("bringing the database up to date failed: {0}")]
    Migration(#[from] Box<refinery::Error>),
    /// A newer program wrote it.
    #[error(
        "the database has schema {found}, this mini-tracker knows schemas up to {known}; run the newer mini-tracker"
    )]
    Newer {
        /// Schema of the database.
        found: i64,
        /// Newest schema of this build.
        known: i64,
    },
    /// It was not brought up to date, and what was asked for changes nothing.
    #[error("the database has schema {found}, not {known}; start this mini-tracker on it once")]
    Older {
        /// Schema of the database; 0 for none.
        found: i64,
        /// Newest schema of this build.
        known: i64,
    },
    /// The file could not be made, or the thread not started.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl OpenError {
    /// Whether a schema is the one that this build knows.
    pub(super) fn check(found: i64, known: i64) -> std::result::Result<(), Self> {
        match found.cmp(&known) {
            Ordering::Less => Err(Self::Older { found, known }),
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(Self::Newer { found, known }),
        }
    }
}

/// An open database.
pub(super) enum Database {
    Sqlite(sqlite::Database),
    Postgres(postgres::Database),
}

/// While it is there, no other tracker opens this database: neither the migrations nor the making of the
/// deployment's key bear two at once.
pub(crate) enum StartLock {
    /// A locked file beside the database.
    File(#[expect(dead_code, reason = "it is there to be dropped")] std::fs::File),
    /// A lock in the server.
    Server(#[expect(dead_code, reason = "it is there to be dropped")] postgres::Lock),
}

impl Database {
    /// Opens a database, bringing its schema up to date.
    pub(super) async fn open(location: &Location) -> std::result::Result<(Self, StartLock), OpenError> {
        Self::open_with(location, limits::STATEMENT_DEADLINE).await
    }

    /// The same for a copy of everything, which takes its time.
    pub(super) async fn open_for_copy(location: &Location) -> std::result::Result<(Self, StartLock), OpenError> {
        Self::open_with(location, limits::COPY_DEADLINE).await
    }

    async fn open_with(location: &Location, deadline: Duration) -> std::result::Result<(Self, StartLock), OpenError> {
        match location {
            Location::Sqlite(path) => {
                let path = path.clone();
                let (database, lock) = blocking(move || sqlite::Database::open(&path)).await?;
                Ok((Self::Sqlite(database), StartLock::File(lock)))
            }
            Location::Postgres(server) => {
                let (database, lock) = postgres::Database::open(server, deadline).await?;
                Ok((Self::Postgres(database), StartLock::Server(lock)))
            }
        }
    }

    /// Opens a database that has our schema, for a copy of everything, and changes nothing.
    pub(super) async fn existing(location: &Location) -> std::result::Result<Self, OpenError> {
        match location {
            Location::Sqlite(path) => {
                let path = path.clone();
                blocking(move || sqlite::Database::existing(&path)).await.map(Self::Sqlite)
            }
            Location::Postgres(server) => postgres::Database::existing(server).await.map(Self::Postgres),
        }
    }

    /// Runs `work` on a snapshot, perhaps several times.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match self {
            Self::Sqlite(database) => database.read(work).await,
            Self::Postgres(database) => database.read(work).await,
        }
    }

    /// The same for work that is one statement, which has a snapshot of its own: a server is asked once and not three
    /// times.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        work: impl Fn(Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match self {
            Self::Sqlite(database) => database.look(work).await,
            Self::Postgres(database) => database.look(work).await,
        }
    }

    /// Runs `work` in a transaction, perhaps several times; the answer comes after the commit.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match self {
            Self::Sqlite(database) => database.write(work).await,
            Self::Postgres(database) => database.write(work).await,
        }
    }

    /// The same for work that does nothing twice, because it records what it did under a name: it is run again also when
    /// nobody knows whether it was committed.
    pub(super) async fn write_named<T: Send + 'static>(
        &self,
        work: impl Fn(Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match self {
            Self::Sqlite(database) => database.write(work).await,
            Self::Postgres(database) => database.write_named(work).await,
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(database) => database.close().await,
            Self::Postgres(database) => database.close().await,
        }
    }
}

/// Runs on a thread that may wait.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, OpenError> + Send + 'static,
) -> std::result::Result<T, OpenError> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}
