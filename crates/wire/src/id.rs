//! Names for things, as bytes that both ends agree on: agents, channels, messages, places in a log.
//!
//! Every id is a newtype, so that two numbers never mean different things. What an id shows to
//! people is decided here too: agents as `agt_…`, everything else as lower-case hex.

use std::{fmt, str::FromStr};

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use ed25519_dalek::{Signature, VerifyingKey};
use minicbor::{Decode, Decoder, Encode, Encoder, bytes::ByteArray, decode, encode};
use sha2::{Digest as _, Sha256};

/// Why a text or byte string is not the id it claims to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a valid {what}: {hint}")]
pub struct BadId {
    what: &'static str,
    hint: &'static str,
}

/// Declares a fixed-size byte id shown as hex. A macro, because seven types differ in name,
/// length and meaning only, and each needs the same impls of foreign traits.
macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// How many bytes it has.
            pub const LEN: usize = $len;

            /// The bytes as they go on the wire.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Takes a slice of exactly the right length.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, BadId> {
                bytes
                    .try_into()
                    .map(Self)
                    .map_err(|_| BadId { what: $what, hint: "wrong length" })
            }

            /// The first four bytes as hex, for logs.
            pub fn short(&self) -> String {
                self.0.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}…)"), self.short())
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: encode::Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
                ByteArray::<$len>::decode(d, ctx).map(|bytes| Self(bytes.into()))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Shows a byte id as lower-case hex and reads it back.
macro_rules! hex_text {
    ($name:ident, $what:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| BadId {
                    what: $what,
                    hint: "expected lower-case hex",
                })?;
                Self::from_slice(&bytes)
            }
        }
    };
}

byte_id!(
    /// An agent's Ed25519 identity key, which is also its MLS leaf signature key and credential.
    ///
    /// Nobody can vouch for somebody else's id, because the id *is* the key.
    AgentId, 32, "agent id"
);
byte_id!(
    /// An agent's QUIC endpoint key, fresh for each process.
    TransportKey, 32, "transport key"
);
byte_id!(
    /// A relay's QUIC endpoint key, which its clients pin.
    RelayKey, 32, "relay key"
);
byte_id!(
    /// Which holder of a SLIM name is meant: SLIM's number of 128 bits, the highest byte first. The
    /// highest number is none, because in SLIM it means any.
    SlimInstance, 16, "SLIM instance"
);
byte_id!(
    /// Random name of a channel; the readable name lives encrypted inside the group.
    ChannelId, 32, "channel id"
);
byte_id!(
    /// Random name of one publish or commit; sending it again gets the same answer.
    MessageId, 16, "message id"
);
byte_id!(
    /// The first half of the hash of an invite's signing half.
    InviteId, 16, "invite id"
);
byte_id!(
    /// A SHA-256 value.
    Digest, 32, "SHA-256 digest"
);
byte_id!(
    /// An Ed25519 signature.
    Signed, 64, "signature"
);

hex_text!(TransportKey, "transport key");
hex_text!(RelayKey, "relay key");
hex_text!(SlimInstance, "SLIM instance");
hex_text!(ChannelId, "channel id");
hex_text!(MessageId, "message id");
hex_text!(InviteId, "invite id");
hex_text!(Digest, "SHA-256 digest");
hex_text!(Signed, "signature");

impl AgentId {
    /// Whether this key signed `statement`, by the strict rules (no small-order keys, no
    /// malleable signatures), so that all parts of the system decide alike.
    pub fn signed(&self, statement: &[u8], signature: &Signed) -> bool {
        verify(&self.0, statement, signature)
    }

    /// The same key as a `did:key`, for systems that speak decentralised identifiers.
    pub fn did_key(&self) -> String {
        // 0xed01 is the multicodec prefix of an Ed25519 public key.
        let mut bytes = vec![0xed, 0x01];
        bytes.extend_from_slice(&self.0);
        format!("did:key:z{}", base58(&bytes))
    }
}

/// Whether `key` signed `statement`, strictly.
pub fn verify(key: &[u8; 32], statement: &[u8], signature: &Signed) -> bool {
    VerifyingKey::from_bytes(key).is_ok_and(|key| {
        key.verify_strict(statement, &Signature::from_bytes(&signature.0))
            .is_ok()
    })
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{AGENT_PREFIX}{}",
            BASE32_NOPAD.encode(&self.0).to_lowercase()
        )
    }
}

impl FromStr for AgentId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        const BAD: BadId = BadId {
            what: "agent id",
            hint: "expected agt_ and 52 letters and digits, as `skytale whoami` prints it",
        };
        let body = text.strip_prefix(AGENT_PREFIX).ok_or(BAD)?;
        if body.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(BAD);
        }
        let bytes = BASE32_NOPAD
            .decode(body.to_uppercase().as_bytes())
            .map_err(|_| BAD)?;
        Self::from_slice(&bytes).map_err(|_| BAD)
    }
}

impl ChannelId {
    /// The MLS group id of one generation of this channel: a restart makes a fresh group under
    /// the same channel.
    pub fn group_id(&self, generation: Generation) -> Digest {
        Digest::of(&[b"skytale/1 group", &self.0, &generation.0.to_be_bytes()])
    }
}

impl InviteId {
    /// The id that belongs to an invite's signing half.
    pub fn of(signing_half: &[u8; 32]) -> Self {
        let digest = Digest::of(&[b"skytale/1 invite", signing_half]);
        let mut id = [0; Self::LEN];
        id.copy_from_slice(&digest.0[..Self::LEN]);
        Self(id)
    }
}

impl SlimInstance {
    /// As SLIM counts.
    pub const fn number(&self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

impl From<u128> for SlimInstance {
    fn from(number: u128) -> Self {
        Self(number.to_be_bytes())
    }
}

impl Digest {
    /// SHA-256 over the parts, each preceded by its length, so that no two lists collide.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// The first 16 bytes: what travels inside messages to compare logs.
    pub fn half(&self) -> [u8; 16] {
        let mut half = [0; 16];
        half.copy_from_slice(&self.0[..16]);
        half
    }
}

/// Declares a number that is not interchangeable with another.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
            Encode, Decode, serde::Serialize, serde::Deserialize,
        )]
        #[cbor(transparent)]
        #[serde(transparent)]
        pub struct $name(#[n(0)] pub $inner);

        impl $name {
            /// The one that follows.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// An MLS epoch of a channel's group (RFC 9420, section 7).
    Epoch, u64
);
number!(
    /// A place in a channel's log: contiguous, the first record is 1, zero is "before the log".
    Seq, u64
);
number!(
    /// How often a channel has been restarted with a fresh group.
    Generation, u32
);
number!(
    /// Milliseconds since 1970 UTC, made monotonic by whoever reads the clock.
    Time, u64
);

impl Seq {
    /// The one before, or zero.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl Time {
    /// This moment plus a span in milliseconds, saturating.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment, zero when it lies ahead.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole seconds since 1970, as tokens count.
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// Bitcoin's base 58, which `did:key` prescribes. Short input only: quadratic in its length.
fn base58(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let mut digits: Vec<u8> = Vec::new();
    for &byte in bytes {
        let mut carry = u32::from(byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = u8::try_from(carry % 58).expect("a remainder of 58 fits");
            carry /= 58;
        }
        while carry > 0 {
            digits.push(u8::try_from(carry % 58).expect("a remainder of 58 fits"));
            carry /= 58;
        }
    }
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    std::iter::repeat_n('1', zeros)
        .chain(
            digits
                .iter()
                .rev()
                .map(|digit| char::from(ALPHABET[usize::from(*digit)])),
        )
        .collect()
}

const AGENT_PREFIX: &str = "agt_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_id_reads_back_what_it_shows() {
        let id = AgentId([7; 32]);

        let text = id.to_string();

        assert_eq!(text.len(), 4 + 52);
        assert_eq!(text.parse(), Ok(id));
        assert!(text.to_uppercase().parse::<AgentId>().is_err());
        assert!(text.get(..20).unwrap().parse::<AgentId>().is_err());
    }

    /// The example of the did:key specification for Ed25519.
    #[test]
    fn a_did_key_is_the_specification_s() {
        let key = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"
            .parse::<Digest>()
            .unwrap();

        let did = AgentId(key.0).did_key();

        assert_eq!(
            did,
            "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"
        );
    }

    #[test]
    fn digests_of_different_lists_differ() {
        assert_ne!(Digest::of(&[b"ab", b"c"]), Digest::of(&[b"a", b"bc"]));
    }

    #[test]
    fn a_small_order_key_signs_nothing() {
        // The identity point: with cofactored verification it would accept S = 0 for anything.
        let mut key = [0; 32];
        key[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;

        assert!(!verify(&key, b"anything", &Signed(signature)));
    }
}
