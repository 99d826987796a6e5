//! One connected peer, as the torrent sees it.

use crate::event::{ConnectionId, Direction, PeerKey};
use crate::limits::Limits;
use crate::rate::Rate;
use crate::requests::{Outstanding, QueueDepth};
use crate::stats::PeerStats;
use crate::torrent::Offers;
use mini_torrent_common::bitfield::Bitfield;
use mini_torrent_common::geometry::{BLOCK_LENGTH, Block, PieceIndex};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The pieces that a peer has. Only a peer that has some and not all costs memory.
#[derive(Debug)]
pub(crate) enum Held {
    Nothing,
    Some(Bitfield),
    All,
}

impl Held {
    pub(crate) fn contains(&self, piece: PieceIndex) -> bool {
        match self {
            Self::Nothing => false,
            Self::Some(pieces) => pieces.contains(piece),
            Self::All => true,
        }
    }

    pub(crate) fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    pub(crate) fn n_set(&self, n_pieces: u32) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Some(pieces) => pieces.n_set(),
            Self::All => n_pieces,
        }
    }

    /// How many of its pieces are not in `have`.
    pub(crate) fn n_outside(&self, have: &Bitfield) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::All => have.n_pieces() - have.n_set(),
            Self::Some(pieces) => {
                let pairs = pieces.as_bytes().iter().zip(have.as_bytes());
                pairs.map(|(held, have)| (held & !have).count_ones()).sum()
            }
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) key: PeerKey,
    pub(crate) direction: Direction,
    pub(crate) fast: bool,

    pub(crate) held: Held,
    /// Pieces it has and we have not.
    pub(crate) n_wanted: u32,

    pub(crate) is_choking_us: bool,
    pub(crate) are_we_interested: bool,
    pub(crate) is_unchoked: bool,
    pub(crate) is_interested: bool,
    /// When it was last choked or unchoked by us.
    pub(crate) choke_changed_at: Instant,

    pub(crate) outstanding: Outstanding,
    pub(crate) depth: QueueDepth,
    pub(crate) current: Option<PieceIndex>,
    pub(crate) exhausted: Option<u64>,
    pub(crate) is_snubbed: bool,
    /// The last block, or the first request after owing nothing.
    pub(crate) last_progress: Instant,
    /// Nothing is requested before.
    pub(crate) paused_until: Option<Instant>,
    /// No late block of others is looked for before.
    pub(crate) next_duplicates_at: Instant,
    pub(crate) n_unrequested: u32,
    /// What it suggested (BEP 6) and we have not begun, oldest first; bounded.
    pub(crate) suggested: VecDeque<PieceIndex>,
    /// Until when it is expected to suggest more.
    pub(crate) hears_more_by: Option<Instant>,
    /// What we suggest to it.
    pub(crate) offers: Offers,

    pub(crate) uploads: Uploads,
    pub(crate) download: Rate,
    pub(crate) upload: Rate,
    pub(crate) last_received: Instant,
    pub(crate) last_sent: Instant,
}

/// The requests of a peer.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    /// Not yet passed to the driver.
    pub(crate) queued: VecDeque<Block>,
    /// Passed to the driver and not yet sent.
    pub(crate) serving: VecDeque<Block>,
    pub(crate) serving_bytes: u64,
}

impl Uploads {
    pub(crate) fn len(&self) -> usize {
        self.queued.len() + self.serving.len()
    }

    /// Passes the next block on, within the limit; one always goes.
    pub(crate) fn next(&mut self, limit_bytes: u64) -> Option<Block> {
        let length = u64::from(self.queued.front()?.length);
        if !self.serving.is_empty() && self.serving_bytes + length > limit_bytes {
            return None;
        }
        let block = self.queued.pop_front()?;
        self.serving_bytes += length;
        self.serving.push_back(block);
        Some(block)
    }

    /// The driver no longer has the block; returns whether it had.
    pub(crate) fn finish(&mut self, block: Block) -> bool {
        let Some(position) = self.serving.iter().position(|other| *other == block) else { return false };
        self.serving.remove(position);
        self.serving_bytes -= u64::from(block.length);
        true
    }
}

impl Peer {
    pub(crate) fn new(key: PeerKey, direction: Direction, fast: bool, now: Instant, limits: &Limits) -> Self {
        Self {
            key,
            direction,
            fast,
            held: Held::Nothing,
            n_wanted: 0,
            is_choking_us: true,
            are_we_interested: false,
            is_unchoked: false,
            is_interested: false,
            choke_changed_at: now,
            outstanding: Outstanding::default(),
            depth: QueueDepth::new(limits),
            current: None,
            exhausted: None,
            is_snubbed: false,
            last_progress: now,
            paused_until: None,
            next_duplicates_at: now,
            n_unrequested: 0,
            suggested: VecDeque::new(),
            hears_more_by: None,
            offers: Offers::default(),
            uploads: Uploads::default(),
            download: Rate::new(now),
            upload: Rate::new(now),
            last_received: now,
            last_sent: now,
        }
    }

    /// The block is requested of the peer. One on probation stays as late as it was.
    pub(crate) fn ask(&mut self, now: Instant, block: Block) {
        if self.outstanding.is_empty() && !self.is_snubbed {
            self.last_progress = now;
            self.depth.on_first_request();
        }
        self.outstanding.push(block, now);
    }

    /// How long the peer has owed blocks without sending one.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        if self.outstanding.is_empty() { Duration::ZERO } else { now.saturating_duration_since(self.last_progress) }
    }

    /// How long `n_blocks` asked of this peer would take; a guess on the slow side while nothing was measured.
    pub(crate) fn promised_wait(&self, now: Instant, n_blocks: usize) -> Duration {
        const UNMEASURED: Duration = Duration::from_millis(500);
        let wait = self.expected_wait(now, n_blocks);
        if self.depth.rate_bytes_per_s() == 0 { wait + UNMEASURED } else { wait }
    }

    /// How long the n-th outstanding request from now will take, as far as its pace tells.
    pub(crate) fn expected_wait(&self, now: Instant, n_blocks: usize) -> Duration {
        let bytes = u64::try_from(n_blocks).unwrap_or(u64::MAX).saturating_mul(BLOCK_LENGTH.into());
        let latency = self.depth.base_latency().unwrap_or_default();
        match self.depth.rate_bytes_per_s() {
            0 => latency + self.silence(now) * 2,
            rate => latency + self.silence(now) + Duration::from_millis(bytes.saturating_mul(1000) / rate),
        }
    }

    pub(crate) fn stats(&self, connection: ConnectionId, now: Instant, n_pieces: u32) -> PeerStats {
        PeerStats {
            connection,
            key: self.key,
            direction: self.direction,
            n_have: self.held.n_set(n_pieces),
            n_requested: self.outstanding.len(),
            downloaded_bytes: self.download.total_bytes(),
            uploaded_bytes: self.upload.total_bytes(),
            download_bytes_per_s: self.download.bytes_per_s(now),
            upload_bytes_per_s: self.upload.bytes_per_s(now),
            is_snubbed: self.is_snubbed,
        }
    }
}
