//! What users notice when a tracker dies: how soon the next one answers, one client and a thousand at once.

use crate::Bench;
use crate::figures::{Figures, Goal};
use mini_torrent_tests::client::ClientSettings;
use mini_torrent_tests::crowd::raise_file_limit;
use mini_torrent_tests::tracker::info_file;
use mini_torrent_tests::{Client, Deployment, Tracker, holds_for};
use std::thread;
use std::time::{Duration, Instant};

/// How often a tracker is killed under one client.
const N_KILLS: usize = 10;
/// A connection that is older is a good one to the client: when it is lost, the next one waits for a random moment.
const SETTLED: Duration = Duration::from_millis(2500);
/// Threads that start and question clients side by side.
const N_THREADS: usize = 16;

/// A deployment whose clients know two trackers, the one that dies first.
fn two_trackers(bench: &Bench) -> (Deployment, Tracker) {
    let deployment = Deployment::on(bench.scene());
    let second = deployment.tracker.start_beside(2);
    info_file(&deployment.scene, "tracker", &[deployment.tracker.address(), second.address()]);
    (deployment, second)
}

/// One client whose tracker is killed, and its first command afterwards.
pub(crate) fn failover(bench: &Bench, figures: &mut Figures) {
    for _ in 0..N_KILLS {
        let (mut deployment, _second) = two_trackers(bench);
        let client = deployment.add_stranger();
        holds_for(SETTLED, "it is connected", || client.run("list_groups")["ok"] == true);
        deployment.tracker.kill();
        let start = Instant::now();
        deployment.clients[0].expect_ok("list_groups");
        let elapsed = start.elapsed().as_secs_f64();
        figures.add("kill -9 of tracker 1 until tracker 2 has answered", "s", Goal::AtMost(3.0), elapsed);
    }
}

/// As many clients as the options say, each a process of its own, whose tracker is killed: until the last of them has
/// an answer from the other one.
pub(crate) fn herd(bench: &Bench, figures: &mut Figures) {
    raise_file_limit();
    let (mut deployment, second) = two_trackers(bench);
    let names: Vec<String> = (0..bench.options.clients).map(|nth| format!("client{nth}")).collect();
    let mut clients = start_all(&deployment, &names);
    let second = second.address().to_string();
    if let Some(last) = clients.last_mut() {
        holds_for(SETTLED, "it is connected", || last.run("list_groups")["ok"] == true);
    }
    deployment.tracker.kill();
    let start = Instant::now();
    thread::scope(|scope| {
        for clients in clients.chunks_mut(names.len().div_ceil(N_THREADS)) {
            scope.spawn(|| {
                clients.iter_mut().for_each(|client| client.send("list_groups"));
                clients.iter_mut().for_each(|client| {
                    let answer = client.answer();
                    assert_eq!(answer["ok"], true, "{answer}");
                    client.wait_event("it is at the other tracker", |event| event["tracker"] == second.as_str());
                });
            });
        }
    });
    let elapsed = start.elapsed().as_secs_f64();
    figures.add("all clients (--clients) back after kill -9 of tracker 1", "s", Goal::AtMost(15.0), elapsed);
}

/// Clients that are signed in, each with an account of its own.
fn start_all(deployment: &Deployment, names: &[String]) -> Vec<Client> {
    let start = |name: &String| {
        let mut client =
            Client::start_with(&deployment.scene, deployment.tracker.info_file(), ClientSettings::new(name));
        client.sign_up(name);
        client
    };
    thread::scope(|scope| {
        let chunks = names.chunks(names.len().div_ceil(N_THREADS));
        let threads: Vec<_> = chunks.map(|names| scope.spawn(|| names.iter().map(start).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("all start")).collect()
    })
}
