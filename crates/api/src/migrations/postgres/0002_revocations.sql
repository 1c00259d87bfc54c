-- What was revoked of late, in order, for relays. `revoked` is JSON as it is answered.
CREATE TABLE revocations (
    place   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ms   BIGINT NOT NULL,
    revoked TEXT NOT NULL
);

CREATE INDEX revocations_by_time ON revocations (at_ms);
