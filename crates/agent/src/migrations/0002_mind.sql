-- Who we are. One row.
CREATE TABLE identity (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    seed  BLOB NOT NULL,
    label TEXT NOT NULL
) STRICT;

-- One row a channel. `record` is the mind's own; the other columns are for reading from outside.
CREATE TABLE channels (
    id          BLOB PRIMARY KEY,
    record      BLOB NOT NULL,
    name        TEXT NOT NULL,
    state       INTEGER NOT NULL,
    relay       BLOB NOT NULL,
    epoch       INTEGER NOT NULL,
    cursor      INTEGER NOT NULL,
    confirmed   INTEGER NOT NULL,
    words       TEXT NOT NULL,
    pending_by  BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Members as of the channel's epoch.
CREATE TABLE members (
    channel    BLOB NOT NULL,
    agent      BLOB NOT NULL,
    admin      INTEGER NOT NULL,
    may_invite INTEGER NOT NULL,
    PRIMARY KEY (channel, agent)
) STRICT, WITHOUT ROWID;

-- What we know of a sender: how it calls itself, and which of its counters we have seen.
CREATE TABLE senders (
    channel BLOB NOT NULL,
    agent   BLOB NOT NULL,
    label   TEXT NOT NULL,
    last_n  INTEGER NOT NULL,
    missing BLOB NOT NULL,
    PRIMARY KEY (channel, agent)
) STRICT, WITHOUT ROWID;

-- Plaintext that the relay has not stored yet. Here and below rows are never numbered twice: the
-- mind remembers how far it has gone by number, also after rows are gone.
CREATE TABLE outbox (
    row      INTEGER PRIMARY KEY AUTOINCREMENT,
    channel  BLOB NOT NULL,
    id       BLOB NOT NULL UNIQUE,
    command  BLOB NOT NULL,
    n        INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    draft    BLOB NOT NULL
) STRICT;
CREATE INDEX outbox_of_channel ON outbox (channel, row);

-- Hashes of bodies that we have sent and not yet met in the log.
CREATE TABLE sent (
    channel BLOB NOT NULL,
    content BLOB NOT NULL,
    id      BLOB NOT NULL,
    ordinal INTEGER NOT NULL,
    PRIMARY KEY (channel, content)
) STRICT, WITHOUT ROWID;

-- Messages that an application has not taken yet.
CREATE TABLE inbox (
    row          INTEGER PRIMARY KEY AUTOINCREMENT,
    channel      BLOB NOT NULL,
    seq          INTEGER NOT NULL,
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
    UNIQUE (channel, seq)
) STRICT;
CREATE INDEX inbox_of_channel ON inbox (channel, row);
CREATE INDEX inbox_replies ON inbox (in_reply_to) WHERE length(in_reply_to) > 0;

-- Who reads. A message is wiped when every reader has taken it.
CREATE TABLE readers (
    name TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
INSERT INTO readers (name) VALUES ('default');

-- What a reader has leased or taken of the inbox.
CREATE TABLE reads (
    reader TEXT NOT NULL,
    row    INTEGER NOT NULL,
    holder BLOB NOT NULL,
    until  INTEGER NOT NULL,
    taken  INTEGER NOT NULL,
    PRIMARY KEY (reader, row)
) STRICT, WITHOUT ROWID;
CREATE INDEX reads_of_row ON reads (row);

-- Commits that we still want to make.
CREATE TABLE wishes (
    row     INTEGER PRIMARY KEY AUTOINCREMENT,
    channel BLOB NOT NULL,
    command BLOB NOT NULL,
    tries   INTEGER NOT NULL,
    wish    BLOB NOT NULL
) STRICT;

-- Frames of commits and joins that have been sent and not yet resolved by the log.
CREATE TABLE pending (
    channel BLOB PRIMARY KEY,
    frame   BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Statements of members that have left, until a commit removes their leaves.
CREATE TABLE departures (
    channel   BLOB NOT NULL,
    agent     BLOB NOT NULL,
    statement BLOB NOT NULL,
    PRIMARY KEY (channel, agent)
) STRICT, WITHOUT ROWID;

-- Welcomes of agents that we do not know, until the application decides.
CREATE TABLE welcomes (
    channel BLOB PRIMARY KEY,
    frame   BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Agents that the application has named, for deciding whose Welcome to follow.
CREATE TABLE acquaintances (
    agent BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- The newest events, for those who read without being the mind.
CREATE TABLE events (
    row   INTEGER PRIMARY KEY AUTOINCREMENT,
    at    INTEGER NOT NULL,
    event BLOB NOT NULL
) STRICT;

-- What each relay said last.
CREATE TABLE relays (
    relay        BLOB PRIMARY KEY,
    key_packages INTEGER NOT NULL,
    clock_ahead  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Commands of processes that do not hold the vault's lock, and their answers.
CREATE TABLE commands (
    id    BLOB PRIMARY KEY,
    body  BLOB NOT NULL,
    at    INTEGER NOT NULL,
    taken INTEGER NOT NULL
) STRICT;
CREATE TABLE answers (
    id   BLOB PRIMARY KEY,
    body BLOB NOT NULL,
    at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
