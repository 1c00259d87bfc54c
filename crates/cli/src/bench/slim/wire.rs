//! Clients of SLIM's data plane without sessions: one that says as much as it can under a name, and
//! one that counts what comes. Every header has its MAC and every MAC is checked.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::stream;
use prost::Message as _;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use skytale_slim::{
    Dial, Draft, Generation, Header, Inbound, Instance, Link, MessageType, Name, Routed, Said,
    Session, SessionKind, proto::two,
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

use crate::exit::Failure;

/// Says messages of one size to a group's name.
pub(super) struct Publisher {
    wire: Wire,
    /// With the MAC of this link, which does not cover what differs among the messages.
    message: two::Message,
}

impl Publisher {
    pub(super) async fn connect(url: &str, round: usize, bytes: usize) -> Result<Self, Failure> {
        let wire = Wire::connect(url, &format!("publisher-{round}")).await?;
        let session = u32::try_from(round).map_err(|_| refused("too many rounds"))?;
        let draft = Draft {
            header: Header {
                source: name("publisher", round)?,
                destination: name("all", round)?,
                identity: "x".repeat(IDENTITY_BYTES),
                fanout: EVERYBODY,
            },
            session: Session {
                kind: SessionKind::Multicast,
                message: MessageType::Msg,
                id: session + 1,
                message_id: 0,
            },
            said: Said::Application {
                payload_type: "msg".to_owned(),
                blob: vec![0x5a; bytes].into(),
            },
            metadata: std::collections::BTreeMap::new(),
        };
        let signed = wire.signed(&draft.routed(Generation::Two).map_err(refused)?)?;
        let message = two::Message::decode(signed).map_err(refused)?;
        Ok(Self { wire, message })
    }

    /// Says as many as it can until it is time, at most so many ahead of the slowest; gives how
    /// many.
    pub(super) async fn flood(
        &mut self,
        subscribers: &[Subscriber],
        ahead_max: u64,
        until: Instant,
    ) -> Result<u64, Failure> {
        let mut sent = 0;
        let mut slowest = 0;
        while Instant::now() < until {
            while sent - slowest >= ahead_max {
                slowest = self.slowest(subscribers, slowest).await?;
            }
            sent += 1;
            let message = self.numbered(sent)?;
            self.wire.say(message).await?;
        }
        Ok(sent)
    }

    /// How many all subscribers have, once it is more than `before`.
    async fn slowest(&self, subscribers: &[Subscriber], before: u64) -> Result<u64, Failure> {
        for subscriber in subscribers {
            subscriber.has(before + 1).await?;
        }
        let counts = subscribers.iter().map(Subscriber::count);
        Ok(counts.min().unwrap_or(u64::MAX))
    }

    fn numbered(&mut self, number: u64) -> Result<Bytes, Failure> {
        let Some(two::message::MessageType::Publish(publish)) = &mut self.message.message_type
        else {
            return Err(refused("not a publication"));
        };
        if let Some(session) = &mut publish.session {
            session.message_id = u32::try_from(number).map_err(|_| refused("too many messages"))?;
        }
        Ok(self.message.encode_to_vec().into())
    }
}

/// Counts what comes to the group's name.
pub(super) struct Subscriber {
    seen: Arc<Seen>,
    reading: JoinHandle<Result<(), Failure>>,
}

#[derive(Default)]
struct Seen {
    count: AtomicU64,
    more: Notify,
}

impl Subscriber {
    /// Subscribed when this returns.
    pub(super) async fn connect(url: &str, round: usize, number: u32) -> Result<Self, Failure> {
        let mut wire = Wire::connect(url, &format!("subscriber-{round}-{number}")).await?;
        let subscribe = two::Message {
            message_type: Some(two::message::MessageType::Subscribe(two::Subscribe {
                header: Some(two::SlimHeader {
                    source: Some(name(&format!("subscriber-{number}"), round)?.to_two()),
                    destination: Some(name("all", round)?.to_two()),
                    ttl: TTL,
                    ..two::SlimHeader::default()
                }),
                subscription_id: SUBSCRIPTION,
            })),
            ..two::Message::default()
        };
        let subscribe = Routed::from_archive(Generation::Two, subscribe.encode_to_vec().into())
            .map_err(refused)?;
        let signed = wire.signed(&subscribe)?;
        wire.say(signed).await?;
        match wire.next().await? {
            Inbound::SubscriptionAck { .. } => {}
            other @ (Inbound::Link(_) | Inbound::Routed(_)) => {
                return Err(refused(format!("instead of an answer came {other:?}")));
            }
        }
        let seen = Arc::new(Seen::default());
        let reading = tokio::spawn(read(wire, Arc::clone(&seen)));
        Ok(Self { seen, reading })
    }

    /// How many have come.
    pub(super) fn count(&self) -> u64 {
        self.seen.count.load(Ordering::Acquire)
    }

    /// Waits until so many have come.
    pub(super) async fn has(&self, count: u64) -> Result<(), Failure> {
        let all = async {
            while self.count() < count {
                self.seen.more.notified().await;
            }
        };
        timeout(LATE_MAX, all)
            .await
            .map_err(|_| Failure::timeout("not everything that was published arrives"))
    }

    pub(super) async fn end(self) -> Result<(), Failure> {
        self.reading.abort();
        match self.reading.await {
            Ok(ended) => ended,
            Err(_) => Ok(()),
        }
    }
}

async fn read(mut wire: Wire, seen: Arc<Seen>) -> Result<(), Failure> {
    loop {
        if let Inbound::Routed(_) = wire.next().await? {
            seen.count.fetch_add(1, Ordering::Release);
            seen.more.notify_one();
        }
    }
}

/// A stream whose link is agreed.
struct Wire {
    link: Link,
    out: mpsc::Sender<Bytes>,
    inbound: Streaming<Bytes>,
}

impl Wire {
    async fn connect(url: &str, link_id: &str) -> Result<Self, Failure> {
        let channel = Channel::from_shared(url.to_owned())
            .map_err(refused)?
            .connect()
            .await
            .map_err(refused)?;
        let (out, inside) = mpsc::channel(QUEUE);
        let said = stream::unfold(inside, |mut inside: mpsc::Receiver<Bytes>| async {
            inside.recv().await.map(|bytes| (bytes, inside))
        });
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.map_err(refused)?;
        let path = PathAndQuery::from_static(OPEN_CHANNEL);
        let answer = grpc.streaming(Request::new(said), path, Raw).await;
        let mut inbound: Streaming<Bytes> = answer.map_err(refused)?.into_inner();

        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(refused)?;
        let mut chance = ChaCha20Rng::from_seed(seed);
        let (request, dial) = Dial::begin(link_id, "bench", false, &mut chance);
        out.send(request.into()).await.map_err(refused)?;
        let reply = inbound.message().await.map_err(refused)?;
        let link = dial.finish(reply.unwrap_or_default()).map_err(refused)?;
        Ok(Self { link, out, inbound })
    }

    fn signed(&self, message: &Routed) -> Result<Bytes, Failure> {
        let onward = message.onward(0).map_err(refused)?;
        let mut bytes = Vec::new();
        self.link.write(&onward, &mut bytes).map_err(refused)?;
        Ok(bytes.into())
    }

    async fn say(&mut self, bytes: Bytes) -> Result<(), Failure> {
        self.out.send(bytes).await.map_err(refused)
    }

    async fn next(&mut self) -> Result<Inbound, Failure> {
        let bytes = self.inbound.message().await.map_err(refused)?;
        let bytes = bytes.ok_or_else(|| refused("the stream has ended"))?;
        self.link.read(bytes).map_err(refused)
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

/// One name for each round, so that no round hears another.
fn name(what: &str, round: usize) -> Result<Name, Failure> {
    let name = Name::parse(&format!("bench/round-{round}/{what}"));
    Ok(name.map_err(refused)?.at(Instance::Only(1)))
}

fn refused(why: impl fmt::Display) -> Failure {
    Failure::failed(format!("SLIM's wire: {why}"))
}

const OPEN_CHANNEL: &str = "/dataplane.proto.v1.DataPlaneService/OpenChannel";
/// What stock clients say for "all of them".
const EVERYBODY: u32 = 256;
/// As long as the token that stock clients put there.
const IDENTITY_BYTES: usize = 228;
const TTL: u32 = 8;
/// Not zero: an answer is wanted.
const SUBSCRIPTION: u64 = 1;
/// Messages between the publisher and its stream.
const QUEUE: usize = 64;
/// How long a message may take when nothing is lost.
const LATE_MAX: Duration = Duration::from_secs(30);
