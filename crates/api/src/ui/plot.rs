//! Bars, one a month, as SVG that needs neither script nor style of its own.
//!
//! They lie on their side: so a year fits a narrow screen, and each has its number beside it.

use maud::{Markup, html};
use skytale_wire::month::Month;

/// A number for each of these months, the newest first.
pub(crate) fn bars(
    id: &str,
    title: &str,
    shown: fn(u64) -> String,
    months: &[(Month, u64)],
) -> Markup {
    let largest = months.iter().map(|(_, number)| *number).max().unwrap_or(0);
    let rows = months.iter().zip((0..).step_by(ROW)).map(|(row, y)| {
        let (month, number) = *row;
        (month, number, y, length(number, largest))
    });
    let height = months.len() * ROW;
    let (named, described) = (format!("{id}-title"), format!("{id}-desc"));
    html! {
        svg.plot role="img" aria-labelledby={ (named) " " (described) }
            viewBox={ "0 0 " (WIDTH) " " (height) } width=(WIDTH) height=(height) {
            title id=(named) { (title) }
            desc id=(described) {
                @for (month, number) in months { (month.to_string()) ": " (shown(*number)) ". " }
            }
            @for (month, number, y, long) in rows {
                text.axis x="0" y=(y + BASE) font-size="12" { (month.to_string()) }
                rect.track x=(LEFT) y=(y + GAP) width=(LONGEST) height=(THICK) rx="2" {}
                rect.bar x=(LEFT) y=(y + GAP) width=(long) height=(THICK) rx="2" {}
                text x=(WIDTH) y=(y + BASE) font-size="12" text-anchor="end" { (shown(number)) }
            }
        }
    }
}

/// What is not nothing can be seen.
fn length(number: u64, largest: u64) -> u64 {
    let scaled = u128::from(number) * u128::from(LONGEST) / u128::from(largest.max(1));
    let scaled = u64::try_from(scaled).unwrap_or(LONGEST);
    scaled.max(u64::from(number > 0))
}

const WIDTH: usize = 340;
const LEFT: u64 = 60;
const LONGEST: u64 = 190;
const ROW: usize = 22;
const GAP: usize = 5;
const THICK: usize = 12;
/// Where letters stand in their row.
const BASE: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_numbers_and_none_vanishes() {
        assert_eq!(length(0, 10), 0);
        assert_eq!(length(10, 10), LONGEST);
        assert_eq!(length(5, 10), LONGEST / 2);
        assert_eq!(length(1, u64::MAX), 1);
        assert_eq!(length(u64::MAX, u64::MAX), LONGEST);
        assert_eq!(length(0, 0), 0);
    }
}
