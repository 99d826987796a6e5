//! One seeder with hundreds of members connected at once, each of which fetches all of a small file but one piece, for
//! who has everything is let go of.
//!
//! The members have a key, an account and a ticket each. All of them are in this process, driven by few threads, and share
//! the machine with the seeder.

mod fetcher;

use crate::Bench;
use crate::figures::{Figures, Goal};
use crate::members::members_online;
use crate::transfers::mib;
use fetcher::{Fetcher, Seeder, fetch_all};
use mini_torrent_common::control::Presence;
use mini_torrent_common::geometry::PIECE_LENGTH;
use mini_torrent_tests::crowd::raise_file_limit;
use mini_torrent_tests::files::random_bytes;
use mini_torrent_tests::wire_member::Torrent;
use mini_torrent_tests::{Client, Content, Deployment, GROUP, Running, WireMember};
use std::thread;
use std::time::{Duration, Instant};

/// Pieces of each file.
const N_PIECES: usize = 9;
/// Bytes that each member fetches: 4 MiB.
const FETCHED_LENGTH: usize = (N_PIECES - 1) * PIECE_LENGTH as usize;
/// Threads that drive all members.
const N_THREADS: usize = 2;
/// Most resident memory of the seeder in MiB.
const MAX_MIB: f64 = 100.0;

/// A file that the seeder shares, and what its members know of it.
struct Shared {
    content: Content,
    torrent: Torrent,
}

/// As many members as the options say connect to one seeder, and when all are there, each fetches its part.
pub(crate) fn connections(bench: &Bench, figures: &mut Figures) {
    raise_file_limit();
    let mut deployment = Deployment::on(bench.scene());
    deployment.add_members(1);
    let names: Vec<String> = (0..bench.options.connections).map(|nth| format!("member{nth}")).collect();
    let (tracker, client) = (deployment.tracker.address(), &mut deployment.clients[0]);
    let contents = upload(client, bench.options.swarms.max(1));
    let accept = |user: &str| drop(client.expect_ok(&format!("accept_request {GROUP} {user}")));
    let mut members = members_online(tracker, &names, accept);
    let files = find(&mut members[0], contents);
    let seeder = Seeder { address: client.address(), key: client.key() };

    let begun = Instant::now();
    let mut fetchers = connect_all(&mut members, &files, seeder);
    let label = label(bench);
    figures.add(&format!("{label}: connected at once"), "", Goal::AtLeast(names.len() as f64), fetchers.len() as f64);
    figures.add(&format!("{label}: until the last is connected"), "s", Goal::None, begun.elapsed().as_secs_f64());
    let running = client.running();
    figures.add(&format!("{label}: seeder, resident before anybody asks"), "MiB", Goal::None, mib(running.memory()));
    let (elapsed, cpu) = transfer(&mut fetchers, running);
    let bytes = (fetchers.len() * FETCHED_LENGTH) as f64;
    figures.add(&format!("{label}: all together"), "MB/s", Goal::None, bytes / 1e6 / elapsed.as_secs_f64());
    figures.add(&format!("{label}: longest wait for the first block"), "s", Goal::None, longest_wait(&fetchers));
    let per_gib = cpu.as_secs_f64() * f64::from(1 << 30) / bytes;
    figures.add(&format!("{label}: seeder, CPU"), "s per GiB", Goal::None, per_gib);
    let peak = mib(running.peak_memory());
    figures.add(&format!("{label}: seeder, peak resident"), "MiB", Goal::AtMost(MAX_MIB), peak);
    let of_tracker = mib(deployment.tracker.running().peak_memory());
    figures.add(&format!("{label}: tracker, peak resident"), "MiB", Goal::None, of_tracker);
}

fn label(bench: &Bench) -> String {
    let (n, swarms) = (bench.options.connections, bench.options.swarms);
    if swarms > 1 { format!("{n} members of {swarms} swarms") } else { format!("{n} members") }
}

/// So many files of the seeder.
fn upload(client: &mut Client, n: usize) -> Vec<Content> {
    let contents = (0..n).map(|nth| {
        let content = Content::new(&format!("file{nth}"), random_bytes(N_PIECES * PIECE_LENGTH as usize, nth as u64));
        let path = client.path(&content.name);
        std::fs::write(&path, &*content.bytes).expect("a small file");
        client.upload(&path, GROUP);
        content
    });
    contents.collect()
}

/// The files as a member finds them, sorted by name as the group lists them.
fn find(member: &mut WireMember, mut contents: Vec<Content>) -> Vec<Shared> {
    contents.sort_by(|a, b| a.name.cmp(&b.name));
    let group = member.group_id(GROUP);
    let listed = member.list_files(GROUP);
    let files = contents.into_iter().zip(listed).map(|(content, listing)| {
        let torrent = Torrent {
            listing: listing.id,
            group,
            info_hash: listing.draft.info_hash,
            geometry: content.info(group).geometry,
        };
        Shared { content, torrent }
    });
    files.collect()
}

/// Connects the members to the seeder, each to one of the files; those that it lets in.
fn connect_all(members: &mut [WireMember], files: &[Shared], seeder: Seeder) -> Vec<Fetcher> {
    let connect = |nth: usize, member: &mut WireMember| {
        let Shared { content, torrent } = &files[nth % files.len()];
        member.announce(torrent.listing, Presence::Leeching);
        Fetcher::connect(&member.pass(torrent.group), member.peer_id(), seeder, torrent, content, nth)
    };
    let share = members.len().div_ceil(N_THREADS);
    thread::scope(|scope| {
        let numbered = members.chunks_mut(share).enumerate();
        let threads: Vec<_> = numbered
            .map(|(chunk, members)| {
                let connect = &connect;
                scope.spawn(move || {
                    let each = members.iter_mut().enumerate();
                    each.filter_map(|(nth, member)| connect(chunk * share + nth, member)).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("members connect")).collect()
    })
}

/// Lets all of them fetch at once; how long it took until the last has its part, and what CPU time of the seeder.
fn transfer(fetchers: &mut [Fetcher], seeder: &Running) -> (Duration, Duration) {
    let (start, cpu_before) = (Instant::now(), seeder.cpu_time());
    let share = fetchers.len().div_ceil(N_THREADS).max(1);
    thread::scope(|scope| {
        for some in fetchers.chunks_mut(share) {
            scope.spawn(|| fetch_all(some));
        }
    });
    let elapsed = start.elapsed();
    assert!(fetchers.iter_mut().all(Fetcher::is_done_and_connected), "a member was dropped");
    (elapsed, seeder.cpu_time() - cpu_before)
}

/// How long the last member waited for its first block, in seconds.
fn longest_wait(fetchers: &[Fetcher]) -> f64 {
    fetchers.iter().filter_map(Fetcher::first_wait).max().unwrap_or_default().as_secs_f64()
}
