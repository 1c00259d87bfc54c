//! The routes as callers meet them: real handlers, a real database, a clock that stands still.

use std::sync::atomic::AtomicU64;

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request},
};
use ed25519_dalek::SigningKey;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use skytale_wire::{
    http::{Account, Code, Keys, NewKey, Problem, RelayAt, Session, TokenAnswer, Usage},
    id::{AgentId, Digest, RelayKey, Time, TransportKey},
    token::{Audience, Claims, Grant, PublicKeys, Scope, SlimPatterns, Verifier},
};
use tower::ServiceExt as _;

use super::*;
use crate::run::Server;

mod clocks;
mod crowded;
mod described;
mod forged;
mod held;
mod limits;
mod needles;
mod odd;
mod once;
mod races;
mod relays;
mod standing;
mod tokens;
mod ui;
mod usage;

const NOW: Time = Time(1_790_000_000_000);
const PASSWORD: &str = "correct horse battery";

/// A server without a socket. The directory goes when it goes.
struct House {
    app: App,
    router: Router,
    now: Arc<AtomicU64>,
    dir: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl House {
    async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    async fn open_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path());
        config.addr = "127.0.0.1:0".parse().unwrap();
        config.danger_argon2_memory_kib = 64;
        config.danger_argon2_passes = 1;
        config.relays = vec![RelayAt {
            key: relay(),
            addresses: vec!["relay.example.org:4433".into()],
        }];
        change(&mut config);
        Self::start(config, Arc::new(AtomicU64::new(NOW.0)), dir).await
    }

    async fn start(config: Config, now: Arc<AtomicU64>, dir: tempfile::TempDir) -> Self {
        needles::watch();
        let hand = Arc::clone(&now);
        let clock = Clock::from_fn(move || Time(hand.load(Ordering::Relaxed)));
        let app = Server::bind_with(config, clock).await.unwrap().into_app();
        Self {
            router: routes(app.clone()),
            app,
            now,
            dir,
        }
    }

    /// Another server on the same files.
    async fn restarted(self) -> Self {
        let Self {
            app,
            router,
            now,
            dir,
        } = self;
        let config = app.config.clone();
        drop((app, router));
        Self::start(config, now, dir).await
    }

    /// Whatever is asked here, and by whichever test: the answer is one of those described, and nothing
    /// secret was said beside it.
    async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let (parts, body) = self
            .router
            .clone()
            .oneshot(request)
            .await
            .unwrap()
            .into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        let answer = Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        };
        described::check(&method, &path, &answer);
        needles::check(&method, &answer, &self.app);
        answer
    }

    async fn call(&self, method: Method, path: &str, bearer: &str, body: Value) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !bearer.is_empty() {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        let body = if body.is_null() {
            Body::empty()
        } else {
            request = request.header("content-type", "application/json");
            Body::from(body.to_string())
        };
        self.send(request.body(body).unwrap()).await
    }

    async fn get(&self, path: &str, bearer: &str) -> Answer {
        self.call(Method::GET, path, bearer, Value::Null).await
    }

    async fn post(&self, path: &str, bearer: &str, body: Value) -> Answer {
        self.call(Method::POST, path, bearer, body).await
    }

    /// Signs up, signs in and makes a first key, as `skytale signup` does.
    async fn person(&self, name: &str) -> Person {
        let login = json!({"email": format!("{name}@example.org"), "password": PASSWORD});
        let signed_up = self.post("/v1/accounts", "", login.clone()).await;
        assert_eq!(signed_up.status, StatusCode::ACCEPTED);
        let session: Session = self.post("/v1/sessions", "", login).await.read();
        let path = format!("/v1/accounts/{}/keys", session.account_id);
        let made = self
            .post(&path, session.token.expose(), json!({"name": "first"}))
            .await;
        assert_eq!(made.status, StatusCode::CREATED);
        Person {
            key: made.read(),
            session,
        }
    }

    async fn token(&self, key: &str, body: Value) -> Answer {
        self.post("/v1/tokens", key, body).await
    }
}

struct Person {
    session: Session,
    key: NewKey,
}

impl Person {
    fn key(&self) -> &str {
        self.key.key.expose()
    }

    fn session(&self) -> &str {
        self.session.token.expose()
    }
}

impl Answer {
    fn read<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.body))
    }

    /// The refusal's code, after checking that it has the form every refusal has.
    fn code(&self) -> Code {
        let problem: Problem = self.read();
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(problem.status, self.status.as_u16());
        assert_eq!(self.headers["x-request-id"], problem.request_id);
        assert!(problem.request_id.starts_with("req_"));
        problem.code
    }
}

fn relay_secret() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn relay() -> RelayKey {
    RelayKey(relay_secret().verifying_key().to_bytes())
}

fn agent_request() -> Value {
    json!({
        "agent_id": AgentId([4; 32]),
        "transport_key": TransportKey([5; 32]),
        "audience": relay(),
    })
}

fn slim_request() -> Value {
    json!({"audience": relay(), "slim": ["acme/*"]})
}

/// The table at the top of `caller.rs`.
#[tokio::test]
async fn each_kind_of_caller_may_do_its_own_things() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let account: TokenAnswer = house.token(alice.key(), json!({})).await.read();
    let callers = [
        (alice.key(), true, true),
        (alice.session(), true, true),
        (account.token.expose(), true, false),
        ("", false, false),
    ];
    for (bearer, reads, makes) in callers {
        let denied = if bearer.is_empty() { 401 } else { 403 };
        for path in ["/v1/accounts/me", "/v1/keys", "/v1/usage"] {
            let expected = if reads { 200 } else { denied };
            assert_eq!(
                house.get(path, bearer).await.status.as_u16(),
                expected,
                "{path}"
            );
        }
        let made = house
            .post("/v1/keys", bearer, json!({"name": "more"}))
            .await;
        assert_eq!(made.status.as_u16(), if makes { 201 } else { denied });
        let gone = house
            .call(Method::DELETE, "/v1/keys/00000000", bearer, Value::Null)
            .await;
        assert_eq!(gone.status.as_u16(), if makes { 404 } else { denied });
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once_although_it_was_familiar() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    assert_eq!(house.token(alice.key(), json!({})).await.status, 200);
    let path = format!("/v1/keys/{}", alice.key.id);

    let revoked = house
        .call(Method::DELETE, &path, alice.session(), Value::Null)
        .await;

    assert_eq!(revoked.status, StatusCode::NO_CONTENT);
    let runs = house.app.hasher.runs();
    assert_eq!(
        house.token(alice.key(), json!({})).await.code(),
        Code::Unauthenticated
    );
    assert_eq!(house.app.hasher.runs(), runs + 1, "it was forgotten");
    assert_eq!(
        house.get("/v1/keys", alice.key()).await.code(),
        Code::Unauthenticated
    );
    let keys: Keys = house.get("/v1/keys", alice.session()).await.read();
    assert!(keys.keys[0].revoked_at.is_some() && keys.keys[0].last_used_at.is_some());
    let usage: Usage = house.get("/v1/usage", alice.session()).await.read();
    assert_eq!(
        usage.months[0].used.token_exchanges, 1,
        "the refused one was not counted"
    );
}

#[tokio::test]
async fn a_familiar_key_costs_no_hashing_and_a_malformed_one_never_does() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    house.token(alice.key(), json!({})).await;
    let before = house.app.hasher.runs();

    for _ in 0..5 {
        assert_eq!(house.token(alice.key(), json!({})).await.status, 200);
    }
    let mut typo = alice.key().to_owned();
    typo.pop();
    typo.push('!');
    for malformed in ["sk_live_", "sk_live_x", &typo, "sk_", "sk_live_00000000_0"] {
        assert_eq!(
            house.token(malformed, json!({})).await.code(),
            Code::Unauthenticated
        );
    }
    assert_eq!(house.app.hasher.runs(), before);

    let unknown = crate::secret::ApiKey::generate(crate::secret::Kind::Live).show();
    assert_eq!(
        house.token(unknown.expose(), json!({})).await.code(),
        Code::Unauthenticated
    );
    assert_eq!(
        house.app.hasher.runs(),
        before + 1,
        "a stranger costs as much as a wrong secret"
    );
}

#[tokio::test]
async fn other_accounts_are_not_found() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let mallory = house.person("mallory").await;

    let path = format!("/v1/accounts/{}/keys", alice.session.account_id);
    let made = house
        .post(&path, mallory.session(), json!({"name": "x"}))
        .await;
    let path = format!("/v1/keys/{}", alice.key.id);
    let revoked = house
        .call(Method::DELETE, &path, mallory.key(), Value::Null)
        .await;

    assert_eq!(made.code(), Code::NotFound);
    assert_eq!(revoked.code(), Code::NotFound);
    let keys: Keys = house.get("/v1/keys", mallory.key()).await.read();
    assert!(keys.keys.iter().all(|key| key.id == mallory.key.id));
    let me: Account = house.get("/v1/accounts/me", mallory.key()).await.read();
    assert_eq!(me.email, "mallory@example.org");
    assert_eq!(
        house.token(alice.key(), json!({})).await.status,
        200,
        "hers still lives"
    );
}

#[tokio::test]
async fn signing_up_and_in_do_not_tell_who_is_there() {
    let house = House::open().await;
    house.person("alice").await;
    let login = |email: &str, password: &str| json!({"email": email, "password": password});
    let runs = house.app.hasher.runs();

    let taken = house
        .post(
            "/v1/accounts",
            "",
            login("ALICE@example.org", "another password"),
        )
        .await;
    let free = house
        .post("/v1/accounts", "", login("bob@example.org", PASSWORD))
        .await;
    assert_eq!((taken.status, &taken.body), (free.status, &free.body));

    let wrong = house
        .post("/v1/sessions", "", login("alice@example.org", "wrong one!"))
        .await;
    let nobody = house
        .post("/v1/sessions", "", login("carol@example.org", PASSWORD))
        .await;
    let no_address = house
        .post("/v1/sessions", "", login("local", PASSWORD))
        .await;
    for answer in [&wrong, &nobody, &no_address] {
        assert_eq!(answer.code(), Code::WrongPassword);
        assert_eq!(answer.body.len(), wrong.body.len());
    }
    assert_eq!(
        house.app.hasher.runs(),
        runs + 5,
        "each of the five was hashed once"
    );

    // The second sign-up did not take the account over.
    let own = house
        .post("/v1/sessions", "", login("alice@example.org", PASSWORD))
        .await;
    assert_eq!(own.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_session_ends_after_a_quarter_of_an_hour() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let minutes = |n: u64| house.now.store(NOW.plus(n * 60_000).0, Ordering::Relaxed);

    minutes(15);
    assert_eq!(
        house.get("/v1/accounts/me", alice.session()).await.status,
        200
    );
    minutes(16);
    assert_eq!(
        house.get("/v1/accounts/me", alice.session()).await.status,
        401
    );
}

#[tokio::test]
async fn usage_is_counted_by_month() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    house.token(alice.key(), agent_request()).await;
    house.token(alice.key(), agent_request()).await;
    house
        .now
        .store(NOW.plus(31 * 86_400_000).0, Ordering::Relaxed);
    house.token(alice.key(), agent_request()).await;

    let usage: Usage = house.get("/v1/usage", alice.key()).await.read();

    let months: Vec<_> = usage
        .months
        .iter()
        .map(|month| {
            (
                month.month.to_string(),
                month.used.token_exchanges,
                month.used.messages,
            )
        })
        .collect();
    let month = |text: &str, exchanges| (text.to_owned(), exchanges, 0);
    assert_eq!(months, [month("2026-10", 1), month("2026-09", 2)]);
}

#[tokio::test]
async fn keys_are_listed_by_pages_and_bounded() {
    let house = House::open_with(|config| config.live_keys_max = 3).await;
    let alice = house.person("alice").await;
    for name in ["second", "third"] {
        let made = house
            .post("/v1/keys", alice.key(), json!({"name": name}))
            .await;
        assert_eq!(made.status, StatusCode::CREATED);
    }
    let fourth = house
        .post("/v1/keys", alice.key(), json!({"name": "fourth"}))
        .await;
    assert_eq!(fourth.code(), Code::TooManyKeys);

    let first: Keys = house.get("/v1/keys?limit=2", alice.key()).await.read();
    let next = first.next.unwrap();
    let second: Keys = house
        .get(&format!("/v1/keys?limit=2&after={next}"), alice.key())
        .await
        .read();
    let names = |keys: Vec<skytale_wire::http::Key>| -> Vec<String> {
        keys.into_iter().map(|key| key.name).collect()
    };
    assert_eq!(names(first.keys), ["first", "second"]);
    assert_eq!(names(second.keys), ["third"]);
    assert!(second.next.is_none());
    for query in ["limit=0", "limit=101", "after=short"] {
        let answer = house.get(&format!("/v1/keys?{query}"), alice.key()).await;
        assert_eq!(answer.code(), Code::BadBody, "{query}");
    }
    for query in ["limit=-1", "limit=x", "page=2", "limit=1&limit=2"] {
        let answer = house.get(&format!("/v1/keys?{query}"), alice.key()).await;
        assert_eq!(answer.code(), Code::BadRequest, "{query}");
    }
}

#[tokio::test]
async fn what_no_route_takes_is_refused_in_the_same_form() {
    let house = House::open().await;
    let post = |kind: &'static str, body: &str| {
        Request::post("/v1/accounts")
            .header("content-type", kind)
            .body(Body::from(body.to_owned()))
            .unwrap()
    };
    let json = "application/json";
    let good = json!({"email": "a@b", "password": PASSWORD}).to_string();
    let huge = format!(r#"{{"email":"{}"}}"#, "a".repeat(70_000));
    let deep = format!(r#"{{"email":{}"#, "[".repeat(50_000));
    let list = format!(r#"["a@b","{PASSWORD}"]"#);
    let cases = [
        (house.get("/nowhere", "").await, 404, Code::NotFound),
        (house.get("/v1/accounts/me/", "").await, 404, Code::NotFound),
        (
            house.get("/v1/accounts", "").await,
            405,
            Code::MethodNotAllowed,
        ),
        (
            house.send(post("text/plain", &good)).await,
            415,
            Code::WrongMediaType,
        ),
        (house.send(post(json, "")).await, 400, Code::BadJson),
        (
            house.send(post(json, "{\"email\":")).await,
            400,
            Code::BadJson,
        ),
        (house.send(post(json, &deep)).await, 422, Code::BadBody),
        (
            house.send(post(json, &format!("{good}x"))).await,
            400,
            Code::BadJson,
        ),
        (house.send(post(json, &huge)).await, 413, Code::TooLarge),
        (house.send(post(json, "{}")).await, 422, Code::BadBody),
        (house.send(post(json, &list)).await, 422, Code::BadBody),
        (
            house.send(post(json, r#"{"email":1,"password":2}"#)).await,
            422,
            Code::BadBody,
        ),
        (
            house
                .send(post(
                    json,
                    r#"{"email":"a@b","email":"c@d","password":"0123456789"}"#,
                ))
                .await,
            422,
            Code::BadBody,
        ),
        (
            house
                .send(post(json, r#"{"email":"a@b","password":"short"}"#))
                .await,
            422,
            Code::BadBody,
        ),
    ];
    for (answer, status, code) in cases {
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (status, code),
            "{}",
            answer.body
        );
    }
    let wrong_method = house.get("/v1/accounts", "").await;
    assert_eq!(wrong_method.headers["allow"], "POST");
    let stranger = house.get("/v1/usage", "").await;
    assert_eq!(stranger.headers["www-authenticate"], "Bearer");
}

#[tokio::test]
async fn fields_that_would_promote_somebody_are_refused() {
    let house = House::open().await;
    for field in ["role", "account_id", "created_at", "scopes", "id"] {
        let mut body = json!({"email": "eve@example.org", "password": PASSWORD});
        body[field] = json!("admin");
        assert_eq!(
            house.post("/v1/accounts", "", body).await.code(),
            Code::BadBody,
            "{field}"
        );
    }
}

#[tokio::test]
async fn an_authorization_that_is_no_single_bearer_is_refused() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    for value in ["", "Bearer", "Bearer ", "Basic YTpi", alice.key()] {
        let request = Request::get("/v1/usage")
            .header("authorization", value)
            .body(Body::empty())
            .unwrap();
        assert_eq!(
            house.send(request).await.code(),
            Code::Unauthenticated,
            "{value:?}"
        );
    }
    let twice = Request::get("/v1/usage")
        .header("authorization", format!("Bearer {}", alice.key()))
        .header("authorization", format!("Bearer {}", alice.key()))
        .body(Body::empty())
        .unwrap();
    assert_eq!(house.send(twice).await.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_flood_of_hashing_is_turned_away_and_familiar_keys_pass() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    house.token(alice.key(), json!({})).await;
    let flood = house.app.hasher.occupy();

    let login = json!({"email": "x@example.org", "password": PASSWORD});
    let refused = house.post("/v1/sessions", "", login).await;

    assert_eq!((refused.status.as_u16(), refused.code()), (503, Code::Busy));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(house.token(alice.key(), json!({})).await.status, 200);
    drop(flood);
}

#[tokio::test]
async fn a_full_house_turns_requests_away() {
    let house = House::open_with(|config| config.requests_max = 1).await;
    let taken = house.app.places.try_acquire().unwrap();

    let refused = house.get("/livez", "").await;

    assert_eq!((refused.status.as_u16(), refused.code()), (503, Code::Busy));
    drop(taken);
    assert_eq!(house.get("/livez", "").await.status, 200);
}

#[tokio::test]
async fn a_panic_becomes_a_refusal() {
    let house = House::open().await;
    let router = Router::new()
        .route(
            "/",
            axum::routing::get(async || -> StatusCode { panic!("a secret in a panic") }),
        )
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(middleware::from_fn_with_state(
            house.app.clone(),
            problem::door,
        ));
    let house = House { router, ..house };

    let answer = house.get("/", "").await;

    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (500, Code::Internal)
    );
    assert!(!answer.body.contains("secret"));
}

#[tokio::test]
async fn a_draining_server_says_that_it_is_not_ready() {
    let house = House::open().await;
    assert_eq!(house.get("/readyz", "").await.status, 200);

    house.app.draining.store(true, Ordering::Relaxed);

    let answer = house.get("/readyz", "").await;
    assert_eq!(answer.status, 503);
    assert_eq!(house.get("/livez", "").await.status, 200);
}
