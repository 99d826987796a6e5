//! What goes into the store and what comes out of it.

use super::SignIn;
use crate::domain::{Candidate, ListedFile, Quota, Refused, Standing, Target};
use mini_torrent_common::control::{Left, ListingDraft, ListingId};
use mini_torrent_common::hash::{GroupId, OperationId, Sha256Hash};
use mini_torrent_common::names::{GroupName, UserName};
use mini_torrent_common::revocation::Revocation;
use mini_torrent_common::ticket::AccountId;
use mini_torrent_common::tls::{PublicKey, SEED_LENGTH};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The number of an account. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct UserId(pub i64);

impl UserId {
    /// The form in which members know it.
    pub(crate) fn account(self) -> AccountId {
        AccountId(self.0.cast_unsigned())
    }

    /// The number of the account that members know by this.
    pub(crate) fn of(account: AccountId) -> Self {
        Self(account.0.cast_signed())
    }
}

/// The number of a session. Never reused, so it is the generation that a write belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct SessionId(pub i64);

/// Who writes. The write checks in its transaction that the session still is, and is the user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Actor {
    /// The account.
    pub user: UserId,
    /// Its session.
    pub session: SessionId,
    /// The name of what it does, if it gave one.
    pub once: Option<Once>,
}

impl Actor {
    /// An actor that does something without a name.
    pub(crate) fn new(user: UserId, session: SessionId) -> Self {
        Self { user, session, once: None }
    }
}

/// A client's name for one thing that it asks for, and when it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Once {
    /// The name.
    pub id: OperationId,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// Whose name for something it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A signed-in user's.
    User(UserId),
    /// A client's that is not signed in.
    Client(PublicKey),
}

impl Owner {
    /// As it is stored. The lengths differ, so none is another's.
    pub(super) fn bytes(self) -> Vec<u8> {
        match self {
            Self::User(user) => user.0.to_be_bytes().to_vec(),
            Self::Client(key) => key.0.to_vec(),
        }
    }
}

/// What was done under a name. The numbers stand in the store and are never given to anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OperationKind {
    CreateUser = 1,
    CreateGroup = 2,
    RequestToJoin = 3,
    DecideRequest = 4,
    LeaveGroup = 5,
    RemoveMember = 6,
    SetRole = 7,
    TransferOwner = 8,
    ListFile = 9,
    AddShare = 10,
    EndShare = 11,
    RemoveFile = 12,
    SetStockClients = 13,
    CreateKey = 14,
    RevokeKey = 15,
}

/// A rule of the domain that a transaction asks before it writes.
pub(crate) type Rule = Box<dyn Fn(Standing) -> Result<(), Refused> + Send>;
/// The same for what an actor does to another user of the group.
pub(crate) type MemberRule = Box<dyn Fn(Standing, Target) -> Result<(), Refused> + Send>;
/// The same for what an actor does to a file; none is listed under the name for `None`.
pub(crate) type FileRule = Box<dyn Fn(Standing, Option<ListedFile>) -> Result<(), Refused> + Send>;
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
    /// Whether the operator has locked it.
    pub locked: bool,
}

/// An account that a client creates.
pub(crate) struct NewUser {
    /// Its name.
    pub name: UserName,
    /// The PHC string.
    pub password_hash: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The client.
    pub client_key: PublicKey,
    /// The client's name for it.
    pub once: Option<Once>,
}

/// A session that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewSession {
    /// Whose it is.
    pub user: UserId,
    /// SHA-256 of its first token.
    pub token: Sha256Hash,
    /// The only client that may use it.
    pub client_key: PublicKey,
    /// Where the client is.
    pub address: String,
    /// The client's program.
    pub agent: String,
    /// When it begins, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When it ends unless it is used.
    pub expires_ms: u64,
}

/// A session that began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BegunSession {
    /// Its number.
    pub id: SessionId,
    /// Whether the account's earlier tickets were revoked, because another client signed in last.
    pub revoked: bool,
    /// Which of the user's sign-ins it is.
    pub sign_in: SignIn,
}

/// A token that a client shows to take up its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShownToken {
    /// SHA-256 of the token.
    pub token: Sha256Hash,
    /// SHA-256 of the token that follows it.
    pub successor: Sha256Hash,
    /// The client's key.
    pub client_key: PublicKey,
    /// Where the client is.
    pub address: String,
    /// The time, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// When the session ends unless it is used again.
    pub expires_ms: u64,
}

/// What a shown token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resumption {
    /// The session goes on, with the successor as its token and this sign-in.
    Resumed(Actor, UserName, SignIn),
    /// There is no such session, or it has expired.
    Unknown,
    /// The session is another client's; nothing was changed.
    OfAnotherClient(UserName),
    /// The token's successor has been used, so somebody holds a copy: the session was ended.
    UsedUp(Actor, UserName),
}

/// A session that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// Its number.
    pub id: SessionId,
    /// Where its client was when it signed in or resumed last.
    pub address: String,
    /// The client's program.
    pub agent: String,
    /// When it began, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// A key that signs tickets, as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoredTicketKey {
    /// The public half.
    pub key: PublicKey,
    /// The secret.
    pub seed: Zeroizing<[u8; SEED_LENGTH]>,
    /// From when on it signs, in milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// Until when it signs.
    pub use_until_ms: u64,
    /// Until when its tickets may be valid.
    pub until_ms: u64,
    /// The deployment's word for it.
    pub endorsement: Vec<u8>,
}

/// What a ticket says, and whom its holder must refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdmissionFacts {
    /// What the user is to the group.
    pub standing: Standing,
    /// The epoch of its membership; 0 for the built-in group and for who is no member.
    pub member_epoch: u64,
    /// The account's epoch.
    pub account_epoch: u64,
    /// Revocations of the group and of all groups, in the order of their numbers.
    pub revocations: Vec<Revocation>,
}

/// Something of a user who is signed in that the log of revocations names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Revoked {
    /// Its membership of a group, of this epoch and older.
    Membership {
        /// Who.
        user: UserId,
        /// The group.
        group: GroupId,
        /// The last epoch that is over.
        epoch: u64,
    },
    /// Everything that the account had; the session may be gone, too.
    Account(Actor),
}

/// What the store has still of something that was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remaining {
    /// A later membership, or the session.
    Alive,
    /// The membership is over; the group has this name, or is gone.
    NoMembership(Option<GroupName>),
    /// The session is over; this says whether the account is locked.
    NoSession {
        /// Whether it is.
        locked: bool,
    },
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
    /// Whether ordinary clients with a member's key are admitted.
    pub stock_clients: bool,
}

/// A join request that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Requested {
    /// The group's number.
    pub id: GroupId,
    /// The group, as its creator wrote it.
    pub group: GroupName,
    /// Its owner and admins.
    pub deciders: Vec<UserId>,
}

/// A join request that was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Decided {
    /// The group, as its creator wrote it.
    pub group: GroupName,
    /// Who asked.
    pub user: UserId,
}

/// What somebody's leaving brought about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Departure {
    /// The group's number.
    pub group: GroupId,
    /// What to tell.
    pub left: Left,
    /// The number of its revocation in the log; a withdrawn request has none.
    pub revocation: Option<u64>,
    /// The listings that went with their last sharer.
    pub ended: Vec<ListingId>,
}

/// A member who was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removed {
    /// Who, and of which group.
    pub member: Governed,
    /// The listings that went with their last sharer.
    pub ended: Vec<ListingId>,
    /// The number of the revocation in the log.
    pub revocation: u64,
}

/// A member whom something was done to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Governed {
    /// The group's number.
    pub group: GroupId,
    /// The group's name, as its creator wrote it.
    pub group_name: GroupName,
    /// The member.
    pub user: UserId,
}

/// A file to be listed.
pub(crate) struct NewListing {
    /// The group.
    pub group: GroupId,
    /// What the uploader said of it; checked.
    pub draft: ListingDraft,
    /// The raw `info` dictionary.
    pub info: Arc<Vec<u8>>,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// What ending a share brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EndedShare {
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
    /// Whether the user was a member of the group until lately: its revocation is in the log still.
    pub was_member: bool,
}
