-- Downloads from .torrent files and magnet links of other trackers. They belong to the data directory, not to a user.

CREATE TABLE foreign_downloads (
    info_hash BLOB NOT NULL PRIMARY KEY,
    file_name TEXT NOT NULL,
    size INTEGER NOT NULL,
    raw_info BLOB,                          -- not yet known of a magnet link
    tiers TEXT NOT NULL,                    -- tracker URLs, one a line, tiers divided by an empty line
    peers TEXT NOT NULL,                    -- host:port that a magnet link names, one a line
    destination BLOB NOT NULL,              -- what was typed, until the metadata is known; then the finished file
    replace INTEGER NOT NULL,
    state TEXT NOT NULL,                    -- D, C or F
    reason TEXT,
    verified BLOB NOT NULL,                 -- bitfield of pieces that are on disk
    part_inode INTEGER,                     -- the partial file that this download made
    modified_ns INTEGER,                    -- how the finished file looked
    inode INTEGER,
    started_ms INTEGER NOT NULL
) STRICT;
