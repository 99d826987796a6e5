//! Every role against every operation, and the other rules at their edges.

use super::*;
use mini_torrent_common::geometry::Geometry;
use mini_torrent_common::hash::{Sha1Hash, Sha256Hash};
use mini_torrent_common::metainfo::PieceHashes;

/// One table for the whole of who may do what; acceptance E8 to E11, E13.
#[test]
fn every_role_against_every_operation() {
    use Operation::*;
    let roles = [None, Some(Role::Pending), Some(Role::Member), Some(Role::Admin), Some(Role::Owner)];
    let outsider = || Err(Refused::NotAMember);
    let member = || Err(Refused::AlreadyMember);
    let table = [
        (Describe, [outsider(), outsider(), Ok(()), Ok(()), Ok(())]),
        (ReadFiles, [outsider(), outsider(), Ok(()), Ok(()), Ok(())]),
        (ShareFiles, [outsider(), outsider(), Ok(()), Ok(()), Ok(())]),
        (DecideRequests, [outsider(), outsider(), Err(Refused::NotTheOwner), Ok(()), Ok(())]),
        (Join, [Ok(()), Err(Refused::AlreadyRequested), member(), member(), member()]),
        (Leave, [outsider(), Ok(()), Ok(()), Ok(()), Ok(())]),
    ];
    for (operation, answers) in table {
        for (role, answer) in roles.into_iter().zip(answers) {
            assert_eq!(permit(operation, Standing { role, built_in: false }), answer, "{operation:?} by {role:?}");
        }
    }
}

#[test]
fn the_built_in_group_is_used_but_neither_joined_left_nor_governed() {
    use Operation::*;
    for (operation, answer) in [
        (Describe, Ok(())),
        (ReadFiles, Ok(())),
        (ShareFiles, Ok(())),
        (DecideRequests, Err(Refused::NotTheOwner)),
        (Join, Err(Refused::AlreadyMember)),
        (Leave, Err(Refused::BuiltInGroup)),
    ] {
        assert_eq!(permit(operation, Standing { role: Some(Role::Member), built_in: true }), answer, "{operation:?}");
    }
}

#[test]
fn the_longest_standing_admin_succeeds_before_any_member() {
    let candidate = |user, role, epoch| Candidate { user, role, epoch };
    let all = [
        candidate('a', Role::Member, 1),
        candidate('b', Role::Admin, 5),
        candidate('c', Role::Admin, 3),
        candidate('d', Role::Member, 2),
    ];
    assert_eq!(successor(&all), Some('c'));
    assert_eq!(successor(&[all[3], all[0]]), Some('a'));
    assert_eq!(successor::<char>(&[]), None);
}

#[test]
fn a_password_is_counted_in_characters() {
    let check = |text: &str| check_password(&Password::new(text.into()));
    assert_eq!(check("1234567"), Err(Refused::WeakPassword));
    assert_eq!(check("ééééééé"), Err(Refused::WeakPassword), "14 bytes, 7 characters");
    assert_eq!(check("12345678"), Ok(()));
    assert_eq!(check(&"x".repeat(1025)), Err(Refused::WeakPassword));
}

fn draft(info: &Info) -> ListingDraft {
    let raw = info.encode();
    ListingDraft {
        name: info.name.clone(),
        size: info.geometry.length(),
        sha1: Sha1Hash([1; 20]),
        sha256: Sha256Hash([2; 32]),
        info_hash: InfoHash::of(&raw),
        info_length: raw.len() as u64,
    }
}

fn info(group: Option<GroupId>) -> Info {
    Info {
        name: "a.bin".parse().unwrap(),
        geometry: Geometry::new(5, u64::from(PIECE_LENGTH)).unwrap(),
        pieces: PieceHashes::new(vec![7; 20]).unwrap(),
        private: group.is_some(),
        group,
    }
}

#[test]
fn an_info_that_does_not_fit_is_refused_with_what_does_not() {
    let group = Some(GroupId([1; 16]));
    let good = info(group);
    let check = |info: &Info, draft: &ListingDraft, group| {
        check_info(info, InfoHash::of(&info.encode()), draft, group).map_err(|refused| refused.to_string())
    };
    assert_eq!(check(&good, &draft(&good), group), Ok(()));
    assert_eq!(check(&info(None), &draft(&info(None)), None), Ok(()));
    let cases: [(Info, ListingDraft, &str); 6] = [
        (good.clone(), ListingDraft { info_hash: InfoHash([0; 20]), ..draft(&good) }, "info-hash"),
        (good.clone(), ListingDraft { name: "b".parse().unwrap(), ..draft(&good) }, "another name"),
        (good.clone(), ListingDraft { size: 6, ..draft(&good) }, "another length"),
        (info(Some(GroupId([2; 16]))), draft(&info(Some(GroupId([2; 16])))), "another group"),
        (info(None), draft(&info(None)), "another group"),
        (Info { private: false, ..good.clone() }, draft(&Info { private: false, ..good.clone() }), "private"),
    ];
    for (info, draft, problem) in cases {
        assert!(check(&info, &draft, group).unwrap_err().contains(problem), "{problem}");
    }
    let coarse = Info { geometry: Geometry::new(5, 4 * u64::from(PIECE_LENGTH)).unwrap(), ..good };
    assert!(check(&coarse, &draft(&coarse), group).unwrap_err().contains("512 KiB"));
}

#[test]
fn a_name_conflict_names_size_and_short_hash_of_the_existing_file() {
    let existing = draft(&info(None));
    let offered = ListingDraft { size: 6, ..existing.clone() };
    let text = check_same_content(&existing, &offered).unwrap_err().to_string();
    assert!(text.contains("5 bytes") && text.contains("02020202…"), "{text}");
    assert_eq!(
        check_same_content(&existing, &ListingDraft { info_hash: InfoHash([0; 20]), ..existing.clone() }),
        Ok(())
    );
}

#[test]
fn a_quota_includes_its_limit() {
    assert_eq!(check_quota(Quota::Groups, limits::MAX_GROUPS_OWNED), Ok(()));
    assert!(check_quota(Quota::Groups, limits::MAX_GROUPS_OWNED + 1).is_err());
}
