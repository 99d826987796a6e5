//! The readable export: everything durable that is no secret.

use super::Result;
use crate::store::sql::{self, Row, Tx, params};
use mini_torrent_common::hash::{GroupId, InfoHash, Sha1Hash, Sha256Hash};
use serde_json::{Map, Value, json};

pub(in crate::store) fn everything(tx: Tx<'_>) -> Result<Value> {
    let users = table(tx, "SELECT name, created_ms FROM users ORDER BY id")?;
    let groups = table(
        tx,
        "SELECT g.id, g.name, o.name AS owner, g.created_ms, 
             CASE WHEN g.owner_id IS NULL THEN 1 ELSE g.stock_clients END AS stock_clients
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

fn listings(tx: Tx<'_>) -> Result<Vec<Value>> {
    tx.query(
        "SELECT l.id, g.name, l.name, l.size, l.sha1, l.sha256, l.info_hash, u.name, l.at_ms
         FROM listings l JOIN groups g ON g.id = l.group_id JOIN users u ON u.id = l.uploader_id ORDER BY l.id",
        params![],
        |row| {
            Ok(json!({
                "id": row.get::<i64>(0)?, "group": row.get::<&str>(1)?, "name": row.get::<&str>(2)?,
                "size": row.get::<u64>(3)?, "sha1": Sha1Hash(row.get(4)?).to_string(),
                "sha256": Sha256Hash(row.get(5)?).to_string(), "info_hash": InfoHash(row.get(6)?).to_string(),
                "uploader": row.get::<&str>(7)?, "at_ms": row.get::<u64>(8)?,
            }))
        },
    )
}

fn table(tx: Tx<'_>, sql: &str) -> Result<Vec<Value>> {
    tx.query(sql, params![], object)
}

fn object(row: Row<'_>) -> Result<Value> {
    let mut object = Map::new();
    for (column, name) in row.names().into_iter().enumerate() {
        let value = match row.get(column)? {
            sql::Value::Int(number) => number.into(),
            sql::Value::Text(text) => text.into(),
            // The only binary column among these is a group's number.
            sql::Value::Blob(_) => GroupId(row.get(column)?).to_string().into(),
            sql::Value::Null => Value::Null,
        };
        object.insert(name.to_owned(), value);
    }
    Ok(Value::Object(object))
}
