//! Roles as they are stored.

use super::Result;
use crate::store::sql::Row;
use mini_torrent_common::control::Role;

pub(super) const MEMBER: i64 = 1;
pub(super) const ADMIN: i64 = 2;
pub(super) const OWNER: i64 = 3;

/// A role of a member; none for NULL.
pub(super) fn read(row: Row<'_>, column: usize) -> Result<Option<Role>> {
    Ok(match row.get(column)? {
        None => None,
        Some(ADMIN) => Some(Role::Admin),
        Some(OWNER) => Some(Role::Owner),
        Some(_) => Some(Role::Member),
    })
}
