//! From the application's draft to a stored message.
//!
//! The outbox keeps plaintext, and seals when a row is handed to the relay: a message of an epoch
//! that has ended is refused by the relay and sealed anew, so that nobody who was removed in
//! between can read it.

use skytale_wire::{
    envelope::{Kind, content_hash},
    frame::{self, Nack, PAYLOAD_BYTES_MAX, ToRelay},
    id::{MessageId, Seq},
    refusal::{Refusal, Remedy},
};

use super::{
    Channel, Line, PAUSE_MS,
    record::{State, Wish},
};
use crate::{
    Answer, Draft, Error, Message, agent::Step, command::CommandId, content::Content, history,
    mls::RATCHET_FORWARD_MAX, policy::Bound, session::Uplink, store,
};

impl Channel {
    /// Puts a message into the outbox.
    pub(crate) fn queue(
        &mut self,
        step: &mut Step<'_, '_>,
        command: CommandId,
        id: MessageId,
        draft: &Draft,
    ) -> Result<Option<Answer>, Error> {
        self.must_be_open()?;
        let size = draft.payload.len();
        if size > PAYLOAD_BYTES_MAX {
            return Err(Error::Misuse(format!(
                "the message has {size} bytes; at most {PAYLOAD_BYTES_MAX} fit into one: split it or send a reference"
            )));
        }
        let headers: usize = draft
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if headers + draft.content_type.len() > HEADERS_BYTES_MAX {
            return Err(Error::Misuse(format!(
                "headers and content type have at most {HEADERS_BYTES_MAX} bytes together"
            )));
        }
        if store::is_queued(step.tx, &id)? {
            return Ok(None);
        }
        let n = self.record.next_n;
        store::queue_message(step.tx, &self.record.id, &id, &command, n, step.now, draft)?;
        self.record.next_n += 1;
        self.outgoing.waiting = true;
        self.changed = true;
        Ok(None)
    }

    /// Seals what waits and hands it to the relay, in order, up to the window.
    pub(super) fn pump(&mut self, step: &mut Step<'_, '_>, uplink: &Uplink) -> Result<(), Error> {
        // Once the relay has ordered our own commit, whatever we seal before we merge it is stale.
        if matches!(&self.record.state, State::Active { pending: Some(pending) } if pending.seq.is_some())
        {
            return Ok(());
        }
        if !self.outgoing.waiting {
            return Ok(());
        }
        let room = IN_FLIGHT_MAX.saturating_sub(self.outgoing.in_flight.len());
        let ratchet = usize::try_from(
            RATCHET_GAP_MAX.saturating_sub(self.record.sealed - self.record.logged),
        )
        .unwrap_or(usize::MAX);
        if ratchet == 0 && self.outgoing.in_flight.is_empty() {
            return self.renew_ratchet(step);
        }
        let limit = room.min(ratchet);
        let rows = store::outbox_after(step.tx, &self.record.id, self.outgoing.handed, limit)?;
        self.outgoing.waiting = rows.len() == limit;
        for row in rows {
            let content = Content {
                n: row.n,
                previous: self.outgoing.last_n.unwrap_or(self.record.kept_n),
                sent: row.at,
                label: step.label.to_owned(),
                content_type: row.draft.content_type,
                in_reply_to: row.draft.in_reply_to,
                headers: row.draft.headers,
                payload: row.draft.payload,
                log: self.record.mark(),
            };
            let bound = Bound::new(self.record.id, row.id, Kind::Application);
            let plaintext = content.seal();
            let (provider, identity) = (step.provider, step.identity);
            let body = self.group()?.seal(provider, identity, &bound, &plaintext)?;
            self.record.sealed += 1;
            let hash = content_hash(&body, None);
            store::note_sent(step.tx, &self.record.id, &hash, &row.id, self.record.sealed)?;
            let publish = frame::Publish {
                channel: self.record.id,
                id: row.id,
                epoch: self.record.epoch,
                body: body.into(),
                resumes: self.outgoing.handed == 0,
            };
            uplink.send(step, ToRelay::Publish(publish));
            if row.draft.now {
                step.out.at_once.insert(row.id);
            }
            self.outgoing.handed = row.row;
            self.outgoing.last_n = Some(row.n);
            self.outgoing.in_flight.insert(row.id);
            self.changed = true;
        }
        Ok(())
    }

    /// So many sealed messages were lost on the way that receivers would not look far enough
    /// ahead in our ratchet: a commit with a path begins a new one.
    fn renew_ratchet(&mut self, step: &mut Step<'_, '_>) -> Result<(), Error> {
        if store::first_wish(step.tx, &self.record.id)?.is_none() {
            store::add_wish(step.tx, &self.record.id, &NOBODY, &Wish::Rotate)?;
        }
        Ok(())
    }

    /// The relay has stored a message.
    pub(crate) fn published(
        &mut self,
        step: &mut Step<'_, '_>,
        id: &MessageId,
        seq: Seq,
    ) -> Result<(), Error> {
        self.outgoing.in_flight.remove(id);
        self.outgoing.waiting = true;
        if let Some(settled) = store::settle_message(step.tx, id)? {
            self.record.kept_n = self.record.kept_n.max(settled.n);
            self.changed = true;
            let answer = Answer::Stored(seq);
            step.out.answers.push((settled.command, answer));
            let ours = Message {
                row: 0,
                id: *id,
                channel: self.record.id,
                seq,
                epoch: self.record.epoch,
                sender: step.identity.id(),
                label: step.label.to_owned(),
                verified: true,
                sent: settled.at,
                content_type: settled.draft.content_type,
                in_reply_to: settled.draft.in_reply_to,
                headers: settled.draft.headers,
                payload: settled.draft.payload,
            };
            history::put(step.tx, &ours, step.now)?;
        }
        Ok(())
    }

    /// The relay has refused a message.
    pub(super) fn message_refused(
        &mut self,
        step: &mut Step<'_, '_>,
        nack: &Nack,
    ) -> Result<(), Error> {
        if !self.outgoing.in_flight.contains(&nack.id) {
            return Ok(());
        }
        match nack.refusal.remedy() {
            Remedy::CatchUp => {
                // What is in flight was sealed in our epoch. If the relay is not beyond it, the
                // answer is for an older body of the same message: superseded.
                if nack.epoch.is_none_or(|epoch| epoch <= self.record.epoch) {
                    return Ok(());
                }
                // The commit that outran it is on its way; `new_keys` hands everything over anew.
                self.outgoing.in_flight.remove(&nack.id);
                if self.line == Line::Level {
                    self.line = Line::CatchingUp(self.record.cursor.next());
                }
            }
            Remedy::Retry => {
                self.hand_over_again();
                self.pause(step, PAUSE_MS / 4);
            }
            Remedy::GetPermission | Remedy::FixRequest => {
                self.give_up(step, &nack.id, nack.refusal)?;
            }
        }
        Ok(())
    }

    fn give_up(
        &mut self,
        step: &mut Step<'_, '_>,
        id: &MessageId,
        refusal: Refusal,
    ) -> Result<(), Error> {
        // What was sealed behind it names it as its predecessor.
        self.hand_over_again();
        if let Some(settled) = store::settle_message(step.tx, id)? {
            step.out.answers.push((
                settled.command,
                Answer::Failed(Error::Denied(refusal).into()),
            ));
        }
        Ok(())
    }

    /// Everything that is not settled is sealed and sent again: with the same ids, so that
    /// nothing is stored twice.
    pub(super) fn hand_over_again(&mut self) {
        self.outgoing.handed = 0;
        self.outgoing.last_n = None;
        self.outgoing.in_flight.clear();
        self.outgoing.waiting = true;
    }
}

impl Bound {
    /// The clear header of an ordinary message.
    pub(crate) fn new(channel: skytale_wire::id::ChannelId, id: MessageId, kind: Kind) -> Self {
        Self {
            channel,
            id,
            kind: kind as u8,
            change: None,
            join: None,
            left: Vec::new(),
        }
    }
}

/// A command that nobody waits for.
pub(super) const NOBODY: CommandId = MessageId([0; 16]);
/// Messages that are sealed and not acknowledged at one time.
const IN_FLIGHT_MAX: usize = 512;
/// Messages of one epoch that may be lost in a row, with a margin for those on their way.
const RATCHET_GAP_MAX: u64 = RATCHET_FORWARD_MAX as u64 - 50;
/// Bytes of headers and content type together: they are no second payload.
const HEADERS_BYTES_MAX: usize = 16 * 1024;
