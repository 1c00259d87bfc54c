//! The store on a Postgres server: for several API servers with one memory, or a database that
//! somebody looks after already.
//!
//! Each verb is a transaction on a connection of a small pool, and what it says is what the SQLite
//! store says; only there verbs come one after another. Here two meet at a row, and the later one
//! waits for it: READ COMMITTED then shows it what the first one left.
//!
//! Nothing here waits without end, neither for a server that is gone nor for one that stands still.
//! A commit whose answer was lost may have taken place: whoever tries again finds it done.

mod agents;
mod exchanges;
mod once;
mod schema;
mod usage;

use std::{fmt, io, pin::Pin, time::Duration};

use skytale_wire::{
    http::{Revocation, Revoked, UsageEntry, Used},
    id::{AgentId, RelayKey, Time},
    month::Month,
    token::{AccountId, KeyId},
};
use sqlx::{
    Connection as _, PgConnection, PgPool, Row as _,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};
use tokio::{sync::oneshot, time::timeout};

use super::{
    AccountRow, AgentRow, Answer, Claim, Claimed, Created, Email, Exchange, Failure, Kept,
    KeyCheck, KeyCreated, KeyRotated, KeyRow, Mark, NewAccount, NewKey, REVOCATIONS_MS_KEPT,
    ReportTaken, Store,
};
use crate::{database_url::DatabaseUrl, error::Error, plans::Bounds, secret::Hashed};
use exchanges::{Purchase, Queues};
pub use schema::Schema;
pub(crate) use schema::{Migrations, bring_up_to_date};

/// A handle to the pool.
pub(crate) struct Postgres {
    pool: PgPool,
    limits: Limits,
    exchanges: Queues,
}

/// What bounds the use of the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) connections_max: u32,
    /// For a connection, also where one must be made; then the store is unavailable.
    pub(crate) wait: Duration,
    /// For a statement, and for a lock in it, at the server.
    pub(crate) statement: Duration,
}

/// The work of a verb, within its transaction.
type Step<'c, T> = Pin<Box<dyn Future<Output = Result<T, sqlx::Error>> + Send + 'c>>;

impl Postgres {
    /// Reaches the server, brings the schema up to date or finds that it is, and keeps connections
    /// ready from then on.
    pub(crate) async fn open(
        url: &DatabaseUrl,
        limits: Limits,
        migrations: Migrations,
        now: Time,
    ) -> Result<Self, Error> {
        let options = url.connect_options()?;
        let mut first = connect(&options).await?;
        bring_up_to_date(&mut first, migrations, now).await?;
        // When it does not end well, the server notices by itself.
        let _ = timeout(CONNECT_MAX, first.close()).await;
        let pool = PgPoolOptions::new()
            .max_connections(limits.connections_max)
            .acquire_timeout(limits.wait)
            .acquire_slow_threshold(limits.wait)
            .after_connect(move |connection, _| Box::pin(settle(connection, limits.statement)))
            .connect_lazy_with(options);
        Ok(Self {
            pool,
            limits,
            exchanges: Queues::default(),
        })
    }

    /// Runs `work` in one transaction and commits it, in a task of its own: a caller that goes away
    /// neither stops it halfway nor leaves a connection behind in the middle of something.
    fn run<T, W>(&self, work: W) -> Answer<'_, T>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut PgConnection) -> Step<'c, T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        tokio::spawn(verb(self.pool.clone(), self.limit(), work, reply));
        Box::pin(async move { answer.await.unwrap_or(Err(Failure::Unavailable)) })
    }

    /// For a whole transaction: a server that can still speak gives up first.
    fn limit(&self) -> Duration {
        self.limits.statement + VERB_MARGIN
    }
}

/// The options behind the pool hold the password.
impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

impl Store for Postgres {
    fn create_account(&self, account: NewAccount) -> Answer<'_, Created> {
        self.run(move |db| Box::pin(async move { insert_account(db, &account).await }))
    }

    fn create_account_with_key(&self, account: NewAccount, key: NewKey) -> Answer<'_, Created> {
        self.run(move |db| {
            Box::pin(async move {
                let created = insert_account(db, &account).await?;
                if created == Created::Yes {
                    insert_key(db, &key).await?;
                }
                Ok(created)
            })
        })
    }

    fn login(&self, email: Email) -> Answer<'_, Option<(AccountId, Hashed)>> {
        self.run(move |db| {
            Box::pin(async move {
                sqlx::query("SELECT id, password_hash FROM accounts WHERE email = $1")
                    .bind(email.as_str())
                    .fetch_optional(db)
                    .await?
                    .map(|row| Ok((account(&row, 0)?, Hashed::from_stored(row.try_get(1)?))))
                    .transpose()
            })
        })
    }

    fn account(&self, id: AccountId) -> Answer<'_, Option<AccountRow>> {
        self.run(move |db| {
            Box::pin(async move {
                sqlx::query(
                    "SELECT email, name, created_ms, sessions_from_ms, password_hash FROM accounts
                     WHERE id = $1 AND deleted_ms IS NULL",
                )
                .bind(id.0)
                .fetch_optional(db)
                .await?
                .map(|row| {
                    Ok(AccountRow {
                        email: row.try_get(0)?,
                        name: row.try_get(1)?,
                        created: time(&row, 2)?,
                        sessions_from: time(&row, 3)?,
                        password: Hashed::from_stored(row.try_get(4)?),
                    })
                })
                .transpose()
            })
        })
    }

    fn change_password(
        &self,
        account: AccountId,
        checked: Hashed,
        new: Hashed,
        now: Time,
    ) -> Answer<'_, bool> {
        self.run(move |db| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE accounts SET password_hash = $3, sessions_from_ms = $4
                     WHERE id = $1 AND password_hash = $2 AND deleted_ms IS NULL",
                )
                .bind(account.0)
                .bind(checked.as_str())
                .bind(new.as_str())
                .bind(ms(now))
                .execute(db)
                .await
                .map(|changed| changed.rows_affected() == 1)
            })
        })
    }

    fn delete_account(&self, account: AccountId, checked: Hashed, now: Time) -> Answer<'_, bool> {
        self.run(move |db| {
            Box::pin(async move {
                // Keys that are being made wait here, and then find no account.
                let ended = sqlx::query(
                    "UPDATE accounts SET email = $3, name = '', password_hash = '', deleted_ms = $4
                     WHERE id = $1 AND password_hash = $2 AND deleted_ms IS NULL",
                )
                .bind(account.0)
                .bind(checked.as_str())
                .bind(Email::tombstone(account).as_str())
                .bind(ms(now))
                .execute(&mut *db)
                .await?;
                if ended.rows_affected() == 0 {
                    return Ok(false);
                }
                sqlx::query(
                    "UPDATE api_keys SET name = '', hash = '', revoked_ms = coalesce(revoked_ms, $2)
                     WHERE account = $1",
                )
                .bind(account.0)
                .bind(ms(now))
                .execute(&mut *db)
                .await?;
                sqlx::query("DELETE FROM agents WHERE account = $1")
                    .bind(account.0)
                    .execute(&mut *db)
                    .await?;
                list_revoked(db, &Revoked::Account(account), now).await?;
                Ok(true)
            })
        })
    }

    fn create_key(&self, key: NewKey, live_max: u32) -> Answer<'_, KeyCreated> {
        self.run(move |db| {
            Box::pin(async move {
                // Held until the end, so that keys of one account are made one after another: none
                // is counted late, and their places are in the order in which they can be seen.
                // It does not stand in the way of counting exchanges.
                let owner = sqlx::query(
                    "SELECT id FROM accounts WHERE id = $1 AND deleted_ms IS NULL
                     FOR NO KEY UPDATE",
                )
                .bind(key.account.0)
                .fetch_optional(&mut *db)
                .await?;
                if owner.is_none() {
                    return Ok(KeyCreated::NoAccount);
                }
                let live: i64 = sqlx::query_scalar(
                    "SELECT count(*) FROM api_keys WHERE account = $1 AND revoked_ms IS NULL
                            AND (expires_ms IS NULL OR expires_ms > $2)",
                )
                .bind(key.account.0)
                .bind(ms(key.now))
                .fetch_one(&mut *db)
                .await?;
                if live >= i64::from(live_max) {
                    return Ok(KeyCreated::TooMany);
                }
                insert_key(db, &key).await?;
                Ok(KeyCreated::Yes)
            })
        })
    }

    fn rotate_key(&self, old: KeyId, new: NewKey, old_ends: Time) -> Answer<'_, KeyRotated> {
        self.run(move |db| {
            Box::pin(async move {
                // In the order of all who make keys: first the account, then the key.
                sqlx::query("SELECT id FROM accounts WHERE id = $1 FOR NO KEY UPDATE")
                    .bind(new.account.0)
                    .execute(&mut *db)
                    .await?;
                let ends = sqlx::query(
                    "UPDATE api_keys SET expires_ms = least(expires_ms, $4)
                     WHERE account = $1 AND id = $2 AND revoked_ms IS NULL
                           AND (expires_ms IS NULL OR expires_ms > $3)",
                )
                .bind(new.account.0)
                .bind(old.as_str())
                .bind(ms(new.now))
                .bind(ms(old_ends))
                .execute(&mut *db)
                .await?;
                if ends.rows_affected() == 0 {
                    return Ok(KeyRotated::NoKey);
                }
                insert_key(db, &new).await?;
                if old_ends > new.now {
                    return Ok(KeyRotated::Yes);
                }
                sqlx::query("UPDATE api_keys SET revoked_ms = $2 WHERE id = $1")
                    .bind(old.as_str())
                    .bind(ms(new.now))
                    .execute(&mut *db)
                    .await?;
                list_revoked(db, &Revoked::Key(old), new.now).await?;
                Ok(KeyRotated::YesAndRevoked)
            })
        })
    }

    fn key(&self, id: KeyId) -> Answer<'_, Option<KeyCheck>> {
        self.run(move |db| {
            Box::pin(async move {
                sqlx::query(
                    "SELECT id, name, created_ms, last_used_ms, revoked_ms, scopes, expires_ms,
                            account, hash
                     FROM api_keys WHERE id = $1",
                )
                .bind(id.as_str())
                .fetch_optional(db)
                .await?
                .map(|row| {
                    Ok(KeyCheck {
                        row: key_row(&row)?,
                        account: account(&row, 7)?,
                        hash: Hashed::from_stored(row.try_get(8)?),
                    })
                })
                .transpose()
            })
        })
    }

    fn keys(
        &self,
        account: AccountId,
        after: Option<KeyId>,
        limit: u32,
    ) -> Answer<'_, Vec<KeyRow>> {
        self.run(move |db| {
            Box::pin(async move {
                let behind: Option<i64> = match after {
                    None => Some(0),
                    Some(id) => {
                        sqlx::query_scalar(
                            "SELECT place FROM api_keys WHERE account = $1 AND id = $2",
                        )
                        .bind(account.0)
                        .bind(id.as_str())
                        .fetch_optional(&mut *db)
                        .await?
                    }
                };
                let Some(behind) = behind else {
                    return Ok(Vec::new());
                };
                sqlx::query(
                    "SELECT id, name, created_ms, last_used_ms, revoked_ms, scopes, expires_ms
                     FROM api_keys
                     WHERE account = $1 AND place > $2 ORDER BY place LIMIT $3",
                )
                .bind(account.0)
                .bind(behind)
                .bind(i64::from(limit))
                .fetch_all(db)
                .await?
                .iter()
                .map(key_row)
                .collect()
            })
        })
    }

    fn revoke_key(&self, account: AccountId, id: KeyId, now: Time) -> Answer<'_, bool> {
        self.run(move |db| {
            Box::pin(async move {
                let ended = sqlx::query(
                    "UPDATE api_keys SET revoked_ms = $3
                     WHERE account = $1 AND id = $2 AND revoked_ms IS NULL",
                )
                .bind(account.0)
                .bind(id.as_str())
                .bind(ms(now))
                .execute(&mut *db)
                .await?;
                if ended.rows_affected() == 1 {
                    list_revoked(db, &Revoked::Key(id), now).await?;
                    return Ok(true);
                }
                sqlx::query_scalar(
                    "SELECT EXISTS (SELECT 1 FROM api_keys WHERE account = $1 AND id = $2)",
                )
                .bind(account.0)
                .bind(id.as_str())
                .fetch_one(db)
                .await
            })
        })
    }

    fn revocations(
        &self,
        after: Option<u64>,
        since: Time,
        limit: u32,
    ) -> Answer<'_, Vec<(u64, Revocation)>> {
        self.run(move |db| {
            Box::pin(async move {
                sqlx::query(
                    "SELECT place, revoked, at_ms FROM revocations
                     WHERE CASE WHEN $1 <= (SELECT max(place) FROM revocations)
                                THEN place > $1 ELSE at_ms >= $2 END
                     ORDER BY place LIMIT $3",
                )
                .bind(after.map(|place| i64::try_from(place).unwrap_or(i64::MAX)))
                .bind(ms(since))
                .bind(i64::from(limit))
                .fetch_all(db)
                .await?
                .iter()
                .map(|row| {
                    let revoked: &str = row.try_get(1)?;
                    let revoked =
                        serde_json::from_str(revoked).map_err(|_| senseless("what was revoked"))?;
                    let at_ms = count(row, 2)?;
                    Ok((count(row, 0)?, Revocation { revoked, at_ms }))
                })
                .collect()
            })
        })
    }

    fn count_exchange(
        &self,
        id: KeyId,
        agent: Option<AgentId>,
        month: Month,
        bounds: Bounds,
        now: Time,
    ) -> Answer<'_, Exchange> {
        let purchase = Purchase {
            agent,
            month,
            bounds,
            now,
        };
        let counted = self.exchanges.count(&self.pool, self.limit(), id, purchase);
        Box::pin(async move { counted.await.unwrap_or(Err(Failure::Unavailable)) })
    }

    fn agents(
        &self,
        account: AccountId,
        after: Option<AgentId>,
        limit: u32,
    ) -> Answer<'_, Vec<AgentRow>> {
        self.run(move |db| Box::pin(agents::page(db, account, after, limit)))
    }

    fn disable_agent(&self, account: AccountId, agent: AgentId, now: Time) -> Answer<'_, bool> {
        self.run(move |db| Box::pin(agents::disable(db, account, agent, now)))
    }

    fn enable_agent(&self, account: AccountId, agent: AgentId) -> Answer<'_, bool> {
        self.run(move |db| Box::pin(agents::enable(db, account, agent)))
    }

    fn usage(&self, account: AccountId) -> Answer<'_, Vec<(Month, Used)>> {
        self.run(move |db| Box::pin(usage::by_month(db, account)))
    }

    fn usage_by_key(
        &self,
        account: AccountId,
        month: Month,
        limit: u32,
    ) -> Answer<'_, Vec<(Option<KeyId>, Used)>> {
        self.run(move |db| Box::pin(usage::by_key(db, account, month, limit)))
    }

    fn take_report(
        &self,
        relay: RelayKey,
        number: u64,
        entries: Vec<UsageEntry>,
        now: Time,
    ) -> Answer<'_, ReportTaken> {
        self.run(move |db| {
            Box::pin(async move { usage::take_report(db, relay, number, &entries, now).await })
        })
    }

    fn claim(&self, claim: Claim) -> Answer<'_, Claimed> {
        self.run(move |db| Box::pin(once::claim(db, claim)))
    }

    fn keep(&self, mark: Mark, kept: Kept) -> Answer<'_, ()> {
        self.run(move |db| Box::pin(once::keep(db, mark, kept)))
    }

    fn release(&self, mark: Mark) -> Answer<'_, ()> {
        self.run(move |db| Box::pin(once::release(db, mark)))
    }

    fn ready(&self) -> Answer<'_, ()> {
        let writable: Answer<'_, bool> = self.run(|db| {
            Box::pin(async move {
                sqlx::query_scalar("SELECT current_setting('transaction_read_only') = 'off'")
                    .fetch_one(db)
                    .await
            })
        });
        // A standby answers questions and takes nothing.
        Box::pin(async move { writable.await?.then_some(()).ok_or(Failure::Unavailable) })
    }
}

async fn insert_account(
    db: &mut PgConnection,
    account: &NewAccount,
) -> Result<Created, sqlx::Error> {
    let owner: [u8; 16] = sqlx::query_scalar(
        "INSERT INTO accounts (id, email, password_hash, created_ms, name)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (email) DO UPDATE SET refused_sign_ups = accounts.refused_sign_ups + 1
         RETURNING id",
    )
    .bind(account.id.0)
    .bind(account.email.as_str())
    .bind(account.password.as_str())
    .bind(ms(account.now))
    .bind(&account.name)
    .fetch_one(db)
    .await?;
    Ok(if owner == account.id.0 {
        Created::Yes
    } else {
        Created::Taken
    })
}

async fn insert_key(db: &mut PgConnection, key: &NewKey) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO api_keys (id, account, name, hash, created_ms, scopes, expires_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(key.id.as_str())
    .bind(key.account.0)
    .bind(&key.name)
    .bind(key.hash.as_str())
    .bind(ms(key.now))
    .bind(key.scopes.to_string())
    .bind(key.expires.map(ms))
    .execute(db)
    .await
    .map(|_| ())
}

/// Puts it on the list, and takes off what no token can outlive.
async fn list_revoked(
    db: &mut PgConnection,
    revoked: &Revoked,
    now: Time,
) -> Result<(), sqlx::Error> {
    let text = serde_json::to_string(revoked).map_err(|_| senseless("what was revoked"))?;
    // Held until the end: places are in the order in which they can be seen, so that whoever has
    // read up to one misses nothing that gets a lower one later.
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(REVOKING)
        .execute(&mut *db)
        .await?;
    sqlx::query("INSERT INTO revocations (at_ms, revoked) VALUES ($1, $2)")
        .bind(ms(now))
        .bind(text)
        .execute(&mut *db)
        .await?;
    sqlx::query("DELETE FROM revocations WHERE at_ms < $1")
        .bind(ms(Time(now.0.saturating_sub(REVOCATIONS_MS_KEPT))))
        .execute(db)
        .await
        .map(|_| ())
}

fn key_row(row: &PgRow) -> Result<KeyRow, sqlx::Error> {
    let id: &str = row.try_get(0)?;
    let scopes: &str = row.try_get(5)?;
    Ok(KeyRow {
        id: id.parse().map_err(|_| senseless("a key's id"))?,
        name: row.try_get(1)?,
        created: time(row, 2)?,
        last_used: time_or_none(row, 3)?,
        revoked: time_or_none(row, 4)?,
        scopes: scopes.parse().map_err(|()| senseless("a key's scopes"))?,
        expires: time_or_none(row, 6)?,
    })
}

fn time_or_none(row: &PgRow, column: usize) -> Result<Option<Time>, sqlx::Error> {
    let number: Option<i64> = row.try_get(column)?;
    number.map(|number| natural(number).map(Time)).transpose()
}

fn account(row: &PgRow, column: usize) -> Result<AccountId, sqlx::Error> {
    row.try_get(column).map(AccountId)
}

fn time(row: &PgRow, column: usize) -> Result<Time, sqlx::Error> {
    count(row, column).map(Time)
}

fn count(row: &PgRow, column: usize) -> Result<u64, sqlx::Error> {
    natural(row.try_get(column)?)
}

/// Postgres' integers are signed; none of ours is negative.
fn natural(number: i64) -> Result<u64, sqlx::Error> {
    u64::try_from(number).map_err(|_| senseless("a negative number"))
}

fn senseless(what: &'static str) -> sqlx::Error {
    sqlx::Error::Decode(what.into())
}

/// A clock beyond Postgres' integers is kept as the last moment there is.
fn ms(time: Time) -> i64 {
    number(time.0)
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

async fn verb<T, W>(
    pool: PgPool,
    limit: Duration,
    work: W,
    reply: oneshot::Sender<Result<T, Failure>>,
) where
    W: for<'c> FnOnce(&'c mut PgConnection) -> Step<'c, T>,
{
    // Nobody waits any more when the request was given up: the work stands.
    let answer = |done| drop(reply.send(done));
    let mut connection = match pool.acquire().await {
        Ok(connection) => connection,
        Err(error) => return answer(Err(failure(&error))),
    };
    let done = within(limit, in_transaction(&mut connection, work)).await;
    match done {
        Ok(done) => {
            answer(Ok(done));
            // It is asked for a sign of life on its way back, and sqlx would wait for that without
            // end: with a server that stands still no place in the pool would become free again.
            let _ = timeout(RETURN_MAX, connection.return_to_pool()).await;
        }
        Err(error) => {
            // What it was in the middle of is unknown, so it is closed and not used again.
            drop(connection.detach());
            answer(Err(failure(&error)));
        }
    }
}

async fn in_transaction<T, W>(db: &mut PgConnection, work: W) -> Result<T, sqlx::Error>
where
    W: for<'c> FnOnce(&'c mut PgConnection) -> Step<'c, T>,
{
    let mut tx = db.begin().await?;
    let done = work(&mut tx).await?;
    tx.commit().await?;
    Ok(done)
}

/// A connection with its settings, or why there is none, for whoever starts the server.
pub(crate) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    let connected = within(CONNECT_MAX, async {
        let mut connection = PgConnection::connect_with(options).await?;
        settle(&mut connection, CONNECT_MAX).await?;
        Ok(connection)
    });
    connected.await.map_err(at_start)
}

/// Sets what verbs rely on. Stronger than what role or database have as their own settings: what was
/// answered is on the server's disk, and no statement and no lock is waited for without end.
async fn settle(connection: &mut PgConnection, limit: Duration) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(
        "SET synchronous_commit = on;
         SET default_transaction_isolation = 'read committed';
         SET idle_in_transaction_session_timeout = '10s'",
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "SELECT set_config('statement_timeout', $1, false), set_config('lock_timeout', $1, false)",
    )
    .bind(limit.as_millis().to_string())
    .execute(connection)
    .await
    .map(|_| ())
}

/// Ends what takes longer, as if the connection had.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

/// Sorts errors by what can be done. Logged here by code: the texts may hold values.
fn failure(error: &sqlx::Error) -> Failure {
    let code = code(error);
    let timeout = matches!(error, sqlx::Error::PoolTimedOut);
    let io = if let sqlx::Error::Io(error) = error {
        Some(tracing::field::debug(error.kind()))
    } else {
        None
    };
    tracing::warn!(code, io, timeout, "the store refused");
    let passes = match &code {
        Some(code) => PASSING.iter().any(|known| code.starts_with(known)),
        None => matches!(
            error,
            sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                // A server that goes down in the middle of a word.
                | sqlx::Error::Protocol(_)
                | sqlx::Error::BeginFailed
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
        ),
    };
    if passes {
        Failure::Unavailable
    } else {
        Failure::Damaged
    }
}

/// Says what whoever starts the server can do. Only the kind of a cause goes along and not its text;
/// as a word, because by the kind itself callers know an address that cannot be listened on.
pub(super) fn at_start(error: sqlx::Error) -> Error {
    if is_about_tls(&error) {
        return Error::Unreachable(
            "no verified TLS connection to the Postgres server: it must speak TLS with a \
             certificate for its host's name from an authority that is known here \
             (sslrootcert=FILE in the database URL adds one)",
            io::Error::other("it was given up"),
        );
    }
    if let sqlx::Error::Io(error) = error {
        return Error::Unreachable(
            "the Postgres server does not answer: check host and port in the database URL, and \
             whether it runs",
            io::Error::other(error.kind().to_string()),
        );
    }
    match code(&error).as_deref() {
        Some("28000" | "28P01") => Error::Misuse(
            "the Postgres server refuses this user or password: check the database URL",
        ),
        Some("3D000") => Error::Misuse(
            "the Postgres server has no database of this name: make it with createdb, or change \
             the database URL",
        ),
        Some("42501") => Error::Misuse(
            "the Postgres user lacks rights in this database: make it the owner, or let the owner \
             run `skytale migrate schema`",
        ),
        Some("42P07") => Error::Misuse(
            "the Postgres database has tables of somebody else's where ours would stand: give \
             skytale a database of its own",
        ),
        Some(_) | None => failure(&error).into(),
    }
}

/// A certificate that is refused comes as bytes that make no sense.
fn is_about_tls(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Tls(_))
        || matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData)
}

fn code(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    Some(code.into_owned())
}

/// Beginnings of SQLSTATE codes after which it may work later: connection, rights, rollback for
/// another transaction's sake, resources, locks, the operator's hand, the system.
const PASSING: &[&str] = &[
    "08", "28", "3D", "25006", "25P03", "40", "42501", "53", "55", "57", "58",
];
/// "skytale2" as a number: the lock under which what was revoked gets its place.
const REVOKING: i64 = 0x736b_7974_616c_6532;
/// For the answer to get here after a statement's own limit has passed at the server. A verb is a few
/// statements, of which in an outage one hangs.
const VERB_MARGIN: Duration = Duration::from_millis(500);
/// For a used connection to show that it can be used again; else it is closed.
const RETURN_MAX: Duration = Duration::from_secs(2);
/// For the first connection, and for its statements.
const CONNECT_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
pub(crate) mod cluster;
#[cfg(test)]
mod tests;
