//! The groups that the signed-in user takes part in: entering them, keeping their tickets fresh, leaving them.

use mini_torrent_common::control::{Admission, PAGE_ROWS, RefusedAnnouncement};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::names::GroupName;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use super::announcer::Announce;
use super::is_running;
use super::owner::Owner;
use crate::admission::Moment;
use crate::error::CommandError;
use crate::output::Notice;
use crate::state::SharedFile;

/// How long to wait before a group that could not be entered is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// The same for a group that the tracker does not know: an operator may have taken away the built-in one.
const SLOW_RETRY: Duration = Duration::from_secs(60);

/// A group that the user takes part in.
#[derive(Debug, Clone)]
pub(super) struct Participation {
    name: GroupName,
    asking: Asking,
}

/// Where asking for a ticket stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// The tracker has been asked.
    OnItsWay,
    /// There is an answer, or there was no way to ask; nothing is asked before this time.
    NotBefore(Instant),
}

impl Owner {
    /// Takes part in the group of a file from now on. What is announced afterwards is announced with a ticket in
    /// hand.
    pub(super) fn enter(&mut self, file: &SharedFile) {
        if let Entry::Vacant(vacant) = self.groups.entry(file.group_id) {
            vacant.insert(Participation { name: file.group.clone(), asking: Asking::NotBefore(Instant::now()) });
            self.ask_to_enter(file.group_id);
        }
    }

    /// Asks for the tickets of all groups anew, and for what was revoked meanwhile.
    pub(super) fn enter_all(&mut self) {
        let groups: Vec<_> = self.groups.keys().copied().collect();
        groups.into_iter().for_each(|group| self.ask_to_enter(group));
    }

    /// Enters groups again whose own ticket turns out to be revoked: either the membership began anew, or the answer
    /// says that it has ended.
    pub(super) fn enter_outdated(&mut self) {
        let outdated = self.plan.admissions.borrow().outdated();
        outdated.into_iter().for_each(|group| self.ask_to_enter(group));
    }

    /// Renews tickets in time, and tries again where entering has failed.
    pub(super) fn renew_tickets(&mut self) {
        let now = Instant::now();
        let due = {
            let admissions = self.plan.admissions.borrow();
            let due = admissions.due(Moment::now());
            let is_due = |group| due.contains(group) || !admissions.has_entered(*group);
            let may_ask = |asking| matches!(asking, Asking::NotBefore(at) if at <= now);
            let groups = self.groups.iter().filter(|(group, part)| may_ask(part.asking) && is_due(group));
            groups.map(|(group, _)| *group).collect::<Vec<_>>()
        };
        due.into_iter().for_each(|group| self.ask_to_enter(group));
    }

    fn ask_to_enter(&mut self, group: GroupId) {
        let after = self.plan.admissions.borrow().last_number(group);
        let is_queued = self.try_announce(Announce::Enter { group, after });
        if let Some(part) = self.groups.get_mut(&group) {
            part.asking = if is_queued { Asking::OnItsWay } else { Asking::NotBefore(Instant::now() + RETRY) };
        }
    }

    /// A page of what entering brought, or why it did not come about.
    pub(super) fn admitted(&mut self, group: GroupId, admission: Result<Admission, CommandError>) {
        let Some(part) = self.groups.get_mut(&group) else { return };
        let is_last = !admission.as_ref().is_ok_and(|page| page.revocations.len() >= PAGE_ROWS);
        if is_last {
            let unknown = admission.as_ref().is_err_and(|error| error.code == ErrorCode::NoSuchGroup);
            part.asking = Asking::NotBefore(Instant::now() + if unknown { SLOW_RETRY } else { RETRY });
        }
        match admission {
            Ok(Admission { ticket, revocations }) => {
                let mut entered = Ok(());
                self.plan.admissions.send_modify(|admissions| {
                    entered = admissions.enter(group, ticket, &revocations, is_last, Moment::now());
                });
                if let Err(error) = entered {
                    tracing::warn!(%group, %error, "the tracker's own ticket is not good");
                }
            }
            // It ended while this client was away.
            Err(error) if error.code == ErrorCode::NotAMember => {
                self.output.notice(Notice::RemovedFromGroup { group: part.name.clone() });
                self.membership_ended(group);
            }
            Err(error) => tracing::debug!(%group, %error, "a group cannot be entered just now"),
        }
    }

    /// Ends everything in a group that the user has left.
    pub(super) fn left_group(&mut self, name: &GroupName) {
        let entered = self.groups.iter().find(|(_, part)| part.name.key() == name.key()).map(|(group, _)| *group);
        let files = self.shares.values().map(|entry| &entry.share.file);
        let mut files = files.chain(self.downloads.values().map(|download| &download.file));
        let of_files = || files.find(|file| file.group.key() == name.key()).map(|file| file.group_id);
        if let Some(group) = entered.or_else(of_files) {
            self.membership_ended(group);
        }
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
