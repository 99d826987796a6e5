//! Who has entered which group, and so hears of its revocations.

use super::swarming::NotTaken;
use super::{Connected, ConnectionId, Presence, State};
use crate::limits;
use crate::store::UserId;
use mini_torrent_common::control::Event;
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::revocation::Revocation;

impl Presence {
    /// From now on the group's revocations are gathered for this connection, which hears of them when it is
    /// admitted. This comes before the membership is read: what ends afterwards is heard of, and what ended
    /// before was read.
    ///
    /// # Errors
    /// As [`NotTaken`] says.
    pub(crate) fn enter_group(&self, id: ConnectionId, user: UserId, group: GroupId) -> Result<(), NotTaken> {
        let mut state = self.state();
        let connected = state.signed_in(id, user)?;
        if connected.entered.len() >= limits::MAX_ENTERED && !connected.entered.contains_key(&group) {
            return Err(NotTaken::TooMany);
        }
        if let Some(connected) = state.connections.get_mut(&id) {
            connected.entered.entry(group).or_insert(false);
        }
        state.entered.entry(group).or_default().insert(id);
        Ok(())
    }

    /// The connection's user is a member of the group that it is entering.
    pub(crate) fn admit(&self, id: ConnectionId, group: GroupId) {
        let mut state = self.state();
        let Some(connected) = state.connections.get_mut(&id) else { return };
        // Not there any more: the membership has ended since it was read.
        let Some(admitted) = connected.entered.get_mut(&group) else { return };
        *admitted = true;
        connected.line.changed.notify_one();
    }

    /// Whether the connection's user is a member could not be found out. Who was admitted before stays so.
    pub(crate) fn give_up_entering(&self, id: ConnectionId, group: GroupId) {
        let mut state = self.state();
        let admitted = state.connections.get(&id).and_then(|connected| connected.entered.get(&group).copied());
        if admitted != Some(true) {
            state.leave_group(id, group);
        }
    }

    /// The group's revocations are not this connection's business.
    pub(crate) fn leave_group(&self, id: ConnectionId, group: GroupId) {
        self.state().leave_group(id, group);
    }

    /// Tells of entries of the log, in their order: of a group's those who have entered it, of the others
    /// everybody who has entered any group. A client that lets too many gather is dropped; it comes back and
    /// asks for what it missed.
    pub(crate) fn tell_revocations(&self, revocations: &[Revocation]) {
        let mut state = self.state();
        let State { connections, entered, .. } = &mut *state;
        for revocation in revocations {
            match revocation.group {
                Some(group) => {
                    for id in entered.get(&group).into_iter().flatten() {
                        if let Some(connected) = connections.get_mut(id) {
                            connected.hear_of(revocation);
                        }
                    }
                }
                None => {
                    let inside = connections.values_mut().filter(|connected| !connected.entered.is_empty());
                    inside.for_each(|connected| connected.hear_of(revocation));
                }
            }
        }
    }

    /// The revocations that the connection's client has not been told of yet, as one event. One that it may not
    /// hear of yet keeps the later ones waiting, for they are told in the order of their numbers.
    pub(crate) fn take_revocations(&self, id: ConnectionId) -> Option<Event> {
        let mut state = self.state();
        let connected = state.connections.get_mut(&id)?;
        let held = connected.revocations.iter().position(|revocation| !connected.may_hear_of(revocation));
        let n_told = held.unwrap_or(connected.revocations.len());
        (n_told > 0).then(|| Event::Revoked(connected.revocations.drain(..n_told).collect()))
    }
}

impl Connected {
    fn hear_of(&mut self, revocation: &Revocation) {
        if self.revocations.len() >= limits::MAX_PENDING_REVOCATIONS {
            return self.line.close.cancel();
        }
        self.revocations.push(*revocation);
        self.line.changed.notify_one();
    }

    fn may_hear_of(&self, revocation: &Revocation) -> bool {
        match revocation.group {
            Some(group) => self.entered.get(&group) == Some(&true),
            None => self.entered.values().any(|admitted| *admitted),
        }
    }
}

impl State {
    pub(super) fn leave_group(&mut self, id: ConnectionId, group: GroupId) {
        if let Some(connected) = self.connections.get_mut(&id) {
            connected.entered.remove(&group);
            let is_inside = !connected.entered.is_empty();
            connected.revocations.retain(|revocation| is_inside && revocation.group != Some(group));
            // What waited behind the group's may go now.
            connected.line.changed.notify_one();
        }
        if let Some(inside) = self.entered.get_mut(&group) {
            inside.remove(&id);
            if inside.is_empty() {
                self.entered.remove(&group);
            }
        }
    }

    /// Takes a connection out of every group.
    pub(super) fn leave_groups(&mut self, id: ConnectionId) {
        let Some(connected) = self.connections.get_mut(&id) else { return };
        connected.revocations.clear();
        let groups: Vec<_> = connected.entered.keys().copied().collect();
        for group in groups {
            self.leave_group(id, group);
        }
    }
}
