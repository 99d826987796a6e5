//! Ordinary BitTorrent clients: announces, scrapes, and what members hear of them. Nothing here touches the store or
//! waits, so that the edges may call it from any thread; what has to be stored is left to `keys`.

use super::Service;
use super::stock_elsewhere::{StockElsewhere, StockOutbox};
use crate::announces::{Announce, Announces, Change, KeyIndex, Peer, Wanted};
use crate::clock::{Clock, Moment};
use crate::keys::{Held, Key, KeyTable, TooManyPlaces, Used};
use crate::limits;
use crate::presence::{ConnectionId, News, WantedMembers};
use mini_torrent_common::announce::{Counts, Event};
use mini_torrent_common::announce_key::AnnounceKey;
use mini_torrent_common::control::{self, KeyId, ListingId, StockPeer};
use mini_torrent_common::hash::InfoHash;
use rand::RngExt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;

/// What the tracker knows of ordinary clients, in memory.
pub(crate) struct OrdinaryClients {
    pub(super) keys: KeyTable,
    pub(super) announces: Announces,
    pub(super) elsewhere: StockElsewhere,
    pub(super) outbox: StockOutbox,
    /// The number of the change that `keys` was read after; held while it is read.
    pub(super) last_change: tokio::sync::Mutex<u64>,
    suspensions: mpsc::Sender<KeyId>,
    pub(super) suspended: Mutex<Option<mpsc::Receiver<KeyId>>>,
    clock: Clock,
    start: Moment,
    n_answers: AtomicUsize,
}

/// What an ordinary client shows to be admitted.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// Nothing.
    None,
    /// Something that is no key.
    Malformed,
    /// A key, of which nothing is known yet.
    Key(AnnounceKey),
}

impl Credential {
    /// What the front of an announce URL's path shows: nothing, or `/` and a key. `None` for another path.
    pub(crate) fn of_path(path: &[u8]) -> Option<Self> {
        let Some((first, segment)) = path.split_first() else { return Some(Self::None) };
        if *first != b'/' || segment.contains(&b'/') {
            return None;
        }
        Some(AnnounceKey::from_text(segment).map_or(Self::Malformed, Self::Key))
    }
}

/// A file that a credential opens.
struct Opened<'a> {
    listing: ListingId,
    index: KeyIndex,
    /// `None` for an open file.
    key: Option<&'a Key>,
}

/// An announce as an edge received it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OrdinaryAnnounce {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Where it came from, canonical, with the declared port, which is not 0.
    pub address: SocketAddr,
    /// Bytes that the client still needs.
    pub left: u64,
    /// Why it announces.
    pub event: Event,
    /// How many peers it wants; `None` leaves it to us.
    pub numwant: Option<u16>,
    /// Whether the answer has room for one family of addresses only.
    pub own_family_only: bool,
}

/// Why an ordinary client gets no answer. The text is the `failure reason`, and says no more than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TurnedAway {
    /// No such key, or it has ended or is suspended, or it opens another file, or the file needs a key.
    #[error("unknown key or file")]
    NotAdmitted,
    /// There is no room.
    #[error("the tracker is full; try again later")]
    Full,
    /// The store has not been seen for so long that the key may have ended.
    #[error("the tracker cannot reach its database; try again later")]
    Blind,
}

/// An ordinary client as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OnlineStockPeer {
    /// Where it is.
    pub address: SocketAddr,
    /// Whether it has everything.
    pub complete: bool,
    /// Whose key admitted it; `None` for one without a key.
    pub user: Option<String>,
}

impl OrdinaryClients {
    pub(super) fn new(clock: Clock) -> Self {
        let (suspensions, suspended) = mpsc::channel(limits::MAX_QUEUED_SUSPENSIONS);
        Self {
            keys: KeyTable::default(),
            announces: Announces::new(rand::rng().random()),
            elsewhere: StockElsewhere::default(),
            outbox: StockOutbox::default(),
            last_change: tokio::sync::Mutex::default(),
            suspensions,
            suspended: Mutex::new(Some(suspended)),
            start: clock.now(),
            clock,
            n_answers: AtomicUsize::new(0),
        }
    }

    /// Seconds of the monotonic clock since the tracker started.
    pub(super) fn now_s(&self) -> u64 {
        self.clock.now().since(self.start).as_secs()
    }

    /// What this credential opens, if it opens this file. Its key may be suspended.
    fn open<'a>(held: &'a Held<'_>, credential: &Credential, info_hash: InfoHash) -> Result<Opened<'a>, TurnedAway> {
        let opened = match credential {
            Credential::Malformed => None,
            Credential::None => {
                let file = held.file(info_hash).filter(|file| file.open);
                file.map(|file| Opened { listing: file.listing, index: KeyIndex::OPEN, key: None })
            }
            Credential::Key(key) => {
                let found = held.find(key).filter(|(_, key)| key.info_hash == info_hash);
                found.map(|(index, key)| Opened { listing: key.listing, index, key: Some(key) })
            }
        };
        opened.ok_or(TurnedAway::NotAdmitted)
    }

    /// Notes the use of a key unless it is suspended; too many places suspend it.
    fn note_use(&self, key: &Key, used: Used) -> Result<(), TurnedAway> {
        let mut usage = key.usage();
        let noted = usage.note(used);
        if noted == Err(TooManyPlaces::Now) && self.suspensions.try_send(key.id).is_err() {
            usage.take_back_suspension();
        }
        noted.map_err(|_| TurnedAway::NotAdmitted)
    }
}

impl Service {
    /// Notes an announce and names members' and other ordinary clients in `peers`; returns the swarm's numbers.
    ///
    /// # Errors
    /// As [`TurnedAway`] says; then nothing is noted and nobody named.
    pub(crate) fn announce_ordinary(
        &self,
        credential: &Credential,
        asked: &OrdinaryAnnounce,
        peers: &mut Vec<SocketAddr>,
    ) -> Result<Counts, TurnedAway> {
        peers.clear();
        let OrdinaryAnnounce { info_hash, address, event, .. } = *asked;
        // Who leaves is told of nobody.
        if event != Event::Stopped {
            self.check_sight()?;
        }
        let (clients, now_s) = (&self.ordinary, self.ordinary.now_s());
        let held = clients.keys.hold();
        let Opened { listing, index, key } = OrdinaryClients::open(&held, credential, info_hash)?;
        if let Some(key) = key {
            clients.note_use(key, Used { address, at_s: now_s })?;
        }
        let seeder = asked.left == 0;
        let n_wanted = match event {
            Event::Stopped => 0,
            _ => asked.numwant.unwrap_or(limits::DEFAULT_NUMWANT),
        };
        let wanted = WantedMembers {
            n: n_wanted.into(),
            family_of: asked.own_family_only.then_some(address),
            for_seeder: seeder,
            random: clients.n_answers.fetch_add(1, Ordering::Relaxed),
        };
        let (n_seeders, n_leechers) = self.presence.members_of(listing, wanted, |member| peers.push(member));
        let n_members = peers.len();
        let n_stock = usize::from(n_wanted).saturating_sub(n_members.min(usize::from(n_wanted) / 2));
        // First those of other trackers, up to half of the places.
        let n_elsewhere = n_stock.div_ceil(2);
        clients.elsewhere.sample(info_hash, wanted_stock(n_wanted, asked), (address, seeder), |peer| {
            if peers.len() < n_members + n_elsewhere {
                peers.push(peer);
            }
        });
        let announce = Announce { info_hash, address, key: index, seeder, event };
        let announced = clients
            .announces
            .announce(&announce, wanted_stock(n_wanted, asked), now_s, |peer| {
                if peers.len() < n_members + n_stock {
                    peers.push(peer);
                }
            })
            .map_err(|_| TurnedAway::Full)?;
        // Ordinary clients hear of each other too, however many members there are.
        let n_too_many = peers.len().saturating_sub(n_wanted.into());
        peers.drain(..n_too_many);
        let is_news = matches!(announced.change, Change::Came | Change::Completed | Change::Left);
        let left_others =
            (is_news || event == Event::Stopped) && clients.elsewhere.leave_others(info_hash, address, None);
        if left_others && event == Event::Stopped {
            self.presence.tell_elsewhere(News::StockStopped { listing, address });
        }
        if is_news || left_others {
            self.stock_changed(listing, &[address]);
        }
        let elsewhere = clients.elsewhere.counts(info_hash);
        Ok(with_others(with_others(announced.counts, (n_seeders, n_leechers)), elsewhere))
    }

    fn check_sight(&self) -> Result<(), TurnedAway> {
        if self.others.is_dead(self.clock.now()) { Err(TurnedAway::Blind) } else { Ok(()) }
    }

    /// The numbers of a swarm, for who is admitted to its file.
    ///
    /// # Errors
    /// [`TurnedAway::NotAdmitted`], [`TurnedAway::Blind`].
    pub(crate) fn scrape_ordinary(&self, credential: &Credential, info_hash: InfoHash) -> Result<Counts, TurnedAway> {
        self.check_sight()?;
        let held = self.ordinary.keys.hold();
        let Opened { listing, key, .. } = OrdinaryClients::open(&held, credential, info_hash)?;
        if key.is_some_and(|key| key.usage().is_suspended()) {
            return Err(TurnedAway::NotAdmitted);
        }
        let members = self.presence.counts([listing]).first().copied().unwrap_or_default();
        let stock = with_others(
            self.ordinary.announces.counts(info_hash).unwrap_or_default(),
            self.ordinary.elsewhere.counts(info_hash),
        );
        Ok(with_others(stock, members))
    }

    /// Seeders and leechers among the ordinary clients of a torrent.
    pub(super) fn stock_counts(&self, info_hash: InfoHash) -> (u32, u32) {
        let counts = self.ordinary.announces.counts(info_hash).unwrap_or_default();
        let counts = with_others(counts, self.ordinary.elsewhere.counts(info_hash));
        (counts.complete, counts.incomplete)
    }

    /// What a connection's client has not been told of ordinary clients yet, one event a swarm.
    pub(crate) fn take_stock_events(&self, id: ConnectionId) -> Vec<control::Event> {
        let news = self.presence.take_stock_news(id);
        if news.is_empty() {
            return Vec::new();
        }
        let events = news.into_iter().filter_map(|(listing, changes)| {
            let info_hash = self.ordinary.keys.hold().info_hash(listing);
            let (mut came, mut left) = (Vec::new(), Vec::new());
            for address in changes.changed {
                match info_hash.and_then(|info_hash| self.ordinary.peer_anywhere(info_hash, address)) {
                    Some(peer) => came.push(StockPeer { address, complete: peer.seeder }),
                    None => left.push(address),
                }
            }
            if let Some(info_hash) = info_hash.filter(|_| changes.all) {
                came.clear();
                self.ordinary.peers_anywhere(info_hash, |Peer { address, seeder, .. }| {
                    if came.len() < limits::MAX_STOCK_PEERS {
                        came.push(StockPeer { address, complete: seeder });
                    }
                });
            }
            let is_empty = came.is_empty() && left.is_empty();
            (!is_empty).then_some(control::Event::StockPeers { listing, came, left })
        });
        events.collect()
    }

    /// The ordinary clients of a torrent.
    pub(crate) fn stock_peers_of(&self, info_hash: InfoHash) -> Vec<OnlineStockPeer> {
        let held = self.ordinary.keys.hold();
        let mut peers = Vec::new();
        self.ordinary.peers_anywhere(info_hash, |Peer { address, seeder, key }| {
            let user = held.key(key).map(|key| key.user.to_string());
            peers.push(OnlineStockPeer { address, complete: seeder, user });
        });
        peers
    }

    /// Every torrent that ordinary clients may be in.
    pub(crate) fn ordinary_files(&self) -> Vec<InfoHash> {
        self.ordinary.keys.hold().files().map(|(info_hash, _)| info_hash).collect()
    }

    /// Seconds of the monotonic clock since the tracker started.
    pub(crate) fn uptime_s(&self) -> u64 {
        self.ordinary.now_s()
    }

    /// The memory of ordinary clients' swarms, for its numbers.
    pub(crate) fn announces(&self) -> &Announces {
        &self.ordinary.announces
    }

    /// One round of the sweeper: ordinary clients whose lease has ended leave.
    pub(crate) fn sweep_announces(&self) {
        let now_s = self.ordinary.now_s();
        for shard in 0..crate::announces::N_SHARDS {
            let mut ended: Vec<(InfoHash, SocketAddr)> = Vec::new();
            self.ordinary.announces.sweep(shard, limits::SWEPT_SLOTS, now_s, |info_hash, address| {
                ended.push((info_hash, address));
            });
            for (info_hash, address) in ended {
                let file = self.ordinary.keys.hold().file(info_hash);
                if let Some(file) = file {
                    self.stock_changed(file.listing, &[address]);
                }
            }
        }
    }

    /// Takes the keys that wait to be suspended; once.
    pub(super) fn take_suspensions(&self) -> Option<mpsc::Receiver<KeyId>> {
        self.ordinary.suspended.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A client of IPv4 is told of others first; one of IPv6 gets most of its own kind, whom fewer can reach.
fn wanted_stock(n: u16, asked: &OrdinaryAnnounce) -> Wanted {
    match (asked.address.is_ipv4(), asked.own_family_only) {
        (true, true) => Wanted { v4: n, v6: 0 },
        (false, true) => Wanted { v4: 0, v6: n },
        (true, false) => Wanted { v4: n, v6: n },
        (false, false) => Wanted { v4: n / 4, v6: n },
    }
}

fn with_others(stock: Counts, (n_seeders, n_leechers): (u32, u32)) -> Counts {
    Counts {
        complete: stock.complete.saturating_add(n_seeders),
        incomplete: stock.incomplete.saturating_add(n_leechers),
        ..stock
    }
}
