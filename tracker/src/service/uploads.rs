//! Listing a new file: the offer, the pages of its `info` dictionary, the commit.
//!
//! The dictionary of a 1 TiB file has 40 MB, so its pages go to an unlinked file while the SHA-1 runs along.
//! It is in memory once, at the commit, where only a few at a time may be.

use super::{Caller, Result, Service, no_such_group};
use crate::domain::{self, Operation, Refused};
use crate::limits;
use crate::store::{NewListing, StoreError, UserId};
use mini_torrent_common::control::{INFO_PAGE_LENGTH, ListingDraft, ListingId, MAX_INFO_LENGTH, Offer, UploadId};
use mini_torrent_common::geometry::{Geometry, PIECE_LENGTH};
use mini_torrent_common::hash::{GroupId, InfoHash};
use mini_torrent_common::metainfo::Info;
use mini_torrent_common::names::GroupName;
use rand::RngExt;
use sha1::{Digest, Sha1};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often a name that is taken and given up at the same moment is tried again.
const MAX_ATTEMPTS: usize = 4;

/// The uploads in progress on one connection.
#[derive(Default)]
pub(crate) struct Uploads {
    n_begun: u32,
    open: BTreeMap<UploadId, Upload>,
}

struct Upload {
    user: UserId,
    group: GroupId,
    built_in: bool,
    draft: ListingDraft,
    spool: Spool,
}

impl Uploads {
    /// Forgets them all.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }

    /// A client that begins too many has given up the oldest.
    fn begin(&mut self, upload: Upload) -> UploadId {
        while self.open.len() >= limits::MAX_UPLOADS {
            self.open.pop_first();
        }
        self.n_begun = self.n_begun.wrapping_add(1);
        let id = UploadId(self.n_begun);
        self.open.insert(id, upload);
        id
    }

    fn take(&mut self, id: UploadId, caller: &Caller) -> Result<Upload> {
        let upload = self.open.remove(&id).filter(|upload| upload.user == caller.user);
        upload.ok_or(Refused::Usage("there is no such upload on this connection"))
    }
}

impl Service {
    /// Wants to share a file: joins its sharers when the group lists it, else asks for its `info` dictionary.
    ///
    /// # Errors
    /// `no_such_group`, `not_a_member`, `name_conflict`, `invalid_metainfo`, `quota_exceeded`.
    pub(crate) async fn offer(
        &self,
        caller: &Caller,
        uploads: &mut Uploads,
        group: GroupName,
        draft: ListingDraft,
    ) -> Result<Offer> {
        let found = self.group_for(Operation::ShareFiles, group, caller.user).await?;
        if let Some((listing, added)) = self.join_listed(caller, found.id, &draft).await? {
            return Ok(if added { Offer::Joined(listing) } else { Offer::AlreadySharing(listing) });
        }
        Geometry::new(draft.size, u64::from(PIECE_LENGTH)).map_err(|error| Refused::InvalidInfo(error.to_string()))?;
        if draft.info_length == 0 || draft.info_length > MAX_INFO_LENGTH {
            return Err(Refused::InvalidInfo("it is empty or too long".into()));
        }
        let directory = self.policy.spool_directory.clone();
        let staged = Arc::clone(&self.staged_bytes);
        let spool = blocking(move || Spool::create(&directory, staged)).await?.map_err(spool_failed)?;
        let (user, built_in) = (caller.user, found.standing.built_in);
        Ok(Offer::SendInfo(uploads.begin(Upload { user, group: found.id, built_in, draft, spool })))
    }

    /// The listing of this name, when it has this content; the caller shares it then. `true` for a new sharer.
    async fn join_listed(
        &self,
        caller: &Caller,
        group: GroupId,
        draft: &ListingDraft,
    ) -> Result<Option<(ListingId, bool)>> {
        let Some(existing) = self.store.listing_named(group, draft.name.clone()).await? else { return Ok(None) };
        domain::check_same_content(&existing.draft, draft)?;
        match self.share(caller, existing.id).await {
            Ok(added) => Ok(Some((existing.id, added))),
            // Its last sharer stopped a moment ago.
            Err(Refused::NoSuchFile) => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    /// Takes a page. A page out of order ends the upload.
    ///
    /// # Errors
    /// `usage`, `invalid_metainfo`, `rate_limited` when too much is in progress on all connections.
    pub(crate) async fn put_info(
        &self,
        caller: &Caller,
        uploads: &mut Uploads,
        id: UploadId,
        offset: u64,
        bytes: Vec<u8>,
    ) -> Result<()> {
        let mut upload = uploads.take(id, caller)?;
        if offset != upload.spool.length || bytes.is_empty() || bytes.len() > INFO_PAGE_LENGTH {
            return Err(Refused::Usage("the page is out of order, empty or too long"));
        }
        if upload.draft.info_length - offset < bytes.len() as u64 {
            return Err(Refused::InvalidInfo("it is longer than announced".into()));
        }
        let upload = blocking(move || upload.spool.append(&bytes).map(|()| upload)).await?.map_err(spool_failed)?;
        uploads.open.insert(id, upload);
        Ok(())
    }

    /// Lists the file with the caller as its first sharer. Somebody else may have listed the same meanwhile.
    ///
    /// # Errors
    /// `usage`, `invalid_metainfo`, `not_a_member`, `no_such_group`, `name_conflict`, `quota_exceeded`.
    pub(crate) async fn commit_listing(
        &self,
        caller: &Caller,
        uploads: &mut Uploads,
        id: UploadId,
    ) -> Result<ListingId> {
        let upload = uploads.take(id, caller)?;
        let Upload { group, built_in, draft, mut spool, .. } = upload;
        if spool.length != draft.info_length {
            return Err(Refused::InvalidInfo("it is shorter than announced".into()));
        }
        let _permit = self.commits.acquire().await.map_err(|_| Refused::Internal)?;
        let checked = blocking(move || -> Result<_> {
            let raw = spool.read_all().map_err(spool_failed)?;
            let info = Info::decode(&raw).map_err(|error| Refused::InvalidInfo(error.to_string()))?;
            domain::check_info(&info, spool.hash(), &draft, (!built_in).then_some(group))?;
            Ok((Arc::new(raw), draft))
        });
        let (raw, draft) = checked.await??;
        for _ in 0..MAX_ATTEMPTS {
            let at_ms = self.clock.wall_ms();
            let new = NewListing { group, draft: draft.clone(), info: Arc::clone(&raw), at_ms };
            let rule = self.rule(Operation::ShareFiles);
            match self.store.list_file(caller.actor(), new, rule, domain::check_quota).await {
                Ok(listing) => {
                    if built_in {
                        self.refresh_keys().await;
                    }
                    tracing::info!(user = %caller.name, file = %draft.name, listing = listing.0, "listed");
                    return Ok(listing);
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(no_such_group(error)),
            }
            // Without the name, which is the listing's: to join twice is to join.
            if let Some((listing, _)) = self.join_listed(&caller.unnamed(), group, &draft).await? {
                return Ok(listing);
            }
        }
        Err(Refused::StoreUnavailable)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Refused::Internal)
}

fn spool_failed(error: io::Error) -> Refused {
    if error.kind() == io::ErrorKind::QuotaExceeded {
        return Refused::UploadsBusy;
    }
    tracing::error!(%error, "an upload cannot be kept");
    Refused::StoreUnavailable
}

/// Bytes that wait on disk in a file without a name, so that a crash leaves nothing behind.
struct Spool {
    file: File,
    length: u64,
    sha1: Sha1,
    staged: Arc<AtomicU64>,
}

impl Spool {
    fn create(directory: &Path, staged: Arc<AtomicU64>) -> io::Result<Self> {
        let path = directory.join(format!("upload-{:016x}.tmp", rand::rng().random::<u64>()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self { file, length: 0, sha1: Sha1::new(), staged })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        // Counted before it is written, and taken back by `Drop` whatever happens.
        self.length += length;
        if self.staged.fetch_add(length, Ordering::Relaxed) + length > limits::MAX_STAGED_BYTES {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.file.write_all(bytes)?;
        self.sha1.update(bytes);
        Ok(())
    }

    fn read_all(&mut self) -> io::Result<Vec<u8>> {
        let mut raw = Vec::with_capacity(usize::try_from(self.length).unwrap_or_default());
        self.file.rewind()?;
        self.file.read_to_end(&mut raw)?;
        Ok(raw)
    }

    fn hash(&self) -> InfoHash {
        InfoHash(self.sha1.clone().finalize().into())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.staged.fetch_sub(self.length, Ordering::Relaxed);
    }
}
