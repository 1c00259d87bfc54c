//! What this server says of itself: OpenAPI, made from its routes and the types of their bodies, as
//! JSON and as a page to read.

use std::sync::LazyLock;

use axum::{
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use crate::router;

mod page;

/// The description as `GET /openapi.json` gives it, the same as `crates/api/openapi.json`.
pub fn text() -> &'static str {
    &TEXT
}

#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "show_description",
    tag = "Operation",
    summary = "This description",
    description = "",
    security(()),
    responses((status = 200, description = "OpenAPI", body = serde_json::Value))
)]
pub(crate) async fn document() -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, KEEP),
    ];
    (headers, text()).into_response()
}

#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "show_docs",
    tag = "Operation",
    summary = "This description, to read",
    description = "",
    security(()),
    responses((status = 200, description = "A page that needs nothing from elsewhere", content_type = "text/html", body = String))
)]
pub(crate) async fn page() -> Response {
    static PAGE: LazyLock<String> = LazyLock::new(|| page::html(&DESCRIBED));
    let headers = [
        (
            CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        (CACHE_CONTROL, KEEP),
        // Nothing is loaded and nothing runs; the page's own rules for looks are all it has.
        (
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            ),
        ),
    ];
    (headers, PAGE.as_str()).into_response()
}

const KEEP: HeaderValue = HeaderValue::from_static("public, max-age=300");

static DESCRIBED: LazyLock<Value> = LazyLock::new(describe);

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let mut text = serde_json::to_string_pretty(&*DESCRIBED).expect("JSON serialises");
    text.push('\n');
    text
});

/// The routes' own description, and what holds for all of them.
fn describe() -> Value {
    let mut described =
        serde_json::to_value(router::described().into_openapi()).expect("a description serialises");
    described["info"] = json!({
        "title": "Skytale API server",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Accounts, API keys and tokens for agents that talk end to end through relays. \
            It sees no message. Bodies are JSON in UTF-8; requests with a field that is not listed are \
            refused, and answers may grow. Each refusal is a Problem (RFC 9457) with a code for \
            programs; X-Request-Id finds a request in the server's log.",
        "license": {"name": "Apache-2.0"},
    });
    described["tags"] = TAGS
        .iter()
        .map(|(name, what)| json!({"name": name, "description": what}))
        .collect();
    let components = &mut described["components"];
    components["securitySchemes"] = security_schemes();
    components["schemas"]["Problem"] =
        json!(<skytale_wire::http::Problem as utoipa::PartialSchema>::schema());
    components["schemas"]["Code"] =
        json!(<skytale_wire::http::Code as utoipa::PartialSchema>::schema());
    components["responses"] = REFUSALS
        .iter()
        .map(|(status, what)| (format!("Refused{status}"), refusal(*status, what)))
        .collect::<Map<_, _>>()
        .into();
    components["headers"] = HEADERS
        .iter()
        .map(|(name, is_always, form, what)| ((*name).to_owned(), header(*is_always, form, what)))
        .collect::<Map<_, _>>()
        .into();
    for (method, operation) in operations(&mut described) {
        complete(method, operation);
    }
    described
}

/// Every operation of a description, with its method.
fn operations(described: &mut Value) -> impl Iterator<Item = (&str, &mut Value)> {
    let paths = described["paths"].as_object_mut().into_iter().flatten();
    paths.flat_map(|(_, methods)| {
        let methods = methods.as_object_mut().into_iter().flatten();
        methods.map(|(method, operation)| (method.as_str(), operation))
    })
}

/// Which refusals and headers a caller may meet follows from what the operation asks for.
fn complete(method: &str, operation: &mut Value) {
    let body = operation.get("requestBody").is_some();
    let proofs = operation["security"].as_array().into_iter().flatten();
    let proofs: Vec<String> = proofs
        .filter_map(Value::as_object)
        .flat_map(|one| one.keys().cloned())
        .collect();
    let is_for_relays = proofs.iter().any(|proof| proof == "relay");
    // Where a proof is asked for, or could be guessed, callers are counted; relays are not.
    let is_counted = !is_for_relays && (body || !proofs.is_empty());
    // What relays say has numbers by which it counts once.
    let is_repeatable = method == "post" && !is_for_relays;
    let (mut path, mut query) = (false, false);
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        path |= parameter["in"] == "path";
        query |= parameter["in"] == "query";
    }
    let mut statuses = vec![408, 500, 503];
    if body {
        statuses.extend([400, 413, 415, 422]);
    }
    if query {
        statuses.extend([400, 422]);
    }
    if path {
        statuses.extend([400, 404]);
    }
    if !proofs.is_empty() {
        statuses.extend([401, 403]);
    }
    if is_counted {
        statuses.push(429);
    }
    if is_repeatable {
        // An Idempotency-Key that is none, was used for something else, or is under way.
        statuses.extend([400, 409, 422]);
        let parameters = &mut operation["parameters"];
        if parameters.is_null() {
            *parameters = json!([]);
        }
        let parameters = parameters.as_array_mut().expect("parameters are a list");
        parameters.push(idempotency_key());
    }
    let responses = operation["responses"].as_object_mut();
    let responses = responses.expect("an operation has responses");
    for (status, response) in &mut *responses {
        response["headers"] = headers(status, is_counted);
    }
    for status in statuses {
        let said = json!({"$ref": format!("#/components/responses/Refused{status}")});
        responses.entry(status.to_string()).or_insert(said);
    }
}

fn idempotency_key() -> Value {
    json!({
        "name": "Idempotency-Key",
        "in": "header",
        "required": false,
        "description": "Any text of the caller's own: within a day, the same request with it takes \
            effect once. Its answer is given again; one that held a secret for a minute only.",
        "schema": {"type": "string", "pattern": r#"^([!#-~]{1,128}|"[!#-~]{1,128}")$"#},
    })
}

fn refusal(status: u16, what: &str) -> Value {
    json!({
        "description": what,
        "headers": headers(&status.to_string(), true),
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    })
}

/// The headers by which an answer of this status may say something.
fn headers(status: &str, is_counted: bool) -> Value {
    let mut names = vec!["X-Request-Id"];
    if is_counted {
        names.extend(["RateLimit", "RateLimit-Policy"]);
    }
    match status {
        "401" => names.push("WWW-Authenticate"),
        "403" | "409" | "429" | "503" => names.push("Retry-After"),
        _ => {}
    }
    let place = |name: &str| json!({"$ref": format!("#/components/headers/{name}")});
    let headers = names.into_iter().map(|name| (name.to_owned(), place(name)));
    headers.collect::<Map<_, _>>().into()
}

fn header(is_always: bool, form: &str, what: &str) -> Value {
    let schema = match form {
        "integer" => json!({"type": "integer", "minimum": 0}),
        pattern => json!({"type": "string", "pattern": pattern}),
    };
    json!({"description": what, "required": is_always, "schema": schema})
}

fn security_schemes() -> Value {
    json!({
        "key": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "sk_live_…",
            "description": "An API key. The list names the scope that it needs.",
        },
        "session": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "The token of POST /v1/sessions: the account's owner, for a quarter of an hour.",
        },
        "token": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A token that an API key bought for calls about the account.",
        },
        "relay": {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "Relay KEY:TIME:SIGNATURE, by the key of a relay that the server knows.",
        },
    })
}

const TAGS: [(&str, &str); 8] = [
    ("Accounts", "Signing up and in, and the account itself."),
    ("API keys", "What programs prove themselves with."),
    ("Agents", "Whom the account has bought tokens for."),
    ("Tokens", "What relays let agents in by."),
    ("Usage", "What was used."),
    ("Channels", "What relays hold of the account's channels."),
    (
        "Relays",
        "The relays that the server was started with, and what they ask of it.",
    ),
    ("Operation", "For those who run the server."),
];

/// The statuses that operations have in common, and what they mean.
const REFUSALS: [(u16, &str); 12] = [
    (
        400,
        "Not JSON, or not a path or query that the server understands",
    ),
    (401, "No key, token or password, or not a good one"),
    (403, "What was shown does not permit this"),
    (404, "Nothing there that the caller may know of"),
    (408, "The request did not arrive whole in time"),
    (
        409,
        "The account has as many keys as it may, or what came with this Idempotency-Key before stands against it",
    ),
    (413, "The body is too long"),
    (415, "The body is not application/json"),
    (422, "A field is missing, unknown, doubled, or out of range"),
    (429, "Too often: come again after retry_after_s"),
    (500, "A bug of the server, whose log has the request id"),
    (
        503,
        "As much work waits as may wait, or the database or a relay does not answer: come again after retry_after_s",
    ),
];

/// Headers of answers: whether they are always there where they are named, what they look like, and
/// what they say.
const HEADERS: [(&str, bool, &str, &str); 5] = [
    (
        "X-Request-Id",
        true,
        "^req_[0-9a-f]{32}$",
        "Finds the request in the server's log",
    ),
    (
        "RateLimit",
        false,
        r#"^"[a-z-]+";r=[0-9]+;t=[0-9]+(, "[a-z-]+";r=[0-9]+;t=[0-9]+)*$"#,
        "What is left of each limit that the request met, and after how many seconds all of it is there again",
    ),
    (
        "RateLimit-Policy",
        false,
        r#"^"[a-z-]+";q=[0-9]+;w=[0-9]+(, "[a-z-]+";q=[0-9]+;w=[0-9]+)*$"#,
        "How many requests each of these limits allows, and in how many seconds",
    ),
    (
        "Retry-After",
        false,
        "integer",
        "After how many seconds the request may pass",
    ),
    (
        "WWW-Authenticate",
        true,
        "^Bearer$",
        "How to prove who calls",
    ),
];
