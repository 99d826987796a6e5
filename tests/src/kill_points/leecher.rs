//! kill -9 of a downloading client: what it had verified is there afterwards, and the file comes out exact.

use super::{KillRun, Tally, random_moment};
use crate::client::Client;
use crate::deployment::{Deployment, GROUP};
use crate::files::random_bytes;
use crate::wire_member::Content;
use crate::wire_seeder::{Conduct, WireSeeder};
use mini_torrent_common::geometry::PIECE_LENGTH;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// Most pieces of a file.
const MAX_PIECES: u64 = 8;
/// Fewest bytes served between two kills: no block is longer.
const MIN_SERVED: u64 = mini_torrent_common::peer_wire::MAX_BLOCK_LENGTH as u64;
/// Most bytes served between two kills.
const MAX_SERVED: u64 = 3 * PIECE_LENGTH as u64;

/// Kills a downloader at every point, each time a little further into a file, and looks whether it still has
/// what it had reported.
///
/// # Panics
/// When a download or a verified piece is lost, or a file comes out wrong.
pub fn kill_leecher(run: &KillRun) -> Tally {
    let mut tally = Tally::default();
    let mut deployment = Deployment::of(run.programs.clone(), 1);
    deployment.add_members(1);
    let mut random = StdRng::seed_from_u64(run.seed);
    let mut point = 0;
    for nth in 0.. {
        if point >= run.n_points {
            return tally;
        }
        let length = random.random_range(1..MAX_PIECES * u64::from(PIECE_LENGTH));
        let bytes = random_bytes(usize::try_from(length).expect("a small file"), random.random());
        let content = Content::new(&format!("f{nth}"), bytes);
        let seeder = deployment.add_wire_seeder(&format!("seeder{nth}"), &content, Conduct::HELD);
        point = kill_during(&mut deployment.clients[1], &seeder, &content, point, &mut random, &mut tally);
    }
    unreachable!("the points come to an end")
}

/// Fetches one file, killing the downloader again and again, and once more when it is complete; the number
/// of the next point.
fn kill_during(
    leecher: &mut Client,
    seeder: &WireSeeder,
    content: &Content,
    first_point: u32,
    random: &mut StdRng,
    tally: &mut Tally,
) -> u32 {
    let destination = leecher.begin_download(GROUP, &content.name);
    for point in first_point.. {
        let before = seeder.seen().bytes_served;
        seeder.allow(Some(random.random_range(MIN_SERVED..MAX_SERVED)));
        // Once it wants more, a part of what is allowed now is served or on its way.
        let size = content.bytes.len() as u64;
        if before < size {
            seeder.wait_seen("it serves", |seen| (seen.bytes_served > before).then_some(()));
        }
        random_moment(random, Duration::from_millis(8));
        let reported = leecher.shown(GROUP, &content.name);
        let completed = leecher.event_within(Duration::ZERO, |event| event["event"] == "download_completed").is_some();
        random_moment(random, Duration::from_millis(8));
        leecher.kill();
        leecher.start_again();
        leecher.sign_in();
        check(leecher, content, point, &reported, completed, &destination);
        if completed || reported["state"] == "C" {
            tally.happened += 1;
            return point + 1;
        }
        match reported["done_bytes"] == 0 {
            true => tally.not += 1,
            false => tally.in_part += 1,
        }
    }
    unreachable!("every download completes")
}

fn check(leecher: &mut Client, content: &Content, point: u32, reported: &Value, completed: bool, destination: &Path) {
    let now = crate::waiting::eventually(&format!("point {point}: the partial file is checked"), || {
        let now = leecher.shown(GROUP, &content.name);
        (now["done_bytes"].as_u64() >= reported["done_bytes"].as_u64()).then_some(now)
    });
    if completed || reported["state"] == "C" {
        assert_eq!(now["state"], "C", "point {point}: it was complete: {now}");
        let bytes = std::fs::read(destination).expect("a complete file is there");
        assert!(bytes == *content.bytes, "point {point}: a complete file is exact");
    }
}
