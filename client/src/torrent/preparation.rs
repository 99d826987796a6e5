//! Opening a torrent's file before the first peer: a partial file is read again, a twin is copied.

use mini_torrent_common::bitfield::Bitfield;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::geometry::Geometry;
use std::fs::File;
use std::io;
use tokio_util::sync::CancellationToken;

use super::{Fetch, Purpose};
use crate::disk::{Content, Destination, FileStamp, PartFile, PieceOutcome, Progress, check_pieces, digest_file};
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
        Ok(file) if fetch.resumed && is_begun(&file, geometry).map_err(passing)? => file,
        Ok(file) if fetch.replace => {
            // Not while another download writes it.
            file.try_lock().map_err(|_| in_the_way(&destination))?;
            destination.remove_part(inode_of(&file).map_err(passing)?).map_err(passing)?;
            destination.create_part().map_err(passing)?
        }
        Ok(_) => return Err(in_the_way(&destination)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(stamp) = finished_before(fetch, geometry) {
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

/// Whether a partial file can be one of ours: it has its full length from the start, or is still empty. Without
/// that, a file that merely has the name could be taken for ours after a crash before we had made one.
fn is_begun(file: &File, geometry: Geometry) -> io::Result<bool> {
    let length = file.metadata()?.len();
    Ok(length == 0 || length == geometry.length())
}

fn inode_of(file: &File) -> io::Result<u64> {
    Ok(FileStamp::of(&file.metadata()?).inode)
}

/// The finished file, if a download that was begun before left exactly what it shall be.
fn finished_before(fetch: &Fetch, geometry: Geometry) -> Option<FileStamp> {
    if !fetch.resumed || !fetch.destination.is_file() {
        return None;
    }
    let Some(sha256) = fetch.sha256 else {
        return check_pieces(&fetch.destination, geometry, |index, hash| fetch.hashes.get(index) == Some(hash)).ok()?;
    };
    let digest = digest_file(&fetch.destination, &Progress::default()).ok()?;
    (digest.sha256 == sha256).then_some(digest.stamp)
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
        let mut buffer = vec![0; geometry.length_of(piece) as usize];
        if twin.read(geometry.range_of(piece).start, &mut buffer).is_err() {
            return Ok(());
        }
        match part.verify_and_write(piece, &[buffer.into()], false) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use mini_torrent_common::hash::{Sha1Hash, Sha256Hash};
    use mini_torrent_common::metainfo::PieceHashes;
    use mini_torrent_engine::PieceOrder;
    use std::path::Path;

    const CONTENT: [u8; 10] = [7; 10];

    fn purpose(dir: &Path, resumed: bool, replace: bool) -> Purpose {
        Purpose::Fetch(Fetch {
            hashes: PieceHashes::new(Sha1Hash::of(&CONTENT).0.to_vec()).unwrap(),
            sha256: Some(Sha256Hash::of(&CONTENT)),
            destination: dir.canonicalize().unwrap().join("f"),
            replace,
            resumed,
            twin: None,
            piece_order: PieceOrder::default(),
        })
    }

    fn prepare_in(dir: &Path, resumed: bool, replace: bool) -> Result<Prepared, Obstacle> {
        let geometry = Geometry::new(10, 10).unwrap();
        prepare(&mut purpose(dir, resumed, replace), geometry, &CancellationToken::new())
    }

    #[test]
    fn a_file_that_merely_has_the_name_is_in_the_way() {
        for resumed in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(".f.part"), b"precious").unwrap();
            assert!(matches!(prepare_in(dir.path(), resumed, false), Err(Obstacle::Fatal(_))));
            assert_eq!(std::fs::read(dir.path().join(".f.part")).unwrap(), b"precious");
            assert!(matches!(prepare_in(dir.path(), resumed, true), Ok(Prepared::Fetch { .. })));
        }
    }

    #[test]
    fn a_begun_file_is_taken_up_with_what_is_intact_in_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".f.part"), CONTENT).unwrap();
        let Ok(Prepared::Fetch { have, .. }) = prepare_in(dir.path(), true, false) else { panic!("not taken up") };
        assert!(have.is_all());
        std::fs::write(dir.path().join(".f.part"), [0; 10]).unwrap();
        let Ok(Prepared::Fetch { have, .. }) = prepare_in(dir.path(), true, false) else { panic!("not taken up") };
        assert!(have.is_none());
    }

    #[test]
    fn a_crash_between_renaming_and_noting_leaves_the_download_complete() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), CONTENT).unwrap();
        assert!(matches!(prepare_in(dir.path(), true, false), Ok(Prepared::AlreadyComplete(_))));
    }

    #[test]
    fn two_downloads_do_not_share_a_partial_file() {
        let dir = tempfile::tempdir().unwrap();
        let first = prepare_in(dir.path(), false, false);
        assert!(first.is_ok());
        assert!(matches!(prepare_in(dir.path(), true, false), Err(Obstacle::Passing(_))));
        assert!(matches!(prepare_in(dir.path(), false, true), Err(Obstacle::Fatal(_))));
    }
}
