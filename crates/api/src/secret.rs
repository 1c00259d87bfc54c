//! Passwords and API keys: how keys look, how both are hashed, and how hashing is kept from being
//! a way to take the server down.
//!
//! One Argon2id check costs 26 ms and 19 MiB. So a key carries a checksum, and mistyped or made-up
//! ones never get that far; as many checks run at once as there are cores, in memory that is used
//! again (`hash_threads.rs`); few may wait; those that come with the same key at once share one
//! check; and a key that was just checked is remembered, until it is revoked or five minutes have
//! passed. Whether a key is revoked is *not* remembered: callers read
//! that from the store each time.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use argon2::{
    Algorithm, Argon2, Block, Params, PasswordHash, Version,
    password_hash::phc::{Output, ParamsString, Salt},
};
use moka::future::Cache;
use sha2::{Digest as _, Sha256};
use skytale_wire::{
    http::Secret,
    token::{KEY_ID_CHARS, KeyId},
};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

pub(crate) use crate::hash_threads::Busy;
use crate::{
    config::Config,
    error::Error,
    hash_threads::{HashThreads, Memory},
};

/// An API key: `sk_live_` or `sk_test_`, the public id, `_`, the secret, a checksum.
///
/// The underscore after eight characters keeps secret scanners from taking it for a payment
/// provider's key.
pub(crate) struct ApiKey {
    id: KeyId,
    text: Zeroizing<String>,
}

/// Which servers a key is for. The hash covers it, so it cannot be changed afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Made by somebody who signed up.
    Live,
    /// Made by `skytale up` for its own machine.
    Test,
}

/// What a password or key hashes to, as a PHC string.
#[derive(Clone, Eq)]
pub(crate) struct Hashed(String);

/// The text is not an API key: wrong shape, or mistyped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAKey;

/// The one place where Argon2 runs.
pub(crate) struct Hasher {
    argon2: Argon2<'static>,
    threads: HashThreads,
    verified: Cache<KeyId, [u8; 32]>,
    /// Checks of keys that run or wait, by what is checked.
    checks: Cache<[u8; 32], bool>,
    /// Makes remembered digests useless outside this process.
    pepper: Zeroizing<[u8; 32]>,
    /// What is checked when there is nothing to check against, so that both take equally long.
    nobody: Hashed,
    runs: Arc<AtomicU64>,
}

impl Hasher {
    /// Starts the threads, and hashes once to have something to compare strangers with.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let params = Params::new(
            config.danger_argon2_memory_kib,
            config.danger_argon2_passes,
            1,
            None,
        )
        .map_err(|_| Error::Misuse("these Argon2 settings are out of range"))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = hash(&argon2, random::<32>().as_slice(), &mut Memory::new());
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let threads = HashThreads::start(cores, config.hashes_waiting_max)
            .map_err(|e| Error::Unreachable("the threads that hash cannot be started", e))?;
        Ok(Self {
            argon2,
            threads,
            verified: Cache::builder()
                .max_capacity(REMEMBERED_MAX)
                .time_to_live(REMEMBERED_FOR)
                .build(),
            // What has ended is taken out by whoever waited for it; the rest is for those who left.
            checks: Cache::builder()
                .max_capacity(REMEMBERED_MAX)
                .time_to_live(CHECKS_KEPT)
                .build(),
            pepper: random(),
            nobody,
            runs: Arc::default(),
        })
    }

    /// Hashes a new password.
    pub(crate) async fn hash_password(&self, password: &Secret) -> Result<Hashed, Busy> {
        self.hash(password.expose()).await
    }

    /// Hashes a new key.
    pub(crate) async fn hash_key(&self, key: &ApiKey) -> Result<Hashed, Busy> {
        self.hash(&key.text).await
    }

    /// Whether the password belongs to the hash. Without a hash the answer is no, and takes just
    /// as long.
    pub(crate) async fn check_password(
        &self,
        password: &Secret,
        stored: Option<&Hashed>,
    ) -> Result<bool, Busy> {
        self.check(password.expose(), stored).await
    }

    /// Whether the key belongs to the hash; like a password, but familiar ones are quick, and those
    /// who ask for the same at once share the answer: after a restart all agents of an account come
    /// with one key.
    pub(crate) async fn check_key(
        &self,
        key: &ApiKey,
        stored: Option<&Hashed>,
    ) -> Result<bool, Busy> {
        if let Some(stored) = stored
            && self.remembers(key, stored).await
        {
            return Ok(true);
        }
        let what = self.digest(key, stored.unwrap_or(&self.nobody));
        let check = self
            .checks
            .try_get_with(what, self.check_key_now(key, stored));
        let good = check.await.map_err(|busy| *busy);
        self.checks.invalidate(&what).await;
        good
    }

    async fn check_key_now(&self, key: &ApiKey, stored: Option<&Hashed>) -> Result<bool, Busy> {
        // A check of it may have ended between the caller's look and this one.
        if let Some(stored) = stored
            && self.remembers(key, stored).await
        {
            return Ok(true);
        }
        let good = self.check(&key.text, stored).await?;
        if let (true, Some(stored)) = (good, stored) {
            let digest = self.digest(key, stored);
            self.verified.insert(key.id.clone(), digest).await;
        }
        Ok(good)
    }

    /// Whether this very key was checked against this very hash of late.
    pub(crate) async fn remembers(&self, key: &ApiKey, stored: &Hashed) -> bool {
        let known = self.verified.get(&key.id).await;
        known.is_some_and(|known| known.ct_eq(&self.digest(key, stored)).into())
    }

    /// Whether a key of this id was checked of late.
    pub(crate) fn knows(&self, id: &KeyId) -> bool {
        self.verified.contains_key(id)
    }

    /// Drops what is remembered of a key.
    pub(crate) async fn forget(&self, id: &KeyId) {
        self.verified.invalidate(id).await;
    }

    /// How many wait for it, or are in it.
    pub(crate) fn waiting(&self) -> usize {
        self.threads.waiting()
    }

    async fn hash(&self, text: &str) -> Result<Hashed, Busy> {
        let text = Zeroizing::new(text.to_owned());
        self.run(move |argon2, memory| hash(argon2, text.as_bytes(), memory))
            .await
    }

    async fn check(&self, text: &str, stored: Option<&Hashed>) -> Result<bool, Busy> {
        let text = Zeroizing::new(text.to_owned());
        let known = stored.is_some();
        let against = stored.unwrap_or(&self.nobody).clone();
        let good = self
            .run(move |_, memory| belongs(text.as_bytes(), &against, memory))
            .await?;
        Ok(good.unwrap_or_default() && known)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Argon2<'static>, &mut Memory) -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let argon2 = self.argon2.clone();
        let runs = Arc::clone(&self.runs);
        self.threads
            .run(move |memory| {
                runs.fetch_add(1, Ordering::Relaxed);
                work(&argon2, memory)
            })
            .await
    }

    fn digest(&self, key: &ApiKey, stored: &Hashed) -> [u8; 32] {
        // The key's text has a fixed length, so the parts cannot run into each other.
        Sha256::new()
            .chain_update(self.pepper.as_slice())
            .chain_update(key.text.as_bytes())
            .chain_update(stored.0.as_bytes())
            .finalize()
            .into()
    }

    /// How often Argon2 ran for a caller.
    pub(crate) fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    /// Takes every place, as a flood would.
    #[cfg(test)]
    pub(crate) fn occupy(&self) -> tokio::sync::OwnedSemaphorePermit {
        self.threads.occupy()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

impl ApiKey {
    /// A new key with 256 bits of chance in it.
    pub(crate) fn generate(kind: Kind) -> Self {
        let id: KeyId = base62(random::<16>().as_slice(), KEY_ID_CHARS)
            .parse()
            .expect("letters and digits, as many as an id has");
        Self::with_id(kind, id)
    }

    /// As somebody would guess who knows the id.
    #[cfg(test)]
    pub(crate) fn guess(&self) -> Self {
        Self::with_id(Kind::Live, self.id.clone())
    }

    fn with_id(kind: Kind, id: KeyId) -> Self {
        let secret = Zeroizing::new(base62(random::<32>().as_slice(), SECRET_CHARS));
        // Sized once: a growing string would leave pieces of the key behind.
        let mut text = Zeroizing::new(String::with_capacity(KEY_CHARS));
        for part in [kind.prefix(), id.as_str(), "_", &secret] {
            text.push_str(part);
        }
        let checksum = checksum(&text);
        text.push_str(&checksum);
        Self { id, text }
    }

    /// Takes what a caller presents, if its shape and checksum are right.
    pub(crate) fn parse(text: &str) -> Result<Self, NotAKey> {
        let body = [Kind::Live, Kind::Test]
            .into_iter()
            .find_map(|kind| text.strip_prefix(kind.prefix()))
            .ok_or(NotAKey)?;
        let (id, rest) = body.split_once('_').ok_or(NotAKey)?;
        if text.len() != KEY_CHARS || !rest.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(NotAKey);
        }
        let id = id.parse().map_err(|_| NotAKey)?;
        let (said, claim) = text.split_at(KEY_CHARS - CHECKSUM_CHARS);
        if checksum(said) != claim {
            return Err(NotAKey);
        }
        Ok(Self {
            id,
            text: Zeroizing::new(text.to_owned()),
        })
    }

    /// Its public part.
    pub(crate) const fn id(&self) -> &KeyId {
        &self.id
    }

    /// The key, to be shown this once.
    pub(crate) fn show(&self) -> Secret {
        Secret::new(self.text.as_str().to_owned())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({})", self.id)
    }
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Live => "sk_live_",
            Self::Test => "sk_test_",
        }
    }
}

impl Hashed {
    /// What a store gave back.
    pub(crate) const fn from_stored(phc: String) -> Self {
        Self(phc)
    }

    /// A hash that nothing hashes to, for an account without a password.
    pub(crate) const fn of_nothing() -> Self {
        Self(String::new())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Hashed {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl fmt::Debug for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hashed(…)")
    }
}

/// Fresh bytes from the system's generator: the server's one source of chance.
pub(crate) fn random<const N: usize>() -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice()).expect("a system without randomness can keep no secret");
    bytes
}

fn hash(argon2: &Argon2<'_>, text: &[u8], memory: &mut Memory) -> Hashed {
    let salt = random::<16>();
    let params = argon2.params();
    let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
    let hash = grind(argon2, text, salt.as_slice(), length, memory);
    let phc = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(params).expect("three numbers are a short text"),
        salt: Some(Salt::new(salt.as_slice()).expect("16 bytes of salt are in range")),
        hash: Some(hash.expect("16 bytes of salt and a text under 1 KiB are in range")),
    };
    Hashed(phc.to_string())
}

/// Whether the text hashes to this, at the cost that it was hashed at; `None` for what is no hash.
fn belongs(text: &[u8], to: &Hashed, memory: &mut Memory) -> Option<bool> {
    let stored = PasswordHash::new(&to.0).ok()?;
    let (salt, hash) = (stored.salt.as_ref()?, stored.hash.as_ref()?);
    let algorithm = Algorithm::try_from(stored.algorithm.as_str()).ok()?;
    let version = Version::try_from(stored.version?).ok()?;
    let params = Params::try_from(&stored).ok()?;
    let argon2 = Argon2::new(algorithm, version, params);
    let again = grind(&argon2, text, salt, hash.len(), memory)?;
    Some(again.as_bytes().ct_eq(hash.as_bytes()).into())
}

fn grind(
    argon2: &Argon2<'_>,
    text: &[u8],
    salt: &[u8],
    length: usize,
    memory: &mut Memory,
) -> Option<Output> {
    let blocks = argon2.params().block_count();
    if memory.len() < blocks {
        memory.resize(blocks, Block::new());
    }
    let mut bytes = Zeroizing::new(vec![0; length]);
    argon2
        .hash_password_into_with_memory(text, salt, &mut bytes, &mut memory[..blocks])
        .ok()?;
    Output::new(&bytes).ok()
}

/// The lowest `digits` digits of a big-endian number, base 62.
fn base62(bytes: &[u8], digits: usize) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut number = Zeroizing::new(bytes.to_vec());
    let mut text = vec![0; digits];
    for place in text.iter_mut().rev() {
        let mut rest = 0;
        for byte in number.iter_mut() {
            let value = rest * 256 + u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("a digit of the quotient is a byte");
            rest = value % 62;
        }
        *place = ALPHABET[rest as usize];
    }
    String::from_utf8(text).expect("the alphabet is ASCII")
}

fn checksum(text: &str) -> String {
    base62(&crc32(text.as_bytes()).to_be_bytes(), CHECKSUM_CHARS)
}

/// The CRC-32 of Ethernet and zip.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// 62^43 is just over 2^256.
const SECRET_CHARS: usize = 43;
/// 62^6 is over 2^32.
const CHECKSUM_CHARS: usize = 6;
const KEY_CHARS: usize = 8 + KEY_ID_CHARS + 1 + SECRET_CHARS + CHECKSUM_CHARS;
/// Familiar keys; beyond it the least used are forgotten and checked anew.
const REMEMBERED_MAX: u64 = 10_000;
const REMEMBERED_FOR: Duration = Duration::from_mins(5);
const CHECKS_KEPT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn hasher() -> Hasher {
        let mut config = Config::new(Path::new("unused"));
        config.danger_argon2_memory_kib = 64;
        config.danger_argon2_passes = 1;
        Hasher::new(&config).unwrap()
    }

    fn secret_of(key: &ApiKey) -> &str {
        key.text.rsplit('_').next().unwrap()
    }

    #[test]
    fn a_key_has_the_documented_shape() {
        let key = ApiKey::generate(Kind::Live);

        let text = key.show();
        let body = text.expose().strip_prefix("sk_live_").unwrap();
        let (id, rest) = body.split_once('_').unwrap();
        assert_eq!((id.len(), rest.len()), (8, 43 + 6));
        assert_eq!(ApiKey::parse(text.expose()).unwrap().id(), key.id());
        assert_ne!(text.expose(), ApiKey::generate(Kind::Live).show().expose());
    }

    #[test]
    fn every_mistyped_character_is_noticed() {
        let text = ApiKey::generate(Kind::Test).show();
        let text = text.expose();
        for place in 0..text.len() {
            for typo in ['0', 'Z', '_', ' ', 'é'] {
                let mut mistyped: Vec<char> = text.chars().collect();
                if mistyped[place] == typo {
                    continue;
                }
                mistyped[place] = typo;
                let mistyped: String = mistyped.into_iter().collect();
                assert!(ApiKey::parse(&mistyped).is_err(), "{place}");
            }
        }
        assert!(ApiKey::parse("").is_err());
        assert!(ApiKey::parse(&format!("{text}0")).is_err());
        assert!(ApiKey::parse(text.strip_prefix('s').unwrap()).is_err());
    }

    #[test]
    fn numbers_are_written_in_base_62() {
        assert_eq!(base62(&[0], 3), "000");
        assert_eq!(base62(&[61], 2), "0z");
        assert_eq!(base62(&[1, 0], 2), "48");
        assert_eq!(base62(&[255; 32], 43).len(), 43);
        // The check value of the CRC catalogue.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn the_default_hash_is_argon2id_with_the_recommended_cost() {
        let hasher = Hasher::new(&Config::new(Path::new("unused"))).unwrap();

        assert!(
            hasher
                .nobody
                .0
                .starts_with("$argon2id$v=19$m=19456,t=2,p=1$")
        );
    }

    #[tokio::test]
    async fn only_the_right_key_belongs_to_its_hash() {
        let hasher = hasher();
        let key = ApiKey::generate(Kind::Live);
        let stored = hasher.hash_key(&key).await.unwrap();

        assert!(!stored.0.contains(secret_of(&key)));
        assert_eq!(hasher.check_key(&key, Some(&stored)).await, Ok(true));
        let other = ApiKey::generate(Kind::Live);
        assert_eq!(hasher.check_key(&other, Some(&stored)).await, Ok(false));
        assert_eq!(hasher.check_key(&key, None).await, Ok(false));
        assert_eq!(
            hasher.check_key(&key, Some(&Hashed::of_nothing())).await,
            Ok(false)
        );
    }

    #[tokio::test]
    async fn a_familiar_key_is_not_hashed_until_it_is_forgotten() {
        let hasher = hasher();
        let key = ApiKey::generate(Kind::Live);
        let stored = hasher.hash_key(&key).await.unwrap();
        hasher.check_key(&key, Some(&stored)).await.unwrap();
        let before = hasher.runs();

        assert_eq!(hasher.check_key(&key, Some(&stored)).await, Ok(true));
        assert_eq!(hasher.runs(), before);

        hasher.forget(key.id()).await;
        assert_eq!(hasher.check_key(&key, Some(&stored)).await, Ok(true));
        assert_eq!(hasher.runs(), before + 1);
    }

    #[tokio::test]
    async fn those_who_come_at_once_with_one_key_share_a_hash() {
        let hasher = Arc::new(hasher());
        let (key, wrong) = (ApiKey::generate(Kind::Live), ApiKey::generate(Kind::Live));
        let stored = hasher.hash_key(&key).await.unwrap();

        for (key, good, hashed) in [(&key, true, 1..=1), (&wrong, false, 1..=100)] {
            let before = hasher.runs();
            // Far more than may wait, were each a hash of its own.
            let mut answers = tokio::task::JoinSet::new();
            for _ in 0..100 {
                let (hasher, stored) = (Arc::clone(&hasher), stored.clone());
                let key = ApiKey::parse(&key.text).unwrap();
                answers.spawn(async move { hasher.check_key(&key, Some(&stored)).await });
            }

            let answers = answers.join_all().await;

            assert!(answers.iter().all(|answer| *answer == Ok(good)));
            // A good one is remembered, so whoever comes late finds it; a wrong one is not.
            assert!(hashed.contains(&(hasher.runs() - before)));
        }
    }

    #[tokio::test]
    async fn a_familiar_id_with_another_secret_is_hashed_and_refused() {
        let hasher = hasher();
        let key = ApiKey::generate(Kind::Live);
        let stored = hasher.hash_key(&key).await.unwrap();
        hasher.check_key(&key, Some(&stored)).await.unwrap();
        let guess = ApiKey {
            id: key.id.clone(),
            text: ApiKey::generate(Kind::Live).text,
        };

        assert_eq!(hasher.check_key(&guess, Some(&stored)).await, Ok(false));
    }

    #[tokio::test]
    async fn a_full_pool_refuses_at_once() {
        let hasher = hasher();
        let flood = hasher.occupy();

        let refused = hasher
            .check_password(&Secret::new("guess".into()), None)
            .await;

        assert_eq!(refused, Err(Busy));
        drop(flood);
        assert!(
            hasher
                .check_password(&Secret::new("guess".into()), None)
                .await
                .is_ok()
        );
    }

    #[test]
    fn nothing_secret_is_printed() {
        let key = ApiKey::generate(Kind::Live);
        let hasher = hasher();

        let printed = format!("{key:?} {hasher:?} {:?}", hasher.nobody);

        assert!(!printed.contains(secret_of(&key)));
        assert!(!printed.contains("argon2id"));
    }
}
