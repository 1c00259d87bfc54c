//! What waits to be written to one connection: bounded in bytes, two lanes, one last word.
//!
//! The driver fills it and never waits for it; the connection's writer empties it. Over
//! [`FULL_BYTES`] the hub stops pushing what is new and reads it from the archive later, so
//! nothing is lost; answers still come, and over [`BYTES_MAX`] the connection is closed, to
//! resume from its cursor.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use skytale_wire::{frame::Closing, refusal::Refusal};
use tokio::sync::Notify;

use crate::{edge::terms::Terms, hub::Lane};

/// Encoded frames for one connection.
#[derive(Debug)]
pub struct Outbound {
    waiting: Mutex<Waiting>,
    live: Notify,
    catch_up: Notify,
    closing: Notify,
    /// Something of it has left since the driver last asked.
    got_on: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    live: VecDeque<Bytes>,
    catch_up: VecDeque<Bytes>,
    bytes: usize,
    full: bool,
    full_bytes: usize,
    lanes: Lanes,
    closing: Option<Closing>,
    abandoned: bool,
}

/// How the two lanes share the connection's streams.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Lanes {
    /// One stream, in the order of arrival: for as long as the agent has opened no second one.
    #[default]
    Merged,
    /// A stream each.
    Split,
    /// One stream with slots, on which what is new and what was asked for goes first: what is read
    /// from the archive may fill it for minutes.
    LiveFirst,
}

/// What became of a frame that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits, or the connection is closing and takes nothing more.
    Fits,
    /// It waits, and the queue has just become full.
    Full,
    /// It was dropped: the connection must be closed.
    Overflows,
}

/// What there was to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// Some frames. `drained` says that the queue was full and has room again, which the driver
    /// must be told.
    Frames {
        /// Whether to call `Link::drained`.
        drained: bool,
    },
    /// Nothing will come any more; on the live lane this is to be said last.
    Closing(Closing),
}

impl Outbound {
    /// A queue that is full when the line needs some ten seconds for it.
    pub fn for_line(terms: &Terms) -> Self {
        let rate = terms.to_agent.bytes_per_second();
        let full_bytes = rate.map_or(FULL_BYTES, |rate| {
            let seconds = usize::try_from(rate * FULL_SECONDS).unwrap_or(FULL_BYTES);
            seconds.clamp(FULL_BYTES_MIN, FULL_BYTES)
        });
        let lanes = if terms.is_slotted() {
            Lanes::LiveFirst
        } else {
            Lanes::Merged
        };
        let waiting = Waiting {
            full_bytes,
            lanes,
            ..Waiting::default()
        };
        Self {
            waiting: Mutex::new(waiting),
            live: Notify::new(),
            catch_up: Notify::new(),
            closing: Notify::new(),
            got_on: AtomicBool::new(false),
        }
    }

    /// Waits for frames of a lane and appends them to `frames`: at least one, and then as many as
    /// stay below `bytes_max`.
    pub async fn take(&self, lane: Lane, frames: &mut Vec<Bytes>, bytes_max: usize) -> Taken {
        let notify = match lane {
            Lane::Live => &self.live,
            Lane::CatchUp => &self.catch_up,
        };
        loop {
            // Asked for before looking, so that nothing that comes in between is missed.
            let notified = notify.notified();
            if let Some(taken) = self.try_take(lane, frames, bytes_max) {
                return taken;
            }
            notified.await;
        }
    }

    /// Gives catch-up its own lane from now on.
    pub fn split_lanes(&self) {
        self.waiting().lanes = Lanes::Split;
    }

    /// The writer of a line that is slow by agreement has written something: however long the rest
    /// takes, the reader is not to blame.
    pub fn note_progress(&self) {
        self.got_on.store(true, Ordering::Relaxed);
    }

    /// Lets nothing more in and says this last. The first word counts.
    pub fn close(&self, closing: &Closing) {
        {
            let mut waiting = self.waiting();
            waiting.closing.get_or_insert_with(|| closing.clone());
            waiting.catch_up.clear();
            if closing.refusal == Refusal::SlowReader {
                // It would take for ever; the cursor says where to resume.
                waiting.live.clear();
            }
        }
        self.live.notify_one();
        self.catch_up.notify_one();
        self.closing.notify_one();
    }

    /// Waits until the connection is to be closed.
    pub async fn closing(&self) -> Closing {
        loop {
            let notified = self.closing.notified();
            if let Some(closing) = &self.waiting().closing {
                return closing.clone();
            }
            notified.await;
        }
    }

    /// Why the connection is to be closed, if it is.
    pub fn close_reason(&self) -> Option<Closing> {
        self.waiting().closing.clone()
    }

    /// The writer takes it after [`Self::wake`], or when it looks anyway.
    pub(super) fn push(&self, lane: Lane, frame: Bytes) -> Pushed {
        let mut waiting = self.waiting();
        if waiting.closing.is_some() {
            return Pushed::Fits;
        }
        let bytes = waiting.bytes + cost(&frame);
        if bytes > BYTES_MAX {
            return Pushed::Overflows;
        }
        waiting.bytes = bytes;
        match (lane, waiting.lanes) {
            (Lane::CatchUp, Lanes::Split | Lanes::LiveFirst) => waiting.catch_up.push_back(frame),
            (Lane::CatchUp, Lanes::Merged) | (Lane::Live, _) => waiting.live.push_back(frame),
        }
        let over = bytes > waiting.full_bytes;
        let full = over && !std::mem::replace(&mut waiting.full, over);
        if full { Pushed::Full } else { Pushed::Fits }
    }

    /// Tells the writer that something was pushed. Said once for all that a step of the hub has for
    /// this connection, so that it leaves in one piece: an agent then hears the answer to a message
    /// together with the message's echo, and stores both at once.
    pub(super) fn wake(&self) {
        let (live, catch_up) = {
            let waiting = self.waiting();
            let catch_up = !waiting.catch_up.is_empty();
            let split = waiting.lanes == Lanes::Split;
            (
                !waiting.live.is_empty() || catch_up && !split,
                catch_up && split,
            )
        };
        if live {
            self.live.notify_one();
        }
        if catch_up {
            self.catch_up.notify_one();
        }
    }

    /// Whether nothing new is to be pushed. Only the driver pushes, so that "no" stays true until
    /// it does.
    pub(super) fn is_full(&self) -> bool {
        self.waiting().full
    }

    /// Whether [`Self::note_progress`] was said since the last time that this was asked.
    pub(super) fn got_on(&self) -> bool {
        self.got_on.swap(false, Ordering::Relaxed)
    }

    /// Nobody will take anything any more, and nobody has said so.
    pub(super) fn abandon(&self) {
        self.waiting().abandoned = true;
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.waiting().abandoned
    }

    fn try_take(&self, lane: Lane, frames: &mut Vec<Bytes>, bytes_max: usize) -> Option<Taken> {
        let mut waiting = self.waiting();
        let from = frames.len();
        let mut size = 0;
        loop {
            let catch_up = match lane {
                Lane::Live => waiting.lanes == Lanes::LiveFirst && waiting.live.is_empty(),
                Lane::CatchUp => true,
            };
            let queue = if catch_up {
                &mut waiting.catch_up
            } else {
                &mut waiting.live
            };
            let Some(next) = queue.front().map(Bytes::len) else {
                break;
            };
            if frames.len() > from && size + next > bytes_max {
                break;
            }
            size += next;
            frames.extend(queue.pop_front());
        }
        if frames.len() == from {
            return waiting.closing.clone().map(Taken::Closing);
        }
        let taken: usize = frames[from..].iter().map(cost).sum();
        waiting.bytes = waiting.bytes.saturating_sub(taken);
        let drained = waiting.full && waiting.bytes < waiting.full_bytes / 2;
        if drained {
            waiting.full = false;
        }
        Some(Taken::Frames { drained })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in this file panics while it holds the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A frame's bytes and what its place in the queue costs, so that many empty frames count too.
fn cost(frame: &Bytes) -> usize {
    frame.len() + FRAME_COST
}

/// Above this nothing new is pushed, on a line without slots.
pub const FULL_BYTES: usize = 1024 * 1024;
/// Above this the connection is closed. Room for one largest frame of each lane over the rest.
pub const BYTES_MAX: usize = 4 * 1024 * 1024;
const FRAME_COST: usize = 64;
/// What a line with slots carries in this time makes its queue full: what waits here is late by as
/// much, and the archive has it anyway.
const FULL_SECONDS: u64 = 12;
/// But it takes some answers whatever the rate. A frame that is larger still goes in; it just makes
/// the queue full.
const FULL_BYTES_MIN: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use skytale_shape::Preset;

    use super::*;

    const SLOW: Closing = Closing {
        refusal: Refusal::SlowReader,
        resume: true,
    };

    fn unshaped() -> Outbound {
        Outbound::for_line(&Terms::default())
    }

    fn shaped(preset: Preset) -> Outbound {
        Outbound::for_line(&Terms {
            to_agent: preset.shape(),
            ..Terms::default()
        })
    }

    fn frame(len: usize) -> Bytes {
        vec![7; len].into()
    }

    #[tokio::test]
    async fn a_queue_is_full_once_and_drained_once() {
        let outbound = unshaped();
        let piece = FULL_BYTES / 4;
        let pushed: Vec<Pushed> = (0..6)
            .map(|_| outbound.push(Lane::Live, frame(piece)))
            .collect();
        assert_eq!(
            pushed.iter().filter(|it| **it == Pushed::Full).count(),
            1,
            "{pushed:?}"
        );

        let mut drains = 0;
        let mut frames = Vec::new();
        for _ in 0..6 {
            if outbound.take(Lane::Live, &mut frames, piece).await
                == (Taken::Frames { drained: true })
            {
                drains += 1;
            }
        }
        assert_eq!((frames.len(), drains), (6, 1));
    }

    #[tokio::test]
    async fn what_a_step_has_for_a_connection_is_taken_in_one_piece() {
        let outbound = std::sync::Arc::new(unshaped());
        let mut frames = Vec::new();
        let taking = std::sync::Arc::clone(&outbound);
        let taker = tokio::spawn(async move {
            taking.take(Lane::Live, &mut frames, 100).await;
            frames.len()
        });
        tokio::task::yield_now().await;

        outbound.push(Lane::Live, frame(1));
        tokio::task::yield_now().await;
        outbound.push(Lane::Live, frame(2));
        tokio::task::yield_now().await;
        assert!(!taker.is_finished());
        outbound.wake();

        assert_eq!(taker.await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_wake_reaches_the_lane_that_has_something() {
        let split = unshaped();
        split.split_lanes();
        for (outbound, lane) in [
            (split, Lane::CatchUp),
            (unshaped(), Lane::Live),
            (shaped(Preset::Standard), Lane::Live),
        ] {
            let outbound = std::sync::Arc::new(outbound);
            let taking = std::sync::Arc::clone(&outbound);
            let taker = tokio::spawn(async move {
                let mut frames = Vec::new();
                taking.take(lane, &mut frames, 100).await
            });
            tokio::task::yield_now().await;

            outbound.push(Lane::CatchUp, frame(1));
            outbound.wake();

            let taken = taker.await.unwrap();
            assert_eq!(taken, Taken::Frames { drained: false }, "{lane:?}");
        }
    }

    #[tokio::test]
    async fn what_nobody_takes_ends_in_closing() {
        let outbound = unshaped();
        let mut pushed = 0;
        while outbound.push(Lane::Live, frame(1000)) != Pushed::Overflows {
            pushed += 1;
        }
        assert!(pushed <= BYTES_MAX / 1000);

        outbound.close(&SLOW);

        assert_eq!(outbound.push(Lane::Live, frame(1)), Pushed::Fits);
        let mut frames = Vec::new();
        let taken = outbound.take(Lane::Live, &mut frames, 10).await;
        assert_eq!((taken, frames.len()), (Taken::Closing(SLOW), 0));
        assert_eq!(outbound.closing().await, SLOW);
    }

    #[tokio::test]
    async fn catch_up_takes_the_live_lane_until_it_has_its_own() {
        let outbound = unshaped();
        outbound.push(Lane::CatchUp, frame(1));
        outbound.split_lanes();
        outbound.push(Lane::CatchUp, frame(2));
        outbound.push(Lane::Live, frame(3));

        let mut live = Vec::new();
        let mut catch_up = Vec::new();
        outbound.take(Lane::Live, &mut live, 100).await;
        outbound.take(Lane::CatchUp, &mut catch_up, 100).await;

        let lens = |frames: &[Bytes]| -> Vec<usize> { frames.iter().map(Bytes::len).collect() };
        assert_eq!((lens(&live), lens(&catch_up)), (vec![1, 3], vec![2]));
    }

    #[tokio::test]
    async fn the_last_word_comes_after_what_waits() {
        let outbound = unshaped();
        let closing = Closing {
            refusal: Refusal::ShuttingDown,
            resume: true,
        };
        outbound.push(Lane::Live, frame(5));
        outbound.close(&closing);
        outbound.close(&SLOW);

        let mut frames = Vec::new();
        assert_eq!(outbound.close_reason(), Some(closing));
        let _ = outbound.take(Lane::Live, &mut frames, 100).await;
        assert!(frames.is_empty(), "a slow reader gets the reason at once");
    }

    #[tokio::test]
    async fn a_slow_line_is_full_early_and_says_what_is_new_first() {
        for (preset, full_at) in [(Preset::Quiet, 32 * 1024), (Preset::Standard, 50_000)] {
            let outbound = shaped(preset);
            let mut waiting = 0;
            while outbound.push(Lane::CatchUp, frame(1_000)) != Pushed::Full {
                waiting += 1_064;
            }
            assert!(
                (full_at - 2_000..full_at + 2_000).contains(&waiting),
                "{waiting}"
            );
        }

        let outbound = shaped(Preset::Standard);
        outbound.push(Lane::CatchUp, frame(300_000));
        outbound.push(Lane::CatchUp, frame(2));
        outbound.push(Lane::Live, frame(3));
        let mut frames = Vec::new();
        for _ in 0..3 {
            outbound.take(Lane::Live, &mut frames, 0).await;
        }
        let lens: Vec<usize> = frames.iter().map(Bytes::len).collect();
        assert_eq!(lens, [3, 300_000, 2]);
    }

    #[test]
    fn progress_is_told_once() {
        let outbound = shaped(Preset::Standard);
        assert!(!outbound.got_on());

        outbound.note_progress();

        assert!(outbound.got_on());
        assert!(!outbound.got_on());
    }
}
