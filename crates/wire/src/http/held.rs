//! What relays hold of an account's channels, as the account is told.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{RecordKind, RelayHealth};
use crate::id::{AgentId, ChannelId, MessageId, RelayKey};

/// `GET /v1/relays`: the relays of this server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Relays {
    /// In the order of the server's settings.
    pub relays: Vec<RelayState>,
}

/// A relay, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct RelayState {
    /// The key that its connection must prove.
    pub key: RelayKey,
    /// `host:port`, the best one first.
    pub addresses: Vec<String>,
    /// Whether it was heard just now, and is ready by its own word.
    pub healthy: bool,
    /// When this server last heard of it, if it did since it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub heard_at: Option<String>,
    /// What it said of itself then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<RelayHealth>,
}

/// `GET /v1/channels?limit=&after=`: channels that the account pays for, as relays hold them, by their
/// ids.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct HeldChannels {
    /// One page of them.
    pub channels: Vec<HeldChannel>,
    /// Relays that did not answer: what they hold is missing here.
    pub silent: Vec<RelayKey>,
    /// The `after` of the next page, when there may be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ChannelId>,
}

/// A channel that the account pays for. Its name is sealed: no server knows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct HeldChannel {
    /// A random name that it has at the relay.
    pub id: ChannelId,
    /// Which relay holds it.
    pub relay: RelayKey,
    /// How many records were ever stored.
    pub records: u64,
    /// Bodies of messages up to this place are gone: they were kept long enough.
    pub pruned_to: u64,
    /// How many agents are in.
    pub members: u32,
    /// Sealed bytes that are kept, unless there are too many records to count them in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// When the first record was stored, by the relay's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub first_at: Option<String>,
    /// When the last one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub last_at: Option<String>,
}

/// `GET /v1/channels/{id}/records?limit=&after=`: what a relay holds of a channel, by places.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct HeldRecords {
    /// Which channel.
    pub channel_id: ChannelId,
    /// Which relay holds it.
    pub relay: RelayKey,
    /// One page of them.
    pub records: Vec<HeldRecord>,
    /// The `after` of the next page, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A record: all that the relay knows of it, but for the sealed bytes themselves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct HeldRecord {
    /// Its place in the channel.
    pub seq: u64,
    /// What it is.
    pub kind: RecordKind,
    /// The sender's random name for it.
    pub id: MessageId,
    /// Who sent it.
    pub agent_id: AgentId,
    /// In which epoch of the group.
    pub epoch: u64,
    /// The length of the sealed body: what was said was padded before it was sealed. None once the
    /// body is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// When it came, by the relay's clock.
    #[schema(format = DateTime)]
    pub stored_at: String,
}
