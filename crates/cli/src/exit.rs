//! How the program ends: one number for each thing that a caller can do about it.

use std::{fmt, io, process::ExitCode};

use skytale_sdk::Error;
use skytale_wire::refusal::Refusal;

/// The exit codes, as `--help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Something went wrong that none of the others says.
    Failed = 1,
    /// The command line, the environment or a file asks for something that cannot be.
    Usage = 2,
    /// There is no such channel, member, invite, key or context.
    NotFound = 3,
    /// The account, key, token or invite does not permit it.
    Denied = 4,
    /// A server, a relay or another agent cannot be reached now.
    Unreachable = 5,
    /// The channel's policy, the relay's limits or the account's plan do not permit it.
    Policy = 6,
    /// Nothing came in time.
    Timeout = 124,
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    code: &'static str,
    text: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        let code = match exit {
            Exit::Failed => "failed",
            Exit::Usage => "misuse",
            Exit::NotFound => "not_found",
            Exit::Denied => "denied",
            Exit::Unreachable => "unreachable",
            Exit::Policy => "refused",
            Exit::Timeout => "timeout",
        };
        Self {
            exit,
            code,
            text: text.into(),
        }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, text)
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::new(Exit::Failed, text)
    }

    pub(crate) fn timeout(text: impl Into<String>) -> Self {
        Self::new(Exit::Timeout, text)
    }

    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }

    /// A stable word for programs.
    pub(crate) const fn code(&self) -> &'static str {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            exit: exit_of(&error),
            code: error.code(),
            text: error.to_string(),
        }
    }
}

/// For stdin, stdout and the few files that commands read themselves.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::failed(error.kind().to_string())
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The table of the SDK's errors.
#[expect(
    clippy::match_same_arms,
    reason = "what was decided is listed; the last arm is for what a newer version says"
)]
fn exit_of(error: &Error) -> Exit {
    match error {
        Error::Misuse(_) => Exit::Usage,
        Error::NotFound(_) => Exit::NotFound,
        Error::Denied(refusal) => exit_of_refusal(*refusal),
        Error::Unauthorized(_) => Exit::Denied,
        Error::QuotaExceeded(_) => Exit::Policy,
        Error::Unreachable(_) => Exit::Unreachable,
        Error::Timeout { .. } => Exit::Timeout,
        Error::PeerMisbehaved(_) | Error::Damaged(_) => Exit::Failed,
        _ => Exit::Failed,
    }
}

/// The table of what relays, policies and peers refuse.
#[expect(
    clippy::match_same_arms,
    reason = "what was decided is listed; the last arm is for what a newer version says"
)]
fn exit_of_refusal(refusal: Refusal) -> Exit {
    use Refusal as R;
    match refusal {
        R::ChannelUnknown | R::MemberUnknown | R::InviteUnknown => Exit::NotFound,
        R::TokenInvalid
        | R::TokenExpired
        | R::TokenForAnotherRelay
        | R::TokenForAnotherKey
        | R::IdentityUnproven
        | R::ScopeMissing
        | R::GuestsRefused
        | R::Revoked
        | R::InviteUsed
        | R::InviteExpired
        | R::InviteAltered => Exit::Denied,
        R::IssuerUnreachable
        | R::GroupInfoMissing
        | R::KeyPackagesExhausted
        | R::Unavailable
        | R::ShuttingDown
        | R::SlowReader
        | R::Replaced
        | R::HelloTimeout => Exit::Unreachable,
        R::NotAdmin
        | R::OrganisationTaken
        | R::MayNotInvite
        | R::InviteLimit
        | R::KeyPackageLimit
        | R::RateLimited
        | R::LimitReached
        | R::TooLarge
        | R::ShapeRequired => Exit::Policy,
        R::Malformed
        | R::VersionUnsupported
        | R::HelloExpected
        | R::ShapeSenseless
        | R::ChannelExists
        | R::MemberAlready
        | R::StaleEpoch
        | R::ClosedGeneration
        | R::SealedSetIncomplete
        | R::Unknown(_) => Exit::Failed,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_exit_code() {
        let text = || "why".to_owned();
        let timeout = |queued| Error::Timeout {
            what: "joining",
            queued,
        };
        let table = [
            (Error::Misuse(text()), 2),
            (Error::NotFound(text()), 3),
            (Error::Unauthorized(text()), 4),
            (Error::QuotaExceeded(text()), 6),
            (Error::Denied(Refusal::InviteUsed), 4),
            (Error::Denied(Refusal::Revoked), 4),
            (Error::Denied(Refusal::ChannelUnknown), 3),
            (Error::Denied(Refusal::NotAdmin), 6),
            (Error::Denied(Refusal::InviteLimit), 6),
            (Error::Denied(Refusal::TooLarge), 6),
            (Error::Denied(Refusal::KeyPackagesExhausted), 5),
            (Error::Denied(Refusal::Unavailable), 5),
            (Error::Denied(Refusal::StaleEpoch), 1),
            (Error::Denied(Refusal::Unknown(999)), 1),
            (Error::Unreachable(text()), 5),
            (Error::PeerMisbehaved(text()), 1),
            (Error::Damaged(text()), 1),
            (timeout(true), 124),
            (timeout(false), 124),
        ];
        for (error, exit) in table {
            let shown = format!("{error:?}");
            let failure = Failure::from(error);
            assert_eq!(failure.exit() as u8, exit, "{shown}");
            assert!(!failure.code().is_empty());
        }
    }

    #[test]
    fn no_refusal_that_needs_permission_looks_like_a_plain_failure() {
        for refusal in Refusal::ALL {
            if refusal.remedy() == skytale_wire::refusal::Remedy::GetPermission {
                assert_ne!(exit_of_refusal(*refusal), Exit::Failed, "{refusal:?}");
            }
        }
    }
}
