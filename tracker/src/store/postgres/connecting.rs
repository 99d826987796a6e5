//! How connections to a server come about: TLS, limits, the schema and the lock around its migration.

use super::failure::told;
use crate::limits;
use crate::store::OpenError;
use crate::store::location::Server;
use deadpool_postgres::tokio_postgres::{Client, Config};
use deadpool_postgres::{ConfigConnectImpl, Connect, Manager, Pool, Runtime, Timeouts};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Names the lock that a starting tracker holds: "mtorrent" in ASCII.
const START_LOCK: i64 = i64::from_be_bytes(*b"mtorrent");

#[allow(missing_docs, unreachable_pub)]
pub(super) mod embedded {
    refinery::embed_migrations!("../migrations/postgres");
}

/// Makes connections, with or without TLS.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    connect: Arc<dyn Connect>,
}

impl Connect for Connector {
    fn connect(
        &self,
        config: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        self.connect.connect(config)
    }
}

impl Connector {
    pub(super) fn new(server: &Server) -> Result<Self, OpenError> {
        let mut config = server.config().clone();
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(limits::DATABASE_PATIENCE);
        }
        // A server that vanished without a word is noticed as soon as we say something, or at the latest after this.
        config.tcp_user_timeout(limits::STATEMENT_DEADLINE).keepalives_idle(limits::STATEMENT_DEADLINE);
        let connect: Arc<dyn Connect> = match config.get_ssl_mode() {
            SslMode::Require => Arc::new(ConfigConnectImpl { tls: tls(server.root_certificate().map(AsRef::as_ref))? }),
            _ => Arc::new(ConfigConnectImpl { tls: NoTls }),
        };
        Ok(Self { config, connect })
    }

    /// One connection, without the limits of a transaction.
    pub(super) async fn one(&self) -> Result<Client, OpenError> {
        let connected = tokio::time::timeout(limits::DATABASE_PATIENCE, self.connect.connect(&self.config)).await;
        let (client, _) = connected.map_err(|_| OpenError::Silent)??;
        Ok(client)
    }

    /// The connections that transactions use. Its server ends what a tracker that is stopped or cut off has begun:
    /// the others wait for its locks no longer than for a statement.
    pub(super) fn pool(&self, deadline: Duration) -> Result<Pool, OpenError> {
        let deadline_ms = deadline.as_millis();
        let settings = format!(
            "-c statement_timeout={deadline_ms} -c lock_timeout={deadline_ms} \
             -c idle_in_transaction_session_timeout={deadline_ms}"
        );
        let mut config = self.config.clone();
        let before = config.get_options().unwrap_or_default().to_owned();
        config.options(format!("{settings} {before}"));
        let patience = Some(limits::DATABASE_PATIENCE);
        let manager = Manager::from_connect(config, self.clone(), deadpool_postgres::ManagerConfig::default());
        let timeouts = Timeouts { wait: patience, create: patience, recycle: patience };
        let pool = Pool::builder(manager).max_size(limits::DATABASE_CONNECTIONS).timeouts(timeouts);
        pool.runtime(Runtime::Tokio1).build().map_err(|_| OpenError::Silent)
    }
}

fn tls(root_certificate: Option<&Path>) -> Result<MakeRustlsConnect, OpenError> {
    let mut roots = RootCertStore::empty();
    match root_certificate {
        Some(path) => {
            let failed = |problem: String| OpenError::RootCertificate { path: path.into(), problem };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(told(&error)))? {
                let certificate = certificate.map_err(|error| failed(told(&error)))?;
                roots.add(certificate).map_err(|error| failed(told(&error)))?;
            }
            if roots.is_empty() {
                return Err(failed("there is no certificate in it".into()));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// Waits until no other tracker starts, and keeps others waiting until the connection is dropped.
pub(super) async fn take_start_lock(client: &Client) -> Result<(), OpenError> {
    let taken = client.execute("SELECT pg_advisory_lock($1)", &[&START_LOCK]);
    tokio::time::timeout(limits::START_LOCK_PATIENCE, taken).await.map_err(|_| OpenError::Busy)??;
    Ok(())
}

/// The newest schema of this build.
pub(super) fn known_schema() -> i64 {
    let runner = embedded::migrations::runner();
    runner.get_migrations().iter().map(|migration| i64::from(migration.version())).max().unwrap_or(0)
}

/// The schema of the database; 0 for none.
pub(super) async fn schema(client: &Client) -> Result<i64, OpenError> {
    let has_history = client.query_one(
        "SELECT EXISTS (SELECT 1 FROM information_schema.tables
         WHERE table_name = 'refinery_schema_history' AND table_schema = current_schema())",
        &[],
    );
    if !has_history.await?.try_get::<_, bool>(0)? {
        return Ok(0);
    }
    let sql = "SELECT CAST(COALESCE(MAX(version), 0) AS BIGINT) FROM refinery_schema_history";
    Ok(client.query_one(sql, &[]).await?.try_get(0)?)
}

/// Brings the schema up to date. The caller holds the start lock.
pub(super) async fn migrate(client: &mut Client) -> Result<(), OpenError> {
    let (found, known) = (schema(client).await?, known_schema());
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    embedded::migrations::runner().run_async(client).await.map_err(Box::new)?;
    Ok(())
}
