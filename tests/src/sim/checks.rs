//! What must hold when everything has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use skytale_agent::{Draft, audit, inbox, view};
use skytale_relay::archive::{Archive as _, ArchiveReader as _};
use skytale_wire::{
    Blob,
    envelope::{Envelope, Kind, RosterChange},
    frame::{FRAME_BYTES_MAX, decode},
    id::{AgentId, ChannelId, Seq},
};

use super::{Counters, agent::SimAgent, relay::envelope, script::CANARY, world::World};

/// A channel's log, as the relay has it.
struct Log {
    channel: ChannelId,
    records: Vec<(Seq, Blob, Envelope)>,
    /// For each agent: from where to where it was a member; open at the end when it still is.
    stays: BTreeMap<AgentId, Vec<(Seq, Option<Seq>)>>,
}

pub(super) fn judge(world: &mut World, broken: &mut Vec<String>) {
    let reader = world.relay.archive.reader();
    for stored in reader.channels().unwrap() {
        let log = Log::read(world, stored.channel, broken);
        each_epoch_has_one_commit(&log, broken);
        no_plaintext(&log, broken);
        members_agree(world, &log, broken);
        messages_arrive_once_and_in_order(world, &log, broken);
        messages_say_what_was_said(world, &log, broken);
        nothing_acknowledged_is_lost(world, &log, broken);
        the_removed_read_nothing_later(world, &log, broken);
        if world.seed.is_multiple_of(READ_AGAIN_EVERY) {
            what_was_read_stays_closed(world, &log, broken);
        }
        log.tell(&world.agents, &mut world.counters);
    }
    everything_is_counted_once(world, broken);
    a_key_package_is_used_once(world, broken);
    tell_states(world);
    for (number, agent) in world.agents.iter().enumerate() {
        let outbox = view::outbox_len(&agent.vault, None).unwrap();
        if outbox > 0 {
            broken.push(format!(
                "{} ({number}) still has {outbox} messages in the outbox",
                agent.name
            ));
        }
    }
    for forbidden in [
        "event: ForkSuspected",
        "event: LogRollback",
        "event: ChannelStuck",
        "event: Unreadable",
    ] {
        if let Some(count) = world.counters.0.get(forbidden) {
            broken.push(format!(
                "{forbidden} occurred {count} times among honest parties"
            ));
        }
    }
}

/// What the API server was told is what stands in the logs, after crashes of the relay, writes that
/// failed, and reports and answers that were lost.
fn everything_is_counted_once(world: &mut World, broken: &mut Vec<String>) {
    let reader = world.relay.archive.reader();
    let (mut messages, mut bytes) = (0, 0);
    for stored in reader.channels().unwrap() {
        let records = reader.records(&stored.channel, Seq(0), usize::MAX, usize::MAX);
        for record in records.unwrap() {
            let record = envelope(&record.record);
            messages += u64::from(record.kind == Kind::Application);
            bytes += record.body.len() as u64;
        }
    }
    let counted = world.taker.settle(&mut world.relay);
    if (counted.messages, counted.bytes) != (messages, bytes) {
        broken.push(format!(
            "{messages} messages and {bytes} bytes were taken, and counted {} and {}",
            counted.messages, counted.bytes
        ));
    }
}

/// Single-use packages leave the relay once; only what an agent has declared to be its last resort
/// may be given to several.
fn a_key_package_is_used_once(world: &World, broken: &mut Vec<String>) {
    for (package, count) in &world.relay.handed_out {
        if *count > 1 && !world.relay.last_resorts.contains(package) {
            broken.push(format!("KeyPackage {package} was handed out {count} times"));
        }
    }
}

/// In which states channels have ended, and whether one line has carried several.
fn tell_states(world: &mut World) {
    for agent in &world.agents {
        let views = view::channels(&agent.vault).unwrap();
        for view in &views {
            let state = if let view::ChannelState::Offered(_) = view.state {
                "Offered".to_owned()
            } else {
                format!("{:?}", view.state)
            };
            world.counters.count(format!("state: {state}"));
        }
        let talking = views
            .iter()
            .filter(|view| view.state == view::ChannelState::Active && view.members > 1)
            .filter(|view| {
                let got = inbox::look(&agent.vault, Some(view.id), 0, 1).unwrap();
                !got.is_empty()
            })
            .count();
        if talking > 1 {
            world.counters.count("line: several channels");
        }
    }
}

impl Log {
    fn read(world: &World, channel: ChannelId, broken: &mut Vec<String>) -> Self {
        let reader = world.relay.archive.reader();
        let mut records = Vec::new();
        let mut after = Seq(0);
        loop {
            let page = reader.records(&channel, after, 512, usize::MAX).unwrap();
            let Some(last) = page.last() else { break };
            after = last.seq;
            for record in page {
                let blob = Blob(record.record.clone());
                records.push((record.seq, blob, envelope(&record.record)));
            }
        }
        for (place, (seq, _, _)) in records.iter().enumerate() {
            if seq.0 != place as u64 + 1 {
                broken.push(format!("the log has {seq} at place {}", place + 1));
            }
        }
        let mut stays: BTreeMap<AgentId, Vec<(Seq, Option<Seq>)>> = BTreeMap::new();
        let creator = world.agents.iter().find(|agent| {
            records
                .first()
                .is_some_and(|(_, _, first)| first.agent == agent.id)
        });
        if let Some(creator) = creator {
            stays.entry(creator.id).or_default().push((Seq(0), None));
        }
        for (seq, _, record) in &records {
            let end = |agent: &AgentId, stays: &mut BTreeMap<AgentId, Vec<(Seq, Option<Seq>)>>| {
                if let Some(stay) = stays.get_mut(agent).and_then(|stays| stays.last_mut())
                    && stay.1.is_none()
                {
                    stay.1 = Some(*seq);
                }
            };
            if let Some(change) = &record.change {
                let change: RosterChange = decode(change, FRAME_BYTES_MAX).unwrap();
                for agent in &change.removed {
                    end(agent, &mut stays);
                }
                for grant in &change.added {
                    stays.entry(grant.agent).or_default().push((*seq, None));
                }
            }
            if record.kind == Kind::Leave {
                end(&record.agent, &mut stays);
            }
        }
        Self {
            channel,
            records,
            stays,
        }
    }

    /// Counts what has happened to the roster.
    fn tell(&self, agents: &[SimAgent], counters: &mut Counters) {
        for (agent, stays) in &self.stays {
            if stays.len() > 1 && agents.iter().any(|known| known.id == *agent) {
                counters.count("log: came back");
            }
        }
        let mut left = BTreeSet::new();
        let founder = self.records.first().map(|(_, _, first)| first.agent);
        for (_, _, record) in &self.records {
            counters.count(format!("log: {:?}", record.kind));
            if record.kind == Kind::Leave {
                left.insert(record.agent);
            }
            let Some(change) = &record.change else {
                continue;
            };
            let change: RosterChange = decode(change, FRAME_BYTES_MAX).unwrap();
            for agent in &change.removed {
                let which = if left.remove(agent) {
                    "log: leaf of one that left removed"
                } else if Some(*agent) == founder {
                    "log: founder removed by another admin"
                } else {
                    "log: removed"
                };
                counters.count(which);
            }
            for grant in &change.granted {
                if grant.admin {
                    counters.count("log: another admin");
                }
            }
            if !change.opened.is_empty() {
                counters.count("log: invite opened");
            }
            if !change.closed.is_empty() {
                counters.count("log: invite closed");
            }
        }
    }

    fn members(&self) -> BTreeSet<AgentId> {
        self.stays
            .iter()
            .filter(|(_, stays)| stays.last().is_some_and(|stay| stay.1.is_none()))
            .map(|(agent, _)| *agent)
            .collect()
    }

    fn epoch(&self) -> u64 {
        self.records
            .iter()
            .filter(|(_, _, record)| matches!(record.kind, Kind::Commit | Kind::Join))
            .count() as u64
    }
}

/// I3, and no message of an epoch after its end.
fn each_epoch_has_one_commit(log: &Log, broken: &mut Vec<String>) {
    let mut epoch = 0;
    for (seq, _, record) in &log.records {
        if record.kind != Kind::Leave && record.epoch.0 != epoch {
            broken.push(format!(
                "record {seq} is of epoch {}, not {epoch}",
                record.epoch
            ));
        }
        if matches!(record.kind, Kind::Commit | Kind::Join) {
            epoch += 1;
        }
    }
}

fn no_plaintext(log: &Log, broken: &mut Vec<String>) {
    for (seq, bytes, _) in &log.records {
        if bytes
            .windows(CANARY.len())
            .any(|window| window == CANARY.as_bytes())
        {
            broken.push(format!("record {seq} holds plaintext"));
        }
    }
}

/// I4, I5: everybody who is in is at the head, in the same epoch, with the same words.
fn members_agree(world: &World, log: &Log, broken: &mut Vec<String>) {
    let mut words = BTreeSet::new();
    for agent in world
        .agents
        .iter()
        .filter(|agent| log.members().contains(&agent.id))
    {
        let views = view::channels(&agent.vault).unwrap();
        let view = views.iter().find(|view| view.id == log.channel);
        if agent.guest
            && view.is_none_or(|view| matches!(view.state, view::ChannelState::Closed(_)))
        {
            // A guest without a channel at this relay has no reason to connect and look.
            continue;
        }
        let Some(view) = view else {
            broken.push(format!("{} does not know that it is a member", agent.name));
            continue;
        };
        if matches!(
            view.state,
            view::ChannelState::Offered(_) | view::ChannelState::Closed(view::Closed::Declined)
        ) {
            continue;
        }
        if view.state != view::ChannelState::Active {
            // A declined or refused Welcome leaves a member that never comes.
            if !matches!(
                view.state,
                view::ChannelState::Closed(view::Closed::Refused)
            ) {
                broken.push(format!("{} is a member but {:?}", agent.name, view.state));
            }
            continue;
        }
        if (view.epoch.0, view.cursor.0) != (log.epoch(), log.records.len() as u64) {
            broken.push(format!(
                "{} is at epoch {} place {}, the log at {} {}",
                agent.name,
                view.epoch,
                view.cursor,
                log.epoch(),
                log.records.len()
            ));
        }
        words.insert(view::words(&agent.vault, log.channel).unwrap());
    }
    if words.len() > 1 {
        broken.push("members of one channel have different words".into());
    }
}

/// I1, I9: what is in the log for a member is in its inbox, once, in order.
fn messages_arrive_once_and_in_order(world: &World, log: &Log, broken: &mut Vec<String>) {
    for agent in &world.agents {
        let got = inbox::look(&agent.vault, Some(log.channel), 0, 1_000_000).unwrap();
        let seqs: Vec<u64> = got.iter().map(|message| message.seq.0).collect();
        if !seqs.is_sorted_by(|a, b| a < b) {
            broken.push(format!("{} has messages out of order or twice", agent.name));
        }
        let ids: BTreeSet<_> = got.iter().map(|message| message.id).collect();
        if ids.len() != got.len() {
            broken.push(format!(
                "{} has a message twice under two places",
                agent.name
            ));
        }
        let Some(stays) = log.stays.get(&agent.id) else {
            if !got.is_empty() {
                broken.push(format!(
                    "{} read a channel that it was never in",
                    agent.name
                ));
            }
            continue;
        };
        let views = view::channels(&agent.vault).unwrap();
        let active = views
            .iter()
            .any(|view| view.id == log.channel && view.state == view::ChannelState::Active);
        let within = |seq: u64| {
            stays
                .iter()
                .any(|(from, to)| seq > from.0 && to.is_none_or(|to| seq < to.0))
        };
        for message in &got {
            if !within(message.seq.0) {
                broken.push(format!(
                    "{} read {} while it was not a member",
                    agent.name, message.seq
                ));
            }
            let (_, _, record) = &log.records[usize::try_from(message.seq.0 - 1).unwrap()];
            if record.agent != message.sender || record.id != message.id {
                broken.push(format!(
                    "{} takes {} for somebody else's",
                    agent.name, message.seq
                ));
            }
        }
        let Some((from, None)) = stays.last().copied().filter(|_| active) else {
            continue;
        };
        let expected: Vec<u64> = log
            .records
            .iter()
            .filter(|(seq, _, record)| {
                record.kind == Kind::Application && record.agent != agent.id && *seq > from
            })
            .map(|(seq, _, _)| seq.0)
            .collect();
        let last: Vec<u64> = seqs.into_iter().filter(|seq| *seq > from.0).collect();
        if last != expected {
            broken.push(format!("{} has {last:?} of {expected:?}", agent.name));
        }
    }
}

/// A message arrives as it was sent, by whom it was sent.
fn messages_say_what_was_said(world: &mut World, log: &Log, broken: &mut Vec<String>) {
    for agent in &world.agents {
        for got in inbox::look(&agent.vault, Some(log.channel), 0, 1_000_000).unwrap() {
            let Some(said) = world.script.said.get(&got.id) else {
                broken.push(format!("{} has a message that nobody sent", agent.name));
                continue;
            };
            let heard = Draft {
                content_type: got.content_type,
                in_reply_to: got.in_reply_to,
                headers: got.headers,
                payload: got.payload,
                // How it left is not told.
                now: said.now,
            };
            if heard != *said {
                broken.push(format!("{} has {} altered", agent.name, got.seq));
            }
            if said.in_reply_to.is_some() {
                world.counters.count("message: an answer");
            }
            if !said.headers.is_empty() {
                world.counters.count("message: with headers");
            }
        }
    }
}

/// I1, I12: what a sender was told is stored stands in the log, at the place that it was told.
fn nothing_acknowledged_is_lost(world: &World, log: &Log, broken: &mut Vec<String>) {
    for ((channel, id), (sender, seq)) in &world.script.stored {
        if *channel != log.channel {
            continue;
        }
        let stored = log.records.iter().any(|(at, _, record)| {
            at == seq
                && record.agent == *sender
                && record.id == *id
                && record.kind == Kind::Application
        });
        if !stored {
            broken.push(format!(
                "{} was told that {id:?} is stored at {seq}, where it is not",
                world.id_of(sender)
            ));
        }
    }
}

/// I15: a vault opens nothing that it has read already, in this epoch or an earlier one.
fn what_was_read_stays_closed(world: &World, log: &Log, broken: &mut Vec<String>) {
    for agent in &world.agents {
        let views = view::channels(&agent.vault).unwrap();
        let Some(view) = views.iter().find(|view| view.id == log.channel) else {
            continue;
        };
        let read: Vec<(Seq, Blob)> = log
            .records
            .iter()
            .filter(|(seq, _, _)| *seq <= view.cursor)
            .map(|(seq, bytes, _)| (*seq, bytes.clone()))
            .collect();
        let tried = audit::try_open(&agent.vault, log.channel, &read).unwrap();
        let opened = tried.iter().filter(|tried| tried.opened).count();
        if opened > 0 {
            broken.push(format!("{} opened {opened} records again", agent.name));
        }
    }
}

/// I6: whoever was removed opens nothing sequenced later, with everything that it still has.
fn the_removed_read_nothing_later(world: &World, log: &Log, broken: &mut Vec<String>) {
    for (agent, stays) in &log.stays {
        let Some((_, Some(removed))) = stays.last() else {
            continue;
        };
        let Some(agent) = world.agents.iter().find(|known| known.id == *agent) else {
            broken.push(format!("{} was removed", world.id_of(agent)));
            continue;
        };
        let later: Vec<(Seq, Blob)> = log
            .records
            .iter()
            .filter(|(seq, _, _)| seq > removed)
            .map(|(seq, bytes, _)| (*seq, bytes.clone()))
            .collect();
        let tried = audit::try_open(&agent.vault, log.channel, &later).unwrap();
        let opened = tried.iter().filter(|tried| tried.opened).count();
        if opened > 0 {
            broken.push(format!(
                "{} opened {opened} records after its removal",
                agent.name
            ));
        }
    }
}

/// Trying every record again costs as much as the rest of a schedule: one in so many does.
const READ_AGAIN_EVERY: u64 = 8;
