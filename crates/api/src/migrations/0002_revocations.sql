-- What was revoked of late, in order, for relays. `revoked` is JSON as it is answered.
CREATE TABLE revocations (
    place   INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms   INTEGER NOT NULL,
    revoked TEXT NOT NULL
) STRICT;

CREATE INDEX revocations_by_time ON revocations (at_ms);
