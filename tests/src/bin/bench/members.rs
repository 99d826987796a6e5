//! What it costs that only members are served: encryption, handshakes with tickets, revocations, floods of logins.

use crate::Bench;
use crate::figures::{Figures, Goal};
use crate::transfers::{Swarm, goodput};
use mini_torrent_common::control::{Event, Request, Response, TrackerMessage};
use mini_torrent_common::hash::InfoHash;
use mini_torrent_common::peer_wire::Handshake;
use mini_torrent_common::secret::Password;
use mini_torrent_tests::client::password_of;
use mini_torrent_tests::files::random_file;
use mini_torrent_tests::{Deployment, GROUP, Running, WireMember};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

/// Connections that are opened to measure one.
const N_HANDSHAKES: u32 = 500;
/// Members that sign in side by side while a case is made ready; the tracker turns away a longer queue.
const SIGN_IN_THREADS: usize = 32;
/// Members that join before the others are heard again.
const JOIN_AT_ONCE: usize = 200;
/// Logins of each kind whose times are compared; more failures from one address would have to wait.
const N_FAILURES: usize = 20;
/// Logins at once that make a flood.
const FLOOD: usize = 32;
/// Round trips that are measured with and without a flood.
const N_PINGS: usize = 300;

/// One seeder, one leecher, once encrypted and once not.
pub(crate) fn encryption(bench: &Bench, figures: &mut Figures) {
    let length = bench.length();
    let transfer = |options: &[&str]| {
        let mut swarm = Swarm::with_options(bench, (1, 1), options, |path| drop(random_file(path, length, 1)));
        let elapsed = swarm.fetch();
        swarm.compare();
        (goodput(length, 1, elapsed), swarm.cpu_time().as_secs_f64() * f64::from(1 << 30) / length as f64)
    };
    let (encrypted, encrypted_cpu) = transfer(&[]);
    let (plain, plain_cpu) = transfer(&["--plain-peers"]);
    figures.add("1:1 encrypted", "MB/s", Goal::None, encrypted);
    figures.add("1:1 unencrypted", "MB/s", Goal::None, plain);
    figures.add("1:1 encrypted to unencrypted", "", Goal::AtLeast(0.9), encrypted / plain);
    figures.add("1:1 encrypted, CPU of both sides", "s per GiB", Goal::None, encrypted_cpu);
    figures.add("1:1 unencrypted, CPU of both sides", "s per GiB", Goal::None, plain_cpu);
}

/// What a connection costs both sides: TLS, two tickets, two BitTorrent handshakes.
pub(crate) fn handshakes(bench: &Bench, figures: &mut Figures) {
    let mut deployment = Deployment::on(bench.scene());
    deployment.add_members(1);
    let client = &mut deployment.clients[0];
    let path = client.path("file");
    random_file(&path, 1 << 20, 1);
    let uploaded = client.expect_ok(&format!("upload_file {} {GROUP}", path.display()));
    let info_hash: InfoHash = uploaded["info_hash"].as_str().and_then(|hex| hex.parse().ok()).expect("an info-hash");
    let mut member = deployment.add_wire_member("wire", 9);
    let group = member.group_id(GROUP);
    let listing = member.list_files(GROUP).pop().expect("a listing");
    let Response::Peers(peers) = member.ask(Request::Watch { listing: listing.id }) else { panic!("no peers") };
    let (pass, seeder) = (member.pass(group), &peers[0]);
    let ours = Handshake { info_hash, peer_id: member.peer_id(), fast: true, extended: true }.encode();
    let running = deployment.clients[0].running();
    let cpu = || running.cpu_time() + Running::own_cpu_time();
    let before = cpu();
    for _ in 0..N_HANDSHAKES {
        let link = pass.dial(seeder.address, seeder.key).expect("the seeder admits a member");
        link.send(&ours).expect("the seeder listens");
        link.read_handshake().expect("the seeder answers");
    }
    let each = (cpu() - before).as_secs_f64() * 1e3 / f64::from(N_HANDSHAKES);
    figures.add("handshake with tickets, CPU of both sides", "ms", Goal::AtMost(2.0), each);
}

/// Removed members, heard of by everybody who is online in the group.
pub(crate) fn revocations(bench: &Bench, figures: &mut Figures) {
    let n = bench.options.members;
    let mut deployment = Deployment::on(bench.scene());
    let mut owner = deployment.add_wire_member("owner", 9);
    let group = owner.group_id(GROUP);
    let names = |kind: &str| (0..n).map(|nth| format!("{kind}{nth}")).collect::<Vec<_>>();
    let (staying, leaving) = (names("staying"), names("leaving"));
    let mut accept = |user: &str| {
        let (group, user) = (GROUP.parse().expect("a name"), user.parse().expect("a name"));
        owner.ask(Request::AcceptRequest { group, user });
    };
    drop(members_online(deployment.tracker.address(), &leaving, &mut accept));
    let mut online = members_online(deployment.tracker.address(), &staying, &mut accept);
    online.iter_mut().for_each(|member| drop(member.enter_group(group, 0)));
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            for user in &leaving {
                let (group, user) = (GROUP.parse().expect("a name"), user.parse().expect("a name"));
                owner.ask(Request::RemoveMember { group, user });
            }
            let removed = start.elapsed().as_secs_f64();
            figures.add("revocations: until all are acknowledged", "s", Goal::None, removed);
        });
        online.iter_mut().for_each(|member| wait_revocations(member, n));
    });
    let elapsed = start.elapsed().as_secs_f64();
    figures.add("1,000 revocations to 1,000 members, until the last has heard", "s", Goal::AtMost(2.0), elapsed);
}

/// New members of the group, all online at once; `accept` lets one of them in.
pub(crate) fn members_online(tracker: SocketAddr, names: &[String], mut accept: impl FnMut(&str)) -> Vec<WireMember> {
    let mut online: Vec<WireMember> = Vec::new();
    // A few at a time, for who is silent meanwhile loses its connection.
    for names in names.chunks(JOIN_AT_ONCE) {
        let joined = join_all(tracker, names);
        names.iter().for_each(|user| accept(user));
        online.extend(joined);
        online.iter_mut().for_each(|member| drop(member.ask(Request::Ping)));
    }
    online
}

/// Users who have an account, are signed in, and ask to join.
fn join_all(tracker: SocketAddr, names: &[String]) -> Vec<WireMember> {
    let share = names.len().div_ceil(SIGN_IN_THREADS);
    let join = |names: &[String]| {
        let members = names.iter().map(|name| {
            let mut member = WireMember::connect(tracker, 1).expect("the tracker accepts");
            member.sign_up(name, &password_of(name));
            member.join_group(GROUP);
            member
        });
        members.collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = names.chunks(share).map(|names| scope.spawn(move || join(names))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("all join")).collect()
    })
}

fn wait_revocations(member: &mut WireMember, n: usize) {
    let mut n_heard = 0;
    while n_heard < n {
        if let TrackerMessage::Event(Event::Revoked(revocations)) = member.read().expect("the tracker tells") {
            n_heard += revocations.len();
        }
    }
}

/// Whether the time of a refusal tells an unknown user from a wrong password.
pub(crate) fn login_timing(bench: &Bench, figures: &mut Figures) {
    let deployment = Deployment::on(bench.scene());
    let mut member = WireMember::connect(deployment.tracker.address(), 1).expect("the tracker accepts");
    // Few failures for each account, for more have to wait.
    let accounts: Vec<String> = (0..N_FAILURES / 4).map(|nth| format!("known{nth}")).collect();
    for name in &accounts {
        let (user, password) = (name.parse().expect("a name"), Password::new(password_of(name)));
        member.ask(Request::CreateUser { user, password });
    }
    let (mut wrong, mut unknown) = (Vec::new(), Vec::new());
    for nth in 0..N_FAILURES {
        wrong.push(failed_login(&mut member, &accounts[nth % accounts.len()]));
        unknown.push(failed_login(&mut member, &format!("unknown{nth}")));
    }
    // The fastest of many is what it costs; the others waited for a core.
    let (wrong, unknown) = (least(&wrong), least(&unknown));
    figures.add("login refused, wrong password, fastest of 20", "ms", Goal::None, wrong);
    figures.add("login refused, unknown user, fastest of 20", "ms", Goal::None, unknown);
    let difference = (wrong - unknown).abs() / wrong.max(unknown);
    figures.add("login refused, difference of the two", "of 1", Goal::AtMost(0.05), difference);
}

/// How long a login takes to be refused, in ms.
fn failed_login(member: &mut WireMember, user: &str) -> f64 {
    let (user, password) = (user.parse().expect("a name"), Password::new("not the password".into()));
    let start = Instant::now();
    let answer = member.request(Request::Login { user, password, takeover: false }).expect("the tracker answers");
    assert!(answer.is_err(), "{answer:?}");
    start.elapsed().as_secs_f64() * 1e3
}

/// How long others wait for an answer while somebody floods the tracker with logins.
pub(crate) fn flood(bench: &Bench, figures: &mut Figures) {
    let mut deployment = Deployment::on(bench.scene());
    let mut member = deployment.add_wire_member("member", 9);
    let address = deployment.tracker.address();
    let quiet = slow_answer(&mut member);
    let is_over = AtomicBool::new(false);
    let flooded = thread::scope(|scope| {
        for nth in 0..FLOOD {
            let is_over = &is_over;
            scope.spawn(move || {
                let mut stranger = WireMember::connect(address, 1).expect("the tracker accepts");
                // An account of its own each time, for which no wait has grown yet.
                for round in 0.. {
                    let name = format!("stranger{nth}-{round}");
                    let (user, password) = (name.parse().expect("a name"), Password::new(password_of(&name)));
                    let asked = stranger.request(Request::CreateUser { user, password });
                    if is_over.load(Ordering::Relaxed) || asked.is_err() {
                        return;
                    }
                }
            });
        }
        let flooded = slow_answer(&mut member);
        is_over.store(true, Ordering::Relaxed);
        flooded
    });
    figures.add("list_files, 99th percentile", "ms", Goal::None, quiet);
    figures.add("list_files in a flood of password hashes, 99th percentile", "ms", Goal::AtMost(100.0), flooded);
}

/// The 99th percentile of the answer times of a member's question, in ms.
fn slow_answer(member: &mut WireMember) -> f64 {
    let times = (0..N_PINGS).map(|_| {
        let start = Instant::now();
        member.list_files(GROUP);
        start.elapsed().as_secs_f64() * 1e3
    });
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    times[N_PINGS * 99 / 100]
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}
