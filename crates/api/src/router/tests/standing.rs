//! What ends: passwords and their sessions, accounts, keys with fewer rights or less time, agents
//! that are shut out.

use skytale_wire::http::{Agents, Key};

use super::*;

const NEW_PASSWORD: &str = "staple battery horse";

impl House {
    async fn sign_in(&self, name: &str, password: &str) -> Answer {
        let login = json!({"email": format!("{name}@example.org"), "password": password});
        self.post("/v1/sessions", "", login).await
    }

    async fn put(&self, path: &str, bearer: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, bearer, body).await
    }

    async fn make(&self, bearer: &str, wish: Value) -> NewKey {
        let made = self.post("/v1/keys", bearer, wish).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
        made.read()
    }

    fn later(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }

    async fn listed(&self, bearer: &str, id: &str) -> Key {
        let keys: Keys = self.get("/v1/keys?limit=100", bearer).await.read();
        keys.keys.into_iter().find(|key| key.id == id).unwrap()
    }
}

fn token_request(agent: AgentId) -> Value {
    json!({
        "agent_id": agent,
        "transport_key": TransportKey([5; 32]),
        "audience": relay(),
    })
}

#[tokio::test]
async fn a_name_is_kept_and_shown() {
    let house = House::open().await;
    let login = json!({"email": "alice@example.org", "password": PASSWORD});
    let mut named = login.clone();
    named["name"] = json!("Alice Ω");
    house.post("/v1/accounts", "", named).await;
    let session: Session = house.post("/v1/sessions", "", login).await.read();

    let me: Account = house
        .get("/v1/accounts/me", session.token.expose())
        .await
        .read();

    assert_eq!(me.name, "Alice Ω");
    for bad in ["a\u{1b}[2J", &"x".repeat(101)] {
        let body = json!({"email": "b@example.org", "password": PASSWORD, "name": bad});
        assert_eq!(
            house.post("/v1/accounts", "", body).await.code(),
            Code::BadBody
        );
    }
}

#[tokio::test]
async fn a_new_password_ends_the_old_one_and_every_session() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let account: TokenAnswer = house.token(alice.key(), json!({})).await.read();
    let path = "/v1/accounts/me/password";
    let change = |from: &str, to: &str| json!({"password": from, "new_password": to});
    house.later(1_000);
    let wrong = house
        .put(path, alice.session(), change("wrong one!", NEW_PASSWORD))
        .await;
    assert_eq!(wrong.code(), Code::WrongPassword);
    let short = house
        .put(path, alice.session(), change(PASSWORD, "short"))
        .await;
    assert_eq!(short.code(), Code::BadBody);
    for bearer in [alice.key(), account.token.expose()] {
        let denied = house
            .put(path, bearer, change(PASSWORD, NEW_PASSWORD))
            .await;
        assert_eq!(denied.code(), Code::Denied, "only who has signed in");
    }

    let changed = house
        .put(path, alice.session(), change(PASSWORD, NEW_PASSWORD))
        .await;

    assert_eq!(changed.status, StatusCode::NO_CONTENT);
    let stale = house.get("/v1/accounts/me", alice.session()).await;
    assert_eq!(stale.code(), Code::Unauthenticated);
    assert_eq!(
        house.sign_in("alice", PASSWORD).await.code(),
        Code::WrongPassword
    );
    let session: Session = house.sign_in("alice", NEW_PASSWORD).await.read();
    assert_eq!(
        house
            .get("/v1/accounts/me", session.token.expose())
            .await
            .status,
        200,
        "a session of the same second counts"
    );
    assert_eq!(
        house.token(alice.key(), json!({})).await.status,
        200,
        "keys are as before"
    );
}

#[tokio::test]
async fn a_deleted_account_is_over_at_once_and_its_address_free() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let token: TokenAnswer = house.token(alice.key(), json!({})).await.read();
    house.token(alice.key(), agent_request()).await;
    let path = "/v1/accounts/me/deletion";
    let body = json!({"password": PASSWORD});
    for bearer in [alice.key(), token.token.expose()] {
        let denied = house.post(path, bearer, body.clone()).await;
        assert_eq!(denied.code(), Code::Denied);
    }
    let wrong = json!({"password": "wrong one!"});
    let refused = house.post(path, alice.session(), wrong).await;
    assert_eq!(refused.code(), Code::WrongPassword);

    let deleted = house.post(path, alice.session(), body.clone()).await;

    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    let bought = house.token(alice.key(), json!({})).await;
    assert_eq!(bought.code(), Code::Unauthenticated);
    for bearer in [alice.session(), alice.key(), token.token.expose()] {
        let seen = house.get("/v1/usage", bearer).await;
        assert_eq!(seen.code(), Code::Unauthenticated);
    }
    let again = house.post(path, alice.session(), body).await;
    assert_eq!(again.code(), Code::Unauthenticated);
    assert_eq!(
        house.sign_in("alice", PASSWORD).await.code(),
        Code::WrongPassword
    );
    let second = house.person("alice").await;
    assert_ne!(second.session.account_id, alice.session.account_id);
    let usage: Usage = house.get("/v1/usage", second.key()).await.read();
    assert_eq!(usage.months, []);
}

/// A16 and A17: what each scope of a key permits, and that no key makes a greater one.
#[tokio::test]
async fn a_key_may_do_what_its_scopes_say_and_hands_on_no_more() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let slim = slim_request();
    for scope in ["relay", "slim", "account", "keys"] {
        let key = house
            .make(
                alice.session(),
                json!({"name": scope, "scopes": [scope, scope]}),
            )
            .await;
        let bearer = key.key.expose();
        let status = |permitted: bool, good: u16| if permitted { good } else { 403 };
        for (body, needed) in [
            (agent_request(), "relay"),
            (slim.clone(), "slim"),
            (json!({}), "account"),
        ] {
            let bought = house.token(bearer, body).await.status.as_u16();
            assert_eq!(bought, status(scope == needed, 200), "{scope} {needed}");
        }
        for path in ["/v1/accounts/me", "/v1/keys", "/v1/agents", "/v1/usage"] {
            let read = house.get(path, bearer).await.status.as_u16();
            assert_eq!(read, status(scope == "account", 200), "{scope} {path}");
        }
        let made = house.post("/v1/keys", bearer, json!({"name": "x"})).await;
        assert_eq!(made.status.as_u16(), status(scope == "keys", 201));
        let agent = format!("/v1/agents/{}", AgentId([9; 32]));
        let shut = house.put(&agent, bearer, json!({"disabled": true})).await;
        assert_eq!(shut.status.as_u16(), status(scope == "keys", 404));
        let path = "/v1/keys/nonesuch/rotation";
        let rotated = house.post(path, bearer, json!({})).await;
        assert_eq!(rotated.status.as_u16(), status(scope == "keys", 404));
    }

    let wish = json!({"name": "half", "scopes": ["keys", "relay"], "expires_in_s": 3600});
    let half = house.make(alice.session(), wish).await;
    let own = house
        .make(half.key.expose(), json!({"name": "child"}))
        .await;
    assert_eq!(own.scopes, half.scopes);
    assert_eq!(own.expires_at, half.expires_at, "and no longer");
    for wish in [
        json!({"name": "x", "scopes": ["account"]}),
        json!({"name": "x", "scopes": ["relay", "slim"]}),
        json!({"name": "x", "expires_in_s": 3601}),
    ] {
        let refused = house.post("/v1/keys", half.key.expose(), wish).await;
        assert_eq!(refused.code(), Code::Denied);
    }
    let greater = format!("/v1/keys/{}/rotation", alice.key.id);
    let refused = house.post(&greater, half.key.expose(), json!({})).await;
    assert_eq!(refused.code(), Code::Denied, "nor by rotating another one");
    for wish in [
        json!({"name": "x", "scopes": []}),
        json!({"name": "x", "scopes": ["admin"]}),
        json!({"name": "x", "expires_in_s": 0}),
        json!({"name": "x", "expires_in_s": u64::MAX}),
    ] {
        let refused = house.post("/v1/keys", alice.session(), wish).await;
        assert_eq!(refused.code(), Code::BadBody);
    }
}

#[tokio::test]
async fn a_key_ends_by_itself_and_no_token_outlives_it() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let wish = json!({"name": "brief", "expires_in_s": 600});
    let brief = house.make(alice.session(), wish).await;
    let key = brief.key.expose();
    let expires = brief.expires_at.clone().unwrap();
    house.later(60_000);

    let token: TokenAnswer = house.token(key, json!({})).await.read();

    assert_eq!((token.expires_at, token.expires_in_s), (expires, 540));
    house.later(539_000);
    assert_eq!(house.token(key, json!({})).await.status, 200);
    house.later(1_000);
    assert_eq!(
        house.token(key, json!({})).await.code(),
        Code::Unauthenticated
    );
    let read = house.get("/v1/usage", token.token.expose()).await;
    assert_eq!(read.code(), Code::Unauthenticated);
    let listed = house.listed(alice.session(), &brief.id).await;
    assert!(listed.expires_at.is_some() && listed.revoked_at.is_none());
}

#[tokio::test]
async fn a_rotated_key_hands_on_what_it_may_and_ends_when_it_was_said() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let wish = json!({"name": "ci", "scopes": ["keys", "relay"], "expires_in_s": 7200});
    let old = house.make(alice.session(), wish).await;
    house.later(600_000);
    let path = format!("/v1/keys/{}/rotation", old.id);

    let new: NewKey = house
        .post(&path, old.key.expose(), json!({"overlap_s": 60}))
        .await
        .read();

    assert_eq!((&new.name, &new.scopes), (&old.name, &old.scopes));
    let full = rfc3339_of(NOW.plus(600_000 + 7_200_000));
    assert_eq!(
        new.expires_at,
        Some(full),
        "as much time as the old one had"
    );
    for key in [&old, &new] {
        let bought = house.token(key.key.expose(), agent_request()).await;
        assert_eq!(bought.status, 200);
    }
    house.later(60_000);
    let bought = house.token(old.key.expose(), agent_request()).await;
    assert_eq!(bought.code(), Code::Unauthenticated);
    let gone = house.post(&path, alice.session(), json!({})).await;
    assert_eq!(gone.code(), Code::NotFound, "it is over");

    let path = format!("/v1/keys/{}/rotation", new.id);
    let mallory = house.person("mallory").await;
    let stranger = house.post(&path, mallory.session(), json!({})).await;
    assert_eq!(stranger.code(), Code::NotFound);
    let third: NewKey = house.post(&path, alice.session(), json!({})).await.read();
    let bought = house.token(new.key.expose(), agent_request()).await;
    assert_eq!(bought.code(), Code::Unauthenticated, "at once");
    assert!(
        house
            .listed(alice.session(), &new.id)
            .await
            .revoked_at
            .is_some()
    );
    let bought = house.token(third.key.expose(), agent_request()).await;
    assert_eq!(bought.status, 200);
}

#[tokio::test]
async fn an_agent_that_is_shut_out_gets_no_token_until_it_is_let_in() {
    let house = House::open().await;
    let alice = house.person("alice").await;
    let mallory = house.person("mallory").await;
    let (first, second) = (AgentId([1; 32]), AgentId([2; 32]));
    for agent in [first, second] {
        house.token(alice.key(), token_request(agent)).await;
    }
    house.token(mallory.key(), token_request(second)).await;
    let path = format!("/v1/agents/{second}");
    let disabled = |it: bool| json!({"disabled": it});
    let unknown = format!("/v1/agents/{}", AgentId([3; 32]));
    for (path, bearer) in [
        (unknown.as_str(), alice.key()),
        ("/v1/agents/nobody", alice.key()),
    ] {
        let missing = house.put(path, bearer, disabled(true)).await;
        assert_eq!(missing.code(), Code::NotFound);
    }

    let shut = house.put(&path, alice.key(), disabled(true)).await;

    assert_eq!(shut.status, StatusCode::NO_CONTENT);
    let refused = house.token(alice.key(), token_request(second)).await;
    assert_eq!(refused.code(), Code::AgentDisabled);
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    for (key, agent) in [(alice.key(), first), (mallory.key(), second)] {
        let other = house.token(key, token_request(agent)).await;
        assert_eq!(other.status, 200, "nobody else is");
    }
    let page: Agents = house.get("/v1/agents?limit=1", alice.key()).await.read();
    assert_eq!((page.agents[0].id, page.next), (first, Some(first)));
    let after = format!("/v1/agents?limit=2&after={first}");
    let page: Agents = house.get(&after, alice.key()).await.read();
    assert_eq!((page.agents[0].id, page.next), (second, None));
    assert!(page.agents[0].disabled_at.is_some());
    let theirs: Agents = house.get("/v1/agents", mallory.key()).await.read();
    assert!(theirs.agents.iter().all(|it| it.disabled_at.is_none()));

    house.put(&path, alice.key(), disabled(false)).await;
    let bought = house.token(alice.key(), token_request(second)).await;
    assert_eq!(bought.status, 200);
}

fn rfc3339_of(time: Time) -> String {
    crate::clock::rfc3339(time)
}
