//! What waits to be written to SLIM streams.
//!
//! Each queue is bounded in bytes, and so are all together. What does not fit into one is dropped for
//! that link alone and counted: SLIM's sessions say again what was not acknowledged, and nothing here
//! has acknowledged it. When the room of all is used up, the links that hold the most of it are
//! ended, so that those who do not read do not take it from those who do.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use skytale_slim::Onward;
use skytale_wire::refusal::Refusal;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, futures::Notified};

use super::{SlimOut, SlimTaken};
use crate::hub::Conn;

/// The queues of all SLIM streams.
pub(crate) struct SlimQueues {
    queues: HashMap<Conn, Arc<SlimQueue>>,
    room: Arc<Semaphore>,
    room_bytes: usize,
    /// Messages that were dropped for one link each.
    overrun: u64,
}

impl SlimQueues {
    pub(crate) fn new() -> Self {
        Self::holding(SLIM_WAITING_BYTES_MAX)
    }

    fn holding(bytes: usize) -> Self {
        Self {
            queues: HashMap::new(),
            room: Arc::new(Semaphore::new(bytes / ROOM_UNIT)),
            room_bytes: bytes,
            overrun: 0,
        }
    }

    pub(crate) fn insert(&mut self, conn: Conn, queue: Arc<SlimQueue>) {
        self.queues.insert(conn, queue);
    }

    pub(crate) fn remove(&mut self, conn: Conn) {
        self.queues.remove(&conn);
    }

    pub(crate) fn contains(&self, conn: Conn) -> bool {
        self.queues.contains_key(&conn)
    }

    pub(crate) fn overrun(&self) -> u64 {
        self.overrun
    }

    /// A message for many links. It takes room once, however many share it.
    pub(crate) fn deliver(&mut self, conns: &[Conn], onward: &Arc<Onward>) {
        let Some(room) = self.make_room(onward.len() + PLACE_COST * conns.len()) else {
            self.overrun += conns.len() as u64;
            return;
        };
        for conn in conns {
            self.push(*conn, SlimOut::Onward(Arc::clone(onward)), &room);
        }
    }

    pub(crate) fn answer(&mut self, conn: Conn, answer: SlimOut) {
        match self.make_room(cost(&answer)) {
            Some(room) => self.push(conn, answer, &room),
            None => self.overrun += 1,
        }
    }

    fn push(&mut self, conn: Conn, out: SlimOut, room: &Arc<OwnedSemaphorePermit>) {
        if let Some(queue) = self.queues.get(&conn)
            && !queue.push(out, room)
        {
            self.overrun += 1;
        }
    }

    /// Ends as many of the fullest links as it takes. `None` when even that is not enough.
    fn make_room(&mut self, bytes: usize) -> Option<Arc<OwnedSemaphorePermit>> {
        if bytes > self.room_bytes {
            return None;
        }
        let units = u32::try_from(bytes.div_ceil(ROOM_UNIT)).ok()?;
        loop {
            if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(units) {
                return Some(Arc::new(room));
            }
            let by_bytes = |queue: &&Arc<SlimQueue>| queue.waiting().bytes;
            let fullest = self.queues.values().max_by_key(by_bytes)?;
            let lost = fullest.cut_off();
            if lost == 0 {
                return None;
            }
            tracing::warn!(
                lost,
                "the memory for slow SLIM streams is used up: the slowest is ended"
            );
            self.overrun += lost as u64;
        }
    }

    /// Ends a stream, if the connection is one.
    pub(crate) fn close(&self, conn: Conn, refusal: Refusal) {
        if let Some(queue) = self.queues.get(&conn) {
            queue.close(refusal);
        }
    }

    pub(crate) fn close_all(&self, refusal: Refusal) {
        for queue in self.queues.values() {
            queue.close(refusal);
        }
    }

    /// Streams whose edge was cancelled before it could say so. They are forgotten here.
    pub(crate) fn abandoned(&mut self) -> Vec<Conn> {
        let is_gone = |_: &Conn, queue: &mut Arc<SlimQueue>| queue.waiting().abandoned;
        self.queues
            .extract_if(is_gone)
            .map(|(conn, _)| conn)
            .collect()
    }
}

/// What waits to be written to one link.
#[derive(Default)]
pub(crate) struct SlimQueue {
    waiting: Mutex<Waiting>,
    filled: Notify,
    closed: Notify,
}

#[derive(Default)]
struct Waiting {
    out: VecDeque<Entry>,
    bytes: usize,
    closing: Option<Refusal>,
    abandoned: bool,
}

struct Entry {
    out: SlimOut,
    /// Given back when the last link has it.
    _room: Arc<OwnedSemaphorePermit>,
}

impl SlimQueue {
    /// False when it had no room.
    fn push(&self, out: SlimOut, room: &Arc<OwnedSemaphorePermit>) -> bool {
        let mut waiting = self.waiting();
        if waiting.closing.is_some() {
            return true;
        }
        let bytes = waiting.bytes + cost(&out);
        if bytes > SLIM_QUEUE_BYTES_MAX {
            return false;
        }
        waiting.bytes = bytes;
        waiting.out.push_back(Entry {
            out,
            _room: Arc::clone(room),
        });
        drop(waiting);
        self.filled.notify_one();
        true
    }

    /// Lets nothing more in. The first word counts.
    fn close(&self, refusal: Refusal) {
        self.waiting().closing.get_or_insert(refusal);
        self.filled.notify_one();
        self.closed.notify_one();
    }

    /// Closes it and forgets what waits; says how many messages that were. Where nothing waits, as its
    /// reader has just taken all, it stays open.
    fn cut_off(&self) -> usize {
        let mut waiting = self.waiting();
        waiting.bytes = 0;
        let lost = std::mem::take(&mut waiting.out).len();
        drop(waiting);
        if lost > 0 {
            self.close(Refusal::SlowReader);
        }
        lost
    }

    /// Ends when something may have come.
    pub(super) fn filled(&self) -> Notified<'_> {
        self.filled.notified()
    }

    /// Ends when it may have been closed.
    pub(super) fn closed(&self) -> Notified<'_> {
        self.closed.notified()
    }

    pub(super) fn closing(&self) -> Option<Refusal> {
        self.waiting().closing
    }

    /// Nobody takes from it any more.
    pub(super) fn abandon(&self) {
        self.waiting().abandoned = true;
    }

    pub(super) fn try_take(&self, out: &mut Vec<SlimOut>) -> Option<SlimTaken> {
        let mut waiting = self.waiting();
        let from = out.len();
        let mut bytes = 0;
        while let Some(next) = waiting.out.front().map(|entry| cost(&entry.out)) {
            if out.len() > from && bytes + next > TAKE_BYTES_MAX {
                break;
            }
            bytes += next;
            out.extend(waiting.out.pop_front().map(|entry| entry.out));
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
/// Bytes that may wait for all links together.
const SLIM_WAITING_BYTES_MAX: usize = 256 * 1024 * 1024;
const ROOM_UNIT: usize = 256;
const PLACE_COST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(len: usize) -> SlimOut {
        SlimOut::Ack(vec![7; len].into())
    }

    fn room() -> Arc<OwnedSemaphorePermit> {
        let all = Arc::new(Semaphore::new(1));
        Arc::new(all.try_acquire_owned().unwrap())
    }

    #[test]
    fn a_queue_takes_only_so_much_and_then_more_when_there_is_room() {
        let queue = SlimQueue::default();
        let mut pushed = 0;
        while queue.push(ack(1_000_000), &room()) {
            pushed += 1;
        }
        assert_eq!(pushed, 8);
        let mut out = Vec::new();
        assert_eq!(queue.try_take(&mut out), Some(SlimTaken::Some));
        assert_eq!(out.len(), 1, "large ones are taken one by one");
        assert!(queue.push(ack(1_000_000), &room()));
        assert!(!queue.push(ack(1_000_000), &room()));
    }

    #[test]
    fn what_waits_is_said_before_the_end() {
        let queue = SlimQueue::default();
        assert!(queue.push(ack(1), &room()) && queue.push(ack(2), &room()));
        queue.close(Refusal::ShuttingDown);
        queue.close(Refusal::TokenExpired);
        assert!(
            queue.push(ack(3), &room()),
            "not counted as lost: the end is known"
        );

        let mut out = Vec::new();
        assert_eq!(queue.try_take(&mut out), Some(SlimTaken::Some));
        assert_eq!(out.len(), 2);
        let end = SlimTaken::Closing(Refusal::ShuttingDown);
        assert_eq!(queue.try_take(&mut out), Some(end));
    }

    #[test]
    fn when_all_room_is_used_up_those_who_do_not_read_are_ended() {
        let mut queues = SlimQueues::holding(1_000_000);
        let all: Vec<Arc<SlimQueue>> = (0..3).map(|_| Arc::default()).collect();
        for (number, queue) in (0..).zip(&all) {
            queues.insert(Conn(number), Arc::clone(queue));
        }
        let mut out = Vec::new();
        for _ in 0..8 {
            queues.answer(Conn(0), ack(100_000));
        }
        queues.answer(Conn(1), ack(100_000));

        for _ in 0..50 {
            queues.answer(Conn(2), ack(150_000));
            assert_eq!(all[2].try_take(&mut out), Some(SlimTaken::Some));
        }

        assert_eq!(all[0].closing(), Some(Refusal::SlowReader));
        assert_eq!(queues.overrun(), 8);
        assert_eq!(out.len(), 50, "the one that reads has lost nothing");
        assert_eq!(all[1].try_take(&mut out), Some(SlimTaken::Some));
        queues.answer(Conn(2), ack(2_000_000));
        assert_eq!(queues.overrun(), 9, "what never has room ends nobody");
        assert_eq!((all[1].closing(), all[2].closing()), (None, None));
    }
}
