//! A program on a pseudo-terminal, as a person has it before them.

use crate::waiting::DEADLINE;
use expectrl::process::unix::WaitStatus;
use expectrl::session::OsSession;
use expectrl::{ControlCode, Eof, Expect, Session};
use std::process::Command;

/// A program that believes a person is typing.
pub struct Terminal {
    session: OsSession,
    seen: String,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl Terminal {
    /// Starts a program.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Self {
        command.env("TERM", "xterm");
        let mut session = Session::spawn(command).expect("a terminal");
        session.set_expect_timeout(Some(DEADLINE));
        session.get_process_mut().set_window_size(200, 50).expect("a terminal has a size");
        Self { session, seen: String::new() }
    }

    /// Types a line and Enter.
    ///
    /// # Panics
    /// When the program is gone.
    pub fn type_line(&mut self, line: &str) {
        self.session.send_line(line).unwrap_or_else(|error| panic!("{error}: {}", self.seen));
    }

    /// Types without Enter.
    ///
    /// # Panics
    /// When the program is gone.
    pub fn type_text(&mut self, text: &str) {
        self.session.send(text).unwrap_or_else(|error| panic!("{error}: {}", self.seen));
    }

    /// Types Ctrl-D.
    ///
    /// # Panics
    /// When the program is gone.
    pub fn type_end(&mut self) {
        self.session.send(ControlCode::EndOfTransmission).unwrap_or_else(|error| panic!("{error}: {}", self.seen));
    }

    /// Types Ctrl-C.
    ///
    /// # Panics
    /// When the program is gone.
    pub fn type_interrupt(&mut self) {
        self.session.send(ControlCode::EndOfText).unwrap_or_else(|error| panic!("{error}: {}", self.seen));
    }

    /// Waits until a text appears behind what was waited for before; what came before it.
    ///
    /// # Panics
    /// When it does not within [`DEADLINE`].
    pub fn expect(&mut self, text: &str) -> String {
        match self.session.expect(text) {
            Ok(captures) => {
                let before = String::from_utf8_lossy(captures.before()).into_owned();
                self.seen += &before;
                self.seen += text;
                before
            }
            Err(error) => {
                let rest = self.rest();
                panic!("{error}: no {text:?} after\n{}\n{rest:?}", self.seen)
            }
        }
    }

    /// Waits for the program's end; its exit code.
    ///
    /// # Panics
    /// When it does not end within [`DEADLINE`], or by a signal.
    pub fn wait_exit(&mut self) -> i32 {
        match self.session.expect(Eof) {
            Ok(captures) => self.seen += &String::from_utf8_lossy(captures.before()),
            Err(error) => panic!("{error}: it does not end: {}", self.seen),
        }
        match self.session.get_process().wait() {
            Ok(WaitStatus::Exited(_, code)) => code,
            other => panic!("{other:?}: {}", self.seen),
        }
    }

    /// Everything that was on the screen so far, escape sequences included.
    pub fn seen(&self) -> &str {
        &self.seen
    }

    /// What is there and was not waited for.
    fn rest(&mut self) -> String {
        let mut buffer = [0; 4096];
        let n = self.session.try_read(&mut buffer).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }
}
