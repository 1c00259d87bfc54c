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
    sync::Arc,
};

use bytes::Bytes;
use skytale_slim::{Onward, Routed};
use skytale_wire::{
    frame::{Deliver, GuestProof, ToAgent, ToRelay},
    http::Revocation,
    id::{AgentId, ChannelId, Digest, MessageId, RelayKey, Seq, Time, TransportKey},
    refusal::Refusal,
};

use crate::{
    archive::{
        ArchiveError, KeyPackagesLeft, SealedGroupInfo, StoredChannel, StoredRecord, Write,
        Written, usage::Report,
    },
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
mod subscriptions;
#[cfg(test)]
mod tests;

pub use counters::{Counters, SlimCounters};
pub use ledger::RequestKey;
pub use owned::Owned;
pub use revoked::Payer;
pub use slim::{RELAY_NAME, SlimDrop, SlimPresented, SlimRight, SlimRules};

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

/// One connection, numbered by the driver, never used twice in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn(pub u64);

/// One write on its way to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Which of a connection's two streams a frame takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Answers and what is new.
    Live,
    /// What is read from the archive, at lower priority.
    CatchUp,
}

/// An agent whose identity the edge has proved, with what lets it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// Who.
    pub agent: AgentId,
    /// The connection's key.
    pub transport: TransportKey,
    /// By what right.
    pub right: Right,
}

/// By what right an agent is here. The edge has checked tokens; the hub checks the other two,
/// because only it knows invites and rosters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    /// A checked token of an account.
    Account {
        /// Whose usage this counts to.
        payer: Payer,
        /// The token's end.
        expires: Time,
    },
    /// A guest that shows an invite: that channel only.
    Invite(GuestProof),
    /// A guest that has joined before: the channels whose roster names it.
    Member,
}

/// What happens to the hub.
#[derive(Debug, Clone)]
pub enum Input {
    /// A connection has said Hello and proved its identity.
    Opened {
        /// Which.
        conn: Conn,
        /// Who.
        presented: Presented,
    },
    /// A frame has come. `earlier` is what the archive knows under the frame's (channel, agent,
    /// id): the driver looks it up for Publish, Commit and Leave before it hands the frame in. The
    /// answer may be a little old: the hub knows by itself what is on its way to the store and
    /// the last 16,384 records that were stored. Across a failed write it may not be older than
    /// the reload, because a write that failed may have been written all the same.
    Frame {
        /// From which connection.
        conn: Conn,
        /// The frame; never a Hello.
        frame: ToRelay,
        /// Where the same request was stored earlier.
        earlier: Option<Seq>,
    },
    /// A SLIM stream has begun, and its token was checked.
    SlimOpened {
        /// Which.
        conn: Conn,
        /// With what.
        presented: SlimPresented,
    },
    /// A message has come over a SLIM stream whose header was made for it. `earlier` is what the
    /// archive knows under one of [`Hub::slim_keys`], as for [`Input::Frame`]; native agents'
    /// messages come as frames.
    Slim {
        /// Over which.
        conn: Conn,
        /// The message.
        message: Box<Routed>,
        /// Where the same one was stored earlier.
        earlier: Option<Seq>,
    },
    /// A message has come over a SLIM stream, and the archive could not be asked for it.
    SlimLost,
    /// A new token on a living connection, checked by the edge.
    Renewed {
        /// Which.
        conn: Conn,
        /// Answers this request.
        id: MessageId,
        /// The result of the check.
        right: Result<Right, Refusal>,
    },
    /// An issuer has shut somebody out.
    Revoked(Revocation),
    /// The API server has taken the report of this number.
    Reported {
        /// Which.
        number: u64,
    },
    /// The relay is about to end: what was counted is written.
    Ending,
    /// A connection is gone.
    Gone {
        /// Which.
        conn: Conn,
    },
    /// A write is durable.
    Stored {
        /// Which.
        ticket: Ticket,
        /// What it gave back.
        written: Written,
    },
    /// A write and everything handed to the store after it has failed. The heads of all channels
    /// must be loaded again before the next write: the driver calls [`Hub::reload`].
    Failed {
        /// Which.
        ticket: Ticket,
    },
    /// The answer to an [`Output::Read`].
    Answered {
        /// For which connection.
        conn: Conn,
        /// What was found.
        answer: Answer,
    },
    /// A connection's outbound queue is over its limit: live pushes stop, its channels fall
    /// behind and are read from the archive later.
    Full {
        /// Which.
        conn: Conn,
    },
    /// The queue has room again.
    Drained {
        /// Which.
        conn: Conn,
    },
    /// Time has passed.
    Tick,
}

/// What the hub wants done, in this order.
#[derive(Debug, Clone)]
pub enum Output {
    /// One frame for one connection.
    Send {
        /// To which.
        conn: Conn,
        /// By which stream.
        lane: Lane,
        /// What.
        frame: ToAgent,
    },
    /// The same record for many connections: encode it once.
    Deliver {
        /// To which.
        conns: Vec<Conn>,
        /// What.
        frame: Deliver,
    },
    /// Hand to the store, in this order.
    Store {
        /// To be given back in `Stored` or `Failed`.
        ticket: Ticket,
        /// What.
        write: Write,
    },
    /// Look up in the store and answer with `Answered`.
    Read {
        /// For which connection.
        conn: Conn,
        /// What.
        query: Query,
    },
    /// The same SLIM message for many SLIM streams: each signs it for itself.
    SlimDeliver {
        /// To which.
        conns: Vec<Conn>,
        /// What.
        onward: Arc<Onward>,
    },
    /// An answer to a subscription, for one SLIM stream.
    SlimAck {
        /// To which.
        conn: Conn,
        /// What, complete.
        bytes: Bytes,
    },
    /// Tell the API server, again and again until it has taken it.
    Report(Report),
    /// Send `Closing` and end the connection.
    Close {
        /// Which.
        conn: Conn,
        /// Why.
        refusal: Refusal,
        /// Whether connecting again makes sense.
        resume: bool,
    },
}

/// A question to the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// What Ready says about an agent.
    Greeting {
        /// Whose.
        agent: AgentId,
    },
    /// Records of a channel, for a subscription that is behind.
    Records {
        /// Which channel.
        channel: ChannelId,
        /// The last one sent.
        after: Seq,
        /// At most so many.
        count_max: usize,
        /// At most so many bytes.
        bytes_max: usize,
    },
    /// The log hash where a subscriber stands.
    HashAt {
        /// Which channel.
        channel: ChannelId,
        /// The subscriber's cursor.
        seq: Seq,
    },
    /// The Welcomes of an agent.
    Welcomes {
        /// Whose.
        agent: AgentId,
    },
    /// The sealed `GroupInfo` of a channel.
    GroupInfo {
        /// Which channel.
        channel: ChannelId,
    },
    /// Records of the log of a SLIM name, of which older ones may be gone.
    SlimRecords {
        /// Which log.
        log: ChannelId,
        /// The last one sent.
        after: Seq,
        /// At most so many.
        count_max: usize,
        /// At most so many bytes, beyond the first.
        bytes_max: usize,
    },
    /// One record by its name, in the first of these logs that has it.
    SlimRecord {
        /// Which logs.
        logs: Vec<ChannelId>,
        /// Who sent it.
        agent: AgentId,
        /// Its name.
        id: MessageId,
    },
}

/// What the archive said. Each variant repeats what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Query::Greeting`].
    Greeting {
        /// `KeyPackages` left.
        key_packages: KeyPackagesLeft,
        /// Welcomes waiting.
        welcomes: u32,
    },
    /// To [`Query::Records`].
    Records {
        /// Which channel.
        channel: ChannelId,
        /// What was asked.
        after: Seq,
        /// Contiguous from `after` on; empty at the durable head.
        records: Vec<StoredRecord>,
    },
    /// To [`Query::HashAt`].
    HashAt {
        /// Which channel.
        channel: ChannelId,
        /// What was asked.
        seq: Seq,
        /// The hash, when it is still known.
        hash: Option<Digest>,
    },
    /// To [`Query::Welcomes`]: encoded [`skytale_wire::frame::Welcome`] frames.
    Welcomes(Vec<Bytes>),
    /// To [`Query::GroupInfo`].
    GroupInfo {
        /// Which channel.
        channel: ChannelId,
        /// What is kept.
        sealed: Option<SealedGroupInfo>,
    },
    /// To [`Query::SlimRecords`].
    SlimRecords {
        /// Which log.
        log: ChannelId,
        /// What was asked.
        after: Seq,
        /// In order; empty at the durable head.
        records: Vec<StoredRecord>,
    },
    /// To [`Query::SlimRecord`].
    SlimRecord(Option<StoredRecord>),
    /// The archive could not read.
    Unreadable(Query),
}
