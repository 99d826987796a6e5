//! What members may do to each other, and to the files of others.

use super::{Operation, Refused, Standing, permit};
use mini_torrent_common::control::Role;

/// The user whom an actor wants to do something to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Nobody has this name.
    NoAccount,
    /// The actor itself.
    Actor,
    /// Somebody else, with what it is to the group.
    Other(Option<Role>),
}

/// What an actor wants to do to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberOperation {
    /// End the membership.
    Remove,
    /// Give it this role.
    SetRole(Role),
    /// Make it the owner.
    MakeOwner,
}

/// Whether an actor may do this to a user. Who may not do it to anybody does not learn who is a member.
///
/// # Errors
/// The refusal to answer with.
pub(crate) fn permit_on_member(operation: MemberOperation, actor: Standing, target: Target) -> Result<(), Refused> {
    let is_member = actor.role >= Some(Role::Member);
    let wanted = match operation {
        MemberOperation::Remove if is_member && !actor.built_in && target == Target::Actor => {
            return Err(Refused::Usage("to leave a group yourself, use leave_group"));
        }
        MemberOperation::Remove => Operation::RemoveMembers,
        MemberOperation::SetRole(_) => Operation::SetRoles,
        MemberOperation::MakeOwner => Operation::TransferOwner,
    };
    permit(wanted, actor)?;
    let role = match target {
        Target::NoAccount => return Err(Refused::NoSuchUser),
        Target::Actor => actor.role,
        Target::Other(role) => role,
    };
    let role = role.filter(|role| *role >= Role::Member).ok_or(Refused::TargetNotAMember)?;
    match operation {
        MemberOperation::Remove if Some(role) >= actor.role => Err(Refused::OwnerOnly),
        MemberOperation::SetRole(new) if !matches!(new, Role::Admin | Role::Member) => {
            Err(Refused::Usage("a role is admin or member; ownership is given away by transfer_owner"))
        }
        MemberOperation::SetRole(_) if role == Role::Owner => {
            Err(Refused::Usage("the owner's role changes by transfer_owner"))
        }
        MemberOperation::MakeOwner if role == Role::Owner => Err(Refused::Usage("this user is the owner already")),
        _ => Ok(()),
    }
}

/// A listed file as an actor finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListedFile {
    /// Whether the actor listed it first.
    pub is_uploader: bool,
    /// Whether anybody but the actor shares it.
    pub has_other_sharers: bool,
}

/// Whether an actor may end a listing for everybody. Nobody governs the built-in group, so there only the
/// uploader may, and no longer when others have taken the file up.
///
/// # Errors
/// The refusal to answer with; `no_such_file` for a name that stands for none.
pub(crate) fn permit_file_removal(actor: Standing, file: Option<ListedFile>) -> Result<(), Refused> {
    permit(Operation::RemoveFiles, actor)?;
    let file = file.ok_or(Refused::NoSuchFile)?;
    let governs = !actor.built_in && actor.role >= Some(Role::Admin);
    match governs || (file.is_uploader && !file.has_other_sharers) {
        true => Ok(()),
        false => Err(Refused::FileOfOthers),
    }
}
