//! Commands of processes that do not hold the vault's lock, handed over through the vault.
//!
//! A hand puts its command into one table and finds the answer in another; the mind's process
//! looks for new ones, and writes answers in the transaction of the step that made them.

use rusqlite::{Connection, OptionalExtension as _, params};
use skytale_wire::{
    frame,
    id::{MessageId, Time},
};
use zeroize::Zeroizing;

use crate::{
    Answer, Command, Error,
    command::CommandId,
    store::{decode, signed},
};

/// Puts a command where the mind will find it.
pub fn submit(tx: &Connection, id: CommandId, command: &Command, now: Time) -> Result<(), Error> {
    let body = Zeroizing::new(frame::encode(command));
    tx.prepare_cached(
        "INSERT OR IGNORE INTO commands (id, body, at, taken) VALUES (?1, ?2, ?3, 0)",
    )?
    .execute(params![id.0, body.as_slice(), signed(now.0)])?;
    Ok(())
}

/// Commands that no mind has taken up, oldest first.
pub fn waiting(tx: &Connection) -> Result<Vec<(CommandId, Command)>, Error> {
    let mut query = tx
        .prepare_cached("SELECT id, body FROM commands WHERE NOT taken ORDER BY rowid LIMIT 256")?;
    let rows = query.query_map([], |row| {
        Ok((
            row.get::<_, [u8; 16]>(0)?,
            Zeroizing::new(row.get::<_, Vec<u8>>(1)?),
        ))
    })?;
    rows.map(|row| {
        let (id, body) = row?;
        Ok((MessageId(id), decode(&body)?))
    })
    .collect()
}

/// The mind has taken it up, in this transaction: its content is no longer needed here.
pub fn taken(tx: &Connection, id: CommandId) -> Result<(), Error> {
    tx.prepare_cached("UPDATE commands SET taken = 1, body = x'' WHERE id = ?1")?
        .execute([id.0])?;
    Ok(())
}

/// Whether a command came through the table, so that its answer must go there.
pub fn is_submitted(tx: &Connection, id: CommandId) -> Result<bool, Error> {
    tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM commands WHERE id = ?1)")?
        .query_row([id.0], |row| row.get(0))
        .map_err(Error::from)
}

/// Writes an answer for whoever waits, and forgets answers that nobody has fetched for a day.
pub fn answer(tx: &Connection, id: CommandId, answer: &Answer, now: Time) -> Result<(), Error> {
    let body = Zeroizing::new(frame::encode(answer));
    tx.prepare_cached("INSERT OR REPLACE INTO answers (id, body, at) VALUES (?1, ?2, ?3)")?
        .execute(params![id.0, body.as_slice(), signed(now.0)])?;
    tx.prepare_cached("DELETE FROM commands WHERE id = ?1")?
        .execute([id.0])?;
    tx.prepare_cached("DELETE FROM answers WHERE at < ?1")?
        .execute([signed(now.0.saturating_sub(ANSWERS_KEPT_MS))])?;
    Ok(())
}

/// Takes the answer to a command, once.
pub fn take_answer(tx: &Connection, id: CommandId) -> Result<Option<Answer>, Error> {
    let body: Option<Vec<u8>> = tx
        .prepare_cached("DELETE FROM answers WHERE id = ?1 RETURNING body")?
        .query_row([id.0], |row| row.get(0))
        .optional()?;
    body.map(Zeroizing::new)
        .map(|body| decode(&body))
        .transpose()
}

const ANSWERS_KEPT_MS: u64 = 24 * 3_600_000;
