//! Commits of ours: from the wish to the merge.
//!
//! A wish is stored before anything is said. The staged commit and its frame are stored before
//! they are sent, and only the log resolves them: our record in the log merges it, another commit
//! at the same epoch discards it, and the wish is tried again. A lost answer therefore never makes
//! two groups out of one.

use std::collections::{BTreeMap, BTreeSet};

use skytale_wire::{
    envelope::{Envelope, Kind, content_hash},
    frame::{self, ADDS_MAX, INVITES_MAX, Nack, ToRelay, WelcomeFor},
    id::{AgentId, MessageId, Seq},
    invite::{Invite, InviteSeed},
    refusal::{Refusal, Remedy},
    statement,
};

use super::{
    Channel, PAUSE_MS,
    invite::{hpke_half, seal},
    receive::change_hash,
    record::{Pending, State, Wish},
};
use crate::{
    Answer, Error,
    agent::Step,
    command::CommandId,
    mls::{Change, KeyPackage},
    policy::{Bound, Leaf, Policy, PolicyInvite},
    session::{Asked, Uplink, fresh_id},
    store::{self, WishRow},
};

/// KeyPackages on their way for a wish to add. Lost with the connection, and asked for again.
#[derive(Debug)]
pub(super) struct Work {
    wish: i64,
    packages: BTreeMap<AgentId, KeyPackage>,
    asked: BTreeSet<AgentId>,
}

/// A commit before it is staged.
struct Plan {
    added: Vec<KeyPackage>,
    added_agents: Vec<AgentId>,
    removed: Vec<AgentId>,
    left: Vec<statement::Leave>,
    before: Policy,
    after: Policy,
    leaves: Vec<Leaf>,
}

impl Channel {
    // ----- wishes ---------------------------------------------------------------------------

    pub(crate) fn wish_invite(
        &mut self,
        step: &mut Step<'_, '_>,
        command: CommandId,
        uses: u32,
        ttl_ms: u64,
        addresses: Vec<String>,
    ) -> Result<Option<Answer>, Error> {
        if uses == 0 || uses > INVITE_USES_MAX {
            return Err(Error::Misuse(format!(
                "an invite has 1 to {INVITE_USES_MAX} uses"
            )));
        }
        if ttl_ms == 0 || ttl_ms > INVITE_TTL_MS_MAX {
            return Err(Error::Misuse(
                "an invite holds for 1 second to 30 days".into(),
            ));
        }
        let mut seed = [0; 16];
        getrandom::fill(&mut seed).map_err(|error| Error::Damaged(error.to_string()))?;
        let wish = Wish::Invite {
            seed: InviteSeed::new(seed),
            uses,
            expires: step.now.plus(ttl_ms),
            addresses,
        };
        self.wish(step, command, &wish)
    }

    pub(crate) fn wish_add(
        &mut self,
        step: &mut Step<'_, '_>,
        command: CommandId,
        agents: Vec<AgentId>,
    ) -> Result<Option<Answer>, Error> {
        if agents.is_empty() || agents.len() > ADDS_MAX {
            return Err(Error::Misuse(format!(
                "one call adds 1 to {ADDS_MAX} agents"
            )));
        }
        for agent in &agents {
            store::remember(step.tx, agent)?;
        }
        self.wish(step, command, &Wish::Add { agents })
    }

    pub(crate) fn wish_remove(
        &mut self,
        step: &mut Step<'_, '_>,
        command: CommandId,
        agents: Vec<AgentId>,
    ) -> Result<Option<Answer>, Error> {
        if agents.contains(&step.identity.id()) {
            return Err(Error::Misuse(
                "an agent cannot remove itself: use leave".into(),
            ));
        }
        if agents.is_empty() {
            return Err(Error::Misuse("name at least one agent to remove".into()));
        }
        self.wish(step, command, &Wish::Remove { agents })
    }

    pub(crate) fn wish_rotate(
        &mut self,
        step: &mut Step<'_, '_>,
        command: CommandId,
    ) -> Result<Option<Answer>, Error> {
        self.wish(step, command, &Wish::Rotate)
    }

    pub(crate) fn wish_grant(
        &mut self,
        step: &mut Step<'_, '_>,
        command: CommandId,
        agent: AgentId,
        admin: bool,
        may_invite: bool,
    ) -> Result<Option<Answer>, Error> {
        self.wish(
            step,
            command,
            &Wish::Grant {
                agent,
                admin,
                may_invite,
            },
        )
    }

    pub(crate) fn wish_close_invites(
        &mut self,
        step: &mut Step<'_, '_>,
        command: CommandId,
    ) -> Result<Option<Answer>, Error> {
        self.wish(step, command, &Wish::CloseInvites)
    }

    /// Stores a wish that its author may have; the same command again changes nothing.
    fn wish(
        &mut self,
        step: &mut Step<'_, '_>,
        command: CommandId,
        wish: &Wish,
    ) -> Result<Option<Answer>, Error> {
        self.must_be_open()?;
        let me = step.identity.id();
        let policy = self.group()?.policy()?;
        match wish {
            Wish::Invite { .. } | Wish::Add { .. } | Wish::CloseInvites
                if !policy.may_invite(&me) =>
            {
                return Err(Refusal::MayNotInvite.into());
            }
            Wish::Remove { .. } | Wish::Grant { .. } if !policy.is_admin(&me) => {
                return Err(Refusal::NotAdmin.into());
            }
            Wish::Invite { .. }
            | Wish::Add { .. }
            | Wish::CloseInvites
            | Wish::Remove { .. }
            | Wish::Grant { .. }
            | Wish::Leave
            | Wish::Rotate => {}
        }
        if !store::has_command(step.tx, &command)? {
            store::add_wish(step.tx, &self.record.id, &command, wish)?;
        }
        Ok(None)
    }

    /// Members that have left are removed after a random pause, so that not everybody does it at
    /// the same moment.
    pub(super) fn plan_tidying(&mut self, step: &mut Step<'_, '_>) {
        let pause = rand::RngExt::random_range(step.rng, TIDY_MS.0..=TIDY_MS.1);
        self.tidy_at = Some(step.now.plus(pause));
    }

    // ----- staging --------------------------------------------------------------------------

    /// Stages the next commit, when one is wanted and none is pending.
    pub(super) fn commit_what_is_wished(
        &mut self,
        step: &mut Step<'_, '_>,
        uplink: &mut Uplink,
    ) -> Result<(), Error> {
        loop {
            if !matches!(self.record.state, State::Active { pending: None }) {
                return Ok(());
            }
            let wish = store::first_wish(step.tx, &self.record.id)?;
            let tidy = self.tidy_at.is_some_and(|at| at <= step.now);
            if wish.is_none() && !tidy {
                return Ok(());
            }
            if let Some(wish) = wish
                .as_ref()
                .filter(|wish| matches!(wish.wish, Wish::Leave))
            {
                return self.begin_leaving(step, wish, uplink);
            }
            if wish.is_none() {
                self.tidy_at = None;
                if store::departures(step.tx, &self.record.id)?.is_empty() {
                    return Ok(());
                }
            }
            let plan = match self.plan(step, wish.as_ref(), uplink) {
                Ok(Some(plan)) => plan,
                Ok(None) => return Ok(()),
                Err(error @ Error::Damaged(_)) => return Err(error),
                Err(error) => {
                    let Some(wish) = wish else { return Ok(()) };
                    self.finish_wish(step, &wish, Answer::Failed(error.into()))?;
                    continue;
                }
            };
            let is_empty = wish.as_ref().is_some_and(|wish| match wish.wish {
                Wish::Rotate | Wish::Invite { .. } | Wish::Leave => false,
                Wish::Add { .. } => plan.added.is_empty(),
                Wish::Remove { .. } => plan.removed.is_empty(),
                Wish::Grant { .. } | Wish::CloseInvites => {
                    plan.after == plan.before && plan.removed.is_empty()
                }
            });
            if let Some(wish) = wish.as_ref().filter(|_| is_empty) {
                // Somebody else has done it meanwhile.
                let answer = self.answer_of(wish, step.identity.id());
                self.finish_wish(step, wish, answer)?;
                continue;
            }
            return self.stage(step, wish.map(|wish| wish.row), plan, uplink);
        }
    }

    /// What the commit for a wish changes. `None` while KeyPackages are on their way.
    fn plan(
        &mut self,
        step: &mut Step<'_, '_>,
        wish: Option<&WishRow>,
        uplink: &mut Uplink,
    ) -> Result<Option<Plan>, Error> {
        let me = step.identity.id();
        let departures = store::departures(step.tx, &self.record.id)?;
        let provider = step.provider;
        let group = self.group()?;
        let (before, leaves) = (group.policy()?, group.leaves()?);
        let is_member = |agent: &AgentId| leaves.iter().any(|leaf| leaf.agent == *agent);

        let left: Vec<(AgentId, statement::Leave)> = departures
            .into_iter()
            .filter(|(agent, statement)| {
                let leaf = leaves.iter().find(|leaf| leaf.agent == *agent);
                leaf.is_some_and(|leaf| leaf.leaf_key == *statement.leaf_key)
            })
            .collect();
        let mut removed: BTreeSet<AgentId> = left.iter().map(|(agent, _)| *agent).collect();
        let mut added = BTreeMap::new();
        let mut after = before.clone().tidied(&leaves, &me, step.now);

        match wish.map(|wish| &wish.wish) {
            None | Some(Wish::Rotate | Wish::Leave) => {}
            Some(Wish::Add { agents }) => {
                let row = wish.map_or(0, |wish| wish.row);
                let missing: Vec<AgentId> = agents
                    .iter()
                    .filter(|agent| !is_member(agent))
                    .copied()
                    .collect();
                let Some(packages) = self.packages(step, row, &missing, uplink) else {
                    return Ok(None);
                };
                added = packages;
            }
            Some(Wish::Remove { agents }) => {
                let strangers = agents.iter().all(|agent| !is_member(agent));
                if strangers && wish.is_some_and(|wish| wish.tries == 0) {
                    return Err(Error::NotFound(
                        "this agent is not a member: see `skytale members`".into(),
                    ));
                }
                removed.extend(agents.iter().filter(|agent| is_member(agent)));
            }
            Some(Wish::Grant {
                agent,
                admin,
                may_invite,
            }) => {
                if !is_member(agent) {
                    return Err(Error::NotFound(
                        "this agent is not a member: see `skytale members`".into(),
                    ));
                }
                after = after.granting(*agent, *admin, *may_invite);
                if after.admins.is_empty() {
                    return Err(Error::Misuse("a channel keeps at least one admin".into()));
                }
            }
            Some(Wish::CloseInvites) => after.invites.clear(),
            // A removal ends every invite, a new one too: first remove, then invite. The wish
            // stands until its invite is in the record.
            Some(Wish::Invite { .. }) if !removed.is_empty() => {}
            Some(Wish::Invite {
                seed,
                uses,
                expires,
                ..
            }) => {
                if *expires <= step.now {
                    return Err(Refusal::InviteExpired.into());
                }
                let signing = seed.signing_half();
                let hpke = hpke_half(provider, seed)?;
                let said = statement::invite(&before.group(), &signing, &hpke, *uses, *expires);
                after.invites.push(PolicyInvite {
                    signing,
                    hpke,
                    uses: *uses,
                    expires: *expires,
                    inviter: me,
                    signature: step.identity.sign(&said),
                });
                if after.invites.len() > INVITES_MAX {
                    return Err(Refusal::InviteLimit.into());
                }
            }
        }
        let removed: Vec<AgentId> = removed.into_iter().collect();
        Ok(Some(Plan {
            added_agents: added.keys().copied().collect(),
            added: added.into_values().collect(),
            left: left.into_iter().map(|(_, statement)| statement).collect(),
            before,
            after: after.without(&removed),
            removed,
            leaves,
        }))
    }

    /// The KeyPackages of those who are to be added; asks for what is missing.
    fn packages(
        &mut self,
        step: &mut Step<'_, '_>,
        wish: i64,
        agents: &[AgentId],
        uplink: &mut Uplink,
    ) -> Option<BTreeMap<AgentId, KeyPackage>> {
        if self.work.as_ref().is_none_or(|work| work.wish != wish) {
            self.work = Some(Work {
                wish,
                packages: BTreeMap::new(),
                asked: BTreeSet::new(),
            });
        }
        let work = self.work.as_mut()?;
        let mut complete = true;
        for agent in agents {
            if work.packages.contains_key(agent) {
                continue;
            }
            complete = false;
            if work.asked.insert(*agent) {
                let id = fresh_id(step);
                uplink.ask(id, Asked::KeyPackage(self.record.id, *agent));
                uplink.send(
                    step,
                    ToRelay::TakeKeyPackage(frame::TakeKeyPackage { id, agent: *agent }),
                );
            }
        }
        complete.then(|| {
            agents
                .iter()
                .filter_map(|agent| {
                    work.packages
                        .get(agent)
                        .map(|package| (*agent, package.clone()))
                })
                .collect()
        })
    }

    /// A KeyPackage has come. Whose it is, it says itself: its key must be the agent's id.
    pub(crate) fn key_package(
        &mut self,
        step: &mut Step<'_, '_>,
        agent: AgentId,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let Some(work) = &mut self.work else {
            return Ok(());
        };
        match KeyPackage::check(step.provider, bytes, &agent) {
            Ok(package) => {
                work.packages.insert(agent, package);
                Ok(())
            }
            Err(error) => self.fail_work(step, error.into()),
        }
    }

    pub(super) fn no_key_package(
        &mut self,
        step: &mut Step<'_, '_>,
        agent: AgentId,
        refusal: Refusal,
    ) -> Result<(), Error> {
        if refusal == Refusal::RateLimited {
            if let Some(work) = &mut self.work {
                work.asked.remove(&agent);
            }
            self.pause(step, PAUSE_MS);
            return Ok(());
        }
        self.fail_work(step, Error::Denied(refusal))
    }

    fn fail_work(&mut self, step: &mut Step<'_, '_>, error: Error) -> Result<(), Error> {
        let Some(work) = self.work.take() else {
            return Ok(());
        };
        let Some(wish) = store::first_wish(step.tx, &self.record.id)? else {
            return Ok(());
        };
        if wish.row == work.wish {
            self.finish_wish(step, &wish, Answer::Failed(error.into()))?;
        }
        Ok(())
    }

    /// Stages, stores and sends one commit.
    fn stage(
        &mut self,
        step: &mut Step<'_, '_>,
        wish: Option<i64>,
        plan: Plan,
        uplink: &Uplink,
    ) -> Result<(), Error> {
        let added_leaves: Vec<Leaf> = plan
            .added_agents
            .iter()
            .map(|agent| Leaf {
                agent: *agent,
                leaf_key: Vec::new(),
                invite: None,
            })
            .collect();
        let declared = frame::encode(&plan.before.change(
            &plan.after,
            &added_leaves,
            &plan.removed,
        ));
        let id = fresh_id(step);
        let bound = Bound {
            change: Some(change_hash(&declared)),
            left: plan.left,
            ..Bound::new(self.record.id, id, Kind::Commit)
        };
        let invites = plan.after.usable(&plan.leaves);
        let change = Change {
            added: plan.added,
            removed: plan.removed,
            policy: (plan.after != plan.before).then_some(plan.after),
        };
        let (provider, identity) = (step.provider, step.identity);
        let own = self
            .group()?
            .stage(provider, identity, &bound, change, !invites.is_empty())?;
        let sealed = own
            .group_info
            .filter(|_| !invites.is_empty())
            .map(|info| seal(provider, &info, &invites))
            .transpose()?;
        let welcomes = own
            .welcome
            .filter(|_| !plan.added_agents.is_empty())
            .map(|welcome| WelcomeFor {
                agents: plan.added_agents,
                body: welcome.into(),
            });
        let commit = frame::Commit {
            channel: self.record.id,
            id,
            epoch: self.record.epoch,
            body: own.body.into(),
            change: declared.into(),
            welcomes: welcomes.into_iter().collect(),
            sealed,
            join: None,
        };
        let pending = Pending {
            id,
            content: content_hash(&commit.body, Some(&commit.change)),
            epoch: self.record.epoch,
            wish,
            seq: None,
        };
        let frame = ToRelay::Commit(commit);
        store::save_pending(step.tx, &self.record.id, &frame::encode(&frame))?;
        self.record.state = State::Active {
            pending: Some(pending),
        };
        self.changed = true;
        uplink.send(step, frame);
        Ok(())
    }

    /// Says a stored commit again: after a reconnection or a crash nobody knows whether the relay
    /// has it.
    pub(super) fn send_pending(
        &mut self,
        step: &mut Step<'_, '_>,
        uplink: &Uplink,
    ) -> Result<(), Error> {
        if !matches!(self.record.state, State::Active { pending: Some(_) }) {
            return Ok(());
        }
        if let Some(frame) = store::pending(step.tx, &self.record.id)? {
            uplink.send(step, frame);
        }
        Ok(())
    }

    // ----- resolution -----------------------------------------------------------------------

    /// The relay has ordered something of ours: a commit, a join or a departure.
    pub(crate) fn acknowledged(
        &mut self,
        step: &mut Step<'_, '_>,
        id: &MessageId,
        seq: Seq,
    ) -> Result<(), Error> {
        match &mut self.record.state {
            State::Active {
                pending: Some(pending),
            } if pending.id == *id => {
                pending.seq = Some(seq);
                self.changed = true;
                Ok(())
            }
            State::Joining {
                sent: Some(sent), ..
            } if sent.id == *id => self.joined(step, seq),
            State::Leaving {
                id: leaving,
                command,
                ..
            } if leaving == id => {
                let command = *command;
                self.close(step, super::record::Closed::Left)?;
                step.out.answers.push((command, Answer::Done));
                Ok(())
            }
            State::Active { .. }
            | State::Joining { .. }
            | State::Leaving { .. }
            | State::Creating { .. }
            | State::Offered { .. }
            | State::Stuck { .. }
            | State::Closed { .. } => Ok(()),
        }
    }

    /// The relay has refused our pending commit.
    pub(super) fn commit_refused(
        &mut self,
        step: &mut Step<'_, '_>,
        nack: &Nack,
    ) -> Result<(), Error> {
        match (nack.refusal, nack.refusal.remedy()) {
            // The winner is in the log and resolves it there.
            (Refusal::StaleEpoch, _) => Ok(()),
            (_, Remedy::Retry) => {
                // Not judged yet: the same frame again, on a new subscription.
                self.line = super::Line::Down;
                self.pause(step, PAUSE_MS);
                Ok(())
            }
            (_, Remedy::CatchUp) => {
                self.discard_own(step)?;
                self.retry_later(step)
            }
            (refusal, Remedy::GetPermission | Remedy::FixRequest) => {
                let wish = self.discard_own(step)?;
                let Some(row) = store::first_wish(step.tx, &self.record.id)? else {
                    return Ok(());
                };
                if Some(row.row) == wish {
                    self.finish_wish(step, &row, Answer::Failed(Error::Denied(refusal).into()))?;
                }
                Ok(())
            }
        }
    }

    /// Throws our staged commit away; the wish stays. Returns whose it was.
    fn discard_own(&mut self, step: &mut Step<'_, '_>) -> Result<Option<i64>, Error> {
        let State::Active { pending } = &mut self.record.state else {
            return Ok(None);
        };
        let Some(pending) = pending.take() else {
            return Ok(None);
        };
        self.changed = true;
        let provider = step.provider;
        self.group()?.discard_own(provider)?;
        store::drop_pending(step.tx, &self.record.id)?;
        Ok(pending.wish)
    }

    /// Somebody else's commit has the epoch. OpenMLS clears ours when it merges theirs.
    pub(super) fn lose_pending(&mut self, step: &mut Step<'_, '_>) -> Result<(), Error> {
        let State::Active { pending } = &mut self.record.state else {
            return Ok(());
        };
        if pending.take().is_none() {
            return Ok(());
        }
        self.changed = true;
        store::drop_pending(step.tx, &self.record.id)?;
        self.retry_later(step)
    }

    /// A lost race: wait a little longer each time, and tell the caller in the end.
    fn retry_later(&mut self, step: &mut Step<'_, '_>) -> Result<(), Error> {
        let Some(wish) = store::first_wish(step.tx, &self.record.id)? else {
            return Ok(());
        };
        if wish.tries >= TRIES_MAX {
            return self.finish_wish(
                step,
                &wish,
                Answer::Failed(Error::Denied(Refusal::StaleEpoch).into()),
            );
        }
        store::wish_lost_again(step.tx, wish.row)?;
        self.pause(step, RACE_MS << wish.tries.min(5));
        Ok(())
    }

    /// Our own commit stands in the log, right after what we have processed: it takes effect.
    pub(super) fn merge_own(
        &mut self,
        step: &mut Step<'_, '_>,
        envelope: &Envelope,
    ) -> Result<(), Error> {
        let State::Active { pending } = &mut self.record.state else {
            return Ok(());
        };
        let wish = pending.take().and_then(|pending| pending.wish);
        let change = frame::decode(
            envelope.change.as_deref().unwrap_or_default(),
            frame::FRAME_BYTES_MAX,
        )
        .map_err(|error| Error::Damaged(error.to_string()))?;
        let provider = step.provider;
        self.group()?.merge_own(provider)?;
        store::drop_pending(step.tx, &self.record.id)?;
        // Every commit of ours replaces our keys, whatever else it was made for.
        self.record.renew_at = None;
        self.entered_epoch(step, &change, step.identity.id())?;
        self.work = None;
        let Some(row) = store::first_wish(step.tx, &self.record.id)? else {
            return Ok(());
        };
        // A commit that had to remove somebody before it could invite leaves the wish standing.
        let unfinished = match &row.wish {
            Wish::Invite { seed, .. } => self.group()?.policy()?.invite(&seed.id()).is_none(),
            Wish::Add { .. }
            | Wish::Remove { .. }
            | Wish::Rotate
            | Wish::Grant { .. }
            | Wish::CloseInvites
            | Wish::Leave => false,
        };
        if Some(row.row) == wish && !unfinished {
            let answer = self.answer_of(&row, step.identity.id());
            self.finish_wish(step, &row, answer)?;
        }
        Ok(())
    }

    fn answer_of(&self, wish: &WishRow, me: AgentId) -> Answer {
        match &wish.wish {
            Wish::Invite {
                seed,
                expires,
                addresses,
                ..
            } => Answer::Invite(
                Invite {
                    relay: self.record.relay,
                    addresses: if addresses.is_empty() {
                        self.record.addresses.clone()
                    } else {
                        addresses.clone()
                    },
                    channel: self.record.id,
                    generation: self.record.generation,
                    inviter: me,
                    expires: *expires,
                    seed: seed.clone(),
                }
                .to_string(),
            ),
            Wish::Add { .. }
            | Wish::Remove { .. }
            | Wish::Rotate
            | Wish::Grant { .. }
            | Wish::CloseInvites
            | Wish::Leave => Answer::Done,
        }
    }

    fn finish_wish(
        &mut self,
        step: &mut Step<'_, '_>,
        wish: &WishRow,
        answer: Answer,
    ) -> Result<(), Error> {
        store::drop_wish(step.tx, wish.row)?;
        self.work = None;
        step.out.answers.push((wish.command, answer));
        Ok(())
    }

    // ----- leaving --------------------------------------------------------------------------

    /// Wishes to go. It waits for a commit of ours that is pending: only then is it known which
    /// leaf key the statement must name.
    pub(crate) fn wish_leave(
        &mut self,
        step: &mut Step<'_, '_>,
        command: CommandId,
    ) -> Result<Option<Answer>, Error> {
        if matches!(self.record.state, State::Creating { .. }) {
            return Err(Error::Misuse("the channel is still being created".into()));
        }
        self.wish(step, command, &Wish::Leave)
    }

    /// Tells everybody that we go. The relay stops delivering at once; the next commit of a
    /// member removes our leaf.
    fn begin_leaving(
        &mut self,
        step: &mut Step<'_, '_>,
        wish: &WishRow,
        uplink: &Uplink,
    ) -> Result<(), Error> {
        let me = step.identity.id();
        let leaves = self.group()?.leaves()?;
        let leaf = leaves
            .into_iter()
            .find(|leaf| leaf.agent == me)
            .ok_or_else(|| Error::Damaged("our own leaf is missing".into()))?;
        let said = statement::leave(&self.record.group_id(), &leaf.leaf_key);
        let statement = statement::Leave {
            generation: self.record.generation,
            leaf_key: leaf.leaf_key.into(),
            signature: step.identity.sign(&said),
        };
        store::drop_wish(step.tx, wish.row)?;
        for command in store::drop_wishes(step.tx, &self.record.id)? {
            let failure = Error::Misuse("this agent is leaving the channel".into()).into();
            step.out.answers.push((command, Answer::Failed(failure)));
        }
        self.record.state = State::Leaving {
            id: fresh_id(step),
            command: wish.command,
            statement,
        };
        self.changed = true;
        self.send_leave(step, uplink);
        Ok(())
    }

    pub(super) fn send_leave(&mut self, step: &mut Step<'_, '_>, uplink: &Uplink) {
        if let State::Leaving { id, statement, .. } = &self.record.state {
            let leave = frame::Leave {
                channel: self.record.id,
                id: *id,
                statement: statement.clone(),
                cursor: self.record.cursor,
            };
            uplink.send(step, ToRelay::Leave(leave));
        }
    }
}

/// How often a commit may lose its race before the caller is told.
const TRIES_MAX: u32 = 12;
/// First pause after a lost race; doubles five times.
const RACE_MS: u64 = 100;
/// When a member that has left is removed: between these.
const TIDY_MS: (u64, u64) = (500, 5000);
/// Uses that one invite may have.
const INVITE_USES_MAX: u32 = 1000;
/// The longest life of an invite.
const INVITE_TTL_MS_MAX: u64 = 30 * 24 * 3_600_000;
