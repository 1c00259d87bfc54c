-- What was used and not reported yet: one row for each payer and month.
CREATE TABLE usage (
    account      BLOB NOT NULL,
    month        INTEGER NOT NULL, -- since January of the year 0
    key          TEXT NOT NULL,    -- empty: none
    messages     INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    delivered    INTEGER NOT NULL,
    connected_ms INTEGER NOT NULL,
    PRIMARY KEY (account, month, key)
) STRICT, WITHOUT ROWID;

-- The one report that is sent until it is taken.
CREATE TABLE usage_report (
    number INTEGER NOT NULL PRIMARY KEY,
    body   BLOB NOT NULL
) STRICT;

-- The last report and the last charge that there were.
CREATE TABLE usage_numbers (
    what   TEXT NOT NULL PRIMARY KEY,
    number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
