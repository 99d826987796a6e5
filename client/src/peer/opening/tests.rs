//! Who is let in by a plain handshake, and what a plain dial accepts.

use super::*;
use mini_torrent_common::control::StockPeer;
use mini_torrent_common::tls::Identity;
use tokio::net::TcpListener;

const GROUP: GroupId = GroupId([1; 16]);
const ADMITTED: InfoHash = InfoHash([2; 20]);
const ELSEWHERE: InfoHash = InfoHash([3; 20]);
const FOREIGN: InfoHash = InfoHash([4; 20]);
const MEMBERS_ONLY: InfoHash = InfoHash([5; 20]);
const OWN_ID: PeerId = PeerId([6; 20]);

fn leecher(address: &str) -> StockPeer {
    StockPeer { address: address.parse().unwrap(), complete: false }
}

/// A client that was told of one ordinary peer in each of two swarms, and has a foreign torrent.
fn opener() -> Opener {
    let identity = Identity::from_seed(&[7; 32]).unwrap();
    let mut admissions = Admissions::new(identity.public());
    admissions.stock.update(ADMITTED, GROUP, &[leecher("127.0.0.1:6881")], &[]);
    admissions.stock.update(ELSEWHERE, GROUP, &[leecher("10.0.0.9:6881")], &[]);
    admissions.stock.open(FOREIGN);
    let (_, admissions) = watch::channel(admissions);
    let places = Arc::new(Semaphore::new(4));
    let own_ip = [127, 0, 0, 1].into();
    Opener { security: Security::tls(&identity).unwrap(), own_ip, peer_id: OWN_ID, admissions, places }
}

fn handshake(info_hash: InfoHash, peer_id: PeerId) -> Handshake {
    Handshake { info_hash, peer_id, fast: true, extended: true }
}

/// What becomes of a connection that begins with these bytes.
async fn admitted(bytes: &[u8]) -> Result<Wish, PeerError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let (accepted, remote) = listener.accept().await.unwrap();
    opener().admit(accepted, remote).await.map(|caller| caller.wants())
}

#[tokio::test]
async fn a_plain_handshake_is_admitted_by_info_hash_and_address() {
    let plain = async |hash, id| admitted(&handshake(hash, PeerId(id)).encode()).await;
    let wanted = plain(ADMITTED, [9; 20]).await.unwrap();
    assert_eq!(wanted.info_hash, ADMITTED);
    assert!(matches!(wanted.by, WishedBy::Ordinary(from) if from.is_loopback()));
    assert_eq!(plain(FOREIGN, [9; 20]).await.unwrap().info_hash, FOREIGN);
    let refused = async |hash| plain(hash, [9; 20]).await.unwrap_err().to_string();
    assert!(refused(ELSEWHERE).await.contains("from an address that was not announced"));
    assert!(refused(MEMBERS_ONLY).await.starts_with("a plain handshake: members come with TLS"));
    assert!(matches!(plain(FOREIGN, OWN_ID.0).await, Err(PeerError::Own)));
}

#[tokio::test]
async fn a_plain_handshake_has_to_be_whole() {
    let whole = handshake(FOREIGN, PeerId([9; 20])).encode();
    for length in [1, 20, 48, 67] {
        assert!(matches!(admitted(&whole[..length]).await, Err(PeerError::Closed)), "{length}");
    }
    let mut other = whole;
    other[5] ^= 1;
    assert!(matches!(admitted(&other).await, Err(PeerError::OtherProtocol)));
    assert!(matches!(admitted(b"GET / HTTP/1.1\r\n\r\n").await, Err(PeerError::OtherProtocol)));
}

/// What a dial comes to when this is answered.
async fn dialled(wanted: InfoHash, answer: Handshake) -> Result<OpenPeer, PeerError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; HANDSHAKE_LENGTH]).await.unwrap();
        stream.write_all(&answer.encode()).await.unwrap();
    });
    opener().dial_plain(address, TorrentName { info_hash: wanted, group: Some(GROUP) }).await
}

#[tokio::test]
async fn a_plain_dial_is_of_an_announced_peer_and_one_torrent() {
    let open = dialled(ADMITTED, handshake(ADMITTED, PeerId([9; 20]))).await.unwrap();
    assert_eq!((open.key, open.direction), (key_at(open.transport.remote), Direction::Dialled));
    let other = dialled(ADMITTED, handshake(FOREIGN, PeerId([9; 20]))).await;
    assert!(matches!(other, Err(PeerError::OtherTorrent)));
    assert!(matches!(dialled(ADMITTED, handshake(ADMITTED, OWN_ID)).await, Err(PeerError::Own)));
    let unannounced = dialled(MEMBERS_ONLY, handshake(MEMBERS_ONLY, PeerId([9; 20]))).await;
    assert!(matches!(unannounced, Err(PeerError::NotAdmitted(_))));
}

#[test]
fn keys_that_stand_for_ordinary_clients_are_apart() {
    let address: SocketAddr = "10.0.0.1:6881".parse().unwrap();
    assert_eq!(key_at(address), key_at("[::ffff:10.0.0.1]:6881".parse().unwrap()));
    assert_ne!(key_at(address), key_at("10.0.0.1:6882".parse().unwrap()));
    let caller = key_of_caller(address.ip(), PeerId([1; 20]));
    assert_ne!(caller, key_of_caller(address.ip(), PeerId([2; 20])));
    assert_ne!(caller, key_of_caller([10, 0, 0, 2].into(), PeerId([1; 20])));
}
