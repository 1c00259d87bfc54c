//! What is stored of SLIM beside the records: a log's name and groups, and whose an organisation
//! is.
//!
//! These rows lie among the channels' own. A channel's state is a CBOR map and these are arrays,
//! so that each is told by its first byte, and archives from before there was SLIM stay readable.

use minicbor::{Decode, Encode};
use skytale_wire::{
    frame::{SlimName, decode, encode},
    id::{AgentId, ChannelId, Digest, Time},
};

use super::order::Group;
use crate::{
    archive::{ArchiveError, StoredChannel},
    hub::channel::Mark,
};

/// One of SLIM's rows.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(in crate::hub) enum StoredSlim {
    /// A name has a log.
    #[n(0)]
    Log(#[n(0)] KeptLog),
    /// An organisation belongs to an account.
    #[n(1)]
    Organisation(#[n(0)] KeptOrganisation),
}

/// What is stored of a log, besides head and hash.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub(in crate::hub) struct KeptLog {
    /// The name that messages were sent to.
    #[n(0)]
    pub(super) name: SlimName,
    /// Whose it counts as; nobody's, if it began where tokens are not asked for.
    #[n(1)]
    pub(super) account: Option<String>,
    /// How far the groups are whose commits go here.
    #[n(2)]
    pub(super) groups: Vec<Group>,
    /// When records came, roughly, for retention.
    #[n(3)]
    pub(super) marks: Vec<Mark>,
    /// When the last record went, if nothing has been sent to the name since.
    #[n(4)]
    pub(super) emptied: Option<Time>,
}

/// Whose an organisation is: by its hash, because texts route nothing.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(in crate::hub) struct KeptOrganisation {
    #[n(0)]
    pub(super) hash: u64,
    #[n(1)]
    pub(super) account: String,
}

impl StoredSlim {
    pub(in crate::hub) fn read(stored: &StoredChannel) -> Result<Self, ArchiveError> {
        decode(&stored.state, usize::MAX).map_err(|error| {
            ArchiveError::Damaged(format!(
                "what is kept of SLIM at {} cannot be read: {error}",
                stored.channel.short()
            ))
        })
    }

    pub(super) fn state(&self) -> bytes::Bytes {
        encode(self).into()
    }
}

/// Whether a stored state is one of SLIM's: an array, where a channel's is a map.
pub(in crate::hub) fn is_slim(state: &[u8]) -> bool {
    state.first().is_some_and(|first| first >> 5 == CBOR_ARRAY)
}

/// Where it is stored whose an organisation is.
pub(super) fn organisation_row(hash: u64) -> ChannelId {
    ChannelId(Digest::of(&[b"skytale/1 slim organisation", &hash.to_be_bytes()]).0)
}

/// How a sender is named in a log.
pub(super) fn source_of(encoded: &[u8]) -> AgentId {
    AgentId(Digest::of(&[b"skytale/1 slim source", encoded]).0)
}

const CBOR_ARRAY: u8 = 4;
