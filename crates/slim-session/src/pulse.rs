//! Heartbeats: that we are there, for the others, and whether they are, for us.

use std::collections::BTreeMap;

use skytale_slim::Address;

use crate::Time;

/// One session's pulse. Stands still while the session is paused.
#[derive(Debug)]
pub(crate) struct Pulse {
    due: Option<Time>,
    /// Whoever has spoken to all since the last beat needs none.
    spoke: bool,
    wanted: bool,
    /// Beats since each of the others was heard.
    silent: BTreeMap<Address, u32>,
}

/// What a beat brings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Beat {
    /// Whether we say that we are there.
    pub(crate) speak: bool,
    /// Who has been silent for too long.
    pub(crate) gone: Vec<Address>,
}

impl Pulse {
    pub(crate) fn new(now: Time) -> Self {
        Self {
            due: Some(now.after(BEAT_MS)),
            spoke: false,
            wanted: false,
            silent: BTreeMap::new(),
        }
    }

    pub(crate) fn watch(&mut self, who: Address) {
        self.silent.insert(who, 0);
    }

    pub(crate) fn forget(&mut self, who: Address) {
        self.silent.remove(&who);
    }

    pub(crate) fn heard(&mut self, who: Address) {
        if let Some(beats) = self.silent.get_mut(&who) {
            *beats = 0;
        }
    }

    pub(crate) fn spoke(&mut self) {
        self.spoke = true;
    }

    /// Somebody is back and shall learn our epoch, whatever else we have said.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }

    pub(crate) fn stop(&mut self) {
        self.due = None;
        self.silent.clear();
    }

    pub(crate) fn start(&mut self, now: Time) {
        self.due = Some(now.after(BEAT_MS));
    }

    pub(crate) fn wake_at(&self) -> Option<Time> {
        self.due
    }

    /// The next beat, if it is time.
    pub(crate) fn due(&mut self, now: Time) -> Option<Beat> {
        self.due.filter(|due| *due <= now)?;
        self.due = Some(now.after(BEAT_MS));
        let mut gone = Vec::new();
        self.silent.retain(|who, beats| {
            *beats += 1;
            let silent = *beats >= BEATS_MISSED_MAX;
            if silent {
                gone.push(*who);
            }
            !silent
        });
        // When all others seem gone it may be us who was cut off: then they learn it by this.
        let speak = !self.spoke || self.wanted || self.silent.is_empty();
        self.spoke = false;
        self.wanted = false;
        Some(Beat { speak, gone })
    }
}

/// SLIM's own pace, and after how many silent beats somebody counts as away.
const BEAT_MS: u64 = 10_000;
const BEATS_MISSED_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use skytale_slim::{Instance, Name};

    use super::*;

    fn bob() -> Address {
        let name = Name::parse("org/ns/bob").unwrap();
        name.at(Instance::Only(1)).address
    }

    #[test]
    fn whoever_is_silent_for_three_beats_is_away() {
        let mut pulse = Pulse::new(Time(0));
        pulse.watch(bob());
        for beat in 1..=2 {
            assert_eq!(pulse.due(Time(beat * BEAT_MS)).unwrap().gone, []);
        }
        pulse.heard(bob());
        for beat in 3..=4 {
            assert_eq!(pulse.due(Time(beat * BEAT_MS)).unwrap().gone, []);
        }
        assert_eq!(pulse.due(Time(5 * BEAT_MS)).unwrap().gone, [bob()]);
        assert_eq!(pulse.due(Time(6 * BEAT_MS)).unwrap().gone, []);
    }

    #[test]
    fn what_was_said_to_all_is_a_beat() {
        let mut pulse = Pulse::new(Time(0));
        pulse.watch(bob());
        pulse.spoke();
        assert!(!pulse.due(Time(BEAT_MS)).unwrap().speak);
        assert!(pulse.due(Time(BEAT_MS + 1)).is_none());
        assert!(pulse.due(Time(2 * BEAT_MS)).unwrap().speak);
        pulse.spoke();
        pulse.want();
        assert!(pulse.due(Time(3 * BEAT_MS)).unwrap().speak);
    }
}
