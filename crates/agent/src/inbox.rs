//! Messages that wait for an application: taken under a lease, wiped when every reader has them.
//!
//! A message can be decrypted only once, so it stays in the vault until it was taken. Readers with
//! the same name compete; readers with different names each get every message. A reader that dies
//! before it acknowledges sees the message again, with the same id. Any connection to the vault
//! may call this, within a transaction of its own.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use skytale_wire::{
    frame,
    id::{AgentId, ChannelId, Epoch, MessageId, Seq, Time},
};
use zeroize::Zeroizing;

use crate::{
    Error, Message,
    store::{blob, decode, optional_id, signed, unsigned},
};

/// The reader that everybody is unless they choose another name.
pub const DEFAULT_READER: &str = "default";

/// Stores a message, in the step that has decrypted it.
pub(crate) fn put(tx: &Connection, message: &Message) -> Result<(), Error> {
    tx.prepare_cached(
        "INSERT OR IGNORE INTO inbox (channel, seq, id, epoch, sender, label, verified, sent,
             content_type, in_reply_to, headers, payload)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        message.channel.0,
        signed(message.seq.0),
        message.id.0,
        signed(message.epoch.0),
        message.sender.0,
        message.label,
        message.verified,
        signed(message.sent.0),
        message.content_type,
        message.in_reply_to.map_or(Vec::new(), |id| id.0.to_vec()),
        frame::encode(&message.headers),
        &message.payload[..],
    ])?;
    Ok(())
}

/// Up to `limit` messages that `reader` has not taken and nobody else holds, oldest first, each
/// leased to `holder` until `lease_until`.
///
/// A name that was never used before becomes a reader now, of whatever is still in the inbox.
pub fn take(
    tx: &Connection,
    reader: &str,
    channel: Option<ChannelId>,
    holder: &[u8; 16],
    now: Time,
    lease_until: Time,
    limit: usize,
) -> Result<Vec<Message>, Error> {
    tx.prepare_cached("INSERT OR IGNORE INTO readers (name) VALUES (?1)")?
        .execute([reader])?;
    let mut query = tx.prepare_cached(
        "SELECT * FROM inbox WHERE (?2 IS NULL OR channel = ?2)
             AND NOT EXISTS (SELECT 1 FROM reads WHERE reads.row = inbox.row AND reader = ?1
                             AND (taken OR (until > ?3 AND holder <> ?4)))
             AND NOT EXISTS (SELECT 1 FROM reads WHERE reads.row = inbox.row AND reader = ?1
                             AND until > ?3 AND holder = ?4)
         ORDER BY row LIMIT ?5",
    )?;
    let rows = query.query_map(
        params![
            reader,
            channel.map(|id| id.0),
            signed(now.0),
            holder,
            signed(limit as u64)
        ],
        |row| Ok(message(row)),
    )?;
    let messages = rows.map(|row| row?).collect::<Result<Vec<_>, Error>>()?;
    let mut lease = tx.prepare_cached(
        "INSERT OR REPLACE INTO reads (reader, row, holder, until, taken) VALUES (?1, ?2, ?3, ?4, 0)",
    )?;
    for message in &messages {
        lease.execute(params![reader, message.row, holder, signed(lease_until.0)])?;
    }
    Ok(messages)
}

/// These have been dealt with: `reader` never sees them again, and what every reader has taken is
/// wiped.
pub fn acknowledge(tx: &Connection, reader: &str, rows: &[i64]) -> Result<(), Error> {
    let mut taken = tx.prepare_cached(
        "INSERT INTO reads (reader, row, holder, until, taken) VALUES (?1, ?2, x'', 0, 1)
         ON CONFLICT (reader, row) DO UPDATE SET taken = 1, until = 0",
    )?;
    let mut wipe = tx.prepare_cached(
        "DELETE FROM inbox WHERE row = ?1 AND NOT EXISTS
             (SELECT 1 FROM readers WHERE NOT EXISTS
                 (SELECT 1 FROM reads WHERE reads.row = ?1 AND reads.reader = readers.name AND taken))",
    )?;
    let mut forget = tx.prepare_cached("DELETE FROM reads WHERE row = ?1")?;
    for row in rows {
        taken.execute(params![reader, row])?;
        if wipe.execute([row])? > 0 {
            forget.execute([row])?;
        }
    }
    Ok(())
}

/// Gives back every lease of a holder that ends.
pub fn release(tx: &Connection, holder: &[u8; 16]) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM reads WHERE holder = ?1 AND NOT taken",
        [holder],
    )?;
    Ok(())
}

/// Messages after a row, without taking them.
pub fn look(
    tx: &Connection,
    channel: Option<ChannelId>,
    after_row: i64,
    limit: usize,
) -> Result<Vec<Message>, Error> {
    let mut query = tx.prepare_cached(
        "SELECT * FROM inbox WHERE row > ?1 AND (?2 IS NULL OR channel = ?2) ORDER BY row LIMIT ?3",
    )?;
    let rows = query.query_map(
        params![after_row, channel.map(|id| id.0), signed(limit as u64)],
        |row| Ok(message(row)),
    )?;
    rows.map(|row| row?).collect()
}

/// The first answer to a message, without taking it.
pub fn reply_to(tx: &Connection, id: &MessageId) -> Result<Option<Message>, Error> {
    tx.prepare_cached("SELECT * FROM inbox WHERE in_reply_to = ?1 ORDER BY row LIMIT 1")?
        .query_row([id.0], |row| Ok(message(row)))
        .optional()?
        .transpose()
}

/// A row of the inbox, or of the history.
pub(crate) fn message(row: &Row<'_>) -> Result<Message, Error> {
    let headers: Zeroizing<Vec<u8>> = Zeroizing::new(row.get("headers")?);
    Ok(Message {
        row: row.get("row")?,
        id: MessageId(row.get("id")?),
        channel: ChannelId(row.get("channel")?),
        seq: Seq(unsigned(row.get("seq")?)),
        epoch: Epoch(unsigned(row.get("epoch")?)),
        sender: AgentId(row.get("sender")?),
        label: row.get("label")?,
        verified: row.get("verified")?,
        sent: Time(unsigned(row.get("sent")?)),
        content_type: row.get("content_type")?,
        in_reply_to: optional_id(&row.get::<_, Vec<u8>>("in_reply_to")?)?,
        headers: decode(&headers)?,
        payload: blob(row.get("payload")?),
    })
}
