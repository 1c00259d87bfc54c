//! `skytale migrate`: what an operator does to a Postgres database before an API server runs on it.

use std::path::{Path, PathBuf};

use serde::Serialize;
use skytale_api::{
    DatabaseUrl,
    clock::Clock,
    migrate::{self, Counts},
};

use crate::{
    args::{DatabasePlace, Migrate},
    exit::Failure,
    output::Output,
    servers::{api_failed, database_url},
};

#[derive(Debug, Serialize)]
struct SchemaDone {
    migrations_before: u32,
    migrations: u32,
}

#[derive(Debug, Serialize)]
struct MoveDone {
    /// Whether nothing was to be changed.
    dry_run: bool,
    source: Rows,
    target_before: Rows,
    target_after: Rows,
    /// Not part of it: it is a file of its own.
    signing_key: &'static str,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Rows {
    accounts: u64,
    keys: u64,
    agents: u64,
    usage: u64,
}

impl From<Counts> for Rows {
    fn from(counts: Counts) -> Self {
        Self {
            accounts: counts.accounts,
            keys: counts.keys,
            agents: counts.agents,
            usage: counts.usage,
        }
    }
}

pub(crate) async fn run(command: Migrate, output: Output) -> Result<(), Failure> {
    match command {
        Migrate::Schema { place } => schema(place, output).await,
        Migrate::SqliteToPostgres {
            from,
            place,
            dry_run,
        } => sqlite_to_postgres(&from, place, dry_run, output).await,
    }
}

async fn schema(place: DatabasePlace, output: Output) -> Result<(), Failure> {
    let url = needed(place)?;
    let schema = migrate::schema(&url, &Clock::system())
        .await
        .map_err(|error| api_failed(&error))?;
    let done = SchemaDone {
        migrations_before: schema.before,
        migrations: schema.now,
    };
    output.result(&done, || {
        let (before, now) = (schema.before, schema.now);
        if before == now {
            format!("the database has every migration already ({now})")
        } else {
            format!(
                "migrations applied: {} ({before} before, {now} now)",
                now - before
            )
        }
    })
}

async fn sqlite_to_postgres(
    from: &Path,
    place: DatabasePlace,
    dry_run: bool,
    output: Output,
) -> Result<(), Failure> {
    let url = needed(place)?;
    let file = file_in(from);
    let moved = migrate::sqlite_to_postgres(&file, &url, dry_run, &Clock::system())
        .await
        .map_err(|error| api_failed(&error))?;
    let done = MoveDone {
        dry_run,
        source: moved.source.into(),
        target_before: moved.before.into(),
        target_after: moved.after.into(),
        signing_key: "not moved",
    };
    output.result(&done, || described(&done))?;
    output.say(SIGNING_KEY);
    Ok(())
}

fn described(done: &MoveDone) -> String {
    let line = |what: &str, rows: Rows| {
        let Rows {
            accounts,
            keys,
            agents,
            usage,
        } = rows;
        format!(
            "  {what}  {accounts} accounts, {keys} keys, {agents} agents, {usage} months of usage"
        )
    };
    let after = if done.dry_run {
        "  nothing was changed: without --dry-run the first line would be in Postgres".to_owned()
    } else {
        line("Postgres now   ", done.target_after)
    };
    [
        line("SQLite file    ", done.source),
        line("Postgres before", done.target_before),
        after,
    ]
    .join("\n")
}

/// The file itself, or where a server puts it below what is given.
fn file_in(from: &Path) -> PathBuf {
    ["server/api.db", "api.db"]
        .iter()
        .map(|below| from.join(below))
        .find(|file| file.is_file())
        .unwrap_or_else(|| from.to_owned())
}

fn needed(place: DatabasePlace) -> Result<DatabaseUrl, Failure> {
    database_url(place)?.ok_or_else(|| {
        Failure::usage("which database? Give --database-url, or SKYTALE_DATABASE_URL")
    })
}

const SIGNING_KEY: &str = "the key that signs tokens is a file and was not moved: keep \
    server/keys/signing.key where the API server runs, and give every API server on this database \
    the same one";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_file_is_found_where_a_server_puts_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server/api.db");
        assert_eq!(file_in(dir.path()), dir.path(), "and refused when opened");
        fs::create_dir(dir.path().join("server")).unwrap();
        fs::write(&file, "").unwrap();

        assert_eq!(file_in(dir.path()), file);
        assert_eq!(file_in(&dir.path().join("server")), file);
        assert_eq!(file_in(&file), file);
    }
}
