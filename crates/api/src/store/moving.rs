//! Moves what a `SQLite` file remembers into an empty Postgres database: in pages, so that a large
//! file needs little memory, and in one transaction, so that the database has all of it or nothing.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, Row, params};
use sqlx::{Connection as _, PgConnection};

use super::{
    postgres::{at_start, within},
    sqlite,
};
use crate::error::Error;

/// How many rows of each kind a database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Accounts.
    pub accounts: u64,
    /// API keys, the revoked ones too.
    pub keys: u64,
    /// Agents of accounts.
    pub agents: u64,
    /// Months of accounts and keys in which something was used.
    pub usage: u64,
}

/// What was moved, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// In the `SQLite` file.
    pub source: Counts,
    /// In Postgres before.
    pub before: Counts,
    /// In Postgres now; as before when nothing was to be changed.
    pub after: Counts,
}

/// A `SQLite` file that nobody else has open, for as long as this is held.
#[derive(Debug)]
pub(crate) struct Source(Connection);

impl Source {
    /// Takes the file for itself. A server that runs has it open and so is noticed.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(at_source)?;
        db.busy_timeout(Duration::ZERO).map_err(at_source)?;
        // Whoever uses a file in WAL mode holds a shared lock on it until the end, so an exclusive
        // one is had only when there is nobody. It is taken by the first read.
        db.pragma_update(None, "locking_mode", "exclusive")
            .map_err(at_source)?;
        let version: u32 = db
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(at_source)?;
        if usize::try_from(version) != Ok(sqlite::MIGRATIONS.len()) {
            return Err(Error::Misuse(
                "the SQLite file is not an API server's database of this version: start this \
                 skytale's API server on it once, or upgrade this skytale",
            ));
        }
        db.execute_batch("BEGIN IMMEDIATE").map_err(at_source)?;
        Ok(Self(db))
    }

    fn counts(&self) -> Result<Counts, Error> {
        let row = self.0.query_row(
            "SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM api_keys),
                    (SELECT count(*) FROM agents), (SELECT count(*) FROM usage_by_key)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        );
        row.map_err(at_source).and_then(counts)
    }

    fn accounts(&self, after: &[u8]) -> Result<Accounts, Error> {
        let mut page = Accounts::default();
        self.page(
            "SELECT id, email, password_hash, created_ms, refused_sign_ups, name,
                    sessions_from_ms, deleted_ms
             FROM accounts WHERE id > ?1 ORDER BY id LIMIT ?2",
            params![after, PAGE],
            |row| {
                page.id.push(row.get(0)?);
                page.email.push(row.get(1)?);
                page.password_hash.push(row.get(2)?);
                page.created_ms.push(row.get(3)?);
                page.refused_sign_ups.push(row.get(4)?);
                page.name.push(row.get(5)?);
                page.sessions_from_ms.push(row.get(6)?);
                page.deleted_ms.push(row.get(7)?);
                Ok(())
            },
        )?;
        Ok(page)
    }

    fn keys(&self, after: i64) -> Result<Keys, Error> {
        let mut page = Keys::default();
        self.page(
            "SELECT place, id, account, name, hash, created_ms, last_used_ms, revoked_ms, scopes,
                    expires_ms
             FROM api_keys WHERE place > ?1 ORDER BY place LIMIT ?2",
            params![after, PAGE],
            |row| {
                page.last_place = row.get(0)?;
                page.id.push(row.get(1)?);
                page.account.push(row.get(2)?);
                page.name.push(row.get(3)?);
                page.hash.push(row.get(4)?);
                page.created_ms.push(row.get(5)?);
                page.last_used_ms.push(row.get(6)?);
                page.revoked_ms.push(row.get(7)?);
                page.scopes.push(row.get(8)?);
                page.expires_ms.push(row.get(9)?);
                Ok(())
            },
        )?;
        Ok(page)
    }

    fn usage(&self, after: (&[u8], &str, &str)) -> Result<Usage, Error> {
        let mut page = Usage::default();
        self.page(
            "SELECT account, month, key, token_exchanges, messages, bytes, delivered, connected_ms
             FROM usage_by_key WHERE (account, month, key) > (?1, ?2, ?3)
             ORDER BY account, month, key LIMIT ?4",
            params![after.0, after.1, after.2, PAGE],
            |row| {
                page.account.push(row.get(0)?);
                page.month.push(row.get(1)?);
                page.key.push(row.get(2)?);
                page.token_exchanges.push(row.get(3)?);
                page.messages.push(row.get(4)?);
                page.bytes.push(row.get(5)?);
                page.delivered.push(row.get(6)?);
                page.connected_ms.push(row.get(7)?);
                Ok(())
            },
        )?;
        Ok(page)
    }

    /// Which report of each relay was taken last. A server has few relays.
    fn reports(&self) -> Result<Reports, Error> {
        let mut all = Reports::default();
        self.page(
            "SELECT relay, number, taken_ms FROM usage_reports ORDER BY relay",
            &[],
            |row| {
                all.relay.push(row.get(0)?);
                all.number.push(row.get(1)?);
                all.taken_ms.push(row.get(2)?);
                Ok(())
            },
        )?;
        Ok(all)
    }

    fn agents(&self, after: (&[u8], &[u8])) -> Result<Agents, Error> {
        let mut page = Agents::default();
        self.page(
            "SELECT account, agent, first_ms, last_ms, disabled_ms FROM agents
             WHERE (account, agent) > (?1, ?2) ORDER BY account, agent LIMIT ?3",
            params![after.0, after.1, PAGE],
            |row| {
                page.account.push(row.get(0)?);
                page.agent.push(row.get(1)?);
                page.first_ms.push(row.get(2)?);
                page.last_ms.push(row.get(3)?);
                page.disabled_ms.push(row.get(4)?);
                Ok(())
            },
        )?;
        Ok(page)
    }

    /// What was revoked of late, and the last place that was ever given.
    fn revocations(&self) -> Result<(Revocations, i64), Error> {
        let mut all = Revocations::default();
        self.page(
            "SELECT place, at_ms, revoked FROM revocations ORDER BY place",
            &[],
            |row| {
                all.place.push(row.get(0)?);
                all.at_ms.push(row.get(1)?);
                all.revoked.push(row.get(2)?);
                Ok(())
            },
        )?;
        let last = self.0.query_row(
            "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'revocations'",
            [],
            |row| row.get(0),
        );
        Ok((all, last.map_err(at_source)?))
    }

    fn page(
        &self,
        sql: &'static str,
        parameters: &[&dyn rusqlite::ToSql],
        mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), Error> {
        let mut found = self.0.prepare_cached(sql).map_err(at_source)?;
        let mut rows = found.query(parameters).map_err(at_source)?;
        while let Some(row) = rows.next().map_err(at_source)? {
            take(row).map_err(at_source)?;
        }
        Ok(())
    }
}

/// Columns, as they are bound in one statement.
#[derive(Debug, Default)]
struct Accounts {
    id: Vec<Vec<u8>>,
    email: Vec<String>,
    password_hash: Vec<String>,
    created_ms: Vec<i64>,
    refused_sign_ups: Vec<i64>,
    name: Vec<String>,
    sessions_from_ms: Vec<i64>,
    deleted_ms: Vec<Option<i64>>,
}

#[derive(Debug, Default)]
struct Keys {
    last_place: i64,
    id: Vec<String>,
    account: Vec<Vec<u8>>,
    name: Vec<String>,
    hash: Vec<String>,
    created_ms: Vec<i64>,
    last_used_ms: Vec<Option<i64>>,
    revoked_ms: Vec<Option<i64>>,
    scopes: Vec<String>,
    expires_ms: Vec<Option<i64>>,
}

#[derive(Debug, Default)]
struct Usage {
    account: Vec<Vec<u8>>,
    month: Vec<String>,
    key: Vec<String>,
    token_exchanges: Vec<i64>,
    messages: Vec<i64>,
    bytes: Vec<i64>,
    delivered: Vec<i64>,
    connected_ms: Vec<i64>,
}

#[derive(Debug, Default)]
struct Reports {
    relay: Vec<Vec<u8>>,
    number: Vec<i64>,
    taken_ms: Vec<i64>,
}

#[derive(Debug, Default)]
struct Agents {
    account: Vec<Vec<u8>>,
    agent: Vec<Vec<u8>>,
    first_ms: Vec<i64>,
    last_ms: Vec<i64>,
    disabled_ms: Vec<Option<i64>>,
}

#[derive(Debug, Default)]
struct Revocations {
    place: Vec<i64>,
    at_ms: Vec<i64>,
    revoked: Vec<String>,
}

/// Copies everything, if nothing is there yet; with `dry_run` only counts.
pub(crate) async fn copy(
    source: &Source,
    target: &mut PgConnection,
    dry_run: bool,
) -> Result<Moved, Error> {
    let found = source.counts()?;
    let mut tx = step(target.begin()).await?;
    // A server that runs on the target waits, and is then too late to be the first.
    let lock = sqlx::raw_sql(
        "SET LOCAL statement_timeout = '60s';
         SET LOCAL idle_in_transaction_session_timeout = '60s';
         LOCK TABLE accounts, api_keys, agents, usage_by_key, usage_reports, revocations
         IN EXCLUSIVE MODE",
    );
    step(lock.execute(&mut *tx)).await?;
    let before = counts_of(&mut tx).await?;
    if before != Counts::NONE {
        return Err(Error::Misuse(
            "the Postgres database has accounts already: give a new, empty one on which only \
             `skytale migrate schema` has run",
        ));
    }
    if dry_run {
        return Ok(Moved {
            source: found,
            before,
            after: before,
        });
    }
    copy_accounts(source, &mut tx).await?;
    copy_keys(source, &mut tx).await?;
    copy_agents(source, &mut tx).await?;
    copy_usage(source, &mut tx).await?;
    copy_reports(source, &mut tx).await?;
    copy_revocations(source, &mut tx).await?;
    let after = counts_of(&mut tx).await?;
    if after != found {
        return Err(Error::Damaged(
            "not every row arrived in Postgres, so nothing was kept there: check the SQLite file \
             with `PRAGMA integrity_check`",
        ));
    }
    step(tx.commit()).await?;
    Ok(Moved {
        source: found,
        before,
        after,
    })
}

async fn copy_accounts(source: &Source, target: &mut PgConnection) -> Result<(), Error> {
    let mut after = Vec::new();
    loop {
        let page = source.accounts(&after)?;
        let Some(last) = page.id.last() else {
            return Ok(());
        };
        after.clone_from(last);
        let insert = sqlx::query(
            "INSERT INTO accounts (id, email, password_hash, created_ms, refused_sign_ups, name,
                                   sessions_from_ms, deleted_ms)
             SELECT * FROM unnest($1::BYTEA[], $2::TEXT[], $3::TEXT[], $4::BIGINT[], $5::BIGINT[],
                                  $6::TEXT[], $7::BIGINT[], $8::BIGINT[])",
        )
        .bind(page.id)
        .bind(page.email)
        .bind(page.password_hash)
        .bind(page.created_ms)
        .bind(page.refused_sign_ups)
        .bind(page.name)
        .bind(page.sessions_from_ms)
        .bind(page.deleted_ms);
        step(insert.execute(&mut *target)).await?;
    }
}

/// Places are given anew and in the old order.
async fn copy_keys(source: &Source, target: &mut PgConnection) -> Result<(), Error> {
    let mut after = 0;
    loop {
        let page = source.keys(after)?;
        if page.id.is_empty() {
            return Ok(());
        }
        after = page.last_place;
        let insert = sqlx::query(
            "INSERT INTO api_keys (id, account, name, hash, created_ms, last_used_ms, revoked_ms,
                                   scopes, expires_ms)
             SELECT id, account, name, hash, created_ms, last_used_ms, revoked_ms, scopes,
                    expires_ms
             FROM unnest($1::TEXT[], $2::BYTEA[], $3::TEXT[], $4::TEXT[], $5::BIGINT[],
                         $6::BIGINT[], $7::BIGINT[], $8::TEXT[], $9::BIGINT[]) WITH ORDINALITY
                  AS row (id, account, name, hash, created_ms, last_used_ms, revoked_ms, scopes,
                          expires_ms, nth)
             ORDER BY nth",
        )
        .bind(page.id)
        .bind(page.account)
        .bind(page.name)
        .bind(page.hash)
        .bind(page.created_ms)
        .bind(page.last_used_ms)
        .bind(page.revoked_ms)
        .bind(page.scopes)
        .bind(page.expires_ms);
        step(insert.execute(&mut *target)).await?;
    }
}

async fn copy_agents(source: &Source, target: &mut PgConnection) -> Result<(), Error> {
    let mut after = (Vec::new(), Vec::new());
    loop {
        let page = source.agents((&after.0, &after.1))?;
        let (Some(account), Some(agent)) = (page.account.last(), page.agent.last()) else {
            return Ok(());
        };
        after = (account.clone(), agent.clone());
        let insert = sqlx::query(
            "INSERT INTO agents (account, agent, first_ms, last_ms, disabled_ms)
             SELECT * FROM unnest($1::BYTEA[], $2::BYTEA[], $3::BIGINT[], $4::BIGINT[],
                                  $5::BIGINT[])",
        )
        .bind(page.account)
        .bind(page.agent)
        .bind(page.first_ms)
        .bind(page.last_ms)
        .bind(page.disabled_ms);
        step(insert.execute(&mut *target)).await?;
    }
}

async fn copy_usage(source: &Source, target: &mut PgConnection) -> Result<(), Error> {
    let mut after = (Vec::new(), String::new(), String::new());
    loop {
        let page = source.usage((&after.0, &after.1, &after.2))?;
        let (Some(account), Some(month), Some(key)) =
            (page.account.last(), page.month.last(), page.key.last())
        else {
            return Ok(());
        };
        after = (account.clone(), month.clone(), key.clone());
        let insert = sqlx::query(
            "INSERT INTO usage_by_key (account, month, key, token_exchanges, messages, bytes,
                                       delivered, connected_ms)
             SELECT * FROM unnest($1::BYTEA[], $2::TEXT[], $3::TEXT[], $4::BIGINT[], $5::BIGINT[],
                                  $6::BIGINT[], $7::BIGINT[], $8::BIGINT[])",
        )
        .bind(page.account)
        .bind(page.month)
        .bind(page.key)
        .bind(page.token_exchanges)
        .bind(page.messages)
        .bind(page.bytes)
        .bind(page.delivered)
        .bind(page.connected_ms);
        step(insert.execute(&mut *target)).await?;
    }
}

/// So that what a relay sends once more counts no second time.
async fn copy_reports(source: &Source, target: &mut PgConnection) -> Result<(), Error> {
    let all = source.reports()?;
    let insert = sqlx::query(
        "INSERT INTO usage_reports (relay, number, taken_ms)
         SELECT * FROM unnest($1::BYTEA[], $2::BIGINT[], $3::BIGINT[])",
    )
    .bind(all.relay)
    .bind(all.number)
    .bind(all.taken_ms);
    step(insert.execute(target)).await.map(|_| ())
}

/// In their places, and new ones come behind: relays go on from the last place that they heard of.
async fn copy_revocations(source: &Source, target: &mut PgConnection) -> Result<(), Error> {
    let (all, last) = source.revocations()?;
    let insert = sqlx::query(
        "INSERT INTO revocations (place, at_ms, revoked) OVERRIDING SYSTEM VALUE
         SELECT * FROM unnest($1::BIGINT[], $2::BIGINT[], $3::TEXT[])",
    )
    .bind(all.place)
    .bind(all.at_ms)
    .bind(all.revoked);
    step(insert.execute(&mut *target)).await?;
    // Without a first place yet, the next one is the first.
    let behind = sqlx::query(
        "SELECT setval(pg_get_serial_sequence('revocations', 'place'), greatest($1, 1), $1 > 0)",
    )
    .bind(last);
    step(behind.execute(target)).await.map(|_| ())
}

async fn counts_of(db: &mut PgConnection) -> Result<Counts, Error> {
    let asked = sqlx::query_as(
        "SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM api_keys),
                (SELECT count(*) FROM agents), (SELECT count(*) FROM usage_by_key)",
    );
    counts(step(asked.fetch_one(db)).await?)
}

impl Counts {
    const NONE: Self = Self {
        accounts: 0,
        keys: 0,
        agents: 0,
        usage: 0,
    };
}

fn counts((accounts, keys, agents, usage): (i64, i64, i64, i64)) -> Result<Counts, Error> {
    let natural = |number| u64::try_from(number).map_err(|_| Error::Damaged("a negative count"));
    Ok(Counts {
        accounts: natural(accounts)?,
        keys: natural(keys)?,
        agents: natural(agents)?,
        usage: natural(usage)?,
    })
}

async fn step<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Error> {
    within(STEP_MAX, work).await.map_err(at_start)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err takes"
)]
fn at_source(error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode as Code;
    match error.sqlite_error_code() {
        Some(Code::DatabaseBusy | Code::DatabaseLocked) => {
            Error::Misuse("the SQLite file is in use: stop the API server that runs on it first")
        }
        Some(Code::CannotOpen) => Error::Misuse(
            "there is no SQLite file of an API server there: name the file, or the data directory \
             that it lies in",
        ),
        Some(_) | None => {
            Error::Damaged("the SQLite file cannot be read: restore it from a backup")
        }
    }
}

/// Rows in one statement.
const PAGE: u32 = 1_000;
/// For each statement of a move.
const STEP_MAX: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use skytale_wire::{
        http::UsageEntry,
        id::{AgentId, RelayKey, Time},
        token::{AccountId, Scopes},
    };

    use super::*;
    use crate::{
        clock::Clock,
        database_url::DatabaseUrl,
        migrate,
        plans::Bounds,
        secret::Hashed,
        store::{
            Email, NewAccount, NewKey, ReportTaken, Store,
            postgres::{
                Limits, Migrations, Postgres,
                cluster::{Cluster, Database},
            },
            sqlite::Sqlite,
        },
    };

    const NOW: Time = Time(1_790_000_000_000);
    const RELAY: RelayKey = RelayKey([9; 32]);
    const ACCOUNTS: u64 = 3;
    /// More than a page, so that pages are put together.
    const KEYS: u64 = 1_200;

    struct Places {
        database: Database,
        url: DatabaseUrl,
        file: PathBuf,
        _dir: tempfile::TempDir,
    }

    impl Places {
        fn new() -> Self {
            let database = Cluster::shared().database();
            let dir = tempfile::tempdir().unwrap();
            Self {
                url: database.url.clone().into(),
                database,
                file: dir.path().join("api.db"),
                _dir: dir,
            }
        }

        async fn moved(&self, dry_run: bool) -> Result<Moved, Error> {
            let clock = Clock::from_fn(|| NOW);
            migrate::sqlite_to_postgres(&self.file, &self.url, dry_run, &clock).await
        }

        async fn migrate(&self) {
            let clock = Clock::from_fn(|| NOW);
            migrate::schema(&self.url, &clock).await.unwrap();
        }

        async fn target(&self) -> Postgres {
            let limits = Limits {
                connections_max: 3,
                wait: Duration::from_mins(1),
                statement: Duration::from_mins(1),
            };
            Postgres::open(&self.url, limits, Migrations::Demand, NOW)
                .await
                .unwrap()
        }

        fn rows(&self) -> String {
            Cluster::shared().ask(
                &self.database,
                "SELECT (SELECT count(*) FROM accounts) + (SELECT count(*) FROM api_keys)
                        + (SELECT count(*) FROM agents) + (SELECT count(*) FROM usage_by_key)",
            )
        }
    }

    fn who(n: u64) -> AccountId {
        AccountId([u8::try_from(n).unwrap(); 16])
    }

    async fn fill(store: &Sqlite) {
        for n in 1..=ACCOUNTS {
            let account = NewAccount {
                id: who(n),
                email: Email::parse(&format!("person{n}@example.org")).unwrap(),
                name: format!("person {n}"),
                password: Hashed::from_stored(format!("hash of {n}")),
                now: Time(n),
            };
            store.create_account(account).await.unwrap();
        }
        // Their ids are in another order than they are made in.
        for n in (0..KEYS).rev() {
            let key = NewKey {
                id: format!("key{n:05}").parse().unwrap(),
                account: who(1 + n % ACCOUNTS),
                name: "grüße ✓".to_owned(),
                hash: Hashed::from_stored(format!("hash of key {n}")),
                scopes: Scopes::all(),
                expires: (n % 2 == 0).then_some(Time(1_000_000 + n)),
                now: Time(n),
            };
            store.create_key(key, u32::MAX).await.unwrap();
        }
        for (id, month) in [("key00000", "2026-11"), ("key00000", "2026-12")] {
            let id = id.parse().unwrap();
            let agent = Some(AgentId([7; 32]));
            store
                .count_exchange(id, agent, month.parse().unwrap(), Bounds::NONE, Time(7))
                .await
                .unwrap();
        }
        let used = UsageEntry {
            account_id: who(1),
            key_id: None,
            month: "2026-12".parse().unwrap(),
            messages: 1,
            bytes: 2,
            delivered: 3,
            connected_ms: 4_000,
        };
        let taken = store.take_report(RELAY, 5, vec![used], Time(7)).await;
        assert_eq!(taken, Ok(ReportTaken::Now));
        let shut = AgentId([7; 32]);
        assert!(store.disable_agent(who(1), shut, Time(8)).await.unwrap());
        let revoked = "key00003".parse().unwrap();
        assert!(store.revoke_key(who(1), revoked, Time(8)).await.unwrap());
    }

    /// Everything that callers can see of it.
    async fn seen(store: &dyn Store) -> String {
        use std::fmt::Write as _;

        let mut seen = String::new();
        for n in 1..=ACCOUNTS {
            let email = Email::parse(&format!("person{n}@example.org")).unwrap();
            let (id, hash) = store.login(email).await.unwrap().unwrap();
            let row = store.account(id).await.unwrap();
            let keys = store.keys(id, None, u32::MAX >> 1).await.unwrap();
            let agents = store.agents(id, None, 100).await.unwrap();
            let usage = store.usage(id).await.unwrap();
            let month = "2026-12".parse().unwrap();
            let by_key = store.usage_by_key(id, month, 100).await.unwrap();
            let hash = hash.as_str();
            writeln!(
                seen,
                "{id:?} {hash} {row:?} {keys:?} {agents:?} {usage:?} {by_key:?}"
            )
            .unwrap();
        }
        let check = store.key("key00003".parse().unwrap()).await.unwrap();
        let check = check.unwrap();
        let hash = check.hash.as_str();
        writeln!(seen, "{:?} {hash} {:?}", check.account, check.row).unwrap();
        let revoked = store.revocations(None, Time(0), 100).await.unwrap();
        writeln!(seen, "{revoked:?}").unwrap();
        seen
    }

    #[tokio::test]
    async fn everything_is_there_afterwards_and_in_the_same_order() {
        let places = Places::new();
        let source = Sqlite::open(&places.file).unwrap();
        fill(&source).await;
        let expected = seen(&source).await;
        drop(source);
        places.migrate().await;

        let dry = places.moved(true).await.unwrap();
        assert_eq!(places.rows(), "0", "a dry run changes nothing");
        let moved = places.moved(false).await.unwrap();

        let all = Counts {
            accounts: ACCOUNTS,
            keys: KEYS,
            agents: 1,
            usage: 3,
        };
        assert_eq!(
            (dry.source, dry.before, dry.after),
            (all, Counts::NONE, Counts::NONE)
        );
        assert_eq!(
            (moved.source, moved.before, moved.after),
            (all, Counts::NONE, all)
        );
        let target = places.target().await;
        assert_eq!(seen(&target).await, expected);
        // A relay that did not hear that its report was taken sends it again.
        let again = target.take_report(RELAY, 5, Vec::new(), NOW).await;
        assert_eq!(again, Ok(ReportTaken::Before));
        let source = Sqlite::open(&places.file).unwrap();
        assert_eq!(seen(&source).await, expected, "the file is as it was");
        // New keys come behind those that were moved.
        let key = NewKey {
            id: "newest00".parse().unwrap(),
            account: who(1),
            name: "new".to_owned(),
            hash: Hashed::from_stored("hash".to_owned()),
            scopes: Scopes::all(),
            expires: None,
            now: NOW,
        };
        target.create_key(key, u32::MAX).await.unwrap();
        let keys = target.keys(who(1), None, u32::MAX >> 1).await.unwrap();
        assert_eq!(keys.last().unwrap().id.as_str(), "newest00");
        // And what is revoked now comes behind what relays have heard of.
        let heard = target.revocations(None, Time(0), 9).await.unwrap();
        let last = heard.last().map(|(place, _)| *place);
        let newest = "newest00".parse().unwrap();
        assert!(target.revoke_key(who(1), newest, NOW).await.unwrap());
        let news = target.revocations(last, Time(0), 9).await.unwrap();
        assert_eq!(news.len(), 1, "{news:?}");
    }

    #[tokio::test]
    async fn a_file_that_a_server_has_open_is_left_alone() {
        let places = Places::new();
        let running = Sqlite::open(&places.file).unwrap();
        places.migrate().await;

        for dry_run in [true, false] {
            let refused = places.moved(dry_run).await.unwrap_err();
            assert!(refused.to_string().contains("in use"), "{refused}");
        }

        drop(running);
        assert!(places.moved(true).await.is_ok());
    }

    #[tokio::test]
    async fn a_database_that_has_something_gets_nothing() {
        let places = Places::new();
        let source = Sqlite::open(&places.file).unwrap();
        fill(&source).await;
        drop(source);
        places.migrate().await;
        places.moved(false).await.unwrap();
        let before = places.rows();

        for dry_run in [true, false] {
            let refused = places.moved(dry_run).await.unwrap_err();
            assert!(
                refused.to_string().contains("accounts already"),
                "{refused}"
            );
        }

        assert_eq!(places.rows(), before);
    }

    #[tokio::test]
    async fn a_database_without_the_schema_is_told_how_to_get_it() {
        let places = Places::new();
        drop(Sqlite::open(&places.file).unwrap());

        let refused = places.moved(false).await.unwrap_err();

        assert!(
            refused.to_string().contains("`skytale migrate schema`"),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn what_is_no_servers_file_is_refused_and_none_is_made() {
        let places = Places::new();
        places.migrate().await;

        let missing = places.moved(true).await.unwrap_err();
        assert!(missing.to_string().contains("no SQLite file"), "{missing}");
        assert!(!places.file.exists());

        drop(Connection::open(&places.file).unwrap());
        let empty = places.moved(true).await.unwrap_err();
        assert!(matches!(empty, Error::Misuse(_)), "{empty:?}");
    }
}
