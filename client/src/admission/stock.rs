//! Ordinary BitTorrent clients: which of them may take part in which torrent, by the address that they come from.
//!
//! A group's torrent admits those that the tracker announced, for as long as it says so (design §7). A foreign torrent
//! is open to everybody, as it is in every other client.

use mini_torrent_common::control::StockPeer;
use mini_torrent_common::hash::{GroupId, InfoHash};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Moment;

/// Announced clients of one torrent that are remembered; those after them are not admitted.
const MAX_PEERS: usize = 2000;
/// How long a new connection to the tracker has to name the announced clients again that it knows.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);
/// The longest that an announce is good for. So long they are admitted while no tracker can be asked, and a tracker that
/// was started later may not have heard of them yet.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(30 * 60);

/// Why an ordinary client is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAnnounced {
    /// It is members only, or no such torrent is here.
    #[error("a plain handshake: members come with TLS, and no ordinary client was announced for this torrent")]
    Torrent,
    /// The torrent admits other addresses.
    #[error("a plain handshake from an address that was not announced for this torrent")]
    Address,
}

/// The announced clients of a group's torrent.
#[derive(Debug, Clone)]
struct Swarm {
    group: GroupId,
    peers: HashMap<SocketAddr, Announced>,
}

#[derive(Debug, Clone, Copy)]
struct Announced {
    complete: bool,
    /// The round in which it was named last.
    round: u64,
}

/// Who is admitted without a ticket.
#[derive(Debug, Clone, Default)]
pub(crate) struct StockClients {
    open: HashSet<InfoHash>,
    swarms: HashMap<InfoHash, Swarm>,
    /// Goes up when what is known has to be named again.
    round: u64,
    /// When those that were not named again are forgotten.
    confirm_until: Option<Moment>,
}

impl StockClients {
    /// A foreign torrent admits everybody.
    pub(crate) fn open(&mut self, info_hash: InfoHash) {
        self.open.insert(info_hash);
    }

    /// A foreign torrent has ended.
    pub(crate) fn close(&mut self, info_hash: InfoHash) {
        self.open.remove(&info_hash);
    }

    /// The tracker says who came to a group's torrent and who left it.
    pub(crate) fn update(&mut self, info_hash: InfoHash, group: GroupId, came: &[StockPeer], left: &[SocketAddr]) {
        let swarm = self.swarms.entry(info_hash).or_insert_with(|| Swarm { group, peers: HashMap::new() });
        for address in left {
            swarm.peers.remove(address);
        }
        for StockPeer { address, complete } in came.iter().copied() {
            if swarm.peers.len() < MAX_PEERS || swarm.peers.contains_key(&address) {
                swarm.peers.insert(address, Announced { complete, round: self.round });
            }
        }
        if swarm.peers.is_empty() {
            self.swarms.remove(&info_hash);
        }
    }

    /// The announced clients of a torrent.
    pub(crate) fn announced(&self, info_hash: InfoHash) -> Vec<StockPeer> {
        let peers = self.swarms.get(&info_hash).into_iter().flat_map(|swarm| &swarm.peers);
        peers.map(|(address, announced)| StockPeer { address: *address, complete: announced.complete }).collect()
    }

    /// Whether an announced client still needs something.
    pub(crate) fn has_leechers(&self, info_hash: InfoHash) -> bool {
        self.swarms.get(&info_hash).is_some_and(|swarm| swarm.peers.values().any(|peer| !peer.complete))
    }

    /// Nothing of a group's torrent is here any more: nobody tells who leaves it.
    pub(crate) fn forget(&mut self, info_hash: InfoHash) {
        self.swarms.remove(&info_hash);
    }

    pub(super) fn leave(&mut self, group: GroupId) {
        self.swarms.retain(|_, swarm| swarm.group != group);
    }

    pub(super) fn leave_all(&mut self) {
        self.swarms.clear();
    }

    /// A tracker was reached that has been up for so long: it names everybody again who has announced since.
    pub(super) fn connected(&mut self, now: Moment, up: Duration) {
        self.confirm_within(CONFIRM_WITHIN + ANNOUNCE_INTERVAL.saturating_sub(up), now);
    }

    /// No tracker can be asked.
    pub(super) fn cut_off(&mut self, now: Moment) {
        self.confirm_within(ANNOUNCE_INTERVAL, now);
    }

    fn confirm_within(&mut self, patience: Duration, now: Moment) {
        self.round += 1;
        self.confirm_until = Some(now.after(patience));
    }

    /// Forgets those that were not named again in time; says whether there were any.
    pub(crate) fn forget_unconfirmed(&mut self, now: Moment) -> bool {
        if self.confirm_until.is_none_or(|until| now < until) {
            return false;
        }
        self.confirm_until = None;
        let round = self.round;
        let count = |swarms: &HashMap<InfoHash, Swarm>| swarms.values().map(|swarm| swarm.peers.len()).sum::<usize>();
        let n_before = count(&self.swarms);
        self.swarms.values_mut().for_each(|swarm| swarm.peers.retain(|_, peer| peer.round == round));
        self.swarms.retain(|_, swarm| !swarm.peers.is_empty());
        count(&self.swarms) < n_before
    }

    /// Judges a client that comes without a ticket to a foreign torrent.
    pub(crate) fn judge_foreign(&self, info_hash: InfoHash) -> Result<(), NotAnnounced> {
        if self.open.contains(&info_hash) { Ok(()) } else { Err(NotAnnounced::Torrent) }
    }

    /// Judges one that comes to a group's torrent, by the exact address of its connection. That there is a foreign torrent
    /// of the same info-hash opens nothing of a group.
    pub(crate) fn judge_announced(&self, info_hash: InfoHash, from: IpAddr) -> Result<(), NotAnnounced> {
        let swarm = self.swarms.get(&info_hash).ok_or(NotAnnounced::Torrent)?;
        let from = from.to_canonical();
        let is_announced = swarm.peers.keys().any(|peer| peer.ip().to_canonical() == from);
        if is_announced { Ok(()) } else { Err(NotAnnounced::Address) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId([1; 16]);
    const FILE: InfoHash = InfoHash([2; 20]);

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn leecher(text: &str) -> StockPeer {
        StockPeer { address: address(text), complete: false }
    }

    /// Design §7: by info-hash and exact source address.
    #[test]
    fn only_announced_addresses_are_admitted_to_a_groups_torrent() {
        let mut stock = StockClients::default();
        let judge = |stock: &StockClients, hash, ip: &str| stock.judge_announced(hash, ip.parse().unwrap());
        assert_eq!(judge(&stock, FILE, "10.0.0.1"), Err(NotAnnounced::Torrent));
        stock.update(FILE, GROUP, &[leecher("10.0.0.1:6881"), leecher("[2001:db8::1]:6881")], &[]);
        for (ip, verdict) in [
            ("10.0.0.1", Ok(())),
            ("::ffff:10.0.0.1", Ok(())),
            ("2001:db8::1", Ok(())),
            ("10.0.0.2", Err(NotAnnounced::Address)),
            ("2001:db8::2", Err(NotAnnounced::Address)),
        ] {
            assert_eq!(judge(&stock, FILE, ip), verdict, "{ip}");
        }
        assert_eq!(judge(&stock, InfoHash([3; 20]), "10.0.0.1"), Err(NotAnnounced::Torrent));
        stock.update(FILE, GROUP, &[], &[address("10.0.0.1:6881")]);
        assert_eq!(judge(&stock, FILE, "10.0.0.1"), Err(NotAnnounced::Address));
    }

    #[test]
    fn a_foreign_torrent_is_open_until_it_ends() {
        let mut stock = StockClients::default();
        stock.open(FILE);
        assert_eq!(stock.judge_foreign(FILE), Ok(()));
        let from = [10, 0, 0, 9].into();
        assert_eq!(stock.judge_announced(FILE, from), Err(NotAnnounced::Torrent), "a group's torrent is not opened");
        stock.leave_all();
        assert_eq!(stock.judge_foreign(FILE), Ok(()), "a session's end is nothing to it");
        stock.close(FILE);
        assert_eq!(stock.judge_foreign(FILE), Err(NotAnnounced::Torrent));
    }

    #[test]
    fn a_group_that_is_left_admits_nobody() {
        let mut stock = StockClients::default();
        stock.update(FILE, GROUP, &[leecher("10.0.0.1:1")], &[]);
        stock.leave(GroupId([9; 16]));
        assert_eq!(stock.announced(FILE).len(), 1);
        stock.leave(GROUP);
        assert_eq!(stock.judge_announced(FILE, [10, 0, 0, 1].into()), Err(NotAnnounced::Torrent));
        stock.update(FILE, GROUP, &[leecher("10.0.0.1:1")], &[]);
        stock.forget(FILE);
        assert!(stock.announced(FILE).is_empty());
    }

    #[test]
    fn who_is_not_named_again_after_a_reconnection_is_forgotten() {
        let now = Moment::now();
        let mut stock = StockClients::default();
        let (stays, left) = (leecher("10.0.0.1:1"), leecher("10.0.0.2:1"));
        stock.update(FILE, GROUP, &[stays, left], &[]);
        stock.cut_off(now);
        assert!(!stock.forget_unconfirmed(now.after(Duration::from_secs(60))), "nobody could be asked");
        stock.connected(now, ANNOUNCE_INTERVAL);
        stock.update(FILE, GROUP, &[stays], &[]);
        assert!(!stock.forget_unconfirmed(now));
        assert!(stock.forget_unconfirmed(now.after(CONFIRM_WITHIN)));
        assert_eq!(stock.announced(FILE), [stays]);
        stock.cut_off(now);
        assert!(stock.forget_unconfirmed(now.after(ANNOUNCE_INTERVAL)), "a lease does not last for ever");
    }

    #[test]
    fn a_tracker_that_was_just_started_is_given_time_to_hear_of_them() {
        let now = Moment::now();
        let mut stock = StockClients::default();
        stock.update(FILE, GROUP, &[leecher("10.0.0.1:1")], &[]);
        stock.connected(now, Duration::from_secs(1));
        assert!(!stock.forget_unconfirmed(now.after(ANNOUNCE_INTERVAL)));
        assert!(stock.forget_unconfirmed(now.after(ANNOUNCE_INTERVAL + CONFIRM_WITHIN)));
    }

    #[test]
    fn a_client_that_completes_needs_nothing_more() {
        let mut stock = StockClients::default();
        let (one, other) = (leecher("10.0.0.1:1"), leecher("10.0.0.2:1"));
        stock.update(FILE, GROUP, &[one, other], &[]);
        stock.update(FILE, GROUP, &[StockPeer { complete: true, ..one }], &[]);
        assert!(stock.has_leechers(FILE));
        stock.update(FILE, GROUP, &[], &[other.address]);
        assert!(!stock.has_leechers(FILE));
    }

    #[test]
    fn no_more_are_remembered_than_the_bound() {
        let mut stock = StockClients::default();
        let leecher = |port| StockPeer { address: SocketAddr::from(([10, 0, 0, 1], port)), complete: false };
        let many: Vec<_> = (1..=3000).map(leecher).collect();
        stock.update(FILE, GROUP, &many, &[]);
        assert_eq!(stock.announced(FILE).len(), MAX_PEERS);
    }
}
