//! How an agent's lines are to look to whoever watches them, and what they have carried.
//!
//! A [`Traffic`] is the wish for both directions, checked where it is made. The relay answers it
//! with what holds ([`LineShapes`]), which may be stricter and never less. What each mode hides is
//! told in `skytale-shape`; driving a line is `link.rs`'s business.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use skytale_shape::{Bulk, Mode, Passed, Preset, Shape, shape::RATE_MAX};
use skytale_wire::frame;

use crate::error::Error;

/// The shape that an agent wants for its lines, both directions alike. The default is the mode
/// `adaptive` with 4 slots a second: what is said waits some tenths of a second and nobody on the
/// line sees when, whether or with whom.
///
/// It is written as a mode (`padded`, `immediate`, `adaptive`, `constant`) or a preset (`quiet`,
/// `standard`, `swift`, `maximum`), with settings behind it where wanted:
/// `adaptive,rate=8,cell=1056,bank=8,bulk=now`. The rate is in slots a second.
///
/// `bulk=now` lets what needs more than 16 slots leave at once, both ways: a watcher sees that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic(Shape);

/// What holds for the two directions of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineShapes {
    /// From this agent to the relay.
    pub to_relay: Shape,
    /// From the relay to this agent.
    pub to_agent: Shape,
}

/// What has left or come in one direction. Bytes are those of cells: QUIC adds some 34 to each
/// datagram.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct DirectionCounters {
    /// Cells with frames. Of what comes, they are counted only where all cells have one size.
    pub real: u64,
    /// Cells without.
    pub cover: u64,
    /// Bytes of cells with frames, their fill included.
    pub real_bytes: u64,
    /// Bytes of cover.
    pub cover_bytes: u64,
}

/// What lines have carried since the agent was opened. All zero when another process holds them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct LineCounters {
    /// To relays.
    pub sent: DirectionCounters,
    /// From relays.
    pub received: DirectionCounters,
    /// Cells that we sent beside the schedule: a watcher could see them.
    pub over: u64,
    /// Slots of ours in which nothing left, because the machine was late or the network stood.
    pub missed: u64,
    /// Cover of relays that somebody took out on its way.
    pub missing: u64,
}

impl Traffic {
    /// The shape itself.
    pub fn shape(&self) -> Shape {
        self.0
    }

    /// Every wish lets single frames of ours leave at once where its mode can: which do is decided
    /// when they are sent. What the relay may do is said by the shape.
    pub(crate) fn wish(&self) -> frame::Traffic {
        let ours = self.0.with_bulk(Bulk::Now).unwrap_or(self.0);
        frame::Traffic {
            to_relay: line(&ours),
            to_agent: line(&self.0),
        }
    }

    /// Takes the relay's answer, unless it is less than was wished for.
    pub(crate) fn agree(&self, answer: Option<frame::Traffic>) -> Result<LineShapes, &'static str> {
        let Some(answer) = answer else {
            return if self.0.mode() == Mode::Padded {
                Ok(LineShapes {
                    to_relay: self.0,
                    to_agent: self.0,
                })
            } else {
                Err(
                    "the relay is too old to shape its lines: update it, or choose the traffic mode padded",
                )
            };
        };
        let senseless = "the relay answered with a shape that makes no sense";
        let shapes = LineShapes {
            to_relay: shape(&answer.to_relay).ok_or(senseless)?,
            to_agent: shape(&answer.to_agent).ok_or(senseless)?,
        };
        let less = |given: Shape| given.mode() < self.0.mode();
        let more_at_once = self.0.bulk() == Bulk::Wait && shapes.to_agent.bulk() == Bulk::Now;
        if less(shapes.to_relay) || less(shapes.to_agent) || more_at_once {
            return Err("the relay would hide less than this agent asks for");
        }
        Ok(shapes)
    }
}

impl From<Shape> for Traffic {
    fn from(shape: Shape) -> Self {
        Self(shape)
    }
}

impl From<Mode> for Traffic {
    fn from(mode: Mode) -> Self {
        Self(Shape::new(mode))
    }
}

impl From<Preset> for Traffic {
    fn from(preset: Preset) -> Self {
        Self(preset.shape())
    }
}

impl FromStr for Traffic {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.trim().split(',').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let mut shape = Mode::named(name)
            .map(Shape::new)
            .or_else(|| Preset::named(name).map(Preset::shape))
            .ok_or_else(|| bad("it begins with padded, immediate, adaptive, constant, quiet, standard, swift or maximum"))?;
        for part in parts {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| bad("settings are written as key=value"))?;
            let number = || {
                value
                    .parse()
                    .map_err(|_| bad(&format!("{key} is a whole number")))
            };
            let set = match key {
                "rate" => shape.with_rate(millislots(value)?),
                "cell" => shape.with_cell(number()?),
                "bank" => shape.with_bank(number()?),
                "bulk" => shape.with_bulk(match value {
                    "wait" => Bulk::Wait,
                    "now" => Bulk::Now,
                    _ => return Err(bad("bulk is wait or now")),
                }),
                _ => return Err(bad("the settings are rate, cell, bank and bulk")),
            };
            shape = set.map_err(|error| bad(&error.to_string()))?;
        }
        Ok(Self(shape))
    }
}

/// Reads back as it was; what is the mode's default is left out.
impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = self.0;
        let usual = Shape::new(shape.mode());
        f.write_str(shape.mode().name())?;
        if shape.millislots() != usual.millislots() {
            let (whole, part) = (shape.millislots() / 1_000, shape.millislots() % 1_000);
            let rate = format!("{whole}.{part:03}");
            write!(
                f,
                ",rate={}",
                rate.trim_end_matches('0').trim_end_matches('.')
            )?;
        }
        if shape.cell() != usual.cell() {
            write!(f, ",cell={}", shape.cell())?;
        }
        if shape.bank() != usual.bank() {
            write!(f, ",bank={}", shape.bank())?;
        }
        if shape.bulk() != usual.bulk() {
            f.write_str(",bulk=now")?;
        }
        Ok(())
    }
}

impl LineShapes {
    /// Whether any direction has slots: then one stream carries everything.
    pub(crate) fn is_slotted(&self) -> bool {
        self.to_relay.mode().is_slotted() || self.to_agent.mode().is_slotted()
    }
}

/// Where lines count. All lines of an agent share the second one.
#[derive(Debug, Clone)]
pub(crate) struct Tallies {
    pub(crate) line: Arc<LineTally>,
    pub(crate) agent: Arc<LineTally>,
}

#[derive(Debug)]
pub(crate) struct LineTally {
    sent: Direction,
    received: Direction,
    over: AtomicU64,
    missed: AtomicU64,
    missing: AtomicU64,
    /// Bytes of frames that leave in a second, as agreed last; `u64::MAX` where nothing limits them.
    rate: AtomicU64,
}

#[derive(Debug, Default)]
struct Direction {
    real: AtomicU64,
    cover: AtomicU64,
    real_bytes: AtomicU64,
    cover_bytes: AtomicU64,
}

impl Tallies {
    pub(crate) fn sent(&self, passed: &Passed) {
        self.each(|tally| {
            tally.sent.add(&DirectionCounters {
                real: passed.real,
                cover: passed.cover,
                real_bytes: passed.real_bytes,
                cover_bytes: passed.cover_bytes,
            });
            tally.over.fetch_add(passed.over, Ordering::Relaxed);
            tally.missed.fetch_add(passed.missed, Ordering::Relaxed);
        });
    }

    pub(crate) fn received(&self, more: &DirectionCounters, missing: u64) {
        self.each(|tally| {
            tally.received.add(more);
            tally.missing.fetch_add(missing, Ordering::Relaxed);
        });
    }

    pub(crate) fn agreed(&self, shapes: &LineShapes) {
        let rate = shapes.to_relay.bytes_per_second().unwrap_or(u64::MAX);
        self.each(|tally| tally.rate.store(rate, Ordering::Relaxed));
    }

    fn each(&self, count: impl Fn(&LineTally)) {
        count(&self.line);
        count(&self.agent);
    }
}

impl Default for LineTally {
    fn default() -> Self {
        Self {
            sent: Direction::default(),
            received: Direction::default(),
            over: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            missing: AtomicU64::new(0),
            rate: AtomicU64::new(u64::MAX),
        }
    }
}

impl LineTally {
    pub(crate) fn look(&self) -> LineCounters {
        LineCounters {
            sent: self.sent.look(),
            received: self.received.look(),
            over: self.over.load(Ordering::Relaxed),
            missed: self.missed.load(Ordering::Relaxed),
            missing: self.missing.load(Ordering::Relaxed),
        }
    }

    /// How long so many bytes of frames take on a line that was wished for so, or as the relay has
    /// slowed it down. Nothing where no slots limit it.
    pub(crate) fn time_for(&self, bytes: u64, wished: &Traffic) -> Duration {
        let wished = wished.0.bytes_per_second().unwrap_or(u64::MAX);
        let rate = self.rate.load(Ordering::Relaxed).min(wished);
        if rate == u64::MAX {
            return Duration::ZERO;
        }
        // A quarter more for padding, headers and other things that are said.
        Duration::from_millis(bytes.saturating_mul(1_250) / rate.max(1))
    }
}

impl Direction {
    fn add(&self, more: &DirectionCounters) {
        self.real.fetch_add(more.real, Ordering::Relaxed);
        self.cover.fetch_add(more.cover, Ordering::Relaxed);
        self.real_bytes
            .fetch_add(more.real_bytes, Ordering::Relaxed);
        self.cover_bytes
            .fetch_add(more.cover_bytes, Ordering::Relaxed);
    }

    fn look(&self) -> DirectionCounters {
        DirectionCounters {
            real: self.real.load(Ordering::Relaxed),
            cover: self.cover.load(Ordering::Relaxed),
            real_bytes: self.real_bytes.load(Ordering::Relaxed),
            cover_bytes: self.cover_bytes.load(Ordering::Relaxed),
        }
    }
}

fn bad(why: &str) -> Error {
    Error::misuse(format!("the traffic setting is wrong: {why}"))
}

/// Slots a second, with at most three decimals.
fn millislots(text: &str) -> Result<u32, Error> {
    let wrong = || bad("rate is in slots a second, such as 4 or 0.5");
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return Err(wrong());
    }
    let whole: u32 = whole.parse().map_err(|_| wrong())?;
    let part: u32 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    // What is too much for the sum is too much for a shape, which says the range.
    Ok(whole
        .checked_mul(1_000)
        .and_then(|whole| whole.checked_add(part))
        .unwrap_or(RATE_MAX + 1))
}

fn shape(line: &frame::Line) -> Option<Shape> {
    let bulk = if line.bulk_now { Bulk::Now } else { Bulk::Wait };
    Shape::from_numbers(line.mode, line.millislots, line.cell, line.bank, bulk).ok()
}

fn line(shape: &Shape) -> frame::Line {
    frame::Line {
        mode: shape.mode().number(),
        millislots: shape.millislots(),
        cell: u32::try_from(shape.cell()).expect("a cell has 1,150 bytes at most"),
        bank: shape.bank(),
        bulk_now: shape.bulk() == Bulk::Now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_reads_back_and_nonsense_is_refused() {
        for (text, shown) in [
            ("padded", "padded"),
            ("adaptive", "adaptive"),
            ("standard", "adaptive"),
            ("swift", "adaptive,rate=16"),
            ("maximum", "constant"),
            (" quiet , rate=0.5,bulk=now", "adaptive,rate=0.5,bulk=now"),
            (
                "constant,rate=12.25,cell=512,bank=3",
                "constant,rate=12.25,cell=512,bank=3",
            ),
        ] {
            let traffic: Traffic = text.parse().unwrap();
            assert_eq!(traffic.to_string(), shown);
            assert_eq!(shown.parse::<Traffic>().unwrap(), traffic);
        }
        for bad in [
            "",
            "loud",
            "adaptive,4",
            "adaptive,rate=",
            "adaptive,rate=-1",
            "adaptive,rate=1e3",
            "adaptive,rate=4.0001",
            "adaptive,rate=0.01",
            "adaptive,rate=99999999999",
            "adaptive,rate=4294968",
            "adaptive,cell=2000",
            "adaptive,bank=x",
            "adaptive,bulk=maybe",
            "constant,bulk=now",
            "adaptive,speed=4",
        ] {
            let error = bad.parse::<Traffic>().unwrap_err();
            assert!(matches!(error, Error::Misuse(_)), "{bad}");
        }
    }

    #[test]
    fn an_answer_that_hides_less_is_not_taken() {
        let adaptive = Traffic::default();
        let answer = |mode: Mode, bulk: Bulk| {
            let shape = line(&Shape::new(mode).with_bulk(bulk).unwrap());
            Some(frame::Traffic {
                to_relay: shape,
                to_agent: shape,
            })
        };

        assert!(adaptive.agree(answer(Mode::Adaptive, Bulk::Wait)).is_ok());
        assert!(adaptive.agree(answer(Mode::Constant, Bulk::Wait)).is_ok());
        assert!(adaptive.agree(answer(Mode::Padded, Bulk::Wait)).is_err());
        assert!(adaptive.agree(answer(Mode::Immediate, Bulk::Wait)).is_err());
        assert!(
            adaptive.agree(answer(Mode::Adaptive, Bulk::Now)).is_err(),
            "nobody has allowed the relay to send large frames at once"
        );
        assert!(adaptive.agree(None).is_err(), "an older relay");
        assert!(Traffic::from(Mode::Padded).agree(None).is_ok());
        let mut senseless = answer(Mode::Adaptive, Bulk::Wait).unwrap();
        senseless.to_relay.millislots = 0;
        assert!(adaptive.agree(Some(senseless)).is_err());
    }

    #[test]
    fn time_allows_for_the_rate() {
        let tally = LineTally::default();

        let minute = tally.time_for(262_144, &Traffic::default());
        assert!((60..100).contains(&minute.as_secs()), "{minute:?}");
        assert_eq!(
            tally.time_for(262_144, &Mode::Padded.into()),
            Duration::ZERO
        );
    }
}
