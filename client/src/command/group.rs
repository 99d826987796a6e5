//! Groups: creating, joining, leaving, deciding on requests, listing.

use mini_torrent_common::control::{GroupRow, JoinRequest, Left, Listing, PAGE_ROWS, Request, Response};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::names::{FileName, GroupName};
use serde_json::json;

use super::{Context, group_name, known_group};
use crate::error::CommandError;
use crate::output::{Outcome, Reply, show_size};

impl Context {
    pub(super) async fn create_group(&self, group: &str) -> Outcome {
        self.signed_in()?;
        let group = group_name(group)?;
        self.link.request(Request::CreateGroup { group: group.clone() }).await?;
        Ok(Reply::line(format!("group {group} created"), json!({ "group": group.as_str() })))
    }

    pub(super) async fn join_group(&self, group: &str) -> Outcome {
        self.signed_in()?;
        let group = known_group(group)?;
        self.link.request(Request::JoinGroup { group: group.clone() }).await?;
        let text = format!("join request sent to the owner of {group}");
        Ok(Reply::line(text, json!({ "group": group.as_str() })))
    }

    pub(super) async fn leave_group(&self, group: &str) -> Outcome {
        self.signed_in()?;
        let group = known_group(group)?;
        let left = match self.link.request(Request::LeaveGroup { group: group.clone() }).await? {
            Response::Left(left) => left,
            other => return Err(CommandError::unexpected(other)),
        };
        if left != Left::RequestWithdrawn {
            self.node.leave_group(group.clone()).await?;
        }
        let name = group.as_str();
        Ok(match left {
            Left::RequestWithdrawn => {
                Reply::line(format!("request to join {group} withdrawn"), json!({ "group": name }))
            }
            Left::Member => Reply::line(format!("left {group}"), json!({ "group": name })),
            Left::OwnerIsNow(user) => {
                let text = format!("left {group}; {user} is the owner now");
                Reply::line(text, json!({ "group": name, "owner": user.as_str() }))
            }
            Left::GroupRemoved => {
                let text = format!("left {group}; it had no other member and is gone");
                Reply::line(text, json!({ "group": name, "removed": true }))
            }
        })
    }

    pub(super) async fn list_requests(&self, group: &str) -> Outcome {
        self.signed_in()?;
        let group = known_group(group)?;
        let requests = self.fetch_requests(&group).await?;
        let text = match requests.is_empty() {
            true => vec!["no pending requests".to_owned()],
            false => requests.iter().map(|request| request.user.to_string()).collect(),
        };
        let rows = requests.iter().map(|r| json!({ "user": r.user.as_str(), "at": rfc3339(r.at_ms) }));
        Ok(Reply::lines(text, json!({ "group": group.as_str(), "requests": rows.collect::<Vec<_>>() })))
    }

    async fn fetch_requests(&self, group: &GroupName) -> Result<Vec<JoinRequest>, CommandError> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            match self.link.request(Request::ListRequests { group: group.clone(), after }).await? {
                Response::JoinRequests { requests, next } => {
                    all.extend(requests);
                    after = next;
                }
                other => return Err(CommandError::unexpected(other)),
            }
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    pub(super) async fn accept_request(&self, group: &str, user: &str) -> Outcome {
        self.signed_in()?;
        let (group, user) = (known_group(group)?, known_requester(user)?);
        self.link.request(Request::AcceptRequest { group: group.clone(), user: user.clone() }).await?;
        let text = format!("{user} is a member of {group} now");
        Ok(Reply::line(text, json!({ "group": group.as_str(), "user": user.as_str() })))
    }

    pub(super) async fn reject_request(&self, group: &str, user: &str) -> Outcome {
        self.signed_in()?;
        let (group, user) = (known_group(group)?, known_requester(user)?);
        self.link.request(Request::RejectRequest { group: group.clone(), user: user.clone() }).await?;
        let text = format!("request of {user} rejected");
        Ok(Reply::line(text, json!({ "group": group.as_str(), "user": user.as_str() })))
    }

    pub(super) async fn list_groups(&self, verbose: bool) -> Outcome {
        self.signed_in()?;
        let groups = self.fetch_groups().await?;
        let text = match (groups.is_empty(), verbose) {
            (true, _) => vec!["no groups".to_owned()],
            (false, false) => groups.iter().map(|group| group.name.to_string()).collect(),
            (false, true) => table(&["GROUP", "OWNER", "MEMBERS", "YOU ARE"], groups.iter().map(group_cells)),
        };
        let rows = groups.iter().map(|group| {
            json!({
                "name": group.name.as_str(), "owner": group.owner.as_ref().map(|owner| owner.as_str()),
                "members": group.n_members, "role": group.role.map(|role| role.as_str()),
            })
        });
        Ok(Reply::lines(text, json!({ "groups": rows.collect::<Vec<_>>() })))
    }

    /// Everybody's groups, sorted.
    pub(crate) async fn fetch_groups(&self) -> Result<Vec<GroupRow>, CommandError> {
        let mut all: Vec<GroupRow> = Vec::new();
        loop {
            let after = all.last().map(|group| group.name.clone());
            let page = match self.link.request(Request::ListGroups { after }).await? {
                Response::Groups(page) => page,
                other => return Err(CommandError::unexpected(other)),
            };
            let is_last = page.len() < PAGE_ROWS;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    pub(super) async fn list_files(&self, group: &str, verbose: bool) -> Outcome {
        self.signed_in()?;
        let group = known_group(group)?;
        let files = self.fetch_files(&group).await?;
        let text = match (files.is_empty(), verbose) {
            (true, _) => vec!["no files".to_owned()],
            (false, false) => files.iter().map(|file| file.draft.name.to_string()).collect(),
            (false, true) => table(&["FILE", "SIZE", "SEEDERS", "LEECHERS", "UPLOADER"], files.iter().map(file_cells)),
        };
        let rows = files.iter().map(|file| {
            json!({
                "name": file.draft.name.as_str(), "size": file.draft.size, "sha1": file.draft.sha1.to_string(),
                "sha256": file.draft.sha256.to_string(), "info_hash": file.draft.info_hash.to_string(),
                "uploader": file.uploader.as_str(), "seeders": file.n_seeders, "leechers": file.n_leechers,
            })
        });
        Ok(Reply::lines(text, json!({ "group": group.as_str(), "files": rows.collect::<Vec<_>>() })))
    }

    /// A group's files, sorted.
    pub(crate) async fn fetch_files(&self, group: &GroupName) -> Result<Vec<Listing>, CommandError> {
        let mut all: Vec<Listing> = Vec::new();
        loop {
            let after: Option<FileName> = all.last().map(|file| file.draft.name.clone());
            let page = match self.link.request(Request::ListFiles { group: group.clone(), after }).await? {
                Response::Files(page) => page,
                other => return Err(CommandError::unexpected(other)),
            };
            let is_last = page.len() < PAGE_ROWS;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }
}

/// Who asked to join: what is no name has not asked.
fn known_requester(user: &str) -> Result<mini_torrent_common::names::UserName, CommandError> {
    user.parse().map_err(|_| CommandError::new(ErrorCode::NoSuchRequest, format!("'{user}' did not ask to join")))
}

fn group_cells(group: &GroupRow) -> Vec<String> {
    let owner = group.owner.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let role = group.role.map_or("-", |role| role.as_str());
    vec![group.name.to_string(), owner, group.n_members.to_string(), role.to_owned()]
}

fn file_cells(file: &Listing) -> Vec<String> {
    let (n_seeders, n_leechers) = (file.n_seeders.to_string(), file.n_leechers.to_string());
    vec![file.draft.name.to_string(), show_size(file.draft.size), n_seeders, n_leechers, file.uploader.to_string()]
}

/// Columns as wide as their longest cell.
pub(super) fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let mut lines = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows);
    let width = |column: usize| {
        lines.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let show = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(show).collect()
}

/// A time as RFC 3339 in UTC, by the civil-from-days algorithm for the proleptic Gregorian calendar.
pub(super) fn rfc3339(unix_ms: u64) -> String {
    let (days, seconds) = (unix_ms / 86_400_000, unix_ms / 1000 % 86_400);
    let shifted = days + 719_468;
    let era_day = shifted % 146_097;
    let era_year = (era_day - era_day / 1460 + era_day / 36_524 - era_day / 146_096) / 365;
    let year_day = era_day - (365 * era_year + era_year / 4 - era_year / 100);
    let shifted_month = (5 * year_day + 2) / 153;
    let day = year_day - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = shifted / 146_097 * 400 + era_year + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", unix_ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_827_696_789), "2000-02-29T12:34:56.789Z");
        assert_eq!(rfc3339(1_795_305_599_999), "2026-11-21T23:59:59.999Z");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1 B".to_owned()], vec!["longer".to_owned(), "2".to_owned()]];
        assert_eq!(table(&["FILE", "SIZE"], rows.into_iter()), ["FILE    SIZE", "a       1 B", "longer  2"]);
    }
}
