//! The laboratory that records what a watcher of lines sees: a real relay, real agents, each behind
//! a proxy of its own that notes time, size and direction of every datagram.
//!
//! `traffic_lab --mode M --agents N --seconds S --seed X --out DIR [--workloads chat,tools]
//! [--settle S] [--at-once N]` makes one run: half of the agents are silent, the others work. It
//! leaves one capture for each line and `manifest.json`, which is written last: a directory that
//! holds one is a run that came to its end. What the captures tell is for `tests/traffic` to judge.
//!
//! Every agent has a runtime with one thread to itself, so that the work for its own messages could
//! make its own slots late, as in a program of its own; that is one of the things to be found out.
#![allow(clippy::unwrap_used, reason = "a run that fails has to be seen")]
#![allow(clippy::print_stderr, reason = "a long run says how far it is")]

mod deal;
mod line;
mod seat;

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use skytale_relay::{
    config::{Issuer, RelayConfig},
    limits::Rate,
    run::Relay,
};
use skytale_sdk::RelayAddr;
use skytale_shape::{Mode, Preset, Shape};
use skytale_wire::http::{RelayAt, Secret};
use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Semaphore, mpsc, watch},
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    deal::{Seat, Workload},
    line::Line,
    seat::{Entry, Lived, Phase, Place},
};

fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_env("SKYTALE_LOG"))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let order = Order::read(std::env::args().skip(1));
    fs::create_dir_all(&order.out).unwrap();
    let clock = Clock::started();
    let servers = runtime(2);
    // Apart from everything else, so that instants are noted when datagrams come.
    let watching = runtime(1);
    let seats = deal::deal(order.agents, &order.workloads, order.seed);
    let house = servers.block_on(House::open(seats.len()));
    let lines: Vec<Line> = seats
        .iter()
        .map(|_| watching.block_on(Line::before(house.relay.quic_addr(), clock)))
        .collect();
    let run = run(&order, &house, clock, seats, &lines);

    let manifest = servers.block_on(run);
    for (number, line) in lines.into_iter().enumerate() {
        let capture = watching.block_on(line.end());
        fs::write(order.out.join(capture_name(number)), capture).unwrap();
    }
    servers.block_on(house.close());
    let text = serde_json::to_string(&manifest).unwrap();
    let beside = order.out.join("manifest.new");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, order.out.join("manifest.json")).unwrap();
}

/// Lets everybody in, waits until that has calmed down, lets them work, and gathers what they say.
async fn run(
    order: &Order,
    house: &House,
    clock: Clock,
    seats: Vec<Seat>,
    lines: &[Line],
) -> Value {
    let (phase, phases) = watch::channel(Phase::Entering);
    let (tell, mut entries) = mpsc::unbounded_channel();
    let doors = Arc::new(Semaphore::new(order.at_once));
    let mut invites = seat::invites(&seats, lines);
    let mut threads = Vec::new();
    for (number, seat) in seats.iter().enumerate() {
        let place = Place {
            number,
            seat: seat.clone(),
            shape: shape_of(&order.mode),
            seed: order.seed,
            clock,
            dir: house.dir.path().to_owned(),
            api_url: house.api_url.clone(),
            api_key: Secret::new(house.api_key.clone()),
            relay: RelayAddr {
                key: house.relay.key(),
                address: lines[number].addr.to_string(),
            },
            invites: invites.remove(&number).unwrap(),
            doors: Arc::clone(&doors),
            entry: Entry::new(tell.clone()),
            phases: phases.clone(),
        };
        let name = format!("agent-{number}");
        let thread = thread::Builder::new().name(name).spawn(|| {
            let own = Builder::new_current_thread().enable_all().build().unwrap();
            own.block_on(seat::live(place))
        });
        threads.push(thread.unwrap());
    }

    for count in 1..=seats.len() {
        let is_in = entries.recv().await.expect("we hold a sender ourselves");
        assert!(is_in, "an agent did not come in");
        if count % 20 == 0 || count == seats.len() {
            eprintln!(
                "{count} agents are in after {} s",
                clock.micros() / 1_000_000
            );
        }
    }
    tokio::time::sleep(Duration::from_secs(order.settle)).await;
    let (begin, busy_before) = (clock.micros(), processor_ms());
    phase.send(Phase::Working).unwrap();
    tokio::time::sleep(Duration::from_secs(order.seconds)).await;
    let (end, busy_after) = (clock.micros(), processor_ms());
    phase.send(Phase::Leaving).unwrap();

    let lived: Vec<Lived> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    json!({
        "mode": order.mode,
        "seed": order.seed,
        "agents": seats.len(),
        "asked_idle_bytes_per_hour": asked_idle_bytes_per_hour(&order.mode),
        "begin_us": begin,
        "end_us": end,
        "processor_ms": busy_after.zip(busy_before).map(|(after, before)| after - before),
        "lines": seats.iter().zip(&lived).enumerate().map(|(number, (seat, lived))| json!({
            "line": number,
            "capture": capture_name(number),
            "workload": seat.workload.name(),
            "table": seat.table,
            "peers": seat.peers,
            "received": lived.received,
            "bands": lived.bands,
            "line_says": lived.line_says,
            "troubles": lived.troubles,
        })).collect::<Vec<_>>(),
    })
}

/// What was asked for on the command line.
struct Order {
    mode: String,
    agents: usize,
    seconds: u64,
    seed: u64,
    out: PathBuf,
    workloads: Vec<Workload>,
    settle: u64,
    at_once: usize,
}

impl Order {
    fn read(words: impl Iterator<Item = String>) -> Self {
        let words: Vec<String> = words.collect();
        let mut given: BTreeMap<&str, &str> = BTreeMap::new();
        for pair in words.chunks(2) {
            let [name, value] = pair else {
                panic!("{} has no value", pair[0])
            };
            given.insert(name, value);
        }
        let mut take = |name: &str, default: &'static str| {
            let value = given.remove(name).unwrap_or(default);
            assert!(!value.is_empty(), "{name} is missing");
            value.to_owned()
        };
        let order = Self {
            mode: take("--mode", ""),
            agents: take("--agents", "22").parse().unwrap(),
            seconds: take("--seconds", "300").parse().unwrap(),
            seed: take("--seed", "1").parse().unwrap(),
            out: take("--out", "").into(),
            workloads: take("--workloads", "chat,tools,group,file")
                .split(',')
                .map(|name| Workload::named(name).unwrap_or_else(|| panic!("{name}?")))
                .collect(),
            settle: take("--settle", "35").parse().unwrap(),
            at_once: take("--at-once", "8").parse().unwrap(),
        };
        assert!(given.is_empty(), "{:?}?", given.keys());
        order
    }
}

/// The one clock of a run: microseconds since it began.
#[derive(Debug, Clone, Copy)]
struct Clock(Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the one clock of this program")]
    fn started() -> Self {
        Self(Instant::now())
    }

    #[expect(clippy::disallowed_methods, reason = "the one clock of this program")]
    fn micros(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).expect("a run lasts less than ages")
    }
}

/// A relay and an API server, which let so many agents in from one address.
struct House {
    relay: Relay,
    api_url: String,
    api_key: String,
    dir: TempDir,
    stop: CancellationToken,
}

impl House {
    async fn open(agents: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = skytale_api::Config::new(&dir.path().join("server"));
        config.addr = (Ipv4Addr::LOCALHOST, 0).into();
        fs::create_dir(dir.path().join("server")).unwrap();
        let mut api = skytale_api::Server::bind(config).await.unwrap();
        let keys = vec![Issuer::Keys(api.public_keys())];
        let mut config = RelayConfig::new(&dir.path().join("relay"), keys);
        // Both sides of iroh take the quickest way that they find, and that would lead past the
        // proxies. From agents that are bound to the other family of addresses there is none.
        config.quic_addr = (Ipv6Addr::LOCALHOST, 0).into();
        config.health_addr.set_port(0);
        config.grpc_addr = None;
        config.connections_per_ip_max = agents.max(64) * 2;
        config.strangers_max = config.strangers_max.max(agents * 2);
        config.limits.creates = Rate::per_second(100, 10_000);
        let relay = Relay::start(config).await;
        let relay = relay.expect("this machine has an IPv6 loopback address");
        api.set_relays(vec![RelayAt {
            key: relay.key(),
            addresses: vec![relay.quic_addr().to_string()],
        }]);
        let api_url = format!("http://{}", api.addr());
        let local = api.bootstrap_local().await.unwrap().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(api.serve(stop.clone()));
        Self {
            relay,
            api_url,
            api_key: local.api_key.expose().to_owned(),
            dir,
            stop,
        }
    }

    async fn close(self) {
        self.relay.stop().await;
        self.stop.cancel();
    }
}

/// What both directions of a line cost with nothing to say, for modes that promise it.
fn asked_idle_bytes_per_hour(mode: &str) -> Option<u64> {
    let shape = shape_of(mode);
    shape
        .mode()
        .is_slotted()
        .then(|| 2 * shape.idle_bytes_per_hour())
}

/// A mode with its defaults, or a preset.
fn shape_of(name: &str) -> Shape {
    let preset = || Preset::named(name).map(Preset::shape);
    let mode = Mode::named(name).map(Shape::new);
    mode.or_else(preset).unwrap_or_else(|| panic!("{name}?"))
}

fn runtime(threads: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let built = builder.worker_threads(threads).enable_all().build();
    built.unwrap()
}

fn capture_name(line: usize) -> String {
    format!("line-{line:04}.u64")
}

/// What this process has used of the processor, where the system says so. Its ticks are hundredths
/// of a second.
fn processor_ms() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program stands in brackets and may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) * 10)
}
