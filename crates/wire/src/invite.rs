//! The invite line: everything that a joiner needs, in one word to copy.
//!
//! `skt_inv_` and base64url of a CBOR map with a checksum. The seed in it is a secret: from it
//! come the signing key that lets the holder in and the HPKE key that opens the group's state.

use std::{fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signer as _, SigningKey};
use minicbor::{Decode, Encode, bytes::ByteArray};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    frame::{decode, encode},
    id::{AgentId, ChannelId, Digest, Generation, InviteId, RelayKey, Signed, Time},
};

/// How every invite line begins.
pub const INVITE_PREFIX: &str = "skt_inv_";
/// Characters that a line may have: room for several addresses.
pub const INVITE_CHARS_MAX: usize = 2048;
/// Addresses that a line may carry.
pub const ADDRESSES_MAX: usize = 8;

/// What an invite line says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Invite {
    /// The relay where the channel lives.
    #[n(0)]
    pub relay: RelayKey,
    /// Where that relay is reached, as `host:port`.
    #[n(1)]
    pub addresses: Vec<String>,
    /// The channel.
    #[n(2)]
    pub channel: ChannelId,
    /// Its generation when the invite was made.
    #[n(3)]
    pub generation: Generation,
    /// Who invites: the joiner refuses a group whose policy does not carry this agent's signature.
    #[n(4)]
    pub inviter: AgentId,
    /// When the invite ends.
    #[n(5)]
    pub expires: Time,
    /// What both of its keys are derived from.
    #[n(6)]
    pub seed: InviteSeed,
}

/// 128 secret bits of an invite.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct InviteSeed([u8; 16]);

/// Why a text is not an invite line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadInvite {
    /// Does not begin like one.
    #[error("an invite begins with skt_inv_")]
    NotAnInvite,
    /// Something is missing from it or was changed.
    #[error("this invite line was altered or cut: copy it again, as one line")]
    Altered,
}

impl InviteSeed {
    /// From 16 random bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// 32 bytes of key material for one purpose; `purpose` keeps the two keys independent.
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(Digest::of(&[b"skytale/1 invite seed", purpose.as_bytes(), &self.0]).0)
    }

    fn signing_key(&self) -> SigningKey {
        SigningKey::from_bytes(&self.derive("signing"))
    }

    /// The public half that relay and members check the joiner by.
    pub fn signing_half(&self) -> Digest {
        Digest(self.signing_key().verifying_key().to_bytes())
    }

    /// The invite's id.
    pub fn id(&self) -> InviteId {
        InviteId::of(&self.signing_half().0)
    }

    /// Signs as the holder of the line.
    pub fn sign(&self, statement: &[u8]) -> Signed {
        Signed(self.signing_key().sign(statement).to_bytes())
    }
}

impl fmt::Debug for InviteSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteSeed(…)")
    }
}

impl<C> Encode<C> for InviteSeed {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for InviteSeed {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        ByteArray::<16>::decode(d, ctx).map(|bytes| Self(bytes.into()))
    }
}

/// Shows the whole line, secret included: print it only where an invite is meant to appear.
impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Zeroizing::new(vec![LINE_VERSION]);
        bytes.extend_from_slice(&Zeroizing::new(encode(self)));
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        write!(f, "{INVITE_PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for Invite {
    type Err = BadInvite;

    fn from_str(text: &str) -> Result<Self, BadInvite> {
        let body = text
            .trim()
            .strip_prefix(INVITE_PREFIX)
            .ok_or(BadInvite::NotAnInvite)?;
        if body.len() > INVITE_CHARS_MAX {
            return Err(BadInvite::Altered);
        }
        let bytes = BASE64URL_NOPAD
            .decode(body.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| BadInvite::Altered)?;
        let (content, sum) = bytes.split_last_chunk::<4>().ok_or(BadInvite::Altered)?;
        if checksum(content) != *sum {
            return Err(BadInvite::Altered);
        }
        let (LINE_VERSION, map) = content
            .split_first()
            .map(|(v, map)| (*v, map))
            .ok_or(BadInvite::Altered)?
        else {
            return Err(BadInvite::Altered);
        };
        let invite: Self = decode(map, INVITE_CHARS_MAX).map_err(|_| BadInvite::Altered)?;
        if invite.addresses.len() > ADDRESSES_MAX {
            return Err(BadInvite::Altered);
        }
        Ok(invite)
    }
}

/// Catches typing and copying mistakes before any server is asked.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let digest = Digest::of(&[b"skytale/1 invite line", bytes]);
    [digest.0[0], digest.0[1], digest.0[2], digest.0[3]]
}

const LINE_VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> Invite {
        Invite {
            relay: RelayKey([1; 32]),
            addresses: vec!["127.0.0.1:4433".to_owned()],
            channel: ChannelId([2; 32]),
            generation: Generation(0),
            inviter: AgentId([3; 32]),
            expires: Time(4),
            seed: InviteSeed::new([5; 16]),
        }
    }

    #[test]
    fn a_line_reads_back_what_it_says() {
        let line = invite().to_string();

        assert_eq!(line.parse(), Ok(invite()));
        assert_eq!(format!(" {line}\n").parse(), Ok(invite()));
        assert!(line.len() < 300, "{}", line.len());
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let line = invite().to_string();

        for place in INVITE_PREFIX.len()..line.len() {
            let mut altered = line.clone().into_bytes();
            altered[place] = if altered[place] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            assert_eq!(
                altered.parse::<Invite>(),
                Err(BadInvite::Altered),
                "at {place}"
            );
        }
        assert_eq!(
            line.get(..line.len() - 3).unwrap().parse::<Invite>(),
            Err(BadInvite::Altered)
        );
        assert_eq!("hello".parse::<Invite>(), Err(BadInvite::NotAnInvite));
    }

    #[test]
    fn the_seed_is_not_shown_by_debug() {
        let shown = format!("{:?}", invite());

        assert!(shown.contains("InviteSeed(…)"));
        assert!(!shown.contains("5, 5"));
    }

    #[test]
    fn the_holder_s_signature_proves_the_line() {
        let seed = InviteSeed::new([9; 16]);

        let signature = seed.sign(b"let me in");

        assert!(crate::id::verify(
            &seed.signing_half().0,
            b"let me in",
            &signature
        ));
        assert!(!crate::id::verify(
            &seed.signing_half().0,
            b"let him in",
            &signature
        ));
    }
}
