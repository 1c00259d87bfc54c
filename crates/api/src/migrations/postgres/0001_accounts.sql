-- Accounts, their API keys, and what they used. Times are milliseconds since 1970 (UTC).

CREATE TABLE accounts (
    id               BYTEA PRIMARY KEY CHECK (length(id) = 16),
    email            TEXT COLLATE "C" NOT NULL UNIQUE,
    password_hash    TEXT NOT NULL,
    created_ms       BIGINT NOT NULL,
    -- Sign-ups with an address that was taken. Counted in the same write as an insert, so that
    -- both take equally long.
    refused_sign_ups BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE api_keys (
    place        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id           TEXT COLLATE "C" NOT NULL UNIQUE CHECK (length(id) = 8),
    account      BYTEA NOT NULL REFERENCES accounts (id),
    name         TEXT NOT NULL,
    hash         TEXT NOT NULL,
    created_ms   BIGINT NOT NULL,
    last_used_ms BIGINT, -- null: never
    revoked_ms   BIGINT  -- null: it lives
);

CREATE INDEX api_keys_of_account ON api_keys (account, place);

CREATE TABLE usage (
    account         BYTEA NOT NULL REFERENCES accounts (id),
    -- Compared byte by byte: the newest month comes first whatever the database's language.
    month           TEXT COLLATE "C" NOT NULL CHECK (length(month) = 7),
    token_exchanges BIGINT NOT NULL DEFAULT 0,
    messages        BIGINT NOT NULL DEFAULT 0,
    bytes           BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (account, month)
);
