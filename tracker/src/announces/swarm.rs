//! One swarm of ordinary clients: its peers of both families and its counters.

use super::table::{KeyIndex, Peer, Seed, Table, Tick};
use mini_torrent_common::announce::Counts;
use mini_torrent_common::hash::InfoHash;
use std::net::{IpAddr, SocketAddr};

pub(super) struct Swarm {
    pub(super) info_hash: InfoHash,
    v4: Table<[u8; 4]>,
    /// Few swarms have any.
    v6: Option<Box<Table<[u8; 16]>>>,
    n_completed: u32,
}

/// What an announce changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The peer is new.
    Came,
    /// It became a seeder.
    Completed,
    /// Nothing but its lease.
    Stayed,
    /// It left.
    Left,
    /// It left, and was not there.
    Absent,
}

/// How many peers of each family an answer names at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Of IPv4.
    pub v4: u16,
    /// Of IPv6.
    pub v6: u16,
}

impl Swarm {
    pub(super) fn new(info_hash: InfoHash) -> Self {
        Self { info_hash, v4: Table::default(), v6: None, n_completed: 0 }
    }

    pub(super) fn counts(&self) -> Counts {
        let v6 = self.v6.as_deref().map_or((0, 0), |v6| (v6.n_peers(), v6.n_seeders()));
        let (n_peers, n_seeders) = (self.v4.n_peers() + v6.0, self.v4.n_seeders() + v6.1);
        Counts { complete: n_seeders, downloaded: self.n_completed, incomplete: n_peers - n_seeders }
    }

    pub(super) fn n_peers(&self) -> usize {
        self.v4.n_peers() as usize + self.v6.as_deref().map_or(0, |v6| v6.n_peers() as usize)
    }

    pub(super) fn n_slots(&self) -> usize {
        self.v4.n_slots() + self.v6.as_deref().map_or(0, Table::n_slots)
    }

    /// Bytes on the heap.
    pub(super) fn n_bytes(&self) -> usize {
        let v6 = self.v6.as_deref().map_or(0, |v6| size_of::<Table<[u8; 16]>>() + v6.n_bytes());
        self.v4.n_bytes() + v6
    }

    pub(super) fn put(&mut self, address: SocketAddr, seeder: bool, key: KeyIndex, now: Tick, seed: Seed) -> Change {
        let port = address.port();
        let before = match address.ip() {
            IpAddr::V4(v4) => self.v4.put(v4.octets(), port, seeder, key, now, seed),
            IpAddr::V6(v6) => self.v6.get_or_insert_default().put(v6.octets(), port, seeder, key, now, seed),
        };
        match before {
            None => Change::Came,
            Some(before) if seeder && !before.seeder => {
                self.n_completed = self.n_completed.saturating_add(1);
                Change::Completed
            }
            Some(_) => Change::Stayed,
        }
    }

    pub(super) fn peer(&self, address: SocketAddr, seed: Seed) -> Option<Peer> {
        match address.ip() {
            IpAddr::V4(v4) => self.v4.peer(v4.octets(), address.port(), seed),
            IpAddr::V6(v6) => self.v6.as_deref()?.peer(v6.octets(), address.port(), seed),
        }
    }

    pub(super) fn contains(&self, address: SocketAddr, seed: Seed) -> bool {
        match address.ip() {
            IpAddr::V4(v4) => self.v4.contains(v4.octets(), address.port(), seed),
            IpAddr::V6(v6) => self.v6.as_deref().is_some_and(|table| table.contains(v6.octets(), address.port(), seed)),
        }
    }

    pub(super) fn remove(&mut self, address: SocketAddr, seed: Seed) -> Change {
        let before = match address.ip() {
            IpAddr::V4(v4) => self.v4.remove(v4.octets(), address.port(), seed),
            IpAddr::V6(v6) => self.v6.as_mut().and_then(|table| table.remove(v6.octets(), address.port(), seed)),
        };
        if before.is_some() { Change::Left } else { Change::Absent }
    }

    pub(super) fn sample(
        &self,
        wanted: Wanted,
        random: u64,
        asker: (SocketAddr, bool),
        now: Tick,
        take: &mut impl FnMut(SocketAddr),
    ) {
        self.v4.sample(wanted.v4.into(), random, asker, now, &mut *take);
        if let Some(v6) = &self.v6 {
            v6.sample(wanted.v6.into(), random, asker, now, take);
        }
    }

    /// Removes the peers of the slots from `from` whose lease ended, IPv6 behind IPv4.
    pub(super) fn sweep(
        &mut self,
        from: usize,
        n_slots: usize,
        now: Tick,
        seed: Seed,
        ended: &mut impl FnMut(SocketAddr),
    ) {
        let n_v4 = self.v4.n_slots();
        self.v4.sweep(from, n_slots, now, seed, ended);
        if let Some(v6) = &mut self.v6 {
            let in_v4 = n_v4.saturating_sub(from).min(n_slots);
            v6.sweep(from.saturating_sub(n_v4), n_slots - in_v4, now, seed, ended);
        }
    }

    pub(super) fn shrink(&mut self, seed: Seed) {
        self.v4.shrink(seed);
        if let Some(v6) = &mut self.v6 {
            v6.shrink(seed);
        }
        self.v6.take_if(|v6| v6.n_peers() == 0);
    }

    /// Removes the peers that a key admitted, or all.
    pub(super) fn end(&mut self, key: Option<KeyIndex>, seed: Seed, ended: &mut impl FnMut(SocketAddr)) {
        self.v4.end(key, seed, ended);
        if let Some(v6) = &mut self.v6 {
            v6.end(key, seed, ended);
        }
        self.v6.take_if(|v6| v6.n_peers() == 0);
    }

    pub(super) fn peers(&self, now: Tick) -> impl Iterator<Item = Peer> {
        self.v4.peers(now).chain(self.v6.iter().flat_map(move |v6| v6.peers(now)))
    }

    #[cfg(test)]
    pub(super) fn probes_per_100_peers(&self, seed: Seed) -> usize {
        self.v4.probes_per_100_peers(seed).max(self.v6.as_deref().map_or(0, |v6| v6.probes_per_100_peers(seed)))
    }
}
