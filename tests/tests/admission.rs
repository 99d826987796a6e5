//! Members' machines refuse strangers by themselves (issue 3, "What bad input gets"): whatever is wrong with an
//! opening closes that connection alone, without a word, and the log names the reason.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_common::control::Request;
use mini_torrent_common::hash::PeerId;
use mini_torrent_common::peer_wire::Handshake;
use mini_torrent_common::ticket::{
    Endorsement, MAX_TICKET_LENGTH, SignedTicket, TICKET_LIFE_MS, Ticket, TicketError, TicketKey,
};
use mini_torrent_common::tls::{Identity, PublicKey};
use mini_torrent_tests::client::{ClientSettings, password_of};
use mini_torrent_tests::files::{assert_same, random_bytes, random_file};
use mini_torrent_tests::wire_link::{Pass, WireLink, framed, now_ms, without_alpn, without_key};
use mini_torrent_tests::wire_member::Seed;
use mini_torrent_tests::{Conduct, Content, Deployment, GROUP, P, Tracker, WireMember, WireSeeder};
use mini_torrent_tests::{eventually_within, programs};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What the client says of a membership that has ended.
const REVOKED: &str = "the ticket is revoked";
/// What the client says of a file that is not of the ticket's group.
const OTHER_GROUP: &str = "the ticket is of another group than the file";
/// When a stalled opening is ended: after 10 s (design §3), with a reserve on both sides.
const STALLED: std::ops::Range<Duration> = Duration::from_secs(8)..Duration::from_secs(16);

/// Ann shares a file in the group, bob is a member, and zed is one that speaks by hand.
struct Stage {
    deployment: Deployment,
    zed: WireMember,
    pass: Pass,
    handshake: Handshake,
    address: SocketAddr,
}

impl Stage {
    fn new() -> Self {
        let mut deployment = Deployment::of(programs!(), 2);
        let ann = &mut deployment.clients[0];
        let file = random_file(ann.path("file"), 4 * P, 1);
        let info_hash = ann.upload(&file, GROUP)["info_hash"].as_str().unwrap().parse().unwrap();
        let address = ann.address();
        let mut zed = deployment.add_wire_member("zed", 1);
        let group = zed.group_id(GROUP);
        let pass = zed.pass(group);
        let handshake = Handshake { info_hash, peer_id: PeerId([7; 20]), fast: true, extended: true };
        Self { deployment, zed, pass, handshake, address }
    }

    fn ann_key(&self) -> PublicKey {
        self.deployment.clients[0].key()
    }

    /// The connection closes without a word after these bytes of whoever has this key, and the log says why.
    fn assert_refused(&self, what: &str, identity: &Identity, bytes: &[u8], reason: &str) {
        let from = self.deployment.clients[0].log().len();
        let config = Pass { identity: identity.clone(), ..self.pass.clone() }.client_config().unwrap();
        let link = WireLink::dial(self.address, config).unwrap();
        link.send(bytes).unwrap();
        assert!(link.wait_closed().is_empty(), "{what}: it says something");
        self.deployment.clients[0].wait_logged(from, reason);
    }

    /// As [`Self::assert_refused`], for a ticket that zed shows.
    fn assert_ticket_refused(&self, what: &str, ticket: &[u8], reason: TicketError) {
        let opening = [&framed(ticket)[..], &self.handshake.encode()].concat();
        self.assert_refused(what, &self.pass.identity, &opening, &reason.to_string());
    }

    /// Zed's own ticket as it was signed.
    fn ticket(&self) -> Ticket {
        let signed = SignedTicket::new(self.pass.ticket.clone()).unwrap();
        signed.open(self.pass.deployment, self.pass.identity.public(), now_ms()).unwrap()
    }

    /// Zed's ticket with a change, signed by a key that the deployment endorses for ten days around now.
    fn signed(&self, change: impl FnOnce(&mut Ticket)) -> Vec<u8> {
        let mut ticket = self.ticket();
        change(&mut ticket);
        let (identity, reach) = (Seed::random().identity(), 5 * TICKET_LIFE_MS);
        let (from_ms, until_ms) = (now_ms() - reach, now_ms() + reach);
        let deployment = self.deployment.tracker.identity();
        let endorsement = Endorsement::sign(&deployment, identity.public(), from_ms, until_ms).unwrap();
        TicketKey { identity, endorsement }.sign(&ticket).unwrap().as_bytes().to_vec()
    }

    /// Whether ann lets somebody in with this ticket and talks about the file.
    fn assert_admitted(&self, ticket: Vec<u8>) {
        let link = Pass { ticket, ..self.pass.clone() }.dial(self.address, self.ann_key()).unwrap();
        link.send(&self.handshake.encode()).unwrap();
        assert_eq!(link.read_handshake().unwrap().info_hash, self.handshake.info_hash);
    }

    /// Ann is still there, and serves a good member.
    fn assert_served(&mut self) {
        let (ann, bob) = self.deployment.pair();
        assert_same(ann.path("file"), bob.download(GROUP, "file"));
        self.assert_admitted(self.pass.ticket.clone());
    }
}

/// Expired and not-yet-valid tickets; signed alike with times that fit, one opens.
#[test]
fn tickets_outside_their_time_are_refused() {
    let mut stage = Stage::new();
    let two_days = 2 * TICKET_LIFE_MS;
    let expired = stage.signed(|ticket| {
        (ticket.issued_ms, ticket.expires_ms) = (ticket.issued_ms - two_days, ticket.expires_ms - two_days);
    });
    stage.assert_ticket_refused("expired", &expired, TicketError::Expired);
    let early = stage.signed(|ticket| {
        (ticket.issued_ms, ticket.expires_ms) = (ticket.issued_ms + two_days, ticket.expires_ms + two_days);
    });
    stage.assert_ticket_refused("not yet valid", &early, TicketError::NotYetValid);
    stage.assert_admitted(stage.signed(|_| {}));
    stage.assert_served();
}

/// A ticket that another deployment signed, for the same key.
#[test]
fn foreign_tickets_are_refused() {
    let mut stage = Stage::new();
    let elsewhere = Tracker::start_with(&stage.deployment.scene, "elsewhere", &[]);
    let seed = Seed::random();
    let mut eve = WireMember::connect_as(elsewhere.address(), seed, 1).unwrap();
    eve.sign_up("zed", "password-1");
    eve.create_group(GROUP);
    let group = eve.group_id(GROUP);
    let foreign = eve.pass(group);
    let opening = framed(&foreign.ticket);
    let reason = TicketError::NotEndorsed.to_string();
    stage.assert_refused("foreign", &foreign.identity, &opening, &reason);
    stage.assert_served();
}

/// Altered, truncated, lengthened, oversized, of an unknown version, of a key that nobody endorsed.
#[test]
fn tampered_tickets_are_refused() {
    let mut stage = Stage::new();
    let good = stage.pass.ticket.clone();
    let mut altered = good.clone();
    *altered.last_mut().unwrap() ^= 1;
    stage.assert_ticket_refused("altered", &altered, TicketError::BadSignature);
    stage.assert_ticket_refused("truncated", &good[..good.len() - 1], TicketError::Malformed);
    stage.assert_ticket_refused("half", &good[..good.len() / 2], TicketError::Malformed);
    stage.assert_ticket_refused("empty", &[], TicketError::Malformed);
    stage.assert_ticket_refused("lengthened", &[&good[..], &[0]].concat(), TicketError::Malformed);
    stage.assert_ticket_refused("another version", &[&[9], &good[1..]].concat(), TicketError::UnknownVersion);
    stage.assert_ticket_refused("oversized", &vec![1; MAX_TICKET_LENGTH + 1], TicketError::Oversized);
    let forger = Seed::random().identity();
    let endorsement = Endorsement::sign(&forger, forger.public(), 0, u64::MAX).unwrap();
    let forged = TicketKey { identity: forger, endorsement }.sign(&stage.ticket()).unwrap();
    stage.assert_ticket_refused("forged", forged.as_bytes(), TicketError::NotEndorsed);
    stage.assert_served();
}

/// A stolen ticket is worth nothing without the key that it was issued to.
#[test]
fn tickets_replayed_under_another_key_are_refused() {
    let mut stage = Stage::new();
    let thief = Seed::random().identity();
    let opening = [&framed(&stage.pass.ticket)[..], &stage.handshake.encode()].concat();
    stage.assert_refused("replayed", &thief, &opening, &TicketError::OtherHolder.to_string());
    stage.assert_served();
}

/// A ticket opens the files of its group: not a group that the other is no member of, nor a file of another group.
#[test]
fn tickets_of_another_group_are_refused() {
    let mut stage = Stage::new();
    stage.zed.create_group("elsewhere");
    let elsewhere = stage.zed.group_id("elsewhere");
    let opening = [&framed(&stage.zed.pass(elsewhere).ticket)[..], &stage.handshake.encode()].concat();
    let reason = "the ticket is of a group that this client has no ticket for";
    stage.assert_refused("wrong group", &stage.pass.identity, &opening, reason);

    // Ann is a member of this one, but the file is not of it.
    let ann = &mut stage.deployment.clients[0];
    ann.expect_ok("create_group second");
    let other = random_file(ann.path("other"), 1000, 2);
    ann.upload(&other, "second");
    stage.zed.join_group("second");
    ann.expect_ok("accept_request second zed");
    let (from, second) = (ann.log().len(), stage.zed.group_id("second"));
    let link = stage.zed.pass(second).dial(stage.address, stage.ann_key()).unwrap();
    link.send(&stage.handshake.encode()).unwrap();
    assert!(link.wait_closed().is_empty(), "it says nothing of the file");
    stage.deployment.clients[0].wait_logged(from, OTHER_GROUP);
    stage.assert_served();
}

/// Who was removed and came back has a new ticket; the old one stays closed.
#[test]
fn tickets_of_an_ended_membership_are_refused() {
    let mut stage = Stage::new();
    stage.zed.ask(Request::LeaveGroup { group: GROUP.parse().unwrap() });
    stage.zed.join_group(GROUP);
    stage.deployment.clients[0].expect_ok(&format!("accept_request {GROUP} zed"));
    eventually_within(Duration::from_secs(2), "the old ticket is worth nothing", || {
        stage.pass.dial(stage.address, stage.ann_key()).is_err().then_some(())
    });
    let opening = [&framed(&stage.pass.ticket)[..], &stage.handshake.encode()].concat();
    stage.assert_refused("old epoch", &stage.pass.identity, &opening, REVOKED);
    stage.pass = stage.zed.pass(stage.pass.group);
    stage.assert_served();
}

/// Nothing comes before the ticket, neither with TLS nor without.
#[test]
fn protocol_bytes_before_the_ticket_are_refused() {
    let mut stage = Stage::new();
    let handshake = stage.handshake.encode();
    stage.assert_refused(
        "TLS, then a handshake",
        &stage.pass.identity,
        &handshake,
        "protocol bytes came before the ticket",
    );
    let from = stage.deployment.clients[0].log().len();
    let mut plain = TcpStream::connect(stage.address).unwrap();
    plain.write_all(&handshake).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(answer.is_empty(), "no fallback to plain: {answer:?}");
    stage.deployment.clients[0].wait_logged(from, "a plain handshake");
    stage.assert_served();
}

/// TLS without a key, without the protocol's name, and with another protocol's name.
#[test]
fn tls_without_key_or_protocol_name_is_refused() {
    let mut stage = Stage::new();
    let config = || stage.pass.client_config().unwrap();
    let mut of_trackers = config();
    of_trackers.alpn_protocols = vec![mini_torrent_common::control::ALPN.to_vec()];
    for (what, config, reason) in [
        ("no key", without_key(config()), "certificate"),
        ("no protocol", without_alpn(config()), "ALPN"),
        ("another protocol", of_trackers, "protocol"),
    ] {
        let from = stage.deployment.clients[0].log().len();
        // Some refusals come within the TLS handshake.
        if let Ok(link) = WireLink::dial(stage.address, config) {
            let _ = link.send(&framed(&stage.pass.ticket));
            assert!(link.wait_closed().is_empty(), "{what}: it says something");
        }
        stage.deployment.clients[0].wait_logged(from, reason);
    }
    stage.assert_served();
}

/// An opening that stalls is ended after ten seconds: before TLS, before the ticket, within it, and before the
/// handshake. Members are served meanwhile.
#[test]
fn stalled_openings_are_ended_after_ten_seconds() {
    let mut stage = Stage::new();
    let ticket = framed(&stage.pass.ticket);
    let from = stage.deployment.clients[0].log().len();
    let start = Instant::now();
    let mut silent = TcpStream::connect(stage.address).unwrap();
    let stalls = [0, 1, ticket.len() / 2, ticket.len()].map(|length| {
        let link = WireLink::dial(stage.address, stage.pass.client_config().unwrap()).unwrap();
        link.send(&ticket[..length]).unwrap();
        link
    });
    stage.assert_served();
    let mut answer = Vec::new();
    let _ = silent.read_to_end(&mut answer);
    for (nth, link) in stalls.iter().enumerate() {
        let said = link.wait_closed();
        // A good ticket is answered with one.
        assert_eq!(said.is_empty(), nth < 3, "{} bytes", said.len());
    }
    let took = start.elapsed();
    assert!(answer.is_empty() && STALLED.contains(&took), "ended after {took:?}");
    stage.deployment.clients[0].wait_logged(from, "it took too long");
}

/// The other direction: a seeder that answers with a bad ticket or another key is asked for nothing, and the
/// download goes on from one that is honest.
#[test]
fn seeders_that_prove_the_wrong_thing_are_asked_for_nothing() {
    let mut deployment = Deployment::of(programs!(), 1);
    let content = Content::new("file", random_bytes(usize::try_from(4 * P).unwrap(), 3));
    deployment.add_member_with(ClientSettings::new("bob").with_debug_log());
    let spoil = |change: fn(&mut Pass)| change;
    let bad: Vec<(&str, WireSeeder)> = [
        ("the ticket's signature does not fit", spoil(|pass| *pass.ticket.last_mut().unwrap() ^= 1)),
        ("the ticket is malformed", spoil(|pass| pass.ticket.truncate(40))),
        ("the ticket is oversized", spoil(|pass| pass.ticket.resize(MAX_TICKET_LENGTH + 1, 1))),
        ("another key answered", spoil(|pass| pass.identity = Seed::random().identity())),
    ]
    .into_iter()
    .enumerate()
    .map(|(nth, (reason, spoil))| {
        let seeder = deployment.add_wire_seeder_with(&format!("bad{nth}"), &content, Conduct::HONEST, spoil);
        (reason, seeder)
    })
    .collect();
    let bob = &mut deployment.clients[1];
    bob.begin_download(GROUP, "file");
    for (reason, seeder) in &bad {
        seeder.wait_seen(reason, |seen| (!seen.failed_openings.is_empty()).then_some(()));
        deployment.clients[1].wait_logged(0, reason);
    }
    let _honest = deployment.add_wire_seeder("honest", &content, Conduct::HONEST);
    deployment.clients[1].wait_completed(GROUP, "file");
    for (reason, seeder) in &bad {
        let seen = seeder.seen();
        assert!(seen.peers.is_empty() && seen.requests.is_empty(), "{reason}: {seen:?}");
    }
}

/// As above, with a good ticket of another group of the same seeder.
#[test]
fn a_seeder_with_a_ticket_of_another_group_is_asked_for_nothing() {
    let mut deployment = Deployment::of(programs!(), 1);
    let content = Content::new("file", random_bytes(1000, 4));
    deployment.add_member_with(ClientSettings::new("bob").with_debug_log());
    let listener = WireSeeder::bind();
    let mut zed = deployment.add_wire_member("zed", WireSeeder::port_of(&listener));
    let torrent = zed.share(GROUP, &content);
    zed.create_group("second");
    let second = zed.group_id("second");
    deployment.clients[1].expect_ok("join_group second");
    zed.ask(Request::AcceptRequest { group: "second".parse().unwrap(), user: "bob".parse().unwrap() });
    let mut pass = zed.pass(torrent.group);
    pass.ticket = zed.pass(second).ticket;
    let seeder = WireSeeder::serve(listener, zed, &torrent, content, Conduct::HONEST, pass);
    deployment.clients[1].begin_download(GROUP, "file");
    seeder.wait_seen("bob turns away", |seen| (!seen.failed_openings.is_empty()).then_some(()));
    deployment.clients[1].wait_logged(0, "the ticket is of ");
    assert!(seeder.seen().peers.is_empty());
    assert_eq!(deployment.clients[1].shown(GROUP, "file")["state"], "D");
}

/// The key in the tracker's answers is the one that the client proved there, whatever else it says.
#[test]
fn nobody_is_listed_with_anothers_key() {
    let mut stage = Stage::new();
    let (user, password) = ("eve", password_of("eve"));
    let seed = Seed::random();
    let mut eve = WireMember::connect_as(stage.deployment.tracker.address(), seed, 1).unwrap();
    eve.sign_up(user, &password);
    eve.join_group(GROUP);
    stage.deployment.clients[0].expect_ok(&format!("accept_request {GROUP} eve"));
    let signed = SignedTicket::new(eve.pass(stage.pass.group).ticket).unwrap();
    let opened = signed.open(stage.pass.deployment, seed.identity().public(), now_ms()).unwrap();
    assert_eq!((opened.holder, opened.user.as_str()), (seed.identity().public(), "eve"));
    let as_ann = signed.open(stage.pass.deployment, stage.ann_key(), now_ms());
    assert_eq!(as_ann, Err(TicketError::OtherHolder));
}

/// Connections without TLS are for measuring on loopback: a client that others can reach does not start with them.
#[test]
fn connections_without_tls_are_for_loopback_alone() {
    let deployment = Deployment::empty(programs!());
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let arguments = [listen, deployment.tracker.info(), "--data-dir", "data", "--plain-peers"];
        let finished = deployment.scene.run_client(&arguments, "");
        assert_eq!(finished.code, Some(2), "{listen}: {}{}", finished.stdout, finished.stderr);
        assert!(finished.stderr.contains("--plain-peers"), "{}", finished.stderr);
    }
}
