//! Golden bytes, identity and hostile input for the frames of the control connection.

use super::*;
use crate::announce_key::AnnounceKey;
use crate::control::*;
use crate::error_code::ErrorCode;
use crate::hash::{GroupId, InfoHash, OperationId, PeerId, Sha1Hash, Sha256Hash};
use crate::revocation::Revocation;
use crate::secret::{Password, SessionToken};
use crate::ticket::{AccountId, SignedTicket};
use crate::tls::PublicKey;
use proptest::prelude::*;

type ClientSide = ControlCodec<TrackerMessage, ClientMessage>;
type TrackerSide = ControlCodec<ClientMessage, TrackerMessage>;

fn draft() -> ListingDraft {
    ListingDraft {
        name: "a.iso".parse().unwrap(),
        size: 300,
        sha1: Sha1Hash([1; 20]),
        sha256: Sha256Hash([2; 32]),
        info_hash: InfoHash([3; 20]),
        info_length: 128,
    }
}

fn contact() -> PeerContact {
    PeerContact {
        key: PublicKey([4; 32]),
        address: "127.0.0.1:9".parse().unwrap(),
        peer_id: PeerId([5; 20]),
        user: "bob".parse().unwrap(),
        complete: true,
    }
}

fn revocation() -> Revocation {
    Revocation { number: 1, group: Some(GroupId([8; 16])), account: AccountId(2), epoch: 3, at_ms: 300 }
}

/// One of each kind of request, in the order of the wire.
fn requests() -> Vec<Request> {
    let group = || "g".parse().unwrap();
    let user = || "bob".parse().unwrap();
    let listing = ListingId(7);
    vec![
        Request::Ping,
        Request::CreateUser { user: user(), password: Password::new("12345678".into()) },
        Request::Login { user: user(), password: Password::new("12345678".into()), takeover: true },
        Request::Resume { token: SessionToken::new([6; 32]) },
        Request::Logout,
        Request::LogoutEverywhere,
        Request::ListSessions,
        Request::CreateGroup { group: group() },
        Request::JoinGroup { group: group() },
        Request::LeaveGroup { group: group() },
        Request::ListRequests { group: group(), after: Some(2) },
        Request::AcceptRequest { group: group(), user: user() },
        Request::RejectRequest { group: group(), user: user() },
        Request::RemoveMember { group: group(), user: user() },
        Request::SetRole { group: group(), user: user(), role: Role::Admin },
        Request::TransferOwner { group: group(), user: user() },
        Request::RemoveFile { group: group(), file: "a".parse().unwrap() },
        Request::EnterGroup { group: GroupId([8; 16]), after: 300 },
        Request::SetStockClients { group: group(), on: true },
        Request::CreateKey { listing },
        Request::ListKeys,
        Request::RevokeKey { id: KeyId(300) },
        Request::ListGroups { after: None },
        Request::DescribeGroup { group: group() },
        Request::ListFiles { group: group(), after: Some("a".parse().unwrap()) },
        Request::FindFile { group: group(), file: "a".parse().unwrap() },
        Request::ReadInfo { listing, offset: 300 },
        Request::OfferListing { group: group(), draft: draft() },
        Request::PutInfo { upload: UploadId(1), offset: 0, bytes: vec![0, 255] },
        Request::CommitListing { upload: UploadId(1) },
        Request::Share { listing },
        Request::StopShare { listing },
        Request::Announce { announcements: vec![Announcement { listing, presence: Presence::Leeching }] },
        Request::Watch { listing },
        Request::Unwatch { listing },
        Request::OpenFile { group: group(), file: "a".parse().unwrap() },
        Request::Leech { listing },
        Request::Seed { listing },
    ]
}

/// One of each kind of response, in the order of the wire.
fn responses() -> Vec<Response> {
    let listing = Listing {
        id: ListingId(7),
        group: GroupId([8; 16]),
        draft: draft(),
        uploader: "bob".parse().unwrap(),
        at_ms: 1,
        n_seeders: 2,
        n_leechers: 3,
    };
    vec![
        Response::Done,
        Response::SignedIn(SignedIn { user: "bob".parse().unwrap(), token: SessionToken::new([6; 32]) }),
        Response::Sessions(vec![SessionRow { address: "a".into(), agent: "t".into(), since_ms: 1, current: true }]),
        Response::Admission(Admission {
            ticket: SignedTicket::new(vec![1, 2]).unwrap(),
            revocations: vec![revocation()],
        }),
        Response::Key(GrantedKey { id: KeyId(300), key: AnnounceKey::derive(&[6; 32], InfoHash([3; 20]), 1) }),
        Response::Keys(vec![KeyRow {
            id: KeyId(300),
            group: "g".parse().unwrap(),
            file: "a".parse().unwrap(),
            address: Some("a".into()),
            used_ms: None,
            suspended: true,
        }]),
        Response::Left(Left::OwnerIsNow("bob".parse().unwrap())),
        Response::JoinRequests { requests: vec![JoinRequest { user: "bob".parse().unwrap(), at_ms: 1 }], next: None },
        Response::Groups(vec![GroupRow {
            name: "g".parse().unwrap(),
            owner: None,
            n_members: 1,
            role: Some(Role::Owner),
        }]),
        Response::Group(GroupDescription {
            id: GroupId([8; 16]),
            name: "g".parse().unwrap(),
            role: Role::Member,
            stock_clients: true,
        }),
        Response::Files(vec![listing.clone()]),
        Response::File(listing.clone()),
        Response::InfoPage(vec![1, 2]),
        Response::Offered(Offer::SendInfo(UploadId(1))),
        Response::Listed(ListingId(7)),
        Response::Announced(vec![RefusedAnnouncement { listing: ListingId(7), code: ErrorCode::NotSharing }]),
        Response::Peers(vec![contact()]),
        Response::Time(300),
        Response::Opened(OpenedFile { listing, info: vec![1, 2] }),
    ]
}

/// One of each kind of event, in the order of the wire.
fn events() -> Vec<Event> {
    vec![
        Event::JoinRequested { group: "g".parse().unwrap(), user: "bob".parse().unwrap() },
        Event::RequestAccepted { group: "g".parse().unwrap() },
        Event::RemovedFromGroup { id: GroupId([8; 16]), group: "g".parse().unwrap() },
        Event::Peers { listing: ListingId(7), came: vec![contact()], left: vec![PublicKey([9; 32])] },
        Event::ListingEnded { listing: ListingId(7) },
        Event::StockPeers {
            listing: ListingId(7),
            came: vec![StockPeer { address: "127.0.0.1:9".parse().unwrap(), complete: true }],
            left: vec!["127.0.0.1:9".parse().unwrap()],
        },
        Event::Revoked(vec![revocation()]),
        Event::KeySuspended { id: KeyId(300), group: "g".parse().unwrap(), file: "a".parse().unwrap() },
        Event::SessionEnded { reason: "x".into() },
    ]
}

fn hello() -> ClientMessage {
    ClientMessage::Hello(Hello {
        min_version: 1,
        max_version: 1,
        agent: "t".into(),
        peer_id: PeerId([5; 20]),
        listen_port: 9,
    })
}

fn encoded<M: Serialize>(message: M) -> BytesMut {
    let mut buffer = BytesMut::new();
    ControlCodec::<(), M>::new(MAX_FRAME_LENGTH).encode(message, &mut buffer).unwrap();
    buffer
}

fn all_messages() -> (Vec<ClientMessage>, Vec<TrackerMessage>) {
    let mut from_client = vec![hello()];
    from_client.extend(requests().into_iter().map(|body| ClientMessage::Request { id: 300, once: None, body }));
    let (once, body) = (Some(OperationId([10; 16])), Request::CreateGroup { group: "g".parse().unwrap() });
    from_client.push(ClientMessage::Request { id: 300, once, body });
    let welcome = Welcome { version: 1, time_ms: 300, up_s: 7, address: "[::1]:9".parse().unwrap() };
    let refusal = || Refusal::new(ErrorCode::NotAMember, "no");
    let mut from_tracker = vec![
        TrackerMessage::Welcome(welcome),
        TrackerMessage::Goodbye(refusal()),
        TrackerMessage::Response { id: 1, result: Err(refusal()) },
    ];
    from_tracker.extend(responses().into_iter().map(|r| TrackerMessage::Response { id: 300, result: Ok(r) }));
    from_tracker.extend(events().into_iter().map(TrackerMessage::Event));
    (from_client, from_tracker)
}

/// The bytes of every message, as frozen at version 1: a change here breaks clients in the field.
#[test]
fn golden_bytes_of_every_message() {
    let (from_client, from_tracker) = all_messages();
    let hex = |frame: BytesMut| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let shown: String = from_client.into_iter().map(|m| hex(encoded(m)) + "\n").collect::<String>()
        + &from_tracker.into_iter().map(|m| hex(encoded(m)) + "\n").collect::<String>();
    assert_eq!(shown, include_str!("golden.txt"), "written:\n{shown}");
}

/// C8: every message decodes to what was encoded, binary bytes included.
#[test]
fn c8_every_message_round_trips() {
    let (from_client, from_tracker) = all_messages();
    for message in from_client {
        let mut frame = encoded(message.clone());
        assert_eq!(TrackerSide::new(MAX_FRAME_LENGTH).decode(&mut frame).unwrap(), Some(message));
    }
    for message in from_tracker {
        let mut frame = encoded(message.clone());
        assert_eq!(ClientSide::new(MAX_FRAME_LENGTH).decode(&mut frame).unwrap(), Some(message));
    }
}

/// C9: an announced length above the limit is refused before anything is allocated for it.
#[test]
fn c9_oversized_frame_is_refused_at_its_header() {
    let mut buffer = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
    let result = TrackerSide::new(MAX_FRAME_LENGTH_BEFORE_SIGN_IN).decode(&mut buffer);
    assert!(matches!(result, Err(FrameError::TooLong { length: 0xffff_ffff, limit: 4096 })));
    assert!(buffer.capacity() < 100);
}

#[test]
fn announced_length_reserves_nothing() {
    let mut buffer = BytesMut::from(&1_000_000u32.to_be_bytes()[..]);
    assert!(TrackerSide::new(MAX_FRAME_LENGTH).decode(&mut buffer).unwrap().is_none());
    assert!(buffer.capacity() < 100);
}

#[test]
fn trailing_bytes_and_unknown_variants_are_refused() {
    let mut frame = encoded(hello());
    frame.extend_from_slice(&[0]);
    frame[3] += 1;
    assert!(matches!(TrackerSide::new(4096).decode(&mut frame), Err(FrameError::TrailingBytes(1))));
    let mut unknown = BytesMut::from(&[0, 0, 0, 2, 1, 99][..]);
    assert!(matches!(TrackerSide::new(4096).decode(&mut unknown), Err(FrameError::Malformed(_))));
}

/// Names are checked while a message is decoded, so no hostile one gets further.
#[test]
fn hostile_name_inside_a_message_is_refused() {
    let body = Request::CreateGroup { group: "abc".parse().unwrap() };
    let mut frame = encoded(ClientMessage::Request { id: 1, once: None, body });
    let at = frame.len() - 2;
    frame[at] = b'/';
    assert!(TrackerSide::new(4096).decode(&mut frame).is_err());
}

/// Every body of up to two bytes: an error or a message, never a panic.
#[test]
fn all_short_bodies_are_survived() {
    for body in (0..=255u8).flat_map(|a| std::iter::once(vec![a]).chain((0..=255u8).map(move |b| vec![a, b]))) {
        let _ = decode_body::<ClientMessage>(&body);
        let _ = decode_body::<TrackerMessage>(&body);
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut buffer = BytesMut::from(&bytes[..]);
        let mut codec = TrackerSide::new(MAX_FRAME_LENGTH_BEFORE_SIGN_IN);
        while let Ok(Some(_)) = codec.decode(&mut buffer) {}
        let _ = decode_body::<TrackerMessage>(&bytes);
    }

    #[test]
    fn frames_decode_alike_however_they_are_cut(cut in 0usize..60) {
        let whole = encoded(hello());
        let (head, tail) = whole.split_at(cut.min(whole.len()));
        let mut codec = TrackerSide::new(4096);
        let mut buffer = BytesMut::from(head);
        let early = codec.decode(&mut buffer).unwrap();
        buffer.extend_from_slice(tail);
        prop_assert_eq!(early.or(codec.decode(&mut buffer).unwrap()), Some(hello()));
    }
}
