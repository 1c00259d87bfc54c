//! The archive on fjall, a log-structured store in pure Rust: the relay's default.
//!
//! Each batch becomes one fjall batch, written to its journal and synced (`fdatasync`) before
//! `write` returns. Within a batch every row is written once, with its last value, so that a
//! hundred appends to a channel touch its head once.
//!
//! | space | key | value |
//! |---|---|---|
//! | channels | channel | the hub's state |
//! | heads | channel | head, pruned, log hash |
//! | records | channel, seq | log hash, record |
//! | ids | channel, agent, id | seq |
//! | mail | agent, arrival | channel, id |
//! | welcomes | agent, channel, id | arrival, frame |
//! | packages | agent, arrival | time, KeyPackage |
//! | last-resorts | agent | time, KeyPackage |
//! | group-infos | channel | epoch, sealed |
//! | counters | a name | the last number used |
//! | usage | account, month, API key | messages, bytes, copies, time |
//! | reports | nothing | number and body of the one that waits |
//!
//! Numbers are big-endian, so that keys sort as numbers do. `Keyspace::clear` is never used: it
//! can leave a database that does not open again.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Slice,
    config::CompressionPolicy,
};
use skytale_wire::{
    Blob,
    id::{AgentId, ChannelId, Digest, Epoch, MessageId, Seq, Time},
    month::Month,
    token::AccountId,
};

use super::{
    Append, Archive, ArchiveError, ArchiveReader, Fate, KeyPackagesLeft, SealedGroupInfo,
    StoredChannel, StoredRecord, WelcomeRow, Write, Written, fate_of,
    usage::{Charges, ROWS_MAX, Report, Tab, Used, next_number, read_report, report},
};

mod copy;

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

/// A batch in the making: what its writes have changed so far stands before what is stored.
struct Staged<'a> {
    open: &'a Open,
    rows: BTreeMap<(Space, Vec<u8>), Option<Slice>>,
    charges: Charges,
}

impl<'a> Staged<'a> {
    fn new(open: &'a Open) -> Self {
        Self {
            open,
            rows: BTreeMap::new(),
            charges: Charges::default(),
        }
    }

    fn apply(&mut self, write: &Write) -> Result<Written, ArchiveError> {
        match write {
            Write::Channel { channel, state } => {
                self.put(Space::Channels, channel.0.to_vec(), state);
                Ok(Written::Done)
            }
            Write::Append(entry) => {
                if let Some(charge) = &entry.charge {
                    self.charges.add(charge);
                }
                self.append(entry).map(|()| Written::Done)
            }
            Write::GroupInfo { channel, sealed } => {
                self.keep_group_info(channel, sealed);
                Ok(Written::Done)
            }
            Write::PutKeyPackages {
                agent,
                packages,
                last_resort,
                at,
                keep_max,
            } => {
                if let Some(package) = last_resort {
                    let row = key(&[&at.0.to_be_bytes(), package]);
                    self.put(Space::LastResorts, agent.0.to_vec(), row);
                }
                self.put_key_packages(agent, packages, *at, *keep_max)
                    .map(Written::KeyPackages)
            }
            Write::TakeKeyPackage { agent, not_before } => self
                .take_key_package(agent, *not_before)
                .map(Written::KeyPackage),
            Write::DropWelcome { agent, channel, id } => self
                .drop_welcome(agent, channel, id)
                .map(|()| Written::Done),
            Write::Prune { channel, up_to } => self.prune(channel, *up_to).map(|()| Written::Done),
            Write::Forget { channel } => self.forget(channel).map(|()| Written::Done),
            Write::Charge { number, charges } => {
                if self.number(CHARGES)? != *number {
                    self.put(Space::Counters, CHARGES.to_vec(), number.to_be_bytes());
                    for charge in charges {
                        self.charges.add(charge);
                    }
                }
                Ok(Written::Done)
            }
            Write::CloseReport { at_least } => {
                self.charge()?;
                self.close_report(*at_least).map(Written::Report)
            }
            Write::DropReport { number } => self.drop_report(*number).map(|()| Written::Done),
        }
    }

    /// Adds to the rows what the batch has gathered.
    fn charge(&mut self) -> Result<(), ArchiveError> {
        for (tab, more) in self.charges.take() {
            let place = tab_key(&tab);
            let mut used = match self.get(Space::Usage, &place)? {
                Some(row) => read_used(&row)?,
                None => Used::default(),
            };
            used.add(&more);
            self.put(Space::Usage, place, used_row(&used));
        }
        Ok(())
    }

    fn close_report(&mut self, at_least: u64) -> Result<Option<Report>, ArchiveError> {
        if let Some(row) = self.get(Space::Reports, REPORT)? {
            let (number, body) = split(&row, NUMBER_LEN, Space::Reports)?;
            let number = read_number(number, Space::Reports)?;
            return read_report(number, Bytes::copy_from_slice(body)).map(Some);
        }
        let rows = self
            .with_prefix(Space::Usage, &[])?
            .into_iter()
            .take(ROWS_MAX);
        let mut taken = Vec::new();
        for (place, row) in rows {
            taken.push((read_tab(&place)?, read_used(&row)?));
            self.remove(Space::Usage, place);
        }
        if taken.is_empty() {
            return Ok(None);
        }
        let number = next_number(self.number(REPORTS)?, at_least);
        self.put(Space::Counters, REPORTS.to_vec(), number.to_be_bytes());
        let report = report(number, taken);
        let row = key(&[&number.to_be_bytes(), &report.body]);
        self.put(Space::Reports, REPORT.to_vec(), row);
        Ok(Some(report))
    }

    fn drop_report(&mut self, number: u64) -> Result<(), ArchiveError> {
        if let Some(row) = self.get(Space::Reports, REPORT)? {
            let (waiting, _) = split(&row, NUMBER_LEN, Space::Reports)?;
            if read_number(waiting, Space::Reports)? == number {
                self.remove(Space::Reports, REPORT.to_vec());
            }
        }
        Ok(())
    }

    fn append(&mut self, entry: &Append) -> Result<(), ArchiveError> {
        let known = self.get(Space::Channels, &entry.channel.0)?.is_some();
        let mut head = self.head(&entry.channel)?;
        // A hub whose memory is not what the store holds must not write.
        if !known || head.seq.0.checked_add(1) != Some(entry.seq.0) {
            return Err(ArchiveError::Damaged(format!(
                "an append at {} does not follow the channel's head",
                entry.seq
            )));
        }
        head.seq = entry.seq;
        head.hash = entry.hash;
        self.put(Space::Heads, entry.channel.0.to_vec(), head.row());
        self.put(
            Space::Records,
            record_key(&entry.channel, entry.seq),
            key(&[&entry.hash.0, &entry.record]),
        );
        self.put(
            Space::Ids,
            key(&[&entry.channel.0, &entry.agent.0, &entry.id.0]),
            entry.seq.0.to_be_bytes(),
        );
        if let Some(state) = &entry.state {
            self.put(Space::Channels, entry.channel.0.to_vec(), state);
        }
        for welcome in &entry.welcomes {
            self.keep_welcome(welcome)?;
        }
        match &entry.sealed {
            Some(sealed) => self.keep_group_info(&entry.channel, sealed),
            None if entry.ends_epoch => self.remove(Space::GroupInfos, entry.channel.0.to_vec()),
            None => {}
        }
        Ok(())
    }

    fn keep_group_info(&mut self, channel: &ChannelId, sealed: &SealedGroupInfo) {
        let row = key(&[&sealed.epoch.0.to_be_bytes(), &sealed.sealed]);
        self.put(Space::GroupInfos, channel.0.to_vec(), row);
    }

    fn keep_welcome(&mut self, welcome: &WelcomeRow) -> Result<(), ArchiveError> {
        let arrival = self.next_arrival()?;
        self.put(
            Space::Mail,
            key(&[&welcome.agent.0, &arrival]),
            key(&[&welcome.channel.0, &welcome.id.0]),
        );
        self.put(
            Space::Welcomes,
            key(&[&welcome.agent.0, &welcome.channel.0, &welcome.id.0]),
            key(&[&arrival, &welcome.frame]),
        );
        Ok(())
    }

    fn drop_welcome(
        &mut self,
        agent: &AgentId,
        channel: &ChannelId,
        id: &MessageId,
    ) -> Result<(), ArchiveError> {
        let place = key(&[&agent.0, &channel.0, &id.0]);
        if let Some(row) = self.get(Space::Welcomes, &place)? {
            let (arrival, _) = split(&row, NUMBER_LEN, Space::Welcomes)?;
            self.remove(Space::Mail, key(&[&agent.0, arrival]));
            self.remove(Space::Welcomes, place);
        }
        Ok(())
    }

    fn put_key_packages(
        &mut self,
        agent: &AgentId,
        packages: &[Blob],
        at: Time,
        keep_max: u32,
    ) -> Result<u32, ArchiveError> {
        for package in packages {
            let arrival = self.next_arrival()?;
            self.put(
                Space::Packages,
                key(&[&agent.0, &arrival]),
                key(&[&at.0.to_be_bytes(), package]),
            );
        }
        let kept = self.with_prefix(Space::Packages, &agent.0)?;
        let surplus = small(kept.len()).saturating_sub(keep_max);
        let oldest = kept.into_keys().take(surplus as usize);
        for place in oldest {
            self.remove(Space::Packages, place);
        }
        Ok(small(self.with_prefix(Space::Packages, &agent.0)?.len()))
    }

    fn take_key_package(
        &mut self,
        agent: &AgentId,
        not_before: Time,
    ) -> Result<Option<Blob>, ArchiveError> {
        let mut taken = None;
        for (place, row) in self.with_prefix(Space::Packages, &agent.0)? {
            match young_package(&row, not_before, Space::Packages)? {
                Some(_) if taken.is_some() => {}
                package => {
                    self.remove(Space::Packages, place);
                    taken = taken.or(package);
                }
            }
        }
        let last_resort = match self.get(Space::LastResorts, &agent.0)? {
            Some(row) => young_package(&row, not_before, Space::LastResorts)?,
            None => None,
        };
        if last_resort.is_none() {
            self.remove(Space::LastResorts, agent.0.to_vec());
        }
        Ok(taken.or(last_resort))
    }

    fn prune(&mut self, channel: &ChannelId, up_to: Seq) -> Result<(), ArchiveError> {
        let mut head = self.head(channel)?;
        let up_to = up_to.min(head.seq);
        if up_to <= head.pruned {
            return Ok(());
        }
        for seq in head.pruned.0 + 1..=up_to.0 {
            let place = record_key(channel, Seq(seq));
            let row = self
                .get(Space::Records, &place)?
                .ok_or_else(|| damaged("records"))?;
            let (hash, record) = split(&row, Digest::LEN, Space::Records)?;
            match fate_of(record)? {
                Fate::Stays => {}
                Fate::Shrinks(stub) => self.put(Space::Records, place, key(&[hash, &stub])),
                Fate::Goes(agent, id) => {
                    self.remove(Space::Ids, key(&[&channel.0, &agent.0, &id.0]));
                    self.remove(Space::Records, place);
                }
            }
        }
        head.pruned = up_to;
        self.put(Space::Heads, channel.0.to_vec(), head.row());
        Ok(())
    }

    fn forget(&mut self, channel: &ChannelId) -> Result<(), ArchiveError> {
        self.prune(channel, Seq(u64::MAX))?;
        self.remove(Space::Heads, channel.0.to_vec());
        self.remove(Space::Channels, channel.0.to_vec());
        Ok(())
    }

    /// Writes it all, synced before this returns. An empty batch writes too: it asks the disk.
    fn commit(self) -> Result<(), ArchiveError> {
        let mut batch = self
            .open
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        if self.rows.is_empty() {
            batch.insert(self.open.space(Space::Counters), PROBE, Slice::empty());
        }
        for ((space, key), value) in self.rows {
            let space = self.open.space(space);
            match value {
                Some(value) => batch.insert(space, key, value),
                None => batch.remove(space, key),
            }
        }
        batch.commit().map_err(failed)
    }

    /// A number that no earlier arrival had, whichever batch it came in.
    fn next_arrival(&mut self) -> Result<[u8; NUMBER_LEN], ArchiveError> {
        let arrival = (self.number(ARRIVALS)? + 1).to_be_bytes();
        self.put(Space::Counters, ARRIVALS.to_vec(), arrival);
        Ok(arrival)
    }

    /// The last number used of its kind, or zero.
    fn number(&self, of: &[u8]) -> Result<u64, ArchiveError> {
        self.get(Space::Counters, of)?
            .map_or(Ok(0), |row| read_number(&row, Space::Counters))
    }

    fn head(&self, channel: &ChannelId) -> Result<Head, ArchiveError> {
        self.get(Space::Heads, &channel.0)?
            .map_or(Ok(Head::EMPTY), |row| Head::read(&row))
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, ArchiveError> {
        match self.rows.get(&(space, key.to_vec())) {
            Some(staged) => Ok(staged.clone()),
            None => self.open.get(space, key),
        }
    }

    /// All rows below a prefix, in the order of their keys.
    fn with_prefix(
        &self,
        space: Space,
        prefix: &[u8],
    ) -> Result<BTreeMap<Vec<u8>, Slice>, ArchiveError> {
        let mut rows = BTreeMap::new();
        for row in self.open.space(space).prefix(prefix) {
            let (key, value) = row.into_inner().map_err(failed)?;
            rows.insert(key.to_vec(), value);
        }
        let staged = self.rows.range((space, prefix.to_vec())..);
        for ((_, key), value) in
            staged.take_while(|((at, key), _)| *at == space && key.starts_with(prefix))
        {
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        Ok(rows)
    }

    fn put(&mut self, space: Space, key: Vec<u8>, value: impl AsRef<[u8]>) {
        let value = Slice::from(value.as_ref());
        self.rows.insert((space, key), Some(value));
    }

    fn remove(&mut self, space: Space, key: Vec<u8>) {
        self.rows.insert((space, key), None);
    }
}

/// Where a channel stands.
struct Head {
    seq: Seq,
    pruned: Seq,
    hash: Digest,
}

impl Head {
    const EMPTY: Self = Self {
        seq: Seq(0),
        pruned: Seq(0),
        hash: Digest([0; 32]),
    };

    fn row(&self) -> Vec<u8> {
        key(&[
            &self.seq.0.to_be_bytes(),
            &self.pruned.0.to_be_bytes(),
            &self.hash.0,
        ])
    }

    fn read(row: &[u8]) -> Result<Self, ArchiveError> {
        let (seq, rest) = split(row, NUMBER_LEN, Space::Heads)?;
        let (pruned, hash) = split(rest, NUMBER_LEN, Space::Heads)?;
        Ok(Self {
            seq: Seq(read_number(seq, Space::Heads)?),
            pruned: Seq(read_number(pruned, Space::Heads)?),
            hash: read_digest(hash, Space::Heads)?,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Space {
    Channels,
    Heads,
    Records,
    Ids,
    Mail,
    Welcomes,
    Packages,
    LastResorts,
    GroupInfos,
    Counters,
    Usage,
    Reports,
}

impl Space {
    /// In the order of their discriminants, by which [`Open::space`] finds them.
    const ALL: [Self; 12] = [
        Self::Channels,
        Self::Heads,
        Self::Records,
        Self::Ids,
        Self::Mail,
        Self::Welcomes,
        Self::Packages,
        Self::LastResorts,
        Self::GroupInfos,
        Self::Counters,
        Self::Usage,
        Self::Reports,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Channels => "channels",
            Self::Heads => "heads",
            Self::Records => "records",
            Self::Ids => "ids",
            Self::Mail => "mail",
            Self::Welcomes => "welcomes",
            Self::Packages => "packages",
            Self::LastResorts => "last-resorts",
            Self::GroupInfos => "group-infos",
            Self::Counters => "counters",
            Self::Usage => "usage",
            Self::Reports => "reports",
        }
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

/// The package in a row, unless it is too old to be handed out.
fn young_package(row: &[u8], not_before: Time, space: Space) -> Result<Option<Blob>, ArchiveError> {
    let (at, package) = split(row, NUMBER_LEN, space)?;
    let young = read_number(at, space)? >= not_before.0;
    Ok(young.then(|| Blob::from(package)))
}

fn record_key(channel: &ChannelId, seq: Seq) -> Vec<u8> {
    key(&[&channel.0, &seq.0.to_be_bytes()])
}

fn tab_key(tab: &Tab) -> Vec<u8> {
    let key_id = tab.key.as_ref().map_or("", |key| key.as_str());
    let month = tab.month.number().to_be_bytes();
    key(&[&tab.account.0, &month, key_id.as_bytes()])
}

fn read_tab(place: &[u8]) -> Result<Tab, ArchiveError> {
    let (account, rest) = split(place, ACCOUNT_LEN, Space::Usage)?;
    let (month, key) = split(rest, MONTH_LEN, Space::Usage)?;
    let read = || {
        let key = std::str::from_utf8(key).ok()?;
        Some(Tab {
            account: AccountId(account.try_into().ok()?),
            key: match key {
                "" => None,
                key => Some(key.parse().ok()?),
            },
            month: Month::from_number(u32::from_be_bytes(month.try_into().ok()?))?,
        })
    };
    read().ok_or_else(|| damaged("usage"))
}

fn used_row(used: &Used) -> Vec<u8> {
    let numbers = [used.messages, used.bytes, used.delivered, used.connected_ms];
    numbers.map(u64::to_be_bytes).concat()
}

fn read_used(row: &[u8]) -> Result<Used, ArchiveError> {
    let (messages, rest) = split(row, NUMBER_LEN, Space::Usage)?;
    let (bytes, rest) = split(rest, NUMBER_LEN, Space::Usage)?;
    let (delivered, connected_ms) = split(rest, NUMBER_LEN, Space::Usage)?;
    let read = |number| read_number(number, Space::Usage);
    Ok(Used {
        messages: read(messages)?,
        bytes: read(bytes)?,
        delivered: read(delivered)?,
        connected_ms: read(connected_ms)?,
    })
}

fn key(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn split(row: &[u8], at: usize, space: Space) -> Result<(&[u8], &[u8]), ArchiveError> {
    row.split_at_checked(at)
        .ok_or_else(|| damaged(space.name()))
}

fn read_number(bytes: &[u8], space: Space) -> Result<u64, ArchiveError> {
    bytes
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| damaged(space.name()))
}

fn read_digest(bytes: &[u8], space: Space) -> Result<Digest, ArchiveError> {
    Digest::from_slice(bytes).map_err(|_| damaged(space.name()))
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn damaged(space: &str) -> ArchiveError {
    ArchiveError::Damaged(format!("a row of {space} cannot be read"))
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
const NUMBER_LEN: usize = 8;
const ACCOUNT_LEN: usize = 16;
const MONTH_LEN: usize = 4;
/// Where the database lies below the relay's data directory.
pub const DATABASE_DIR: &str = "archive.fjall";
const REWRITE_FILE: &str = "journal.rewrite";
const ARRIVALS: &[u8] = b"arrivals";
const PROBE: &[u8] = b"probe";
const REPORTS: &[u8] = b"reports";
const CHARGES: &[u8] = b"charges";
/// There is one place for a report.
const REPORT: &[u8] = b"waiting";

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
