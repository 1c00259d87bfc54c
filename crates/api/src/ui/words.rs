//! Times and numbers as people read them.

use maud::{Markup, html};

/// A moment that is written as RFC 3339, to the minute.
pub(crate) fn moment(at: &str) -> Markup {
    let shown = at.get(..16).unwrap_or(at).replace('T', " ");
    html! { time datetime=(at) { (shown) } }
}

/// The same to the second.
pub(crate) fn instant(at: &str) -> Markup {
    let shown = at.get(..19).unwrap_or(at).replace('T', " ");
    html! { time datetime=(at) { (shown) } }
}

/// A moment to the minute, or a word where there is none.
pub(crate) fn moment_or(at: Option<&str>, none: &str) -> Markup {
    if let Some(at) = at {
        moment(at)
    } else {
        html! { span.quiet { (none) } }
    }
}

/// A number with its digits in threes.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            // Narrow, and does not break.
            shown.push('\u{202f}');
        }
        shown.push(digit);
    }
    shown
}

/// A number of bytes, to a tenth of the largest unit that fits.
pub(crate) fn bytes(number: u64) -> String {
    let units = [("TB", 12), ("GB", 9), ("MB", 6), ("kB", 3)];
    let fits = units
        .into_iter()
        .map(|(name, power)| (name, 10_u64.pow(power)))
        .find(|(_, unit)| number >= *unit);
    match fits {
        Some((name, unit)) => {
            let tenth = (number % unit) / (unit / 10);
            format!("{}.{tenth}\u{a0}{name}", count(number / unit))
        }
        None => format!("{number}\u{a0}B"),
    }
}

/// A span of seconds, by its two largest units.
pub(crate) fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (
        seconds / 86_400,
        seconds % 86_400 / 3_600,
        seconds % 3_600 / 60,
    );
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}\u{a0}s"),
        (0, 0, minutes) => format!("{minutes}\u{a0}min"),
        (0, hours, minutes) => format!("{hours}\u{a0}h {minutes}\u{a0}min"),
        (days, hours, _) => format!("{}\u{a0}d {hours}\u{a0}h", count(days)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(bytes(999), "999\u{a0}B");
        assert_eq!(bytes(1_050), "1.0\u{a0}kB");
        assert_eq!(bytes(1_990_000), "1.9\u{a0}MB");
        assert_eq!(
            bytes(u64::MAX),
            "18\u{202f}446\u{202f}744.0\u{a0}TB",
            "the largest"
        );
        assert_eq!(span(59), "59\u{a0}s");
        assert_eq!(span(3_599), "59\u{a0}min");
        assert_eq!(span(7_260), "2\u{a0}h 1\u{a0}min");
        assert_eq!(span(90_000), "1\u{a0}d 1\u{a0}h");
    }

    #[test]
    fn a_moment_is_shown_to_the_minute() {
        let shown = moment("2026-11-22T10:34:54.123Z").into_string();
        assert_eq!(
            shown,
            "<time datetime=\"2026-11-22T10:34:54.123Z\">2026-11-22 10:34</time>"
        );
        let shown = instant("2026-11-22T10:34:54.123Z").into_string();
        assert!(shown.ends_with(">2026-11-22 10:34:54</time>"), "{shown}");
    }
}
