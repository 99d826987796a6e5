//! Who may be connected: a bound on all connections, and whom to send away when it is reached.
//!
//! Room is made at the expense of the address (IPv6: /64) that holds most connections without a signed-in
//! user; its oldest one goes. Signed-in clients are never sent away for newcomers.

use crate::presence::ConnectionId;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// All connections of the server.
#[derive(Clone)]
pub(crate) struct Admission {
    limit: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    all: HashSet<ConnectionId>,
    /// Those without a signed-in user, by address block; numbers grow with age falling.
    strangers: HashMap<IpAddr, BTreeMap<ConnectionId, CancellationToken>>,
}

/// A connection's place; given back when dropped.
pub(crate) struct Ticket {
    admission: Admission,
    id: ConnectionId,
    block: IpAddr,
    close: CancellationToken,
}

impl Admission {
    /// With room for `limit` connections.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a place for a new connection; `None` when all places belong to signed-in clients.
    pub(crate) fn admit(&self, id: ConnectionId, block: IpAddr, close: CancellationToken) -> Option<Ticket> {
        let mut state = self.state();
        if state.all.len() >= self.limit {
            state.evict()?;
        }
        state.all.insert(id);
        state.strangers.entry(block).or_default().insert(id, close.clone());
        Some(Ticket { admission: self.clone(), id, block, close })
    }
}

impl State {
    fn evict(&mut self) -> Option<()> {
        let block = *self.strangers.iter().max_by_key(|(_, connections)| connections.len())?.0;
        let (id, close) = self.strangers.get_mut(&block)?.pop_first()?;
        self.drop_if_empty(block);
        self.all.remove(&id);
        close.cancel();
        tracing::debug!(address = %block, "a connection had to make room");
        Some(())
    }

    fn drop_if_empty(&mut self, block: IpAddr) {
        if self.strangers.get(&block).is_some_and(BTreeMap::is_empty) {
            self.strangers.remove(&block);
        }
    }
}

impl Ticket {
    /// Whether the connection has a signed-in user now.
    pub(crate) fn set_signed_in(&self, is_signed_in: bool) {
        let mut state = self.admission.state();
        if !state.all.contains(&self.id) {
            return;
        }
        if is_signed_in {
            if let Some(connections) = state.strangers.get_mut(&self.block) {
                connections.remove(&self.id);
            }
            state.drop_if_empty(self.block);
        } else {
            state.strangers.entry(self.block).or_default().insert(self.id, self.close.clone());
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.admission.state();
        state.all.remove(&self.id);
        if let Some(connections) = state.strangers.get_mut(&self.block) {
            connections.remove(&self.id);
        }
        state.drop_if_empty(self.block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(admission: &Admission, id: u64, block: &str) -> (Option<Ticket>, CancellationToken) {
        let close = CancellationToken::new();
        (admission.admit(ConnectionId(id), block.parse().unwrap(), close.clone()), close)
    }

    #[test]
    fn the_oldest_stranger_of_the_greediest_address_makes_room() {
        let admission = Admission::new(4);
        let (_modest, modest) = admit(&admission, 1, "10.0.0.1");
        let (signed_in, oldest) = admit(&admission, 2, "10.0.0.2");
        signed_in.as_ref().unwrap().set_signed_in(true);
        let (_greedy, second) = admit(&admission, 3, "10.0.0.2");
        let (_greedy_too, third) = admit(&admission, 4, "10.0.0.2");
        assert!(admit(&admission, 5, "10.0.0.3").0.is_some());
        assert!(second.is_cancelled());
        assert!(!modest.is_cancelled() && !oldest.is_cancelled() && !third.is_cancelled());
    }

    #[test]
    fn signed_in_clients_are_never_sent_away() {
        let admission = Admission::new(1);
        let (ticket, close) = admit(&admission, 1, "10.0.0.1");
        ticket.as_ref().unwrap().set_signed_in(true);
        assert!(admit(&admission, 2, "10.0.0.2").0.is_none());
        ticket.as_ref().unwrap().set_signed_in(false);
        assert!(admit(&admission, 3, "10.0.0.2").0.is_some() && close.is_cancelled());
    }

    #[test]
    fn a_dropped_ticket_leaves_nothing() {
        let admission = Admission::new(1);
        for id in 0..10 {
            assert!(admit(&admission, id, "10.0.0.1").0.is_some());
        }
        assert!(admission.state().all.is_empty() && admission.state().strangers.is_empty());
    }
}
