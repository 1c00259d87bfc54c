//! The archive on `SQLite`: the reference model of the conformance tests and of the simulation, and
//! a choice for small relays.
//!
//! Not encrypted: what stands in it is ciphertext already, and the relay has no key to add.

use std::{
    fs::{File, OpenOptions},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, Transaction, params};
use skytale_wire::{
    Blob,
    id::{AgentId, ChannelId, Digest, Epoch, MessageId, Seq, Time},
    month::Month,
    token::AccountId,
};

use super::{
    Append, Archive, ArchiveError, ArchiveReader, Fate, KeyPackagesLeft, SealedGroupInfo,
    StoredChannel, StoredRecord, WelcomeRow, Write, Written, fate_of,
    usage::{Charges, ROWS_MAX, Report, Tab, Used, next_number, read_report, report},
};

/// The writing side.
#[derive(Debug)]
pub struct SqliteArchive {
    writer: Arc<Mutex<Connection>>,
    reader: SqliteReader,
    /// Held as long as the archive is open: a second process is turned away.
    _lock: Option<File>,
}

/// The reading side. Clones share one connection and take turns.
#[derive(Debug, Clone)]
pub struct SqliteReader(Arc<Mutex<Connection>>);

impl SqliteArchive {
    /// Opens or creates `archive.db` in a directory that exists.
    pub fn open(dir: &Path) -> Result<Self, ArchiveError> {
        let lock = lock(&dir.join("archive.lock"))?;
        let path = dir.join(DATABASE_FILE);
        let mut writer = Connection::open(&path).map_err(failed)?;
        writer
            .pragma_update(None, "journal_mode", "WAL")
            .map_err(failed)?;
        // FULL syncs the log at each commit: what `write` has returned survives a power cut.
        writer
            .pragma_update(None, "synchronous", "FULL")
            .map_err(failed)?;
        migrate(&mut writer)?;
        writer.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        let reader = Connection::open(&path).map_err(failed)?;
        Ok(Self {
            writer: Arc::new(Mutex::new(writer)),
            reader: SqliteReader(Arc::new(Mutex::new(reader))),
            _lock: Some(lock),
        })
    }

    /// Writes a copy as of one moment into an empty file, also while a relay has it open.
    pub fn copy(dir: &Path, to: &Path) -> Result<(), ArchiveError> {
        let to = to.to_str().ok_or_else(|| {
            ArchiveError::Unavailable("the copy's path is not written in UTF-8".into())
        })?;
        let connection = Connection::open(dir.join(DATABASE_FILE)).map_err(failed)?;
        connection
            .execute("VACUUM INTO ?1", [to])
            .map(|_| ())
            .map_err(failed)
    }

    /// An archive that ends with its last handle: for the simulation.
    pub fn in_memory() -> Result<Self, ArchiveError> {
        let mut connection = Connection::open_in_memory().map_err(failed)?;
        migrate(&mut connection)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        let shared = Arc::new(Mutex::new(connection));
        Ok(Self {
            writer: Arc::clone(&shared),
            reader: SqliteReader(shared),
            _lock: None,
        })
    }
}

impl Archive for SqliteArchive {
    type Reader = SqliteReader;

    fn write(&mut self, batch: &[Write]) -> Result<Vec<Written>, ArchiveError> {
        let mut connection = held(&self.writer);
        let transaction = connection.transaction().map_err(failed)?;
        if batch.is_empty() {
            // Writes the first page as it is: an empty batch asks the disk.
            transaction
                .pragma_update(None, "application_id", 0)
                .map_err(failed)?;
        }
        let mut charges = Charges::default();
        let written = batch
            .iter()
            .map(|write| apply(&transaction, write, &mut charges))
            .collect::<Result<_, _>>()?;
        charge(&transaction, &mut charges)?;
        transaction.commit().map_err(failed)?;
        Ok(written)
    }

    fn reader(&self) -> SqliteReader {
        self.reader.clone()
    }
}

impl ArchiveReader for SqliteReader {
    fn channels(&self) -> Result<Vec<StoredChannel>, ArchiveError> {
        every(
            &held(&self.0),
            "SELECT channel, state, head, hash, pruned FROM channels",
            [],
            |row| {
                Ok(StoredChannel {
                    channel: ChannelId(column(row, 0)?),
                    state: bytes(row, 1)?,
                    head: Seq(number(row, 2)?),
                    hash: Digest(column(row, 3)?),
                    pruned: Seq(number(row, 4)?),
                })
            },
        )
    }

    fn records(
        &self,
        channel: &ChannelId,
        after: Seq,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredRecord>, ArchiveError> {
        let connection = held(&self.0);
        let mut statement = connection
            .prepare_cached(
                "SELECT seq, record FROM records WHERE channel = ?1 AND seq > ?2 ORDER BY seq",
            )
            .map_err(failed)?;
        let mut rows = statement
            .query(params![channel.0, integer(after.0)?])
            .map_err(failed)?;
        let mut records: Vec<StoredRecord> = Vec::new();
        let mut size = 0;
        while records.len() < count_max
            && let Some(row) = rows.next().map_err(failed)?
        {
            let found = StoredRecord {
                seq: Seq(number(row, 0)?),
                record: bytes(row, 1)?,
            };
            size += found.record.len();
            if !records.is_empty() && size > bytes_max {
                break;
            }
            records.push(found);
        }
        Ok(records)
    }

    fn hash_at(&self, channel: &ChannelId, seq: Seq) -> Result<Option<Digest>, ArchiveError> {
        if seq == Seq(0) {
            return Ok(Some(Digest([0; 32])));
        }
        one(
            &held(&self.0),
            "SELECT hash FROM records WHERE channel = ?1 AND seq = ?2",
            params![channel.0, integer(seq.0)?],
            |row| column(row, 0).map(Digest),
        )
    }

    fn find(
        &self,
        channel: &ChannelId,
        agent: &AgentId,
        id: &MessageId,
    ) -> Result<Option<Seq>, ArchiveError> {
        one(
            &held(&self.0),
            "SELECT seq FROM ids WHERE channel = ?1 AND agent = ?2 AND id = ?3",
            params![channel.0, agent.0, id.0],
            |row| number(row, 0).map(Seq),
        )
    }

    fn welcomes(&self, agent: &AgentId, count_max: usize) -> Result<Vec<Bytes>, ArchiveError> {
        every(
            &held(&self.0),
            "SELECT frame FROM welcomes WHERE agent = ?1 ORDER BY arrival LIMIT ?2",
            params![agent.0, limit(count_max)],
            |row| bytes(row, 0),
        )
    }

    fn welcomes_waiting(&self, agent: &AgentId, count_max: usize) -> Result<u32, ArchiveError> {
        let count = one(
            &held(&self.0),
            "SELECT count(*) FROM (SELECT 1 FROM welcomes WHERE agent = ?1 LIMIT ?2)",
            params![agent.0, limit(count_max)],
            |row| number(row, 0),
        )?;
        Ok(small(count.unwrap_or(0)))
    }

    fn group_info(&self, channel: &ChannelId) -> Result<Option<SealedGroupInfo>, ArchiveError> {
        one(
            &held(&self.0),
            "SELECT epoch, sealed FROM group_infos WHERE channel = ?1",
            params![channel.0],
            |row| {
                Ok(SealedGroupInfo {
                    epoch: Epoch(number(row, 0)?),
                    sealed: bytes(row, 1)?,
                })
            },
        )
    }

    fn key_packages(&self, agent: &AgentId) -> Result<KeyPackagesLeft, ArchiveError> {
        let connection = held(&self.0);
        let last_resort = one(
            &connection,
            "SELECT 1 FROM last_resorts WHERE agent = ?1",
            params![agent.0],
            |_| Ok(()),
        )?;
        Ok(KeyPackagesLeft {
            count: packages_left(&connection, agent)?,
            last_resort: last_resort.is_some(),
        })
    }
}

fn apply(
    tx: &Transaction<'_>,
    write: &Write,
    charges: &mut Charges,
) -> Result<Written, ArchiveError> {
    match write {
        Write::Channel { channel, state } => {
            run(
                tx,
                "INSERT INTO channels (channel, state, head, hash, pruned) \
                 VALUES (?1, ?2, 0, zeroblob(32), 0) \
                 ON CONFLICT (channel) DO UPDATE SET state = excluded.state",
                params![channel.0, &state[..]],
            )?;
            Ok(Written::Done)
        }
        Write::Append(entry) => {
            if let Some(charge) = &entry.charge {
                charges.add(charge);
            }
            append(tx, entry).map(|()| Written::Done)
        }
        Write::GroupInfo { channel, sealed } => {
            keep_group_info(tx, channel, sealed).map(|()| Written::Done)
        }
        Write::PutKeyPackages {
            agent,
            packages,
            last_resort,
            at,
            keep_max,
        } => {
            put_key_packages(tx, agent, packages, last_resort.as_ref(), *at)?;
            drop_oldest_packages(tx, agent, *keep_max)?;
            packages_left(tx, agent).map(Written::KeyPackages)
        }
        Write::TakeKeyPackage { agent, not_before } => {
            take_key_package(tx, agent, *not_before).map(Written::KeyPackage)
        }
        Write::DropWelcome { agent, channel, id } => {
            run(
                tx,
                "DELETE FROM welcomes WHERE agent = ?1 AND channel = ?2 AND id = ?3",
                params![agent.0, channel.0, id.0],
            )?;
            Ok(Written::Done)
        }
        Write::Prune { channel, up_to } => prune(tx, channel, *up_to).map(|()| Written::Done),
        Write::Forget { channel } => {
            prune(tx, channel, Seq(i64::MAX.unsigned_abs()))?;
            run(
                tx,
                "DELETE FROM channels WHERE channel = ?1",
                params![channel.0],
            )?;
            Ok(Written::Done)
        }
        Write::Charge {
            number,
            charges: more,
        } => {
            if last_number(tx, CHARGES)? != *number {
                set_number(tx, CHARGES, *number)?;
                for charge in more {
                    charges.add(charge);
                }
            }
            Ok(Written::Done)
        }
        Write::CloseReport { at_least } => {
            charge(tx, charges)?;
            close_report(tx, *at_least).map(Written::Report)
        }
        Write::DropReport { number } => {
            run(
                tx,
                "DELETE FROM usage_report WHERE number = ?1",
                params![integer(*number)?],
            )?;
            Ok(Written::Done)
        }
    }
}

/// Adds to the rows what a batch has gathered.
fn charge(tx: &Transaction<'_>, charges: &mut Charges) -> Result<(), ArchiveError> {
    for (tab, used) in charges.take() {
        run(
            tx,
            "INSERT INTO usage (account, month, key, messages, bytes, delivered, connected_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
             ON CONFLICT (account, month, key) DO UPDATE SET \
                 messages = messages + excluded.messages, bytes = bytes + excluded.bytes, \
                 delivered = delivered + excluded.delivered, \
                 connected_ms = connected_ms + excluded.connected_ms",
            params![
                tab.account.0,
                tab.month.number(),
                tab.key.as_ref().map_or("", |key| key.as_str()),
                integer(used.messages)?,
                integer(used.bytes)?,
                integer(used.delivered)?,
                integer(used.connected_ms)?
            ],
        )?;
    }
    Ok(())
}

fn close_report(tx: &Transaction<'_>, at_least: u64) -> Result<Option<Report>, ArchiveError> {
    let waiting = one(tx, "SELECT number, body FROM usage_report", [], |row| {
        read_report(number(row, 0)?, bytes(row, 1)?)
    })?;
    if waiting.is_some() {
        return Ok(waiting);
    }
    let rows = every(
        tx,
        "SELECT account, month, key, messages, bytes, delivered, connected_ms FROM usage \
         ORDER BY account, month, key LIMIT ?1",
        params![limit(ROWS_MAX)],
        usage_row,
    )?;
    if rows.is_empty() {
        return Ok(None);
    }
    for (tab, _) in &rows {
        run(
            tx,
            "DELETE FROM usage WHERE account = ?1 AND month = ?2 AND key = ?3",
            params![
                tab.account.0,
                tab.month.number(),
                tab.key.as_ref().map_or("", |key| key.as_str())
            ],
        )?;
    }
    let number = next_number(last_number(tx, REPORTS)?, at_least);
    set_number(tx, REPORTS, number)?;
    let report = report(number, rows);
    run(
        tx,
        "INSERT INTO usage_report (number, body) VALUES (?1, ?2)",
        params![integer(number)?, &report.body[..]],
    )?;
    Ok(Some(report))
}

fn usage_row(row: &Row<'_>) -> Result<(Tab, Used), ArchiveError> {
    let damaged = || ArchiveError::Damaged("a row of usage cannot be read".into());
    let key: String = row.get(2).map_err(failed)?;
    let key = match key.as_str() {
        "" => None,
        key => Some(key.parse().map_err(|_| damaged())?),
    };
    let month = u32::try_from(number(row, 1)?)
        .ok()
        .and_then(Month::from_number);
    let tab = Tab {
        account: AccountId(column(row, 0)?),
        key,
        month: month.ok_or_else(damaged)?,
    };
    let used = Used {
        messages: number(row, 3)?,
        bytes: number(row, 4)?,
        delivered: number(row, 5)?,
        connected_ms: number(row, 6)?,
    };
    Ok((tab, used))
}

fn last_number(tx: &Transaction<'_>, what: &str) -> Result<u64, ArchiveError> {
    let last = one(
        tx,
        "SELECT number FROM usage_numbers WHERE what = ?1",
        params![what],
        |row| number(row, 0),
    )?;
    Ok(last.unwrap_or_default())
}

fn set_number(tx: &Transaction<'_>, what: &str, number: u64) -> Result<(), ArchiveError> {
    run(
        tx,
        "INSERT OR REPLACE INTO usage_numbers (what, number) VALUES (?1, ?2)",
        params![what, integer(number)?],
    )?;
    Ok(())
}

fn append(tx: &Transaction<'_>, entry: &Append) -> Result<(), ArchiveError> {
    let seq = integer(entry.seq.0)?;
    // The head moves by exactly one or the whole batch is refused: a hub whose memory is not what
    // the store holds must not write.
    let moved = run(
        tx,
        "UPDATE channels SET head = ?2, hash = ?3, state = coalesce(?4, state) \
         WHERE channel = ?1 AND head = ?2 - 1",
        params![entry.channel.0, seq, entry.hash.0, entry.state.as_deref()],
    )?;
    if moved != 1 {
        return Err(ArchiveError::Damaged(format!(
            "an append at {} does not follow the channel's head",
            entry.seq
        )));
    }
    run(
        tx,
        "INSERT INTO records (channel, seq, hash, record) VALUES (?1, ?2, ?3, ?4)",
        params![entry.channel.0, seq, entry.hash.0, &entry.record[..]],
    )?;
    run(
        tx,
        "INSERT INTO ids (channel, agent, id, seq) VALUES (?1, ?2, ?3, ?4)",
        params![entry.channel.0, entry.agent.0, entry.id.0, seq],
    )?;
    for welcome in &entry.welcomes {
        keep_welcome(tx, welcome)?;
    }
    match &entry.sealed {
        Some(sealed) => keep_group_info(tx, &entry.channel, sealed),
        None if entry.ends_epoch => {
            run(
                tx,
                "DELETE FROM group_infos WHERE channel = ?1",
                params![entry.channel.0],
            )?;
            Ok(())
        }
        None => Ok(()),
    }
}

fn keep_welcome(tx: &Transaction<'_>, welcome: &WelcomeRow) -> Result<(), ArchiveError> {
    run(
        tx,
        "INSERT INTO welcomes (agent, channel, id, frame) VALUES (?1, ?2, ?3, ?4)",
        params![
            welcome.agent.0,
            welcome.channel.0,
            welcome.id.0,
            &welcome.frame[..]
        ],
    )?;
    Ok(())
}

fn keep_group_info(
    tx: &Transaction<'_>,
    channel: &ChannelId,
    sealed: &SealedGroupInfo,
) -> Result<(), ArchiveError> {
    run(
        tx,
        "INSERT OR REPLACE INTO group_infos (channel, epoch, sealed) VALUES (?1, ?2, ?3)",
        params![channel.0, integer(sealed.epoch.0)?, &sealed.sealed[..]],
    )?;
    Ok(())
}

fn put_key_packages(
    tx: &Transaction<'_>,
    agent: &AgentId,
    packages: &[Blob],
    last_resort: Option<&Blob>,
    at: Time,
) -> Result<(), ArchiveError> {
    for package in packages {
        run(
            tx,
            "INSERT INTO key_packages (agent, at, package) VALUES (?1, ?2, ?3)",
            params![agent.0, integer(at.0)?, &package[..]],
        )?;
    }
    if let Some(package) = last_resort {
        run(
            tx,
            "INSERT OR REPLACE INTO last_resorts (agent, at, package) VALUES (?1, ?2, ?3)",
            params![agent.0, integer(at.0)?, &package[..]],
        )?;
    }
    Ok(())
}

fn drop_oldest_packages(
    tx: &Transaction<'_>,
    agent: &AgentId,
    keep_max: u32,
) -> Result<(), ArchiveError> {
    run(
        tx,
        "DELETE FROM key_packages WHERE arrival IN ( \
             SELECT arrival FROM key_packages WHERE agent = ?1 \
             ORDER BY arrival DESC LIMIT -1 OFFSET ?2)",
        params![agent.0, keep_max],
    )?;
    Ok(())
}

fn take_key_package(
    tx: &Transaction<'_>,
    agent: &AgentId,
    not_before: Time,
) -> Result<Option<Blob>, ArchiveError> {
    for expired in [
        "DELETE FROM key_packages WHERE agent = ?1 AND at < ?2",
        "DELETE FROM last_resorts WHERE agent = ?1 AND at < ?2",
    ] {
        run(tx, expired, params![agent.0, integer(not_before.0)?])?;
    }
    let single_use = one(
        tx,
        "DELETE FROM key_packages WHERE arrival = ( \
             SELECT min(arrival) FROM key_packages WHERE agent = ?1) \
         RETURNING package",
        params![agent.0],
        |row| bytes(row, 0).map(Blob),
    )?;
    if single_use.is_some() {
        return Ok(single_use);
    }
    one(
        tx,
        "SELECT package FROM last_resorts WHERE agent = ?1",
        params![agent.0],
        |row| bytes(row, 0).map(Blob),
    )
}

fn packages_left(connection: &Connection, agent: &AgentId) -> Result<u32, ArchiveError> {
    let count = one(
        connection,
        "SELECT count(*) FROM key_packages WHERE agent = ?1",
        params![agent.0],
        |row| number(row, 0),
    )?;
    Ok(small(count.unwrap_or(0)))
}

fn prune(tx: &Transaction<'_>, channel: &ChannelId, up_to: Seq) -> Result<(), ArchiveError> {
    let places: Option<(u64, u64)> = one(
        tx,
        "SELECT pruned, min(head, ?2) FROM channels WHERE channel = ?1",
        params![channel.0, integer(up_to.0)?],
        |row| Ok((number(row, 0)?, number(row, 1)?)),
    )?;
    let Some((pruned, up_to)) = places else {
        return Ok(());
    };
    for seq in pruned.saturating_add(1)..=up_to {
        let seq = integer(seq)?;
        let record = one(
            tx,
            "SELECT record FROM records WHERE channel = ?1 AND seq = ?2",
            params![channel.0, seq],
            |row| bytes(row, 0),
        )?;
        let record = record.ok_or_else(|| ArchiveError::Damaged("a record is missing".into()))?;
        match fate_of(&record)? {
            Fate::Stays => {}
            Fate::Shrinks(stub) => {
                run(
                    tx,
                    "UPDATE records SET record = ?3 WHERE channel = ?1 AND seq = ?2",
                    params![channel.0, seq, stub],
                )?;
            }
            Fate::Goes(agent, id) => {
                run(
                    tx,
                    "DELETE FROM ids WHERE channel = ?1 AND agent = ?2 AND id = ?3",
                    params![channel.0, agent.0, id.0],
                )?;
                run(
                    tx,
                    "DELETE FROM records WHERE channel = ?1 AND seq = ?2",
                    params![channel.0, seq],
                )?;
            }
        }
    }
    run(
        tx,
        "UPDATE channels SET pruned = max(pruned, ?2) WHERE channel = ?1",
        params![channel.0, integer(up_to)?],
    )?;
    Ok(())
}

fn run(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
) -> Result<usize, ArchiveError> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(values))
        .map_err(failed)
}

/// All rows of an answer, read.
fn every<T>(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    read: impl Fn(&Row<'_>) -> Result<T, ArchiveError>,
) -> Result<Vec<T>, ArchiveError> {
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query(values).map_err(failed)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// The first row of an answer, read.
fn one<T>(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    read: impl FnOnce(&Row<'_>) -> Result<T, ArchiveError>,
) -> Result<Option<T>, ArchiveError> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row(values, |row| Ok(read(row))).optional())
        .map_err(failed)?
        .transpose()
}

fn column<const N: usize>(row: &Row<'_>, index: usize) -> Result<[u8; N], ArchiveError> {
    row.get(index).map_err(failed)
}

fn bytes(row: &Row<'_>, index: usize) -> Result<Bytes, ArchiveError> {
    row.get::<_, Vec<u8>>(index)
        .map(Bytes::from)
        .map_err(failed)
}

fn number(row: &Row<'_>, index: usize) -> Result<u64, ArchiveError> {
    let stored: i64 = row.get(index).map_err(failed)?;
    u64::try_from(stored).map_err(|_| ArchiveError::Damaged("a number is negative".into()))
}

fn integer(number: u64) -> Result<i64, ArchiveError> {
    i64::try_from(number)
        .map_err(|_| ArchiveError::Unavailable("a number is beyond what SQLite holds".into()))
}

fn limit(count_max: usize) -> i64 {
    i64::try_from(count_max).unwrap_or(i64::MAX)
}

fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A thread that panicked inside `SQLite` has left a transaction that rolls back: go on.
fn held(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Only `SQLite`'s code is told: its messages may name files.
#[expect(clippy::needless_pass_by_value, reason = "used as `map_err(failed)`")]
fn failed(error: rusqlite::Error) -> ArchiveError {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation,
        )
        | None => ArchiveError::Damaged(format!("SQLite: {:?}", error.sqlite_error_code())),
        Some(code) => ArchiveError::Unavailable(format!("SQLite: {code:?}")),
    }
}

fn lock(path: &Path) -> Result<File, ArchiveError> {
    let unavailable = |error: std::io::Error| ArchiveError::Unavailable(error.kind().to_string());
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(unavailable)?;
    file.try_lock().map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => ArchiveError::InUse,
        std::fs::TryLockError::Error(error) => unavailable(error),
    })?;
    Ok(file)
}

fn migrate(connection: &mut Connection) -> Result<(), ArchiveError> {
    let transaction = connection.transaction().map_err(failed)?;
    let version: u32 = transaction
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed)?;
    let missing = MIGRATIONS.get(version as usize..).ok_or_else(|| {
        ArchiveError::Damaged("it was written by a newer version: update this program".into())
    })?;
    for migration in missing {
        transaction.execute_batch(migration).map_err(failed)?;
    }
    transaction
        .pragma_update(None, "user_version", limit(MIGRATIONS.len()))
        .map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// More than this file has.
/// Where the database lies below the relay's data directory.
pub const DATABASE_FILE: &str = "archive.db";
const STATEMENTS_MAX: usize = 64;
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_archive.sql"),
    include_str!("migrations/0002_usage.sql"),
];
/// What numbers are kept of.
const REPORTS: &str = "reports";
const CHARGES: &str = "charges";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::conformance;

    #[test]
    fn it_keeps_the_rules_of_an_archive() {
        let dir = tempfile::tempdir().unwrap();
        let mut stores = 0;

        conformance::run(|| {
            stores += 1;
            let dir = dir.path().join(stores.to_string());
            std::fs::create_dir(&dir).unwrap();
            move || SqliteArchive::open(&dir)
        });
    }

    #[test]
    fn a_second_opening_is_turned_away() {
        let dir = tempfile::tempdir().unwrap();
        let first = SqliteArchive::open(dir.path()).unwrap();

        assert!(matches!(
            SqliteArchive::open(dir.path()),
            Err(ArchiveError::InUse)
        ));

        drop(first);
        assert!(SqliteArchive::open(dir.path()).is_ok());
    }

    #[test]
    fn a_database_of_a_newer_version_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        drop(SqliteArchive::open(dir.path()).unwrap());
        Connection::open(dir.path().join("archive.db"))
            .unwrap()
            .pragma_update(None, "user_version", 99)
            .unwrap();

        assert!(matches!(
            SqliteArchive::open(dir.path()),
            Err(ArchiveError::Damaged(_))
        ));
    }
}
