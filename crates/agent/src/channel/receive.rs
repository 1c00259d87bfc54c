//! From the log to the inbox: each record takes effect once, in order, or is told of.

use skytale_wire::{
    Blob,
    envelope::{Envelope, Kind, RosterChange},
    frame::{self, FRAME_BYTES_MAX},
    id::{AgentId, Digest, Seq},
    statement,
};

use super::{
    Channel, Line,
    record::{Closed, State},
};
use crate::{
    Answer, Error, Event, Message,
    agent::Step,
    content::Content,
    history, inbox,
    mls::{ForeignCommit, Group, MlsError, Opened},
    policy::{Bound, Committer},
    store,
};

impl Channel {
    /// A record has come. It waits for its turn, takes effect, or is a repeat.
    pub(crate) fn receive(
        &mut self,
        step: &mut Step<'_, '_>,
        seq: Seq,
        record: Blob,
    ) -> Result<(), Error> {
        if !self.is_active() || seq <= self.record.cursor {
            return Ok(());
        }
        match self.line {
            Line::Down | Line::Distrusted => return Ok(()),
            Line::CatchingUp(_) | Line::Level if seq == self.record.cursor.next() => {
                self.apply(step, seq, &record)?;
            }
            // The two streams of a connection overtake each other, but not by much: what is new
            // may even come before the answer to our subscription.
            Line::Subscribing(_) | Line::CatchingUp(_) | Line::Level => {
                if self.early.len() < EARLY_MAX {
                    self.early.insert(seq, record);
                } else {
                    self.early.clear();
                    self.line = Line::Down;
                }
                return Ok(());
            }
        }
        self.apply_early(step)
    }

    /// Records whose turn has come meanwhile.
    pub(super) fn apply_early(&mut self, step: &mut Step<'_, '_>) -> Result<(), Error> {
        while self.is_active() {
            let next = self.record.cursor.next();
            let Some(record) = self.early.remove(&next) else {
                break;
            };
            self.apply(step, next, &record)?;
        }
        if let Line::CatchingUp(head) = self.line
            && self.record.cursor >= head
        {
            self.line = Line::Level;
        }
        Ok(())
    }

    /// The record at the place after the cursor takes effect. Only a failing vault stops it:
    /// whatever else is wrong with a record is wrong for ever, and told.
    fn apply(&mut self, step: &mut Step<'_, '_>, seq: Seq, record: &[u8]) -> Result<(), Error> {
        let Ok(envelope) = frame::decode::<Envelope>(record, FRAME_BYTES_MAX) else {
            self.unreadable(step, AgentId([0; 32]), seq);
            self.record.advance(None);
            self.changed = true;
            return Ok(());
        };
        let hash = self
            .record
            .log_hash
            .map(|previous| envelope.log_hash(&previous, seq));
        self.record.advance(hash);
        self.changed = true;
        if envelope.pruned.is_some() {
            // Its body is gone: a `Pruned` notice came before it.
            return Ok(());
        }
        match envelope.kind {
            Kind::Application if envelope.agent == step.identity.id() => {
                self.apply_echo(step, seq, &envelope)
            }
            Kind::Application => self.apply_message(step, seq, &envelope),
            Kind::Commit | Kind::Join => self.apply_commit(step, seq, &envelope),
            Kind::Leave => self.apply_leave(step, seq, &envelope),
            // They have no place in a channel: the relay has mixed something up.
            Kind::SlimMessageOne
            | Kind::SlimMessageTwo
            | Kind::SlimCommitOne
            | Kind::SlimCommitTwo => {
                self.unreadable(step, envelope.agent, seq);
                Ok(())
            }
        }
    }

    /// Our own message: it is stored, whether or not the relay's answer reached us.
    fn apply_echo(
        &mut self,
        step: &mut Step<'_, '_>,
        seq: Seq,
        envelope: &Envelope,
    ) -> Result<(), Error> {
        let content = envelope.content_hash();
        if let Some((id, ordinal)) = store::take_sent(step.tx, &self.record.id, &content)? {
            self.record.logged = self.record.logged.max(ordinal);
            self.published(step, &id, seq)?;
            history::settle_epoch(step.tx, &self.record.id, seq, envelope.epoch)
        } else {
            self.unreadable(step, envelope.agent, seq);
            Ok(())
        }
    }

    fn apply_message(
        &mut self,
        step: &mut Step<'_, '_>,
        seq: Seq,
        envelope: &Envelope,
    ) -> Result<(), Error> {
        let content = match self.open_message(step, envelope) {
            Ok(content) => content,
            Err(MlsError::Storage(text)) => return Err(Error::Damaged(text)),
            Err(MlsError::Refused(why)) => {
                tracing::debug!(channel = %self.record.id.short(), %seq, why, "unreadable");
                self.reload(step)?;
                self.unreadable(step, envelope.agent, seq);
                return Ok(());
            }
            Err(MlsError::NoKeyPackage) => {
                self.unreadable(step, envelope.agent, seq);
                return Ok(());
            }
        };
        self.confirm_by(step, &envelope.agent)?;
        self.compare_logs(step, &envelope.agent, &content);
        if !self.count(step, &envelope.agent, &content)? {
            return Ok(());
        }
        let message = Message {
            row: 0,
            id: envelope.id,
            channel: self.record.id,
            seq,
            epoch: envelope.epoch,
            sender: envelope.agent,
            label: content.label,
            verified: self.record.unconfirmed.is_none(),
            sent: content.sent,
            content_type: content.content_type,
            in_reply_to: content.in_reply_to,
            headers: content.headers,
            payload: content.payload,
        };
        history::put(step.tx, &message, step.now)?;
        inbox::put(step.tx, &message)
    }

    /// Decrypts, and compares what MLS has authenticated with what the relay wrote beside it.
    fn open_message(
        &mut self,
        step: &mut Step<'_, '_>,
        envelope: &Envelope,
    ) -> Result<Content, MlsError> {
        let id = self.record.id;
        let provider = step.provider;
        let group = self
            .group
            .as_mut()
            .ok_or_else(|| MlsError::Storage("a channel's group is missing".into()))?;
        let Opened::Application {
            sender,
            bound,
            plaintext,
        } = group.open(provider, &envelope.body)?
        else {
            return Err(MlsError::Refused(
                "a commit in the place of a message".into(),
            ));
        };
        if sender != envelope.agent || bound != Bound::new(id, envelope.id, Kind::Application) {
            return Err(MlsError::Refused(
                "the clear header is not the authenticated one".into(),
            ));
        }
        Content::open(&plaintext)
    }

    /// After a refusal inside MLS the group is taken from the store again.
    fn reload(&mut self, step: &mut Step<'_, '_>) -> Result<(), Error> {
        self.group = Group::load(step.provider, &self.record.group_id())?;
        Ok(())
    }

    /// Whoever invited us, or an admin, speaks in an epoch that our join began or that came after:
    /// nobody has played an old state of the group to us.
    fn confirm_by(&mut self, step: &mut Step<'_, '_>, agent: &AgentId) -> Result<(), Error> {
        let Some(inviter) = self.record.unconfirmed else {
            return Ok(());
        };
        if inviter == *agent || self.group()?.policy()?.is_admin(agent) {
            self.record.unconfirmed = None;
            self.changed = true;
            step.out.events.push(Event::Confirmed {
                channel: self.record.id,
            });
        }
        Ok(())
    }

    /// The sender saw the same log as we did, up to where both of us know it?
    fn compare_logs(&mut self, step: &mut Step<'_, '_>, sender: &AgentId, content: &Content) {
        let theirs = content.log;
        let differs = self
            .record
            .marks
            .iter()
            .any(|ours| ours.seq == theirs.seq && ours.half != theirs.half);
        if differs {
            step.out.events.push(Event::ForkSuspected {
                channel: self.record.id,
                agent: *sender,
                seq: theirs.seq,
            });
        }
    }

    /// Keeps the sender's counters. `false` for a message that we have had.
    fn count(
        &mut self,
        step: &mut Step<'_, '_>,
        agent: &AgentId,
        content: &Content,
    ) -> Result<bool, Error> {
        let id = self.record.id;
        let known = store::sender(step.tx, &id, agent)?;
        let mut sender = known.clone().unwrap_or_default();
        if known.is_none() {
            // What was sent before we came is no gap; what was overtaken by this one may still come.
            sender.last_n = content.n;
            sender.missing = (1..content.n).rev().take(MISSING_MAX).collect();
            sender.missing.reverse();
        } else if content.n <= sender.last_n {
            let Some(place) = sender.missing.iter().position(|n| *n == content.n) else {
                return Ok(false);
            };
            sender.missing.remove(place);
        } else {
            if content.previous > sender.last_n {
                step.out.events.push(Event::Gap {
                    channel: id,
                    agent: *agent,
                    missing: content.previous - sender.last_n,
                });
            }
            let first = (sender.last_n + 1).max(content.n.saturating_sub(MISSING_MAX as u64));
            sender.missing.extend(first..content.n);
            let surplus = sender.missing.len().saturating_sub(MISSING_MAX);
            sender.missing.drain(..surplus);
            sender.last_n = content.n;
        }
        let renamed = known
            .as_ref()
            .is_some_and(|known| known.label != content.label);
        if renamed
            || (known.is_none() && store::label_is_shared(step.tx, &id, agent, &content.label)?)
        {
            step.out.events.push(Event::LabelChanged {
                channel: id,
                agent: *agent,
            });
        }
        sender.label.clone_from(&content.label);
        if known.as_ref() != Some(&sender) {
            store::save_sender(step.tx, &id, agent, &sender)?;
        }
        Ok(true)
    }

    fn apply_commit(
        &mut self,
        step: &mut Step<'_, '_>,
        seq: Seq,
        envelope: &Envelope,
    ) -> Result<(), Error> {
        if let State::Active {
            pending: Some(pending),
        } = &self.record.state
            && envelope.agent == step.identity.id()
            && pending.content == envelope.content_hash()
        {
            return self.merge_own(step, envelope);
        }
        match self.judge(step, envelope) {
            Ok((commit, change)) => self.merge_foreign(step, envelope, commit, &change),
            Err(MlsError::Storage(text)) => Err(Error::Damaged(text)),
            Err(MlsError::Refused(_) | MlsError::NoKeyPackage) => {
                self.get_stuck(step, seq, envelope.agent)
            }
        }
    }

    /// Verifies somebody else's commit and judges it as every member does.
    fn judge(
        &mut self,
        step: &mut Step<'_, '_>,
        envelope: &Envelope,
    ) -> Result<(ForeignCommit, RosterChange), MlsError> {
        let id = self.record.id;
        let provider = step.provider;
        let group = self
            .group
            .as_mut()
            .ok_or_else(|| MlsError::Storage("a channel's group is missing".into()))?;
        let (before, leaves, context) = (group.policy()?, group.leaves()?, group.context_hash()?);
        let Opened::Commit(commit) = group.open(provider, &envelope.body)? else {
            return Err(MlsError::Refused(
                "a message in the place of a commit".into(),
            ));
        };
        let deed = &commit.deed;
        let (by, kind) = match deed.by {
            Committer::Member(agent) => (agent, Kind::Commit),
            Committer::Joiner(agent) => (agent, Kind::Join),
        };
        let header = (deed.bound.channel, deed.bound.id, deed.bound.kind);
        if by != envelope.agent || kind != envelope.kind || header != (id, envelope.id, kind as u8)
        {
            return Err(MlsError::Refused(
                "the clear header is not the authenticated one".into(),
            ));
        }
        let change = before
            .judge(&leaves, &context, deed)
            .map_err(|why| MlsError::Refused(why.into()))?;
        let declared = envelope.change.clone().unwrap_or_default();
        if frame::encode(&change) != *declared || deed.bound.change != Some(change_hash(&declared))
        {
            return Err(MlsError::Refused(
                "it declares something else than it does".into(),
            ));
        }
        Ok((*commit, change))
    }

    fn merge_foreign(
        &mut self,
        step: &mut Step<'_, '_>,
        envelope: &Envelope,
        commit: ForeignCommit,
        change: &RosterChange,
    ) -> Result<(), Error> {
        if commit.removes_us {
            let me = step.identity.id();
            step.out.events.push(Event::Removed {
                channel: self.record.id,
                agent: me,
                by: envelope.agent,
            });
            return self.close(step, Closed::Removed);
        }
        self.lose_pending(step)?;
        let provider = step.provider;
        self.group()?.merge(provider, commit)?;
        self.entered_epoch(step, change, envelope.agent)?;
        self.confirm_by(step, &envelope.agent)
    }

    /// A commit has taken the epoch's place that no honest member can apply.
    fn get_stuck(&mut self, step: &mut Step<'_, '_>, seq: Seq, by: AgentId) -> Result<(), Error> {
        let id = self.record.id;
        step.out.events.push(Event::ChannelStuck {
            channel: id,
            by,
            seq,
        });
        let mut waiting = store::drop_wishes(step.tx, &id)?;
        waiting.extend(store::drop_outbox(step.tx, &id)?);
        self.record.state = State::Stuck { seq, by };
        for command in waiting {
            let failure = self
                .must_be_open()
                .expect_err("a stuck channel is not open");
            step.out
                .answers
                .push((command, Answer::Failed(failure.into())));
        }
        self.reload(step)
    }

    /// A member says that it has left. Its leaf goes with the next commit of anybody.
    fn apply_leave(
        &mut self,
        step: &mut Step<'_, '_>,
        seq: Seq,
        envelope: &Envelope,
    ) -> Result<(), Error> {
        let id = self.record.id;
        let statement = frame::decode::<statement::Leave>(&envelope.body, FRAME_BYTES_MAX);
        let leaves = self.group()?.leaves()?;
        let valid = statement.ok().filter(|statement| {
            let leaf = leaves.iter().find(|leaf| leaf.agent == envelope.agent);
            leaf.is_some_and(|leaf| leaf.leaf_key == *statement.leaf_key)
                && statement.holds(&id, &envelope.agent)
        });
        let Some(statement) = valid else {
            self.unreadable(step, envelope.agent, seq);
            return Ok(());
        };
        store::add_departure(step.tx, &id, &envelope.agent, &statement)?;
        step.out.events.push(Event::Left {
            channel: id,
            agent: envelope.agent,
        });
        self.plan_tidying(step);
        Ok(())
    }

    fn unreadable(&mut self, step: &mut Step<'_, '_>, agent: AgentId, seq: Seq) {
        step.out.events.push(Event::Unreadable {
            channel: self.record.id,
            agent,
            seq,
        });
    }
}

/// What a commit's authenticated data says of its declared roster change.
pub(super) fn change_hash(declared: &[u8]) -> Digest {
    Digest::of(&[b"skytale/1 roster change", declared])
}

/// Records that may wait for the one before them.
const EARLY_MAX: usize = 2048;
/// Counters of one sender that may be outstanding.
const MISSING_MAX: usize = 256;
