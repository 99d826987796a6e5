//! Listings, their `info` dictionaries, and shares.
//!
//! Adding and ending shares find the listing's row first. Here every write has the whole database to itself
//! (`BEGIN IMMEDIATE`); a database with row locks takes that row's lock at the same place, so that the last
//! sharer's leaving and a new share cannot cross.

use super::{Result, groups, row, sessions};
use crate::domain::{ListedFile, Quota, Standing};
use crate::store::{Actor, EndedShare, FileRule, NewListing, QuotaRule, Rule, SharingFacts, StoreError, UserId};
use mini_torrent_common::control::{INFO_PAGE_LENGTH, Listing, ListingDraft, ListingId, Role};
use mini_torrent_common::hash::{GroupId, InfoHash, Sha1Hash, Sha256Hash};
use mini_torrent_common::names::{FileName, GroupName};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

const COLUMNS: &str = "l.id, l.group_id, l.name, l.size, l.sha1, l.sha256, l.info_hash, l.info_length, u.name, \
                       l.at_ms, g.name";
const TABLES: &str = "listings l JOIN users u ON u.id = l.uploader_id JOIN groups g ON g.id = l.group_id";

/// Listings in one question to the database.
const IDS_PER_QUERY: usize = 500;

fn read_listing(row: &Row<'_>) -> rusqlite::Result<Listing> {
    Ok(Listing {
        id: ListingId(row::unsigned(row, 0)?),
        group: GroupId(row::bytes(row, 1)?),
        draft: ListingDraft {
            name: row::name(row, 2)?,
            size: row::unsigned(row, 3)?,
            sha1: Sha1Hash(row::bytes(row, 4)?),
            sha256: Sha256Hash(row::bytes(row, 5)?),
            info_hash: InfoHash(row::bytes(row, 6)?),
            info_length: row::unsigned(row, 7)?,
        },
        uploader: row::name(row, 8)?,
        at_ms: row::unsigned(row, 9)?,
        n_seeders: 0,
        n_leechers: 0,
    })
}

fn read_with_group(row: &Row<'_>) -> rusqlite::Result<(GroupName, Listing)> {
    Ok((row::name(row, 10)?, read_listing(row)?))
}

pub(in crate::store) fn page(
    tx: &Connection,
    group: GroupId,
    after: Option<&FileName>,
    limit: usize,
) -> Result<Vec<Listing>> {
    let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE l.group_id = ?1 AND l.name > ?2 ORDER BY l.name LIMIT ?3");
    let mut query = tx.prepare_cached(&sql)?;
    let after = after.map_or("", FileName::as_str);
    let rows = query.query_map(params![group.as_bytes(), after, row::limit(limit)], read_listing)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(in crate::store) fn named(tx: &Connection, group: GroupId, file: &FileName) -> Result<Option<Listing>> {
    let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE l.group_id = ?1 AND l.name_key = ?2");
    Ok(tx.prepare_cached(&sql)?.query_row(params![group.as_bytes(), file.key()], read_listing).optional()?)
}

pub(in crate::store) fn named_everywhere(tx: &Connection, file: &FileName) -> Result<Vec<(GroupName, Listing)>> {
    let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE l.name_key = ?1 ORDER BY g.name");
    let mut query = tx.prepare_cached(&sql)?;
    let rows = query.query_map([file.key()], read_with_group)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(in crate::store) fn all(
    tx: &Connection,
    after: Option<ListingId>,
    limit: usize,
) -> Result<Vec<(GroupName, Listing)>> {
    let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE l.id > ?1 ORDER BY l.id LIMIT ?2");
    let mut query = tx.prepare_cached(&sql)?;
    let after = after.map_or(0, |id| id.0.cast_signed());
    let rows = query.query_map(params![after, row::limit(limit)], read_with_group)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(in crate::store) fn info_page(tx: &Connection, listing: ListingId, offset: u64) -> Result<Vec<u8>> {
    let chunk_length = INFO_PAGE_LENGTH as u64;
    let mut query = tx.prepare_cached("SELECT bytes FROM info_chunks WHERE listing_id = ?1 AND chunk_index = ?2")?;
    let chunk = query.query_row(params![listing.0.cast_signed(), (offset / chunk_length).cast_signed()], |row| {
        let within = usize::try_from(offset % chunk_length).unwrap_or(usize::MAX);
        Ok(row.get_ref(0)?.as_blob()?.get(within..).unwrap_or_default().to_vec())
    });
    Ok(chunk.optional()?.unwrap_or_default())
}

pub(in crate::store) fn list(
    tx: &Connection,
    actor: Actor,
    new: &NewListing,
    rule: &Rule,
    quota: QuotaRule,
) -> Result<ListingId> {
    sessions::check(tx, actor)?;
    let uploader = actor.user;
    rule(groups::standing_in(tx, new.group, uploader)?)?;
    let (n_listings, n_bytes): (i64, i64) = tx
        .prepare_cached("SELECT COUNT(*), COALESCE(SUM(info_length), 0) FROM listings WHERE uploader_id = ?1")?
        .query_row([uploader.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    quota(Quota::Listings, n_listings.cast_unsigned() + 1)?;
    quota(Quota::MetadataBytes, n_bytes.cast_unsigned() + new.info.len() as u64)?;
    let draft = &new.draft;
    tx.prepare_cached(
        "INSERT INTO listings
             (group_id, name, name_key, size, sha1, sha256, info_hash, info_length, uploader_id, at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        new.group.as_bytes(),
        draft.name.as_str(),
        draft.name.key(),
        draft.size.cast_signed(),
        draft.sha1.as_bytes(),
        draft.sha256.as_bytes(),
        draft.info_hash.as_bytes(),
        draft.info_length.cast_signed(),
        uploader.0,
        new.at_ms.cast_signed(),
    ])?;
    let id = tx.last_insert_rowid();
    let mut insert =
        tx.prepare_cached("INSERT INTO info_chunks (listing_id, chunk_index, bytes) VALUES (?1, ?2, ?3)")?;
    for (index, chunk) in (0_i64..).zip(new.info.chunks(INFO_PAGE_LENGTH)) {
        insert.execute(params![id, index, chunk])?;
    }
    insert_share(tx, id, uploader, new.at_ms, quota)?;
    Ok(ListingId(id.cast_unsigned()))
}

/// The group of a listing whose row is then ours until the transaction ends.
fn take_row(tx: &Connection, listing: ListingId) -> Result<GroupId> {
    let mut query = tx.prepare_cached("SELECT group_id FROM listings WHERE id = ?1")?;
    let group = query.query_row([listing.0.cast_signed()], |row| row::bytes(row, 0)).optional()?;
    group.map(GroupId).ok_or(StoreError::NotFound)
}

fn insert_share(tx: &Connection, listing: i64, user: UserId, at_ms: u64, quota: QuotaRule) -> Result<bool> {
    let n = tx
        .prepare_cached("INSERT INTO shares (listing_id, user_id, at_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
        .execute(params![listing, user.0, at_ms.cast_signed()])?;
    let n_shares: i64 =
        tx.prepare_cached("SELECT COUNT(*) FROM shares WHERE user_id = ?1")?.query_row([user.0], |row| row.get(0))?;
    quota(Quota::Shares, n_shares.cast_unsigned())?;
    Ok(n > 0)
}

pub(in crate::store) fn add_share(
    tx: &Connection,
    listing: ListingId,
    actor: Actor,
    at_ms: u64,
    rule: &Rule,
    quota: QuotaRule,
) -> Result<bool> {
    sessions::check(tx, actor)?;
    let user = actor.user;
    let group = take_row(tx, listing)?;
    rule(groups::standing_in(tx, group, user)?)?;
    insert_share(tx, listing.0.cast_signed(), user, at_ms, quota)
}

pub(in crate::store) fn end_share(
    tx: &Connection,
    listing: ListingId,
    actor: Actor,
    rule: &Rule,
) -> Result<EndedShare> {
    sessions::check(tx, actor)?;
    let user = actor.user;
    let group = take_row(tx, listing)?;
    rule(groups::standing_in(tx, group, user)?)?;
    let n = tx
        .prepare_cached("DELETE FROM shares WHERE listing_id = ?1 AND user_id = ?2")?
        .execute(params![listing.0.cast_signed(), user.0])?;
    if n == 0 {
        return Ok(EndedShare::WasNone);
    }
    let n = tx
        .prepare_cached(
            "DELETE FROM listings WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM shares WHERE listing_id = ?1)",
        )?
        .execute([listing.0.cast_signed()])?;
    Ok(if n == 0 { EndedShare::Ended } else { EndedShare::ListingEnded })
}

/// Ends a listing for everybody, as the rule allows.
pub(in crate::store) fn remove_file(
    tx: &Connection,
    actor: Actor,
    group: &GroupName,
    file: &FileName,
    rule: &FileRule,
) -> Result<ListingId> {
    sessions::check(tx, actor)?;
    let found = groups::standing(tx, group, actor.user)?;
    let listed = tx
        .prepare_cached(
            "SELECT l.id, l.uploader_id = ?3,
                 EXISTS (SELECT 1 FROM shares s WHERE s.listing_id = l.id AND s.user_id <> ?3)
             FROM listings l WHERE l.group_id = ?1 AND l.name_key = ?2",
        )?
        .query_row(params![found.id.as_bytes(), file.key(), actor.user.0], |row| {
            let file = ListedFile { is_uploader: row.get(1)?, has_other_sharers: row.get(2)? };
            Ok((row::unsigned(row, 0)?, file))
        })
        .optional()?;
    rule(found.standing, listed.map(|(_, file)| file))?;
    let (id, _) = listed.ok_or(StoreError::NotFound)?;
    tx.prepare_cached("DELETE FROM listings WHERE id = ?1")?.execute([id.cast_signed()])?;
    Ok(ListingId(id))
}

/// Ends a user's shares in a group and returns the listings that went with their last one.
pub(super) fn end_shares_in(tx: &Connection, group: GroupId, user: UserId) -> Result<Vec<ListingId>> {
    let mut query = tx.prepare_cached(
        "SELECT s.listing_id FROM shares s JOIN listings l ON l.id = s.listing_id
         WHERE s.user_id = ?2 AND l.group_id = ?1
             AND NOT EXISTS (SELECT 1 FROM shares o WHERE o.listing_id = s.listing_id AND o.user_id <> ?2)",
    )?;
    let last = query.query_map(params![group.as_bytes(), user.0], |row| row.get(0))?;
    let last: Vec<i64> = last.collect::<rusqlite::Result<_>>()?;
    tx.prepare_cached(
        "DELETE FROM shares WHERE user_id = ?2 AND listing_id IN (SELECT id FROM listings WHERE group_id = ?1)",
    )?
    .execute(params![group.as_bytes(), user.0])?;
    let mut delete = tx.prepare_cached("DELETE FROM listings WHERE id = ?1")?;
    for id in &last {
        delete.execute([id])?;
    }
    Ok(last.into_iter().map(|id| ListingId(id.cast_unsigned())).collect())
}

pub(in crate::store) fn sharing(tx: &Connection, user: UserId, of: &[ListingId]) -> Result<Vec<SharingFacts>> {
    let mut facts = Vec::with_capacity(of.len());
    for ids in of.chunks(IDS_PER_QUERY) {
        let sql = format!(
            "SELECT l.id, l.group_id, g.owner_id IS NULL, m.role, s.user_id IS NOT NULL,
                 EXISTS (SELECT 1 FROM revocations r WHERE r.account_id = ?1 AND r.group_id = l.group_id)
             FROM listings l JOIN groups g ON g.id = l.group_id
                 LEFT JOIN members m ON m.group_id = l.group_id AND m.user_id = ?1
                 LEFT JOIN shares s ON s.listing_id = l.id AND s.user_id = ?1
             WHERE l.id IN ({})",
            vec!["?"; ids.len()].join(",")
        );
        let mut query = tx.prepare_cached(&sql)?;
        let values = std::iter::once(user.0).chain(ids.iter().map(|id| id.0.cast_signed()));
        let rows = query.query_map(params_from_iter(values), |row| {
            let built_in = row.get(2)?;
            let role = if built_in { Some(Role::Member) } else { row::role(row, 3)? };
            Ok(SharingFacts {
                listing: ListingId(row::unsigned(row, 0)?),
                group: GroupId(row::bytes(row, 1)?),
                standing: Standing { role, built_in },
                shares: row.get(4)?,
                was_member: row.get(5)?,
            })
        })?;
        for row in rows {
            facts.push(row?);
        }
    }
    Ok(facts)
}
