//! The least that a program can do that moves a file between members: TLS with keys, SHA-1 of each piece, no protocol, no
//! checks of who is who. What it reaches is what the machine allows; `bench` runs it beside the real programs.
//!
//! usage: bare serve FILE | bare fetch ADDRESS FILE
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program to measure against, run by the benchmark alone"
)]

use mini_torrent_common::hash::Sha1Hash;
use mini_torrent_common::tls::{self, Identity};
use rustls::{ClientConnection, ServerConnection, Stream};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

const PIECE_LENGTH: usize = 512 * 1024;
/// What is read from the file and handed to TLS at once.
const READ_LENGTH: usize = 256 * 1024;
/// What TLS may hold back.
const TLS_BUFFER: usize = 1024 * 1024;
/// Threads that hash and write.
const N_WORKERS: usize = 2;
/// Pieces that wait for them.
const QUEUE: usize = 16;

fn identity(byte: u8) -> Identity {
    Identity::from_seed(&[byte; tls::SEED_LENGTH]).unwrap()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", file] => serve(file),
        ["fetch", address, file] => fetch(address, file),
        other => panic!("usage: bare serve FILE | bare fetch ADDRESS FILE, not {other:?}"),
    }
}

fn serve(path: &str) {
    let config = Arc::new(tls::peer_server_config(&identity(1)).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    for socket in listener.incoming() {
        let (mut socket, config, path) = (socket.unwrap(), Arc::clone(&config), path.to_owned());
        thread::spawn(move || {
            socket.set_nodelay(true).unwrap();
            let mut connection = ServerConnection::new(config).unwrap();
            connection.set_buffer_limit(Some(TLS_BUFFER));
            let mut stream = Stream::new(&mut connection, &mut socket);
            let file = File::open(path).unwrap();
            let length = file.metadata().unwrap().len();
            stream.write_all(&length.to_le_bytes()).unwrap();
            let (mut buffer, mut offset) = (vec![0; READ_LENGTH], 0);
            while offset < length {
                let n = file.read_at(&mut buffer, offset).unwrap();
                stream.write_all(&buffer[..n]).unwrap();
                offset += n as u64;
            }
            stream.flush().unwrap();
        });
    }
}

fn fetch(address: &str, path: &str) {
    let mut socket = TcpStream::connect(address).unwrap();
    let config = Arc::new(tls::peer_client_config(&identity(2)).unwrap());
    let mut connection = ClientConnection::new(config, tls::unnamed_server()).unwrap();
    let mut stream = Stream::new(&mut connection, &mut socket);
    let mut length = [0; 8];
    stream.read_exact(&mut length).unwrap();
    let length = u64::from_le_bytes(length);
    let file = File::create(path).unwrap();
    file.set_len(length).unwrap();
    let (pieces, taken) = mpsc::sync_channel::<(u64, Vec<u8>)>(QUEUE);
    let (spare, spares) = mpsc::sync_channel::<Vec<u8>>(2 * QUEUE);
    let taken = Mutex::new(taken);
    let digest = thread::scope(|scope| {
        let work = || {
            let mut seen = 0;
            loop {
                let piece = taken.lock().unwrap().recv();
                let Ok((offset, bytes)) = piece else { return seen };
                seen ^= Sha1Hash::of(&bytes).0[0];
                file.write_all_at(&bytes, offset).unwrap();
                // Whoever reads may have ended, or has enough.
                let _ = spare.try_send(bytes);
            }
        };
        let workers: Vec<_> = (0..N_WORKERS).map(|_| scope.spawn(work)).collect();
        let mut offset = 0;
        while offset < length {
            let mut piece = spares.try_recv().unwrap_or_default();
            piece.resize(usize::try_from(length - offset).unwrap_or(usize::MAX).min(PIECE_LENGTH), 0);
            stream.read_exact(&mut piece).unwrap();
            let next = offset + piece.len() as u64;
            pieces.send((offset, piece)).unwrap();
            offset = next;
        }
        drop(pieces);
        workers.into_iter().map(|worker| worker.join().unwrap()).fold(0, |all, seen| all ^ seen)
    });
    println!("complete {digest}");
    // Stays, so that its figures can be read, until it is ended.
    let _ = std::io::stdin().read(&mut [0]);
}
