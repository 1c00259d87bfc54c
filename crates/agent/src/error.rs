//! What can go wrong in a mind, by what the caller can do about it.

use skytale_wire::refusal::{Refusal, Remedy};

/// An error of one step or command. Losing a commit race is not among them: that is an outcome,
/// and the mind tries again by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller asked for something that cannot be: the text says what to change.
    #[error("{0}")]
    Misuse(String),
    /// The caller named something that is not there.
    #[error("{0}")]
    NotFound(String),
    /// The relay, the channel's policy or a peer said no.
    #[error("{0}")]
    Denied(Refusal),
    /// A peer or relay broke the protocol. What it sent was not used.
    #[error("a peer broke the protocol: {0}")]
    PeerMisbehaved(String),
    /// The vault could not be read or written; nothing of the step was kept.
    #[error("the vault is damaged or cannot be written: {0}")]
    Damaged(String),
}

impl Error {
    /// Whether the same call can succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Denied(refusal) => matches!(refusal.remedy(), Remedy::Retry | Remedy::CatchUp),
            Self::Misuse(_) | Self::NotFound(_) | Self::PeerMisbehaved(_) | Self::Damaged(_) => {
                false
            }
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Denied(refusal)
    }
}
