-- Everything here is ciphertext or routing state: the relay holds no key that opens a body.
CREATE TABLE channels (
    channel BLOB NOT NULL PRIMARY KEY,
    state   BLOB NOT NULL,
    head    INTEGER NOT NULL,
    hash    BLOB NOT NULL,
    pruned  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE records (
    channel BLOB NOT NULL,
    seq     INTEGER NOT NULL,
    hash    BLOB NOT NULL,
    record  BLOB NOT NULL,
    PRIMARY KEY (channel, seq)
) STRICT;

-- Kept apart from the records, because the look-up before each publish must stay small.
CREATE TABLE ids (
    channel BLOB NOT NULL,
    agent   BLOB NOT NULL,
    id      BLOB NOT NULL,
    seq     INTEGER NOT NULL,
    PRIMARY KEY (channel, agent, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE welcomes (
    arrival INTEGER NOT NULL PRIMARY KEY,
    agent   BLOB NOT NULL,
    channel BLOB NOT NULL,
    id      BLOB NOT NULL,
    frame   BLOB NOT NULL,
    UNIQUE (agent, channel, id)
) STRICT;

CREATE TABLE key_packages (
    arrival INTEGER NOT NULL PRIMARY KEY,
    agent   BLOB NOT NULL,
    at      INTEGER NOT NULL,
    package BLOB NOT NULL
) STRICT;
CREATE INDEX key_packages_of_agent ON key_packages (agent, arrival);

CREATE TABLE last_resorts (
    agent   BLOB NOT NULL PRIMARY KEY,
    at      INTEGER NOT NULL,
    package BLOB NOT NULL
) STRICT;

CREATE TABLE group_infos (
    channel BLOB NOT NULL PRIMARY KEY,
    epoch   INTEGER NOT NULL,
    sealed  BLOB NOT NULL
) STRICT;
