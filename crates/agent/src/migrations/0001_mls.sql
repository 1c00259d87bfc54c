-- What OpenMLS keeps: one row an entity, read and written by mls/storage.rs only.
-- `space`: 0 keys of the agent that belong to no group (`group_id` is empty there),
-- 1 groups as they are, 2 shadows of groups that wait to be promoted or discarded.
-- `kind` numbers the entities (`Kind` in mls/storage.rs); `value` is MessagePack.
-- The group comes first in the key, so that all of a group lies together and is
-- moved or deleted as one range.
CREATE TABLE mls_entities (
    group_id BLOB    NOT NULL,
    space    INTEGER NOT NULL CHECK (space BETWEEN 0 AND 2),
    kind     INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 255),
    key      BLOB    NOT NULL,
    value    BLOB    NOT NULL,
    PRIMARY KEY (group_id, space, kind, key)
) STRICT, WITHOUT ROWID;
