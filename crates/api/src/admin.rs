//! What operators and their machines ask, on an address of its own: is it alive, is it ready, what has
//! it done. Plain HTTP for the operator's own network; no answer names an account, a key or an agent.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use crate::{
    error::Error,
    router::{App, alive, ready},
    tally,
};

/// An address that is listened on, and nobody answered yet.
#[derive(Debug)]
pub(crate) struct Admin {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Admin {
    pub(crate) async fn bind(addr: SocketAddr) -> Result<Self, Error> {
        let cannot = |e: io::Error| Error::Admin(addr, e);
        let listener = TcpListener::bind(addr).await.map_err(cannot)?;
        let addr = listener.local_addr().map_err(cannot)?;
        Ok(Self { listener, addr })
    }

    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers until it is dropped: also while the server finishes what it has begun, so that
    /// whoever asks hears that it does.
    pub(crate) async fn serve(self, app: App) {
        let routes = Router::new()
            .route("/livez", get(alive))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(app);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept() => {
                    // Out of file descriptors, or a peer that has gone again: neither ends this.
                    let Ok((stream, _)) = accepted else {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    };
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                        continue;
                    };
                    let answering = answer(stream, routes.clone());
                    connections.spawn(async move {
                        answering.await;
                        drop(place);
                    });
                }
            }
        }
    }
}

/// One request for each connection, so its whole time is bounded.
async fn answer(stream: TcpStream, routes: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    // Whoever has gone away needs no answer.
    let _ = timeout(REQUEST_MAX, connection).await;
}

async fn metrics(State(app): State<App>) -> impl IntoResponse {
    let page = tally::page(&app).await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page)
}

/// Connections held at once; more are closed at once.
const CONNECTIONS_MAX: usize = 64;
const HEAD_MAX: Duration = Duration::from_secs(3);
const HEAD_BYTES_MAX: usize = 8_192;
const REQUEST_MAX: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
