//! A SLIM stream's side of the driver: entering, handing messages in, and the queue of what goes
//! out.
//!
//! The queue is bounded in bytes. What does not fit is dropped for this link alone and counted:
//! SLIM's sessions say again what was not acknowledged, and nothing here has acknowledged it.
//! Signing for the link and writing are the edge's.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use skytale_slim::{Onward, Routed};
use skytale_wire::{frame::SlimPublish, id::Seq, refusal::Refusal};
use tokio::sync::Notify;

use super::{
    Running,
    door::{Arrival, Door, Stopped},
};
use crate::{
    archive::{ArchiveError, ArchiveReader},
    hub::{Conn, Input, SlimPresented, slim_message_in},
};

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
            let notified = self.queue.filled.notified();
            if let Some(taken) = self.queue.try_take(out) {
                return taken;
            }
            notified.await;
        }
    }

    /// Waits until the stream is to be ended, whatever still waits to be written.
    pub async fn closing(&self) -> Refusal {
        loop {
            let notified = self.queue.closed.notified();
            if let Some(refusal) = self.queue.waiting().closing {
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
        self.queue.waiting().abandoned = true;
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

    /// Messages for many links; what a full queue has no room for is counted.
    pub(super) fn slim_deliver(&mut self, conns: &[Conn], onward: &Arc<Onward>) {
        for conn in conns {
            self.slim_push(*conn, SlimOut::Onward(Arc::clone(onward)));
        }
    }

    pub(super) fn slim_push(&mut self, conn: Conn, out: SlimOut) {
        if let Some(queue) = self.slim.get(&conn)
            && !queue.push(out)
        {
            self.slim_overrun += 1;
        }
    }

    /// Ends a SLIM stream, if the connection is one.
    pub(super) fn slim_close(&mut self, conn: Conn, refusal: Refusal) {
        if let Some(queue) = self.slim.get(&conn) {
            queue.close(refusal);
        }
    }

    /// Forgets streams whose edge was cancelled before it could say so.
    pub(super) fn slim_sweep(&mut self) {
        let now = self.clock.now();
        let gone: Vec<Conn> = self
            .slim
            .iter()
            .filter(|(_, queue)| queue.waiting().abandoned)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in gone {
            self.slim.remove(&conn);
            self.handle(Input::Gone { conn }, now);
        }
    }
}

/// What waits to be written to one link.
#[derive(Default)]
pub(super) struct SlimQueue {
    waiting: Mutex<Waiting>,
    filled: Notify,
    closed: Notify,
}

#[derive(Default)]
struct Waiting {
    out: VecDeque<SlimOut>,
    bytes: usize,
    closing: Option<Refusal>,
    abandoned: bool,
}

impl SlimQueue {
    /// False when it had no room.
    fn push(&self, out: SlimOut) -> bool {
        let mut waiting = self.waiting();
        if waiting.closing.is_some() {
            return true;
        }
        let bytes = waiting.bytes + cost(&out);
        if bytes > SLIM_QUEUE_BYTES_MAX {
            return false;
        }
        waiting.bytes = bytes;
        waiting.out.push_back(out);
        drop(waiting);
        self.filled.notify_one();
        true
    }

    /// Lets nothing more in. The first word counts.
    pub(super) fn close(&self, refusal: Refusal) {
        self.waiting().closing.get_or_insert(refusal);
        self.filled.notify_one();
        self.closed.notify_one();
    }

    fn try_take(&self, out: &mut Vec<SlimOut>) -> Option<SlimTaken> {
        let mut waiting = self.waiting();
        let from = out.len();
        let mut bytes = 0;
        while let Some(next) = waiting.out.front().map(cost) {
            if out.len() > from && bytes + next > TAKE_BYTES_MAX {
                break;
            }
            bytes += next;
            out.extend(waiting.out.pop_front());
        }
        waiting.bytes -= bytes;
        if out.len() > from {
            return Some(SlimTaken::Some);
        }
        waiting.closing.map(SlimTaken::Closing)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in this file panics while it holds the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SlimQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlimQueue")
            .field("bytes", &self.waiting().bytes)
            .finish_non_exhaustive()
    }
}

/// A message's bytes and what its place in the queue costs. Links that share a message are each
/// charged for it: it lives until the slowest has taken it.
fn cost(out: &SlimOut) -> usize {
    PLACE_COST
        + match out {
            SlimOut::Onward(onward) => onward.len(),
            SlimOut::Ack(bytes) => bytes.len(),
        }
}

/// Bytes that may wait for one link: two of the largest messages. Beyond them what is new is
/// dropped for this link.
pub const SLIM_QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes that one take gives, beyond its first message.
const TAKE_BYTES_MAX: usize = 256 * 1024;
const PLACE_COST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(len: usize) -> SlimOut {
        SlimOut::Ack(vec![7; len].into())
    }

    #[test]
    fn a_queue_takes_only_so_much_and_then_more_when_there_is_room() {
        let queue = SlimQueue::default();
        let mut pushed = 0;
        while queue.push(ack(1_000_000)) {
            pushed += 1;
        }
        assert_eq!(pushed, 8);
        let mut out = Vec::new();
        assert_eq!(queue.try_take(&mut out), Some(SlimTaken::Some));
        assert_eq!(out.len(), 1, "large ones are taken one by one");
        assert!(queue.push(ack(1_000_000)));
        assert!(!queue.push(ack(1_000_000)));
    }

    #[test]
    fn what_waits_is_said_before_the_end() {
        let queue = SlimQueue::default();
        assert!(queue.push(ack(1)) && queue.push(ack(2)));
        queue.close(Refusal::ShuttingDown);
        queue.close(Refusal::TokenExpired);
        assert!(queue.push(ack(3)), "not counted as lost: the end is known");

        let mut out = Vec::new();
        assert_eq!(queue.try_take(&mut out), Some(SlimTaken::Some));
        assert_eq!(out.len(), 2);
        let end = SlimTaken::Closing(Refusal::ShuttingDown);
        assert_eq!(queue.try_take(&mut out), Some(end));
    }
}
