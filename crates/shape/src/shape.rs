//! What one direction of a line is to look like, and what that costs.
//!
//! A [`Shape`] holds only values that make sense: it is checked where it is made, from a file, a
//! command line or a peer. Two wishes for the same direction become one by [`Shape::stricter`].
//!
//! What a shape costs can be computed before it is chosen. One slot is a cell and what stands around
//! it on the wire, and its acknowledgement, which comes back by itself because slots are further
//! apart than a receiver waits before it acknowledges:
//!
//! ```text
//! cell + 34 (QUIC) + 28 (IPv4, UDP) + 38 (acknowledgement) + 28 (IPv4, UDP)
//! ```
//!
//! Above some 40 slots a second several cells share an acknowledgement and the sum is too high by up
//! to 6 %. IPv6 adds 40 bytes a slot. Both directions of an idle line cost the sum of the two.

use std::time::Duration;

use thiserror::Error;

use crate::bucket::BUCKETS;
use crate::pad::payload_max;
use crate::schedule::{EPISODE_EVERY, slot_interval};

/// How a direction behaves, from the least strict to the strictest: the order is the one in which
/// [`Shape::stricter`] chooses. What each hides is told at the head of the crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Cells leave as soon as their frames are there, in buckets. No cover.
    Padded,
    /// The same, with cover in between, of sizes like those of real traffic.
    Immediate,
    /// Cells of one size leave at instants drawn beforehand, once in each interval, with a
    /// silence and a burst now and then. Frames take the place of cover.
    Adaptive,
    /// Cells of one size leave one by one, each somewhere in the first half of its interval, and nothing
    /// else ever does.
    Constant,
}

impl Mode {
    /// All of them, from the least strict on.
    pub const ALL: [Self; 4] = [
        Self::Padded,
        Self::Immediate,
        Self::Adaptive,
        Self::Constant,
    ];

    /// The word for it in configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Padded => "padded",
            Self::Immediate => "immediate",
            Self::Adaptive => "adaptive",
            Self::Constant => "constant",
        }
    }

    /// The mode of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The number for it between two programs, as docs/wire.md has it.
    pub const fn number(self) -> u8 {
        match self {
            Self::Padded => 0,
            Self::Immediate => 1,
            Self::Adaptive => 2,
            Self::Constant => 3,
        }
    }

    /// The mode of that number.
    pub fn numbered(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.number() == number)
    }

    /// Whether frames wait for slots and all cells have one size.
    pub const fn is_slotted(self) -> bool {
        match self {
            Self::Padded | Self::Immediate => false,
            Self::Adaptive | Self::Constant => true,
        }
    }
}

/// Whether a frame waits for its slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Bulk {
    /// It takes the place of cover, one cell a slot.
    #[default]
    Wait,
    /// It leaves at once in cells beside the schedule. Whoever watches the line sees that.
    Now,
}

/// How one direction of a line is shaped: settings that were checked.
///
/// Which of them count depends on the mode: `padded` uses none, `immediate` the rate and the bank
/// (as the depth of its token bucket), `constant` not the bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    mode: Mode,
    millislots: u32,
    cell: u16,
    bank: u8,
    bulk: Bulk,
}

impl Shape {
    /// The mode with its defaults: 4 slots a second, cells of 1,056 bytes, a bank of 8 slots, and
    /// everything waits.
    pub const fn new(mode: Mode) -> Self {
        Self {
            mode,
            millislots: 4_000,
            cell: 1_056,
            bank: 8,
            bulk: Bulk::Wait,
        }
    }

    /// From plain numbers, as a peer sends them: all are checked, also those that the mode does not
    /// use.
    pub fn from_numbers(
        mode: u8,
        millislots: u32,
        cell: u32,
        bank: u32,
        bulk: Bulk,
    ) -> Result<Self, BadShape> {
        let known = Mode::numbered(mode).ok_or(BadShape::OutOfRange {
            setting: "number of the mode",
            given: u32::from(mode),
            min: u32::from(Mode::Padded.number()),
            max: u32::from(Mode::Constant.number()),
        })?;
        Self::new(known)
            .with_rate(millislots)?
            .with_cell(cell)?
            .with_bank(bank)?
            .with_bulk(bulk)
    }

    /// Sets the mean rate, in thousandths of a slot a second: from [`RATE_MIN`] to [`RATE_MAX`].
    pub fn with_rate(self, millislots: u32) -> Result<Self, BadShape> {
        within(
            "rate in millislots a second",
            millislots,
            RATE_MIN,
            RATE_MAX,
        )?;
        Ok(Self { millislots, ..self })
    }

    /// Sets the length of all cells: from [`CELL_MIN`] to [`CELL_MAX`], so that one cell is one QUIC
    /// datagram where the path carries 1,200 bytes.
    pub fn with_cell(self, bytes: u32) -> Result<Self, BadShape> {
        within("cell in bytes", bytes, CELL_MIN, CELL_MAX)?;
        let cell = u16::try_from(bytes).expect("CELL_MAX is below 65,536");
        Ok(Self { cell, ..self })
    }

    /// Sets how many slots a silence may bank and a burst then spend, up to [`BANK_MAX`]. With less
    /// than 2 there are no bursts.
    pub fn with_bank(self, slots: u32) -> Result<Self, BadShape> {
        within("bank in slots", slots, 0, BANK_MAX)?;
        let bank = u8::try_from(slots).expect("BANK_MAX is below 256");
        Ok(Self { bank, ..self })
    }

    /// Says whether a frame may ask to leave at once. `constant` refuses: that it is never exceeded
    /// is what it is chosen for.
    pub fn with_bulk(self, bulk: Bulk) -> Result<Self, BadShape> {
        if self.mode == Mode::Constant && bulk == Bulk::Now {
            return Err(BadShape::NowInConstant);
        }
        Ok(Self { bulk, ..self })
    }

    /// What holds for a direction when `self` is the wish of its *receiver* and `other` that of its
    /// sender: the whole shape of the one whose mode is stricter, and the receiver's when the
    /// modes are equal, because a rate belongs to the mode for which it was chosen. Frames may leave at once
    /// only when both allow it.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        let chosen = if other.mode > self.mode { other } else { self };
        let bulk = match (self.bulk, other.bulk) {
            (Bulk::Now, Bulk::Now) => chosen.bulk,
            (Bulk::Wait, _) | (_, Bulk::Wait) => Bulk::Wait,
        };
        Self { bulk, ..chosen }
    }

    /// How it behaves.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The mean rate in thousandths of a slot a second.
    pub const fn millislots(&self) -> u32 {
        self.millislots
    }

    /// The length of all cells of a slotted mode.
    pub fn cell(&self) -> usize {
        usize::from(self.cell)
    }

    /// How many slots are banked at most.
    pub fn bank(&self) -> u32 {
        u32::from(self.bank)
    }

    /// Whether a frame may ask to leave at once. Which frame does is the sender's to say.
    pub const fn bulk(&self) -> Bulk {
        self.bulk
    }

    /// Bytes on the wire in an hour of this direction with nothing to say, acknowledgements
    /// included. Keep-alives of an idle `padded` line are not counted.
    pub fn idle_bytes_per_hour(&self) -> u64 {
        let slot = match self.mode {
            Mode::Padded => 0,
            Mode::Immediate => mean_cover_on_the_wire(),
            Mode::Adaptive | Mode::Constant => u64::from(self.cell) + AROUND_A_CELL,
        };
        u64::from(self.millislots) * slot * 3_600 / 1_000
    }

    /// How long a frame that fits one cell waits for its slot, on average over all instants at which
    /// it may come, when nothing waits before it.
    ///
    /// A wait is half the gap that it falls into, and long gaps are fallen into more often: E\[gap²\]
    /// / 2 E\[gap\]. Between two slots drawn evenly within their intervals that is 7/12 of an
    /// interval, and drawn within the first halves 25/48; a silence of `k` intervals weighs `k² + 1/6`.
    pub fn mean_wait(&self) -> Duration {
        let interval = slot_interval(self.millislots);
        let micros = match self.mode {
            Mode::Padded | Mode::Immediate => 0,
            Mode::Constant => interval * 25 / 48,
            Mode::Adaptive => {
                let lengths = 2..=u64::from(self.bank);
                let count = lengths.clone().count() as u64;
                let (sum, squares) =
                    lengths.fold((0, 0), |(sum, squares), k| (sum + k, squares + k * k));
                if count == 0 {
                    interval * 7 / 12
                } else {
                    let single = (u64::from(EPISODE_EVERY) - 1) * count;
                    interval * (7 * single + 6 * squares + count) / (12 * (single + sum))
                }
            }
        };
        Duration::from_micros(micros)
    }

    /// How far the beats are apart to which an end may put off its slots, so that slots, and what comes
    /// in, wake it together: at most an eighth of the time between slots. Beats of different rates
    /// fall together as often as they can. `None` where slots are too close for it, or are none.
    pub fn beat(&self) -> Option<Duration> {
        let between = slot_interval(self.millislots);
        let fits = |beat: &u64| beat * 8 <= between;
        match self.mode {
            Mode::Adaptive | Mode::Constant => BEATS.into_iter().find(fits),
            Mode::Padded | Mode::Immediate => None,
        }
        .map(Duration::from_micros)
    }

    /// How long this direction may be silent by its own schedule; `None` where it has none.
    pub fn silence_max(&self) -> Option<Duration> {
        let halves = match self.mode {
            Mode::Padded | Mode::Immediate => return None,
            Mode::Adaptive => 2 * (self.bank().max(1) + 1),
            Mode::Constant => 3,
        };
        Some(Duration::from_secs(1) * halves * 500 / self.millislots)
    }

    /// Whether a frame of so many bytes would take so many slots that it may leave at once, where
    /// [`Bulk::Now`] is allowed for what is large.
    pub fn is_bulk(&self, bytes: usize) -> bool {
        bytes > BULK_SLOTS * self.cell()
    }

    /// Bytes of frames in a second when there is always something to say. Nothing limits the modes
    /// without slots.
    pub fn bytes_per_second(&self) -> Option<u64> {
        let room = payload_max(self.cell()) as u64;
        self.mode
            .is_slotted()
            .then(|| u64::from(self.millislots) * room / 1_000)
    }
}

/// The default is what `standard` is.
impl Default for Shape {
    fn default() -> Self {
        Self::new(Mode::Adaptive)
    }
}

/// Shapes to choose from by name. All use cells of 1,056 bytes; the costs are those of one direction
/// by the formula at the head of this file.
///
/// | preset | slots a second | idle | mean wait | frames |
/// |---|---|---|---|---|
/// | `quiet` | 1, jittered | 4.3 MB/h | 0.67 s | 1.0 KB/s |
/// | `standard` | 4, jittered | 17.0 MB/h | 0.17 s | 4.2 KB/s |
/// | `swift` | 16, jittered | 68.2 MB/h | 0.04 s | 16.8 KB/s |
/// | `maximum` | 4, even | 17.0 MB/h | 0.13 s | 4.2 KB/s |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// The cheapest that still hides; a message waits up to a few seconds.
    Quiet,
    /// The default.
    Standard,
    /// For agents that call tools all day.
    Swift,
    /// Never exceeded, not even on request.
    Maximum,
}

impl Preset {
    /// All of them, from the cheapest on.
    pub const ALL: [Self; 4] = [Self::Quiet, Self::Standard, Self::Swift, Self::Maximum];

    /// The word for it in configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Standard => "standard",
            Self::Swift => "swift",
            Self::Maximum => "maximum",
        }
    }

    /// The preset of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.name() == name)
    }

    /// What it stands for.
    pub const fn shape(self) -> Shape {
        let (mode, millislots) = match self {
            Self::Quiet => (Mode::Adaptive, 1_000),
            Self::Standard => (Mode::Adaptive, 4_000),
            Self::Swift => (Mode::Adaptive, 16_000),
            Self::Maximum => (Mode::Constant, 4_000),
        };
        Shape {
            millislots,
            ..Shape::new(mode)
        }
    }
}

/// Why settings do not make a shape. Fix the configuration; from a peer, refuse it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadShape {
    /// A number that makes no sense.
    #[error("the {setting} cannot be {given}: it must lie between {min} and {max}")]
    OutOfRange {
        /// Which setting, with its unit.
        setting: &'static str,
        /// What was asked for.
        given: u32,
        /// The least that works.
        min: u32,
        /// The most that works.
        max: u32,
    },
    /// `constant` together with frames that leave at once.
    #[error(
        "nothing leaves beside the schedule in the mode constant: let frames wait, or choose adaptive"
    )]
    NowInConstant,
}

/// The slowest rate: a slot in ten seconds.
pub const RATE_MIN: u32 = 100;

/// The fastest rate: 200 slots a second. Timers that are asked for more do not keep it.
pub const RATE_MAX: u32 = 200_000;

/// The shortest cell: the smallest bucket.
pub const CELL_MIN: u32 = 256;

/// The longest cell: with QUIC's own bytes just under 1,200.
pub const CELL_MAX: u32 = 1_150;

/// The deepest bank.
pub const BANK_MAX: u32 = 64;

/// More slots than this make a transfer of a frame.
const BULK_SLOTS: usize = 16;

/// In microseconds.
const BEATS: [u64; 4] = [20_000, 10_000, 5_000, 2_500];

/// How often cover of each bucket is drawn, of 100, smallest bucket first: acknowledgements and
/// receipts, then messages of a few hundred bytes to some KiB, then results of tools. This is the
/// mix of the simulated agents (chat, tool calls, a group), not a measured one.
pub(crate) const COVER_WEIGHTS: [u32; BUCKETS.len()] = [34, 14, 28, 12, 6, 3, 2, 1];

const fn within(setting: &'static str, given: u32, min: u32, max: u32) -> Result<(), BadShape> {
    if given < min || given > max {
        return Err(BadShape::OutOfRange {
            setting,
            given,
            min,
            max,
        });
    }
    Ok(())
}

/// The headers around a cell of one datagram, and its acknowledgement.
const AROUND_A_CELL: u64 = 34 + 28 + 38 + 28;

/// What a datagram of 1,200 bytes carries of a stream.
const DATAGRAM_ROOM: usize = 1_200 - 34;

fn mean_cover_on_the_wire() -> u64 {
    let of_100: u64 = BUCKETS
        .into_iter()
        .zip(COVER_WEIGHTS)
        .map(|(bucket, weight)| {
            let datagrams = bucket.div_ceil(DATAGRAM_ROOM) as u64;
            u64::from(weight) * (bucket as u64 + datagrams * AROUND_A_CELL)
        })
        .sum();
    of_100 / u64::from(COVER_WEIGHTS.iter().sum::<u32>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_wake_together_and_no_slot_is_put_off_by_much() {
        let pairs = [(1_000, 20_000), (4_000, 20_000), (16_000, 5_000)];
        for (millislots, micros) in pairs {
            for mode in [Mode::Adaptive, Mode::Constant] {
                let shape = Shape::new(mode).with_rate(millislots).unwrap();
                let beat = Some(Duration::from_micros(micros));
                assert_eq!(shape.beat(), beat, "{millislots}");
            }
        }
        let close = Shape::new(Mode::Adaptive).with_rate(200_000).unwrap();
        assert_eq!(close.beat(), None);
        assert_eq!(Shape::new(Mode::Immediate).beat(), None);
    }

    #[test]
    fn values_that_make_no_sense_are_refused_with_their_range() {
        let shape = Shape::new(Mode::Adaptive);
        for (refused, said) in [
            (
                shape.with_rate(99),
                "99: it must lie between 100 and 200000",
            ),
            (shape.with_rate(200_001), "between 100 and 200000"),
            (shape.with_rate(0), "rate in millislots a second"),
            (shape.with_rate(u32::MAX), "4294967295"),
            (
                shape.with_cell(255),
                "255: it must lie between 256 and 1150",
            ),
            (shape.with_cell(1_151), "cell in bytes"),
            (shape.with_cell(65_536 + 300), "65836"),
            (shape.with_bank(65), "65: it must lie between 0 and 64"),
            (shape.with_bank(256), "bank in slots"),
        ] {
            let error = refused.unwrap_err();
            assert!(matches!(error, BadShape::OutOfRange { .. }));
            assert!(error.to_string().contains(said), "{error}");
        }
        assert_eq!(
            Shape::new(Mode::Constant).with_bulk(Bulk::Now),
            Err(BadShape::NowInConstant)
        );
    }

    #[test]
    fn the_ends_of_each_range_are_allowed() {
        for (rate, cell, bank) in [(100, 256, 0), (200_000, 1_150, 64)] {
            let shape = Shape::new(Mode::Adaptive)
                .with_rate(rate)
                .and_then(|shape| shape.with_cell(cell))
                .and_then(|shape| shape.with_bank(bank))
                .and_then(|shape| shape.with_bulk(Bulk::Now))
                .unwrap();
            assert_eq!(
                (shape.millislots(), shape.cell(), shape.bank(), shape.bulk()),
                (rate, cell as usize, bank, Bulk::Now)
            );
        }
    }

    #[test]
    fn numbers_of_a_peer_make_a_shape_or_are_refused() {
        for mode in Mode::ALL {
            let shape = Shape::from_numbers(mode.number(), 4_000, 1_056, 8, Bulk::Wait);
            assert_eq!(shape, Ok(Shape::new(mode)));
        }
        for (mode, rate, cell, bank, bulk) in [
            (4, 4_000, 1_056, 8, Bulk::Wait),
            (255, 4_000, 1_056, 8, Bulk::Wait),
            (2, 0, 1_056, 8, Bulk::Wait),
            (2, u32::MAX, 1_056, 8, Bulk::Wait),
            (0, 4_000, 65_536 + 1_056, 8, Bulk::Wait),
            (0, 4_000, 1_056, 300, Bulk::Wait),
            (3, 4_000, 1_056, 8, Bulk::Now),
        ] {
            assert!(Shape::from_numbers(mode, rate, cell, bank, bulk).is_err());
        }
    }

    #[test]
    fn silences_are_those_of_the_schedule() {
        let ms = |mode| Shape::new(mode).silence_max().map(|it| it.as_millis());

        assert_eq!(ms(Mode::Padded), None);
        assert_eq!(ms(Mode::Constant), Some(375));
        assert_eq!(ms(Mode::Adaptive), Some(2_250));
    }

    #[test]
    fn modes_are_ordered_by_strictness_and_known_by_name() {
        assert!(Mode::ALL.is_sorted());
        for mode in Mode::ALL {
            assert_eq!(Mode::named(mode.name()), Some(mode));
        }
        for preset in Preset::ALL {
            assert_eq!(Preset::named(preset.name()), Some(preset));
        }
        assert_eq!(Mode::named("Padded"), None);
        assert_eq!(Preset::named(""), None);
    }

    #[test]
    fn of_two_wishes_the_stricter_wins_and_the_receiver_breaks_the_tie() {
        let padded = Shape::new(Mode::Padded);
        let slow = Preset::Quiet.shape();
        let fast = Preset::Swift.shape();
        let constant = Preset::Maximum.shape();

        assert_eq!(fast.stricter(slow), fast);
        assert_eq!(slow.stricter(fast), slow);
        assert_eq!(fast.stricter(constant), constant);
        assert_eq!(constant.stricter(fast), constant);
        assert_eq!(padded.stricter(slow), slow);
        assert_eq!(padded.stricter(padded), padded);

        let fast_now = fast.with_bulk(Bulk::Now).unwrap();
        let slow_now = slow.with_bulk(Bulk::Now).unwrap();
        assert_eq!(fast_now.stricter(slow), fast, "only one allows it");
        assert_eq!(fast.stricter(slow_now), fast, "only one allows it");
        assert_eq!(fast_now.stricter(slow_now), fast_now);
        assert_eq!(fast_now.stricter(constant), constant);
    }

    #[test]
    fn the_costs_of_the_presets_are_the_documented_ones() {
        for (preset, bytes, wait_ms, frames) in [
            (Preset::Quiet, 4_262_400, 671, 1_047),
            (Preset::Standard, 17_049_600, 167, 4_188),
            (Preset::Swift, 68_198_400, 41, 16_752),
            (Preset::Maximum, 17_049_600, 130, 4_188),
        ] {
            let shape = preset.shape();
            assert_eq!(shape.idle_bytes_per_hour(), bytes, "{preset:?}");
            assert_eq!(shape.mean_wait().as_millis(), wait_ms, "{preset:?}");
            assert_eq!(shape.bytes_per_second(), Some(frames), "{preset:?}");
        }
        assert_eq!(Preset::Standard.shape(), Shape::default());
        let padded = Shape::new(Mode::Padded);
        assert_eq!(padded.idle_bytes_per_hour(), 0);
        assert_eq!(padded.mean_wait(), Duration::ZERO);
        assert_eq!(padded.bytes_per_second(), None);
    }

    #[test]
    fn cover_of_the_mode_immediate_costs_its_mean_size() {
        assert_eq!(COVER_WEIGHTS.iter().sum::<u32>(), 100);
        // 0.34·256 + 0.14·512 + 0.28·1,024 + 0.12·2,048 + 0.06·4,096 + 0.03·8,192 + 0.02·16,384
        // + 0.01·32,768 = 1,838 bytes, in 2.07 datagrams of 128 more.
        assert_eq!(mean_cover_on_the_wire(), 2_103);
    }
}
