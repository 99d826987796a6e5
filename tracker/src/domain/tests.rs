//! Every role against every operation, and the other rules at their edges.

use super::*;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::geometry::Geometry;
use mini_torrent_common::hash::{Sha1Hash, Sha256Hash};
use mini_torrent_common::metainfo::PieceHashes;

/// One table for the whole of who may do what; acceptance E8 to E11, E13.
#[test]
fn every_role_against_every_operation() {
    use Operation::*;
    let outsider = || Err(Refused::NotAMember);
    let member = || Err(Refused::AlreadyMember);
    let owner_only = || Err(Refused::OwnerOnly);
    let table = [
        (Describe, [outsider(), outsider(), Ok(()), Ok(()), Ok(())]),
        (ReadFiles, [outsider(), outsider(), Ok(()), Ok(()), Ok(())]),
        (ShareFiles, [outsider(), outsider(), Ok(()), Ok(()), Ok(())]),
        (Enter, [outsider(), outsider(), Ok(()), Ok(()), Ok(())]),
        (DecideRequests, [outsider(), outsider(), Err(Refused::NotTheOwner), Ok(()), Ok(())]),
        (RemoveMembers, [outsider(), outsider(), Err(Refused::NotTheOwner), Ok(()), Ok(())]),
        (SetRoles, [outsider(), outsider(), owner_only(), owner_only(), Ok(())]),
        (TransferOwner, [outsider(), outsider(), owner_only(), owner_only(), Ok(())]),
        (SetStockClients, [outsider(), outsider(), owner_only(), owner_only(), Ok(())]),
        (RemoveFiles, [outsider(), outsider(), Ok(()), Ok(()), Ok(())]),
        (Join, [Ok(()), Err(Refused::AlreadyRequested), member(), member(), member()]),
        (Leave, [outsider(), Ok(()), Ok(()), Ok(()), Ok(())]),
    ];
    for (operation, answers) in table {
        for (role, answer) in ROLES.into_iter().zip(answers) {
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
        (Enter, Ok(())),
        (DecideRequests, Err(Refused::NotTheOwner)),
        (RemoveMembers, Err(Refused::NotTheOwner)),
        (SetRoles, Err(Refused::OwnerOnly)),
        (TransferOwner, Err(Refused::OwnerOnly)),
        (SetStockClients, Err(Refused::OwnerOnly)),
        (RemoveFiles, Ok(())),
        (Join, Err(Refused::AlreadyMember)),
        (Leave, Err(Refused::BuiltInGroup)),
    ] {
        assert_eq!(permit(operation, Standing { role: Some(Role::Member), built_in: true }), answer, "{operation:?}");
    }
}

const ROLES: [Option<Role>; 5] = [None, Some(Role::Pending), Some(Role::Member), Some(Role::Admin), Some(Role::Owner)];

#[test]
fn a_listings_number_tells_strangers_nothing() {
    for operation in [Operation::ReadFiles, Operation::ShareFiles] {
        for role in ROLES {
            let by_number = |was| permit_by_number(operation, Standing { role, built_in: false }, was);
            let is_member = role >= Some(Role::Member);
            assert_eq!(by_number(false), if is_member { Ok(()) } else { Err(Refused::NoSuchFile) }, "{role:?}");
            assert_eq!(by_number(true), if is_member { Ok(()) } else { Err(Refused::NotAMember) }, "{role:?}");
        }
    }
}

/// Every actor's role against every target's, with the code of the answer. Rows are actors, columns targets.
fn check_on_member(operation: MemberOperation, table: [[Option<ErrorCode>; 5]; 5]) {
    for (role, answers) in ROLES.into_iter().zip(table) {
        let actor = Standing { role, built_in: false };
        for (target, expected) in ROLES.into_iter().zip(answers) {
            let answer = permit_on_member(operation, actor, Target::Other(target)).err().map(|refused| refused.code());
            assert_eq!(answer, expected, "{operation:?} of {target:?} by {role:?}");
        }
        // Who may do it to nobody does not learn whether an account is there.
        let nobody = permit_on_member(operation, actor, Target::NoAccount).unwrap_err().code();
        let may_do_it = answers.contains(&None);
        assert_eq!(nobody == ErrorCode::NoSuchUser, may_do_it, "{operation:?} of nobody by {role:?}");
    }
    let public = Standing { role: Some(Role::Member), built_in: true };
    for target in [Target::Other(Some(Role::Member)), Target::Actor, Target::NoAccount] {
        let answer = permit_on_member(operation, public, target).unwrap_err().code();
        assert_eq!(answer, ErrorCode::NotTheOwner, "{operation:?} of {target:?} in the built-in group");
    }
}

#[test]
fn every_role_against_every_member() {
    let (outsider, owners) = (Some(ErrorCode::NotAMember), Some(ErrorCode::NotTheOwner));
    let none = Some(ErrorCode::NotAMember);
    check_on_member(
        MemberOperation::Remove,
        [
            [outsider; 5],
            [outsider; 5],
            [owners; 5],
            [none, none, None, owners, owners],
            // There is one owner, so the last column is no case; nobody removes an owner.
            [none, none, None, None, owners],
        ],
    );
    let usage = Some(ErrorCode::Usage);
    for operation in [MemberOperation::SetRole(Role::Admin), MemberOperation::SetRole(Role::Member)] {
        let owner = [none, none, None, None, usage];
        check_on_member(operation, [[outsider; 5], [outsider; 5], [owners; 5], [owners; 5], owner]);
    }
    let owner = [none, none, None, None, usage];
    check_on_member(MemberOperation::MakeOwner, [[outsider; 5], [outsider; 5], [owners; 5], [owners; 5], owner]);
}

#[test]
fn nobody_does_these_things_to_itself() {
    let by = |role, operation| permit_on_member(operation, Standing { role, built_in: false }, Target::Actor);
    for role in [Role::Member, Role::Admin, Role::Owner] {
        let text = by(Some(role), MemberOperation::Remove).unwrap_err().to_string();
        assert!(text.contains("leave_group"), "{role:?}: {text}");
    }
    assert_eq!(by(None, MemberOperation::Remove), Err(Refused::NotAMember));
    assert_eq!(by(Some(Role::Pending), MemberOperation::Remove), Err(Refused::NotAMember));
    let text = by(Some(Role::Owner), MemberOperation::SetRole(Role::Member)).unwrap_err().to_string();
    assert!(text.contains("transfer_owner"), "{text}");
    assert_eq!(by(Some(Role::Owner), MemberOperation::MakeOwner).unwrap_err().code(), ErrorCode::Usage);
    assert_eq!(by(Some(Role::Admin), MemberOperation::SetRole(Role::Member)), Err(Refused::OwnerOnly));
    let owner = Standing { role: Some(Role::Owner), built_in: false };
    for role in [Role::Pending, Role::Owner] {
        let set = permit_on_member(MemberOperation::SetRole(role), owner, Target::Other(Some(Role::Member)));
        assert_eq!(set.unwrap_err().code(), ErrorCode::Usage, "{role:?} is given to nobody");
    }
}

#[test]
fn a_file_is_removed_by_who_governs_or_by_an_uploader_whom_nobody_has_joined() {
    let file = |is_uploader, has_other_sharers| Some(ListedFile { is_uploader, has_other_sharers });
    let files = [file(false, false), file(false, true), file(true, true), file(true, false)];
    let (no, of_others) = (Err(Refused::NotAMember), Err(Refused::FileOfOthers));
    let uploader = [of_others.clone(), of_others.clone(), of_others, Ok(())];
    let all = [Ok(()), Ok(()), Ok(()), Ok(())];
    let nothing = [no.clone(), no.clone(), no.clone(), no];
    let table = [nothing.clone(), nothing, uploader.clone(), all.clone(), all];
    for (role, answers) in ROLES.into_iter().zip(table) {
        let actor = Standing { role, built_in: false };
        for (file, answer) in files.into_iter().zip(answers) {
            assert_eq!(permit_file_removal(actor, file), answer, "{file:?} by {role:?}");
        }
        let unlisted = if role >= Some(Role::Member) { Refused::NoSuchFile } else { Refused::NotAMember };
        assert_eq!(permit_file_removal(actor, None), Err(unlisted), "by {role:?}");
    }
    let public = Standing { role: Some(Role::Member), built_in: true };
    for (file, answer) in files.into_iter().zip(uploader) {
        assert_eq!(permit_file_removal(public, file), answer, "{file:?} in the built-in group");
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
