//! Uploads: how fast a file is hashed, and how fast the shell answers meanwhile.

use crate::Bench;
use crate::figures::{Figures, Goal};
use crate::transfers::{long_answer, sharer};
use mini_torrent_tests::files::{random_file, sparse_file};
use mini_torrent_tests::terminal::Terminal;
use mini_torrent_tests::{Deployment, GROUP, Scene, Tracker};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// From the command to the reply, for a file in memory; then again in a shell that is asked things meanwhile.
pub(crate) fn upload(bench: &Bench, figures: &mut Figures) {
    let length = bench.length();
    let mut deployment = Deployment::on(bench.scene());
    let file = random_file(deployment.scene.path("file"), length, 4);
    let client = sharer(&mut deployment);
    let start = Instant::now();
    client.send(&format!("upload_file {} {GROUP}", file.display()));
    let answer = long_answer(client);
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(answer["ok"], true, "{answer}");
    figures.add("upload, hashing", "GB/s", Goal::AtLeast(1.1), length as f64 / 1e9 / seconds);
    // Long enough for many answers; holes are hashed as anything else is.
    let long = sparse_file(deployment.scene.path("long"), 6 * length, &[(1, b"x")]);
    let slowest = answers_meanwhile(&deployment.scene, &deployment.tracker, &long);
    figures.add("slowest answer while hashing", "ms", Goal::AtMost(200.0), slowest * 1e3);
}

/// The slowest answer in seconds of a shell that hashes.
fn answers_meanwhile(scene: &Arc<Scene>, tracker: &Tracker, file: &Path) -> f64 {
    let dir = scene.make_dir("shell");
    let mut command = scene.client_command(&["127.0.0.1:0", tracker.info(), "--data-dir", "state"]);
    command.current_dir(dir);
    let mut shell = Terminal::start(command);
    for (line, reply) in [
        ("create_user typist password-1", "user typist created"),
        ("login typist password-1", "logged in as typist"),
        ("create_group typists", "group typists created"),
    ] {
        shell.type_line(line);
        shell.expect(reply);
    }
    shell.type_line(&format!("upload_file {} typists", file.display()));
    shell.expect("goes on in the background");
    let mut slowest = 0f64;
    for _ in 0..100 {
        let start = Instant::now();
        shell.type_line("list_requests typists");
        let before = shell.expect("no pending requests");
        assert!(!before.contains("sharing long"), "the upload ended before the last question");
        slowest = slowest.max(start.elapsed().as_secs_f64());
    }
    shell.type_line("quit");
    slowest
}
