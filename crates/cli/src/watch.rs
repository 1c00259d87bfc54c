//! `watch`: messages and events as they come, and what the line carries meanwhile.
//!
//! On a terminal it is a picture that moves (`watch/screen.rs`, drawn by `watch/plot.rs`); for
//! programs, files and `--plain` it is lines. Nothing is taken: whoever reads next finds all of it.
//! With `--exec`, messages of members that may wake the agent also run a command (`watch/exec.rs`).

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, IsTerminal as _},
    time::Duration,
};

use serde::Serialize;
use skytale_sdk::{Agent, DirectionCounters, Event, Events, LineCounters, Message};
use skytale_wire::id::ChannelId;
use tokio::{
    signal,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use self::{event::ShownEvent, exec::Errand};
use crate::{
    args::{self, Everywhere},
    context,
    exit::Failure,
    messages::Shown,
    output::Output,
    wake::Gate,
};

mod event;
mod exec;
mod plot;
mod screen;

/// `watch`.
pub(crate) async fn run(
    wish: args::Watch,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let drawn = !wish.plain
        && wish.exec.is_none()
        && !output.is_json()
        && io::stdout().is_terminal()
        && io::stdin().is_terminal();
    let gate = Gate::new(wish.wake_from);
    let per_hour = wish.per_hour;
    let errand = wish
        .exec
        .map(|command| Errand::new(command, gate, per_hour));
    let watched = context::as_agent(everywhere, async |agent| {
        let only = match &wish.channel {
            Some(which) => Some(context::channel(agent, Some(which)).await?.id()),
            None => None,
        };
        let feed = Feed::of(agent, only);
        if drawn {
            return screen::show(agent, feed).await;
        }
        output.say("watching; Ctrl-C ends");
        tokio::select! {
            result = lines(agent, feed, wish.cells, errand, output) => result,
            _ = signal::ctrl_c() => Ok(()),
        }
    });
    watched.await
}

async fn lines(
    agent: &Agent,
    mut feed: Feed<'_>,
    with_cells: bool,
    mut errand: Option<Errand>,
    output: Output,
) -> Result<(), Failure> {
    let mut meter = Meter::new(agent.line_counters());
    let mut ticks = interval(CELLS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one comes at once.
    ticks.tick().await;
    loop {
        tokio::select! {
            news = feed.next() => match news? {
                Some(News::Message(message)) => {
                    let shown = Shown::of(&message);
                    output.result(&shown, || shown.plain())?;
                    if let Some(errand) = &mut errand {
                        errand.run(agent, &message, output).await?;
                    }
                }
                Some(News::Event(event)) => {
                    let shown = ShownEvent::of(&event);
                    output.result(&shown, || shown.plain())?;
                }
                None => return Ok(()),
            },
            _ = ticks.tick(), if with_cells => {
                let cells = meter.read(agent.line_counters());
                output.result(&cells, || cells.plain())?;
            }
        }
    }
}

/// Something that has happened.
#[derive(Debug)]
enum News {
    Message(Box<Message>),
    Event(Event),
}

/// Messages and events of an agent, one at a time.
struct Feed<'a> {
    agent: &'a Agent,
    only: Option<ChannelId>,
    events: Events,
    /// The last message that was seen of each channel.
    rows: BTreeMap<ChannelId, i64>,
    waiting: VecDeque<News>,
}

impl<'a> Feed<'a> {
    fn of(agent: &'a Agent, only: Option<ChannelId>) -> Self {
        Self {
            agent,
            only,
            events: agent.events(),
            rows: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// The next; `None` when the agent was closed. May be cancelled.
    async fn next(&mut self) -> Result<Option<News>, Failure> {
        loop {
            if let Some(news) = self.waiting.pop_front() {
                return Ok(Some(news));
            }
            self.look().await?;
            if !self.waiting.is_empty() {
                continue;
            }
            tokio::select! {
                event = self.events.next() => {
                    let Some(event) = event? else { return Ok(None) };
                    let about = event.channel();
                    if self.only.is_none() || about.is_none() || about == self.only {
                        return Ok(Some(News::Event(event)));
                    }
                }
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Finds what has come, in the order in which it came.
    async fn look(&mut self) -> Result<(), Failure> {
        let mut new = Vec::new();
        for view in self.agent.channels().await? {
            if self.only.is_some_and(|only| only != view.id) {
                continue;
            }
            let Some(name) = view.name else { continue };
            if let Some(channel) = self.agent.find(name.as_str()).await? {
                let after = self.rows.get(&view.id).copied().unwrap_or_default();
                new.extend(channel.look(after).await?);
            }
        }
        new.sort_by_key(Message::row);
        for message in new {
            self.rows.insert(message.channel().id(), message.row());
            self.waiting.push_back(News::Message(Box::new(message)));
        }
        Ok(())
    }
}

/// What the line has carried between two looks at its counters. The fields are part of the command
/// line's contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Cells {
    event: &'static str,
    /// How long that took.
    ms: u64,
    sent: Way,
    received: Way,
    /// Cells that left beside the schedule.
    over: u64,
    /// Slots in which nothing left.
    missed: u64,
    /// Cover that somebody took out on its way to us.
    missing: u64,
}

/// One direction.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
struct Way {
    real: u64,
    cover: u64,
    bytes: u64,
}

impl Cells {
    fn between(before: &LineCounters, after: &LineCounters, ms: u64) -> Self {
        Self {
            event: "cells",
            ms,
            sent: Way::between(&before.sent, &after.sent),
            received: Way::between(&before.received, &after.received),
            over: after.over.saturating_sub(before.over),
            missed: after.missed.saturating_sub(before.missed),
            missing: after.missing.saturating_sub(before.missing),
        }
    }

    fn plain(&self) -> String {
        format!(
            "* cells sent {} ({} real) received {} ({} real) in {} ms",
            self.sent.total(),
            self.sent.real,
            self.received.total(),
            self.received.real,
            self.ms
        )
    }
}

impl Way {
    fn between(before: &DirectionCounters, after: &DirectionCounters) -> Self {
        let bytes = |counters: &DirectionCounters| counters.real_bytes + counters.cover_bytes;
        Self {
            real: after.real.saturating_sub(before.real),
            cover: after.cover.saturating_sub(before.cover),
            bytes: bytes(after).saturating_sub(bytes(before)),
        }
    }

    const fn total(&self) -> u64 {
        self.real + self.cover
    }
}

/// Reads counters now and then.
struct Meter {
    before: LineCounters,
    at: Instant,
}

impl Meter {
    fn new(counters: LineCounters) -> Self {
        Self {
            before: counters,
            at: Instant::now(),
        }
    }

    /// What has passed since the last time.
    fn read(&mut self, counters: LineCounters) -> Cells {
        let now = Instant::now();
        let ms = now.duration_since(self.at).as_millis();
        let cells = Cells::between(
            &self.before,
            &counters,
            u64::try_from(ms).unwrap_or(u64::MAX),
        );
        *self = Self {
            before: counters,
            at: now,
        };
        cells
    }
}

/// How often messages are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often the counters are read.
const CELLS_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_is_the_difference_of_two_looks() {
        let way = |real, cover| DirectionCounters {
            real,
            cover,
            real_bytes: real * 1_056,
            cover_bytes: cover * 1_056,
        };
        let before = LineCounters {
            sent: way(5, 7),
            received: way(1, 1),
            missed: 2,
            ..LineCounters::default()
        };
        let after = LineCounters {
            sent: way(6, 10),
            received: way(1, 5),
            over: 3,
            missed: 2,
            missing: 0,
        };

        let cells = Cells::between(&before, &after, 1_001);

        assert_eq!(
            serde_json::to_value(cells).unwrap(),
            serde_json::json!({
                "event": "cells",
                "ms": 1_001,
                "sent": {"real": 1, "cover": 3, "bytes": 4_224},
                "received": {"real": 0, "cover": 4, "bytes": 4_224},
                "over": 3,
                "missed": 0,
                "missing": 0,
            })
        );
        assert_eq!(
            cells.plain(),
            "* cells sent 4 (1 real) received 4 (0 real) in 1001 ms"
        );
        // Another process took the line over, and counts from nothing.
        let none = Cells::between(&after, &LineCounters::default(), 1_000);
        assert_eq!(none.sent, Way::default());
    }
}
