//! The built-in group and files carried by hand: share, get, remove, send, download, scrape with .mtorrent files
//! (acceptance A1 to A15, D2 to D6).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_common::hash::{InfoHash, Sha1Hash};
use mini_torrent_tests::files::{assert_same, random_bytes, random_file};
use mini_torrent_tests::wire_announce::{scrape_by_http, scrape_by_udp};
use mini_torrent_tests::{
    Client, Conduct, Content, Deployment, P, Scene, Tracker, WireMember, WireSeeder, eventually, programs,
};
use std::path::{Path, PathBuf};

const FILE: &str = "film.mkv";

/// Two strangers, the first with a file of two pieces and a half.
fn two() -> (Deployment, PathBuf) {
    let mut deployment = Deployment::empty(programs!());
    deployment.add_stranger();
    deployment.add_stranger();
    let file = random_file(deployment.clients[0].path(FILE), 2 * P + P / 2, 3);
    (deployment, file)
}

fn share(client: &mut Client, file: &Path) -> PathBuf {
    let mtorrent = client.path("film.mtorrent");
    let shared = client.expect_ok(&format!("share {} {}", file.display(), mtorrent.display()));
    assert_eq!(shared["group"], "public");
    assert_eq!(shared["mtorrent"].as_str().map(PathBuf::from), Some(mtorrent.clone()));
    mtorrent
}

fn scraped(client: &mut Client, file: &str) -> (u64, u64) {
    let scraped = client.expect_ok(&format!("scrape {file}"));
    (scraped["seeders"].as_u64().unwrap(), scraped["leechers"].as_u64().unwrap())
}

/// A1, A2: tracker 1, tracker 2, name, size, 20 hex digits a piece, one a line.
#[test]
fn a1_a2_share_writes_the_plain_text_file() {
    let (mut deployment, file) = two();
    let tracker = deployment.tracker.address().to_string();
    let mtorrent = share(&mut deployment.clients[0], &file);
    let text = std::fs::read_to_string(mtorrent).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], [tracker.as_str(), tracker.as_str()], "with one tracker the same again");
    assert_eq!(lines[2..4], [FILE, &(2 * P + P / 2).to_string()]);
    let bytes = std::fs::read(&file).unwrap();
    let digits = |piece: &[u8]| Sha1Hash::of(piece).to_string()[..20].to_owned();
    let expected: String = bytes.chunks(usize::try_from(P).unwrap()).map(digits).collect();
    assert_eq!(lines[4], expected);
    assert!(lines[5..].iter().all(|line| line.contains(": ")), "{text}");
}

/// A6, A8, D2, D5: listed at once, with its seeders, and nothing of those who are gone.
#[test]
fn a8_d2_d5_a_shared_file_is_listed_and_scraped_at_once() {
    let (mut deployment, file) = two();
    let [ann, bob] = deployment.some();
    share(ann, &file);
    // It is listed by now; its seeder announces itself behind that, on a connection of its own.
    eventually("d2: it has its seeder", || (scraped(bob, FILE) == (1, 0)).then_some(()));
    bob.expect_error("scrape nothing.bin", "no_such_file");
    ann.kill();
    eventually("a6: only live peers count", || (scraped(bob, FILE) == (0, 0)).then_some(()));
}

/// A6, D5, D6: in mid-download the leecher counts as one, by command, HTTP and UDP alike, and afterwards as a seeder. What
/// nobody shares is an error everywhere.
#[test]
fn a6_d5_d6_every_kind_of_scrape_counts_in_mid_download() {
    let scene = Scene::new(programs!());
    let tracker = Tracker::start_with(&scene, "open", &["--open-public"]);
    let mut deployment = Deployment { clients: Vec::new(), tracker, scene };
    deployment.add_stranger();
    deployment.add_stranger();
    let address = deployment.tracker.address();
    let content = Content::new(FILE, random_bytes(usize::try_from(2 * P).unwrap(), 5));
    let listener = WireSeeder::bind();
    let mut member = WireMember::connect(address, WireSeeder::port_of(&listener)).unwrap();
    member.sign_up("zed", "password-of-zed");
    let torrent = member.share("public", &content);
    let pass = member.pass(torrent.group);
    let seeder = WireSeeder::serve(listener, member, &torrent, content, Conduct::HELD, pass);
    let [ann, bob] = deployment.some();
    let mut agree_on = |seeders: u32, leechers: u32| {
        eventually(&format!("{seeders} seeders, {leechers} leechers"), || {
            let command = scraped(ann, FILE) == (seeders.into(), leechers.into());
            let stock = [scrape_by_http(address, torrent.info_hash), scrape_by_udp(address, torrent.info_hash)];
            let stock = stock.map(|scraped| scraped.map(|counts| (counts.complete, counts.incomplete)));
            (command && stock == [Ok((seeders, leechers)), Ok((seeders, leechers))]).then_some(())
        });
    };
    agree_on(1, 0);
    bob.expect_ok(&format!("download {FILE} {}", bob.path(FILE).display()));
    seeder.wait_requested();
    agree_on(1, 1);
    seeder.allow(None);
    bob.wait_event_kind("download_completed");
    agree_on(2, 0);
    bob.expect_error("scrape nothing.bin", "no_such_file");
    for scraped in [scrape_by_http(address, InfoHash([9; 20])), scrape_by_udp(address, InfoHash([9; 20]))] {
        assert_eq!(scraped, Err("unknown key or file".into()));
    }
}

/// A9, A5: carried by hand to another client, the file arrives under its own name.
#[test]
fn a9_a5_an_mtorrent_carried_by_hand_brings_the_file() {
    let (mut deployment, file) = two();
    let mtorrent = share(&mut deployment.clients[0], &file);
    let [_, bob] = deployment.some();
    let inbox = bob.path("inbox");
    std::fs::create_dir(&inbox).unwrap();
    let got = bob.expect_ok(&format!("get {} {}", mtorrent.display(), inbox.display()));
    assert_eq!(got["destination"].as_str().map(PathBuf::from), Some(inbox.join(FILE)));
    bob.wait_event_kind("download_completed");
    assert_same(&file, inbox.join(FILE));
    // D6: the leecher has become a seeder.
    eventually("d6: both seed", || (scraped(bob, FILE) == (2, 0)).then_some(()));
}

/// A15: gone from the tracker and the mapping, the .mtorrent deleted, the data kept.
#[test]
fn a15_remove_takes_back_everything_but_the_data() {
    let (mut deployment, file) = two();
    let mtorrent = share(&mut deployment.clients[0], &file);
    let [ann, bob] = deployment.some();
    ann.expect_ok(&format!("remove {}", mtorrent.display()));
    assert!(!mtorrent.exists() && file.exists());
    bob.expect_error(&format!("scrape {FILE}"), "no_such_file");
    ann.quit();
    ann.start_again();
    assert_eq!(ann.sign_in()["shares"], 0);
}

/// D2, D3: send and download, without a file of metainfo.
#[test]
fn d2_d3_send_and_download() {
    let (mut deployment, file) = two();
    let [ann, bob] = deployment.some();
    ann.expect_ok(&format!("send {}", file.display()));
    let destination = bob.path("got.mkv");
    bob.expect_ok(&format!("download {FILE} {}", destination.display()));
    bob.wait_event_kind("download_completed");
    assert_same(&file, &destination);
    let shown = bob.expect_ok("show downloads");
    assert_eq!(shown["downloads"][0]["group"], "public", "{shown}");
}

/// B2: what is no metainfo, or describes several files, has its own words.
#[test]
fn b2_bad_metainfo_is_refused_with_its_reason() {
    let (mut deployment, _) = two();
    let several =
        b"d4:infod5:filesld6:lengthi1e4:pathl1:aeee4:name1:d12:piece lengthi16384e6:pieces20:01234567890123456789ee";
    let (several, noise) = (
        deployment.scene.write("several.torrent", several),
        deployment.scene.write("noise.torrent", random_bytes(99, 1)),
    );
    let ann = &mut deployment.clients[0];
    let refused = ann.expect_error(&format!("get {} .", several.display()), "invalid_metainfo");
    assert!(refused.contains("multi-file"), "{refused}");
    ann.expect_error(&format!("get {} .", noise.display()), "invalid_metainfo");
    ann.expect_error("get nowhere.torrent .", "io");
    ann.expect_error("get magnet:?dn=x .", "invalid_metainfo");
}
