//! Between the engine's messages and those of the wire.

use bytes::Bytes;
use mini_torrent_common::bitfield::Bitfield;
use mini_torrent_common::geometry::Block;
use mini_torrent_common::peer_extension::{UT_METADATA, UT_PEX};
use mini_torrent_common::peer_wire::{BlockRange, ExtendedHandshake, Message};
use mini_torrent_engine::{self as engine, Outgoing};

use super::Foreign;
use crate::peer::MAX_QUEUED_REQUESTS;

/// What the engine wants to say, as it is sent; `have` is what we have at this moment.
pub(super) fn to_wire(message: Outgoing, fast: bool, have: &Bitfield) -> Message {
    match message {
        Outgoing::KeepAlive => Message::KeepAlive,
        Outgoing::Choke => Message::Choke,
        Outgoing::Unchoke => Message::Unchoke,
        Outgoing::Interested => Message::Interested,
        Outgoing::NotInterested => Message::NotInterested,
        Outgoing::Have(piece) => Message::Have(piece.get()),
        Outgoing::Pieces if fast && have.is_all() => Message::HaveAll,
        Outgoing::Pieces if fast && have.is_none() => Message::HaveNone,
        Outgoing::Pieces => Message::Bitfield(Bytes::copy_from_slice(have.as_bytes())),
        Outgoing::Request(block) => Message::Request(range_of(block)),
        Outgoing::Cancel(block) => Message::Cancel(range_of(block)),
        Outgoing::Reject(block) => Message::Reject(range_of(block)),
        Outgoing::Suggest(piece) => Message::Suggest(piece.get()),
    }
}

/// What we can (BEP 10); of a foreign torrent also its metadata and, unless it is private, its peers.
pub(super) fn own_extended_handshake(foreign: Option<&Foreign>) -> Message {
    Message::ExtendedHandshake(ExtendedHandshake {
        client: Some(crate::AGENT.to_owned()),
        max_requests: Some(MAX_QUEUED_REQUESTS),
        ut_metadata: foreign.map(|_| UT_METADATA),
        ut_pex: foreign.filter(|foreign| !foreign.private).map(|_| UT_PEX),
        metadata_length: foreign.and_then(|foreign| u32::try_from(foreign.raw_info.len()).ok()),
    })
}

fn range_of(block: Block) -> BlockRange {
    BlockRange { index: block.piece.get(), begin: block.begin, length: block.length }
}

/// What the engine sees of a message, and the bytes that it does not see.
pub(super) fn to_engine(message: Message) -> (engine::Message, Option<Bytes>) {
    let plain = match message {
        Message::KeepAlive => engine::Message::KeepAlive,
        Message::Choke => engine::Message::Choke,
        Message::Unchoke => engine::Message::Unchoke,
        Message::Interested => engine::Message::Interested,
        Message::NotInterested => engine::Message::NotInterested,
        Message::Have(index) => engine::Message::Have(index),
        Message::Bitfield(bytes) => engine::Message::Bitfield(bytes.to_vec()),
        Message::Request(BlockRange { index, begin, length }) => engine::Message::Request { index, begin, length },
        Message::Cancel(BlockRange { index, begin, length }) => engine::Message::Cancel { index, begin, length },
        Message::Reject(BlockRange { index, begin, length }) => engine::Message::Reject { index, begin, length },
        Message::Suggest(index) => engine::Message::Suggest(index),
        Message::AllowedFast(index) => engine::Message::AllowedFast(index),
        Message::HaveAll => engine::Message::HaveAll,
        Message::HaveNone => engine::Message::HaveNone,
        Message::ExtendedHandshake(theirs) => engine::Message::ExtendedHandshake { max_requests: theirs.max_requests },
        Message::Extended { .. } | Message::Unknown(_) => engine::Message::Unknown,
        Message::Piece { index, begin, block } => {
            let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
            return (engine::Message::Block { index, begin, length }, Some(block));
        }
    };
    (plain, None)
}
