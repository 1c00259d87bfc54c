-- What was used, each API key by itself, and which report of each relay was taken last.
CREATE TABLE usage_by_key (
    account         BLOB NOT NULL REFERENCES accounts (id),
    month           TEXT NOT NULL CHECK (length(month) = 7),
    -- Empty: what guests used, and what was counted before keys were told apart.
    key             TEXT NOT NULL,
    token_exchanges INTEGER NOT NULL DEFAULT 0,
    messages        INTEGER NOT NULL DEFAULT 0,
    bytes           INTEGER NOT NULL DEFAULT 0,
    delivered       INTEGER NOT NULL DEFAULT 0,
    connected_ms    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account, month, key)
) STRICT, WITHOUT ROWID;

INSERT INTO usage_by_key (account, month, key, token_exchanges, messages, bytes)
SELECT account, month, '', token_exchanges, messages, bytes FROM usage;

DROP TABLE usage;

CREATE TABLE usage_reports (
    relay    BLOB PRIMARY KEY NOT NULL CHECK (length(relay) = 32),
    number   INTEGER NOT NULL, -- those up to here are counted
    taken_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
