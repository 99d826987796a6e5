//! What the tracker takes for a listing, said by a member without a client: pages, lies, foreign groups (issue
//! 2: the metadata of a 1 TiB upload; design §4 to §6; E12, E26).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_common::control::{
    Announcement, INFO_PAGE_LENGTH, ListingDraft, ListingId, Offer, Presence, Request, Response,
};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::{GroupId, InfoHash};
use mini_torrent_tests::wire_member::vast_draft;
use mini_torrent_tests::{Content, Deployment, GROUP, WireMember, programs};

/// A tracker and two members of a group.
fn two_members() -> (Deployment, WireMember, WireMember) {
    let deployment = Deployment::empty(programs!());
    let connect = || WireMember::connect(deployment.tracker.address(), 1).unwrap();
    let (mut ann, mut bob) = (connect(), connect());
    ann.sign_up("ann", "password-1");
    bob.sign_up("bob", "password-1");
    ann.create_group(GROUP);
    bob.join_group(GROUP);
    ann.ask(Request::AcceptRequest { group: GROUP.parse().unwrap(), user: "bob".parse().unwrap() });
    (deployment, ann, bob)
}

/// Reads a listing's raw `info` dictionary, page by page.
fn read_info(member: &mut WireMember, listing: ListingId, length: u64) -> Vec<u8> {
    let mut raw = Vec::new();
    while (raw.len() as u64) < length {
        match member.ask(Request::ReadInfo { listing, offset: raw.len() as u64 }) {
            Response::InfoPage(page) if !page.is_empty() => raw.extend(page),
            other => panic!("no page: {other:?}"),
        }
    }
    raw
}

/// What the tracker answers to a refused request.
fn refused(member: &mut WireMember, request: Request) -> ErrorCode {
    member.request(request).unwrap().unwrap_err().code
}

/// E12: the metadata of a 1 TiB file, 40 MB of hashes, goes in and out in pages, with bounded memory.
#[test]
fn e12_the_metadata_of_a_tebibyte_is_paged() {
    let (deployment, mut ann, mut bob) = two_members();
    let (draft, raw) = vast_draft(ann.group_id(GROUP), 1 << 40);
    assert!(raw.len() > 40_000_000);
    let listing = ann.offer(GROUP, draft.clone(), &raw).unwrap();
    let files = bob.list_files(GROUP);
    assert_eq!((files.len(), files[0].draft.clone()), (1, draft.clone()));
    assert!(read_info(&mut bob, listing, draft.info_length) == raw, "the same bytes come out");
    let peak = deployment.tracker.running().peak_memory();
    assert!(peak < 300 << 20, "{} MiB", peak >> 20);
}

/// Listings and groups beyond a page come complete and sorted.
#[test]
fn e13_long_lists_are_paged() {
    let (_deployment, mut ann, mut bob) = two_members();
    for nth in 0..1005 {
        ann.share(GROUP, &Content::new(&format!("f{nth:04}"), Vec::new()));
    }
    let names: Vec<String> = bob.list_files(GROUP).iter().map(|file| file.draft.name.to_string()).collect();
    assert_eq!(names.len(), 1005);
    assert!(names.is_sorted());
}

/// What the draft says must be what the dictionary says.
#[test]
fn dictionaries_that_contradict_their_draft_are_refused() {
    let (_deployment, mut ann, _) = two_members();
    let group = ann.group_id(GROUP);
    let content = Content::new("file", vec![1; 1000]);
    let lies: [fn(&mut ListingDraft); 4] = [
        |draft| draft.size += 1,
        |draft| draft.name = "other".parse().unwrap(),
        |draft| draft.info_hash = InfoHash([9; 20]),
        |draft| draft.info_length -= 1,
    ];
    for lie in lies {
        let (mut draft, raw) = content.draft(group);
        lie(&mut draft);
        ann.offer(GROUP, draft, &raw).unwrap_err();
    }
    assert!(ann.list_files(GROUP).is_empty());
}

/// A dictionary with a hostile name, no name of its group, another group's or public flags is refused.
#[test]
fn a5_e26_hostile_dictionaries_are_refused() {
    let (_deployment, mut ann, _) = two_members();
    let group = ann.group_id(GROUP);
    let good = Content::new("file", vec![1; 1000]);
    let (_, raw) = good.draft(group);
    let replaced = |from: &[u8], to: &[u8]| {
        let at = raw.windows(from.len()).position(|part| part == from).unwrap();
        [&raw[..at], to, &raw[at + from.len()..]].concat()
    };
    let cases = [
        replaced(b"4:file", b"7:../evil"),
        replaced(b"4:file", b"4:\x1b[2J"),
        replaced(b"7:privatei1e", b"7:privatei0e"),
        replaced(b"7:privatei1e", b""),
        replaced(group.as_bytes(), &[0; 16]),
        replaced(b"12:piece lengthi524288e", b"12:piece lengthi16384e"),
        [b"d5:filesle".as_slice(), &raw[1..]].concat(),
        b"i1e".to_vec(),
        vec![b'd'; 5000],
    ];
    for raw in cases {
        let (draft, _) = good.draft(group);
        let draft = ListingDraft { info_hash: InfoHash::of(&raw), info_length: raw.len() as u64, ..draft };
        let refusal = ann.offer(GROUP, draft, &raw).unwrap_err();
        assert!(
            matches!(refusal.code, ErrorCode::InvalidMetainfo | ErrorCode::InvalidName),
            "{refusal:?} for {:?}",
            String::from_utf8_lossy(&raw[..raw.len().min(80)])
        );
    }
    assert!(ann.list_files(GROUP).is_empty());
}

/// Pages come in order, within the announced length, for an upload that exists, on its own connection.
#[test]
fn pages_out_of_order_are_refused() {
    let (_deployment, mut ann, mut bob) = two_members();
    let (draft, raw) = vast_draft(ann.group_id(GROUP), 1 << 36);
    let offer = |member: &mut WireMember| match member
        .ask(Request::OfferListing { group: GROUP.parse().unwrap(), draft: draft.clone() })
    {
        Response::Offered(Offer::SendInfo(upload)) => upload,
        other => panic!("{other:?}"),
    };
    let page = |nth: usize| raw[nth * INFO_PAGE_LENGTH..(nth + 1) * INFO_PAGE_LENGTH].to_vec();
    let upload = offer(&mut ann);
    ann.request(Request::PutInfo { upload, offset: INFO_PAGE_LENGTH as u64, bytes: page(1) }).unwrap().unwrap_err();
    let upload = offer(&mut ann);
    ann.request(Request::CommitListing { upload }).unwrap().unwrap_err();
    let upload = offer(&mut ann);
    ann.ask(Request::PutInfo { upload, offset: 0, bytes: page(0) });
    bob.request(Request::PutInfo { upload, offset: INFO_PAGE_LENGTH as u64, bytes: page(1) }).unwrap().unwrap_err();
    assert!(ann.list_files(GROUP).is_empty());
}

/// Announcing offers of dictionaries that never come costs the tracker nothing.
#[test]
fn offers_without_pages_take_no_memory() {
    let (deployment, mut ann, _) = two_members();
    let (draft, _) = vast_draft(ann.group_id(GROUP), 1 << 40);
    let before = deployment.tracker.running().memory();
    for nth in 0..500u32 {
        let mut draft = draft.clone();
        draft.name = format!("f{nth}").parse().unwrap();
        let _ = ann.request(Request::OfferListing { group: GROUP.parse().unwrap(), draft });
    }
    let growth = deployment.tracker.running().memory().saturating_sub(before);
    assert!(growth < 32 << 20, "{} MiB more", growth >> 20);
}

/// E26: numbers of other groups' listings open nothing to a stranger.
#[test]
fn e26_listing_numbers_open_nothing_to_strangers() {
    let (deployment, mut ann, _) = two_members();
    let listing = ann.share(GROUP, &Content::new("file", vec![1; 1000])).listing;
    let mut eve = WireMember::connect(deployment.tracker.address(), 1).unwrap();
    eve.sign_up("eve", "password-1");
    for request in [
        Request::ReadInfo { listing, offset: 0 },
        Request::Watch { listing },
        Request::Leech { listing },
        Request::Share { listing },
        Request::Seed { listing },
        Request::StopShare { listing },
    ] {
        let shown = format!("{request:?}");
        let code = refused(&mut eve, request);
        assert!(matches!(code, ErrorCode::NotAMember | ErrorCode::NoSuchFile), "{shown}: {code}");
    }
    for (presence, listing) in
        [(Presence::Seeding, listing), (Presence::Leeching, listing), (Presence::Seeding, ListingId(1 << 60))]
    {
        match eve.ask(Request::Announce { announcements: vec![Announcement { listing, presence }] }) {
            Response::Announced(refused) => assert_eq!(refused.len(), 1, "{presence:?}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ann.list_files(GROUP)[0].n_seeders, 0);
}

/// Only a sharer may say that it has everything.
#[test]
fn seeding_is_for_sharers() {
    let (_deployment, mut ann, mut bob) = two_members();
    let listing = ann.share(GROUP, &Content::new("file", vec![1; 1000])).listing;
    let announcements = vec![Announcement { listing, presence: Presence::Seeding }];
    match bob.ask(Request::Announce { announcements: announcements.clone() }) {
        Response::Announced(refused) => assert_eq!(refused[0].code, ErrorCode::NotSharing),
        other => panic!("{other:?}"),
    }
    bob.ask(Request::Share { listing });
    match bob.ask(Request::Announce { announcements }) {
        Response::Announced(refused) => assert!(refused.is_empty()),
        other => panic!("{other:?}"),
    }
    assert_eq!(ann.list_files(GROUP)[0].n_seeders, 1);
}

/// Two members list the same new name at the same moment: one listing, two sharers or one conflict.
#[test]
fn simultaneous_uploads_of_one_name_leave_one_listing() {
    let (_deployment, mut ann, mut bob) = two_members();
    for round in 0..10u8 {
        let name = format!("f{round}");
        let contents = [Content::new(&name, vec![1; 100]), Content::new(&name, vec![2; 100])];
        let group = ann.group_id(GROUP);
        let upload = |member: &mut WireMember, content: &Content| {
            let (draft, raw) = content.draft(group);
            member.offer(GROUP, draft, &raw).map_err(|refusal| refusal.code)
        };
        let outcomes: Vec<Result<ListingId, ErrorCode>> = std::thread::scope(|scope| {
            let other = scope.spawn(|| upload(&mut bob, &contents[1]));
            vec![upload(&mut ann, &contents[0]), other.join().unwrap()]
        });
        let (good, bad): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!((good.len(), bad), (1, vec![Err(ErrorCode::NameConflict)]));
        assert_eq!(ann.list_files(GROUP).iter().filter(|file| file.draft.name.as_str() == name).count(), 1);
    }
}

/// Group ids are never reused: a group of the same name is another one.
#[test]
fn group_ids_are_never_reused() {
    let (_deployment, mut ann, mut bob) = two_members();
    let old: GroupId = ann.group_id(GROUP);
    let group = || GROUP.parse().unwrap();
    bob.ask(Request::LeaveGroup { group: group() });
    ann.ask(Request::LeaveGroup { group: group() });
    ann.create_group(GROUP);
    let new = ann.group_id(GROUP);
    assert_ne!(old, new);
    // A dictionary of the old group is foreign to the new one.
    let (draft, raw) = Content::new("file", vec![1; 10]).draft(old);
    ann.offer(GROUP, draft, &raw).unwrap_err();
}
