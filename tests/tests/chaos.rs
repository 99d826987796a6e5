//! Trackers that die, hang and come back under users who notice nothing (issue 5; A7, C1, E24).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_tests::client::ClientSettings;
use mini_torrent_tests::files::{assert_same, random_bytes, random_file};
use mini_torrent_tests::tracker::info_file;
use mini_torrent_tests::{
    Client, Conduct, Content, Deployment, GROUP, P, Tracker, UNREACHABLE, WireSeeder, eventually, eventually_within,
    holds_for, in_time, programs,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How many commands each client has given when a tracker dies.
const N_COMMANDS: usize = 6;

/// Two trackers of one deployment, whose clients know both; the first client owns [`GROUP`].
struct Pair {
    deployment: Deployment,
    second: Tracker,
}

impl Pair {
    fn with_members(n: usize) -> Self {
        let mut deployment = Deployment::empty(programs!());
        let second = deployment.tracker.start_beside(2);
        let both = info_file(&deployment.scene, "both", &[deployment.tracker.address(), second.address()]);
        for user in &["ann", "bob", "cid"][..n] {
            let mut client = Client::start_with(&deployment.scene, &both, ClientSettings::new(user));
            client.sign_up(user);
            match deployment.clients.first_mut() {
                None => {
                    client.expect_ok(&format!("create_group {GROUP}"));
                }
                Some(owner) => {
                    client.expect_ok(&format!("join_group {GROUP}"));
                    owner.expect_ok(&format!("accept_request {GROUP} {user}"));
                }
            }
            deployment.clients.push(client);
        }
        Self { deployment, second }
    }

    fn tracker(&mut self, nth: usize) -> &mut Tracker {
        if nth == 0 { &mut self.deployment.tracker } else { &mut self.second }
    }

    /// A member that holds back what bob fetches of it.
    fn held_seeder(&mut self, user: &str, file: &str, seed: u64) -> (WireSeeder, Content) {
        let content = Content::new(file, random_bytes(12 * usize::try_from(P).unwrap(), seed));
        (self.deployment.add_wire_seeder(user, &content, Conduct::HELD), content)
    }
}

/// The commands of one client in one round; each must come about once.
fn commands(client: &Client, round: usize) -> Vec<String> {
    let user = client.user();
    let command = |nth: usize| match nth % 3 {
        0 => format!("create_group {user}-{round}-{nth}"),
        1 => {
            let file =
                random_file(client.path(&format!("f{round}-{nth}-{user}")), 1 + nth as u64 * 100_000, nth as u64);
            format!("upload_file {} {GROUP}", file.display())
        }
        _ => "list_groups".to_owned(),
    };
    (0..N_COMMANDS).map(command).collect()
}

/// Kills each of two trackers, one after the other, in the middle of uploads, new groups, joins and a download. Every
/// command is answered as if nothing had been, what they did is there once, and the download completes.
#[test]
fn nobody_notices_that_a_tracker_was_killed() {
    let mut pair = Pair::with_members(3);
    let mut random = StdRng::seed_from_u64(5);
    for victim in [0, 1] {
        let (seeder, content) = pair.held_seeder(&format!("zed{victim}"), &format!("held{victim}"), victim as u64);
        let bob = &mut pair.deployment.clients[1];
        let copy = bob.begin_download(GROUP, &content.name);
        seeder.wait_requested();
        let all: Vec<Vec<String>> = pair.deployment.clients.iter().map(|client| commands(client, victim)).collect();
        for (client, commands) in pair.deployment.clients.iter_mut().zip(&all) {
            commands.iter().for_each(|command| client.send(command));
        }
        let moment = Instant::now() + Duration::from_millis(random.random_range(0..60));
        holds_for(moment.saturating_duration_since(Instant::now()), "the moment is drawn", || true);
        pair.tracker(victim).kill();
        for (client, commands) in pair.deployment.clients.iter_mut().zip(&all) {
            for command in commands {
                let answer = client.answer();
                assert_eq!(answer["ok"], true, "{}: {command}: {answer}", client.user());
            }
        }
        seeder.allow(None);
        let [ann, bob, cid] = pair.deployment.some();
        bob.wait_completed(GROUP, &content.name);
        assert!(std::fs::read(copy).unwrap() == *content.bytes);
        // A request to join and its acceptance, at what is left.
        cid.expect_ok(&format!("join_group ann-{victim}-0"));
        eventually("ann accepts", || {
            (ann.run(&format!("accept_request ann-{victim}-0 cid"))["ok"] == true).then_some(())
        });
        check(&mut pair.deployment.clients, victim);
        pair.tracker(victim).start_again();
    }
    for client in &mut pair.deployment.clients {
        check(std::slice::from_mut(client), 0);
        check(std::slice::from_mut(client), 1);
    }
}

/// What the commands of a round did is there, once.
fn check(clients: &mut [Client], round: usize) {
    for client in clients {
        let groups = client.expect_ok("list_groups");
        for user in ["ann", "bob", "cid"] {
            for nth in [0, 3] {
                let name = format!("{user}-{round}-{nth}");
                let rows: Vec<&Value> =
                    groups["groups"].as_array().unwrap().iter().filter(|row| row["name"] == name).collect();
                assert_eq!(rows.len(), 1, "{name}: {groups}");
                assert_eq!(rows[0]["owner"], user);
            }
            for nth in [1, 4] {
                let name = format!("f{round}-{nth}-{user}");
                eventually(&format!("{name} has its seeder"), || {
                    (client.listed(GROUP, &name)["seeders"] == 1).then_some(())
                });
            }
        }
    }
}

/// A7: with both trackers dead a running download completes; commands say so within five seconds; when either is back,
/// everything goes on.
#[test]
fn a7_a_download_completes_without_any_tracker() {
    let mut pair = Pair::with_members(2);
    let (seeder, content) = pair.held_seeder("zed", "held", 3);
    let bob = &mut pair.deployment.clients[1];
    let copy = bob.begin_download(GROUP, "held");
    seeder.wait_requested();
    pair.tracker(0).kill();
    pair.tracker(1).kill();
    let bob = &mut pair.deployment.clients[1];
    in_time(UNREACHABLE, "unreachable", || bob.expect_error("list_groups", "tracker_unreachable"));
    seeder.allow(None);
    bob.wait_completed(GROUP, "held");
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
    pair.tracker(1).start_again();
    let [ann, bob] = pair.deployment.some();
    eventually_within(Duration::from_secs(15), "both are back", || {
        let seeders = ann.run(&format!("list_files {GROUP}"))["files"][0]["seeders"].as_u64();
        (seeders.is_some_and(|n| n >= 1)).then_some(())
    });
    let file = random_file(ann.path("after"), P, 4);
    ann.upload(&file, GROUP);
    assert_same(&file, bob.download(GROUP, "after"));
}

/// E24: a tracker that hangs for 40 s loses its clients to the other one, and when it wakes it tells nobody of what was.
#[test]
fn e24_a_tracker_that_hung_tells_nothing_stale() {
    let mut pair = Pair::with_members(2);
    let [ann, bob] = pair.deployment.some();
    let (here, gone) = (random_file(ann.path("here"), P, 5), random_file(bob.path("gone"), P, 6));
    ann.upload(&here, GROUP);
    bob.upload(&gone, GROUP);
    ann.wait_seeders(GROUP, "gone", 1);
    pair.tracker(0).running().signal(Signal::STOP);
    let stopped = Instant::now();
    let [ann, bob] = pair.deployment.some();
    eventually_within(Duration::from_secs(20), "the clients have moved", || {
        (ann.run(&format!("list_files {GROUP}"))["ok"] == true).then_some(())
    });
    ann.wait_seeders(GROUP, "here", 1);
    bob.expect_ok(&format!("stop_share {GROUP} gone"));
    bob.quit();
    eventually_within(Duration::from_secs(45), "40 s have passed", || {
        (stopped.elapsed() > Duration::from_secs(40)).then_some(())
    });
    pair.tracker(0).running().signal(Signal::CONT);
    let first = info_file(&pair.deployment.scene, "first", &[pair.deployment.tracker.address()]);
    let mut cid = Client::start_with(&pair.deployment.scene, &first, ClientSettings::new("cid"));
    cid.sign_up("cid");
    cid.expect_ok(&format!("join_group {GROUP}"));
    let ann = &mut pair.deployment.clients[0];
    ann.expect_ok(&format!("accept_request {GROUP} cid"));
    eventually_within(Duration::from_secs(2), "the owner's acceptance is known there", || {
        (cid.run(&format!("list_files {GROUP}"))["ok"] == true).then_some(())
    });
    assert_eq!(cid.listed(GROUP, "gone"), json!(null));
    eventually_within(Duration::from_secs(3), "it has seen the other tracker alive", || {
        (cid.listed(GROUP, "here")["seeders"] == 1).then_some(())
    });
    assert_same(&here, cid.download(GROUP, "here"));
}
