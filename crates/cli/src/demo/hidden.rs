//! What a line with a schedule hides: one agent stays online, first in silence and then talking, and
//! its own counters say what passed. Nothing here is an estimate.

use serde::Serialize;
use serde_json::Value;
use skytale_sdk::Preset;

use super::{CHANNEL, PLANNER, REVIEWER, Step, Story, stage};
use crate::demo::stage::Running;

/// Both stretches of one line.
#[derive(Debug, Serialize)]
pub(super) struct Hidden {
    traffic: &'static str,
    slots_per_second: f64,
    cell_bytes: u64,
    silent: Carried,
    talking: Carried,
}

/// What a line carried in some seconds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
struct Carried {
    ms: u64,
    sent: Way,
    received: Way,
    /// Slots in which this machine was late.
    missed: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
struct Way {
    real: u64,
    cover: u64,
    bytes: u64,
}

impl Story {
    /// The line is a real one: two more messages go over it.
    pub(super) async fn hide(&mut self) -> Step<()> {
        self.say("reviewer stays online behind a schedule, in silence and then talking");
        let name = SHOWN.name();
        let arguments = ["watch", CHANNEL, "--json", "--cells", "--traffic", name];
        let mut watching = self.stage.begin(&REVIEWER, &arguments, "")?;
        until_quiet(&mut watching).await?;
        let mut silent = Carried::default();
        for _ in 0..SILENT_LOOKS {
            silent.add(&look(&mut watching).await?);
        }
        // By another process, so that it leaves by the line that is watched.
        self.tell(&REVIEWER, "Nobody on the line can tell when this left.")
            .await?;
        self.tell(&PLANNER, "Nor whether this was said at all.")
            .await?;
        let mut talking = Carried::default();
        for seen in 1..=LOOKS_MAX {
            talking.add(&look(&mut watching).await?);
            if seen >= SILENT_LOOKS && talking.sent.real > 0 && talking.received.real > 0 {
                break;
            }
        }
        watching.kill().await;
        self.read(&PLANNER, &["--wait", "20"]).await?;
        self.read(&REVIEWER, &["--wait", "20"]).await?;

        let shape = SHOWN.shape();
        let hidden = Hidden {
            traffic: name,
            slots_per_second: f64::from(shape.millislots()) / 1_000.0,
            cell_bytes: shape.cell() as u64,
            silent,
            talking,
        };
        self.check(
            "a line with a schedule sends as much in silence as in talk",
            hidden.holds(),
            format!(
                "{} cells in {} ms of silence, {} in {} ms of talk",
                silent.sent.total(),
                silent.ms,
                talking.sent.total(),
                talking.ms
            ),
        );
        self.hidden = Some(hidden);
        Ok(())
    }
}

/// What a new line says first is over: a second with cover and nothing else.
async fn until_quiet(watching: &mut Running) -> Step<()> {
    for _ in 0..LOOKS_MAX {
        let seen = look(watching).await?;
        if seen.sent.cover > 0 && seen.sent.real == 0 && seen.received.real == 0 {
            return Ok(());
        }
    }
    Err("reviewer's line does not come to rest".to_owned())
}

/// The next record of the counters; messages and events between them are not looked at.
async fn look(watching: &mut Running) -> Step<Carried> {
    loop {
        let line: Value = stage::json(&watching.line().await?)?;
        if line["event"] == "cells" {
            return Ok(Carried::of(&line));
        }
    }
}

impl Carried {
    fn of(line: &Value) -> Self {
        let way = |way: &Value| Way {
            real: count(&way["real"]),
            cover: count(&way["cover"]),
            bytes: count(&way["bytes"]),
        };
        Self {
            ms: count(&line["ms"]),
            sent: way(&line["sent"]),
            received: way(&line["received"]),
            missed: count(&line["missed"]),
        }
    }

    fn add(&mut self, more: &Self) {
        self.ms += more.ms;
        self.sent.add(&more.sent);
        self.received.add(&more.received);
        self.missed += more.missed;
    }
}

impl Way {
    fn add(&mut self, more: &Self) {
        self.real += more.real;
        self.cover += more.cover;
        self.bytes += more.bytes;
    }

    const fn total(&self) -> u64 {
        self.real + self.cover
    }
}

impl Hidden {
    /// Whether slots decided how much left, and all of it had one size. What the machine was too late
    /// for counts as a slot.
    fn holds(&self) -> bool {
        let shape = SHOWN.shape();
        [&self.silent, &self.talking].into_iter().all(|carried| {
            let slots = carried.ms * u64::from(shape.millislots()) / 1_000_000;
            let off = (carried.sent.total() + carried.missed).abs_diff(slots);
            // An episode of silence, or the burst that makes up for it, may lie on each edge.
            let one_size = carried.sent.bytes == carried.sent.total() * self.cell_bytes
                && carried.received.bytes == carried.received.total() * self.cell_bytes;
            off <= 2 * u64::from(shape.bank()) && one_size
        }) && self.talking.sent.real > 0
            && self.talking.received.real > 0
    }

    /// In one line.
    pub(super) fn plain(&self) -> String {
        let Self {
            silent, talking, ..
        } = self;
        let seconds =
            |carried: &Carried| format!("{}.{} s", carried.ms / 1_000, carried.ms % 1_000 / 100);
        format!(
            "hidden: in {} of silence {} cells left and {} came, {} of them real; in {} of talk {} left and {} came, {} of them real. All had {} bytes and left at instants drawn beforehand, so a watcher sees that reviewer was online and not when it spoke. (The demo's other commands were only padded: when they ran can be seen.)",
            seconds(silent),
            silent.sent.total(),
            silent.received.total(),
            silent.sent.real + silent.received.real,
            seconds(talking),
            talking.sent.total(),
            talking.received.total(),
            talking.sent.real + talking.received.real,
            self.cell_bytes,
        )
    }
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// The mode that agents have by themselves, four times as fast, so that a few seconds show something.
const SHOWN: Preset = Preset::Swift;
/// Seconds of silence.
const SILENT_LOOKS: u32 = 3;
/// A line that has not come to rest by then never does.
const LOOKS_MAX: u32 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(ms: u64, sent: [u64; 2], received: [u64; 2]) -> Carried {
        let way = |[real, cover]: [u64; 2]| Way {
            real,
            cover,
            bytes: (real + cover) * 1_056,
        };
        Carried {
            ms,
            sent: way(sent),
            received: way(received),
            missed: 0,
        }
    }

    fn hidden(silent: Carried, talking: Carried) -> Hidden {
        Hidden {
            traffic: SHOWN.name(),
            slots_per_second: 16.0,
            cell_bytes: 1_056,
            silent,
            talking,
        }
    }

    #[test]
    fn one_line_says_what_was_real_and_what_a_watcher_saw() {
        let shown = hidden(
            carried(3_003, [0, 48], [0, 47]),
            carried(3_001, [5, 44], [4, 43]),
        );

        let line = shown.plain();

        assert!(shown.holds());
        assert!(!line.contains('\n'));
        assert!(line.starts_with(
            "hidden: in 3.0 s of silence 48 cells left and 47 came, 0 of them real; in 3.0 s of talk 49 left and 47 came, 9 of them real. All had 1056 bytes"
        ), "{line}");
    }

    #[test]
    fn a_line_that_sends_more_when_there_is_talk_does_not_pass() {
        let silent = carried(3_000, [0, 48], [0, 48]);

        assert!(!hidden(silent, carried(3_000, [20, 48], [5, 43])).holds());
        assert!(!hidden(silent, carried(3_000, [0, 48], [5, 43])).holds());
        let mut odd = carried(3_000, [5, 43], [5, 43]);
        odd.received.bytes += 1;
        assert!(!hidden(silent, odd).holds());
    }
}
