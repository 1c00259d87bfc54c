//! Writes on their way to the store, in order, and what each will set free once it is durable.

use std::collections::{HashMap, VecDeque};

use skytale_wire::{
    envelope::Place,
    frame::{Deliver, Nack, Sealed, ToAgent, Welcome},
    id::{AgentId, ChannelId, Epoch, MessageId, Seq},
    refusal::Refusal,
};

use super::{
    Conn, Output, Ticket,
    meter::MeterWrite,
    slim::{After, SlimAppended},
};
use crate::archive::Write;

/// The queue of writes, and which requests it has answered or is about to.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Whether the store takes writes. Goes false with a failure, and true after a reload.
    pub(super) writable: bool,
    last: Ticket,
    pending: VecDeque<Pending>,
    /// Requests that were given a place lately. Idempotency holds here between the lookup in the
    /// archive and the write.
    known: HashMap<RequestKey, Known>,
    /// The stored ones among them, oldest first.
    stored: VecDeque<RequestKey>,
}

/// What names a request for ever.
pub type RequestKey = (AgentId, ChannelId, MessageId);

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Its write is on the way.
    Waiting(Ticket, Seq),
    /// It is stored at this place.
    Stored(Seq),
}

/// One write on its way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) ticket: Ticket,
    pub(super) effect: Effect,
    /// Goes out once it is durable.
    pub(super) replies: Vec<Reply>,
    /// What of SLIM may not overtake it.
    pub(super) after: Vec<After>,
}

/// A frame that waits for a write.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) conn: Conn,
    /// Which request, to refuse it by when the write fails.
    pub(super) id: MessageId,
    pub(super) channel: Option<ChannelId>,
    /// Whether what the same connection publishes behind it waits, were the write to fail.
    pub(super) ordered: bool,
    /// Empty when the write's own result gives the answer.
    pub(super) frame: Option<ToAgent>,
}

/// What becomes true once a write is durable.
#[derive(Debug)]
pub(super) enum Effect {
    /// A record has its place.
    Appended {
        deliver: Deliver,
        key: RequestKey,
        /// For a commit.
        commit: Option<Box<Committed>>,
    },
    /// A channel exists.
    Created { channel: ChannelId },
    /// A `GroupInfo` can be handed out.
    Sealed {
        channel: ChannelId,
        epoch: Epoch,
        sealed: Sealed,
    },
    /// `KeyPackages` are kept.
    KeyPackagesPut,
    /// A KeyPackage of this agent is handed out.
    KeyPackageTaken { agent: AgentId },
    /// Bodies are gone.
    Pruned { channel: ChannelId, up_to: Seq },
    /// A message has its place in the log of a SLIM name.
    SlimAppended(Box<SlimAppended>),
    /// Messages of a SLIM name are gone.
    SlimPruned { log: ChannelId, up_to: Seq },
    /// What was used is written, or a report of it.
    Metered(MeterWrite),
    /// Nobody waits for it.
    Nothing,
}

/// What belongs to a commit beyond its record.
#[derive(Debug)]
pub(super) struct Committed {
    /// The epoch that begins.
    pub(super) epoch: Epoch,
    pub(super) welcomes: Vec<(AgentId, Welcome)>,
    pub(super) sealed: Option<Sealed>,
}

impl Effect {
    /// Which request gets which place, when it is a record.
    fn place(&self) -> Option<(RequestKey, Seq)> {
        match self {
            Self::Appended { deliver, key, .. } => Some((*key, deliver.seq)),
            Self::SlimAppended(appended) => Some((appended.key, appended.seq)),
            Self::Created { .. }
            | Self::Sealed { .. }
            | Self::KeyPackagesPut
            | Self::KeyPackageTaken { .. }
            | Self::Pruned { .. }
            | Self::SlimPruned { .. }
            | Self::Metered(_)
            | Self::Nothing => None,
        }
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            writable: true,
            last: Ticket(0),
            pending: VecDeque::new(),
            known: HashMap::new(),
            stored: VecDeque::new(),
        }
    }
}

impl Ledger {
    /// How many writes are on their way.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Hands a write to the store.
    pub(super) fn write(
        &mut self,
        write: Write,
        effect: Effect,
        reply: Option<Reply>,
        out: &mut Vec<Output>,
    ) -> Ticket {
        self.last = Ticket(self.last.0 + 1);
        let ticket = self.last;
        if let Some((key, seq)) = effect.place() {
            self.known.insert(key, Known::Waiting(ticket, seq));
        }
        self.pending.push_back(Pending {
            ticket,
            effect,
            replies: reply.into_iter().collect(),
            after: Vec::new(),
        });
        out.push(Output::Store { ticket, write });
        ticket
    }

    /// What became of a request that was given a place in this run.
    pub(super) fn known(&self, key: &RequestKey) -> Option<Known> {
        self.known.get(key).copied()
    }

    /// Lets a reply wait for a write. Given back when that write is not on its way.
    pub(super) fn wait(&mut self, ticket: Ticket, reply: Reply) -> Option<Reply> {
        let found = self
            .pending
            .binary_search_by_key(&ticket, |pending| pending.ticket);
        let Ok(index) = found else {
            return Some(reply);
        };
        let replies = &mut self.pending[index].replies;
        // The same request twice on one connection needs one answer.
        let asked = |other: &Reply| (other.conn, other.id) == (reply.conn, reply.id);
        if !replies.iter().any(asked) {
            replies.push(reply);
        }
        None
    }

    /// Lets something of SLIM wait for a write. Given back when that write is not on its way.
    pub(super) fn wait_after(&mut self, ticket: Ticket, after: After) -> Option<After> {
        let found = self
            .pending
            .binary_search_by_key(&ticket, |pending| pending.ticket);
        match found {
            Ok(index) => {
                self.pending[index].after.push(after);
                None
            }
            Err(_) => Some(after),
        }
    }

    /// Takes out a write that has become durable.
    pub(super) fn settle(&mut self, ticket: Ticket) -> Option<Pending> {
        // Writes become durable in order, so that it is the first one.
        let index = self
            .pending
            .binary_search_by_key(&ticket, |pending| pending.ticket)
            .ok()?;
        let pending = self.pending.remove(index)?;
        if let Some((key, seq)) = pending.effect.place() {
            self.known.insert(key, Known::Stored(seq));
            self.stored.push_back(key);
            if self.stored.len() > STORED_KEYS_MAX
                && let Some(oldest) = self.stored.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        Some(pending)
    }

    /// Takes out a failed write and all behind it, or nothing when it is not on its way.
    pub(super) fn fail(&mut self, ticket: Ticket) -> Vec<Pending> {
        let first = self
            .pending
            .partition_point(|pending| pending.ticket < ticket);
        let failed: Vec<_> = self.pending.drain(first..).collect();
        for pending in &failed {
            if let Some((key, _)) = pending.effect.place() {
                self.known.remove(&key);
            }
        }
        failed
    }
}

/// A refusal without more to say.
pub(super) fn nack(id: MessageId, channel: Option<ChannelId>, refusal: Refusal) -> ToAgent {
    ToAgent::Nack(Nack {
        id,
        channel,
        refusal,
        epoch: None,
        winner: None,
    })
}

/// A refusal that tells a member where its channel is.
pub(super) fn stale(
    id: MessageId,
    channel: ChannelId,
    epoch: Epoch,
    winner: Option<Place>,
) -> ToAgent {
    ToAgent::Nack(Nack {
        id,
        channel: Some(channel),
        refusal: Refusal::StaleEpoch,
        epoch: Some(epoch),
        winner,
    })
}

/// Stored requests remembered in memory. The archive's own lookup answers for older ones.
const STORED_KEYS_MAX: usize = 16_384;
