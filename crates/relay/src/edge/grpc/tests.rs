//! A real relay on loopback, and clients that speak the wire by hand: stock ones would not misbehave.

use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use skytale_slim::{
    Dial, Draft, Generation, Header, Inbound, Instance, Link, MESSAGE_BYTES_MAX, MessageType, Name,
    Opening, Routed, Said, Session, SessionKind, SubscriptionId,
    proto::{OPEN_CHANNEL, one, two},
};
use skytale_wire::{
    id::Time,
    token::{AccountId, Claims, Grant, Scope, Signer, SlimPatterns, TokenId},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};
use tonic::{
    Code, Request, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};

use super::*;
use crate::{config::Issuer, driver::Clock, run::Relay};

mod connections;
mod leaving;
mod services;
mod streams;
mod tls;

const ISSUER: [u8; 32] = [9; 32];
const PATIENCE: Duration = Duration::from_secs(20);

struct House {
    relay: Relay,
    _dir: tempfile::TempDir,
}

impl House {
    /// A relay that asks for no token.
    async fn open() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut RelayConfig)) -> Self {
        let (dir, mut config) = settings();
        change(&mut config);
        Self {
            relay: Relay::start(config).await.unwrap(),
            _dir: dir,
        }
    }

    fn addr(&self) -> SocketAddr {
        self.relay.grpc_addr().unwrap()
    }

    async fn channel(&self) -> Channel {
        channel(self.addr()).await
    }

    async fn client(&self, generation: Generation, name: &str) -> Client {
        Client::dial(self.channel().await, generation, name).await
    }

    async fn metric(&self, name: &str) -> u64 {
        let page = get(self.relay.health_addr(), "/metrics").await;
        let line = page
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name}: {page}"))
            .rsplit_once(' ')
            .unwrap()
            .1
            .parse()
            .unwrap()
    }

    fn token(&self, patterns: &[&str], expires: Time) -> String {
        let patterns: Vec<String> = patterns.iter().map(|it| (*it).to_owned()).collect();
        let claims = Claims {
            account: AccountId([1; 16]),
            grant: Grant::Slim {
                relay: self.relay.key(),
                patterns: SlimPatterns::parse(&patterns).unwrap(),
            },
            scopes: [Scope::Slim].into(),
            key: None,
            id: TokenId([2; 16]),
            issued: now(),
            expires,
        };
        Signer::from_seed(&ISSUER).unwrap().sign(&claims)
    }
}

/// A door alone, over the driver of a relay that has none: for times that no operator sets.
struct Bare {
    house: House,
    edge: GrpcEdge,
    state: Arc<GrpcState>,
}

impl Bare {
    async fn open(
        change: impl FnOnce(&mut RelayConfig),
        issuers: impl FnOnce(&RelayConfig) -> Vec<Issuer>,
        times: impl FnOnce(&mut Times),
    ) -> Self {
        let house = House::with(|config| config.grpc_addr = None).await;
        let (_dir, mut config) = settings();
        change(&mut config);
        let gate = Gate::new(house.relay.key(), &issuers(&config), Clock::system()).unwrap();
        let state = Arc::<GrpcState>::default();
        let parts = GrpcParts {
            addr: config.grpc_addr.unwrap(),
            watched: Watched {
                door: house.relay.door(),
                gate,
                grpc: Some(Arc::clone(&state)),
                draining: CancellationToken::new(),
            },
            state: Arc::clone(&state),
            secret: SecretKey::from_bytes(&[3; 32]),
        };
        let mut its_times = Times::new(&config);
        times(&mut its_times);
        let edge = GrpcEdge::open_with(&config, parts, its_times)
            .await
            .unwrap();
        Self { house, edge, state }
    }

    async fn stop(self) {
        self.house.relay.stop().await;
        self.edge.finish(PATIENCE).await;
    }
}

/// Everything on a free port, open to all.
fn settings() -> (tempfile::TempDir, RelayConfig) {
    let dir = tempfile::tempdir().unwrap();
    let keys = Signer::from_seed(&ISSUER).unwrap().public_keys();
    let mut config = RelayConfig::new(dir.path(), vec![Issuer::Keys(keys)]);
    config.quic_addr.set_port(0);
    config.health_addr.set_port(0);
    config.grpc_addr = Some("127.0.0.1:0".parse().unwrap());
    config.danger_slim_open = true;
    (dir, config)
}

/// In whole seconds, as tokens have it.
fn now() -> Time {
    Time(Clock::system().now().0 / 1000 * 1000)
}

async fn channel(addr: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap();
    endpoint.connect().await.unwrap()
}

async fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: relay\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// One stream, before anything is negotiated on it.
struct Stream {
    tell: mpsc::Sender<Bytes>,
    hear: Streaming<Bytes>,
}

impl Stream {
    /// Awaits the answer's headers before it says anything, as SLIM's clients do.
    async fn open(channel: Channel, authorization: Option<&str>) -> Result<Self, Status> {
        let (tell, said) = mpsc::channel::<Bytes>(16);
        let said = stream_of(said);
        let mut request = Request::new(said);
        if let Some(authorization) = authorization {
            let value = authorization.parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.unwrap();
        let path = axum::http::uri::PathAndQuery::from_static(OPEN_CHANNEL);
        let answer = timeout(PATIENCE, grpc.streaming(request, path, Raw)).await;
        Ok(Self {
            tell,
            hear: answer.expect("headers come at once")?.into_inner(),
        })
    }

    /// The same over a channel that may not come to stand.
    async fn open_if_it_can(channel: Channel) -> Result<(), Status> {
        let mut grpc = tonic::client::Grpc::new(channel);
        let lost = |error: tonic::transport::Error| Status::unavailable(error.to_string());
        grpc.ready().await.map_err(lost)?;
        let path = axum::http::uri::PathAndQuery::from_static(OPEN_CHANNEL);
        let none = futures_util::stream::pending::<Bytes>();
        grpc.streaming(Request::new(none), path, Raw)
            .await
            .map(drop)
    }

    async fn say(&self, bytes: impl Into<Bytes>) {
        self.tell.send(bytes.into()).await.unwrap();
    }

    /// `None` at a clean end.
    async fn hear(&mut self) -> Result<Option<Bytes>, Status> {
        timeout(PATIENCE, self.hear.message())
            .await
            .expect("something comes in time")
    }

    /// Negotiates with a version of the second generation.
    async fn negotiate(&mut self) -> Link {
        let (request, dial) = Dial::begin("a link", "test", false, &mut chance());
        self.say(request).await;
        dial.finish(self.hear().await.unwrap().unwrap()).unwrap()
    }
}

fn stream_of(said: mpsc::Receiver<Bytes>) -> impl futures_util::Stream<Item = Bytes> {
    futures_util::stream::unfold(said, |mut said| async {
        let next = said.recv().await?;
        Some((next, said))
    })
}

/// A link that stands, and the name that its client has.
struct Client {
    stream: Stream,
    link: Link,
    name: Name,
    said: u32,
}

impl Client {
    /// Negotiates, and is subscribed to its own name.
    async fn dial(channel: Channel, generation: Generation, name: &str) -> Self {
        let stream = Stream::open(channel, None).await.unwrap();
        let mut client = Self::on(stream, generation, name).await;
        assert_eq!(client.subscribe(name, 1).await, Ok(()));
        client
    }

    async fn on(mut stream: Stream, generation: Generation, name: &str) -> Self {
        let link = match generation {
            Generation::One => {
                let request = link_message("1.4.0");
                stream.say(request).await;
                let reply = stream.hear().await.unwrap().unwrap();
                let link = link_of_one();
                assert!(matches!(link.read(reply), Ok(Inbound::Link(_))));
                link
            }
            Generation::Two => stream.negotiate().await,
        };
        let name = Name::parse(name).unwrap().at(Instance::Only(7));
        Self {
            stream,
            link,
            name,
            said: 0,
        }
    }

    async fn subscribe(&mut self, to: &str, id: u64) -> Result<(), String> {
        let bytes = self.subscription(to, id);
        self.stream.say(bytes).await;
        loop {
            let heard = self.hear().await;
            if let Inbound::SubscriptionAck {
                subscription,
                result,
            } = heard
            {
                assert_eq!(subscription, SubscriptionId(id));
                return result;
            }
        }
    }

    fn subscription(&self, to: &str, id: u64) -> Vec<u8> {
        let to = Name::parse(to).unwrap().at(Instance::Only(7));
        self.signed(&subscription(self.link.generation(), &self.name, &to, id))
    }

    async fn publish(&mut self, to: &str, blob: impl Into<Bytes>) {
        let bytes = self.publication(to, blob);
        self.stream.say(bytes).await;
    }

    fn publication(&mut self, to: &str, blob: impl Into<Bytes>) -> Vec<u8> {
        self.said += 1;
        let to = Name::parse(to).unwrap().at(Instance::Only(7));
        let generation = self.link.generation();
        self.signed(&message(
            generation,
            &self.name,
            &to,
            self.said,
            blob.into(),
        ))
    }

    fn signed(&self, message: &Routed) -> Vec<u8> {
        let mut bytes = Vec::new();
        let onward = message.onward(0).unwrap();
        self.link.write(&onward, &mut bytes).unwrap();
        bytes
    }

    async fn hear(&mut self) -> Inbound {
        let bytes = self.stream.hear().await.unwrap().expect("the stream lives");
        self.link.read(bytes).unwrap()
    }

    /// The next thing that an application said.
    async fn words(&mut self) -> Bytes {
        match self.hear().await {
            Inbound::Routed(message) => message.payload().unwrap().1.clone(),
            Inbound::SubscriptionAck { .. } | Inbound::Link(_) => panic!("a message was expected"),
        }
    }

    /// How the stream ends, whatever comes before.
    async fn end(&mut self) -> Result<(), Code> {
        loop {
            match self.stream.hear().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(status) => return Err(status.code()),
            }
        }
    }
}

fn chance() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

fn message(generation: Generation, from: &Name, to: &Name, number: u32, blob: Bytes) -> Routed {
    let draft = Draft {
        header: Header {
            source: from.clone(),
            destination: to.clone(),
            identity: "alice".into(),
            fanout: 1,
        },
        session: Session {
            kind: SessionKind::PointToPoint,
            message: MessageType::Msg,
            id: 5,
            message_id: number,
        },
        said: Said::Application {
            payload_type: "msg".into(),
            blob,
        },
        metadata: BTreeMap::new(),
    };
    draft.routed(generation).unwrap()
}

fn subscription(generation: Generation, from: &Name, to: &Name, id: u64) -> Routed {
    // A publication between the same names has the same header.
    let like = message(generation, from, to, 1, Bytes::new());
    let like = like.original().clone();
    let bytes = match generation {
        Generation::One => {
            use one::message::MessageType as Kind;
            let Some(Kind::Publish(publish)) = one::Message::decode(like).unwrap().message_type
            else {
                panic!("it was a publication")
            };
            one::Message {
                message_type: Some(Kind::Subscribe(one::Subscribe {
                    header: publish.header,
                    subscription_id: id,
                })),
                ..one::Message::default()
            }
            .encode_to_vec()
        }
        Generation::Two => {
            use two::message::MessageType as Kind;
            let Some(Kind::Publish(publish)) = two::Message::decode(like).unwrap().message_type
            else {
                panic!("it was a publication")
            };
            two::Message {
                message_type: Some(Kind::Subscribe(two::Subscribe {
                    header: publish.header,
                    subscription_id: id,
                })),
                ..two::Message::default()
            }
            .encode_to_vec()
        }
    };
    Routed::from_archive(generation, bytes.into()).unwrap()
}

fn link_message(version: &str) -> Vec<u8> {
    let said = two::LinkNegotiationPayload {
        link_id: "a link".to_owned(),
        slim_version: version.to_owned(),
        ..two::LinkNegotiationPayload::default()
    };
    two::Message {
        message_type: Some(two::message::MessageType::Link(two::Link {
            link_type: Some(two::link::LinkType::LinkNegotiation(said)),
        })),
        ..two::Message::default()
    }
    .encode_to_vec()
}

/// The first generation has no keys, so both ends of a link are alike.
fn link_of_one() -> Link {
    let name = Name::parse("org/ns/alice").unwrap();
    let first = message(Generation::One, &name, &name, 1, Bytes::new());
    match skytale_slim::open(first.original().clone()).unwrap() {
        Opening::Plain(link) => link,
        Opening::Offer(_) => panic!("a publication offers nothing"),
    }
}

/// Messages as the bytes that they are.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
