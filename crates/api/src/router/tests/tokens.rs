//! What `POST /v1/tokens` sells, and to whom.

use super::*;

#[tokio::test]
async fn a_key_buys_a_token_that_the_relay_can_check() {
    let house = House::open().await;
    let alice = house.person("alice").await;

    let answer = house.token(alice.key(), agent_request()).await;

    assert_eq!(answer.headers["cache-control"], "no-store");
    let answer: TokenAnswer = answer.read();
    let jwks = house.get("/.well-known/jwks.json", "").await;
    let keys = PublicKeys::from_json(jwks.body.as_bytes()).unwrap();
    let claims = Verifier::new(Audience::Relay(relay()), &keys)
        .unwrap()
        .verify(answer.token.expose(), NOW)
        .unwrap();
    assert_eq!(
        claims,
        Claims {
            account: alice.session.account_id,
            grant: Grant::Agent {
                relay: relay(),
                agent: AgentId([4; 32]),
                transport_key: TransportKey([5; 32]),
            },
            scopes: [Scope::Relay].into(),
            key: claims.key.clone(),
            id: claims.id,
            issued: NOW,
            expires: NOW.plus(3_600_000),
        }
    );
    assert_eq!(answer.expires_in_s, 3600);
    assert_eq!(answer.expires_at, "2026-09-21T15:13:20.000Z");
    assert_eq!(answer.relays[0].addresses, ["relay.example.org:4433"]);
}

#[tokio::test]
async fn a_server_for_agents_sells_tokens_and_does_nothing_else() {
    let mut house = House::open().await;
    let alice = house.person("alice").await;
    let small = routes_of_agents(house.app.clone());
    let whole = std::mem::replace(&mut house.router, small.clone());

    let sold = house.token(alice.key(), agent_request()).await;
    let keys = house.get("/.well-known/jwks.json", "").await;

    assert_eq!((sold.status, keys.status), (StatusCode::OK, StatusCode::OK));
    for path in ["/v1/accounts/me", "/v1/usage", "/openapi.json", "/ui"] {
        let ask = || Request::get(path).body(Body::empty()).unwrap();
        let there = whole.clone().oneshot(ask()).await.unwrap();
        let gone = small.clone().oneshot(ask()).await.unwrap();
        assert_ne!(there.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(gone.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn a_key_buys_a_token_for_slim_that_names_no_key() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let body = json!({"audience": relay(), "slim": ["acme/*", "org/ns/planner"]});

    let answer: TokenAnswer = house.token(alice.key(), body).await.read();

    let claims = Verifier::new(Audience::Relay(relay()), &house.app.keys.public(NOW))
        .unwrap()
        .verify(answer.token.expose(), NOW)
        .unwrap();
    let patterns = ["acme/*", "org/ns/planner"].map(str::to_owned);
    assert_eq!(
        claims,
        Claims {
            account: alice.session.account_id,
            grant: Grant::Slim {
                relay: relay(),
                patterns: SlimPatterns::parse(&patterns).unwrap(),
            },
            scopes: [Scope::Slim].into(),
            key: claims.key.clone(),
            id: claims.id,
            issued: NOW,
            expires: NOW.plus(3_600_000),
        }
    );
    assert_eq!(answer.expires_in_s, 3600);
    let usage: Usage = house.get("/v1/usage", alice.key()).await.read();
    assert_eq!(usage.months[0].used.token_exchanges, 1);
}

#[tokio::test]
async fn patterns_that_no_token_can_carry_are_refused_by_name() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let many: Vec<String> = (0..17).map(|n| format!("{n}/*")).collect();
    for slim in [
        json!([]),
        json!(["*"]),
        json!(["acme"]),
        json!(["acme/*/planner"]),
        json!(["acme/*", ""]),
        json!(["acme/*", "acme/*"]),
        json!(many),
        json!([
            "a".repeat(1_000) + "/*",
            "b".repeat(1_024) + "/*",
            "c".repeat(24) + "/*"
        ]),
    ] {
        let body = json!({"audience": relay(), "slim": slim});
        let answer = house.token(alice.key(), body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (422, Code::BadPattern),
            "{slim}"
        );
        let problem: Problem = answer.read();
        assert!(!problem.detail.contains("acme"), "{}", problem.detail);
    }
    for slim in [json!("acme/*"), json!([1]), json!({})] {
        let body = json!({"audience": relay(), "slim": slim});
        assert_eq!(
            house.token(alice.key(), body).await.code(),
            Code::BadBody,
            "{slim}"
        );
    }
    let usage: Usage = house.get("/v1/usage", alice.key()).await.read();
    assert!(usage.months.is_empty(), "a refusal is not counted");
}

#[tokio::test]
async fn a_token_buys_no_token() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let account: TokenAnswer = house.token(alice.key(), json!({})).await.read();
    let native: TokenAnswer = house.token(alice.key(), agent_request()).await.read();
    let slim: TokenAnswer = house.token(alice.key(), slim_request()).await.read();

    let with_account = house.token(account.token.expose(), json!({})).await;
    let with_session = house.token(alice.session(), agent_request()).await;
    let with_native = house.token(native.token.expose(), agent_request()).await;
    let with_slim = house.token(slim.token.expose(), slim_request()).await;
    let slim_with_account = house.token(account.token.expose(), slim_request()).await;

    assert_eq!(
        (with_account.status.as_u16(), with_account.code()),
        (403, Code::Denied)
    );
    assert_eq!(
        (with_session.status.as_u16(), with_session.code()),
        (403, Code::Denied)
    );
    assert_eq!(
        (with_native.status.as_u16(), with_native.code()),
        (401, Code::Unauthenticated)
    );
    assert_eq!(
        (with_slim.status.as_u16(), with_slim.code()),
        (401, Code::Unauthenticated)
    );
    assert_eq!(
        (slim_with_account.status.as_u16(), slim_with_account.code()),
        (403, Code::Denied)
    );
}

#[tokio::test]
async fn a_token_is_for_an_agent_for_slim_or_for_the_account_and_nothing_between() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    for also in ["agent_id", "transport_key"] {
        let mut body = slim_request();
        body[also] = agent_request()[also].clone();
        assert_eq!(
            house.token(alice.key(), body).await.code(),
            Code::BadBody,
            "{also}"
        );
    }
    let mut both = agent_request();
    both["slim"] = json!(["acme/*"]);
    assert_eq!(house.token(alice.key(), both).await.code(), Code::BadBody);
    let nowhere = json!({"slim": ["acme/*"]});
    assert_eq!(
        house.token(alice.key(), nowhere).await.code(),
        Code::BadBody
    );
    let anywhere = json!({"audience": relay()});
    assert_eq!(
        house.token(alice.key(), anywhere).await.code(),
        Code::BadBody
    );
    let mut elsewhere = slim_request();
    elsewhere["audience"] = json!(RelayKey([8; 32]));
    assert_eq!(
        house.token(alice.key(), elsewhere).await.code(),
        Code::UnknownAudience
    );
    for missing in ["agent_id", "transport_key", "audience"] {
        let mut body = agent_request();
        body.as_object_mut().unwrap().remove(missing);
        assert_eq!(
            house.token(alice.key(), body).await.code(),
            Code::BadBody,
            "{missing}"
        );
    }
    let mut elsewhere = agent_request();
    elsewhere["audience"] = json!(RelayKey([8; 32]));
    assert_eq!(
        house.token(alice.key(), elsewhere).await.code(),
        Code::UnknownAudience
    );
    let mut greedy = agent_request();
    greedy["scope"] = json!("relay account keys");
    assert_eq!(house.token(alice.key(), greedy).await.code(), Code::BadBody);
}
