//! The relay's mind: who is connected, who is in which channel, which commit comes first.
//!
//! Pure: frames, permits and answers of the store come in, frames and writes go out. It never
//! reads a clock, draws a number or touches a socket, so that a simulation can run it. What it
//! knows of a channel is its roster, its epoch and its head; it cannot read a message.
//!
//! Places and epochs are given in memory at once, so that writes can be pipelined; nothing that
//! depends on a write leaves before its [`Input::Stored`]. A refusal that depends on a write on
//! its way waits for it too: were the write to fail, the refusal would have been wrong.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use skytale_wire::{
    frame::{ToAgent, ToRelay},
    id::{AgentId, ChannelId, RelayKey, Seq, Time},
    refusal::Refusal,
};

use crate::{
    archive::{ArchiveError, StoredChannel},
    limits::Limits,
};

mod channel;
mod connections;
mod counters;
mod invites;
mod key_packages;
mod ledger;
mod mailbox;
mod meter;
mod owned;
mod rates;
mod retention;
mod revoked;
mod roster;
mod sequencer;
mod slim;
mod step;
mod subscriptions;
#[cfg(test)]
mod tests;

pub use counters::{Counters, SlimCounters};
pub use ledger::RequestKey;
pub use owned::Owned;
pub use revoked::Payer;
pub use slim::{RELAY_NAME, SlimDrop, SlimPresented, SlimRight, SlimRules};
pub use step::{Answer, Conn, Input, Lane, Output, Presented, Query, Right, Ticket};

use channel::Channel;
use connections::Connection;
use ledger::Ledger;
use meter::Meter;
use rates::Rates;
use revoked::Shut;
pub(crate) use slim::slim_message_in;
use slim::{Slim, StoredSlim};

/// How a hub is set up.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// The relay's own key, which guests sign.
    pub relay: RelayKey,
    /// What agents may ask for.
    pub limits: Limits,
    /// Whether agents without an account may join by invite.
    pub guests: bool,
    /// How long application messages are kept.
    pub retention_ms: u64,
    /// What holds for SLIM.
    pub slim: SlimRules,
    /// Whether it counts what accounts use, for an API server that takes reports of it.
    pub meters: bool,
}

/// The relay's mind. The driver owns the one there is and calls it from one thread.
pub struct Hub {
    config: HubConfig,
    channels: HashMap<ChannelId, Channel>,
    /// In which channels an agent is or was a member.
    memberships: HashMap<AgentId, BTreeSet<ChannelId>>,
    /// The channels that an account pays for, because it has created them.
    owned: HashMap<String, BTreeSet<ChannelId>>,
    conns: BTreeMap<Conn, Connection>,
    /// The one line of each agent that is ready.
    lines: HashMap<AgentId, Conn>,
    /// Where a request was refused for the moment: what the same agent publishes behind it waits
    /// until it begins again, so that its messages keep their order.
    held: BTreeSet<(Conn, ChannelId)>,
    ledger: Ledger,
    rates: Rates,
    timers: BTreeSet<(Time, Timer)>,
    slim: Slim,
    shut: Shut,
    counters: Counters,
    meter: Meter,
}

/// What there is to do at a time. Stale ones are harmless: each looks again whether it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Permit(Conn),
    SlowReader(Conn),
    ReadAgain(Conn, ChannelId),
    SlimReadAgain(Conn, ChannelId),
    Retention,
    Sweep,
    Usage,
}

/// Whose request is handled, on which connection.
#[derive(Debug, Clone, Copy)]
struct Asking {
    conn: Conn,
    agent: AgentId,
}

impl Hub {
    /// A hub over what the archive holds.
    pub fn new(config: HubConfig, channels: Vec<StoredChannel>) -> Result<Self, ArchiveError> {
        let mut hub = Self {
            meter: Meter::new(config.meters),
            config,
            channels: HashMap::new(),
            memberships: HashMap::new(),
            owned: HashMap::new(),
            conns: BTreeMap::new(),
            lines: HashMap::new(),
            held: BTreeSet::new(),
            ledger: Ledger::default(),
            rates: Rates::default(),
            // Time zero is past: the first Tick looks what retention has to do.
            timers: BTreeSet::from([(Time(0), Timer::Retention), (Time(0), Timer::Sweep)]),
            slim: Slim::default(),
            shut: Shut::default(),
            counters: Counters::default(),
        };
        let (slim, channels) = split(channels);
        if hub.config.meters {
            hub.timers.insert((Time(0), Timer::Usage));
        }
        hub.channels = decode_channels(channels)?;
        hub.slim_load(decode_slim(slim)?);
        hub.rebuild_indexes();
        Ok(hub)
    }

    /// Goes back to what the archive holds, after a write has failed: whoever waits for a write
    /// is told `Unavailable`, connections stay, subscriptions read on from the archive. Until
    /// this has succeeded, every request that needs a write is refused.
    pub fn reload(
        &mut self,
        channels: Vec<StoredChannel>,
        now: Time,
        out: &mut Vec<Output>,
    ) -> Result<(), ArchiveError> {
        let from = out.len();
        self.meter.look_at(now);
        let (slim, channels) = split(channels);
        let fresh = decode_channels(channels)?;
        let slim = decode_slim(slim)?;
        self.fail_from(Ticket(0), out);
        let mut old = std::mem::replace(&mut self.channels, fresh);
        for (id, channel) in &mut self.channels {
            if let Some(before) = old.remove(id) {
                channel.take_over(before);
            }
        }
        // Created in memory only: whoever subscribed was told nothing yet.
        for (id, gone) in old {
            for subscriber in gone.subscribers {
                if let Some(connection) = self.conns.get_mut(&subscriber.conn) {
                    connection.channels.remove(&id);
                }
            }
        }
        self.rebuild_indexes();
        self.slim_load(slim);
        self.close_early_speakers(out);
        self.ledger.writable = true;
        self.resume_all(out);
        self.slim_resume_all(out);
        // Loading took its time: what has become due meanwhile happens now.
        self.tick(now, out);
        self.counters.count(&out[from..]);
        Ok(())
    }

    /// One step. What is to be done is added to `out`, in order.
    pub fn handle(&mut self, input: Input, now: Time, out: &mut Vec<Output>) {
        let from = out.len();
        self.meter.look_at(now);
        match input {
            Input::Opened { conn, presented } => self.opened(conn, presented, now, out),
            Input::SlimOpened { conn, presented } => self.slim_opened(conn, presented, now, out),
            Input::Slim {
                conn,
                message,
                earlier,
            } => self.slim_message(conn, &message, earlier, now, out),
            Input::SlimLost => self.slim_lost(),
            Input::Frame {
                conn,
                frame,
                earlier,
            } => self.frame(conn, frame, earlier, now, out),
            Input::Renewed { conn, id, right } => self.renewed(conn, id, right, now, out),
            Input::Revoked(revocation) => self.revoked(revocation, out),
            Input::Reported { number } => self.reported(number, out),
            Input::Ending => self.report_usage(now, out),
            Input::Gone { conn } => self.forget(conn),
            Input::Stored { ticket, written } => self.stored(ticket, written, out),
            Input::Failed { ticket } => self.fail_from(ticket, out),
            Input::Answered { conn, answer } => self.answered(conn, answer, now, out),
            Input::Full { conn } => self.full(conn, now),
            Input::Drained { conn } => self.drained(conn, out),
            Input::Tick => self.tick(now, out),
        }
        self.counters.count(&out[from..]);
    }

    /// When the next [`Input::Tick`] is due.
    pub fn next_wake(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// What has happened since the start, for the metrics.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Channels that there are.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    fn answered(&mut self, conn: Conn, answer: Answer, now: Time, out: &mut Vec<Output>) {
        match answer {
            Answer::Greeting {
                key_packages,
                welcomes,
            } => self.greeted(conn, key_packages, welcomes, now, out),
            Answer::Records {
                channel,
                after,
                records,
            } => self.records_read(conn, channel, after, records, now, out),
            Answer::HashAt { channel, seq, hash } => {
                self.subscribed(conn, channel, seq, hash, out);
            }
            Answer::Welcomes(frames) => self.welcomes_read(conn, &frames, out),
            Answer::GroupInfo { channel, sealed } => {
                self.group_info_read(conn, channel, sealed, now, out);
            }
            Answer::SlimRecords {
                log,
                after,
                records,
            } => self.slim_records_read(conn, log, after, &records, now, out),
            Answer::SlimRecord(record) => self.slim_record_read(conn, record.as_ref(), out),
            Answer::Unreadable(query) => self.unreadable(conn, &query, now, out),
        }
    }

    fn unreadable(&mut self, conn: Conn, query: &Query, now: Time, out: &mut Vec<Output>) {
        match *query {
            Query::Greeting { .. } => self.close(conn, Refusal::Unavailable, true, out),
            Query::Records { channel, after, .. } => {
                self.records_read(conn, channel, after, Vec::new(), now, out);
            }
            Query::HashAt { channel, .. } => self.subscribe_failed(conn, channel, out),
            // The agent asks again: the Welcomes lie where they lay.
            Query::Welcomes { .. } => {}
            Query::GroupInfo { channel } => {
                self.refuse_takes(conn, channel, Refusal::Unavailable, out);
            }
            Query::SlimRecords { log, after, .. } => {
                self.slim_records_read(conn, log, after, &[], now, out);
            }
            Query::SlimRecord { .. } => self.slim_record_read(conn, None, out),
        }
    }

    fn frame(
        &mut self,
        conn: Conn,
        frame: ToRelay,
        earlier: Option<Seq>,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return; // It was closed while the frame was on its way.
        };
        if connection
            .permit
            .has_ended(now, self.config.limits.leeway_ms)
        {
            return self.close(conn, Refusal::TokenExpired, true, out);
        }
        if !connection.ready {
            if connection.early.len() >= EARLY_FRAMES_MAX {
                return self.close(conn, Refusal::LimitReached, true, out);
            }
            connection.early.push((frame, earlier));
            return;
        }
        let who = Asking {
            conn,
            agent: connection.agent,
        };
        let rate = self.config.limits.frames;
        if !self.rates.of(who.agent).frames.take(rate, 1, now) {
            self.hold_behind(who.conn, &frame);
            return Self::refuse_frame(who, &frame, Refusal::RateLimited, out);
        }
        match frame {
            // The edge takes the Hello; a second one is a mistake of the peer.
            ToRelay::Hello(_) => self.close(conn, Refusal::Malformed, false, out),
            ToRelay::Create(create) => self.create(who, &create, now, out),
            ToRelay::Publish(publish) => self.publish(who, publish, earlier, now, out),
            ToRelay::Commit(commit) => self.commit(who, commit, earlier, now, out),
            ToRelay::Leave(leave) => self.leave(who, &leave, earlier, now, out),
            ToRelay::Subscribe(subscribe) => self.subscribe(who, &subscribe, now, out),
            ToRelay::PutKeyPackages(put) => self.put_key_packages(who, put, now, out),
            ToRelay::TakeKeyPackage(take) => self.take_key_package(who, &take, now, out),
            ToRelay::TakeWelcome(_) => self.take_welcome(who, out),
            ToRelay::Welcomed(welcomed) => self.welcomed(who, &welcomed, out),
            ToRelay::TakeGroupInfo(take) => self.take_group_info(who, &take, now, out),
            ToRelay::WantGroupInfo(want) => self.want_group_info(who, &want, now, out),
            ToRelay::SealGroupInfo(seal) => self.seal_group_info(who, seal, now, out),
            ToRelay::Seen(seen) => self.seen(who, &seen),
            // The edge checks the credential and hands in `Renewed`.
            ToRelay::Renew(_) => {}
            ToRelay::Ping(ping) => send(
                conn,
                ToAgent::Pong(skytale_wire::frame::Pong { id: ping.id }),
                out,
            ),
            ToRelay::SlimSubscribe(subscribe) => self.slim_native_subscribe(who, &subscribe, out),
            ToRelay::TakeSlimLogs(take) => self.slim_take_logs(who, &take, out),
            ToRelay::SlimUnsubscribe(end) => self.slim_native_unsubscribe(who, &end),
            ToRelay::SlimPublish(publish) => {
                self.slim_native_publish(who, &publish, earlier, now, out);
            }
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Permit(conn) => self.check_permit(conn, now, out),
                Timer::SlowReader(conn) => self.check_progress(conn, now, out),
                Timer::ReadAgain(conn, channel) => self.read_again(conn, channel, out),
                Timer::SlimReadAgain(conn, log) => self.slim_read_again(conn, log, out),
                Timer::Retention => self.prune(now, out),
                Timer::Sweep => {
                    self.rates.sweep(&self.config.limits, now);
                    self.shut.sweep(now);
                    self.timers.insert((now.plus(SWEEP_MS), Timer::Sweep));
                }
                Timer::Usage => self.meter_tick(now, out),
            }
        }
    }

    /// Whether this connection's permit reaches this channel. Membership is another question.
    fn covers(&self, conn: Conn, channel: &ChannelId) -> bool {
        self.conns
            .get(&conn)
            .is_some_and(|connection| connection.permit.covers(channel))
    }

    fn rebuild_indexes(&mut self) {
        self.memberships.clear();
        self.owned.clear();
        for (id, channel) in &self.channels {
            for agent in channel.kept.roster.everybody() {
                self.memberships.entry(*agent).or_default().insert(*id);
            }
            let owned = self.owned.entry(channel.kept.owner.clone()).or_default();
            owned.insert(*id);
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("channels", &self.channels.len())
            .field("connections", &self.conns.len())
            .finish_non_exhaustive()
    }
}

/// Rows of SLIM, and channels.
fn split(stored: Vec<StoredChannel>) -> (Vec<StoredChannel>, Vec<StoredChannel>) {
    stored
        .into_iter()
        .partition(|row| slim::is_slim(&row.state))
}

fn decode_slim(
    stored: Vec<StoredChannel>,
) -> Result<Vec<(StoredChannel, StoredSlim)>, ArchiveError> {
    stored
        .into_iter()
        .map(|row| {
            let kept = StoredSlim::read(&row)?;
            Ok((row, kept))
        })
        .collect()
}

fn decode_channels(
    stored: Vec<StoredChannel>,
) -> Result<HashMap<ChannelId, Channel>, ArchiveError> {
    stored
        .into_iter()
        .map(|stored| Ok((stored.channel, Channel::from_stored(&stored)?)))
        .collect()
}

fn send(conn: Conn, frame: ToAgent, out: &mut Vec<Output>) {
    out.push(Output::Send {
        conn,
        lane: Lane::Live,
        frame,
    });
}

/// Frames that may come before Ready has gone out; a peer that sends more is closed.
const EARLY_FRAMES_MAX: usize = 64;
/// How often buckets that are full again are forgotten.
const SWEEP_MS: u64 = 60_000;
