//! What the archive holds of a channel, as it is told to the account that pays for it.
//!
//! Whose a channel is the hub says (`hub/owned.rs`); here its records are read, a page at a time, and
//! everything but their sealed bytes is put into words.

use std::{fmt, sync::Arc};

use skytale_wire::{
    envelope::{Envelope, Kind},
    frame,
    http::{HELD_MAX, RecordKind, Told, ToldChannel, ToldRecord},
    id::{ChannelId, Seq},
};

use crate::{
    archive::{ArchiveError, ArchiveReader, StoredRecord},
    hub::Owned,
};

/// Reads pages of an archive, whichever it is.
#[derive(Clone)]
pub(crate) struct Pages(Arc<Read>);

type Read =
    dyn Fn(&ChannelId, Seq, usize, usize) -> Result<Vec<StoredRecord>, ArchiveError> + Send + Sync;

impl Pages {
    pub(crate) fn of(reader: impl ArchiveReader) -> Self {
        Self(Arc::new(move |channel, after, count_max, bytes_max| {
            reader.records(channel, after, count_max, bytes_max)
        }))
    }

    /// One page of what is stored of a channel.
    pub(crate) fn records(
        &self,
        owned: &Owned,
        after: Seq,
        limit: u32,
    ) -> Result<Told, ArchiveError> {
        let count_max = limit.min(HELD_MAX) as usize;
        let after = after.min(owned.stored);
        let page = (self.0)(&owned.channel, after, count_max, PAGE_BYTES_MAX)?;
        let last = page.last().map(|record| record.seq);
        let records = page.iter().map(told).collect::<Result<_, _>>()?;
        Ok(Told::Records {
            records,
            more: last.is_some_and(|last| last < owned.stored),
        })
    }

    /// What is stored of these channels, in short.
    pub(crate) fn channels(&self, all: &[Owned]) -> Result<Told, ArchiveError> {
        let mut budget = Budget {
            records: COUNTED_RECORDS_MAX,
            bytes: COUNTED_BYTES_MAX,
        };
        let channels = all.iter().map(|owned| self.channel(owned, &mut budget));
        Ok(Told::Channels {
            channels: channels.collect::<Result<_, _>>()?,
        })
    }

    fn channel(&self, owned: &Owned, budget: &mut Budget) -> Result<ToldChannel, ArchiveError> {
        let came = |after| -> Result<Option<u64>, ArchiveError> {
            let page = (self.0)(&owned.channel, after, 1, 0)?;
            let read = page.first().map(envelope).transpose()?;
            Ok(read.map(|record| record.received.0))
        };
        Ok(ToldChannel {
            id: owned.channel,
            records: owned.stored.0,
            pruned_to: owned.pruned.0,
            members: u32::try_from(owned.members).unwrap_or(u32::MAX),
            bytes: self.bytes(owned, budget)?,
            first_ms: came(Seq(0))?,
            last_ms: came(owned.stored.previous())?,
        })
    }

    /// The sealed bytes of all records, if there are few enough to look at each.
    fn bytes(&self, owned: &Owned, budget: &mut Budget) -> Result<Option<u64>, ArchiveError> {
        let mut sum = 0;
        let mut after = Seq(0);
        while after < owned.stored {
            if budget.records == 0 || budget.bytes == 0 {
                return Ok(None);
            }
            let count_max = budget.records.min(COUNTED_AT_ONCE);
            let page = (self.0)(&owned.channel, after, count_max, PAGE_BYTES_MAX)?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            for record in &page {
                budget.records = budget.records.saturating_sub(1);
                budget.bytes = budget.bytes.saturating_sub(record.record.len());
                sum += envelope(record)?.body.len() as u64;
            }
        }
        Ok(Some(sum))
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pages")
    }
}

/// What may still be read to count bytes, over all channels of a question.
struct Budget {
    records: usize,
    bytes: usize,
}

fn envelope(stored: &StoredRecord) -> Result<Envelope, ArchiveError> {
    frame::decode(&stored.record, stored.record.len())
        .map_err(|_| ArchiveError::Damaged("a record cannot be read".into()))
}

fn told(stored: &StoredRecord) -> Result<ToldRecord, ArchiveError> {
    let record = envelope(stored)?;
    Ok(ToldRecord {
        seq: stored.seq.0,
        kind: kind(record.kind)?,
        id: record.id,
        agent_id: record.agent,
        epoch: record.epoch.0,
        bytes: record.pruned.is_none().then_some(record.body.len() as u64),
        stored_ms: record.received.0,
    })
}

fn kind(kind: Kind) -> Result<RecordKind, ArchiveError> {
    match kind {
        Kind::Application => Ok(RecordKind::Application),
        Kind::Commit => Ok(RecordKind::Commit),
        Kind::Join => Ok(RecordKind::Join),
        Kind::Leave => Ok(RecordKind::Leave),
        Kind::SlimMessageOne | Kind::SlimMessageTwo | Kind::SlimCommitOne | Kind::SlimCommitTwo => {
            Err(ArchiveError::Damaged(
                "a channel holds a record of a SLIM name".into(),
            ))
        }
    }
}

/// What a page may hold in memory, beyond its first record. The next page brings the rest.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// What is looked at to count bytes; what has more in it is told without them.
const COUNTED_RECORDS_MAX: usize = 2_000;
const COUNTED_BYTES_MAX: usize = 4 * 1024 * 1024;
const COUNTED_AT_ONCE: usize = 256;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use skytale_wire::id::{AgentId, Digest, Epoch, MessageId, Time};

    use super::*;
    use crate::archive::{Append, Archive as _, Write, sqlite::SqliteArchive};

    const CHANNEL: ChannelId = ChannelId([7; 32]);

    fn record(seq: u64, kind: Kind, body: usize) -> Envelope {
        Envelope {
            kind,
            epoch: Epoch(seq / 2),
            agent: AgentId([1; 32]),
            id: MessageId([u8::try_from(seq % 251).unwrap(); 16]),
            body: vec![0xab; body].into(),
            change: None,
            pruned: None,
            received: Time(1_000 + seq),
        }
    }

    /// A real archive, and what the hub would say of its one channel.
    fn holding(records: &[Envelope]) -> (SqliteArchive, Owned) {
        let mut archive = SqliteArchive::in_memory().unwrap();
        let created = Write::Channel {
            channel: CHANNEL,
            state: Bytes::from_static(b"state"),
        };
        archive.write(&[created]).unwrap();
        let mut hash = Digest([0; 32]);
        let mut seq = Seq(0);
        for record in records {
            seq = seq.next();
            hash = record.log_hash(&hash, seq);
            let append = Append {
                channel: CHANNEL,
                seq,
                record: frame::encode(record).into(),
                hash,
                agent: AgentId(Digest::of(&[&seq.0.to_be_bytes()]).0),
                id: record.id,
                state: None,
                welcomes: Vec::new(),
                sealed: None,
                ends_epoch: false,
                charge: None,
            };
            archive.write(&[Write::Append(append)]).unwrap();
        }
        let owned = Owned {
            channel: CHANNEL,
            stored: seq,
            pruned: Seq(0),
            members: 3,
        };
        (archive, owned)
    }

    fn places(told: Told) -> (Vec<u64>, bool) {
        let Told::Records { records, more } = told else {
            panic!("{told:?}");
        };
        (records.iter().map(|record| record.seq).collect(), more)
    }

    #[test]
    fn a_record_is_told_with_everything_but_its_sealed_bytes() {
        let (archive, owned) = holding(&[
            record(1, Kind::Commit, 700),
            record(2, Kind::Application, 300),
        ]);

        let told = Pages::of(archive.reader()).records(&owned, Seq(1), 10);

        let only = ToldRecord {
            seq: 2,
            kind: RecordKind::Application,
            id: MessageId([2; 16]),
            agent_id: AgentId([1; 32]),
            epoch: 1,
            bytes: Some(300),
            stored_ms: 1_002,
        };
        let expected = Told::Records {
            records: vec![only],
            more: false,
        };
        assert_eq!(told.unwrap(), expected);
    }

    #[test]
    fn records_come_by_pages_that_are_bounded_in_count_and_bytes() {
        let small: Vec<_> = (1..=250)
            .map(|seq| record(seq, Kind::Application, 10))
            .collect();
        let (archive, owned) = holding(&small);
        let pages = Pages::of(archive.reader());
        let page = |after, limit| places(pages.records(&owned, Seq(after), limit).unwrap());

        assert_eq!(page(0, 3), (vec![1, 2, 3], true));
        assert_eq!(page(248, 3), (vec![249, 250], false));
        assert_eq!(page(247, 3), (vec![248, 249, 250], false));
        assert_eq!(page(250, 3), (vec![], false));
        assert_eq!(page(u64::MAX, 3), (vec![], false));
        assert_eq!(page(0, u32::MAX).0.len(), 100);

        let large: Vec<_> = (1..=3)
            .map(|seq| record(seq, Kind::Application, 700 * 1024))
            .collect();
        let (archive, owned) = holding(&large);
        let told = Pages::of(archive.reader()).records(&owned, Seq(0), 100);
        assert_eq!(places(told.unwrap()), (vec![1], true));
    }

    #[test]
    fn a_channel_is_told_in_short_and_what_is_gone_is_told_as_such() {
        let (mut archive, owned) = holding(&[
            record(1, Kind::Commit, 700),
            record(2, Kind::Application, 300),
            record(3, Kind::Application, 500),
        ]);
        let prune = Write::Prune {
            channel: CHANNEL,
            up_to: Seq(2),
        };
        archive.write(&[prune]).unwrap();
        let owned = Owned {
            pruned: Seq(2),
            ..owned
        };
        let pages = Pages::of(archive.reader());

        let told = pages.channels(&[owned]).unwrap();

        let expected = ToldChannel {
            id: CHANNEL,
            records: 3,
            pruned_to: 2,
            members: 3,
            bytes: Some(1_200),
            first_ms: Some(1_001),
            last_ms: Some(1_003),
        };
        let channels = vec![expected];
        assert_eq!(told, Told::Channels { channels });
        let Told::Records { records, .. } = pages.records(&owned, Seq(0), 10).unwrap() else {
            panic!("no records");
        };
        let bytes: Vec<_> = records.iter().map(|record| record.bytes).collect();
        assert_eq!(bytes, [Some(700), None, Some(500)]);
    }

    #[test]
    fn what_takes_too_long_to_count_is_told_without_its_bytes() {
        let many: Vec<_> = (1..=2_001)
            .map(|seq| record(seq, Kind::Application, 1))
            .collect();
        let (archive, owned) = holding(&many);

        let told = Pages::of(archive.reader())
            .channels(&[owned, owned])
            .unwrap();

        let Told::Channels { channels } = told else {
            panic!("{told:?}");
        };
        for channel in channels {
            assert_eq!((channel.records, channel.bytes), (2_001, None));
            assert_eq!(channel.last_ms, Some(3_001));
        }
    }
}
