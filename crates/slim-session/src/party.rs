//! Our application in SLIM's world: its name, its identity, and the sessions it takes part in.
//!
//! Whoever runs a party gives it what arrives for its names and wakes it when it asks to be woken;
//! what comes out goes to the node, in its order, or to the application.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use bytes::Bytes;
use rand::{CryptoRng, RngExt as _};
use skytale_slim::{
    Address, Instance, MessageType, Name, Routed,
    proto::two::{self, command_payload::CommandPayloadType as Command},
};

use crate::{
    draft::{self, Draft},
    heard::{Heard, Said, is_command},
    id,
    identity::{Age, Identity, SharedSecret},
    session::{Body, Session, Step, moderator::Moderator, participant::Participant},
};

/// An application in SLIM's world. Nothing of it outlives it.
pub struct Party {
    identity: Identity,
    sessions: BTreeMap<SessionId, Session>,
    /// Replies to control messages, said again when the message comes again.
    echoes: VecDeque<(Echo, Routed)>,
}

/// Which message was replied to.
type Echo = (Address, SessionId, u32, MessageType);

impl Party {
    /// A party with a new identity below a name. Before anything else, its own
    /// [name](Self::name) is to be subscribed to.
    pub fn new(name: &Name, secret: SharedSecret, chance: &mut impl CryptoRng) -> Self {
        Self {
            identity: Identity::new(name, secret, chance),
            sessions: BTreeMap::new(),
            echoes: VecDeque::new(),
        }
    }

    /// The name with the instance that our identity has.
    pub fn name(&self) -> &Name {
        self.identity.name()
    }

    /// Begins a session with one other, whichever instance answers first. [`Event::Added`] says
    /// that it stands.
    pub fn open(
        &mut self,
        peer: Name,
        settings: Settings,
        now: Time,
        chance: &mut impl CryptoRng,
        out: &mut Vec<Output>,
    ) -> Result<SessionId, Misuse> {
        let names = (peer.clone(), peer.clone());
        let id = self.begin(false, names, settings, now, chance)?;
        self.step(id, now, chance, out, |session, step| {
            session.call(peer, step);
        });
        Ok(id)
    }

    /// Makes a group with us alone. Others come by [`Party::invite`].
    pub fn create(
        &mut self,
        channel: &Name,
        settings: Settings,
        now: Time,
        chance: &mut impl CryptoRng,
        out: &mut Vec<Output>,
    ) -> Result<SessionId, Misuse> {
        let text = channel.proven_text().ok_or(Misuse::NoSuchName)?;
        let (data, control) = id::channel_ids(self.identity.subject(), text);
        let at = |id| channel.clone().at(Instance::Only(id));
        let names = (at(data), at(control));
        out.push(Output::Subscribe(names.0.clone()));
        out.push(Output::Subscribe(names.1.clone()));
        self.begin(true, names, settings, now, chance)
    }

    /// Invites somebody to a group of ours. [`Event::Added`] or [`Event::NotAdded`] follows.
    pub fn invite(
        &mut self,
        session: SessionId,
        name: Name,
        now: Time,
        chance: &mut impl CryptoRng,
        out: &mut Vec<Output>,
    ) -> Result<(), Misuse> {
        self.step(session, now, chance, out, |it, step| it.invite(name, step))
            .ok_or(Misuse::NoSuchSession)?
    }

    /// Takes somebody out of a group of ours. [`Event::Removed`] follows.
    pub fn remove(
        &mut self,
        session: SessionId,
        name: &Name,
        now: Time,
        chance: &mut impl CryptoRng,
        out: &mut Vec<Output>,
    ) -> Result<(), Misuse> {
        self.step(session, now, chance, out, |it, step| it.remove(name, step))
            .ok_or(Misuse::NoSuchSession)?
    }

    /// Says something to all who are in. [`Event::Delivered`] with the same number follows.
    pub fn publish(
        &mut self,
        session: SessionId,
        message: Message,
        now: Time,
        chance: &mut impl CryptoRng,
        out: &mut Vec<Output>,
    ) -> Result<u32, Misuse> {
        let Message {
            payload_type,
            payload,
            metadata,
        } = message;
        self.step(session, now, chance, out, |it, step| {
            it.publish(payload_type, payload, metadata, step)
        })
        .ok_or(Misuse::NoSuchSession)?
    }

    /// Goes out of a session; one that we moderate ends for all. [`Event::Ended`] follows.
    pub fn leave(
        &mut self,
        session: SessionId,
        now: Time,
        chance: &mut impl CryptoRng,
        out: &mut Vec<Output>,
    ) -> Result<(), Misuse> {
        self.step(session, now, chance, out, Session::leave)
            .ok_or(Misuse::NoSuchSession)
    }

    /// Goes away from a group for a while: nothing is heard until [`Party::resume`].
    pub fn pause(
        &mut self,
        session: SessionId,
        now: Time,
        chance: &mut impl CryptoRng,
        out: &mut Vec<Output>,
    ) -> Result<(), Misuse> {
        self.step(session, now, chance, out, |it, step| {
            it.presence(false, step)
        })
        .ok_or(Misuse::NoSuchSession)?
    }

    /// Comes back. If the group has moved on meanwhile, the moderator takes us in again.
    pub fn resume(
        &mut self,
        session: SessionId,
        now: Time,
        chance: &mut impl CryptoRng,
        out: &mut Vec<Output>,
    ) -> Result<(), Misuse> {
        self.step(session, now, chance, out, |it, step| {
            it.presence(true, step)
        })
        .ok_or(Misuse::NoSuchSession)?
    }

    /// Takes what arrived, or does what is due.
    pub fn handle(
        &mut self,
        input: Input<'_>,
        now: Time,
        chance: &mut impl CryptoRng,
        out: &mut Vec<Output>,
    ) {
        match input {
            Input::Received(routed) => {
                if let Some(heard) = Heard::read(routed) {
                    self.heard(heard, now, chance, out);
                }
            }
            Input::Woken => {
                let due: Vec<SessionId> = self
                    .sessions
                    .iter()
                    .filter(|(_, session)| session.wake_at().is_some_and(|at| at <= now))
                    .map(|(id, _)| *id)
                    .collect();
                for id in due {
                    self.step(id, now, chance, out, Session::wake);
                }
            }
        }
    }

    /// When it wants to be woken, unless something arrives before.
    pub fn wake_at(&self) -> Option<Time> {
        self.sessions.values().filter_map(Session::wake_at).min()
    }

    /// The message by which a plain SLIM link subscribes to a name, or stops to.
    pub fn subscription(
        &self,
        name: &Name,
        number: u64,
        begins: bool,
        now: Time,
        chance: &mut impl CryptoRng,
    ) -> Routed {
        draft::subscription(&self.identity, name, number, begins, now, chance)
    }

    fn begin(
        &mut self,
        is_group: bool,
        names: (Name, Name),
        settings: Settings,
        now: Time,
        chance: &mut impl CryptoRng,
    ) -> Result<SessionId, Misuse> {
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(Misuse::Full);
        }
        let id = loop {
            let id = SessionId(chance.random_range(0..SESSION_IDS_END));
            if !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let Settings {
            mls,
            reliability,
            metadata,
        } = settings;
        let body = Body::new(id, is_group, names, mls, reliability, now);
        let session = Session::moderated(body, Moderator::new(metadata));
        self.sessions.insert(id, session);
        Ok(id)
    }

    /// Everything from outside is checked here: who sent it, whether he signed it, whether it was
    /// here before. What fails is dropped in silence, as SLIM does.
    fn heard(
        &mut self,
        heard: Heard,
        now: Time,
        chance: &mut impl CryptoRng,
        out: &mut Vec<Output>,
    ) {
        let source = heard.source.address;
        let Ok(claim) = self.identity.check(&heard.identity, Age::Fresh(now)) else {
            tracing::debug!(message = ?heard.message, "an identity of another circle");
            return;
        };
        let is_himself = source.instance == Instance::Only(claim.instance);
        if !is_himself || source == self.identity.name().address {
            return;
        }
        let id = SessionId(heard.session);
        let known = self.sessions.get(&id);
        if is_command(heard.message) {
            let opens = matches!(
                heard.message,
                MessageType::DiscoveryRequest | MessageType::JoinRequest
            );
            let must = opens || known.is_some_and(|session| session.body.mls.is_some());
            let is_good = heard.verify(&claim).is_ok() || !must && !heard.is_signed();
            if !is_good || must && heard.id == 0 {
                tracing::debug!(message = ?heard.message, "a signature that does not fit");
                return;
            }
            let echo = (source, id, heard.id, heard.message);
            if let Some((_, reply)) = self.echoes.iter().find(|(known, _)| *known == echo) {
                out.push(Output::Send(reply.clone()));
                return;
            }
        }
        let invites = heard.message == MessageType::JoinRequest;
        if heard.message == MessageType::DiscoveryRequest {
            self.discovered(&heard, now, chance, out);
        } else if invites && known.is_none_or(|it| it.waits_for(source)) {
            self.invited(&heard, now, chance, out);
        } else {
            let echo = (source, id, heard.id, heard.message);
            self.step_with_echo(id, Some(echo), now, chance, out, |session, step| {
                session.heard(heard, &claim, step);
            });
        }
    }

    /// Somebody looks for who is there below our name.
    fn discovered(
        &mut self,
        heard: &Heard,
        now: Time,
        chance: &mut impl CryptoRng,
        out: &mut Vec<Output>,
    ) {
        if !self.is_ours(&heard.destination) {
            return;
        }
        let reply = Draft {
            destination: heard.source.clone(),
            to_all: false,
            kind: heard.kind,
            message: MessageType::DiscoveryReply,
            session: heard.session,
            id: heard.id,
            failed: false,
            said: Said::Command(Command::DiscoveryReply(two::DiscoveryReplyPayload {})),
            metadata: BTreeMap::new(),
        };
        if let Some(reply) = reply.write(&self.identity, None, now, chance) {
            out.push(Output::Send(reply));
        }
    }

    /// Somebody invites us. Whoever has the secret may: the application leaves what it does not
    /// want.
    fn invited(
        &mut self,
        heard: &Heard,
        now: Time,
        chance: &mut impl CryptoRng,
        out: &mut Vec<Output>,
    ) {
        let Said::Command(Command::JoinRequest(said)) = &heard.said else {
            return;
        };
        if !self.is_ours(&heard.destination) || self.sessions.len() >= SESSIONS_MAX {
            return;
        }
        let name = |name: &Option<two::Name>| name.clone().and_then(Name::from_two);
        let is_group = heard.kind == i32::from(two::SessionType::Multicast);
        let names = if is_group {
            let (Some(data), Some(control)) = (name(&said.channel), name(&said.control)) else {
                return;
            };
            if !self.is_channel_of(heard, &data, &control) {
                return;
            }
            (data, control)
        } else {
            (heard.source.clone(), heard.source.clone())
        };
        let reliability = said.timer_settings.map(|said| Reliability {
            interval_ms: u64::from(said.timeout).clamp(INTERVAL_MS_MIN, INTERVAL_MS_MAX),
            retries_max: said.max_retries,
        });
        let id = SessionId(heard.session);
        let mls = said.mls_settings.is_some();
        let body = Body::new(id, is_group, names, mls, reliability, now);
        let session = Session::followed(body, Participant::new(heard));
        self.sessions.insert(id, session);
        let source = heard.source.address;
        let echo = (source, id, heard.id, heard.message);
        self.step_with_echo(id, Some(echo), now, chance, out, |session, step| {
            if !Participant::accept(&mut session.body, heard, step) {
                session.body.end(Ended::Unanswered);
            }
        });
    }

    /// A group's two names are derived from its moderator's identity, so that nobody can invite to
    /// somebody else's group.
    fn is_channel_of(&self, invitation: &Heard, data: &Name, control: &Name) -> bool {
        let Ok(claim) = self.identity.check(&invitation.identity, Age::Any) else {
            return false;
        };
        let Some(text) = data.proven_text() else {
            return false;
        };
        let (first, second) = id::channel_ids(&claim.subject, text);
        data.address.components == control.address.components
            && data.address.instance == Instance::Only(first)
            && control.address.instance == Instance::Only(second)
    }

    fn is_ours(&self, name: &Name) -> bool {
        let ours = self.identity.name().address;
        name.address.components == ours.components
            && (name.address.instance == Instance::Any || name.address == ours)
    }

    fn step<T>(
        &mut self,
        id: SessionId,
        now: Time,
        chance: &mut impl CryptoRng,
        out: &mut Vec<Output>,
        act: impl FnOnce(&mut Session, &mut Step<'_>) -> T,
    ) -> Option<T> {
        self.step_with_echo(id, None, now, chance, out, act)
    }

    /// Lets a session act, and sees to it that it goes when it is over.
    fn step_with_echo<T>(
        &mut self,
        id: SessionId,
        echo: Option<Echo>,
        now: Time,
        chance: &mut impl CryptoRng,
        out: &mut Vec<Output>,
        act: impl FnOnce(&mut Session, &mut Step<'_>) -> T,
    ) -> Option<T> {
        let session = self.sessions.get_mut(&id)?;
        let mut step = Step {
            identity: &self.identity,
            now,
            chance,
            out,
            reply: None,
        };
        let result = act(session, &mut step);
        let reply = step.reply.take();
        if let (Some(echo), Some(reply)) = (echo, reply) {
            if self.echoes.len() == ECHOES_MAX {
                self.echoes.pop_front();
            }
            self.echoes.push_back((echo, reply));
        }
        if let Some(why) = session.body.over {
            if session.body.is_group {
                out.push(Output::Unsubscribe(session.body.data.clone()));
                out.push(Output::Unsubscribe(session.body.control.clone()));
            }
            let is_told = session.body.is_told;
            self.sessions.remove(&id);
            if is_told {
                out.push(Output::Tell(Event::Ended { session: id, why }));
            }
        }
        Some(result)
    }
}

impl fmt::Debug for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Party")
            .field("identity", &self.identity)
            .field("sessions", &self.sessions.keys())
            .finish_non_exhaustive()
    }
}

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

/// Sessions of one party.
const SESSIONS_MAX: usize = 256;
/// SLIM keeps the numbers from here on for itself.
const SESSION_IDS_END: u32 = u32::MAX - 1000;
/// Replies that can be said again; a lost one is asked for within seconds.
const ECHOES_MAX: usize = 256;
/// What a moderator may want of us: not more often, not more rarely.
const INTERVAL_MS_MIN: u64 = 10;
const INTERVAL_MS_MAX: u64 = 3_600_000;
