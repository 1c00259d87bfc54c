//! What relays ask this server, and how they prove who they are.
//!
//! A relay signs each request with the key that agents pin, and only those that the configuration
//! names are answered: nothing has to be handed over that could be stolen.

use std::{sync::atomic::Ordering, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request, State},
    http::request::Parts,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, de::DeserializeOwned};
use skytale_wire::{
    http::{RelaySignature, Revocations},
    id::RelayKey,
    token::{LEEWAY_MS, LIFETIME_MS_MAX},
};
use tokio::time::{Instant, sleep_until};

use crate::{body, caller::authorization, problem::Refusal, query::Query, router::App};

/// A relay of this server, by its signature over a request without a body.
#[derive(Debug)]
pub(crate) struct Relay(pub(crate) RelayKey);

/// A relay of this server, and what it says in a body that it has signed.
#[derive(Debug)]
pub(crate) struct Signed<T>(pub(crate) Relay, pub(crate) T);

impl FromRequestParts<App> for Relay {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        Self::of(parts, app, b"")
    }
}

impl<T: DeserializeOwned> FromRequest<App> for Signed<T> {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        // Whoever names no relay of ours has nothing read.
        Relay::claimed(&parts, app).map_err(Refusal::into_response)?;
        let request = Request::from_parts(parts.clone(), body);
        let bytes = Bytes::from_request(request, app)
            .await
            .map_err(axum::response::IntoResponse::into_response)?;
        let relay = Relay::of(&parts, app, &bytes).map_err(Refusal::into_response)?;
        let said = body::read(&bytes).map_err(Refusal::into_response)?;
        Ok(Self(relay, said))
    }
}

impl Relay {
    fn of(parts: &Parts, app: &App, body: &[u8]) -> Result<Self, Refusal> {
        let said = Self::claimed(parts, app)?;
        let path = parts.uri.path_and_query().map_or("", |it| it.as_str());
        let target = format!("{} {path}", parts.method);
        if said.covers(&target, body) {
            Ok(Self(said.relay))
        } else {
            tracing::debug!("a relay's request is refused: it is not what was signed");
            Err(Refusal::NO_RELAY)
        }
    }

    /// Who says to have signed it, and when: a relay of ours, and of late.
    fn claimed(parts: &Parts, app: &App) -> Result<RelaySignature, Refusal> {
        let said: RelaySignature = authorization(parts)
            .and_then(|text| text.parse().ok())
            .ok_or(Refusal::NO_RELAY)?;
        let now = app.clock.now();
        let apart = now.since(said.time).max(said.time.since(now));
        let mut relays = app.config.relays.iter();
        let known = relays.any(|relay| relay.key == said.relay);
        if known && apart <= SIGNATURE_MS_MAX {
            Ok(said)
        } else {
            tracing::debug!(known, apart, "a relay's request is refused");
            Err(Refusal::NO_RELAY)
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    after: Option<u64>,
}

/// `GET /v1/revocations`: answers as soon as there is something, or empty after a while, so that
/// the relay hears within a moment what was revoked, and always that this server still speaks.
#[utoipa::path(
    get,
    path = "/v1/revocations",
    operation_id = "list_revocations",
    tag = "Relays",
    summary = "What was revoked",
    description = "Answers as soon as there is something behind `after`, or empty after five seconds. Without `after`: what was revoked in the last hour.",
    params(("after" = Option<u64>, Query, description = "The `next` of the answer before")),
    security(("relay" = [])),
    responses((status = 200, description = "What counts no more, the oldest first", body = Revocations)),
)]
pub(crate) async fn revocations(
    State(app): State<App>,
    _relay: Relay,
    Query(page): Query<Page>,
) -> Result<Json<Revocations>, Refusal> {
    let wait = Duration::from_millis(app.config.request_ms_max / 2).min(WAIT_MAX);
    let until = Instant::now() + wait;
    loop {
        // Before the look: what comes in between rings too.
        let rung = app.revoked.notified();
        let since = app
            .clock
            .now()
            .0
            .saturating_sub(LIFETIME_MS_MAX + LEEWAY_MS);
        let listed = app
            .store
            .revocations(page.after, skytale_wire::id::Time(since), PAGE_MAX)
            .await?;
        let over = Instant::now() >= until || app.draining.load(Ordering::Relaxed);
        if over || page.after.is_none() || !listed.is_empty() {
            let next = listed.last().map(|(place, _)| *place);
            return Ok(Json(Revocations {
                next: next.or(page.after).unwrap_or_default(),
                revoked: listed.into_iter().map(|(_, revoked)| revoked).collect(),
            }));
        }
        tokio::select! {
            () = rung => {}
            // Another server may work on the same database.
            () = sleep_until(until.min(Instant::now() + LOOK)) => {}
        }
    }
}

/// How far a relay's clock may be apart.
const SIGNATURE_MS_MAX: u64 = 60_000;
const PAGE_MAX: u32 = 1_000;
/// Relays take 20 seconds of silence for a server that is gone.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How often the store is asked while a relay waits.
const LOOK: Duration = Duration::from_millis(500);
