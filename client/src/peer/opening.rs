//! The first words of a connection: which torrent, and who speaks.

use mini_torrent_common::hash::{InfoHash, PeerId};
use mini_torrent_common::peer_wire::{HANDSHAKE_LENGTH, Handshake};
use mini_torrent_engine::{Direction, PeerKey};
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, Transport};

/// A connection on which both handshakes are done.
pub(crate) struct OpenPeer {
    pub(crate) transport: Transport,
    pub(crate) key: PeerKey,
    pub(crate) direction: Direction,
    /// Both sides speak the fast extension.
    pub(crate) fast: bool,
    /// Both sides speak the extension protocol.
    pub(crate) extended: bool,
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// The network refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer took too long.
    #[error("it took too long")]
    TimedOut,
    /// The peer speaks another protocol.
    #[error("it does not speak BitTorrent")]
    OtherProtocol,
    /// The peer answered for another torrent.
    #[error("it answered for another torrent")]
    OtherTorrent,
    /// Somebody else answered than the tracker named.
    #[error("somebody else answered")]
    OtherPeer,
}

impl From<tokio::time::error::Elapsed> for PeerError {
    fn from(_: tokio::time::error::Elapsed) -> Self {
        Self::TimedOut
    }
}

/// What stands for a peer as long as connections prove no key: its peer id.
pub(crate) fn own_key(peer_id: PeerId) -> PeerKey {
    let mut key = [0; 32];
    key[..PeerId::LENGTH].copy_from_slice(peer_id.as_bytes());
    PeerKey(key)
}

/// Connects to a peer that the tracker named and exchanges handshakes.
pub(crate) async fn dial(
    address: SocketAddr,
    own_ip: IpAddr,
    info_hash: InfoHash,
    own_id: PeerId,
    expected: PeerKey,
) -> Result<OpenPeer, PeerError> {
    let mut transport = timeout(CONNECT_TIMEOUT, Transport::connect(address, own_ip)).await??;
    let exchanged = async {
        transport.writer.write_all(&own_handshake(info_hash, own_id).encode()).await?;
        read_handshake(&mut transport).await
    };
    let theirs = timeout(HANDSHAKE_TIMEOUT, exchanged).await??;
    if theirs.info_hash != info_hash {
        return Err(PeerError::OtherTorrent);
    }
    if own_key(theirs.peer_id) != expected {
        return Err(PeerError::OtherPeer);
    }
    Ok(open(transport, theirs, Direction::Dialled))
}

/// Reads what a peer that dialled us wants.
pub(crate) async fn read_handshake(transport: &mut Transport) -> Result<Handshake, PeerError> {
    let mut bytes = [0; HANDSHAKE_LENGTH];
    // The first byte tells another protocol, so nobody waits for the other 67.
    transport.reader.read_exact(&mut bytes[..1]).await?;
    if bytes[0] != 19 {
        return Err(PeerError::OtherProtocol);
    }
    transport.reader.read_exact(&mut bytes[1..]).await?;
    Handshake::decode(&bytes).ok_or(PeerError::OtherProtocol)
}

/// Answers the handshake of a peer that dialled us.
pub(crate) async fn answer(mut transport: Transport, theirs: Handshake, own_id: PeerId) -> Result<OpenPeer, PeerError> {
    let ours = own_handshake(theirs.info_hash, own_id).encode();
    timeout(HANDSHAKE_TIMEOUT, transport.writer.write_all(&ours)).await??;
    Ok(open(transport, theirs, Direction::Accepted))
}

fn own_handshake(info_hash: InfoHash, peer_id: PeerId) -> Handshake {
    Handshake { info_hash, peer_id, fast: true, extended: true }
}

fn open(transport: Transport, theirs: Handshake, direction: Direction) -> OpenPeer {
    let key = own_key(theirs.peer_id);
    OpenPeer { transport, key, direction, fast: theirs.fast, extended: theirs.extended }
}
