//! Starting and ending: everything is opened here, in order, and ended in the reverse order.

use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::tls::{Fingerprint, Identity};
use std::io::{self, IsTerminal};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::BufReader;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::admission::Admissions;
use crate::command::{Context, Hashings};
use crate::identity::{LockedDir, draw_peer_id, load_identity, lock_data_dir};
use crate::link::{Link, LinkPlan};
use crate::node::{Node, NodeInlets, NodePlan};
use crate::output::{Notice, Output, PromptPrinter};
use crate::peer::{Listener, Opener, Security};
use crate::settings::{Settings, StartError};
use crate::shell::{Ended, Shell};
use crate::state::State;
use crate::{log, script};
use mini_torrent_common::control::Request;

/// How long the tracker has to hear that we leave.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);
/// How long background work has to end after everything was told to.
const END_PATIENCE: Duration = Duration::from_millis(200);
/// Threads for files and hashing. A download uses as many as it has pieces to check.
const BLOCKING_THREADS: usize = 16;
const MAILBOX: usize = 256;
/// File descriptors kept for the state, the log, the trackers and the runtime.
const RESERVED_FILES: usize = 64;
/// Most connections to peers, if the file limit allows as many.
const MAX_CONNECTIONS: usize = 8192;

/// Exit statuses.
const SUCCEEDED: u8 = 0;
const SOME_FAILED: u8 = 1;
const INTERRUPTED: u8 = 130;

/// What is open before the runtime starts.
struct Opened {
    listener: TcpListener,
    identity: Identity,
    state: State,
    pin: Option<Fingerprint>,
    dir: LockedDir,
    /// Connections to peers that may be open at the same time.
    n_connections: usize,
}

/// Runs the client; returns its exit status.
pub(crate) fn run(settings: Settings) -> Result<u8, StartError> {
    keep_memory_private();
    let opened = open(&settings)?;
    let _log = log::start(&settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| StartError::new(ErrorCode::Io, error.to_string()))?;
    let status = runtime.block_on(run_opened(settings, opened));
    // The editor's thread may still wait for a key.
    runtime.shutdown_timeout(END_PATIENCE);
    status
}

/// Opens everything that can refuse. The address comes first: it is what two clients fight about.
fn open(settings: &Settings) -> Result<Opened, StartError> {
    let listener = TcpListener::bind(settings.listen).map_err(|error| {
        let address = settings.listen;
        match error.kind() {
            io::ErrorKind::AddrInUse => StartError::new(
                ErrorCode::AddressInUse,
                format!("{address} is taken (this is your own listening address); choose another port"),
            ),
            _ => StartError::new(ErrorCode::Io, format!("cannot listen on {address}: {error}")),
        }
    })?;
    listener.set_nonblocking(true).map_err(|error| StartError::new(ErrorCode::Io, error.to_string()))?;
    let dir = lock_data_dir(&settings.data_dir)?;
    let n_connections = connection_limit();
    let state_error = |error: crate::state::StateError| StartError::new(ErrorCode::Io, error.to_string());
    let state = State::open(&settings.data_dir).map_err(state_error)?;
    let in_file = settings.trackers.iter().find_map(|tracker| tracker.pin);
    if settings.trackers.iter().any(|tracker| tracker.pin.is_some() && tracker.pin != in_file) {
        let text = "the trackers of one deployment have one key, but the file pins several";
        return Err(StartError::new(ErrorCode::Usage, text));
    }
    let addresses: Vec<String> = settings.trackers.iter().map(ToString::to_string).collect();
    let pin = match in_file {
        Some(pin) => Some(pin),
        None => state.pin(&addresses).map_err(state_error)?,
    };
    let identity = load_identity(&settings.data_dir)?;
    Ok(Opened { listener, identity, state, pin, dir, n_connections })
}

/// The memory holds keys, passwords and tokens: it goes into no core dump, and other processes of the user cannot
/// read it.
fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    // Neither is refused to a process that asks for less.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// Many peers need many file descriptors: the soft limit becomes the hard one, and connections may use half of it.
/// Each may need another one for its file.
fn connection_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    let is_raised = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).is_ok();
    let n_files = if is_raised { limit.maximum } else { limit.current };
    let n_files = n_files.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    (n_files.saturating_sub(RESERVED_FILES) / 2).clamp(1, MAX_CONNECTIONS)
}

/// Everything that runs, and what ends it.
struct Running {
    context: Context,
    shutdown: CancellationToken,
    accepting: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    printing: JoinHandle<()>,
    /// No other client may use the directory until this one has ended.
    _dir: LockedDir,
}

async fn run_opened(settings: Settings, opened: Opened) -> Result<u8, StartError> {
    let io_error = |error: io::Error| StartError::new(ErrorCode::Io, error.to_string());
    let interrupts = signal(SignalKind::interrupt()).map_err(io_error)?;
    let terminations = signal(SignalKind::terminate()).map_err(io_error)?;
    let interactive = settings.script.is_none() && !settings.json && io::stdin().is_terminal();
    let (shell, printer) = match interactive {
        false => (None, None),
        true => {
            let opened = Shell::open(settings.data_dir.join("history"));
            let (shell, printer) = opened.map_err(|error| StartError::new(ErrorCode::Io, error.to_string()))?;
            (Some(shell), printer)
        }
    };
    let running = start(&settings, opened, printer).map_err(io_error)?;
    let commands = run_commands(&settings, shell, running.context.clone());
    let status = until_signalled(commands, interrupts, terminations).await?;
    running.end(status != INTERRUPTED && !interactive).await;
    Ok(status)
}

fn start(settings: &Settings, opened: Opened, printer: Option<PromptPrinter>) -> io::Result<Running> {
    let (output, printing) = Output::start(settings.json, printer);
    let (shutdown, accepting) = (CancellationToken::new(), CancellationToken::new());
    let socket = tokio::net::TcpListener::from_std(opened.listener)?;
    let address = socket.local_addr()?;
    output.notice(Notice::Listening { address });
    let (peer_id, own_ip) = (draw_peer_id(), settings.listen.ip());
    let (link_events, link_receiver) = mpsc::channel(MAILBOX);
    let (torrents, wanted) = mpsc::channel(MAILBOX);
    let own_key = opened.identity.public();
    let (admissions, admitted) = watch::channel(Admissions::new(own_key));
    let security = match settings.plain_peers {
        true => Security::Plain { own_key },
        false => Security::tls(&opened.identity).map_err(io::Error::other)?,
    };
    let places = Arc::new(Semaphore::new(opened.n_connections));
    let opener = Opener { security, own_ip, peer_id, admissions: admitted, places };
    let plan = LinkPlan {
        trackers: settings.trackers.clone(),
        identity: opened.identity,
        pin: opened.pin,
        peer_id,
        listen_port: address.port(),
        own_ip,
        return_interval: settings.return_interval,
    };
    let (link, link_task) = Link::start(plan, link_events, shutdown.clone());
    let (user_sender, user) = watch::channel(None);
    let plan = NodePlan {
        state: opened.state,
        trackers: settings.trackers.iter().map(ToString::to_string).collect(),
        own_key,
        opener: opener.clone(),
        listen_port: address.port(),
        admissions,
        user: user_sender,
        piece_order: settings.piece_order,
    };
    let inlets = NodeInlets { link_events: link_receiver, wanted };
    let (node, node_task) = Node::start(plan, inlets, link.clone(), output.clone());
    let listening = Listener { socket, opener, torrents, shutdown: accepting.clone() };
    let listen_task = tokio::spawn(listening.run());
    let verbose = settings.verbose || (settings.script.is_none() && !settings.json && io::stdin().is_terminal());
    let (hashings, trackers) = (Hashings::default(), settings.trackers.clone().into());
    let context = Context { link, node, output, json: settings.json, verbose, user, hashings, trackers };
    Ok(Running {
        context,
        shutdown,
        accepting,
        tasks: vec![listen_task, node_task, link_task],
        printing,
        _dir: opened.dir,
    })
}

/// Runs the shell or the script; returns the exit status.
async fn run_commands(settings: &Settings, shell: Option<Shell>, context: Context) -> Result<u8, StartError> {
    if let Some(shell) = shell {
        return Ok(match shell.run(context).await {
            Ended::Quit => SUCCEEDED,
            Ended::Interrupted => INTERRUPTED,
        });
    }
    let tally = match &settings.script {
        None => script::run(BufReader::new(tokio::io::stdin()), &context, settings.fail_fast).await,
        Some(path) => {
            let file = tokio::fs::File::open(path).await.map_err(|error| StartError::io(path, &error))?;
            script::run(BufReader::new(file), &context, settings.fail_fast).await
        }
    };
    Ok(if tally.any_failed { SOME_FAILED } else { SUCCEEDED })
}

/// Waits for the commands' end or a signal. From then on a further Ctrl-C leaves at once.
async fn until_signalled(
    commands: impl Future<Output = Result<u8, StartError>>,
    mut interrupts: Signal,
    mut terminations: Signal,
) -> Result<u8, StartError> {
    let status = tokio::select! {
        status = commands => status,
        _ = interrupts.recv() => Ok(INTERRUPTED),
        _ = terminations.recv() => Ok(SUCCEEDED),
    };
    tokio::spawn(async move {
        interrupts.recv().await;
        std::process::exit(i32::from(INTERRUPTED));
    });
    status
}

impl Running {
    /// Stops accepting, tells the tracker, flushes files and state, and joins everything.
    async fn end(self, remark: bool) {
        self.accepting.cancel();
        let signed_in = self.context.user.borrow().is_some();
        let goodbye = async {
            if signed_in {
                // A tracker that is gone will notice by itself.
                let _ = timeout(GOODBYE_PATIENCE, self.context.link.request(Request::Logout)).await;
            }
        };
        let ((), n_paused) = tokio::join!(goodbye, self.context.node.shutdown());
        if let (Ok(n @ 1..), true) = (n_paused, remark) {
            let downloads = if n == 1 { "1 download".to_owned() } else { format!("{n} downloads") };
            self.context.output.remark(format!("{downloads} paused; use wait")).await;
        }
        self.shutdown.cancel();
        drop(self.context);
        for task in self.tasks {
            let _ = timeout(END_PATIENCE, task).await;
        }
        let _ = timeout(END_PATIENCE, self.printing).await;
    }
}
