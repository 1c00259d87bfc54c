//! The server's one clock, and how its times are shown.
//!
//! Everything that asks for the time asks this, so that tests can hold it still.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use skytale_wire::id::Time;

/// Says what time it is.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Time + Send + Sync>);

impl Clock {
    /// The system's clock: for programs, never for tests.
    pub fn system() -> Self {
        Self::from_fn(|| {
            #[expect(clippy::disallowed_methods, reason = "the API server's one clock")]
            let now = std::time::SystemTime::now();
            let since = now
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default();
            Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        })
    }

    /// A clock that shows what the function says.
    pub fn from_fn(now: impl Fn() -> Time + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The present moment.
    pub fn now(&self) -> Time {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// The moment as RFC 3339 in UTC, to the millisecond.
pub fn rfc3339(time: Time) -> String {
    format!("{:.3}", timestamp(time))
}

/// A clock beyond the year 9999 is shown as the last moment there is.
fn timestamp(time: Time) -> Timestamp {
    i64::try_from(time.0)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_the_standard_says() {
        assert_eq!(rfc3339(Time(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(Time(1_790_000_000_123)), "2026-09-21T14:13:20.123Z");
        assert!(rfc3339(Time(u64::MAX)).starts_with("9999-12-30"));
    }
}
