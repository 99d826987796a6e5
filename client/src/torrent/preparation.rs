//! Opening a torrent's file before the first peer: a partial file is read again, a twin is copied.

use mini_torrent_common::bitfield::Bitfield;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::geometry::Geometry;
use std::fs::File;
use std::io;
use tokio_util::sync::CancellationToken;

use super::{Fetch, Purpose};
use crate::disk::{Content, Destination, FileStamp, PartFile, PieceOutcome, Progress, digest_file};
use crate::error::{CommandError, is_disk_full};

/// What the user is told while there is no room.
pub(super) const DISK_FULL: &str = "disk full";

/// A torrent's file, open.
pub(super) enum Prepared {
    /// A finished file to serve.
    Seed(Content),
    /// A partial file and the pieces that are intact in it.
    Fetch { part: PartFile, destination: Destination, have: Bitfield },
    /// The finished file is there already: a crash came between its renaming and our noting it.
    AlreadyComplete(FileStamp),
}

/// Why a file cannot be opened.
pub(super) enum Obstacle {
    /// For good.
    Fatal(CommandError),
    /// For now; to be tried again.
    Passing(CommandError),
    /// A shared file is not what it was.
    Stale(String),
}

/// Opens the file. Blocks. A partial file that was created is the download's own from then on, at the next try
/// too.
pub(super) fn prepare(
    purpose: &mut Purpose,
    geometry: Geometry,
    stop: &CancellationToken,
) -> Result<Prepared, Obstacle> {
    match purpose {
        Purpose::Seed { path, stamp } => {
            Content::open_shared(path, *stamp).map(Prepared::Seed).map_err(|error| Obstacle::Stale(error.to_string()))
        }
        Purpose::Fetch(fetch) => prepare_fetch(fetch, geometry, stop),
    }
}

fn prepare_fetch(fetch: &mut Fetch, geometry: Geometry, stop: &CancellationToken) -> Result<Prepared, Obstacle> {
    let destination = Destination::reopen(&fetch.destination).map_err(Obstacle::Passing)?;
    let passing = |error: io::Error| Obstacle::Passing(CommandError::io(&destination.part_path(), &error));
    let file = match destination.reopen_part() {
        Ok(file) if fetch.resumed => file,
        Ok(file) if fetch.replace => {
            // Not while another download writes it.
            file.try_lock().map_err(|_| in_the_way(&destination))?;
            destination.remove_part(inode_of(&file).map_err(passing)?).map_err(passing)?;
            destination.create_part().map_err(passing)?
        }
        Ok(_) => return Err(in_the_way(&destination)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(stamp) = finished_before(fetch) {
                return Ok(Prepared::AlreadyComplete(stamp));
            }
            destination.create_part().map_err(passing)?
        }
        // Something that is no regular file, or a link.
        Err(_) if destination.part_path().symlink_metadata().is_ok() => return Err(in_the_way(&destination)),
        Err(error) => return Err(passing(error)),
    };
    fetch.resumed = true;
    let part = PartFile::new(file, geometry, fetch.hashes.clone()).map_err(passing)?;
    let mut have = part.recheck(stop).map_err(passing)?;
    if let Some(twin) = fetch.twin.as_ref().and_then(|(path, stamp)| Content::open_shared(path, *stamp).ok()) {
        copy_twin(&part, &twin, geometry, &mut have, stop).map_err(passing)?;
    }
    Ok(Prepared::Fetch { part, destination, have })
}

fn in_the_way(destination: &Destination) -> Obstacle {
    let text = format!("{} is in the way; remove it or use --force", destination.part_path().display());
    Obstacle::Fatal(CommandError::new(ErrorCode::DestinationExists, text))
}

fn inode_of(file: &File) -> io::Result<u64> {
    Ok(FileStamp::of(&file.metadata()?).inode)
}

/// The finished file, if a download that was begun before left exactly what it shall be.
fn finished_before(fetch: &Fetch) -> Option<FileStamp> {
    if !fetch.resumed || !fetch.destination.is_file() {
        return None;
    }
    let digest = digest_file(&fetch.destination, &Progress::default()).ok()?;
    (digest.sha256 == fetch.sha256).then_some(digest.stamp)
}

/// Takes the missing pieces from the same content elsewhere on this machine, verifying each.
fn copy_twin(
    part: &PartFile,
    twin: &Content,
    geometry: Geometry,
    have: &mut Bitfield,
    stop: &CancellationToken,
) -> io::Result<()> {
    for piece in geometry.pieces().filter(|piece| !have.contains(*piece)).collect::<Vec<_>>() {
        if stop.is_cancelled() {
            return Ok(());
        }
        let Ok(bytes) = twin.read(geometry.range_of(piece).start, geometry.length_of(piece) as usize) else {
            return Ok(());
        };
        match part.verify_and_write(piece, &[bytes], false) {
            PieceOutcome::Verified(_) => {
                have.insert(piece);
            }
            PieceOutcome::Corrupt(_) => {}
            PieceOutcome::Unwritten(error) => return Err(error),
        }
    }
    Ok(())
}

/// What the user is told while a disk refuses.
pub(super) fn reason_of(error: &io::Error) -> String {
    if is_disk_full(error) { DISK_FULL.to_owned() } else { error.to_string() }
}
