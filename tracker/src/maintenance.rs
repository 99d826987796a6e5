//! What the program does besides serving: backups, and moving into another database.

use crate::command_line::Failure;
use crate::settings::{self, DATA_DIRECTORY, DatabaseArguments, SettingsError};
use crate::store::{self, BackupError, Copied, CopyError, Location};
use crate::{log, output};
use clap::{Args, Parser, Subcommand};
use mini_torrent_common::error_code::ErrorCode;
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(name = "mini-tracker", version)]
struct Program {
    #[command(subcommand)]
    task: Task,
}

/// A task that ends by itself.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Write a consistent copy of the database into a new file, also while trackers use it
    ///
    /// The file is a database of SQLite, whatever it is a copy of. To restore it, name it as the database
    /// (--database sqlite:FILE), or copy it into another one with migrate-store. The deployment's key is not in it:
    /// keep a copy of identity.key from the data directory, too.
    Backup(Backup),
    /// Copy everything into another, empty database and compare it
    ///
    /// Stop the trackers first: what they write after the copy has begun is not in it, and while one is seen to be
    /// running nothing is copied. Then start them with the new database. The old one is left as it is.
    MigrateStore(MigrateStore),
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file to write; it is not replaced
    #[arg(value_name = "FILE")]
    target: PathBuf,

    /// Where the database is, unless it is named [default: mini-tracker.data]
    #[arg(long, value_name = "DIR", env = "MINI_TRACKER_DATA_DIR")]
    data_dir: Option<PathBuf>,

    #[command(flatten)]
    database: DatabaseArguments,
}

#[derive(Debug, Args)]
pub(crate) struct MigrateStore {
    /// The database to read: sqlite:PATH or postgres://USER@HOST/NAME
    #[arg(long, value_name = "WHERE", required_unless_present = "from_file")]
    from: Option<String>,

    /// A file with that on its only line: keeps a password off the command line
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,

    /// The empty database to write
    #[arg(long, value_name = "WHERE", required_unless_present = "to_file")]
    to: Option<String>,

    /// A file with that on its only line
    #[arg(long, value_name = "FILE")]
    to_file: Option<PathBuf>,
}

impl Task {
    /// Whether the first argument names a task, and no tracker info file.
    pub(crate) fn is_named_by(argument: Option<OsString>) -> bool {
        argument.is_some_and(|argument| argument == "backup" || argument == "migrate-store")
    }

    /// Reads the command line.
    ///
    /// # Errors
    /// One line that names what is wrong, or the help that was asked for.
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, SettingsError> {
        settings::parse(arguments).map(|program: Program| program.task)
    }

    /// Does it.
    ///
    /// # Errors
    /// The code and one line.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        log::begin_on_stderr();
        match self {
            Self::Backup(task) => task.run().await,
            Self::MigrateStore(task) => task.run().await,
        }
    }
}

fn usage(text: String) -> Failure {
    (ErrorCode::Usage, text)
}

impl Backup {
    async fn run(self) -> Result<(), Failure> {
        let data_directory = self.data_dir.unwrap_or_else(|| DATA_DIRECTORY.into());
        let from = self.database.location().map_err(usage)?.unwrap_or_else(|| Location::within(&data_directory));
        store::back_up(&from, &self.target).await.map_err(|error| match error {
            BackupError::Copy(error) => (ErrorCode::StoreUnavailable, error.to_string()),
            BackupError::Io { .. } => (ErrorCode::Io, error.to_string()),
        })?;
        output::line(&format!("{} is a copy of {from}; keep identity.key, too", self.target.display()));
        Ok(())
    }
}

impl MigrateStore {
    async fn run(self) -> Result<(), Failure> {
        let named = |text: Option<String>, file: Option<PathBuf>| {
            let location = settings::location(text.as_deref(), file.as_deref()).map_err(usage)?;
            location.ok_or_else(|| usage("a database is not named".into()))
        };
        let (from, to) = (named(self.from, self.from_file)?, named(self.to, self.to_file)?);
        let failed = |error: CopyError| (ErrorCode::StoreUnavailable, error.to_string());
        let tables = store::move_to(&from, &to).await.map_err(failed)?;
        for Copied { table, n_rows, digest, .. } in &tables {
            output::line(&format!("{table:<18} {n_rows:>9} rows  sha256:{digest}"));
        }
        let n_rows: u64 = tables.iter().map(|table| table.n_rows).sum();
        output::line(&format!("{n_rows} rows of {from} are in {to}, read again and found equal"));
        Ok(())
    }
}
