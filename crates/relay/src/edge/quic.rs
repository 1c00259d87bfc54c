//! The native door: QUIC through iroh, two streams of shaped cells for each agent.
//!
//! The agent opens both. The first begins with a Hello, alone and in a small cell; after Ready it
//! carries requests, answers and what is new. The second, which the agent opens by writing a frame
//! on it, carries what is read from the archive, at lower priority: until it is there, that goes by
//! the first. 0-RTT is refused, because what comes in it can be replayed.
//!
//! Hello and Ready travel in padded cells. What a Hello wishes for the line, as far as the operator's
//! rules let it, holds from then on ([`super::terms`]); a line with slots has one stream only.
//!
//! Who has not said Hello holds little: one small cell, a small window, one place among the
//! strangers. Nothing here calls out: no relay servers, no address lookup, no port mapping.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use iroh::{
    Endpoint, SecretKey,
    endpoint::{
        Connection, Incoming as Knock, IncomingAddr, QuicTransportConfig, RecvStream, SendStream,
        VarInt, presets,
    },
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use skytale_shape::{Breach, Bulk, Incoming, Micros, Mode, Shape, Shaper, bucket::MAX_CELL};
use skytale_wire::{
    frame::{self, ALPN, Closing, FRAME_BYTES_MAX, Hello, Malformed, ToAgent, ToRelay},
    id::{RelayKey, TransportKey},
    refusal::Refusal,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
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

/// The listening endpoint and the connections that came by it.
pub struct QuicEdge {
    endpoint: Endpoint,
    /// Ends the listening; connections end with the driver.
    listening: CancellationToken,
    accepting: JoinHandle<()>,
}

/// Why the door could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuicError {
    /// The address is taken, or is not this machine's.
    #[error("cannot listen for QUIC on {addr}: {reason}")]
    Bind {
        /// Where.
        addr: SocketAddr,
        /// As the system says it.
        reason: String,
    },
}

impl QuicEdge {
    /// Listens, and lets in whom the gate lets in.
    pub async fn open(
        config: &RelayConfig,
        key: SecretKey,
        gate: Gate,
        door: Door,
    ) -> Result<Self, QuicError> {
        let addr = config.quic_addr;
        let bind = |reason: String| QuicError::Bind { addr, reason };
        let endpoint = Endpoint::builder(presets::Minimal)
            .secret_key(key)
            .alpns(vec![ALPN.to_vec()])
            .transport_config(transport_config())
            .clear_ip_transports()
            .bind_addr(addr)
            .map_err(|error| bind(error.to_string()))?
            .bind()
            .await
            .map_err(|error| bind(error.to_string()))?;
        let edge = Arc::new(Edge {
            gate,
            door,
            places: Places::new(config),
            hello_max: Duration::from_millis(config.hello_ms_max),
            rules: config.traffic.clone(),
        });
        let listening = CancellationToken::new();
        let accepting = tokio::spawn(accept(endpoint.clone(), edge, listening.clone()));
        Ok(Self {
            endpoint,
            listening,
            accepting,
        })
    }

    /// The key that clients pin.
    pub fn key(&self) -> RelayKey {
        RelayKey(*self.endpoint.id().as_bytes())
    }

    /// Where it listens, with the port that it was given.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.endpoint.bound_sockets().first().copied()
    }

    /// Takes no more connections.
    pub fn stop_listening(&self) {
        self.listening.cancel();
    }

    /// Waits until the last connection has ended, which they do when the driver has stopped, but
    /// not for ever.
    pub async fn finish(mut self, within: Duration) {
        self.listening.cancel();
        if timeout(within, &mut self.accepting).await.is_err() {
            self.accepting.abort();
        }
        self.endpoint.close().await;
    }
}

impl Drop for QuicEdge {
    /// The connections' tasks belong to the one that accepts.
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl fmt::Debug for QuicEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicEdge").finish_non_exhaustive()
    }
}

/// What every connection needs.
struct Edge {
    gate: Gate,
    door: Door,
    places: Places,
    hello_max: Duration,
    rules: TrafficRules,
}

async fn accept(endpoint: Endpoint, edge: Arc<Edge>, listening: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = listening.cancelled() => break,
            knock = endpoint.accept() => {
                let Some(knock) = knock else { break };
                if let Some((knock, place)) = edge.places.admit(knock) {
                    let edge = Arc::clone(&edge);
                    // Some 16 KiB, most of it masks and fill that are drawn ahead.
                    connections.spawn(async move { Box::pin(edge.serve(knock, place)).await });
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}

impl Edge {
    async fn serve(&self, knock: Knock, mut place: Place) {
        let Ok(accepting) = knock.accept() else {
            return;
        };
        let Ok(Ok(connection)) = timeout(self.hello_max, accepting).await else {
            return;
        };
        let closing = self.converse(&connection, &mut place).await;
        let (code, reason) = closing.map_or((0, ""), |closing| {
            (closing.refusal.number(), closing.refusal.code())
        });
        connection.close(VarInt::from(code), reason.as_bytes());
    }

    /// The whole life of a connection; gives back what the relay's last word was.
    async fn converse(&self, connection: &Connection, place: &mut Place) -> Option<Closing> {
        let greeting = timeout(self.hello_max, self.greet(connection)).await;
        let (streams, presented, terms) = match greeting {
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
        place.no_stranger_any_more();
        connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW));
        let transport = presented.transport;
        let Ok(link) = self.door.enter(presented.clone(), &terms).await else {
            return Some(Closing {
                refusal: Refusal::ShuttingDown,
                resume: true,
            });
        };
        let link = Arc::new(link);
        let talk = Talk {
            edge: self,
            link: &link,
            presented: &presented,
            transport,
            terms,
        };
        talk.run(connection, streams).await;
        let closing = link.outbound().close_reason();
        if let Some(link) = Arc::into_inner(link) {
            link.leave().await;
        }
        closing
    }

    /// Reads the Hello and has it checked.
    async fn greet(&self, connection: &Connection) -> Result<(Streams, Presented, Terms), Turned> {
        let Ok((send, recv)) = connection.accept_bi().await else {
            return Err(Turned::away());
        };
        let replayable = recv.is_0rtt();
        let mut streams = Streams::new(send, recv, HELLO_CELL_MAX);
        if replayable {
            return Err(streams.refused(Refusal::HelloExpected));
        }
        let hello = match streams.hello().await {
            Ok(Some(hello)) => hello,
            Ok(None) => return Err(Turned::away()),
            Err(refusal) => return Err(streams.refused(refusal)),
        };
        let transport = TransportKey(*connection.remote_id().as_bytes());
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
struct Turned {
    streams: Option<Streams>,
    refusal: Option<Refusal>,
}

impl Turned {
    fn away() -> Self {
        Self {
            streams: None,
            refusal: None,
        }
    }
}

/// One bidirectional stream with its shaping.
struct Streams {
    send: SendStream,
    recv: RecvStream,
    /// Padded: a line of another shape gets a writer of its own once Ready is said.
    outgoing: Shaper,
    incoming: Incoming,
}

impl Streams {
    fn new(send: SendStream, recv: RecvStream, cell_max: usize) -> Self {
        let padded = Shape::new(Mode::Padded);
        Self {
            send,
            recv,
            outgoing: Shaper::new(padded, fresh_rng(), fresh_rng(), Micros::new(0)),
            incoming: Incoming::new(cell_max),
        }
    }

    fn refused(self, refusal: Refusal) -> Turned {
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
                    | ToRelay::Ping(_) => Err(Refusal::HelloExpected),
                };
            }
            let Ok(Some(piece)) = self.recv.read_chunk(HELLO_CELL_MAX).await else {
                return Ok(None);
            };
            self.incoming.receive(&piece).map_err(|it| breach(&it))?;
        }
    }

    /// Says why it ends, and waits a moment for the peer to have got it.
    async fn say_last(&mut self, closing: &Closing) {
        let last = async {
            write(
                &mut self.send,
                &mut self.outgoing,
                &mut Vec::new(),
                &[frame::encode(&ToAgent::Closing(closing.clone())).into()],
                &Tally::default(),
            )
            .await?;
            self.send.finish().map_err(|_| LineLost)?;
            self.send.stopped().await.map_err(|_| LineLost)
        };
        // Either way the connection is closed next, with the same reason as its code.
        let _ = timeout(LAST_WORD_MAX, last).await;
    }
}

/// A connection that is in.
struct Talk<'a> {
    edge: &'a Edge,
    link: &'a Arc<Link>,
    presented: &'a Presented,
    transport: TransportKey,
    terms: Terms,
}

/// The stream cannot be read or written any more.
struct LineLost;

impl Talk<'_> {
    /// Until the peer has gone, or has been told why it must go.
    async fn run(&self, connection: &Connection, live: Streams) {
        let Streams {
            send,
            mut recv,
            outgoing,
            mut incoming,
        } = live;
        tokio::select! {
            () = self.write_live(connection, send, outgoing) => {}
            () = self.read(&mut recv, &mut incoming) => {}
            () = self.second_lane(connection) => {}
            () = self.hurry() => {}
        }
    }

    /// Ends when the last word has been written or the line is lost.
    async fn write_live(
        &self,
        connection: &Connection,
        mut send: SendStream,
        mut outgoing: Shaper,
    ) {
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
            let written = write(&mut send, &mut outgoing, &mut buffer, &frames, tally).await;
            if written.is_err() {
                return;
            }
            if last.is_some() {
                if send.finish().is_ok() {
                    // The peer has it, or is gone: both end the connection.
                    let _ = send.stopped().await;
                }
                return;
            }
            if self.terms.to_agent.mode() != Mode::Padded {
                // The set ends the task with us.
                let mut task = JoinSet::new();
                let link = Arc::clone(self.link);
                let paced = Paced::new(link, connection.clone(), send, self.terms.to_agent);
                task.spawn(paced.run());
                task.join_next().await;
                return;
            }
        }
    }

    /// Ends when the peer has gone. A peer that breaks the rules is told so by the writer, which
    /// then ends the connection.
    async fn read(&self, recv: &mut RecvStream, incoming: &mut Incoming) {
        let mut heard = Heard::default();
        if let Err(refusal) = self.read_frames(recv, incoming, &mut heard).await {
            self.link.tally().breach();
            self.link.close(refusal, false);
            std::future::pending::<()>().await;
        }
    }

    async fn read_frames(
        &self,
        recv: &mut RecvStream,
        incoming: &mut Incoming,
        heard: &mut Heard,
    ) -> Result<(), Refusal> {
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
            let Ok(Some(piece)) = recv.read_chunk(READ_BYTES).await else {
                return Ok(());
            };
            incoming.receive(&piece).map_err(|it| breach(&it))?;
        }
    }

    async fn take(&self, frame: ToRelay, len: usize) -> Result<(), crate::driver::Stopped> {
        if let ToRelay::Renew(renew) = &frame {
            let agent = self.presented.agent;
            let right = self
                .edge
                .gate
                .check_renewal(self.transport, agent, renew)
                .await;
            return self.link.renewed(renew.id, right).await;
        }
        self.link.frame(frame, len).await
    }

    /// Waits for the second stream and serves it. More streams than that have no meaning and are
    /// closed as they come.
    async fn second_lane(&self, connection: &Connection) {
        if self.terms.is_slotted() {
            return drop_further_streams(connection).await;
        }
        let Ok((send, recv)) = connection.accept_bi().await else {
            return;
        };
        // Refused only when the stream is closed already: then writing ends soon enough.
        let _ = send.set_priority(CATCH_UP_PRIORITY);
        let mut streams = Streams::new(send, recv, MAX_CELL);
        self.link.outbound().split_lanes();
        tokio::select! {
            () = self.write_catch_up(&mut streams.send, &mut streams.outgoing) => {}
            () = self.read_second(&mut streams.recv, &mut streams.incoming) => {}
            () = drop_further_streams(connection) => {}
        }
    }

    /// Ends when the line is lost.
    async fn write_catch_up(&self, send: &mut SendStream, outgoing: &mut Shaper) {
        let mut buffer = Vec::new();
        let mut frames = Vec::new();
        loop {
            frames.clear();
            match self
                .link
                .take(Lane::CatchUp, &mut frames, WRITE_BYTES)
                .await
            {
                Ok(None) => {
                    let tally = self.link.tally();
                    if write(send, outgoing, &mut buffer, &frames, tally)
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
                // The last word is the live lane's.
                Ok(Some(_)) | Err(_) => return std::future::pending().await,
            }
        }
    }

    /// The agent may finish its side of the second stream: it has nothing to say there.
    async fn read_second(&self, recv: &mut RecvStream, incoming: &mut Incoming) {
        self.read(recv, incoming).await;
        std::future::pending::<()>().await;
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
async fn write(
    send: &mut SendStream,
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
    let written = send.write_all(buffer).await.map_err(|_| LineLost);
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

async fn drop_further_streams(connection: &Connection) {
    while connection.accept_bi().await.is_ok() {}
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

/// Who holds a place at the door.
struct Places {
    all: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    strangers_max: usize,
    per_ip: Arc<Mutex<HashMap<IpAddr, usize>>>,
    per_ip_max: usize,
}

/// One connection's places; they are free again when this is dropped.
struct Place {
    _one_of_all: OwnedSemaphorePermit,
    stranger: Option<OwnedSemaphorePermit>,
    per_ip: Arc<Mutex<HashMap<IpAddr, usize>>>,
    ip: IpAddr,
}

impl Places {
    fn new(config: &RelayConfig) -> Self {
        Self {
            all: Arc::new(Semaphore::new(config.connections_max)),
            strangers: Arc::new(Semaphore::new(config.strangers_max)),
            strangers_max: config.strangers_max,
            per_ip: Arc::default(),
            per_ip_max: config.connections_per_ip_max,
        }
    }

    /// A place for who knocks, or a refusal that costs one packet. When there are many strangers,
    /// an address must first show that it can be answered: it may be made up.
    fn admit(&self, knock: Knock) -> Option<(Knock, Place)> {
        let IncomingAddr::Ip(addr) = knock.remote_addr() else {
            knock.refuse();
            return None;
        };
        let crowded = self.strangers.available_permits() < self.strangers_max / 2;
        if crowded && !knock.remote_addr_validated() {
            // Fails only for an address that is validated.
            let _ = knock.retry();
            return None;
        }
        if let Some(place) = self.take(addr.ip()) {
            Some((knock, place))
        } else {
            knock.refuse();
            None
        }
    }

    fn take(&self, ip: IpAddr) -> Option<Place> {
        let one_of_all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let stranger = Arc::clone(&self.strangers).try_acquire_owned().ok()?;
        let ip = network(ip);
        let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let held = per_ip.entry(ip).or_default();
        if *held >= self.per_ip_max {
            return None;
        }
        *held += 1;
        Some(Place {
            _one_of_all: one_of_all,
            stranger: Some(stranger),
            per_ip: Arc::clone(&self.per_ip),
            ip,
        })
    }
}

impl Place {
    fn no_stranger_any_more(&mut self) {
        self.stranger = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = per_ip.get_mut(&self.ip) {
            *held -= 1;
            if *held == 0 {
                per_ip.remove(&self.ip);
            }
        }
    }
}

/// What counts as one address: who has an IPv6 network has all of its addresses.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// Keep-alives are iroh's, every 5 s; an agent that asks more often spares us ours.
fn transport_config() -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_MS_MAX).into()))
        .max_concurrent_bidi_streams(VarInt::from_u32(16))
        .max_concurrent_uni_streams(VarInt::from_u32(4))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .send_window(SEND_WINDOW)
        // The spin bit tells a watcher the round-trip time.
        .allow_spin(false)
        // Packet sizes say nothing about the path when there is one for all paths.
        .initial_mtu(1200)
        .mtu_discovery_config(None)
        .datagram_receive_buffer_size(None)
        .build()
}

/// After this silence an agent is gone, and its place and its memory are free. As long as iroh gives
/// a path, which lives through a bad line; the agent's own limit is the same. One that came back in
/// the meantime has replaced itself before.
const IDLE_MS_MAX: u32 = 15_000;
/// Bytes that a connection may send ahead of being read: before Hello, and after.
const STRANGER_WINDOW: u32 = 32 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
const STREAM_WINDOW: u32 = 512 * 1024;
/// Bytes written and not yet acknowledged by the peer.
const SEND_WINDOW: u64 = 1024 * 1024;
/// The largest cell before Ready: a Hello with a token has some 700 bytes.
const HELLO_CELL_MAX: usize = 8_192;
const READ_BYTES: usize = 64 * 1024;
/// Frames that are written at once.
const WRITE_BYTES: usize = 128 * 1024;
/// A quiet connection's buffer shrinks to this.
const KEPT_BYTES: usize = 4_096;
const CATCH_UP_PRIORITY: i32 = -1;
/// How long a peer may take to read why its connection ends.
const LAST_WORD_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
