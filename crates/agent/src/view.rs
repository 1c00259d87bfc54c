//! Looking into the vault without being the mind: channels, members, words, events.
//!
//! Any connection may do this at any time; what is seen is what the last step has committed.

use rusqlite::{Connection, OptionalExtension as _, params};
use skytale_wire::{
    id::{AgentId, ChannelId, Epoch, RelayKey, Seq, Time},
    name::ChannelName,
};

pub use crate::channel::record::Closed;
use crate::{
    Error, Event,
    store::{self, decode, unsigned},
};

/// Where a channel stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelState {
    /// Not registered at the relay yet.
    Creating,
    /// On its way in by an invite.
    Joining,
    /// This agent has added us; `accept` or `decline`.
    Offered(AgentId),
    /// In use.
    Active,
    /// On our way out.
    Leaving,
    /// Standing still: a commit in its log cannot be applied.
    Stuck,
    /// Over.
    Closed(Closed),
}

/// A channel as seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelView {
    /// Its id.
    pub id: ChannelId,
    /// Its name, once the group's state has been seen.
    pub name: Option<ChannelName>,
    /// Where it stands.
    pub state: ChannelState,
    /// Where it lives.
    pub relay: RelayKey,
    /// The group's epoch.
    pub epoch: Epoch,
    /// The last record of the log that has taken effect.
    pub cursor: Seq,
    /// How many members there are.
    pub members: u32,
    /// Whether an inviter or admin has been read since we came by invite.
    pub confirmed: bool,
    /// Whether we may remove others.
    pub admin: bool,
    /// Whether we may add and invite.
    pub may_invite: bool,
    /// Messages that the default reader has not taken.
    pub unread: u32,
    /// Messages that the relay has not stored yet.
    pub outbox: u32,
}

/// A member as seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Who.
    pub agent: AgentId,
    /// What it calls itself, once it has spoken.
    pub label: Option<String>,
    /// May remove others and change rights.
    pub admin: bool,
    /// May add and invite.
    pub may_invite: bool,
    /// Whether it is us.
    pub me: bool,
}

/// Who this vault belongs to, once a mind has been in it.
pub fn identity(tx: &Connection) -> Result<Option<AgentId>, Error> {
    store::identity(tx).map(|identity| identity.map(|identity| identity.id()))
}

/// All channels, by name.
pub fn channels(tx: &Connection) -> Result<Vec<ChannelView>, Error> {
    let me = identity(tx)?.map_or([0; 32], |id| id.0);
    let mut query = tx.prepare_cached(
        "SELECT id, name, state, relay, epoch, cursor, confirmed, pending_by,
             (SELECT count(*) FROM members WHERE channel = id) AS members,
             coalesce((SELECT admin FROM members WHERE channel = id AND agent = ?1), 0) AS admin,
             coalesce((SELECT may_invite FROM members WHERE channel = id AND agent = ?1), 0) AS may_invite,
             (SELECT count(*) FROM inbox WHERE channel = channels.id AND NOT EXISTS
                 (SELECT 1 FROM reads WHERE reads.row = inbox.row AND reader = 'default' AND taken)) AS unread,
             (SELECT count(*) FROM outbox WHERE channel = channels.id) AS outbox
         FROM channels ORDER BY name, id",
    )?;
    let rows = query.query_map(params![me], |row| {
        Ok((
            ChannelView {
                id: ChannelId(row.get("id")?),
                name: row.get::<_, String>("name")?.parse().ok(),
                state: ChannelState::Active,
                relay: RelayKey(row.get("relay")?),
                epoch: Epoch(unsigned(row.get("epoch")?)),
                cursor: Seq(unsigned(row.get("cursor")?)),
                members: row.get("members")?,
                confirmed: row.get("confirmed")?,
                admin: row.get("admin")?,
                may_invite: row.get("may_invite")?,
                unread: row.get("unread")?,
                outbox: row.get("outbox")?,
            },
            row.get::<_, i64>("state")?,
            row.get::<_, Vec<u8>>("pending_by")?,
        ))
    })?;
    rows.map(|row| {
        let (view, number, by) = row?;
        let state = state(number, &by)?;
        Ok(ChannelView { state, ..view })
    })
    .collect()
}

/// The numbers of `record::State::number`.
fn state(number: i64, by: &[u8]) -> Result<ChannelState, Error> {
    let damaged = || Error::Damaged("a channel is in a state that does not exist".into());
    Ok(match number {
        0 => ChannelState::Creating,
        1 => ChannelState::Joining,
        2 => ChannelState::Offered(AgentId::from_slice(by).map_err(|_| damaged())?),
        3 => ChannelState::Active,
        4 => ChannelState::Leaving,
        5 => ChannelState::Stuck,
        10 => ChannelState::Closed(Closed::Removed),
        11 => ChannelState::Closed(Closed::Left),
        12 => ChannelState::Closed(Closed::Declined),
        13 => ChannelState::Closed(Closed::Refused),
        _ => return Err(damaged()),
    })
}

/// What has become of one channel, without looking at all of them.
pub fn channel_state(tx: &Connection, channel: ChannelId) -> Result<Option<ChannelState>, Error> {
    let row = tx
        .prepare_cached("SELECT state, pending_by FROM channels WHERE id = ?1")?
        .query_row([channel.0], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .optional()?;
    row.map(|(number, by)| state(number, &by)).transpose()
}

/// The channel of this name; an open one before a closed one.
pub fn channel_by_name(tx: &Connection, name: &ChannelName) -> Result<Option<ChannelView>, Error> {
    let mut all = channels(tx)?;
    all.retain(|channel| channel.name.as_ref() == Some(name));
    all.sort_by_key(|channel| matches!(channel.state, ChannelState::Closed(_)));
    Ok(all.into_iter().next())
}

/// Everybody in a channel, by id.
pub fn members(tx: &Connection, channel: ChannelId) -> Result<Vec<MemberView>, Error> {
    let me = identity(tx)?;
    let own_label: Option<String> = tx
        .query_row("SELECT label FROM identity", [], |row| row.get(0))
        .optional()?;
    let mut query = tx.prepare_cached(
        "SELECT agent, admin, may_invite,
             (SELECT label FROM senders WHERE channel = ?1 AND agent = members.agent) AS label
         FROM members WHERE channel = ?1 ORDER BY agent",
    )?;
    let rows = query.query_map([channel.0], |row| {
        let agent = AgentId(row.get("agent")?);
        let is_me = Some(agent) == me;
        Ok(MemberView {
            agent,
            label: if is_me {
                own_label.clone()
            } else {
                row.get("label")?
            },
            admin: row.get("admin")?,
            may_invite: row.get("may_invite")?,
            me: is_me,
        })
    })?;
    rows.map(|row| row.map_err(Error::from)).collect()
}

/// Whether a message of the inbox is one that the default reader has not taken.
pub fn is_unread(tx: &Connection, row: i64) -> Result<bool, Error> {
    tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM inbox WHERE row = ?1) AND NOT EXISTS
             (SELECT 1 FROM reads WHERE row = ?1 AND reader = 'default' AND taken)",
    )?
    .query_row([row], |row| row.get(0))
    .map_err(Error::from)
}

/// The five words that all members of a channel see alike, if they agree on everything.
pub fn words(tx: &Connection, channel: ChannelId) -> Result<Option<[String; 5]>, Error> {
    let words: Option<String> = tx
        .query_row(
            "SELECT words FROM channels WHERE id = ?1",
            [channel.0],
            |row| row.get(0),
        )
        .optional()?;
    Ok(words.and_then(|words| {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        words.try_into().ok()
    }))
}

/// Events after a row, oldest first, at most 256. The vault keeps the newest ten thousand.
pub fn events_after(tx: &Connection, row: i64) -> Result<Vec<(i64, Time, Event)>, Error> {
    let mut query = tx.prepare_cached(
        "SELECT row, at, event FROM events WHERE row > ?1 ORDER BY row LIMIT 256",
    )?;
    let rows = query.query_map([row], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, i64>(1)?,
            row.get::<_, Vec<u8>>(2)?,
        ))
    })?;
    rows.map(|row| {
        let (row, at, event) = row?;
        Ok((row, Time(unsigned(at)), decode(&event)?))
    })
    .collect()
}

/// The row of the newest event, to begin watching from.
pub fn newest_event(tx: &Connection) -> Result<i64, Error> {
    tx.query_row("SELECT coalesce(max(row), 0) FROM events", [], |row| {
        row.get(0)
    })
    .map_err(Error::from)
}

/// How many KeyPackages a relay said it holds, when we last connected.
pub fn key_packages_left(tx: &Connection, relay: RelayKey) -> Result<Option<u32>, Error> {
    tx.query_row(
        "SELECT key_packages FROM relays WHERE relay = ?1",
        [relay.0],
        |row| row.get(0),
    )
    .optional()
    .map_err(Error::from)
}

/// How far a relay's clock was ahead of ours when we last connected, in milliseconds.
pub fn clock_ahead(tx: &Connection, relay: RelayKey) -> Result<Option<i64>, Error> {
    tx.query_row(
        "SELECT clock_ahead FROM relays WHERE relay = ?1",
        [relay.0],
        |row| row.get(0),
    )
    .optional()
    .map_err(Error::from)
}

/// Messages that no relay has stored yet.
pub fn outbox_len(tx: &Connection, channel: Option<ChannelId>) -> Result<u32, Error> {
    tx.query_row(
        "SELECT count(*) FROM outbox WHERE ?1 IS NULL OR channel = ?1",
        [channel.map(|id| id.0)],
        |row| row.get(0),
    )
    .map_err(Error::from)
}

/// Commits that are wanted and not yet made.
pub fn commits_wanted(tx: &Connection) -> Result<u32, Error> {
    tx.query_row("SELECT count(*) FROM wishes", [], |row| row.get(0))
        .map_err(Error::from)
}
