//! What a backup takes of the API server, also while it runs: the database as of one moment, and the
//! keys that sign tokens.
//!
//! What is in Postgres is not taken here: Postgres has its own ways, which know it better.

use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt as _, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};
use zeroize::Zeroizing;

use crate::{error::Error, signing, store::sqlite};

/// A file of the key directory, with what stands in it.
#[derive(Debug)]
pub struct KeyFile {
    /// Its name in that directory.
    pub name: &'static str,
    /// What it holds, which is secret.
    pub content: Zeroizing<Vec<u8>>,
}

/// Writes the database as of one moment into `to`, which must not be there, readable by its owner
/// only. Nobody who works on the database waits for it.
pub fn copy_database(from: &Path, to: &Path) -> Result<(), Error> {
    let path = to.to_str().ok_or(Error::Misuse(
        "a backup's path must be written in UTF-8: choose another",
    ))?;
    let cannot = |e: io::Error| Error::Unreachable("the database's copy cannot be written", e);
    // SQLite would make the file with the umask's rights; an empty one it takes for its own.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(cannot)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(from, flags).map_err(sqlite::failure)?;
    db.busy_timeout(BUSY_MAX).map_err(sqlite::failure)?;
    db.execute("VACUUM INTO ?1", [path])
        .map_err(sqlite::failure)?;
    Ok(())
}

/// The files of the key directory, between two rotations and never in the middle of one. Nothing when
/// there is no such directory.
pub fn signing_keys(dir: &Path) -> Result<Vec<KeyFile>, Error> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    signing::files(dir)
}

/// A server writes for some milliseconds; only its start may take longer.
const BUSY_MAX: Duration = Duration::from_secs(10);
