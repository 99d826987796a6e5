//! What time brings: silence, keep-alives, upload rounds, redials.

use super::Torrent;
use crate::event::{CloseReason, ConnectionId, Outgoing};
use std::time::{Duration, Instant};

/// The clock is not looked at more often than this, whatever the deadlines.
const TICK_MIN: Duration = Duration::from_millis(20);

impl Torrent {
    pub(super) fn on_wake(&mut self, now: Instant) {
        self.wake_at = None;
        let connections: Vec<ConnectionId> = self.peers.keys().copied().collect();
        for connection in connections {
            self.check_peer(now, connection);
        }
        if self.next_choke_round.is_some_and(|at| at <= now) {
            self.choke_round(now);
        }
        if self.slots.next_review.is_some_and(|at| at <= now) {
            self.review_slots(now);
        }
        for at in [self.next_choke_round, self.slots.next_review].into_iter().flatten() {
            self.wake_by(at);
        }
        self.candidates.expire_dials(now, &self.limits, &mut self.rng);
        self.dial(now);
        self.wake_at = self.wake_at.map(|at| at.max(now + TICK_MIN));
    }

    fn check_peer(&mut self, now: Instant, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        let limits = &self.limits;
        let dies_at = if peer.outstanding.is_empty() {
            peer.last_received + limits.idle_timeout
        } else {
            peer.last_received.max(peer.last_progress) + limits.silence_timeout
        };
        if dies_at <= now {
            return self.close(now, connection, CloseReason::TimedOut);
        }
        let mut deadlines = vec![dies_at];
        if peer.paused_until.is_some_and(|until| until <= now) {
            peer.paused_until = None;
        }
        if peer.hears_more_by.is_some_and(|by| by <= now) {
            peer.hears_more_by = None;
        }
        deadlines.extend(peer.paused_until);
        if peer.last_sent + limits.keep_alive <= now {
            peer.last_sent = now;
            self.actions.push_back(crate::Action::Send { connection, message: Outgoing::KeepAlive });
        }
        deadlines.push(peer.last_sent + limits.keep_alive);
        let owes = !peer.outstanding.is_empty() && !peer.is_snubbed;
        let snubbed_at = peer.last_progress + limits.snub_after;
        if owes && snubbed_at > now {
            deadlines.push(snubbed_at);
        }
        deadlines.into_iter().for_each(|at| self.wake_by(at));
        if owes && snubbed_at <= now {
            self.snub(now, connection);
        }
        self.fill(now, connection);
    }
}
