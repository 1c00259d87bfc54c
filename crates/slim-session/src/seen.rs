//! Control messages that were here before, so that a node cannot say one twice.

use std::collections::{BTreeMap, VecDeque};

use skytale_slim::Address;

/// The control messages that a session has dealt with, of each who takes part in it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    ids: BTreeMap<Address, VecDeque<u32>>,
}

impl Seen {
    /// Whether it was here before. Remembers it.
    pub(crate) fn is_repeat(&mut self, from: Address, id: u32) -> bool {
        let ids = self.ids.entry(from).or_default();
        if ids.contains(&id) {
            return true;
        }
        if ids.len() == IDS_MAX {
            ids.pop_front();
        }
        ids.push_back(id);
        false
    }

    /// It had no effect, so the next with this id is no repeat.
    pub(crate) fn take_back(&mut self, from: Address, id: u32) {
        if let Some(ids) = self.ids.get_mut(&from) {
            ids.retain(|known| *known != id);
        }
    }

    pub(crate) fn forget(&mut self, from: Address) {
        self.ids.remove(&from);
    }
}

/// Remembered of one sender; older ones are guarded by their token's age.
const IDS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use skytale_slim::{Instance, Name};

    use super::*;

    #[test]
    fn a_message_is_a_repeat_until_it_is_taken_back_or_too_old() {
        let bob = Name::parse("org/ns/bob").unwrap();
        let bob = bob.at(Instance::Only(1)).address;
        let mut seen = Seen::default();
        assert!(!seen.is_repeat(bob, 1));
        assert!(seen.is_repeat(bob, 1));
        seen.take_back(bob, 1);
        assert!(!seen.is_repeat(bob, 1));
        for id in 2..514 {
            assert!(!seen.is_repeat(bob, id));
        }
        assert!(!seen.is_repeat(bob, 1));
    }
}
