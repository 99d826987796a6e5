-- The client's own state. Rows are keyed by deployment (the tracker's key) and user.

CREATE TABLE pins (
    deployment BLOB NOT NULL,           -- fingerprint of the deployment's key
    address TEXT NOT NULL PRIMARY KEY   -- a line of tracker_info.txt
) STRICT;

-- Raw info dictionaries of everything shared or being fetched.
CREATE TABLE infos (
    info_hash BLOB NOT NULL PRIMARY KEY,
    raw BLOB NOT NULL
) STRICT;

CREATE TABLE shares (
    deployment BLOB NOT NULL,
    user TEXT NOT NULL,
    listing INTEGER NOT NULL,
    group_id BLOB NOT NULL,
    group_name TEXT NOT NULL,
    file_name TEXT NOT NULL,
    info_hash BLOB NOT NULL,
    path BLOB NOT NULL,
    size INTEGER NOT NULL,
    -- What tells a changed file without reading it.
    modified_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    sha1 BLOB NOT NULL,
    sha256 BLOB NOT NULL,
    registered INTEGER NOT NULL,        -- whether the tracker has acknowledged it
    PRIMARY KEY (deployment, user, listing)
) STRICT;

CREATE TABLE downloads (
    id INTEGER PRIMARY KEY AUTOINCREMENT,   -- the order of starting
    deployment BLOB NOT NULL,
    user TEXT NOT NULL,
    listing INTEGER NOT NULL,
    group_id BLOB NOT NULL,
    group_name TEXT NOT NULL,
    file_name TEXT NOT NULL,
    info_hash BLOB NOT NULL,
    destination BLOB NOT NULL,
    size INTEGER NOT NULL,
    sha1 BLOB NOT NULL,
    sha256 BLOB NOT NULL,
    replace INTEGER NOT NULL,               -- whether --force was given
    state TEXT NOT NULL,                    -- D, C or F
    reason TEXT,
    verified BLOB NOT NULL,                 -- bitfield of pieces that are on disk
    part_inode INTEGER,                     -- the partial file that this download made
    started_ms INTEGER NOT NULL,
    UNIQUE (deployment, user, listing)
) STRICT;
