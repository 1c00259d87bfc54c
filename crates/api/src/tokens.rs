//! Tokens: bought with an API key, checked by anybody with the public keys.
//!
//! Not here: whose a SLIM organisation is. Any account may buy a token for any pattern; the relay
//! gives an organisation to the account that uses it first, and holds all others to that.

use axum::{
    Json,
    extract::State,
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use skytale_wire::{
    http::{Secret, TokenAnswer, TokenRequest},
    id::{RelayKey, Time},
    month::Month,
    token::{AccountId, BadPatterns, Claims, Grant, KeyId, Scope, Scopes, SlimPatterns, TokenId},
};

use crate::{
    body::Body,
    caller::Caller,
    clock::rfc3339,
    plans::{self, Bounds},
    problem::Refusal,
    router::App,
    store::Exchange,
};

#[utoipa::path(
    post,
    path = "/v1/tokens",
    operation_id = "buy_token",
    tag = "Tokens",
    summary = "Buy a token",
    description = "`agent_id`, `transport_key` and `audience`, for an agent's line to a relay; `audience` and `slim`, for speaking SLIM to one; or none of them, for calls about the account. The key needs the scope `relay`, `slim` or `account` for it.",
    request_body = TokenRequest,
    security(("key" = ["relay"]), ("key" = ["slim"]), ("key" = ["account"])),
    responses((status = 200, description = "A signed JWT, an hour long at most", body = TokenAnswer)),
)]
pub(crate) async fn exchange(
    State(app): State<App>,
    caller: Caller,
    Body(wish): Body<TokenRequest>,
) -> Result<Json<TokenAnswer>, Refusal> {
    let (grant, scope) = granted(&app, &wish)?;
    let (account, key) = caller.key_holder(scope)?;
    let now = app.clock.now();
    // Counting is also the last look at key and agent: after a revocation has been answered, no
    // token leaves any more.
    let bounds = match scope {
        Scope::Relay | Scope::Slim => app.config.plan_of(&account).1,
        // Whoever has used up everything must be able to see it.
        Scope::Account | Scope::Keys => Bounds::NONE,
    };
    let month = Month::of(now);
    let counted = app
        .store
        .count_exchange(key.id.clone(), wish.agent_id, month, bounds, now);
    match counted.await? {
        Exchange::Counted => {}
        Exchange::NoKey => return Err(Refusal::UNAUTHENTICATED),
        Exchange::AgentDisabled => return Err(Refusal::AGENT_DISABLED),
        Exchange::Exhausted => return Err(plans::exceeded(now)),
    }
    // No token outlives the key: relays hear of revocations, and not of ends that were planned.
    let left_ms = key.expires.map_or(u64::MAX, |end| end.since(now));
    let lifetime_ms = (app.config.token_lifetime_s * 1000).min(left_ms);
    let issued = issue(
        &app,
        account,
        Some(key.id),
        grant,
        [scope].into(),
        lifetime_ms,
    );
    Ok(Json(TokenAnswer {
        token: issued.token,
        expires_at: rfc3339(issued.expires),
        expires_in_s: issued.expires.since(now).div_ceil(1000),
        relays: app.config.relays.clone(),
    }))
}

#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    operation_id = "show_signing_keys",
    tag = "Tokens",
    summary = "The keys that tokens are signed with",
    description = "",
    security(()),
    responses((status = 200, description = "A JSON Web Key Set (RFC 7517)", content_type = "application/jwk-set+json", body = serde_json::Value)),
)]
pub(crate) async fn jwks(State(app): State<App>) -> Response {
    let headers = [
        (
            CONTENT_TYPE,
            HeaderValue::from_static("application/jwk-set+json"),
        ),
        // Shorter than the minute after which a retired key must count for nothing.
        (
            CACHE_CONTROL,
            HeaderValue::from_static("public, max-age=30"),
        ),
    ];
    (headers, app.keys.public(app.clock.now()).to_json()).into_response()
}

/// A token that was just signed.
pub(crate) struct Issued {
    pub(crate) token: Secret,
    pub(crate) expires: Time,
}

/// Signs a token that begins now. Times are cut to whole seconds, as JWTs have them.
pub(crate) fn issue(
    app: &App,
    account: AccountId,
    key: Option<KeyId>,
    grant: Grant,
    scopes: Scopes,
    lifetime_ms: u64,
) -> Issued {
    let issued = Time(app.clock.now().seconds() * 1000);
    let expires = Time(issued.plus(lifetime_ms).seconds() * 1000);
    let claims = Claims {
        account,
        grant,
        scopes,
        key,
        id: TokenId(app.uuid()),
        issued,
        expires,
    };
    Issued {
        token: Secret::new(app.keys.sign(&claims, issued)),
        expires,
    }
}

/// Which of the three kinds of token is asked for; a mixture is none of them.
fn granted(app: &App, wish: &TokenRequest) -> Result<(Grant, Scope), Refusal> {
    match (wish.agent_id, wish.transport_key, wish.audience, &wish.slim) {
        (None, None, None, None) => Ok((Grant::Account, Scope::Account)),
        (Some(agent), Some(transport_key), Some(relay), None) => {
            let grant = Grant::Agent {
                relay: served(app, relay)?,
                agent,
                transport_key,
            };
            Ok((grant, Scope::Relay))
        }
        (None, None, Some(relay), Some(patterns)) => {
            let grant = Grant::Slim {
                relay: served(app, relay)?,
                patterns: SlimPatterns::parse(patterns)?,
            };
            Ok((grant, Scope::Slim))
        }
        (_, _, _, _) => Err(Refusal::bad_body(
            "give agent_id, transport_key and audience together, or audience and slim, or none of them",
        )),
    }
}

impl From<BadPatterns> for Refusal {
    fn from(bad: BadPatterns) -> Self {
        Self::bad_pattern(bad.advice())
    }
}

/// The relay, if this server issues tokens for it.
fn served(app: &App, relay: RelayKey) -> Result<RelayKey, Refusal> {
    let known = app.config.relays.iter().any(|known| known.key == relay);
    known.then_some(relay).ok_or(Refusal::UNKNOWN_AUDIENCE)
}
