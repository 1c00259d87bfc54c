//! What the vault keeps of a channel besides its MLS group.
//!
//! | state    | sends | receives | commits | ends by |
//! |----------|-------|----------|---------|---------|
//! | Creating | queues | –       | queues  | the relay has registered the channel |
//! | Joining  | –     | –        | –       | the relay has ordered our join, or refuses it |
//! | Offered  | –     | –        | –       | the application accepts or declines |
//! | Active   | yes   | yes      | one at a time | leaving, removal, a commit nobody can apply |
//! | Leaving  | –     | –        | –       | the relay has stored our statement |
//! | Stuck    | –     | –        | –       | (a restart of the channel) |
//! | Closed   | –     | –        | –       | being added again |

use minicbor::{Decode, Encode};
use skytale_wire::{
    id::{AgentId, ChannelId, Digest, Epoch, Generation, MessageId, RelayKey, Seq, Time},
    invite::InviteSeed,
};

use crate::{command::CommandId, content::LogMark};

/// A channel's row.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Record {
    #[n(0)]
    pub(crate) id: ChannelId,
    /// Empty until the group's state has been seen.
    #[n(1)]
    pub(crate) name: String,
    #[n(2)]
    pub(crate) relay: RelayKey,
    #[n(3)]
    pub(crate) addresses: Vec<String>,
    #[n(4)]
    pub(crate) generation: Generation,
    #[n(5)]
    pub(crate) state: State,
    /// The epoch of the group, for those who read from outside.
    #[n(6)]
    pub(crate) epoch: Epoch,
    /// The last record of the log that has taken effect here.
    #[n(7)]
    pub(crate) cursor: Seq,
    /// The log hash at the cursor; unknown right after a join.
    #[n(8)]
    pub(crate) log_hash: Option<Digest>,
    /// The log at the last few places, to compare with what other members saw.
    #[n(9)]
    pub(crate) marks: Vec<LogMark>,
    /// The counter of the next message.
    #[n(10)]
    pub(crate) next_n: u64,
    /// The greatest counter of a message that the relay has stored.
    #[n(11)]
    pub(crate) kept_n: u64,
    /// Messages sealed in this epoch.
    #[n(12)]
    pub(crate) sealed: u64,
    /// How many of them the log is known to contain, counted by the newest.
    #[n(13)]
    pub(crate) logged: u64,
    /// Who invited us, until it or an admin has been read since.
    #[n(14)]
    pub(crate) unconfirmed: Option<AgentId>,
    /// The epoch's five words.
    #[n(15)]
    pub(crate) words: String,
    /// Our keys are replaced at this moment, wished or not: what somebody may have stolen of them
    /// is worthless afterwards. Stored, so that programs that run for a minute a day come to it.
    #[n(16)]
    pub(crate) renew_at: Option<Time>,
}

/// What can happen to a channel, and what exists only then.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) enum State {
    /// The group exists here, the relay does not know the channel yet.
    #[n(0)]
    Creating {
        #[n(0)]
        command: CommandId,
    },
    /// We hold an invite line.
    #[n(1)]
    Joining {
        #[n(0)]
        line: String,
        #[n(1)]
        command: CommandId,
        /// The external commit, once it has been sent. Its group waits in the shadow.
        #[n(2)]
        sent: Option<Pending>,
    },
    /// An agent that we do not know has added us.
    #[n(2)]
    Offered {
        #[n(0)]
        by: AgentId,
    },
    /// A member like any other.
    #[n(3)]
    Active {
        /// Our commit, until the log resolves it.
        #[n(0)]
        pending: Option<Pending>,
    },
    /// Our statement is on its way.
    #[n(4)]
    Leaving {
        #[n(0)]
        id: MessageId,
        #[n(1)]
        command: CommandId,
        #[n(2)]
        statement: skytale_wire::statement::Leave,
    },
    /// A commit holds its place in the log that cannot be applied.
    #[n(5)]
    Stuck {
        #[n(0)]
        seq: Seq,
        #[n(1)]
        by: AgentId,
    },
    /// Over.
    #[n(6)]
    Closed {
        #[n(0)]
        reason: Closed,
    },
}

/// Why a channel is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Closed {
    /// Another member removed us.
    #[n(0)]
    Removed,
    /// We left.
    #[n(1)]
    Left,
    /// We refused to come in.
    #[n(2)]
    Declined,
    /// The join or the creation was refused.
    #[n(3)]
    Refused,
}

impl Closed {
    /// For whoever wants something of a channel that is over, with the way back in.
    pub(crate) const fn told(self) -> &'static str {
        match self {
            Self::Removed => {
                "this agent was removed from the channel: whoever may invite can let it in again"
            }
            Self::Left => "this agent has left the channel: join it again by a new invite",
            Self::Declined => "this agent has declined the channel: join it by an invite",
            Self::Refused => "the channel was refused: join it by a new invite, or open another",
        }
    }
}

/// A commit of ours that only the log resolves.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Pending {
    #[n(0)]
    pub(crate) id: MessageId,
    /// By which it is recognised in the log.
    #[n(1)]
    pub(crate) content: Digest,
    /// The epoch that it ends.
    #[n(2)]
    pub(crate) epoch: Epoch,
    /// The wish that it fulfils; none for tidying up.
    #[n(3)]
    pub(crate) wish: Option<i64>,
    /// Its place, once the relay has said so.
    #[n(4)]
    pub(crate) seq: Option<Seq>,
}

/// Something that takes a commit.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) enum Wish {
    #[n(0)]
    Invite {
        #[n(0)]
        seed: InviteSeed,
        #[n(1)]
        uses: u32,
        #[n(2)]
        expires: Time,
        #[n(3)]
        addresses: Vec<String>,
    },
    #[n(1)]
    Add {
        #[n(0)]
        agents: Vec<AgentId>,
    },
    #[n(2)]
    Remove {
        #[n(0)]
        agents: Vec<AgentId>,
    },
    #[n(3)]
    Rotate,
    #[n(4)]
    Grant {
        #[n(0)]
        agent: AgentId,
        #[n(1)]
        admin: bool,
        #[n(2)]
        may_invite: bool,
    },
    #[n(5)]
    CloseInvites,
    /// Not a commit, but it takes its turn among them.
    #[n(6)]
    Leave,
}

impl Record {
    /// A channel that has just come into being here.
    pub(crate) fn new(
        id: ChannelId,
        name: String,
        relay: RelayKey,
        addresses: Vec<String>,
        state: State,
    ) -> Self {
        Self {
            id,
            name,
            relay,
            addresses,
            generation: Generation(0),
            state,
            epoch: Epoch(0),
            cursor: Seq(0),
            log_hash: Some(Digest([0; 32])),
            marks: Vec::new(),
            next_n: 1,
            kept_n: 0,
            sealed: 0,
            logged: 0,
            unconfirmed: None,
            words: String::new(),
            renew_at: None,
        }
    }

    /// A new membership of a channel that we were in before: our counter goes on, because members
    /// remember it.
    #[must_use]
    pub(crate) fn after(mut self, earlier: Option<&Self>) -> Self {
        if let Some(earlier) = earlier {
            self.next_n = earlier.next_n;
            self.kept_n = earlier.kept_n;
        }
        self
    }

    pub(crate) fn group_id(&self) -> Digest {
        self.id.group_id(self.generation)
    }

    /// The newest place that we can compare with others; place zero, which nobody compares, while
    /// our log hash is not known.
    pub(crate) fn mark(&self) -> LogMark {
        self.log_hash.map_or(
            LogMark {
                seq: Seq(0),
                half: [0; 16].into(),
            },
            |hash| LogMark {
                seq: self.cursor,
                half: hash.half().into(),
            },
        )
    }

    /// The cursor moves by one, to a record with this log hash.
    pub(crate) fn advance(&mut self, hash: Option<Digest>) {
        self.cursor = self.cursor.next();
        self.log_hash = hash;
        if hash.is_some() {
            if self.marks.len() >= MARKS_KEPT {
                self.marks.remove(0);
            }
            let mark = self.mark();
            self.marks.push(mark);
        }
    }
}

impl State {
    /// The number that `view.rs` reads.
    pub(crate) fn number(&self) -> i64 {
        match self {
            Self::Creating { .. } => 0,
            Self::Joining { .. } => 1,
            Self::Offered { .. } => 2,
            Self::Active { .. } => 3,
            Self::Leaving { .. } => 4,
            Self::Stuck { .. } => 5,
            Self::Closed { reason } => 10 + *reason as i64,
        }
    }

    pub(crate) fn offered_by(&self) -> Option<AgentId> {
        match self {
            Self::Offered { by } => Some(*by),
            Self::Creating { .. }
            | Self::Joining { .. }
            | Self::Active { .. }
            | Self::Leaving { .. }
            | Self::Stuck { .. }
            | Self::Closed { .. } => None,
        }
    }
}

/// Log places that are remembered for comparison: a message is compared when it arrives within
/// this many records of what its sender had seen.
const MARKS_KEPT: usize = 64;
