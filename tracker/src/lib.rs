//! The tracker of Mini-Torrent: accounts, groups, listings and presence.
//!
//! An edge (control connection, HTTP, UDP, console) holds no rule and no SQL; `service` has one method per use case;
//! the rules live in `domain`; `store` holds what is durable, `presence` what is online. The server is a
//! function of its configuration, a bound listener and a shutdown token: [`run`].

mod admission;
mod announces;
mod backoff;
mod clock;
mod command_line;
mod connection;
mod console;
mod domain;
mod http;
mod identity;
mod keys;
mod limits;
mod log;
mod maintenance;
mod metrics;
mod output;
mod passwords;
mod port;
#[cfg(test)]
#[path = "../../tests/src/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "it belongs to the end-to-end tests, which use all of it")]
mod postgres_server;
mod presence;
mod server;
mod service;
mod settings;
mod start;
mod store;
mod tickets;
mod told;
mod udp;

pub use clock::Clock;
pub use command_line::run_from_command_line;
pub use port::{Port, listen};
pub use start::{Config, StartError, Tracker};
pub use store::{Location, LocationError, Server};

use tokio_util::sync::CancellationToken;

/// Serves on `port` until `shutdown`, without a console. What was acknowledged is durable afterwards.
///
/// # Errors
/// When the data directory cannot be used, or belongs to another deployment or a newer program, or another
/// process begins as the same tracker.
pub async fn run(config: Config, port: Port, shutdown: CancellationToken) -> Result<(), StartError> {
    Tracker::open(config).await?.serve(port, shutdown).await
}
