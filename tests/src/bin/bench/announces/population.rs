//! Who announces: files, their keys, and peers at many addresses.
//!
//! A key is used from as many addresses as the tracker lets a member have, and each of them hides several peers that
//! differ by the port they declare.

use mini_torrent_common::announce_key::AnnounceKey;
use mini_torrent_common::control::Request;
use mini_torrent_common::hash::InfoHash;
use mini_torrent_common::names::FileName;
use mini_torrent_tests::client::password_of;
use mini_torrent_tests::{GROUP, Tracker, WireMember};
use rand::RngExt;
use rusqlite::{Connection, params};
use sha1::{Digest, Sha1};
use std::net::Ipv4Addr;

/// Files, each with a key of its own and a swarm.
pub(super) const N_FILES: u32 = 10_000;
/// Peers in all swarms together.
pub(super) const MAX_PEERS: u32 = N_FILES * PEERS_PER_FILE;
/// Addresses that announce.
pub(super) const N_SOURCES: u32 = 64;
/// Peers that an announce asks for.
pub(super) const NUMWANT: u16 = 30;

const PEERS_PER_FILE: u32 = 100;
/// Addresses that a key may be used from within the hour.
const SOURCES_PER_KEY: u32 = 8;
/// One announce in so many has a wrong key.
const WRONG_KEY_EVERY: u32 = 100;
/// One peer in so many has everything.
const SEEDER_EVERY: u32 = 4;
const FIRST_PORT: u16 = 2000;
/// Members whose the keys are: no member may have all of them.
const N_MEMBERS: u32 = 10;
const SECRET: [u8; 32] = [7; 32];

/// Files and the peers of today.
pub(super) struct Population {
    files: Vec<File>,
    /// The peers at each address, in ascending order.
    by_source: Vec<Vec<u32>>,
}

struct File {
    info_hash: InfoHash,
    key: AnnounceKey,
    /// The path of the announce URL with the key.
    path: String,
    /// The same with a key that was never given to anybody.
    wrong_path: String,
}

/// One announce of a peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Announcement<'a> {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The path of the announce URL.
    pub path: &'a str,
    /// The declared port.
    pub port: u16,
    /// Bytes that the peer needs.
    pub left: u64,
    /// Whether the key is wrong.
    pub is_wrong: bool,
}

impl Population {
    /// All files, and no peers yet.
    pub(super) fn new() -> Self {
        Self { files: (0..N_FILES).map(File::new).collect(), by_source: vec![Vec::new(); N_SOURCES as usize] }
    }

    /// Adds peers until there are `n_peers`, and returns the new ones of each address.
    pub(super) fn grow(&mut self, n_peers: u32) -> Vec<(u32, Vec<u32>)> {
        let n_before: usize = self.by_source.iter().map(Vec::len).sum();
        let mut new = vec![Vec::new(); N_SOURCES as usize];
        for peer in u32::try_from(n_before).unwrap_or(u32::MAX)..n_peers {
            new[source_of(peer) as usize].push(peer);
        }
        for (all, new) in self.by_source.iter_mut().zip(&new) {
            all.extend_from_slice(new);
        }
        (0..).zip(new).collect()
    }

    /// The announce of a peer with its right key.
    pub(super) fn announcement(&self, peer: u32) -> Announcement<'_> {
        let File { info_hash, path, .. } = &self.files[(peer / PEERS_PER_FILE) as usize];
        let nth = u16::try_from(peer % PEERS_PER_FILE).unwrap_or_default();
        let left = u64::from(!peer.is_multiple_of(SEEDER_EVERY));
        Announcement { info_hash: *info_hash, path, port: FIRST_PORT + nth, left, is_wrong: false }
    }

    /// An announce of any peer at an address, sometimes with a wrong key; `None` when there is no peer.
    pub(super) fn any_announcement(&self, source: u32) -> Option<Announcement<'_>> {
        let peers = &self.by_source[source as usize];
        let mut random = rand::rng();
        let peer = *peers.get(random.random_range(0..peers.len().max(1)))?;
        let announcement = self.announcement(peer);
        match random.random_range(0..WRONG_KEY_EVERY) {
            0 => {
                let path = &self.files[(peer / PEERS_PER_FILE) as usize].wrong_path;
                Some(Announcement { path, is_wrong: true, ..announcement })
            }
            _ => Some(announcement),
        }
    }

    /// Makes the files and keys known to a tracker: accounts and group over its own protocol, the rest as rows of its
    /// store, for a key over the protocol has it read all of them again.
    pub(super) fn enrol(&self, tracker: &mut Tracker) {
        let members: Vec<String> = (0..N_MEMBERS).map(|nth| format!("member{nth}")).collect();
        let group = found_group(tracker, &members);
        assert!(tracker.terminate().success(), "the tracker ends");
        let mut store = Connection::open(tracker.data_dir().join("tracker.db")).expect("the tracker's store");
        let tx = store.transaction().expect("nobody else uses the store");
        for (nth, file) in (0..).zip(&self.files) {
            file.list(&tx, nth, &group, &members[(nth % N_MEMBERS) as usize]).expect("the store takes a file");
        }
        tx.commit().expect("the store takes the files");
        drop(store);
        tracker.start_again();
    }
}

/// The address with this number.
pub(super) fn source_address(source: u32) -> Ipv4Addr {
    let [.., high, low] = (source + 1).to_be_bytes();
    Ipv4Addr::new(127, 77, high, low)
}

/// Which address a peer announces from.
fn source_of(peer: u32) -> u32 {
    let (file, nth) = (peer / PEERS_PER_FILE, peer % PEERS_PER_FILE);
    (file * SOURCES_PER_KEY + nth % SOURCES_PER_KEY) % N_SOURCES
}

/// A group of these members that admits ordinary clients; its number in the store.
fn found_group(tracker: &Tracker, members: &[String]) -> Vec<u8> {
    let mut owner: Option<WireMember> = None;
    let group = || GROUP.parse().expect("a group name");
    for name in members {
        let mut member = WireMember::connect(tracker.address(), 9).expect("the tracker accepts");
        member.sign_up(name, &password_of(name));
        match &mut owner {
            None => {
                member.create_group(GROUP);
                member.ask(Request::SetStockClients { group: group(), on: true });
                owner = Some(member);
            }
            Some(owner) => {
                member.join_group(GROUP);
                owner.ask(Request::AcceptRequest { group: group(), user: name.parse().expect("a user name") });
            }
        }
    }
    owner.map(|mut owner| owner.group_id(GROUP).as_bytes().to_vec()).expect("somebody owns the group")
}

impl File {
    fn new(nth: u32) -> Self {
        let info_hash = InfoHash(Sha1::digest(nth.to_be_bytes()).into());
        let [key, wrong] = [1, 2].map(|generation| AnnounceKey::derive(&SECRET, info_hash, generation));
        let path = |key: &AnnounceKey| format!("/{}/announce", key.expose());
        Self { info_hash, path: path(&key), wrong_path: path(&wrong), key }
    }

    /// Writes the file and its key into a tracker's store.
    fn list(&self, tx: &Connection, nth: u32, group: &[u8], user: &str) -> rusqlite::Result<()> {
        let name: FileName = format!("file-{nth}").parse().expect("a file name");
        let user: i64 =
            tx.prepare_cached("SELECT id FROM users WHERE name = ?1")?.query_row([user], |row| row.get(0))?;
        tx.prepare_cached(
            "INSERT INTO listings
             (group_id, name, name_key, size, sha1, sha256, info_hash, info_length, uploader_id, at_ms)
             VALUES (?1, ?2, ?3, 1, zeroblob(20), zeroblob(32), ?4, 100, ?5, 0)",
        )?
        .execute(params![group, name.as_str(), name.key(), self.info_hash.as_bytes(), user])?;
        let listing = tx.last_insert_rowid();
        tx.prepare_cached("INSERT INTO shares (listing_id, user_id, at_ms) VALUES (?1, ?2, 0)")?
            .execute([listing, user])?;
        tx.prepare_cached(
            "INSERT INTO announce_keys (user_id, group_id, listing_id, generation, digest, created_ms)
             VALUES (?1, ?2, ?3, 1, ?4, 0)",
        )?
        .execute(params![user, group, listing, self.key.digest().as_bytes()])?;
        Ok(())
    }
}
