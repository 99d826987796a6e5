//! Governing a group: set_group, remove_member, set_role, transfer_owner, remove_file.

use clap::ValueEnum;
use mini_torrent_common::control::{Request, Role};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::names::UserName;
use serde_json::json;

use super::{Context, known_file, known_group};
use crate::error::CommandError;
use crate::output::{Outcome, Reply};

/// The roles that an owner gives and takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GivenRole {
    /// Lets people in, removes members and files
    Admin,
    /// Lists, uploads and downloads
    Member,
}

/// What a group's owner can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GroupSetting {
    /// Admit ordinary BitTorrent clients with a member's key
    StockClients,
}

/// A setting's two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// Yes
    On,
    /// No
    Off,
}

impl Context {
    pub(super) async fn set_group(&self, group: &str, setting: GroupSetting, value: Switch) -> Outcome {
        self.signed_in()?;
        let (group, on) = (known_group(group)?, value == Switch::On);
        let GroupSetting::StockClients = setting;
        self.link.request(Request::SetStockClients { group: group.clone(), on }).await?;
        let text = match on {
            true => vec![
                format!("{group} admits ordinary BitTorrent clients with a member's key now"),
                format!(
                    "what {group} gives up: content and announce keys are readable on the wire, and whoever shares an \
                     admitted address can fetch the files"
                ),
            ],
            false => vec![format!("{group} admits members' clients alone now; ordinary ones are let go of")],
        };
        Ok(Reply::lines(text, json!({ "group": group.as_str(), "stock_clients": on })))
    }

    pub(super) async fn remove_member(&self, group: &str, user: &str) -> Outcome {
        self.signed_in()?;
        let (group, user) = (known_group(group)?, known_user(user)?);
        self.link.request(Request::RemoveMember { group: group.clone(), user: user.clone() }).await?;
        let fields = json!({ "group": group.as_str(), "user": user.as_str(), "role": null });
        Ok(Reply::line(format!("{user} is not a member of {group} any more"), fields))
    }

    pub(super) async fn set_role(&self, group: &str, user: &str, role: GivenRole) -> Outcome {
        self.signed_in()?;
        let (group, user) = (known_group(group)?, known_user(user)?);
        let (role, noun) = match role {
            GivenRole::Admin => (Role::Admin, "an admin"),
            GivenRole::Member => (Role::Member, "a member"),
        };
        self.link.request(Request::SetRole { group: group.clone(), user: user.clone(), role }).await?;
        let fields = json!({ "group": group.as_str(), "user": user.as_str(), "role": role.as_str() });
        Ok(Reply::line(format!("{user} is {noun} of {group} now"), fields))
    }

    pub(super) async fn transfer_owner(&self, group: &str, user: &str) -> Outcome {
        self.signed_in()?;
        let (group, user) = (known_group(group)?, known_user(user)?);
        self.link.request(Request::TransferOwner { group: group.clone(), user: user.clone() }).await?;
        let fields = json!({ "group": group.as_str(), "user": user.as_str(), "role": Role::Owner.as_str() });
        Ok(Reply::line(format!("{user} is the owner of {group} now; you are an admin"), fields))
    }

    pub(super) async fn remove_file(&self, group: &str, file: &str) -> Outcome {
        self.signed_in()?;
        let (group, file) = (known_group(group)?, known_file(file)?);
        // The end of our own share is no news then.
        let own_share = self.node.begin_stop(group.clone(), file.clone()).await?;
        if let Err(error) = self.link.request(Request::RemoveFile { group: group.clone(), file: file.clone() }).await {
            if let Some(listing) = own_share {
                self.node.abort_stop(listing).await?;
            }
            return Err(error);
        }
        if let Some(listing) = own_share {
            self.node.remove_share(listing).await?;
        }
        let fields = json!({ "group": group.as_str(), "file": file.as_str() });
        Ok(Reply::line(format!("removed {file} from {group}; files on disks stay"), fields))
    }
}

/// An account that must exist: what is no name is no account either.
fn known_user(text: &str) -> Result<UserName, CommandError> {
    text.parse().map_err(|_| CommandError::new(ErrorCode::NoSuchUser, format!("there is no user '{text}'")))
}
