-- Accounts that change their password or end, keys that may do less or end by themselves, and the
-- agents of an account.
ALTER TABLE accounts ADD COLUMN name TEXT NOT NULL DEFAULT '';
-- Sessions that began before count no more.
ALTER TABLE accounts ADD COLUMN sessions_from_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN deleted_ms INTEGER; -- null: it lives

ALTER TABLE api_keys ADD COLUMN scopes TEXT NOT NULL DEFAULT 'relay slim account keys';
ALTER TABLE api_keys ADD COLUMN expires_ms INTEGER; -- null: never

CREATE TABLE agents (
    account     BLOB NOT NULL REFERENCES accounts (id),
    agent       BLOB NOT NULL CHECK (length(agent) = 32),
    first_ms    INTEGER NOT NULL, -- when a token was first bought for it
    last_ms     INTEGER NOT NULL, -- and last
    disabled_ms INTEGER,          -- null: it may have tokens
    PRIMARY KEY (account, agent)
) STRICT, WITHOUT ROWID;
