//! Good tickets open, and each way to be bad has its own name.

use super::*;
use crate::tls::SEED_LENGTH;
use proptest::prelude::*;

const NOW: u64 = 1_800_000_000_000;

fn identity(byte: u8) -> Identity {
    Identity::from_seed(&[byte; SEED_LENGTH]).unwrap()
}

fn deployment() -> Identity {
    identity(1)
}

fn ticket_key() -> TicketKey {
    let identity = identity(2);
    let endorsement = Endorsement::sign(&deployment(), identity.public(), NOW, NOW + 2 * TICKET_LIFE_MS).unwrap();
    TicketKey { identity, endorsement }
}

fn holder() -> PublicKey {
    identity(3).public()
}

fn ticket() -> Ticket {
    Ticket {
        deployment: deployment().public().fingerprint(),
        group: GroupId([4; 16]),
        member_epoch: 5,
        account: AccountId(6),
        account_epoch: 7,
        user: "alice".parse().unwrap(),
        holder: holder(),
        issued_ms: NOW,
        expires_ms: NOW + TICKET_LIFE_MS,
    }
}

fn open(signed: &SignedTicket, now_ms: u64) -> Result<Ticket, TicketError> {
    signed.open(deployment().public(), holder(), now_ms)
}

fn signed(change: impl FnOnce(&mut Ticket)) -> SignedTicket {
    let mut ticket = ticket();
    change(&mut ticket);
    ticket_key().sign(&ticket).unwrap()
}

#[test]
fn a_good_ticket_opens_and_says_what_was_signed() {
    assert_eq!(open(&signed(|_| {}), NOW), Ok(ticket()));
}

#[test]
fn the_longest_ticket_fits() {
    let longest = signed(|ticket| {
        ticket.user = "x".repeat(64).parse().unwrap();
        (ticket.member_epoch, ticket.account_epoch, ticket.account) = (u64::MAX, u64::MAX, AccountId(u64::MAX));
    });
    assert!(longest.as_bytes().len() <= MAX_TICKET_LENGTH / 2, "{} bytes", longest.as_bytes().len());
}

#[test]
fn times_are_kept_with_the_tolerance_and_not_more() {
    let good = signed(|_| {});
    assert_eq!(open(&good, NOW - CLOCK_TOLERANCE_MS), Ok(ticket()));
    assert_eq!(open(&good, NOW - CLOCK_TOLERANCE_MS - 1), Err(TicketError::NotYetValid));
    assert_eq!(open(&good, NOW + TICKET_LIFE_MS + CLOCK_TOLERANCE_MS), Ok(ticket()));
    assert_eq!(open(&good, NOW + TICKET_LIFE_MS + CLOCK_TOLERANCE_MS + 1), Err(TicketError::Expired));
    assert_eq!(open(&good, u64::MAX), Err(TicketError::Expired));
}

#[test]
fn each_way_to_be_bad_has_its_name() {
    let foreign_key = TicketKey {
        identity: identity(2),
        endorsement: Endorsement::sign(&identity(9), identity(2).public(), NOW, NOW + 2 * TICKET_LIFE_MS).unwrap(),
    };
    let stolen_endorsement = TicketKey { identity: identity(9), endorsement: ticket_key().endorsement };
    let mut altered = signed(|_| {}).as_bytes().to_vec();
    *altered.last_mut().unwrap() ^= 1;
    let bytes = |bytes: &[u8]| SignedTicket::new(bytes.to_vec()).unwrap();
    let good = signed(|_| {});
    for (bad, name) in [
        (foreign_key.sign(&ticket()).unwrap(), TicketError::NotEndorsed),
        (stolen_endorsement.sign(&ticket()).unwrap(), TicketError::BadSignature),
        (bytes(&altered), TicketError::BadSignature),
        (bytes(&good.as_bytes()[..good.as_bytes().len() - 1]), TicketError::Malformed),
        (bytes(&[good.as_bytes(), &[0]].concat()), TicketError::Malformed),
        (bytes(&[]), TicketError::Malformed),
        (bytes(&[2, 0, 0]), TicketError::UnknownVersion),
        (signed(|ticket| ticket.deployment = identity(9).public().fingerprint()), TicketError::OtherDeployment),
        (signed(|ticket| ticket.holder = identity(9).public()), TicketError::OtherHolder),
        (signed(|ticket| ticket.expires_ms = NOW + 3 * TICKET_LIFE_MS), TicketError::KeyNotInUse),
        (signed(|ticket| ticket.issued_ms = NOW - 2 * CLOCK_TOLERANCE_MS), TicketError::KeyNotInUse),
    ] {
        assert_eq!(open(&bad, NOW), Err(name));
    }
    assert_eq!(SignedTicket::new(vec![1; MAX_TICKET_LENGTH + 1]), Err(TicketError::Oversized));
}

#[test]
fn an_endorsement_round_trips_and_nothing_else_reads_as_one() {
    let endorsement = ticket_key().endorsement;
    let bytes = endorsement.to_bytes().unwrap();
    assert_eq!(Endorsement::from_bytes(&bytes), Some(endorsement));
    assert_eq!(Endorsement::from_bytes(&bytes[1..]), None);
    assert_eq!(Endorsement::from_bytes(&[&bytes[..], &[0]].concat()), None);
}

proptest! {
    /// No bytes make the parser panic, and no altered byte is let through.
    #[test]
    fn no_altered_ticket_opens(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let good = signed(|_| {});
        let mut bytes = good.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(open(&SignedTicket::new(bytes).unwrap(), NOW).is_err());
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..MAX_TICKET_LENGTH)) {
        prop_assert!(open(&SignedTicket::new(bytes).unwrap(), NOW).is_err());
    }
}
