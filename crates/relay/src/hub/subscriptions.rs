//! Who reads a channel, and how far each has come: live from what is stored at this moment, or
//! from the archive when it is behind.
//!
//! ```text
//! Subscribe → Greeting → Behind → Reading → Live
//!                          ▲  ▲─────┘ │       │
//!                          └──────────┴─ Full ┘
//! ```
//! The archive is the queue: a subscription holds a place and nothing else, so that whoever
//! reads slowly costs no memory and loses nothing. The two lanes may overtake one another; each
//! record carries its place, and each place is sent once.

use skytale_wire::{
    frame::{Deliver, Pruned, Seen, Subscribe, Subscribed, ToAgent},
    id::{AgentId, ChannelId, Digest, Epoch, MessageId, Seq, Time},
    refusal::Refusal,
};

use super::{
    Asking, Conn, Hub, Lane, Output, Query, Timer, channel::Channel, ledger::nack, send,
    sequencer::About,
};
use crate::archive::StoredRecord;

/// One connection's place in one channel.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) conn: Conn,
    agent: AgentId,
    /// The last place sent, or skipped because it is not for this agent.
    sent: Seq,
    /// The last place that it may read, when it is no member any more.
    until: Option<(Seq, Epoch)>,
    state: State,
    /// Up to where it has been told that bodies are gone.
    told_pruned: Seq,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The hash at its cursor is being looked up.
    Greeting { id: MessageId },
    /// Waits for its turn to read, or for room in the connection's queue.
    Behind,
    /// One read is on its way.
    Reading,
    /// Gets each record as it becomes durable.
    Live,
}

impl Hub {
    pub(super) fn subscribe(
        &mut self,
        who: Asking,
        frame: &Subscribe,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let about = About {
            channel: frame.channel,
            id: frame.id,
            ordered: false,
        };
        match self.try_subscribe(who, frame) {
            Err(refusal) => self.refuse(who, about, refusal, out),
            Ok(seq) => {
                out.push(Output::Read {
                    conn: who.conn,
                    query: Query::HashAt {
                        channel: frame.channel,
                        seq,
                    },
                });
                self.call_late_sealer(who, &frame.channel, now, out);
            }
        }
    }

    fn try_subscribe(&mut self, who: Asking, frame: &Subscribe) -> Result<Seq, Refusal> {
        if !self.covers(who.conn, &frame.channel) {
            return Err(Refusal::ChannelUnknown);
        }
        let channel = self
            .channels
            .get_mut(&frame.channel)
            .ok_or(Refusal::ChannelUnknown)?;
        let window = channel
            .kept
            .roster
            .window(&who.agent)
            .ok_or(Refusal::ChannelUnknown)?;
        if window.after > channel.durable {
            return Err(Refusal::Unavailable); // Its own entry is still on its way to the disk.
        }
        let connection = self
            .conns
            .get_mut(&who.conn)
            .ok_or(Refusal::ChannelUnknown)?;
        if !connection.channels.contains(&frame.channel)
            && connection.channels.len() >= self.config.limits.subscriptions_max
        {
            return Err(Refusal::LimitReached);
        }
        if let Some(old) = channel.subscriber(who.conn)
            && matches!(old.state, State::Greeting { .. })
        {
            return Err(Refusal::RateLimited); // The first one has not been answered yet.
        }
        connection.channels.insert(frame.channel);
        // A cursor beyond the log is the agent's to complain about: it sees the head.
        let sent = frame.after.max(window.after).min(channel.durable);
        channel.unsubscribe(who.conn);
        channel.insert(Subscriber {
            conn: who.conn,
            agent: who.agent,
            sent,
            until: window.until,
            state: State::Greeting { id: frame.id },
            told_pruned: Seq(0),
        });
        Ok(frame.after.max(window.after))
    }

    /// The archive has said what the log hash at a subscriber's cursor is.
    pub(super) fn subscribed(
        &mut self,
        conn: Conn,
        id: ChannelId,
        seq: Seq,
        hash: Option<Digest>,
        out: &mut Vec<Output>,
    ) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let (durable, epoch, pruned) = (channel.durable, channel.durable_epoch, channel.pruned);
        let Some(subscriber) = channel.subscriber_mut(conn) else {
            return;
        };
        let State::Greeting { id: request } = subscriber.state else {
            return;
        };
        let (head, epoch) = match subscriber.until {
            Some((until, then)) if until <= durable => (until, then),
            Some(_) | None => (durable, epoch),
        };
        // What lies after a former member's last record is none of its business.
        let hash = hash.filter(|_| seq <= head);
        let behind = subscriber.sent < head;
        let lane = if behind { Lane::CatchUp } else { Lane::Live };
        out.push(Output::Send {
            conn,
            lane,
            frame: ToAgent::Subscribed(Subscribed {
                channel: id,
                id: request,
                epoch,
                head,
                hash,
                after: seq,
            }),
        });
        subscriber.tell_pruned(id, pruned, out);
        subscriber.state = State::Behind;
        self.read_again(conn, id, out);
    }

    /// The archive could not say it.
    pub(super) fn subscribe_failed(&mut self, conn: Conn, id: ChannelId, out: &mut Vec<Output>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if let Some(subscriber) = channel.subscriber(conn)
            && let State::Greeting { id: request } = subscriber.state
        {
            channel.unsubscribe(conn);
            if let Some(connection) = self.conns.get_mut(&conn) {
                connection.channels.remove(&id);
            }
            send(conn, nack(request, Some(id), Refusal::Unavailable), out);
        }
    }

    /// Records have been read, or could not be when there are none though there must be some.
    pub(super) fn records_read(
        &mut self,
        conn: Conn,
        id: ChannelId,
        after: Seq,
        records: Vec<StoredRecord>,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        connection.reading = connection.reading.saturating_sub(1);
        if let Some(channel) = self.channels.get_mut(&id) {
            let (durable, pruned) = (channel.durable, channel.pruned);
            if let Some(subscriber) = channel.subscriber_mut(conn)
                && subscriber.state == State::Reading
                && subscriber.sent == after
            {
                let nothing = records.is_empty();
                subscriber.tell_pruned(id, pruned, out);
                let copies = subscriber.catch_up(id, records, out);
                subscriber.state = State::Behind;
                let is_late = nothing && subscriber.sent < durable;
                self.meter.handed(conn, copies, Some(&channel.kept.owner));
                if is_late {
                    let again = (now.plus(READ_AGAIN_MS), Timer::ReadAgain(conn, id));
                    self.timers.insert(again);
                } else {
                    connection.queue(id);
                }
            }
        }
        self.pump(conn, out);
    }

    /// Gives a subscription that is behind its turn.
    pub(super) fn read_again(&mut self, conn: Conn, id: ChannelId, out: &mut Vec<Output>) {
        if let Some(connection) = self.conns.get_mut(&conn) {
            connection.queue(id);
        }
        self.pump(conn, out);
    }

    /// Hands a record that is durable to everybody who is level with it.
    pub(super) fn deliver(&mut self, frame: Deliver, out: &mut Vec<Output>) {
        let seq = frame.seq;
        let Some(channel) = self.channels.get_mut(&frame.channel) else {
            return;
        };
        let mut conns = Vec::with_capacity(channel.subscribers.len());
        let mut ended = false;
        for subscriber in &mut channel.subscribers {
            if subscriber.state == State::Live && subscriber.sent.next() == seq {
                subscriber.sent = seq;
                conns.push(subscriber.conn);
                ended |= subscriber.has_ended();
            }
        }
        let id = frame.channel;
        for conn in &conns {
            self.meter.handed(*conn, 1, Some(&channel.kept.owner));
        }
        if !conns.is_empty() {
            out.push(Output::Deliver { conns, frame });
        }
        if ended {
            let over: Vec<_> = channel
                .subscribers
                .iter()
                .filter(|subscriber| subscriber.has_ended() && subscriber.state == State::Live)
                .map(|subscriber| subscriber.conn)
                .collect();
            for conn in over {
                self.end_subscription(conn, id);
            }
        }
    }

    /// Lets a connection's subscriptions that are behind go on, each in its turn, while there is
    /// room: a read for each that has something to read, live for each that has not.
    pub(super) fn pump(&mut self, conn: Conn, out: &mut Vec<Output>) {
        loop {
            let Some(connection) = self.conns.get_mut(&conn) else {
                return;
            };
            if connection.full_since.is_some() || connection.reading >= READS_MAX {
                return;
            }
            let Some(id) = connection.behind.pop_front() else {
                return;
            };
            let Some(channel) = self.channels.get_mut(&id) else {
                continue;
            };
            let durable = channel.durable;
            let Some(subscriber) = channel.subscriber_mut(conn) else {
                continue;
            };
            if subscriber.state != State::Behind {
                continue;
            }
            if subscriber.has_ended() {
                self.end_subscription(conn, id);
            } else if subscriber.sent >= durable {
                subscriber.state = State::Live;
            } else {
                subscriber.state = State::Reading;
                connection.reading += 1;
                out.push(Output::Read {
                    conn,
                    query: Query::Records {
                        channel: id,
                        after: subscriber.sent,
                        count_max: READ_RECORDS_MAX,
                        bytes_max: READ_BYTES_MAX,
                    },
                });
            }
        }
    }

    /// The connection has no room: what it follows live falls behind.
    pub(super) fn stop_live(&mut self, conn: Conn) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        for id in &connection.channels {
            if let Some(subscriber) = self
                .channels
                .get_mut(id)
                .and_then(|channel| channel.subscriber_mut(conn))
                && subscriber.state == State::Live
            {
                subscriber.state = State::Behind;
                connection.behind.push_back(*id);
            }
        }
    }

    /// After a reload: everybody's window is drawn anew, and whoever was live reads on from the
    /// archive, because what was not acknowledged may have been written all the same.
    pub(super) fn resume_all(&mut self, out: &mut Vec<Output>) {
        for channel in self.channels.values_mut() {
            let durable = channel.durable;
            for subscriber in &mut channel.subscribers {
                subscriber.sent = subscriber.sent.min(durable);
                // A removal that did not happen ends nothing.
                subscriber.until = subscriber.until.filter(|(until, _)| *until <= durable);
            }
            channel.set_windows();
        }
        let conns: Vec<_> = self.conns.keys().copied().collect();
        for conn in conns {
            let Some(connection) = self.conns.get_mut(&conn) else {
                continue;
            };
            let channels: Vec<_> = connection.channels.iter().copied().collect();
            for id in channels {
                let channel = self.channels.get(&id);
                let named = channel.is_some_and(|channel| {
                    channel
                        .subscriber(conn)
                        .is_some_and(|subscriber| channel.kept.roster.mentions(&subscriber.agent))
                });
                if !named {
                    // Let in by a write that did not happen.
                    self.end_subscription(conn, id);
                }
            }
            self.stop_live(conn);
            self.pump(conn, out);
        }
    }

    pub(super) fn seen(&mut self, who: Asking, frame: &Seen) {
        if !self.covers(who.conn, &frame.channel) {
            return;
        }
        let Some(channel) = self.channels.get_mut(&frame.channel) else {
            return;
        };
        let durable = channel.durable;
        if let Some(member) = channel.kept.roster.member_mut(&who.agent) {
            // Stored with the next change of the state: a cursor that is a little old only keeps
            // something longer.
            member.seen = member.seen.max(frame.seq.min(durable));
        }
    }

    fn end_subscription(&mut self, conn: Conn, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.unsubscribe(conn);
        }
        if let Some(connection) = self.conns.get_mut(&conn) {
            connection.channels.remove(&id);
        }
    }
}

impl Channel {
    pub(super) fn unsubscribe(&mut self, conn: Conn) {
        if let Ok(index) = self.place_of(conn) {
            self.subscribers.remove(index);
        }
    }

    /// Draws every subscriber's window anew, after the roster has changed.
    pub(super) fn set_windows(&mut self) {
        for subscriber in &mut self.subscribers {
            // Once somebody was removed, this subscription ends there, also when the agent is
            // let in again: it subscribes again.
            let window = self.kept.roster.window(&subscriber.agent);
            let until = window.and_then(|window| window.until);
            subscriber.until = subscriber.until.or(until);
        }
    }

    fn insert(&mut self, subscriber: Subscriber) {
        match self.place_of(subscriber.conn) {
            Ok(index) => self.subscribers[index] = subscriber,
            Err(index) => self.subscribers.insert(index, subscriber),
        }
    }

    fn subscriber(&self, conn: Conn) -> Option<&Subscriber> {
        let index = self.place_of(conn).ok()?;
        self.subscribers.get(index)
    }

    fn subscriber_mut(&mut self, conn: Conn) -> Option<&mut Subscriber> {
        let index = self.place_of(conn).ok()?;
        self.subscribers.get_mut(index)
    }

    fn place_of(&self, conn: Conn) -> Result<usize, usize> {
        self.subscribers
            .binary_search_by_key(&conn, |subscriber| subscriber.conn)
    }
}

impl Subscriber {
    /// Whether it has got the last record that it may read.
    fn has_ended(&self) -> bool {
        self.until.is_some_and(|(until, _)| self.sent >= until)
    }

    fn tell_pruned(&mut self, channel: ChannelId, pruned: Seq, out: &mut Vec<Output>) {
        let up_to = self.until.map_or(pruned, |(until, _)| pruned.min(until));
        if self.sent < up_to && self.told_pruned < up_to {
            self.told_pruned = up_to;
            out.push(Output::Send {
                conn: self.conn,
                lane: Lane::CatchUp,
                frame: ToAgent::Pruned(Pruned { channel, up_to }),
            });
        }
    }

    /// Sends what the archive gave, as far as it follows and is for this agent; says how much that
    /// was.
    fn catch_up(
        &mut self,
        channel: ChannelId,
        records: Vec<StoredRecord>,
        out: &mut Vec<Output>,
    ) -> u64 {
        let mut copies = 0;
        for StoredRecord { seq, record } in records {
            if self.has_ended() || seq != self.sent.next() {
                break;
            }
            self.sent = seq;
            copies += 1;
            out.push(Output::Send {
                conn: self.conn,
                lane: Lane::CatchUp,
                frame: ToAgent::Deliver(Deliver {
                    channel,
                    seq,
                    record: skytale_wire::Blob(record),
                }),
            });
        }
        copies
    }
}

/// Reads of one connection on their way at once: with [`READ_BYTES_MAX`], half of its queue.
const READS_MAX: usize = 4;
/// Records of one read.
const READ_RECORDS_MAX: usize = 256;
/// Bytes of one read, beyond its first record.
const READ_BYTES_MAX: usize = 128 * 1024;
/// After a read that failed.
const READ_AGAIN_MS: u64 = 1_000;
