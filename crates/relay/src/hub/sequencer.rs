//! Gives records their places and epochs their commits, and answers once that is durable.
//!
//! Each request goes the same way: seen before? may it? then everything changes in one step, in
//! memory and in one write. A refused request changes nothing.

use std::collections::BTreeSet;

use bytes::Bytes;
use skytale_wire::{
    Blob,
    envelope::{Envelope, Kind, OpenInvite, Place, RosterChange},
    frame::{
        ADDS_MAX, Ack, Commit, Create, Created, Deliver, FRAME_BYTES_MAX, Leave, Nack, Publish,
        Published, Sealed, ToAgent, ToRelay, Welcome, WelcomeFor, decode, encode,
    },
    id::{AgentId, ChannelId, Digest, Epoch, InviteId, MessageId, Seq, Time, verify},
    refusal::{Refusal, Remedy},
    statement,
};

use super::{
    Asking, Hub, Lane, Output, Ticket,
    channel::Channel,
    ledger::{Committed, Effect, Known, Reply, nack, stale},
    retention, roster, send,
};
use crate::archive::{Append, SealedGroupInfo, WelcomeRow, Write, Written};

/// Which request is answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct About {
    pub(super) channel: ChannelId,
    pub(super) id: MessageId,
    /// A message: refused for the moment, it holds back what its sender publishes behind it.
    pub(super) ordered: bool,
}

/// A record that was let in, before it has a place.
struct Entry {
    about: About,
    kind: Kind,
    body: Blob,
    change: Option<Blob>,
    welcomes: Vec<WelcomeFor>,
    sealed: Option<Sealed>,
    /// How its place is told to the sender.
    reply: fn(About, Seq) -> ToAgent,
}

/// What a record does to the roster.
enum Turn {
    Nothing,
    Change(RosterChange),
    Join(InviteId),
    Leave,
}

impl Hub {
    pub(super) fn create(&mut self, who: Asking, frame: &Create, now: Time, out: &mut Vec<Output>) {
        let about = About {
            channel: frame.channel,
            id: frame.id,
            ordered: false,
        };
        if let Err(refusal) = self.try_create(who, about, now, out) {
            self.refuse(who, about, refusal, out);
        }
    }

    pub(super) fn publish(
        &mut self,
        who: Asking,
        frame: Publish,
        earlier: Option<Seq>,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let about = About {
            channel: frame.channel,
            id: frame.id,
            ordered: true,
        };
        if self.answered_before(who, about, published, earlier, out) {
            return;
        }
        if frame.resumes {
            self.held.remove(&(who.conn, about.channel));
        }
        let result = if self.held.contains(&(who.conn, about.channel)) {
            Err(Refusal::RateLimited)
        } else {
            self.try_publish(who, about, frame, now, out)
        };
        if let Err(refusal) = result {
            self.refuse(who, about, refusal, out);
        }
    }

    pub(super) fn commit(
        &mut self,
        who: Asking,
        frame: Commit,
        earlier: Option<Seq>,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let about = About {
            channel: frame.channel,
            id: frame.id,
            ordered: false,
        };
        if self.answered_before(who, about, acknowledged, earlier, out) {
            return;
        }
        let epoch = frame.epoch;
        let result = if frame.join.is_some() {
            self.try_join(who, about, frame, now, out)
        } else {
            self.try_commit(who, about, frame, now, out)
        };
        match result {
            Ok(()) => {}
            Err(Refusal::StaleEpoch) => self.refuse_stale_commit(who, about, epoch, out),
            Err(refusal) => self.refuse(who, about, refusal, out),
        }
    }

    pub(super) fn leave(
        &mut self,
        who: Asking,
        frame: &Leave,
        earlier: Option<Seq>,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let about = About {
            channel: frame.channel,
            id: frame.id,
            ordered: false,
        };
        if self.answered_before(who, about, acknowledged, earlier, out) {
            return;
        }
        if let Err(refusal) = self.try_leave(who, about, frame, now, out) {
            self.refuse(who, about, refusal, out);
        }
    }

    /// A write is durable: what waited for it goes out.
    pub(super) fn stored(&mut self, ticket: Ticket, written: Written, out: &mut Vec<Output>) {
        let Some(pending) = self.ledger.settle(ticket) else {
            return;
        };
        let after = pending.after;
        let mut replies = pending.replies.into_iter();
        match pending.effect {
            Effect::Appended {
                deliver, commit, ..
            } => {
                let id = deliver.channel;
                let Some(channel) = self.channels.get_mut(&id) else {
                    return;
                };
                channel.durable = deliver.seq;
                channel.settle(ticket);
                if let Some(commit) = &commit {
                    channel.durable_epoch = commit.epoch;
                }
                self.reply(replies, out);
                self.deliver(deliver, out);
                if let Some(commit) = commit {
                    self.push_welcomes(commit.welcomes, out);
                    if let Some(sealed) = commit.sealed {
                        self.group_info_sealed(id, commit.epoch, &sealed, out);
                    }
                }
            }
            Effect::Created { channel } => {
                if let Some(channel) = self.channels.get_mut(&channel) {
                    channel.settle(ticket);
                }
                self.reply(replies, out);
            }
            Effect::Sealed {
                channel,
                epoch,
                sealed,
            } => self.group_info_sealed(channel, epoch, &sealed, out),
            Effect::KeyPackagesPut => {
                self.key_packages_put(replies.next().as_ref(), &written, out);
            }
            Effect::KeyPackageTaken { agent } => {
                self.key_package_taken(replies.next().as_ref(), agent, written, out);
            }
            Effect::Pruned { channel, up_to } => {
                if let Some(channel) = self.channels.get_mut(&channel) {
                    channel.pruned = channel.pruned.max(up_to);
                    channel.pruning = false;
                }
            }
            Effect::SlimAppended(appended) => {
                self.reply(replies, out);
                self.slim_stored(ticket, *appended, out);
            }
            Effect::SlimPruned { log, up_to } => self.slim_pruned(log, up_to),
            Effect::Metered(which) => self.meter_stored(which, written, out),
            // A native request about SLIM may wait for whose an organisation is.
            Effect::Nothing => self.reply(replies, out),
        }
        self.slim_after(after, true, out);
    }

    /// A write has failed, and with it all that were handed out after it.
    pub(super) fn fail_from(&mut self, ticket: Ticket, out: &mut Vec<Output>) {
        let mut held = Vec::new();
        for pending in self.ledger.fail(ticket) {
            self.ledger.writable = false;
            if let Effect::SlimAppended(_) = &pending.effect {
                self.slim_unstored();
            }
            if let Effect::Metered(_) = &pending.effect {
                self.meter.write_failed();
            }
            for reply in pending.replies {
                if self.conns.contains_key(&reply.conn) {
                    if reply.ordered {
                        held.extend(reply.channel.map(|channel| (reply.conn, channel)));
                    }
                    let frame = nack(reply.id, reply.channel, Refusal::Unavailable);
                    send(reply.conn, frame, out);
                }
            }
            self.slim_after(pending.after, false, out);
        }
        self.held.extend(held);
    }

    /// What this connection publishes next in this channel is behind a message that was refused
    /// for the moment. Unknown channels are not remembered: a peer may name as many as it likes.
    fn hold(&mut self, conn: super::Conn, channel: ChannelId) {
        if self.channels.contains_key(&channel) {
            self.held.insert((conn, channel));
        }
    }

    /// The same for a frame that nobody has looked at.
    pub(super) fn hold_behind(&mut self, conn: super::Conn, frame: &ToRelay) {
        if let ToRelay::Publish(publish) = frame {
            self.hold(conn, publish.channel);
        }
    }

    /// Whether a request that needs a write can be taken at all.
    pub(super) fn check_writable(&self) -> Result<(), Refusal> {
        if self.ledger.writable && self.ledger.len() < self.config.limits.unstored_max {
            Ok(())
        } else {
            Err(Refusal::Unavailable)
        }
    }

    /// Refuses a request about a channel. When the reason may lie in a write on its way, the
    /// refusal waits for it.
    pub(super) fn refuse(
        &mut self,
        who: Asking,
        about: About,
        refusal: Refusal,
        out: &mut Vec<Output>,
    ) {
        let from_limits = matches!(
            refusal,
            Refusal::RateLimited | Refusal::LimitReached | Refusal::TooLarge | Refusal::Unavailable
        );
        // Between a failed write and the reload nobody knows what is true of the channel.
        let refusal = if self.ledger.writable || from_limits {
            refusal
        } else {
            Refusal::Unavailable
        };
        if about.ordered && refusal.remedy() == Remedy::Retry {
            self.hold(who.conn, about.channel);
        }
        let channel = self.channels.get(&about.channel);
        let member = channel.filter(|channel| channel.kept.roster.member(&who.agent).is_some());
        let frame = ToAgent::Nack(Nack {
            id: about.id,
            channel: Some(about.channel),
            refusal,
            epoch: member.map(|channel| channel.kept.epoch),
            winner: None,
        });
        // An epoch that is not durable is not told either.
        let waits_for = channel.and_then(|channel| channel.unsettled);
        match waits_for {
            Some(_) if from_limits => {
                send(who.conn, nack(about.id, Some(about.channel), refusal), out);
            }
            Some(ticket) => self.say_after(ticket, who, about, frame, out),
            None => send(who.conn, frame, out),
        }
    }

    /// Refuses whatever a frame asks for, by its id, when it has one.
    pub(super) fn refuse_frame(
        who: Asking,
        frame: &ToRelay,
        refusal: Refusal,
        out: &mut Vec<Output>,
    ) {
        let (id, channel) = match frame {
            ToRelay::Create(create) => (create.id, Some(create.channel)),
            ToRelay::Publish(publish) => (publish.id, Some(publish.channel)),
            ToRelay::Commit(commit) => (commit.id, Some(commit.channel)),
            ToRelay::Leave(leave) => (leave.id, Some(leave.channel)),
            ToRelay::Subscribe(subscribe) => (subscribe.id, Some(subscribe.channel)),
            ToRelay::PutKeyPackages(put) => (put.id, None),
            ToRelay::TakeKeyPackage(take) => (take.id, None),
            ToRelay::TakeGroupInfo(take) => (take.id, Some(take.channel)),
            ToRelay::WantGroupInfo(want) => (want.id, Some(want.channel)),
            ToRelay::SealGroupInfo(seal) => (seal.id, Some(seal.channel)),
            ToRelay::Renew(renew) => (renew.id, None),
            ToRelay::Ping(ping) => (ping.id, None),
            ToRelay::SlimSubscribe(subscribe) => (subscribe.id, None),
            ToRelay::SlimPublish(publish) => (publish.id, None),
            ToRelay::TakeSlimLogs(take) => (take.id, None),
            // Nobody waits for an answer to these.
            ToRelay::Hello(_)
            | ToRelay::TakeWelcome(_)
            | ToRelay::Welcomed(_)
            | ToRelay::Seen(_)
            | ToRelay::SlimUnsubscribe(_) => return,
        };
        send(who.conn, nack(id, channel, refusal), out);
    }

    fn try_create(
        &mut self,
        who: Asking,
        about: About,
        now: Time,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        self.check_writable()?;
        let limits = &self.config.limits;
        let account = self
            .conns
            .get(&who.conn)
            .and_then(|connection| connection.permit.account().cloned())
            .ok_or(Refusal::ScopeMissing)?;
        let created = ToAgent::Created(Created {
            channel: about.channel,
            id: about.id,
        });
        if let Some(channel) = self.channels.get(&about.channel) {
            let kept = &channel.kept;
            let untouched = channel.head == Seq(0) && kept.epoch == Epoch(0);
            if kept.creator != who.agent || !(untouched || kept.created == about.id) {
                return Err(Refusal::ChannelExists);
            }
            match channel.unsettled {
                Some(ticket) => self.say_after(ticket, who, about, created, out),
                None => send(who.conn, created, out),
            }
            return Ok(());
        }
        let owned = self.owned.get(&account).map_or(0, BTreeSet::len);
        if owned >= limits.channels_per_account_max as usize {
            return Err(Refusal::LimitReached);
        }
        if !self
            .rates
            .of(who.agent)
            .creates
            .take(limits.creates, 1, now)
        {
            return Err(Refusal::RateLimited);
        }

        let mut channel = Channel::founded(who.agent, about.id, account.clone());
        let write = Write::Channel {
            channel: about.channel,
            state: channel.state(),
        };
        let effect = Effect::Created {
            channel: about.channel,
        };
        let reply = reply(who, about, Some(created));
        channel.unsettled = Some(self.ledger.write(write, effect, Some(reply), out));
        self.channels.insert(about.channel, channel);
        self.memberships
            .entry(who.agent)
            .or_default()
            .insert(about.channel);
        self.owned.entry(account).or_default().insert(about.channel);
        Ok(())
    }

    fn try_publish(
        &mut self,
        who: Asking,
        about: About,
        frame: Publish,
        now: Time,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        self.check_writable()?;
        let channel = self.channel_of_member(who, &about.channel)?;
        if frame.body.is_empty() {
            return Err(Refusal::Malformed);
        }
        if frame.body.len() > self.config.limits.body_bytes_max as usize {
            return Err(Refusal::TooLarge);
        }
        if frame.epoch != channel.kept.epoch {
            return Err(Refusal::StaleEpoch);
        }
        let rate = self.config.limits.publishes;
        if !self.rates.of(who.agent).publishes.take(rate, 1, now) {
            return Err(Refusal::RateLimited);
        }

        let entry = Entry {
            about,
            kind: Kind::Application,
            body: frame.body,
            change: None,
            welcomes: Vec::new(),
            sealed: None,
            reply: published,
        };
        self.append(who, entry, &Turn::Nothing, now, out);
        Ok(())
    }

    fn try_commit(
        &mut self,
        who: Asking,
        about: About,
        frame: Commit,
        now: Time,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        self.check_writable()?;
        let limits = self.config.limits.clone();
        let channel = self.channel_of_member(who, &about.channel)?;
        let change = read_change(&frame)?;
        if frame.epoch != channel.kept.epoch {
            return Err(Refusal::StaleEpoch);
        }
        let roster = &channel.kept.roster;
        roster.check(&who.agent, &change, &limits, now)?;
        let welcomed = check_welcomes(&change, &frame.welcomes)?;
        let invites = roster.invites_after(&change);
        let sealed = check_sealed(&invites, frame.sealed, now)?;
        let commits = roster
            .member(&who.agent)
            .map_or_else(Default::default, |member| member.commits);
        if !commits.holds(limits.commits, 1, now) {
            return Err(Refusal::RateLimited);
        }
        if !self.rates.take_welcomes(who.agent, &welcomed, &limits, now) {
            return Err(Refusal::RateLimited);
        }
        if let Some(member) = self
            .channels
            .get_mut(&about.channel)
            .and_then(|channel| channel.kept.roster.member_mut(&who.agent))
        {
            let taken = member.commits.take(limits.commits, 1, now);
            debug_assert!(taken, "the bucket was asked before");
        }

        let entry = Entry {
            about,
            kind: Kind::Commit,
            body: frame.body,
            change: Some(frame.change),
            welcomes: frame.welcomes,
            sealed,
            reply: acknowledged,
        };
        self.append(who, entry, &Turn::Change(change), now, out);
        Ok(())
    }

    fn try_join(
        &mut self,
        who: Asking,
        about: About,
        frame: Commit,
        now: Time,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        self.check_writable()?;
        let limits = &self.config.limits;
        let proof = frame.join.as_ref().ok_or(Refusal::Malformed)?;
        let may_join = self
            .conns
            .get(&who.conn)
            .is_some_and(|connection| connection.permit.may_join(&about.channel));
        // An unknown channel and an unknown invite look alike.
        let channel = self
            .channels
            .get(&about.channel)
            .filter(|_| may_join)
            .ok_or(Refusal::InviteUnknown)?;
        let roster = &channel.kept.roster;
        let invite = roster
            .any_invite(&proof.invite)
            .ok_or(Refusal::InviteUnknown)?;
        let said = statement::join(&proof.group, &proof.context, &proof.invite, &who.agent);
        if !verify(&invite.signing.0, &said, &proof.signature) {
            return Err(Refusal::InviteAltered);
        }
        if proof.group != channel.group(&about.channel) {
            return Err(Refusal::ClosedGeneration);
        }
        // A leaver's leaf is still in the group: two leaves with one key would split it.
        if roster.member(&who.agent).is_some() || roster.leaf_stays(&who.agent) {
            return Err(Refusal::MemberAlready);
        }
        roster.usable_invite(&proof.invite, now)?;
        let change = read_change(&frame)?;
        let alone = RosterChange {
            added: vec![skytale_wire::envelope::Grant {
                agent: who.agent,
                admin: false,
                may_invite: false,
            }],
            ..RosterChange::default()
        };
        if change != alone || !frame.welcomes.is_empty() {
            return Err(Refusal::Malformed);
        }
        if frame.epoch != channel.kept.epoch {
            return Err(Refusal::StaleEpoch);
        }
        if roster.members().count() >= limits.members_max {
            return Err(Refusal::LimitReached);
        }
        let invites = roster.invites_after_join(&proof.invite);
        let turn = Turn::Join(proof.invite);
        let sealed = check_sealed(&invites, frame.sealed, now)?;
        if !self.rates.of(who.agent).joins.take(limits.commits, 1, now) {
            return Err(Refusal::RateLimited);
        }

        let entry = Entry {
            about,
            kind: Kind::Join,
            body: frame.body,
            change: Some(frame.change),
            welcomes: Vec::new(),
            sealed,
            reply: acknowledged,
        };
        self.append(who, entry, &turn, now, out);
        Ok(())
    }

    fn try_leave(
        &mut self,
        who: Asking,
        about: About,
        frame: &Leave,
        now: Time,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        self.check_writable()?;
        let channel = self.channel_of_member(who, &about.channel)?;
        let stay = channel.kept.roster.member(&who.agent);
        if stay.is_some_and(|member| frame.cursor < member.joined) {
            // It was removed and added again meanwhile: the stay that it means is over.
            return Err(Refusal::MemberUnknown);
        }
        if frame.statement.leaf_key.len() > LEAF_KEY_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        if frame.statement.generation != channel.kept.generation {
            return Err(Refusal::ClosedGeneration);
        }
        if !frame.statement.holds(&about.channel, &who.agent) {
            return Err(Refusal::IdentityUnproven);
        }

        let entry = Entry {
            about,
            kind: Kind::Leave,
            body: encode(&frame.statement).into(),
            change: None,
            welcomes: Vec::new(),
            sealed: None,
            reply: acknowledged,
        };
        self.append(who, entry, &Turn::Leave, now, out);
        Ok(())
    }

    /// Gives a record that was let in its place, and everything that follows from it.
    fn append(&mut self, who: Asking, entry: Entry, turn: &Turn, now: Time, out: &mut Vec<Output>) {
        let about = entry.about;
        let spacing_ms = retention::spacing_ms(self.config.retention_ms);
        let channel = self
            .channels
            .get_mut(&about.channel)
            .expect("the checks before have looked it up");
        let seq = channel.head.next();
        let epoch = channel.kept.epoch;
        let said = u64::from(entry.kind == Kind::Application);
        let owner = Some(channel.kept.owner.as_str());
        let charge = self.meter.cost(who.conn, owner, said, entry.body.len());
        let envelope = Envelope {
            kind: entry.kind,
            epoch,
            agent: who.agent,
            id: about.id,
            body: entry.body,
            change: entry.change,
            pruned: None,
            received: now,
        };
        let record = encode_record(&envelope);
        let hash = envelope.log_hash(&channel.hash, seq);

        let roster = &mut channel.kept.roster;
        let (entered, forgotten) = match turn {
            Turn::Nothing => (Vec::new(), Vec::new()),
            Turn::Change(change) => {
                let forgotten = roster.apply(change, seq, epoch);
                let added = change.added.iter().map(|grant| grant.agent).collect();
                (added, forgotten)
            }
            Turn::Join(invite) => {
                roster.join(who.agent, invite, seq);
                (vec![who.agent], Vec::new())
            }
            Turn::Leave => (Vec::new(), roster.leave(&who.agent, seq, epoch)),
        };
        let ends_epoch = matches!(turn, Turn::Change(_) | Turn::Join(_));
        if ends_epoch {
            channel.end_epoch(Place {
                seq,
                content: envelope.content_hash(),
            });
        }
        let marked = channel.mark(seq, now, spacing_ms);
        channel.head = seq;
        channel.hash = hash;
        let changed = !matches!(turn, Turn::Nothing);
        if changed {
            channel.set_windows();
        }

        let next = channel.kept.epoch;
        let welcomes = welcomes_of(&about, who.agent, seq, hash, entry.welcomes);
        let write = Write::Append(Append {
            channel: about.channel,
            seq,
            record: record.clone(),
            hash,
            agent: who.agent,
            id: about.id,
            state: (changed || marked).then(|| channel.state()),
            welcomes: welcome_rows(&welcomes),
            sealed: entry.sealed.as_ref().map(|sealed| SealedGroupInfo {
                epoch: next,
                sealed: encode(sealed).into(),
            }),
            ends_epoch,
            charge,
        });
        let effect = Effect::Appended {
            deliver: Deliver {
                channel: about.channel,
                seq,
                record: Blob(record),
            },
            key: (who.agent, about.channel, about.id),
            commit: ends_epoch.then(|| {
                Box::new(Committed {
                    epoch: next,
                    welcomes,
                    sealed: entry.sealed,
                })
            }),
        };
        let answer = reply(who, about, Some((entry.reply)(about, seq)));
        let ticket = self.ledger.write(write, effect, Some(answer), out);
        if changed {
            channel.unsettled = Some(ticket);
        }
        for agent in entered {
            self.memberships
                .entry(agent)
                .or_default()
                .insert(about.channel);
        }
        for agent in forgotten {
            self.forget_membership(agent, about.channel);
        }
    }

    /// Answers a request that was given a place before, whatever has become of the sender since.
    fn answered_before(
        &mut self,
        who: Asking,
        about: About,
        reply: fn(About, Seq) -> ToAgent,
        earlier: Option<Seq>,
        out: &mut Vec<Output>,
    ) -> bool {
        let known = self.ledger.known(&(who.agent, about.channel, about.id));
        match (known, earlier) {
            (Some(Known::Waiting(ticket, seq)), _) => {
                self.say_after(ticket, who, about, reply(about, seq), out);
            }
            (Some(Known::Stored(seq)), _) | (None, Some(seq)) => {
                send(who.conn, reply(about, seq), out);
            }
            (None, None) => return false,
        }
        true
    }

    /// Says something once a write is durable.
    fn say_after(
        &mut self,
        ticket: Ticket,
        who: Asking,
        about: About,
        frame: ToAgent,
        out: &mut Vec<Output>,
    ) {
        let waiting = reply(who, about, Some(frame));
        let settled = self.ledger.wait(ticket, waiting);
        if let Some(frame) = settled.and_then(|reply| reply.frame) {
            send(who.conn, frame, out); // Durable already.
        }
    }

    fn refuse_stale_commit(
        &mut self,
        who: Asking,
        about: About,
        epoch: Epoch,
        out: &mut Vec<Output>,
    ) {
        let Some(channel) = self.channels.get(&about.channel) else {
            return;
        };
        let member = channel.kept.roster.member(&who.agent).is_some();
        // A joiner has shown an open invite, by which it may learn the epoch, not the log.
        let winner = channel.winner(epoch).filter(|_| member);
        let frame = stale(about.id, about.channel, channel.kept.epoch, winner);
        match channel.unsettled {
            Some(ticket) => self.say_after(ticket, who, about, frame, out),
            None => send(who.conn, frame, out),
        }
    }

    fn reply(&self, replies: impl Iterator<Item = Reply>, out: &mut Vec<Output>) {
        for reply in replies {
            if let Some(frame) = reply.frame
                && self.conns.contains_key(&reply.conn)
            {
                out.push(Output::Send {
                    conn: reply.conn,
                    lane: Lane::Live,
                    frame,
                });
            }
        }
    }

    /// The channel, when the permit reaches it and the roster names the agent. To everybody
    /// else it looks as if there were none.
    pub(super) fn channel_of_member(
        &self,
        who: Asking,
        id: &ChannelId,
    ) -> Result<&Channel, Refusal> {
        self.channels
            .get(id)
            .filter(|channel| channel.kept.roster.member(&who.agent).is_some())
            .filter(|_| self.covers(who.conn, id))
            .ok_or(Refusal::ChannelUnknown)
    }

    fn forget_membership(&mut self, agent: AgentId, channel: ChannelId) {
        if let Some(channels) = self.memberships.get_mut(&agent) {
            channels.remove(&channel);
            if channels.is_empty() {
                self.memberships.remove(&agent);
            }
        }
    }
}

impl Channel {
    /// The last write that others waited for is durable.
    fn settle(&mut self, ticket: Ticket) {
        if self.unsettled == Some(ticket) {
            self.unsettled = None;
        }
    }
}

/// A reply that waits for the write that it belongs to.
pub(super) fn reply(who: Asking, about: About, frame: Option<ToAgent>) -> Reply {
    Reply {
        conn: who.conn,
        id: about.id,
        channel: Some(about.channel),
        ordered: about.ordered,
        frame,
    }
}

fn published(about: About, seq: Seq) -> ToAgent {
    ToAgent::Published(Published {
        channel: about.channel,
        id: about.id,
        seq,
    })
}

fn acknowledged(about: About, seq: Seq) -> ToAgent {
    ToAgent::Ack(Ack {
        channel: about.channel,
        id: about.id,
        seq,
    })
}

/// The declared roster change of a commit, within bounds.
fn read_change(frame: &Commit) -> Result<RosterChange, Refusal> {
    if frame.body.is_empty() {
        return Err(Refusal::Malformed);
    }
    if frame.body.len() > FRAME_BYTES_MAX || frame.change.len() > CHANGE_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let change: RosterChange =
        decode(&frame.change, CHANGE_BYTES_MAX).map_err(|_| Refusal::Malformed)?;
    if change.added.len() > ADDS_MAX {
        return Err(Refusal::LimitReached);
    }
    Ok(change)
}

/// Whether exactly the added agents get exactly one Welcome each: who they are.
fn check_welcomes(change: &RosterChange, welcomes: &[WelcomeFor]) -> Result<Vec<AgentId>, Refusal> {
    let mut welcomed: Vec<_> = welcomes
        .iter()
        .flat_map(|welcome| welcome.agents.iter().copied())
        .collect();
    welcomed.sort_unstable();
    let mut added: Vec<_> = change.added.iter().map(|grant| grant.agent).collect();
    added.sort_unstable();
    if welcomed != added || welcomes.iter().any(|welcome| welcome.body.is_empty()) {
        return Err(Refusal::Malformed);
    }
    Ok(added)
}

/// The sealed `GroupInfo` to keep for these invites, if any of them can be used.
fn check_sealed(
    invites: &[OpenInvite],
    sealed: Option<Sealed>,
    now: Time,
) -> Result<Option<Sealed>, Refusal> {
    let needed = roster::sealed_serves(invites, sealed.as_ref(), now)?;
    Ok(sealed.filter(|_| needed))
}

/// Encodes a record once, for the store and for every member.
fn encode_record(envelope: &Envelope) -> Bytes {
    let change = envelope.change.as_ref().map_or(0, |change| change.len());
    let mut bytes = Vec::with_capacity(envelope.body.len() + change + HEADER_BYTES);
    minicbor::encode(envelope, &mut bytes).expect("writing to memory cannot fail");
    bytes.into()
}

fn welcomes_of(
    about: &About,
    by: AgentId,
    seq: Seq,
    hash: Digest,
    welcomes: Vec<WelcomeFor>,
) -> Vec<(AgentId, Welcome)> {
    let mut frames = Vec::new();
    for WelcomeFor { agents, body } in welcomes {
        let welcome = Welcome {
            id: about.id,
            channel: about.channel,
            seq,
            body,
            by,
            hash,
        };
        frames.extend(agents.into_iter().map(|agent| (agent, welcome.clone())));
    }
    frames
}

fn welcome_rows(welcomes: &[(AgentId, Welcome)]) -> Vec<WelcomeRow> {
    let mut rows: Vec<WelcomeRow> = Vec::with_capacity(welcomes.len());
    let mut encoded: Option<(&Welcome, Bytes)> = None;
    for (agent, welcome) in welcomes {
        // Agents that share a Welcome stand next to each other: encode it once.
        let frame = match &encoded {
            Some((last, frame)) if last.body.0.as_ptr() == welcome.body.0.as_ptr() => frame.clone(),
            Some(_) | None => encode(welcome).into(),
        };
        encoded = Some((welcome, frame.clone()));
        rows.push(WelcomeRow {
            agent: *agent,
            channel: welcome.channel,
            id: welcome.id,
            frame,
        });
    }
    rows
}

/// Bytes of an encoded roster change: 500 agents in and a thousand out fit.
const CHANGE_BYTES_MAX: usize = 128 * 1024;
/// Bytes of a leaf encryption key, also of a post-quantum suite.
const LEAF_KEY_BYTES_MAX: usize = 2048;
/// Bytes of a record besides body and change.
const HEADER_BYTES: usize = 160;
