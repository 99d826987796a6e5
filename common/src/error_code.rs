//! The stable names of errors that users and scripts see (`error[code]`), shared by both sides.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Defines the codes once, with their texts on the wire and on the screen.
macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident => $text:literal,)*) => {
        /// Why a command failed. The order is frozen: it is the number on the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the wire.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable text.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

error_codes! {
    /// The command is unknown or its arguments do not fit.
    Usage => "usage",
    /// The command needs a session.
    NotLoggedIn => "not_logged_in",
    /// There is a session already, here or elsewhere.
    AlreadyLoggedIn => "already_logged_in",
    /// Unknown user or wrong password; which of the two is not said.
    WrongCredentials => "wrong_credentials",
    /// Too many tries; the text says how long to wait.
    RateLimited => "rate_limited",
    /// The user name is taken.
    UserExists => "user_exists",
    /// There is no such user.
    NoSuchUser => "no_such_user",
    /// The password is too short.
    WeakPassword => "weak_password",
    /// A name breaks the rules for names.
    InvalidName => "invalid_name",
    /// The group name is taken.
    GroupExists => "group_exists",
    /// There is no such group.
    NoSuchGroup => "no_such_group",
    /// Only members may do this.
    NotAMember => "not_a_member",
    /// Only the owner or an admin may do this.
    NotTheOwner => "not_the_owner",
    /// The user is a member already.
    AlreadyMember => "already_member",
    /// A join request is pending already.
    AlreadyRequested => "already_requested",
    /// Nobody of that name asked to join.
    NoSuchRequest => "no_such_request",
    /// The group lists no such file.
    NoSuchFile => "no_such_file",
    /// The group lists another content under this name.
    NameConflict => "name_conflict",
    /// The user does not share this file.
    NotSharing => "not_sharing",
    /// This download is running already.
    AlreadyDownloading => "already_downloading",
    /// There is no such download.
    NoSuchDownload => "no_such_download",
    /// The destination holds another content.
    DestinationExists => "destination_exists",
    /// A download failed for good.
    DownloadFailed => "download_failed",
    /// The time given ran out.
    TimedOut => "timed_out",
    /// The finished file does not match its hashes.
    VerificationFailed => "verification_failed",
    /// The path names a directory, a device or the like.
    NotARegularFile => "not_a_regular_file",
    /// The file was changed while it was being read, or since it was shared.
    FileChanged => "file_changed",
    /// There is no room left.
    DiskFull => "disk_full",
    /// The operating system refused; the text has its reason.
    Io => "io",
    /// A metainfo file is malformed or not supported.
    InvalidMetainfo => "invalid_metainfo",
    /// No tracker answers.
    TrackerUnreachable => "tracker_unreachable",
    /// The tracker has another key than the pinned one.
    TrackerKeyChanged => "tracker_key_changed",
    /// The session was ended by the tracker or from elsewhere.
    SessionEnded => "session_ended",
    /// The tracker cannot reach its store.
    StoreUnavailable => "store_unavailable",
    /// A limit per user is reached.
    QuotaExceeded => "quota_exceeded",
    /// The tracker creates no accounts for strangers.
    RegistrationClosed => "registration_closed",
    /// There is no such announce key.
    NoSuchKey => "no_such_key",
    /// The group admits no stock clients.
    StockClientsOff => "stock_clients_off",
    /// The two sides share no protocol version.
    IncompatibleVersion => "incompatible_version",
    /// The listening address is taken.
    AddressInUse => "address_in_use",
    /// Another client uses this data directory.
    DataDirInUse => "data_dir_in_use",
    /// A defect on our side.
    Internal => "internal",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_distinct_and_snake_case() {
        let mut texts: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert!(texts.iter().all(|text| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), ErrorCode::ALL.len());
    }
}
