//! Who we are in SLIM's world, and what others say that they are: tokens made from a secret that
//! all applications share, each naming the key that signs.
//!
//! Whoever has the secret can be anybody. That is SLIM's design for this kind of identity; what a
//! token proves is that its holder has the secret, and which key belongs to the name in it.

use std::fmt;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use openmls_rust_crypto::RustCrypto;
use openmls_traits::{
    crypto::OpenMlsCrypto as _,
    signatures::{Signer, SignerError},
    types::SignatureScheme,
};
use rand::{CryptoRng, RngExt as _, distr::Alphanumeric};
use sha2::Sha256;
use skytale_slim::{Instance, Name};
use zeroize::Zeroizing;

use crate::{Time, id};

/// What all applications of one circle know. At least 32 bytes, as SLIM wants it. Wiped when
/// dropped.
pub struct SharedSecret(Zeroizing<Vec<u8>>);

impl SharedSecret {
    /// Takes a secret as SLIM's clients are given it: its text is the key.
    pub fn new(text: &str) -> Result<Self, BadSecret> {
        if text.len() < SECRET_BYTES_MIN {
            return Err(BadSecret);
        }
        Ok(Self(Zeroizing::new(text.as_bytes().to_vec())))
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes every length");
        mac.update(text.as_bytes());
        mac
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

/// Too short to be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SLIM secret has at least 32 bytes; make one with `openssl rand -hex 32`")]
pub struct BadSecret;

/// Our own identity, new with every [`crate::Party`].
pub(crate) struct Identity {
    secret: SharedSecret,
    subject: String,
    key: SigningKey,
    /// The third field of every token of ours.
    claims: String,
    name: Name,
}

impl Identity {
    pub(crate) fn new(name: &Name, secret: SharedSecret, chance: &mut dyn CryptoRng) -> Self {
        // A colon or a blank would break the token's fields; what a subject says is ours to choose.
        let base: String = name
            .to_string()
            .chars()
            .map(|c| {
                if c == ':' || c.is_whitespace() {
                    '.'
                } else {
                    c
                }
            })
            .collect();
        let suffix: String = (0..SUFFIX_CHARS)
            .map(|_| char::from(chance.sample(Alphanumeric)))
            .collect();
        let subject = format!("{base}_{suffix}");
        let key = SigningKey::generate();
        let claims = serde_json::json!({ "pubkey": BASE64.encode(&key.public) });
        let instance = Instance::Only(id::app_id(&subject));
        Self {
            secret,
            claims: BASE64URL_NOPAD.encode(claims.to_string().as_bytes()),
            name: name.clone().at(instance),
            subject,
            key,
        }
    }

    /// Our name at our instance.
    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }

    pub(crate) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// A fresh token: `subject:seconds:nonce:claims:mac`.
    pub(crate) fn token(&self, now: Time, chance: &mut dyn CryptoRng) -> String {
        let nonce: [u8; NONCE_BYTES] = chance.random();
        let nonce = BASE64URL_NOPAD.encode(&nonce);
        let mut token = format!("{}:{}:{nonce}:{}", self.subject, now.seconds(), self.claims);
        let mac = self.secret.mac(&token).finalize().into_bytes();
        token.push(':');
        token.push_str(&BASE64URL_NOPAD.encode(&mac));
        token
    }

    /// What somebody else's token claims, if it was made with our secret.
    pub(crate) fn check(&self, token: &str, age: Age) -> Result<Claim, BadToken> {
        let (said, mac) = token.rsplit_once(':').ok_or(BadToken)?;
        let mac = BASE64URL_NOPAD
            .decode(mac.as_bytes())
            .map_err(|_| BadToken)?;
        self.secret
            .mac(said)
            .verify_slice(&mac)
            .map_err(|_| BadToken)?;
        let fields: Vec<&str> = said.split(':').collect();
        let [subject, made, _nonce, claims] = fields[..] else {
            return Err(BadToken);
        };
        let made: u64 = made.parse().map_err(|_| BadToken)?;
        if let Age::Fresh(now) = age {
            let now = now.seconds();
            if made > now.saturating_add(AHEAD_S_MAX) || now.saturating_sub(made) > AGE_S_MAX {
                return Err(BadToken);
            }
        }
        let claims = BASE64URL_NOPAD
            .decode(claims.as_bytes())
            .map_err(|_| BadToken)?;
        let claims: serde_json::Value = serde_json::from_slice(&claims).map_err(|_| BadToken)?;
        let key = claims["pubkey"].as_str().ok_or(BadToken)?;
        let key = BASE64.decode(key.as_bytes()).map_err(|_| BadToken)?;
        Ok(Claim {
            instance: id::app_id(subject),
            subject: subject.to_owned(),
            key,
        })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.subject)
    }
}

/// Whether a token's age counts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Age {
    /// It comes with a message, or somebody comes in by it.
    Fresh(Time),
    /// It stands in the group since its holder came.
    Any,
}

/// What a good token says of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) subject: String,
    /// What the holder's name must end in.
    pub(crate) instance: u128,
    /// P-256, uncompressed.
    pub(crate) key: Vec<u8>,
}

impl Claim {
    pub(crate) fn verify(&self, covered: &[u8], signature: &[u8]) -> Result<(), BadToken> {
        RustCrypto::default()
            .verify_signature(SCHEME, covered, &self.key, signature)
            .map_err(|_| BadToken)
    }
}

/// Not made with our secret, too old, or not what a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the identity is not of this circle, or its token is too old")]
pub(crate) struct BadToken;

/// Signs headers, payloads and what MLS signs. Wiped when dropped.
pub(crate) struct SigningKey {
    private: Zeroizing<Vec<u8>>,
    public: Vec<u8>,
}

impl SigningKey {
    fn generate() -> Self {
        // An instance for this one key: its generator is seeded by the system, now.
        let (private, public) = RustCrypto::default()
            .signature_key_gen(SCHEME)
            .expect("P-256 is built in, and the system gives random bytes");
        Self {
            private: Zeroizing::new(private),
            public,
        }
    }

    pub(crate) fn public(&self) -> &[u8] {
        &self.public
    }

    /// In DER, as SLIM and MLS write signatures of this curve.
    pub(crate) fn sign(&self, covered: &[u8]) -> Vec<u8> {
        RustCrypto::default()
            .sign(SCHEME, covered, &self.private)
            .expect("the key was made for this scheme")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

impl Signer for SigningKey {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(Self::sign(self, payload))
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SCHEME
    }
}

const SCHEME: SignatureScheme = SignatureScheme::ECDSA_SECP256R1_SHA256;
const SECRET_BYTES_MIN: usize = 32;
const SUFFIX_CHARS: usize = 8;
const NONCE_BYTES: usize = 12;
/// How old a token may be, and how far its maker's clock may be ahead: SLIM's own bounds.
const AGE_S_MAX: u64 = 3600;
const AHEAD_S_MAX: u64 = 5;

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    const NOW: Time = Time(1_800_000_000_000);

    fn identity(secret: &str) -> (Identity, ChaCha20Rng) {
        let mut chance = ChaCha20Rng::seed_from_u64(7);
        let name = Name::parse("org/ns/alice").unwrap();
        let secret = SharedSecret::new(secret).unwrap();
        (Identity::new(&name, secret, &mut chance), chance)
    }

    #[test]
    fn a_token_says_who_and_with_which_key() {
        let (alice, mut chance) = identity("a secret of more than thirty-two bytes");
        let token = alice.token(NOW, &mut chance);
        let claim = alice.check(&token, Age::Fresh(NOW)).unwrap();
        assert_eq!(claim.subject, alice.subject());
        assert_eq!(claim.key, alice.key().public());
        assert_eq!(
            alice.name().address.instance,
            Instance::Only(claim.instance)
        );
        claim.verify(b"x", &alice.key().sign(b"x")).unwrap();
        assert_eq!(claim.verify(b"y", &alice.key().sign(b"x")), Err(BadToken));
    }

    #[test]
    fn a_token_of_another_circle_is_nobodys() {
        let (alice, mut chance) = identity("a secret of more than thirty-two bytes");
        let (mallory, _) = identity("another secret of more than 32 bytes");
        let token = mallory.token(NOW, &mut chance);
        assert_eq!(alice.check(&token, Age::Any), Err(BadToken));
    }

    #[test]
    fn a_token_ends_and_does_not_begin_in_the_future() {
        let (alice, mut chance) = identity("a secret of more than thirty-two bytes");
        let token = alice.token(NOW, &mut chance);
        let at = |seconds: i64| Age::Fresh(Time(NOW.0.saturating_add_signed(seconds * 1000)));
        assert!(alice.check(&token, at(3600)).is_ok());
        assert_eq!(alice.check(&token, at(3601)), Err(BadToken));
        assert!(alice.check(&token, at(-5)).is_ok());
        assert_eq!(alice.check(&token, at(-6)), Err(BadToken));
        assert!(alice.check(&token, Age::Any).is_ok());
    }

    #[test]
    fn odd_tokens_are_refused() {
        let (alice, mut chance) = identity("a secret of more than thirty-two bytes");
        let token = alice.token(NOW, &mut chance);
        let mut cut = token.clone();
        cut.pop();
        for odd in ["", ":", "::::", "a:b:c:d:e", &cut] {
            assert_eq!(alice.check(odd, Age::Any), Err(BadToken), "{odd}");
        }
    }

    #[test]
    fn secrets_are_long_and_not_shown() {
        assert_eq!(SharedSecret::new(&"x".repeat(31)).unwrap_err(), BadSecret);
        let secret = SharedSecret::new(&"x".repeat(32)).unwrap();
        assert_eq!(format!("{secret:?}"), "SharedSecret(..)");
    }
}
