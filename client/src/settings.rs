//! What the user asked for at the start: flags over environment over configuration file.

use clap::{Parser, ValueEnum};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::tracker_info::{self, TrackerAddress};
use mini_torrent_engine::PieceOrder;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::link::RETURN_INTERVAL;

/// Share files with the members of your groups, and fetch theirs.
///
/// Starts a shell when standard input is a terminal, else reads one command a line. `help` lists the commands.
#[derive(Debug, Parser)]
#[command(name = "mini-torrent", version, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Address to accept other members on, as IP:PORT; port 0 picks a free one
    #[arg(value_name = "IP:PORT")]
    listen: SocketAddr,

    /// File that lists the trackers' addresses in order
    #[arg(value_name = "TRACKER_INFO_FILE")]
    tracker_info: PathBuf,

    /// Folder of this client's state, closed to other users [default: the XDG state directory, one folder per port]
    #[arg(long, value_name = "DIR", env = "MINI_TORRENT_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// Read commands from this file instead of standard input
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,

    /// Print one JSON object per command, and events as they happen
    #[arg(long, env = "MINI_TORRENT_JSON")]
    json: bool,

    /// Print details in lists, and the log on standard error
    #[arg(short, long, env = "MINI_TORRENT_VERBOSE")]
    verbose: bool,

    /// Stop a script at the first command that fails
    #[arg(long, env = "MINI_TORRENT_FAIL_FAST")]
    fail_fast: bool,

    /// Which piece to fetch next [default: rarest]
    #[arg(long, value_name = "ORDER", env = "MINI_TORRENT_PIECE_ORDER")]
    piece_order: Option<Order>,

    /// Neither encrypt nor prove anything between peers, to measure what that costs; on loopback only
    #[arg(long, hide = true)]
    plain_peers: bool,

    /// About how often to look whether an earlier tracker is back, in milliseconds, for tests
    #[arg(long, hide = true, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    return_interval_ms: Option<u64>,

    /// Read settings from this TOML file
    #[arg(long, value_name = "FILE", env = "MINI_TORRENT_CONFIG")]
    config: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Settings come from flags, else from the environment (MINI_TORRENT_DATA_DIR, …), else from the file given with
--config (keys: data_dir, json, verbose, fail_fast, piece_order).

Exit status: 0 all commands succeeded, 1 one failed, 2 bad usage or start-up, 130 after Ctrl-C.";

/// The order in which pieces are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    /// A random one among the rarest
    Rarest,
    /// A random one
    Random,
    /// The first one
    Sequential,
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    data_dir: Option<PathBuf>,
    #[serde(default)]
    json: bool,
    #[serde(default)]
    verbose: bool,
    #[serde(default)]
    fail_fast: bool,
    piece_order: Option<Order>,
}

/// Everything decided, before anything is opened.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) trackers: Vec<TrackerAddress>,
    pub(crate) data_dir: PathBuf,
    pub(crate) script: Option<PathBuf>,
    pub(crate) json: bool,
    pub(crate) verbose: bool,
    pub(crate) fail_fast: bool,
    pub(crate) piece_order: PieceOrder,
    /// Peers neither encrypt nor prove their keys.
    pub(crate) plain_peers: bool,
    /// About how often to look whether an earlier tracker is back.
    pub(crate) return_interval: Duration,
}

/// Why the client cannot start: exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct StartError {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

impl StartError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A failed operation on a path.
    pub(crate) fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::new(ErrorCode::Io, format!("{}: {error}", path.display()))
    }
}

impl Settings {
    /// Puts flags, environment and file together.
    pub(crate) fn resolve(arguments: Arguments) -> Result<Self, StartError> {
        let file = match &arguments.config {
            None => ConfigFile::default(),
            Some(path) => read_config(path)?,
        };
        let data_dir = match arguments.data_dir.or(file.data_dir) {
            Some(dir) => dir,
            None => default_data_dir(arguments.listen.port())?,
        };
        if arguments.plain_peers && !arguments.listen.ip().is_loopback() {
            let text = "--plain-peers is for measuring on loopback; listen on 127.0.0.1";
            return Err(StartError::new(ErrorCode::Usage, text));
        }
        let order = arguments.piece_order.or(file.piece_order).unwrap_or(Order::Rarest);
        Ok(Self {
            listen: arguments.listen,
            trackers: read_tracker_info(&arguments.tracker_info)?,
            data_dir,
            script: arguments.script,
            json: arguments.json || file.json,
            verbose: arguments.verbose || file.verbose,
            fail_fast: arguments.fail_fast || file.fail_fast,
            piece_order: match order {
                Order::Rarest => PieceOrder::Rarest,
                Order::Random => PieceOrder::Random,
                Order::Sequential => PieceOrder::Sequential,
            },
            plain_peers: arguments.plain_peers,
            return_interval: arguments.return_interval_ms.map_or(RETURN_INTERVAL, Duration::from_millis),
        })
    }
}

fn read_config(path: &Path) -> Result<ConfigFile, StartError> {
    let text = std::fs::read_to_string(path).map_err(|error| StartError::io(path, &error))?;
    toml::from_str(&text).map_err(|error| {
        let reason = error.message().to_owned();
        StartError::new(ErrorCode::Usage, format!("{}: {reason}", path.display()))
    })
}

fn read_tracker_info(path: &Path) -> Result<Vec<TrackerAddress>, StartError> {
    let text = std::fs::read_to_string(path).map_err(|error| StartError::io(path, &error))?;
    tracker_info::parse(&text)
        .map_err(|error| StartError::new(ErrorCode::Usage, format!("{}: {error}", path.display())))
}

/// `$XDG_STATE_HOME/mini-torrent/<port as given>`.
fn default_data_dir(port: u16) -> Result<PathBuf, StartError> {
    use etcetera::BaseStrategy;
    let strategy = etcetera::choose_base_strategy()
        .map_err(|error| StartError::new(ErrorCode::Io, format!("there is no home directory: {error}")))?;
    let base = strategy.state_dir().unwrap_or_else(|| strategy.data_dir());
    Ok(base.join("mini-torrent").join(port.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &tempfile::TempDir, name: &str, text: &str) -> String {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn resolve(extra: &[&str]) -> Result<Settings, StartError> {
        let dir = tempfile::tempdir().unwrap();
        let info = write(&dir, "tracker_info.txt", "127.0.0.1\n18000\n");
        let arguments = [&["mini-torrent", "127.0.0.1:0", &info], extra].concat();
        Settings::resolve(Arguments::try_parse_from(arguments).unwrap())
    }

    /// D11: settings in a file take effect, a flag wins over them, and unknown keys are refused by name.
    #[test]
    fn d11_flags_win_over_the_file_and_unknown_keys_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let good = write(&dir, "good.toml", "data_dir = '/from/file'\njson = true\npiece_order = 'sequential'\n");
        let settings = resolve(&["--config", &good]).unwrap();
        assert_eq!((settings.data_dir.as_path(), settings.json), (Path::new("/from/file"), true));
        assert_eq!(settings.piece_order, PieceOrder::Sequential);
        let settings = resolve(&["--config", &good, "--data-dir", "/from/flag"]).unwrap();
        assert_eq!(settings.data_dir, Path::new("/from/flag"));
        let bad = write(&dir, "bad.toml", "data_dri = '/x'\n");
        assert!(resolve(&["--config", &bad]).unwrap_err().message.contains("data_dri"));
    }

    #[test]
    fn the_default_folder_is_named_after_the_port_as_given() {
        let settings = resolve(&[]).unwrap();
        assert!(settings.data_dir.ends_with("mini-torrent/0"), "{}", settings.data_dir.display());
    }
}
