//! What the state keeps, and for whom.

use super::*;

fn account(user: &str) -> AccountKey {
    AccountKey { deployment: Fingerprint(Sha256Hash([1; 32])), user: user.to_owned() }
}

fn file(listing: u64) -> SharedFile {
    SharedFile {
        listing: ListingId(listing),
        group_id: GroupId([2; 16]),
        group: "g".parse().unwrap(),
        name: "Grüße #1.iso".parse().unwrap(),
        info_hash: InfoHash([3; 20]),
        size: u64::MAX,
        sha1: Sha1Hash([4; 20]),
        sha256: Sha256Hash([5; 32]),
    }
}

fn share(listing: u64) -> Share {
    let path = PathBuf::from(OsStr::from_bytes(b"/tmp/not utf-8 \xff"));
    let stamp = FileStamp { size: u64::MAX, modified_ns: -5, inode: u64::MAX };
    Share { file: file(listing), path, stamp, registered: true }
}

fn download(listing: u64) -> Download {
    Download {
        id: 0,
        file: file(listing),
        destination: "/d/f".into(),
        replace: true,
        state: DownloadState::Downloading,
        reason: None,
        verified: vec![0x80],
        part_inode: Some(u64::MAX),
        started_ms: 7,
    }
}

#[test]
fn rows_survive_reopening_and_belong_to_their_account() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::open(dir.path()).unwrap();
    state.put_share(&account("a"), &share(1)).unwrap();
    let id = state.add_download(&account("a"), &download(2), b"info").unwrap();
    drop(state);
    let state = State::open(dir.path()).unwrap();
    assert_eq!(state.shares(&account("a")).unwrap(), [share(1)]);
    assert_eq!(state.downloads(&account("a")).unwrap(), [Download { id, ..download(2) }]);
    assert!(state.shares(&account("b")).unwrap().is_empty());
    assert!(state.downloads(&account("b")).unwrap().is_empty());
}

#[test]
fn a_download_started_again_replaces_its_row_and_goes_last() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::open(dir.path()).unwrap();
    for listing in [1, 2, 1] {
        state.add_download(&account("a"), &download(listing), b"info").unwrap();
    }
    let order: Vec<_> = state.downloads(&account("a")).unwrap().iter().map(|d| d.file.listing.0).collect();
    assert_eq!(order, [2, 1]);
}

#[test]
fn completing_writes_download_and_share_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::open(dir.path()).unwrap();
    let id = state.add_download(&account("a"), &download(1), b"info").unwrap();
    let complete = Download { id, state: DownloadState::Complete, ..download(1) };
    state.complete_download(&account("a"), &complete, &share(1)).unwrap();
    assert_eq!(state.downloads(&account("a")).unwrap(), [complete]);
    assert_eq!(state.shares(&account("a")).unwrap(), [share(1)]);
}

#[test]
fn infos_live_as_long_as_something_refers_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::open(dir.path()).unwrap();
    state.put_share(&account("a"), &share(1)).unwrap();
    state.put_info(InfoHash([3; 20]), b"used").unwrap();
    state.put_info(InfoHash([9; 20]), b"unused").unwrap();
    state.drop_unused_infos().unwrap();
    assert_eq!(state.info(InfoHash([3; 20])).unwrap().as_deref(), Some(&b"used"[..]));
    assert_eq!(state.info(InfoHash([9; 20])).unwrap(), None);
}

#[test]
fn one_pin_holds_for_all_lines() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::open(dir.path()).unwrap();
    let lines = ["a:1".to_owned(), "b:2".to_owned()];
    assert_eq!(state.pin(&lines).unwrap(), None);
    let pin = Fingerprint(Sha256Hash([6; 32]));
    state.set_pin(&lines, pin).unwrap();
    assert_eq!(state.pin(&lines[1..]).unwrap(), Some(pin));
}
