//! The door for gRPC, over TCP: SLIM's data plane, health and reflection on one port.
//!
//! It accepts by itself and hands each connection to an HTTP/2 server: only so can the listener be
//! closed without losing a client ([`socket`]), and each connection be held to limits and deadlines
//! ([`connection`]). Left out: what a stream says, which is the matter of its own file.
//!
//! SLIM's clients give up for good when a stream is refused after TCP has connected. So this door
//! opens when the relay can check tokens, and not before; and it closes before any stream ends.

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use iroh::SecretKey;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

use super::places::Places;
use crate::{auth::Gate, config::RelayConfig, driver::Door, health::Watched};

mod connection;
/// For fuzzing alone: this decoder has no other way in but a port.
#[doc(hidden)]
pub mod framing;
mod native;
mod services;
mod slim;
mod socket;
mod tally;

pub use skytale_certificate::BadPair;
use skytale_certificate::Certificates;
pub use tally::{GrpcTallied, GrpcTally};

use connection::Times;
use framing::Budget;
use native::Lines;
use socket::Claimed;

/// The listening server and the connections that came by it.
pub struct GrpcEdge {
    addr: SocketAddr,
    edge: Arc<Edge>,
    accepting: Option<JoinHandle<()>>,
}

/// Why the door could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrpcError {
    /// The address is taken, or is not this machine's.
    #[error("cannot listen for gRPC on {addr}: {reason}")]
    Bind {
        /// Where.
        addr: SocketAddr,
        /// What the system says.
        reason: io::ErrorKind,
    },
    /// Certificate and key cannot be used.
    #[error(transparent)]
    Tls(#[from] BadPair),
}

/// What operators are told of the door.
#[derive(Debug, Default)]
pub struct GrpcState {
    listens: AtomicBool,
    tally: GrpcTally,
}

impl GrpcState {
    /// Whether clients can connect.
    pub fn listens(&self) -> bool {
        self.listens.load(Ordering::Relaxed)
    }

    /// What its streams have done.
    pub fn tally(&self) -> &GrpcTally {
        &self.tally
    }
}

/// What the door is made of.
#[derive(Debug)]
pub struct GrpcParts {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What readiness and tokens are asked of.
    pub watched: Watched,
    /// What operators are told.
    pub state: Arc<GrpcState>,
    /// What native lines prove that they have reached this relay with.
    pub secret: SecretKey,
}

impl GrpcEdge {
    /// Takes the address, and listens as soon as tokens can be checked: at once when they can be
    /// now.
    pub async fn open(config: &RelayConfig, parts: GrpcParts) -> Result<Self, GrpcError> {
        Self::open_with(config, parts, Times::new(config)).await
    }

    async fn open_with(
        config: &RelayConfig,
        parts: GrpcParts,
        times: Times,
    ) -> Result<Self, GrpcError> {
        let GrpcParts {
            addr,
            watched,
            state,
            secret,
        } = parts;
        let pair = config
            .grpc_tls_cert
            .clone()
            .zip(config.grpc_tls_key.clone());
        let certificates = match pair {
            Some((cert, key)) => Some(Arc::new(read_pair(cert, key).await?)),
            None => None,
        };
        let bind = |error: io::Error| GrpcError::Bind {
            addr,
            reason: error.kind(),
        };
        let claimed = Claimed::take(addr).map_err(bind)?;
        let addr = claimed.addr().map_err(bind)?;
        let (gate, door) = (watched.gate.clone(), watched.door.clone());
        let edge = Arc::new(Edge {
            lines: Lines::new(config, gate, door, &secret),
            gate: watched.gate.clone(),
            door: watched.door.clone(),
            state,
            places: Places::new(config),
            links: Places::new(config),
            budget: Budget::new(),
            times,
            certificates,
            open: config.danger_slim_open,
            closing: CancellationToken::new(),
            ending: CancellationToken::new(),
            killed: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let routes = edge.routes(watched).await;
        edge.watch_certificates();
        let listener = if edge.may_listen() {
            Ok(claimed.listen().map_err(bind)?)
        } else {
            info!("gRPC waits for the token issuers' keys");
            Err(claimed)
        };
        if listener.is_ok() {
            edge.state.listens.store(true, Ordering::Relaxed);
        }
        let accepting = tokio::spawn(accept(Arc::clone(&edge), routes, listener));
        Ok(Self {
            addr,
            edge,
            accepting: Some(accepting),
        })
    }

    /// Where it listens, with the port that it was given.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes the listener. Streams go on; whoever dials now is refused by TCP, after which SLIM's
    /// clients dial again.
    pub async fn stop_listening(&mut self) {
        self.edge.closing.cancel();
        if let Some(accepting) = self.accepting.take() {
            // It has no reason to panic, and if it did the listener is closed too.
            let _ = accepting.await;
        }
    }

    /// Ends streams that have not ended by themselves, cleanly, and then the connections, which may
    /// take so long to read it.
    pub async fn finish(mut self, within: Duration) {
        self.stop_listening().await;
        self.edge.ending.cancel();
        self.edge.tasks.close();
        if timeout(within, self.edge.tasks.wait()).await.is_err() {
            self.edge.killed.cancel();
            // Each task waits for this too, and holds nothing else.
            let _ = timeout(KILL_MAX, self.edge.tasks.wait()).await;
        }
    }
}

impl Drop for GrpcEdge {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
        self.edge.killed.cancel();
    }
}

impl fmt::Debug for GrpcEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcEdge")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

/// What every connection and every stream needs.
struct Edge {
    lines: Lines,
    gate: Gate,
    door: Door,
    state: Arc<GrpcState>,
    /// Who holds a connection, and who a stream in which something is said: one connection may
    /// carry many streams.
    places: Places,
    links: Places,
    budget: Arc<Budget>,
    times: Times,
    certificates: Option<Arc<Certificates>>,
    /// Whether SLIM is spoken with whoever comes.
    open: bool,
    /// Ends the listening; the streams, cleanly; and whatever is left.
    closing: CancellationToken,
    ending: CancellationToken,
    killed: CancellationToken,
    tasks: TaskTracker,
}

impl Edge {
    /// Every path that is answered; anything else is an unimplemented method.
    async fn routes(self: &Arc<Self>, watched: Watched) -> Router {
        let (standard, reporting) = services::standard(watched, self.ending.clone()).await;
        self.tasks.spawn(reporting);
        standard
            .into_axum_router()
            .merge(slim::routes(Arc::clone(self)))
            .merge(native::routes(Arc::clone(self)))
    }

    fn may_listen(&self) -> bool {
        self.open || self.gate.is_ready()
    }

    fn watch_certificates(&self) {
        if let Some(certificates) = &self.certificates {
            let watching = Arc::clone(certificates).watch(self.times.certificates);
            let ending = self.ending.clone();
            self.tasks.spawn(async move {
                ending.run_until_cancelled(watching).await;
            });
        }
    }

    /// Waits until tokens can be checked, then listens. `None` when the relay stops before.
    async fn listen_when_ready(&self, claimed: &Claimed) -> Option<TcpListener> {
        loop {
            if self.may_listen() {
                match claimed.listen() {
                    Ok(listener) => {
                        self.state.listens.store(true, Ordering::Relaxed);
                        info!("gRPC listens");
                        return Some(listener);
                    }
                    // Another program was quicker; an operator sees it in the readiness.
                    Err(error) => error!(kind = ?error.kind(), "cannot listen for gRPC"),
                }
            }
            tokio::select! {
                () = self.closing.cancelled() => return None,
                () = tokio::time::sleep(READY_PAUSE) => {}
            }
        }
    }
}

async fn accept(edge: Arc<Edge>, routes: Router, listener: Result<TcpListener, Claimed>) {
    let listener = match listener {
        Ok(listener) => listener,
        Err(claimed) => match edge.listen_when_ready(&claimed).await {
            Some(listener) => listener,
            None => return,
        },
    };
    loop {
        tokio::select! {
            () = edge.closing.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => connection::take_in(&edge, &routes, stream, from),
                // Out of file descriptors, or a peer that has gone again: neither ends this.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }
    edge.state.listens.store(false, Ordering::Relaxed);
    // Who has connected already would see the connection reset, and SLIM's clients would give up.
    socket::turn_newcomers_away(&listener);
    let last = async {
        while let Ok((stream, from)) = listener.accept().await {
            connection::take_in(&edge, &routes, stream, from);
        }
    };
    let _ = timeout(LAST_CALL, last).await;
}

async fn read_pair(cert: PathBuf, key: PathBuf) -> Result<Certificates, BadPair> {
    tokio::task::spawn_blocking(move || Certificates::read(&DOOR, cert, key))
        .await
        .unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
}

const DOOR: skytale_certificate::Door = skytale_certificate::Door {
    cert: "grpc_tls_cert",
    key: "grpc_tls_key",
    protocol: b"h2",
};
/// How often it is looked whether the door may open.
const READY_PAUSE: Duration = Duration::from_millis(200);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long those are still taken who had begun to connect when the listener closed: longer than a
/// packet takes round the world.
const LAST_CALL: Duration = Duration::from_millis(300);
/// How long tasks may take to notice that they were told to end at once.
const KILL_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
