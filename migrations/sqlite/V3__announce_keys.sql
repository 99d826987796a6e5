-- Which ordinary BitTorrent clients are admitted: the switch of a group, and announce keys.

-- Secret of the member that its keys are derived from, NULL until the first one; last_key_generation only grows, so
-- that no key is ever derived twice.
ALTER TABLE users ADD COLUMN secret BLOB;
ALTER TABLE users ADD COLUMN last_key_generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE groups ADD COLUMN stock_clients INTEGER NOT NULL DEFAULT 0;

-- A key is there as long as it is good for anything: it goes with its listing and with the membership of its user.
-- The built-in group has no memberships, there group_id is NULL. used_ms and last_address are written in batches.
CREATE TABLE announce_keys (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES users (id),
    group_id BLOB,
    listing_id INTEGER NOT NULL REFERENCES listings (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL,
    suspended INTEGER NOT NULL DEFAULT 0,
    last_address TEXT,
    used_ms INTEGER,
    FOREIGN KEY (group_id, user_id) REFERENCES members (group_id, user_id) ON DELETE CASCADE
) STRICT;
CREATE INDEX announce_keys_by_member ON announce_keys (group_id, user_id);
CREATE INDEX announce_keys_by_user ON announce_keys (user_id);
CREATE INDEX announce_keys_by_listing ON announce_keys (listing_id);

-- Raised by every transaction that changes who is admitted, so that each tracker sees with one row whether it has to
-- read again.
CREATE TABLE admitted_changes (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    number INTEGER NOT NULL
) STRICT;
INSERT INTO admitted_changes (id, number) VALUES (1, 1);
