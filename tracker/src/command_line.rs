//! The program: settings, listener, log, console, signals, and the exit status of each end.

use crate::clock::Clock;
use crate::console::Console;
use crate::maintenance::Task;
use crate::port::{Port, listen as listen_on};
use crate::settings::{Listen, Registration, Settings, SettingsError};
use crate::start::{Config, StartError, Tracker};
use crate::{log, output};
use mini_torrent_common::error_code::ErrorCode;
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask};
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

const BAD_START: u8 = 2;
const INTERRUPTED: u8 = 130;
/// How long reading threads are waited for at the end; the one of the console never returns by itself.
const LAST_WAIT: Duration = Duration::from_millis(100);

/// Runs the tracker as its program does, to its exit status: 0 after `quit` or SIGTERM, 2 when it could not
/// start, 130 after Ctrl-C.
pub fn run_from_command_line() -> ExitCode {
    // What this process makes is its own, whoever makes it: the appender of the log knows no modes.
    umask(Mode::RWXG | Mode::RWXO);
    let kept_private = keep_memory_private();
    let work = match Work::read() {
        Ok(work) => work,
        Err(SettingsError::Shown(text)) => {
            output::line(text.trim_end());
            return ExitCode::SUCCESS;
        }
        Err(SettingsError::Wrong(text)) => return fail(&(ErrorCode::Usage, text)),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&(ErrorCode::Io, error.to_string())),
    };
    let ended = match work {
        Work::Serve(settings) => runtime.block_on(run(*settings, kept_private)),
        Work::Maintain(task) => runtime.block_on(task.run()).map(|()| 0),
    };
    runtime.shutdown_timeout(LAST_WAIT);
    match ended {
        Ok(status) => ExitCode::from(status),
        Err(failure) => fail(&failure),
    }
}

/// What the program was started for.
enum Work {
    Serve(Box<Settings>),
    Maintain(Task),
}

impl Work {
    fn read() -> Result<Self, SettingsError> {
        match Task::is_named_by(std::env::args_os().nth(1)) {
            true => Task::read(std::env::args_os()).map(Self::Maintain),
            false => Settings::read(std::env::args_os()).map(Box::new).map(Self::Serve),
        }
    }
}

/// No core dump and no debugger of the same user gets to the keys and passwords in the memory.
fn keep_memory_private() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// An error code and what is wrong.
pub(crate) type Failure = (ErrorCode, String);

fn fail((code, text): &Failure) -> ExitCode {
    output::error(code, text);
    ExitCode::from(BAD_START)
}

async fn run(settings: Settings, kept_private: io::Result<()>) -> Result<u8, Failure> {
    // Before anything is said: who reads that we listen may already send a signal.
    let shutdown = CancellationToken::new();
    let status = Arc::new(AtomicU8::new(0));
    let signals = || -> io::Result<_> { Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)) };
    let (terminate, interrupt) = signals().map_err(|error| (ErrorCode::Io, error.to_string()))?;
    tokio::spawn(obey_signals(terminate, interrupt, shutdown.clone(), Arc::clone(&status)));
    // The listener before the data: a second tracker on one address must not touch anything.
    let listener = bind(&settings.listen).await?;
    let address = listener.local_addr().map_err(|error| (ErrorCode::Io, error.to_string()))?;
    let config = Config {
        number: settings.number,
        data_directory: settings.data_directory.clone(),
        database: settings.database.clone(),
        registration_open: settings.registration == Registration::Open,
        public_group: settings.public_group,
        open_public: settings.open_public,
        clock: Clock::system(),
    };
    let tracker = Tracker::open(config).await.map_err(|error: StartError| (error.code(), error.to_string()))?;
    let _log = log::begin(&settings).map_err(|error| (ErrorCode::Io, error.to_string()))?;
    if let Err(error) = kept_private {
        tracing::warn!(%error, "the system would not keep core dumps from being made");
    }
    output::line(&format!("listening on {address}"));
    output::line(&format!("key {}", tracker.fingerprint()));
    tracing::info!(%address, key = %tracker.fingerprint(), "serving");

    let console = Console::new(tracker.service(), shutdown.clone());
    tokio::spawn(console.run_on_stdin());
    let served = tracker.serve(listener, shutdown).await;
    tracing::info!("ended");
    served.map_err(|error| (error.code(), error.to_string()))?;
    Ok(status.load(Ordering::Relaxed))
}

async fn bind(listen: &Listen) -> Result<Port, Failure> {
    let (shown, addresses) = match listen {
        Listen::Address(address) => (address.to_string(), vec![*address]),
        Listen::Host(host, port) => {
            let found = lookup_host((host.as_str(), *port)).await;
            let found = found.map_err(|error| (ErrorCode::Io, format!("{host} cannot be resolved: {error}")))?;
            (format!("{host}:{port}"), found.collect())
        }
    };
    // Exactly one address: the first that the name stands for.
    let address = addresses.first().ok_or_else(|| (ErrorCode::Io, format!("{shown} has no address")))?;
    listen_on(*address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse if error.get_ref().is_some() => (ErrorCode::AddressInUse, format!("{shown}: {error}")),
        io::ErrorKind::AddrInUse => (ErrorCode::AddressInUse, format!("{shown} is taken by another program")),
        _ => (ErrorCode::Io, format!("cannot listen on {shown}: {error}")),
    })
}

async fn obey_signals(
    mut terminate: Signal,
    mut interrupt: Signal,
    shutdown: CancellationToken,
    status: Arc<AtomicU8>,
) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => status.store(INTERRUPTED, Ordering::Relaxed),
    }
    shutdown.cancel();
    // The second Ctrl-C does not wait for anything; the store is durable at every moment.
    interrupt.recv().await;
    std::process::exit(i32::from(INTERRUPTED));
}
