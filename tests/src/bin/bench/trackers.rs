//! Two trackers on one PostgreSQL compared with one: requests that they answer, what each costs, and how soon the one
//! shows what was written on the other.
//!
//! The load is [`N_MEMBERS`] members that ask one thing after the other, round by round, as clients do. A round lists the
//! group's files four times; finds two files, watches their peers and lets go of them; and becomes a sharer of a file,
//! announces it and stops sharing it: 13 requests, of which two are written durably and one goes to the other tracker.
//! The first tracker has one core, the second one the other; the load and the database server, which share the same cores,
//! have what is left. So the trackers together are not bounded by their own work alone, and what they answer per second of
//! their own CPU is shown, too: that is what they would answer had each a core to itself.

use crate::Bench;
use crate::figures::{Figures, Goal};
use crate::pinning::Cores;
use mini_torrent_common::control::{ListingId, Presence, Request, Response};
use mini_torrent_common::names::FileName;
use mini_torrent_tests::client::password_of;
use mini_torrent_tests::{Content, GROUP, Running, Tracker, WireMember, eventually, postgres};
use std::thread;
use std::time::{Duration, Instant};

/// Members that ask at the same time, at one tracker or half of them at each.
const N_MEMBERS: usize = 16;
/// Files of the group.
const N_FILES: usize = 20;
/// How long a load lasts, and how long it runs before.
const LOAD: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_secs(1);
/// Files that are listed on one tracker and looked for on the other.
const N_LOOKS: usize = 20;
/// The goal.
const AT_LEAST: Goal = Goal::AtLeast(1.6);
const WITHIN_A_SECOND: Goal = Goal::AtMost(1.0);

/// A file of the group.
struct Listed {
    id: ListingId,
    name: FileName,
}

/// What a load came to.
struct Cost {
    answered_per_s: f64,
    /// Per second of the trackers' CPU, user and kernel, all threads.
    answered_per_cpu_s: f64,
}

/// One tracker, then two.
pub(crate) fn trackers(bench: &Bench, figures: &mut Figures) {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let (cores, scene) = (Cores::of_this_machine(), bench.scene());
    let first = cores.of_tracker(|| Tracker::start_with(&scene, "tracker", &["--database", &database.url]));
    let mut owner = member_at(&first, "owner");
    owner.create_group(GROUP);
    let files: Vec<Listed> = (0..N_FILES).map(|nth| listed(&mut owner, &format!("file{nth}"))).collect();
    let mut at_first = join_all(&first, &mut owner, "first", N_MEMBERS);
    let one = cost("one tracker", &[&first], &files, &mut at_first);

    let second = cores.of_second_tracker(|| first.start_beside(2));
    at_first.truncate(N_MEMBERS / 2);
    at_first.extend(join_all(&second, &mut owner, "second", N_MEMBERS / 2));
    let two = cost("two trackers", &[&first, &second], &files, &mut at_first);
    let observer = at_first.last_mut().expect("members of the second tracker");
    let (listed_s, online_s) = slowest_looks(&mut owner, observer);

    figures.add("one tracker on PostgreSQL, requests", "per s", Goal::None, one.answered_per_s);
    figures.add("two trackers on it, requests of both", "per s", Goal::None, two.answered_per_s);
    figures.add("two to one, all on two cores", "", AT_LEAST, two.answered_per_s / one.answered_per_s);
    figures.add("one tracker, requests per CPU s", "per s", Goal::None, one.answered_per_cpu_s);
    figures.add("two trackers, requests per CPU s of both", "per s", Goal::None, two.answered_per_cpu_s);
    let had_they_a_core_each = 2.0 * two.answered_per_cpu_s / one.answered_per_cpu_s;
    figures.add("two to one, had each a core to itself", "", AT_LEAST, had_they_a_core_each);
    figures.add("listed on one until the other lists it, slowest of 20", "s", WITHIN_A_SECOND, listed_s);
    figures.add("announced on one until the other counts it, slowest of 20", "s", WITHIN_A_SECOND, online_s);
}

fn member_at(tracker: &Tracker, user: &str) -> WireMember {
    let mut member = WireMember::connect(tracker.address(), 9).expect("the tracker accepts");
    member.sign_up(user, &password_of(user));
    member
}

/// Members of the group, signed in at a tracker.
fn join_all(tracker: &Tracker, owner: &mut WireMember, prefix: &str, n: usize) -> Vec<WireMember> {
    let join = |nth| {
        let user = format!("{prefix}{nth}");
        let mut member = member_at(tracker, &user);
        member.join_group(GROUP);
        let (group, user) = (GROUP.parse().expect("a name"), user.parse().expect("a name"));
        owner.ask(Request::AcceptRequest { group, user });
        member
    };
    (0..n).map(join).collect()
}

fn listed(by: &mut WireMember, name: &str) -> Listed {
    let content = Content::new(name, name.as_bytes().repeat(64));
    Listed { id: by.share(GROUP, &content).listing, name: name.parse().expect("a file name") }
}

/// Runs a load, and says what it cost.
fn cost(what: &str, trackers: &[&Tracker], files: &[Listed], members: &mut [WireMember]) -> Cost {
    load(files, members, WARM_UP);
    let tracker_cpu = || trackers.iter().map(|tracker| tracker.running().cpu_time()).sum::<Duration>();
    let (tracker_before, own_before) = (tracker_cpu(), Running::own_cpu_time());
    let start = Instant::now();
    let n_answered = load(files, members, LOAD) as f64;
    let elapsed_s = start.elapsed().as_secs_f64();
    let tracker_s = (tracker_cpu() - tracker_before).as_secs_f64();
    let own_s = (Running::own_cpu_time() - own_before).as_secs_f64();
    eprintln!(
        "  {what}: {:.0} per s; cores busy with trackers {:.2}, with the load {:.2}",
        n_answered / elapsed_s,
        tracker_s / elapsed_s,
        own_s / elapsed_s,
    );
    Cost { answered_per_s: n_answered / elapsed_s, answered_per_cpu_s: n_answered / tracker_s }
}

/// Everybody asks for so long; how many answers came.
fn load(files: &[Listed], members: &mut [WireMember], length: Duration) -> usize {
    let start = Instant::now();
    thread::scope(|scope| {
        let ask = |(nth, member): (usize, &mut WireMember)| {
            let mut n_answered = 0;
            for number in nth.. {
                if start.elapsed() >= length {
                    break;
                }
                n_answered += round(member, files, number);
                member.events.clear();
            }
            n_answered
        };
        let threads: Vec<_> = members.iter_mut().enumerate().map(|member| scope.spawn(move || ask(member))).collect();
        threads.into_iter().map(|thread| thread.join().expect("everything is answered")).sum()
    })
}

/// What a member asks in one round; how much.
fn round(member: &mut WireMember, files: &[Listed], number: usize) -> usize {
    let group = || GROUP.parse().expect("a group name");
    let file = |nth: usize| &files[(number + nth) % files.len()];
    let listing = file(0).id;
    let found = [file(1), file(2)].into_iter().flat_map(|file| {
        let (name, listing) = (file.name.clone(), file.id);
        [Request::FindFile { group: group(), file: name }, Request::Watch { listing }, Request::Unwatch { listing }]
    });
    let lists = std::iter::repeat_with(|| Request::ListFiles { group: group(), after: None }).take(4);
    for request in lists.chain(found).chain([Request::Share { listing }]) {
        member.ask(request);
    }
    member.announce(listing, Presence::Seeding);
    let done = member.ask(Request::StopShare { listing });
    assert_eq!(done, Response::Done);
    13
}

/// How long it takes at most until the observer's tracker lists what was committed, and counts what was announced, on
/// the other one, in seconds.
fn slowest_looks(owner: &mut WireMember, observer: &mut WireMember) -> (f64, f64) {
    let mut slowest = (0.0_f64, 0.0_f64);
    for nth in 0..N_LOOKS {
        let file = listed(owner, &format!("look{nth}"));
        let start = Instant::now();
        let mut look = |what: &str, n_seeders: u32| {
            eventually(what, || {
                let files = observer.list_files(GROUP);
                files.iter().any(|row| row.id == file.id && row.n_seeders >= n_seeders).then_some(())
            });
            start.elapsed().as_secs_f64()
        };
        let listed_s = look("the other tracker lists it", 0);
        let before = start.elapsed().as_secs_f64();
        owner.announce(file.id, Presence::Seeding);
        let online_s = look("the other tracker counts it", 1) - before;
        slowest = (slowest.0.max(listed_s), slowest.1.max(online_s));
    }
    slowest
}
