//! Who may exchange a group's files with this client: the tickets that it holds, and the judging of those that
//! peers show (design §5). Nothing here asks a tracker, so all of it goes on while every tracker is away.

use mini_torrent_common::hash::GroupId;
use mini_torrent_common::revocation::{Revocation, Revocations};
use mini_torrent_common::ticket::{CLOCK_TOLERANCE_MS, SignedTicket, TICKET_LIFE_MS, Ticket, TicketError};
use mini_torrent_common::tls::PublicKey;
use rustix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::peer::TorrentName;

mod stock;

pub(crate) use stock::{NotAnnounced, StockClients};

/// Why a peer is not admitted. It is told nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAdmitted {
    /// Its ticket is not good.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// It came without a ticket, as ordinary clients do.
    #[error(transparent)]
    NotAnnounced(#[from] NotAnnounced),
    /// Its membership ended after the ticket was issued.
    #[error("the ticket is revoked: its epoch has ended")]
    Revoked,
    /// This client has not entered the group.
    #[error("the ticket is of a group that this client has no ticket for")]
    OtherGroup,
    /// No tracker has told the time and the deployment's key yet.
    #[error("no tracker has answered yet")]
    NoTracker,
}

/// A point on this machine's monotonic clock, which goes on while the machine is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        Self(Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default()))
    }

    /// The moment that comes so much later.
    pub(crate) fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }

    /// The time from `earlier` to this moment; zero if it is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The trackers' clock, kept on our monotonic one.
#[derive(Debug, Clone, Copy)]
struct TrackerClock {
    heard: Moment,
    heard_ms: u64,
}

impl TrackerClock {
    fn at_ms(self, now: Moment) -> u64 {
        let since = now.since(self.heard);
        self.heard_ms.saturating_add(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A group whose ticket this client holds.
#[derive(Debug, Clone)]
struct Entered {
    signed: SignedTicket,
    ticket: Ticket,
    /// The greatest number of a revocation that the tracker's answers held; what it pushes in between is fetched
    /// again after a gap, for pushes may overtake each other.
    last_number: u64,
    /// Whether every revocation is known up to the last word of the tracker.
    is_current: bool,
}

/// What this client shows, and what it accepts.
#[derive(Debug, Clone)]
pub(crate) struct Admissions {
    own_key: PublicKey,
    tracker: Option<(PublicKey, TrackerClock)>,
    groups: HashMap<GroupId, Entered>,
    revocations: Revocations,
    /// Who is admitted without a ticket.
    pub(crate) stock: StockClients,
}

impl Admissions {
    /// Nobody is admitted yet.
    pub(crate) fn new(own_key: PublicKey) -> Self {
        let (groups, revocations, stock) = (HashMap::new(), Revocations::default(), StockClients::default());
        Self { own_key, tracker: None, groups, revocations, stock }
    }

    /// A tracker has proved the deployment's key, and told the time and how long it has been up.
    pub(crate) fn connected(&mut self, deployment: PublicKey, (heard, heard_ms): (Moment, u64), up: Duration) {
        self.tracker = Some((deployment, TrackerClock { heard, heard_ms }));
        self.stock.connected(heard, up);
    }

    /// The tracker told the time again; `false` when its clock still goes as ours thinks.
    pub(crate) fn set_time(&mut self, heard: Moment, heard_ms: u64) -> bool {
        let Some((_, clock)) = &mut self.tracker else { return false };
        let is_off = clock.at_ms(heard).abs_diff(heard_ms) > CLOCK_TOLERANCE_MS / 2;
        if is_off {
            *clock = TrackerClock { heard, heard_ms };
        }
        is_off
    }

    /// A tracker may know of revocations that were missed: nobody new is admitted before they are fetched.
    pub(crate) fn fell_behind(&mut self) {
        self.groups.values_mut().for_each(|group| group.is_current = false);
    }

    /// No tracker can be asked: what is known is all there is.
    pub(crate) fn cut_off(&mut self) {
        self.stock.cut_off(Moment::now());
        self.groups.values_mut().for_each(|group| group.is_current = true);
    }

    /// The session is over: everything of it is forgotten.
    pub(crate) fn leave_all(&mut self) {
        self.groups.clear();
        self.revocations = Revocations::default();
        self.stock.leave_all();
    }

    /// The user is no member of a group any more.
    pub(crate) fn leave(&mut self, group: GroupId) {
        self.groups.remove(&group);
        self.stock.leave(group);
    }

    /// Takes a ticket of ours and a page of revocations; `is_last` when there are no more of them.
    ///
    /// # Errors
    /// What is wrong with our own ticket.
    pub(crate) fn enter(
        &mut self,
        group: GroupId,
        signed: SignedTicket,
        revocations: &[Revocation],
        is_last: bool,
        now: Moment,
    ) -> Result<(), NotAdmitted> {
        self.revoke(revocations);
        let (deployment, _) = self.tracker.ok_or(NotAdmitted::NoTracker)?;
        let ticket = signed.verify(deployment, self.own_key)?;
        if ticket.group != group {
            return Err(NotAdmitted::OtherGroup);
        }
        // It was issued just now, so it tells whether the tracker's clock was put right since we heard of it.
        self.set_time(now, ticket.issued_ms);
        let known = revocations.last().map_or(0, |last| last.number).max(self.last_number(group));
        self.groups.insert(group, Entered { signed, ticket, last_number: known, is_current: is_last });
        if let Some((_, clock)) = self.tracker {
            self.revocations.forget_old(clock.at_ms(now));
        }
        Ok(())
    }

    /// The trackers revoked tickets.
    pub(crate) fn revoke(&mut self, revocations: &[Revocation]) {
        revocations.iter().for_each(|revocation| self.revocations.apply(revocation));
    }

    /// The number after which revocations of this group are to be fetched.
    pub(crate) fn last_number(&self, group: GroupId) -> u64 {
        self.groups.get(&group).map_or(0, |entered| entered.last_number)
    }

    /// The groups whose own ticket is revoked: the membership began anew, or has ended.
    pub(crate) fn outdated(&self) -> Vec<GroupId> {
        let covered = |entered: &Entered| self.revocations.cover(&entered.ticket);
        self.groups.iter().filter(|(_, entered)| covered(entered)).map(|(group, _)| *group).collect()
    }

    /// Whether a ticket for this group is held.
    pub(crate) fn has_entered(&self, group: GroupId) -> bool {
        self.groups.contains_key(&group)
    }

    /// Whether every revocation of this group is known, as far as can be.
    pub(crate) fn is_current(&self, group: GroupId) -> bool {
        self.groups.get(&group).is_some_and(|entered| entered.is_current)
    }

    /// The groups whose tickets are past half of their life, or whose revocations are not all known.
    pub(crate) fn due(&self, now: Moment) -> Vec<GroupId> {
        let Some((_, clock)) = self.tracker else { return Vec::new() };
        let now_ms = clock.at_ms(now);
        let is_due = |entered: &Entered| {
            !entered.is_current || now_ms >= entered.ticket.issued_ms.saturating_add(TICKET_LIFE_MS / 2)
        };
        self.groups.iter().filter(|(_, entered)| is_due(entered)).map(|(group, _)| *group).collect()
    }

    /// Our ticket for a group, if it is good now.
    pub(crate) fn own_ticket(&self, group: GroupId, now: Moment) -> Option<SignedTicket> {
        let (_, clock) = self.tracker?;
        let entered = self.groups.get(&group).filter(|entered| !entered.ticket.is_over(clock.at_ms(now)))?;
        Some(entered.signed.clone())
    }

    /// Judges the ticket of a peer that has proved `key`.
    ///
    /// # Errors
    /// Why the peer is not admitted.
    pub(crate) fn judge(&self, signed: &SignedTicket, key: PublicKey, now: Moment) -> Result<Ticket, NotAdmitted> {
        let (deployment, clock) = self.tracker.ok_or(NotAdmitted::NoTracker)?;
        let ticket = signed.open(deployment, key, clock.at_ms(now))?;
        if self.own_ticket(ticket.group, now).is_none() {
            return Err(NotAdmitted::OtherGroup);
        }
        if self.revocations.cover(&ticket) { Err(NotAdmitted::Revoked) } else { Ok(ticket) }
    }

    /// Judges a peer that comes without a ticket to a torrent, now and again while it is connected.
    ///
    /// # Errors
    /// Why it is not admitted.
    pub(crate) fn judge_plain(&self, torrent: TorrentName, from: IpAddr) -> Result<(), NotAdmitted> {
        let TorrentName { info_hash, group } = torrent;
        match group {
            Some(_) => self.stock.judge_announced(info_hash, from)?,
            None => self.stock.judge_foreign(info_hash)?,
        }
        Ok(())
    }

    /// Whether a ticket that was good when it was shown is good still.
    ///
    /// # Errors
    /// Why its holder is not admitted any more.
    pub(crate) fn check_again(&self, ticket: &Ticket, now: Moment) -> Result<(), NotAdmitted> {
        let (_, clock) = self.tracker.ok_or(NotAdmitted::NoTracker)?;
        if self.own_ticket(ticket.group, now).is_none() {
            return Err(NotAdmitted::OtherGroup);
        }
        if ticket.is_over(clock.at_ms(now)) {
            return Err(TicketError::Expired.into());
        }
        if self.revocations.cover(ticket) { Err(NotAdmitted::Revoked) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mini_torrent_common::ticket::{AccountId, Endorsement, TicketKey};
    use mini_torrent_common::tls::Identity;

    const GROUP: GroupId = GroupId([1; 16]);
    const NOW_MS: u64 = 1_800_000_000_000;

    fn identity(byte: u8) -> Identity {
        Identity::from_seed(&[byte; 32]).unwrap()
    }

    fn ticket_of(holder: u8, group: GroupId, member_epoch: u64) -> SignedTicket {
        let (deployment, key) = (identity(1), identity(2));
        let endorsement = Endorsement::sign(&deployment, key.public(), NOW_MS, NOW_MS + 2 * TICKET_LIFE_MS).unwrap();
        let ticket = Ticket {
            deployment: deployment.public().fingerprint(),
            group,
            member_epoch,
            account: AccountId(u64::from(holder)),
            account_epoch: 1,
            user: "alice".parse().unwrap(),
            holder: identity(holder).public(),
            issued_ms: NOW_MS,
            expires_ms: NOW_MS + TICKET_LIFE_MS,
        };
        TicketKey { identity: key, endorsement }.sign(&ticket).unwrap()
    }

    /// Client 3 is a member of the group.
    fn entered(now: Moment) -> Admissions {
        let mut admissions = Admissions::new(identity(3).public());
        admissions.connected(identity(1).public(), (now, NOW_MS), Duration::ZERO);
        admissions.enter(GROUP, ticket_of(3, GROUP, 1), &[], true, now).unwrap();
        admissions
    }

    fn later(now: Moment, by_ms: u64) -> Moment {
        Moment(now.0 + Duration::from_millis(by_ms))
    }

    fn revocation(number: u64, account: u64, epoch: u64) -> Revocation {
        Revocation { number, group: Some(GROUP), account: AccountId(account), epoch, at_ms: NOW_MS }
    }

    #[test]
    fn members_of_a_common_group_are_admitted_and_nobody_else() {
        let now = Moment::now();
        let admissions = entered(now);
        let judge = |ticket, key: u8| admissions.judge(&ticket, identity(key).public(), now);
        assert_eq!(judge(ticket_of(4, GROUP, 1), 4).unwrap().account, AccountId(4));
        assert_eq!(judge(ticket_of(4, GROUP, 1), 5), Err(TicketError::OtherHolder.into()));
        assert_eq!(judge(ticket_of(4, GroupId([2; 16]), 1), 4), Err(NotAdmitted::OtherGroup));
        let stranger = Admissions::new(identity(3).public());
        assert_eq!(stranger.judge(&ticket_of(4, GROUP, 1), identity(4).public(), now), Err(NotAdmitted::NoTracker));
    }

    #[test]
    fn a_revoked_member_is_out_at_once_and_in_again_with_a_new_epoch() {
        let now = Moment::now();
        let mut admissions = entered(now);
        let key = identity(4).public();
        let shown = admissions.judge(&ticket_of(4, GROUP, 1), key, now).unwrap();
        admissions.revoke(&[revocation(1, 4, 1)]);
        assert_eq!(admissions.check_again(&shown, now), Err(NotAdmitted::Revoked));
        assert_eq!(admissions.judge(&ticket_of(4, GROUP, 1), key, now), Err(NotAdmitted::Revoked));
        assert!(admissions.judge(&ticket_of(4, GROUP, 2), key, now).is_ok());
    }

    #[test]
    fn tickets_of_both_sides_end_with_the_trackers_time() {
        let now = Moment::now();
        let mut admissions = entered(now);
        let shown = admissions.judge(&ticket_of(4, GROUP, 1), identity(4).public(), now).unwrap();
        let tomorrow = later(now, TICKET_LIFE_MS + 61_000);
        assert!(admissions.own_ticket(GROUP, tomorrow).is_none());
        assert_eq!(admissions.check_again(&shown, tomorrow), Err(NotAdmitted::OtherGroup));
        // The tracker's clock may say something else than ours.
        admissions.connected(identity(1).public(), (tomorrow, NOW_MS + 1), Duration::ZERO);
        assert_eq!(admissions.check_again(&shown, tomorrow), Ok(()));
    }

    #[test]
    fn a_ticket_is_due_at_half_of_its_life_and_after_a_gap() {
        let now = Moment::now();
        let mut admissions = entered(now);
        assert!(admissions.due(now).is_empty());
        assert_eq!(admissions.due(later(now, TICKET_LIFE_MS / 2)), [GROUP]);
        admissions.fell_behind();
        assert_eq!((admissions.is_current(GROUP), admissions.due(now)), (false, vec![GROUP]));
        admissions.cut_off();
        assert!(admissions.is_current(GROUP), "without a tracker what is known is all there is");
    }

    #[test]
    fn only_the_trackers_answers_move_the_number_that_is_asked_after() {
        let now = Moment::now();
        let mut admissions = entered(now);
        admissions.revoke(&[revocation(9, 4, 1)]);
        assert_eq!(admissions.last_number(GROUP), 0);
        admissions.enter(GROUP, ticket_of(3, GROUP, 1), &[revocation(7, 5, 1)], false, now).unwrap();
        assert_eq!((admissions.last_number(GROUP), admissions.is_current(GROUP)), (7, false));
        admissions.enter(GROUP, ticket_of(3, GROUP, 1), &[], true, now).unwrap();
        assert_eq!((admissions.last_number(GROUP), admissions.is_current(GROUP)), (7, true));
    }

    /// The tracker's clock was put right by an hour while we were connected.
    #[test]
    fn the_clock_follows_the_tracker_by_our_own_tickets() {
        let now = Moment::now();
        for heard_ms in [NOW_MS - 3_600_000, NOW_MS + 3_600_000] {
            let mut admissions = Admissions::new(identity(3).public());
            admissions.connected(identity(1).public(), (now, heard_ms), Duration::ZERO);
            admissions.enter(GROUP, ticket_of(3, GROUP, 1), &[], true, now).unwrap();
            assert!(admissions.judge(&ticket_of(4, GROUP, 1), identity(4).public(), now).is_ok());
        }
    }

    /// As before, without a ticket of our own since: the answers to probes tell.
    #[test]
    fn the_clock_follows_the_tracker_by_its_word() {
        let now = Moment::now();
        let mut admissions = entered(now);
        assert!(!admissions.set_time(now, NOW_MS + 1000), "no news");
        assert!(admissions.set_time(now, NOW_MS + TICKET_LIFE_MS + 61_000));
        assert!(admissions.own_ticket(GROUP, now).is_none(), "by that clock it has expired");
    }

    #[test]
    fn an_own_ticket_that_is_revoked_is_seen() {
        let now = Moment::now();
        let mut admissions = entered(now);
        assert!(admissions.outdated().is_empty());
        admissions.revoke(&[revocation(1, 3, 1)]);
        assert_eq!(admissions.outdated(), [GROUP]);
    }

    #[test]
    fn a_session_that_ends_takes_everything_along() {
        let now = Moment::now();
        let mut admissions = entered(now);
        admissions.leave_all();
        assert!(!admissions.has_entered(GROUP));
        assert_eq!(admissions.judge(&ticket_of(4, GROUP, 1), identity(4).public(), now), Err(NotAdmitted::OtherGroup));
    }

    #[test]
    fn a_ticket_for_another_group_or_key_is_not_taken_as_ours() {
        let now = Moment::now();
        let mut admissions = entered(now);
        let other = GroupId([2; 16]);
        assert_eq!(admissions.enter(other, ticket_of(3, GROUP, 1), &[], true, now), Err(NotAdmitted::OtherGroup));
        let not_ours = admissions.enter(GROUP, ticket_of(4, GROUP, 1), &[], true, now);
        assert_eq!(not_ours, Err(TicketError::OtherHolder.into()));
    }
}
