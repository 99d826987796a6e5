//! Who may be connected: a bound on all connections, and whom to send away when it is reached.
//!
//! Room is made at the expense of the address (IPv6: /64) that holds most connections without a signed-in
//! user; its oldest one goes. Signed-in clients are never sent away for newcomers; but one address has only its
//! share of them, and its oldest one goes when it has more.

use crate::limits;
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
    /// Those without a signed-in user.
    strangers: Blocks,
    /// Those with one.
    signed_in: Blocks,
}

/// Connections by address block.
#[derive(Default)]
struct Blocks(HashMap<IpAddr, BTreeMap<ConnectionId, CancellationToken>>);

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
        state.strangers.insert(block, id, close.clone());
        Some(Ticket { admission: self.clone(), id, block, close })
    }
}

impl State {
    fn evict(&mut self) -> Option<()> {
        let block = self.strangers.largest()?;
        let id = self.strangers.close_oldest(block)?;
        self.all.remove(&id);
        Some(())
    }
}

impl Blocks {
    fn insert(&mut self, block: IpAddr, id: ConnectionId, close: CancellationToken) {
        self.0.entry(block).or_default().insert(id, close);
    }

    fn remove(&mut self, block: IpAddr, id: ConnectionId) {
        let Some(connections) = self.0.get_mut(&block) else { return };
        connections.remove(&id);
        if connections.is_empty() {
            self.0.remove(&block);
        }
    }

    fn n_of(&self, block: IpAddr) -> usize {
        self.0.get(&block).map_or(0, BTreeMap::len)
    }

    fn largest(&self) -> Option<IpAddr> {
        Some(*self.0.iter().max_by_key(|(_, connections)| connections.len())?.0)
    }

    /// The oldest is the one with the least number.
    fn close_oldest(&mut self, block: IpAddr) -> Option<ConnectionId> {
        let (id, close) = self.0.get(&block)?.first_key_value().map(|(id, close)| (*id, close.clone()))?;
        self.remove(block, id);
        close.cancel();
        tracing::debug!(address = %block, "a connection had to make room");
        Some(id)
    }
}

impl Ticket {
    /// Whether the connection has a signed-in user now.
    pub(crate) fn set_signed_in(&self, is_signed_in: bool) {
        let mut state = self.admission.state();
        if !state.all.contains(&self.id) {
            return;
        }
        if !is_signed_in {
            state.signed_in.remove(self.block, self.id);
            return state.strangers.insert(self.block, self.id, self.close.clone());
        }
        state.strangers.remove(self.block, self.id);
        state.signed_in.insert(self.block, self.id, self.close.clone());
        let share = (self.admission.limit / limits::ADDRESS_SHARE_OF_CONNECTIONS).max(1);
        if state.signed_in.n_of(self.block) > share
            && let Some(oldest) = state.signed_in.close_oldest(self.block)
        {
            state.all.remove(&oldest);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.admission.state();
        state.all.remove(&self.id);
        state.strangers.remove(self.block, self.id);
        state.signed_in.remove(self.block, self.id);
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
        let ticket = admit(&admission, 10, "10.0.0.1").0.unwrap();
        ticket.set_signed_in(true);
        drop(ticket);
        let state = admission.state();
        assert!(state.all.is_empty() && state.strangers.0.is_empty() && state.signed_in.0.is_empty());
    }

    #[test]
    fn one_address_does_not_hold_all_places_even_signed_in() {
        let admission = Admission::new(8);
        let (kept, other) = admit(&admission, 1, "10.0.0.1");
        kept.as_ref().unwrap().set_signed_in(true);
        let greedy: Vec<_> = (2..=6)
            .map(|id| {
                let (ticket, close) = admit(&admission, id, "10.0.0.2");
                ticket.as_ref().unwrap().set_signed_in(true);
                (ticket, close)
            })
            .collect();
        let closed: Vec<_> = greedy.iter().map(|(_, close)| close.is_cancelled()).collect();
        assert_eq!(closed, [true, false, false, false, false], "its oldest has made room for its newest");
        assert!(!other.is_cancelled() && admission.state().all.len() == 5);
    }
}
