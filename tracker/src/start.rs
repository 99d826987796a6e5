//! From a configuration to a tracker that is ready to serve.

use crate::clock::Clock;
use crate::identity::{self, IdentityError};
use crate::passwords::Passwords;
use crate::port::Port;
use crate::server;
use crate::service::{Policy, Service};
use crate::store::{Location, OpenError, Store, StoreError, TrackerNumber};
use crate::tickets::{TicketKeyError, Tickets};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::tls::{self, Fingerprint};
use rand::RngExt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What a tracker is made of, besides its listener.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which of the deployment's trackers it is, counted from 1.
    pub number: u32,
    /// Holds the deployment's key, the log and what is being uploaded. Created when missing.
    pub data_directory: PathBuf,
    /// Where the database is.
    pub database: Location,
    /// Whether strangers may create accounts.
    pub registration_open: bool,
    /// Whether the built-in group `public` is there.
    pub public_group: bool,
    /// Whether ordinary BitTorrent clients need no key for its files.
    pub open_public: bool,
    /// The time.
    pub clock: Clock,
}

impl Config {
    /// The defaults: the database in the data directory, open registration, the built-in group, the machine's clock.
    pub fn new(data_directory: impl Into<PathBuf>) -> Self {
        let data_directory = data_directory.into();
        Self {
            number: 1,
            database: Location::within(&data_directory),
            data_directory,
            registration_open: true,
            public_group: true,
            open_public: false,
            clock: Clock::system(),
        }
    }
}

/// Why a tracker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The database cannot be used.
    #[error("{location}: {error}")]
    Database {
        /// Where it is.
        location: Location,
        /// What is wrong with it.
        error: OpenError,
    },
    /// A tracker with the same number runs on this data directory or database.
    #[error("tracker {number} runs already on {place}; each line of tracker_info.txt is one mini-tracker")]
    NumberInUse {
        /// The number.
        number: u32,
        /// The data directory or the database.
        place: String,
    },
    /// A tracker with the same number was started on the same store.
    #[error("another mini-tracker with this tracker's number was started on the same store; this one has ended")]
    NumberTaken,
    /// The database was opened but does not answer.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The deployment's key is missing, malformed or another one.
    #[error("{0}")]
    Identity(#[from] IdentityError),
    /// The cryptographic library refused.
    #[error("{0}")]
    Cryptography(String),
}

impl From<TicketKeyError> for StartError {
    fn from(error: TicketKeyError) -> Self {
        match error {
            TicketKeyError::Store(error) => Self::Store(error),
            TicketKeyError::Cryptography(_) | TicketKeyError::Malformed => Self::Cryptography(error.to_string()),
        }
    }
}

impl StartError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Io { .. } => ErrorCode::Io,
            Self::Database { .. } | Self::Store(_) => ErrorCode::StoreUnavailable,
            Self::NumberInUse { .. } | Self::NumberTaken => ErrorCode::DataDirInUse,
            Self::Identity(error) => error.code(),
            Self::Cryptography(_) => ErrorCode::Internal,
        }
    }
}

/// A tracker that is ready to serve.
pub struct Tracker {
    service: Arc<Service>,
    tls: Arc<rustls::ServerConfig>,
    fingerprint: Fingerprint,
    /// What was revoked before anybody could connect is nothing to tell of.
    last_revocation: u64,
    /// Held as long as it runs.
    number_locks: [Option<File>; 2],
}

impl Tracker {
    /// Opens the data directory, creating what is missing. Several trackers may share one.
    ///
    /// # Errors
    /// When it cannot be used, or belongs to another deployment or a newer program.
    pub async fn open(config: Config) -> Result<Self, StartError> {
        let Config { number, data_directory, database, registration_open, public_group, open_public, clock } = config;
        create_private_directory(&data_directory)?;
        let number_lock = number_lock(&data_directory, number)?;
        // The lock is held until the deployment is founded.
        let opened = Store::open(&database).await;
        let (store, lock) = opened.map_err(|error| StartError::Database { location: database.clone(), error })?;
        let number_locks = [Some(number_lock), lock_beside(&database, number)?];
        let known = store.deployment().await?;
        let identity = identity::load_or_create(&data_directory, known)?;
        let fingerprint = identity.public().fingerprint();
        store.found(fingerprint, GroupId(rand::rng().random()), clock.wall_ms()).await?;
        // Where there is no such lock, another host may have been faster.
        identity::check(&data_directory, fingerprint, store.deployment().await?)?;
        drop(lock);
        let tls = tls::control_server_config(&identity).map_err(|error| StartError::Cryptography(error.to_string()))?;
        let passwords = Passwords::new().map_err(|error| StartError::Cryptography(error.to_string()))?;
        let tickets = Tickets::new(identity);
        tickets.key(&store, clock.wall_ms()).await?;
        let last_revocation = store.last_revocation().await?;
        let number = TrackerNumber(number);
        let policy = Policy { number, registration_open, public_group, open_public, spool_directory: data_directory };
        let service = Arc::new(Service::new(store, clock, passwords, tickets, policy));
        // Before anybody can announce: no key that is good is turned away.
        service.refresh_keys().await;
        // On one host the locks have told already.
        if matches!(database, Location::Postgres(_)) && service.number_is_alive().await? {
            return Err(StartError::NumberInUse { number: number.0, place: database.to_string() });
        }
        service.begin_run().await?;
        Ok(Self { service, tls: Arc::new(tls), fingerprint, last_revocation, number_locks })
    }

    /// The deployment's key as people compare it.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(crate) fn service(&self) -> Arc<Service> {
        Arc::clone(&self.service)
    }

    /// Serves on `port` until `shutdown`; then everything acknowledged is durable and the store closed.
    ///
    /// # Errors
    /// [`StartError::NumberTaken`] when another process began as this tracker; then `shutdown` is cancelled, too.
    pub async fn serve(self, port: Port, shutdown: CancellationToken) -> Result<(), StartError> {
        let replaced = server::serve(Arc::clone(&self.service), self.tls, self.last_revocation, port, shutdown).await;
        self.service.end_run().await;
        self.service.store().close().await;
        drop(self.number_locks);
        replaced.map_err(|server::Replaced| StartError::NumberTaken)
    }
}

fn create_private_directory(path: &Path) -> Result<(), StartError> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|error| StartError::Io { path: path.into(), error })
}

/// Each tracker of a data directory has a lock of its own, which the system gives back however the process ends.
fn number_lock(directory: &Path, number: u32) -> Result<File, StartError> {
    lock_number(directory.join(format!("tracker-{number}.lock")), number, directory)
}

/// Each tracker on a database in a file, too, for it may be reached through several data directories.
fn lock_beside(database: &Location, number: u32) -> Result<Option<File>, StartError> {
    let Location::Sqlite(named) = database else { return Ok(None) };
    // However it is named.
    let path = named.canonicalize().map_err(|error| StartError::Io { path: named.clone(), error })?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".tracker-{number}.lock"));
    lock_number(path.with_file_name(name), number, named).map(Some)
}

fn lock_number(path: PathBuf, number: u32, place: &Path) -> Result<File, StartError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(|error| StartError::Io { path: path.clone(), error })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::NumberInUse { number, place: place.display().to_string() }),
        Err(TryLockError::Error(error)) => Err(StartError::Io { path, error }),
    }
}
