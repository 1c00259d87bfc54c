//! Repeats for a receiver whose source is gone.
//!
//! A receiver that lacks a message asks its source. When that one is not connected any more, the
//! relay hands the original over as it was stored. It never makes the source's reply: that is
//! bound to its own type under MLS. Only logs of names that the asker is subscribed to are looked
//! into, so that asking shows nobody what was not sent to it.

use std::sync::Arc;

use skytale_slim::{LinkId, MessageType, Routed, Session};
use skytale_wire::id::ChannelId;

use super::{
    Conn, Hub, Output, Parcel, Place, SlimDrop, generation_of, log_of, native::read_record,
    publish::named, wire_generation,
};
use crate::{archive::StoredRecord, hub::Query};

impl Hub {
    /// Whether the request is taken care of here: its source is not there, and there are logs in
    /// which the message may lie.
    pub(super) fn slim_answer_rtx(
        &mut self,
        conn: Conn,
        request: &Routed,
        session: Session,
        out: &mut Vec<Output>,
    ) -> bool {
        let generation = request.generation();
        let source = request.header().destination.address;
        let mut to = std::mem::take(&mut self.slim.to);
        let link = LinkId(conn.0);
        let table = self.slim.table(generation);
        // Whoever follows the source's name reads along, and cannot answer for it.
        table.route(link, source, MANY, &mut to);
        let is_there = !to.is_empty();
        let names: Vec<ChannelId> = if is_there {
            Vec::new()
        } else {
            let routed = self.slim.table(generation).subscriptions(link);
            let routed: Vec<_> = routed.collect();
            let followed = self.slim.following.subscriptions(link);
            routed.into_iter().chain(followed).map(log_of).collect()
        };
        self.slim.to = to;
        let logs: Vec<ChannelId> = names
            .into_iter()
            .filter(|log| self.slim.logs.contains_key(log))
            .take(LOGS_MAX)
            .collect();
        if logs.is_empty() {
            return false;
        }
        let asking = self.slim.asking.entry(conn).or_default();
        if *asking >= ASKING_MAX {
            self.slim_dropped(SlimDrop::NoRoom, 1);
            return true;
        }
        *asking += 1;
        let kind = MessageType::Msg.number(generation).unwrap_or_default();
        let (agent, id) = named(
            wire_generation(generation),
            kind,
            source,
            session.id,
            session.message_id,
        );
        out.push(Output::Read {
            conn,
            query: Query::SlimRecord { logs, agent, id },
        });
        true
    }

    /// The archive has looked for the message.
    pub(in crate::hub) fn slim_record_read(
        &mut self,
        conn: Conn,
        record: Option<&StoredRecord>,
        out: &mut Vec<Output>,
    ) {
        let Some(asking) = self.slim.asking.get_mut(&conn) else {
            return; // The asker is gone.
        };
        *asking = asking.saturating_sub(1);
        let parcel = record.and_then(|stored| again(conn, stored));
        let Some(parcel) = parcel else {
            return self.slim_dropped(SlimDrop::Nobody, 1);
        };
        self.counters.slim.rtx_answered += 1;
        if self.slim.links.contains_key(&conn) {
            self.counters.slim.delivered += 1;
            self.meter.handed(conn, 1, None);
            out.push(Output::SlimDeliver {
                conns: vec![conn],
                onward: parcel.onward,
            });
        } else {
            self.slim_push(conn, &parcel, None, out);
        }
    }
}

/// The stored message as it goes on once more.
fn again(conn: Conn, stored: &StoredRecord) -> Option<Parcel> {
    let (generation, message) = read_record(&stored.record)?;
    let generation = generation_of(generation)?;
    let message = Routed::from_archive(generation, message.0).ok()?;
    Some(Parcel {
        from: conn,
        generation,
        destination: message.header().destination.address,
        fanout: 1,
        onward: Arc::new(message.onward(conn.0).ok()?),
        original: message.original().clone(),
        place: Place::Before,
        counts: true,
    })
}

/// Any fan-out above one asks for all.
const MANY: u32 = 2;
/// Logs that are looked into for one request; a client is subscribed to two names for each session
/// and one of its own.
const LOGS_MAX: usize = 64;
/// Requests of one connection that the archive is asked about at once; more are dropped, and asked
/// again.
const ASKING_MAX: usize = 32;
