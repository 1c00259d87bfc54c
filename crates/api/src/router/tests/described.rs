//! The description against the server: that each says no more and no less than the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use super::{
    held::{channel, one_channel_each},
    *,
};
use crate::openapi;

#[test]
fn the_description_in_the_repository_is_this_server_s() {
    let committed = include_str!("../../../openapi.json");

    assert!(
        committed == openapi(),
        "write it anew: skytale api describe > crates/api/openapi.json"
    );
}

#[tokio::test]
async fn every_described_operation_answers_as_described_and_nothing_else_answers() {
    let house = House::open().await;
    let all = operations();
    assert!(all.len() > 20);

    for operation in &all {
        let path = operation.path.replace("{id}", "nobody");
        let answer = house
            .call(operation.method.clone(), &path, "", Value::Null)
            .await;
        let status = answer.status.as_u16().to_string();
        assert!(
            operation.answers.contains_key(&status),
            "{operation:?}: {status}"
        );
        assert_ne!(
            answer.status,
            StatusCode::METHOD_NOT_ALLOWED,
            "{operation:?}"
        );
        if !operation.proofs.is_empty() {
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{operation:?}");
        }
    }

    let described: BTreeSet<_> = all
        .iter()
        .map(|it| (it.path.clone(), it.method.clone().to_string()))
        .collect();
    for operation in &all {
        let path = operation.path.replace("{id}", "nobody");
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            if !described.contains(&(operation.path.clone(), method.to_owned())) {
                let method = method.parse().unwrap();
                let answer = house.call(method, &path, "", Value::Null).await;
                assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
            }
        }
        for beside in [
            format!("{path}/"),
            format!("{path}/more/of/it"),
            format!("/x{path}"),
        ] {
            let answer = house.get(&beside, "").await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{beside}");
        }
    }
    for hidden in [
        "/",
        "/v1",
        "/v1/",
        "/metrics",
        "/debug",
        "/admin",
        "/openapi.yaml",
        "/favicon.ico",
        "/ui/",
        "/ui/nowhere",
        "/ui/keys/nobody",
        "/uix",
    ] {
        let answer = house.get(hidden, "").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{hidden}");
    }
}

/// The dashboard is the one thing that answers and is not described: it is for people, and all of it
/// lies below `/ui`, where nothing for programs does.
#[test]
fn only_pages_for_people_are_left_out_of_the_description() {
    assert!(operations().iter().all(|it| !it.path.starts_with("/ui")));
    let pages = crate::ui::all();
    assert!(pages.len() >= 10);
    for (path, _) in pages {
        assert!(path == "/ui" || path.starts_with("/ui/"), "{path}");
    }
}

/// Each operation that names something, with what belongs to somebody else: as if it were not there.
#[tokio::test]
async fn what_belongs_to_another_account_is_not_there() {
    let house = open_for_many().await;
    let _relay = house.with_relay(relay_secret(), one_channel_each(3)).await;
    let mut tried = 0;
    for (at, operation) in operations().iter().enumerate() {
        if !operation.path.contains("{id}") {
            continue;
        }
        // Some operations leave nothing behind to try the next one with.
        let ours = house.person(&format!("us-{at}")).await;
        let theirs = house.person(&format!("them-{at}")).await;
        for person in [&ours, &theirs] {
            let bought = house.token(person.key(), agent_body(person)).await;
            assert_eq!(bought.status, StatusCode::OK);
        }
        let id = |person: &Person| match operation.id.as_str() {
            "create_key_for" => person.session.account_id.to_string(),
            "rotate_key" | "revoke_key" => person.key.id.clone(),
            "set_agent" => agent(person).to_string(),
            "list_records" => channel(&person.session.account_id).to_string(),
            unknown => panic!("say whose ids {unknown} takes"),
        };
        for bearer in [ours.session(), ours.key()] {
            let path = operation.path.replace("{id}", &id(&theirs));
            let answer = house
                .call(
                    operation.method.clone(),
                    &path,
                    bearer,
                    operation.body(&ours),
                )
                .await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        }
        // And it is no mistake of ours: their own it is.
        let path = operation.path.replace("{id}", &id(&theirs));
        let answer = house
            .call(
                operation.method.clone(),
                &path,
                theirs.session(),
                operation.body(&theirs),
            )
            .await;
        assert!(answer.status.is_success(), "{path}: {}", answer.status);
        tried += 1;
    }
    assert!(tried >= 5);
}

/// Each proof at each operation: what the description permits is permitted, everything else is 403.
#[tokio::test]
async fn each_proof_opens_what_the_description_says() {
    let house = open_for_many().await;
    let _relay = house.with_relay(relay_secret(), one_channel_each(3)).await;
    for (at, operation) in operations().iter().enumerate() {
        if operation.proofs.is_empty() || operation.proofs.iter().any(|(name, _)| name == "relay") {
            continue;
        }
        let proofs = [
            ("key", "relay"),
            ("key", "slim"),
            ("key", "account"),
            ("key", "keys"),
            ("token", "account"),
            ("session", ""),
        ];
        for (proof, scope) in proofs {
            // Some operations leave nothing behind to try the next one with.
            let person = house.person(&format!("{at}-{proof}-{scope}")).await;
            let bought = house.token(person.key(), agent_body(&person)).await;
            assert_eq!(bought.status, StatusCode::OK);
            let bearer = match proof {
                "key" => {
                    let wish = json!({"name": "narrow", "scopes": [scope]});
                    let made = house.post("/v1/keys", person.session(), wish).await;
                    made.read::<NewKey>().key.expose().to_owned()
                }
                "token" => {
                    let bought = house.token(person.key(), json!({})).await;
                    bought.read::<TokenAnswer>().token.expose().to_owned()
                }
                _ => person.session().to_owned(),
            };
            let body = match (operation.id.as_str(), scope) {
                ("buy_token", "relay") => agent_body(&person),
                ("buy_token", "slim") => json!({"audience": relay(), "slim": ["org/*"]}),
                // A key makes no key that may do more than itself.
                ("create_key" | "create_key_for", "keys") => {
                    json!({"name": "next", "scopes": ["keys"]})
                }
                (_, _) => operation.body(&person),
            };
            let id = match operation.id.as_str() {
                "create_key_for" => person.session.account_id.to_string(),
                // Its own: another one may do more.
                "rotate_key" if proof == "key" => bearer.chars().skip(8).take(8).collect(),
                "rotate_key" | "revoke_key" => person.key.id.clone(),
                "list_records" => channel(&person.session.account_id).to_string(),
                _ => agent(&person).to_string(),
            };
            let path = operation.path.replace("{id}", &id);

            let answer = house
                .call(operation.method.clone(), &path, &bearer, body)
                .await;

            let said = format!("{proof} {scope} at {operation:?}: {}", answer.status);
            if operation.permits(proof, scope) {
                assert!(answer.status.is_success(), "{said}");
            } else {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{said}");
            }
        }
    }
}

#[tokio::test]
async fn the_page_shows_every_operation_and_needs_nothing_from_elsewhere() {
    let house = House::open().await;

    let page = house.get("/docs", "").await;

    assert_eq!(page.status, StatusCode::OK);
    for operation in operations() {
        assert!(page.body.contains(&operation.path), "{operation:?}");
        assert!(
            page.body
                .contains(&format!("<section id=\"{}\">", operation.id))
        );
    }
    for outside in ["http://", "https://", "src=", "<script", "@import", "url("] {
        assert!(!page.body.contains(outside), "{outside}");
    }
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; "));
    // Each reference leads to something on the page.
    for link in page.body.split("href=\"#").skip(1) {
        let id = link.split('"').next().unwrap();
        assert!(page.body.contains(&format!("id=\"{id}\"")), "{id}");
    }
}

/// That keys do look so is what schemathesis checks in answers.
#[test]
fn scanners_are_told_the_form_that_keys_have() {
    let form = "sk_(live|test)_[0-9A-Za-z]{8}_[0-9A-Za-z]{49}";

    let described: Value = serde_json::from_str(openapi()).unwrap();

    let key = &described["components"]["schemas"]["NewKey"]["properties"]["key"];
    assert_eq!(key["pattern"], format!("^{form}$"));
    assert!(include_str!("../../../../../SECURITY.md").contains(&format!("\n{form}\n")));
}

#[derive(Debug)]
pub(super) struct Operation {
    id: String,
    pub(super) path: String,
    pub(super) method: Method,
    /// Proofs and the scopes that they need; none where nothing is needed.
    proofs: Vec<(String, Vec<String>)>,
    takes_idempotency_key: bool,
    /// By their status: the headers that they may have, and whether they always do.
    answers: BTreeMap<String, BTreeMap<String, bool>>,
}

/// What every answer in every test of the routes is held to: its status is described for its operation,
/// and so are its headers, but for those of which every client of HTTP knows what they mean.
pub(super) fn check(method: &Method, path: &str, answer: &Answer) {
    static ALL: LazyLock<Vec<Operation>> = LazyLock::new(operations);
    let Some(operation) = ALL.iter().find(|it| it.is_at(method, path)) else {
        return;
    };
    let status = answer.status.as_str();
    let said = || format!("{method} {path}: {status} {}", answer.body);
    let Some(headers) = operation.answers.get(status) else {
        panic!("not described: {}", said());
    };
    for name in answer.headers.keys() {
        let is_known = COMMON_HEADERS.contains(&name.as_str());
        assert!(
            is_known || headers.contains_key(name.as_str()),
            "{name} is not described: {}",
            said()
        );
    }
    for (name, is_always) in headers {
        assert!(
            !is_always || answer.headers.contains_key(name),
            "{name} is missing: {}",
            said()
        );
    }
    if [429, 503].contains(&answer.status.as_u16()) && answer.body.contains("\"code\"") {
        assert!(answer.headers.contains_key("retry-after"), "{}", said());
    }
}

const COMMON_HEADERS: &[&str] = &[
    "allow",
    "cache-control",
    "content-length",
    "content-security-policy",
    "content-type",
    "strict-transport-security",
    "x-content-type-options",
];

/// Each header that the server has to say something by is met, or the check above would check nothing.
#[tokio::test]
async fn the_headers_that_are_described_are_sent() {
    let house = House::open_with(|config| config.unproven_per_minute_max = 1).await;
    let described: Value = serde_json::from_str(openapi()).unwrap();
    let headers = described["components"]["headers"].as_object().unwrap();
    let names: BTreeSet<String> = headers.keys().map(|name| name.to_lowercase()).collect();
    let mut met = BTreeSet::new();

    for _ in 0..2 {
        let answer = house.get("/v1/usage", "").await;
        met.extend(answer.headers.keys().map(|name| name.as_str().to_owned()));
    }

    assert_eq!(names.len(), 5);
    assert!(met.is_superset(&names), "{met:?}");
    let posts = operations()
        .into_iter()
        .filter(|it| it.method == Method::POST);
    let (repeatable, others): (Vec<_>, Vec<_>) = posts.partition(|it| it.takes_idempotency_key);
    assert!(repeatable.len() > 5);
    assert!(
        others
            .iter()
            .all(|it| ["report_usage", "take_questions"].contains(&it.id.as_str())),
        "{others:?}"
    );
}

impl Operation {
    /// Whether a request for this path is for it.
    fn is_at(&self, method: &Method, path: &str) -> bool {
        let mut parts = self.path.split('/').zip(path.split('/'));
        self.method == *method
            && self.path.split('/').count() == path.split('/').count()
            && parts.all(|(own, asked)| own == asked || (own.starts_with('{') && !asked.is_empty()))
    }

    fn permits(&self, proof: &str, scope: &str) -> bool {
        self.proofs.iter().any(|(name, scopes)| {
            name == proof && (proof != "key" || scopes.iter().any(|one| one == scope))
        })
    }

    /// What the operation takes as it is.
    fn body(&self, person: &Person) -> Value {
        match self.id.as_str() {
            "create_key" | "create_key_for" => json!({"name": "next"}),
            "rotate_key" | "buy_token" => json!({}),
            "set_agent" => json!({"disabled": true}),
            "change_password" => json!({"password": PASSWORD, "new_password": "another horse"}),
            "delete_account" => json!({"password": PASSWORD}),
            "show_account" | "list_keys" | "list_agents" | "show_usage" | "revoke_key"
            | "list_relays" | "list_channels" | "list_records" => Value::Null,
            unknown => panic!("say what {unknown} takes of {}", person.session.account_id),
        }
    }
}

/// A server at which many people sign up from one place.
async fn open_for_many() -> House {
    House::open_with(|config| config.unproven_per_minute_max = 100_000).await
}

pub(super) fn operations() -> Vec<Operation> {
    let described: Value = serde_json::from_str(openapi()).unwrap();
    let mut all = Vec::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let proofs = operation["security"].as_array().unwrap();
            let proofs = proofs.iter().flat_map(|one| one.as_object().unwrap());
            let words = |list: &Value| serde_json::from_value(list.clone()).unwrap();
            all.push(Operation {
                id: operation["operationId"].as_str().unwrap().to_owned(),
                path: path.clone(),
                method: method.to_uppercase().parse().unwrap(),
                proofs: proofs
                    .map(|(name, scopes)| (name.clone(), words(scopes)))
                    .collect(),
                takes_idempotency_key: parameters(operation)
                    .any(|it| it["in"] == "header" && it["name"] == "Idempotency-Key"),
                answers: operation["responses"]
                    .as_object()
                    .unwrap()
                    .iter()
                    .map(|(status, response)| (status.clone(), headers(&described, response)))
                    .collect(),
            });
        }
    }
    let ids: BTreeSet<_> = all.iter().map(|operation| &operation.id).collect();
    assert_eq!(ids.len(), all.len(), "each has a name of its own");
    all
}

fn parameters(operation: &Value) -> impl Iterator<Item = &Value> {
    operation["parameters"].as_array().into_iter().flatten()
}

/// The headers of a response, in lower case as they come.
fn headers(described: &Value, response: &Value) -> BTreeMap<String, bool> {
    let headers = resolved(described, response)["headers"].as_object();
    let headers = headers.expect("every response names headers");
    let header = |(name, header): (&String, &Value)| {
        let is_always = resolved(described, header)["required"] == true;
        (name.to_lowercase(), is_always)
    };
    headers.iter().map(header).collect()
}

/// What stands there, or where the reference points.
fn resolved<'a>(described: &'a Value, here: &'a Value) -> &'a Value {
    let place = here["$ref"].as_str().and_then(|it| it.strip_prefix('#'));
    place.map_or(here, |place| described.pointer(place).unwrap())
}

/// An agent of this person and of nobody else.
fn agent(person: &Person) -> AgentId {
    AgentId(Digest::of(&[&person.session.account_id.0]).0)
}

fn agent_body(person: &Person) -> Value {
    json!({"agent_id": agent(person), "transport_key": TransportKey([2; 32]), "audience": relay()})
}
