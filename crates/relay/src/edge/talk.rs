//! What goes on between the relay and one agent, whatever carries it: the Hello, the checks, frames in
//! and frames out, the last word.
//!
//! The agent opens two streams. The first begins with a Hello, alone and in a small cell; after Ready
//! it carries requests, answers and what is new. The second, which the agent opens by writing a frame
//! on it, carries what is read from the archive, at lower priority: until it is there, and where there
//! is none, that goes by the first.
//!
//! Hello and Ready travel in padded cells. What a Hello wishes for the line, as far as the operator's
//! rules let it, holds from then on ([`super::terms`]); a line with slots has one stream only.
//!
//! A [`Carrier`] is what QUIC and gRPC do in ways of their own; here nobody knows which one it is.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use skytale_shape::{Breach, Bulk, Incoming, Micros, Mode, Shape, Shaper, bucket::MAX_CELL};
use skytale_wire::{
    frame::{self, Closing, FRAME_BYTES_MAX, Hello, Malformed, ToAgent, ToRelay},
    id::TransportKey,
    refusal::Refusal,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tracing::{debug, warn};

use super::terms::{Terms, TrafficRules};
use crate::{
    auth::Gate,
    config::RelayConfig,
    driver::{Door, Link, Tally},
    hub::{Lane, Presented},
};

mod paced;

use paced::Paced;

/// A connection with one agent, whose key it has proved.
pub(super) trait Carrier: Sync {
    /// Writes a stream.
    type Mouth: Mouth;
    /// Reads one.
    type Ear: Ear;

    /// The key that the agent has proved.
    fn transport(&self) -> TransportKey;

    /// The agent has said who it is: it gets a place, and more may be on its way to us from now on.
    fn let_in(&self, to_agent: &Shape) -> Result<(), Refusal>;

    /// How long an agent may be silent on a line of this shape; `None` where the carrier finds out by
    /// itself that nobody is there.
    fn silence_max(&self, to_relay: &Shape) -> Option<Duration>;

    /// The next stream that the agent opens, for what is less urgent. `None` when the connection has
    /// ended; never where there is no second stream.
    fn further(&self) -> impl Future<Output = Option<(Self::Mouth, Self::Ear)>> + Send;
}

/// The relay's side of one stream.
pub(super) trait Mouth: Send + 'static {
    /// Hands all of it over, as far as the agent's windows let it.
    fn write(&mut self, bytes: &[u8]) -> impl Future<Output = Result<(), LineLost>> + Send;

    /// Until what was written has left, so that what is written next goes by itself; or not for much
    /// longer than that takes, where the network holds it up.
    fn apart(&mut self) -> impl Future<Output = ()> + Send;

    /// Says that nothing more comes; ends when the agent has everything, or is gone.
    fn finish(&mut self) -> impl Future<Output = ()> + Send;
}

/// The agent's side of one stream.
pub(super) trait Ear: Send {
    /// The next bytes, at most so many. `None` when no more come.
    fn piece(&mut self, max: usize) -> impl Future<Output = Option<Bytes>> + Send;

    /// Whether what has come could have been recorded earlier and be sent again by anybody.
    fn is_replayable(&self) -> bool;
}

/// The stream cannot be read or written any more.
pub(super) struct LineLost;

/// Lets agents in and talks with them: what every connection needs.
#[derive(Clone)]
pub(super) struct Reception {
    gate: Gate,
    door: Door,
    hello_max: Duration,
    rules: TrafficRules,
    /// What the slots of all lines are counted from.
    began: Instant,
}

impl Reception {
    pub(super) fn new(config: &RelayConfig, gate: Gate, door: Door) -> Self {
        Self {
            gate,
            door,
            hello_max: Duration::from_millis(config.hello_ms_max),
            rules: config.traffic.clone(),
            began: Instant::now(),
        }
    }

    /// How long a handshake may take, and then a Hello.
    pub(super) fn hello_max(&self) -> Duration {
        self.hello_max
    }

    /// The whole life of a connection, from the agent's first stream on; gives back what the relay's
    /// last word was.
    pub(super) async fn converse<C: Carrier>(
        &self,
        carrier: &C,
        first: impl Future<Output = Option<(C::Mouth, C::Ear)>>,
    ) -> Option<Closing> {
        let greeting = async {
            let Some((mouth, ear)) = first.await else {
                return Err(Turned::away());
            };
            self.greet(carrier.transport(), mouth, ear).await
        };
        let (mut streams, presented, terms) = match timeout(self.hello_max, greeting).await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(Turned { streams, refusal })) => {
                let closing = Closing {
                    refusal: refusal?,
                    resume: false,
                };
                if let Some(mut streams) = streams {
                    streams.say_last(&closing).await;
                }
                return Some(closing);
            }
            Err(_) => {
                return Some(Closing {
                    refusal: Refusal::HelloTimeout,
                    resume: true,
                });
            }
        };
        if let Err(refusal) = carrier.let_in(&terms.to_agent) {
            let closing = Closing {
                refusal,
                resume: true,
            };
            streams.say_last(&closing).await;
            return Some(closing);
        }
        let Ok(link) = self.door.enter(presented.clone(), &terms).await else {
            return Some(Closing {
                refusal: Refusal::ShuttingDown,
                resume: true,
            });
        };
        let link = Arc::new(link);
        let talk = Talk {
            gate: &self.gate,
            carrier,
            link: &link,
            presented: &presented,
            terms,
            began: self.began,
        };
        talk.run(streams).await;
        let closing = link.outbound().close_reason();
        if let Some(link) = Arc::into_inner(link) {
            link.leave().await;
        }
        closing
    }

    /// Reads the Hello and has it checked.
    async fn greet<M: Mouth, E: Ear>(
        &self,
        transport: TransportKey,
        mouth: M,
        ear: E,
    ) -> Result<(Streams<M, E>, Presented, Terms), Turned<M, E>> {
        let replayable = ear.is_replayable();
        let mut streams = Streams::new(mouth, ear, HELLO_CELL_MAX);
        if replayable {
            return Err(streams.refused(Refusal::HelloExpected));
        }
        let hello = match streams.hello().await {
            Ok(Some(hello)) => hello,
            Ok(None) => return Err(Turned::away()),
            Err(refusal) => return Err(streams.refused(refusal)),
        };
        let checked = self.gate.check(transport, &hello).await;
        let terms = || self.rules.terms(hello.traffic.as_ref());
        match checked.and_then(|presented| Ok((presented, terms()?))) {
            Ok((presented, terms)) => {
                streams.incoming.accept_up_to(MAX_CELL);
                streams.incoming.expect_shape(&terms.to_relay);
                Ok((streams, presented, terms))
            }
            Err(refusal) => Err(streams.refused(refusal)),
        }
    }
}

/// A connection that does not get in: with a reason, unless the peer has gone by itself.
struct Turned<M, E> {
    streams: Option<Streams<M, E>>,
    refusal: Option<Refusal>,
}

impl<M, E> Turned<M, E> {
    fn away() -> Self {
        Self {
            streams: None,
            refusal: None,
        }
    }
}

/// One stream, both ways, with its shaping.
pub(super) struct Streams<M, E> {
    pub(super) mouth: M,
    pub(super) ear: E,
    /// Padded: a line of another shape gets a writer of its own once Ready is said.
    pub(super) outgoing: Shaper,
    pub(super) incoming: Incoming,
}

impl<M: Mouth, E: Ear> Streams<M, E> {
    pub(super) fn new(mouth: M, ear: E, cell_max: usize) -> Self {
        let padded = Shape::new(Mode::Padded);
        Self {
            mouth,
            ear,
            outgoing: Shaper::new(padded, fresh_rng(), fresh_rng(), Micros::new(0)),
            incoming: Incoming::new(cell_max),
        }
    }

    fn refused(self, refusal: Refusal) -> Turned<M, E> {
        Turned {
            streams: Some(self),
            refusal: Some(refusal),
        }
    }

    /// The first frame, which must be a Hello. `None` when the peer has gone.
    async fn hello(&mut self) -> Result<Option<Hello>, Refusal> {
        loop {
            if let Some(frame) = self.incoming.next_frame().map_err(|it| breach(&it))? {
                return match decode(frame)? {
                    ToRelay::Hello(hello) => Ok(Some(hello)),
                    ToRelay::Create(_)
                    | ToRelay::Publish(_)
                    | ToRelay::Commit(_)
                    | ToRelay::Leave(_)
                    | ToRelay::Subscribe(_)
                    | ToRelay::PutKeyPackages(_)
                    | ToRelay::TakeKeyPackage(_)
                    | ToRelay::TakeWelcome(_)
                    | ToRelay::Welcomed(_)
                    | ToRelay::TakeGroupInfo(_)
                    | ToRelay::WantGroupInfo(_)
                    | ToRelay::SealGroupInfo(_)
                    | ToRelay::Seen(_)
                    | ToRelay::Renew(_)
                    | ToRelay::Ping(_)
                    | ToRelay::SlimSubscribe(_)
                    | ToRelay::SlimUnsubscribe(_)
                    | ToRelay::SlimPublish(_)
                    | ToRelay::TakeSlimLogs(_) => Err(Refusal::HelloExpected),
                };
            }
            let Some(piece) = self.ear.piece(HELLO_CELL_MAX).await else {
                return Ok(None);
            };
            self.incoming.receive(&piece).map_err(|it| breach(&it))?;
        }
    }

    /// Says why it ends, and waits a moment for the peer to have got it.
    async fn say_last(&mut self, closing: &Closing) {
        let last = async {
            let word = frame::encode(&ToAgent::Closing(closing.clone())).into();
            let tally = Tally::default();
            let (mouth, outgoing) = (&mut self.mouth, &mut self.outgoing);
            let written = write(mouth, outgoing, &mut Vec::new(), &[word], &tally).await;
            if written.is_ok() {
                self.mouth.finish().await;
            }
        };
        // Either way the connection is closed next, with the same reason where it has room for one.
        let _ = timeout(LAST_WORD_MAX, last).await;
    }
}

/// A connection that is in.
struct Talk<'a, C> {
    gate: &'a Gate,
    carrier: &'a C,
    link: &'a Arc<Link>,
    presented: &'a Presented,
    terms: Terms,
    began: Instant,
}

impl<C: Carrier> Talk<'_, C> {
    /// Until the peer has gone, or has been told why it must go.
    async fn run(&self, live: Streams<C::Mouth, C::Ear>) {
        let Streams {
            mouth,
            mut ear,
            outgoing,
            mut incoming,
        } = live;
        tokio::select! {
            () = self.write_live(mouth, outgoing) => {}
            () = self.read(&mut ear, &mut incoming) => {}
            () = self.second_lane() => {}
            () = self.hurry() => {}
        }
    }

    /// Ends when the last word has been written or the line is lost.
    async fn write_live(&self, mut mouth: C::Mouth, mut outgoing: Shaper) {
        let mut buffer = Vec::new();
        let mut frames = Vec::new();
        // Ready has a cell of its own: what would share it would show in its size, and has another
        // shape.
        let mut at_once = 0;
        loop {
            frames.clear();
            let Ok(last) = self.link.take(Lane::Live, &mut frames, at_once).await else {
                return;
            };
            at_once = WRITE_BYTES;
            if let Some(closing) = &last {
                frames.push(frame::encode(&ToAgent::Closing(closing.clone())).into());
            }
            let tally = self.link.tally();
            let written = write(&mut mouth, &mut outgoing, &mut buffer, &frames, tally).await;
            if written.is_err() {
                return;
            }
            if last.is_some() {
                // The peer has it, or is gone: both end the connection.
                return mouth.finish().await;
            }
            if self.terms.to_agent.mode() != Mode::Padded {
                // The set ends the task with us.
                let mut task = JoinSet::new();
                let paced = Paced::new(
                    Arc::clone(self.link),
                    mouth,
                    self.terms.to_agent,
                    self.began,
                );
                task.spawn(paced.run());
                task.join_next().await;
                return;
            }
        }
    }

    /// Ends when the peer has gone. A peer that breaks the rules is told so by the writer, which
    /// then ends the connection.
    async fn read(&self, ear: &mut C::Ear, incoming: &mut Incoming) {
        let mut heard = Heard::default();
        if let Err(refusal) = self.read_frames(ear, incoming, &mut heard).await {
            self.link.tally().breach();
            self.link.close(refusal, false);
            std::future::pending::<()>().await;
        }
    }

    async fn read_frames(
        &self,
        ear: &mut C::Ear,
        incoming: &mut Incoming,
        heard: &mut Heard,
    ) -> Result<(), Refusal> {
        let silence_max = self.carrier.silence_max(&self.terms.to_relay);
        loop {
            while let Some(bytes) = incoming.next_frame().map_err(|it| breach(&it))? {
                let len = bytes.len();
                let frame = decode(bytes)?;
                if self.take(frame, len).await.is_err() {
                    // The driver has stopped; its last word is on its way.
                    return std::future::pending().await;
                }
            }
            heard.count(incoming, self.link.tally());
            let piece = ear.piece(READ_BYTES);
            let piece = match silence_max {
                Some(max) => timeout(max, piece).await.unwrap_or_default(),
                None => piece.await,
            };
            let Some(piece) = piece else {
                return Ok(());
            };
            incoming.receive(&piece).map_err(|it| breach(&it))?;
        }
    }

    async fn take(&self, frame: ToRelay, len: usize) -> Result<(), crate::driver::Stopped> {
        if let ToRelay::Renew(renew) = &frame {
            let (transport, agent) = (self.carrier.transport(), self.presented.agent);
            let right = self.gate.check_renewal(transport, agent, renew).await;
            return self.link.renewed(renew.id, right).await;
        }
        self.link.frame(frame, len).await
    }

    /// Waits for the second stream and serves it. More streams than that have no meaning and are
    /// closed as they come.
    async fn second_lane(&self) {
        if self.terms.is_slotted() {
            return self.drop_further_streams().await;
        }
        let Some((mouth, ear)) = self.carrier.further().await else {
            return;
        };
        let mut streams = Streams::new(mouth, ear, MAX_CELL);
        self.link.outbound().split_lanes();
        tokio::select! {
            () = self.write_catch_up(&mut streams.mouth, &mut streams.outgoing) => {}
            () = self.read_second(&mut streams.ear, &mut streams.incoming) => {}
            () = self.drop_further_streams() => {}
        }
    }

    /// Ends when the line is lost.
    async fn write_catch_up(&self, mouth: &mut C::Mouth, outgoing: &mut Shaper) {
        let mut buffer = Vec::new();
        let mut frames = Vec::new();
        loop {
            frames.clear();
            let taken = self
                .link
                .take(Lane::CatchUp, &mut frames, WRITE_BYTES)
                .await;
            match taken {
                Ok(None) => {
                    let tally = self.link.tally();
                    let written = write(mouth, outgoing, &mut buffer, &frames, tally).await;
                    if written.is_err() {
                        return;
                    }
                }
                // The last word is the live lane's.
                Ok(Some(_)) | Err(_) => return std::future::pending().await,
            }
        }
    }

    /// The agent may finish its side of the second stream: it has nothing to say there.
    async fn read_second(&self, ear: &mut C::Ear, incoming: &mut Incoming) {
        self.read(ear, incoming).await;
        std::future::pending::<()>().await;
    }

    async fn drop_further_streams(&self) {
        while self.carrier.further().await.is_some() {}
    }

    /// Ends some time after the connection was to be closed: a peer that reads nothing is not
    /// waited for.
    async fn hurry(&self) {
        self.link.outbound().closing().await;
        tokio::time::sleep(LAST_WORD_MAX).await;
    }
}

/// How much of an agent's cover has been counted.
#[derive(Default)]
struct Heard {
    received: u64,
    missing: u64,
}

impl Heard {
    fn count(&mut self, incoming: &Incoming, tally: &Tally) {
        let cover = incoming.cover();
        let received = cover.received() - self.received;
        let missing = cover.missing() - self.missing;
        if missing > 0 {
            warn!(missing, "somebody takes cover out of a line");
        }
        tally.cover(received, missing);
        (self.received, self.missing) = (cover.received(), cover.missing());
    }
}

/// Writes frames as cells, together as far as they go into one buffer.
pub(super) async fn write(
    mouth: &mut impl Mouth,
    outgoing: &mut Shaper,
    buffer: &mut Vec<u8>,
    frames: &[Bytes],
    tally: &Tally,
) -> Result<(), LineLost> {
    // A padded line has no use for the time.
    let mut drain = |outgoing: &mut Shaper| {
        let passed = outgoing.advance(Micros::new(0), buffer);
        tally.sent(&passed);
    };
    for frame in frames {
        if outgoing.push(frame, Bulk::Wait).is_err() {
            drain(outgoing);
            // An empty line takes any frame that an encoder of ours makes.
            outgoing.push(frame, Bulk::Wait).map_err(|_| LineLost)?;
        }
    }
    drain(outgoing);
    let written = mouth.write(buffer).await;
    buffer.clear();
    buffer.shrink_to(KEPT_BYTES);
    written
}

/// Seeded by the operating system, and shared with nothing.
fn fresh_rng() -> ChaCha8Rng {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the operating system gives randomness");
    ChaCha8Rng::from_seed(seed)
}

fn decode(bytes: &[u8]) -> Result<ToRelay, Refusal> {
    frame::decode(bytes, FRAME_BYTES_MAX).map_err(|malformed| {
        debug!(%malformed, "a frame could not be read");
        if matches!(malformed, Malformed::TooLarge { .. }) {
            Refusal::TooLarge
        } else {
            Refusal::Malformed
        }
    })
}

fn breach(error: &skytale_shape::Error) -> Refusal {
    debug!(%error, "the line was broken");
    if *error == skytale_shape::Error::PeerMisbehaved(Breach::CellTooLarge) {
        Refusal::TooLarge
    } else {
        Refusal::Malformed
    }
}

/// The largest cell before Ready: a Hello with a token has some 700 bytes.
const HELLO_CELL_MAX: usize = 8_192;
const READ_BYTES: usize = 64 * 1024;
/// Frames that are written at once.
const WRITE_BYTES: usize = 128 * 1024;
/// A quiet connection's buffer shrinks to this.
const KEPT_BYTES: usize = 4_096;
/// How long a peer may take to read why its connection ends.
const LAST_WORD_MAX: Duration = Duration::from_secs(2);
