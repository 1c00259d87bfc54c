//! The log of a SLIM name: places in the order of arrival, stored before they are passed on.
//!
//! A log is to the archive what a channel is, with the same log hash. It has no roster and no
//! epochs: who may read it is asked at the door ([`super::rights`]).
//!
//! When all that it held is too old, a log is *empty*: only its head stays, because a reader's
//! cursor means a place for as long as the reader keeps it. Were the numbers to begin again, he
//! would miss what is new up to the place that he had reached. Empty logs count as logs and make
//! room for others, the oldest first.

use std::collections::BTreeSet;

use bytes::Bytes;
use skytale_slim::{Address, Generation, Routed};
use skytale_wire::{
    Blob,
    envelope::{Envelope, Kind},
    id::{AgentId, ChannelId, Digest, Epoch, MessageId, Seq, Time},
};

use super::{
    Conn, Hub, Output, Parcel, Place, SlimDrop, SlimRules, Ticket, address,
    kept::{KeptLog, StoredSlim},
    log_of,
    rights::Owner,
    wire_name,
};
use crate::{
    archive::{Append, StoredChannel, Write},
    hub::{
        ledger::{Effect, Reply, RequestKey},
        retention,
    },
};

/// A log in memory. `head` runs ahead of the disk; `durable` is what is stored.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) kept: KeptLog,
    pub(super) head: Seq,
    hash: Digest,
    pub(super) durable: Seq,
    /// Messages up to here are gone.
    pub(super) pruned: Seq,
    pruning: bool,
}

/// A record that is let in, before it has a place.
pub(super) struct Entry {
    pub(super) log: ChannelId,
    pub(super) source: AgentId,
    pub(super) id: MessageId,
    pub(super) kind: Kind,
    /// Of a commit or proposal.
    pub(super) epoch: Epoch,
    pub(super) parcel: Parcel,
    /// What is said to its sender once it is stored.
    pub(super) verdict: Option<Output>,
    pub(super) reply: Option<Reply>,
    /// Whether the groups of the name have moved with it.
    pub(super) moves_group: bool,
}

/// What becomes true once a record of a log is durable.
#[derive(Debug)]
pub(in crate::hub) struct SlimAppended {
    pub(in crate::hub) key: RequestKey,
    pub(in crate::hub) seq: Seq,
    parcel: Parcel,
    verdict: Option<Output>,
}

impl Hub {
    /// The log of a name, begun when it has none. `None` where messages are not stored, or no
    /// further log may be.
    pub(super) fn slim_log(&mut self, name: Address, out: &mut Vec<Output>) -> Option<ChannelId> {
        let rules = &self.config.slim;
        if !rules.archive {
            return None;
        }
        let id = log_of(name);
        if self.slim.logs.contains_key(&id) {
            self.slim.wake(id);
            return Some(id);
        }
        let account = self.slim.account_of(name);
        if !self.slim_make_room(account.as_deref(), out) {
            return None;
        }
        let log = Log::at(KeptLog {
            name: wire_name(name),
            account: account.clone(),
            groups: Vec::new(),
            marks: Vec::new(),
            emptied: None,
        });
        let write = Write::Channel {
            channel: id,
            state: log.state(),
        };
        self.ledger.write(write, Effect::Nothing, None, out);
        *self.slim.logs_of.entry(account).or_default() += 1;
        self.slim.names.insert(name, id);
        self.slim.logs.insert(id, log);
        Some(id)
    }

    /// Gives a record its place. It is passed on once it is stored.
    pub(super) fn slim_append(&mut self, entry: Entry, now: Time, out: &mut Vec<Output>) -> Ticket {
        let spacing_ms = retention::spacing_ms(self.config.retention_ms);
        let log = self
            .slim
            .logs
            .get_mut(&entry.log)
            .expect("the caller has looked it up");
        let mut parcel = entry.parcel;
        let conn = parcel.from;
        let seq = log.head.next();
        let envelope = Envelope {
            kind: entry.kind,
            epoch: entry.epoch,
            agent: entry.source,
            id: entry.id,
            body: Blob(parcel.original.clone()),
            change: None,
            pruned: None,
            received: now,
        };
        log.hash = envelope.log_hash(&log.hash, seq);
        log.head = seq;
        let marked = retention::mark(&mut log.kept.marks, seq, now, spacing_ms);
        if entry.moves_group {
            log.kept.groups = self.slim.orders.kept(parcel.destination);
        }
        let said = match entry.kind {
            Kind::SlimMessageOne | Kind::SlimMessageTwo => 1,
            Kind::SlimCommitOne
            | Kind::SlimCommitTwo
            | Kind::Application
            | Kind::Commit
            | Kind::Join
            | Kind::Leave => 0,
        };
        let write = Write::Append(Append {
            channel: entry.log,
            seq,
            record: encode_record(&envelope),
            hash: log.hash,
            agent: entry.source,
            id: entry.id,
            state: (marked || entry.moves_group).then(|| log.state()),
            welcomes: Vec::new(),
            sealed: None,
            ends_epoch: false,
            charge: self.meter.cost(conn, None, said, parcel.original.len()),
        });
        parcel.place = Place::At(seq);
        let effect = Effect::SlimAppended(Box::new(SlimAppended {
            key: (entry.source, entry.log, entry.id),
            seq,
            parcel,
            verdict: entry.verdict,
        }));
        let ticket = self.ledger.write(write, effect, entry.reply, out);
        self.slim.last_writes.insert(conn, ticket);
        self.counters.slim.archived += 1;
        ticket
    }

    /// A record is durable: now it is passed on.
    pub(in crate::hub) fn slim_stored(
        &mut self,
        ticket: Ticket,
        appended: SlimAppended,
        out: &mut Vec<Output>,
    ) {
        let (_, id, _) = appended.key;
        if let Some(log) = self.slim.logs.get_mut(&id) {
            log.durable = appended.seq;
        }
        let parcel = appended.parcel;
        if self.slim.last_writes.get(&parcel.from) == Some(&ticket) {
            self.slim.last_writes.remove(&parcel.from);
        }
        self.slim_relay(&parcel, out);
        self.slim_to_followers(id, &parcel, out);
        out.extend(appended.verdict);
    }

    /// A record could not be stored: nobody gets it, and its sender says it again.
    pub(in crate::hub) fn slim_unstored(&mut self) {
        self.slim_dropped(SlimDrop::Unstored, 1);
    }

    /// Takes what the archive holds for what is true.
    pub(in crate::hub) fn slim_load(&mut self, stored: Vec<(StoredChannel, StoredSlim)>) {
        let slim = &mut self.slim;
        for name in slim.logs.values().filter_map(Log::name) {
            slim.orders.forget(name);
        }
        slim.logs.clear();
        slim.empty.clear();
        slim.names.clear();
        slim.logs_of.clear();
        slim.owners.clear();
        slim.last_writes.clear();
        for (row, kept) in stored {
            match kept {
                StoredSlim::Organisation(kept) => {
                    slim.owners.insert(kept.hash, Owner(kept.account));
                }
                StoredSlim::Log(mut kept) => {
                    let id = row.channel;
                    *slim.logs_of.entry(kept.account.clone()).or_default() += 1;
                    let emptied = kept.emptied.filter(|_| row.pruned == row.head);
                    kept.emptied = emptied;
                    if let Some(at) = emptied {
                        slim.empty.insert(kept.account.as_deref(), at.0, id);
                    } else if let Some(name) = address(&kept.name) {
                        let account = kept.account.clone();
                        slim.orders.load(name, account, &kept.groups);
                        slim.names.insert(name, id);
                    }
                    let log = Log {
                        head: row.head,
                        hash: row.hash,
                        durable: row.head,
                        pruned: row.pruned,
                        ..Log::at(kept)
                    };
                    slim.logs.insert(id, log);
                }
            }
        }
    }

    /// Lets go what is too old, in at most so many logs. Whether that was all.
    pub(in crate::hub) fn slim_prune(
        &mut self,
        now: Time,
        at_once: usize,
        out: &mut Vec<Output>,
    ) -> bool {
        let retention_ms = self.config.retention_ms;
        let spacing_ms = retention::spacing_ms(retention_ms);
        let mut due: Vec<ChannelId> = self
            .slim
            .logs
            .iter()
            .filter(|(_, log)| {
                log.is_due(now, retention_ms) || log.is_quiet(now, spacing_ms) || log.is_over()
            })
            .map(|(id, _)| *id)
            .collect();
        due.sort_unstable(); // The map's order differs from run to run.
        let all = due.len() <= at_once;
        due.truncate(at_once);
        for id in due {
            self.slim_prune_log(id, now, out);
        }
        all
    }

    pub(in crate::hub) fn slim_pruned(&mut self, id: ChannelId, up_to: Seq) {
        if let Some(log) = self.slim.logs.get_mut(&id) {
            log.pruned = log.pruned.max(up_to);
            log.pruning = false;
        }
    }

    fn slim_prune_log(&mut self, id: ChannelId, now: Time, out: &mut Vec<Output>) {
        let retention_ms = self.config.retention_ms;
        let Some(log) = self.slim.logs.get_mut(&id) else {
            return;
        };
        if log.is_over() {
            return self.slim_empty_log(id, now, out);
        }
        let spacing_ms = retention::spacing_ms(retention_ms);
        if retention::mark(&mut log.kept.marks, log.head, now, spacing_ms) {
            let write = Write::Channel {
                channel: id,
                state: log.state(),
            };
            self.ledger.write(write, Effect::Nothing, None, out);
        }
        if log.pruning {
            return;
        }
        let up_to = retention::take_marks(&mut log.kept.marks, now, retention_ms);
        if let Some(up_to) = up_to.filter(|up_to| *up_to > log.pruned) {
            log.pruning = true;
            let write = Write::Prune { channel: id, up_to };
            let effect = Effect::SlimPruned { log: id, up_to };
            self.ledger.write(write, effect, None, out);
        }
    }

    /// Keeps of a log that holds nothing only where it has ended. Instances of an application come
    /// and go, and their names with them.
    fn slim_empty_log(&mut self, id: ChannelId, now: Time, out: &mut Vec<Output>) {
        let slim = &mut self.slim;
        let Some(log) = slim.logs.get_mut(&id) else {
            return;
        };
        log.kept.emptied = Some(now);
        log.kept.groups = Vec::new();
        log.kept.marks = Vec::new();
        let account = log.kept.account.as_deref();
        slim.empty.insert(account, now.0, id);
        if let Some(name) = log.name() {
            slim.orders.forget(name);
            slim.names.remove(&name);
        }
        let write = Write::Channel {
            channel: id,
            state: log.state(),
        };
        self.ledger.write(write, Effect::Nothing, None, out);
    }

    /// Whether one more log may be begun for an account; an empty one is forgotten for it, if need
    /// be. Whoever follows a log keeps its places from beginning anew.
    fn slim_make_room(&mut self, account: Option<&str>, out: &mut Vec<Output>) -> bool {
        let slim = &self.slim;
        let may_go = |id: &ChannelId| !slim.followers.contains_key(id);
        let oldest = match slim.room(account, &self.config.slim) {
            Room::Free => return true,
            Room::ShareFull => slim.empty.oldest_of(account, may_go),
            Room::AllFull => slim.empty.oldest(may_go),
        };
        let Some(oldest) = oldest else {
            return false;
        };
        self.slim_forget_log(oldest, out);
        // There is none yet where the limits have been lowered: one goes at a time.
        self.slim.room(account, &self.config.slim) == Room::Free
    }

    fn slim_forget_log(&mut self, id: ChannelId, out: &mut Vec<Output>) {
        self.slim.wake(id);
        let Some(log) = self.slim.logs.remove(&id) else {
            return;
        };
        if let Some(name) = log.name() {
            self.slim.orders.forget(name);
            self.slim.names.remove(&name);
        }
        if let Some(count) = self.slim.logs_of.get_mut(&log.kept.account) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.slim.logs_of.remove(&log.kept.account);
            }
        }
        let write = Write::Forget { channel: id };
        self.ledger.write(write, Effect::Nothing, None, out);
    }
}

/// Whether a further log may be begun.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    Free,
    /// Not by this account.
    ShareFull,
    AllFull,
}

impl super::Slim {
    fn room(&self, account: Option<&str>, rules: &SlimRules) -> Room {
        let count = self.logs_of.get(&account.map(str::to_owned));
        if count.copied().unwrap_or_default() >= rules.logs_of_max(account) {
            Room::ShareFull
        } else if self.logs.len() >= rules.logs_max {
            Room::AllFull
        } else {
            Room::Free
        }
    }

    /// An empty log is about to be written to.
    fn wake(&mut self, id: ChannelId) {
        let Some(log) = self.logs.get_mut(&id) else {
            return;
        };
        if let Some(at) = log.kept.emptied.take() {
            let account = log.kept.account.as_deref();
            self.empty.remove(account, at.0, id);
            if let Some(name) = log.name() {
                self.names.insert(name, id);
            }
        }
    }
}

impl Log {
    fn at(kept: KeptLog) -> Self {
        Self {
            kept,
            head: Seq(0),
            hash: Digest([0; 32]),
            durable: Seq(0),
            pruned: Seq(0),
            pruning: false,
        }
    }

    pub(super) fn name(&self) -> Option<Address> {
        address(&self.kept.name)
    }

    fn state(&self) -> Bytes {
        StoredSlim::Log(self.kept.clone()).state()
    }

    fn is_due(&self, now: Time, retention_ms: u64) -> bool {
        !self.pruning && retention::is_due(&self.kept.marks, now, retention_ms)
    }

    fn is_quiet(&self, now: Time, spacing_ms: u64) -> bool {
        retention::is_quiet(&self.kept.marks, self.head, self.pruned, now, spacing_ms)
    }

    /// Whether it holds nothing any more, nothing is on its way into it, and that is not noted.
    fn is_over(&self) -> bool {
        self.kept.emptied.is_none()
            && self.head > Seq(0)
            && self.pruned == self.head
            && self.durable == self.head
    }
}

/// How the log calls the kind of a record.
pub(super) fn kind_of(message: &Routed, is_commit: bool) -> Kind {
    match (message.generation(), is_commit) {
        (Generation::One, false) => Kind::SlimMessageOne,
        (Generation::Two, false) => Kind::SlimMessageTwo,
        (Generation::One, true) => Kind::SlimCommitOne,
        (Generation::Two, true) => Kind::SlimCommitTwo,
    }
}

/// Which of SLIM's wires a record is written in; none, if it is no record of a log of SLIM.
pub(super) fn generation_in(kind: Kind) -> Option<Generation> {
    match kind {
        Kind::SlimMessageOne | Kind::SlimCommitOne => Some(Generation::One),
        Kind::SlimMessageTwo | Kind::SlimCommitTwo => Some(Generation::Two),
        Kind::Application | Kind::Commit | Kind::Join | Kind::Leave => None,
    }
}

fn encode_record(envelope: &Envelope) -> Bytes {
    let mut bytes = Vec::with_capacity(envelope.body.len() + HEADER_BYTES);
    minicbor::encode(envelope, &mut bytes).expect("writing to memory cannot fail");
    bytes.into()
}

/// Bytes of a record besides its body.
const HEADER_BYTES: usize = 160;

/// Who follows a log, in the order of their connections.
pub(super) type Followers = BTreeSet<Conn>;
