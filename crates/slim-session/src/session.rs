//! One session: what moderator and participant have in common. Members, messages, heartbeats, and
//! going away for a while.
//!
//! Who changes the group is in [`moderator`], who follows in [`participant`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand::{CryptoRng, RngExt as _};
use skytale_slim::{
    Address, Instance, MessageType, Name, Routed,
    proto::two::{self, command_payload::CommandPayloadType as Command},
};

use self::{moderator::Moderator, participant::Participant};
use crate::{
    Ended, Event, Misuse, Output, Reliability, SessionId, Time,
    asks::Asks,
    draft::Draft,
    group::Mls,
    heard::{Heard, Said, is_command},
    identity::{Claim, Identity},
    incoming::Incoming,
    outgoing::Outgoing,
    pulse::Pulse,
    seen::Seen,
};

mod messages;
pub(crate) mod moderator;
pub(crate) mod participant;
#[cfg(test)]
mod tests;

/// What a step may use and what comes of it.
pub(crate) struct Step<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) now: Time,
    pub(crate) chance: &'a mut dyn CryptoRng,
    pub(crate) out: &'a mut Vec<Output>,
    /// What was replied to the message that this step is about: said again if it comes again.
    pub(crate) reply: Option<Routed>,
}

impl Step<'_> {
    pub(crate) fn tell(&mut self, event: Event) {
        self.out.push(Output::Tell(event));
    }

    /// For a control message. Zero is no id under MLS.
    fn id(&mut self) -> u32 {
        self.chance.random_range(1..=u32::MAX)
    }
}

/// A session from our side.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) body: Body,
    role: Role,
}

#[derive(Debug)]
enum Role {
    Moderator(Moderator),
    Participant(Participant),
}

impl Session {
    pub(crate) fn moderated(mut body: Body, moderator: Moderator) -> Self {
        body.is_told = true;
        Self {
            body,
            role: Role::Moderator(moderator),
        }
    }

    pub(crate) fn followed(body: Body, participant: Participant) -> Self {
        Self {
            body,
            role: Role::Participant(participant),
        }
    }

    /// Takes a message of this session whose sender has been checked.
    pub(crate) fn heard(&mut self, heard: Heard, claim: &Claim, step: &mut Step<'_>) {
        let from = heard.source.address;
        if !self.body.online && !self.body.passes_while_away(heard.message) {
            return;
        }
        // Of strangers nothing has an effect but the answers that we wait for, and these count
        // once by themselves. So whoever has the secret cannot fill our memory.
        let takes_part = self.body.members.contains_key(&from) || self.waits_for(from);
        let counts = is_command(heard.message) && takes_part;
        if counts && self.body.seen.is_repeat(from, heard.id) {
            return;
        }
        self.body.pulse.heard(from);
        match heard.message {
            MessageType::Msg | MessageType::RtxReply => self.body.hear(heard, claim, step),
            MessageType::MsgAck => {
                let done = self.body.outgoing.acknowledged(heard.id, from);
                self.body.tell_done(done, step);
            }
            MessageType::RtxRequest => self.body.say_again(&heard, step),
            MessageType::UpdateParticipantState => self.body.presence_of_other(&heard, step),
            MessageType::DiscoveryRequest
            | MessageType::DiscoveryReply
            | MessageType::JoinRequest
            | MessageType::JoinReply
            | MessageType::LeaveRequest
            | MessageType::LeaveReply
            | MessageType::GroupUpdate
            | MessageType::GroupWelcome
            | MessageType::GroupClose
            | MessageType::GroupProposal
            | MessageType::GroupAck
            | MessageType::GroupNack
            | MessageType::Heartbeat
            | MessageType::RejoinRequest
            | MessageType::RejoinReply => match &mut self.role {
                Role::Moderator(it) => it.heard(&mut self.body, &heard, claim, step),
                Role::Participant(it) => it.heard(&mut self.body, &heard, step),
            },
            MessageType::GroupAdd
            | MessageType::GroupRemove
            | MessageType::Ping
            | MessageType::Unknown(_) => {}
        }
    }

    /// Does what is due.
    pub(crate) fn wake(&mut self, step: &mut Step<'_>) {
        let (again, given_up) = self.body.asks.due(step.now);
        step.out.extend(again.into_iter().map(Output::Send));
        for (ask, missing) in given_up {
            self.answered(ask, &missing, step);
        }
        self.body.repeat_messages(step);
        if let Some(beat) = self.body.pulse.due(step.now) {
            for who in beat.gone {
                self.leaves_sight(who, step);
            }
            if beat.speak && self.body.is_open {
                self.body.say_heartbeat(step);
            }
            if let Role::Participant(it) = &mut self.role {
                it.grow_old(&mut self.body);
            }
        }
    }

    pub(crate) fn wake_at(&self) -> Option<Time> {
        let body = &self.body;
        [
            body.asks.wake_at(),
            body.pulse.wake_at(),
            body.outgoing.wake_at(),
            body.incoming.wake_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether an invitation may take its place: nothing has come of the one before.
    pub(crate) fn waits_for(&self, moderator: Address) -> bool {
        match &self.role {
            Role::Moderator(_) => false,
            Role::Participant(it) => it.waits_for(moderator),
        }
    }

    /// Begins a pair of ours.
    pub(crate) fn call(&mut self, peer: Name, step: &mut Step<'_>) {
        if let Role::Moderator(it) = &mut self.role {
            // There is nothing else to do yet, so there is room for it.
            let _ = it.invite(&mut self.body, peer, step);
        }
    }

    pub(crate) fn invite(&mut self, name: Name, step: &mut Step<'_>) -> Result<(), Misuse> {
        if !self.body.is_group {
            return Err(Misuse::IsPair);
        }
        match &mut self.role {
            Role::Moderator(it) => it.invite(&mut self.body, name, step),
            Role::Participant(_) => Err(Misuse::NotModerator),
        }
    }

    pub(crate) fn remove(&mut self, name: &Name, step: &mut Step<'_>) -> Result<(), Misuse> {
        if !self.body.is_group {
            return Err(Misuse::IsPair);
        }
        match &mut self.role {
            Role::Moderator(it) => it.remove(&mut self.body, name, step),
            Role::Participant(_) => Err(Misuse::NotModerator),
        }
    }

    /// Ends the session for us, and for all when it is ours.
    pub(crate) fn leave(&mut self, step: &mut Step<'_>) {
        match &mut self.role {
            Role::Moderator(it) => it.close(&mut self.body, step),
            Role::Participant(it) => it.leave(&mut self.body, step),
        }
    }

    pub(crate) fn publish(
        &mut self,
        payload_type: String,
        payload: Bytes,
        metadata: BTreeMap<String, String>,
        step: &mut Step<'_>,
    ) -> Result<u32, Misuse> {
        self.body.publish(payload_type, payload, metadata, step)
    }

    /// Goes away for a while, or comes back.
    pub(crate) fn presence(&mut self, online: bool, step: &mut Step<'_>) -> Result<(), Misuse> {
        if !self.body.is_group {
            return Err(Misuse::IsPair);
        }
        let busy = match &self.role {
            Role::Moderator(it) => it.is_busy(),
            Role::Participant(it) => it.is_busy(),
        };
        if busy || self.body.presence.is_some() || self.body.online == online {
            return Err(Misuse::Busy);
        }
        if let Some(ask) = self.body.ask_presence(online, step) {
            self.answered(ask, &[], step);
        }
        Ok(())
    }

    fn answered(&mut self, ask: u32, missing: &[Address], step: &mut Step<'_>) {
        match &mut self.role {
            Role::Moderator(it) => it.answered(&mut self.body, ask, missing, step),
            Role::Participant(it) => it.answered(&mut self.body, ask, missing, step),
        }
    }

    /// Somebody has not been heard for too long.
    fn leaves_sight(&mut self, who: Address, step: &mut Step<'_>) {
        for ask in self.body.away(who, step) {
            self.answered(ask, &[], step);
        }
    }
}

/// What both sides of a session have.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and most mixtures of them occur"
)]
pub(crate) struct Body {
    pub(crate) id: SessionId,
    pub(crate) is_group: bool,
    /// Where what the application says goes.
    pub(crate) data: Name,
    /// Where changes of the group go.
    pub(crate) control: Name,
    /// Everybody but us, by where they are reached.
    pub(crate) members: BTreeMap<Address, Member>,
    pub(crate) mls: Option<Mls>,
    pub(crate) asks: Asks,
    pub(crate) pulse: Pulse,
    /// Whether we are in, so that there is somebody to speak to.
    pub(crate) is_open: bool,
    /// Whether the application knows of it.
    pub(crate) is_told: bool,
    pub(crate) over: Option<Ended>,
    outgoing: Outgoing,
    incoming: Incoming,
    reliability: Option<Reliability>,
    seen: Seen,
    online: bool,
    pub(crate) presence: Option<Presence>,
}

/// Somebody else in the session.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: Name,
    pub(crate) settings: two::ParticipantSettings,
    pub(crate) online: bool,
}

/// A change of our own presence that the others have not all answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Presence {
    pub(crate) ask: u32,
    pub(crate) online: bool,
}

impl Body {
    pub(crate) fn new(
        id: SessionId,
        is_group: bool,
        (data, control): (Name, Name),
        mls: bool,
        reliability: Option<Reliability>,
        now: Time,
    ) -> Self {
        Self {
            id,
            is_group,
            data,
            control,
            members: BTreeMap::new(),
            mls: mls.then(Mls::new),
            asks: Asks::default(),
            pulse: Pulse::new(now),
            is_open: false,
            is_told: false,
            over: None,
            outgoing: Outgoing::default(),
            incoming: Incoming::new(!is_group),
            reliability,
            seen: Seen::default(),
            online: true,
            presence: None,
        }
    }

    pub(crate) fn kind(&self) -> i32 {
        if self.is_group {
            two::SessionType::Multicast.into()
        } else {
            two::SessionType::PointToPoint.into()
        }
    }

    pub(crate) fn reliability(&self) -> Option<Reliability> {
        self.reliability
    }

    /// How often control messages are said again, in sessions without a pace of their own too.
    fn pace(&self) -> Reliability {
        self.reliability.unwrap_or_default()
    }

    pub(crate) fn epoch(&self) -> Option<u64> {
        self.mls.as_ref().and_then(Mls::epoch)
    }

    /// All members for a message about the group, ourselves among them.
    pub(crate) fn roster(&self, step: &Step<'_>) -> Vec<two::Participant> {
        let us = Member {
            name: step.identity.name().clone(),
            settings: BOTH_WAYS,
            online: true,
        };
        std::iter::once(&us)
            .chain(self.members.values())
            .map(Member::to_two)
            .collect()
    }

    /// Those who can be waited for.
    pub(crate) fn others_online(&self) -> BTreeSet<Address> {
        let online = self.members.iter().filter(|(_, member)| member.online);
        online.map(|(address, _)| *address).collect()
    }

    /// Takes somebody up. Refused beyond a bound, which SLIM's own groups never near.
    pub(crate) fn enter(&mut self, member: Member) -> bool {
        if self.members.len() >= MEMBERS_MAX {
            return false;
        }
        let address = member.name.address;
        if member.online {
            self.pulse.watch(address);
        }
        self.members.insert(address, member);
        true
    }

    /// The same for somebody who has come in after us.
    pub(crate) fn enter_new(&mut self, member: Member) -> bool {
        let who = member.name.address;
        let is_in = self.enter(member);
        if is_in {
            self.incoming.expect(who);
        }
        is_in
    }

    /// Drops somebody for good. Which asks have all their answers by that.
    pub(crate) fn drop_member(&mut self, who: Address, step: &mut Step<'_>) -> Vec<u32> {
        self.hand_on_held(who, step);
        self.members.remove(&who);
        self.seen.forget(who);
        self.pulse.forget(who);
        for done in self.outgoing.gone(who) {
            self.tell_done(Some(done), step);
        }
        self.asks.gone(who)
    }

    /// Somebody is there no longer but belongs to us. What he says when he is back goes on from
    /// what he said before.
    pub(crate) fn away(&mut self, who: Address, step: &mut Step<'_>) -> Vec<u32> {
        let Some(member) = self.members.get_mut(&who) else {
            return Vec::new();
        };
        if std::mem::replace(&mut member.online, false) {
            let name = member.name.clone();
            step.tell(Event::Away {
                session: self.id,
                name,
            });
        }
        self.pulse.forget(who);
        for done in self.outgoing.away(who) {
            self.tell_done(Some(done), step);
        }
        self.asks.gone(who)
    }

    pub(crate) fn back(&mut self, who: Address, step: &mut Step<'_>) {
        if let Some(member) = self.members.get_mut(&who)
            && !std::mem::replace(&mut member.online, true)
        {
            self.pulse.watch(who);
            let name = member.name.clone();
            step.tell(Event::Back {
                session: self.id,
                name,
            });
        }
    }

    /// Says something of this session.
    pub(crate) fn say(&mut self, draft: Draft, step: &mut Step<'_>) -> Option<Routed> {
        let to_all = draft.to_all;
        let routed = draft.write(step.identity, self.mls.as_mut(), step.now, step.chance)?;
        if to_all {
            self.pulse.spoke();
        }
        step.out.push(Output::Send(routed.clone()));
        Some(routed)
    }

    pub(crate) fn draft(&self, to: &Name, message: MessageType, id: u32, said: Said) -> Draft {
        Draft {
            destination: to.clone(),
            to_all: false,
            kind: self.kind(),
            message,
            session: self.id.0,
            id,
            failed: false,
            said,
            metadata: BTreeMap::new(),
        }
    }

    /// Says a command to one and waits for the answer.
    pub(crate) fn ask(
        &mut self,
        to: &Name,
        message: MessageType,
        command: Command,
        metadata: BTreeMap<String, String>,
        step: &mut Step<'_>,
    ) -> u32 {
        let id = step.id();
        let mut draft = self.draft(to, message, id, Said::Command(command));
        draft.metadata = metadata;
        let missing = BTreeSet::from([to.address]);
        if let Some(routed) = self.say(draft, step) {
            self.asks.put(id, routed, missing, step.now, self.pace());
        }
        id
    }

    /// Says a command to all and waits for those who are there. `Ok` with the ask, `Err` with it
    /// when there is nobody to wait for.
    pub(crate) fn ask_all(
        &mut self,
        message: MessageType,
        command: Command,
        missing: BTreeSet<Address>,
        step: &mut Step<'_>,
    ) -> Result<u32, u32> {
        let id = step.id();
        let mut draft = self.draft(&self.control, message, id, Said::Command(command));
        draft.to_all = true;
        let routed = self.say(draft, step);
        match routed {
            Some(routed) if !missing.is_empty() => {
                self.asks.put(id, routed, missing, step.now, self.pace());
                Ok(id)
            }
            Some(_) | None => Err(id),
        }
    }

    /// Answers a message, under its own id.
    pub(crate) fn reply(
        &mut self,
        to: &Heard,
        message: MessageType,
        command: Command,
        step: &mut Step<'_>,
    ) {
        let draft = self.draft(&to.source, message, to.id, Said::Command(command));
        step.reply = self.say(draft, step);
    }

    pub(crate) fn reply_ack(&mut self, to: &Heard, step: &mut Step<'_>) {
        let ack = Command::GroupAck(two::GroupAckPayload {});
        self.reply(to, MessageType::GroupAck, ack, step);
    }

    fn say_heartbeat(&mut self, step: &mut Step<'_>) {
        // Without MLS there is no epoch, and SLIM says the largest number.
        let epoch = self.epoch().unwrap_or(u64::MAX);
        let to = if self.is_group {
            self.control.clone()
        } else {
            self.data.clone()
        };
        let command = Command::Heartbeat(two::HeartbeatPayload { epoch });
        let id = step.id();
        let mut draft = self.draft(&to, MessageType::Heartbeat, id, Said::Command(command));
        draft.to_all = self.is_group;
        self.say(draft, step);
    }

    /// Whether somebody's epoch is ours; without MLS there is none to differ in.
    pub(crate) fn is_same_epoch(&self, epoch: u64) -> bool {
        self.epoch().is_none_or(|ours| ours == epoch)
    }

    /// Another member says that he, or the moderator that somebody, goes or is back.
    fn presence_of_other(&mut self, heard: &Heard, step: &mut Step<'_>) {
        let Said::Command(Command::UpdateParticipantState(said)) = &heard.said else {
            return;
        };
        let Some(name) = said.participant.clone().and_then(Name::from_two) else {
            return;
        };
        // Nobody speaks for another here but about himself.
        if name.address != heard.source.address || !self.members.contains_key(&name.address) {
            return;
        }
        if said.new_state == i32::from(two::ParticipantState::Offline) {
            self.away(name.address, step);
        } else if self.is_same_epoch(said.epoch) {
            self.back(name.address, step);
        } else {
            let nack = Command::GroupNack(two::GroupNackPayload {});
            self.reply(heard, MessageType::GroupNack, nack, step);
            return;
        }
        self.reply_ack(heard, step);
    }

    /// Tells the others that we go or are back. The ask, if there is nobody to wait for.
    fn ask_presence(&mut self, online: bool, step: &mut Step<'_>) -> Option<u32> {
        let state = if online {
            two::ParticipantState::Online
        } else {
            two::ParticipantState::Offline
        };
        let command = Command::UpdateParticipantState(two::UpdateParticipantStatePayload {
            participant: Some(step.identity.name().to_two()),
            new_state: state.into(),
            epoch: self.epoch().unwrap_or(0),
        });
        let missing = self.others_online();
        let asked = self.ask_all(MessageType::UpdateParticipantState, command, missing, step);
        let (ask, alone) = match asked {
            Ok(ask) => (ask, None),
            Err(ask) => (ask, Some(ask)),
        };
        self.presence = Some(Presence { ask, online });
        alone
    }

    /// All have answered, or will not: we are away, or back.
    pub(crate) fn presence_is(&mut self, online: bool, missing: &[Address], step: &mut Step<'_>) {
        self.presence = None;
        self.online = online;
        let session = self.id;
        if online {
            self.pulse.start(step.now);
            let there: Vec<Address> = self.others_online().into_iter().collect();
            for who in there {
                self.pulse.watch(who);
            }
            for who in missing {
                self.away(*who, step);
            }
            step.tell(Event::Resumed { session });
        } else {
            self.pulse.stop();
            step.tell(Event::Paused { session });
        }
    }

    fn passes_while_away(&self, message: MessageType) -> bool {
        self.presence.is_some()
            && matches!(
                message,
                MessageType::GroupAck | MessageType::GroupNack | MessageType::RejoinReply
            )
    }

    /// A control message had no effect. It comes again, or is one that a node has changed: then
    /// the true one is still to come.
    pub(crate) fn not_taken(&mut self, heard: &Heard) {
        self.seen.take_back(heard.source.address, heard.id);
    }

    /// The session is over for us.
    pub(crate) fn end(&mut self, why: Ended) {
        self.asks.clear();
        self.over.get_or_insert(why);
    }
}

impl Member {
    /// From a message about the group. `None` without a name at one instance.
    pub(crate) fn from_two(participant: &two::Participant) -> Option<Self> {
        let name = Name::from_two(participant.name.clone()?)?;
        matches!(name.address.instance, Instance::Only(_)).then(|| Self {
            name,
            settings: participant.settings.unwrap_or(BOTH_WAYS),
            online: participant.status == i32::from(two::ParticipantState::Online),
        })
    }

    pub(crate) fn to_two(&self) -> two::Participant {
        let status = if self.online {
            two::ParticipantState::Online
        } else {
            two::ParticipantState::Offline
        };
        two::Participant {
            name: Some(self.name.to_two()),
            settings: Some(self.settings),
            status: status.into(),
        }
    }
}

/// What we say of ourselves, and take for said where nothing is.
pub(crate) const BOTH_WAYS: two::ParticipantSettings = two::ParticipantSettings {
    sends_data: true,
    receives_data: true,
};
/// A message for one member of a group outside the order; its acknowledgement says so too.
const PUBLISH_TO: &str = "PUBLISH_TO";
/// Members of one session.
const MEMBERS_MAX: usize = 1024;
/// Below SLIM's 4 MiB for a whole message, with room for header, tokens and MLS.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024 - 16 * 1024;
