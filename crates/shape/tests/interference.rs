//! Traffic changes nothing that a watcher sees: from one seed, the instants and sizes of cells are
//! the same, exactly, whatever is said. Not a statistic, so no sample size and no false alarms.
//!
//! The controls are at the end: in the modes that promise nothing, the same comparison fails.

#![allow(
    clippy::unwrap_used,
    reason = "tests; the exemption for them does not reach their helpers"
)]

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use skytale_shape::{Bulk, Error, Micros, Mode, Passed, Preset, Shape, Shaper};

const SECOND: u64 = 1_000_000;
const HOURS: u64 = 3;

/// A cell as a watcher sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    at: u64,
    len: usize,
}

/// Frames that come at some instant.
type Burst = (u64, Vec<usize>);

/// What is said on a line: at which instants frames of which lengths come.
fn said(traffic: &str, until: u64) -> Vec<Burst> {
    let mut rng = ChaCha8Rng::seed_from_u64(77);
    let mut now = 0;
    let mut bursts = Vec::new();
    while now < until {
        let (pause, frames, len) = match traffic {
            "nothing" => break,
            "chat" => (5..60_000, 1..2, 200..1_500),
            "tool bursts" => (1_000..120_000, 5..40, 300..30_000),
            "group of five" => (100..8_000, 1..6, 400..4_000),
            other => unreachable!("{other} is no traffic"),
        };
        now += rng.random_range(pause) * 1_000;
        let frames = rng.random_range(frames);
        bursts.push((
            now,
            (0..frames).map(|_| rng.random_range(len.clone())).collect(),
        ));
    }
    bursts
}

/// A line with its driver: what is full waits outside, in order.
struct Line {
    shaper: Shaper,
    outside: std::collections::VecDeque<usize>,
    always_full: bool,
    seen: Vec<Seen>,
    passed: Passed,
}

impl Line {
    fn new(shape: Shape, seed: u64) -> Self {
        Self {
            shaper: Shaper::new(
                shape,
                ChaCha8Rng::seed_from_u64(seed),
                ChaCha8Rng::seed_from_u64(!seed),
                Micros::new(0),
            ),
            outside: std::collections::VecDeque::new(),
            always_full: false,
            seen: Vec::new(),
            passed: Passed::default(),
        }
    }

    fn say(&mut self, frames: &[usize]) {
        self.outside.extend(frames);
        self.refill();
    }

    fn refill(&mut self) {
        while let Some(len) = self.outside.pop_front() {
            match self.shaper.push(&vec![0xAA; len], Bulk::Wait) {
                Ok(()) => {}
                Err(Error::Full) => {
                    self.outside.push_front(len);
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
        while self.always_full && self.shaper.push(&[0xBB; 900], Bulk::Wait).is_ok() {}
    }

    /// Calls the machine and writes down what a watcher sees.
    fn advance(&mut self, at: u64) {
        let mut out = Vec::new();
        let passed = self.shaper.advance(Micros::new(at), &mut out);
        self.passed += passed;
        let cell = match passed.cells() {
            0 => 0,
            cells => out.len() / usize::try_from(cells).unwrap(),
        };
        self.seen
            .extend((0..passed.cells()).map(|_| Seen { at, len: cell }));
        self.refill();
    }

    /// Drives the line to `end`. An eager driver calls the machine after each push too.
    fn run(&mut self, bursts: &[Burst], eager: bool, end: u64) {
        let mut bursts = bursts.iter().peekable();
        loop {
            let wake = self.shaper.next_wake().map_or(end, Micros::get).min(end);
            if let Some((at, frames)) = bursts.next_if(|(at, _)| *at < wake) {
                self.say(frames);
                if eager {
                    self.advance(*at);
                }
            } else if wake == end {
                return;
            } else {
                self.advance(wake);
            }
        }
    }
}

fn trace(shape: Shape, traffic: &str) -> (Vec<Seen>, Passed) {
    let end = HOURS * 3_600 * SECOND;
    let mut line = Line::new(shape, 5);
    if traffic == "always full" {
        line.always_full = true;
        line.refill();
        line.run(&[], true, end);
    } else {
        line.run(&said(traffic, end), true, end);
    }
    (line.seen, line.passed)
}

const ALL_TRAFFIC: [&str; 4] = ["chat", "tool bursts", "group of five", "always full"];

#[test]
fn hours_of_a_slotted_line_look_the_same_whatever_is_said() {
    let deep = Shape::new(Mode::Adaptive)
        .with_bank(64)
        .and_then(|shape| shape.with_cell(300))
        .unwrap();
    for shape in [
        Preset::Standard.shape(),
        Preset::Standard.shape().with_bulk(Bulk::Now).unwrap(),
        Preset::Maximum.shape(),
        deep,
    ] {
        let (silence, idle) = trace(shape, "nothing");
        assert_eq!(idle.real, 0);
        let slots = HOURS * 3_600 * 4;
        // Exact up to one episode that is owed at the end, or the last room.
        assert!(
            idle.cover.abs_diff(slots) <= u64::from(shape.bank()),
            "{idle:?}"
        );
        assert!(silence.iter().all(|seen| seen.len == shape.cell()));

        for traffic in ALL_TRAFFIC {
            let (seen, passed) = trace(shape, traffic);
            assert!(passed.real > 50, "{traffic} was said: {passed:?}");
            assert_eq!((passed.over, passed.missed), (0, 0));
            assert!(seen == silence, "{traffic} shows in {shape:?}");
        }
        let (_, full) = trace(shape, "always full");
        assert_eq!(full.cover, 0, "a full queue takes every slot");
    }
}

#[test]
fn another_seed_makes_another_line() {
    let end = 60 * SECOND;
    for preset in [Preset::Standard, Preset::Maximum] {
        let lines = [1, 2].map(|seed| {
            let mut line = Line::new(preset.shape(), seed);
            line.run(&[], false, end);
            line.seen
        });
        assert_ne!(lines[0], lines[1]);
    }
}

#[test]
fn modes_that_promise_nothing_fail_the_comparison() {
    let end = 600 * SECOND;
    for mode in [Mode::Padded, Mode::Immediate] {
        let lines = ["nothing", "chat"].map(|traffic| {
            let mut line = Line::new(Shape::new(mode), 3);
            line.run(&said(traffic, end), true, end);
            line.seen
        });
        assert_ne!(lines[0], lines[1]);
    }
    let mut now = Line::new(Preset::Standard.shape().with_bulk(Bulk::Now).unwrap(), 3);
    let mut silence = Line::new(Preset::Standard.shape(), 3);
    now.shaper.push(&[1; 5_000], Bulk::Now).unwrap();
    now.run(&[], true, end);
    silence.run(&[], true, end);
    assert_ne!(now.seen, silence.seen);
    assert_eq!(now.passed.over, 5);
}

fn slotted() -> impl Strategy<Value = Shape> {
    (
        any::<bool>(),
        100..=200_000_u32,
        256..=1_150_u32,
        0..=64_u32,
    )
        .prop_map(|(constant, rate, cell, bank)| {
            let mode = if constant {
                Mode::Constant
            } else {
                Mode::Adaptive
            };
            Shape::new(mode)
                .with_rate(rate)
                .and_then(|shape| shape.with_cell(cell))
                .and_then(|shape| shape.with_bank(bank))
                .unwrap()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_traffic_on_any_slotted_line_leaves_the_same_trace(
        shape in slotted(),
        seed: u64,
        pauses in prop::collection::vec(
            (0..2_000_000_u64, prop::collection::vec(0..6_000_usize, 0..8)),
            0..40,
        ),
        eager: bool,
    ) {
        // As long as some 500 slots take, and traffic from beginning to end.
        let end = 500_000_000_000 / u64::from(shape.millislots());
        let mut at = 0;
        let bursts: Vec<Burst> = pauses
            .into_iter()
            .map(|(pause, frames)| {
                at += pause % (end / 20);
                (at, frames)
            })
            .collect();
        let mut silence = Line::new(shape, seed);
        silence.run(&[], false, end);
        let mut line = Line::new(shape, seed);
        line.run(&bursts, eager, end);

        prop_assert_eq!(silence.seen, line.seen);
        prop_assert_eq!(line.passed.missed, 0);
    }

    /// A driver that is late, suspended, or whose clock leaps and goes back: what it sees depends on
    /// its calls alone.
    #[test]
    fn a_driver_that_comes_when_it_likes_sees_the_same_with_and_without_traffic(
        shape in slotted(),
        seed: u64,
        calls in prop::collection::vec(
            (
                prop_oneof![
                    8 => 0..2_000_000_i64,
                    1 => -5_000_000..0_i64,
                    1 => 0..100_000_000_000_i64,
                ],
                prop::collection::vec(0..6_000_usize, 0..4),
            ),
            1..80,
        ),
    ) {
        let mut silence = Line::new(shape, seed);
        let mut line = Line::new(shape, seed);
        let mut now = 0_u64;
        for (step, frames) in calls {
            now = now.saturating_add_signed(step);
            line.say(&frames);
            prop_assert_eq!(line.shaper.next_wake(), silence.shaper.next_wake());
            silence.advance(now);
            line.advance(now);
        }

        prop_assert_eq!(silence.seen, line.seen);
        prop_assert_eq!(silence.passed.missed, line.passed.missed);
    }
}
