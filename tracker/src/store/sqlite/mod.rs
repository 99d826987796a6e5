//! SQLite: one writing thread and a few reading connections on one file in WAL mode.

mod statements;
mod writer;

use super::sql::Tx;
use super::{OpenError, Result, StoreError};
use crate::limits;
use rusqlite::{Connection, OpenFlags};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use writer::Writer;

#[allow(missing_docs, unreachable_pub)]
mod embedded {
    refinery::embed_migrations!("../migrations/sqlite");
}

/// An open database.
pub(super) struct Database {
    writer: Writer,
    readers: Arc<Mutex<Vec<Connection>>>,
    free_readers: Arc<Semaphore>,
}

impl Database {
    /// Opens the database and takes the lock of who starts.
    pub(super) fn open(path: &Path) -> std::result::Result<(Self, File), OpenError> {
        let lock = start_lock(path)?;
        // Made before SQLite would make it, for its files take their mode from this one: it holds password hashes.
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let mut connection = connect(path)?;
        migrate(&mut connection)?;
        Ok((Self::over(path, connection)?, lock))
    }

    /// Opens a database that has our schema, and changes nothing.
    pub(super) fn existing(path: &Path) -> std::result::Result<Self, OpenError> {
        let connection = connect_existing(path)?;
        OpenError::check(schema(&connection)?, known_schema())?;
        Self::over(path, connection)
    }

    fn over(path: &Path, connection: Connection) -> std::result::Result<Self, OpenError> {
        let readers =
            (0..limits::STORE_READERS).map(|_| connect(path)).collect::<std::result::Result<Vec<_>, rusqlite::Error>>();
        Ok(Self {
            writer: Writer::start(connection)?,
            readers: Arc::new(Mutex::new(readers?)),
            free_readers: Arc::new(Semaphore::new(limits::STORE_READERS)),
        })
    }

    /// Runs `work` on a snapshot.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.with_reader(move |reader| reader.transaction().map_err(StoreError::from).and_then(|tx| work(Tx(&*tx))))
            .await
    }

    /// Runs `work` of one statement, which is a transaction by itself.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        work: impl Fn(Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.with_reader(move |reader| work(Tx(&*reader))).await
    }

    async fn with_reader<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = self.free_readers.clone().acquire_owned().await.map_err(|_| StoreError::Unavailable)?;
        let readers = Arc::clone(&self.readers);
        let outcome = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let lock = || readers.lock().unwrap_or_else(PoisonError::into_inner);
            let mut connection = lock().pop().ok_or(StoreError::Unavailable)?;
            let outcome = work(&mut connection);
            lock().push(connection);
            outcome
        });
        outcome.await.map_err(|_| StoreError::Unavailable)?
    }

    /// Runs `work` in a transaction; the answer comes after the commit. Other databases may run it again.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.writer.submit(work).await
    }

    pub(super) async fn close(&self) {
        self.writer.close().await;
    }
}

/// A connection to a file that is there.
fn connect_existing(path: &Path) -> std::result::Result<Connection, OpenError> {
    // SQLite would make a missing one, and says less about one that may not be read.
    OpenOptions::new().read(true).write(true).open(path)?;
    Ok(connect(path)?)
}

/// Writes a consistent copy of a database that may be in use into a file that is not there yet.
pub(super) fn back_up(path: &Path, into: &Path) -> std::result::Result<(), OpenError> {
    let connection = connect_existing(path)?;
    // SQLite fills an empty file, too, and leaves its mode as it is.
    OpenOptions::new().create_new(true).write(true).mode(0o600).open(into)?;
    let name = into.to_str().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidFilename))?;
    connection.execute("VACUUM INTO ?1", [name])?;
    Ok(File::open(into)?.sync_all()?)
}

/// The file is beside the database, for that is what they share who must not start together.
fn start_lock(path: &Path) -> std::io::Result<File> {
    let path = path.with_file_name("start.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

fn connect(path: &Path) -> std::result::Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(limits::STORE_BUSY_TIMEOUT)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

fn known_schema() -> i64 {
    let runner = embedded::migrations::runner();
    runner.get_migrations().iter().map(|migration| i64::from(migration.version())).max().unwrap_or(0)
}

/// The schema of the database; 0 for none.
fn schema(connection: &Connection) -> std::result::Result<i64, rusqlite::Error> {
    let has_history: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'refinery_schema_history')",
        [],
        |row| row.get(0),
    )?;
    if !has_history {
        return Ok(0);
    }
    connection.query_row("SELECT COALESCE(MAX(version), 0) FROM refinery_schema_history", [], |row| row.get(0))
}

fn migrate(connection: &mut Connection) -> std::result::Result<(), OpenError> {
    let (found, known) = (schema(connection)?, known_schema());
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    embedded::migrations::runner().run(connection).map_err(Box::new)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_schema_is_refused_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tracker.db");
        drop(Database::open(&path).unwrap());
        let connection = Connection::open(&path).unwrap();
        connection
            .execute("INSERT INTO refinery_schema_history VALUES (9999, 'later', '2027-01-01T00:00:00Z', '1')", [])
            .unwrap();
        let error = Database::open(&path).err().unwrap();
        assert!(matches!(error, OpenError::Newer { found: 9999, .. }) && error.to_string().contains("9999"), "{error}");
    }

    /// Who was signed in before the update is so afterwards, with the same token and key.
    #[tokio::test]
    async fn sessions_of_the_first_schema_are_carried_over() {
        use crate::store::queries::sessions;
        use crate::store::sql::params;
        use crate::store::{ShownToken, UserId};
        use mini_torrent_common::hash::Sha256Hash;
        use mini_torrent_common::tls::PublicKey;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tracker.db");
        let mut connection = connect(&path).unwrap();
        embedded::migrations::runner().set_target(refinery::Target::Version(1)).run(&mut connection).unwrap();
        connection
            .execute_batch(
                "INSERT INTO users VALUES (3, 'bob', 'bob', 'hash', 1), (5, 'eve', 'eve', 'hash', 1);
                 INSERT INTO sessions VALUES (zeroblob(32), 3, zeroblob(32), 'a', 'b', 10, 100);",
            )
            .unwrap();
        drop(connection);
        let (database, _) = Database::open(&path).unwrap();
        let [token, successor] = [0, 1].map(|byte| Sha256Hash([byte; 32]));
        let (address, client_key) = (String::new(), PublicKey([0; 32]));
        let shown = ShownToken { token, successor, client_key, address, now_ms: 50, expires_ms: 200 };
        let resumed = database.write(move |tx| sessions::resume(tx, &shown)).await.unwrap();
        assert!(matches!(resumed, crate::store::Resumption::Resumed(actor, _, _) if actor.user == UserId(3)));
        let keys = database.read(|tx| {
            let sql = "SELECT client_key, epoch, locked FROM users ORDER BY id";
            tx.query(sql, params![], |row| Ok((row.get(0)?, row.get::<i64>(1)?, row.get(2)?)))
        });
        assert_eq!(keys.await.unwrap(), [(Some([0; 32]), 1, false), (None, 1, false)]);
        database.close().await;
    }

    #[test]
    fn a_file_that_is_no_database_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tracker.db");
        std::fs::write(&path, vec![b'x'; 8192]).unwrap();
        assert!(matches!(Database::open(&path), Err(OpenError::Sqlite(_))));
    }

    #[test]
    fn commits_are_durable_and_the_file_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tracker.db");
        let connection = connect(&path).unwrap();
        let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!((pragma("synchronous"), pragma("foreign_keys")), (2, 1));
        drop(connection);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tracker.db");
        let _database = Database::open(&path).unwrap();
        for file in std::fs::read_dir(directory.path()).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
        }
    }
}
