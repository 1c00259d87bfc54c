//! The JSON bodies that the API server, the SDK and the command line must agree on.
//!
//! Requests refuse fields they do not know, so that a misspelt or smuggled one is noticed; answers
//! let them pass, so that the server can grow. Times are RFC 3339 in UTC. Routes and status codes
//! are the API server's matter.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::{
    id::{AgentId, ChannelId, Digest, MessageId, RelayKey, Signed, Time, TransportKey},
    month::Month,
    statement,
    token::{AccountId, KeyId, Scope},
};

/// A password, an API key or a token: wiped when dropped, never printed, not copied by accident.
#[derive(Deserialize, Serialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a text into custody.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself: for hashing, for the header that carries it, and for showing it once.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // Moved into a wrapper that wipes, so that the wiping is not written by hand.
        drop(Zeroizing::new(std::mem::take(&mut self.0)));
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// `POST /v1/accounts`.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignUp {
    /// Who signs up; compared without regard to case.
    #[schema(
        max_length = 254,
        pattern = "^[!-?A-~]+@[!-?A-~]+$",
        example = "name@example.org"
    )]
    pub email: String,
    /// 10 to 1,024 bytes.
    #[schema(value_type = String, format = Password, min_length = 10, max_length = 1024)]
    pub password: Secret,
    /// What to call whoever signs up, at most 100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 100, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    pub name: Option<String>,
}

/// The answer to every well-formed sign-up, whether or not the address was free: signing in is how
/// its owner finds out.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct SignedUp {
    /// The path to sign in at.
    pub next: String,
}

/// `POST /v1/sessions`.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// As given at sign-up.
    #[schema(
        max_length = 254,
        pattern = "^[!-?A-~]+@[!-?A-~]+$",
        example = "name@example.org"
    )]
    pub email: String,
    /// As given at sign-up.
    #[schema(value_type = String, format = Password, max_length = 1024)]
    pub password: Secret,
}

/// A quarter of an hour in which the account's owner may make keys.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct Session {
    /// The account that was opened.
    pub account_id: AccountId,
    /// To be sent as `Authorization: Bearer`.
    #[schema(value_type = String, format = Password)]
    pub token: Secret,
    /// When the token ends.
    #[schema(format = DateTime)]
    pub expires_at: String,
}

/// `GET /v1/accounts/me`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Account {
    /// Its name in paths and tokens.
    pub id: AccountId,
    /// The address it was opened with; `local` for the one that `skytale up` makes.
    pub email: String,
    /// What its owner is called, if that was said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// When it was opened.
    #[schema(format = DateTime)]
    pub created_at: String,
}

/// `PUT /v1/accounts/me/password`, in a session. It ends all sessions.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The one that it is until now.
    #[schema(value_type = String, format = Password, max_length = 1024)]
    pub password: Secret,
    /// 10 to 1,024 bytes.
    #[schema(value_type = String, format = Password, min_length = 10, max_length = 1024)]
    pub new_password: Secret,
}

/// `POST /v1/accounts/me/deletion`, in a session.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteAccount {
    /// Once more, because there is no way back.
    #[schema(value_type = String, format = Password, max_length = 1024)]
    pub password: Secret,
}

/// `POST /v1/keys` and `POST /v1/accounts/{id}/keys`.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeKey {
    /// What people call it, 1 to 100 characters.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$"
    )]
    pub name: String,
    /// What it may do: everything, or as much as the key that makes it, unless it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1)]
    pub scopes: Option<Vec<Scope>>,
    /// After how many seconds it ends by itself: never, unless it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 315_360_000)]
    pub expires_in_s: Option<u64>,
}

/// `POST /v1/keys/{id}/rotation`: another key that may do the same, with the name and as much time
/// as the old one had when it was made.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// For how many seconds the old one goes on: none, unless it is said, and then it is revoked.
    #[serde(default)]
    #[schema(maximum = 2_592_000)]
    pub overlap_s: u64,
}

/// A new API key. This answer is the only place where the key is ever shown.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct NewKey {
    /// The public part of the key, by which it is listed and revoked.
    #[schema(value_type = KeyId)]
    pub id: String,
    /// As asked for.
    pub name: String,
    /// The key itself.
    #[schema(value_type = String, format = Password, pattern = "^sk_(live|test)_[0-9A-Za-z]{8}_[0-9A-Za-z]{49}$")]
    pub key: Secret,
    /// When it was made.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// What it may do.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
}

/// An API key as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Key {
    /// The public part of the key.
    #[schema(value_type = KeyId)]
    pub id: String,
    /// What people call it.
    pub name: String,
    /// When it was made.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When a token was last bought with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub last_used_at: Option<String>,
    /// From when on it buys nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub revoked_at: Option<String>,
    /// What it may do.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// When it ends by itself, or has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
}

/// `GET /v1/keys?limit=&after=`: oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Keys {
    /// One page of them.
    pub keys: Vec<Key>,
    /// The `after` of the next page, when there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<KeyId>)]
    pub next: Option<String>,
}

/// An agent for which the account has bought tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Agent {
    /// Its identity.
    pub id: AgentId,
    /// When a token was first bought for it.
    #[schema(format = DateTime)]
    pub first_seen_at: String,
    /// When a token was last bought for it.
    #[schema(format = DateTime)]
    pub last_seen_at: String,
    /// From when on it gets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub disabled_at: Option<String>,
}

/// `GET /v1/agents?limit=&after=`: by their ids.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Agents {
    /// One page of them.
    pub agents: Vec<Agent>,
    /// The `after` of the next page, when there may be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<AgentId>,
}

/// `PUT /v1/agents/{id}`: whether the account's tokens are for this agent too.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetAgent {
    /// Shut out: relays close its connections within seconds.
    pub disabled: bool,
}

/// `POST /v1/tokens`, paid for with an API key. The first three fields, for an agent's line to a
/// relay; the last two, for speaking SLIM to one; or none, for calls about the account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The agent that will prove its identity key to the relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// The key of the connection that will present the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport_key: Option<TransportKey>,
    /// The relay that is to accept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<RelayKey>,
    /// The SLIM names that may be used, as patterns like `organisation/*`. The API server signs
    /// them unseen: an organisation belongs to the account that first uses it at the relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 16)]
    pub slim: Option<Vec<String>>,
}

/// The answer to [`TokenRequest`].
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct TokenAnswer {
    /// The JWT.
    #[schema(value_type = String, format = Password)]
    pub token: Secret,
    /// When it ends, by the server's clock.
    #[schema(format = DateTime)]
    pub expires_at: String,
    /// The same as a span, for a holder whose clock is wrong.
    pub expires_in_s: u64,
    /// The relays that take this server's tokens.
    pub relays: Vec<RelayAt>,
}

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

/// `GET /v1/usage?month=`: the newest month first, or the one that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Usage {
    /// Whose it is.
    pub account_id: AccountId,
    /// Only months in which something was counted, unless one is asked for.
    pub months: Vec<MonthUsage>,
    /// What the account may use in a month.
    #[serde(default)]
    pub plan: Plan,
}

/// What one account used in one month (UTC).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct MonthUsage {
    /// `2026-11`.
    pub month: Month,
    /// All keys together, and guests.
    #[serde(flatten)]
    pub used: Used,
    /// Each key by itself, only for a month that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<KeyUsage>>,
}

/// What was used with one API key in one month.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct KeyUsage {
    /// The public part of the key. None for what guests used in the account's channels, and for what
    /// was counted before keys were told apart.
    pub key_id: Option<KeyId>,
    /// With it.
    #[serde(flatten)]
    pub used: Used,
}

/// Numbers of usage. What relays count is here some seconds after it happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Used {
    /// Tokens bought with API keys.
    pub token_exchanges: u64,
    /// Messages that relays took from the account's agents.
    pub messages: u64,
    /// Sealed bytes that relays took from them, group changes included.
    pub bytes: u64,
    /// Copies of messages that relays handed to its agents.
    #[serde(default)]
    pub delivered: u64,
    /// For how many seconds its agents were connected, each line by itself.
    #[serde(default)]
    pub connected_s: u64,
}

/// What an account may use in a month; what is not said is not bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Plan {
    /// What the operator calls it.
    pub name: String,
    /// Messages in a month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_max: Option<u64>,
    /// Bytes in a month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<u64>,
    /// When the month ends and counting begins anew.
    #[serde(default)]
    #[schema(format = DateTime)]
    pub renews_at: String,
}

/// `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Readiness {
    /// Whether new requests should be sent here.
    pub ready: bool,
    /// The database answers.
    pub store: bool,
    /// The server was told to stop and finishes what it began.
    pub draining: bool,
}

/// Every refusal's body: RFC 9457, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: `code` says which problem it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status again, for those who see only the body.
    pub status: u16,
    /// For programs; never changes its meaning.
    pub code: Code,
    /// For people; may change.
    pub detail: String,
    /// Finds the request in the server's log.
    pub request_id: String,
    /// When it makes sense to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

/// Why the API server refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Code {
    /// 400: not HTTP or not a path or query this server understands.
    BadRequest,
    /// 400: the body is not JSON.
    BadJson,
    /// 401: no key or token, or not a good one.
    Unauthenticated,
    /// 401: e-mail and password do not belong together.
    WrongPassword,
    /// 403: the key or token does not permit this.
    Denied,
    /// 403: the account has shut out this agent.
    AgentDisabled,
    /// 403: the account has used up what its plan allows in a month; `retry_after_s` is how long the
    /// month still goes on.
    QuotaExceeded,
    /// 404: no such path, or nothing there that the caller may know of.
    NotFound,
    /// 405: the path is there, the method is not.
    MethodNotAllowed,
    /// 408: the request did not arrive whole in time.
    Timeout,
    /// 409: the account has as many live keys as it may.
    TooManyKeys,
    /// 409: the request with this `Idempotency-Key` is being answered.
    UnderWay,
    /// 409: it was answered, with a secret that is shown once.
    AlreadyDone,
    /// 409: it was cut off, and may have taken effect.
    OutcomeUnknown,
    /// 413: the body is over the limit.
    TooLarge,
    /// 415: the body is not `application/json`.
    WrongMediaType,
    /// 422: JSON, but a field is missing, unknown, of the wrong type, or out of range.
    BadBody,
    /// 422: this server issues no tokens for that relay.
    UnknownAudience,
    /// 422: the SLIM patterns are none, too many, too long, doubled, or one is no pattern.
    BadPattern,
    /// 422: the `Idempotency-Key` was used for another request.
    OtherRequest,
    /// 429: too often.
    TooManyRequests,
    /// 500: a bug of ours.
    Internal,
    /// 503: as much work as may wait is waiting.
    Busy,
    /// 503: the database does not answer.
    Unavailable,
    /// 503: the relay that was asked does not answer.
    RelaySilent,
    /// Something that a newer server says.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let sign_up = SignUp {
            email: "alice@example.org".into(),
            password: Secret::new("correct horse battery".into()),
            name: None,
        };

        assert!(!format!("{sign_up:?}").contains("horse"));
    }

    #[test]
    fn a_request_with_a_field_too_many_is_refused() {
        let smuggled = r#"{"name":"ci","account_id":"acc_00000000000000000000000000000000"}"#;

        assert!(serde_json::from_str::<MakeKey>(smuggled).is_err());
    }

    #[test]
    fn an_answer_with_a_field_or_code_of_tomorrow_is_read() {
        let problem: Problem = serde_json::from_str(
            r#"{"type":"about:blank","title":"Teapot","status":418,"code":"short_and_stout",
                "detail":"","request_id":"req_1","colour":"blue"}"#,
        )
        .unwrap();

        assert_eq!(problem.code, Code::Unknown);
    }

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

    #[test]
    fn a_token_request_without_an_agent_is_empty_braces() {
        let text = serde_json::to_string(&TokenRequest::default()).unwrap();

        assert_eq!(text, "{}");
        assert_eq!(
            serde_json::from_str::<TokenRequest>("{}").unwrap(),
            TokenRequest::default()
        );
    }

    #[test]
    fn a_token_request_for_slim_names_a_relay_and_patterns() {
        let request = TokenRequest {
            audience: Some(RelayKey([3; 32])),
            slim: Some(vec!["org/*".to_owned()]),
            ..TokenRequest::default()
        };

        let text = serde_json::to_string(&request).unwrap();

        let relay = "03".repeat(32);
        assert_eq!(
            text,
            format!(r#"{{"audience":"{relay}","slim":["org/*"]}}"#)
        );
    }
}
