//! Access tokens: what they claim, how they are signed, and the one strict way to check them.
//!
//! The API server signs and everybody verifies with the code in this file, so that API and relay
//! cannot decide differently about the same bytes. JSON and base64 are the `jsonwebtoken` crate's;
//! the arithmetic is a provider of our own on `ed25519-dalek` with `verify_strict`, because the
//! crate's bundled one takes small-order keys. Times are checked here against a `now` that is
//! handed in: the crate would read the clock and allow a minute.
//!
//! Not here: what was revoked, which the relay hears from the API server and looks up by account, key
//! and agent; and the identity proof in Hello, which makes a stolen native token useless.
//! A token for SLIM has no such proof behind it: SLIM's clients only send a bearer, so whoever has
//! the text can use it until it ends.

use std::{collections::BTreeSet, fmt, str::FromStr, sync::OnceLock};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::ErrorKind,
    jwk::{
        AlgorithmParameters, CommonParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm,
        OctetKeyPairParameters, OctetKeyPairType, PublicKeyUse,
    },
    signature,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::id::{AgentId, RelayKey, Time, TransportKey};

mod slim;

pub use slim::{
    BadPatterns, SLIM_PATTERNS_BYTES_MAX, SLIM_PATTERNS_MAX, SlimPattern, SlimPatterns,
};

/// What a checked token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Whose account pays.
    pub account: AccountId,
    /// For which door the token is, and what that door needs to know.
    pub grant: Grant,
    /// What may be done with it there.
    pub scopes: Scopes,
    /// The API key that it was bought with, if it was bought with one: by it the key's revocation
    /// reaches the token.
    pub key: Option<KeyId>,
    /// The token's own name (`jti`). The identity proof does not refer to it: that signs the hash
    /// of the whole text ([`crate::statement::credential_hash`]).
    pub id: TokenId,
    /// When it was made, in whole seconds.
    pub issued: Time,
    /// From when on it is worth nothing, in whole seconds.
    pub expires: Time,
}

/// The door that a token opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// One agent's native line to one relay.
    Agent {
        /// The relay that may accept it (`aud`).
        relay: RelayKey,
        /// The agent that must prove its identity key in Hello.
        agent: AgentId,
        /// The connection's own key (`cnf`); with another the token is refused.
        transport_key: TransportKey,
    },
    /// Speaking SLIM to one relay, for whoever holds the token: it is bound to no key.
    Slim {
        /// The relay that may accept it (`aud`).
        relay: RelayKey,
        /// The names that may be used (`slim`).
        patterns: SlimPatterns,
    },
    /// Calls to the API server about the account itself.
    Account,
}

/// A single permission. A token with a scope unknown to the reader is refused whole.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Use channels over a relay's native line.
    Relay,
    /// Speak SLIM to a relay.
    Slim,
    /// Read the account, its keys' names, its agents and its usage.
    Account,
    /// Make and revoke API keys, and shut out agents. Of tokens, only sessions opened with the
    /// password have it.
    Keys,
}

/// What a token permits: a set, written as words with a space between (RFC 8693, section 4.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(BTreeSet<Scope>);

/// Who may take a token: the `aud` claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The API server.
    Api,
    /// The relay with this key.
    Relay(RelayKey),
}

/// The name of an account: a version 7 UUID, shown as `acc_` and hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub [u8; 16]);

/// The name of a token: a version 7 UUID, shown as `tok_` and hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 16]);

/// The public part of an API key, by which it is found: eight letters and digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

/// Why a token was refused. The text says what the holder can do and repeats nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Not three parts of canonical base64url with a header that is exactly `alg`, `typ`, `kid`.
    #[error("the token is damaged; ask for a new one")]
    Malformed,
    /// Signed, or said to be, by anything but `EdDSA`.
    #[error("the token is not signed with EdDSA")]
    Algorithm,
    /// The header names a key that is not in the issuer's set: fetch the set again, or refuse.
    #[error("the token's signing key is unknown or retired; ask for a new token")]
    UnknownKey,
    /// The signature does not belong to these bytes.
    #[error("the token's signature is wrong")]
    Signature,
    /// Not from the issuer that this verifier trusts.
    #[error("the token was issued by somebody else")]
    Issuer,
    /// Meant for another relay, or for the API server.
    #[error("the token is for another server; ask for one with this audience")]
    Audience,
    /// Its time is over.
    #[error("the token has expired; ask for a new one")]
    Expired,
    /// Its time has not come: one of the two clocks is wrong.
    #[error("the token is not valid yet; check the clocks")]
    NotYet,
    /// A claim is missing, doubled, of the wrong type, or contradicts another one.
    #[error("the token's claims are not acceptable")]
    Claims,
}

/// Why a signer or verifier could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// Only one cryptography provider fits in a process, and verifying with a foreign one would
    /// mean verifying by other rules.
    #[error("another JWT crypto provider is installed in this process; remove it")]
    ForeignProvider,
    /// The set of public keys cannot be read.
    #[error("this is not a JSON Web Key Set with usable Ed25519 keys")]
    BadKeySet,
}

/// The keys whose signatures count, by `kid`: what a JWKS document holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicKeys(Vec<(String, [u8; 32])>);

/// Signs tokens. Holds the secret key, so it is neither printed nor copied.
pub struct Signer {
    kid: String,
    public: [u8; 32],
    key: EncodingKey,
}

/// Checks tokens for one audience.
#[derive(Debug, Clone)]
pub struct Verifier {
    keys: Vec<(String, DecodingKey)>,
    audience: Audience,
    validation: Validation,
}

impl Verifier {
    /// Trusts these keys for tokens addressed to `audience`.
    pub fn new(audience: Audience, keys: &PublicKeys) -> Result<Self, Misuse> {
        use_our_provider()?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        // The crate reads the clock for these; `check_times` does it with `now`.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
        let keys = keys
            .0
            .iter()
            .map(|(kid, key)| (kid.clone(), DecodingKey::from_ed_der(key)))
            .collect();
        Ok(Self {
            keys,
            audience,
            validation,
        })
    }

    /// Says what the token claims, or why it counts for nothing.
    pub fn verify(&self, jwt: &str, now: Time) -> Result<Claims, Refused> {
        if jwt.len() > TOKEN_BYTES_MAX {
            return Err(Refused::Malformed);
        }
        let key = self.key_of(jwt)?;
        let written = jsonwebtoken::decode::<Written>(jwt, key, &self.validation)
            .map_err(|error| refusal(error.kind()))?
            .claims;
        let not_before = written.nbf;
        let claims = written.read(self.audience)?;
        check_times(&claims, not_before, now)?;
        Ok(claims)
    }

    /// Finds the key that the header names. The header must be exactly what [`Signer`] writes:
    /// `jwk`, `jku`, `x5u`, `crit` and friends ask a verifier to trust the token's own word.
    fn key_of(&self, jwt: &str) -> Result<&DecodingKey, Refused> {
        let header = jsonwebtoken::decode_header(jwt).map_err(|_| Refused::Malformed)?;
        if header.alg != Algorithm::EdDSA {
            return Err(Refused::Algorithm);
        }
        let kid = header.kid.clone().ok_or(Refused::Malformed)?;
        if header != header_for(&kid) {
            return Err(Refused::Malformed);
        }
        self.keys
            .iter()
            .find(|(known, _)| *known == kid)
            .map(|(_, key)| key)
            .ok_or(Refused::UnknownKey)
    }
}

impl Signer {
    /// A signer for this 32-byte Ed25519 seed. Its `kid` is the key's RFC 7638 thumbprint.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, Misuse> {
        use_our_provider()?;
        let public = SigningKey::from_bytes(seed).verifying_key().to_bytes();
        Ok(Self {
            kid: thumbprint(&public),
            public,
            key: EncodingKey::from_ed_der(seed),
        })
    }

    /// The public half, for the JWKS and for verifiers in the same process.
    pub fn public_keys(&self) -> PublicKeys {
        PublicKeys(vec![(self.kid.clone(), self.public)])
    }

    /// The public half as it is.
    pub const fn public_key(&self) -> [u8; 32] {
        self.public
    }

    /// The name of the key in tokens and key sets.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The token as it travels.
    pub fn sign(&self, claims: &Claims) -> String {
        jsonwebtoken::encode(&header_for(&self.kid), &Written::from(claims), &self.key)
            .expect("claims of strings and integers serialise, and a seed always signs")
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

impl PublicKeys {
    /// Reads a JWKS document. Keys of other kinds are passed over, as RFC 7517 asks; an Ed25519
    /// key that is weak, malformed or nameless spoils the set, because somebody meant it to count.
    pub fn from_json(json: &[u8]) -> Result<Self, Misuse> {
        if json.len() > JWKS_BYTES_MAX {
            return Err(Misuse::BadKeySet);
        }
        let set: JwkSet = serde_json::from_slice(json).map_err(|_| Misuse::BadKeySet)?;
        let mut keys: Vec<(String, [u8; 32])> = Vec::new();
        for jwk in set.keys {
            let AlgorithmParameters::OctetKeyPair(pair) = &jwk.algorithm else {
                continue;
            };
            let kid = jwk.common.key_id.ok_or(Misuse::BadKeySet)?;
            let bytes: [u8; 32] = BASE64URL_NOPAD
                .decode(pair.x.as_bytes())
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or(Misuse::BadKeySet)?;
            let sound = VerifyingKey::from_bytes(&bytes).is_ok_and(|key| !key.is_weak());
            if !sound || keys.len() == KEYS_MAX || keys.iter().any(|(known, _)| *known == kid) {
                return Err(Misuse::BadKeySet);
            }
            keys.push((kid, bytes));
        }
        Ok(Self(keys))
    }

    /// The set of one key.
    pub fn of(key: [u8; 32]) -> Result<Self, Misuse> {
        let sound = VerifyingKey::from_bytes(&key).is_ok_and(|key| !key.is_weak());
        let set = Self(vec![(thumbprint(&key), key)]);
        sound.then_some(set).ok_or(Misuse::BadKeySet)
    }

    /// Both sets in one; a key that is in both is in it once.
    #[must_use]
    pub fn with(mut self, others: &Self) -> Self {
        for (kid, key) in &others.0 {
            if !self.0.iter().any(|(known, _)| known == kid) {
                self.0.push((kid.clone(), *key));
            }
        }
        self
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The JWKS document that says the same.
    pub fn to_json(&self) -> String {
        let keys = self
            .0
            .iter()
            .map(|(kid, key)| public_jwk(kid, key))
            .collect();
        serde_json::to_string(&JwkSet { keys }).expect("a key set of strings serialises")
    }
}

impl Claims {
    /// What a token says *without checking anything*: for its own holder, who may want to know
    /// whose it is and when it ends. To sign Hello nobody reads it: the proof covers its text.
    pub fn danger_read_unverified(jwt: &str) -> Result<Self, Refused> {
        if jwt.len() > TOKEN_BYTES_MAX {
            return Err(Refused::Malformed);
        }
        let written: Written = jsonwebtoken::dangerous::insecure_decode_claims(jwt)
            .map_err(|error| refusal(error.kind()))?;
        let audience = written.aud.parse().map_err(|()| Refused::Claims)?;
        written.read(audience)
    }
}

impl Scopes {
    /// Whether this is among them.
    pub fn has(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    /// Everything that can be permitted.
    pub fn all() -> Self {
        Scope::ALL.into()
    }

    /// Whether others permit all of this.
    pub fn is_within(&self, others: &Self) -> bool {
        self.0.is_subset(&others.0)
    }

    /// One after another.
    pub fn iter(&self) -> impl Iterator<Item = Scope> {
        self.0.iter().copied()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        Self(scopes.into_iter().collect())
    }
}

impl<const N: usize> From<[Scope; N]> for Scopes {
    fn from(scopes: [Scope; N]) -> Self {
        Self(scopes.into())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.0.iter().map(|scope| scope.word()).collect();
        f.write_str(&words.join(" "))
    }
}

impl FromStr for Scopes {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut scopes = BTreeSet::new();
        for word in text.split(' ') {
            let scope = Scope::ALL
                .into_iter()
                .find(|scope| scope.word() == word)
                .ok_or(())?;
            if !scopes.insert(scope) {
                return Err(());
            }
        }
        Ok(Self(scopes))
    }
}

impl Scope {
    const ALL: [Self; 4] = [Self::Relay, Self::Slim, Self::Account, Self::Keys];

    const fn word(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Slim => "slim",
            Self::Account => "account",
            Self::Keys => "keys",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api => f.write_str("api"),
            Self::Relay(key) => key.fmt(f),
        }
    }
}

impl FromStr for Audience {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "api" => Ok(Self::Api),
            key => key.parse().map(Self::Relay).map_err(|_| ()),
        }
    }
}

/// Gives a 16-byte id its prefixed text form. A macro, because two types need the same foreign
/// traits.
macro_rules! prefixed_id {
    ($name:ident, $prefix:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), HEXLOWER.encode(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = BadPrefixedId;

            fn from_str(text: &str) -> Result<Self, BadPrefixedId> {
                text.strip_prefix($prefix)
                    .and_then(|hex| HEXLOWER.decode(hex.as_bytes()).ok())
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or(BadPrefixedId($prefix))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

prefixed_id!(AccountId, "acc_");
prefixed_id!(TokenId, "tok_");

impl KeyId {
    /// The letters and digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = BadKeyId;

    fn from_str(text: &str) -> Result<Self, BadKeyId> {
        let fits =
            text.len() == KEY_ID_CHARS && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        fits.then(|| Self(text.to_owned())).ok_or(BadKeyId)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// The text is not the public part of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the {KEY_ID_CHARS} letters and digits of an API key's id")]
pub struct BadKeyId;

/// The text is not an id of the kind that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {0} and 32 lower-case hex digits")]
pub struct BadPrefixedId(&'static str);

/// The claims as JSON has them. Unknown claims are passed over so that both ends can grow; known
/// ones must be there once, with the right type, and never `null`.
#[derive(Serialize, Deserialize)]
struct Written {
    iss: String,
    sub: AccountId,
    aud: String,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    agent: Option<AgentId>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    cnf: Option<Confirmation>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    slim: Option<SlimPatterns>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    key: Option<KeyId>,
    scope: String,
    jti: TokenId,
    iat: u64,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    nbf: Option<u64>,
    exp: u64,
}

/// RFC 7800: the key that the presenter must hold, by its id, which here is the key itself.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    kid: TransportKey,
}

impl Written {
    /// The claims as one of the three grants there are. Anything between them is refused: a token
    /// with `cnf` for the API, one without it for a native line, one with the claims of two doors.
    fn read(self, audience: Audience) -> Result<Claims, Refused> {
        let scopes: Scopes = self.scope.parse().map_err(|()| Refused::Claims)?;
        let is_only = |scope: Scope| scopes == [scope].into();
        let at_relay = scopes.has(Scope::Relay) || scopes.has(Scope::Slim);
        let grant = match (audience, self.agent, self.cnf, self.slim) {
            (Audience::Relay(relay), Some(agent), Some(cnf), None) if is_only(Scope::Relay) => {
                Grant::Agent {
                    relay,
                    agent,
                    transport_key: cnf.kid,
                }
            }
            (Audience::Relay(relay), None, None, Some(patterns)) if is_only(Scope::Slim) => {
                Grant::Slim { relay, patterns }
            }
            (Audience::Api, None, None, None) if !at_relay => Grant::Account,
            (Audience::Relay(_) | Audience::Api, _, _, _) => return Err(Refused::Claims),
        };
        Ok(Claims {
            account: self.sub,
            grant,
            scopes,
            key: self.key,
            id: self.jti,
            issued: from_seconds(self.iat)?,
            expires: from_seconds(self.exp)?,
        })
    }
}

impl From<&Claims> for Written {
    fn from(claims: &Claims) -> Self {
        let (aud, agent, cnf, slim) = match &claims.grant {
            Grant::Agent {
                relay,
                agent,
                transport_key,
            } => {
                let kid = *transport_key;
                let bound = Some(Confirmation { kid });
                (Audience::Relay(*relay), Some(*agent), bound, None)
            }
            Grant::Slim { relay, patterns } => {
                (Audience::Relay(*relay), None, None, Some(patterns.clone()))
            }
            Grant::Account => (Audience::Api, None, None, None),
        };
        Self {
            iss: ISSUER.to_owned(),
            sub: claims.account,
            aud: aud.to_string(),
            agent,
            cnf,
            slim,
            key: claims.key.clone(),
            scope: claims.scopes.to_string(),
            jti: claims.id,
            iat: claims.issued.seconds(),
            nbf: None,
            exp: claims.expires.seconds(),
        }
    }
}

/// An optional claim that is written must have a value: `null` is a wrong type, not an absence.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn from_seconds(seconds: u64) -> Result<Time, Refused> {
    seconds.checked_mul(1000).map(Time).ok_or(Refused::Claims)
}

/// A token lives from `iat` (or `nbf`) to `exp`, at most an hour, and clocks may differ by
/// [`LEEWAY_MS`] either way.
fn check_times(claims: &Claims, not_before: Option<u64>, now: Time) -> Result<(), Refused> {
    let span = claims.expires.since(claims.issued);
    if span == 0 || span > LIFETIME_MS_MAX {
        return Err(Refused::Claims);
    }
    let begins = match not_before {
        Some(seconds) => from_seconds(seconds)?.max(claims.issued),
        None => claims.issued,
    };
    if begins > now.plus(LEEWAY_MS) {
        return Err(Refused::NotYet);
    }
    if now >= claims.expires.plus(LEEWAY_MS) {
        return Err(Refused::Expired);
    }
    Ok(())
}

fn header_for(kid: &str) -> Header {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(kid.to_owned());
    header
}

/// The library's many kinds, as the few that a holder can tell apart.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a foreign, non-exhaustive enum"
)]
fn refusal(kind: &ErrorKind) -> Refused {
    match kind {
        ErrorKind::InvalidSignature => Refused::Signature,
        ErrorKind::InvalidIssuer => Refused::Issuer,
        ErrorKind::InvalidAudience => Refused::Audience,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => Refused::Algorithm,
        ErrorKind::Json(_)
        | ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_) => Refused::Claims,
        _ => Refused::Malformed,
    }
}

fn public_jwk(kid: &str, key: &[u8; 32]) -> Jwk {
    Jwk {
        common: CommonParameters {
            public_key_use: Some(PublicKeyUse::Signature),
            key_algorithm: Some(KeyAlgorithm::EdDSA),
            key_id: Some(kid.to_owned()),
            ..CommonParameters::default()
        },
        algorithm: AlgorithmParameters::OctetKeyPair(OctetKeyPairParameters {
            key_type: OctetKeyPairType::OctetKeyPair,
            curve: EllipticCurve::Ed25519,
            x: BASE64URL_NOPAD.encode(key),
        }),
    }
}

/// RFC 7638: SHA-256 over the required members, in this order and without spaces.
fn thumbprint(key: &[u8; 32]) -> String {
    let canonical = format!(
        r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#,
        BASE64URL_NOPAD.encode(key)
    );
    BASE64URL_NOPAD.encode(&Sha256::digest(canonical.as_bytes()))
}

/// Makes sure that `jsonwebtoken` computes with this file's provider, and says so if it cannot.
fn use_our_provider() -> Result<(), Misuse> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    if *INSTALLED.get_or_init(|| PROVIDER.install_default().is_ok()) {
        Ok(())
    } else {
        Err(Misuse::ForeignProvider)
    }
}

struct StrictVerifier(VerifyingKey);

impl signature::Verifier<Vec<u8>> for StrictVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let signature = Signature::from_slice(signature).map_err(|_| signature::Error::new())?;
        self.0
            .verify_strict(message, &signature)
            .map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for StrictVerifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct SeedSigner(SigningKey);

impl signature::Signer<Vec<u8>> for SeedSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }
}

impl JwtSigner for SeedSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| {
        let seed: Option<Zeroizing<[u8; 32]>> = key.as_bytes().try_into().ok().map(Zeroizing::new);
        match (algorithm, seed) {
            (Algorithm::EdDSA, Some(seed)) => {
                Ok(Box::new(SeedSigner(SigningKey::from_bytes(&seed))))
            }
            _ => Err(ErrorKind::InvalidAlgorithm.into()),
        }
    },
    verifier_factory: |algorithm, key| {
        let bytes: Option<[u8; 32]> = key.try_get_as_bytes()?.try_into().ok();
        match (algorithm, bytes) {
            (Algorithm::EdDSA, Some(bytes)) => VerifyingKey::from_bytes(&bytes)
                .map(|key| Box::new(StrictVerifier(key)) as Box<dyn JwtVerifier>)
                .map_err(|_| ErrorKind::InvalidEddsaKey.into()),
            _ => Err(ErrorKind::InvalidAlgorithm.into()),
        }
    },
    key_utils: KeyUtils::new_unimplemented(),
};

/// Who signs: the `iss` of every token.
pub const ISSUER: &str = "skytale-api";
/// No token lives longer.
pub const LIFETIME_MS_MAX: u64 = 3_600_000;
/// How far the clocks of issuer and verifier may be apart.
pub const LEEWAY_MS: u64 = 5_000;
/// Native ones have about 600 bytes, those for SLIM up to 3,600; longer ones are refused before anything is decoded.
pub const TOKEN_BYTES_MAX: usize = 4_096;

/// Letters and digits of an API key's public part.
pub const KEY_ID_CHARS: usize = 8;

const JWKS_BYTES_MAX: usize = 65_536;
const KEYS_MAX: usize = 16;

#[cfg(test)]
mod tests;
