//! The store: everything durable. Each method is one transaction; a write is on the disk before its answer.
//!
//! The store holds atomicity and no policy: where a decision depends on what the transaction finds, the caller
//! passes the rule. The method list is what another database would have to offer; `contract` tests it.

mod records;
mod sqlite;

pub(crate) use records::*;
pub(crate) use sqlite::OpenError;

use mini_torrent_common::control::{GroupRow, JoinRequest, Listing, ListingId};
use mini_torrent_common::hash::{GroupId, Sha256Hash};
use mini_torrent_common::names::{FileName, GroupName, UserName};
use mini_torrent_common::tls::Fingerprint;
use serde_json::Value;
use sqlite::{Database, accounts, export, groups, listings};
use std::path::Path;

type Result<T> = std::result::Result<T, StoreError>;

/// The durable state of a deployment.
pub(crate) struct Store {
    database: Database,
}

impl Store {
    /// Opens the database in this directory, bringing its schema up to date. The caller holds the start lock.
    ///
    /// # Errors
    /// When it cannot be opened or is of a newer schema.
    pub(crate) fn open(directory: &Path) -> std::result::Result<Self, OpenError> {
        Ok(Self { database: Database::open(&directory.join("tracker.db"))? })
    }

    /// Waits until everything is written and closes.
    pub(crate) async fn close(&self) {
        self.database.close().await;
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

    /// The account of this name.
    pub(crate) async fn account(&self, name: UserName) -> Result<Option<Account>> {
        self.database.read(move |tx| accounts::account(tx, &name)).await
    }

    /// Begins a session and ends all others of the user.
    pub(crate) async fn open_session(&self, session: Session) -> Result<()> {
        self.database.write(move |tx| accounts::open_session(tx, &session)).await
    }

    /// The session of this token, with the user's name.
    pub(crate) async fn session(&self, digest: Sha256Hash) -> Result<Option<(Session, UserName)>> {
        self.database.read(move |tx| accounts::session(tx, digest)).await
    }

    /// Prolongs a session, now used from `address`. Gone: `NotFound`.
    pub(crate) async fn renew_session(&self, digest: Sha256Hash, address: String, expires_ms: u64) -> Result<()> {
        self.database.write(move |tx| accounts::renew_session(tx, digest, &address, expires_ms)).await
    }

    /// Ends a session.
    pub(crate) async fn close_session(&self, digest: Sha256Hash) -> Result<()> {
        self.database.write(move |tx| accounts::close_session(tx, digest)).await
    }

    /// Prolongs the sessions of connected clients and drops all that have expired.
    pub(crate) async fn keep_sessions(&self, live: Vec<Sha256Hash>, now_ms: u64, expires_ms: u64) -> Result<()> {
        self.database.write(move |tx| accounts::keep_sessions(tx, &live, now_ms, expires_ms)).await
    }

    /// Creates a group with its owner as the first member. Another one of the name: `Conflict`.
    pub(crate) async fn create_group(
        &self,
        id: GroupId,
        name: GroupName,
        owner: UserId,
        at_ms: u64,
        quota: QuotaRule,
    ) -> Result<()> {
        self.database.write(move |tx| groups::create(tx, id, &name, owner, at_ms, quota)).await
    }

    /// What a user is to a group. No such group: `NotFound`.
    pub(crate) async fn standing(&self, group: GroupName, user: UserId) -> Result<GroupStanding> {
        self.database.read(move |tx| groups::standing(tx, &group, user)).await
    }

    /// Groups behind `after`, sorted by name, with what `user` is to them.
    pub(crate) async fn groups(&self, after: Option<GroupName>, limit: usize, user: UserId) -> Result<Vec<GroupRow>> {
        self.database.read(move |tx| groups::page(tx, after.as_ref(), limit, user)).await
    }

    /// Records a join request. No such group: `NotFound`.
    pub(crate) async fn request_to_join(
        &self,
        group: GroupName,
        user: UserId,
        at_ms: u64,
        rule: Rule,
        quota: QuotaRule,
    ) -> Result<Requested> {
        self.database.write(move |tx| groups::request(tx, &group, user, at_ms, &rule, quota)).await
    }

    /// Pending requests behind `after`, in order of arrival, and where the next page begins.
    pub(crate) async fn join_requests(
        &self,
        group: GroupId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<(Vec<JoinRequest>, Option<u64>)> {
        self.database.read(move |tx| groups::requests(tx, group, after, limit)).await
    }

    /// Makes a requester a member, or turns it away. `None` when there is no such request; no such group:
    /// `NotFound`.
    pub(crate) async fn decide_request(
        &self,
        group: GroupName,
        actor: UserId,
        subject: UserName,
        accept: bool,
        at_ms: u64,
        rule: Rule,
    ) -> Result<Option<Decided>> {
        self.database.write(move |tx| groups::decide(tx, &group, actor, &subject, accept, at_ms, &rule)).await
    }

    /// Ends a membership with its shares, or withdraws a request; the last one out removes the group. No such
    /// group: `NotFound`.
    pub(crate) async fn leave_group(
        &self,
        group: GroupName,
        user: UserId,
        rule: Rule,
        succession: Succession,
    ) -> Result<Departure> {
        self.database.write(move |tx| groups::leave(tx, &group, user, &rule, succession)).await
    }

    /// Listings of a group behind `after`, sorted by name.
    pub(crate) async fn listings(&self, group: GroupId, after: Option<FileName>, limit: usize) -> Result<Vec<Listing>> {
        self.database.read(move |tx| listings::page(tx, group, after.as_ref(), limit)).await
    }

    /// The listing of this name, in the sense of [`FileName::key`].
    pub(crate) async fn listing_named(&self, group: GroupId, file: FileName) -> Result<Option<Listing>> {
        self.database.read(move |tx| listings::named(tx, group, &file)).await
    }

    /// Every group's listing of this name.
    pub(crate) async fn listings_everywhere(&self, file: FileName) -> Result<Vec<(GroupName, Listing)>> {
        self.database.read(move |tx| listings::named_everywhere(tx, &file)).await
    }

    /// Every listing with a greater number than `after`, in order.
    pub(crate) async fn all_listings(
        &self,
        after: Option<ListingId>,
        limit: usize,
    ) -> Result<Vec<(GroupName, Listing)>> {
        self.database.read(move |tx| listings::all(tx, after, limit)).await
    }

    /// Bytes of a listing's `info` dictionary from `offset` on, as many as lie in one row; none at its end.
    pub(crate) async fn info_page(&self, listing: ListingId, offset: u64) -> Result<Vec<u8>> {
        self.database.read(move |tx| listings::info_page(tx, listing, offset)).await
    }

    /// Lists a file with its uploader as the first sharer. No such group: `NotFound`; the name is taken:
    /// `Conflict`.
    pub(crate) async fn list_file(&self, new: NewListing, rule: Rule, quota: QuotaRule) -> Result<ListingId> {
        self.database.write(move |tx| listings::list(tx, &new, &rule, quota)).await
    }

    /// Makes a user a sharer; `false` if it was one. No such listing: `NotFound`.
    pub(crate) async fn add_share(
        &self,
        listing: ListingId,
        user: UserId,
        at_ms: u64,
        rule: Rule,
        quota: QuotaRule,
    ) -> Result<bool> {
        self.database.write(move |tx| listings::add_share(tx, listing, user, at_ms, &rule, quota)).await
    }

    /// Ends a share; the listing goes with its last one. No such listing: `NotFound`.
    pub(crate) async fn end_share(&self, listing: ListingId, user: UserId, rule: Rule) -> Result<EndedShare> {
        self.database.write(move |tx| listings::end_share(tx, listing, user, &rule)).await
    }

    /// What a user is to each of these listings; those that are gone are left out.
    pub(crate) async fn sharing(&self, user: UserId, of: Vec<ListingId>) -> Result<Vec<SharingFacts>> {
        self.database.read(move |tx| listings::sharing(tx, user, &of)).await
    }

    /// Everything that is no secret, as a readable document.
    pub(crate) async fn export(&self) -> Result<Value> {
        self.database.read(export::everything).await
    }
}

#[cfg(test)]
mod contract;
