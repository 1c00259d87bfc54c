//! What an operator does to a Postgres database before a server runs on it: apply migrations, and
//! bring along what a `SQLite` file holds.

use std::path::Path;

use sqlx::Connection as _;

pub use crate::store::{
    moving::{Counts, Moved},
    postgres::Schema,
};
use crate::{
    clock::Clock,
    database_url::DatabaseUrl,
    error::Error,
    store::{
        moving,
        postgres::{self, Migrations},
    },
};

/// Applies the migrations that the database lacks.
pub async fn schema(url: &DatabaseUrl, clock: &Clock) -> Result<Schema, Error> {
    let mut db = postgres::connect(&url.connect_options()?).await?;
    let schema = postgres::bring_up_to_date(&mut db, Migrations::Apply, clock.now()).await?;
    // Everything is done; how the connection ends changes nothing.
    let _ = db.close().await;
    Ok(schema)
}

/// Copies accounts, keys and usage from an API server's `SQLite` file into a Postgres database that
/// has every migration and no account, all or nothing. With `dry_run` it only looks whether it can.
/// The server must not run; the file is not changed. Signing keys are files of their own and stay
/// where they are.
pub async fn sqlite_to_postgres(
    from: &Path,
    to: &DatabaseUrl,
    dry_run: bool,
    clock: &Clock,
) -> Result<Moved, Error> {
    let options = to.connect_options()?;
    let source = moving::Source::open(from)?;
    let mut target = postgres::connect(&options).await?;
    postgres::bring_up_to_date(&mut target, Migrations::Demand, clock.now()).await?;
    let moved = moving::copy(&source, &mut target, dry_run).await?;
    let _ = target.close().await;
    Ok(moved)
}
