//! Ordinary clients beside members: who is admitted, who hears of whom, and for how long.

use super::*;
use crate::presence::Announced;
use crate::store::NewListing;
use mini_torrent_common::announce::Event as Happened;
use mini_torrent_common::announce_key::AnnounceKey;
use mini_torrent_common::control::{ListingDraft, ListingId, StockPeer};
use mini_torrent_common::hash::{InfoHash, Sha1Hash, Sha256Hash};

/// A listed file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct File {
    pub(crate) listing: ListingId,
    pub(crate) info_hash: InfoHash,
    pub(crate) group: GroupId,
}

impl Stage {
    /// Lists a file of a group; its info-hash is made of the byte.
    pub(crate) async fn list(&self, caller: &Caller, group: &str, byte: u8) -> File {
        let group = self.service.store.standing(group.parse().unwrap(), caller.user).await.unwrap().id;
        let info_hash = InfoHash([byte; 20]);
        let draft = ListingDraft {
            name: format!("file{byte}").parse().unwrap(),
            size: 5,
            sha1: Sha1Hash([1; 20]),
            sha256: Sha256Hash([byte; 32]),
            info_hash,
            info_length: 3,
        };
        let new = NewListing { group, draft, info: Arc::new(vec![0; 3]), at_ms: 1 };
        let rule = self.service.rule(Operation::ShareFiles);
        let listing = self.service.store.list_file(caller.actor(), new, rule, domain::check_quota).await.unwrap();
        self.service.refresh_keys().await;
        File { listing, info_hash, group }
    }

    /// A group `lab` that admits ordinary clients, with its owner's file and key.
    pub(crate) async fn open_lab(&self) -> (Caller, mpsc::Receiver<Event>, File, AnnounceKey) {
        let (olga, events) = self.member(1, "olga").await;
        self.service.create_group(&olga, group()).await.unwrap();
        self.service.set_stock_clients(&olga, group(), true).await.unwrap();
        let file = self.list(&olga, "lab", 7).await;
        let key = self.service.create_key(&olga, file.listing).await.unwrap().key;
        (olga, events, file, key)
    }

    /// A member's client announces.
    pub(crate) fn announce_member(&self, caller: &Caller, file: File, complete: bool) {
        let presence = &self.service.presence;
        let one = Announced::In { listing: file.listing, group: file.group, complete };
        presence.announce(caller.connection, caller.user, presence.generation(), &[one]).unwrap();
    }

    /// An ordinary client announces; what it is told of.
    pub(crate) fn announce(
        &self,
        key: &AnnounceKey,
        info_hash: InfoHash,
        address: &str,
        left: u64,
    ) -> std::result::Result<(Counts, Vec<SocketAddr>), TurnedAway> {
        self.announce_with(&Credential::Key(key.clone()), &asked(info_hash, address, left))
    }

    pub(crate) fn announce_with(
        &self,
        credential: &Credential,
        asked: &OrdinaryAnnounce,
    ) -> std::result::Result<(Counts, Vec<SocketAddr>), TurnedAway> {
        let mut peers = Vec::new();
        let counts = self.service.announce_ordinary(credential, asked, &mut peers)?;
        peers.sort();
        Ok((counts, peers))
    }

    /// What a member has not heard of ordinary clients yet: those that came, with `true` for seeders, and who left.
    pub(crate) fn stock_news(&self, member: &Caller) -> (Vec<(String, bool)>, Vec<String>) {
        let (mut came_all, mut left_all) = (Vec::new(), Vec::new());
        for event in self.service.take_stock_events(member.connection) {
            let Event::StockPeers { came, left, .. } = event else { panic!("{event:?}") };
            came_all.extend(came.into_iter().map(|StockPeer { address, complete }| (address.to_string(), complete)));
            left_all.extend(left.into_iter().map(|address| address.to_string()));
        }
        came_all.sort();
        left_all.sort();
        (came_all, left_all)
    }
}

pub(crate) use mini_torrent_common::announce::Counts;

pub(crate) fn asked(info_hash: InfoHash, address: &str, left: u64) -> OrdinaryAnnounce {
    OrdinaryAnnounce {
        info_hash,
        address: address.parse().unwrap(),
        left,
        event: Happened::Periodic,
        numwant: None,
        own_family_only: false,
    }
}

fn counts(complete: u32, downloaded: u32, incomplete: u32) -> Counts {
    Counts { complete, downloaded, incomplete }
}

/// D5, D6, D7: both kinds are counted once, everywhere the same.
#[tokio::test]
async fn d5_members_and_ordinary_clients_are_counted_together() {
    let stage = Stage::new().await;
    let (olga, _events, file, key) = stage.open_lab().await;
    stage.announce_member(&olga, file, true);
    let credential = Credential::Key(key.clone());
    let scrape = || stage.service.scrape_ordinary(&credential, file.info_hash);
    assert_eq!(scrape(), Ok(counts(1, 0, 0)));
    assert_eq!(stage.announce(&key, file.info_hash, "10.0.9.1:6881", 5).unwrap().0, counts(1, 0, 1));
    stage.announce(&key, file.info_hash, "10.0.9.2:6881", 5).unwrap();
    assert_eq!(scrape(), Ok(counts(1, 0, 2)), "in mid-download");
    // D6: the leecher has become a seeder.
    stage.announce(&key, file.info_hash, "10.0.9.2:6881", 0).unwrap();
    assert_eq!(scrape(), Ok(counts(2, 1, 1)));
    let listed = stage.service.list_files(&olga, group(), None).await.unwrap();
    assert_eq!((listed[0].n_seeders, listed[0].n_leechers), (2, 1));
    // D7: who stops is gone at once.
    let stop = OrdinaryAnnounce { event: Happened::Stopped, ..asked(file.info_hash, "10.0.9.2:6881", 0) };
    assert_eq!(stage.announce_with(&credential, &stop).unwrap(), (counts(1, 1, 1), vec![]));
    assert_eq!(scrape(), Ok(counts(1, 1, 1)));
}

/// Ordinary clients hear of members' clients and of each other, by exact address; nobody is told more than he wants.
#[tokio::test]
async fn answers_name_members_and_ordinary_clients() {
    let stage = Stage::new().await;
    let (olga, _events, file, key) = stage.open_lab().await;
    stage.announce_member(&olga, file, true);
    stage.announce(&key, file.info_hash, "10.0.9.1:6881", 5).unwrap();
    let (_, peers) = stage.announce(&key, file.info_hash, "10.0.9.2:7000", 5).unwrap();
    assert_eq!(peers, ["10.0.0.1:4000".parse().unwrap(), "10.0.9.1:6881".parse().unwrap()]);
    // A seeder needs no seeder.
    let (_, peers) = stage.announce(&key, file.info_hash, "10.0.9.3:1", 0).unwrap();
    assert_eq!(peers.len(), 2, "{peers:?}");
    let credential = Credential::Key(key.clone());
    for port in 1..300 {
        stage.announce(&key, file.info_hash, &format!("10.0.9.1:{port}"), 5).unwrap();
    }
    for (numwant, expected) in [(None, 50), (Some(0), 0), (Some(1), 1), (Some(200), 200)] {
        let one = OrdinaryAnnounce { numwant, ..asked(file.info_hash, "10.0.9.2:7000", 5) };
        let (_, peers) = stage.announce_with(&credential, &one).unwrap();
        assert_eq!(peers.len(), expected, "{numwant:?}");
    }
    // Only what an answer by UDP has room for.
    stage.announce(&key, file.info_hash, "[2001:db8::1]:6881", 5).unwrap();
    let one = OrdinaryAnnounce { own_family_only: true, ..asked(file.info_hash, "[2001:db8::2]:6881", 5) };
    assert_eq!(stage.announce_with(&credential, &one).unwrap().1, ["[2001:db8::1]:6881".parse().unwrap()]);
}

#[tokio::test]
async fn many_members_and_many_ordinary_clients_share_an_answer() {
    let stage = Stage::new().await;
    let (_olga, _events, file, key) = stage.open_lab().await;
    for id in 2..=100 {
        let (caller, _events) = stage.member(id, &format!("u{id}")).await;
        stage.announce_member(&caller, file, false);
    }
    let n_members = |peers: &[SocketAddr]| peers.iter().filter(|peer| peer.port() == 4000).count();
    let (_, peers) = stage.announce(&key, file.info_hash, "10.0.9.1:1", 5).unwrap();
    assert_eq!((peers.len(), n_members(&peers)), (50, 50));
    (2..100).for_each(|port| drop(stage.announce(&key, file.info_hash, &format!("10.0.9.1:{port}"), 5)));
    let (_, peers) = stage.announce(&key, file.info_hash, "10.0.9.1:1", 5).unwrap();
    assert_eq!((peers.len(), n_members(&peers)), (50, 25));
}

/// Members hear of all when they come and of changes afterwards; of other groups' files nothing.
#[tokio::test]
async fn members_hear_of_ordinary_clients() {
    let stage = Stage::new().await;
    let (olga, _events, file, key) = stage.open_lab().await;
    let (eve, _eves) = stage.member(2, "eve").await;
    stage.announce(&key, file.info_hash, "10.0.9.1:1", 5).unwrap();
    assert_eq!(stage.stock_news(&olga), (vec![], vec![]), "not in the swarm yet");
    stage.announce_member(&olga, file, true);
    assert_eq!(stage.stock_news(&olga), (vec![("10.0.9.1:1".into(), false)], vec![]));
    stage.announce(&key, file.info_hash, "10.0.9.1:1", 5).unwrap();
    assert_eq!(stage.stock_news(&olga), (vec![], vec![]), "nothing new");
    stage.announce(&key, file.info_hash, "10.0.9.1:1", 0).unwrap();
    stage.announce(&key, file.info_hash, "10.0.9.2:2", 5).unwrap();
    let came = vec![("10.0.9.1:1".into(), true), ("10.0.9.2:2".into(), false)];
    assert_eq!(stage.stock_news(&olga), (came.clone(), vec![]));
    let presence = &stage.service.presence;
    presence.watch(olga.connection, olga.user, presence.generation(), file.listing, file.group).unwrap();
    assert_eq!(stage.stock_news(&olga), (came, vec![]), "all again for who watches");
    let stop = OrdinaryAnnounce { event: Happened::Stopped, ..asked(file.info_hash, "10.0.9.2:2", 5) };
    stage.announce_with(&Credential::Key(key), &stop).unwrap();
    assert_eq!(stage.stock_news(&olga), (vec![], vec!["10.0.9.2:2".into()]));
    assert_eq!(stage.stock_news(&eve), (vec![], vec![]));
}

/// D8: who is killed is gone when the lease ends, and members are told; who announces stays. D13 is the same clock.
#[tokio::test]
async fn d8_a_lease_ends_by_the_trackers_clock() {
    let stage = Stage::new().await;
    let (olga, _events, file, key) = stage.open_lab().await;
    stage.announce(&key, file.info_hash, "10.0.9.1:1", 5).unwrap();
    stage.clock.advance(limits::ANNOUNCE_LEASE - limits::ANNOUNCE_INTERVAL);
    stage.service.keep_step().await.unwrap();
    stage.announce(&key, file.info_hash, "10.0.9.2:2", 5).unwrap();
    stage.announce_member(&olga, file, true);
    assert_eq!(stage.stock_news(&olga).0.len(), 2);
    stage.clock.advance(limits::ANNOUNCE_INTERVAL);
    stage.service.sweep_announces();
    assert_eq!(stage.stock_news(&olga), (vec![], vec![]), "to the end of its lease");
    stage.clock.advance(Duration::from_secs(16));
    stage.service.sweep_announces();
    assert_eq!(stage.stock_news(&olga), (vec![], vec!["10.0.9.1:1".into()]));
    stage.service.keep_step().await.unwrap();
    let scraped = stage.service.scrape_ordinary(&Credential::Key(key), file.info_hash);
    assert_eq!(scraped, Ok(counts(1, 0, 1)));
}

/// The operator may let everybody into the swarms of `public`, and of no other group.
#[tokio::test]
async fn d11_open_public_opens_public_files_alone() {
    for open_public in [false, true] {
        let stage = Stage::with(|policy| Policy { open_public, ..policy }).await;
        let (olga, _events, private, key) = stage.open_lab().await;
        let public = stage.list(&olga, "public", 8).await;
        let announce = |file: File, address| stage.announce_with(&Credential::None, &asked(file.info_hash, address, 5));
        assert_eq!(announce(public, "10.0.9.1:1").is_ok(), open_public);
        assert_eq!(announce(private, "10.0.9.1:1"), Err(TurnedAway::NotAdmitted));
        let unlisted = asked(InfoHash([9; 20]), "10.0.9.1:1", 5);
        assert_eq!(stage.announce_with(&Credential::None, &unlisted), Err(TurnedAway::NotAdmitted));
        let scrape = |file: File| stage.service.scrape_ordinary(&Credential::None, file.info_hash);
        assert_eq!((scrape(public).is_ok(), scrape(private).is_ok()), (open_public, false));
        // A key that opens another file opens this one no more for that.
        assert_eq!(stage.announce(&key, public.info_hash, "10.0.9.1:1", 5), Err(TurnedAway::NotAdmitted));
        // With a key of its own it is open to ordinary clients in either case, without any switch of the group.
        let own = stage.service.create_key(&olga, public.listing).await.unwrap().key;
        assert!(stage.announce(&own, public.info_hash, "10.0.9.2:1", 5).is_ok());
        // When the file goes, so do those who came without a key.
        stage.service.remove_file(&olga, "public".parse().unwrap(), "file8".parse().unwrap()).await.unwrap();
        assert_eq!(announce(public, "10.0.9.1:1"), Err(TurnedAway::NotAdmitted));
        assert_eq!(stage.service.announces().n_peers(), 0);
    }
}

#[tokio::test]
async fn without_the_built_in_group_nothing_of_it_is_open() {
    let stage = Stage::with(|policy| Policy { open_public: true, ..policy }).await;
    let (olga, _events) = stage.member(1, "olga").await;
    let file = stage.list(&olga, "public", 8).await;
    let key = stage.service.create_key(&olga, file.listing).await.unwrap().key;
    assert!(stage.announce(&key, file.info_hash, "10.0.9.1:1", 5).is_ok());
    // The same store without it.
    let policy = Policy { public_group: false, ..stage.service.policy.clone() };
    let store = Store::within(&policy.spool_directory).await;
    let (passwords, identity) = (Passwords::with_cost(8, 1).unwrap(), Identity::from_seed(&[1; 32]).unwrap());
    let service = Service::new(store, stage.clock.clone(), passwords, Tickets::new(identity), policy);
    service.refresh_keys().await;
    for credential in [Credential::None, Credential::Key(key)] {
        assert_eq!(service.scrape_ordinary(&credential, file.info_hash), Err(TurnedAway::NotAdmitted));
    }
}
