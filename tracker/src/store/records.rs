//! What goes into the store and what comes out of it.

use crate::domain::{Candidate, Quota, Refused, Standing};
use mini_torrent_common::control::{Left, ListingDraft, ListingId};
use mini_torrent_common::hash::{GroupId, Sha256Hash};
use mini_torrent_common::names::{GroupName, UserName};
use mini_torrent_common::tls::PublicKey;
use std::sync::Arc;

/// The number of an account. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UserId(pub i64);

/// A rule of the domain that a transaction asks before it writes.
pub(crate) type Rule = Box<dyn Fn(Standing) -> Result<(), Refused> + Send>;
/// How much of something a user may have.
pub(crate) type QuotaRule = fn(Quota, u64) -> Result<(), Refused>;
/// Who follows an owner that leaves.
pub(crate) type Succession = fn(&[Candidate<UserId>]) -> Option<UserId>;

/// Why the store did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// What the call names is not there.
    #[error("not found")]
    NotFound,
    /// Something of this name is there already.
    #[error("conflict")]
    Conflict,
    /// The store cannot be read or written; the log says why.
    #[error("the store is unavailable")]
    Unavailable,
    /// The caller's own rule said no; nothing was written.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// An account.
#[derive(Clone)]
pub(crate) struct Account {
    /// Its number.
    pub id: UserId,
    /// Its name as its creator wrote it.
    pub name: UserName,
    /// The PHC string.
    pub password_hash: String,
}

/// A session as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// SHA-256 of the token.
    pub digest: Sha256Hash,
    /// Whose it is.
    pub user: UserId,
    /// The only client that may use it.
    pub client_key: PublicKey,
    /// Where the client was.
    pub address: String,
    /// The client's program.
    pub agent: String,
    /// When it began, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When it ends unless it is used.
    pub expires_ms: u64,
}

/// A group and what a user is to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupStanding {
    /// The group's number.
    pub id: GroupId,
    /// Its name.
    pub name: GroupName,
    /// What the user is to it.
    pub standing: Standing,
}

/// A join request that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requested {
    /// The group, as its creator wrote it.
    pub group: GroupName,
    /// Its owner and admins.
    pub deciders: Vec<UserId>,
}

/// A join request that was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decided {
    /// The group, as its creator wrote it.
    pub group: GroupName,
    /// Who asked.
    pub user: UserId,
}

/// What somebody's leaving brought about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Departure {
    /// The group's number.
    pub group: GroupId,
    /// What to tell.
    pub left: Left,
    /// The listings that went with their last sharer.
    pub ended: Vec<ListingId>,
}

/// A file to be listed.
pub(crate) struct NewListing {
    /// The group.
    pub group: GroupId,
    /// What the uploader said of it; checked.
    pub draft: ListingDraft,
    /// The raw `info` dictionary.
    pub info: Arc<Vec<u8>>,
    /// Who lists it, and shares it first.
    pub uploader: UserId,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// What ending a share brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndedShare {
    /// The user did not share it.
    WasNone,
    /// Others share it still.
    Ended,
    /// It was the last share; the listing is gone.
    ListingEnded,
}

/// What a user is to one listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SharingFacts {
    /// The listing.
    pub listing: ListingId,
    /// Its group.
    pub group: GroupId,
    /// What the user is to the group.
    pub standing: Standing,
    /// Whether the user is a lasting sharer.
    pub shares: bool,
}
