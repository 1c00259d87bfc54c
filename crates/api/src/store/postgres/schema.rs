//! The schema's numbered migrations: which of them a database has, and applying the others.
//!
//! All that are missing are applied in one transaction under a lock of the whole database, so that
//! of servers that start together one does it and the others find it done.

use std::time::Duration;

use skytale_wire::id::Time;
use sqlx::{Connection as _, PgConnection};

use super::{at_start, ms, within};
use crate::error::Error;

/// What is to happen where migrations are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Migrations {
    Apply,
    /// Refuse, and change nothing.
    Demand,
}

/// How many migrations a database had, and has now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// Before.
    pub before: u32,
    /// Now: all that this program knows.
    pub now: u32,
}

/// Applies what is missing, or refuses; a database of a newer program is left alone.
pub(crate) async fn bring_up_to_date(
    db: &mut PgConnection,
    migrations: Migrations,
    now: Time,
) -> Result<Schema, Error> {
    check_server(db).await?;
    let before = known(db).await?;
    if before < LATEST {
        match migrations {
            Migrations::Apply => apply_missing(db, now).await?,
            Migrations::Demand => return Err(MISSING),
        }
    }
    Ok(Schema {
        before,
        now: LATEST,
    })
}

/// What the server must be for a store to keep its promises.
async fn check_server(db: &mut PgConnection) -> Result<(), Error> {
    let asked = sqlx::query_as(
        "SELECT current_setting('server_encoding') = 'UTF8', current_setting('fsync') = 'on'",
    )
    .fetch_one(db);
    let (utf8, durable): (bool, bool) = within(CHECK_MAX, asked).await.map_err(at_start)?;
    if !utf8 {
        return Err(Error::Misuse(
            "the Postgres database has another encoding than UTF8: make it with createdb -E UTF8 -T template0",
        ));
    }
    if !durable {
        return Err(Error::Misuse(
            "the Postgres server runs with fsync off, so a power cut would lose what it has confirmed: turn fsync on",
        ));
    }
    Ok(())
}

/// The number of the last migration that was applied, if this program knows it.
async fn known(db: &mut PgConnection) -> Result<u32, Error> {
    let applied = within(CHECK_MAX, async {
        let is_there: bool =
            sqlx::query_scalar("SELECT to_regclass('skytale_migrations') IS NOT NULL")
                .fetch_one(&mut *db)
                .await?;
        if is_there {
            last_applied(db).await
        } else {
            Ok(0)
        }
    });
    let number = applied.await.map_err(at_start)?;
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    if number > LATEST {
        return Err(Error::Misuse(
            "the Postgres database was migrated by a newer skytale: upgrade this one",
        ));
    }
    Ok(number)
}

/// Needs the table.
async fn last_applied(db: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("SELECT coalesce(max(number), 0) FROM skytale_migrations")
        .fetch_one(db)
        .await
}

async fn apply_missing(db: &mut PgConnection, now: Time) -> Result<(), Error> {
    let applied = within(APPLY_MAX, async {
        let mut tx = db.begin().await?;
        // Another server may be at it, and a migration may take its time.
        sqlx::raw_sql("SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '60s'")
            .execute(&mut *tx)
            .await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(LOCK)
            .execute(&mut *tx)
            .await?;
        // Not after a look whether it is there: while this one waited for the lock it remembered
        // that it is not. What takes a lock on the table sees what others have made meanwhile.
        sqlx::raw_sql(
            "CREATE TABLE IF NOT EXISTS skytale_migrations (
                 number     INTEGER PRIMARY KEY,
                 applied_ms BIGINT NOT NULL
             )",
        )
        .execute(&mut *tx)
        .await?;
        let reached = last_applied(&mut tx).await?;
        for (number, &sql) in (1_i32..).zip(MIGRATIONS) {
            if number > reached {
                sqlx::raw_sql(sql).execute(&mut *tx).await?;
                sqlx::query("INSERT INTO skytale_migrations (number, applied_ms) VALUES ($1, $2)")
                    .bind(number)
                    .bind(ms(now))
                    .execute(&mut *tx)
                    .await?;
            }
        }
        tx.commit().await
    });
    applied.await.map_err(at_start)?;
    // What was applied while this one waited may be more than it knows.
    known(db).await.map(|_| ())
}

/// Numbered from 1, applied in order, never edited.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/postgres/0001_accounts.sql"),
    include_str!("../../migrations/postgres/0002_revocations.sql"),
    include_str!("../../migrations/postgres/0003_standing.sql"),
    include_str!("../../migrations/postgres/0004_once.sql"),
    include_str!("../../migrations/postgres/0005_usage.sql"),
];
#[expect(clippy::cast_possible_truncation, reason = "they are few")]
const LATEST: u32 = MIGRATIONS.len() as u32;
/// "skytale1" as a number: whoever else takes locks in the same database is unlikely to take this.
const LOCK: i64 = 0x736b_7974_616c_6531;
/// For questions of a moment.
const CHECK_MAX: Duration = Duration::from_secs(10);
/// For the others that start at the same time, and for the migrations themselves.
const APPLY_MAX: Duration = Duration::from_secs(90);
const MISSING: Error = Error::Misuse(
    "the Postgres database lacks migrations of this skytale: run `skytale migrate schema` on it, or start without --no-migrate",
);

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};
    use skytale_wire::id::Digest as Hash;

    use super::*;

    /// Databases in the field were made by these very bytes.
    #[test]
    fn migrations_are_never_edited() {
        let hashes: Vec<String> = MIGRATIONS
            .iter()
            .map(|sql| Hash(Sha256::digest(sql.as_bytes()).into()).to_string())
            .collect();

        assert_eq!(
            hashes,
            [
                "c4061a8fe647bdbab2e187e1b472d36d4251ae4f4bfdf8a735cd462294ae3e41",
                "c9f6f353f63e3fba94d28bd2456aa1a68b98eeea57fca590d18ee76928492128",
                "ffdc2f3c4e842a582efd341a020b2de2f6485a16a968e70430cbf8e0c2e04e8b",
                "887b10b54916b02779e98c3dd30547e29772c8ff9a9513e2c3c463a308f80f8c",
                "c2c02621c3f90c522d7ef143af396c152bbaf084b6dc4b01ea565897aae0db98",
            ]
        );
    }
}
