//! What waits behind a write: messages that must not overtake one of the same sender, and answers
//! that are true only once it is stored.

use bytes::Bytes;
use skytale_wire::{frame::ToAgent, id::MessageId, refusal::Refusal};

use super::{Conn, Hub, Output, Parcel, Ticket};
use crate::hub::{ledger::nack, send};

/// Something to do once a write is no longer on its way.
#[derive(Debug)]
pub(in crate::hub) struct After {
    deed: Deed,
    /// Whether it is only true if the write succeeds.
    if_stored: bool,
}

/// What there is to do.
#[derive(Debug)]
pub(in crate::hub) enum Deed {
    /// Pass a message on.
    Relay(Parcel),
    /// Say something that is ready.
    Say(Output),
    /// Answer a subscription; if who owns its name could not be stored, with another word.
    Subscribed {
        conn: Conn,
        said: Bytes,
        unstored: Bytes,
    },
    /// Answer a native agent's request; if what the answer rests on could not be stored, the
    /// request is refused.
    Answer {
        conn: Conn,
        id: MessageId,
        frame: ToAgent,
    },
}

impl After {
    /// Bytes that it holds in memory. Small ones count as well, since a peer can have as many as
    /// it likes.
    fn weight(&self) -> usize {
        let beside = match &self.deed {
            Deed::Relay(parcel) => parcel.weight(),
            Deed::Say(said) => weight_of(said),
            Deed::Subscribed { said, unstored, .. } => said.len() + unstored.len(),
            Deed::Answer { .. } => 0,
        };
        size_of::<Self>() + beside
    }
}

impl Parcel {
    fn weight(&self) -> usize {
        self.onward.len() + self.original.len()
    }
}

impl Hub {
    /// Does something now, or behind what this connection has said before and behind `ticket`.
    pub(super) fn slim_do(
        &mut self,
        conn: Conn,
        ticket: Option<Ticket>,
        deed: Deed,
        if_stored: bool,
        out: &mut Vec<Output>,
    ) {
        let after = After { deed, if_stored };
        let Some(ticket) = self.slim_behind(conn, ticket) else {
            return self.slim_carry_out(after, out);
        };
        let weight = after.weight();
        match self.ledger.wait_after(ticket, after) {
            Some(settled) => self.slim_carry_out(settled, out),
            None => self.slim.held_bytes += weight,
        }
    }

    /// The write behind which this connection's next word stands.
    pub(super) fn slim_behind(&self, conn: Conn, ticket: Option<Ticket>) -> Option<Ticket> {
        ticket.max(self.slim.last_writes.get(&conn).copied())
    }

    /// A write is no longer on its way: what waited for it happens.
    pub(in crate::hub) fn slim_after(
        &mut self,
        waiting: Vec<After>,
        stored: bool,
        out: &mut Vec<Output>,
    ) {
        for after in waiting {
            let held = &mut self.slim.held_bytes;
            *held = held.saturating_sub(after.weight());
            if stored || !after.if_stored {
                self.slim_carry_out(after, out);
            } else {
                self.slim_not_stored(after.deed, out);
            }
        }
    }

    fn slim_carry_out(&mut self, after: After, out: &mut Vec<Output>) {
        match after.deed {
            Deed::Relay(parcel) => self.slim_relay(&parcel, out),
            // Whoever is gone meanwhile is not in the driver's books either.
            Deed::Say(said) => out.push(said),
            Deed::Subscribed { conn, said, .. } => out.push(Output::SlimAck { conn, bytes: said }),
            Deed::Answer { conn, frame, .. } => self.slim_answer(conn, frame, out),
        }
    }

    /// Of what would be true only if it were stored.
    fn slim_not_stored(&mut self, deed: Deed, out: &mut Vec<Output>) {
        match deed {
            Deed::Relay(_) | Deed::Say(_) => {}
            Deed::Subscribed { conn, unstored, .. } => {
                out.push(Output::SlimAck {
                    conn,
                    bytes: unstored,
                });
            }
            Deed::Answer { conn, id, .. } => {
                self.slim_answer(conn, nack(id, None, Refusal::Unavailable), out);
            }
        }
    }

    fn slim_answer(&self, conn: Conn, frame: ToAgent, out: &mut Vec<Output>) {
        if self.conns.contains_key(&conn) {
            send(conn, frame, out);
        }
    }
}

/// Bytes that something to be said has besides itself.
fn weight_of(said: &Output) -> usize {
    match said {
        Output::SlimDeliver { conns, onward } => onward.len() + size_of_val(conns.as_slice()),
        Output::SlimAck { bytes, .. } => bytes.len(),
        // Of SLIM nothing else is said behind a write but refusals, which are small.
        Output::Send { .. }
        | Output::Deliver { .. }
        | Output::Store { .. }
        | Output::Read { .. }
        | Output::Report(_)
        | Output::Close { .. } => 0,
    }
}
