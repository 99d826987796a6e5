//! Who is online at which tracker.

use super::{Result, limit};
use crate::domain::Refused;
use crate::limits;
use crate::store::sql::{Row, Tx, Value, params};
use crate::store::{
    Actor, OnlineChanges, OnlinePage, OnlinePeer, OnlineSession, OnlineStockClient, OtherTracker, ReadSoFar, Run,
    RunId, SessionChange, SignIn, StoreError, TrackerNumber, UserId,
};
use mini_torrent_common::control::{KeyId, ListingId};
use mini_torrent_common::hash::{GroupId, InfoHash, PeerId};
use mini_torrent_common::names::UserName;
use mini_torrent_common::tls::PublicKey;
use std::collections::{BTreeMap, HashSet};

const GONE: i64 = 0;
const LIVE: i64 = 1;
const LOST: i64 = 2;

/// Rows that one statement writes, when there are as many.
const ROWS_PER_STATEMENT: usize = 64;

pub(in crate::store) fn begin_run(tx: Tx<'_>, run: Run) -> Result<()> {
    tx.execute(
        "INSERT INTO trackers (number, run, heartbeat, last_change, floor_change) VALUES (?1, ?2, 1, 1, 1)
         ON CONFLICT (number) DO UPDATE SET run = excluded.run, heartbeat = trackers.heartbeat + 1,
             last_change = trackers.last_change + 1, floor_change = trackers.last_change + 1",
        params![run.tracker.0, &run.id.0],
    )?;
    clear(tx, run.tracker)
}

pub(in crate::store) fn end_run(tx: Tx<'_>, run: Run) -> Result<()> {
    let n = tx.execute("DELETE FROM trackers WHERE number = ?1 AND run = ?2", params![run.tracker.0, &run.id.0])?;
    if n == 0 { Ok(()) } else { clear(tx, run.tracker) }
}

fn clear(tx: Tx<'_>, tracker: TrackerNumber) -> Result<()> {
    for sql in [
        "DELETE FROM sessions_online WHERE tracker = ?1",
        "DELETE FROM peers_online WHERE tracker = ?1",
        "DELETE FROM stock_online WHERE tracker = ?1",
        "DELETE FROM news WHERE tracker = ?1",
    ] {
        tx.execute(sql, params![tracker.0])?;
    }
    Ok(())
}

/// Drops what is gone since this change or longer, and news as old.
fn forget(tx: Tx<'_>, tracker: TrackerNumber, until: u64) -> Result<()> {
    for sql in [
        "DELETE FROM sessions_online WHERE tracker = ?1 AND change <= ?2 AND state = 0",
        "DELETE FROM peers_online WHERE tracker = ?1 AND change <= ?2 AND gone = 1",
        "DELETE FROM stock_online WHERE tracker = ?1 AND change <= ?2 AND gone = 1",
        "DELETE FROM news WHERE tracker = ?1 AND change <= ?2",
        "UPDATE trackers SET floor_change = ?2 WHERE number = ?1 AND floor_change < ?2",
    ] {
        tx.execute(sql, params![tracker.0, until])?;
    }
    Ok(())
}

pub(in crate::store) fn write(tx: Tx<'_>, run: Run, changes: &OnlineChanges) -> Result<u64> {
    let tracker = run.tracker;
    // First, for the row keeps others of the same number out until the commit.
    let change = tx.query_optional(
        "UPDATE trackers SET heartbeat = heartbeat + 1, last_change = last_change + ?3
         WHERE number = ?1 AND run = ?2 RETURNING last_change",
        params![tracker.0, &run.id.0, changes.has_rows()],
        |row| row.get::<u64>(0),
    )?;
    let change = change.ok_or(StoreError::NotFound)?;
    if changes.anew {
        clear(tx, tracker)?;
        tx.execute("UPDATE trackers SET floor_change = ?2 WHERE number = ?1", params![tracker.0, change])?;
    } else if changes.forget_until > 0 {
        forget(tx, tracker, changes.forget_until)?;
    }
    for session in &changes.sessions {
        write_session(tx, tracker, session, change)?;
    }
    write_peers(tx, tracker, &changes.peers, change)?;
    write_stock(tx, tracker, &changes.stock, change)?;
    for (place, body) in (0_u64..).zip(&changes.news) {
        let sql = "INSERT INTO news (tracker, change, place, body) VALUES (?1, ?2, ?3, ?4)";
        tx.execute(sql, params![tracker.0, change, place, &**body])?;
    }
    Ok(change)
}

fn write_session(tx: Tx<'_>, tracker: TrackerNumber, session: &SessionChange, change: u64) -> Result<()> {
    let session = match session {
        SessionChange::There(session) => session,
        SessionChange::Gone { user, .. } => {
            let sql = "UPDATE sessions_online SET state = ?3, change = ?4 WHERE tracker = ?1 AND user_id = ?2";
            tx.execute(sql, params![tracker.0, user.0, GONE, change])?;
            let sql = "DELETE FROM peers_online WHERE tracker = ?1 AND user_id = ?2";
            tx.execute(sql, params![tracker.0, user.0])?;
            return Ok(());
        }
    };
    let state = if session.lost { LOST } else { LIVE };
    // What the client had with an earlier sign-in is not what it has now.
    tx.execute(
        "DELETE FROM peers_online WHERE tracker = ?1 AND user_id = ?2 AND NOT EXISTS
             (SELECT 1 FROM sessions_online s
              WHERE s.tracker = ?1 AND s.user_id = ?2 AND s.sign_in = ?3 AND s.state = ?4)",
        params![tracker.0, session.user.0, session.sign_in.0, state],
    )?;
    tx.execute(
        "INSERT INTO sessions_online
             (tracker, user_id, sign_in, client_key, address, peer_id, agent, age_ms, state, change)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (tracker, user_id) DO UPDATE SET sign_in = excluded.sign_in, client_key = excluded.client_key,
             address = excluded.address, peer_id = excluded.peer_id, agent = excluded.agent,
             age_ms = excluded.age_ms, state = excluded.state, change = excluded.change",
        params![
            tracker.0,
            session.user.0,
            session.sign_in.0,
            &session.key.0,
            &*session.address.to_string(),
            &session.peer_id.0,
            &*session.agent,
            session.age_ms,
            state,
            change,
        ],
    )?;
    Ok(())
}

/// Writes rows of equal shape, many with one statement: each is a way to the database and back.
fn write_rows(tx: Tx<'_>, head: &str, tail: &str, n_columns: usize, values: &[Value<'_>]) -> Result<()> {
    for chunk in values.chunks(n_columns * ROWS_PER_STATEMENT) {
        let n_rows = chunk.len() / n_columns;
        // Few shapes, so that the statements are prepared once.
        let n_at_once = if n_rows == ROWS_PER_STATEMENT { n_rows } else { 1 };
        let row = |row: usize| {
            let columns: Vec<_> = (1..=n_columns).map(|column| format!("?{}", row * n_columns + column)).collect();
            format!("({})", columns.join(", "))
        };
        let rows: Vec<_> = (0..n_at_once).map(row).collect();
        let sql = format!("{head} VALUES {} {tail}", rows.join(", "));
        for part in chunk.chunks(n_columns * n_at_once) {
            tx.execute(&sql, part)?;
        }
    }
    Ok(())
}

fn write_peers(tx: Tx<'_>, tracker: TrackerNumber, peers: &[OnlinePeer], change: u64) -> Result<()> {
    let values: Vec<_> = peers
        .iter()
        .flat_map(|peer| -> [Value<'_>; 6] {
            let OnlinePeer { user, listing, complete } = *peer;
            [
                tracker.0.into(),
                user.0.into(),
                listing.0.into(),
                complete.unwrap_or_default().into(),
                complete.is_none().into(),
                change.into(),
            ]
        })
        .collect();
    let head = "INSERT INTO peers_online (tracker, user_id, listing_id, complete, gone, change)";
    let tail = "ON CONFLICT (tracker, user_id, listing_id) DO UPDATE SET complete = excluded.complete,
                gone = excluded.gone, change = excluded.change";
    write_rows(tx, head, tail, 6, &values)
}

fn write_stock(tx: Tx<'_>, tracker: TrackerNumber, stock: &[OnlineStockClient], change: u64) -> Result<()> {
    let addresses: Vec<_> = stock.iter().map(|client| client.address.to_string()).collect();
    let values: Vec<_> = stock
        .iter()
        .zip(&addresses)
        .flat_map(|(client, address)| -> [Value<'_>; 7] {
            let OnlineStockClient { listing, key, complete, .. } = *client;
            [
                tracker.0.into(),
                listing.0.into(),
                address.as_str().into(),
                key.map(|key| key.0).into(),
                complete.unwrap_or_default().into(),
                complete.is_none().into(),
                change.into(),
            ]
        })
        .collect();
    let head = "INSERT INTO stock_online (tracker, listing_id, address, key_id, complete, gone, change)";
    let tail = "ON CONFLICT (tracker, listing_id, address) DO UPDATE SET key_id = excluded.key_id,
                complete = excluded.complete, gone = excluded.gone, change = excluded.change";
    write_rows(tx, head, tail, 7, &values)
}

/// A row of `trackers`.
struct Standing {
    tracker: TrackerNumber,
    run: RunId,
    heartbeat: u64,
    last_change: u64,
    floor: u64,
}

pub(in crate::store) fn others(
    tx: Tx<'_>,
    but: TrackerNumber,
    read: &BTreeMap<TrackerNumber, ReadSoFar>,
) -> Result<Vec<OtherTracker>> {
    let sql = "SELECT number, run, heartbeat, last_change, floor_change FROM trackers WHERE number <> ?1
               ORDER BY number LIMIT ?2";
    let standings = tx.query(sql, params![but.0, limit(limits::MAX_OTHER_TRACKERS)], |row| {
        Ok(Standing {
            tracker: TrackerNumber(row.get(0)?),
            run: RunId(row.get(1)?),
            heartbeat: row.get(2)?,
            last_change: row.get(3)?,
            floor: row.get(4)?,
        })
    })?;
    standings.iter().map(|standing| other(tx, standing, read.get(&standing.tracker))).collect()
}

fn other(tx: Tx<'_>, now: &Standing, before: Option<&ReadSoFar>) -> Result<OtherTracker> {
    let Standing { tracker, run, heartbeat, last_change, floor } = *now;
    let at_first = ReadSoFar { run, heartbeat, change: 0, floor: 0, more: false, anew: true };
    let Some(before) = before else { return Ok(OtherTracker { tracker, read: at_first, page: None }) };
    if (before.run, before.heartbeat) == (run, heartbeat) && !before.more {
        return Ok(OtherTracker { tracker, read: *before, page: None });
    }
    let anew = before.anew || before.run != run || floor > before.change.max(before.floor);
    let (after, floor) = if anew { (0, floor) } else { (before.change, before.floor) };
    let change = end_of_page(tx, tracker, after, last_change)?;
    let page = page(tx, tracker, anew, after, change)?;
    let read = ReadSoFar { run, heartbeat, change, floor, more: change < last_change, anew: false };
    Ok(OtherTracker { tracker, read, page: Some(page) })
}

/// The last change that a page has room for. A change is always read as a whole.
fn end_of_page(tx: Tx<'_>, tracker: TrackerNumber, after: u64, last_change: u64) -> Result<u64> {
    let mut end = last_change;
    for sql in [
        "SELECT change FROM peers_online WHERE tracker = ?1 AND change > ?2 ORDER BY change LIMIT 1 OFFSET ?3",
        "SELECT change FROM stock_online WHERE tracker = ?1 AND change > ?2 ORDER BY change LIMIT 1 OFFSET ?3",
    ] {
        let beyond = tx.query_optional(sql, params![tracker.0, after, limit(limits::ONLINE_PAGE)], |row| row.get(0))?;
        end = end.min(beyond.map_or(last_change, |beyond: u64| beyond.saturating_sub(1)));
    }
    Ok(end)
}

fn page(tx: Tx<'_>, tracker: TrackerNumber, anew: bool, after: u64, until: u64) -> Result<OnlinePage> {
    let between = params![tracker.0, after, until];
    let sessions = tx.query(
        "SELECT u.name, s.user_id, s.sign_in, s.client_key, s.address, s.peer_id, s.agent, s.age_ms, s.state
         FROM sessions_online s JOIN users u ON u.id = s.user_id
         WHERE s.tracker = ?1 AND s.change > ?2 AND s.change <= ?3",
        between,
        read_session,
    )?;
    let peers = tx.query(
        "SELECT l.group_id, p.user_id, p.listing_id, p.complete, p.gone
         FROM peers_online p JOIN listings l ON l.id = p.listing_id
         WHERE p.tracker = ?1 AND p.change > ?2 AND p.change <= ?3",
        between,
        |row| {
            let (user, listing) = (UserId(row.get(1)?), ListingId(row.get(2)?));
            Ok((GroupId(row.get(0)?), OnlinePeer { user, listing, complete: read_complete(row, 3)? }))
        },
    )?;
    let stock = tx.query(
        "SELECT l.info_hash, s.listing_id, s.address, s.key_id, s.complete, s.gone
         FROM stock_online s JOIN listings l ON l.id = s.listing_id
         WHERE s.tracker = ?1 AND s.change > ?2 AND s.change <= ?3",
        between,
        |row| {
            let (listing, address) = (ListingId(row.get(1)?), row.name(2)?);
            let key = row.get::<Option<u64>>(3)?.map(KeyId);
            let complete = read_complete(row, 4)?;
            Ok((InfoHash(row.get(0)?), OnlineStockClient { listing, address, key, complete }))
        },
    )?;
    let sql = "SELECT body FROM news WHERE tracker = ?1 AND change > ?2 AND change <= ?3 ORDER BY change, place";
    let news = tx.query(sql, between, |row| row.get(0))?;
    Ok(OnlinePage { anew, sessions, peers, stock, news })
}

fn read_complete(row: Row<'_>, column: usize) -> Result<Option<bool>> {
    let gone: bool = row.get(column + 1)?;
    Ok(if gone { None } else { Some(row.get(column)?) })
}

fn read_session(row: Row<'_>) -> Result<(UserName, SessionChange)> {
    let (user, sign_in) = (UserId(row.get(1)?), SignIn(row.get(2)?));
    let state: i64 = row.get(8)?;
    if state == GONE {
        return Ok((row.name(0)?, SessionChange::Gone { user, sign_in }));
    }
    let session = OnlineSession {
        user,
        sign_in,
        key: PublicKey(row.get(3)?),
        address: row.name(4)?,
        peer_id: PeerId(row.get(5)?),
        agent: row.get(6)?,
        age_ms: row.get(7)?,
        lost: state == LOST,
    };
    Ok((row.name(0)?, SessionChange::There(session)))
}

pub(in crate::store) fn last_sign_in(tx: Tx<'_>, actor: Actor) -> Result<SignIn> {
    let sql = "SELECT MAX(t.id) FROM sessions s JOIN session_tokens t ON t.session_id = s.id
               WHERE s.id = ?1 AND s.user_id = ?2";
    let last: Option<u64> = tx.query_one(sql, params![actor.session.0, actor.user.0], |row| row.get(0))?;
    last.map(SignIn).ok_or(StoreError::Refused(Refused::SessionEnded))
}

pub(in crate::store) fn gone_listings(tx: Tx<'_>, of: &[ListingId]) -> Result<Vec<ListingId>> {
    let mut gone = Vec::new();
    for chunk in of.chunks(ROWS_PER_STATEMENT) {
        let mut ids: Vec<Value<'_>> = chunk.iter().map(|listing| listing.0.into()).collect();
        // One shape, so that the statement is prepared once.
        ids.resize(ROWS_PER_STATEMENT, Value::Null);
        let places: Vec<_> = (1..=ROWS_PER_STATEMENT).map(|place| format!("?{place}")).collect();
        let sql = format!("SELECT id FROM listings WHERE id IN ({})", places.join(", "));
        let there: HashSet<ListingId> = tx.query(&sql, &ids, |row| row.get(0).map(ListingId))?.into_iter().collect();
        gone.extend(chunk.iter().filter(|listing| !there.contains(listing)));
    }
    Ok(gone)
}
