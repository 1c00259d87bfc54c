//! The real SDK against the real relay through a bad network: a proxy for UDP that changes its port,
//! loses and doubles; and against one that dies, hangs and comes back. Nothing that was acknowledged
//! may be lost, doubled or out of order.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]
#![allow(clippy::print_stdout, reason = "the figures of a run")]

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use skytale_relay::{
    config::{Issuer, RelayConfig},
    run::Relay,
};
use skytale_sdk::{Agent, Channel, Draft, Error, InviteOptions, Mode, RelayAddr, Seq};
use skytale_tests::{
    metrics::metric_meanwhile,
    processes::{Machine, PATIENCE, Servers},
};
use skytale_wire::{
    frame::PAYLOAD_BYTES_MAX,
    http::{RelayAt, Secret},
};
use tempfile::TempDir;
use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing_subscriber::EnvFilter;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_port_changes_in_mid_conversation_and_nothing_is_lost() {
    let house = House::open().await;
    let (alice, bob) = house.pair().await;
    let opened = house.metric("skytale_relay_opened_total").await;
    let ([from, to], [to_bob, from_bob]) = alice.proxy.passed().zip(bob.proxy.passed());

    let talking = alice.talk(&bob, 0..40);
    let rebinding = async {
        for side in [&alice, &bob, &alice] {
            // The next change comes when both ways have carried something since the last one:
            // within seconds, because a client that only listens says that it is there.
            let before = side.proxy.passed();
            side.proxy.rebind().await;
            side.proxy.wait_beyond(before).await;
        }
    };
    let ((), ()) = tokio::join!(talking, rebinding);
    bob.talk(&alice, 40..60).await;

    // The control: it did go through the proxies, also after their ports had changed.
    let [later_from, later_to] = alice.proxy.passed().0;
    assert!(later_from > from + 20 && later_to > to + 20);
    let [later_to_bob, later_from_bob] = bob.proxy.passed().0;
    assert!(later_to_bob > to_bob + 20 && later_from_bob > from_bob + 20);
    assert_eq!(
        house.metric("skytale_relay_opened_total").await,
        opened,
        "the connections have moved; no new ones were made"
    );
    house.close([alice, bob]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_loses_and_doubles_delivers_everything_once() {
    let house = House::open().await;
    let (alice, bob) = house.pair().await;

    for side in [&alice, &bob] {
        side.proxy.be_bad(10, 10);
    }
    let (there, back) = (alice.talk(&bob, 0..60), bob.talk(&alice, 100..160));
    tokio::join!(there, back);
    // Messages that wait together share datagrams, so a quick machine sends few: they go on talking
    // until the line has been bad to both.
    let mut next = 200;
    while alice.proxy.harmed().min(bob.proxy.harmed()) <= 10 {
        alice.talk(&bob, next..next + 5).await;
        bob.talk(&alice, next + 5..next + 10).await;
        next += 10;
    }
    for side in [&alice, &bob] {
        side.proxy.be_bad(0, 0);
    }
    alice.talk(&bob, 60..70).await;

    house.close([alice, bob]).await;
}

/// Silence is not yet death: what was made to notice a relay that is gone must not cut a line that is
/// merely bad. `SKYTALE_MESSAGES=n` lets them talk for longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_line_that_loses_a_third_is_kept_and_delivers_everything_once() {
    let count = number("SKYTALE_MESSAGES").unwrap_or(5);
    let house = House::open().await;
    let (alice, bob) = house.pair().await;
    let opened = house.metric("skytale_relay_opened_total").await;

    for side in [&alice, &bob] {
        side.proxy.be_bad(30, 0);
        side.proxy.be_slow(500);
    }
    let (there, back) = (alice.talk(&bob, 0..count), bob.talk(&alice, 0..count));
    tokio::join!(there, back);

    let later = house.metric("skytale_relay_opened_total").await;
    println!("connections that were made anew: {}", later - opened);
    for side in [&alice, &bob] {
        side.proxy.be_bad(0, 0);
        side.proxy.be_slow(0);
    }
    alice.talk(&bob, count..count + 5).await;
    house.close([alice, bob]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_channels_share_one_connection() {
    let house = House::open().await;
    let (alice, bob) = house.pair().await;
    let mut rooms = vec![(alice.channel.clone(), bob.channel.clone())];
    for number in 0..4 {
        let name = format!("acme/ops/room{number}");
        rooms.push(meet(&alice.agent, &bob.agent, &name, bob.proxy.addr).await);
    }

    // All at once, both ways, each channel with an order of its own.
    let talks = rooms.iter().enumerate().flat_map(|(room, (here, there))| {
        let from = u32::try_from(room).unwrap() * 100;
        [
            talk(here, there, from..from + 15),
            talk(there, here, from + 50..from + 65),
        ]
    });
    join_all(talks).await;

    assert_eq!(house.metric("skytale_relay_channels").await, 5);
    assert_eq!(house.metric("skytale_relay_connections").await, 2);
    house.close([alice, bob]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_every_size_arrive_whole() {
    let house = House::open().await;
    let (alice, bob) = house.pair().await;
    let mut sizes = vec![0, 1, 2, PAYLOAD_BYTES_MAX - 1, PAYLOAD_BYTES_MAX];
    for power in 6..=17 {
        // Just around the sizes at which the next bucket begins.
        for off in [300, 150, 80, 33, 1, 0] {
            sizes.push((1_usize << power).saturating_sub(off));
        }
    }
    sizes.sort_unstable();
    sizes.dedup();
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut bytes = vec![0; PAYLOAD_BYTES_MAX];
    rng.fill(&mut bytes[..]);

    let sending = async {
        let all = sizes.iter().map(|size| {
            alice.channel.send(Draft {
                content_type: "application/octet-stream".into(),
                payload: bytes[..*size].to_vec().into(),
                ..Draft::default()
            })
        });
        for sent in join_all(all).await {
            sent.unwrap();
        }
    };
    let reading = async {
        let mut inbox = bob.channel.messages();
        for size in &sizes {
            let message = within(inbox.next()).await.unwrap().unwrap();
            assert_eq!(message.payload().len(), *size);
            assert!(message.payload() == &bytes[..*size], "{size}");
            message.ack().await.unwrap();
        }
    };
    tokio::join!(sending, reading);
    let over = alice.channel.send(vec![0; PAYLOAD_BYTES_MAX + 1]).await;
    let limit = PAYLOAD_BYTES_MAX.to_string();
    assert!(matches!(&over, Err(Error::Misuse(why)) if why.contains(&limit)));
    alice.talk(&bob, 0..1).await;

    house.close([alice, bob]).await;
}

/// A relay cannot tell agents whom it has forgotten that it was killed. How long it takes until they
/// are back is printed; `SKYTALE_KILLS=n` asks for more figures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_come_back_to_a_relay_that_was_killed_and_nothing_is_lost() {
    let kills = number("SKYTALE_KILLS").unwrap_or(2);
    let mut relay = Elsewhere::begin().await;
    let (alice, bob) = relay.pair().await;

    let mut took = Vec::new();
    for kill in 0..kills {
        let first = kill * 100;
        // Now with messages on their way, now on quiet lines.
        if kill % 2 == 0 {
            let (there, back) = (
                talk(&alice.1, &bob.1, first..first + 50),
                talk(&bob.1, &alice.1, first..first + 50),
            );
            let restart = relay.kill_and_restart();
            let ((), (), began) = tokio::join!(there, back, restart);
            took.push(("busy", relay.both_back_since(began).await));
        } else {
            let began = relay.kill_and_restart().await;
            took.push(("quiet", relay.both_back_since(began).await));
        }
        let next = first + 50;
        talk(&alice.1, &bob.1, next..next + 5).await;
        talk(&bob.1, &alice.1, next..next + 5).await;
    }

    took.sort_unstable_by_key(|(_, time)| *time);
    println!("from the relay's being back to both agents' being back: {took:?}");
    for (agent, channel) in [alice, bob] {
        drop(channel);
        agent.close().await.unwrap();
    }
}

/// A relay that hangs, as one does whose machine swaps or whose virtual machine is moved, still
/// knows its agents when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_hangs_and_goes_on_loses_nothing_and_meets_no_storm() {
    let relay = Elsewhere::begin().await;
    let (alice, bob) = relay.pair().await;
    let opened = relay.metric("skytale_relay_opened_total").await.unwrap();

    relay.signal("STOP");
    let talking = async {
        let there = talk(&alice.1, &bob.1, 0..20);
        tokio::join!(there, talk(&bob.1, &alice.1, 0..20));
    };
    let hanging = async {
        // It goes on when both have noticed, and have tried to reach it in another way.
        for (agent, _) in [&alice, &bob] {
            within(until_silence_is_noticed(agent)).await;
        }
        relay.signal("CONT");
    };
    let ((), ()) = tokio::join!(talking, hanging);
    talk(&alice.1, &bob.1, 20..25).await;

    let later = relay.metric("skytale_relay_opened_total").await.unwrap();
    println!("connections that were made anew: {}", later - opened);
    // One for each at most, unless this machine is so slow that they notice the silence twice.
    assert!(
        later - opened <= 8,
        "a storm of {} connections",
        later - opened
    );
    for (agent, channel) in [alice, bob] {
        drop(channel);
        agent.close().await.unwrap();
    }
}

/// Servers in a process of their own, which can be killed.
struct Elsewhere {
    machine: Arc<Machine>,
    servers: Option<Servers>,
}

impl Elsewhere {
    async fn begin() -> Self {
        log();
        let machine = Arc::new(Machine::new());
        let starting = Arc::clone(&machine);
        let servers = spawn_blocking(move || starting.up(None)).await.unwrap();
        Self {
            machine,
            servers: Some(servers),
        }
    }

    fn servers(&self) -> &Servers {
        self.servers.as_ref().expect("a restart gives them back")
    }

    /// Two agents of this process in one channel.
    async fn pair(&self) -> ((Agent, Channel), (Agent, Channel)) {
        let open = async |name: &str| {
            let agent = Agent::builder(name)
                .data_dir(self.machine.data())
                .config_dir(self.machine.config())
                .traffic(Mode::Padded)
                .open();
            agent.await.unwrap()
        };
        let (alice, bob) = (open("alice").await, open("bob").await);
        let here = alice.channel("acme/ops/plan").await.unwrap();
        let line = here.invite().await.unwrap();
        let there = bob.join(&line).await.unwrap();
        ((alice, here), (bob, there))
    }

    /// Gives when it was back.
    async fn kill_and_restart(&mut self) -> Instant {
        let servers = self.servers.take().expect("a restart gives them back");
        let machine = Arc::clone(&self.machine);
        let restart = spawn_blocking(move || {
            let addresses = servers.addresses();
            servers.kill();
            machine.up(Some(&addresses))
        });
        self.servers = Some(restart.await.unwrap());
        Instant::now()
    }

    async fn both_back_since(&self, began: Instant) -> Duration {
        let both = async {
            while self.metric("skytale_relay_connections").await != Some(2) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        within(both).await;
        began.elapsed()
    }

    async fn metric(&self, name: &'static str) -> Option<u64> {
        metric_meanwhile(self.servers().addresses().health.parse().unwrap(), name).await
    }

    fn signal(&self, name: &str) {
        let pid = self.servers().pid().to_string();
        let told = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(told.unwrap().success());
    }
}

/// Until the agent says that its relay, to which it is connected, does not answer.
async fn until_silence_is_noticed(agent: &Agent) {
    loop {
        let status = agent.status().await.unwrap();
        if status.relays.iter().any(|relay| relay.trouble.is_some()) {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
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
    async fn open() -> Self {
        log();
        let dir = tempfile::tempdir().unwrap();
        let mut config = skytale_api::Config::new(&dir.path().join("server"));
        config.addr = (Ipv4Addr::LOCALHOST, 0).into();
        std::fs::create_dir(dir.path().join("server")).unwrap();
        let mut api = skytale_api::Server::bind(config).await.unwrap();
        let keys = vec![Issuer::Keys(api.public_keys())];
        let mut config = RelayConfig::new(&dir.path().join("relay"), keys);
        // Agents reach it by their proxies only. Both sides of iroh tell each other where else they
        // are and take the quickest way; from an address of the other family there is none. When it
        // was a matter of luck which way was taken, these tests stood still once in about thirty
        // runs, because the proxy that was to do harm saw nothing.
        config.quic_addr = (Ipv6Addr::LOCALHOST, 0).into();
        config.health_addr.set_port(0);
        config.grpc_addr = None;
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
    async fn pair(&self) -> (Side, Side) {
        let (alice, for_alice) = self.agent("alice").await;
        let (bob, for_bob) = self.agent("bob").await;
        let (here, there) = meet(&alice, &bob, "acme/ops/plan", for_bob.addr).await;
        let side = |agent, channel, proxy| Side {
            agent,
            channel,
            proxy,
        };
        (side(alice, here, for_alice), side(bob, there, for_bob))
    }

    async fn agent(&self, name: &str) -> (Agent, Proxy) {
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
            // What is tested here is other than what a line looks like.
            .traffic(Mode::Padded)
            .open();
        (agent.await.unwrap(), proxy)
    }

    async fn metric(&self, name: &'static str) -> u64 {
        metric_meanwhile(self.relay.health_addr(), name)
            .await
            .unwrap()
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
    async fn talk(&self, to: &Self, numbers: std::ops::Range<u32>) {
        talk(&self.channel, &to.channel, numbers).await;
    }
}

/// A channel that both are in. Without the address the invite would lead Bob through the proxy of
/// Alice.
async fn meet(alice: &Agent, bob: &Agent, name: &str, relay: SocketAddr) -> (Channel, Channel) {
    let here = alice.channel(name).await.unwrap();
    let options = InviteOptions {
        addresses: vec![relay.to_string()],
        ..InviteOptions::default()
    };
    let line = here.invite_with(options).await.unwrap();
    let there = bob.join(&line).await.unwrap();
    (here, there)
}

/// Sends numbers, several at a time, while the other side reads them: each once and in order.
async fn talk(from: &Channel, to: &Channel, numbers: std::ops::Range<u32>) {
    let sending = async {
        let mut places: Vec<Seq> = Vec::new();
        let all: Vec<u32> = numbers.clone().collect();
        for few in all.chunks(5) {
            let sends = few.iter().map(|number| from.send(number.to_string()));
            for sent in within(join_all(sends)).await {
                places.push(sent.unwrap().seq);
            }
        }
        places
    };
    let reading = async {
        let mut inbox = to.messages();
        let mut places = Vec::new();
        for number in numbers.clone() {
            let message = within(inbox.next()).await.unwrap().unwrap();
            assert_eq!(message.text().unwrap(), number.to_string());
            places.push(message.seq());
            message.ack().await.unwrap();
        }
        places
    };
    let (stored, read) = tokio::join!(sending, reading);
    assert!(stored.is_sorted());
    assert_eq!(stored, read);
}

/// `SKYTALE_LOG` says what is shown of the log, of both sides. Nothing by default.
fn log() {
    // The first test of the process begins it.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_env("SKYTALE_LOG"))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it comes in time")
}

/// Stands between one agent and the relay.
struct Proxy {
    addr: SocketAddr,
    orders: mpsc::Sender<Order>,
    weather: Arc<Weather>,
    task: JoinHandle<()>,
}

enum Order {
    /// From now on the relay sees another port.
    Rebind(oneshot::Sender<SocketAddr>),
}

/// What the proxy does to datagrams, and how many it has passed on.
#[derive(Default)]
struct Weather {
    lost_percent: AtomicU32,
    doubled_percent: AtomicU32,
    /// Each is held back for a time of its own, so that they overtake each other.
    late_ms_max: AtomicU32,
    harmed: AtomicU64,
    /// To the relay and back.
    passed: [AtomicU64; 2],
}

/// Datagrams that went to the relay and came back.
#[derive(Clone, Copy)]
struct Passed([u64; 2]);

impl Passed {
    fn zip(self, other: Self) -> ([u64; 2], [u64; 2]) {
        (self.0, other.0)
    }
}

impl Proxy {
    async fn before(relay: SocketAddr) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = front.local_addr().unwrap();
        let (orders, given) = mpsc::channel(1);
        let weather = Arc::new(Weather::default());
        let task = tokio::spawn(carry(front, relay, given, Arc::clone(&weather)));
        Self {
            addr,
            orders,
            weather,
            task,
        }
    }

    async fn rebind(&self) -> SocketAddr {
        let (done, rebound) = oneshot::channel();
        self.orders.send(Order::Rebind(done)).await.unwrap();
        rebound.await.unwrap()
    }

    fn be_bad(&self, lost_percent: u32, doubled_percent: u32) {
        let weather = &self.weather;
        weather.lost_percent.store(lost_percent, Ordering::Relaxed);
        weather
            .doubled_percent
            .store(doubled_percent, Ordering::Relaxed);
    }

    /// From now on each datagram takes up to so long.
    fn be_slow(&self, late_ms_max: u32) {
        let late = &self.weather.late_ms_max;
        late.store(late_ms_max, Ordering::Relaxed);
    }

    fn harmed(&self) -> u64 {
        self.weather.harmed.load(Ordering::Relaxed)
    }

    fn passed(&self) -> Passed {
        let passed = &self.weather.passed;
        Passed([0, 1].map(|way| passed[way].load(Ordering::Relaxed)))
    }

    /// Until both ways have carried a few more.
    async fn wait_beyond(&self, before: Passed) {
        let beyond = async {
            while self.passed().0[0] < before.0[0] + 5 || self.passed().0[1] < before.0[1] + 5 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        within(beyond).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(
    front: UdpSocket,
    relay: SocketAddr,
    mut orders: mpsc::Receiver<Order>,
    weather: Arc<Weather>,
) {
    let mut rng = ChaCha8Rng::seed_from_u64(u64::from(relay.port()));
    let front = Arc::new(front);
    let mut back = Arc::new(bound().await);
    let mut client = None;
    let (mut out, mut home) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            Ok((len, from)) = front.recv_from(&mut out) => {
                client = Some(from);
                for _ in 0..weather.copies(&mut rng) {
                    pass(&back, relay, &out[..len], weather.late(&mut rng)).await;
                    weather.passed[0].fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok((len, _)) = back.recv_from(&mut home) => {
                for _ in 0..weather.copies(&mut rng) {
                    if let Some(client) = client {
                        pass(&front, client, &home[..len], weather.late(&mut rng)).await;
                        weather.passed[1].fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            order = orders.recv() => {
                let Some(Order::Rebind(done)) = order else { return };
                // The new one first, so that it cannot get the old one's port.
                back = Arc::new(bound().await);
                let _ = done.send(back.local_addr().unwrap());
            }
        }
    }
}

/// A datagram that the system does not take is one that was lost.
async fn pass(by: &Arc<UdpSocket>, to: SocketAddr, datagram: &[u8], late: Duration) {
    if late.is_zero() {
        let _ = by.send_to(datagram, to).await;
        return;
    }
    let (by, datagram) = (Arc::clone(by), datagram.to_vec());
    tokio::spawn(async move {
        tokio::time::sleep(late).await;
        let _ = by.send_to(&datagram, to).await;
    });
}

impl Weather {
    fn late(&self, rng: &mut ChaCha8Rng) -> Duration {
        let max = self.late_ms_max.load(Ordering::Relaxed);
        Duration::from_millis(rng.random_range(0..=max).into())
    }

    /// How often a datagram is passed on.
    fn copies(&self, rng: &mut ChaCha8Rng) -> u32 {
        let dice = rng.random_range(0..100);
        let lost = self.lost_percent.load(Ordering::Relaxed);
        let doubled = self.doubled_percent.load(Ordering::Relaxed);
        let copies = match dice {
            dice if dice < lost => 0,
            dice if dice < lost + doubled => 2,
            _ => 1,
        };
        self.harmed
            .fetch_add(u64::from(copies != 1), Ordering::Relaxed);
        copies
    }
}

async fn bound() -> UdpSocket {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap()
}

/// How often a counter is looked at that nothing announces.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

#[expect(clippy::disallowed_methods, reason = "the environment of a test run")]
fn number(name: &str) -> Option<u32> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}
