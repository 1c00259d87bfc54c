//! What we say to a session, kept until all who are there have it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use skytale_slim::Address;

use crate::{Reliability, Time};

/// One session's messages of ours.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    last: u32,
    /// For those who ask for one again: plaintext, since it is sealed anew each time.
    kept: VecDeque<Kept>,
    waiting: BTreeMap<u32, Waiting>,
}

/// A message of ours.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) id: u32,
    pub(crate) payload_type: String,
    pub(crate) payload: Bytes,
    pub(crate) metadata: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Waiting {
    missing: BTreeSet<Address>,
    /// Who went away without it: nobody waits for him, but he has not got it.
    without: Vec<Address>,
    due: Time,
    left: u32,
}

/// What is over: all have it, or those named have not answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) id: u32,
    pub(crate) missing: Vec<Address>,
}

impl Outgoing {
    /// Whether one more may wait.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < KEPT_MAX
    }

    /// Gives a message its id and keeps it.
    pub(crate) fn put(
        &mut self,
        payload_type: String,
        payload: Bytes,
        metadata: BTreeMap<String, String>,
    ) -> Kept {
        self.last = (self.last + 1) % ORDERED;
        let kept = Kept {
            id: self.last,
            payload_type,
            payload,
            metadata,
        };
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(kept.clone());
        kept
    }

    /// Waits until those have it.
    pub(crate) fn wait(
        &mut self,
        id: u32,
        missing: BTreeSet<Address>,
        now: Time,
        pace: Reliability,
    ) {
        let waiting = Waiting {
            missing,
            without: Vec::new(),
            due: now.after(pace.interval_ms),
            left: pace.retries_max,
        };
        self.waiting.insert(id, waiting);
    }

    pub(crate) fn acknowledged(&mut self, id: u32, by: Address) -> Option<Done> {
        let waiting = self.waiting.get_mut(&id)?;
        waiting.missing.remove(&by);
        waiting.without.retain(|who| *who != by);
        if !waiting.missing.is_empty() {
            return None;
        }
        let waiting = self.waiting.remove(&id)?;
        Some(Done {
            id,
            missing: waiting.without,
        })
    }

    pub(crate) fn kept(&self, id: u32) -> Option<&Kept> {
        self.kept.iter().find(|kept| kept.id == id)
    }

    /// Nobody waits for who is away, but he is told as one who has not got it.
    pub(crate) fn away(&mut self, who: Address) -> Vec<Done> {
        for waiting in self.waiting.values_mut() {
            if waiting.missing.remove(&who) {
                waiting.without.push(who);
            }
        }
        self.complete()
    }

    /// Who is out for good need not get anything.
    pub(crate) fn gone(&mut self, who: Address) -> Vec<Done> {
        for waiting in self.waiting.values_mut() {
            waiting.missing.remove(&who);
            waiting.without.retain(|it| *it != who);
        }
        self.complete()
    }

    fn complete(&mut self) -> Vec<Done> {
        let done = self.waiting.extract_if(.., |_, it| it.missing.is_empty());
        done.map(|(id, waiting)| Done {
            id,
            missing: waiting.without,
        })
        .collect()
    }

    /// What is to be said again and to whom, and what is over.
    pub(crate) fn due(
        &mut self,
        now: Time,
        pace: Reliability,
    ) -> (Vec<(Kept, Address)>, Vec<Done>) {
        let mut again = Vec::new();
        let mut done = Vec::new();
        let kept = &self.kept;
        self.waiting.retain(|id, waiting| {
            if waiting.due > now {
                return true;
            }
            let message = kept.iter().find(|kept| kept.id == *id);
            let (Some(message), Some(left)) = (message, waiting.left.checked_sub(1)) else {
                done.push(Done {
                    id: *id,
                    missing: waiting
                        .missing
                        .iter()
                        .chain(&waiting.without)
                        .copied()
                        .collect(),
                });
                return false;
            };
            waiting.left = left;
            waiting.due = now.after(pace.interval_ms);
            again.extend(waiting.missing.iter().map(|who| (message.clone(), *who)));
            true
        });
        (again, done)
    }

    pub(crate) fn wake_at(&self) -> Option<Time> {
        self.waiting.values().map(|waiting| waiting.due).min()
    }
}

/// Ids are below this and then begin again, as SLIM counts.
const ORDERED: u32 = 1 << 31;
/// Messages that can be said again, and that may wait at a time. SLIM keeps as many.
const KEPT_MAX: usize = 512;
