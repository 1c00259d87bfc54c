//! What an application asks of a mind, and what it gets back.
//!
//! Both are encodable: a process that does not hold the vault's lock hands its commands over
//! through the vault (protocol.md calls such a process a hand).

use minicbor::{Decode, Encode};
use skytale_wire::{
    Blob,
    id::{AgentId, ChannelId, MessageId, RelayKey, Seq},
    name::ChannelName,
    refusal::Refusal,
};

use crate::Error;

/// Names one command, so that its answer finds the one who asked, also across a restart.
pub type CommandId = MessageId;

/// Something to be done. All of them are safe to repeat with the same [`CommandId`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// Create a channel of this name, or reopen the one that this agent is in. Answered by
    /// [`Answer::Channel`].
    #[n(0)]
    Open {
        /// Its name.
        #[n(0)]
        name: ChannelName,
        /// Where to create it.
        #[n(1)]
        relay: RelayKey,
        /// How that relay is reached, `host:port`.
        #[n(2)]
        addresses: Vec<String>,
    },
    /// Make an invite line. Answered by [`Answer::Invite`] once the relay has ordered it.
    #[n(1)]
    Invite {
        /// Where.
        #[n(0)]
        channel: ChannelId,
        /// How many agents may join by it.
        #[n(1)]
        uses: u32,
        /// How long it holds, in milliseconds.
        #[n(2)]
        ttl_ms: u64,
        /// Addresses to write into the line; empty means those by which we reach the relay.
        #[n(3)]
        addresses: Vec<String>,
    },
    /// Join by an invite line. Answered by [`Answer::Channel`].
    #[n(2)]
    Join {
        /// The whole line.
        #[n(0)]
        line: String,
    },
    /// Send a message. Answered by [`Answer::Stored`] once the relay has it.
    #[n(3)]
    Send {
        /// Where.
        #[n(0)]
        channel: ChannelId,
        /// The message's id, chosen by the caller.
        #[n(1)]
        id: MessageId,
        /// What.
        #[n(2)]
        draft: Draft,
    },
    /// Add agents by id; they need not be online. Answered by [`Answer::Done`].
    #[n(4)]
    Add {
        /// Where.
        #[n(0)]
        channel: ChannelId,
        /// Whom.
        #[n(1)]
        agents: Vec<AgentId>,
    },
    /// Remove agents. Answered by [`Answer::Done`].
    #[n(5)]
    Remove {
        /// Where.
        #[n(0)]
        channel: ChannelId,
        /// Whom.
        #[n(1)]
        agents: Vec<AgentId>,
    },
    /// Leave a channel. Answered by [`Answer::Done`].
    #[n(6)]
    Leave {
        /// Which.
        #[n(0)]
        channel: ChannelId,
    },
    /// Replace our own keys in the group (post-compromise security). Answered by
    /// [`Answer::Done`].
    #[n(7)]
    Rotate {
        /// Where.
        #[n(0)]
        channel: ChannelId,
    },
    /// Change what a member may do. Answered by [`Answer::Done`].
    #[n(8)]
    Grant {
        /// Where.
        #[n(0)]
        channel: ChannelId,
        /// Whom.
        #[n(1)]
        agent: AgentId,
        /// May remove others and change rights.
        #[n(2)]
        admin: bool,
        /// May add and invite.
        #[n(3)]
        may_invite: bool,
    },
    /// Close every open invite of a channel. Answered by [`Answer::Done`].
    #[n(9)]
    CloseInvites {
        /// Where.
        #[n(0)]
        channel: ChannelId,
    },
    /// Join a channel to which an unknown agent has added us. Answered by [`Answer::Channel`].
    #[n(10)]
    Accept {
        /// Which.
        #[n(0)]
        channel: ChannelId,
    },
    /// Refuse such a channel for good. Answered by [`Answer::Done`].
    #[n(11)]
    Decline {
        /// Which.
        #[n(0)]
        channel: ChannelId,
    },
}

/// A message before it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Default)]
#[cbor(map)]
pub struct Draft {
    /// What the payload is, as a media type.
    #[n(0)]
    pub content_type: String,
    /// The message that this one answers.
    #[n(1)]
    pub in_reply_to: Option<MessageId>,
    /// Names and values for the application, such as a trace context.
    #[n(2)]
    pub headers: Vec<(String, String)>,
    /// At most [`skytale_wire::frame::PAYLOAD_BYTES_MAX`] bytes.
    #[n(3)]
    pub payload: Blob,
    /// Whether it need not wait for slots of the line, where cells leave by a schedule. Whoever
    /// watches the line then sees that something of its size left. Other members are not told.
    #[n(4)]
    #[cbor(default)]
    pub now: bool,
}

impl Draft {
    /// A message of plain text.
    pub fn text(text: &str) -> Self {
        Self {
            content_type: TEXT.to_owned(),
            payload: text.as_bytes().into(),
            ..Self::default()
        }
    }
}

/// The media type of plain text.
pub const TEXT: &str = "text/plain";

/// What a command came to.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// It is done and ordered by the relay.
    #[n(0)]
    Done,
    /// The channel can be used.
    #[n(1)]
    Channel(#[n(0)] ChannelId),
    /// The line to hand on. A secret until it has been used.
    #[n(2)]
    Invite(#[n(0)] String),
    /// The relay has stored the message at this place.
    #[n(3)]
    Stored(#[n(0)] Seq),
    /// It cannot be done.
    #[n(4)]
    Failed(#[n(0)] Failure),
}

/// Shows no invite line: it is a secret.
impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => f.write_str("Done"),
            Self::Channel(channel) => write!(f, "Channel({channel:?})"),
            Self::Invite(_) => f.write_str("Invite(…)"),
            Self::Stored(seq) => write!(f, "Stored({seq})"),
            Self::Failed(failure) => write!(f, "Failed({failure:?})"),
        }
    }
}

/// An [`Error`] that can cross to another process.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Failure {
    /// [`Error::Misuse`]
    #[n(0)]
    Misuse(#[n(0)] String),
    /// [`Error::NotFound`]
    #[n(1)]
    NotFound(#[n(0)] String),
    /// [`Error::Denied`]
    #[n(2)]
    Denied(#[n(0)] Refusal),
    /// [`Error::PeerMisbehaved`]
    #[n(3)]
    PeerMisbehaved(#[n(0)] String),
    /// [`Error::Damaged`]
    #[n(4)]
    Damaged(#[n(0)] String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Misuse(text) => Self::Misuse(text),
            Error::NotFound(text) => Self::NotFound(text),
            Error::Denied(refusal) => Self::Denied(refusal),
            Error::PeerMisbehaved(text) => Self::PeerMisbehaved(text),
            Error::Damaged(text) => Self::Damaged(text),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Misuse(text) => Self::Misuse(text),
            Failure::NotFound(text) => Self::NotFound(text),
            Failure::Denied(refusal) => Self::Denied(refusal),
            Failure::PeerMisbehaved(text) => Self::PeerMisbehaved(text),
            Failure::Damaged(text) => Self::Damaged(text),
        }
    }
}
