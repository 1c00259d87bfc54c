//! The relay's one clock.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use skytale_wire::id::Time;

/// Tells the time, never an earlier one than before.
///
/// It runs with the system's monotonic clock from where the wall clock stood at the start. When
/// the wall clock is ahead, because it was set forward or the machine slept, it follows; when the
/// wall clock was set back, it runs on.
#[derive(Clone)]
pub struct Clock(Arc<Running>);

struct Running {
    start: Instant,
    start_ms: u64,
    last_ms: AtomicU64,
}

impl Clock {
    /// A clock that starts now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the relay's one clock: everything else is told the time"
    )]
    pub fn system() -> Self {
        Self(Arc::new(Running {
            start: Instant::now(),
            start_ms: wall_ms(),
            last_ms: AtomicU64::new(0),
        }))
    }

    /// What time it is.
    #[expect(
        clippy::disallowed_methods,
        reason = "the relay's one clock: everything else is told the time"
    )]
    pub fn now(&self) -> Time {
        let running = u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now = wall_ms().max(self.0.start_ms.saturating_add(running));
        Time(self.0.last_ms.fetch_max(now, Ordering::Relaxed).max(now))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the relay's one clock: everything else is told the time"
)]
fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back() {
        let clock = Clock::system();
        let ahead = clock.now().plus(3_600_000);
        // As if the wall clock had been an hour ahead and was then corrected.
        clock.0.last_ms.store(ahead.0, Ordering::Relaxed);

        assert!(clock.now() >= ahead);
    }
}
