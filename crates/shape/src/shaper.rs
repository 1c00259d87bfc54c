//! One direction of a line: frames in, cells out, at the instants that its shape says.
//!
//! The shaper decides *what* leaves; `schedule.rs` decides *when*, and is told nothing of
//! what waits. In the slotted modes a cell is sealed at its slot from what waits at that moment, so
//! whatever was pushed in between has changed neither an instant nor a size.
//!
//! It has no clock and no socket. Whoever drives it calls [`Shaper::advance`] at
//! [`Shaper::next_wake`] and writes what that gives, each cell as a datagram of its own where cells
//! have one size.

use std::fmt;
use std::ops::AddAssign;

use rand_chacha::ChaCha8Rng;

use crate::error::Error;
use crate::line::{MAX_FRAME, MAX_WAITING, Outgoing};
use crate::schedule::{Micros, Schedule};
use crate::shape::{Bulk, Mode, Shape};

/// The sending end of a shaped direction.
pub struct Shaper {
    shape: Shape,
    frames: Outgoing,
    pace: Pace,
    /// The latest instant that was shown.
    now: Micros,
}

/// What decides when cells leave.
enum Pace {
    /// Whatever waits leaves at once.
    AtOnce,
    /// So it does here, and cover is what overflows a bucket of tokens: slots fill it, real cells
    /// take one each while there are any.
    Tokens { schedule: Schedule, taken: u64 },
    /// Slots, and nothing but slots, besides the first `urgent` bytes that wait.
    Slots { schedule: Schedule, urgent: usize },
}

/// What left in one step, or in many added up. A cell is real or cover, and may besides have been
/// beside the schedule.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Cells with frames.
    pub real: u64,
    /// Cells without.
    pub cover: u64,
    /// Of the real ones, those that did not wait for a slot of a mode that has slots. Not 0 means
    /// that a watcher could see a transfer: worth telling the application.
    pub over: u64,
    /// Bytes of real cells, with their fill.
    pub real_bytes: u64,
    /// Bytes of cover.
    pub cover_bytes: u64,
    /// Slots in which nothing left because nobody came in time: the program or the machine slept.
    pub missed: u64,
}

impl Shaper {
    /// A direction that begins now. `schedule_rng` is used for nothing but instants and sizes of
    /// cover, `fill_rng` for all that is inside cells; a program seeds both from the operating
    /// system. They must not be the same: fill is drawn as frames leave it room.
    pub fn new(shape: Shape, schedule_rng: ChaCha8Rng, fill_rng: ChaCha8Rng, now: Micros) -> Self {
        let schedule = || Schedule::new(&shape, schedule_rng, now);
        let (pace, waiting_max) = match shape.mode() {
            Mode::Padded => (Pace::AtOnce, MAX_WAITING),
            Mode::Immediate => {
                let schedule = schedule();
                (Pace::Tokens { schedule, taken: 0 }, MAX_WAITING)
            }
            Mode::Adaptive | Mode::Constant => {
                let schedule = schedule();
                (
                    Pace::Slots {
                        schedule,
                        urgent: 0,
                    },
                    SLOTTED_WAITING_MAX,
                )
            }
        };
        Self {
            shape,
            frames: Outgoing::holding(waiting_max, fill_rng),
            pace,
            now,
        }
    }

    /// Changes how much may wait here. More belongs outside, where it can still be put in another
    /// order or be given up.
    pub fn hold_at_most(&mut self, bytes: usize) {
        self.frames.hold_at_most(bytes);
    }

    /// For a driver that takes frames from a queue of its own as long as [`Self::wants_more`]: there
    /// is then room for one of any size behind what may wait.
    pub fn hold_what_is_wanted(&mut self) {
        self.hold_at_most(MAX_FRAME + 2 * AHEAD_UNSLOTTED);
    }

    /// Whether less waits than the next few slots carry. What is taken later can still be overtaken
    /// outside, or be given up.
    pub fn wants_more(&self) -> bool {
        let ahead = if self.shape.mode().is_slotted() {
            self.shape.cell() * AHEAD_SLOTS
        } else {
            AHEAD_UNSLOTTED
        };
        self.frames.waiting() < ahead
    }

    /// How long the pieces are in which a driver writes what [`Self::advance`] has given, or `None`
    /// for all of it in one: where cells have one size each is a datagram of its own, unless some
    /// have left beside the schedule, which shows anyway.
    pub fn piece(&self, passed: &Passed) -> Option<usize> {
        (self.shape.mode().is_slotted() && passed.over == 0).then(|| self.shape.cell())
    }

    /// Lets a frame wait. Frames leave in the order in which they were pushed, so one that is
    /// [`Bulk::Now`] takes all before it along. Where the shape does not allow that, it waits like
    /// the others.
    ///
    /// `Full` means that slots must pass first: ask [`Self::room`]. An empty line takes any frame
    /// up to [`crate::line::MAX_FRAME`].
    pub fn push(&mut self, frame: &[u8], bulk: Bulk) -> Result<(), Error> {
        self.frames.push(frame)?;
        if let Pace::Slots { urgent, .. } = &mut self.pace
            && self.shape.bulk() == Bulk::Now
            && bulk == Bulk::Now
        {
            *urgent = self.frames.waiting();
        }
        Ok(())
    }

    /// The longest frame that [`Self::push`] takes now, or `None` when it takes none.
    pub fn room(&self) -> Option<usize> {
        self.frames.room()
    }

    /// How many bytes of frames wait, with the length before each.
    pub fn waiting(&self) -> usize {
        self.frames.waiting()
    }

    /// What this direction looks like. In a slotted mode all that [`Self::advance`] gives are cells
    /// of [`Shape::cell`] bytes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Appends to `out` the cells that leave now and says what they were.
    ///
    /// Calls at other instants than [`Self::next_wake`] do no harm. One that comes too late for
    /// slots loses them; a clock that leaps or goes back is such a call.
    pub fn advance(&mut self, now: Micros, out: &mut Vec<u8>) -> Passed {
        self.now = now;
        match &mut self.pace {
            Pace::AtOnce => drain(&mut self.frames, out),
            Pace::Tokens { schedule, taken } => {
                let mut passed = drain(&mut self.frames, out);
                *taken = (*taken + passed.real).min(u64::from(self.shape.bank()));
                let due = schedule.advance(now);
                *taken = taken.saturating_sub(due.missed);
                for _ in 0..due.slots {
                    // Drawn even if it is not needed: sizes are then the same with and without traffic.
                    let bucket = schedule.draw_bucket();
                    if *taken > 0 {
                        *taken -= 1;
                    } else {
                        self.frames.cover_bucket(bucket, out);
                        passed.cover += 1;
                        passed.cover_bytes += bucket as u64;
                    }
                }
                passed.missed = due.missed;
                passed
            }
            Pace::Slots { schedule, urgent } => {
                let cell = self.shape.cell();
                let due = schedule.advance(now);
                let mut passed = Passed {
                    missed: due.missed,
                    ..Passed::default()
                };
                for _ in 0..due.slots {
                    if let Some(left) = self.frames.stream_cell(cell, out) {
                        *urgent = urgent.saturating_sub(left);
                        passed.real += 1;
                    } else {
                        self.frames.cover_cell(cell, out);
                        passed.cover += 1;
                    }
                }
                while *urgent > 0
                    && let Some(left) = self.frames.stream_cell(cell, out)
                {
                    *urgent = urgent.saturating_sub(left);
                    passed.real += 1;
                    passed.over += 1;
                }
                passed.real_bytes = passed.real * cell as u64;
                passed.cover_bytes = passed.cover * cell as u64;
                passed
            }
        }
    }

    /// When to call [`Self::advance`] next; `None` until something is pushed. In a slotted mode a
    /// push does not change it, unless the frame leaves at once.
    pub fn next_wake(&self) -> Option<Micros> {
        match &self.pace {
            Pace::AtOnce => (self.frames.waiting() > 0).then_some(self.now),
            Pace::Tokens { schedule, .. } => {
                let at_once = self.frames.waiting() > 0;
                Some(if at_once {
                    self.now
                } else {
                    schedule.next_wake()
                })
            }
            Pace::Slots { schedule, urgent } => Some(if *urgent > 0 {
                self.now
            } else {
                schedule.next_wake()
            }),
        }
    }
}

/// Frames may hold tokens, so only the amount is shown; nor is the schedule, which is what a watcher
/// would like to know.
impl fmt::Debug for Shaper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shaper")
            .field("shape", &self.shape)
            .field("waiting", &self.frames.waiting())
            .finish_non_exhaustive()
    }
}

impl Passed {
    /// All cells.
    pub fn cells(&self) -> u64 {
        self.real + self.cover
    }

    /// All bytes of cells.
    pub fn bytes(&self) -> u64 {
        self.real_bytes + self.cover_bytes
    }
}

impl AddAssign for Passed {
    fn add_assign(&mut self, more: Self) {
        self.real += more.real;
        self.cover += more.cover;
        self.over += more.over;
        self.real_bytes += more.real_bytes;
        self.cover_bytes += more.cover_bytes;
        self.missed += more.missed;
    }
}

fn drain(frames: &mut Outgoing, out: &mut Vec<u8>) -> Passed {
    let before = out.len();
    let real = frames.drain_counting(out);
    Passed {
        real,
        real_bytes: (out.len() - before) as u64,
        ..Passed::default()
    }
}

/// What waits for slots by default: some seconds at 4 a second. `push` answers `Full` beyond it, and
/// the rest is kept by the caller.
pub const SLOTTED_WAITING_MAX: usize = 16 * 1_024;

/// Slots that [`Shaper::wants_more`] provides for before they come: half a burst's worth.
const AHEAD_SLOTS: usize = 4;
/// And what may wait where nothing limits a write.
const AHEAD_UNSLOTTED: usize = 64 * 1_024;

#[cfg(test)]
mod tests;
