//! What a watcher of a line over gRPC sees: the SDK and the relay over loopback, UDP blocked, through a
//! proxy that notes each frame of HTTP/2. There is no outer TLS here, so the watcher sees more than one
//! ever should: which frames there are, and how long each is. Instants are the schedule's own matter.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]
#![allow(clippy::print_stdout, reason = "the figures of a run")]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use skytale_relay::{
    config::{Issuer, RelayConfig},
    run::Relay,
};
use skytale_sdk::{
    Agent, Carrier, Channel, InviteOptions, LineCounters, Mode, RelayAddr, Shape, Traffic,
};
use skytale_tests::processes::PATIENCE;
use skytale_wire::http::{RelayAt, Secret};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream, UdpSocket,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// From an idle stretch and a busy one of the same line: as many frames with cells in them as cells,
/// all of one length, and beside them only what HTTP/2 says of itself, as often by the byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_the_same_with_and_without_traffic() {
    for mode in [Mode::Adaptive, Mode::Constant] {
        let house = House::open().await;
        let shape = Shape::new(mode).with_rate(32_000).unwrap();
        let alice = house.side("alice", shape).await;
        let bob = house.side("bob", shape).await;
        let (alice, bob) = house.meet(alice, bob).await;
        for side in [&alice, &bob] {
            side.settle().await;
            let status = side.agent.status().await.unwrap();
            assert_eq!(status.relays[0].carrier, Some(Carrier::Grpc));
        }

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
                // Cells of a burst may share a frame: the schedule says which they are.
                let mut cells = 0;
                for ((kind, len), count) in &stretch.seen[way] {
                    match *kind {
                        DATA => {
                            assert_eq!(len % MESSAGE, 0, "no cell is cut: {stretch:?}");
                            cells += (len / MESSAGE) as u64 * count;
                        }
                        WINDOW_UPDATE => {}
                        other => panic!("a frame of kind {other}: {stretch:?}"),
                    }
                }
                // A cell may be on its way at the beginning or the end.
                assert!(cells.abs_diff(stretch.cells[way]) <= 3, "{stretch:?}");
                let updates = stretch.updates(way);
                let due = stretch.cells[1 - way] / 40;
                assert!(updates <= due + 4, "credit goes by the byte: {stretch:?}");
            }
        }
        assert_eq!(alice.agent.line_counters().over, 0);
        house.close([alice, bob]).await;
    }
}

/// What went by while a line sent [`CELLS`] cells each way.
#[derive(Debug)]
struct Stretch {
    /// How many frames of each kind and length, to the relay and back.
    seen: [BTreeMap<(u8, usize), u64>; 2],
    /// Cells by the agent's own count, and the real ones among them.
    cells: [u64; 2],
    real: [u64; 2],
}

impl Stretch {
    fn updates(&self, way: usize) -> u64 {
        let seen = self.seen[way].iter();
        let updates = seen.filter(|((kind, _), _)| *kind == WINDOW_UPDATE);
        updates.map(|(_, count)| count).sum()
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

/// An agent behind a watcher of its own.
struct Alone {
    agent: Agent,
    address: String,
    watcher: Watcher,
    /// Takes its datagrams and answers none.
    nowhere: UdpSocket,
}

/// The same, and its end of the channel.
struct Side {
    agent: Agent,
    channel: Channel,
    watcher: Watcher,
    _nowhere: UdpSocket,
}

impl House {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = skytale_api::Config::new(&dir.path().join("server"));
        config.addr = (Ipv4Addr::LOCALHOST, 0).into();
        std::fs::create_dir(dir.path().join("server")).unwrap();
        let mut api = skytale_api::Server::bind(config).await.unwrap();
        let keys = vec![Issuer::Keys(api.public_keys())];
        let mut config = RelayConfig::new(&dir.path().join("relay"), keys);
        config.quic_addr = (Ipv4Addr::LOCALHOST, 0).into();
        config.grpc_addr = Some((Ipv4Addr::LOCALHOST, 0).into());
        config.health_addr.set_port(0);
        let relay = Relay::start(config).await.unwrap();
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

    async fn side(&self, name: &str, shape: Shape) -> Alone {
        let nowhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let watcher = Watcher::before(self.relay.grpc_addr().unwrap()).await;
        let quic = nowhere.local_addr().unwrap();
        let address = format!("{quic}?grpc={}", watcher.addr);
        let relay = RelayAddr {
            key: self.relay.key(),
            address: address.clone(),
        };
        let agent = Agent::builder(name)
            .data_dir(self.dir.path().join(name))
            .config_dir(self.dir.path().join("config"))
            .api_url(&self.api_url)
            .api_key(Secret::new(self.api_key.clone()))
            .relay(relay)
            .traffic(Traffic::from(shape))
            .open();
        Alone {
            agent: agent.await.unwrap(),
            address,
            watcher,
            nowhere,
        }
    }

    async fn meet(&self, alice: Alone, bob: Alone) -> (Side, Side) {
        let here = alice.agent.channel("acme/ops/plan").await.unwrap();
        let options = InviteOptions {
            addresses: vec![bob.address.clone()],
            ..InviteOptions::default()
        };
        let line = here.invite_with(options).await.unwrap();
        let there = bob.agent.join(&line).await.unwrap();
        let side = |alone: Alone, channel| Side {
            agent: alone.agent,
            channel,
            watcher: alone.watcher,
            _nowhere: alone.nowhere,
        };
        (side(alice, here), side(bob, there))
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
    /// Until everything is said that new agents say by themselves: for a while all cells are cover.
    async fn settle(&self) {
        within(async {
            self.agent.online().await.unwrap();
            self.agent.caught_up().await.unwrap();
            while self.stretch().await.real != [0, 0] {}
        })
        .await;
    }

    /// Notes frames until [`CELLS`] cells have gone each way.
    async fn stretch(&self) -> Stretch {
        self.watcher.forget();
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
            seen: self.watcher.seen(),
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

/// Kinds and lengths of frames, by direction.
type Seen = Arc<Mutex<[BTreeMap<(u8, usize), u64>; 2]>>;

/// Stands between one agent and the relay, and sees what anybody there would see.
struct Watcher {
    addr: SocketAddr,
    seen: Seen,
    task: JoinHandle<()>,
}

impl Watcher {
    async fn before(relay: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Seen::default();
        let notes = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut ways = JoinSet::new();
            while let Ok((agent, _)) = listener.accept().await {
                let relay = TcpStream::connect(relay).await.unwrap();
                for stream in [&agent, &relay] {
                    stream.set_nodelay(true).unwrap();
                }
                let (from_agent, to_agent) = agent.into_split();
                let (from_relay, to_relay) = relay.into_split();
                ways.spawn(watch(from_agent, to_relay, 0, PREFACE, Arc::clone(&notes)));
                ways.spawn(watch(from_relay, to_agent, 1, 0, Arc::clone(&notes)));
            }
        });
        Self { addr, seen, task }
    }

    fn forget(&self) {
        *self.seen.lock().unwrap() = Default::default();
    }

    fn seen(&self) -> [BTreeMap<(u8, usize), u64>; 2] {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes one direction on, frame by frame.
async fn watch(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: usize,
    preface: usize,
    seen: Seen,
) -> Option<()> {
    let mut bytes = vec![0; preface];
    from.read_exact(&mut bytes).await.ok()?;
    to.write_all(&bytes).await.ok()?;
    loop {
        let mut head = [0; 9];
        from.read_exact(&mut head).await.ok()?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let len = usize::try_from(len).unwrap();
        bytes.clear();
        bytes.extend_from_slice(&head);
        bytes.resize(9 + len, 0);
        from.read_exact(&mut bytes[9..]).await.ok()?;
        *seen.lock().unwrap()[way].entry((head[3], len)).or_default() += 1;
        to.write_all(&bytes).await.ok()?;
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it comes in time")
}

/// What HTTP/2 begins with, before its first frame.
const PREFACE: usize = 24;
const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 8;
/// A cell of 1,056 bytes, with what TLS (22), the piece (3) and gRPC (5) put around it.
const MESSAGE: usize = 1_056 + 22 + 3 + 5;
/// Some seconds of a line.
const CELLS: u64 = 100;
/// How often a counter is looked at that nothing announces.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
