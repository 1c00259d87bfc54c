//! What happens to the hub, what it wants done, and what it asks the archive.

use std::sync::Arc;

use bytes::Bytes;
use skytale_slim::{Onward, Routed};
use skytale_wire::{
    frame::{Deliver, GuestProof, ToAgent, ToRelay},
    http::Revocation,
    id::{AgentId, ChannelId, Digest, MessageId, Seq, Time, TransportKey},
    refusal::Refusal,
};

use super::{Payer, SlimPresented};
use crate::archive::{
    KeyPackagesLeft, SealedGroupInfo, StoredRecord, Write, Written, usage::Report,
};

/// One connection, numbered by the driver, never used twice in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn(pub u64);

/// One write on its way to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Which of a connection's two streams a frame takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Answers and what is new.
    Live,
    /// What is read from the archive, at lower priority.
    CatchUp,
}

/// An agent whose identity the edge has proved, with what lets it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// Who.
    pub agent: AgentId,
    /// The connection's key.
    pub transport: TransportKey,
    /// By what right.
    pub right: Right,
}

/// By what right an agent is here. The edge has checked tokens; the hub checks the other two,
/// because only it knows invites and rosters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    /// A checked token of an account.
    Account {
        /// Whose usage this counts to.
        payer: Payer,
        /// The token's end.
        expires: Time,
    },
    /// A guest that shows an invite: that channel only.
    Invite(GuestProof),
    /// A guest that has joined before: the channels whose roster names it.
    Member,
}

/// What happens to the hub.
#[derive(Debug, Clone)]
pub enum Input {
    /// A connection has said Hello and proved its identity.
    Opened {
        /// Which.
        conn: Conn,
        /// Who.
        presented: Presented,
    },
    /// A frame has come. `earlier` is what the archive knows under the frame's (channel, agent,
    /// id): the driver looks it up for Publish, Commit and Leave before it hands the frame in. The
    /// answer may be a little old: the hub knows by itself what is on its way to the store and
    /// the last 16,384 records that were stored. Across a failed write it may not be older than
    /// the reload, because a write that failed may have been written all the same.
    Frame {
        /// From which connection.
        conn: Conn,
        /// The frame; never a Hello.
        frame: ToRelay,
        /// Where the same request was stored earlier.
        earlier: Option<Seq>,
    },
    /// A SLIM stream has begun, and its token was checked.
    SlimOpened {
        /// Which.
        conn: Conn,
        /// With what.
        presented: SlimPresented,
    },
    /// A message has come over a SLIM stream whose header was made for it. `earlier` is what the
    /// archive knows under one of [`Hub::slim_keys`](super::Hub::slim_keys), as for [`Input::Frame`]; native agents'
    /// messages come as frames.
    Slim {
        /// Over which.
        conn: Conn,
        /// The message.
        message: Box<Routed>,
        /// Where the same one was stored earlier.
        earlier: Option<Seq>,
    },
    /// A message has come over a SLIM stream, and the archive could not be asked for it.
    SlimLost,
    /// A new token on a living connection, checked by the edge.
    Renewed {
        /// Which.
        conn: Conn,
        /// Answers this request.
        id: MessageId,
        /// The result of the check.
        right: Result<Right, Refusal>,
    },
    /// An issuer has shut somebody out.
    Revoked(Revocation),
    /// The API server has taken the report of this number.
    Reported {
        /// Which.
        number: u64,
    },
    /// The relay is about to end: what was counted is written.
    Ending,
    /// A connection is gone.
    Gone {
        /// Which.
        conn: Conn,
    },
    /// A write is durable.
    Stored {
        /// Which.
        ticket: Ticket,
        /// What it gave back.
        written: Written,
    },
    /// A write and everything handed to the store after it has failed. The heads of all channels
    /// must be loaded again before the next write: the driver calls [`Hub::reload`](super::Hub::reload).
    Failed {
        /// Which.
        ticket: Ticket,
    },
    /// The answer to an [`Output::Read`].
    Answered {
        /// For which connection.
        conn: Conn,
        /// What was found.
        answer: Answer,
    },
    /// A connection's outbound queue is over its limit: live pushes stop, its channels fall
    /// behind and are read from the archive later.
    Full {
        /// Which.
        conn: Conn,
    },
    /// The queue has room again.
    Drained {
        /// Which.
        conn: Conn,
    },
    /// Time has passed.
    Tick,
}

/// What the hub wants done, in this order.
#[derive(Debug, Clone)]
pub enum Output {
    /// One frame for one connection.
    Send {
        /// To which.
        conn: Conn,
        /// By which stream.
        lane: Lane,
        /// What.
        frame: ToAgent,
    },
    /// The same record for many connections: encode it once.
    Deliver {
        /// To which.
        conns: Vec<Conn>,
        /// What.
        frame: Deliver,
    },
    /// Hand to the store, in this order.
    Store {
        /// To be given back in `Stored` or `Failed`.
        ticket: Ticket,
        /// What.
        write: Write,
    },
    /// Look up in the store and answer with `Answered`.
    Read {
        /// For which connection.
        conn: Conn,
        /// What.
        query: Query,
    },
    /// The same SLIM message for many SLIM streams: each signs it for itself.
    SlimDeliver {
        /// To which.
        conns: Vec<Conn>,
        /// What.
        onward: Arc<Onward>,
    },
    /// An answer to a subscription, for one SLIM stream.
    SlimAck {
        /// To which.
        conn: Conn,
        /// What, complete.
        bytes: Bytes,
    },
    /// Tell the API server, again and again until it has taken it.
    Report(Report),
    /// Send `Closing` and end the connection.
    Close {
        /// Which.
        conn: Conn,
        /// Why.
        refusal: Refusal,
        /// Whether connecting again makes sense.
        resume: bool,
    },
}

/// A question to the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// What Ready says about an agent.
    Greeting {
        /// Whose.
        agent: AgentId,
    },
    /// Records of a channel, for a subscription that is behind.
    Records {
        /// Which channel.
        channel: ChannelId,
        /// The last one sent.
        after: Seq,
        /// At most so many.
        count_max: usize,
        /// At most so many bytes.
        bytes_max: usize,
    },
    /// The log hash where a subscriber stands.
    HashAt {
        /// Which channel.
        channel: ChannelId,
        /// The subscriber's cursor.
        seq: Seq,
    },
    /// The Welcomes of an agent.
    Welcomes {
        /// Whose.
        agent: AgentId,
    },
    /// The sealed `GroupInfo` of a channel.
    GroupInfo {
        /// Which channel.
        channel: ChannelId,
    },
    /// Records of the log of a SLIM name, of which older ones may be gone.
    SlimRecords {
        /// Which log.
        log: ChannelId,
        /// The last one sent.
        after: Seq,
        /// At most so many.
        count_max: usize,
        /// At most so many bytes, beyond the first.
        bytes_max: usize,
    },
    /// One record by its name, in the first of these logs that has it.
    SlimRecord {
        /// Which logs.
        logs: Vec<ChannelId>,
        /// Who sent it.
        agent: AgentId,
        /// Its name.
        id: MessageId,
    },
}

/// What the archive said. Each variant repeats what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Query::Greeting`].
    Greeting {
        /// `KeyPackages` left.
        key_packages: KeyPackagesLeft,
        /// Welcomes waiting.
        welcomes: u32,
    },
    /// To [`Query::Records`].
    Records {
        /// Which channel.
        channel: ChannelId,
        /// What was asked.
        after: Seq,
        /// Contiguous from `after` on; empty at the durable head.
        records: Vec<StoredRecord>,
    },
    /// To [`Query::HashAt`].
    HashAt {
        /// Which channel.
        channel: ChannelId,
        /// What was asked.
        seq: Seq,
        /// The hash, when it is still known.
        hash: Option<Digest>,
    },
    /// To [`Query::Welcomes`]: encoded [`skytale_wire::frame::Welcome`] frames.
    Welcomes(Vec<Bytes>),
    /// To [`Query::GroupInfo`].
    GroupInfo {
        /// Which channel.
        channel: ChannelId,
        /// What is kept.
        sealed: Option<SealedGroupInfo>,
    },
    /// To [`Query::SlimRecords`].
    SlimRecords {
        /// Which log.
        log: ChannelId,
        /// What was asked.
        after: Seq,
        /// In order; empty at the durable head.
        records: Vec<StoredRecord>,
    },
    /// To [`Query::SlimRecord`].
    SlimRecord(Option<StoredRecord>),
    /// The archive could not read.
    Unreadable(Query),
}
