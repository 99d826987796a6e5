//! Files: hashing what is shared, writing what is fetched, reading what is served. Everything here blocks and
//! runs on the blocking pool.

mod content;
mod destination;
mod digest;
mod part;

pub(crate) use content::{Content, FileStamp, ReadError, open_regular};
pub(crate) use destination::{Destination, is_same_file};
pub(crate) use digest::{FileDigest, Progress, check_pieces, digest_file};
pub(crate) use part::{PartFile, PieceOutcome};
