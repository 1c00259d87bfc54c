//! `Idempotency-Key`: a request that is sent again, because its answer was lost, takes effect once.
//!
//! Any POST of a person or a program may carry one; what relays report has numbers instead, by which
//! it counts once, and the header changes nothing there. The first request with it is carried out to its end, whether or not
//! somebody still waits, and its answer kept for a day; the same request again, of the same account
//! by the same key or a session (or, on the two routes that are open to everybody, from the same
//! address), gets that answer. Refusals are not kept: nothing happened, so the next try is a first
//! one.
//!
//! An answer that holds a secret is kept in memory only, for a minute, in which lost answers are asked
//! for again as a rule; afterwards, and by another server or after a restart, it is told that it was
//! done. Of a request a hash is stored, and no hash of a password: it would be quick to guess from.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequest as _, FromRequestParts as _, MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header::CONTENT_TYPE, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use moka::future::Cache;
use serde_json::Value;
use skytale_wire::id::{Digest, Time};
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use crate::{
    caller::Caller,
    problem::Refusal,
    router::App,
    store::{Claim, Claimed, Kept, Mark},
    visitor::{Newcomer, Visitor},
};

/// Answers with secrets, for a moment. By the mark and the whole of the request, passwords too.
pub(crate) struct Secrets(Cache<Digest, Secret>);

#[derive(Clone)]
struct Secret {
    status: StatusCode,
    body: Arc<Zeroizing<Vec<u8>>>,
}

/// A request that must take effect once.
struct Repeatable {
    mark: Mark,
    request: Digest,
    /// For [`Secrets`].
    whole: Digest,
    /// Whether its answer holds no secret.
    is_plain: bool,
}

/// What every request to a route passes; those without the header just pass.
pub(crate) async fn door(State(app): State<App>, request: Request, next: Next) -> Response {
    let asks = request.method() == Method::POST && request.headers().contains_key(NAME);
    let route = request.extensions().get::<MatchedPath>();
    let is_numbered = route.is_some_and(|it| NUMBERED.contains(&it.as_str()));
    if !asks || is_numbered {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    match admitted(&app, parts, body).await {
        Ok((Some(repeatable), request)) => at_most_once(&app, repeatable, request, next)
            .await
            .unwrap_or_else(axum::response::IntoResponse::into_response),
        // Not for any route: refused there, and without any effect.
        Ok((None, request)) => next.run(request).await,
        Err(refused) => refused,
    }
}

/// Checks who asks, counts it, and reads the whole request.
async fn admitted(
    app: &App,
    mut parts: Parts,
    body: Body,
) -> Result<(Option<Repeatable>, Request), Response> {
    let key = key_of(&parts.headers).map_err(refused)?;
    let route = parts.extensions.get::<MatchedPath>();
    let is_of = |routes: &[&str]| route.is_some_and(|it| routes.contains(&it.as_str()));
    let (is_open, is_plain) = (is_of(OPEN), is_of(PLAIN));
    let (whose, credential) = if is_open {
        let newcomer = Newcomer::from_request_parts(&mut parts, app)
            .await
            .map_err(refused)?;
        let address = newcomer.0.address().as_text();
        parts.extensions.insert(newcomer);
        (Digest::of(&[b"address", address.as_bytes()]), String::new())
    } else {
        let caller = Caller::from_request_parts(&mut parts, app)
            .await
            .map_err(refused)?;
        let whose = Digest::of(&[b"account", &caller.account().0]);
        let credential = caller.credential();
        parts.extensions.insert(caller);
        (whose, credential)
    };
    let visitor = Visitor::of(&parts);
    app.limits
        .idempotent(&whose.0, &visitor, app.clock.now())
        .map_err(refused)?;
    let bytes = Bytes::from_request(Request::from_parts(parts.clone(), body), app)
        .await
        .map_err(axum::response::IntoResponse::into_response)?;
    let target = parts.uri.path_and_query().map_or("", |it| it.as_str());
    let mark = Digest::of(&[&whose.0, key.as_bytes()]);
    let repeatable = canonical(&bytes).map(|canonical| Repeatable {
        mark,
        request: Digest::of(&[target.as_bytes(), credential.as_bytes(), &canonical]),
        whole: Digest::of(&[&mark.0, target.as_bytes(), credential.as_bytes(), &bytes]),
        is_plain,
    });
    Ok((repeatable, Request::from_parts(parts, Body::from(bytes))))
}

/// Carries the request out if it is the first of its kind, or says what became of that.
async fn at_most_once(
    app: &App,
    repeatable: Repeatable,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    if app.unattended.len() >= app.config.requests_max {
        return Err(Refusal::BUSY);
    }
    let limit = Duration::from_millis(app.config.request_ms_max);
    let until = Instant::now() + limit / 2;
    let mut pause = PAUSE_MIN;
    loop {
        let now = app.clock.now();
        let claim = Claim {
            mark: repeatable.mark,
            request: repeatable.request,
            now,
            given_up: Time(now.0.saturating_sub(2 * app.config.request_ms_max)),
        };
        match app.store.claim(claim).await? {
            Claimed::First => break,
            Claimed::Done(kept) => return again(app, &repeatable, kept).await,
            Claimed::OtherRequest => return Err(Refusal::OTHER_REQUEST),
            Claimed::CutOff => return Err(Refusal::OUTCOME_UNKNOWN),
            Claimed::UnderWay if Instant::now() + pause > until => return Err(Refusal::UNDER_WAY),
            Claimed::UnderWay => sleep(pause).await,
        }
        pause = (2 * pause).min(PAUSE_MAX);
    }
    // In a task of its own: whoever goes away now comes back for the answer.
    let finishing = app.unattended.spawn({
        let app = app.clone();
        async move {
            let answered = timeout(limit, next.run(request)).await;
            let answer = answered.unwrap_or_else(|_| Refusal::TIMEOUT.into_response());
            remember(&app, &repeatable, answer).await
        }
    });
    Ok(finishing
        .await
        .unwrap_or_else(|_| Refusal::INTERNAL.into_response()))
}

/// Notes the answer. Where it cannot be noted the answer goes out all the same: asked again, it is
/// told that the outcome is unknown.
async fn remember(app: &App, repeatable: &Repeatable, answer: Response) -> Response {
    let status = answer.status();
    if !status.is_success() {
        let refusal = answer.extensions().get::<Refusal>().copied();
        let refusal = refusal.unwrap_or_else(|| Refusal::from_status(status));
        if refusal.changed_nothing() && app.store.release(repeatable.mark).await.is_err() {
            tracing::warn!("a claim could not be released");
        }
        return answer;
    }
    let (parts, body) = answer.into_parts();
    let Ok(bytes) = to_bytes(body, ANSWER_BYTES_MAX).await else {
        return Refusal::INTERNAL.into_response();
    };
    let is_plain = repeatable.is_plain || bytes.is_empty();
    let text = str::from_utf8(&bytes).ok().filter(|_| is_plain);
    if text.is_none() {
        let secret = Secret {
            status,
            body: Arc::new(Zeroizing::new(bytes.to_vec())),
        };
        app.secrets.0.insert(repeatable.whole, secret).await;
    }
    let kept = Kept {
        status: status.as_u16(),
        body: text.map(str::to_owned),
    };
    if app.store.keep(repeatable.mark, kept).await.is_err() {
        tracing::warn!("an answer could not be kept");
    }
    Response::from_parts(parts, Body::from(bytes))
}

/// The answer that there was.
async fn again(app: &App, repeatable: &Repeatable, kept: Kept) -> Result<Response, Refusal> {
    let (status, body) = if let Some(body) = kept.body {
        let status = StatusCode::from_u16(kept.status).map_err(|_| Refusal::INTERNAL)?;
        (status, Body::from(body))
    } else {
        let secret = app.secrets.0.get(&repeatable.whole).await;
        let secret = secret.ok_or(Refusal::ALREADY_DONE)?;
        (secret.status, Body::from(secret.body.to_vec()))
    };
    let mut answer = (status, body).into_response();
    if status != StatusCode::NO_CONTENT {
        let json = HeaderValue::from_static("application/json");
        answer.headers_mut().insert(CONTENT_TYPE, json);
    }
    Ok(answer)
}

impl Secrets {
    pub(crate) fn new() -> Self {
        Self(
            Cache::builder()
                .weigher(|_, secret: &Secret| {
                    u32::try_from(secret.body.len() + ENTRY_BYTES).unwrap_or(u32::MAX)
                })
                .max_capacity(SECRETS_BYTES_MAX)
                .time_to_live(SECRETS_KEPT)
                .build(),
        )
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// The text of the header; in quotes, as the draft for it has it, or without, as most send it.
fn key_of(headers: &HeaderMap) -> Result<String, Refusal> {
    let mut lines = headers.get_all(NAME).iter();
    let (Some(only), None) = (lines.next(), lines.next()) else {
        return Err(Refusal::BAD_IDEMPOTENCY_KEY);
    };
    let text = only.to_str().map_err(|_| Refusal::BAD_IDEMPOTENCY_KEY)?;
    let inner = text.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    let key = inner.unwrap_or(text);
    let fits = (1..=KEY_CHARS_MAX).contains(&key.len());
    let plain = key
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'"');
    (fits && plain)
        .then(|| key.to_owned())
        .ok_or(Refusal::BAD_IDEMPOTENCY_KEY)
}

/// What is asked for, however it is written, without its passwords. `None` for what is no object of
/// JSON: no route takes it.
fn canonical(body: &[u8]) -> Option<Vec<u8>> {
    let mut fields: BTreeMap<String, Value> = serde_json::from_slice(body).ok()?;
    for password in ["password", "new_password"] {
        fields.remove(password);
    }
    serde_json::to_vec(&fields).ok()
}

fn refused(refusal: Refusal) -> Response {
    refusal.into_response()
}

const NAME: &str = "idempotency-key";
/// Routes where nobody is known yet: there, those of an address are told apart by their keys.
const OPEN: &[&str] = &["/v1/accounts", "/v1/sessions"];
/// Routes whose answers hold no secret. All others are taken to.
const PLAIN: &[&str] = &["/v1/accounts"];
/// Routes whose requests count once by a number in them.
const NUMBERED: &[&str] = &["/v1/relay-questions", "/v1/usage-reports"];
const KEY_CHARS_MAX: usize = 128;
/// How long a repeat waits before it looks again whether the first one is finished.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);
const ANSWER_BYTES_MAX: usize = 1 << 20;
const SECRETS_KEPT: Duration = Duration::from_mins(1);
/// Beyond it the oldest go: they are told that it was done.
const SECRETS_BYTES_MAX: u64 = 4 << 20;
/// What an entry takes beside its text.
const ENTRY_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_short_plain_text() {
        let key = |lines: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(NAME, HeaderValue::from_bytes(line).unwrap());
            }
            key_of(&headers).ok()
        };
        assert_eq!(key(&[b"a-b"]).as_deref(), Some("a-b"));
        assert_eq!(key(&[b"\"a-b\""]).as_deref(), Some("a-b"));
        assert!(key(&[&[b'x'; 128]]).is_some());
        for bad in [
            &b""[..],
            b"\"\"",
            b"\"",
            b"a b",
            b"a\"b",
            "ü".as_bytes(),
            b"\xff",
            &[b'x'; 129],
        ] {
            assert_eq!(key(&[bad]), None, "{bad:?}");
        }
        assert_eq!(key(&[b"a", b"a"]), None, "two opinions");
    }

    #[test]
    fn what_is_asked_does_not_depend_on_its_spelling_or_on_passwords() {
        let one = canonical(br#"{"email":"a@b","name":"x","password":"first one!"}"#);
        let two = canonical(br#" { "name": "\u0078", "email": "a@b", "password": "second!" } "#);
        let other = canonical(br#"{"email":"a@b","name":"y","password":"first one!"}"#);

        assert!(one.is_some());
        assert_eq!(one, two);
        assert_ne!(one, other);
        assert!(!String::from_utf8(one.unwrap()).unwrap().contains("first"));
        for odd in ["", "[]", "\"password\"", "{", "1"] {
            assert_eq!(canonical(odd.as_bytes()), None);
        }
    }
}
