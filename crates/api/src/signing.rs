//! The keys that sign tokens, on disk: made on first use, rotated while servers run.
//!
//! Three files, readable by their owner only. `signing.key` signs. `signing.next` will sign from a
//! time on that it names, and is published before, so that relays know it when the first token comes
//! that it has signed. `signing.retired` lists public keys that count until the last of their tokens
//! has ended. Each file appears whole or not at all; a server looks at them every few seconds.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use skytale_wire::{
    id::Time,
    token::{
        Audience, Claims, LEEWAY_MS, LIFETIME_MS_MAX, Misuse, PublicKeys, Refused, Signer, Verifier,
    },
};
use zeroize::Zeroizing;

use crate::{backup::KeyFile, error::Error, secret::random};

/// The signing keys of one directory, as they were last read.
#[derive(Debug)]
pub(crate) struct SigningKeys {
    dir: PathBuf,
    ring: RwLock<Arc<Ring>>,
}

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The name of the new key in tokens and in the key set.
    pub kid: String,
    /// From when on it signs.
    pub signs_from: Time,
    /// Until when tokens of the old one count.
    pub old_counts_until: Time,
}

/// How soon a new key takes the old one's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As soon as every relay knows it; tokens that were bought before live to their end.
    Gentle,
    /// Now, and tokens of the old one count no more: for a key that was stolen.
    AtOnce,
}

#[derive(Debug)]
struct Ring {
    current: Signer,
    next: Option<Next>,
    retired: Vec<Retired>,
    checked_by: RwLock<Option<CheckedBy>>,
}

/// What tokens are checked by from one change of the keys that count to the next.
#[derive(Debug, Clone)]
struct CheckedBy {
    from: Time,
    until: Time,
    verifier: Arc<Verifier>,
}

#[derive(Debug)]
struct Next {
    signer: Signer,
    from: Time,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Retired {
    key: [u8; 32],
    until: Time,
}

impl SigningKeys {
    /// Opens the keys in `dir`, making directory and key if there is none.
    pub(crate) fn open(dir: &Path, now: Time) -> Result<Self, Error> {
        private_dir(dir).map_err(|e| Error::Unreachable("the key directory cannot be made", e))?;
        if !dir.join(CURRENT).exists() {
            create(dir).map_err(cannot_save)?;
        }
        settle(dir, now)?;
        let ring = RwLock::new(Arc::new(Ring::read(dir)?));
        Ok(Self {
            dir: dir.to_owned(),
            ring,
        })
    }

    /// Reads the files again; while they cannot be read, what was read last counts.
    pub(crate) fn reload(&self, now: Time) -> Result<(), Error> {
        settle(&self.dir, now)?;
        let ring = Arc::new(Ring::read(&self.dir)?);
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = ring;
        Ok(())
    }

    /// The token as it travels.
    pub(crate) fn sign(&self, claims: &Claims, now: Time) -> String {
        self.ring().signer(now).sign(claims)
    }

    /// What a token for this server says, or why it counts for nothing.
    pub(crate) fn verify(&self, jwt: &str, now: Time) -> Result<Claims, Refused> {
        self.ring().verifier(now)?.verify(jwt, now)
    }

    /// The keys whose tokens count now, and the one that will sign next.
    pub(crate) fn public(&self, now: Time) -> PublicKeys {
        self.ring().public(now)
    }

    fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Ring {
    /// In this order: a rotation lists a key as retired before it takes its place away.
    fn read(dir: &Path) -> Result<Self, Error> {
        let current = signer(&read_private(&dir.join(CURRENT))?.ok_or(GONE)?)?;
        let next = match read_private(&dir.join(NEXT))? {
            Some(text) => Some(Next::parse(&text)?),
            None => None,
        };
        let retired = read_private(&dir.join(RETIRED))?;
        let retired = retired.map_or(Ok(Vec::new()), |text| Retired::parse(&text))?;
        Ok(Self {
            current,
            next,
            retired,
            checked_by: RwLock::default(),
        })
    }

    /// Made when it is first asked for, and held until a key comes or goes.
    fn verifier(&self, now: Time) -> Result<Arc<Verifier>, Refused> {
        let held = self.checked_by.read();
        let held = held.unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(held) = held.filter(|it| it.from <= now && now < it.until) {
            return Ok(held.verifier);
        }
        let verifier = Verifier::new(Audience::Api, &self.public(now));
        let verifier = Arc::new(verifier.map_err(|_| Refused::UnknownKey)?);
        let made = CheckedBy {
            from: self
                .ends()
                .filter(|end| *end <= now)
                .max()
                .unwrap_or(Time(0)),
            until: self
                .ends()
                .filter(|end| now < *end)
                .min()
                .unwrap_or(Time(u64::MAX)),
            verifier: Arc::clone(&verifier),
        };
        let mut checked_by = self
            .checked_by
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *checked_by = Some(made);
        Ok(verifier)
    }

    /// When keys of [`Self::public`] stop counting. One that will sign counts from the beginning.
    fn ends(&self) -> impl Iterator<Item = Time> {
        let next = self.next.iter().map(|next| ends_after(next.from));
        next.chain(self.retired.iter().map(|it| it.until))
    }

    fn signer(&self, now: Time) -> &Signer {
        match &self.next {
            Some(next) if next.from <= now => &next.signer,
            Some(_) | None => &self.current,
        }
    }

    fn public(&self, now: Time) -> PublicKeys {
        let mut keys = PublicKeys::default();
        if let Some(next) = &self.next {
            if now < ends_after(next.from) {
                keys = keys.with(&self.current.public_keys());
            }
            keys = keys.with(&next.signer.public_keys());
        } else {
            keys = keys.with(&self.current.public_keys());
        }
        for retired in self.retired.iter().filter(|it| now < it.until) {
            if let Ok(key) = PublicKeys::of(retired.key) {
                keys = keys.with(&key);
            }
        }
        keys
    }
}

impl Next {
    fn parse(text: &str) -> Result<Self, Error> {
        let (seed, from) = text.trim_end().split_once(' ').ok_or(DAMAGED)?;
        Ok(Self {
            signer: signer(seed)?,
            from: Time(from.parse().map_err(|_| DAMAGED)?),
        })
    }
}

impl Retired {
    fn parse(text: &str) -> Result<Vec<Self>, Error> {
        let line = |line: &str| {
            let (key, until) = line.split_once(' ')?;
            Some(Self {
                key: *unhex(key)?,
                until: Time(until.parse().ok()?),
            })
        };
        text.lines().map(|it| line(it).ok_or(DAMAGED)).collect()
    }

    fn listed(all: &[Self]) -> String {
        let line = |it: &Self| format!("{} {}\n", *hex(&it.key), it.until.0);
        all.iter().map(line).collect()
    }
}

/// Makes a new key that signs from some time on, and says when. Servers that run on the directory
/// notice it within seconds.
pub fn rotate(dir: &Path, now: Time, pace: Pace) -> Result<Rotated, Error> {
    if !dir.join(CURRENT).exists() {
        return Err(Error::Misuse(
            "there is no API server's signing key in this data directory: name another with \
             --data-dir",
        ));
    }
    let _turn = turn(dir)?;
    settle_in_turn(dir, now)?;
    let ring = Ring::read(dir)?;
    let seed = random::<32>();
    let kid = signer(&hex(&seed))?.kid().to_owned();
    match pace {
        Pace::Gentle => {
            if ring.next.is_some() {
                return Err(Error::Misuse(
                    "a rotation is under way: the new key signs in some minutes; for a key that \
                     was stolen there is --at-once",
                ));
            }
            let from = now.plus(KNOWN_AFTER_MS);
            // The clock of a token stands at whole seconds.
            let from = Time(from.seconds() * 1000);
            let text = Zeroizing::new(format!("{} {}", *hex(&seed), from.0));
            replace(dir, NEXT, text.as_bytes()).map_err(cannot_save)?;
            Ok(Rotated {
                kid,
                signs_from: from,
                old_counts_until: ends_after(from),
            })
        }
        Pace::AtOnce => {
            // First what takes trust away: if this ends in between, the old one is the only one.
            remove(dir, NEXT).map_err(cannot_save)?;
            remove(dir, RETIRED).map_err(cannot_save)?;
            replace(dir, CURRENT, hex(&seed).as_bytes()).map_err(cannot_save)?;
            Ok(Rotated {
                kid,
                signs_from: now,
                old_counts_until: now,
            })
        }
    }
}

/// Every file that is there, read while nobody changes one.
pub(crate) fn files(dir: &Path) -> Result<Vec<KeyFile>, Error> {
    let _turn = turn(dir)?;
    let mut files = Vec::new();
    for name in [CURRENT, NEXT, RETIRED] {
        if let Some(text) = read_private(&dir.join(name))? {
            let content = Zeroizing::new(text.as_bytes().to_vec());
            files.push(KeyFile { name, content });
        }
    }
    Ok(files)
}

/// Puts a key whose time has come in its place, and forgets retired ones whose tokens have ended.
fn settle(dir: &Path, now: Time) -> Result<(), Error> {
    let ring = Ring::read(dir)?;
    let is_due = ring.next.is_some_and(|next| next.from <= now);
    let has_ended = ring.retired.iter().any(|it| it.until <= now);
    if !is_due && !has_ended {
        return Ok(());
    }
    let _turn = turn(dir)?;
    settle_in_turn(dir, now)
}

fn settle_in_turn(dir: &Path, now: Time) -> Result<(), Error> {
    let ring = Ring::read(dir)?;
    let mut retired = ring.retired.clone();
    retired.retain(|it| now < it.until);
    let due = ring.next.as_ref().filter(|next| next.from <= now);
    if let Some(next) = due {
        let until = ends_after(next.from);
        let key = ring.current.public_key();
        retired.retain(|it| it.key != key);
        retired.push(Retired { key, until });
    }
    if retired != ring.retired {
        replace(dir, RETIRED, Retired::listed(&retired).as_bytes()).map_err(cannot_save)?;
    }
    if due.is_some() {
        let text = read_private(&dir.join(NEXT))?.ok_or(GONE)?;
        let seed = text.split(' ').next().unwrap_or_default();
        replace(dir, CURRENT, seed.as_bytes()).map_err(cannot_save)?;
        remove(dir, NEXT).map_err(cannot_save)?;
    }
    Ok(())
}

/// When the last token has ended that was signed before.
fn ends_after(from: Time) -> Time {
    from.plus(LIFETIME_MS_MAX + 2 * LEEWAY_MS)
}

/// One at a time changes the files, of whatever process.
fn turn(dir: &Path) -> Result<File, Error> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(dir.join(TURN));
    let file = file.map_err(cannot_save)?;
    file.lock().map_err(cannot_save)?;
    Ok(file)
}

/// Makes a directory that only its owner can enter, with those above it.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Makes the first key. When two servers start at once both end up with the same one.
fn create(dir: &Path) -> io::Result<()> {
    let draft = draft(dir, CURRENT, hex(&random::<32>()).as_bytes())?;
    // A hard link, unlike a rename, fails when another process was faster: then its key counts.
    let linked = fs::hard_link(&draft, dir.join(CURRENT));
    fs::remove_file(&draft)?;
    File::open(dir)?.sync_all()?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn replace(dir: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let draft = draft(dir, name, text)?;
    fs::rename(&draft, dir.join(name))?;
    File::open(dir)?.sync_all()
}

fn remove(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => File::open(dir)?.sync_all(),
    }
}

fn draft(dir: &Path, name: &str, text: &[u8]) -> io::Result<PathBuf> {
    let nonce = random::<8>();
    let draft = dir.join(format!(".{name}.{}", u64::from_be_bytes(*nonce)));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(text)?;
    file.sync_all()?;
    Ok(draft)
}

/// A file that only its owner can read, if it is there.
fn read_private(path: &Path) -> Result<Option<Zeroizing<String>>, Error> {
    let cannot = |e| Error::Unreachable("the signing key cannot be read", e);
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(cannot)?,
    };
    let mode = file.metadata().map_err(cannot)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Error::Misuse(
            "the signing key is readable by others: replace it, or take their rights away (0600)",
        ));
    }
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX));
    file.take(FILE_BYTES_MAX as u64)
        .read_to_string(&mut text)
        .map_err(|_| DAMAGED)?;
    Ok(Some(text))
}

fn signer(seed: &str) -> Result<Signer, Error> {
    let seed = unhex(seed.trim_end()).ok_or(DAMAGED)?;
    Signer::from_seed(&seed).map_err(|error| match error {
        Misuse::ForeignProvider => {
            Error::Misuse("another JWT crypto provider is installed in this process")
        }
        Misuse::BadKeySet | _ => DAMAGED,
    })
}

fn cannot_save(error: io::Error) -> Error {
    Error::Unreachable("the signing key cannot be saved", error)
}

fn hex(bytes: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(64));
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is below 16"));
        }
    }
    text
}

fn unhex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

const CURRENT: &str = "signing.key";
const NEXT: &str = "signing.next";
const RETIRED: &str = "signing.retired";
const TURN: &str = "signing.turn";
const FILE_BYTES_MAX: usize = 4_096;
/// Relays ask for keys every 40 seconds, and sooner after an error; servers read these files every
/// five.
const KNOWN_AFTER_MS: u64 = 120_000;
const DAMAGED: Error = Error::Damaged("the signing key is damaged: restore it from a backup");
const GONE: Error = Error::Damaged("the signing key is gone: restore it from a backup");

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use skytale_wire::token::{AccountId, Grant, Scope, TokenId};

    use super::*;

    const NOW: Time = Time(1_790_000_000_000);

    fn open(dir: &Path) -> SigningKeys {
        SigningKeys::open(dir, NOW).unwrap()
    }

    fn claims(at: Time) -> Claims {
        Claims {
            account: AccountId([1; 16]),
            grant: Grant::Account,
            scopes: [Scope::Account].into(),
            key: None,
            id: TokenId([2; 16]),
            issued: at,
            expires: at.plus(LIFETIME_MS_MAX),
        }
    }

    #[test]
    fn the_key_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");

        let first = open(&keys).public(NOW);
        let again = open(&keys).public(NOW);

        assert_eq!(first, again);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&keys), 0o700);
        assert_eq!(mode(&keys.join(CURRENT)), 0o600);
        assert_eq!(fs::read_dir(&keys).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_damaged_key_is_reported_and_kept() {
        for name in [CURRENT, NEXT, RETIRED] {
            let dir = tempfile::tempdir().unwrap();
            open(dir.path());
            let path = dir.path().join(name);
            fs::remove_file(dir.path().join(name)).ok();
            let damaged = draft(dir.path(), name, b"not hex").unwrap();
            fs::rename(damaged, &path).unwrap();

            let refused = SigningKeys::open(dir.path(), NOW).unwrap_err();
            assert!(matches!(refused, Error::Damaged(_)), "{name}");
            assert_eq!(fs::read(&path).unwrap(), b"not hex");
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path());
        let path = dir.path().join(CURRENT);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();

        assert!(matches!(
            SigningKeys::open(dir.path(), NOW),
            Err(Error::Misuse(_))
        ));
    }

    #[test]
    fn servers_that_start_together_share_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let keys: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| open(dir.path()).public(NOW)))
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect()
        });

        assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
    }

    /// Whoever has fetched the keys some time before knows the key of every token that it meets.
    #[test]
    fn a_new_key_is_known_before_it_signs_and_the_old_one_while_its_tokens_live() {
        let dir = tempfile::tempdir().unwrap();
        let keys = open(dir.path());
        let old = keys.public(NOW);

        let rotated = rotate(dir.path(), NOW, Pace::Gentle).unwrap();

        keys.reload(NOW).unwrap();
        assert_eq!(keys.public(NOW).count(), 2);
        // What was published in the last minute, the oldest first.
        let mut published = VecDeque::from(vec![old.clone(); 60]);
        let mut last_of_old = keys.sign(&claims(NOW), NOW);
        let end = Time(rotated.old_counts_until.0 + 10_000);
        for at in (NOW.0..end.0).step_by(1_000).map(Time) {
            if at.0 % 5_000 == 0 {
                keys.reload(at).unwrap();
            }
            let token = keys.sign(&claims(at), at);
            published.push_back(keys.public(at));
            let fetched = published.pop_front().unwrap();
            let relay = Verifier::new(Audience::Api, &fetched).unwrap();
            assert!(relay.verify(&token, at).is_ok(), "{at:?}");
            assert!(keys.verify(&token, at).is_ok());
            if at < rotated.signs_from {
                last_of_old = token;
            } else if at.since(rotated.signs_from) < LIFETIME_MS_MAX - 1_000 {
                assert!(keys.verify(&last_of_old, at).is_ok(), "{at:?}");
            }
        }
        keys.reload(end).unwrap();
        assert_eq!(keys.public(end).count(), 1, "the old one is forgotten");
        assert_ne!(keys.public(end), old);
        assert_eq!(
            fs::read_to_string(dir.path().join(RETIRED)).unwrap(),
            "",
            "and its file holds nothing more"
        );
    }

    /// The moments are those between two steps on the disk.
    #[test]
    fn a_rotation_that_ends_halfway_is_finished_by_the_next_look() {
        let dir = tempfile::tempdir().unwrap();
        let keys = open(dir.path());
        let old = keys.ring().current.public_key();
        let rotated = rotate(dir.path(), NOW, Pace::Gentle).unwrap();
        let due = rotated.signs_from;
        // As if it had ended after the old key was listed as retired.
        let until = ends_after(due);
        let listed = Retired::listed(&[Retired { key: old, until }]);
        replace(dir.path(), RETIRED, listed.as_bytes()).unwrap();

        keys.reload(due).unwrap();

        let ring = keys.ring();
        assert_eq!(ring.current.kid(), rotated.kid);
        assert_eq!(ring.retired, [Retired { key: old, until }]);
        assert!(ring.next.is_none());
        // As if it had ended before the next one's file was removed.
        let seed = fs::read_to_string(dir.path().join(CURRENT)).unwrap();
        replace(dir.path(), NEXT, format!("{seed} {}", due.0).as_bytes()).unwrap();
        keys.reload(due).unwrap();
        assert_eq!(keys.ring().current.kid(), rotated.kid);
        assert!(keys.public(due).count() == 2);
    }

    #[test]
    fn a_verifier_is_held_until_a_key_comes_or_goes() {
        let dir = tempfile::tempdir().unwrap();
        let keys = open(dir.path());
        let rotated = rotate(dir.path(), NOW, Pace::Gentle).unwrap();
        keys.reload(NOW).unwrap();
        let ring = keys.ring();
        let end = rotated.old_counts_until;
        let is_same = |one: Time, other: Time| {
            let (one, other) = (ring.verifier(one), ring.verifier(other));
            Arc::ptr_eq(&one.unwrap(), &other.unwrap())
        };

        assert!(is_same(NOW, Time(end.0 - 1)));
        assert!(!is_same(Time(end.0 - 1), end), "the old key ends");
        assert!(is_same(end, end.plus(LIFETIME_MS_MAX)));
        assert!(!is_same(end, NOW), "a clock that is set back");
        // Whatever is held, it is what the keys of that moment say.
        let old = ring.current.sign(&claims(Time(end.0 - 10_000)));
        assert!(keys.verify(&old, Time(end.0 - 1)).is_ok());
        assert_eq!(keys.verify(&old, end), Err(Refused::UnknownKey));
        assert!(keys.verify(&old, Time(end.0 - 1)).is_ok());
    }

    #[test]
    fn a_stolen_key_counts_for_nothing_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let keys = open(dir.path());
        let stolen = keys.sign(&claims(NOW), NOW);
        rotate(dir.path(), NOW, Pace::Gentle).unwrap();
        assert!(matches!(
            rotate(dir.path(), NOW, Pace::Gentle),
            Err(Error::Misuse(_))
        ));

        let rotated = rotate(dir.path(), NOW, Pace::AtOnce).unwrap();

        keys.reload(NOW).unwrap();
        assert_eq!(keys.verify(&stolen, NOW), Err(Refused::UnknownKey));
        assert_eq!(keys.public(NOW).count(), 1);
        assert_eq!(keys.ring().current.kid(), rotated.kid);
        assert!(keys.verify(&keys.sign(&claims(NOW), NOW), NOW).is_ok());
    }
}
