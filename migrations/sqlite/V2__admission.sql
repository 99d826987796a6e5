-- Who is let in, and until when: locked accounts, sessions with a number, ticket keys, revocations.

-- epoch only grows: raising it takes back every ticket that the account has. client_key is the key of the
-- client that signed in last.
ALTER TABLE users ADD COLUMN locked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN epoch INTEGER NOT NULL DEFAULT 1;
ALTER TABLE users ADD COLUMN client_key BLOB;

-- The id is never reused, so it stands for the session in every write of its client.
ALTER TABLE sessions RENAME TO sessions_of_v1;
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES users (id),
    client_key BLOB NOT NULL,
    address TEXT NOT NULL,
    agent TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT;

-- States: 1 current, 2 predecessor of the current one, 3 retired. The id is the order of issue.
CREATE TABLE session_tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token_digest BLOB NOT NULL UNIQUE,
    session_id INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    state INTEGER NOT NULL
) STRICT;
CREATE INDEX session_tokens_by_session ON session_tokens (session_id, state);

INSERT INTO sessions (id, user_id, client_key, address, agent, since_ms, expires_ms)
    SELECT rowid, user_id, client_key, address, agent, since_ms, expires_ms FROM sessions_of_v1;
INSERT INTO session_tokens (token_digest, session_id, state) SELECT token_digest, rowid, 1 FROM sessions_of_v1;
UPDATE users SET client_key =
    (SELECT s.client_key FROM sessions s WHERE s.user_id = users.id ORDER BY s.since_ms DESC LIMIT 1);
DROP TABLE sessions_of_v1;
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_ms);

-- A key signs until use_until_ms; the deployment's endorsement of it ends at until_ms, after its last ticket.
CREATE TABLE ticket_keys (
    public_key BLOB NOT NULL PRIMARY KEY,
    seed BLOB NOT NULL,
    from_ms INTEGER NOT NULL,
    use_until_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,
    endorsement BLOB NOT NULL
) STRICT;

-- The last number that the log of revocations has given away. Who writes into the log raises it first and so
-- holds its row until the commit: a number that can be read has no smaller one still to come.
CREATE TABLE revocation_counter (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    last_number INTEGER NOT NULL
) STRICT;
INSERT INTO revocation_counter (id, last_number) VALUES (1, 0);

-- Without a group it is for all groups. The group may be gone, so it is no reference.
CREATE TABLE revocations (
    number INTEGER PRIMARY KEY,
    group_id BLOB,
    account_id INTEGER NOT NULL REFERENCES users (id),
    epoch INTEGER NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX revocations_by_group ON revocations (group_id, number);
CREATE INDEX revocations_by_account ON revocations (account_id, group_id);
CREATE INDEX revocations_by_time ON revocations (at_ms);
