-- KeyPackages whose private halves are in mls_entities, until they are used or nobody can use them
-- any more. `name` is the `key` of that row; `relay` is where the public half went.
CREATE TABLE key_packages (
    name        BLOB PRIMARY KEY,
    relay       BLOB NOT NULL,
    made        INTEGER NOT NULL,
    last_resort INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Of those from before nothing is known. `made` 0 is replaced by the time when the mind first sees
-- them.
INSERT INTO key_packages (name, relay, made, last_resort)
    SELECT key, x'', 0, 0 FROM mls_entities WHERE space = 0 AND kind = 34;
