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
use metrics::{Key, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use serde::Serialize;
use skytale_wire::refusal::Refusal;
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
};

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
    async fn readiness(&self) -> Readiness {
        let snapshot = self.look().await;
        let hub = snapshot.is_some();
        let archive = snapshot.is_some_and(|snapshot| snapshot.writable);
        let issuers = self.gate.is_ready();
        let draining = self.draining.is_cancelled();
        Readiness {
            ready: hub && archive && issuers && !draining,
            hub,
            archive,
            issuers,
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
    let text = watched
        .look()
        .await
        .map(|snapshot| render(&snapshot, watched.gate.is_ready()));
    match text {
        Some(text) => Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)),
        None => Err(StatusCode::SERVICE_UNAVAILABLE),
    }
}

/// The counters belong to the hub. A fresh recorder for each scrape only writes them down, so
/// that several relays can live in one process.
fn render(snapshot: &Snapshot, issuers: bool) -> String {
    let page = Page(PrometheusBuilder::new().build_recorder());
    let counters = &snapshot.counters;
    page.gauge(
        "skytale_relay_writable",
        "Whether the archive takes writes.",
        usize::from(snapshot.writable),
    );
    page.gauge(
        "skytale_relay_issuers_ready",
        "Whether the token issuers' keys are at hand.",
        usize::from(issuers),
    );
    page.gauge(
        "skytale_relay_connections",
        "Connections that are open.",
        snapshot.connections,
    );
    page.gauge(
        "skytale_relay_channels",
        "Channels that there are.",
        snapshot.channels,
    );
    page.gauge(
        "skytale_relay_unstored",
        "Writes that are not yet durable.",
        snapshot.unstored,
    );
    for (name, about, value) in [
        (
            "skytale_relay_opened_total",
            "Connections that were let in.",
            counters.opened,
        ),
        (
            "skytale_relay_published_total",
            "Messages acknowledged.",
            counters.published,
        ),
        (
            "skytale_relay_acknowledged_total",
            "Commits and departures acknowledged.",
            counters.acknowledged,
        ),
        (
            "skytale_relay_created_total",
            "Channels created.",
            counters.created,
        ),
        (
            "skytale_relay_delivered_total",
            "Records delivered as they came.",
            counters.delivered,
        ),
        (
            "skytale_relay_caught_up_total",
            "Records delivered from the archive.",
            counters.caught_up,
        ),
        (
            "skytale_relay_appended_total",
            "Records handed to the archive.",
            counters.appended,
        ),
        (
            "skytale_relay_welcomes_total",
            "Welcomes delivered.",
            counters.welcomes,
        ),
        (
            "skytale_relay_key_packages_total",
            "KeyPackages handed out.",
            counters.key_packages,
        ),
        (
            "skytale_relay_reads_total",
            "Reads asked of the archive.",
            counters.reads,
        ),
        (
            "skytale_relay_real_cells_total",
            "Cells with frames sent to agents.",
            snapshot.tallied.real,
        ),
        (
            "skytale_relay_cover_cells_total",
            "Cover sent to agents.",
            snapshot.tallied.cover,
        ),
        (
            "skytale_relay_cells_over_schedule_total",
            "Cells sent beside a schedule, because the receiver allows it: a watcher of the line sees them.",
            snapshot.tallied.over,
        ),
        (
            "skytale_relay_slots_missed_total",
            "Slots in which nothing was sent, because this machine was late or the agent did not read.",
            snapshot.tallied.missed,
        ),
        (
            "skytale_relay_cover_received_total",
            "Cover of agents that arrived.",
            snapshot.tallied.cover_received,
        ),
        (
            "skytale_relay_cover_missing_total",
            "Cover of agents that somebody took out on its way.",
            snapshot.tallied.cover_missing,
        ),
        (
            "skytale_relay_line_breaches_total",
            "Lines that were closed because the agent broke their format.",
            snapshot.tallied.breaches,
        ),
    ] {
        page.counter(&Key::from_static_name(name), about, value);
    }
    for (name, about, by_reason) in [
        (
            "skytale_relay_refused_total",
            "Requests refused.",
            &counters.nacks,
        ),
        (
            "skytale_relay_closed_total",
            "Connections closed by the hub.",
            &counters.closed,
        ),
    ] {
        for (refusal, count) in by_reason {
            page.counter(&by(name, *refusal), about, *count);
        }
    }
    page.0.handle().render()
}

/// One scrape's text in the making.
struct Page(PrometheusRecorder);

impl Page {
    fn gauge(&self, name: &'static str, about: &'static str, value: usize) {
        self.0.describe_gauge(name.into(), None, about.into());
        #[expect(
            clippy::cast_precision_loss,
            reason = "far fewer than 2^52 of anything"
        )]
        let value = value as f64;
        self.0
            .register_gauge(&Key::from_static_name(name), &METADATA)
            .set(value);
    }

    fn counter(&self, key: &Key, about: &'static str, value: u64) {
        let name = key.name().to_owned();
        self.0
            .describe_counter(name.into(), Some(Unit::Count), about.into());
        self.0.register_counter(key, &METADATA).absolute(value);
    }
}

fn by(name: &'static str, refusal: Refusal) -> Key {
    Key::from_parts(
        name,
        vec![Label::from_static_parts("reason", refusal.code())],
    )
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

const METADATA: Metadata<'static> = Metadata::new("skytale_relay", Level::INFO, None);
/// Connections held at once; more are closed at once.
const CONNECTIONS_MAX: usize = 64;
const HEADER_MAX: Duration = Duration::from_secs(3);
const HEADER_BYTES_MAX: usize = 8_192;
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// A hub that takes longer to say how it is, is not ready.
const LOOK_MAX: Duration = Duration::from_secs(2);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_name_reasons_and_nothing_else() {
        let mut snapshot = Snapshot {
            writable: true,
            connections: 3,
            ..Snapshot::default()
        };
        snapshot.counters.published = 7;
        snapshot.counters.nacks.insert(Refusal::StaleEpoch, 2);

        let text = render(&snapshot, true);

        assert!(text.contains("skytale_relay_connections 3\n"), "{text}");
        assert!(text.contains("skytale_relay_published_total 7\n"), "{text}");
        assert!(
            text.contains("skytale_relay_refused_total{reason=\"stale_epoch\"} 2\n"),
            "{text}"
        );
    }
}
