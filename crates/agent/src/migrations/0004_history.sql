-- How long messages are kept after they were read or stored, in milliseconds. No row: not at all.
CREATE TABLE history_rule (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    keep INTEGER NOT NULL
) STRICT;

-- Messages that are kept beyond that, ours too. `at` is when they were put here, by our clock.
CREATE TABLE history (
    channel      BLOB NOT NULL,
    seq          INTEGER NOT NULL,
    at           INTEGER NOT NULL,
    id           BLOB NOT NULL,
    epoch        INTEGER NOT NULL,
    sender       BLOB NOT NULL,
    label        TEXT NOT NULL,
    verified     INTEGER NOT NULL,
    sent         INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    in_reply_to  BLOB NOT NULL,
    headers      BLOB NOT NULL,
    payload      BLOB NOT NULL,
    PRIMARY KEY (channel, seq)
) STRICT;
CREATE INDEX history_by_age ON history (at);
