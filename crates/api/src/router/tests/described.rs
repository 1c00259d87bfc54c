//! The description against the server: that each says no more and no less than the other.

use std::collections::BTreeSet;

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
            operation.statuses.contains(&status),
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
struct Operation {
    id: String,
    path: String,
    method: Method,
    /// Proofs and the scopes that they need; none where nothing is needed.
    proofs: Vec<(String, Vec<String>)>,
    statuses: Vec<String>,
}

impl Operation {
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

fn operations() -> Vec<Operation> {
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
                statuses: operation["responses"]
                    .as_object()
                    .unwrap()
                    .keys()
                    .cloned()
                    .collect(),
            });
        }
    }
    let ids: BTreeSet<_> = all.iter().map(|operation| &operation.id).collect();
    assert_eq!(ids.len(), all.len(), "each has a name of its own");
    all
}

/// An agent of this person and of nobody else.
fn agent(person: &Person) -> AgentId {
    AgentId(Digest::of(&[&person.session.account_id.0]).0)
}

fn agent_body(person: &Person) -> Value {
    json!({"agent_id": agent(person), "transport_key": TransportKey([2; 32]), "audience": relay()})
}
