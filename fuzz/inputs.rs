//! What the fuzz targets do with their input: each function hands it to a parser that faces the network and
//! checks what that parser promises of whatever it accepts. A broken promise is a panic.
//!
//! The fuzzer calls one function a target; `tests/tests/corpora.rs` calls the same functions with the inputs
//! under `fuzz/corpus/`, without a fuzzer.

use bytes::BytesMut;
use mini_torrent_common::bencode::{self, Value};
use mini_torrent_common::control::{
    ClientMessage, ControlCodec, MAX_FRAME_LENGTH, MAX_FRAME_LENGTH_BEFORE_SIGN_IN, TrackerMessage,
};
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::metainfo::Info;
use mini_torrent_common::peer_wire::{self, HANDSHAKE_LENGTH, Handshake, MAX_OTHER_LENGTH, Message};
use mini_torrent_common::ticket::{AccountId, Endorsement, SignedTicket, TICKET_LIFE_MS, Ticket, TicketKey};
use mini_torrent_common::tls::{Identity, SEED_LENGTH};
use mini_torrent_common::tracker_info;
use std::fmt::Debug;
use std::sync::LazyLock;
use std::time::Instant;
use tokio_util::codec::{Decoder, Encoder};

#[path = "../engine/tests/event_list/mod.rs"]
mod event_list;
#[path = "ordinary.rs"]
mod ordinary;

pub use ordinary::{
    announce_answer, announce_key, announce_query, magnet, mtorrent, peer_extension, torrent, udp_request, udp_response,
};

/// A target's function.
pub type Target = fn(&[u8]);

/// Every target, by the name of its file and of its corpus.
pub const TARGETS: [(&str, Target); 19] = [
    ("control_from_client", control_from_client),
    ("control_from_tracker", control_from_tracker),
    ("ticket", ticket),
    ("ticket_body", ticket_body),
    ("peer_handshake", peer_handshake),
    ("peer_wire", peer_wire),
    ("bencode", bencode),
    ("metainfo", metainfo),
    ("tracker_info", tracker_info),
    ("torrent", torrent),
    ("mtorrent", mtorrent),
    ("magnet", magnet),
    ("announce_query", announce_query),
    ("announce_answer", announce_answer),
    ("udp_request", udp_request),
    ("udp_response", udp_response),
    ("peer_extension", peer_extension),
    ("announce_key", announce_key),
    ("engine_events", engine_events),
];

/// Takes the first byte, which says how the rest is fed; 0 when there is none.
fn choice(bytes: &[u8]) -> (u8, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest))
}

/// Cuts `bytes` as they might come from a socket: whole, or in parts of 1 to 128 bytes.
fn parts(choice: u8, bytes: &[u8]) -> std::slice::Chunks<'_, u8> {
    let length = if choice & 1 == 0 { bytes.len() } else { usize::from(choice >> 1) + 1 };
    bytes.chunks(length.max(1))
}

/// What a tracker reads. The first byte chooses the cut; the limit is that before sign-in until a frame was read,
/// as for a client that signs in with its first message.
pub fn control_from_client(bytes: &[u8]) {
    control::<ClientMessage, TrackerMessage>(bytes, MAX_FRAME_LENGTH_BEFORE_SIGN_IN);
}

/// What a client reads. The first byte chooses the cut.
pub fn control_from_tracker(bytes: &[u8]) {
    control::<TrackerMessage, ClientMessage>(bytes, MAX_FRAME_LENGTH);
}

fn control<In, Out>(bytes: &[u8], limit: usize)
where
    In: serde::Serialize + serde::de::DeserializeOwned + Clone + PartialEq + Debug,
{
    let (choice, bytes) = choice(bytes);
    let mut codec = ControlCodec::<In, Out>::new(limit);
    let mut buffer = BytesMut::new();
    for part in parts(choice, bytes) {
        buffer.extend_from_slice(part);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(message)) => assert_same_when_sent_on(message),
                Ok(None) => break,
                Err(_) => return,
            }
            codec.set_max_length(MAX_FRAME_LENGTH);
        }
        assert!(buffer.capacity() <= 4 * (bytes.len() + part.len() + 64), "memory grows with what came");
    }
}

fn assert_same_when_sent_on<M>(message: M)
where
    M: serde::Serialize + serde::de::DeserializeOwned + Clone + PartialEq + Debug,
{
    let mut codec = ControlCodec::<M, M>::new(MAX_FRAME_LENGTH);
    let mut buffer = BytesMut::new();
    codec.encode(message.clone(), &mut buffer).expect("what fitted a frame fits one again");
    let again = codec.decode(&mut buffer).expect("our own frames are well formed");
    assert_eq!(again, Some(message));
    assert!(buffer.is_empty());
}

/// The deployment, its ticket key and a member of the inputs under `corpus/ticket` and `corpus/ticket_body`.
struct Cast {
    deployment: Identity,
    ticket_key: TicketKey,
    holder: Identity,
}

/// The time of those inputs, in milliseconds since the Unix epoch.
const NOW_MS: u64 = 1_800_000_000_000;

static CAST: LazyLock<Cast> = LazyLock::new(|| {
    let identity = |byte| Identity::from_seed(&[byte; SEED_LENGTH]).expect("any seed makes a key");
    let (deployment, signer) = (identity(1), identity(2));
    let endorsement = Endorsement::sign(&deployment, signer.public(), NOW_MS, NOW_MS + 2 * TICKET_LIFE_MS);
    let ticket_key = TicketKey { identity: signer, endorsement: endorsement.expect("a key signs") };
    Cast { deployment, ticket_key, holder: identity(3) }
});

/// The one ticket that was ever signed for them.
fn signed_ticket() -> Ticket {
    Ticket {
        deployment: CAST.deployment.public().fingerprint(),
        group: GroupId([4; 16]),
        member_epoch: 5,
        account: AccountId(6),
        account_epoch: 7,
        user: "alice".parse().expect("a user name"),
        holder: CAST.holder.public(),
        issued_ms: NOW_MS,
        expires_ms: NOW_MS + TICKET_LIFE_MS,
    }
}

/// A ticket as it comes from a peer: nothing opens but what was signed.
pub fn ticket(bytes: &[u8]) {
    if let Some(endorsement) = Endorsement::from_bytes(bytes) {
        let again = endorsement.to_bytes().expect("an endorsement can be written");
        assert_eq!(Endorsement::from_bytes(&again), Some(endorsement));
    }
    let Ok(signed) = SignedTicket::new(bytes.to_vec()) else { return };
    assert_eq!(signed.as_bytes(), bytes);
    if let Ok(ticket) = signed.open(CAST.deployment.public(), CAST.holder.public(), NOW_MS) {
        assert_eq!(ticket, signed_ticket(), "it was never signed");
    }
}

/// What the signature of a ticket covers, behind a good signature: the input itself is signed. Whatever opens is
/// for this deployment, this holder and this time.
pub fn ticket_body(body: &[u8]) {
    let domain = b"mini-torrent admission ticket 1\0";
    let signature = CAST.ticket_key.identity.sign(&[domain, body].concat()).expect("a key signs");
    // In the order of a ticket on the wire: version, endorsement, signature, body.
    let sealed = (1u8, &CAST.ticket_key.endorsement, signature, serde_bytes::Bytes::new(body));
    let sealed = postcard::to_stdvec(&sealed).expect("these can be written");
    let Ok(signed) = SignedTicket::new(sealed) else { return };
    let Ok(ticket) = signed.open(CAST.deployment.public(), CAST.holder.public(), NOW_MS) else { return };
    assert_eq!((ticket.deployment, ticket.holder), (signed_ticket().deployment, CAST.holder.public()));
    assert!(!ticket.is_over(NOW_MS));
    let again = CAST.ticket_key.sign(&ticket).expect("a key signs");
    assert_eq!(again.open(CAST.deployment.public(), CAST.holder.public(), NOW_MS), Ok(ticket));
}

/// The first 68 bytes of a peer: what is read is sent alike, but for bits that we do not know.
pub fn peer_handshake(bytes: &[u8]) {
    let Some(first) = bytes.first_chunk::<HANDSHAKE_LENGTH>() else { return };
    let Some(handshake) = Handshake::decode(first) else { return };
    let again = handshake.encode();
    assert_eq!(Handshake::decode(&again), Some(handshake));
    assert_eq!((&again[..20], &again[28..]), (&first[..20], &first[28..]));
}

/// A peer's messages. The first byte chooses the cut, the two after it the number of pieces.
pub fn peer_wire(bytes: &[u8]) {
    let (choice, bytes) = choice(bytes);
    let Some((n_pieces, bytes)) = bytes.split_first_chunk::<2>() else { return };
    let n_pieces = u32::from(u16::from_be_bytes(*n_pieces));
    let (mut buffer, mut n_read) = (BytesMut::new(), 0);
    for part in parts(choice, bytes) {
        buffer.extend_from_slice(part);
        loop {
            let before = buffer.len();
            match peer_wire::decode(&mut buffer, n_pieces) {
                Ok(Some(message)) => {
                    let length = before - buffer.len();
                    let raw = bytes.get(n_read..n_read + length).expect("no more is read than came");
                    assert_same_on_the_wire(&message, raw, n_pieces);
                    n_read += length;
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// What was read of `raw` is written as `raw`; of the extension handshake only the parts that we use.
fn assert_same_on_the_wire(message: &Message, raw: &[u8], n_pieces: u32) {
    let mut written = BytesMut::new();
    message.encode(&mut written);
    match message {
        Message::Unknown(_) => assert_eq!(raw.get(4), written.get(4)),
        Message::ExtendedHandshake(_) => {
            // A replacement character is longer than the byte that it stands for.
            if written.len() - 4 <= MAX_OTHER_LENGTH as usize {
                assert_eq!(peer_wire::decode(&mut written, n_pieces), Ok(Some(message.clone())));
            }
        }
        Message::Bitfield(bits) => {
            assert!(bits.len() <= n_pieces.div_ceil(8) as usize);
            assert_eq!(written, raw);
        }
        _ => assert_eq!(written, raw),
    }
}

/// Bencode: the raw bytes of each entry of a dictionary read as its value.
pub fn bencode(bytes: &[u8]) {
    if let Ok((value, rest)) = bencode::decode_prefix(bytes) {
        let whole = bytes.len() - rest.len();
        assert_eq!(bytes.get(..whole).map(bencode::decode), Some(Ok(value)));
    }
    let Ok(value) = bencode::decode(bytes) else { return };
    let Some(dictionary) = value.as_dictionary() else { return };
    for key in [&b"info"[..], b"v", b"reqq", b"m", b"a", b"b", b"name", b""] {
        let read = dictionary.raw(key).map(bencode::decode);
        assert_eq!(read, dictionary.get(key).cloned().map(Ok::<Value<'_>, _>));
    }
}

/// A raw `info` dictionary: what we use of it is written and read alike.
pub fn metainfo(bytes: &[u8]) {
    let Ok(info) = Info::decode(bytes) else { return };
    assert_eq!(info.pieces.len(), info.geometry.n_pieces() as usize);
    assert_eq!(info.pieces.as_bytes().len(), info.pieces.len() * 20);
    assert_eq!(Info::decode(&info.encode()), Ok(info));
}

/// The text of a `tracker_info.txt`: what was read of it, written in the plainest form, reads alike.
pub fn tracker_info(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(trackers) = tracker_info::parse(text) else { return };
    let line = |tracker: &tracker_info::TrackerAddress| match tracker.pin {
        Some(pin) => format!("{} {} {pin}\n", tracker.host, tracker.port),
        None => format!("{} {}\n", tracker.host, tracker.port),
    };
    let written: String = trackers.iter().map(line).collect();
    assert_eq!(tracker_info::parse(&written), Ok(trackers));
}

/// Lists of events into the engine, with its promises checked after each.
pub fn engine_events(bytes: &[u8]) {
    event_list::run(Instant::now(), bytes, |_| {});
}
