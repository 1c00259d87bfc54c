//! The simulation: real minds on real SQLite, the real hub on a real archive, one clock, one seed.
//!
//! Everything that a network, a disk or a process can do to a frame happens here by chance drawn
//! from the seed: delay, reordering between the two streams, doubling, cut connections,
//! partitions, crashes before and after a commit, writes that fail, clocks that are wrong. Then
//! everything heals, and what must hold is checked ([`checks`]). The same seed gives the same run;
//! only keys and randomness inside MLS differ, so a trace counts kinds and lengths.
//!
//! The parts: [`world`] owns clock and queue, [`relay`] runs the hub as its driver does, [`agent`]
//! runs a mind as its worker does, [`usage`] takes what the relay reports, [`script`] says what people do, [`checks`] says what must hold.
//! [`stage`] is the same without chance, for tests that direct every move.

pub mod agent;
pub mod checks;
pub mod relay;
pub mod script;
pub mod stage;
mod usage;
pub mod world;

pub use stage::Stage;
pub use world::{Outcome, World};

use std::collections::BTreeMap;

/// What happened how often, over all schedules: a typed outcome that never occurred was not
/// tested.
#[derive(Debug, Default, Clone)]
pub struct Counters(pub BTreeMap<String, u64>);

impl Counters {
    /// One more.
    pub fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    /// Adds another run's counts.
    pub fn merge(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what.clone()).or_default() += count;
        }
    }
}
