//! The use cases, one method each. A method asks the domain's rules, the store and the presence; it knows
//! nothing of connections beyond their number.

mod accounts;
mod admission;
mod governing;
mod groups;
mod health;
mod keys;
mod listings;
mod ordinary;
mod other_trackers;
mod revocations;
mod sessions;
mod stock_elsewhere;
mod swarms;
mod uploads;

pub(crate) use ordinary::{Credential, OnlineStockPeer, OrdinaryAnnounce, TurnedAway};
pub(crate) use uploads::Uploads;

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::domain::{self, MemberOperation, Operation, Refused, Standing};
use crate::limits;
use crate::metrics::Metrics;
use crate::passwords::Passwords;
use crate::presence::{Client, ConnectionId, Presence, SignedInUser};
use crate::store::{
    Actor, FileRule, GroupStanding, MemberRule, Once, Rule, SessionId, SharingFacts, Store, StoreError, TrackerNumber,
    UserId,
};
use crate::tickets::{TicketKeyError, Tickets};
use crate::told::Told;
use health::Health;
use mini_torrent_common::hash::{GroupId, OperationId};
use mini_torrent_common::names::{GroupName, UserName};
use ordinary::OrdinaryClients;
use other_trackers::OtherTrackers;
use revocations::Following;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::Semaphore;

type Result<T> = std::result::Result<T, Refused>;

/// What the operator decides about the service.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// Which of the deployment's trackers this one is.
    pub number: TrackerNumber,
    /// Whether strangers may create accounts.
    pub registration_open: bool,
    /// Whether the built-in group is there.
    pub public_group: bool,
    /// Whether ordinary clients need no key for the files of the built-in group.
    pub open_public: bool,
    /// Where uploads are kept until they are complete.
    pub spool_directory: PathBuf,
}

/// The use cases with everything they need.
pub(crate) struct Service {
    store: Store,
    presence: Presence,
    clock: Clock,
    passwords: Passwords,
    backoff: Backoff,
    tickets: Tickets,
    ordinary: OrdinaryClients,
    health: Health,
    metrics: Metrics,
    revocations: Following,
    others: OtherTrackers,
    join_requests: Told<(GroupId, UserId)>,
    policy: Policy,
    staged_bytes: Arc<AtomicU64>,
    commits: Semaphore,
}

/// A client on its connection, signed in or not.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    /// The connection.
    pub connection: ConnectionId,
    /// The client.
    pub client: Client,
    /// Where the connection comes from.
    pub source: IpAddr,
}

/// A signed-in user on a connection.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The account.
    pub user: UserId,
    /// Its name.
    pub name: UserName,
    /// Its session.
    pub session: SessionId,
    /// The connection.
    pub connection: ConnectionId,
    /// Its name for what it asks for, if it gave one.
    pub once: Option<Once>,
}

impl Caller {
    /// As what the store knows it.
    fn actor(&self) -> Actor {
        Actor { user: self.user, session: self.session, once: self.once }
    }

    /// The same for something that has no name.
    fn unnamed(&self) -> Self {
        Self { once: None, ..self.clone() }
    }
}

impl Service {
    /// Puts the parts together.
    pub(crate) fn new(store: Store, clock: Clock, passwords: Passwords, tickets: Tickets, policy: Policy) -> Self {
        Self {
            store,
            presence: Presence::new(clock.clone()),
            backoff: Backoff::new(clock.clone()),
            ordinary: OrdinaryClients::new(clock.clone()),
            others: OtherTrackers::new(policy.number, &clock),
            health: Health::default(),
            metrics: Metrics::default(),
            join_requests: Told::new(clock.clone(), limits::JOIN_REQUEST_REMINDER, limits::MAX_REMEMBERED_REQUESTS),
            clock,
            passwords,
            tickets,
            revocations: Following::default(),
            policy,
            staged_bytes: Arc::default(),
            commits: Semaphore::new(limits::MAX_CONCURRENT_COMMITS),
        }
    }

    /// The clock that everything here goes by.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Who is online.
    pub(crate) fn presence(&self) -> &Presence {
        &self.presence
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What is durable.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Who is signed in on a connection.
    ///
    /// # Errors
    /// [`Refused::NotLoggedIn`].
    pub(crate) fn caller(&self, connection: ConnectionId) -> Result<Caller> {
        let SignedInUser { id, name, session } = self.presence.user_of(connection).ok_or(Refused::NotLoggedIn)?;
        Ok(Caller { user: id, name, session, connection, once: None })
    }

    /// The name that a client gives to what it asks for now.
    pub(crate) fn once(&self, id: OperationId) -> Once {
        Once { id, at_ms: self.clock.wall_ms() }
    }

    /// The rule of an operation, to be asked inside a transaction.
    fn rule(&self, operation: Operation) -> Rule {
        let public_group = self.policy.public_group;
        Box::new(move |standing| permit(public_group, operation, standing))
    }

    /// The same for what is done to a member.
    fn member_rule(&self, operation: MemberOperation) -> MemberRule {
        let public_group = self.policy.public_group;
        Box::new(move |standing, target| {
            check_group_is_there(public_group, standing)?;
            domain::permit_on_member(operation, standing, target)
        })
    }

    /// The same for the removal of a file.
    fn file_rule(&self) -> FileRule {
        let public_group = self.policy.public_group;
        Box::new(move |standing, file| {
            check_group_is_there(public_group, standing)?;
            domain::permit_file_removal(standing, file)
        })
    }

    /// The group of this name, if the user may do this with it.
    async fn group_for(&self, operation: Operation, group: GroupName, user: UserId) -> Result<GroupStanding> {
        let found = self.store.standing(group, user).await.map_err(no_such_group)?;
        permit(self.policy.public_group, operation, found.standing)?;
        Ok(found)
    }
}

/// The domain's rule, but for a built-in group that the operator took away.
fn permit(public_group: bool, operation: Operation, standing: Standing) -> Result<()> {
    check_group_is_there(public_group, standing)?;
    domain::permit(operation, standing)
}

/// The same for a listing that is named by its number.
fn permit_by_number(public_group: bool, operation: Operation, facts: &SharingFacts) -> Result<()> {
    check_group_is_there(public_group, facts.standing)?;
    domain::permit_by_number(operation, facts.standing, facts.was_member)
}

fn check_group_is_there(public_group: bool, standing: Standing) -> Result<()> {
    if standing.built_in && !public_group { Err(Refused::NoSuchGroup) } else { Ok(()) }
}

fn no_such_group(error: StoreError) -> Refused {
    or(error, Refused::NoSuchGroup, Refused::Internal)
}

fn no_such_file(error: StoreError) -> Refused {
    or(error, Refused::NoSuchFile, Refused::Internal)
}

/// What a store's error means where it came up.
fn or(error: StoreError, not_found: Refused, conflict: Refused) -> Refused {
    match error {
        StoreError::NotFound => not_found,
        StoreError::Conflict => conflict,
        StoreError::Unavailable => Refused::StoreUnavailable,
        StoreError::Refused(refused) => refused,
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        or(error, Self::Internal, Self::Internal)
    }
}

impl From<TicketKeyError> for Refused {
    fn from(error: TicketKeyError) -> Self {
        match error {
            TicketKeyError::Store(error) => error.into(),
            TicketKeyError::Cryptography(_) | TicketKeyError::Malformed => {
                tracing::error!(%error, "tickets cannot be signed");
                Self::Internal
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
