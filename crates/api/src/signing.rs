//! The key that signs tokens, on disk: made on first use, never overwritten.
//!
//! One file of 64 hex digits, readable by its owner only. It appears whole or not at all, and when
//! two servers start at once both end up with the same one. Rotation is not here yet; the file's
//! name leaves room for a second key.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use skytale_wire::token::Signer;
use zeroize::Zeroizing;

use crate::{error::Error, secret::random};

/// Opens the signing key in `dir`, making both if there is none.
pub(crate) fn open_or_create(dir: &Path) -> Result<Signer, Error> {
    private_dir(dir).map_err(|e| Error::Unreachable("the key directory cannot be made", e))?;
    let path = dir.join(FILE);
    if !path.exists() {
        create(dir, &path).map_err(|e| Error::Unreachable("the signing key cannot be saved", e))?;
    }
    let seed = read(&path)?;
    Signer::from_seed(&seed)
        .map_err(|_| Error::Misuse("another JWT crypto provider is installed in this process"))
}

/// Makes a directory that only its owner can enter, with those above it.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn create(dir: &Path, path: &Path) -> io::Result<()> {
    let nonce = random::<8>();
    let draft = dir.join(format!(".{FILE}.{}", u64::from_be_bytes(*nonce)));
    let text = hex(&random::<32>());
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // A hard link, unlike a rename, fails when another process was faster: then its key counts.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    File::open(dir)?.sync_all()?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn read(path: &Path) -> Result<Zeroizing<[u8; 32]>, Error> {
    let cannot = |e| Error::Unreachable("the signing key cannot be read", e);
    let file = File::open(path).map_err(cannot)?;
    let mode = file.metadata().map_err(cannot)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Error::Misuse(
            "the signing key is readable by others: replace it, or take their rights away (0600)",
        ));
    }
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX));
    file.take(FILE_BYTES_MAX as u64)
        .read_to_string(&mut text)
        .map_err(cannot)?;
    unhex(text.trim_end()).ok_or(Error::Damaged(
        "the signing key is damaged: restore it from a backup",
    ))
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

const FILE: &str = "signing.key";
const FILE_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");

        let first = open_or_create(&keys).unwrap().public_keys();
        let again = open_or_create(&keys).unwrap().public_keys();

        assert_eq!(first, again);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&keys), 0o700);
        assert_eq!(mode(&keys.join(FILE)), 0o600);
        assert_eq!(fs::read_dir(&keys).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_damaged_key_is_reported_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        open_or_create(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        fs::write(&path, "not hex").unwrap();

        assert!(matches!(open_or_create(dir.path()), Err(Error::Damaged(_))));
        assert_eq!(fs::read(&path).unwrap(), b"not hex");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        open_or_create(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();

        assert!(matches!(open_or_create(dir.path()), Err(Error::Misuse(_))));
    }

    #[test]
    fn servers_that_start_together_share_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let keys: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| open_or_create(dir.path()).unwrap().public_keys()))
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect()
        });

        assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
    }
}
