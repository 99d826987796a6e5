//! Revocations: memberships that ended before their tickets did (design §5).
//!
//! The trackers keep them as a numbered log. A member holds those of its groups and refuses the tickets that
//! they cover; a membership that begins anew has a greater epoch and is not covered.

use crate::hash::GroupId;
use crate::ticket::{AccountId, CLOCK_TOLERANCE_MS, TICKET_LIFE_MS, Ticket};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// How long a revocation matters, in milliseconds: until every ticket that it covers has expired.
pub const REVOCATION_LIFE_MS: u64 = TICKET_LIFE_MS + 2 * CLOCK_TOLERANCE_MS;

/// One entry of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Its place in the log; the first has 1.
    pub number: u64,
    /// The group whose tickets it covers; `None` covers those of every group.
    pub group: Option<GroupId>,
    /// Whose tickets.
    pub account: AccountId,
    /// Tickets of this epoch and older are covered: of the membership's, or without a group of the account's.
    pub epoch: u64,
    /// When, in the trackers' time, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// The revocations that a member knows of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations {
    latest: HashMap<(Option<GroupId>, AccountId), Covered>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Covered {
    epoch: u64,
    at_ms: u64,
}

impl Revocations {
    /// Takes an entry of the log, in any order, any number of times.
    pub fn apply(&mut self, revocation: &Revocation) {
        let Revocation { group, account, epoch, at_ms, .. } = *revocation;
        let covered = self.latest.entry((group, account)).or_insert(Covered { epoch, at_ms });
        covered.epoch = covered.epoch.max(epoch);
        covered.at_ms = covered.at_ms.max(at_ms);
    }

    /// Whether a ticket is covered.
    pub fn cover(&self, ticket: &Ticket) -> bool {
        let covers = |group, epoch| self.latest.get(&(group, ticket.account)).is_some_and(|one| one.epoch >= epoch);
        covers(Some(ticket.group), ticket.member_epoch) || covers(None, ticket.account_epoch)
    }

    /// Forgets entries whose tickets have all expired at `now_ms`.
    pub fn forget_old(&mut self, now_ms: u64) {
        self.latest.retain(|_, covered| covered.at_ms.saturating_add(REVOCATION_LIFE_MS) > now_ms);
    }

    /// How many accounts are covered, each counted once a group.
    pub fn len(&self) -> usize {
        self.latest.len()
    }

    /// Whether nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.latest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Sha256Hash;
    use crate::tls::{Fingerprint, PublicKey};

    const GROUP: GroupId = GroupId([1; 16]);

    fn ticket(group: GroupId, account: u64, member_epoch: u64, account_epoch: u64) -> Ticket {
        Ticket {
            deployment: Fingerprint(Sha256Hash([0; 32])),
            group,
            member_epoch,
            account: AccountId(account),
            account_epoch,
            user: "alice".parse().unwrap(),
            holder: PublicKey([0; 32]),
            issued_ms: 0,
            expires_ms: 0,
        }
    }

    fn revocation(group: Option<GroupId>, account: u64, epoch: u64) -> Revocation {
        Revocation { number: 1, group, account: AccountId(account), epoch, at_ms: 1000 }
    }

    #[test]
    fn an_ended_membership_is_covered_and_a_new_one_is_not() {
        let mut revocations = Revocations::default();
        revocations.apply(&revocation(Some(GROUP), 1, 5));
        assert!(revocations.cover(&ticket(GROUP, 1, 5, 1)));
        assert!(revocations.cover(&ticket(GROUP, 1, 4, 1)));
        assert!(!revocations.cover(&ticket(GROUP, 1, 6, 1)), "who rejoined");
        assert!(!revocations.cover(&ticket(GROUP, 2, 5, 1)), "another account");
        assert!(!revocations.cover(&ticket(GroupId([2; 16]), 1, 5, 1)), "another group");
    }

    #[test]
    fn an_account_is_covered_in_every_group() {
        let mut revocations = Revocations::default();
        revocations.apply(&revocation(None, 1, 2));
        assert!(revocations.cover(&ticket(GROUP, 1, 900, 2)));
        assert!(revocations.cover(&ticket(GroupId([2; 16]), 1, 900, 1)));
        assert!(!revocations.cover(&ticket(GROUP, 1, 1, 3)), "after the account was opened again");
    }

    #[test]
    fn the_order_and_number_of_applications_do_not_matter() {
        let (old, new) = (revocation(Some(GROUP), 1, 3), revocation(Some(GROUP), 1, 7));
        let (mut forward, mut backward) = (Revocations::default(), Revocations::default());
        [old, new].iter().for_each(|one| forward.apply(one));
        [new, old, new].iter().for_each(|one| backward.apply(one));
        assert_eq!(forward, backward);
        assert!(forward.cover(&ticket(GROUP, 1, 7, 1)));
    }

    #[test]
    fn entries_are_forgotten_when_every_ticket_of_theirs_has_expired() {
        let mut revocations = Revocations::default();
        revocations.apply(&revocation(Some(GROUP), 1, 3));
        revocations.forget_old(1000 + REVOCATION_LIFE_MS - 1);
        assert_eq!(revocations.len(), 1);
        revocations.forget_old(1000 + REVOCATION_LIFE_MS);
        assert!(revocations.is_empty());
    }
}
