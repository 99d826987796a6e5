//! Many at once: A7, A10, A11, A13, A14, A16, B9, B10, B11, D3, D4, E14 to E17, E25 and the corners of
//! behaviour §3 about peers.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_tests::files::{assert_same, random_bytes, random_file};
use mini_torrent_tests::wire_leecher::WireLeecher;
use mini_torrent_tests::{Conduct, Content, Deployment, GROUP, P, WireSeeder, eventually, in_time, programs};
use std::collections::BTreeSet;
use std::time::Duration;

fn content(n_pieces: u64, seed: u64) -> Content {
    let length = usize::try_from(n_pieces * P).unwrap();
    Content::new("file", random_bytes(length, seed))
}

/// E14, D3, B10: byte-exact for every length at the edges.
#[test]
fn e14_d3_b10_files_of_every_length_arrive_exact() {
    let mut deployment = Deployment::of(programs!(), 2);
    let (ann, bob) = deployment.pair();
    for length in [0, 1, P - 1, P, P + 1, 2 * P, 9 * P + 12_345] {
        let name = format!("file{length}");
        let file = random_file(ann.path(&name), length, length);
        let uploaded = ann.upload(&file, GROUP);
        let destination = bob.path(&name);
        let started = bob.expect_ok(&format!("download_file lab {name} {}", destination.display()));
        assert_eq!((started["group"].clone(), started["file"].clone()), (GROUP.into(), name.as_str().into()));
        assert_eq!(started["destination"], destination.to_str().unwrap());
        let event = bob.wait_completed(GROUP, &name);
        assert_eq!(
            (event["sha1"].clone(), event["destination"].clone()),
            (uploaded["sha1"].clone(), started["destination"].clone())
        );
        assert_same(&file, &destination);
        let shown = bob.shown(GROUP, &name);
        assert_eq!(
            (shown["state"].clone(), shown["done_bytes"].clone(), shown["size"].clone()),
            ("C".into(), length.into(), length.into())
        );
    }
}

/// An empty file completes with no seeder online.
#[test]
fn an_empty_file_needs_no_seeder() {
    let mut deployment = Deployment::of(programs!(), 2);
    let (ann, bob) = deployment.pair();
    let file = random_file(ann.path("empty"), 0, 0);
    ann.upload(&file, GROUP);
    ann.quit();
    let copy = bob.download(GROUP, "empty");
    assert_eq!(std::fs::metadata(copy).unwrap().len(), 0);
}

/// A10, D4, E15: one download has requests open at three seeders at the same time, for different pieces.
#[test]
fn a10_d4_e15_three_seeders_are_used_at_the_same_time() {
    let mut deployment = Deployment::of(programs!(), 1);
    let content = content(24, 10);
    let seeders = ["x", "y", "z"].map(|user| deployment.add_wire_seeder(user, &content, Conduct::HELD));
    let bob = &mut deployment.clients[0];
    let copy = bob.begin_download(GROUP, "file");
    // None of them serves before all of them were asked.
    seeders.iter().for_each(WireSeeder::wait_requested);
    eventually("all are shown", || (bob.shown(GROUP, "file")["peers"] == 3).then_some(()));
    let first: BTreeSet<u32> = seeders.iter().map(|seeder| seeder.seen().requests[0].1.index).collect();
    assert_eq!(first.len(), 3, "different pieces: {first:?}");
    for seeder in &seeders {
        seeder.allow(Some(P));
        seeder.wait_seen("each sends", |seen| (seen.bytes_served > 0).then_some(()));
    }
    seeders.iter().for_each(|seeder| seeder.allow(None));
    bob.wait_completed(GROUP, "file");
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
}

/// E16: the order is not sequential, and the load is spread over the seeders.
#[test]
fn e16_order_is_random_and_load_is_spread() {
    let mut deployment = Deployment::of(programs!(), 1);
    let content = content(64, 16);
    let seeders = ["x", "y"].map(|user| deployment.add_wire_seeder(user, &content, Conduct::HELD));
    let bob = &mut deployment.clients[0];
    bob.begin_download(GROUP, "file");
    seeders.iter().for_each(WireSeeder::wait_requested);
    seeders.iter().for_each(|seeder| seeder.allow(None));
    bob.wait_completed(GROUP, "file");
    for seeder in &seeders {
        let pieces = seeder.seen().pieces_requested();
        assert!(!pieces.is_sorted(), "{pieces:?}");
        assert!(seeder.seen().bytes_served >= 6 * P, "a tenth at least: {}", seeder.seen().bytes_served);
    }
}

/// A11: two downloaders are served by one seeder at the same time.
#[test]
fn a11_two_downloaders_are_served_at_the_same_time() {
    let mut deployment = Deployment::of(programs!(), 3);
    let [ann, bob, cid] = deployment.some();
    let file = random_file(ann.path("file"), 16 * P, 11);
    ann.upload(&file, GROUP);
    bob.begin_download(GROUP, "file");
    cid.begin_download(GROUP, "file");
    for client in [bob, cid] {
        client.wait_completed(GROUP, "file");
        assert_same(&file, client.path("file"));
    }
}

/// A13: while a download runs, other commands are answered at once, and other downloads complete.
#[test]
fn a13_a_running_download_blocks_nothing() {
    let mut deployment = Deployment::of(programs!(), 2);
    let held = content(8, 13);
    let _seeder = deployment.add_wire_seeder("zed", &held, Conduct::HELD);
    let (ann, bob) = deployment.pair();
    for name in ["one", "two", "three"] {
        let file = random_file(ann.path(name), 3 * P, 14);
        ann.upload(&file, GROUP);
    }
    bob.begin_download(GROUP, "file");
    for name in ["one", "two", "three"] {
        bob.begin_download(GROUP, name);
    }
    for name in ["one", "two", "three"] {
        bob.wait_completed(GROUP, name);
    }
    in_time(Duration::from_secs(2), "answered while a download hangs", || bob.expect_ok("list_groups"));
    assert_eq!(bob.shown(GROUP, "file")["state"], "D");
}

/// A14, B11: who has a part of the file serves it: the second downloader gets pieces though the seeder
/// turns it away.
#[test]
fn a14_b11_a_downloader_serves_what_it_has() {
    let mut deployment = Deployment::of(programs!(), 2);
    let content = content(16, 15);
    let conduct = Conduct { first_peer_only: true, ..Conduct::HELD };
    let seeder = deployment.add_wire_seeder("zed", &content, conduct);
    let (bob, cid) = deployment.pair();
    bob.begin_download(GROUP, "file");
    seeder.wait_requested();
    seeder.allow(Some(8 * P));
    eventually("the first has some pieces", || {
        (bob.shown(GROUP, "file")["done_bytes"].as_u64() >= Some(2 * P)).then_some(())
    });
    let copy = cid.begin_download(GROUP, "file");
    eventually("the second has pieces of the first", || {
        (cid.shown(GROUP, "file")["done_bytes"].as_u64() >= Some(2 * P)).then_some(())
    });
    assert_eq!(cid.listed(GROUP, "file")["leechers"], 2);
    assert_eq!(bob.shown(GROUP, "file")["state"], "D", "the first is not complete itself");
    seeder.allow(None);
    cid.wait_completed(GROUP, "file");
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
}

/// E17: a third member fetches from the downloader when the first seeder is gone.
#[test]
fn e17_the_downloader_serves_when_the_first_seeder_is_gone() {
    let mut deployment = Deployment::of(programs!(), 3);
    let [ann, bob, cid] = deployment.some();
    let file = random_file(ann.path("file"), 6 * P + 1, 17);
    ann.upload(&file, GROUP);
    bob.download(GROUP, "file");
    ann.kill();
    let copy = cid.download(GROUP, "file");
    assert_same(&file, &copy);
}

/// D6, E25: who completed is listed as seeder; the lists follow who comes and goes.
#[test]
fn d6_e25_the_lists_follow_who_comes_and_goes() {
    let mut deployment = Deployment::of(programs!(), 3);
    let content = content(2, 25);
    let seeder = deployment.add_wire_seeder("zed", &content, Conduct::HELD);
    let [ann, bob, cid] = deployment.some();
    bob.begin_download(GROUP, "file");
    eventually("it is listed as leecher", || {
        let row = ann.listed(GROUP, "file");
        (row["seeders"] == 1 && row["leechers"] == 1).then_some(())
    });
    seeder.allow(None);
    bob.wait_completed(GROUP, "file");
    eventually("the leecher became a seeder", || {
        let row = ann.listed(GROUP, "file");
        (row["seeders"] == 2 && row["leechers"] == 0).then_some(())
    });
    drop(seeder);
    ann.wait_seeders(GROUP, "file", 1);
    cid.download(GROUP, "file");
    ann.wait_seeders(GROUP, "file", 2);
    bob.expect_ok("logout");
    ann.wait_seeders(GROUP, "file", 1);
    bob.sign_in();
    ann.wait_seeders(GROUP, "file", 2);
}

/// D7, A16: who quits is off the lists at once, and transfers go on elsewhere.
#[test]
fn d7_a16_quitting_leaves_the_lists_and_transfers_go_on() {
    let mut deployment = Deployment::of(programs!(), 3);
    let content = content(12, 16);
    let held = deployment.add_wire_seeder("zed", &content, Conduct::HELD);
    let [ann, bob, cid] = deployment.some();
    std::fs::write(ann.path("file"), content.bytes.as_slice()).unwrap();
    let path = ann.path("file");
    ann.upload(&path, GROUP);
    cid.wait_seeders(GROUP, "file", 2);
    let copy = bob.begin_download(GROUP, "file");
    held.wait_requested();
    ann.quit();
    mini_torrent_tests::eventually_within(Duration::from_secs(2), "it is off the list", || {
        (cid.listed(GROUP, "file")["seeders"] == 1).then_some(())
    });
    held.allow(None);
    bob.wait_completed(GROUP, "file");
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
}

/// No seeder: accepted, waiting, and it goes on by itself when one appears.
#[test]
fn a_download_waits_for_a_seeder() {
    let mut deployment = Deployment::of(programs!(), 2);
    let (ann, bob) = deployment.pair();
    let file = random_file(ann.path("file"), 2 * P, 18);
    ann.upload(&file, GROUP);
    ann.expect_ok("logout");
    bob.wait_seeders(GROUP, "file", 0);
    let started = bob.expect_ok(&format!("download_file lab file {}", bob.path("file").display()));
    assert_eq!(started["seeders"], 0);
    assert_eq!(bob.wait_event_kind("download_waiting")["file"], "file");
    assert_eq!(bob.shown(GROUP, "file")["state"], "D");
    let waited = bob.run("wait lab file --timeout 0.2");
    let code = waited["error"]["code"].clone();
    assert!(code == "timed_out" || code == "usage", "{waited}");
    ann.sign_in();
    bob.wait_completed(GROUP, "file");
    assert_same(&file, bob.path("file"));
}

/// A seeder that dies or stalls in mid-transfer is replaced; a stall costs less than 10 s.
#[test]
fn seeders_that_stall_or_die_are_replaced() {
    let mut deployment = Deployment::of(programs!(), 1);
    let content = content(32, 19);
    let stalling = deployment.add_wire_seeder("x", &content, Conduct { allowance: Some(3 * P), ..Conduct::HONEST });
    let dying = deployment.add_wire_seeder("y", &content, Conduct::HELD);
    let honest = deployment.add_wire_seeder("z", &content, Conduct::HELD);
    let bob = &mut deployment.clients[0];
    let copy = bob.begin_download(GROUP, "file");
    dying.wait_requested();
    honest.wait_requested();
    drop(dying);
    honest.allow(None);
    in_time(Duration::from_secs(10), "the others take over", || bob.wait_completed(GROUP, "file"));
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
    assert!(stalling.seen().bytes_served <= 3 * P);
}

/// B9: a peer that sends rubbish next to an honest one: the file is exact, the liar is banned and named.
#[test]
fn b9_a_liar_is_banned_and_named() {
    let mut deployment = Deployment::of(programs!(), 1);
    let content = content(16, 20);
    let liar = deployment.add_wire_seeder("liar", &content, Conduct::LIAR);
    let honest = deployment.add_wire_seeder("honest", &content, Conduct::HELD);
    let bob = &mut deployment.clients[0];
    let copy = bob.begin_download(GROUP, "file");
    // The honest one holds back until the liar was found out.
    honest.wait_requested();
    liar.wait_seen("a piece of rubbish is taken", |seen| (seen.bytes_served >= P).then_some(()));
    liar.wait_seen("the liar is dropped", |seen| (seen.n_open == 0).then_some(()));
    honest.allow(None);
    bob.wait_completed(GROUP, "file");
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
    let (address, name) = (liar.address().to_string(), liar.member.peer_id().to_string());
    let log = bob.log();
    let named = log.lines().any(|line| {
        let line = line.to_lowercase();
        line.contains("ban") && (line.contains(&address) || line.contains(&name) || line.contains("liar"))
    });
    assert!(named, "the log names {address}: {log}");
    assert_eq!(liar.seen().peers.len(), 1, "it is not asked again");
}

/// B9: with nobody but liars the file does not complete; an honest seeder mends it.
#[test]
fn b9_rubbish_alone_completes_nothing() {
    let mut deployment = Deployment::of(programs!(), 1);
    let content = content(2, 21);
    let liar = deployment.add_wire_seeder("liar", &content, Conduct::LIAR);
    let bob = &mut deployment.clients[0];
    let copy = bob.begin_download(GROUP, "file");
    liar.wait_seen("rubbish is taken", |seen| (seen.bytes_served >= P).then_some(()));
    liar.wait_seen("the liar is dropped", |seen| (seen.n_open == 0).then_some(()));
    assert_eq!(bob.shown(GROUP, "file")["state"], "D");
    assert!(!copy.exists());
    let _honest = deployment.add_wire_seeder("honest", &content, Conduct::HONEST);
    deployment.clients[0].wait_completed(GROUP, "file");
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
}

/// A7: a running download completes when its only tracker is gone.
#[test]
fn a7_a_running_download_needs_no_tracker() {
    let mut deployment = Deployment::of(programs!(), 1);
    let content = content(8, 22);
    let seeder = deployment.add_wire_seeder("zed", &content, Conduct::HELD);
    let copy = deployment.clients[0].begin_download(GROUP, "file");
    seeder.wait_requested();
    deployment.tracker.kill();
    seeder.allow(None);
    deployment.clients[0].wait_completed(GROUP, "file");
    assert!(std::fs::read(copy).unwrap() == *content.bytes);
}

/// E20, E21: a share that ends, by itself or with the session, serves no new piece after a second, even to
/// peers that are connected.
#[test]
fn e20_e21_ended_shares_serve_connected_peers_no_more() {
    for (user, command) in [("yan", "stop_share lab file"), ("zed", "logout")] {
        let mut deployment = Deployment::of(programs!(), 1);
        let ann = &mut deployment.clients[0];
        let file = random_file(ann.path("file"), 4 * P, 23);
        ann.upload(&file, GROUP);
        let mut leecher = WireLeecher::join(&mut deployment, user, "file");
        leecher.fetch_block(0).expect("served before");
        deployment.clients[0].expect_ok(command);
        leecher.wait_refused(Duration::from_secs(1));
    }
}

/// E11: a member who left is served by nobody after 2 s, even over a connection that is open.
#[test]
fn e11_who_left_is_served_no_more() {
    use mini_torrent_common::control::Request;
    let mut deployment = Deployment::of(programs!(), 1);
    let ann = &mut deployment.clients[0];
    let file = random_file(ann.path("file"), 4 * P, 24);
    ann.upload(&file, GROUP);
    let mut leecher = WireLeecher::join(&mut deployment, "zed", "file");
    leecher.fetch_block(0).expect("served before");
    leecher.member().ask(Request::LeaveGroup { group: GROUP.parse().unwrap() });
    leecher.wait_refused(Duration::from_secs(2));
}
