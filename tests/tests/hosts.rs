//! Between two hosts of a network (acceptance B13). On one machine all addresses are the same, which hides mistakes.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_tests::client::ClientSettings;
use mini_torrent_tests::files::{assert_same, random_file};
use mini_torrent_tests::hosts::Hosts;
use mini_torrent_tests::waiting::skipped;
use mini_torrent_tests::{Client, GROUP, P, Scene, Tracker, programs};
use std::net::SocketAddr;

/// B13: files of a group and of everybody, in both directions, byte-exact.
#[test]
fn b13_files_cross_between_two_hosts() {
    let hosts = match Hosts::two() {
        Ok(hosts) => hosts,
        Err(why) => return skipped(&format!("this machine gives no network namespaces: {why}")),
    };
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
