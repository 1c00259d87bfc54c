-- What was used, each API key by itself, and which report of each relay was taken last.
CREATE TABLE usage_by_key (
    account         BYTEA NOT NULL REFERENCES accounts (id),
    -- Compared byte by byte: the newest month comes first whatever the database's language.
    month           TEXT COLLATE "C" NOT NULL CHECK (length(month) = 7),
    -- Empty: what guests used, and what was counted before keys were told apart.
    key             TEXT COLLATE "C" NOT NULL,
    token_exchanges BIGINT NOT NULL DEFAULT 0,
    messages        BIGINT NOT NULL DEFAULT 0,
    bytes           BIGINT NOT NULL DEFAULT 0,
    delivered       BIGINT NOT NULL DEFAULT 0,
    connected_ms    BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (account, month, key)
);

INSERT INTO usage_by_key (account, month, key, token_exchanges, messages, bytes)
SELECT account, month, '', token_exchanges, messages, bytes FROM usage;

DROP TABLE usage;

CREATE TABLE usage_reports (
    relay    BYTEA PRIMARY KEY CHECK (length(relay) = 32),
    number   BIGINT NOT NULL, -- those up to here count already
    taken_ms BIGINT NOT NULL
);
