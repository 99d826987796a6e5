//! Which keys admit an ordinary client to which file, in memory: the copy of the store that each announce asks.
//!
//! An announce holds the table while it is noted in the swarm, and a change ends the peers of what ended before it lets
//! go of the table. So nobody announces with a key that has ended, and no peer outlives its key.

mod digest_front;
mod usage;

pub(crate) use usage::{TooManyPlaces, Used};

use crate::announces::KeyIndex;
use crate::store::{Admitted, AdmittedKey};
use digest_front::{AsItIs, DigestFront};
use mini_torrent_common::announce_key::AnnounceKey;
use mini_torrent_common::control::{KeyId, ListingId};
use mini_torrent_common::hash::{InfoHash, Sha256Hash};
use mini_torrent_common::names::UserName;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use usage::Usage;

/// What admits ordinary clients.
#[derive(Default)]
pub(crate) struct KeyTable {
    admitting: RwLock<Admitting>,
}

/// The table as it stands while this is held.
pub(crate) type Held<'a> = RwLockReadGuard<'a, Admitting>;

/// Keys and open files.
#[derive(Default)]
pub(crate) struct Admitting {
    by_digest: HashMap<DigestFront, KeyIndex, AsItIs>,
    /// A key keeps its place, for its peers name it.
    keys: Vec<Option<Key>>,
    free: Vec<KeyIndex>,
    files: HashMap<InfoHash, OrdinaryFile>,
    listings: HashMap<ListingId, InfoHash>,
}

/// A key that admits.
pub(crate) struct Key {
    /// Its number.
    pub id: KeyId,
    /// Whose it is.
    pub user: UserName,
    /// The file that it opens.
    pub listing: ListingId,
    /// The same on the wire.
    pub info_hash: InfoHash,
    digest: Sha256Hash,
    usage: Mutex<Usage>,
}

/// A file that ordinary clients may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OrdinaryFile {
    /// The listing.
    pub listing: ListingId,
    /// Whether they need no key.
    pub open: bool,
}

/// Something that admits no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The file.
    pub info_hash: InfoHash,
    /// The listing.
    pub listing: ListingId,
    /// The key, or [`KeyIndex::OPEN`]; `None` for the file itself.
    pub key: Option<KeyIndex>,
}

impl KeyTable {
    /// Keeps the table as it is for a moment; never across an await.
    pub(crate) fn hold(&self) -> Held<'_> {
        self.admitting.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the store says, keeping what is known of the use of keys; `end` ends the peers of what is gone.
    pub(crate) fn replace(&self, admitted: Admitted, mut end: impl FnMut(Ended)) {
        let mut admitting = self.admitting.write().unwrap_or_else(PoisonError::into_inner);
        let files = files_of(&admitted);
        let is_gone =
            |info_hash, listing| files.get(&info_hash).is_none_or(|now: &OrdinaryFile| now.listing != listing);
        for (info_hash, file) in admitting.files() {
            let OrdinaryFile { listing, open } = file;
            if is_gone(info_hash, listing) {
                end(Ended { info_hash, listing, key: None });
            } else if open && files.get(&info_hash).is_some_and(|now| !now.open) {
                end(Ended { info_hash, listing, key: Some(KeyIndex::OPEN) });
            }
        }
        let ids: HashSet<_> = admitted.keys.iter().map(|key| key.id).collect();
        admitting.drop_keys(&ids, |ended| {
            // Of a file that is gone everything has ended above, at once.
            if !is_gone(ended.info_hash, ended.listing) {
                end(ended);
            }
        });
        for key in admitted.keys {
            admitting.add(key);
        }
        admitting.listings = files.iter().map(|(info_hash, file)| (file.listing, *info_hash)).collect();
        admitting.files = files;
    }
}

fn files_of(admitted: &Admitted) -> HashMap<InfoHash, OrdinaryFile> {
    let keyed = admitted.keys.iter().map(|key| (key.info_hash, OrdinaryFile { listing: key.listing, open: false }));
    let open = admitted.open.iter().map(|file| (file.info_hash, OrdinaryFile { listing: file.listing, open: true }));
    keyed.chain(open).collect()
}

impl Admitting {
    /// The key of this text, and its place.
    pub(crate) fn find(&self, key: &AnnounceKey) -> Option<(KeyIndex, &Key)> {
        let digest = key.digest();
        let index = *self.by_digest.get(&DigestFront::of(&digest))?;
        Some((index, self.key(index).filter(|key| key.digest == digest)?))
    }

    /// The key at a place.
    pub(crate) fn key(&self, index: KeyIndex) -> Option<&Key> {
        self.keys.get(index.0 as usize)?.as_ref()
    }

    /// What is known of a file that ordinary clients may be in.
    pub(crate) fn file(&self, info_hash: InfoHash) -> Option<OrdinaryFile> {
        self.files.get(&info_hash).copied()
    }

    /// The info-hash of a listing that ordinary clients may be in.
    pub(crate) fn info_hash(&self, listing: ListingId) -> Option<InfoHash> {
        self.listings.get(&listing).copied()
    }

    /// All files that ordinary clients may be in.
    pub(crate) fn files(&self) -> impl Iterator<Item = (InfoHash, OrdinaryFile)> {
        self.files.iter().map(|(info_hash, file)| (*info_hash, *file))
    }

    /// All keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().flatten()
    }

    /// All keys with their places.
    pub(crate) fn places(&self) -> impl Iterator<Item = (KeyIndex, &Key)> {
        (0..).map(KeyIndex).zip(&self.keys).filter_map(|(place, key)| Some((place, key.as_ref()?)))
    }

    fn drop_keys(&mut self, kept: &HashSet<KeyId>, mut end: impl FnMut(Ended)) {
        for (index, place) in (0..).map(KeyIndex).zip(&mut self.keys) {
            if let Some(key) = place.take_if(|key| !kept.contains(&key.id)) {
                self.by_digest.remove(&DigestFront::of(&key.digest));
                end(Ended { info_hash: key.info_hash, listing: key.listing, key: Some(index) });
                self.free.push(index);
            }
        }
    }

    fn add(&mut self, admitted: AdmittedKey) {
        let AdmittedKey { id, user, listing, info_hash, digest, .. } = admitted;
        let front = DigestFront::of(&digest);
        if self.by_digest.contains_key(&front) {
            return;
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                // The last number stands for no key. So many keys do not fit into the memory before.
                let Some(index) = u32::try_from(self.keys.len()).ok().filter(|n| *n != u32::MAX) else { return };
                self.keys.push(None);
                KeyIndex(index)
            }
        };
        if let Some(place) = self.keys.get_mut(index.0 as usize) {
            *place = Some(Key { id, user, listing, info_hash, digest, usage: Mutex::default() });
            self.by_digest.insert(front, index);
        }
    }
}

impl Key {
    /// What is known of the key's use.
    pub(crate) fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
