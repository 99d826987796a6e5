//! With programs that are not ours: aria2, transmission and libtorrent seed and fetch, against our tracker by HTTP and by
//! UDP, and our client against a tracker that is not ours (B12, D15, issue 4).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_common::torrent::Torrent;
use mini_torrent_tests::client::ClientSettings;
use mini_torrent_tests::deployment::user_name;
use mini_torrent_tests::files::{assert_same, random_file};
use mini_torrent_tests::stock::{Stock, StockClient, Trackers};
use mini_torrent_tests::waiting::skipped;
use mini_torrent_tests::{Client, Deployment, GROUP, P, Tracker, eventually_within, programs};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long ordinary clients may take; their timers are of seconds.
const PATIENCE: Duration = Duration::from_secs(90);
const FILE: &str = "film.mkv";

/// A group that admits ordinary clients, and a file of 8 pieces that ann shares in it.
fn sharing_with_stock_clients(n: usize, options: &[&str]) -> (Deployment, PathBuf) {
    let mut deployment = Deployment::empty(programs!());
    deployment.tracker.kill();
    deployment.tracker = Tracker::start_with(&deployment.scene, "open", options);
    // Transmission takes those who share an address for one peer.
    for nth in 0..n {
        let listen = format!("127.0.0.{}:0", nth + 1);
        deployment.add_member_with(ClientSettings::new(&user_name(nth)).listen(&listen));
    }
    let ann = &mut deployment.clients[0];
    ann.expect_ok(&format!("set_group {GROUP} stock-clients on"));
    let file = random_file(ann.path(FILE), 8 * P - 1000, 7);
    ann.upload(&file, GROUP);
    (deployment, file)
}

/// A member's personal .torrent of the file.
fn export(client: &mut Client) -> PathBuf {
    let path = client.path("exported.torrent");
    client.expect_ok(&format!("export_torrent {GROUP} {FILE} {}", path.display()));
    path
}

fn fetch(client: &mut Client, group: &str, original: &Path) {
    client.begin_download(group, FILE);
    let done = client.event_within(PATIENCE, |event| event["event"] == "download_completed");
    let done = done.unwrap_or_else(|| panic!("the download does not complete"));
    assert_same(original, done["destination"].as_str().unwrap());
}

/// Ours seeds and the ordinary client fetches; then ours is gone, and the ordinary client seeds for another member.
fn both_ways(stock: Stock, trackers: Trackers) {
    if !stock.is_there() {
        return;
    }
    let (mut deployment, original) = sharing_with_stock_clients(2, &[]);
    let torrent = export(&mut deployment.clients[1]);
    let mut ordinary = StockClient::start(&deployment.scene, stock, &torrent, "ordinary", trackers);
    ordinary.wait_complete(FILE, &original);
    let [ann, bob] = deployment.some();
    bob.wait_seeders(GROUP, FILE, 2);
    ann.quit();
    bob.wait_seeders(GROUP, FILE, 1);
    fetch(bob, GROUP, &original);
}

#[test]
fn b12_aria2_both_ways_by_http() {
    both_ways(Stock::Aria2, Trackers::All);
}

#[test]
fn b12_transmission_both_ways_by_http() {
    both_ways(Stock::Transmission, Trackers::All);
}

#[test]
fn b12_libtorrent_both_ways_by_http() {
    both_ways(Stock::Libtorrent, Trackers::All);
}

/// D15: with the key in BEP 41's URL data.
#[test]
fn d15_libtorrent_both_ways_by_udp_with_a_key() {
    both_ways(Stock::Libtorrent, Trackers::Udp);
}

/// One of ours that seeds, one of ours that fetches, and the three others, all at once.
#[test]
fn a_mixed_swarm_of_five() {
    let there: Vec<_> = Stock::ALL.into_iter().filter(|stock| stock.is_there()).collect();
    let (mut deployment, original) = sharing_with_stock_clients(2, &[]);
    let torrent = export(&mut deployment.clients[1]);
    let start = |stock: &Stock| {
        let name = format!("{stock:?}");
        StockClient::start(&deployment.scene, *stock, &torrent, &name, Trackers::All)
    };
    let mut others: Vec<_> = there.iter().map(start).collect();
    fetch(&mut deployment.clients[1], GROUP, &original);
    for ordinary in &mut others {
        ordinary.wait_complete(FILE, &original);
    }
    deployment.clients[1].wait_seeders(GROUP, FILE, 2 + others.len() as u64);
}

/// D15: aria2 and transmission send no key by UDP; the operator opens the built-in group to them.
#[test]
fn d15_clients_without_keys_by_udp_in_the_open_group() {
    for stock in [Stock::Aria2, Stock::Transmission] {
        if !stock.is_there() {
            continue;
        }
        let (mut deployment, original) = sharing_with_stock_clients(2, &["--open-public"]);
        let ann = &mut deployment.clients[0];
        ann.upload(&original, "public");
        ann.expect_ok(&format!("export_torrent public {FILE} {}", ann.path("public.torrent").display()));
        let keyed = Torrent::decode(&std::fs::read(ann.path("public.torrent")).unwrap()).unwrap();
        let announce = format!("udp://{}/announce", deployment.tracker.address());
        let open = Torrent::new(vec![vec![announce]], keyed.raw_info().to_vec()).unwrap();
        let path = deployment.scene.write("open.torrent", open.encode());
        let mut ordinary = StockClient::start(&deployment.scene, stock, &path, "ordinary", Trackers::Udp);
        ordinary.wait_complete(FILE, &original);
        let [ann, bob] = deployment.some();
        bob.wait_seeders("public", FILE, 2);
        ann.quit();
        fetch(bob, "public", &original);
    }
}

/// A member who is removed takes their ordinary clients along.
#[test]
fn a_removed_members_ordinary_client_is_out() {
    if !Stock::Aria2.is_there() {
        return;
    }
    let (mut deployment, original) = sharing_with_stock_clients(2, &[]);
    let torrent = export(&mut deployment.clients[1]);
    let mut ordinary = StockClient::start(&deployment.scene, Stock::Aria2, &torrent, "ordinary", Trackers::All);
    ordinary.wait_complete(FILE, &original);
    let [ann, _] = deployment.some();
    ann.wait_seeders(GROUP, FILE, 2);
    ann.expect_ok(&format!("remove_member {GROUP} bob"));
    ann.wait_seeders(GROUP, FILE, 1);
    drop(ordinary);
    let again = StockClient::start(&deployment.scene, Stock::Aria2, &torrent, "again", Trackers::All);
    let seeders = |client: &mut Client| client.listed(GROUP, FILE)["seeders"].as_u64();
    mini_torrent_tests::holds_for(Duration::from_secs(3), "nothing is fetched with an ended key", || {
        !again.directory().join(FILE).exists()
            || !mini_torrent_tests::files::same(again.directory().join(FILE), &original)
    });
    assert_eq!(seeders(&mut deployment.clients[0]), Some(1));
}

/// Our client as an ordinary one: opentracker tells the peers, aria2 seeds, and afterwards ours seeds for libtorrent.
#[test]
fn our_client_with_a_tracker_that_is_not_ours() {
    let is_there = Command::new("opentracker").arg("-h").output().is_ok();
    if !is_there {
        return skipped("opentracker is not installed");
    }
    if !Stock::Aria2.is_there() || !Stock::Libtorrent.is_there() {
        return;
    }
    for (scheme, trackers) in [("http", Trackers::All), ("udp", Trackers::Udp)] {
        let deployment = Deployment::empty(programs!());
        let scene = &deployment.scene;
        let address = free_address();
        let mut command = Command::new("opentracker");
        let port = address.port().to_string();
        command.args(["-i", "127.0.0.1", "-p", &port, "-P", &port]).current_dir(scene.dir());
        let original = random_file(scene.make_dir("seed").join(FILE), 8 * P - 1000, 9);
        let info = mini_torrent_tests::Content::new(FILE, std::fs::read(&original).unwrap()).foreign_info();
        let announce = format!("{scheme}://{address}/announce");
        let torrent = Torrent::new(vec![vec![announce]], info).unwrap();
        let path = scene.write("foreign.torrent", torrent.encode());
        // Debian's opentracker serves what is on its list.
        command.arg("-w").arg(scene.write("served", format!("{}\n", torrent.info_hash())));
        let _tracker = scene.start("opentracker", &mut command);
        eventually_within(PATIENCE, "opentracker listens", || TcpStream::connect(address).ok().map(drop));
        let mut seeder = StockClient::start(scene, Stock::Aria2, &path, "seed", trackers);
        seeder.wait_complete(FILE, &original);
        let settings = ClientSettings::new("ours");
        let mut ours = Client::start_with(scene, deployment.tracker.info_file(), settings);
        let destination = ours.path("got.mkv");
        ours.expect_ok(&format!("get {} {}", path.display(), destination.display()));
        let done = ours.event_within(PATIENCE, |event| event["event"] == "download_completed");
        assert!(done.is_some(), "{scheme}: the foreign torrent does not complete");
        assert_same(&original, &destination);
        drop(seeder);
        let mut other = StockClient::start(scene, Stock::Libtorrent, &path, "other", trackers);
        other.wait_complete(FILE, &original);
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
