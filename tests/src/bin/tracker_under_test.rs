//! The tracker's program for tests: the same library call as the real one.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Nothing outlives the test that started it, not even when the test itself is killed.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    mini_torrent_tracker::run_from_command_line()
}
