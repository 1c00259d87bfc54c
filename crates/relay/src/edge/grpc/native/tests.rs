//! A whole relay over loopback, and clients that open lines by gRPC, well and badly.

use bytes::BytesMut;
use ed25519_dalek::{Signer as _, SigningKey};
use futures_util::StreamExt as _;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use skytale_shape::{
    Incoming, Micros, Mode, Shaper,
    bucket::MAX_CELL,
    pad::{Kind, seal_cell},
};
use skytale_tunnel::{Guest, Refused, piece::METHOD};
use skytale_wire::{
    frame::{
        self, Credential, Hello, Line, PROTOCOL, Ping, Pong, ToAgent, ToRelay, Traffic, encode,
    },
    id::{AgentId, MessageId, RelayKey, Signed, Time},
    statement,
    token::{AccountId, Claims, Grant, LIFETIME_MS_MAX, Scope, Signer, TokenId},
};

use super::*;
use crate::{
    config::Issuer,
    driver::{Clock, Tally},
    edge::talk::{Streams, write},
    run::Relay,
};

const ISSUER: [u8; 32] = [9; 32];
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
        config.grpc_addr = Some(([127, 0, 0, 1], 0).into());
        change(&mut config);
        Self {
            relay: Relay::start(config).await.unwrap(),
            _dir: dir,
        }
    }

    fn addr(&self) -> String {
        self.relay.grpc_addr().unwrap().to_string()
    }

    async fn connect(&self) -> Client {
        self.connect_as([4; 32]).await
    }

    async fn connect_as(&self, identity: [u8; 32]) -> Client {
        let own = OwnKey::from_seed(&[8; 32]);
        let guest = Guest::new(self.relay.key(), &own);
        let inside = guest.open(&self.addr(), false).await.unwrap();
        let (read, write) = split(inside);
        let mouth = TunnelMouth {
            half: write,
            written: CancellationToken::new(),
        };
        Client {
            relay: self.relay.key(),
            transport: TransportKey(own.public()),
            identity: SigningKey::from_bytes(&identity),
            line: Streams::new(mouth, TunnelEar(read), MAX_CELL),
        }
    }

    /// A stream in which nothing of ours speaks, and what came back when it had ended.
    async fn say(&self, pieces: Vec<Bytes>) -> Vec<Bytes> {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", self.addr()));
        let channel = endpoint.unwrap().connect().await.unwrap();
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.unwrap();
        // It stays open, so that it is the relay that ends it.
        let out = stream::iter(pieces).chain(stream::pending());
        let answer = grpc
            .streaming(tonic::Request::new(out), METHOD.parse().unwrap(), Pieces)
            .await;
        let incoming = answer.unwrap().into_inner();
        let back = incoming.filter_map(|piece| std::future::ready(piece.ok()));
        timeout(PATIENCE, back.collect()).await.unwrap()
    }

    async fn metrics(&self) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.relay.health_addr())
            .await
            .unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

/// A client made by hand: an SDK would not let it misbehave.
struct Client {
    relay: RelayKey,
    transport: TransportKey,
    identity: SigningKey,
    line: Streams<TunnelMouth, TunnelEar>,
}

impl Client {
    async fn send(&mut self, frames: &[ToRelay]) {
        let frames: Vec<Bytes> = frames.iter().map(|frame| encode(frame).into()).collect();
        let (mouth, outgoing) = (&mut self.line.mouth, &mut self.line.outgoing);
        let written = write(mouth, outgoing, &mut Vec::new(), &frames, &Tally::default()).await;
        assert!(written.is_ok());
    }

    async fn next(&mut self) -> Option<ToAgent> {
        let next = async {
            loop {
                if let Some(bytes) = self.line.incoming.next_frame().unwrap() {
                    return Some(frame::decode(bytes, usize::MAX).unwrap());
                }
                let piece = self.line.ear.piece(65_536).await?;
                self.line.incoming.receive(&piece).unwrap();
            }
        };
        timeout(PATIENCE, next).await.expect("it comes in time")
    }

    /// The relay's last word, and that the stream ends with it.
    async fn refusal(&mut self) -> Refusal {
        let closing = loop {
            if let ToAgent::Closing(closing) = self.next().await.expect("a last word") {
                break closing;
            }
        };
        assert_eq!(self.next().await, None);
        closing.refusal
    }

    fn hello_for(&self, transport: TransportKey, traffic: Option<Traffic>) -> ToRelay {
        let agent = AgentId(self.identity.verifying_key().to_bytes());
        let now = Time(Clock::system().now().0 / 1000 * 1000);
        let claims = Claims {
            account: AccountId([1; 16]),
            grant: Grant::Agent {
                relay: self.relay,
                agent,
                transport_key: transport,
            },
            scopes: [Scope::Relay].into(),
            key: None,
            id: TokenId([2; 16]),
            issued: now,
            expires: now.plus(LIFETIME_MS_MAX),
        };
        let token = Signer::from_seed(&ISSUER).unwrap().sign(&claims);
        let credential = Credential::Token(token);
        let statement = statement::identity(&self.relay, &self.transport, &credential.hash());
        ToRelay::Hello(Hello {
            version: PROTOCOL,
            agent,
            proof: Signed(self.identity.sign(&statement).to_bytes()),
            credential,
            traffic,
        })
    }

    async fn get_ready(&mut self, traffic: Option<Traffic>) {
        let hello = self.hello_for(self.transport, traffic);
        self.send(&[hello]).await;
        let ready = self.next().await;
        assert!(matches!(ready, Some(ToAgent::Ready(_))), "{ready:?}");
    }
}

fn ping(number: u8) -> ToRelay {
    ToRelay::Ping(Ping {
        id: MessageId([number; 16]),
    })
}

#[tokio::test]
async fn an_agent_with_a_good_token_is_served() {
    let house = House::open(|_| {}).await;
    let mut alice = house.connect().await;

    alice.get_ready(None).await;
    alice.send(&[ping(1)]).await;

    let id = MessageId([1; 16]);
    assert_eq!(alice.next().await, Some(ToAgent::Pong(Pong { id })));
    let metrics = house.metrics().await;
    assert!(metrics.contains("skytale_relay_connections 1"), "{metrics}");
    house.relay.stop().await;
}

#[tokio::test]
async fn a_stolen_token_is_useless_with_another_transport_key() {
    let house = House::open(|_| {}).await;
    let mut client = house.connect().await;

    let hello = client.hello_for(TransportKey([7; 32]), None);
    client.send(&[hello]).await;

    assert_eq!(client.refusal().await, Refusal::TokenForAnotherKey);
    house.relay.stop().await;
}

#[tokio::test]
async fn who_has_not_the_relays_key_is_not_talked_to() {
    let house = House::open(|_| {}).await;
    let guest = Guest::new(RelayKey([1; 32]), &OwnKey::from_seed(&[8; 32]));

    let opened = guest.open(&house.addr(), false).await;

    assert_eq!(opened.err(), Some(Refused::NotTheRelay));
    // What speaks no gRPC, and what speaks nothing.
    let guest = Guest::new(house.relay.key(), &OwnKey::from_seed(&[8; 32]));
    let health = house.relay.health_addr().to_string();
    let opened = timeout(PATIENCE, guest.open(&health, false)).await;
    assert!(matches!(opened, Ok(Err(_))), "{opened:?}");
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let opened = timeout(PATIENCE, guest.open(&nobody, false)).await.unwrap();
    assert!(matches!(opened, Err(Refused::Unreachable(_))), "{opened:?}");
    house.relay.stop().await;
}

#[tokio::test]
async fn garbage_in_the_stream_ends_it_and_harms_nobody_else() {
    let house = House::open(|config| config.hello_ms_max = 500).await;
    let mut alice = house.connect().await;
    alice.get_ready(None).await;

    let long = Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1]);
    for garbage in [
        vec![Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n")],
        vec![Bytes::from(vec![0x16, 3, 1, 0x40, 1])],
        vec![long],
        vec![Bytes::new(); 1_000],
        // Nothing at all.
        vec![],
    ] {
        let back: usize = house.say(garbage).await.iter().map(Bytes::len).sum();
        assert!(back < 100, "at most an alert comes back: {back} bytes");
    }

    alice.send(&[ping(2)]).await;
    assert!(matches!(alice.next().await, Some(ToAgent::Pong(_))));
    house.relay.stop().await;
}

#[tokio::test]
async fn garbage_inside_closes_the_line_by_name() {
    let house = House::open(|_| {}).await;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut not_cbor = Vec::new();
    let payload = [0, 0, 0, 3, 0xFF, 0xFF, 0xFF];
    seal_cell(Kind::Frame, &payload, &mut rng, &mut not_cbor).unwrap();
    let too_large: Vec<u8> = [&[0; 4], &u32::MAX.to_be_bytes()[..], &[1]].concat();
    for (garbage, refusal) in [
        (not_cbor, Refusal::Malformed),
        (vec![0; 256], Refusal::Malformed),
        (too_large, Refusal::TooLarge),
    ] {
        for ready in [false, true] {
            let mut client = house.connect().await;
            if ready {
                client.get_ready(None).await;
            }
            client.line.mouth.half.write_all(&garbage).await.unwrap();
            assert_eq!(client.refusal().await, refusal, "{ready}");
        }
    }
    let mut early = house.connect().await;
    early.send(&[ping(1)]).await;
    assert_eq!(early.refusal().await, Refusal::HelloExpected);
    house.relay.stop().await;
}

#[tokio::test]
async fn who_shakes_hands_and_says_nothing_is_let_go() {
    let house = House::open(|config| config.hello_ms_max = 300).await;
    let mut silent = house.connect().await;

    assert_eq!(silent.next().await, None);

    house.relay.stop().await;
}

#[tokio::test]
async fn a_line_with_slots_has_one_cell_in_each_record() {
    let house = House::open(|_| {}).await;
    let mut alice = house.connect().await;
    let shape = Shape::new(Mode::Constant).with_rate(32_000).unwrap();
    let line = Line {
        mode: shape.mode().number(),
        millislots: shape.millislots(),
        cell: u32::try_from(shape.cell()).unwrap(),
        bank: shape.bank(),
        bulk_now: false,
    };
    let traffic = Traffic {
        to_relay: line,
        to_agent: line,
    };
    alice.get_ready(Some(traffic)).await;
    let rng = ChaCha8Rng::seed_from_u64;
    alice.line.outgoing = Shaper::new(shape, rng(5), rng(6), Micros::new(0));
    alice.line.incoming = Incoming::new(MAX_CELL);
    alice.line.incoming.expect_shape(&shape);

    let mut answered = false;
    let mut cells = Vec::new();
    let said = encode(&ping(3));
    alice
        .line
        .outgoing
        .push(&said, skytale_shape::Bulk::Wait)
        .unwrap();
    let at = alice.line.outgoing.next_wake().unwrap();
    alice.line.outgoing.advance(at, &mut cells);
    alice.line.mouth.half.write_all(&cells).await.unwrap();
    for _ in 0..20 {
        // A read gives one record's bytes: what stands behind it waits for the next.
        let mut record = BytesMut::with_capacity(65_536);
        let reading = alice.line.ear.0.read_buf(&mut record);
        timeout(PATIENCE, reading).await.unwrap().unwrap();
        assert_eq!(record.len() % shape.cell(), 0, "cells are not cut");
        alice.line.incoming.receive(&record).unwrap();
        while let Some(bytes) = alice.line.incoming.next_frame().unwrap() {
            let frame: ToAgent = frame::decode(bytes, usize::MAX).unwrap();
            answered |= matches!(frame, ToAgent::Pong(_));
        }
    }

    assert!(answered);
    house.relay.stop().await;
}

#[tokio::test]
async fn a_stopping_relay_says_so_and_streams_end() {
    let house = House::open(|_| {}).await;
    let mut alice = house.connect().await;
    alice.get_ready(None).await;
    let mut bob = house.connect_as([5; 32]).await;
    bob.get_ready(None).await;

    let stopping = tokio::spawn(house.relay.stop());

    for client in [&mut alice, &mut bob] {
        assert_eq!(client.refusal().await, Refusal::ShuttingDown);
    }
    timeout(PATIENCE, stopping).await.unwrap().unwrap();
}
