//! The log: a file a day in the data directory, a week's worth; on standard error too with `-v`.

use mini_torrent_common::error_code::ErrorCode;
use std::io;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::settings::{Settings, StartError};

/// Days that are kept.
const MAX_FILES: usize = 7;
/// What chooses the levels, in the syntax of tracing's `EnvFilter`.
const FILTER_VARIABLE: &str = "MINI_TORRENT_LOG";
const DEFAULT_FILTER: &str = "info";

/// Opens the log. What is logged before the guard is dropped is written.
pub(crate) fn start(settings: &Settings) -> Result<WorkerGuard, StartError> {
    let file = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("client")
        .filename_suffix("log")
        .max_log_files(MAX_FILES)
        .build(&settings.data_dir)
        .map_err(|error| StartError::new(ErrorCode::Io, error.to_string()))?;
    let (file, guard) = tracing_appender::non_blocking(file);
    let filter = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| DEFAULT_FILTER.to_owned());
    let filter = EnvFilter::try_new(&filter)
        .map_err(|error| StartError::new(ErrorCode::Usage, format!("{FILTER_VARIABLE}: {error}")))?;
    let to_file = fmt::layer().with_ansi(false).with_target(false).with_writer(file);
    let to_terminal = settings.verbose.then(|| fmt::layer().with_target(false).with_writer(io::stderr));
    tracing_subscriber::registry()
        .with(filter)
        .with(to_file)
        .with(to_terminal)
        .try_init()
        .map_err(|error| StartError::new(ErrorCode::Internal, error.to_string()))?;
    Ok(guard)
}
