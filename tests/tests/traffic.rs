//! What a watcher of real lines sees: the SDK and the relay over loopback, through a proxy that notes
//! the size of each datagram. The instants are the schedule's own matter, tested bit for bit in
//! `skytale-shape`; here nothing is said about speed.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]
#![allow(clippy::print_stdout, reason = "the figures of a run")]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use skytale_relay::{
    config::{Issuer, RelayConfig},
    run::Relay,
};
use skytale_sdk::{
    Agent, Bulk, Channel, Event, InviteOptions, LineCounters, Mode, RelayAddr, Shape, Traffic,
};
use skytale_tests::metrics::metric_meanwhile;
use skytale_wire::http::{RelayAt, Secret};
use tempfile::TempDir;
use tokio::{net::UdpSocket, task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// From an idle stretch and a busy one of the same line: the same number of datagrams for so many
/// cells, one for each, and of the same sizes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_are_the_same_with_and_without_traffic() {
    for mode in [Mode::Adaptive, Mode::Constant] {
        let house = House::open(|_| {}).await;
        let (alice, bob) = house.pair(fast(mode)).await;
        settle(&[&alice, &bob]).await;

        let idle = alice.stretch().await;
        let talking = async {
            let mut inbox = bob.channel.messages();
            for number in 0..8 {
                // Of one cell, and of several.
                let said = format!("{number}{}", "x".repeat(number * 700));
                alice.channel.send(said.clone()).await.unwrap();
                let heard = within(inbox.next()).await.unwrap().unwrap();
                assert_eq!(heard.text().unwrap(), said);
                heard.reply("yes").await.unwrap();
            }
        };
        let (busy, ()) = tokio::join!(alice.stretch(), talking);

        println!("{mode:?} idle {idle:?}");
        println!("{mode:?} busy {busy:?}");
        assert!(busy.real[0] >= 8 && busy.real[1] >= 8, "it was busy");
        for stretch in [&idle, &busy] {
            for way in [0, 1] {
                let large: u64 = stretch.large(way).values().sum();
                // A cell may be on its way at the beginning or the end.
                assert!(
                    large.abs_diff(stretch.cells[way]) <= 3,
                    "each cell has a datagram of its own: {stretch:?}"
                );
                assert!(
                    stretch.large(way).keys().all(|len| ONE_CELL.contains(len)),
                    "no datagram is larger, merged or cut: {stretch:?}"
                );
                assert!(
                    stretch
                        .small(way)
                        .keys()
                        .all(|len| NOTHING_BUT_QUIC.contains(len)),
                    "what is not a cell carries nothing: {stretch:?}"
                );
            }
        }
        assert_eq!(alice.agent.line_counters().over, 0);
        house.close([alice, bob]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_message_waits_for_its_slots_unless_it_is_said_to_leave_now() {
    let house = House::open(|_| {}).await;
    let (alice, bob) = house.pair(fast(Mode::Adaptive)).await;
    settle(&[&alice, &bob]).await;
    let mut inbox = bob.channel.messages();
    let mut events = alice.agent.events();
    let large = vec![7_u8; 20_000];

    let before = alice.agent.line_counters();
    alice.channel.send(large.clone()).await.unwrap();
    let after = alice.agent.line_counters();
    assert_eq!(
        within(inbox.next()).await.unwrap().unwrap().payload(),
        large
    );
    assert!(
        after.sent.real - before.sent.real >= 20,
        "it took its slots"
    );
    assert_eq!(after.over, 0);
    for side in [&alice, &bob] {
        assert_eq!(side.agent.line_counters().over, 0);
    }

    alice.channel.send_now(large.clone()).await.unwrap();
    assert_eq!(
        within(inbox.next()).await.unwrap().unwrap().payload(),
        large
    );
    let over = alice.agent.line_counters().over;
    assert!(over >= 19, "it did not wait: {over}");
    let told = async {
        loop {
            if let Some(Event::OverSchedule { cells, .. }) = events.next().await.unwrap() {
                return cells;
            }
        }
    };
    assert_eq!(within(told).await, over);
    // Bob, who receives, has not allowed the relay to do the same: alone Alice was seen.
    assert_eq!(
        house
            .metric("skytale_relay_cells_over_schedule_total")
            .await,
        0
    );
    house.close([alice, bob]).await;
}

/// The receiver sets the relay's side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lets_large_transfers_leave_at_once_gets_and_sends_them_so() {
    let house = House::open(|_| {}).await;
    let now = fast(Mode::Adaptive).with_bulk(Bulk::Now).unwrap();
    let (alice, bob) = house.pair(now).await;
    settle(&[&alice, &bob]).await;
    let mut inbox = bob.channel.messages();
    let over = house
        .metric("skytale_relay_cells_over_schedule_total")
        .await;
    let ours = alice.agent.line_counters().over;

    alice.channel.send("small").await.unwrap();
    assert!(within(inbox.next()).await.unwrap().is_some());
    assert_eq!(alice.agent.line_counters().over, ours, "small ones wait");
    alice.channel.send(vec![7; 40_000]).await.unwrap();
    assert!(within(inbox.next()).await.unwrap().is_some());

    assert!(alice.agent.line_counters().over > ours + 30);
    let later = house
        .metric("skytale_relay_cells_over_schedule_total")
        .await;
    assert!(later > over + 30, "{later}");
    house.close([alice, bob]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_asks_for_more_makes_the_line_stricter_and_shows_it() {
    let house = House::open(|config| {
        config.traffic.at_least = "constant".to_owned().try_into().unwrap();
    })
    .await;
    let (alice, bob) = house.pair(Shape::new(Mode::Padded)).await;

    let status = alice.agent.status().await.unwrap();
    let relay = &status.relays[0];
    let shapes = relay.shapes.unwrap();

    assert_eq!(shapes.to_relay.mode(), Mode::Constant);
    assert_eq!(shapes.to_agent.mode(), Mode::Constant);
    assert!(relay.counters.sent.cover + relay.counters.sent.real > 0);
    assert_eq!(relay.counters.missing, 0);
    alice.channel.send("hello").await.unwrap();
    let mut inbox = bob.channel.messages();
    assert!(within(inbox.next()).await.unwrap().is_some());
    house.close([alice, bob]).await;
}

/// 32 slots a second, the most that a relay gives by default.
fn fast(mode: Mode) -> Shape {
    Shape::new(mode).with_rate(32_000).unwrap()
}

/// What went by while a line sent [`CELLS`] cells each way.
#[derive(Debug)]
struct Stretch {
    /// How many datagrams of each size, to the relay and back.
    seen: [BTreeMap<usize, u64>; 2],
    /// Cells by the agent's own count, and the real ones among them.
    cells: [u64; 2],
    real: [u64; 2],
}

impl Stretch {
    fn large(&self, way: usize) -> BTreeMap<usize, u64> {
        self.part(way, |len| len >= LARGE)
    }

    fn small(&self, way: usize) -> BTreeMap<usize, u64> {
        self.part(way, |len| len < LARGE)
    }

    fn part(&self, way: usize, wanted: impl Fn(usize) -> bool) -> BTreeMap<usize, u64> {
        let seen = self.seen[way].iter();
        seen.filter(|(len, _)| wanted(**len))
            .map(|(len, count)| (*len, *count))
            .collect()
    }
}

/// A relay and an API server in this process.
struct House {
    relay: Relay,
    api_url: String,
    api_key: String,
    dir: TempDir,
    _serving: DropGuard,
}

/// An agent behind a proxy of its own, and its end of the channel.
struct Side {
    agent: Agent,
    channel: Channel,
    proxy: Proxy,
}

impl House {
    async fn open(change: impl FnOnce(&mut RelayConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = skytale_api::Config::new(&dir.path().join("server"));
        config.addr = (Ipv4Addr::LOCALHOST, 0).into();
        std::fs::create_dir(dir.path().join("server")).unwrap();
        let mut api = skytale_api::Server::bind(config).await.unwrap();
        let keys = vec![Issuer::Keys(api.public_keys())];
        let mut config = RelayConfig::new(&dir.path().join("relay"), keys);
        // Agents reach it by their proxies only: between addresses of two families there is no
        // direct way.
        config.quic_addr = (Ipv6Addr::LOCALHOST, 0).into();
        config.health_addr.set_port(0);
        config.grpc_addr = None;
        change(&mut config);
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
            _serving: stop.drop_guard(),
        }
    }

    /// Alice and Bob in one channel, each behind a proxy.
    async fn pair(&self, shape: Shape) -> (Side, Side) {
        let (alice, for_alice) = self.agent("alice", shape).await;
        let (bob, for_bob) = self.agent("bob", shape).await;
        let here = alice.channel("acme/ops/plan").await.unwrap();
        let options = InviteOptions {
            // Otherwise it would lead Bob through Alice's proxy.
            addresses: vec![for_bob.addr.to_string()],
            ..InviteOptions::default()
        };
        let line = here.invite_with(options).await.unwrap();
        let there = bob.join(&line).await.unwrap();
        let side = |agent, channel, proxy| Side {
            agent,
            channel,
            proxy,
        };
        (side(alice, here, for_alice), side(bob, there, for_bob))
    }

    async fn agent(&self, name: &str, shape: Shape) -> (Agent, Proxy) {
        let proxy = Proxy::before(self.relay.quic_addr()).await;
        let relay = RelayAddr {
            key: self.relay.key(),
            address: proxy.addr.to_string(),
        };
        let agent = Agent::builder(name)
            .data_dir(self.dir.path().join(name))
            .config_dir(self.dir.path().join("config"))
            .api_url(&self.api_url)
            .api_key(Secret::new(self.api_key.clone()))
            .relay(relay)
            .traffic(Traffic::from(shape))
            .open();
        (agent.await.unwrap(), proxy)
    }

    async fn metric(&self, name: &'static str) -> u64 {
        let value = metric_meanwhile(self.relay.health_addr(), name).await;
        value.unwrap()
    }

    async fn close(self, sides: [Side; 2]) {
        for side in sides {
            drop(side.channel);
            side.agent.close().await.unwrap();
        }
        self.relay.stop().await;
    }
}

impl Side {
    /// Notes datagrams until [`CELLS`] cells have gone each way.
    async fn stretch(&self) -> Stretch {
        self.proxy.forget();
        let before = self.agent.line_counters();
        let done = async {
            loop {
                let now = self.agent.line_counters();
                let cells = cells_between(&before, &now);
                if cells.iter().all(|count| *count >= CELLS) {
                    return (now, cells);
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let (now, cells) = within(done).await;
        Stretch {
            seen: self.proxy.seen(),
            cells,
            real: [
                now.sent.real - before.sent.real,
                now.received.real - before.received.real,
            ],
        }
    }
}

fn cells_between(before: &LineCounters, now: &LineCounters) -> [u64; 2] {
    let cells = |counters: &LineCounters| {
        [
            counters.sent.real + counters.sent.cover,
            counters.received.real + counters.received.cover,
        ]
    };
    let (before, now) = (cells(before), cells(now));
    [now[0] - before[0], now[1] - before[1]]
}

/// Until everything is said that new agents say by themselves: for a while all cells are cover.
async fn settle(sides: &[&Side]) {
    for side in sides {
        within(async {
            side.agent.online().await.unwrap();
            side.agent.caught_up().await.unwrap();
            while side.stretch().await.real != [0, 0] {}
        })
        .await;
    }
}

/// Stands between one agent and the relay, and sees what anybody there would see.
struct Proxy {
    addr: SocketAddr,
    seen: Arc<Mutex<[BTreeMap<usize, u64>; 2]>>,
    task: JoinHandle<()>,
}

impl Proxy {
    async fn before(relay: SocketAddr) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = front.local_addr().unwrap();
        let back = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
        let seen = Arc::default();
        let task = tokio::spawn(carry(front, back, relay, Arc::clone(&seen)));
        Self { addr, seen, task }
    }

    fn forget(&self) {
        *self.seen.lock().unwrap() = Default::default();
    }

    fn seen(&self) -> [BTreeMap<usize, u64>; 2] {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(
    front: UdpSocket,
    back: UdpSocket,
    relay: SocketAddr,
    seen: Arc<Mutex<[BTreeMap<usize, u64>; 2]>>,
) {
    let mut client = None;
    let (mut out, mut home) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            Ok((len, from)) = front.recv_from(&mut out) => {
                client = Some(from);
                *seen.lock().unwrap()[0].entry(len).or_default() += 1;
                // A datagram that the system does not take is one that was lost.
                let _ = back.send_to(&out[..len], relay).await;
            }
            Ok((len, _)) = back.recv_from(&mut home) => {
                *seen.lock().unwrap()[1].entry(len).or_default() += 1;
                if let Some(client) = client {
                    let _ = front.send_to(&home[..len], client).await;
                }
            }
        }
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it comes in time")
}

/// Some seconds of a line.
const CELLS: u64 = 100;
/// A cell of 1,056 bytes in a datagram: QUIC's header, the stream's, and now and then an
/// acknowledgement or a word on flow control beside it.
const ONE_CELL: std::ops::RangeInclusive<usize> = 1_056 + 24..=1_056 + 80;
/// Acknowledgements, and what QUIC asks by itself.
const NOTHING_BUT_QUIC: std::ops::RangeInclusive<usize> = 20..=120;
const LARGE: usize = 500;
const PATIENCE: Duration = Duration::from_mins(1);
/// How often a counter is looked at that nothing announces.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
