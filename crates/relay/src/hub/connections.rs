//! Connections and their permits: who speaks, by what right, until when, and how fast it reads.

use std::collections::{BTreeSet, VecDeque};

use skytale_wire::{
    frame::{GuestProof, PROTOCOL, Ready, Renewed, SLIM_MESSAGE_BYTES_MAX, ToAgent, ToRelay},
    id::{AgentId, ChannelId, InviteId, MessageId, Seq, Time, TransportKey, verify},
    refusal::Refusal,
    statement,
};

use super::{Conn, Hub, Output, Payer, Presented, Query, Right, Timer, ledger::nack, send};
use crate::archive::KeyPackagesLeft;

/// One connection whose identity is proved.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) agent: AgentId,
    transport: TransportKey,
    pub(super) permit: Permit,
    /// Whether Ready has gone out.
    pub(super) ready: bool,
    /// Frames that came before that.
    pub(super) early: Vec<(ToRelay, Option<Seq>)>,
    /// What it is subscribed to.
    pub(super) channels: BTreeSet<ChannelId>,
    /// Channels of it that are to be read from the archive, whose turn comes in this order.
    pub(super) behind: VecDeque<ChannelId>,
    /// Reads of records that have not been answered.
    pub(super) reading: usize,
    /// Since when its queue has been over its limit.
    pub(super) full_since: Option<Time>,
    /// Welcomes have come that its queue had no room for.
    pub(super) owes_welcomes: bool,
    /// `GroupInfos` that are being read for it.
    pub(super) takes: Vec<(MessageId, ChannelId, InviteId)>,
    /// Channels in which it waits for a `GroupInfo` sealed afresh.
    pub(super) wants: BTreeSet<ChannelId>,
}

/// A right that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Permit {
    /// Who pays, when somebody does.
    pub(super) payer: Option<Payer>,
    pub(super) expires: Time,
    /// A guest that may do what rosters let it do.
    member: bool,
    /// Channels to which a guest has shown an invite.
    invited: VecDeque<ChannelId>,
}

impl Connection {
    /// Puts a channel at the end of those that are behind.
    pub(super) fn queue(&mut self, channel: ChannelId) {
        if !self.behind.contains(&channel) {
            self.behind.push_back(channel);
        }
    }
}

impl Permit {
    /// The account that pays, when there is one.
    pub(super) fn account(&self) -> Option<&String> {
        self.payer.as_ref().map(|payer| &payer.account)
    }

    /// Whether it reaches this channel, as far as the roster names the agent.
    pub(super) fn covers(&self, channel: &ChannelId) -> bool {
        self.payer.is_some() || self.member || self.invited.contains(channel)
    }

    /// Whether an invite to this channel may be used under it.
    pub(super) fn may_join(&self, channel: &ChannelId) -> bool {
        self.payer.is_some() || self.invited.contains(channel)
    }

    pub(super) fn has_ended(&self, now: Time, leeway_ms: u64) -> bool {
        now >= self.expires.plus(leeway_ms)
    }

    /// Adds what another checked right allows. A guest's rights add up on one line; they never
    /// shorten an account's.
    fn extend(&mut self, other: Self) {
        if other.payer.is_some() {
            self.payer = other.payer;
            self.expires = other.expires;
        } else if self.payer.is_none() {
            self.expires = self.expires.max(other.expires);
        }
        self.member |= other.member;
        for channel in other.invited {
            if !self.invited.contains(&channel) {
                self.invited.push_back(channel);
            }
        }
        while self.invited.len() > INVITED_MAX {
            self.invited.pop_front();
        }
    }
}

impl Hub {
    pub(super) fn opened(
        &mut self,
        conn: Conn,
        presented: Presented,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let Presented {
            agent,
            transport,
            right,
        } = presented;
        let permit = match self.permit(&agent, &transport, right, now) {
            Ok(permit) => permit,
            Err(refusal) => {
                out.push(Output::Close {
                    conn,
                    refusal,
                    resume: false,
                });
                return;
            }
        };
        self.watch_permit(conn, permit.expires);
        self.meter.pays(conn, permit.payer.as_ref());
        let connection = Connection {
            agent,
            transport,
            permit,
            ready: false,
            early: Vec::new(),
            channels: BTreeSet::new(),
            behind: VecDeque::new(),
            reading: 0,
            full_since: None,
            owes_welcomes: false,
            takes: Vec::new(),
            wants: BTreeSet::new(),
        };
        self.conns.insert(conn, connection);
        out.push(Output::Read {
            conn,
            query: Query::Greeting { agent },
        });
    }

    /// The archive has said what Ready must say.
    pub(super) fn greeted(
        &mut self,
        conn: Conn,
        key_packages: KeyPackagesLeft,
        welcomes: u32,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        if connection.ready {
            return;
        }
        let agent = connection.agent;
        if self.lines.get(&agent).is_some_and(|line| *line > conn) {
            // A newer connection of the agent was quicker.
            return self.close(conn, Refusal::Replaced, false, out);
        }
        connection.ready = true;
        let early = std::mem::take(&mut connection.early);
        let ready = Ready {
            version: PROTOCOL,
            now,
            expires: connection.permit.expires,
            body_bytes_max: self.config.limits.body_bytes_max,
            key_packages: key_packages.count,
            welcomes,
            last_resort: key_packages.last_resort,
            // The edge's business: the driver adds what was agreed at the door.
            traffic: None,
            slim_bytes_max: u32::try_from(SLIM_MESSAGE_BYTES_MAX).ok(),
        };
        send(conn, ToAgent::Ready(ready), out);
        if let Some(older) = self.lines.insert(agent, conn)
            && older != conn
        {
            self.close(older, Refusal::Replaced, false, out);
        }
        for (frame, earlier) in early {
            self.frame(conn, frame, earlier, now, out);
        }
    }

    /// After a failed write, what was looked up for frames that still wait for Ready may be
    /// wrong: a record may have been written though nobody was told. Their senders come again.
    pub(super) fn close_early_speakers(&mut self, out: &mut Vec<Output>) {
        let early: Vec<_> = self
            .conns
            .iter()
            .filter(|(_, connection)| !connection.early.is_empty())
            .map(|(conn, _)| *conn)
            .collect();
        for conn in early {
            self.close(conn, Refusal::Unavailable, true, out);
        }
    }

    pub(super) fn renewed(
        &mut self,
        conn: Conn,
        id: MessageId,
        right: Result<Right, Refusal>,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let Some(connection) = self.conns.get(&conn) else {
            return;
        };
        let (agent, transport) = (connection.agent, connection.transport);
        match right.and_then(|right| self.permit(&agent, &transport, right, now)) {
            Err(refusal) => send(conn, nack(id, None, refusal), out),
            Ok(permit) => {
                let Some(connection) = self.conns.get_mut(&conn) else {
                    return;
                };
                connection.permit.extend(permit);
                self.meter.pays(conn, connection.permit.payer.as_ref());
                let expires = connection.permit.expires;
                self.watch_permit(conn, expires);
                send(conn, ToAgent::Renewed(Renewed { id, expires }), out);
            }
        }
    }

    /// Closes a connection and forgets it.
    pub(super) fn close(
        &mut self,
        conn: Conn,
        refusal: Refusal,
        resume: bool,
        out: &mut Vec<Output>,
    ) {
        if self.conns.contains_key(&conn) {
            self.forget(conn);
            out.push(Output::Close {
                conn,
                refusal,
                resume,
            });
        }
    }

    /// Forgets a connection that is gone.
    pub(super) fn forget(&mut self, conn: Conn) {
        self.slim_forget(conn);
        let Some(connection) = self.conns.remove(&conn) else {
            return;
        };
        self.held.retain(|(held, _)| *held != conn);
        if self.lines.get(&connection.agent) == Some(&conn) {
            self.lines.remove(&connection.agent);
        }
        for id in &connection.channels {
            if let Some(channel) = self.channels.get_mut(id) {
                channel.unsubscribe(conn);
            }
        }
        for id in &connection.wants {
            if let Some(channel) = self.channels.get_mut(id) {
                channel.wanting.retain(|wanting| wanting.conn != conn);
            }
        }
    }

    pub(super) fn full(&mut self, conn: Conn, now: Time) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        // Said again, it means that the queue is still full and the reader gets on: patience begins
        // anew.
        let fresh = connection.full_since.replace(now).is_none();
        let due = now.plus(self.config.limits.slow_reader_ms);
        self.timers.insert((due, Timer::SlowReader(conn)));
        if fresh {
            self.stop_live(conn);
            self.slim_stop_live(conn);
        }
    }

    pub(super) fn drained(&mut self, conn: Conn, out: &mut Vec<Output>) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        connection.full_since = None;
        if std::mem::take(&mut connection.owes_welcomes) {
            let agent = connection.agent;
            out.push(Output::Read {
                conn,
                query: Query::Welcomes { agent },
            });
        }
        self.pump(conn, out);
        self.slim_pump(conn, out);
    }

    pub(super) fn check_permit(&mut self, conn: Conn, now: Time, out: &mut Vec<Output>) {
        let leeway = self.config.limits.leeway_ms;
        let ended = |connection: &Connection| connection.permit.has_ended(now, leeway);
        if self.conns.get(&conn).is_some_and(ended) {
            self.close(conn, Refusal::TokenExpired, true, out);
        }
        self.slim_check_permit(conn, now, out);
    }

    pub(super) fn check_progress(&mut self, conn: Conn, now: Time, out: &mut Vec<Output>) {
        let patience = self.config.limits.slow_reader_ms;
        let stuck = |since: Time| now.since(since) >= patience;
        let full_since = self.conns.get(&conn).and_then(|conn| conn.full_since);
        if full_since.is_some_and(stuck) {
            self.close(conn, Refusal::SlowReader, true, out);
        }
    }

    fn watch_permit(&mut self, conn: Conn, expires: Time) {
        let due = expires.plus(self.config.limits.leeway_ms);
        self.timers.insert((due, Timer::Permit(conn)));
    }

    /// Turns a right into a permit. Tokens were checked at the door; invites and rosters here.
    fn permit(
        &self,
        agent: &AgentId,
        transport: &TransportKey,
        right: Right,
        now: Time,
    ) -> Result<Permit, Refusal> {
        let guest = Permit {
            payer: None,
            expires: now.plus(self.config.limits.guest_permit_ms),
            member: false,
            invited: VecDeque::new(),
        };
        match right {
            Right::Account { payer, .. } if self.shut.covers(&payer, Some(agent)) => {
                Err(Refusal::Revoked)
            }
            Right::Account { payer, expires } => Ok(Permit {
                payer: Some(payer),
                expires,
                ..guest
            }),
            _guest if !self.config.guests => Err(Refusal::GuestsRefused),
            Right::Invite(proof) => {
                self.check_guest(agent, transport, &proof, now)?;
                Ok(Permit {
                    invited: VecDeque::from([proof.channel]),
                    ..guest
                })
            }
            Right::Member => {
                if self.memberships.contains_key(agent) {
                    Ok(Permit {
                        member: true,
                        ..guest
                    })
                } else {
                    Err(Refusal::ChannelUnknown)
                }
            }
        }
    }

    fn check_guest(
        &self,
        agent: &AgentId,
        transport: &TransportKey,
        proof: &GuestProof,
        now: Time,
    ) -> Result<(), Refusal> {
        // An unknown channel and an unknown invite look alike.
        let roster = self
            .channels
            .get(&proof.channel)
            .map(|channel| &channel.kept.roster)
            .ok_or(Refusal::InviteUnknown)?;
        let invite = roster
            .any_invite(&proof.invite)
            .ok_or(Refusal::InviteUnknown)?;
        let said = statement::guest(&self.config.relay, transport, agent, &proof.channel);
        if !verify(&invite.signing.0, &said, &proof.signature) {
            return Err(Refusal::InviteAltered);
        }
        if roster.member(agent).is_some() {
            return Ok(()); // It has joined, and its line broke before it knew.
        }
        roster.usable_invite(&proof.invite, now).map(|_| ())
    }
}

/// Channels to which one guest's line keeps its invites; the oldest is forgotten.
const INVITED_MAX: usize = 32;
