-- Requests with an Idempotency-Key of the last day. Neither key nor request can be read back from
-- what stands here: both are hashes, and of a request its passwords are left out.
CREATE TABLE once (
    id      BYTEA PRIMARY KEY CHECK (length(id) = 32), -- of whose it is, and the key
    request BYTEA NOT NULL CHECK (length(request) = 32),
    at_ms   BIGINT NOT NULL,
    status  INTEGER, -- null: not finished
    answer  TEXT     -- null: not finished, or it held a secret
);

CREATE INDEX once_by_time ON once (at_ms);
