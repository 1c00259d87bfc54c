//! The agent's database file: encrypted with SQLCipher, private to its owner, and held by one mind.
//!
//! What stands in the tables is `skytale-agent`'s matter. Nothing here ever opens `vault.db` as a
//! plain file: closing any descriptor of it would drop the locks that SQLite holds in this process.

use std::{
    fmt, fs,
    fs::TryLockError,
    io,
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use data_encoding::HEXLOWER_PERMISSIVE;
use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig, ffi};
use zeroize::Zeroizing;

use crate::{
    config::{Config, private_dir, unreadable},
    error::Error,
};

/// What opens a vault. Wiped on drop, not shown, not copied.
pub struct VaultKey(Kind);

enum Kind {
    /// 32 random bytes, used as they are.
    Raw(Zeroizing<[u8; 32]>),
    /// SQLCipher stretches it, which costs about a quarter of a second for each connection.
    Passphrase(Zeroizing<String>),
}

impl VaultKey {
    /// 32 bytes of good randomness.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Kind::Raw(Zeroizing::new(bytes)))
    }

    /// 64 hex digits, as they stand in `SKYTALE_VAULT_KEY` and in the key file.
    pub fn from_hex(text: &str) -> Result<Self, Error> {
        let mut key = Zeroizing::new([0; 32]);
        let text = text.trim().as_bytes();
        let full = HEXLOWER_PERMISSIVE.decode_len(text.len()) == Ok(key.len());
        if !full || HEXLOWER_PERMISSIVE.decode_mut(text, key.as_mut()).is_err() {
            return Err(Error::misuse(
                "a vault key is 64 hex digits (32 random bytes): `openssl rand -hex 32` makes one",
            ));
        }
        Ok(Self(Kind::Raw(key)))
    }

    /// Something that people remember. A random key is stronger and faster.
    pub fn passphrase(text: Zeroizing<String>) -> Result<Self, Error> {
        if text.is_empty() || text.contains('\0') {
            return Err(Error::misuse(
                "a passphrase is not empty and holds no zero character",
            ));
        }
        Ok(Self(Kind::Passphrase(text)))
    }

    /// The statement that unlocks a connection.
    fn pragma(&self) -> Zeroizing<String> {
        Zeroizing::new(match &self.0 {
            Kind::Raw(key) => {
                let hex = Zeroizing::new(HEXLOWER_PERMISSIVE.encode(key.as_slice()));
                format!("PRAGMA key = \"x'{}'\"", *hex)
            }
            Kind::Passphrase(text) => {
                format!(
                    "PRAGMA key = '{}'",
                    *Zeroizing::new(text.replace('\'', "''"))
                )
            }
        })
    }
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VaultKey(…)")
    }
}

/// One agent's directory and the key to it.
#[derive(Debug)]
pub(crate) struct Vault {
    dir: PathBuf,
    key: VaultKey,
    turn: Mutex<()>,
}

impl Vault {
    /// Makes the directory and finds the key: handed in, from the environment, or from the key
    /// file, which is made when there is neither a key nor a vault yet.
    pub(crate) fn prepare(config: &mut Config, name: &str) -> Result<Self, Error> {
        let dir = config.agent_dir(name)?;
        let key = match config.vault_key.take() {
            Some(key) => key,
            None => key_from_file(&config.config_dir, dir.join(DATABASE).exists())?,
        };
        Self::at(dir, key)
    }

    pub(crate) fn at(dir: PathBuf, key: VaultKey) -> Result<Self, Error> {
        private_dir(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))
            .map_err(|error| unreadable("the agent's directory", &error))?;
        Ok(Self {
            dir,
            key,
            turn: Mutex::new(()),
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Held around each write transaction of this process. SQLite would make its threads wait for
    /// each other too, but by sleeping and looking again, for milliseconds.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file whose lock makes a process the mind.
    pub(crate) fn lock_file(&self) -> Result<LockFile, Error> {
        LockFile::at(&self.dir.join("vault.lock"))
    }

    /// Makes the database when there is none. Only the holder of the lock may call this.
    ///
    /// It is finished beside its place and then renamed: an empty `vault.db` is never ours, but one
    /// that was cut off, and is not silently taken for a new agent.
    pub(crate) fn create_if_missing(&self, _proof: &Held) -> Result<(), Error> {
        if fs::metadata(self.dir.join(DATABASE)).is_ok() {
            return Ok(());
        }
        if len(&self.dir.join("vault.db-wal")) > 0 {
            return Err(Error::damaged(
                "vault.db is missing beside its log vault.db-wal: put it back from where it was moved",
            ));
        }
        let beside = self.dir.join("vault.new");
        let make = || -> Result<(), Error> {
            match fs::remove_file(&beside) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unreadable("the agent's directory", &error)),
            }
            drop(private_file(&beside)?);
            let conn = self.keyed(&beside)?;
            // Any write makes SQLCipher lay down its first page, with the salt in it.
            conn.execute_batch(
                "CREATE TABLE first_page (none INTEGER) STRICT; DROP TABLE first_page",
            )?;
            conn.close().map_err(|(_, error)| error)?;
            fs::rename(&beside, self.dir.join(DATABASE))
                .and_then(|()| fs::File::open(&self.dir)?.sync_all())
                .map_err(|error| unreadable("the agent's directory", &error))
        };
        make()
    }

    /// A new vault below `dir`.
    #[cfg(test)]
    pub(crate) fn new_in(dir: &Path) -> Self {
        let vault = Self::at(dir.join("agents/alice"), VaultKey::from_bytes([1; 32])).unwrap();
        let mut lock = vault.lock_file().unwrap();
        vault
            .create_if_missing(&lock.try_hold().unwrap().unwrap())
            .unwrap();
        vault
    }

    /// Whether there is a database to connect to.
    pub(crate) fn exists(&self) -> bool {
        fs::metadata(self.dir.join(DATABASE)).is_ok()
    }

    /// A connection with every setting in effect, or an error and nothing changed.
    pub(crate) fn connect(&self) -> Result<Connection, Error> {
        let path = self.dir.join(DATABASE);
        if len(&path) == 0 {
            return Err(Error::damaged(
                "vault.db is empty: it was cut off. Remove the agent's directory to begin as a new agent",
            ));
        }
        let conn = self.keyed(&path)?;
        match conn.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())) {
            Ok(()) => {}
            Err(error) if is_busy(&error) => return Err(busy()),
            Err(error) => {
                drop(conn);
                return Err(wrong_key_or_damaged(&path, &error));
            }
        }
        settle(&conn)?;
        Ok(conn)
    }

    /// Opens a file that exists and hands SQLCipher the key, which by itself never fails.
    fn keyed(&self, path: &Path) -> Result<Connection, Error> {
        if rusqlite::version_number() < OLDEST_SQLITE {
            return Err(Error::misuse(
                "this program was linked with an SQLite older than 3.51.3, which can corrupt vaults",
            ));
        }
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .map_err(|_| Error::damaged("vault.db cannot be opened: check its permissions"))?;
        conn.busy_timeout(BUSY_MAX)?;
        // The error's text would repeat the statement, and with it the key.
        conn.execute_batch("PRAGMA cipher_log_level = NONE")
            .and_then(|()| conn.execute_batch(&self.key.pragma()))
            .and_then(|()| conn.execute_batch("PRAGMA cipher_log_level = NONE"))
            .map_err(|_| Error::damaged("the vault key was not accepted by SQLCipher"))?;
        Ok(conn)
    }
}

/// Sets what every connection needs, and reads it back: a PRAGMA that is misspelt or not
/// supported does nothing and says nothing.
fn settle(conn: &Connection) -> Result<(), Error> {
    // Where a partial index may serve, SQLite prepares a statement anew whenever a value that is
    // bound to it changes, which cost a reader more than everything else. One plan will do.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    conn.execute_batch(
        "PRAGMA cipher_memory_security = ON;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA secure_delete = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA foreign_keys = ON;",
    )
    .map_err(|error| {
        if is_busy(&error) {
            busy()
        } else {
            error.into()
        }
    })?;
    for (name, wanted) in [
        ("cipher_memory_security", "1"),
        ("journal_mode", "wal"),
        ("synchronous", "2"),
        ("secure_delete", "1"),
        ("temp_store", "2"),
        ("foreign_keys", "1"),
        ("busy_timeout", "5000"),
    ] {
        if read_pragma(conn, name)? != wanted {
            return Err(Error::damaged(format!(
                "the vault does not take the setting {name} = {wanted}: is this program linked with SQLCipher?"
            )));
        }
    }
    Ok(())
}

/// A PRAGMA's value as text, whichever type it has.
fn read_pragma(conn: &Connection, name: &str) -> Result<String, Error> {
    Ok(conn.pragma_query_value(None, name, |row| {
        Ok(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            rusqlite::types::ValueRef::Null
            | rusqlite::types::ValueRef::Real(_)
            | rusqlite::types::ValueRef::Blob(_) => String::new(),
        })
    })?)
}

/// Empties the write-ahead log, where deleted secrets still stand. `false` while a reader is in the
/// middle of something: then it has to be called again.
///
/// It does not wait for readers, because the mind's thread must go on.
pub(crate) fn checkpoint(conn: &Connection) -> Result<bool, Error> {
    conn.busy_timeout(Duration::ZERO)?;
    let blocked = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        row.get::<_, bool>(0)
    });
    conn.busy_timeout(BUSY_MAX)?;
    match blocked {
        Ok(blocked) => Ok(!blocked),
        Err(error) if is_busy(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A number that changes when another connection has written.
pub(crate) fn data_version(conn: &Connection) -> Result<i64, Error> {
    Ok(conn
        .prepare_cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))?)
}

/// A file that at most one process holds, and that names it.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: fs::File,
}

/// Shows that the lock is held, for as long as the file is open.
#[derive(Debug)]
pub(crate) struct Held(());

impl LockFile {
    pub(crate) fn at(path: &Path) -> Result<Self, Error> {
        let file = private_file(path)?;
        Ok(Self { file })
    }

    /// Takes the lock if nobody has it. Dropping the file gives it back; so does the end of the
    /// process, however it ends.
    pub(crate) fn try_hold(&mut self) -> Result<Option<Held>, Error> {
        match self.file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(unreadable("the lock file", &error)),
        }
        let pid = std::process::id().to_string();
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .and_then(|()| self.file.write_all(pid.as_bytes()))
            .map_err(|error| unreadable("the lock file", &error))?;
        Ok(Some(Held(())))
    }

    /// The process that wrote itself into the file, for messages: it may have ended since.
    pub(crate) fn holder(&mut self) -> Option<u32> {
        let mut text = String::new();
        self.file.rewind().ok()?;
        (&mut self.file)
            .take(PID_CHARS_MAX)
            .read_to_string(&mut text)
            .ok()?;
        text.trim().parse().ok()
    }
}

/// The key file's content; made on first use, and never when a vault is there that needs another.
fn key_from_file(config_dir: &Path, vault_exists: bool) -> Result<VaultKey, Error> {
    let path = config_dir.join(KEY_FILE);
    if let Some(key) = read_key_file(&path)? {
        return Ok(key);
    }
    if vault_exists {
        return Err(Error::misuse(
            "this agent's vault is there, but its key is not: put vault.key back into the configuration directory, or set SKYTALE_VAULT_KEY or SKYTALE_VAULT_KEY_FILE",
        ));
    }
    private_dir(config_dir)?;
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice()).expect("the operating system gives random bytes");
    let hex = Zeroizing::new(HEXLOWER_PERMISSIVE.encode(bytes.as_slice()));
    // Linked into place, so that of two that begin together, in one process or in two, one wins and
    // both read it.
    let turn = KEY_FILES.fetch_add(1, Ordering::Relaxed);
    let beside = config_dir.join(format!("vault.key.{}.{turn}", std::process::id()));
    let write = || -> io::Result<bool> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(hex.as_bytes())?;
        file.sync_all()?;
        let made = match fs::hard_link(&beside, &path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error),
        };
        fs::remove_file(&beside)?;
        fs::File::open(config_dir)?.sync_all()?;
        Ok(made)
    };
    if write().map_err(|error| unreadable("the vault's key file", &error))? {
        tracing::info!(
            file = %path.display(),
            "made the key that encrypts this machine's vaults: keep a copy of the file"
        );
    }
    read_key_file(&path)?.ok_or_else(|| Error::misuse("the vault's key file was taken away"))
}

fn read_key_file(path: &Path) -> Result<Option<VaultKey>, Error> {
    match fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => {
            let mode = fs::metadata(path)
                .map_err(|error| unreadable("the vault's key file", &error))?
                .permissions()
                .mode();
            if mode & 0o077 != 0 {
                return Err(Error::misuse(
                    "the vault's key file can be read by others: `chmod 600` it, and if they may have read it, make a new agent",
                ));
            }
            VaultKey::from_hex(&text).map(Some)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable("the vault's key file", &error)),
    }
}

/// Error 26 has two causes, and a file that was never encrypted is a third one. Asked through
/// SQLite, not by reading the file: see the head of this module.
fn wrong_key_or_damaged(path: &Path, error: &rusqlite::Error) -> Error {
    let plain = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|conn| conn.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())))
        .is_ok();
    Error::damaged(if plain {
        "vault.db is a database that is not encrypted, so it is not a vault: move it away, and the agent begins anew, with another identity"
    } else if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) {
        "wrong vault key, or vault.db is damaged: check SKYTALE_VAULT_KEY or the key file, else move it away, and the agent begins anew, with another identity"
    } else {
        "vault.db is damaged: move it away, and the agent begins anew, with another identity"
    })
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error().map(|error| error.extended_code & 0xff),
        Some(ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED)
    )
}

fn busy() -> Error {
    Error::unreachable("the vault is busy: another process of this agent keeps it locked")
}

/// Opens for reading and writing what only its owner may read, making it when it is not there.
fn private_file(path: &Path) -> Result<fs::File, Error> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| unreadable("a file of the agent's directory", &error))
}

fn len(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

const DATABASE: &str = "vault.db";
const KEY_FILE: &str = "vault.key";
/// Tells apart the files that several agents of one process begin at once.
static KEY_FILES: AtomicU64 = AtomicU64::new(0);
/// 3.51.3: below it, resetting the write-ahead log could corrupt the database.
const OLDEST_SQLITE: i32 = 3_051_003;
/// How long a statement waits for another process's write. Steps take milliseconds.
const BUSY_MAX: Duration = Duration::from_secs(5);
const PID_CHARS_MAX: u64 = 10;
/// Prepared ones that a connection keeps: a step of the mind has more than the sixteen that are usual.
const STATEMENTS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    fn vault(dir: &Path, key: u8) -> Vault {
        Vault::at(dir.join("agents/alice"), VaultKey::from_bytes([key; 32])).unwrap()
    }

    /// A vault with one table in it, closed again.
    fn filled(dir: &Path) -> Vault {
        let vault = Vault::new_in(dir);
        let conn = vault.connect().unwrap();
        conn.execute_batch(
            "CREATE TABLE t (v TEXT NOT NULL) STRICT; INSERT INTO t VALUES ('kept')",
        )
        .unwrap();
        vault
    }

    fn kept(vault: &Vault) -> String {
        let conn = vault.connect().unwrap();
        conn.query_row("SELECT v FROM t", [], |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn a_statement_is_prepared_once_whatever_is_bound_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let vault = filled(dir.path());
        let conn = vault.connect().unwrap();
        conn.execute_batch("CREATE INDEX some ON t (v) WHERE v = 'kept'")
            .unwrap();
        let mut statement = conn.prepare("SELECT v FROM t WHERE v = ?1").unwrap();
        for value in ["kept", "other", "kept"] {
            let _ = statement.query_row([value], |_| Ok(()));
        }
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }

    fn damaged(result: Result<Connection, Error>) -> String {
        match result {
            Err(Error::Damaged(text)) => text,
            other => panic!("expected damage, got {other:?}"),
        }
    }

    #[test]
    fn a_wrong_key_is_refused_and_overwrites_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let right = filled(dir.path());
        let before = fs::read(right.dir().join(DATABASE)).unwrap();

        let text = damaged(vault(dir.path(), 2).connect());

        assert!(text.contains("wrong vault key"), "{text}");
        assert_eq!(fs::read(right.dir().join(DATABASE)).unwrap(), before);
        assert_eq!(kept(&right), "kept");
    }

    #[test]
    fn a_wrong_key_leaves_the_log_of_a_crashed_process_whole() {
        let dir = tempfile::tempdir().unwrap();
        let right = filled(dir.path());
        let conn = right.connect().unwrap();
        conn.execute_batch("INSERT INTO t VALUES ('only in the log')")
            .unwrap();
        // What is on disk at this moment is what a killed process leaves.
        let crashed = tempfile::tempdir().unwrap();
        let copy = vault(crashed.path(), 1);
        for file in ["vault.db", "vault.db-wal"] {
            fs::copy(right.dir().join(file), copy.dir().join(file)).unwrap();
        }

        damaged(vault(crashed.path(), 2).connect());

        let count: u32 = copy
            .connect()
            .unwrap()
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 2);
    }

    #[test]
    fn a_plain_database_is_named_as_such_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(dir.path(), 1);
        let path = vault.dir().join(DATABASE);
        let plain = Connection::open(&path).unwrap();
        plain.execute_batch("CREATE TABLE t (v TEXT)").unwrap();
        drop(plain);
        let before = fs::read(&path).unwrap();

        let text = damaged(vault.connect());

        assert!(text.contains("not encrypted"), "{text}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_database_that_was_cut_off_is_not_taken_for_a_new_one() {
        for keep in [0, 100, 4096, 5000] {
            let dir = tempfile::tempdir().unwrap();
            let vault = filled(dir.path());
            let path = vault.dir().join(DATABASE);
            let whole = fs::read(&path).unwrap();
            assert!(whole.len() > keep);
            fs::write(&path, &whole[..keep]).unwrap();

            let mut lock = vault.lock_file().unwrap();
            vault
                .create_if_missing(&lock.try_hold().unwrap().unwrap())
                .unwrap();
            // A cut in the middle of a later page shows when that page is read.
            let read = vault.connect().and_then(|conn| {
                conn.query_row("SELECT v FROM t", [], |_| Ok(()))?;
                Ok(conn)
            });
            damaged(read);

            assert_eq!(fs::read(&path).unwrap(), whole[..keep], "kept {keep}");
        }
    }

    #[test]
    fn a_log_without_its_database_is_not_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(dir.path(), 1);
        let wal = vault.dir().join("vault.db-wal");
        fs::write(&wal, b"what the database did not have yet").unwrap();
        let mut lock = vault.lock_file().unwrap();
        let held = lock.try_hold().unwrap().unwrap();

        let error = vault.create_if_missing(&held).unwrap_err();

        assert!(error.to_string().contains("vault.db-wal"), "{error}");
        assert_eq!(len(&wal), 34);
        assert!(!vault.exists());
    }

    #[test]
    fn garbage_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(dir.path(), 1);
        fs::write(vault.dir().join(DATABASE), [0x5A; 9000]).unwrap();

        damaged(vault.connect());
    }

    #[test]
    fn only_the_owner_can_read_any_file_and_nothing_is_plain() {
        let dir = tempfile::tempdir().unwrap();
        let vault = filled(dir.path());
        let conn = vault.connect().unwrap();
        conn.execute_batch("INSERT INTO t VALUES ('a needle that must not be found')")
            .unwrap();

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(vault.dir()), 0o700);
        let mut files = 0;
        for entry in fs::read_dir(vault.dir()).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            let bytes = fs::read(&path).unwrap();
            assert!(!bytes.windows(8).any(|part| part == b"a needle"));
            assert!(!bytes.starts_with(b"SQLite format 3"));
            files += 1;
        }
        assert_eq!(files, 4, "database, log, its index and the lock");
    }

    #[test]
    fn a_directory_that_others_could_read_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("agents/alice");
        fs::create_dir_all(&agent).unwrap();
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();

        vault(dir.path(), 1);

        assert_eq!(
            fs::metadata(&agent).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }

    #[test]
    fn every_connection_has_the_settings_that_it_needs() {
        let dir = tempfile::tempdir().unwrap();
        let conn = filled(dir.path()).connect().unwrap();

        // `settle` read the values back; here are two of their effects.
        conn.execute_batch(
            "CREATE TABLE parent (id INTEGER PRIMARY KEY) STRICT;
             CREATE TABLE child (id INTEGER REFERENCES parent (id)) STRICT;",
        )
        .unwrap();
        assert!(conn.execute("INSERT INTO child VALUES (7)", []).is_err());
        assert_eq!(read_pragma(&conn, "journal_mode").unwrap(), "wal");
        assert!(
            read_pragma(&conn, "cipher_version")
                .unwrap()
                .starts_with('4')
        );
    }

    #[test]
    fn a_setting_that_does_not_hold_is_noticed() {
        // In memory there is no write-ahead log, whatever is asked for.
        let conn = Connection::open_in_memory().unwrap();

        assert!(matches!(settle(&conn), Err(Error::Damaged(_))));
    }

    #[test]
    fn the_log_is_emptied_unless_somebody_is_reading() {
        let dir = tempfile::tempdir().unwrap();
        let vault = filled(dir.path());
        let (writer, reader) = (vault.connect().unwrap(), vault.connect().unwrap());
        let wal = vault.dir().join("vault.db-wal");
        reader
            .execute_batch("BEGIN; SELECT count(*) FROM t")
            .unwrap();
        writer.execute_batch("DELETE FROM t").unwrap();

        assert!(!checkpoint(&writer).unwrap());
        assert!(fs::metadata(&wal).unwrap().len() > 0);
        reader.execute_batch("COMMIT").unwrap();
        assert!(checkpoint(&writer).unwrap());
        assert_eq!(fs::metadata(&wal).unwrap().len(), 0);
        assert_eq!(read_pragma(&writer, "busy_timeout").unwrap(), "5000");
    }

    #[test]
    fn one_holds_the_lock_and_the_others_learn_who() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(dir.path(), 1);
        let mut first = vault.lock_file().unwrap();
        let mut second = vault.lock_file().unwrap();

        assert!(first.try_hold().unwrap().is_some());
        assert!(second.try_hold().unwrap().is_none());
        assert_eq!(second.holder(), Some(std::process::id()));
        drop(first);
        assert!(second.try_hold().unwrap().is_some());
    }

    #[test]
    fn the_key_file_is_made_once_privately_and_not_beside_a_vault() {
        let dir = tempfile::tempdir().unwrap();

        let first = key_from_file(dir.path(), false).unwrap();
        let second = key_from_file(dir.path(), true).unwrap();

        assert_eq!(*first.pragma(), *second.pragma());
        let path = dir.path().join(KEY_FILE);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::remove_file(&path).unwrap();
        let error = key_from_file(dir.path(), true).unwrap_err();
        assert!(error.to_string().contains("put vault.key back"), "{error}");
        assert!(!path.exists());
    }

    /// Of several agents of one program that were opened at once in a new directory, one failed now
    /// and then: they made the key beside its place under the same name.
    #[test]
    fn agents_that_begin_together_share_the_key() {
        for _ in 0..50 {
            let dir = tempfile::tempdir().unwrap();
            let together = std::sync::Barrier::new(8);
            let keys: Vec<String> = std::thread::scope(|scope| {
                let one = || {
                    together.wait();
                    let key = key_from_file(dir.path(), false).unwrap();
                    key.pragma().to_string()
                };
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
                threads.into_iter().map(|it| it.join().unwrap()).collect()
            });
            assert!(keys.iter().all(|key| *key == keys[0]));
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        key_from_file(dir.path(), false).unwrap();
        let path = dir.path().join(KEY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();

        assert!(matches!(
            key_from_file(dir.path(), false),
            Err(Error::Misuse(_))
        ));
    }

    #[test]
    fn a_passphrase_opens_what_it_closed_whatever_stands_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let phrase = |text: &str| VaultKey::passphrase(Zeroizing::new(text.into())).unwrap();
        let agent = dir.path().join("alice");
        let vault = Vault::at(agent.clone(), phrase("it's \"quoted\"; --")).unwrap();
        let mut lock = vault.lock_file().unwrap();
        vault
            .create_if_missing(&lock.try_hold().unwrap().unwrap())
            .unwrap();

        vault.connect().unwrap();
        damaged(Vault::at(agent, phrase("it's")).unwrap().connect());
    }

    #[test]
    fn a_key_that_is_not_64_hex_digits_is_refused_without_being_repeated() {
        for bad in ["", "abc", &"0".repeat(63), &"g".repeat(64), &"0".repeat(66)] {
            let error = VaultKey::from_hex(bad).unwrap_err();
            assert!(bad.len() < 4 || !error.to_string().contains(bad));
        }
        VaultKey::from_hex(&format!("{}\n", "aB".repeat(32))).unwrap();
    }
}
