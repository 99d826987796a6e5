//! The driver of one torrent: events in, actions out. It decides nothing and never awaits outwards.

use bytes::Bytes;
use mini_torrent_common::address::may_dial;
use mini_torrent_common::bitfield::Bitfield;
use mini_torrent_common::control::PeerContact;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::geometry::PieceIndex;
use mini_torrent_common::hash::PeerId;
use mini_torrent_common::tls::PublicKey;
use mini_torrent_engine::{self as engine, Action, Candidate, ConnectionId, Direction, Event, PeerKey};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

mod admission;
mod extensions;
mod reporting;
mod storage;

use extensions::PeerExtensions;

use super::blocks::Blocks;
use super::preparation::reason_of;
use super::wire::{own_extended_handshake, to_engine, to_wire};
use super::{
    Control, IDLE_TIMEOUT, KEEP_INTERVAL, MAILBOX, Purpose, Report, STATUS_INTERVAL, TorrentPlan, TorrentStatus,
};
use crate::disk::{Content, Destination, FileStamp, PartFile, PieceOutcome, ReadError};
use crate::peer::{
    self, Closer, Connection, ConnectionEnd, Credential, MAX_QUEUED_REQUESTS, OpenPeer, PeerCommand, PeerError,
    QUEUED_BATCHES, TorrentName, Wire,
};

/// Inputs that are taken from the mailbox at once.
const BATCH: usize = 32;
/// Reports that wait for the node.
const MAX_REPORTS: usize = 16;

pub(super) struct Mailboxes {
    pub(super) control: mpsc::Receiver<Control>,
    pub(super) incoming: mpsc::Receiver<OpenPeer>,
    pub(super) reports: mpsc::Sender<(TorrentName, Report)>,
    pub(super) status: watch::Sender<TorrentStatus>,
}

/// What a task of ours brings back.
enum Finished {
    Checked(PieceIndex, PieceOutcome),
    Renamed(io::Result<FileStamp>),
}

/// How a torrent's task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was stopped, has failed, or has been idle.
    Over,
    /// Its partial file is not there any more: it begins with what it finds.
    FileLost,
}

/// The file that is served is not what it was.
pub(super) fn stale(purpose: &Purpose, reason: String) -> Report {
    match purpose {
        Purpose::Seed { stamp, .. } => Report::Stale(*stamp, reason),
        Purpose::Fetch(_) => Report::Failed(ErrorCode::FileChanged, reason),
    }
}

/// An open connection, as the torrent sees it.
struct Peer {
    commands: mpsc::Sender<Vec<PeerCommand>>,
    /// Commands of the round that is being handled.
    batch: Vec<PeerCommand>,
    closer: Closer,
    /// Its key, or what stands for it.
    key: PeerKey,
    credential: Credential,
    peer_id: PeerId,
    remote: SocketAddr,
    /// Whether its address is one that can be dialled.
    is_dialled: bool,
    fast: bool,
    extensions: PeerExtensions,
}

pub(super) struct Task {
    plan: TorrentPlan,
    mailboxes: Mailboxes,
    engine: engine::Torrent,
    content: Content,
    /// The partial file; nothing once it has its final name.
    part: Option<(PartFile, std::sync::Arc<Destination>)>,
    blocks: Blocks,
    /// The bytes of the block that the engine is deciding about.
    arrived: Option<Bytes>,
    peers: HashMap<ConnectionId, Peer>,
    /// Whom the tracker named; for the log, and for peers that leave.
    contacts: HashMap<PublicKey, PeerContact>,
    next_connection: u64,
    wire: mpsc::Sender<(ConnectionId, Wire)>,
    wire_receiver: mpsc::Receiver<(ConnectionId, Wire)>,
    connections: JoinSet<()>,
    dials: JoinSet<(PeerKey, Result<OpenPeer, PeerError>)>,
    work: JoinSet<Finished>,
    reports: VecDeque<Report>,
    /// Why nothing is fetched just now, and when to try again.
    obstacle: Option<(String, Instant)>,
    /// Why the last peer that we dialled could not be had, if none could since.
    refusal: Option<String>,
    told_verified: u32,
    told_at: Instant,
    /// When peers were told of peers last (BEP 11).
    exchanged_at: Instant,
    idle_since: Instant,
    /// Set when the task has to end.
    end: Option<End>,
}

impl Task {
    pub(super) fn new(
        plan: TorrentPlan,
        mailboxes: Mailboxes,
        content: Content,
        part: Option<(PartFile, Destination)>,
        have: Bitfield,
    ) -> Self {
        let limits = engine::Limits {
            queued_requests: MAX_QUEUED_REQUESTS as usize,
            buffered_bytes: plan.buffer_bytes,
            dial_timeout: peer::CONNECT_TIMEOUT + 2 * peer::HANDSHAKE_TIMEOUT,
            ..engine::Limits::default()
        };
        let piece_order = match &plan.purpose {
            Purpose::Fetch(fetch) => fetch.piece_order,
            Purpose::Seed { .. } => engine::PieceOrder::default(),
        };
        let config = engine::Config {
            geometry: plan.geometry,
            have,
            own_key: PeerKey(plan.own_key.0),
            piece_order,
            limits,
            seed: rand::random(),
        };
        let now = Instant::now();
        let (wire, wire_receiver) = mpsc::channel(MAILBOX);
        Self {
            engine: engine::Torrent::new(config, now),
            plan,
            mailboxes,
            content,
            part: part.map(|(part, destination)| (part, std::sync::Arc::new(destination))),
            blocks: Blocks::default(),
            arrived: None,
            peers: HashMap::new(),
            contacts: HashMap::new(),
            next_connection: 0,
            wire,
            wire_receiver,
            connections: JoinSet::new(),
            dials: JoinSet::new(),
            work: JoinSet::new(),
            reports: VecDeque::new(),
            obstacle: None,
            refusal: None,
            told_verified: u32::MAX,
            told_at: now,
            exchanged_at: now,
            idle_since: now,
            end: None,
        }
    }

    pub(super) async fn run(mut self, stop: &CancellationToken) -> (End, Mailboxes) {
        self.begin();
        let mut status = interval(STATUS_INTERVAL);
        status.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut inputs = Vec::with_capacity(BATCH);
        while !stop.is_cancelled() && self.end.is_none() && !self.is_idle() {
            let timeout = self.engine.poll_timeout();
            let timeout = async {
                match timeout {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                Some(control) = self.mailboxes.control.recv() => self.control(control),
                Some(peer) = self.mailboxes.incoming.recv() => self.connected(peer),
                Ok(()) = self.plan.opener.admissions.changed() => self.check_admissions(),
                _ = self.wire_receiver.recv_many(&mut inputs, BATCH) => {
                    inputs.drain(..).for_each(|(connection, wire)| self.received(connection, wire));
                }
                Some(Ok((key, dialled))) = self.dials.join_next() => self.dialled(key, dialled),
                Some(Ok(finished)) = self.work.join_next() => self.finished(finished),
                Some(_) = self.connections.join_next() => {}
                () = timeout => self.engine.handle_timeout(Instant::now()),
                _ = status.tick() => self.tick(),
            }
            self.act();
            self.flush();
        }
        self.wind_up().await
    }

    /// Closes all connections and keeps what was fetched.
    async fn wind_up(mut self) -> (End, Mailboxes) {
        self.peers.values().for_each(|peer| peer.closer.close());
        self.dials.abort_all();
        while let Some(finished) = self.work.join_next().await {
            match finished {
                Ok(Finished::Checked(piece, PieceOutcome::Verified(block_digests))) => {
                    self.engine.handle(Instant::now(), Event::PieceVerified { piece, block_digests });
                }
                Ok(Finished::Renamed(Ok(stamp))) => {
                    self.part = None;
                    self.reports.push_back(Report::Completed(stamp));
                }
                _ => {}
            }
        }
        self.wire_receiver.close();
        while self.connections.join_next().await.is_some() {}
        if let (Some((part, _)), None) = (&self.part, self.end) {
            let part = part.clone();
            let synced = tokio::task::spawn_blocking(move || part.sync()).await;
            tracing::debug!(?synced, "a partial file is flushed");
            self.tell_verified();
        }
        // The node waits for this task or is gone; it never waits in between.
        for report in self.reports {
            let _ = self.mailboxes.reports.send((self.plan.name, report)).await;
        }
        (self.end.unwrap_or(End::Over), self.mailboxes)
    }

    /// A group's torrent is started again by the next peer; a foreign one goes on announcing.
    fn is_idle(&self) -> bool {
        self.plan.foreign.is_none()
            && self.part.is_none()
            && self.peers.is_empty()
            && !self.plan.opener.admissions.borrow().stock.has_leechers(self.plan.name.info_hash)
            && self.reports.is_empty()
            && self.idle_since.elapsed() > IDLE_TIMEOUT
    }

    fn control(&mut self, control: Control) {
        let now = Instant::now();
        match control {
            Control::PeersCame(contacts) => {
                let reachable = contacts.iter().filter(|contact| may_dial(contact.address, self.plan.loopback));
                let candidate = |PeerContact { key, address, .. }: &PeerContact| {
                    // Members who lack the file dial those that have it.
                    Candidate { key: PeerKey(key.0), address: *address, dial_as_seeder: false }
                };
                let candidates = reachable.map(candidate).collect();
                self.contacts.extend(contacts.into_iter().map(|contact| (contact.key, contact)));
                self.engine.handle(now, Event::PeersFound(candidates));
            }
            Control::PeersLeft(keys) => {
                for key in keys {
                    self.contacts.remove(&key);
                    self.engine.handle(now, Event::PeerGone(PeerKey(key.0)));
                }
            }
            Control::AddressesCame(addresses) => self.addresses_came(&addresses),
            Control::AddressesLeft(addresses) => self.addresses_left(&addresses),
            Control::BufferBytes(bytes) => self.engine.limit_buffer(bytes),
        }
    }

    fn connected(&mut self, open: OpenPeer) {
        if self.is_surplus(&open) {
            return;
        }
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let (commands, command_receiver) = mpsc::channel(QUEUED_BATCHES);
        let closer = Closer::default();
        let remote = open.transport.remote;
        let (key, direction, fast) = (open.key, open.direction, open.fast);
        let peer = Peer {
            commands,
            batch: Vec::new(),
            closer: closer.clone(),
            key,
            credential: open.credential,
            peer_id: open.peer_id,
            remote,
            is_dialled: direction == Direction::Dialled,
            fast,
            extensions: PeerExtensions::default(),
        };
        self.peers.insert(id, peer);
        let connection = Connection {
            id,
            transport: open.transport,
            geometry: self.plan.geometry,
            content: self.content.clone(),
            commands: command_receiver,
            torrent: self.wire.clone(),
            closer,
        };
        self.connections.spawn(connection.run());
        tracing::debug!(%remote, ?direction, "a peer is connected");
        self.engine.handle(Instant::now(), Event::Connected { connection: id, key, direction, fast });
        // What we have comes first (BEP 3), then what we can (BEP 10).
        self.act();
        if open.extended {
            self.command(id, PeerCommand::Send(own_extended_handshake(self.plan.foreign.as_ref())));
        }
        // It may have been revoked while the connection was on its way here.
        self.check_admissions();
    }

    fn received(&mut self, connection: ConnectionId, wire: Wire) {
        let now = Instant::now();
        match wire {
            Wire::Received(messages) => {
                for message in messages {
                    self.extended(connection, &message);
                    let (message, block) = to_engine(message);
                    self.arrived = block;
                    self.engine.handle(now, Event::Received { connection, message });
                    self.act();
                    self.arrived = None;
                }
            }
            Wire::Served(blocks) => {
                blocks.into_iter().for_each(|block| self.engine.handle(now, Event::Served { connection, block }));
            }
            Wire::Closed(end) => self.closed(connection, end),
        }
    }

    fn closed(&mut self, connection: ConnectionId, end: ConnectionEnd) {
        let now = Instant::now();
        if let ConnectionEnd::Unreadable(ReadError::Stale) = end {
            self.report(stale(&self.plan.purpose, "it was changed or removed".to_owned()));
            self.end = Some(End::Over);
        }
        if let Some(peer) = self.peers.remove(&connection) {
            tracing::debug!(remote = %peer.remote, reason = %end, "a peer is disconnected");
            self.engine.handle(now, Event::Disconnected(connection));
        }
        self.idle_since = now;
    }

    fn finished(&mut self, finished: Finished) {
        let now = Instant::now();
        match finished {
            Finished::Checked(piece, PieceOutcome::Verified(block_digests)) => {
                self.engine.handle(now, Event::PieceVerified { piece, block_digests });
            }
            Finished::Checked(piece, PieceOutcome::Corrupt(block_digests)) => {
                tracing::warn!(piece = piece.get(), "a piece arrived with a wrong hash");
                self.engine.handle(now, Event::PieceCorrupt { piece, block_digests });
            }
            Finished::Checked(piece, PieceOutcome::Unwritten(error)) => {
                self.pause(reason_of(&error));
                self.engine.handle(now, Event::PieceLost { piece });
            }
            Finished::Renamed(Ok(stamp)) => {
                if let Some((_, destination)) = self.part.take() {
                    self.content.finished(destination.path(), stamp);
                }
                self.obstacle = None;
                self.idle_since = now;
                self.publish(now);
                self.report(Report::Completed(stamp));
            }
            Finished::Renamed(Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
                let text = "another file is at the destination now".to_owned();
                self.report(Report::Failed(ErrorCode::DestinationExists, text));
                self.end = Some(End::Over);
            }
            Finished::Renamed(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(%error, "a finished download begins anew");
                self.end = Some(End::FileLost);
            }
            Finished::Renamed(Err(error)) => self.pause(reason_of(&error)),
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.obstacle.as_ref().is_some_and(|(_, retry)| *retry <= now) {
            self.try_again();
        }
        self.check_admissions();
        self.tell_of_peers(now);
        self.publish(now);
        if self.part.is_some() && self.reports.is_empty() && self.told_at.elapsed() >= KEEP_INTERVAL {
            self.told_at = now;
            self.tell_verified();
        }
    }

    /// Does what the engine asks for.
    fn act(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Dial(candidate) => self.dial(candidate),
                Action::Close { connection, reason } => {
                    if let Some(peer) = self.peers.remove(&connection) {
                        tracing::debug!(remote = %peer.remote, ?reason, "a connection is closed");
                        peer.closer.close();
                        self.idle_since = Instant::now();
                    }
                }
                Action::Send { connection, message } => {
                    let fast = self.peers.get(&connection).is_some_and(|peer| peer.fast);
                    let message = to_wire(message, fast, self.engine.have());
                    self.command(connection, PeerCommand::Send(message));
                }
                Action::Serve { connection, block } => self.command(connection, PeerCommand::Serve(block)),
                Action::CancelServe { connection, block } => self.command(connection, PeerCommand::CancelServe(block)),
                Action::Store { block, .. } => {
                    if let Some(bytes) = self.arrived.take() {
                        self.blocks.store(&self.plan.geometry, block, bytes);
                    }
                }
                Action::Drop { piece } => drop(self.blocks.take(piece)),
                Action::Verify { piece, with_block_digests } => self.verify(piece, with_block_digests),
                Action::Ban { key, reason } => self.banned(key, reason),
                Action::Completed => self.finish(),
            }
        }
    }

    fn command(&mut self, connection: ConnectionId, command: PeerCommand) {
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.batch.push(command);
        }
    }

    /// Hands each connection its commands. One that takes none any more is dropped.
    fn flush(&mut self) {
        self.send_reports();
        let mut lost = Vec::new();
        for (connection, peer) in self.peers.iter_mut().filter(|(_, peer)| !peer.batch.is_empty()) {
            if peer.commands.try_send(std::mem::take(&mut peer.batch)).is_err() {
                peer.closer.close();
                lost.push(*connection);
            }
        }
        for connection in lost {
            self.peers.remove(&connection);
            self.engine.handle(Instant::now(), Event::Disconnected(connection));
        }
    }
}
