//! The store's methods about announce keys, and what goes in and out of them.

use super::queries::{announce_keys, operations};
use super::{Actor, OperationKind, QuotaRule, Result, Rule, Store, UserId};
use mini_torrent_common::control::{GrantedKey, KeyId, KeyRow, ListingId};
use mini_torrent_common::hash::{InfoHash, Sha256Hash};
use mini_torrent_common::names::{FileName, GroupName, UserName};
use std::net::SocketAddr;
use zeroize::Zeroizing;

/// A key to be made.
pub(crate) struct NewKey {
    /// The file that it opens.
    pub listing: ListingId,
    /// The user's secret, if it has none yet: random.
    pub secret: Zeroizing<[u8; 32]>,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// A key that admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdmittedKey {
    /// Its number.
    pub id: KeyId,
    /// Whose it is.
    pub user: UserName,
    /// The file that it opens.
    pub listing: ListingId,
    /// The same on the wire.
    pub info_hash: InfoHash,
    /// SHA-256 of the key.
    pub digest: Sha256Hash,
    /// Whether the file is of the built-in group.
    pub built_in: bool,
}

/// A file of the built-in group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenFile {
    /// The listing.
    pub listing: ListingId,
    /// The same on the wire.
    pub info_hash: InfoHash,
}

/// Who is admitted as an ordinary client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// The number of the last change.
    pub change: u64,
    /// With these keys; suspended ones are not among them.
    pub keys: Vec<AdmittedKey>,
    /// Without a key, where the operator allows it.
    pub open: Vec<OpenFile>,
}

/// A key that was suspended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SuspendedKey {
    /// Whose it is.
    pub user: UserId,
    /// The file's group.
    pub group: GroupName,
    /// The file.
    pub file: FileName,
}

/// The last use of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyUse {
    /// The key.
    pub id: KeyId,
    /// From where.
    pub address: SocketAddr,
    /// When, in milliseconds since the Unix epoch.
    pub used_ms: u64,
}

impl Store {
    /// Admits ordinary clients to a group, or turns them away and ends the group's keys. No such group: `NotFound`.
    pub(crate) async fn set_stock_clients(
        &self,
        actor: Actor,
        group: GroupName,
        on: bool,
        rule: Rule,
    ) -> Result<GroupName> {
        self.write_as(actor, OperationKind::SetStockClients, move |tx| {
            announce_keys::set_stock_clients(tx, actor, &group, on, &rule)
        })
        .await
    }

    /// Makes a key of the next generation. No such listing: `NotFound`; a group without ordinary clients: refused.
    pub(crate) async fn create_key(
        &self,
        actor: Actor,
        new: NewKey,
        rule: Rule,
        quota: QuotaRule,
    ) -> Result<GrantedKey> {
        let write = self.database.write(move |tx| {
            // What is recorded is the key's number alone, for the key is a secret.
            let create = || announce_keys::create(tx, actor, &new, &rule, quota);
            let id = operations::as_actor(tx, actor, OperationKind::CreateKey, create)?;
            announce_keys::granted(tx, actor.user, id)
        });
        write.await
    }

    /// A user's keys, oldest first.
    pub(crate) async fn keys(&self, user: UserId) -> Result<Vec<KeyRow>> {
        self.database.look(move |tx| announce_keys::of_user(tx, user)).await
    }

    /// Ends a key of the actor. It has none of this number: `NotFound`.
    pub(crate) async fn revoke_key(&self, actor: Actor, id: KeyId) -> Result<()> {
        self.write_as(actor, OperationKind::RevokeKey, move |tx| announce_keys::revoke(tx, actor, id)).await
    }

    /// Suspends a key; `None` when it has ended or is suspended already.
    pub(crate) async fn suspend_key(&self, id: KeyId) -> Result<Option<SuspendedKey>> {
        self.database.write(move |tx| announce_keys::suspend(tx, id)).await
    }

    /// Notes when and from where keys were used last; those that have ended are passed over.
    pub(crate) async fn note_key_use(&self, uses: Vec<KeyUse>) -> Result<()> {
        self.database.write(move |tx| announce_keys::note_use(tx, &uses)).await
    }

    /// Who is admitted as an ordinary client; `None` when that has not changed since the change of this number.
    pub(crate) async fn admitted(&self, known: u64) -> Result<Option<Admitted>> {
        self.database.read(move |tx| announce_keys::admitted(tx, known)).await
    }
}
