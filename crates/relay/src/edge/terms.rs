//! What holds for a line: the agent's wish against what the operator asks for at least.
//!
//! Numbers from outside become a [`Shape`] here or are refused. Driving the line is each edge's own
//! affair.

use serde::{Deserialize, Serialize};
use skytale_shape::{
    Bulk, Mode, Preset, Shape,
    shape::{RATE_MAX, RATE_MIN},
};
use skytale_wire::{
    frame::{Line, Traffic},
    refusal::Refusal,
};

use crate::config::BadConfig;

/// What an operator asks of every line: the section `[relay.traffic]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrafficRules {
    /// The least strict shape that a line may have, as a mode or a preset. Where an agent asks for
    /// a stricter mode, its own wish holds.
    pub at_least: AtLeast,
    /// Thousandths of a slot a second: a slower wish is raised to this.
    pub millislots_min: u32,
    /// A faster wish is lowered to this: every line costs the relay its rate, busy or not.
    pub millislots_max: u32,
    /// Whether frames may leave beside a schedule when an agent asks for it.
    pub bulk_now: bool,
}

/// A shape by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum AtLeast {
    /// The mode with its defaults.
    Mode(Mode),
    /// One of the shapes to choose from.
    Preset(Preset),
}

/// How both directions of one line are shaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// From the agent.
    pub to_relay: Shape,
    /// To the agent.
    pub to_agent: Shape,
    /// What Ready says of it: nothing to an agent that has not asked.
    pub answer: Option<Traffic>,
}

impl TrafficRules {
    /// What holds for an agent with this wish.
    pub fn terms(&self, wish: Option<&Traffic>) -> Result<Terms, Refusal> {
        let Some(wish) = wish else {
            return if self.at_least.shape().mode() == Mode::Padded {
                Ok(Terms::default())
            } else {
                Err(Refusal::ShapeRequired)
            };
        };
        let to_relay = self.at_least_for(shape(&wish.to_relay)?);
        let to_agent = self.at_least_for(shape(&wish.to_agent)?);
        Ok(Terms {
            to_relay,
            to_agent,
            answer: Some(Traffic {
                to_relay: line(&to_relay),
                to_agent: line(&to_agent),
            }),
        })
    }

    /// Finds bounds that leave nothing between them.
    pub(crate) fn check(&self) -> Result<(), BadConfig> {
        if RATE_MIN <= self.millislots_min
            && self.millislots_min <= self.millislots_max
            && self.millislots_max <= RATE_MAX
        {
            Ok(())
        } else {
            Err(BadConfig(
                "traffic: millislots_min and millislots_max must lie between 100 and 200000, in this order",
            ))
        }
    }

    /// The wish of whoever asks goes first in both directions: the operator only sets a floor.
    fn at_least_for(&self, wish: Shape) -> Shape {
        let floor = self.at_least.shape();
        let bulk = if self.bulk_now && floor.mode() != Mode::Constant {
            Bulk::Now
        } else {
            Bulk::Wait
        };
        let floor = floor
            .with_bulk(bulk)
            .expect("only constant refuses, and it is asked to let frames wait");
        let shape = wish.stricter(floor);
        let rate = shape
            .millislots()
            .clamp(self.millislots_min, self.millislots_max);
        shape
            .with_rate(rate)
            .expect("the bounds were checked at the start")
    }
}

impl Default for TrafficRules {
    fn default() -> Self {
        Self {
            at_least: AtLeast::Mode(Mode::Padded),
            millislots_min: RATE_MIN,
            // Twice the fastest preset.
            millislots_max: 32_000,
            bulk_now: true,
        }
    }
}

impl TryFrom<String> for AtLeast {
    type Error = BadConfig;

    fn try_from(name: String) -> Result<Self, BadConfig> {
        Mode::named(&name)
            .map(Self::Mode)
            .or_else(|| Preset::named(&name).map(Self::Preset))
            .ok_or(BadConfig(
                "traffic: at_least is padded, immediate, adaptive, constant, quiet, standard, swift or maximum",
            ))
    }
}

impl From<AtLeast> for String {
    fn from(at_least: AtLeast) -> Self {
        let name = match at_least {
            AtLeast::Mode(mode) => mode.name(),
            AtLeast::Preset(preset) => preset.name(),
        };
        name.to_owned()
    }
}

impl AtLeast {
    fn shape(self) -> Shape {
        match self {
            Self::Mode(mode) => Shape::new(mode),
            Self::Preset(preset) => preset.shape(),
        }
    }
}

impl Terms {
    /// Whether any direction has slots: then one stream carries everything.
    pub fn is_slotted(&self) -> bool {
        self.to_relay.mode().is_slotted() || self.to_agent.mode().is_slotted()
    }
}

/// Padded both ways, for who has not asked.
impl Default for Terms {
    fn default() -> Self {
        Self {
            to_relay: Shape::new(Mode::Padded),
            to_agent: Shape::new(Mode::Padded),
            answer: None,
        }
    }
}

fn shape(line: &Line) -> Result<Shape, Refusal> {
    let bulk = if line.bulk_now { Bulk::Now } else { Bulk::Wait };
    Shape::from_numbers(line.mode, line.millislots, line.cell, line.bank, bulk)
        .map_err(|_| Refusal::ShapeSenseless)
}

fn line(shape: &Shape) -> Line {
    Line {
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

    fn wish(shape: Shape) -> Traffic {
        Traffic {
            to_relay: line(&shape),
            to_agent: line(&shape),
        }
    }

    fn rules(at_least: &str) -> TrafficRules {
        TrafficRules {
            at_least: at_least.to_owned().try_into().unwrap(),
            ..TrafficRules::default()
        }
    }

    #[test]
    fn a_wish_holds_where_the_operator_asks_for_no_more() {
        let swift = Preset::Swift.shape().with_bulk(Bulk::Now).unwrap();
        for least in ["padded", "immediate", "adaptive"] {
            let terms = rules(least).terms(Some(&wish(swift))).unwrap();
            assert_eq!((terms.to_relay, terms.to_agent), (swift, swift), "{least}");
            assert_eq!(terms.answer, Some(wish(swift)));
        }
    }

    #[test]
    fn the_operator_makes_it_stricter_and_never_less_strict() {
        let terms = rules("maximum").terms(Some(&wish(Preset::Swift.shape())));
        assert_eq!(terms.unwrap().to_agent, Preset::Maximum.shape());

        let padded = wish(Shape::new(Mode::Padded));
        let terms = rules("quiet").terms(Some(&padded)).unwrap();
        assert_eq!(terms.to_relay, Preset::Quiet.shape());

        let constant = Shape::new(Mode::Constant);
        let terms = rules("adaptive").terms(Some(&wish(constant))).unwrap();
        assert_eq!(terms.to_agent.mode(), Mode::Constant);

        let now = Shape::default().with_bulk(Bulk::Now).unwrap();
        let forbidden = TrafficRules {
            bulk_now: false,
            ..TrafficRules::default()
        };
        let terms = forbidden.terms(Some(&wish(now))).unwrap();
        assert_eq!(terms.to_relay.bulk(), Bulk::Wait);
    }

    #[test]
    fn rates_are_kept_within_the_operators_bounds() {
        let rules = TrafficRules {
            millislots_min: 1_000,
            millislots_max: 5_000,
            ..TrafficRules::default()
        };
        for (asked, given) in [(100, 1_000), (4_000, 4_000), (200_000, 5_000)] {
            let asked = Shape::default().with_rate(asked).unwrap();
            let terms = rules.terms(Some(&wish(asked))).unwrap();
            assert_eq!(terms.to_agent.millislots(), given);
        }
        assert!(rules.check().is_ok());
        let none = TrafficRules {
            millislots_min: 2_000,
            millislots_max: 1_000,
            ..rules
        };
        assert!(none.check().is_err());
    }

    #[test]
    fn who_asks_for_nothing_gets_padded_lines_or_is_sent_away() {
        assert_eq!(rules("padded").terms(None), Ok(Terms::default()));
        assert_eq!(rules("immediate").terms(None), Err(Refusal::ShapeRequired));
    }

    #[test]
    fn a_wish_that_makes_no_sense_is_refused() {
        let good = line(&Shape::default());
        for bad in [
            Line { mode: 4, ..good },
            Line {
                millislots: 0,
                ..good
            },
            Line {
                millislots: u32::MAX,
                ..good
            },
            Line { cell: 10, ..good },
            Line {
                cell: 65_536 + 1_056,
                ..good
            },
            Line { bank: 300, ..good },
            Line {
                mode: 3,
                bulk_now: true,
                ..good
            },
        ] {
            for wish in [
                Traffic {
                    to_relay: bad,
                    to_agent: good,
                },
                Traffic {
                    to_relay: good,
                    to_agent: bad,
                },
            ] {
                let terms = TrafficRules::default().terms(Some(&wish));
                assert_eq!(terms, Err(Refusal::ShapeSenseless), "{bad:?}");
            }
        }
    }
}
