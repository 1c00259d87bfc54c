//! Retention by age: bodies of old application messages go, commits and stubs stay.
//!
//! The hub does not keep a time for each record. A channel holds a few marks, "everything up to
//! here had come by then", so that a body goes between the promised age and a little later.

use skytale_wire::id::{ChannelId, Seq, Time};

use super::{
    Hub, Output, Timer,
    channel::{Channel, Mark},
    ledger::Effect,
};
use crate::archive::Write;

impl Hub {
    /// Looks through all channels for bodies that are too old.
    pub(super) fn prune(&mut self, now: Time, out: &mut Vec<Output>) {
        let spacing_ms = spacing_ms(self.config.retention_ms);
        let mut again = now.plus(spacing_ms);
        if self.check_writable().is_ok() {
            let retention_ms = self.config.retention_ms;
            let mut due: Vec<_> = self
                .channels
                .iter()
                .filter(|(_, channel)| {
                    channel.is_due(now, retention_ms) || channel.is_quiet(now, spacing_ms)
                })
                .map(|(id, _)| *id)
                .collect();
            due.sort_unstable(); // The map's order differs from run to run.
            if due.len() > PRUNES_MAX {
                due.truncate(PRUNES_MAX);
                again = now.plus(PRUNE_PAUSE_MS);
            }
            let left = PRUNES_MAX - due.len();
            for id in due {
                self.prune_channel(id, now, out);
            }
            if !self.slim_prune(now, left, out) {
                again = now.plus(PRUNE_PAUSE_MS);
            }
        }
        self.timers.insert((again, Timer::Retention));
    }

    fn prune_channel(&mut self, id: ChannelId, now: Time, out: &mut Vec<Output>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        // Records after the last mark of a channel in which nothing happens any more would never
        // grow old: they are taken to have come now, and the mark is stored.
        let marked = channel.mark(channel.head, now, spacing_ms(self.config.retention_ms));
        if marked {
            let write = Write::Channel {
                channel: id,
                state: channel.state(),
            };
            self.ledger.write(write, Effect::Nothing, None, out);
        }
        if let Some(up_to) = channel.take_marks(now, self.config.retention_ms) {
            channel.pruning = true;
            let write = Write::Prune { channel: id, up_to };
            let effect = Effect::Pruned { channel: id, up_to };
            self.ledger.write(write, effect, None, out);
        }
    }
}

impl Channel {
    fn is_quiet(&self, now: Time, spacing_ms: u64) -> bool {
        is_quiet(&self.kept.marks, self.head, self.pruned, now, spacing_ms)
    }

    fn is_due(&self, now: Time, retention_ms: u64) -> bool {
        !self.pruning && is_due(&self.kept.marks, now, retention_ms)
    }

    /// Takes out the marks that are old enough: up to where bodies may go.
    fn take_marks(&mut self, now: Time, retention_ms: u64) -> Option<Seq> {
        if self.pruning {
            return None;
        }
        let up_to = take_marks(&mut self.kept.marks, now, retention_ms)?;
        (up_to > self.pruned).then_some(up_to)
    }
}

/// Notes that the record at `seq` came now, when the last note is older than `spacing_ms`. Whether
/// there is something new to store.
pub(super) fn mark(marks: &mut Vec<Mark>, seq: Seq, now: Time, spacing_ms: u64) -> bool {
    let due = marks
        .last()
        .is_none_or(|last| last.seq < seq && now.since(last.at) >= spacing_ms);
    if due {
        marks.push(Mark { seq, at: now });
    }
    due
}

/// Whether records have come since the last mark, and none is coming to make the next.
pub(super) fn is_quiet(marks: &[Mark], head: Seq, pruned: Seq, now: Time, spacing_ms: u64) -> bool {
    let last = marks.last();
    head > last.map_or(pruned, |mark| mark.seq)
        && last.is_none_or(|mark| now.since(mark.at) >= spacing_ms)
}

/// Whether something is old enough to go.
pub(super) fn is_due(marks: &[Mark], now: Time, retention_ms: u64) -> bool {
    let oldest = marks.first();
    oldest.is_some_and(|mark| now.since(mark.at) >= retention_ms)
}

/// Takes out the marks that are old enough, and says up to where they reach.
pub(super) fn take_marks(marks: &mut Vec<Mark>, now: Time, retention_ms: u64) -> Option<Seq> {
    let old = marks.partition_point(|mark| now.since(mark.at) >= retention_ms);
    marks.drain(..old).next_back().map(|mark| mark.seq)
}

/// How far marks are apart: so far that a channel never has more than a hundred or so.
pub(super) fn spacing_ms(retention_ms: u64) -> u64 {
    (retention_ms / MARKS).clamp(SPACING_MS_MIN, SPACING_MS_MAX)
}

/// Marks over the time that messages are kept.
const MARKS: u64 = 96;
const SPACING_MS_MIN: u64 = 1_000;
const SPACING_MS_MAX: u64 = 24 * 3_600_000;
/// Channels pruned in one step, so that the store's queue is left to publishers.
const PRUNES_MAX: usize = 64;
const PRUNE_PAUSE_MS: u64 = 1_000;
