//! Coming in by an invite, with nobody else online: an external commit built in the shadow of the
//! store, which becomes the channel's group when the relay has ordered it.

use std::collections::BTreeMap;

use skytale_wire::{
    envelope::{Kind, content_hash},
    frame::{self, JoinProof, Nack, ToRelay},
    id::{ChannelId, Seq},
    invite::{BadInvite, Invite},
    refusal::{Refusal, Remedy},
    statement,
};

use super::{
    Channel, Line, PAUSE_MS, invite,
    receive::change_hash,
    record::{Closed, Pending, Record, State},
};
use crate::{
    Answer, Error,
    agent::Step,
    command::CommandId,
    mls::{Group, OpenedGroupInfo, provider::Provider},
    policy::{Bound, Policy, join_change},
    session::{Asked, Uplink, fresh_id},
    store,
};

impl Channel {
    /// Takes an invite line. Gives the channel that it begins, or the answer when we are in
    /// already.
    pub(crate) fn accept_line(
        step: &mut Step<'_, '_>,
        channels: &mut BTreeMap<ChannelId, Self>,
        command: CommandId,
        line: &str,
    ) -> Result<(Option<Self>, Option<Answer>), Error> {
        let invite: Invite = line.parse().map_err(|error: BadInvite| match error {
            BadInvite::Altered => Error::Denied(Refusal::InviteAltered),
            BadInvite::NotAnInvite | _ => Error::Misuse(error.to_string()),
        })?;
        if let Some(channel) = channels.get_mut(&invite.channel) {
            match &channel.record.state {
                State::Active { .. } | State::Stuck { .. } => {
                    return Ok((None, Some(Answer::Channel(invite.channel))));
                }
                State::Creating { .. } | State::Joining { .. } => {
                    channel.openers.push(command);
                    return Ok((None, None));
                }
                State::Leaving { .. } => {
                    return Err(Error::Misuse(
                        "this agent is just leaving the channel: try again".into(),
                    ));
                }
                State::Offered { .. } | State::Closed { .. } => {}
            }
        }
        if invite.expires <= step.now {
            return Err(Refusal::InviteExpired.into());
        }
        let state = State::Joining {
            line: line.trim().to_owned(),
            command,
            sent: None,
        };
        store::remember(step.tx, &invite.inviter)?;
        store::forget_channel_rows(step.tx, &invite.channel)?;
        let earlier = channels.get(&invite.channel).map(|channel| &channel.record);
        let mut record = Record::new(
            invite.channel,
            String::new(),
            invite.relay,
            invite.addresses,
            state,
        )
        .after(earlier);
        record.generation = invite.generation;
        Ok((Some(Self::over(record)), None))
    }

    /// What a join needs next from the relay: the answer to its commit, or the group's state.
    pub(super) fn pursue_join(
        &mut self,
        step: &mut Step<'_, '_>,
        uplink: &mut Uplink,
    ) -> Result<(), Error> {
        let State::Joining { sent, .. } = &self.record.state else {
            return Ok(());
        };
        self.line = Line::Level;
        if sent.is_some()
            && let Some(frame) = store::pending(step.tx, &self.record.id)?
        {
            uplink.send(step, frame);
            return Ok(());
        }
        let Some(seed) = self.unused_invite() else {
            return Ok(());
        };
        let id = fresh_id(step);
        uplink.ask(id, Asked::GroupInfo(self.record.id));
        let take = frame::TakeGroupInfo {
            id,
            channel: self.record.id,
            invite: seed.id(),
        };
        uplink.send(step, ToRelay::TakeGroupInfo(take));
        Ok(())
    }

    /// The group's state has come: check it, and commit.
    pub(crate) fn group_info(
        &mut self,
        step: &mut Step<'_, '_>,
        info: &frame::GroupInfo,
        uplink: &mut Uplink,
    ) -> Result<(), Error> {
        let State::Joining {
            line, sent: None, ..
        } = &self.record.state
        else {
            return Ok(());
        };
        let Ok(invite) = line.parse::<Invite>() else {
            return self.join_failed(step, Error::Denied(Refusal::InviteAltered));
        };
        self.asked_to_seal = 0;
        let opened = invite::open(step.provider, &invite.seed, info)
            .and_then(|bytes| OpenedGroupInfo::read(&bytes));
        let Ok(opened) = opened else {
            // Whoever sealed it made a mistake, or the relay altered it: somebody may seal afresh.
            self.want_group_info(step, &invite, uplink);
            return Ok(());
        };
        match self.commit_join(step, &invite, opened) {
            Ok(frame) => {
                uplink.send(step, frame);
                Ok(())
            }
            Err(error @ Error::Damaged(_)) => Err(error),
            Err(error) => self.join_failed(step, error),
        }
    }

    fn want_group_info(&mut self, step: &mut Step<'_, '_>, invite: &Invite, uplink: &mut Uplink) {
        let id = fresh_id(step);
        uplink.ask(id, Asked::GroupInfo(self.record.id));
        let want = frame::WantGroupInfo {
            id,
            channel: self.record.id,
            invite: invite.seed.id(),
        };
        uplink.send(step, ToRelay::WantGroupInfo(want));
    }

    /// Builds the external commit, stores it, and gives the frame to send.
    fn commit_join(
        &mut self,
        step: &mut Step<'_, '_>,
        invite: &Invite,
        info: OpenedGroupInfo,
    ) -> Result<ToRelay, Error> {
        let me = step.identity.id();
        let policy = info.policy()?;
        let group_id = self.record.group_id();
        check_line(invite, &policy, &info.group_id(), &group_id.0)?;
        let epoch = info.epoch();
        let invite_id = invite.seed.id();
        let context = info.context_hash()?;
        let signature = invite
            .seed
            .sign(&statement::join(&group_id, &context, &invite_id, &me));
        let declared = frame::encode(&join_change(me));
        let id = fresh_id(step);
        let bound = Bound {
            change: Some(change_hash(&declared)),
            join: Some(signature),
            ..Bound::new(self.record.id, id, Kind::Join)
        };
        let shadow = step.provider.shadow();
        let joined = info.join(&shadow, step.identity, &invite_id, &bound, true)?;
        check_members(&joined.group, invite)?;
        let leaves = joined.group.leaves()?;
        let usable = policy.usable(&leaves);
        let sealed = joined
            .commit
            .group_info
            .filter(|_| !usable.is_empty())
            .map(|info| invite::seal(step.provider, &info, &usable))
            .transpose()?;
        let commit = frame::Commit {
            channel: self.record.id,
            id,
            epoch,
            body: joined.commit.body.into(),
            change: declared.into(),
            welcomes: Vec::new(),
            sealed,
            join: Some(JoinProof {
                group: group_id,
                context,
                invite: invite_id,
                signature,
            }),
        };
        if let State::Joining { sent, .. } = &mut self.record.state {
            *sent = Some(Pending {
                id,
                content: content_hash(&commit.body, Some(&commit.change)),
                epoch,
                wish: None,
                seq: None,
            });
        }
        let frame = ToRelay::Commit(commit);
        store::save_pending(step.tx, &self.record.id, &frame::encode(&frame))?;
        self.changed = true;
        Ok(frame)
    }

    /// The relay has ordered our join: the shadow becomes the group.
    pub(super) fn joined(&mut self, step: &mut Step<'_, '_>, seq: Seq) -> Result<(), Error> {
        let State::Joining { line, command, .. } = &self.record.state else {
            return Ok(());
        };
        let (line, command) = (line.clone(), *command);
        let inviter = line.parse::<Invite>().map(|invite| invite.inviter).ok();
        Group::promote(step.provider, &self.record.group_id())?;
        store::drop_pending(step.tx, &self.record.id)?;
        self.record.unconfirmed = inviter;
        self.openers.push(command);
        self.enter(step, seq, None)
    }

    /// We are a member as of this place in the log: load the group and open the channel.
    pub(super) fn enter(
        &mut self,
        step: &mut Step<'_, '_>,
        seq: Seq,
        hash: Option<skytale_wire::id::Digest>,
    ) -> Result<(), Error> {
        let provider: &Provider<'_> = step.provider;
        self.group = Group::load(provider, &self.record.group_id())?;
        let group = self.group()?;
        let (policy, leaves) = (group.policy()?, group.leaves()?);
        for leaf in &leaves {
            let (admin, may_invite) =
                (policy.is_admin(&leaf.agent), policy.may_invite(&leaf.agent));
            store::set_member(step.tx, &self.record.id, &leaf.agent, admin, may_invite)?;
        }
        self.record.name = policy.name.to_string();
        self.record.cursor = seq;
        self.record.log_hash = hash;
        self.record.marks.clear();
        self.record.state = State::Active { pending: None };
        self.new_keys(step)?;
        self.opened(step);
        Ok(())
    }

    /// The relay has refused something on our way in.
    pub(super) fn join_refused(
        &mut self,
        step: &mut Step<'_, '_>,
        nack: &Nack,
        uplink: &mut Uplink,
    ) -> Result<(), Error> {
        let State::Joining { line, sent, .. } = &mut self.record.state else {
            return Ok(());
        };
        if nack.refusal == Refusal::GroupInfoMissing {
            if let Ok(invite) = line.parse::<Invite>() {
                self.want_group_info(step, &invite, uplink);
            }
            // Whoever seals it may fail, or go: ask again until it is there.
            self.line = Line::Down;
            let pause = WANT_AGAIN_MS.0 << self.asked_to_seal.min(WANT_AGAIN_DOUBLINGS);
            self.asked_to_seal += 1;
            self.pause(step, pause.min(WANT_AGAIN_MS.1));
            return Ok(());
        }
        match nack.refusal.remedy() {
            Remedy::CatchUp => {
                // Another commit came first: begin again from the state that it made.
                if sent.as_ref().is_some_and(|sent| sent.id == nack.id) {
                    *sent = None;
                    self.changed = true;
                    Group::discard(step.provider, &self.record.group_id())?;
                    store::drop_pending(step.tx, &self.record.id)?;
                    self.line = Line::Down;
                    self.pause(step, PAUSE_MS / 2);
                }
                Ok(())
            }
            Remedy::Retry => {
                self.line = Line::Down;
                self.pause(step, PAUSE_MS);
                Ok(())
            }
            Remedy::GetPermission | Remedy::FixRequest => {
                self.join_failed(step, Error::Denied(nack.refusal))
            }
        }
    }

    /// The relay did not let us in as a guest.
    pub(crate) fn guest_refused(
        &mut self,
        step: &mut Step<'_, '_>,
        refusal: Refusal,
    ) -> Result<(), Error> {
        match refusal.remedy() {
            Remedy::Retry | Remedy::CatchUp => Ok(()),
            Remedy::GetPermission | Remedy::FixRequest => {
                self.join_failed(step, Error::Denied(refusal))
            }
        }
    }

    /// It will not succeed: everybody who waits is told why.
    fn join_failed(&mut self, step: &mut Step<'_, '_>, error: Error) -> Result<(), Error> {
        let State::Joining { command, .. } = &self.record.state else {
            return Ok(());
        };
        self.openers.push(*command);
        let waiting = std::mem::take(&mut self.openers);
        Group::discard(step.provider, &self.record.group_id())?;
        self.close(step, Closed::Refused)?;
        let failure = crate::Failure::from(error);
        for command in waiting {
            step.out
                .answers
                .push((command, Answer::Failed(failure.clone())));
        }
        Ok(())
    }
}

/// How long a joiner waits before it asks again for the group's state, at first and at most: twice
/// as long each time. Each asking has a member seal and send all of it, which on a slow line takes
/// longer than the first pause; the relay hands out what is sealed by itself, so that asking again
/// only helps where a member has failed.
const WANT_AGAIN_MS: (u64, u64) = (4_000, 64_000);
/// From the first to the longest.
const WANT_AGAIN_DOUBLINGS: u32 = 4;

/// Refuses a group that the invite line does not lead to: somebody who knows less than the line
/// could have made it.
fn check_line(
    invite: &Invite,
    policy: &Policy,
    group_id: &[u8],
    expected: &[u8],
) -> Result<(), Error> {
    let wrong = |what: &str| {
        Err(Error::PeerMisbehaved(format!(
            "the invite leads to another group: {what}"
        )))
    };
    if group_id != expected
        || policy.channel != invite.channel
        || policy.generation != invite.generation
    {
        return wrong("its id differs");
    }
    let Some(listed) = policy.invite(&invite.seed.id()) else {
        return wrong("it does not list the invite");
    };
    if listed.inviter != invite.inviter || !listed.is_signed_for(&policy.group()) {
        return wrong("the inviter has not signed the invite");
    }
    Ok(())
}

/// The inviter must still be there, by a leaf that it has installed itself.
fn check_members(group: &Group, invite: &Invite) -> Result<(), Error> {
    let leaves = group.leaves()?;
    if leaves.iter().all(|leaf| leaf.agent != invite.inviter) {
        return Err(Error::PeerMisbehaved(
            "the inviter is not in the group".into(),
        ));
    }
    Ok(())
}
