//! Files for everybody, and their .mtorrent: share, remove, scrape, and get of a .mtorrent.

use mini_torrent_common::address::Endpoint;
use mini_torrent_common::control::Listing;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::metainfo::Info;
use mini_torrent_common::mtorrent::{MAX_LENGTH, Mtorrent, PieceDigits};
use mini_torrent_common::names::{FileName, GroupName, PUBLIC_GROUP};
use mini_torrent_common::tracker_info::TrackerAddress;
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::get::read_bounded;
use super::share::Uploaded;
use super::{Context, known_file, known_group};
use crate::error::CommandError;
use crate::output::{Outcome, Reply, show_path};

/// How the names of these files end.
const ENDING: &str = "mtorrent";

impl Context {
    pub(super) async fn share(&self, path: &Path, mtorrent: Option<PathBuf>) -> Outcome {
        self.signed_in()?;
        let mtorrent = mtorrent.unwrap_or_else(|| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            PathBuf::from(format!("{name}.{ENDING}"))
        });
        let mtorrent = std::path::absolute(&mtorrent).map_err(|error| CommandError::io(&mtorrent, &error))?;
        // Not a gigabyte later.
        if !is_mtorrent(&mtorrent) {
            let text = format!("{} does not end in .{ENDING}, by which get knows these files", show_path(&mtorrent));
            return Err(CommandError::new(ErrorCode::Usage, text));
        }
        check_place(&mtorrent)?;
        let uploaded = self.upload(path, PUBLIC_GROUP, None).await?;
        write(&mtorrent, &describe(&self.trackers, &uploaded))?;
        let mut reply = uploaded.reply();
        reply.text.push(format!("wrote {}", show_path(&mtorrent)));
        reply.fields.insert("mtorrent".into(), Value::from(mtorrent.to_string_lossy()));
        Ok(reply)
    }

    pub(super) async fn get_by_mtorrent(&self, path: &Path, destination: &Path, force: bool) -> Outcome {
        let mtorrent = read(path)?;
        check_trackers(&self.trackers, &mtorrent, path)?;
        self.signed_in()?;
        let group = self.group_of(&mtorrent).await?;
        let listing = self.listing_of(&group, &mtorrent).await?;
        self.fetch(&group, listing, Vec::new(), destination, force, |info| check_info(&mtorrent, info)).await
    }

    /// The group whose id the file bears; the one of everybody when it bears none.
    async fn group_of(&self, mtorrent: &Mtorrent) -> Result<GroupName, CommandError> {
        match mtorrent.group {
            None => known_group(PUBLIC_GROUP),
            Some(id) => self.find_group(id).await,
        }
    }

    async fn find_group(&self, id: GroupId) -> Result<GroupName, CommandError> {
        for group in self.fetch_groups().await? {
            if self.describe_group(&group.name).await.is_ok_and(|described| described.id == id) {
                return Ok(group.name);
            }
        }
        Err(CommandError::new(ErrorCode::NotAMember, "you are not a member of the group that the file names"))
    }

    /// By name; when that means another file now, by info-hash.
    async fn listing_of(&self, group: &GroupName, mtorrent: &Mtorrent) -> Result<Listing, CommandError> {
        let is_meant = |listing: &Listing| mtorrent.info_hash.is_none_or(|hash| hash == listing.draft.info_hash);
        let named = self.find_file(group, &mtorrent.name).await;
        match (named, mtorrent.info_hash) {
            (Ok(listing), _) if is_meant(&listing) => Ok(listing),
            (Err(error), _) if error.code != ErrorCode::NoSuchFile => Err(error),
            (Err(error), None) => Err(error),
            _ => self.fetch_files(group).await?.into_iter().find(is_meant).ok_or_else(|| {
                let text = format!("{group} does not list {} with this info-hash", mtorrent.name);
                CommandError::new(ErrorCode::NoSuchFile, text)
            }),
        }
    }

    pub(super) async fn remove(&self, target: &str) -> Outcome {
        self.signed_in()?;
        let path = Path::new(target);
        if !is_mtorrent(path) || !path.is_file() {
            return self.end_share(known_group(PUBLIC_GROUP)?, known_file(target)?).await;
        }
        let mtorrent = read(path)?;
        check_trackers(&self.trackers, &mtorrent, path)?;
        let group = self.group_of(&mtorrent).await?;
        let name = self.shared_name(&group, &mtorrent).await?;
        let mut reply = self.end_share(group, name).await?;
        std::fs::remove_file(path).map_err(|error| CommandError::io(path, &error))?;
        reply.text.push(format!("deleted {}", show_path(path)));
        Ok(reply)
    }

    /// Under which name what the file describes is shared; never another content of the same name.
    async fn shared_name(&self, group: &GroupName, mtorrent: &Mtorrent) -> Result<FileName, CommandError> {
        let shared = self.node.find_finished(group.clone(), mtorrent.name.clone()).await?;
        match (shared, mtorrent.info_hash) {
            (Some(share), Some(hash)) if share.file.info_hash != hash => {
                let text = format!("what is shared as {} in {group} is another file", mtorrent.name);
                Err(CommandError::new(ErrorCode::NotSharing, text))
            }
            _ => Ok(mtorrent.name.clone()),
        }
    }

    pub(super) async fn scrape(&self, file: &str) -> Outcome {
        self.signed_in()?;
        let path = Path::new(file);
        let listing = if is_mtorrent(path) && path.is_file() {
            let mtorrent = read(path)?;
            check_trackers(&self.trackers, &mtorrent, path)?;
            let group = self.group_of(&mtorrent).await?;
            self.listing_of(&group, &mtorrent).await?
        } else {
            self.find_file(&known_group(PUBLIC_GROUP)?, &known_file(file)?).await?
        };
        let (name, n_seeders, n_leechers) = (&listing.draft.name, listing.n_seeders, listing.n_leechers);
        let text = format!("{name}: {n_seeders} seeders, {n_leechers} leechers");
        Ok(Reply::line(text, json!({ "file": name.as_str(), "seeders": n_seeders, "leechers": n_leechers })))
    }
}

/// Whether a path is named like a .mtorrent.
pub(super) fn is_mtorrent(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case(ENDING))
}

fn read(path: &Path) -> Result<Mtorrent, CommandError> {
    let invalid = |error: &dyn std::fmt::Display| {
        CommandError::new(ErrorCode::InvalidMetainfo, format!("{}: {error}", path.display()))
    };
    let bytes = read_bounded(path, MAX_LENGTH)?;
    let text = String::from_utf8(bytes).map_err(|error| invalid(&error.utf8_error()))?;
    Mtorrent::parse(&text).map_err(|error| invalid(&error))
}

fn describe(trackers: &[TrackerAddress], uploaded: &Uploaded) -> Mtorrent {
    let endpoint = |tracker: &TrackerAddress| Endpoint { host: tracker.host.clone(), port: tracker.port };
    // A list of trackers is never empty; with one, both lines name it.
    let unknown = || Endpoint { host: "localhost".to_owned(), port: 1 };
    let first = trackers.first().map_or_else(unknown, endpoint);
    let second = trackers.get(1).map_or_else(|| first.clone(), endpoint);
    Mtorrent {
        trackers: [first, second],
        name: uploaded.draft.name.clone(),
        geometry: uploaded.digest.geometry,
        pieces: PieceDigits::full(&uploaded.digest.pieces),
        info_hash: Some(uploaded.draft.info_hash),
        group: None,
    }
}

/// A file may come from anybody: a tracker that only it names gets nothing of ours, not even a connection.
fn check_trackers(ours: &[TrackerAddress], mtorrent: &Mtorrent, path: &Path) -> Result<(), CommandError> {
    let is_ours = |named: &Endpoint| ours.iter().any(|own| own.host == named.host && own.port == named.port);
    if mtorrent.trackers.iter().any(is_ours) {
        return Ok(());
    }
    let [first, second] = &mtorrent.trackers;
    let named = if first == second { first.to_string() } else { format!("{first} and {second}") };
    let text = format!("{} is of the tracker {named}, which is not in your tracker_info.txt", path.display());
    Err(CommandError::new(ErrorCode::InvalidMetainfo, text))
}

/// The metadata from the tracker has to be what the file describes.
fn check_info(mtorrent: &Mtorrent, info: &Info) -> Result<(), CommandError> {
    let fits = mtorrent.geometry == info.geometry && mtorrent.pieces.fit(&info.pieces);
    let text = || format!("the listed {} has other content than the .mtorrent describes", info.name);
    if fits { Ok(()) } else { Err(CommandError::new(ErrorCode::InvalidMetainfo, text())) }
}

/// Only an earlier .mtorrent may be replaced.
fn check_place(path: &Path) -> Result<(), CommandError> {
    let in_the_way = |text: &str| {
        let text = format!("{} {text}", path.display());
        Err(CommandError::new(ErrorCode::DestinationExists, text))
    };
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    if read(path).is_err() { in_the_way("exists and is no .mtorrent") } else { Ok(()) }
}

/// Under its name it is always whole.
fn write(path: &Path, mtorrent: &Mtorrent) -> Result<(), CommandError> {
    let io_error = |error| CommandError::io(path, &error);
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&draft).map_err(io_error)?;
    file.write_all(mtorrent.to_string().as_bytes()).map_err(io_error)?;
    file.sync_all().map_err(io_error)?;
    std::fs::rename(&draft, path).map_err(io_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Progress, digest_file};

    fn trackers() -> Vec<TrackerAddress> {
        mini_torrent_common::tracker_info::parse("10.0.0.1:7000\n10.0.0.2:7000\n").unwrap()
    }

    fn bare(first: &str, second: &str) -> Mtorrent {
        Mtorrent::parse(&format!("{first}\n{second}\na.bin\n0\n\n")).unwrap()
    }

    #[test]
    fn a_file_of_other_trackers_is_refused_and_names_them() {
        let check = |first, second| check_trackers(&trackers(), &bare(first, second), Path::new("x.mtorrent"));
        assert!(check("10.0.0.1:7000", "10.0.0.1:7000").is_ok());
        assert!(check("10.0.0.9:7000", "10.0.0.2:7000").is_ok(), "one of them is ours");
        for (first, second) in [("10.0.0.1:7001", "10.0.0.1:7001"), ("evil.example:7000", "10.0.0.3:7000")] {
            let error = check(first, second).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidMetainfo);
            assert!(error.message.contains(first), "{}", error.message);
        }
    }

    /// A1 to A4: what is written has the five lines, and the pieces of the file.
    #[test]
    fn a1_a_bare_file_is_checked_against_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, vec![7; 600_000]).unwrap();
        let digest = digest_file(&path, &Progress::default()).unwrap();
        let info = |pieces| Info {
            name: "f".parse().unwrap(),
            geometry: digest.geometry,
            pieces,
            private: false,
            group: None,
        };
        let text = format!("10.0.0.1:1\n10.0.0.1:1\nf\n600000\n{}\n", {
            let digits = |index| digest.pieces.get(index).unwrap().to_string()[..20].to_owned();
            digits(0) + &digits(1)
        });
        let mtorrent = Mtorrent::parse(&text).unwrap();
        assert!(check_info(&mtorrent, &info(digest.pieces.clone())).is_ok());
        let other = mini_torrent_common::metainfo::PieceHashes::new(vec![0; 40]).unwrap();
        assert_eq!(check_info(&mtorrent, &info(other)).unwrap_err().code, ErrorCode::InvalidMetainfo);
    }

    #[test]
    fn only_an_earlier_mtorrent_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.mtorrent");
        check_place(&path).unwrap();
        write(&path, &bare("10.0.0.1:1", "10.0.0.1:1")).unwrap();
        check_place(&path).unwrap();
        std::fs::write(&path, "a letter").unwrap();
        assert_eq!(check_place(&path).unwrap_err().code, ErrorCode::DestinationExists);
    }
}
