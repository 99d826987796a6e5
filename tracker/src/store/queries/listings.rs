//! Listings, their `info` dictionaries, and shares.
//!
//! Writes run as if one after the other, in every database: the last sharer's leaving and a new share cannot cross.

use super::{Result, announce_keys, groups, limit, roles};
use crate::domain::{ListedFile, Quota, Refused, Standing};
use crate::store::sql::{Row, Tx, Value, params};
use crate::store::{Actor, EndedShare, FileRule, NewListing, QuotaRule, Rule, SharingFacts, StoreError, UserId};
use mini_torrent_common::control::{INFO_PAGE_LENGTH, Listing, ListingDraft, ListingId, Role};
use mini_torrent_common::hash::{GroupId, InfoHash, Sha1Hash, Sha256Hash};
use mini_torrent_common::names::{FileName, GroupName};

const COLUMNS: &str = "l.id, l.group_id, l.name, l.size, l.sha1, l.sha256, l.info_hash, l.info_length, u.name, \
                       l.at_ms, g.name";
const TABLES: &str = "listings l JOIN users u ON u.id = l.uploader_id JOIN groups g ON g.id = l.group_id";

/// Most listings in one question to the database: a power of two.
pub(in crate::store) const IDS_PER_QUERY: usize = 512;

fn read_listing(row: Row<'_>) -> Result<Listing> {
    Ok(Listing {
        id: ListingId(row.get(0)?),
        group: GroupId(row.get(1)?),
        draft: ListingDraft {
            name: row.name(2)?,
            size: row.get(3)?,
            sha1: Sha1Hash(row.get(4)?),
            sha256: Sha256Hash(row.get(5)?),
            info_hash: InfoHash(row.get(6)?),
            info_length: row.get(7)?,
        },
        uploader: row.name(8)?,
        at_ms: row.get(9)?,
        n_seeders: 0,
        n_leechers: 0,
    })
}

fn read_with_group(row: Row<'_>) -> Result<(GroupName, Listing)> {
    Ok((row.name(10)?, read_listing(row)?))
}

pub(in crate::store) fn page(tx: Tx<'_>, group: GroupId, after: Option<&FileName>, n: usize) -> Result<Vec<Listing>> {
    let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE l.group_id = ?1 AND l.name > ?2 ORDER BY l.name LIMIT ?3");
    let after = after.map_or("", FileName::as_str);
    tx.query(&sql, params![group.as_bytes(), after, limit(n)], read_listing)
}

pub(in crate::store) fn named(tx: Tx<'_>, group: GroupId, file: &FileName) -> Result<Option<Listing>> {
    let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE l.group_id = ?1 AND l.name_key = ?2");
    tx.query_optional(&sql, params![group.as_bytes(), &*file.key()], read_listing)
}

pub(in crate::store) fn named_everywhere(tx: Tx<'_>, file: &FileName) -> Result<Vec<(GroupName, Listing)>> {
    let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE l.name_key = ?1 ORDER BY g.name");
    tx.query(&sql, params![&*file.key()], read_with_group)
}

pub(in crate::store) fn all(tx: Tx<'_>, after: Option<ListingId>, n: usize) -> Result<Vec<(GroupName, Listing)>> {
    let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE l.id > ?1 ORDER BY l.id LIMIT ?2");
    tx.query(&sql, params![after.map_or(0, |id| id.0), limit(n)], read_with_group)
}

pub(in crate::store) fn info_page(tx: Tx<'_>, listing: ListingId, offset: u64) -> Result<Vec<u8>> {
    let chunk_length = INFO_PAGE_LENGTH as u64;
    let sql = "SELECT bytes FROM info_chunks WHERE listing_id = ?1 AND chunk_index = ?2";
    let chunk = tx.query_optional(sql, params![listing.0, offset / chunk_length], |row| {
        let within = usize::try_from(offset % chunk_length).unwrap_or(usize::MAX);
        Ok(row.get::<&[u8]>(0)?.get(within..).unwrap_or_default().to_vec())
    });
    Ok(chunk?.unwrap_or_default())
}

pub(in crate::store) fn list(
    tx: Tx<'_>,
    actor: Actor,
    new: &NewListing,
    rule: &Rule,
    quota: QuotaRule,
) -> Result<ListingId> {
    let uploader = actor.user;
    let standing = groups::standing_in(tx, new.group, uploader)?;
    rule(standing)?;
    let sql = "SELECT COUNT(*), CAST(COALESCE(SUM(info_length), 0) AS BIGINT) FROM listings WHERE uploader_id = ?1";
    let (n_listings, n_bytes): (u64, u64) =
        tx.query_one(sql, params![uploader.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    quota(Quota::Listings, n_listings + 1)?;
    quota(Quota::MetadataBytes, n_bytes + new.info.len() as u64)?;
    let id = insert_listing(tx, uploader, new)?;
    for (index, chunk) in (0_i64..).zip(new.info.chunks(INFO_PAGE_LENGTH)) {
        let sql = "INSERT INTO info_chunks (listing_id, chunk_index, bytes) VALUES (?1, ?2, ?3)";
        tx.execute(sql, params![id.0, index, chunk])?;
    }
    insert_share(tx, id, uploader, new.at_ms, quota)?;
    if standing.built_in {
        announce_keys::raise_admitted_changes(tx)?;
    }
    Ok(id)
}

/// Ends a listing of a group with its keys, chunks and shares.
fn end(tx: Tx<'_>, id: ListingId, in_built_in: bool) -> Result<()> {
    announce_keys::end_for(tx, id)?;
    if in_built_in {
        announce_keys::raise_admitted_changes(tx)?;
    }
    tx.execute("DELETE FROM listings WHERE id = ?1", params![id.0])?;
    Ok(())
}

fn insert_listing(tx: Tx<'_>, uploader: UserId, new: &NewListing) -> Result<ListingId> {
    let draft = &new.draft;
    tx.query_one(
        "INSERT INTO listings
             (group_id, name, name_key, size, sha1, sha256, info_hash, info_length, uploader_id, at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) RETURNING id",
        params![
            new.group.as_bytes(),
            draft.name.as_str(),
            &*draft.name.key(),
            draft.size,
            draft.sha1.as_bytes(),
            draft.sha256.as_bytes(),
            draft.info_hash.as_bytes(),
            draft.info_length,
            uploader.0,
            new.at_ms,
        ],
        |row| row.get(0).map(ListingId),
    )
}

fn group_of(tx: Tx<'_>, listing: ListingId) -> Result<GroupId> {
    let sql = "SELECT group_id FROM listings WHERE id = ?1";
    tx.query_optional(sql, params![listing.0], |row| row.get(0).map(GroupId))?.ok_or(StoreError::NotFound)
}

fn insert_share(tx: Tx<'_>, listing: ListingId, user: UserId, at_ms: u64, quota: QuotaRule) -> Result<bool> {
    let sql = "INSERT INTO shares (listing_id, user_id, at_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    let n = tx.execute(sql, params![listing.0, user.0, at_ms])?;
    let sql = "SELECT COUNT(*) FROM shares WHERE user_id = ?1";
    quota(Quota::Shares, tx.query_one(sql, params![user.0], |row| row.get(0))?)?;
    Ok(n > 0)
}

pub(in crate::store) fn add_share(
    tx: Tx<'_>,
    listing: ListingId,
    actor: Actor,
    at_ms: u64,
    rule: &Rule,
    quota: QuotaRule,
) -> Result<bool> {
    let user = actor.user;
    let group = group_of(tx, listing)?;
    rule(groups::standing_in(tx, group, user)?)?;
    insert_share(tx, listing, user, at_ms, quota)
}

pub(in crate::store) fn end_share(tx: Tx<'_>, listing: ListingId, actor: Actor, rule: &Rule) -> Result<EndedShare> {
    let user = actor.user;
    let group = group_of(tx, listing)?;
    let standing = groups::standing_in(tx, group, user)?;
    rule(standing)?;
    let n = tx.execute("DELETE FROM shares WHERE listing_id = ?1 AND user_id = ?2", params![listing.0, user.0])?;
    if n == 0 {
        return Err(StoreError::Refused(Refused::NotSharing));
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM shares WHERE listing_id = ?1)";
    if tx.query_one(sql, params![listing.0], |row| row.get(0))? {
        return Ok(EndedShare::Ended);
    }
    end(tx, listing, standing.built_in)?;
    Ok(EndedShare::ListingEnded)
}

/// Ends a listing for everybody, as the rule allows.
pub(in crate::store) fn remove_file(
    tx: Tx<'_>,
    actor: Actor,
    group: &GroupName,
    file: &FileName,
    rule: &FileRule,
) -> Result<ListingId> {
    let found = groups::standing(tx, group, actor.user)?;
    let listed = tx.query_optional(
        "SELECT l.id, l.uploader_id = ?3,
             EXISTS (SELECT 1 FROM shares s WHERE s.listing_id = l.id AND s.user_id <> ?3)
         FROM listings l WHERE l.group_id = ?1 AND l.name_key = ?2",
        params![found.id.as_bytes(), &*file.key(), actor.user.0],
        |row| {
            let file = ListedFile { is_uploader: row.get(1)?, has_other_sharers: row.get(2)? };
            Ok((ListingId(row.get(0)?), file))
        },
    )?;
    rule(found.standing, listed.map(|(_, file)| file))?;
    let (id, _) = listed.ok_or(StoreError::NotFound)?;
    end(tx, id, found.standing.built_in)?;
    Ok(id)
}

/// Ends a member's shares in a group and returns the listings that went with their last one.
pub(super) fn end_shares_in(tx: Tx<'_>, group: GroupId, user: UserId) -> Result<Vec<ListingId>> {
    let last = tx.query(
        "SELECT s.listing_id FROM shares s JOIN listings l ON l.id = s.listing_id
         WHERE s.user_id = ?2 AND l.group_id = ?1
             AND NOT EXISTS (SELECT 1 FROM shares o WHERE o.listing_id = s.listing_id AND o.user_id <> ?2)",
        params![group.as_bytes(), user.0],
        |row| row.get(0).map(ListingId),
    )?;
    tx.execute(
        "DELETE FROM shares WHERE user_id = ?2 AND listing_id IN (SELECT id FROM listings WHERE group_id = ?1)",
        params![group.as_bytes(), user.0],
    )?;
    for id in &last {
        // The built-in group has no members.
        end(tx, *id, false)?;
    }
    Ok(last)
}

pub(in crate::store) fn sharing(tx: Tx<'_>, user: UserId, of: &[ListingId]) -> Result<Vec<SharingFacts>> {
    let mut facts = Vec::with_capacity(of.len());
    for ids in of.chunks(IDS_PER_QUERY) {
        // Few different statements, for each of them is kept prepared: what is asked for twice is answered once.
        let n_asked = ids.len().next_power_of_two();
        let asked = ids.iter().chain(std::iter::repeat(&ids[0])).take(n_asked);
        let parameters: Vec<_> = std::iter::once(Value::from(user.0)).chain(asked.map(|id| id.0.into())).collect();
        tx.for_each(&sharing_sql(n_asked), &parameters, |row| {
            facts.push(read_sharing(row)?);
            Ok(())
        })?;
    }
    Ok(facts)
}

fn sharing_sql(n_asked: usize) -> String {
    let marks: Vec<_> = (2..2 + n_asked).map(|number| format!("?{number}")).collect();
    format!(
        "SELECT l.id, l.group_id, g.owner_id IS NULL, m.role, s.user_id IS NOT NULL,
             EXISTS (SELECT 1 FROM revocations r WHERE r.account_id = ?1 AND r.group_id = l.group_id)
         FROM listings l JOIN groups g ON g.id = l.group_id
             LEFT JOIN members m ON m.group_id = l.group_id AND m.user_id = ?1
             LEFT JOIN shares s ON s.listing_id = l.id AND s.user_id = ?1
         WHERE l.id IN ({})",
        marks.join(",")
    )
}

fn read_sharing(row: Row<'_>) -> Result<SharingFacts> {
    let built_in = row.get(2)?;
    let role = if built_in { Some(Role::Member) } else { roles::read(row, 3)? };
    Ok(SharingFacts {
        listing: ListingId(row.get(0)?),
        group: GroupId(row.get(1)?),
        standing: Standing { role, built_in },
        shares: row.get(4)?,
        was_member: row.get(5)?,
    })
}
