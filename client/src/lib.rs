//! The client of Mini-Torrent: a shell and scripts, the link to the trackers, and the member's side of swarms.
//!
//! [`run_from_command_line`] is the whole program. Inside, the `node` owns shares, downloads and local state;
//! `link` keeps a control connection to a tracker; each `torrent` drives one engine with `peer`
//! connections and `disk` files; `announce` asks the trackers of foreign metainfo files; `command` is what users say and `output` what they read.

mod admission;
mod announce;
mod command;
mod disk;
mod error;
mod identity;
mod link;
mod log;
mod node;
mod output;
mod peer;
mod script;
mod settings;
mod shell;
mod start;
mod state;
mod torrent;
mod words;

use clap::Parser;
use std::process::ExitCode;

use settings::{Arguments, Settings};

/// Name and version of this program, as trackers and peers see it.
const AGENT: &str = concat!("mini-torrent ", env!("CARGO_PKG_VERSION"));

/// Exit status of a client that could not start.
const START_FAILED: u8 = 2;

/// Runs the client with the process's own arguments, environment and standard streams.
pub fn run_from_command_line() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            output::print_usage(&error);
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(START_FAILED));
        }
    };
    match Settings::resolve(arguments).and_then(start::run) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            output::print_start_error(&error);
            ExitCode::from(START_FAILED)
        }
    }
}
