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
    stock::{Node, Party},
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
        figures.extend(stock_agents(effort, python, &rivals).await?);
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

/// Unmodified agents with MLS, against the relay and SLIM's node: a pair, and a group of three.
async fn stock_agents(
    effort: Effort,
    python: &Path,
    rivals: &[Rival],
) -> Result<Vec<Figure>, Failure> {
    let mut figures = Vec::new();
    for company in [Company::Pair, Company::Three] {
        let mut parties = Vec::new();
        for rival in rivals {
            let mut party = company.start(python, &rival.url).await?;
            party.round_trips(WARM_UP, QUESTION_BYTES).await?;
            parties.push((party, Seen::default()));
        }
        for round in 0..rounds(effort) {
            for at in order(round, rivals.len()) {
                let (party, seen) = &mut parties[at];
                seen.round(effort, party, &rivals[at]).await?;
            }
        }
        for (rival, (_, seen)) in rivals.iter().zip(&parties) {
            figures.extend(seen.figures(company, rival.name));
        }
        if let [(_, ours), _, (_, theirs)] = &*parties {
            figures.extend(ours.beside(company, theirs));
        }
        for (party, _) in parties {
            party.end().await?;
        }
    }
    Ok(figures)
}

#[derive(Debug, Clone, Copy)]
enum Company {
    Pair,
    Three,
}

impl Company {
    async fn start(self, python: &Path, url: &str) -> Result<Party, Failure> {
        match self {
            Self::Pair => Party::start(python, url, "pair", 1).await,
            Self::Three => Party::start(python, url, "three", 2).await,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Pair => "a pair",
            Self::Three => "three",
        }
    }
}

/// What stock agents saw at one server.
#[derive(Default)]
struct Seen {
    round_trips: Vec<Duration>,
    one_by_one: Vec<Flood>,
    at_once: Vec<Flood>,
}

/// One round of small messages, each confirmed by all who get it.
struct Flood {
    per_second: f64,
    /// How much of the processor's time went to the server and not to the agents.
    server: Option<f64>,
}

impl Seen {
    async fn round(
        &mut self,
        effort: Effort,
        party: &mut Party,
        rival: &Rival,
    ) -> Result<(), Failure> {
        let count = effort.round_trips / rounds(effort);
        let micros = party.round_trips(count, QUESTION_BYTES).await?;
        let took = micros
            .into_iter()
            .map(|it| Duration::from_secs_f64(it / 1e6));
        self.round_trips.extend(took);
        let seconds = effort.seconds.div_ceil(2);
        (self.one_by_one).push(Flood::measure(party, rival, seconds, 1).await?);
        (self.at_once).push(Flood::measure(party, rival, seconds, AT_ONCE).await?);
        Ok(())
    }

    fn p(&self, percent: usize) -> f64 {
        machine::percentile(&self.round_trips, percent)
    }

    /// Questions and answers a second, when the next question waits for the answers.
    fn asked(&self) -> f64 {
        let all: Duration = self.round_trips.iter().sum();
        number(self.round_trips.len() as u64) / all.as_secs_f64()
    }

    fn figures(&self, company: Company, name: &str) -> [Figure; 5] {
        let figure = |what: &str, value, unit, note: &str| {
            let what = format!("{name}, {}: {what}", company.name());
            Figure::new(BENCH, what, value, unit).note(note)
        };
        let stock = "stock agents with MLS";
        let (one_by_one, at_once) = (&*self.one_by_one, &*self.at_once);
        [
            figure("round trip of 256 B, p50", self.p(50), "µs", stock),
            figure("round trip of 256 B, p95", self.p(95), "µs", stock),
            figure("questions answered", self.asked(), "a second", stock),
            figure(
                "64 B confirmed one by one",
                rate(one_by_one),
                "messages/s",
                &server(one_by_one),
            ),
            figure(
                "64 B confirmed, 64 at once",
                rate(at_once),
                "messages/s",
                &server(at_once),
            ),
        ]
    }

    /// As ratios of ours to theirs.
    fn beside(&self, company: Company, theirs: &Self) -> [Figure; 4] {
        let ratio = |what: &str, of: &dyn Fn(&Self) -> f64, wanted: &str| {
            let what = format!("{}: {what}, relay to SLIM's node", company.name());
            Figure::new(BENCH, what, of(self) / of(theirs), "times").note(wanted)
        };
        [
            ratio("round trip p50", &|it| it.p(50), "wanted: at most 0.1"),
            ratio("questions answered", &Self::asked, "wanted: at least 5"),
            ratio(
                "confirmed one by one",
                &|it| rate(&it.one_by_one),
                "wanted: at least 5",
            ),
            ratio("confirmed, 64 at once", &|it| rate(&it.at_once), ""),
        ]
    }
}

impl Flood {
    async fn measure(
        party: &mut Party,
        rival: &Rival,
        seconds: u64,
        at_once: usize,
    ) -> Result<Self, Failure> {
        let now = |party: &Party| rival.server.cpu_time().zip(party.cpu_time());
        let before = now(party);
        let per_second = party.flood(seconds, SMALL_BYTES, at_once).await?;
        let server = before.zip(now(party)).map(|(before, after)| {
            let server = after.0.saturating_sub(before.0).as_secs_f64();
            let agents = after.1.saturating_sub(before.1).as_secs_f64();
            server / (server + agents)
        });
        Ok(Self { per_second, server })
    }
}

fn rate(rounds: &[Flood]) -> f64 {
    median(rounds.iter().map(|it| it.per_second))
}

/// Who the processors worked for.
fn server(rounds: &[Flood]) -> String {
    let shares: Option<Vec<f64>> = rounds.iter().map(|it| it.server).collect();
    let share = shares.map(|all| median(all.into_iter()));
    share.map_or_else(String::new, |share| {
        format!(
            "{:.0} % of the CPU used is the server's, the rest the agents'",
            share * 100.0
        )
    })
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
