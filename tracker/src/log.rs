//! The log: a file a day in the data directory, a week's worth; on standard error too with `-v`. Names pass the
//! escaper on their way here; secrets never come.

use crate::limits;
use crate::settings::{LogFormat, Settings};
use std::io;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{InitError, RollingFileAppender, Rotation};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// What goes wrong in a task that keeps no log of its own.
pub(crate) fn begin_on_stderr() {
    let to_stderr = fmt::layer().with_writer(io::stderr).with_ansi(false).without_time().with_filter(LevelFilter::WARN);
    let _ = tracing_subscriber::registry().with(to_stderr).try_init();
}

/// Starts logging; the guard writes out what is left when it is dropped.
///
/// # Errors
/// When the file cannot be opened.
pub(crate) fn begin(settings: &Settings) -> Result<WorkerGuard, InitError> {
    let file = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("tracker")
        .filename_suffix("log")
        .max_log_files(limits::MAX_LOG_FILES)
        .build(&settings.data_directory)?;
    let (writer, guard) = tracing_appender::non_blocking(file);
    let filter = || EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse_lossy(&settings.log);
    let to_file = fmt::layer().with_writer(writer).with_ansi(false);
    let to_file = match settings.log_format {
        LogFormat::Text => to_file.with_filter(filter()).boxed(),
        LogFormat::Json => to_file.json().with_filter(filter()).boxed(),
    };
    let to_stderr =
        settings.verbose.then(|| fmt::layer().with_writer(io::stderr).with_ansi(false).with_filter(filter()));
    // A second tracker in one process (tests) keeps the first one's log.
    let _ = tracing_subscriber::registry().with(to_file).with(to_stderr).try_init();
    Ok(guard)
}
