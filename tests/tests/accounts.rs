//! Accounts and sessions: E4, E5, E21, E22 and the corners of behaviour §3 about signing in.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_common::control::Request;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::secret::Password;
use mini_torrent_tests::client::{ClientSettings, password_of};
use mini_torrent_tests::files::files_with;
use mini_torrent_tests::{Client, Deployment, WireMember, eventually_within, programs};
use std::time::Duration;

/// E4: a new user is created, the same name again is refused and the old password stays.
#[test]
fn e4_user_names_are_taken_once() {
    let deployment = Deployment::empty(programs!());
    let mut client = Client::start(&deployment.scene, &deployment.tracker, "ann");
    let created = client.expect_ok("create_user ann password-1");
    assert_eq!(created["user"], "ann");
    client.expect_error("create_user ann password-2", "user_exists");
    // Letters fold: the same name for a person is the same name for us.
    client.expect_error("create_user Ann password-2", "user_exists");
    client.expect_error("login ann password-2", "wrong_credentials");
    assert_eq!(client.expect_ok("login ANN password-1")["user"], "ann");
}

/// E4, E5: the replies as text.
#[test]
fn e4_e5_replies_as_text() {
    let deployment = Deployment::empty(programs!());
    let script = "create_user ann 'correct horse'\nlogin ann \"correct horse\"\nlogout\n";
    let finished = deployment.scene.run_client(&["127.0.0.1:0", deployment.tracker.info()], script);
    assert_eq!(finished.stdout, "user ann created\nlogged in as ann; sharing 0 files\nlogged out\n");
    assert_eq!(finished.code, Some(0));
}

/// No sign-in follows the creation of an account.
#[test]
fn create_user_does_not_sign_in() {
    let deployment = Deployment::empty(programs!());
    let mut client = Client::start(&deployment.scene, &deployment.tracker, "ann");
    client.expect_ok("create_user ann password-1");
    client.expect_error("list_groups", "not_logged_in");
}

/// E5: right: in. Wrong: refused, and nobody learns whether the user exists.
#[test]
fn e5_login_right_and_wrong() {
    let deployment = Deployment::empty(programs!());
    let mut client = Client::start(&deployment.scene, &deployment.tracker, "ann");
    client.expect_ok("create_user ann password-1");
    let wrong = client.expect_error("login ann password-2", "wrong_credentials");
    let unknown = client.expect_error("login nobody password-2", "wrong_credentials");
    assert_eq!(wrong, unknown);
    let login = client.expect_ok("login ann password-1");
    assert_eq!((login["user"].clone(), login["shares"].clone()), ("ann".into(), 0.into()));
}

/// E5: before login every other command is refused.
#[test]
fn e5_everything_else_needs_a_session() {
    let deployment = Deployment::empty(programs!());
    let file = deployment.scene.write("file", "x");
    let mut client = Client::start(&deployment.scene, &deployment.tracker, "ann");
    for command in [
        "logout",
        "create_group g",
        "join_group g",
        "leave_group g",
        "list_requests g",
        "requests list_requests g",
        "accept_request g bob",
        "reject_request g bob",
        "list_groups",
        "list_files g",
        &format!("upload_file {} g", file.display()),
        "download_file g f .",
        "show_downloads",
        "cancel_download g f",
        "stop_share g f",
        "verify g f",
    ] {
        client.expect_error(command, "not_logged_in");
    }
    client.expect_ok("help");
}

/// E5: the tracker itself enforces it, whatever a client says.
#[test]
fn e5_the_tracker_refuses_requests_without_a_session() {
    let deployment = Deployment::empty(programs!());
    let mut member = WireMember::connect(deployment.tracker.address(), 1).unwrap();
    let group = "g".parse().unwrap();
    for request in [
        Request::Logout,
        Request::CreateGroup { group },
        Request::ListGroups { after: None },
        Request::Announce { announcements: Vec::new() },
    ] {
        let refusal = member.request(request).unwrap().unwrap_err();
        assert_eq!(refusal.code, ErrorCode::NotLoggedIn);
    }
}

#[test]
fn weak_passwords_and_bad_names_are_refused() {
    let deployment = Deployment::empty(programs!());
    let mut client = Client::start(&deployment.scene, &deployment.tracker, "ann");
    client.expect_error("create_user ann seven77", "weak_password");
    for name in ["-ann", "a/b", "'a b'", "Zoë", "''"] {
        client.expect_error(&format!("create_user {name} password-1"), "invalid_name");
    }
    let long = "a".repeat(65);
    client.expect_error(&format!("create_user {long} password-1"), "invalid_name");
    // Eight letters that are no ASCII are eight characters.
    client.expect_ok("create_user ann äöüßäöüß");
}

#[test]
fn login_while_logged_in_is_refused() {
    let deployment = Deployment::empty(programs!());
    let mut client = Client::start(&deployment.scene, &deployment.tracker, "ann");
    client.sign_up("ann");
    client.expect_error(&format!("login ann {}", password_of("ann")), "already_logged_in");
    client.expect_error("create_user ann password-1", "user_exists");
    client.expect_ok("logout");
    client.expect_error("list_groups", "not_logged_in");
    client.sign_in();
}

/// The second place is told where the first one is.
#[test]
fn login_from_a_second_place_names_the_first() {
    let mut deployment = Deployment::empty(programs!());
    deployment.add_stranger();
    let mut second = Client::start(&deployment.scene, &deployment.tracker, "second");
    let text = second.expect_error(&format!("login ann {}", password_of("ann")), "already_logged_in");
    assert!(text.contains("127.0.0.1"), "the address: {text}");
    // A wrong password learns nothing of it.
    second.expect_error("login ann password-x", "wrong_credentials");
    // When the first one leaves, the second may come.
    deployment.clients[0].expect_ok("logout");
    second.sign_in_as("ann");
}

/// A killed client's session frees itself in 30 s for others, and at once for the same client.
#[test]
fn dead_sessions_free_themselves() {
    let mut deployment = Deployment::empty(programs!());
    deployment.add_stranger();
    deployment.add_stranger();
    let ann = &mut deployment.clients[0];
    ann.kill();
    ann.start_again();
    ann.sign_in();
    ann.kill();
    let mut elsewhere = Client::start(&deployment.scene, &deployment.tracker, "elsewhere");
    let login = format!("login ann {}", password_of("ann"));
    // 30 s, and the time that it takes to look.
    eventually_within(Duration::from_secs(32), "the dead session ends", || {
        (elsewhere.run(&login)["ok"] == true).then_some(())
    });
}

/// Many wrong tries are slowed down with the wait named; the owner gets in from another address.
#[test]
fn guessing_is_slowed_down_without_locking_the_owner_out() {
    let deployment = Deployment::empty(programs!());
    let mut owner = Client::start_with(
        &deployment.scene,
        deployment.tracker.info_file(),
        ClientSettings::new("owner").listen("127.0.0.2:0"),
    );
    owner.expect_ok(&format!("create_user ann {}", password_of("ann")));
    let mut guesser = Client::start(&deployment.scene, &deployment.tracker, "guesser");
    let limited = (0..100).find_map(|nth| {
        let answer = guesser.run(&format!("login ann guess-number-{nth}"));
        (answer["error"]["code"] == "rate_limited").then_some(answer)
    });
    let answer = limited.expect("a hundred guesses are slowed down");
    let text = answer["error"]["message"].as_str().unwrap();
    assert!(text.bytes().any(|byte| byte.is_ascii_digit()), "names the wait: {text}");
    owner.sign_in_as("ann");
}

/// 40 members sign in at the same moment; 200 are in the benchmark.
#[test]
fn many_logins_at_once_all_succeed() {
    let deployment = Deployment::empty(programs!());
    let address = deployment.tracker.address();
    let names: Vec<String> = (0..40).map(|nth| format!("user{nth}")).collect();
    let mut members: Vec<WireMember> = names.iter().map(|_| WireMember::connect(address, 1).unwrap()).collect();
    for (member, name) in members.iter_mut().zip(&names) {
        let (user, password) = (name.parse().unwrap(), Password::new(password_of(name)));
        member.ask(Request::CreateUser { user, password });
    }
    std::thread::scope(|scope| {
        for (member, name) in members.iter_mut().zip(&names) {
            scope.spawn(move || member.sign_in(name, &password_of(name)));
        }
    });
}

/// Sessions resume without the password, with the newest token, only by the key that signed in.
#[test]
fn sessions_resume_for_their_own_key_alone() {
    use mini_torrent_tests::wire_member::Seed;
    let deployment = Deployment::empty(programs!());
    let address = deployment.tracker.address();
    let seed = Seed::random();
    let mut member = WireMember::connect_as(address, seed, 1).unwrap();
    member.sign_up("ann", &password_of("ann"));
    let token = member.token();
    drop(member);
    let mut thief = WireMember::connect(address, 1).unwrap();
    let refusal = thief.request(Request::Resume { token: token.clone() }).unwrap().unwrap_err();
    assert!(matches!(refusal.code, ErrorCode::SessionEnded | ErrorCode::NotLoggedIn), "{refusal:?}");
    let mut member = WireMember::connect_as(address, seed, 1).unwrap();
    member.resume(token);
    member.create_group("g");
}

/// `--registration closed`: strangers get no account.
#[test]
fn closed_registration_refuses_strangers() {
    let scene = mini_torrent_tests::Scene::new(programs!());
    let tracker = mini_torrent_tests::Tracker::start_with(&scene, "tracker", &["--registration", "closed"]);
    let mut client = Client::start(&scene, &tracker, "ann");
    client.expect_error("create_user ann password-1", "registration_closed");
}

/// E22: shares and downloads of a data directory persist when its client comes from another address.
#[test]
fn e22_shares_persist_from_another_address() {
    use mini_torrent_tests::GROUP;
    let mut deployment = Deployment::of(programs!(), 2);
    let (seeder, leecher) = deployment.pair();
    let file = mini_torrent_tests::files::random_file(seeder.path("file"), 100_000, 22);
    seeder.upload(&file, GROUP);
    leecher.download(GROUP, "file");
    leecher.quit();
    leecher.start_again_at("127.0.0.3:0");
    assert_eq!(leecher.sign_in()["shares"], 1);
    assert_eq!(leecher.shown(GROUP, "file")["state"], "C");
    seeder.wait_seeders(GROUP, "file", 2);
}

/// The password stands in no log and no state of either side.
#[test]
fn passwords_are_written_nowhere() {
    let mut deployment = Deployment::empty(programs!());
    deployment.add_stranger();
    let client = &mut deployment.clients[0];
    client.expect_error("login bob not-the-password-9", "already_logged_in");
    client.quit();
    deployment.tracker.terminate();
    for secret in [password_of("ann").as_str(), "not-the-password-9"] {
        let files = files_with(deployment.scene.dir(), secret.as_bytes());
        assert!(files.is_empty(), "{secret} is in {files:?}");
    }
}

/// What a login takes is given back: 19 MiB for a moment, and nothing that stays but the session.
#[test]
fn logins_leave_the_tracker_as_small_as_it_was() {
    const N_BEFORE: usize = 5;
    const N: usize = 45;
    let deployment = Deployment::empty(programs!());
    let mut online = Vec::new();
    let mut sign_up = |n: usize| {
        for _ in 0..n {
            let mut member = WireMember::connect(deployment.tracker.address(), 1).unwrap();
            member.sign_up(&format!("user{}", online.len()), "password-1");
            online.push(member);
        }
        deployment.tracker.running().memory()
    };
    let before = sign_up(N_BEFORE);
    let growth = sign_up(N).saturating_sub(before);
    assert!(growth < N as u64 * (512 << 10), "{} MiB more", growth >> 20);
}
