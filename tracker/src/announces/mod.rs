//! Who of the ordinary clients is in which swarm, as they announce it by HTTP and UDP. All in memory; it goes with
//! the process, and clients announce again.
//!
//! Swarms are spread over shards by their info-hash, each behind a lock of its own that is never held across an await.
//! An announce costs the same in a small swarm as in a great one and allocates only when a table grows. A peer is its
//! exact source address with the port that it declared; beside it stands the key that admitted it, so that a revoked
//! key ends its peers. What time it is comes in with each call, in seconds of a monotonic clock.

mod swarm;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use swarm::{Change, Wanted};
pub(crate) use table::{KeyIndex, Peer};

use crate::limits::{MAX_ANNOUNCED_PEERS, MAX_ANNOUNCED_SWARMS};
use mini_torrent_common::announce::{Counts, Event};
use mini_torrent_common::hash::InfoHash;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use swarm::Swarm;
use table::{Seed, Tick};

/// Number of shards.
pub(crate) const N_SHARDS: usize = 64;

/// All swarms.
pub(crate) struct Announces {
    seed: Seed,
    n_peers: Arc<AtomicUsize>,
    shards: Box<[Mutex<Shard>]>,
}

/// An announce that was admitted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announce {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The source address, canonical, with the declared port, which is not 0.
    pub address: SocketAddr,
    /// The key that admitted it.
    pub key: KeyIndex,
    /// Whether it needs nothing more.
    pub seeder: bool,
    /// Why it announces.
    pub event: Event,
}

/// What an announce did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announced {
    /// The swarm's numbers after it.
    pub counts: Counts,
    /// What it changed.
    pub change: Change,
}

/// There is no room for another peer or swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tracker is full")]
pub(crate) struct Full;

impl Announces {
    /// No swarm; `seed` is random and secret.
    pub(crate) fn new(seed: [u64; 2]) -> Self {
        Self::with_room(seed, MAX_ANNOUNCED_PEERS, MAX_ANNOUNCED_SWARMS)
    }

    /// With room for about so many peers and swarms.
    fn with_room(seed: [u64; 2], max_peers: usize, max_swarms: usize) -> Self {
        let (seed, n_peers) = (Seed(seed), Arc::new(AtomicUsize::new(0)));
        let room = Room { n_peers: Arc::clone(&n_peers), max_peers, max_swarms: max_swarms / N_SHARDS };
        let shard = |index: usize| Mutex::new(Shard::new(seed, index as u64, room.clone()));
        Self { seed, n_peers, shards: (0..N_SHARDS).map(shard).collect() }
    }

    /// Notes an announce and names some other peers of the swarm to `take`.
    ///
    /// # Errors
    /// When the peer is new and there is no room for it.
    pub(crate) fn announce(
        &self,
        announce: &Announce,
        wanted: Wanted,
        now_s: u64,
        mut take: impl FnMut(SocketAddr),
    ) -> Result<Announced, Full> {
        self.shard_of(announce.info_hash).announce(announce, wanted, Tick::at(now_s), &mut take)
    }

    /// A peer, if it is there.
    pub(crate) fn peer(&self, info_hash: InfoHash, address: SocketAddr) -> Option<Peer> {
        self.shard_of(info_hash).swarm(info_hash)?.peer(address, self.seed)
    }

    /// Names some peers of a swarm to `take`, without noting an announce.
    pub(crate) fn sample(
        &self,
        info_hash: InfoHash,
        wanted: Wanted,
        asker: (SocketAddr, bool),
        now_s: u64,
        mut take: impl FnMut(SocketAddr),
    ) {
        let mut shard = self.shard_of(info_hash);
        let random = shard.next_random();
        if let Some(swarm) = shard.swarm(info_hash) {
            swarm.sample(wanted, random, asker, Tick::at(now_s), &mut take);
        }
    }

    /// Peers over all swarms.
    pub(crate) fn n_peers(&self) -> usize {
        self.n_peers.load(Relaxed)
    }

    /// Swarms, those that were left a moment ago included.
    pub(crate) fn n_swarms(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).swarms.len()).sum()
    }

    /// The numbers of a swarm, if it has peers.
    pub(crate) fn counts(&self, info_hash: InfoHash) -> Option<Counts> {
        self.shard_of(info_hash).swarm(info_hash).map(|swarm| swarm.counts())
    }

    /// Shows each peer of a swarm whose lease runs. It takes as long as the swarm is great.
    pub(crate) fn peers(&self, info_hash: InfoHash, now_s: u64, take: impl FnMut(Peer)) {
        if let Some(swarm) = self.shard_of(info_hash).swarm(info_hash) {
            swarm.peers(Tick::at(now_s)).for_each(take);
        }
    }

    /// Removes the peers that a key admitted to its file and names them. It takes as long as the swarm is great.
    pub(crate) fn end_key(&self, info_hash: InfoHash, key: KeyIndex, ended: impl FnMut(SocketAddr)) {
        self.shard_of(info_hash).end(info_hash, Some(key), ended);
    }

    /// Removes all peers of a swarm and names them.
    pub(crate) fn end_swarm(&self, info_hash: InfoHash, ended: impl FnMut(SocketAddr)) {
        self.shard_of(info_hash).end(info_hash, None, ended);
    }

    /// Removes peers whose lease ended and names them, looking at `n_slots` of a shard and going on there next time.
    /// Says whether it came round.
    pub(crate) fn sweep(
        &self,
        shard: usize,
        n_slots: usize,
        now_s: u64,
        mut ended: impl FnMut(InfoHash, SocketAddr),
    ) -> bool {
        let shard = self.shards.get(shard);
        shard.is_none_or(|shard| lock(shard).sweep(n_slots, Tick::at(now_s), &mut ended))
    }

    /// Bytes on the heap: those of every table and of the lists of swarms.
    pub(crate) fn n_bytes(&self) -> usize {
        self.shards.iter().map(|shard| size_of::<Mutex<Shard>>() + lock(shard).n_bytes()).sum()
    }

    fn shard_of(&self, info_hash: InfoHash) -> MutexGuard<'_, Shard> {
        let hash = self.seed.hash_one(info_hash);
        // Not the bits that a shard's map begins with.
        let index = usize::try_from(hash >> 40).unwrap_or_default() % self.shards.len();
        lock(self.shards.get(index).unwrap_or(&self.shards[0]))
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bounds of a shard: on the peers of all shards together, and on its own swarms.
#[derive(Clone)]
struct Room {
    n_peers: Arc<AtomicUsize>,
    max_peers: usize,
    max_swarms: usize,
}

impl Room {
    fn is_full(&self) -> bool {
        self.n_peers.load(Relaxed) >= self.max_peers
    }

    fn note(&self, n_before: usize, n_after: usize) {
        self.n_peers.fetch_add(n_after.saturating_sub(n_before), Relaxed);
        self.n_peers.fetch_sub(n_before.saturating_sub(n_after), Relaxed);
    }
}

/// Some of the swarms, with the place where the next sweep goes on.
struct Shard {
    seed: Seed,
    /// Where each swarm stands in `swarms`.
    places: HashMap<InfoHash, u32, Seed>,
    swarms: Vec<Swarm>,
    room: Room,
    /// The next swarm and slot to sweep.
    cursor: (usize, usize),
    /// The state of the generator that samples are drawn with.
    random: u64,
}

impl Shard {
    fn new(seed: Seed, index: u64, room: Room) -> Self {
        let random = seed.mix(index, !index);
        Self { seed, places: HashMap::with_hasher(seed), swarms: Vec::new(), room, cursor: (0, 0), random }
    }

    fn swarm(&self, info_hash: InfoHash) -> Option<&Swarm> {
        self.swarms.get(*self.places.get(&info_hash)? as usize)
    }

    fn announce(
        &mut self,
        announce: &Announce,
        wanted: Wanted,
        now: Tick,
        take: &mut impl FnMut(SocketAddr),
    ) -> Result<Announced, Full> {
        let Announce { info_hash, address, key, seeder, event } = *announce;
        let (random, seed) = (self.next_random(), self.seed);
        let place = self.places.get(&info_hash).copied();
        if event == Event::Stopped {
            let Some(swarm) = place.and_then(|place| self.swarms.get_mut(place as usize)) else {
                return Ok(Announced { counts: Counts::default(), change: Change::Absent });
            };
            let change = swarm.remove(address, seed);
            self.room.note(usize::from(change == Change::Left), 0);
            return Ok(Announced { counts: swarm.counts(), change });
        }
        if self.room.is_full() && !self.swarm(info_hash).is_some_and(|swarm| swarm.contains(address, seed)) {
            return Err(Full);
        }
        let place = match place {
            Some(place) => place,
            None if self.swarms.len() >= self.room.max_swarms => return Err(Full),
            None => {
                let place = u32::try_from(self.swarms.len()).map_err(|_| Full)?;
                self.swarms.push(Swarm::new(info_hash));
                self.places.insert(info_hash, place);
                place
            }
        };
        let swarm = self.swarms.get_mut(place as usize).ok_or(Full)?;
        let change = swarm.put(address, seeder, key, now, seed);
        self.room.note(0, usize::from(change == Change::Came));
        swarm.sample(wanted, random, (address, seeder), now, take);
        Ok(Announced { counts: swarm.counts(), change })
    }

    /// SplitMix64: which neighbours are named need not be secret.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn end(&mut self, info_hash: InfoHash, key: Option<KeyIndex>, mut ended: impl FnMut(SocketAddr)) {
        let Some(place) = self.places.get(&info_hash).copied() else { return };
        let Some(swarm) = self.swarms.get_mut(place as usize) else { return };
        let n_before = swarm.n_peers();
        swarm.end(key, self.seed, &mut ended);
        self.room.note(n_before, swarm.n_peers());
    }

    fn sweep(&mut self, n_slots: usize, now: Tick, ended: &mut impl FnMut(InfoHash, SocketAddr)) -> bool {
        let mut n_left = n_slots;
        let seed = self.seed;
        while n_left > 0 {
            let (index, from) = self.cursor;
            let Some(swarm) = self.swarms.get_mut(index) else {
                self.cursor = (0, 0);
                return true;
            };
            let (info_hash, n_before) = (swarm.info_hash, swarm.n_peers());
            let n_here = swarm.n_slots().saturating_sub(from).min(n_left);
            swarm.sweep(from, n_here, now, seed, &mut |address| ended(info_hash, address));
            self.room.note(n_before, swarm.n_peers());
            // A swarm without slots is work, too.
            n_left -= n_here.max(1);
            if from + n_here < swarm.n_slots() {
                self.cursor = (index, from + n_here);
                continue;
            }
            swarm.shrink(seed);
            self.cursor = if swarm.n_peers() == 0 { (index, 0) } else { (index + 1, 0) };
            if swarm.n_peers() == 0 {
                self.remove_swarm(index);
            }
        }
        false
    }

    /// The last swarm takes the place of the removed one.
    fn remove_swarm(&mut self, index: usize) {
        let removed = self.swarms.swap_remove(index);
        self.places.remove(&removed.info_hash);
        if let Some(moved) = self.swarms.get(index)
            && let Some(place) = self.places.get_mut(&moved.info_hash)
        {
            *place = u32::try_from(index).unwrap_or(u32::MAX);
        }
    }

    fn n_bytes(&self) -> usize {
        let tables: usize = self.swarms.iter().map(Swarm::n_bytes).sum();
        // A map has a power of two of buckets, 7/8 of them in use at most, and a byte of its own for each.
        let n_buckets = (self.places.capacity() * 8 / 7).next_power_of_two();
        let places = n_buckets * (size_of::<(InfoHash, u32)>() + 1);
        tables + places + self.swarms.capacity() * size_of::<Swarm>()
    }
}

/// Hashes info-hashes: their bytes are spread already, the secret keeps anybody from aiming them.
struct InfoHashHasher {
    seed: Seed,
    state: u64,
}

impl BuildHasher for Seed {
    type Hasher = InfoHashHasher;

    fn build_hasher(&self) -> InfoHashHasher {
        InfoHashHasher { seed: *self, state: 0 }
    }
}

impl Hasher for InfoHashHasher {
    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut padded = [0; 8];
            padded.iter_mut().zip(word).for_each(|(to, from)| *to = *from);
            self.state = self.seed.mix(self.state, u64::from_le_bytes(padded));
        }
    }

    fn finish(&self) -> u64 {
        self.state
    }
}
