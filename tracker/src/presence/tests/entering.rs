//! Revocations, and who hears of them.

use super::*;
use mini_torrent_common::ticket::AccountId;

const OTHER_GROUP: GroupId = GroupId([2; 16]);

fn revocation(number: u64, group: Option<GroupId>) -> Revocation {
    Revocation { number, group, account: AccountId(number), epoch: 1, at_ms: 1 }
}

fn enter(presence: &Presence, client: &Online, user: i64, group: GroupId) -> Result<(), NotTaken> {
    presence.enter_group(client.id, UserId(user), group)
}

/// Enters a group as a member of it.
fn inside(presence: &Presence, client: &Online, user: i64, group: GroupId) {
    enter(presence, client, user, group).unwrap();
    presence.admit(client.id, group);
}

fn heard(presence: &Presence, client: &Online) -> Vec<u64> {
    match presence.take_revocations(client.id) {
        Some(Event::Revoked(revocations)) => revocations.iter().map(|one| one.number).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn a_groups_revocations_reach_those_inside_and_an_accounts_reach_everybody_inside_any() {
    let (presence, _clock) = presence();
    let clients: Vec<_> = (1..=3).map(|n| connect(&presence, n, u8::try_from(n).unwrap())).collect();
    for (user, client) in (7..).zip(&clients) {
        sign_in(&presence, client, user).unwrap();
    }
    inside(&presence, &clients[0], 7, GROUP);
    inside(&presence, &clients[0], 7, OTHER_GROUP);
    inside(&presence, &clients[1], 8, OTHER_GROUP);
    let log = [revocation(1, Some(GROUP)), revocation(2, None), revocation(3, Some(OTHER_GROUP))];
    presence.tell_revocations(&log);
    assert_eq!(heard(&presence, &clients[0]), [1, 2, 3], "once each, in their order");
    assert_eq!(heard(&presence, &clients[1]), [2, 3]);
    assert_eq!(heard(&presence, &clients[2]), [] as [u64; 0]);
    assert_eq!(presence.take_revocations(clients[0].id), None, "told once");
}

#[test]
fn who_leaves_a_group_or_signs_out_hears_no_more() {
    let (presence, _clock) = presence();
    let clients: Vec<_> = (1..=4).map(|n| connect(&presence, n, u8::try_from(n).unwrap())).collect();
    for (user, client) in (7..).zip(&clients) {
        sign_in(&presence, client, user).unwrap();
        inside(&presence, client, user, GROUP);
    }
    presence.tell_revocations(&[revocation(1, None)]);
    presence.end_membership(UserId(7), GROUP);
    presence.sign_out(clients[1].id);
    presence.disconnect(clients[2].id);
    presence.leave_group(clients[3].id, GROUP);
    presence.tell_revocations(&[revocation(2, Some(GROUP)), revocation(3, None)]);
    for client in &clients {
        assert_eq!(heard(&presence, client), [] as [u64; 0], "not even of what was revoked before");
    }
    assert!(presence.state().entered.is_empty(), "nothing is left behind");
}

#[test]
fn nobody_hears_of_anything_before_it_is_admitted_and_then_of_everything_in_order() {
    let (presence, _clock) = presence();
    let (member, stranger) = (connect(&presence, 1, 1), connect(&presence, 2, 2));
    sign_in(&presence, &member, 7).unwrap();
    sign_in(&presence, &stranger, 8).unwrap();
    inside(&presence, &member, 7, GROUP);
    for (client, user) in [(&member, 7), (&stranger, 8)] {
        enter(&presence, client, user, OTHER_GROUP).unwrap();
    }
    let log = [revocation(1, Some(GROUP)), revocation(2, Some(OTHER_GROUP)), revocation(3, None)];
    presence.tell_revocations(&log);
    assert_eq!(heard(&presence, &member), [1], "the third waits behind the second");
    assert_eq!(heard(&presence, &stranger), [] as [u64; 0]);
    presence.admit(member.id, OTHER_GROUP);
    presence.leave_group(stranger.id, OTHER_GROUP);
    presence.admit(stranger.id, OTHER_GROUP);
    assert_eq!(heard(&presence, &member), [2, 3]);
    assert_eq!(heard(&presence, &stranger), [] as [u64; 0]);
}

#[test]
fn a_failure_of_the_store_keeps_members_in_and_newcomers_out() {
    let (presence, _clock) = presence();
    let client = connect(&presence, 1, 1);
    sign_in(&presence, &client, 7).unwrap();
    inside(&presence, &client, 7, GROUP);
    for group in [GROUP, OTHER_GROUP] {
        enter(&presence, &client, 7, group).unwrap();
        presence.give_up_entering(client.id, group);
    }
    presence.tell_revocations(&[revocation(1, Some(OTHER_GROUP)), revocation(2, Some(GROUP))]);
    assert_eq!(heard(&presence, &client), [2]);
}

#[test]
fn only_a_signed_in_user_enters_and_not_too_many_groups() {
    let (presence, _clock) = presence();
    let client = connect(&presence, 1, 1);
    assert_eq!(enter(&presence, &client, 7, GROUP), Err(NotTaken::SignedOut));
    sign_in(&presence, &client, 7).unwrap();
    assert_eq!(enter(&presence, &client, 8, GROUP), Err(NotTaken::SignedOut));
    for n in 0..limits::MAX_ENTERED {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        enter(&presence, &client, 7, GroupId(id)).unwrap();
    }
    assert_eq!(enter(&presence, &client, 7, GROUP), Err(NotTaken::TooMany));
    assert_eq!(enter(&presence, &client, 7, GroupId([0; 16])), Ok(()), "it is inside that one already");
}

#[test]
fn a_client_that_lets_revocations_gather_is_dropped() {
    let (presence, _clock) = presence();
    let client = connect(&presence, 1, 1);
    sign_in(&presence, &client, 7).unwrap();
    inside(&presence, &client, 7, GROUP);
    let log: Vec<_> = (1..=limits::MAX_PENDING_REVOCATIONS as u64).map(|n| revocation(n, Some(GROUP))).collect();
    presence.tell_revocations(&log);
    assert!(!client.close.is_cancelled());
    presence.tell_revocations(&[revocation(u64::MAX, None)]);
    assert!(client.close.is_cancelled());
}

/// So many revocations as may gather fit into one frame.
#[test]
fn the_largest_event_fits_into_a_frame() {
    use bytes::BytesMut;
    use mini_torrent_common::control::{ControlCodec, MAX_FRAME_LENGTH, TrackerMessage};
    use tokio_util::codec::{Decoder, Encoder};
    let largest = Revocation { group: Some(GROUP), epoch: u64::MAX, at_ms: u64::MAX, ..revocation(u64::MAX, None) };
    let event = TrackerMessage::Event(Event::Revoked(vec![largest; limits::MAX_PENDING_REVOCATIONS]));
    let mut buffer = BytesMut::new();
    ControlCodec::<TrackerMessage, TrackerMessage>::new(MAX_FRAME_LENGTH).encode(event.clone(), &mut buffer).unwrap();
    let mut reader = ControlCodec::<TrackerMessage, TrackerMessage>::new(MAX_FRAME_LENGTH);
    assert!(reader.decode(&mut buffer).unwrap() == Some(event));
}

/// 1,000 revocations to 1,000 members inside: how long it takes is measured in the benchmarks.
#[test]
fn a_thousand_revocations_reach_a_thousand_members() {
    let (presence, _clock) = presence();
    let clients: Vec<_> = (1..=1000_u64)
        .map(|n| {
            let client = connect(&presence, n, u8::try_from(n % 251).unwrap());
            sign_in(&presence, &client, i64::try_from(n).unwrap()).unwrap();
            inside(&presence, &client, i64::try_from(n).unwrap(), GROUP);
            client
        })
        .collect();
    let log: Vec<_> = (1..=1000).map(|n| revocation(n, Some(GROUP))).collect();
    presence.tell_revocations(&log);
    assert!(clients.iter().all(|client| heard(&presence, client).len() == 1000));
}
