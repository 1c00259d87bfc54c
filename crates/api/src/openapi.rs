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
        .map(|(status, what)| (format!("Refused{status}"), refusal(what)))
        .collect::<Map<_, _>>()
        .into();
    for (method, operation) in operations(&mut described) {
        add_refusals(method == "post", operation);
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

/// Which refusals a caller may meet follows from what the operation asks for.
fn add_refusals(is_post: bool, operation: &mut Value) {
    let body = operation.get("requestBody").is_some();
    let proof = operation["security"].as_array().is_some_and(|all| {
        all.iter()
            .any(|one| one.as_object().is_some_and(|one| !one.is_empty()))
    });
    let passwords = operation["operationId"] == "sign_in";
    let (mut path, mut query) = (false, false);
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        path |= parameter["in"] == "path";
        query |= parameter["in"] == "query";
    }
    let mut statuses = vec![408, 429, 500, 503];
    if body {
        statuses.extend([400, 413, 415, 422]);
    }
    if query {
        statuses.extend([400, 422]);
    }
    if path {
        statuses.extend([400, 404]);
    }
    if proof {
        statuses.extend([401, 403]);
    }
    if passwords {
        statuses.push(401);
    }
    if is_post {
        // An Idempotency-Key that is none, was used for something else, or is under way.
        statuses.extend([400, 409, 422]);
    }
    for status in statuses {
        let said = json!({"$ref": format!("#/components/responses/Refused{status}")});
        let responses = operation["responses"].as_object_mut();
        let responses = responses.expect("an operation has responses");
        responses.entry(status.to_string()).or_insert(said);
    }
}

fn refusal(what: &str) -> Value {
    json!({
        "description": what,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    })
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
