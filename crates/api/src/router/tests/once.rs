//! A27: with an `Idempotency-Key` a request takes effect once, however often it comes.

use skytale_wire::id::Digest;

use super::*;
use crate::store::Claim;

impl House {
    async fn keyed(&self, key: &str, path: &str, bearer: &str, body: Value) -> Answer {
        self.send(keyed(key, path, bearer, &body)).await
    }

    async fn key_names(&self, bearer: &str) -> Vec<String> {
        let keys: Keys = self.get("/v1/keys?limit=100", bearer).await.read();
        keys.keys.into_iter().map(|key| key.name).collect()
    }
}

fn keyed(key: &str, path: &str, bearer: &str, body: &Value) -> Request<Body> {
    let mut request = Request::post(path)
        .header("content-type", "application/json")
        .header("idempotency-key", key);
    if !bearer.is_empty() {
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    request.body(Body::from(body.to_string())).unwrap()
}

#[tokio::test]
async fn a_key_is_made_once_however_often_and_however_at_once_it_is_asked_for() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let wish = json!({"name": "second"});
    let together = (0..10).map(|_| {
        let request = keyed("first-try", "/v1/keys", alice.key(), &wish);
        tokio::spawn(house.router.clone().oneshot(request))
    });
    let mut shown = Vec::new();
    for answer in together.collect::<Vec<_>>() {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        shown.push(body);
    }
    let later = house
        .keyed("first-try", "/v1/keys", alice.key(), wish)
        .await;
    shown.push(later.body.into());

    assert!(
        shown.windows(2).all(|pair| pair[0] == pair[1]),
        "one answer"
    );
    assert_eq!(house.key_names(alice.session()).await, ["first", "second"]);
    let made: NewKey = serde_json::from_slice(&shown[0]).unwrap();
    assert_eq!(house.token(made.key.expose(), json!({})).await.status, 200);
}

#[tokio::test]
async fn after_a_restart_it_is_still_done_and_secrets_are_not_shown_again() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let asked = [
        ("/v1/keys", json!({"name": "second"})),
        ("/v1/tokens", agent_request()),
    ];
    for (path, body) in &asked {
        let first = house.keyed(path, path, alice.key(), body.clone()).await;
        assert!(first.status.is_success(), "{}", first.body);
    }
    let login = json!({"email": "alice@example.org", "password": PASSWORD});
    let signed_in = house.keyed("in", "/v1/sessions", "", login.clone()).await;
    assert_eq!(signed_in.status, 201);
    let sign_up = json!({"email": "bob@example.org", "password": PASSWORD});
    let signed_up = house.keyed("up", "/v1/accounts", "", sign_up.clone()).await;
    assert_eq!(signed_up.status, 202);

    let house = house.restarted().await;

    for (path, body) in asked {
        let again = house.keyed(path, path, alice.key(), body).await;
        assert_eq!(
            (again.status.as_u16(), again.code()),
            (409, Code::AlreadyDone)
        );
    }
    let again = house.keyed("in", "/v1/sessions", "", login).await;
    assert_eq!(again.code(), Code::AlreadyDone);
    let again = house.keyed("up", "/v1/accounts", "", sign_up).await;
    assert_eq!(
        (again.status, &again.body),
        (signed_up.status, &signed_up.body)
    );
    assert_eq!(again.headers["content-type"], "application/json");
    assert_eq!(house.key_names(alice.session()).await, ["first", "second"]);
    let usage: Usage = house.get("/v1/usage", alice.session()).await.read();
    assert_eq!(usage.months[0].used.token_exchanges, 1);
}

#[tokio::test]
async fn a_key_is_for_one_request_of_one_account_and_one_who_asks() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let bob = house.person("bob").await;
    let wish = json!({"name": "second", "scopes": ["relay", "keys"]});
    let made = house
        .keyed("one", "/v1/keys", alice.key(), wish.clone())
        .await;
    let made: NewKey = made.read();

    let spelt = "{ \"scopes\":[\"relay\",\"keys\"],\n\"name\":\"s\\u0065cond\"}";
    let mut same = keyed("one", "/v1/keys", alice.key(), &json!({}));
    *same.body_mut() = Body::from(spelt);
    let same = house.send(same).await;
    assert_eq!(same.code(), Code::AlreadyDone, "spelt otherwise");
    for (path, bearer, body) in [
        ("/v1/keys", alice.key(), json!({"name": "third"})),
        ("/v1/tokens", alice.key(), wish.clone()),
        // Whoever may do less must not be handed what somebody else was.
        ("/v1/keys", made.key.expose(), wish.clone()),
        ("/v1/keys", alice.session(), wish.clone()),
    ] {
        let other = house.keyed("one", path, bearer, body).await;
        assert_eq!(
            (other.status.as_u16(), other.code()),
            (422, Code::OtherRequest)
        );
    }
    let theirs = house
        .keyed("one", "/v1/keys", bob.key(), wish.clone())
        .await;
    assert_eq!(theirs.status, 201, "Bob has his own");
    let no_key = house.keyed("one", "/v1/keys", "sk_live_x", wish).await;
    assert_eq!(no_key.code(), Code::Unauthenticated);
    assert_eq!(house.key_names(alice.session()).await, ["first", "second"]);
}

/// The password is in no hash that is stored; so a session must not be handed out for it.
#[tokio::test]
async fn a_session_is_shown_again_to_nobody_with_another_password() {
    let house = House::open().await;
    house.person("alice").await;
    let login = |password: &str| json!({"email": "alice@example.org", "password": password});
    let first = house.keyed("in", "/v1/sessions", "", login(PASSWORD)).await;
    assert_eq!(first.status, 201);

    let right = house.keyed("in", "/v1/sessions", "", login(PASSWORD)).await;
    let wrong = house
        .keyed("in", "/v1/sessions", "", login("wrong one!"))
        .await;

    assert_eq!((right.status, &right.body), (first.status, &first.body));
    assert_eq!(wrong.code(), Code::AlreadyDone);
    assert!(!wrong.body.contains("token\":"));
}

#[tokio::test]
async fn a_refusal_is_not_kept() {
    let house = House::open_with(|config| config.live_keys_max = 2).await;
    let alice = house.person("alice").await;
    let login = |password: &str| json!({"email": "alice@example.org", "password": password});
    let wrong = house
        .keyed("in", "/v1/sessions", "", login("wrong one!"))
        .await;
    assert_eq!(wrong.code(), Code::WrongPassword);
    let right = house.keyed("in", "/v1/sessions", "", login(PASSWORD)).await;
    assert_eq!(right.status, 201);

    let wish = json!({"name": "second"});
    let flood = house.app.hasher.occupy();
    let busy = house
        .keyed("make", "/v1/keys", alice.session(), wish.clone())
        .await;
    assert_eq!(busy.code(), Code::Busy);
    drop(flood);
    let made = house
        .keyed("make", "/v1/keys", alice.session(), wish.clone())
        .await;
    assert_eq!(made.status, 201);
    let full = house
        .keyed("more", "/v1/keys", alice.session(), wish.clone())
        .await;
    assert_eq!(full.code(), Code::TooManyKeys);
    let path = format!("/v1/keys/{}", alice.key.id);
    house
        .call(Method::DELETE, &path, alice.session(), Value::Null)
        .await;
    let fits = house.keyed("more", "/v1/keys", alice.session(), wish).await;
    assert_eq!(fits.status, 201);
}

#[tokio::test]
async fn a_day_later_it_is_a_new_request() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let asks = async || {
        let wish = json!({"name": "daily"});
        let answer = house.keyed("daily", "/v1/keys", alice.key(), wish).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body
    };
    let first = asks().await;

    house.now.fetch_add(24 * 3_600_000, Ordering::Relaxed);
    assert_eq!(asks().await, first);
    house.now.fetch_add(1, Ordering::Relaxed);
    assert_ne!(asks().await, first);

    let names = house.key_names(alice.key()).await;
    assert_eq!(names, ["first", "daily", "daily"]);
}

#[tokio::test]
async fn who_goes_away_in_the_middle_finds_it_done() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let wish = json!({"name": "second"});
    let request = keyed("gone", "/v1/keys", alice.key(), &wish);
    let impatient = tokio::spawn(house.router.clone().oneshot(request));
    while house.app.unattended.is_empty() {
        assert!(!impatient.is_finished());
        tokio::task::yield_now().await;
    }
    impatient.abort();
    assert!(impatient.await.unwrap_err().is_cancelled());

    let again = house.keyed("gone", "/v1/keys", alice.key(), wish).await;

    assert_eq!(again.status, 201, "{}", again.body);
    assert_eq!(house.key_names(alice.session()).await, ["first", "second"]);
}

#[tokio::test]
async fn what_was_cut_off_is_not_tried_again_by_itself() {
    let house = House::open_with(|config| config.request_ms_max = 2_000).await;
    let alice = house.person("alice").await;
    let wish = json!({"name": "second"});
    // As a server leaves it that dies in the middle.
    house
        .keyed("cut", "/v1/keys", alice.key(), wish.clone())
        .await;
    let file = rusqlite::Connection::open(house.dir.path().join("api.db")).unwrap();
    let (mark, request) = file
        .query_row("SELECT id, request FROM once", [], |row| {
            Ok((Digest(row.get(0)?), Digest(row.get(1)?)))
        })
        .unwrap();
    file.execute("DELETE FROM once", []).unwrap();
    let now = house.app.clock.now();
    let claim = Claim {
        mark,
        request,
        now,
        given_up: now,
    };
    house.app.store.claim(claim).await.unwrap();

    let again = house
        .keyed("cut", "/v1/keys", alice.key(), wish.clone())
        .await;
    assert_eq!((again.status.as_u16(), again.code()), (409, Code::UnderWay));
    assert_eq!(again.headers["retry-after"], "1");
    house.now.fetch_add(4_001, Ordering::Relaxed);
    let again = house.keyed("cut", "/v1/keys", alice.key(), wish).await;
    assert_eq!(
        (again.status.as_u16(), again.code()),
        (409, Code::OutcomeUnknown)
    );
    assert_eq!(house.key_names(alice.session()).await, ["first", "second"]);
}

#[tokio::test]
async fn what_is_stored_of_it_holds_no_secret() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let login = json!({"email": "bob@example.org", "password": "needle password"});
    house
        .keyed("needle-key-1", "/v1/accounts", "", login.clone())
        .await;
    let session: Session = house
        .keyed("needle-key-2", "/v1/sessions", "", login)
        .await
        .read();
    let made: NewKey = house
        .keyed(
            "needle-key-3",
            "/v1/keys",
            alice.key(),
            json!({"name": "x"}),
        )
        .await
        .read();
    let token: TokenAnswer = house
        .keyed("needle-key-4", "/v1/tokens", alice.key(), agent_request())
        .await
        .read();

    let file = rusqlite::Connection::open(house.dir.path().join("api.db")).unwrap();
    let rows: u32 = file
        .query_row(
            "SELECT count(*) FROM once WHERE status IS NOT NULL",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(rows, 4);
    let mut stored = String::new();
    for entry in std::fs::read_dir(house.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            stored.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap()));
        }
    }
    let secret = made.key.expose().rsplit('_').next().unwrap();
    for needle in [
        "needle",
        secret,
        token.token.expose(),
        session.token.expose(),
    ] {
        assert!(!stored.contains(needle));
    }
}

#[tokio::test]
async fn what_is_no_key_is_refused_and_other_methods_do_not_look_at_it() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let long = "x".repeat(129);
    for bad in ["", " ", "a b", &long] {
        let answer = house
            .keyed(bad, "/v1/keys", alice.key(), json!({"name": "x"}))
            .await;
        assert_eq!(answer.code(), Code::BadRequest, "{bad:?}");
    }
    let get = Request::get("/v1/keys")
        .header("authorization", format!("Bearer {}", alice.key()))
        .header("idempotency-key", "a b")
        .body(Body::empty())
        .unwrap();
    assert_eq!(house.send(get).await.status, 200);
    for (body, code) in [
        ("", Code::BadJson),
        ("[]", Code::BadBody),
        ("{", Code::BadJson),
    ] {
        let mut request = keyed("odd", "/v1/keys", alice.key(), &json!({}));
        *request.body_mut() = Body::from(body);
        assert_eq!(house.send(request).await.code(), code);
    }
    let mut request = keyed("odd", "/v1/keys", alice.key(), &json!({}));
    *request.body_mut() = Body::from("x".repeat(70_000));
    assert_eq!(house.send(request).await.code(), Code::TooLarge);
    assert_eq!(house.key_names(alice.session()).await, ["first"]);
}

/// Each is a row for a day: there is a limit to them.
#[tokio::test]
async fn an_account_has_so_many_a_day() {
    let house = House::open_with(|config| config.key_requests_per_second_max = 1_000_000).await;
    let alice = house.person("alice").await;
    house.now.fetch_add(1_000, Ordering::Relaxed);
    for n in 0..10_000 {
        // Refused before anything is stored, and counted all the same.
        let mut request = keyed(&n.to_string(), "/v1/tokens", alice.key(), &json!({}));
        *request.body_mut() = Body::from("[]");
        assert_eq!(house.send(request).await.code(), Code::BadBody);
    }
    house.now.fetch_add(1_000, Ordering::Relaxed);

    let refused = house
        .keyed("more", "/v1/tokens", alice.key(), json!({}))
        .await;

    assert_eq!(refused.code(), Code::TooManyRequests);
    assert_eq!(refused.headers["retry-after"], "8");
    assert_eq!(house.token(alice.key(), json!({})).await.status, 200);
}
