//! One TCP connection: TLS if there is to be any, HTTP/2 with every limit set, and the times by
//! which something must have happened.
//!
//! What asks for nothing is closed. A connection that holds a stream in which something is said may
//! be silent for as long as HTTP/2's pings are answered: that is how SLIM uses it.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    rt::Executor,
    server::conn::http2,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Edge, socket::Prompt};
use crate::{config::RelayConfig, edge::places::Place};

/// By when things must have happened.
#[derive(Debug, Clone)]
pub(super) struct Times {
    /// From TCP to the first request, and from that to the first message of a stream.
    pub(super) first: Duration,
    /// How long a connection may hold no stream in which something is said.
    pub(super) idle: Duration,
    /// How old a connection may become, and how long its streams may then go on.
    pub(super) age: Duration,
    pub(super) grace: Duration,
    /// How long a stream may wait for its token to be checked.
    pub(super) check: Duration,
    /// How often certificates are looked at.
    pub(super) certificates: Duration,
}

impl Times {
    pub(super) fn new(config: &RelayConfig) -> Self {
        Self {
            first: Duration::from_millis(config.hello_ms_max),
            idle: IDLE_MAX,
            age: AGE_MAX,
            grace: GRACE,
            check: CHECK_MAX,
            certificates: CERTIFICATES_INTERVAL,
        }
    }
}

/// The connection that a request came by: each request carries it.
#[derive(Clone)]
pub(super) struct Caller(Arc<Seat>);

struct Seat {
    from: SocketAddr,
    place: Mutex<Place>,
    asked: AtomicBool,
    links: AtomicUsize,
    ending: CancellationToken,
    killed: CancellationToken,
}

/// A stream in which something is said, for as long as it is open.
pub(super) struct Seated {
    _place: Place,
    caller: Caller,
}

impl Caller {
    /// A place for a stream whose sender has shown its right to it; `None` when there are too many.
    pub(super) fn sit_down(&self, edge: &Edge) -> Option<Seated> {
        let Some(mut place) = edge.links.take(self.0.from.ip()) else {
            edge.state.tally().crowded();
            return None;
        };
        place.no_stranger_any_more();
        let mut seat = self.0.place.lock().unwrap_or_else(PoisonError::into_inner);
        seat.no_stranger_any_more();
        drop(seat);
        self.0.links.fetch_add(1, Ordering::Relaxed);
        Some(Seated {
            _place: place,
            caller: self.clone(),
        })
    }

    /// From where the connection comes.
    pub(super) fn ip(&self) -> IpAddr {
        self.0.from.ip()
    }

    /// Cancelled when the streams of this connection are to end, cleanly.
    pub(super) fn ending(&self) -> &CancellationToken {
        &self.0.ending
    }

    /// Cancelled when nothing of this connection is left.
    pub(super) fn killed(&self) -> &CancellationToken {
        &self.0.killed
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.caller.0.links.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection that TCP has let in, if there is a place for it.
pub(super) fn take_in(edge: &Arc<Edge>, routes: &Router, stream: TcpStream, from: SocketAddr) {
    let Some(place) = edge.places.take(from.ip()) else {
        edge.state.tally().crowded();
        return;
    };
    let caller = Caller(Arc::new(Seat {
        from,
        place: Mutex::new(place),
        asked: AtomicBool::new(false),
        links: AtomicUsize::new(0),
        ending: edge.ending.child_token(),
        killed: edge.killed.child_token(),
    }));
    let routes = routes.clone();
    let tasks = edge.tasks.clone();
    let edge = Arc::clone(edge);
    tasks.spawn(async move {
        let killed = caller.0.killed.clone();
        // Whatever the connection's streams have begun ends with it.
        let _over = killed.clone().drop_guard();
        let serving = serve(&edge, routes, stream, caller);
        killed.run_until_cancelled(serving).await;
    });
}

async fn serve(edge: &Arc<Edge>, routes: Router, stream: TcpStream, caller: Caller) {
    let stream = Prompt::new(stream);
    let Some(certificates) = &edge.certificates else {
        return converse(edge, routes, stream, caller).await;
    };
    let shaking_hands = certificates.acceptor().accept(stream);
    match timeout(edge.times.first, shaking_hands).await {
        Ok(Ok(stream)) => Box::pin(converse(edge, routes, stream, caller)).await,
        Ok(Err(_)) => {}
        Err(_) => edge.state.tally().silent(),
    }
}

async fn converse<S>(edge: &Arc<Edge>, routes: Router, stream: S, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let seat = Arc::clone(&caller.0);
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: Request<Incoming>| {
        caller.0.asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(caller.clone());
        routes.call(request)
    });
    let connection = http2(&edge.tasks).serve_connection(TokioIo::new(stream), service);
    let times = &edge.times;
    let mut connection = pin!(connection);
    let mut first = pin!(sleep(times.first));
    let mut first_is_over = false;
    let mut idle = pin!(sleep(times.idle));
    let mut age = pin!(sleep(spread(times.age)));
    let mut overtime = pin!(sleep(Duration::ZERO));
    let mut leaving = false;
    loop {
        let leaves = tokio::select! {
            // An error is the peer's, or its network's; the streams know of it.
            _ = connection.as_mut() => return,
            () = first.as_mut(), if !first_is_over => {
                first_is_over = true;
                if !seat.asked.load(Ordering::Relaxed) {
                    return edge.state.tally().silent();
                }
                false
            }
            () = idle.as_mut() => {
                idle.set(sleep(times.idle));
                seat.links.load(Ordering::Relaxed) == 0
            }
            () = age.as_mut(), if !leaving => true,
            () = seat.ending.cancelled(), if !leaving => true,
            () = overtime.as_mut(), if leaving => {
                if seat.ending.is_cancelled() {
                    return;
                }
                seat.ending.cancel();
                overtime.set(sleep(times.grace));
                false
            }
        };
        if leaves && !leaving {
            leaving = true;
            connection.as_mut().graceful_shutdown();
            overtime.set(sleep(times.grace));
        }
    }
}

/// HTTP/2 with every limit set: what a peer can make us hold is bounded by these.
fn http2(tasks: &TaskTracker) -> http2::Builder<Spawner> {
    let mut builder = http2::Builder::new(Spawner(tasks.clone()));
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buf_size(SEND_BYTES_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(ERROR_RESETS_MAX);
    builder
}

/// Runs what HTTP/2 does beside a connection where the door can wait for it.
#[derive(Debug, Clone)]
struct Spawner(TaskTracker);

impl<F> Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Up to a tenth less, so that clients that came together do not come back together.
fn spread(age: Duration) -> Duration {
    let mut chance = [0];
    // Without chance they come together: no harm but a busy moment.
    let _ = getrandom::fill(&mut chance);
    age.saturating_sub(age / 10 * u32::from(chance[0]) / 255)
}

/// As SLIM's own node has it.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_mins(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
const AGE_MAX: Duration = Duration::from_hours(2);
const GRACE: Duration = Duration::from_secs(10);
/// Enough for any probe; who wants to watch for longer is told to connect again.
const IDLE_MAX: Duration = Duration::from_mins(1);
const CHECK_MAX: Duration = Duration::from_secs(30);
const CERTIFICATES_INTERVAL: Duration = Duration::from_secs(10);
const STREAMS_MAX: u32 = 64;
/// Bytes that may come before they are read: of one stream, of a connection.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const FRAME_BYTES_MAX: u32 = 64 * 1024;
/// Bytes of one stream that may wait for the peer's window below the stream's own queue.
const SEND_BYTES_MAX: usize = 256 * 1024;
/// A token for SLIM has up to 3,600 bytes.
const HEADERS_BYTES_MAX: u32 = 8 * 1024;
/// Streams that a peer opens and resets at once, and streams that we reset for its mistakes, before
/// the connection ends.
const RESETS_MAX: usize = 20;
const ERROR_RESETS_MAX: usize = 64;
