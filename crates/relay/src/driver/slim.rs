//! A SLIM stream's side of the driver: entering, handing messages in, taking what goes out.
//!
//! Signing for the link and writing are the edge's.

use std::sync::Arc;

use bytes::Bytes;
use skytale_slim::{Onward, Routed};
use skytale_wire::{frame::SlimPublish, id::Seq, refusal::Refusal};

use self::queues::SlimQueue;
use super::{
    Running,
    door::{Arrival, Door, Stopped},
};
use crate::{
    archive::{ArchiveError, ArchiveReader},
    hub::{Conn, Input, SlimPresented, slim_message_in},
};

pub(super) mod queues;

/// One SLIM stream, from the edge's side. Call [`SlimLink::leave`] at its end.
#[derive(Debug)]
pub struct SlimLink {
    conn: Conn,
    door: Door,
    queue: Arc<SlimQueue>,
}

/// What goes out over one link.
#[derive(Debug, Clone)]
pub enum SlimOut {
    /// A message, complete but for the link's MAC: `skytale_slim::Link::write` adds it.
    Onward(Arc<Onward>),
    /// An answer to a subscription, complete.
    Ack(Bytes),
}

/// What there was to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlimTaken {
    /// Some messages.
    Some,
    /// Nothing will come any more.
    Closing(Refusal),
}

impl Door {
    /// Lets a SLIM stream in whose generation is known and whose token was checked.
    pub async fn enter_slim(&self, presented: SlimPresented) -> Result<SlimLink, Stopped> {
        let conn = self.next_conn();
        let queue = Arc::new(SlimQueue::default());
        self.send(Arrival::SlimOpened {
            conn,
            presented,
            queue: Arc::clone(&queue),
        })
        .await?;
        Ok(SlimLink {
            conn,
            door: self.clone(),
            queue,
        })
    }
}

impl SlimLink {
    /// What this relay calls the link; also what it writes into `incoming_conn`.
    pub fn number(&self) -> u64 {
        self.conn.0
    }

    /// Hands a message in that has passed the link's check. Waits while the driver has enough to
    /// do, so that the peer's flow control is what fills up.
    pub async fn routed(&self, message: impl Into<Box<Routed>>) -> Result<(), Stopped> {
        let message = message.into();
        let room = self.door.room_for(message.original().len()).await?;
        self.door
            .send(Arrival::Slim {
                conn: self.conn,
                message,
                room,
            })
            .await
    }

    /// Waits for messages and appends them to `out`: at least one, and then as many as stay small
    /// together. Nothing is lost when the wait is given up.
    pub async fn take(&self, out: &mut Vec<SlimOut>) -> SlimTaken {
        loop {
            // Asked for before looking, so that nothing that comes in between is missed.
            let notified = self.queue.filled();
            if let Some(taken) = self.queue.try_take(out) {
                return taken;
            }
            notified.await;
        }
    }

    /// Waits until the stream is to be ended, whatever still waits to be written.
    pub async fn closing(&self) -> Refusal {
        loop {
            let notified = self.queue.closed();
            if let Some(refusal) = self.queue.closing() {
                return refusal;
            }
            notified.await;
        }
    }

    /// The stream is gone; what it has sent before counts.
    pub async fn leave(self) {
        let conn = self.conn;
        // A driver that has stopped has forgotten it already.
        let _ = self.door.send(Arrival::Input(Input::Gone { conn })).await;
    }
}

impl Drop for SlimLink {
    /// For an edge that was cancelled: the driver finds it when it next sweeps.
    fn drop(&mut self) {
        self.queue.abandon();
    }
}

impl<R: ArchiveReader> Running<R> {
    pub(super) fn slim_opened(
        &mut self,
        conn: Conn,
        presented: SlimPresented,
        queue: Arc<SlimQueue>,
    ) {
        self.slim.insert(conn, queue);
        let now = self.clock.now();
        self.handle(Input::SlimOpened { conn, presented }, now);
    }

    pub(super) fn slim_message(&mut self, conn: Conn, message: Box<Routed>) {
        let now = self.clock.now();
        let earlier = match self.slim_earlier(&message) {
            Ok(earlier) => earlier,
            // Without knowing whether it is a repeat, it could be stored twice. Its sender says it
            // again.
            Err(error) => {
                tracing::warn!(%error, "the archive could not be asked for repeats");
                return self.handle(Input::SlimLost, now);
            }
        };
        self.handle(
            Input::Slim {
                conn,
                message,
                earlier,
            },
            now,
        );
    }

    /// Where the message in a native agent's publication was stored before. What cannot be read is
    /// the hub's to refuse.
    pub(super) fn slim_earlier_of(
        &self,
        publish: &SlimPublish,
    ) -> Result<Option<Seq>, ArchiveError> {
        match slim_message_in(publish) {
            Ok(message) => self.slim_earlier(&message),
            Err(_) => Ok(None),
        }
    }

    fn slim_earlier(&self, message: &Routed) -> Result<Option<Seq>, ArchiveError> {
        for (agent, log, id) in self.hub.slim_keys(message) {
            if let Some(seq) = self.reader.find(&log, &agent, &id)? {
                return Ok(Some(seq));
            }
        }
        Ok(None)
    }

    /// Forgets streams whose edge was cancelled before it could say so.
    pub(super) fn slim_sweep(&mut self) {
        let now = self.clock.now();
        for conn in self.slim.abandoned() {
            self.handle(Input::Gone { conn }, now);
        }
    }
}
