//! The client of Mini-Torrent. Everything is in the library, so that tests can run it too.

fn main() -> std::process::ExitCode {
    mini_torrent::run_from_command_line()
}
