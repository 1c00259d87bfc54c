//! Why a request was refused: one numbered list for the relay, the agents and the command line.
//!
//! Numbers are part of the wire format and are never given a second meaning.

use std::fmt;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// What the caller can do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// Nothing, until the calling code is corrected.
    FixRequest,
    /// Nothing without more rights, a new token or a new invite.
    GetPermission,
    /// Try again later, as it is.
    Retry,
    /// Catch up with the log first, then try again.
    CatchUp,
}

macro_rules! refusals {
    ($($number:literal $name:ident $code:literal $remedy:ident $text:literal;)+) => {
        /// A typed "no". `Display` is a sentence for people that says the next step.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Refusal {
            $(#[doc = $text] $name,)+
            /// A number from a newer peer.
            Unknown(u16),
        }

        impl Refusal {
            /// Every refusal that this version knows.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$name => $number,)+
                    Self::Unknown(number) => number,
                }
            }

            /// A stable word for programs, as `--json` prints it.
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                    Self::Unknown(_) => "unknown",
                }
            }

            /// What the caller can do.
            pub const fn remedy(self) -> Remedy {
                match self {
                    $(Self::$name => Remedy::$remedy,)+
                    Self::Unknown(_) => Remedy::FixRequest,
                }
            }
        }

        impl From<u16> for Refusal {
            fn from(number: u16) -> Self {
                match number {
                    $($number => Self::$name,)+
                    other => Self::Unknown(other),
                }
            }
        }

        impl fmt::Display for Refusal {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name => f.write_str($text),)+
                    Self::Unknown(number) => write!(f, "refused with number {number}, which this version does not know: update"),
                }
            }
        }
    };
}

refusals! {
    1 Malformed "malformed" FixRequest "the relay could not read the request: the two ends disagree about the format";
    2 VersionUnsupported "version_unsupported" FixRequest "the relay speaks another protocol version: update the older side";
    3 TooLarge "too_large" FixRequest "the request is larger than the relay's limit";
    4 HelloExpected "hello_expected" FixRequest "the first frame of a connection must be a Hello";
    5 ShapeSenseless "shape_senseless" FixRequest "the line cannot be shaped as asked for: correct the mode, rate, cell or bank";
    6 ShapeRequired "shape_required" FixRequest "this relay takes only lines that are shaped, and this agent asked for none: update it";
    10 TokenInvalid "token_invalid" GetPermission "the token is not valid here: get a new one with the API key";
    11 TokenExpired "token_expired" GetPermission "the token has expired: get a new one with the API key";
    12 TokenForAnotherRelay "token_for_another_relay" GetPermission "the token was issued for another relay";
    13 TokenForAnotherKey "token_for_another_key" GetPermission "the token belongs to another connection key or agent";
    14 IdentityUnproven "identity_unproven" FixRequest "the identity key's signature over this connection is wrong";
    15 ScopeMissing "scope_missing" GetPermission "the token does not carry the scope that this needs";
    16 GuestsRefused "guests_refused" GetPermission "this relay takes no guests: use an account of its API server";
    17 Revoked "revoked" GetPermission "the API key, token or agent has been revoked";
    18 IssuerUnreachable "issuer_unreachable" Retry "the relay cannot fetch its token issuer's keys at the moment: try again";
    20 ChannelUnknown "channel_unknown" GetPermission "this relay has no such channel, or this agent is not in it";
    21 ChannelExists "channel_exists" FixRequest "a channel with this id exists already";
    22 NotAdmin "not_admin" GetPermission "only an admin of the channel may do this";
    23 MayNotInvite "may_not_invite" GetPermission "this member may not add or invite others";
    24 StaleEpoch "stale_epoch" CatchUp "another commit came first: catch up and try again";
    25 MemberAlready "member_already" FixRequest "the agent is a member already";
    26 MemberUnknown "member_unknown" FixRequest "the agent is not a member";
    27 ClosedGeneration "closed_generation" CatchUp "the channel has been restarted: catch up";
    28 OrganisationTaken "organisation_taken" GetPermission "this SLIM organisation belongs to another account of the relay: use another one";
    30 InviteUnknown "invite_unknown" GetPermission "the relay does not know this invite: ask for a new one";
    31 InviteUsed "invite_used" GetPermission "this invite has been used: ask for a new one";
    32 InviteExpired "invite_expired" GetPermission "this invite has expired: ask for a new one";
    33 InviteAltered "invite_altered" GetPermission "this invite line was altered or cut: copy it again";
    34 InviteLimit "invite_limit" FixRequest "the channel has as many open invites as it may have: let some be used or expire";
    35 GroupInfoMissing "group_info_missing" Retry "the relay waits for a member to come online and seal the group's state";
    36 SealedSetIncomplete "sealed_set_incomplete" CatchUp "the commit does not seal the group's state to every open invite";
    40 KeyPackagesExhausted "key_packages_exhausted" Retry "the agent has no KeyPackage at the relay: it must come online once";
    41 KeyPackageLimit "key_package_limit" FixRequest "the relay keeps no more KeyPackages for this agent";
    50 RateLimited "rate_limited" Retry "too many requests: slow down and try again";
    51 LimitReached "limit_reached" FixRequest "a limit of the relay is reached for this connection or channel";
    60 Unavailable "unavailable" Retry "the relay cannot store anything at the moment; reading still works";
    61 ShuttingDown "shutting_down" Retry "the relay is going down: reconnect and resume";
    62 SlowReader "slow_reader" Retry "this connection did not keep up: reconnect and resume from the cursor";
    63 Replaced "replaced" Retry "the same agent opened a newer connection";
    64 HelloTimeout "hello_timeout" Retry "the connection said nothing in time";
}

impl<C> Encode<C> for Refusal {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.u16(self.number())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Refusal {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        d.u16().map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_reads_back_and_no_word_is_used_twice() {
        let mut words = std::collections::BTreeSet::new();
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::from(refusal.number()), *refusal);
            assert!(words.insert(refusal.code()), "{} twice", refusal.code());
        }
        assert_eq!(Refusal::from(9999), Refusal::Unknown(9999));
    }
}
