//! The tracker of Mini-Torrent: accounts, groups, listings and presence.
//!
//! An edge (control connection, console) holds no rule and no SQL; `service` has one method per use case;
//! the rules live in `domain`; `store` holds what is durable, `presence` what is online. The server is a
//! function of its configuration, a bound listener and a shutdown token: [`run`].

mod admission;
mod backoff;
mod clock;
mod command_line;
mod connection;
mod console;
mod domain;
mod identity;
mod limits;
mod log;
mod output;
mod passwords;
mod presence;
mod server;
mod service;
mod settings;
mod start;
mod store;
mod tickets;
mod told;

pub use clock::Clock;
pub use command_line::run_from_command_line;
pub use server::listen;
pub use start::{Config, StartError, Tracker};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves on `listener` until `shutdown`, without a console. What was acknowledged is durable afterwards.
///
/// # Errors
/// When the data directory cannot be used, or belongs to another deployment or a newer program.
pub async fn run(config: Config, listener: TcpListener, shutdown: CancellationToken) -> Result<(), StartError> {
    Tracker::open(config).await?.serve(listener, shutdown).await;
    Ok(())
}
