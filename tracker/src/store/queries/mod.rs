//! The SQL of the store's methods, written once for every database. Each function runs in its caller's
//! transaction, which may be run again from the start: it keeps nothing of its own.

pub(super) mod accounts;
pub(super) mod announce_keys;
pub(super) mod export;
pub(super) mod governing;
pub(super) mod groups;
pub(super) mod listings;
pub(super) mod online;
pub(super) mod operations;
pub(super) mod revocations;
mod roles;
pub(super) mod sessions;
pub(super) mod tickets;

use super::Result;

/// A page's length as SQL takes it.
fn limit(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
