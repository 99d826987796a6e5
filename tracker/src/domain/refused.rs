//! The closed list of refusals, with their codes and texts.

use mini_torrent_common::control::Refusal;
use mini_torrent_common::error_code::ErrorCode;
use std::time::Duration;

/// Why the tracker does not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The connection has no session.
    #[error("log in first")]
    NotLoggedIn,
    /// The connection has a session.
    #[error("this client is logged in already; log out first")]
    AlreadyLoggedIn,
    /// The user has a session elsewhere.
    #[error(
        "this user is logged in from {address}, for {}; login with --takeover ends that session, a dead one frees \
         itself in 30 s", spoken(*age)
    )]
    LoggedInElsewhere {
        /// Where the other client is.
        address: String,
        /// How long it has been signed in.
        age: Duration,
    },
    /// Unknown user or wrong password; which of the two is not said.
    #[error("unknown user or wrong password")]
    WrongCredentials,
    /// The password was right, but the operator has locked the account.
    #[error("this account is locked; ask the operator of the tracker")]
    AccountLocked,
    /// Too many failures.
    #[error("too many failed logins; try again in {} s", seconds(*wait))]
    TooManyFailures {
        /// How long to wait.
        wait: Duration,
    },
    /// Too many new accounts from one address.
    #[error("too many new accounts from this address; try again in {} s", seconds(*wait))]
    TooManyAccounts {
        /// How long to wait.
        wait: Duration,
    },
    /// Too many passwords at once.
    #[error("too many logins or new accounts at once; try again in {} s", seconds(*wait))]
    Busy {
        /// How long to wait.
        wait: Duration,
    },
    /// The user name is taken.
    #[error("this user name is taken")]
    UserExists,
    /// There is no such user.
    #[error("there is no such user")]
    NoSuchUser,
    /// No accounts for strangers.
    #[error("this tracker's operator creates the accounts; ask there")]
    RegistrationClosed,
    /// Too short, or far too long.
    #[error("a password needs 8 characters or more, and 1024 bytes at most")]
    WeakPassword,
    /// The token is unknown, expired, or another client's.
    #[error("the session has ended; log in again")]
    SessionEnded,
    /// The group name is taken.
    #[error("this group name is taken")]
    GroupExists,
    /// `public` cannot be created, left or owned.
    #[error("'public' is built in: every account is a member of it, it cannot be created, left or owned")]
    BuiltInGroup,
    /// There is no such group.
    #[error("there is no such group")]
    NoSuchGroup,
    /// Only members may do this.
    #[error("only members of the group may do this")]
    NotAMember,
    /// Only the owner or an admin may do this.
    #[error("only the owner or an admin of the group may do this")]
    NotTheOwner,
    /// Only the owner may do this.
    #[error("only the owner of the group may do this")]
    OwnerOnly,
    /// Others than the caller share the file, or somebody else uploaded it.
    #[error("only the owner or an admin of the group may do this, or the uploader while nobody else shares the file")]
    FileOfOthers,
    /// The user whom the request names is no member.
    #[error("the user is no member of this group")]
    TargetNotAMember,
    /// The user is a member already.
    #[error("already a member of this group")]
    AlreadyMember,
    /// A join request is pending already.
    #[error("a join request is pending already")]
    AlreadyRequested,
    /// Nobody of that name asked to join.
    #[error("this user has not asked to join the group")]
    NoSuchRequest,
    /// The group lists no such file.
    #[error("the group lists no such file")]
    NoSuchFile,
    /// The group lists another content under this name.
    #[error(
        "the group lists another file of this name: {size} bytes, SHA-256 {digest}…; choose another name with --as"
    )]
    NameConflict {
        /// Length of the existing file in bytes.
        size: u64,
        /// The first 8 hexadecimal digits of its SHA-256.
        digest: String,
    },
    /// The user does not share this file.
    #[error("this user does not share the file")]
    NotSharing,
    /// The user has no announce key of this number.
    #[error("you have no announce key of this number")]
    NoSuchKey,
    /// The group's owner does not admit ordinary clients.
    #[error("the owner of the group does not admit ordinary BitTorrent clients; see set_group")]
    StockClientsOff,
    /// An `info` dictionary that does not fit.
    #[error("the info dictionary is not acceptable: {0}")]
    InvalidInfo(String),
    /// A limit per user.
    #[error("the limit of {limit} {what} per user is reached")]
    QuotaExceeded {
        /// What there would be too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The tracker has too much of this in progress for everybody.
    #[error("too many uploads of metadata are in progress; try again later")]
    UploadsBusy,
    /// A request that a correct client does not send.
    #[error("{0}")]
    Usage(&'static str),
    /// The store cannot be reached.
    #[error("the tracker cannot reach its store")]
    StoreUnavailable,
    /// A defect on our side.
    #[error("the tracker failed at this; its log says more")]
    Internal,
}

impl Refused {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotLoggedIn => ErrorCode::NotLoggedIn,
            Self::AlreadyLoggedIn | Self::LoggedInElsewhere { .. } => ErrorCode::AlreadyLoggedIn,
            Self::WrongCredentials | Self::AccountLocked => ErrorCode::WrongCredentials,
            Self::TooManyFailures { .. } | Self::TooManyAccounts { .. } | Self::Busy { .. } | Self::UploadsBusy => {
                ErrorCode::RateLimited
            }
            Self::UserExists => ErrorCode::UserExists,
            Self::NoSuchUser => ErrorCode::NoSuchUser,
            Self::RegistrationClosed => ErrorCode::RegistrationClosed,
            Self::WeakPassword => ErrorCode::WeakPassword,
            Self::SessionEnded => ErrorCode::SessionEnded,
            Self::GroupExists => ErrorCode::GroupExists,
            Self::BuiltInGroup => ErrorCode::InvalidName,
            Self::NoSuchGroup => ErrorCode::NoSuchGroup,
            Self::NotAMember | Self::TargetNotAMember => ErrorCode::NotAMember,
            Self::NotTheOwner | Self::OwnerOnly | Self::FileOfOthers => ErrorCode::NotTheOwner,
            Self::AlreadyMember => ErrorCode::AlreadyMember,
            Self::AlreadyRequested => ErrorCode::AlreadyRequested,
            Self::NoSuchRequest => ErrorCode::NoSuchRequest,
            Self::NoSuchFile => ErrorCode::NoSuchFile,
            Self::NameConflict { .. } => ErrorCode::NameConflict,
            Self::NotSharing => ErrorCode::NotSharing,
            Self::NoSuchKey => ErrorCode::NoSuchKey,
            Self::StockClientsOff => ErrorCode::StockClientsOff,
            Self::InvalidInfo(_) => ErrorCode::InvalidMetainfo,
            Self::QuotaExceeded { .. } => ErrorCode::QuotaExceeded,
            Self::Usage(_) => ErrorCode::Usage,
            Self::StoreUnavailable => ErrorCode::StoreUnavailable,
            Self::Internal => ErrorCode::Internal,
        }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self::new(refused.code(), refused.to_string())
    }
}

/// Whole seconds, rounded up, so that nobody returns too early.
fn seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

/// An age as people say it.
fn spoken(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
