//! The one place that prints. Replies, errors and notices come here, as text or as JSON.
//!
//! Replies go to standard output and errors to standard error. Notices, which tell what happens in the
//! background, go to standard error, or above the prompt where one is open. With `--json` everything but
//! start-up errors is one object a line on standard output.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use mini_torrent_common::control::KeyId;
use mini_torrent_common::escape::Escaped;
use mini_torrent_common::hash::Sha1Hash;
use mini_torrent_common::names::{FileName, GroupName, UserName};
use mini_torrent_common::tls::Fingerprint;
use serde_json::{Map, Value, json};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use tokio::sync::{mpsc, oneshot};

use crate::error::CommandError;
use crate::settings::StartError;

/// Lines that wait to be printed.
const QUEUE: usize = 1024;

/// What a successful command answers with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    /// Lines for a person.
    pub(crate) text: Vec<String>,
    /// Fields of the JSON form.
    pub(crate) fields: Map<String, Value>,
}

impl Reply {
    /// A reply of one line.
    pub(crate) fn line(text: impl Into<String>, fields: Value) -> Self {
        Self::lines(vec![text.into()], fields)
    }

    /// A reply of several lines.
    pub(crate) fn lines(text: Vec<String>, fields: Value) -> Self {
        let fields = match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        Self { text, fields }
    }
}

/// What a command came to.
pub(crate) type Outcome = Result<Reply, CommandError>;

/// Something that happened in the background.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    Listening {
        address: SocketAddr,
    },
    LoopbackOnly {
        address: IpAddr,
    },
    KeyTrusted {
        deployment: Fingerprint,
    },
    TrackerConnected {
        tracker: String,
    },
    TrackerLost {
        tracker: String,
    },
    SessionEnded {
        reason: String,
    },
    JoinRequested {
        group: GroupName,
        user: UserName,
    },
    RequestAccepted {
        group: GroupName,
    },
    RemovedFromGroup {
        group: GroupName,
    },
    DownloadCompleted {
        group: Option<GroupName>,
        file: FileName,
        destination: PathBuf,
        /// Not known of a foreign file.
        sha1: Option<Sha1Hash>,
        seconds: f64,
    },
    DownloadFailed {
        group: Option<GroupName>,
        file: FileName,
        reason: String,
    },
    DownloadWaiting {
        group: Option<GroupName>,
        file: FileName,
    },
    ShareStale {
        group: Option<GroupName>,
        file: FileName,
        reason: String,
    },
    ShareEnded {
        group: GroupName,
        file: FileName,
    },
    /// An announce key was used from too many places.
    KeySuspended {
        id: KeyId,
        group: GroupName,
        file: FileName,
    },
    /// The local state could not be written.
    NotKept {
        what: &'static str,
        reason: String,
    },
    /// A command that went on in the background has ended.
    Background {
        command: String,
        outcome: Box<Outcome>,
    },
}

impl Notice {
    fn text(&self) -> String {
        match self {
            Self::Listening { address } => format!("listening on {address}"),
            Self::LoopbackOnly { address } => {
                format!("warning: {address} is reachable from this machine only, but the tracker is elsewhere")
            }
            Self::KeyTrusted { deployment } => format!("trusting the tracker's key {deployment} from now on"),
            Self::TrackerConnected { tracker } => format!("connected to tracker {tracker}"),
            Self::TrackerLost { tracker } => format!("tracker {tracker} is lost; trying to reach one again"),
            Self::SessionEnded { reason } => format!("you are logged out: {}", Escaped(reason)),
            Self::JoinRequested { group, user } => {
                format!("{user} asks to join {group}: accept_request {group} {user}")
            }
            Self::RequestAccepted { group } => format!("you are a member of {group} now"),
            Self::RemovedFromGroup { group } => format!("you are not a member of {group} any more"),
            Self::DownloadCompleted { group, file, destination, seconds, .. } => {
                let (group, path) = (show_group(group.as_ref()), show_path(destination));
                format!("[C] [{group}] {file}: complete in {seconds:.1} s, {path}")
            }
            Self::DownloadFailed { group, file, reason } => {
                format!("[F] [{}] {file}: {}", show_group(group.as_ref()), Escaped(reason))
            }
            Self::DownloadWaiting { group, file } => {
                format!("[D] [{}] {file}: waiting for a seeder", show_group(group.as_ref()))
            }
            Self::ShareStale { group, file, reason } => {
                format!("[{}] {file} is not shared any more: {}", show_group(group.as_ref()), Escaped(reason))
            }
            Self::KeySuspended { id, group, file } => format!(
                "announce key {} for {file} of {group} was used from too many addresses and is suspended: revoke_key {}",
                id.0, id.0
            ),
            Self::ShareEnded { group, file } => format!("[{group}] {file} is not listed any more"),
            Self::NotKept { what, reason } => format!("warning: cannot keep {what}: {}", Escaped(reason)),
            Self::Background { command, outcome } => match outcome.as_ref() {
                Ok(reply) => reply.text.join("\n"),
                Err(error) => format!("{command}: {}", error_line(error)),
            },
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Listening { address } => json!({"event": "listening", "address": address.to_string()}),
            Self::LoopbackOnly { address } => {
                json!({"event": "warning", "address": address.to_string(), "message": self.text()})
            }
            Self::KeyTrusted { deployment } => json!({"event": "key_trusted", "key": deployment.to_string()}),
            Self::TrackerConnected { tracker } => json!({"event": "tracker_connected", "tracker": tracker}),
            Self::TrackerLost { tracker } => json!({"event": "tracker_lost", "tracker": tracker}),
            Self::SessionEnded { reason } => json!({"event": "session_ended", "reason": reason}),
            Self::JoinRequested { group, user } => {
                json!({"event": "join_requested", "group": group.as_str(), "user": user.as_str()})
            }
            Self::RequestAccepted { group } => json!({"event": "request_accepted", "group": group.as_str()}),
            Self::RemovedFromGroup { group } => json!({"event": "removed_from_group", "group": group.as_str()}),
            Self::DownloadCompleted { group, file, destination, sha1, seconds } => json!({
                "event": "download_completed", "group": group_json(group.as_ref()), "file": file.as_str(),
                "destination": destination.to_string_lossy(), "sha1": sha1.map(|sha1| sha1.to_string()),
                "seconds": seconds,
            }),
            Self::DownloadFailed { group, file, reason } => json!({
                "event": "download_failed", "group": group_json(group.as_ref()), "file": file.as_str(),
                "reason": reason,
            }),
            Self::DownloadWaiting { group, file } => {
                json!({"event": "download_waiting", "group": group_json(group.as_ref()), "file": file.as_str()})
            }
            Self::ShareStale { group, file, reason } => json!({
                "event": "share_stale", "group": group_json(group.as_ref()), "file": file.as_str(), "reason": reason,
            }),
            Self::KeySuspended { id, group, file } => {
                json!({"event": "key_suspended", "id": id.0, "group": group.as_str(), "file": file.as_str()})
            }
            Self::ShareEnded { group, file } => {
                json!({"event": "share_ended", "group": group.as_str(), "file": file.as_str()})
            }
            Self::NotKept { .. } => json!({"event": "warning", "message": self.text()}),
            Self::Background { command, outcome } => outcome_json(command, outcome),
        }
    }
}

/// Prints above an open prompt.
pub(crate) type PromptPrinter = Box<dyn FnMut(String) + Send>;

enum Line {
    Outcome {
        command: String,
        outcome: Box<Outcome>,
        printed: oneshot::Sender<()>,
    },
    Notice(Notice),
    /// A plain line on standard error.
    Remark {
        text: String,
        printed: oneshot::Sender<()>,
    },
}

/// Sends lines to be printed. Clones share the one printer.
#[derive(Clone)]
pub(crate) struct Output {
    lines: mpsc::Sender<Line>,
}

impl Output {
    /// Starts the printer; it ends when the last clone is gone.
    pub(crate) fn start(json: bool, prompt: Option<PromptPrinter>) -> (Self, tokio::task::JoinHandle<()>) {
        let (lines, receiver) = mpsc::channel(QUEUE);
        (Self { lines }, tokio::spawn(print_all(receiver, json, prompt)))
    }

    /// Prints what a command came to, and waits until it is printed.
    pub(crate) async fn outcome(&self, command: &str, outcome: Outcome) {
        let (printed, done) = oneshot::channel();
        let line = Line::Outcome { command: command.to_owned(), outcome: Box::new(outcome), printed };
        if self.lines.send(line).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Prints a notice, unless so many wait already that nobody could read them.
    pub(crate) fn notice(&self, notice: Notice) {
        let _ = self.lines.try_send(Line::Notice(notice));
    }

    /// Prints a line on standard error, and waits until it is printed.
    pub(crate) async fn remark(&self, text: String) {
        let (printed, done) = oneshot::channel();
        if self.lines.send(Line::Remark { text, printed }).await.is_ok() {
            let _ = done.await;
        }
    }
}

async fn print_all(mut lines: mpsc::Receiver<Line>, json: bool, mut prompt: Option<PromptPrinter>) {
    while let Some(line) = lines.recv().await {
        match line {
            Line::Outcome { command, outcome, printed } => {
                match (json, outcome.as_ref()) {
                    (true, outcome) => print_line(&outcome_json(&command, outcome).to_string()),
                    (false, Ok(reply)) => reply.text.iter().for_each(|line| print_line(line)),
                    (false, Err(error)) => eprintln!("{}", error_line(error)),
                }
                let _ = printed.send(());
            }
            Line::Notice(notice) if json => print_line(&notice.json().to_string()),
            Line::Notice(notice) => match &mut prompt {
                Some(print) => print(notice.text() + "\n"),
                None => eprintln!("{}", notice.text()),
            },
            Line::Remark { text, printed } => {
                eprintln!("{text}");
                let _ = printed.send(());
            }
        }
    }
}

/// A closed standard output is no reason to stop sharing.
fn print_line(line: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Prints why the client does not start.
pub(crate) fn print_start_error(error: &StartError) {
    eprintln!("error[{}]: {}", error.code, Escaped(&error.message));
}

/// Prints what `--help`, `--version` or a wrong command line is answered with.
pub(crate) fn print_usage(error: &clap::Error) {
    // A closed stream is no reason for another status.
    let _ = error.print();
}

fn error_line(error: &CommandError) -> String {
    format!("error[{}]: {}", error.code, Escaped(&error.message))
}

fn outcome_json(command: &str, outcome: &Outcome) -> Value {
    let mut object = Map::new();
    object.insert("command".into(), command.into());
    object.insert("ok".into(), outcome.is_ok().into());
    match outcome {
        Ok(reply) => object.extend(reply.fields.clone()),
        Err(error) => {
            object.insert("error".into(), json!({"code": error.code.as_str(), "message": error.message}));
            object.extend(error.fields.clone());
        }
    }
    Value::Object(object)
}

/// A download's group for people: foreign files have none.
pub(crate) fn show_group(group: Option<&GroupName>) -> &str {
    group.map_or("-", GroupName::as_str)
}

/// A download's group in JSON.
pub(crate) fn group_json(group: Option<&GroupName>) -> Value {
    group.map_or(Value::Null, |group| group.as_str().into())
}

/// A path for people: nothing in it steers the terminal.
pub(crate) fn show_path(path: &std::path::Path) -> String {
    Escaped(&path.to_string_lossy()).to_string()
}

/// A length for people.
pub(crate) fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4) as usize;
    match power {
        0 => format!("{bytes} B"),
        // Rounding needs no more digits than a float has.
        _ => format!("{:.1} {}", bytes as f64 / (1u64 << (10 * power)) as f64, UNITS[power]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mini_torrent_common::error_code::ErrorCode;

    #[test]
    fn sizes_are_shown_in_binary_units() {
        for (bytes, shown) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB"), (u64::MAX, "16777216.0 TiB")]
        {
            assert_eq!(show_size(bytes), shown);
        }
    }

    #[test]
    fn a_failed_command_has_its_code_in_both_forms() {
        let error = CommandError::new(ErrorCode::NotAMember, "you are\x1b[2J no member");
        assert_eq!(error_line(&error), "error[not_a_member]: you are\\u{1b}[2J no member");
        let json = outcome_json("list_files", &Err(error));
        assert_eq!(json["ok"], false);
        assert_eq!(json["error"]["code"], "not_a_member");
        assert_eq!(json["command"], "list_files");
    }
}
