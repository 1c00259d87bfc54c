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
    routing::{delete, get, post, put},
};
use skytale_wire::http::Readiness;
use tokio::sync::{Notify, Semaphore};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    accounts, agents, api_keys,
    clock::Clock,
    config::Config,
    problem::{self, Refusal},
    relays,
    secret::{Hasher, random},
    signing::SigningKeys,
    store::Store,
    tally::Tally,
    tokens, usage,
};

/// The server's routes; nothing else answers.
pub(crate) fn routes(app: App) -> Router {
    Router::new()
        .route("/v1/accounts", post(accounts::sign_up))
        .route("/v1/accounts/me", get(accounts::me))
        .route("/v1/accounts/me/password", put(accounts::change_password))
        .route("/v1/accounts/me/deletion", post(accounts::delete))
        .route("/v1/accounts/{id}/keys", post(api_keys::create_for))
        .route("/v1/sessions", post(accounts::sign_in))
        .route("/v1/keys", get(api_keys::list).post(api_keys::create))
        .route("/v1/keys/{id}", delete(api_keys::revoke))
        .route("/v1/keys/{id}/rotation", post(api_keys::rotate))
        .route("/v1/agents", get(agents::list))
        .route("/v1/agents/{id}", put(agents::set))
        .route("/v1/tokens", post(tokens::exchange))
        .route("/v1/usage", get(usage::show))
        .route("/v1/revocations", get(relays::revocations))
        .route("/.well-known/jwks.json", get(tokens::jwks))
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
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
    /// Signs tokens, and checks those that are meant for this server.
    pub(crate) keys: SigningKeys,
    /// One place for each request that may be worked on at once.
    pub(crate) places: Semaphore,
    /// Rings when something was revoked, and when the server is about to end.
    pub(crate) revoked: Notify,
    pub(crate) draining: AtomicBool,
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
pub(crate) async fn alive() -> &'static str {
    "alive\n"
}

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
