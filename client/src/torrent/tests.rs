//! A torrent with real sockets and a real file: whom it dials, what it says first, where blocks land.

use super::*;
use crate::admission::Admissions;
use crate::peer::{Listener, Security, WantedTorrent};
use mini_torrent_common::geometry::BLOCK_LENGTH;
use mini_torrent_common::hash::{InfoHash, PeerId, Sha1Hash};
use mini_torrent_common::metainfo::Info;
use mini_torrent_common::peer_wire::{HANDSHAKE_LENGTH, Handshake};
use mini_torrent_common::tls::Identity;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const PIECE_LENGTH: usize = 2 * BLOCK_LENGTH as usize;
const FILE: &str = "film.mkv";

pub(super) async fn patiently<T>(waited_for: impl Future<Output = T>) -> T {
    timeout(PATIENCE, waited_for).await.unwrap()
}

/// A file of three pieces and a bit.
fn bytes() -> Vec<u8> {
    (0..3 * PIECE_LENGTH + 5).map(|nth| u8::try_from(nth % 251).unwrap()).collect()
}

/// What describes the file to ordinary clients.
pub(super) fn info(private: bool) -> Info {
    let bytes = bytes();
    let hashes: Vec<u8> = bytes.chunks(PIECE_LENGTH).flat_map(|piece| Sha1Hash::of(piece).0).collect();
    Info {
        name: FILE.parse().unwrap(),
        geometry: Geometry::new(bytes.len() as u64, PIECE_LENGTH as u64).unwrap(),
        pieces: PieceHashes::new(hashes).unwrap(),
        private,
        group: None,
    }
}

/// A foreign torrent of a client of its own.
pub(super) fn plan(info: &Info, purpose: Purpose) -> TorrentPlan {
    let identity = Identity::from_seed(&rand::random()).unwrap();
    let raw_info = Bytes::from(info.encode());
    let info_hash = InfoHash::of(&raw_info);
    let mut admissions = Admissions::new(identity.public());
    admissions.stock.open(info_hash);
    let opener = Opener {
        security: Security::tls(&identity).unwrap(),
        own_ip: [127, 0, 0, 1].into(),
        peer_id: PeerId(rand::random()),
        admissions: watch::channel(admissions).1,
        places: Arc::new(Semaphore::new(16)),
    };
    TorrentPlan {
        name: TorrentName { info_hash, group: None },
        geometry: info.geometry,
        own_key: identity.public(),
        opener,
        loopback: true,
        buffer_bytes: 32 << 20,
        foreign: Some(Foreign { raw_info, private: info.private }),
        purpose,
    }
}

pub(super) fn fetching(info: &Info, into: &Path) -> Purpose {
    Purpose::Fetch(Fetch {
        hashes: info.pieces.clone(),
        sha256: None,
        destination: into.join(FILE),
        replace: false,
        resumed: false,
        twin: None,
        piece_order: PieceOrder::default(),
    })
}

/// The finished file in a directory.
fn seeding(from: &Path) -> Purpose {
    let path = from.join(FILE);
    std::fs::write(&path, bytes()).unwrap();
    let stamp = FileStamp::at(&path).unwrap();
    Purpose::Seed { path, stamp }
}

/// A torrent that runs, and accepts whoever wants it.
struct Stage {
    torrent: TorrentHandle,
    address: SocketAddr,
    handshake: Handshake,
    reports: mpsc::Receiver<(TorrentName, Report)>,
    _shutdown: tokio_util::sync::DropGuard,
}

impl Stage {
    async fn new(plan: TorrentPlan) -> Self {
        let (opener, info_hash) = (plan.opener.clone(), plan.name.info_hash);
        let handshake = Handshake { info_hash, peer_id: opener.peer_id, fast: true, extended: true };
        let (report_sender, reports) = mpsc::channel(16);
        let torrent = TorrentHandle::start(plan, report_sender);
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (torrents, mut wanted) = mpsc::channel::<WantedTorrent>(4);
        let shutdown = CancellationToken::new();
        tokio::spawn(Listener { socket, opener, torrents, shutdown: shutdown.clone() }.run());
        let incoming = torrent.incoming();
        tokio::spawn(async move {
            while let Some(wanted) = wanted.recv().await {
                let _ = wanted.answer.send(Ok(incoming.clone()));
            }
        });
        Self { torrent, address, handshake, reports, _shutdown: shutdown.drop_guard() }
    }

    async fn wait_completed(&mut self) {
        while !matches!(patiently(self.reports.recv()).await, Some((_, Report::Completed(_)))) {}
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// B4, B5: a connection to each peer that was named, and a handshake of 68 bytes on it.
#[tokio::test]
async fn b4_b5_every_named_peer_is_dialled_and_greeted() {
    let (directory, info) = (directory(), info(false));
    let stage = Stage::new(plan(&info, fetching(&info, directory.path()))).await;
    let mut peers = Vec::new();
    for _ in 0..5 {
        peers.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses = peers.iter().map(|peer| peer.local_addr().unwrap()).collect();
    stage.torrent.tell(Control::AddressesCame(addresses));
    for peer in peers {
        let (mut stream, _) = patiently(peer.accept()).await.unwrap();
        let mut greeting = [0; HANDSHAKE_LENGTH];
        patiently(stream.read_exact(&mut greeting)).await.unwrap();
        assert_eq!(greeting, stage.handshake.encode());
    }
    stage.torrent.stop().await.unwrap();
}

/// B6: who accepts answers with its own handshake; the first message behind it is the bitfield.
#[tokio::test]
async fn b6_a_caller_is_answered_with_handshake_and_bitfield() {
    let directory = directory();
    let stage = Stage::new(plan(&info(false), seeding(directory.path()))).await;
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    // Without the fast extension, whose short form for everything would do as well.
    let greeting = Handshake { peer_id: PeerId([9; 20]), fast: false, ..stage.handshake };
    stream.write_all(&greeting.encode()).await.unwrap();
    let mut answer = [0; HANDSHAKE_LENGTH + 6];
    patiently(stream.read_exact(&mut answer)).await.unwrap();
    let (handshake, bitfield) = answer.split_at(HANDSHAKE_LENGTH);
    assert_eq!(handshake, stage.handshake.encode());
    // Four pieces, the first one in the highest bit.
    assert_eq!(bitfield, [0, 0, 0, 2, 5, 0b1111_0000]);
    stage.torrent.stop().await.unwrap();
}

/// B7, B8, B10: requests are answered, and each block lands where it belongs: in whatever order they come, the file is
/// the original.
#[tokio::test]
async fn b7_b10_blocks_land_at_their_offsets() {
    let (source, target) = (directory(), directory());
    let info = info(false);
    let seeder = Stage::new(plan(&info, seeding(source.path()))).await;
    let mut leecher = Stage::new(plan(&info, fetching(&info, target.path()))).await;
    leecher.torrent.tell(Control::AddressesCame(vec![seeder.address]));
    leecher.wait_completed().await;
    assert!(std::fs::read(target.path().join(FILE)).unwrap() == bytes());
    leecher.torrent.stop().await.unwrap();
    seeder.torrent.stop().await.unwrap();
}
