//! What can go wrong, by what the caller can do about it.
//!
//! Texts name the next step. They hold no key, token, invite, id or path: they end up in logs and
//! bug reports.

use skytale_wire::refusal::{Refusal, Remedy};

/// The only error of this library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The call cannot be right: the text says what to change.
    #[error("{0}")]
    Misuse(String),
    /// There is no such thing here.
    #[error("{0}")]
    NotFound(String),
    /// The relay, the channel's policy or a peer said no.
    #[error("{0}")]
    Denied(Refusal),
    /// The API server said no to the account, key or password.
    #[error("{0}")]
    Unauthorized(String),
    /// The account has used up what its plan allows in a month: the text says when it goes on. Lines
    /// that are open stay until their tokens end, an hour at most.
    #[error("{0}")]
    QuotaExceeded(String),
    /// A server or the process that holds the line does not answer. Trying again is right.
    #[error("{0}")]
    Unreachable(String),
    /// A relay or peer broke the protocol. What it sent was not used.
    #[error("a peer broke the protocol, nothing of it was used: {0}")]
    PeerMisbehaved(String),
    /// The vault could not be opened, read or written. Nothing in it was changed.
    #[error("{0}")]
    Damaged(String),
    /// No answer came in time.
    #[error("{}", timed_out(what, *.queued))]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// Whether it is kept in the vault and goes on with the next connection.
        queued: bool,
    },
}

impl Error {
    /// A stable word for programs, as `--json` prints it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Misuse(_) => "misuse",
            Self::NotFound(_) => "not_found",
            Self::Denied(refusal) => refusal.code(),
            Self::Unauthorized(_) => "unauthorized",
            Self::QuotaExceeded(_) => "quota_exceeded",
            Self::Unreachable(_) => "unreachable",
            Self::PeerMisbehaved(_) => "peer_misbehaved",
            Self::Damaged(_) => "damaged",
            Self::Timeout { .. } => "timeout",
        }
    }

    /// Whether the same call can succeed later without anything being changed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Denied(refusal) => matches!(refusal.remedy(), Remedy::Retry | Remedy::CatchUp),
            Self::Unreachable(_) | Self::Timeout { .. } => true,
            Self::Misuse(_)
            | Self::NotFound(_)
            | Self::Unauthorized(_)
            | Self::QuotaExceeded(_)
            | Self::PeerMisbehaved(_)
            | Self::Damaged(_) => false,
        }
    }

    pub(crate) fn misuse(text: impl Into<String>) -> Self {
        Self::Misuse(text.into())
    }

    pub(crate) fn damaged(text: impl Into<String>) -> Self {
        Self::Damaged(text.into())
    }

    pub(crate) fn unreachable(text: impl Into<String>) -> Self {
        Self::Unreachable(text.into())
    }

    /// The agent was closed, or its thread has ended.
    pub(crate) fn closed() -> Self {
        Self::misuse("this agent is closed: open it again")
    }
}

impl From<skytale_agent::Error> for Error {
    fn from(error: skytale_agent::Error) -> Self {
        match error {
            skytale_agent::Error::Misuse(text) => Self::Misuse(text),
            skytale_agent::Error::NotFound(text) => Self::NotFound(text),
            skytale_agent::Error::Denied(refusal) => Self::Denied(refusal),
            skytale_agent::Error::PeerMisbehaved(text) => Self::PeerMisbehaved(text),
            // What a newer mind may add is treated as the worst.
            error @ (skytale_agent::Error::Damaged(_) | _) => Self::Damaged(format!(
                "{error}. Check free space and permissions; run `skytale doctor`"
            )),
        }
    }
}

/// For statements that hold no secret. Keying a connection does not go through here.
impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        skytale_agent::Error::from(error).into()
    }
}

fn timed_out(what: &str, queued: bool) -> String {
    if queued {
        format!(
            "{what} took too long. It is kept in the vault and goes on when the relay can be reached: run `skytale doctor` to see why not"
        )
    } else {
        format!("{what} took too long: try again, or allow more time")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queued_timeout_says_that_nothing_is_lost() {
        let error = Error::Timeout {
            what: "storing the message",
            queued: true,
        };

        assert_eq!(error.code(), "timeout");
        assert!(error.is_retryable());
        assert!(error.to_string().contains("kept in the vault"), "{error}");
    }

    #[test]
    fn a_refusal_keeps_its_own_word_and_remedy() {
        let used = Error::Denied(Refusal::InviteUsed);
        let busy = Error::Denied(Refusal::RateLimited);

        assert_eq!((used.code(), used.is_retryable()), ("invite_used", false));
        assert_eq!((busy.code(), busy.is_retryable()), ("rate_limited", true));
    }

    #[test]
    fn an_error_of_the_mind_keeps_its_kind() {
        let gone = Error::from(skytale_agent::Error::NotFound("no such channel".into()));
        let damaged = Error::from(skytale_agent::Error::Damaged("disk full".into()));

        assert_eq!(gone.code(), "not_found");
        assert!(damaged.to_string().contains("doctor"), "{damaged}");
    }
}
