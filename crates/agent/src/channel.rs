//! One channel of an agent: its record in the vault, its MLS group in memory, and where it stands
//! with its relay.
//!
//! This file decides when something is due; how it is done stands below: `send`, `receive`,
//! `commit`, `join`, `welcome`. The table of states is at the top of `record.rs`.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;
use skytale_wire::{
    Blob,
    envelope::RosterChange,
    frame::{self, Nack, Subscribed, ToRelay},
    id::{AgentId, ChannelId, MessageId, RelayKey, Seq, Time},
    invite::{Invite, InviteSeed},
    name::ChannelName,
    refusal::Refusal,
};

use self::{
    commit::Work,
    record::{Closed, Record, State},
};
use crate::{
    Answer, Error, Event,
    agent::Step,
    command::CommandId,
    mls::{Group, provider::Provider},
    policy::Policy,
    session::{Asked, Uplink, fresh_id},
    store,
    words::words,
};

mod commit;
mod invite;
mod join;
mod receive;
pub(crate) mod record;
mod send;
#[cfg(test)]
mod tests;
mod welcome;

/// A channel between two steps.
#[derive(Debug)]
pub(crate) struct Channel {
    record: Record,
    group: Option<Group>,
    line: Line,
    /// Records that came before their turn.
    early: BTreeMap<Seq, Blob>,
    outgoing: Outgoing,
    /// The commit that is being prepared.
    work: Option<Work>,
    /// No commit and no message goes out before this moment: we lost a race or were told to slow
    /// down.
    not_before: Time,
    /// Members that have left shall be removed at this moment, unless somebody does it first.
    tidy_at: Option<Time>,
    /// Somebody waits for the group's state to be sealed afresh.
    seal_wanted: bool,
    /// How often we have asked others for that, in vain so far.
    asked_to_seal: u32,
    /// Commands that wait for the channel to open.
    openers: Vec<CommandId>,
    /// The last place told to the relay.
    told: Seq,
    changed: bool,
}

/// Where a channel stands with its relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Not subscribed.
    Down,
    /// Asked for the log.
    Subscribing(MessageId),
    /// Reading what was missed, up to this place.
    CatchingUp(Seq),
    /// Up to date.
    Level,
    /// The relay showed another log than before: nothing more is taken from it.
    Distrusted,
}

/// What is on its way to the relay.
#[derive(Debug, Default)]
struct Outgoing {
    /// The last outbox row that was handed over.
    handed: i64,
    /// Its counter.
    last_n: Option<u64>,
    in_flight: BTreeSet<MessageId>,
    /// Whether rows may be waiting that were not handed over.
    waiting: bool,
}

impl Channel {
    /// The channel as the vault has it, with its group.
    pub(crate) fn load(provider: &Provider<'_>, record: Record) -> Result<Self, Error> {
        let group = match &record.state {
            State::Creating { .. }
            | State::Active { .. }
            | State::Leaving { .. }
            | State::Stuck { .. } => Group::load(provider, &record.group_id())?,
            State::Joining { .. } | State::Offered { .. } | State::Closed { .. } => None,
        };
        let mut channel = Self::over(record);
        channel.group = group;
        channel.changed = false;
        Ok(channel)
    }

    fn over(record: Record) -> Self {
        Self {
            record,
            group: None,
            line: Line::Down,
            early: BTreeMap::new(),
            outgoing: Outgoing {
                waiting: true,
                ..Outgoing::default()
            },
            work: None,
            not_before: Time(0),
            tidy_at: None,
            seal_wanted: false,
            asked_to_seal: 0,
            openers: Vec::new(),
            told: Seq(0),
            changed: true,
        }
    }

    /// A new channel with us as its only member. It opens when the relay has registered it.
    pub(crate) fn create(
        step: &mut Step<'_, '_>,
        command: CommandId,
        name: &ChannelName,
        relay: RelayKey,
        addresses: Vec<String>,
    ) -> Result<Self, Error> {
        let mut id = [0; 32];
        rand::Rng::fill_bytes(step.rng, &mut id);
        let id = ChannelId(id);
        let me = step.identity.id();
        let mut record = Record::new(
            id,
            name.to_string(),
            relay,
            addresses,
            State::Creating { command },
        );
        let policy = Policy {
            channel: id,
            generation: record.generation,
            name: name.clone(),
            admins: vec![me],
            inviters: vec![me],
            invites: Vec::new(),
        };
        let group = Group::create(step.provider, step.identity, &policy)?;
        record.words = words(&group.authenticator()).join(" ");
        store::set_member(step.tx, &id, &me, true, true)?;
        let mut channel = Self::over(record);
        channel.group = Some(group);
        Ok(channel)
    }

    pub(crate) fn id(&self) -> ChannelId {
        self.record.id
    }

    pub(crate) fn relay(&self) -> RelayKey {
        self.record.relay
    }

    pub(crate) fn addresses(&self) -> &[String] {
        &self.record.addresses
    }

    /// Whether something is to be had from the relay.
    pub(crate) fn needs_link(&self) -> bool {
        match &self.record.state {
            State::Creating { .. }
            | State::Joining { .. }
            | State::Offered { .. }
            | State::Active { .. }
            | State::Leaving { .. } => true,
            State::Stuck { .. } | State::Closed { .. } => false,
        }
    }

    /// Whether `open` of this name means this channel.
    pub(crate) fn is_open_as(&self, name: &ChannelName) -> bool {
        self.record.name == name.as_str()
            && matches!(
                self.record.state,
                State::Creating { .. } | State::Active { .. } | State::Stuck { .. }
            )
    }

    /// Opens it once more.
    pub(crate) fn reopen(&mut self, command: CommandId) -> Option<Answer> {
        if matches!(self.record.state, State::Creating { .. }) {
            self.openers.push(command);
            return None;
        }
        Some(Answer::Channel(self.record.id))
    }

    /// The seed of an invite by which we still want to join and have not yet.
    pub(crate) fn unused_invite(&self) -> Option<InviteSeed> {
        match &self.record.state {
            State::Joining { line, .. } => line.parse::<Invite>().ok().map(|invite| invite.seed),
            State::Creating { .. }
            | State::Offered { .. }
            | State::Active { .. }
            | State::Leaving { .. }
            | State::Stuck { .. }
            | State::Closed { .. } => None,
        }
    }

    /// The group of a channel that has one.
    fn group(&mut self) -> Result<&mut Group, Error> {
        self.group
            .as_mut()
            .ok_or_else(|| Error::Damaged("a channel's group is missing from the vault".into()))
    }

    fn is_active(&self) -> bool {
        matches!(self.record.state, State::Active { .. })
    }

    /// Only an open channel takes wishes and messages.
    fn must_be_open(&self) -> Result<(), Error> {
        match &self.record.state {
            State::Creating { .. } | State::Active { .. } => Ok(()),
            State::Joining { .. } => Err(Error::Misuse("the channel is still being joined".into())),
            State::Offered { .. } => Err(Error::Misuse(
                "the channel waits for `skytale accept`: an agent that is not known here added us".into(),
            )),
            State::Leaving { .. } => Err(Error::Misuse("this agent is leaving the channel".into())),
            State::Stuck { .. } => Err(Error::Misuse(
                "the channel stands still: a commit in its log cannot be applied; open a new channel".into(),
            )),
            State::Closed { reason } => Err(Error::Misuse(reason.told().into())),
        }
    }

    // ----- the relay comes and goes ---------------------------------------------------------

    /// The relay listens, on a new connection or after a pause: say what is due.
    fn speak_up(&mut self, step: &mut Step<'_, '_>, uplink: &mut Uplink) -> Result<(), Error> {
        match &self.record.state {
            State::Creating { .. } => {
                self.line = Line::Level;
                let create = frame::Create {
                    channel: self.record.id,
                    id: fresh_id(step),
                };
                uplink.send(step, ToRelay::Create(create));
            }
            State::Joining { .. } => self.pursue_join(step, uplink)?,
            State::Active { .. } => {
                self.subscribe(step, uplink);
                self.send_pending(step, uplink)?;
            }
            State::Leaving { .. } => {
                self.line = Line::Level;
                self.send_leave(step, uplink);
            }
            State::Offered { .. } | State::Stuck { .. } | State::Closed { .. } => {}
        }
        Ok(())
    }

    pub(crate) fn link_down(&mut self) {
        self.line = Line::Down;
        self.early.clear();
        self.work = None;
        self.hand_over_again();
    }

    fn subscribe(&mut self, step: &mut Step<'_, '_>, uplink: &Uplink) {
        let id = fresh_id(step);
        self.line = Line::Subscribing(id);
        let subscribe = frame::Subscribe {
            channel: self.record.id,
            id,
            after: self.record.cursor,
        };
        uplink.send(step, ToRelay::Subscribe(subscribe));
    }

    pub(crate) fn subscribed(
        &mut self,
        step: &mut Step<'_, '_>,
        subscribed: &Subscribed,
    ) -> Result<(), Error> {
        if self.line != Line::Subscribing(subscribed.id) {
            return Ok(());
        }
        if subscribed.after > self.record.cursor {
            // We were removed and added again while we were away: the Welcome will say where to
            // go on.
            self.line = Line::Distrusted;
            return Ok(());
        }
        let rewound = subscribed.head < self.record.cursor;
        let altered = match (self.record.log_hash, subscribed.hash) {
            (Some(ours), Some(theirs)) => ours != theirs,
            (None, _) | (_, None) => false,
        };
        if rewound || altered {
            step.out.events.push(Event::LogRollback {
                channel: self.record.id,
                seq: subscribed.head,
            });
            self.line = Line::Distrusted;
            return Ok(());
        }
        if self.record.log_hash.is_none() {
            self.record.log_hash = subscribed.hash;
            self.changed = true;
        }
        self.line = if subscribed.head > self.record.cursor {
            Line::CatchingUp(subscribed.head)
        } else {
            Line::Level
        };
        self.apply_early(step)
    }

    /// The channel is registered: it can be used.
    pub(crate) fn created(&mut self, step: &mut Step<'_, '_>) {
        let State::Creating { command } = &self.record.state else {
            return;
        };
        let command = *command;
        self.openers.push(command);
        self.record.state = State::Active { pending: None };
        self.opened(step);
    }

    /// Tells everybody who waits that the channel is open, and asks for its log.
    fn opened(&mut self, step: &mut Step<'_, '_>) {
        self.changed = true;
        self.line = Line::Down;
        let id = self.record.id;
        for command in self.openers.drain(..) {
            step.out.answers.push((command, Answer::Channel(id)));
        }
        step.out.events.push(Event::Entered { channel: id });
    }

    pub(crate) fn pruned(&mut self, step: &mut Step<'_, '_>, up_to: Seq) {
        if up_to > self.record.cursor {
            step.out.events.push(Event::Pruned {
                channel: self.record.id,
                up_to,
            });
        }
    }

    /// A request of ours was refused.
    pub(crate) fn refused(
        &mut self,
        step: &mut Step<'_, '_>,
        nack: &Nack,
        about: Option<Asked>,
        uplink: &mut Uplink,
    ) -> Result<(), Error> {
        if let Some(Asked::KeyPackage(_, agent)) = about {
            return self.no_key_package(step, agent, nack.refusal);
        }
        match &self.record.state {
            State::Creating { .. } => self.creation_refused(step, nack.refusal),
            State::Joining { .. } => self.join_refused(step, nack, uplink),
            State::Leaving { id, command, .. } if *id == nack.id => {
                let command = *command;
                if nack.refusal.remedy() == skytale_wire::refusal::Remedy::Retry {
                    self.line = Line::Down;
                    self.pause(step, PAUSE_MS);
                    return Ok(());
                }
                // Whoever is not in the roster any more has left in every sense that counts.
                self.close(step, Closed::Left)?;
                step.out.answers.push((command, Answer::Done));
                Ok(())
            }
            State::Active { pending } => {
                if pending
                    .as_ref()
                    .is_some_and(|pending| pending.id == nack.id)
                {
                    return self.commit_refused(step, nack);
                }
                if self.line == Line::Subscribing(nack.id) {
                    return self.subscription_refused(step, nack.refusal);
                }
                self.message_refused(step, nack)
            }
            State::Leaving { .. }
            | State::Offered { .. }
            | State::Stuck { .. }
            | State::Closed { .. } => Ok(()),
        }
    }

    /// The relay does not know us as a member. Without a record in the log that says so we keep
    /// the group: only the log decides.
    fn subscription_refused(
        &mut self,
        step: &mut Step<'_, '_>,
        refusal: Refusal,
    ) -> Result<(), Error> {
        self.line = Line::Down;
        if refusal.remedy() == skytale_wire::refusal::Remedy::Retry {
            self.pause(step, PAUSE_MS);
            return Ok(());
        }
        self.pause(step, STRANGER_PAUSE_MS);
        for command in store::drop_wishes(step.tx, &self.record.id)? {
            step.out
                .answers
                .push((command, Answer::Failed(Error::Denied(refusal).into())));
        }
        Ok(())
    }

    fn creation_refused(&mut self, step: &mut Step<'_, '_>, refusal: Refusal) -> Result<(), Error> {
        let State::Creating { command } = &self.record.state else {
            return Ok(());
        };
        if refusal.remedy() == skytale_wire::refusal::Remedy::Retry {
            self.pause(step, PAUSE_MS);
            self.line = Line::Down;
            return Ok(());
        }
        self.openers.push(*command);
        let waiting = std::mem::take(&mut self.openers);
        self.close(step, Closed::Refused)?;
        for command in waiting {
            step.out
                .answers
                .push((command, Answer::Failed(Error::Denied(refusal).into())));
        }
        Ok(())
    }

    // ----- the end of a step ------------------------------------------------------------------

    /// Everything that is due and possible now.
    pub(crate) fn work(
        &mut self,
        step: &mut Step<'_, '_>,
        uplink: &mut Uplink,
    ) -> Result<(), Error> {
        if !uplink.serves(&self.record.id) || step.now < self.not_before {
            return Ok(());
        }
        if self.line == Line::Down {
            self.speak_up(step, uplink)?;
        }
        if !self.is_active() {
            return Ok(());
        }
        if self.line == Line::Level {
            self.renew_keys_in_time(step)?;
            self.pump(step, uplink)?;
            self.seal_group_info(step, uplink)?;
            self.commit_what_is_wished(step, uplink)?;
        }
        self.tell_cursor(step, uplink);
        Ok(())
    }

    /// Post-compromise security without being asked: a new path, once in a while. The moment is
    /// drawn once and stored; a clock that was wrong does not put it off for longer than a whole
    /// pause.
    fn renew_keys_in_time(&mut self, step: &mut Step<'_, '_>) -> Result<(), Error> {
        let latest = step.now.plus(RENEW_MS.1);
        match self.record.renew_at {
            Some(at) if at <= step.now => {
                store::add_wish(
                    step.tx,
                    &self.record.id,
                    &send::NOBODY,
                    &record::Wish::Rotate,
                )?;
                self.record.renew_at = None;
                self.changed = true;
            }
            Some(at) if at <= latest => {}
            Some(_) | None => {
                let pause = step.rng.random_range(RENEW_MS.0..=RENEW_MS.1);
                self.record.renew_at = Some(step.now.plus(pause));
                self.changed = true;
            }
        }
        Ok(())
    }

    /// After many have come in by one commit the tree has no keys inside, and each commit is as
    /// long as the group. A few of the newcomers, by lot, therefore replace their keys soon; each
    /// draws by itself, so that nobody needs to be asked.
    fn draw_lot(&mut self, step: &mut Step<'_, '_>, together: usize) {
        if together < WAVE_TOGETHER_MIN {
            return;
        }
        let wanted = WAVE_MIN.max(together.div_ceil(100));
        if step.rng.random_range(0..together) < wanted {
            let pause = step.rng.random_range(WAVE_MS.0..=WAVE_MS.1);
            self.record.renew_at = Some(step.now.plus(pause));
            self.changed = true;
        }
    }

    /// The relay keeps commits until every member has passed them: tell it how far we are.
    fn tell_cursor(&mut self, step: &mut Step<'_, '_>, uplink: &Uplink) {
        if self.record.cursor.0 >= self.told.0 + SEEN_EVERY {
            self.told = self.record.cursor;
            let seen = frame::Seen {
                channel: self.record.id,
                seq: self.record.cursor,
            };
            uplink.send(step, ToRelay::Seen(seen));
        }
    }

    /// Writes what has changed.
    pub(crate) fn save(&mut self, step: &mut Step<'_, '_>) -> Result<(), Error> {
        if std::mem::take(&mut self.changed) {
            store::save_record(step.tx, &self.record)?;
        }
        Ok(())
    }

    /// When it wants to be woken. What is due already waits for something else, such as a
    /// connection, and is looked at again when that comes.
    pub(crate) fn wake(&self, now: Time) -> Option<Time> {
        [Some(self.not_before), self.tidy_at, self.record.renew_at]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min()
    }

    /// Waits between a half and the whole of `ms` before saying anything more.
    fn pause(&mut self, step: &mut Step<'_, '_>, ms: u64) {
        let ms = step.rng.random_range(ms / 2..=ms);
        self.not_before = self.not_before.max(step.now.plus(ms));
    }

    /// A new epoch has begun by `change`: the members' table, the words and the ratchet's count
    /// follow.
    fn entered_epoch(
        &mut self,
        step: &mut Step<'_, '_>,
        change: &RosterChange,
        by: AgentId,
    ) -> Result<(), Error> {
        let id = self.record.id;
        for agent in &change.removed {
            store::drop_member(step.tx, &id, agent)?;
            if let Some(event) = self.departure_event(step, agent, by)? {
                step.out.events.push(event);
            }
        }
        for grant in change.added.iter().chain(&change.granted) {
            store::set_member(step.tx, &id, &grant.agent, grant.admin, grant.may_invite)?;
        }
        for grant in &change.added {
            step.out.events.push(Event::Joined {
                channel: id,
                agent: grant.agent,
            });
        }
        self.new_keys(step)?;
        step.out.events.push(Event::EpochChanged {
            channel: id,
            epoch: self.record.epoch,
        });
        Ok(())
    }

    /// Who had left was announced when it said so.
    fn departure_event(
        &mut self,
        step: &mut Step<'_, '_>,
        agent: &AgentId,
        by: AgentId,
    ) -> Result<Option<Event>, Error> {
        let announced = store::departures(step.tx, &self.record.id)?
            .iter()
            .any(|(left, _)| left == agent);
        store::drop_departure(step.tx, &self.record.id, agent)?;
        Ok((!announced).then_some(Event::Removed {
            channel: self.record.id,
            agent: *agent,
            by,
        }))
    }

    /// The group's secrets are new: nothing that was sealed before can enter the log any more.
    fn new_keys(&mut self, step: &mut Step<'_, '_>) -> Result<(), Error> {
        let group = self.group()?;
        let (epoch, authenticator) = (group.epoch(), group.authenticator());
        self.record.epoch = epoch;
        self.record.words = words(&authenticator).join(" ");
        self.record.sealed = 0;
        self.record.logged = 0;
        self.changed = true;
        store::forget_sent(step.tx, &self.record.id)?;
        self.hand_over_again();
        step.out.epoch_ended = true;
        Ok(())
    }

    /// The channel is over for us: keys go, whoever waits is told.
    fn close(&mut self, step: &mut Step<'_, '_>, reason: Closed) -> Result<(), Error> {
        let id = self.record.id;
        let mut waiting = store::drop_outbox(step.tx, &id)?;
        waiting.extend(store::drop_wishes(step.tx, &id)?);
        waiting.append(&mut self.openers);
        for command in waiting {
            let failure = Error::Misuse(reason.told().into()).into();
            step.out.answers.push((command, Answer::Failed(failure)));
        }
        store::forget_channel_rows(step.tx, &id)?;
        let group_id = self.record.group_id();
        Group::forget(step.provider, &group_id)?;
        self.group = None;
        self.work = None;
        self.tidy_at = None;
        self.early.clear();
        self.record.state = State::Closed { reason };
        self.changed = true;
        step.out.epoch_ended = true;
        Ok(())
    }
}

/// Pause after a refusal that asks for patience.
const PAUSE_MS: u64 = 500;
/// Pause before asking a relay again that does not know us as a member.
const STRANGER_PAUSE_MS: u64 = 30_000;
/// How long an agent keeps its keys in a channel: 12 to 36 hours.
const RENEW_MS: (u64, u64) = (12 * 3_600_000, 36 * 3_600_000);
/// So many must come in by one commit before some of them replace their keys soon: below, a
/// commit is short although the tree is bare.
const WAVE_TOGETHER_MIN: usize = 32;
/// How many do it on average, or one in a hundred where that is more. One would be too few: lots
/// are drawn independently, and in a third of all cases nobody would have it. With five of a
/// hundred a commit is a third as long on average.
const WAVE_MIN: usize = 5;
/// When they do it, so that their commits do not race: between these.
const WAVE_MS: (u64, u64) = (2_000, 120_000);
/// The cursor is told to the relay every so many records.
const SEEN_EVERY: u64 = 64;
