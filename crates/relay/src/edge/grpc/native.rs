//! The native line over gRPC, for agents whose UDP does not get through: one stream is one line.
//!
//! Inside the stream goes TLS of its own ([`skytale_tunnel`]), in which the relay shows the key that
//! agents pin and the agent its transport key; what is said there is [`crate::edge::talk`]'s affair.
//! So nothing depends on whether there is a TLS outside, and who looks into the outer stream sees
//! records of TLS, of one length where the line has slots.
//!
//! HTTP/2 does not tell in time that an agent has gone, so a line on which nothing comes for longer
//! than its schedule allows is given up.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Extension, Request, State},
    response::Response,
    routing::post,
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use iroh::SecretKey;
use skytale_shape::Shape;
use skytale_tunnel::{
    Host, Inside,
    keys::OwnKey,
    piece::{MESSAGE_BYTES_MAX, METHOD, PIECES_WAITING_MAX, Pieces},
};
use skytale_wire::{id::TransportKey, refusal::Refusal};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming, server::Grpc};
use tracing::debug;

use super::{
    Edge,
    connection::{Caller, Seated},
};
use crate::{
    auth::Gate,
    config::RelayConfig,
    driver::Door,
    edge::{
        places::Place,
        talk::{Carrier, Ear, LineLost, Mouth, Reception},
    },
};

/// What lines over gRPC need.
pub(super) struct Lines {
    reception: Reception,
    host: Host,
}

impl Lines {
    pub(super) fn new(config: &RelayConfig, gate: Gate, door: Door, secret: &SecretKey) -> Self {
        Self {
            reception: Reception::new(config, gate, door),
            host: Host::new(&OwnKey::from_seed(&secret.to_bytes())),
        }
    }
}

/// The one method.
pub(super) fn routes(edge: Arc<Edge>) -> Router {
    Router::new().route(METHOD, post(open)).with_state(edge)
}

async fn open(
    State(edge): State<Arc<Edge>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let mut grpc = Grpc::new(Pieces).max_decoding_message_size(MESSAGE_BYTES_MAX);
    grpc.streaming(Opening { edge, caller }, request)
        .await
        .map(Body::new)
}

/// Answers at once, and talks in a task that the door waits for.
struct Opening {
    edge: Arc<Edge>,
    caller: Caller,
}

impl tonic::server::StreamingService<Bytes> for Opening {
    type Response = Bytes;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
    type Future = std::future::Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        std::future::ready(self.open(request.into_inner()))
    }
}

impl Opening {
    fn open(
        &self,
        incoming: Streaming<Bytes>,
    ) -> Result<
        tonic::Response<<Self as tonic::server::StreamingService<Bytes>>::ResponseStream>,
        Status,
    > {
        let (edge, caller) = (Arc::clone(&self.edge), self.caller.clone());
        let Some(place) = edge.links.take(caller.ip()) else {
            edge.state.tally().crowded();
            return Err(Status::resource_exhausted("there are too many streams"));
        };
        let (outgoing, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        let written = CancellationToken::new();
        let out = Out {
            pieces,
            _written: written.clone().drop_guard(),
        };
        let tasks = edge.tasks.clone();
        tasks.spawn(async move {
            let (ending, killed) = (caller.ending().clone(), caller.killed().clone());
            let standing = Standing::Stranger(place);
            let line = serve(edge, caller, standing, incoming, outgoing, written);
            tokio::select! {
                // Some 16 KiB, most of it masks and fill that are drawn ahead.
                () = Box::pin(line) => {}
                // A connection that has become too old; when the relay stops, lines have ended before.
                () = ending.cancelled() => {}
                () = killed.cancelled() => {}
            }
        });
        Ok(tonic::Response::new(Box::pin(stream::unfold(
            out,
            |mut out| async move {
                let piece = out.pieces.recv().await?;
                Some((Ok(piece), out))
            },
        ))))
    }
}

/// What leaves by the answer's body.
struct Out {
    pieces: mpsc::Receiver<Bytes>,
    /// Says that the body has come to its end, or that nobody wants it any more.
    _written: DropGuard,
}

/// The whole life of a line.
async fn serve(
    edge: Arc<Edge>,
    caller: Caller,
    standing: Standing,
    incoming: Streaming<Bytes>,
    outgoing: mpsc::Sender<Bytes>,
    written: CancellationToken,
) {
    let lines = &edge.lines;
    let shaking_hands = lines.host.accept(incoming, outgoing);
    let (transport, inside) = match timeout(lines.reception.hello_max(), shaking_hands).await {
        Ok(Ok(proved)) => proved,
        Ok(Err(error)) => return debug!(kind = ?error.kind(), "no line came of a stream"),
        Err(_) => return edge.state.tally().silent(),
    };
    let (read, write) = split(inside);
    let mouth = TunnelMouth {
        half: write,
        written,
    };
    let carrier = Tunnel {
        transport,
        edge: Arc::clone(&edge),
        caller,
        standing: Mutex::new(standing),
    };
    let first = std::future::ready(Some((mouth, TunnelEar(read))));
    // The last word has been said on the stream: there is no other place for it.
    Box::pin(lines.reception.converse(&carrier, first)).await;
}

/// A line inside a gRPC stream.
struct Tunnel {
    transport: TransportKey,
    edge: Arc<Edge>,
    caller: Caller,
    standing: Mutex<Standing>,
}

/// What an agent holds at this door.
enum Standing {
    /// A place among those who have not said who they are.
    Stranger(#[expect(dead_code, reason = "it is free again when this is dropped")] Place),
    /// A seat among those who have.
    In(#[expect(dead_code, reason = "it is free again when this is dropped")] Seated),
}

impl Carrier for Tunnel {
    type Mouth = TunnelMouth;
    type Ear = TunnelEar;

    fn transport(&self) -> TransportKey {
        self.transport
    }

    fn let_in(&self, _to_agent: &Shape) -> Result<(), Refusal> {
        let seat = self.caller.sit_down(&self.edge);
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        *standing = Standing::In(seat.ok_or(Refusal::RateLimited)?);
        Ok(())
    }

    fn silence_max(&self, to_relay: &Shape) -> Option<Duration> {
        Some(SILENCE_MAX + to_relay.silence_max().unwrap_or_default())
    }

    /// One stream is all there is.
    async fn further(&self) -> Option<(TunnelMouth, TunnelEar)> {
        std::future::pending().await
    }
}

struct TunnelMouth {
    half: WriteHalf<Inside>,
    /// All of it has gone into the connection.
    written: CancellationToken,
}

impl Mouth for TunnelMouth {
    /// One write is one record, one message and, because each is sent when it comes, one frame.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), LineLost> {
        self.half.write_all(bytes).await.map_err(|_| LineLost)?;
        self.half.flush().await.map_err(|_| LineLost)
    }

    async fn apart(&mut self) {}

    async fn finish(&mut self) {
        if self.half.shutdown().await.is_ok() {
            self.written.cancelled().await;
        }
    }
}

struct TunnelEar(ReadHalf<Inside>);

impl Ear for TunnelEar {
    async fn piece(&mut self, max: usize) -> Option<Bytes> {
        let mut piece = BytesMut::with_capacity(max.min(PIECE_BYTES));
        let len = self.0.read_buf(&mut piece).await.ok()?;
        (len > 0).then(|| piece.freeze())
    }

    fn is_replayable(&self) -> bool {
        false
    }
}

/// After this silence an agent is gone, as over QUIC; on a line with slots its own silences come on
/// top.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// A buffer that stands ready while nothing comes.
const PIECE_BYTES: usize = 4 * 1024;

#[cfg(test)]
mod tests;
