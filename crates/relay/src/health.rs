//! What operators and their machines ask: is it alive, is it ready, what has it done.
//!
//! Plain HTTP for the operator's own network. No answer names a channel or an agent.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::Serialize;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::Gate,
    driver::{Door, Snapshot},
    edge::grpc::GrpcState,
};

mod metrics;

/// The listening HTTP server.
#[derive(Debug)]
pub struct Health {
    addr: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

/// What is asked about.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The driver.
    pub door: Door,
    /// The check of credentials.
    pub gate: Gate,
    /// The door for gRPC, if there is one.
    pub grpc: Option<Arc<GrpcState>>,
    /// Set when the relay has been told to stop.
    pub draining: CancellationToken,
}

/// The parts of readiness, as `/readyz` says them.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an answer of its own to the operator"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether agents should be sent here.
    pub ready: bool,
    /// The hub answers in time.
    pub hub: bool,
    /// The archive takes writes.
    pub archive: bool,
    /// The token issuers' keys are at hand.
    pub issuers: bool,
    /// Whether the door for gRPC listens; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<bool>,
    /// The relay has been told to stop.
    pub draining: bool,
}

impl Health {
    /// Listens at `addr`.
    pub async fn open(addr: SocketAddr, watched: Watched) -> std::io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, routes(watched), stop.clone()));
        Ok(Self {
            addr,
            stop,
            serving,
        })
    }

    /// Where it listens, with the port that it was given.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops listening and ends what is being answered.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // It has no reason to panic, and nothing of it is needed afterwards.
        let _ = (&mut self.serving).await;
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Watched {
    pub(crate) async fn readiness(&self) -> Readiness {
        let snapshot = self.look().await;
        let hub = snapshot.is_some();
        let archive = snapshot.is_some_and(|snapshot| snapshot.writable);
        let issuers = self.gate.is_ready();
        let grpc = self.grpc.as_ref().map(|grpc| grpc.listens());
        let draining = self.draining.is_cancelled();
        Readiness {
            ready: hub && archive && issuers && grpc != Some(false) && !draining,
            hub,
            archive,
            issuers,
            grpc,
            draining,
        }
    }

    async fn look(&self) -> Option<Snapshot> {
        timeout(LOOK_MAX, self.door.look()).await.ok()?.ok()
    }
}

fn routes(watched: Watched) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(Arc::new(watched))
}

async fn readyz(State(watched): State<Arc<Watched>>) -> impl IntoResponse {
    let readiness = watched.readiness().await;
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness))
}

async fn metrics_text(State(watched): State<Arc<Watched>>) -> impl IntoResponse {
    let text = watched.look().await.map(|snapshot| {
        let issuers = metrics::Issuers {
            are_ready: watched.gate.is_ready(),
            report_waits: watched.gate.report_waits(),
        };
        metrics::render(&snapshot, issuers, watched.grpc.as_deref())
    });
    match text {
        Some(text) => Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)),
        None => Err(StatusCode::SERVICE_UNAVAILABLE),
    }
}

async fn serve(listener: TcpListener, routes: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                // Out of file descriptors, or a peer that has gone again: neither ends this.
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    continue;
                };
                let service = TowerToHyperService::new(routes.clone());
                connections.spawn(async move {
                    let _place = place;
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEADER_MAX)
                        .max_buf_size(HEADER_BYTES_MAX)
                        .keep_alive(false)
                        .serve_connection(TokioIo::new(stream), service);
                    // One request for each connection, so its whole time is bounded.
                    let _ = timeout(REQUEST_MAX, connection).await;
                });
            }
        }
    }
}

/// Connections held at once; more are closed at once.
const CONNECTIONS_MAX: usize = 64;
const HEADER_MAX: Duration = Duration::from_secs(3);
const HEADER_BYTES_MAX: usize = 8_192;
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// A hub that takes longer to say how it is, is not ready.
const LOOK_MAX: Duration = Duration::from_secs(2);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
