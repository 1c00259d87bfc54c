//! The archive on fjall, a log-structured store in pure Rust: the relay's default.
//!
//! Each batch becomes one fjall batch, written to its journal and synced (`fdatasync`) before
//! `write` returns. Within a batch every row is written once, with its last value, so that a
//! hundred appends to a channel touch its head once.
//!
//! `Keyspace::clear` is never used: it can leave a database that does not open again.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, Slice, config::CompressionPolicy,
};
use skytale_wire::id::{AgentId, ChannelId, Digest, Epoch, MessageId, Seq};

use self::{
    rows::{Head, NUMBER_LEN, Space, damaged, key, read_digest, read_number, record_key, split},
    staged::Staged,
};
use super::{
    Archive, ArchiveError, ArchiveReader, KeyPackagesLeft, SealedGroupInfo, StoredChannel,
    StoredRecord, Write, Written,
};

mod copy;
mod rows;
mod staged;

pub use copy::{CopyError, pass};

/// The writing side.
#[derive(Debug)]
pub struct FjallArchive {
    dir: PathBuf,
    shared: FjallReader,
    /// A write has failed since the database was opened: fjall takes no more until it is opened
    /// again, and what the system's cache says of the journal may not be on the disk.
    suspect: bool,
}

/// The reading side. It shares the database with the writer, which closes and opens it again
/// after a failure: until then, reads go on.
#[derive(Debug, Clone)]
pub struct FjallReader(Arc<RwLock<Option<Open>>>);

impl FjallArchive {
    /// Opens or creates the database in a directory that exists.
    pub fn open(dir: &Path) -> Result<Self, ArchiveError> {
        let open = Open::at(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            shared: FjallReader(Arc::new(RwLock::new(Some(open)))),
            suspect: false,
        })
    }

    /// After a failed write: opens the database again from a journal that is known to be on disk.
    ///
    /// A failed sync leaves pages that the system takes for clean although they never reached the
    /// disk; syncing again would report success for nothing. So the journal's bytes, as they can
    /// be read, are written anew first. When that fails, the database is opened for reading all
    /// the same and stays suspect.
    fn reopen(&mut self) -> Result<(), ArchiveError> {
        let mut slot = self
            .shared
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *slot = None;
        let rewritten = rewrite_journals(&self.dir);
        *slot = Some(Open::at(&self.dir)?);
        rewritten.map_err(|error| unavailable(&error))?;
        self.suspect = false;
        Ok(())
    }
}

impl Archive for FjallArchive {
    type Reader = FjallReader;

    fn write(&mut self, batch: &[Write]) -> Result<Vec<Written>, ArchiveError> {
        if self.suspect {
            self.reopen()?;
        }
        let suspect = &mut self.suspect;
        self.shared.with(|open| {
            let mut staged = Staged::new(open);
            let written = batch
                .iter()
                .map(|write| staged.apply(write))
                .collect::<Result<_, _>>()?;
            staged.charge()?;
            staged.commit().inspect_err(|_| *suspect = true)?;
            Ok(written)
        })
    }

    fn reader(&self) -> FjallReader {
        self.shared.clone()
    }
}

impl FjallReader {
    fn with<T>(
        &self,
        work: impl FnOnce(&Open) -> Result<T, ArchiveError>,
    ) -> Result<T, ArchiveError> {
        let slot = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let open = slot
            .as_ref()
            .ok_or_else(|| ArchiveError::Unavailable("it could not be opened again".into()))?;
        work(open)
    }
}

impl ArchiveReader for FjallReader {
    fn channels(&self) -> Result<Vec<StoredChannel>, ArchiveError> {
        self.with(|open| {
            open.space(Space::Channels)
                .iter()
                .map(|row| {
                    let (key, state) = row.into_inner().map_err(failed)?;
                    let head = open
                        .get(Space::Heads, &key)?
                        .map_or(Ok(Head::EMPTY), |row| Head::read(&row))?;
                    Ok(StoredChannel {
                        channel: ChannelId::from_slice(&key).map_err(|_| damaged("channels"))?,
                        state: Bytes::copy_from_slice(&state),
                        head: head.seq,
                        hash: head.hash,
                        pruned: head.pruned,
                    })
                })
                .collect()
        })
    }

    fn records(
        &self,
        channel: &ChannelId,
        after: Seq,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredRecord>, ArchiveError> {
        self.with(|open| {
            let Some(first) = after.0.checked_add(1) else {
                return Ok(Vec::new());
            };
            let range = record_key(channel, Seq(first))..=record_key(channel, Seq(u64::MAX));
            let mut records: Vec<StoredRecord> = Vec::new();
            let mut size = 0;
            for row in open.space(Space::Records).range(range).take(count_max) {
                let (key, row) = row.into_inner().map_err(failed)?;
                let (_, number) = split(&key, ChannelId::LEN, Space::Records)?;
                let (_, record) = split(&row, Digest::LEN, Space::Records)?;
                size += record.len();
                if !records.is_empty() && size > bytes_max {
                    break;
                }
                records.push(StoredRecord {
                    seq: Seq(read_number(number, Space::Records)?),
                    record: Bytes::copy_from_slice(record),
                });
            }
            Ok(records)
        })
    }

    fn hash_at(&self, channel: &ChannelId, seq: Seq) -> Result<Option<Digest>, ArchiveError> {
        if seq == Seq(0) {
            return Ok(Some(Digest([0; 32])));
        }
        self.with(|open| {
            let Some(row) = open.get(Space::Records, &record_key(channel, seq))? else {
                return Ok(None);
            };
            let (hash, _) = split(&row, Digest::LEN, Space::Records)?;
            read_digest(hash, Space::Records).map(Some)
        })
    }

    fn find(
        &self,
        channel: &ChannelId,
        agent: &AgentId,
        id: &MessageId,
    ) -> Result<Option<Seq>, ArchiveError> {
        self.with(|open| {
            open.get(Space::Ids, &key(&[&channel.0, &agent.0, &id.0]))?
                .map(|row| read_number(&row, Space::Ids).map(Seq))
                .transpose()
        })
    }

    fn welcomes(&self, agent: &AgentId, count_max: usize) -> Result<Vec<Bytes>, ArchiveError> {
        self.with(|open| {
            let mut frames = Vec::new();
            for row in open.space(Space::Mail).prefix(agent.0).take(count_max) {
                let place = row.value().map_err(failed)?;
                // Taken off the mailbox between the two look-ups: not there any more.
                if let Some(row) = open.get(Space::Welcomes, &key(&[&agent.0, &place]))? {
                    let (_, frame) = split(&row, NUMBER_LEN, Space::Welcomes)?;
                    frames.push(Bytes::copy_from_slice(frame));
                }
            }
            Ok(frames)
        })
    }

    fn welcomes_waiting(&self, agent: &AgentId, count_max: usize) -> Result<u32, ArchiveError> {
        self.with(|open| {
            let mail = open.space(Space::Mail).prefix(agent.0);
            Ok(small(mail.take(count_max).count()))
        })
    }

    fn group_info(&self, channel: &ChannelId) -> Result<Option<SealedGroupInfo>, ArchiveError> {
        self.with(|open| {
            let Some(row) = open.get(Space::GroupInfos, &channel.0)? else {
                return Ok(None);
            };
            let (epoch, sealed) = split(&row, NUMBER_LEN, Space::GroupInfos)?;
            Ok(Some(SealedGroupInfo {
                epoch: Epoch(read_number(epoch, Space::GroupInfos)?),
                sealed: Bytes::copy_from_slice(sealed),
            }))
        })
    }

    fn key_packages(&self, agent: &AgentId) -> Result<KeyPackagesLeft, ArchiveError> {
        self.with(|open| {
            let count = open.space(Space::Packages).prefix(agent.0).count();
            Ok(KeyPackagesLeft {
                count: small(count),
                last_resort: open.get(Space::LastResorts, &agent.0)?.is_some(),
            })
        })
    }
}

/// An opened database.
struct Open {
    database: Database,
    spaces: Vec<Keyspace>,
}

impl Open {
    fn at(dir: &Path) -> Result<Self, ArchiveError> {
        let database = Database::builder(dir.join(DATABASE_DIR))
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .journal_compression(CompressionType::None)
            .worker_threads(WORKER_THREADS)
            .open()
            .map_err(failed)?;
        let spaces = Space::ALL
            .iter()
            .map(|space| database.keyspace(space.name(), space_options))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        Ok(Self { database, spaces })
    }

    fn space(&self, space: Space) -> &Keyspace {
        &self.spaces[space as usize]
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, ArchiveError> {
        self.space(space).get(key).map_err(failed)
    }
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").finish_non_exhaustive()
    }
}

fn space_options() -> KeyspaceCreateOptions {
    // Ciphertext and hashes do not compress.
    KeyspaceCreateOptions::default()
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        .max_memtable_size(MEMTABLE_BYTES_MAX)
}

/// Writes every journal file anew, so that its bytes are on the disk and not only in the cache.
fn rewrite_journals(dir: &Path) -> std::io::Result<()> {
    let database = dir.join(DATABASE_DIR);
    // Outside the database, whose recovery looks at every file in it.
    let fresh = dir.join(REWRITE_FILE);
    for entry in fs::read_dir(&database)? {
        let journal = entry?.path();
        if journal.extension().is_some_and(|kind| kind == "jnl") {
            copy_synced(&journal, &fresh)?;
            fs::rename(&fresh, &journal)?;
        }
    }
    File::open(&database)?.sync_all()
}

/// Copies by hand: the system's own copying may share blocks, and these blocks are in doubt.
/// Holes stay holes, since a journal is mostly space that was set aside.
fn copy_synced(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut from = File::open(from)?;
    let mut to = File::create(to)?;
    let mut piece = vec![0; COPY_BYTES];
    let mut len = 0;
    loop {
        let got = from.read(&mut piece)?;
        if got == 0 {
            break;
        }
        if piece[..got].iter().all(|byte| *byte == 0) {
            to.seek(SeekFrom::Current(i64::try_from(got).unwrap_or(0)))?;
        } else {
            to.write_all(&piece[..got])?;
        }
        len += got as u64;
    }
    to.set_len(len)?;
    to.sync_all()
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn unavailable(error: &std::io::Error) -> ArchiveError {
    ArchiveError::Unavailable(error.kind().to_string())
}

/// Only the kind of trouble is told: fjall's messages may name files.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "foreign, non-exhaustive enums"
)]
fn failed(error: fjall::Error) -> ArchiveError {
    match error {
        fjall::Error::Locked => ArchiveError::InUse,
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            unavailable(&error)
        }
        fjall::Error::Poisoned => ArchiveError::Unavailable("an earlier write failed".into()),
        fjall::Error::Storage(_) => ArchiveError::Damaged("a table cannot be read".into()),
        fjall::Error::JournalRecovery(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::InvalidTag(_)
        | fjall::Error::Decompress(_) => ArchiveError::Damaged("the journal cannot be read".into()),
        fjall::Error::InvalidVersion(_) => {
            ArchiveError::Damaged("it was written by another version of the store".into())
        }
        _ => ArchiveError::Damaged("the store cannot be used".into()),
    }
}

/// Journals are replayed at the start: with 64 MiB that takes some 0.3 s. fjall takes no less.
const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Small, so that journals can be dropped soon; each space has one.
const MEMTABLE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// One flushes while the other compacts.
const WORKER_THREADS: usize = 2;
const COPY_BYTES: usize = 64 * 1024;
/// Where the database lies below the relay's data directory.
pub const DATABASE_DIR: &str = "archive.fjall";
const REWRITE_FILE: &str = "journal.rewrite";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::conformance;

    #[test]
    fn it_keeps_the_rules_of_an_archive() {
        let dir = tempfile::tempdir().unwrap();
        let mut stores = 0;

        conformance::run(|| {
            stores += 1;
            let dir = dir.path().join(stores.to_string());
            fs::create_dir(&dir).unwrap();
            move || FjallArchive::open(&dir)
        });
    }

    #[test]
    fn a_second_opening_is_turned_away() {
        let dir = tempfile::tempdir().unwrap();
        let first = FjallArchive::open(dir.path()).unwrap();

        assert!(matches!(
            FjallArchive::open(dir.path()),
            Err(ArchiveError::InUse)
        ));

        drop(first);
        assert!(FjallArchive::open(dir.path()).is_ok());
    }

    #[test]
    fn after_a_failed_write_the_journal_is_written_anew_and_readers_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = FjallArchive::open(dir.path()).unwrap();
        let reader = archive.reader();
        let channel = |byte| Write::Channel {
            channel: ChannelId([byte; 32]),
            state: Bytes::from_static(b"state"),
        };
        archive.write(&[channel(1)]).unwrap();
        let journals = || -> Vec<_> {
            use std::os::unix::fs::MetadataExt as _;
            let files = fs::read_dir(dir.path().join(DATABASE_DIR)).unwrap();
            let files = files.map(|file| file.unwrap());
            files
                .filter(|file| file.path().extension().is_some_and(|kind| kind == "jnl"))
                .map(|file| file.metadata().unwrap().ino())
                .collect()
        };
        let before = journals();

        // What a failed sync leaves behind.
        archive.suspect = true;
        archive.write(&[channel(2)]).unwrap();

        assert!(!archive.suspect);
        assert_ne!(journals(), before);
        assert_eq!(reader.channels().unwrap().len(), 2);
    }

    #[test]
    fn an_empty_batch_asks_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = FjallArchive::open(dir.path()).unwrap();

        assert_eq!(archive.write(&[]).unwrap(), []);
    }
}
