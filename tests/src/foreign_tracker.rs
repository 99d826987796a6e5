//! A tracker that is not ours: plain HTTP, no keys. It tells each peer of the others, or says whatever a test wants.

use crate::waiting::eventually;
use mini_torrent_common::announce::{AnnounceRequest, Contact, Counts, Event, Reply};
use mini_torrent_common::hash::PeerId;
use rustix::net::{Shutdown, shutdown};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a client has for its request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest request that is read, in bytes.
const MAX_REQUEST_LENGTH: usize = 16 * 1024;

/// What it answers.
#[derive(Debug, Clone)]
pub enum Answers {
    /// The other peers, in 6 bytes each (BEP 23).
    Compact,
    /// The other peers, a dictionary each (BEP 3).
    Dictionaries,
    /// These bytes, whatever was asked.
    Fixed(Vec<u8>),
}

/// A running tracker; dropped, it ends.
#[derive(Debug)]
pub struct ForeignTracker {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    answers: Answers,
    asked: Mutex<Vec<AnnounceRequest>>,
    peers: Mutex<BTreeMap<PeerId, SocketAddr>>,
}

impl ForeignTracker {
    /// Starts one on a free port of loopback.
    pub fn start(answers: Answers) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), answers)
    }

    /// Starts one on a free port of this address.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn start_at(address: IpAddr, answers: Answers) -> Self {
        let listener = Arc::new(TcpListener::bind((address, 0)).expect("a free port"));
        let address = listener.local_addr().expect("a bound listener");
        let shared = Arc::new(Shared { answers, asked: Mutex::default(), peers: Mutex::default() });
        let accepting = std::thread::spawn({
            let (listener, shared) = (Arc::clone(&listener), Arc::clone(&shared));
            move || {
                while let Ok((stream, _)) = listener.accept() {
                    // A client that goes away has what it wants.
                    let _ = shared.serve(stream);
                }
            }
        });
        Self { address, listener, shared, accepting: Some(accepting) }
    }

    /// Where torrents say that it is.
    pub fn url(&self) -> String {
        format!("http://{}/announce", self.address)
    }

    /// Every announce so far, in order.
    pub fn asked(&self) -> Vec<AnnounceRequest> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for an announce of the client that listens on this port.
    pub fn wait_asked(&self, port: u16, event: Event) -> AnnounceRequest {
        let is_meant = |request: &AnnounceRequest| request.port == port && request.event == event;
        eventually(&format!("{event:?} of the client on port {port}"), || self.asked().into_iter().find(is_meant))
    }
}

impl Drop for ForeignTracker {
    fn drop(&mut self) {
        // Wakes up the thread that accepts, also where nothing can be sent to its address.
        if shutdown(&*self.listener, Shutdown::Both).is_ok()
            && let Some(accepting) = self.accepting.take()
        {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let source = stream.peer_addr()?;
        let mut head = Vec::new();
        let mut buffer = [0; 4096];
        while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_REQUEST_LENGTH {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                n => head.extend_from_slice(&buffer[..n]),
            }
        }
        let target = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let query = target.splitn(2, |byte| *byte == b'?').nth(1).unwrap_or_default();
        let answer = match AnnounceRequest::from_query(query) {
            Ok(request) => self.answer(&request, SocketAddr::new(source.ip(), request.port)),
            Err(error) => whole(format!("d14:failure reason{}:{error}e", error.to_string().len()).as_bytes()),
        };
        stream.write_all(&answer)
    }

    fn answer(&self, request: &AnnounceRequest, address: SocketAddr) -> Vec<u8> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(*request);
        let mut known = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        match request.event {
            Event::Stopped => known.remove(&request.peer_id),
            _ => known.insert(request.peer_id, address),
        };
        let others = known.iter().filter(|(id, _)| **id != request.peer_id);
        let peers: Vec<_> = others.map(|(id, address)| Contact { address: *address, peer_id: Some(*id) }).collect();
        let reply =
            Reply { interval_s: 1, min_interval_s: None, counts: Counts::default(), warning: None, peers: &peers };
        let mut body = Vec::new();
        match &self.answers {
            Answers::Fixed(answer) => return answer.clone(),
            Answers::Compact => reply.write_compact(&mut body),
            Answers::Dictionaries => reply.write_dictionaries(&mut body),
        }
        whole(&body)
    }
}

/// An HTTP answer with this body.
fn whole(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}
