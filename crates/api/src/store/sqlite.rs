//! The store in one `SQLite` file: the default, with nothing to install.
//!
//! One thread owns the one connection, so writes are in order and never wait for each other's
//! locks. Verbs that wait together share a transaction, and so the flush at its end, which costs more
//! than they do; each is answered after it. WAL with `synchronous=FULL`: what was answered survives a
//! power cut. The file is 0600 and holds hashes only; it is not encrypted.

use std::{
    fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, path::Path, thread::JoinHandle,
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};
use skytale_wire::{
    http::{Revocation, Revoked, UsageEntry, Used},
    id::{AgentId, RelayKey, Time},
    month::Month,
    token::{AccountId, KeyId},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    AccountRow, AgentRow, Answer, Claim, Claimed, Created, Email, Exchange, Failure, Kept,
    KeyCheck, KeyCreated, KeyRotated, KeyRow, Mark, NewAccount, NewKey, REVOCATIONS_MS_KEPT,
    ReportTaken, Store,
};
use crate::{error::Error, plans::Bounds, secret::Hashed, signing::private_dir};

mod agents;
mod once;
mod usage;

/// A handle to the thread that owns the database.
#[derive(Debug)]
pub(crate) struct Sqlite {
    /// Gone only while dropping: the thread ends when nobody can ask it any more.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// A verb's work in the transaction that it shares, or why there is none.
type Job = Box<dyn FnOnce(Result<&Transaction<'_>, Failure>) -> Said + Send>;

/// What a verb answers when it is known whether the transaction stands.
type Said = Box<dyn FnOnce(Result<(), Failure>) + Send>;

impl Sqlite {
    /// Opens or makes the database and brings its schema up to date.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        if let Some(dir) = path.parent() {
            private_dir(dir)
                .map_err(|e| Error::Unreachable("the database's directory cannot be made", e))?;
        }
        // SQLite would make the file with the umask's rights, and gives its WAL the file's own.
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| Error::Unreachable("the database file cannot be opened", e))?;
        let mut db = Connection::open(path).map_err(failure)?;
        prepare(&mut db)?;
        let (jobs, mut waiting) = mpsc::channel::<Job>(JOBS_WAITING_MAX);
        let thread = std::thread::Builder::new()
            .name("api-store".to_owned())
            .spawn(move || {
                let mut jobs = Vec::new();
                while waiting.blocking_recv_many(&mut jobs, TOGETHER_MAX) > 0 {
                    together(&mut db, &mut jobs);
                }
            })
            .map_err(|e| Error::Unreachable("the database's thread cannot be started", e))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Runs `work` on the database's thread, all of it or nothing, and answers when it is committed.
    /// When too much is waiting already the answer is `Unavailable` at once.
    fn run<T, W>(&self, work: W) -> Answer<'_, T>
    where
        T: Send + 'static,
        W: FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |tx| {
            let done = tx.and_then(|tx| by_itself(tx, work));
            Box::new(move |stands| {
                // Nobody waits any more when the request was given up: the work stands.
                drop(reply.send(stands.and(done)));
            })
        });
        let sent = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.try_send(job).is_ok());
        Box::pin(async move {
            if !sent {
                return Err(Failure::Unavailable);
            }
            answer.await.unwrap_or(Err(Failure::Unavailable))
        })
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread panicked");
        }
    }
}

impl Store for Sqlite {
    fn create_account(&self, account: NewAccount) -> Answer<'_, Created> {
        self.run(move |tx| insert_account(tx, &account))
    }

    fn create_account_with_key(&self, account: NewAccount, key: NewKey) -> Answer<'_, Created> {
        self.run(move |tx| {
            let created = insert_account(tx, &account)?;
            if created == Created::Yes {
                insert_key(tx, &key)?;
            }
            Ok(created)
        })
    }

    fn login(&self, email: Email) -> Answer<'_, Option<(AccountId, Hashed)>> {
        self.run(move |tx| {
            tx.prepare_cached("SELECT id, password_hash FROM accounts WHERE email = ?1")
                .and_then(|mut found| {
                    found
                        .query_row([email.as_str()], |row| {
                            Ok((AccountId(row.get(0)?), Hashed::from_stored(row.get(1)?)))
                        })
                        .optional()
                })
                .map_err(failure)
        })
    }

    fn account(&self, id: AccountId) -> Answer<'_, Option<AccountRow>> {
        self.run(move |tx| {
            tx.prepare_cached(
                "SELECT email, name, created_ms, sessions_from_ms, password_hash FROM accounts
                 WHERE id = ?1 AND deleted_ms IS NULL",
            )
            .and_then(|mut found| {
                found
                    .query_row([id.0], |row| {
                        Ok(AccountRow {
                            email: row.get(0)?,
                            name: row.get(1)?,
                            created: time(row, 2)?,
                            sessions_from: time(row, 3)?,
                            password: Hashed::from_stored(row.get(4)?),
                        })
                    })
                    .optional()
            })
            .map_err(failure)
        })
    }

    fn change_password(
        &self,
        account: AccountId,
        checked: Hashed,
        new: Hashed,
        now: Time,
    ) -> Answer<'_, bool> {
        self.run(move |tx| {
            let changed = tx.execute(
                "UPDATE accounts SET password_hash = ?3, sessions_from_ms = ?4
                 WHERE id = ?1 AND password_hash = ?2 AND deleted_ms IS NULL",
                params![account.0, checked.as_str(), new.as_str(), ms(now)],
            );
            changed.map(|rows| rows == 1).map_err(failure)
        })
    }

    fn delete_account(&self, account: AccountId, checked: Hashed, now: Time) -> Answer<'_, bool> {
        self.run(move |tx| {
            let ended = tx
                .execute(
                    "UPDATE accounts SET email = ?3, name = '', password_hash = '', deleted_ms = ?4
                     WHERE id = ?1 AND password_hash = ?2 AND deleted_ms IS NULL",
                    params![
                        account.0,
                        checked.as_str(),
                        Email::tombstone(account).as_str(),
                        ms(now)
                    ],
                )
                .map_err(failure)?;
            if ended == 0 {
                return Ok(false);
            }
            tx.execute(
                "UPDATE api_keys SET name = '', hash = '', revoked_ms = coalesce(revoked_ms, ?2)
                 WHERE account = ?1",
                params![account.0, ms(now)],
            )
            .map_err(failure)?;
            tx.execute("DELETE FROM agents WHERE account = ?1", [account.0])
                .map_err(failure)?;
            list_revoked(tx, &Revoked::Account(account), now)?;
            Ok(true)
        })
    }

    fn create_key(&self, key: NewKey, live_max: u32) -> Answer<'_, KeyCreated> {
        self.run(move |tx| {
            let live: Option<u32> = tx
                .query_row(
                    "SELECT (SELECT count(*) FROM api_keys
                             WHERE account = accounts.id AND revoked_ms IS NULL
                                   AND (expires_ms IS NULL OR expires_ms > ?2))
                     FROM accounts WHERE id = ?1 AND deleted_ms IS NULL",
                    params![key.account.0, ms(key.now)],
                    |row| row.get(0),
                )
                .optional()
                .map_err(failure)?;
            match live {
                None => Ok(KeyCreated::NoAccount),
                Some(live) if live >= live_max => Ok(KeyCreated::TooMany),
                Some(_) => insert_key(tx, &key).map(|()| KeyCreated::Yes),
            }
        })
    }

    fn rotate_key(&self, old: KeyId, new: NewKey, old_ends: Time) -> Answer<'_, KeyRotated> {
        self.run(move |tx| {
            let ends = tx
                .execute(
                    "UPDATE api_keys SET expires_ms = min(coalesce(expires_ms, ?4), ?4)
                     WHERE account = ?1 AND id = ?2 AND revoked_ms IS NULL
                           AND (expires_ms IS NULL OR expires_ms > ?3)",
                    params![new.account.0, old.as_str(), ms(new.now), ms(old_ends)],
                )
                .map_err(failure)?;
            if ends == 0 {
                return Ok(KeyRotated::NoKey);
            }
            insert_key(tx, &new)?;
            if old_ends > new.now {
                return Ok(KeyRotated::Yes);
            }
            tx.execute(
                "UPDATE api_keys SET revoked_ms = ?2 WHERE id = ?1",
                params![old.as_str(), ms(new.now)],
            )
            .map_err(failure)?;
            list_revoked(tx, &Revoked::Key(old), new.now)?;
            Ok(KeyRotated::YesAndRevoked)
        })
    }

    fn key(&self, id: KeyId) -> Answer<'_, Option<KeyCheck>> {
        self.run(move |tx| {
            tx.prepare_cached(&format!(
                "SELECT {KEY_COLUMNS}, account, hash FROM api_keys WHERE id = ?1"
            ))
            .and_then(|mut found| {
                found
                    .query_row([id.as_str()], |row| {
                        Ok(KeyCheck {
                            row: key_row(row)?,
                            account: AccountId(row.get(7)?),
                            hash: Hashed::from_stored(row.get(8)?),
                        })
                    })
                    .optional()
            })
            .map_err(failure)
        })
    }

    fn keys(
        &self,
        account: AccountId,
        after: Option<KeyId>,
        limit: u32,
    ) -> Answer<'_, Vec<KeyRow>> {
        self.run(move |tx| {
            let behind: Option<i64> = match after {
                None => Some(0),
                Some(id) => tx
                    .query_row(
                        "SELECT place FROM api_keys WHERE account = ?1 AND id = ?2",
                        params![account.0, id.as_str()],
                        |row| row.get(0),
                    )
                    .optional()
                    .map_err(failure)?,
            };
            let Some(behind) = behind else {
                return Ok(Vec::new());
            };
            tx.prepare_cached(&format!(
                "SELECT {KEY_COLUMNS} FROM api_keys
                 WHERE account = ?1 AND place > ?2 ORDER BY place LIMIT ?3"
            ))
            .and_then(|mut found| {
                found
                    .query_map(params![account.0, behind, limit], key_row)?
                    .collect()
            })
            .map_err(failure)
        })
    }

    fn revoke_key(&self, account: AccountId, id: KeyId, now: Time) -> Answer<'_, bool> {
        self.run(move |tx| {
            let lived: Option<bool> = tx
                .query_row(
                    "SELECT revoked_ms IS NULL FROM api_keys WHERE account = ?1 AND id = ?2",
                    params![account.0, id.as_str()],
                    |row| row.get(0),
                )
                .optional()
                .map_err(failure)?;
            if lived == Some(true) {
                tx.execute(
                    "UPDATE api_keys SET revoked_ms = ?2 WHERE id = ?1",
                    params![id.as_str(), ms(now)],
                )
                .map_err(failure)?;
                list_revoked(tx, &Revoked::Key(id), now)?;
            }
            Ok(lived.is_some())
        })
    }

    fn revocations(
        &self,
        after: Option<u64>,
        since: Time,
        limit: u32,
    ) -> Answer<'_, Vec<(u64, Revocation)>> {
        self.run(move |tx| {
            let mut found = tx
                .prepare_cached(
                    "SELECT place, revoked, at_ms FROM revocations
                     WHERE CASE WHEN ?1 <= (SELECT max(place) FROM revocations)
                                THEN place > ?1 ELSE at_ms >= ?2 END
                     ORDER BY place LIMIT ?3",
                )
                .map_err(failure)?;
            let after = after.map(|place| i64::try_from(place).unwrap_or(i64::MAX));
            let rows = found
                .query_map(params![after, ms(since), limit], |row| {
                    Ok((count(row, 0)?, row.get::<_, String>(1)?, count(row, 2)?))
                })
                .map_err(failure)?;
            rows.map(|row| {
                let (place, revoked, at_ms) = row.map_err(failure)?;
                let revoked = serde_json::from_str(&revoked).map_err(|_| Failure::Damaged)?;
                Ok((place, Revocation { revoked, at_ms }))
            })
            .collect()
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
        self.run(move |tx| {
            if let Some(agent) = agent
                && agents::is_disabled(tx, &id, &agent)?
            {
                return Ok(Exchange::AgentDisabled);
            }
            if usage::is_exhausted(tx, &id, month, bounds)? {
                return Ok(Exchange::Exhausted);
            }
            let account: Option<[u8; 16]> = tx
                .prepare_cached(
                    "UPDATE api_keys SET last_used_ms = ?2
                     WHERE id = ?1 AND revoked_ms IS NULL
                           AND (expires_ms IS NULL OR expires_ms > ?2)
                     RETURNING account",
                )
                .and_then(|mut used| {
                    used.query_row(params![id.as_str(), ms(now)], |row| row.get(0))
                        .optional()
                })
                .map_err(failure)?;
            let Some(account) = account else {
                return Ok(Exchange::NoKey);
            };
            if let Some(agent) = agent {
                agents::remember(tx, AccountId(account), &agent, now)?;
            }
            usage::count_token(tx, &account, &id, month)?;
            Ok(Exchange::Counted)
        })
    }

    fn agents(
        &self,
        account: AccountId,
        after: Option<AgentId>,
        limit: u32,
    ) -> Answer<'_, Vec<AgentRow>> {
        self.run(move |tx| agents::page(tx, account, after, limit))
    }

    fn disable_agent(&self, account: AccountId, agent: AgentId, now: Time) -> Answer<'_, bool> {
        self.run(move |tx| agents::disable(tx, account, agent, now))
    }

    fn enable_agent(&self, account: AccountId, agent: AgentId) -> Answer<'_, bool> {
        self.run(move |tx| agents::enable(tx, account, agent))
    }

    fn usage(&self, account: AccountId) -> Answer<'_, Vec<(Month, Used)>> {
        self.run(move |tx| usage::by_month(tx, account))
    }

    fn usage_by_key(
        &self,
        account: AccountId,
        month: Month,
        limit: u32,
    ) -> Answer<'_, Vec<(Option<KeyId>, Used)>> {
        self.run(move |tx| usage::by_key(tx, account, month, limit))
    }

    fn take_report(
        &self,
        relay: RelayKey,
        number: u64,
        entries: Vec<UsageEntry>,
        now: Time,
    ) -> Answer<'_, ReportTaken> {
        self.run(move |tx| usage::take_report(tx, relay, number, &entries, now))
    }

    fn claim(&self, claim: Claim) -> Answer<'_, Claimed> {
        self.run(move |tx| once::claim(tx, &claim))
    }

    fn keep(&self, mark: Mark, kept: Kept) -> Answer<'_, ()> {
        self.run(move |tx| once::keep(tx, mark, &kept))
    }

    fn release(&self, mark: Mark) -> Answer<'_, ()> {
        self.run(move |tx| once::release(tx, mark))
    }

    fn ready(&self) -> Answer<'_, ()> {
        // Every job begins an immediate transaction, which takes the write lock.
        self.run(|_| Ok(()))
    }
}

fn insert_account(tx: &Transaction<'_>, account: &NewAccount) -> Result<Created, Failure> {
    let owner: [u8; 16] = tx
        .query_row(
            "INSERT INTO accounts (id, email, password_hash, created_ms, name)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (email) DO UPDATE SET refused_sign_ups = refused_sign_ups + 1
             RETURNING id",
            params![
                account.id.0,
                account.email.as_str(),
                account.password.as_str(),
                ms(account.now),
                account.name
            ],
            |row| row.get(0),
        )
        .map_err(failure)?;
    Ok(if owner == account.id.0 {
        Created::Yes
    } else {
        Created::Taken
    })
}

fn insert_key(tx: &Transaction<'_>, key: &NewKey) -> Result<(), Failure> {
    tx.execute(
        "INSERT INTO api_keys (id, account, name, hash, created_ms, scopes, expires_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            key.id.as_str(),
            key.account.0,
            key.name,
            key.hash.as_str(),
            ms(key.now),
            key.scopes.to_string(),
            key.expires.map(ms)
        ],
    )
    .map(|_| ())
    .map_err(failure)
}

/// Puts it on the list, and takes off what no token can outlive.
fn list_revoked(tx: &Transaction<'_>, revoked: &Revoked, now: Time) -> Result<(), Failure> {
    let text = serde_json::to_string(revoked).map_err(|_| Failure::Damaged)?;
    tx.execute(
        "INSERT INTO revocations (at_ms, revoked) VALUES (?1, ?2)",
        params![ms(now), text],
    )
    .map_err(failure)?;
    let over = Time(now.0.saturating_sub(REVOCATIONS_MS_KEPT));
    tx.execute("DELETE FROM revocations WHERE at_ms < ?1", [ms(over)])
        .map_err(failure)?;
    Ok(())
}

/// Of the columns [`KEY_COLUMNS`], which stand first.
fn key_row(row: &Row<'_>) -> rusqlite::Result<KeyRow> {
    let id: String = row.get(0)?;
    let scopes: String = row.get(5)?;
    Ok(KeyRow {
        id: id.parse().map_err(|_| rusqlite::Error::InvalidQuery)?,
        name: row.get(1)?,
        created: time(row, 2)?,
        last_used: time_or_none(row, 3)?,
        revoked: time_or_none(row, 4)?,
        scopes: scopes.parse().map_err(|()| rusqlite::Error::InvalidQuery)?,
        expires: time_or_none(row, 6)?,
    })
}

fn time_or_none(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Time>> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        rusqlite::types::ValueRef::Integer(_)
        | rusqlite::types::ValueRef::Real(_)
        | rusqlite::types::ValueRef::Text(_)
        | rusqlite::types::ValueRef::Blob(_) => time(row, column).map(Some),
    }
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Time> {
    count(row, column).map(Time)
}

/// `SQLite`'s integers are signed; none of ours is negative.
fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// A clock beyond `SQLite`'s integers is kept as the last moment there is.
fn ms(time: Time) -> i64 {
    number(time.0)
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Runs verbs in one immediate transaction, commits it, and lets them answer.
fn together(db: &mut Connection, jobs: &mut Vec<Job>) {
    let said: Vec<Said>;
    let stands = match db.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(tx) => {
            let shared = || {
                // A disk that is full, for one, ends the transaction under the verbs' feet.
                let lives = !tx.is_autocommit();
                lives.then_some(&tx).ok_or(Failure::Unavailable)
            };
            said = jobs.drain(..).map(|job| job(shared())).collect();
            let whole = shared().map(|_| ());
            whole.and_then(|()| tx.commit().map_err(failure))
        }
        Err(error) => {
            let refused = failure(error);
            said = jobs.drain(..).map(|job| job(Err(refused))).collect();
            Err(refused)
        }
    };
    for answer in said {
        answer(stands);
    }
}

/// Runs a verb so that a failure undoes its own work and nobody else's.
fn by_itself<T>(
    tx: &Transaction<'_>,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let say = |sql| {
        let mut said = tx.prepare_cached(sql).map_err(failure)?;
        said.execute([]).map(|_| ()).map_err(failure)
    };
    say("SAVEPOINT verb")?;
    let done = work(tx);
    if done.is_err() {
        say("ROLLBACK TO verb")?;
    }
    say("RELEASE verb")?;
    done
}

/// Sets what matters and reads it back, then applies the migrations that are missing.
fn prepare(db: &mut Connection) -> Result<(), Error> {
    db.busy_timeout(BUSY_TIMEOUT).map_err(failure)?;
    let set = |db: &Connection, name: &str, value: &str, shown: &str| -> Result<(), Error> {
        db.pragma_update(None, name, value).map_err(failure)?;
        let now: String = db
            .pragma_query_value(None, name, |row| {
                row.get::<_, rusqlite::types::Value>(0)
                    .map(|value| match value {
                        rusqlite::types::Value::Integer(number) => number.to_string(),
                        rusqlite::types::Value::Text(text) => text,
                        rusqlite::types::Value::Null
                        | rusqlite::types::Value::Real(_)
                        | rusqlite::types::Value::Blob(_) => String::new(),
                    })
            })
            .map_err(failure)?;
        if now == shown {
            Ok(())
        } else {
            Err(Error::Misuse(
                "the database refuses a setting that durability needs",
            ))
        }
    };
    set(db, "journal_mode", "wal", "wal")?;
    set(db, "synchronous", "full", "2")?;
    set(db, "foreign_keys", "on", "1")?;
    set(db, "secure_delete", "on", "1")?;
    migrate(db)
}

fn migrate(db: &mut Connection) -> Result<(), Error> {
    let tx = db
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failure)?;
    let version: u32 = tx
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failure)?;
    let mut reached = 0;
    for sql in MIGRATIONS {
        reached += 1;
        if reached > version {
            tx.execute_batch(sql).map_err(failure)?;
            tx.pragma_update(None, "user_version", reached)
                .map_err(failure)?;
        }
    }
    if version > reached {
        return Err(Error::Misuse(
            "the database was written by a newer skytale: upgrade this one",
        ));
    }
    tx.commit().map_err(failure)?;
    Ok(())
}

/// Sorts `SQLite`'s errors by what can be done. Logged here by code: the texts may hold values.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err takes"
)]
pub(crate) fn failure(error: rusqlite::Error) -> Failure {
    use rusqlite::ErrorCode as Code;
    let code = error.sqlite_error_code();
    tracing::warn!(?code, "the store refused");
    match code {
        Some(
            Code::DatabaseBusy
            | Code::DatabaseLocked
            | Code::DiskFull
            | Code::SystemIoFailure
            | Code::OutOfMemory
            | Code::ReadOnly
            | Code::CannotOpen
            | Code::PermissionDenied
            | Code::FileLockingProtocolFailed
            | Code::OperationInterrupted,
        ) => Failure::Unavailable,
        Some(_) | None => Failure::Damaged,
    }
}

/// Numbered from 1, applied in order, never edited: `user_version` counts them.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_accounts.sql"),
    include_str!("../migrations/0002_revocations.sql"),
    include_str!("../migrations/0003_standing.sql"),
    include_str!("../migrations/0004_once.sql"),
    include_str!("../migrations/0005_usage.sql"),
];
/// What [`key_row`] reads.
const KEY_COLUMNS: &str = "id, name, created_ms, last_used_ms, revoked_ms, scopes, expires_ms";
/// Beyond it requests are told that the store is unavailable, at once.
const JOBS_WAITING_MAX: usize = 1_024;
/// Verbs that share a transaction at most: one that fails to commit fails for all of them.
const TOGETHER_MAX: usize = 64;
/// Only another process (a backup, a shell) can hold the lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use sha2::{Digest as _, Sha256};
    use skytale_wire::id::Digest as Hash;

    use super::*;
    use crate::store::conformance::conformance;

    #[tokio::test]
    async fn it_does_what_every_store_must() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("api.db")).unwrap();

        conformance(&store).await.unwrap();
    }

    #[tokio::test]
    async fn what_was_answered_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/api.db");
        let account = NewAccount {
            id: AccountId([1; 16]),
            email: Email::parse("alice@example.org").unwrap(),
            name: String::new(),
            password: Hashed::from_stored("hash".to_owned()),
            now: Time(1),
        };
        let store = Sqlite::open(&path).unwrap();
        store.create_account(account).await.unwrap();
        drop(store);

        let store = Sqlite::open(&path).unwrap();

        assert!(store.account(AccountId([1; 16])).await.unwrap().is_some());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    /// A verb that notes a number in a table of the test's own, and then ends so.
    fn note(
        number: u32,
        end: Result<(), Failure>,
    ) -> (Job, oneshot::Receiver<Result<(), Failure>>) {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |tx| {
            let done = tx.and_then(|tx| {
                by_itself(tx, |tx| {
                    tx.execute("INSERT INTO notes VALUES (?1)", [number])
                        .map_err(failure)?;
                    end
                })
            });
            Box::new(move |stands| {
                let _ = reply.send(stands.and(done));
            })
        });
        (job, answer)
    }

    fn notes() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE notes (number INTEGER)")
            .unwrap();
        db
    }

    fn noted(db: &Connection) -> Vec<u32> {
        let mut all = db.prepare("SELECT number FROM notes").unwrap();
        let all = all.query_map([], |row| row.get(0)).unwrap();
        all.map(Result::unwrap).collect()
    }

    #[test]
    fn of_verbs_that_share_a_transaction_each_fails_by_itself() {
        let mut db = notes();
        let (one, said_one) = note(1, Ok(()));
        let (two, said_two) = note(2, Err(Failure::Damaged));
        let (three, said_three) = note(3, Ok(()));

        together(&mut db, &mut vec![one, two, three]);

        assert_eq!(noted(&db), [1, 3]);
        assert_eq!(said_one.blocking_recv().unwrap(), Ok(()));
        assert_eq!(said_two.blocking_recv().unwrap(), Err(Failure::Damaged));
        assert_eq!(said_three.blocking_recv().unwrap(), Ok(()));
    }

    #[test]
    fn no_verb_is_answered_well_when_the_transaction_is_gone() {
        let mut db = notes();
        let (one, said_one) = note(1, Ok(()));
        let (three, said_three) = note(3, Ok(()));
        // As SQLite does by itself when the disk is full.
        let two: Job = Box::new(|tx| {
            tx.unwrap().execute_batch("ROLLBACK").unwrap();
            Box::new(|_| {})
        });

        together(&mut db, &mut vec![one, two, three]);

        assert!(noted(&db).is_empty());
        assert_eq!(said_one.blocking_recv().unwrap(), Err(Failure::Unavailable));
        assert_eq!(
            said_three.blocking_recv().unwrap(),
            Err(Failure::Unavailable)
        );
        let (again, said_again) = note(4, Ok(()));
        together(&mut db, &mut vec![again]);
        assert_eq!(said_again.blocking_recv().unwrap(), Ok(()));
        assert_eq!(noted(&db), [4]);
    }

    #[test]
    fn a_file_that_is_no_database_is_reported_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.db");
        let text = "certainly not a database ".repeat(200);
        fs::write(&path, &text).unwrap();

        assert!(matches!(Sqlite::open(&path), Err(Error::Damaged(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_newer_schema_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.db");
        let db = Connection::open(&path).unwrap();
        db.pragma_update(None, "user_version", 99).unwrap();
        drop(db);

        assert!(matches!(Sqlite::open(&path), Err(Error::Misuse(_))));
    }

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
                "4e16c6179d20022c6489b6aeb33da05e7c4e5b152e546317679125eabb845f02",
                "49521e0c2e685454aff2f874676dd267f5b846f62985e7936156c432108be61d",
                "9a85999b1582161dc56c1f1cb5b8394df9652b355d8d5b3246ad8156572ccb26",
                "d0f9f06b5dccef6fe1fd6ebb14adcbcae5927b4717e9f35aadebadc89823b2aa",
                "b88a3a45e6ab67e1272067dd9006795ec9309cfea1349720d5afe3c16771415d",
            ]
        );
    }
}
