//! What goes into a party and what comes out of it, in the words of whoever runs it.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use skytale_slim::{Name, Routed};

/// Milliseconds since 1970, as whoever runs the party reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    pub(crate) fn seconds(self) -> u64 {
        self.0 / 1000
    }

    pub(crate) fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// A session, as its moderator numbered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u32);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a session of ours shall be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether what is said is sealed. Without, whoever relays it can read it.
    pub mls: bool,
    /// Whether messages are acknowledged, ordered and said again. Without, they may be lost.
    pub reliability: Option<Reliability>,
    /// For the applications that are invited; not sealed.
    pub metadata: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mls: true,
            reliability: Some(Reliability::default()),
            metadata: BTreeMap::new(),
        }
    }
}

/// How often what has no answer is said again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reliability {
    /// Between two attempts.
    pub interval_ms: u64,
    /// After the first attempt.
    pub retries_max: u32,
}

impl Default for Reliability {
    fn default() -> Self {
        Self {
            interval_ms: 1000,
            retries_max: 10,
        }
    }
}

/// Something to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The application's word for it. SLIM's own clients say "msg".
    pub payload_type: String,
    /// The bytes.
    pub payload: Bytes,
    /// Beside them, and not sealed.
    pub metadata: BTreeMap<String, String>,
}

impl Message {
    /// Bytes and nothing beside them.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload_type: "msg".to_owned(),
            payload: payload.into(),
            metadata: BTreeMap::new(),
        }
    }
}

/// What happens to a party.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// A message for one of its names.
    Received(&'a Routed),
    /// The time that it asked for has come.
    Woken,
}

/// What a party wants done, in this order.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all of them are the large one, and they live for a moment"
)]
pub enum Output {
    /// To the node.
    Send(Routed),
    /// Messages for this name shall come.
    Subscribe(Name),
    /// They shall no longer.
    Unsubscribe(Name),
    /// To the application.
    Tell(Event),
}

/// Which invitations a party follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invitations {
    /// To sessions with MLS. The others get no answer, and [`Event::Uninvited`] says so.
    OnlyWithMls,
    /// All. Whoever relays a session without MLS reads it, can say anything in it, and can make one
    /// of an invitation whose sender signs no payloads. [`Event::Joined`] says which kind it is.
    All,
}

/// What the application learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody's invitation brought us into a session.
    Joined {
        /// Which.
        session: SessionId,
        /// Who invited.
        moderator: Name,
        /// The group, or the other one of a pair.
        name: Name,
        /// Whether it is a group.
        is_group: bool,
        /// Whether what is said is sealed.
        mls: bool,
        /// What the moderator put beside the invitation.
        metadata: BTreeMap<String, String>,
    },
    /// Somebody invited us to a session without MLS, and got no answer.
    Uninvited {
        /// To which.
        session: SessionId,
        /// Who invited.
        moderator: Name,
    },
    /// Somebody is in: whom we invited, or another one.
    Added {
        /// Where.
        session: SessionId,
        /// Who, at the instance that came.
        name: Name,
    },
    /// Somebody whom we invited is not in.
    NotAdded {
        /// Where.
        session: SessionId,
        /// Who.
        name: Name,
        /// For people.
        why: String,
    },
    /// Somebody went or was taken out.
    Removed {
        /// Where.
        session: SessionId,
        /// Who.
        name: Name,
    },
    /// Somebody is not there for now.
    Away {
        /// Where.
        session: SessionId,
        /// Who.
        name: Name,
    },
    /// Somebody is there again.
    Back {
        /// Where.
        session: SessionId,
        /// Who.
        name: Name,
    },
    /// Somebody said something.
    Received(Received),
    /// One or more messages of somebody will not come any more.
    Lost {
        /// Where.
        session: SessionId,
        /// Whose.
        from: Name,
    },
    /// What we said is with all but those missing; without reliability nobody is waited for.
    Delivered {
        /// Where.
        session: SessionId,
        /// What [`Party::publish`] returned.
        message: u32,
        /// Who has not acknowledged it.
        missing: Vec<Name>,
    },
    /// We are away.
    Paused {
        /// Where.
        session: SessionId,
    },
    /// We are back.
    Resumed {
        /// Where.
        session: SessionId,
    },
    /// The group has moved on and its moderator does not take us in again for now.
    NotResumed {
        /// Where.
        session: SessionId,
    },
    /// The session is no more, for us.
    Ended {
        /// Which.
        session: SessionId,
        /// By whom.
        why: Ended,
    },
}

/// What somebody said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Where.
    pub session: SessionId,
    /// Who; under MLS his leaf proves it.
    pub from: Name,
    /// His application's word for it.
    pub payload_type: String,
    /// The bytes.
    pub payload: Bytes,
    /// Beside them, and not sealed.
    pub metadata: BTreeMap<String, String>,
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// We left, or closed it for all.
    Left,
    /// Its moderator closed it.
    Closed,
    /// Its moderator took us out.
    Removed,
    /// The other one of a pair left.
    PeerLeft,
    /// Nobody took us up, or we nobody.
    Unanswered,
}

/// What cannot be done, and nothing was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// It is over or never was.
    #[error("there is no such session")]
    NoSuchSession,
    /// A group's name must be a text.
    #[error("a group's name has three parts, as in organisation/namespace/name")]
    NoSuchName,
    /// Nobody of that name is in.
    #[error("nobody of that name is in the session")]
    NoSuchMember,
    /// Members come and go in groups.
    #[error("a session of two takes no others in; make a group")]
    IsPair,
    /// Somebody else made the session.
    #[error("only the moderator of a session invites and removes")]
    NotModerator,
    /// The session does not stand yet, or we are away from it.
    #[error("the session does not stand yet, is paused or is ending")]
    NotIn,
    /// Nobody else is there to hear it.
    #[error("nobody else is in the session now")]
    Alone,
    /// Something else has to end before.
    #[error("the session is busy; try again when it has said what came of it")]
    Busy,
    /// Too much is waiting.
    #[error("too much is waiting for answers; try again later")]
    Full,
    /// More than SLIM's clients take.
    #[error("a SLIM message has less than 4 MiB")]
    TooLarge,
}
