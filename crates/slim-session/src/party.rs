//! Our application in SLIM's world: its name, its identity, and the sessions it takes part in.
//!
//! Whoever runs a party gives it what arrives for its names and wakes it when it asks to be woken;
//! what comes out goes to the node, in its order, or to the application.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use rand::{CryptoRng, RngExt as _};
use skytale_slim::{
    Address, Instance, MessageType, Name, Routed,
    proto::two::{self, command_payload::CommandPayloadType as Command},
};

use crate::{
    Ended, Event, Input, Invitations, Message, Misuse, Output, Reliability, SessionId, Settings,
    Time,
    draft::{self, Draft},
    heard::{Heard, Said, is_command},
    id,
    identity::{Age, Identity, SharedSecret},
    session::{Body, Session, Step, moderator::Moderator, participant::Participant},
    signers::Signers,
};

/// An application in SLIM's world. Nothing of it outlives it.
pub struct Party {
    identity: Identity,
    sessions: BTreeMap<SessionId, Session>,
    /// Replies to control messages, said again when the message comes again.
    echoes: VecDeque<(Echo, Routed)>,
    signers: Signers,
    invitations: Invitations,
    /// Invitations that got no answer. They are repeated, and the application hears of each once.
    uninvited: VecDeque<(Address, SessionId)>,
}

/// Which message was replied to.
type Echo = (Address, SessionId, u32, MessageType);

impl Party {
    /// A party with a new identity below a name. Before anything else, its own
    /// [name](Self::name) is to be subscribed to.
    pub fn new(
        name: &Name,
        secret: SharedSecret,
        invitations: Invitations,
        chance: &mut impl CryptoRng,
    ) -> Self {
        Self {
            identity: Identity::new(name, secret, chance),
            sessions: BTreeMap::new(),
            echoes: VecDeque::new(),
            signers: Signers::default(),
            invitations,
            uninvited: VecDeque::new(),
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
            let signed = heard.verify(&claim).ok();
            let is_good = signed.is_some() || !must && !heard.is_signed();
            if !is_good || must && heard.id == 0 || !self.signers.allow(&claim.key, signed) {
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

    /// An invitation that we do not follow.
    fn uninvited(&mut self, heard: &Heard, out: &mut Vec<Output>) {
        let session = SessionId(heard.session);
        let this = (heard.source.address, session);
        if self.uninvited.contains(&this) {
            return;
        }
        if self.uninvited.len() == ECHOES_MAX {
            self.uninvited.pop_front();
        }
        self.uninvited.push_back(this);
        out.push(Output::Tell(Event::Uninvited {
            session,
            moderator: heard.source.clone(),
        }));
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
        let mls = said.mls_settings.is_some();
        if self.invitations == Invitations::OnlyWithMls && !mls {
            return self.uninvited(heard, out);
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
        let reliability = said.timer_settings.map(pace_of);
        let id = SessionId(heard.session);
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
        if session.body.over.is_some() {
            session.body.hand_on_all_held(&mut step);
        }
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

/// How often a moderator wants us to say again what has no answer, within bounds.
fn pace_of(said: two::TimerSettings) -> Reliability {
    Reliability {
        interval_ms: u64::from(said.timeout).clamp(INTERVAL_MS_MIN, INTERVAL_MS_MAX),
        retries_max: said.max_retries.min(RETRIES_MAX),
    }
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
const RETRIES_MAX: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    /// A message that nobody answers would else be kept and said for as long as a moderator likes.
    #[test]
    fn a_moderator_cannot_make_us_repeat_for_ever() {
        let said = |timeout, max_retries| {
            let pace = pace_of(two::TimerSettings {
                timeout,
                max_retries,
            });
            (pace.interval_ms, pace.retries_max)
        };
        assert_eq!(said(1000, 10), (1000, 10));
        assert_eq!(said(0, u32::MAX), (10, 100));
        assert_eq!(said(u32::MAX, 0), (3_600_000, 0));
    }
}
