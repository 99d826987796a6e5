//! The harness of the end-to-end tests, the demo, the benchmark and the torture run: real processes, real
//! sockets, temporary directories, and peers that misbehave on purpose.
//!
//! A [`Scene`] owns a temporary directory and remembers the output of every process in it; when its test
//! fails, it prints all of it. A [`Deployment`] is a scene with a tracker and members. Every wait has a
//! deadline and a condition; nothing sleeps for a while and hopes. Everything ends with the value that started it.

pub mod capture;
pub mod client;
pub mod crowd;
pub mod deployment;
pub mod disks;
pub mod files;
pub mod foreign_tracker;
pub mod hosts;
pub mod kill_points;
pub mod links;
pub mod postgres;
pub mod running;
pub mod scene;
pub mod stock;
pub mod terminal;
pub mod tracker;
pub mod waiting;
pub mod wire_announce;
pub mod wire_leecher;
pub mod wire_link;
pub mod wire_member;
pub mod wire_seeder;

pub use client::Client;
pub use deployment::{Deployment, GROUP};
pub use running::{Finished, Running};
pub use scene::{Programs, Scene};
pub use tracker::Tracker;
pub use waiting::{DEADLINE, UNREACHABLE, eventually, eventually_within, holds_for, in_time};
pub use wire_member::{Content, WireMember};
pub use wire_seeder::{Conduct, WireSeeder};

/// The piece length of everything that is shared, in bytes: P of the contract.
pub const P: u64 = mini_torrent_common::geometry::PIECE_LENGTH as u64;

/// The programs of this package's own binaries; only an integration test can name them.
#[macro_export]
macro_rules! programs {
    () => {
        $crate::Programs::new(env!("CARGO_BIN_EXE_client-under-test"), env!("CARGO_BIN_EXE_tracker-under-test"))
    };
}
