//! The readable export: everything durable that is no secret.

use super::{Result, row};
use mini_torrent_common::hash::{GroupId, InfoHash, Sha1Hash, Sha256Hash};
use rusqlite::types::ValueRef;
use rusqlite::{Row, Transaction};
use serde_json::{Map, Value, json};

pub(in crate::store) fn everything(tx: &Transaction<'_>) -> Result<Value> {
    let users = table(tx, "SELECT name, created_ms FROM users ORDER BY id")?;
    let groups = table(
        tx,
        "SELECT g.id, g.name, o.name AS owner, g.created_ms, g.owner_id IS NULL OR g.stock_clients AS stock_clients
         FROM groups g LEFT JOIN users o ON o.id = g.owner_id ORDER BY g.name",
    )?;
    let members = table(
        tx,
        "SELECT g.name AS \"group\", u.name AS user,
             CASE m.role WHEN 3 THEN 'owner' WHEN 2 THEN 'admin' ELSE 'member' END AS role, m.since_ms, m.epoch
         FROM members m JOIN groups g ON g.id = m.group_id JOIN users u ON u.id = m.user_id
         ORDER BY g.name, m.epoch",
    )?;
    let requests = table(
        tx,
        "SELECT g.name AS \"group\", u.name AS user, r.at_ms
         FROM join_requests r JOIN groups g ON g.id = r.group_id JOIN users u ON u.id = r.user_id ORDER BY r.id",
    )?;
    let shares = table(
        tx,
        "SELECT s.listing_id AS listing, u.name AS user, s.at_ms
         FROM shares s JOIN users u ON u.id = s.user_id ORDER BY s.listing_id, u.name",
    )?;
    let keys = table(
        tx,
        "SELECT k.id, u.name AS user, k.listing_id AS listing, k.generation, k.created_ms, k.suspended, k.last_address,
             k.used_ms
         FROM announce_keys k JOIN users u ON u.id = k.user_id ORDER BY k.id",
    )?;
    Ok(json!({
        "users": users, "groups": groups, "members": members, "join_requests": requests,
        "listings": listings(tx)?, "shares": shares, "announce_keys": keys,
    }))
}

fn listings(tx: &Transaction<'_>) -> Result<Vec<Value>> {
    let mut query = tx.prepare(
        "SELECT l.id, g.name, l.name, l.size, l.sha1, l.sha256, l.info_hash, u.name, l.at_ms
         FROM listings l JOIN groups g ON g.id = l.group_id JOIN users u ON u.id = l.uploader_id ORDER BY l.id",
    )?;
    let rows = query.query_map([], |row| {
        Ok(json!({
            "id": row.get::<_, i64>(0)?, "group": row.get::<_, String>(1)?, "name": row.get::<_, String>(2)?,
            "size": row::unsigned(row, 3)?, "sha1": Sha1Hash(row::bytes(row, 4)?).to_string(),
            "sha256": Sha256Hash(row::bytes(row, 5)?).to_string(),
            "info_hash": InfoHash(row::bytes(row, 6)?).to_string(),
            "uploader": row.get::<_, String>(7)?, "at_ms": row::unsigned(row, 8)?,
        }))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn table(tx: &Transaction<'_>, sql: &str) -> Result<Vec<Value>> {
    let mut query = tx.prepare(sql)?;
    let names: Vec<String> = query.column_names().map(str::to_owned).collect();
    let rows = query.query_map([], |row| object(row, &names))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn object(row: &Row<'_>, names: &[String]) -> rusqlite::Result<Value> {
    let mut object = Map::new();
    for (column, name) in names.iter().enumerate() {
        let value = match row.get_ref(column)? {
            ValueRef::Integer(number) => number.into(),
            ValueRef::Text(_) => row.get::<_, String>(column)?.into(),
            // The only binary column among these is a group's number.
            ValueRef::Blob(_) => GroupId(row::bytes(row, column)?).to_string().into(),
            ValueRef::Null | ValueRef::Real(_) => Value::Null,
        };
        object.insert(name.clone(), value);
    }
    Ok(Value::Object(object))
}
