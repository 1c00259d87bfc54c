//! Every route on one page, and what all handlers share.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    middleware,
};
use skytale_wire::http::Readiness;
use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    accounts, agents, api_keys,
    clock::Clock,
    config::Config,
    held,
    limits::Limits,
    once::{self, Secrets},
    openapi,
    problem::{self, Refusal},
    questions::{self, Questions},
    relays,
    secret::{Hasher, random},
    signing::SigningKeys,
    store::Store,
    tally::Tally,
    tokens, ui, usage,
};

/// The server's routes for programs, and their description; nothing else answers but pages for people.
pub(crate) fn described() -> OpenApiRouter<App> {
    for_agents()
        .routes(routes!(accounts::sign_up))
        .routes(routes!(accounts::me))
        .routes(routes!(accounts::change_password))
        .routes(routes!(accounts::delete))
        .routes(routes!(api_keys::create_for))
        .routes(routes!(accounts::sign_in))
        .routes(routes!(api_keys::list, api_keys::create))
        .routes(routes!(api_keys::revoke))
        .routes(routes!(api_keys::rotate))
        .routes(routes!(agents::list))
        .routes(routes!(agents::set))
        .routes(routes!(usage::show))
        .routes(routes!(usage::report))
        .routes(routes!(relays::revocations))
        .routes(routes!(questions::take))
        .routes(routes!(held::relays))
        .routes(routes!(held::channels))
        .routes(routes!(held::records))
        .routes(routes!(openapi::document))
        .routes(routes!(openapi::page))
}

/// What it takes to let agents in.
fn for_agents() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(tokens::exchange))
        .routes(routes!(tokens::jwks))
        .routes(routes!(alive))
        .routes(routes!(ready))
}

/// The server.
pub(crate) fn routes(app: App) -> Router {
    let pages = ui::routes(&app.config);
    behind_doors(described(), pages, app)
}

/// Nothing but what it takes to let agents in.
pub(crate) fn routes_of_agents(app: App) -> Router {
    behind_doors(for_agents(), Router::new(), app)
}

fn behind_doors(programs: OpenApiRouter<App>, pages: Router<App>, app: App) -> Router {
    Router::from(programs)
        .route_layer(middleware::from_fn_with_state(app.clone(), once::door))
        .merge(pages)
        .fallback(async || Refusal::NOT_FOUND)
        .layer(DefaultBodyLimit::max(app.config.body_bytes_max))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(middleware::from_fn_with_state(app.clone(), problem::door))
        .with_state(app)
}

/// What handlers work with.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) store: Box<dyn Store>,
    pub(crate) hasher: Hasher,
    pub(crate) limits: Limits,
    /// Signs tokens, and checks those that are meant for this server.
    pub(crate) keys: SigningKeys,
    /// One place for each request that may be worked on at once.
    pub(crate) places: Semaphore,
    /// Answers to requests that may come again.
    pub(crate) secrets: Secrets,
    /// Requests that are finished also when nobody waits for them any more.
    pub(crate) unattended: TaskTracker,
    /// Rings when something was revoked, and when the server is about to end.
    pub(crate) revoked: Notify,
    pub(crate) draining: AtomicBool,
    /// What relays are asked at the moment.
    pub(crate) questions: Questions,
    /// What has been done so far.
    pub(crate) tally: Tally,
}

impl App {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }
}

impl Shared {
    /// A version 7 UUID: ordered by time, unguessable in its lower half.
    pub(crate) fn uuid(&self) -> [u8; 16] {
        uuid::Builder::from_unix_timestamp_millis(self.clock.now().0, &random::<10>())
            .into_uuid()
            .into_bytes()
    }

    /// A name by which a refused caller and the log mean the same request.
    pub(crate) fn request_id(&self) -> String {
        format!("req_{}", uuid::Uuid::from_bytes(self.uuid()).simple())
    }
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The process runs. Says nothing of its parts: who restarts it must not do so for a full disk.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "is_alive",
    tag = "Operation",
    summary = "Whether the process runs",
    description = "",
    security(()),
    responses((status = 200, description = "It does", content_type = "text/plain", body = String)),
)]
pub(crate) async fn alive() -> &'static str {
    "alive\n"
}

#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "is_ready",
    tag = "Operation",
    summary = "Whether requests should be sent here",
    description = "",
    security(()),
    responses((status = 200, description = "They should", body = Readiness), (status = 503, description = "Not now", body = Readiness)),
)]
pub(crate) async fn ready(State(app): State<App>) -> (StatusCode, Json<Readiness>) {
    let draining = app.draining.load(Ordering::Relaxed);
    let store = app.store.ready().await.is_ok();
    let ready = store && !draining;
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let parts = Readiness {
        ready,
        store,
        draining,
    };
    (status, Json(parts))
}

#[cfg(test)]
mod tests;
