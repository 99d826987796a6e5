//! The groups that the signed-in user takes part in: entering them, keeping their tickets fresh, leaving them.

use mini_torrent_common::control::{Admission, PAGE_ROWS, RefusedAnnouncement};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::names::GroupName;
use std::time::Instant;

use super::announcer::Announce;
use super::is_running;
use super::owner::Owner;
use crate::error::CommandError;
use crate::output::Notice;
use crate::state::SharedFile;

impl Owner {
    /// Takes part in a group from now on. What is announced afterwards is announced with a ticket in hand.
    pub(super) fn enter(&mut self, group: GroupId) {
        if !self.groups.contains_key(&group) {
            self.ask_to_enter(group);
        }
    }

    /// Asks for the tickets of all groups anew, and for what was revoked meanwhile.
    pub(super) fn enter_all(&mut self) {
        let groups: Vec<_> = self.groups.keys().copied().collect();
        groups.into_iter().for_each(|group| self.ask_to_enter(group));
    }

    /// Renews tickets in time, and tries again where entering has failed.
    pub(super) fn renew_tickets(&mut self) {
        let due = {
            let admissions = self.plan.admissions.borrow();
            let mut due = admissions.due(Instant::now());
            due.extend(self.groups.keys().filter(|group| !admissions.has_entered(**group)));
            due
        };
        for group in due {
            if self.groups.get(&group) == Some(&Asking(false)) {
                self.ask_to_enter(group);
            }
        }
    }

    fn ask_to_enter(&mut self, group: GroupId) {
        let after = self.plan.admissions.borrow().last_number(group);
        let asking = self.try_announce(Announce::Enter { group, after });
        self.groups.insert(group, Asking(asking));
    }

    /// A page of what entering brought, or why it did not come about.
    pub(super) fn admitted(&mut self, group: GroupId, admission: Result<Admission, CommandError>) {
        if !self.groups.contains_key(&group) {
            return;
        }
        let is_last = !admission.as_ref().is_ok_and(|page| page.revocations.len() >= PAGE_ROWS);
        self.groups.insert(group, Asking(!is_last));
        match admission {
            Ok(Admission { ticket, revocations }) => {
                let mut entered = Ok(());
                self.plan.admissions.send_modify(|admissions| {
                    entered = admissions.enter(group, ticket, &revocations, is_last, Instant::now());
                });
                if let Err(error) = entered {
                    tracing::warn!(%group, %error, "the tracker's own ticket is not good");
                }
            }
            Err(error) if matches!(error.code, ErrorCode::NotAMember | ErrorCode::NoSuchGroup) => {
                // It ended while this client was away.
                if let Some(group) = self.files_of(group).next().map(|file| file.group.clone()) {
                    self.output.notice(Notice::RemovedFromGroup { group });
                }
                self.membership_ended(group);
            }
            Err(error) => tracing::debug!(%group, %error, "a group cannot be entered just now"),
        }
    }

    /// Ends all shares and downloads in a group that the user has left.
    pub(super) fn left_group(&mut self, group: &GroupName) {
        let files = self.shares.values().map(|entry| &entry.share.file);
        let mut files = files.chain(self.downloads.values().map(|download| &download.file));
        // Without a file of it there is nothing to end.
        if let Some(group) = files.find(|file| file.group.key() == group.key()).map(|file| file.group_id) {
            self.membership_ended(group);
        }
    }

    /// The files that this client shares or has fetched in a group.
    fn files_of(&self, group: GroupId) -> impl Iterator<Item = &SharedFile> {
        let shared = self.shares.values().map(|entry| &entry.share.file);
        let files = shared.chain(self.downloads.values().map(|download| &download.file));
        files.filter(move |file| file.group_id == group)
    }

    /// The user is no member of a group any more.
    pub(super) fn membership_ended(&mut self, group: GroupId) {
        self.groups.remove(&group);
        self.plan.admissions.send_modify(|admissions| admissions.leave(group));
        let shared = self.shares.values().map(|entry| &entry.share.file).filter(|file| file.group_id == group);
        let shared: Vec<_> = shared.map(|file| file.listing).collect();
        shared.into_iter().for_each(|listing| self.remove_share(listing));
        let fetched = self.downloads.values().filter(|d| is_running(d) && d.file.group_id == group);
        let fetched: Vec<_> = fetched.map(|download| download.file.listing).collect();
        for listing in fetched {
            self.download_refused(RefusedAnnouncement { listing, code: ErrorCode::NotAMember });
        }
    }
}

/// Whether a request to enter a group is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asking(bool);
