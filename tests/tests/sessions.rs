//! Sessions: `sessions`, `logout --everywhere`, `login --takeover`, locked accounts, and tokens that rotate (design §4;
//! behaviour §2 to §5).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_common::control::{Event, Request};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::secret::SessionToken;
use mini_torrent_tests::client::password_of;
use mini_torrent_tests::files::{random_bytes, random_file};
use mini_torrent_tests::wire_leecher::WireLeecher;
use mini_torrent_tests::wire_member::Seed;
use mini_torrent_tests::{Client, Conduct, Content, Deployment, GROUP, P, WireMember, eventually_within, programs};
use std::net::SocketAddr;
use std::time::Duration;

/// Within what time other members feel the end of a session's tickets.
const PROMPT: Duration = Duration::from_secs(2);

/// One's own sessions: where, with what, since when.
#[test]
fn sessions_are_listed() {
    let mut deployment = Deployment::empty(programs!());
    deployment.add_stranger();
    deployment.add_stranger();
    let (ann, _) = deployment.pair();
    let answer = ann.expect_ok("sessions");
    let sessions = answer["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 1, "{answer}");
    let session = &sessions[0];
    let keys: Vec<&String> = session.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["address", "client", "since", "current"]);
    assert_eq!(session["address"].as_str().unwrap(), ann.address().to_string());
    assert_eq!(session["current"], true);
    assert!(!session["client"].as_str().unwrap().is_empty());
    assert!(session["since"].as_str().unwrap().starts_with("20"), "{session}");
    ann.expect_ok("logout");
    ann.expect_error("sessions", "not_logged_in");
}

/// `logout --everywhere`: signed out, shares withdrawn, tickets worth nothing; the next login restores all.
#[test]
fn logout_everywhere_takes_the_tickets_back() {
    let mut deployment = Deployment::of(programs!(), 2);
    let ann = &mut deployment.clients[0];
    let file = random_file(ann.path("file"), 4 * P, 1);
    ann.upload(&file, GROUP);
    let mut zed = WireLeecher::join(&mut deployment, "zed", "file");
    let (ann, bob) = deployment.pair();
    assert_eq!(ann.expect_ok("logout --everywhere")["user"], "ann");
    zed.wait_closed(PROMPT);
    ann.expect_error("list_groups", "not_logged_in");
    eventually_within(PROMPT, "the share is withdrawn", || (bob.listed(GROUP, "file")["seeders"] == 0).then_some(()));
    assert_eq!(ann.sign_in()["shares"], 1);
    bob.download(GROUP, "file");
}

/// `login --takeover` ends the session elsewhere: that client is told, serves nobody any more, and asks for nothing.
#[test]
fn takeover_ends_the_session_elsewhere() {
    let mut deployment = Deployment::of(programs!(), 2);
    let ann = &mut deployment.clients[0];
    let file = random_file(ann.path("file"), 4 * P, 1);
    ann.upload(&file, GROUP);
    let content = Content::new("held", random_bytes(4_000_000, 2));
    let held = deployment.add_wire_seeder("held", &content, Conduct::HELD);
    deployment.clients[0].begin_download(GROUP, "held");
    held.wait_requested();
    let mut zed = WireLeecher::join(&mut deployment, "zed", "file");
    let mut second = Client::start(&deployment.scene, &deployment.tracker, "second");
    let password = password_of("ann");
    let text = second.expect_error(&format!("login ann {password}"), "already_logged_in");
    assert!(text.contains("127.0.0.1") && text.contains("--takeover"), "{text}");
    second.expect_error("login ann password-x --takeover", "wrong_credentials");
    second.expect_ok(&format!("login ann {password} --takeover"));
    zed.wait_closed(PROMPT);
    held.wait_seen("the download pauses", |seen| (seen.n_open == 0).then_some(()));
    let ann = &mut deployment.clients[0];
    ann.wait_event_kind("session_ended");
    ann.expect_error("list_groups", "not_logged_in");
    assert_eq!(second.expect_ok("sessions")["sessions"].as_array().unwrap().len(), 1);
    second.expect_ok("list_files lab");
    // And back again: the first one's shares and downloads are as they were.
    assert_eq!(ann.expect_ok(&format!("login ann {password} --takeover"))["shares"], 1);
    second.wait_event_kind("session_ended");
    held.allow(None);
    ann.wait_completed(GROUP, "held");
}

/// `lock_user` signs the account out and keeps it out, whoever asks; `unlock_user` lets it in again.
#[test]
fn a_locked_account_is_out_until_it_is_unlocked() {
    let mut deployment = Deployment::of(programs!(), 2);
    let bob = &mut deployment.clients[1];
    let file = random_file(bob.path("file"), 4 * P, 1);
    bob.upload(&file, GROUP);
    let mut zed = WireLeecher::join(&mut deployment, "zed", "file");
    assert_eq!(deployment.tracker.console("lock_user bob"), ["user bob locked"]);
    zed.wait_closed(PROMPT);
    let (ann, bob) = deployment.pair();
    bob.wait_event_kind("session_ended");
    bob.expect_error("list_groups", "not_logged_in");
    eventually_within(PROMPT, "the share is withdrawn", || (ann.listed(GROUP, "file")["seeders"] == 0).then_some(()));
    for takeover in ["", " --takeover"] {
        let text = bob.expect_error(&format!("login bob {}{takeover}", password_of("bob")), "wrong_credentials");
        assert!(text.contains("locked"), "{text}");
    }
    // Who does not know the password learns nothing of the lock.
    let text = bob.expect_error("login bob not-the-password", "wrong_credentials");
    assert!(!text.contains("locked"), "{text}");
    assert_eq!(deployment.tracker.console("unlock_user bob"), ["user bob unlocked"]);
    let (ann, bob) = deployment.pair();
    assert_eq!(bob.sign_in()["shares"], 1);
    ann.download(GROUP, "file");
    for command in ["lock_user nobody", "unlock_user nobody"] {
        let lines = deployment.tracker.console(command);
        assert!(lines[0].starts_with("error[no_such_user]"), "{command}: {lines:?}");
    }
}

/// A client of one key that signs in and resumes by hand.
struct Resumer {
    tracker: SocketAddr,
    seed: Seed,
}

impl Resumer {
    fn sign_up(deployment: &Deployment, user: &str) -> (Self, WireMember) {
        let resumer = Self { tracker: deployment.tracker.address(), seed: Seed::random() };
        let mut member = resumer.connect();
        member.sign_up(user, &password_of(user));
        (resumer, member)
    }

    fn connect(&self) -> WireMember {
        WireMember::connect_as(self.tracker, self.seed, 1).unwrap()
    }

    fn resume(&self, token: &SessionToken) -> WireMember {
        let mut member = self.connect();
        member.resume(token.clone());
        member
    }

    fn refusal(&self, token: &SessionToken) -> ErrorCode {
        self.connect().request(Request::Resume { token: token.clone() }).unwrap().unwrap_err().code
    }
}

/// Each resume gives a new token. A lost answer does no harm: the old token goes on working until the new one was used.
#[test]
fn tokens_rotate_and_survive_lost_answers() {
    let deployment = Deployment::empty(programs!());
    let (resumer, member) = Resumer::sign_up(&deployment, "ann");
    let first = member.token();
    drop(member);
    let lost = resumer.resume(&first);
    assert!(lost.token() != first, "a resume gives a successor");
    drop(lost);
    let second = resumer.resume(&first).token();
    let third = resumer.resume(&second).token();
    let mut member = resumer.resume(&third);
    member.create_group("g");
}

/// A token whose successor was used is in the wrong hands, or was: it ends the session with all its tokens.
#[test]
fn a_used_up_token_ends_its_session() {
    let deployment = Deployment::empty(programs!());
    let (resumer, member) = Resumer::sign_up(&deployment, "ann");
    let first = member.token();
    drop(member);
    let second = resumer.resume(&first).token();
    let mut live = resumer.resume(&second);
    let newest = live.token();
    assert_eq!(resumer.refusal(&first), ErrorCode::SessionEnded);
    assert_eq!(resumer.refusal(&newest), ErrorCode::SessionEnded, "the newest goes with it");
    let answer = live.request(Request::ListGroups { after: None });
    assert!(!matches!(answer, Ok(Ok(_))), "the live connection is signed out: {answer:?}");
    assert!(live.events.iter().any(|event| matches!(event, Event::SessionEnded { .. })), "{:?}", live.events);
    resumer.connect().sign_in("ann", &password_of("ann"));
}

/// Another's token is worth nothing with one's own key, and trying harms nobody.
#[test]
fn anothers_token_is_worth_nothing() {
    let deployment = Deployment::empty(programs!());
    let (resumer, mut member) = Resumer::sign_up(&deployment, "ann");
    let (thief, _) = Resumer::sign_up(&deployment, "eve");
    assert_eq!(thief.refusal(&member.token()), ErrorCode::SessionEnded);
    assert_eq!(thief.refusal(&SessionToken::new([7; 32])), ErrorCode::SessionEnded);
    member.create_group("mine");
    let token = member.token();
    drop(member);
    resumer.resume(&token).create_group("mine-too");
}

/// What ends a session ends its token: logout, logout everywhere, takeover by another client, the account's lock.
#[test]
fn the_token_of_an_ended_session_is_worth_nothing() {
    let mut deployment = Deployment::empty(programs!());
    let tracker = deployment.tracker.address();
    for (user, way) in [("ann", "logout"), ("bob", "everywhere"), ("cid", "takeover"), ("dee", "lock")] {
        let (resumer, mut member) = Resumer::sign_up(&deployment, user);
        let token = member.token();
        match way {
            "logout" => _ = member.ask(Request::Logout),
            "everywhere" => _ = member.ask(Request::LogoutEverywhere),
            "takeover" => {
                let mut elsewhere = WireMember::connect(tracker, 1).unwrap();
                elsewhere.sign_in_taking_over(user, &password_of(user));
            }
            _ => _ = deployment.tracker.console(&format!("lock_user {user}")),
        }
        assert_eq!(resumer.refusal(&token), ErrorCode::SessionEnded, "{way}");
        let answer = member.request(Request::ListGroups { after: None });
        assert!(!matches!(answer, Ok(Ok(_))), "{way}: {answer:?}");
    }
}
