//! The store: everything durable. Each method is one transaction; a write is on the disk before its answer.
//!
//! The store holds atomicity and no policy: where a decision depends on what the transaction finds, the caller
//! passes the rule. Who writes as a client is an [`Actor`], whose session the transaction checks: without it the
//! write is refused with `session_ended`. What an actor has given a name to is done once: asked for again by that
//! name, its outcome is what it was. `queries` has the methods' SQL, which every database takes; `sqlite` and
//! `postgres` run it, and `contract` tests that they do the same.

mod announce_keys;
mod backup;
mod copying;
mod database;
mod location;
mod online;
mod postgres;
mod queries;
mod records;
mod sql;
mod sqlite;

pub(crate) use announce_keys::*;
pub(crate) use backup::{BackupError, back_up};
pub(crate) use copying::{Copied, CopyError, copy};
pub(crate) use database::{OpenError, StartLock};
pub use location::{Location, LocationError, Server};
pub(crate) use online::*;
pub(crate) use records::*;

use database::Database;
use mini_torrent_common::control::{GroupRow, JoinRequest, Listing, ListingId, Role};
use mini_torrent_common::hash::GroupId;
use mini_torrent_common::names::{FileName, GroupName, UserName};
use mini_torrent_common::revocation::Revocation;
use mini_torrent_common::tls::{Fingerprint, PublicKey};
use queries::{accounts, export, governing, groups, listings, operations, revocations, sessions, tickets};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sql::Tx;

type Result<T> = std::result::Result<T, StoreError>;

/// The durable state of a deployment.
pub(crate) struct Store {
    database: Database,
}

impl Store {
    /// Opens the database, bringing its schema up to date. Until the lock is dropped no other tracker opens it.
    ///
    /// # Errors
    /// When it cannot be opened or is of a newer schema.
    pub(crate) async fn open(location: &Location) -> std::result::Result<(Self, StartLock), OpenError> {
        let (database, lock) = Database::open(location).await?;
        Ok((Self { database }, lock))
    }

    /// The store of a data directory.
    #[cfg(test)]
    pub(crate) async fn within(directory: &std::path::Path) -> Self {
        Self::open(&Location::within(directory)).await.unwrap().0
    }

    /// Waits until everything is written and closes.
    pub(crate) async fn close(&self) {
        self.database.close().await;
    }

    /// Writes for an actor whose session still is; what it has given a name to only once.
    async fn write_as<T: Serialize + DeserializeOwned + Send + 'static>(
        &self,
        actor: Actor,
        kind: OperationKind,
        work: impl Fn(Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.database.write(move |tx| operations::as_actor(tx, actor, kind, || work(tx))).await
    }

    /// The deployment's fingerprint, once one is set.
    pub(crate) async fn deployment(&self) -> Result<Option<Fingerprint>> {
        self.database.read(accounts::deployment).await
    }

    /// Sets the deployment's fingerprint and creates the built-in group, unless that was done before.
    pub(crate) async fn found(&self, key: Fingerprint, public: GroupId, at_ms: u64) -> Result<()> {
        self.database.write(move |tx| accounts::found(tx, key, public, at_ms)).await
    }

    /// Creates an account. Another one of the name: `Conflict`.
    pub(crate) async fn create_user(&self, name: UserName, password_hash: String, at_ms: u64) -> Result<UserId> {
        self.database.write(move |tx| accounts::create_user(tx, &name, &password_hash, at_ms)).await
    }

    /// As [`Self::create_user`] for a client that is not signed in, once under a name of its own.
    pub(crate) async fn register(&self, new: NewUser) -> Result<UserId> {
        let owner = Owner::Client(new.client_key);
        let write = self.database.write(move |tx| {
            operations::once(tx, owner, new.once, OperationKind::CreateUser, || {
                accounts::create_user(tx, &new.name, &new.password_hash, new.at_ms)
            })
        });
        write.await
    }

    /// The account that a client has created under this name for it.
    pub(crate) async fn registered(&self, client_key: PublicKey, once: Once) -> Result<Option<UserId>> {
        let owner = Owner::Client(client_key);
        self.database.read(move |tx| operations::outcome(tx, owner, once, OperationKind::CreateUser)).await
    }

    /// The account of this name.
    pub(crate) async fn account(&self, name: UserName) -> Result<Option<Account>> {
        self.database.look(move |tx| accounts::account(tx, &name)).await
    }

    /// Locks an account and ends its sessions and tickets; returns its name as it is stored. No such account:
    /// `NotFound`.
    pub(crate) async fn lock_user(&self, name: UserName, at_ms: u64) -> Result<(UserId, UserName)> {
        self.database.write(move |tx| accounts::lock(tx, &name, at_ms)).await
    }

    /// Lets an account sign in again; returns its name as it is stored. No such account: `NotFound`.
    pub(crate) async fn unlock_user(&self, name: UserName) -> Result<(UserId, UserName)> {
        self.database.write(move |tx| accounts::unlock(tx, &name)).await
    }

    /// Begins a session and ends all others of the user. Another client's key than at the last time revokes the
    /// account's tickets. A locked account: refused.
    pub(crate) async fn begin_session(&self, session: NewSession) -> Result<BegunSession> {
        self.database.write(move |tx| sessions::begin(tx, &session)).await
    }

    /// Takes up the session of a token, which gets a successor.
    pub(crate) async fn resume_session(&self, shown: ShownToken) -> Result<Resumption> {
        self.database.write(move |tx| sessions::resume(tx, &shown)).await
    }

    /// A user's sessions, oldest first.
    pub(crate) async fn sessions(&self, user: UserId) -> Result<Vec<Session>> {
        self.database.look(move |tx| sessions::all(tx, user)).await
    }

    /// Ends the actor's session.
    pub(crate) async fn end_session(&self, actor: Actor) -> Result<()> {
        self.database.write(move |tx| sessions::end(tx, actor)).await
    }

    /// Ends all sessions and tickets of the actor's account.
    pub(crate) async fn end_everywhere(&self, actor: Actor, at_ms: u64) -> Result<()> {
        self.database.write(move |tx| sessions::end_everywhere(tx, actor, at_ms)).await
    }

    /// Prolongs the sessions of connected clients and drops sessions and revocations that have had their time.
    pub(crate) async fn keep_sessions(&self, live: Vec<SessionId>, now_ms: u64, expires_ms: u64) -> Result<()> {
        self.database.write(move |tx| sessions::keep(tx, &live, now_ms, expires_ms)).await
    }

    /// The key to sign tickets with, which is `draft` only when there is no other. Old ones are dropped.
    pub(crate) async fn ticket_key(&self, draft: StoredTicketKey, now_ms: u64) -> Result<StoredTicketKey> {
        self.database.write(move |tx| tickets::ticket_key(tx, &draft, now_ms)).await
    }

    /// What the actor's ticket for a group says, and the first page of the revocations behind `after`. No such
    /// group: `NotFound`; whether the actor may have it is the caller's to decide.
    pub(crate) async fn admission(
        &self,
        actor: Actor,
        group: GroupId,
        after: u64,
        now_ms: u64,
    ) -> Result<AdmissionFacts> {
        self.database.read(move |tx| tickets::admission(tx, actor, group, after, now_ms)).await
    }

    /// The number of the latest revocation.
    pub(crate) async fn last_revocation(&self) -> Result<u64> {
        self.database.read(revocations::last_number).await
    }

    /// Revocations behind `after`, in order.
    pub(crate) async fn revocations(&self, after: u64, limit: usize) -> Result<Vec<Revocation>> {
        self.database.read(move |tx| revocations::all(tx, after, limit)).await
    }

    /// What is left of these users' memberships and sessions, in the order of the questions.
    pub(crate) async fn remaining(&self, revoked: Vec<Revoked>) -> Result<Vec<Remaining>> {
        self.database.read(move |tx| revocations::remaining(tx, &revoked)).await
    }

    /// Creates a group with its owner as the first member. Another one of the name: `Conflict`.
    pub(crate) async fn create_group(
        &self,
        id: GroupId,
        name: GroupName,
        owner: Actor,
        at_ms: u64,
        quota: QuotaRule,
    ) -> Result<()> {
        self.write_as(owner, OperationKind::CreateGroup, move |tx| {
            groups::create(tx, id, &name, owner.user, at_ms, quota)
        })
        .await
    }

    /// What a user is to a group. No such group: `NotFound`.
    pub(crate) async fn standing(&self, group: GroupName, user: UserId) -> Result<GroupStanding> {
        self.database.look(move |tx| groups::standing(tx, &group, user)).await
    }

    /// Groups behind `after`, sorted by name, with what `user` is to them.
    pub(crate) async fn groups(&self, after: Option<GroupName>, limit: usize, user: UserId) -> Result<Vec<GroupRow>> {
        self.database.look(move |tx| groups::page(tx, after.as_ref(), limit, user)).await
    }

    /// Records a join request. No such group: `NotFound`.
    pub(crate) async fn request_to_join(
        &self,
        group: GroupName,
        actor: Actor,
        at_ms: u64,
        rule: Rule,
        quota: QuotaRule,
    ) -> Result<Requested> {
        self.write_as(actor, OperationKind::RequestToJoin, move |tx| {
            groups::request(tx, &group, actor, at_ms, &rule, quota)
        })
        .await
    }

    /// Pending requests behind `after`, in order of arrival, and where the next page begins.
    pub(crate) async fn join_requests(
        &self,
        group: GroupId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<(Vec<JoinRequest>, Option<u64>)> {
        self.database.look(move |tx| groups::requests(tx, group, after, limit)).await
    }

    /// Makes a requester a member, or turns it away. No such request: refused; no such group: `NotFound`.
    pub(crate) async fn decide_request(
        &self,
        group: GroupName,
        actor: Actor,
        subject: UserName,
        accept: bool,
        at_ms: u64,
        rule: Rule,
    ) -> Result<Decided> {
        self.write_as(actor, OperationKind::DecideRequest, move |tx| {
            groups::decide(tx, &group, actor, &subject, accept, at_ms, &rule)
        })
        .await
    }

    /// Ends a membership with its shares, or withdraws a request; the last one out removes the group. No such
    /// group: `NotFound`.
    pub(crate) async fn leave_group(
        &self,
        group: GroupName,
        actor: Actor,
        at_ms: u64,
        rule: Rule,
        succession: Succession,
    ) -> Result<Departure> {
        self.write_as(actor, OperationKind::LeaveGroup, move |tx| {
            groups::leave(tx, &group, actor, at_ms, &rule, succession)
        })
        .await
    }

    /// Ends another user's membership with its shares. No such group: `NotFound`.
    pub(crate) async fn remove_member(
        &self,
        actor: Actor,
        group: GroupName,
        subject: UserName,
        at_ms: u64,
        rule: MemberRule,
    ) -> Result<Removed> {
        self.write_as(actor, OperationKind::RemoveMember, move |tx| {
            governing::remove_member(tx, actor, &group, &subject, at_ms, &rule)
        })
        .await
    }

    /// Makes a member an admin, or else a member. No such group: `NotFound`.
    pub(crate) async fn set_role(
        &self,
        actor: Actor,
        group: GroupName,
        subject: UserName,
        role: Role,
        rule: MemberRule,
    ) -> Result<Governed> {
        self.write_as(actor, OperationKind::SetRole, move |tx| {
            governing::set_role(tx, actor, &group, &subject, role, &rule)
        })
        .await
    }

    /// Makes a member the owner, and the actor an admin. No such group: `NotFound`.
    pub(crate) async fn transfer_owner(
        &self,
        actor: Actor,
        group: GroupName,
        subject: UserName,
        rule: MemberRule,
        quota: QuotaRule,
    ) -> Result<Governed> {
        self.write_as(actor, OperationKind::TransferOwner, move |tx| {
            governing::transfer_owner(tx, actor, &group, &subject, &rule, quota)
        })
        .await
    }

    /// Listings of a group behind `after`, sorted by name.
    pub(crate) async fn listings(&self, group: GroupId, after: Option<FileName>, limit: usize) -> Result<Vec<Listing>> {
        self.database.look(move |tx| listings::page(tx, group, after.as_ref(), limit)).await
    }

    /// The listing of this name, in the sense of [`FileName::key`].
    pub(crate) async fn listing_named(&self, group: GroupId, file: FileName) -> Result<Option<Listing>> {
        self.database.look(move |tx| listings::named(tx, group, &file)).await
    }

    /// Every group's listing of this name.
    pub(crate) async fn listings_everywhere(&self, file: FileName) -> Result<Vec<(GroupName, Listing)>> {
        self.database.look(move |tx| listings::named_everywhere(tx, &file)).await
    }

    /// Every listing with a greater number than `after`, in order.
    pub(crate) async fn all_listings(
        &self,
        after: Option<ListingId>,
        limit: usize,
    ) -> Result<Vec<(GroupName, Listing)>> {
        self.database.look(move |tx| listings::all(tx, after, limit)).await
    }

    /// Bytes of a listing's `info` dictionary from `offset` on, as many as lie in one row; none at its end.
    pub(crate) async fn info_page(&self, listing: ListingId, offset: u64) -> Result<Vec<u8>> {
        self.database.look(move |tx| listings::info_page(tx, listing, offset)).await
    }

    /// Lists a file with its uploader as the first sharer. No such group: `NotFound`; the name is taken:
    /// `Conflict`.
    pub(crate) async fn list_file(
        &self,
        actor: Actor,
        new: NewListing,
        rule: Rule,
        quota: QuotaRule,
    ) -> Result<ListingId> {
        self.write_as(actor, OperationKind::ListFile, move |tx| listings::list(tx, actor, &new, &rule, quota)).await
    }

    /// Makes a user a sharer; `false` if it was one. No such listing: `NotFound`.
    pub(crate) async fn add_share(
        &self,
        listing: ListingId,
        actor: Actor,
        at_ms: u64,
        rule: Rule,
        quota: QuotaRule,
    ) -> Result<bool> {
        self.write_as(actor, OperationKind::AddShare, move |tx| {
            listings::add_share(tx, listing, actor, at_ms, &rule, quota)
        })
        .await
    }

    /// Ends a share; the listing goes with its last one. None of the actor's: refused; no such listing: `NotFound`.
    pub(crate) async fn end_share(&self, listing: ListingId, actor: Actor, rule: Rule) -> Result<EndedShare> {
        self.write_as(actor, OperationKind::EndShare, move |tx| listings::end_share(tx, listing, actor, &rule)).await
    }

    /// Ends a listing with all its shares. No such group: `NotFound`.
    pub(crate) async fn remove_file(
        &self,
        actor: Actor,
        group: GroupName,
        file: FileName,
        rule: FileRule,
    ) -> Result<ListingId> {
        self.write_as(actor, OperationKind::RemoveFile, move |tx| {
            listings::remove_file(tx, actor, &group, &file, &rule)
        })
        .await
    }

    /// What a user is to each of these listings; those that are gone are left out.
    pub(crate) async fn sharing(&self, user: UserId, of: Vec<ListingId>) -> Result<Vec<SharingFacts>> {
        if of.len() <= listings::IDS_PER_QUERY {
            return self.database.look(move |tx| listings::sharing(tx, user, &of)).await;
        }
        self.database.read(move |tx| listings::sharing(tx, user, &of)).await
    }

    /// Everything that is no secret, as a readable document.
    pub(crate) async fn export(&self) -> Result<Value> {
        self.database.read(export::everything).await
    }
}

#[cfg(test)]
mod contract;
