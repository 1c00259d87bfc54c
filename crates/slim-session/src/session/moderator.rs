//! The side of whoever made the session: it alone invites, removes and commits, one thing at a
//! time.
//!
//! | doing | said | goes on with |
//! |---|---|---|
//! | discovering | `DiscoveryRequest` to a name | the instance that answers first |
//! | joining | `JoinRequest` to it | its KeyPackage |
//! | adding | `GroupWelcome` to it, `GroupUpdate` to the others | all acknowledgements |
//! | removing | `GroupUpdate` to all | the others' acknowledgements |
//! | dismissing | `LeaveRequest` to who was removed | its `LeaveReply` |
//! | closing | `GroupClose` to all | the end |

use std::collections::{BTreeMap, VecDeque};

use skytale_slim::{
    Address, Instance, MessageType, Name,
    proto::two::{self, command_payload::CommandPayloadType as Command},
};

use super::{Body, Member, Step};
use crate::{
    Ended, Event, Misuse,
    group::{Change, Refused},
    heard::{Heard, Said},
    identity::Claim,
    session::participant::LEAVING,
};

/// What a moderator has to do.
#[derive(Debug)]
pub(crate) struct Moderator {
    todo: VecDeque<Task>,
    doing: Option<Doing>,
    /// Commits so far; members order them by it.
    commits: u32,
    /// What the application gave the session, for whoever is invited.
    metadata: BTreeMap<String, String>,
}

#[derive(Debug)]
enum Task {
    Add(Name),
    Remove(Name),
    /// He said that he goes, or never came: nothing is said to him.
    Drop(Name),
}

#[derive(Debug)]
enum Doing {
    Discovering {
        name: Name,
        ask: u32,
    },
    Joining {
        name: Name,
        ask: u32,
    },
    Adding {
        name: Name,
        welcome: Option<u32>,
        update: Option<u32>,
    },
    Removing {
        name: Name,
        ask: u32,
        dismiss: bool,
    },
    Dismissing {
        ask: u32,
    },
    Readmitting {
        ask: u32,
    },
    Closing {
        ask: u32,
    },
}

impl Moderator {
    pub(crate) fn new(metadata: BTreeMap<String, String>) -> Self {
        Self {
            todo: VecDeque::new(),
            doing: None,
            commits: 0,
            metadata,
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.doing.is_some()
    }

    pub(crate) fn invite(
        &mut self,
        body: &mut Body,
        name: Name,
        step: &mut Step<'_>,
    ) -> Result<(), Misuse> {
        self.put(Task::Add(name))?;
        self.go_on(body, step);
        Ok(())
    }

    pub(crate) fn remove(
        &mut self,
        body: &mut Body,
        name: &Name,
        step: &mut Step<'_>,
    ) -> Result<(), Misuse> {
        let member = find(body, name).ok_or(Misuse::NoSuchMember)?;
        self.put(Task::Remove(member))?;
        self.go_on(body, step);
        Ok(())
    }

    pub(crate) fn close(&mut self, body: &mut Body, step: &mut Step<'_>) {
        self.todo.clear();
        body.asks.clear();
        let members = body.members.values().map(|member| member.name.to_two());
        let us = step.identity.name().to_two();
        let participants = std::iter::once(us).chain(members).collect();
        let close = Command::GroupClose(two::GroupClosePayload { participants });
        let missing = body.others_online();
        match body.ask_all(MessageType::GroupClose, close, missing, step) {
            Ok(ask) => self.doing = Some(Doing::Closing { ask }),
            Err(_) => body.end(Ended::Left),
        }
    }

    pub(crate) fn heard(
        &mut self,
        body: &mut Body,
        heard: &Heard,
        claim: &Claim,
        step: &mut Step<'_>,
    ) {
        match (heard.message, &heard.said) {
            (MessageType::DiscoveryReply, _) => self.discovered(body, heard, step),
            (MessageType::JoinReply, Said::Command(Command::JoinReply(said))) => {
                self.joins(body, heard, claim, said, step);
            }
            // A member that cannot follow will ask to come in again by itself.
            (MessageType::GroupAck | MessageType::GroupNack | MessageType::LeaveReply, _)
                if body.asks.answered(heard.id, heard.source.address) =>
            {
                self.answered(body, heard.id, &[], step);
            }
            (MessageType::LeaveRequest, _) if heard.has(LEAVING) => self.leaves(body, heard, step),
            (MessageType::Heartbeat, Said::Command(Command::Heartbeat(said))) => {
                let who = heard.source.address;
                let away = body.members.get(&who).is_some_and(|it| !it.online);
                if away {
                    body.pulse.want();
                    if body.is_same_epoch(said.epoch) {
                        body.back(who, step);
                    }
                }
            }
            (MessageType::RejoinRequest, Said::Command(Command::RejoinRequest(said))) => {
                self.readmit(body, heard, claim, said, step);
            }
            // What only a moderator says is not said to one.
            _ => {}
        }
    }

    /// An ask has all its answers, or will not get those that are missing.
    pub(crate) fn answered(
        &mut self,
        body: &mut Body,
        ask: u32,
        missing: &[Address],
        step: &mut Step<'_>,
    ) {
        if let Some(presence) = body.presence.filter(|it| it.ask == ask) {
            body.presence_is(presence.online, missing, step);
            return;
        }
        let Some(doing) = self.doing.take() else {
            return;
        };
        match doing {
            Doing::Discovering { name, ask: ours } | Doing::Joining { name, ask: ours }
                if ours == ask =>
            {
                self.gives_up(body, name, "it did not answer".into(), step);
            }
            Doing::Adding {
                name,
                welcome,
                update,
            } if welcome == Some(ask) || update == Some(ask) => {
                let welcome_failed = welcome == Some(ask) && !missing.is_empty();
                if welcome_failed {
                    // It may be in or not: out, so that the others and we agree.
                    self.drop_soon(&name);
                    self.gives_up(body, name, "it did not take the Welcome".into(), step);
                    return;
                }
                for who in missing {
                    body.away(*who, step);
                }
                let welcome = welcome.filter(|it| *it != ask);
                let update = update.filter(|it| *it != ask);
                if welcome.is_none() && update.is_none() {
                    self.is_in(body, name, step);
                } else {
                    self.doing = Some(Doing::Adding {
                        name,
                        welcome,
                        update,
                    });
                }
            }
            Doing::Removing {
                name,
                ask: ours,
                dismiss,
            } if ours == ask => {
                for who in missing {
                    body.away(*who, step);
                }
                self.is_out(body, &name, dismiss, step);
            }
            Doing::Dismissing { ask: ours } if ours == ask => self.go_on(body, step),
            Doing::Readmitting { ask: ours } if ours == ask => {
                for who in missing {
                    body.away(*who, step);
                }
                self.go_on(body, step);
            }
            Doing::Closing { ask: ours } if ours == ask => body.end(Ended::Left),
            other @ (Doing::Discovering { .. }
            | Doing::Joining { .. }
            | Doing::Adding { .. }
            | Doing::Removing { .. }
            | Doing::Dismissing { .. }
            | Doing::Readmitting { .. }
            | Doing::Closing { .. }) => self.doing = Some(other),
        }
    }

    fn put(&mut self, task: Task) -> Result<(), Misuse> {
        if self.todo.len() >= TASKS_MAX {
            return Err(Misuse::Full);
        }
        self.todo.push_back(task);
        Ok(())
    }

    /// Before all else, and once, however often somebody says that he goes.
    fn drop_soon(&mut self, name: &Name) {
        let is_same = |task: &Task| matches!(task, Task::Drop(it) if it.address == name.address);
        if !self.todo.iter().any(is_same) {
            self.todo.push_front(Task::Drop(name.clone()));
        }
    }

    /// Takes up the next task, if nothing is being done.
    fn go_on(&mut self, body: &mut Body, step: &mut Step<'_>) {
        while self.doing.is_none() && body.over.is_none() {
            match self.todo.pop_front() {
                None => return,
                Some(Task::Add(name)) => self.discover(body, name, step),
                Some(Task::Remove(name)) => self.take_out(body, name, true, step),
                Some(Task::Drop(name)) => self.take_out(body, name, false, step),
            }
        }
    }

    fn discover(&mut self, body: &mut Body, name: Name, step: &mut Step<'_>) {
        if find(body, &name).is_some() {
            self.gives_up(body, name, "it is in already".into(), step);
            return;
        }
        let request = Command::DiscoveryRequest(two::DiscoveryRequestPayload {});
        let metadata = BTreeMap::new();
        let ask = body.ask(
            &name,
            MessageType::DiscoveryRequest,
            request,
            metadata,
            step,
        );
        self.doing = Some(Doing::Discovering { name, ask });
    }

    fn discovered(&mut self, body: &mut Body, heard: &Heard, step: &mut Step<'_>) {
        let Some(Doing::Discovering { name, ask }) = &self.doing else {
            return;
        };
        let asked = name.address;
        let found = heard.source.address;
        let is_it = asked.components == found.components
            && (asked.instance == Instance::Any || asked.instance == found.instance);
        if !is_it || heard.id != *ask {
            return;
        }
        body.asks.forget(*ask);
        if !body.is_group {
            // Any instance was meant; this one it is from now on.
            body.data = heard.source.clone();
            body.control = heard.source.clone();
        }
        let pace = body.reliability();
        let names = body
            .is_group
            .then(|| (body.data.to_two(), body.control.to_two()));
        let (channel, control) = names.unzip();
        let request = Command::JoinRequest(two::JoinRequestPayload {
            timer_settings: pace.map(|pace| two::TimerSettings {
                timeout: u32::try_from(pace.interval_ms).unwrap_or(u32::MAX),
                max_retries: pace.retries_max,
            }),
            channel,
            control,
            mls_settings: body.mls.as_ref().map(|_| two::MlsSettings {
                header_integrity_validation_percent: 100,
            }),
        });
        let name = heard.source.clone();
        let metadata = self.metadata.clone();
        let ask = body.ask(&name, MessageType::JoinRequest, request, metadata, step);
        self.doing = Some(Doing::Joining { name, ask });
    }

    fn joins(
        &mut self,
        body: &mut Body,
        heard: &Heard,
        claim: &Claim,
        said: &two::JoinReplyPayload,
        step: &mut Step<'_>,
    ) {
        let Some(Doing::Joining { name, ask }) = &self.doing else {
            return;
        };
        let member = said.participant.as_ref().and_then(Member::from_two);
        let Some(member) = member.filter(|it| it.name.address == name.address) else {
            return;
        };
        if heard.source.address != name.address || heard.id != *ask {
            return;
        }
        body.asks.forget(*ask);
        match self.admit(body, claim, said, step) {
            Ok(change) => self.welcome(body, member, change, step),
            Err(error) => self.gives_up(body, member.name, error.to_string(), step),
        }
    }

    /// The joiner's place in MLS. `None` in a session without.
    fn admit(
        &mut self,
        body: &mut Body,
        claim: &Claim,
        said: &two::JoinReplyPayload,
        step: &mut Step<'_>,
    ) -> Result<Option<Change>, Refused> {
        let Some(mls) = &mut body.mls else {
            return Ok(None);
        };
        let package = said.key_package.as_deref().unwrap_or_default();
        mls.check_owner(package, claim, step.identity, step.now)?;
        if mls.epoch().is_none() {
            mls.create(step.identity, step.now, step.chance)?;
        }
        let change = mls.add(package, step.identity)?;
        self.commits += 1;
        Ok(Some(change))
    }

    fn welcome(
        &mut self,
        body: &mut Body,
        member: Member,
        change: Option<Change>,
        step: &mut Step<'_>,
    ) {
        let name = member.name.clone();
        let others = body.others_online();
        let was_alone = body.members.is_empty();
        let added = member.to_two();
        if !body.enter_new(member) {
            self.gives_up(body, name, "the group is full".into(), step);
            return;
        }
        body.is_open = true;
        let participants = body.roster(step);
        let commit_id = self.commits;
        let (commit, welcome) = change
            .map(|change| {
                let payload = |mls_content| two::MlsPayload {
                    commit_id,
                    mls_content,
                };
                (payload(change.commit), payload(change.welcome))
            })
            .unzip();
        let mut update = None;
        if !was_alone {
            let command = Command::GroupUpdate(two::GroupUpdatePayload {
                op: two::GroupUpdateOp::Add.into(),
                participant: Some(added),
                participants: participants.clone(),
                mls: commit,
            });
            update = body
                .ask_all(MessageType::GroupUpdate, command, others, step)
                .ok();
        }
        let command = Command::GroupWelcome(two::GroupWelcomePayload {
            participants,
            mls: welcome,
        });
        let metadata = BTreeMap::new();
        let welcome = body.ask(&name, MessageType::GroupWelcome, command, metadata, step);
        self.doing = Some(Doing::Adding {
            name,
            welcome: Some(welcome),
            update,
        });
    }

    fn is_in(&mut self, body: &mut Body, name: Name, step: &mut Step<'_>) {
        step.tell(Event::Added {
            session: body.id,
            name,
        });
        self.go_on(body, step);
    }

    fn gives_up(&mut self, body: &mut Body, name: Name, why: String, step: &mut Step<'_>) {
        self.doing = None;
        step.tell(Event::NotAdded {
            session: body.id,
            name,
            why,
        });
        if body.is_group {
            self.go_on(body, step);
        } else {
            body.end(Ended::Unanswered);
        }
    }

    /// Takes a member out of group and MLS and tells the others.
    fn take_out(&mut self, body: &mut Body, name: Name, dismiss: bool, step: &mut Step<'_>) {
        let who = name.address;
        let Some(member) = body.members.get(&who) else {
            return;
        };
        let removed = member.to_two();
        // The others see the list as it was, as SLIM's moderator says it.
        let participants = body.roster(step);
        let mls = match body.mls.as_mut() {
            None => None,
            Some(mls) => match instance_of(who).map(|it| mls.remove(it, step.identity)) {
                Some(Ok(change)) => {
                    self.commits += 1;
                    Some(two::MlsPayload {
                        commit_id: self.commits,
                        mls_content: change.commit,
                    })
                }
                Some(Err(error)) => {
                    tracing::warn!(session = body.id.0, %error, "a member that MLS does not let go");
                    None
                }
                None => None,
            },
        };
        for ask in body.drop_member(who, step) {
            self.answered(body, ask, &[], step);
        }
        let others = body.others_online();
        if participants.len() <= 2 {
            self.is_out(body, &name, dismiss, step);
            return;
        }
        let command = Command::GroupUpdate(two::GroupUpdatePayload {
            op: two::GroupUpdateOp::Remove.into(),
            participant: Some(removed),
            participants,
            mls,
        });
        match body.ask_all(MessageType::GroupUpdate, command, others, step) {
            Ok(ask) => {
                self.doing = Some(Doing::Removing { name, ask, dismiss });
            }
            Err(_) => self.is_out(body, &name, dismiss, step),
        }
    }

    fn is_out(&mut self, body: &mut Body, name: &Name, dismiss: bool, step: &mut Step<'_>) {
        self.doing = None;
        step.tell(Event::Removed {
            session: body.id,
            name: name.clone(),
        });
        if dismiss {
            let request = Command::LeaveRequest(two::LeaveRequestPayload {});
            let metadata = BTreeMap::new();
            let ask = body.ask(name, MessageType::LeaveRequest, request, metadata, step);
            self.doing = Some(Doing::Dismissing { ask });
        } else {
            self.go_on(body, step);
        }
    }

    /// A member goes by itself. It waits for our reply and then hears nothing more.
    fn leaves(&mut self, body: &mut Body, heard: &Heard, step: &mut Step<'_>) {
        if !body.members.contains_key(&heard.source.address) {
            return;
        }
        let reply = Command::LeaveReply(two::LeaveReplyPayload {});
        body.reply(heard, MessageType::LeaveReply, reply, step);
        if body.is_group {
            // Nobody waits for its answers any more, even while another thing is being done.
            for ask in body.away(heard.source.address, step) {
                self.answered(body, ask, &[], step);
            }
            self.drop_soon(&heard.source);
            self.go_on(body, step);
        } else {
            body.end(Ended::PeerLeft);
        }
    }

    /// A member has lost an epoch: out and in again by one commit.
    fn readmit(
        &mut self,
        body: &mut Body,
        heard: &Heard,
        claim: &Claim,
        said: &two::RejoinRequestPayload,
        step: &mut Step<'_>,
    ) {
        let who = heard.source.address;
        let named = said.participant.clone().and_then(Name::from_two);
        let is_himself = named.is_some_and(|name| name.address == who);
        if !is_himself || !body.members.contains_key(&who) {
            return;
        }
        // While another thing is done he asks again.
        if self.doing.is_some() {
            body.not_taken(heard);
            return;
        }
        let (Some(mls), Some(instance)) = (body.mls.as_mut(), instance_of(who)) else {
            return;
        };
        let package = &said.key_package;
        let change = mls
            .check_owner(package, claim, step.identity, step.now)
            .and_then(|()| mls.replace(instance, package, step.identity));
        let change = match change {
            Ok(change) => change,
            Err(error) => {
                tracing::debug!(session = body.id.0, %error, "a KeyPackage that MLS refuses");
                body.not_taken(heard);
                return;
            }
        };
        self.commits += 1;
        let commit_id = self.commits;
        let reply = Command::RejoinReply(two::RejoinReplyPayload {
            commit_id,
            mls_content: change.welcome,
        });
        body.reply(heard, MessageType::RejoinReply, reply, step);
        body.back(who, step);
        let command = Command::GroupUpdate(two::GroupUpdatePayload {
            op: two::GroupUpdateOp::Rejoin.into(),
            participant: body.members.get(&who).map(Member::to_two),
            participants: body.roster(step),
            mls: Some(two::MlsPayload {
                commit_id,
                mls_content: change.commit,
            }),
        });
        let missing = body.others_online();
        match body.ask_all(MessageType::GroupUpdate, command, missing, step) {
            Ok(ask) => self.doing = Some(Doing::Readmitting { ask }),
            Err(_) => self.go_on(body, step),
        }
    }
}

/// The member that a name means: that instance, or any below the prefix.
fn find(body: &Body, name: &Name) -> Option<Name> {
    let meant = name.address;
    body.members
        .values()
        .map(|member| &member.name)
        .find(|known| {
            known.address.components == meant.components
                && (meant.instance == Instance::Any || known.address.instance == meant.instance)
        })
        .cloned()
}

fn instance_of(address: Address) -> Option<u128> {
    match address.instance {
        Instance::Only(id) => Some(id),
        Instance::Any => None,
    }
}

/// Invitations and removals that may wait.
const TASKS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// A member could otherwise fill our memory with them while another thing is done.
    #[test]
    fn who_says_often_that_he_goes_is_dropped_once() {
        let mut moderator = Moderator::new(BTreeMap::new());
        let bob = Name::parse("org/ns/bob").unwrap();
        let carol = Name::parse("org/ns/carol").unwrap();
        for name in [&bob, &bob, &carol, &bob] {
            moderator.drop_soon(name);
        }
        assert_eq!(moderator.todo.len(), 2);
    }
}
