//! Where a store is: `sqlite:PATH`, or the URL of a PostgreSQL server.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use zeroize::Zeroizing;

const SQLITE: &str = "sqlite:";
const POSTGRES: [&str; 2] = ["postgres://", "postgresql://"];

/// Where a store is. `Display` and `Debug` show no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A file of SQLite.
    Sqlite(PathBuf),
    /// A database of a PostgreSQL server, or of what speaks its protocol.
    Postgres(Box<Server>),
}

/// A database of a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    config: tokio_postgres::Config,
    root_certificate: Option<PathBuf>,
}

/// What is wrong with a location. It never repeats what stands there, for that may be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// It begins with nothing that we know.
    #[error("a database is sqlite:PATH or postgres://USER@HOST/NAME")]
    Scheme,
    /// The URL cannot be read.
    #[error("the database's URL cannot be read: {0}")]
    Url(String),
    /// Passwords, and what is done with them, would cross the network in clear.
    #[error("the database's host {0} is not this machine: without TLS (sslmode=disable) it is not used")]
    Plain(String),
}

impl Location {
    /// The store of a data directory.
    pub fn within(data_directory: &Path) -> Self {
        Self::Sqlite(data_directory.join("tracker.db"))
    }

    /// Reads a location.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        if let Some(path) = text.strip_prefix(SQLITE).filter(|path| !path.is_empty()) {
            return Ok(Self::Sqlite(path.into()));
        }
        match POSTGRES.iter().any(|scheme| text.starts_with(scheme)) {
            true => Server::parse(text).map(|server| Self::Postgres(Box::new(server))),
            false => Err(LocationError::Scheme),
        }
    }
}

impl Server {
    fn parse(url: &str) -> Result<Self, LocationError> {
        let unreadable = |problem: &str| LocationError::Url(problem.into());
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut root_certificate, mut mode, mut rest) = (None, None, Vec::new());
        for option in query.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("sslrootcert", path)) => root_certificate = Some(PathBuf::from(path)),
                Some(("sslmode", value)) => mode = Some(value),
                _ => rest.push(option),
            }
        }
        let plain_url = Zeroizing::new(format!("{base}?{}", rest.join("&")));
        let mut config: tokio_postgres::Config = plain_url
            .parse()
            .map_err(|error: tokio_postgres::Error| LocationError::Url(super::postgres::told(&error)))?;
        let hosts: Vec<_> = config.get_hosts().iter().map(shown_host).collect();
        if hosts.is_empty() {
            return Err(unreadable("it names no host"));
        }
        if hosts.iter().any(|host| host.contains('@')) {
            return Err(unreadable("an @ of the password is written %40"));
        }
        let remote = remote_host(&config);
        let is_required = match mode {
            None | Some("prefer") => remote.is_some(),
            Some("disable") => match remote {
                Some(host) => return Err(LocationError::Plain(host)),
                None => false,
            },
            // We always check the certificate and the name in it.
            Some("require" | "verify-ca" | "verify-full") => true,
            Some(_) => return Err(unreadable("sslmode is disable, prefer, require, verify-ca or verify-full")),
        };
        config.ssl_mode(if is_required { SslMode::Require } else { SslMode::Disable });
        // After a fail-over the URL may lead to a server that only reads.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite).application_name("mini-tracker");
        Ok(Self { config, root_certificate })
    }

    /// How to connect, without our limits.
    pub(super) fn config(&self) -> &tokio_postgres::Config {
        &self.config
    }

    /// Who signs the server's certificate; else those whom the system trusts.
    pub(super) fn root_certificate(&self) -> Option<&PathBuf> {
        self.root_certificate.as_ref()
    }
}

fn shown_host(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

/// The first host that is reached over a network.
fn remote_host(config: &tokio_postgres::Config) -> Option<String> {
    let addresses = config.get_hostaddrs();
    let is_here = |index: usize, host: &Host| match (addresses.get(index), host) {
        (_, Host::Unix(_)) => true,
        (Some(address), _) => address.is_loopback(),
        (None, Host::Tcp(name)) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
    };
    let mut hosts = config.get_hosts().iter().enumerate();
    hosts.find(|(index, host)| !is_here(*index, host)).map(|(_, host)| shown_host(host))
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres(server) => write!(f, "{server}"),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let hosts = self.config.get_hosts().iter().enumerate();
        let hosts: Vec<_> = hosts.map(|(index, host)| format!("{}:{}", shown_host(host), port(index))).collect();
        let user = self.config.get_user().map(|user| format!("{user}@")).unwrap_or_default();
        write!(f, "postgres://{user}{}/{}", hosts.join(","), self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Server {
        match Location::parse(url) {
            Ok(Location::Postgres(server)) => *server,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn locations_are_read_and_shown_without_their_password() {
        assert_eq!(Location::parse("sqlite:/srv/a b.db"), Ok(Location::Sqlite("/srv/a b.db".into())));
        let text = "postgres://tracker:s3cret@db1:5433,db2:5434/mini?connect_timeout=3&sslmode=verify-full";
        let location = Location::parse(text).unwrap();
        assert_eq!(location.to_string(), "postgres://tracker@db1:5433,db2:5434/mini");
        assert!(!format!("{location:?}").contains("s3cret"));
        assert_eq!(server("postgres:///mini?host=/run/postgresql").to_string(), "postgres:///run/postgresql:5432/mini");
    }

    #[test]
    fn what_cannot_be_read_is_named_but_not_repeated() {
        for (text, part) in [
            ("", "sqlite:PATH"),
            ("sqlite:", "sqlite:PATH"),
            ("mysql://u:s3cret@h/d", "postgres://"),
            ("postgres://", "no host"),
            ("postgres://u:s3cret@h/d?sslmode=maybe", "sslmode"),
            ("postgres://u:s3cret@h/d?colour=s3cret", "colour"),
            ("postgres://u:s3cret@h:s3cret/d", "port"),
            ("postgres://u:s3@cret@h/d", "%40"),
        ] {
            let error = Location::parse(text).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("s3cret") && !error.contains("cret@"), "{text}: {error}");
        }
    }

    #[test]
    fn remote_hosts_are_reached_by_tls_alone() {
        for (url, expected) in [
            ("postgres://u@db.example/d", SslMode::Require),
            ("postgres://u@10.0.0.5/d?sslmode=prefer", SslMode::Require),
            ("postgres://u@localhost,db.example/d", SslMode::Require),
            ("postgres://u@localhost/d?hostaddr=10.0.0.5", SslMode::Require),
            ("postgres://u@localhost/d", SslMode::Disable),
            ("postgres://u@127.0.0.1/d?sslmode=verify-full", SslMode::Require),
            ("postgres://u@[::1]/d", SslMode::Disable),
            ("postgres://u@/d?host=/run/postgresql", SslMode::Disable),
        ] {
            assert_eq!(server(url).config().get_ssl_mode(), expected, "{url}");
        }
        let plain = Location::parse("postgres://u@db.example/d?sslmode=disable");
        assert_eq!(plain, Err(LocationError::Plain("db.example".into())));
        let server = server("postgres://u@db.example/d?sslrootcert=/etc/ca.pem");
        assert_eq!(server.root_certificate(), Some(&"/etc/ca.pem".into()));
    }
}
