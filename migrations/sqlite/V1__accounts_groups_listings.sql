-- Times are milliseconds since the Unix epoch. Roles: 1 member, 2 admin, 3 owner.

-- One value a name: the deployment's fingerprint, the id of the built-in group.
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    token_digest BLOB NOT NULL PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users (id),
    client_key BLOB NOT NULL,
    address TEXT NOT NULL,
    agent TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_ms);

-- last_epoch only grows, so that who comes back has a greater membership epoch than before.
CREATE TABLE groups (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    name_key TEXT NOT NULL UNIQUE,
    owner_id INTEGER REFERENCES users (id),
    created_ms INTEGER NOT NULL,
    last_epoch INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX groups_by_owner ON groups (owner_id);

CREATE TABLE members (
    group_id BLOB NOT NULL REFERENCES groups (id),
    user_id INTEGER NOT NULL REFERENCES users (id),
    role INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    PRIMARY KEY (group_id, user_id)
) STRICT;
CREATE INDEX members_by_user ON members (user_id);

-- The id is the order of arrival.
CREATE TABLE join_requests (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    group_id BLOB NOT NULL REFERENCES groups (id),
    user_id INTEGER NOT NULL REFERENCES users (id),
    at_ms INTEGER NOT NULL,
    UNIQUE (group_id, user_id)
) STRICT;
CREATE INDEX join_requests_by_user ON join_requests (user_id);

CREATE TABLE listings (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    group_id BLOB NOT NULL REFERENCES groups (id),
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha1 BLOB NOT NULL,
    sha256 BLOB NOT NULL,
    info_hash BLOB NOT NULL,
    info_length INTEGER NOT NULL,
    uploader_id INTEGER NOT NULL REFERENCES users (id),
    at_ms INTEGER NOT NULL,
    UNIQUE (group_id, name_key)
) STRICT;
CREATE UNIQUE INDEX listings_by_name ON listings (group_id, name);
CREATE INDEX listings_by_key ON listings (name_key);
CREATE INDEX listings_by_info_hash ON listings (info_hash);
CREATE INDEX listings_by_uploader ON listings (uploader_id, info_length);

-- The exact bytes of the info dictionary, 512 KiB a row.
CREATE TABLE info_chunks (
    listing_id INTEGER NOT NULL REFERENCES listings (id) ON DELETE CASCADE,
    chunk_index INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (listing_id, chunk_index)
) STRICT;

CREATE TABLE shares (
    listing_id INTEGER NOT NULL REFERENCES listings (id) ON DELETE CASCADE,
    user_id INTEGER NOT NULL REFERENCES users (id),
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (listing_id, user_id)
) STRICT;
CREATE INDEX shares_by_user ON shares (user_id);
