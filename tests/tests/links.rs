//! The emulated links: what passes them keeps to their rate and their delay, with real sockets on real hosts. (Their
//! arithmetic is tested beside it, without privileges.)

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_tests::files::random_bytes;
use mini_torrent_tests::links::{Congestion, Network, Shape};
use mini_torrent_tests::waiting::skipped;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const LENGTH: usize = 1 << 20;
const SHAPE: Shape = Shape {
    up: 4_000_000,
    down: 8_000_000,
    delay: Duration::from_millis(15),
    loss: 0.0,
    passes_whole: true,
    congestion: Congestion::Cubic,
};

#[test]
fn whole_packets_keep_to_the_rate_and_the_delay() {
    transfer(&SHAPE);
}

#[test]
fn cut_packets_with_losses_keep_to_the_rate_and_the_delay() {
    transfer(&Shape { passes_whole: false, loss: 0.01, ..SHAPE });
}

#[test]
fn hosts_of_a_process_that_was_killed_are_cleared_away() {
    let mut ended = Command::new("true").spawn().unwrap();
    let name = format!("mini-torrent-{}-0-0", ended.id());
    ended.wait().unwrap();
    let made = Command::new("ip").args(["netns", "add", &name]).status();
    if !made.is_ok_and(|status| status.success()) {
        return skipped("this machine gives no network namespaces");
    }
    let network = Network::new(2, &SHAPE);
    assert!(!Path::new("/run/netns").join(&name).exists());
    drop(network);
}

/// A megabyte by TCP from the first host to the second.
fn transfer(shape: &Shape) {
    let network = match Network::new(2, shape) {
        Ok(network) => network,
        Err(why) => return skipped(&format!("this machine gives no links: {why}")),
    };
    let listener = network.host(1).run(|| TcpListener::bind((network.host(1).address(), 0)).unwrap());
    let start = Instant::now();
    let mut sender = network.host(0).run(|| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    assert!(start.elapsed() >= 2 * shape.delay, "connected after {:?}", start.elapsed());
    let (mut receiver, _) = listener.accept().unwrap();

    let (bytes, start) = (random_bytes(LENGTH, 1), Instant::now());
    let mut received = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            sender.write_all(&bytes).unwrap();
            drop(sender);
        });
        receiver.read_to_end(&mut received).unwrap();
    });
    let least = Duration::from_secs_f64(LENGTH as f64 / shape.up as f64) + shape.delay;
    assert!(start.elapsed() >= least, "{:?}, but the uplink alone takes {least:?}", start.elapsed());
    assert!(received == bytes, "what came differs");

    let meters = network.meters();
    assert!(meters[0].sent_bytes > LENGTH as u64 && meters[1].received_bytes > LENGTH as u64, "{meters:?}");
    assert!(meters[1].first_received_at.is_some_and(|at| at >= start), "{meters:?}");
}
