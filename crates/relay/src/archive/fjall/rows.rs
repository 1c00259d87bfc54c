//! The spaces of the database, and how their rows are read and written.
//!
//! | space | key | value |
//! |---|---|---|
//! | channels | channel | the hub's state |
//! | heads | channel | head, pruned, log hash |
//! | records | channel, seq | log hash, record |
//! | ids | channel, agent, id | seq |
//! | mail | agent, arrival | channel, id |
//! | welcomes | agent, channel, id | arrival, frame |
//! | packages | agent, arrival | time, KeyPackage |
//! | last-resorts | agent | time, KeyPackage |
//! | group-infos | channel | epoch, sealed |
//! | counters | a name | the last number used |
//! | usage | account, month, API key | messages, bytes, copies, time |
//! | reports | nothing | number and body of the one that waits |
//!
//! Numbers are big-endian, so that keys sort as numbers do.

use skytale_wire::{
    Blob,
    id::{ChannelId, Digest, Seq, Time},
    month::Month,
    token::AccountId,
};

use crate::archive::{
    ArchiveError,
    usage::{Tab, Used},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Space {
    Channels,
    Heads,
    Records,
    Ids,
    Mail,
    Welcomes,
    Packages,
    LastResorts,
    GroupInfos,
    Counters,
    Usage,
    Reports,
}

impl Space {
    /// In the order of their discriminants, by which [`Open::space`](super::Open::space) finds them.
    pub(super) const ALL: [Self; 12] = [
        Self::Channels,
        Self::Heads,
        Self::Records,
        Self::Ids,
        Self::Mail,
        Self::Welcomes,
        Self::Packages,
        Self::LastResorts,
        Self::GroupInfos,
        Self::Counters,
        Self::Usage,
        Self::Reports,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Channels => "channels",
            Self::Heads => "heads",
            Self::Records => "records",
            Self::Ids => "ids",
            Self::Mail => "mail",
            Self::Welcomes => "welcomes",
            Self::Packages => "packages",
            Self::LastResorts => "last-resorts",
            Self::GroupInfos => "group-infos",
            Self::Counters => "counters",
            Self::Usage => "usage",
            Self::Reports => "reports",
        }
    }
}

/// Where a channel stands.
pub(super) struct Head {
    pub(super) seq: Seq,
    pub(super) pruned: Seq,
    pub(super) hash: Digest,
}

impl Head {
    pub(super) const EMPTY: Self = Self {
        seq: Seq(0),
        pruned: Seq(0),
        hash: Digest([0; 32]),
    };

    pub(super) fn row(&self) -> Vec<u8> {
        key(&[
            &self.seq.0.to_be_bytes(),
            &self.pruned.0.to_be_bytes(),
            &self.hash.0,
        ])
    }

    pub(super) fn read(row: &[u8]) -> Result<Self, ArchiveError> {
        let (seq, rest) = split(row, NUMBER_LEN, Space::Heads)?;
        let (pruned, hash) = split(rest, NUMBER_LEN, Space::Heads)?;
        Ok(Self {
            seq: Seq(read_number(seq, Space::Heads)?),
            pruned: Seq(read_number(pruned, Space::Heads)?),
            hash: read_digest(hash, Space::Heads)?,
        })
    }
}

/// The package in a row, unless it is too old to be handed out.
pub(super) fn young_package(
    row: &[u8],
    not_before: Time,
    space: Space,
) -> Result<Option<Blob>, ArchiveError> {
    let (at, package) = split(row, NUMBER_LEN, space)?;
    let young = read_number(at, space)? >= not_before.0;
    Ok(young.then(|| Blob::from(package)))
}

pub(super) fn record_key(channel: &ChannelId, seq: Seq) -> Vec<u8> {
    key(&[&channel.0, &seq.0.to_be_bytes()])
}

pub(super) fn tab_key(tab: &Tab) -> Vec<u8> {
    let key_id = tab.key.as_ref().map_or("", |key| key.as_str());
    let month = tab.month.number().to_be_bytes();
    key(&[&tab.account.0, &month, key_id.as_bytes()])
}

pub(super) fn read_tab(place: &[u8]) -> Result<Tab, ArchiveError> {
    let (account, rest) = split(place, ACCOUNT_LEN, Space::Usage)?;
    let (month, key) = split(rest, MONTH_LEN, Space::Usage)?;
    let read = || {
        let key = std::str::from_utf8(key).ok()?;
        Some(Tab {
            account: AccountId(account.try_into().ok()?),
            key: match key {
                "" => None,
                key => Some(key.parse().ok()?),
            },
            month: Month::from_number(u32::from_be_bytes(month.try_into().ok()?))?,
        })
    };
    read().ok_or_else(|| damaged("usage"))
}

pub(super) fn used_row(used: &Used) -> Vec<u8> {
    let numbers = [used.messages, used.bytes, used.delivered, used.connected_ms];
    numbers.map(u64::to_be_bytes).concat()
}

pub(super) fn read_used(row: &[u8]) -> Result<Used, ArchiveError> {
    let (messages, rest) = split(row, NUMBER_LEN, Space::Usage)?;
    let (bytes, rest) = split(rest, NUMBER_LEN, Space::Usage)?;
    let (delivered, connected_ms) = split(rest, NUMBER_LEN, Space::Usage)?;
    let read = |number| read_number(number, Space::Usage);
    Ok(Used {
        messages: read(messages)?,
        bytes: read(bytes)?,
        delivered: read(delivered)?,
        connected_ms: read(connected_ms)?,
    })
}

pub(super) fn key(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub(super) fn split(row: &[u8], at: usize, space: Space) -> Result<(&[u8], &[u8]), ArchiveError> {
    row.split_at_checked(at)
        .ok_or_else(|| damaged(space.name()))
}

pub(super) fn read_number(bytes: &[u8], space: Space) -> Result<u64, ArchiveError> {
    bytes
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| damaged(space.name()))
}

pub(super) fn read_digest(bytes: &[u8], space: Space) -> Result<Digest, ArchiveError> {
    Digest::from_slice(bytes).map_err(|_| damaged(space.name()))
}

pub(super) fn damaged(space: &str) -> ArchiveError {
    ArchiveError::Damaged(format!("a row of {space} cannot be read"))
}

pub(super) const NUMBER_LEN: usize = 8;
const ACCOUNT_LEN: usize = 16;
const MONTH_LEN: usize = 4;
