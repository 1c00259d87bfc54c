//! What relays and the API server say to each other.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    id::{AgentId, ChannelId, Digest, MessageId, RelayKey, Signed, Time},
    month::Month,
    statement,
    token::{AccountId, KeyId},
};

/// A relay and where to find it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RelayAt {
    /// The key that its connection must prove.
    pub key: RelayKey,
    /// `host:port`, the best one first.
    pub addresses: Vec<String>,
}

/// Whose tokens count no more, though their time is not over.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Revoked {
    /// Those that were bought with this API key.
    Key(KeyId),
    /// Those that this account has for this agent.
    Agent {
        /// Who has shut it out.
        account: AccountId,
        /// Which.
        agent: AgentId,
    },
    /// Those of this account.
    Account(AccountId),
}

/// That something was revoked, and when: tokens that were issued later count.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Revocation {
    /// What.
    pub revoked: Revoked,
    /// When, by the API server's clock, which also says when a token was issued; in milliseconds
    /// since 1970.
    pub at_ms: u64,
}

/// `GET /v1/revocations`, for relays: what has been revoked in the last hour, or since a place in
/// that list, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Revocations {
    /// What counts no more.
    pub revoked: Vec<Revocation>,
    /// Where to go on: the next request's `after`.
    pub next: u64,
}

/// How a relay says in `Authorization` who it is: `Relay KEY:TIME:SIGNATURE`, over
/// [`statement::relay_request`]. Nothing of it is secret; it holds for one request, for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelaySignature {
    /// Who.
    pub relay: RelayKey,
    /// When, by the relay's clock.
    pub time: Time,
    /// By the relay's key.
    pub signature: Signed,
}

impl RelaySignature {
    /// Whether the relay has signed this request: method, path and query as in `GET /v1/x?y=1`.
    pub fn covers(&self, target: &str, body: &[u8]) -> bool {
        let said = statement::relay_request(&self.relay, target, self.time, &Digest::of(&[body]));
        crate::id::verify(&self.relay.0, &said, &self.signature)
    }
}

impl fmt::Display for RelaySignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{RELAY_SCHEME} {}:{}:{}",
            self.relay, self.time.0, self.signature
        )
    }
}

impl FromStr for RelaySignature {
    type Err = BadRelaySignature;

    fn from_str(text: &str) -> Result<Self, BadRelaySignature> {
        let read = || {
            let (scheme, said) = text.split_once(' ')?;
            let mut parts = said.split(':');
            let read = Self {
                relay: parts.next()?.parse().ok()?,
                time: Time(parts.next()?.parse().ok()?),
                signature: parts.next()?.parse().ok()?,
            };
            let whole = parts.next().is_none() && scheme.eq_ignore_ascii_case(RELAY_SCHEME);
            whole.then_some(read)
        };
        read().ok_or(BadRelaySignature)
    }
}

/// The text is not what a relay writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {RELAY_SCHEME} KEY:TIME:SIGNATURE")]
pub struct BadRelaySignature;

const RELAY_SCHEME: &str = "Relay";

/// `POST /v1/usage-reports`, for relays: what was used since the report before. A relay sends the
/// same report until it is taken, and the next one has a higher number; so each counts once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UsageReport {
    /// Which of this relay's reports it is. Numbers may be left out.
    pub number: u64,
    /// At most [`USAGE_ENTRIES_MAX`].
    #[schema(max_items = 200)]
    pub entries: Vec<UsageEntry>,
}

/// What was used with one API key in one month, as far as it was not reported before.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UsageEntry {
    /// Who pays.
    pub account_id: AccountId,
    /// The key that the tokens were bought with. None for what guests use in the account's channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyId>,
    /// When.
    pub month: Month,
    /// Messages that were taken from its agents.
    pub messages: u64,
    /// Sealed bytes that were taken from them, group changes included.
    pub bytes: u64,
    /// Copies of messages that were handed to its agents.
    pub delivered: u64,
    /// For how long its agents were connected, each line by itself.
    pub connected_ms: u64,
}

/// Entries of one report: all of them fit into a request.
pub const USAGE_ENTRIES_MAX: usize = 200;

/// `POST /v1/relay-questions`, for relays: how the relay is, and what it answers to what it was asked.
/// It is answered as soon as somebody wants to know something of this relay, or empty after a while;
/// then the relay comes again. So nobody has to reach a relay from outside.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RelayCall {
    /// How it is.
    pub health: RelayHealth,
    /// To questions that the answer before named.
    #[schema(max_items = 2)]
    pub answers: Vec<RelayAnswer>,
}

/// The answer to [`RelayCall`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct RelayQuestions {
    /// At most [`QUESTIONS_AT_ONCE`]; one that is not answered comes again as long as somebody waits.
    pub questions: Vec<RelayQuestion>,
}

/// Something that an account wants to know of a relay.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct RelayQuestion {
    /// At random, and used once.
    pub id: u64,
    /// Who asks. The relay decides what it may know.
    pub account_id: AccountId,
    /// What.
    pub ask: Ask,
}

/// What can be asked of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Which channels of the account there are, by their ids.
    Channels {
        /// Those behind this one.
        after: Option<ChannelId>,
        /// At most so many, and never more than [`HELD_MAX`].
        limit: u32,
    },
    /// What is stored of a channel.
    Records {
        /// Which.
        channel: ChannelId,
        /// What stands behind this place.
        after: u64,
        /// At most so many, and never more than [`HELD_MAX`].
        limit: u32,
    },
}

/// What a relay says to a [`RelayQuestion`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RelayAnswer {
    /// To which.
    pub id: u64,
    /// What.
    pub told: Told,
}

/// What a relay tells.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Told {
    /// The account's channels, by their ids.
    Channels {
        /// One page of them.
        #[schema(max_items = 100)]
        channels: Vec<ToldChannel>,
    },
    /// One page of a channel.
    Records {
        /// By their places.
        #[schema(max_items = 100)]
        records: Vec<ToldRecord>,
        /// Whether there are some behind them.
        more: bool,
    },
    /// The account has no such channel here. Somebody else's looks the same.
    Unknown,
    /// The archive could not be read.
    Unreadable,
}

/// A channel, as a relay tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ToldChannel {
    /// Which.
    pub id: ChannelId,
    /// How many records were ever stored.
    pub records: u64,
    /// Bodies of messages up to this place are gone.
    pub pruned_to: u64,
    /// How many agents are in.
    pub members: u32,
    /// Sealed bytes that are kept, unless there are too many records to count them in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// When the first record came, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_ms: Option<u64>,
    /// When the last one came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_ms: Option<u64>,
}

/// A record, as a relay tells of it: all that it knows, but for the sealed bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ToldRecord {
    /// Its place.
    pub seq: u64,
    /// What it is.
    pub kind: RecordKind,
    /// The sender's random name for it.
    pub id: MessageId,
    /// Who sent it.
    pub agent_id: AgentId,
    /// In which epoch.
    pub epoch: u64,
    /// The length of the sealed body, which was padded before it was sealed. None once it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// When it came, in milliseconds since 1970.
    pub stored_ms: u64,
}

/// What a record is. The relay has to know, to order changes of a group and to drop old messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// A sealed message.
    Application,
    /// A change of the group by a member.
    Commit,
    /// Somebody has joined by an invite.
    Join,
    /// Somebody has left.
    Leave,
}

/// How a relay is, by its own word. It names nobody, and says nothing of how much is going on: whoever
/// has an account may read it.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an answer of its own to the operator"
)]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RelayHealth {
    /// Which version runs.
    #[schema(max_length = 40, pattern = "^[!-~]+$")]
    pub version: String,
    /// For how many seconds.
    pub uptime_s: u64,
    /// Whether agents should be sent there: everything below is well.
    pub ready: bool,
    /// It answers within itself.
    pub hub: bool,
    /// Its archive takes writes.
    pub archive: bool,
    /// It has the keys of its token issuers, and knows what they revoked.
    pub issuers: bool,
    /// It was told to stop.
    pub draining: bool,
}

/// Questions in one answer. Two full pages go into one request, with the body that servers take.
pub const QUESTIONS_AT_ONCE: usize = 2;
/// Channels or records in one page of what a relay holds.
pub const HELD_MAX: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_full_answers_of_a_relay_fit_into_one_request() {
        let record = ToldRecord {
            seq: 1 << 53,
            kind: RecordKind::Application,
            id: MessageId([0xff; 16]),
            agent_id: AgentId([0xff; 32]),
            epoch: 1 << 53,
            bytes: Some(1 << 24),
            stored_ms: 253_402_300_799_999,
        };
        let channel = ToldChannel {
            id: ChannelId([0xff; 32]),
            records: 1 << 53,
            pruned_to: 1 << 53,
            members: u32::MAX,
            bytes: Some(1 << 53),
            first_ms: Some(253_402_300_799_999),
            last_ms: Some(253_402_300_799_999),
        };
        let full = HELD_MAX as usize;
        for told in [
            Told::Channels {
                channels: vec![channel; full],
            },
            Told::Records {
                records: vec![record; full],
                more: true,
            },
        ] {
            let call = RelayCall {
                health: RelayHealth {
                    version: "x".repeat(40),
                    uptime_s: 1 << 53,
                    ready: false,
                    hub: false,
                    archive: false,
                    issuers: false,
                    draining: false,
                },
                answers: vec![RelayAnswer { id: 1 << 53, told }; QUESTIONS_AT_ONCE],
            };

            let body = serde_json::to_vec(&call).unwrap();

            // What the API server takes, unless its operator says otherwise.
            assert!(body.len() < 65_536, "{}", body.len());
            assert_eq!(serde_json::from_slice::<RelayCall>(&body).unwrap(), call);
        }
    }
}
