//! The port that speaks SLIM, beside SLIM's own node: what goes through it, and how long an
//! unmodified agent waits for an answer.
//!
//! With `--slim-python` both servers are measured in one run, round by round, and the one that was
//! first in one round is last in the next. Nothing is shaped on this port.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use skytale_relay::{
    config::{self, RelayConfig},
    hub::SlimRules,
    run::Relay,
};
use skytale_wire::token::PublicKeys;
use tokio::time::Instant;

use self::{
    stock::{Node, Pair},
    wire::{Publisher, Subscriber},
};
use super::{
    CONNECTIONS_MAX, Effort, Figure,
    client::Issuer,
    machine, number,
    parts::{Part, Role, SlimIs},
    raised_limits,
};
use crate::exit::Failure;

mod stock;
mod wire;

pub(super) async fn measure(effort: Effort, python: Option<&Path>) -> Result<Vec<Figure>, Failure> {
    let mut rivals = vec![
        Rival::relay("relay, archive on", true).await?,
        Rival::relay("relay, archive off", false).await?,
    ];
    if let Some(python) = python {
        rivals.push(Rival::node(python).await?);
    }
    let mut figures = deliveries(effort, &mut rivals).await?;
    if let Some(python) = python {
        figures.extend(stock_agents(effort, python, &mut rivals).await?);
    }
    for rival in rivals {
        rival.server.end().await?;
    }
    Ok(figures)
}

/// One of the servers that are compared.
struct Rival {
    name: &'static str,
    url: String,
    server: Server,
    rounds: Vec<Round>,
}

enum Server {
    Relay { part: Part, _dir: tempfile::TempDir },
    Node(Node),
}

/// One round of raw deliveries.
struct Round {
    deliveries_per_second: f64,
    /// Of the server, in microseconds.
    cpu_per_delivery: Option<f64>,
}

impl Rival {
    async fn relay(name: &'static str, archive: bool) -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let (part, is): (_, SlimIs) = Part::start(&Role::SlimRelay {
            dir: dir.path().join("relay"),
            // Nobody has a token: the port is open. But a relay wants to know whose it would take.
            keys: Issuer::new()?.keys(),
            archive,
        })
        .await?;
        Ok(Self {
            name,
            url: is.slim,
            server: Server::Relay { part, _dir: dir },
            rounds: Vec::new(),
        })
    }

    async fn node(python: &Path) -> Result<Self, Failure> {
        let node = Node::start(python).await?;
        Ok(Self {
            name: "SLIM's node",
            url: node.url(),
            server: Server::Node(node),
            rounds: Vec::new(),
        })
    }

    fn deliveries_per_second(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.deliveries_per_second))
    }

    fn cpu_per_delivery(&self) -> Option<f64> {
        let all: Option<Vec<f64>> = self.rounds.iter().map(|it| it.cpu_per_delivery).collect();
        all.map(|all| median(all.into_iter()))
    }
}

impl Server {
    fn cpu_time(&self) -> Option<Duration> {
        match self {
            Self::Relay { part, .. } => part.cpu_time(),
            Self::Node(node) => node.cpu_time(),
        }
    }

    async fn end(self) -> Result<(), Failure> {
        match self {
            Self::Relay { part, .. } => part.end().await,
            Self::Node(node) => node.end().await,
        }
    }
}

async fn deliveries(effort: Effort, rivals: &mut [Rival]) -> Result<Vec<Figure>, Failure> {
    let rounds = rounds(effort);
    for round in 0..rounds {
        for at in order(round, rivals.len()) {
            let rival = &mut rivals[at];
            let measured = one_round(rival, round, effort.seconds).await?;
            rival.rounds.push(measured);
        }
    }
    let contains = format!(
        "{BYTES} B, one publisher, {SUBSCRIBERS} subscribers, median of {rounds} rounds of {} s",
        effort.seconds
    );
    let mut figures = Vec::new();
    for rival in &*rivals {
        let rate = rival.deliveries_per_second();
        let what = format!("{}: delivered", rival.name);
        figures.push(Figure::new(BENCH, what, rate, "messages/s").note(&*contains));
        if let Some(each) = rival.cpu_per_delivery() {
            let what = format!("{}: CPU by delivery", rival.name);
            figures.push(Figure::new(BENCH, what, each, "µs"));
        }
    }
    if let [on, off, rest @ ..] = &*rivals {
        let ratio = on.deliveries_per_second() / off.deliveries_per_second();
        let cost = Figure::new(BENCH, "archive on to off, delivered", ratio, "times");
        figures.push(cost.note("what storing each message before it goes on costs"));
        for node in rest {
            let ratio = off.deliveries_per_second() / node.deliveries_per_second();
            let what = "relay, archive off, to SLIM's node, delivered";
            figures.push(Figure::new(BENCH, what, ratio, "times").note("wanted: at least 1"));
        }
    }
    Ok(figures)
}

/// As many as go through, without losing any: the publisher is so far ahead of the slowest
/// subscriber at most.
async fn one_round(rival: &Rival, round: usize, seconds: u64) -> Result<Round, Failure> {
    let mut subscribers = Vec::new();
    for number in 0..SUBSCRIBERS {
        subscribers.push(Subscriber::connect(&rival.url, round, number).await?);
    }
    let mut publisher = Publisher::connect(&rival.url, round, BYTES).await?;
    let before = rival.server.cpu_time();
    let begun = Instant::now();
    let until = begun + Duration::from_secs(seconds);
    let sent = publisher.flood(&subscribers, AHEAD_MAX, until).await?;
    for subscriber in &subscribers {
        subscriber.has(sent).await?;
    }
    let took = begun.elapsed();
    let used = before.zip(rival.server.cpu_time());
    let deliveries = number(sent) * f64::from(SUBSCRIBERS);
    for subscriber in subscribers {
        subscriber.end().await?;
    }
    Ok(Round {
        deliveries_per_second: deliveries / took.as_secs_f64(),
        cpu_per_delivery: used
            .map(|(before, after)| after.saturating_sub(before).as_secs_f64() * 1e6 / deliveries),
    })
}

/// Unmodified agents with MLS, against the relay as it comes and SLIM's node.
async fn stock_agents(
    effort: Effort,
    python: &Path,
    rivals: &mut [Rival],
) -> Result<Vec<Figure>, Failure> {
    let [relay, _, node] = rivals else {
        return Ok(Vec::new());
    };
    let mut pairs = [
        Pair::start(python, &relay.url).await?,
        Pair::start(python, &node.url).await?,
    ];
    let rounds = rounds(effort);
    let seconds = effort.seconds.div_ceil(2);
    let mut seen: [Seen; 2] = Default::default();
    for pair in &mut pairs {
        pair.round_trips(WARM_UP, QUESTION_BYTES).await?;
    }
    for round in 0..rounds {
        for at in order(round, pairs.len()) {
            let (pair, seen) = (&mut pairs[at], &mut seen[at]);
            let count = effort.round_trips / rounds;
            let micros = pair.round_trips(count, QUESTION_BYTES).await?;
            seen.round_trips.extend(
                micros
                    .into_iter()
                    .map(|it| Duration::from_secs_f64(it / 1e6)),
            );
            seen.one_by_one
                .push(pair.flood(seconds, SMALL_BYTES, 1).await?);
            seen.at_once
                .push(pair.flood(seconds, SMALL_BYTES, AT_ONCE).await?);
        }
    }
    for pair in pairs {
        pair.end().await?;
    }
    let mut figures = Vec::new();
    for (rival, seen) in [&*relay, &*node].into_iter().zip(&seen) {
        figures.extend(seen.figures(rival.name));
    }
    let [ours, theirs] = &seen;
    let ratio = |what: &str, of: fn(&Seen) -> f64, wanted| {
        Figure::new(BENCH, what, of(ours) / of(theirs), "times").note(wanted)
    };
    figures.extend([
        ratio(
            "round trip p50, relay to node",
            |it| it.p(50),
            "wanted: at most 0.1",
        ),
        ratio(
            "confirmed one by one, relay to node",
            |it| it.rate(1),
            "wanted: at least 5",
        ),
        ratio(
            "confirmed, 64 at once, relay to node",
            |it| it.rate(AT_ONCE),
            "",
        ),
    ]);
    Ok(figures)
}

/// What stock agents saw at one server.
#[derive(Default)]
struct Seen {
    round_trips: Vec<Duration>,
    /// Messages a second, of each round.
    one_by_one: Vec<f64>,
    at_once: Vec<f64>,
}

impl Seen {
    fn p(&self, percent: usize) -> f64 {
        machine::percentile(&self.round_trips, percent)
    }

    fn rate(&self, at_once: usize) -> f64 {
        let rounds = if at_once == 1 {
            &self.one_by_one
        } else {
            &self.at_once
        };
        median(rounds.iter().copied())
    }

    fn figures(&self, name: &str) -> [Figure; 4] {
        let figure = |what: &str, value, unit, note: &str| {
            Figure::new(BENCH, format!("{name}: {what}"), value, unit).note(note)
        };
        let stock = "stock agents with MLS";
        [
            figure("round trip of 256 B, p50", self.p(50), "µs", stock),
            figure("round trip of 256 B, p95", self.p(95), "µs", stock),
            figure(
                "64 B confirmed one by one",
                self.rate(1),
                "messages/s",
                stock,
            ),
            figure(
                "64 B confirmed, 64 at once",
                self.rate(AT_ONCE),
                "messages/s",
                stock,
            ),
        ]
    }
}

/// What `bench-part` runs for it.
pub(super) async fn relay(
    dir: &Path,
    keys: &str,
    archive: bool,
) -> Result<(Relay, SlimIs), Failure> {
    let keys = PublicKeys::from_json(keys.as_bytes())
        .map_err(|error| Failure::usage(error.to_string()))?;
    let mut config = RelayConfig::new(dir, vec![config::Issuer::Keys(keys)]);
    config.quic_addr.set_port(0);
    config.health_addr.set_port(0);
    config.grpc_addr = Some((Ipv4Addr::LOCALHOST, 0).into());
    config.danger_slim_open = true;
    config.slim = SlimRules {
        archive,
        ..SlimRules::default()
    };
    config.limits = raised_limits();
    config.connections_per_ip_max = CONNECTIONS_MAX;
    config.strangers_max = CONNECTIONS_MAX;
    let relay = Relay::start(config)
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    let addr = relay
        .grpc_addr()
        .ok_or_else(|| Failure::failed("the relay has no port for SLIM"))?;
    let is = SlimIs {
        slim: format!("http://{addr}"),
    };
    Ok((relay, is))
}

/// Who is first in one round is last in the next.
fn order(round: usize, rivals: usize) -> Vec<usize> {
    let forth = 0..rivals;
    if round.is_multiple_of(2) {
        forth.collect()
    } else {
        forth.rev().collect()
    }
}

/// An odd number, so that the median is one that occurred.
fn rounds(effort: Effort) -> usize {
    if effort.round_trips < 100 { 1 } else { 3 }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

const BENCH: &str = "slim";
const SUBSCRIBERS: u32 = 8;
const BYTES: usize = 512;
/// Messages that the slowest subscriber may lack: enough to fill every buffer on the way, and few
/// enough that none of the servers drops one.
const AHEAD_MAX: u64 = 512;
const QUESTION_BYTES: usize = 256;
const SMALL_BYTES: usize = 64;
const AT_ONCE: usize = 64;
const WARM_UP: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_first_in_one_round_is_last_in_the_next() {
        assert_eq!(order(0, 3), [0, 1, 2]);
        assert_eq!(order(1, 3), [2, 1, 0]);
        assert_eq!(order(2, 2), [0, 1]);
    }

    #[test]
    fn a_median_is_a_value_that_occurred() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < 1e-9);
        assert!(median([].into_iter()).is_nan());
    }
}
