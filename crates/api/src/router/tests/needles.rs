//! A22: secrets, and who somebody is, where they do not belong. In two ways: whatever any test of the
//! routes does is watched, logs at the most talkative level, refusals, headers and the `Debug` of the
//! whole server; and needles are put wherever a request has room for one.

use std::{
    io,
    sync::{Mutex, Once, PoisonError},
};

use axum::extract::FromRequestParts as _;
use data_encoding::{BASE64, BASE64URL, HEXLOWER};
use skytale_wire::http::{ChangePassword, DeleteAccount, Secret, SignIn, SignUp};

use super::*;
use crate::{caller::Caller, store::Email, tally};

/// In no other text.
const NEEDLE: &str = "Quahog7741";

/// Listens from now on to everything that this process logs.
pub(super) fn watch() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(|| &WATCH)
            .finish();
        tracing::subscriber::set_global_default(subscriber).expect("nobody else listens");
    });
}

/// Nothing secret was said, be it aside. Whoever asks for a key or token gets it, and nothing else that
/// is secret; and what belongs to somebody is shown to them.
pub(super) fn check(method: &Method, answer: &Answer, app: &App) {
    if let Some(heard) = &*WATCH.leak.lock().unwrap_or_else(PoisonError::into_inner) {
        panic!("logged: {heard}");
    }
    let mut headers = answer.headers.clone();
    if let Some(cookie) = headers.remove("set-cookie") {
        // Where a session of the dashboard belongs, and no script sees it.
        let cookie = cookie.to_str().unwrap();
        assert!(
            cookie.contains("; Path=/ui;") && cookie.contains("; HttpOnly;"),
            "{cookie}"
        );
    }
    let headers = format!("{headers:?}");
    let server = format!("{app:?}");
    for (place, text) in [("a header", &headers), ("Debug of the server", &server)] {
        assert_eq!(secret_in(text), None, "{place}: {text}");
    }
    let found = secret_in(&answer.body);
    let is_for_its_owner = match found {
        Some(Found::Key | Found::Token) => *method == Method::POST,
        Some(Found::Email | Found::Needle) => true,
        Some(Found::Hash | Found::Password) => false,
        None => return,
    };
    // A form that was refused keeps what was typed, but for the password.
    let is_kept = found == Some(Found::Email) && is_page(answer);
    let is_given = is_kept || (answer.status.is_success() && is_for_its_owner);
    assert!(
        is_given,
        "{method} {}: {found:?}: {}",
        answer.status, answer.body
    );
}

fn is_page(answer: &Answer) -> bool {
    let kind = answer.headers.get("content-type");
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}

static WATCH: Watch = Watch::new();

/// Looks at each line that is logged.
struct Watch {
    lines: AtomicU64,
    leak: Mutex<Option<String>>,
}

/// What a text should not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Key,
    Token,
    Hash,
    Password,
    Email,
    Needle,
}

impl Watch {
    const fn new() -> Self {
        Self {
            lines: AtomicU64::new(0),
            leak: Mutex::new(None),
        }
    }
}

impl io::Write for &Watch {
    /// A whole event at a time.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8_lossy(bytes);
        if let Some(found) = secret_in(&text) {
            let mut leak = self.leak.lock().unwrap_or_else(PoisonError::into_inner);
            leak.get_or_insert_with(|| format!("{found:?}: {text}"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The worst of what a text holds that looks like a secret, or is one of these tests'.
fn secret_in(text: &str) -> Option<Found> {
    let after = |mark: &'static str| {
        let found = text.match_indices(mark);
        found.map(move |(at, _)| text.split_at(at + mark.len()).1)
    };
    let is_hash = text.contains("$argon2");
    let is_password = PASSWORDS.iter().any(|password| text.contains(password));
    let is_key = after("sk_live_").chain(after("sk_test_")).any(|rest| {
        let secret = rest.split_once('_').map_or("", |(_, secret)| secret);
        begins_with(secret, 49, |byte| byte.is_ascii_alphanumeric())
    });
    let is_token = after("eyJ").any(|rest| {
        let part = rest.split('.').next().unwrap_or_default();
        rest.contains('.')
            && begins_with(part, 20, |it| {
                it.is_ascii_alphanumeric() || b"-_".contains(&it)
            })
    });
    // In advice it is the name of nobody.
    let mut addresses = text.match_indices("@example.org");
    let is_email = addresses.any(|(at, _)| !text.split_at(at).0.ends_with("like name"));
    [
        (is_hash, Found::Hash),
        (is_password, Found::Password),
        (is_key, Found::Key),
        (is_token, Found::Token),
        (is_email, Found::Email),
        (text.contains(NEEDLE), Found::Needle),
    ]
    .into_iter()
    .find_map(|(is_there, found)| is_there.then_some(found))
}

fn begins_with(text: &str, count: usize, is_one: impl Fn(u8) -> bool) -> bool {
    text.len() >= count && text.bytes().take(count).all(is_one)
}

/// Those that tests of the routes sign up with, and try.
const PASSWORDS: &[&str] = &[
    PASSWORD,
    "another password",
    "another horse",
    "needle password",
    "password no ",
    "wrong one!",
];

/// The control: each of them is found, in a log line as anywhere, and what may be shown is not.
#[tokio::test]
async fn the_watch_sees_what_it_looks_for() {
    static OWN: Watch = Watch::new();
    let house = House::open().await;
    let alice = house.person("alice").await;
    let token: TokenAnswer = house.token(alice.key(), agent_request()).await.read();
    let id = alice.key.id.parse().unwrap();
    let stored = house.app.store.key(id).await.unwrap().unwrap();
    for (text, found) in [
        (alice.key(), Found::Key),
        (token.token.expose(), Found::Token),
        (alice.session(), Found::Token),
        (stored.hash.as_str(), Found::Hash),
        (PASSWORD, Found::Password),
        ("alice@example.org", Found::Email),
        (NEEDLE, Found::Needle),
    ] {
        assert_eq!(secret_in(&format!("a {text} in it")), Some(found));
        let own = tracing_subscriber::fmt().with_writer(|| &OWN).finish();
        tracing::subscriber::with_default(own, || tracing::info!(text, "said"));
        let heard = OWN.leak.lock().unwrap().take().unwrap();
        assert!(heard.starts_with(&format!("{found:?}: ")), "{heard}");
    }
    for text in [
        "sk_live_…",
        "relay.example.org:4433",
        "an address like name@example.org",
        "req_0123456789abcdef0123456789abcdef",
        &alice.key.id,
    ] {
        assert_eq!(secret_in(text), None, "{text}");
    }
    assert!(WATCH.lines.load(Ordering::Relaxed) > 0, "the server logs");
}

/// Wherever a request has room for it, by somebody who is known and by nobody: no refusal, no header and
/// no log line says a needle back.
#[tokio::test]
async fn a_needle_is_said_back_nowhere() {
    let house = House::open_with(|config| config.unproven_per_minute_max = 1_000_000).await;
    let alice = house.person("alice").await;
    let mut refused = 0;
    for operation in described::operations() {
        for bearer in ["", alice.session(), NEEDLE] {
            for request in haystacks(&operation.method, &operation.path, bearer) {
                let answer = house.send(request).await;
                assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
                refused += u32::from(answer.status.is_client_error());
            }
        }
    }
    assert!(refused > 1_000, "{refused}");
    let page = tally::page(&house.app).await;
    assert!(
        page.contains("route=\"/v1/keys/{id}\""),
        "the page was read"
    );
    assert_eq!(secret_in(&page), None, "{page}");
}

/// A request with a needle in each of its places.
fn haystacks(method: &Method, path: &str, bearer: &str) -> Vec<Request<Body>> {
    let own = path.replace("{id}", "nobody");
    let paths = [
        own.clone(),
        path.replace("{id}", NEEDLE),
        format!("{own}/{NEEDLE}"),
        format!("{own}?{NEEDLE}=1"),
        format!("{own}?limit={NEEDLE}&after={NEEDLE}&month={NEEDLE}"),
    ];
    let bodies = [
        String::new(),
        NEEDLE.to_owned(),
        json!(NEEDLE).to_string(),
        json!([NEEDLE]).to_string(),
        json!({NEEDLE: 1}).to_string(),
    ];
    let fields = FIELDS.iter().flat_map(|field| {
        let whole = json!({"email": "a@b", "password": "no password", "name": "x"});
        [json!(NEEDLE), json!([NEEDLE]), json!({NEEDLE: NEEDLE})].map(|value| {
            let mut body = whole.clone();
            body[field] = value;
            body.to_string()
        })
    });
    let lines = [
        ("idempotency-key", NEEDLE),
        ("idempotency-key", "Quahog7741 with a space"),
        ("x-forwarded-for", NEEDLE),
        ("x-request-id", NEEDLE),
        ("user-agent", NEEDLE),
        ("cookie", "session=Quahog7741"),
        ("authorization", "Basic Quahog7741"),
        ("authorization", "Relay Quahog7741:1:Quahog7741"),
        ("content-type", "application/Quahog7741"),
    ];
    let request = |path: &str, line: Option<(&str, &str)>, body: String| {
        let mut request = Request::builder().method(method.clone()).uri(path);
        let is_own = |name: &str| line.is_some_and(|(own, _)| own == name);
        if !bearer.is_empty() && !is_own("authorization") {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        if !body.is_empty() && !is_own("content-type") {
            request = request.header("content-type", "application/json");
        }
        if let Some((name, value)) = line {
            request = request.header(name, value);
        }
        request.body(Body::from(body)).unwrap()
    };
    let by_path = paths.iter().map(|path| request(path, None, String::new()));
    let by_line = lines.map(|line| request(&own, Some(line), json!({"name": "x"}).to_string()));
    let by_body = bodies.into_iter().chain(fields);
    let by_body = by_body.map(|body| request(&own, None, body));
    by_path.chain(by_line).chain(by_body).collect()
}

/// Those of all bodies.
const FIELDS: &[&str] = &[
    "email",
    "password",
    "new_password",
    "name",
    "scopes",
    "expires_in_s",
    "overlap_s",
    "disabled",
    "agent_id",
    "transport_key",
    "audience",
    "slim",
    "number",
    "entries",
];

/// What a panic says is for the log of whoever runs the server; callers get a number to ask for.
#[tokio::test]
async fn a_panic_with_a_needle_in_it_is_answered_without() {
    let house = House::open().await;
    let router = Router::new()
        .route(
            "/",
            axum::routing::get(async || -> StatusCode { panic!("{NEEDLE}") }),
        )
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(middleware::from_fn_with_state(
            house.app.clone(),
            problem::door,
        ));
    let house = House { router, ..house };

    let answer = house.get("/", NEEDLE).await;

    assert_eq!(answer.code(), Code::Internal);
    assert_eq!(secret_in(&answer.body), None);
}

/// Each type in which a secret travels or lies, with one in it.
#[tokio::test]
async fn no_debug_shows_a_secret() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let token: TokenAnswer = house.token(alice.key(), agent_request()).await.read();
    let keys = crate::backup::signing_keys(&house.app.config.key_dir).unwrap();
    let seed = HEXLOWER.decode(keys[0].content.trim_ascii()).unwrap();
    let password = || Secret::new(PASSWORD.to_owned());
    let store = &house.app.store;
    let id = alice.key.id.parse().unwrap();
    let email = Email::parse("alice@example.org").unwrap();
    let mut callers = Vec::new();
    let account: TokenAnswer = house.token(alice.key(), json!({})).await.read();
    for bearer in [alice.key(), alice.session(), account.token.expose()] {
        let request = Request::get("/").header("authorization", format!("Bearer {bearer}"));
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        callers.push(
            Caller::from_request_parts(&mut parts, &house.app)
                .await
                .unwrap(),
        );
    }
    let mut config = house.app.config.clone();
    let url = format!("postgres://alice:{NEEDLE}@127.0.0.1/skytale");
    config.database_url = Some(url.into());

    let shown = [
        format!("{:?} {:?}", alice.key, alice.session),
        format!("{token:?} {callers:?} {config:?} {keys:?}"),
        format!("{:?} {:?}", house.app, house.app.keys),
        format!("{:?}", store.key(id).await.unwrap().unwrap()),
        format!("{:?}", store.login(email).await.unwrap().unwrap()),
        format!("{:?}", crate::secret::ApiKey::parse(alice.key()).unwrap()),
        format!(
            "{:?}",
            SignUp {
                email: "a@b".into(),
                password: password(),
                name: None
            }
        ),
        format!(
            "{:?}",
            SignIn {
                email: "a@b".into(),
                password: password()
            }
        ),
        format!(
            "{:?}",
            ChangePassword {
                password: password(),
                new_password: password()
            }
        ),
        format!(
            "{:?}",
            DeleteAccount {
                password: password()
            }
        ),
    ]
    .join("\n");

    // That a session is an account's the store's row says, with the address.
    let shown = shown.replace("alice@example.org", "");
    assert_eq!(secret_in(&shown), None, "{shown}");
    let secret = alice.key().rsplit('_').next().unwrap();
    let list = format!("{seed:?}");
    for needle in [
        secret,
        list.trim_matches(['[', ']']),
        &HEXLOWER.encode(&seed),
        &BASE64.encode(&seed),
        &BASE64URL.encode(&seed),
    ] {
        assert!(!shown.contains(needle));
    }
    assert!(
        shown.contains(&alice.key.id),
        "the control: they were shown"
    );
}
