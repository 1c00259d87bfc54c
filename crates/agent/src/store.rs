//! The vault's own tables: numbered migrations and the rows that only the mind writes.
//!
//! What MLS keeps is in `mls/storage.rs`; what applications read is in `inbox.rs` and `view.rs`.

use rusqlite::{Connection, OptionalExtension as _, params};
use skytale_wire::{
    Blob, frame,
    id::{AgentId, ChannelId, Digest, MessageId, RelayKey, Time},
    statement,
};
use zeroize::Zeroizing;

use crate::{
    Draft, Error, Event,
    channel::record::{Record, Wish},
    command::CommandId,
    identity::Identity,
};

/// Numbered, never edited: a test in `tests/` keeps their hashes.
pub const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_mls.sql", include_str!("migrations/0001_mls.sql")),
    ("0002_mind.sql", include_str!("migrations/0002_mind.sql")),
    (
        "0003_key_packages.sql",
        include_str!("migrations/0003_key_packages.sql"),
    ),
    (
        "0004_history.sql",
        include_str!("migrations/0004_history.sql"),
    ),
];

/// Events that are kept for readers that are not the mind.
const EVENTS_KEPT: i64 = 10_000;
/// Bytes that a stored row may have when it is read back.
const ROW_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Brings the vault's tables up to date. Refuses a vault that a newer version has written.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), Error> {
    let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let done: u32 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let done = done as usize;
    if done > MIGRATIONS.len() {
        return Err(Error::Damaged(
            "this vault was written by a newer version of skytale: update this program".into(),
        ));
    }
    for (number, (_, sql)) in MIGRATIONS.iter().enumerate().skip(done) {
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "user_version", signed(number as u64 + 1))?;
    }
    tx.commit()?;
    Ok(())
}

pub(crate) fn identity(tx: &Connection) -> Result<Option<Identity>, Error> {
    tx.prepare_cached("SELECT seed FROM identity")?
        .query_row([], |row| row.get::<_, [u8; 32]>(0))
        .optional()
        .map(|seed| seed.map(|seed| Identity::from_seed(&Zeroizing::new(seed))))
        .map_err(Error::from)
}

pub(crate) fn save_identity(
    tx: &Connection,
    identity: &Identity,
    label: &str,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO identity (one, seed, label) VALUES (1, ?1, ?2)
         ON CONFLICT (one) DO UPDATE SET label = excluded.label",
        params![identity.seed().as_slice(), label],
    )?;
    Ok(())
}

pub(crate) fn records(tx: &Connection) -> Result<Vec<Record>, Error> {
    let mut statement = tx.prepare_cached("SELECT record FROM channels")?;
    let rows = statement.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
    rows.map(|row| decode(&row?)).collect()
}

/// Writes a channel's record with the columns that others read.
pub(crate) fn save_record(tx: &Connection, record: &Record) -> Result<(), Error> {
    let pending_by = record
        .state
        .offered_by()
        .map_or(Vec::new(), |by| by.0.to_vec());
    tx.prepare_cached(
        "INSERT INTO channels (id, record, name, state, relay, epoch, cursor, confirmed, words, pending_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (id) DO UPDATE SET record = excluded.record, name = excluded.name,
             state = excluded.state, relay = excluded.relay, epoch = excluded.epoch,
             cursor = excluded.cursor, confirmed = excluded.confirmed, words = excluded.words,
             pending_by = excluded.pending_by",
    )?
    .execute(params![
        record.id.0,
        frame::encode(record),
        record.name,
        record.state.number(),
        record.relay.0,
        signed(record.epoch.0),
        signed(record.cursor.0),
        record.unconfirmed.is_none(),
        record.words,
        pending_by,
    ])?;
    Ok(())
}

/// Forgets what only makes sense inside a group that is gone.
pub(crate) fn forget_channel_rows(tx: &Connection, channel: &ChannelId) -> Result<(), Error> {
    for table in [
        "members",
        "senders",
        "sent",
        "pending",
        "departures",
        "welcomes",
        "wishes",
    ] {
        tx.execute(
            &format!("DELETE FROM {table} WHERE channel = ?1"),
            [channel.0],
        )?;
    }
    Ok(())
}

pub(crate) fn set_member(
    tx: &Connection,
    channel: &ChannelId,
    agent: &AgentId,
    admin: bool,
    may_invite: bool,
) -> Result<(), Error> {
    tx.prepare_cached("INSERT OR REPLACE INTO members (channel, agent, admin, may_invite) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![channel.0, agent.0, admin, may_invite])?;
    Ok(())
}

pub(crate) fn drop_member(
    tx: &Connection,
    channel: &ChannelId,
    agent: &AgentId,
) -> Result<(), Error> {
    tx.prepare_cached("DELETE FROM members WHERE channel = ?1 AND agent = ?2")?
        .execute(params![channel.0, agent.0])?;
    Ok(())
}

/// Whether we share a channel with this agent or have named it ourselves.
pub(crate) fn is_known(tx: &Connection, agent: &AgentId) -> Result<bool, Error> {
    tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM acquaintances WHERE agent = ?1)
             OR EXISTS (SELECT 1 FROM members WHERE agent = ?1)",
    )?
    .query_row([agent.0], |row| row.get(0))
    .map_err(Error::from)
}

pub(crate) fn remember(tx: &Connection, agent: &AgentId) -> Result<(), Error> {
    tx.execute(
        "INSERT OR IGNORE INTO acquaintances (agent) VALUES (?1)",
        [agent.0],
    )?;
    Ok(())
}

/// What is known of a sender's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) label: String,
    pub(crate) last_n: u64,
    pub(crate) missing: Vec<u64>,
}

pub(crate) fn sender(
    tx: &Connection,
    channel: &ChannelId,
    agent: &AgentId,
) -> Result<Option<Sender>, Error> {
    let row = tx
        .prepare_cached(
            "SELECT label, last_n, missing FROM senders WHERE channel = ?1 AND agent = ?2",
        )?
        .query_row(params![channel.0, agent.0], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, Vec<u8>>(2)?,
            ))
        })
        .optional()?;
    row.map(|(label, last_n, missing)| {
        Ok(Sender {
            label,
            last_n: unsigned(last_n),
            missing: decode(&missing)?,
        })
    })
    .transpose()
}

pub(crate) fn save_sender(
    tx: &Connection,
    channel: &ChannelId,
    agent: &AgentId,
    sender: &Sender,
) -> Result<(), Error> {
    tx.prepare_cached("INSERT OR REPLACE INTO senders (channel, agent, label, last_n, missing) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            channel.0,
            agent.0,
            sender.label,
            signed(sender.last_n),
            frame::encode(&sender.missing)
        ])?;
    Ok(())
}

/// Whether another agent of the channel calls itself the same.
pub(crate) fn label_is_shared(
    tx: &Connection,
    channel: &ChannelId,
    agent: &AgentId,
    label: &str,
) -> Result<bool, Error> {
    tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM senders WHERE channel = ?1 AND label = ?2 AND agent <> ?3)",
    )?
    .query_row(params![channel.0, label, agent.0], |row| row.get(0))
    .map_err(Error::from)
}

/// A message that the relay has not stored yet.
#[derive(Debug, Clone)]
pub(crate) struct OutboxRow {
    pub(crate) row: i64,
    pub(crate) id: MessageId,
    pub(crate) n: u64,
    pub(crate) at: Time,
    pub(crate) draft: Draft,
}

#[allow(clippy::too_many_arguments, reason = "one argument a column")]
pub(crate) fn queue_message(
    tx: &Connection,
    channel: &ChannelId,
    id: &MessageId,
    command: &CommandId,
    n: u64,
    at: Time,
    draft: &Draft,
) -> Result<(), Error> {
    tx.prepare_cached(
        "INSERT INTO outbox (channel, id, command, n, at, draft) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        channel.0,
        id.0,
        command.0,
        signed(n),
        signed(at.0),
        Zeroizing::new(frame::encode(draft)).as_slice()
    ])?;
    Ok(())
}

pub(crate) fn is_queued(tx: &Connection, id: &MessageId) -> Result<bool, Error> {
    tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM outbox WHERE id = ?1)")?
        .query_row([id.0], |row| row.get(0))
        .map_err(Error::from)
}

pub(crate) fn outbox_after(
    tx: &Connection,
    channel: &ChannelId,
    after: i64,
    limit: usize,
) -> Result<Vec<OutboxRow>, Error> {
    let mut statement = tx.prepare_cached(
        "SELECT row, id, n, at, draft FROM outbox WHERE channel = ?1 AND row > ?2 ORDER BY row LIMIT ?3",
    )?;
    let rows = statement.query_map(params![channel.0, after, signed(limit as u64)], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, [u8; 16]>(1)?,
            row.get::<_, i64>(2)?,
            row.get::<_, i64>(3)?,
            Zeroizing::new(row.get::<_, Vec<u8>>(4)?),
        ))
    })?;
    rows.map(|row| {
        let (row, id, n, at, draft) = row?;
        Ok(OutboxRow {
            row,
            id: MessageId(id),
            n: unsigned(n),
            at: Time(unsigned(at)),
            draft: decode(&draft)?,
        })
    })
    .collect()
}

/// A message that has left the outbox.
pub(crate) struct Settled {
    pub(crate) command: CommandId,
    pub(crate) n: u64,
    pub(crate) at: Time,
    pub(crate) draft: Draft,
}

/// Takes a message out of the outbox.
///
/// It reads and then deletes, as [`take_sent`] does: `RETURNING` builds a table in memory for each
/// message, which cost the sender's mind more than all of its cryptography.
pub(crate) fn settle_message(tx: &Connection, id: &MessageId) -> Result<Option<Settled>, Error> {
    let row = tx
        .prepare_cached("SELECT row, command, n, at, draft FROM outbox WHERE id = ?1")?
        .query_row([id.0], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, [u8; 16]>(1)?,
                row.get::<_, i64>(2)?,
                row.get::<_, i64>(3)?,
                Zeroizing::new(row.get::<_, Vec<u8>>(4)?),
            ))
        })
        .optional()?;
    let Some((row, command, n, at, draft)) = row else {
        return Ok(None);
    };
    tx.prepare_cached("DELETE FROM outbox WHERE row = ?1")?
        .execute([row])?;
    Ok(Some(Settled {
        command: MessageId(command),
        n: unsigned(n),
        at: Time(unsigned(at)),
        draft: decode(&draft)?,
    }))
}

/// Empties a channel's outbox and tells which commands waited.
pub(crate) fn drop_outbox(tx: &Connection, channel: &ChannelId) -> Result<Vec<CommandId>, Error> {
    let mut statement =
        tx.prepare_cached("DELETE FROM outbox WHERE channel = ?1 RETURNING command")?;
    let rows = statement.query_map([channel.0], |row| row.get::<_, [u8; 16]>(0))?;
    rows.map(|row| row.map(MessageId).map_err(Error::from))
        .collect()
}

/// Remembers a body that goes out, so that its echo in the log is recognised.
pub(crate) fn note_sent(
    tx: &Connection,
    channel: &ChannelId,
    content: &Digest,
    id: &MessageId,
    ordinal: u64,
) -> Result<(), Error> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO sent (channel, content, id, ordinal) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![channel.0, content.0, id.0, signed(ordinal)])?;
    Ok(())
}

/// Our own body came back from the log: which message, and which one of the epoch it was.
pub(crate) fn take_sent(
    tx: &Connection,
    channel: &ChannelId,
    content: &Digest,
) -> Result<Option<(MessageId, u64)>, Error> {
    let sent = tx
        .prepare_cached("SELECT id, ordinal FROM sent WHERE channel = ?1 AND content = ?2")?
        .query_row(params![channel.0, content.0], |row| {
            Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()?;
    if sent.is_some() {
        tx.prepare_cached("DELETE FROM sent WHERE channel = ?1 AND content = ?2")?
            .execute(params![channel.0, content.0])?;
    }
    Ok(sent.map(|(id, ordinal)| (MessageId(id), unsigned(ordinal))))
}

/// The epoch is over: no body of it can enter the log any more.
pub(crate) fn forget_sent(tx: &Connection, channel: &ChannelId) -> Result<(), Error> {
    tx.prepare_cached("DELETE FROM sent WHERE channel = ?1")?
        .execute([channel.0])?;
    Ok(())
}

/// A commit that is still wanted.
#[derive(Debug, Clone)]
pub(crate) struct WishRow {
    pub(crate) row: i64,
    pub(crate) command: CommandId,
    pub(crate) tries: u32,
    pub(crate) wish: Wish,
}

pub(crate) fn add_wish(
    tx: &Connection,
    channel: &ChannelId,
    command: &CommandId,
    wish: &Wish,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO wishes (channel, command, tries, wish) VALUES (?1, ?2, 0, ?3)",
        params![
            channel.0,
            command.0,
            Zeroizing::new(frame::encode(wish)).as_slice()
        ],
    )?;
    Ok(())
}

pub(crate) fn first_wish(tx: &Connection, channel: &ChannelId) -> Result<Option<WishRow>, Error> {
    let row = tx
        .prepare_cached(
            "SELECT row, command, tries, wish FROM wishes WHERE channel = ?1 ORDER BY row LIMIT 1",
        )?
        .query_row([channel.0], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, [u8; 16]>(1)?,
                row.get::<_, u32>(2)?,
                Zeroizing::new(row.get::<_, Vec<u8>>(3)?),
            ))
        })
        .optional()?;
    row.map(|(row, command, tries, wish)| {
        Ok(WishRow {
            row,
            command: MessageId(command),
            tries,
            wish: decode(&wish)?,
        })
    })
    .transpose()
}

pub(crate) fn wish_lost_again(tx: &Connection, row: i64) -> Result<(), Error> {
    tx.execute("UPDATE wishes SET tries = tries + 1 WHERE row = ?1", [row])?;
    Ok(())
}

pub(crate) fn drop_wish(tx: &Connection, row: i64) -> Result<(), Error> {
    tx.execute("DELETE FROM wishes WHERE row = ?1", [row])?;
    Ok(())
}

/// Empties a channel's wishes and tells which commands waited.
pub(crate) fn drop_wishes(tx: &Connection, channel: &ChannelId) -> Result<Vec<CommandId>, Error> {
    let mut statement =
        tx.prepare_cached("DELETE FROM wishes WHERE channel = ?1 RETURNING command")?;
    let rows = statement.query_map([channel.0], |row| row.get::<_, [u8; 16]>(0))?;
    rows.map(|row| row.map(MessageId).map_err(Error::from))
        .collect()
}

pub(crate) fn has_command(tx: &Connection, command: &CommandId) -> Result<bool, Error> {
    tx.query_row(
        "SELECT EXISTS (SELECT 1 FROM wishes WHERE command = ?1)",
        [command.0],
        |row| row.get(0),
    )
    .map_err(Error::from)
}

pub(crate) fn save_pending(
    tx: &Connection,
    channel: &ChannelId,
    frame: &[u8],
) -> Result<(), Error> {
    tx.execute(
        "INSERT OR REPLACE INTO pending (channel, frame) VALUES (?1, ?2)",
        params![channel.0, frame],
    )?;
    Ok(())
}

pub(crate) fn pending(
    tx: &Connection,
    channel: &ChannelId,
) -> Result<Option<frame::ToRelay>, Error> {
    let row: Option<Vec<u8>> = tx
        .query_row(
            "SELECT frame FROM pending WHERE channel = ?1",
            [channel.0],
            |row| row.get(0),
        )
        .optional()?;
    row.map(|row| decode(&row)).transpose()
}

pub(crate) fn drop_pending(tx: &Connection, channel: &ChannelId) -> Result<(), Error> {
    tx.execute("DELETE FROM pending WHERE channel = ?1", [channel.0])?;
    Ok(())
}

pub(crate) fn add_departure(
    tx: &Connection,
    channel: &ChannelId,
    agent: &AgentId,
    leave: &statement::Leave,
) -> Result<(), Error> {
    tx.execute(
        "INSERT OR REPLACE INTO departures (channel, agent, statement) VALUES (?1, ?2, ?3)",
        params![channel.0, agent.0, frame::encode(leave)],
    )?;
    Ok(())
}

pub(crate) fn departures(
    tx: &Connection,
    channel: &ChannelId,
) -> Result<Vec<(AgentId, statement::Leave)>, Error> {
    let mut query = tx.prepare_cached(
        "SELECT agent, statement FROM departures WHERE channel = ?1 ORDER BY agent",
    )?;
    let rows = query.query_map([channel.0], |row| {
        Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, Vec<u8>>(1)?))
    })?;
    rows.map(|row| {
        let (agent, leave) = row?;
        Ok((AgentId(agent), decode(&leave)?))
    })
    .collect()
}

pub(crate) fn drop_departure(
    tx: &Connection,
    channel: &ChannelId,
    agent: &AgentId,
) -> Result<(), Error> {
    tx.prepare_cached("DELETE FROM departures WHERE channel = ?1 AND agent = ?2")?
        .execute(params![channel.0, agent.0])?;
    Ok(())
}

pub(crate) fn save_welcome(tx: &Connection, welcome: &frame::Welcome) -> Result<(), Error> {
    tx.execute(
        "INSERT OR REPLACE INTO welcomes (channel, frame) VALUES (?1, ?2)",
        params![welcome.channel.0, frame::encode(welcome)],
    )?;
    Ok(())
}

pub(crate) fn take_welcome(
    tx: &Connection,
    channel: &ChannelId,
) -> Result<Option<frame::Welcome>, Error> {
    let row: Option<Vec<u8>> = tx
        .query_row(
            "DELETE FROM welcomes WHERE channel = ?1 RETURNING frame",
            [channel.0],
            |row| row.get(0),
        )
        .optional()?;
    row.map(|row| decode(&row)).transpose()
}

pub(crate) fn save_event(tx: &Connection, at: Time, event: &Event) -> Result<(), Error> {
    tx.prepare_cached("INSERT INTO events (at, event) VALUES (?1, ?2)")?
        .execute(params![signed(at.0), frame::encode(event)])?;
    let row = tx.last_insert_rowid();
    if row % 256 == 0 {
        tx.execute("DELETE FROM events WHERE row <= ?1", [row - EVENTS_KEPT])?;
    }
    Ok(())
}

/// What a relay said when it let us in.
pub(crate) fn note_relay(
    tx: &Connection,
    relay: &RelayKey,
    key_packages: u32,
    clock_ahead: i64,
) -> Result<(), Error> {
    tx.execute(
        "INSERT OR REPLACE INTO relays (relay, key_packages, clock_ahead) VALUES (?1, ?2, ?3)",
        params![relay.0, key_packages, clock_ahead],
    )?;
    Ok(())
}

/// How many KeyPackages it holds after an upload.
pub(crate) fn note_key_packages(
    tx: &Connection,
    relay: &RelayKey,
    key_packages: u32,
) -> Result<(), Error> {
    tx.execute(
        "UPDATE relays SET key_packages = ?2 WHERE relay = ?1",
        params![relay.0, key_packages],
    )?;
    Ok(())
}

/// Remembers a KeyPackage that goes to a relay.
pub(crate) fn note_key_package(
    tx: &Connection,
    name: &[u8],
    relay: &RelayKey,
    made: Time,
    last_resort: bool,
) -> Result<(), Error> {
    tx.prepare_cached(
        "INSERT INTO key_packages (name, relay, made, last_resort) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![name, relay.0, signed(made.0), last_resort])?;
    Ok(())
}

/// Its private half is gone.
pub(crate) fn drop_key_package(tx: &Connection, name: &[u8]) -> Result<(), Error> {
    tx.prepare_cached("DELETE FROM key_packages WHERE name = ?1")?
        .execute([name])?;
    Ok(())
}

/// How many unused KeyPackages this relay was given after a moment, and whether a last-resort one
/// was among them.
pub(crate) fn young_key_packages(
    tx: &Connection,
    relay: &RelayKey,
    after: Time,
) -> Result<(u32, bool), Error> {
    tx.prepare_cached(
        "SELECT count(*) FILTER (WHERE NOT last_resort), count(*) FILTER (WHERE last_resort) > 0
         FROM key_packages WHERE relay = ?1 AND made > ?2",
    )?
    .query_row(params![relay.0, signed(after.0)], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
    .map_err(Error::from)
}

/// KeyPackages that were made before a moment and given to this relay or to one that is not known,
/// and those of any relay before an earlier moment.
pub(crate) fn old_key_packages(
    tx: &Connection,
    relay: &RelayKey,
    before: Time,
    anywhere_before: Time,
) -> Result<Vec<Vec<u8>>, Error> {
    let mut query = tx.prepare_cached(
        "SELECT name FROM key_packages
         WHERE (made < ?2 AND relay IN (?1, x'')) OR made < ?3",
    )?;
    let rows = query.query_map(
        params![relay.0, signed(before.0), signed(anywhere_before.0)],
        |row| row.get(0),
    )?;
    rows.map(|row| row.map_err(Error::from)).collect()
}

/// Gives those an age that were made before ages were kept.
pub(crate) fn date_key_packages(tx: &Connection, now: Time) -> Result<(), Error> {
    tx.prepare_cached("UPDATE key_packages SET made = ?1 WHERE made = 0")?
        .execute([signed(now.0)])?;
    Ok(())
}

/// Reads back what this program wrote; anything else means that the vault is damaged.
pub(crate) fn decode<T: for<'b> minicbor::Decode<'b, ()>>(bytes: &[u8]) -> Result<T, Error> {
    frame::decode(bytes, ROW_BYTES_MAX).map_err(|error| Error::Damaged(error.to_string()))
}

/// Anything that SQLite keeps as a number: it has no unsigned ones.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The other direction of [`signed`].
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A row's optional message id: empty when there is none.
pub(crate) fn optional_id(bytes: &[u8]) -> Result<Option<MessageId>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    MessageId::from_slice(bytes)
        .map(Some)
        .map_err(|error| Error::Damaged(error.to_string()))
}

/// A payload as it stands in a row.
pub(crate) fn blob(bytes: Vec<u8>) -> Blob {
    bytes.into()
}
