//! Who may do what in a group (behaviour §2 to §5): remove_member, set_role, transfer_owner, remove_file as commands,
//! and members who ask the tracker for what their client would not.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_common::control::{Announcement, Presence, Refusal, Request, Response, Role};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::secret::Password;
use mini_torrent_tests::client::password_of;
use mini_torrent_tests::files::{random_bytes, random_file};
use mini_torrent_tests::{Client, Conduct, Content, Deployment, GROUP, WireMember, eventually, programs};
use serde_json::{Value, json};

/// What a user is to [`GROUP`], as it sees it itself.
fn role(client: &mut Client) -> Value {
    let answer = client.expect_ok("list_groups");
    let rows = answer["groups"].as_array().unwrap().clone();
    rows.into_iter().find(|row| row["name"] == GROUP).map_or(Value::Null, |row| row["role"].clone())
}

/// An answer without the fields that every answer has.
fn fields(mut answer: Value) -> Value {
    let object = answer.as_object_mut().unwrap();
    object.retain(|key, _| key != "command" && key != "ok");
    answer
}

/// Roles are given, taken and used: each answer, and what it changes.
#[test]
fn roles_are_given_and_taken_by_the_owner() {
    let mut deployment = Deployment::of(programs!(), 4);
    let [ann, bob, cid, dee] = deployment.some();
    bob.expect_error("remove_member lab cid", "not_the_owner");

    let answer = ann.expect_ok("set_role lab bob admin");
    assert_eq!(fields(answer), json!({"group": "lab", "user": "bob", "role": "admin"}));
    assert_eq!(role(bob), "admin");
    // Admins decide on requests and remove members; the rest is the owner's.
    let answer = bob.expect_ok("remove_member lab dee");
    assert_eq!(fields(answer), json!({"group": "lab", "user": "dee", "role": null}));
    assert_eq!(dee.wait_event_kind("removed_from_group")["group"], GROUP);
    assert_eq!(role(dee), Value::Null);
    dee.expect_ok("join_group lab");
    bob.expect_ok("accept_request lab dee");
    for command in ["set_role lab cid admin", "transfer_owner lab cid", "remove_member lab ann"] {
        bob.expect_error(command, "not_the_owner");
    }
    // No admin removes another.
    ann.expect_ok("set_role lab cid admin");
    bob.expect_error("remove_member lab cid", "not_the_owner");
    ann.expect_ok("remove_member lab cid");
    assert_eq!(role(cid), Value::Null);

    assert_eq!(ann.expect_ok("set_role lab bob member")["role"], "member");
    assert_eq!(role(bob), "member");
    bob.expect_error("list_requests lab", "not_the_owner");
    bob.expect_error("remove_member lab dee", "not_the_owner");

    let answer = ann.expect_ok("transfer_owner lab bob");
    assert_eq!(fields(answer), json!({"group": "lab", "user": "bob", "role": "owner"}));
    assert_eq!((role(ann), role(bob)), ("admin".into(), "owner".into()));
    ann.expect_error("transfer_owner lab ann", "not_the_owner");
    bob.expect_ok("remove_member lab ann");
    assert_eq!(role(ann), Value::Null);
}

/// The replies: one line each.
#[test]
fn replies_are_one_line_each() {
    let mut deployment = Deployment::of(programs!(), 2);
    let (info, scene) = (deployment.tracker.info().to_owned(), deployment.scene.clone());
    let file = random_file(scene.path("file"), 1000, 1);
    let ann = &mut deployment.clients[0];
    ann.expect_ok("logout");
    ann.quit();
    let commands =
        ["set_role lab bob admin", "set_role lab bob member", "remove_member lab bob", "remove_file lab file"];
    let upload = format!("upload_file '{}' lab", file.display());
    let script = ["login ann password-of-ann", &upload, &commands.join("\n")].join("\n");
    let finished = scene.run_client(&["127.0.0.1:0", &info, "--data-dir", "ann/data"], &script);
    let replies: Vec<&str> = finished.stdout.lines().skip(2).collect();
    assert_eq!((replies.len(), finished.code), (commands.len(), Some(0)), "{}{}", finished.stdout, finished.stderr);
    for (command, reply) in commands.iter().zip(&replies) {
        let subject = command.split(' ').nth(2).unwrap();
        assert!(reply.contains("lab") && reply.contains(subject), "{command}: {reply}");
    }
}

#[test]
fn wrong_names_have_their_codes() {
    let mut deployment = Deployment::of(programs!(), 2);
    deployment.add_stranger();
    let [ann, bob, cid] = deployment.some();
    for (command, code) in [
        ("remove_member no bob", "no_such_group"),
        ("remove_member lab nobody", "no_such_user"),
        ("remove_member lab 'no name'", "no_such_user"),
        ("remove_member lab cid", "not_a_member"),
        ("remove_member lab ann", "usage"),
        ("set_role no bob admin", "no_such_group"),
        ("set_role lab nobody admin", "no_such_user"),
        ("set_role lab cid admin", "not_a_member"),
        ("set_role lab bob owner", "usage"),
        ("set_role lab bob", "usage"),
        ("set_role lab ann member", "usage"),
        ("transfer_owner no bob", "no_such_group"),
        ("transfer_owner lab nobody", "no_such_user"),
        ("transfer_owner lab cid", "not_a_member"),
        ("transfer_owner lab ann", "usage"),
        ("remove_file no file", "no_such_group"),
        ("remove_file lab file", "no_such_file"),
    ] {
        ann.expect_error(command, code);
    }
    // Who may not do it learns nothing of who is a member.
    for user in ["bob", "cid", "nobody"] {
        cid.expect_error(&format!("remove_member lab {user}"), "not_a_member");
        bob.expect_error(&format!("set_role lab {user} admin"), "not_the_owner");
    }
    // Nobody governs the built-in group.
    for command in ["remove_member public bob", "set_role public bob admin", "transfer_owner public bob"] {
        ann.expect_error(command, "not_the_owner");
    }
}

/// Owners and admins remove any file, an uploader its own while nobody else shares it; data stays on disks.
#[test]
fn files_are_removed_by_those_who_may() {
    let mut deployment = Deployment::of(programs!(), 4);
    deployment.add_stranger();
    let [ann, bob, cid, dee, eli] = deployment.some();
    ann.expect_ok("set_role lab bob admin");
    for name in ["alone", "shared", "third"] {
        let file = random_file(cid.path(name), 100_000, 1);
        cid.upload(&file, GROUP);
    }
    dee.download(GROUP, "shared");
    cid.wait_seeders(GROUP, "shared", 2);
    eli.expect_error("remove_file lab alone", "not_a_member");
    dee.expect_error("remove_file lab alone", "not_the_owner");
    cid.expect_error("remove_file lab shared", "not_the_owner");
    assert_eq!(fields(cid.expect_ok("remove_file lab alone")), json!({"group": "lab", "file": "alone"}));
    bob.expect_ok("remove_file lab shared");
    ann.expect_ok("remove_file lab third");
    for name in ["alone", "shared", "third"] {
        assert_eq!(ann.listed(GROUP, name), Value::Null);
        dee.expect_error(&format!("download_file lab {name} again"), "no_such_file");
        assert!(cid.path(name).exists(), "{name} stays on the disk");
    }
    assert!(dee.path("shared").exists());
    // Removed is removed: the next login revives nothing of it.
    cid.expect_ok("logout");
    assert_eq!(cid.sign_in()["shares"], 0);
    assert_eq!(ann.expect_ok("list_files lab")["files"], json!([]));
}

/// A download of a file that is removed ends, and nothing of it is served any more.
#[test]
fn downloads_of_a_removed_file_end() {
    let mut deployment = Deployment::of(programs!(), 2);
    let content = Content::new("held", random_bytes(4_000_000, 2));
    let seeder = deployment.add_wire_seeder("zed", &content, Conduct::HELD);
    let (ann, bob) = deployment.pair();
    bob.begin_download(GROUP, "held");
    seeder.wait_requested();
    ann.expect_ok("remove_file lab held");
    bob.wait_event_kind("download_failed");
    assert_eq!(bob.shown(GROUP, "held")["state"], "F");
    seeder.wait_seen("the connection ends", |seen| (seen.n_open == 0).then_some(()));
}

fn refused(member: &mut WireMember, request: Request) -> ErrorCode {
    let shown = format!("{request:?}");
    match member.request(request).unwrap() {
        Err(Refusal { code, .. }) => code,
        Ok(answer) => panic!("{shown}: {answer:?}"),
    }
}

/// Every request that only owners and admins may make.
fn governing(group: &str) -> Vec<Request> {
    let group = || group.parse().unwrap();
    let user = || "bob".parse().unwrap();
    vec![
        Request::ListRequests { group: group(), after: None },
        Request::AcceptRequest { group: group(), user: user() },
        Request::RejectRequest { group: group(), user: user() },
        Request::RemoveMember { group: group(), user: user() },
        Request::SetRole { group: group(), user: user(), role: Role::Admin },
        Request::TransferOwner { group: group(), user: user() },
        Request::RemoveFile { group: group(), file: "file".parse().unwrap() },
    ]
}

/// The tracker itself refuses owners' requests to members and strangers, and everything to who is not signed in.
#[test]
fn the_tracker_refuses_owners_requests_to_others() {
    let mut deployment = Deployment::of(programs!(), 2);
    let ann = &mut deployment.clients[0];
    let file = random_file(ann.path("file"), 1000, 1);
    ann.upload(&file, GROUP);
    let mut member = deployment.add_wire_member("zed", 1);
    let mut stranger = WireMember::connect(deployment.tracker.address(), 1).unwrap();
    for request in governing(GROUP) {
        assert_eq!(refused(&mut stranger, request), ErrorCode::NotLoggedIn);
    }
    stranger.sign_up("eve", &password_of("eve"));
    for request in governing(GROUP) {
        assert_eq!(refused(&mut member, request.clone()), ErrorCode::NotTheOwner, "{request:?}");
        assert_eq!(refused(&mut stranger, request.clone()), ErrorCode::NotAMember, "{request:?}");
    }
    let ann = &mut deployment.clients[0];
    assert_eq!((role(ann), ann.listed(GROUP, "file")["seeders"].clone()), ("owner".into(), 1.into()));
}

/// No request makes anybody act as another: a name in a message is whom it is about, never who speaks.
#[test]
fn nobody_acts_as_another() {
    let mut deployment = Deployment::of(programs!(), 2);
    let ann = &mut deployment.clients[0];
    let file = random_file(ann.path("file"), 100_000, 1);
    ann.upload(&file, GROUP);
    let mut zed = deployment.add_wire_member("zed", 1);
    let listing = zed.list_files(GROUP)[0].id;
    let mut eve = WireMember::connect(deployment.tracker.address(), 1).unwrap();
    eve.sign_up("eve", &password_of("eve"));

    // An account that exists is not created again, nor its password changed.
    let create = Request::CreateUser { user: "ann".parse().unwrap(), password: Password::new("mine-now-1".into()) };
    assert_eq!(refused(&mut eve, create), ErrorCode::UserExists);
    let login =
        Request::Login { user: "ann".parse().unwrap(), password: Password::new("mine-now-1".into()), takeover: true };
    assert_eq!(refused(&mut eve, login.clone()), ErrorCode::AlreadyLoggedIn);
    eve.ask(Request::Logout);
    assert_eq!(refused(&mut eve, login), ErrorCode::WrongCredentials);
    deployment.clients[0].expect_ok("list_groups");
    eve.sign_in("eve", &password_of("eve"));

    // A stranger reaches nothing of a group by its numbers.
    let (group, announcements) = (zed.group_id(GROUP), vec![Announcement { listing, presence: Presence::Leeching }]);
    for request in [
        Request::EnterGroup { group, after: 0 },
        Request::ReadInfo { listing, offset: 0 },
        Request::Watch { listing },
        Request::Leech { listing },
        Request::Share { listing },
        Request::Seed { listing },
        Request::StopShare { listing },
    ] {
        let shown = format!("{request:?}");
        let code = refused(&mut eve, request);
        assert!(
            matches!(code, ErrorCode::NotAMember | ErrorCode::NoSuchFile | ErrorCode::NotSharing),
            "{shown}: {code}"
        );
    }
    match eve.ask(Request::Announce { announcements }) {
        Response::Announced(refused) => assert_eq!(refused.len(), 1),
        other => panic!("{other:?}"),
    }
    // A member ends and claims no share but its own.
    assert_eq!(refused(&mut zed, Request::StopShare { listing }), ErrorCode::NotSharing);
    let claim = vec![Announcement { listing, presence: Presence::Seeding }];
    match zed.ask(Request::Announce { announcements: claim }) {
        Response::Announced(refused) => assert_eq!(refused[0].code, ErrorCode::NotSharing),
        other => panic!("{other:?}"),
    }
    // Whoever asks to join, asks for itself.
    eve.join_group(GROUP);
    let ann = &mut deployment.clients[0];
    let asked = ann.expect_ok("list_requests lab")["requests"].clone();
    assert_eq!((asked.as_array().unwrap().len(), asked[0]["user"].clone()), (1, "eve".into()));
    eventually("the share is untouched", || (ann.listed(GROUP, "file")["seeders"] == 1).then_some(()));
}

/// The operator's account: with registration closed only the console makes one.
#[test]
fn with_registration_closed_the_console_creates_accounts() {
    let scene = mini_torrent_tests::Scene::new(programs!());
    let mut tracker = mini_torrent_tests::Tracker::start_with(&scene, "tracker", &["--registration", "closed"]);
    let mut client = Client::start(&scene, &tracker, "ann");
    client.expect_error("create_user ann password-1", "registration_closed");
    assert_eq!(tracker.console("create_user ann password-of-ann"), ["user ann created"]);
    client.sign_in_as("ann");
}

/// Groups are counted: the hundred-and-first of one owner is too many, also as a gift.
#[test]
fn groups_of_one_owner_are_counted() {
    let deployment = Deployment::empty(programs!());
    let mut ann = WireMember::connect(deployment.tracker.address(), 1).unwrap();
    ann.sign_up("ann", &password_of("ann"));
    (0..100).for_each(|nth| ann.create_group(&format!("group{nth}")));
    let more = |name: &str| Request::CreateGroup { group: name.parse().unwrap() };
    assert_eq!(refused(&mut ann, more("more")), ErrorCode::QuotaExceeded);
    let mut bob = WireMember::connect(deployment.tracker.address(), 1).unwrap();
    bob.sign_up("bob", &password_of("bob"));
    bob.create_group("gift");
    ann.join_group("gift");
    let (group, user) = (|| "gift".parse().unwrap(), || "ann".parse().unwrap());
    bob.ask(Request::AcceptRequest { group: group(), user: user() });
    let gift = Request::TransferOwner { group: group(), user: user() };
    assert_eq!(refused(&mut bob, gift.clone()), ErrorCode::QuotaExceeded);
    ann.ask(Request::LeaveGroup { group: "group0".parse().unwrap() });
    bob.ask(gift);
}
