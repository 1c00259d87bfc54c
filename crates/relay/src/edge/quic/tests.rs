//! A whole relay over loopback, and clients that speak QUIC to it, well and badly.

use ed25519_dalek::{Signer as _, SigningKey};
use iroh::EndpointAddr;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use skytale_shape::{
    Bulk, Micros, Mode, Shaper,
    bucket::MAX_CELL,
    pad::{Kind, seal_cell, seal_exact},
};
use skytale_wire::{
    frame::{
        self, Closing, Create, Credential, FRAME_BYTES_MAX, Hello, Line, PROTOCOL, Ping, Pong,
        Publish, Subscribe, ToAgent, ToRelay, Traffic, encode,
    },
    id::{AgentId, ChannelId, Epoch, MessageId, Seq, Signed, Time},
    refusal::Refusal,
    statement,
    token::{AccountId, Claims, Grant, LIFETIME_MS_MAX, Scope, Signer, TokenId},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{
    config::Issuer,
    driver::{Clock, Tally},
    edge::talk::{Streams, write},
    run::Relay,
};

const ISSUER: [u8; 32] = [9; 32];
const CHANNEL: ChannelId = ChannelId([5; 32]);
const PATIENCE: Duration = Duration::from_secs(20);

struct House {
    relay: Relay,
    _dir: tempfile::TempDir,
}

impl House {
    async fn open(change: impl FnOnce(&mut RelayConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = Signer::from_seed(&ISSUER).unwrap().public_keys();
        let mut config = RelayConfig::new(dir.path(), vec![Issuer::Keys(keys)]);
        config.quic_addr.set_port(0);
        config.health_addr.set_port(0);
        config.grpc_addr = None;
        change(&mut config);
        Self {
            relay: Relay::start(config).await.unwrap(),
            _dir: dir,
        }
    }

    async fn connect(&self) -> Client {
        let endpoint = client_endpoint().await;
        let connection = endpoint.connect(self.addr(), ALPN).await.unwrap();
        let (send, recv) = connection.open_bi().await.unwrap();
        Client {
            relay: self.relay.key(),
            identity: SigningKey::from_bytes(&[4; 32]),
            line: streams(&connection, send, recv),
            endpoint,
            connection,
        }
    }

    fn addr(&self) -> EndpointAddr {
        let id = iroh::EndpointId::from_bytes(&self.relay.key().0).unwrap();
        EndpointAddr::new(id).with_ip_addr(self.relay.quic_addr())
    }

    async fn get(&self, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.relay.health_addr())
            .await
            .unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: relay\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

/// A client made by hand: an SDK would not let it misbehave.
struct Client {
    relay: RelayKey,
    identity: SigningKey,
    line: Streams<QuicMouth, QuicEar>,
    endpoint: Endpoint,
    connection: Connection,
}

impl Client {
    async fn send(&mut self, frames: &[ToRelay]) {
        send_on(&mut self.line, frames).await;
    }

    async fn next(&mut self) -> ToAgent {
        next_on(&mut self.line).await
    }

    fn transport(&self) -> TransportKey {
        TransportKey(*self.endpoint.id().as_bytes())
    }

    fn agent(&self) -> AgentId {
        AgentId(self.identity.verifying_key().to_bytes())
    }

    fn claims(&self) -> Claims {
        let now = Time(Clock::system().now().0 / 1000 * 1000);
        Claims {
            account: AccountId([1; 16]),
            grant: Grant::Agent {
                relay: self.relay,
                agent: self.agent(),
                transport_key: self.transport(),
            },
            scopes: [Scope::Relay].into(),
            key: None,
            id: TokenId([2; 16]),
            issued: now,
            expires: now.plus(LIFETIME_MS_MAX),
        }
    }

    fn hello(&self, claims: &Claims) -> ToRelay {
        let token = Signer::from_seed(&ISSUER).unwrap().sign(claims);
        self.hello_with(Credential::Token(token))
    }

    fn hello_with(&self, credential: Credential) -> ToRelay {
        self.hello_wishing(credential, None)
    }

    fn hello_wishing(&self, credential: Credential, traffic: Option<Traffic>) -> ToRelay {
        let statement = statement::identity(&self.relay, &self.transport(), &credential.hash());
        ToRelay::Hello(Hello {
            version: PROTOCOL,
            agent: self.agent(),
            proof: Signed(self.identity.sign(&statement).to_bytes()),
            credential,
            traffic,
        })
    }

    /// Says Hello with a wish for both directions; gives the answer to it.
    async fn wish(&mut self, traffic: Traffic) -> ToAgent {
        let token = Signer::from_seed(&ISSUER).unwrap().sign(&self.claims());
        let hello = self.hello_wishing(Credential::Token(token), Some(traffic));
        self.send(&[hello]).await;
        self.next().await
    }

    /// The same, for what the relay is to grant; the line then has this shape.
    async fn get_shaped(&mut self, shape: Shape) {
        let ToAgent::Ready(ready) = self.wish(wish(&shape)).await else {
            panic!("such lines are let in")
        };
        assert_eq!(ready.traffic, Some(wish(&shape)));
        let (schedule, fill) = (ChaCha8Rng::seed_from_u64(5), ChaCha8Rng::seed_from_u64(6));
        self.line.outgoing = Shaper::new(shape, schedule, fill, Micros::new(0));
        self.line.incoming.expect_shape(&shape);
    }

    /// Lets the line's slots pass until everything is written: the relay does not ask how fast.
    async fn send_in_slots(&mut self, frames: &[ToRelay]) {
        let shaper = &mut self.line.outgoing;
        let mut cells = Vec::new();
        for frame in frames {
            shaper.push(&encode(frame), Bulk::Wait).unwrap();
        }
        while shaper.waiting() > 0 {
            shaper.advance(shaper.next_wake().unwrap(), &mut cells);
        }
        self.line.mouth.stream.write_all(&cells).await.unwrap();
    }

    async fn get_ready(&mut self) {
        let hello = self.hello(&self.claims());
        self.send(&[hello]).await;
        let ready = self.next().await;
        assert!(matches!(ready, ToAgent::Ready(_)), "{ready:?}");
    }

    /// What the relay's last word is, and that the close itself repeats it.
    async fn refusal(&mut self) -> Refusal {
        let closing = loop {
            if let ToAgent::Closing(closing) = self.next().await {
                break closing;
            }
        };
        let closed = timeout(PATIENCE, self.connection.closed());
        let closed = format!("{}", closed.await.unwrap());
        assert!(closed.contains(closing.refusal.code()), "{closed}");
        closing.refusal
    }
}

fn streams(
    connection: &Connection,
    send: SendStream,
    recv: RecvStream,
) -> Streams<QuicMouth, QuicEar> {
    let mouth = QuicMouth {
        stream: send,
        connection: connection.clone(),
        written: 0,
    };
    Streams::new(mouth, QuicEar(recv), MAX_CELL)
}

async fn client_endpoint() -> Endpoint {
    Endpoint::builder(presets::Minimal)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .unwrap()
        .bind()
        .await
        .unwrap()
}

async fn send_on(line: &mut Streams<QuicMouth, QuicEar>, frames: &[ToRelay]) {
    let frames: Vec<Bytes> = frames.iter().map(|frame| encode(frame).into()).collect();
    let tally = Tally::default();
    let written = write(
        &mut line.mouth,
        &mut line.outgoing,
        &mut Vec::new(),
        &frames,
        &tally,
    )
    .await;
    assert!(written.is_ok());
}

async fn next_on(line: &mut Streams<QuicMouth, QuicEar>) -> ToAgent {
    let next = async {
        loop {
            if let Some(bytes) = line.incoming.next_frame().unwrap() {
                return frame::decode(bytes, usize::MAX).unwrap();
            }
            let piece = line.ear.piece(65_536).await.unwrap();
            line.incoming.receive(&piece).unwrap();
        }
    };
    // Not for each piece: cover comes whether anything is said or not.
    timeout(PATIENCE, next)
        .await
        .expect("a frame comes in time")
}

fn wish(shape: &Shape) -> Traffic {
    let line = Line {
        mode: shape.mode().number(),
        millislots: shape.millislots(),
        cell: u32::try_from(shape.cell()).unwrap(),
        bank: shape.bank(),
        bulk_now: shape.bulk() == Bulk::Now,
    };
    Traffic {
        to_relay: line,
        to_agent: line,
    }
}

/// As fast as there is, so that tests need not wait.
fn fast(mode: Mode) -> Shape {
    Shape::new(mode).with_rate(32_000).unwrap()
}

fn id(number: u8) -> MessageId {
    MessageId([number; 16])
}

fn create() -> ToRelay {
    ToRelay::Create(Create {
        channel: CHANNEL,
        id: id(200),
    })
}

fn publish(number: u8) -> ToRelay {
    ToRelay::Publish(Publish {
        channel: CHANNEL,
        id: id(number),
        epoch: Epoch(0),
        body: vec![number; 3_000].into(),
        resumes: true,
    })
}

fn subscribe() -> ToRelay {
    ToRelay::Subscribe(Subscribe {
        channel: CHANNEL,
        id: id(201),
        after: Seq(0),
    })
}

fn ping(number: u8) -> ToRelay {
    ToRelay::Ping(Ping { id: id(number) })
}

#[tokio::test]
async fn an_agent_with_a_good_token_is_served() {
    let house = House::open(|_| {}).await;
    let mut alice = house.connect().await;

    alice.get_ready().await;
    alice.send(&[create(), publish(1), ping(2)]).await;

    // The ping waits for no disk.
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(alice.next().await);
    }
    let got = |wanted: fn(&ToAgent) -> bool| answers.iter().any(wanted);
    assert!(got(|it| matches!(it, ToAgent::Pong(_))), "{answers:?}");
    assert!(got(|it| matches!(it, ToAgent::Created(_))), "{answers:?}");
    assert!(got(|it| matches!(it, ToAgent::Published(_))), "{answers:?}");
    house.relay.stop().await;
}

#[tokio::test]
async fn what_is_read_from_the_archive_takes_the_second_stream() {
    let house = House::open(|_| {}).await;
    let mut alice = house.connect().await;
    alice.get_ready().await;
    alice.send(&[create()]).await;
    let (send, recv) = alice.connection.open_bi().await.unwrap();
    let mut second = streams(&alice.connection, send, recv);
    send_on(&mut second, &[ping(250)]).await;
    let mut pong = false;
    let mut published = 0;
    for number in 1..=20 {
        alice.send(&[publish(number)]).await;
    }
    while !pong || published < 20 {
        let answer = alice.next().await;
        published += u32::from(matches!(answer, ToAgent::Published(_)));
        pong |= matches!(answer, ToAgent::Pong(pong) if pong.id == id(250));
    }

    alice.send(&[subscribe()]).await;

    let answer = next_on(&mut second).await;
    assert!(matches!(answer, ToAgent::Subscribed(_)), "{answer:?}");
    for seq in 1..=20 {
        let ToAgent::Deliver(deliver) = next_on(&mut second).await else {
            panic!("only records come here")
        };
        assert_eq!(deliver.seq, Seq(seq));
    }
    house.relay.stop().await;
}

#[tokio::test]
async fn a_token_of_another_relay_key_time_or_algorithm_is_refused_by_name() {
    let house = House::open(|_| {}).await;
    let mut client = house.connect().await;
    let good = client.claims();
    let grant = |relay, transport_key| Claims {
        grant: Grant::Agent {
            relay,
            agent: client.agent(),
            transport_key,
        },
        ..good.clone()
    };
    let expired = Claims {
        issued: Time(good.issued.0 - 2 * LIFETIME_MS_MAX),
        expires: Time(good.expires.0 - 2 * LIFETIME_MS_MAX),
        ..good.clone()
    };
    let hello = client.hello(&grant(RelayKey([1; 32]), client.transport()));
    client.send(&[hello]).await;
    assert_eq!(client.refusal().await, Refusal::TokenForAnotherRelay);

    let mut client = house.connect().await;
    let hello = client.hello(&good);
    client.send(&[hello]).await;
    assert_eq!(
        client.refusal().await,
        Refusal::TokenForAnotherKey,
        "a stolen token is useless on another connection"
    );

    let mut client = house.connect().await;
    let expired = Claims {
        grant: client.claims().grant,
        ..expired
    };
    let hello = client.hello(&expired);
    client.send(&[hello]).await;
    assert_eq!(client.refusal().await, Refusal::TokenExpired);

    // {"typ":"JWT","alg":"none"}.{}. and nothing
    let mut client = house.connect().await;
    let unsigned = Credential::Token("eyJ0eXAiOiJKV1QiLCJhbGciOiJub25lIn0.e30.".into());
    let hello = client.hello_with(unsigned);
    client.send(&[hello]).await;
    assert_eq!(client.refusal().await, Refusal::TokenInvalid);
    house.relay.stop().await;
}

#[tokio::test]
async fn the_first_frame_is_a_hello() {
    let house = House::open(|_| {}).await;
    let mut client = house.connect().await;

    client.send(&[ping(1)]).await;

    assert_eq!(client.refusal().await, Refusal::HelloExpected);
    house.relay.stop().await;
}

#[tokio::test]
async fn garbage_closes_the_connection_by_name_before_and_after_hello() {
    let house = House::open(|_| {}).await;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut cell = |kind, payload: &[u8]| {
        let mut cell = Vec::new();
        seal_cell(kind, payload, &mut rng, &mut cell).unwrap();
        cell
    };
    let cut_frame = cell(Kind::Frame, &[0, 0, 1, 0, 7]);
    let not_cbor = cell(Kind::Frame, &[0, 0, 0, 3, 0xFF, 0xFF, 0xFF]);
    let empty = cell(Kind::Frame, &[]);
    let no_kind = vec![0; 256];
    for garbage in [&cut_frame, &not_cbor, &empty, &no_kind] {
        for ready in [false, true] {
            let mut client = house.connect().await;
            if ready {
                client.get_ready().await;
            }
            client.line.mouth.stream.write_all(garbage).await.unwrap();
            assert_eq!(client.refusal().await, Refusal::Malformed, "{ready}");
        }
    }
    // And on the second stream.
    let mut client = house.connect().await;
    client.get_ready().await;
    let (mut send, _recv) = client.connection.open_bi().await.unwrap();
    send.write_all(&not_cbor).await.unwrap();
    assert_eq!(client.refusal().await, Refusal::Malformed);

    let mut client = house.connect().await;
    client.get_ready().await;
    house.relay.stop().await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_by_its_header() {
    let house = House::open(|_| {}).await;
    // Announces more than a cell may have, and sends nothing of it.
    let announced = u32::MAX.to_be_bytes();
    let header: Vec<u8> = [&[0; 4], &announced[..], &[1]].concat();
    for ready in [false, true] {
        let mut client = house.connect().await;
        if ready {
            client.get_ready().await;
        }
        client.line.mouth.stream.write_all(&header).await.unwrap();
        assert_eq!(client.refusal().await, Refusal::TooLarge, "{ready}");
    }
    // A stranger's cell is small, whatever a member may send.
    let mut client = house.connect().await;
    let header: Vec<u8> = [&[0; 4], &20_000_u32.to_be_bytes()[..], &[1]].concat();
    client.line.mouth.stream.write_all(&header).await.unwrap();
    assert_eq!(client.refusal().await, Refusal::TooLarge);
    // A frame over the limit, in a cell that is not.
    let mut client = house.connect().await;
    client.get_ready().await;
    let mut cell = Vec::new();
    let len = u32::try_from(FRAME_BYTES_MAX + 1).unwrap();
    let payload = [&len.to_be_bytes()[..], &vec![0; FRAME_BYTES_MAX + 1]].concat();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    seal_cell(Kind::Frame, &payload, &mut rng, &mut cell).unwrap();
    // The relay may close before it has all of it.
    let _ = client.line.mouth.stream.write_all(&cell).await;
    assert_eq!(client.refusal().await, Refusal::TooLarge);
    house.relay.stop().await;
}

#[tokio::test]
async fn who_says_nothing_is_closed() {
    let house = House::open(|config| config.hello_ms_max = 200).await;
    let endpoint = client_endpoint().await;
    let connection = endpoint.connect(house.addr(), ALPN).await.unwrap();

    let closed = timeout(PATIENCE, connection.closed()).await;

    let closed = closed.unwrap().to_string();
    assert!(closed.contains("hello_timeout"), "{closed}");
    house.relay.stop().await;
}

#[tokio::test]
async fn an_address_holds_only_so_many_connections() {
    let house = House::open(|config| config.connections_per_ip_max = 2).await;
    let mut first = house.connect().await;
    first.get_ready().await;
    let second = house.connect().await;

    let third = client_endpoint().await;
    assert!(third.connect(house.addr(), ALPN).await.is_err());

    // One goes, and there is room again.
    second.connection.close(0_u32.into(), b"");
    second.endpoint.close().await;
    let room = async {
        loop {
            let endpoint = client_endpoint().await;
            if endpoint.connect(house.addr(), ALPN).await.is_ok() {
                return;
            }
        }
    };
    timeout(PATIENCE, room).await.unwrap();
    house.relay.stop().await;
}

#[tokio::test]
async fn a_stopping_relay_tells_agents_to_resume_and_operators_that_it_drains() {
    let house = House::open(|_| {}).await;
    let mut alice = house.connect().await;
    alice.get_ready().await;
    assert!(house.get("/livez").await.starts_with("HTTP/1.1 200"));
    let ready = house.get("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(ready.contains("\"archive\":true"), "{ready}");
    let metrics = house.get("/metrics").await;
    assert!(metrics.contains("skytale_relay_connections 1"), "{metrics}");

    let stopping = tokio::spawn(house.relay.stop());

    let last = alice.next().await;
    let goodbye = Closing {
        refusal: Refusal::ShuttingDown,
        resume: true,
    };
    assert_eq!(last, ToAgent::Closing(goodbye));
    timeout(PATIENCE, stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_restarted_relay_is_the_same_relay() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Signer::from_seed(&ISSUER).unwrap().public_keys();
    let mut config = RelayConfig::new(dir.path(), vec![Issuer::Keys(keys)]);
    config.quic_addr.set_port(0);
    config.health_addr.set_port(0);
    config.grpc_addr = None;

    let first = Relay::start(config.clone()).await.unwrap();
    let key = first.key();
    let second = Relay::start(config.clone()).await;
    assert!(second.is_err(), "two relays never share an archive");
    first.stop().await;
    let again = Relay::start(config).await.unwrap();

    assert_eq!(again.key(), key);
    again.stop().await;
}

#[tokio::test]
async fn on_a_line_with_slots_everything_comes_on_one_stream_in_cells_of_one_size() {
    let house = House::open(|_| {}).await;
    for mode in [Mode::Adaptive, Mode::Constant] {
        let mut alice = house.connect().await;
        alice.identity = SigningKey::from_bytes(&[mode as u8; 32]);
        alice.get_shaped(fast(mode)).await;
        let Ok((mut second, _recv)) = alice.connection.open_bi().await else {
            panic!("a stream more does no harm")
        };
        second.write_all(b"whatever").await.unwrap();
        let channel = ChannelId([mode as u8; 32]);
        let create = ToRelay::Create(Create {
            channel,
            id: id(200),
        });
        let publish = ToRelay::Publish(Publish {
            channel,
            id: id(1),
            epoch: Epoch(0),
            body: vec![1; 3_000].into(),
            resumes: true,
        });

        alice.send_in_slots(&[create, publish, ping(2)]).await;

        let mut answers = Vec::new();
        for _ in 0..3 {
            // The line refuses every cell of another size.
            answers.push(alice.next().await);
        }
        let got = |wanted: fn(&ToAgent) -> bool| answers.iter().any(wanted);
        assert!(got(|it| matches!(it, ToAgent::Pong(_))), "{answers:?}");
        assert!(got(|it| matches!(it, ToAgent::Published(_))), "{answers:?}");
        let subscribe = ToRelay::Subscribe(Subscribe {
            channel,
            id: id(201),
            after: Seq(0),
        });
        alice.send_in_slots(&[subscribe]).await;
        let mut delivered = false;
        while !delivered {
            delivered = matches!(alice.next().await, ToAgent::Deliver(_));
        }
        assert_eq!(alice.line.incoming.cover().missing(), 0);
    }
    let metrics = house.get("/metrics").await;
    assert!(
        !metrics.contains("skytale_relay_real_cells_total 0\n"),
        "{metrics}"
    );
    assert!(metrics.contains("skytale_relay_cells_over_schedule_total 0\n"));
    house.relay.stop().await;
}

#[tokio::test]
async fn a_broken_cell_closes_a_line_with_slots_by_name() {
    let house = House::open(|_| {}).await;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    // Small cells, enough of them to make a large one, whose rest is then no cell's beginning.
    let mut of_another_size = Vec::new();
    for _ in 0..10 {
        let whole = [0, 0, 0, 1, 7];
        seal_cell(Kind::Frame, &whole, &mut rng, &mut of_another_size).unwrap();
    }
    let mut backwards = Vec::new();
    for counter in [5_u64, 4] {
        let cover = counter.to_be_bytes();
        seal_exact(Kind::Cover, &cover, 1_056, &mut rng, &mut backwards).unwrap();
    }
    for garbage in [of_another_size, backwards, vec![0; 1_056]] {
        let mut client = house.connect().await;
        client.get_shaped(fast(Mode::Constant)).await;

        client.line.mouth.stream.write_all(&garbage).await.unwrap();

        assert_eq!(client.refusal().await, Refusal::Malformed);
    }
    // Cover that was taken out is counted: it is not the agent who did it.
    let mut client = house.connect().await;
    client.get_shaped(fast(Mode::Constant)).await;
    let mut later = Vec::new();
    seal_exact(
        Kind::Cover,
        &9_u64.to_be_bytes(),
        1_056,
        &mut rng,
        &mut later,
    )
    .unwrap();
    client.line.mouth.stream.write_all(&later).await.unwrap();
    client.send_in_slots(&[ping(1)]).await;
    assert_eq!(client.next().await, ToAgent::Pong(Pong { id: id(1) }));
    let metrics = house.get("/metrics").await;
    // Nine here, and five before the numbers went back.
    assert!(
        metrics.contains("skytale_relay_cover_missing_total 14\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("skytale_relay_line_breaches_total 3\n"),
        "{metrics}"
    );
    house.relay.stop().await;
}

#[tokio::test]
async fn a_wish_that_makes_no_sense_is_refused_and_the_operators_rules_are_stricter() {
    let strict = |config: &mut RelayConfig| {
        config.traffic.at_least = "constant".to_owned().try_into().unwrap();
        config.traffic.millislots_max = 20_000;
    };
    let house = House::open(strict).await;
    let mut senseless = wish(&fast(Mode::Adaptive));
    senseless.to_agent.cell = 7;
    let mut client = house.connect().await;
    let hello = client.hello_wishing(Credential::Member, Some(senseless));
    client.send(&[hello]).await;
    assert_eq!(client.refusal().await, Refusal::ShapeSenseless);

    let mut silent = house.connect().await;
    let hello = silent.hello(&silent.claims());
    silent.send(&[hello]).await;
    assert_eq!(silent.refusal().await, Refusal::ShapeRequired);

    let mut client = house.connect().await;
    let ToAgent::Ready(ready) = client.wish(wish(&fast(Mode::Padded))).await else {
        panic!("a wish is answered")
    };
    let floor = Shape::new(Mode::Constant);
    assert_eq!(ready.traffic, Some(wish(&floor)));
    let mut faster = house.connect().await;
    let ToAgent::Ready(ready) = faster.wish(wish(&fast(Mode::Constant))).await else {
        panic!("a wish is answered")
    };
    let slowed = floor.with_rate(20_000).unwrap();
    assert_eq!(ready.traffic, Some(wish(&slowed)));
    house.relay.stop().await;
}
