//! What waits behind a write: messages that must not overtake one of the same sender, and answers
//! that are true only once it is stored.

use super::{Conn, Hub, Output, Parcel, Ticket};

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
}

impl After {
    /// Bytes that it holds in memory.
    fn weight(&self) -> usize {
        match &self.deed {
            Deed::Relay(parcel) => parcel.weight(),
            Deed::Say(_) => 0,
        }
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
            }
        }
    }

    fn slim_carry_out(&mut self, after: After, out: &mut Vec<Output>) {
        match after.deed {
            Deed::Relay(parcel) => self.slim_relay(&parcel, out),
            // Whoever is gone meanwhile is not in the driver's books either.
            Deed::Say(said) => out.push(said),
        }
    }
}
