-- Who is online at which tracker, for the other trackers on the same store. Only a tracker itself writes its rows. It
-- raises its last_change in the transaction that writes rows with that number, so who reads them in one snapshot by
-- (tracker, change) skips nothing, however late a commit is. What is gone stays as a row for a while; who has read
-- less than floor_change reads everything of that tracker anew.

-- A run is one life of a tracker's process. heartbeat grows as long as it lives.
CREATE TABLE trackers (
    number INTEGER NOT NULL PRIMARY KEY,
    run BLOB NOT NULL,
    heartbeat INTEGER NOT NULL,
    last_change INTEGER NOT NULL,
    floor_change INTEGER NOT NULL
) STRICT;

-- States: 0 gone, 1 live, 2 lost its connection a moment ago. sign_in is the number of the token that the client got
-- for it: of two sign-ins of a user the later one has the greater number, at whatever trackers they were.
CREATE TABLE sessions_online (
    tracker INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    sign_in INTEGER NOT NULL,
    client_key BLOB NOT NULL,
    address TEXT NOT NULL,
    peer_id BLOB NOT NULL,
    agent TEXT NOT NULL,
    age_ms INTEGER NOT NULL,
    state INTEGER NOT NULL,
    change INTEGER NOT NULL,
    PRIMARY KEY (tracker, user_id)
) STRICT;
CREATE INDEX sessions_online_by_change ON sessions_online (tracker, change);

-- What the client of a session has. The rows of a session go with it.
CREATE TABLE peers_online (
    tracker INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    listing_id INTEGER NOT NULL,
    complete INTEGER NOT NULL,
    gone INTEGER NOT NULL,
    change INTEGER NOT NULL,
    PRIMARY KEY (tracker, user_id, listing_id)
) STRICT;
CREATE INDEX peers_online_by_change ON peers_online (tracker, change);

-- Ordinary clients. Without a key they are in an open file.
CREATE TABLE stock_online (
    tracker INTEGER NOT NULL,
    listing_id INTEGER NOT NULL,
    address TEXT NOT NULL,
    key_id INTEGER,
    complete INTEGER NOT NULL,
    gone INTEGER NOT NULL,
    change INTEGER NOT NULL,
    PRIMARY KEY (tracker, listing_id, address)
) STRICT;
CREATE INDEX stock_online_by_change ON stock_online (tracker, change);

-- What has to be told to clients that may be connected to another tracker.
CREATE TABLE news (
    tracker INTEGER NOT NULL,
    change INTEGER NOT NULL,
    place INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (tracker, change, place)
) STRICT;
