//! The tracker's program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    mini_torrent_tracker::run_from_command_line()
}
