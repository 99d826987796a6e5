-- What was done under a name of the client's, so that it is not done again when it is asked for again: the row commits
-- with the effect. The owner is a user's number (8 bytes), or the key of a client that is not signed in (32 bytes).
-- The outcome holds no secret. Rows are dropped after a while, and a user's oldest when there are many.
CREATE TABLE done_operations (
    owner BYTEA NOT NULL,
    operation BYTEA NOT NULL,
    kind BIGINT NOT NULL,
    outcome BYTEA NOT NULL,
    at_ms BIGINT NOT NULL,
    PRIMARY KEY (owner, operation)
);
CREATE INDEX done_operations_of_owner ON done_operations (owner, at_ms);
CREATE INDEX done_operations_by_age ON done_operations (at_ms);
