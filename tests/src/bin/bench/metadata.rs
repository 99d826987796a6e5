//! The metadata of a file of 1 TiB, 40 MiB of hashes: listing it, beginning to fetch it, and what each connected peer
//! costs then. Nobody has a byte of the file.

use crate::Bench;
use crate::figures::{Figures, Goal};
use crate::members::members_online;
use crate::transfers::{long_answer, mib};
use bytes::Bytes;
use mini_torrent_common::geometry::PIECE_LENGTH;
use mini_torrent_common::hash::InfoHash;
use mini_torrent_common::peer_wire::{Handshake, Message};
use mini_torrent_tests::client::ClientSettings;
use mini_torrent_tests::disks::scene_with_disk;
use mini_torrent_tests::files::random_bytes;
use mini_torrent_tests::wire_link::WireLink;
use mini_torrent_tests::wire_member::vast_draft;
use mini_torrent_tests::{Client, Deployment, GROUP, WireMember, eventually};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Length of the file in bytes.
const LENGTH: u64 = 1 << 40;
const N_PIECES: u32 = 1 << 21;
/// Its name, which [`vast_draft`] chose.
const FILE: &str = "vast";
/// Most that a peer may add to what is resident, in MiB: far from another copy of the metadata.
const MAX_MIB_PER_PEER: f64 = 2.0;

/// Lists the file, begins to fetch it, and connects peers, each of which says that it has half of the pieces.
pub(crate) fn metadata(bench: &Bench, figures: &mut Figures) {
    assert_eq!(u64::from(N_PIECES) * u64::from(PIECE_LENGTH), LENGTH);
    let mut deployment = Deployment::on(bench.scene());
    let disk = deployment.scene.make_dir("disk");
    let owner = owner_with_disk(&deployment, &disk);
    deployment.clients.push(owner);
    let mut uploader = deployment.add_wire_member("uploader", 9);
    let info_hash = list(&mut uploader, figures);
    let (tracker, client) = (deployment.tracker.address(), &mut deployment.clients[0]);
    let names: Vec<String> = (0..bench.options.peers.max(1)).map(|nth| format!("peer{nth}")).collect();
    let accept = |user: &str| drop(client.expect_ok(&format!("accept_request {GROUP} {user}")));
    let mut members = members_online(tracker, &names, accept);
    begin(client, disk.join(FILE), figures);
    connect_all(client, &mut members, info_hash, figures);
    let peak = mib(deployment.tracker.running().peak_memory());
    figures.add("1 TiB: tracker, peak resident", "MiB", Goal::None, peak);
}

/// The owner of the group, with a file system that promises to hold the file. Where it cannot have one, its download
/// waits for room; it takes connections all the same.
fn owner_with_disk(deployment: &Deployment, disk: &Path) -> Client {
    let scene = scene_with_disk(&deployment.scene, disk, 2 * LENGTH).unwrap_or_else(|| Arc::clone(&deployment.scene));
    let mut client = Client::start_with(&scene, deployment.tracker.info_file(), ClientSettings::new("owner"));
    client.sign_up("owner");
    client.expect_ok(&format!("create_group {GROUP}"));
    client
}

/// Lists the file with hashes that are made up.
fn list(uploader: &mut WireMember, figures: &mut Figures) -> InfoHash {
    let (draft, raw) = vast_draft(uploader.group_id(GROUP), LENGTH);
    let info_hash = draft.info_hash;
    figures.add("1 TiB: length of the metadata", "MiB", Goal::None, mib(raw.len() as u64));
    let start = Instant::now();
    uploader.offer(GROUP, draft, &raw).expect("the tracker lists it");
    figures.add("1 TiB: from the offer until it is listed", "s", Goal::None, start.elapsed().as_secs_f64());
    info_hash
}

/// From the command to its reply.
fn begin(client: &mut Client, destination: PathBuf, figures: &mut Figures) {
    let start = Instant::now();
    client.send(&format!("download_file {GROUP} {FILE} {}", destination.display()));
    let answer = long_answer(client);
    let elapsed = start.elapsed().as_secs_f64();
    assert_eq!(answer["ok"], true, "{answer}");
    figures.add("1 TiB: download_file until its reply", "s", Goal::None, elapsed);
}

/// What is resident without a peer and with all of them.
fn connect_all(client: &mut Client, members: &mut [WireMember], info_hash: InfoHash, figures: &mut Figures) {
    // Who hears what the client has knows that its torrent runs.
    drop(connect(client, &mut members[0], info_hash));
    wait_peers(client, 0);
    let resident = |client: &Client| mib(client.running().memory());
    let (alone, cpu_before) = (resident(client), client.running().cpu_time());
    let each = members.iter_mut().zip(1u64..);
    let links: Vec<WireLink> = each.map(|(member, nth)| connect_with_pieces(client, member, info_hash, nth)).collect();
    wait_peers(client, links.len());
    let (full, cpu) = (resident(client), client.running().cpu_time() - cpu_before);
    let n = links.len() as f64;
    drop(links);
    wait_peers(client, 0);
    figures.add("1 TiB: client, resident without a peer", "MiB", Goal::None, alone);
    figures.add(&format!("1 TiB: client, resident with {n} peers"), "MiB", Goal::None, full);
    figures.add("1 TiB: each peer", "MiB", Goal::AtMost(MAX_MIB_PER_PEER), (full - alone) / n);
    figures.add("1 TiB: client, CPU for each peer", "ms", Goal::None, cpu.as_secs_f64() * 1e3 / n);
    figures.add("1 TiB: client, resident when they have left", "MiB", Goal::None, resident(client));
    figures.add("1 TiB: client, peak resident", "MiB", Goal::None, mib(client.running().peak_memory()));
}

fn wait_peers(client: &mut Client, n: usize) {
    eventually(&format!("the client has {n} peers"), || (client.shown(GROUP, FILE)["peers"] == n).then_some(()));
}

/// Connects a member that has nothing, and waits until it hears the same of the client.
fn connect(client: &Client, member: &mut WireMember, info_hash: InfoHash) -> WireLink {
    let group = member.group_id(GROUP);
    let link = member.pass(group).dial(client.address(), client.key()).expect("the client admits a member");
    let ours = Handshake { info_hash, peer_id: member.peer_id(), fast: true, extended: true };
    link.send(&ours.encode()).expect("the client listens");
    link.read_handshake().expect("the client answers");
    wait_message(&link, &Message::HaveNone);
    link
}

/// Connects a member that has about half of the pieces, and waits until the client wants them. It serves none.
fn connect_with_pieces(client: &Client, member: &mut WireMember, info_hash: InfoHash, nth: u64) -> WireLink {
    let link = connect(client, member, info_hash);
    let pieces = random_bytes(N_PIECES as usize / 8, nth);
    link.send_messages(&[Message::Bitfield(Bytes::from(pieces))]).expect("the client listens");
    wait_message(&link, &Message::Interested);
    link
}

fn wait_message(link: &WireLink, awaited: &Message) {
    while link.read_message(N_PIECES).expect("the client goes on") != *awaited {}
}
