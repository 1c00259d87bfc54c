//! Control messages of ours that wait for answers: said again until all have answered, or given up.

use std::collections::{BTreeMap, BTreeSet};

use skytale_slim::{Address, Routed};

use crate::{Reliability, Time};

/// What waits, by message id. A session has a handful at a time.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    waiting: BTreeMap<u32, Ask>,
}

#[derive(Debug)]
struct Ask {
    message: Routed,
    missing: BTreeSet<Address>,
    due: Time,
    left: u32,
    every_ms: u64,
}

impl Asks {
    /// Waits for answers to what was just said.
    pub(crate) fn put(
        &mut self,
        id: u32,
        message: Routed,
        missing: BTreeSet<Address>,
        now: Time,
        pace: Reliability,
    ) {
        let ask = Ask {
            message,
            missing,
            due: now.after(pace.interval_ms),
            left: pace.retries_max,
            every_ms: pace.interval_ms,
        };
        self.waiting.insert(id, ask);
    }

    /// Notes an answer. Whether it was the last one that was waited for.
    pub(crate) fn answered(&mut self, id: u32, by: Address) -> bool {
        let Some(ask) = self.waiting.get_mut(&id) else {
            return false;
        };
        let last = ask.missing.remove(&by) && ask.missing.is_empty();
        if last {
            self.waiting.remove(&id);
        }
        last
    }

    pub(crate) fn waits_for(&self, id: u32, by: Address) -> bool {
        self.waiting
            .get(&id)
            .is_some_and(|ask| ask.missing.contains(&by))
    }

    /// Waits no longer for somebody who is gone. Which asks have all their answers by that.
    pub(crate) fn gone(&mut self, who: Address) -> Vec<u32> {
        let mut complete = Vec::new();
        self.waiting.retain(|id, ask| {
            let last = ask.missing.remove(&who) && ask.missing.is_empty();
            if last {
                complete.push(*id);
            }
            !last
        });
        complete
    }

    pub(crate) fn forget(&mut self, id: u32) {
        self.waiting.remove(&id);
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// What is to be said again, and what is given up, with those who did not answer.
    pub(crate) fn due(&mut self, now: Time) -> (Vec<Routed>, Vec<(u32, Vec<Address>)>) {
        let mut again = Vec::new();
        let mut given_up = Vec::new();
        self.waiting.retain(|id, ask| {
            if ask.due > now {
                return true;
            }
            if ask.left == 0 {
                given_up.push((*id, ask.missing.iter().copied().collect()));
                return false;
            }
            ask.left -= 1;
            ask.due = now.after(ask.every_ms);
            again.push(ask.message.clone());
            true
        });
        (again, given_up)
    }

    pub(crate) fn wake_at(&self) -> Option<Time> {
        self.waiting.values().map(|ask| ask.due).min()
    }
}
