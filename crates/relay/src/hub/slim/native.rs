//! Native agents at SLIM's names.
//!
//! A subscription without a cursor is what SLIM's own are: routed, in its turn when one of several
//! is meant, gone when there is no room. One with a cursor follows the log of its name besides: it
//! gets every record there once and in order, whoever else got it, and the archive is its queue.
//! It reads along: what is for any one of several is its own only if nobody else is there.
//!
//! ```text
//! Behind → Reading → Behind → … → Live
//!    ▲                             │
//!    └─────── full, reload ────────┘
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
};

use skytale_slim::{Address, Components, Full, Instance, LinkId, Routed, SubscriptionId};
use skytale_wire::{
    Blob,
    envelope::Envelope,
    frame::{
        SLIM_LOGS_MAX, SLIM_MESSAGE_BYTES_MAX, SlimDeliver, SlimLog, SlimLogs, SlimPublish,
        SlimSubscribe, SlimSubscribed, SlimUnsubscribe, TakeSlimLogs, ToAgent, decode,
    },
    id::{ChannelId, Seq, Time},
    refusal::Refusal,
};

use super::{
    Conn, Hub, Output, Parcel, Place, SlimDrop, address, generation_of,
    log::{Followers, generation_in},
    log_of, wire_generation, wire_name,
};
use crate::{
    archive::StoredRecord,
    hub::{Asking, Query, Timer, ledger::nack, send},
};

/// What one native line is subscribed to.
#[derive(Debug, Default)]
pub(super) struct Native {
    names: BTreeMap<Address, Subscription>,
    /// Names whose logs are to be read from the archive, and whose turn comes in this order.
    behind: VecDeque<Address>,
    /// Reads that have not been answered.
    reading: usize,
}

#[derive(Debug, Clone, Copy)]
enum Subscription {
    /// What is routed to it.
    Routed,
    /// The log as well: where it is, and what it waits for.
    Follows { sent: Seq, state: State },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waits for its turn to read, or for room in the line's queue.
    Behind,
    /// One read is on its way.
    Reading,
    /// Gets each record as it becomes durable.
    Live,
}

impl Hub {
    pub(in crate::hub) fn slim_native_subscribe(
        &mut self,
        who: Asking,
        frame: &SlimSubscribe,
        out: &mut Vec<Output>,
    ) {
        match self.slim_try_native_subscribe(who, frame, out) {
            Err(refusal) => send(who.conn, nack(frame.id, None, refusal), out),
            Ok(subscribed) => {
                send(who.conn, ToAgent::SlimSubscribed(subscribed), out);
                self.slim_pump(who.conn, out);
            }
        }
    }

    pub(in crate::hub) fn slim_native_unsubscribe(&mut self, who: Asking, frame: &SlimUnsubscribe) {
        let Some(address) = address(&frame.name) else {
            return;
        };
        if let Some(native) = self.slim.natives.get_mut(&who.conn)
            && native.names.remove(&address).is_some()
        {
            let link = LinkId(who.conn.0);
            for table in self.slim.tables() {
                table.unsubscribe(link, address, SubscriptionId::NONE);
            }
            self.slim.unfollow(who.conn, log_of(address));
        }
    }

    pub(in crate::hub) fn slim_native_publish(
        &mut self,
        who: Asking,
        frame: &SlimPublish,
        earlier: Option<Seq>,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let rate = self.config.limits.publishes;
        let read = slim_message_in(frame).and_then(|message| {
            // Subscriptions have frames of their own.
            let session = message.session().ok_or(Refusal::Malformed)?;
            Ok((message, session))
        });
        let taken = read.and_then(|read| {
            let publishes = &mut self.rates.of(who.agent).publishes;
            let granted = publishes.take(rate, 1, now);
            granted.then_some(read).ok_or(Refusal::RateLimited)
        });
        match taken {
            Err(refusal) => send(who.conn, nack(frame.id, None, refusal), out),
            Ok((message, session)) => {
                let asked = Some(frame.id);
                self.slim_publish(who.conn, &message, session, earlier, asked, now, out);
            }
        }
    }

    pub(in crate::hub) fn slim_take_logs(
        &mut self,
        who: Asking,
        frame: &TakeSlimLogs,
        out: &mut Vec<Output>,
    ) {
        let components = Components(frame.components);
        if let Err(denied) = self.slim_allow(who.conn, &[components], out) {
            return send(who.conn, nack(frame.id, None, denied.refusal()), out);
        }
        let at = |instance| Address {
            components,
            instance,
        };
        let from = match frame.after {
            None => Bound::Included(at(Instance::Any)),
            Some(after) => Bound::Excluded(at(Instance::Only(after.number()))),
        };
        let to = Bound::Included(at(Instance::Only(u128::MAX)));
        let names = self.slim.names.range((from, to)).take(SLIM_LOGS_MAX);
        let logs = names
            .filter_map(|(name, id)| {
                let log = self.slim.logs.get(id)?;
                Some(SlimLog {
                    instance: wire_name(*name).instance,
                    head: log.durable,
                    pruned: log.pruned,
                })
            })
            .collect();
        let id = frame.id;
        send(who.conn, ToAgent::SlimLogs(SlimLogs { id, logs }), out);
    }

    /// Hands a message over that was routed to a native line.
    pub(super) fn slim_to_native(&mut self, conn: Conn, parcel: &Parcel, out: &mut Vec<Output>) {
        let native = self.slim.natives.get(&conn);
        let subscription = native.and_then(|native| native.names.get(&parcel.destination));
        let follows = matches!(subscription, Some(Subscription::Follows { .. }));
        if follows && parcel.place != Place::Nowhere {
            return; // It has it from the log.
        }
        let place = match parcel.place {
            Place::Nowhere | Place::Before => None,
            Place::At(seq) => Some(seq),
        };
        let full = self
            .conns
            .get(&conn)
            .is_none_or(|it| it.full_since.is_some());
        if full {
            self.slim_dropped(SlimDrop::NoRoom, 1);
        } else {
            self.slim_push(conn, parcel, place, out);
        }
    }

    /// Hands a record that is durable to everybody who follows its log and is level with it.
    pub(super) fn slim_to_followers(
        &mut self,
        log: ChannelId,
        parcel: &Parcel,
        out: &mut Vec<Output>,
    ) {
        let Place::At(seq) = parcel.place else {
            return;
        };
        let followers: Vec<Conn> = match self.slim.followers.get(&log) {
            Some(followers) => followers.iter().copied().collect(),
            None => return,
        };
        for conn in followers {
            let full = self
                .conns
                .get(&conn)
                .is_none_or(|it| it.full_since.is_some());
            let Some(native) = self.slim.natives.get_mut(&conn) else {
                continue;
            };
            let Some(Subscription::Follows { sent, state }) =
                native.names.get_mut(&parcel.destination)
            else {
                continue;
            };
            if *state != State::Live || *sent >= seq {
                continue;
            }
            if full || sent.next() != seq {
                *state = State::Behind;
                native.behind.push_back(parcel.destination);
                self.slim_pump(conn, out);
            } else {
                *sent = seq;
                self.slim_push(conn, parcel, Some(seq), out);
            }
        }
    }

    /// One message for one native line, if it fits into a frame.
    pub(super) fn slim_push(
        &mut self,
        conn: Conn,
        parcel: &Parcel,
        seq: Option<Seq>,
        out: &mut Vec<Output>,
    ) {
        if parcel.original.len() > SLIM_MESSAGE_BYTES_MAX {
            return self.slim_dropped(SlimDrop::TooLarge, 1);
        }
        self.counters.slim.delivered += 1;
        if parcel.counts {
            self.meter.handed(conn, 1, None);
        }
        let frame = ToAgent::SlimDeliver(SlimDeliver {
            name: wire_name(parcel.destination),
            seq,
            generation: wire_generation(parcel.generation),
            message: Blob(parcel.original.clone()),
        });
        send(conn, frame, out);
    }

    /// Records of a log have been read, or could not be when there are none though there must be
    /// some.
    pub(in crate::hub) fn slim_records_read(
        &mut self,
        conn: Conn,
        id: ChannelId,
        after: Seq,
        records: &[StoredRecord],
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let log = self.slim.logs.get(&id);
        let found = log.and_then(|log| Some((log.name()?, log.durable, log.pruned)));
        let Some(native) = self.slim.natives.get_mut(&conn) else {
            return;
        };
        native.reading = native.reading.saturating_sub(1);
        if let Some((address, durable, pruned)) = found
            && let Some(Subscription::Follows { sent, state }) = native.names.get_mut(&address)
            && *state == State::Reading
            && *sent == after
        {
            let name = wire_name(address);
            let mut too_large = 0;
            // What is gone is gone: the next place says how much.
            *sent = pruned.max(*sent);
            for StoredRecord { seq, record } in records {
                *sent = *seq;
                match read_record(record) {
                    Some((generation, message)) if message.len() <= SLIM_MESSAGE_BYTES_MAX => {
                        let frame = ToAgent::SlimDeliver(SlimDeliver {
                            name,
                            seq: Some(*seq),
                            generation,
                            message,
                        });
                        self.counters.slim.caught_up += 1;
                        self.meter.handed(conn, 1, None);
                        send(conn, frame, out);
                    }
                    Some(_) | None => too_large += 1,
                }
            }
            *state = State::Behind;
            if records.is_empty() && *sent < durable {
                let again = (now.plus(READ_AGAIN_MS), Timer::SlimReadAgain(conn, id));
                self.timers.insert(again);
            } else {
                native.behind.push_back(address);
            }
            if too_large > 0 {
                self.slim_dropped(SlimDrop::TooLarge, too_large);
            }
        }
        self.slim_pump(conn, out);
    }

    /// Gives a log that could not be read its turn again.
    pub(in crate::hub) fn slim_read_again(
        &mut self,
        conn: Conn,
        id: ChannelId,
        out: &mut Vec<Output>,
    ) {
        let name = self.slim.logs.get(&id).and_then(super::Log::name);
        if let Some(name) = name
            && let Some(native) = self.slim.natives.get_mut(&conn)
        {
            native.behind.push_back(name);
        }
        self.slim_pump(conn, out);
    }

    /// Lets what a line follows go on while there is room: a read for each log that has something
    /// to read, live for each that has not.
    ///
    /// All of it takes the live lane, on which nothing is overtaken: what a reader of a log relies
    /// on is the order.
    pub(in crate::hub) fn slim_pump(&mut self, conn: Conn, out: &mut Vec<Output>) {
        let full = self
            .conns
            .get(&conn)
            .is_none_or(|it| it.full_since.is_some());
        let Some(native) = self.slim.natives.get_mut(&conn) else {
            return;
        };
        while !full && native.reading < READS_MAX {
            let Some(name) = native.behind.pop_front() else {
                return;
            };
            let id = log_of(name);
            let durable = self.slim.logs.get(&id).map_or(Seq(0), |log| log.durable);
            let Some(Subscription::Follows { sent, state }) = native.names.get_mut(&name) else {
                continue;
            };
            if *state != State::Behind {
                continue;
            }
            if *sent >= durable {
                *state = State::Live;
            } else {
                *state = State::Reading;
                native.reading += 1;
                out.push(Output::Read {
                    conn,
                    query: Query::SlimRecords {
                        log: id,
                        after: *sent,
                        count_max: READ_RECORDS_MAX,
                        bytes_max: READ_BYTES_MAX,
                    },
                });
            }
        }
    }

    /// The line has no room: what it follows live falls behind.
    pub(in crate::hub) fn slim_stop_live(&mut self, conn: Conn) {
        if let Some(native) = self.slim.natives.get_mut(&conn) {
            native.fall_behind(|_, sent| sent);
        }
    }

    /// After a reload: whoever was live reads on from the archive, because what was not
    /// acknowledged may have been written all the same.
    pub(in crate::hub) fn slim_resume_all(&mut self, out: &mut Vec<Output>) {
        let logs = &self.slim.logs;
        for native in self.slim.natives.values_mut() {
            native.fall_behind(|id, sent| {
                let durable = logs.get(&id).map_or(Seq(0), |log| log.durable);
                sent.min(durable)
            });
        }
        let conns: Vec<Conn> = self.slim.natives.keys().copied().collect();
        for conn in conns {
            self.slim_pump(conn, out);
        }
    }

    pub(super) fn slim_forget_native(&mut self, conn: Conn) {
        let Some(native) = self.slim.natives.remove(&conn) else {
            return;
        };
        for name in native.names.keys() {
            self.slim.unfollow(conn, log_of(*name));
        }
    }

    fn slim_try_native_subscribe(
        &mut self,
        who: Asking,
        frame: &SlimSubscribe,
        out: &mut Vec<Output>,
    ) -> Result<SlimSubscribed, Refusal> {
        let name = address(&frame.name).ok_or(Refusal::Malformed)?;
        self.slim_allow(who.conn, &[name.components], out)
            .map_err(super::rights::Denied::refusal)?;
        let most = self.config.limits.subscriptions_max;
        let native = self.slim.natives.entry(who.conn).or_default();
        if !native.names.contains_key(&name) && native.names.len() >= most {
            return Err(Refusal::LimitReached);
        }
        let link = LinkId(who.conn.0);
        let slim = &mut self.slim;
        slim.enter(link, name, frame.after.is_some())
            .map_err(|Full| Refusal::LimitReached)?;
        let id = log_of(name);
        let log = slim.logs.get(&id);
        let (head, pruned) = log.map_or_else(Default::default, |log| (log.durable, log.pruned));
        let subscription = match frame.after {
            None => {
                slim.unfollow(who.conn, id);
                Subscription::Routed
            }
            Some(after) => {
                slim.followers.entry(id).or_default().insert(who.conn);
                // A place that is not there yet is one of an earlier log of this name, which was
                // forgotten since: of this one the reader has nothing.
                let sent = if after > head { pruned } else { after };
                let state = State::Behind;
                Subscription::Follows { sent, state }
            }
        };
        let native = slim.natives.entry(who.conn).or_default();
        native.names.insert(name, subscription);
        if frame.after.is_some() {
            native.behind.push_back(name);
        }
        Ok(SlimSubscribed {
            id: frame.id,
            head,
            pruned,
        })
    }
}

impl Native {
    /// Lets all that it follows be read from the archive, from where `from` says.
    fn fall_behind(&mut self, from: impl Fn(ChannelId, Seq) -> Seq) {
        for (name, subscription) in &mut self.names {
            let Subscription::Follows { sent, state } = subscription else {
                continue;
            };
            let back = from(log_of(*name), *sent);
            if *state == State::Live || back != *sent {
                *sent = back;
                *state = State::Behind;
                self.behind.push_back(*name);
            }
        }
    }
}

impl super::Slim {
    /// Puts a native line among those who take part under a name, or among those who follow it.
    fn enter(&mut self, link: LinkId, name: Address, follows: bool) -> Result<(), Full> {
        const NONE: SubscriptionId = SubscriptionId::NONE;
        if follows {
            self.following.subscribe(link, name, NONE)?;
            self.one.unsubscribe(link, name, NONE);
            self.two.unsubscribe(link, name, NONE);
        } else {
            self.one.subscribe(link, name, NONE)?;
            self.two.subscribe(link, name, NONE)?;
            self.following.unsubscribe(link, name, NONE);
        }
        Ok(())
    }

    fn unfollow(&mut self, conn: Conn, log: ChannelId) {
        if let Some(followers) = self.followers.get_mut(&log) {
            followers.remove(&conn);
            if followers == &Followers::new() {
                self.followers.remove(&log);
            }
        }
    }
}

/// The message in a publication.
pub(crate) fn slim_message_in(frame: &SlimPublish) -> Result<Routed, Refusal> {
    if frame.message.len() > SLIM_MESSAGE_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let generation = generation_of(frame.generation).ok_or(Refusal::Malformed)?;
    Routed::from_archive(generation, frame.message.0.clone()).map_err(|_| Refusal::Malformed)
}

/// Generation and bytes of a stored message.
pub(super) fn read_record(record: &[u8]) -> Option<(u8, Blob)> {
    let envelope: Envelope = decode(record, record.len()).ok()?;
    let generation = generation_in(envelope.kind)?;
    Some((wire_generation(generation), envelope.body))
}

/// Reads of one line on their way at once.
const READS_MAX: usize = 2;
/// Records of one read.
const READ_RECORDS_MAX: usize = 256;
/// Bytes of one read, beyond its first record.
const READ_BYTES_MAX: usize = 128 * 1024;
/// After a read that failed.
const READ_AGAIN_MS: u64 = 1_000;
