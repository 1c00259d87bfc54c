-- Accounts, their API keys, and what they used. Times are milliseconds since 1970 (UTC).

CREATE TABLE accounts (
    id               BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 16),
    email            TEXT NOT NULL UNIQUE,
    password_hash    TEXT NOT NULL,
    created_ms       INTEGER NOT NULL,
    -- Sign-ups with an address that was taken. Counted in the same write as an insert, so that
    -- both take equally long.
    refused_sign_ups INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE api_keys (
    place        INTEGER PRIMARY KEY NOT NULL,
    id           TEXT NOT NULL UNIQUE CHECK (length(id) = 8),
    account      BLOB NOT NULL REFERENCES accounts (id),
    name         TEXT NOT NULL,
    hash         TEXT NOT NULL,
    created_ms   INTEGER NOT NULL,
    last_used_ms INTEGER, -- null: never
    revoked_ms   INTEGER  -- null: it lives
) STRICT;

CREATE INDEX api_keys_of_account ON api_keys (account, place);

CREATE TABLE usage (
    account         BLOB NOT NULL REFERENCES accounts (id),
    month           TEXT NOT NULL CHECK (length(month) = 7),
    token_exchanges INTEGER NOT NULL DEFAULT 0,
    messages        INTEGER NOT NULL DEFAULT 0,
    bytes           INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account, month)
) STRICT, WITHOUT ROWID;
