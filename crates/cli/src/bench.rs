//! `skytale bench`: the figures by which this program is judged, as ratios inside one run.
//!
//! A number alone says more about the machine than about the program, so each stands beside
//! something bare that is measured in the same run: an echo without encryption and disk, a flush
//! to the same disk. The measured parts are processes of their own (`parts.rs`), so that the
//! system can say what each of them used. The comparison with bare MLS is not here: it lives in
//! `crates/agent/benches`, because only that crate may name the MLS library.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;
use skytale_relay::limits::{Limits, Rate};

use self::machine::Machine;
use crate::{
    exit::Failure,
    output::{Output, table},
};

mod client;
mod house;
mod http;
mod idle;
mod latency;
mod lines;
mod machine;
mod pair;
pub(crate) mod parts;
mod relay;
mod revoke;
mod slim;
mod start;
mod tokens;

/// What `skytale bench` was asked for.
#[derive(Debug, Args)]
pub(crate) struct Wish {
    /// Which figures; all when left out
    #[arg(value_enum, value_name = "NAME")]
    names: Vec<Name>,
    /// How long to measure throughput, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// A Python with slim-bindings, for the bench "slim": SLIM's own node and agents run in it
    #[arg(long, value_name = "PROGRAM")]
    slim_python: Option<PathBuf>,
    /// A Postgres server for the bench "tokens", which also runs on SQLite. The database must be empty
    #[arg(
        long,
        value_name = "URL",
        env = "SKYTALE_BENCH_DATABASE_URL",
        hide_env_values = true
    )]
    database_url: Option<String>,
    /// Measure briefly, to see that it works: not for figures
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// One sender to one receiver, as many as go through
    Pair,
    /// One message at a time
    Latency,
    /// A relay alone, without MLS in the client
    Relay,
    /// What lines with a schedule cost a relay, and how that grows
    Lines,
    /// The port that speaks SLIM, beside SLIM's own node
    Slim,
    /// Buying tokens from an API server
    Tokens,
    /// How soon lines end whose API key is revoked
    Revoke,
    /// How quickly things are ready, and how large
    Start,
}

/// One measured number.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    bench: &'static str,
    what: String,
    value: f64,
    unit: &'static str,
    /// What it contains, or what it is held against.
    #[serde(skip_serializing_if = "str::is_empty")]
    note: String,
}

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    pub(super) seconds: u64,
    pub(super) round_trips: usize,
    pub(super) idle_connections: u32,
    /// How many lines have a schedule, in steps that grow.
    pub(super) shaped_lines: &'static [u32],
    /// For how long each step is watched, in seconds.
    pub(super) shaped_seconds: u64,
    pub(super) archived: u64,
    pub(super) starts: usize,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    /// `release`, or `debug`: then no number here is a figure.
    profile: &'static str,
    quick: bool,
    seconds: u64,
    raised: Vec<String>,
    figures: Vec<Figure>,
}

pub(crate) async fn run(wish: &Wish, output: Output) -> Result<(), Failure> {
    if PROFILE == "debug" {
        output.complain(
            "warning: this is a debug build, so these numbers are no figures: build with --release",
        );
    }
    let effort = wish.effort();
    let mut figures = Vec::new();
    let mut failure = None;
    for name in wish.chosen() {
        match name.measure(effort, wish, output).await {
            Ok(measured) => figures.extend(measured),
            Err(why) => {
                failure = Some(why);
                break;
            }
        }
    }
    let report = Report {
        machine: Machine::this(),
        profile: PROFILE,
        quick: wish.quick,
        seconds: effort.seconds,
        raised: raised_in_words(),
        figures,
    };
    // Minutes went into the others, which a bench that fails does not take with it.
    output.result(&report, || report.plain())?;
    failure.map_or(Ok(()), Err)
}

impl Name {
    async fn measure(
        self,
        effort: Effort,
        wish: &Wish,
        output: Output,
    ) -> Result<Vec<Figure>, Failure> {
        match self {
            Self::Pair => {
                output.say("pair: one sender, one receiver …");
                pair::measure(effort).await
            }
            Self::Latency => {
                output.say("latency: one message at a time …");
                latency::measure(effort).await
            }
            Self::Relay => {
                output.say("relay: a relay alone …");
                let mut both = idle::measure(effort).await?;
                both.extend(relay::measure(effort).await?);
                Ok(both)
            }
            Self::Lines => {
                output.say("lines: a relay with many shaped lines …");
                lines::measure(effort).await
            }
            Self::Slim => {
                output.say("slim: the port that speaks SLIM …");
                slim::measure(effort, wish.slim_python.as_deref()).await
            }
            Self::Tokens => {
                output.say("tokens: an API server under agents that buy tokens …");
                tokens::measure(effort, wish.database_url.as_deref()).await
            }
            Self::Revoke => {
                output.say("revoke: lines whose API key is revoked …");
                revoke::measure(effort).await
            }
            Self::Start => {
                output.say("start: a relay with a large archive …");
                start::measure(effort).await
            }
        }
    }
}

impl Wish {
    fn chosen(&self) -> Vec<Name> {
        if self.names.is_empty() {
            return Name::value_variants().to_vec();
        }
        let asked = |name: &Name| self.names.contains(name);
        Name::value_variants()
            .iter()
            .copied()
            .filter(asked)
            .collect()
    }

    fn effort(&self) -> Effort {
        if self.quick {
            Effort {
                seconds: self.seconds.min(2),
                round_trips: 20,
                idle_connections: 20,
                shaped_lines: &[5, 10],
                shaped_seconds: 2,
                archived: 20_000,
                starts: 3,
            }
        } else {
            Effort {
                seconds: self.seconds,
                round_trips: 300,
                idle_connections: 200,
                shaped_lines: &[50, 100, 200, 400],
                shaped_seconds: self.seconds.max(60),
                archived: 1_000_000,
                starts: 20,
            }
        }
    }
}

impl Figure {
    pub(super) fn new(
        bench: &'static str,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
    ) -> Self {
        Self {
            bench,
            what: what.into(),
            value,
            unit,
            note: String::new(),
        }
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

impl Report {
    fn plain(&self) -> String {
        let mut rows = table(["bench", "what", "value", "unit", "note"]);
        for figure in &self.figures {
            rows.add_row([
                figure.bench.to_owned(),
                figure.what.clone(),
                shown(figure.value),
                figure.unit.to_owned(),
                figure.note.clone(),
            ]);
        }
        let machine = &self.machine;
        format!(
            "machine  {} cores, {}, {}\nbuild    {}{}\nraised   {}\n{rows}",
            machine.cores,
            machine.cpu,
            machine.system,
            self.profile,
            if self.quick { ", quick" } else { "" },
            self.raised.join("\n         "),
        )
    }
}

/// Four digits that mean something.
fn shown(value: f64) -> String {
    let digits = match value.abs() {
        at if at >= 1000.0 => 0,
        at if at >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

/// A count as a number to divide by: none here comes near 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "counts and times of one run")]
pub(super) const fn number(count: u64) -> f64 {
    count as f64
}

/// The relay's limits are made for strangers; here one agent says as much as a thousand of them.
pub(super) fn raised_limits() -> Limits {
    let free = Rate::per_second(RAISED_PER_SECOND, RAISED_PER_SECOND);
    Limits {
        channels_per_account_max: RAISED_PER_SECOND,
        frames: free,
        publishes: free,
        commits: free,
        creates: free,
        welcomes: free,
        uploads: free,
        ..Limits::default()
    }
}

fn raised_in_words() -> Vec<String> {
    vec![
        format!(
            "rates of frames, publishes, commits, creates, welcomes and uploads: {RAISED_PER_SECOND} per second"
        ),
        format!("channels per account: {RAISED_PER_SECOND}"),
        format!("requests by API key, and of an account: {RAISED_PER_SECOND} per second"),
        format!("connections per address, and of strangers: {CONNECTIONS_MAX}"),
    ]
}

const PROFILE: &str = if cfg!(debug_assertions) {
    "debug"
} else {
    "release"
};
pub(super) const RAISED_PER_SECOND: u32 = 1_000_000;
pub(super) const CONNECTIONS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn benches_run_in_one_order_and_once_however_they_are_named() {
        let wish = |names: &[Name]| Wish {
            names: names.to_vec(),
            seconds: 10,
            slim_python: None,
            database_url: None,
            quick: false,
        };

        assert_eq!(wish(&[]).chosen(), Name::value_variants());
        assert_eq!(
            wish(&[Name::Start, Name::Pair, Name::Start]).chosen(),
            [Name::Pair, Name::Start]
        );
    }

    #[test]
    fn a_number_is_shown_with_the_digits_that_mean_something() {
        assert_eq!(shown(15_234.56), "15235");
        assert_eq!(shown(12.345), "12.3");
        assert_eq!(shown(1.4949), "1.49");
    }
}
