//! Counts of what this door drops and refuses, for metrics: numbers, and no names.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that only rise.
#[derive(Debug, Default)]
pub struct GrpcTally {
    streams: AtomicU64,
    denied: AtomicU64,
    crowded: AtomicU64,
    silent: AtomicU64,
    wrong_macs: AtomicU64,
    malformed: AtomicU64,
    oversized: AtomicU64,
    other_generation: AtomicU64,
}

/// What a [`GrpcTally`] stood at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GrpcTallied {
    /// SLIM streams that were let in.
    pub streams: u64,
    /// SLIM streams that were refused for their token, or for having none.
    pub denied: u64,
    /// Connections and streams that found no place.
    pub crowded: u64,
    /// Connections and streams that said nothing in time.
    pub silent: u64,
    /// Messages dropped for their header's MAC.
    pub wrong_macs: u64,
    /// Messages dropped because they could not be read.
    pub malformed: u64,
    /// Messages dropped because they were too large.
    pub oversized: u64,
    /// Messages dropped because their receiver speaks the other generation.
    pub other_generation: u64,
}

impl GrpcTally {
    /// Where all stand.
    pub fn look(&self) -> GrpcTallied {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GrpcTallied {
            streams: of(&self.streams),
            denied: of(&self.denied),
            crowded: of(&self.crowded),
            silent: of(&self.silent),
            wrong_macs: of(&self.wrong_macs),
            malformed: of(&self.malformed),
            oversized: of(&self.oversized),
            other_generation: of(&self.other_generation),
        }
    }

    pub(super) fn stream(&self) {
        one_more(&self.streams);
    }

    pub(super) fn denied(&self) {
        one_more(&self.denied);
    }

    pub(super) fn crowded(&self) {
        one_more(&self.crowded);
    }

    pub(super) fn silent(&self) {
        one_more(&self.silent);
    }

    pub(super) fn wrong_mac(&self) {
        one_more(&self.wrong_macs);
    }

    pub(super) fn malformed(&self) {
        one_more(&self.malformed);
    }

    pub(super) fn oversized(&self) {
        one_more(&self.oversized);
    }

    pub(super) fn other_generation(&self) {
        one_more(&self.other_generation);
    }
}

fn one_more(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
