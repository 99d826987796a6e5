//! Every bound of the tracker, in one place (design invariant 3).

use mini_torrent_common::control::PAGE_ROWS;
use std::time::Duration;

/// From the accept of a connection to its `Hello`.
pub(crate) const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// Between two rounds of the lease sweeper.
pub(crate) const LEASE_TICK: Duration = Duration::from_secs(1);
/// A connection that was silent for this many ticks is closed; clients ping every 10 s.
pub(crate) const LEASE_TICKS: u32 = 25;
/// A session whose connection was lost this long ago no longer bars a login from elsewhere.
pub(crate) const LOST_SESSION_GRACE: Duration = Duration::from_secs(30);
/// How long a session token lives after its last use, in milliseconds: 7 days.
pub(crate) const SESSION_LIFE_MS: u64 = 7 * 24 * 3600 * 1000;
/// How long it is known what was done under a client's name, in milliseconds: far longer than a client goes on asking, also
/// when the trackers' clocks are an hour apart.
pub(crate) const OPERATION_LIFE_MS: u64 = 2 * 3600 * 1000;
/// How many of them are known of one user at the most: as many as a client may have unanswered.
pub(crate) const MAX_OPERATIONS_KEPT: usize = 256;
/// Successors of one session's token that are good, because nobody knows which of them reached the client.
pub(crate) const MAX_SUCCESSORS: usize = 4;
/// Retired tokens of one session that are known again when a thief shows one.
pub(crate) const MAX_RETIRED_TOKENS: usize = 64;
/// How long a ticket key signs, in milliseconds: 7 days.
pub(crate) const TICKET_KEY_USE_MS: u64 = 7 * 24 * 3600 * 1000;
/// How much longer than its last ticket a ticket key's endorsement runs, in milliseconds: an hour.
pub(crate) const ENDORSEMENT_RESERVE_MS: u64 = 3600 * 1000;
/// Between two rounds that renew the sessions of connected clients and drop the expired ones.
pub(crate) const SESSION_UPKEEP: Duration = Duration::from_secs(3600);
/// How long a shutdown waits for connections to end.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Longest head of an HTTP request in bytes, its first line included.
pub(crate) const MAX_HTTP_HEAD: usize = 8 * 1024;
/// How long the head of an HTTP request may take to arrive.
pub(crate) const HTTP_HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How long an HTTP connection may stay silent between two requests.
pub(crate) const HTTP_IDLE: Duration = Duration::from_secs(60);
/// How long a client may take to receive a batch of HTTP answers.
pub(crate) const HTTP_WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of HTTP answers that gather before they are written; one answer more fits in.
pub(crate) const MAX_HTTP_BATCH: usize = 16 * 1024;
/// Peers that a connection's buffers keep room for between two HTTP requests.
pub(crate) const HTTP_KEPT_PEERS: usize = 64;
/// Bytes of an HTTP answer that they keep room for.
pub(crate) const HTTP_KEPT_LENGTH: usize = 2048;
/// How long an HTTP connection that we end is still read.
pub(crate) const HTTP_LINGER: Duration = Duration::from_secs(2);
/// Bytes that are read from it meanwhile.
pub(crate) const MAX_HTTP_LINGER_LENGTH: usize = 256 * 1024;
/// How long the thread for UDP waits for a packet before it looks whether the tracker ends.
pub(crate) const UDP_WAIT: Duration = Duration::from_millis(200);

/// Bytes of UDP packets that the system keeps for us while we are busy: 4 MiB.
pub(crate) const UDP_BUFFER_LENGTH: usize = 4 * 1024 * 1024;
/// How long an answer about the tracker's health is given again without asking the store, in seconds.
pub(crate) const HEALTH_LIFE_S: u64 = 1;

/// Connections that the system holds ready to be accepted.
pub(crate) const ACCEPT_BACKLOG: u32 = 4096;
/// Most connections, if the file limit allows as many.
pub(crate) const MAX_CONNECTIONS: usize = 16_384;
/// One address (IPv6: /64) has at most the whole divided by this signed in, so that no host holds all places.
pub(crate) const ADDRESS_SHARE_OF_CONNECTIONS: usize = 2;
/// File descriptors kept for the store, the log, spooled uploads and the runtime.
pub(crate) const RESERVED_FILES: usize = 256;
/// Requests of one connection that wait for their turn; each may have 1 MiB.
pub(crate) const MAX_QUEUED_REQUESTS: usize = 8;
/// Reading requests of one connection that are answered at the same time.
pub(crate) const MAX_CONCURRENT_READS: usize = 8;
/// Answers of one connection that wait for the socket; each may have 1 MiB.
pub(crate) const MAX_QUEUED_RESPONSES: usize = 8;
/// Events of one connection that wait for the socket; a client that lets more gather is dropped.
pub(crate) const MAX_QUEUED_EVENTS: usize = 1024;
/// Peer changes of one connection that wait for the socket; more are left out, the list is a sample anyway.
pub(crate) const MAX_PENDING_PEERS: usize = 16_384;
/// Gathered events of one connection that wait for the socket; revocations and swarm changes go on gathering.
pub(crate) const MAX_QUEUED_GATHERED_EVENTS: usize = 8;
/// Revocations and swarm changes are gathered this long into one event.
pub(crate) const GATHERING_DELAY: Duration = Duration::from_millis(20);
/// Groups that one connection has entered.
pub(crate) const MAX_ENTERED: usize = 4096;
/// Revocations in one answer and in one reading of the log.
pub(crate) const REVOCATION_PAGE: usize = PAGE_ROWS;
/// Revocations of one connection that wait for the socket; a client that lets more gather is dropped. So many
/// still fit into one frame.
pub(crate) const MAX_PENDING_REVOCATIONS: usize = 16_384;
/// How long a revocation by another tracker on the same store may stay unnoticed.
pub(crate) const REVOCATION_POLL: Duration = Duration::from_millis(500);
/// How long an ordinary client is a peer after its announce, in whole ticks of 8 s.
pub(crate) const ANNOUNCE_LEASE: Duration = Duration::from_secs(45 * 60);
/// Peers of ordinary clients, over all swarms: 4 Mi.
pub(crate) const MAX_ANNOUNCED_PEERS: usize = 4 * 1024 * 1024;
/// Swarms of ordinary clients.
pub(crate) const MAX_ANNOUNCED_SWARMS: usize = 256 * 1024;
/// Listings that one connection announces.
pub(crate) const MAX_ANNOUNCED: usize = 100_000;
/// Swarms that one connection watches.
pub(crate) const MAX_WATCHED: usize = 4096;

/// Groups that one user owns.
pub(crate) const MAX_GROUPS_OWNED: u64 = 100;
/// Join requests of one user that are pending.
pub(crate) const MAX_PENDING_REQUESTS: u64 = 100;
/// Listings that one user uploaded, and shares that one user has.
pub(crate) const MAX_LISTINGS: u64 = 100_000;
/// Bytes of `info` dictionaries that one user uploaded: 2 GiB.
pub(crate) const MAX_METADATA_BYTES: u64 = 2 << 30;

/// Addresses (IPv6: /64) that one announce key may be used from within [`KEY_PLACES_WINDOW`].
pub(crate) const MAX_KEY_PLACES: usize = 8;
/// How long an address counts for its key.
pub(crate) const KEY_PLACES_WINDOW: Duration = Duration::from_secs(3600);
/// Keys that wait to be suspended; one that finds no place is found out again at its next use.
pub(crate) const MAX_QUEUED_SUSPENSIONS: usize = 256;
/// Between two batches of what keys were used last.
pub(crate) const KEY_USE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a change by another tracker on the same store of who is admitted may stay unnoticed.
pub(crate) const ADMITTED_POLL: Duration = Duration::from_millis(500);
/// When ordinary clients are asked to announce again.
pub(crate) const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(30 * 60);
/// How soon they may do so.
pub(crate) const MIN_ANNOUNCE_INTERVAL: Duration = Duration::from_secs(60);
/// Peers that an answer to an ordinary client names unless it asks for another number.
pub(crate) const DEFAULT_NUMWANT: u16 = 50;
/// Slots of each shard that one round of the sweeper looks at.
pub(crate) const SWEPT_SLOTS: usize = 4096;
/// Ordinary clients that one event names to who has just announced or watches a swarm.
pub(crate) const MAX_STOCK_PEERS: usize = 4096;
/// Changes of ordinary clients that wait for one connection; a client that lets more gather is dropped.
pub(crate) const MAX_PENDING_STOCK_PEERS: usize = 16_384;
/// Ordinary clients that the console shows.
pub(crate) const MAX_STOCK_PEERS_SHOWN: usize = 10_000;
/// Members of a swarm that are passed over to begin an answer at another one each time.
pub(crate) const MAX_MEMBERS_SKIPPED: usize = 1024;

/// Announce keys that one user has.
pub(crate) const MAX_KEYS: u64 = 1000;

/// Uploads of `info` dictionaries in progress on one connection.
pub(crate) const MAX_UPLOADS: usize = 8;
/// Bytes of `info` dictionaries in progress over all connections: 1 GiB, on disk.
pub(crate) const MAX_STAGED_BYTES: u64 = 1 << 30;
/// `info` dictionaries that are checked and stored at the same time; each is in memory then.
pub(crate) const MAX_CONCURRENT_COMMITS: usize = 2;

/// How long a join request of the same user for the same group is not told again to those who decide.
pub(crate) const JOIN_REQUEST_REMINDER: Duration = Duration::from_secs(60);
/// Join requests that are remembered for that; beyond them none is told.
pub(crate) const MAX_REMEMBERED_REQUESTS: usize = 65_536;

/// Logins that wait for a thread to hash their passwords, over all addresses; each takes about 25 ms.
pub(crate) const MAX_QUEUED_LOGINS: usize = 1024;
/// The same for one address (IPv6: /64).
pub(crate) const MAX_QUEUED_LOGINS_PER_ADDRESS: usize = 512;
/// The same for new accounts, which have places of their own and so take none from logins.
pub(crate) const MAX_QUEUED_REGISTRATIONS: usize = 512;
/// The same for new accounts from one address.
pub(crate) const MAX_QUEUED_REGISTRATIONS_PER_ADDRESS: usize = 256;
/// Most threads that hash passwords; each takes 19 MiB.
pub(crate) const MAX_PASSWORD_THREADS: usize = 4;
/// Failed logins in a row of one account from one address before waits begin.
pub(crate) const FREE_FAILURES: u32 = 5;
/// Failed logins from one address, over all accounts, before waits begin.
pub(crate) const FREE_FAILURES_PER_ADDRESS: u32 = 50;
/// Accounts made in a row from one address before waits begin.
pub(crate) const FREE_REGISTRATIONS: u32 = 20;
/// Longest wait after failed logins, and between new accounts.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Failures and new accounts are forgotten when none followed for this long.
pub(crate) const BACKOFF_MEMORY: Duration = Duration::from_secs(15 * 60);
/// Accounts and addresses whose failures or new accounts are remembered.
pub(crate) const MAX_BACKOFF_ENTRIES: usize = 65_536;

/// Writes that wait for the store.
pub(crate) const MAX_QUEUED_WRITES: usize = 1024;
/// Writes that share one commit.
pub(crate) const MAX_WRITES_PER_COMMIT: usize = 256;
/// Connections that read the store.
pub(crate) const STORE_READERS: usize = 4;
/// How long a write waits for another tracker's on the same data directory.
pub(crate) const STORE_BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections of one tracker to a database server.
pub(crate) const DATABASE_CONNECTIONS: usize = 8;
/// How long a request waits for a connection to the database, and is run again, before it is answered that the store
/// is unavailable.
pub(crate) const DATABASE_PATIENCE: Duration = Duration::from_secs(5);
/// How long one statement may take in the database, its locks included.
pub(crate) const STATEMENT_DEADLINE: Duration = Duration::from_secs(5);
/// The same while a whole store is copied.
pub(crate) const COPY_DEADLINE: Duration = Duration::from_secs(3600);
/// Rows of a table that are copied in one step.
pub(crate) const COPIED_ROWS: usize = 1000;
/// The same of the one whose rows are up to 512 KiB long.
pub(crate) const COPIED_CHUNKS: usize = 16;
/// Such steps that wait to be written.
pub(crate) const MAX_COPIED_PAGES: usize = 2;
/// Rows that one statement of a copy writes.
pub(crate) const ROWS_PER_INSERT: usize = 50;
/// How often a transaction that crossed others is begun.
pub(crate) const MAX_TRANSACTION_ATTEMPTS: u32 = 50;
/// Longest wait before a transaction is begun again.
pub(crate) const MAX_TRANSACTION_BACKOFF: Duration = Duration::from_millis(100);
/// How long a starting tracker waits for another one that starts on the same database server.
pub(crate) const START_LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// Days whose logs are kept.
pub(crate) const MAX_LOG_FILES: usize = 7;

/// Longest line of the console in bytes.
pub(crate) const MAX_CONSOLE_LINE: u64 = 4096;
/// Console lines that wait.
pub(crate) const MAX_QUEUED_LINES: usize = 16;
/// Longest settings file in bytes.
pub(crate) const MAX_SETTINGS_LENGTH: u64 = 64 * 1024;

/// Between two looks at what other trackers on the same store wrote, and two batches of what changed here.
pub(crate) const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);
/// Between two batches at least, also when there is news.
pub(crate) const NEWS_INTERVAL: Duration = Duration::from_millis(10);
/// Between two beats of the heart when nothing changed.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often it is looked whether trackers use a store that is to be moved: for 2.5 s.
pub(crate) const LOOKS_FOR_TRACKERS: usize = 10;
/// How often a starting tracker looks whether the heart of another one with its number beats: for 2.5 s.
pub(crate) const LOOKS_FOR_OWN_NUMBER: usize = 10;
/// A tracker whose heart has stood still for this long is dead to the others.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(10);
/// A tracker that has not looked for this long was stopped: its own rows are void.
pub(crate) const STOPPED_AFTER: Duration = Duration::from_secs(5);
/// How long a request waits for a tracker that was stopped to look what happened meanwhile.
pub(crate) const CATCH_UP: Duration = Duration::from_secs(1);
/// Other trackers that one tracker follows.
pub(crate) const MAX_OTHER_TRACKERS: usize = 64;
/// Rows of each kind that one batch writes.
pub(crate) const ONLINE_BATCH: usize = 4096;
/// Rows of each kind that are read at once; not less than a batch has.
pub(crate) const ONLINE_PAGE: usize = 4 * ONLINE_BATCH;
/// How long what is gone stays in the store for others to see that it went.
pub(crate) const GONE_ROWS_LIFE: Duration = Duration::from_secs(60);
/// News for clients of other trackers that wait for a batch; beyond them none is told.
pub(crate) const MAX_QUEUED_NEWS: usize = 16_384;
/// Listings or users that one piece of news names.
pub(crate) const MAX_NAMED_IN_NEWS: usize = 4096;
/// Changes of ordinary clients that wait for batches; beyond them everything is written anew.
pub(crate) const MAX_QUEUED_STOCK_CHANGES: usize = 1 << 20;
