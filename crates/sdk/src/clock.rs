//! The one clock of a program that uses this library: everything else is handed a [`Time`].

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use skytale_wire::id::Time;

/// This moment, never earlier than what was answered before: a clock that is set back stands still
/// until it has caught up, so that leases and deadlines keep their order.
pub(crate) fn now() -> Time {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the clock is read"
    )]
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    Time(LATEST.fetch_max(ms, Ordering::Relaxed).max(ms))
}

static LATEST: AtomicU64 = AtomicU64::new(0);
