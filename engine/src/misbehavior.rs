//! What a peer can do wrong, each misdeed with its name.

/// A misdeed of a peer. Each ends the connection; [`PeerMisbehavior::is_lie`] also bans its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PeerMisbehavior {
    /// A bitfield whose length does not fit the torrent (BEP 3).
    #[error("the bitfield has the wrong length")]
    BitfieldLength,
    /// A bitfield with a bit set beyond the last piece (BEP 3).
    #[error("a spare bit of the bitfield is set")]
    BitfieldSpareBit,
    /// A have for a piece that does not exist.
    #[error("announced a piece that does not exist")]
    HaveOutOfRange,
    /// A request for bytes that do not exist.
    #[error("asked for bytes that do not exist")]
    RequestOutOfRange,
    /// A request for more than [`crate::Limits::request_length`] bytes.
    #[error("asked for too many bytes at once")]
    RequestTooLong,
    /// More requests than [`crate::Limits::queued_requests`] wait for an answer.
    #[error("too many requests are queued")]
    TooManyRequests,
    /// A block that does not exist.
    #[error("sent a block that does not exist")]
    BlockOutOfRange,
    /// More than [`crate::Limits::unrequested_blocks`] blocks that nobody asked for.
    #[error("sent many blocks that were not asked for")]
    UnrequestedBlocks,
    /// A message of the fast extension on a connection without it (BEP 6).
    #[error("used the fast extension without agreement")]
    FastNotAgreed,
    /// A block whose bytes are wrong: proven by the piece's hash.
    #[error("sent wrong bytes")]
    CorruptBlock,
}

impl PeerMisbehavior {
    /// Whether the peer sent wrong bytes, so that no other connection of it is welcome either.
    pub fn is_lie(self) -> bool {
        self == Self::CorruptBlock
    }
}
