//! A batch in the making.

use std::collections::BTreeMap;

use bytes::Bytes;
use fjall::{PersistMode, Slice};
use skytale_wire::{
    Blob,
    id::{AgentId, ChannelId, Digest, MessageId, Seq, Time},
};

use super::{
    Open, failed,
    rows::{
        Head, NUMBER_LEN, Space, damaged, key, read_number, read_tab, read_used, record_key, split,
        tab_key, used_row, young_package,
    },
    small,
};
use crate::archive::{
    Append, ArchiveError, Fate, SealedGroupInfo, WelcomeRow, Write, Written, fate_of,
    usage::{Charges, ROWS_MAX, Report, Used, next_number, read_report, report},
};

/// A batch in the making: what its writes have changed so far stands before what is stored.
pub(super) struct Staged<'a> {
    open: &'a Open,
    rows: BTreeMap<(Space, Vec<u8>), Option<Slice>>,
    charges: Charges,
}

impl<'a> Staged<'a> {
    pub(super) fn new(open: &'a Open) -> Self {
        Self {
            open,
            rows: BTreeMap::new(),
            charges: Charges::default(),
        }
    }

    pub(super) fn apply(&mut self, write: &Write) -> Result<Written, ArchiveError> {
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
    pub(super) fn charge(&mut self) -> Result<(), ArchiveError> {
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
    pub(super) fn commit(self) -> Result<(), ArchiveError> {
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

const ARRIVALS: &[u8] = b"arrivals";
const PROBE: &[u8] = b"probe";
const REPORTS: &[u8] = b"reports";
const CHARGES: &[u8] = b"charges";
/// There is one place for a report.
const REPORT: &[u8] = b"waiting";
