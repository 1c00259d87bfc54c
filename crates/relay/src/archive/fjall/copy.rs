//! The archive as a stream of rows: what a backup holds of it, whoever has it open.
//!
//! A stream is taken from a snapshot, so it is the archive as it was at one moment, while the relay
//! goes on writing. It begins with [`BEGINNING`]; a row is its space's number, the lengths of key and
//! value and both; zero and the count of rows end it. So a stream that was cut off is never taken for
//! a whole one.

use std::io::{Read, Write};

use fjall::{PersistMode, Readable as _, Slice};

use super::{
    ArchiveError, FjallArchive, FjallReader, NUMBER_LEN, Open, Space, failed, unavailable,
};

/// Why a copy was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The archive's side.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The other side: whoever takes the stream, or where it comes from.
    #[error("the stream of the archive's rows broke: {0}")]
    Stream(std::io::ErrorKind),
    /// The bytes are not such a stream, or not all of one.
    #[error("these are not the rows of an archive, or not all of them")]
    Misshapen,
    /// The relay is about to stop.
    #[error("the relay stops")]
    Stopped,
}

impl FjallReader {
    /// Writes every row as it is now. `goes_on` is asked at each row.
    ///
    /// If the disk fails meanwhile the archive is opened again only when this has ended, so whoever
    /// takes the stream must not be waited for long.
    pub fn export(
        &self,
        out: &mut dyn Write,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<u64, CopyError> {
        self.with(|open| Ok(write_rows(open, out, goes_on)))?
    }
}

impl FjallArchive {
    /// Puts the rows of a stream into an archive that has none, and returns when they are on the disk.
    /// Of a stream that breaks nothing is to be used.
    pub fn import(&mut self, from: &mut dyn Read) -> Result<u64, CopyError> {
        begin(from)?;
        let mut rows = 0_u64;
        let mut ended = false;
        while !ended {
            let mut bytes = 0;
            let mut group = Vec::new();
            while bytes < GROUP_BYTES {
                let Some((space, key, value)) = row(from)? else {
                    ended = true;
                    break;
                };
                bytes += key.len() + value.len() + ROW_COST;
                group.push((space, key, value));
            }
            rows += group.len() as u64;
            self.shared.with(|open| {
                let mut batch = open.database.batch();
                for (space, key, value) in group {
                    batch.insert(open.space(space), Slice::from(key), Slice::from(value));
                }
                batch.commit().map_err(failed)
            })?;
        }
        end(from, rows)?;
        self.shared
            .with(|open| open.database.persist(PersistMode::SyncAll).map_err(failed))?;
        Ok(rows)
    }
}

fn write_rows(
    open: &Open,
    out: &mut dyn Write,
    goes_on: &dyn Fn() -> bool,
) -> Result<u64, CopyError> {
    let snapshot = open.database.snapshot();
    let mut rows = 0_u64;
    out.write_all(BEGINNING)?;
    for space in Space::ALL {
        for row in snapshot.iter(open.space(space)) {
            if !goes_on() {
                return Err(CopyError::Stopped);
            }
            let (key, value) = row.into_inner().map_err(failed)?;
            out.write_all(&[number(space)])?;
            out.write_all(&length(&key)?)?;
            out.write_all(&length(&value)?)?;
            out.write_all(&key)?;
            out.write_all(&value)?;
            rows += 1;
        }
    }
    out.write_all(&[END])?;
    out.write_all(&rows.to_be_bytes())?;
    out.flush()?;
    Ok(rows)
}

impl From<std::io::Error> for CopyError {
    fn from(error: std::io::Error) -> Self {
        Self::Stream(error.kind())
    }
}

/// Passes a whole stream on, or says that it is none: who sends it may break off.
pub fn pass(from: &mut dyn Read, out: &mut dyn Write) -> Result<u64, CopyError> {
    let mut from = Passing { from, out };
    begin(&mut from)?;
    let mut rows = 0;
    while row(&mut from)?.is_some() {
        rows += 1;
    }
    end(&mut from, rows)?;
    Ok(rows)
}

/// Whatever is read goes out as well.
struct Passing<'a> {
    from: &'a mut dyn Read,
    out: &'a mut dyn Write,
}

impl Read for Passing<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let got = self.from.read(into)?;
        self.out.write_all(&into[..got])?;
        Ok(got)
    }
}

fn begin(from: &mut dyn Read) -> Result<(), CopyError> {
    let mut beginning = [0; BEGINNING.len()];
    exactly(from, &mut beginning)?;
    let begins = beginning == *BEGINNING;
    begins.then_some(()).ok_or(CopyError::Misshapen)
}

fn end(from: &mut dyn Read, rows: u64) -> Result<(), CopyError> {
    let mut counted = [0; NUMBER_LEN];
    exactly(from, &mut counted)?;
    let ends = u64::from_be_bytes(counted) == rows && from.read(&mut [0])? == 0;
    ends.then_some(()).ok_or(CopyError::Misshapen)
}

/// A space's key and value.
type Row = (Space, Vec<u8>, Vec<u8>);

/// The next row, or nothing at the end.
fn row(from: &mut dyn Read) -> Result<Option<Row>, CopyError> {
    let mut kind = [0];
    exactly(from, &mut kind)?;
    if kind == [END] {
        return Ok(None);
    }
    let space = Space::ALL.into_iter().find(|it| number(*it) == kind[0]);
    let space = space.ok_or(CopyError::Misshapen)?;
    let mut lengths = [0; 8];
    exactly(from, &mut lengths)?;
    let (key, value) = lengths.split_at(4);
    let piece = |length: &[u8], max: usize| {
        let length = length.try_into().map(u32::from_be_bytes);
        let length = length.ok().and_then(|it| usize::try_from(it).ok());
        let length = length.filter(|it| *it <= max);
        length.map(|it| vec![0; it]).ok_or(CopyError::Misshapen)
    };
    let mut key = piece(key, KEY_BYTES_MAX)?;
    let mut value = piece(value, VALUE_BYTES_MAX)?;
    exactly(from, &mut key)?;
    exactly(from, &mut value)?;
    Ok(Some((space, key, value)))
}

/// A stream that ends too early is misshapen: its sender has broken off.
fn exactly(from: &mut dyn Read, into: &mut [u8]) -> Result<(), CopyError> {
    from.read_exact(into).map_err(|error| {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            CopyError::Misshapen
        } else {
            CopyError::Stream(error.kind())
        }
    })
}

/// Numbers that stand in backups: a space keeps its own for good.
const fn number(space: Space) -> u8 {
    match space {
        Space::Channels => 1,
        Space::Heads => 2,
        Space::Records => 3,
        Space::Ids => 4,
        Space::Mail => 5,
        Space::Welcomes => 6,
        Space::Packages => 7,
        Space::LastResorts => 8,
        Space::GroupInfos => 9,
        Space::Counters => 10,
        Space::Usage => 11,
        Space::Reports => 12,
    }
}

fn length(bytes: &[u8]) -> Result<[u8; 4], CopyError> {
    u32::try_from(bytes.len())
        .map(u32::to_be_bytes)
        .map_err(|_| unavailable(&std::io::ErrorKind::FileTooLarge.into()).into())
}

const BEGINNING: &[u8; 8] = b"sktrows1";
const END: u8 = 0;
/// fjall takes no longer keys.
const KEY_BYTES_MAX: usize = 65_536;
/// Far more than any row has; a length is not believed blindly.
const VALUE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Rows that are put in at once.
const GROUP_BYTES: usize = 1024 * 1024;
const ROW_COST: usize = 64;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use skytale_wire::id::{AgentId, ChannelId, Digest, MessageId, Seq};

    use super::*;
    use crate::archive::{Append, Archive as _, ArchiveReader as _, Write};

    const CHANNEL: ChannelId = ChannelId([1; 32]);

    fn append(seq: u64) -> Write {
        Write::Append(Append {
            channel: CHANNEL,
            seq: Seq(seq),
            record: Bytes::from(vec![7; 300]),
            hash: Digest([u8::try_from(seq % 251).unwrap(); 32]),
            agent: AgentId([2; 32]),
            id: MessageId([u8::try_from(seq % 251).unwrap(); 16]),
            state: None,
            welcomes: Vec::new(),
            sealed: None,
            ends_epoch: false,
            charge: None,
        })
    }

    fn archive_of(dir: &std::path::Path, records: u64) -> FjallArchive {
        let mut archive = FjallArchive::open(dir).unwrap();
        let state = Bytes::from_static(b"state");
        let channel = CHANNEL;
        archive.write(&[Write::Channel { channel, state }]).unwrap();
        let appends: Vec<_> = (1..=records).map(append).collect();
        archive.write(&appends).unwrap();
        archive
    }

    fn exported(archive: &FjallArchive) -> Vec<u8> {
        let mut stream = Vec::new();
        archive.reader().export(&mut stream, &|| true).unwrap();
        stream
    }

    #[test]
    fn what_was_exported_is_the_same_archive_again_and_goes_on() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let archive = archive_of(old.path(), 200);
        let stream = exported(&archive);

        let mut copy = FjallArchive::open(new.path()).unwrap();
        copy.import(&mut &stream[..]).unwrap();
        drop(copy);

        let mut copy = FjallArchive::open(new.path()).unwrap();
        let (was, is) = (archive.reader(), copy.reader());
        assert_eq!(is.channels().unwrap(), was.channels().unwrap());
        let all =
            |reader: &FjallReader| reader.records(&CHANNEL, Seq(0), 1_000, usize::MAX).unwrap();
        assert_eq!(all(&is), all(&was));
        assert_eq!(exported(&copy), stream);
        copy.write(&[append(201)]).unwrap();
        assert_eq!(copy.reader().channels().unwrap()[0].head, Seq(201));
    }

    #[test]
    fn an_export_is_of_one_moment_though_writing_goes_on() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let archive = std::cell::RefCell::new(archive_of(old.path(), 50));
        let next = std::cell::Cell::new(51);
        let reader = archive.borrow().reader();
        let mut stream = Vec::new();

        // A record more at each row that is read.
        let writing = || {
            archive.borrow_mut().write(&[append(next.get())]).unwrap();
            next.set(next.get() + 1);
            true
        };
        reader.export(&mut stream, &writing).unwrap();

        assert!(next.get() > 100);
        let mut copy = FjallArchive::open(new.path()).unwrap();
        copy.import(&mut &stream[..]).unwrap();
        let reader = copy.reader();
        assert_eq!(reader.channels().unwrap()[0].head, Seq(50));
        let records = reader.records(&CHANNEL, Seq(0), 1_000, usize::MAX);
        assert_eq!(records.unwrap().len(), 50);
    }

    #[test]
    fn a_stream_that_was_cut_off_or_has_more_behind_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let stream = exported(&archive_of(dir.path(), 3));
        let import = |bytes: &[u8]| {
            let dir = tempfile::tempdir().unwrap();
            let mut copy = FjallArchive::open(dir.path()).unwrap();
            copy.import(&mut &*bytes)
        };

        for kept in 0..stream.len() {
            let refused = pass(&mut &stream[..kept], &mut Vec::new());
            assert!(matches!(refused, Err(CopyError::Misshapen)), "{kept}");
        }
        let cut = &stream[..stream.len() - 1];
        assert!(matches!(import(cut), Err(CopyError::Misshapen)));
        let more = [&stream[..], b"x"].concat();
        assert!(matches!(import(&more), Err(CopyError::Misshapen)));
        let mut passed = Vec::new();
        pass(&mut &stream[..], &mut passed).unwrap();
        assert_eq!(passed, stream);
        assert!(import(&stream).is_ok());
    }
}
