//! How the server says no: one type for every refusal, and the door that every request passes,
//! where refusals of all origins (ours, axum's, a panic, a time-out) become the same JSON.

use std::time::Duration;

use axum::{
    Json,
    extract::{MatchedPath, Request, State},
    http::{
        HeaderValue, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE,
            X_CONTENT_TYPE_OPTIONS,
        },
        response::Parts,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use skytale_wire::http::{Code, Problem};

use crate::{router::App, secret::Busy, store::Failure, ui, visitor::Visitor};

/// A refusal. Its text is fixed, so nothing that a caller sent comes back in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: Code,
    detail: &'static str,
    retry_after_s: Option<u64>,
}

impl Refusal {
    pub(crate) const UNAUTHENTICATED: Self = Self::new(
        StatusCode::UNAUTHORIZED,
        Code::Unauthenticated,
        "send a valid API key or token as Authorization: Bearer",
    );
    pub(crate) const WRONG_PASSWORD: Self = Self::new(
        StatusCode::UNAUTHORIZED,
        Code::WrongPassword,
        "this e-mail and password do not belong together",
    );
    pub(crate) const KEY_NEEDED: Self = Self::new(
        StatusCode::FORBIDDEN,
        Code::Denied,
        "this needs the API key itself: a token buys no token",
    );
    pub(crate) const SCOPE_NEEDED: Self = Self::new(
        StatusCode::FORBIDDEN,
        Code::Denied,
        "this key or token does not permit it: use a key that has the scope for it, or a session",
    );
    pub(crate) const SESSION_NEEDED: Self = Self::new(
        StatusCode::FORBIDDEN,
        Code::Denied,
        "this is for the account's owner: sign in with e-mail and password (POST /v1/sessions)",
    );
    pub(crate) const BEYOND_THE_KEY: Self = Self::new(
        StatusCode::FORBIDDEN,
        Code::Denied,
        "a key makes no key that may do more than itself, or longer: use a session",
    );
    pub(crate) const AGENT_DISABLED: Self = Self::new(
        StatusCode::FORBIDDEN,
        Code::AgentDisabled,
        "the account has shut out this agent: let it in again, or use another one",
    );
    /// To be given with the time that the month still goes on.
    pub(crate) const QUOTA_EXCEEDED: Self = Self::new(
        StatusCode::FORBIDDEN,
        Code::QuotaExceeded,
        "the account has used up what its plan allows in a month (GET /v1/usage says how much): ask whoever runs the server for another plan, or wait until the month ends",
    );
    pub(crate) const NO_RELAY: Self = Self::new(
        StatusCode::UNAUTHORIZED,
        Code::Unauthenticated,
        "this is for relays that the server was started with (--relay), and their clocks must agree with its own",
    );
    pub(crate) const FORGED_FORM: Self = Self::new(
        StatusCode::FORBIDDEN,
        Code::Denied,
        "this form came from another page or an older session: open the page again, and send it from there",
    );
    pub(crate) const NOT_FOUND: Self = Self::new(
        StatusCode::NOT_FOUND,
        Code::NotFound,
        "there is nothing here",
    );
    pub(crate) const TOO_MANY_KEYS: Self = Self::new(
        StatusCode::CONFLICT,
        Code::TooManyKeys,
        "the account has as many keys as it may: revoke one first",
    );
    pub(crate) const BAD_JSON: Self = Self::new(
        StatusCode::BAD_REQUEST,
        Code::BadJson,
        "the body is not JSON",
    );
    pub(crate) const WRONG_MEDIA_TYPE: Self = Self::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::WrongMediaType,
        "send the body as application/json",
    );
    pub(crate) const UNKNOWN_AUDIENCE: Self = Self::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        Code::UnknownAudience,
        "this server issues no tokens for that relay; `relays` in a token answer lists those it does",
    );
    pub(crate) const BAD_IDEMPOTENCY_KEY: Self = Self::new(
        StatusCode::BAD_REQUEST,
        Code::BadRequest,
        "Idempotency-Key must be one text of 1 to 128 printable characters: a UUID, for one",
    );
    pub(crate) const OTHER_REQUEST: Self = Self::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        Code::OtherRequest,
        "this Idempotency-Key was used for another request: use a new one",
    );
    pub(crate) const ALREADY_DONE: Self = Self::new(
        StatusCode::CONFLICT,
        Code::AlreadyDone,
        "this was done, and its answer held a secret, which is not kept: a lost token or session can be \
         asked for with a new Idempotency-Key; a lost API key is in GET /v1/keys and should be revoked first",
    );
    pub(crate) const OUTCOME_UNKNOWN: Self = Self::new(
        StatusCode::CONFLICT,
        Code::OutcomeUnknown,
        "the first request with this Idempotency-Key was cut off, and it is not known whether it took \
         effect: look, and if it did not, ask with a new one",
    );
    pub(crate) const UNDER_WAY: Self = Self {
        retry_after_s: Some(1),
        ..Self::new(
            StatusCode::CONFLICT,
            Code::UnderWay,
            "the first request with this Idempotency-Key is not finished",
        )
    };
    pub(crate) const TIMEOUT: Self = Self::new(
        StatusCode::REQUEST_TIMEOUT,
        Code::Timeout,
        "the request did not arrive and finish in time",
    );
    pub(crate) const TOO_LARGE: Self = Self::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        Code::TooLarge,
        "the body is over the limit",
    );
    pub(crate) const BUSY: Self = Self::later(Code::Busy, "the server has its hands full");
    pub(crate) const RELAY_SILENT: Self = Self::later(
        Code::RelaySilent,
        "the relay did not answer: GET /v1/relays says when it was last heard; try again, or tell whoever runs it",
    );
    const UNAVAILABLE: Self = Self::later(Code::Unavailable, "the database does not answer");
    pub(crate) const INTERNAL: Self = Self::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        "this is a bug of the server; its log has the request id",
    );

    /// A body that is JSON and yet not what the route takes.
    pub(crate) const fn bad_body(detail: &'static str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, Code::BadBody, detail)
    }

    /// SLIM patterns that no token can carry.
    pub(crate) const fn bad_pattern(detail: &'static str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, Code::BadPattern, detail)
    }

    /// More than a limit allows; `advice` names which.
    pub(crate) const fn too_often(advice: &'static str, retry_after_s: u64) -> Self {
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, advice)
        }
    }

    /// Whether it is certain that nothing was changed: what is refused while it is looked at, and not
    /// what was cut off or failed in the middle.
    pub(crate) const fn changed_nothing(&self) -> bool {
        matches!(self.code, Code::Busy)
            || (self.status.as_u16() < 500 && !matches!(self.code, Code::Timeout))
    }

    const fn new(status: StatusCode, code: Code, detail: &'static str) -> Self {
        Self {
            status,
            code,
            detail,
            retry_after_s: None,
        }
    }

    const fn later(code: Code, detail: &'static str) -> Self {
        Self {
            retry_after_s: Some(1),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
        }
    }

    /// The same, to be tried again after so many seconds.
    pub(crate) const fn retry_after(self, seconds: u64) -> Self {
        Self {
            retry_after_s: Some(seconds),
            ..self
        }
    }

    pub(crate) const fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) const fn code(&self) -> Code {
        self.code
    }

    pub(crate) const fn detail(&self) -> &'static str {
        self.detail
    }

    pub(crate) const fn retry_after_s(&self) -> Option<u64> {
        self.retry_after_s
    }

    /// The one that travels beside an answer, or what its status says.
    pub(crate) fn of(answer: &mut Parts) -> Self {
        let beside = answer.extensions.remove::<Self>();
        beside.unwrap_or_else(|| Self::from_status(answer.status))
    }

    /// What axum or hyper refused by status alone.
    pub(crate) fn from_status(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::NOT_FOUND => return Self::NOT_FOUND,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => return Self::WRONG_MEDIA_TYPE,
            StatusCode::METHOD_NOT_ALLOWED => (
                Code::MethodNotAllowed,
                "the path is there, the method is not: see the Allow header",
            ),
            StatusCode::PAYLOAD_TOO_LARGE => return Self::TOO_LARGE,
            StatusCode::REQUEST_TIMEOUT => return Self::TIMEOUT,
            status if status.is_client_error() => (
                Code::BadRequest,
                "the path or query is not one this server understands",
            ),
            _ => return Self::INTERNAL,
        };
        Self::new(status, code, detail)
    }
}

impl From<Busy> for Refusal {
    fn from(_: Busy) -> Self {
        Self::BUSY
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable => Self::UNAVAILABLE,
            Failure::Damaged => Self::INTERNAL,
        }
    }
}

impl IntoResponse for Refusal {
    /// The refusal travels beside an empty body; [`door`] writes the words.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// What every request passes: a place among those being worked on, a time limit, a name for the
/// log, and on the way out one form for all refusals.
pub(crate) async fn door(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let began = app.clock.now();
    let visitor = Visitor::enter(&mut request, &app.config.trusted_proxies);
    let id = app.request_id();
    let method = request.method().clone();
    let path = request.uri().path();
    let page = ui::has(&app.config, path).then(|| path.to_owned());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", MatchedPath::as_str)
        .to_owned();
    let mut response = match app.places.try_acquire() {
        Err(_) => Refusal::BUSY.into_response(),
        Ok(_place) => {
            let limit = Duration::from_millis(app.config.request_ms_max);
            tokio::time::timeout(limit, next.run(request))
                .await
                .unwrap_or_else(|_| Refusal::TIMEOUT.into_response())
        }
    };
    if (response.status().is_client_error() || response.status().is_server_error())
        && !speaks_for_itself(&response)
    {
        response = match &page {
            Some(path) => ui::told(response, path, &id),
            None => in_words(response, &id),
        };
    }
    let headers = response.headers_mut();
    if page.is_some() {
        ui::guard(headers);
    }
    visitor.write(headers);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if app.config.tls_cert.is_some() {
        headers.insert(STRICT_TRANSPORT_SECURITY, A_YEAR_BY_TLS);
    }
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", id);
    }
    let ms = app.clock.now().since(began);
    app.tally.answer(&route, &method, response.status(), ms);
    let status = response.status().as_u16();
    if status == 500 {
        tracing::error!(request = %id, %method, route, status, ms, "answered");
    } else {
        tracing::debug!(request = %id, %method, route, status, ms, "answered");
    }
    response
}

/// What a panicking handler answers. The panic's own text goes to the panic hook, not to callers.
pub(crate) fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Refusal::INTERNAL.into_response()
}

/// Browsers come by TLS from now on. Behind a proxy it is the proxy's to say.
const A_YEAR_BY_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// `/readyz` says which part is not ready in a body of its own, and a page may ask again.
fn speaks_for_itself(response: &Response) -> bool {
    let own = ["application/json", "text/html; charset=utf-8"];
    let kind = response.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| own.iter().any(|own| kind == own))
}

/// Keeps the status and headers such as `Allow`, and replaces the body.
fn in_words(response: Response, request_id: &str) -> Response {
    let (mut parts, _) = response.into_parts();
    let refusal = Refusal::of(&mut parts);
    let problem = Problem {
        kind: "about:blank".to_owned(),
        title: refusal
            .status
            .canonical_reason()
            .unwrap_or("Refused")
            .to_owned(),
        status: refusal.status.as_u16(),
        code: refusal.code,
        detail: refusal.detail.to_owned(),
        request_id: request_id.to_owned(),
        retry_after_s: refusal.retry_after_s,
    };
    let (body_parts, body) = Json(problem).into_response().into_parts();
    parts.status = refusal.status;
    parts.headers.extend(body_parts.headers);
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    parts.headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if refusal.status == StatusCode::UNAUTHORIZED {
        parts
            .headers
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(seconds) = refusal.retry_after_s {
        parts.headers.insert(RETRY_AFTER, seconds.into());
    }
    Response::from_parts(parts, body)
}
