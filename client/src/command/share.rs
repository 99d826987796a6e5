//! Sharing: upload_file, stop_share, verify.

use mini_torrent_common::control::{
    GroupDescription, INFO_PAGE_LENGTH, ListingDraft, ListingId, Offer, Request, Response,
};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::{InfoHash, OperationId};
use mini_torrent_common::metainfo::Info;
use mini_torrent_common::names::{FileName, GroupName};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::{Context, file_name, known_file, known_group};
use crate::disk::{FileDigest, Progress, digest_file};
use crate::error::CommandError;
use crate::link::{Link, NoAnswer};
use crate::output::{Outcome, Reply, show_size};
use crate::state::{Share, SharedFile};

/// To how many connections in a row an upload is offered.
const MAX_OFFERS: usize = 4;

/// A file that is being hashed for an upload.
#[derive(Debug)]
pub(crate) struct Hashing {
    pub(crate) group: GroupName,
    pub(crate) name: FileName,
    /// Length in bytes when the hashing began.
    pub(crate) size: u64,
    pub(crate) progress: Arc<Progress>,
}

/// The files that are being hashed. Each belongs to the upload that hashes it; this only finds them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hashings(watch::Sender<Vec<Weak<Hashing>>>);

impl Hashings {
    fn begin(&self, hashing: Hashing) -> Arc<Hashing> {
        let hashing = Arc::new(hashing);
        self.0.send_modify(|all| {
            all.retain(|other| other.strong_count() > 0);
            all.push(Arc::downgrade(&hashing));
        });
        hashing
    }

    /// Those that go on.
    pub(crate) fn running(&self) -> Vec<Arc<Hashing>> {
        self.0.borrow().iter().filter_map(Weak::upgrade).collect()
    }
}

/// A file that is shared now.
pub(super) struct Uploaded {
    group: GroupName,
    pub(super) draft: ListingDraft,
    pub(super) digest: FileDigest,
    already_sharing: bool,
}

impl Uploaded {
    pub(super) fn reply(&self) -> Reply {
        let Self { group, draft, digest, already_sharing } = self;
        let n_pieces = digest.geometry.n_pieces();
        let pieces = if n_pieces == 1 { "1 piece".to_owned() } else { format!("{n_pieces} pieces") };
        let text = format!("sharing {} in {group} ({}, {pieces})", draft.name, show_size(draft.size));
        let fields = json!({
            "group": group.as_str(), "name": draft.name.as_str(), "size": draft.size, "pieces": n_pieces,
            "sha1": draft.sha1.to_string(), "sha256": draft.sha256.to_string(),
            "info_hash": draft.info_hash.to_string(), "already_sharing": already_sharing,
        });
        Reply::line(text, fields)
    }
}

/// A file on its way to being listed.
struct NewListing<'a> {
    group: &'a GroupName,
    draft: &'a ListingDraft,
    raw_info: &'a [u8],
    /// The name of the commit, the same with every tracker.
    commit: OperationId,
    /// A commit whose answer was lost may have listed it.
    may_be_listed: bool,
}

impl Context {
    pub(super) async fn upload_file(&self, path: &Path, group: &str, name: Option<&str>) -> Outcome {
        Ok(self.upload(path, group, name).await?.reply())
    }

    /// Has a file listed in a group, and serves it from now on.
    pub(super) async fn upload(&self, path: &Path, group: &str, name: Option<&str>) -> Result<Uploaded, CommandError> {
        let user = self.signed_in()?;
        let path = std::path::absolute(path).map_err(|error| CommandError::io(path, &error))?;
        let own_name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = file_name(name.unwrap_or(&own_name))?;
        let group = self.describe_group(&known_group(group)?).await?;
        let digest = self.hash(&path, &group.name, &name).await?;
        if self.user.borrow().as_ref() != Some(&user) {
            let text = format!("the session of {user} ended before {name} was hashed");
            return Err(CommandError::new(ErrorCode::SessionEnded, text));
        }
        let (draft, raw_info) = describe(&group, name, &digest);
        let (listing, already_sharing) = self.list(&group.name, &draft, &raw_info).await?;
        let file = SharedFile {
            listing,
            group_id: group.id,
            group: group.name.clone(),
            name: draft.name.clone(),
            info_hash: draft.info_hash,
            size: draft.size,
            sha1: draft.sha1,
            sha256: draft.sha256,
        };
        let share = Share { file, path, stamp: digest.stamp, registered: true };
        if let Err(error) = self.node.add_share(user, share, raw_info).await {
            // Nobody is told of a share that the next login would not know; that it failed is what counts.
            let _ = self.link.request(Request::StopShare { listing }).await;
            return Err(error);
        }
        Ok(Uploaded { group: group.name, draft, digest, already_sharing })
    }

    pub(super) async fn describe_group(&self, group: &GroupName) -> Result<GroupDescription, CommandError> {
        match self.link.request(Request::DescribeGroup { group: group.clone() }).await? {
            Response::Group(group) => Ok(group),
            other => Err(CommandError::unexpected(other)),
        }
    }

    /// Hashes a file off the network's threads; `cancel_download` stops it.
    async fn hash(&self, path: &Path, group: &GroupName, name: &FileName) -> Result<FileDigest, CommandError> {
        let size = std::fs::metadata(path).map(|metadata| metadata.len()).unwrap_or_default();
        let progress = Arc::new(Progress::default());
        let (group, name) = (group.clone(), name.clone());
        let hashing = self.hashings.begin(Hashing { group, name, size, progress: progress.clone() });
        let path = path.to_owned();
        // Dropped when the command is: an upload that nobody waits for any more is not hashed to its end.
        let _cancel = CancelOnDrop(hashing.progress.clone());
        let digest = spawn_blocking(move || digest_file(&path, &progress)).await;
        digest.unwrap_or_else(|_| Err(CommandError::shutting_down()))
    }

    /// Has a tracker list a file; returns whether this user shared it before. The pages of a dictionary lie with one
    /// tracker, so when its connection is lost, everything is offered again to the next one, under the same name.
    async fn list(
        &self,
        group: &GroupName,
        draft: &ListingDraft,
        raw_info: &[u8],
    ) -> Result<(ListingId, bool), CommandError> {
        let mut listing = NewListing { group, draft, raw_info, commit: Link::new_operation(), may_be_listed: false };
        for _ in 0..MAX_OFFERS {
            match self.try_list(&mut listing).await {
                Ok(listed) => return Ok(listed),
                Err(NoAnswer::Refused(error)) => return Err(error),
                Err(NoAnswer::ConnectionGone) => {}
            }
        }
        Err(Link::connections_lost())
    }

    async fn try_list(&self, new: &mut NewListing<'_>) -> Result<(ListingId, bool), NoAnswer> {
        let offer = Request::OfferListing { group: new.group.clone(), draft: new.draft.clone() };
        let (answer, connection) = self.link.request_once(offer, Some(Link::new_operation()), None).await?;
        let upload = match answer {
            Response::Offered(Offer::Joined(listing)) => return Ok((listing, false)),
            // It was not shared before when it was this upload that listed it.
            Response::Offered(Offer::AlreadySharing(listing)) => return Ok((listing, !new.may_be_listed)),
            Response::Offered(Offer::SendInfo(upload)) => upload,
            other => return Err(NoAnswer::Refused(CommandError::unexpected(other))),
        };
        let mut offset = 0;
        for page in new.raw_info.chunks(INFO_PAGE_LENGTH) {
            let page_request = Request::PutInfo { upload, offset, bytes: page.to_vec() };
            self.link.request_once(page_request, None, Some(connection)).await?;
            offset += page.len() as u64;
        }
        new.may_be_listed = true;
        let commit = Request::CommitListing { upload };
        match self.link.request_once(commit, Some(new.commit), Some(connection)).await? {
            (Response::Listed(listing), _) => Ok((listing, false)),
            (other, _) => Err(NoAnswer::Refused(CommandError::unexpected(other))),
        }
    }

    pub(super) async fn stop_share(&self, group: &str, file: &str) -> Outcome {
        self.signed_in()?;
        self.end_share(known_group(group)?, known_file(file)?).await
    }

    pub(super) async fn end_share(&self, group: GroupName, file: FileName) -> Outcome {
        let shared_here = self.node.begin_stop(group.clone(), file.clone()).await?;
        let listing = match shared_here {
            Some(listing) => listing,
            // Shared from another data directory, perhaps.
            None => self.find_file(&group, &file).await?.id,
        };
        // The tracker first: when it cannot be told, or we are killed in between, everything is as before.
        match self.node.stop_share(listing).await {
            Ok(()) => {}
            // It was told before, and only we have not noted it.
            Err(error) if shared_here.is_some() && is_gone(&error) => {}
            Err(error) => {
                self.node.abort_stop(listing).await?;
                return Err(error);
            }
        }
        self.node.remove_share(listing).await?;
        let text = format!("stopped sharing {file} in {group}");
        Ok(Reply::line(text, json!({ "group": group.as_str(), "file": file.as_str() })))
    }

    pub(super) async fn verify(&self, group: &str, file: &str) -> Outcome {
        self.signed_in()?;
        let (group, file) = (known_group(group)?, known_file(file)?);
        let share = self.node.find_finished(group.clone(), file.clone()).await?;
        let share = share.ok_or_else(|| {
            let text = format!("there is no finished {file} of {group} here");
            CommandError::new(ErrorCode::NoSuchFile, text)
        })?;
        let raw_info = self.node.find_info(share.file.info_hash).await?.unwrap_or_default();
        let info = Info::decode(&raw_info)
            .map_err(|error| CommandError::new(ErrorCode::InvalidMetainfo, error.to_string()))?;
        let path = share.path.clone();
        let digest = spawn_blocking(move || digest_file(&path, &Progress::default())).await;
        let digest = digest.unwrap_or_else(|_| Err(CommandError::shutting_down()))?;
        check(&share, &info, &digest)?;
        let text = format!("{file} is intact");
        Ok(Reply::line(text, json!({ "group": group.as_str(), "file": file.as_str() })))
    }
}

/// Whether the tracker knows no such share.
fn is_gone(error: &CommandError) -> bool {
    matches!(error.code, ErrorCode::NotSharing | ErrorCode::NoSuchFile | ErrorCode::NotAMember)
}

struct CancelOnDrop(Arc<Progress>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// What a file is called in a group: the draft of its listing and its raw `info` dictionary. The built-in group
/// is open to other programs, so its files name no group.
fn describe(group: &GroupDescription, name: FileName, digest: &FileDigest) -> (ListingDraft, Vec<u8>) {
    let private = !group.name.is_public();
    let (geometry, pieces) = (digest.geometry, digest.pieces.clone());
    let info = Info { name: name.clone(), geometry, pieces, private, group: private.then_some(group.id) };
    let raw_info = info.encode();
    let draft = ListingDraft {
        name,
        size: geometry.length(),
        sha1: digest.sha1,
        sha256: digest.sha256,
        info_hash: InfoHash::of(&raw_info),
        info_length: raw_info.len() as u64,
    };
    (draft, raw_info)
}

/// Compares a file with everything that was said of it; names the first bad piece.
fn check(share: &Share, info: &Info, digest: &FileDigest) -> Result<(), CommandError> {
    let failed = |what: String| {
        let path = PathBuf::from(&share.path);
        let text = format!("{} is not what was shared: {what}", path.display());
        Err(CommandError::new(ErrorCode::VerificationFailed, text))
    };
    let n_pieces = info.pieces.len().max(digest.pieces.len());
    if let Some(bad) = (0..n_pieces).find(|index| info.pieces.get(*index) != digest.pieces.get(*index)) {
        return failed(format!("piece {bad} is bad"));
    }
    if digest.geometry.length() != share.file.size {
        return failed(format!("it has {} bytes instead of {}", digest.geometry.length(), share.file.size));
    }
    if digest.sha1 != share.file.sha1 {
        return failed("its SHA-1 is another".to_owned());
    }
    if digest.sha256 != share.file.sha256 {
        return failed("its SHA-256 is another".to_owned());
    }
    Ok(())
}
