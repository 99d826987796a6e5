//! Strangers at both ports: random bytes, truncated and oversized frames, slow and silent connections. Others
//! are served meanwhile and memory stays bounded (issues 2 and 4, "What bad input gets"; C9, B8).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_common::hash::{InfoHash, PeerId};
use mini_torrent_common::peer_wire::{BlockRange, Handshake, Message};
use mini_torrent_common::tls;
use mini_torrent_tests::files::{assert_same, random_bytes, random_file};
use mini_torrent_tests::wire_leecher::WireLeecher;
use mini_torrent_tests::wire_member::Seed;
use mini_torrent_tests::{Client, DEADLINE, Deployment, GROUP, P, Running, UNREACHABLE, WireMember, in_time, programs};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How much more memory a process may take while it is mistreated.
const MAX_GROWTH: u64 = 48 << 20;
/// How much memory a tracker may take whose 16,384 connections all have begun a head of 8 KiB.
const MAX_FLOODED: u64 = 400 << 20;
/// Until when a connection that says nothing sensible must be closed: design §3.
const UNDECIDED: Duration = Duration::from_secs(10);

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// Waits until the other side has closed the connection.
fn wait_closed(socket: &mut TcpStream, promise: Duration) {
    in_time(promise, "the connection is closed", || {
        let mut buffer = [0; 4096];
        while matches!(socket.read(&mut buffer), Ok(n) if n > 0) {}
    });
}

/// Runs `mistreat` and checks that the program's memory does not grow beyond the bound.
fn with_bounded_memory(running: &Running, mistreat: impl FnOnce()) {
    let before = running.memory();
    mistreat();
    let growth = running.peak_memory().saturating_sub(before);
    assert!(growth < MAX_GROWTH, "{} MiB more", growth >> 20);
}

/// Two members, the first sharing `file`; the address of its peer port and a right handshake for it.
fn sharing() -> (Deployment, SocketAddr, Handshake) {
    let mut deployment = Deployment::of(programs!(), 2);
    let ann = &mut deployment.clients[0];
    let file = random_file(ann.path("file"), 4 * P, 1);
    let answer = ann.upload(&file, GROUP);
    let info_hash: InfoHash = answer["info_hash"].as_str().unwrap().parse().unwrap();
    let address = ann.address();
    (deployment, address, Handshake { info_hash, peer_id: PeerId([7; 20]), fast: true, extended: true })
}

/// The file still goes from one member to the other.
fn assert_served(deployment: &mut Deployment) {
    let (ann, bob) = deployment.pair();
    assert_same(ann.path("file"), bob.download(GROUP, "file"));
}

/// C9: random bytes, whole and cut short.
#[test]
fn c9_random_bytes_harm_neither_port() {
    let (mut deployment, peer_port, _) = sharing();
    let tracker_port = deployment.tracker.address();
    for (running, address) in
        [(deployment.tracker.running(), tracker_port), (deployment.clients[0].running(), peer_port)]
    {
        with_bounded_memory(running, || {
            for seed in 0..150u16 {
                let mut socket = connect(address);
                let _ = socket.write_all(&random_bytes(usize::from(seed) * 13 % 900, u64::from(seed)));
                if seed % 3 == 0 {
                    let _ = socket.shutdown(Shutdown::Write);
                }
            }
        });
    }
    assert_served(&mut deployment);
}

/// How a member's TLS begins.
fn client_hello() -> Vec<u8> {
    let config = tls::peer_client_config(&Seed::random().identity()).unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), tls::unnamed_server()).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// C9: a TLS handshake, an HTTP request and a plain handshake, each cut at every length.
#[test]
fn c9_truncated_openings_harm_neither_port() {
    let (mut deployment, peer_port, handshake) = sharing();
    let tracker_port = deployment.tracker.address();
    for opening in [client_hello(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), handshake.encode().to_vec()] {
        for length in 0..opening.len() {
            for address in [tracker_port, peer_port] {
                let mut socket = connect(address);
                let _ = socket.write_all(&opening[..length]);
                let _ = socket.shutdown(Shutdown::Write);
            }
        }
    }
    assert_served(&mut deployment);
}

/// C9: a control frame that announces 4 GiB is refused at its header, before and after sign-in.
#[test]
fn c9_control_frames_of_4_gib_are_refused() {
    let (mut deployment, ..) = sharing();
    let address = deployment.tracker.address();
    with_bounded_memory(deployment.tracker.running(), || {
        for nth in 0..20 {
            let mut member = WireMember::connect(address, 1).unwrap();
            if nth == 0 {
                member.sign_up("zed", "password-1");
            }
            member.write_raw(&[0xff; 4]).unwrap();
            let _ = member.write_raw(&[0; 1024]);
            while member.read().is_ok() {}
        }
    });
    assert_served(&mut deployment);
}

/// C9: before sign-in a frame has 4 KiB at most; no message may come before `Hello`; rubbish in a frame ends
/// the connection.
#[test]
fn c9_malformed_frames_end_their_connection() {
    let (mut deployment, ..) = sharing();
    let address = deployment.tracker.address();
    let frame = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat();
    for bytes in [frame(&[0; 5000]), frame(&[]), frame(&[0xff; 100]), frame(&[1, 0, 0]), frame(&[0; 30])] {
        for said_hello in [false, true] {
            let mut member = match said_hello {
                true => WireMember::connect(address, 1).unwrap(),
                false => WireMember::connect_silently(address, Seed::random()).unwrap(),
            };
            let _ = member.write_raw(&bytes);
            while member.read().is_ok() {}
        }
    }
    assert_served(&mut deployment);
}

/// Versions that do not meet are told apart from failures.
#[test]
fn incompatible_versions_are_told() {
    use mini_torrent_common::control::{ClientMessage, Hello, TrackerMessage};
    use mini_torrent_common::error_code::ErrorCode;
    let deployment = Deployment::empty(programs!());
    let mut member = WireMember::connect_silently(deployment.tracker.address(), Seed::random()).unwrap();
    let (peer_id, agent) = (member.peer_id(), "x".to_owned());
    let hello = Hello { min_version: 900, max_version: 901, agent, peer_id, listen_port: 1 };
    member.write(ClientMessage::Hello(hello)).unwrap();
    match member.read().unwrap() {
        TrackerMessage::Goodbye(refusal) => assert_eq!(refusal.code, ErrorCode::IncompatibleVersion),
        other => panic!("{other:?}"),
    }
}

/// Slow-loris: a byte now and then does not hold a connection open beyond its time.
#[test]
fn slow_openings_are_closed_in_time() {
    let (mut deployment, peer_port, handshake) = sharing();
    let opening = handshake.encode();
    std::thread::scope(|scope| {
        for (address, bytes) in [(deployment.tracker.address(), &[0x16, 3, 1, 1][..]), (peer_port, &opening[..])] {
            scope.spawn(move || {
                let mut sockets: Vec<TcpStream> = (0..20).map(|_| connect(address)).collect();
                for (nth, socket) in sockets.iter_mut().enumerate() {
                    let _ = socket.write_all(&bytes[..nth % bytes.len()]);
                }
                sockets.iter_mut().for_each(|socket| wait_closed(socket, UNDECIDED));
            });
        }
        let tracker_port = deployment.tracker.address();
        scope.spawn(move || {
            let mut member = WireMember::connect_silently(tracker_port, Seed::random()).unwrap();
            member.shake_hands().unwrap();
            in_time(UNDECIDED, "who says no hello is closed", || while member.read().is_ok() {});
        });
        scope.spawn(|| assert_served(&mut deployment));
    });
}

/// Ends what other threads do in a loop, also when the test fails.
struct EndWhenDropped<'a>(&'a AtomicBool);

impl Drop for EndWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Issue 4: announces without a right key and URLs of 64 KiB by the thousand, heads that never end, noise by UDP, all at
/// once: members are served meanwhile, and memory is bounded.
#[test]
fn floods_of_http_and_udp_keep_nobody_out() {
    let (mut deployment, ..) = sharing();
    let address = deployment.tracker.address();
    let over = AtomicBool::new(false);
    let announces = format!("GET /{}/announce?info_hash=x HTTP/1.1\r\n\r\n", "0".repeat(32)).repeat(50);
    let long = format!("GET /announce?{} HTTP/1.1\r\n\r\n", "x".repeat(64 * 1024));
    let begun: Vec<TcpStream> = (0..200).map(|_| connect(address)).collect();
    for mut socket in &begun {
        socket.write_all(format!("GET /announce HTTP/1.1\r\nX: {}", "x".repeat(7000)).as_bytes()).unwrap();
    }
    std::thread::scope(|scope| {
        let _end = EndWhenDropped(&over);
        for request in [&announces, &long] {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // The tracker closes when it has had enough.
                    let _ = ask_and_leave(address, request.as_bytes());
                }
            });
        }
        scope.spawn(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            for (seed, length) in (0..).zip((16..200).cycle()).take_while(|_| !over.load(Ordering::Relaxed)) {
                let _ = socket.send_to(&random_bytes(length, seed), address);
            }
            socket.set_nonblocking(true).unwrap();
            assert!(socket.recv(&mut [0; 2048]).is_err(), "noise was answered");
        });
        assert_served(&mut deployment);
        let mut late = Client::start(&deployment.scene, &deployment.tracker, "late");
        late.sign_up("late");
    });
    let memory = deployment.tracker.running().peak_memory();
    assert!(memory < MAX_FLOODED, "{} MiB", memory >> 20);
    deployment.clients[1].expect_ok(&format!("list_files {GROUP}"));
}

/// Sends, and takes whatever comes until the other side has closed the connection.
fn ask_and_leave(address: SocketAddr, request: &[u8]) -> std::io::Result<()> {
    let mut socket = connect(address);
    socket.write_all(request)?;
    socket.shutdown(Shutdown::Write)?;
    std::io::copy(&mut socket, &mut std::io::sink()).map(drop)
}

/// Half-closed connections are closed.
#[test]
fn half_closed_connections_are_closed() {
    let (mut deployment, peer_port, _) = sharing();
    for address in [deployment.tracker.address(), peer_port] {
        let mut socket = connect(address);
        socket.shutdown(Shutdown::Write).unwrap();
        wait_closed(&mut socket, UNDECIDED);
    }
    assert_served(&mut deployment);
}

/// Hundreds of silent connections (5,000 in the torture run) do not keep members out.
#[test]
fn silent_connections_keep_nobody_out() {
    mini_torrent_tests::crowd::raise_file_limit();
    let (mut deployment, peer_port, _) = sharing();
    let (tracker_port, n) = (deployment.tracker.address(), 500);
    let crowd = mini_torrent_tests::crowd::Crowd::at(&[tracker_port, peer_port], n);
    assert_served(&mut deployment);
    let mut late = Client::start(&deployment.scene, &deployment.tracker, "late");
    late.sign_up("late");
    for running in [deployment.tracker.running(), deployment.clients[0].running()] {
        assert!(running.memory() < 200 << 20, "{} MiB", running.memory() >> 20);
    }
    drop(crowd);
}

/// B8: a member that sends lengths of 4 GiB, requests out of range, bitfields of the wrong length, blocks that
/// nobody asked for: its connection ends, memory stays bounded, the seeder serves on.
#[test]
fn b8_hostile_peer_messages_end_their_connection() {
    let (mut deployment, ..) = sharing();
    let mut eve = WireLeecher::join(&mut deployment, "eve", "file");
    let request = |index: u32, begin: u32, length: u32| {
        [&13u32.to_be_bytes()[..], &[6], &index.to_be_bytes(), &begin.to_be_bytes(), &length.to_be_bytes()].concat()
    };
    let cases = [
        ("a length of 4 GiB", vec![0xff; 64]),
        ("an extension message of 4 GiB", [&0xffff_fffeu32.to_be_bytes()[..], &[20], &[0; 32]].concat()),
        ("a bitfield that is too long", [&100u32.to_be_bytes()[..], &[5], &[0xff; 99]].concat()),
        ("spare bits", [&2u32.to_be_bytes()[..], &[5], &[0xff]].concat()),
        ("have without an index", vec![0, 0, 0, 1, 4]),
        ("have of no piece", [&[0, 0, 0, 5, 4][..], &9u32.to_be_bytes()].concat()),
        ("a request beyond the last piece", request(4, 0, 16384)),
        ("a request beyond everything", request(u32::MAX, u32::MAX, u32::MAX)),
        ("a request across pieces", request(0, 512 * 1024 - 1, 16384)),
        ("a request of 1 MiB", request(0, 0, 1 << 20)),
        ("an empty request", request(0, 0, 0)),
        ("an extension handshake of rubbish", [&[0, 0, 0, 100, 20, 0][..], &[b'd'; 98]].concat()),
    ];
    let before = deployment.clients[0].running().memory();
    let mut n = 0;
    for (what, bytes) in &cases {
        let _ = eve.send_raw(bytes);
        assert!(eve.is_closed(), "not closed after {what}");
        // Whoever misbehaves may be turned away for good; the next one is somebody else.
        n += 1;
        eve = WireLeecher::join(&mut deployment, &format!("eve{n}"), "file");
    }
    let growth = deployment.clients[0].running().peak_memory().saturating_sub(before);
    assert!(growth < MAX_GROWTH, "{} MiB more", growth >> 20);
    assert_served(&mut deployment);
}

/// A member that asks for everything again and again and reads nothing: what is sent to it is bounded.
#[test]
fn a_peer_that_does_not_read_is_not_buffered_for() {
    let (mut deployment, ..) = sharing();
    let mut eve = WireLeecher::join(&mut deployment, "eve", "file");
    let before = deployment.clients[0].running().memory();
    let blocks = (0..4u32).flat_map(|index| (0..32u32).map(move |nth| (index, nth * 16384)));
    let requests: Vec<Message> =
        blocks.map(|(index, begin)| Message::Request(BlockRange { index, begin, length: 16384 })).collect();
    // 200 times the file; it ends early when the client has had enough.
    let flooding = std::thread::spawn(move || {
        let _ = (0..200).try_for_each(|_| eve.send(&requests));
        eve
    });
    assert_served(&mut deployment);
    let growth = deployment.clients[0].running().peak_memory().saturating_sub(before);
    assert!(growth < MAX_GROWTH, "{} MiB more", growth >> 20);
    drop(deployment);
    flooding.join().unwrap();
}

/// A member's handshake for a swarm that the client does not share is turned away.
#[test]
fn b5_unknown_swarms_are_turned_away() {
    let (mut deployment, peer_port, handshake) = sharing();
    let mut zed = deployment.add_wire_member("zed", 1);
    let group = zed.group_id(GROUP);
    let unknown = Handshake { info_hash: InfoHash([9; 20]), ..handshake };
    let link = zed.pass(group).dial(peer_port, deployment.clients[0].key()).unwrap();
    link.send(&unknown.encode()).unwrap();
    let answer = link.wait_closed();
    assert!(answer.is_empty(), "it says nothing: {answer:?}");
    assert_served(&mut deployment);
}

/// Requests without reading their answers: the tracker stops listening to that member, not to others.
#[test]
fn a_member_that_does_not_read_is_not_buffered_for() {
    use mini_torrent_common::control::Request;
    let (mut deployment, ..) = sharing();
    let address = deployment.tracker.address();
    let mut flood = WireMember::connect(address, 1).unwrap();
    flood.sign_up("zed", "password-1");
    let flooding = std::thread::spawn(move || {
        let start = Instant::now();
        // It ends when the tracker closes the connection, or when nobody took a request for a while.
        while start.elapsed() < Duration::from_secs(3) && flood.send(Request::ListGroups { after: None }).is_ok() {}
    });
    assert_served(&mut deployment);
    let memory = deployment.tracker.running().peak_memory();
    assert!(memory < 300 << 20, "{} MiB", memory >> 20);
    drop(deployment);
    flooding.join().unwrap();
}

/// Something that is no tracker behind the tracker's address: unreachable, and the client lives.
#[test]
fn a_tracker_that_talks_rubbish_is_unreachable() {
    let scene = mini_torrent_tests::Scene::new(programs!());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (seed, socket) in (0..).zip(listener.incoming().flatten()) {
            let mut socket = socket;
            let _ = socket.write_all(&random_bytes(3000, seed));
        }
    });
    let info = scene.write("rubbish.txt", format!("{address}\n"));
    let mut client = Client::start_with(&scene, &info, mini_torrent_tests::client::ClientSettings::new("ann"));
    in_time(UNREACHABLE, "unreachable", || client.expect_error("create_user ann password-1", "tracker_unreachable"));
    client.expect_error("list_groups", "not_logged_in");
}
