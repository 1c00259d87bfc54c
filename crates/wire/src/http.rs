//! The JSON bodies that the API server, the SDK and the command line must agree on.
//!
//! Requests refuse fields they do not know, so that a misspelt or smuggled one is noticed; answers
//! let them pass, so that the server can grow. Times are RFC 3339 in UTC. Routes and status codes
//! are the API server's matter.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

mod accounts;
mod held;
mod relays;

pub use self::{
    accounts::{
        Account, Agent, Agents, ChangePassword, DeleteAccount, Key, KeyUsage, Keys, MakeKey,
        MonthUsage, NewKey, Plan, RotateKey, Session, SetAgent, SignIn, SignUp, SignedUp,
        TokenAnswer, TokenRequest, Usage, Used,
    },
    held::{HeldChannel, HeldChannels, HeldRecord, HeldRecords, RelayState, Relays},
    relays::{
        Ask, BadRelaySignature, HELD_MAX, QUESTIONS_AT_ONCE, RecordKind, RelayAnswer, RelayAt,
        RelayCall, RelayHealth, RelayQuestion, RelayQuestions, RelaySignature, Revocation,
        Revocations, Revoked, Told, ToldChannel, ToldRecord, USAGE_ENTRIES_MAX, UsageEntry,
        UsageReport,
    },
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
    fn an_answer_with_a_field_or_code_of_tomorrow_is_read() {
        let problem: Problem = serde_json::from_str(
            r#"{"type":"about:blank","title":"Teapot","status":418,"code":"short_and_stout",
                "detail":"","request_id":"req_1","colour":"blue"}"#,
        )
        .unwrap();

        assert_eq!(problem.code, Code::Unknown);
    }
}
