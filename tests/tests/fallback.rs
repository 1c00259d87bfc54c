//! The same agents where UDP does not get through: lines go by gRPC, nothing is lost or doubled on the
//! way there and back, and all that holds over QUIC holds there.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]
#![allow(clippy::print_stdout, reason = "the figures of a run")]

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use skytale_relay::{
    config::{Issuer, RelayConfig},
    run::Relay,
};
use skytale_sdk::{
    Agent, Carrier, Channel, InviteOptions, LinkState, Mode, RelayAddr, Seq, Traffic,
};
use skytale_tests::processes::PATIENCE;
use skytale_wire::{
    frame::PAYLOAD_BYTES_MAX,
    http::{RelayAt, Secret},
    id::RelayKey,
};
use tempfile::TempDir;
use tokio::{
    net::UdpSocket,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// All that this asks of a line, over both carriers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_is_said_and_heard_over_quic_and_grpc() {
    for (carrier, mode) in [
        (Carrier::Quic, Mode::Padded),
        (Carrier::Grpc, Mode::Padded),
        (Carrier::Grpc, Mode::Immediate),
    ] {
        let house = House::open().await;
        let udp_is_open = carrier == Carrier::Quic;
        let (alice, bob) = house.pair(udp_is_open, mode.into()).await;
        assert_eq!(alice.carrier().await, Some(carrier));
        assert_eq!(bob.carrier().await, Some(carrier));

        let (there, back) = (alice.talk(&bob, 0..60), bob.talk(&alice, 100..160));
        tokio::join!(there, back);
        let mut rooms = Vec::new();
        for number in 0..3 {
            let name = format!("acme/ops/room{number}");
            rooms.push(meet(&alice, &bob, &name).await);
        }
        let talks = rooms.iter().map(|(here, there)| talk(here, there, 0..10));
        join_all(talks).await;
        let mut inbox = bob.channel.messages();
        for size in [0, 1, 1_000, 16_000, 70_000, PAYLOAD_BYTES_MAX] {
            let payload: Vec<u8> = (0..size).map(|at| at.to_le_bytes()[0]).collect();
            alice.channel.send(payload.clone()).await.unwrap();
            let message = within(inbox.next()).await.unwrap().unwrap();
            assert!(message.payload() == payload, "{size}");
            message.ack().await.unwrap();
        }
        assert_eq!(alice.carrier().await, Some(carrier), "it was not changed");
        house.close([alice, bob]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_udp_a_line_is_there_soon_and_with_udp_again_it_returns_to_quic() {
    let house = House::open().await;
    let began = Instant::now();
    let (alice, bob) = house.pair(false, Traffic::from(Mode::Padded)).await;
    println!(
        "both agents were ready and in a channel after {:?}",
        began.elapsed()
    );
    for side in [&alice, &bob] {
        assert_eq!(side.carrier().await, Some(Carrier::Grpc));
    }
    alice.talk(&bob, 0..20).await;

    // While they talk on, UDP gets through.
    for side in [&alice, &bob] {
        side.wall.open.store(true, Ordering::Relaxed);
    }
    let began = Instant::now();
    let mut next = 20;
    while alice.carrier().await != Some(Carrier::Quic) || bob.carrier().await != Some(Carrier::Quic)
    {
        let (there, back) = (
            alice.talk(&bob, next..next + 5),
            bob.talk(&alice, next..next + 5),
        );
        tokio::join!(there, back);
        next += 5;
        assert!(began.elapsed() < 2 * PATIENCE, "it stays with gRPC");
    }
    println!("back on QUIC after {:?}, {next} messages", began.elapsed());
    alice.talk(&bob, 1_000_000..1_000_020).await;
    house.close([alice, bob]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_restarts_is_found_again_without_udp() {
    let mut house = House::open().await;
    let (alice, bob) = house.pair(false, Traffic::from(Mode::Padded)).await;
    alice.talk(&bob, 0..10).await;

    // Said while nobody listens, and delivered when somebody does.
    let sending = alice.channel.send("in between");
    let restarting = async {
        house.restart().await;
    };
    let (sent, ()) = tokio::join!(sending, restarting);
    sent.unwrap();
    let mut inbox = bob.channel.messages();
    let message = within(inbox.next()).await.unwrap().unwrap();
    assert_eq!(message.text().unwrap(), "in between");
    message.ack().await.unwrap();
    alice.talk(&bob, 10..20).await;
    bob.talk(&alice, 20..30).await;
    house.close([alice, bob]).await;
}

/// The key is pinned over gRPC as over QUIC: another relay at the same address is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_with_another_key_is_not_taken() {
    let house = House::open().await;
    let wall = Wall::before(house.relay().quic_addr()).await;
    let another = RelayAddr {
        key: RelayKey(*house.relay().key().as_bytes()),
        address: house.address(&wall),
    };
    // A valid key that is not the relay's: the agent's own identity will do.
    let stranger = house.agent("stranger", &another, Mode::Padded.into()).await;
    let wrong = RelayAddr {
        key: RelayKey(*stranger.id().as_bytes()),
        ..another
    };
    let alice = house.agent("alice", &wrong, Mode::Padded.into()).await;

    let online = timeout(Duration::from_secs(8), alice.online()).await;

    assert!(!matches!(online, Ok(Ok(()))), "{online:?}");
    let status = alice.status().await.unwrap();
    let states = status.relays.iter().map(|relay| relay.state);
    assert!(states.clone().all(|state| state != Some(LinkState::Ready)));
    for agent in [alice, stranger] {
        agent.close().await.unwrap();
    }
    house.stop().await;
}

/// A relay and an API server in this process.
struct House {
    relay: Option<Relay>,
    config: RelayConfig,
    api_url: String,
    api_key: String,
    dir: TempDir,
    _serving: DropGuard,
}

/// An agent behind a wall of its own, and its end of the channel.
struct Side {
    agent: Agent,
    channel: Channel,
    relay: RelayAddr,
    wall: Wall,
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
        // Agents reach it by their walls only: between addresses of two families there is no direct
        // way.
        config.quic_addr = (Ipv6Addr::LOCALHOST, 0).into();
        config.grpc_addr = Some((Ipv4Addr::LOCALHOST, 0).into());
        config.health_addr.set_port(0);
        let relay = Relay::start(config.clone()).await;
        let relay = relay.expect("this machine has an IPv6 loopback address");
        config.quic_addr = relay.quic_addr();
        config.grpc_addr = relay.grpc_addr();
        api.set_relays(vec![RelayAt {
            key: relay.key(),
            addresses: vec![relay.quic_addr().to_string()],
        }]);
        let api_url = format!("http://{}", api.addr());
        let local = api.bootstrap_local().await.unwrap().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(api.serve(stop.clone()));
        Self {
            relay: Some(relay),
            config,
            api_url,
            api_key: local.api_key.expose().to_owned(),
            dir,
            _serving: stop.drop_guard(),
        }
    }

    fn relay(&self) -> &Relay {
        self.relay.as_ref().expect("a restart gives it back")
    }

    /// Both doors as an agent behind this wall knows them.
    fn address(&self, wall: &Wall) -> String {
        let grpc = self.relay().grpc_addr().unwrap();
        format!("{}?grpc={grpc}", wall.addr)
    }

    /// In the same places, with what it had.
    async fn restart(&mut self) {
        self.relay.take().unwrap().stop().await;
        self.relay = Some(Relay::start(self.config.clone()).await.unwrap());
    }

    /// Alice and Bob in one channel.
    async fn pair(&self, udp_is_open: bool, traffic: Traffic) -> (Side, Side) {
        let mut sides = Vec::new();
        for name in ["alice", "bob"] {
            let wall = Wall::before(self.relay().quic_addr()).await;
            wall.open.store(udp_is_open, Ordering::Relaxed);
            let relay = RelayAddr {
                key: self.relay().key(),
                address: self.address(&wall),
            };
            sides.push((self.agent(name, &relay, traffic).await, relay, wall));
        }
        let (bob, for_bob, bobs_wall) = sides.pop().unwrap();
        let (alice, for_alice, alices_wall) = sides.pop().unwrap();
        let (here, there) = meet_by(&alice, &bob, "acme/ops/plan", &for_bob.address).await;
        let side = |agent, channel, relay, wall| Side {
            agent,
            channel,
            relay,
            wall,
        };
        (
            side(alice, here, for_alice, alices_wall),
            side(bob, there, for_bob, bobs_wall),
        )
    }

    async fn agent(&self, name: &str, relay: &RelayAddr, traffic: Traffic) -> Agent {
        Agent::builder(name)
            .data_dir(self.dir.path().join(name))
            .config_dir(self.dir.path().join("config"))
            .api_url(&self.api_url)
            .api_key(Secret::new(self.api_key.clone()))
            .relay(relay.clone())
            .traffic(traffic)
            .open()
            .await
            .unwrap()
    }

    async fn close(self, sides: [Side; 2]) {
        for side in sides {
            drop(side.channel);
            side.agent.close().await.unwrap();
        }
        self.stop().await;
    }

    async fn stop(mut self) {
        self.relay.take().unwrap().stop().await;
    }
}

impl Side {
    async fn talk(&self, to: &Self, numbers: std::ops::Range<u32>) {
        talk(&self.channel, &to.channel, numbers).await;
    }

    async fn carrier(&self) -> Option<Carrier> {
        let status = self.agent.status().await.unwrap();
        status.relays[0].carrier
    }
}

async fn meet(alice: &Side, bob: &Side, name: &str) -> (Channel, Channel) {
    meet_by(&alice.agent, &bob.agent, name, &bob.relay.address).await
}

/// A channel that both are in. Without the address the invite would lead Bob through the wall of Alice.
async fn meet_by(alice: &Agent, bob: &Agent, name: &str, address: &str) -> (Channel, Channel) {
    let here = alice.channel(name).await.unwrap();
    let options = InviteOptions {
        addresses: vec![address.to_owned()],
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

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it comes in time")
}

/// Stands between one agent and the relay, and lets UDP through or not.
struct Wall {
    addr: SocketAddr,
    open: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Wall {
    async fn before(relay: SocketAddr) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = front.local_addr().unwrap();
        let back = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
        let open = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(carry(front, back, relay, Arc::clone(&open)));
        Self { addr, open, task }
    }
}

impl Drop for Wall {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(front: UdpSocket, back: UdpSocket, relay: SocketAddr, open: Arc<AtomicBool>) {
    let mut client = None;
    let (mut out, mut home) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        // A datagram that the system does not take is one that was lost.
        tokio::select! {
            Ok((len, from)) = front.recv_from(&mut out) => {
                client = Some(from);
                if open.load(Ordering::Relaxed) {
                    let _ = back.send_to(&out[..len], relay).await;
                }
            }
            Ok((len, _)) = back.recv_from(&mut home) => {
                if let Some(client) = client && open.load(Ordering::Relaxed) {
                    let _ = front.send_to(&home[..len], client).await;
                }
            }
        }
    }
}
