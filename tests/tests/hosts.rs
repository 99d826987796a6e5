//! Between two hosts of a network: files (acceptance B13), and a tracker on each of them (design §8). On one machine all
//! addresses are the same, which hides mistakes.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_tests::client::ClientSettings;
use mini_torrent_tests::files::{assert_same, random_file};
use mini_torrent_tests::hosts::Hosts;
use mini_torrent_tests::postgres::RemoteServer;
use mini_torrent_tests::tracker::info_file;
use mini_torrent_tests::waiting::skipped;
use mini_torrent_tests::{Client, GROUP, P, Scene, Tracker, UNREACHABLE, eventually, in_time, programs};
use std::net::SocketAddr;

/// B13: files of a group and of everybody, in both directions, byte-exact.
#[test]
fn b13_files_cross_between_two_hosts() {
    let Some(hosts) = two_hosts() else { return };
    let scenes = [0, 1].map(|nth| Scene::new(hosts.programs_on(nth, &programs!())));
    let any_port = |nth| SocketAddr::new(hosts.address(nth), 0);
    let tracker = Tracker::start_at(&scenes[0], "tracker", any_port(0), &[]).unwrap();
    let client = |nth: usize, name: &str| {
        let settings = ClientSettings::new(name).listen(&any_port(nth).to_string());
        let mut client = Client::start_with(&scenes[nth], tracker.info_file(), settings);
        client.sign_up(name);
        client
    };
    let (mut ann, mut bob) = (client(0, "ann"), client(1, "bob"));
    assert_ne!(ann.address().ip(), bob.address().ip());
    ann.expect_ok(&format!("create_group {GROUP}"));
    bob.expect_ok(&format!("join_group {GROUP}"));
    ann.expect_ok(&format!("accept_request {GROUP} bob"));
    exchange(&mut ann, &mut bob);
    exchange(&mut bob, &mut ann);
}

/// The hosts, unless this machine gives none; then it says so.
fn two_hosts() -> Option<Hosts> {
    let made = Hosts::two();
    made.map_err(|why| skipped(&format!("this machine gives no network namespaces: {why}"))).ok()
}

/// A tracker on each host, both on the PostgreSQL server of the first one. The second host's tracker dies, then the
/// cable between them is cut.
#[test]
fn two_hosts_with_a_tracker_each_lose_one_tracker_and_then_each_other() {
    let Some(hosts) = two_hosts() else { return };
    let scenes = [0, 1].map(|nth| Scene::new(hosts.programs_on(nth, &programs!())));
    let any_port = |nth| SocketAddr::new(hosts.address(nth), 0);
    let authority = scenes[0].path("authority.pem");
    let Some(server) = RemoteServer::start(&hosts.enter(0), hosts.address(0), &authority) else { return };
    let first = Tracker::start_at(&scenes[0], "tracker", any_port(0), &["--database", &server.url]).unwrap();
    let mut second = first.start_elsewhere(&scenes[1], 2, any_port(1));
    // Each client prefers the tracker of its own host.
    let client = |nth: usize, name: &str, trackers: [&Tracker; 2]| {
        let info = info_file(&scenes[nth], "both", &trackers.map(Tracker::address));
        let settings = ClientSettings::new(name).listen(&any_port(nth).to_string()).option("--return-interval-ms=100");
        let mut client = Client::start_with(&scenes[nth], &info, settings);
        client.sign_up(name);
        assert_eq!(connected(&mut client), trackers[0].address().to_string());
        client
    };
    let (mut ann, mut bob) = (client(0, "ann", [&first, &second]), client(1, "bob", [&second, &first]));
    ann.expect_ok(&format!("create_group {GROUP}"));
    bob.expect_ok(&format!("join_group {GROUP}"));
    ann.expect_ok(&format!("accept_request {GROUP} bob"));
    send(&mut ann, &mut bob, "before");

    second.kill();
    in_time(UNREACHABLE, "the other host's tracker answers", || bob.expect_ok("list_groups"));
    assert_eq!(connected(&mut bob), first.address().to_string());
    send(&mut bob, &mut ann, "with-one-tracker");

    hosts.connect(false);
    in_time(UNREACHABLE, "unreachable", || bob.expect_error("list_groups", "tracker_unreachable"));
    ann.expect_ok("list_groups");

    hosts.connect(true);
    eventually("the first tracker answers again", || (bob.run("list_groups")["ok"] == true).then_some(()));
    send(&mut ann, &mut bob, "with-the-cable");
    second.start_again();
    let own = second.address().to_string();
    bob.wait_event("it is back at its own host's tracker", |event| event["tracker"] == own.as_str());
    send(&mut bob, &mut ann, "with-both");
}

/// The next event of a client that tells of a tracker's connection: which tracker it is.
fn connected(client: &mut Client) -> String {
    let event = client.wait_event_kind("tracker_connected");
    event["tracker"].as_str().unwrap_or_else(|| panic!("{event}")).to_owned()
}

fn send(seeder: &mut Client, leecher: &mut Client, name: &str) {
    let file = random_file(seeder.path(name), 3 * P + 5, 1);
    seeder.upload(&file, GROUP);
    leecher.wait_seeders(GROUP, name, 1);
    assert_same(&file, leecher.download(GROUP, name));
}

fn exchange(seeder: &mut Client, leecher: &mut Client) {
    for group in [GROUP, "public"] {
        for length in [0, 1, P - 1, P, P + 1, 5 * P + 12_345] {
            let name = format!("{}-{group}-{length}", seeder.user());
            let file = random_file(seeder.path(&name), length, length);
            seeder.upload(&file, group);
            assert_same(&file, leecher.download(group, &name));
        }
    }
}
