//! What the relay keeps, and the narrow trait behind which it keeps it.
//!
//! One writer applies batches, each all or nothing and durable when `write` returns: that return
//! is what every acknowledgement waits for. Readers look at what is durable. Two implementations:
//! [`fjall`] by default, [`sqlite`] as the reference model.

use bytes::Bytes;
use skytale_wire::{
    Blob,
    envelope::{Envelope, Kind},
    frame,
    id::{AgentId, ChannelId, Digest, Epoch, MessageId, Seq, Time},
};

#[cfg(test)]
mod conformance;
pub mod fjall;
pub mod sqlite;
pub mod usage;

use usage::{Charge, Report};

/// One change of what is kept.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are appends: boxing each to make the others small would cost more"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A channel's state, without a record: creation, rights, cursors.
    Channel {
        /// Which.
        channel: ChannelId,
        /// Encoded by the hub; opaque here.
        state: Bytes,
    },
    /// A record and everything that must become true with it.
    Append(Append),
    /// A `GroupInfo` sealed afresh; the newest replaces the one before.
    GroupInfo {
        /// Which channel.
        channel: ChannelId,
        /// What is kept.
        sealed: SealedGroupInfo,
    },
    /// More `KeyPackages` of an agent. Answered by [`Written::KeyPackages`].
    PutKeyPackages {
        /// Whose.
        agent: AgentId,
        /// Each to be handed out once, in this order.
        packages: Vec<Blob>,
        /// Replaces the last-resort package.
        last_resort: Option<Blob>,
        /// When they came; the age rule counts from here.
        at: Time,
        /// More than this many are not kept: the oldest go.
        keep_max: u32,
    },
    /// Hands out one KeyPackage for good, or the last-resort one when no other is left. Answered
    /// by [`Written::KeyPackage`].
    TakeKeyPackage {
        /// Whose.
        agent: AgentId,
        /// Older packages are dropped instead of handed out.
        not_before: Time,
    },
    /// A Welcome has been dealt with.
    DropWelcome {
        /// Whose mailbox.
        agent: AgentId,
        /// Where it led.
        channel: ChannelId,
        /// Which.
        id: MessageId,
    },
    /// Retention: application records up to here become stubs, those of SLIM go altogether, and
    /// the Pruned mark moves here.
    Prune {
        /// Which channel.
        channel: ChannelId,
        /// Inclusive.
        up_to: Seq,
    },
    /// A log that holds nothing any more ends; written to again, it begins at the first place. Only
    /// for logs of SLIM, of which pruning leaves nothing behind.
    Forget {
        /// Which log.
        channel: ChannelId,
    },
    /// What was used beside records. Written again after a failure it counts once, because the
    /// archive knows the last number; which numbers there are is the writer's choice.
    Charge {
        /// Which of these writes.
        number: u64,
        /// What was used.
        charges: Vec<Charge>,
    },
    /// Takes rows of usage into a report, if none waits already. Answered by [`Written::Report`].
    CloseReport {
        /// Its number, unless the archive has given that or a higher one.
        at_least: u64,
    },
    /// The API server has taken the report of this number.
    DropReport {
        /// Which.
        number: u64,
    },
}

/// A record with what belongs to the same write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Which channel.
    pub channel: ChannelId,
    /// Its place: always the head's successor.
    pub seq: Seq,
    /// The encoded [`skytale_wire::envelope::Envelope`].
    pub record: Bytes,
    /// The log hash at `seq`.
    pub hash: Digest,
    /// Who sent it: with `id`, the key of idempotency.
    pub agent: AgentId,
    /// The sender's name for it.
    pub id: MessageId,
    /// The channel's state afterwards, when the record changes it.
    pub state: Option<Bytes>,
    /// Into these agents' mailboxes.
    pub welcomes: Vec<WelcomeRow>,
    /// The sealed `GroupInfo` of the next epoch; `None` in a commit drops the old one.
    pub sealed: Option<SealedGroupInfo>,
    /// Whether the old sealed `GroupInfo` goes when `sealed` is empty.
    pub ends_epoch: bool,
    /// Who pays for it, when somebody does.
    pub charge: Option<Charge>,
}

/// A Welcome in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WelcomeRow {
    /// Whose mailbox.
    pub agent: AgentId,
    /// Where it leads.
    pub channel: ChannelId,
    /// The commit's id.
    pub id: MessageId,
    /// The encoded [`skytale_wire::frame::Welcome`].
    pub frame: Bytes,
}

/// A `GroupInfo` that only holders of open invites can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedGroupInfo {
    /// The epoch that it describes.
    pub epoch: Epoch,
    /// The encoded [`skytale_wire::frame::Sealed`].
    pub sealed: Bytes,
}

/// What a write gave back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// Nothing to tell but that it is durable.
    Done,
    /// How many `KeyPackages` there are now, the last-resort one not counted.
    KeyPackages(u32),
    /// The one that was handed out.
    KeyPackage(Option<Blob>),
    /// The report that waits now, if anything was used.
    Report(Option<Report>),
}

/// Where a channel stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChannel {
    /// Which.
    pub channel: ChannelId,
    /// As the hub encoded it.
    pub state: Bytes,
    /// The last record's place, zero when there is none.
    pub head: Seq,
    /// The log hash there, all zero when there is no record.
    pub hash: Digest,
    /// Bodies up to here have been pruned.
    pub pruned: Seq,
}

/// A record as it was appended, or its stub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its place.
    pub seq: Seq,
    /// The encoded envelope.
    pub record: Bytes,
}

/// `KeyPackages` that are left for an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyPackagesLeft {
    /// Single-use ones.
    pub count: u32,
    /// Whether there is one for last resort.
    pub last_resort: bool,
}

/// The writing side: exactly one exists for a store.
pub trait Archive: Send {
    /// The reading side.
    type Reader: ArchiveReader;

    /// Applies all of `batch` or nothing of it, and returns once it is durable: one answer for
    /// each write, in order. An empty batch asks whether the disk takes writes.
    ///
    /// After an error the store may be unusable until it is opened again; what had been
    /// acknowledged before is still there.
    fn write(&mut self, batch: &[Write]) -> Result<Vec<Written>, ArchiveError>;

    /// A reader that sees every batch whose `write` has returned.
    fn reader(&self) -> Self::Reader;
}

/// The reading side, shared between threads.
pub trait ArchiveReader: Clone + Send + Sync + 'static {
    /// Every channel with its head. Must not read the records: a store of a million opens at once.
    fn channels(&self) -> Result<Vec<StoredChannel>, ArchiveError>;

    /// Records after `after`, contiguous but where pruning has left nothing, at most `count_max` of them and, beyond the first, at
    /// most `bytes_max` bytes.
    fn records(
        &self,
        channel: &ChannelId,
        after: Seq,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredRecord>, ArchiveError>;

    /// The log hash at a place, all zero at place zero.
    fn hash_at(&self, channel: &ChannelId, seq: Seq) -> Result<Option<Digest>, ArchiveError>;

    /// Where an earlier publish or commit with this id was stored.
    fn find(
        &self,
        channel: &ChannelId,
        agent: &AgentId,
        id: &MessageId,
    ) -> Result<Option<Seq>, ArchiveError>;

    /// The Welcomes in a mailbox, oldest first, at most `count_max`.
    fn welcomes(&self, agent: &AgentId, count_max: usize) -> Result<Vec<Bytes>, ArchiveError>;

    /// How many Welcomes wait, counted up to `count_max`.
    fn welcomes_waiting(&self, agent: &AgentId, count_max: usize) -> Result<u32, ArchiveError>;

    /// The sealed `GroupInfo` of a channel.
    fn group_info(&self, channel: &ChannelId) -> Result<Option<SealedGroupInfo>, ArchiveError>;

    /// How many `KeyPackages` an agent has left.
    fn key_packages(&self, agent: &AgentId) -> Result<KeyPackagesLeft, ArchiveError>;
}

/// What went wrong with the store, by what the relay can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The disk is full, slow to answer or refuses to sync: nothing of the batch counts.
    #[error("the archive cannot write: {0}")]
    Unavailable(String),
    /// What was read is not what was written.
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    /// Another process has it open.
    #[error("another process uses this archive: stop it first")]
    InUse,
}

/// What retention does to a record.
enum Fate {
    /// It stays: commits, joins and departures are needed by whoever catches up.
    Stays,
    /// Its body goes. This is what is left, so that members can go on with the log hash.
    Shrinks(Vec<u8>),
    /// It goes, and with it the key by which it was known again: nobody computes the log hash of a
    /// SLIM name.
    Goes(AgentId, MessageId),
}

fn fate_of(record: &[u8]) -> Result<Fate, ArchiveError> {
    let envelope: Envelope = frame::decode(record, record.len())
        .map_err(|_| ArchiveError::Damaged("a record cannot be read".into()))?;
    Ok(match envelope.kind {
        Kind::Application => Fate::Shrinks(frame::encode(&envelope.stub())),
        Kind::Commit | Kind::Join | Kind::Leave => Fate::Stays,
        Kind::SlimMessageOne | Kind::SlimMessageTwo | Kind::SlimCommitOne | Kind::SlimCommitTwo => {
            Fate::Goes(envelope.agent, envelope.id)
        }
    })
}
