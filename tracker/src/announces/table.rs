//! The peers of one swarm and one address family: a table of packed slots with linear probing.
//!
//! A slot of IPv4 has 12 bytes, one of IPv6 has 24, and between 13/32 and 13/16 of a grown table are taken. An announce
//! touches a few neighbouring slots whatever the size, and a sample is a walk over neighbours from a random slot, so
//! that neither an index nor an order of arrival is kept.

use std::net::{IpAddr, SocketAddr};

/// Which key admitted a peer: an index that the caller gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyIndex(pub u32);

impl KeyIndex {
    /// Admitted without a key.
    pub(crate) const OPEN: Self = Self(u32::MAX);
}

/// The secrets of the hash, so that nobody can aim his peers at one slot.
#[derive(Clone, Copy)]
pub(super) struct Seed(pub [u64; 2]);

impl Seed {
    pub(super) fn mix(self, a: u64, b: u64) -> u64 {
        let [first, second] = self.0;
        let product = u128::from(a ^ first) * u128::from(b ^ second);
        #[allow(clippy::cast_possible_truncation, reason = "the two halves are folded into one")]
        let folded = (product >> 64) as u64 ^ product as u64;
        folded
    }
}

/// Bits without a pattern: the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// An address of one family, as packed as it can be.
pub(super) trait PackedIp: Copy + Eq {
    const ZERO: Self;
    fn hash(self, port: u16, seed: Seed) -> u64;
    fn unpack(self) -> IpAddr;
}

impl PackedIp for [u8; 4] {
    const ZERO: Self = [0; 4];

    fn hash(self, port: u16, seed: Seed) -> u64 {
        // Twice: one multiplication leaves neighbouring addresses neighbours.
        seed.mix(seed.mix(u64::from(u32::from_be_bytes(self)), u64::from(port)), SPREAD)
    }

    fn unpack(self) -> IpAddr {
        self.into()
    }
}

impl PackedIp for [u8; 16] {
    const ZERO: Self = [0; 16];

    fn hash(self, port: u16, seed: Seed) -> u64 {
        let bits = u128::from_be_bytes(self);
        #[allow(clippy::cast_possible_truncation, reason = "the lower half")]
        let low = bits as u64;
        #[allow(clippy::cast_possible_truncation, reason = "the upper half")]
        let high = (bits >> 64) as u64;
        seed.mix(seed.mix(seed.mix(high, low), u64::from(port)), SPREAD)
    }

    fn unpack(self) -> IpAddr {
        self.into()
    }
}

/// A point in time in units of [`Tick::SECONDS`], that comes round again after three days: far beyond any lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tick(u16);

impl Tick {
    pub(super) const SECONDS: u64 = 8;
    const MASK: u16 = 0x7fff;

    /// The tick of a monotonic clock's second.
    pub(super) fn at(now_s: u64) -> Self {
        let ticks = now_s / Self::SECONDS % (u64::from(Self::MASK) + 1);
        Self(u16::try_from(ticks).unwrap_or_default())
    }

    /// Whole ticks since then. What seems to lie in the future is of now: clocks of threads differ a little.
    fn since(self, then: Self) -> u16 {
        let ticks = self.0.wrapping_sub(then.0) & Self::MASK;
        if ticks > Self::MASK / 2 { 0 } else { ticks }
    }
}

/// One peer. Without a port the slot is free.
#[derive(Clone, Copy)]
struct Slot<A> {
    ip: A,
    port: u16,
    /// The tick of the last announce, and the highest bit for a seeder.
    stamp: u16,
    key: u32,
}

const SEEDER: u16 = 0x8000;

impl<A: PackedIp> Slot<A> {
    const FREE: Self = Self { ip: A::ZERO, port: 0, stamp: 0, key: 0 };

    fn is_free(&self) -> bool {
        self.port == 0
    }

    fn is_seeder(&self) -> bool {
        self.stamp & SEEDER != 0
    }

    fn is_over(&self, now: Tick) -> bool {
        now.since(Tick(self.stamp & Tick::MASK)) > LEASE_TICKS
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip.unpack(), self.port)
    }

    fn peer(&self) -> Peer {
        Peer { address: self.address(), seeder: self.is_seeder(), key: KeyIndex(self.key) }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a lease has a few hundred ticks")]
const LEASE_TICKS: u16 = crate::limits::ANNOUNCE_LEASE.as_secs().div_ceil(Tick::SECONDS) as u16;
/// Slots of the smallest table.
const MIN_SLOTS: usize = 4;
/// Slots that a sample looks at for each peer wanted, so that a swarm of seeders costs a seeder no more.
const SAMPLED_SLOTS_PER_PEER: usize = 8;

/// What an entry was before it was put or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) seeder: bool,
}

/// A peer as it is told to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its source address and the port that it declared.
    pub address: SocketAddr,
    /// Whether it has everything.
    pub seeder: bool,
    /// The key that admitted it.
    pub key: KeyIndex,
}

fn masked(bits: u64, mask: usize) -> usize {
    usize::try_from(bits & mask as u64).unwrap_or_default()
}

/// See the module.
pub(super) struct Table<A> {
    slots: Box<[Slot<A>]>,
    n_peers: u32,
    n_seeders: u32,
}

impl<A> Default for Table<A> {
    fn default() -> Self {
        Self { slots: Box::default(), n_peers: 0, n_seeders: 0 }
    }
}

impl<A: PackedIp> Table<A> {
    pub(super) fn n_peers(&self) -> u32 {
        self.n_peers
    }

    pub(super) fn n_seeders(&self) -> u32 {
        self.n_seeders
    }

    pub(super) fn n_slots(&self) -> usize {
        self.slots.len()
    }

    /// Bytes on the heap.
    pub(super) fn n_bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }

    fn home(&self, ip: A, port: u16, seed: Seed) -> usize {
        masked(ip.hash(port, seed), self.mask())
    }

    /// The slot of a peer, or the free one where it belongs. There is always a free slot in a table that has any.
    fn find(&self, ip: A, port: u16, seed: Seed) -> Result<usize, usize> {
        let mut at = self.home(ip, port, seed);
        loop {
            match self.slots.get(at) {
                Some(slot) if slot.port == port && slot.ip == ip => return Ok(at),
                Some(slot) if !slot.is_free() => at = (at + 1) & self.mask(),
                _ => return Err(at),
            }
        }
    }

    /// Notes an announce; says what the peer was before, if it was there.
    pub(super) fn put(
        &mut self,
        ip: A,
        port: u16,
        seeder: bool,
        key: KeyIndex,
        now: Tick,
        seed: Seed,
    ) -> Option<Before> {
        let stamp = now.0 | if seeder { SEEDER } else { 0 };
        let new = Slot { ip, port, stamp, key: key.0 };
        if let Ok(at) = self.find_in_any(ip, port, seed) {
            let slot = self.slots.get_mut(at)?;
            let before = Before { seeder: slot.is_seeder() };
            *slot = new;
            self.n_seeders = self.n_seeders + u32::from(seeder) - u32::from(before.seeder);
            return Some(before);
        }
        if (self.n_peers as usize + 1) * 16 > self.slots.len() * 13 {
            self.resize((self.slots.len() * 2).max(MIN_SLOTS), seed);
        }
        self.insert_new(new, seed);
        self.n_peers += 1;
        self.n_seeders += u32::from(seeder);
        None
    }

    fn find_in_any(&self, ip: A, port: u16, seed: Seed) -> Result<usize, usize> {
        if self.slots.is_empty() { Err(0) } else { self.find(ip, port, seed) }
    }

    fn insert_new(&mut self, new: Slot<A>, seed: Seed) {
        let (Ok(at) | Err(at)) = self.find(new.ip, new.port, seed);
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = new;
        }
    }

    fn resize(&mut self, n_slots: usize, seed: Seed) {
        let old = std::mem::replace(&mut self.slots, vec![Slot::FREE; n_slots].into());
        old.iter().filter(|slot| !slot.is_free()).for_each(|slot| self.insert_new(*slot, seed));
    }

    /// A peer, if it is there.
    pub(super) fn peer(&self, ip: A, port: u16, seed: Seed) -> Option<Peer> {
        let at = self.find_in_any(ip, port, seed).ok()?;
        self.slots.get(at).map(Slot::peer)
    }

    pub(super) fn contains(&self, ip: A, port: u16, seed: Seed) -> bool {
        self.find_in_any(ip, port, seed).is_ok()
    }

    /// Takes a peer out; says what it was, if it was there.
    pub(super) fn remove(&mut self, ip: A, port: u16, seed: Seed) -> Option<Before> {
        let at = self.find_in_any(ip, port, seed).ok()?;
        self.remove_at(at, seed).map(|slot| Before { seeder: slot.is_seeder() })
    }

    /// Frees a slot and moves up those behind it that probing would miss then.
    fn remove_at(&mut self, at: usize, seed: Seed) -> Option<Slot<A>> {
        let removed = *self.slots.get(at)?;
        let (mask, mut hole, mut next) = (self.mask(), at, at);
        loop {
            next = (next + 1) & mask;
            let Some(slot) = self.slots.get(next).copied().filter(|slot| !slot.is_free()) else { break };
            let home = self.home(slot.ip, slot.port, seed);
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(hole) & mask) {
                self.set(hole, slot);
                hole = next;
            }
        }
        self.set(hole, Slot::FREE);
        self.n_peers -= 1;
        self.n_seeders -= u32::from(removed.is_seeder());
        Some(removed)
    }

    fn set(&mut self, at: usize, slot: Slot<A>) {
        if let Some(place) = self.slots.get_mut(at) {
            *place = slot;
        }
    }

    /// Gives memory back when most of the table is free. Kept apart from removing, so that a walk stays valid.
    pub(super) fn shrink(&mut self, seed: Seed) {
        if self.n_peers == 0 {
            self.slots = Box::default();
        } else if self.slots.len() > MIN_SLOTS && (self.n_peers as usize) * 8 < self.slots.len() {
            let n_slots = (self.n_peers as usize * 2).next_power_of_two().max(MIN_SLOTS);
            self.resize(n_slots, seed);
        }
    }

    /// Removes the peers of the slots `from..from + n_slots` that `ends` chooses.
    fn remove_if(
        &mut self,
        from: usize,
        n_slots: usize,
        seed: Seed,
        ends: impl Fn(&Slot<A>) -> bool,
        ended: &mut impl FnMut(SocketAddr),
    ) {
        let end = from.saturating_add(n_slots).min(self.slots.len());
        for at in from..end {
            // What moves up into the slot is looked at, too.
            while self.slots.get(at).is_some_and(|slot| !slot.is_free() && ends(slot)) {
                if let Some(slot) = self.remove_at(at, seed) {
                    ended(slot.address());
                }
            }
        }
    }

    /// Removes the peers of some slots whose lease ended.
    pub(super) fn sweep(
        &mut self,
        from: usize,
        n_slots: usize,
        now: Tick,
        seed: Seed,
        ended: &mut impl FnMut(SocketAddr),
    ) {
        self.remove_if(from, n_slots, seed, |slot| slot.is_over(now), ended);
    }

    /// Removes the peers that a key admitted, or all.
    pub(super) fn end(&mut self, key: Option<KeyIndex>, seed: Seed, ended: &mut impl FnMut(SocketAddr)) {
        let ends = |slot: &Slot<A>| key.is_none_or(|key| slot.key == key.0);
        // A removal may move a slot from the table's start to its end, but never one that was to be removed.
        self.remove_if(0, usize::MAX, seed, ends, ended);
        self.shrink(seed);
    }

    /// Names up to `n_wanted` peers whose lease runs, neighbours from a random slot; no seeder to a seeder, nor the
    /// asker to himself.
    pub(super) fn sample(
        &self,
        n_wanted: usize,
        random: u64,
        asker: (SocketAddr, bool),
        now: Tick,
        mut take: impl FnMut(SocketAddr),
    ) {
        let (asker, asker_is_seeder) = asker;
        let mut n_left = n_wanted.min(self.n_peers as usize);
        if n_left == 0 || (asker_is_seeder && self.n_seeders == self.n_peers) {
            return;
        }
        let start = masked(random, self.mask());
        let n_slots = self.slots.len().min(n_wanted.max(MIN_SLOTS) * SAMPLED_SLOTS_PER_PEER);
        let (before, from) = self.slots.split_at(start);
        for slot in from.iter().chain(before).take(n_slots) {
            if slot.is_free() || (asker_is_seeder && slot.is_seeder()) || slot.is_over(now) {
                continue;
            }
            let address = slot.address();
            if address != asker {
                take(address);
                n_left -= 1;
                if n_left == 0 {
                    return;
                }
            }
        }
    }

    /// All peers whose lease runs.
    pub(super) fn peers(&self, now: Tick) -> impl Iterator<Item = Peer> {
        let live = self.slots.iter().filter(move |slot| !slot.is_free() && !slot.is_over(now));
        live.map(Slot::peer)
    }

    /// Slots that a look-up of each peer touches, on average in hundredths: what an announce costs.
    #[cfg(test)]
    pub(super) fn probes_per_100_peers(&self, seed: Seed) -> usize {
        let probes =
            |(at, slot): (usize, &Slot<A>)| (at.wrapping_sub(self.home(slot.ip, slot.port, seed)) & self.mask()) + 1;
        let taken = self.slots.iter().enumerate().filter(|(_, slot)| !slot.is_free());
        taken.map(probes).sum::<usize>() * 100 / (self.n_peers as usize).max(1)
    }
}
