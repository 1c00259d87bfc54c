//! The sealed `GroupInfo` that lets holders of an invite in while everybody sleeps. The relay
//! hands it out and asks for a fresh one; it cannot open it.

use skytale_wire::{
    frame::{
        FRAME_BYTES_MAX, GroupInfo, GroupInfoWanted, SealGroupInfo, Sealed, TakeGroupInfo, ToAgent,
        WantGroupInfo, decode, encode,
    },
    id::{ChannelId, Epoch, InviteId, MessageId, Time},
    refusal::Refusal,
};

use super::{
    Asking, Conn, Hub, Output, Query,
    channel::Wanting,
    ledger::{Effect, nack},
    roster::sealed_serves,
    send,
    sequencer::About,
};
use crate::archive::{SealedGroupInfo, Write};

impl Hub {
    pub(super) fn take_group_info(
        &mut self,
        who: Asking,
        frame: &TakeGroupInfo,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let about = About {
            channel: frame.channel,
            id: frame.id,
            ordered: false,
        };
        if let Err(refusal) = self.check_invited(who, &frame.channel, &frame.invite, now) {
            return self.refuse(who, about, refusal, out);
        }
        let Some(connection) = self.conns.get_mut(&who.conn) else {
            return;
        };
        if connection.takes.len() >= TAKES_MAX || connection.full_since.is_some() {
            return self.refuse(who, about, Refusal::RateLimited, out);
        }
        connection
            .takes
            .push((frame.id, frame.channel, frame.invite));
        out.push(Output::Read {
            conn: who.conn,
            query: Query::GroupInfo {
                channel: frame.channel,
            },
        });
    }

    /// The archive has said what it keeps.
    pub(super) fn group_info_read(
        &mut self,
        conn: Conn,
        id: ChannelId,
        stored: Option<SealedGroupInfo>,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let current = self.channels.get(&id).map(|channel| channel.durable_epoch);
        // One of an epoch that is over would only lead into a refused commit.
        let sealed = stored
            .filter(|stored| Some(stored.epoch) == current)
            .and_then(|stored| {
                let sealed: Sealed = decode(&stored.sealed, FRAME_BYTES_MAX).ok()?;
                Some((stored.epoch, sealed))
            });
        for (request, invite) in self.takes_of(conn, &id) {
            let open = self
                .channels
                .get(&id)
                .ok_or(Refusal::InviteUnknown)
                .and_then(|channel| channel.kept.roster.usable_invite(&invite, now).map(|_| ()));
            let frame = match (open, &sealed) {
                (Err(refusal), _) => nack(request, Some(id), refusal),
                (Ok(()), Some((epoch, sealed))) => answer(request, id, *epoch, sealed, &invite)
                    .unwrap_or_else(|| nack(request, Some(id), Refusal::GroupInfoMissing)),
                (Ok(()), None) => nack(request, Some(id), Refusal::GroupInfoMissing),
            };
            send(conn, frame, out);
        }
    }

    pub(super) fn refuse_takes(
        &mut self,
        conn: Conn,
        id: ChannelId,
        refusal: Refusal,
        out: &mut Vec<Output>,
    ) {
        for (request, _) in self.takes_of(conn, &id) {
            send(conn, nack(request, Some(id), refusal), out);
        }
    }

    pub(super) fn want_group_info(
        &mut self,
        who: Asking,
        frame: &WantGroupInfo,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let about = About {
            channel: frame.channel,
            id: frame.id,
            ordered: false,
        };
        if let Err(refusal) = self.try_want(who, frame, now) {
            return self.refuse(who, about, refusal, out);
        }
        self.call_sealers(&frame.channel, now, out);
    }

    pub(super) fn seal_group_info(
        &mut self,
        who: Asking,
        frame: SealGroupInfo,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let about = About {
            channel: frame.channel,
            id: frame.id,
            ordered: false,
        };
        match self.check_seal(who, &frame, now) {
            Err(refusal) => self.refuse(who, about, refusal, out),
            Ok(false) => {}
            Ok(true) => {
                let write = Write::GroupInfo {
                    channel: frame.channel,
                    sealed: SealedGroupInfo {
                        epoch: frame.epoch,
                        sealed: encode(&frame.sealed).into(),
                    },
                };
                let effect = Effect::Sealed {
                    channel: frame.channel,
                    epoch: frame.epoch,
                    sealed: frame.sealed,
                };
                // Success needs no answer; a failed write is told like every other.
                let reply = super::sequencer::reply(who, about, None);
                self.ledger.write(write, effect, Some(reply), out);
            }
        }
    }

    /// A fresh `GroupInfo` is durable: whoever waits for it gets it.
    pub(super) fn group_info_sealed(
        &mut self,
        id: ChannelId,
        epoch: Epoch,
        sealed: &Sealed,
        out: &mut Vec<Output>,
    ) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let waiting = std::mem::take(&mut channel.wanting);
        for wanting in waiting {
            let Some(frame) = answer(wanting.id, id, epoch, sealed, &wanting.invite) else {
                channel.wanting.push(wanting);
                continue;
            };
            if let Some(connection) = self.conns.get_mut(&wanting.conn) {
                connection.wants.remove(&id);
                send(wanting.conn, frame, out);
            }
        }
    }

    /// A member comes to a channel where somebody waits: it may be the first one in a while.
    pub(super) fn call_late_sealer(
        &mut self,
        who: Asking,
        id: &ChannelId,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let rate = self.config.limits.group_info_calls;
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        if !channel.wanting.is_empty()
            && channel.kept.roster.member(&who.agent).is_some()
            && channel.calls.take(rate, 1, now)
        {
            let wanted = GroupInfoWanted { channel: *id };
            send(who.conn, ToAgent::GroupInfoWanted(wanted), out);
        }
    }

    fn try_want(&mut self, who: Asking, frame: &WantGroupInfo, now: Time) -> Result<(), Refusal> {
        self.check_invited(who, &frame.channel, &frame.invite, now)?;
        let channel = self
            .channels
            .get_mut(&frame.channel)
            .ok_or(Refusal::InviteUnknown)?;
        // Asking again replaces the earlier wish of the same connection.
        channel
            .wanting
            .retain(|wanting| (wanting.conn, wanting.invite) != (who.conn, frame.invite));
        if channel.wanting.len() >= WANTING_MAX {
            return Err(Refusal::LimitReached);
        }
        channel.wanting.push(Wanting {
            conn: who.conn,
            id: frame.id,
            invite: frame.invite,
        });
        if let Some(connection) = self.conns.get_mut(&who.conn) {
            connection.wants.insert(frame.channel);
        }
        Ok(())
    }

    /// Asks a few members that are here to seal afresh, others each time.
    fn call_sealers(&mut self, id: &ChannelId, now: Time, out: &mut Vec<Output>) {
        let rate = self.config.limits.group_info_calls;
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        let here: Vec<Conn> = channel
            .kept
            .roster
            .members()
            .filter_map(|agent| self.lines.get(agent).copied())
            .collect();
        if here.is_empty() || !channel.calls.take(rate, 1, now) {
            return;
        }
        let first = channel.next_called % here.len();
        channel.next_called = first + CALLED_MAX;
        for conn in here
            .iter()
            .cycle()
            .skip(first)
            .take(CALLED_MAX.min(here.len()))
        {
            let wanted = GroupInfoWanted { channel: *id };
            send(*conn, ToAgent::GroupInfoWanted(wanted), out);
        }
    }

    /// Whether this connection may use this invite at this moment, as far as can be said before
    /// the joiner signs anything.
    fn check_invited(
        &mut self,
        who: Asking,
        id: &ChannelId,
        invite: &InviteId,
        now: Time,
    ) -> Result<(), Refusal> {
        let permit = self.conns.get(&who.conn).map(|conn| &conn.permit);
        let channel = self
            .channels
            .get(id)
            .filter(|_| permit.is_some_and(|permit| permit.may_join(id)))
            .ok_or(Refusal::InviteUnknown)?;
        channel.kept.roster.usable_invite(invite, now)?;
        let rate = self.config.limits.group_infos;
        let granted = self.rates.of(who.agent).group_infos.take(rate, 1, now);
        granted.then_some(()).ok_or(Refusal::RateLimited)
    }

    /// Whether a sealed `GroupInfo` is to be kept; one of another epoch is late, not wrong.
    fn check_seal(
        &mut self,
        who: Asking,
        frame: &SealGroupInfo,
        now: Time,
    ) -> Result<bool, Refusal> {
        let channel = self.channel_of_member(who, &frame.channel)?;
        if frame.epoch != channel.kept.epoch {
            return Ok(false);
        }
        let needed = sealed_serves(channel.kept.roster.invites(), Some(&frame.sealed), now)?;
        self.check_writable()?;
        let rate = self.config.limits.group_infos;
        if !self.rates.of(who.agent).group_infos.take(rate, 1, now) {
            return Err(Refusal::RateLimited);
        }
        Ok(needed)
    }

    fn takes_of(&mut self, conn: Conn, id: &ChannelId) -> Vec<(MessageId, InviteId)> {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return Vec::new();
        };
        let takes = std::mem::take(&mut connection.takes);
        let (of_channel, others) = takes.into_iter().partition(|(_, channel, _)| channel == id);
        connection.takes = others;
        let of_channel: Vec<(MessageId, ChannelId, InviteId)> = of_channel;
        of_channel
            .into_iter()
            .map(|(request, _, invite)| (request, invite))
            .collect()
    }
}

fn answer(
    id: MessageId,
    channel: ChannelId,
    epoch: Epoch,
    sealed: &Sealed,
    invite: &InviteId,
) -> Option<ToAgent> {
    let key = sealed.keys.iter().find(|key| key.invite == *invite)?;
    Some(ToAgent::GroupInfo(GroupInfo {
        id,
        channel,
        epoch,
        ciphertext: sealed.ciphertext.clone(),
        key: key.sealed.clone(),
    }))
}

/// Joiners that may wait in one channel.
const WANTING_MAX: usize = 32;
/// Members asked at once: one is enough, but it may be asleep or unwilling.
const CALLED_MAX: usize = 4;
/// `GroupInfos` that one connection may have asked for at once.
const TAKES_MAX: usize = 16;
