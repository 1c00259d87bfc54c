//! SLIM's data plane: one stream for each link, `OpenChannel`.
//!
//! It checks the token, negotiates the link, and from then on carries messages between the stream
//! and the driver's [`SlimLink`]: it reads and checks what comes in, and signs what goes out. Who
//! gets what is the hub's business.
//!
//! The answer's headers leave at once, since SLIM's clients await them before they say anything. A
//! stream ends cleanly wherever it can: then clients dial again, and after most errors they do not.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Extension, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::post,
};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use skytale_slim::{Inbound, Link, MESSAGE_BYTES_MAX, Opening, Refused, proto::OPEN_CHANNEL};
use skytale_wire::refusal::{Refusal, Remedy};
use tokio::{sync::oneshot, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tracing::debug;
use zeroize::Zeroizing;

use super::{
    Edge,
    connection::{Caller, Seated},
    framing::{Messages, Next, put_message},
};
use crate::{
    driver::{SlimLink, SlimOut, SlimTaken},
    hub::{SlimPresented, SlimRight},
};

/// The one method that all of SLIM's generations call.
pub(super) fn routes(edge: Arc<Edge>) -> Router {
    Router::new()
        .route(OPEN_CHANNEL, post(open_channel))
        .with_state(edge)
}

async fn open_channel(
    State(edge): State<Arc<Edge>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    if !is_grpc(&parts.headers) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let right = match edge.slim_right(&parts.headers).await {
        Ok(right) => right,
        Err(refusal) => {
            edge.state.tally().denied();
            debug!(%refusal, "a SLIM stream was refused");
            return Status::permission_denied(refusal.to_string()).into_http();
        }
    };
    let Some(seat) = caller.sit_down(&edge) else {
        return Status::resource_exhausted("there are too many streams").into_http();
    };
    let gone = CancellationToken::new();
    let (opened, opening) = oneshot::channel();
    let incoming = Incoming {
        messages: Messages::new(body, MESSAGE_BYTES_MAX, Arc::clone(&edge.budget)),
        edge: Arc::clone(&edge),
        gone: gone.clone(),
        _seat: seat,
    };
    let killed = caller.killed().clone();
    edge.tasks.spawn(async move {
        killed
            .run_until_cancelled(incoming.run(right, opened))
            .await;
    });
    let outgoing = Outgoing {
        edge,
        ending: caller.ending().clone(),
        buffer: BytesMut::new(),
        phase: Phase::Opening(opening),
        _gone: gone.drop_guard(),
    };
    let frames = stream::unfold(outgoing, |mut outgoing| async {
        let frame = outgoing.next().await?;
        Some((Ok::<_, Infallible>(frame), outgoing))
    });
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    response
}

impl Edge {
    /// By what right somebody opens a stream.
    async fn slim_right(&self, headers: &HeaderMap) -> Result<SlimRight, Refusal> {
        let Some(authorization) = headers.get(header::AUTHORIZATION) else {
            // Nothing was claimed that could be false.
            return if self.open {
                Ok(SlimRight::Open)
            } else {
                Err(Refusal::TokenInvalid)
            };
        };
        let token = authorization
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or(Refusal::TokenInvalid)?;
        let checked = timeout(self.times.check, async {
            loop {
                match self.gate.check_slim(token).await {
                    // A client that is told so gives up for good, and the reason will pass.
                    Err(Refusal::IssuerUnreachable) => tokio::time::sleep(CHECK_PAUSE).await,
                    decided => return decided,
                }
            }
        });
        checked.await.unwrap_or(Err(Refusal::IssuerUnreachable))
    }
}

/// What one side of a stream tells the other when the link stands.
struct Talk {
    /// The answer to the negotiation, which goes before all else.
    reply: Option<Vec<u8>>,
    link: Arc<Link>,
    /// `None` when the relay stops just now: the stream ends after the reply, so that the client
    /// dials again.
    slim: Option<Arc<SlimLink>>,
    /// Set when the client has nothing more to say, with what the stream ends with.
    over: oneshot::Receiver<Status>,
}

/// The side that reads.
struct Incoming {
    messages: Messages,
    edge: Arc<Edge>,
    /// The other side has gone.
    gone: CancellationToken,
    _seat: Seated,
}

impl Incoming {
    /// The whole life of a stream.
    async fn run(mut self, right: SlimRight, opened: oneshot::Sender<Result<Talk, Status>>) {
        let gone = self.gone.clone();
        let Some(begun) = gone.run_until_cancelled(self.begin(right)).await else {
            return;
        };
        let Begun {
            reply,
            link,
            slim,
            first,
        } = match begun {
            Ok(begun) => begun,
            Err(status) => {
                // Who has gone needs no status.
                let _ = opened.send(Err(status));
                return;
            }
        };
        let (say_over, over) = oneshot::channel();
        let talk = Talk {
            reply,
            link: Arc::clone(&link),
            slim: slim.clone(),
            over,
        };
        let (Ok(()), Some(slim)) = (opened.send(Ok(talk)), slim) else {
            return;
        };
        self.edge.state.tally().stream();
        let read = self.read(&link, &slim, first);
        if let Some(status) = gone.run_until_cancelled(read).await {
            let _ = say_over.send(status);
            // The last words may still be on their way.
            let _ = timeout(self.edge.times.grace, gone.cancelled()).await;
        }
        if let Some(slim) = Arc::into_inner(slim) {
            slim.leave().await;
        }
    }

    /// Reads the first message, which tells the generation, and enters the hub.
    async fn begin(&mut self, right: SlimRight) -> Result<Begun, Status> {
        let Ok(first) = timeout(self.edge.times.first, self.messages.next()).await else {
            self.edge.state.tally().silent();
            return Err(ended());
        };
        let first = match first? {
            Next::Message(first) => first,
            Next::Oversized => return Err(self.refuse(Refused::TooLarge)),
            Next::End => return Err(ended()),
        };
        let (reply, link, first) = match skytale_slim::open(first.clone()) {
            Ok(Opening::Offer(offer)) => {
                let answered = offer.answer(NODE, &mut fresh_rng());
                let (reply, link) = answered.map_err(|refused| self.refuse(refused))?;
                (Some(reply), link, None)
            }
            Ok(Opening::Plain(link)) => (None, link, Some(first)),
            Err(refused) => return Err(self.refuse(refused)),
        };
        let presented = SlimPresented {
            generation: link.generation(),
            owner: right,
        };
        let slim = self.edge.door.enter_slim(presented).await.ok();
        Ok(Begun {
            reply,
            link: Arc::new(link),
            slim: slim.map(Arc::new),
            first,
        })
    }

    fn refuse(&self, refused: Refused) -> Status {
        self.edge.state.tally().malformed();
        debug!(%refused, "a SLIM stream began wrongly");
        malformed()
    }

    /// Until the client has nothing more to say; gives back what the stream ends with.
    async fn read(&mut self, link: &Link, slim: &SlimLink, first: Option<Bytes>) -> Status {
        let mut next = first.map(Next::Message);
        loop {
            // What is only dropped waits for nothing, and others want to run too.
            tokio::task::coop::consume_budget().await;
            let message = match next.take() {
                Some(message) => message,
                None => match self.messages.next().await {
                    Ok(message) => message,
                    Err(status) => return status,
                },
            };
            match message {
                Next::Message(bytes) => {
                    if self.take(link, slim, bytes).await.is_err() {
                        // The driver has stopped; its last word is on its way.
                        return std::future::pending().await;
                    }
                }
                Next::Oversized => self.edge.state.tally().oversized(),
                Next::End => return ended(),
            }
        }
    }

    /// A message that is wrong is dropped, as SLIM's node does: the stream is not to blame.
    async fn take(
        &mut self,
        link: &Link,
        slim: &SlimLink,
        bytes: Bytes,
    ) -> Result<(), crate::driver::Stopped> {
        match link.read(bytes) {
            Ok(Inbound::Routed(routed)) => slim.routed(*routed).await?,
            // They mean something on the side that dials, or at the beginning.
            Ok(Inbound::SubscriptionAck { .. } | Inbound::Link(_)) => {}
            Err(Refused::WrongMac) => self.edge.state.tally().wrong_mac(),
            Err(refused) => {
                self.edge.state.tally().malformed();
                debug!(%refused, "a SLIM message could not be read");
            }
        }
        Ok(())
    }
}

/// A link that stands.
struct Begun {
    reply: Option<Vec<u8>>,
    link: Arc<Link>,
    slim: Option<Arc<SlimLink>>,
    /// The first message, when it was none of the negotiation.
    first: Option<Bytes>,
}

/// The side that writes: the body of the answer.
struct Outgoing {
    edge: Arc<Edge>,
    ending: CancellationToken,
    buffer: BytesMut,
    phase: Phase,
    /// Tells the reading side when HTTP/2 has dropped this: the last, so that the link is let go of
    /// before.
    _gone: DropGuard,
}

enum Phase {
    /// The link is being negotiated.
    Opening(oneshot::Receiver<Result<Talk, Status>>),
    Talking(Talk, Batch),
    /// The status has been said.
    Over,
}

/// What was taken from the link's queue, and how much of it has been written.
#[derive(Default)]
struct Batch {
    taken: Vec<SlimOut>,
    written: usize,
}

impl Outgoing {
    /// The next piece of the body; `None` after the status.
    async fn next(&mut self) -> Option<Frame<Bytes>> {
        loop {
            let status = match &mut self.phase {
                Phase::Over => return None,
                Phase::Opening(opening) => {
                    // Not cut short when the relay stops: without the reply a client gives up.
                    let opened = opening.await.unwrap_or_else(|_| Err(ended()));
                    match opened {
                        Ok(mut talk) => {
                            let reply = talk.reply.take();
                            self.phase = Phase::Talking(talk, Batch::default());
                            if let Some(reply) = reply {
                                return Some(self.one(&reply));
                            }
                            continue;
                        }
                        Err(status) => status,
                    }
                }
                Phase::Talking(talk, batch) => {
                    batch.write(&self.edge, &talk.link, &mut self.buffer);
                    if !self.buffer.is_empty() {
                        return Some(Frame::data(self.buffer.split().freeze()));
                    }
                    match talk.more(&self.ending, batch).await {
                        None => continue,
                        Some(status) => status,
                    }
                }
            };
            self.phase = Phase::Over;
            return Some(Frame::trailers(trailers(&status)));
        }
    }

    fn one(&mut self, message: &[u8]) -> Frame<Bytes> {
        let put: Result<(), Infallible> = put_message(&mut self.buffer, |out| {
            out.extend_from_slice(message);
            Ok(())
        });
        let Ok(()) = put;
        Frame::data(self.buffer.split().freeze())
    }
}

impl Talk {
    /// Waits for something to write; gives back the status when nothing will come any more.
    async fn more(&mut self, ending: &CancellationToken, batch: &mut Batch) -> Option<Status> {
        let Some(slim) = &self.slim else {
            return Some(ended());
        };
        batch.taken.clear();
        batch.written = 0;
        tokio::select! {
            biased;
            over = &mut self.over => Some(over.unwrap_or_else(|_| ended())),
            () = ending.cancelled() => Some(ended()),
            taken = slim.take(&mut batch.taken) => match taken {
                SlimTaken::Some => None,
                SlimTaken::Closing(refusal) => Some(said_last(refusal)),
            },
        }
    }
}

impl Batch {
    /// Signs and frames what is not written, up to a good piece of it.
    fn write(&mut self, edge: &Edge, link: &Link, buffer: &mut BytesMut) {
        for out in &self.taken[self.written..] {
            if buffer.len() >= WRITE_BYTES {
                return;
            }
            self.written += 1;
            let put = put_message(buffer, |buffer| match out {
                SlimOut::Onward(onward) => link.write(onward, buffer),
                SlimOut::Ack(ack) => {
                    buffer.extend_from_slice(ack);
                    Ok(())
                }
            });
            if put.is_err() {
                edge.state.tally().other_generation();
            }
        }
    }
}

/// How a stream ends that the relay ends. SLIM's clients dial again after a clean end, and never
/// after a denial; so only what no new dialling can mend is one.
fn said_last(refusal: Refusal) -> Status {
    // The next stream may come with a fresh token, and is denied if it does not.
    if refusal != Refusal::TokenExpired && refusal.remedy() == Remedy::GetPermission {
        return Status::permission_denied(refusal.to_string());
    }
    ended()
}

fn ended() -> Status {
    Status::new(tonic::Code::Ok, "")
}

fn malformed() -> Status {
    Status::invalid_argument("the first message is not one of SLIM's")
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Its text does not go into a header; the number does.
        trailers.insert("grpc-status", HeaderValue::from(i32::from(status.code())));
    }
    trailers
}

/// Seeded by the operating system, and shared with nothing: it makes a link's key.
fn fresh_rng() -> ChaCha20Rng {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).expect("the operating system gives randomness");
    ChaCha20Rng::from_seed(*seed)
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|it| it.as_bytes().starts_with(GRPC.as_bytes()))
}

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// What the relay is called in a negotiation; nothing depends on it.
const NODE: &str = "skytale";
/// Bytes that are handed to HTTP/2 at once, or one message if that is larger.
const WRITE_BYTES: usize = 64 * 1024;
/// How often a token is tried again whose issuer cannot be asked.
const CHECK_PAUSE: Duration = Duration::from_secs(1);
