//! The side of whoever was invited: it follows the moderator and nobody else.

use std::collections::BTreeMap;

use skytale_slim::{
    Address, Instance, MessageType, Name,
    proto::two::{self, command_payload::CommandPayloadType as Command},
};

use super::{Body, Member, Step};
use crate::{
    Ended, Event, Output,
    heard::{Heard, PAYLOAD_SIGNATURE, Said},
};

/// What a participant knows besides the members.
#[derive(Debug)]
pub(crate) struct Participant {
    moderator: Name,
    metadata: BTreeMap<String, String>,
    /// The commit that was taken over last. `None` until the Welcome.
    commit: Option<u32>,
    /// Changes that came before their turn.
    early: BTreeMap<u32, Heard>,
    /// A request of ours to be taken in again.
    rejoin: Option<u32>,
    /// Our own leaving.
    leaving: Option<u32>,
    /// Heartbeats since the invitation, while nothing has come of it.
    waited: u32,
}

impl Participant {
    pub(crate) fn new(invitation: &Heard) -> Self {
        Self {
            moderator: invitation.source.clone(),
            metadata: invitation.metadata.clone(),
            commit: None,
            early: BTreeMap::new(),
            rejoin: None,
            leaving: None,
            waited: 0,
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.rejoin.is_some() || self.leaving.is_some() || self.commit.is_none()
    }

    pub(crate) fn waits_for(&self, moderator: Address) -> bool {
        self.commit.is_none() && self.moderator.address == moderator
    }

    /// An invitation without a Welcome ends by itself.
    pub(crate) fn grow_old(&mut self, body: &mut Body) {
        if self.commit.is_none() {
            self.waited += 1;
            if self.waited >= WELCOME_BEATS_MAX {
                body.end(Ended::Unanswered);
            }
        }
    }

    /// Answers the invitation.
    pub(crate) fn accept(body: &mut Body, invitation: &Heard, step: &mut Step<'_>) -> bool {
        let key_package = match &body.mls {
            None => None,
            Some(mls) => match mls.key_package(step.identity, step.now, step.chance) {
                Ok(package) => Some(package),
                Err(error) => {
                    tracing::warn!(%error, "no KeyPackage for an invitation");
                    return false;
                }
            },
        };
        let us = Member {
            name: step.identity.name().clone(),
            settings: super::BOTH_WAYS,
            online: true,
        };
        let reply = Command::JoinReply(two::JoinReplyPayload {
            key_package,
            participant: Some(us.to_two()),
        });
        body.reply(invitation, MessageType::JoinReply, reply, step);
        true
    }

    pub(crate) fn heard(&mut self, body: &mut Body, heard: &Heard, step: &mut Step<'_>) {
        let by_moderator = heard.source.address == self.moderator.address;
        match (heard.message, &heard.said) {
            (MessageType::GroupWelcome, Said::Command(Command::GroupWelcome(said)))
                if by_moderator =>
            {
                self.enter(body, heard, said, step);
            }
            (MessageType::GroupUpdate, Said::Command(Command::GroupUpdate(_))) if by_moderator => {
                self.update(body, heard.clone(), step);
            }
            (MessageType::LeaveRequest, _) if by_moderator => {
                let reply = Command::LeaveReply(two::LeaveReplyPayload {});
                body.reply(heard, MessageType::LeaveReply, reply, step);
                body.end(Ended::Removed);
            }
            (MessageType::GroupClose, _) if by_moderator => {
                body.reply_ack(heard, step);
                body.end(Ended::Closed);
            }
            (MessageType::RejoinReply, Said::Command(Command::RejoinReply(said)))
                if by_moderator =>
            {
                self.readmitted(body, heard, said, step);
            }
            (MessageType::LeaveReply | MessageType::GroupAck, _)
                if body.asks.answered(heard.id, heard.source.address) =>
            {
                self.answered(body, heard.id, &[], step);
            }
            (MessageType::GroupNack, _) => self.refused(body, heard, step),
            (MessageType::Heartbeat, Said::Command(Command::Heartbeat(said))) => {
                self.beat(body, heard, said.epoch, step);
            }
            // What only a participant says is not said to one.
            _ => {}
        }
    }

    pub(crate) fn answered(
        &mut self,
        body: &mut Body,
        ask: u32,
        missing: &[Address],
        step: &mut Step<'_>,
    ) {
        if self.leaving == Some(ask) {
            body.end(Ended::Left);
        } else if self.rejoin == Some(ask) {
            // Nobody answered: the next heartbeat that is ahead of us asks again.
            self.rejoin = None;
            if body.presence.take().is_some() {
                step.tell(Event::NotResumed { session: body.id });
            }
        } else if let Some(presence) = body.presence.filter(|it| it.ask == ask) {
            body.presence_is(presence.online, missing, step);
        }
    }

    pub(crate) fn leave(&mut self, body: &mut Body, step: &mut Step<'_>) {
        if self.leaving.is_some() {
            return;
        }
        body.asks.clear();
        body.is_open = false;
        let request = Command::LeaveRequest(two::LeaveRequestPayload {});
        let metadata = BTreeMap::from([(LEAVING.to_owned(), TRUE.to_owned())]);
        let moderator = self.moderator.clone();
        let ask = body.ask(
            &moderator,
            MessageType::LeaveRequest,
            request,
            metadata,
            step,
        );
        self.leaving = Some(ask);
    }

    /// We are in.
    fn enter(
        &mut self,
        body: &mut Body,
        heard: &Heard,
        said: &two::GroupWelcomePayload,
        step: &mut Step<'_>,
    ) {
        if self.commit.is_none() {
            let commit = match (&mut body.mls, &said.mls) {
                (None, _) => 0,
                (Some(mls), Some(welcome)) => {
                    if let Err(error) = mls.join(&welcome.mls_content, step.identity) {
                        tracing::warn!(session = body.id.0, %error, "a Welcome that MLS refuses");
                        body.not_taken(heard);
                        return;
                    }
                    welcome.commit_id
                }
                (Some(_), None) => {
                    body.not_taken(heard);
                    return;
                }
            };
            self.commit = Some(commit);
            self.replace_members(body, &said.participants, step);
            body.is_open = true;
            if body.is_group {
                step.out.push(Output::Subscribe(body.data.clone()));
                step.out.push(Output::Subscribe(body.control.clone()));
            }
            body.is_told = true;
            step.tell(Event::Joined {
                session: body.id,
                moderator: self.moderator.clone(),
                name: body.data.clone(),
                is_group: body.is_group,
                mls: body.mls.is_some(),
                metadata: shown(&self.metadata),
            });
        }
        body.reply_ack(heard, step);
    }

    /// A change of the group, in the order of the moderator's counter.
    fn update(&mut self, body: &mut Body, heard: Heard, step: &mut Step<'_>) {
        let Some(last) = self.commit else {
            body.not_taken(&heard);
            return;
        };
        let Said::Command(Command::GroupUpdate(said)) = &heard.said else {
            return;
        };
        let Some(mls) = said.mls.as_ref().filter(|_| body.mls.is_some()) else {
            if body.mls.is_none() {
                self.apply(body, &heard, step);
            } else {
                body.not_taken(&heard);
            }
            return;
        };
        let turn = mls.commit_id;
        // Our own readmission came by its Welcome, which may be here before or after this.
        let is_ours = said.op == i32::from(two::GroupUpdateOp::Rejoin)
            && said
                .participant
                .as_ref()
                .and_then(Member::from_two)
                .is_some_and(|it| it.name.address == step.identity.name().address);
        if is_ours {
            self.apply(body, &heard, step);
            return;
        }
        // Its turn and not its id says whether it was here before: a node may have changed the turn.
        body.not_taken(&heard);
        if turn > last {
            if self.early.len() >= EARLY_MAX {
                self.early.pop_last();
            }
            self.early.insert(turn, heard);
            self.catch_up(body, step);
        }
    }

    fn catch_up(&mut self, body: &mut Body, step: &mut Step<'_>) {
        while let Some(last) = self.commit {
            let Some(heard) = self.early.remove(&(last.wrapping_add(1))) else {
                return;
            };
            let Said::Command(Command::GroupUpdate(said)) = &heard.said else {
                return;
            };
            if let (Some(mls), Some(commit)) = (&mut body.mls, &said.mls) {
                let Instance::Only(moderator) = self.moderator.address.instance else {
                    return;
                };
                let content = &commit.mls_content;
                if let Err(error) = mls.follow(content, moderator, step.identity, step.now) {
                    tracing::warn!(session = body.id.0, %error, "a commit that MLS refuses");
                    self.ask_to_rejoin(body, step);
                    return;
                }
                self.commit = Some(commit.commit_id);
            }
            self.apply(body, &heard, step);
        }
    }

    /// Takes over who is in, and says so.
    fn apply(&mut self, body: &mut Body, heard: &Heard, step: &mut Step<'_>) {
        let Said::Command(Command::GroupUpdate(said)) = &heard.said else {
            return;
        };
        let member = said.participant.as_ref().and_then(Member::from_two);
        let Some(member) = member else {
            return;
        };
        let name = member.name.clone();
        let is_us = name.address == step.identity.name().address;
        match two::GroupUpdateOp::try_from(said.op) {
            Ok(two::GroupUpdateOp::Add) if !is_us => {
                if body.enter_new(member) {
                    step.tell(Event::Added {
                        session: body.id,
                        name,
                    });
                }
            }
            Ok(two::GroupUpdateOp::Remove) if !is_us => {
                for ask in body.drop_member(name.address, step) {
                    self.answered(body, ask, &[], step);
                }
                step.tell(Event::Removed {
                    session: body.id,
                    name,
                });
            }
            Ok(two::GroupUpdateOp::Rejoin) if !is_us => {
                if body.members.contains_key(&name.address) {
                    body.back(name.address, step);
                } else {
                    body.enter(Member {
                        online: true,
                        ..member
                    });
                }
            }
            Ok(two::GroupUpdateOp::Rejoin) => {
                self.replace_members(body, &said.participants, step);
            }
            // That we were added came by the Welcome; that we are out comes as a LeaveRequest.
            Ok(two::GroupUpdateOp::Add | two::GroupUpdateOp::Remove) | Err(_) => {}
        }
        body.reply_ack(heard, step);
    }

    fn replace_members(
        &mut self,
        body: &mut Body,
        participants: &[two::Participant],
        step: &mut Step<'_>,
    ) {
        let us = step.identity.name().address;
        let members: Vec<Member> = participants.iter().filter_map(Member::from_two).collect();
        let gone: Vec<Address> = body
            .members
            .keys()
            .filter(|known| !members.iter().any(|it| it.name.address == **known))
            .copied()
            .collect();
        for who in gone {
            for ask in body.drop_member(who, step) {
                self.answered(body, ask, &[], step);
            }
        }
        for member in members {
            if member.name.address != us {
                body.enter(member);
            }
        }
    }

    /// Somebody is there; if he knows an epoch that we do not, we have missed a commit.
    fn beat(&mut self, body: &mut Body, heard: &Heard, epoch: u64, step: &mut Step<'_>) {
        let who = heard.source.address;
        let Some(member) = body.members.get(&who) else {
            return;
        };
        let away = !member.online;
        if body.epoch().is_some_and(|ours| epoch > ours) {
            self.ask_to_rejoin(body, step);
        } else if away {
            body.pulse.want();
            if body.is_same_epoch(epoch) {
                body.back(who, step);
            }
        }
    }

    /// One of the others is in another epoch than we were when we came back.
    fn refused(&mut self, body: &mut Body, heard: &Heard, step: &mut Step<'_>) {
        let is_ours = body
            .presence
            .is_some_and(|it| it.online && it.ask == heard.id);
        if is_ours && body.asks.waits_for(heard.id, heard.source.address) {
            body.asks.forget(heard.id);
            self.ask_to_rejoin(body, step);
        }
    }

    fn ask_to_rejoin(&mut self, body: &mut Body, step: &mut Step<'_>) {
        if self.rejoin.is_some() || self.leaving.is_some() {
            return;
        }
        let Some(mls) = &body.mls else {
            return;
        };
        let Ok(key_package) = mls.key_package(step.identity, step.now, step.chance) else {
            return;
        };
        let request = Command::RejoinRequest(two::RejoinRequestPayload {
            participant: Some(step.identity.name().to_two()),
            key_package,
        });
        let moderator = self.moderator.clone();
        let metadata = BTreeMap::new();
        let ask = body.ask(
            &moderator,
            MessageType::RejoinRequest,
            request,
            metadata,
            step,
        );
        self.rejoin = Some(ask);
    }

    fn readmitted(
        &mut self,
        body: &mut Body,
        heard: &Heard,
        said: &two::RejoinReplyPayload,
        step: &mut Step<'_>,
    ) {
        if self.rejoin != Some(heard.id) {
            return;
        }
        let Some(mls) = &mut body.mls else {
            return;
        };
        if let Err(error) = mls.join(&said.mls_content, step.identity) {
            tracing::warn!(session = body.id.0, %error, "a Welcome that MLS refuses");
            body.not_taken(heard);
            return;
        }
        body.asks.forget(heard.id);
        self.rejoin = None;
        self.commit = Some(said.commit_id);
        self.early.retain(|turn, _| *turn > said.commit_id);
        body.reply_ack(heard, step);
        if body.presence.is_some() {
            body.presence_is(true, &[], step);
        }
        self.catch_up(body, step);
    }
}

/// What SLIM itself put beside the invitation is not the application's.
fn shown(metadata: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut metadata = metadata.clone();
    metadata.remove(PAYLOAD_SIGNATURE);
    metadata
}

/// The mark of a `LeaveRequest` by which a participant says that it goes itself.
pub(crate) const LEAVING: &str = "LEAVING_SESSION";
const TRUE: &str = "TRUE";
/// Heartbeats, of ten seconds, that an invited one waits for its Welcome.
const WELCOME_BEATS_MAX: u32 = 6;
/// Changes held until those before them have come. The moderator makes one at a time.
const EARLY_MAX: usize = 16;
