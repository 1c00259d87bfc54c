//! Accounts, and what is theirs: sessions, keys, agents, tokens, usage.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{RelayAt, Secret};
use crate::{
    id::{AgentId, RelayKey, TransportKey},
    month::Month,
    token::{AccountId, KeyId, Scope},
};

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
