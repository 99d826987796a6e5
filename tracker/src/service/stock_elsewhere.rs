//! Ordinary clients that announce to other trackers of the deployment. They are in the swarms like those that announce
//! here; their own tracker says when they leave, so they have no lease here.
//!
//! When a tracker dies, its ordinary clients do not: they come to another one with their next announce, half an hour later
//! perhaps. Until the lease has run out that they had at most, they stay as orphans.
//!
//! An address is in a swarm once. One that announces here is here; of two trackers that it announces to, the one with
//! the smaller number keeps it when it comes there anew.

use super::Service;
use super::ordinary::OrdinaryClients;
use crate::announces::{Announce, Announces, Change, KeyIndex, Peer, Wanted};
use crate::limits;
use crate::store::{OnlinePage, OnlineStockClient, TrackerNumber};
use mini_torrent_common::announce::Event;
use mini_torrent_common::control::{KeyId, ListingId};
use mini_torrent_common::hash::InfoHash;
use rand::RngExt;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What time it is for clients without a lease.
const NO_LEASE_S: u64 = 0;

/// Where clients announce, or announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Home {
    tracker: TrackerNumber,
    /// That tracker, or that life of it, is dead: until when its clients stay, in seconds of the monotonic clock.
    orphaned_until_s: Option<u64>,
}

impl Home {
    fn at(tracker: TrackerNumber) -> Self {
        Self { tracker, orphaned_until_s: None }
    }
}

/// The swarms of each other tracker.
#[derive(Default)]
pub(super) struct StockElsewhere {
    /// Whether there has ever been anybody: an announce of a lonely tracker takes no lock for the others.
    is_used: AtomicBool,
    swarms: RwLock<BTreeMap<Home, Announces>>,
}

/// What changed among the own ordinary clients since it was written for the other trackers.
#[derive(Default)]
pub(super) struct StockOutbox {
    is_open: AtomicBool,
    has_run_over: AtomicBool,
    changed: Mutex<HashSet<(ListingId, SocketAddr)>>,
}

impl StockOutbox {
    fn changed(&self) -> MutexGuard<'_, HashSet<(ListingId, SocketAddr)>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, listing: ListingId, addresses: &[SocketAddr]) {
        if addresses.is_empty() || !self.is_open.load(Ordering::Relaxed) {
            return;
        }
        let mut changed = self.changed();
        if changed.len() + addresses.len() > limits::MAX_QUEUED_STOCK_CHANGES {
            return self.has_run_over.store(true, Ordering::Relaxed);
        }
        changed.extend(addresses.iter().map(|address| (listing, *address)));
    }
}

impl StockElsewhere {
    fn swarms(&self) -> Option<RwLockReadGuard<'_, BTreeMap<Home, Announces>>> {
        let is_used = self.is_used.load(Ordering::Relaxed);
        is_used.then(|| self.swarms.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Seeders and leechers of a torrent.
    pub(super) fn counts(&self, info_hash: InfoHash) -> (u32, u32) {
        let swarms = self.swarms();
        let counts = swarms.iter().flat_map(|swarms| swarms.values()).filter_map(|swarms| swarms.counts(info_hash));
        counts.fold((0, 0), |(n_seeders, n_leechers), counts| {
            (n_seeders.saturating_add(counts.complete), n_leechers.saturating_add(counts.incomplete))
        })
    }

    /// Names some clients of a torrent.
    pub(super) fn sample(
        &self,
        info_hash: InfoHash,
        wanted: Wanted,
        asker: (SocketAddr, bool),
        mut take: impl FnMut(SocketAddr),
    ) {
        for swarms in self.swarms().iter().flat_map(|swarms| swarms.values()) {
            swarms.sample(info_hash, wanted, asker, NO_LEASE_S, &mut take);
        }
    }

    /// A client of a torrent, if it is there.
    pub(super) fn peer(&self, info_hash: InfoHash, address: SocketAddr) -> Option<Peer> {
        self.swarms()?.values().find_map(|swarms| swarms.peer(info_hash, address))
    }

    /// Shows each client of a torrent.
    pub(super) fn peers(&self, info_hash: InfoHash, mut take: impl FnMut(Peer)) {
        for swarms in self.swarms().iter().flat_map(|swarms| swarms.values()) {
            swarms.peers(info_hash, NO_LEASE_S, &mut take);
        }
    }

    /// Removes those that a key admitted, or all, and names them.
    pub(super) fn end(&self, info_hash: InfoHash, key: Option<KeyIndex>, mut ended: impl FnMut(SocketAddr)) {
        for swarms in self.swarms().iter().flat_map(|swarms| swarms.values()) {
            match key {
                Some(key) => swarms.end_key(info_hash, key, &mut ended),
                None => swarms.end_swarm(info_hash, &mut ended),
            }
        }
    }

    /// The client announces here, or to that tracker: it is nowhere else. `true` when it was.
    pub(super) fn leave_others(&self, info_hash: InfoHash, address: SocketAddr, but: Option<TrackerNumber>) -> bool {
        let mut has_left = false;
        for (home, swarms) in self.swarms().iter().flat_map(|swarms| swarms.iter()) {
            if Some(*home) != but.map(Home::at) {
                has_left |= leave(swarms, info_hash, address);
            }
        }
        has_left
    }

    /// Makes room for the swarms of a tracker.
    fn know(&self, tracker: TrackerNumber) {
        let home = Home::at(tracker);
        if !self.swarms().is_some_and(|swarms| swarms.contains_key(&home)) {
            let mut swarms = self.swarms_mut();
            swarms.entry(home).or_insert_with(|| Announces::new(rand::rng().random()));
            self.is_used.store(true, Ordering::Relaxed);
        }
    }

    fn swarms_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<Home, Announces>> {
        self.swarms.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, tracker: TrackerNumber) -> Option<Announces> {
        self.swarms_mut().remove(&Home::at(tracker))
    }

    fn orphan(&self, tracker: TrackerNumber, until_s: u64) {
        let mut swarms = self.swarms_mut();
        if let Some(orphans) = swarms.remove(&Home::at(tracker)).filter(|swarms| swarms.n_peers() > 0) {
            swarms.insert(Home { tracker, orphaned_until_s: Some(until_s) }, orphans);
        }
    }

    /// Forgets orphans whose time is over.
    fn forget_orphans(&self, now_s: u64) -> Vec<Announces> {
        let is_over = |home: &Home| home.orphaned_until_s.is_some_and(|until_s| until_s <= now_s);
        if !self.swarms().is_some_and(|swarms| swarms.keys().any(is_over)) {
            return Vec::new();
        }
        self.swarms_mut().extract_if(.., |home, _| is_over(home)).map(|(_, swarms)| swarms).collect()
    }

    /// `true` when something came, completed or left.
    fn put(&self, tracker: TrackerNumber, announce: &Announce) -> bool {
        let swarms = self.swarms();
        let Some(swarms) = swarms.as_ref().and_then(|swarms| swarms.get(&Home::at(tracker))) else { return false };
        let put = swarms.announce(announce, Wanted::default(), NO_LEASE_S, |_| {});
        put.is_ok_and(|put| !matches!(put.change, Change::Stayed | Change::Absent))
    }
}

fn stop_of(info_hash: InfoHash, address: SocketAddr) -> Announce {
    Announce { info_hash, address, key: KeyIndex::OPEN, seeder: false, event: Event::Stopped }
}

fn leave(swarms: &Announces, info_hash: InfoHash, address: SocketAddr) -> bool {
    let left = swarms.announce(&stop_of(info_hash, address), Wanted::default(), NO_LEASE_S, |_| {});
    left.is_ok_and(|left| left.change == Change::Left)
}

impl OrdinaryClients {
    /// An ordinary client, wherever it announces.
    pub(super) fn peer_anywhere(&self, info_hash: InfoHash, address: SocketAddr) -> Option<Peer> {
        self.announces.peer(info_hash, address).or_else(|| self.elsewhere.peer(info_hash, address))
    }

    /// Every ordinary client of a torrent whose lease runs, wherever it announces.
    pub(super) fn peers_anywhere(&self, info_hash: InfoHash, mut take: impl FnMut(Peer)) {
        self.announces.peers(info_hash, self.now_s(), &mut take);
        self.elsewhere.peers(info_hash, take);
    }
}

impl Service {
    /// Own ordinary clients came to a swarm, left it or completed.
    pub(super) fn stock_changed(&self, listing: ListingId, addresses: &[SocketAddr]) {
        self.ordinary.outbox.note(listing, addresses);
        self.presence.stock_peers_changed(listing, addresses);
    }

    /// There is another tracker, which knows nothing: everything is to be written.
    pub(super) fn open_stock_outbox(&self) {
        let outbox = &self.ordinary.outbox;
        outbox.is_open.store(true, Ordering::Relaxed);
        outbox.has_run_over.store(false, Ordering::Relaxed);
        for (info_hash, file) in self.ordinary.keys.hold().files() {
            let now_s = self.ordinary.now_s();
            let mut changed = outbox.changed();
            self.ordinary.announces.peers(info_hash, now_s, |peer| {
                changed.insert((file.listing, peer.address));
            });
        }
    }

    /// There is no other tracker any more.
    pub(super) fn close_stock_outbox(&self) {
        self.ordinary.outbox.is_open.store(false, Ordering::Relaxed);
        *self.ordinary.outbox.changed() = HashSet::new();
    }

    /// Whether so much changed that it is easier to write everything anew.
    pub(super) fn stock_has_run_over(&self) -> bool {
        self.ordinary.outbox.has_run_over.load(Ordering::Relaxed)
    }

    /// The next batch of what changed.
    pub(super) fn take_stock_changes(&self) -> Vec<OnlineStockClient> {
        let mut waiting = self.ordinary.outbox.changed();
        let batch: Vec<_> = waiting.iter().take(limits::ONLINE_BATCH).copied().collect();
        for change in &batch {
            waiting.remove(change);
        }
        drop(waiting);
        let held = self.ordinary.keys.hold();
        let changes = batch.into_iter().map(|(listing, address)| {
            let info_hash = held.info_hash(listing);
            let peer = info_hash.and_then(|info_hash| self.ordinary.announces.peer(info_hash, address));
            let key = peer.and_then(|peer| held.key(peer.key)).map(|key| key.id);
            OnlineStockClient { listing, address, key, complete: peer.map(|peer| peer.seeder) }
        });
        changes.collect()
    }

    /// A batch could not be written: it comes again.
    pub(super) fn put_stock_back(&self, changes: &[OnlineStockClient]) {
        self.ordinary.outbox.changed().extend(changes.iter().map(|change| (change.listing, change.address)));
    }

    /// Takes what another tracker wrote about ordinary clients.
    pub(super) async fn follow_stock(&self, tracker: TrackerNumber, page: &OnlinePage) {
        if page.anew {
            self.forget_stock_of(tracker);
        }
        if page.stock.is_empty() {
            return;
        }
        // They may have come with keys that are new.
        self.refresh_keys().await;
        self.ordinary.elsewhere.know(tracker);
        let mut changed: HashMap<ListingId, Vec<SocketAddr>> = HashMap::new();
        {
            let held = self.ordinary.keys.hold();
            let keys: HashMap<KeyId, KeyIndex> = held.places().map(|(place, key)| (key.id, place)).collect();
            for (info_hash, client) in &page.stock {
                let is_open = || held.file(*info_hash).is_some_and(|file| file.open);
                let key = match client.key {
                    Some(key) => keys.get(&key).copied(),
                    None => is_open().then_some(KeyIndex::OPEN),
                };
                if self.follow_stock_client(tracker, *info_hash, client, key, page.anew) {
                    changed.entry(client.listing).or_default().push(client.address);
                }
            }
        }
        for (listing, addresses) in changed {
            self.presence.stock_peers_changed(listing, &addresses);
        }
    }

    /// `true` when that changed something in the swarm. Whose `key` is not good any more, leaves.
    fn follow_stock_client(
        &self,
        tracker: TrackerNumber,
        info_hash: InfoHash,
        client: &OnlineStockClient,
        key: Option<KeyIndex>,
        anew: bool,
    ) -> bool {
        let (clients, address) = (&self.ordinary, client.address);
        let (Some(seeder), Some(key)) = (client.complete, key) else {
            return clients.elsewhere.put(tracker, &stop_of(info_hash, address));
        };
        if clients.announces.peer(info_hash, address).is_some() {
            if anew || tracker > self.policy.number {
                return false;
            }
            leave(&clients.announces, info_hash, address);
            clients.outbox.note(client.listing, &[address]);
        }
        clients.elsewhere.leave_others(info_hash, address, Some(tracker));
        let there = Announce { info_hash, address, key, seeder, event: Event::Periodic };
        clients.elsewhere.put(tracker, &there)
    }

    /// An ordinary client has stopped at another tracker: it is not here either.
    pub(super) fn stop_stock_client(&self, listing: ListingId, address: SocketAddr) {
        let Some(info_hash) = self.ordinary.keys.hold().info_hash(listing) else { return };
        let was_here = leave(&self.ordinary.announces, info_hash, address);
        if self.ordinary.elsewhere.leave_others(info_hash, address, None) || was_here {
            self.stock_changed(listing, &[address]);
        }
    }

    /// Another tracker has ended, and its ordinary clients with it.
    pub(super) fn forget_stock_of(&self, tracker: TrackerNumber) {
        let swarms = self.ordinary.elsewhere.forget(tracker);
        self.tell_of_forgotten(swarms.as_slice());
    }

    /// Another tracker is dead, or was: its ordinary clients have not heard of it.
    pub(super) fn orphan_stock_of(&self, tracker: TrackerNumber) {
        let until_s = self.ordinary.now_s() + limits::ANNOUNCE_LEASE.as_secs();
        self.ordinary.elsewhere.orphan(tracker, until_s);
    }

    /// Forgets orphans that would have come to another tracker by now.
    pub(super) fn forget_orphans(&self) {
        let forgotten = self.ordinary.elsewhere.forget_orphans(self.ordinary.now_s());
        self.tell_of_forgotten(&forgotten);
    }

    fn tell_of_forgotten(&self, forgotten: &[Announces]) {
        if forgotten.is_empty() {
            return;
        }
        let files: Vec<_> = self.ordinary.keys.hold().files().collect();
        for (info_hash, file) in files {
            let mut addresses = Vec::new();
            for swarms in forgotten {
                swarms.peers(info_hash, NO_LEASE_S, |peer| addresses.push(peer.address));
            }
            self.presence.stock_peers_changed(file.listing, &addresses);
        }
    }
}
