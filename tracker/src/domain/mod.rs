//! The rules of membership and sharing, as pure functions. Nothing here reads a clock, a store or a socket.

mod governing;
mod refused;

pub(crate) use governing::{ListedFile, MemberOperation, Target, permit_file_removal, permit_on_member};
pub(crate) use refused::Refused;

use crate::limits;
use mini_torrent_common::control::{ListingDraft, Role};
use mini_torrent_common::geometry::PIECE_LENGTH;
use mini_torrent_common::hash::{GroupId, InfoHash};
use mini_torrent_common::metainfo::Info;
use mini_torrent_common::secret::{MAX_PASSWORD_LENGTH, MIN_PASSWORD_CHARS, Password};

/// What a user may want of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// See the group's id and the own role.
    Describe,
    /// See its files, their metadata and their peers.
    ReadFiles,
    /// List and share files, and say what one has.
    ShareFiles,
    /// Get a ticket for it.
    Enter,
    /// See who asked to join, and decide on it.
    DecideRequests,
    /// Remove some member; which ones is [`permit_on_member`]'s.
    RemoveMembers,
    /// Make members admins, and admins members.
    SetRoles,
    /// Give the group to somebody else.
    TransferOwner,
    /// Admit ordinary clients, or turn them away.
    SetStockClients,
    /// Remove some file; which ones is [`permit_file_removal`]'s.
    RemoveFiles,
    /// Ask to join.
    Join,
    /// Leave, or withdraw the own request.
    Leave,
}

/// What a user is to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Nothing, pending, or a member of some rank.
    pub role: Option<Role>,
    /// Whether the group is the built-in one, where every account is a member.
    pub built_in: bool,
}

/// Whether a user may do this.
///
/// # Errors
/// The refusal to answer with.
pub(crate) fn permit(operation: Operation, standing: Standing) -> Result<(), Refused> {
    let is_member = standing.role.is_some_and(|role| role >= Role::Member);
    match operation {
        Operation::Join => match standing.role {
            Some(Role::Pending) => Err(Refused::AlreadyRequested),
            Some(_) => Err(Refused::AlreadyMember),
            None => Ok(()),
        },
        Operation::Leave if standing.built_in => Err(Refused::BuiltInGroup),
        Operation::Leave if standing.role.is_some() => Ok(()),
        _ if !is_member => Err(Refused::NotAMember),
        Operation::DecideRequests | Operation::RemoveMembers if standing.role < Some(Role::Admin) => {
            Err(Refused::NotTheOwner)
        }
        Operation::SetRoles | Operation::TransferOwner | Operation::SetStockClients
            if standing.role < Some(Role::Owner) =>
        {
            Err(Refused::OwnerOnly)
        }
        _ => Ok(()),
    }
}

/// The same for a listing that is named by its number alone. Numbers can be guessed, so to a stranger there is no
/// such file; who was a member until lately is told that it is none any more.
///
/// # Errors
/// The refusal to answer with.
pub(crate) fn permit_by_number(operation: Operation, standing: Standing, was_member: bool) -> Result<(), Refused> {
    permit(operation, standing).map_err(|refused| match refused {
        Refused::NotAMember if !was_member => Refused::NoSuchFile,
        refused => refused,
    })
}

/// A member as the succession sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate<U> {
    /// The user.
    pub user: U,
    /// Admin or member.
    pub role: Role,
    /// Grows with each membership of the group: the least one stands longest.
    pub epoch: u64,
}

/// Who owns a group when its owner leaves: the longest-standing admin, else the longest-standing member.
pub(crate) fn successor<U: Copy>(others: &[Candidate<U>]) -> Option<U> {
    let rank = |candidate: &&Candidate<U>| (std::cmp::Reverse(candidate.role), candidate.epoch);
    others.iter().filter(|candidate| candidate.role >= Role::Member).min_by_key(rank).map(|candidate| candidate.user)
}

/// Whether a password is strong enough.
///
/// # Errors
/// The refusal to answer with.
pub(crate) fn check_password(password: &Password) -> Result<(), Refused> {
    let text = password.expose();
    match text.chars().count() < MIN_PASSWORD_CHARS || text.len() > MAX_PASSWORD_LENGTH {
        true => Err(Refused::WeakPassword),
        false => Ok(()),
    }
}

/// Whether two files of one name are the same content.
///
/// # Errors
/// [`Refused::NameConflict`], naming the existing one.
pub(crate) fn check_same_content(existing: &ListingDraft, offered: &ListingDraft) -> Result<(), Refused> {
    let same = |draft: &ListingDraft| (draft.size, draft.sha1, draft.sha256);
    if same(existing) == same(offered) {
        return Ok(());
    }
    let mut digest = existing.sha256.to_string();
    digest.truncate(8);
    Err(Refused::NameConflict { size: existing.size, digest })
}

/// Whether an `info` dictionary is the one that the draft promised, for this group. `None` is the built-in
/// group, whose files ordinary clients may fetch.
///
/// # Errors
/// [`Refused::InvalidInfo`] with what does not fit.
pub(crate) fn check_info(
    info: &Info,
    hash: InfoHash,
    draft: &ListingDraft,
    group: Option<GroupId>,
) -> Result<(), Refused> {
    let problem = if hash != draft.info_hash {
        "its SHA-1 is not the info-hash"
    } else if info.name != draft.name {
        "it has another name"
    } else if info.geometry.length() != draft.size {
        "it has another length"
    } else if info.geometry.piece_length() != PIECE_LENGTH {
        "its piece length is not 512 KiB"
    } else if info.group != group {
        "it names another group"
    } else if info.private != group.is_some() {
        "its private flag does not suit the group"
    } else {
        return Ok(());
    };
    Err(Refused::InvalidInfo(problem.into()))
}

/// Something that a user has only so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quota {
    /// Groups owned.
    Groups,
    /// Join requests pending.
    Requests,
    /// Listings uploaded.
    Listings,
    /// Bytes of `info` dictionaries uploaded.
    MetadataBytes,
    /// Shares.
    Shares,
    /// Announce keys.
    Keys,
}

/// Whether a user who would then have `n` of something may have so many.
///
/// # Errors
/// [`Refused::QuotaExceeded`].
pub(crate) fn check_quota(quota: Quota, n: u64) -> Result<(), Refused> {
    let (limit, what) = match quota {
        Quota::Groups => (limits::MAX_GROUPS_OWNED, "groups owned"),
        Quota::Requests => (limits::MAX_PENDING_REQUESTS, "pending join requests"),
        Quota::Listings => (limits::MAX_LISTINGS, "files listed"),
        Quota::MetadataBytes => (limits::MAX_METADATA_BYTES, "bytes of metadata"),
        Quota::Shares => (limits::MAX_LISTINGS, "files shared"),
        Quota::Keys => (limits::MAX_KEYS, "announce keys"),
    };
    if n > limit { Err(Refused::QuotaExceeded { what, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
