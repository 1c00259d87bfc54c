//! A15 and A21: fields that nobody asked for, and texts that hope to be taken for something else.

use super::*;

/// A15: each body that a route takes, with a field too many.
#[tokio::test]
async fn no_route_takes_a_field_that_it_does_not_know() {
    let house = House::open_with(|config| config.unproven_per_minute_max = 1_000).await;
    let alice = house.person("alice").await;
    house.token(alice.key(), agent_request()).await;
    let login = json!({"email": "eve@example.org", "password": PASSWORD});
    let own = json!({"email": "alice@example.org", "password": PASSWORD});
    let keys_of = format!("/v1/accounts/{}/keys", alice.session.account_id);
    let rotation = format!("/v1/keys/{}/rotation", alice.key.id);
    let agent = format!("/v1/agents/{}", AgentId([4; 32]));
    let (key, session) = (alice.key(), alice.session());
    let make = json!({"name": "more"});
    let change = json!({"password": PASSWORD, "new_password": "another password"});
    // In an order in which each works, once the field is left out.
    let bodies = [
        (Method::POST, "/v1/accounts", "", login, 202),
        (Method::POST, "/v1/sessions", "", own, 201),
        (Method::POST, "/v1/keys", key, make.clone(), 201),
        (Method::POST, keys_of.as_str(), session, make, 201),
        (Method::POST, "/v1/tokens", key, json!({}), 200),
        (Method::POST, "/v1/tokens", key, agent_request(), 200),
        (Method::POST, "/v1/tokens", key, slim_request(), 200),
        (
            Method::PUT,
            agent.as_str(),
            key,
            json!({"disabled": false}),
            204,
        ),
        (
            Method::POST,
            rotation.as_str(),
            session,
            json!({"overlap_s": 60}),
            201,
        ),
        (
            Method::POST,
            "/v1/accounts/me/deletion",
            session,
            json!({"password": "wrong one!"}),
            401,
        ),
        (
            Method::PUT,
            "/v1/accounts/me/password",
            session,
            change,
            204,
        ),
    ];
    for (method, path, bearer, body, good) in bodies {
        for field in [
            "role",
            "admin",
            "account_id",
            "created_at",
            "id",
            "scope",
            "key",
            "hash",
            "sub",
            "",
            "__proto__",
            "password_hash",
            "Name",
        ] {
            for value in [json!("admin"), json!(null), json!(true)] {
                let mut more = body.clone();
                more[field] = value;
                let answer = house.call(method.clone(), path, bearer, more).await;
                assert_eq!(
                    (answer.status.as_u16(), answer.code()),
                    (422, Code::BadBody),
                    "{path} {field}"
                );
            }
        }
        let answer = house.call(method, path, bearer, body).await;
        assert_eq!(answer.status, good, "{path}: {}", answer.body);
    }
}

/// Also those that are right but for their kind.
#[tokio::test]
async fn no_route_takes_a_value_of_another_kind() {
    let house = House::open_with(|config| config.unproven_per_minute_max = 1_000).await;
    let alice = house.person("alice").await;
    let rotation = format!("/v1/keys/{}/rotation", alice.key.id);
    let agent = format!("/v1/agents/{}", AgentId([4; 32]));
    for (method, path, field) in [
        (Method::POST, "/v1/accounts", "email"),
        (Method::POST, "/v1/accounts", "password"),
        (Method::POST, "/v1/sessions", "email"),
        (Method::POST, "/v1/keys", "name"),
        (Method::POST, "/v1/keys", "scopes"),
        (Method::POST, "/v1/keys", "expires_in_s"),
        (Method::POST, rotation.as_str(), "overlap_s"),
        (Method::PUT, agent.as_str(), "disabled"),
        (Method::POST, "/v1/tokens", "agent_id"),
    ] {
        for value in [
            json!(-1),
            json!(1.5),
            json!([[]]),
            json!({"$ne": 1}),
            json!("\u{0}"),
        ] {
            let mut body = match path {
                "/v1/keys" => json!({"name": "x"}),
                "/v1/accounts" | "/v1/sessions" => json!({"email": "a@b", "password": PASSWORD}),
                _ => json!({}),
            };
            body[field] = value.clone();
            let bearer = alice.session();
            let answer = house.call(method.clone(), path, bearer, body).await;
            let status = answer.status.as_u16();
            // NUL is a text: as a name or address it is refused, as an address to sign in with it is
            // nobody's. A list where one of a few words is expected is no JSON to the parser.
            assert!(
                [400, 422].contains(&status) || (status == 401 && path == "/v1/sessions"),
                "{path} {field} {value}: {status}"
            );
            answer.code();
        }
    }
}

/// A21: what it takes it keeps as it is; what it refuses it refuses in words; nothing else happens.
#[tokio::test]
async fn odd_texts_are_kept_as_they_are_or_refused() {
    let house = House::open_with(|config| config.unproven_per_minute_max = 10_000).await;
    let alice = house.person("alice").await;
    let long = "x".repeat(60_000);
    let texts = [
        "' OR '1'='1",
        "x'; DROP TABLE accounts; --",
        "\" OR \"\"=\"",
        "$1 ?1 :name @p",
        "\\x00\\'",
        "%00%0a..%2f",
        "../../../etc/passwd",
        "{{7*7}} ${7*7} <script>alert(1)</script>",
        "NULL",
        "\u{0}",
        "a\u{0}b",
        "\u{1b}]0;x\u{7}",
        "line\nline\r\n",
        "\u{202e}txt.exe",
        "\u{2066}x\u{2069}",
        "\u{200b}\u{feff}",
        "аdmin",
        "e\u{301}\u{327}",
        "👩\u{200d}👩\u{200d}👧",
        "\u{fffd}\u{ffff}\u{10ffff}",
        &long,
    ];
    let mut kept = vec!["first".to_owned()];
    for text in texts {
        let made = house
            .post("/v1/keys", alice.session(), json!({"name": text}))
            .await;
        if made.status == 201 {
            let made: NewKey = made.read();
            assert_eq!(made.name, text);
            kept.push(text.to_owned());
        } else {
            assert_eq!(made.code(), Code::BadBody, "{text:?}");
        }
        let sign_up = json!({"email": format!("{text}@example.org"), "password": PASSWORD});
        let known = json!({"email": "alice@example.org", "password": text});
        let named = json!({"email": "n@example.org", "password": PASSWORD, "name": text});
        for (path, body, good) in [
            ("/v1/accounts", sign_up.clone(), 202),
            ("/v1/sessions", sign_up, 201),
            ("/v1/sessions", known, 401),
            ("/v1/accounts", named, 202),
        ] {
            let answer = house.post(path, "", body).await;
            let status = answer.status.as_u16();
            assert!(
                [good, 401, 422].contains(&status),
                "{path} {text:?}: {status}"
            );
            assert!(!answer.body.contains(&*long), "nothing is said back");
        }
        let answer = house
            .token(alice.key(), json!({"audience": relay(), "slim": [text]}))
            .await;
        assert!([200, 422].contains(&answer.status.as_u16()), "{text:?}");
        for field in ["agent_id", "audience", "transport_key"] {
            let mut body = agent_request();
            body[field] = json!(text);
            assert_eq!(house.token(alice.key(), body).await.code(), Code::BadBody);
        }
        if text.len() < 1_000 {
            let coded = text
                .bytes()
                .fold(String::new(), |coded, byte| format!("{coded}%{byte:02x}"));
            for (method, path) in [
                (Method::DELETE, format!("/v1/keys/{coded}")),
                (Method::POST, format!("/v1/keys/{coded}/rotation")),
                (Method::POST, format!("/v1/accounts/{coded}/keys")),
                (Method::PUT, format!("/v1/agents/{coded}")),
                (Method::GET, format!("/v1/keys?after={coded}")),
                (Method::GET, format!("/v1/agents?limit={coded}")),
                (Method::GET, format!("/{coded}")),
            ] {
                let body = match path.as_str() {
                    it if it.ends_with("/rotation") => json!({}),
                    it if it.contains("/accounts/") => json!({"name": "x"}),
                    it if it.contains("/agents/") => json!({"disabled": true}),
                    _ => Value::Null,
                };
                let answer = house.call(method, &path, alice.session(), body).await;
                let status = answer.status.as_u16();
                assert!([400, 404, 422].contains(&status), "{path}: {status}");
                answer.code();
            }
        }
    }
    let keys: Keys = house.get("/v1/keys?limit=100", alice.key()).await.read();
    let names: Vec<_> = keys.keys.into_iter().map(|key| key.name).collect();
    assert_eq!(names, kept);
    assert!(kept.iter().any(|name| name.contains("DROP TABLE")));
    assert!(
        !kept
            .iter()
            .any(|name| name.contains(['\u{202e}', '\u{2066}', '\0', '\u{1b}'])),
        "no name turns round how a list of names is read"
    );
}

/// A33: a password's length bounds what hashing it costs, so it is looked at before.
#[tokio::test]
async fn a_password_has_ten_to_1024_bytes_and_a_longer_one_is_not_hashed() {
    let house = House::open().await;
    for (length, is_one) in [
        (0, false),
        (9, false),
        (10, true),
        (1_024, true),
        (1_025, false),
        (60_000, false),
    ] {
        let login =
            json!({"email": format!("p{length}@example.org"), "password": "x".repeat(length)});
        let before = house.app.hasher.runs();

        let signed_up = house.post("/v1/accounts", "", login.clone()).await;
        assert_eq!(signed_up.status, if is_one { 202 } else { 422 }, "{length}");
        assert_eq!(house.app.hasher.runs() - before, u64::from(is_one));

        // Short ones are hashed here: that no account has one is nothing to be told.
        let signed_in = house.post("/v1/sessions", "", login).await;
        assert_eq!(signed_in.status, if is_one { 201 } else { 401 }, "{length}");
        let hashed = house.app.hasher.runs() - before - u64::from(is_one);
        assert_eq!(hashed, u64::from(length <= 1_024), "{length}");
    }
}

/// A18: what is large, deep or broken costs a refusal.
#[tokio::test]
async fn bodies_that_are_large_deep_or_broken_are_refused() {
    let house = House::open_with(|config| {
        config.unproven_per_minute_max = 1_000;
        config.body_bytes_max = 16 << 20;
    })
    .await;
    let depth = 1_000_000;
    let deep_list = format!(r#"{{"email":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let deep_map = format!(
        r#"{{"email":{}1{}}}"#,
        r#"{"a":"#.repeat(depth),
        "}".repeat(depth)
    );
    let fields: Vec<String> = (0..100_000).map(|n| format!(r#""k{n}":1"#)).collect();
    let many = format!("{{{}}}", fields.join(","));
    let same = format!("{{{}}}", vec![r#""email":"a@b""#; 100_000].join(","));
    let number = format!(r#"{{"email":"a@b","password":{}}}"#, "9".repeat(1_000_000));
    let latin = b"{\"email\":\"\xe9@b\",\"password\":\"0123456789\"}".to_vec();
    let surrogate = br#"{"email":"\ud800@b","password":"0123456789"}"#.to_vec();
    let bodies = [
        deep_list.into_bytes(),
        deep_map.into_bytes(),
        many.into_bytes(),
        same.into_bytes(),
        number.into_bytes(),
        latin,
        surrogate,
        vec![0; 1_000_000],
        vec![0x1f, 0x8b, 8, 0, 0, 0],
    ];
    for (key, wanted) in [(None, 400..=422), (Some("again"), 400..=422)] {
        for (place, body) in bodies.iter().enumerate() {
            let mut request = Request::post("/v1/accounts")
                .header("content-type", "application/json")
                .header("content-encoding", "gzip");
            if let Some(key) = key {
                request = request.header("idempotency-key", key);
            }
            let request = request.body(Body::from(body.clone())).unwrap();
            let answer = house.send(request).await;
            assert!(wanted.contains(&answer.status.as_u16()), "{place}");
            assert!(matches!(answer.code(), Code::BadJson | Code::BadBody));
        }
    }
}
