//! What the operator sets: flags over environment over file.

use crate::store::Location;
use clap::{Args, Parser, ValueEnum};
use mini_torrent_common::tracker_info;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const ENVIRONMENT: &str = "MINI_TRACKER_";

/// The data directory's name unless another one is set.
pub(crate) const DATA_DIRECTORY: &str = "mini-tracker.data";

/// The tracker of Mini-Torrent: keeps accounts, groups and listings, and tells the members' clients where to
/// find each other. It never sees the content of a file.
///
/// It serves until SIGTERM, Ctrl-C or the console's `quit`. While it runs it reads commands from standard
/// input; `help` lists them. Everything that it acknowledged survives any kind of end.
#[derive(Debug, Parser)]
#[command(name = "mini-tracker", version)]
#[command(after_help = "Several trackers on one host share one data directory; on several hosts they share a \
    PostgreSQL database. The deployment's key is in identity.key in the data directory, to be copied to every host; \
    its fingerprint is printed at the start, for users to compare.\n\n\
    mini-tracker backup --help         writes a copy of the database into a file, also while trackers run\n\
    mini-tracker migrate-store --help  moves everything into another database\n\n\
    Examples:\n  mini-tracker tracker_info.txt 1\n  mini-tracker tracker_info.txt 2 --data-dir /srv/tracker \
    --registration closed")]
struct Arguments {
    /// The file with the addresses of the deployment's trackers, in order
    #[arg(value_name = "TRACKER_INFO_FILE")]
    tracker_info: PathBuf,

    /// Which of them this one is, counted from 1
    #[arg(value_name = "TRACKER_NUMBER")]
    number: u32,

    /// Where key, log and, by default, the database are [default: mini-tracker.data beside the tracker info file]
    #[arg(long, value_name = "DIR", env = "MINI_TRACKER_DATA_DIR")]
    data_dir: Option<PathBuf>,

    #[command(flatten)]
    database: DatabaseArguments,

    /// Whether strangers may create accounts [default: open]
    #[arg(long, value_enum, value_name = "WHO", env = "MINI_TRACKER_REGISTRATION")]
    registration: Option<Registration>,

    /// Take away the built-in group `public`, of which every account is a member
    #[arg(long, env = "MINI_TRACKER_NO_PUBLIC", value_parser = clap::builder::FalseyValueParser::new())]
    no_public: bool,

    /// Let anybody who reaches the tracker take part in the swarms of group `public`, without a key
    ///
    /// Ordinary BitTorrent clients then need no account: whoever knows the info-hash of a public file learns the
    /// addresses of all who have it, fetches it, and appears in its swarm. Other groups stay closed.
    #[arg(long, env = "MINI_TRACKER_OPEN_PUBLIC", value_parser = clap::builder::FalseyValueParser::new())]
    open_public: bool,

    /// How the log is written [default: text]
    #[arg(long, value_enum, value_name = "FORMAT", env = "MINI_TRACKER_LOG_FORMAT")]
    log_format: Option<LogFormat>,

    /// What is logged, as tracing filters: info, debug, mini_torrent_tracker=trace [default: info]
    #[arg(long, value_name = "FILTER", env = "MINI_TRACKER_LOG")]
    log: Option<String>,

    /// Log to standard error too
    #[arg(short, long)]
    verbose: bool,

    /// A settings file (TOML) with the keys data_dir, database, database_file, registration, public, open_public, log_format, log
    #[arg(long, value_name = "FILE", env = "MINI_TRACKER_CONFIG")]
    config: Option<PathBuf>,

    /// Listen here instead; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", hide = true)]
    listen: Option<SocketAddr>,
}

/// Which database.
#[derive(Debug, Args)]
pub(crate) struct DatabaseArguments {
    /// The database: sqlite:PATH or postgres://USER@HOST/NAME [default: tracker.db in the data directory]
    ///
    /// Trackers on several hosts share a PostgreSQL database. A host that is not this machine is spoken to by TLS
    /// alone, and its certificate is checked: against the system's authorities, or with ?sslrootcert=FILE in the URL
    /// against those in a file.
    #[arg(long, value_name = "WHERE", env = "MINI_TRACKER_DATABASE", hide_env_values = true)]
    database: Option<String>,

    /// A file with that on its only line: keeps a password off the command line
    #[arg(long, value_name = "FILE", env = "MINI_TRACKER_DATABASE_FILE")]
    database_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSettings {
    data_dir: Option<PathBuf>,
    database: Option<String>,
    database_file: Option<PathBuf>,
    registration: Option<Registration>,
    public: Option<bool>,
    open_public: Option<bool>,
    log_format: Option<LogFormat>,
    log: Option<String>,
}

/// Who may create accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Registration {
    /// Everybody who reaches the tracker
    Open,
    /// The operator alone, on the console
    Closed,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// One line of text an event
    Text,
    /// One JSON object an event
    Json,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    /// As tracker_info.txt says; a host name is looked up.
    Host(String, u16),
    /// As the command line says.
    Address(SocketAddr),
}

/// The settings that hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Which of the deployment's trackers it is, counted from 1.
    pub number: u32,
    /// Where to listen.
    pub listen: Listen,
    /// Where key and log are.
    pub data_directory: PathBuf,
    /// Where the database is.
    pub database: Location,
    /// Who may create accounts.
    pub registration: Registration,
    /// Whether the built-in group is there.
    pub public_group: bool,
    /// Whether ordinary clients need no key for its files.
    pub open_public: bool,
    /// The form of the log.
    pub log_format: LogFormat,
    /// What is logged.
    pub log: String,
    /// Whether it goes to standard error too.
    pub verbose: bool,
}

/// Why there are no settings.
#[derive(Debug)]
pub(crate) enum SettingsError {
    /// Help or the version was asked for: this text.
    Shown(String),
    /// Something is wrong: one line.
    Wrong(String),
}

impl Settings {
    /// Reads the command line, the environment and the settings file.
    ///
    /// # Errors
    /// One line that names what is wrong, or the help that was asked for.
    pub(crate) fn read(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Self, SettingsError> {
        let arguments: Arguments = parse(arguments)?;
        let file = match &arguments.config {
            Some(path) => read_file(path).map_err(SettingsError::Wrong)?,
            None => FileSettings::default(),
        };
        merge(arguments, file).map_err(SettingsError::Wrong)
    }
}

/// What the command line says, with the environment, which is checked.
///
/// # Errors
/// One line that names what is wrong, or the help that was asked for.
pub(crate) fn parse<T: Parser>(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<T, SettingsError> {
    let parsed = T::try_parse_from(arguments).map_err(|error| match error.use_stderr() {
        true => SettingsError::Wrong(one_line(&error.to_string())),
        false => SettingsError::Shown(error.to_string()),
    })?;
    check_environment(std::env::vars_os().map(|(name, _)| name)).map_err(SettingsError::Wrong)?;
    Ok(parsed)
}

fn merge(arguments: Arguments, file: FileSettings) -> Result<Settings, String> {
    let info = &arguments.tracker_info;
    let text = read_bounded(info, tracker_info::MAX_LENGTH as u64).map_err(|error| in_file(info, error))?;
    let trackers = tracker_info::parse(&text).map_err(|error| in_file(info, error))?;
    let index = arguments.number.checked_sub(1);
    let tracker = index.and_then(|index| trackers.get(index as usize)).ok_or_else(|| {
        let (n, number) = (trackers.len(), arguments.number);
        in_file(info, format!("it names {n} tracker{}, there is no number {number}", if n == 1 { "" } else { "s" }))
    })?;
    let listen = match arguments.listen {
        Some(address) => Listen::Address(address),
        None => Listen::Host(tracker.host.clone(), tracker.port),
    };
    let beside_info = || info.parent().unwrap_or(Path::new("")).join(DATA_DIRECTORY);
    let data_directory = arguments.data_dir.or(file.data_dir).unwrap_or_else(beside_info);
    let database = match arguments.database.location()? {
        Some(database) => Some(database),
        None => location(file.database.as_deref(), file.database_file.as_deref())?,
    };
    Ok(Settings {
        number: arguments.number,
        listen,
        database: database.unwrap_or_else(|| Location::within(&data_directory)),
        data_directory,
        registration: arguments.registration.or(file.registration).unwrap_or(Registration::Open),
        public_group: !arguments.no_public && file.public.unwrap_or(true),
        open_public: arguments.open_public || file.open_public.unwrap_or(false),
        log_format: arguments.log_format.or(file.log_format).unwrap_or(LogFormat::Text),
        log: arguments.log.or(file.log).unwrap_or_else(|| "info".into()),
        verbose: arguments.verbose,
    })
}

impl DatabaseArguments {
    /// The database, if one is named.
    pub(crate) fn location(&self) -> Result<Option<Location>, String> {
        location(self.database.as_deref(), self.database_file.as_deref())
    }
}

/// The database that is named here or in a file, if it is at all.
pub(crate) fn location(named: Option<&str>, in_a_file: Option<&Path>) -> Result<Option<Location>, String> {
    match (named, in_a_file) {
        (Some(_), Some(_)) => Err("the database is named twice: here, and in a file".into()),
        (Some(text), None) => Location::parse(text).map(Some).map_err(|error| error.to_string()),
        (None, Some(path)) => read_location(path).map(Some).map_err(|error| in_file(path, error)),
        (None, None) => Ok(None),
    }
}

fn read_location(path: &Path) -> Result<Location, String> {
    let mode = path.metadata().map_err(|error| error.to_string())?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("others may read this secret; do: chmod 600 {}", path.display()));
    }
    let text = read_bounded(path, crate::limits::MAX_SETTINGS_LENGTH).map_err(|error| error.to_string())?;
    Location::parse(Zeroizing::new(text).trim()).map_err(|error| error.to_string())
}

fn in_file(path: &Path, problem: impl std::fmt::Display) -> String {
    format!("{}: {problem}", path.display())
}

fn read_file(path: &Path) -> Result<FileSettings, String> {
    let text = read_bounded(path, crate::limits::MAX_SETTINGS_LENGTH).map_err(|error| in_file(path, error))?;
    toml::from_str(&text).map_err(|error| {
        let line = error.span().map(|span| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count());
        let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        in_file(path, format!("{place}{}", one_line(error.message())))
    })
}

fn read_bounded(path: &Path, limit: u64) -> io::Result<String> {
    let file = File::open(path)?;
    let mut text = String::new();
    // One byte more than allowed, so that a longer file is seen to be longer.
    file.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {limit} bytes")));
    }
    Ok(text)
}

/// A misspelt variable would otherwise do nothing, silently.
fn check_environment(names: impl IntoIterator<Item = std::ffi::OsString>) -> Result<(), String> {
    const KNOWN: [&str; 9] = [
        "DATA_DIR",
        "DATABASE",
        "DATABASE_FILE",
        "REGISTRATION",
        "NO_PUBLIC",
        "OPEN_PUBLIC",
        "LOG_FORMAT",
        "LOG",
        "CONFIG",
    ];
    for name in names {
        let name = name.to_string_lossy();
        if let Some(setting) = name.strip_prefix(ENVIRONMENT)
            && !KNOWN.contains(&setting)
        {
            return Err(format!("there is no setting {name} for the environment"));
        }
    }
    Ok(())
}

/// What stands before the usage, on one line.
fn one_line(text: &str) -> String {
    let head = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let words: Vec<_> = head.filter(|line| !line.is_empty() && !line.starts_with("For more information")).collect();
    let line = words.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("info.txt"), "127.0.0.1\n18000\nlocalhost:18001\n").unwrap();
            Self(directory)
        }

        fn path(&self, name: &str) -> String {
            self.0.path().join(name).display().to_string()
        }

        fn read(&self, arguments: &[&str]) -> Result<Settings, String> {
            let info = self.path("info.txt");
            let all = ["mini-tracker", &info].into_iter().chain(arguments.iter().copied());
            Settings::read(all.map(Into::into)).map_err(|error| match error {
                SettingsError::Shown(text) | SettingsError::Wrong(text) => text,
            })
        }
    }

    #[test]
    fn defaults_stand_beside_the_info_file() {
        let place = Place::new();
        let settings = place.read(&["2"]).unwrap();
        assert_eq!(settings.listen, Listen::Host("localhost".into(), 18001));
        assert_eq!(settings.data_directory, place.0.path().join("mini-tracker.data"));
        assert!(settings.public_group && settings.registration == Registration::Open);
    }

    /// D11: flag over file, and what is wrong is named.
    #[test]
    fn d11_a_flag_overrides_the_file_and_unknown_keys_are_named() {
        let place = Place::new();
        let config = place.path("tracker.toml");
        std::fs::write(&config, "registration = \"closed\"\nlog_format = \"json\"\n").unwrap();
        let settings = place.read(&["1", "--config", &config, "--log-format", "text"]).unwrap();
        assert_eq!((settings.registration, settings.log_format), (Registration::Closed, LogFormat::Text));
        std::fs::write(&config, "log = \"info\"\nregistratoin = \"closed\"\n").unwrap();
        let error = place.read(&["1", "--config", &config]).unwrap_err();
        assert!(error.contains("registratoin") && error.contains("line 2"), "{error}");
    }

    /// D11: off unless somebody says so, on the command line or in the file; the help warns.
    #[test]
    fn d11_open_public_is_a_decision_of_the_operator() {
        let place = Place::new();
        assert!(!place.read(&["1"]).unwrap().open_public);
        assert!(place.read(&["1", "--open-public"]).unwrap().open_public);
        let config = place.path("tracker.toml");
        for (text, expected) in
            [("open_public = true", Some(true)), ("open_public = false", Some(false)), ("open_public = 1", None)]
        {
            std::fs::write(&config, text).unwrap();
            let read = place.read(&["1", "--config", &config]);
            assert_eq!(read.as_ref().ok().map(|settings| settings.open_public), expected, "{text}");
            assert!(expected.is_some() || read.unwrap_err().contains("tracker.toml"));
        }
        assert!(check_environment(["MINI_TRACKER_OPEN_PUBLIC".into()]).is_ok());
        let help = place.read(&["--help"]).unwrap_err();
        assert!(help.contains("--open-public") && help.contains("learns the"), "{help}");
    }

    #[test]
    fn a_wrong_number_file_or_line_is_named_on_one_line() {
        let place = Place::new();
        for (arguments, part) in [
            (&["3"][..], "names 2 trackers, there is no number 3"),
            (&["0"], "no number 0"),
            (&["x"], "'x'"),
            (&[], "TRACKER_NUMBER"),
            (&["1", "--registration", "half"], "half"),
            (&["1", "--colour"], "--colour"),
        ] {
            let error = place.read(arguments).unwrap_err();
            assert!(error.contains(part) && error.lines().count() == 1, "{error}");
        }
        std::fs::write(place.path("info.txt"), "127.0.0.1\n18000\nnonsense!\n").unwrap();
        let error = place.read(&["1"]).unwrap_err();
        assert!(error.contains("info.txt") && error.contains("line 3"), "{error}");
        std::fs::remove_file(place.path("info.txt")).unwrap();
        assert!(place.read(&["1"]).unwrap_err().contains("info.txt"));
    }

    #[test]
    fn the_database_is_in_the_data_directory_unless_it_is_named_here_or_in_a_private_file() {
        let place = Place::new();
        let shown = |arguments: &[&str]| place.read(arguments).map(|settings| settings.database.to_string());
        assert_eq!(shown(&["1", "--data-dir", "/srv/t"]), Ok("/srv/t/tracker.db".into()));
        assert_eq!(shown(&["1", "--database", "sqlite:/srv/x.db"]), Ok("/srv/x.db".into()));
        let (file, url) = (place.path("database"), "postgres://tracker:s3cret@db.example/mini\n");
        std::fs::write(&file, url).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(shown(&["1", "--database-file", &file]).unwrap_err().contains("chmod 600"));
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        let expected = Ok("postgres://tracker@db.example:5432/mini".into());
        assert_eq!(shown(&["1", "--database-file", &file]), expected);
        let config = place.path("tracker.toml");
        std::fs::write(&config, format!("database_file = \"{file}\"")).unwrap();
        assert_eq!(shown(&["1", "--config", &config]), expected);
        assert_eq!(shown(&["1", "--config", &config, "--database", "sqlite:/srv/x.db"]), Ok("/srv/x.db".into()));
        let both = shown(&["1", "--database", "sqlite:/srv/x.db", "--database-file", &file]).unwrap_err();
        assert!(both.contains("twice"), "{both}");
        let wrong = shown(&["1", "--database", "oracle://u:s3cret@h/d"]).unwrap_err();
        assert!(wrong.contains("postgres://") && !wrong.contains("s3cret"), "{wrong}");
    }

    #[test]
    fn an_unknown_variable_is_named() {
        assert!(check_environment(["MINI_TRACKER_LOG".into(), "PATH".into()]).is_ok());
        assert!(check_environment(["MINI_TRACKER_LGO".into()]).unwrap_err().contains("MINI_TRACKER_LGO"));
    }
}
