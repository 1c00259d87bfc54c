//! When slots are: drawn from a generator of its own, from the clock and from nothing else.
//!
//! This is the wall that hides activity. Nothing here takes a frame, a length or a queue, so nothing
//! that is said can move a slot.
//!
//! The rate divides time into equal intervals with one slot each. Even, the first half of each
//! interval is room for its slot, which is drawn evenly within; where the first interval begins is
//! drawn once. Jittered, the whole interval is room; and now and then an *episode*: `k` intervals in
//! which nothing leaves, and then their `k` slots a few milliseconds apart within the last. The mean
//! rate stays exactly what it was.
//!
//! ```text
//! interval  |       |       |       |       |       |       |
//! even      |  x    |x      | x     |  x    |x      | x     |
//! jittered  |    x  |x      |       |       |  xxx  |      x|      an episode of three
//! ```
//!
//! Always in the same place, even slots would show by which few milliseconds a busy program is
//! late with them.
//!
//! The schedule has a time of its own, which follows the clock it is shown but never goes back and
//! never leaps: see [`Schedule::advance`].

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::bucket::BUCKETS;
use crate::shape::{COVER_WEIGHTS, Mode, Shape};

/// An instant: microseconds since some beginning that is the same for one program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(u64);

impl Micros {
    /// The instant this many microseconds after the beginning.
    pub const fn new(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the beginning.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// How long until then; nothing if that has passed.
    pub const fn until(self, then: Self) -> Duration {
        Duration::from_micros(then.0.saturating_sub(self.0))
    }
}

/// The slots of one direction.
pub(crate) struct Schedule {
    rng: ChaCha8Rng,
    interval: u64,
    pattern: Pattern,
    /// The schedule's own time, in microseconds since it began.
    time: u64,
    /// What the clock showed then.
    clock: Micros,
    /// The next slot, in the schedule's time.
    next: u64,
}

/// What has come due.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    /// Slots to be served now.
    pub slots: u64,
    /// Slots that nobody came for in time. They are gone.
    pub missed: u64,
}

enum Pattern {
    Even {
        /// Where the room of the next slot begins.
        room: u64,
    },
    Jittered {
        bank: u32,
        /// Where the first interval begins that has no slot yet.
        planned: u64,
        /// Slots of a burst that are still to come, and how far apart they are at most.
        burst: u32,
        apart_max: u64,
    },
}

impl Schedule {
    /// The schedule of a shape, beginning now.
    pub(crate) fn new(shape: &Shape, mut rng: ChaCha8Rng, now: Micros) -> Self {
        let interval = slot_interval(shape.millislots());
        let jittered = |bank| Pattern::Jittered {
            bank,
            planned: 0,
            burst: 0,
            apart_max: 0,
        };
        let pattern = match shape.mode() {
            Mode::Constant => Pattern::Even {
                room: rng.random_range(0..interval),
            },
            // There the bank is the depth of the token bucket.
            Mode::Immediate => jittered(0),
            Mode::Padded | Mode::Adaptive => jittered(shape.bank()),
        };
        let mut schedule = Self {
            rng,
            interval,
            pattern,
            time: 0,
            clock: now,
            next: 0,
        };
        schedule.step();
        schedule
    }

    /// Lets the clock go on to `now` and tells what came due on the way.
    ///
    /// A slot is served up to one interval late (at least [`LATE_MIN`], since timers of busy
    /// machines are late by some milliseconds). What is older is missed: after a suspension the line
    /// goes on as if nothing had been, instead of making up for it. Leaps of the clock, which look
    /// the same, lose whole intervals without drawing their slots, so that even a leap of years
    /// takes no time, and even slots keep to their rooms. A clock that goes back stops the schedule's
    /// time for that one call.
    pub(crate) fn advance(&mut self, now: Micros) -> Due {
        let passed = now.0.saturating_sub(self.clock.0);
        self.clock = now;
        let late_max = self.interval.max(LATE_MIN);
        // Counted from the next slot: the silence of an episode is no leap.
        let late = passed.saturating_sub(self.next - self.time);
        let leapt = late.saturating_sub(late_max + self.interval) / self.interval;
        self.time += passed - leapt * self.interval;

        let mut due = Due {
            slots: 0,
            missed: leapt,
        };
        while self.next <= self.time {
            if self.time - self.next > late_max {
                due.missed += 1;
            } else {
                due.slots += 1;
            }
            self.step();
        }
        due
    }

    /// When the next slot is, by the clock last shown.
    pub(crate) fn next_wake(&self) -> Micros {
        Micros(self.clock.0.saturating_add(self.next - self.time))
    }

    /// The size of a cover cell that looks like a real one. A draw of the schedule, because sizes are
    /// as visible as instants.
    pub(crate) fn draw_bucket(&mut self) -> usize {
        let mut drawn = self.rng.random_range(0..COVER_WEIGHTS.iter().sum::<u32>());
        for (bucket, weight) in BUCKETS.into_iter().zip(COVER_WEIGHTS) {
            if drawn < weight {
                return bucket;
            }
            drawn -= weight;
        }
        unreachable!("what was drawn is less than the sum of all weights")
    }

    /// Goes on to the slot after the next.
    fn step(&mut self) {
        let (bank, planned, burst, apart_max) = match &mut self.pattern {
            Pattern::Even { room } => {
                // Rates end at 200 a second, so a room has some milliseconds at least.
                self.next = *room + self.rng.random_range(0..self.interval / 2);
                *room += self.interval;
                return;
            }
            Pattern::Jittered {
                bank,
                planned,
                burst,
                apart_max,
            } => (bank, planned, burst, apart_max),
        };
        if *burst > 0 {
            *burst -= 1;
            self.next += self.rng.random_range(*apart_max / 2..=*apart_max);
            return;
        }
        let slots = if *bank >= 2 && self.rng.random_ratio(1, EPISODE_EVERY) {
            self.rng.random_range(2..=*bank)
        } else {
            1
        };
        let last = *planned + self.interval * u64::from(slots - 1);
        *planned = last + self.interval;
        *burst = slots - 1;
        // A burst takes at most half an interval, so that it ends before the next one begins.
        *apart_max = APART_MAX.min(self.interval / (2 * u64::from(slots)));
        let burst_len = u64::from(*burst) * *apart_max;
        self.next = last + self.rng.random_range(0..self.interval - burst_len);
    }
}

/// From one slot to the next on average, in microseconds.
pub(crate) const fn slot_interval(millislots: u32) -> u64 {
    // To the nearest microsecond: at most one part in 10,000 off, at the highest rates.
    (1_000_000_000 + millislots as u64 / 2) / millislots as u64
}

/// An episode begins with one in so many slots: at 4 slots a second every half a minute.
pub(crate) const EPISODE_EVERY: u32 = 128;

/// How far apart the slots of a burst are, at most.
const APART_MAX: u64 = 6_000;

/// A slot may be served this late at any rate.
const LATE_MIN: u64 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const SECOND: u64 = 1_000_000;

    fn schedule(shape: Shape, seed: u64) -> Schedule {
        Schedule::new(&shape, ChaCha8Rng::seed_from_u64(seed), Micros(0))
    }

    fn adaptive(bank: u32) -> Shape {
        Shape::new(Mode::Adaptive).with_bank(bank).unwrap()
    }

    /// The instants of all slots before `end`, as a driver that is never late finds them.
    fn slots(schedule: &mut Schedule, end: u64) -> Vec<u64> {
        let mut slots = Vec::new();
        loop {
            let wake = schedule.next_wake();
            if wake.0 >= end {
                return slots;
            }
            let due = schedule.advance(wake);
            assert_eq!(due.missed, 0);
            assert!(due.slots >= 1);
            slots.extend((0..due.slots).map(|_| wake.0));
        }
    }

    #[test]
    fn each_interval_has_its_slot_or_an_episode_that_makes_up_for_it() {
        for bank in [0, 1, 2, 8, 64] {
            let slots = slots(&mut schedule(adaptive(bank), 1), 3_600 * SECOND);
            // Not a matter of chance: at each instant at most one episode is owed.
            let owed = usize::try_from(bank.max(1)).unwrap();
            assert!(slots.len() <= 14_400 && slots.len() >= 14_400 - owed);
            assert!(slots.is_sorted());
            let mut behind_max = 0;
            for (at, slot) in slots.iter().enumerate() {
                let behind = slot / 250_000 - at as u64;
                behind_max = behind_max.max(behind);
            }
            assert!(behind_max < u64::from(bank.max(1)), "{behind_max}");
            assert!(bank < 2 || behind_max > 0, "episodes happen");
        }
    }

    /// 100 hours have 1.44 million intervals and, with a mean of 5 intervals an episode, 10,909
    /// episodes with a standard deviation below 105. A fair generator misses by six of those with
    /// a chance of 2e-9 over the choice of seeds. Two in fourteen episodes have two slots and
    /// may leave no gap of two intervals: those of three and more always do.
    #[test]
    fn episodes_are_as_rare_as_said_and_bursts_are_short() {
        let slots = slots(&mut schedule(adaptive(8), 2), 360_000 * SECOND);
        let gaps: Vec<u64> = slots.windows(2).map(|pair| pair[1] - pair[0]).collect();

        let long = gaps.iter().filter(|gap| **gap > 2 * 250_000).count();
        let pairs = 10_909 / 7;
        assert!(
            (10_909 - pairs - 630..=10_909 + 630).contains(&long),
            "{long}"
        );
        assert!(gaps.iter().all(|gap| *gap < 9 * 250_000));
        for (at, _) in gaps
            .iter()
            .enumerate()
            .filter(|(_, gap)| **gap > 5 * 250_000)
        {
            assert!(
                gaps[at + 1..at + 4]
                    .iter()
                    .all(|gap| (3_000..=6_000).contains(gap)),
                "after a long silence slots follow each other: {:?}",
                &gaps[at..at + 4]
            );
        }
    }

    /// At four slots a second a room is 125 ms long. Of the 2,400 slots of ten minutes none lies in its
    /// first millisecond, or none in its last, with a chance of 1e-8.
    #[test]
    fn even_slots_lie_anywhere_in_rooms_that_follow_each_other_strictly() {
        let beginnings: Vec<u64> = (0..50)
            .map(|seed| {
                let slots = slots(
                    &mut schedule(Shape::new(Mode::Constant), seed),
                    600 * SECOND,
                );
                // The last room may reach over the end.
                assert!((2_399..=2_400).contains(&slots.len()));
                let places = || (0..).zip(&slots).map(|(at, slot)| slot - at * 250_000);
                let (first, last) = (places().min().unwrap(), places().max().unwrap());
                assert!((123_000..125_000).contains(&(last - first)));
                first
            })
            .collect();
        // All 50 on one side with a chance of 2e-15 over the choice of seeds.
        assert!(beginnings.iter().any(|first| *first < 125_000));
        assert!(beginnings.iter().any(|first| *first >= 125_000));
    }

    #[test]
    fn a_suspended_program_misses_slots_and_never_makes_up_for_them() {
        for shape in [Shape::new(Mode::Constant), adaptive(0)] {
            let mut schedule = schedule(shape, 3);
            let before = slots(&mut schedule, 10 * SECOND).len() as u64;

            let due = schedule.advance(Micros(3_610 * SECOND));
            assert!(due.slots <= 2, "{due:?}");
            let after = slots(&mut schedule, 3_620 * SECOND).len() as u64;

            let all = before + due.slots + due.missed + after;
            assert!(all.abs_diff(4 * 3_620) <= 2, "{all}");
            assert!(after.abs_diff(40) <= 1, "{after}");
        }
    }

    #[test]
    fn even_slots_keep_to_their_rooms_over_a_suspension() {
        let mut schedule = schedule(Shape::new(Mode::Constant), 4);
        let before = slots(&mut schedule, 600 * SECOND);

        schedule.advance(Micros(86_400 * SECOND + 123_456));
        let after = slots(&mut schedule, 87_000 * SECOND);

        // The room begins less than a millisecond before the first of the first 2,400 places.
        let places = (0..).zip(&before).map(|(at, slot)| slot - at * 250_000);
        let first = places.min().unwrap();
        for slot in before.iter().chain(&after) {
            assert!((slot + 1_000 - first) % 250_000 < 127_000, "{slot}");
        }
    }

    #[test]
    fn a_leap_of_the_clock_takes_no_time_to_follow() {
        let mut schedule = schedule(adaptive(64).with_rate(200_000).unwrap(), 5);

        let due = schedule.advance(Micros(u64::MAX));

        assert!(due.slots <= 64 + 5, "{due:?}");
        assert_eq!(
            schedule.next_wake(),
            Micros(u64::MAX),
            "and nothing overflows"
        );
    }

    #[test]
    fn a_clock_that_goes_back_stops_nothing() {
        for shape in [Shape::new(Mode::Constant), adaptive(0)] {
            let mut schedule = schedule(shape, 6);
            slots(&mut schedule, 100 * SECOND);

            assert_eq!(schedule.advance(Micros(7)), Due::default());

            // With jitter the next slot may lie at the end of the interval after this one.
            assert!(schedule.next_wake().0 <= 7 + 2 * 250_000);
            let wake = schedule.next_wake();
            assert_eq!(schedule.advance(wake).slots, 1);
        }
    }

    #[test]
    fn a_slot_that_is_a_little_late_is_served() {
        // One in 5 ms, in the first half of each.
        let fast = Shape::new(Mode::Constant).with_rate(200_000).unwrap();
        let all = slots(&mut schedule(fast, 7), SECOND);
        let mut late = schedule(fast, 7);
        let count = |from: u64, to: u64| {
            let within = all.iter().filter(|slot| (from..=to).contains(*slot));
            within.count() as u64
        };

        let at = all[0] + LATE_MIN;
        let due = late.advance(Micros(at));
        assert_eq!(due.missed, 0);
        assert_eq!(due.slots, count(0, at));
        assert!(due.slots >= 4);

        let then = at + LATE_MIN + 12_000;
        let due = late.advance(Micros(then));
        assert_eq!(due.slots, count(then - LATE_MIN, then));
        assert_eq!(due.missed, count(at + 1, then - LATE_MIN - 1));
        assert!(due.missed >= 2);
    }

    /// 1,000,000 draws: each count is binomial, and six standard deviations are missed by one of
    /// the eight with a chance of 2e-8 over the choice of seeds.
    #[test]
    fn cover_sizes_are_drawn_by_their_weights() {
        const DRAWS: u32 = 1_000_000;
        let mut schedule = schedule(Shape::new(Mode::Immediate), 8);
        let mut counts = [0_u32; BUCKETS.len()];
        for _ in 0..DRAWS {
            let drawn = schedule.draw_bucket();
            counts[BUCKETS.iter().position(|it| *it == drawn).unwrap()] += 1;
        }
        for (count, weight) in counts.into_iter().zip(COVER_WEIGHTS) {
            let p = f64::from(weight) / 100.0;
            let expected = f64::from(DRAWS) * p;
            let deviation = (expected * (1.0 - p)).sqrt();
            assert!(
                (f64::from(count) - expected).abs() < 6.0 * deviation,
                "{counts:?}"
            );
        }
    }
}
