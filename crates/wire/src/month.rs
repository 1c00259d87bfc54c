//! Months of the calendar in UTC: what usage is counted by.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::id::Time;

/// A month (UTC), shown as `2026-11`. Counted from January of the year 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(u32);

impl Month {
    /// The month that a moment lies in. Beyond the year 9999 it is the last one before.
    pub fn of(time: Time) -> Self {
        // Whole eras of 400 years, which all have the same length; years that begin in March, so
        // that the leap day is the last of them (Hinnant, "chrono-compatible low-level date
        // algorithms").
        let days = time.0 / DAY_MS + DAYS_BEFORE_1970;
        let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        // March of the year 0 is its third month.
        let month = (era * 400 + year) * 12 + from_march + 2;
        Self(u32::try_from(month).unwrap_or(u32::MAX).min(LAST))
    }

    /// The month after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self((self.0 + 1).min(LAST))
    }

    /// Its first moment. What lies before 1970 begins with time itself.
    pub fn begins(self) -> Time {
        // From March of the year before the year 0.
        let from_march = u64::from(self.0) + 10;
        let (year, month) = ((from_march / 12).saturating_sub(1), from_march % 12);
        let (era, of_era) = (year / 400, year % 400);
        let day = 365 * of_era + of_era / 4 - of_era / 100 + (153 * month + 2) / 5;
        let days = (era * ERA_DAYS + day).saturating_sub(DAYS_BEFORE_1970);
        Time(days * DAY_MS)
    }

    /// As it is stored where numbers are.
    pub fn number(self) -> u32 {
        self.0
    }

    /// From such a number.
    pub fn from_number(number: u32) -> Option<Self> {
        (number <= LAST).then_some(Self(number))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0 / 12, self.0 % 12 + 1)
    }
}

impl FromStr for Month {
    type Err = BadMonth;

    fn from_str(text: &str) -> Result<Self, BadMonth> {
        let read = || {
            let (year, month) = text.split_once('-')?;
            let digits = |part: &str, len| {
                let whole = part.len() == len && part.bytes().all(|byte| byte.is_ascii_digit());
                whole.then(|| part.parse::<u32>().ok()).flatten()
            };
            let (year, month) = (digits(year, 4)?, digits(month, 2)?);
            (1..=12)
                .contains(&month)
                .then(|| Self(year * 12 + month - 1))
        };
        read().ok_or(BadMonth)
    }
}

impl Serialize for Month {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Month {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// The text names no month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a month as in 2026-11")]
pub struct BadMonth;

const DAY_MS: u64 = 86_400_000;
const ERA_DAYS: u64 = 146_097;
/// From the first of March of the year 0.
const DAYS_BEFORE_1970: u64 = 719_468;
/// December 9999.
const LAST: u32 = 9_999 * 12 + 11;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_ends_at_midnight_utc() {
        for (ms, month) in [
            (0, "1970-01"),
            (951_782_399_999, "2000-02"),
            // The 29th of February 2000.
            (951_825_600_000, "2000-02"),
            (951_868_800_000, "2000-03"),
            (1_793_491_199_999, "2026-10"),
            (1_793_491_200_000, "2026-11"),
            // The last millisecond of 2100, which has no leap day.
            (4_133_980_799_999, "2100-12"),
            (4_133_980_800_000, "2101-01"),
            (u64::MAX, "9999-12"),
        ] {
            assert_eq!(Month::of(Time(ms)).to_string(), month, "{ms}");
        }
    }

    #[test]
    fn each_month_begins_where_the_one_before_ends() {
        let mut month = Month::of(Time(0));
        assert_eq!(month.begins(), Time(0));
        while month < "2500-01".parse().unwrap() {
            let next = month.next();
            let begins = next.begins();
            assert_eq!(Month::of(begins), next);
            assert_eq!(Month::of(Time(begins.0 - 1)), month);
            assert_eq!(next.to_string().parse(), Ok(next));
            assert_eq!(Month::from_number(next.number()), Some(next));
            month = next;
        }
    }

    #[test]
    fn what_is_no_month_is_refused() {
        for text in [
            "",
            "2026",
            "2026-0",
            "2026-00",
            "2026-13",
            "26-11",
            "2026-11-01",
            "2026/11",
            "+026-11",
            " 2026-11",
        ] {
            assert_eq!(text.parse::<Month>(), Err(BadMonth), "{text}");
        }
    }
}
