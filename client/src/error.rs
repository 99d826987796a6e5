//! Why a command failed: the stable code and one line for a person.

use mini_torrent_common::control::{Refusal, Response};
use mini_torrent_common::error_code::ErrorCode;
use serde_json::{Map, Value};
use std::io;
use std::path::Path;

/// What a failed command answers with.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct CommandError {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    /// Further fields of the JSON form.
    pub(crate) fields: Map<String, Value>,
}

impl CommandError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), fields: Map::new() }
    }

    /// The operating system refused an operation on a path; a full disk has a code of its own.
    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        let code = if is_disk_full(error) { ErrorCode::DiskFull } else { ErrorCode::Io };
        Self::new(code, format!("{}: {error}", path.display()))
    }

    /// The session that wanted this is over.
    pub(crate) fn session_ended() -> Self {
        Self::new(ErrorCode::SessionEnded, "the session that wanted this has ended")
    }

    /// The tracker answered with another kind of answer than the request has.
    pub(crate) fn unexpected(_: Response) -> Self {
        Self::new(ErrorCode::Internal, "the tracker's answer does not fit the request")
    }

    /// A task of ours ended without an answer, which happens only while the client shuts down.
    pub(crate) fn shutting_down() -> Self {
        Self::new(ErrorCode::Internal, "the client is shutting down")
    }
}

impl From<Refusal> for CommandError {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.message)
    }
}

/// Whether an error means that there is no room.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
