//! The threads that own the archive: one writes, in groups, and some read.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use skytale_wire::id::{AgentId, ChannelId, MessageId, Seq};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::{
    archive::{Append, Archive, ArchiveError, ArchiveReader, StoredRecord, Write, Written},
    hub::{Answer, Conn, Query, Ticket},
};

/// What the threads tell the driver.
pub(super) enum Report {
    /// These are durable.
    Stored(Vec<(Ticket, Written)>),
    /// This write and everything after it is not; nothing more is written until
    /// [`Store::resume`].
    Failed(Ticket),
    /// The disk takes writes again.
    Works,
    /// The answer to a query.
    Answered(Conn, Answer),
}

/// The driver's end of the threads. Nothing here waits: what does not fit is given back.
pub(super) struct Store {
    writes: SyncSender<Command>,
    queries: SyncSender<(Conn, Query)>,
    threads: Vec<JoinHandle<()>>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are writes: boxing each to make the others small would cost more"
)]
enum Command {
    Write(Ticket, Write),
    Resume,
}

impl Store {
    pub(super) fn start<A: Archive + 'static>(
        archive: A,
        reports: &mpsc::Sender<Report>,
    ) -> std::io::Result<Self> {
        let (writes, commands) = sync_channel(WRITES_MAX);
        let (queries, asked) = sync_channel(QUERIES_MAX);
        let asked = Arc::new(Mutex::new(asked));
        let mut threads = Vec::new();
        for _ in 0..READERS {
            let (reader, asked, reports) = (archive.reader(), Arc::clone(&asked), reports.clone());
            threads.push(spawn("archive-reader", move || {
                answer_queries(&reader, &asked, &reports);
            })?);
        }
        let reports = reports.clone();
        threads.push(spawn("archive-writer", move || {
            Writer { archive, reports }.run(&commands);
        })?);
        Ok(Self {
            writes,
            queries,
            threads,
        })
    }

    /// Hands a write on, or gives it back when too many wait.
    pub(super) fn write(&self, ticket: Ticket, write: Write) -> Option<(Ticket, Write)> {
        match self.writes.try_send(Command::Write(ticket, write)) {
            Ok(()) => None,
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => match command
            {
                Command::Write(ticket, write) => Some((ticket, write)),
                Command::Resume => None,
            },
        }
    }

    /// Hands a query on, or gives it back when too many wait.
    pub(super) fn ask(&self, conn: Conn, query: Query) -> Option<(Conn, Query)> {
        match self.queries.try_send((conn, query)) {
            Ok(()) => None,
            Err(TrySendError::Full(asked) | TrySendError::Disconnected(asked)) => Some(asked),
        }
    }

    /// Writes handed on from now on count again. False when that must be tried once more.
    pub(super) fn resume(&self) -> bool {
        self.writes.try_send(Command::Resume).is_ok()
    }

    /// Lets the threads finish, which they do when nobody hands them anything any more; the
    /// caller joins them.
    pub(super) fn stop(self) -> Vec<JoinHandle<()>> {
        let Self {
            writes,
            queries,
            threads,
        } = self;
        drop((writes, queries));
        threads
    }
}

/// How much a write weighs in a group.
pub(super) fn weight(write: &Write) -> usize {
    let heavy = match write {
        Write::Append(Append {
            record,
            state,
            welcomes,
            sealed,
            ..
        }) => {
            record.len()
                + state.as_ref().map_or(0, Bytes::len)
                + welcomes.iter().map(|row| row.frame.len()).sum::<usize>()
                + sealed.as_ref().map_or(0, |sealed| sealed.sealed.len())
        }
        Write::Channel { state, .. } => state.len(),
        Write::GroupInfo { sealed, .. } => sealed.sealed.len(),
        Write::PutKeyPackages { packages, .. } => packages.iter().map(|it| it.len()).sum(),
        Write::Charge { charges, .. } => size_of_val(charges.as_slice()),
        Write::TakeKeyPackage { .. }
        | Write::CloseReport { .. }
        | Write::DropReport { .. }
        | Write::DropWelcome { .. }
        | Write::Prune { .. }
        | Write::Forget { .. } => 0,
    };
    heavy + WRITE_COST
}

struct Writer<A> {
    archive: A,
    reports: mpsc::Sender<Report>,
}

impl<A: Archive> Writer<A> {
    /// Ends when the driver has dropped its end, after writing what it had handed on.
    fn run(mut self, commands: &Receiver<Command>) {
        while let Ok(first) = commands.recv() {
            let group = gather(first, commands);
            if group.is_empty() {
                continue;
            }
            let (tickets, writes): (Vec<Ticket>, Vec<Write>) = group.into_iter().unzip();
            let report = match self.archive.write(&writes) {
                Ok(written) => Report::Stored(tickets.into_iter().zip(written).collect()),
                Err(error) => {
                    warn!(%error, "the archive refused a write: publishing stops");
                    Report::Failed(tickets[0])
                }
            };
            let failed = matches!(report, Report::Failed(_));
            if self.reports.blocking_send(report).is_err() {
                return;
            }
            if failed && !self.recover(commands) {
                return;
            }
        }
    }

    /// Throws writes away, whose heads are wrong now, and asks the disk from time to time until
    /// the driver has loaded the heads again. False when the driver is gone.
    fn recover(&mut self, commands: &Receiver<Command>) -> bool {
        loop {
            match commands.recv_timeout(PROBE_INTERVAL) {
                Ok(Command::Resume) => {
                    info!("the archive takes writes again");
                    return true;
                }
                Ok(Command::Write(..)) => {}
                Err(RecvTimeoutError::Timeout) => {
                    let works = self.archive.write(&[]).is_ok();
                    if works && self.reports.blocking_send(Report::Works).is_err() {
                        return false;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

/// What waits already joins the first: one sync for all of them. So the rate grows with the load,
/// and a lone write waits for nobody.
fn gather(first: Command, commands: &Receiver<Command>) -> Vec<(Ticket, Write)> {
    let mut group = Vec::new();
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(command) = next.take() {
        // A resume without a failure has nothing to say.
        if let Command::Write(ticket, write) = command {
            bytes += weight(&write);
            group.push((ticket, write));
        }
        if group.len() < GROUP_WRITES_MAX && bytes < GROUP_BYTES_MAX {
            next = commands.try_recv().ok();
        }
    }
    group
}

fn answer_queries<R: ArchiveReader>(
    reader: &R,
    asked: &Mutex<Receiver<(Conn, Query)>>,
    reports: &mpsc::Sender<Report>,
) {
    loop {
        let next = asked.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((conn, query)) = next else { return };
        let answer = answer(reader, &query).unwrap_or_else(|error| {
            warn!(%error, "the archive could not be read");
            Answer::Unreadable(query)
        });
        if reports
            .blocking_send(Report::Answered(conn, answer))
            .is_err()
        {
            return;
        }
    }
}

fn answer<R: ArchiveReader>(reader: &R, query: &Query) -> Result<Answer, ArchiveError> {
    Ok(match query {
        Query::Greeting { agent } => Answer::Greeting {
            key_packages: reader.key_packages(agent)?,
            welcomes: reader.welcomes_waiting(agent, WELCOMES_COUNTED_MAX)?,
        },
        Query::Records {
            channel,
            after,
            count_max,
            bytes_max,
        } => Answer::Records {
            channel: *channel,
            after: *after,
            records: reader.records(channel, *after, *count_max, *bytes_max)?,
        },
        Query::HashAt { channel, seq } => Answer::HashAt {
            channel: *channel,
            seq: *seq,
            hash: reader.hash_at(channel, *seq)?,
        },
        Query::Welcomes { agent } => {
            Answer::Welcomes(fitting(reader.welcomes(agent, WELCOMES_MAX)?))
        }
        Query::GroupInfo { channel } => Answer::GroupInfo {
            channel: *channel,
            sealed: reader.group_info(channel)?,
        },
        Query::SlimRecords {
            log,
            after,
            count_max,
            bytes_max,
        } => Answer::SlimRecords {
            log: *log,
            after: *after,
            records: reader.records(log, *after, *count_max, *bytes_max)?,
        },
        Query::SlimRecord { logs, agent, id } => {
            Answer::SlimRecord(record_named(reader, logs, agent, id)?)
        }
    })
}

fn record_named<R: ArchiveReader>(
    reader: &R,
    logs: &[ChannelId],
    agent: &AgentId,
    id: &MessageId,
) -> Result<Option<StoredRecord>, ArchiveError> {
    for log in logs {
        let Some(seq) = reader.find(log, agent, id)? else {
            continue;
        };
        let before = Seq(seq.0.saturating_sub(1));
        let found = reader.records(log, before, 1, 0)?.pop();
        // Pruned between the two look-ups, it is not there any more.
        return Ok(found.filter(|record| record.seq == seq));
    }
    Ok(None)
}

/// The first of these frames, and as many more as stay small together: a connection's queue has
/// room for them.
fn fitting(mut frames: Vec<Bytes>) -> Vec<Bytes> {
    let mut bytes = 0;
    let fits = frames.iter().take_while(|frame| {
        bytes += frame.len();
        bytes <= WELCOME_BYTES_MAX
    });
    let count = fits.count().max(1);
    frames.truncate(count);
    frames
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// A group is synced at once when it has so many writes, or so many bytes.
const GROUP_WRITES_MAX: usize = 256;
const GROUP_BYTES_MAX: usize = 1024 * 1024;
/// Writes that may wait for the writer; beyond it they wait in the driver, which then takes no
/// more frames.
const WRITES_MAX: usize = 1_024;
/// Queries that may wait for the readers; beyond it they wait in the driver.
const QUERIES_MAX: usize = 64;
const READERS: usize = 2;
/// Welcomes that are read at once; the agent asks again when it has dealt with them.
const WELCOMES_MAX: usize = 16;
const WELCOME_BYTES_MAX: usize = 1024 * 1024;
const WELCOMES_COUNTED_MAX: usize = 1_000;
/// How often a disk that has failed is asked.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
const WRITE_COST: usize = 128;
