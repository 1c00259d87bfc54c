//! SLIM's data plane as a client without sessions sees it, for what sits between stock agents and a
//! relay.

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::stream;
use rand::rand_core::UnwrapErr;
use skytale_slim::{Dial, Link};
use tokio::sync::mpsc;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

/// A stream whose link is agreed.
#[derive(Debug)]
pub struct Wire {
    /// Reads and signs.
    pub link: Link,
    /// What is put here is sent.
    pub out: mpsc::Sender<Bytes>,
    /// What comes.
    pub inbound: Streaming<Bytes>,
}

impl Wire {
    /// Opens a stream of the second generation.
    pub async fn connect(url: &str, link_id: &str) -> Self {
        let channel = Channel::from_shared(url.to_owned()).unwrap();
        let mut grpc = Grpc::new(channel.connect().await.unwrap());
        let (out, inside) = mpsc::channel(QUEUE);
        grpc.ready().await.unwrap();
        let path = PathAndQuery::from_static(OPEN_CHANNEL);
        let request = Request::new(drained(inside));
        let answer = grpc.streaming(request, path, Raw).await;
        let mut inbound: Streaming<Bytes> = answer.unwrap().into_inner();

        let (request, dial) = Dial::begin(link_id, "hop", false, &mut chance());
        out.send(request.into()).await.unwrap();
        let reply = inbound.message().await.unwrap().unwrap();
        Self {
            link: dial.finish(reply).unwrap(),
            out,
            inbound,
        }
    }
}

/// What is put into a queue, as the stream that gRPC wants.
pub fn drained(inside: mpsc::Receiver<Bytes>) -> impl stream::Stream<Item = Bytes> + Send {
    stream::unfold(inside, async |mut inside| {
        let bytes = inside.recv().await?;
        Some((bytes, inside))
    })
}

/// The system's, for keys that end with a test.
pub fn chance() -> UnwrapErr<rand::rngs::SysRng> {
    UnwrapErr(rand::rngs::SysRng)
}

/// Messages as the bytes that they are.
#[derive(Debug, Clone, Copy)]
pub struct Raw;

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

/// SLIM has this one method.
pub const OPEN_CHANNEL: &str = "/dataplane.proto.v1.DataPlaneService/OpenChannel";
/// Messages between a writer and its stream.
pub const QUEUE: usize = 64;
