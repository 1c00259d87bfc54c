//! The native door: QUIC through iroh, two streams of shaped cells for each agent.
//!
//! What is said on them is [`super::talk`]'s affair. 0-RTT is refused, because what comes in it can be
//! replayed.
//!
//! Who has not said Hello holds little: one small cell, a small window, one place among the
//! strangers. Nothing here calls out: no relay servers, no address lookup, no port mapping.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use iroh::{
    Endpoint, SecretKey,
    endpoint::{
        AckFrequencyConfig, Connection, Incoming as Knock, IncomingAddr, QuicTransportConfig,
        RecvStream, SendStream, VarInt, presets,
    },
};
use skytale_shape::Shape;
use skytale_wire::{
    frame::ALPN,
    id::{RelayKey, TransportKey},
    refusal::Refusal,
};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    places::{Place, Places},
    talk::{Carrier, Ear, LineLost, Mouth, Reception},
};
use crate::{auth::Gate, config::RelayConfig, driver::Door};

mod threads;

use threads::{Slotted, SlottedLine, Threads};

/// The listening endpoint and the connections that came by it.
pub struct QuicEdge {
    endpoint: Endpoint,
    /// Ends the listening; connections end with the driver.
    listening: CancellationToken,
    accepting: JoinHandle<()>,
    /// The last to go: the others' tasks run on them.
    _threads: Threads,
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
    /// The system gave no thread.
    #[error("no thread could be started: {0}")]
    Threads(io::ErrorKind),
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
        let threads = Threads::start().map_err(|error| QuicError::Threads(error.kind()))?;
        let builder = Endpoint::builder(presets::Minimal)
            .secret_key(key)
            .alpns(vec![ALPN.to_vec()])
            .transport_config(transport_config())
            .clear_ip_transports()
            .bind_addr(addr)
            .map_err(|error| bind(error.to_string()))?;
        let endpoint = threads
            .handle()
            .spawn(builder.bind())
            .await
            .map_err(|error| bind(error.to_string()))?
            .map_err(|error| bind(error.to_string()))?;
        let edge = Arc::new(Edge {
            reception: Reception::new(config, gate, door),
            places: Places::new(config),
            slotted: threads.slotted(),
        });
        let listening = CancellationToken::new();
        let accepting = accept(endpoint.clone(), edge, listening.clone());
        Ok(Self {
            accepting: threads.handle().spawn(accepting),
            endpoint,
            listening,
            _threads: threads,
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
    reception: Reception,
    places: Places,
    slotted: Slotted,
}

async fn accept(endpoint: Endpoint, edge: Arc<Edge>, listening: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = listening.cancelled() => break,
            knock = endpoint.accept() => {
                let Some(knock) = knock else { break };
                if let Some((knock, place)) = edge.admit(knock) {
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
    /// A place for who knocks, or a refusal that costs one packet.
    fn admit(&self, knock: Knock) -> Option<(Knock, Place)> {
        let IncomingAddr::Ip(addr) = knock.remote_addr() else {
            knock.refuse();
            return None;
        };
        if self.places.are_crowded() && !knock.remote_addr_validated() {
            // Fails only for an address that is validated.
            let _ = knock.retry();
            return None;
        }
        if let Some(place) = self.places.take(addr.ip()) {
            Some((knock, place))
        } else {
            knock.refuse();
            None
        }
    }

    async fn serve(&self, knock: Knock, place: Place) {
        let Ok(accepting) = knock.accept() else {
            return;
        };
        let Ok(Ok(connection)) = timeout(self.reception.hello_max(), accepting).await else {
            return;
        };
        let carrier = Quic {
            connection,
            place: Mutex::new(place),
            all_slotted: self.slotted.clone(),
            slotted: Mutex::default(),
        };
        let first = carrier.stream();
        let closing = Box::pin(self.reception.converse(&carrier, first)).await;
        let (code, reason) = closing.map_or((0, ""), |closing| {
            (closing.refusal.number(), closing.refusal.code())
        });
        carrier
            .connection
            .close(VarInt::from(code), reason.as_bytes());
    }
}

/// A QUIC connection.
struct Quic {
    connection: Connection,
    place: Mutex<Place>,
    all_slotted: Slotted,
    /// Counted among them for as long as it lives, if it has slots.
    slotted: Mutex<Option<SlottedLine>>,
}

impl Quic {
    async fn stream(&self) -> Option<(QuicMouth, QuicEar)> {
        let (send, recv) = self.connection.accept_bi().await.ok()?;
        let mouth = QuicMouth {
            stream: send,
            connection: self.connection.clone(),
            written: 0,
        };
        Some((mouth, QuicEar(recv)))
    }
}

impl Carrier for Quic {
    type Mouth = QuicMouth;
    type Ear = QuicEar;

    fn transport(&self) -> TransportKey {
        TransportKey(*self.connection.remote_id().as_bytes())
    }

    fn let_in(&self, to_agent: &Shape) -> Result<(), Refusal> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        place.no_stranger_any_more();
        if to_agent.beat().is_some() {
            let mut slotted = self.slotted.lock().unwrap_or_else(PoisonError::into_inner);
            *slotted = Some(self.all_slotted.line());
        }
        self.connection
            .set_receive_window(VarInt::from_u32(CONNECTION_WINDOW));
        Ok(())
    }

    fn silence_max(&self, _to_relay: &Shape) -> Option<Duration> {
        None
    }

    async fn further(&self) -> Option<(QuicMouth, QuicEar)> {
        let (mouth, ear) = self.stream().await?;
        // Refused only when the stream is closed already: then writing ends soon enough.
        let _ = mouth.stream.set_priority(CATCH_UP_PRIORITY);
        Some((mouth, ear))
    }
}

struct QuicMouth {
    stream: SendStream,
    connection: Connection,
    /// Pieces of streams that QUIC had sent before the last cell was written.
    written: u64,
}

impl QuicMouth {
    fn stream_frames(&self) -> u64 {
        self.connection.stats().frame_tx.stream
    }
}

impl Mouth for QuicMouth {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), LineLost> {
        self.stream.write_all(bytes).await.map_err(|_| LineLost)
    }

    async fn apart(&mut self) {
        for _ in 0..APART_TRIES {
            if self.stream_frames() > self.written {
                break;
            }
            sleep(APART).await;
        }
        self.written = self.stream_frames();
    }

    async fn finish(&mut self) {
        if self.stream.finish().is_ok() {
            let _ = self.stream.stopped().await;
        }
    }
}

struct QuicEar(RecvStream);

impl Ear for QuicEar {
    async fn piece(&mut self, max: usize) -> Option<Bytes> {
        self.0.read_chunk(max).await.ok().flatten()
    }

    fn is_replayable(&self) -> bool {
        self.0.is_0rtt()
    }
}

/// Keep-alives are iroh's, every 5 s; an agent that asks more often spares us ours.
fn transport_config() -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .ack_frequency_config(Some(at_once()))
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

/// Agents are to acknowledge each packet as it comes. When a timer of theirs says when, the wait tells a
/// watcher a little about whether the program around it is at work (`docs/traffic.md`).
fn at_once() -> AckFrequencyConfig {
    let mut config = AckFrequencyConfig::default();
    config.ack_eliciting_threshold(VarInt::from_u32(0));
    config
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
const CATCH_UP_PRIORITY: i32 = -1;
/// How often it is looked whether QUIC has sent a cell before the next one is written, and how many
/// times.
const APART: Duration = Duration::from_millis(1);
const APART_TRIES: u32 = 20;

#[cfg(test)]
mod tests;
