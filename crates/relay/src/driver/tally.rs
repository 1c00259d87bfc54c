//! What the lines of a relay have carried, all together: no number of one agent is kept.

use std::sync::atomic::{AtomicU64, Ordering};

use skytale_shape::Passed;

/// Counters that every line adds to.
#[derive(Debug, Default)]
pub struct Tally {
    real: AtomicU64,
    cover: AtomicU64,
    over: AtomicU64,
    missed: AtomicU64,
    cover_received: AtomicU64,
    cover_missing: AtomicU64,
    breaches: AtomicU64,
}

/// What stood in a [`Tally`] when it was looked at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tallied {
    /// Cells with frames that were sent.
    pub real: u64,
    /// Cover that was sent.
    pub cover: u64,
    /// Of the real ones, those that left beside a schedule.
    pub over: u64,
    /// Slots in which nothing left: a machine that is too busy, or peers that do not read.
    pub missed: u64,
    /// Cover of agents that arrived.
    pub cover_received: u64,
    /// Cover of agents that somebody took out on its way.
    pub cover_missing: u64,
    /// Lines that were closed because the peer broke their format.
    pub breaches: u64,
}

impl Tally {
    /// Counts what was sent.
    pub fn sent(&self, passed: &Passed) {
        add(&self.real, passed.real);
        add(&self.cover, passed.cover);
        add(&self.over, passed.over);
        add(&self.missed, passed.missed);
    }

    /// Counts cover of an agent.
    pub fn cover(&self, received: u64, missing: u64) {
        add(&self.cover_received, received);
        add(&self.cover_missing, missing);
    }

    /// Counts a line that is closed because of what came on it.
    pub fn breach(&self) {
        add(&self.breaches, 1);
    }

    /// What has been counted so far.
    pub fn look(&self) -> Tallied {
        Tallied {
            real: self.real.load(Ordering::Relaxed),
            cover: self.cover.load(Ordering::Relaxed),
            over: self.over.load(Ordering::Relaxed),
            missed: self.missed.load(Ordering::Relaxed),
            cover_received: self.cover_received.load(Ordering::Relaxed),
            cover_missing: self.cover_missing.load(Ordering::Relaxed),
            breaches: self.breaches.load(Ordering::Relaxed),
        }
    }
}

fn add(counter: &AtomicU64, more: u64) {
    if more > 0 {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}
